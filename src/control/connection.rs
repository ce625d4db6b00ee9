//! One client: its stream, what it sent, what it is sent.

use std::io;
use std::sync::Arc;

use super::command::{Answer, Command, CommandFault};
use super::dispatch::JobId;
use super::frame_unix::{Framed, Framer};
use super::http::{HttpConnection, HttpError, HttpEvent};
use super::listener::ListenerSpec;
use super::stream::Stream;
use crate::time::{Mono, Now};

/// Time for a complete command on the unix channel.
pub(super) const UNIX_TIMEOUT_MS: u64 = 10_000;
/// Time in which a client has to read [`READ_PACE_BYTES`] of its answer, or all that waits for it; else it is given up. A listing that
/// is read octet by octet would be in memory for days.
pub(super) const WRITE_TIMEOUT_MS: u64 = 60_000;
/// What a client has to read in [`WRITE_TIMEOUT_MS`]: 140 kbit/s.
const READ_PACE_BYTES: usize = 1 << 20;
/// Time for a client to close its side after the last answer.
const LINGER_MS: u64 = 2_000;
/// Octets read at once, and per turn.
const READ_BYTES: usize = 16 << 10;
const READ_BYTES_PER_TURN: usize = 256 << 10;

/// What a client speaks.
pub(super) enum Protocol {
    Unix { framer: Framer, since: Mono },
    Http(HttpConnection),
}

/// One element of an answer.
pub(super) enum Part {
    Ready(Vec<u8>),
    Job(JobId),
    /// A daemon in another process was asked; the number of that conversation.
    Forward(usize),
}

/// An answer on its way.
pub(super) struct Reply {
    pub(super) parts: Vec<Part>,
    /// The head was sent: the length is announced.
    pub(super) begun: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Open,
    /// Closed by us when everything is sent.
    Closing,
    /// Everything is sent; the client's last octets are read and thrown away, so that it sees the answer.
    Lingering,
    /// To be forgotten.
    Gone,
}

/// What a client wants.
pub(super) enum Wanted {
    Nothing,
    Command(Result<Command, CommandFault>),
    Refused(HttpError),
    /// On the unix channel: this is the answer.
    Answer(Answer),
}

pub(super) struct Client {
    pub(super) stream: Stream,
    pub(super) protocol: Protocol,
    pub(super) listener: Arc<ListenerSpec>,
    pub(super) remote: String,
    pub(super) out: Vec<u8>,
    sent: usize,
    pub(super) reply: Option<Reply>,
    pub(super) phase: Phase,
    pub(super) readable: bool,
    pub(super) writable: bool,
    /// When the answer began, the last [`READ_PACE_BYTES`] had gone out, or what waited began to.
    progress: Mono,
    /// Octets that went out since `progress`.
    paced: usize,
    /// Nothing waited when it was last looked at.
    drained: bool,
    /// A command that came whole on the unix channel.
    wanted: Wanted,
    /// The client has closed its side.
    ended: bool,
}

impl Client {
    pub(super) fn new(stream: Stream, listener: Arc<ListenerSpec>, remote: String, now: Mono) -> Self {
        let protocol = match *listener {
            ListenerSpec::Unix { .. } => Protocol::Unix { framer: Framer::default(), since: now },
            ListenerSpec::Http(_) => Protocol::Http(HttpConnection::new(&remote, now)),
        };
        Self {
            stream,
            protocol,
            listener,
            remote,
            out: Vec::new(),
            sent: 0,
            reply: None,
            phase: Phase::Open,
            readable: true,
            writable: true,
            progress: now,
            paced: 0,
            drained: true,
            wanted: Wanted::Nothing,
            ended: false,
        }
    }

    pub(super) fn waiting_bytes(&self) -> usize {
        self.out.len() - self.sent
    }

    /// When it last read enough of its answer.
    pub(super) const fn progress(&self) -> Mono {
        self.progress
    }

    /// Octets of a request that is not complete.
    pub(super) fn buffered_bytes(&self) -> usize {
        match &self.protocol {
            Protocol::Unix { framer, .. } if self.reply.is_none() => framer.received_bytes(),
            Protocol::Unix { .. } => 0,
            Protocol::Http(http) => http.buffered_bytes(),
        }
    }

    /// Whether nobody would miss it: no request begun, nothing to send.
    pub(super) fn is_idle(&self) -> bool {
        let idle = match &self.protocol {
            Protocol::Unix { framer, .. } => framer.received_bytes() == 0,
            Protocol::Http(http) => http.is_idle(),
        };
        idle && self.reply.is_none() && self.waiting_bytes() == 0
    }

