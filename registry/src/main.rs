//! Meshwork: registry.
fn main() {}
