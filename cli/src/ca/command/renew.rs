//! `meshwork ca renew`: once, or beside the services for as long as they run.

use std::{
    io::{self, Write as _},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use meshwork_process::to_stderr;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::opened::{expiry, open, until};
use crate::{
    args::CaRenewArgs,
    ca::{Authority, Certificate, Error as CaError, Renewal, Renewed},
    error::Error,
};

/// After a failure; a certificate has at least half of its life left when it is first tried.
const RETRY: Duration = Duration::from_secs(30);
/// Between two looks at the authority, as services look at their files.
const LOOK: Duration = Duration::from_secs(10);
/// Between two rounds, however short certificates live.
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);

/// What happened to each folder.
type Round = Vec<(PathBuf, Result<Renewed, CaError>)>;

/// `meshwork ca renew`.
pub(super) async fn run(args: CaRenewArgs, shutdown: CancellationToken) -> Result<(), Error> {
    match args.every {
        None => once(&args),
        Some(every) => repeatedly(&args, every, shutdown).await,
    }
}

fn once(args: &CaRenewArgs) -> Result<(), Error> {
    let authority = open(&args.ca.ca_dir)?;
    let renewal = if args.force { Renewal::Now } else { Renewal::WhenDue };
    let round = round(&authority, &args.folders, renewal, SystemTime::now());
    let mut out = io::stdout().lock();
    for (folder, renewed) in &round {
        match renewed {
            Ok(renewed) => writeln!(out, "{}: {}", folder.display(), told(renewed))?,
            Err(error) => to_stderr(format_args!("{error}")),
        }
    }
    match failures(&round) {
        0 => Ok(()),
        failed => Err(Error::NotRenewed(failed)),
    }
}

async fn repeatedly(args: &CaRenewArgs, every: Duration, shutdown: CancellationToken) -> Result<(), Error> {
    // A folder without a CA is a mistake now, and may be an accident later.
    let mut authority = Ok(Authority::open(&args.ca.ca_dir)?);
    loop {
        let now = SystemTime::now();
        let state = authority.as_ref().ok().map(state);
        let pause = match authority {
            Ok(authority) => {
                let round = round(&authority, &args.folders, Renewal::WhenDue, now);
                log(&authority, &round, now);
                pause(every, &round, now)
            }
            Err(error) => {
                tracing::warn!("nothing is renewed: {error}");
                every.min(RETRY)
            }
        };
        // Cancel-safe: nothing is in progress while it waits.
        match shutdown.run_until_cancelled(wait(&args.ca.ca_dir, state, pause)).await {
            Some(opened) => authority = opened,
            None => return Ok(()),
        }
    }
}

/// Waits for that long, or until the authority has taken a step of a rotation, which must not wait for the next round.
async fn wait(ca_dir: &Path, before: Option<State>, pause: Duration) -> Result<Authority, CaError> {
    let end = Instant::now() + pause;
    loop {
        sleep_until(end.min(Instant::now() + LOOK)).await;
        let authority = Authority::open(ca_dir);
        let is_another = authority.as_ref().is_ok_and(|authority| before.as_ref() != Some(&state(authority)));
        if is_another || Instant::now() >= end {
            return authority;
        }
    }
}

/// Which CA signs, and which are trusted.
type State = (Certificate, String);

fn state(authority: &Authority) -> State {
    (authority.certificate().clone(), authority.bundle_pem().to_owned())
}

fn round(authority: &Authority, folders: &[PathBuf], renewal: Renewal, now: SystemTime) -> Round {
    folders.iter().map(|folder| (folder.clone(), authority.renew(folder, renewal, now))).collect()
}

fn failures(round: &Round) -> usize {
    round.iter().filter(|(_, renewed)| renewed.is_err()).count()
}

/// How long until the next round: until the next certificate is due, but no longer than `every`.
fn pause(every: Duration, round: &Round, now: SystemTime) -> Duration {
    if failures(round) > 0 {
        return every.min(RETRY);
    }
    let dues = round.iter().filter_map(|(_, renewed)| renewed.as_ref().ok().map(|renewed| renewed.due));
    // A moment after it, as at that time half of its life is still left.
    let until_due = dues.map(|due| due.duration_since(now).unwrap_or_default() + SHORTEST_PAUSE).min();
    every.min(until_due.unwrap_or(every))
}

