"""How the frame that the user selected goes on in new code: its function on both sides, and what the stages say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from elftools.common.exceptions import DWARFError, ELFError
from elftools.elf.elffile import ELFFile

from ipbp.arch.machines import machine_of
from ipbp.arch.x86_64_effects import effects
from ipbp.build.debug_sections import debug_information
from ipbp.errors import Refusal, Refused
from ipbp.formats.debug_functions import describe_function
from ipbp.formats.elf_linked import LinkedFile, map_file, read_linked
from ipbp.formats.elf_process import LoadedProcess
from ipbp.formats.elf_unwind_rows import unwind_rows
from ipbp.graph.frames import REGISTER_NAMES, RETURN_ADDRESS, DescribedFunction
from ipbp.graph.model import LinkGraph
from ipbp.pipeline.judge import Judged
from ipbp.protocol import FrameMove, FunctionChange, PatchPlan, SelectedFrame
from ipbp.stages.branches import with_local_branches
from ipbp.stages.code_places import Word
from ipbp.stages.code_words import CodeWords
from ipbp.stages.frame_remap import FrameSide, plan_remap
from ipbp.stages.frame_restart import plan_restart
from ipbp.stages.liveness import frame_accesses

OFFER = "offer"


@dataclass(frozen=True, slots=True)
class CodeFile:
    """A file with code and the one with its debug information; what is added to their addresses when it runs."""

    code: LinkedFile
    debug: str
    bias: int


def frame_move(
    frame: SelectedFrame, process: LoadedProcess, made: PatchPlan | None, changed: Sequence[Judged]
) -> FrameMove:
    """Errors: `Refused` with `frame-*`."""
    machine = machine_of(process.executable_image().machine)
    if not machine.follows_flow:
        raise Refused([_other_machine(machine.title)])
    file = _file_of(frame, process)
    old = described(file, frame.pc - (frame.level > 0)) if file is not None else None
    if old is None:
        raise Refused([_undescribed(frame.pc)])
    row = _changed_row(frame, old, made)
    if frame.mode == "remap" and row is None:
        raise Refused([_same_code(old.name)])
    if row is not None and made is not None:
        new = next((found for path in made.files if (found := described(patch_file(path), row.address))), None)
    elif frame.newest[1]:
        new = described(patch_file(frame.newest[1]), frame.newest[0])
    else:
        new = old
    if new is None:
        raise Refused([_undescribed(row.address if row else frame.pc)])
    if frame.mode == "remap" and row is not None:
        return _remapped(frame, old, new, row, changed)
    return _restarted(frame, old, new)


def frame_offers(
    frame: SelectedFrame, process: LoadedProcess, made: PatchPlan, changed: Sequence[Judged]
) -> tuple[str, ...]:
    """Of remap and restart those that are possible; () when the patch does not change the code that the frame runs."""
    inside = frame.pc - (frame.level > 0)
    newest = frame.newest[0]
    if not any(
        row.status == "changed" and (newest or row.entry) <= inside < (newest or row.entry) + row.old_size
        for row in made.functions
    ):
        return ()
    found = []
    for mode in ("remap", "restart"):
        try:
            frame_move(replace(frame, mode=mode), process, made, changed)
        except Refused:
            continue
        found.append(mode)
    return tuple(found)


def _other_machine(title: str) -> Refusal:
    return Refusal(
        "frame-machine",
        f"frames of {title} code cannot be moved to new code yet",
        "Let the function return: its next call runs the new code.",
    )


def _restarted(frame: SelectedFrame, old: DescribedFunction, new: DescribedFunction) -> FrameMove:
    found = plan_restart(
        old,
        effects(old.code),
        frame.pc - old.start,
        new,
        effects(new.code),
        frame.level == 0,
        frame.takes_current,
    )
    if isinstance(found, Refusal):
        raise Refused([found])
    unwind = found.unwind
    saved = [(REGISTER_NAMES[number], place) for number, place in unwind.saved.items() if number < RETURN_ADDRESS]
    return FrameMove(
        function=old.name,
        mode="restart",
        target=new.start,
        base=REGISTER_NAMES[unwind.base],
        distance=unwind.distance,
        stack=-8,
        saved=tuple(saved),
        arguments=found.arguments,
        file=new.lines[0].file if new.lines else "",
        line=new.lines[0].line if new.lines else 0,
    )


def _remapped(
    frame: SelectedFrame, old: DescribedFunction, new: DescribedFunction, row: FunctionChange, changed: Sequence[Judged]
) -> FrameMove:
    words = _words(row, changed)
    if words is None:
        raise Refused([_undescribed(frame.pc)])
    sides = [frame_side(function, *where) for function, where in zip((old, new), words, strict=True)]
    found = plan_remap(sides[0], frame.pc - old.start, sides[1], frame.level > 0, frame.keeps_callee)
    if isinstance(found, Refusal):
        raise Refused([found])
    return FrameMove(
        function=old.name,
        mode="remap",
        target=new.start + found.offset,
        base=REGISTER_NAMES[found.unwind.base],
        distance=found.unwind.distance,
        stack=-found.depth,
        file=new.lines[0].file if new.lines else "",
        line=found.line,
        copies=found.copies,
    )


def frame_side(function: DescribedFunction, partial: LinkGraph, block: int) -> FrameSide:
    """The function with the words of its instructions, which the block of its object tells. What an instruction touches
    in the frame is called by the variable's name."""
    graph = with_local_branches(partial, [block])
    rows = effects(function.code)
    table = dict(CodeWords(graph, {}).of_block(block))
    accesses, _ = frame_accesses(function, rows or ())
    words: list[Word] = []
    for row, places in zip(rows or (), accesses, strict=True):
        names = [_name_of(function, row.offset, place) for place, _ in places]
        words.append((row.offset, " ".join([table.get(row.offset, "nop"), *names])))
    return FrameSide(function, rows, words)


