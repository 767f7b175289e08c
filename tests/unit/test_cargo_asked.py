"""What cargo is asked and what of its settings has to be agreed to, without running it."""

from __future__ import annotations

from pathlib import Path

import pytest

from ipbp.build.cargo import build_folder, project_roots
from ipbp.build.cargo_settings import unusual_settings
from ipbp.build.rustc_recorder import outputs, read_options

LIBRARY = [
    *("rustc", "--crate-name", "shapes", "--edition=2021", "shapes/src/lib.rs", "--crate-type", "lib"),
    *("--emit=dep-info,metadata,link", "-C", "debuginfo=2", "-C", "extra-filename=-a1", "--out-dir", "/t/debug/deps"),
    *("-L", "dependency=/t/debug/deps", "--extern", "parts=/t/debug/deps/libparts-b2.rmeta", "--extern", "proc_macro"),
]


def test_options_are_read_in_all_their_forms() -> None:
    options = read_options(LIBRARY)
    assert options["--crate-name"] == ["shapes"]
    assert options["--emit"] == ["dep-info,metadata,link"]
    assert options["-C debuginfo"] == ["2"]
    assert options["--extern"] == ["parts=/t/debug/deps/libparts-b2.rmeta", "proc_macro"]


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("lib", {"shapes-a1.d", "libshapes-a1.rlib", "libshapes-a1.rmeta"}),
        ("bin", {"shapes-a1.d", "shapes-a1"}),
        ("proc-macro", {"shapes-a1.d", "libshapes-a1.so"}),
    ],
)
def test_the_files_that_cargo_waits_for_are_those_that_rustc_makes(kind: str, names: set[str]) -> None:
    words = [kind if word == "lib" else word for word in LIBRARY]
    assert set(outputs(read_options(words))) == names


def tree(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    return folder


def test_a_program_of_cargos_is_known_by_the_marks_beside_it(tmp_path: Path) -> None:
    tree(tmp_path, "Cargo.toml", "target/CACHEDIR.TAG", "target/debug/.cargo-lock", "target/debug/app", "other/app")
    assert build_folder(tmp_path / "target/debug/app") == tmp_path / "target/debug"
    assert build_folder(tmp_path / "target/debug/examples/one") == tmp_path / "target/debug"
    assert build_folder(tmp_path / "target/debug/libapp.so") == tmp_path / "target/debug"
    assert build_folder(tmp_path / "target/debug/libapp.so.1") is None, "cargo makes none with a version"
    assert build_folder(tmp_path / "other/app") is None
    assert list(project_roots(tmp_path / "target/debug/app", lambda: ())) == [tmp_path]


def test_a_shared_target_directory_leads_to_where_the_compiler_ran(tmp_path: Path) -> None:
    tree(tmp_path, "shared/CACHEDIR.TAG", "shared/debug/.cargo-lock", "here/Cargo.toml")
    folders = [tmp_path / "nowhere", tmp_path / "here"]
    assert list(project_roots(tmp_path / "shared/debug/app", lambda: folders)) == [tmp_path / "here"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (".cargo/config.toml", '[build]\nrustc = "./evil"'),
        (".cargo/config.toml", '[build]\nrustc-wrapper = "./evil"'),
        (".cargo/config", '[build]\nrustc-workspace-wrapper = "./evil"'),
        (".cargo/config.toml", '[env]\nLD_PRELOAD = "evil.so"'),
        (".cargo/config.toml", 'include = "more.toml"'),
        (".cargo/config.toml", '[target.x86_64-unknown-linux-gnu]\nrustflags = ["-Zcodegen-backend=evil.so"]'),
        (".cargo/config.toml", "no toml at all"),
        ("rust-toolchain.toml", '[toolchain]\npath = "./evil"'),
    ],
)
def test_settings_that_start_programs_of_the_project_are_shown(tmp_path: Path, name: str, text: str) -> None:
    path = tree(tmp_path, name) / name
    path.write_text(text)
    found = unusual_settings(tmp_path)
    assert list(found.values()) == [str(path)]
    assert str(path) in next(iter(found))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (".cargo/config.toml", '[build]\nrustflags = ["-C", "target-cpu=native"]\ntarget-dir = "out"'),
        (".cargo/config.toml", '[target.x86_64-unknown-linux-gnu]\nlinker = "clang"\nrunner = "sudo"'),
        (".cargo/config.toml", "[profile.dev]\nopt-level = 1"),
        ("rust-toolchain.toml", '[toolchain]\nchannel = "1.95"'),
        ("rust-toolchain", "nightly"),
    ],
)
def test_settings_that_start_nothing_are_not_asked_about(tmp_path: Path, name: str, text: str) -> None:
    (tree(tmp_path, name) / name).write_text(text)
    assert unusual_settings(tmp_path) == {}
