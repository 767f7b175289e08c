"""A patch file against processes of the build, as it was linked and as it is shipped, up to the plan."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from planned import build_sources, plan_for, write_sources
from running_program import run, running

from ipbp.build.store import user_store
from ipbp.errors import Refused
from ipbp.pipeline.build_trees import patch_of_trees
from ipbp.pipeline.patch_making import write_patch_file
from ipbp.pipeline.record import Record
from ipbp.protocol import PatchPlan

FILES = {
    "main.c": """
int area(int);
int helped(int);
int shown = 2;
int main(void) { ready_and_wait(); return area(shown) + helped(shown); }
""",
    "area.c": """
static int hidden(int x) { static int calls; calls += x; return calls; }
__attribute__((noinline)) static int scaled(int x) {
    for (int i = 0; i < x; i++) x += hidden(x) * (i & 3 ? x : 5);
    return x * 7 + hidden(x);
}
int area(int x) { return scaled(x) + 1; }
""",
    "help.c": "int helps;\nint helped(int x) { helps += x; return helps; }\n",
}
AREA = {"area.c": FILES["area.c"].replace("x * 7", "x * 9 - 2")}
MOVED = {
    "area.c": FILES["area.c"].replace("+ 1", "+ 3"),
    "help.c": "int helps;\nint more(int);\nint helped(int x) { return more(x); }\n",
    "more.c": "extern int helps;\nint more(int x) { helps += 2 * x; return helps; }\n",
}


@dataclass(frozen=True)
class Build:
    """`old`: the tree whose program runs."""

    folder: Path
    old: Path

    @property
    def program(self) -> Path:
        return self.old / "program"

    def patch(self, changes: Mapping[str, str], name: str) -> Path:
        """Made of the tree with these changes; the file."""
        folder = self.folder / "src"
        build_sources(folder, {**FILES, **changes}, "-O1")
        new = Path(shutil.copytree(folder, self.folder / name))
        found = patch_of_trees(self.old, new, (), False, user_store(), lambda _text: None)
        assert found is not None
        write_patch_file(found, self.folder / f"{name}.patch")
        return self.folder / f"{name}.patch"


@pytest.fixture
def build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Build:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    build_sources(tmp_path / "src", FILES, "-O1")
    return Build(tmp_path, Path(shutil.copytree(tmp_path / "src", tmp_path / "old")))


def planned(program: Path, patch: Path) -> PatchPlan:
    with running(program) as process:
        plan = plan_for(process, patch_file=patch).plan
    assert plan is not None
    return plan


def functions(plan: PatchPlan) -> dict[str, str]:
    return {row.name: row.status for row in plan.functions}


def codes(program: Path, patch: Path) -> set[str]:
    with running(program) as process, pytest.raises(Refused) as caught:
        plan_for(process, patch_file=patch)
    return {row.code for row in caught.value.refusals}


def test_a_program_that_was_stripped_after_its_link_gets_the_same_functions(build: Build) -> None:
    patch = build.patch(AREA, "area")
    stripped = build.folder / "stripped"
    shutil.copy(build.program, stripped)
    run(["strip", "-s", str(stripped)], build.folder)
    assert functions(planned(build.program, patch)) == functions(planned(stripped, patch)) == {"scaled": "changed"}


def test_what_is_new_and_what_moved_is_followed(build: Build) -> None:
    plan = planned(build.program, build.patch(MOVED, "moved"))
    assert functions(plan) == {"area": "changed", "helped": "changed", "more": "new"}
    assert plan.data == ()  # `helps` is the one that there is


def test_a_record_tells_what_runs_already_and_what_goes_back(build: Build) -> None:
    area, moved = build.patch(AREA, "area"), build.patch(MOVED, "moved")
    with running(build.program) as process:
        first = plan_for(process, patch_file=area).plan
        assert first is not None
        record = Record.from_json(first.record)
        assert plan_for(process, record, patch_file=area).plan is None
        units = {Path(name).name: unit for rows in record.images.values() for name, unit in rows.items()}
        assert units.keys() == {"area.c"}
        assert user_store().get(units["area.c"].linked or "").read_bytes() == (build.old / "area.o").read_bytes()
        # Nothing was written to the process; but what goes over that patch is told by the record alone.
        second = plan_for(process, record, 2, patch_file=moved).plan
        assert second is not None
        assert functions(second) == {"scaled": "changed", "area": "changed", "helped": "changed", "more": "new"}


def test_another_build_and_another_library_are_refused(build: Build, tmp_path: Path) -> None:
    patch = build.patch(AREA, "area")
    build_sources(tmp_path / "other", FILES, "-O2")
    assert codes(tmp_path / "other/program", patch) == {"patch-other-build"}
    assert codes(build.folder / "area/program", patch) == {"patch-other-build"}


def test_a_record_that_does_not_say_what_was_linked_is_refused(build: Build) -> None:
    area, moved = build.patch(AREA, "area"), build.patch(MOVED, "moved")
    with running(build.program) as process:
        plan = plan_for(process, patch_file=moved).plan
        assert plan is not None
        rows = {
            key: {name: {**unit, "linked": ""} for name, unit in units.items()}
            for key, units in plan.record["images"].items()
        }
        with pytest.raises(Refused) as caught:
            plan_for(process, Record.from_json({"images": rows}), 2, patch_file=area)
    assert {row.code for row in caught.value.refusals} == {"earlier-patch-unknown"}


def test_an_edit_after_it_is_compared_with_what_it_brought(build: Build) -> None:
    patch = build.patch(AREA, "area")
    with running(build.program) as process:
        first = plan_for(process, patch_file=patch).plan
        assert first is not None
        record = Record.from_json(first.record)
        assert plan_for(process, record, 2).plan is None
        write_sources(build.folder / "src", {"area.c": AREA["area.c"].replace("+ 1;", "+ 5;")})
        second = plan_for(process, record, 2).plan
    assert second is not None
    assert functions(second) == {"area": "changed"}
