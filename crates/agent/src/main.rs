//! The entry point: picks a mode.
fn main() {}
