"""Rust: every kind of program that cargo builds, and every way to have it built, is patched as it was built."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from cargo_project import CargoProject
from scenario import Talk
from sessions import ipbp

from ipbp.build.in_place import is_possible
from ipbp.cli.bystander import Bystander
from ipbp.errors import Refused
from ipbp.host.commands import plan_params
from ipbp.host.journal import open_journal
from ipbp.pipeline.order import make_plan
from ipbp.pipeline.request import Request

pytestmark = [pytest.mark.live, pytest.mark.compiles]
MEMBERS = 10
MAIN = "fn main() {\n    let own = 1;\n    tool::serve(own);\n}\n"
OWN = ("let own = 1", "let own = 2")
LIBRARY = """\
pub fn answer(number: u64) -> u64 {
    let featured = if cfg!(feature = "extra") { 5 } else { 0 };
    let flagged = if cfg!(flagged) { 70 } else { 0 };
    member9::next(number) + far::away(number) + featured + flagged + env!("MADE").len() as u64
}

pub fn serve(own: u64) {
    for line in std::io::stdin().lines() {
        println!("{}", answer(line.unwrap().parse().unwrap()) * own);
    }
}

#[test]
fn serves() {
    serve(1);
}
"""
SOURCES = {
    "tool/build.rs": 'fn main() {\n    println!("cargo::rustc-env=MADE=yes");\n}\n',
    "tool/src/lib.rs": LIBRARY,
    "tool/src/main.rs": MAIN,
    "tool/src/bin/second.rs": MAIN,
    "tool/examples/shown.rs": MAIN,
    "tool/benches/speed.rs": MAIN,
    "tool/tests/whole.rs": MAIN.replace("fn main", "#[test]\nfn whole"),
    "../outside/src/lib.rs": "pub fn away(number: u64) -> u64 {\n    number + 1000\n}\n",
    "plugin/src/lib.rs": '#[unsafe(no_mangle)]\npub extern "C" fn plugged() -> u64 {\n    3\n}\n',
    "host/src/main.rs": """\
unsafe extern "C" {
    fn dlopen(path: *const std::ffi::c_char, flags: i32) -> *mut u8;
}

fn main() {
    let path = std::ffi::CString::new(std::env::args().nth(1).unwrap()).unwrap();
    println!("{}", unsafe { !dlopen(path.as_ptr(), 2).is_null() });
    std::io::stdin().read_line(&mut String::new()).unwrap();
}
""",
}
PACKAGE = '[package]\nname = "{name}"\nversion = "0.1.0"\nedition = "{edition}"\n'
TOOL = """
[features]
extra = []
[dependencies]
member9 = { path = "../member9" }
far = { path = "../../outside", package = "outside" }
[[bench]]
name = "speed"
harness = false
"""


def write_workspace(folder: Path) -> None:
    names = [f"member{number}" for number in range(MEMBERS)]
    members = ", ".join(f'"{name}"' for name in ("tool", "plugin", "host", *names))
    files = {
        "Cargo.toml": f'[workspace]\nmembers = [{members}]\nresolver = "3"\n[profile.fast]\ninherits = "dev"\n',
        "tool/Cargo.toml": PACKAGE.format(name="tool", edition="2024") + TOOL,
        "plugin/Cargo.toml": PACKAGE.format(name="plugin", edition="2024") + '[lib]\ncrate-type = ["dylib"]\n',
        "host/Cargo.toml": PACKAGE.format(name="host", edition="2024"),
        "../outside/Cargo.toml": PACKAGE.format(name="outside", edition="2018") + "[workspace]\n",
        **SOURCES,
    }
    for number, name in enumerate(names):
        below = f"member{number - 1}"
        needs = f'[dependencies]\n{below} = {{ path = "../{below}" }}\n' if number else ""
        files[f"{name}/Cargo.toml"] = PACKAGE.format(name=name, edition=(2021, 2024)[number % 2]) + needs
        value = f"{below}::next(number) + {number}" if number else "number * 3"
        files[f"{name}/src/lib.rs"] = f"pub fn next(number: u64) -> u64 {{\n    {value}\n}}\n"
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> CargoProject:
    folder = tmp_path_factory.mktemp("targets") / "work"
    write_workspace(folder)
    original = {}
    for path in (*folder.rglob("*.rs"), *(folder.parent / "outside").rglob("*.rs")):
        time = path.stat().st_mtime_ns - 10_000_000_000
        os.utime(path, ns=(time, time))
        original[path] = path.read_bytes(), time
    return CargoProject(folder, folder / "target/debug/tool", original)


def planned(
    project: CargoProject,
    program: Path,
    *edits: tuple[str, str, str],
    arguments: Sequence[str] = (),
    **environment: str,
) -> set[str]:
    """Names of the functions that a plan for the program would change after these edits."""
    talk = Talk(program, *arguments, **environment)
    try:
        talk.until_it_reads()
        edit(project, *edits)
        inferior, journal = Bystander(talk.process.pid), open_journal(talk.process.pid)
        params = plan_params(inferior.describe(), inferior.regions(), journal, False, {})
        outcome = make_plan(Request.from_json(params), inferior.read_ranges, lambda line: None)
        return {row.name for row in outcome.plan.functions} if outcome.plan else set()
    finally:
        project.restore()
        talk.kill()


def edit(project: CargoProject, *edits: tuple[str, str, str]) -> None:
    for file, old, new in edits:
        path = project.folder / file
        assert path.read_text().count(old) == 1
        path.write_text(path.read_text().replace(old, new))


def cargo(project: CargoProject, *words: str, folder: Path | None = None, **environment: str) -> None:
    done = subprocess.run(
        ["cargo", *words, "--offline"],
        cwd=folder or project.folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def harness(project: CargoProject, kind: str, name: str) -> Path:
    """A program of `deps`, by cargo's mark."""
    (mark,) = (project.folder / "target/debug/.fingerprint").glob(f"*/{kind}-{name}.json")
    return project.folder / f"target/debug/deps/{name}-{mark.parent.name.rpartition('-')[2]}"


