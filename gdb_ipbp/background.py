"""Doing something while a program that runs in gdb's background is stopped, without the user seeing a stop.

gdb offers no way to wait for a stop inside a command, so this is a chain of callbacks: a signal stops the program,
gdb tells us of the stop, and from gdb's event loop we act and let it run again.

The signal is SIGWINCH, sent to the selected thread. A catchpoint makes gdb stop at it, `handle` keeps it from the
program and from the screen; the stop itself is not printed because it is a catchpoint's and not a signal's. Should
the signal ever get through (gdb killed in between), it does no harm: its default action is to be ignored. With the
selected thread as its target no change of the selected thread is printed either.

While a command of the user's waits for the program (`continue`), the stop would end that command. Then the catchpoint
has commands: what is to be done, and `continue`. That is gdb's own way of doing something at a stop and going on: the
command goes on waiting, and the terminal stays with the program.

The machine interface would tell its front end of the stop and of the resumption all the same (`unseen`).
"""

from __future__ import annotations

import re
import signal
import threading
import time
from contextlib import contextmanager, suppress
from typing import Callable, Iterator, Optional

import gdb

from gdb_ipbp import unseen
from gdb_ipbp.prompt import Prompt
from gdb_ipbp.settings import kept_selection, kept_thread, put, start, without_interrupts
from ipbp.errors import IpbpError
from ipbp.host import procfs, tasks
from ipbp.host.garbage import without_collection
from ipbp.host.inferior import NotYet

_NAME = "SIGWINCH"
_NUMBER = int(signal.SIGWINCH)
_PATIENCE = 5.0  # seconds in which the program must have stopped
_ENDING = 0.5  # seconds that a program which was killed may take to end

_waiting: list[_SilentStop] = []


def run_in_silent_stop(
    pid: int,
    action: Callable[[bool], None],
    then: Callable[[float], None],
    report: Callable[[IpbpError], None],
) -> None:
    """Returns at once. See `Inferior.while_stopped`. `action` learns whether the stop is ours alone.

    `report` gets what goes wrong later, `inferior-unstoppable` when the program has not stopped in five seconds.
    Errors: `inferior-busy` when such a stop is under way already.
    """
    if _waiting:
        raise IpbpError("inferior-busy", "the program is being patched already", "Wait until that is done.")
    _SilentStop(pid, action, then, report).request()


def is_under_way() -> bool:
    """Whether the program is stopped for us, or about to be."""
    return bool(_waiting)


def require_alive(pid: int, cause: Exception) -> None:
    """After a failure in a stop of the program: perhaps somebody killed it. gdb goes on believing in it then, and each
    command, though it is carried out, ends in an error about registers; so gdb is told to forget the program.

    Errors: `inferior-gone` when the program has ended.
    """
    is_doubtful = not isinstance(cause, IpbpError) or cause.code.startswith("inferior-")
    deadline = time.monotonic() + (_ENDING if is_doubtful else 0.0)
    while not tasks.has_ended(pid):
        if time.monotonic() >= deadline:
            return
        time.sleep(0.01)
    if gdb.selected_inferior().pid == pid:
        before = "on" if gdb.parameter("confirm") else "off"
        for line in ("set confirm off", "kill", f"set confirm {before}"):
            with suppress(gdb.error):
                gdb.execute(line, to_string=True)
    raise IpbpError("inferior-gone", "the program ended while it was patched", "Start it again.") from cause


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """A call in the program that takes longer ends as by a signal. gdb 13 has no setting for it; it takes the signal
    for the program's, and forgets it together with the call."""
    inferior, thread = gdb.selected_inferior().pid, gdb.selected_thread().ptid[1]
    timer = threading.Timer(seconds, lambda: _send(inferior, thread, int(signal.SIGSTOP)))
    timer.daemon = True
    start(timer)
    try:
        yield
    finally:
        timer.cancel()


