//! Where the callers come from: this tree's, and the one with the client of "before".

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use tokio::task::spawn_blocking;

use super::args::Args;
use crate::clients::{PACKAGE, callers_program};
use meshwork_harness::process;

/// The commit whose client is the yardstick.
const BEFORE: &str = include_str!("../../BEFORE_HOUSE");
/// What builds its caller.
const BUILD_BEFORE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/build-before");

/// The programs that make the calls.
pub(super) struct Callers {
    /// With the client under measure.
    pub(super) now: PathBuf,
    /// With the client of "before", if it was built.
    pub(super) before: Option<PathBuf>,
}

impl Callers {
    /// Those that were asked for, or else this tree's, built if need be, and the one that bench/build-before has built.
    pub(super) async fn find(args: &Args) -> Result<Self, process::Error> {
        let now = callers_program(args.caller.as_deref()).await?;
        let before = match args.before.clone() {
            Some(given) => Some(given),
            None => spawn_blocking(built_before).await.expect("it does not panic, and the runtime lives on")?,
        };
        Ok(Self { now, before })
    }
}

/// The caller of "before" beside this program, if it was ever built: then it is built again, so that its sources are those of
/// today's caller.
fn built_before() -> Result<Option<PathBuf>, process::Error> {
    let started = |source| process::Error::Start { program: BUILD_BEFORE.to_owned(), source };
    let folder = std::env::current_exe().map_err(started)?.parent().map(Path::to_path_buf).unwrap_or_default();
    let program = folder.join(name(BEFORE));
    let Some(target) = folder.parent().filter(|_| program.exists()) else { return Ok(None) };
    let profile = if cfg!(debug_assertions) { "dev" } else { "release" };
    let mut build = Command::new(BUILD_BEFORE);
    build.arg(profile).env("CARGO_TARGET_DIR", target).stdout(Stdio::null());
    if build.status().map_err(started)?.success() {
        Ok(Some(program))
    } else {
        Err(process::Error::Build(vec!["the caller of bench/BEFORE_HOUSE"]))
    }
}

/// How bench/build-before names the caller of a commit.
fn name(commit: &str) -> String {
    format!("{PACKAGE}-{}", commit.get(..7).unwrap_or(commit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_caller_of_before_is_named_after_its_commit() {
        assert_eq!(name("a6c919e54afc3a6f96c4c8d106e59d527aa0bdad\n"), "meshwork-caller-a6c919e");
        assert!(BEFORE.trim_end().len() == 40 && BEFORE.trim_end().bytes().all(|byte| byte.is_ascii_hexdigit()));
    }
}
