//! The leases of one shard: a slab of records, an index over client identifiers and hardware addresses, a wheel of ends.
//!
//! A [`LeaseTable`] belongs to one shard and is used by its thread alone. It knows nothing of who may have an address
//! ([`super::address`]), of subnets or of rules; it stores, finds, ages and counts.
//!
//! A batch goes through it in stages, so that memory is waited for once per batch and not once per packet:
//! [`LeaseTable::prefetch`] for every query, then [`LeaseTable::prefetch_record`] for every query, then the lookups.
//!
//! Promises: no allocation after construction; memory comes as [`Part`]s that the control thread makes when the table
//! [wants](LeaseTable::wants) them. No operation is longer than a chain with 256 entries of one key plus a few buckets of a
//! move under way. No panic on any lease; a [`LeaseRef`] that the table has not given out or has taken back is a bug of the caller
//! and panics. Bounds: records, bytes of long parts, both given at construction ([`TableLimits`]).
//!
//! Times: seconds since the Unix epoch. The record holds 32 bits of them.

mod blob;
mod change;
mod ends;
mod find;
mod index;
mod record;
mod slab;
mod wheel;

use std::fmt;

use self::blob::Arena;
use self::find::hash_of_entry;
use self::index::Index;
use self::slab::Slab;
use self::wheel::Wheel;
use crate::ids::{CLIENT_ID_BYTES_MAX, LeaseRef};

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
}

impl fmt::Debug for LeaseTable {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.stats().fmt(out)
    }
}

/// Octets of the hardware address in the record's blob.
fn long_hw_bytes(record: &Record) -> usize {
    if record.hw_inline().is_some() { 0 } else { usize::from(record.hw_len) }
}
