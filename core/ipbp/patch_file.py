"""A patch as a file: what an edit made of a build, to be applied where there are neither compiler nor sources.

It holds what a comparison needs and nothing that is bound to a process: the new objects, the old ones that the program
was linked from, and the build ids of the images that they belong to. Applying it is the same comparison and the same
link as for an edit that was just compiled, against the process as it is then.

The container is ZIP (PKWARE's APPNOTE.TXT, without ZIP64's larger fields): `manifest.json`, and `objects/SHA256` for
each object. Nothing is unpacked to a path that the file names; a member is known by the hash of its content. Whoever
applies such a file runs the code in it, so it deserves the trust that the program itself got; what is checked here is
that it is whole, and that a damaged one costs one error.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeVar

from ipbp import __version__
from ipbp.errors import IpbpError
from ipbp.members import listed

FORMAT, VERSION = "ipbp-patch", 1
LARGEST = 1 << 30
"""Bytes of all members together."""
MOST_MEMBERS = 1 << 16
_MANIFEST, _OBJECTS = "manifest.json", "objects/"
_LARGEST_MANIFEST = 1 << 26
_DIGEST = re.compile(r"[0-9a-f]{64}")
_BUILD_ID = re.compile(r"[0-9a-f]{2,128}")
_STATUS = ("changed", "new", "removed")
_DAMAGE = (
    *(zipfile.BadZipFile, zlib.error, struct.error, EOFError, KeyError, ValueError, TypeError, OverflowError),
    *(NotImplementedError, RuntimeError, RecursionError, MemoryError, IndexError, OSError),
)
"""What reading a damaged ZIP file or its JSON ends in."""


@dataclass(frozen=True, slots=True)
class PatchedBuild:
    """An image that the patch fits: `build_id` in hex, `name` of its file and `machine` for people."""

    build_id: str
    name: str
    machine: str
    is_executable: bool


@dataclass(frozen=True, slots=True)
class UnitChange:
    """A translation unit. `image`: which of the file's images it is a part of. `name`: its key in a journal, the source
    path where that is known. `new`: sha256 of its object. `old`: of the object that the image was linked from, "" where
    nobody has that and the running image has to tell; `is_newcomer`: the image was built without the unit.
    `dependencies`: path -> sha256 of what the new object was made from. The others are as in `pipeline.edited.Edited`.
    """

    image: int
    name: str
    new: str
    old: str
    is_newcomer: bool = False
    is_crate: bool = False
    is_optimised: bool = True
    dependencies: Mapping[str, str] = field(default_factory=dict)
    flags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ListedFunction:
    """A function that the patch changes in a process that runs the build, for people. `linkage`: its name in the symbol
    table."""

    name: str
    linkage: str
    status: str
    reason: str
    file: str
    image: int


@dataclass(frozen=True, slots=True)
class PatchFile:
    """`data`: names of new variables. `notes`: what the comparison of the two builds said. `objects`: content by
    sha256, all that the units name. `identity`: sha256 of the manifest, and so of everything."""

    images: tuple[PatchedBuild, ...]
    units: tuple[UnitChange, ...]
    functions: tuple[ListedFunction, ...]
    data: tuple[str, ...]
    notes: tuple[str, ...]
    objects: Mapping[str, bytes]
    made_by: str = __version__
    identity: str = ""


def pack(patch: PatchFile) -> bytes:
    """The file's content; equal patches make equal files. Errors: `patch-file-too-large`."""
    if len(patch.objects) > MOST_MEMBERS or sum(map(len, patch.objects.values())) > LARGEST:
        raise IpbpError(
            "patch-file-too-large",
            f"the objects of this patch are {sum(map(len, patch.objects.values())) >> 20} MiB",
            f"A patch file holds {LARGEST >> 20} MiB: make one of fewer edits, or build with less debug information.",
        )
    manifest = {
        "format": FORMAT,
        "version": VERSION,
        "made_by": patch.made_by,
        "images": [asdict(row) for row in patch.images],
        "units": [asdict(row) for row in patch.units],
        "functions": [asdict(row) for row in patch.functions],
        "data": list(patch.data),
        "notes": list(patch.notes),
        "objects": {digest: len(content) for digest, content in sorted(patch.objects.items())},
    }
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as file:
        _add(file, _MANIFEST, json.dumps(manifest, indent=1, sort_keys=True).encode("utf-8", "surrogateescape"))
        for digest, content in sorted(patch.objects.items()):
            _add(file, _OBJECTS + digest, content)
    return packed.getvalue()


