"""What reads bytes that somebody else wrote, each as a function of bytes: it returns, or raises `IpbpError`.

`seeds` are good inputs, from which bad ones are made. Anything else that is raised is a bug: in the engine it would be
shown as one, and in the plugin it would cost the command.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import shutil
import subprocess
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ipbp.build.cargo_settings import unusual_settings
from ipbp.build.compile_commands import read_database
from ipbp.build.config import read_config
from ipbp.build.crate_changes import made_from
from ipbp.build.depfile import dependencies_of
from ipbp.build.producer import include_folders, source_units
from ipbp.build.shell import NeedsShell, simple_command
from ipbp.build.snapshot import Snapshot
from ipbp.engine import session
from ipbp.engine.channel import Channel
from ipbp.errors import IpbpError
from ipbp.formats import coff_image, macho_image
from ipbp.formats.elf_archive import read_unit
from ipbp.formats.objects import read_any_object
from ipbp.graph.image import LoadedImage
from ipbp.host import client
from ipbp.host.journal import Journal, open_entry
from ipbp.patch_file import ListedFunction, PatchedBuild, PatchFile, UnitChange, pack, unpack
from ipbp.protocol import Allocation, FunctionChange, PatchPlan, Replacement, Segment

_C = """
struct point { int x, y; long many[3]; };
static struct point here = {1, 2, {3}};
static const char *names[] = {"one", "two", "three"};
_Thread_local int mine;
extern int outside(struct point *);
int one(int x) { static int count; count += x + mine++; return count + outside(&here); }
int two(int x) { switch (x) { case 1: return one(x); case 2: return 5; case 3: return *names[x]; default: return 7; } }
"""
_CXX = """
struct Base { virtual int f(int) { return 1; } virtual ~Base() {} };
template <typename T> struct Held : Base { T held; int f(int x) override { if (x) throw x; return int(held); } };
int use(Base &b) { try { return b.f(3); } catch (int e) { return e; } }
int made() { Held<long> h; auto plus = [&](int x) { return h.f(x); }; return plus(0); }
"""
_PLAN = PatchPlan(
    number=1,
    files=("/tmp/patch-1.elf",),
    allocations=(Allocation(0x10000, 4096, "rx"),),
    segments=(Segment(0x10000, 16, 64, "rx"),),
    replacements=(Replacement(0x1000, b"\x90" * 5, b"\xe9\1\2\3\4", "blit"),),
    calls=(),
    forbidden=((0x1001, 0x1005),),
    functions=(FunctionChange("blit", "changed", "its code", "draw.c", 0x1000, 0x10000, 16),),
    record={"units": {}},
    arenas=({"used": 1},),
)


@dataclass(frozen=True)
class Target:
    """`what` it reads, in words."""

    what: str
    run: Callable[[bytes], object]
    seeds: Callable[[], Sequence[bytes]]


@cache
def _compiled() -> tuple[bytes, ...]:
    found = []
    for compiler, suffix, text in (("gcc", "c", _C), ("g++", "cpp", _CXX)):
        for flags in (["-O0", "-g"], ["-O2", "-ffunction-sections", "-fPIC"]):
            with tempfile.TemporaryDirectory() as folder:
                source, made = Path(folder, f"a.{suffix}"), Path(folder, "a.o")
                source.write_text(text)
                subprocess.run([compiler, *flags, "-c", source, "-o", made], check=True)
                found.append(made.read_bytes())
    return tuple(found)


@cache
def _foreign(linker: str) -> tuple[bytes, ...]:
    """Mach-O and COFF objects; with a linker, images of one of each."""
    found = []
    clang = next(name for name in ("clang", *(f"clang-{n}" for n in range(25, 13, -1))) if shutil.which(name))
    for triple in ("x86_64-apple-macos11", "arm64-apple-macos11", "x86_64-pc-windows-msvc", "aarch64-pc-windows-msvc"):
        for suffix, text, *flags in (("c", _C, "-O1", "-g"), ("cpp", _CXX, "-O2", "-fcxx-exceptions", "-fexceptions")):
            with tempfile.TemporaryDirectory() as folder:
                source, made = Path(folder, f"a.{suffix}"), Path(folder, "a.o")
                source.write_text(text)
                subprocess.run([clang, f"--target={triple}", "-w", *flags, "-c", source, "-o", made], check=True)
                if not linker:
                    found.append(made.read_bytes())
                elif suffix == "c" and ("apple" in triple) == (linker == "ld64.lld"):
                    image = Path(folder, "a.out")
                    options = ["-arch", triple.split("-")[0], "-platform_version", "macos", "11.0", "11.0", "-dylib"]
                    options += ["-undefined", "dynamic_lookup", "-o", image]
                    if linker == "lld-link":
                        options = ["/dll", "/noentry", "/force", "/debug:symtab", "/nodefaultlib", f"/out:{image}"]
                    name = next(n for n in (linker, *(f"{linker}-{v}" for v in range(25, 13, -1))) if shutil.which(n))
                    subprocess.run([name, *options, made], check=False, capture_output=True)
                    found.append(image.read_bytes())
    return tuple(found)


def _foreign_object(content: bytes) -> None:
    graph = read_any_object(content, "a.o")
    for section in graph.side:
        assert section.content is not None


def _foreign_image(read: Callable[[bytes, str], LoadedImage]) -> Callable[[bytes], object]:
    def run(content: bytes) -> object:
        image = read(content, "a.out")
        return [image.original(part.start, min(part.end - part.start, 1 << 16)) for part in image.parts]

    return run


@cache
def _linked() -> tuple[bytes, ...]:
    with tempfile.TemporaryDirectory() as folder:
        source, made = Path(folder, "a.c"), Path(folder, "a.so")
        source.write_text(_C)
        subprocess.run(["gcc", "-g", "-fPIC", "-shared", source, "-o", made], check=True)
        return (made.read_bytes(),)


def _object(content: bytes) -> None:
    read_unit(content, "a.o")


def _with_file(name: str, act: Callable[[Path], object]) -> Callable[[bytes], object]:
    def run(content: bytes) -> object:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            return act(path)

    return run


def _debug_information(path: Path) -> None:
    source_units(path)
    include_folders(path)


def _journal(path: Path) -> None:
    journal = Journal(path.parent)
    path.chmod(0o600)
    journal.open_patches()
    journal.entries()
    journal.written_ranges()
    journal.latest_arenas()
    journal.next_number()
    journal.unloaded()


def _journal_seeds() -> list[bytes]:
    rows = [open_entry(_PLAN).line]
    for event in ("commit", "undoing", "undone", "reclaiming", "reclaimed", "rolled-back"):
        rows.append(json.dumps({"event": event, "number": 1}).encode() + b"\n")
    rows.append(b'{"event":"unloaded","number":1,"image":"x"}\n')
    return [b"".join(rows), rows[0] + rows[1], rows[0], rows[0] + rows[-1] + b'{"event":"newest","number":4}\n']


def _shell(content: bytes) -> None:
    with contextlib.suppress(NeedsShell):  # which becomes a refusal
        simple_command(content.decode("utf-8", "surrogateescape"))


def _requests(content: bytes) -> None:
    """Whatever comes, each line is answered or ends the engine's input."""
    answers = io.BytesIO()
    session.serve(Channel(io.BytesIO(content), answers))
    for line in answers.getvalue().splitlines():
        row = json.loads(line)
        assert isinstance(row, dict)
        assert (row.get("error") or {}).get("code") != "engine-bug", row["error"]["detail"]


