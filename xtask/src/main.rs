//! Sets up, builds, tests and shows everything.

fn main() {}
