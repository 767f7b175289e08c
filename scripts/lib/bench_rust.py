"""How long it takes from an edit of a Rust crate to a plan, beside what `cargo build` takes for the same edit.

Crates of about ordinary code are generated: modules with a type, a trait, closures, collections and formatting in
each. A function that is not generic gets one line more, and that is planned against the running program, each round
anew. `rustc` is the compiler's own time, from its start to its end, without what ipbp puts around and into it
(`aside`: the mounts that it runs in, and the script in its linker's place). `ours` is all the rest of the way from the
request to the plan, `cpu` the processor time of it in this process, and `build` what of it is done around the compiler.
The first plan of a program asks cargo for the commands; it is shown apart, and so is its compile, which is as warm as
the others where ipbp may have mounts of its own (`build/in_place.py`). The stop that follows has a part of its own.

The projects are git repositories, as `cargo new` makes them, but for one: without the text of before, the crates that
use an edited library are compiled again as well.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from ipbp.build import rustc_run
from ipbp.build.cargo_commands import CrateCommand
from ipbp.build.run import run_to_end
from ipbp.build.workshop import Workshop
from ipbp.cli.bystander import Bystander
from ipbp.engine.garbage import look_seldom
from ipbp.engine.turns import take_short_turns
from ipbp.formats.elf_file import load_lief
from ipbp.host.commands import plan_params
from ipbp.host.journal import open_journal
from ipbp.pipeline.order import make_plan
from ipbp.pipeline.request import Request

LINES_EACH = 25
"""Of a function with what belongs to it."""
LINKERS = {
    "bfd": "-C linker-features=-lld -C link-arg=-fuse-ld=bfd",
    "lld": "",  # what rustc takes by itself
    "mold": "-C linker-features=-lld -C link-arg=-fuse-ld=mold",
}
TARGETS = {"small": 60.0, "large": 150.0, "library": 150.0, "no git": 150.0}
"""Milliseconds beyond rustc's own that are aimed at."""
LIBRARIES = ("library", "no git")
SMALL = 500
"""Lines of the small crate."""


@dataclass(frozen=True, slots=True)
class Row:
    """Milliseconds, medians. `shape`: "small" and "large" are programs of one crate, of the others the edited crate is
    a library of a small program. `first`: all of the first plan without rustc's time, which is `first_rustc`.
    `cargo`: `cargo build` after such an edit, by linker."""

    shape: str
    lines: int
    rustc: float
    aside: float
    build: float
    diff: float
    link: float
    ours: float
    cpu: float
    least: float
    first: float
    first_rustc: float
    target: float
    cargo: dict[str, float]


HEAD = (
    "crate      lines   rustc   aside   build    diff    link    ours     cpu   least   first +rustc  target   "
    "cargo build with bfd, lld, mold"
)


def line(row: Row) -> str:
    numbers = f"{row.rustc:7.0f} {row.aside:7.1f} {row.build:7.1f} {row.diff:7.1f} {row.link:7.1f} {row.ours:7.1f}"
    numbers += f" {row.cpu:7.1f} {row.least:7.1f}"
    cargo = ", ".join(f"{milliseconds:.0f}" for milliseconds in row.cargo.values())
    return f"{row.shape:8} {row.lines:7} {numbers} {row.first:7.0f} {row.first_rustc:6.0f} {row.target:7.0f}   {cargo}"


