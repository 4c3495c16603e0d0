//! The CAs that are trusted.

use super::{Problem, certificate::Certificate, files::BUNDLE};

/// The CAs of one trust domain that are trusted, as they are distributed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Bundle {
    pem: String,
    cas: Vec<Certificate>,
}

impl Bundle {
    /// Reads `bundle.pem`. A CA of another trust domain could vouch for this one's services, so it is refused.
    pub(super) fn read(pem: String, trust_domain: &str) -> Result<Self, Problem> {
        let cas = Certificate::read_all(BUNDLE.name, &pem)?;
        if cas.iter().all(|ca| ca.signs_for() == Some(trust_domain)) {
            Ok(Self { pem, cas })
        } else {
            Err(Problem::Stranger(trust_domain.to_owned()))
        }
    }

    /// The text with another CA at its end.
    pub(super) fn and(&self, ca_pem: &str) -> String {
        format!("{}\n{ca_pem}", self.pem.trim_end())
    }

    pub(super) fn pem(&self) -> &str {
        &self.pem
    }

    pub(super) fn cas(&self) -> &[Certificate] {
        &self.cas
    }

    pub(super) fn contains(&self, ca: &Certificate) -> bool {
        self.cas.contains(ca)
    }
}
