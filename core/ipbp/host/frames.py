"""A call that is under way goes on in new code: `hotpatch --frame restart` and `--frame remap`.

Whether and where it can is the engine's judgement (`FrameMove`), made while nothing has changed yet. Here the frame is
found, the user's consent to drop frames is asked for, and the registers are set, as the last step of the transaction:
what fails after it puts them back.
"""

from __future__ import annotations

import argparse
from functools import partial
from typing import Any, Optional, Sequence

from ipbp.errors import IpbpError, Refusal, Refused
from ipbp.host.inferior import HANDLER, Frame, Inferior
from ipbp.host.journal import Journal
from ipbp.host.rollback import Steps, rolled_back, write_surely
from ipbp.host.safepoint import Stack, stacks
from ipbp.protocol import FrameMove, FunctionChange, SelectedFrame

MODES = ("old", "restart", "remap")
_MASK = (1 << 64) - 1
_ALL = (
    *("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", "r8", "r9", "r10", "r11", "r12", "r13"),
    *("r14", "r15", "rip", "orig_rax"),
)
_KEPT = ("rbx", "rbp", "r12", "r13", "r14", "r15")  # by a function for its caller (psABI, "Register Usage")
_SHOWN = 6
_STILL_COUNTED = (
    "Rust goes on to count the panic that was dropped: std::thread::panicking() is true in this thread, mutexes that "
    "it unlocks are poisoned, and its next panic aborts"
)


def selected(inferior: Inferior, options: argparse.Namespace) -> Optional[Frame]:
    """The frame that is to go on in new code; None when none is (`--frame old`).

    Errors: `frame-none`; `Refused` with `frame-unwinds` when frames above it would have to be dropped and the user did
    not say that they may.
    """
    mode = getattr(options, "frame", None) or "old"
    if mode == "old":
        return None
    if not inferior.describe().stopped:
        raise IpbpError("frame-none", "the program is running, so that no frame is selected", "Stop it and try again.")
    frame = inferior.selected_frame()
    if frame.above[-1:] == (HANDLER,):
        raise Refused([_interrupted(frame)])
    if frame.level and not options.unwind and (mode == "restart" or frame.fault):
        raise Refused([_unwinds(frame, mode)])
    return frame


def offered_for(inferior: Inferior, options: argparse.Namespace) -> Optional[Frame]:
    """The selected frame of a program that the user has stopped, which could go on in new code; None for none."""
    if options.action != "apply" or options.plan or not inferior.describe().stopped:
        return None  # there is nobody who reads it
    try:
        frame = inferior.selected_frame()
    except IpbpError:  # nothing is offered then
        return None
    return None if frame.above[-1:] == (HANDLER,) else frame


def offers(frame: Frame, modes: Sequence[str]) -> list[str]:
    """In words what is possible. `modes`: what the engine found."""
    says = {"remap": "goes on in the new code", "restart": "begins again in the new code"}
    words = []
    for mode in modes:
        drops = " --unwind" if frame.level and (mode == "restart" or frame.fault) else ""
        words.append(f"`hotpatch --frame {mode}{drops}` and it {says[mode]}")
    return [f"the selected frame is still in old code: {'; '.join(words)}"] if words else []


def runs_what_was_replaced(frame: Frame, journal: Journal) -> bool:
    """Whether it runs the version that the newest patch in force has replaced."""
    patches = journal.patches()
    inside = frame.registers["rip"] - (frame.level > 0)
    if not patches:
        return False
    earlier = {row.entry: row for patch in patches[:-1] for row in patch.functions if row.status != "removed"}
    for row in patches[-1].functions:
        before = earlier.get(row.entry)
        start, size = (before.address, before.size) if before else (row.entry, row.old_size)
        if row.status == "changed" and start <= inside < start + size:
            return True
    return False


def keeps_callee(frame: Frame, options: argparse.Namespace) -> bool:
    """Whether the calls that the frame waits for go on."""
    return frame.level > 0 and options.frame == "remap" and not options.unwind


