"""The little of gcc's and clang's option grammar that ipbp has to know: where an option ends and what its value is.

Without it `-o` could not be told from the value of `-Xlinker`, nor an input file from the argument of `-include`.
Sources: GCC manual, "Option Summary"; clang, `include/clang/Driver/Options.td`. What is unknown is one word.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Argument:
    """One option with its value, or one input file. `name`: the option as written, without its value; "" for an
    input. `value`: None for an option without one. `words`: how it stands in the command."""

    name: str
    value: str | None
    words: tuple[str, ...]


def words(text: str) -> frozenset[str]:
    """The set of the words in a text: a table of options that can be read."""
    return frozenset(text.split())


TERMINATOR = "--"
"""After this word everything is an input (clang)."""

# The next word is the value; some of them may also have it joined, see _JOINED.
_SEPARATE = words(
    """-o -I -D -U -A -B -F -L -T -G -e -u -z -l -x -MF -MT -MQ -MJ -include -imacros -isystem -iquote -idirafter
    -iprefix -iwithprefix -iwithprefixbefore -isysroot -imultilib -iframework -cxx-isystem -stdlib++-isystem
    -include-pch -ivfsoverlay -Xpreprocessor -Xassembler -Xlinker -Xclang -Xanalyzer -Xopenmp-target -Xcuda-ptxas
    -Xarch_host -Xarch_device -mllvm -aux-info -dumpdir -dumpbase -dumpbase-ext -wrapper -arch -target -gcc-toolchain
    -working-directory -fplugin-arg -specs -dependency-file -index-store-path -framework -serialize-diagnostics
    --output --include --imacros --include-directory --include-directory-after --define-macro --undefine-macro
    --param --sysroot --specs --config --serialize-diagnostics --language --dumpbase --dumpdir --dumpbase-ext
    --for-linker --assert --prefix"""
)
# The value follows in the same word; the longest match wins.
_JOINED = (
    *("-o", "-MF", "-MT", "-MQ", "-MJ", "-x", "-B", "-I", "-D", "-U", "-isystem", "-iquote", "-idirafter"),
    *("--output=", "--prefix=", "--config=", "--specs=", "-specs="),
)
_WHOLE_WORDS = re.compile(r"-(objc|object|Bsymbolic|Bstatic|Bdynamic|I-$|iquote$|isystem$)")


def arguments_of(line: Sequence[str]) -> list[Argument]:
    """The options and inputs of a compiler's command line, without the compiler itself, in order."""
    return list(_arguments_of(tuple(line)))


@functools.lru_cache(maxsize=1 << 14)
def _arguments_of(line: tuple[str, ...]) -> tuple[Argument, ...]:
    # Remembered: each question about a command begins with its arguments, and each patch asks of all commands.
    rows = []
    position = 0
    while position < len(line):
        word = line[position]
        if word == TERMINATOR:
            rows.append(Argument(TERMINATOR, None, (word,)))
            rows.extend(Argument("", rest, (rest,)) for rest in line[position + 1 :])
            break
        row = _argument(word, line[position + 1] if position + 1 < len(line) else None)
        rows.append(row)
        position += len(row.words)
    return tuple(rows)


def words_of(arguments: Iterable[Argument]) -> list[str]:
    return [word for argument in arguments for word in argument.words]


def expanded(line: Sequence[str], directory: str, depth: int = 0) -> list[str]:
    """The words with every response file in place of its `@file`, as far as these can be read.

    libiberty's rules (GCC manual, "Overall Options", @file): separated by white space, quotes of both kinds, a
    backslash quotes any character. A file that cannot be read stays as it is, which is what the compiler does.
    """
    if not _names_responses(tuple(line)):
        return list(line)
    result: list[str] = []
    for word in line:
        text = _response(word, directory) if word.startswith("@") and depth < 8 else None
        result.extend([word] if text is None else expanded(_response_words(text), directory, depth + 1))
    return result


@functools.lru_cache(maxsize=1 << 14)
def _names_responses(line: tuple[str, ...]) -> bool:
    return any(word.startswith("@") for word in line)


def _argument(word: str, following: str | None) -> Argument:
    if not word.startswith("-") or word == "-":
        return Argument("", word, (word,))
    if word in _SEPARATE and following is not None:
        return Argument(word, following, (word, following))
    return _one_word(word)


@functools.lru_cache(maxsize=1 << 16)
def _one_word(word: str) -> Argument:
    # Remembered: the same options stand in every command of a large database.
    if not _WHOLE_WORDS.match(word):
        names = [name for name in _JOINED if word.startswith(name) and len(word) > len(name)]
        if names:
            name = max(names, key=len)
            return Argument(name.rstrip("="), word[len(name) :], (word,))
    name, equals, value = word.partition("=")
    return Argument(name, value if equals else None, (word,))


def _response(word: str, directory: str) -> str | None:
    try:
        with open(os.path.join(directory, word[1:]), "rb") as file:
            return os.fsdecode(file.read())
    except OSError:
        return None


def _response_words(text: str) -> list[str]:
    pieces = re.finditer(
        r"""(?P<space>\s+)|'((?:[^'\\]|\\.)*)'|"((?:[^"\\]|\\.)*)"|((?:[^\s'"\\]|\\.)+)|.""", text, re.DOTALL | re.ASCII
    )
    found: list[str] = []
    fresh = True
    for piece in pieces:
        if piece["space"] is not None:
            fresh = True
            continue
        meaning = re.sub(r"\\(.)", r"\1", next((g for g in piece.groups()[1:] if g is not None), piece[0]), flags=re.S)
        if fresh:
            found.append(meaning)
        else:
            found[-1] += meaning
        fresh = False
    return found
