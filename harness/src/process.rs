//! A process under test: built, started, listened to, signalled by its id, and gone when this is dropped.

use std::{
    fmt,
    fs::File,
    io::{BufRead, BufReader, Read, Write},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use rustix::{
    param::clock_ticks_per_second,
    process::{Pid, Signal, kill_process},
};

use crate::machine::kib;

/// How often an ending process is looked at.
const POLL: Duration = Duration::from_millis(5);
/// The end of what a process said is what tells why it failed.
const SHOWN_LINES: usize = 5;

/// Why a process could not be measured.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be started.
    #[error("cannot run {program}: {source}")]
    Start {
        /// The program.
        program: String,
        /// Why.
        source: std::io::Error,
    },
    /// It cannot be built.
    #[error("cannot build {}: cargo failed", .0.join(", "))]
    Build(Vec<&'static str>),
    /// It did not say what it was to say.
    #[error("{program} did not say {line:?} within {} s{said}", limit.as_secs())]
    Silent {
        /// The program.
        program: String,
        /// What was waited for.
        line: &'static str,
        /// How long.
        limit: Duration,
        /// Its last lines.
        said: Said,
    },
    /// It did not answer.
    #[error("{program} has ended, or did not answer within {} s", limit.as_secs())]
    Unanswered {
        /// The program.
        program: String,
        /// How long.
        limit: Duration,
    },
    /// It did not end, or not well.
    #[error("{program} did not end with code 0 within {} s of SIGTERM{said}", limit.as_secs())]
    End {
        /// The program.
        program: String,
        /// How long.
        limit: Duration,
        /// Its last lines.
        said: Said,
    },
    /// The kernel does not tell about it: it is gone.
    #[error("{program} is gone")]
    Gone {
        /// The program.
        program: String,
    },
}

/// The last lines of a process.
#[derive(Debug)]
pub struct Said(Vec<String>);

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|line| write!(f, "\n  {line}"))
    }
}

/// Builds the binaries of these packages of the workspace, as fresh as that of `package`, which calls this, and from the same
/// profile. Returns their folder.
///
/// `cargo run` builds only what it runs, so that the binary beside it may be missing or, worse, old.
pub fn build(package: &'static str, packages: &[&'static str]) -> Result<PathBuf, Error> {
    // With the caller in the selection, features are what they are here, and no dependency is built twice.
    cargo_build(&[&[package], packages].concat())
}

/// Builds the binaries of one package in the same way, but with the features that it has where nothing else is built.
///
/// # Errors
/// [`Error`]: cargo cannot be started, or failed.
pub fn build_alone(package: &'static str) -> Result<PathBuf, Error> {
    cargo_build(&[package])
}

