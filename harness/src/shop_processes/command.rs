//! The shop's operator: `meshwork` on the command line.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{self, Stdio},
};

use tokio::task::spawn_blocking;

use super::{error::Error, programs::Programs};

/// Runs `meshwork` for a shop.
#[derive(Clone, Debug)]
pub struct Command {
    program: PathBuf,
    before: Vec<String>,
    registries: String,
    /// Its certificate.
    identity: Vec<String>,
    log: PathBuf,
}

impl Command {
    /// For the shop of these registries; what it says is kept with the logs.
    pub(super) fn new(programs: &Programs, registries: &str, identity: Vec<String>, logs: &Path) -> Self {
        let (program, before) = programs.command();
        Self { program, before, registries: registries.to_owned(), identity, log: logs.join("meshwork.log") }
    }

    /// Runs a command that asks the registries, to its end.
    pub async fn run(&self, arguments: &[&str]) -> Result<(), Error> {
        let identity: Vec<&str> = self.identity.iter().map(String::as_str).collect();
        self.run_alone(&[arguments, &["--registry", &self.registries], &identity].concat()).await
    }

    /// Runs a command to its end.
    pub async fn run_alone(&self, arguments: &[&str]) -> Result<(), Error> {
        let keep = |source| Error::Folder { path: self.log.clone(), source };
        let log = File::options().create(true).append(true).open(&self.log).map_err(keep)?;
        let mut command = process::Command::new(&self.program);
        command.args(&self.before).args(arguments).stdin(Stdio::null());
        command.stdout(log.try_clone().map_err(keep)?).stderr(log);
        let ended =
            spawn_blocking(move || command.status()).await.expect("it does not panic, and the runtime lives on");
        match ended {
            Ok(status) if status.success() => Ok(()),
            Ok(_) | Err(_) => Err(Error::Command(arguments.join(" "))),
        }
    }
}
