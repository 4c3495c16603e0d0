//! Compiles the mesh's own contracts in `proto/meshwork`, and gRPC's health service in `proto/grpc`, to Rust with protox, so
//! that protoc need not be installed.

use std::{env, error::Error, fs, path::PathBuf};

const FILES: [&str; 8] = [
    "grpc/health/v1/health.proto",
    "meshwork/registry/v1/authorization.proto",
    "meshwork/registry/v1/binding.proto",
    "meshwork/registry/v1/policy.proto",
    "meshwork/registry/v1/registry.proto",
    "meshwork/registry/v1/store.proto",
    "meshwork/event/v1/event.proto",
    "meshwork/event/v1/operations.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto/grpc");
    println!("cargo:rerun-if-changed=proto/meshwork");
    let out = PathBuf::from(env::var("OUT_DIR")?);

    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler.include_imports(true).include_source_info(true);
    compiler.open_files(FILES)?;
    // With the source info, so that `grpcurl describe` shows the contract's comments.
    fs::write(out.join("descriptors.bin"), compiler.encode_file_descriptor_set())?;

    let mut prost = tonic_prost_build::Config::new();
    prost.enable_type_names();
    // In order, so that a policy has one encoding, and its etag is a hash of that.
    prost.btree_map([".meshwork.registry.v1.SplitPolicy"]);
    tonic_prost_build::configure()
        .build_transport(false)
        .emit_rerun_if_changed(false)
        .include_file("contract.rs")
        .compile_fds_with_config(compiler.file_descriptor_set(), prost)?;
    Ok(())
}
