"""The process that a request is about: its images; those of Linux with an index of symbols, kept for the next time."""

from __future__ import annotations

from ipbp.build.places import cache_folder
from ipbp.formats import coff_process
from ipbp.formats.elf_index_cache import IndexCache
from ipbp.formats.elf_process import LoadedProcess, read_process
from ipbp.graph.image import MemoryReader
from ipbp.host.abi import is_windows
from ipbp.pipeline.request import Request


def process_of(request: Request, read: MemoryReader) -> LoadedProcess:
    """The process as the request describes it. Errors: those of `read_process`."""
    described = request.description
    if is_windows(described):
        return coff_process.read_process(request.regions, described.executable, read)
    regions, cache = list(request.regions), IndexCache(cache_folder("symbols"))
    return read_process(described.local_pid, regions, described.executable, read, cache, described.debug_folders)
