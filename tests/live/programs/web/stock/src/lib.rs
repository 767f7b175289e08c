//! What the shop has.

use std::sync::atomic::{AtomicU64, Ordering};

static ASKED: AtomicU64 = AtomicU64::new(0);

/// A line for the visitor.
pub fn describe(name: &str) -> String {
    ASKED.fetch_add(1, Ordering::Relaxed);
    format!("stock of {name}")
}
