//! State, and a panic that is caught.

use std::collections::HashMap;
use std::sync::Mutex;

static SHELF: Mutex<Option<HashMap<String, u64>>> = Mutex::new(None);

#[inline(never)]
pub fn add(text: &str) -> String {
    let mut shelf = SHELF.lock().unwrap();
    let shelf = shelf.get_or_insert_with(HashMap::new);
    let count = shelf.entry(text.to_string()).or_insert(0);
    *count += 1 + grain::grind(text, 3) % 2;
    let count = *count;
    format!("{count} of {}", shelf.len())
}

#[inline(never)]
pub fn fall(text: &str) -> String {
    let number: usize = text.parse().unwrap_or(0);
    let rows = [1, 2, 3];
    let caught = std::panic::catch_unwind(|| rows[number]);
    match caught {
        Ok(row) => row.to_string(),
        Err(_) => String::from("fell"),
    }
}
