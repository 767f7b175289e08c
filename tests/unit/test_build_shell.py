"""A recorded command line means the words that a shell would make of it, or is refused."""

from __future__ import annotations

import shlex
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipbp.build.shell import NeedsShell, simple_command

SHOW_WORDS = 'for word do printf "%s\\0" "$word"; done'


def words_of_a_shell(text: str) -> list[str]:
    """What /bin/sh makes of it."""
    done = subprocess.run(["/bin/sh", "-c", f"set -- {text}\n{SHOW_WORDS}"], check=True, capture_output=True)
    return [part.decode("utf-8", "surrogateescape") for part in done.stdout.split(b"\0")[:-1]]


@pytest.mark.parametrize(
    "text",
    [
        "gcc -c a.c -o a.o",
        "gcc '-DX=\"a b\"' -c 'a b.c'",
        'gcc "-DX=\\"a b\\"" -c "a\\$b.c"',
        r"gcc -DX=\"a\ b\" -c it\'s.c",
        'gcc "-DX=a\\b" -c a.c',
        "gcc -c a.c \\\n -o a.o",
        "gcc \"a\nb.c\" 'c\nd.c'",
        "gcc '' \"\" -c a.c",
        r"gcc -DX=\$Y -c a.c",
        'gcc -DX="$" -c "a`b.c'.replace("`", "\\`") + '"',
        "gcc -DP='$(rm -rf x)' -c a.c",
        "gcc  -Da=b'c'\"d\"e\\ f\t-c  a.c ",
        "gcc -c \u00a0\u3000.c",
    ],
)
def test_words_are_those_of_a_shell(text):
    assert list(simple_command(text).words) == words_of_a_shell(text)


@given(st.lists(st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"]), max_size=8), min_size=1))
def test_what_was_quoted_for_a_shell_comes_back(words):
    quoted = shlex.join(["gcc", *words])

    assert list(simple_command(quoted).words) == ["gcc", *words]


@pytest.mark.parametrize(
    "text",
    [
        "gcc -c a.c && mv a.o b.o",
        "gcc -c a.c | tee log",
        "gcc -c `ls`",
        'gcc -c "`ls`"',
        "gcc -c $(ls)",
        'gcc "-D$HOME" -c a.c',
        "gcc -c $SRC",
        "gcc -c a.c; rm a.c",
        "gcc -c a.c > log",
        "gcc -c a.c &",
        "(gcc -c a.c)",
        "gcc -c 'a.c",
        'gcc -c "a.c',
        "gcc -c a.c\\",
        "",
        "cd x && ",
    ],
)
def test_what_needs_a_shell_is_refused(text):
    with pytest.raises(NeedsShell):
        simple_command(text)


def test_leading_directory_and_environment_need_no_shell():
    simple = simple_command("cd 'sub dir' && env LC_ALL=C X='1 2' gcc -c a.c")

    assert simple.directory == "sub dir"
    assert simple.environment == (("LC_ALL", "C"), ("X", "1 2"))
    assert simple.words == ("gcc", "-c", "a.c")
