//! What can be wrong with an authority or a certificate. No message has a key in it.

use std::{
    io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use meshwork::{duration::Shown, identity::InvalidSpiffeId};
use prost_types::Timestamp;

/// Why something cannot be signed, written or rotated.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The trust domain of a new authority.
    #[error("the trust domain {name:?} {problem}")]
    TrustDomain {
        /// As it was given.
        name: String,
        /// What is wrong with it.
        problem: InvalidTrustDomain,
    },
    /// The folder of an authority cannot be used.
    #[error("{}: {problem}", folder.display())]
    Authority {
        /// Which.
        folder: PathBuf,
        /// What is wrong with it.
        problem: Problem,
    },
    /// The folder of a certificate cannot be used.
    #[error("{}: {problem}", folder.display())]
    Leaf {
        /// Which.
        folder: PathBuf,
        /// What is wrong with it.
        problem: Problem,
    },
}

/// A name that cannot be a CA's trust domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTrustDomain {
    /// No SPIFFE ID can have it.
    #[error(transparent)]
    Spiffe(InvalidSpiffeId),
    /// Some verifiers cannot read it.
    #[error("must have no empty part before, between or after its dots")]
    EmptyPart,
}

/// What is wrong with a folder.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// There is no authority.
    #[error("has no CA in it; make one with \"meshwork ca init\"")]
    NoAuthority,
    /// There is an authority, or a part of one.
    #[error("has a CA in it already ({0}), which is never replaced; give another folder")]
    Exists(&'static str),
    /// There is no certificate.
    #[error("has no {0} in it; make one with \"meshwork ca issue\"")]
    NoCertificate(&'static str),
    /// The folder cannot be used.
    #[error("cannot be used: {0}")]
    Io(io::Error),
    /// A file cannot be read or replaced.
    #[error("{file} cannot be used: {error}")]
    File {
        /// Which.
        file: &'static str,
        /// Why.
        error: io::Error,
    },
    /// A file has something else in it.
    #[error("{file} {problem}")]
    Malformed {
        /// Which.
        file: &'static str,
        /// As a sentence about it.
        problem: String,
    },
    /// The key is not the certificate's.
    #[error("{key} is not the key of {certificate}")]
    KeyDoesNotFit {
        /// The file of the key.
        key: &'static str,
        /// The file of the certificate.
        certificate: &'static str,
    },
    /// The CA was not made by this program.
    #[error("ca.pem is not the certificate of a CA with one URI, spiffe://TRUST_DOMAIN")]
    NoTrustDomain,
    /// What the CA signs would not be trusted.
    #[error("bundle.pem does not have ca.pem in it")]
    NotInBundle,
    /// The bundle has a CA of another trust domain.
    #[error("bundle.pem has a certificate in it that is not a CA of {0}")]
    Stranger(String),
    /// The CA has expired.
    #[error("the CA expired at {}; replace it with \"meshwork ca rotate\"", Timestamp::from(*.0))]
    Expired(SystemTime),
    /// A certificate has to be given another place.
    #[error("is the folder of a CA; give another one")]
    IsAuthority,
    /// A certificate would be replaced by another's.
    #[error("has the certificate of {0} in it; give another folder")]
    OtherIdentity(String),
    /// Only what this authority has signed is renewed.
    #[error(
        "cert.pem is not a certificate of a service or an operator of {0} that a trusted CA has signed; issue it again \
         with \"meshwork ca issue\""
    )]
    NotOurs(String),
    /// A step of a rotation has not reached the folder: its copy of the bundle.
    #[error("does not trust the new CA yet; run \"meshwork ca renew\" on it first")]
    NotDistributed,
    /// A step of a rotation has not reached the folder: its certificate.
    #[error("has a certificate of the old CA still; run \"meshwork ca renew\" on it first")]
    NotReissued,
    /// A step of a rotation may not have reached the service.
    #[error("was changed only now, and its service may not have read it yet; try again in {}", Shown(*.0))]
    TooFresh(Duration),
    /// A certificate cannot be signed.
    #[error("cannot sign: {0}")]
    Sign(rcgen::Error),
}

impl Error {
    pub(super) fn authority(folder: &Path, problem: Problem) -> Self {
        Self::Authority { folder: folder.to_owned(), problem }
    }

    pub(super) fn leaf(folder: &Path, problem: Problem) -> Self {
        Self::Leaf { folder: folder.to_owned(), problem }
    }
}

impl From<io::Error> for Problem {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<rcgen::Error> for Problem {
    fn from(error: rcgen::Error) -> Self {
        Self::Sign(error)
    }
}
