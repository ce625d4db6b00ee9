//! What is said about memory to the processor and to the kernel. Hints: they change nothing but time.
//!
//! Promises: no hint fails, whatever it is given; where there is no such hint it does nothing. [`prefetch`] costs an instruction;
//! [`in_large_pages`] is a system call and so not for shards at work.

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

/// Octets of a large page: less memory than that gains nothing.
const LARGE_PAGE_BYTES: usize = 2 << 20;
/// Octets of a page as it is asked about.
const PAGE_BYTES: usize = 4096;

/// Asks the kernel for large pages under all memory of `room`, used or not. Tables that are looked into at random need it: with small
/// pages every look also misses the processor's memory of where pages are, which prefetching hides only in part. What was touched
/// before moves at the kernel's leisure.
pub(crate) fn in_large_pages<T>(room: Vec<T>) -> Vec<T> {
    #[cfg(target_os = "linux")]
    {
        let start = room.as_ptr().cast::<u8>();
        let bytes = room.capacity() * size_of::<T>();
        // Whole pages only: what else lies in the first and the last one is none of ours.
        let first = start.align_offset(PAGE_BYTES);
        let whole = bytes.saturating_sub(first) / PAGE_BYTES * PAGE_BYTES;
        if whole >= LARGE_PAGE_BYTES {
            #[expect(
                unsafe_code,
                reason = "no safe function of the standard library says it, and a miss costs up to 50 ns more"
            )]
            // SAFETY: the pages lie within memory that this vector owns, and the advice changes neither what is in them nor
            // who may touch them. That it is refused (a kernel without large pages) does not matter.
            unsafe {
                libc::madvise(start.add(first).cast_mut().cast(), whole, libc::MADV_HUGEPAGE);
            }
        }
    }
    room
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advice_changes_nothing_that_is_there() {
        for count in [0, 1, PAGE_BYTES, LARGE_PAGE_BYTES, 3 * LARGE_PAGE_BYTES + 5] {
            let mut room: Vec<u8> = Vec::with_capacity(count);
            room.extend((0..count).map(|at| u8::try_from(at % 251).expect("small")));
            let room = in_large_pages(room);
            assert_eq!(room.len(), count);
            assert!(room.iter().enumerate().all(|(at, octet)| usize::from(*octet) == at % 251));
        }
    }
}
