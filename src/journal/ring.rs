//! The log ring of one shard: the shard appends, the log thread drains, and neither waits for the other.
//!
//! The queue is crossbeam's bounded one, in slots of fixed size so that it is allocated once; a record takes as many
//! slots as it needs, all or none.

use std::fmt;
use std::sync::Arc;

use crossbeam::queue::ArrayQueue;

use super::record::{self, RECORD_BYTES_MAX, SLOT_BYTES};
use super::{Change, ChangeOrigin};
use crate::ids::{Lsn, ShardId};

/// Fewest slots of a ring: the longest record fits an empty one.
pub const RING_SLOTS_MIN: usize = RECORD_BYTES_MAX.div_ceil(SLOT_BYTES);

type Slot = [u8; SLOT_BYTES];

/// Why a change was not appended; the lease must stay as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum AppendError {
    /// The ring is full: the disk is behind. The client asks again.
    Full,
    /// Longer than a record can be: a client identifier past 255 octets, or host name and context past 64 KiB.
    TooLong,
    /// Neither hardware address nor client identifier on a lease that is not declined: no reader takes such a row.
    NoIdentity,
}

impl fmt::Display for AppendError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Full => "the lease log is full: the disk is behind",
            Self::TooLong => "the lease is longer than a log record can be",
            Self::NoIdentity => {
                "the lease has neither hardware address nor client identifier and is not declined"
            }
        })
    }
}

impl std::error::Error for AppendError {}

/// Sees every change before its row is written, so that a peer's work overlaps with the disk's.
///
/// Called by the log thread for every change, in log order of each shard. It must not block: what does not fit its
/// own ring it counts and drops, and tells whoever waits for it.
pub trait Tap: Send {
    /// Offers one change.
    fn offer(&mut self, shard: ShardId, lsn: Lsn, origin: ChangeOrigin, change: &Change<'_>);

    /// A group is complete and about to be written: the moment to wake a worker.
    fn group_end(&mut self) {}
}

/// A ring of `slots` (at least [`RING_SLOTS_MIN`]; fewer are rounded up) for shard `shard`.
#[must_use]
pub fn log_ring(shard: ShardId, slots: usize) -> (LogTx, LogRx) {
    let queue = Arc::new(ArrayQueue::new(slots.max(RING_SLOTS_MIN)));
    (
        LogTx { queue: Arc::clone(&queue), appended: Lsn(0), free: 0 },
        LogRx { queue, shard, drained: Lsn(0), record: Vec::with_capacity(SLOT_BYTES), expected: 0 },
    )
}

/// The shard's end of its log ring.
#[derive(Debug)]
pub struct LogTx {
    queue: Arc<ArrayQueue<Slot>>,
    appended: Lsn,
    /// Slots known to be free. The reader only adds to them, so the queue is asked only when this runs out.
    free: usize,
}

impl LogTx {
    /// Appends a change and says its position: 1 for the first, one more for each. All or nothing.
    ///
    /// # Errors
    /// The ring is full, or the change cannot be a row; nothing was appended and no position used.
    #[inline(always)]
    pub fn append(&mut self, change: &Change<'_>, origin: ChangeOrigin) -> Result<Lsn, AppendError> {
        if let Change::Put(lease) = change
            && lease.is_of_nobody()
        {
            return Err(AppendError::NoIdentity);
        }
        let bytes = record::record_bytes(change).ok_or(AppendError::TooLong)?;
        let slot_count = bytes.div_ceil(SLOT_BYTES);
        if !self.has_room(slot_count) {
            return Err(AppendError::Full);
        }
        self.free -= slot_count;
        let mut slot = [0; SLOT_BYTES];
        let mut at = record::write_fixed(change, origin, bytes, &mut slot);
        for part in record::long_parts(change) {
            let mut rest = part;
            while !rest.is_empty() {
                if at == SLOT_BYTES {
                    self.push(slot);
                    slot = [0; SLOT_BYTES];
                    at = 0;
                }
                let count = rest.len().min(SLOT_BYTES - at);
                slot[at..at + count].copy_from_slice(&rest[..count]);
                at += count;
                rest = &rest[count..];
            }
        }
        self.push(slot);
        self.appended.0 += 1;
        Ok(self.appended)
    }

    /// Whether `slot_count` slots are free now: a record with a short name needs one.
    #[inline]
    pub fn has_room(&mut self, slot_count: usize) -> bool {
        if self.free < slot_count {
            self.free = self.queue.capacity() - self.queue.len();
        }
        self.free >= slot_count
    }

    /// The position of the last change appended.
    #[must_use]
    pub const fn appended(&self) -> Lsn {
        self.appended
    }

    #[inline(always)]
    fn push(&self, slot: Slot) {
        let pushed = self.queue.push(slot);
        assert!(pushed.is_ok(), "only this end adds slots, and it has counted the free ones");
    }
}

/// The log thread's end of a shard's log ring.
#[derive(Debug)]
pub struct LogRx {
    queue: Arc<ArrayQueue<Slot>>,
    shard: ShardId,
    drained: Lsn,
    /// The part of a record of several slots that has arrived, and how long it will be.
    record: Vec<u8>,
    expected: usize,
}

impl LogRx {
    /// Whose ring this is.
    #[must_use]
    pub const fn shard(&self) -> ShardId {
        self.shard
    }

    /// The position of the last change drained.
    #[must_use]
    pub const fn drained(&self) -> Lsn {
        self.drained
    }

