//! The authority that a command uses, and how it and its certificates are spoken of.

use std::{path::Path, time::SystemTime};

use meshwork_process::to_stderr;
use prost_types::Timestamp;

use crate::{ca::Authority, error::Error};

/// Opens the authority, and warns if it has to be replaced.
pub(super) fn open(folder: &Path) -> Result<Authority, Error> {
    let authority = Authority::open(folder)?;
    if let Some(warning) = expiry(&authority, SystemTime::now()) {
        to_stderr(format_args!("warning: {warning}"));
    }
    Ok(authority)
}

/// What to say of a CA that has to be replaced.
pub(super) fn expiry(authority: &Authority, now: SystemTime) -> Option<String> {
    let not_after = authority.certificate().not_after();
    authority.expires_soon(now).then(|| {
        let (folder, at) = (authority.folder().display(), Timestamp::from(not_after));
        let verb = if now < not_after { "expires" } else { "expired" };
        format!("the CA in {folder} {verb} at {at}: replace it with \"meshwork ca rotate\"")
    })
}

/// Until when a certificate is valid, in words.
pub(super) fn until(time: SystemTime) -> String {
    // In whole seconds, as a certificate has it.
    let seconds = Timestamp { nanos: 0, ..Timestamp::from(time) };
    format!("valid until {seconds}")
}
