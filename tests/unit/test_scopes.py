"""What a name means from inside an image: as the dynamic loader binds it there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from running_program import WAIT, Running, run, running

from ipbp.formats import elf_namespaces
from ipbp.formats.elf_process import ImageScope, LoadedProcess

MAIN = (
    WAIT
    + r"""
#include <dlfcn.h>
int needed(void), by_program(void), *shared_place(void);
extern int copied;
int by_all(void) { return 1; }
static void open_one(const char *name, int flags) { if (!dlopen(name, RTLD_NOW | flags)) puts(dlerror()); }
int main(void) {
  open_one(FOLDER "/local.so", RTLD_LOCAL);
  open_one(FOLDER "/global.so", RTLD_GLOBAL);
  open_one(FOLDER "/deep.so", RTLD_LOCAL | RTLD_DEEPBIND);
  open_one(FOLDER "/symbolic.so", RTLD_LOCAL);
  if (!dlmopen(LM_ID_NEWLM, FOLDER "/local.so", RTLD_NOW)) puts(dlerror());
  int bound_at_the_first_call = needed();
  ready_and_wait();
  return bound_at_the_first_call + copied;
}
"""
)
SOURCES = {
    "needed": "int copied = 3; int by_all(void) { return 2; } int needed(void) { return by_all() + copied; }\n"
    'int only_needed(void) { return 3; } __attribute__((visibility("protected"))) int kept(void) { return 4; }\n'
    '__attribute__((visibility("hidden"))) int hidden(void) { return 5; } int use_kept(void) { return kept(); }\n',
    "part": "int part(void) { return 6; }\nint by_all(void) { return 7; }\n",
    "local": "int part(void), by_all(void); int local_one(void) { return part() + by_all(); }\n"
    "int twice_there(void) { return 8; }\n",
    "deep": "int part(void); int by_all(void) { return 11; } int deep_one(void) { return part() + by_all(); }\n",
    "symbolic": "int part(void), by_all(void); int twice_there(void) { return part() + by_all(); }\n",
    "global": "int global_one(void) { return 9; }\nint twice_there(void) { return 10; }\n",
}


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("scopes")
    (folder / "main.c").write_text(MAIN)
    for name, text in SOURCES.items():
        (folder / f"{name}.c").write_text(text)
    there = ["-L.", f"-Wl,-rpath,{folder}"]
    for name, link in {
        "needed": [],
        "part": [],
        "local": [*there, "-l:part.so"],
        "deep": [*there, "-l:part.so"],
        "symbolic": [*there, "-l:part.so", "-Wl,-Bsymbolic"],
        "global": [],
    }.items():
        soname = f"-Wl,-soname,{name}.so"
        run(["gcc", "-shared", "-fPIC", "-O1", soname, f"{name}.c", *link, "-o", f"{name}.so"], folder)
    # A fixed executable, which copies the library's variable.
    no_pie = ["-O1", "-fno-pie", "-no-pie", "-rdynamic", "-D_GNU_SOURCE", f'-DFOLDER="{folder}"']
    run(["gcc", *no_pie, "main.c", *there, "-l:needed.so", "-ldl", "-o", "program"], folder)
    with running(folder / "program") as started:
        yield started


@pytest.fixture(params=["the loader's lists", "what each image needs"])
def loaded(process: Running, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> LoadedProcess:
    """The process, read with the search lists that glibc keeps, and with lists made from DT_NEEDED."""
    if request.param != "the loader's lists":
        monkeypatch.setattr(elf_namespaces, "kept_lists", lambda *_: None)
    return process.process()


def scopes(loaded: LoadedProcess, name: str) -> list[ImageScope]:
    """Of every load of this file, the program's own namespace first."""
    return [loaded.scope(module.key) for module in loaded.modules if module.mapped.path.endswith(f"/{name}")]


def definer(scope: ImageScope, name: str) -> str:
    """Base name of the file whose definition of `name` counts there, "" for none."""
    found = scope.lookup(name)
    module = scope.process.module(found.image) if found is not None else None
    return module.mapped.path.rsplit("/", 1)[-1] if module is not None else ""


def test_the_program_sees_what_it_needs_and_not_what_was_opened_locally(loaded: LoadedProcess) -> None:
    (program,) = scopes(loaded, "program")
    assert definer(program, "only_needed") == "needed.so"
    assert definer(program, "by_all") == "program"
    assert definer(program, "local_one") == definer(program, "part") == ""
    assert program.binds_itself


def test_what_was_opened_globally_is_seen_by_all(process: Running) -> None:
    loaded = process.process()
    (program,) = scopes(loaded, "program")
    local, other = scopes(loaded, "local.so")
    assert definer(program, "global_one") == "global.so"
    # The global scope comes before what was opened together with an image.
    assert definer(local, "twice_there") == "global.so"
    assert definer(other, "twice_there") == "local.so"


