//! The leases of one shard: a slab of records, an index over client identifiers and hardware addresses, a wheel of ends.
//!
//! A [`LeaseTable`] belongs to one shard and is used by its thread alone. It knows nothing of who may have an address
//! ([`super::address`]), of subnets or of rules; it stores, finds, ages and counts.
//!
//! A batch goes through it in stages, so that memory is waited for once per batch and not once per packet:
//! [`LeaseTable::prefetch`] for every query, then [`LeaseTable::prefetch_record`] for every query, then the lookups.
//!
//! Promises: no allocation after construction; memory comes as [`Part`]s that the control thread makes when the table
//! [wants](LeaseTable::wants) them. No operation is longer than a chain of 32 buckets plus a few buckets of a move under
//! way. No panic on any lease; a [`LeaseRef`] that the table has not given out or has taken back is a bug of the caller
//! and panics. Bounds: records, bytes of long parts, both given at construction ([`TableLimits`]).
//!
//! Times: seconds since the Unix epoch. The record holds 32 bits of them.

mod blob;
mod index;
mod prefetch;
mod record;
mod slab;
mod wheel;

use std::fmt;
use std::hash::Hasher;

use siphasher::sip::SipHasher13;

use self::blob::{Arena, BlobRef, Parts};
use self::index::{Entry, Index, IndexError};
use self::record::{Flag, POOL_ID_IN_BLOB};
use self::slab::Slab;
use self::wheel::{FLUSH, RECLAIM, Verdict, Wheel};
use super::{LIFETIME_INFINITE_S, Lease4, LeaseState};
use crate::ids::{CLIENT_ID_BYTES_MAX, HW_ADDR_BYTES_MAX, HwAddr, LeaseRef, Lsn};

pub use self::blob::BlobChunk;
pub use self::index::{BucketArray, KeyHash};
pub use self::record::Record;
pub use self::slab::RecordChunk;

/// Most leases in one table.
pub const RECORDS_MAX: usize = index::SLOTS_MAX;
/// Longest sum of the octets of a lease that do not fit its record.
pub const LONG_PARTS_BYTES_MAX: usize = blob::PARTS_BYTES_MAX;
/// Buckets that every insertion and removal moves while the index grows.
const MOVE_BUCKETS_PER_CHANGE: usize = 4;
/// Seconds after which an expired lease that its taker left alone comes round again.
const RETRY_S: u64 = 60;

/// The size of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableLimits {
    /// Most leases ever, rounded up to chunks of 65,536; at most [`RECORDS_MAX`].
    pub record_count_max: usize,
    /// Leases to expect at first: memory for so many is there after construction.
    pub record_count: usize,
    /// Most bytes of long parts (host names, long identifiers, contexts), rounded up to chunks of 2 MiB.
    pub blob_bytes_max: usize,
}

/// Memory that a table would like to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// Room for more leases.
    Records,
    /// A larger index.
    Buckets {
        /// Number of buckets of 64 bytes.
        bucket_count: usize,
    },
    /// Room for more long parts.
    Blobs,
}

impl Want {
    /// Allocates what is wanted: control thread only.
    #[must_use]
    pub fn allocate(self) -> Part {
        match self {
            Self::Records => Part::Records(RecordChunk::allocate()),
            Self::Buckets { bucket_count } => Part::Buckets(BucketArray::allocate(bucket_count)),
            Self::Blobs => Part::Blobs(BlobChunk::allocate()),
        }
    }
}

/// Memory on its way into a table, or out of it.
#[derive(Debug)]
pub enum Part {
    /// See [`Want::Records`].
    Records(RecordChunk),
    /// See [`Want::Buckets`].
    Buckets(BucketArray),
    /// See [`Want::Blobs`].
    Blobs(BlobChunk),
}

/// Where a lease comes from: whether the type of its hardware address can be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// From the client itself.
    Client,
    /// From a lease file or a partner, where type 1 stands for "not said". An address that is not six octets long, and
    /// so cannot be Ethernet, then matches whatever its type.
    Record,
}

