//! Compiles the contract in `proto/` with protox, so that protoc need not be installed.

use std::{env, error::Error, fs, path::PathBuf};

/// The files of the contract, below `proto/`: change this list when you add or rename one.
const FILES: [&str; 1] = ["{{snake}}/v1/{{snake}}.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler
        .include_imports(true)
        .include_source_info(true)
        .open_files(FILES)?;

    // Servers publish the descriptors: for reflection, and so that clients learn which calls may be
    // sent again.
    let descriptors = PathBuf::from(env::var("OUT_DIR")?).join("descriptors.bin");
    fs::write(descriptors, compiler.encode_file_descriptor_set())?;

    let mut prost = tonic_prost_build::Config::new();
    prost.enable_type_names();
    // Without tonic's own transport: the mesh owns its connections.
    tonic_prost_build::configure()
        .build_transport(false)
        .emit_rerun_if_changed(false)
        .compile_fds_with_config(compiler.file_descriptor_set(), prost)?;
    Ok(())
}
