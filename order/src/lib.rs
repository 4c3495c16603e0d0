//! Meshwork's order service: orders, and the saga that approves or rejects them.

pub mod domain;
