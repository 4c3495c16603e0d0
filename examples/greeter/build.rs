//! Compiles the greeter's contract with protox, so that nobody has to install protoc.

use std::{env, error::Error, fs, path::PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler.include_imports(true).include_source_info(true).open_file("greeter.proto")?;
    // For reflection, and so that clients know which calls they may send again.
    fs::write(PathBuf::from(env::var("OUT_DIR")?).join("greeter.bin"), compiler.encode_file_descriptor_set())?;
    // Without tonic's own transport: the mesh owns its connections.
    tonic_prost_build::configure()
        .build_transport(false)
        .emit_rerun_if_changed(false)
        .compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}
