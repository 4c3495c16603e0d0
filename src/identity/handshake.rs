//! Handshakes: of a server with whoever connects, and of a client with the server that it asked for.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, SystemTime},
};

use rustls::{AlertDescription, CertificateError, Error, InvalidMessage, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf},
    time::{Instant, timeout, timeout_at},
};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

use super::{
    Identity, PeerIdentity, Security, SpiffeId, Validity,
    material::ALPN_H2,
    verify::{self, ExpectedServer},
};

/// The first byte of a TLS connection: a record with a handshake (RFC 8446, 5.1). HTTP/2's preface begins with a letter.
pub(crate) const TLS_RECORD: u8 = 0x16;
/// How long a peer that is refused may take to read why.
const FAREWELL: Duration = Duration::from_secs(1);
/// A GOAWAY frame without its debug data: 8 bytes, no stream was processed, INADEQUATE_SECURITY.
const GOAWAY: [u8; 17] = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x0c];

/// A connection of a server.
pub(crate) enum ServerIo<IO> {
    Plain(Begun<IO>),
    Tls(Box<server::TlsStream<Begun<IO>>>),
}

/// What a server knows of the peer of a connection.
#[derive(Clone, Debug, Default)]
pub(crate) struct Peer {
    pub(crate) identity: PeerIdentity,
    /// When the first of the two certificates expires.
    pub(crate) expires: Option<SystemTime>,
}

/// Why a server has no connection with a peer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AcceptError {
    #[error("a peer sent nothing")]
    Nothing,
    #[error("a peer did not finish its TLS handshake in time")]
    Late,
    #[error("a peer speaks TLS to this port, which is in plain mode")]
    TlsInPlainMode,
    #[error("a peer speaks plain text to this port, which takes TLS only")]
    PlainText,
    #[error("{}", told(.0))]
    Tls(io::Error),
}

impl AcceptError {
    /// In a word, for metrics.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::Nothing => "closed",
            Self::Late => "timeout",
            Self::TlsInPlainMode => "tls",
            Self::PlainText => "plain_text",
            Self::Tls(error) => reason(error),
        }
    }
}

impl Security {
    /// Makes a server's connection of one that was accepted, if its peer has done its part by then.
    pub(crate) async fn accept<IO>(&self, mut io: IO, by: Instant) -> Result<(ServerIo<IO>, Peer), AcceptError>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let Ok(Ok(first)) = timeout_at(by, io.read_u8()).await else { return Err(AcceptError::Nothing) };
        let mut io = Begun { first: Some(first), io };
        match (self, first == TLS_RECORD) {
            (Self::Plain | Self::Permissive(_), false) => Ok((ServerIo::Plain(io), Peer::default())),
            (Self::Permissive(identity) | Self::Strict(identity), true) => identity.accept(io, by).await,
            (Self::Plain, true) => {
                say_goaway(&mut io, "this port takes plain text only").await;
                Err(AcceptError::TlsInPlainMode)
            }
            (Self::Strict(_), false) => {
                say_goaway(&mut io, "this port takes TLS connections only").await;
                Err(AcceptError::PlainText)
            }
        }
    }
}

fn peer_of<IO>(stream: &server::TlsStream<IO>, own: Validity) -> Option<Peer> {
    let leaf = stream.get_ref().1.peer_certificates()?.first()?;
    let id = verify::svid(leaf).ok()?;
    let expires = Validity::of(leaf)?.not_after.min(own.not_after);
    Some(Peer { identity: PeerIdentity::verified(id), expires: Some(expires) })
}

/// Ends a connection in the clear by GOAWAY with INADEQUATE_SECURITY (RFC 9113, 6.8), which a TLS client takes for what it is: no TLS.
/// No SETTINGS come before it: with them C-core (Python, C++) takes the connection for a good one, and connects again without a pause
/// until the call's deadline.
async fn say_goaway<IO: AsyncRead + AsyncWrite + Unpin>(io: &mut IO, why: &str) {
    let mut frame = GOAWAY.to_vec();
    frame[2] += u8::try_from(why.len()).expect("a few words");
    frame.extend(why.as_bytes());
    let said = async {
        io.write_all(&frame).await?;
        close_when_read(io).await
    };
    let _ = timeout(FAREWELL, said).await;
}

