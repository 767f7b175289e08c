//! What a macro, a build script, a file of text and the environment made of it.

use std::io::{BufRead, Write};

include!(concat!(env!("OUT_DIR"), "/made.rs"));

marks::stamp!();

fn answer() -> String {
    format!("{} {MADE} {} {}", stamp(), include_str!("words.txt"), option_env!("SEAL").unwrap_or("open"))
}

fn main() {
    for line in std::io::stdin().lock().lines() {
        line.unwrap();
        println!("{}", answer());
        std::io::stdout().flush().unwrap();
    }
}
