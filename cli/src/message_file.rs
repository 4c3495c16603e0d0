//! Files that hold a message as protobuf JSON, as `--json` prints it; `-` is stdin. What is wrong with one is wrong with `--file`.

use std::{
    fmt::Display,
    fs,
    io::{self, Read as _},
    path::Path,
};

use meshwork_registry::ProtobufJson;
use prost::{Message, Name};

use crate::error::Error;

/// The message of a file; `named` is what it should be, as in "a Policy".
pub(crate) fn read<M: Message + Name + Default>(file: &Path, named: &str) -> Result<M, Error> {
    let text = if file == Path::new("-") { stdin() } else { fs::read(file) };
    let text = text.map_err(|error| unusable(file, format_args!("cannot be read: {error}")))?;
    if text.trim_ascii().is_empty() {
        return Err(unusable(file, "is empty"));
    }
    let message = ProtobufJson::new().read(&text);
    message.map_err(|error| unusable(file, format_args!("must be {named} as protobuf JSON: {error}")))
}

/// Checks that a file is about this service, or about none.
pub(crate) fn check_service(file: &Path, its: &str, service: &str) -> Result<(), Error> {
    if its.is_empty() || its == service {
        return Ok(());
    }
    let other = its;
    let problem =
        format_args!("is the policy of {other:?}, not of {service:?}: remove its field \"service\", or name {other}");
    Err(unusable(file, problem))
}

/// What is wrong with the file.
pub(crate) fn unusable(file: &Path, problem: impl Display) -> Error {
    Error::flag("--file", file.display(), problem)
}

fn stdin() -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    io::stdin().lock().read_to_end(&mut text)?;
    Ok(text)
}
