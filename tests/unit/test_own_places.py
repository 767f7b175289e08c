"""What ipbp keeps is the user's alone, and no program of a repository's runs where nobody asked for one."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from ipbp.build.environment import forget_relative_path
from ipbp.build.places import cache_folder, state_folder
from ipbp.build.unnoticed import of_git
from ipbp.errors import AgreementNeeded, IpbpError
from ipbp.host.consent import consented
from ipbp.host.private import append_private, write_private


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "ipbp"


@pytest.fixture(autouse=True)
def _usual_umask():
    before = os.umask(0o002)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_all_folders_are_closed_to_others(cache: Path) -> None:
    made = cache_folder("crates", "abc")

    assert [mode(folder) for folder in (made, made.parent, cache)] == [0o700] * 3


def test_the_folder_of_an_older_version_is_closed(cache: Path) -> None:
    cache.mkdir(parents=True)
    cache.chmod(0o775)

    cache_folder("objects")

    assert mode(cache) == 0o700


@pytest.mark.parametrize("place", ["ipbp", "ipbp/objects"])
def test_what_somebody_else_made_is_not_believed(cache: Path, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = cache.parent / place
    folder.mkdir(parents=True)
    if os.geteuid() == 0:
        os.chown(folder, 65534, 65534)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)

    with pytest.raises(IpbpError) as caught:
        cache_folder("objects")
    assert caught.value.code == "folder-untrusted"
    assert str(folder) in caught.value.fact


def test_a_link_in_the_place_of_a_folder_is_not_followed(cache: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    cache.mkdir(parents=True)
    (cache / "objects").symlink_to(tmp_path / "elsewhere")

    with pytest.raises(IpbpError) as caught:
        cache_folder("objects")
    assert caught.value.code == "folder-untrusted"


def test_files_are_closed_to_others_and_links_are_not_followed(tmp_path: Path) -> None:
    write_private(tmp_path / "one", "text")
    with append_private(tmp_path / "two") as file:
        file.write(b"text")
    (tmp_path / "three").symlink_to(tmp_path / "victim")

    assert mode(tmp_path / "one") == mode(tmp_path / "two") == 0o600
    with pytest.raises(OSError, match="symbolic"):
        write_private(tmp_path / "three", "text")
    assert not (tmp_path / "victim").exists()


def test_state_is_not_believed_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    state_folder("trusted").chmod(0o770)

    with pytest.raises(IpbpError) as caught:
        state_folder("trusted")
    assert caught.value.code == "folder-untrusted"


@pytest.mark.parametrize(
    ("path", "kept"), [("/bin:.:/usr/bin", "/bin:/usr/bin"), (":/bin", "/bin"), ("bin:../x", os.defpath)]
)
def test_no_program_is_looked_for_in_the_project(path: str, kept: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", path)

    forget_relative_path()

    assert os.environ["PATH"] == kept


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Its own configuration names a program that git starts when it reads the index."""
    hook = tmp_path / "hook"
    hook.write_text(f"#!/bin/sh\ntouch {tmp_path / 'ran'}\n")
    hook.chmod(0o755)
    folder = tmp_path / "repository"
    folder.mkdir()
    (folder / "a.rs").write_text("fn old() {}\n")
    git(folder, "init", "-q")
    git(folder, "add", "a.rs")
    git(folder, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "-m", "a")
    git(folder, "config", "core.fsmonitor", str(hook))
    git(folder, "update-index", "--fsmonitor")
    git(folder, "status")
    (tmp_path / "ran").unlink(missing_ok=True)
    return folder


def git(folder: Path, *words: str) -> None:
    subprocess.run(["git", *words], cwd=folder, check=True, capture_output=True)


def test_git_is_asked_without_the_programs_that_the_repository_names(repository: Path, tmp_path: Path) -> None:
    (repository / "a.rs").write_text("fn new() {}\n")

    assert list(of_git(repository / "a.rs")) == [b"fn old() {}\n"] * 2
    assert not (tmp_path / "ran").exists()
    git(repository, "cat-file", "blob", ":./a.rs")
    assert (tmp_path / "ran").exists(), "the trap works"


def test_git_fetches_nothing(repository: Path, tmp_path: Path) -> None:
    server = tmp_path / "server"
    server.write_text(f"#!/bin/sh\ntouch {tmp_path / 'fetched'}\nexit 1\n")
    server.chmod(0o755)
    for key, value in (
        ("core.fsmonitor", "false"),
        ("core.repositoryFormatVersion", "1"),
        ("extensions.partialClone", "origin"),
        ("remote.origin.promisor", "true"),
        ("remote.origin.url", f"ext::{server}"),
        ("protocol.ext.allow", "always"),
    ):
        git(repository, "config", key, value)
    for objects in (repository / ".git/objects").glob("??"):
        shutil.rmtree(objects)

    assert list(of_git(repository / "a.rs")) == []
    assert not (tmp_path / "fetched").exists()
    subprocess.run(["git", "cat-file", "blob", ":./a.rs"], cwd=repository, capture_output=True, check=False)
    assert (tmp_path / "fetched").exists(), "the trap works"


class Asked:
    """Wants one agreement after the other."""

    def __init__(self, *wanted: str) -> None:
        self.wanted = list(wanted)
        self.told: list[tuple[str, str]] = []

    def act(self) -> str:
        if self.wanted:
            raise AgreementNeeded(f"programs of {self.wanted[0]}\n", self.wanted[0])
        return "done"

    def agree(self, hash: str, text: str) -> None:
        self.told.append((hash, text))
        self.wanted.remove(hash)


def test_each_question_is_asked_until_all_are_answered() -> None:
    asked, questions = Asked("one", "two"), []

    assert consented(asked.act, lambda text: bool(questions.append(text)) or True, asked.agree) == "done"
    assert asked.told == [("one", "programs of one\n"), ("two", "programs of two\n")]
    assert [text.splitlines()[0] for text in questions] == ["programs of one", "programs of two"]


@pytest.mark.parametrize(("answer", "code"), [(None, "agreement-needed"), (False, "agreement-declined")])
def test_no_answer_and_no_are_errors_and_nothing_is_agreed_to(answer: bool | None, code: str) -> None:
    asked = Asked("one")

    with pytest.raises(IpbpError) as caught:
        consented(asked.act, lambda text: answer, asked.agree)
    assert caught.value.code == code
    assert asked.told == []
