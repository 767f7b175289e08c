"""What was done to a process, on disk: the truth that outlives the debugger.

One folder for each start of a program, one line for each event. A patch is written down before the first byte of it
is, so that whoever comes next can tell a finished patch from one that died half-way, and has what it takes to put
everything back. Lines are appended with one write each and never changed. They are not forced to the disk: a file
survives the death of its writer without that, and a machine that goes down takes the patched process along.

What the engine wants back with its next request (`PatchPlan.record`) can be large and is of use only while its patch
is the newest, so it lies in a file of its own.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import stat
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Optional

from ipbp.errors import IpbpError
from ipbp.host import procfs, tasks
from ipbp.host.private import is_ours, private_folder, write_private
from ipbp.protocol import FunctionChange, Hook, PatchedImage, PatchPlan, Replacement

APPLIED, UNFINISHED, UNDOING, UNDONE = "applied", "unfinished", "undoing", "undone"
ROLLED_BACK, RECLAIMING, RECLAIMED = "rolled-back", "reclaiming", "reclaimed"

_STATE_AFTER = {
    "begin": UNFINISHED,
    "commit": APPLIED,
    "rolled-back": ROLLED_BACK,
    "undoing": UNDOING,
    "undo-failed": APPLIED,
    "undone": UNDONE,
    "reclaiming": RECLAIMING,
    "reclaimed": RECLAIMED,
}
_RECORD = 1 << 20  # bytes that a large patch writes down
_LONG = 1 << 18
"""Bytes from which on the file is made shorter."""
_ELSEWHERE, _MONTH = "remote.", 30 * 24 * 3600
_NAMESPACE = "namespace"
_FOLDER_NAME = re.compile(r"([0-9a-f-]{36})\.(\d+)\.(\d+)\.([0-9a-f]{12})")


@dataclass(frozen=True)
class Patch:
    """A patch as the journal knows it; `plan.record` is left out. `memory_kept`: it was rolled back, but its
    segments could not be taken away, because code in them may have been called. `unloaded`: keys of its images that
    are gone since. `is_forgotten`: it was undone, and nothing that it had the program register is left."""

    plan: PatchPlan
    state: str
    memory_kept: bool = False
    unloaded: frozenset[str] = frozenset()
    is_forgotten: bool = False

    @property
    def number(self) -> int:
        return self.plan.number

    @property
    def is_in_force(self) -> bool:
        return self.state in (APPLIED, UNDOING)

    @property
    def is_unfinished(self) -> bool:
        """Begun and neither finished nor taken back: its debugger died."""
        return self.state in (UNFINISHED, UNDOING, RECLAIMING)

    @property
    def images(self) -> tuple[PatchedImage, ...]:
        """Those that are still loaded, as far as it was looked."""
        return tuple(image for image in self.plan.images if image.key not in self.unloaded)

    @property
    def changes(self) -> tuple[Replacement, ...]:
        """What it replaces, without what was unloaded."""
        return tuple(change for change in self.plan.replacements if self._is_there(change.image))

    @property
    def functions(self) -> tuple[FunctionChange, ...]:
        return tuple(row for row in self.plan.functions if self._is_there(row.image))

    @property
    def hooks(self) -> tuple[Hook, ...]:
        """Those that are still loaded."""
        return tuple(hook for hook in self.plan.hooks if hook.image < 0 or self._is_there(hook.image))

    @property
    def is_void(self) -> bool:
        """Whether nothing of it is left."""
        return bool(self.plan.images) and not self.images

    def changes_of(self, image: str) -> tuple[Replacement, ...]:
        """What it replaces in the image of this key."""
        return tuple(change for change in self.changes if self.plan.images[change.image].key == image)

    def _is_there(self, image: int) -> bool:
        return not self.unloaded or self.plan.images[image].key not in self.unloaded


@dataclass(frozen=True)
class Opening:
    """What the journal is told of a patch before it is applied, in the form that is written: it is made while the
    program still runs."""

    number: int
    line: bytes
    record: bytes


def open_entry(plan: PatchPlan) -> Opening:
    """The opening of a plan's entry."""
    row = {"event": "begin", "number": plan.number, "plan": replace(plan, record={}).to_json()}
    return Opening(plan.number, _encode(row) + b"\n", _encode(plan.record))


