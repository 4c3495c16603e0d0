//! Meshwork's query service: orders and customers as one view, folded from the event streams of both services.
//!
//! Modules are listed in the order in which an event, and then a query, passes through them.

pub mod domain;
pub mod store;
pub mod view;

pub mod watch;

pub mod position;

pub mod service;

mod message;
