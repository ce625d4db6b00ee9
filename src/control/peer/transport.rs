//! The octets of a connection to a peer, in as few system calls as there are turns: a command leaves with its head in one, and whether
//! the kept connection is still open is one look that does not wait. (ureq's own transport writes twice, and changes the mode of the
//! socket twice, and its time limits three times, for every command.)

use std::io::{ErrorKind, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::net::TcpStream;
use std::time::Duration;

use socket2::SockRef;
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, Either, LazyBuffers, NextTimeout, Transport,
};

/// What waits to be sent is sent when it is longer than this, whatever comes after it.
const PENDING_BYTES_MAX: usize = 256 << 10;
/// Time limits are rounded up to a multiple of this, so that what passes between two steps does not make another of them.
const LIMIT_STEP_MS: u128 = 10;

/// Opens connections to the one address that the URL names.
#[derive(Debug)]
pub(super) struct PeerTcp;

impl<In: Transport> Connector<In> for PeerTcp {
    type Out = Either<In, PeerStream>;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        chained: Option<In>,
    ) -> Result<Option<Self::Out>, ureq::Error> {
        if chained.is_some() {
            return Ok(chained.map(Either::A));
        }
        let Some(address) = details.addrs.first() else { return Err(ureq::Error::HostNotFound) };
        let stream = match details.timeout.not_zero() {
            Some(limit) => TcpStream::connect_timeout(address, *limit),
            None => TcpStream::connect(*address),
        };
        let stream = stream.map_err(|error| limited(error, details.timeout))?;
        stream.set_nodelay(true)?;
        let buffers =
            LazyBuffers::new(details.config.input_buffer_size(), details.config.output_buffer_size());
        let (read_limit, write_limit) = (None, None);
        Ok(Some(Either::B(PeerStream { stream, buffers, pending: Vec::new(), read_limit, write_limit })))
    }
}

/// One connection.
#[derive(Debug)]
pub(super) struct PeerStream {
    stream: TcpStream,
    buffers: LazyBuffers,
    /// What has been written and not sent: it leaves when the answer is waited for.
    pending: Vec<u8>,
    read_limit: Option<Duration>,
    write_limit: Option<Duration>,
}

impl PeerStream {
    fn flush(&mut self, timeout: NextTimeout) -> Result<(), ureq::Error> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let limit = rounded(timeout);
        if limit != self.write_limit {
            self.stream.set_write_timeout(limit)?;
            self.write_limit = limit;
        }
        let sent = self.stream.write_all(&self.pending);
        self.pending.clear();
        sent.map_err(|error| limited(error, timeout))
    }
}

impl Transport for PeerStream {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    /// Sends an amount of the output with what is sent next; one of nothing makes everything leave now.
    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        self.pending.extend_from_slice(&self.buffers.output()[..amount]);
        if amount == 0 || self.pending.len() > PENDING_BYTES_MAX { self.flush(timeout) } else { Ok(()) }
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        self.flush(timeout)?;
        let limit = rounded(timeout);
        if limit != self.read_limit {
            self.stream.set_read_timeout(limit)?;
            self.read_limit = limit;
        }
        let amount = loop {
            match self.stream.read(self.buffers.input_append_buf()) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                outcome => break outcome.map_err(|error| limited(error, timeout))?,
            }
        };
        self.buffers.input_appended(amount);
        Ok(amount > 0)
    }

    fn is_open(&mut self) -> bool {
        // Octets that nobody asked for are as bad as an end.
        let look = libc::MSG_PEEK | libc::MSG_DONTWAIT;
        let seen = SockRef::from(&self.stream).recv_with_flags(&mut [MaybeUninit::uninit()], look);
        self.pending.is_empty() && matches!(seen, Err(error) if error.kind() == ErrorKind::WouldBlock)
    }
}

/// The limit of a step as it is told to the socket.
fn rounded(timeout: NextTimeout) -> Option<Duration> {
    let limit_ms = timeout.not_zero()?.as_millis().div_euclid(LIMIT_STEP_MS) + 1;
    Some(Duration::from_millis(u64::try_from(limit_ms * LIMIT_STEP_MS).unwrap_or(u64::MAX)))
}

/// What the socket says when a limit is over, as ureq says it.
fn limited(error: std::io::Error, timeout: NextTimeout) -> ureq::Error {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => ureq::Error::Timeout(timeout.reason),
        _ => error.into(),
    }
}
