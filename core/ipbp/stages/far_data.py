"""Data of other libraries, which a program reaches by a 32-bit distance where its compiler took that for near.

A linker copies such a variable into the program (psABI, R_X86_64_COPY) when it is mentioned for the first time. In a
running program it is where it is, usually too far away. The compiler can write the same code with a pointer to it.
"""

from __future__ import annotations

from ipbp.graph.model import LinkGraph
from ipbp.stages.compilers import gcc_version

OUT_OF_REACH = "out-of-reach-data"


def through_pointers(graph: LinkGraph) -> tuple[str, ...]:
    """Flags with which the compiler of this object reaches what other files define by pointers.

    gcc 12 changes nothing else then. clang does so in all programs that may lie anywhere, but writes tables of what is
    caught with plain addresses in others. Before gcc 12 only libraries were compiled so, and on other machines
    than x86-64.
    """
    if graph.machine != "x86_64":
        return ("-fPIC",)
    version = gcc_version(graph)
    if version >= 12:
        return ("-mno-direct-extern-access",)
    return ("-fPIC", "-fno-semantic-interposition") if version else ("-fPIE",)
