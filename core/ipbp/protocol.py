"""The messages between the plugin (in the debugger) and the engine (a process of its own).

One JSON object a line over two pipes, one request at a time. The plugin sends a request; the engine may answer
with any number of questions and progress lines before its one final answer:

    plugin -> engine   {"id": 7, "verb": "plan", "params": {...}}
    engine -> plugin   {"id": 7, "ask": "read", "params": {"ranges": [[address, size], ...]}}
    plugin -> engine   {"id": 7, "answer": {"bytes": ["<base64>" or null, ...]}}
    engine -> plugin   {"id": 7, "tell": "compiling draw.c"}
    engine -> plugin   {"id": 7, "result": {...}}   or   {"id": 7, "error": {"code": ..., "refusals": [...]}}

The engine has no message that writes to the inferior: it hands over one complete `PatchPlan`, and
`ipbp.host.transaction` applies it. Addresses and sizes are plain integers; short byte strings travel as hex.
The linked image itself does not travel: it is an ELF file on disk, and a segment names its part of the file.

Imported inside the debugger: Python 3.9, standard library only.
"""

from __future__ import annotations

from dataclasses import dataclass, field, is_dataclass
from typing import Any, Iterable, Optional, Sequence

PROTOCOL_VERSION = 1


@dataclass(frozen=True)
class Region:
    """One mapping of the inferior, as in /proc/PID/maps (proc_pid_maps(5)). `end` is exclusive."""

    start: int
    end: int
    protection: str  # a subset of "rwx", in that order
    offset: int = 0  # of `start` in the file
    path: str = ""  # "" for anonymous memory
    inode: int = 0


@dataclass(frozen=True)
class Description:
    """The inferior as a whole.

    `stopped` says whether it is stopped for the debugger now. `attached` is false when the debugger launched it.
    `local` says that /proc/PID of this machine is the inferior. `debug_folders`: where its debugger was told to look
    for separate debug files. `remote`: of one that is not local, what tells it from others of its debugger.
    """

    pid: int
    triple: str
    debugger: str  # "gdb 13.1", "lldb 19.1.7", "fake"
    executable: str
    stopped: bool
    attached: bool
    local: bool = True
    debug_folders: Sequence[str] = ()
    remote: str = ""

    @property
    def local_pid(self) -> int:
        """Its number in /proc of this machine; 0 where it is not there."""
        return self.pid if self.local else 0


@dataclass(frozen=True)
class Allocation:
    """Memory to be mapped at exactly `address` (whole pages); `protection` is "rx", "r" or "rw"."""

    address: int
    size: int
    protection: str


@dataclass(frozen=True)
class Segment:
    """Bytes of a patch file to be written at `address`. The memory there must be all zero before. `file`: which of
    the plan's files."""

    address: int
    size: int
    file_offset: int
    protection: str
    file: int = 0


@dataclass(frozen=True)
class PatchedImage:
    """One load of one file, in which code is replaced: mapped anew it is another one. [`start`, `end`): where it is
    mapped. `build_id` in hex, "" for none; `inode` of the file, 0 for none. `path` is for people: a file that is
    renamed while it is mapped changes it. `is_executable`: the program itself, which is never unloaded."""

    path: str
    start: int
    end: int
    inode: int = 0
    build_id: str = ""
    is_executable: bool = False

    @property
    def key(self) -> str:
        """What tells it from every other image that is loaded at the same time, in a word."""
        return f"{self.start:#x}.{self.build_id or self.inode}"


@dataclass(frozen=True)
class Replacement:
    """Bytes of the running program that change: `expected` must be there before, `replacement` is there after.

    Both have the same length. `name` is the function whose entry it is. `image`: which of the plan's images the
    function belongs to. `was_padding`: nothing ran there before, so no thread may be at its first byte either when it
    is taken back.
    """

    address: int
    expected: bytes
    replacement: bytes
    name: str
    image: int = 0
    was_padding: bool = False

    @property
    def interior(self) -> tuple[int, int]:
        """Where no thread may be when the old bytes come back. At the first byte of an entry it may: it will run
        the old instruction there as a whole."""
        return self.address + (not self.was_padding), self.address + len(self.expected)


@dataclass(frozen=True)
class Call:
    """A function called in the inferior at the safe point, after the segments and before the replacements.

    `result_at`: where its 8-byte result is stored (the slot of an indirect function), if anywhere.
    `on_undo`: the call is made when the patch is undone, not when it is applied. `says_so`: its result, a BOOLEAN of
    Windows, says whether it did what it was called for.
    """

    address: int
    arguments: tuple[int, ...]
    purpose: str
    result_at: Optional[int] = None
    on_undo: bool = False
    says_so: bool = False


