"""Every loaded image can be patched: libraries, plugins that come and go, and several of them at once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from plugin_host import Host, add_library, build_host, run
from scenario import Talk
from sessions import ipbp

pytestmark = pytest.mark.live


@pytest.fixture(params=["gdb", "lldb"])
def debugger(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def host(request: pytest.FixtureRequest, tmp_path: Path) -> Host:
    settings = dict(getattr(request, "param", {}))
    return build_host(tmp_path / "host", *settings.pop("flags", ("-O2",)), **settings)


@pytest.fixture
def talk(host: Host) -> Iterator[Talk]:
    program = Talk(host.program)
    yield program
    program.kill()


def patched(talk: Talk, debugger: str) -> set[str]:
    """Names of the functions that one `ipbp apply` patched."""
    outcome = ipbp("apply", talk.process.pid, debugger)
    assert outcome["outcome"] == "patched", outcome["text"]
    return {row["name"] for row in outcome["functions"]}


@pytest.mark.parametrize("host", [{"flags": ("-O0",)}, {"flags": ("-O2",)}], indirect=True, ids=["O0", "O2"])
def test_a_library_function_is_patched_for_the_program_and_for_the_library(
    host: Host, talk: Talk, debugger: str
) -> None:
    assert (talk.ask("twice 4"), talk.ask("outer 4"), talk.ask("total 1")) == ("8", "9", "8 8")
    host.edit("library.c", "return x * 2;", "return x * 200;")
    host.edit("library.c", "total += x;", "total += x * 100;")
    host.edit("library.c", "return twice(x) + calls;", "return twice(x) + interposed(0) + calls;")
    assert {"twice", "outer", "add_to_total"} <= patched(talk, debugger)
    # The program's own `interposed` counts, the library's state is kept, and the variable is the program's copy.
    assert (talk.ask("twice 4"), talk.ask("outer 4"), talk.ask("total 1")) == ("800", "5802", "108 108")
    assert ipbp("undo", talk.process.pid, debugger)["outcome"] == "undone"
    assert (talk.ask("twice 4"), talk.ask("outer 4"), talk.ask("total 1")) == ("8", "11", "109 109")
    assert talk.close() == 0


def test_a_function_that_moves_into_a_library_is_refused(host: Host, talk: Talk, debugger: str) -> None:
    host.edit("host.c", "__attribute__((noinline)) int own(int x) { return x + 1; }", "int own(int x);")
    host.edit("library.c", "int twice(int x) {", "int own(int x) { return x + 70; }\nint twice(int x) {")
    host.edit("library.c", "return twice(x) + calls;", "return twice(x) + own(calls);")
    outcome = ipbp("apply", talk.process.pid, debugger)
    assert outcome["outcome"] == "refused", outcome["text"]
    assert [(row["code"], row["symbol"]) for row in outcome["refusals"]] == [("moved-between-images", "own")]
    assert (talk.ask("own 1"), talk.ask("outer 4")) == ("2", "9"), "nothing was changed"
    host.edit("library.c", "int own(int x) { return x + 70; }\nint twice", "int twice")
    host.edit("library.c", "return twice(x) + own(calls);", "return twice(x) + interposed(calls);")
    host.edit("host.c", "int own(int x);", "__attribute__((noinline)) int own(int x) { return x + 3; }")
    assert {"own", "outer"} <= patched(talk, debugger)
    assert (talk.ask("own 1"), talk.ask("outer 4")) == ("4", str(8 + 5000 + 2)), "the program's interposed counts"
    host.edit("host.c", "int interposed(int x) { return x + 5000; }", "int interposed(int x);")
    outcome = ipbp("apply", talk.process.pid, debugger)
    assert [(row["code"], row["symbol"]) for row in outcome["refusals"]] == [("moved-between-images", "interposed")]
    assert talk.close() == 0


def test_a_plugin_is_patched_with_the_program_and_forgotten_when_it_is_closed(
    host: Host, talk: Talk, debugger: str
) -> None:
    assert (talk.ask("open local"), talk.ask("plugin 1"), talk.ask("own 1")) == ("opened", "12", "2")
    host.edit("plugin.c", "x + 10;", "x + 1000;")
    host.edit("host.c", "return x + 1; }", "return x + 100; }")
    outcome = ipbp("apply", talk.process.pid, debugger)
    rows = {row["name"]: row["image"] for row in outcome["functions"]}
    assert rows == {"own": "", "plugin_own": str(host.folder / "plugin.so")}
    assert (talk.ask("plugin 1"), talk.ask("own 1")) == ("1003", "101")

    assert talk.ask("close") == "closed"
    status = ipbp("status", talk.process.pid, debugger)
    assert any("plugin.so was unloaded" in note and "plugin_own" in note for note in status["notes"]), status
    assert [[row["name"] for row in patch["functions"]] for patch in status["patches"]] == [["own"]]

    # A new load is what its file says, mostly at the very same place, and can be patched anew.
    assert (talk.ask("open local"), talk.ask("plugin 1")) == ("opened", "12")
    assert patched(talk, debugger) == {"plugin_own"}
    assert (talk.ask("plugin 1"), talk.ask("own 1")) == ("1003", "101")
    assert (talk.ask("close"), talk.ask("open global"), talk.ask("plugin 1")) == ("closed", "opened", "12")
    undone = ipbp("undo", talk.process.pid, debugger)
    assert [patch["patch"] for patch in undone["patches"]] == [1]
    assert (talk.ask("plugin 1"), talk.ask("own 1")) == ("13", "2")
    assert talk.close() == 0


def test_each_load_of_a_library_has_its_own_state_and_names(host: Host, talk: Talk, debugger: str) -> None:
    assert (talk.ask("open local"), talk.ask("open other")) == ("opened", "opened")
    assert (talk.ask("plugin 1"), talk.ask("plugin 1"), talk.ask("others 1")) == ("12", "13", "12")
    host.edit("plugin.c", "return plugin_own(x) + calls;", "return plugin_own(x) * 100 + calls;")
    outcome = ipbp("apply", talk.process.pid, debugger)
    assert [row["name"] for row in outcome["functions"]] == ["plugin_work", "plugin_work"]
    assert (talk.ask("plugin 1"), talk.ask("others 1")) == ("1103", "1102")
    # The other namespace has its own unwinder or none; both go back.
    assert ipbp("undo", talk.process.pid, debugger)["outcome"] == "undone"
    assert (talk.ask("plugin 1"), talk.ask("others 1")) == ("15", "14")
    assert talk.close() == 0


def test_a_plugin_that_was_bound_deeply_comes_before_the_program(host: Host, debugger: str, tmp_path: Path) -> None:
    host.edit("plugin.c", "static int calls;", "static int calls;\nint interposed(int x) { return x + 70; }")
    for row in json.loads((host.folder / "compile_commands.json").read_text()):
        if row["file"] == "plugin.c":
            run(host.folder, *row["arguments"])
    run(host.folder, "gcc", "-shared", "plugin.o", "-o", "plugin.so")
    deep, local = Talk(host.program), Talk(host.program)
    try:
        assert (deep.ask("open deep"), local.ask("open local")) == ("opened", "opened")
        assert (deep.ask("plugin 1"), local.ask("plugin 1")) == ("12", "12")
        host.edit("plugin.c", "return plugin_own(x) + calls;", "return plugin_own(x) + interposed(0) * 100 + calls;")
        assert patched(deep, debugger) == patched(local, debugger) == {"plugin_work"}
        assert (deep.ask("plugin 1"), local.ask("plugin 1")) == ("7013", "500013")
    finally:
        deep.kill()
        local.kill()


PRELOADED = "int twice(int x) { return x * 3 + (x >> 20); }\n"


@pytest.mark.parametrize("host", [{"link": ("-Wl,-Bsymbolic",)}, {}], indirect=True, ids=["Bsymbolic", "interposed"])
def test_a_preloaded_function_counts_where_the_library_lets_it(
    host: Host, debugger: str, request: pytest.FixtureRequest
) -> None:
    (host.folder / "preloaded.c").write_text(PRELOADED)
    add_library(host, "preloaded.c", "-O2", "-fPIC")
    talk = Talk(host.program, LD_PRELOAD=str(host.folder / "preloaded.so"))
    request.addfinalizer(talk.kill)
    is_symbolic = "Bsymbolic" in request.node.name
    assert (talk.ask("twice 4"), talk.ask("outer 4")) == ("12", "9" if is_symbolic else "13")
    host.edit("library.c", "return twice(x) + calls;", "return twice(x) + interposed(0) + hidden_one(0) + 100 * calls;")
    host.edit("preloaded.c", "x * 3 ", "x * 30 ")
    assert patched(talk, debugger) == {"outer", "twice"}
    outer = 8 + 60 + 3 + 200 if is_symbolic else 120 + 5000 + 3 + 200
    assert (talk.ask("twice 4"), talk.ask("outer 4")) == ("120", str(outer))
    assert talk.close() == 0
