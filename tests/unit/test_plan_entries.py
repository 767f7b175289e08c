"""The plan: what changes in the running program, what must be there before, and which calls are made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from patch_maker import HIGH, Linked, compile_object, graph_of, link, make_arena, symbol, unit_of

from ipbp.arch.x86_64_entry import ENDBR64, jump
from ipbp.errors import Refused
from ipbp.graph.image import ImageSymbols, LoadedImage
from ipbp.graph.layout import Unwinder
from ipbp.graph.name_index import NameIndex
from ipbp.graph.names import Names
from ipbp.protocol import FunctionChange, PatchPlan, Segment
from ipbp.stages.plan import LinkedGroup, plan
from ipbp.stages.select import Replaced

START = HIGH + 0x100_0000
TEXT = START + 0x1000
TEXT_END = TEXT + 0x200
LONG = bytes.fromhex("554889e5897dfc8b45fc83c0015dc3")  # push rbp; mov; ...; ret
SYMBOLS = {"f": (TEXT, len(LONG)), "g": (TEXT + 0x40, 0x20)}


class Memory:
    """The inferior's memory as bytes at addresses; counts the round trips."""

    def __init__(self, pieces: Mapping[int, bytes]) -> None:
        self.pieces = pieces
        self.trips = 0

    def __call__(self, ranges: Sequence[tuple[int, int]]) -> list[bytes | None]:
        self.trips += 1
        return [self._read(address, size) for address, size in ranges]

    def _read(self, address: int, size: int) -> bytes | None:
        for start, content in self.pieces.items():
            if start <= address and address + size <= start + len(content):
                return content[address - start :][:size]
        return None


def _image(symbols: Mapping[str, tuple[int, int]]) -> LoadedImage:
    rows = sorted(symbols.items(), key=lambda item: item[1])
    names = [name for name, _place in rows]
    count = len(rows)
    table = ImageSymbols(
        name=Names.of(names),
        address=np.array([place[0] for _name, place in rows], dtype=np.int64),
        size=np.array([place[1] for _name, place in rows], dtype=np.int64),
        binding=np.ones(count, dtype=np.uint8),
        type=np.full(count, 2, dtype=np.uint8),
        file=np.full(count, -1, dtype=np.int64),
        files=(),
        by_name=NameIndex(Names.of(names)),
    )
    return LoadedImage(
        path="/app",
        file="/app",
        build_id="",
        bias=START,
        start=START,
        end=START + 0x10000,
        symbols=table,
        stubs={},
        slots={},
        sections=[(".text", TEXT, TEXT_END), (".fini", TEXT_END, TEXT_END + 16)],
        tls_size=0,
        is_pie=True,
    )


@pytest.fixture
def linked(gcc: str, tmp_path: Path) -> Linked:
    source = "extern int pick(int); int f(int x) { return x + 2; } int g(int x) { return pick(x) + 3; }"
    unit = unit_of(
        graph_of(compile_object(tmp_path, source, gcc, "-O2", "-fPIE")),
        addresses={"f": TEXT, "g": TEXT + 0x40},
        resolvers={"pick": START + 0x7000},
    )
    return link([unit])


def _replaced(linked: Linked, name: str, entry: int, old_size: int) -> Replaced:
    graph = linked.units[0].graph
    return Replaced(int(graph.symbols.block[symbol(graph, name)]), name, entry, old_size)


def _plan(
    linked: Linked,
    memory: Memory,
    replaced: Sequence[Replaced],
    symbols: Mapping[str, tuple[int, int]] = SYMBOLS,
    **more: object,
) -> PatchPlan:
    image = _image(symbols)
    settings: dict[str, object] = {
        "number": 3,
        "groups": [
            LinkedGroup(
                file=Path("/patches/patch-3.elf"),
                units=[replace(unit, image=image.key) for unit in linked.units],
                replaced=[replaced],
                layout=linked.layout,
                segments=(Segment(HIGH, 16, 4096, "rx"),),
            )
        ],
        "allocations": (),
        "images": [image],
        "read": memory,
        **more,
    }
    return plan(**settings)  # type: ignore[arg-type]


def test_the_entry_becomes_a_jump_to_the_carried_copy(linked: Linked) -> None:
    made = _plan(linked, Memory({TEXT: LONG.ljust(64, b"\x90")}), [_replaced(linked, "f", TEXT, len(LONG))])
    (change,) = made.replacements
    assert (change.address, change.name) == (TEXT, "f")
    assert change.expected == LONG[:5]
    assert change.replacement == jump(TEXT, linked.address("f"))
    assert made.forbidden == ((TEXT + 1, TEXT + 5),)


