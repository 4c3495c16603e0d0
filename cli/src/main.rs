//! Meshwork: cli.
fn main() {}
