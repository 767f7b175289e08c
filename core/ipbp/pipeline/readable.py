"""Names as their language writes them, in what the user reads: `market::pay` for `_ZN6market3pay17h...E`.

Everything inside works on the names of the symbol tables, and a program that reads ipbp's JSON finds them beside the
readable ones. So this is done once, to the result.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache

from ipbp.errors import AgreementNeeded, IpbpError, Refusal, Refused
from ipbp.protocol import FunctionChange, PatchPlan
from ipbp.stages.name_numbers import base_name
from ipbp.stages.rust_names import is_rust

# What a C++ programmer does not write: the string type in full, and allocators that are the default.
_STRING = re.compile(r"std::(?:__cxx11::)?basic_string<char, std::char_traits<char>, std::allocator<char> ?>")
_ALLOCATOR = re.compile(r", std::allocator<[^<>]*> ?(?=>)")
_MANGLED = re.compile(r"(?<![\w$./])_[ZR][\w$.]*[\w$](?!/)")


def readable(text: str) -> str:
    """The text with every mangled name in it made readable."""
    return _MANGLED.sub(lambda match: readable_name(match[0]), text)


@lru_cache(maxsize=4096)
def readable_name(name: str) -> str:
    """One name; as it is when it is no mangled one."""
    if not name.startswith(("_Z", "_R")):
        return name
    import demangle  # only here: it takes a tenth of a second to load, and C has no such names

    if is_rust(name):
        return str(demangle.demangle(base_name(name)))
    shown, count = _STRING.sub("std::string", demangle.demangle(name)), 1
    while count:  # the innermost first
        shown, count = _ALLOCATOR.subn("", shown)
    return shown


def readable_plan(plan: PatchPlan) -> PatchPlan:
    """The plan with readable names; `FunctionChange.linkage` keeps those of the symbol table."""
    return replace(
        plan,
        functions=tuple(map(_readable_function, plan.functions)),
        data=tuple(map(readable, plan.data)),
        callers=tuple(
            replace(row, caller=readable_name(row.caller), callee=readable_name(row.callee)) for row in plan.callers
        ),
        notes=tuple(map(readable, plan.notes)),
        initialisers=tuple(
            replace(row, variables=tuple(map(readable_name, row.variables))) for row in plan.initialisers
        ),
    )


def _readable_function(row: FunctionChange) -> FunctionChange:
    return replace(row, name=readable_name(row.name), linkage=row.name, reason=readable(row.reason))


@contextmanager
def readable_errors() -> Iterator[None]:
    """Whatever is raised inside says readable names; `Refusal.symbol` stays that of the symbol table."""
    try:
        yield
    except Refused as refused:
        raise Refused(map(_readable_refusal, refused.refusals)) from refused
    except AgreementNeeded:  # it names no symbols
        raise
    except IpbpError as error:
        raise IpbpError(error.code, readable(error.fact), readable(error.advice), error.detail) from error


def _readable_refusal(row: Refusal) -> Refusal:
    return replace(row, fact=readable(row.fact), advice=readable(row.advice))
