//! The flags of the commands that ask a registry.

use clap::Args;
use meshwork::address::{self, InvalidAddress};
use meshwork::{Mesh, MeshBuilder};
use meshwork_process::{Expected, LogArgs, TlsArgs};

use crate::error::Error;

/// Where a registry is, unless told otherwise.
pub const DEFAULT_REGISTRY: &str = "http://127.0.0.1:7600";

/// What the commands that ask a registry have in common.
#[derive(Args, Clone, Debug)]
#[command(mut_arg("log_level", |arg| arg.default_value("off")))]
pub struct SourceArgs {
    /// The registries of the mesh, separated by commas
    #[arg(long, env = "MESHWORK_REGISTRY", value_delimiter = ',', value_parser = parse_registry, value_name = "URL,...")]
    #[arg(default_value = DEFAULT_REGISTRY)]
    pub registry: Vec<String>,
    /// The identity of who asks.
    #[command(flatten)]
    pub tls: TlsArgs,
    /// Print JSON instead of a table
    #[arg(long)]
    pub json: bool,
    /// What is logged.
    #[command(flatten)]
    pub log: LogArgs,
}

impl SourceArgs {
    /// A mesh of these registries, for whoever asks.
    pub(crate) fn mesh(&self) -> Result<Mesh, Error> {
        mesh_of(&self.registry, &self.tls, |mesh| mesh)
    }
}

/// A mesh of these registries, for whoever has this certificate.
pub(crate) fn mesh_of(
    registries: &[String],
    tls: &TlsArgs,
    options: impl FnOnce(MeshBuilder) -> MeshBuilder,
) -> Result<Mesh, Error> {
    let security = tls.security(Expected::Any).map_err(Error::bad_certificate)?;
    let mesh = options(Mesh::builder().registries(registries).security(security));
    mesh.build().map_err(Error::bad_registry(registries))
}

/// Reads the address of a registry: `http://HOST:PORT` or `https://HOST:PORT`, where `http://` may be left out.
pub(super) fn parse_registry(text: &str) -> Result<String, InvalidAddress> {
    let scheme = if text.starts_with("https://") { "https" } else { "http" };
    address::parse_registry(text).map(|address| format!("{scheme}://{address}"))
}
