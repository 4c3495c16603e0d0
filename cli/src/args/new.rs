//! `meshwork new`: what it is given.

use std::path::PathBuf;

use clap::Args;
use meshwork_process::LogArgs;

use crate::new::PackageName;

const NEW_HELP: &str = "\
Examples:
  meshwork new inventory
  meshwork new inventory --path ../inventory
  meshwork new inventory --meshwork /src/meshwork

It writes a Cargo package: a contract, a server, a client, and tests, which pass as they are. The package depends on the
Meshwork sources in --meshwork and copies their Cargo.lock, so that it builds with the tested versions. If the folder of the
package exists already, it exits with code 2 and writes nothing.";

/// `meshwork new`.
#[derive(Args, Clone, Debug)]
#[command(after_help = NEW_HELP, mut_arg("log_level", |arg| arg.default_value("off")))]
pub struct NewArgs {
    /// The name of the service and of the package: 1-63 lowercase letters, digits and hyphens
    pub name: PackageName,
    /// The folder to create; its parent must exist [default: ./NAME]
    #[arg(long, value_name = "FOLDER")]
    pub path: Option<PathBuf>,
    /// The folder with Meshwork's sources [default: the folder that this program was built from]
    #[arg(long, value_name = "FOLDER")]
    pub meshwork: Option<PathBuf>,
    /// What is logged.
    #[command(flatten)]
    pub log: LogArgs,
}
