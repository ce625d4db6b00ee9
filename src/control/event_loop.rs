//! The control thread's event loop: listeners, clients, forwarded commands, deadlines.
//!
//! `server/` calls [`ControlLoop::poll`] in its control thread and [`ControlLoop::complete`] for work that is done; other threads wake the
//! loop through [`ControlLoop::waker`]. Nothing here waits for a shard, a disk or a client: reading and writing stop where the
//! kernel says so, commands that wait are continuations, and a client that reads slowly holds back only its own listing.
//!
//! Bounds: [`REQUEST_BYTES_TOTAL_MAX`], [`ANSWER_BYTES_TOTAL_MAX`], [`CLIENTS_PER_LISTENER_MAX`]; a listener that is full closes a silent
//! client for a new one, and refuses when it is answering all of them.

mod answering;
mod forwarding;
mod listening;

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mio::{Events, Interest, Poll, Token, Waker};

pub use self::answering::{ANSWER_BYTES_TOTAL_MAX, REQUEST_BYTES_TOTAL_MAX};
use self::forwarding::Forward;
pub use self::listening::CLIENTS_PER_LISTENER_MAX;
use self::listening::OpenListener;
use super::backend::{Backend, Completion, Ticket};
use super::connection::Client;
use super::dispatch::{Dispatcher, JobId};
use super::log::Severity;
use super::table::CommandTable;
use crate::log_limited;
use crate::time::Mono;

const EVENTS_PER_TURN: usize = 256;
const WAKER: Token = Token(0);
const LOGGER: &str = "kea-dhcp4.commands";

/// Wakes the loop from any thread: a system call for the first, nothing for those that follow before the loop has turned.
#[derive(Clone, Debug)]
pub struct ControlWaker {
    waker: Arc<Waker>,
    is_rung: Arc<AtomicBool>,
}

impl ControlWaker {
    /// Makes [`ControlLoop::poll`] return soon.
    pub fn wake(&self) {
        // Whoever finds it rung has filled its queue before the loop takes this back, and so before the loop looks.
        if !self.is_rung.swap(true, Ordering::AcqRel) {
            // It can only fail when the loop is gone.
            let _ = self.waker.wake();
        }
    }
}

/// Something of the server's own that the loop watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WatchId(usize);

/// The event loop.
pub struct ControlLoop {
    poll: Poll,
    events: Events,
    waker: ControlWaker,
    dispatcher: Dispatcher,
    listeners: HashMap<Token, OpenListener>,
    clients: HashMap<Token, Client>,
    forwards: HashMap<Token, Forward>,
    jobs: HashMap<JobId, Token>,
    watched: HashSet<Token>,
    reported: Vec<WatchId>,
    /// Clients and listeners with more to do than fitted their turn.
    ready: HashSet<Token>,
    last_token: usize,
}

