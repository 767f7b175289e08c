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
