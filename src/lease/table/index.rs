//! From key to record: buckets of one cache line, each with ten pairs of tag and slot.
//!
//! ```text
//!  0 tags [u16; 10] | 20 entries [u32; 10] | 60 overflow bucket 28 bits, count 4 bits      = 64
//! entry: client-id key 1 bit | lease has a client-id 1 bit | slot 30 bits
//! ```
//!
//! Both kinds of keys, client identifier and hardware address, live in the same buckets. The high bits of a hash choose
//! the bucket, the low 16 are the tag. A bucket that is full continues in an overflow bucket; a chain holds at most
//! [`KEY_ENTRIES_MAX`] entries of one tag, so that a client which puts thousands of leases under one key costs lookups no
//! more than that, and no other key its place. Deletion moves the last pair of the chain into the hole: no traces, no decay.
//!
//! Growth is incremental. A larger array is handed in; from then on each step moves a few buckets, in order: those below
//! the cursor are found in the new array, the others in the old one, so that every lookup looks into one chain.

use crate::memory::{Table, prefetch};

const PAIRS: usize = 10;
const COUNT_BITS: u32 = 4;
const KIND_CLIENT_ID: u32 = 1 << 31;
const WITH_CLIENT_ID: u32 = 1 << 30;
const SLOT_MASK: u32 = WITH_CLIENT_ID - 1;

/// Highest number of slots that entries can name.
pub(super) const SLOTS_MAX: usize = SLOT_MASK as usize;
/// Most entries of one tag in a chain, and so of one key.
pub(super) const KEY_ENTRIES_MAX: usize = 256;
/// Mean entries per bucket at which a larger array is wanted.
const GROW_ENTRIES_PER_BUCKET: usize = 6;
/// Mean entries per bucket at which nothing more goes in: overflow buckets can then never run out in an array twice as large.
const FULL_ENTRIES_PER_BUCKET: usize = 8;

/// The hash of a key: what finds its bucket and tells it from its neighbours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct KeyHash(pub(in crate::lease) u64);

impl KeyHash {
    /// All 64 bits, for the [`crate::lease::directory::Directory`].
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }

    fn tag(self) -> u16 {
        u16::try_from(self.0 & 0xffff).expect("sixteen bits")
    }
}

/// What an entry of the index stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry(u32);

impl Entry {
    pub(super) fn client_id(slot: u32) -> Self {
        Self(KIND_CLIENT_ID | slot)
    }

    pub(super) fn hw(slot: u32, with_client_id: bool) -> Self {
        Self(slot | if with_client_id { WITH_CLIENT_ID } else { 0 })
    }

    pub(super) fn slot(self) -> u32 {
        self.0 & SLOT_MASK
    }

    pub(super) fn is_client_id(self) -> bool {
        self.0 & KIND_CLIENT_ID != 0
    }

    /// For a hardware address: whether the lease has a client identifier too.
    pub(super) fn is_with_client_id(self) -> bool {
        self.0 & WITH_CLIENT_ID != 0
    }
}

#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Bucket {
    tags: [u16; PAIRS],
    entries: [u32; PAIRS],
    meta: u32,
}

const _: () = assert!(size_of::<Bucket>() == 64);

impl Bucket {
    const EMPTY: Self = Self { tags: [0; PAIRS], entries: [0; PAIRS], meta: 0 };

    fn count(&self) -> usize {
        usize::try_from(self.meta & ((1 << COUNT_BITS) - 1)).expect("four bits")
    }

    /// The overflow bucket, by position.
    fn next(&self) -> Option<usize> {
        usize::try_from(self.meta >> COUNT_BITS).expect("28 bits").checked_sub(1)
    }

    fn set_next(&mut self, next: Option<usize>) {
        let link = u32::try_from(next.map_or(0, |next| next + 1)).expect("the array is bounded");
        self.meta = self.meta & ((1 << COUNT_BITS) - 1) | link << COUNT_BITS;
    }

    fn push(&mut self, tag: u16, entry: u32) {
        let count = self.count();
        self.tags[count] = tag;
        self.entries[count] = entry;
        self.meta += 1;
    }

    fn pop(&mut self) -> (u16, u32) {
        let last = self.count() - 1;
        self.meta -= 1;
        (self.tags[last], self.entries[last])
    }

    fn position(&self, tag: u16, entry: u32) -> Option<usize> {
        (0..self.count()).find(|at| self.tags[*at] == tag && self.entries[*at] == entry)
    }

