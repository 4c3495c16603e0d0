//! What the service under test and the client of the cases share: gRPC's test contract.

/// Made from `test.proto` by build.rs.
#[allow(unreachable_pub)]
pub mod contract {
    tonic::include_proto!("grpc.testing");
    pub const DESCRIPTORS: &[u8] = tonic::include_file_descriptor_set!("test");
}

pub mod echo;
pub mod frames;
pub mod service;

/// Metadata that a server sends back with its headers.
pub const ECHO_INITIAL: &str = "x-grpc-test-echo-initial";

/// Metadata that a server sends back with its trailers.
pub const ECHO_TRAILING: &str = "x-grpc-test-echo-trailing-bin";