impl ControlLoop {
    /// A loop without listeners over these commands.
    ///
    /// # Errors
    /// When the kernel has no descriptor left.
    pub fn new(tables: impl IntoIterator<Item = CommandTable>) -> io::Result<Self> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
        let waker = ControlWaker { waker, is_rung: Arc::default() };
        Ok(Self {
            poll,
            events: Events::with_capacity(EVENTS_PER_TURN),
            waker,
            dispatcher: Dispatcher::new(tables),
            listeners: HashMap::new(),
            clients: HashMap::new(),
            forwards: HashMap::new(),
            jobs: HashMap::new(),
            watched: HashSet::new(),
            reported: Vec::new(),
            ready: HashSet::new(),
            last_token: WAKER.0,
        })
    }

    /// What wakes this loop.
    #[must_use]
    pub fn waker(&self) -> ControlWaker {
        self.waker.clone()
    }

    /// The commands at work, and the statistics.
    pub const fn dispatcher(&mut self) -> &mut Dispatcher {
        &mut self.dispatcher
    }

    /// The addresses of the listeners on TCP ports, the port filled in.
    #[must_use]
    pub fn tcp_addresses(&self) -> Vec<SocketAddr> {
        self.listeners.values().filter_map(|open| open.listener.local_address()).collect()
    }

    /// Whether there is anything left to send or to finish: nothing at shutdown means that all answers have left.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.clients.values().all(|client| client.reply.is_none() && client.waiting_bytes() == 0)
    }

    /// Watches something readable of the server's own (signals, for one). It is reported by [`Self::take_watched`].
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn watch(&mut self, source: &mut dyn mio::event::Source) -> io::Result<WatchId> {
        let token = self.token();
        source.register(self.poll.registry(), token, Interest::READABLE)?;
        self.watched.insert(token);
        Ok(WatchId(token.0))
    }

    /// What was watched and became readable since this was last asked.
    pub fn take_watched(&mut self) -> Vec<WatchId> {
        std::mem::take(&mut self.reported)
    }

    fn token(&mut self) -> Token {
        self.last_token += 1;
        Token(self.last_token)
    }

    /// One turn: waits for something to happen (`timeout` at most, `None`: as long as it takes), then does it.
    ///
    /// # Errors
    /// Only what the kernel's event queue itself fails with.
    pub fn poll(&mut self, timeout: Option<Duration>, backend: &mut dyn Backend) -> io::Result<()> {
        let timeout = self.timeout(timeout, backend.now().mono);
        let mut events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        let polled = self.poll.poll(&mut events, timeout);
        // Before anything is looked at: what comes from now on rings again.
        self.waker.is_rung.swap(false, Ordering::AcqRel);
        if let Err(error) = polled {
            self.events = events;
            return if error.kind() == io::ErrorKind::Interrupted { Ok(()) } else { Err(error) };
        }
        let mut turns: Vec<Token> = self.ready.drain().collect();
        for event in &events {
            let token = event.token();
            if let Some(client) = self.clients.get_mut(&token) {
                client.readable |= event.is_readable() || event.is_read_closed() || event.is_error();
                client.writable |= event.is_writable() || event.is_write_closed() || event.is_error();
            } else if self.watched.contains(&token) {
                self.reported.push(WatchId(token.0));
            }
            turns.push(token);
        }
        self.events = events;
        for token in turns {
            if self.listeners.contains_key(&token) {
                self.accept(token, backend);
            } else if self.forwards.contains_key(&token) {
                self.forward_turn(token, backend);
            } else {
                self.client_turn(token, backend);
            }
        }
        self.expire(backend);
        Ok(())
    }

    /// Work that a command ordered is done.
    pub fn complete(&mut self, ticket: Ticket, completion: Completion, backend: &mut dyn Backend) {
        if let Some(job) = self.dispatcher.complete(ticket, completion, backend)
            && let Some(token) = self.jobs.get(&job)
        {
            self.client_turn(*token, backend);
        }
    }

    fn timeout(&self, asked: Option<Duration>, now: Mono) -> Option<Duration> {
        if !self.ready.is_empty() {
            return Some(Duration::ZERO);
        }
        let clients = self.clients.values().filter_map(Client::deadline);
        let deadline = clients.chain(self.forwards.values().map(|forward| forward.deadline)).min();
        // A nanosecond early would be a turn for nothing.
        let own =
            deadline.map(|at| Duration::from_nanos(at.0.saturating_sub(now.0)) + Duration::from_micros(1));
        match (asked, own) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        }
    }

    fn expire(&mut self, backend: &mut dyn Backend) {
        let now = backend.now();
        let due = |deadline: Option<Mono>| deadline.is_some_and(|at| at <= now.mono);
        let late: Vec<Token> = self
            .clients
            .iter()
            .filter(|(_, client)| due(client.deadline()))
            .map(|(token, _)| *token)
            .collect();
        for token in late {
            if let Some(client) = self.clients.get_mut(&token) {
                log_limited!(
                    Severity::Debug(40),
                    LOGGER,
                    COMMAND_SOCKET_CONNECTION_TIMEOUT,
                    "timeout of the connection from {}",
                    client.remote
                );
                client.timed_out(now);
            }
            self.client_turn(token, backend);
        }
        let late: Vec<Token> = self
            .forwards
            .iter()
            .filter(|(_, forward)| due(Some(forward.deadline)))
            .map(|(token, _)| *token)
            .collect();
        for token in late {
            self.forward_failed(token, "no answer in 60 seconds", backend);
        }
    }
}
