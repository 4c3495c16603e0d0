//! What is measured: clients, each in its own process.

use std::{path::Path, rc::Rc, time::Duration};

use meshwork_caller::{Load, Slice};
use meshwork_harness::process::{self, Process};
use tokio::{task::block_in_place, time::sleep};

use super::Error;
use crate::echo::Echo;

/// For the calls that are under way at the end of a slice, and for the answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// A caller, and its name in the figures.
pub(crate) struct Peer {
    name: String,
    process: Process,
    /// Processes behind it whose CPU time is counted as well.
    behind: Vec<Rc<Process>>,
}

impl Peer {
    /// Meshwork's channel, of the library that `program` was built with.
    pub(crate) fn meshwork(program: &Path, name: &str, echo: &Echo, service: &str) -> Result<Self, process::Error> {
        let certificate = echo.certificate_of_client();
        let tls = certificate.iter().flat_map(|folder| ["--tls-dir", folder]);
        let args = ["meshwork"].into_iter().chain(tls).chain([echo.url(), service]);
        Self::start(program, name, &args.collect::<Vec<_>>())
    }

    /// The same without subsets.
    pub(crate) fn meshwork_to_all(
        program: &Path,
        name: &str,
        echo: &Echo,
        service: &str,
    ) -> Result<Self, process::Error> {
        Self::start(program, name, &["meshwork", "--subset", "0", echo.url(), service])
    }

    /// tonic's channel to one address.
    pub(crate) fn tonic_channel(program: &Path, name: &str, address: &str) -> Result<Self, process::Error> {
        Self::start(program, name, &["tonic-channel", address])
    }

    /// tonic's channel that balances over a list.
    pub(crate) fn tonic_balance(program: &Path, name: &str, addresses: &[String]) -> Result<Self, process::Error> {
        let addresses = addresses.iter().map(String::as_str);
        Self::start(program, name, &["tonic-balance"].into_iter().chain(addresses).collect::<Vec<_>>())
    }

    fn start(program: &Path, name: &str, args: &[&str]) -> Result<Self, process::Error> {
        let process = Process::start_asked(program, args)?;
        Ok(Self { name: name.to_owned(), process, behind: Vec::new() })
    }

    /// Counts the CPU time of these processes as its own: of those that its calls pass through, and end at.
    pub(crate) fn with(self, behind: impl IntoIterator<Item = Rc<Process>>) -> Self {
        Self { behind: behind.into_iter().collect(), ..self }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Lets it call for a while.
    pub(crate) async fn drive(&mut self, load: Load) -> Result<Slice, Error> {
        let before = self.cpu_behind()?;
        self.process.ask(&serde_json::to_string(&load).expect("numbers are JSON"))?;
        // An interrupt of the benchmark is heard meanwhile; the rest is the time of the last calls.
        sleep(load.time).await;
        let answer = block_in_place(|| self.process.answer(ANSWER_LIMIT))?;
        let mut slice: Slice =
            serde_json::from_str(&answer).map_err(|source| Error::Answer { name: self.name.clone(), source })?;
        slice.cpu += self.cpu_behind()? - before;
        Ok(slice)
    }

    fn cpu_behind(&self) -> Result<Duration, process::Error> {
        self.behind.iter().map(|process| process.cpu_time()).sum()
    }
}
