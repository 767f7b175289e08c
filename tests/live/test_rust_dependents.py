"""Rust: crates that use an edited one are compiled again when they may notice, in order, and only then."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from cargo_project import CargoProject, build_cargo_project
from scenario import Talk
from sessions import ipbp

from ipbp.archive import members
from ipbp.cli.bystander import Bystander
from ipbp.host.commands import plan_params
from ipbp.host.journal import open_journal
from ipbp.pipeline.order import make_plan
from ipbp.pipeline.request import Request

pytestmark = [pytest.mark.live, pytest.mark.compiles]
COUNTED, NAMED, MIDDLE = "base/src/counted.rs", "base/src/named.rs", "middle/src/lib.rs"
FIRST, SECOND = "chain/src/first.rs", "chain/src/second.rs"


class Chain:
    """The program while it runs, and its sources."""

    def __init__(self, project: CargoProject) -> None:
        self.project = project
        self.talk = Talk(project.program)

    def edit(self, file: str, old: str, new: str) -> None:
        path = self.project.folder / file
        assert path.read_text().count(old) == 1
        path.write_text(path.read_text().replace(old, new))

    def compiled(self) -> list[str]:
        """The crates that a plan compiles, in order."""
        said: list[str] = []
        inferior, journal = Bystander(self.talk.process.pid), open_journal(self.talk.process.pid)
        params = plan_params(inferior.describe(), inferior.regions(), journal, False, {})
        make_plan(Request.from_json(params), inferior.read_ranges, said.append)
        return [line.removeprefix("compiling ") for line in said if line.startswith("compiling ")]

    def patch(self, debugger: str) -> set[str]:
        outcome = ipbp("apply", self.talk.process.pid, debugger)
        assert outcome["outcome"] == "patched", json.dumps(outcome, indent=1)
        return {row["file"].rpartition("/chain/")[2] for row in outcome["functions"]}


@pytest.fixture
def chain(tmp_path: Path) -> Iterator[Chain]:
    project = build_cargo_project(tmp_path / "chain", workspace="chain")
    (project.folder / ".gitignore").write_text("target\n")
    for words in (("init", "-q"), ("add", ".")):
        subprocess.run(["git", *words], cwd=project.folder, check=True)
    running = Chain(project)
    yield running
    running.talk.kill()


@pytest.mark.parametrize("debugger", ["gdb", "lldb"])
def test_dependents_are_compiled_when_they_may_notice(chain: Chain, debugger: str) -> None:
    ask = chain.talk.ask
    assert (ask("bill 4"), ask("greet joe"), ask("sum 1 2")) == ("40 for [4, 4]", "hello joe (j)", "3")

    # The text before the first edit is known from git.
    chain.edit(COUNTED, "items * 10", "items * 11 - 1")
    assert chain.compiled() == ["base"]
    chain.patch(debugger)
    assert ask("bill 4") == "43 for [4, 4]"

    # Another module: its object is one that no patch had to do with.
    chain.edit(NAMED, "hello {name}", "good day {name}")
    assert chain.compiled() == ["base"]
    chain.patch(debugger)
    assert (ask("greet joe"), ask("bill 4")) == ("good day joe (j)", "43 for [4, 4]")

    # What others have copies of; in the order of the dependencies.
    chain.edit(COUNTED, "vec![value.clone(), value.clone()]", "vec![value.clone(), value.clone(), value.clone()]")
    chain.edit(NAMED, "&name[..1]", "&name[..2]")
    assert chain.compiled() == ["base", "middle", "chain"]
    chain.patch(debugger)
    assert (ask("greet joe"), ask("bill 4")) == ("good day joe (jo)", "43 for [4, 4, 4]")

    # A crate that uses two that use each other: all of them from one build of the lowest.
    chain.edit(COUNTED, "items * 11 - 1", "items * 12")
    chain.edit(FIRST, "{} ({})", "{} <{}>")
    assert chain.compiled() == ["base", "middle", "chain"]
    chain.patch(debugger)
    assert (ask("greet joe"), ask("bill 4"), ask("sum 1 2")) == ("good day joe <jo>", "48 for [4, 4, 4]", "3")

    # Nothing below it changed: the program alone, and an object that the linker had left out comes along.
    chain.edit(SECOND, ").sum()\n", ").sum::<u64>() + chain_spare(5)\n")
    assert chain.compiled() == ["chain"]
    chain.patch(debugger)
    assert (ask("sum 1 2"), ask("greet joe")) == ("908", "good day joe <jo>")

    chain.edit(NAMED, 'format!("good day {name}")', 'format!("good day {name} {}", base_spare(1))')
    assert chain.compiled() == ["base"]
    chain.patch(debugger)
    assert ask("greet joe") == "good day joe 701 <jo>"
    assert ask("calls") == "5", "variables kept their values through all of it"
    assert ipbp("undo", chain.talk.process.pid, debugger)["outcome"] == "undone"
    assert ask("greet joe") == "good day joe <jo>"

    # What cargo builds from all these edits answers as the patched program did.
    said = chain.project.cargo("build")
    assert all(f"Compiling {name} " in said for name in ("base", "middle", "chain"))
    fresh = Talk(chain.project.program)
    assert fresh.ask("greet joe") == "good day joe 701 <jo>"
    assert (fresh.ask("bill 4"), fresh.ask("sum 1 2")) == ("48 for [4, 4, 4]", "908")
    assert (fresh.close(), chain.talk.close()) == (0, 0)


@pytest.mark.parametrize("debugger", ["gdb", "lldb"])
def test_what_came_along_from_another_crate_is_edited_like_the_rest_and_keeps_its_state(
    chain: Chain, debugger: str
) -> None:
    ask = chain.talk.ask
    chain.edit(SECOND, ").sum()\n", ").sum::<u64>() + ground::named::spared(5)\n")
    assert chain.compiled() == ["chain"]
    chain.patch(debugger)
    assert (ask("sum 1 2"), ask("sum 1 2")) == ("53", "54")

    # What it uses, which nobody sees but its own object.
    chain.edit(NAMED, "number * 10", "number * 100")
    chain.patch(debugger)
    assert ask("sum 1 2") == "505"

    # Another one of that object, which uses both.
    chain.edit(SECOND, "spared(5)", "spared_twice(5)")
    chain.patch(debugger)
    assert ask("sum 1 2") == str(3 + 503 + 604)

    chain.edit(NAMED, "+ weighed(number)", "+ weighed(number) + 7")
    chain.patch(debugger)
    assert ask("sum 1 2") == str(3 + 505 + 7 + 606 + 7)
    assert ipbp("undo", chain.talk.process.pid, debugger)["outcome"] == "undone"
    assert ask("sum 1 2") == str(3 + 507 + 608)
    assert chain.talk.close() == 0


def test_a_line_that_moves_is_told_by_the_code_of_other_crates(chain: Chain) -> None:
    before = int(chain.talk.ask("line"))
    chain.edit(NAMED, "#[inline]", "// One line more.\n#[inline]")
    assert chain.compiled() == ["base"], "nothing there tells its line"
    chain.edit(COUNTED, "pub fn price", "// One line more.\npub fn price")
    assert chain.compiled() == ["base", "middle", "chain"]
    assert chain.patch("lldb") == {"middle/src/lib.rs"}
    assert int(chain.talk.ask("line")) == before + 1
    assert chain.talk.close() == 0


@pytest.mark.parametrize("debugger", ["gdb", "lldb"])
def test_callers_whose_code_is_alike_call_the_function_of_another_signature(tmp_path: Path, debugger: str) -> None:
    # With this mangling its name says nothing of what it takes, and the caller's object is what it was.
    flags = '[build]\nrustflags = ["-Csymbol-mangling-version=v0"]\n'
    chain = Chain(build_cargo_project(tmp_path / "chain", workspace="chain", config=flags))
    try:
        assert chain.talk.ask("note") == "noted 7"
        chain.edit(NAMED, 'weight: u32) -> String {\n    format!("noted', 'weight: i16) -> String {\n    format!("-')
        chain.patch(debugger)
        assert chain.talk.ask("note") == "- 7"
        chain.edit(NAMED, '"- {weight}', '"-- {weight}')
        chain.patch(debugger)
        assert chain.talk.ask("note") == "-- 7"
        for _ in range(2):
            assert ipbp("undo", chain.talk.process.pid, debugger)["outcome"] == "undone"
        assert chain.talk.ask("note") == "noted 7"
        assert chain.talk.close() == 0
    finally:
        chain.talk.kill()


def test_what_was_not_compiled_again_would_be_what_it_is(tmp_path: Path) -> None:
    """rustc itself says so: cargo, which compiles the dependents, makes the same objects of them."""
    project = build_cargo_project(tmp_path / "chain", workspace="chain")
    before = objects(project, "middle")
    path = project.folder / COUNTED
    path.write_text(path.read_text().replace("items * 10", "let more = items + 1; more * 11 - items % 3"))
    assert "Compiling middle" in project.cargo("build")
    assert objects(project, "middle") == before
    path.write_text(path.read_text().replace("value.clone()]", "value.clone(), value.clone()]"))
    project.cargo("build")
    assert objects(project, "middle") != before


def objects(project: CargoProject, crate: str) -> dict[str, bytes]:
    """The codegen units of a library by name, without the number of the compile."""
    (library,) = (project.folder / "target/debug/deps").glob(f"lib{crate}-*.rlib")
    rows = members(library.read_bytes())
    return {name.split(".")[1]: bytes(row) for name, row in rows if name.endswith(".rcgu.o")}
