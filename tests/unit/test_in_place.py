"""A folder of ours in the place of the user's, for one program alone."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from ipbp.build.cargo_commands import CrateCommand
from ipbp.build.in_place import in_place, is_possible, lay_out, reads_made
from ipbp.build.rustc_replay import replay_environment, replay_words, words_in_place
from ipbp.build.workshop import Workshop

TARGET = "/project/target/debug"
WORDS = (
    *("/bin/rustc", "--crate-name", "app", "src/main.rs", "--crate-type", "bin", "--json=artifacts"),
    *("-C", "extra-filename=-a1", "--out-dir", f"{TARGET}/deps", "-C", f"incremental={TARGET}/incremental"),
    *("-L", f"dependency={TARGET}/deps", "-L", "native=/elsewhere", "-L", f"native={TARGET}/build/c-1/out"),
    *("--extern", f"parts={TARGET}/deps/libparts-b2.rlib", "--extern", f"shapes={TARGET}/deps/libshapes-c3.rlib"),
)
CRATE = CrateCommand("app", "app-a1", "bin", "/project", f"{TARGET}/deps", "/project/src/main.rs", WORDS, (), (), True)
WORKSHOP = Workshop(Path("/cache/crates/1"))
OURS = {f"{TARGET}/deps/libshapes-c3": WORKSHOP.made / "libshapes-c3.rlib"}


def test_in_place_all_names_are_the_users() -> None:
    words = words_in_place(CRATE, WORKSHOP)
    assert words[: len(WORDS)] == WORDS
    assert set(words[len(WORDS) :]) == {"-C", "linker=/cache/crates/1/linker", "linker-flavor=gcc", "strip=none"}
    assert replay_environment(CRATE, WORKSHOP, False, Path(TARGET))["IPBP_OBJECTS"] == f"{TARGET}/objects/app-a1"


def test_apart_it_reads_the_users_files_where_they_are() -> None:
    words = replay_words(CRATE, WORKSHOP, OURS)
    assert words[words.index("--out-dir") + 1] == "/cache/crates/1/deps"
    assert "incremental=/cache/crates/1/incremental" in words
    assert f"parts={TARGET}/deps/libparts-b2.rlib" in words
    assert "shapes=/cache/crates/1/made/libshapes-c3.rlib" in words
    assert words[-2:] == ("-L", "dependency=/cache/crates/1/made")
    assert replay_environment(CRATE, WORKSHOP, True)["IPBP_OBJECTS"] == "/cache/crates/1/objects/app-a1"


def test_libraries_are_laid_out_as_hard_links_and_what_will_be_written_is_not(tmp_path: Path) -> None:
    user = tmp_path / "target/debug/deps"
    workshop = Workshop(tmp_path / "workshop")
    for folder in (user, workshop.deps, workshop.made):
        folder.mkdir(parents=True)
    for name in ("libparts-b2.rlib", "libparts-b2.rmeta", "libshapes-c3.rlib", "libmade-d4.so", "other-e5"):
        (user / name).write_text("user's")
    (workshop.made / "libshapes-c3.rlib").write_text("ours")
    for name in ("libparts-b2.rlib", "libgone-f6.rlib", "parts-b2.d"):
        (workshop.deps / name).write_text("before")
    words = ("rustc", "--crate-name", "parts", "--crate-type", "lib", "-C", "extra-filename=-b2")
    crate = CrateCommand("parts", "parts-b2", "lib", "/", str(user), "/lib.rs", words, (), (), True)
    ours = {str(user / "libshapes-c3"): workshop.made / "libshapes-c3.rlib"}
    for _ in range(2):
        assert lay_out(crate, workshop, ours)
        found = {path.name: path.read_text() for path in workshop.deps.iterdir()}
        assert found == {"libshapes-c3.rlib": "ours", "libmade-d4.so": "user's", "parts-b2.d": "before"}
        assert (workshop.deps / "libmade-d4.so").samefile(user / "libmade-d4.so")
    assert lay_out(crate, workshop, {})
    assert (workshop.deps / "libshapes-c3.rlib").read_text() == "user's"
    assert (workshop.made / "libshapes-c3.rlib").read_text() == "ours"
    (user / "libgoing-a7.rlib").symlink_to("nowhere")
    assert not lay_out(crate, workshop, {}), "the user's build takes files away meanwhile"


def test_a_crate_reads_what_build_scripts_made_if_its_command_names_it() -> None:
    assert reads_made(CRATE), "of a crate that it is linked with"
    plain = replace(CRATE, arguments=tuple(word for word in WORDS if "/build/" not in word))
    assert not reads_made(plain)
    assert reads_made(replace(plain, environment=(("OUT_DIR", f"{TARGET}/build/app-2/out"),)))


@pytest.mark.parametrize("has_build", [True, False])
def test_only_the_program_itself_sees_it(tmp_path: Path, has_build: bool) -> None:
    ours, user = tmp_path / "our s", tmp_path / "user"
    for place in (ours, user):
        place.mkdir()
        (place / "mark").write_text(place.name)
    if has_build:
        (user / "build").mkdir()
        (user / "build/made").write_text("made")
    script = f'cd "{user}"; cat mark build/made; ln mark linked; echo new > written; exit 3'
    done = subprocess.run(in_place(ours, user, ["sh", "-c", script], True), capture_output=True, text=True, timeout=60)
    assert (user / "mark").read_text() == "user"
    assert not (user / "written").exists()
    if not is_possible():  # in some containers; then nothing was done
        assert done.returncode not in (0, 3)
        return
    assert done.returncode == 3
    assert done.stdout == f"our s{'made' if has_build else ''}"
    assert (ours / "written").read_text() == "new\n"
    assert (ours / "linked").samefile(ours / "mark")
