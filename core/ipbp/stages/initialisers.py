"""Functions that run before main or at exit, in an edit of a program that has started.

The arrays of such functions (gABI, "Initialization and Termination Functions") were read by the loader long ago. What
compilers put there for variables of C++ that are new is run when the patch is applied, in the order that the linker
would give it: by priority, then unit by unit. What gives a value to variables that exist, too, is taken apart first
(`stages.separation`): they have their values. A function of the user's that is new in the program runs like these; one
that is new in the array only may have been called, and is refused. One that ran already and changed is patched as any
other, and said: it does not run again. What runs at exit is yet to run, with its new code; new functions would not.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ipbp.errors import Refusal
from ipbp.graph.columns import Flags
from ipbp.graph.image import LoadedImage, MemoryReader
from ipbp.graph.model import I32, I64, U8, BlockKind, LinkGraph
from ipbp.graph.rows import is_one_of
from ipbp.graph.unit import UNBOUND
from ipbp.stages.anchors import with_anchored_uses
from ipbp.stages.compare import Status

STATE = (BlockKind.DATA, BlockKind.BSS)
THREAD_STATE = (BlockKind.TLS_DATA, BlockKind.TLS_BSS)
THREAD_GUARD = "__tls_guard"
"""Whether a thread has initialised the variables of the unit; one for all of them."""
GUARD = "_ZGV"
"""What the name of a guard begins with: of a variable that is initialised once however many units have it (Itanium C++
ABI, 5.1.4)."""
_AT_START = ".init_array"
_AT_EXIT = (".fini", ".dtors")
_ENTRY = re.compile(r"_GLOBAL__sub_I|_GLOBAL__I_|__cxx_global_var_init")
"""Compilers' own functions in the arrays."""
_INITIALISES = re.compile(r"_Z41__static_initialization_and_destruction_0|__cxx_global_var_init|_GLOBAL__sub_")
"""Functions that compilers make for the initialisers of variables; the last are called by the arrays."""
_OF_ONE = "__cxx_global_var_init"  # clang's, of one variable
_NUMBER = re.compile(r"\.init_array\.(\d+)$")
_LAST = 65535  # the priority of what has none (GCC manual, "C++ Attributes", init_priority)


@dataclass(frozen=True, slots=True)
class Run:
    """Code that gives new variables their values: the function `symbol` of the unit's graph, called by the array.
    `variables`: their names. `priority`: lower ones come first."""

    symbol: int
    variables: tuple[str, ...]
    priority: int


@dataclass(frozen=True, slots=True)
class Initialisers:
    """What is to be said of a unit's functions that run before main or at exit. `runs`: in the order of the array.
    `mixed`: those of them that might initialise variables which exist, too."""

    refusals: tuple[Refusal, ...] = ()
    notes: tuple[str, ...] = ()
    runs: tuple[Run, ...] = ()
    mixed: tuple[Run, ...] = ()


def registered(image: LoadedImage, read: MemoryReader) -> frozenset[int]:
    """Load addresses of the image's functions that run before main or at exit."""
    ranges = [(part.start, (part.end - part.start) & ~7) for part in image.parts if part.kind == BlockKind.INIT]
    contents = read([row for row in ranges if row[1]]) if ranges else []
    words = [np.frombuffer(content, np.uint64).tolist() for content in contents if content]
    return frozenset(word for row in words for word in row)


