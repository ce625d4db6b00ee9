//! Lease updates on their way from the log to a worker, and what has become of them.
//!
//! Promises: nothing here waits but [`UpdateQueue::wait`]; a queue holds at most [`QUEUE_MAX`] updates.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crossbeam::channel::{Receiver, Sender, unbounded};

use crate::ha::backlog::{Delay, Operation};
use crate::ids::{Lsn, ShardId};
use crate::lease::Lease4Buf;

/// Changes that may wait for one worker.
pub const QUEUE_MAX: usize = 8192;

/// A change on its way to a peer.
pub struct Update {
    /// The shard that made it.
    pub shard: ShardId,
    /// Its position there; 0 for one that nobody waits for.
    pub lsn: Lsn,
    /// What happened.
    pub operation: Operation,
    /// To which lease.
    pub lease: Lease4Buf,
    /// How many copies of all leases the partner had begun when it was queued.
    pub copies: u64,
    /// It is late.
    pub delay: Option<Delay>,
}

/// What a peer has answered of one shard's changes.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Everything up to here is answered, or was never sent.
    mark: Lsn,
    /// Of the changes after that, in their order, whether the answer is missing. The first one's is.
    missing: VecDeque<bool>,
}

impl Progress {
    /// Everything up to here is answered, or was never sent.
    pub(super) const fn mark(&self) -> Lsn {
        self.mark
    }

    /// The next change of the log goes by.
    pub(super) fn pass(&mut self, lsn: Lsn, is_sent: bool) {
        if self.missing.is_empty() {
            self.mark = Lsn(if is_sent { lsn.0.saturating_sub(1) } else { lsn.0 });
            self.missing.extend(is_sent.then_some(true));
        } else {
            debug_assert_eq!(lsn.0, self.mark.0 + self.missing.len() as u64 + 1, "positions have no gaps");
            self.missing.push_back(is_sent);
        }
    }

    pub(super) fn answer(&mut self, lsn: Lsn) {
        let place = lsn.0.checked_sub(self.mark.0 + 1).and_then(|place| usize::try_from(place).ok());
        if let Some(missing) = place.and_then(|place| self.missing.get_mut(place)) {
            *missing = false;
        }
        while self.missing.front() == Some(&false) {
            self.missing.pop_front();
            self.mark.0 += 1;
        }
    }
}

/// The log thread's end of a worker's queue.
pub(super) struct QueueEntrance {
    groups: Sender<Vec<Update>>,
    count: Arc<AtomicUsize>,
}

impl QueueEntrance {
    /// Adds updates all at once; those that find no room come back.
    pub(super) fn push(&self, mut updates: Vec<Update>) -> Vec<Update> {
        let room = QUEUE_MAX.saturating_sub(self.count.load(Ordering::Acquire));
        let refused = if updates.len() > room { updates.split_off(room) } else { Vec::new() };
        if !updates.is_empty() {
            self.count.fetch_add(updates.len(), Ordering::AcqRel);
            // The worker lives as long as its queue.
            let _ = self.groups.send(updates);
        }
        refused
    }
}

/// A worker's end of its queue. Updates come in the groups in which the log writes them, so that whoever wakes finds a whole group, and
/// what comes while a POST is under way is there for the next one.
pub struct UpdateQueue {
    groups: Receiver<Vec<Update>>,
    group: std::vec::IntoIter<Update>,
    count: Arc<AtomicUsize>,
}

impl UpdateQueue {
    /// Takes what one command carries, `limit` at most: what is late goes by itself.
    pub fn take_alike(&mut self, limit: usize, into: &mut Vec<Update>) {
        let before = into.len();
        while into.len() - before < limit
            && let Some(next) = self.peek()
            && into.last().is_none_or(|last| last.delay == next.delay)
        {
            into.extend(self.group.next());
        }
        self.count.fetch_sub(into.len() - before, Ordering::AcqRel);
    }

    fn peek(&mut self) -> Option<&Update> {
        while self.group.as_slice().is_empty() {
            self.group = self.groups.try_recv().ok()?.into_iter();
        }
        self.group.as_slice().first()
    }

    /// Takes what is there, `limit` at most.
    pub fn take(&mut self, limit: usize, into: &mut Vec<Update>) {
        let before = into.len();
        while into.len() - before < limit {
            if let Some(update) = self.group.next() {
                into.push(update);
            } else if let Ok(group) = self.groups.try_recv() {
                self.group = group.into_iter();
            } else {
                break;
            }
        }
        self.count.fetch_sub(into.len() - before, Ordering::AcqRel);
    }

