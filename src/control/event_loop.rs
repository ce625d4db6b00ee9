//! The control thread's event loop: listeners, clients, forwarded commands, deadlines.
//!
//! `server/` calls [`ControlLoop::poll`] in its control thread and [`ControlLoop::complete`] for work that is done; other threads wake the
//! loop through [`ControlLoop::waker`]. Nothing here waits for a shard, a disk or a client: reading and writing stop where the
//! kernel says so, commands that wait are continuations, and a client that reads slowly holds back only its own listing.
//!
//! Bounds: [`REQUEST_BYTES_TOTAL_MAX`], [`CLIENTS_PER_LISTENER_MAX`]; a listener that is full closes a silent client for a new one, and
//! refuses when it is answering all of them.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::io::{self, Read as _, Write as _};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mio::net::UnixStream;
use mio::{Events, Interest, Poll, Token, Waker};
use serde_json::Value;

use super::backend::{Backend, Completion, Daemon, Ticket};
use super::command::{Answer, Command, CommandFault};
use super::connection::{Client, Part, Phase, Reply, Wanted};
use super::dispatch::{Dispatcher, JobId, JobProgress};
use super::frame_unix::{Framed, Framer};
use super::http::HttpError;
use super::json::Reader;
use super::lease_commands::ListingProgress;
use super::listener::{Listener, ListenerAddress, ListenerSpec, Role};
use super::log::Severity;
use super::stream::Stream;
use super::table::CommandTable;
use crate::time::{Mono, Now};
use crate::{log, log_limited};

/// Most clients of one listener: nobody who floods one keeps clients of another out.
pub const CLIENTS_PER_LISTENER_MAX: usize = 256;
/// Most octets of incomplete requests, of all clients together.
pub const REQUEST_BYTES_TOTAL_MAX: usize = 256 << 20;
/// Only requests beyond this are counted against it.
const LARGE_REQUEST_BYTES: usize = 1 << 20;
/// Most daemons that one command names.
const SERVICES_MAX: usize = 8;
const FORWARD_TIMEOUT_MS: u64 = 60_000;
const ACCEPTS_PER_TURN: usize = 64;
const STEPS_PER_TURN: usize = 64;
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

struct OpenListener {
    listener: Listener,
    address: ListenerAddress,
    spec: Arc<ListenerSpec>,
}