class _SilentStop:
    """One stop, from the signal to the resumption."""

    def __init__(
        self,
        pid: int,
        action: Callable[[bool], None],
        then: Callable[[float], None],
        report: Callable[[IpbpError], None],
    ) -> None:
        self._pid = pid
        self._action = action
        self._then = then
        self._report = report
        self._requested = 0.0
        self._has_stopped = False
        self._in_foreground = Prompt.is_waiting()
        self._undo: list[Callable[[], object]] = []  # what puts gdb back as it was, to be called in reverse
        self._places: list[gdb.Breakpoint] = []  # where the program is waited for (`NotYet`)
        self._timer: Optional[threading.Timer] = None
        self._is_waited_for = False

    def request(self) -> None:
        """All the rest follows from gdb's event loop: the signal is sent when gdb has nothing else to do any more, such
        as showing its prompt."""
        _read_symbols(self._pid, _thread_that_listens(self._pid))
        _waiting.append(self)
        self._undo.append(lambda: _waiting.remove(self))
        try:
            with unseen.unseen():
                self._arm()
            self._watch()
            gdb.post_event(self._send)
        except BaseException:
            self.disarm()
            raise

    def disarm(self) -> None:
        """Put gdb back as it was before."""
        unseen.let_go(is_ours=False)
        with unseen.unseen():
            self._expect_nothing()
            while self._undo:
                self._undo.pop()()

    def _arm(self) -> None:
        silent = gdb.parameter("suppress-cli-notifications")
        put("suppress-cli-notifications", "on")
        self._undo.append(lambda: put("suppress-cli-notifications", silent))
        handling = _handling_of_signal()
        gdb.execute(f"handle {_NAME} nostop noprint nopass", to_string=True)
        self._undo.append(lambda: gdb.execute(f"handle {_NAME} {handling}", to_string=True))
        newest = gdb.convenience_variable("bpnum")
        said = gdb.execute(f"catch signal {_NAME}", to_string=True)  # "Catchpoint 5 (signal SIGWINCH)"
        gdb.set_convenience_variable("bpnum", newest)
        catchpoint = re.findall(r"\d+", said)[0]
        self._undo.append(lambda: gdb.execute(f"delete {catchpoint}", to_string=True))
        condition = unseen.condition()
        if condition is not None:
            gdb.execute(f"condition {catchpoint} {condition}", to_string=True)
        if self._in_foreground:
            act = f"import sys; sys.modules[{__name__!r}].act_in_foreground()"
            gdb.execute(f"commands {catchpoint}\nsilent\npython {act}\ncontinue\nend", to_string=True)
        gdb.events.stop.connect(self._on_stop)
        gdb.events.exited.connect(self._on_exit)
        self._undo.append(lambda: gdb.events.exited.disconnect(self._on_exit))
        self._undo.append(lambda: gdb.events.stop.disconnect(self._on_stop))

    def _watch(self) -> None:
        self._in(_PATIENCE, self._lose_patience)
        self._undo.append(self._in_no_time)

    def _in(self, seconds: float, act: Callable[[], None]) -> None:
        self._in_no_time()
        self._timer = threading.Timer(seconds, lambda: gdb.post_event(act))
        self._timer.daemon = True
        start(self._timer)

    def _in_no_time(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _on_stop(self, event: gdb.StopEvent) -> None:
        # gdb cannot resume from within the event, but soon after it. Later stops are those of our own steps.
        if not self._has_stopped:
            self._has_stopped = True
            is_ours = isinstance(event, gdb.SignalEvent) and event.stop_signal == _NAME
            if isinstance(event, gdb.BreakpointEvent):
                is_ours = all(point in self._places for point in event.breakpoints)
            if self._is_waited_for:  # the stop begins now
                self._requested = time.perf_counter()
            if not (self._in_foreground and is_ours):  # then the catchpoint's commands act
                gdb.post_event(lambda: self._act(is_ours))

    def _on_exit(self, event: gdb.ExitedEvent) -> None:
        gdb.post_event(
            lambda: self._give_up("inferior-gone", "the program ended before it could be patched", "Start it again.")
        )

    def _lose_patience(self) -> None:
        if not self._has_stopped:
            self._give_up(
                "inferior-unstoppable",
                f"the program did not stop: perhaps it blocks {_NAME}, by which ipbp stops it without your seeing it",
                "Stop the program yourself with `interrupt`, and try again.",
            )

    def _give_up(self, code: str, fact: str, advice: str) -> None:
        if self in _waiting:
            self.disarm()
            self._report(IpbpError(code, fact, advice))

    def _act(self, is_ours: bool) -> None:
        if self not in _waiting:  # the process ended in between
            return
        try:
            try:
                stopped = self._act_and_resume(is_ours)
            except Exception as error:
                require_alive(self._pid, error)
                raise
            finally:
                unseen.let_go(is_ours)
                if not self._is_waited_for:
                    self.disarm()
        except Exception as error:  # the border to gdb's loop
            self._report_failure(error)
        else:
            if not self._is_waited_for:
                self._then_or_report(stopped)
        if not is_ours and gdb.selected_inferior().pid:  # a breakpoint, say, came first: the user shall see that stop
            gdb.write(gdb.execute("frame", to_string=True))

    def act_in_foreground(self) -> None:
        """What gdb does next is `continue`, whatever happens here."""
        with without_interrupts():  # a Ctrl-C keeps that from happening: the user has stopped the program
            try:
                try:
                    with kept_thread(), without_collection():
                        self._action(True)
                    stopped = 1000 * (time.perf_counter() - self._requested)
                except Exception as error:
                    require_alive(self._pid, error)
                    raise
                finally:
                    self.disarm()
            except Exception as error:  # the border to gdb's loop
                failure = error
                gdb.post_event(lambda: self._report_failure(failure))
            else:
                gdb.post_event(lambda: self._then_or_report(stopped))

    def _then_or_report(self, stopped: float) -> None:
        try:
            self._then(stopped)
        except Exception as error:  # the border to gdb's loop
            self._report_failure(error)

    def _report_failure(self, error: Exception) -> None:
        from ipbp.host.commands import bug  # which brings much along

        self._report(error if isinstance(error, IpbpError) else bug(error))

    def _act_and_resume(self, is_ours: bool) -> float:
        # The milliseconds of the stop.
        stopped = 0.0
        self._expect_nothing()
        try:
            # A program that was running has no selected frame, only a thread.
            with without_interrupts(), without_collection(), kept_thread() if is_ours else kept_selection():
                self._action(is_ours)
        except NotYet as again:
            if not is_ours:
                raise
            self._expect(again)
        finally:
            if is_ours:
                stopped = 1000 * (time.perf_counter() - self._requested)
                with Prompt.unchanged():
                    gdb.execute("continue &", to_string=True)
        return stopped

    def _expect(self, again: NotYet) -> None:
        # Breakpoints of gdb's own, which nobody sees. When nothing comes to them the signal stops the program again.
        for address in again.addresses:
            self._places.append(gdb.Breakpoint(f"*{address:#x}", internal=True))
            self._places[-1].silent = True
            self._places[-1].condition = unseen.condition()
        self._is_waited_for, self._has_stopped = True, False
        self._in(again.seconds, self._request_again)

    def _expect_nothing(self) -> None:
        self._is_waited_for = False
        while self._places:
            point = self._places.pop()
            if point.is_valid():
                point.delete()

    def _request_again(self) -> None:
        if self in _waiting and not self._has_stopped:
            self._in(_PATIENCE, self._lose_patience)
            self._send()

    def _send(self) -> None:
        if self in _waiting and not self._has_stopped:
            try:
                thread = _thread_that_listens(self._pid)
                self._requested = time.perf_counter()
                _send(self._pid, thread)
            except IpbpError as error:
                self._give_up(error.code, error.fact, error.advice)


def act_in_foreground() -> None:
    """The catchpoint's command."""
    _waiting[0].act_in_foreground()


def _thread_that_listens(pid: int) -> int:
    # Best the selected one: then gdb says nothing of another one being selected. When all block the signal, which the
    # C library does for a moment while it starts a thread (pthread_create), the selected one as well.
    selected = gdb.selected_thread()
    numbers = [thread.ptid[1] for thread in gdb.selected_inferior().threads()]
    if selected is not None:
        numbers.insert(0, selected.ptid[1])
    return int(next((number for number in numbers if not tasks.blocks_signal(pid, number, _NUMBER)), numbers[0]))


def _read_symbols(pid: int, thread: int) -> None:
    """gdb reads debug information when it is first asked where a stopped thread is. While the thread sleeps that is
    known beforehand."""
    where = procfs.system_call(pid, thread)
    if where is not None:
        gdb.find_pc_line(where.pc)


def _handling_of_signal() -> str:
    # "SIGWINCH  No  No  Yes  Window size changed": stop, print, pass.
    said = gdb.execute(f"info signals {_NAME}", to_string=True)
    answers = re.search(rf"^{_NAME}\s+(Yes|No)\s+(Yes|No)\s+(Yes|No)", said, re.MULTILINE)
    if answers is None:
        raise IpbpError("inferior-debugger", f"gdb does not say how it handles {_NAME}", "Report this as a bug.")
    words = zip(("stop", "print", "pass"), answers.groups())
    return " ".join(word if answer == "Yes" else f"no{word}" for word, answer in words)


def _send(pid: int, thread: int, number: int = _NUMBER) -> None:
    tasks.send(pid, thread, number)
