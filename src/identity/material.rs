//! A certificate, its key and the authorities it trusts: read, checked against each other, and ready for handshakes.

use std::{fmt, sync::Arc, time::SystemTime};

use super::{
    SpiffeId, Validity,
    verify::{self, ExpectedServer, VerifyClient, VerifyServer},
};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    client::Resumption,
    crypto::{CryptoProvider, ring},
    pki_types::{
        CertificateDer, PrivateKeyDer, UnixTime,
        pem::{self, PemObject as _},
    },
    server::{NoServerSessionStorage, WebPkiClientVerifier},
    sign::{CertifiedKey, SingleCertAndKey},
    version::TLS13,
};

/// What both sides must speak (RFC 9113, 3.3): grpc-go refuses a server that negotiates nothing.
pub(super) const ALPN_H2: &[u8] = b"h2";
/// What the PEM of a key that needs a passphrase says, whether it is PKCS #8 or of OpenSSL's older kind.
const ENCRYPTED: &[u8] = b"ENCRYPTED";
/// Authorities of a bundle: a rotation has two.
const MAX_AUTHORITIES: usize = 64;

/// The texts of a process's certificate, key and bundle, as PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct Pem {
    /// Its certificate, followed by intermediate ones if there are any.
    pub certificate: Vec<u8>,
    /// The certificate's private key: PKCS #8, SEC1 or PKCS #1.
    pub key: Vec<u8>,
    /// The authorities whose certificates it accepts.
    pub bundle: Vec<u8>,
}

/// The key is left out: logs are no place for it.
impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pem").finish_non_exhaustive()
    }
}

/// One of the three texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The certificate.
    Certificate,
    /// Its key.
    Key,
    /// The authorities.
    Bundle,
}

/// Why a certificate, its key and the authorities cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{problem}")]
pub struct InvalidIdentity {
    /// Where the fault is, as far as that can be said.
    pub part: Part,
    /// What it is.
    pub problem: String,
}

fn invalid(part: Part, problem: impl fmt::Display) -> InvalidIdentity {
    InvalidIdentity { part, problem: problem.to_string() }
}

/// What a process shows and accepts.
#[derive(Debug)]
pub(super) struct Material {
    pub(super) pem: Pem,
    pub(super) id: SpiffeId,
    pub(super) validity: Validity,
    provider: Arc<CryptoProvider>,
    certified: Arc<CertifiedKey>,
    roots: Arc<RootCertStore>,
    /// For connections that are accepted.
    pub(super) server: Arc<ServerConfig>,
}

impl Material {
    /// Reads and checks the three: the key fits, the certificate is an X509-SVID of its authorities, and valid at `now`.
    pub(super) fn new(pem: Pem, now: SystemTime) -> Result<Self, InvalidIdentity> {
        Self::read(pem, |leaf, intermediates, roots, provider| {
            verify::signed_by(leaf, intermediates, roots, unix(now), provider)
                .map_err(|error| invalid(Part::Certificate, verify::told(&error)))?;
            verify::svid(leaf).map_err(|error| invalid(Part::Certificate, error))
        })
    }

    /// One that may be anything, as that of a peer.
    #[cfg(test)]
    pub(super) fn unchecked(pem: Pem) -> Self {
        Self::read(pem, |_, _, _, _| Ok("spiffe://shop.test/service/unchecked".parse().expect("an ID"))).expect("PEM")
    }

    fn read(
        pem: Pem,
        check: impl FnOnce(
            &CertificateDer<'_>,
            &[CertificateDer<'_>],
            &RootCertStore,
            &CryptoProvider,
        ) -> Result<SpiffeId, InvalidIdentity>,
    ) -> Result<Self, InvalidIdentity> {
        let provider = Arc::new(ring::default_provider());
        let chain = certificates(&pem.certificate, Part::Certificate)?;
        let leaf = chain.first().expect("there is one");
        let roots = Arc::new(roots(&pem.bundle)?);
        if pem.key.windows(ENCRYPTED.len()).any(|part| part == ENCRYPTED) {
            return Err(invalid(
                Part::Key,
                "is encrypted: give it without a passphrase, in a file that only its owner may read",
            ));
        }
        let key = PrivateKeyDer::from_pem_slice(&pem.key)
            .map_err(|error| invalid(Part::Key, format_args!("holds no private key as PEM: {}", told(&error))))?;
        let key = provider.key_provider.load_private_key(key).map_err(|error| invalid(Part::Key, error))?;
        let validity = Validity::of(leaf)
            .ok_or_else(|| invalid(Part::Certificate, "is not an X.509 certificate that can be read"))?;
        let id = check(leaf, &chain[1..], &roots, &provider)?;
        let certified = Arc::new(CertifiedKey::new(chain, key));
        certified.keys_match().map_err(|_| invalid(Part::Key, "is not the key of the certificate"))?;
        let server = Arc::new(server_config(&provider, &certified, &roots, id.trust_domain())?);
        Ok(Self { pem, id, validity, provider, certified, roots, server })
    }

    /// For one connection that is made.
    pub(super) fn client(&self, expected: ExpectedServer) -> Arc<ClientConfig> {
        let verifier = VerifyServer::new(self.roots.clone(), expected, self.provider.clone());
        let mut config = ClientConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&TLS13])
            .expect("ring has the suites of TLS 1.3")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(self.certified.clone())));
        config.alpn_protocols = vec![ALPN_H2.to_vec()];
        // A resumed session is not verified again, and would carry an old certificate on.
        config.resumption = Resumption::disabled();
        Arc::new(config)
    }
}

fn server_config(
    provider: &Arc<CryptoProvider>,
    certified: &Arc<CertifiedKey>,
    roots: &Arc<RootCertStore>,
    trust_domain: &str,
) -> Result<ServerConfig, InvalidIdentity> {
    let chains = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone())
        .build()
        .map_err(|error| invalid(Part::Bundle, error))?;
    let mut config = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&TLS13])
        .expect("ring has the suites of TLS 1.3")
        .with_client_cert_verifier(Arc::new(VerifyClient::new(chains, trust_domain)))
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified.clone())));
    config.alpn_protocols = vec![ALPN_H2.to_vec()];
    // As in `client`.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

fn certificates(pem: &[u8], part: Part) -> Result<Vec<CertificateDer<'static>>, InvalidIdentity> {
    let all = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
    let all = all.map_err(|error| invalid(part, format_args!("cannot be read as PEM: {}", told(&error))))?;
    if all.is_empty() { Err(invalid(part, "holds no certificate as PEM")) } else { Ok(all) }
}

/// What is wrong with a text, in words: the crate's own for a text that is cut show its bytes as numbers.
fn told(error: &pem::Error) -> String {
    match error {
        pem::Error::MissingSectionEnd { end_marker } => {
            format!("its end is missing (-----END {}-----)", String::from_utf8_lossy(end_marker))
        }
        error => error.to_string(),
    }
}

fn roots(bundle: &[u8]) -> Result<RootCertStore, InvalidIdentity> {
    let authorities = certificates(bundle, Part::Bundle)?;
    if authorities.len() > MAX_AUTHORITIES {
        return Err(invalid(Part::Bundle, format_args!("holds more than {MAX_AUTHORITIES} certificates")));
    }
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        roots.add(authority).map_err(|error| {
            invalid(Part::Bundle, format_args!("holds what is no certificate of an authority: {error}"))
        })?;
    }
    Ok(roots)
}

/// A time before 1970 is its beginning: then every certificate is not valid yet.
fn unix(time: SystemTime) -> UnixTime {
    UnixTime::since_unix_epoch(time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
}
