pub fn sum(words: &str) -> u64 {
    words.split(' ').map(|word| word.parse::<u64>().unwrap()).sum()
}

/// Nothing calls it, so that it is not linked in.
#[unsafe(no_mangle)]
pub extern "C" fn chain_spare(number: u64) -> u64 {
    number + 900
}

pub fn note() -> String {
    ground::named::noted(7)
}
