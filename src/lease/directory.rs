//! Which shards may hold a lease of a key: shared by all shards, for the rare client whose lease lives elsewhere.
//!
//! A client is looked for by its own shard, which follows from `chaddr`. A lease found by client identifier, or one whose
//! client has changed its card, may live with another. Every client identifier of a lease is here, and every hardware address of
//! a lease that does not live with the owner of that address; a query that finds nothing at home asks here once.
//!
//! ```text
//! bucket (128 bytes): 32 entries of u32 = fingerprint 26 bits (never 0) | shard 6 bits          0 = empty
//! ```
//!
//! An entry is put into its bucket or one of the seven after it; `reach` is the furthest that one ever went, so that lookups look
//! no further. A fingerprint may be a stranger's (1 in 2 million per lookup): the shard asked then finds nothing.
//!
//! Promises: touched only when a lease is made, freed or changes its keys, and by lookups that found nothing at home; never on
//! a renewal. No lock, no allocation after construction, no panic. Bound: the number of keys given at construction, of which it
//! holds twice as many.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst};

use super::table::KeyHash;
use crate::ids::{SHARDS_MAX, ShardId};
use crate::memory::{Table, prefetch};

const ENTRIES: usize = 32;
/// Entries of a cache line.
const ENTRIES_PER_LINE: usize = 16;
const SHARD_BITS: u32 = 6;
/// Buckets that an entry may be in, counted from its own.
const REACH_MAX: u32 = 8;

const _: () = assert!(SHARDS_MAX <= 1 << SHARD_BITS);

/// A small set of shards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShardSet(u64);

impl ShardSet {
    /// Whether no shard is in it.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether `shard` is in it.
    #[must_use]
    pub const fn contains(self, shard: ShardId) -> bool {
        self.0 & 1 << (shard.0 & 63) != 0
    }

    /// The set without `shard`.
    #[must_use]
    pub const fn without(self, shard: ShardId) -> Self {
        Self(self.0 & !(1 << (shard.0 & 63)))
    }

    /// The shard with the lowest number.
    #[must_use]
    pub fn lowest(self) -> Option<ShardId> {
        (self.0 != 0).then(|| u8::try_from(self.0.trailing_zeros()).ok().map(ShardId)).flatten()
    }

    /// Both sets together.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl Iterator for ShardSet {
    type Item = ShardId;

    fn next(&mut self) -> Option<ShardId> {
        let shard = u8::try_from(self.0.trailing_zeros()).ok().filter(|shard| *shard < 64)?;
        self.0 &= self.0 - 1;
        Some(ShardId(shard))
    }
}

/// The buckets around a key are full: its lease is found by its own shard only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirectoryFull;

impl std::fmt::Display for DirectoryFull {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("no room for a client in the directory that shards share")
    }
}

impl std::error::Error for DirectoryFull {}

#[repr(align(128))]
struct Bucket([AtomicU32; ENTRIES]);

/// See the module.
pub struct Directory {
    buckets: Table<Bucket>,
    reach: AtomicU32,
    refused_count: AtomicU64,
}

impl Directory {
    /// A directory for about `key_count` keys (8 bytes each). Allocates and touches its memory.
    #[must_use]
    pub fn new(key_count: usize) -> Self {
        let bucket_count = (key_count * 2).div_ceil(ENTRIES).max(1);
        let vacant = || Bucket([const { AtomicU32::new(0) }; ENTRIES]);
        Self {
            buckets: Table::full((0..bucket_count).map(|_| vacant())),
            reach: AtomicU32::new(1),
            refused_count: AtomicU64::new(0),
        }
    }

    /// Notes that `shard` holds a lease of this key; once per lease.
    ///
    /// # Errors
    /// [`DirectoryFull`]: nothing is noted; counted in [`Self::refused_count`].
    pub fn insert(&self, hash: KeyHash, shard: ShardId) -> Result<(), DirectoryFull> {
        let entry = entry_of(hash, shard);
        for step in 0..REACH_MAX {
            let bucket = self.bucket(hash, step);
            if bucket.0.iter().all(|own| own.load(SeqCst) != 0) {
                continue;
            }
            // Lookups must look this far before the entry can be there.
            self.reach.fetch_max(step + 1, SeqCst);
            if replace(bucket, 0, entry) {
                return Ok(());
            }
        }
        self.refused_count.fetch_add(1, SeqCst);
        Err(DirectoryFull)
    }