/// Why a lease is not stored. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum TableError {
    /// As many leases as there is room for now.
    RecordsFull,
    /// The index has no room now.
    IndexFull,
    /// The memory of long parts is used up now.
    BlobsFull,
    /// The client identifier has more than [`CLIENT_ID_BYTES_MAX`] octets.
    ClientIdTooLong,
    /// Host name and context together have more octets than a lease can hold ([`LONG_PARTS_BYTES_MAX`]).
    PartsTooLong,
    /// `cltt` is past the year 2106.
    CltTooLate,
}

impl fmt::Display for TableError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RecordsFull => out.write_str("no room for another lease"),
            Self::IndexFull => out.write_str("no room for another lease in the index of clients"),
            Self::BlobsFull => {
                out.write_str("no room for host names, long identifiers and contexts of leases")
            }
            Self::ClientIdTooLong => {
                write!(out, "the client identifier has more than {CLIENT_ID_BYTES_MAX} octets")
            }
            Self::PartsTooLong => {
                write!(
                    out,
                    "host name and user context need more than {LONG_PARTS_BYTES_MAX} octets together"
                )
            }
            Self::CltTooLate => {
                write!(out, "the client's last transmission time is later than {} s", u32::MAX)
            }
        }
    }
}

impl std::error::Error for TableError {}

/// What the wheel reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// The time of the lease is over. It waits in the queue of [`LeaseTable::next_to_reclaim`]; its address may be lent at
    /// once, if its last row is durable.
    Expired(LeaseRef),
    /// A reclaimed lease was held long enough. It waits in the queue of [`LeaseTable::next_to_flush`].
    Held(LeaseRef),
}

/// Counts since construction, and sizes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableStats {
    /// Leases in the table, of any state.
    pub lease_count: usize,
    /// Leases for which there is memory now.
    pub capacity_count: usize,
    /// Entries in the index.
    pub entry_count: usize,
    /// Bytes of records in use (ever used), index, wheel.
    pub table_bytes: usize,
    /// Bytes of long parts in use.
    pub blob_bytes: usize,
    /// Bytes of long parts for which there is memory now.
    pub blob_capacity_bytes: usize,
    /// Leases stored without one of their keys in the index, because too many share it.
    pub unindexed_count: u64,
    /// Leases refused, for any [`TableError`].
    pub refused_count: u64,
}

/// The leases of one shard.
pub struct LeaseTable {
    key: [u8; 16],
    slab: Slab,
    index: Index,
    arena: Arena,
    wheel: Wheel,
    hold_s: u64,
    unindexed_count: u64,
    refused_count: u64,
}

impl LeaseTable {
    /// An empty table. `key` keys the hash of all tables of a server alike; `now_s` is where the wheel starts. Allocates.
    #[must_use]
    pub fn new(limits: TableLimits, key: [u8; 16], now_s: u64) -> Self {
        let record_count_max = limits.record_count_max.clamp(1, RECORDS_MAX);
        let record_count = limits.record_count.min(record_count_max);
        let mut table = Self {
            key,
            slab: Slab::new(record_count_max),
            // Two keys per lease, six entries per bucket.
            index: Index::new(BucketArray::allocate(record_count.max(1024) / 3)),
            arena: Arena::new(limits.blob_bytes_max.div_ceil(BlobChunk::BYTES)),
            wheel: Wheel::new(now_s),
            hold_s: 0,
            unindexed_count: 0,
            refused_count: 0,
        };
        while table.slab.capacity() < record_count.max(1) {
            table.slab.add(RecordChunk::allocate()).expect("within the bound");
        }
        if limits.blob_bytes_max > 0 {
            table.arena.add(BlobChunk::allocate()).expect("within the bound");
        }
        table
    }

    /// How long reclaimed leases are held (`hold-reclaimed-time`), from the next time each comes round.
    pub fn set_hold_reclaimed_s(&mut self, hold_s: u32) {
        self.hold_s = u64::from(hold_s);
    }