SHARED = ("tool/src/lib.rs", "member9::next(number) +", "member9::next(number) * 2 +")


def test_programs_of_every_kind(workspace: CargoProject) -> None:
    cargo(workspace, "build", "--all-targets")
    target = workspace.folder / "target/debug"
    assert planned(workspace, target / "tool", ("tool/src/main.rs", *OWN), SHARED) == {"tool::main", "tool::answer"}
    assert planned(workspace, target / "second", ("tool/src/bin/second.rs", *OWN), SHARED) == {
        "second::main",
        "tool::answer",
    }
    shown = target / "examples/shown"
    assert planned(workspace, shown, ("tool/examples/shown.rs", *OWN)) == {"shown::main"}
    assert planned(workspace, shown, ("member0/src/lib.rs", "number * 3", "number * 4")) == {"member0::next"}
    assert planned(workspace, shown, ("../outside/src/lib.rs", "number + 1000", "number + 2")) == {"outside::away"}
    whole, speed = harness(workspace, "test-integration-test", "whole"), harness(workspace, "test-bench", "speed")
    assert planned(workspace, whole, ("tool/tests/whole.rs", *OWN), SHARED) == {"whole::whole", "tool::answer"}
    assert planned(workspace, harness(workspace, "test-lib", "tool"), SHARED) == {"tool::answer"}
    assert planned(workspace, speed, ("tool/benches/speed.rs", *OWN)) == {"speed::main"}


def answer(talk: Talk) -> str:
    """To the number 1; what a harness of tests prints besides is passed over."""
    talk.tell("1")
    while not (said := talk.hear()).isdigit():
        assert talk.process.poll() is None
    return said


OTHER = {"gdb": "lldb", "lldb": "gdb"}


