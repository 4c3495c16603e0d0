//! The `meshwork` command as a library: [`fleet`] is the whole mesh in one process, for `up`, `demo`, tests and benchmarks.

pub mod fleet;
