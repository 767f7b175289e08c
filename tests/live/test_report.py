"""What a user sees of a session: a preview with both versions side by side, and a page with all that was done."""

from __future__ import annotations

import os
import re
import shutil
import struct
import subprocess
import zlib
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
from answerer import Answerer
from scenario import Talk
from sessions import Session, debug_with
from test_frames import IN_EACH_LANGUAGE, MOSTLY_IN_C

from ipbp.cli.debuggers import find_debugger

pytestmark = pytest.mark.live

PLAIN, CHECKED = ("twice + 1;", "twice + 1000;"), ("twice < 10,", "twice < 100,")
ADDS_ONE = r"add eax, 1\b|inc eax|add e[a-z]+, 1\b"


@pytest.fixture(params=["gdb", "lldb"])
def session(request: pytest.FixtureRequest, talk: Talk) -> Iterator[Session]:
    with debug_with(request.param, find_debugger(request.param)) as session:
        session.attach(talk.process.pid)
        session.resume()
        yield session


@IN_EACH_LANGUAGE
def test_a_preview_shows_both_versions(session: Session, project: Answerer, talk: Talk) -> None:
    project.replace(*PLAIN)
    said = session.tell("hotpatch preview")
    assert re.search(ADDS_ONE, said), said
    assert "add eax, 0x3e8" in said
    assert session.call("apply")["outcome"] == "patched"
    project.replace("twice + 1000;", "twice + 3000;")
    said = session.tell("hotpatch preview plain")
    assert "add eax, 0x3e8" in said, "the old side is the code of the patch before"
    assert "add eax, 0xbb8" in said
    assert "as it was compiled last" in said
    assert talk.ask("plain") == "1040"
    outcome = session.call("preview")
    (code,) = outcome["sides"]["code"]
    assert code["name"].startswith(f"{project.scope}plain")
    changed = [row for row in outcome["sides"]["source"][0]["rows"] if row[0] == "|"]
    assert [("twice + 1000;" in left, "twice + 3000;" in right) for _mark, left, right in changed] == [(True, True)]


class Page(HTMLParser):
    """`text`: all that is shown. `addresses`: whatever the page would have to fetch."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.text, self.addresses, self.open = "", [], []
        self.feed(content)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.addresses += [value for name, value in attributes if name in ("src", "href")]
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, text: str) -> None:
        self.text += text


def make_report(session: Session, project: Answerer, file: Path) -> Page:
    """After a patch, an edit that does not compile, one that is refused, a second patch, and its undo."""
    project.replace(*PLAIN)
    assert session.call("apply")["outcome"] == "patched"
    project.replace("twice + 1000;", "<twice> + 1000;")
    assert session.call("apply")["error"]["code"] == "compile-failed"
    project.replace("<twice> + 1000;", "twice + 1000;")
    project.replace(*CHECKED)
    assert session.call("apply")["outcome"] == "patched"
    assert session.call("undo")["outcome"] == "undone"
    assert session.call("undo 7")["error"]["code"] == "no-such-patch"
    outcome = session.call(f"report {file}")
    assert outcome["outcome"] == "ok", outcome
    return Page(file.read_text())


@MOSTLY_IN_C
def test_a_report_tells_what_was_done(session: Session, project: Answerer, talk: Talk, tmp_path: Path) -> None:
    page = make_report(session, project, tmp_path / "report.html")
    assert page.open == []
    assert page.addresses == []
    patches = f"patch 1: {project.scope}plain", f"patch 2: {project.scope}checked"
    for word in (*patches, "compile-failed", "no-such-patch", "stopped, median"):
        assert word in page.text, word
    for word in ("0x3e8", "<twice> + 1000", f"process {talk.process.pid}"):
        assert word in page.text, word
    assert re.search(ADDS_ONE, page.text)
    assert "Patch 1" in page.text
    assert "Patch 2" not in page.text, "it is not in force any more"
    assert talk.ask("plain") == "1040"


@pytest.mark.parametrize("session", ["gdb", pytest.param("lldb", marks=pytest.mark.slow)], indirect=True)
def test_a_browser_shows_the_report(session: Session, project: Answerer, talk: Talk, tmp_path: Path) -> None:
    names = ("chromium", "chromium-browser", "google-chrome")
    browser = next((path for name in names if (path := shutil.which(name))), None)
    if browser is None:
        assert os.environ.get("CI") != "true", "scripts/setup installs one there"
        pytest.skip("no chromium is installed")
    file, picture = tmp_path / "report.html", tmp_path / "report.png"
    make_report(session, project, file)
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1280,1400", f"--screenshot={picture}"]
    subprocess.run([browser, *options, file.as_uri()], check=True, capture_output=True, timeout=120)
    width, height, colours = look_at(picture)
    assert (width, height) == (1280, 1400)
    # The stages of the timeline, the refusals' red and the two sides of a change are all there.
    for name, colour in (("compile", (46, 134, 193)), ("stopped", (211, 84, 0)), ("link", (142, 68, 173))):
        assert colours.get(colour, 0) > 20, name


def look_at(picture: Path) -> tuple[int, int, dict[tuple[int, int, int], int]]:
    """Width, height, and how often each colour is there, of a PNG with 8 bits for each of its three or four channels
    (PNG specification, "Filter algorithms")."""
    content = picture.read_bytes()
    at, parts = 8, b""
    width, height, _depth, kind = struct.unpack(">IIBB", content[16:26])
    while at < len(content):
        size, name = struct.unpack(">I4s", content[at : at + 8])
        parts += content[at + 8 : at + 8 + size] if name == b"IDAT" else b""
        at += size + 12
    channels, plain = 4 if kind == 6 else 3, zlib.decompress(parts)
    colours: dict[tuple[int, int, int], int] = {}
    above = bytearray(width * channels)
    for row in range(height):
        start = row * (width * channels + 1)
        line = unfiltered(plain[start], bytearray(plain[start + 1 : start + 1 + width * channels]), above, channels)
        for x in range(0, len(line), channels):
            colour = (line[x], line[x + 1], line[x + 2])
            colours[colour] = colours.get(colour, 0) + 1
        above = line
    return width, height, colours


def unfiltered(kind: int, line: bytearray, above: bytearray, step: int) -> bytearray:
    for x in range(len(line)):
        left = line[x - step] if x >= step else 0
        corner = above[x - step] if x >= step else 0
        if kind == 4:
            guess = left + above[x] - corner
            nearest = min(
                (abs(guess - left), 0, left), (abs(guess - above[x]), 1, above[x]), (abs(guess - corner), 2, corner)
            )
            line[x] = (line[x] + nearest[2]) & 255
        else:
            line[x] = (line[x] + (0, left, above[x], (left + above[x]) // 2)[kind]) & 255
    return line
