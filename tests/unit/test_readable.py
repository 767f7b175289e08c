"""Names in what the user reads: of Rust and C++ as the language writes them, all others as they are."""

from __future__ import annotations

import pytest

from ipbp.errors import IpbpError, Refusal, Refused
from ipbp.pipeline.readable import readable, readable_errors, readable_name

LEGACY = "_ZN48_$LT$shapes..Square$u20$as$u20$shapes..Shape$GT$4area17h250280eaf3487c6bE"


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (LEGACY, "<shapes::Square as shapes::Shape>::area"),
        (f"{LEGACY}.llvm.5534905088809361113", "<shapes::Square as shapes::Shape>::area"),
        ("_ZN5grain5grind17hfa76cb3b4f0ebfecE.3", "grain::grind"),
        ("_RNCNvNtCshGDKAOJ0RnX_4mill6coarse4mill0", "mill::coarse::mill::{closure#0}"),
        ("_RINvCsear8qTZLDPg_5grain5labeljECshGDKAOJ0RnX_4mill", "grain::label::<usize>"),
        ("_ZN4Shop5priceEi", "Shop::price(int)"),
        ("_Random_numbers", "_Random_numbers"),
        ("main", "main"),
    ],
)
def test_a_name_is_shown_as_the_source_has_it(name: str, shown: str) -> None:
    assert readable_name(name) == shown


def test_names_inside_a_sentence_are_made_readable() -> None:
    assert readable(f"now calls {LEGACY} instead of _Z3oldv: done.") == (
        "now calls <shapes::Square as shapes::Shape>::area instead of old(): done."
    )
    assert readable("/srv/_Zoo/file.c: nothing") == "/srv/_Zoo/file.c: nothing"


def test_refusals_keep_the_symbols_name_beside_the_words() -> None:
    with pytest.raises(Refused) as caught, readable_errors():
        raise Refused([Refusal("entry-shared", "'_Z3onev' and '_Z3twov' are 1", "Edit '_Z3onev'.", "_Z3onev", "a.cc")])
    (row,) = caught.value.refusals
    assert (row.fact, row.advice) == ("'one()' and 'two()' are 1", "Edit 'one()'.")
    assert (row.symbol, row.file) == ("_Z3onev", "a.cc")
    with pytest.raises(IpbpError) as error, readable_errors():
        raise IpbpError("no-symbols", "the place of _Z3onev is not known", "Look.", "rustc's own _Z3onev")
    assert error.value.fact == "the place of one() is not known"
    assert error.value.detail == "rustc's own _Z3onev"