/// A command that was passed on to another daemon.
struct Forward {
    stream: UnixStream,
    request: Vec<u8>,
    sent: usize,
    framer: Framer,
    client: Token,
    part: usize,
    service: String,
    deadline: Mono,
}

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

    /// Makes the listeners those of `specs`: addresses that stay keep their socket, new ones are opened, the rest is closed.
    /// Nothing changes when one of them cannot be opened. Clients of closed listeners get the answer they wait for.
    ///
    /// # Errors
    /// What cannot be opened and why.
    pub fn listen(&mut self, specs: Vec<ListenerSpec>) -> Result<(), Vec<String>> {
        let mut opened = Vec::new();
        let mut errors = Vec::new();
        for spec in specs {
            let address = spec.address();
            let known =
                self.listeners.iter().find(|(_, open)| open.address == address).map(|(token, _)| *token);
            if let Some(token) = known {
                opened.push((token, None, address, Arc::new(spec)));
                continue;
            }
            let token = self.token();
            let listener = Listener::open(&address).and_then(|mut listener| {
                self.poll.registry().register(listener.source(), token, Interest::READABLE)?;
                Ok(listener)
            });
            match listener {
                Ok(listener) => {
                    if let ListenerSpec::Http(http) = &spec
                        && let Some(exposure) = http.exposure()
                    {
                        log!(Severity::Warn, LOGGER, COMMAND_LISTENER_UNPROTECTED, "{exposure}");
                    }
                    opened.push((token, Some(listener), address, Arc::new(spec)));
                }
                Err(error) => errors.push(format!("control channel {address}: {error}")),
            }
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        let mut before = std::mem::take(&mut self.listeners);
        for (token, listener, address, spec) in opened {
            let listener = listener.or_else(|| before.remove(&token).map(|open| open.listener));
            if let Some(listener) = listener {
                self.adopt(&address, &spec);
                self.listeners.insert(token, OpenListener { listener, address, spec });
                self.ready.insert(token);
            }
        }
        for (_, mut closed) in before {
            let _ = self.poll.registry().deregister(closed.listener.source());
            for client in
                self.clients.values_mut().filter(|client| Arc::ptr_eq(&client.listener, &closed.spec))
            {
                if client.is_idle() {
                    client.phase = Phase::Gone;
                }
            }
        }
        self.clients.retain(|_, client| client.phase != Phase::Gone);
        Ok(())
    }

    /// Clients of a listener that stays live under its new settings: credentials asked for from now on are asked of them too.
    fn adopt(&mut self, address: &ListenerAddress, spec: &Arc<ListenerSpec>) {
        let is_tls = |spec: &ListenerSpec| matches!(spec, ListenerSpec::Http(http) if http.tls.is_some());
        for client in self.clients.values_mut().filter(|client| client.listener.address() == *address) {
            if is_tls(&client.listener) != is_tls(spec) && client.is_idle() {
                client.phase = Phase::Gone;
            }
            client.listener = Arc::clone(spec);
        }
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

    fn accept(&mut self, token: Token, backend: &mut dyn Backend) {
        let now = backend.now().mono;
        for _ in 0..ACCEPTS_PER_TURN {
            let Some(open) = self.listeners.get(&token) else { return };
            let spec = Arc::clone(&open.spec);
            let accepted = match &open.listener {
                Listener::Unix { socket, .. } => {
                    socket.accept().map(|(socket, _)| (Stream::Unix(socket), String::new()))
                }
                Listener::Tcp(socket) => socket.accept().and_then(|(socket, remote)| {
                    let tls = match &*spec {
                        ListenerSpec::Http(http) => http.tls.as_ref(),
                        ListenerSpec::Unix { .. } => None,
                    };
                    Ok((Stream::tcp(socket, tls)?, remote.ip().to_string()))
                }),
            };
            match accepted {
                Ok((stream, remote)) => {
                    if self.make_room(&spec) {
                        self.admit(stream, spec, remote, now, backend);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => {
                    // Out of descriptors, or a client that gave up: those behind it wait for the next turn.
                    let address = self.listeners.get(&token).map(|open| open.address.to_string());
                    log_limited!(
                        Severity::Error,
                        LOGGER,
                        COMMAND_SOCKET_ACCEPT_FAIL,
                        "a connection to {} could not be accepted: {error}",
                        address.unwrap_or_default()
                    );
                    return;
                }
            }
        }
        self.ready.insert(token);
    }

    /// Whether there is room for another client of `spec`, made if need be. The address that has most clients gives one up, so
    /// that whoever floods a listener (a partner's, for one) has to do without connections of its own: an idle one if there is
    /// any, else an unfinished request, each the one that has been silent longest.
    fn make_room(&mut self, spec: &Arc<ListenerSpec>) -> bool {
        let of_listener = |client: &&Client| Arc::ptr_eq(&client.listener, spec);
        if self.clients.values().filter(of_listener).count() < CLIENTS_PER_LISTENER_MAX {
            return true;
        }
        let mut counts: HashMap<&str, usize> = HashMap::new();
        for client in self.clients.values().filter(of_listener) {
            *counts.entry(&client.remote).or_default() += 1;
        }
        let silent = self
            .clients
            .iter()
            .filter(|(_, client)| of_listener(client))
            .filter_map(|(token, client)| Some((*token, client, client.silent_since()?)))
            // Tokens grow: of two that have been silent as long the one with the smaller has been there longer.
            .max_by_key(|(token, client, since)| {
                (counts.get(&*client.remote).copied(), client.is_idle(), Reverse(*since), Reverse(token.0))
            })
            .map(|(token, client, _)| (token, client.remote.clone()));
        log_limited!(
            Severity::Warn,
            LOGGER,
            COMMAND_CONNECTIONS_FULL,
            "{} has {CLIENTS_PER_LISTENER_MAX} clients: {}",
            spec.address(),
            match &silent {
                Some((_, remote)) => format!("a silent one from {remote} is closed for a new one"),
                None => "a new one is refused".to_owned(),
            }
        );
        let Some(closed) = silent.and_then(|(token, _)| self.clients.remove(&token)) else { return false };
        self.forget(closed);
        true
    }

    fn admit(
        &mut self,
        mut stream: Stream,
        spec: Arc<ListenerSpec>,
        remote: String,
        now: Mono,
        backend: &mut dyn Backend,
    ) {
        let token = self.token();
        let interest = Interest::READABLE | Interest::WRITABLE;
        if self.poll.registry().register(stream.source(), token, interest).is_err() {
            return;
        }
        log!(
            Severity::Debug(40),
            LOGGER,
            COMMAND_SOCKET_CONNECTION_OPENED,
            "connection {} from {remote}",
            token.0
        );
        self.clients.insert(token, Client::new(stream, spec, remote, now));
        self.client_turn(token, backend);
    }

    /// Does for a client what can be done now.
    fn client_turn(&mut self, token: Token, backend: &mut dyn Backend) {
        let Some(mut client) = self.clients.remove(&token) else { return };
        let now = backend.now();
        let mut moved = true;
        for _ in 0..STEPS_PER_TURN {
            moved = client.write(now.mono);
            moved |= self.advance(&mut client, backend, now);
            moved |= client.read(now.mono);
            moved |= match client.next_wanted() {
                Wanted::Nothing => false,
                Wanted::Command(command) => {
                    self.begin(&mut client, token, command, backend);
                    true
                }
                Wanted::Answer(answer) => {
                    client.answer(&answer.to_printed(), now);
                    true
                }
                Wanted::Refused(error) => {
                    client.refuse(error, now);
                    true
                }
            };
            moved |= client.settle(now.mono);
            if !moved || client.phase == Phase::Gone {
                break;
            }
        }
        if client.buffered_bytes() > LARGE_REQUEST_BYTES {
            let others: usize = self.clients.values().map(Client::buffered_bytes).sum();
            if others + client.buffered_bytes() > REQUEST_BYTES_TOTAL_MAX {
                log_limited!(
                    Severity::Warn,
                    LOGGER,
                    COMMAND_REQUESTS_TOO_LARGE,
                    "requests of all clients together exceed {REQUEST_BYTES_TOTAL_MAX} bytes: the one from {} is closed",
                    client.remote
                );
                client.phase = Phase::Gone;
            }
        }
        if client.phase == Phase::Gone {
            return self.forget(client);
        }
        // Still moving after that many steps: others first, then on.
        if moved || client.wants_turn() || (client.writable && client.waiting_bytes() > 0) {
            self.ready.insert(token);
        }
        self.clients.insert(token, client);
    }

    fn forget(&mut self, mut client: Client) {
        let _ = self.poll.registry().deregister(client.stream.source());
        for part in client.reply.take().into_iter().flat_map(|reply| reply.parts) {
            match part {
                Part::Job(job) => {
                    self.jobs.remove(&job);
                    self.dispatcher.abandon(job);
                }
                Part::Forward(token) => drop(self.forwards.remove(&Token(token))),
                Part::Ready(_) => {}
            }
        }
    }

    /// Begins to answer a command.
    fn begin(
        &mut self,
        client: &mut Client,
        token: Token,
        command: Result<Command, CommandFault>,
        backend: &mut dyn Backend,
    ) {
        let now = backend.now();
        let listener = Arc::clone(&client.listener);
        let command = match command {
            Ok(command) => command,
            Err(fault) => return client.answer(&fault.answer().to_printed(), now),
        };
        log!(
            Severity::Debug(40),
            LOGGER,
            COMMAND_RECEIVED,
            "command '{}' from {}",
            command.name,
            if client.remote.is_empty() { "the unix channel" } else { &client.remote }
        );
        let parts = match &*listener {
            ListenerSpec::Unix { daemon, .. } => {
                let job = self.dispatcher.start(*daemon, &command, backend);
                self.dispatcher.set_needs_length(job, false);
                vec![self.job_part(job, token)]
            }
            ListenerSpec::Http(spec) => match &spec.role {
                Role::Server(daemon) => match own_service(&command, *daemon) {
                    Ok(()) => {
                        let job = self.dispatcher.start(*daemon, &command, backend);
                        vec![self.job_part(job, token)]
                    }
                    Err(answer) => vec![Part::Ready(answer.to_printed())],
                },
                Role::Dedicated { daemon, accepts } => {
                    if accepts.is_some_and(|accepts| !accepts(&command.name)) {
                        return client.refuse(HttpError::Forbidden, now);
                    }
                    let job = self.dispatcher.start(*daemon, &command, backend);
                    vec![self.job_part(job, token)]
                }
                Role::Agent { sockets } => self.agent_parts(&command, sockets, token, backend),
            },
        };
        client.reply = Some(Reply { parts, begun: false });
    }

    fn job_part(&mut self, job: JobId, client: Token) -> Part {
        self.jobs.insert(job, client);
        Part::Job(job)
    }

    /// What the control agent does with a command: one part per addressed daemon.
    fn agent_parts(
        &mut self,
        command: &Command,
        sockets: &[(String, std::path::PathBuf)],
        client: Token,
        backend: &mut dyn Backend,
    ) -> Vec<Part> {
        let ready = |answer: Answer| Part::Ready(answer.to_printed());
        let services = match command.service() {
            None => Vec::new(),
            Some(Value::Array(services)) => services,
            Some(_) => return vec![ready(Answer::error("service value must be a list"))],
        };
        if services.is_empty() {
            if !self.dispatcher.has_command(Daemon::Agent, &command.name, backend.features()) {
                let mut answer = Answer::unsupported(&command.name);
                answer.text.push_str(
                    " The command has no \"service\", so the control agent itself was asked. To ask a server, name it: \
                     \"service\": [ \"dhcp4\" ] for the DHCPv4 server.",
                );
                return vec![ready(answer)];
            }
            let job = self.dispatcher.start(Daemon::Agent, command, backend);
            return vec![self.job_part(job, client)];
        }
        if services.len() > SERVICES_MAX {
            return vec![ready(Answer::error(format!("expected at most {SERVICES_MAX} services")))];
        }
        let mut parts = Vec::with_capacity(services.len());
        for (index, service) in services.iter().enumerate() {
            let Some(name) = service.as_str() else {
                parts.push(ready(Answer::error("service name must be a string")));
                continue;
            };
            // The guide of 2018 writes a blank behind the name.
            let name = name.trim();
            let own = [Daemon::Dhcp4, Daemon::Dhcp6]
                .into_iter()
                .find(|daemon| daemon.service() == name && self.dispatcher.serves(*daemon));
            let part = if let Some(daemon) = own {
                let job = self.dispatcher.start(daemon, command, backend);
                self.job_part(job, client)
            } else if let Some((_, path)) = sockets.iter().find(|(service, _)| service == name) {
                match self.forward(path, command, client, index, name, backend.now().mono) {
                    Ok(token) => Part::Forward(token.0),
                    Err(error) => ready(unable_to_forward(name, &error.to_string())),
                }
            } else {
                ready(Answer::error(format!(
                    "forwarding socket is not configured for the server type {name}"
                )))
            };
            parts.push(part);
        }
        parts
    }

    fn forward(
        &mut self,
        path: &Path,
        command: &Command,
        client: Token,
        part: usize,
        service: &str,
        now: Mono,
    ) -> io::Result<Token> {
        let mut stream = UnixStream::connect(path)?;
        let token = self.token();
        self.poll.registry().register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
        self.forwards.insert(
            token,
            Forward {
                stream,
                request: command.text.clone(),
                sent: 0,
                framer: Framer::default(),
                client,
                part,
                service: service.to_owned(),
                deadline: now.plus_ms(FORWARD_TIMEOUT_MS),
            },
        );
        Ok(token)
    }

    fn forward_turn(&mut self, token: Token, backend: &mut dyn Backend) {
        let Some(forward) = self.forwards.get_mut(&token) else { return };
        while forward.sent < forward.request.len() {
            match forward.stream.write(&forward.request[forward.sent..]) {
                Ok(count) if count > 0 => forward.sent += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // It may have answered before it closed: reading tells.
                Ok(_) | Err(_) => break,
            }
        }
        let mut buffer = [0; 16 << 10];
        loop {
            match forward.stream.read(&mut buffer) {
                Ok(0) => return self.forward_failed(token, "it closed the connection", backend),
                Ok(count) => match forward.framer.push(&buffer[..count]) {
                    Framed::More => {}
                    Framed::Complete(text) => {
                        let mut reader = Reader::new(&text);
                        let checked = reader.skip().and_then(|_| reader.end());
                        let part = match checked {
                            Ok(()) => text,
                            Err(error) => unparsable(&error.to_string()),
                        };
                        return self.forward_done(token, part, backend);
                    }
                    Framed::Refused(answer) => {
                        return self.forward_done(token, unparsable(&answer.text), backend);
                    }
                },
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return self.forward_failed(token, &error.to_string(), backend),
            }
        }
    }

    fn forward_failed(&mut self, token: Token, reason: &str, backend: &mut dyn Backend) {
        let service = self.forwards.get(&token).map(|forward| forward.service.clone()).unwrap_or_default();
        self.forward_done(token, unable_to_forward(&service, reason).to_printed(), backend);
    }

    fn forward_done(&mut self, token: Token, printed: Vec<u8>, backend: &mut dyn Backend) {
        let Some(mut forward) = self.forwards.remove(&token) else { return };
        let _ = self.poll.registry().deregister(&mut forward.stream);
        let client = self.clients.get_mut(&forward.client).and_then(|client| client.reply.as_mut());
        if let Some(part) = client.and_then(|reply| reply.parts.get_mut(forward.part)) {
            *part = Part::Ready(printed);
            self.client_turn(forward.client, backend);
        }
    }

    /// Moves a client's answer on; whether anything moved.
    fn advance(&mut self, client: &mut Client, backend: &mut dyn Backend, now: Now) -> bool {
        let Some(mut reply) = client.reply.take() else { return false };
        let alone = reply.parts.len() == 1;
        let mut moved = false;
        for part in &mut reply.parts {
            let Part::Job(job) = *part else { continue };
            let mut piece = Vec::new();
            match self.dispatcher.poll(job, client.waiting_bytes(), &mut piece, backend) {
                JobProgress::Waiting | JobProgress::Listing(ListingProgress::Gathering) => {}
                JobProgress::Answered(answer) => {
                    self.jobs.remove(&job);
                    *part = Part::Ready(answer.to_printed());
                    moved = true;
                }
                JobProgress::Listing(ListingProgress::Finished(_)) if !reply.begun => {
                    self.jobs.remove(&job);
                    *part = Part::Ready(piece);
                    moved = true;
                }
                JobProgress::Listing(ListingProgress::Sending(length)) if alone => {
                    if !std::mem::replace(&mut reply.begun, true) {
                        client.begin_answer(length.unwrap_or(0), now);
                        moved = true;
                    }
                    moved |= !piece.is_empty();
                    client.out.append(&mut piece);
                }
                JobProgress::Listing(ListingProgress::Sending(_)) => {
                    self.jobs.remove(&job);
                    self.dispatcher.abandon(job);
                    let text =
                        "the listing is too long for an answer with several services: ask this one alone";
                    *part = Part::Ready(Answer::error(text).to_printed());
                    moved = true;
                }
                JobProgress::Listing(ListingProgress::Finished(_)) => {
                    self.jobs.remove(&job);
                    client.out.append(&mut piece);
                    client.end_answer(now);
                    return true;
                }
                JobProgress::Listing(ListingProgress::Broken) | JobProgress::Gone => {
                    self.jobs.remove(&job);
                    log_limited!(
                        Severity::Error,
                        LOGGER,
                        COMMAND_RESPONSE_ERROR,
                        "the listing for {} had to be broken off: leases changed too much while it was sent",
                        client.remote
                    );
                    client.phase = Phase::Gone;
                    return true;
                }
            }
        }
        if reply.parts.iter().all(|part| matches!(part, Part::Ready(_))) {
            let mut body = Vec::new();
            for part in reply.parts {
                let Part::Ready(printed) = part else { continue };
                if body.is_empty() {
                    body = printed;
                } else {
                    body.extend_from_slice(b", ");
                    body.extend_from_slice(&printed);
                }
            }
            client.answer(&body, now);
            return true;
        }
        client.reply = Some(reply);
        moved
    }
}

fn unable_to_forward(service: &str, reason: &str) -> Answer {
    Answer::error(format!(
        "unable to forward command to the {service} service: {reason}. The server is likely to be offline"
    ))
}

fn unparsable(reason: &str) -> Vec<u8> {
    let text =
        format!("internal server error: unable to parse server's answer to the forwarded message: {reason}");
    Answer::error(text).to_printed()
}

/// Whether `service` of a command to a daemon's own port names that daemon, or nothing.
fn own_service(command: &Command, daemon: Daemon) -> Result<(), Answer> {
    let services = match command.service() {
        None => return Ok(()),
        Some(Value::Array(services)) => services,
        Some(_) => return Err(Answer::error("service value must be a list")),
    };
    match services.as_slice() {
        [] => Ok(()),
        [Value::String(name)] => {
            let name = name.trim();
            if name.is_empty() || name == daemon.service() {
                return Ok(());
            }
            let text = format!("unsupported service '{name}', expected '{}'", daemon.service());
            Err(Answer::error(text))
        }
        [_] => Err(Answer::error("service name must be a string")),
        _ => Err(Answer::error("service value has more than one item")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::http::HttpSettings;
    use crate::control::listener::HttpListenerSpec;

    fn unix(path: &Path) -> ListenerSpec {
        ListenerSpec::Unix { daemon: Daemon::Dhcp4, path: path.to_owned() }
    }

    fn http(address: SocketAddr) -> ListenerSpec {
        ListenerSpec::Http(HttpListenerSpec {
            address,
            role: Role::Server(Daemon::Dhcp4),
            settings: HttpSettings::default(),
            tls: None,
        })
    }

    #[test]
    fn listeners_change_as_a_whole_or_not_at_all() {
        let folder = tempfile::tempdir().expect("a folder");
        let (one, other) = (folder.path().join("1.sock"), folder.path().join("2.sock"));
        let mut control = ControlLoop::new([CommandTable::dhcp4()]).expect("a loop");
        let port_free = SocketAddr::from(([127, 0, 0, 1], 0));
        control.listen(vec![unix(&one), http(port_free)]).expect("opens");
        let address = control.tcp_addresses()[0];
        let there = |path: &Path| std::os::unix::net::UnixStream::connect(path).is_ok();
        assert!(there(&one));

        let errors = control.listen(vec![unix(&other), unix(&folder.path().join("none/3.sock"))]);
        let errors = errors.expect_err("is refused");
        assert!(errors[0].contains("none/3.sock: "), "{errors:?}");
        assert!(there(&one) && !there(&other), "nothing has changed");
        let taken = http(address);
        assert_eq!(
            ControlLoop::new([]).expect("a loop").listen(vec![taken]).expect_err("is refused").len(),
            1
        );

        control.listen(vec![unix(&one), unix(&other)]).expect("opens");
        assert!(there(&one) && there(&other));
        assert!(std::net::TcpStream::connect(address).is_err(), "the port is closed");
        control.listen(Vec::new()).expect("closes");
        assert!(!one.exists() && !other.exists());
    }
}
