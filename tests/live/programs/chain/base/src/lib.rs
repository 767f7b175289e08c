//! What the other crates are built on, in two modules, so that rustc makes several objects of it.

pub mod counted;
pub mod named;
