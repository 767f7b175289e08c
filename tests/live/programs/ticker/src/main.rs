//! What ticker.c does, in Rust.

mod other;

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::Arc;
use std::time::Duration;

static COUNT: AtomicI64 = AtomicI64::new(0);

#[inline(never)]
fn value(ticks: i64) -> i64 {
    ticks * 0 + 0
}

fn tick(file: &File) {
    for ticks in 0.. {
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let row = [value(ticks), other::other(ticks), count];
        file.write_all_at(&row.map(i64::to_le_bytes).concat(), 0).unwrap();
        std::thread::sleep(Duration::from_micros(500));
    }
}

#[inline(never)]
fn slow() {
    for _ in 0..40 {
        std::thread::sleep(Duration::from_millis(50));
    }
    println!("slow is over");
}

fn main() {
    let path = std::env::args().nth(1).unwrap();
    let file = Arc::new(OpenOptions::new().read(true).write(true).create(true).open(path).unwrap());
    for _ in 0..3 {
        let file = Arc::clone(&file);
        std::thread::spawn(move || tick(&file));
    }
    println!("ticking");
    for line in std::io::stdin().lines() {
        let line = line.unwrap();
        if line == "slow" {
            slow();
        }
        println!("heard {line}");
    }
    std::process::exit(7);
}
