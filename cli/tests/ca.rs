//! `meshwork ca`, as it is typed.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Parser as _;
use meshwork::identity::{Identity, Reloaded, TlsFiles};
use meshwork_cli::{args::Cli, ca::Authority, run};
use meshwork_process::Failure;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

/// Far beyond what anything here takes.
const LIMIT: Duration = Duration::from_secs(30);

/// A folder with a CA, and what is typed there.
struct Shell(TempDir);

impl Shell {
    async fn with_ca() -> Self {
        let shell = Self(tempfile::tempdir().expect("a temporary folder"));
        shell.ca("init --trust-domain shop.test").await.expect("made");
        shell
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn cli(&self, line: &str) -> Cli {
        // Each word that begins with ./ is in the folder.
        let words = line.split_whitespace().map(|word| match word.strip_prefix("./") {
            Some(name) => self.path(name).to_str().expect("UTF-8").to_owned(),
            None => word.to_owned(),
        });
        let ca_dir = self.path("ca").to_str().expect("UTF-8").to_owned();
        let words = ["meshwork".to_owned(), "ca".to_owned()].into_iter().chain(words);
        Cli::try_parse_from(words.chain(["--ca-dir".to_owned(), ca_dir])).expect("a good command line")
    }

    async fn ca(&self, line: &str) -> Result<(), Failure> {
        run(self.cli(line), CancellationToken::new()).await
    }

    /// What is said of a line that cannot be done, and its exit code.
    async fn refused(&self, line: &str) -> (String, u8) {
        let failure = self.ca(line).await.expect_err(line);
        let code = match failure {
            Failure::Flag { .. } => 2,
            Failure::Run(_) => 1,
            Failure::Interrupted => panic!("no signal was sent"),
        };
        (failure.to_string(), code)
    }
}

fn bytes(folder: &Path) -> Vec<Vec<u8>> {
    ["cert.pem", "key.pem", "ca.pem"].map(|file| fs::read(folder.join(file)).expect(file)).into()
}

#[tokio::test]
async fn certificates_are_issued_shown_and_renewed_when_they_are_due_or_by_force() {
    let shell = Shell::with_ca().await;
    shell.ca("issue service/order --dns localhost --ip 127.0.0.1 --out ./order").await.expect("issued");
    shell.ca("issue operator/ada --lifetime 8h --out ./ada").await.expect("issued");
    for line in ["show", "show ./order ./ada ./nowhere", "show ./order --json", "renew ./order ./ada"] {
        shell.ca(line).await.expect(line);
    }
    let before = bytes(&shell.path("order"));
    shell.ca("renew ./order").await.expect("not due");
    assert_eq!(bytes(&shell.path("order")), before);
    shell.ca("renew ./order --force").await.expect("renewed");
    let after = bytes(&shell.path("order"));
    assert!(after[0] != before[0] && after[1] != before[1] && after[2] == before[2]);
}

#[tokio::test]
async fn what_cannot_be_done_names_the_flag_and_changes_nothing() {
    let shell = Shell::with_ca().await;
    shell.ca("issue service/order --out ./order").await.expect("issued");
    let (ca, order) = (fs::read(shell.path("ca/ca.pem")).expect("a CA"), bytes(&shell.path("order")));
    for (line, code, said) in [
        ("init --trust-domain shop.test", 2, "--ca-dir"),
        ("issue service/customer --out ./order", 2, "has the certificate of spiffe://shop.test/service/order in it"),
        ("issue service/order --out ./ca", 2, "is the folder of a CA"),
        ("issue operator/ada --dns ada --out ./ada", 2, "--dns ada: only a service"),
        ("issue operator/ada --ip ::1 --out ./ada", 2, "--ip ::1: only a service"),
        ("renew ./order ./nowhere", 1, "1 certificate was not renewed (see above)"),
        ("rotate ./order ./nowhere", 2, "nowhere: has no cert.pem in it"),
    ] {
        let (message, exit) = shell.refused(line).await;
        assert!(message.contains(said) && exit == code, "{line}: {exit}: {message}");
    }
    assert_eq!((fs::read(shell.path("ca/ca.pem")).expect("a CA"), bytes(&shell.path("order"))), (ca, order));
    assert!(!shell.path("ada").exists());

    let empty = Shell(tempfile::tempdir().expect("a temporary folder"));
    for line in
        ["issue service/order --out ./order", "renew ./order", "renew ./order --every 1h", "rotate ./order", "show"]
    {
        let (message, exit) = empty.refused(line).await;
        assert!(message.contains("has no CA in it; make one with") && exit == 2, "{line}: {message}");
    }
    let (message, exit) = empty.refused("init --trust-domain Shop").await;
    assert!(message.starts_with("--trust-domain Shop: the trust domain must be") && exit == 2, "{message}");
    assert_eq!(fs::read_dir(empty.0.path()).expect("readable").count(), 0);
}

#[tokio::test]
async fn a_step_of_a_rotation_waits_for_the_renewal_and_for_the_services() {
    let shell = Shell::with_ca().await;
    shell.ca("issue service/order --out ./order").await.expect("issued");
    shell.ca("rotate ./order").await.expect("step 1");
    let (message, exit) = shell.refused("rotate ./order").await;
    assert!(message.contains("does not trust the new CA yet") && exit == 1, "{message}");
    shell.ca("renew ./order").await.expect("renewed");
    let (message, exit) = shell.refused("rotate ./order").await;
    assert!(message.contains("its service may not have read it yet; try again in") && exit == 1, "{message}");
    shell.ca("rotate --unchecked").await.expect("step 2");
    shell.ca("rotate --unchecked").await.expect("step 3");
    assert_eq!(Authority::open(&shell.path("ca")).expect("a CA").trusted().len(), 1);
}

#[tokio::test]
async fn a_service_takes_each_renewal_and_each_step_of_a_rotation() {
    let shell = Shell::with_ca().await;
    shell.ca("issue service/order --out ./order").await.expect("issued");
    let order = Identity::from_files(TlsFiles::in_folder(&shell.path("order"))).expect("an identity");
    assert_eq!(order.id().as_str(), "spiffe://shop.test/service/order");
    for (line, reloaded) in [
        ("renew ./order", Reloaded::Unchanged),
        ("renew ./order --force", Reloaded::Taken),
        ("rotate --unchecked", Reloaded::Unchanged),
        ("renew ./order", Reloaded::Taken),
        ("rotate --unchecked", Reloaded::Unchanged),
        ("renew ./order", Reloaded::Taken),
        ("rotate --unchecked", Reloaded::Unchanged),
        ("renew ./order", Reloaded::Taken),
    ] {
        shell.ca(line).await.expect(line);
        assert_eq!(order.reload(), reloaded, "{line}");
    }
}

#[tokio::test]
async fn a_renewer_distributes_each_step_of_a_rotation_goes_on_after_failures_and_stops_when_told() {
    let shell = Shell::with_ca().await;
    shell.ca("issue service/order --out ./order").await.expect("issued");
    let stop = CancellationToken::new();
    let renewer = tokio::spawn(run(shell.cli("renew --every 1s ./nowhere ./order"), stop.clone()));
    for step in 1..=3 {
        shell.ca("rotate --unchecked").await.expect("a step");
        let authority = Authority::open(&shell.path("ca")).expect("a CA");
        let in_place = || authority.inspect(&shell.path("order")).is_ok_and(|found| found.signed && found.distributed);
        let in_place = async {
            // Nothing tells a test that a file has changed.
            while !in_place() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(LIMIT, in_place).await.unwrap_or_else(|_| panic!("step {step} is distributed"));
    }
    stop.cancel();
    let ended = tokio::time::timeout(LIMIT, renewer).await.expect("it ends").expect("no panic");
    ended.expect("a signal is its end");
}
