"""One name in several versions: which one an object means, and what each image calls it."""

from __future__ import annotations

from pathlib import Path

import pytest
from running_program import WAIT, build, graph_of, run, running

from ipbp.graph.names import Names
from ipbp.stages.attest import attest

LIBRARY = """
int old(void) { return 1; }
int new(void) { return 2; }
__asm__(".symver old, two@OLD");
__asm__(".symver new, two@@NEW");
"""
MAIN = (
    WAIT
    + """
int old(void), two(void);
__asm__(".symver old, two@OLD");
int both(void) { return old() + two(); }
int main(void) { ready_and_wait(); return both(); }
"""
)


def test_what_linkers_and_assemblers_write_behind_a_name_is_taken_off() -> None:
    names = Names.of(["plain", "older@V1", "newest@@V2", "@", "x@", "y@@"])
    assert list(names.without_versions(of_all=False)) == ["plain", "older@V1", "newest", "@", "x@", "y"]
    assert list(names.without_versions(of_all=True)) == ["plain", "older", "newest", "", "x", "y"]
    assert list(names.with_text({1: "other", 4: "z"})) == ["plain", "other", "newest@@V2", "@", "z", "y@@"]


@pytest.mark.parametrize("strip", [[], ["-s"]], ids=["symbols", "stripped"])
def test_a_reference_means_the_version_that_it_names(tmp_path: Path, strip: list[str]) -> None:
    (tmp_path / "two.map").write_text("OLD { global: two; local: *; }; NEW { global: two; } OLD;\n")
    (tmp_path / "library.c").write_text(LIBRARY)
    flags = ["-shared", "-fPIC", "-O1", *strip, "-Wl,--version-script=two.map"]
    run(["gcc", *flags, "library.c", "-o", "libtwo.so"], tmp_path)
    link = ["-L.", "-ltwo", f"-Wl,-rpath,{tmp_path}"]
    # The library behind the objects that need it.
    compiled, objects = build(tmp_path, {"main": MAIN}, "-O1", "-fPIC", link=["-Wl,--unresolved-symbols=ignore-all"])
    run(["gcc", str(objects["main"]), *link, "-o", str(compiled)], tmp_path)
    with running(compiled) as program:
        process = program.process()
        library = next(module.image for module in process.modules if module.mapped.path.endswith("libtwo.so"))
        places = {name: int(library.symbols.address[library.symbols.by_name[name][0]]) for name in ("two", "two@OLD")}
        assert places["two"] != places["two@OLD"]
        scope = process.scope(process.modules[0].key)
        for name, place in places.items():
            found = scope.lookup(name)
            assert found is not None
            assert found.address == place, name
        assert {name for name in scope.image.slots if "two" in name} == {"two@OLD", "two@NEW"}
        # The old object is what runs, and an unversioned reference goes to the default version's cell.
        assert attest(graph_of(objects["main"]), scope.image, program.read).mismatched == ()
    (tmp_path / "now").mkdir()
    run(["gcc", str(objects["main"]), *link, "-Wl,-z,now", "-o", "now/program"], tmp_path)
    with running(tmp_path / "now" / "program") as program:
        scope = program.process().scope(program.process().modules[0].key)
        (library,) = (m.image for m in program.process().modules if m.mapped.path.endswith("libtwo.so"))
        places = {name: int(library.symbols.address[library.symbols.by_name[name][0]]) for name in places}
        assert {name: scope.bound(name) for name in places} == places
