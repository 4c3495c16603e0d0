//! Networks that break: a registry, two instances and a client on hosts of a simulated network, on simulated time.
//!
//! The simulation (turmoil) drops what is sent over a cut link and never sends it again, so that a connection that was cut
//! once stays silent for ever: the hardest case for its two ends. Sagas are not here, because SQLite and the writer's
//! thread take real time; `tests/mesh/partition.rs` has them.

mod delays;
mod partitions;
mod world;