class Journal:
    """The journal in `folder`, which exists and is ours alone (`open_journal` sees to that)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._path = folder / "journal"
        self._parsed = 0  # bytes of the file that `_patches` stands for
        self._inode = 0  # of that file: another one takes its place when it is made shorter
        self._newest = 0  # the highest number that a patch left out of the file had
        self._kept: Optional[Opening] = None  # whose record is written
        self._patches: dict[int, Patch] = {}
        self._unloaded: list[tuple[str, int]] = []  # key of an image, number of the newest patch at that time
        self._inherited = (0, 0)  # number of the newest patch that the process was forked with, and from whom

    @property
    def pid(self) -> int:
        """Of its process; 0 where it is one of another machine."""
        match = _FOLDER_NAME.fullmatch(self.folder.name)
        return int(match[2]) if match else 0

    def is_empty(self) -> bool:
        """Nothing was ever written down."""
        return not self._path.exists()

    def rows(self) -> list[dict[str, Any]]:
        """All events, as they were written."""
        content = self._path.read_bytes() if self._path.exists() else b""
        return [json.loads(line) for line in content[: content.rfind(b"\n") + 1].splitlines()]

    def states(self) -> list[tuple[Patch, ...]]:
        """All patches as they were after each event."""
        replayed, found = Journal(self.folder), []
        for row in self.rows():
            replayed._take(_encode(row))
            found.append(tuple(replayed._patches.values()))
        return found

    def inherited_from(self, patch: Patch) -> int:
        """The process that was patched when this one was forked from it; 0 when this one was patched itself."""
        self._read()
        newest, pid = self._inherited
        return pid if patch.number <= newest else 0

    def patches(self) -> list[Patch]:
        """Those in force, oldest first."""
        return [patch for patch in self.open_patches() if patch.state != UNFINISHED]

    def open_patches(self) -> list[Patch]:
        """Those in force, and one that is half-way."""
        return [patch for patch in self._read() if patch.state in (APPLIED, UNDOING, UNFINISHED) and not patch.is_void]

    def all_patches(self) -> list[Patch]:
        """Those that were undone or rolled back as well, oldest first."""
        return self._read()

    def unfinished(self) -> Optional[Patch]:
        """The patch, its undo or the return of its memory that was begun and neither finished nor taken back."""
        return next((patch for patch in self._read() if patch.is_unfinished), None)

    def unloaded(self) -> list[str]:
        """Keys of images of which `latest_record` still tells and that are gone since."""
        patches = self.patches()
        return [key for key, number in self._unloaded if patches and number >= patches[-1].number]

    def next_number(self) -> int:
        """Numbers are never used twice: image files are named after them, and debuggers cache by file name."""
        numbers = [patch.number for patch in self._read()]
        return 1 + max([self._newest, *numbers])

    def latest_record(self) -> dict[str, Any]:
        """What the engine gave along with the newest patch in force; {} without one."""
        patches = self.patches()
        if not patches:
            return {}
        path = self._record_path(patches[-1].number)
        try:
            record = json.loads(path.read_bytes())
        except FileNotFoundError as error:
            pid = self.inherited_from(patches[-1])
            if not pid:
                raise _malformed(path, str(error)) from error
            raise IpbpError(
                "inherited-undone",
                f"process {self.pid} was forked with patch {patches[-1].number} of process {pid}, where it was undone"
                " since: what it was made of is gone",
                f"Undo it in process {self.pid}, too, then patch.",
            ) from error
        except (OSError, ValueError) as error:
            raise _malformed(path, str(error)) from error
        if not isinstance(record, dict):
            raise _malformed(path, "no JSON object")
        return record

    def latest_arenas(self) -> list[dict[str, Any]]:
        """What the engine said of its memory with the newest patch whose bytes may still be there; [] without one.
        Undone patches count: a thread may still run there."""
        kept = [patch for patch in self._read() if has_memory(patch)]
        return list(kept[-1].plan.arenas) if kept else []

    def entries(self) -> dict[int, bytes]:
        """For each place that is rewritten now, the bytes that must be there."""
        return {change.address: change.replacement for patch in self.patches() for change in patch.changes}

    def written_ranges(self) -> list[tuple[int, int]]:
        """All memory that any patch ever wrote its segments to and that was not wiped since. Undone patches
        count: a thread may still run there, and pointers to there may be anywhere."""
        return [
            (segment.address, segment.address + segment.size)
            for patch in self._read()
            if has_memory(patch)
            for segment in patch.plan.segments
        ]

    def require_writable(self) -> None:
        """Errors: `journal-unwritable`, when a patch could not be written down now."""
        path = self.folder / "space"
        try:
            path.write_bytes(bytes(_RECORD))
            path.unlink()
        except OSError as error:
            raise _unwritable(path, error) from error

    def keep_record(self, opening: Opening) -> None:
        """What `begin` would do as well, but while the program still runs: write the record of a patch to come."""
        if self._kept is opening:
            return
        path = self._record_path(opening.number)
        try:
            file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            try:
                _write_all(file, opening.record, 0)
            finally:
                os.close(file)
        except OSError as error:
            raise _unwritable(path, error) from error
        self._kept = opening

    def begin(self, opening: Opening) -> None:
        """From here on, bytes of the inferior may be those of this patch."""
        self.keep_record(opening)
        self._append(opening.line)

    def commit(self, number: int) -> None:
        """The patch is in force."""
        self._append_event({"event": "commit", "number": number})

    def rolled_back(self, number: int, memory_kept: bool) -> None:
        """Every byte of the program is as it was before the patch."""
        self._append_event({"event": "rolled-back", "number": number, "memory_kept": memory_kept})
        self._forget_record(number)

    def undoing(self, number: int) -> None:
        """From here on, bytes of the inferior may be those before this patch."""
        self._append_event({"event": "undoing", "number": number})

    def undo_failed(self, number: int) -> None:
        """The patch is in force, as before the attempt."""
        self._append_event({"event": "undo-failed", "number": number})

    def undone(self, number: int, is_forgotten: bool) -> None:
        """Every byte that the patch replaced is as it was before it. `is_forgotten`: so is what it had registered;
        where that comes later, it is told once more."""
        self._append_event({"event": "undone", "number": number, "forgotten": is_forgotten})
        self._forget_record(number)

    def reclaiming(self, number: int) -> None:
        """Nothing leads to the memory of an undone patch. From here on parts of it may be gone."""
        self._append_event({"event": "reclaiming", "number": number})

    def reclaimed(self, number: int) -> None:
        """The memory of an undone patch is zero again, or not mapped any more: nothing led there."""
        self._append_event({"event": "reclaimed", "number": number})

    def uses(self, start: int, end: int, besides: int) -> bool:
        """Whether another patch may have bytes in this range."""
        return any(
            start < segment.address + segment.size and segment.address < end
            for patch in self._read()
            if has_memory(patch) and patch.number != besides
            for segment in patch.plan.segments
        )

    def mapped_size(self) -> int:
        """Bytes of address space that were reserved for patches and still are."""
        return sum(block.size for patch in self._read() if has_memory(patch) for block in patch.plan.allocations)

    def forget(self, image: str, number: int) -> None:
        """The image of this key is gone, with what all patches up to this number did to it."""
        self._append_event({"event": "unloaded", "number": number, "image": image})

    def make_short(self) -> None:
        """Leave out what has been taken back and of which no memory is left, once the file has grown long: every
        command reads all of it."""
        patches = self._read()
        if self._parsed < _LONG or any(patch.is_unfinished for patch in patches):
            return
        kept = {patch.number for patch in patches if has_memory(patch)}
        newest = self.next_number() - 1
        lines = [line for line in self._path.read_bytes().splitlines(keepends=True) if _is_of(line, kept)]
        fresh = self._path.with_name(f"journal.{os.getpid()}")
        try:
            write_private(fresh, (_encode({"event": "newest", "number": newest}) + b"\n" + b"".join(lines)).decode())
            os.replace(fresh, self._path)
        except OSError as error:
            raise _unwritable(self._path, error) from error

    def _read(self) -> list[Patch]:
        content = self._unread()
        whole = content.rfind(b"\n") + 1  # what follows was cut off while it was written: it never happened
        for line in content[:whole].splitlines():
            self._take(line)
        self._parsed += whole
        return list(self._patches.values())

    def _unread(self) -> bytes:
        # What was appended since the last time.
        try:
            file = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            size, content = 0, b""
        else:
            try:
                status = os.fstat(file)
                if not (stat.S_ISREG(status.st_mode) and is_ours(status)):
                    raise _untrusted(self._path, "file")
                if status.st_ino != self._inode:
                    self._inode, self._parsed, self._patches, self._unloaded = status.st_ino, 0, {}, []
                    self._inherited = (0, 0)
                size = status.st_size
                content = os.pread(file, max(size - self._parsed, 0), self._parsed)
            finally:
                os.close(file)
        if size < self._parsed:
            raise _malformed(self._path, "it became shorter")
        return content

    def _take(self, line: bytes) -> None:
        try:
            row = json.loads(line)
            if row["event"] == "unloaded":
                self._take_unloaded(row["image"], row["number"])
                return
            if row["event"] == "newest":
                self._newest = row["number"]
                return
            if row["event"] == "inherited":
                self._inherited = row["number"], row["pid"]
                return
            number, state = row["number"], _STATE_AFTER[row["event"]]
            if row["event"] == "begin":
                self._patches[number] = Patch(PatchPlan.from_json(row["plan"]), state)
            elif number in self._patches:
                kept, forgotten = bool(row.get("memory_kept")), state == UNDONE and bool(row.get("forgotten"))
                patch = self._patches[number]
                self._patches[number] = replace(patch, state=state, memory_kept=kept, is_forgotten=forgotten)
        except (ValueError, KeyError, TypeError) as error:
            raise _malformed(self._path, f"{type(error).__name__}: {error}") from error

    def _take_unloaded(self, image: str, newest: int) -> None:
        self._unloaded.append((image, newest))
        for number, patch in self._patches.items():
            if number <= newest and image in [row.key for row in patch.plan.images]:
                self._patches[number] = replace(patch, unloaded=patch.unloaded | {image})

    def _append_event(self, row: dict[str, Any]) -> None:
        self._append(_encode(row) + b"\n")

    def _append(self, line: bytes) -> None:
        try:
            file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                _write_all(file, line, _cut_to_whole_lines(file))
            finally:
                os.close(file)
        except OSError as error:
            raise _unwritable(self._path, error) from error

    def _forget_record(self, number: int) -> None:
        self._kept = None
        try:
            os.unlink(self._record_path(number))
        except FileNotFoundError:  # `begin` did not get that far
            return
        except OSError as error:
            raise _unwritable(self._record_path(number), error) from error

    def _record_path(self, number: int) -> Path:
        return self.folder / f"record-{number}.json"


def open_journal(pid: int, remote: str = "") -> Journal:
    """The journal of a process of this machine, made when there is none; those of dead processes are removed, but none
    of another pid namespace, whose processes are not seen here (containers may share the folder). `remote`: names a
    process behind a remote stub. Where that is a `process_name`, it may be one of this machine after all; the journal
    of one of another machine is kept until it has not been used for a month. Where it is some other word, the journal
    lives as long as this debugger.

    Errors: `journal-untrusted` when its folder belongs to somebody else or is open to others: it says what to write
    into a process, so nobody else may have written it.
    """
    root = state_folder()
    _remove_dead(root)
    journal = Journal(_own_folder(root / folder_name(pid, remote)))
    _note_namespace(journal.folder / _NAMESPACE)
    os.utime(journal.folder)
    journal.make_short()
    return journal


def state_folder() -> Path:
    """Where ipbp keeps what must survive the debugger (XDG Base Directory Specification), made when missing."""
    base = os.environ.get("XDG_STATE_HOME") or os.path.join(os.path.expanduser("~"), ".local", "state")
    try:
        os.makedirs(base, exist_ok=True)
    except OSError as error:
        raise _unwritable(Path(base), error) from error
    return _own_folder(Path(base) / "ipbp")


def identity(pid: int, remote: str = "") -> str:
    """One name for each start of a program: a pid returns, and a process may replace its program (execve(2))."""
    unique = remote.encode() or procfs.auxiliary_vector(pid)
    return process_name(procfs.boot_id(), pid, procfs.start_time(pid), unique)


def process_name(boot: str, pid: int, start: int, auxiliary_vector: bytes) -> str:
    """What tells a process from every other one, on whatever machine: it was started at `start` after this boot."""
    return f"{boot}.{pid}.{start}.{_digest_of_vector(auxiliary_vector)}"


def folder_name(pid: int, remote: str) -> str:
    """Of the journal of this process, see `open_journal`: each program that it runs has a name of its own."""
    if not remote:
        return identity(pid)
    if not _FOLDER_NAME.fullmatch(remote):
        return identity(os.getpid(), remote)
    return remote if _is_here(pid, remote) else f"{_ELSEWHERE}{remote}"


def _is_here(pid: int, name: str) -> bool:
    try:
        return identity(pid) == name
    except IpbpError as error:
        if error.code in ("inferior-gone", "inferior-permission"):
            return False
        raise


def kin_of(folder: Path) -> list[Path]:
    """Journals of processes that the one of this journal may have been forked from, its parent's first: they have the
    same auxiliary vector. None for a process of another machine."""
    match = _FOLDER_NAME.fullmatch(folder.name)
    if match is None:
        return []
    found = []
    for path in folder.parent.iterdir():
        other = _FOLDER_NAME.fullmatch(path.name)
        if other and path != folder and (other[1], other[4]) == (match[1], match[4]) and _is_trusted(path):
            found.append((int(other[2]), path))
    parent = 0
    with contextlib.suppress(IpbpError):  # it has just ended
        parent = tasks.parent(int(match[2])) if len(found) > 1 else 0
    return [path for _, path in sorted(found, key=lambda row: (row[0] != parent, row[0]))]


def _is_trusted(path: Path) -> bool:
    status = path.lstat()
    return stat.S_ISDIR(status.st_mode) and is_ours(status)


def _encode(row: dict[str, Any]) -> bytes:
    return json.dumps(row, separators=(",", ":")).encode()


def _is_of(line: bytes, numbers: set[int]) -> bool:
    row = json.loads(line)
    return row["event"] in ("unloaded", "inherited") or row["number"] in numbers


def has_memory(patch: Patch) -> bool:
    """Whether its bytes may still be somewhere in the process."""
    return patch.state not in (ROLLED_BACK, RECLAIMED) or patch.memory_kept


def _own_folder(path: Path) -> Path:
    try:
        if private_folder(path):
            return path
    except OSError as error:
        raise _unwritable(path, error) from error
    raise _untrusted(path, "folder")


def _remove_dead(root: Path) -> None:
    boot = procfs.boot_id()
    heirs: Optional[frozenset[str]] = None
    for name in os.listdir(root):
        match = _FOLDER_NAME.fullmatch(name)
        is_over = match and not (match[1] == boot and _is_running(int(match[2]), int(match[3])))
        if is_over and match and match[1] == boot:
            if _namespace_of(root / name / _NAMESPACE) != _own_namespace():
                is_over = _is_unused(root / name)
            elif (root / name / "journal").exists():
                # A process that was forked from it has its patches in memory, and may not have been looked at yet.
                heirs = _vectors_of_running() if heirs is None else heirs
                is_over = match[4] not in heirs
        if is_over or (name.startswith(_ELSEWHERE) and _is_unused(root / name)):
            shutil.rmtree(root / name, ignore_errors=True)  # somebody else may be removing it, too


def _vectors_of_running() -> frozenset[str]:
    """Of all processes that may be looked at, what their journals' names end in."""
    found = set()
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(IpbpError):  # it has ended, or is somebody else's
                found.add(_digest_of_vector(procfs.auxiliary_vector(int(name))))
    return frozenset(found)


