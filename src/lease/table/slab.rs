//! The records themselves: chunks of 65,536 cache lines, the free ones linked through `next`.

use super::record::{Flag, Record};
use crate::memory::{Table, prefetch};

const CHUNK_SHIFT: u32 = 16;
const CHUNK_RECORDS: usize = 1 << CHUNK_SHIFT;
/// No slot.
pub(super) const NIL: u32 = u32::MAX;

/// A chunk of record memory, made by the control thread: reserved, touched only as records come into use.
#[derive(Debug)]
pub struct RecordChunk(Table<Record>);

impl RecordChunk {
    /// Records in a chunk.
    pub const RECORDS: usize = CHUNK_RECORDS;

    pub(super) fn allocate() -> Self {
        Self(Table::with_capacity(CHUNK_RECORDS))
    }
}

pub(super) struct Slab {
    chunks: Vec<Table<Record>>,
    free: u32,
    /// Slots ever used: the next fresh one.
    used: usize,
    live: usize,
}

impl Slab {
    /// A slab of at most `record_count_max` records, rounded up to whole chunks, without any chunk yet.
    pub(super) fn new(record_count_max: usize) -> Self {
        Self {
            chunks: Vec::with_capacity(record_count_max.div_ceil(CHUNK_RECORDS)),
            free: NIL,
            used: 0,
            live: 0,
        }
    }

    pub(super) fn add(&mut self, chunk: RecordChunk) -> Result<(), RecordChunk> {
        if self.chunks.len() == self.chunks.capacity() {
            return Err(chunk);
        }
        self.chunks.push(chunk.0);
        Ok(())
    }

    pub(super) fn wants_chunk(&self) -> bool {
        self.chunks.len() < self.chunks.capacity() && self.capacity() - self.live < CHUNK_RECORDS / 2
    }

    pub(super) fn capacity(&self) -> usize {
        self.chunks.len() * CHUNK_RECORDS
    }

    pub(super) fn live(&self) -> usize {
        self.live
    }

    /// Slots ever used: every lease is in one below this.
    pub(super) fn used(&self) -> usize {
        self.used
    }

    /// A free slot, if there is one; [`Self::fill`] makes it live.
    pub(super) fn vacancy(&self) -> Option<u32> {
        if self.free != NIL {
            return Some(self.free);
        }
        (self.used < self.capacity()).then(|| u32::try_from(self.used).expect("slots fit 30 bits"))
    }

    /// Puts `record` into the slot that [`Self::vacancy`] named.
    pub(super) fn fill(&mut self, slot: u32, record: Record) {
        debug_assert!(record.has(Flag::Live), "a record in use is live");
        if self.free == slot {
            self.free = self[slot].next;
            self[slot] = record;
        } else {
            let (chunk, at) = split(slot);
            assert!(self.chunks[chunk].len() == at, "fresh slots come in order");
            self.chunks[chunk].push(record);
            self.used += 1;
        }
        self.live += 1;
    }

    pub(super) fn vacate(&mut self, slot: u32) {
        assert!(self[slot].has(Flag::Live), "only a live slot is vacated");
        self[slot] = Record { next: self.free, ..Record::VACANT };
        self.free = slot;
        self.live -= 1;
    }

    /// The record of a slot that holds a lease.
    #[inline(always)]
    pub(super) fn live_at(&self, slot: u32) -> Option<&Record> {
        self.get(slot).filter(|record| record.has(Flag::Live))
    }

    #[inline(always)]
    fn get(&self, slot: u32) -> Option<&Record> {
        let (chunk, at) = split(slot);
        self.chunks.get(chunk)?.get(at)
    }

    /// The same, to be changed.
    #[inline(always)]
    pub(super) fn live_at_mut(&mut self, slot: u32) -> Option<&mut Record> {
        let (chunk, at) = split(slot);
        self.chunks.get_mut(chunk)?.get_mut(at).filter(|record| record.has(Flag::Live))
    }

    /// Where the list that the record of a slot is in goes on.
    #[inline(always)]
    pub(super) fn next_of(&self, slot: u32) -> u32 {
        self.get(slot).map_or(NIL, |record| record.next)
    }

    /// Starts loading the record of a slot, if there is such a slot.
    #[inline(always)]
    pub(super) fn prefetch(&self, slot: u32) {
        if let Some(record) = self.get(slot) {
            prefetch(record);
        }
    }
}

impl std::ops::Index<u32> for Slab {
    type Output = Record;

    #[inline(always)]
    fn index(&self, slot: u32) -> &Record {
        let (chunk, at) = split(slot);
        &self.chunks[chunk][at]
    }
}

impl std::ops::IndexMut<u32> for Slab {
    #[inline(always)]
    fn index_mut(&mut self, slot: u32) -> &mut Record {
        let (chunk, at) = split(slot);
        &mut self.chunks[chunk][at]
    }
}

fn split(slot: u32) -> (usize, usize) {
    let slot = usize::try_from(slot).expect("usize holds 32 bits");
    (slot >> CHUNK_SHIFT, slot & (CHUNK_RECORDS - 1))
}
