//! The ends of leases: what comes round in the wheel, what waits to be reclaimed or removed.

use super::record::Record;
use super::wheel::{self, FLUSH, RECLAIM, Verdict};
use super::{Due, LeaseTable, RETRY_S};
use crate::ids::LeaseRef;
use crate::lease::{LIFETIME_INFINITE_S, LeaseState};

impl LeaseTable {
    /// Turns the wheel to `now_s` and reports leases whose time has come, at most `count_max` of them, about oldest first.
    /// True when there is more to do at once. Each is reported once; it then waits to be reclaimed or flushed.
    pub fn expire(&mut self, now_s: u64, count_max: u32, due: &mut dyn FnMut(Due)) -> bool {
        let Self { slab, wheel, hold_s, .. } = self;
        wheel.turn(slab, now_s, count_max, |slab, slot| {
            let record = &slab[slot];
            match due_of(record, *hold_s) {
                None => Verdict::Never,
                Some(due_s) if due_s > now_s => Verdict::Later(due_s),
                Some(_) if record.state() == LeaseState::Reclaimed => {
                    due(Due::Held(LeaseRef(slot)));
                    Verdict::Due(FLUSH)
                }
                Some(_) => {
                    due(Due::Expired(LeaseRef(slot)));
                    Verdict::Due(RECLAIM)
                }
            }
        })
    }

    /// Starts loading one more of the leases that the next second's [`Self::expire`] will look at: to be called now and then until it comes.
    #[inline(always)]
    pub fn scout(&mut self) {
        self.wheel.scout(&self.slab);
    }

    /// The expired lease that waits longest to be reclaimed. The caller reclaims or removes it; if it does neither, the lease
    /// comes round again in a minute. Leases that were renewed since go back into the wheel, at most 64 per call.
    pub fn next_to_reclaim(&mut self, now_s: u64) -> Option<LeaseRef> {
        self.next_of(RECLAIM, now_s)
    }

    /// The reclaimed lease that waits longest to be removed; otherwise as [`Self::next_to_reclaim`].
    pub fn next_to_flush(&mut self, now_s: u64) -> Option<LeaseRef> {
        self.next_of(FLUSH, now_s)
    }

    fn next_of(&mut self, queue: usize, now_s: u64) -> Option<LeaseRef> {
        for _ in 0..64 {
            let slot = self.wheel.front(queue)?;
            self.wheel.unlink(&mut self.slab, slot);
            let record = &self.slab[slot];
            let in_right_queue = (record.state() == LeaseState::Reclaimed) == (queue == FLUSH);
            match due_of(record, self.hold_s) {
                None => {}
                Some(due_s) if due_s <= now_s && in_right_queue => {
                    self.wheel.link_again(&mut self.slab, slot, now_s + RETRY_S);
                    return Some(LeaseRef(slot));
                }
                Some(due_s) => self.wheel.link(&mut self.slab, slot, due_s),
            }
        }
        None
    }

    /// Links a new record into the wheel.
    pub(super) fn link(&mut self, slot: u32) {
        if let Some(due_s) = due_of(&self.slab[slot], self.hold_s) {
            self.wheel.link(&mut self.slab, slot, due_s);
        }
    }

    /// Keeps the wheel's promise, that no lease sits later than it is due, after a change from `old`.
    pub(super) fn relink(&mut self, slot: u32, old: &Record) {
        let new_due = due_of(&self.slab[slot], self.hold_s);
        let old_due = due_of(old, self.hold_s);
        let sooner = match (old_due, new_due) {
            (_, None) => false,
            (None, Some(_)) => true,
            (Some(old), Some(new)) => new < old,
        };
        // A change of state also changes the queue that a lease belongs in; one that was in a queue starts over.
        if sooner || old.state() != self.slab[slot].state() || wheel::is_queued(old) {
            self.wheel.unlink(&mut self.slab, slot);
            self.link(slot);
        }
    }
}

/// The second in which a lease needs attention: the first after its end, for a reclaimed one the end of its holding.
fn due_of(record: &Record, hold_s: u64) -> Option<u64> {
    match record.state() {
        // Reclaimed by its time or by command: what is kept is kept from its end on.
        LeaseState::Reclaimed if record.valid_lft != LIFETIME_INFINITE_S => Some(record.expire() + hold_s),
        _ if record.valid_lft == LIFETIME_INFINITE_S => None,
        _ => Some(record.expire() + 1),
    }
}

/// Whether a renewed lease must be linked anew.
pub(super) fn must_relink(old: &Record, new: &Record) -> bool {
    wheel::is_queued(old) || old.valid_lft == LIFETIME_INFINITE_S || new.expire() < old.expire()
}
