"""`hotpatch ...`, the same in both debuggers: what each word does, from the argument string to the outcome.

The plugins forward the user's text to `run` and show what comes back. Nothing here knows which debugger it is. An
outcome is one JSON object; what a person reads is made from it by `render`.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import json
import os
import time
import traceback
from itertools import count
from pathlib import Path
from typing import Any, Callable, Mapping, Optional, Protocol, Sequence

from ipbp.errors import IpbpError, Refused
from ipbp.host import frames, inject, render, safepoint, session_log, side_by_side, symbols, transaction
from ipbp.host.attempts import Attempts
from ipbp.host.client import Client, find_python
from ipbp.host.consent import request_with_consent
from ipbp.host.doctor import examine
from ipbp.host.ended import ended
from ipbp.host.inferior import Breakpoint, Frame, Inferior
from ipbp.host.inherited import inherit
from ipbp.host.journal import Journal, Patch, folder_name, open_journal
from ipbp.host.load import Load
from ipbp.host.memory import read_or_none
from ipbp.host.old_callers import RUNNING
from ipbp.host.old_code import old_code, replaced_code, still_running
from ipbp.host.progress import Progress
from ipbp.host.quiet import BUSY
from ipbp.host.quiet_point import require_quiet_point
from ipbp.host.safepoint import Stack
from ipbp.host.shortage import require_proc, shortage
from ipbp.host.unloaded import forget_unloaded
from ipbp.host.words import help_text, parse
from ipbp.protocol import Description, FunctionChange, PatchPlan, Region

Outcome = dict[str, Any]

EXIT = {"patched": 0, "undone": 0, "ok": 0, "planned": 0, "unchanged": 4, "refused": 3, "usage": 2, "error": 1}
"""Outcome -> exit status, the same as that of `ipbp` in a shell."""


_QUIET_ATTEMPTS = 50
"""How often an undo waits until no thread may hold a lock that it needs."""

_NEAR, _LONGEST = 1 << 10, 1 << 16
"""Bytes between two ranges that are read together rather than apart, and of all that is read at once."""


class Console(Protocol):
    """Where the user reads and interrupts; the plugin provides it."""

    is_terminal: bool

    def write(self, text: str) -> None: ...

    def is_interrupted(self) -> bool: ...

    def confirm(self, question: str) -> Optional[bool]:
        """Whether the user says yes to this; None where nobody can be asked. Ctrl-C: `KeyboardInterrupt`, or False."""

    def debugger(self) -> Any:
        """For threads of ours: an `ipbp.host.watch.Debugger`."""


def run(
    inferior: Inferior,
    arguments: str,
    console: Console,
    receive: Optional[Callable[[Outcome], None]] = None,
    together: str = "",
) -> int:
    """Carry out one `hotpatch` command; the exit status of its outcome. Errors are shown, not raised. `receive`: gets
    the outcome instead of the user. `together`: a word for all commands that are one for the user (`ipbp.host.every`).

    Where the debugger cannot wait for the program to stop (see `Inferior.while_stopped`) this returns 0 at once, and
    the outcome is written when it is known.
    """
    command = Command(inferior, console, "--json" in arguments.split(), "--our-stop" in arguments.split())
    command.receive, command.together = receive, together
    try:
        options = parse(arguments)
        require_proc()
        return ACTIONS[options.action](command, options)
    except KeyboardInterrupt:
        error = IpbpError("interrupted", "interrupted", "`hotpatch status` says what is applied.")
        return command.show(failed(error))
    except IpbpError as error:
        return command.show(failed(error))
    except Exception as error:  # the border to the debugger: a bug of ours is shown, and costs this command only
        return command.show(failed(bug(error)))


def bug(error: Exception) -> IpbpError:
    """The error that shows a failure: of the machine, which is short of something, of the program, which has ended, or
    of ipbp itself, with its trace."""
    known = shortage(error) or ended(error)
    if known is not None:
        return known
    detail = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    return IpbpError("bug", f"{type(error).__name__}: {error}", "Report this as a bug in ipbp.", detail)


def failed(error: IpbpError) -> Outcome:
    """The outcome that says why nothing was done."""
    if isinstance(error, Refused):
        return {"outcome": "refused", "refusals": [refusal.to_json() for refusal in error.refusals]}
    kind = "usage" if error.code == "usage" else "error"
    return {"outcome": kind, "error": error.to_json()}


def show_failure(inferior: Inferior, console: Console, as_json: bool, error: IpbpError) -> None:
    """What went wrong after `run` had returned."""
    command = Command(inferior, console, as_json)
    with contextlib.suppress(IpbpError):  # the program may be gone; then there is nothing to write it down beside
        command.journal()
    command.show(failed(error))


class Command:
    """One `hotpatch` under way: the inferior, and where its outcome goes. `is_our_stop`: the program is stopped for
    this command alone (`ipbp apply` attached to it), so what the stop did to it is ours to put right."""

    def __init__(self, inferior: Inferior, console: Console, as_json: bool, is_our_stop: bool = False) -> None:
        self.inferior = inferior
        self.console = console
        self.as_json = as_json
        self.is_our_stop = is_our_stop
        self.is_silent = False
        self.receive: Optional[Callable[[Outcome], None]] = None
        self.together = ""
        self.is_local: Optional[bool] = None  # whether the program is on this machine; None while nobody has asked
        self.notes: list[str] = []
        self.folder: Optional[Path] = None  # of the journal

    def journal(self) -> Journal:
        """The journal of the program, brought up to date with what is loaded now."""
        described = self.inferior.describe()
        journal = open_journal(described.pid, described.remote)
        self.folder = journal.folder
        inherit(journal, self.inferior)
        self._look(journal)
        return journal

    def show(self, outcome: Outcome) -> int:
        if self.notes:
            outcome["notes"] = [*self.notes, *outcome.get("notes", ())]
        if self.folder is not None:
            session_log.write(self.folder, outcome)
        if self.is_silent:
            return EXIT[outcome["outcome"]]
        if self.receive is not None:
            self.receive(outcome)
            return EXIT[outcome["outcome"]]
        text = render.as_json(outcome) if self.as_json else render.as_text(outcome)
        self.console.write(text.rstrip("\n") + "\n")
        return EXIT[outcome["outcome"]]

    def ask(self, verb: str, params: dict[str, Any]) -> dict[str, Any]:
        """The engine's answer; its questions about memory are answered meanwhile, its progress is shown. When it wants
        to run programs of the project's, the user is asked, once for each."""
        return request_with_consent(self._request, verb, params, self.confirm)

    def _request(self, verb: str, params: dict[str, Any]) -> dict[str, Any]:
        progress = Progress(self._tell, "asking the engine")
        interrupted = progress.watching(self.console.is_interrupted)
        return engine().request(verb, params, self.answer, progress.tell, interrupted)

    def confirm(self, question: str) -> Optional[bool]:
        """As `Console.confirm`. Whoever wants JSON is no person."""
        return None if self.as_json else self.console.confirm(question)

    def while_stopped(self, action: Callable[[], Outcome], journal: Journal) -> int:
        """Do this with the program stopped, then show its outcome, to which the stop's length is added, and how much
        of it was our `work`. Where the program was running it is let go on for a moment when it is busy."""
        outcomes: list[Outcome] = []

        def act() -> None:
            began = time.perf_counter()
            if self.is_our_stop:  # before anything is injected: that destroys what it needs
                inject.restartable(self.inferior)
            self._look(journal)
            transaction.recover(self.inferior, journal)
            try:
                outcomes.append(action())
            except IpbpError as error:
                if not attempts.may_repeat(_attempts_for(error)):
                    raise
                return
            outcomes[0].setdefault("times", {})["work"] = 1000 * (time.perf_counter() - began)

        def then(stopped_ms: float) -> None:
            if not outcomes:
                attempts.go_on()
                return
            outcome = outcomes[0]
            outcome["times"]["stopped"] = stopped_ms
            after = outcome.pop("then", None)
            if after is not None:
                outcome["times"]["stopped"] += after() or 0.0
            following = outcome.pop("next", None)
            shown.append(following() if following is not None else self.show(outcome))

        shown: list[int] = []
        attempts = Attempts(self.inferior, lambda: self.inferior.while_stopped(act, then))
        attempts.go_on()
        return shown[0] if shown else 0

    def plan_params(self, options: argparse.Namespace, journal: Journal) -> dict[str, Any]:
        """What a request for a plan holds."""
        colour = self.console.is_terminal and not self.as_json
        params = plan_params(self.inferior.describe(), self.inferior.regions(), journal, colour, vars(options))
        return {**params, "together": self.together} if self.together else params

    def _look(self, journal: Journal) -> None:
        self.notes += forget_unloaded(journal, self.inferior)

    def answer(self, question: str, params: dict[str, Any]) -> dict[str, Any]:
        """A question of the engine."""
        if question != "read":
            raise IpbpError("protocol", f"the engine asked for {question!r}", "Reinstall ipbp: its parts differ.")
        ranges = params["ranges"]
        if self.is_local is None:
            self.is_local = self.inferior.describe().local
        whole = {} if self.is_local else self._read_together(ranges)
        return {"bytes": [self._part(whole, address, size) for address, size in ranges]}

    def _read_together(self, ranges: Sequence[tuple[int, int]]) -> dict[int, bytes]:
        """Start of each run of ranges near each other -> what is there: over a link each read is a round trip."""
        runs: list[tuple[int, int]] = []
        for address, size in sorted(ranges):
            start, end = runs[-1] if runs else (0, 0)
            if runs and address <= end + _NEAR and address + size - start <= _LONGEST:
                runs[-1] = (start, max(end, address + size))
            else:
                runs.append((address, address + size))
        found = {}
        for start, end in runs:
            with contextlib.suppress(IpbpError):  # something between them is not mapped: each is read by itself
                found[start] = self.inferior.read(start, end - start)
        return found

    def _part(self, whole: Mapping[int, bytes], address: int, size: int) -> Optional[str]:
        start = max((at for at in whole if at <= address), default=0)
        if start and address + size <= start + len(whole[start]):
            return base64.b64encode(whole[start][address - start :][:size]).decode()
        return self._read(address, size)

    def _read(self, address: int, size: int) -> Optional[str]:
        found = read_or_none(self.inferior, address, size)
        return None if found is None else base64.b64encode(found).decode()

    def _tell(self, text: str) -> None:
        if not self.as_json and self.console.is_terminal:
            self.console.write(text + "\n")


