"""New variables of C++ are initialised once when they come into a running program, and destroyed at its exit."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
from nursery import build_nursery, put_back, said_at_exit, with_variables
from scenario import Project, Talk
from sessions import Outcome, Session, debug_with

from ipbp.cli.debuggers import find_debugger

pytestmark = [pytest.mark.live, pytest.mark.compiles]

LIBCXX = "clang++-19 -stdlib=libc++"
RUNS = [
    ("gdb", "g++", "-O0"),
    ("lldb", "clang++-19", "-O2"),
    ("gdbserver", "g++", "-O2"),
    ("lldb-server", LIBCXX, "-O0"),
    pytest.param(("lldb-server", "clang++-19", "-O0"), marks=pytest.mark.slow),
    pytest.param(("gdb", LIBCXX, "-O2"), marks=pytest.mark.slow),
    pytest.param(("lldb", LIBCXX, "-O2"), marks=pytest.mark.slow),
    pytest.param(("gdb", LIBCXX, "-O0"), marks=pytest.mark.slow),
    pytest.param(("gdb", "g++", "-O2"), marks=pytest.mark.slow),
    pytest.param(("lldb", "clang++-19", "-O0"), marks=pytest.mark.slow),
    pytest.param(("lldb", "g++", "-O0"), marks=pytest.mark.slow),
    pytest.param(("lldb", "g++", "-O2"), marks=pytest.mark.slow),
    pytest.param(("gdb", "clang++-19", "-O2"), marks=pytest.mark.slow),
]
Build = Callable[[str, str], Project]


@dataclass
class Nursery:
    session: Session
    talk: Talk
    project: Project
    is_optimised: bool

    def patch(self, name: str, variables: str, *replace: tuple[str, str]) -> Outcome:
        with_variables(self.project.folder, name, variables, *replace)
        return self.session.call("apply")

    def told(self) -> str:
        return self.talk.ask("told 0").strip()

    def leave(self) -> list[str]:
        """The program goes to its end by itself; what it says there."""
        self.session.stop()
        self.session.detach()
        stdin, stdout = self.talk.process.stdin, self.talk.process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.close()
        lines = stdout.read().decode().splitlines()
        assert self.talk.process.wait(timeout=20) == 0
        stdout.close()
        return lines


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Build:
    """The program of each compiler and level is built once."""

    @cache
    def build(compiler: str, level: str) -> Project:
        name, *library = compiler.split()
        folder = tmp_path_factory.mktemp("b") / "n"
        return build_nursery(folder, level, *library, compiler=name, link=library)

    return build


@pytest.fixture(params=RUNS, ids=" ".join)
def nursery(request: pytest.FixtureRequest, build: Build) -> Iterator[Nursery]:
    debugger, compiler, level = request.param
    project = build(compiler, level)
    put_back(project.folder)
    talk = Talk(project.program)
    path = find_debugger("lldb" if debugger.startswith("lldb") else "gdb")
    with debug_with(debugger, path) as session:
        session.attach(talk.process.pid)
        session.resume()
        yield Nursery(session, talk, project, level == "-O2")
    talk.kill()


def test_new_variables_are_made_once_in_order_and_destroyed_at_exit(nursery: Nursery) -> None:
    talk = nursery.talk
    assert sorted(nursery.told().split()) == ["+first", "+one", "+second", "+shared"]
    assert (talk.ask("plain 1"), talk.ask("kept 1")) == ("2", "103")

    # In a file that had none: one is used by the next, which has the new code of a function at hand.
    outcome = nursery.patch(
        "plain.cpp",
        'static Thing fresh("fresh", 100);\n'
        'static std::string text("a text that does not fit into the small buffer");\n'
        'Thing later("later", fresh.get() + plain(0));\n'
        '__attribute__((constructor(200))) static void begin() { tell("begin", ""); }\n',
        ("x + 1;", "x + 1000 + fresh.get() + (int)text.size();"),
    )
    assert (outcome["outcome"], outcome["notes"]) == ("patched", []), outcome["text"]
    assert {"fresh (new)", "later (new)"} <= set(outcome["data"])
    assert nursery.told() == "begin +fresh +later"
    assert talk.ask("plain 1") == "1147"
    assert nursery.session.call("apply")["outcome"] == "unchanged"
    assert nursery.told() == ""

    # What was made stays when the patches are undone: its destructors are yet to run.
    assert nursery.session.call("undo 0")["outcome"] == "undone"
    assert (talk.ask("plain 1"), talk.ask("kept 1"), nursery.told()) == ("2", "103", "")
    assert sorted(said_at_exit(nursery.leave())) == ["-fresh 100", "-later 1246"]


def test_variables_that_exist_are_not_made_again(nursery: Nursery) -> None:
    talk = nursery.talk
    nursery.told()
    # In one whose variables live on, with guards and priorities.
    outcome = nursery.patch(
        "kept.cpp",
        "#include <map>\n"
        'static Thing third("third", 200);\n'
        'static std::map<int, std::string> table = {{1, "one"}, {2, "two"}};\n'
        'inline Thing inlined("inlined", 1000);\n'
        "template <class T> struct Box { static Thing in; };\n"
        'template <class T> Thing Box<T>::in("box", 10000);\n'
        '__attribute__((init_priority(300))) Thing early("early", 5);\n'
        'static bool done = (tell("done", ""), plain(1) == 2);\n',
        ("return x", "return Box<int>::in.get() + inlined.get() + x + third.get() + (int)table.size() + early.get()"),
        ('Thing second("second", 20)', 'Thing second("another", 21)'),
        ("Many<40>::one.get();", "Many<40>::one.get() + done;"),
    )
    assert outcome["outcome"] == "patched", outcome["text"]
    told = nursery.told().split()
    assert (told[0], sorted(told[1:])) == ("+early", ["+box", "+inlined", "+third", "done"])
    assert told.index("+third") < told.index("done")
    assert talk.ask("kept 1") == "11311"

    # And once more, where a patch has brought variables before.
    outcome = nursery.patch(
        "kept.cpp",
        'static Thing third("third", 1);\nThing last("last", third.get() + 1);\n',
        ("return x", "return x + third.get() + last.get()"),
    )
    assert outcome["outcome"] == "patched", outcome["text"]
    assert nursery.told() == "+last"
    assert talk.ask("kept 1") == "504"

    assert nursery.session.call("undo 0")["outcome"] == "undone"
    assert (talk.ask("kept 1"), nursery.told()) == ("103", "")
    made = ["-box 10000", "-early 5", "-inlined 1000", "-last 201", "-third 200"]
    assert sorted(said_at_exit(nursery.leave())) == made


def test_an_inline_variable_of_a_header_is_made_once_for_all_files(nursery: Nursery) -> None:
    nursery.told()
    header = nursery.project.folder / "thing.h"
    header.write_text(header.read_text() + '\ninline Thing common("common", 700);\n')
    with_variables(nursery.project.folder, "plain.cpp", "", ("return x", "return common.get() + x"))
    with_variables(nursery.project.folder, "kept.cpp", "", ("return x", "return common.value++ + x"))
    outcome = nursery.session.call("apply")
    assert outcome["outcome"] == "patched", outcome["text"]
    assert (nursery.talk.ask("kept 1"), nursery.talk.ask("plain 1"), nursery.told()) == ("803", "703", "+common")
    assert said_at_exit(nursery.leave()) == ["-common 701"]


FIXED = """\
#include <cstdio>
#ifdef __clang__
#define FIXED [[clang::require_constant_initialization]]
#else
#define FIXED __constinit
#endif
struct Cell {
    constexpr Cell(int value) : value(value) {}
    ~Cell() { printf("-cell %d\\n", value); }
    int value;
};
FIXED static Cell cell(7);
FIXED static thread_local int each = 30;
"""


def test_a_variable_with_a_constant_value_has_it_and_is_destroyed(nursery: Nursery) -> None:
    outcome = nursery.patch("plain.cpp", FIXED, ("x + 1;", "x + cell.value++ + each++;"))
    assert outcome["outcome"] == "patched", outcome["text"]
    assert (nursery.talk.ask("plain 1"), nursery.talk.ask("plain 1")) == ("38", "40")
    assert said_at_exit(nursery.leave()) == ["-cell 9"]


PLUGIN = """
#include <cstdio>
struct Noisy {
    explicit Noisy(const char *name) : name(name) { std::printf("+%s\\n", name); std::fflush(stdout); }
    ~Noisy() { std::printf("-%s\\n", name); std::fflush(stdout); }
    const char *name;
};
static Noisy first("first");
// new
extern "C" int value(int x) { return x + (first.name[0] == 'f'); }
"""
HOST = """
#include <dlfcn.h>
#include <iostream>
#include <string>
int main() {
    void *plugin = dlopen("./plugin.so", RTLD_NOW);
    auto value = (int (*)(int))dlsym(plugin, "value");
    for (std::string word; std::cin >> word;) {
        if (word == "value") std::cout << value(1) << std::endl;
        if (word == "close") dlclose(plugin), std::cout << "closed" << std::endl;
    }
}
"""


@pytest.mark.parametrize(("debugger", "compiler"), [("gdb", "g++"), ("lldb", "clang++-19")])
def test_what_a_plugin_got_is_destroyed_when_it_is_closed(
    tmp_path: Path, debugger: str, compiler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = [compiler, "-g", "-O0", "-fPIC", "-c", "plugin.cpp", "-o", "plugin.o"]
    (tmp_path / "plugin.cpp").write_text(PLUGIN)
    (tmp_path / "host.cpp").write_text(HOST)
    rows = [{"directory": str(tmp_path), "file": "plugin.cpp", "arguments": command}]
    (tmp_path / "compile_commands.json").write_text(json.dumps(rows))
    for line in (command, [compiler, "-shared", "plugin.o", "-o", "plugin.so"], [compiler, "host.cpp", "-o", "host"]):
        subprocess.run(line, cwd=tmp_path, check=True)
    monkeypatch.chdir(tmp_path)
    talk = Talk(tmp_path / "host")
    assert (talk.hear(), talk.ask("value")) == ("+first", "2")
    (tmp_path / "plugin.cpp").write_text(
        PLUGIN.replace("// new", 'static Noisy fresh("fresh");').replace(
            "return x", "return x + (fresh.name[1] == 'r')"
        )
    )
    with debug_with(debugger, find_debugger(debugger)) as session:
        session.attach(talk.process.pid)
        session.resume()
        outcome = session.call("apply")
        assert outcome["outcome"] == "patched", outcome["text"]
        assert (talk.hear(), talk.ask("value")) == ("+fresh", "3")
        assert [talk.ask("close"), talk.hear(), talk.hear()] == ["-fresh", "-first", "closed"]
        session.stop()
        session.detach()
    assert talk.close() == 0


TROUBLE = (
    "threw std::runtime_error: no luck today",
    "threw int",
    "crashed: SIGSEGV",
    "crashed: SIGABRT",
    "seconds; it may wait for another thread",
)


def test_what_goes_wrong_in_a_constructor_is_said_and_the_patch_taken_back(nursery: Nursery) -> None:
    talk = nursery.talk
    nursery.told()
    before = 'static Thing before("before", {0});\nTrouble bad({0});\n'
    change = ("x + 1;", "x + 1000 + bad.kind + before.get();")
    for kind, words in enumerate(TROUBLE, 1):
        outcome = nursery.patch("plain.cpp", before.format(kind), change)
        assert outcome["outcome"] == "error", outcome
        assert outcome["error"]["code"] == "initialiser-failed", outcome
        assert words in outcome["error"]["fact"], outcome
        assert "; rolled back" in outcome["error"]["fact"]
        assert (talk.ask("plain 1"), nursery.told(), talk.ask("caught 0")) == ("2", "+before trouble", "0 none")
    assert nursery.session.call("status")["patches"] == []
    outcome = nursery.patch("plain.cpp", before.format(0), change)
    assert outcome["outcome"] == "patched", outcome["text"]
    assert (talk.ask("plain 1"), nursery.told()) == ("1001", "+before trouble")
    assert sorted(said_at_exit(nursery.leave())) == [f"-before {kind}" for kind in range(6)]


def test_what_a_function_keeps_is_made_at_its_first_call(nursery: Nursery) -> None:
    talk = nursery.talk
    assert (talk.ask("local 3"), talk.ask("local 4")) == ("3", "3")
    nursery.told()
    source = nursery.project.folder / "local.cpp"
    more = 'static Thing another("another", x * 100);\n    return inside.get() + another.get();'
    source.write_text(source.read_text().replace("return inside.get();", more))
    outcome = nursery.session.call("apply")
    assert outcome["outcome"] == "patched", outcome["text"]
    assert nursery.told() == ""
    assert [talk.ask("local 5"), talk.ask("local 6"), nursery.told()] == ["503", "503", "+another"]
    assert nursery.session.call("undo")["outcome"] == "undone"
    assert talk.ask("local 7") == "3"
    assert sorted(said_at_exit(nursery.leave())) == ["-another 500", "-inside 3"]


def test_thread_local_variables_are_made_for_threads_that_run_and_for_new_ones(nursery: Nursery) -> None:
    talk = nursery.talk
    nursery.told()
    assert (talk.ask("mine 1"), talk.ask("theirs 0"), nursery.told()) == ("6", "6", "+mine +mine")

    # Those that exist keep what they hold; a new thread gets its own.
    outcome = nursery.patch("each.cpp", "", ("mine.value += x;", "mine.value += 2 * x;"))
    assert outcome["outcome"] == "patched", outcome["text"]
    assert (talk.ask("mine 1"), talk.ask("theirs 0"), nursery.told()) == ("8", "8", "")
    assert [talk.ask("fresh 1"), talk.hear(), nursery.told()] == ["7", "-mine 7", "+mine"]

    # New ones in a file that had none, for all of them.
    outcome = nursery.patch(
        "plain.cpp",
        'static thread_local Thing other("other", 500);\nthread_local Thing tenth("tenth", other.get() * 10);\n',
        ("return x", "return tenth.get() + other.get() + x"),
    )
    assert outcome["outcome"] == "patched", outcome["text"]
    assert nursery.told() == ""
    assert (talk.ask("plain 1"), nursery.told()) == ("5502", "+other +tenth")
    assert (talk.ask("plain 2"), nursery.told()) == ("5503", "")
    outcome = nursery.patch("each.cpp", "", ("mine.value += x;", "mine.value += plain(x);"))
    assert outcome["outcome"] == "patched", outcome["text"]
    assert (talk.ask("theirs 0"), nursery.told()) == (str(8 + 5502), "+other +tenth")
    said = [talk.ask("fresh 1"), talk.hear(), talk.hear(), talk.hear()]
    assert sorted(said) == ["-mine 5507", "-other 500", "-tenth 5000", "5507"]
    assert sorted(nursery.told().split()) == ["+mine", "+other", "+tenth"]

    # Beside some that exist: not in optimised code, where what makes them is everywhere, but in the same without.
    more = 'static thread_local Thing more("more", 300);\n'
    change = ("    return mine.get();", "    return mine.get() + more.get();")
    outcome = nursery.patch("each.cpp", more, change)
    if nursery.is_optimised:
        assert outcome["outcome"] == "refused", outcome["text"]
        assert {row["code"] for row in outcome["refusals"]} == {"new-initialiser"}
        with_variables(nursery.project.folder, "each.cpp", "", ("mine.value += x;", "mine.value += plain(x);"))
        outcome = nursery.session.call("deopt each.cpp")
        assert outcome["outcome"] == "patched", outcome["text"]
        outcome = nursery.patch("each.cpp", more, change)
    assert outcome["outcome"] == "patched", outcome["text"]
    assert nursery.told() == ""
    assert (talk.ask("mine 1"), talk.ask("theirs 0"), nursery.told()) == ("309", str(8 + 5502 + 301), "+more +more")
    said = [talk.ask("fresh 1"), *(talk.hear() for _ in range(2))]
    assert (sorted(said), nursery.told()) == (["-mine 6", "-more 300", "306"], "+mine +more")
    again = 'thread_local Thing most("most", more.get() * 10);\n'
    change = ("    return mine.get();", "    return mine.get() + more.get() + most.get();")
    outcome = nursery.patch("each.cpp", more + again, change)
    assert outcome["outcome"] == "patched", outcome["text"]
    assert (talk.ask("mine 1"), nursery.told()) == ("3310", "+most")
    said = [talk.ask("fresh 1"), *(talk.hear() for _ in range(3))]
    assert (sorted(said), nursery.told()) == (["-mine 6", "-more 300", "-most 3000", "3306"], "+mine +more +most")
    outcome = nursery.patch("each.cpp", more + again, change, ('mine("mine", 5)', 'mine("mine", 6)'))
    assert outcome["outcome"] == "refused", outcome["text"]

    assert nursery.session.call("undo 0")["outcome"] == "undone"
    assert (talk.ask("plain 1"), talk.ask("mine 1"), nursery.told()) == ("2", "11", "")
    assert (talk.ask("fresh 1"), talk.hear(), nursery.told()) == ("6", "-mine 6", "+mine")
    left = ["-mine 11", "-mine 5511", "-more 300", "-more 300", "-most 3000"]
    left += ["-other 500", "-other 500", "-tenth 5000", "-tenth 5000"]
    assert sorted(said_at_exit(nursery.leave())) == left
