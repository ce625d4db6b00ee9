//! Connections to HA peers: one command at a time each, kept open between commands.
//!
//! A [`PeerConnection`] belongs to one worker thread and blocks it; nothing of it may be called from the control thread or a
//! shard. Each has an agent of its own, so that two workers never share a socket and what one worker sends stays in order.
//! There is no proxy, no redirect and no name to resolve; the status of an answer says nothing, its body says everything.
//!
//! Bounds: a command and its answer end after the time that the caller gives, however slowly they come on (one that finds its kept
//! connection closed begins once more); an answer is at most [`ANSWER_BYTES_MAX`] octets.

mod transport;

use std::cell::Cell;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, Either, LazyBuffers, NextTimeout, Transport, TransportAdapter,
};

use self::transport::PeerTcp;

/// Longest answer that is read: a page of 100,000 leases with long contexts.
pub const ANSWER_BYTES_MAX: u64 = 512 << 20;
/// How long an unused connection is kept; the peer usually closes it earlier, which is noticed.
const IDLE_MAX: Duration = Duration::from_secs(3600);

/// Where a peer is, and how it is spoken to.
#[derive(Clone)]
pub struct PeerTarget {
    /// Its address.
    pub address: SocketAddr,
    /// User and password.
    pub credentials: Option<(String, String)>,
    /// TLS, when it is on.
    pub tls: Option<Arc<ClientConfig>>,
}

impl std::fmt::Debug for PeerTarget {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "PeerTarget({}, TLS {})", self.address, self.tls.is_some())
    }
}

/// One connection to a peer.
#[derive(Debug)]
pub struct PeerConnection {
    agent: ureq::Agent,
    url: String,
    authorization: Option<String>,
    has_tls: bool,
    /// Whether the last command was answered: its connection was kept, and may have been closed by the peer since.
    is_kept: Cell<bool>,
}

impl PeerConnection {
    /// A connection that is opened with the first command.
    #[must_use]
    pub fn new(target: &PeerTarget) -> Self {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(None)
            .user_agent("aplomado")
            .max_idle_connections(1)
            .max_idle_connections_per_host(1)
            .max_idle_age(IDLE_MAX)
            .build();
        let connector = ().chain(PeerTcp).chain(PeerTls(target.tls.clone()));
        let agent = ureq::Agent::with_parts(config, connector, PeerAddress(target.address));
        let authorization = target.credentials.as_ref().map(|(user, password)| {
            let text = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
            format!("Basic {text}")
        });
        let url = format!("http://{}/", target.address);
        Self { agent, url, authorization, has_tls: target.tls.is_some(), is_kept: Cell::new(false) }
    }

    /// Sends a command and waits for the body of the answer, `timeout` at most from the first step to the last.
    ///
    /// # Errors
    /// Why there is none, for the log.
    pub fn post(&self, body: &[u8], timeout: Duration) -> Result<Vec<u8>, String> {
        let answer = match self.send(body, timeout) {
            // The peer closed the idle connection just when it was used. Commands between peers may be repeated.
            Err(error) if self.is_kept.get() && is_stale(&error) => self.send(body, timeout),
            outcome => outcome,
        };
        // An answer that is cut is no idle connection's end: the peer may do the same each time.
        let read = |mut answer: ureq::http::Response<ureq::Body>| {
            answer.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_vec()
        };
        let answer = answer.and_then(read);
        self.is_kept.set(answer.is_ok());
        answer.map_err(|error| self.in_words(&error))
    }

    /// Why there is no answer.
    fn in_words(&self, error: &ureq::Error) -> String {
        let text = match error {
            // The system's own words are enough.
            ureq::Error::Io(error) => super::tls::io_in_words(error),
            error => error.to_string(),
        };
        // What a listener with TLS does to somebody without: it says so in its own language, or nothing.
        let is_perhaps_tls = match error {
            ureq::Error::Io(error) => error.kind() == std::io::ErrorKind::UnexpectedEof,
            ureq::Error::Protocol(_) => true,
            _ => false,
        };
        if is_perhaps_tls && !self.has_tls {
            return format!(
                "no answer in HTTP ({text}); perhaps it expects TLS, which no cert-file turns on here"
            );
        }
        text
    }

