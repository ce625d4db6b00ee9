//! What shards count: plain counters with one writer each, and the counters of leases, which all shards share.
//!
//! Promises: no allocation after construction, no lock. A counter of [`ShardCounters`] is written by its shard only,
//! with a load and a store; the control thread reads it and sums. Counters of leases are touched when a lease is created
//! or freed, never on a renewal.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use crossbeam::utils::CachePadded;

use crate::wire::codes::MessageType;
use crate::wire::drop::DropReason;

/// Most message types counted by number.
const TYPES: usize = 20;

/// Most counters of ports.
const PORT_COUNTERS: usize = 16;
/// Interfaces whose ports are counted apart; the last row is for all beyond.
pub const INTERFACES_COUNTED: usize = 257;

/// A counter that one thread writes and others read.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// One more. Only the owning thread may call it.
    pub fn bump(&self) {
        self.add(1);
    }

    /// `count` more. Only the owning thread may call it.
    pub fn add(&self, count: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(count), Ordering::Relaxed);
    }

    /// The count is this now. Only the owning thread may call it.
    fn set(&self, count: u64) {
        self.0.store(count, Ordering::Relaxed);
    }

    /// The count so far.
    #[must_use]
    pub fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What one shard counts.
#[derive(Debug)]
pub struct ShardCounters(CachePadded<Inner>);

#[derive(Debug)]
struct Inner {
    received: Counter,
    received_types: [Counter; TYPES],
    sent: Counter,
    sent_types: [Counter; TYPES],
    drops: [Counter; DropReason::COUNT],
    turns: Counter,
    batches: Counter,
    handed_over: Counter,
    options_left_out: Counter,
    ports: Box<[[Counter; PORT_COUNTERS]; INTERFACES_COUNTED]>,
}

impl Default for ShardCounters {
    fn default() -> Self {
        Self(CachePadded::new(Inner {
            received: Counter::default(),
            received_types: std::array::from_fn(|_| Counter::default()),
            sent: Counter::default(),
            sent_types: std::array::from_fn(|_| Counter::default()),
            drops: std::array::from_fn(|_| Counter::default()),
            turns: Counter::default(),
            batches: Counter::default(),
            handed_over: Counter::default(),
            options_left_out: Counter::default(),
            ports: Box::new(std::array::from_fn(|_| std::array::from_fn(|_| Counter::default()))),
        }))
    }
}

impl ShardCounters {
    /// A datagram for us arrived.
    pub fn received(&self) {
        self.0.received.bump();
    }

    /// It was of this type; nothing stands for an unknown one.
    pub fn received_type(&self, kind: Option<MessageType>) {
        let number = kind.map_or(0, |kind| usize::from(kind.number()));
        self.0.received_types[number.min(TYPES - 1)].bump();
    }

    /// A reply of this type left.
    pub fn sent(&self, kind: MessageType) {
        self.0.sent.bump();
        self.0.sent_types[usize::from(kind.number()).min(TYPES - 1)].bump();
    }

    /// A packet or reply was dropped.
    pub fn dropped(&self, reason: DropReason) {
        self.0.drops[reason.index()].bump();
    }

    /// `count` packets or replies were dropped for one reason.
    pub fn dropped_many(&self, reason: DropReason, count: u64) {
        self.0.drops[reason.index()].add(count);
    }

    /// A query went to the shard that owns its client, or was to.
    pub fn handed_over(&self, outcome: Result<(), DropReason>) {
        match outcome {
            Ok(()) => self.0.handed_over.bump(),
            Err(reason) => self.dropped(reason),
        }
    }

    /// The loop turned once.
    pub fn turned(&self) {
        self.0.turns.bump();
    }

    /// A batch with packets was processed.
    pub fn batch(&self) {
        self.0.batches.bump();
    }

    /// Configured options found no room in an answer.
    pub fn options_left_out(&self, count: u64) {
        self.0.options_left_out.add(count);
    }

    /// What the ports of an interface have counted so far, in an order of the caller's; `row` is below [`INTERFACES_COUNTED`].
    pub fn ports_counted(&self, row: usize, counts: &[u64]) {
        for (counter, count) in self.0.ports.get(row).into_iter().flatten().zip(counts) {
            counter.set(*count);
        }
    }

    /// What the ports of an interface had counted when the shard last told, by position.
    #[must_use]
    pub fn port_count(&self, row: usize, position: usize) -> u64 {
        self.0.ports.get(row).and_then(|row| row.get(position)).map_or(0, Counter::read)
    }

