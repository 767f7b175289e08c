"""Loaded images (the executable, shared libraries) and the process they make, in load addresses.

Readers in `formats` build these; stages use them and know no object format. All addresses are load addresses: the
bias is already added. Columns are numpy arrays of one length per table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from ipbp.graph.model import I64, U8, BlockKind
from ipbp.graph.name_index import NameIndex
from ipbp.graph.names import Names
from ipbp.protocol import PatchedImage

MemoryReader = Callable[[Sequence[tuple[int, int]]], "list[bytes | None]"]
"""Reads (address, size) ranges of the inferior in one round trip; None for a range that cannot be read whole."""


@dataclass(frozen=True, slots=True)
class ImageSymbols:
    """Defined symbols of an image, the static table where there is one, else the dynamic one; sorted by address.

    `file`: index into `files`, the STT_FILE name that a local symbol stands under, or -1. Names carry no version.
    """

    name: Names
    address: I64
    size: I64
    binding: U8  # graph.model.Binding
    type: U8  # graph.model.SymbolType
    file: I64
    files: tuple[str, ...]
    by_name: NameIndex


@dataclass(frozen=True, slots=True)
class ImageSection:
    """A part of an image as it was named there, in load addresses. TLS parts overlap what follows them."""

    name: str
    start: int
    end: int
    kind: BlockKind


def _nothing(address: int, size: int) -> bytes | None:
    return None


def _nobody(address: int) -> str:
    return ""


@dataclass(frozen=True, slots=True)
class LoadedImage:
    """`stubs`: address of a PLT entry -> name of the function it jumps to. `slots`: name -> addresses of GOT cells
    that the dynamic loader fills with that symbol's address. A name that the image asks for in several versions is
    `name@VERSION` there; `versions`: those that it asks for. `sections`: (name, start, end) of allocated sections,
    `parts`: the same with their kinds. `copied`: variables of libraries that live in this image (COPY relocations).
    `file` opens the very file that is mapped, also when its path was replaced; `debug_file` the one with its debug
    information, `file` itself when there is none or no other. `hides_globals`: a local symbol of a file may be a global
    name of the program. `leaves_out_folded`: a static function that was folded into another has no symbol.

    Thread-local variables: `tls_start` is the load address of the block's initial image, `tls_size` its size, rounded
    so that its end is as aligned as its start. The address of such a variable is its place in that initial image, its
    offset in the threads is counted from `thread_pointer`. `tls_alignment`: of the block.

    [near_start, near_end): what 32-bit distances in the image lead to, which is all of it but the sections that the
    medium and large code models put apart, however large.

    `original(address, size)`: the bytes at a load address as they are before the program's first instruction, with
    pointers into the image itself relocated; None when the range is not of one segment. `imported(address)`: the symbol
    of another image whose address the loader writes there, in data that is no GOT cell; "" where it writes none.

    `inode`: of the mapped file. `is_executable`: the program itself, no library. `machine`, `format`: as of a
    `LinkGraph`. `grain`: what the addresses of memory that the process gets are multiples of. `counts_upwards`: some of
    its fields are distances from its start that are never negative, so that new code must lie behind it.
    """

    path: str
    file: str
    build_id: str
    bias: int
    start: int
    end: int
    symbols: ImageSymbols
    stubs: Mapping[int, str]
    slots: Mapping[str, Sequence[int]]
    sections: Sequence[tuple[str, int, int]]
    tls_size: int
    is_pie: bool
    tls_start: int = 0
    tls_alignment: int = 1
    parts: Sequence[ImageSection] = ()
    original: Callable[[int, int], bytes | None] = _nothing
    imported: Callable[[int], str] = _nobody
    copied: Mapping[str, int] = field(default_factory=dict)
    versions: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    debug_file: str = ""
    hides_globals: bool = False
    leaves_out_folded: bool = False
    near_start: int = 0
    near_end: int = 0
    inode: int = 0
    is_executable: bool = False
    machine: str = "x86_64"
    format: str = "elf"
    grain: int = 4096
    counts_upwards: bool = False

    @property
    def is_low(self) -> bool:
        """Whether its code holds addresses in fields of 32 bits, so that new code must lie below 2 GiB."""
        return not self.is_pie and self.machine == "x86_64"

    @property
    def thread_pointer(self) -> int:
        """Its address, if the initial values of an executable's variables were a thread's own. On x86-64 the block ends
        there ("ELF Handling For Thread-Local Storage", variant II); on AArch64 it begins behind two words of the
        loader's (variant I), as its alignment allows."""
        if self.machine == "x86_64":
            return self.tls_start + self.tls_size
        return self.tls_start - 16 - (self.tls_start - 16 & self.tls_alignment - 1)

    @property
    def identity(self) -> PatchedImage:
        """What tells this load of this file from every other."""
        return PatchedImage(self.path, self.start, self.end, self.inode, self.build_id, self.is_executable)

    @property
    def key(self) -> str:
        return self.identity.key

    def imported_as(self, name: str) -> tuple[str, ...]:
        """What `stubs` and `slots` call what an object calls `name`, which may have a version (.symver)."""
        plain, _, version = name.partition("@")
        return (name, plain) if version and self.versions.get(plain, (version,)) == (version,) else (name,)

    def in_any_version(self, name: str) -> tuple[str, ...]:
        """What they may call it: which of several versions was the default one is not known here."""
        return (*self.imported_as(name), *(f"{name}@{version}" for version in self.versions.get(name, ())))


@dataclass(frozen=True, slots=True)
class Found:
    """What a name means in the process. `indirect`: `address` is an indirect function's resolver (STT_GNU_IFUNC)
    and the dynamic loader's choice is not known. `is_function`: code, not data. `thread_local`: `address` is the
    place of the initial value. `image`: key of the one that defines it."""

    address: int
    size: int
    is_function: bool
    indirect: bool
    image: str
    thread_local: bool = False


class Scope(Protocol):
    """What a name means from inside one image, as the dynamic loader binds it there."""

    @property
    def image(self) -> LoadedImage: ...

    @property
    def order(self) -> Sequence[str]:
        """Keys of the images that are searched, in order."""

    def lookup(self, name: str) -> Found | None:
        """What a reference from this image binds to; None when no image of `order` exports the name."""

    @property
    def binds_itself(self) -> bool:
        """Whether the image's own definitions come first: the executable's do, and those of a library that was
        linked with -Bsymbolic."""

    def exports(self, name: str) -> bool:
        """Whether the image defines `name` for others in such a way that theirs may come first (not protected)."""

    def bound(self, name: str) -> int | None:
        """What the loader has bound the image's own references to: the content of its pointer cell. None when it has
        no such cell, or one that waits for the first call."""
