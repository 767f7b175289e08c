"""The reasons of a comparison in words that a programmer recognises."""

from __future__ import annotations

from ipbp.graph.edges import EdgeKind
from ipbp.graph.model import BlockKind, LinkGraph
from ipbp.stages.identity import READ_ONLY
from ipbp.stages.meaning import Meaning
from ipbp.stages.name_numbers import base_name
from ipbp.stages.same_code import Difference

_CALLS = (EdgeKind.BRANCH32, EdgeKind.PCREL8, EdgeKind.BRANCH26)
_LONGEST = 32


def difference_in_words(old: Meaning, new: Meaning, difference: Difference) -> str:
    """Why two functions differ, by the first instruction that does."""
    if difference.old_edge is None or difference.new_edge is None:
        return f"the code differs at +{difference.offset:#x}"
    one, other = difference.old_edge, difference.new_edge
    old_home, new_home = _home(old, one), _home(new, other)
    if min(old_home, new_home) >= 0 and old.block[old_home] & 1 and new.block[new_home] & 1:
        return constant_differs(old.graph, old_home, new.graph, new_home)
    names = _name(old, one), _name(new, other)
    if names[0] == names[1]:
        return f"the code differs at +{difference.offset:#x}: another place in {names[1]}"
    if new.graph.edges.kind[other] in _CALLS:
        return f"now calls {names[1]} instead of {names[0]}"
    return f"now uses {names[1]} instead of {names[0]}"


def size_in_words(old: LinkGraph, old_block: int, new: LinkGraph, new_block: int) -> str:
    sizes = int(old.blocks.size[old_block]), int(new.blocks.size[new_block])
    return "" if sizes[0] == sizes[1] else f", size {sizes[0]} -> {sizes[1]}"


def constant_differs(old: LinkGraph, old_block: int, new: LinkGraph, new_block: int) -> str:
    """How two constants differ; strings are shown."""
    if old.first_edge[old_block + 1] != old.first_edge[old_block]:
        return "a jump table or table of addresses differs"
    texts = _text(bytes(old.content(old_block))), _text(bytes(new.content(new_block)))
    if texts[0] is None or texts[1] is None:
        return "a constant differs"
    return f"a string constant differs: {texts[0]} -> {texts[1]}"


def _text(content: bytes) -> str | None:
    """The content as a quoted string when it is printable text with a NUL behind it."""
    stem, zero, rest = content.partition(b"\0")
    if not zero or any(rest):
        return None
    try:
        text = stem.decode("utf-8")
    except UnicodeDecodeError:
        return None
    if any(ord(letter) < 32 and letter not in "\n\t\r" for letter in text):
        return None
    shown = text if len(text) <= _LONGEST else text[:_LONGEST] + "..."
    escaped = shown.replace("\n", "\\n").replace("\t", "\\t").replace("\r", "\\r")
    return f'"{escaped}"'


def _home(meaning: Meaning, edge: int) -> int:
    return int(meaning.graph.symbols.block[meaning.graph.edges.target[edge]])


def _name(meaning: Meaning, edge: int) -> str:
    graph, home = meaning.graph, _home(meaning, edge)
    name = graph.symbols.name[int(graph.edges.target[edge])]
    if not name and home >= 0 and BlockKind(graph.blocks.kind[home]) in READ_ONLY:
        return "a constant"
    return base_name(name) if name else (graph.block_name(home) if home >= 0 else "nothing")