    /// Datagrams received.
    #[must_use]
    pub fn received_count(&self) -> u64 {
        self.0.received.read()
    }

    /// Packets received of a type; nothing stands for unknown types.
    #[must_use]
    pub fn received_type_count(&self, kind: Option<MessageType>) -> u64 {
        self.0.received_types[kind.map_or(0, |kind| usize::from(kind.number()))].read()
    }

    /// Replies sent.
    #[must_use]
    pub fn sent_count(&self) -> u64 {
        self.0.sent.read()
    }

    /// Replies sent of a type.
    #[must_use]
    pub fn sent_type_count(&self, kind: MessageType) -> u64 {
        self.0.sent_types[usize::from(kind.number())].read()
    }

    /// Drops for a reason.
    #[must_use]
    pub fn drop_count(&self, reason: DropReason) -> u64 {
        self.0.drops[reason.index()].read()
    }

    /// Turns of the loop: grows while the shard lives.
    #[must_use]
    pub fn turn_count(&self) -> u64 {
        self.0.turns.read()
    }

    /// Queries handed over to their owner.
    #[must_use]
    pub fn hand_over_count(&self) -> u64 {
        self.0.handed_over.read()
    }

    /// Options that found no room.
    #[must_use]
    pub fn options_left_out_count(&self) -> u64 {
        self.0.options_left_out.read()
    }
}

/// The counters of leases at one level: the server, a subnet, or the pools of a subnet that share a `pool-id`.
///
/// `assigned` and `declined` are right from the start on: leases read from disk are counted like new ones, but not in
/// `cumulative_assigned`.
#[derive(Debug, Default)]
pub struct LeaseStats {
    /// Leases in use, declined ones included.
    pub assigned: AtomicI64,
    /// Allocations since the start.
    pub cumulative_assigned: AtomicI64,
    /// Leases in probation.
    pub declined: AtomicI64,
    /// Expired leases reclaimed.
    pub reclaimed: AtomicI64,
    /// Declined leases recovered.
    pub reclaimed_declined: AtomicI64,
    /// Renewals answered from the lease cache.
    pub reuses: AtomicI64,
    /// Reserved addresses found in use by another client.
    pub reservation_conflicts: AtomicI64,
    /// Allocation failures in a shared network.
    pub fail_shared_network: AtomicI64,
    /// Allocation failures in a single subnet.
    pub fail_subnet: AtomicI64,
    /// Allocation failures without a single candidate.
    pub fail_no_pools: AtomicI64,
    /// Allocation failures with candidates.
    pub fail: AtomicI64,
    /// Allocation failures of a packet that had a class.
    pub fail_classes: AtomicI64,
}

impl LeaseStats {
    /// The same counts of what has happened, and no leases.
    #[must_use]
    pub fn without_leases(&self) -> Self {
        let copy = |counter: &AtomicI64| AtomicI64::new(counter.load(Ordering::Relaxed));
        Self {
            assigned: AtomicI64::new(0),
            declined: AtomicI64::new(0),
            cumulative_assigned: copy(&self.cumulative_assigned),
            reclaimed: copy(&self.reclaimed),
            reclaimed_declined: copy(&self.reclaimed_declined),
            reuses: copy(&self.reuses),
            reservation_conflicts: copy(&self.reservation_conflicts),
            fail_shared_network: copy(&self.fail_shared_network),
            fail_subnet: copy(&self.fail_subnet),
            fail_no_pools: copy(&self.fail_no_pools),
            fail: copy(&self.fail),
            fail_classes: copy(&self.fail_classes),
        }
    }
}

/// Adds to a shared counter.
pub fn add(counter: &AtomicI64, count: i64) {
    counter.fetch_add(count, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drops_and_messages_are_counted_apart() {
        let counters = ShardCounters::default();
        counters.received();
        counters.received_type(Some(MessageType::Discover));
        counters.received_type(None);
        counters.dropped(DropReason::NoLease);
        counters.sent(MessageType::Offer);
        assert_eq!(counters.received_count(), 1);
        assert_eq!(counters.received_type_count(Some(MessageType::Discover)), 1);
        assert_eq!(counters.received_type_count(None), 1);
        assert_eq!(counters.drop_count(DropReason::NoLease), 1);
        assert_eq!(counters.sent_type_count(MessageType::Offer), 1);
        assert_eq!(counters.sent_count(), 1);
    }
}