def test_a_plugin_sees_the_global_scope_first_and_then_its_own_libraries(loaded: LoadedProcess) -> None:
    local, _other = scopes(loaded, "local.so")
    part, _ = scopes(loaded, "part.so")
    assert definer(local, "by_all") == definer(part, "by_all") == "program"
    assert definer(local, "part") == "part.so"
    assert definer(part, "local_one") == "local.so"


def test_a_deeply_bound_plugin_comes_before_the_global_scope(process: Running) -> None:
    loaded = process.process()
    (deep,), (program,) = scopes(loaded, "deep.so"), scopes(loaded, "program")
    assert definer(deep, "by_all") == "deep.so"
    assert definer(deep, "part") == "part.so"
    assert definer(deep, "global_one") == "global.so"
    assert deep.order[0] == deep.module.key
    assert set(program.order) < set(deep.order)


def test_a_library_that_binds_itself_comes_first_and_what_it_needs_last(process: Running) -> None:
    (symbolic,) = scopes(process.process(), "symbolic.so")
    assert definer(symbolic, "twice_there") == "symbolic.so"
    assert definer(symbolic, "by_all") == "program"
    assert definer(symbolic, "part") == "part.so"


def test_namespaces_do_not_see_each_other(loaded: LoadedProcess) -> None:
    local, other = scopes(loaded, "local.so")
    part = scopes(loaded, "part.so")
    assert set(local.order).isdisjoint(other.order)
    assert definer(other, "by_all") == "part.so"
    assert definer(other, "only_needed") == definer(other, "global_one") == ""
    for scope, own in zip((local, other), part, strict=True):
        found = scope.lookup("part")
        assert found is not None
        assert found.image == own.module.key
    assert local.lookup("printf") != other.lookup("printf")


def test_pointer_cells_tell_what_the_loader_chose(loaded: LoadedProcess) -> None:
    (program,), (needed,) = scopes(loaded, "program"), scopes(loaded, "needed.so")
    own = {name: program.image.symbols.address[rows[0]] for name, rows in program.image.symbols.by_name.items()}
    # The program's definition and its copy of the variable count for the library, too.
    assert needed.bound("by_all") == own["by_all"]
    assert needed.bound("copied") == own["copied"] == program.image.copied["copied"]
    assert needed.bound("only_needed") is None
    assert [needed.exports(name) for name in ("by_all", "kept", "hidden", "printf")] == [True, False, False, False]


def test_a_reference_keeps_the_version_that_it_was_linked_with(gcc: str, tmp_path: Path) -> None:
    one = '__asm__(".symver old_f,f@V1"); __asm__(".symver new_f,f@@V2");\nint old_f(void) { return 1; }\n'
    (tmp_path / "lib.c").write_text(one + "int new_f(void) { return 2; }\n")
    (tmp_path / "lib.map").write_text("V1 { global: f; local: *; };\nV2 { global: f; } V1;\n")
    (tmp_path / "first.c").write_text("int f(void) { return 1; }\n")
    (tmp_path / "first.map").write_text("V1 { global: f; local: *; };\n")
    (tmp_path / "user.c").write_text("int f(void); int use(void) { return f(); }\n")
    (tmp_path / "main.c").write_text(WAIT + "int use(void); int main(void) { ready_and_wait(); return use(); }\n")
    shared = [gcc, "-shared", "-fPIC", "-Wl,-soname,lib.so"]
    run([*shared, "first.c", "-Wl,--version-script=first.map", "-o", "lib.so"], tmp_path)
    there = ["-L.", f"-Wl,-rpath,{tmp_path}", "-l:lib.so"]
    run([gcc, "-shared", "-fPIC", "-Wl,-soname,user.so", "user.c", *there, "-o", "user.so"], tmp_path)
    run([*shared, "lib.c", "-Wl,--version-script=lib.map", "-o", "lib.so"], tmp_path)
    run([gcc, "main.c", "-L.", f"-Wl,-rpath,{tmp_path}", "-l:user.so", "-l:lib.so", "-o", "program"], tmp_path)
    with running(tmp_path / "program") as process:
        loaded = process.process()
        (user,), (lib,), (program,) = (scopes(loaded, name) for name in ("user.so", "lib.so", "program"))
        by_name = lib.image.symbols.by_name
        places = {name: int(lib.image.symbols.address[by_name[name][0]]) for name in ("old_f", "new_f")}
        old, new = user.lookup("f"), program.lookup("f")
        assert old is not None
        assert new is not None
        assert (old.address, new.address) == (places["old_f"], places["new_f"])
