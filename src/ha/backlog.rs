//! Lease changes kept for the partner while it does not answer: first in, first out, bounded per lease.

use std::collections::VecDeque;

use crate::lease::Lease4Buf;

/// What happened to a lease, as a peer is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// It was removed.
    Delete,
    /// It is new or changed (also: released and kept).
    Update,
}

/// What a client has heard of a change that was not sent, or not answered, when it was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Delay {
    /// Its client was told, as no answer was waited for then.
    Told,
    /// Its client was not told: the answer was waited for, in vain.
    Untold,
}

/// A change that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delayed {
    /// What happened.
    pub operation: Operation,
    /// To which lease.
    pub lease: Lease4Buf,
}

/// The queue. Its bound is `delayed-updates-limit`; what does not fit is discarded, and the backlog is overflown until it is cleared.
#[derive(Clone, Debug)]
pub struct Backlog {
    queue: VecDeque<Delayed>,
    limit: usize,
    overflown: bool,
    discarded: u64,
}

impl Backlog {
    /// An empty backlog for `limit` leases.
    #[must_use]
    pub fn new(limit: u32) -> Self {
        // Room is taken as it is needed: the limit may be four thousand million.
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        Self { queue: VecDeque::new(), limit, overflown: false, discarded: 0 }
    }

    /// Appends a change; false when it was discarded.
    pub fn push(&mut self, operation: Operation, lease: Lease4Buf) -> bool {
        if self.queue.len() >= self.limit {
            self.overflown = true;
            self.discarded += 1;
            return false;
        }
        self.queue.push_back(Delayed { operation, lease });
        true
    }

    /// Takes the oldest change out.
    pub fn pop(&mut self) -> Option<Delayed> {
        self.queue.pop_front()
    }

    /// Whether something was discarded since the last [`Backlog::clear`], even if all the rest has been taken out.
    #[must_use]
    pub const fn was_overflown(&self) -> bool {
        self.overflown
    }

    /// Changes that wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// All changes discarded for want of room, since the start.
    #[must_use]
    pub const fn discarded(&self) -> u64 {
        self.discarded
    }

    /// Forgets everything, the mark of overflow too.
    pub fn clear(&mut self) {
        self.queue = VecDeque::new();
        self.overflown = false;
    }
}
