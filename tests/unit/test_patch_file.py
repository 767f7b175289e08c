"""The container of a patch: what was packed comes out again, and nothing else does."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ipbp import patch_file
from ipbp.cli import main
from ipbp.errors import IpbpError
from ipbp.members import packed_list
from ipbp.patch_file import ListedFunction, PatchedBuild, PatchFile, UnitChange, pack, read_patch_file, unpack


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


OLD, NEW, PART = b"the old object", b"the new object", b"an object of a crate"
LIST = packed_list([("part.o", digest(PART))])
PATCH = PatchFile(
    images=(PatchedBuild("0a1b2c", "talk", "x86_64", True), PatchedBuild("ff", "libx.so", "x86_64", False)),
    units=(
        UnitChange(
            0, "/src/talk.c", digest(NEW), digest(OLD), dependencies={"/src/talk.h": digest(b"")}, flags=("-O0",)
        ),
        UnitChange(1, "/src/lib.rs", digest(LIST), "", is_crate=True, is_optimised=False),
    ),
    functions=(ListedFunction("blit", "blit", "changed", "the code differs", "/src/talk.c", 0),),
    data=("count",),
    notes=("a note",),
    objects={digest(row): row for row in (OLD, NEW, PART, LIST)},
)


def code_of(act: Callable[[], object]) -> str:
    with pytest.raises(IpbpError) as caught:
        act()
    return caught.value.code


def zipped(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", method) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return packed.getvalue()


def members_of(content: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as file:
        return {name: file.read(name) for name in file.namelist()}


def with_manifest(**changes: Any) -> bytes:
    members = members_of(pack(PATCH))
    manifest = json.loads(members["manifest.json"])
    return zipped({**members, "manifest.json": json.dumps({**manifest, **changes}).encode()})


def test_what_was_packed_comes_out_again(tmp_path: Path) -> None:
    file = tmp_path / "talk.patch"
    file.write_bytes(pack(PATCH))
    found = read_patch_file(file)
    assert replace(found, identity="") == PATCH
    assert found.identity == digest(members_of(pack(PATCH))["manifest.json"])


def test_equal_patches_make_equal_files() -> None:
    assert pack(PATCH) == pack(replace(PATCH, objects=dict(reversed(PATCH.objects.items()))))
    other = replace(PATCH, notes=("another note",))
    assert unpack(pack(other), "x").identity != unpack(pack(PATCH), "x").identity


def test_a_file_that_is_cut_short_or_of_something_else_is_refused(tmp_path: Path) -> None:
    content = pack(PATCH)
    for damaged in (b"", b"PK\3\4", content[:-1], content[: len(content) // 2], b"\x7fELF" + content[4:50]):
        assert code_of(lambda damaged=damaged: unpack(damaged, "x")) == "patch-file-malformed"
    assert code_of(lambda: read_patch_file(tmp_path / "none")) == "patch-file-unreadable"
    for path in (tmp_path, Path("/dev/zero")):
        assert code_of(lambda path=path: read_patch_file(path)) == "patch-file-unreadable"


def test_an_object_with_another_content_is_refused() -> None:
    members = members_of(pack(PATCH))
    members[f"objects/{digest(NEW)}"] = b"some other object"
    assert code_of(lambda: unpack(zipped(members), "x")) == "patch-file-malformed"


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "objects/../x", "objects/" + "0" * 64, "more"])
def test_a_member_that_the_manifest_does_not_name_is_refused(name: str) -> None:
    assert code_of(lambda: unpack(zipped({**members_of(pack(PATCH)), name: b"x"}), "x")) == "patch-file-malformed"


def test_a_member_that_is_missing_is_refused() -> None:
    members = members_of(pack(PATCH))
    for name in members:
        less = {other: content for other, content in members.items() if other != name}
        assert code_of(lambda less=less: unpack(zipped(less), "x")) == "patch-file-malformed"


def test_two_members_of_one_name_are_refused() -> None:
    packed = io.BytesIO(pack(PATCH))
    with zipfile.ZipFile(packed, "a") as file, pytest.warns(UserWarning, match="Duplicate name"):
        file.writestr("manifest.json", b"{}")
    assert code_of(lambda: unpack(packed.getvalue(), "x")) == "patch-file-malformed"


def test_a_list_of_objects_that_are_not_there_is_refused() -> None:
    objects = {name: content for name, content in PATCH.objects.items() if content != PART}
    assert code_of(lambda: unpack(pack(replace(PATCH, objects=objects)), "x")) == "patch-file-malformed"


def test_other_ways_of_packing_are_refused() -> None:
    assert code_of(lambda: unpack(zipped(members_of(pack(PATCH)), zipfile.ZIP_LZMA), "x")) == "patch-file-malformed"
    assert unpack(zipped(members_of(pack(PATCH)), zipfile.ZIP_STORED), "x").units == PATCH.units


def test_what_would_unpack_to_too_much_is_refused_before_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    content = pack(PATCH)
    total = sum(map(len, members_of(content).values()))
    monkeypatch.setattr(patch_file, "LARGEST", total)
    assert unpack(content, "x").units == PATCH.units
    monkeypatch.setattr(patch_file, "LARGEST", total - 1)
    assert code_of(lambda: unpack(content, "x")) == "patch-file-too-large"
    monkeypatch.setattr(patch_file, "LARGEST", sum(map(len, PATCH.objects.values())) - 1)
    assert code_of(lambda: pack(PATCH)) == "patch-file-too-large"
    monkeypatch.setattr(patch_file, "LARGEST", 1 << 30)
    monkeypatch.setattr(patch_file, "MOST_MEMBERS", len(PATCH.objects) - 1)
    assert code_of(lambda: pack(PATCH)) == "patch-file-too-large"


def test_another_version_is_told_from_damage() -> None:
    assert code_of(lambda: unpack(with_manifest(version=2), "x")) == "patch-file-version"
    assert code_of(lambda: unpack(with_manifest(format="other"), "x")) == "patch-file-malformed"


@pytest.mark.parametrize(
    "changes",
    [
        {"images": []},
        {"units": []},
        {"units": {}},
        {"images": [{"build_id": "", "name": "a", "machine": "x86_64", "is_executable": True}]},
        {"images": [{"build_id": "ab", "name": 7, "machine": "x86_64", "is_executable": True}]},
        {"functions": [{"name": "a"}]},
        {"data": [1]},
        {"objects": {"x": 1}},
        {"made_by": None},
    ],
)
def test_a_manifest_with_something_else_in_it_is_refused(changes: dict[str, Any]) -> None:
    assert code_of(lambda: unpack(with_manifest(**changes), "x")) == "patch-file-malformed"


def unpacked(content: bytes) -> PatchFile | None:
    """None where it is refused in one of the ways that a damaged file may be refused in."""
    try:
        return unpack(content, "x")
    except IpbpError as error:
        if error.code not in ("patch-file-malformed", "patch-file-version", "patch-file-too-large"):
            raise
        return None


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=10,
)
_FIELDS = sorted(json.loads(members_of(pack(PATCH))["manifest.json"]))


@settings(deadline=None)
@given(st.sampled_from(_FIELDS), _JSON, st.booleans())
def test_whatever_stands_in_a_manifest_is_read_or_refused(name: str, value: object, is_inside: bool) -> None:
    row = json.loads(members_of(pack(PATCH))["manifest.json"])[name]
    if is_inside and isinstance(row, list) and row and isinstance(row[0], dict):
        value = [{**row[0], key: value} for key in row[0]]
    found = unpacked(with_manifest(**{name: value}))
    assert found is None or found.objects == PATCH.objects


@settings(deadline=None)
@given(st.data())
def test_whatever_bytes_change_it_is_the_patch_or_refused(data: st.DataObject) -> None:
    content = bytearray(pack(PATCH))
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=8)):
        content[place] = data.draw(st.integers(0, 255))
    found = unpacked(bytes(content))
    assert found is None or found.objects == PATCH.objects


def test_inspect_shows_it_and_lets_no_text_of_it_speak_to_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "talk.patch"
    loud = replace(PATCH.functions[0], name="blit\x1b[2J")
    file.write_bytes(pack(replace(PATCH, functions=(loud,))))
    assert main.main(["inspect", str(file)]) == 0
    shown = capsys.readouterr().out
    assert "fits talk (x86_64) with build id 0a1b2c" in shown
    assert "blit?[2J" in shown
    assert "\x1b" not in shown
    assert main.main(["inspect", str(file), "--json"]) == 0
    row = json.loads(capsys.readouterr().out)
    assert [image["build_id"] for image in row["images"]] == ["0a1b2c", "ff"]
    assert row["identity"] == read_patch_file(file).identity
    file.write_bytes(b"nothing")
    assert main.main(["inspect", str(file), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "patch-file-malformed"