    // Memory.

    /// The memory that the table would like to have now, if any; asked once per turn.
    #[must_use]
    pub fn wants(&self) -> Option<Want> {
        if self.slab.wants_chunk() {
            return Some(Want::Records);
        }
        if let Some(bucket_count) = self.index.wants() {
            return Some(Want::Buckets { bucket_count });
        }
        self.arena.wants_chunk().then_some(Want::Blobs)
    }

    /// Takes memory in.
    ///
    /// # Errors
    /// The part itself when the table has no use for it (its bound is reached, a move is under way): to be freed by the
    /// control thread.
    pub fn give(&mut self, part: Part) -> Result<(), Part> {
        match part {
            Part::Records(chunk) => self.slab.add(chunk).map_err(Part::Records),
            Part::Buckets(buckets) => self.index.grow(buckets).map_err(Part::Buckets),
            Part::Blobs(chunk) => self.arena.add(chunk).map_err(Part::Blobs),
        }
    }

    /// Memory that the table has done with: to be freed by the control thread.
    #[must_use]
    pub fn discard(&mut self) -> Option<Part> {
        self.index.discard().map(Part::Buckets)
    }

    /// Moves up to `bucket_count` buckets of a growing index: in idle turns. True while there is more to move.
    pub fn migrate(&mut self, bucket_count: usize) -> bool {
        let Self { slab, index, arena, key, .. } = self;
        index.step(bucket_count, |entry| hash_of_entry(slab, arena, key, entry));
        index.is_moving()
    }

    /// Allocates whatever is wanted, moves everything: at start, by the thread that loads leases.
    pub fn grow_now(&mut self) {
        while let Some(want) = self.wants() {
            if self.give(want.allocate()).is_err() {
                break;
            }
            while self.migrate(4096) {}
            drop(self.discard());
        }
    }

    // Lookups.

    /// The hash of a hardware address; its type does not count.
    #[must_use]
    pub fn hash_hw(&self, hw_addr: &HwAddr) -> KeyHash {
        hash_key(&self.key, KEY_HW, hw_addr.as_bytes())
    }

    /// The hash of a client identifier.
    #[must_use]
    pub fn hash_client_id(&self, client_id: &[u8]) -> KeyHash {
        hash_key(&self.key, KEY_CLIENT_ID, client_id)
    }

    /// Starts loading the bucket of `hash`.
    pub fn prefetch(&self, hash: KeyHash) {
        self.index.prefetch(hash);
    }

    /// Starts loading the first record that `hash` leads to; the bucket should be there by now.
    pub fn prefetch_record(&self, hash: KeyHash) {
        if let Some(entry) = self.index.candidates(hash).next() {
            self.slab.prefetch(entry.slot());
        }
    }

    /// Starts loading the long parts of a lease.
    pub fn prefetch_long_parts(&self, lease: LeaseRef) {
        if let Some(octet) = self.arena.first_octet(BlobRef(self.record(lease).blob)) {
            prefetch::prefetch(octet);
        }
    }

