//! The whole mesh in one process, over real connections: one file for each promise. Each test
//! runs on SQLite, and on PostgreSQL where `MESHWORK_TEST_POSTGRES` names a server.

mod bad_input;
mod credit;
mod failures;
mod fuzz;
mod identity;
mod late_client;
mod mixed_versions;
mod partition;
mod read_side;
mod registries;
mod restart;
mod restore;
mod saga;
mod shop;
mod stores;
mod trace;