def _digest_of_vector(auxiliary_vector: bytes) -> str:
    return hashlib.sha256(auxiliary_vector).hexdigest()[:12]


def _note_namespace(note: Path) -> None:
    if not note.exists():
        try:
            write_private(note, _own_namespace())
        except OSError as error:
            raise _unwritable(note, error) from error


def _namespace_of(note: Path) -> str:
    try:
        return note.read_text()
    except FileNotFoundError:  # of an ipbp that did not note it
        return _own_namespace()


def _own_namespace() -> str:
    # Numbers of processes mean something in one of these only (pid_namespaces(7)).
    return os.readlink("/proc/self/ns/pid")


def _is_unused(folder: Path) -> bool:
    # Nobody here can tell whether a process of another machine or namespace has ended.
    try:
        return time.time() - folder.stat().st_mtime > _MONTH
    except FileNotFoundError:
        return False


def _is_running(pid: int, start: int) -> bool:
    try:
        return procfs.start_time(pid) == start
    except IpbpError as error:
        if error.code == "inferior-gone":
            return False
        raise


def _cut_to_whole_lines(file: int) -> int:
    # A line that was cut off can only be the last one: take it away before the next is written.
    size = os.fstat(file).st_size
    if size == 0 or os.pread(file, 1, size - 1) == b"\n":
        return size
    end = os.pread(file, size, 0).rfind(b"\n") + 1
    os.ftruncate(file, end)
    return end


def _write_all(file: int, content: bytes, offset: int) -> None:
    written = 0
    while written < len(content):
        written += os.pwrite(file, content[written:], offset + written)


def _malformed(path: Path, what: str) -> IpbpError:
    return IpbpError(
        "journal-malformed",
        f"{path} cannot be understood: {what}",
        "Restart the program; patches of this run can be neither undone nor continued.",
    )


def _untrusted(path: Path, what: str) -> IpbpError:
    return IpbpError(
        "journal-untrusted",
        f"{path} is not a {what} that only you can write to",
        "Remove it, or run the debugger as the user that it belongs to.",
    )


def _unwritable(path: Path, error: OSError) -> IpbpError:
    return IpbpError(
        "journal-unwritable",
        f"{path}: {error.strerror}",
        "Make room or permission there, or point XDG_STATE_HOME elsewhere.",
    )
