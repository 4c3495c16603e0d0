//! A certificate authority in a folder: it gives services and operators their certificates (X509-SVID), for `meshwork ca`,
//! `meshwork up --tls` and tests. A service never signs.
//!
//! Modules are listed in the order in which a certificate comes about: a [`Subject`] is made a [`Leaf`], which an
//! [`Authority`] signs; what it has [`Issued`] is written to a folder, from which a service reads it, and renewed there.
//!
//! | folder | file | what it is |
//! |---|---|---|
//! | of an authority | `ca.pem` | the certificate that signs |
//! | | `ca-key.pem` | its key, a secret |
//! | | `bundle.pem` | the certificates that are trusted: more than one during a rotation |
//! | | `next.pem`, `next-key.pem` | the CA that signs after the next step of a rotation |
//! | of a service or an operator | `key.pem` | its key, a secret |
//! | | `cert.pem` | its certificate |
//! | | `ca.pem` | a copy of the bundle |
//!
//! Each file is replaced whole; a reader that finds a key and a certificate that do not fit reads again. Time is a
//! parameter everywhere: nothing here looks at a clock.

mod subject;

mod leaf;

mod authority;
mod renewal;
mod rotation;
mod stage;

mod bundle;
mod certificate;
mod files;
mod signer;

mod error;

pub(crate) mod command;

#[cfg(test)]
mod tests;

use std::time::Duration;

pub use authority::Authority;
pub use certificate::Certificate;
pub use error::{Error, InvalidTrustDomain, Problem};
pub use leaf::{Issued, Leaf};
pub use renewal::{Inspected, Renewal, Renewed};
pub use rotation::Check;
pub use stage::Stage;
pub(crate) use subject::check_dns_name;
pub use subject::{InvalidSubject, Subject};

/// How long a certificate is valid, unless told otherwise.
pub const LEAF_LIFETIME: Duration = Duration::from_secs(24 * 3600);
/// How long a CA is valid, unless told otherwise: 10 years.
pub const CA_LIFETIME: Duration = Duration::from_secs(3650 * 24 * 3600);
/// How far clocks may differ: a certificate is valid from this long before it is made.
pub const CLOCK_SKEW: Duration = Duration::from_secs(300);
