//! Addresses that open to other shards when a row is durable: one bounded queue per shard.

use std::collections::VecDeque;
use std::net::Ipv4Addr;

use super::{AddressSpace, Ticket};
use crate::ids::Lsn;

/// The queue is full: the caller gives up the lease later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetiringFull;

impl std::fmt::Display for RetiringFull {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("too many given-up addresses wait for their rows to be durable")
    }
}

impl std::error::Error for RetiringFull {}

/// First in, first out, by log position. No allocation after construction.
#[derive(Debug)]
pub struct Retiring {
    queue: VecDeque<(Lsn, Ticket)>,
    count_max: usize,
}

impl Retiring {
    /// A queue of at most `count_max` addresses.
    #[must_use]
    pub fn new(count_max: usize) -> Self {
        Self { queue: VecDeque::with_capacity(count_max), count_max }
    }

    /// Whether [`Self::wait`] would refuse: ask before the row is written.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.queue.len() >= self.count_max
    }

    /// Number of addresses that wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// Whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// The position that the first of them waits for.
    #[must_use]
    pub fn first(&self) -> Option<Lsn> {
        self.queue.front().map(|(lsn, _)| *lsn)
    }

    /// Opens the address of `ticket` once `lsn` is durable: free after [`AddressSpace::begin_retire`], stealable after
    /// [`AddressSpace::begin_lend`]. Positions must not go back.
    ///
    /// # Errors
    /// [`RetiringFull`]: nothing has changed; the address stays closed until it is given up again.
    pub fn wait(&mut self, lsn: Lsn, ticket: Ticket) -> Result<(), RetiringFull> {
        if self.is_full() {
            return Err(RetiringFull);
        }
        debug_assert!(self.queue.back().is_none_or(|(last, _)| *last <= lsn), "positions must not go back");
        self.queue.push_back((lsn, ticket));
        Ok(())
    }

    /// Opens the addresses whose rows are durable, at most `count_max` per call, and names each that opened (for
    /// [`crate::allocate`]'s queues). Tickets that are void by now, because the owner used the address again, do nothing.
    pub fn settle(
        &mut self,
        durable: Lsn,
        space: &AddressSpace,
        count_max: usize,
        mut opened: impl FnMut(Ipv4Addr),
    ) {
        for _ in 0..count_max {
            let Some((_, ticket)) = self.queue.pop_front_if(|(lsn, _)| *lsn <= durable) else { return };
            if space.settle(ticket) {
                opened(ticket.address());
            }
        }
    }
}
