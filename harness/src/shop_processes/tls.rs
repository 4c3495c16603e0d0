//! How the processes of a shop protect their connections.

use std::path::PathBuf;

use meshwork::identity::{Identity, InvalidIdentity, Security, TlsFiles, TlsMode};

/// Who this process, and the shop's [`Command`](super::Command)s, are.
pub(super) const OPERATOR: &str = "operator/harness";

/// How a shop protects its connections.
#[derive(Clone, Debug)]
pub enum Tls {
    /// In plain mode.
    Off,
    /// In strict mode, with certificates of its own that are renewed all the time.
    Renewed,
    /// In a mode that may change with each start of a process, with certificates that somebody else keeps.
    Kept(Protection),
}

/// A mode, and where the certificates are: a folder for each, named as in its SPIFFE ID. There must be `service/registry`, one for each
/// service, and `operator/harness`, which is this process.
#[derive(Clone, Debug)]
pub struct Protection {
    /// The mode.
    pub mode: TlsMode,
    /// The folder of all.
    pub folder: PathBuf,
}

impl Protection {
    /// The flags of a service's processes.
    pub(super) fn flags(&self, service: &str) -> Vec<String> {
        self.flags_of(&format!("service/{service}"))
    }

    /// The flags of the shop's operator.
    pub(super) fn operator_flags(&self) -> Vec<String> {
        self.flags_of(OPERATOR)
    }

    fn flags_of(&self, path: &str) -> Vec<String> {
        let folder = self.folder.join(path).display().to_string();
        ["--tls-mode", self.mode.name(), "--tls-dir", &folder].map(str::to_owned).to_vec()
    }

    /// The operator's own connections.
    pub(super) fn security(&self) -> Result<Security, InvalidIdentity> {
        let identity = || Identity::from_files(TlsFiles::in_folder(&self.folder.join(OPERATOR)));
        Ok(match self.mode {
            TlsMode::Plain => Security::Plain,
            TlsMode::Permissive => Security::Permissive(identity()?),
            TlsMode::Strict => Security::Strict(identity()?),
        })
    }
}
