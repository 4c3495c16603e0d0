//! Meshwork: order.
fn main() {}
