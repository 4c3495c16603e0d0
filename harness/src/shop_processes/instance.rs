//! One process of a shop, over all its lives.

use std::{
    fs::File,
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use parking_lot::Mutex;
use rustix::process::Signal;
use tokio::task::spawn_blocking;

use super::{error::Error, front::Front, programs::Programs, tls::Protection};
use crate::process::Process;

/// What a process says when it serves, before its address.
const READY: &str = " is ready on ";
/// Far beyond the fraction of a second that a start takes; a database that recovers at the same time is waited for.
const READY_LIMIT: Duration = Duration::from_secs(90);
/// The default drain limit and a little more.
const END_LIMIT: Duration = Duration::from_secs(40);

/// A process of a shop: started, and started again with the same database and log.
pub struct Instance {
    service: &'static str,
    name: String,
    /// What is run, and what comes before its flags.
    program: Mutex<(PathBuf, Vec<String>)>,
    flags: Vec<String>,
    /// The flags of its mode and its certificate.
    tls: Mutex<Vec<String>>,
    log: PathBuf,
    fronted: bool,
    running: Mutex<Option<Running>>,
}

struct Running {
    process: Process,
    address: SocketAddr,
    /// Its address for others, if that is another one.
    front: Option<Front>,
}

impl Instance {
    pub(super) fn new(
        programs: &Programs,
        service: &'static str,
        number: usize,
        flags: Vec<String>,
        logs: &Path,
    ) -> Self {
        let program = Mutex::new(programs.of(service));
        let name = format!("{service}-{number}");
        let log = logs.join(format!("{name}.log"));
        let (tls, running) = (Mutex::default(), Mutex::default());
        Self { service, name, program, flags, tls, log, fronted: false, running }
    }

    /// From its next start on it protects its connections so.
    pub fn protect(&self, protection: &Protection) {
        *self.tls.lock() = protection.flags(self.service);
    }

    /// From its next start on it is one of these programs.
    pub fn move_to(&self, programs: &Programs) {
        *self.program.lock() = programs.of(self.service);
    }

    /// Others reach it through an address whose connections can be [cut](Self::cut) and [stalled](Self::stall).
    pub(super) fn fronted(self) -> Self {
        Self { fronted: true, ..self }
    }

    /// The service that it is an instance of.
    pub fn service(&self) -> &'static str {
        self.service
    }

    /// What it is called here, such as `order-1`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where everything is that it has logged, in all its lives.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Where it listens in this life.
    pub fn address(&self) -> Option<SocketAddr> {
        self.with(|running| running.as_ref().map(|running| running.address))
    }

    /// Where others reach it in this life.
    pub fn advertised(&self) -> Option<SocketAddr> {
        self.with(|running| {
            running.as_ref().map(|running| running.front.as_ref().map_or(running.address, Front::address))
        })
    }

    /// The file of its database, if that is one.
    pub fn database_file(&self) -> Option<PathBuf> {
        let urls = self.flags.iter().filter_map(|flag| flag.strip_prefix("sqlite://"));
        urls.map(|url| PathBuf::from(url.split('?').next().unwrap_or(url))).next()
    }

    /// CPU time that it has used in this life.
    pub fn cpu_time(&self) -> Result<Duration, Error> {
        self.with(|running| match running {
            Some(running) => Ok(running.process.cpu_time()?),
            None => Err(Error::RunsNot(self.name.clone())),
        })
    }

    /// The id of its process.
    #[cfg(test)]
    pub(super) fn pid(&self) -> Option<u32> {
        self.with(|running| running.as_ref().map(|running| running.process.id()))
    }

    /// Starts it, and waits until it is ready. Returns how long that took.
    pub async fn start(&self) -> Result<Duration, Error> {
        if self.address().is_some() {
            return Err(Error::Runs(self.name.clone()));
        }
        let log = File::options().create(true).append(true).open(&self.log);
        let log = log.map_err(|source: io::Error| Error::Folder { path: self.log.clone(), source })?;
        let listened = async { Ok(if self.fronted { Some(Front::listen().await?) } else { None }) };
        let front = listened.await.map_err(Error::Port)?;
        let (program, before) = self.program.lock().clone();
        let tls = self.tls.lock().clone();
        let advertise = front.as_ref().map(|front| front.address().to_string());
        let advertise = advertise.iter().flat_map(|address| ["--advertise", address]);
        let flags = before.iter().chain(&self.flags).chain(&tls).map(String::as_str);
        let args: Vec<&str> = flags.chain(advertise).collect();
        let mut process = Process::start_logged(&program, &args, log)?;
        let ready = spawn_blocking(move || process.wait_for_line(READY, READY_LIMIT).map(|ready| (process, ready)));
        let (process, (took, line)) = ready.await.expect("it does not panic, and the runtime lives on")?;
        let address = line.rsplit(' ').next().and_then(|address| address.parse().ok());
        let address = address.ok_or_else(|| Error::NoAddress(self.name.clone(), line))?;
        if let Some(front) = &front {
            front.open(address);
        }
        self.with(|running| *running = Some(Running { process, address, front }));
        Ok(took)
    }

    /// An error if it has ended unexpectedly.
    pub fn lives(&self) -> Result<(), Error> {
        self.with(|running| match running {
            Some(running) => match running.process.ended() {
                None => Ok(()),
                Some(status) => Err(Error::Ended(self.name.clone(), status)),
            },
            None => Err(Error::RunsNot(self.name.clone())),
        })
    }

    /// Breaks the connections that others have to it.
    pub fn cut(&self) {
        self.with(|running| running.iter().filter_map(|running| running.front.as_ref()).for_each(Front::cut));
    }

    /// Holds back all bytes between it and its callers, or passes them on again.
    pub fn stall(&self, stalled: bool) {
        let front = |running: &Running| running.front.iter().for_each(|front| front.stall(stalled));
        self.with(|running| running.iter().for_each(front));
    }

    /// Kills it (SIGKILL), if it runs.
    pub fn kill(&self) {
        self.with(|running| drop(running.take()));
    }

    /// Stops it where it is (SIGSTOP): it neither works nor closes a connection.
    pub fn pause(&self) -> Result<(), Error> {
        self.signal(Signal::STOP)
    }

    /// Lets a stopped process go on (SIGCONT), as if no time had passed for it.
    pub fn resume(&self) -> Result<(), Error> {
        self.signal(Signal::CONT)
    }

    /// Ends it by SIGTERM, and waits until it has ended with code 0. Others reach it until then.
    pub async fn terminate(&self) -> Result<(), Error> {
        let Running { process, front, .. } =
            self.with(Option::take).ok_or_else(|| Error::RunsNot(self.name.clone()))?;
        let ended = spawn_blocking(move || process.terminate(END_LIMIT)).await;
        drop(front);
        Ok(ended.expect("it does not panic, and the runtime lives on")?)
    }

    fn signal(&self, signal: Signal) -> Result<(), Error> {
        self.with(|running| match running {
            Some(running) => Ok(running.process.signal(signal)?),
            None => Err(Error::RunsNot(self.name.clone())),
        })
    }

    fn with<T>(&self, work: impl FnOnce(&mut Option<Running>) -> T) -> T {
        work(&mut self.running.lock())
    }
}