fn log(authority: &Authority, round: &Round, now: SystemTime) {
    if let Some(warning) = expiry(authority, now) {
        tracing::warn!("{warning}");
    }
    for (folder, renewed) in round {
        match renewed {
            Ok(renewed) if renewed.reissued || renewed.bundle_changed => {
                tracing::info!("{}: {}", folder.display(), told(renewed));
            }
            Ok(_) => {}
            Err(error) => tracing::warn!("not renewed: {error}"),
        }
    }
}

fn told(renewed: &Renewed) -> String {
    let what = match (renewed.reissued, renewed.bundle_changed) {
        (true, false) => "renewed",
        (true, true) => "renewed, with other trusted CAs",
        (false, true) => "trusted CAs brought up to date; the certificate is not due",
        (false, false) => "not due",
    };
    format!("{what}: {}, {}", renewed.identity, until(renewed.not_after))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ca::{Check, LEAF_LIFETIME, Problem, Subject};

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn the_next_round_is_when_a_certificate_is_due_and_at_the_latest_after_every_and_soon_after_a_failure() {
        let now = SystemTime::UNIX_EPOCH + 100 * HOUR;
        let folder = PathBuf::from("order");
        let at = |due: SystemTime| {
            let identity = "spiffe://shop.test/service/order".parse().expect("an identity");
            let renewed = Renewed { identity, reissued: false, bundle_changed: false, not_after: due, due };
            (folder.clone(), Ok(renewed))
        };
        let failed = || (folder.clone(), Err(CaError::Leaf { folder: folder.clone(), problem: Problem::NotReissued }));
        for (every, round, expected) in [
            (HOUR, vec![at(now + 12 * HOUR)], HOUR),
            (HOUR, vec![at(now + 12 * HOUR), at(now + HOUR / 2)], HOUR / 2 + SHORTEST_PAUSE),
            (HOUR, vec![at(now - HOUR)], SHORTEST_PAUSE),
            (HOUR, vec![at(now + 12 * HOUR), failed()], RETRY),
            (SHORTEST_PAUSE, vec![failed()], SHORTEST_PAUSE),
        ] {
            assert_eq!(pause(every, &round, now), expected, "{round:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_step_of_a_rotation_is_seen_soon_and_not_only_in_the_next_round() {
        let folder = tempfile::tempdir().expect("a folder");
        let ca = folder.path().join("ca");
        let lifetime = crate::ca::CA_LIFETIME;
        let mut authority = Authority::init(&ca, "shop.test", lifetime, SystemTime::now()).expect("a CA");
        let before = Some(state(&authority));
        let begin = Instant::now();
        wait(&ca, before.clone(), HOUR).await.expect("it is there");
        assert_eq!(begin.elapsed(), HOUR, "it is the same");
        authority.rotate(Check::Skipped, lifetime, SystemTime::now()).expect("a step");
        let begin = Instant::now();
        wait(&ca, before, HOUR).await.expect("it is there");
        assert_eq!(begin.elapsed(), LOOK);
    }

    #[test]
    fn folders_that_fail_or_are_held_by_others_do_not_keep_the_others_from_being_renewed() {
        let folder = tempfile::tempdir().expect("a folder");
        let held = folder.path().join("held");
        std::fs::create_dir(&held).expect("made");
        let holder = std::fs::File::open(&held).expect("readable");
        holder.lock_shared().expect("nobody else has it");
        let now = SystemTime::now();
        let authority =
            Authority::init(&folder.path().join("ca"), "shop.test", crate::ca::CA_LIFETIME, now).expect("a CA");
        let order = folder.path().join("order");
        let subject = Subject::service("order").expect("a service");
        authority.issue(&subject, LEAF_LIFETIME, now).expect("signed").write(&order).expect("written");
        let round = round(&authority, &[folder.path().join("nowhere"), held, order], Renewal::Now, now);
        assert_eq!(failures(&round), 2);
        let error = round[1].1.as_ref().expect_err("held").to_string();
        assert!(error.contains("is locked by another process"), "{error}");
        assert!(round[2].1.as_ref().expect("renewed").reissued);
    }
}
