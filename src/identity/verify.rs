//! Which certificates are accepted: those of an X509-SVID of the trust domain, and of a server only that of the service that was
//! asked for.
//!
//! rustls's own verifier of servers wants a DNS name or an address to match, which says nothing here: the address of an instance comes
//! from the registry, and whoever has written it there may have a certificate for it. So the chain is verified without a name, and then the
//! identity is compared with the one that follows from the service's name (X509-SVID, section 5).

use std::{fmt, sync::Arc};

use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, PeerIncompatible, RootCertStore,
    SignatureScheme,
    client::{
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor,
    },
    crypto::{CryptoProvider, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::{
        ParsedCertificate,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};
use webpki::EndEntityCert;

use super::{SpiffeId, validity::shown};

/// Whose certificate a server must show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ExpectedServer {
    /// That of this identity.
    Exactly(SpiffeId),
    /// That of any service of this trust domain.
    AnyOf(String),
}

/// Why a certificate that its authority has signed is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NotAccepted {
    #[error("the certificate has no URI name: an X509-SVID has exactly one, its SPIFFE ID")]
    NoUri,
    #[error("the certificate has {0} URI names: an X509-SVID has exactly one, its SPIFFE ID")]
    SeveralUris(usize),
    #[error("the certificate's URI name is not a SPIFFE ID: {0}")]
    NotASpiffeId(super::InvalidSpiffeId),
    #[error("the certificate is that of {found}, of another trust domain than {expected}")]
    OtherTrustDomain { found: SpiffeId, expected: String },
    #[error("the server's certificate is that of {found}, and not of {expected}, which was called")]
    OtherServer { found: SpiffeId, expected: SpiffeId },
    #[error("the server's certificate is that of {0}, which is not a service")]
    NotAService(SpiffeId),
}

impl NotAccepted {
    /// In a word, for metrics.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::NoUri | Self::SeveralUris(_) | Self::NotASpiffeId(_) => "not_an_svid",
            Self::OtherTrustDomain { .. } => "other_trust_domain",
            Self::OtherServer { .. } | Self::NotAService(_) => "other_identity",
        }
    }
}

impl From<NotAccepted> for Error {
    fn from(error: NotAccepted) -> Self {
        Self::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(error))))
    }
}

/// The reason within an error of a handshake, if it is one of ours.
pub(super) fn not_accepted(error: &Error) -> Option<&NotAccepted> {
    match error {
        Error::InvalidCertificate(CertificateError::Other(OtherError(error))) => error.downcast_ref(),
        _ => None,
    }
}

/// An error in words that say what to look at.
pub(super) fn told(error: &Error) -> String {
    if let Some(error) = not_accepted(error) {
        return error.to_string();
    }
    let system = |time: &UnixTime| std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(time.as_secs());
    let at = |time: &UnixTime| if time.as_secs() < 1 << 40 { shown(system(time)) } else { "an unknown time".into() };
    match error {
        Error::InvalidCertificate(CertificateError::ExpiredContext { not_after, .. }) => {
            format!("the certificate, or one of its authority, expired at {}", at(not_after))
        }
        Error::InvalidCertificate(CertificateError::NotValidYetContext { not_before, .. }) => {
            format!(
                "the certificate, or one of its authority, is not valid before {}: is the clock right?",
                at(not_before)
            )
        }
        Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            "the certificate is not signed by an authority of the bundle".to_owned()
        }
        error if is_authority_as_leaf(error) => {
            "the certificate is that of an authority (CA), which must not be used for connections".to_owned()
        }
        error => error.to_string(),
    }
}

/// Whether a certificate was refused because it is an authority's.
pub(super) fn is_authority_as_leaf(error: &Error) -> bool {
    match error {
        Error::InvalidCertificate(CertificateError::Other(OtherError(error))) => {
            matches!(error.downcast_ref(), Some(webpki::Error::CaUsedAsEndEntity))
        }
        _ => false,
    }
}

/// The SPIFFE ID of a certificate.
pub(super) fn svid(certificate: &CertificateDer<'_>) -> Result<SpiffeId, NotAccepted> {
    let certificate = EndEntityCert::try_from(certificate).map_err(|_| NotAccepted::NoUri)?;
    let uris: Vec<_> = certificate.valid_uri_names().collect();
    match uris[..] {
        [] => Err(NotAccepted::NoUri),
        [uri] => uri.parse().map_err(NotAccepted::NotASpiffeId),
        _ => Err(NotAccepted::SeveralUris(uris.len())),
    }
}

/// Whether an authority of `roots` has signed a certificate that is valid at `now`, and no authority's itself.
pub(super) fn signed_by(
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    roots: &RootCertStore,
    now: UnixTime,
    provider: &CryptoProvider,
) -> Result<(), Error> {
    let parsed = ParsedCertificate::try_from(leaf)?;
    let algorithms = provider.signature_verification_algorithms.all;
    verify_server_cert_signed_by_trust_anchor(&parsed, roots, intermediates, now, algorithms)
}

/// Verifies servers.
#[derive(Debug)]
pub(super) struct VerifyServer {
    roots: Arc<RootCertStore>,
    expected: ExpectedServer,
    provider: Arc<CryptoProvider>,
}

impl VerifyServer {
    pub(super) fn new(roots: Arc<RootCertStore>, expected: ExpectedServer, provider: Arc<CryptoProvider>) -> Self {
        Self { roots, expected, provider }
    }

    fn check(&self, found: SpiffeId) -> Result<(), NotAccepted> {
        match &self.expected {
            ExpectedServer::Exactly(expected) if found == *expected => Ok(()),
            ExpectedServer::Exactly(expected) => Err(NotAccepted::OtherServer { found, expected: expected.clone() }),
            ExpectedServer::AnyOf(trust_domain) => {
                let found = of_trust_domain(found, trust_domain)?;
                if found.service().is_some() { Ok(()) } else { Err(NotAccepted::NotAService(found)) }
            }
        }
    }
}

fn of_trust_domain(found: SpiffeId, expected: &str) -> Result<SpiffeId, NotAccepted> {
    if found.trust_domain() == expected {
        Ok(found)
    } else {
        Err(NotAccepted::OtherTrustDomain { found, expected: expected.to_owned() })
    }
}

impl ServerCertVerifier for VerifyServer {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        signed_by(leaf, intermediates, &self.roots, now, &self.provider)?;
        self.check(svid(leaf)?)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::ServerDoesNotSupportTls12Or13.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, leaf, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Verifies clients: every one of the trust domain is known, and what it may do is decided for each call.
pub(super) struct VerifyClient {
    chains: Arc<dyn ClientCertVerifier>,
    trust_domain: String,
}

impl VerifyClient {
    pub(super) fn new(chains: Arc<dyn ClientCertVerifier>, trust_domain: &str) -> Self {
        Self { chains, trust_domain: trust_domain.to_owned() }
    }
}

impl fmt::Debug for VerifyClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerifyClient").field("trust_domain", &self.trust_domain).finish_non_exhaustive()
    }
}

impl ClientCertVerifier for VerifyClient {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chains.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.chains.verify_client_cert(leaf, intermediates, now)?;
        of_trust_domain(svid(leaf)?, &self.trust_domain)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chains.verify_tls12_signature(message, leaf, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chains.verify_tls13_signature(message, leaf, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chains.supported_verify_schemes()
    }
}
