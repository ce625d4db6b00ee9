//! `aplomado-bulk-apply` and `aplomado-sync-leases` as they are received: many changes of one command go to each shard as one order, and the
//! answer leaves when all are durable.

use std::collections::{HashMap, VecDeque};
use std::net::Ipv4Addr;

use crate::control::backend::Ticket;
use crate::ha::backlog::Operation;
use crate::ha::command::bulk::{BulkFailure, bulk_answer};
use crate::ha::command::{Answer, RESULT_CONFLICT, RESULT_ERROR};
use crate::ids::{Lsn, ShardId};
use crate::lease::Lease4Buf;
use crate::lease::address::Owner;
use crate::lease::request::{LeaseChange, LeaseReply, LeaseRequest, Origin, PutMode};
use crate::server::engine::Engine;
use crate::server::shard_loop::Order;

/// Orders with a number from here on, and below those of a synchronisation, are those of bulk commands.
pub const BULK_NUMBERS: u64 = 1 << 62;
/// Changes of one order: a shard takes other orders (memory for its table, for one) between two of them.
const ORDER_CHANGES_MAX: usize = 512;
/// Orders of one command that may be on their way at once.
const ORDERS_UNDER_WAY_MAX: usize = 8;

/// A change that a bulk command asks for, or why it cannot be made.
pub type Item = Result<(Operation, Lease4Buf), BulkFailure>;

/// Changes for one shard, and their positions in the command.
#[derive(Default)]
struct Part {
    indices: Vec<usize>,
    changes: Vec<LeaseChange>,
}

/// One command.
struct Bulk {
    ticket: Ticket,
    mode: PutMode,
    origin: Origin,
    count: usize,
    /// Not given to the shards yet.
    waiting: VecDeque<(ShardId, Part)>,
    /// Orders on their way, and which changes each makes.
    outstanding: HashMap<u64, Vec<usize>>,
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
    /// Begins a command of `origin`.
    pub fn begin(
        &mut self,
        ticket: Ticket,
        items: Vec<Item>,
        engine: &Engine,
        mode: PutMode,
        origin: Origin,
    ) {
        let mut bulk = Bulk {
            ticket,
            mode,
            origin,
            count: items.len(),
            waiting: VecDeque::new(),
            outstanding: HashMap::new(),
            gates: vec![Lsn(0); engine.shards.len()],
            failed: Vec::new(),
        };
        bulk.share_out(items, engine);
        self.list.push(bulk);
    }

    /// A shard's answer.
    pub fn answered(&mut self, number: u64, reply: LeaseReply, shard: ShardId, lsn: Lsn) {
        let Some((bulk, indices)) = self
            .list
            .iter_mut()
            .find_map(|bulk| bulk.outstanding.remove(&number).map(|indices| (bulk, indices)))
        else {
            return;
        };
        if let Some(gate) = bulk.gates.get_mut(usize::from(shard.0)) {
            *gate = lsn.max(*gate);
        }
        let LeaseReply::Applied(replies) = reply else {
            let text = "an answer of another kind came back";
            let failed = |index| BulkFailure { index, result: RESULT_ERROR, text: text.to_owned() };
            return bulk.failed.extend(indices.into_iter().map(failed));
        };
        for (index, reply) in indices.into_iter().zip(replies) {
            let (result, text) = match reply {
                LeaseReply::Added
                | LeaseReply::Updated
                | LeaseReply::Kept
                | LeaseReply::Deleted
                | LeaseReply::NotFound => continue,
                LeaseReply::Busy => (RESULT_CONFLICT, "a client waits for another change of this address"),
                LeaseReply::Full(limit) => (RESULT_ERROR, limit),
                _ => (RESULT_ERROR, "an answer of another kind came back"),
            };
            bulk.failed.push(BulkFailure { index, result, text: text.to_owned() });
        }
    }

    /// Whether a command waits for nothing but the disk.
    #[must_use]
    pub fn await_disk(&self) -> bool {
        self.list.iter().any(|bulk| bulk.waiting.is_empty() && bulk.outstanding.is_empty())
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
    /// Says which shard makes which change. Those of one address go to one shard: only so are they made in their order.
    fn share_out(&mut self, items: Vec<Item>, engine: &Engine) {
        let mut parts: Vec<Part> = engine.shards.iter().map(|_| Part::default()).collect();
        let mut chosen: HashMap<Ipv4Addr, ShardId> = HashMap::new();
        for (index, item) in items.into_iter().enumerate() {
            let (operation, lease) = match item {
                Ok(change) => change,
                Err(failure) => {
                    self.failed.push(failure);
                    continue;
                }
            };
            let (address, hw_addr) = (lease.view().address, lease.view().hw_addr);
            let change = match operation {
                Operation::Delete => LeaseChange::Delete { address, told: Some(lease) },
                Operation::Update => {
                    if let Err(error) = engine.space.ensure(address, address) {
                        let text = error.to_string();
                        self.failed.push(BulkFailure { index, result: RESULT_ERROR, text });
                        continue;
                    }
                    LeaseChange::Put(lease)
                }
            };
            let shard = match engine.space.owner(address) {
                Owner::InUse { shard, .. } | Owner::Stealable { shard, .. } => shard,
                Owner::Unknown | Owner::Free | Owner::Retiring { .. } if parts.len() == 1 => ShardId(0),
                Owner::Unknown | Owner::Free | Owner::Retiring { .. } => {
                    *chosen.entry(address).or_insert_with(|| engine.steering.owner(&hw_addr))
                }
            };
            let Some(part) = parts.get_mut(usize::from(shard.0)) else { continue };
            part.indices.push(index);
            part.changes.push(change);
            if part.changes.len() == ORDER_CHANGES_MAX {
                self.waiting.push_back((shard, std::mem::take(part)));
            }
        }
        let rest = (0u8..).map(ShardId).zip(parts).filter(|(_, part)| !part.changes.is_empty());
        self.waiting.extend(rest);
    }

    fn feed(&mut self, engine: &Engine, number: &mut u64) {
        while self.outstanding.len() < ORDERS_UNDER_WAY_MAX {
            let Some((shard, part)) = self.waiting.pop_front() else { return };
            let Some(handle) = engine.shards.get(usize::from(shard.0)) else { return };
            if handle.orders.is_full() {
                // As many orders wait as may: the next turn goes on here.
                self.waiting.push_front((shard, part));
                return;
            }
            *number = (*number + 1) % BULK_NUMBERS;
            let Part { indices, changes } = part;
            let request = LeaseRequest::Apply { changes, mode: self.mode, origin: self.origin };
            // Only this thread gives orders, so there is room; one that a shard at its end does not take is never answered, nor is
            // anything else.
            let _ = handle.order(Order::Leases(BULK_NUMBERS | *number, request));
            self.outstanding.insert(BULK_NUMBERS | *number, indices);
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