_engine: list[Client] = []


def engine() -> Client:
    """The engine's client, started at the first use."""
    if not _engine:
        _engine.append(Client(find_python()))
    return _engine[0]


def _attempts_for(error: IpbpError) -> int:
    """How often something is tried that may go when the threads have run on for some milliseconds. A caller that is
    left soon is; a loop that stays is told from it after half a second."""
    if isinstance(error, Refused):
        return 30 if {row.code for row in error.refusals} == {RUNNING} else 0
    return 100 if error.code == BUSY else 0


def apply(command: Command, options: argparse.Namespace) -> int:
    """Compile, diff and link while the program runs; then stop it for the last step."""
    journal = command.journal()
    if journal.unfinished() is not None:
        return _put_right(command, journal, lambda: apply(command, options))
    frame = frames.selected(command.inferior, options)
    if frame is not None and frames.runs_what_was_replaced(frame, journal):
        return _patch_again(command, options, journal)
    is_for_one = not command.is_our_stop and not command.together
    offered = frames.offered_for(command.inferior, options) if frame is None and is_for_one else None
    given = getattr(options, "plan", None)
    later = frame is None and offered is None and is_for_one
    answer = _given_plan(given) if given else _plan(command, options, journal, frame or offered, later)
    going_on = frames.GoingOn(command.inferior, frame, options, answer)
    if answer["outcome"] == "unchanged":
        return command.while_stopped(going_on.alone, journal) if frame else command.show(answer)
    plan = PatchPlan.from_json(answer["plan"])
    measured = getattr(options, "measured", None)
    if plan.number != journal.next_number():
        raise IpbpError("plan-outdated", "the program was patched while this patch was made", "Try again.")
    prepared = transaction.prepare(plan)
    journal.keep_record(prepared.entry)
    if plan.allocations:
        inject.look_ahead(command.inferior)
    if answer.get("is_first"):
        return _load_first(command, options, prepared, journal)

    outcome = plan_outcome("patched", plan)

    wants_quiet = getattr(options, "quiet_point", False)
    replaced = replaced_code(plan, journal) if wants_quiet else []
    was_running = not command.inferior.describe().stopped
    deadline = time.monotonic() + options.timeout if wants_quiet else 0.0

    def action() -> Outcome:
        require_quiet_point(command.inferior, replaced, deadline, was_running)
        applied = transaction.apply(command.inferior, prepared, journal, going_on.step)
        _disarmed[journal.folder, plan.number] = applied.disarmed
        stacks = going_on.stacks(applied.stacks)
        outcome["notes"] += applied.notes

        def then() -> float:
            outcome["notes"] += still_running(stacks, plan, journal)
            began = time.perf_counter()
            outcome["notes"] += _symbols_of(command, plan) if "symbols_later" in answer else ()
            stopped = _settle(command, journal, stacks)
            outcome["times"]["announce"] = 1000 * (time.perf_counter() - began)
            going_on.tell(outcome)
            outcome["notes"] += frames.offers(offered, answer.get("offers", ())) if offered else ()
            outcome["notes"] += measured() if measured is not None else ()
            return stopped

        outcome["then"] = then
        return outcome

    return command.while_stopped(action, journal)


