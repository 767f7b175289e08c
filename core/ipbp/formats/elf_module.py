"""One file that a process has mapped: its headers, its dynamic tables and its image, each read when it is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

from ipbp.formats.elf_debug_file import DEBUG_FOLDER, has_debug_information, separate_debug_file
from ipbp.formats.elf_dynamic import DynamicTables, read_dynamic
from ipbp.formats.elf_image import build_image
from ipbp.formats.elf_index_cache import IndexCache
from ipbp.formats.elf_linked import PF_X, LinkedFile
from ipbp.formats.elf_mapped import MappedFile, bias_of, open_mapped
from ipbp.formats.elf_plt import plt_ranges
from ipbp.graph.image import LoadedImage, MemoryReader
from ipbp.protocol import PatchedImage


@dataclass(frozen=True)
class LoadedModule:
    """One file of the process; everything about it is read when it is first asked for."""

    pid: int
    mapped: MappedFile
    read: MemoryReader
    is_executable: bool = False
    cache: IndexCache | None = None
    debug_folders: tuple[str, ...] = (DEBUG_FOLDER,)

    @cached_property
    def _opened(self) -> tuple[LinkedFile, str, int]:
        return open_mapped(self.pid, self.mapped, self.read)

    @property
    def file(self) -> LinkedFile:
        return self._opened[0]

    @property
    def opened_as(self) -> str:
        """A path that opens the very file that is mapped; "" when only memory has it."""
        return self._opened[1]

    @cached_property
    def debug_file(self) -> str:
        """A path that opens the file with the debug information: the very file that is mapped, or a separate one."""
        separate = None if has_debug_information(self.file) else self._separate
        return separate.path if separate is not None else self.opened_as

    @cached_property
    def _separate(self) -> LinkedFile | None:
        return separate_debug_file(self.file, self.debug_folders)

    @cached_property
    def bias(self) -> int:
        return bias_of(self.file, self.mapped)

    @cached_property
    def dynamic(self) -> DynamicTables:
        relocated_by = self._opened[2]
        return read_dynamic(self.file, relocated_by) if relocated_by else _dynamic_of(_Same(self.file))

    @cached_property
    def image(self) -> LoadedImage:
        return build_image(
            self.file,
            self.dynamic,
            self.bias,
            self.opened_as,
            self._separate,
            self.mapped.inode,
            self.is_executable,
            self.cache,
        )

    @cached_property
    def key(self) -> str:
        """That of its image, without reading its symbols."""
        mapped = self.mapped
        return PatchedImage(mapped.path, mapped.start, mapped.end, mapped.inode, self.file.build_id()).key

    def is_code(self, address: int) -> bool:
        """Whether an executable segment holds this load address, linker-made stubs left out."""
        link = address - self.bias
        inside = any(row.flags & PF_X and row.address <= link < row.address + row.size for row in self.file.loads())
        return inside and not self.is_stub(address)

    def is_stub(self, address: int) -> bool:
        return any(start <= address - self.bias < end for start, end in plt_ranges(self.file))


class _Same:
    """A file that is known by being the very same value: `open_mapped` gives it again while the file is as it was."""

    def __init__(self, file: LinkedFile) -> None:
        self.file = file

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.file is self.file

    def __hash__(self) -> int:
        return id(self.file)


@lru_cache(maxsize=64)
def _dynamic_of(same: _Same) -> DynamicTables:
    return read_dynamic(same.file)
