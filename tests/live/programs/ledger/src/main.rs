//! What frames.c does, in Rust; two answers panic.

use std::io::BufRead;

struct Entry {
    value: i32,
}

#[inline(never)]
fn scaled(entries: &[Entry], index: usize, scale: i32) -> i32 {
    let start = 5 + scale;
    let one = &entries[index];
    let found = one.value * scale;
    start + found
}

#[inline(never)]
fn require(is_so: bool, what: &str) {
    if !is_so {
        panic!("not {what}");
    }
}

#[inline(never)]
fn checked(value: i32) -> i32 {
    let twice = value * 2;
    require(twice < 10, "small");
    twice
}

#[inline(never)]
fn plain(value: i32) -> i32 {
    let twice = value + value;
    let more = twice + 1;
    more
}

fn answer(line: &str) -> i32 {
    let entries = [Entry { value: 3 }, Entry { value: 4 }];
    match line {
        "scaled" => scaled(&entries, 2, 10),
        "checked" => checked(7),
        "plain" => plain(20),
        _ => -1,
    }
}

#[inline(never)]
fn read_line() -> Option<String> {
    let mut line = String::new();
    let size = std::io::stdin().lock().read_line(&mut line).unwrap();
    if size > 0 { Some(line.trim_end().to_string()) } else { None }
}

fn main() {
    while let Some(line) = read_line() {
        println!("{}", answer(&line));
    }
}
