//! A CA: a certificate with its key.

use std::time::{Duration, SystemTime};

use meshwork::identity::check_trust_domain;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, DnValue, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PublicKeyData as _, SanType, date_time_ymd,
};

use super::{
    CLOCK_SKEW, InvalidTrustDomain, Leaf, Problem,
    certificate::Certificate,
    files::{CA, CA_KEY},
};

/// Characters of a common name (RFC 5280, appendix A.1: ub-common-name).
const MAX_COMMON_NAME: usize = 64;
/// X.520's serialNumber.
const SERIAL_NUMBER: [u64; 4] = [2, 5, 4, 5];

/// A CA that signs.
#[derive(Debug)]
pub(super) struct Signer {
    pem: String,
    certificate: Certificate,
    trust_domain: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key, as PEM.
pub(super) struct Signed {
    pub(super) cert_pem: String,
    pub(super) key_pem: String,
}

impl Signer {
    /// A new CA of a trust domain. It signs leaves only, no other CA.
    pub(super) fn create(trust_domain: &str, lifetime: Duration, now: SystemTime) -> Result<Signed, Problem> {
        let mut params = params(now - CLOCK_SKEW, now + lifetime);
        params.distinguished_name = name(&format!("Meshwork CA {trust_domain}"));
        // Each CA has a name of its own, the ones of a rotation too: some verifiers (grpc-java's on OkHttp) keep one CA per name.
        let serial = rcgen::string::PrintableString::try_from(format!("{:016x}", rand::random::<u64>()))?;
        params.distinguished_name.push(DnType::CustomDnType(SERIAL_NUMBER.into()), DnValue::PrintableString(serial));
        params.subject_alt_names = vec![SanType::URI(format!("spiffe://{trust_domain}").try_into()?)];
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate()?;
        Ok(Signed { cert_pem: params.self_signed(&key)?.pem(), key_pem: key.serialize_pem() })
    }

    /// `None`: the key is another certificate's.
    pub(super) fn read(cert_pem: String, key_pem: &str) -> Result<Option<Self>, Problem> {
        let certificate = Certificate::read(CA.name, &cert_pem)?;
        if !fits(&certificate, CA_KEY.name, key_pem)? {
            return Ok(None);
        }
        let trust_domain = certificate.signs_for().ok_or(Problem::NoTrustDomain)?.to_owned();
        let issuer = Issuer::from_ca_cert_der(&certificate.der().into(), key_pair(CA_KEY.name, key_pem)?)?;
        Ok(Some(Self { pem: cert_pem, certificate, trust_domain, issuer }))
    }

    /// A certificate with a new key.
    pub(super) fn sign(&self, leaf: &Leaf) -> Result<Signed, Problem> {
        let mut params = params(leaf.not_before, leaf.not_after);
        // For people only. It is not the bare name of a service, which some clients would take for the name of a host.
        let id = leaf.uris.first().map(String::as_str).unwrap_or_default();
        params.distinguished_name = name(id.splitn(4, '/').last().unwrap_or_default());
        for uri in &leaf.uris {
            params.subject_alt_names.push(SanType::URI(uri.as_str().try_into()?));
        }
        for name in &leaf.dns {
            params.subject_alt_names.push(SanType::DnsName(name.as_str().try_into()?));
        }
        params.subject_alt_names.extend(leaf.ips.iter().copied().map(SanType::IpAddress));
        params.is_ca = if leaf.is_ca { IsCa::Ca(BasicConstraints::Unconstrained) } else { IsCa::ExplicitNoCa };
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate()?;
        Ok(Signed { cert_pem: params.signed_by(&key, &self.issuer)?.pem(), key_pem: key.serialize_pem() })
    }

    pub(super) fn pem(&self) -> &str {
        &self.pem
    }

    pub(super) fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    pub(super) fn trust_domain(&self) -> &str {
        &self.trust_domain
    }
}

/// Whether this can be the trust domain of a CA. Go reads no certificate with an ID whose host has empty parts.
pub(super) fn check_ca_trust_domain(name: &str) -> Result<(), InvalidTrustDomain> {
    check_trust_domain(name).map_err(InvalidTrustDomain::Spiffe)?;
    if name.split('.').any(str::is_empty) { Err(InvalidTrustDomain::EmptyPart) } else { Ok(()) }
}

/// Whether a key is a certificate's.
pub(super) fn fits(certificate: &Certificate, file: &'static str, key_pem: &str) -> Result<bool, Problem> {
    Ok(key_pair(file, key_pem)?.subject_public_key_info() == certificate.public_key())
}

/// The parser's own words could show a part of the key.
fn key_pair(file: &'static str, pem: &str) -> Result<KeyPair, Problem> {
    KeyPair::from_pem(pem)
        .map_err(|_| Problem::Malformed { file, problem: "has no private key (PKCS #8, PEM) in it".to_owned() })
}

/// The serial number is rcgen's: a hash of the key, which is new for each certificate.
fn params(not_before: SystemTime, not_after: SystemTime) -> CertificateParams {
    let mut params = CertificateParams::default();
    let time = |time: SystemTime| {
        let since_1970 = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        date_time_ymd(1970, 1, 1) + Duration::from_secs(since_1970.as_secs())
    };
    (params.not_before, params.not_after) = (time(not_before), time(not_after));
    params.use_authority_key_identifier_extension = true;
    params
}

fn name(text: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, text.chars().take(MAX_COMMON_NAME).collect::<String>());
    name
}