@pytest.mark.parametrize("swapped", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_programs_of_every_kind_are_patched_while_they_run(workspace: CargoProject, swapped: bool) -> None:
    cargo(workspace, "build", "--all-targets")
    target = workspace.folder / "target/debug"
    programs = [
        ("gdb", Talk(target / "tool")),
        ("lldb", Talk(target / "second")),
        ("gdb", Talk(target / "examples/shown")),
        ("lldb", Talk(harness(workspace, "test-integration-test", "whole"), "--nocapture")),
        ("gdb", Talk(harness(workspace, "test-lib", "tool"), "--nocapture")),
        ("lldb", Talk(harness(workspace, "test-bench", "speed"))),
    ]
    try:
        assert [answer(talk) for _, talk in programs] == ["1052"] * len(programs)
        edit(workspace, SHARED)
        for debugger, talk in programs:
            outcome = ipbp("apply", talk.process.pid, OTHER[debugger] if swapped else debugger)
            assert {row["name"] for row in outcome["functions"]} == {"tool::answer"}, outcome
            assert answer(talk) == "1100"
    finally:
        workspace.restore()
        for _, talk in programs:
            talk.kill()


def test_builds_of_every_kind(workspace: CargoProject, tmp_path: Path) -> None:
    """Each goes where the one before was, so that what is there is not enough to tell how the last was made."""
    folder, target = workspace.folder, workspace.folder / "target"
    featured = ("tool/src/lib.rs", "{ 5 }", "{ 6 }")
    flagged = ("tool/src/lib.rs", "{ 70 }", "{ 71 }")
    own = tmp_path / "own"
    cargo(workspace, "build")
    cargo(workspace, "build", "-p", "tool", "--features", "extra", CARGO_TARGET_DIR=str(own))
    assert planned(workspace, own / "debug/tool", featured) == {"tool::answer"}
    cargo(workspace, "build", "-p", "tool", CARGO_TARGET_DIR=str(own))
    assert planned(workspace, own / "debug/tool", featured) == set()
    cargo(workspace, "build", RUSTFLAGS="--cfg flagged")
    assert planned(workspace, target / "debug/tool", flagged) == {"tool::answer"}
    cargo(workspace, "build")
    assert "tool::answer" not in planned(workspace, target / "debug/tool", flagged)
    cargo(workspace, "build", "-p", "tool", "--target", "x86_64-unknown-linux-gnu")
    assert planned(workspace, target / "x86_64-unknown-linux-gnu/debug/tool", SHARED) == {"tool::answer"}
    cargo(
        workspace,
        "build",
        "-p",
        "tool",
        "--profile",
        "fast",
        "--manifest-path",
        str(folder / "Cargo.toml"),
        folder=tmp_path,
    )
    assert planned(workspace, target / "fast/tool", SHARED) == {"tool::answer"}
    (folder / ".cargo").mkdir()
    (folder / ".cargo/config.toml").write_text('[build]\nrustflags = ["--cfg", "flagged"]\n')
    cargo(workspace, "build", "-p", "tool")
    assert planned(workspace, target / "debug/tool", flagged) == {"tool::answer"}
    (folder / ".cargo/config.toml").unlink()


def test_each_of_ten_crates_is_compiled_with_the_one_below_when_it_may_notice(
    workspace: CargoProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The program names the highest of them only.
    cargo(workspace, "build")
    own = ("tool/src/main.rs", *OWN)
    number = "pub fn next(number: u64) -> u64 {\n    number"
    noticed = ("member0/src/lib.rs", number, f"#[inline]\n{number} + number")
    for is_allowed in (True, False):
        with monkeypatch.context() as patch:
            if is_allowed and is_possible():
                patch.setattr("ipbp.build.rustc_run.replay_words", lambda *_: pytest.fail("a compile in place failed"))
            else:
                patch.setattr("ipbp.build.rustc_run.is_possible", lambda: False)
            functions = planned(workspace, workspace.program, own, noticed)
        assert {"tool::main", "member1::next"} <= functions
        own = (own[0], own[1], "let own = 3")


def test_what_cargo_would_make_anew_is_refused(workspace: CargoProject) -> None:
    cargo(workspace, "build")
    with pytest.raises(Refused) as caught:
        planned(workspace, workspace.program, ("tool/build.rs", "=yes", "=perhaps"))
    assert {row.code for row in caught.value.refusals} == {"cargo-build-needed"}
    target = workspace.folder / "target/debug"
    library = [str(target / "libplugin.so")]
    # A `dylib` needs the standard library as one.
    done = subprocess.run(["rustc", "--print", "sysroot"], capture_output=True, text=True, check=True)
    search = {"LD_LIBRARY_PATH": f"{done.stdout.strip()}/lib"}
    with pytest.raises(Refused) as caught:
        planned(workspace, target / "host", ("plugin/src/lib.rs", "    3", "    4"), arguments=library, **search)
    assert [(row.code, row.symbol) for row in caught.value.refusals] == [("cargo-library", "libplugin.so")]
    own = ("host/src/main.rs", '{}", unsafe', 'opened: {}", unsafe')
    assert "host::main" in planned(workspace, target / "host", own, arguments=library, **search)
