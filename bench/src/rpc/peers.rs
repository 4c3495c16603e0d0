//! What is measured: clients, each in its own process.

use std::{path::Path, time::Duration};

use meshwork_caller::{Load, Slice};
use meshwork_harness::process::{self, Process};
use tokio::{task::block_in_place, time::sleep};

use super::error::Error;
use crate::echo::Echo;

/// For the calls that are under way at the end of a slice, and for the answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// A caller, and its name in the figures.
pub(super) struct Peer {
    name: String,
    process: Process,
}

impl Peer {
    /// Meshwork's channel, of the library that `program` was built with.
    pub(super) fn meshwork(program: &Path, name: &str, echo: &Echo, service: &str) -> Result<Self, process::Error> {
        Self::start(program, name, &["meshwork", echo.url(), service])
    }

    /// The same without subsets.
    pub(super) fn meshwork_to_all(
        program: &Path,
        name: &str,
        echo: &Echo,
        service: &str,
    ) -> Result<Self, process::Error> {
        Self::start(program, name, &["meshwork", "--subset", "0", echo.url(), service])
    }

    /// tonic's channel to one address.
    pub(super) fn tonic_channel(program: &Path, name: &str, address: &str) -> Result<Self, process::Error> {
        Self::start(program, name, &["tonic-channel", address])
    }

    /// tonic's channel that balances over a list.
    pub(super) fn tonic_balance(program: &Path, name: &str, addresses: &[String]) -> Result<Self, process::Error> {
        let addresses = addresses.iter().map(String::as_str);
        Self::start(program, name, &["tonic-balance"].into_iter().chain(addresses).collect::<Vec<_>>())
    }

    fn start(program: &Path, name: &str, args: &[&str]) -> Result<Self, process::Error> {
        Ok(Self { name: name.to_owned(), process: Process::start_asked(program, args)? })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Lets it call for a while.
    pub(super) async fn drive(&mut self, load: Load) -> Result<Slice, Error> {
        self.process.ask(&serde_json::to_string(&load).expect("numbers are JSON"))?;
        // An interrupt of the benchmark is heard meanwhile; the rest is the time of the last calls.
        sleep(load.time).await;
        let answer = block_in_place(|| self.process.answer(ANSWER_LIMIT))?;
        serde_json::from_str(&answer).map_err(|source| Error::Answer { name: self.name.clone(), source })
    }
}
