"""Fix and continue: a call that is under way goes on in the new code, or begins again in it."""

from __future__ import annotations

import re
import signal

import pytest
from answerer import LANGUAGES, Answerer
from processor import has_amx
from scenario import Edit, Talk
from sessions import Outcome, Session, answer, debug_with

from ipbp.cli.debuggers import find_debugger

pytestmark = pytest.mark.live

FIRST = Edit("first", "frames.c", [("int value = list->value;", "int value = list ? list->value : 7;")], [], [])
ADD = Edit("add", "till.cpp", [("price += item->value *", "price += (item ? item->value : 8) *")], [], [])
SUM = Edit(
    "sum", "frames.c", [("        list = list->next;", "        list = list->next ? list->next : list;")], [], []
)
MEAN = Edit("mean", "frames.c", [("volatile nowhere = NULL", "volatile nowhere = &total")], [], [])
COUNTED = Edit("counted", "frames.c", [("(long)(n - 6) = here", "&total = here + 100")], [], [])
CHECKED = "require(twice < 10,", "require(twice < 100,"
ASSERTED = "(twice < 10)", "(twice < 100)"
PLAIN = "twice + 1;", "twice + 1000;"
LOOP = {
    "c": ('printf("%d\\n", answer);', 'printf("answer %d\\n", answer);', "answer 41"),
    "c++": ("<< shop::plain(20)", '<< "answer " << shop::plain(20)', "answer 41"),
    "rust": ('println!("{}", answer(&line));', 'println!("answer {}", answer(&line));', "answer 41"),
}
"""By language: an edit of `main`, and what it answers then."""
OTHER_TYPE = Edit("first", "frames.c", [("int start = 5;", "long start = 5;")], [], [])
GROWN = Edit("first", "frames.c", [("int start = 5;", "int room[90] = {scale}, start = 5 + room[8];")], [], [])


IN_EACH_LANGUAGE = pytest.mark.parametrize("project", LANGUAGES, indirect=True)
MOSTLY_IN_C = pytest.mark.parametrize(
    "project", ["c", *(pytest.param(name, marks=pytest.mark.slow) for name in ("c++", "rust"))], indirect=True
)
ALSO_REMOTE = pytest.mark.parametrize("session", ["gdb", "lldb", "gdbserver", "lldb-server"], indirect=True)


def stop_in(session: Session, talk: Talk, command: str) -> None:
    session.resume()
    talk.tell(command)
    session.wait_until_stopped()


def said_after(session: Session, talk: Talk) -> str:
    session.resume()
    said, stops = answer(talk, session)
    assert stops == 0
    return said


def variable(session: Session, name: str) -> int:
    """Of the selected frame, as a user asks for it: what `evaluate` does is said in C."""
    shown = session.tell(f"print {name}" if session.name.startswith("gdb") else f"frame variable {name}")
    return int(re.findall(r" = (-?\d+)", shown)[-1])


def select_frame(session: Session, function: str) -> int:
    """The level of the innermost frame of that function, which is selected."""
    verb = "frame" if session.name.startswith("gdb") else "frame select"
    for level in range(20):
        said = session.tell(f"{verb} {level}")
        if re.search(rf"#{level} .*(\b{function} \(|`{function}\b)", said) or re.search(
            rf"#{level}: .*`{function}\b", said
        ):
            return level
    raise AssertionError(f"no frame of {function}: {said}")


def codes(outcome: Outcome) -> list[str]:
    assert outcome["outcome"] == "refused", outcome
    return [row["code"] for row in outcome["refusals"]]


@ALSO_REMOTE
def test_a_crash_goes_on_in_the_edited_line(session: Session, project: Answerer, talk: Talk) -> None:
    stop_in(session, talk, "first")
    assert "first" in session.where()
    project.edit(FIRST)
    outcome = session.call("apply --frame remap")
    assert outcome["outcome"] == "patched", outcome["text"]
    assert outcome["frame"]["signal"] == "SIGSEGV"
    assert f"frames.c:{project.line_of('int value = list ?')}" in session.where()
    assert session.evaluate("start") == 7
    assert said_after(session, talk) == "21"


def test_a_call_goes_on_in_a_larger_frame_with_its_variables_moved(
    session: Session, project: Answerer, talk: Talk
) -> None:
    stop_in(session, talk, "first")
    before = session.evaluate("&scale"), session.evaluate("$sp")
    project.edit(FIRST, GROWN)
    outcome = session.call("apply --frame remap")
    assert outcome["outcome"] == "patched", outcome["text"]
    assert session.evaluate("start") == 7
    assert session.evaluate("scale") == 2
    assert session.evaluate("&scale") < before[0]
    assert session.evaluate("$sp") < before[1]
    assert said_after(session, talk) == "21"
    assert answer(talk, session, "plain") == ("41", 0)


