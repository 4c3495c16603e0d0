//! The contracts of `proto/shop` as Rust types, clients and servers: generated code, nothing else.

#![allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic)]

/// The descriptors of every file in `proto/shop` and its imports, encoded, with comments: what a server of the shop adds to
/// those of the mesh.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

include!(concat!(env!("OUT_DIR"), "/contract.rs"));