@contextlib.contextmanager
def own_cache(folder: Path) -> Iterator[None]:
    """What ipbp keeps goes where it is thrown away, on the file system of the project."""
    before = {name: os.environ.get(name) for name in ("XDG_CACHE_HOME", "XDG_STATE_HOME")}
    os.environ.update({name: str(folder / name) for name in before})
    load_lief()  # as an engine that runs has
    look_seldom()
    take_short_turns()
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def measure(folder: Path, shape: str, rounds: int, lines: int) -> Row:
    """A row for one shape of project."""
    project = Project(folder / shape, shape, lines)
    project.write()
    project.build()
    cargo = {name: project.cargo_build(flags, rounds) for name, flags in LINKERS.items()} if rounds else {}
    project.build()
    program = subprocess.Popen([project.program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert program.stdout is not None
        program.stdout.readline()
        plans = [_plan(program.pid, project) for _ in range(rounds + 1)]
    finally:
        program.kill()
        program.wait()
    first, rest = plans[0], plans[1:] or plans
    return Row(
        shape,
        project.lines,
        median(row["rustc"] for row in rest),
        median(row["aside"] for row in rest),
        median(row["whole"] - row["rustc"] - row["aside"] - row["diff"] - row["link"] for row in rest),
        median(row["diff"] for row in rest),
        median(row["link"] for row in rest),
        median(row["whole"] - row["rustc"] for row in rest),
        median(row["cpu"] for row in rest),
        min(row["whole"] - row["rustc"] for row in rest),
        first["whole"] - first["rustc"],
        first["rustc"],
        TARGETS[shape],
        cargo,
    )


def _plan(pid: int, project: Project) -> dict[str, float]:
    """Milliseconds by stage, of the whole, of rustc and of what is ours about it, for one more edit."""
    project.edit()
    inferior, journal = Bystander(pid), open_journal(pid)
    with _watched() as compilers:
        start, cpu = time.perf_counter(), time.process_time()
        params = plan_params(inferior.describe(), inferior.regions(), journal, False, {})
        outcome = make_plan(Request.from_json(params), inferior.read_ranges, lambda line: None)
        whole, cpu = (time.perf_counter() - start) * 1000, (time.process_time() - cpu) * 1000
    if outcome.plan is None or len(outcome.plan.functions) != 1:
        raise SystemExit(f"the plan is wrong: {outcome}")
    aside = sum(row.aside() for row in compilers)
    rustc = sum(row.milliseconds for row in compilers) - aside
    return {**outcome.plan.times, "whole": whole, "cpu": cpu, "rustc": rustc, "aside": aside}


@dataclass(frozen=True, slots=True)
class _Compile:
    """One start of a compiler: what was started, and the milliseconds until it ended."""

    crate: CrateCommand
    words: Sequence[str]
    environment: Mapping[str, str]
    milliseconds: float

    def aside(self) -> float:
        """Milliseconds of it that are not rustc's: the same done once more, without rustc."""
        before = self.words[: self.words.index(self.crate.arguments[0])]
        found = self._time([*before, "true"], self.environment) - self._time(["true"], self.environment)
        if self.crate.is_linked_here:
            found += self._linking()
        return found

    def _linking(self) -> float:
        linker = next(word.partition("=")[2] for word in self.words if word.startswith("linker="))
        linked = Workshop(Path(linker).parent).linked(self.crate)
        words = [linker, *map(os.fsdecode, linked.read_bytes().split(b"\0")[:-2])]
        with tempfile.TemporaryDirectory(dir=linked.parents[1]) as again:
            return self._time(words, {**self.environment, "IPBP_OBJECTS": again})

    def _time(self, words: Sequence[str], environment: Mapping[str, str]) -> float:
        start = time.perf_counter()
        status, said = run_to_end(words, self.crate.directory, environment)
        if status != 0:
            raise SystemExit(said)
        return (time.perf_counter() - start) * 1000


class _watched:
    """The compilers that run meanwhile."""

    def __enter__(self) -> list[_Compile]:
        self._started: Callable[..., tuple[int, str]] = rustc_run._started
        spent: list[_Compile] = []

        def started(row: CrateCommand, words: Sequence[str], environment: Mapping[str, str]) -> tuple[int, str]:
            start = time.perf_counter()
            try:
                return self._started(row, words, environment)
            finally:
                spent.append(_Compile(row, words, environment, (time.perf_counter() - start) * 1000))

        rustc_run._started = started
        return spent

    def __exit__(self, *_: object) -> None:
        rustc_run._started = self._started


class Project:
    """A generated workspace with a program "bench"; `lines`: of its large crate, about."""

    def __init__(self, folder: Path, shape: str, lines: int) -> None:
        self.folder, self.shape = folder, shape
        self.modules = max(1, lines // (20 * LINES_EACH))

    @property
    def program(self) -> Path:
        return self.folder / "target/debug/bench"

    @property
    def _large(self) -> Path:
        return self.folder / ("stock/src" if self.shape in LIBRARIES else "bench/src")

    @property
    def lines(self) -> int:
        return sum(len(path.read_text().splitlines()) for path in self._large.glob("*.rs"))

    def write(self) -> None:
        members = ["bench", "stock"] if self.shape in LIBRARIES else ["bench"]
        for name in members:
            (self.folder / name / "src").mkdir(parents=True)
            uses = (
                '[dependencies]\nstock = { path = "../stock" }\n' if members[-1] == "stock" and name == "bench" else ""
            )
            text = f'[package]\nname = "{name}"\nversion = "0.1.0"\nedition = "2024"\n{uses}'
            (self.folder / name / "Cargo.toml").write_text(text)
        rows = ", ".join(f'"{name}"' for name in members)
        (self.folder / "Cargo.toml").write_text(f'[workspace]\nmembers = [{rows}]\nresolver = "2"\n')
        for number in range(self.modules):
            (self._large / f"part{number}.rs").write_text(module_text(number, self.modules))
        modules = "".join(f"pub mod part{number};\n" for number in range(self.modules))
        calls = "".join(f"    sum += part{number}::run(sum & 7);\n" for number in range(self.modules))
        every = f"pub fn every() -> u64 {{\n    let mut sum = 1;\n{calls}    sum\n}}\n"
        start = MAIN.replace("every()", "stock::every()" if self.shape in LIBRARIES else "every()")
        if self.shape in LIBRARIES:
            (self._large / "lib.rs").write_text(modules + every)
            (self.folder / "bench/src/main.rs").write_text(start)
        else:
            (self._large / "main.rs").write_text(modules + every + start)
        if self.shape != "no git":
            (self.folder / ".gitignore").write_text("target*\n")
            who = ("-c", "user.name=bench", "-c", "user.email=bench@localhost")
            for words in (("init", "-q"), ("add", "."), (*who, "commit", "-q", "-m", "made")):
                subprocess.run(["git", *words], cwd=self.folder, check=True)

    def edit(self) -> None:
        """One line more in a function of the middle module, so that what follows is somewhere else as well."""
        path = self._large / f"part{self.modules // 2}.rs"
        more = r"    let edited = edited + 1;\n\g<0>"
        path.write_text(re.sub(r"    let mut item = Item::default\(\);  // 11\n", more, path.read_text()))

    def build(self, flags: str = "", target: str = "target") -> float:
        """Milliseconds of `cargo build`."""
        environment = {**os.environ, "CARGO_TARGET_DIR": str(self.folder / target)}
        if flags:
            environment["RUSTFLAGS"] = flags
        start = time.perf_counter()
        done = subprocess.run(
            ["cargo", "build", "--offline"], cwd=self.folder, env=environment, stderr=subprocess.PIPE, text=True
        )
        if done.returncode != 0:
            raise SystemExit(done.stderr)
        return (time.perf_counter() - start) * 1000

    def cargo_build(self, flags: str, rounds: int) -> float:
        """Median of `cargo build` after an edit, in a target directory of its own."""
        target = f"target-{abs(hash(flags))}" if flags else "target"
        self.build(flags, target)
        found = []
        for _ in range(rounds):
            self.edit()
            found.append(self.build(flags, target))
        return median(found)


def module_text(number: int, modules: int) -> str:
    functions = "".join(
        (_PLAIN if n % 5 else _RICH).format(n=n, m=number, f=n % 7 + 2, r=n % 5, before=max(0, n - 1))
        for n in range(20)
    )
    calls = "".join(f"    sum = sum.wrapping_add(work{n}(seed + {n}));\n" for n in range(20))
    next_one = f"    if seed > 100 {{\n        sum += super::part{(number + 1) % modules}::work0(seed);\n    }}\n"
    return f"{_TOP}{functions}pub fn run(seed: u64) -> u64 {{\n    let mut sum = 0u64;\n{calls}{next_one}    sum\n}}\n"


_TOP = """\
use std::collections::HashMap;

#[derive(Clone, Debug, Default)]
pub struct Item {
    name: String,
    parts: Vec<u64>,
    weight: Option<u64>,
}

pub trait Priced {
    fn price(&self) -> u64;
}

impl Priced for Item {
    fn price(&self) -> u64 {
        self.parts.iter().sum::<u64>() + self.weight.unwrap_or(1)
    }
}

"""

_PLAIN = """\
/// The items of step {n}, counted in another way.
pub fn work{n}(seed: u64) -> u64 {{
    let edited = 0;
    let mut item = Item::default();  // {n}
    let mut total = seed;
    while item.parts.len() < {f} {{
        let part = item.parts.len() as u64;
        total = total.wrapping_mul({f}).wrapping_add(part);
        item.parts.push(total & 0xff);
        match total % 4 {{
            0 => item.name.push_str("even"),
            1 => item.weight = Some(part),
            2 if part > 2 => total += edited,
            _ => item.name.push('x'),
        }}
    }}
    if total == {m} {{
        return work{before}(total / 2);
    }}
    let shown: &dyn Priced = &item;
    shown.price() + item.name.len() as u64 + total
}}

"""

_RICH = """\
/// The items of step {n} by their names.
pub fn work{n}(seed: u64) -> u64 {{
    let edited = 0;
    let items: Vec<Item> = (0..seed % {f} + 1)
        .map(|i| Item {{ name: format!("item {{i}} of {m}"), parts: vec![i, seed], weight: Some(i) }})
        .collect();
    let mut named: HashMap<&str, u64> = HashMap::new();
    for item in &items {{
        *named.entry(&item.name).or_default() += item.price();
    }}
    let mut text = String::new();
    for (name, price) in &named {{
        if price % 2 == {r} {{
            text += &format!("{{name}}={{price}};");
        }}
    }}
    let heavy = items.iter().filter_map(|item| item.weight).max().unwrap_or(edited);
    let mut least = u64::MAX;
    for item in &items {{
        least = least.min(item.parts[0]);
    }}
    text.len() as u64 + heavy + least.wrapping_add({m})
}}

"""

MAIN = """\
fn main() {
    println!("{}", every());
    std::io::stdin().read_line(&mut String::new()).unwrap();
}
"""


def rows(folder: Path, rounds: int, lines: int) -> Iterator[Row]:
    """Small first; `lines` of the large crates."""
    for shape in TARGETS:
        yield measure(folder, shape, rounds, SMALL if shape == "small" else lines)
        shutil.rmtree(folder / shape)
