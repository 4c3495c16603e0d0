//! Around a run: a folder for its data, its report, and exit codes.
//!
//! | exit code | meaning |
//! |---|---|
//! | 0 | the figures stand |
//! | 1 | something failed, so there are no figures |
//! | 2 | it could not run |
//! | 130, 143 | interrupted by SIGINT or SIGTERM |

use std::{
    error::Error,
    fs::Permissions,
    io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::ExitCode,
    time::SystemTime,
};

use tokio::signal::unix::{SignalKind, signal};

use crate::{
    machine::Machine,
    report::{self, Report, RunOutcome},
};

/// Exit codes of an interrupted run, as shells have them: 128 + SIGINT, 128 + SIGTERM.
const INTERRUPTED: u8 = 130;
const TERMINATED: u8 = 143;

/// The report or the data of a run cannot be kept.
#[derive(Debug, thiserror::Error)]
#[error("cannot write to {}: {source}", path.display())]
struct FolderError {
    path: PathBuf,
    source: io::Error,
}

/// Runs `work` in a new folder below `out`, which stays if something fails, and writes its report as `out`/`name`.json.
/// SIGINT and SIGTERM drop it, and with it the processes under test.
pub async fn reported<E: Error + 'static>(
    name: &'static str,
    out: &Path,
    work: impl AsyncFnOnce(&Path) -> Result<RunOutcome, E>,
) -> ExitCode {
    let mut terminated = signal(SignalKind::terminate()).expect("a signal that may be listened to");
    tokio::select! {
        ended = in_a_folder(name, out, work) => match ended {
            Ok(report) if report.is_valid() => ExitCode::SUCCESS,
            Ok(_) => ExitCode::FAILURE,
            Err(error) => {
                eprintln!("{name}: {error}");
                ExitCode::from(2)
            }
        },
        _ = tokio::signal::ctrl_c() => ExitCode::from(INTERRUPTED),
        _ = terminated.recv() => ExitCode::from(TERMINATED),
    }
}

async fn in_a_folder<E: Error + 'static>(
    name: &'static str,
    out: &Path,
    work: impl AsyncFnOnce(&Path) -> Result<RunOutcome, E>,
) -> Result<Report, Box<dyn Error>> {
    let failed = |source| FolderError { path: out.to_owned(), source };
    std::fs::create_dir_all(out).map_err(failed)?;
    // Absolute, because processes under test have their own working directories.
    let whole = std::path::absolute(out).map_err(failed)?;
    // A database server, which runs as another user, must be able to pass through it.
    let searchable = Permissions::from_mode(0o711);
    let scratch = tempfile::Builder::new().prefix("run-").permissions(searchable).tempdir_in(whole).map_err(failed)?;
    let report = measured(name, out, scratch.path(), work).await;
    if !report.as_ref().is_ok_and(Report::is_valid) {
        eprintln!("databases and logs of the run are in {}", scratch.keep().display());
    }
    report
}

async fn measured<E: Error + 'static>(
    name: &'static str,
    out: &Path,
    scratch: &Path,
    work: impl AsyncFnOnce(&Path) -> Result<RunOutcome, E>,
) -> Result<Report, Box<dyn Error>> {
    let failed = |source| FolderError { path: out.to_owned(), source };
    let (machine, date) = (Machine::read(scratch).map_err(failed)?, SystemTime::now());
    let report = Report::new(name, date, machine, work(scratch).await?);
    let path = out.join(format!("{name}.json"));
    report::write(&report, &path).map_err(failed)?;
    println!("{report}\n{}", path.display());
    Ok(report)
}
