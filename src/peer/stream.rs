//! A connection to a peer, plain or mutual TLS, and the frames read from it.

use super::frame::{self, FrameError};
use super::hello::{Refusal, MAX_HELLO};
use bytes::{Bytes, BytesMut};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// Bytes asked for by one read.
const READ_CHUNK: usize = 64 * 1024;

/// Certificates that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("{0}: {1}")]
    Pem(&'static str, rustls::pki_types::pem::Error),
    #[error("{0}: no certificate in it")]
    Empty(&'static str),
    #[error("{0}")]
    Rustls(#[from] rustls::Error),
    #[error("certificate authority: {0}")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
}

/// Mutual TLS: both ends show a certificate of one authority.
#[derive(Clone)]
pub struct Tls {
    connector: TlsConnector,
    acceptor: TlsAcceptor,
}

impl Tls {
    /// From PEM texts: this node's certificate chain and key, and the authority that signs every
    /// node's certificate. A certificate must name the host its node is dialled by.
    pub fn new(chain: &[u8], key: &[u8], authority: &[u8]) -> Result<Self, TlsError> {
        let certs = |pem: &[u8], what| -> Result<Vec<_>, TlsError> {
            let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem)
                .map(|c| c.map(CertificateDer::into_owned))
                .collect();
            let found = found.map_err(|e| TlsError::Pem(what, e))?;
            if found.is_empty() {
                return Err(TlsError::Empty(what));
            }
            Ok(found)
        };
        let chain = certs(chain, "peer certificate")?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|e| TlsError::Pem("peer key", e))?;
        let mut roots = RootCertStore::empty();
        for cert in certs(authority, "certificate authority")? {
            roots.add(cert)?;
        }
        let roots = Arc::new(roots);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier =
            WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone()).build()?;
        let server = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain.clone(), key.clone_key())?;
        let client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)?;
        Ok(Self {
            connector: TlsConnector::from(Arc::new(client)),
            acceptor: TlsAcceptor::from(Arc::new(server)),
        })
    }
}

/// Why a link ended.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("it closed the connection")]
    Closed,
    #[error("no answer in time")]
    Timeout,
    #[error("nothing was heard for too long")]
    Silent,
    #[error("{0}")]
    Frame(#[from] FrameError),
    #[error("refused: {0}")]
    Refused(Refusal),
    #[error("it refuses this node: {0}")]
    RefusedUs(Refusal),
    #[error("\"{0}\" is no name a certificate can have")]
    Name(String),
}

/// Both directions of a connection, whatever it is made of.
pub trait Io: AsyncRead + AsyncWrite + Unpin {}
impl<T: AsyncRead + AsyncWrite + Unpin> Io for T {}
/// See [`Io`].
pub type Stream = Box<dyn Io>;

/// Opens the TLS layer of a dialled connection, or none.
pub async fn dialled(
    stream: TcpStream,
    tls: Option<&Tls>,
    addr: &str,
) -> Result<Stream, LinkError> {
    let Some(tls) = tls else {
        return Ok(Box::new(stream));
    };
    let host = addr.rsplit_once(':').map_or(addr, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let name = ServerName::try_from(host.to_owned());
    let name = name.map_err(|_| LinkError::Name(host.to_owned()))?;
    Ok(Box::new(tls.connector.connect(name, stream).await?))
}

/// Opens the TLS layer of an accepted connection, or none.
pub async fn accepted(stream: TcpStream, tls: Option<&Tls>) -> Result<Stream, LinkError> {
    match tls {
        Some(tls) => Ok(Box::new(tls.acceptor.accept(stream).await?)),
        None => Ok(Box::new(stream)),
    }
}

/// Frames out of a stream. Memory grows with what was really received.
#[derive(Default)]
pub struct Frames {
    buf: BytesMut,
}

impl Frames {
    /// The next frame already received.
    pub fn next(&mut self, max: usize) -> Result<Option<Bytes>, FrameError> {
        frame::split(&mut self.buf, max)
    }

    /// Reads once. Safe to drop: what was read stays.
    pub async fn read(
        &mut self,
        stream: &mut (impl AsyncRead + Unpin + ?Sized),
    ) -> Result<(), LinkError> {
        self.buf.reserve(READ_CHUNK);
        match stream.read_buf(&mut self.buf).await? {
            0 => Err(LinkError::Closed),
            _ => Ok(()),
        }
    }

    /// One frame of the handshake.
    pub async fn hello(&mut self, stream: &mut Stream) -> Result<Bytes, LinkError> {
        loop {
            if let Some(body) = self.next(MAX_HELLO)? {
                return Ok(body);
            }
            self.read(stream).await?;
        }
    }
}

/// Sends one frame of the handshake.
pub async fn say(stream: &mut Stream, body: &[u8]) -> Result<(), LinkError> {
    stream.write_all(&frame::whole(body)).await?;
    Ok(stream.flush().await?)
}
