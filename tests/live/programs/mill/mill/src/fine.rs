//! Another user of the grinder.

#[inline(never)]
pub fn mill(text: &str) -> u64 {
    let turned: String = text.chars().rev().collect();
    grain::husk(grain::grind(&turned, 7) + grain::grind(text, turned.len() as u64))
}

#[inline(never)]
pub fn sieve(text: &str) -> u64 {
    let best = text.split(' ').map(|word| (grain::grind(word, 1), word)).max();
    best.map_or(0, |(sum, word)| grain::husk(sum) * word.len() as u64)
}

#[inline(never)]
pub fn label(text: &str) -> String {
    grain::label(&text.len(), 1)
}