    /// The leases with this client identifier, in any subnet, state and order. `hash` is [`Self::hash_client_id`].
    pub fn with_client_id<'a>(
        &'a self,
        hash: KeyHash,
        client_id: &'a [u8],
    ) -> impl Iterator<Item = LeaseRef> + 'a {
        self.index
            .candidates(hash)
            .filter(move |entry| entry.is_client_id() && self.client_id_at(entry.slot()) == client_id)
            .map(|entry| LeaseRef(entry.slot()))
    }

    /// The leases with this hardware address that belong to a client who sends `client_id` (empty for none), in any subnet,
    /// state and order: if it sends one, only leases without one (those with the same one are found by
    /// [`Self::with_client_id`]); else all. The type must be equal, unless the lease does not know it.
    /// `hash` is [`Self::hash_hw`].
    pub fn with_hw<'a>(
        &'a self,
        hash: KeyHash,
        hw_addr: &'a HwAddr,
        client_id: &[u8],
    ) -> impl Iterator<Item = LeaseRef> + 'a {
        let any = client_id.is_empty();
        self.index
            .candidates(hash)
            .filter(move |entry| {
                !entry.is_client_id()
                    && (any || !entry.is_with_client_id())
                    && self.is_hw(&self.slab[entry.slot()], hw_addr)
            })
            .map(|entry| LeaseRef(entry.slot()))
    }

    /// The leases with these octets as hardware address, of any type and with any client identifier: for listings.
    pub fn with_hw_octets<'a>(
        &'a self,
        hash: KeyHash,
        octets: &'a [u8],
    ) -> impl Iterator<Item = LeaseRef> + 'a {
        self.index
            .candidates(hash)
            .filter(move |entry| !entry.is_client_id() && self.hw_octets(&self.slab[entry.slot()]) == octets)
            .map(|entry| LeaseRef(entry.slot()))
    }

    /// The record of a lease.
    ///
    /// # Panics
    /// When there is no such lease.
    #[must_use]
    pub fn record(&self, lease: LeaseRef) -> &Record {
        self.slab.live_at(lease.0).expect("a lease reference names a lease")
    }

    /// The record of a lease, if the slot holds one: for references kept across turns.
    #[must_use]
    pub fn record_if_live(&self, lease: LeaseRef) -> Option<&Record> {
        self.slab.live_at(lease.0)
    }

    /// The whole lease.
    #[must_use]
    pub fn view(&self, lease: LeaseRef) -> Lease4<'_> {
        self.view_record(self.record(lease))
    }

    /// The client identifier of a lease; empty for none.
    #[must_use]
    pub fn client_id(&self, lease: LeaseRef) -> &[u8] {
        self.client_id_at(lease.0)
    }

    /// Whether the lease belongs to the client of this address and identifier (empty for none): equal identifiers when both
    /// have one, else equal hardware addresses.
    #[must_use]
    pub fn belongs(&self, lease: LeaseRef, hw_addr: &HwAddr, client_id: &[u8]) -> bool {
        let record = self.record(lease);
        if record.has_client_id() && !client_id.is_empty() {
            self.client_id_at(lease.0) == client_id
        } else {
            record.hw_len > 0 && self.is_hw(record, hw_addr)
        }
    }

    /// All leases in the order of their slots, from `from` on: for walks in capped steps.
    pub fn leases_from(&self, from: LeaseRef) -> impl Iterator<Item = LeaseRef> + '_ {
        let used = u32::try_from(self.slab.used()).expect("slots fit 30 bits");
        (from.0..used).filter(|slot| self.slab.live_at(*slot).is_some()).map(LeaseRef)
    }

    // Changes.

    /// Stores a new lease. Its address is not looked at: two leases of one address are the caller's affair.
    ///
    /// # Errors
    /// [`TableError`]: nothing is stored.
    pub fn insert(&mut self, lease: &Lease4<'_>, origin: Origin) -> Result<LeaseRef, TableError> {
        self.migrate(MOVE_BUCKETS_PER_CHANGE);
        let stored = self.try_insert(lease, origin);
        self.refused_count += u64::from(stored.is_err());
        stored
    }

    fn try_insert(&mut self, lease: &Lease4<'_>, origin: Origin) -> Result<LeaseRef, TableError> {
        let slot = self.slab.vacancy().ok_or(TableError::RecordsFull)?;
        let (mut record, parts) = pack(lease, origin)?;
        if !parts.is_empty() {
            record.blob = self.arena.store(&parts).ok_or(TableError::BlobsFull)?.0;
        }
        if let Err(error) = self.index_record(slot, &mut record, lease) {
            self.arena.free(BlobRef(record.blob));
            return Err(error);
        }
        self.slab.fill(slot, record);
        self.link(slot);
        Ok(LeaseRef(slot))
    }

    /// Replaces everything of a lease but its `pending_lsn` and marks; its keys, its end and its address may all change.
    ///
    /// # Errors
    /// [`TableError`]: nothing has changed.
    pub fn update(&mut self, lease: LeaseRef, new: &Lease4<'_>, origin: Origin) -> Result<(), TableError> {
        let updated = self.try_update(lease, new, origin);
        self.refused_count += u64::from(updated.is_err());
        updated
    }

    fn try_update(&mut self, lease: LeaseRef, new: &Lease4<'_>, origin: Origin) -> Result<(), TableError> {
        let slot = lease.0;
        let old = *self.record(lease);
        let (mut record, parts) = pack(new, origin)?;
        let view = self.view_record(&old);
        let same_keys = view.client_id == new.client_id && view.hw_addr.as_bytes() == new.hw_addr.as_bytes();
        let same_long = self.arena.read(BlobRef(old.blob), long_hw_bytes(&old)) == parts;
        record.set_pending_lsn(old.pending_lsn());
        for mark in [Flag::Uncacheable, Flag::Loose] {
            record.set(mark, old.has(mark));
        }
        (record.next, record.prev, record.blob) = (old.next, old.prev, old.blob);
        if same_keys {
            for mark in [Flag::HwUnindexed, Flag::ClientIdUnindexed] {
                record.set(mark, old.has(mark));
            }
            if !same_long {
                let blob = self.arena.replace(BlobRef(old.blob), &parts).ok_or(TableError::BlobsFull)?;
                record.blob = blob.0;
            }
        } else {
            self.migrate(MOVE_BUCKETS_PER_CHANGE);
            // The new keys and parts go in first: if they do not, the old ones are still there.
            record.blob =
                if parts.is_empty() { 0 } else { self.arena.store(&parts).ok_or(TableError::BlobsFull)?.0 };
            if let Err(error) = self.index_record(slot, &mut record, new) {
                self.arena.free(BlobRef(record.blob));
                return Err(error);
            }
            self.unindex_record(slot, &old);
            self.arena.free(BlobRef(old.blob));
        }
        self.slab[slot] = record;
        self.relink(slot, &old);
        Ok(())
    }

    /// Renews a lease whose keys and long parts stay: touches its record only.
    pub fn renew(&mut self, lease: LeaseRef, cltt: u64, valid_lft: u32) {
        let record = self.live_mut(lease);
        let old = *record;
        // Past 2106 a lease lives on with the last time that there is.
        record.cltt = u32::try_from(cltt).unwrap_or(u32::MAX);
        record.valid_lft = valid_lft;
        if ends_sooner(&old, record) {
            self.relink(lease.0, &old);
        }
    }

    /// Makes a lease reclaimed: its client and times stay (affinity), host name, flags and context go.
    pub fn reclaim(&mut self, lease: LeaseRef) {
        let old = *self.record(lease);
        let blob = self.forget_long_parts(&old, true);
        let record = self.live_mut(lease);
        record.blob = blob.0;
        record.set(Flag::FqdnFwd, false);
        record.set(Flag::FqdnRev, false);
        record.set_state(LeaseState::Reclaimed);
        self.relink(lease.0, &old);
    }

    /// Makes a lease released, kept for affinity: `valid_lft` 0, all else stays.
    pub fn release(&mut self, lease: LeaseRef) {
        let record = self.live_mut(lease);
        let old = *record;
        record.set_state(LeaseState::Released);
        record.valid_lft = 0;
        self.relink(lease.0, &old);
    }

    /// Puts a lease in probation: no client any more, no host name, flags, context.
    pub fn decline(&mut self, lease: LeaseRef, cltt: u64, probation_s: u32) {
        let old = *self.record(lease);
        self.unindex_record(lease.0, &old);
        let blob = self.forget_long_parts(&old, false);
        let nobody = HwAddr::new(old.htype, &[]).expect("no octets fit");
        let record = self.live_mut(lease);
        record.set_hw(&nobody);
        record.set_client_id(&[]);
        record.blob = blob.0;
        for mark in [Flag::FqdnFwd, Flag::FqdnRev, Flag::HwUnindexed, Flag::ClientIdUnindexed] {
            record.set(mark, false);
        }
        record.set_state(LeaseState::Declined);
        record.cltt = u32::try_from(cltt).unwrap_or(u32::MAX);
        record.valid_lft = probation_s;
        self.relink(lease.0, &old);
    }

    /// Removes a lease.
    pub fn remove(&mut self, lease: LeaseRef) {
        self.migrate(MOVE_BUCKETS_PER_CHANGE);
        let old = *self.record(lease);
        self.unindex_record(lease.0, &old);
        self.arena.free(BlobRef(old.blob));
        self.wheel.unlink(&mut self.slab, lease.0);
        self.slab.vacate(lease.0);
    }

    /// The lease's last row is at `lsn`; the peers' verdict on it is open.
    pub fn set_pending(&mut self, lease: LeaseRef, lsn: Lsn) {
        let record = self.live_mut(lease);
        record.set_pending_lsn(lsn);
        record.set(Flag::Uncacheable, false);
    }

    /// An awaited peer refused the last update: the next REQUEST writes and sends again.
    pub fn mark_uncacheable(&mut self, lease: LeaseRef) {
        self.live_mut(lease).set(Flag::Uncacheable, true);
    }

    /// Whether the address may be taken by others from now on ([`Record::is_loose`]).
    pub fn set_loose(&mut self, lease: LeaseRef, loose: bool) {
        self.live_mut(lease).set(Flag::Loose, loose);
    }

    // Ends.

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
                    self.wheel.link(&mut self.slab, slot, now_s + RETRY_S);
                    return Some(LeaseRef(slot));
                }
                Some(due_s) => self.wheel.link(&mut self.slab, slot, due_s),
            }
        }
        None
    }

    /// Counts and sizes.
    #[must_use]
    pub fn stats(&self) -> TableStats {
        TableStats {
            lease_count: self.slab.live(),
            capacity_count: self.slab.capacity(),
            entry_count: self.index.entry_count(),
            table_bytes: self.slab.used() * size_of::<Record>() + self.index.bytes() + self.wheel.bytes(),
            blob_bytes: self.arena.used_bytes(),
            blob_capacity_bytes: self.arena.capacity_bytes(),
            unindexed_count: self.unindexed_count,
            refused_count: self.refused_count,
        }
    }

    // Inside.

    fn live_mut(&mut self, lease: LeaseRef) -> &mut Record {
        assert!(self.slab.live_at(lease.0).is_some(), "a lease reference names a lease");
        &mut self.slab[lease.0]
    }

    /// Drops host name and context of `old`'s long parts, and what names the client unless `keep_client`; never fails.
    fn forget_long_parts(&mut self, old: &Record, keep_client: bool) -> BlobRef {
        let blob = BlobRef(old.blob);
        let Parts { pool_id, hw, client_id, .. } = self.arena.read(blob, long_hw_bytes(old));
        if !keep_client {
            return self.arena.shrink(blob, &Parts { pool_id, ..Parts::default() });
        }
        let (mut hw_copy, mut client_id_copy) = ([0; HW_ADDR_BYTES_MAX], [0; CLIENT_ID_BYTES_MAX]);
        let (hw_copy, client_id_copy) = (&mut hw_copy[..hw.len()], &mut client_id_copy[..client_id.len()]);
        hw_copy.copy_from_slice(hw);
        client_id_copy.copy_from_slice(client_id);
        self.arena
            .shrink(blob, &Parts { pool_id, hw: hw_copy, client_id: client_id_copy, ..Parts::default() })
    }

    /// Puts both keys into the index; on failure none.
    fn index_record(&mut self, slot: u32, record: &mut Record, lease: &Lease4<'_>) -> Result<(), TableError> {
        let hw = (!lease.hw_addr.is_empty())
            .then(|| (self.hash_hw(&lease.hw_addr), Entry::hw(slot, !lease.client_id.is_empty())));
        let client_id = (!lease.client_id.is_empty())
            .then(|| (self.hash_client_id(lease.client_id), Entry::client_id(slot)));
        if let Some((hash, entry)) = hw {
            match self.index.insert(hash, entry) {
                Ok(()) => {}
                Err(IndexError::Chain) => record.set(Flag::HwUnindexed, true),
                Err(IndexError::Full) => return Err(TableError::IndexFull),
            }
        }
        if let Some((hash, entry)) = client_id {
            match self.index.insert(hash, entry) {
                Ok(()) => {}
                Err(IndexError::Chain) => record.set(Flag::ClientIdUnindexed, true),
                Err(IndexError::Full) => {
                    if let Some((hash, entry)) = hw
                        && !record.has(Flag::HwUnindexed)
                    {
                        self.index.remove(hash, entry);
                    }
                    return Err(TableError::IndexFull);
                }
            }
        }
        let unindexed = record.has(Flag::HwUnindexed) || record.has(Flag::ClientIdUnindexed);
        self.unindexed_count += u64::from(unindexed);
        Ok(())
    }

    /// Takes both keys of `record` out of the index.
    fn unindex_record(&mut self, slot: u32, record: &Record) {
        let view = self.view_record(record);
        let hw = (!view.hw_addr.is_empty() && !record.has(Flag::HwUnindexed))
            .then(|| (self.hash_hw(&view.hw_addr), Entry::hw(slot, record.has_client_id())));
        let client_id = (record.has_client_id() && !record.has(Flag::ClientIdUnindexed))
            .then(|| (self.hash_client_id(view.client_id), Entry::client_id(slot)));
        for (hash, entry) in hw.into_iter().chain(client_id) {
            self.index.remove(hash, entry);
        }
    }

    /// Links a new record into the wheel.
    fn link(&mut self, slot: u32) {
        if let Some(due_s) = due_of(&self.slab[slot], self.hold_s) {
            self.wheel.link(&mut self.slab, slot, due_s);
        }
    }

    /// Keeps the wheel's promise, that no lease sits later than it is due, after a change from `old`.
    fn relink(&mut self, slot: u32, old: &Record) {
        let new_due = due_of(&self.slab[slot], self.hold_s);
        let old_due = due_of(old, self.hold_s);
        let sooner = match (old_due, new_due) {
            (_, None) => false,
            (None, Some(_)) => true,
            (Some(old), Some(new)) => new < old,
        };
        // A change of state also changes the queue that a lease belongs in.
        if sooner || old.state() != self.slab[slot].state() {
            self.wheel.unlink(&mut self.slab, slot);
            self.link(slot);
        }
    }

    fn client_id_at(&self, slot: u32) -> &[u8] {
        let record = &self.slab[slot];
        record
            .client_id_inline()
            .unwrap_or_else(|| self.arena.read(BlobRef(record.blob), long_hw_bytes(record)).client_id)
    }

    fn hw_octets<'a>(&'a self, record: &'a Record) -> &'a [u8] {
        record.hw_inline().unwrap_or_else(|| self.arena.read(BlobRef(record.blob), long_hw_bytes(record)).hw)
    }

    fn is_hw(&self, record: &Record, hw_addr: &HwAddr) -> bool {
        (record.htype == hw_addr.htype || record.is_htype_unknown())
            && self.hw_octets(record) == hw_addr.as_bytes()
    }

    fn view_record<'a>(&'a self, record: &'a Record) -> Lease4<'a> {
        let parts = self.arena.read(BlobRef(record.blob), long_hw_bytes(record));
        let hw = record.hw_inline().unwrap_or(parts.hw);
        Lease4 {
            address: record.address(),
            hw_addr: HwAddr::new(record.htype, hw).expect("at most 20 octets are stored"),
            client_id: record.client_id_inline().unwrap_or(parts.client_id),
            cltt: record.cltt(),
            valid_lft: record.valid_lft,
            subnet_id: record.subnet_id(),
            pool_id: if record.pool_id == POOL_ID_IN_BLOB {
                parts.pool_id
            } else {
                u32::from(record.pool_id)
            },
            state: record.state(),
            fqdn_fwd: record.fqdn_fwd(),
            fqdn_rev: record.fqdn_rev(),
            hostname: parts.hostname,
            user_context: parts.user_context,
        }
    }
}