    /// A bit per pair with this tag.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    fn matches(&self, tag: u16) -> u16 {
        use std::arch::x86_64::{
            _mm_cmpeq_epi16, _mm_movemask_epi8, _mm_packs_epi16, _mm_set_epi16, _mm_set1_epi16,
            _mm_setzero_si128,
        };
        // Eight tags are compared at once; the compiler makes one load of them.
        let [a, b, c, d, e, f, g, h, i, j] = self.tags.map(u16::cast_signed);
        #[expect(
            unsafe_code,
            reason = "it is asked twice for every packet and takes twice the instructions without these"
        )]
        // SAFETY: every x86_64 has SSE2, and these touch no memory. Their safe form is for functions that enable it.
        let eight = unsafe {
            let same =
                _mm_cmpeq_epi16(_mm_set_epi16(h, g, f, e, d, c, b, a), _mm_set1_epi16(tag.cast_signed()));
            _mm_movemask_epi8(_mm_packs_epi16(same, _mm_setzero_si128()))
        };
        let two = u16::from(i.cast_unsigned() == tag) | u16::from(j.cast_unsigned() == tag) << 1;
        (u16::try_from(eight).expect("eight bits") | two << 8) & ((1 << self.count()) - 1)
    }

    /// A bit per pair with this tag.
    #[cfg(not(target_arch = "x86_64"))]
    #[inline(always)]
    fn matches(&self, tag: u16) -> u16 {
        // Four tags to a word. A lane of the difference is zero exactly when neither its upper bit is set nor its lower bits carry
        // into that when their maximum is added; lanes do not disturb each other.
        const LOW: u64 = 0x7fff_7fff_7fff_7fff;
        const LANES: u64 = 0x0001_0001_0001_0001;
        // Brings bits 0, 16, 32 and 48 together from bit 48 on: no two products meet below.
        const GATHER: u64 = 0x0001_0002_0004_0008;
        let wanted = u64::from(tag) * LANES;
        let four = |tags: &[u16]| {
            let word = tags.iter().rev().fold(0, |word, tag| word << 16 | u64::from(*tag));
            let differs = word ^ wanted;
            let same = !(((differs & LOW) + LOW) | differs | LOW);
            (same >> 15).wrapping_mul(GATHER) >> 48 & 0xf
        };
        let found = four(&self.tags[..4]) | four(&self.tags[4..8]) << 4 | (four(&self.tags[8..]) & 3) << 8;
        u16::try_from(found).expect("ten bits") & ((1 << self.count()) - 1)
    }
}

/// An array of buckets, made by the control thread.
pub struct BucketArray {
    main: Table<Bucket>,
    overflow: Table<Bucket>,
    overflow_free: Option<usize>,
    entry_count: usize,
}

/// Where a bucket is: in the array proper, or among the overflow buckets.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Main(usize),
    Overflow(usize),
}

impl BucketArray {
    /// Most buckets in an array.
    pub(super) const COUNT_MAX: usize = 1 << 27;

    /// Allocates and touches the memory of `bucket_count` buckets; overflow buckets are reserved and untouched.
    pub(super) fn allocate(bucket_count: usize) -> Self {
        let bucket_count = bucket_count.clamp(8, Self::COUNT_MAX);
        Self {
            main: Table::filled(Bucket::EMPTY, bucket_count),
            overflow: Table::with_capacity(bucket_count / 2 + KEY_ENTRIES_MAX / PAIRS),
            overflow_free: None,
            entry_count: 0,
        }
    }

    fn position(&self, hash: KeyHash) -> usize {
        let wide = u128::from(hash.0) * u128::try_from(self.main.len()).expect("widening");
        usize::try_from(wide >> 64).expect("below the bucket count")
    }

    fn bucket(&self, place: Place) -> &Bucket {
        match place {
            Place::Main(at) => &self.main[at],
            Place::Overflow(at) => &self.overflow[at],
        }
    }

    fn bucket_mut(&mut self, place: Place) -> &mut Bucket {
        match place {
            Place::Main(at) => &mut self.main[at],
            Place::Overflow(at) => &mut self.overflow[at],
        }
    }

    /// The last bucket of the chain and the one before it.
    fn tail(&self, position: usize) -> (Place, Option<Place>) {
        let (mut place, mut before) = (Place::Main(position), None);
        while let Some(next) = self.bucket(place).next() {
            before = Some(place);
            place = Place::Overflow(next);
        }
        (place, before)
    }

    /// Number of entries with this tag in a chain.
    fn tag_count(&self, position: usize, tag: u16) -> usize {
        let mut bucket = &self.main[position];
        let mut count = 0;
        loop {
            count += bucket.matches(tag).count_ones() as usize;
            let Some(next) = bucket.next() else { return count };
            bucket = &self.overflow[next];
        }
    }