@pytest.mark.slow
@ALSO_REMOTE
def test_a_crash_begins_again_with_its_arguments(session: Session, project: Answerer, talk: Talk) -> None:
    stop_in(session, talk, "sum")
    project.edit(SUM)
    outcome = session.call("apply --frame restart")
    assert outcome["outcome"] == "patched", outcome["text"]
    assert said_after(session, talk) == str(10 + 30 + 30 + 4)


@ALSO_REMOTE
def test_floating_point_arguments_are_passed_again(session: Session, project: Answerer, talk: Talk) -> None:
    stop_in(session, talk, "mean")
    project.edit(MEAN)
    outcome = session.call("apply --frame restart")
    if session.name == "gdbserver" and has_amx():
        assert outcome["error"]["code"] == "inferior-register", outcome["text"]
        assert "rolled back" in outcome["text"]
        return
    assert outcome["outcome"] == "patched", outcome["text"]
    assert said_after(session, talk) == "60"


@pytest.mark.slow
def test_an_argument_that_was_assigned_to_is_refused_and_passed_on_consent(
    session: Session, project: Answerer, talk: Talk
) -> None:
    stop_in(session, talk, "counted")
    project.edit(COUNTED)
    outcome = session.call("apply --frame restart")
    if outcome["outcome"] == "patched":  # it is still in its register
        assert said_after(session, talk) == "6"
        return
    assert codes(outcome) == ["frame-argument-gone"]
    assert session.call("status")["patches"] == []
    outcome = session.call("apply --frame restart --current-arguments")
    assert outcome["outcome"] == "patched", outcome["text"]
    assert said_after(session, talk) == "7"


@MOSTLY_IN_C
def test_at_a_breakpoint_the_rest_of_the_call_is_new(session: Session, project: Answerer, talk: Talk) -> None:
    session.break_at(file=project.source.name, line=project.line_of("more ="))
    stop_in(session, talk, "plain")
    project.replace(*PLAIN)
    outcome = session.call("apply --frame remap")
    assert outcome["outcome"] == "patched", outcome["text"]
    assert outcome["frame"]["signal"] == ""
    assert variable(session, "twice") == 40
    session.delete_breakpoints()
    assert said_after(session, talk) == "1040"


@MOSTLY_IN_C
def test_without_being_asked_for_a_call_ends_in_its_old_code(session: Session, project: Answerer, talk: Talk) -> None:
    session.break_at(file=project.source.name, line=project.line_of("more ="))
    stop_in(session, talk, "plain")
    session.delete_breakpoints()
    project.replace(*PLAIN)
    outcome = session.call("apply")
    assert outcome["outcome"] == "patched", outcome["text"]
    assert "frame" not in outcome
    assert any(re.search(r"old '(\w+::)?plain\b", note) for note in outcome["notes"]), outcome["notes"]
    offer = next(note for note in outcome["notes"] if "`hotpatch --frame remap`" in note)
    assert "--frame restart" in offer
    assert said_after(session, talk) == "41"


@MOSTLY_IN_C
def test_what_was_offered_with_the_patch_can_be_had_later(session: Session, project: Answerer, talk: Talk) -> None:
    session.break_at(file=project.source.name, line=project.line_of("more ="))
    stop_in(session, talk, "plain")
    session.delete_breakpoints()
    project.replace(*PLAIN)
    assert session.call("apply")["outcome"] == "patched"
    outcome = session.call("apply --frame remap")
    assert outcome["outcome"] == "patched", outcome["text"]
    assert re.fullmatch(r"(\w+::)?plain", outcome["frame"]["function"]), outcome["frame"]
    assert [patch["patch"] for patch in session.call("status")["patches"]] == [2]
    assert said_after(session, talk) == "1040"


@pytest.mark.slow
def test_what_cannot_be_had_later_leaves_the_patch(session: Session, project: Answerer, talk: Talk) -> None:
    stop_in(session, talk, "first")
    project.edit(OTHER_TYPE)
    outcome = session.call("apply")
    assert outcome["outcome"] == "patched", outcome["text"]
    offer = next(note for note in outcome["notes"] if "still in old code" in note)
    assert "remap" not in offer
    assert codes(session.call("apply --frame remap")) == ["frame-layout-changed"]
    (patch,) = session.call("status")["patches"]
    assert "first" in [row["name"] for row in patch["functions"]]


