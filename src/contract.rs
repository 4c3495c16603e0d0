//! The contracts of `proto/meshwork` as Rust types, clients and servers: generated code, nothing else.

#![allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic)]

/// The descriptors of every file in `proto/meshwork` and its imports, encoded, with comments: what reflection serves.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

include!(concat!(env!("OUT_DIR"), "/contract.rs"));