    fn insert(&mut self, position: usize, tag: u16, entry: u32) -> Result<(), IndexError> {
        let (tail, _) = self.tail(position);
        if self.bucket(tail).count() < PAIRS {
            self.bucket_mut(tail).push(tag, entry);
        } else {
            let fresh = match self.overflow_free {
                Some(fresh) => {
                    self.overflow_free = self.overflow[fresh].next();
                    self.overflow[fresh] = Bucket::EMPTY;
                    fresh
                }
                None if self.overflow.len() < self.overflow.capacity() => {
                    self.overflow.push(Bucket::EMPTY);
                    self.overflow.len() - 1
                }
                None => return Err(IndexError::Full),
            };
            self.overflow[fresh].push(tag, entry);
            self.bucket_mut(tail).set_next(Some(fresh));
        }
        self.entry_count += 1;
        Ok(())
    }

    /// Takes the last pair off a chain, and the overflow bucket with it when that was its only one.
    fn pop(&mut self, position: usize) -> Option<(u16, u32)> {
        let (tail, before) = self.tail(position);
        if self.bucket(tail).count() == 0 {
            return None;
        }
        let pair = self.bucket_mut(tail).pop();
        if let (Place::Overflow(at), Some(before)) = (tail, before)
            && self.overflow[at].count() == 0
        {
            self.bucket_mut(before).set_next(None);
            let free = self.overflow_free;
            self.overflow[at].set_next(free);
            self.overflow_free = Some(at);
        }
        self.entry_count -= 1;
        Some(pair)
    }

    fn remove(&mut self, position: usize, tag: u16, entry: u32) -> bool {
        let mut place = Place::Main(position);
        loop {
            if let Some(hole) = self.bucket(place).position(tag, entry) {
                let (tag, entry) = self.pop(position).expect("the chain is not empty");
                // The pair taken off may be the very one that goes.
                let bucket = self.bucket_mut(place);
                if hole < bucket.count() {
                    bucket.tags[hole] = tag;
                    bucket.entries[hole] = entry;
                }
                return true;
            }
            let Some(next) = self.bucket(place).next() else { return false };
            place = Place::Overflow(next);
        }
    }
}

impl std::fmt::Debug for BucketArray {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "BucketArray({} entries in {} buckets)", self.entry_count, self.main.len())
    }
}

/// Why an entry does not go in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum IndexError {
    /// Too many entries behind one key: the lease can do without this one.
    Chain,
    /// No room until a larger array is handed in.
    Full,
}

/// The buckets of one table, and the larger ones that they are moving to.
pub(super) struct Index {
    current: BucketArray,
    next: Option<BucketArray>,
    /// Buckets of `current` below this have moved.
    moved: usize,
    retired: Option<BucketArray>,
}

impl Index {
    pub(super) fn new(buckets: BucketArray) -> Self {
        Self { current: buckets, next: None, moved: 0, retired: None }
    }

    /// The number of buckets of a larger array that would do good now.
    pub(super) fn wants(&self) -> Option<usize> {
        let idle = self.next.is_none() && self.retired.is_none();
        let crowded = self.current.entry_count > self.current.main.len() * GROW_ENTRIES_PER_BUCKET;
        let possible = self.current.main.len() < BucketArray::COUNT_MAX;
        (idle && crowded && possible).then(|| (self.current.main.len() * 2).min(BucketArray::COUNT_MAX))
    }

    /// Starts to move into `larger`; gives it back when it is not large enough or a move is under way.
    pub(super) fn grow(&mut self, larger: BucketArray) -> Result<(), BucketArray> {
        // A chain with one overflow bucket has more than ten entries, with two more than twenty, and so on.
        let entries_max = self.current.main.len() * FULL_ENTRIES_PER_BUCKET;
        let holds_all = larger.overflow.capacity() * PAIRS >= entries_max;
        if self.next.is_some() || self.retired.is_some() || !holds_all {
            return Err(larger);
        }
        self.next = Some(larger);
        self.moved = 0;
        Ok(())
    }

    /// The array that was moved out of, for the control thread to free.
    pub(super) fn discard(&mut self) -> Option<BucketArray> {
        self.retired.take()
    }

    /// Whether buckets are left to move.
    pub(super) fn is_moving(&self) -> bool {
        self.next.is_some()
    }

