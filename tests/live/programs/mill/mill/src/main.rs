//! Answers each line of its input with one of its output, by the function that the first word names.

mod coarse;
mod fine;
mod store;

use std::io::{BufRead, Write};

/// All callers give it the same factor, and LLVM knows.
#[inline(never)]
fn scale(weight: u64, factor: u64) -> u64 {
    weight.wrapping_mul(factor) + factor / 2
}

#[inline(never)]
fn more(weight: u64) -> u64 {
    weight + 1
}

fn answer(command: &str, rest: &str) -> String {
    match command {
        "coarse" => coarse::mill(rest).to_string(),
        "fine" => fine::mill(rest).to_string(),
        "both" => (coarse::mill(rest) + fine::sieve(rest)).to_string(),
        "label" => format!("{}{}", coarse::label(rest), fine::label(rest)),
        "store" => store::add(rest),
        "rye" => grain::rye(rest.parse().unwrap_or(0)).to_string(),
        "oats" => grain::oats(rest.parse().unwrap_or(0)).to_string(),
        "scale" => scale(rest.parse().unwrap_or(0), 3).to_string(),
        "more" => more(rest.parse().unwrap_or(0)).to_string(),
        "fall" => store::fall(rest),
        _ => String::from("?"),
    }
}

fn main() {
    std::panic::set_hook(Box::new(|_| ()));
    for line in std::io::stdin().lock().lines() {
        let line = line.unwrap();
        let (command, rest) = line.split_once(' ').unwrap_or((&line, ""));
        println!("{}", answer(command, rest));
        std::io::stdout().flush().unwrap();
    }
}
