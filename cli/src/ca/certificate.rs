//! Certificates as they are read from a file.

use std::{
    fmt,
    net::IpAddr,
    time::{Duration, SystemTime},
};

use meshwork::identity::{SpiffeId, check_trust_domain};
use x509_parser::{
    extensions::GeneralName,
    nom::Parser as _,
    pem::Pem,
    prelude::{FromDer as _, SubjectPublicKeyInfo, X509Certificate, X509CertificateParser},
    time::ASN1Time,
};

use super::{CLOCK_SKEW, Problem};

/// What a certificate says.
#[derive(Clone, PartialEq, Eq)]
pub struct Certificate {
    der: Vec<u8>,
    public_key: Vec<u8>,
    uris: Vec<String>,
    dns: Vec<String>,
    ips: Vec<IpAddr>,
    not_before: SystemTime,
    not_after: SystemTime,
    is_ca: bool,
}

impl Certificate {
    /// The first certificate of a PEM text.
    ///
    /// # Errors
    /// The text, of the file of this name, has none, or something else in it.
    pub fn read(file: &'static str, pem: &str) -> Result<Self, Problem> {
        let mut all = Self::read_all(file, pem)?;
        Ok(all.swap_remove(0))
    }

    /// The certificates of a PEM text: at least one.
    pub(super) fn read_all(file: &'static str, pem: &str) -> Result<Vec<Self>, Problem> {
        let malformed = |problem: &str| Problem::Malformed { file, problem: problem.to_owned() };
        let mut all = Vec::new();
        for block in Pem::iter_from_buffer(pem.as_bytes()) {
            let block = block.map_err(|_| malformed("is not PEM"))?;
            // Above all no key, which would be given to every service.
            if block.label != "CERTIFICATE" {
                return Err(malformed("has something else than certificates in it"));
            }
            all.push(Self::from_der(block.contents).ok_or_else(|| malformed("has a malformed certificate in it"))?);
        }
        if all.is_empty() { Err(malformed("has no certificate in it")) } else { Ok(all) }
    }

    fn from_der(der: Vec<u8>) -> Option<Self> {
        let (_, parsed) = X509Certificate::from_der(&der).ok()?;
        let (mut uris, mut dns, mut ips) = (Vec::new(), Vec::new(), Vec::new());
        for name in parsed.subject_alternative_name().ok()?.iter().flat_map(|names| &names.value.general_names) {
            match name {
                GeneralName::URI(uri) => uris.push((*uri).to_owned()),
                GeneralName::DNSName(name) => dns.push((*name).to_owned()),
                GeneralName::IPAddress(octets) => ips.push(ip(octets)?),
                _ => {}
            }
        }
        Some(Self {
            public_key: parsed.public_key().raw.to_owned(),
            uris,
            dns,
            ips,
            not_before: time(parsed.validity().not_before)?,
            not_after: time(parsed.validity().not_after)?,
            is_ca: parsed.is_ca(),
            der,
        })
    }

    /// URI SANs.
    pub fn uris(&self) -> &[String] {
        &self.uris
    }

    /// DNS SANs.
    pub fn dns(&self) -> &[String] {
        &self.dns
    }

    /// IP SANs.
    pub fn ips(&self) -> &[IpAddr] {
        &self.ips
    }

    /// Valid from.
    pub fn not_before(&self) -> SystemTime {
        self.not_before
    }

    /// Valid until.
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// Whether it may sign others.
    pub fn is_ca(&self) -> bool {
        self.is_ca
    }

    /// The certificate itself.
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// Its key, as a SubjectPublicKeyInfo.
    pub(super) fn public_key(&self) -> &[u8] {
        &self.public_key
    }

    /// Whose it is; `None`: nobody's, as of one without exactly one URI, or of a CA (X509-SVID, 2 and 4.1).
    pub fn identity(&self) -> Option<SpiffeId> {
        match self.uris.as_slice() {
            [uri] if !self.is_ca => uri.parse().ok(),
            _ => None,
        }
    }

    /// For which trust domain it signs: a CA's ID has no path.
    pub(super) fn signs_for(&self) -> Option<&str> {
        match self.uris.as_slice() {
            [uri] if self.is_ca => uri.strip_prefix("spiffe://").filter(|name| check_trust_domain(name).is_ok()),
            _ => None,
        }
    }

    /// For how long it was valid when it was made.
    pub(super) fn lifetime(&self) -> Duration {
        self.not_after.duration_since(self.not_before + CLOCK_SKEW).unwrap_or_default()
    }

    /// When half of its life has passed.
    pub(super) fn half_life(&self) -> SystemTime {
        self.not_after - self.lifetime() / 2
    }

    /// Whether this CA has signed it. Looks at the signature only.
    pub(super) fn is_signed_by(&self, ca: &Self) -> bool {
        let parsed = X509CertificateParser::new().with_deep_parse_extensions(false).parse(&self.der);
        let key = SubjectPublicKeyInfo::from_der(&ca.public_key);
        match (parsed, key) {
            (Ok((_, certificate)), Ok((_, key))) => certificate.verify_signature(Some(&key)).is_ok(),
            _ => false,
        }
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { uris, dns, ips, not_before, not_after, is_ca, der: _, public_key: _ } = self;
        f.debug_struct("Certificate")
            .field("uris", uris)
            .field("dns", dns)
            .field("ips", ips)
            .field("not_before", not_before)
            .field("not_after", not_after)
            .field("is_ca", is_ca)
            .finish_non_exhaustive()
    }
}

fn ip(octets: &[u8]) -> Option<IpAddr> {
    <[u8; 4]>::try_from(octets).map(IpAddr::from).or_else(|_| <[u8; 16]>::try_from(octets).map(IpAddr::from)).ok()
}

/// `None`: before 1970.
fn time(time: ASN1Time) -> Option<SystemTime> {
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(time.timestamp().try_into().ok()?))
}
