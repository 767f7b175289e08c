//! A library for programs in any language, with state of its own.

use std::cell::{Cell, RefCell};
use std::ffi::{CString, c_char};
use std::sync::atomic::{AtomicU64, Ordering};

static ASKED: AtomicU64 = AtomicU64::new(100);
thread_local! {
    static MINE: Cell<u64> = const { Cell::new(0) };
    static SAID: RefCell<CString> = RefCell::new(CString::default());
}

fn risky(number: u64) -> u64 {
    if number > 5 {
        panic!("too many");
    }
    number
}

/// What it says is good until it is asked again.
#[unsafe(no_mangle)]
pub extern "C" fn plugged(number: u64) -> *const c_char {
    let asked = ASKED.fetch_add(1, Ordering::Relaxed);
    MINE.set(MINE.get() + 1);
    let safe = std::panic::catch_unwind(|| risky(number)).map_err(|cause| cause.downcast_ref::<&str>().copied());
    let said = format!("{asked} {} {} {safe:?}", MINE.get(), shared::weighed(number));
    SAID.set(CString::new(said).unwrap());
    SAID.with_borrow(|said| said.as_ptr())
}