impl fmt::Debug for LeaseTable {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.stats().fmt(out)
    }
}

const KEY_HW: u8 = 0;
const KEY_CLIENT_ID: u8 = 1;

fn hash_key(key: &[u8; 16], kind: u8, octets: &[u8]) -> KeyHash {
    let mut hasher = SipHasher13::new_with_key(key);
    hasher.write(octets);
    hasher.write_u8(kind);
    KeyHash(hasher.finish())
}

/// Computes the hash of an index entry's key again, from its record.
fn hash_of_entry(slab: &Slab, arena: &Arena, key: &[u8; 16], entry: Entry) -> KeyHash {
    let record = &slab[entry.slot()];
    let (kind, inline) = if entry.is_client_id() {
        (KEY_CLIENT_ID, record.client_id_inline())
    } else {
        (KEY_HW, record.hw_inline())
    };
    match inline {
        Some(octets) => hash_key(key, kind, octets),
        None => {
            let parts = arena.read(BlobRef(record.blob), long_hw_bytes(record));
            hash_key(key, kind, if entry.is_client_id() { parts.client_id } else { parts.hw })
        }
    }
}

/// A lease as record and long parts, without its place in lists and index.
fn pack<'a>(lease: &'a Lease4<'a>, origin: Origin) -> Result<(Record, Parts<'a>), TableError> {
    if lease.client_id.len() > CLIENT_ID_BYTES_MAX {
        return Err(TableError::ClientIdTooLong);
    }
    let mut record = Record {
        address: lease.address.to_bits(),
        subnet_id: lease.subnet_id.0,
        cltt: u32::try_from(lease.cltt).map_err(|_| TableError::CltTooLate)?,
        valid_lft: lease.valid_lft,
        ..Record::VACANT
    };
    let mut parts = Parts { hostname: lease.hostname, user_context: lease.user_context, ..Parts::default() };
    if !record.set_hw(&lease.hw_addr) {
        parts.hw = lease.hw_addr.as_bytes();
    }
    if !record.set_client_id(lease.client_id) {
        parts.client_id = lease.client_id;
    }
    record.pool_id = match u8::try_from(lease.pool_id) {
        Ok(pool_id) if pool_id != POOL_ID_IN_BLOB => pool_id,
        _ => {
            parts.pool_id = lease.pool_id;
            POOL_ID_IN_BLOB
        }
    };
    if !parts.fit() {
        return Err(TableError::PartsTooLong);
    }
    record.set_state(lease.state);
    record.set(Flag::Live, true);
    record.set(Flag::FqdnFwd, lease.fqdn_fwd);
    record.set(Flag::FqdnRev, lease.fqdn_rev);
    let is_ethernet_length = lease.hw_addr.as_bytes().len() == HW_ETHERNET_BYTES;
    record
        .set(Flag::HtypeUnknown, origin == Origin::Record && lease.hw_addr.htype == 1 && !is_ethernet_length);
    Ok((record, parts))
}

const HW_ETHERNET_BYTES: usize = 6;

/// Octets of the hardware address in the record's blob.
fn long_hw_bytes(record: &Record) -> usize {
    if record.hw_inline().is_some() { 0 } else { usize::from(record.hw_len) }
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

fn ends_sooner(old: &Record, new: &Record) -> bool {
    old.valid_lft == LIFETIME_INFINITE_S || new.expire() < old.expire()
}
