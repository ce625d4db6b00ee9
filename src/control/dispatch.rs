//! Commands at work: which are waiting for what, and how far each one is. No sockets here.

use std::collections::HashMap;

use super::backend::{Backend, Completion, Daemon, Features, Ticket};
use super::command::{Answer, Command, Context, Continuation, Outcome, Tickets};
use super::lease_commands::{Listing, ListingProgress};
use super::statistics::Statistics;
use super::table::CommandTable;

/// The name of one command at work. Never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId(u64);

enum Job {
    Pending { daemon: Daemon, rest: Box<dyn Continuation> },
    Listing { daemon: Daemon, listing: Box<Listing>, ordered: bool },
    Answered(Answer),
}

/// How far a command is.
#[derive(Debug, PartialEq)]
pub enum JobProgress {
    /// Not answered; nothing to send.
    Waiting,
    /// Answered; the command is forgotten.
    Answered(Answer),
    /// A listing, by its own account.
    Listing(ListingProgress),
    /// No such command.
    Gone,
}

/// The commands at work and what they work with.
pub struct Dispatcher {
    tables: HashMap<Daemon, CommandTable>,
    /// The statistics.
    pub statistics: Statistics,
    tickets: Tickets,
    jobs: HashMap<JobId, Job>,
    waiting: HashMap<Ticket, JobId>,
    last_job: u64,
}

impl Dispatcher {
    /// A dispatcher to these tables.
    #[must_use]
    pub fn new(tables: impl IntoIterator<Item = CommandTable>) -> Self {
        Self {
            tables: tables.into_iter().map(|table| (table.daemon(), table)).collect(),
            statistics: Statistics::new(),
            tickets: Tickets::default(),
            jobs: HashMap::new(),
            waiting: HashMap::new(),
            last_job: 0,
        }
    }

    /// Whether this process is `daemon`.
    #[must_use]
    pub fn serves(&self, daemon: Daemon) -> bool {
        self.tables.contains_key(&daemon)
    }

    /// How many commands are at work.
    #[must_use]
    pub fn job_count(&self) -> usize {
        self.jobs.len()
    }

    /// Begins a command.
    pub fn start(&mut self, daemon: Daemon, command: &Command, backend: &mut dyn Backend) -> JobId {
        self.last_job += 1;
        let id = JobId(self.last_job);
        let Some(table) = self.tables.get(&daemon) else {
            self.jobs.insert(id, Job::Answered(Answer::unsupported(&command.name)));
            return id;
        };
        let mut context = Context {
            backend,
            statistics: &mut self.statistics,
            daemon,
            table,
            tickets: &mut self.tickets,
            ordered: Vec::new(),
        };
        let outcome = table.execute(&mut context, command);
        let ordered = context.ordered;
        self.go_on(id, daemon, outcome, ordered);
        id
    }

    fn go_on(&mut self, id: JobId, daemon: Daemon, outcome: Outcome, ordered: Vec<Ticket>) {
        for ticket in ordered {
            self.waiting.insert(ticket, id);
        }
        let job = match outcome {
            Outcome::Answer(answer) => Job::Answered(answer),
            Outcome::Pending(rest) => Job::Pending { daemon, rest },
            Outcome::Listing(listing) => Job::Listing { daemon, listing, ordered: false },
        };
        self.jobs.insert(id, job);
    }

    /// Work is done: the command that waits for it goes on. Returns that command, if it is still wanted.
    pub fn complete(
        &mut self,
        ticket: Ticket,
        completion: Completion,
        backend: &mut dyn Backend,
    ) -> Option<JobId> {
        let id = self.waiting.remove(&ticket)?;
        match self.jobs.remove(&id)? {
            Job::Pending { daemon, rest } => {
                let table = self.tables.get(&daemon)?;
                let mut context = Context {
                    backend,
                    statistics: &mut self.statistics,
                    daemon,
                    table,
                    tickets: &mut self.tickets,
                    ordered: Vec::new(),
                };
                let outcome = rest.resume(&mut context, ticket, completion);
                let ordered = context.ordered;
                self.go_on(id, daemon, outcome, ordered);
            }
            Job::Listing { daemon, mut listing, .. } => {
                listing.take_page(&completion);
                self.jobs.insert(id, Job::Listing { daemon, listing, ordered: false });
            }
            answered @ Job::Answered(_) => {
                self.jobs.insert(id, answered);
            }
        }
        Some(id)
    }

    /// Says that the client needs to know the length of a listing first, or not.
    pub fn set_needs_length(&mut self, id: JobId, needs_length: bool) {
        if let Some(Job::Listing { listing, .. }) = self.jobs.get_mut(&id) {
            listing.set_needs_length(needs_length);
        }
    }

    /// Octets of listings that are held until they can be sent, or on their way from the shards.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        let held = self.jobs.values().map(|job| match job {
            Job::Listing { listing, ordered, .. } => {
                listing.held_bytes() + if *ordered { listing.page_bytes() } else { 0 }
            }
            Job::Pending { .. } | Job::Answered(_) => 0,
        });
        held.sum()
    }

    /// Whether `daemon` has the command `name`.
    #[must_use]
    pub fn has_command(&self, daemon: Daemon, name: &str, features: Features) -> bool {
        self.tables.get(&daemon).is_some_and(|table| table.has(name, features))
    }

    /// Sees how far a command is; what a listing has to send goes to `out`, and its next page is ordered when `out` and
    /// what else waits (`waiting_bytes`) leave room; less of it where memory `is_tight`.
    pub fn poll(
        &mut self,
        id: JobId,
        waiting_bytes: usize,
        is_tight: bool,
        out: &mut Vec<u8>,
        backend: &mut dyn Backend,
    ) -> JobProgress {
        match self.jobs.get_mut(&id) {
            None => JobProgress::Gone,
            Some(Job::Pending { .. }) => JobProgress::Waiting,
            Some(Job::Answered(answer)) => {
                let answer = std::mem::take(answer);
                self.jobs.remove(&id);
                JobProgress::Answered(answer)
            }
            Some(Job::Listing { listing, ordered, .. }) => {
                listing.set_tight(is_tight);
                let progress = listing.drain(out);
                match progress {
                    ListingProgress::Finished(_) | ListingProgress::Broken => {
                        self.jobs.remove(&id);
                    }
                    _ if *ordered => {}
                    _ => {
                        if let Some(order) = listing.next_order(waiting_bytes + out.len()) {
                            *ordered = true;
                            let ticket = self.tickets.issue();
                            self.waiting.insert(ticket, id);
                            backend.submit(ticket, order);
                        }
                    }
                }
                JobProgress::Listing(progress)
            }
        }
    }

    /// Nobody wants the answer any more. What was ordered is still done.
    pub fn abandon(&mut self, id: JobId) {
        self.jobs.remove(&id);
        self.waiting.retain(|_, job| *job != id);
    }
}
