//! Meshwork: query.
fn main() {}