    /// Whether there is nothing to drain now.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Hands up to `limit` changes to `take`, in order, and says how many.
    pub fn drain(&mut self, limit: usize, mut take: impl FnMut(Lsn, ChangeOrigin, &Change<'_>)) -> usize {
        let mut count = 0;
        while count < limit {
            let Some(slot) = self.queue.pop() else { break };
            if self.expected == 0 {
                let bytes = record::bytes_of(&slot);
                if bytes <= SLOT_BYTES {
                    self.drained.0 += 1;
                    let (origin, change) = record::read(&slot[..bytes]);
                    take(self.drained, origin, &change);
                    count += 1;
                    continue;
                }
                self.expected = bytes;
                self.record.clear();
            }
            // The writer may still be adding the later slots: what has come is kept until the next call.
            let count_missing = self.expected - self.record.len();
            self.record.extend_from_slice(&slot[..count_missing.min(SLOT_BYTES)]);
            if self.record.len() == self.expected {
                self.expected = 0;
                self.drained.0 += 1;
                let (origin, change) = record::read(&self.record);
                take(self.drained, origin, &change);
                count += 1;
            }
        }
        count
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::ids::{HwAddr, SubnetId};
    use crate::lease::{Lease4, LeaseState};

    fn lease<'a>(last: u8, hostname: &'a [u8], user_context: &'a [u8]) -> Lease4<'a> {
        Lease4 {
            address: Ipv4Addr::new(192, 0, 2, last),
            hw_addr: HwAddr::ethernet([2, 0, 0, 0, 0, last]),
            client_id: &[1, 2, 3],
            cltt: 1_795_422_492,
            valid_lft: u32::MAX,
            subnet_id: SubnetId(7),
            pool_id: 9,
            state: LeaseState::Released,
            fqdn_fwd: true,
            fqdn_rev: false,
            hostname,
            user_context,
        }
    }

    #[test]
    fn changes_come_out_as_they_went_in_with_positions_from_one() {
        let (mut tx, mut rx) = log_ring(ShardId(3), 0);
        let long = vec![b'x'; 5000];
        let changes = [
            Change::Put(lease(1, b"a", b"")),
            Change::Delete(lease(2, &long, b"{ }")),
            Change::Put(lease(3, &long[..65], b"")),
            Change::Put(lease(4, &long[..66], b"")),
        ];
        for (index, change) in (1..).zip(&changes) {
            assert_eq!(tx.append(change, ChangeOrigin::Partner), Ok(Lsn(index)));
        }
        let mut seen = 0;
        let count = rx.drain(10, |lsn, origin, change| {
            assert_eq!((origin, change), (ChangeOrigin::Partner, &changes[seen]));
            seen += 1;
            assert_eq!(lsn, Lsn(u64::try_from(seen).expect("few")));
        });
        assert_eq!((count, rx.drained(), rx.shard(), rx.is_empty()), (4, Lsn(4), ShardId(3), true));
    }

    #[test]
    fn a_change_is_appended_whole_or_not_at_all() {
        let (mut tx, mut rx) = log_ring(ShardId(0), 0);
        let long = vec![b'x'; 40_000];
        assert_eq!(tx.append(&Change::Put(lease(1, &long, b"")), ChangeOrigin::Client), Ok(Lsn(1)));
        let second = Change::Put(lease(2, &long, b""));
        assert_eq!(tx.append(&second, ChangeOrigin::Client), Err(AppendError::Full));
        assert_eq!(tx.append(&Change::Put(lease(3, b"", b"")), ChangeOrigin::Client), Ok(Lsn(2)));
        assert_eq!(rx.drain(1, |_, _, _| ()), 1);
        assert_eq!(tx.append(&second, ChangeOrigin::Client), Ok(Lsn(3)));
        assert_eq!(rx.drain(10, |_, _, _| ()), 2);
    }

    #[test]
    fn what_cannot_be_a_row_is_refused_before_it_takes_a_position() {
        let (mut tx, _rx) = log_ring(ShardId(0), 0);
        let huge = vec![b'x'; 70_000];
        assert_eq!(
            tx.append(&Change::Put(lease(1, &huge, b"")), ChangeOrigin::Client),
            Err(AppendError::TooLong)
        );
        let nobody =
            Lease4 { hw_addr: HwAddr::new(1, &[]).expect("empty"), client_id: &[], ..lease(1, b"", b"") };
        assert_eq!(tx.append(&Change::Put(nobody), ChangeOrigin::Client), Err(AppendError::NoIdentity));
        let declined = Lease4 { state: LeaseState::Declined, ..nobody };
        assert_eq!(tx.append(&Change::Put(declined), ChangeOrigin::Client), Ok(Lsn(1)));
        assert_eq!(tx.appended(), Lsn(1));
    }

    #[test]
    fn a_record_that_is_still_being_appended_waits_for_its_rest() {
        let (mut tx, mut rx) = log_ring(ShardId(0), 0);
        let long = vec![b'y'; 3000];
        let writer = std::thread::spawn(move || {
            for index in 0..2000u32 {
                let name = &long[..usize::try_from(index * 7 % 3000).expect("small")];
                let change = Change::Put(Lease4 { pool_id: index, ..lease(1, name, b"") });
                while tx.append(&change, ChangeOrigin::Client) == Err(AppendError::Full) {
                    std::hint::spin_loop();
                }
            }
        });
        let mut next = 0;
        while next < 2000 {
            rx.drain(16, |_, _, change| {
                let Change::Put(lease) = change else { panic!("only puts were appended") };
                assert_eq!(lease.pool_id, next);
                assert_eq!(lease.hostname.len(), usize::try_from(next * 7 % 3000).expect("small"));
                next += 1;
            });
        }
        writer.join().expect("the writer ended well");
    }
}
