"""Rules of the source that no other tool knows, each held by one test over all files."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DEBUGGER_SIDE = ("core/ipbp/host", "core/ipbp/protocol.py", "core/ipbp/errors.py", "gdb_ipbp", "lldb_ipbp")
ERRORS = {"IpbpError", "Refusal", "Usage"}


def python_files(*places: str) -> list[Path]:
    """Files under these folders (or these files) of the repository."""
    found = [ROOT / place for place in places]
    return sorted(file for place in found for file in ([place] if place.is_file() else place.rglob("*.py")))


PACKAGES = python_files("core", "gdb_ipbp", "lldb_ipbp")
ALL = [*PACKAGES, *python_files("tests", "scripts")]


def name_of(file: Path) -> str:
    return str(file.relative_to(ROOT))


@pytest.mark.parametrize("file", python_files(*DEBUGGER_SIDE), ids=name_of)
def test_what_runs_in_a_debugger_is_python_3_9(file: Path) -> None:
    ast.parse(file.read_text(), name_of(file), feature_version=(3, 9))


def test_an_old_python_can_import_what_runs_in_a_debugger() -> None:
    """With a real Python 3.9 or 3.10 where there is one; annotations evaluated at run time show only there."""
    old = [name for name in ("python3.9", "python3.10") if is_usable(name)]
    modules = [
        "ipbp." + ".".join(file.relative_to(ROOT / "core/ipbp").with_suffix("").parts)
        for file in python_files("core/ipbp/host", "core/ipbp/protocol.py", "core/ipbp/errors.py")
        if file.name != "__init__.py"
    ]
    program = f"import sys; sys.path.insert(0, {str(ROOT / 'core')!r})\nimport {', '.join(modules)}"
    for name in old:
        subprocess.run([name, "-I", "-B", "-c", program], check=True)


def is_usable(name: str) -> bool:
    return shutil.which(name) is not None and subprocess.run([name, "-c", ""], capture_output=True).returncode == 0


@pytest.mark.parametrize("file", ALL, ids=name_of)
def test_every_file_opens_with_the_concept(file: Path) -> None:
    assert ast.get_docstring(ast.parse(file.read_text())), f"{name_of(file)} has no docstring"


@pytest.mark.parametrize("file", PACKAGES, ids=name_of)
def test_imports_keep_to_their_place(file: Path) -> None:
    name = name_of(file)
    allowed = {
        "gdb": name.startswith("gdb_ipbp/"),
        "lldb": name.startswith("lldb_ipbp/"),
        "lief": name.startswith("core/ipbp/formats/"),
    }
    for module in imported(file):
        assert allowed.get(module, True), f"{name} imports {module}"


def imported(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.split(".")[0]


@pytest.mark.parametrize("file", python_files("core"), ids=name_of)
def test_nothing_prints_but_the_command_line(file: Path) -> None:
    if name_of(file).startswith("core/ipbp/cli/"):
        return
    calls = [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call)]
    assert not [c.lineno for c in calls if isinstance(c.func, ast.Name) and c.func.id == "print"]


def tracked_text() -> Iterator[tuple[str, str]]:
    run = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    for name in filter(None, run.stdout.split("\0")):
        file = ROOT / name
        if file.is_file() and file.suffix in {".py", ".md", ".toml", ".c", ".h", ".svg", "", ".json", ".txt"}:
            yield name, file.read_text(errors="replace")


def test_no_file_names_a_folder_of_somebodys_machine() -> None:
    """Paths such as a home folder's are right on one machine only."""
    private = re.compile(r"/(?:home|Users)/[a-z]\w+/|/root/|/work/(?:main|shared)\b")
    found = [name for name, text in tracked_text() if name != name_of(Path(__file__)) and private.search(text)]
    assert not found


def codes(file: Path) -> Iterator[str]:
    """The literal first argument (or `code=`) of every Refusal and IpbpError that a file makes, by any name that
    ends so; a conditional expression gives both of its sides."""
    for node in ast.walk(ast.parse(file.read_text())):
        if not isinstance(node, ast.Call):
            continue
        function = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
        if function not in ERRORS and not (is_super_init(node) and len(node.args) >= 3):
            continue
        given = node.args[:1] or [keyword.value for keyword in node.keywords if keyword.arg == "code"]
        for argument in given:
            sides = [argument.body, argument.orelse] if isinstance(argument, ast.IfExp) else [argument]
            yield from (
                side.value
                for side in sides
                if isinstance(side, ast.Constant) and isinstance(side.value, str) and CODE.fullmatch(side.value)
            )


