"""Where a function that is only known as linked A64 code refers to: its branches, literals and addresses.

Absolute addresses put together of four parts (the large code model) are not found: a number in an instruction does not
say whether it is an address.
"""

from __future__ import annotations

from ipbp.arch.aarch64_addresses import Address, Addresses, addresses
from ipbp.arch.aarch64_code import branch_fields, literal_fields, words
from ipbp.arch.instructions import CodeReference, Told
from ipbp.graph.edges import EdgeKind

_THREAD_POINTER = 0xD53BD040  # mrs x0, tpidr_el0
_LOAD, _LOAD_BITS = 0xF9400000, 0xFFC00000  # ldr xd, [xn, #imm12]


def code_references(code: bytes, start: int, results: int) -> list[CodeReference]:
    """All of them that leave the function, in order. `start`: its load address; `results`: see `aarch64_addresses`. Of
    an address whose other half was not found the page, which is unsure."""
    found = addresses(code, start, results, {})
    rows = [
        CodeReference(row.field, row.kind, start + row.target, row.kind)
        for row in (*branch_fields(code), *literal_fields(code))
    ]
    rows += _of_addresses(code, found)
    rows += [CodeReference(at, EdgeKind.PAGE21, page, EdgeKind.GOT_PAGE21, is_unsure=True) for at, page in found.apart]
    leaving = [row for row in rows if row.is_unsure or not start <= row.place < start + len(code)]
    return sorted(leaving, key=lambda row: row.field)


def told_references(code: bytes, start: int, told: Told) -> list[CodeReference]:
    """Of an object's function those that its fixups tell, and those that are counted from them. `start`: a number for
    its place that no address in `told` has. Only gcc counts so: C's calls give back two registers."""
    return sorted(_of_addresses(code, addresses(code, start, 2, told)), key=lambda row: row.field)


def reaches_threads(code: bytes) -> bool:
    """Whether it uses the thread pointer, as all code does that reaches thread-local variables."""
    return bool((words(code) & ~31 == _THREAD_POINTER).any())


def _of_addresses(code: bytes, found: Addresses) -> list[CodeReference]:
    rows, pages = list[CodeReference](), dict[int, CodeReference]()
    column = words(code)
    for offset, (place, makers) in sorted(found.direct.items()):
        word = int(column[offset // 4])
        kind = _low(word)
        is_load = word & _LOAD_BITS == _LOAD
        rows.append(CodeReference(offset, kind, place, EdgeKind.GOT_LOW12 if is_load else kind))
        for page in makers:
            pages.setdefault(page, CodeReference(page, EdgeKind.PAGE21, place, EdgeKind.GOT_PAGE21))
    for offset, made in sorted(found.made.items()):
        reached = found.reached(made)
        is_near = made.base is None and not made.pages
        kind = EdgeKind.ADDRESS21 if is_near else EdgeKind.LOW12
        rows.append(
            CodeReference(offset, kind, made.place, kind, 0, made.base, made.is_unsure, reached, made.may_be_end)
        )
        for page in sorted(made.pages):
            row = CodeReference(page, EdgeKind.PAGE21, made.place, EdgeKind.GOT_PAGE21, reached=reached)
            if page not in pages or (pages[page].reached and not reached):
                pages[page] = row
        rows += _uses(found, made)
    return [*rows, *pages.values()]


def _uses(found: Addresses, made: Address) -> list[CodeReference]:
    """Loads and stores that count from the address; sums stand for themselves."""
    kind = EdgeKind.LOW12
    rows = [(offset, place, False) for offset, place in made.used] + [(*row, True) for row in made.unsure]
    return [
        CodeReference(offset, kind, place, kind, base=made.place, is_unsure=is_unsure)
        for offset, place, is_unsure in sorted(rows)
        if offset not in found.made
    ]


def _low(word: int) -> EdgeKind:
    """Of a load or store with an unsigned offset, which counts in the bytes that it takes."""
    size = 4 if word >> 26 & 1 and word >> 23 & 1 else word >> 30
    return EdgeKind(EdgeKind.LOW12_OF_8 + size)
