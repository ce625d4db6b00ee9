//! A copy gives back: this server's leases that the source lacks go to it, page by page, before the rest of the copy.
//!
//! One order to a shard or one command to the source at a time: shards look for such leases between batches in capped steps, and the source
//! answers when what it took is durable there. What the source refuses is counted and left: the copy goes on.

use std::net::Ipv4Addr;
use std::sync::Arc;

use crate::ha::backlog::Operation;
use crate::ha::command::bulk::{BulkWriter, bulk_verdicts};
use crate::ha::command::{PeerAnswer, PeerError, RESULT_UNSUPPORTED, Verdict};
use crate::ha::partner::SYNC_LEASES_COMMAND;
use crate::lease::Lease4Buf;
use crate::lease::known::KnownLeases;
use crate::lease::request::{LeaseFilter, LeaseReply, LeaseRequest};
use crate::server::engine::Engine;
use crate::server::shard_loop::Order;

/// Leases of one command.
const LEASES_PER_COMMAND: u32 = 2048;
/// How often a command is sent again that the source did not answer: the same leases twice do no harm.
const RETRIES_MAX: u32 = 3;

/// What it waits for.
enum Wait {
    /// Room for an order to the shard.
    Room,
    /// The answer to this order.
    Shard(u64),
    /// The source's answer to this command, of so many leases.
    Source(Vec<u8>, usize),
    /// Nothing: it is over.
    Nothing,
}

/// What [`Give::step`] wants.
pub(super) enum Want {
    /// Nothing now.
    Nothing,
    /// Send this to the source.
    Send(Vec<u8>),
    /// It is over: so many leases were taken, so many refused; nothing when the source does not know how; or why it failed.
    Finished(Result<Option<(u64, u64)>, String>),
}

/// Leases on their way to the source.
pub(super) struct Give {
    known: Arc<KnownLeases>,
    writer: BulkWriter,
    shard: usize,
    from: Ipv4Addr,
    wait: Wait,
    /// A body to send, for the first time or again.
    post: Option<Vec<u8>>,
    retries: u32,
    taken: u64,
    refused: u64,
    outcome: Option<Result<Option<(u64, u64)>, String>>,
}

impl Give {
    pub(super) fn new(known: KnownLeases, server_name: &str) -> Self {
        Self {
            known: Arc::new(known),
            writer: BulkWriter::of(SYNC_LEASES_COMMAND, server_name),
            shard: 0,
            from: Ipv4Addr::UNSPECIFIED,
            wait: Wait::Room,
            post: None,
            retries: 0,
            taken: 0,
            refused: 0,
            outcome: None,
        }
    }

    fn end(&mut self, outcome: Result<Option<(u64, u64)>, String>) {
        self.wait = Wait::Nothing;
        self.outcome = Some(outcome);
    }

    /// Nobody waits for it any more. A command that is under way is answered first.
    pub(super) fn cancel(&mut self) {
        if !matches!(self.wait, Wait::Source(..)) {
            self.end(Err("cancelled".to_owned()));
        }
        self.shard = usize::MAX;
    }

    /// Whether it waits for this answer of a shard; takes it if so.
    pub(super) fn found(&mut self, number: u64, reply: &LeaseReply) -> bool {
        if !matches!(self.wait, Wait::Shard(waiting) if waiting == number) {
            return false;
        }
        let leases: &[Lease4Buf] = if let LeaseReply::Leases(leases) = reply { leases } else { &[] };
        self.wait = Wait::Room;
        match leases.last() {
            Some(last) if leases.len() >= LEASES_PER_COMMAND as usize => self.from = last.view().address,
            _ => {
                self.shard += 1;
                self.from = Ipv4Addr::UNSPECIFIED;
            }
        }
        if !leases.is_empty() {
            for lease in leases {
                self.writer.push(Operation::Update, &lease.view());
            }
            let body = self.writer.finish(None).to_vec();
            self.wait = Wait::Source(body.clone(), leases.len());
            self.post = Some(body);
        }
        true
    }

    /// The source has answered, or not.
    pub(super) fn answered(&mut self, answer: &Result<PeerAnswer, PeerError>) {
        let Wait::Source(body, count) = std::mem::replace(&mut self.wait, Wait::Room) else { return };
        match answer {
            Err(PeerError::Io(_)) if self.retries < RETRIES_MAX && self.shard != usize::MAX => {
                self.retries += 1;
                self.post = Some(body.clone());
                self.wait = Wait::Source(body, count);
            }
            Err(error) => self.end(Err(error.to_string())),
            // An older one of ours: it is as with a Kea.
            Ok(answer) if answer.result == i64::from(RESULT_UNSUPPORTED) => {
                self.end(Ok(None));
            }
            Ok(_) => {
                self.retries = 0;
                let verdicts = bulk_verdicts(count, answer);
                let taken = verdicts.iter().filter(|&&verdict| verdict == Verdict::Success).count();
                self.taken += taken as u64;
                self.refused += (count - taken) as u64;
            }
        }
    }

    /// Goes on. `number` numbers orders, `first` is added to it.
    pub(super) fn step(&mut self, engine: &Engine, first: u64, number: &mut u64) -> Want {
        if let Some(body) = self.post.take() {
            return Want::Send(body);
        }
        if matches!(self.wait, Wait::Room) {
            if let Some(shard) = engine.shards.get(self.shard) {
                let filter = LeaseFilter::Lacking(Arc::clone(&self.known));
                let request = LeaseRequest::List { from: self.from, limit: LEASES_PER_COMMAND, filter };
                *number = number.wrapping_add(1);
                if shard.order(Order::Leases(first | *number, request)).is_ok() {
                    self.wait = Wait::Shard(first | *number);
                }
            } else {
                self.end(Ok(Some((self.taken, self.refused))));
            }
        }
        self.outcome.take().map_or(Want::Nothing, Want::Finished)
    }
}
