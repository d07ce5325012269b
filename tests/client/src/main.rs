//! Writes rows and keeps its own log of what was acknowledged.

fn main() {}
