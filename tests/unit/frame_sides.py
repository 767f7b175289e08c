"""Both versions of a function as the stages of frames see them: compiled, linked and described."""

from __future__ import annotations

import subprocess
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from objects_from_c import compiled

from ipbp.formats.elf_linked import map_file, read_linked
from ipbp.formats.elf_object import read_object
from ipbp.pipeline.frames import CodeFile, described, frame_side
from ipbp.stages.frame_remap import FrameSide


@dataclass(frozen=True)
class Version:
    """One version of `f`."""

    side: FrameSide
    source: str

    def at(self, text: str) -> int:
        """The offset at which the code of the line begins that has this text."""
        line = next(number for number, row in enumerate(self.source.splitlines(), 1) if text in row)
        return next(row.offset for row in self.side.function.lines if row.line == line and row.is_statement)

    def behind_call(self, name: str, text: str = "") -> int:
        """Where the one call of `name` returns to; the first one from the line with this text on."""
        start = self.at(text) if text else 0
        words = self.side.words
        return next(
            words[index + 1][0]
            for index, (offset, word) in enumerate(words)
            if offset >= start and word.startswith("call") and name in word
        )

    def line(self, offset: int) -> str:
        """The text of the line whose code is there."""
        number = [row.line for row in self.side.function.lines if row.offset <= offset][-1]
        return self.source.splitlines()[number - 1].strip()


@cache
def version(source: str, compiler: str = "gcc", flags: tuple[str, ...] = ("-O0",)) -> Version:
    """`f` of this source, as a program that defines everything else needs it."""
    content = compiled(source, compiler, (*flags, "-g", "-ffunction-sections"))
    with tempfile.TemporaryDirectory() as folder:
        linked = Path(folder, "linked")
        Path(folder, "unit.o").write_bytes(content)
        command = [compiler, "-nostartfiles", "-Wl,-e,f,--unresolved-symbols=ignore-all", "-no-pie", "unit.o", "-o"]
        subprocess.run([*command, str(linked)], cwd=folder, check=True, timeout=60)
        file = CodeFile(read_linked(map_file(str(linked)), str(linked)), str(linked), 0)
        graph = read_object(content, "unit.o")
        symbols = graph.symbols
        block = int(symbols.block[symbols.name.index("f")])
        function = described(file, _address(linked))
        assert function is not None
        return Version(frame_side(function, graph, block), source)


def _address(linked: Path) -> int:
    listed = subprocess.run(["nm", str(linked)], capture_output=True, text=True, check=True).stdout
    return next(int(row.split()[0], 16) for row in listed.splitlines() if row.split()[-1] == "f")
