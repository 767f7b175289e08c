"""Emacs at a terminal, `M-x gdb`: the editor itself, typed to as a person would, and asked what it shows."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from terminal import Terminal
from ticker import VALUE, Ticker, build_ticker, wait_until

from ipbp.cli.path import load_line

pytestmark = [pytest.mark.live, pytest.mark.slow]


class Emacs:
    """`client` asks it, through the server that it runs."""

    def __init__(self, terminal: Terminal, client: tuple[str, ...]) -> None:
        self._terminal = terminal
        self._client = client

    def type(self, keys: str) -> None:
        self._terminal.press(keys)

    def evaluate(self, form: str) -> str:
        done = subprocess.run([*self._client, form], capture_output=True, text=True, timeout=30, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.rstrip("\n")

    def text(self, form: str) -> str:
        """The value of a form that is a string."""
        shown = re.fullmatch(r'"([\s\S]*)"', self.evaluate(form))
        assert shown is not None, form
        return re.sub(r"\\(.)", lambda found: "\n" if found[1] == "n" else found[1], shown[1])

    def console(self) -> str:
        """What the buffer of gdb's console holds."""
        shown = "(with-current-buffer gud-comint-buffer (buffer-substring-no-properties 1 (point-max)))"
        return self.text(f'(if (bound-and-true-p gud-comint-buffer) {shown} "")')

    def tell(self, line: str, pattern: str) -> str:
        """Type a line to gdb and wait for what it shows then."""
        seen = len(self.console())
        self.type(f"{line}\r")
        self.wait_for(pattern, seen)
        return self.console()[seen:]

    def wait_for(self, pattern: str, seen: int = 0) -> None:
        def look() -> bool:
            self._terminal.read()
            return re.search(pattern, self.console()[seen:]) is not None

        wait_until(look, lambda: self.console()[seen:] + self._terminal.screen[-500:])

    def arrow(self) -> tuple[str, int]:
        """The file and the line that are shown as the current ones."""
        place = "(let ((b (marker-buffer gud-overlay-arrow-position)))"
        name = self.text(f'{place} (if b (buffer-file-name b) ""))')
        line = self.evaluate(
            f"{place} (if b (with-current-buffer b (line-number-at-pos gud-overlay-arrow-position)) 0))"
        )
        return Path(name).name, int(line)

    def save(self, ticker: Ticker, value: int) -> None:
        """Edit the source in its buffer, with a line more before all others, and save it as C-x C-s does."""
        form = f"""(with-current-buffer (find-file-noselect "{ticker.source}")
          (goto-char 1) (insert "\\n")
          (re-search-forward "ticks \\\\* 0 \\\\+ [0-9]+") (replace-match "ticks * 0 + {value}")
          (save-buffer))"""
        self.evaluate(form)


@pytest.fixture
def ticker(tmp_path: Path) -> Ticker:
    return build_ticker(tmp_path / "ticker")


@contextmanager
def emacs_at(folder: Path) -> Iterator[Emacs]:
    if shutil.which("emacs") is None:
        pytest.skip("needs emacs: apt-get install emacs-nox")
    start = f'(progn (require (quote server)) (setq server-socket-dir "{folder}/s" server-name "e") (server-start))'
    with Terminal(["emacs", "-nw", "-Q", "--eval", start], folder) as terminal:
        emacs = Emacs(terminal, ("emacsclient", "-s", f"{folder}/s/e", "--eval"))

        def has_begun() -> bool:
            terminal.read()
            return (folder / "s/e").exists()

        wait_until(has_begun, lambda: terminal.screen)
        yield emacs


def test_what_emacs_shows_is_right_and_its_saves_are_patches(gdb: str, ticker: Ticker, tmp_path: Path) -> None:
    with emacs_at(tmp_path) as emacs:
        emacs.type("\x1bxgdb\r\x01\x0b")  # M-x gdb RET, and what it proposes away
        emacs.type(f"{gdb} -i=mi -nx -q {ticker.program}\r")
        emacs.wait_for(r"\(gdb\) ")
        emacs.tell(load_line("gdb"), r"\(gdb\) $")
        # (A function of that name is in the C library, too.)
        emacs.tell(f"break ticker.c:{ticker.line_of(VALUE)}", r"Breakpoint 1 at")
        emacs.tell("run out", "hit Breakpoint")
        wait_until(
            lambda: emacs.arrow() == ("ticker.c", ticker.line_of(VALUE)), lambda: str(emacs.arrow()) + emacs.console()
        )
        emacs.save(ticker, 1)
        assert "patched 1 function in ticker.c: value" in emacs.tell("hotpatch", r"patched.*\n")
        emacs.tell("delete", r"delete\n")
        emacs.tell(f"break ticker.c:{ticker.line_of(VALUE)}", "Breakpoint 2 at")
        emacs.tell("continue", "hit Breakpoint 2")
        wait_until(lambda: emacs.evaluate("gdb-selected-line") == str(ticker.line_of(VALUE)), emacs.console)
        assert "patch-1.elf" in emacs.tell("info symbol $pc", r"in section .*\n")
        emacs.tell("delete", r"delete\n")
        # From now on C-x C-s is a patch.
        emacs.tell("hotpatch watch on", "a save is a patch")
        emacs.tell("continue", "Continuing")
        ticker.wait_for(1)
        for number in range(2, 5):
            seen = len(emacs.console())
            emacs.save(ticker, number)
            ticker.wait_for(number)
            emacs.wait_for("patched 1 function", seen)
        assert "Catchpoint" not in emacs.console()
        emacs.tell("interrupt", "SIGINT")
        assert "undone patch 4" in emacs.tell("hotpatch undo", r"undone.*\n")
        emacs.tell("continue", "Continuing")
        ticker.wait_for(3)
