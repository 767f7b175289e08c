"""What debug information says of one function: its lines and its variables, at the places where they are.

Sources: DWARF 5, 3.3 (subroutines), 4.1 (variables), 6.2 (lines), 2.5 and 2.6 (locations). `dwarf` is pyelftools' view
of a linked file; addresses are those of the file. A variable whose place is not one slot of the frame is told without
a place.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from elftools.dwarf.dwarf_expr import DWARFExprParser
from elftools.dwarf.ranges import RangeEntry

from ipbp.graph.frames import RBP, RSP, DescribedFunction, LineRow, UnwindRow, Variable

_WITH_VARIABLES = ("DW_TAG_lexical_block", "DW_TAG_try_block", "DW_TAG_catch_block")
_POINTERS = {
    "DW_TAG_pointer_type": "*",
    "DW_TAG_reference_type": "&",
    "DW_TAG_rvalue_reference_type": "&&",
    "DW_TAG_const_type": " const",
    "DW_TAG_volatile_type": " volatile",
    "DW_TAG_restrict_type": " restrict",
    "DW_TAG_atomic_type": " atomic",
}
_INTEGERS = (
    *("DW_TAG_pointer_type", "DW_TAG_reference_type", "DW_TAG_rvalue_reference_type", "DW_TAG_enumeration_type"),
)
_FLOATS = (3, 4)  # DW_ATE_complex_float, DW_ATE_float
_AGGREGATES = ("DW_TAG_structure_type", "DW_TAG_class_type", "DW_TAG_union_type")
_SCOPES = ("DW_TAG_namespace", "DW_TAG_structure_type", "DW_TAG_class_type", "DW_TAG_module")
_DEEPEST = 12


def describe_function(
    dwarf: Any,
    pc: int,
    bias: int,
    code_at: Callable[[int, int], bytes],
    unwind_of: Callable[[int], Sequence[UnwindRow]],
) -> DescribedFunction | None:
    """The function with the link address `pc` in it, None when the file does not describe it as one piece of code.
    `bias`: what is added to it when it runs. `code_at`: bytes at a link address; `unwind_of`: the rows of the function
    that begins there. Errors: those of pyelftools, ValueError and KeyError for what is damaged."""
    for unit in dwarf.iter_CUs():
        top = unit.get_top_DIE()
        ranges = list(_ranges(dwarf, unit, top))
        if ranges and not any(start <= pc < end for start, end in ranges):
            continue
        found = _find(dwarf, unit, top, pc)
        if found is None:
            continue
        entry, start, size = found
        unwind = tuple(unwind_of(start))
        base = _frame_base(entry, unwind)
        return DescribedFunction(
            _name(entry),
            start + bias,
            code_at(start, size),
            tuple(_lines(dwarf, unit, start, size)),
            unwind,
            tuple(_variables(dwarf, unit, entry, start, size, base)),
            _type_name(_attribute_entry(entry, "DW_AT_type")),
            _size(_attribute_entry(entry, "DW_AT_type")),
            _keeps_variables(entry, base),
        )
    return None


def _find(dwarf: Any, unit: Any, top: Any, pc: int) -> tuple[Any, int, int] | None:
    """The subprogram, its first address and its size."""
    waiting = [top]
    while waiting:
        for child in waiting.pop().iter_children():
            if child.tag == "DW_TAG_subprogram" and "DW_AT_low_pc" in child.attributes:
                for start, end in _ranges(dwarf, unit, child):
                    if start <= pc < end:
                        return child, start, end - start
            elif child.tag in _SCOPES:
                waiting.append(child)
    return None


def _address(entry: Any, attribute: Any) -> int:
    if attribute.form.startswith("DW_FORM_addrx"):
        return int(entry.dwarfinfo.get_addr(entry.cu, attribute.raw_value))
    return int(attribute.value)


def _ranges(dwarf: Any, unit: Any, entry: Any) -> Iterator[tuple[int, int]]:
    low, high = entry.attributes.get("DW_AT_low_pc"), entry.attributes.get("DW_AT_high_pc")
    if low is not None and high is not None:
        start = _address(entry, low)
        end = _address(entry, high) if high.form.startswith("DW_FORM_addr") else start + high.value
        yield start, end
        return
    rows = entry.attributes.get("DW_AT_ranges")
    lists = dwarf.range_lists() if rows is not None else None
    if rows is None or lists is None:
        return
    base = _address(unit.get_top_DIE(), unit.get_top_DIE().attributes["DW_AT_low_pc"])
    found = lists.get_range_list_at_offset(rows.value, unit)
    for row in found:
        if not isinstance(row, RangeEntry):
            base = row.base_address
        elif row.is_absolute:
            yield row.begin_offset, row.end_offset
        else:
            yield base + row.begin_offset, base + row.end_offset


def _lines(dwarf: Any, unit: Any, start: int, size: int) -> Iterator[LineRow]:
    program = dwarf.line_program_for_CU(unit)
    if program is None:
        return
    files = program["file_entry"]
    first = 0 if program["version"] >= 5 else 1  # DWARF 5, 6.2.4
    rows = []
    for row in program.get_entries():
        state = row.state
        if state is not None and not state.end_sequence and start <= state.address < start + size:
            number = state.file - first
            name = os.fsdecode(files[number].name) if 0 <= number < len(files) else ""
            rows.append(LineRow(state.address - start, os.path.basename(name), state.line, state.is_stmt))
    yield from sorted(rows, key=lambda row: row.offset)


def _frame_base(entry: Any, unwind: Sequence[UnwindRow]) -> int | None:
    """What DW_OP_fbreg counts from, as a distance from the CFA."""
    attribute = entry.attributes.get("DW_AT_frame_base")
    if attribute is None or not attribute.form.startswith(("DW_FORM_exprloc", "DW_FORM_block")):
        return None
    operations = DWARFExprParser(entry.cu.structs).parse_expr(attribute.value)
    if len(operations) != 1:
        return None
    name = operations[0].op_name
    if name == "DW_OP_call_frame_cfa":
        return 0
    register = {"DW_OP_reg6": RBP, "DW_OP_reg7": RSP}.get(name)
    distances = [row.distance for row in unwind if row.base == register]
    # In the body: the prologue's own rows are nearer to the CFA.
    return -max(distances) if register is not None and distances else None


def _variables(dwarf: Any, unit: Any, entry: Any, start: int, size: int, base: int | None) -> Iterator[Variable]:
    waiting: list[tuple[Any, tuple[tuple[int, int], ...]]] = [(entry, ((0, size),))]
    while waiting:
        block, scope = waiting.pop(0)
        for child in block.iter_children():
            if child.tag in ("DW_TAG_variable", "DW_TAG_formal_parameter"):
                found = _variable(child, scope, base, child.tag == "DW_TAG_formal_parameter" and block is entry)
                if found is not None:
                    yield found
            elif child.tag in _WITH_VARIABLES:
                inner = tuple((low - start, high - start) for low, high in _ranges(dwarf, unit, child))
                waiting.append((child, inner or scope))


def _keeps_variables(function: Any, base: int | None) -> bool:
    waiting = [function]
    while waiting:
        for child in waiting.pop().iter_children():
            if child.tag == "DW_TAG_inlined_subroutine":
                return False
            if child.tag in ("DW_TAG_variable", "DW_TAG_formal_parameter"):
                if "DW_AT_declaration" in child.attributes:
                    continue  # of one that is elsewhere
                found = _variable(child, (), base, False)
                if "DW_AT_location" not in child.attributes or (found is not None and found.place is None):
                    return False
            elif child.tag in _WITH_VARIABLES:
                waiting.append(child)
    return True


def _variable(entry: Any, scope: tuple[tuple[int, int], ...], base: int | None, is_parameter: bool) -> Variable | None:
    location = entry.attributes.get("DW_AT_location")
    if location is None and not is_parameter:
        return None  # optimised away, or a declaration of a global one
    place, is_indirect = None, False
    if location is not None and location.form.startswith(("DW_FORM_exprloc", "DW_FORM_block")):
        operations = DWARFExprParser(entry.cu.structs).parse_expr(location.value)
        names = [row.op_name for row in operations]
        if names[:1] == ["DW_OP_addr"] or names[:1] == ["DW_OP_addrx"] or "DW_OP_form_tls_address" in names:
            return None  # static: it is where it is
        if "DW_OP_GNU_push_tls_address" in names:
            return None
        if names[:1] == ["DW_OP_fbreg"] and base is not None and names[1:] in ([], ["DW_OP_deref"]):
            place, is_indirect = base + int(operations[0].args[0]), len(names) == 2
    type_entry = _attribute_entry(entry, "DW_AT_type")
    return Variable(
        _name(entry),
        _type_name(type_entry),
        _size(type_entry),
        place,
        scope,
        is_parameter,
        is_indirect,
        _in_vector(type_entry) if is_parameter else None,
    )


def _in_vector(entry: Any) -> bool | None:
    kinds = set(_kinds(entry))
    return kinds == {"float"} if len(kinds) == 1 and "" not in kinds else None


def _kinds(entry: Any, depth: int = 0) -> Iterator[str]:
    """What a type is made of: "integer" (pointers, too), "float", "" where it is not known."""
    if entry is None or depth > _DEEPEST:
        yield ""
    elif entry.tag in _INTEGERS:
        yield "integer"
    elif entry.tag == "DW_TAG_base_type":
        encoding = entry.attributes.get("DW_AT_encoding")
        yield "" if encoding is None else "float" if encoding.value in _FLOATS else "integer"
    elif entry.tag in ("DW_TAG_typedef", "DW_TAG_array_type", *_POINTERS):
        yield from _kinds(_attribute_entry(entry, "DW_AT_type"), depth + 1)
    elif entry.tag in _AGGREGATES:
        for child in entry.iter_children():
            if child.tag in ("DW_TAG_member", "DW_TAG_inheritance") and "DW_AT_external" not in child.attributes:
                yield from _kinds(_attribute_entry(child, "DW_AT_type"), depth + 1)
            elif child.tag == "DW_TAG_variant_part":
                yield ""
    else:
        yield ""


def _attribute_entry(entry: Any, attribute: str, depth: int = 0) -> Any:
    """What an attribute refers to; also of the abstract or declared entry that this one is an instance of."""
    if attribute in entry.attributes:
        return entry.get_DIE_from_attribute(attribute)
    for origin in ("DW_AT_abstract_origin", "DW_AT_specification"):
        if origin in entry.attributes and depth < _DEEPEST:
            return _attribute_entry(entry.get_DIE_from_attribute(origin), attribute, depth + 1)
    return None


def _name(entry: Any, depth: int = 0) -> str:
    if "DW_AT_name" in entry.attributes:
        return os.fsdecode(entry.attributes["DW_AT_name"].value)
    for origin in ("DW_AT_abstract_origin", "DW_AT_specification"):
        if origin in entry.attributes and depth < _DEEPEST:
            return _name(entry.get_DIE_from_attribute(origin), depth + 1)
    return ""


def _type_name(entry: Any, depth: int = 0) -> str:
    if entry is None:
        return "void"
    if depth > _DEEPEST:
        return "..."
    if entry.tag in _POINTERS:
        return _type_name(_attribute_entry(entry, "DW_AT_type"), depth + 1) + _POINTERS[entry.tag]
    if entry.tag == "DW_TAG_array_type":
        counts = [_count(child) for child in entry.iter_children() if child.tag == "DW_TAG_subrange_type"]
        return _type_name(_attribute_entry(entry, "DW_AT_type"), depth + 1) + "".join(f"[{row}]" for row in counts)
    if entry.tag == "DW_TAG_subroutine_type":
        taken = [
            _type_name(_attribute_entry(child, "DW_AT_type"), depth + 1)
            for child in entry.iter_children()
            if child.tag == "DW_TAG_formal_parameter"
        ]
        return f"{_type_name(_attribute_entry(entry, 'DW_AT_type'), depth + 1)} ({', '.join(taken)})"
    name = _name(entry)
    if name:
        return name
    place = (entry.attributes[key].value for key in ("DW_AT_decl_line", "DW_AT_byte_size") if key in entry.attributes)
    return f"{entry.tag} {' '.join(map(str, place))}"


def _count(entry: Any) -> object:
    for name, more in (("DW_AT_count", 0), ("DW_AT_upper_bound", 1)):
        attribute = entry.attributes.get(name)
        if attribute is not None and isinstance(attribute.value, int):
            return attribute.value + more
    return ""


def _size(entry: Any, depth: int = 0) -> int:
    """In bytes; 0 when it is not known."""
    if entry is None or depth > _DEEPEST:
        return 0
    size = entry.attributes.get("DW_AT_byte_size")
    if size is not None and isinstance(size.value, int):
        return int(size.value)
    if entry.tag in ("DW_TAG_pointer_type", "DW_TAG_reference_type", "DW_TAG_rvalue_reference_type"):
        return 8
    inner = _size(_attribute_entry(entry, "DW_AT_type"), depth + 1)
    if entry.tag == "DW_TAG_array_type":
        for child in entry.iter_children():
            count = _count(child) if child.tag == "DW_TAG_subrange_type" else 1
            inner = inner * count if isinstance(count, int) else 0
    return inner
