//! The `meshwork` command: starts a whole mesh in one process, drives a story through it, and shows who is there.
//!
//! Modules are listed in the order in which a command passes through them: [`args`] says what is wanted, [`run`] does it,
//! and [`error`] says what a script learns from its end.

pub mod args;
pub mod error;

pub mod fleet;

mod demo;
mod directory;
mod up;
mod watch;

mod json;
mod shutdown;
mod table;

use args::Command;
use error::Error;

/// Does what a command line asks for.
///
/// # Errors
/// What went wrong; its [`Error::exit_code`] is the process's.
pub async fn run(command: Command) -> Result<(), Error> {
    match command {
        Command::Up(args) => up::run(args).await,
        Command::Demo(args) => demo::run(args).await,
        Command::Services(args) => directory::services(args).await,
        Command::Instances(args) => directory::instances(args).await,
        Command::Watch(args) => watch::run(args).await,
    }
}