def test_all_entries_are_read_in_one_round_trip(linked: Linked) -> None:
    memory = Memory({TEXT: LONG.ljust(64, b"\x90") + LONG.ljust(64, b"\x90")})
    rows = [_replaced(linked, "f", TEXT, len(LONG)), _replaced(linked, "g", TEXT + 0x40, len(LONG))]
    assert len(_plan(linked, memory, rows).replacements) == 2
    assert memory.trips == 1


def test_endbr64_stays_and_the_jump_comes_after_it(linked: Linked) -> None:
    code = ENDBR64 + LONG
    made = _plan(linked, Memory({TEXT: code.ljust(64, b"\x90")}), [_replaced(linked, "f", TEXT, len(code))])
    (change,) = made.replacements
    assert change.address == TEXT + 4
    assert change.expected == LONG[:5]
    assert change.replacement == jump(TEXT + 4, linked.address("f"))
    assert made.forbidden == ((TEXT + 5, TEXT + 9),)


def test_an_entry_that_was_rewritten_before_gets_a_new_jump_without_looking_at_the_old_code(linked: Linked) -> None:
    before = jump(TEXT, HIGH + 0x4000)
    memory = Memory({TEXT: before})
    made = _plan(linked, memory, [_replaced(linked, "f", TEXT, 1)], entries={TEXT: before})
    (change,) = made.replacements
    assert (change.expected, change.replacement) == (before, jump(TEXT, linked.address("f")))


def test_an_entry_rewritten_behind_endbr64_is_found_again(linked: Linked) -> None:
    before = jump(TEXT + 4, HIGH + 0x4000)
    memory = Memory({TEXT: ENDBR64 + before})
    made = _plan(linked, memory, [_replaced(linked, "f", TEXT, 9)], entries={TEXT + 4: before})
    assert [change.address for change in made.replacements] == [TEXT + 4]


def test_a_jump_right_behind_a_function_of_four_bytes_is_that_of_the_next_one(linked: Linked) -> None:
    code, before = bytes.fromhex("8d047fc3"), jump(TEXT + 4, HIGH + 0x4000)  # lea (%rdi,%rdi,2),%eax; ret
    memory, symbols = _cramped(code + before, NOPS, {"f": (TEXT, 4), "g": (TEXT + 4, 5)})
    made = _plan(linked, memory, [_replaced(linked, "f", TEXT, 4)], symbols=symbols, entries={TEXT + 4: before})
    gap = TEXT + 9
    assert [(row.address, row.expected) for row in made.replacements] == [(gap, NOPS[:5]), (TEXT, code[:2])]


def test_an_entry_that_somebody_else_changed_is_refused(linked: Linked) -> None:
    memory = Memory({TEXT: LONG})
    with pytest.raises(Refused) as caught:
        _plan(linked, memory, [_replaced(linked, "f", TEXT, 5)], entries={TEXT: jump(TEXT, HIGH)})
    assert [refusal.code for refusal in caught.value.refusals] == ["entry-changed"]


def test_every_refused_entry_is_told_at_once_with_its_file(linked: Linked) -> None:
    memory = Memory({TEXT: b"\xc3" + LONG})
    rows = [_replaced(linked, "f", TEXT, 1), _replaced(linked, "g", START + 0x9000, 16)]
    with pytest.raises(Refused) as caught:
        _plan(linked, memory, rows, symbols={"f": (TEXT, 1), "next": (TEXT + 1, 15)})
    assert [(r.code, r.symbol, r.file) for r in caught.value.refusals] == [
        ("entry-too-short", "f", "unit.c"),
        ("entry-unreadable", "g", "unit.c"),
    ]


def test_padding_up_to_the_next_symbol_counts(linked: Linked) -> None:
    memory = Memory({TEXT: b"\xc3" + b"\x90" * 15 + LONG})
    made = _plan(
        linked,
        memory,
        [_replaced(linked, "f", TEXT, 1)],
        symbols={"f": (TEXT, 1), "next": (TEXT + 16, 15)},
    )
    assert made.replacements[0].expected == b"\xc3" + b"\x90" * 4


def test_padding_ends_with_the_section_because_fini_starts_there(linked: Linked) -> None:
    last = TEXT_END - 4
    memory = Memory({last: b"\x31\xc0\xc3\x90" + b"\x90" * 16})
    with pytest.raises(Refused) as caught:
        _plan(linked, memory, [_replaced(linked, "f", last, 4)], symbols={"f": (last, 4)})
    assert [refusal.code for refusal in caught.value.refusals] == ["entry-too-short"]


SHORT = bytes.fromhex("89f8c3")  # mov %edi,%eax; ret
NOPS = bytes.fromhex("662e0f1f8400000000000f1f4000")  # of ten and four bytes