/// Closes a connection, and reads what the client has sent: one that is closed over unread bytes is reset, and the client would not see
/// what was said last.
async fn close_when_read<IO: AsyncRead + AsyncWrite + Unpin>(io: &mut IO) -> io::Result<()> {
    const MOST: u64 = 64 * 1024;
    io.shutdown().await?;
    tokio::io::copy(&mut io.take(MOST), &mut tokio::io::sink()).await?;
    Ok(())
}

impl Identity {
    async fn accept<IO>(&self, io: Begun<IO>, by: Instant) -> Result<(ServerIo<IO>, Peer), AcceptError>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        // One look for the handshake and for its end: the certificate may be replaced meanwhile.
        let material = self.current();
        let handshake = TlsAcceptor::from(material.server.clone()).accept(io).into_fallible();
        let stream = match timeout_at(by, handshake).await {
            Ok(Ok(stream)) => stream,
            Ok(Err((error, mut io))) => {
                // rustls has sent the alert that says why.
                let _ = timeout(FAREWELL, close_when_read(&mut io)).await;
                return Err(AcceptError::Tls(error));
            }
            Err(_) => return Err(AcceptError::Late),
        };
        let peer = peer_of(&stream, material.validity)
            .ok_or_else(|| AcceptError::Tls(io::Error::other("the peer's certificate cannot be read a second time")))?;
        Ok((ServerIo::Tls(Box::new(stream)), peer))
    }

    /// Makes a TLS connection of one to an instance of `service`, whose certificate must say so; returns it with the time when the
    /// server's certificate expires.
    ///
    /// # Errors
    /// The handshake failed; the reason in words.
    pub async fn connect<IO>(&self, service: &str, io: IO) -> io::Result<(client::TlsStream<IO>, SystemTime)>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let id = self.id();
        let expected = SpiffeId::of_service(id.trust_domain(), service).map_err(|error| invalid(service, error))?;
        self.handshake(ExpectedServer::Exactly(expected), service, io).await
    }

    /// As [`connect`](Self::connect), to an instance of whichever service.
    ///
    /// # Errors
    /// As there.
    pub async fn connect_to_any<IO>(&self, io: IO) -> io::Result<(client::TlsStream<IO>, SystemTime)>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let trust_domain = self.id().trust_domain().to_owned();
        self.handshake(ExpectedServer::AnyOf(trust_domain), "", io).await
    }

    async fn handshake<IO>(
        &self,
        expected: ExpectedServer,
        server_name: &str,
        io: IO,
    ) -> io::Result<(client::TlsStream<IO>, SystemTime)>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        // Only for servers that choose a certificate by it. Not every name of a service is one of DNS.
        let name =
            ServerName::try_from(server_name.to_owned()).or_else(|_| ServerName::try_from("meshwork".to_owned()));
        let name = name.map_err(io::Error::other)?;
        let stream = TlsConnector::from(self.client_config(expected)).connect(name, io).await;
        let stream = stream.map_err(|error| {
            metrics::counter!(FAILURES, "side" => "client", "reason" => reason(&error)).increment(1);
            io::Error::new(error.kind(), told(&error))
        })?;
        let session = stream.get_ref().1;
        if session.alpn_protocol() != Some(ALPN_H2) {
            return Err(io::Error::other("the server did not negotiate HTTP/2 (ALPN h2)"));
        }
        let leaf = session.peer_certificates().and_then(<[_]>::first);
        let validity = leaf.and_then(Validity::of).ok_or_else(|| io::Error::other("the server has no certificate"))?;
        Ok((stream, validity.not_after))
    }
}

