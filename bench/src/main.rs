//! Meshwork: bench.
fn main() {}
