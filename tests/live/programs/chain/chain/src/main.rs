//! Answers each line of its input with one of its output, by the function that the first word names.

mod first;
mod second;

use std::io::{BufRead, Write};

fn main() {
    for line in std::io::stdin().lock().lines() {
        let line = line.unwrap();
        let (word, rest) = line.split_once(' ').unwrap_or((&line, ""));
        let answer = match word {
            "bill" => middle::bill(rest.parse().unwrap()),
            "greet" => first::greet(rest),
            "sum" => second::sum(rest).to_string(),
            "line" => middle::line().to_string(),
            "note" => second::note(),
            "calls" => ground::counted::calls().to_string(),
            _ => "?".to_string(),
        };
        println!("{answer}");
        std::io::stdout().flush().unwrap();
    }
}
