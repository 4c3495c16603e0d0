//! Meshwork's query service: orders and customers as one view, folded from the event streams of both services.

pub mod domain;
pub mod store;
