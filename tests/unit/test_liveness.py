"""What a place in a function depends on."""

from __future__ import annotations

import pytest
from frame_sides import Version, version

from ipbp.arch.x86_64_effects import wholes_of
from ipbp.stages.liveness import bits, flow_of, live_frame, live_registers

COMPILERS = ("gcc", "clang-19")


def live_at(one: Version, text: str) -> tuple[set[str], set[str]]:
    """Registers, and variables of the frame, that the line with this text depends on."""
    function, rows = one.side.function, one.side.rows
    assert rows is not None
    flow = flow_of(function, rows)
    here = flow.at[one.at(text)]
    frame = live_frame(flow, function)[here]
    named = {row.name for row in function.variables if row.place is not None and frame & bits(row.place, row.size)}
    return set(wholes_of(live_registers(flow)[here])) - {"rsp", "rbp", "rip"}, named


@pytest.mark.parametrize("compiler", COMPILERS)
def test_a_line_of_unoptimised_code_depends_on_the_frame_alone(compiler: str) -> None:
    one = version("int g(int);\nint f(int a, int b) {\n int c = a;\n c += g(b);\n a = 1;\n return c + a;\n}", compiler)
    assert live_at(one, "int c") == (set(), {"a", "b"})
    assert live_at(one, "c += g") == (set(), {"b", "c"})
    assert live_at(one, "a = 1") == (set(), {"c"})


@pytest.mark.parametrize("compiler", COMPILERS)
def test_what_is_read_in_the_next_round_of_a_loop_is_live_at_its_end(compiler: str) -> None:
    source = "int f(int n) {\n int a = 1, b = 2;\n while (n--) {\n  a = b;\n  b = n;\n }\n return a;\n}"
    assert live_at(version(source, compiler), "b = n") == (set(), {"n", "a"})


@pytest.mark.parametrize("compiler", COMPILERS)
def test_a_case_that_another_runs_into_is_a_way_from_the_table(compiler: str) -> None:
    cases = "\n".join(f"  case {n}: a += {n}; break;" for n in range(3, 12))
    source = (
        "int f(int n, int a) {\n int late = 7;\n switch (n) {\n  case 1:\n   late = 1;\n  case 2:\n   a += late;\n"
        "   break;\n"
        f"{cases}\n }}\n return a;\n}}"
    )
    one = version(source, compiler)
    assert any(row.is_indirect for row in one.side.rows or ())  # there is a table
    assert live_at(one, "switch (n)") == (set(), {"n", "a", "late"})


@pytest.mark.parametrize("compiler", COMPILERS)
def test_the_number_of_vector_registers_is_an_argument_of_a_variadic_function(compiler: str) -> None:
    one = version('int printf(const char *, ...);\nint f(double a) {\n a += 1;\n return printf("x", a);\n}', compiler)
    function, rows = one.side.function, one.side.rows
    assert rows is not None
    flow = flow_of(function, rows)
    call = next(index for index, row in enumerate(rows) if row.is_call)
    assert {"rax", "xmm0", "rdi"} <= wholes_of(live_registers(flow)[call])
    assert "rax" not in wholes_of(live_registers(flow)[flow.at[one.at("return")]])


def test_an_address_that_is_taken_reads_the_whole_variable() -> None:
    one = version("void g(int *);\nint f(int a) {\n int room[4];\n room[0] = a;\n g(room);\n return 1;\n}")
    assert live_at(one, "room[0]") == (set(), {"a", "room"})
    assert live_at(one, "return 1") == (set(), set())
