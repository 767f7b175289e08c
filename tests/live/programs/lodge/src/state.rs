//! State of every kind.

use std::cell::{Cell, RefCell};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{channel, Receiver, Sender};
use std::sync::{LazyLock, Mutex, OnceLock};

pub const LIMIT: u64 = 10;
static TABLE: [u64; 3] = [1, 2, 3];
static mut PLAIN: u64 = 5;
static COUNT: AtomicU64 = AtomicU64::new(100);
static NAMES: LazyLock<Mutex<Vec<String>>> = LazyLock::new(|| Mutex::new(vec![String::from("first")]));
static ONCE: OnceLock<String> = OnceLock::new();

/// Says where it went when its thread ends.
pub struct Noisy(Sender<String>, u64);

impl Drop for Noisy {
    fn drop(&mut self) {
        let _ = self.0.send(format!("gone with {}", self.1));
    }
}

thread_local! {
    static FIXED: Cell<u64> = const { Cell::new(1) };
    static LAZY: RefCell<Vec<u64>> = RefCell::new(vec![1, 2]);
    static NOISY: RefCell<Option<Noisy>> = const { RefCell::new(None) };
}

pub fn statics(name: &str) -> String {
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let once = ONCE.get_or_init(|| name.to_string());
    let mut names = NAMES.lock().unwrap();
    names.push(name.to_string());
    unsafe { PLAIN += 1 };
    format!("{count} {once} {} {} {}", names.len(), unsafe { PLAIN }, TABLE[1] + LIMIT)
}

/// What a thread does when it is asked.
fn work(end: &Sender<String>) -> String {
    FIXED.with(|fixed| fixed.set(fixed.get() + 1));
    let lazy = LAZY.with_borrow_mut(|lazy| {
        lazy.push(0);
        lazy.len()
    });
    NOISY.with_borrow_mut(|noisy| noisy.get_or_insert_with(|| Noisy(end.clone(), 0)).1 += 1);
    format!("{} {lazy}", FIXED.get())
}

/// A thread with locals of its own; it ends when its sender is dropped.
pub struct Worker(Option<Sender<()>>, Receiver<String>);

pub fn worker() -> Worker {
    let (ask, asked) = channel();
    let (say, said) = channel();
    std::thread::spawn(move || {
        for () in asked {
            let _ = say.send(work(&say));
        }
    });
    Worker(Some(ask), said)
}

pub fn ask(worker: &Worker) -> String {
    worker.0.as_ref().unwrap().send(()).unwrap();
    worker.1.recv().unwrap()
}

pub fn end(worker: &mut Worker) -> String {
    worker.0 = None;
    worker.1.recv().unwrap()
}