fn cargo_build(packages: &[&'static str]) -> Result<PathBuf, Error> {
    let started = |source| Error::Start { program: "cargo".to_owned(), source };
    let folder = std::env::current_exe().map_err(started)?.parent().map(Path::to_path_buf).unwrap_or_default();
    let mut cargo = Command::new("cargo");
    cargo.args(["build", "--quiet"]).args(packages.iter().flat_map(|package| ["-p", package]));
    cargo.arg("--manifest-path").arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml"));
    if let Some(target) = folder.parent() {
        cargo.arg("--target-dir").arg(target);
    }
    if !cfg!(debug_assertions) {
        cargo.arg("--release");
    }
    let built = cargo.status().map_err(started)?.success();
    if built { Ok(folder) } else { Err(Error::Build(packages.to_vec())) }
}

/// A running process.
pub struct Process {
    program: String,
    child: Child,
    started: Instant,
    lines: Receiver<String>,
    heard: Vec<String>,
}

impl Process {
    /// Starts it, and listens to all it says.
    pub fn start(program: &Path, args: &[&str]) -> Result<Self, Error> {
        let (sender, lines) = mpsc::channel();
        let mut process = Self::spawn(program, args, [Stdio::null(), Stdio::piped()], lines)?;
        if let Some(stderr) = process.child.stderr.take() {
            forward(stderr, sender.clone());
        }
        process.listen(sender);
        Ok(process)
    }

    /// Starts it with its stderr, where services log, in a file.
    pub fn start_logged(program: &Path, args: &[&str], log: File) -> Result<Self, Error> {
        let (sender, lines) = mpsc::channel();
        let mut process = Self::spawn(program, args, [Stdio::null(), log.into()], lines)?;
        process.listen(sender);
        Ok(process)
    }

    /// Starts it with a stdin, for [`ask`](Self::ask), and with this process's stderr, so that all of its lines are answers.
    pub fn start_asked(program: &Path, args: &[&str]) -> Result<Self, Error> {
        let (sender, lines) = mpsc::channel();
        let mut process = Self::spawn(program, args, [Stdio::piped(), Stdio::inherit()], lines)?;
        process.listen(sender);
        Ok(process)
    }

    fn spawn(
        program: &Path,
        args: &[&str],
        [stdin, stderr]: [Stdio; 2],
        lines: Receiver<String>,
    ) -> Result<Self, Error> {
        let name = program.file_name().unwrap_or(program.as_os_str()).to_string_lossy().into_owned();
        let started = Instant::now();
        let mut command = Command::new(program);
        command.args(args).stdin(stdin).stdout(Stdio::piped()).stderr(stderr);
        let child = command.spawn().map_err(|source| Error::Start { program: name.clone(), source })?;
        Ok(Self { program: name, child, started, lines, heard: Vec::new() })
    }

    fn listen(&mut self, sender: mpsc::Sender<String>) {
        if let Some(stdout) = self.child.stdout.take() {
            forward(stdout, sender);
        }
    }

    /// Waits until it says a line that contains `line`. Returns the time since its start, and the whole line.
    pub fn wait_for_line(&mut self, line: &'static str, limit: Duration) -> Result<(Duration, String), Error> {
        let until = self.started + limit;
        loop {
            match self.lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(said) if said.contains(line) => return Ok((self.started.elapsed(), said)),
                Ok(said) => self.heard.push(said),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    return Err(Error::Silent { program: self.program.clone(), line, limit, said: self.said() });
                }
            }
        }
    }

    /// Writes a line to its stdin.
    pub fn ask(&mut self, line: &str) -> Result<(), Error> {
        let gone = || Error::Gone { program: self.program.clone() };
        let stdin = self.child.stdin.as_mut().ok_or_else(gone)?;
        writeln!(stdin, "{line}").and_then(|()| stdin.flush()).map_err(|_| gone())
    }

    /// The next line that it says, its answer.
    pub fn answer(&mut self, limit: Duration) -> Result<String, Error> {
        self.lines.recv_timeout(limit).map_err(|_| Error::Unanswered { program: self.program.clone(), limit })
    }

    /// Its id.
    #[cfg(test)]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal; an error means that it is gone.
    pub fn signal(&self, signal: Signal) -> Result<(), Error> {
        kill_process(Pid::from_child(&self.child), signal).map_err(|_| Error::Gone { program: self.program.clone() })
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Memory that it holds at the moment, MiB (VmRSS: resident, shared pages included).
    pub fn rss_mb(&self) -> Result<f64, Error> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let kib = kib(&status, "VmRSS").ok_or_else(|| Error::Gone { program: self.program.clone() })?;
        Ok(kib as f64 / 1024.0)
    }

    /// CPU time that it has used since its start, user and system, in steps of 10 ms.
    pub fn cpu_time(&self) -> Result<Duration, Error> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap_or_default();
        cpu_ticks(&stat)
            .map(|ticks| Duration::from_secs(1) * ticks / clock_ticks_per_second() as u32)
            .ok_or_else(|| Error::Gone { program: self.program.clone() })
    }

    /// Sends it SIGTERM and waits until it has ended with code 0.
    pub fn terminate(mut self, limit: Duration) -> Result<(), Error> {
        let until = Instant::now() + limit;
        // An error means that it is gone already, which the wait tells as well.
        let _ = self.signal(Signal::TERM);
        while Instant::now() < until {
            match self.child.try_wait() {
                Ok(Some(status)) if status.success() => return Ok(()),
                Ok(None) => thread::sleep(POLL),
                Ok(Some(_)) | Err(_) => break,
            }
        }
        Err(Error::End { program: self.program.clone(), limit, said: self.said() })
    }

    fn said(&mut self) -> Said {
        self.heard.extend(self.lines.try_iter());
        Said(self.heard.split_off(self.heard.len().saturating_sub(SHOWN_LINES)))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Errors mean that it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// utime and stime of `/proc/PID/stat`, proc(5). Its second field, the name in brackets, may hold anything.
fn cpu_ticks(stat: &str) -> Option<u32> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<u32>().ok();
    Some(ticks()? + ticks()?)
}

/// Reads on for as long as the process lives, so that it never waits for a full pipe; ends with it.
fn forward(from: impl Read + Send + 'static, to: mpsc::Sender<String>) {
    thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            // The receiver may be gone: what the process prints no longer matters, but it must be able to print it.
            let _ = to.send(line);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    fn shell(script: &str) -> Process {
        Process::start(Path::new("/bin/sh"), &["-c", script]).unwrap()
    }

    #[test]
    fn a_process_is_ready_when_it_says_so_and_ends_when_told() {
        let mut process = shell("trap 'exit 0' TERM; echo one; echo mesh is ready; while :; do sleep 0.01; done");
        assert!(process.wait_for_line("mesh is ready", LIMIT).unwrap().0 < LIMIT);
        assert!(process.rss_mb().unwrap() > 0.0);
        process.terminate(LIMIT).unwrap();
    }

    #[test]
    fn a_process_that_fails_is_quoted() {
        let error = shell("echo 'address in use' >&2; exit 2").wait_for_line("mesh is ready", LIMIT).unwrap_err();
        assert!(error.to_string().contains("address in use"), "{error}");
    }

    #[test]
    fn a_process_answers_line_by_line_until_it_has_ended() {
        let mut process = Process::start_asked(Path::new("/bin/cat"), &[]).unwrap();
        for line in ["one", "two"] {
            process.ask(line).unwrap();
            assert_eq!(process.answer(LIMIT).unwrap(), line);
        }
        assert!(matches!(process.answer(Duration::from_millis(1)), Err(Error::Unanswered { .. })));
    }

    #[test]
    fn an_end_with_another_code_is_an_error() {
        let mut process = shell("trap 'exit 3' TERM; echo ready; while :; do sleep 0.01; done");
        process.wait_for_line("ready", LIMIT).unwrap();
        assert!(matches!(process.terminate(LIMIT), Err(Error::End { .. })));
    }

    #[test]
    fn the_cpu_time_of_a_process_is_known() {
        let stat = "71 (a) 1 (b) S 1 71 71 0 -1 4194560 100 0 1 0 7 5 3 2 20 0 4 0 9 10 11";
        assert_eq!(cpu_ticks(stat), Some(12));
        assert_eq!(cpu_ticks(""), None);
        assert!(shell("exec sleep 60").cpu_time().unwrap() < LIMIT);
    }

    #[test]
    fn a_dropped_process_is_gone() {
        let process = shell("exec sleep 60");
        let status = PathBuf::from(format!("/proc/{}/status", process.child.id()));
        assert!(status.exists());
        drop(process);
        assert!(!status.exists());
    }
}
