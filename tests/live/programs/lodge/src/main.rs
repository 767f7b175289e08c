//! Answers each line of its input with one of its output.

use std::cell::RefCell;
use std::io::{BufRead, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};

use lodge::{beasts, futures, state};

struct Told<'a>(&'static str, &'a RefCell<String>);

impl Drop for Told<'_> {
    fn drop(&mut self) {
        self.1.borrow_mut().push_str(self.0);
    }
}

fn risky(number: u64, log: &RefCell<String>) -> u64 {
    let _first = Told("a", log);
    let _second = Told("b", log);
    if number > 5 {
        panic!("too many: {number}");
    }
    number
}

fn survive(number: u64) -> String {
    let log = RefCell::new(String::new());
    let said = match catch_unwind(AssertUnwindSafe(|| risky(number, &log))) {
        Ok(value) => value.to_string(),
        Err(cause) => cause.downcast_ref::<String>().unwrap().clone(),
    };
    format!("{said} {}", log.borrow())
}

fn scale(number: u64) -> u64 {
    number * 2
}

struct House {
    waiting: futures::Waiting,
    farm: beasts::Farm,
    rules: Vec<Box<dyn Fn(u64) -> u64>>,
    worker: state::Worker,
    scale: fn(u64) -> u64,
}

fn answer(house: &mut House, command: &str, rest: &str) -> String {
    let number = rest.parse().unwrap_or(0);
    match command {
        "turn" => futures::turn(&mut house.waiting),
        "calls" => beasts::calls(&house.farm),
        "things" => beasts::things(&mut house.farm),
        "rules" => house.rules.iter().map(|rule| rule(number).to_string()).collect::<Vec<_>>().join(" "),
        "statics" => state::statics(rest),
        "work" => state::ask(&house.worker),
        "end" => state::end(&mut house.worker),
        "survive" => survive(number),
        "scale" => format!("{} {}", (house.scale)(number), scale(number)),
        _ => String::from("?"),
    }
}

fn main() {
    let mut house = House {
        waiting: futures::begin(),
        farm: beasts::farm(),
        rules: beasts::rules(6, 2),
        worker: state::worker(),
        scale,
    };
    std::panic::set_hook(Box::new(|_| ()));
    for line in std::io::stdin().lock().lines() {
        let line = line.unwrap();
        let (command, rest) = line.split_once(' ').unwrap_or((&line, ""));
        println!("{}", answer(&mut house, command, rest));
        std::io::stdout().flush().unwrap();
    }
}
