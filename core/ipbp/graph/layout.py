"""Layout: where everything that a patch carries will lie in the inferior, before a byte of it is computed.

`stages.layout` makes it, `stages.relocate` fills it with bytes (`LinkedImage`), `formats.elf_patch` writes both as a
file, `stages.plan` turns them into what the plugin does. Addresses are load addresses; UNBOUND means none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ipbp.errors import Refusal
from ipbp.graph.model import I32, I64, U8

PROTECTIONS = ("rx", "r", "rw")


@dataclass(frozen=True, slots=True)
class Chunk:
    """Bytes of one meaning and one protection; becomes a section of the patch file. `zeroed`: it has no bytes in
    the file, because fresh memory is zero already."""

    name: str
    protection: str
    start: int
    size: int
    alignment: int
    zeroed: bool = False

    @property
    def end(self) -> int:
        return self.start + self.size


@dataclass(frozen=True, slots=True)
class Slot:
    """A pointer cell. `value` is what it holds, or UNBOUND when the indirect function's `resolver` has to be called
    in the inferior to know it."""

    address: int
    value: int
    resolver: int
    name: str


@dataclass(frozen=True, slots=True)
class Stub:
    """An indirect jump through the slot at `slot`."""

    address: int
    slot: int
    name: str


@dataclass(frozen=True, slots=True)
class UnwindTable:
    """The rows of `.eh_frame`, or of Windows' `.pdata`, that describe carried code. Edge columns: `unit` in the patch,
    `offset` in `content`, `kind`, `target` symbol of that unit's graph, `addend`; they always mean carried copies.
    `rows`: how many, where that has to be said."""

    address: int
    content: bytes
    unit: I32
    offset: I64
    kind: U8
    target: I32
    addend: I64
    section: str = ".eh_frame"
    rows: int = 0


@dataclass(frozen=True, slots=True)
class Unwinder:
    """Functions of one unwinder in the inferior (a process may have several: one for each dlmopen namespace, or linked
    into an image). libgcc's __register_frame_info and __deregister_frame_info, of which the first takes memory for a
    record of its own; or those of LLVM's libunwind, which do with the table (`takes_record` is then False); or
    Windows' RtlAddFunctionTable and RtlDeleteFunctionTable, whose rows count from `base`."""

    register: int
    deregister: int
    takes_record: bool = True
    base: int | None = None


@dataclass(frozen=True, slots=True)
class Registration:
    """An unwinder that is told of the unwind table; `record`: zeroed memory for its own record of that."""

    unwinder: Unwinder
    record: int


@dataclass(frozen=True, slots=True)
class ThreadImage:
    """Initial values of the thread-local variables that a patch brings, [start, start + size), which is the chunk
    `.tdata`. `offset_at`: a cell for the block's offset from the thread pointer, which is known when the program's
    loader has made the block. `library_at`: `library`, the path of the file that makes it do so, as a C string."""

    start: int
    size: int
    alignment: int
    offset_at: int
    library_at: int
    library: str

    def holds(self, address: int) -> bool:
        return self.start <= address < self.start + self.size


@dataclass(frozen=True, slots=True)
class ThreadPair:
    """Two cells at `address` by which __tls_get_addr finds a variable: a module's id, an offset in its block."""

    address: int
    module: int
    in_block: int


@dataclass(frozen=True, slots=True)
class LateField:
    """`width` bytes at `address` that hold that offset plus `addend`; or of them `bits`, from the bit `at`, which hold
    that sum from its bit `shift`."""

    address: int
    width: int
    addend: int
    bits: int = 0
    at: int = 0
    shift: int = 0


@dataclass(frozen=True, slots=True)
class UnitLayout:
    """`block`: per block, where its copy lies. Per symbol: `copy`, its place in what is carried; `meaning`, the
    address that its name stands for (the old entry of a function that existed); `slot`, its pointer cell; `stub`,
    the stub that stands for it where a 32-bit distance does not reach. `got_base`: what the fields of the medium and
    large code models count from, or UNBOUND where nothing asks for it."""

    block: I64
    copy: I64
    meaning: I64
    slot: I64
    stub: I64
    got_base: int


@dataclass(frozen=True, slots=True)
class Layout:
    """What goes to one arena. `units` in the order in which they were given. `chunks` by protection and address.
    `registrations`: of the unwind table, if there is one. A layout with `refusals` must not be linked."""

    units: tuple[UnitLayout, ...]
    chunks: tuple[Chunk, ...]
    slots: tuple[Slot, ...]
    stubs: tuple[Stub, ...]
    unwind: UnwindTable | None
    registrations: tuple[Registration, ...]
    refusals: tuple[Refusal, ...]
    thread: ThreadImage | None = None
    pairs: tuple[ThreadPair, ...] = ()

    def ends(self) -> Mapping[str, int]:
        """By protection, the end of what this patch takes of the arena."""
        ends: dict[str, int] = {}
        for chunk in self.chunks:
            ends[chunk.protection] = max(ends.get(chunk.protection, 0), chunk.end)
        return ends

    def written(self, protection: str) -> tuple[int, int]:
        """[start, end) of the bytes with this protection that come from the file; equal when there are none."""
        chunks = [chunk for chunk in self.chunks if chunk.protection == protection and not chunk.zeroed]
        if not chunks:
            return 0, 0
        return chunks[0].start, chunks[-1].end


@dataclass(frozen=True, slots=True)
class LinkedImage:
    """The final bytes: `segments[p]` are those of `Layout.written(p)`. Not to be used when there are `refusals`.
    `late`: fields that are final when the new thread-local variables have their place."""

    segments: Mapping[str, bytes]
    refusals: tuple[Refusal, ...]
    late: tuple[LateField, ...] = ()
