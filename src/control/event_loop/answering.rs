//! Clients of the loop and their answers: what can be read is read, commands are begun, and what they say leaves when it is there.

use std::sync::Arc;

use mio::Token;
use serde_json::Value;

use super::{ControlLoop, LOGGER};
use crate::control::backend::{Backend, Daemon};
use crate::control::command::{Answer, Command, CommandFault};
use crate::control::connection::{Client, Part, Phase, Reply, Wanted};
use crate::control::dispatch::{JobId, JobProgress};
use crate::control::http::HttpError;
use crate::control::lease_commands::ListingProgress;
use crate::control::listener::{ListenerSpec, Role};
use crate::control::log::Severity;
use crate::time::Now;
use crate::{log, log_limited};

/// Most octets of incomplete requests, of all clients together.
pub const REQUEST_BYTES_TOTAL_MAX: usize = 256 << 20;
/// Most octets of answers that wait to be read, of all clients together.
pub const ANSWER_BYTES_TOTAL_MAX: usize = 256 << 20;
/// Beyond this, listings hold as little as they can.
const ANSWER_BYTES_TIGHT: usize = 32 << 20;
/// Only answers beyond this are broken off to make room for others.
const LARGE_ANSWER_BYTES: usize = 1 << 20;
/// Only requests beyond this are counted against it.
const LARGE_REQUEST_BYTES: usize = 1 << 20;
const STEPS_PER_TURN: usize = 64;

impl ControlLoop {
    /// Does for a client what can be done now.
    pub(super) fn client_turn(&mut self, token: Token, backend: &mut dyn Backend) {
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
        self.keep_answers_small(&mut client);
        if client.phase == Phase::Gone {
            return self.forget(client);
        }
        // Still moving after that many steps: others first, then on.
        if moved || client.wants_turn() || (client.writable && client.waiting_bytes() > 0) {
            self.ready.insert(token);
        }
        self.clients.insert(token, client);
    }

    pub(super) fn forget(&mut self, mut client: Client) {
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

    pub(super) fn job_part(&mut self, job: JobId, client: Token) -> Part {
        self.jobs.insert(job, client);
        Part::Job(job)
    }

    /// Octets of answers that wait to be read, of `client` and all others.
    fn waiting_bytes(&self, client: &Client) -> usize {
        let others: usize = self.clients.values().map(Client::waiting_bytes).sum();
        others + client.waiting_bytes() + self.dispatcher.held_bytes()
    }

    /// Gives up clients whose large answers, read by nobody, take too much memory together: first those that have read nothing for longest.
    fn keep_answers_small(&mut self, client: &mut Client) {
        while client.waiting_bytes() > LARGE_ANSWER_BYTES
            && client.phase != Phase::Gone
            && self.waiting_bytes(client) > ANSWER_BYTES_TOTAL_MAX
        {
            let large = self.clients.iter().filter(|(_, other)| other.waiting_bytes() > LARGE_ANSWER_BYTES);
            let slowest = large.map(|(token, other)| (other.progress(), *token)).min();
            let slower = slowest.filter(|(progress, _)| *progress <= client.progress());
            let given_up = slower.and_then(|(_, token)| self.clients.remove(&token));
            log_limited!(
                Severity::Warn,
                LOGGER,
                COMMAND_ANSWERS_TOO_LARGE,
                "answers to all clients together exceed {ANSWER_BYTES_TOTAL_MAX} bytes: the one to {} is not read and broken off",
                given_up.as_ref().unwrap_or(client).remote
            );
            match given_up {
                Some(other) => self.forget(other),
                None => client.phase = Phase::Gone,
            }
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
            let is_tight = alone && self.waiting_bytes(client) > ANSWER_BYTES_TIGHT;
            match self.dispatcher.poll(job, client.waiting_bytes(), is_tight, &mut piece, backend) {
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
