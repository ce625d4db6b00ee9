//! The free lease queue: whoever has been free longest goes first.
//!
//! Kea fills a queue with every free address. Here the queue of a pool has two parts, neither of which grows with the pool: the
//! addresses not yet come by since the start, as a position in a random order of the pool, and after them a ring of
//! addresses that were freed or offered since. What finds no room in the ring is not lost: an address that is in no queue
//! is found by the search, once queues yield nothing.
//!
//! Each shard feeds its own rings from the leases it gives up. A bit per address says that it is in the ring, so that it is
//! there once at most.

use std::collections::VecDeque;
use std::net::Ipv4Addr;

use super::permutation::Permutation;
use super::{PoolRange, Start, scan_from};
use crate::lease::address::AddressSpace;

/// Longest ring of a pool, 64 KiB.
const RING_COUNT_MAX: u64 = 16_384;
/// Candidates of a queue that a pick tries.
const TRIES: u32 = 8;

#[derive(Debug)]
pub(super) struct Flq {
    queues: Box<[Queue]>,
    /// The pool to start from next, so that pools are drawn on in turn.
    turn: usize,
}

#[derive(Debug)]
struct Queue {
    order: Permutation,
    len: u64,
    /// Positions of the order that are behind us.
    come_by: u64,
    /// Where in the order this shard began; positions wrap.
    began: u64,
    ring: VecDeque<u32>,
    in_ring: Box<[u64]>,
}

impl Flq {
    pub(super) fn new(pools: &[PoolRange], start: Start) -> Self {
        let queue = |range: &PoolRange| {
            let len = range.len();
            let ring_count = usize::try_from(len.min(RING_COUNT_MAX)).expect("bounded");
            Queue {
                // The same order in every shard of a server, from different places on.
                order: Permutation::new(len, 0x0001_f1f0),
                len,
                come_by: 0,
                began: start.within(len),
                ring: VecDeque::with_capacity(ring_count),
                in_ring: vec![0; usize::try_from(len.div_ceil(64)).expect("an address range")]
                    .into_boxed_slice(),
            }
        };
        Self { queues: pools.iter().map(queue).collect(), turn: 0 }
    }

    pub(super) fn pick(
        &mut self,
        pools: &[PoolRange],
        space: &AddressSpace,
        allowed: &impl Fn(usize) -> bool,
    ) -> Option<(usize, Ipv4Addr)> {
        let turn = self.turn;
        let pool_count = pools.len();
        for pool in (turn..pool_count).chain(0..turn) {
            if !allowed(pool) {
                continue;
            }
            if let Some(address) = self.queues[pool].pick(&pools[pool], space) {
                self.turn = (pool + 1) % pool_count;
                return Some((pool, address));
            }
        }
        let pool = turn % pool_count;
        scan_from(pools, space, allowed, pool, pools[pool].first)
    }

    pub(super) fn freed(&mut self, pools: &[PoolRange], address: Ipv4Addr) {
        if let Some(pool) = pools.iter().position(|range| range.contains(address)) {
            self.queues[pool].push(address.to_bits() - pools[pool].first.to_bits());
        }
    }
}

impl Queue {
    /// The front of the queue, moved to its back.
    fn pick(&mut self, range: &PoolRange, space: &AddressSpace) -> Option<Ipv4Addr> {
        for _ in 0..TRIES {
            let offset = self.pop()?;
            let address = range.at(u64::from(offset));
            if space.is_available(address) {
                self.push(offset);
                return Some(address);
            }
        }
        None
    }

    fn pop(&mut self) -> Option<u32> {
        if self.come_by < self.len {
            let offset = self.order.at((self.began + self.come_by) % self.len);
            self.come_by += 1;
            return Some(u32::try_from(offset).expect("an offset in a range of addresses"));
        }
        let offset = self.ring.pop_front()?;
        let (part, bit) = part_and_bit(offset);
        self.in_ring[part] &= !bit;
        Some(offset)
    }

    fn push(&mut self, offset: u32) {
        let (part, bit) = part_and_bit(offset);
        if self.in_ring[part] & bit == 0 && self.ring.len() < self.ring.capacity() {
            self.in_ring[part] |= bit;
            self.ring.push_back(offset);
        }
    }
}

fn part_and_bit(offset: u32) -> (usize, u64) {
    (usize::try_from(offset / 64).expect("widening"), 1 << (offset % 64))
}
