"""Known compilers are run without a question; whatever else a project names is asked about once."""

from __future__ import annotations

import os
import shutil

import pytest
from build_tree import command, write

from ipbp.build.config import OwnBuild
from ipbp.build.trust import agree, agreed, disagree, is_agreed, needs_agreement, require_agreement
from ipbp.errors import IpbpError


@pytest.fixture(autouse=True)
def _own_state(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.mark.parametrize(
    "program",
    [
        *(
            "gcc",
            "g++",
            "cc",
            "c++",
            "clang",
            "clang++",
            "gcc-12",
            "clang-19",
            "clang++-3.9",
            "x86_64-linux-gnu-gcc-12",
        ),
        *("aarch64-linux-gnu-g++", "ccache gcc", "ccache distcc clang", "/usr/bin/gcc", "/usr/bin/ccache /usr/bin/cc"),
    ],
)
def test_known_compilers_need_no_agreement(program, tmp_path):
    unit = command(
        tmp_path,
        f"{program} -O2 -Iinc -Wp,-D_FORTIFY_SOURCE=2,-MMD,x.d -Wa,--noexecstack -Wl,-Bsymbolic"
        " -Xclang -disable-llvm-passes -c a.c",
    )
    precompiled = command(
        tmp_path,
        "clang -Xclang -include-pch -Xclang a.h.pch -Xclang -include -Xclang a.h -Xclang -fno-pch-timestamp -c a.c",
    )

    assert needs_agreement([unit, precompiled]) is None


@pytest.mark.parametrize(
    "line",
    [
        "./gcc -c a.c",
        "tools/gcc -c a.c",
        "/proc/self/cwd/gcc -c a.c",
        "sh -c a.c",
        "gccx -c a.c",
        "ccache ./cc -c a.c",
        "ccache prefix_command=./evil gcc -c a.c",
        "./ccache gcc -c a.c",
        "gcc -fplugin=./evil.so -c a.c",
        "clang -fpass-plugin=./evil.so -c a.c",
        "clang -Xclang -load -Xclang ./evil.so -c a.c",
        "clang -mllvm -load=./evil.so -c a.c",
        "clang -Xclang -fpass-plugin=./evil.so -c a.c",
        "gcc -Wp,-fplugin=./evil.so -c a.c",
        "gcc -Xpreprocessor -fplugin=./evil.so -c a.c",
        "gcc -B./bin -c a.c",
        "gcc -B ./bin -c a.c",
        "gcc --prefix=bin -c a.c",
        "gcc -specs=evil.specs -c a.c",
        "gcc --specs evil.specs -c a.c",
        "gcc -wrapper ./evil -c a.c",
        "clang --config=evil.cfg -c a.c",
        "clang --config evil.cfg -c a.c",
        "clang --gcc-toolchain=. -no-integrated-as -c a.c",
        "clang -Xarch_x86_64 -fplugin=./evil.so -c a.c",
        "clang --driver-mode=cl /clang:-fplugin=./evil.so -c a.c",
        "clang -cc1 -load ./evil.so a.c",
        "clang -Xclang -o -Xclang victim -c a.c",
        "clang -Xclang -include-pch -Xclang a.h.pch -Xclang -load -Xclang evil.so -c a.c",
        "clang -mllvm -info-output-file=victim -c a.c",
        "gcc -Wa,-o,victim -c a.c",
        "gcc -Wa,@evil.rsp -c a.c",
        "gcc @evil.rsp -c a.c",
        "gcc @missing.rsp -c a.c",
    ],
)
def test_whatever_could_start_another_program_needs_agreement(line, tmp_path):
    write(tmp_path, {"evil.rsp": "-O2 '-B'./bin"})

    agreement = needs_agreement([command(tmp_path, line)])

    assert agreement is not None
    assert str(tmp_path) in agreement.text


def test_response_file_is_judged_by_what_it_holds(tmp_path):
    write(tmp_path, {"good.rsp": "-O2 -DX=1 -I inc"})

    assert needs_agreement([command(tmp_path, "gcc @good.rsp -c a.c")]) is None


@pytest.mark.parametrize(("variable", "asks"), [("LD_PRELOAD", True), ("COMPILER_PATH", True), ("LC_ALL", False)])
def test_environment_that_could_start_a_program_needs_agreement(variable, asks, tmp_path):
    plain = command(tmp_path, "gcc -c a.c")
    unit = type(plain)(plain.directory, plain.source, plain.output, plain.arguments, ((variable, "x"),))

    assert (needs_agreement([unit]) is not None) is asks


def test_answer_is_remembered_for_all_units(tmp_path):
    shutil.copy("/bin/true", tmp_path / "cc")
    units = [command(tmp_path, f"./cc -c {n}.c", f"{n}.c") for n in range(3)]
    agreement = needs_agreement(units)
    assert agreement is not None
    assert agreement.text.count("./cc") == 1
    with pytest.raises(IpbpError) as error:
        require_agreement(units)
    assert error.value.code == "agreement-needed"
    assert agreement.hash in error.value.advice

    agree(agreement.hash)

    assert is_agreed(agreement.hash)
    require_agreement(units)


def test_another_content_asks_again(tmp_path):
    write(tmp_path, {"cc": "#!/bin/sh\n"})
    units = [command(tmp_path, "./cc -c a.c")]
    first = needs_agreement(units)
    assert first is not None
    agree(first.hash)

    write(tmp_path, {"cc": "#!/bin/sh\nrm -r /\n"})

    second = needs_agreement(units)
    assert second is not None
    assert second.hash != first.hash


def test_build_command_asks_and_follows_its_file(tmp_path):
    write(tmp_path, {"ipbp.toml": "one"})
    own = OwnBuild(tmp_path / "ipbp.toml", tmp_path, ("make", "-j2"), ())
    first = needs_agreement([], own)
    assert first is not None
    assert "make -j2" in first.text
    agree(first.hash)
    assert needs_agreement([], own) is None

    write(tmp_path, {"ipbp.toml": "two"})

    assert needs_agreement([], own) is not None


def test_question_cannot_hide_itself_from_a_terminal(tmp_path):
    unit = command(tmp_path, "gcc -c a.c")
    agreement = needs_agreement([type(unit)(unit.directory, unit.source, None, ("./x\x1b[2K\rgcc", "-c", "a.c"))])

    assert agreement is not None
    assert "\x1b" not in agreement.text
    assert "\r" not in agreement.text


def test_only_a_hash_can_be_agreed_to(tmp_path):
    with pytest.raises(IpbpError) as error:
        agree("../../x")

    assert error.value.code == "agreement-unknown"
    assert not os.path.exists(tmp_path / "x")


def test_what_was_agreed_to_is_listed_and_forgotten():
    agree("a" * 64, "  the compiler ./cc\n")

    assert agreed() == {"a" * 64: "  the compiler ./cc\n"}
    disagree("a" * 64)
    assert agreed() == {}
    with pytest.raises(IpbpError) as error:
        disagree("a" * 64)
    assert error.value.code == "agreement-unknown"


def test_an_answer_that_others_could_have_written_is_none(tmp_path):
    agree("a" * 64)
    (tmp_path / "state/ipbp/trusted" / ("a" * 64)).chmod(0o666)

    assert not is_agreed("a" * 64)


def test_nothing_is_agreed_to_in_a_folder_that_others_can_write_to(tmp_path):
    agree("a" * 64)
    (tmp_path / "state/ipbp/trusted").chmod(0o777)

    with pytest.raises(IpbpError) as error:
        is_agreed("a" * 64)
    assert error.value.code == "folder-untrusted"
