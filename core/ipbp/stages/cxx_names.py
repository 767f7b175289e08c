"""What C++ names say, without what an edit may change of them while the thing stays the same.

The names are those of the Itanium C++ ABI (5.1). A function's name holds what it takes, whether it is `const`, and the
unnamed namespace that it is in; and all of that is a part of the names of its static variables (5.1.6, "Scope
Encoding").
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from ipbp.stages.name_numbers import base_name

_UNNAMED = "(anonymous namespace)"
_IN_FUNCTION = re.compile(r"_Z(?:GV)?Z")
_SOURCE_NAME = re.compile(r"E(\d+)(?=[A-Za-z_])")
_DISCRIMINATOR = re.compile(r"(_\d|__\d+_)?")
_CLOSURE_NUMBER = re.compile(r"'lambda\d*'|\$_\d+")
_CLOSURE = re.compile(r"'lambda.*|\$_\d+", re.DOTALL)


@dataclass(frozen=True, slots=True)
class LocalName:
    """Of a static variable in a function, or of its guard. `key`: equal for those of functions that are called alike,
    whatever they take; instances of a template are called otherwise, but for those of lambda expressions, which have
    only their number, and for the `declaration`, which all share. `variable`: its own name. `is_certain`: the whole of
    the name was understood."""

    key: str
    declaration: str
    variable: str
    is_guard: bool
    is_certain: bool


@lru_cache(4096)
def local_name(name: str) -> LocalName | None:
    """None for what is no variable of a C++ function."""
    plain = base_name(name)
    if not _IN_FUNCTION.match(plain):
        return None
    found = _at_the_end(plain)
    if found is None:
        return None
    variable, discriminator = found
    is_guard = plain.startswith("_ZGV")
    tree = _tree("_Z" + plain[4:] if is_guard else plain)
    is_certain = tree is not None and tree.kind == "qualified" and tree.parts[-1].spell() == variable
    mark = "guard of " if is_guard else ""
    key, declaration = (
        f"{mark}{_scope(tree, arguments) if is_certain else variable}{discriminator and ' '}{discriminator}"
        for arguments in (True, False)
    )
    return LocalName(key, declaration, variable, is_guard, is_certain and plain == name)


def _at_the_end(name: str) -> tuple[str, str] | None:
    """The variable and what tells it from others of this name in the function."""
    for mark in _SOURCE_NAME.finditer(name):
        end = mark.end() + int(mark[1])
        if end <= len(name) and _DISCRIMINATOR.fullmatch(name, end):
            return name[mark.end() : end], name[end:]
    return None


@lru_cache(4096)
def without_unnamed(name: str, is_code: bool) -> str:
    """What a function or variable of a namespace is called when no namespace without a name counts; "" for all else.

    Of a class in such a namespace only the variables are called so: the class is another one, and so is what its
    functions are called for.
    """
    if not name.startswith("_Z"):
        return "" if is_code else name
    if name.startswith(("_ZT", "_ZG", "_ZZ")) or (tree := _tree(name)) is None:
        return ""
    path, taken = (tree.name, tree.parameters) if tree.kind == "function" else (tree, None)
    if is_code != (taken is not None):
        return ""
    parts = [part.spell() for part in (path.parts if path.kind == "qualified" else (path,))]
    shown = [part for part in parts if part != _UNNAMED]
    text = ", ".join(part.spell() for part in taken or ())
    if is_code and (_UNNAMED in text or _UNNAMED in parts[:-2] or len(parts) - len(shown) > 1):
        return ""
    return f"{'::'.join(shown)}({text})" if is_code else "::".join(shown).replace(_UNNAMED + "::", "")


@lru_cache(4096)
def function_path(name: str) -> str:
    """What a function is called, whoever sees it and whatever it takes; "" for what is no function of C++."""
    if not name.startswith("_Z") or name.startswith(("_ZT", "_ZG", "_ZZ")):
        return ""
    tree = _tree(base_name(name))
    return _scope(tree.name, True) if tree is not None and tree.kind == "function" else ""


def plain_variable(name: str) -> str:
    """What a variable is called, by its linkage name or its readable one, that may be called otherwise now."""
    local = local_name(name)
    return local.key if local is not None else without_unnamed(name, False) or name


def _tree(name: str) -> Any:
    import demangle  # only here: it takes a tenth of a second to load, and most edits need no such names

    try:
        return demangle.parse(name)
    except (demangle.DemanglingError, RecursionError):
        return None


def _scope(node: Any, arguments: bool) -> str:
    """The path to what a name means: no parameters and qualifiers of functions, no numbers of lambda expressions.
    `arguments`: with those of templates."""
    if node.kind == "qualified":
        parts = (_scope(part, arguments) for part in node.parts)
        return "::".join(text for text in parts if text != _UNNAMED)
    if node.kind == "function":
        return _scope(node.name, arguments)
    if node.kind == "template":
        given = ", ".join(part.spell() for part in node.arguments) if arguments else ""
        given = _CLOSURE_NUMBER.sub(lambda match: "$_" if match[0][0] == "$" else "'lambda'", given)
        return f"{_scope(node.base, arguments)}<{given.replace(_UNNAMED + '::', '')}>"
    text = str(node.spell())
    return "'lambda'" if _CLOSURE.fullmatch(text) else text