def _name_of(function: DescribedFunction, offset: int, place: int) -> str:
    for row in function.variables:
        if row.place is not None and row.place <= place < row.place + row.size and row.is_visible_at(offset):
            return f"{row.name}+{place - row.place}"
    return str(place)


def _words(
    row: FunctionChange, changed: Sequence[Judged]
) -> tuple[tuple[LinkGraph, int], tuple[LinkGraph, int]] | None:
    """The function's block in the old and in the new graph."""
    for unit in changed:
        for replaced in unit.selection.replaced:
            old_block = int(unit.comparison.old_block[replaced.block])
            if replaced.entry == row.entry and unit.edited.name == row.file and old_block >= 0:
                return (unit.old.graph, old_block), (unit.edited.new, replaced.block)
    return None


def _changed_row(frame: SelectedFrame, old: DescribedFunction, made: PatchPlan | None) -> FunctionChange | None:
    """What the patch says of the function, if the frame runs the version that it replaces."""
    for row in made.functions if made is not None else ():
        is_newest = old.start == (frame.newest[0] or row.entry)
        if row.status == "changed" and row.size and is_newest and row.entry == (frame.entry or old.start):
            return row
    return None


def _file_of(frame: SelectedFrame, process: LoadedProcess) -> CodeFile | None:
    if frame.file:
        return patch_file(frame.file)
    for module in process.modules:
        if module.mapped.start <= frame.pc < module.mapped.end and module.opened_as:
            return CodeFile(module.file, module.debug_file or module.opened_as, module.bias)
    return None


def patch_file(path: str) -> CodeFile:
    return CodeFile(read_linked(map_file(path), path), path, 0)


def described(file: CodeFile, pc: int) -> DescribedFunction | None:
    """The function with this load address in it."""
    try:
        with open(file.debug, "rb") as stream:
            dwarf = debug_information(ELFFile(stream), Path(file.debug))
            if not dwarf.has_debug_info:
                return None
            return describe_function(
                dwarf,
                pc - file.bias,
                file.bias,
                lambda start, size: bytes(file.code.at(start, size) or b""),
                lambda start: unwind_rows(file.code, start),
            )
    except (OSError, ELFError, DWARFError, ValueError, KeyError, IndexError, AssertionError):
        return None  # said to be not described: what is wrong with the file, a patch of it says


def _undescribed(pc: int) -> Refusal:
    return Refusal(
        "frame-not-described",
        f"no debug information describes the function at {pc:#x}",
        "Select a frame of your own code with `frame N` (lldb: `frame select N`), or build with -g.",
    )


def _same_code(name: str) -> Refusal:
    return Refusal(
        "frame-not-changed",
        f"the selected frame is in '{name}', and this edit does not change the version that it runs",
        "Select a frame of a changed function with `frame N` (lldb: `frame select N`); when the patch is applied "
        "already, `hotpatch undo` first, and then `hotpatch --frame remap`.",
        name,
    )
