//! What the program and its plugin both have a copy of.

pub fn weighed(number: u64) -> u64 {
    number * 2
}