def _answers(content: bytes) -> None:
    """What an engine may say to the plugin."""
    for line in content.splitlines():
        with contextlib.suppress(IpbpError):  # whose words may be the engine's
            client.result_of(client.parsed(line), None)


_REQUESTS = (
    b'{"id":1,"verb":"hello","params":{"protocol":1}}\n{"id":2,"verb":"agree","params":{"hash":"x"}}\n',
    b'{"id":3,"verb":"nothing","params":{}}\n',
)
_ANSWERS = (
    b'{"id":1,"result":{"outcome":"planned"}}\n',
    b'{"id":1,"error":{"code":"a","fact":"b","advice":"c","detail":"d"}}\n',
    b'{"id":1,"error":{"code":"refused","fact":"b","advice":"c","refusals":[{"code":"x","fact":"y","advice":"z"}]}}\n',
    b'{"id":1,"error":{"code":"agreement-needed","fact":"b","advice":"c","detail":"d","hash":"e"}}\n',
)
_DATABASE = (
    b'[{"directory":"/a","file":"b.c","command":"gcc -O2 \'-DX=\\"1\\"\' -c b.c -o b.o","output":"b.o"}]',
    b'[{"directory":"/a","file":"/x/b.c","arguments":["ccache","gcc","@r.rsp","-c","b.c"]},{"directory":"/"}]',
)
_DEPFILE = (b"a.o: a.c /usr/include/x\\ y.h \\\n  b\\#c.h $$d\n\na.c:\n", b"x.o y.o: \\\r\n z.c\n")
_DEP_INFO = (b"/t/a.d: src/lib.rs src/b\\ c.rs\n\nsrc/lib.rs:\n\n# env-dep:CARGO_X=1\n# env-dep:Y\n",)
_CONFIG = (
    b'[build]\ncommand = ["make", "-j2"]\ndirectory = "."\nobjects = { "src/{name}.c" = "obj/{name}.o" }\n',
    b'[build]\ncompile_commands = "out/compile_commands.json"\n',
)
_CARGO = (
    b'[build]\nrustc-wrapper = "x"\nrustflags = ["-C", "linker=y"]\n'
    b'[target.x86]\nrustflags = "-Zplugin"\n[env]\nA = "b"\n',
)


