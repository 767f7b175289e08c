"""Machine code as lines that two versions of a function can be compared by.

Addresses would differ in every line. So a place in the function is told by its distance from the entry, and a place
elsewhere by its name.
"""

from __future__ import annotations

from collections.abc import Callable

from capstone import x86

from ipbp.arch.x86_64_code import detailed_reader

Name = Callable[[int, int], str]
"""What is at a load address, in words, and how many bytes of it are read there, 0 for a place that is meant itself."""


def listing(code: bytes, address: int, name: Name) -> list[tuple[int, str]]:
    """Offset and text of each instruction of a function that lies at `address`; what cannot be decoded as `.byte`."""
    rows: list[tuple[int, str]] = []
    reached = 0
    for row in detailed_reader().disasm(code, address):
        rows.append((row.address - address, f"{row.mnemonic} {_operands(row, address, len(code), name)}".rstrip()))
        reached = row.address - address + row.size
    rows += [(at, f".byte {code[at]:#04x}") for at in range(reached, len(code))]
    return rows


def _operands(row: x86.CsX86, address: int, size: int, name: Name) -> str:
    text = str(row.op_str)
    for operand in row.operands:
        if operand.type == x86.X86_OP_IMM and (row.group(x86.X86_GRP_JUMP) or row.group(x86.X86_GRP_CALL)):
            return _place(operand.imm, address, size, name)
        if operand.type == x86.X86_OP_MEM and operand.mem.base == x86.X86_REG_RIP:
            start, end = text.find("["), text.find("]")
            target = row.address + row.size + operand.mem.disp
            read = 0 if row.mnemonic == "lea" else operand.size
            text = f"{text[:start]}[{_place(target, address, size, name, read)}]{text[end + 1 :]}"
    return text


def _place(target: int, address: int, size: int, name: Name, read: int = 0) -> str:
    return f"+{target - address:#x}" if address <= target < address + size else name(target, read)
