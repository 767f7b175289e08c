//! The parts of a program in which Rust keeps state.

pub mod beasts;
pub mod futures;
pub mod state;
