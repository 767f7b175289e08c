"""The `hotpatch` command of lldb. What its words mean is `ipbp.host.commands`' business, the same in both debuggers."""

from __future__ import annotations

import os
from typing import Any, Optional

import lldb

from ipbp.errors import IpbpError
from ipbp.host.consent import is_yes, read_line
from ipbp.host.render import shown
from lldb_ipbp import stop_hook
from lldb_ipbp.inferior import LldbInferior

_LONG_HELP = """\
Change the running program to what its edited source says.

    hotpatch                    compile what was edited, and patch
    hotpatch --frame remap      and the selected call goes on in the new code
    hotpatch --all              every target that runs this program
    hotpatch preview            everything but the last step: what would change
    hotpatch report [FILE]      a page of HTML with all that was done
    hotpatch status             patches, functions and memory
    hotpatch undo [N]           take back the newest patch, or all after patch N
    hotpatch object OLD.o NEW.o patch with the difference of two object files
    hotpatch deopt NAME...      compile a file, or a function's, without optimisation
    hotpatch reopt              take that back
    hotpatch watch on           from now on a save of a source is a patch
    hotpatch doctor             check everything that a patch needs
    hotpatch help               all words and their options

The program keeps its state. It may be stopped or running; it is stopped or
runs afterwards as before."""


def add_command(debugger: lldb.SBDebugger) -> None:
    """Add `hotpatch`, or take this one instead of the one that is there."""
    # lldb (up to 19) cannot complete the words of a scripted command, but it can complete file names: `object` has two.
    line = f"command script add -o -C disk-file -c {__name__}.Hotpatch hotpatch"
    result = lldb.SBCommandReturnObject()
    debugger.GetCommandInterpreter().HandleCommand(line, result)
    if not result.Succeeded():
        raise RuntimeError(f"lldb does not accept `{line}`: {result.GetError()}")


class Hotpatch:
    """As `command script add -c` wants it."""

    def __init__(self, debugger: lldb.SBDebugger, session: dict[str, Any]) -> None:
        pass

    def __call__(
        self, debugger: lldb.SBDebugger, arguments: str, context: lldb.SBExecutionContext, result: Any
    ) -> None:
        # At the first use: loading the plugin must not take time.
        from ipbp.host.every import is_for_every, run_every
        from lldb_ipbp.every import members

        console = Console(debugger, result)
        if is_for_every(arguments):
            pid = int(context.GetTarget().GetProcess().GetProcessID())
            status = run_every(members(debugger), pid, arguments, console)
        else:
            status = _run(debugger, context.GetTarget(), arguments, console)
        if status not in _FINE:
            result.SetError(f"hotpatch: {_MEANING.get(status, 'failed')}")

    def get_short_help(self) -> str:
        return "Change the running program to what its edited source says."

    def get_long_help(self) -> str:
        return _LONG_HELP


class Console:
    """In a terminal the text is shown as it comes, otherwise it is the command's result, for whoever asked for it."""

    def __init__(self, debugger: lldb.SBDebugger, result: lldb.SBCommandReturnObject) -> None:
        self._debugger = debugger
        self._result = result
        self._file = debugger.GetOutputFile()
        self.is_terminal = _is_terminal(self._file)

    def write(self, text: str) -> None:
        if self.is_terminal:
            self._file.Write(shown(text).encode())
            self._file.Flush()
        else:
            self._result.PutCString(shown(text))

    def is_interrupted(self) -> bool:
        """Whether Ctrl-C was pressed since the command began."""
        interpreter = self._debugger.GetCommandInterpreter()
        asked = getattr(self._debugger, "InterruptRequested", None)  # lldb 16
        return bool(interpreter.WasInterrupted()) or (asked is not None and bool(asked()))

    def confirm(self, question: str) -> Optional[bool]:
        """What is typed is read from lldb's own input, which waits for a whole line while a command runs."""
        typed = self._debugger.GetInputFile()
        if not self.is_terminal or not _is_terminal(typed):
            return None
        self.write(question)
        return is_yes(read_line(typed.GetFile().fileno(), self.is_interrupted))

    def debugger(self) -> Any:
        """For threads of ours."""
        from lldb_ipbp.watching import LldbDebugger

        return LldbDebugger(self._debugger, self.is_terminal)


def _is_terminal(file: lldb.SBFile) -> bool:
    try:
        return os.isatty(file.GetFile().fileno())
    except (AttributeError, OSError, ValueError):  # a stream of a front end's
        return False


def _run(debugger: lldb.SBDebugger, target: lldb.SBTarget, arguments: str, console: Console) -> int:
    from ipbp.host import commands
    from lldb_ipbp.remote import interrupted

    stop_hook.prepare(target)
    inferior = LldbInferior(debugger, target)
    if arguments.split()[:1] in _OF_NO_PROGRAM:
        return commands.run(inferior, arguments, console)
    try:
        with interrupted(debugger, target):
            return commands.run(inferior, arguments, console)
    except IpbpError as error:
        commands.show_failure(inferior, console, "--json" in arguments.split(), error)
        return 1


_OF_NO_PROGRAM = (["help"], ["agree"], ["watch"])  # the last is refused behind a server
_FINE = (0, 4)  # done; nothing changed
_MEANING = {2: "wrong usage", 3: "refused"}
