//! State of every kind, and a generic function that other crates instantiate.

use std::cell::Cell;
use std::fmt::Display;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock};

static COUNT: AtomicU64 = AtomicU64::new(100);
static NAMES: Mutex<Vec<String>> = Mutex::new(Vec::new());
static FIRST: OnceLock<String> = OnceLock::new();

thread_local! {
    static VISITS: Cell<u64> = const { Cell::new(0) };
}

pub fn price(items: u64) -> u64 {
    items * 10
}

pub fn tally(name: &str) -> String {
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let first = FIRST.get_or_init(|| name.to_string());
    let mut names = NAMES.lock().unwrap();
    names.push(name.to_string());
    format!("{count} {first} {}", names.len())
}

pub fn visits() -> u64 {
    VISITS.with(|visits| {
        visits.set(visits.get() + 1);
        visits.get()
    })
}

pub fn twice<T: Display>(value: T) -> String {
    format!("{value}{value}")
}
