pub fn bill(items: u64) -> String {
    format!("{} for {:?}", base::counted::price(items), base::counted::doubled(&items))
}
