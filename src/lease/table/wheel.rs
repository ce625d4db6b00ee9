//! When a lease needs attention: a wheel of one slot per second, and two queues of those whose time has come.
//!
//! The lists run through the records (`next`, `prev`). A renewal does not move its lease: when the slot comes round the true
//! time decides, and a lease that is not due goes into a later slot. The invariant is that no lease sits later than it is
//! due, so whatever makes a lease end sooner links it anew. Leases further away than the wheel reaches wait in its far
//! quarter, spread by their slot numbers so that a million of them loaded at once do not come round in one second.
//!
//! The wheel turns by the wall clock. A jump forward makes many slots due at once: each call has a cap and goes on where the
//! last one stopped. A jump back moves the cursor back: leases are then looked at early, never late.

use super::record::Record;
use super::slab::{NIL, Slab};

/// Seconds that the wheel reaches: some 12 days, longer than nearly every lifetime. A lease that it does not reach is looked at again and
/// again before its time, at random places in memory.
const SLOTS: usize = 1 << 20;
const SLOTS_S: u64 = SLOTS as u64;
/// Records looked at in one call for each that is due, at most.
const LOOKS_PER_DUE: u32 = 4;
/// `prev` of the first record of a list: this bit and the list's number.
const HEAD: u32 = 1 << 31;
/// This bit of `prev` is set in records that may sit later than they will be due: those in a queue, and those that were taken
/// from one and left alone. A change links them anew.
const QUEUED: u32 = 1 << 30;
/// `prev` of a record in no list.
const UNLINKED: u32 = u32::MAX;

/// A list: a slot of the wheel or one of the queues.
type List = usize;
const QUEUES: usize = 2;
/// Expired, waiting to be reclaimed.
pub(super) const RECLAIM: List = SLOTS;
/// Reclaimed and held long enough, waiting to be removed.
pub(super) const FLUSH: List = SLOTS + 1;
/// Linked when they were due already: looked at first. They have no slot, because the clock may go back behind it.
const OVERDUE: List = SLOTS + 2;
const LISTS: usize = SLOTS + 3;

pub(super) struct Wheel {
    /// The first record of each list, inverted: an empty one is zero, and the kernel gives zeros without memory behind them until a list
    /// is used. Leases of two hours use some 30 kB at a time.
    heads: Box<[u32]>,
    tails: [u32; QUEUES],
    occupied: Box<[u64]>,
    /// The second up to which slots have been emptied.
    cursor_s: u64,
    /// How far [`Self::scout`] has come in the list of the next second.
    scouted: u32,
}

/// What a record that came round turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Its time has come: into this queue.
    Due(List),
    /// Not before this second.
    Later(u64),
    /// Never.
    Never,
}

/// What is left of a call's cap.
struct Budget {
    due: u32,
    looks: u32,
}

