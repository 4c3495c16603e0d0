//! The flags of the commands that ask a registry.

use clap::Args;
use meshwork::address::{self, InvalidAddress};
use meshwork_process::LogArgs;

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
    /// Print JSON instead of a table
    #[arg(long)]
    pub json: bool,
    /// What is logged.
    #[command(flatten)]
    pub log: LogArgs,
}

/// Reads the address of a registry: `http://HOST:PORT`, where `http://` may be left out.
pub(super) fn parse_registry(text: &str) -> Result<String, InvalidAddress> {
    address::parse_registry(text).map(|address| format!("http://{address}"))
}
