//! Meshwork's registry: which instances of which services are there, kept by leases and streamed to watchers.

pub mod table;
