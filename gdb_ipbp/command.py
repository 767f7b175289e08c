"""The `hotpatch` command of gdb. What its words mean is `ipbp.host.commands`' business, the same in both debuggers."""

from __future__ import annotations

import glob
import os
from typing import Any, Optional

import gdb

from gdb_ipbp.inferior import GdbInferior
from gdb_ipbp.prompt import is_front_end
from ipbp.errors import IpbpError
from ipbp.host.consent import is_yes, read_line
from ipbp.host.render import shown

_SUBCOMMANDS = (
    *("agree", "apply", "deopt", "doctor", "help", "object", "preview", "reopt", "report", "status", "undo"),
    "watch",
)


class Hotpatch(gdb.Command):  # type: ignore[misc]
    """Change the running program to what its edited source says.

    hotpatch                    compile what was edited, and patch
    hotpatch --frame remap      and the selected call goes on in the new code
    hotpatch --all              every inferior that runs this program
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

    The program keeps its state. It may be stopped, or run in the background
    (`continue &`); it is stopped or runs afterwards as before."""

    def __init__(self) -> None:
        super().__init__("hotpatch", gdb.COMMAND_RUNNING)

    def invoke(self, arguments: str, from_tty: bool) -> None:
        # At the first use: loading the plugin must not take time.
        from gdb_ipbp.every import members
        from ipbp.host import commands
        from ipbp.host.every import is_for_every, run_every

        self.dont_repeat()  # an empty line does not patch again
        console = Console(is_terminal=from_tty and os.isatty(1))

        def report(error: IpbpError) -> None:
            commands.show_failure(inferior, console, "--json" in arguments.split(), error)

        inferior = GdbInferior(report)
        if is_for_every(arguments):
            status = run_every(members(report), gdb.selected_inferior().pid, arguments, console)
        else:
            status = commands.run(inferior, arguments, console)
        if status not in _FINE:
            raise gdb.GdbError(f"hotpatch: {_MEANING.get(status, 'failed')}")

    def complete(self, text: str, word: Optional[str]) -> object:
        words = text.split()
        if words and (len(words) > 1 or text.endswith(" ")):
            return _files(text.rpartition(" ")[2], word or "") if words[0] == "object" else gdb.COMPLETE_NONE
        return [name for name in _SUBCOMMANDS if name.startswith(text.strip())]


def _files(path: str, word: str) -> list[str]:
    # gdb.COMPLETE_FILENAME takes all that is typed for one name. gdb wants what may stand in place of `word`, the end
    # of `path` after the last slash or the like.
    path = os.path.expanduser(path)
    found = glob.glob(glob.escape(path) + "*")
    return sorted((name + "/" * os.path.isdir(name))[len(path) - len(word) :] for name in found)


class Console:
    """The text goes where gdb's goes: the terminal, or the front end that drives it."""

    def __init__(self, is_terminal: bool) -> None:
        self.is_terminal = is_terminal

    def write(self, text: str) -> None:
        gdb.write(shown(text))
        gdb.flush()

    def is_interrupted(self) -> bool:
        """Never: gdb turns Ctrl-C into a KeyboardInterrupt in whatever Python runs."""
        return False

    def confirm(self, question: str) -> Optional[bool]:
        """What is typed is read past gdb, which lets the terminal alone while a command runs. A front end has nobody to
        type."""
        if not self.is_terminal or not os.isatty(0) or is_front_end():
            return None
        self.write(question)
        return is_yes(read_line(0, self.is_interrupted))

    def debugger(self) -> Any:
        """For threads of ours."""
        from gdb_ipbp.watching import GdbDebugger

        return GdbDebugger(self.is_terminal)


_FINE = (0, 4)  # done; nothing changed
_MEANING = {2: "wrong usage", 3: "refused"}
