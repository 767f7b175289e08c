"""Two versions side by side: which lines are paired, and what a terminal shows of them."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace

import numpy as np
import pytest

from ipbp.arch.x86_64_listing import listing
from ipbp.graph.sides import beside, near_changes
from ipbp.host.function_names import is_called
from ipbp.host.progress import Progress
from ipbp.host.side_by_side import as_text
from ipbp.pipeline.readable import readable_name
from ipbp.pipeline.side_by_side import Places


def test_lines_are_paired_as_diff_does() -> None:
    assert beside(["a", "b", "c", "e"], ["a", "x", "c", "d", "e"]) == [
        (" ", "a", "a"),
        ("|", "b", "x"),
        (" ", "c", "c"),
        (">", "", "d"),
        (" ", "e", "e"),
    ]
    assert beside(["a", "b"], ["b"]) == [("<", "a", ""), (" ", "b", "b")]


def test_what_is_far_from_a_change_is_left_out() -> None:
    rows = beside(list("abcdefgh"), list("abcdeXgh"))
    assert [row[1] for row in near_changes(rows, 1)] == ["", "e", "f", "g", ""]
    assert near_changes(beside(["a"], ["a"]), 3) == [("…", "", "")]


@pytest.mark.parametrize(
    ("code", "texts"),
    [
        ("7402eb00c3", ["je +0x4", "jmp +0x4", "ret"]),  # in the function: by distance
        ("e8fb0f0000c3", ["call <0x2000>", "ret"]),  # elsewhere: by name
        ("8b05fa0f0000c3", ["mov eax, dword ptr [<0x2000>]", "ret"]),
        ("c306", ["ret", ".byte 0x06"]),  # no instruction in 64-bit mode
    ],
)
def test_places_are_told_in_a_way_that_does_not_depend_on_where_the_code_lies(code: str, texts: list[str]) -> None:
    rows = listing(bytes.fromhex(code), 0x1000, lambda address, size: f"<{address:#x}>")
    assert [text for _offset, text in rows] == texts


def test_what_has_no_name_is_told_by_what_is_there() -> None:
    """Stubs and constants of two versions lie in different places, and are alike all the same."""
    cell = 0x3000 - (0x1000 + 6)
    memory = {
        0x1000: b"\xff\x25" + cell.to_bytes(4, "little"),
        0x2000: b"too many\n\0more",
        0x3000: (0x4000).to_bytes(8, "little"),
    }

    def read(places: Sequence[tuple[int, int]]) -> list[bytes | None]:
        return [memory[at][:size] if at in memory else None for at, size in places]

    table = SimpleNamespace(address=np.array([0x4000]), size=np.array([16]), name=["_ZN4shop4sellEi"])
    image = SimpleNamespace(symbols=table, stubs={0x5000: "puts"}, machine="x86_64")
    process = SimpleNamespace(images=lambda: [image], executable_image=lambda: image)
    places = Places(process, [], read)  # type: ignore[arg-type]
    assert [places.name(at) for at in (0x1000, 0x2000, 0x5000)] == ["shop::sell(int)", r"'too many\n'", "puts"]
    assert places.name(0x3000, 8) == "constant 0x4000"
    assert places.name(0x6000, 8) == "0x6000", "what cannot be read"


def test_names_of_the_standard_library_are_as_one_writes_them() -> None:
    name = "_ZN4shop3addERKNSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEEERSt6vectorIS5_SaIS5_EE"
    assert readable_name(name) == "shop::add(std::string const&, std::vector<std::string>&)"


@pytest.mark.parametrize(
    ("function", "names", "other"),
    [
        ("plain", ["plain"], "lain"),
        (
            "shop::Till::add(std::vector<int, std::allocator<int>> const&)",
            ["add", "Till::add", "shop::Till::add"],
            "Till",
        ),
        ("int largest<int>(std::vector<int> const&, int*)", ["largest", "int largest<int>"], "int"),
        ("std::vector<int> shop::all<std::pair<int, int>>(int)", ["all", "shop::all"], "vector"),
        ("(anonymous namespace)::hidden(int)", ["hidden"], "namespace"),
        ("ledger::plain", ["plain", "ledger::plain"], "ledger"),
    ],
)
def test_a_function_is_meant_by_what_a_user_calls_it(function: str, names: list[str], other: str) -> None:
    assert all(is_called(function, name) for name in [function, *names])
    assert not is_called(function, other)


SIDES = {
    "code": [
        {"name": "f(int)", "file": "a.c", "rows": [[" ", "push", "push"], ["|", "old", "new"]]},
        {"name": "g", "file": "b.c", "rows": [[">", "", "ret"]]},
    ],
    "source": [{"name": "as git has it", "file": "a.c", "rows": [["…", "", ""], ["|", "\treturn 1;", "\treturn 2;"]]}],
}


def test_the_code_of_a_named_function_is_shown_with_its_source() -> None:
    text = as_text(SIDES, ["f"], colour=False)
    assert "f(int): machine code that runs | new" in text
    assert "a.c: source as git has it | now" in text
    assert "return 1;" in text
    assert "ret\n" not in text
    assert "\x1b" not in text
    assert "\x1b[31m" in as_text(SIDES, ["f"], colour=True)
    assert "no function that changes is called 'h'" in as_text(SIDES, ["f", "h"], colour=False)


def test_of_several_functions_none_is_shown_unasked() -> None:
    assert "hotpatch preview NAME" in as_text(SIDES, [], colour=False)
    assert as_text({"code": SIDES["code"][1:], "source": []}, [], colour=False).startswith("\ng: machine code")


def test_only_what_takes_long_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("ipbp.host.progress.time.monotonic", lambda: now[0])
    said: list[str] = []
    progress = Progress(said.append, "starting")
    asked = progress.watching(lambda: False)
    progress.tell("compiling a.c")
    now[0] = 0.4
    assert not asked()
    assert said == []
    now[0] = 0.6
    asked()
    asked()
    assert said == ["compiling a.c ..."]
    progress.tell("linking")
    now[0] = 1.0
    asked()
    assert len(said) == 1
    now[0] = 1.2
    progress.tell("writing")
    assert said[1:] == ["linking ..."]
