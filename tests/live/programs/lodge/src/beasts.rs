//! Traits behind tables, and values that know their type.

use std::any::Any;
use std::rc::Rc;

pub trait Beast {
    fn legs(&self) -> u64;

    fn arms(&self) -> u64;

    fn call(&self, times: usize) -> String {
        "grr".repeat(times)
    }
}

pub struct Cat;

pub struct Hen {
    pub eggs: u64,
}

impl Beast for Cat {
    fn legs(&self) -> u64 {
        4
    }

    fn arms(&self) -> u64 {
        0
    }
}

impl Beast for Hen {
    fn legs(&self) -> u64 {
        2
    }

    fn arms(&self) -> u64 {
        self.eggs
    }

    fn call(&self, times: usize) -> String {
        "cluck".repeat(times)
    }
}

pub struct Farm {
    beasts: Vec<Box<dyn Beast>>,
    things: Vec<Rc<dyn Any>>,
}

pub fn farm() -> Farm {
    Farm { beasts: vec![Box::new(Cat), Box::new(Hen { eggs: 7 })], things: vec![Rc::new(Hen { eggs: 1 }), Rc::new(5u64)] }
}

pub fn calls(farm: &Farm) -> String {
    let words: Vec<String> =
        farm.beasts.iter().map(|beast| format!("{} {} {}", beast.legs(), beast.arms(), beast.call(1))).collect();
    words.join(", ")
}

pub fn things(farm: &mut Farm) -> String {
    farm.things.push(Rc::new(Hen { eggs: 2 }));
    let eggs: u64 = farm.things.iter().filter_map(|thing| thing.downcast_ref::<Hen>()).map(|hen| hen.eggs).sum();
    let shared = farm.things.iter().filter(|thing| Rc::strong_count(thing) > 1).count();
    format!("{eggs} {shared}")
}

pub fn rules(limit: u64, step: u64) -> Vec<Box<dyn Fn(u64) -> u64>> {
    vec![Box::new(move |value| value + limit * 2 + step), Box::new(move |value| (value ^ limit) - step)]
}