    /// Since when it has asked for nothing, or not said all of what it asks for; none of one that is being answered.
    pub(super) fn silent_since(&self) -> Option<Mono> {
        if self.reply.is_some() || self.waiting_bytes() > 0 {
            return None;
        }
        match (self.phase, &self.protocol) {
            (Phase::Open, Protocol::Unix { since, .. }) => Some(*since),
            (Phase::Open, Protocol::Http(http)) => http.silent_since(),
            _ => Some(self.progress),
        }
    }

    fn made_progress(&mut self, now: Mono) {
        self.progress = now;
        self.paced = 0;
    }

    /// Writes what fits; whether anything went out.
    pub(super) fn write(&mut self, now: Mono) -> bool {
        if self.drained && self.waiting_bytes() > 0 {
            self.drained = false;
            self.made_progress(now);
        }
        let mut any = false;
        while self.writable && self.sent < self.out.len() && self.phase != Phase::Gone {
            match self.stream.write(&self.out[self.sent..]) {
                Ok(0) => self.phase = Phase::Gone,
                Ok(count) => {
                    self.sent += count;
                    self.paced += count;
                    if self.paced >= READ_PACE_BYTES {
                        self.made_progress(now);
                    }
                    any = true;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.writable = false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => self.phase = Phase::Gone,
            }
        }
        if self.sent == self.out.len() {
            self.out.clear();
            self.sent = 0;
            self.drained = true;
            // A large answer's memory is not kept for small ones.
            self.out.shrink_to(64 << 10);
        } else if self.sent > 1 << 20 {
            self.out.drain(..self.sent);
            self.sent = 0;
        }
        if self.out.is_empty() && self.writable {
            match self.stream.flush() {
                Ok(flushed) => self.writable = flushed,
                Err(_) => self.phase = Phase::Gone,
            }
        }
        any
    }

    /// Reads what is welcome; whether anything came.
    pub(super) fn read(&mut self, now: Mono) -> bool {
        let mut buffer = [0; READ_BYTES];
        let mut left = READ_BYTES_PER_TURN;
        let mut any = false;
        while self.readable && left > 0 {
            let welcome = match (self.phase, &self.protocol) {
                (Phase::Lingering, _) => true,
                (Phase::Open, _) if self.reply.is_some() => false,
                (Phase::Open, Protocol::Unix { .. }) => true,
                (Phase::Open, Protocol::Http(http)) => http.wants_octets(),
                _ => false,
            };
            if !welcome {
                break;
            }
            match self.stream.read(&mut buffer) {
                Ok(0) => {
                    // A request that came whole before is still answered.
                    self.readable = false;
                    self.ended = true;
                    any = true;
                    if self.phase == Phase::Lingering {
                        self.phase = Phase::Gone;
                    }
                }
                Ok(count) => {
                    any = true;
                    left = left.saturating_sub(count);
                    if self.phase == Phase::Lingering {
                        continue;
                    }
                    if self.take(&buffer[..count], now) {
                        break;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.readable = false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    if error.kind() == io::ErrorKind::InvalidData {
                        crate::log_limited!(
                            super::log::Severity::Info,
                            "kea-dhcp4.http",
                            HTTP_CONNECTION_HANDSHAKE_FAILED,
                            "TLS handshake with {} failed: {}",
                            self.remote,
                            super::tls::io_in_words(&error)
                        );
                    }
                    self.phase = Phase::Gone;
                }
            }
        }
        any
    }

    /// Hands octets to the protocol; whether a unix command is complete.
    fn take(&mut self, octets: &[u8], now: Mono) -> bool {
        match &mut self.protocol {
            Protocol::Http(http) => {
                if http.is_idle() && matches!(self.stream, Stream::Tcp(_)) && super::tls::is_handshake(octets)
                {
                    crate::log_limited!(
                        super::log::Severity::Info,
                        "kea-dhcp4.http",
                        HTTP_CONNECTION_HANDSHAKE_FAILED,
                        "TLS handshake with {} failed: it speaks TLS, and no cert-file turns that on for this listener",
                        self.remote
                    );
                }
                http.receive(octets, now);
                false
            }
            Protocol::Unix { framer, .. } => {
                self.wanted = match framer.push(octets) {
                    Framed::More => return false,
                    Framed::Complete(text) => Wanted::Command(Command::parse(text, &self.remote)),
                    Framed::Refused(answer) => Wanted::Answer(answer),
                };
                true
            }
        }
    }

    /// What the client wants next.
    pub(super) fn next_wanted(&mut self) -> Wanted {
        if self.phase != Phase::Open || self.reply.is_some() {
            return Wanted::Nothing;
        }
        let wanted = match (&mut self.protocol, &*self.listener) {
            (Protocol::Http(http), ListenerSpec::Http(spec)) => {
                match http.poll(&spec.settings, &mut self.out) {
                    HttpEvent::More => Wanted::Nothing,
                    HttpEvent::Command(command) => Wanted::Command(command),
                    HttpEvent::Refused(error) => Wanted::Refused(error),
                }
            }
            _ => std::mem::replace(&mut self.wanted, Wanted::Nothing),
        };
        if self.ended && matches!(wanted, Wanted::Nothing) {
            self.phase = Phase::Closing;
        }
        wanted
    }

    /// Prints the head of an answer whose body has `body_bytes` octets.
    pub(super) fn begin_answer(&mut self, body_bytes: u64, now: Now) {
        self.made_progress(now.mono);
        if let (Protocol::Http(http), ListenerSpec::Http(spec)) = (&self.protocol, &*self.listener) {
            http.print_head(&spec.settings, body_bytes + 4, now.wall_s, &mut self.out);
            self.out.extend_from_slice(b"[ ");
        }
    }

    /// Prints the end of an answer.
    pub(super) fn end_answer(&mut self, now: Now) {
        match &mut self.protocol {
            Protocol::Unix { .. } => self.phase = Phase::Closing,
            Protocol::Http(http) => {
                self.out.extend_from_slice(b" ]");
                http.answered(now.mono);
                if http.is_closed() {
                    self.phase = Phase::Closing;
                }
            }
        }
    }

    /// Prints a whole answer.
    pub(super) fn answer(&mut self, printed: &[u8], now: Now) {
        self.begin_answer(printed.len() as u64, now);
        self.out.extend_from_slice(printed);
        self.end_answer(now);
    }

    /// Prints a whole response with an error status.
    pub(super) fn refuse(&mut self, error: HttpError, now: Now) {
        self.made_progress(now.mono);
        if let (Protocol::Http(http), ListenerSpec::Http(spec)) = (&mut self.protocol, &*self.listener) {
            http.print_error(&spec.settings, error, now.wall_s, &mut self.out);
            http.answered(now.mono);
            if http.is_closed() {
                self.phase = Phase::Closing;
            }
        }
    }

    /// Moves on when everything is sent. Whether it did.
    pub(super) fn settle(&mut self, now: Mono) -> bool {
        if self.phase != Phase::Closing || self.waiting_bytes() > 0 || !self.writable {
            return false;
        }
        self.stream.shutdown_write();
        self.made_progress(now);
        self.phase = if self.ended { Phase::Gone } else { Phase::Lingering };
        true
    }

    /// When [`Self::timed_out`] is due.
    pub(super) fn deadline(&self) -> Option<Mono> {
        match self.phase {
            Phase::Gone => None,
            Phase::Lingering => Some(self.progress.plus_ms(LINGER_MS)),
            _ if self.waiting_bytes() > 0 || self.phase == Phase::Closing => {
                Some(self.progress.plus_ms(WRITE_TIMEOUT_MS))
            }
            Phase::Open if self.reply.is_some() => None,
            _ => match &self.protocol {
                Protocol::Unix { since, .. } => Some(since.plus_ms(UNIX_TIMEOUT_MS)),
                Protocol::Http(http) => http.deadline(),
            },
        }
    }

    /// The deadline has passed.
    pub(super) fn timed_out(&mut self, now: Now) {
        if self.phase != Phase::Open || self.waiting_bytes() > 0 {
            self.phase = Phase::Gone;
            return;
        }
        match &mut self.protocol {
            Protocol::Unix { framer, .. } => {
                let answer = framer.timed_out().to_printed();
                self.answer(&answer, now);
            }
            Protocol::Http(http) => match http.timed_out() {
                Some(error) => self.refuse(error, now),
                None => self.phase = Phase::Gone,
            },
        }
    }

    /// Whether it has octets that nobody has read yet and that are welcome.
    pub(super) fn wants_turn(&self) -> bool {
        self.readable && self.reply.is_none() && matches!(self.phase, Phase::Open | Phase::Lingering)
    }
}
