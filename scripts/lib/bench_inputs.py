"""Objects and executables of any size for measurements, made in seconds: a part is compiled once and then repeated.

The part is what gcc makes of ordinary code at -O2 with debug information and a section for each function and
variable: loops, calls and structures, and in every sixth function a switch with a jump table, strings, constants and
static variables. That is about what sqlite's single file has of each for a megabyte. `objcopy` gives every
copy its own names and `ld -r` puts the copies together without merging their sections, so the numbers of sections,
symbols and relocations grow with the size as a compiler's would.
"""

from __future__ import annotations

import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

FLAGS = ("-g", "-O2", "-ffunction-sections", "-fdata-sections")

_HEAD = """\
#include <stddef.h>
int printf(const char *, ...); int strcmp(const char *, const char *); void *memcpy(void *, const void *, size_t);
struct item { struct item *next; const char *name; long value; double weight; int kind; };
"""

_PLAIN = """\
struct record_{n} {{ int kind; struct item *head; char text[{room}]; }};
int work_{n}(struct item *list, int depth)
{{
    struct record_{n} here = {{ .kind = depth, .head = list }};
    struct item *last = NULL;
    long sum = 0, least = {n};
    for (struct item *it = list; it && depth < {room}; it = it->next) {{
        int twice = it->kind * 2 + {edit};
        if (it->value < least) {{ least = it->value; last = it; }}
        for (int at = 0; at < twice; at++) {{
            long part = sum ^ (it->value >> (at & 7));
            if (part & {factor}) sum += part * {n}; else sum -= it->name[at & 3];
            here.text[at & 7] = (char)part;
        }}
        while (last && last->kind > depth) {{ here.head = last; last = last->next; }}
    }}
    memcpy(&here.kind, here.text, sizeof here.kind);
    if (here.head && here.head->kind == {n}) return work_{other}(here.head, (int)sum);
    return here.kind + (int)sum + (last ? work_{other}(last, depth + 1) : {n});
}}
"""

_RICH = """\
static int calls_{n}; static const short table_{n}[] = {{ {n}, 2, 3, {factor} }}; int limit_{n} = {n};
int work_{n}(struct item *list, int depth)
{{
    static int entered;
    char text[{room}];
    int total = table_{n}[depth & 3] + {edit};
    if (depth <= 0) return calls_{n};
    entered++;
    for (struct item *it = list; it; it = it->next) {{
        switch (it->kind) {{
        case 0: total += (int)it->value * {factor}; break;
        case 1: printf("work {n}: item %s has %ld\\n", it->name, it->value); break;
        case 2: it->weight *= {n}.5; break;
        case 3: if (!strcmp(it->name, "name-{n}")) total ^= limit_{n}; break;
        case 4: memcpy(text, it->name, sizeof text); total += text[depth & 7]; break;
        case 5: calls_{n} += entered; break;
        default: total += work_{other}(it, depth - 1);
        }}
    }}
    return total;
}}
"""


@dataclass(frozen=True, slots=True)
class Part:
    """`plain` and `edited`: objects of one source, where one function differs. `compile_ms`: what gcc took for one."""

    plain: Path
    edited: Path
    compile_ms: float

    @property
    def size(self) -> int:
        return self.plain.stat().st_size


def make_part(folder: Path, functions: int) -> Part:
    """A part of so many functions, about 4.7 kB each."""
    objects, took = [], []
    for name, edit in (("plain", 0), ("edited", 1)):
        source = folder / f"{name}.c"
        source.write_text(source_of(functions, edit))
        start = time.perf_counter()
        subprocess.run(["gcc", *FLAGS, "-c", source, "-o", source.with_suffix(".o")], check=True)
        took.append((time.perf_counter() - start) * 1000)
        objects.append(source.with_suffix(".o"))
    return Part(objects[0], objects[1], min(took))


def make_pair(part: Part, megabytes: float, folder: Path) -> tuple[Path, Path]:
    """Two objects of about this size; one function of the new one differs."""
    count = max(1, round(megabytes * 1e6 / part.size))
    copies = _copies(part.plain, count, folder)
    middle = _prefixed(part.edited, count // 2, folder / f"edited-{count // 2}.o")
    old, new = folder / f"old-{count}.o", folder / f"new-{count}.o"
    for path, objects in ((old, copies), (new, [*copies[: count // 2], middle, *copies[count // 2 + 1 :]])):
        subprocess.run(["ld", "-r", "--unique", "-o", path, *objects], check=True)
    return old, new


def make_executable(part: Part, megabytes: float, folder: Path) -> Path:
    """An executable of about this size, with all its symbols and debug information. It is not meant to run."""
    # An object is about twice what it adds to an executable, which has no relocations and no section headers.
    per_copy = _link(part, 4, folder).stat().st_size / 4
    return _link(part, max(1, round(megabytes * 1e6 / per_copy)), folder)


def make_named(symbols: int, folder: Path) -> Path:
    """An executable of so many functions of eight bytes, every third one static, with names as long as C++ and Rust
    have them. It is not meant to run."""
    source = folder / "named.s"
    with source.open("w") as text:
        text.write(".text\n.globl _start\n_start: ret\n")
        for n in range(symbols):
            name = f"_ZN8ipbpbase6module{n % 97:02}7section11Collection{n:07}6insertERKNS_4ItemEm"
            scope = f".globl {name}\n" if n % 3 else ""
            text.write(f"{scope}.type {name}, @function\n.size {name}, 1\n.balign 8\n{name}: ret\n")
    program = source.with_suffix("")
    subprocess.run(["gcc", "-nostdlib", "-pie", "-Wl,--build-id", source, "-o", program], check=True)
    source.unlink()
    return program


def _link(part: Part, count: int, folder: Path) -> Path:
    path = folder / f"program-{count}"
    words = ["-nostdlib", "-pie", "-Wl,--unresolved-symbols=ignore-all", "-Wl,--build-id", "-Wl,-e,p0_work_0"]
    subprocess.run(["gcc", *words, "-o", path, *_copies(part.plain, count, folder)], check=True, stderr=subprocess.PIPE)
    return path


def _copies(plain: Path, count: int, folder: Path) -> list[Path]:
    return [_prefixed(plain, number, folder / f"copy-{number}.o") for number in range(count)]


def _prefixed(source: Path, number: int, path: Path) -> Path:
    if not path.exists():
        subprocess.run(["objcopy", f"--prefix-symbols=p{number}_", source, path], check=True)
    return path


def source_of(functions: int, edit: int) -> str:
    bodies = [
        (_PLAIN if n % 6 else _RICH).format(
            n=n,
            other=max(0, n - 1),
            room=8 + n % 40,
            factor=n % 13 + 2,
            edit=edit if n == functions // 2 else 0,
        )
        for n in range(functions)
    ]
    return _HEAD + "".join(bodies)
