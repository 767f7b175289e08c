//! One user of the grinder.

#[inline(never)]
pub fn mill(text: &str) -> u64 {
    let first = grain::grind(text, 5);
    let steps: Vec<u64> = text.split(' ').map(|word| grain::grind(word, first)).collect();
    grain::husk(steps.iter().sum::<u64>() * 10)
}

#[inline(never)]
pub fn label(text: &str) -> String {
    grain::label(&text, 2)
}