impl Wheel {
    pub(super) fn new(now_s: u64) -> Self {
        Self {
            heads: vec![!NIL; LISTS].into_boxed_slice(),
            tails: [NIL; QUEUES],
            occupied: vec![0; SLOTS / 64].into_boxed_slice(),
            cursor_s: now_s,
            scouted: NIL,
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.heads.len() * size_of::<u32>() + self.occupied.len() * size_of::<u64>()
    }

    /// The first record of a queue.
    pub(super) fn front(&self, queue: List) -> Option<u32> {
        let head = self.head(queue);
        (head != NIL).then_some(head)
    }

    fn head(&self, list: List) -> u32 {
        !self.heads[list]
    }

    fn set_head(&mut self, list: List, slot: u32) {
        self.heads[list] = !slot;
    }

    /// Links an unlinked record so that it comes round at `due_s` or before.
    pub(super) fn link(&mut self, slab: &mut Slab, slot: u32, due_s: u64) {
        let list = match due_s.saturating_sub(self.cursor_s) {
            0 => OVERDUE,
            near if near < SLOTS_S => list_of(due_s),
            _ => list_of(self.cursor_s + SLOTS_S - 1 - u64::from(slot) % (SLOTS_S / 4)),
        };
        let head = self.head(list);
        assert!(slab[slot].prev == UNLINKED, "a record is in one list at most");
        slab[slot].next = head;
        slab[slot].prev = head_mark(list);
        if head != NIL {
            slab[head].prev = slot | slab[head].prev & QUEUED;
        }
        self.set_head(list, slot);
        if list < SLOTS {
            self.occupied[list / 64] |= 1 << (list % 64);
        }
    }

    /// Links a record that was taken from a queue, to come round in case nothing is done about it.
    pub(super) fn link_again(&mut self, slab: &mut Slab, slot: u32, retry_s: u64) {
        self.link(slab, slot, retry_s);
        slab[slot].prev |= QUEUED;
    }

    /// Takes a record out of its list, if it is in one.
    pub(super) fn unlink(&mut self, slab: &mut Slab, slot: u32) {
        let Record { next, prev, .. } = slab[slot];
        if prev == UNLINKED {
            return;
        }
        let before = prev & !QUEUED;
        if before & HEAD == 0 {
            slab[before].next = next;
        } else {
            let list = usize::try_from(before & !HEAD).expect("usize holds 32 bits");
            self.set_head(list, next);
            if next == NIL && list < SLOTS {
                self.occupied[list / 64] &= !(1 << (list % 64));
            }
        }
        if next != NIL {
            slab[next].prev = before | slab[next].prev & QUEUED;
        }
        for queue in 0..QUEUES {
            if self.tails[queue] == slot {
                self.tails[queue] = if before & HEAD == 0 { before } else { NIL };
            }
        }
        slab[slot].next = NIL;
        slab[slot].prev = UNLINKED;
    }

    fn enqueue(&mut self, slab: &mut Slab, slot: u32, queue: List) {
        let tail = self.tails[queue - SLOTS];
        slab[slot].next = NIL;
        if tail == NIL {
            slab[slot].prev = head_mark(queue) | QUEUED;
            self.set_head(queue, slot);
        } else {
            slab[slot].prev = tail | QUEUED;
            slab[tail].next = slot;
        }
        self.tails[queue - SLOTS] = slot;
    }

    /// Turns the wheel to `now_s`: every record that comes round is judged. Stops when `due_count_max` were due or too many
    /// looked at; then the answer is true, and the next call goes on.
    pub(super) fn turn(
        &mut self,
        slab: &mut Slab,
        now_s: u64,
        due_count_max: u32,
        mut judge: impl FnMut(&mut Slab, u32) -> Verdict,
    ) -> bool {
        let mut budget =
            Budget { due: due_count_max, looks: due_count_max.saturating_mul(LOOKS_PER_DUE).max(64) };
        // A clock that went back takes the cursor along; one that went far ahead makes every slot due once.
        let before_s = self.cursor_s;
        self.cursor_s = self.cursor_s.min(now_s).max(now_s.saturating_sub(SLOTS_S - 1));
        if !self.empty(slab, OVERDUE, &mut budget, &mut judge) {
            return true;
        }
        while let Some(second) = self.next_occupied(now_s) {
            self.cursor_s = second;
            if !self.empty(slab, list_of(second), &mut budget, &mut judge) {
                return true;
            }
        }
        self.cursor_s = now_s;
        if before_s != now_s {
            self.scouted = self.head(list_of(now_s + 1));
            slab.prefetch(self.scouted);
        }
        false
    }

    /// Starts loading one more record of those that come round in the next second. A list is a chain, each link of it a miss: whoever goes
    /// along it while there is other work waits for none. It may be led astray by changes meanwhile, which costs time and nothing else.
    #[inline(always)]
    pub(super) fn scout(&mut self, slab: &Slab) {
        if self.scouted != NIL {
            self.scouted = slab.next_of(self.scouted);
            slab.prefetch(self.scouted);
        }
    }

    /// Judges the records of a list until it is empty; false when the budget is used up before.
    fn empty(
        &mut self,
        slab: &mut Slab,
        list: List,
        budget: &mut Budget,
        judge: &mut impl FnMut(&mut Slab, u32) -> Verdict,
    ) -> bool {
        loop {
            let slot = self.head(list);
            if slot == NIL {
                return true;
            }
            if budget.due == 0 || budget.looks == 0 {
                return false;
            }
            budget.looks -= 1;
            self.unlink(slab, slot);
            slab.prefetch(self.head(list));
            match judge(slab, slot) {
                Verdict::Due(queue) => {
                    self.enqueue(slab, slot, queue);
                    budget.due -= 1;
                }
                // Later than now, and so behind the cursor's own slot.
                Verdict::Later(due_s) => self.link(slab, slot, due_s),
                Verdict::Never => {}
            }
        }
    }

    /// The first second from the cursor to `now_s` whose slot holds something.
    fn next_occupied(&self, now_s: u64) -> Option<u64> {
        let mut second = self.cursor_s;
        while second <= now_s {
            let list = list_of(second);
            let word = self.occupied[list / 64] >> (list % 64);
            if word != 0 {
                let found = second + u64::from(word.trailing_zeros());
                return (found <= now_s).then_some(found);
            }
            second += u64::try_from(64 - list % 64).expect("at most 64");
        }
        None
    }
}

/// Whether a record must be linked anew when it changes, however it does.
pub(super) fn is_queued(record: &Record) -> bool {
    record.prev != UNLINKED && record.prev & QUEUED != 0
}

fn list_of(second: u64) -> List {
    usize::try_from(second % SLOTS_S).expect("below the number of slots")
}

fn head_mark(list: List) -> u32 {
    HEAD | u32::try_from(list).expect("21 bits")
}