def _put_right(command: Command, journal: Journal, then: Callable[[], int]) -> int:
    """What a dead debugger left half done is put right by every stop of ours; a plan is to be made after that only."""
    return command.while_stopped(lambda: {"outcome": "ok", "times": {}, "next": then}, journal)


def _patch_again(command: Command, options: argparse.Namespace, journal: Journal) -> int:
    """The selected frame was not moved when its function was patched: that patch is taken back and made again with it.
    When the frame cannot go on, the patch is made again all the same."""
    patch = journal.patches()[-1]

    def again() -> int:
        try:
            return apply(command, options)
        except IpbpError:
            command.is_silent = True
            apply(command, argparse.Namespace(**{**vars(options), "frame": "old"}))
            command.is_silent = False
            raise

    def action() -> Outcome:
        transaction.undo(command.inferior, patch, journal, _disarmed.pop((journal.folder, patch.number), ()))
        return {"outcome": "ok", "times": {}, "next": again}

    return command.while_stopped(action, journal)


def _load_first(command: Command, options: argparse.Namespace, prepared: transaction.Prepared, journal: Journal) -> int:
    """Libraries that the user agreed to; when the program runs on with them, the patch that needs them."""

    def action() -> Outcome:
        transaction.apply(command.inferior, prepared, journal)
        outcome = plan_outcome("patched", prepared.plan)
        if getattr(options, "plan", None) is None:
            outcome["next"] = lambda: apply(command, argparse.Namespace(**{**vars(options), "load": None}))
        return outcome

    return command.while_stopped(action, journal)


