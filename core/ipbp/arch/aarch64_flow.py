"""AArch64: what each instruction takes and gives (`arch.flow`), in functions that gcc made without optimisation.

Such a function makes its frame at its begin and takes it down where it returns; in between the stack pointer stays, and
places in the frame are counted from it, or from x29, which then is a fixed distance above it. A function that is not so
is not told.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from capstone import arm64

from ipbp.arch.aarch64_code import NOP, WORD, detailed_reader, untold_registers, words
from ipbp.arch.aarch64_effects import STACK, Effect, effects, targets_inside
from ipbp.arch.flow import Flow, Step, kept_places
from ipbp.graph.edges import EdgeKind

_FLAGS = "flags"
_FRAME_POINTER, _LINK = 29, 30
_SAVED: frozenset[str | int] = frozenset(f"x{number}" for number in range(19, 29))
_CLOBBERED = frozenset(
    (_FLAGS, *(f"x{number}" for number in range(19)), *(f"v{number}" for number in range(32) if not 8 <= number < 16))
)
"""By a call (AAPCS64, "Machine registers")."""
_CALL, _JUMP = 0x25, 0x14000000  # bits 31:26 of bl; b
_REACH = (1 << 26) - 1

_OF_CALLER = r"(?:x(?:19|2\d|30)|d(?:8|9|1[0-5]))"
_SETS_UP = re.compile(
    rf"bti c|paci[ab]sp|st[rp] {_OF_CALLER}(?:, {_OF_CALLER})?, \[sp(?:, #-?\w+)?\]!?|sub sp, sp, #\w+(?:, lsl #12)?"
    r"|mov x29, sp|add x29, sp, #\w+"
)
_TAKES_DOWN = re.compile(
    rf"auti[ab]sp|ld[rp] {_OF_CALLER}(?:, {_OF_CALLER})?, \[sp(?:, #\w+)?\](?:, #\w+)?|add sp, sp, #\w+(?:, lsl #12)?"
    r"|mov sp, x29"
)
_RETURNS = re.compile(r"ret|retaa|retab")
_KEEPS = re.compile(r"str w[01], \[sp(?:, #\w+)?\]")
_COMPARES = re.compile(r"mov w\d+, #\w+|cmp w\d+, (?:#\w+|w\d+)")
_ASKS = re.compile(r"ldr w\d+, \[sp(?:, #\w+)?\]")
_LONGEST = 2  # instructions between the load and the jump: a large number, and the comparison
_VECTOR = re.compile(r"[vqdshb](\d+)")
_GENERAL = re.compile(r"[xw](\d+)")
_OTHERS = ("sp", "wsp", "fp", "lr", "xzr", "wzr")
_OF_FRAME = (STACK, _FRAME_POINTER, _LINK)
_PLAIN = re.compile(r"(?:ld|st)u?r(?:b|h|sb|sh|sw)?|ldp|stp|ldpsw")
_COMPARISONS = ("cmp", "cmn", "tst")
_TESTS = ("cbz", "cbnz", "tbz", "tbnz")


def steps(code: bytes) -> list[Step] | None:
    """The instructions in order; None for code of another form."""
    rows = list(detailed_reader().disasm(code, 0))
    if len(rows) * WORD != len(code) or not rows:
        return None
    texts = [f"{row.mnemonic} {row.op_str}".strip() for row in rows]
    frame = _Frame.of(texts)
    targets = targets_inside(code)
    found = []
    for number, (row, text, effect) in enumerate(zip(rows, texts, effects(code), strict=True)):
        target = targets.get(number, -1)
        made = _step(row, text, effect, frame, number, target * WORD if target >= 0 else -1)
        if made is None:
            return None
        found.append(made)
    return found


@dataclass(frozen=True, slots=True)
class _Frame:
    """Indexes of the instructions that make it and take it down, and of those that keep arguments in it. `above`: how
    far x29 is above the stack pointer, None where it is not made so."""

    made: frozenset[int]
    keeps: frozenset[int]
    above: int | None

    @classmethod
    def of(cls, texts: Sequence[str]) -> _Frame:
        begins = next((row for row, text in enumerate(texts) if not _SETS_UP.fullmatch(text)), len(texts))
        made = set(range(begins))
        for row, text in enumerate(texts):
            if _RETURNS.fullmatch(text):
                while row not in made and (_RETURNS.fullmatch(texts[row]) or _TAKES_DOWN.fullmatch(texts[row])):
                    made.add(row)
                    row -= 1
        keeps = begins
        while keeps < len(texts) and _KEEPS.fullmatch(texts[keeps]):
            keeps += 1
        return cls(frozenset(made), frozenset(range(begins, keeps)), _above(texts[:begins]))


def _above(made: Sequence[str]) -> int | None:
    """`made`: the instructions that make the frame, in order."""
    rows = [row for row, text in enumerate(made) if " x29, sp" in text]
    if len(rows) != 1 or any(_moves_stack(text) for text in made[rows[0] :]):
        return None
    return int(made[rows[0]].partition("#")[2] or "0", 0)


def _moves_stack(text: str) -> bool:
    return text.startswith("sub sp") or text.endswith("!")


def _step(row: Any, text: str, effect: Effect, frame: _Frame, number: int, target: int) -> Step | None:
    """None where it does something with the frame that is not known, or with a register."""
    offset, nothing = number * WORD, frozenset[str | int]()
    if number in frame.made:
        returns = _RETURNS.fullmatch(text) is not None
        return Step(offset, WORD, nothing, nothing, -1, returns, False, False, True, False)
    access = _access(row, effect, frame)
    names = _names(row)
    if access is None or names is None or not {STACK, _FRAME_POINTER}.isdisjoint(effect.writes):
        return None
    takes, gives = access[0] | names[0], access[1] | names[1]
    takes |= {f"x{register}" for register in effect.reads if register not in _OF_FRAME}
    gives |= {f"x{register}" for register in effect.writes if register not in _OF_FRAME}
    if effect.calls:
        gives |= _CLOBBERED
    keeps = number in frame.keeps
    return Step(offset, WORD, takes, gives, target, effect.ends, effect.calls, keeps, False, effect.jumps)


_Places = frozenset[str | int]


def _access(row: Any, effect: Effect, frame: _Frame) -> tuple[_Places, _Places] | None:
    """Places in the frame that it takes and gives; of memory elsewhere the register that it counts from."""
    nothing = _Places()
    inside = {STACK: 0, _FRAME_POINTER: frame.above}
    named = inside.keys() & {*effect.reads}
    if effect.base is None:
        if not named:
            return nothing, nothing
        above = inside[named.pop()]
        known = effect.summand in inside and not named and above is not None
        return (nothing, _Places((above + effect.distance,))) if known and above is not None else None
    if named:
        return None
    if effect.base not in inside:
        return _Places((f"x{effect.base}",)), nothing
    above = inside[effect.base]
    if above is None or effect.grows or not _PLAIN.fullmatch(row.mnemonic):
        return None
    size = effect.size // effect.things
    places = _Places(above + effect.distance + size * thing for thing in range(effect.things))
    return (nothing, places) if effect.is_store else (places, nothing)


def _names(row: Any) -> tuple[_Places, _Places] | None:
    """Vectors and flags that it takes and gives, and what it compares; None where another register is named."""
    read, written = ([str(row.reg_name(register)) for register in side] for side in row.regs_access())
    untold = [str(row.reg_name(register)) for register in untold_registers(row)]
    if row.mnemonic in _COMPARISONS:  # capstone 5 takes their first operand for a result
        read += [name for name in written if name != "nzcv"]
        written = ["nzcv"]
    if row.mnemonic in _TESTS:
        read = [name for name in read if name != "nzcv"]
    if row.mnemonic == "fmov" and row.operands[1].type == arm64.ARM64_OP_FP:
        read = []
    takes, gives = (_named([*side, *untold], row.mnemonic in _COMPARISONS) for side in (read, written))
    return None if takes is None or gives is None else (takes, gives)


def _named(names: Iterable[str], with_general: bool) -> _Places | None:
    found: set[str | int] = set()
    for name in names:
        general, vector = _GENERAL.fullmatch(name), _VECTOR.fullmatch(name)
        if vector or name == "nzcv":
            found.add(f"v{vector[1]}" if vector else _FLAGS)
        elif general and with_general:
            found.add(f"x{general[1]}")
        elif not general and name not in _OTHERS:
            return None
    return frozenset(found)


def _asking(rows: Sequence[Step], code: bytes) -> set[int] | None:
    """A load of what is kept, a comparison, and the jump behind it."""
    slots, found = kept_places(rows), set[int]()
    texts = [f"{row.mnemonic} {row.op_str}".strip() for row in detailed_reader().disasm(code, 0)]
    for number, step in enumerate(rows):
        if step.keeps:
            found.add(step.offset)
        elif slots & (step.takes | step.gives):
            question = _question(rows[number:], texts)
            if not question:
                return None
            found.update(question)
    return found


def _question(rows: Sequence[Step], texts: Sequence[str]) -> list[int]:
    """Offsets of the question that begins with the first row; none if it is no such question."""
    jump = next((number for number, row in enumerate(rows) if row.target >= 0 or row.ends), 0)
    between = [texts[row.offset // WORD] for row in rows[1:jump]]
    is_one = bool(_ASKS.fullmatch(texts[rows[0].offset // WORD])) and all(map(_COMPARES.fullmatch, between))
    is_one &= 0 < len(between) <= _LONGEST and between[-1].startswith("cmp") and not rows[jump].ends
    return [row.offset for row in rows[: jump + 1]] if is_one else []


def _without_call(code: bytes, kind: EdgeKind, field: int) -> bytes | None:
    if kind != EdgeKind.BRANCH26 or int(words(code)[field // WORD]) >> 26 != _CALL:
        return None
    return code[:field] + NOP.to_bytes(WORD, "little") + code[field + WORD :]


def _jump(source: int, target: int) -> bytes:
    return (_JUMP | (target - source) // WORD & _REACH).to_bytes(WORD, "little")


FLOW = Flow(
    steps=steps,
    asking=_asking,
    without_call=_without_call,
    jump=_jump,
    jump_size=WORD,
    saved=_SAVED,
)
