//! Time as a value: pure rooms take [`Now`] as an argument and never read a clock.
//!
//! Promises: no allocation, no panic; any thread may use it.

/// One reading of both clocks, taken once per batch or turn by `server/` (or made up by a test or the simulator).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Now {
    /// Monotonic time since an arbitrary start.
    pub mono: Mono,
    /// Wall-clock time: whole seconds since the Unix epoch, UTC. Lease times are of this kind (RFC 2131 has no sub-second times).
    pub wall_s: u64,
}

impl Now {
    /// The same moment, as both clocks see it `ms` later.
    #[must_use]
    pub const fn plus_ms(self, ms: u64) -> Self {
        Self { mono: Mono(self.mono.0 + ms * 1_000_000), wall_s: self.wall_s + ms / 1000 }
    }

    /// Whole seconds from `earlier` to `self`, however the wall clock was set meanwhile.
    #[must_use]
    pub const fn seconds_since(self, earlier: Self) -> u64 {
        self.mono.ms_since(earlier.mono) / 1000
    }
}

/// Monotonic time in nanoseconds since an arbitrary start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mono(pub u64);

impl Mono {
    /// Milliseconds from `earlier` to `self`; 0 when `earlier` is later.
    #[must_use]
    pub const fn ms_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0) / 1_000_000
    }

    /// This moment moved by `ms` milliseconds.
    #[must_use]
    pub const fn plus_ms(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms.saturating_mul(1_000_000)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_pass_however_the_clock_is_set() {
        let start = Now { mono: Mono(5_000_000_000), wall_s: 1_700_000_000 };
        for wall_s in [0, 1_699_000_000, 1_700_000_007, 1_800_000_000] {
            let now = Now { mono: Mono(12_999_000_000), wall_s };
            assert_eq!(now.seconds_since(start), 7);
        }
    }
}
