"""What the last request compiled is begun at once when it was edited, and counts only when it is wanted as it was."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from build_tree import command, run, write

from ipbp.build.begun_early import begun_early
from ipbp.build.compile import Compiled, compile_units
from ipbp.build.dirty import Dirty
from ipbp.build.once import one_build
from ipbp.build.snapshot import digest_of
from ipbp.build.store import Store
from ipbp.errors import IpbpError

_COMPILER = """\
#!/bin/sh
echo "$$" >> {log}
PATH={path} exec gcc "$@"
"""


@pytest.fixture
def compilers(tmp_path, monkeypatch) -> Callable[[], int]:
    """How many compilers were started so far."""
    folder, log = tmp_path / "bin", tmp_path / "log"
    path = os.environ["PATH"]
    write(folder, {"gcc": _COMPILER.format(log=log, path=path)})
    (folder / "gcc").chmod(0o755)
    log.touch()
    monkeypatch.setenv("PATH", f"{folder}:{path}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return lambda: len(log.read_text().split())


@pytest.fixture
def tree(tmp_path) -> Path:
    root = tmp_path / "tree"
    write(root, {"a.c": '#include "a.h"\nint f(void) { return A; }\n', "a.h": "#define A 1\n"})
    return root


def unit(tree: Path, more: str = "") -> Dirty:
    return Dirty(command(tree, f"gcc -g {more} -c a.c -o a.o"), "edited", None)


def request(tmp_path: Path, *wanted: Dirty, flags: tuple[str, ...] = ()) -> tuple[Compiled, ...]:
    with begun_early(tmp_path):
        return compile_units(wanted, Store(tmp_path / "store"), lambda _: None, flags=flags) if wanted else ()


def returned(row: Compiled, tmp_path: Path) -> str:
    """The number that f() returns."""
    return run("objdump", "-d", row.object, cwd=tmp_path).partition("mov    $")[2].partition(",")[0]


def left_over(tmp_path: Path) -> list[str]:
    return [name for name in os.listdir(tmp_path / "cache" / "ipbp" / "objects") if name.startswith("compile-")]


@pytest.mark.parametrize("edited", [{"a.c": "int f(void) { return 7; }\n"}, {"a.h": "#define A 7\n"}])
def test_an_edited_unit_is_compiled_once_and_before_it_is_asked_for(edited, tree, tmp_path, compilers):
    request(tmp_path, unit(tree))
    write(tree, edited)

    with begun_early(tmp_path):
        while compilers() < 2:
            os.sched_yield()
        [row] = compile_units([unit(tree)], Store(tmp_path / "store"), lambda _: None)

    assert compilers() == 2
    assert returned(row, tmp_path) == "0x7"
    assert left_over(tmp_path) == []


def test_nothing_is_begun_when_nothing_was_edited(tree, tmp_path, compilers):
    request(tmp_path, unit(tree))

    request(tmp_path)

    assert compilers() == 1


def test_nothing_is_begun_for_another_process(tree, tmp_path, compilers):
    request(tmp_path, unit(tree))
    write(tree, {"a.c": "int f(void) { return 7; }\n"})

    with begun_early("another"):
        assert not left_over(tmp_path)


def test_nothing_is_begun_where_one_build_is_for_several(tree, tmp_path, compilers):
    request(tmp_path, unit(tree))
    write(tree, {"a.c": "int f(void) { return 7; }\n"})

    with one_build(), begun_early(tmp_path):
        assert not left_over(tmp_path)


def test_what_is_not_wanted_is_ended_and_forgotten(tree, tmp_path, compilers):
    request(tmp_path, unit(tree))
    write(tree, {"a.c": "int f(void) { return 7; }\n"})

    with begun_early(tmp_path):
        assert len(left_over(tmp_path)) == 1

    assert left_over(tmp_path) == []


@pytest.mark.parametrize(("more", "flags"), [("-DA=5", ()), ("", ("-O2",))])
def test_another_command_or_other_flags_are_another_compile(more, flags, tree, tmp_path, compilers):
    write(tree, {"a.h": "#ifndef A\n#define A 1\n#endif\n"})
    request(tmp_path, unit(tree))
    write(tree, {"a.h": "#ifndef A\n#define A 3\n#endif\n"})

    [row] = request(tmp_path, unit(tree, more), flags=flags)

    assert returned(row, tmp_path) == ("0x5" if more else "0x3")
    assert left_over(tmp_path) == []


def test_a_file_that_is_saved_after_it_was_begun_is_compiled_again(tree, tmp_path, compilers):
    request(tmp_path, unit(tree))
    write(tree, {"a.h": "#define A 2\n"})

    with begun_early(tmp_path):
        while compilers() < 2:
            os.sched_yield()
        write(tree, {"a.h": "#define A 3\n"})
        [row] = compile_units([unit(tree)], Store(tmp_path / "store"), lambda _: None)

    assert returned(row, tmp_path) == "0x3"
    assert row.dependencies[str(tree / "a.h")] != ""


def test_one_that_fails_is_tried_once_more_when_it_is_wanted(tree, tmp_path, compilers):
    request(tmp_path, unit(tree))
    write(tree, {"a.c": "int f(void) { return\n"})

    with begun_early(tmp_path):
        while compilers() < 2:
            os.sched_yield()
        with pytest.raises(IpbpError, match="does not compile"):
            compile_units([unit(tree)], Store(tmp_path / "store"), lambda _: None)

    assert compilers() == 3


def test_nothing_is_begun_that_the_user_has_not_agreed_to(tree, tmp_path, compilers):
    odd = unit(tree, "-B/tmp/elsewhere")
    request(tmp_path, odd)
    write(tree, {"a.c": "int f(void) { return 7; }\n"})

    with begun_early(tmp_path):
        assert not left_over(tmp_path)


def test_a_header_that_is_saved_while_the_compiler_runs_is_noted_as_it_was_compiled(tree, tmp_path, compilers):
    request(tmp_path, unit(tree))
    write(tree, {"a.c": '#include "a.h"\nint f(void) { return A + 1; }\n'})
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    wrapper = tmp_path / "bin" / "gcc"
    wrapper.write_text(wrapper.read_text().replace("PATH=", f"cat {gate}\nPATH="))

    def save() -> None:
        time.sleep(0.2)  # by then the headers were hashed; when not, the test is easier
        write(tree, {"a.h": "#define A 6\n"})
        wrapper.write_text(wrapper.read_text().replace(f"cat {gate}\n", ""))
        gate.write_text("")

    with begun_early(tmp_path):
        saving = threading.Thread(target=save)
        saving.start()
        [row] = compile_units([unit(tree)], Store(tmp_path / "store"), lambda _: None)
        saving.join()

    assert returned(row, tmp_path) == "0x7"
    assert row.dependencies[str(tree / "a.h")] == digest_of(str(tree / "a.h"))
