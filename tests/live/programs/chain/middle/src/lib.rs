pub fn bill(items: u64) -> String {
    format!("{} for {:?}", base::counted::price(items), base::counted::doubled(&items))
}

pub fn line() -> u32 {
    base::counted::line(&"")
}
