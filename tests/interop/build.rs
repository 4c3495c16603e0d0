//! Compiles gRPC's test contract with protox, so that protoc need not be installed.

use std::{env, error::Error, fs, path::PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler.include_imports(true).open_file("grpc/testing/test.proto")?;
    // They tell a server which of its methods stream, and what it is asked by reflection.
    fs::write(PathBuf::from(env::var("OUT_DIR")?).join("test.bin"), compiler.encode_file_descriptor_set())?;
    tonic_prost_build::configure()
        .build_transport(false)
        .emit_rerun_if_changed(false)
        .compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}
