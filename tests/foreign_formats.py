"""Mach-O and COFF without their systems: programs cross-compiled by clang, linked by lld, run in an emulator.

A program here is one image; an emulated one has no loader, C library or threads. `Emulated` holds its memory and calls
its functions; `Program.patch` is what the engine does for an edit, from both objects to the bytes that are written.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import unicorn
from unicorn import arm64_const, x86_const

from ipbp.errors import Refusal
from ipbp.formats import coff_image, macho_image
from ipbp.formats.objects import read_any_object
from ipbp.graph.image import Found, LoadedImage
from ipbp.graph.layout import Layout
from ipbp.graph.model import Binding, LinkGraph, SymbolType
from ipbp.graph.unit import Unit
from ipbp.protocol import Replacement
from ipbp.stages.arena import Arena, Part
from ipbp.stages.attest import attest
from ipbp.stages.branches import with_local_branches
from ipbp.stages.compare import Comparison, compare
from ipbp.stages.copies import Copies
from ipbp.stages.correlate import correlate
from ipbp.stages.entries import Entry, rewrite_entries
from ipbp.stages.layout import Group, layouts
from ipbp.stages.relocate import relocate
from ipbp.stages.resolve import resolve
from ipbp.stages.select import OldSide, select

PAGE = 0x4000
_STACK, _STACK_SIZE, _RETURN = 0x7000_0000_0000, 1 << 20, 0x7100_0000_0000
_ARENA_SIZE = 1 << 18
ARENA = 3 * _ARENA_SIZE


@dataclass(frozen=True)
class Target:
    triple: str
    machine: str
    is_macho: bool

    @property
    def prefix(self) -> str:
        return "_" if self.is_macho else ""


TARGETS = {
    "macho-x86_64": Target("x86_64-apple-macos11", "x86_64", True),
    "macho-arm64": Target("arm64-apple-macos11", "aarch64", True),
    "coff-x86_64": Target("x86_64-pc-windows-msvc", "x86_64", False),
    "coff-arm64": Target("aarch64-pc-windows-msvc", "aarch64", False),
}


def lld(flavour: str) -> str:
    """`ld64.lld`, `lld-link`: with the version in the name, as Debian has them, or without."""
    names = (flavour, *(f"{flavour}-{version}" for version in range(25, 13, -1)))
    found = next(filter(None, map(shutil.which, names)), None)
    assert found, f"no {flavour}; run scripts/setup"
    return found


def compiled(folder: Path, clang: str, target: Target, text: str, *flags: str, name: str = "unit.c") -> Path:
    path = folder / name
    path.write_text(text)
    result = path.with_suffix(".o")
    command = [clang, f"--target={target.triple}", "-ffreestanding", *flags, "-c", name, "-o", result.name]
    subprocess.run(command, cwd=folder, check=True)
    return result


def linked(target: Target, objects: Sequence[Path], output: Path, entry: str, *options: str) -> LoadedImage:
    if target.is_macho:
        arch = {"x86_64": "x86_64", "aarch64": "arm64"}[target.machine]
        command = [lld("ld64.lld"), "-arch", arch, "-platform_version", "macos", "11.0", "11.0", "-e", f"_{entry}"]
        command += ["-o", str(output)]
    else:
        machine = {"x86_64": "x64", "aarch64": "arm64"}[target.machine]
        command = [lld("lld-link"), f"/machine:{machine}", "/nodefaultlib", f"/entry:{entry}", "/subsystem:console"]
        command += ["/debug:symtab", f"/out:{output}"]
    done = subprocess.run([*command, *options, *map(str, objects)], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return loaded(target, output)


def loaded(target: Target, program: Path, bias: int = 0) -> LoadedImage:
    """The program, `bias` above the address that it is linked for."""
    content = program.read_bytes()
    if target.is_macho:
        return macho_image.read_image(content, str(program), bias)
    image = coff_image.read_image(content, str(program))
    return coff_image.read_image(content, str(program), image.start + bias) if bias else image


def graph_of(path: Path) -> LinkGraph:
    return with_local_branches(read_any_object(path.read_bytes(), str(path)))


@dataclass(frozen=True)
class OneImage:
    """What names mean from inside an image that is alone."""

    image: LoadedImage

    @property
    def order(self) -> tuple[str, ...]:
        return (self.image.key,)

    @property
    def binds_itself(self) -> bool:
        return True

    def exports(self, name: str) -> bool:
        return False

    def bound(self, name: str) -> int | None:
        return None

    def lookup(self, name: str) -> Found | None:
        rows, table = self.image.symbols.by_name.get(name, ()), self.image.symbols
        for row in rows:
            if table.binding[row] != Binding.LOCAL:
                is_function = table.type[row] == SymbolType.FUNCTION
                return Found(int(table.address[row]), int(table.size[row]), bool(is_function), False, self.image.key)
        return None


@dataclass(frozen=True)
class Patch:
    """`refusals` of any stage; without any, `segments` and `replacements` are what is written."""

    comparison: Comparison
    new: LinkGraph
    unit: Unit
    layout: Layout | None
    segments: Mapping[int, bytes]
    replacements: Sequence[Replacement]
    refusals: tuple[Refusal, ...]

    @cached_property
    def codes(self) -> set[str]:
        return {refusal.code for refusal in self.refusals}

    @cached_property
    def carried(self) -> set[str]:
        return {self.new.block_name(block) for block in self.unit.carried.tolist()}


class Program:
    """An image in memory, what was written to it, and room for more from `arena_base` on, `ARENA` bytes."""

    def __init__(self, image: LoadedImage, arena_base: int) -> None:
        self.image = image
        self.arena_base = arena_base
        self.entries: dict[int, bytes] = {}
        self.before: dict[int, bytes] = {}
        parts = enumerate(("rx", "r", "rw"))
        self.arena = Arena(arena_base, tuple(Part(p, arena_base + n * _ARENA_SIZE, _ARENA_SIZE) for n, p in parts))

    def read(self, ranges: Sequence[tuple[int, int]]) -> list[bytes | None]:
        raise NotImplementedError

    def write(self, address: int, content: bytes) -> None:
        raise NotImplementedError

    def address(self, name: str) -> int:
        (row,) = self.image.symbols.by_name[name]
        return int(self.image.symbols.address[row])

    def read_original(self, ranges: Sequence[tuple[int, int]]) -> list[bytes | None]:
        """Memory without the jumps of earlier patches."""
        found: list[bytes | None] = []
        for (address, size), content in zip(ranges, self.read(ranges), strict=True):
            assert content is not None
            octets = bytearray(content)
            for place, before in self.before.items():
                for row, octet in enumerate(before, place - address):
                    if 0 <= row < size:
                        octets[row] = octet
            found.append(bytes(octets))
        return found

    def apply(self, patch: Patch) -> None:
        assert patch.refusals == ()
        for address, content in patch.segments.items():
            self.write(address, content)
        for row in patch.replacements:
            assert self.read([(row.address, len(row.expected))]) == [row.expected]
            self.write(row.address, row.replacement)
            self.before.setdefault(row.address, row.expected)
            self.entries[row.address] = row.replacement
        assert patch.layout is not None
        self.arena = self.arena.taken(patch.layout.ends())

    def undo(self) -> None:
        """All functions as they were built."""
        for address, content in self.before.items():
            self.write(address, content)

    def patch(self, old: LinkGraph, new: LinkGraph) -> Patch:
        """The patch that makes `new` of the object `old`, which is in the image."""
        image = self.image
        attested = attest(old, image, self.read_original)
        side = OldSide(old, attested.address, attested.proved, {})
        correlation = correlate(old, new)
        comparison = compare(old, new, correlation)
        selection = select("unit.c", new, side, Copies(correlation, comparison), image.key)
        units, refusals = resolve([selection.unit], {image.key: OneImage(image)})
        (placed,) = layouts([Group(units, self.arena)])
        found = (*comparison.refusals, *selection.refusals, *refusals, *placed.refusals)
        if found:
            return Patch(comparison, new, units[0], None, {}, (), found)
        made = relocate(units, placed)
        rows = [
            Entry(row.name, "unit.c", row.entry, row.old_size, int(placed.units[0].block[row.block]), 0, row.targets)
            for row in selection.replaced
        ]
        replacements, wrong = rewrite_entries(rows, [image], self.read, self.entries)
        segments = {placed.written(key)[0]: content for key, content in made.segments.items() if content}
        return Patch(comparison, new, units[0], placed, segments, replacements, (*made.refusals, *wrong))


class Emulated(Program):
    """An image in memory, and a processor."""

    def __init__(self, image: LoadedImage) -> None:
        start, end = image.start // PAGE * PAGE, -(-image.end // PAGE) * PAGE
        super().__init__(image, end + 16 * PAGE)
        if image.machine == "x86_64":
            self.processor = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_64)
        else:
            self.processor = unicorn.Uc(unicorn.UC_ARCH_ARM64, unicorn.UC_MODE_ARM)
        self.processor.mem_map(start, end - start)
        self.processor.mem_map(self.arena_base, ARENA)
        self.processor.mem_map(_STACK, _STACK_SIZE)
        self.processor.mem_map(_RETURN, PAGE)
        for part in image.parts:
            content = image.original(part.start, part.end - part.start)
            assert content is not None, part
            self.processor.mem_write(part.start, content)

    def read(self, ranges: Sequence[tuple[int, int]]) -> list[bytes | None]:
        return [bytes(self.processor.mem_read(address, size)) for address, size in ranges]

    def write(self, address: int, content: bytes) -> None:
        self.processor.mem_write(address, content)
        self.processor.ctl_remove_cache(address, address + len(content))

    def number(self, name: str, size: int = 4) -> int:
        return int.from_bytes(self.processor.mem_read(self.address(name), size), "little", signed=True)

    def call(self, name: str, *arguments: int, is_msvc: bool = False) -> int:
        """What the function returns, an int."""
        stack = _STACK + _STACK_SIZE - 0x1000
        if self.image.machine == "x86_64":
            registers = (x86_const.UC_X86_REG_RDI, x86_const.UC_X86_REG_RSI, x86_const.UC_X86_REG_RDX)
            if is_msvc:
                registers = (x86_const.UC_X86_REG_RCX, x86_const.UC_X86_REG_RDX, x86_const.UC_X86_REG_R8)
            stack -= 8
            self.processor.mem_write(stack, _RETURN.to_bytes(8, "little"))
            self.processor.reg_write(x86_const.UC_X86_REG_RSP, stack)
            result = x86_const.UC_X86_REG_RAX
        else:
            registers = (arm64_const.UC_ARM64_REG_X0, arm64_const.UC_ARM64_REG_X1, arm64_const.UC_ARM64_REG_X2)
            self.processor.reg_write(arm64_const.UC_ARM64_REG_SP, stack)
            self.processor.reg_write(arm64_const.UC_ARM64_REG_X30, _RETURN)
            self.processor.reg_write(arm64_const.UC_ARM64_REG_CPACR_EL1, 3 << 20)  # floating point
            result = arm64_const.UC_ARM64_REG_X0
        for register, argument in zip(registers, arguments, strict=False):
            self.processor.reg_write(register, argument & (1 << 64) - 1)
        self.processor.emu_start(self.address(name), _RETURN, count=1_000_000)
        value = self.processor.reg_read(result) & 0xFFFFFFFF
        return value - (1 << 32) if value >> 31 else value


def known_addresses(graph: LinkGraph, image: LoadedImage) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Per symbol where the image has it, as the linker's own symbol table says; -1 where it does not."""
    found = np.full(len(graph.symbols), -1, dtype=np.int64)
    for row, name in enumerate(graph.symbols.name):
        places = image.symbols.by_name.get(name, ()) if name else ()
        if len(places) == 1:
            found[row] = image.symbols.address[places[0]]
    return found
