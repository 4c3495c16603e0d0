//! The `meshwork` command: starts a whole mesh in one process, drives a story through it, and shows its instances.
//!
//! Modules are listed in the order in which a command passes through them: [`args`] says what is wanted, [`run`] does it.
//! [`fleet`] is the whole mesh in one process, for `up`, `demo`, tests and benchmarks; [`audit`] finds the promises that it
//! broke, for `demo` and the fault suite.

pub mod args;

pub mod ca;
pub mod fleet;

mod up;

pub mod audit;
mod demo;

mod authz;
mod bindings;
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
mod message_file;
mod table;

use std::io;

use meshwork_process::Failure;
use tokio_util::sync::CancellationToken;

use args::{CaCommand, Cli, Command, StoreCommand};
use error::Error;

/// Does what a command line asks for, until it is done or `shutdown` is cancelled.
///
/// # Errors
/// What went wrong, in one line.
pub async fn run(cli: Cli, shutdown: CancellationToken) -> Result<(), Failure> {
    let ends_itself = ends_itself(&cli.command);
    // Boxed: the demo's future is large.
    let done = Box::pin(dispatch(cli.command, shutdown.clone()));
    let result = if ends_itself {
        done.await
    } else {
        shutdown.run_until_cancelled(done).await.unwrap_or(Err(Error::Interrupted))
    };
    match result {
        // Whoever reads has had enough, as in `meshwork watch | head`.
        Err(Error::Output(error) | Error::Untold(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result.map_err(Failure::from),
    }
}

/// Whether a signal does not simply end it: `up` drains, a watch and a renewer are never done, and a backup would leave half a copy.
fn ends_itself(command: &Command) -> bool {
    match command {
        Command::Up(_) | Command::Watch(_) => true,
        Command::Store(args) => matches!(args.command, StoreCommand::Backup(_)),
        Command::Ca(args) => matches!(&args.command, CaCommand::Renew(args) if args.every.is_some()),
        Command::Demo(_)
        | Command::Services(_)
        | Command::Instances(_)
        | Command::Policy(_)
        | Command::Split(_)
        | Command::Authz(_)
        | Command::Bindings(_)
        | Command::Health(_)
        | Command::Reconcile(_)
        | Command::New(_) => false,
    }
}

async fn dispatch(command: Command, shutdown: CancellationToken) -> Result<(), Error> {
    match command {
        Command::Up(args) => up::run(args, shutdown).await,
        Command::Demo(args) => demo::run(args).await,
        Command::Services(args) => directory::services(args).await,
        Command::Instances(args) if args.stats => stats::run(&args).await,
        Command::Instances(args) => instances::run(args).await,
        Command::Policy(args) => policy::run(args.command).await,
        Command::Split(args) => policy::split(args).await,
        Command::Authz(args) => authz::run(args.command).await,
        Command::Bindings(args) => bindings::run(args).await,
        Command::Watch(args) => watch::run(args, shutdown).await,
        Command::Health(args) => health::run(args).await,
        Command::Store(args) => store::run(args.command).await.map_err(Error::after_work),
        Command::Reconcile(args) if args.yes => reconcile::run(args).await.map_err(Error::after_work),
        Command::Reconcile(args) => reconcile::run(args).await,
        Command::Ca(args) => ca::command::run(args.command, shutdown).await,
        Command::New(args) => new::run(&args).map_err(Error::after_work),
    }
}
