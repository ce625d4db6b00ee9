//! The long parts of leases: blocks of fixed size classes in chunks that the control thread hands in.
//!
//! ```text
//! block: 0 class u8 | 1 client-id length u8 | 2 hostname length u16 | 4 context length u16 | 6 unused u16 | 8 pool_id u32
//!       12 hardware address (long ones) | client identifier (long ones) | host name | user context
//! free block: 4 next free block u32
//! ```
//!
//! A chunk is cut into pages; a page, once it holds blocks of one class, keeps that class. Nothing is written ahead of use,
//! so that memory which no lease needs stays untouched.

/// Octets of a block before its parts.
pub(super) const HEADER_BYTES: usize = 12;
/// Longest sum of the parts of one lease.
pub(super) const PARTS_BYTES_MAX: usize = PAGE_BYTES - HEADER_BYTES;

const GRANULE_BYTES: usize = 16;
const PAGE_BYTES: usize = 16 * 1024;
const CHUNK_BYTES: usize = 2 * 1024 * 1024;
const PAGES_PER_CHUNK: usize = CHUNK_BYTES / PAGE_BYTES;
const CLASS_BYTES: [usize; 16] =
    [32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 4096, 8192, PAGE_BYTES];

const _: () = assert!(CHUNK_BYTES.is_multiple_of(PAGE_BYTES));

/// A chunk of blob memory, made by the control thread.
pub struct BlobChunk(Box<[u8]>);

impl BlobChunk {
    /// Bytes of a chunk.
    pub const BYTES: usize = CHUNK_BYTES;

    /// Asks the system for zeroed memory; pages that are never used are never touched.
    pub(super) fn allocate() -> Self {
        Self(vec![0; CHUNK_BYTES].into_boxed_slice())
    }
}

impl std::fmt::Debug for BlobChunk {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "BlobChunk({} bytes)", self.0.len())
    }
}

/// A block, by granule; 0 is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BlobRef(pub(super) u32);

impl BlobRef {
    pub(super) const NONE: Self = Self(0);

    pub(super) fn is_none(self) -> bool {
        self == Self::NONE
    }

    fn offset(self) -> usize {
        (usize::try_from(self.0).expect("usize holds 32 bits") - 1) * GRANULE_BYTES
    }

    fn at(offset: usize) -> Self {
        Self(
            u32::try_from(offset / GRANULE_BYTES + 1)
                .expect("the bound on chunks keeps granules within 32 bits"),
        )
    }
}

/// What a block holds besides what the record has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Parts<'a> {
    pub(super) pool_id: u32,
    pub(super) hw: &'a [u8],
    pub(super) client_id: &'a [u8],
    pub(super) hostname: &'a [u8],
    pub(super) user_context: &'a [u8],
}

impl Parts<'_> {
    pub(super) fn is_empty(&self) -> bool {
        *self == Parts::default()
    }

    fn bytes(&self) -> usize {
        self.hw.len() + self.client_id.len() + self.hostname.len() + self.user_context.len()
    }

    /// Whether a block can hold them at all.
    pub(super) fn fit(&self) -> bool {
        self.bytes() <= PARTS_BYTES_MAX
            && u8::try_from(self.client_id.len()).is_ok()
            && u16::try_from(self.hostname.len()).is_ok()
            && u16::try_from(self.user_context.len()).is_ok()
    }
}

#[derive(Clone, Copy, Default)]
struct Class {
    /// First free block.
    free: u32,
    /// The page being cut up: next offset, end.
    cut: usize,
    end: usize,
}

/// The blocks of one table.
pub(super) struct Arena {
    chunks: Vec<Box<[u8]>>,
    classes: [Class; CLASS_BYTES.len()],
    page_count: usize,
    used_bytes: usize,
}

impl Arena {
    /// An arena of at most `chunk_count_max` chunks, without any yet.
    pub(super) fn new(chunk_count_max: usize) -> Self {
        Self {
            chunks: Vec::with_capacity(chunk_count_max),
            classes: [Class::default(); CLASS_BYTES.len()],
            page_count: 0,
            used_bytes: 0,
        }
    }

