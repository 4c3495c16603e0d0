//! The whole mesh in one process, over real connections: one file for each promise.

mod bad_input;
mod credit;
mod failures;
mod late_client;
mod read_side;
mod restart;
mod saga;
mod shop;