    /// Sends a command and waits for the head of the answer.
    fn send(&self, body: &[u8], timeout: Duration) -> Result<ureq::http::Response<ureq::Body>, ureq::Error> {
        let mut request = self
            .agent
            .post(&self.url)
            .header("Content-Type", "application/json")
            .config()
            .timeout_global(Some(timeout))
            .build();
        if let Some(authorization) = &self.authorization {
            request = request.header("Authorization", authorization);
        }
        request.send(body)
    }
}

/// Whether a kept connection turned out to be closed: nothing was answered, and no time passed.
fn is_stale(error: &ureq::Error) -> bool {
    use std::io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    match error {
        ureq::Error::Io(error) => {
            matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof)
        }
        _ => false,
    }
}

/// Knows the only address that there is. The library's own resolver is asked before every request, also one on a kept connection, and
/// starts a thread each time to be able to give up: the costliest part of a small update.
#[derive(Debug)]
struct PeerAddress(SocketAddr);

impl Resolver for PeerAddress {
    fn resolve(
        &self,
        _: &ureq::http::Uri,
        _: &ureq::config::Config,
        _: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let mut only = self.empty();
        only.push(self.0);
        Ok(only)
    }
}

/// Speaks TLS as [`super::tls`] sets it up, whatever the scheme of the URL is.
struct PeerTls(Option<Arc<ClientConfig>>);

impl std::fmt::Debug for PeerTls {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "PeerTls({})", self.0.is_some())
    }
}

impl<In: Transport> Connector<In> for PeerTls {
    type Out = Either<In, TlsTransport>;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        chained: Option<In>,
    ) -> Result<Option<Self::Out>, ureq::Error> {
        let Some(transport) = chained else { return Ok(None) };
        let Some(config) = &self.0 else { return Ok(Some(Either::A(transport))) };
        let host = details.uri.host().unwrap_or_default();
        let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned())
            .map_err(|_| ureq::Error::Tls("expected an address as the host"))?;
        let mut session = ClientConnection::new(Arc::clone(config), name)
            .map_err(|error| std::io::Error::new(std::io::ErrorKind::InvalidData, error))?;
        let mut socket = TransportAdapter::new(transport.boxed(), details.current_time.clone());
        socket.set_timeout(details.timeout);
        if let Err(error) = session.complete_io(&mut socket) {
            // The alert that tells the peer why: one write takes a record, and nothing that is read after it would make it leave.
            while session.wants_write() && session.write_tls(&mut socket).is_ok_and(|octets| octets > 0) {}
            let _ = socket.get_mut().transmit_output(0, details.timeout);
            return Err(error.into());
        }
        let buffers =
            LazyBuffers::new(details.config.input_buffer_size(), details.config.output_buffer_size());
        Ok(Some(Either::B(TlsTransport { buffers, stream: StreamOwned::new(session, socket) })))
    }
}

/// A TLS session over a connection.
struct TlsTransport {
    buffers: LazyBuffers,
    stream: StreamOwned<ClientConnection, TransportAdapter>,
}

impl std::fmt::Debug for TlsTransport {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("TlsTransport")
    }
}

impl Transport for TlsTransport {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        self.stream.sock.set_timeout(timeout);
        self.stream.write_all(&self.buffers.output()[..amount])?;
        Ok(())
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        self.stream.sock.set_timeout(timeout);
        let amount = self.stream.read(self.buffers.input_append_buf())?;
        self.buffers.input_appended(amount);
        Ok(amount > 0)
    }

    fn is_open(&mut self) -> bool {
        self.stream.sock.get_mut().is_open()
    }

    fn is_tls(&self) -> bool {
        true
    }
}