def _add(file: zipfile.ZipFile, name: str, content: bytes) -> None:
    member = zipfile.ZipInfo(name)  # of 1980: the time of the making would make equal patches differ
    member.external_attr = 0o644 << 16
    file.writestr(member, content, zipfile.ZIP_DEFLATED)


def read_patch_file(path: Path) -> PatchFile:
    """The patch in this file, whole and proved by its hashes.

    Errors: `patch-file-unreadable`; `patch-file-malformed` for what is damaged or none; `patch-file-version`;
    `patch-file-too-large`.
    """
    try:
        if not path.is_file():  # a device or a pipe may never end
            raise FileNotFoundError(errno.ENOENT, "there is no such file")
        with path.open("rb") as file:
            content = file.read(LARGEST + 1)
    except OSError as error:
        raise IpbpError(
            "patch-file-unreadable", f"{path}: cannot be read: {error.strerror}", "Name a file of `hotpatch save`."
        ) from error
    return unpack(content, str(path))


def unpack(content: bytes, path: str) -> PatchFile:
    """The same of a file's content. `path`: for messages."""
    try:
        return _unpack(content, path)
    except IpbpError:
        raise
    except _DAMAGE as error:
        raise _malformed(path, str(error) or type(error).__name__) from error


def _unpack(content: bytes, path: str) -> PatchFile:
    with zipfile.ZipFile(io.BytesIO(content)) as file:
        members = {member.filename: member for member in file.infolist()}
        if len(members) != len(file.infolist()):
            raise ValueError("two members have one name")
        if len(members) > MOST_MEMBERS + 1 or sum(member.file_size for member in members.values()) > LARGEST:
            raise IpbpError(
                "patch-file-too-large",
                f"{path}: it would unpack to more than {LARGEST >> 20} MiB or {MOST_MEMBERS} members",
                "Make a smaller one.",
            )
        if members[_MANIFEST].file_size > _LARGEST_MANIFEST:
            raise ValueError("its manifest is too large")
        text = _member(file, members.pop(_MANIFEST))
        row = json.loads(text.decode("utf-8", "surrogateescape"))
        if not isinstance(row, dict) or row.get("format") != FORMAT:
            raise ValueError("its manifest is none of a patch")
        if row.get("version") != VERSION:
            raise IpbpError(
                "patch-file-version",
                f"{path} is of version {row.get('version')!r} of the format, and this ipbp reads version {VERSION}",
                "Use the ipbp that it was made with, or make it again.",
            )
        sizes = _mapping(row["objects"], _digest, lambda size: size)
        if members.keys() != {_OBJECTS + digest for digest in sizes}:
            raise ValueError("its members are not those that its manifest names")
        objects = {digest: _object(file, members[_OBJECTS + digest], digest) for digest in sizes}
    return _checked(row, objects, hashlib.sha256(text).hexdigest())