def _cramped(
    first: bytes, gap: bytes, names: Mapping[str, tuple[int, int]]
) -> tuple[Memory, Mapping[str, tuple[int, int]]]:
    """`first` at TEXT, `gap` behind it, a long function behind that."""
    memory = Memory({TEXT: (first + gap + LONG).ljust(TEXT_END - TEXT, b"\xcc")})
    return memory, {**names, "last": (TEXT + len(first) + len(gap), len(LONG))}


def test_two_bytes_and_padding_nearby_do_where_five_bytes_are_not_there(linked: Linked) -> None:
    memory, symbols = _cramped(SHORT + LONG, NOPS, {"f": (TEXT, 3), "g": (TEXT + 3, len(LONG))})
    made = _plan(linked, memory, [_replaced(linked, "f", TEXT, 3)], symbols=symbols)
    relay, entry = made.replacements
    gap = TEXT + 3 + len(LONG)
    assert (relay.address, relay.expected, relay.replacement) == (gap, NOPS[:5], jump(gap, linked.address("f")))
    assert (entry.address, entry.expected, entry.replacement) == (TEXT, SHORT[:2], bytes([0xEB, gap - TEXT - 2]))
    assert (relay.interior, entry.interior) == ((gap, gap + 5), (TEXT + 1, TEXT + 2))
    assert made.forbidden == ((gap + 1, gap + 5), (TEXT + 1, TEXT + 2))


def test_two_short_functions_share_one_gap_and_a_third_finds_no_room(linked: Linked) -> None:
    names = {"f": (TEXT, 3), "g": (TEXT + 3, 3), "h": (TEXT + 6, 3), "i": (TEXT + 9, len(LONG))}
    memory, symbols = _cramped(SHORT * 3 + LONG, NOPS, names)
    rows = [_replaced(linked, "f", TEXT, 3), _replaced(linked, "g", TEXT + 3, 3)]
    made = _plan(linked, memory, rows, symbols=symbols)
    gap = TEXT + 9 + len(LONG)
    assert sorted(row.address for row in made.replacements if row.was_padding) == [gap, gap + 5]
    block = _replaced(linked, "f", 0, 0).block
    with pytest.raises(Refused) as caught:
        _plan(linked, memory, [*rows, Replaced(block, "h", TEXT + 6, 3)], symbols=symbols)
    assert [(r.code, r.symbol) for r in caught.value.refusals] == [("entry-too-short", "h")]


def test_a_later_patch_changes_the_relay_and_leaves_the_entry(linked: Linked) -> None:
    gap = TEXT + 3 + len(LONG)
    relayed = jump(gap, HIGH + 0x4000)
    entry = bytes([0xEB, gap - TEXT - 2])
    memory, symbols = _cramped(
        entry + SHORT[2:] + LONG, relayed + NOPS[5:], {"f": (TEXT, 3), "g": (TEXT + 3, len(LONG))}
    )
    row = _replaced(linked, "f", TEXT, 3)
    made = _plan(linked, memory, [row], symbols=symbols, entries={TEXT: entry, gap: relayed})
    (change,) = made.replacements
    assert (change.address, change.expected, change.was_padding) == (gap, relayed, True)
    with pytest.raises(Refused) as caught:
        _plan(linked, memory, [row], symbols=symbols, entries={TEXT: entry, gap: NOPS[:5]})
    assert [refusal.code for refusal in caught.value.refusals] == ["entry-changed"]


@pytest.mark.parametrize(
    ("before", "gap", "names"),
    [
        pytest.param(LONG[:-1] + b"\x90", NOPS, {}, id="the function before it runs on into it"),
        pytest.param(LONG[:-5] + b"\xe8\0\0\0\0", NOPS, {}, id="it may return from its last call"),
        pytest.param(LONG, NOPS[:10] + LONG[:4], {}, id="the gap is not all fill"),
        pytest.param(LONG, NOPS, {"label": (TEXT + 3 + len(LONG), 0)}, id="a name without a size is at its start"),
        pytest.param(LONG, NOPS[10:], {}, id="four bytes are too few"),
        pytest.param(LONG * 10, NOPS, {}, id="it is too far away"),
    ],
)
def test_padding_that_is_not_proved_or_not_in_reach_is_left_alone(
    linked: Linked, before: bytes, gap: bytes, names: Mapping[str, tuple[int, int]]
) -> None:
    memory, symbols = _cramped(SHORT + before, gap, {"f": (TEXT, 3), "g": (TEXT + 3, len(before)), **names})
    with pytest.raises(Refused) as caught:
        _plan(linked, memory, [_replaced(linked, "f", TEXT, 3)], symbols=symbols)
    assert [refusal.code for refusal in caught.value.refusals] == ["entry-too-short"]