@dataclass(frozen=True)
class Load:
    """A library that the program's own dynamic loader opens at the safe point, after the segments and before the
    calls. `file` is its path, `name` the address of that path as a C string in the patch, `flags` those of dlopen(3).
    `open`, `close`, `error`, `errno`: addresses of dlopen, dlclose, dlerror and __errno_location.

    `cell`: 0, or the address in the library of an 8-byte number that the loader leaves there, less than `limit`.
    `fields` get it: (address in the patch, width, what is added, bits, at, shift); where `bits` is not 0, so many of
    the field, from the bit `at`, get the sum from its bit `shift`. `shown`: fields of the debug information in the
    file `patch` that get it whole, (offset, width, what is added).
    """

    file: str
    name: int
    flags: int
    open: int
    close: int
    error: int
    errno: int
    cell: int = 0
    limit: int = 0
    fields: tuple[tuple[int, int, int, int, int, int], ...] = ()
    patch: str = ""
    shown: tuple[tuple[int, int, int], ...] = ()


@dataclass(frozen=True)
class Hook:
    """A function of the program that wants to know of the patch: it is called with the address of a description,
    `applied` or `undone` by what is happening. `is_before`: it is called before the replacements, else after them.
    `image`: which of the plan's images it is in, -1 for the program itself."""

    name: str
    address: int
    applied: int
    undone: int
    is_before: bool
    image: int = -1


@dataclass(frozen=True)
class Initialiser:
    """Code that runs once, in one thread, when the replacements are written: a function at `address` gives new
    variables their values. `variables`: which, for people; `file`: their source. `catcher`: 0, or the address of a
    function that calls it, with it and with `report` as arguments, and catches what it throws
    (`ipbp.arch.catcher`)."""

    address: int
    variables: tuple[str, ...]
    file: str
    catcher: int = 0
    report: int = 0


@dataclass(frozen=True)
class Quiet:
    """When functions of the program may be called while its threads are held: half-open ranges of code. In `held` no
    thread may be, nor return to there; in `moving` none may be but in a system call."""

    held: tuple[tuple[int, int], ...] = ()
    moving: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class FunctionChange:
    """One row of the report. `entry` is the address that callers and pointers use, `address` where it now runs.
    `old_size`: of the version before this one, 0 when there was none. `image`: which of the plan's images it belongs
    to. `linkage`: the name in the symbol table."""

    name: str
    status: str  # "changed", "new", "removed"
    reason: str
    file: str
    entry: int = 0
    address: int = 0
    size: int = 0
    old_size: int = 0
    image: int = 0
    linkage: str = ""


@dataclass(frozen=True)
class Text:
    """A source, by its absolute path, that was edited between the code that a patch replaces and the patch's own.
    `before`, `after`: what it was then, as names of files in the folder `sources` beside the journal (sha256); "" where
    nobody has it. `said`: where `before` is from, when it is not certain."""

    path: str
    before: str
    after: str
    said: str = ""


@dataclass(frozen=True)
class OldCaller:
    """Code of `caller` that must not be under way when what `callee` does changes, and why; `file`: of both. `start`
    and `size`: where it was before any patch; versions of earlier patches are meant as well, and the newest one unless
    it `is_same` as what this patch would make. `on_undo`: what is meant is this patch's own code, there, when the patch
    is undone. `way_out`: what else the user can do than wait, the end of a sentence."""

    caller: str
    callee: str
    file: str
    why: str
    start: int
    size: int
    is_same: bool = False
    on_undo: bool = False
    way_out: str = ""


@dataclass(frozen=True)
class SelectedFrame:
    """The frame that may go on in new code, as the debugger sees it. `mode`: "restart" or "remap", or "offer" to be
    told which of these are possible. `pc`: where it is or will return to; `level`: 0 for the innermost. `keeps_callee`:
    the calls inside of it go on. `takes_current`: arguments are passed as they are now. `file`: the patch file whose
    code it runs, "" for the program's own. `entry`: of that function, where patches tell. `newest`: address and patch
    file of the version that the entry leads to now, (0, "") when it was never patched.
    """

    mode: str
    pc: int
    level: int
    keeps_callee: bool = False
    takes_current: bool = False
    file: str = ""
    entry: int = 0
    newest: tuple[int, str] = (0, "")


@dataclass(frozen=True)
class FrameMove:
    """How that frame goes on at `target`: the CFA is the register `base` + `distance`, and places count from it.
    `stack`: the place of the stack pointer then. `saved`: registers that the frame keeps for its caller, (name, place);
    empty when it stays the same frame. `arguments`: (register, place, bytes). `copies`: variables that have another
    place in the new code, (old place, new place, bytes). `line` of the new `file`, for people.
    """

    function: str
    mode: str
    target: int
    base: str
    distance: int
    stack: int
    saved: tuple[tuple[str, int], ...] = ()
    arguments: tuple[tuple[str, int, int], ...] = ()
    file: str = ""
    line: int = 0
    copies: tuple[tuple[int, int, int], ...] = ()

    @staticmethod
    def from_json(row: dict[str, Any]) -> FrameMove:
        rows = {name: tuple(map(tuple, row.get(name, ()))) for name in ("saved", "arguments", "copies")}
        return FrameMove(**{**row, **rows})


