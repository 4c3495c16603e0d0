//! `meshwork new`: writes the package of a new service. It is written beside its target and moved there when it is
//! complete, so that an error leaves nothing behind.

mod manifest;
mod name;
mod template;

use std::{
    fs, io,
    io::Write as _,
    path::{self, Path, PathBuf},
};

pub use name::{InvalidPackageName, PackageName};

use crate::{args::NewArgs, error::Error};

/// The sources that this program was built from.
const SOURCES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// The packages of Meshwork that a new one depends on, and their folders.
const PACKAGES: [(&str, &str); 3] =
    [("meshwork", "."), ("meshwork-process", "process"), ("meshwork-testing", "testing")];

const EXISTS: &str = "exists already; give another folder";

/// Writes the package, and says what to type next.
pub(crate) fn run(args: &NewArgs) -> Result<(), Error> {
    let meshwork = sources(args.meshwork.as_deref())?;
    let target = args.path.clone().unwrap_or_else(|| args.name.as_str().into());
    write(&args.name, &target, &meshwork)?;
    let name = args.name.as_str();
    let snake = args.name.snake();
    let (target, meshwork) = (target.display(), meshwork.display());
    writeln!(
        io::stdout(),
        "Created {target}: the service {name}, with a client and tests.

Try it:
  cd {target}
  cargo test    # in a mesh of its own
  cargo run     # joins the mesh of \"cargo mesh up\" (in {meshwork})
  cargo run --bin {name}-client -- Ada    # in another terminal

Then make it yours: proto/{snake}/v1/{snake}.proto, src/lib.rs, src/bin/{name}-client.rs, tests/service.rs; build.rs names the
contract's file."
    )?;
    Ok(())
}

/// The folder with Meshwork's sources, without links, as its path has to be in a package.
fn sources(given: Option<&Path>) -> Result<PathBuf, Error> {
    let folder = given.unwrap_or(Path::new(SOURCES));
    let refused = |problem: String| Error::flag("--meshwork", folder.display(), problem);
    let found = fs::canonicalize(folder)
        .map_err(|error| refused(format!("cannot be read: {error}; give the folder with Meshwork's sources")))?;
    if !found.is_dir() {
        return Err(refused("is not a folder".to_owned()));
    }
    for (package, below) in PACKAGES {
        let manifest = fs::read_to_string(found.join(below).join("Cargo.toml")).unwrap_or_default();
        if !manifest.lines().any(|line| line == format!("name = {package:?}")) {
            return Err(refused(format!("does not hold Meshwork's sources: there is no package {package} in it")));
        }
    }
    if found.to_str().is_none() {
        return Err(refused("must be UTF-8: a Cargo.toml is".to_owned()));
    }
    Ok(found)
}

/// Writes the package to `target`, whole or not at all.
fn write(name: &PackageName, target: &Path, meshwork: &Path) -> Result<(), Error> {
    let refused = |problem: &str| Error::flag("--path", target.display(), problem);
    let failed = |error: io::Error| refused(&format!("cannot be written: {error}"));
    let given = target;
    let target = path::absolute(target).map_err(failed)?;
    let parent = target.parent().filter(|_| fs::symlink_metadata(&target).is_err());
    let parent = parent.ok_or_else(|| refused(EXISTS))?;
    if !parent.is_dir() {
        return Err(refused(&format!("the folder {} does not exist", given.parent().unwrap_or(parent).display())));
    }
    let draft = tempfile::Builder::new().prefix(".meshwork-new-").tempdir_in(parent);
    // Without the name of the temporary folder.
    let draft = draft.map_err(|error| failed(error.kind().into()))?;
    // Not the temporary folder itself, which only its owner may read.
    let package = draft.path().join("package");
    let quoted = serde_json::to_string(meshwork).map_err(|error| failed(error.into()))?;
    for (path, text) in template::files(name, &quoted[1..quoted.len() - 1]) {
        write_file(&package.join(path), text.as_bytes()).map_err(failed)?;
    }
    // Cargo takes out what the package does not need, and adds the package.
    match fs::read(meshwork.join("Cargo.lock")) {
        Ok(lock) => write_file(&package.join("Cargo.lock"), &lock).map_err(failed)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    // Takes no other's place, should there be one by now, unless it is an empty folder.
    fs::rename(&package, &target).map_err(|error| match error.kind() {
        io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory => {
            refused(EXISTS)
        }
        _ => failed(error),
    })
}

fn write_file(path: &Path, text: &[u8]) -> io::Result<()> {
    path.parent().map_or(Ok(()), fs::create_dir_all)?;
    fs::write(path, text)
}
