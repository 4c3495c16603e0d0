//! Meshwork: a proxyless gRPC service mesh.
//!
//! Modules are listed in the order in which a call, and what it changes, passes through them.

pub mod contract;
pub mod rpc;
// (server: merged from its branch)
/// The server runtime.
pub mod server {
    /// What a long stream ends with when its instance drains.
    pub fn draining_status() -> tonic::Status {
        tonic::Status::unavailable("this instance drains: try another")
    }
}
pub mod event;
pub mod store;
pub mod write;
