"""An edit that stays inside a function is told from one that other crates have a copy of, or see."""

from __future__ import annotations

import pytest

from ipbp.build.rust_text import noticed_outside
from ipbp.build.rust_tokens import NotUnderstood, tokens

SOURCE = """\
//! Prices of a shop.
use std::collections::HashMap;

#[derive(Clone, Debug)]
pub struct Item { pub name: String, pub parts: [u8; { 1 + 1 }] }

const BASE: u64 = { 7 };
static TABLE: [u64; 2] = [BASE, 2];

/// What an item costs: "plain" is '"', not '\\''.
#[must_use]
pub fn price(item: &Item) -> u64 {
    let text = r#"a " quote"#; // } not a brace
    /* } nor /* this */ one } */
    let close = '}';
    item.name.len() as u64 + text.len() as u64 + close as u64
}

pub fn twice<T: Clone>(value: &T) -> (T, T) {
    (value.clone(), value.clone())
}

#[inline]
pub fn small() -> u64 { 1 }

pub const fn fixed() -> u64 { 2 }

pub async fn later() -> u64 { 3 }

pub fn rules(tax: u64) -> impl Fn(u64) -> u64 { move |price| price + tax }

pub fn borrowed<'a>(items: &'a [Item]) -> &'a Item { &items[0] }

impl Item {
    pub fn total(&self, count: u64) -> u64 {
        println!("{count} of {}", self.name);
        count * 10
    }

    pub fn all<T>(&self, of: T) -> Vec<T> { vec![of] }
}

impl<T> From<Vec<T>> for Item {
    fn from(_: Vec<T>) -> Self { Item { name: String::new(), parts: [4, 4] } }
}

impl Drop for Item {
    fn drop(&mut self) { log::info!("gone {}", 5); self.parts = [6, 6]; }
}

macro_rules! made { ($name:ident) => { pub fn $name() -> u64 { 8 } } }
made! { nine }

mod inner {
    #![allow(dead_code)]
    pub fn deep(a: u64) -> Vec<u64> { (0..a).map(|x| x + 9).collect() }
    #[tracing::instrument]
    pub fn traced() -> u64 { 11 }
}

trait Priced { fn cost(&self) -> u64 { 12 } }

extern "C" fn callback(x: i32) -> i32 { x + 13 }
"""

INSIDE = [
    ("count * 10", "count * 20 - 1"),
    ("close as u64", 'close as u64 + "}".len() as u64'),
    ("/* } nor /* this */ one } */", "// another comment }\n\n"),
    ('println!("{count} of {}", self.name);', 'println!("{count} pieces of {} {}", self.name, count + 1);'),
    ("&items[0]", "&items[items.len() - 1]"),
    ("self.parts = [6, 6];", "self.parts = [7, 6];"),
    ("x + 9", "x + 99"),
    ("x + 13", "x + 14"),
    ("count * 10", "(0..count).map(|x| x * 10).sum()"),
    ("count * 10", 'assert!(count > 0, "none"); count * 10'),
    ("pub fn twice", "// A comment between items.\npub fn twice"),
]
OUTSIDE = [
    ("pub name", "pub title"),
    ("{ 1 + 1 }", "{ 1 + 2 }"),
    ("{ 7 }", "{ 8 }"),
    ("value.clone())", "value.to_owned())"),
    ("u64 { 1 }", "u64 { 21 }"),
    ("u64 { 2 }", "u64 { 22 }"),
    ("u64 { 3 }", "u64 { 23 }"),
    ("price + tax", "price - tax"),
    ("vec![of]", "Vec::from([of])"),
    ("[4, 4]", "[5, 4]"),
    ("u64 { 8 }", "u64 { 28 }"),
    ("made! { nine }", "made! { ten }"),
    ("u64 { 11 }", "u64 { 31 }"),
    ("u64 { 12 }", "u64 { 32 }"),
    ("//! Prices of a shop.", "//! Prices of another shop."),
    ("count: u64) -> u64 {", "count: u32) -> u64 {"),
    ("#[must_use]", "#[inline]"),
    # What reaches out of a body.
    ("count * 10", "impl Clone for Other { fn clone(&self) -> Self { Other } } count * 10"),
    ("count * 10", "made! { eleven } count * 10"),
    ("count * 10", "const { 10 } * count"),
    ("count * 10", "fn inner() -> u64 { 10 } count * inner()"),
    ("count * 10", "std::println!(); count * 10"),
    ('log::info!("gone {}", 5)', 'log::info!("gone {}", 6)'),
    ("self.parts = [6, 6];", "let _ = |x: u8| x; self.parts = [6, 6];"),
]


