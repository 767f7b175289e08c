"""New thread-local variables beside those that a thread has made already.

A thread makes all thread-local variables of a unit at the first use of one, and remembers in one guard that it has
(Itanium C++ ABI, 5.1.4: `_ZTW` asks, `_ZTH` makes them; gcc and clang call the function `__tls_init`). Another such
function would not run again in threads that have. So the patch brings one with a guard of its own, which makes the new
variables, and which calls the old one first:

    movabs $old, %rax ; sub $8, %rsp ; call *%rax ; add $8, %rsp        then the compiler's code, without the old ones

The old one stays as it is, for old code goes on to call it. It is a part of the chain for ever: the next patch that
brings more calls this one.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from functools import partial

import numpy as np

from ipbp.graph.columns import Flags
from ipbp.graph.edges import EdgeKind
from ipbp.graph.model import BlockKind, LinkGraph, SectionTable, SideEdges, SideSection
from ipbp.graph.names import Names
from ipbp.graph.rows import byte_rows
from ipbp.graph.unit import UNBOUND, Unit
from ipbp.stages.initialisers import THREAD_GUARD, THREAD_STATE, variables_of, with_initialisers
from ipbp.stages.separation import Inseparable, Sources, separated_in_threads

MAKER = "__tls_init"
_HEAD_SIZE = 32
_FILL = 0x90  # nop
_UNWIND = bytes.fromhex(
    "14000000"  # length
    "00000000"  # a CIE
    "01"  # version
    "7a5200"  # zR
    "01"  # code counts in bytes
    "78"  # data in -8
    "10"  # the return address
    "01"  # bytes of what follows
    "1b"  # the function is a distance of four bytes
    "0c0708"  # the frame is at rsp + 8
    "9001"  # the return address 8 below
    "0000"
    "14000000"  # 18: length
    "1c000000"  # distance to the CIE
    "00000000"  # 20: the function
    "20000000"  # its size: the head
    "00"  # bytes of what follows
    "4e0e10"  # 0e: behind the sub
    "460e08"  # 14: behind the add
    "00"
)
_FUNCTION_FIELD = 0x20


def maker_of(graph: LinkGraph) -> int:
    """The block of the function by which a thread makes the unit's variables, or -1."""
    (symbol,) = graph.symbols.name.rows_of([MAKER]).tolist()
    return int(graph.symbols.block[symbol]) if symbol >= 0 else -1


def needs_maker(graph: LinkGraph, is_new: Flags, carried: Collection[int]) -> bool:
    """Whether the function that the unit carries for this makes new variables together with some that exist."""
    maker = maker_of(graph)
    if maker < 0 or maker not in carried:
        return False
    fresh, existing = variables_of(graph, with_initialisers(graph, maker), is_new, THREAD_STATE)
    return bool(fresh and existing)


def with_maker(unit: Unit, old: int, is_new: Flags, sources: Sources) -> tuple[Unit, list[int]]:
    """The unit, with a function of its own for its new thread-local variables, and the blocks of that function and of
    what it calls for it: these are no new versions of the old ones, which go on. `old`: where the old function runs,
    or UNBOUND. See `needs_maker`. Errors: `Inseparable`."""
    graph = unit.graph
    maker = maker_of(graph)
    parts = with_initialisers(graph, maker)
    (guard,) = graph.symbols.name.rows_of([THREAD_GUARD]).tolist()
    users = set(graph.edges.block[graph.edges.target == guard].tolist()) if guard >= 0 else set()
    if users != {maker} or old == UNBOUND or graph.blocks.kind[maker] != BlockKind.CODE:
        raise Inseparable("in optimised code it cannot be told which part is whose")
    graph = _with_head(separated_in_threads(graph, maker, is_new, sources), maker, old)
    home = int(graph.symbols.block[guard])
    address = unit.address.copy()
    address[np.isin(graph.symbols.block, (*np.intersect1d(parts, unit.carried), home))] = UNBOUND
    carried = np.unique(np.append(unit.carried, home)).astype(np.int32)
    return replace(unit, graph=graph, carried=carried, address=address), parts


def _head(old: int) -> bytes:
    code = b"".join(
        (
            bytes([0x48, 0xB8]) + old.to_bytes(8, "little"),  # 00  movabs $old, %rax
            bytes([0x48, 0x83, 0xEC, 0x08]),  # 0a  sub $8, %rsp
            bytes([0xFF, 0xD0]),  # 0e  call *%rax
            bytes([0x48, 0x83, 0xC4, 0x08]),  # 10  add $8, %rsp
        )
    )
    return code.ljust(_HEAD_SIZE, bytes([_FILL]))


def _with_head(graph: LinkGraph, block: int, old: int) -> LinkGraph:
    """The graph, in which the block begins with the head, in a section of its own. Whatever else describes the block
    describes what follows the head."""
    content = _head(old) + bytes(graph.content(block))
    sections, blocks, edges = graph.sections, graph.blocks, graph.edges
    here = graph.edges_of(block)
    section, start, size = blocks.section.copy(), blocks.offset.copy(), blocks.size.copy()
    section[block], start[block], size[block] = len(sections), 0, len(content)
    alignment, offset, symbol_size = blocks.alignment.copy(), edges.offset.copy(), graph.symbols.size.copy()
    alignment[block] = 16
    offset[here] += _HEAD_SIZE
    symbol_size[graph.symbols.block == block] += _HEAD_SIZE
    return replace(
        graph,
        sections=SectionTable(
            Names(sections.name.rows.followed_by(Names.of([f".text.{MAKER}"]).rows)),
            sections.content.followed_by(byte_rows([content])),
            np.append(sections.alignment, 16),
            Names(sections.group.rows.followed_by(Names.of([""]).rows)),
        ),
        blocks=replace(blocks, section=section, offset=start, size=size, alignment=alignment),
        symbols=replace(graph.symbols, size=symbol_size),
        edges=replace(edges, offset=offset),
        side=tuple(replace(side, read=partial(_moved, side, graph, block)) for side in graph.side),
    )


def _moved(side: SideSection, graph: LinkGraph, block: int) -> SideEdges:
    addend = np.where(graph.symbols.block[side.target] == block, side.addend + _HEAD_SIZE, side.addend)
    if side.name != ".eh_frame":
        return SideEdges(side.content, side.offset, side.kind, side.target, addend)
    content = bytes(side.content) + bytes(-len(side.content) % 8)
    return SideEdges(
        memoryview(content + _UNWIND),
        np.append(side.offset, len(content) + _FUNCTION_FIELD),
        np.append(side.kind, np.uint8(EdgeKind.PCREL32)),
        np.append(side.target, graph.blocks.anchor[block]).astype(np.int32),
        np.append(addend, 0),
    )
