//! `aplomado-bulk-apply` as it is received: many changes of one command go to the shards at once, and the answer leaves when all are
//! durable.

use std::collections::{HashMap, VecDeque};

use crate::control::backend::Ticket;
use crate::ha::backlog::Operation;
use crate::ha::command::bulk::{BulkFailure, bulk_answer};
use crate::ha::command::{Answer, RESULT_CONFLICT, RESULT_ERROR};
use crate::ids::{Lsn, ShardId};
use crate::lease::Lease4Buf;
use crate::lease::address::Owner;
use crate::lease::request::{LeaseKey, LeaseReply, LeaseRequest, Origin, PutMode};
use crate::server::engine::Engine;
use crate::server::shard_loop::Order;

/// Orders with a number from here on, and below those of a synchronisation, are those of bulk commands.
pub const BULK_NUMBERS: u64 = 1 << 62;
/// Changes of one command that may be on their way to the shards at once.
const WINDOW: usize = 512;

/// A change that a bulk command asks for, or why it cannot be made.
pub type Item = Result<(Operation, Lease4Buf), BulkFailure>;

/// One command.
struct Bulk {
    ticket: Ticket,
    origin: Origin,
    count: usize,
    /// Not given to a shard yet, with their positions in the command.
    waiting: VecDeque<(usize, Operation, Lease4Buf)>,
    /// Orders on their way, and which change each makes.
    outstanding: HashMap<u64, usize>,
    gates: Vec<Lsn>,
    failed: Vec<BulkFailure>,
}

/// The bulk commands at work.
#[derive(Default)]
pub struct BulkCommands {
    list: Vec<Bulk>,
    number: u64,
}

impl BulkCommands {
    /// Begins a command.
    ///
    /// Of two changes of one address that have crossed the partner's is made when `partner_wins`, else it is refused.
    pub fn begin(&mut self, ticket: Ticket, items: Vec<Item>, shard_count: usize, partner_wins: bool) {
        let count = items.len();
        let (mut waiting, mut failed) = (VecDeque::new(), Vec::new());
        for (index, item) in items.into_iter().enumerate() {
            match item {
                Ok((operation, lease)) => waiting.push_back((index, operation, lease)),
                Err(failure) => failed.push(failure),
            }
        }
        let gates = vec![Lsn(0); shard_count];
        let origin = Origin::Partner { partner_wins };
        self.list.push(Bulk { ticket, origin, count, waiting, outstanding: HashMap::new(), gates, failed });
    }

    /// A shard's answer.
    pub fn answered(&mut self, number: u64, reply: &LeaseReply, shard: ShardId, lsn: Lsn) {
        let Some((bulk, index)) =
            self.list.iter_mut().find_map(|bulk| bulk.outstanding.remove(&number).map(|index| (bulk, index)))
        else {
            return;
        };
        if let Some(gate) = bulk.gates.get_mut(usize::from(shard.0)) {
            *gate = lsn.max(*gate);
        }
        let (result, text) = match reply {
            LeaseReply::Added
            | LeaseReply::Updated
            | LeaseReply::Kept
            | LeaseReply::Deleted
            | LeaseReply::NotFound => return,
            LeaseReply::Busy => (RESULT_CONFLICT, "a client waits for another change of this address"),
            LeaseReply::Full(limit) => (RESULT_ERROR, *limit),
            _ => (RESULT_ERROR, "an answer of another kind came back"),
        };
        bulk.failed.push(BulkFailure { index, result, text: text.to_owned() });
    }

    /// Goes on; the commands that are done, with their answers.
    pub fn step(&mut self, engine: &Engine) -> Vec<(Ticket, Answer)> {
        let mut done = Vec::new();
        for bulk in &mut self.list {
            bulk.feed(engine, &mut self.number);
        }
        self.list.retain_mut(|bulk| {
            let is_done = bulk.is_done(engine);
            if is_done {
                bulk.failed.sort_by_key(|failure| failure.index);
                done.push((bulk.ticket, bulk_answer(bulk.count, &bulk.failed)));
            }
            !is_done
        });
        done
    }
}

impl Bulk {
    fn feed(&mut self, engine: &Engine, number: &mut u64) {
        let origin = self.origin;
        while self.outstanding.len() < WINDOW {
            let Some((index, operation, lease)) = self.waiting.pop_front() else { return };
            let view = lease.view();
            let (address, hw_addr) = (view.address, view.hw_addr);
            let holder = match engine.space.owner(address) {
                Owner::InUse { shard, .. } | Owner::Stealable { shard, .. } => Some(shard),
                Owner::Unknown | Owner::Free | Owner::Retiring { .. } => None,
            };
            let request = match operation {
                Operation::Delete => LeaseRequest::Delete { key: LeaseKey::Address(address), origin },
                Operation::Update => {
                    if let Err(error) = engine.space.ensure(address, address) {
                        let text = error.to_string();
                        self.failed.push(BulkFailure { index, result: RESULT_ERROR, text });
                        continue;
                    }
                    LeaseRequest::Put { lease: lease.clone(), mode: PutMode::Upsert, origin }
                }
            };
            let shard = holder.unwrap_or_else(|| engine.steering.owner(&hw_addr));
            let Some(handle) = engine.shards.get(usize::from(shard.0)) else { return };
            *number = (*number + 1) % BULK_NUMBERS;
            if handle.order(Order::Leases(BULK_NUMBERS | *number, request)).is_err() {
                // As many orders wait as may: the next turn goes on here.
                self.waiting.push_front((index, operation, lease));
                return;
            }
            self.outstanding.insert(BULK_NUMBERS | *number, index);
        }
    }

    fn is_done(&self, engine: &Engine) -> bool {
        self.waiting.is_empty()
            && self.outstanding.is_empty()
            && (0u8..)
                .zip(&self.gates)
                .all(|(shard, &lsn)| lsn == Lsn(0) || engine.is_durable(ShardId(shard), lsn))
    }
}