@pytest.mark.parametrize(("old", "new"), INSIDE)
def test_what_stays_in_a_body_is_not_noticed(old: str, new: str) -> None:
    assert SOURCE.count(old) == 1
    assert not noticed_outside(SOURCE, SOURCE.replace(old, new))[0]


@pytest.mark.parametrize(("old", "new"), OUTSIDE)
def test_what_others_have_or_see_is_noticed(old: str, new: str) -> None:
    assert SOURCE.count(old) == 1
    assert noticed_outside(SOURCE, SOURCE.replace(old, new))[0]


def test_a_line_that_moves_is_noticed_where_code_of_others_tells_it() -> None:
    for inside in ("line!() as u64", "column!() as u64", "here!()", "{ dbg!(1); 1 }"):
        for generic in ("pub fn f<T>() -> u64 { %s }\n", "trait T { fn f() -> u64 { %s } }\n", "const C: u64 = %s;\n"):
            source = generic % inside
            assert not noticed_outside(source, source + "// a comment\n")[0]
            assert noticed_outside("\n" + source, "\n\n" + source)[0], source
            assert noticed_outside(source, source.replace("u64 ", "u64  "))[0], source
    for body in ("pub fn f() -> u32 { line!() }", "pub fn f<T>() { panic!() }", "thread_local! { static A: u8 = 1; }"):
        assert not noticed_outside("\n" + body, "\n\n" + body)[0]


def test_a_constant_in_a_signature_is_no_body() -> None:
    source = "pub fn f() -> Wrapped<{ 1 + 1 }> { Wrapped }\npub fn g() -> [u8; { 2 }] { [0; 2] }\n"
    assert noticed_outside(source, source.replace("1 + 1", "1 + 2"))[0]
    assert noticed_outside(source, source.replace("{ 2 }", "{ 3 }"))[0]
    assert not noticed_outside(source, source.replace("[0; 2]", "[1; 2]"))[0]


def test_macros_that_the_answer_rests_on_are_named() -> None:
    edited = SOURCE.replace("count * 10", 'assert!(count > 0, "none"); count * 10')
    assert noticed_outside(SOURCE, edited) == (False, {"assert"})
    assert noticed_outside(SOURCE, SOURCE.replace("{count} of", "{count} by")) == (False, {"println"})


@pytest.mark.parametrize("text", ['"open', "/* open", 'r#"open"', "fn f() { (] }", "fn f() {", "}"])
def test_what_does_not_balance_is_noticed(text: str) -> None:
    assert noticed_outside(text, text)[0]


def test_tokens_keep_what_a_macro_would_see() -> None:
    rows = tokens("/// doc\n'a' 'b 'static r#type 0..9 1.5e3 b'\\n' c\"x\" /** d */ /***/ // gone\n>>=")
    assert [row.text for row in rows] == [
        "/// doc", "'a'", "'b", "'static", "r#type", "0", ".", ".", "9", "1.5e3", "b'\\n'", 'c"x"', "/** d */",
        ">", ">", "=",
    ]  # fmt: skip
    assert [row.is_apart for row in rows[-3:]] == [True, False, False]
    with pytest.raises(NotUnderstood):
        tokens("'unterminated \x00\"")