def _symbols_of(command: Command, plan: PatchPlan) -> list[str]:
    """Wait for the debug information of a patch that runs already; why there is none."""
    try:
        command.ask("symbols", {"files": list(plan.files)})
    except IpbpError as error:
        return [f"the debugger does not know the lines and variables of the new code: {error}"]
    return []


def _settle(command: Command, journal: Journal, stacks: Sequence[Stack]) -> float:
    """The debugger learns what changed. One that is attached for one command only has no use for it. The milliseconds
    that the program was stopped for it once more."""
    return 0.0 if command.is_our_stop else symbols.settle(command.inferior, journal, stacks)


def preview(command: Command, options: argparse.Namespace) -> int:
    """The whole way to the plan; nothing is written."""
    journal = command.journal()
    if journal.unfinished() is not None:
        return _put_right(command, journal, lambda: preview(command, options))
    answer = command.ask("plan", {**command.plan_params(options, journal), "sides": True})
    if answer["outcome"] == "unchanged":
        return command.show(answer)
    colour = command.console.is_terminal and not command.as_json
    shown = side_by_side.as_text(answer["sides"], options.names, colour)
    outcome = plan_outcome("planned", PatchPlan.from_json(answer["plan"]))
    return command.show({**outcome, "sides": answer["sides"], "shown": shown})


def report(command: Command, options: argparse.Namespace) -> int:
    """All that was done to the program, as a page for a browser."""
    journal = command.journal()
    pid = command.inferior.describe().pid
    file = os.path.abspath(os.path.expanduser(options.file or f"hotpatch-{pid}.html"))
    command.ask("report", {**command.plan_params(options, journal), "file": file})
    return command.show({"outcome": "ok", "text": f"{file} is written"})


