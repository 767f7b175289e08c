"""A real gdb and a real lldb for tests, told one line at a time, with what they print.

`with Gdb(path) as gdb: gdb.tell("run")`. gdb is driven over its machine interface, so that what the user's console
shows is known apart from records; lldb through its standard input, each line followed by one that prints a mark.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Any

from pygdbmi.IoManager import IoManager

PATIENCE = 60.0


class _Debugger:
    """What both have in common: a process, and the text that it has printed since the last line."""

    def __init__(self, command: list[str], **environment: str) -> None:
        self.text = ""
        self.history = ""  # all that was ever printed, where it is one stream
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            bufsize=0,
            start_new_session=True,
            env={**os.environ, **environment},
        )

    def __enter__(self) -> Any:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        # A program that somebody still traces does not end for its parent either: lldb's server has to go, too.
        if self.process.poll() is None:
            self.process.kill()
        _kill_session(self.process.pid)
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()

    def tell(self, line: str) -> str:
        raise NotImplementedError

    def _tell_first(self, lines: Iterable[str]) -> None:
        """Whoever gets no debugger cannot end it."""
        try:
            for line in lines:
                self.tell(line)
        except BaseException:
            self.__exit__(None, None, None)
            raise

    def wait_for(self, text: str) -> str:
        """All that was printed since the last line was told, once `text` is in it."""
        self.wait_until(lambda: text in self.text)
        return self.text

    def wait_until(self, is_true: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not is_true():
            assert time.monotonic() < deadline, f"nothing came after {self.text}"
            self._receive()

    def interrupt(self) -> None:
        """Ctrl-C in the debugger's terminal, as far as the debugger itself is concerned."""
        self.process.send_signal(signal.SIGINT)

    def _send(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line.encode() + b"\n")

    def _receive(self) -> None:
        raise NotImplementedError


def _kill_session(leader: int) -> None:
    """All of a session (the program, lldb's server): they are not always in the debugger's process group."""
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if int((folder / "stat").read_text().rpartition(")")[2].split()[3]) == leader:
                os.kill(int(folder.name), signal.SIGKILL)


class Gdb(_Debugger):
    """`records`: those of the machine interface since the last line, without the console's text. `stopped`: what gdb
    has told last of the program."""

    def __init__(self, path: str, *arguments: str, **environment: str) -> None:
        super().__init__([path, "-nx", "--quiet", "--interpreter=mi4", *arguments], **environment)
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self._io = IoManager(self.process.stdin, self.process.stdout, None, 0.002)
        self._number = 0
        self.records: list[dict[str, Any]] = []
        self.stopped = True
        settings = ("confirm off", "pagination off", "mi-async on", "print thread-events off")
        self._tell_first([f"set {setting}" for setting in settings])

    def tell(self, line: str) -> str:
        """What the console shows of a command, and its error."""
        self._number += 1
        self.text, self.records = "", []
        quoted = line.replace("\\", "\\\\").replace('"', '\\"')
        self._send(f'{self._number}-interpreter-exec console "{quoted}"')
        self.wait_until(lambda: any(row.get("token") == self._number for row in self.records))
        return self.text

    def _receive(self) -> None:
        for row in self._io.get_gdb_response(0.2, raise_error_on_timeout=False):
            if row["type"] in ("console", "output", "log") and isinstance(row["payload"], str):
                self.text += row["payload"]
                continue
            self.records.append(row)
            if row["message"] == "error":
                self.text += row["payload"]["msg"] + "\n"
            elif row["message"] in ("stopped", "running"):
                self.stopped = row["message"] == "stopped"
        assert self.process.poll() is None, f"gdb ended: {self.text}"


class Lldb(_Debugger):
    """In asynchronous mode: `process continue` returns at once."""

    def __init__(self, path: str, *arguments: str, **environment: str) -> None:
        super().__init__([path, "--no-lldbinit", *arguments], **environment)
        self._number = 0
        settings = ["settings set use-color false", "settings set auto-confirm true"]
        self._tell_first([*settings, "script lldb.debugger.SetAsync(True)"])

    def tell(self, line: str) -> str:
        """What lldb prints of a command. Its echo of the line is the first line of it."""
        self._number += 1
        self.text = ""
        # The mark is an error of lldb's. `script` would do something to the program: it looks at the selected frame,
        # and after a stop hook has resumed the program lldb interrupts it for that.
        word = f"mark-{self._number}"
        self._send(f"{line}\n{word}")
        self.wait_until(lambda: f"'{word}' is not a valid command." in self.text)
        return self.text.partition(f"(lldb) {word}")[0]

    def _receive(self) -> None:
        assert self.process.stdout is not None
        if select.select([self.process.stdout], [], [], 0.2)[0]:
            read = os.read(self.process.stdout.fileno(), 1 << 16)
            assert read, f"lldb ended: {self.text}"
            self.text += read.decode(errors="replace")
            self.history += read.decode(errors="replace")


class GdbConsole(_Debugger):
    """gdb as a person sees it: the command line interface, with its prompts and messages."""

    def __init__(self, path: str, *arguments: str, **environment: str) -> None:
        super().__init__([path, "-nx", "--quiet", *arguments], **environment)
        self._number = 0
        for setting in ("confirm off", "pagination off"):
            self.tell(f"set {setting}")

    def tell(self, line: str) -> str:
        """What gdb prints until it asks for the next command."""
        self._number += 1
        self.text = ""
        mark = f"mark-{self._number}\n"
        self._send(f"{line}\necho {mark[:-1]}\\n")
        self.wait_for(mark)
        return self.text.replace(mark, "")

    _receive = Lldb._receive
