//! What is in the game.

use std::collections::HashMap;

pub enum Mood {
    Calm,
    Angry { since: u64 },
}

pub struct World {
    name: String,
    bullets: Vec<u64>,
    scores: HashMap<String, u64>,
    best: Option<u64>,
    mood: Mood,
    steps: u64,
}

impl World {
    pub fn new() -> World {
        let scores = HashMap::from([(String::from("hero"), 7)]);
        World { name: String::from("cave"), bullets: vec![4, 5, 6], scores, best: Some(40), mood: Mood::Calm, steps: 0 }
    }

    /// One sixtieth of a second; how fast the bullets are.
    pub fn step(&mut self) -> u64 {
        self.steps += 1;
        if self.steps.is_multiple_of(8) {
            self.mood = Mood::Angry { since: self.steps };
        }
        let speed = self.look(10);
        if let Mood::Angry { since } = self.mood { speed + since - since } else { speed }
    }

    fn look(&self, factor: u64) -> u64 {
        let name = self.name.clone();
        let bullets: Vec<u64> = self.bullets.iter().map(|bullet| bullet * factor).collect();
        let scores = self.scores.clone();
        let best = self.best;
        let sum = bullets.iter().sum::<u64>();
        sum + name.len() as u64 + scores["hero"] + best.unwrap_or(0)
    }
}
