//! Meshwork: customer.
fn main() {}