@pytest.mark.parametrize(("target", "relays"), [(1, None), (2, 1), (4, 1), (5, 0)])
def test_a_table_that_leads_into_the_entry_leaves_two_bytes_or_nothing(
    linked: Linked, target: int, relays: int | None
) -> None:
    memory, symbols = _cramped(LONG, NOPS, {"f": (TEXT, len(LONG))})
    row = replace(_replaced(linked, "f", TEXT, len(LONG)), targets=(target,))
    if relays is None:
        with pytest.raises(Refused) as caught:
            _plan(linked, memory, [row], symbols=symbols)
        assert [refusal.code for refusal in caught.value.refusals] == ["entry-branch-target"]
    else:
        made = _plan(linked, memory, [row], symbols=symbols)
        assert sum(change.was_padding for change in made.replacements) == relays


def test_a_long_gap_without_a_symbol_is_not_padding(linked: Linked) -> None:
    memory = Memory({TEXT: b"\xc3" + b"\x90" * 255})
    with pytest.raises(Refused) as caught:
        _plan(linked, memory, [_replaced(linked, "f", TEXT, 1)], symbols={"f": (TEXT, 1)})
    assert [refusal.code for refusal in caught.value.refusals] == ["entry-too-short"]


def test_a_short_function_of_an_earlier_patch_has_its_sixteen_bytes(linked: Linked) -> None:
    entry = HIGH + 0x8000
    memory = Memory({entry: b"\xc3" + b"\xcc" * 15})
    made = _plan(linked, memory, [_replaced(linked, "f", entry, 1)])
    assert made.replacements[0].expected == b"\xc3" + b"\xcc" * 4


def test_a_function_that_comes_back_has_the_size_that_the_image_says(linked: Linked) -> None:
    made = _plan(linked, Memory({TEXT: LONG.ljust(64, b"\x90")}), [_replaced(linked, "f", TEXT, 0)])
    assert made.replacements[0].expected == LONG[:5]


def test_an_entry_out_of_reach_is_refused(linked: Linked) -> None:
    far = HIGH + (1 << 33)
    with pytest.raises(Refused) as caught:
        _plan(linked, Memory({far: LONG.ljust(16, b"\xcc")}), [_replaced(linked, "f", far, len(LONG))])
    assert [refusal.code for refusal in caught.value.refusals] == ["entry-out-of-reach"]


def test_the_choice_of_an_indirect_function_is_asked_for_and_stored_in_its_slot(linked: Linked) -> None:
    made = _plan(linked, Memory({}), [])
    (slot,) = linked.layout.slots
    (call,) = made.calls
    assert (call.address, call.arguments, call.result_at, call.on_undo) == (START + 0x7000, (), slot.address, False)
    assert "pick" in call.purpose


def test_the_unwind_table_is_registered_and_taken_back_on_undo(linked: Linked) -> None:
    linked = link(linked.units, unwinders=(Unwinder(0x1000, 0x2000), Unwinder(0x3000, 0x4000)))
    made = _plan(linked, Memory({}), [])
    table, (one, other) = linked.layout.unwind, linked.layout.registrations
    assert table is not None
    assert [(c.address, c.arguments, c.on_undo) for c in made.calls[1:]] == [
        (0x1000, (table.address, one.record), False),
        (0x2000, (table.address,), True),
        (0x3000, (table.address, other.record), False),
        (0x4000, (table.address,), True),
    ]
    assert abs(one.record - other.record) >= 64
    assert made.notes == ()


def test_without_an_unwinder_no_table_is_registered(linked: Linked) -> None:
    made = _plan(linked, Memory({}), [])
    assert [call.on_undo for call in made.calls] == [False]
    assert "choose the implementation" in made.calls[0].purpose


def test_a_plan_survives_the_way_to_the_plugin(linked: Linked) -> None:
    row = FunctionChange("f", "changed", "the code differs at +0x3", "unit.c", TEXT, linked.address("f"), 4)
    memory = Memory({TEXT: LONG.ljust(64, b"\x90")})
    linked = link(linked.units, unwinders=(Unwinder(0x1000, 0x2000),))
    made = _plan(
        linked,
        memory,
        [_replaced(linked, "f", TEXT, len(LONG))],
        functions=(row,),
        allocations=make_arena().allocations(),
    )
    assert PatchPlan.from_json(made.to_json()) == made
    assert made.functions == (row,)
    assert (made.number, made.files) == (3, ("/patches/patch-3.elf",))
    assert made.segments == (Segment(HIGH, 16, 4096, "rx"),)
