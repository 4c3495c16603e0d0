//! What the benchmarks and their callers have in common: the echo's contract, and what they say to each other.
//!
//! A caller is a process with one client. It makes the calls of a slice on request, so that the CPU time of the process
//! is the client's alone, and so that the same program can be built against another library and measured beside this.

mod wire;

pub use wire::{Load, Slice};

/// Made from `echo.proto` by build.rs.
#[allow(missing_docs, clippy::all, clippy::pedantic)]
pub mod contract {
    tonic::include_proto!("meshwork.bench.v1");
    pub const DESCRIPTORS: &[u8] = tonic::include_file_descriptor_set!("echo");
}

/// tonic's own idea of an address, with its defaults but without Nagle's delay.
///
/// # Panics
/// If `address` is not `host:port`.
pub fn endpoint(address: &str) -> tonic::transport::Endpoint {
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{address}"));
    endpoint.expect("host:port makes a URI").tcp_nodelay(true)
}
