//! What is said about memory to the processor and to the kernel: what is needed next, what is looked into at random.
//!
//! Promises: no hint fails, whatever it is given; where there is no such hint it does nothing. `prefetch` costs an instruction; making
//! or dropping a [`Table`] takes system calls and so is not for shards at work.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::cell::Cell;
use std::iter::repeat_n;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

/// Starts loading the line that holds `value`.
#[inline]
pub(crate) fn prefetch<T>(value: &T) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        #[expect(
            unsafe_code,
            reason = "a batch of lookups without it costs four times as much (`benches/lease_table`)"
        )]
        // SAFETY: prefetching never faults and has no effect that a program can see; the address comes from a live
        // reference. No safe function of the standard library does this.
        unsafe {
            _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(value).cast());
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        let _ = value;
    }
}

/// Octets of a large page, which lies at a multiple of this.
const LARGE_PAGE_BYTES: usize = 2 << 20;
/// From here on a table has large pages of its own: with less, most of the last page would lie idle.
const TABLE_BYTES_MIN: usize = LARGE_PAGE_BYTES / 8;

/// A table of fixed room that is looked into at random, in large pages of its own.
///
/// With small pages nearly every look also misses the processor's memory of where pages are, for which a prefetch stands still. The
/// allocator's memory cannot be relied on for it: what it gives begins anywhere in a page, and after a large configuration was read
/// it was used before, in small pages. So a table is mapped by itself, at the beginning of a large page, if it takes more than the eighth part of one.
pub struct Table<T> {
    start: NonNull<T>,
    len: usize,
    capacity: usize,
}

#[expect(
    unsafe_code,
    reason = "a table owns what is in it, as a vector does; nothing safe can say so of mapped memory"
)]
// SAFETY: the memory belongs to the table alone and has no other ties to the thread that made it.
unsafe impl<T: Send> Send for Table<T> {}
#[expect(unsafe_code, reason = "as above")]
// SAFETY: through a shared reference the table gives out shared references to its elements and nothing else.
unsafe impl<T: Sync> Sync for Table<T> {}

impl<T> Table<T> {
    /// An empty table for `capacity` elements. It does not grow.
    #[must_use]
    pub fn with_capacity(capacity: usize) -> Self {
        const { assert!(size_of::<T>() > 0 && align_of::<T>() <= LARGE_PAGE_BYTES) };
        let Ok(layout) = Layout::array::<T>(capacity) else { handle_alloc_error(Layout::new::<T>()) };
        let start = match layout.size() {
            0 => Some(NonNull::dangling()),
            bytes if is_mapped(bytes) => map(bytes).map(NonNull::cast),
            #[expect(
                unsafe_code,
                reason = "what a vector does; a vector cannot be told to take mapped memory instead"
            )]
            // SAFETY: the layout's size is not zero.
            _ => NonNull::new(unsafe { alloc(layout) }).map(NonNull::cast),
        };
        let Some(start) = start else { handle_alloc_error(layout) };
        Self { start, len: 0, capacity }
    }

    /// A table of these elements and no room for more.
    pub fn full(elements: impl ExactSizeIterator<Item = T>) -> Self {
        let mut own = Self::with_capacity(elements.len());
        elements.for_each(|element| own.push(element));
        own
    }

    /// A table of `count` times this element.
    #[must_use]
    pub fn filled(element: T, count: usize) -> Self
    where
        T: Clone,
    {
        Self::full(repeat_n(element, count))
    }

    /// How many elements it has room for.
    #[must_use]
    pub const fn capacity(&self) -> usize {
        self.capacity
    }

    /// Adds an element behind the others.
    ///
    /// # Panics
    /// When there is no room.
    pub fn push(&mut self, element: T) {
        assert!(self.len < self.capacity, "a table does not grow");
        #[expect(unsafe_code, reason = "the one place that writes into memory without an element")]
        // SAFETY: there is room for `capacity` elements, and `len` is below that.
        unsafe {
            self.start.add(self.len).write(element);
        }
        self.len += 1;
    }
}

impl<T> Deref for Table<T> {
    type Target = [T];

    #[inline(always)]
    fn deref(&self) -> &[T] {
        #[expect(unsafe_code, reason = "the one place that makes elements of memory")]
        // SAFETY: the first `len` elements were written by `push`, and nobody changes them while `self` is borrowed.
        unsafe {
            std::slice::from_raw_parts(self.start.as_ptr(), self.len)
        }
    }
}

impl<T> DerefMut for Table<T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [T] {
        #[expect(unsafe_code, reason = "the same for changes")]
        // SAFETY: as above, and `self` is borrowed by nobody else.
        unsafe {
            std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len)
        }
    }
}

impl<T> Drop for Table<T> {
    fn drop(&mut self) {
        let elements: *mut [T] = &raw mut **self;
        #[expect(unsafe_code, reason = "the end of what `with_capacity` began")]
        // SAFETY: the elements were written and are dropped once; the memory is what `with_capacity` took for this capacity, and nothing
        // uses it afterwards.
        unsafe {
            elements.drop_in_place();
            match Layout::array::<T>(self.capacity) {
                Ok(layout) if is_mapped(layout.size()) => {
                    unmap(self.start.cast(), mapped_bytes(layout.size()))
                }
                Ok(layout) if layout.size() > 0 => dealloc(self.start.as_ptr().cast(), layout),
                _ => {}
            }
        }
    }
}

impl<T: Clone> Clone for Table<T> {
    fn clone(&self) -> Self {
        let mut own = Self::with_capacity(self.capacity);
        self.iter().for_each(|element| own.push(element.clone()));
        own
    }
}