def judge_initialisers(
    graph: LinkGraph, status: U8, address: I64, known: Collection[int], old: LinkGraph | None, file: str
) -> Initialisers:
    """What of the unit's initialisers is to be run, and what is refused (`new-initialiser`) or said. `status`: of each
    block; `address`: where each symbol runs, UNBOUND if nowhere; `known`: see `registered`; `old`: the object before,
    None if there is none."""
    graph = with_anchored_uses(graph)
    refusals: list[Refusal] = []
    notes: list[str] = []
    runs: list[Run] = []
    mixed: list[Run] = []
    is_new = new_blocks(graph, status, address)
    for block, section in entries(graph):
        anchor = int(graph.blocks.anchor[block])
        name = graph.symbols.name[anchor]
        has_run = address[anchor] != UNBOUND and int(address[anchor]) in known
        if section.startswith(_AT_EXIT) or not _ENTRY.match(name):
            if not has_run and is_new[block] and section.startswith(_AT_START):
                runs.append(Run(anchor, (name,), priority(section)))
            elif not has_run:
                refusals.append(_new(name, file))
            elif not section.startswith(_AT_EXIT) and status[block] != Status.SAME:
                fresh, _ = variables_of(graph, [block], is_new)
                refusals += [_not_set(variable, name, file) for variable in names(graph, fresh)]
                notes += [] if fresh else [_in_vain(name)]
            continue
        parts = with_initialisers(graph, block)
        if all(status[part] == Status.SAME for part in parts):
            continue
        fresh, existing = variables_of(graph, parts, is_new)
        row = Run(anchor, tuple(names(graph, fresh)), priority(section))
        if not fresh and not existing and _has_guard(graph, parts):
            continue
        # What names no variable may be for one that was optimised away: of before, if there was any.
        may_be_of_old = bool(existing) or (not name.startswith(_OF_ONE) and (old is None or _initialises(old)))
        if not fresh and may_be_of_old:
            notes.append(_in_vain(name))
        elif may_be_of_old:
            mixed.append(row)
        else:
            runs.append(row)
    return Initialisers(tuple(refusals), tuple(notes), tuple(runs), tuple(mixed))


def new_blocks(graph: LinkGraph, status: U8, address: I64) -> Flags:
    """For each block whether the process has nothing of it."""
    result: Flags = (status == Status.NEW) & (address[graph.blocks.anchor] == UNBOUND)
    return result


def entries(graph: LinkGraph) -> Iterator[tuple[int, str]]:
    """Each function in one of the arrays, by its block, and the name of the array's section."""
    edges, home = graph.edges, graph.symbols.block
    rows = np.flatnonzero((graph.blocks.kind[edges.block] == BlockKind.INIT) & (home[edges.target] >= 0))
    for row in rows.tolist():
        yield int(home[edges.target[row]]), graph.sections[int(graph.blocks.section[edges.block[row]])].name


def starts(graph: LinkGraph, is_other: Flags) -> I32:
    """Blocks of the functions that the arrays lead to at the start, and whose own code or that of what they call to
    initialise variables is another now (`is_other`, of each block). Clang numbers what they call: code that is the same
    may mean something else."""
    found = {block for block, section in entries(graph) if not section.startswith(_AT_EXIT)}
    rows = [block for block in sorted(found) if is_other[with_initialisers(graph, block)].any()]
    return np.array(rows, dtype=np.int32)


def with_initialisers(graph: LinkGraph, block: int) -> list[int]:
    """A function, and the compiler's own that it calls to initialise variables."""
    found, waiting = [], [block]
    while waiting:
        here = waiting.pop()
        found.append(here)
        for symbol in np.unique(graph.edges.target[graph.edges_of(here)]).tolist():
            target = int(graph.symbols.block[symbol])
            if target >= 0 and target not in found and _INITIALISES.match(graph.block_name(target)):
                waiting.append(target)
    return found


def variables_of(
    graph: LinkGraph, blocks: Iterable[int], is_new: Flags, kinds: Sequence[BlockKind] = STATE
) -> tuple[list[int], list[int]]:
    """The unit's variables of these kinds that this code refers to: blocks of new ones, and of those that exist and
    that it may initialise, which are all that have no guard of before."""
    rows = [graph.edges.target[graph.edges_of(block)] for block in blocks]
    homes = np.unique(graph.symbols.block[np.concatenate(rows)]) if rows else np.empty(0, np.int32)
    homes = homes[homes >= 0]
    state = homes[is_one_of(graph.blocks.kind[homes], kinds)].tolist()
    label = {block: graph.block_name(block) for block in state}
    guards = {label[block] for block in state if label[block].startswith(GUARD) and not is_new[block]}
    variables = [block for block in state if not label[block].startswith((GUARD, THREAD_GUARD))]
    fresh = [block for block in variables if is_new[block]]
    return fresh, [block for block in variables if not is_new[block] and guard_of(label[block]) not in guards]


def _has_guard(graph: LinkGraph, blocks: Iterable[int]) -> bool:
    targets = (graph.edges.target[graph.edges_of(block)].tolist() for block in blocks)
    return any(graph.symbols.name[target].startswith(GUARD) for row in targets for target in row)


