//! Compiles the shop's contract in `proto/shop` to Rust with protox, so that protoc need not be installed.

use std::{env, error::Error, fs, path::PathBuf};

const FILES: [&str; 6] = [
    "shop/type/v1/money.proto",
    "shop/customer/v1/customer.proto",
    "shop/customer/v1/events.proto",
    "shop/order/v1/order.proto",
    "shop/order/v1/events.proto",
    "shop/query/v1/query.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=../proto/shop");
    let out = PathBuf::from(env::var("OUT_DIR")?);

    let mut compiler = protox::Compiler::new(["../proto"])?;
    compiler.include_imports(true).include_source_info(true);
    compiler.open_files(FILES)?;
    // With the source info, so that `grpcurl describe` shows the contract's comments.
    fs::write(out.join("descriptors.bin"), compiler.encode_file_descriptor_set())?;

    let mut prost = tonic_prost_build::Config::new();
    prost.enable_type_names();
    tonic_prost_build::configure()
        .build_transport(false)
        .emit_rerun_if_changed(false)
        .include_file("contract.rs")
        .compile_fds_with_config(compiler.file_descriptor_set(), prost)?;
    Ok(())
}
