//! The one prefetch: asks the processor for the cache line of a value that will be read soon.

/// Starts loading the line that holds `value`. A hint: it changes nothing but time.
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