    /// Takes a chunk in, unless the bound is reached.
    pub(super) fn add(&mut self, chunk: BlobChunk) -> Result<(), BlobChunk> {
        if self.chunks.len() == self.chunks.capacity() {
            return Err(chunk);
        }
        self.chunks.push(chunk.0);
        Ok(())
    }

    /// Whether less than a quarter chunk of uncut pages is left and the bound allows another chunk.
    pub(super) fn wants_chunk(&self) -> bool {
        self.chunks.len() < self.chunks.capacity()
            && self.chunks.len() * PAGES_PER_CHUNK - self.page_count < PAGES_PER_CHUNK / 4
    }

    /// Bytes in blocks that hold something, rounded up to their classes.
    pub(super) fn used_bytes(&self) -> usize {
        self.used_bytes
    }

    /// Bytes of all chunks.
    pub(super) fn capacity_bytes(&self) -> usize {
        self.chunks.len() * CHUNK_BYTES
    }

    /// Stores `parts` in a new block; nothing when there is no room. The parts must [`Parts::fit`].
    pub(super) fn store(&mut self, parts: &Parts<'_>) -> Option<BlobRef> {
        let class = class_for(HEADER_BYTES + parts.bytes());
        let blob = self.take(class)?;
        self.write(blob, class, parts);
        Some(blob)
    }

    /// Replaces what `blob` holds (it may be none, and so may the outcome); nothing, and nothing changed, when there is no room.
    pub(super) fn replace(&mut self, blob: BlobRef, parts: &Parts<'_>) -> Option<BlobRef> {
        if parts.is_empty() {
            self.free(blob);
            return Some(BlobRef::NONE);
        }
        if blob.is_none() {
            return self.store(parts);
        }
        let class = class_for(HEADER_BYTES + parts.bytes());
        if class == self.class_of(blob) {
            self.write(blob, class, parts);
            return Some(blob);
        }
        let moved = self.store(parts)?;
        self.free(blob);
        Some(moved)
    }

    /// Replaces what `blob` holds by less of it: never fails, for without room for a smaller block it stays where it is.
    pub(super) fn shrink(&mut self, blob: BlobRef, parts: &Parts<'_>) -> BlobRef {
        self.replace(blob, parts).unwrap_or_else(|| {
            let class = self.class_of(blob);
            self.write(blob, class, parts);
            blob
        })
    }

    /// Gives a block back.
    pub(super) fn free(&mut self, blob: BlobRef) {
        if blob.is_none() {
            return;
        }
        let class = self.class_of(blob);
        self.used_bytes -= CLASS_BYTES[class];
        let next = self.classes[class].free;
        self.block_mut(blob, class)[4..8].copy_from_slice(&next.to_le_bytes());
        self.classes[class].free = blob.0;
    }

