//! What optimised crates share: code that is inlined, code that every codegen unit has a copy of, generic code.

use std::fmt::Display;

/// Inlined everywhere.
#[inline]
pub fn husk(weight: u64) -> u64 {
    weight + 1
}

/// Calls itself, so that it is not inlined: every codegen unit that uses it has a copy.
#[inline]
pub fn grind(text: &str, seed: u64) -> u64 {
    let mut letters = text.chars();
    match letters.next() {
        Some('a'..='m') => grind(letters.as_str(), seed.wrapping_mul(3)) + 1,
        Some('n'..='z') => grind(letters.as_str(), seed.wrapping_mul(5)) ^ 2,
        Some(letter) => grind(letters.as_str(), seed + u64::from(letter)).wrapping_mul(7),
        None => seed % 1000,
    }
}

/// Instantiated in other crates.
pub fn label<T: Display>(value: &T, times: u64) -> String {
    let mut text = String::new();
    for _ in 0..times {
        text.push_str(&format!("<{value}>"));
    }
    text
}

/// The same code as `oats`.
#[inline(never)]
pub fn rye(weight: u64) -> u64 {
    weight.wrapping_mul(2654435761) ^ 12345
}

#[inline(never)]
pub fn oats(weight: u64) -> u64 {
    weight.wrapping_mul(2654435761) ^ 12345
}