def _member(file: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or member.flag_bits & 1:
        raise ValueError(f"{member.filename} is packed in a way that is not used here")
    with file.open(member) as stream:  # gives no more than the size that the directory says
        content = stream.read(member.file_size + 1)
    if len(content) != member.file_size:
        raise ValueError(f"{member.filename} was cut short")
    return content


def _object(file: zipfile.ZipFile, member: zipfile.ZipInfo, digest: str) -> bytes:
    content = _member(file, member)
    if hashlib.sha256(content).hexdigest() != digest:
        raise ValueError(f"the content of {member.filename} is another one")
    return content


def _checked(row: dict[str, Any], objects: Mapping[str, bytes], identity: str) -> PatchFile:
    images = tuple(_record(PatchedBuild, image) for image in _list(row["images"]))
    units = tuple(_unit(unit) for unit in _list(row["units"]))
    functions = tuple(_record(ListedFunction, function) for function in _list(row["functions"]))
    if not images or not units:
        raise ValueError("there is nothing in it")
    if any(not _BUILD_ID.fullmatch(image.build_id) for image in images):
        raise ValueError("an image has no build id")
    parts = [unit.image for unit in units] + [function.image for function in functions]
    if any(not 0 <= part < len(images) for part in parts):
        raise ValueError("something is of an image that it does not have")
    if any(function.status not in _STATUS for function in functions):
        raise ValueError("a function has an unknown status")
    for digest in {digest for unit in units for digest in needed(unit, objects)}:
        if digest not in objects:
            raise ValueError(f"the object {digest[:12]} is not in it")
    data, notes = (tuple(map(_text, _list(row[name]))) for name in ("data", "notes"))
    return PatchFile(images, units, functions, data, notes, objects, _text(row["made_by"]), identity)


def described(patch: PatchFile) -> dict[str, Any]:
    """What is in the file, as JSON."""
    return {
        "identity": patch.identity,
        "made_by": patch.made_by,
        "images": [asdict(row) for row in patch.images],
        "units": [
            {"name": row.name, "image": row.image, "is_crate": row.is_crate, "new": row.new, "old": row.old}
            for row in patch.units
        ],
        "functions": [{**asdict(row), "image": _library(patch.images[row.image])} for row in patch.functions],
        "data": list(patch.data),
        "notes": list(patch.notes),
        "bytes": sum(map(len, patch.objects.values())),
    }


def _library(image: PatchedBuild) -> str:
    return "" if image.is_executable else image.name


def needed(unit: UnitChange, objects: Mapping[str, bytes]) -> Iterator[str]:
    """Digests of all objects that the unit takes, those that its lists of a crate's objects name included."""
    for digest in (unit.new, unit.old):
        if digest:
            yield digest
            yield from map(_digest, (listed(objects.get(digest, b"")) or {}).values())


def _unit(row: Any) -> UnitChange:
    unit = _record(UnitChange, {**row, "dependencies": {}, "flags": ()})
    if not _DIGEST.fullmatch(unit.new) or not (unit.old == "" or _DIGEST.fullmatch(unit.old)):
        raise ValueError("a unit names no object")
    dependencies = _mapping(row["dependencies"], _text, _text)
    flags = tuple(map(_text, _list(row["flags"])))
    return replace(unit, dependencies=dependencies, flags=flags)


_TYPES: Mapping[str, type] = {"int": int, "str": str, "bool": bool}
_Row = TypeVar("_Row")
_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


def _record(kind: Callable[..., _Row], row: Any) -> _Row:
    """A value of one of the dataclasses above, each field of its type."""
    found = kind(**row)
    for column in fields(found):  # type: ignore[arg-type]
        wanted = _TYPES.get(str(column.type))
        if wanted is not None and type(getattr(found, column.name)) is not wanted:
            raise ValueError(f"{column.name} is no {column.type}")
    return found


def _mapping(row: Any, key: Callable[[Any], _Key], value: Callable[[Any], _Value]) -> dict[_Key, _Value]:
    if not isinstance(row, dict):
        raise ValueError("a table is none")
    return {key(name): value(content) for name, content in row.items()}


def _list(row: Any) -> list[Any]:
    if not isinstance(row, list):
        raise ValueError("a list is none")
    return row


def _text(row: Any) -> str:
    if not isinstance(row, str):
        raise ValueError("a text is none")
    return row


def _digest(row: Any) -> str:
    if not isinstance(row, str) or not _DIGEST.fullmatch(row):
        raise ValueError("a name of an object is none")
    return row


def _malformed(path: str, fact: str) -> IpbpError:
    return IpbpError(
        "patch-file-malformed",
        f"{path}: it is no patch, or damaged: {fact}",
        "Copy it again, or make it again with `hotpatch save` or `ipbp build-patch`.",
    )
