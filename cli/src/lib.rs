//! The `meshwork` command: starts a whole mesh in one process, drives a story through it, and shows its instances.
//!
//! Modules are listed in the order in which a command passes through them: [`args`] says what is wanted, [`run`] does it.
//! [`fleet`] is the whole mesh in one process, for `up`, `demo`, tests and benchmarks; [`audit`] finds the promises that it
//! broke, for `demo` and the fault suite.

pub mod args;

pub mod fleet;

mod up;

pub mod audit;
mod demo;

pub mod direct;
mod directory;
mod health;
mod instances;
mod new;
mod policy;
mod reconcile;
mod stats;
mod store;
mod watch;

mod error;
mod table;

use std::io;

use meshwork_process::Failure;
use tokio_util::sync::CancellationToken;

use args::{Cli, Command};
use error::Error;

/// Does what a command line asks for, until it is done or `shutdown` is cancelled.
///
/// # Errors
/// What went wrong, in one line.
pub async fn run(cli: Cli, shutdown: CancellationToken) -> Result<(), Failure> {
    let result = match cli.command {
        Command::Up(args) => up::run(args, shutdown).await,
        Command::Demo(args) => demo::run(args, shutdown).await,
        Command::Services(args) => directory::services(args).await,
        Command::Instances(args) if args.stats => stats::run(&args).await,
        Command::Instances(args) => instances::run(args).await,
        Command::Policy(args) => policy::run(args.command).await,
        Command::Split(args) => policy::split(args).await,
        Command::Watch(args) => watch::run(args, shutdown).await,
        Command::Health(args) => health::run(args).await,
        Command::Store(args) => store::run(args.command).await,
        Command::Reconcile(args) => reconcile::run(args).await,
        Command::New(args) => new::run(&args),
    };
    match result {
        // Whoever reads has had enough, as in `meshwork watch | head`.
        Err(Error::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result.map_err(Failure::from),
    }
}