    /// Moves up to `bucket_count` buckets; `hash_of` computes the hash of an entry's key again.
    pub(super) fn step(&mut self, bucket_count: usize, hash_of: impl Fn(Entry) -> KeyHash) {
        let Some(next) = &mut self.next else { return };
        for _ in 0..bucket_count {
            if self.moved == self.current.main.len() {
                let next = self.next.take().expect("a move is under way");
                assert!(self.current.entry_count == 0, "every entry has moved");
                self.retired = Some(std::mem::replace(&mut self.current, next));
                self.moved = 0;
                return;
            }
            while let Some((_, entry)) = self.current.pop(self.moved) {
                let hash = hash_of(Entry(entry));
                let position = next.position(hash);
                // The bound on entries per bucket leaves overflow buckets enough in the larger array.
                next.insert(position, hash.tag(), entry).expect("the larger array holds all entries");
            }
            self.moved += 1;
        }
    }

    pub(super) fn insert(&mut self, hash: KeyHash, entry: Entry) -> Result<(), IndexError> {
        if self.entry_count() >= self.current.main.len() * FULL_ENTRIES_PER_BUCKET {
            return Err(IndexError::Full);
        }
        let (array, position) = self.array_mut(hash);
        // Only a chain that has overflowed can hold too many.
        if array.main[position].next().is_some() && array.tag_count(position, hash.tag()) >= KEY_ENTRIES_MAX {
            return Err(IndexError::Chain);
        }
        array.insert(position, hash.tag(), entry.0)
    }

    /// Removes one entry; it must be there.
    pub(super) fn remove(&mut self, hash: KeyHash, entry: Entry) {
        let (array, position) = self.array_mut(hash);
        let removed = array.remove(position, hash.tag(), entry.0);
        assert!(removed, "an indexed lease has its entry");
    }

    pub(super) fn entry_count(&self) -> usize {
        self.current.entry_count + self.next.as_ref().map_or(0, |next| next.entry_count)
    }

    pub(super) fn bytes(&self) -> usize {
        let bytes_of = |array: &BucketArray| (array.main.len() + array.overflow.len()) * size_of::<Bucket>();
        bytes_of(&self.current) + self.next.as_ref().map_or(0, bytes_of)
    }

    #[inline(always)]
    pub(super) fn prefetch(&self, hash: KeyHash) {
        let (array, position) = self.array(hash);
        prefetch(&array.main[position]);
    }

    /// Every entry with the tag of `hash` in its chain: those of the key, and now and then a stranger.
    #[inline(always)]
    pub(super) fn candidates(&self, hash: KeyHash) -> Candidates<'_> {
        let (array, position) = self.array(hash);
        let bucket = &array.main[position];
        Candidates { array, bucket, left: bucket.matches(hash.tag()), tag: hash.tag() }
    }

    #[inline(always)]
    fn array(&self, hash: KeyHash) -> (&BucketArray, usize) {
        let position = self.current.position(hash);
        match &self.next {
            Some(next) if position < self.moved => (next, next.position(hash)),
            _ => (&self.current, position),
        }
    }

    fn array_mut(&mut self, hash: KeyHash) -> (&mut BucketArray, usize) {
        let position = self.current.position(hash);
        match &mut self.next {
            Some(next) if position < self.moved => {
                let position = next.position(hash);
                (next, position)
            }
            _ => (&mut self.current, position),
        }
    }
}

/// Entries with one tag along one chain.
pub(super) struct Candidates<'a> {
    array: &'a BucketArray,
    bucket: &'a Bucket,
    left: u16,
    tag: u16,
}

impl Iterator for Candidates<'_> {
    type Item = Entry;

    #[inline(always)]
    fn next(&mut self) -> Option<Entry> {
        while self.left == 0 {
            self.bucket = &self.array.overflow[self.bucket.next()?];
            self.left = self.bucket.matches(self.tag);
        }
        let at = self.left.trailing_zeros() as usize;
        self.left &= self.left - 1;
        Some(Entry(self.bucket.entries[at]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_found_in_every_place_and_only_those_that_are_equal() {
        let odd = [0, 1, 0x7fff, 0x8000, 0x8001, 0xffff];
        for count in 0..=PAIRS {
            for &tag in &odd {
                for &other in &odd {
                    for place in 0..PAIRS {
                        let mut bucket = Bucket::EMPTY;
                        for at in 0..count {
                            bucket.push(if at == place { tag } else { other }, 0);
                        }
                        let expected = (0..count)
                            .filter(|at| bucket.tags[*at] == tag)
                            .fold(0, |found, at| found | 1 << at);
                        assert_eq!(bucket.matches(tag), expected, "{tag:#x} among {other:#x}");
                    }
                }
            }
        }
    }
}