/// The elements in a table of their own.
impl<T> From<Vec<T>> for Table<T> {
    fn from(elements: Vec<T>) -> Self {
        Self::full(elements.into_iter())
    }
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self::with_capacity(0)
    }
}

impl<T: std::fmt::Debug> std::fmt::Debug for Table<T> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        (**self).fmt(out)
    }
}

thread_local! {
    /// Without a destructor and with a constant start, so that counting allocates nothing.
    static SYSTEM_CALLS: Cell<u64> = const { Cell::new(0) };
}

/// How often this thread has mapped memory for a table or given it back: what a counting allocator does not see.
#[must_use]
pub fn system_calls_here() -> u64 {
    SYSTEM_CALLS.get()
}

fn count_system_call() {
    SYSTEM_CALLS.set(SYSTEM_CALLS.get() + 1);
}

/// Whether a table of so many octets is mapped.
const fn is_mapped(bytes: usize) -> bool {
    cfg!(target_os = "linux") && bytes >= TABLE_BYTES_MIN
}

/// What is mapped for so many octets: whole large pages.
const fn mapped_bytes(bytes: usize) -> usize {
    bytes.next_multiple_of(LARGE_PAGE_BYTES)
}

/// Maps fresh memory for a table of `bytes` octets at the beginning of a large page, and asks the kernel for large ones. Nothing when
/// there is no memory.
#[cfg(target_os = "linux")]
fn map(bytes: usize) -> Option<NonNull<u8>> {
    count_system_call();
    // A layout is no longer than half of all addresses. A large page begins within the first of this, and what lies around goes back.
    let whole = mapped_bytes(bytes);
    let asked = whole + LARGE_PAGE_BYTES;
    let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    #[expect(unsafe_code, reason = "no safe function of the standard library maps memory")]
    // SAFETY: a new private mapping of no file touches nothing that there is, and what is unmapped are whole pages of it that are not given
    // out. The advice changes neither what is there nor who may touch it; it does not matter when a kernel without large pages refuses it.
    unsafe {
        let base = libc::mmap(std::ptr::null_mut(), asked, access, kind, -1, 0);
        let base = NonNull::new(base.cast::<u8>()).filter(|_| base != libc::MAP_FAILED)?;
        let before = base.align_offset(LARGE_PAGE_BYTES);
        let start = base.add(before);
        unmap(base, before);
        unmap(start.add(whole), asked - whole - before);
        libc::madvise(start.as_ptr().cast(), whole, libc::MADV_HUGEPAGE);
        Some(start)
    }
}

/// Gives `bytes` octets of mapped memory back.
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "no safe function of the standard library unmaps memory")]
// SAFETY: for the caller: these are whole pages of a mapping of `map`, and nothing uses them any more.
unsafe fn unmap(start: NonNull<u8>, bytes: usize) {
    if bytes > 0 {
        count_system_call();
        // SAFETY: as the caller promises. It can only fail for want of kernel memory; then the mapping stays.
        unsafe {
            libc::munmap(start.as_ptr().cast(), bytes);
        }
    }
}

/// Nowhere else is memory mapped.
#[cfg(not(target_os = "linux"))]
const fn map(_bytes: usize) -> Option<NonNull<u8>> {
    None
}

/// Nor given back.
#[cfg(not(target_os = "linux"))]
#[expect(unsafe_code, reason = "called where the other one is")]
// SAFETY: it does nothing.
const unsafe fn unmap(_start: NonNull<u8>, _bytes: usize) {}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn a_table_holds_what_was_put_in() {
        for count in [0, 1, 4096, TABLE_BYTES_MIN, LARGE_PAGE_BYTES, 3 * LARGE_PAGE_BYTES + 5] {
            let mut table = Table::with_capacity(count);
            assert!(table.is_empty());
            (0..count).for_each(|at| table.push(u8::try_from(at % 251).expect("small")));
            assert_eq!((table.len(), table.capacity()), (count, count));
            assert!(table.iter().enumerate().all(|(at, octet)| usize::from(*octet) == at % 251));
            table.iter_mut().for_each(|octet| *octet = 7);
            assert!(table.clone().iter().all(|octet| *octet == 7));
        }
    }

    #[test]
    fn a_large_table_begins_with_a_large_page() {
        let tables: Vec<Table<u64>> = [TABLE_BYTES_MIN, LARGE_PAGE_BYTES, LARGE_PAGE_BYTES + 8]
            .map(|bytes| Table::with_capacity(bytes / 8))
            .into();
        for table in &tables {
            assert_eq!(is_mapped(table.capacity() * 8), cfg!(target_os = "linux"));
            assert!(!cfg!(target_os = "linux") || table.start.align_offset(LARGE_PAGE_BYTES) == 0);
        }
        assert!(!is_mapped(TABLE_BYTES_MIN - 1));
    }

    #[test]
    fn its_elements_are_dropped_once() {
        for room in [4, TABLE_BYTES_MIN] {
            let shared = Arc::new(());
            let mut table = Table::with_capacity(room);
            (0..3).for_each(|_| table.push(Arc::clone(&shared)));
            assert_eq!(Arc::strong_count(&shared), 4);
            drop(table);
            assert_eq!(Arc::strong_count(&shared), 1);
        }
    }

    #[test]
    #[should_panic(expected = "does not grow")]
    fn a_full_table_takes_no_more() {
        Table::full([1, 2].into_iter()).push(3);
    }
}