def _patch_seeds() -> list[bytes]:
    """Packed, and packed without compression, so that what is damaged is the text inside."""
    objects = {hashlib.sha256(row).hexdigest(): row for row in (b"old", b"new")}
    new, old = objects
    patch = PatchFile(
        images=(PatchedBuild("0a1b", "talk", "x86_64", True),),
        units=(UnitChange(0, "/a/talk.c", new, old, dependencies={"/a/talk.c": ""}, flags=("-O0",)),),
        functions=(ListedFunction("f", "f", "changed", "the code differs", "/a/talk.c", 0),),
        data=("count",),
        notes=("a note",),
        objects=objects,
    )
    packed, stored = pack(patch), io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(packed)) as file, zipfile.ZipFile(stored, "w") as plain:
        for name in file.namelist():
            plain.writestr(name, file.read(name))
    return [packed, stored.getvalue()]


TARGETS = {
    "object": Target("object files", _object, _compiled),
    "foreign": Target("Mach-O and COFF objects", _foreign_object, lambda: _foreign("")),
    "macho-image": Target("images of Mach-O", _foreign_image(macho_image.read_image), lambda: _foreign("ld64.lld")),
    "pe-image": Target("images of PE", _foreign_image(coff_image.read_image), lambda: _foreign("lld-link")),
    "debug": Target("debug information of programs", _with_file("a.so", _debug_information), _linked),
    "requests": Target("requests to the engine", _requests, lambda: _REQUESTS),
    "answers": Target("answers to the plugin", _answers, lambda: _ANSWERS),
    "journal": Target("journals", _with_file("journal", _journal), _journal_seeds),
    "patch-file": Target("patch files", lambda content: unpack(content, "talk.patch"), _patch_seeds),
    "database": Target("compile_commands.json", _with_file("compile_commands.json", read_database), lambda: _DATABASE),
    "shell": Target("command lines", _shell, lambda: _DATABASE),
    "depfile": Target("depfiles", dependencies_of, lambda: _DEPFILE),
    "dep-info": Target(
        "cargo's dep-info", _with_file("a.d", lambda p: made_from(p, "/t", Snapshot())), lambda: _DEP_INFO
    ),
    "config": Target("ipbp.toml", _with_file("ipbp.toml", read_config), lambda: _CONFIG),
    "cargo": Target(
        "cargo's settings", _with_file(".cargo/config.toml", lambda p: unusual_settings(p.parents[1])), lambda: _CARGO
    ),
}


def survives(target: Target, content: bytes) -> None:
    """Raises what is no `IpbpError`."""
    try:
        target.run(content)
    except IpbpError as error:
        if not (error.fact and error.advice):
            raise AssertionError("an error that does not say what to do") from error