@dataclass(frozen=True)
class PatchPlan:
    """All that the plugin needs to apply one patch. Nothing of it depends on the plugin's own judgement.

    `files`: paths of the patch as ELF files, linked at their final addresses, one for each arena. `images`: the
    loaded images whose code it replaces. `forbidden`: half-open ranges in which no thread's pc may be when the
    replacements are written. `times`: milliseconds by stage. `notes`: what the user should know (a changed
    initialiser that was not applied). `record`: what the engine wants back, as it is, in the journal of every later
    request while this patch is the newest in force (units, bindings). `arenas`: likewise which memory is taken once
    this patch was written, undone or not. Both are opaque to the plugin.
    `callers`: old code that must not be under way. `purpose`: "deopt" when all of it is there because the user wants
    units compiled without optimisation.
    `initialisers`: in the order in which they run. `hooks`: functions that are told of it. `quiet`: when the loads,
    calls, initialisers and hooks may be made. `reclaimable`:
    half-open ranges of all memory that the patch takes, if it can be given back once the patch is undone and nothing
    is found that points there; else empty. `texts`: sources that it was compiled from and the code before it was not.
    """

    number: int
    files: tuple[str, ...]
    allocations: tuple[Allocation, ...]
    segments: tuple[Segment, ...]
    replacements: tuple[Replacement, ...]
    calls: tuple[Call, ...]
    forbidden: tuple[tuple[int, int], ...]
    functions: tuple[FunctionChange, ...]
    data: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    times: dict[str, float] = field(default_factory=dict)
    record: dict[str, Any] = field(default_factory=dict)
    arenas: tuple[dict[str, Any], ...] = ()
    images: tuple[PatchedImage, ...] = ()
    loads: tuple[Load, ...] = ()
    quiet: Quiet = field(default_factory=Quiet)
    reclaimable: tuple[tuple[int, int], ...] = ()
    hooks: tuple[Hook, ...] = ()
    callers: tuple[OldCaller, ...] = ()
    initialisers: tuple[Initialiser, ...] = ()
    purpose: str = ""
    texts: tuple[Text, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As it is sent and written down. What is plain JSON already is the plan's own, and not to be changed."""
        return {name: _plain(value) for name, value in vars(self).items()}

    @staticmethod
    def from_json(row: dict[str, Any]) -> PatchPlan:
        return PatchPlan(
            number=row["number"],
            files=tuple(row["files"]),
            allocations=tuple(Allocation(**r) for r in row["allocations"]),
            segments=tuple(Segment(**r) for r in row["segments"]),
            replacements=tuple(
                Replacement(
                    r["address"],
                    bytes.fromhex(r["expected"]),
                    bytes.fromhex(r["replacement"]),
                    r["name"],
                    r["image"],
                    r["was_padding"],
                )
                for r in row["replacements"]
            ),
            calls=tuple(Call(**{**r, "arguments": tuple(r["arguments"])}) for r in row["calls"]),
            forbidden=tuple((start, end) for start, end in row["forbidden"]),
            functions=tuple(FunctionChange(**r) for r in row["functions"]),
            data=tuple(row["data"]),
            notes=tuple(row["notes"]),
            times=dict(row["times"]),
            record=dict(row["record"]),
            arenas=tuple(row["arenas"]),
            images=tuple(PatchedImage(**r) for r in row["images"]),
            loads=tuple(_load(r) for r in row.get("loads", ())),
            quiet=Quiet(**{name: _pairs(ranges) for name, ranges in row.get("quiet", {}).items()}),
            reclaimable=_pairs(row.get("reclaimable", ())),
            hooks=tuple(Hook(**r) for r in row.get("hooks", ())),
            callers=tuple(OldCaller(**r) for r in row.get("callers", ())),
            initialisers=tuple(_initialiser(r) for r in row.get("initialisers", ())),
            purpose=row.get("purpose", ""),
            texts=tuple(Text(**r) for r in row.get("texts", ())),
        )


def _plain(value: Any) -> Any:
    # dataclasses.asdict() copies every number by itself, which took a tenth of all that a small patch takes.
    if isinstance(value, tuple) and value and is_dataclass(value[0]):
        return tuple(map(_plain_row, value))
    return _plain_row(value) if is_dataclass(value) else value


def _plain_row(row: Any) -> dict[str, Any]:
    return {name: value.hex() if isinstance(value, bytes) else value for name, value in vars(row).items()}


def _initialiser(row: dict[str, Any]) -> Initialiser:
    return Initialiser(**{**row, "variables": tuple(row["variables"])})


def _load(row: dict[str, Any]) -> Load:
    columns = {name: tuple(map(tuple, row[name])) for name in ("fields", "shown")}
    return Load(**{**row, **columns})


def _pairs(rows: Iterable[Sequence[int]]) -> tuple[tuple[int, int], ...]:
    return tuple((start, end) for start, end in rows)
