"""A link graph as text, for eyes, bug reports and golden files."""

from __future__ import annotations

from collections.abc import Iterator

from ipbp.graph.edges import EdgeKind
from ipbp.graph.model import ABSOLUTE, COMMON, SIDE_BASE, UNDEFINED, BlockKind, LinkGraph


def dump(graph: LinkGraph) -> str:
    """Every block with its edges, then what other objects define. Ends with a newline."""
    return "\n".join(_lines(graph)) + "\n"


def _lines(graph: LinkGraph) -> Iterator[str]:
    yield f"graph {graph.path} source={graph.source or '-'} machine={graph.machine}"
    for block in range(len(graph.blocks)):
        kind = BlockKind(graph.blocks.kind[block]).name
        size, alignment = int(graph.blocks.size[block]), int(graph.blocks.alignment[block])
        section = graph.sections[int(graph.blocks.section[block])].name
        merges = " mergeable" if graph.blocks.mergeable[block] else ""
        place = f"{section}+{int(graph.blocks.offset[block]):#x}"
        yield f"block {block} {graph.block_name(block)} {kind} {place} size={size} align={alignment}{merges}"
        edges = graph.edges_of(block)
        for row in range(edges.start, edges.stop):
            kind = EdgeKind(graph.edges.kind[row]).name
            target, addend = symbol_place(graph, int(graph.edges.target[row])), int(graph.edges.addend[row])
            yield f"  +{int(graph.edges.offset[row]):#x} {kind} {target} {addend:+#x}"
    for symbol, name in enumerate(graph.symbols.name):
        if graph.symbols.block[symbol] < 0:
            yield f"symbol {symbol_place(graph, symbol)} {name}"


def symbol_place(graph: LinkGraph, symbol: int) -> str:
    """What an edge to this symbol means, in a word: its name, its block's name, or where it stands."""
    name, block = graph.symbols.name[symbol], int(graph.symbols.block[symbol])
    if block >= 0:
        return name or graph.block_name(block)
    if block <= SIDE_BASE:
        return f"side:{graph.side[SIDE_BASE - block].name}"
    return {UNDEFINED: "undefined", ABSOLUTE: "absolute", COMMON: "common"}[block] + f":{name}"
