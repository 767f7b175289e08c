//! A trait with several implementations, called through tables.

pub trait Shape {
    fn area(&self) -> u64;

    fn name(&self) -> String {
        parts::twice("shape")
    }
}

pub struct Square(pub u64);

pub struct Rectangle {
    pub width: u64,
    pub height: u64,
}

impl Shape for Square {
    fn area(&self) -> u64 {
        self.0 * self.0
    }
}

impl Shape for Rectangle {
    fn area(&self) -> u64 {
        self.width * self.height
    }

    fn name(&self) -> String {
        String::from("rectangle")
    }
}

pub fn some() -> Vec<Box<dyn Shape>> {
    vec![Box::new(Square(3)), Box::new(Rectangle { width: 2, height: 5 })]
}