    /// What `blob` holds; `hw_bytes` octets of it are the hardware address.
    #[inline(always)]
    pub(super) fn read(&self, blob: BlobRef, hw_bytes: usize) -> Parts<'_> {
        if blob.is_none() {
            return Parts::default();
        }
        let block = self.block(blob, self.class_of(blob));
        let (header, rest) = block.split_at(HEADER_BYTES);
        let [_, client_id, h0, h1, c0, c1, _, _, p0, p1, p2, p3] = *header.first_chunk().expect("a header");
        let (hw, rest) = rest.split_at(hw_bytes);
        let (client_id, rest) = rest.split_at(usize::from(client_id));
        let (hostname, rest) = rest.split_at(usize::from(u16::from_le_bytes([h0, h1])));
        let (user_context, _) = rest.split_at(usize::from(u16::from_le_bytes([c0, c1])));
        Parts { pool_id: u32::from_le_bytes([p0, p1, p2, p3]), hw, client_id, hostname, user_context }
    }

    /// The first line of a block, for a prefetch.
    pub(super) fn first_octet(&self, blob: BlobRef) -> Option<&u8> {
        (!blob.is_none()).then(|| &self.chunks[blob.offset() / CHUNK_BYTES][blob.offset() % CHUNK_BYTES])
    }

    fn take(&mut self, class: usize) -> Option<BlobRef> {
        let free = BlobRef(self.classes[class].free);
        let blob = if free.is_none() {
            if self.classes[class].cut + CLASS_BYTES[class] > self.classes[class].end {
                if self.page_count == self.chunks.len() * PAGES_PER_CHUNK {
                    return None;
                }
                self.classes[class].cut = self.page_count * PAGE_BYTES;
                self.classes[class].end = self.classes[class].cut + PAGE_BYTES;
                self.page_count += 1;
            }
            let offset = self.classes[class].cut;
            self.classes[class].cut += CLASS_BYTES[class];
            BlobRef::at(offset)
        } else {
            let next = *self.block(free, class)[4..8].first_chunk().expect("four octets");
            self.classes[class].free = u32::from_le_bytes(next);
            free
        };
        self.used_bytes += CLASS_BYTES[class];
        Some(blob)
    }

    fn write(&mut self, blob: BlobRef, class: usize, parts: &Parts<'_>) {
        let block = self.block_mut(blob, class);
        let length = |part: &[u8]| u16::try_from(part.len()).expect("parts fit").to_le_bytes();
        block[0] = u8::try_from(class).expect("sixteen classes");
        block[1] = u8::try_from(parts.client_id.len()).expect("parts fit");
        block[2..4].copy_from_slice(&length(parts.hostname));
        block[4..6].copy_from_slice(&length(parts.user_context));
        block[8..12].copy_from_slice(&parts.pool_id.to_le_bytes());
        let mut rest = &mut block[HEADER_BYTES..];
        for part in [parts.hw, parts.client_id, parts.hostname, parts.user_context] {
            let (to, after) = rest.split_at_mut(part.len());
            to.copy_from_slice(part);
            rest = after;
        }
    }

    fn class_of(&self, blob: BlobRef) -> usize {
        usize::from(self.chunks[blob.offset() / CHUNK_BYTES][blob.offset() % CHUNK_BYTES])
    }

    fn block(&self, blob: BlobRef, class: usize) -> &[u8] {
        let start = blob.offset() % CHUNK_BYTES;
        &self.chunks[blob.offset() / CHUNK_BYTES][start..start + CLASS_BYTES[class]]
    }

    fn block_mut(&mut self, blob: BlobRef, class: usize) -> &mut [u8] {
        let start = blob.offset() % CHUNK_BYTES;
        &mut self.chunks[blob.offset() / CHUNK_BYTES][start..start + CLASS_BYTES[class]]
    }
}

fn class_for(bytes: usize) -> usize {
    CLASS_BYTES.partition_point(|class_bytes| *class_bytes < bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(hostname: &[u8]) -> Parts<'_> {
        Parts { pool_id: 7, hostname, ..Parts::default() }
    }

    #[test]
    fn a_full_arena_refuses_and_a_freed_block_serves_again() {
        let mut arena = Arena::new(1);
        assert_eq!(arena.store(&parts(b"none yet")), None);
        arena.add(BlobChunk::allocate()).expect("the first chunk");
        assert!(arena.add(BlobChunk::allocate()).is_err());
        let long = [b'x'; PARTS_BYTES_MAX];
        let mut blobs = Vec::new();
        while let Some(blob) = arena.store(&parts(&long)) {
            blobs.push(blob);
        }
        assert_eq!(blobs.len(), PAGES_PER_CHUNK);
        assert_eq!(arena.store(&parts(b"short")), None);
        arena.free(blobs.pop().expect("some"));
        let again = arena.store(&parts(&long[1..])).expect("a block is free");
        assert_eq!(arena.read(again, 0).hostname, &long[1..]);
    }

    #[test]
    fn a_block_that_outgrows_its_class_moves_and_one_that_does_not_stays() {
        let mut arena = Arena::new(1);
        arena.add(BlobChunk::allocate()).expect("room");
        let first = arena.store(&parts(b"a")).expect("room");
        let same = arena.replace(first, &parts(b"abcdef")).expect("room");
        assert_eq!(first, same);
        let moved = arena.replace(same, &parts(&[b'y'; 100])).expect("room");
        assert_ne!(same, moved);
        assert_eq!(arena.read(moved, 0).hostname, &[b'y'; 100]);
        assert_eq!(arena.used_bytes(), 128);
        assert_eq!(arena.replace(moved, &Parts::default()), Some(BlobRef::NONE));
        assert_eq!(arena.used_bytes(), 0);
    }
}