@pytest.mark.parametrize("project", ["c", "c++"], indirect=True)
def test_a_crash_in_a_callee_goes_on_when_its_calls_may_be_dropped(
    session: Session, project: Answerer, talk: Talk
) -> None:
    stop_in(session, talk, "checked")
    assert select_frame(session, f"{project.scope}checked") > 0
    project.replace(*CHECKED)
    before = session.evaluate("$pc")
    assert codes(session.call("apply --frame remap")) == ["frame-unwinds"]
    assert session.evaluate("$pc") == before
    outcome = session.call("apply --frame remap --unwind")
    assert outcome["outcome"] == "patched", outcome["text"]
    assert outcome["frame"]["signal"] == "SIGSEGV"
    (dropped,) = outcome["frame"]["dropped"]
    assert re.match(rf"{project.scope}require\b", dropped)
    assert "checked" in session.where()
    assert said_after(session, talk) == "14"
    assert talk.ask("plain") == "41"


@pytest.mark.parametrize(
    ("project", "how", "way_out"),
    [("c", "remap", "__GI___assert_fail"), ("c++", "restart", "__cxa_throw")],
    indirect=["project"],
)
def test_an_abort_goes_on_in_the_function_that_failed(project: Answerer, talk: Talk, how: str, way_out: str) -> None:
    # lldb 19 does not find its way out of raise(3) where the C library has a separate debug file.
    with debug_with("gdb", find_debugger("gdb")) as session:
        session.attach(talk.process.pid)
        stop_in(session, talk, "asserted")
        assert select_frame(session, f"{project.scope}asserted") > 2
        project.replace(*ASSERTED)
        outcome = session.call(f"apply --frame {how} --unwind")
        assert outcome["outcome"] == "patched", outcome["text"]
        assert outcome["frame"]["signal"] == "SIGABRT"
        assert outcome["frame"]["dropped"][-1] == way_out
        assert "asserted" in session.where()
        assert said_after(session, talk) == "14"
        assert talk.ask("plain") == "41"


@pytest.mark.slow
def test_a_crash_in_a_callee_begins_again(session: Session, project: Answerer, talk: Talk) -> None:
    stop_in(session, talk, "checked")
    select_frame(session, "checked")
    project.replace(*CHECKED)
    outcome = session.call("apply --frame restart --unwind")
    assert outcome["outcome"] == "patched", outcome["text"]
    assert said_after(session, talk) == "14"


@IN_EACH_LANGUAGE
def test_an_endless_loop_is_patched_while_it_waits(session: Session, project: Answerer, talk: Talk) -> None:
    session.resume()
    assert talk.ask("plain") == "41"
    talk.until_it_reads()
    session.stop()
    assert select_frame(session, project.main) > 0
    old, new, said = LOOP[project.language]
    project.replace(old, new)
    outcome = session.call("apply --frame remap")
    assert outcome["outcome"] == "patched", outcome["text"]
    assert outcome["frame"]["when_it_returns"]
    session.resume()
    assert talk.ask("plain") == said
    assert talk.ask("plain") == said
    assert talk.close() == 0


@pytest.mark.slow
def test_a_signal_that_was_not_to_be_forgotten_is_delivered(session: Session, project: Answerer, talk: Talk) -> None:
    stop_in(session, talk, "asserted")
    project.replace(*PLAIN)
    outcome = session.call("apply")
    assert outcome["outcome"] == "patched", outcome["text"]
    session.resume()
    if session.name == "lldb":  # our step swallowed it, so it was sent again: another stop
        session.wait_until_stopped()
        session.resume()
    assert talk.process.wait(timeout=20) == -signal.SIGABRT


def test_what_cannot_be_proved_is_refused_and_nothing_is_touched(
    session: Session, project: Answerer, talk: Talk
) -> None:
    stop_in(session, talk, "first")
    project.edit(OTHER_TYPE)
    assert codes(session.call("apply --frame remap")) == ["frame-layout-changed"]
    assert session.call("status")["patches"] == []
    outcome = session.call("apply --frame restart")
    assert outcome["outcome"] == "patched", outcome["text"]
    session.wait_until_stopped()


@pytest.mark.slow
def test_the_selected_frame_must_be_of_a_changed_function(session: Session, project: Answerer, talk: Talk) -> None:
    stop_in(session, talk, "first")
    project.replace(*PLAIN)
    assert codes(session.call("apply --frame remap")) == ["frame-not-changed"]
    assert session.call("status")["patches"] == []