def params(frame: Frame, options: argparse.Namespace, journal: Journal) -> dict[str, Any]:
    """What the engine is told of it. Without a mode it is asked what it can offer."""
    pc = frame.registers["rip"]
    inside = pc - (frame.level > 0)
    entry, file, newest = 0, "", (0, "")
    rows = [(row, _file_of(row, patch.plan.files)) for patch in journal.patches() for row in patch.functions]
    for row, path in rows:
        if row.address <= inside < row.address + row.size and row.status != "removed":
            entry, file = row.entry, path
    if not file:
        entry = next((row.entry for row, _ in rows if row.entry <= inside < row.entry + row.old_size), 0)
    for row, path in rows:
        if entry and row.entry == entry and row.status != "removed":
            newest = (row.address, path)
    is_offer = options.frame == "old"
    keeps = frame.level > 0 and not frame.fault if is_offer else keeps_callee(frame, options)
    mode = "offer" if is_offer else options.frame
    told = SelectedFrame(mode, pc, frame.level, keeps, options.current_arguments, file, entry, newest)
    return vars(told)


def _file_of(row: FunctionChange, files: tuple[str, ...]) -> str:
    return files[0] if len(files) == 1 else _one_with(row.address, files)


def _one_with(address: int, files: tuple[str, ...]) -> str:
    # The program headers of a patch file are short and its own (`formats.elf_patch`).
    for path in files:
        with open(path, "rb") as stream:
            header = stream.read(4096)
        for at in range(64, 64 + 56 * int.from_bytes(header[56:58], "little"), 56):
            start, size = (int.from_bytes(header[at + k : at + k + 8], "little") for k in (16, 40))
            if header[at : at + 4] == b"\1\0\0\0" and start <= address < start + size:
                return path
    return files[0]


class GoingOn:
    """What the engine found out for the selected frame, to be done. Without a frame every method does nothing."""

    def __init__(
        self, inferior: Inferior, frame: Optional[Frame], options: argparse.Namespace, answer: dict[str, Any]
    ) -> None:
        self._inferior, self._frame = inferior, frame
        self._answer = answer
        self._move = FrameMove.from_json(answer["frame"]) if "frame" in answer else None
        self._keeps = frame is not None and keeps_callee(frame, options)

    def step(self, steps: Steps) -> None:
        """The step of a transaction that makes the frame go on in the new code."""
        if self._frame is not None and self._move is not None:
            _go_on(steps, self._frame, self._move, self._keeps)

    def alone(self) -> dict[str, Any]:
        """The same without a patch; the outcome."""
        steps = Steps(self._inferior)
        try:
            self.step(steps)
        except BaseException as cause:
            steps.go_back(cause)
            error = rolled_back(cause)
            if error is None:
                raise
            raise error from cause
        found: dict[str, Any] = {"outcome": "ok", "text": "the code is as before", "notes": self._answer["notes"]}
        found["then"] = lambda: self.tell(found)
        return found

    def stacks(self, before: Sequence[Stack]) -> Sequence[Stack]:
        """Those of all threads once the frame goes on. `before`: as they were."""
        return before if self._frame is None else stacks(self._inferior)

    def tell(self, outcome: dict[str, Any]) -> None:
        """When it is done: a fault of the old code is not delivered to the new one; and what there is to say."""
        frame, move = self._frame, self._move
        if frame is None or move is None:
            return
        if not self._keeps:
            self._inferior.forget_signal(frame.thread)
        if not self._keeps and any("panic" in name for name in frame.above):
            outcome.setdefault("notes", []).append(_STILL_COUNTED)
        outcome["frame"] = {
            "mode": move.mode,
            "function": move.function,
            "file": move.file,
            "line": move.line,
            "address": move.target,
            "when_it_returns": self._keeps,
            "dropped": [] if self._keeps else list(frame.above),
            "signal": "" if self._keeps else frame.fault,
        }


