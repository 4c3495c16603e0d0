//! Meshwork: a proxyless gRPC service mesh.
//!
//! Modules are listed in the order in which a call, and what it changes, passes through them.

pub mod contract;
pub mod rpc;

mod mesh;

pub mod discovery;

mod balance;

pub mod channel;

pub mod deadline;
pub mod headers;

mod backoff;

pub mod server;

pub mod event;

pub mod write;

pub mod store;

pub mod process;
pub mod telemetry;

pub use mesh::{Mesh, MeshBuilder, MeshError};
