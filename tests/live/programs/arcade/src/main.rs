//! A game without a picture: sixty steps a second, each of them timed. It answers questions about itself meanwhile.

mod world;

use std::io::BufRead;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use world::World;

static STEPS: AtomicU64 = AtomicU64::new(0);
static SPEED: AtomicU64 = AtomicU64::new(0);
/// Microseconds from the beginning of a step to that of the next one, and of work in one step, at most.
static LONGEST: AtomicU64 = AtomicU64::new(0);
static OVER: AtomicBool = AtomicBool::new(false);

fn answer() {
    for line in std::io::stdin().lock().lines() {
        match line.unwrap().as_str() {
            "steps" => println!("{}", STEPS.load(Ordering::Relaxed)),
            "speed" => println!("{}", SPEED.load(Ordering::Relaxed)),
            "longest" => println!("{}", LONGEST.swap(0, Ordering::Relaxed)),
            _ => println!("?"),
        }
    }
    OVER.store(true, Ordering::Relaxed);
}

fn main() {
    std::thread::spawn(answer);
    let mut world = World::new();
    let length = Duration::from_micros(16_667);
    let mut next = Instant::now();
    let mut last = next;
    while !OVER.load(Ordering::Relaxed) {
        let speed = world.step();
        SPEED.store(speed, Ordering::Relaxed);
        STEPS.fetch_add(1, Ordering::Relaxed);
        next += length;
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
        let now = Instant::now();
        LONGEST.fetch_max(now.duration_since(last).as_micros() as u64, Ordering::Relaxed);
        last = now;
    }
}
