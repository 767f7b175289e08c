pub fn greeting(name: &str) -> String {
    format!("hello {name}")
}

#[inline]
pub fn short(name: &str) -> &str {
    &name[..1]
}

/// Nothing of the program calls it, so that it is not linked in.
#[unsafe(no_mangle)]
pub extern "C" fn base_spare(number: u64) -> u64 {
    number + 700
}

/// Its callers give it a number of whatever type it takes.
pub fn noted(weight: u32) -> String {
    format!("noted {weight}")
}

// Nothing uses what follows until an edit does, so that the linker leaves it out.
static SPARED: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);

#[inline(never)]
fn weighed(number: u64) -> u64 {
    number * 10
}

pub fn spared(number: u64) -> u64 {
    SPARED.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + weighed(number)
}

pub fn spared_twice(number: u64) -> u64 {
    spared(number) + spared(number + 1)
}
