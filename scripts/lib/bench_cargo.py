"""Cargo workspaces whose edits are measured: one crate of so many lines, and ten crates that use each other."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import bench_rust
import bench_witness
from bench_programs import Witnessed

CRATES = 10


class RustCrate(Witnessed):
    """A program of one large crate."""

    beyond = 100.0
    program = "target/debug/bench"

    def __init__(self, folder: Path, lines: int) -> None:
        super().__init__(folder)
        self.modules = max(1, lines // (20 * bench_rust.LINES_EACH))
        self.name = f"Rust crate, {lines:,} lines"

    def build(self) -> None:
        self.write()
        self.edit(0)
        self._cargo("", "target")

    def write(self) -> None:
        source = self._crate("bench", ())
        modules = _modules(source, self.modules)
        calls = "".join(f"    sum += part{number}::run(sum & 7);\n" for number in range(self.modules))
        every = f"fn every() -> u64 {{\n    let mut sum = 1;\n{calls}    sum\n}}\n"
        (source / "main.rs").write_text(modules + every + _main("every", f"part{self.modules // 2}"))
        self._workspace(["bench"])
        self._edited = source / f"part{self.modules // 2}.rs"
        self._text = self._edited.read_text()

    def edit(self, generation: int) -> None:
        body = f"    let generation = {generation};\n    generation\n"
        self._edited.write_text(f"{self._text}pub fn value() -> i64 {{\n{body}}}\n")

    def prepare(self, linker: str) -> None:
        self.link(linker)

    def compile(self) -> float:
        return 0.0

    def link(self, linker: str) -> None:
        flags = bench_rust.LINKERS[linker]
        self._cargo(flags, f"target-{linker}" if flags else "target")

    def rebuild(self) -> None:
        self._cargo("", "target")

    def _cargo(self, flags: str, target: str) -> None:
        self.program = f"{target}/debug/bench"
        environment = {**os.environ, "CARGO_TARGET_DIR": target}
        if flags:
            environment["RUSTFLAGS"] = flags
        words = ["cargo", "build", "--offline", "--quiet"]
        subprocess.run(words, cwd=self.folder, env=environment, check=True)

    def _crate(self, name: str, uses: tuple[str, ...]) -> Path:
        source = self.folder / name / "src"
        source.mkdir(parents=True)
        dependencies = "".join(f'{used} = {{ path = "../{used}" }}\n' for used in uses)
        text = f'[package]\nname = "{name}"\nversion = "0.1.0"\nedition = "2024"\n[dependencies]\n{dependencies}'
        (self.folder / name / "Cargo.toml").write_text(text)
        return source

    def _workspace(self, members: list[str]) -> None:
        rows = ", ".join(f'"{name}"' for name in members)
        (self.folder / "Cargo.toml").write_text(f'[workspace]\nmembers = [{rows}]\nresolver = "2"\n')


class RustWorkspace(RustCrate):
    """Nine libraries in a row, each of which uses the one before, and a program that uses all; the fourth is edited."""

    def __init__(self, folder: Path, lines: int) -> None:
        super().__init__(folder, lines // CRATES)
        self.name = f"workspace of {CRATES} crates, {lines:,} lines"

    def write(self) -> None:
        libraries = [f"stock{number}" for number in range(CRATES - 1)]
        for number, name in enumerate(libraries):
            source = self._crate(name, tuple(libraries[number - 1 : number]))
            before = f"{libraries[number - 1]}::every()" if number else "1"
            calls = "".join(f"    sum += part{part}::run(sum & 7);\n" for part in range(self.modules))
            every = f"pub fn every() -> u64 {{\n    let mut sum = {before};\n{calls}    sum\n}}\n"
            (source / "lib.rs").write_text(_modules(source, self.modules) + every)
            if number == 3:
                self._edited = source / f"part{self.modules // 2}.rs"
        program = self._crate("bench", tuple(libraries))
        (program / "main.rs").write_text(_main(f"{libraries[-1]}::every", f"stock3::part{self.modules // 2}"))
        self._workspace([*libraries, "bench"])
        self._text = self._edited.read_text()


def _modules(source: Path, count: int) -> str:
    for number in range(count):
        (source / f"part{number}.rs").write_text(bench_rust.module_text(number, count))
    return "".join(f"pub mod part{number};\n" for number in range(count))


def _main(every: str, edited: str) -> str:
    return f'{bench_witness.RUST}fn main() {{\n    println!("{{}}", {every}());\n    witness({edited}::value);\n}}\n'
