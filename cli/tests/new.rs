//! `meshwork new`, as it is typed. That what it writes is built, tested, formatted and linted is a step of `.ci/run`.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use clap::Parser as _;
use meshwork_cli::{args::Cli, run};
use meshwork_process::Failure;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

fn folder() -> TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

fn sources() -> PathBuf {
    fs::canonicalize(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).expect("the sources")
}

async fn new(name: &str, path: &Path, more: &[&str]) -> Result<(), Failure> {
    let path = path.to_str().expect("UTF-8");
    let words = ["meshwork", "new", name, "--path", path].into_iter().chain(more.iter().copied());
    run(Cli::try_parse_from(words).expect("a good command line"), CancellationToken::new()).await
}

/// That the command was refused, named the flag and left `parent` as it was.
async fn expect_refused(path: &Path, more: &[&str], flag: &str, problem: &str) {
    let parent = path.parent().expect("a parent");
    let entries = || match fs::read_dir(parent) {
        Ok(entries) => entries.map(|entry| entry.expect("an entry").path()).collect::<BTreeSet<_>>(),
        Err(_) => BTreeSet::new(),
    };
    let before = entries();
    let failure = new("inventory", path, more).await.expect_err(problem);
    let message = failure.to_string();
    assert!(matches!(failure, Failure::Flag { .. }), "exit code 2");
    assert!(message.starts_with(flag) && message.contains(problem), "{message}");
    assert_eq!(entries(), before, "nothing is written");
}

#[tokio::test]
async fn a_package_has_the_paths_of_this_checkout_and_its_versions() {
    let parent = folder();
    let package = parent.path().join("elsewhere");
    new("order-history", &package, &[]).await.expect("written");

    let manifest = fs::read_to_string(package.join("Cargo.toml")).expect("a manifest");
    for line in [
        "name = \"order-history\"".to_owned(),
        format!("meshwork = {{ path = {:?} }}", sources()),
        format!("meshwork-testing = {{ path = {:?} }}", sources().join("testing")),
    ] {
        assert!(manifest.lines().any(|found| found == line), "{line} is missing in: {manifest}");
    }
    let contract = fs::read_to_string(package.join("proto/order_history/v1/order_history.proto")).expect("a contract");
    assert!(contract.contains("service OrderHistoryService {"), "{contract}");
    let lock = |folder: &Path| fs::read(folder.join("Cargo.lock")).expect("a lock file");
    assert_eq!(lock(&package), lock(&sources()));
    assert_eq!(fs::read_dir(parent.path()).expect("a folder").count(), 1, "no draft is left");
}

#[tokio::test]
async fn what_is_there_already_is_left_as_it_is() {
    let parent = folder();
    let (empty, file) = (parent.path().join("empty"), parent.path().join("file"));
    fs::create_dir(&empty).expect("made");
    fs::write(&file, "mine").expect("written");
    for path in [&empty, &file] {
        expect_refused(path, &[], "--path", "exists already").await;
    }
    expect_refused(&parent.path().join("missing/inventory"), &[], "--path", "does not exist").await;
    assert_eq!(fs::read_to_string(&file).expect("still there"), "mine");
}

#[tokio::test]
async fn a_folder_without_meshwork_is_refused_with_what_is_missing() {
    let parent = folder();
    let package = parent.path().join("inventory");
    let others = folder();
    let flags = ["--meshwork", others.path().to_str().expect("UTF-8")];
    expect_refused(&package, &flags, "--meshwork", "there is no package meshwork in it").await;
    expect_refused(&package, &["--meshwork", "/nowhere"], "--meshwork /nowhere", "cannot be read").await;
}

#[tokio::test]
async fn an_error_in_the_middle_leaves_nothing() {
    let meshwork = folder();
    for (package, below) in [("meshwork", ""), ("meshwork-process", "process"), ("meshwork-testing", "testing")] {
        let below = meshwork.path().join(below);
        fs::create_dir_all(&below).expect("made");
        fs::write(below.join("Cargo.toml"), format!("[package]\nname = {package:?}\n")).expect("written");
    }
    // The package's own files are written by the time that this is found to be no file.
    fs::create_dir(meshwork.path().join("Cargo.lock")).expect("made");
    let parent = folder();
    let flags = ["--meshwork", meshwork.path().to_str().expect("UTF-8")];
    expect_refused(&parent.path().join("inventory"), &flags, "--path", "cannot be written").await;
}

#[test]
fn a_name_that_cannot_be_used_says_why() {
    for (name, problem) in [
        ("Inventory", "1-63 lowercase letters, digits and hyphens"),
        ("in_ventory", "1-63 lowercase letters, digits and hyphens"),
        ("2nd", "begin with a letter"),
        ("match", "Rust, Cargo or the mesh"),
        ("tonic", "depends on"),
    ] {
        let error = Cli::try_parse_from(["meshwork", "new", name]).expect_err(name).to_string();
        assert!(error.contains(name) && error.contains("<NAME>") && error.contains(problem), "{error}");
    }
}