CODE = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


def is_super_init(node: ast.Call) -> bool:
    function = node.func
    return (
        isinstance(function, ast.Attribute)
        and function.attr == "__init__"
        and isinstance(function.value, ast.Call)
        and isinstance(function.value.func, ast.Name)
        and function.value.func.id == "super"
    )


def test_every_code_is_explained_in_limits() -> None:
    explained = set(re.findall(r"^\| `([a-z0-9-]+)`", (ROOT / "docs/limits.md").read_text(), re.MULTILINE))
    used: dict[str, set[str]] = {}
    for file in (file for file in PACKAGES if file.name != "fake.py"):  # its failures are for tests only
        for code in codes(file):
            used.setdefault(code, set()).add(name_of(file))
    missing = {code: files for code, files in used.items() if code not in explained}
    assert not missing, f"docs/limits.md says nothing of {missing}"


DOES = re.compile(
    r"(?:^|[.;:,] |, or |, and |when .*, )(?:[Pp]lease )?(?:"
    "Add|Ask|Attach|Build|Call|Check|Close|Configure|Continue|Copy|Correct|Debug|Define|Do not|Edit|Give|Install|Keep|"
    "Leave|Let|Link|List|Look|Make|Mark|Move|Name|Put|Reinstall|Rebuild|Record|Remove|Rename|Report|Restart|Resume|Run|"
    "Select|See|Set|Start|Step|Stop|Take|Try|Type|Undo|Use|Wait)\\b|`[a-z]",
    re.IGNORECASE,
)
"""What the reader is to do: a sentence or a part of one that begins with a verb, or something to type."""


def advices(file: Path) -> Iterator[tuple[int, str]]:
    """Line and third argument of every Refusal and IpbpError that says it right there."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Call) and len(node.args) >= 3:
            function = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
            if function in ERRORS or is_super_init(node):
                sides = node.args[2]
                for side in [sides.body, sides.orelse] if isinstance(sides, ast.IfExp) else [sides]:
                    if isinstance(side, (ast.Constant, ast.JoinedStr)):
                        yield node.lineno, ast.unparse(side).lstrip("f").strip("'\"")


def test_every_error_says_what_to_do_next() -> None:
    files = [file for file in PACKAGES if file.name != "fake.py"]
    found = [(name_of(file), line, advice) for file in files for line, advice in advices(file)]
    assert len(found) > 200
    assert [row for row in found if not DOES.search(row[2]) and not row[2].startswith("{")] == []
    assert not DOES.search("The process is untouched.")
    assert not DOES.search("Patches are undone newest first.")


def test_limits_says_what_to_do_for_every_code() -> None:
    rows = re.findall(r"^\| `([a-z0-9-]+)` \| (.+) \| (.+) \|$", (ROOT / "docs/limits.md").read_text(), re.MULTILINE)
    assert len(rows) > 150
    assert [code for code, when, advice in rows if not when.strip() or not advice.strip()] == []


def test_limits_explains_no_code_that_is_gone() -> None:
    text = (ROOT / "docs/limits.md").read_text()
    source = "\n".join(file.read_text() for file in PACKAGES)
    gone = [code for code in re.findall(r"^\| `([a-z0-9-]+)`", text, re.MULTILINE) if f'"{code}"' not in source]
    assert not gone


def test_the_readmes_commands_exist() -> None:
    text = (ROOT / "README.md").read_text()
    scripts = set(re.findall(r"(?:\./)?(scripts/[a-z]+)", text))
    assert {"scripts/demo", "scripts/test"} <= scripts
    for script in scripts:
        assert (ROOT / script).is_file(), script
    from ipbp.cli.main import parser

    known = parser("").format_help()
    for word in set(re.findall(r"(?m)^ipbp ([a-z-]+)", text)):
        assert re.search(rf"^\s+{word}\s", known, re.MULTILINE), f"README: ipbp {word}"


def test_the_readmes_links_lead_somewhere() -> None:
    for document in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", document.read_text()):
            assert (document.parent / target).exists(), f"{name_of(document)}: {target}"


def test_scripts_can_be_run() -> None:
    for script in [*(ROOT / "scripts").iterdir(), ROOT / ".ci/run"]:
        if script.is_file():
            assert script.stat().st_mode & 0o111, script


def test_no_two_files_of_tests_have_one_name() -> None:
    """pytest imports them by their names alone."""
    names = [file.name for file in python_files("tests") if file.name != "conftest.py"]
    assert sorted(names) == sorted(set(names))
