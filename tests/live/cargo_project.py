"""The market, a cargo workspace of three crates, its edits, and what it answers before and after each of them."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from scenario import PROGRAMS, Edit, edit_sources


@dataclass(frozen=True)
class CargoProject:
    """`folder`: of the workspace, built once. Every test finds the sources as they were built, with their times."""

    folder: Path
    program: Path
    original: Mapping[Path, tuple[bytes, int]]

    def edit(self, *edits: Edit) -> None:
        edit_sources(self.folder, edits)

    def restore(self) -> None:
        for path, (content, time) in self.original.items():
            path.write_bytes(content)
            os.utime(path, ns=(time, time))

    def cargo(self, *words: str) -> str:
        """What cargo prints."""
        done = subprocess.run(
            ["cargo", *words, "--offline"], cwd=self.folder, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stderr

    def files(self) -> dict[str, tuple[int, int]]:
        """Inode and time of every file below `target`."""
        found = sorted(path for path in (self.folder / "target").rglob("*") if path.is_file())
        return {str(path): (path.stat().st_ino, path.stat().st_mtime_ns) for path in found}


def build_cargo_project(
    folder: Path, *options: str, workspace: str = "market", settings: str = "", config: str = ""
) -> CargoProject:
    """Copy the workspace and `cargo build` it. `settings`: more of its Cargo.toml. `config`: its .cargo/config.toml."""
    shutil.copytree(PROGRAMS / workspace, folder)
    with (folder / "Cargo.toml").open("a") as manifest:
        manifest.write(settings)
    (folder / ".cargo").mkdir()
    (folder / ".cargo/config.toml").write_text(config)
    original = {}
    for path in folder.rglob("*.rs"):
        # Older than what is built of it, by more than a tick of the file system's clock.
        time = path.stat().st_mtime_ns - 10_000_000_000
        os.utime(path, ns=(time, time))
        original[path] = path.read_bytes(), time
    profile = "release" if "--release" in options else "debug"
    project = CargoProject(folder, folder / "target" / profile / workspace, original)
    if (folder / "Cargo.lock").exists():
        subprocess.run(["cargo", "fetch", "--quiet", "--locked"], cwd=folder, check=True)
    project.cargo("build", *options)
    return project


EDITS = (
    Edit("library", "parts/src/lib.rs", [("items * 10\n", "items * 10 - items / 2\n")], [("price 4", "40", "38")], []),
    Edit(
        "generic function of a library",
        "parts/src/lib.rs",
        [('format!("{value}{value}")', 'format!("{value}-{value}")')],
        [("twice ab", "abab", "ab-ab")],
        [],
    ),
    Edit(
        "statics keep what they hold",
        "parts/src/lib.rs",
        [('format!("{count} {first} {}", names.len())', 'format!("{count}/{first}/{}", names.len() * 10)')],
        [("tally x", "100 x 1", "101/x/20")],
        [],
    ),
    Edit(
        "thread-local variable",
        "parts/src/lib.rs",
        [("visits.set(visits.get() + 1);", "visits.set(visits.get() + 10);")],
        [("visits", "1", "11")],
        [],
    ),
    Edit(
        "method behind a table",
        "shapes/src/lib.rs",
        [("self.0 * self.0", "self.0 * self.0 + 1000")],
        [("areas", "19 shapeshape rectangle", "1019 shape-shape rectangle")],
        [],
    ),
    Edit(
        "closure that is stored",
        "market/src/main.rs",
        [("move |price| price + tax", "move |price| price + tax * 100")],
        [("rules 10", "15", "708")],
        [],
    ),
    Edit(
        "unwinding through a patched function",
        "market/src/main.rs",
        [
            ('_second = Told("b", log);\n', '_second = Told("B", log);\n    let _third = Told("c", log);\n'),
            ('panic!("too many: {number}")', 'panic!("far too many: {number}")'),
        ],
        [("survive 9", "too many: 9 ba", "far too many: 9 cBa"), ("survive 3", "3 ba", "3 cBa")],
        [],
    ),
    Edit(
        "functions of std that the program had not used",
        "market/src/main.rs",
        [
            (
                "    text.to_string()\n}",
                "    let mut found: Vec<&str> = text.split_whitespace().collect();\n"
                "    found.sort_unstable_by_key(|word| std::cmp::Reverse(word.len()));\n"
                '    found.join("+").to_uppercase()\n}',
            )
        ],
        [("words a ccc bb", "a ccc bb", "CCC+BB+A")],
        [],
    ),
)


@dataclass(frozen=True)
class Bad:
    """An edit that must be refused. `code` and `symbol` of the refusal."""

    edit: Edit
    code: str
    symbol: str


MAIN, PARTS, SHAPES = "market/src/main.rs", "parts/src/lib.rs", "shapes/src/lib.rs"


def _bad(name: str, file: str, replace: Sequence[tuple[str, str]], code: str, symbol: str) -> Bad:
    return Bad(Edit(name, file, replace, [], []), code, symbol)


REFUSED = (
    _bad(
        "field added",
        MAIN,
        [("    open: bool,\n", "    open: bool,\n    spent: u64,\n"), ("open: true }", "open: true, spent: 0 }")],
        "layout-changed",
        "market::Till",
    ),
    _bad(
        "field of another type",
        MAIN,
        [
            ("    coins: u64,", "    coins: i64,"),
            ("till.coins += coins;", "till.coins += coins as i64;"),
            ("    till.coins\n", "    till.coins as u64\n"),
        ],
        "layout-changed",
        "market::Till",
    ),
    _bad(
        "field removed",
        MAIN,
        [
            ("    open: bool,\n", ""),
            ("    if till.open {\n        till.coins += coins;\n    }\n", "    till.coins += coins;\n"),
            (", open: true }", " }"),
        ],
        "layout-changed",
        "market::Till",
    ),
    _bad(
        "variants in another order",
        MAIN,
        [("    Cash,\n    Card { limit: u64 },\n", "    Card { limit: u64 },\n    Cash,\n")],
        "layout-changed",
        "market::Means",
    ),
    _bad(
        "variant added",
        MAIN,
        [("    Cash,\n", "    Cash,\n    Cheque(u64),\n"), ("Means::Cash => ", "Means::Cheque(_) | Means::Cash => ")],
        "layout-changed",
        "market::Means",
    ),
    _bad(
        "method of a trait that is called through a table",
        SHAPES,
        [
            (
                "    fn area(&self) -> u64;\n",
                "    fn area(&self) -> u64;\n\n    fn edges(&self) -> u64 {\n        4\n    }\n",
            )
        ],
        "layout-changed",
        "<shapes::Square as shapes::Shape>::{vtable_type}",
    ),
    _bad(
        "static of another type",
        PARTS,
        [
            ("static COUNT: AtomicU64 = AtomicU64::new(100);", "static COUNT: AtomicI64 = AtomicI64::new(100);"),
            ("{AtomicU64, Ordering}", "{AtomicI64, Ordering}"),
        ],
        "variable-type-changed",
        "parts::COUNT",
    ),
)