def save(command: Command, options: argparse.Namespace) -> int:
    """What is patched now, as a file for other processes of this build. The program is not stopped."""
    journal = command.journal()
    if journal.unfinished() is not None:
        return _put_right(command, journal, lambda: save(command, options))
    file = os.path.abspath(os.path.expanduser(options.file))
    answer = command.ask("save", {**command.plan_params(options, journal), "file": file})
    return command.show({"outcome": "ok", **answer})


def status(command: Command, options: argparse.Namespace) -> int:
    """What is applied, and who still runs old code; also puts right what a dead debugger left half done."""
    journal = command.journal()

    def action() -> Outcome:
        stacks = safepoint.stacks(command.inferior)
        outcome = {**status_outcome(journal), "old": old_code(stacks, journal)}
        outcome["then"] = lambda: _settle(command, journal, stacks)
        return outcome

    if journal.open_patches() or journal.unfinished() is not None:
        return command.while_stopped(action, journal)
    return command.show(status_outcome(journal))


def undo(command: Command, options: argparse.Namespace) -> int:
    """Take back the newest patch, or all after patch N."""
    journal = command.journal()
    # A program that goes on is waited for; of one that stays stopped calls that might wait for a lock are left out.
    patience = count(0 if command.inferior.describe().stopped else _QUIET_ATTEMPTS, -1)

    def action() -> Outcome:
        patches = _to_undo(journal, options.number)
        if next(patience) > 0:
            transaction.require_quiet_for(command.inferior, patches)
        notes: list[str] = []
        stacks: Sequence[Stack] = ()
        for patch in patches:
            done = transaction.undo(command.inferior, patch, journal, _disarmed.pop((journal.folder, patch.number), ()))
            stacks = done.stacks
            notes += [f"patch {patch.number}: {reason}" for reason in done.notes]
        transaction.give_back(command.inferior, journal)
        return {
            "outcome": "undone",
            "patches": [_of_patch(patch) for patch in patches],
            "notes": notes,
            "then": lambda: _settle(command, journal, stacks),
        }

    return command.while_stopped(action, journal)


def doctor(command: Command, options: argparse.Namespace) -> int:
    """Everything that a patch needs, line by line: ok, or what to do."""

    def params() -> dict[str, Any]:
        return command.plan_params(options, command.journal())

    lines = examine(command, params)
    return command.show({"outcome": "ok" if all(line["ok"] for line in lines) else "error", "lines": lines})


def deopt(command: Command, options: argparse.Namespace) -> int:
    """Compile units without optimisation, and say what that costs as far as it can be measured."""
    description = command.inferior.describe()
    if not description.stopped:
        options.measured = Load(description.pid).compared
    return apply(command, options)


def reopt(command: Command, options: argparse.Namespace) -> int:
    """Take that back: where it is the newest patch, by undoing it, so that the old code runs."""
    patches = command.journal().patches()
    if patches and patches[-1].plan.purpose == "deopt" and not options.reopt:
        return undo(command, argparse.Namespace(number=None))
    return apply(command, options)


def watch(command: Command, options: argparse.Namespace) -> int:
    """Whether a save is a patch."""
    from ipbp.host.watch import switch  # which gives commands of its own

    return command.show(switch(command, options, command.console.debugger()))


def agree(command: Command, options: argparse.Namespace) -> int:
    """The user trusts what the project wants to run."""
    command.ask("agree", {"hash": options.hash})
    return command.show({"outcome": "ok", "text": "agreed; `hotpatch` will run it from now on"})


def show_help(command: Command, options: argparse.Namespace) -> int:
    return command.show({"outcome": "ok", "text": help_text()})


ACTIONS: dict[str, Callable[[Command, argparse.Namespace], int]] = {
    "apply": apply,
    "object": apply,
    "load": apply,
    "save": save,
    "preview": preview,
    "report": report,
    "status": status,
    "undo": undo,
    "doctor": doctor,
    "deopt": deopt,
    "reopt": reopt,
    "watch": watch,
    "agree": agree,
    "help": show_help,
}

_disarmed: dict[tuple[Path, int], Sequence[Breakpoint]] = {}
"""Breakpoints that are off while a patch is applied, by journal and number; only this debugger can put them back."""