    /// Waits until there is something; false when nothing will ever come.
    pub fn wait(&mut self) -> bool {
        if self.group.as_slice().is_empty() {
            let Ok(group) = self.groups.recv() else { return false };
            self.group = group.into_iter();
        }
        true
    }
}

/// A queue.
pub(super) fn queue() -> (QueueEntrance, UpdateQueue) {
    let (sender, receiver) = unbounded();
    let count = Arc::new(AtomicUsize::new(0));
    let entrance = QueueEntrance { groups: sender, count: Arc::clone(&count) };
    (entrance, UpdateQueue { groups: receiver, group: Vec::new().into_iter(), count })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::lease::Lease4;

    fn update(lsn: u64) -> Update {
        let lease = Lease4::sample([192, 0, 2, 1].into());
        Update {
            shard: ShardId(0),
            lsn: Lsn(lsn),
            operation: Operation::Update,
            lease: lease.to_owned(),
            copies: 0,
            delay: None,
        }
    }

    fn updates(lsns: std::ops::Range<u64>) -> Vec<Update> {
        lsns.map(update).collect()
    }

    #[test]
    fn what_is_late_goes_by_itself() {
        let (entrance, mut queue) = queue();
        let late = |delay| Update { delay, ..update(0) };
        for group in [
            vec![late(Some(Delay::Told)), late(Some(Delay::Told))],
            updates(1..3),
            updates(3..4),
            vec![late(Some(Delay::Untold))],
        ] {
            assert!(entrance.push(group).is_empty());
        }
        for (limit, expected) in [
            (9, vec![Some(Delay::Told); 2]),
            (2, vec![None; 2]),
            (9, vec![None]),
            (9, vec![Some(Delay::Untold)]),
            (9, vec![]),
        ] {
            let mut taken = Vec::new();
            queue.take_alike(limit, &mut taken);
            assert_eq!(taken.iter().map(|update| update.delay).collect::<Vec<_>>(), expected);
        }
        assert_eq!(entrance.count.load(Ordering::Acquire), 0, "room for all again");
    }

    #[test]
    fn the_mark_is_before_the_first_change_without_an_answer_in_whatever_order_answers_come() {
        let mut random = 1u64;
        let mut draw = |below: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) % below
        };
        let (mut progress, mut open, mut last) = (Progress::default(), BTreeSet::new(), 0);
        for _ in 0..20_000 {
            if draw(2) == 0 {
                last += 1;
                let is_sent = draw(3) > 0;
                progress.pass(Lsn(last), is_sent);
                if is_sent {
                    open.insert(last);
                }
            } else if last > 0 {
                // Also what was answered before, and what was never sent.
                let lsn = last - draw(last.min(40));
                progress.answer(Lsn(lsn));
                open.remove(&lsn);
            }
            let expected = open.first().map_or(last, |first| first - 1);
            assert_eq!(progress.mark(), Lsn(expected));
        }
        assert!(last > 9000 && open.len() < 5000);
    }

    #[test]
    fn whoever_waits_finds_the_whole_group_and_order_stays() {
        let (entrance, mut queue) = queue();
        assert!(entrance.push(updates(1..4)).is_empty());
        assert!(entrance.push(updates(4..6)).is_empty());
        assert!(queue.wait());
        let mut taken = Vec::new();
        queue.take(2, &mut taken);
        queue.take(usize::MAX, &mut taken);
        assert_eq!(taken.iter().map(|update| update.lsn.0).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
        queue.take(1, &mut taken);
        assert_eq!(taken.len(), 5);
        drop(entrance);
        assert!(!queue.wait(), "nothing will ever come");
    }

    #[test]
    fn what_finds_no_room_comes_back_and_there_is_room_again_for_what_was_taken() {
        let (entrance, mut queue) = queue();
        let most = QUEUE_MAX as u64;
        assert!(entrance.push(updates(0..most - 1)).is_empty());
        let refused = entrance.push(updates(most..most + 3));
        assert_eq!(refused.iter().map(|update| update.lsn.0).collect::<Vec<_>>(), [most + 1, most + 2]);
        let mut taken = Vec::new();
        queue.take(2, &mut taken);
        assert!(entrance.push(updates(0..2)).is_empty());
        assert_eq!(entrance.push(updates(0..1)).len(), 1);
    }
}