    /// Takes one note back. False when there is none (its insertion was refused).
    pub fn remove(&self, hash: KeyHash, shard: ShardId) -> bool {
        let entry = entry_of(hash, shard);
        (0..self.reach.load(SeqCst)).any(|step| replace(self.bucket(hash, step), entry, 0))
    }

    /// Starts loading what [`Self::lookup`] looks at first.
    pub fn prefetch(&self, hash: KeyHash) {
        let Bucket(entries) = self.bucket(hash, 0);
        for line in entries.as_chunks::<ENTRIES_PER_LINE>().0 {
            prefetch(line);
        }
    }

    /// The shards that may hold a lease of this key.
    #[must_use]
    pub fn lookup(&self, hash: KeyHash) -> ShardSet {
        let wanted = entry_of(hash, ShardId(0));
        let mut found = 0;
        for step in 0..self.reach.load(SeqCst) {
            for own in &self.bucket(hash, step).0 {
                let own = own.load(SeqCst);
                if (own ^ wanted) >> SHARD_BITS == 0 {
                    found |= 1 << (own & ((1 << SHARD_BITS) - 1));
                }
            }
        }
        ShardSet(found)
    }

    /// Keys that found no room since the start.
    #[must_use]
    pub fn refused_count(&self) -> u64 {
        self.refused_count.load(SeqCst)
    }

    /// Bytes of the buckets.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.buckets.len() * size_of::<Bucket>()
    }

    fn bucket(&self, hash: KeyHash, step: u32) -> &Bucket {
        let wide = u128::from(hash.bits()) * u128::try_from(self.buckets.len()).expect("widening");
        let home = usize::try_from(wide >> 64).expect("below the bucket count");
        let at = home + usize::try_from(step).expect("at most eight");
        // Past the end for a handful of keys: no division for the others.
        if let Some(bucket) = self.buckets.get(at) { bucket } else { &self.buckets[at % self.buckets.len()] }
    }
}

impl std::fmt::Debug for Directory {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Directory({} buckets)", self.buckets.len())
    }
}

/// Replaces one entry that is `from`.
fn replace(bucket: &Bucket, from: u32, to: u32) -> bool {
    bucket
        .0
        .iter()
        .any(|own| own.load(SeqCst) == from && own.compare_exchange(from, to, SeqCst, SeqCst).is_ok())
}

fn entry_of(hash: KeyHash, shard: ShardId) -> u32 {
    let fingerprint = u32::try_from(hash.bits() & ((1 << (32 - SHARD_BITS)) - 1)).expect("26 bits").max(1);
    fingerprint << SHARD_BITS | u32::from(shard.0) & ((1 << SHARD_BITS) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(number: u64) -> KeyHash {
        KeyHash(number.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    #[test]
    fn every_note_is_found_until_it_is_taken_back_once_per_lease() {
        let directory = Directory::new(1000);
        for number in 0..1000 {
            directory.insert(hash(number), ShardId(u8::try_from(number % 4).expect("small"))).expect("room");
        }
        directory.insert(hash(1), ShardId(1)).expect("room");
        directory.insert(hash(1), ShardId(3)).expect("room");
        for number in 0..1000 {
            let shard = ShardId(u8::try_from(number % 4).expect("small"));
            assert!(directory.lookup(hash(number)).contains(shard), "{number}");
        }
        assert!(directory.remove(hash(1), ShardId(1)));
        assert_eq!(directory.lookup(hash(1)).collect::<Vec<_>>(), [ShardId(1), ShardId(3)]);
        assert!(directory.remove(hash(1), ShardId(1)));
        assert!(!directory.remove(hash(1), ShardId(1)));
        assert_eq!(directory.lookup(hash(1)).without(ShardId(3)), ShardSet::default());
    }

    #[test]
    fn crowded_buckets_spill_over_and_full_ones_refuse() {
        let directory = Directory::new(16 * 4);
        let stored = (0..10_000).take_while(|_| directory.insert(hash(5), ShardId(2)).is_ok()).count();
        assert_eq!(stored, 4 * ENTRIES);
        assert_eq!(directory.refused_count(), 1);
        for _ in 0..stored {
            assert!(directory.lookup(hash(5)).contains(ShardId(2)));
            assert!(directory.remove(hash(5), ShardId(2)));
        }
        assert!(directory.lookup(hash(5)).is_empty());
    }
}