def _given_plan(path: str) -> dict[str, Any]:
    """A plan that was made before the debugger was attached."""
    try:
        with open(path, encoding="utf-8") as file:
            answer: dict[str, Any] = json.load(file)
    except (OSError, ValueError) as error:
        raise IpbpError("plan-unreadable", f"{path}: {error}", "Make the plan again with `ipbp apply`.") from error
    return answer


def plan_params(
    description: Description, regions: Sequence[Region], journal: Journal, colour: bool, options: Mapping[str, Any]
) -> dict[str, Any]:
    """What the engine needs to know for a plan (`ipbp.pipeline.request`). `options`: paths as the user gave them."""
    params: dict[str, Any] = {
        "description": vars(description),
        "regions": [list(vars(region).values()) for region in regions],
        "folder": str(journal.folder),
        "number": journal.next_number(),
        "record": journal.latest_record(),
        "entries": {str(address): content.hex() for address, content in journal.entries().items()},
        "arenas": journal.latest_arenas(),
        "unloaded": journal.unloaded(),
        "colour": colour,
    }
    if options.get("old"):
        params["objects"] = [os.path.abspath(options["old"]), os.path.abspath(options["new"])]
    if options.get("load"):
        params["load"] = list(options["load"])
    for name in ("build_dir", "compile_commands", "patch_file"):
        if options.get(name):
            params[name] = os.path.abspath(os.path.expanduser(options[name]))
    if options.get("allow_layout"):
        params["allow_layout"] = list(options["allow_layout"])
    if options.get("exact"):
        params["exact"] = True
    for name in ("deopt", "reopt"):
        if options.get(name) is not None:
            params[name] = list(options[name])
    return params


def _plan(
    command: Command, options: argparse.Namespace, journal: Journal, frame: Optional[Frame] = None, later: bool = False
) -> dict[str, Any]:
    # `later`: the debug information may be written while the patch is applied.
    params = command.plan_params(options, journal)
    if frame is not None:
        params["frame"] = frames.params(frame, options, journal)
    if later:
        params["symbols_later"] = True
    try:
        return command.ask("plan", params)
    except Refused as refused:
        described = command.inferior.describe()
        if folder_name(described.pid, described.remote) == journal.folder.name:
            raise
        fact = "the program replaced itself (execve) while this patch was made"
        raise IpbpError("plan-outdated", fact, "Try again.") from refused


def status_outcome(journal: Journal) -> Outcome:
    """What `hotpatch status` shows."""
    return {
        "outcome": "ok",
        "patches": [{**_of_patch(row), "inherited": journal.inherited_from(row)} for row in journal.patches()],
        "memory": sum(end - start for start, end in journal.written_ranges()),
        "mapped": journal.mapped_size(),
    }


def plan_outcome(kind: str, plan: PatchPlan) -> Outcome:
    """A plan as the user sees it; `kind` says what became of it."""
    return {
        "outcome": kind,
        "patch": plan.number,
        "functions": [_of_function(row, plan) for row in plan.functions],
        "data": list(plan.data),
        "notes": list(plan.notes),
        "times": dict(plan.times),
        "files": list(plan.files),
    }


def _of_patch(patch: Patch) -> Outcome:
    row = plan_outcome(patch.state, patch.plan)
    row["state"] = row.pop("outcome")
    row["functions"] = [_of_function(function, patch.plan) for function in patch.functions]
    return row


def _of_function(row: FunctionChange, plan: PatchPlan) -> Outcome:
    """A function's row; `image` is the path of its library, "" for the program itself."""
    image = plan.images[row.image] if plan.images else None
    return {**vars(row), "image": "" if image is None or image.is_executable else image.path}


def _to_undo(journal: Journal, stays: Optional[int]) -> list[Patch]:
    patches = journal.patches()
    if not patches:
        raise IpbpError("nothing-to-undo", "no patch is applied", "`hotpatch status` shows what is.")
    if stays is None:
        return patches[-1:]
    if stays != 0 and stays not in [patch.number for patch in patches]:
        raise IpbpError("no-such-patch", f"there is no patch {stays}", "`hotpatch status` shows the numbers.")
    return [patch for patch in reversed(patches) if patch.number > stays]
