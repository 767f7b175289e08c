"""The object of a translation unit, whatever it came as: one object of ELF or COFF, or an archive of a crate's ELF
objects."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ipbp.archive import MAGIC, NotAnArchive, members
from ipbp.errors import IpbpError
from ipbp.formats import coff_object
from ipbp.formats.coff_file import is_coff
from ipbp.formats.elf_object import read_object
from ipbp.graph.merge import merged
from ipbp.graph.model import LinkGraph

_ELF = b"\x7fELF"


def read_unit(content: bytes, path: str) -> LinkGraph:
    """The link graph of an object, or of all objects of an archive together; other members are passed over.

    Errors: those of `read_object`; `object-malformed` for an archive that is damaged or has no object.
    """
    if is_coff(content[:32]):
        return coff_object.read_object(content, path)
    if not is_archive(content):
        return read_object(content, path)
    rows = objects_of(content, path)
    if not rows:
        raise _malformed(path, "the archive holds no object")
    return merged(path, [read_object(row, f"{path}({name})") for name, row in rows.items()])


def is_archive(content: bytes) -> bool:
    return content[: len(MAGIC)] == MAGIC


def objects_of(content: bytes | memoryview, path: str) -> Mapping[str, memoryview]:
    """The ELF members of an archive by name, in order."""
    try:
        return {name: row for name, row in members(content) if row[:4] == _ELF and not name.endswith(".rmeta")}
    except NotAnArchive as error:
        raise _malformed(path, str(error)) from error


def _malformed(path: str, fact: str) -> IpbpError:
    return IpbpError(
        "object-malformed",
        f"{Path(path)}: {fact}",
        "The file is damaged or was still being written: build it again.",
    )
