const OTHER: i64 = 100;

#[inline(never)]
pub fn other(ticks: i64) -> i64 {
    ticks * 0 + OTHER
}