def _go_on(steps: Steps, frame: Frame, move: FrameMove, keeps: bool) -> None:
    inferior, before = steps.inferior, frame.registers
    now = inferior.registers(frame.thread, _ALL)
    if frame.level == 0 and now["rip"] != before["rip"]:
        raise _moved(frame)
    cfa = (before[move.base] + move.distance) & _MASK
    _move_variables(steps, cfa, move.copies)
    if keeps:
        _set_return_address(steps, frame, move)
        return
    values = {name: before[name] for name in _KEPT if name in before}
    values.update({name: _read(inferior, cfa + place, 8) for name, place in move.saved})
    arguments = {name: _read(inferior, cfa + place, size) for name, place, size in move.arguments}
    vectors = {name: value for name, value in arguments.items() if name.startswith("xmm")}
    values.update({name: value for name, value in arguments.items() if name not in vectors})
    values.update(rip=move.target, rsp=(cfa + move.stack) & _MASK)
    if frame.level:
        # It may wait in a system call, which the kernel would begin anew (signal(7)).
        values.setdefault("rax", 0)
        if "orig_rax" in now:
            values["orig_rax"] = _MASK
    if vectors:
        steps.will(partial(inferior.set_vectors, frame.thread, inferior.vectors(frame.thread, vectors)))
        inferior.set_vectors(frame.thread, vectors)
    steps.will(partial(inferior.set_registers, frame.thread, now))
    inferior.set_registers(frame.thread, values)
    if inferior.registers(frame.thread, values) != values or inferior.vectors(frame.thread, vectors) != vectors:
        raise IpbpError("inferior-register", "the registers of the frame could not be set", "Report this as a bug.")


def _move_variables(steps: Steps, cfa: int, copies: Sequence[tuple[int, int, int]]) -> None:
    # One may come to where another one was.
    inferior = steps.inferior
    rows = [((cfa + new) & _MASK, inferior.read((cfa + old) & _MASK, size)) for old, new, size in copies]
    for place, content in rows:
        steps.will(partial(write_surely, inferior, place, inferior.read(place, len(content))))
        write_surely(inferior, place, content)


def _set_return_address(steps: Steps, frame: Frame, move: FrameMove) -> None:
    # The innermost call of the frame pushed it (Intel SDM vol. 2, CALL).
    inferior, place = steps.inferior, frame.registers["rsp"] - 8
    old = frame.registers["rip"].to_bytes(8, "little")
    if inferior.read(place, 8) != old:
        raise _moved(frame)
    steps.will(partial(write_surely, inferior, place, old))
    write_surely(inferior, place, move.target.to_bytes(8, "little"))


def _read(inferior: Inferior, address: int, size: int) -> int:
    return int.from_bytes(inferior.read(address, size), "little")


def _moved(frame: Frame) -> IpbpError:
    return IpbpError(
        "frame-moved",
        f"thread {frame.thread} had to be moved out of the code that changes, and is somewhere else now",
        "Step to the next line and try again.",
    )


def _interrupted(frame: Frame) -> Refusal:
    # Its pc is no return address: it was between any two instructions.
    return Refusal(
        "frame-place-changed",
        f"frame {frame.level} was interrupted by a signal, whose handler is running",
        "Let the handler return with `finish`, and try again; or use `--frame old`.",
    )


def _unwinds(frame: Frame, mode: str) -> Refusal:
    names = [name or "?" for name in frame.above]
    shown = ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
    why = f"the thread was stopped by {frame.fault} in them" if mode == "remap" else "it is to begin again"
    return Refusal(
        "frame-unwinds",
        f"frame {frame.level} can only go on in new code when the calls inside of it are dropped ({shown}): {why}. "
        "Nothing that they would clean up is cleaned up, locks that they hold stay locked",
        "Say so with `--unwind`, or select frame 0.",
    )
