//! The contracts of `proto/meshwork`, and gRPC's health service in `proto/grpc`, as Rust types, clients and servers: generated
//! code, nothing else.

#![allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic)]

/// The descriptors of every file in `proto/meshwork` and `proto/grpc`, and their imports, encoded, with comments: what
/// reflection serves.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

include!(concat!(env!("OUT_DIR"), "/contract.rs"));
