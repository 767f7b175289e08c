use std::sync::atomic::{AtomicU64, Ordering};

static CALLS: AtomicU64 = AtomicU64::new(0);

pub fn price(items: u64) -> u64 {
    CALLS.fetch_add(1, Ordering::Relaxed);
    items * 10
}

pub fn calls() -> u64 {
    CALLS.load(Ordering::Relaxed)
}

/// Others compile this one.
pub fn doubled<T: Clone>(value: &T) -> Vec<T> {
    vec![value.clone(), value.clone()]
}

/// Others compile this one, too, and it tells where it is.
pub fn line<T>(_value: &T) -> u32 {
    line!()
}
