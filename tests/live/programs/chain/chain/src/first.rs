pub fn greet(name: &str) -> String {
    format!("{} ({})", ground::named::greeting(name), ground::named::short(name))
}