def guard_of(name: str) -> str:
    """The name of a variable's guard."""
    return GUARD + (name[2:] if name.startswith("_Z") else f"{len(name)}{name}")


def _initialises(graph: LinkGraph) -> bool:
    """Whether the unit has code that gives variables their values."""
    return any(map(_INITIALISES.match, graph.symbols.name))


def names(graph: LinkGraph, blocks: Iterable[int]) -> list[str]:
    return [name for name in map(graph.block_name, blocks) if name]


def priority(section: str) -> int:
    match = _NUMBER.match(section)
    return int(match[1]) if match else _LAST


def not_initialised(run: Run, graph: LinkGraph, file: str, why: str) -> list[Refusal]:
    """A refusal for each variable of `run`, which also initialises some that exist: `why` it cannot do without."""
    return [
        Refusal(
            "new-initialiser",
            f"the new variable '{variable}' gets its value in '{graph.symbols.name[run.symbol]}' together with "
            f"variables that have theirs, and {why}",
            "Give it a constant value, or put it into a file of its own, or restart the program.",
            variable,
            file,
        )
        for variable in run.variables
    ]


def not_run(run: Run, file: str, where: str) -> list[Refusal]:
    """A refusal for each variable of `run`, where the program is not made to run it."""
    return [
        Refusal(
            "new-initialiser",
            f"the new variable '{variable}' gets its value by code that runs before main, which ipbp does not run on "
            f"{where} yet",
            "Give it a constant value, or restart the program.",
            variable,
            file,
        )
        for variable in run.variables
    ]


def _new(name: str, file: str) -> Refusal:
    return Refusal(
        "new-initialiser",
        f"'{name}' runs before main or at exit, and the program has started without it",
        "Call the new initialisation from code that runs again, or restart the program.",
        name,
        file,
    )


def _not_set(variable: str, function: str, file: str) -> Refusal:
    return Refusal(
        "new-initialiser",
        f"the new variable '{variable}' gets its value in '{function}', which ran before main and does not run again",
        "Give it a constant value, or set it in code that runs again, or restart the program.",
        variable,
        file,
    )


def _in_vain(name: str) -> str:
    return f"'{name}' ran before main and does not run again: its edit has no effect in this process"


def judge_thread_initialisers(graph: LinkGraph, status: U8, address: I64, file: str) -> list[Refusal]:
    """`new-initialiser` for each thread-local variable that is initialised together with some that exist: a thread that
    has done that does not do it again."""
    (guard,) = graph.symbols.name.rows_of([THREAD_GUARD]).tolist()
    if guard < 0 or graph.symbols.block[guard] < 0 or address[guard] == UNBOUND:
        return []
    graph, is_new = with_anchored_uses(graph), new_blocks(graph, status, address)
    found: dict[int, int] = {}
    for user in np.unique(graph.edges.block[graph.edges.target == guard]).tolist():
        if status[user] == Status.SAME and all(status[part] == Status.SAME for part in with_initialisers(graph, user)):
            continue
        parts = with_initialisers(graph, user)
        targets = np.concatenate([graph.edges.target[graph.edges_of(part)] for part in parts])
        homes = np.unique(graph.symbols.block[targets])
        for home in homes[homes >= 0].tolist():
            if graph.blocks.kind[home] in THREAD_STATE and is_new[home]:
                found.setdefault(home, user)
    return [_not_in_threads(graph.block_name(home), graph.block_name(user), file) for home, user in found.items()]


def _not_in_threads(variable: str, function: str, file: str) -> Refusal:
    return Refusal(
        "new-initialiser",
        f"the new thread-local variable '{variable}' gets its value in '{function}', which threads that run have done "
        "for the variables that exist",
        f"If the file is optimised, take the edit back, type `hotpatch deopt {Path(file).name}`, make it again; or "
        "put the variable into a file of its own, give it a constant value, or restart the program.",
        variable,
        file,
    )


def made_in_turn(function: str, file: str) -> Refusal:
    return Refusal(
        "new-initialiser",
        f"'{function}' changed, and an earlier patch brought thread-local variables, which threads make by the old one",
        "Leave the initial values of thread-local variables as they are, or undo that patch first.",
        function,
        file,
    )