fn invalid(service: &str, error: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("service {service:?} {error}"))
}

/// The name of the metric of failed handshakes.
pub(crate) const FAILURES: &str = "meshwork_tls_handshake_failures_total";

fn tls_error(error: &io::Error) -> Option<&Error> {
    error.get_ref()?.downcast_ref()
}

/// What went wrong, in words that say where to look.
fn told(error: &io::Error) -> String {
    match tls_error(error) {
        Some(Error::InvalidMessage(InvalidMessage::InvalidContentType)) => {
            "the TLS handshake failed: the peer does not speak TLS; it may run in plain mode".to_owned()
        }
        Some(Error::AlertReceived(alert)) => {
            format!("the TLS handshake failed: the peer {}", alert_told(*alert))
        }
        Some(error) => format!("the TLS handshake failed: {}", verify::told(error)),
        None => format!("the TLS handshake failed: {error}"),
    }
}

/// What an alert says, with its name.
fn alert_told(alert: AlertDescription) -> String {
    let not_accepted = |why: &str| format!("does not accept this certificate ({alert:?}{why})");
    match alert {
        AlertDescription::ProtocolVersion => format!("does not speak TLS 1.3 ({alert:?})"),
        AlertDescription::NoApplicationProtocol => format!("does not speak HTTP/2 ({alert:?})"),
        AlertDescription::UnknownCA => not_accepted(": its authority is not in the peer's bundle"),
        AlertDescription::CertificateExpired => not_accepted(": it has expired, or the clocks differ"),
        AlertDescription::CertificateRequired => not_accepted(": none was shown"),
        AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateRevoked
        | AlertDescription::CertificateUnknown
        | AlertDescription::AccessDenied => not_accepted(""),
        _ => format!("has refused it ({alert:?})"),
    }
}

/// In a word, for metrics.
fn reason(error: &io::Error) -> &'static str {
    use CertificateError as Bad;
    match tls_error(error) {
        None => "io",
        Some(Error::NoCertificatesPresented) => "no_certificate",
        Some(Error::InvalidCertificate(Bad::Expired | Bad::ExpiredContext { .. })) => "expired",
        Some(Error::InvalidCertificate(Bad::NotValidYet | Bad::NotValidYetContext { .. })) => "not_valid_yet",
        Some(Error::InvalidCertificate(Bad::UnknownIssuer | Bad::BadSignature)) => "unknown_authority",
        Some(error) if verify::is_authority_as_leaf(error) => "authority_as_leaf",
        Some(Error::InvalidCertificate(_)) => {
            verify::not_accepted(tls_error(error).expect("just seen")).map_or("bad_certificate", |error| error.reason())
        }
        Some(Error::AlertReceived(_)) => "refused_by_peer",
        Some(Error::InvalidMessage(_)) => "not_tls",
        Some(_) => "other",
    }
}

/// A connection of which the first byte was read.
pub(crate) struct Begun<IO> {
    first: Option<u8>,
    io: IO,
}

impl<IO: AsyncRead + Unpin> AsyncRead for Begun<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if buffer.remaining() > 0
            && let Some(first) = self.first.take()
        {
            buffer.put_slice(&[first]);
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.io).poll_read(context, buffer)
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Begun<IO> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, data)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(context, data)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncRead for ServerIo<IO> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_read(context, buffer),
            Self::Tls(io) => Pin::new(io).poll_read(context, buffer),
        }
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncWrite for ServerIo<IO> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_write(context, data),
            Self::Tls(io) => Pin::new(io).poll_write(context, data),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_write_vectored(context, data),
            Self::Tls(io) => Pin::new(io).poll_write_vectored(context, data),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(io) => io.is_write_vectored(),
            Self::Tls(io) => io.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_flush(context),
            Self::Tls(io) => Pin::new(io).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_shutdown(context),
            Self::Tls(io) => Pin::new(io).poll_shutdown(context),
        }
    }
}
