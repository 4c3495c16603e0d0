//! Where a process's certificate, key and bundle are kept.

use std::{
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use super::{InvalidIdentity, Part, Pem};

/// A bundle of many authorities is smaller.
const MAX_BYTES: u64 = 1 << 20;

/// Three files, which are replaced when the certificate is renewed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// The authorities.
    pub bundle: PathBuf,
}

impl TlsFiles {
    /// The files of a folder, as `meshwork ca issue` writes them: `cert.pem`, `key.pem` and `ca.pem`.
    pub fn in_folder(folder: &Path) -> Self {
        let [certificate, key, bundle] = ["cert.pem", "key.pem", "ca.pem"].map(|name| folder.join(name));
        Self { certificate, key, bundle }
    }

    /// The file of a part.
    pub fn path(&self, part: Part) -> &Path {
        match part {
            Part::Certificate => &self.certificate,
            Part::Key => &self.key,
            Part::Bundle => &self.bundle,
        }
    }

    /// Reads all three.
    ///
    /// # Errors
    /// One of them cannot be read, or is larger than 1 MiB.
    pub fn read(&self) -> Result<Pem, InvalidIdentity> {
        let read = |part| {
            read(self.path(part)).map_err(|error| InvalidIdentity { part, problem: format!("cannot be read: {error}") })
        };
        Ok(Pem { certificate: read(Part::Certificate)?, key: read(Part::Key)?, bundle: read(Part::Bundle)? })
    }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    // A pipe would be waited for.
    if !path.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
    }
    let mut text = Vec::new();
    File::open(path)?.take(MAX_BYTES + 1).read_to_end(&mut text)?;
    if text.len() as u64 > MAX_BYTES {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it is larger than 1 MiB"));
    }
    Ok(text)
}
