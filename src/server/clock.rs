//! The clocks: the only place that reads them.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::time::{Mono, Now};

/// Both clocks, from one start.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock {
    /// A clock that starts now.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the place that reads clocks")]
    pub fn new() -> Self {
        Self { start: Instant::now() }
    }

    /// Both clocks, read one after the other.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the place that reads clocks")]
    pub fn now(&self) -> Now {
        let mono = u64::try_from(Instant::now().duration_since(self.start).as_nanos()).unwrap_or(u64::MAX);
        Now { mono: Mono(mono), wall_s: self.wall_us() / 1_000_000 }
    }

    /// Wall-clock time in microseconds since the Unix epoch; 0 for a clock that is set before it.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the place that reads clocks")]
    pub fn wall_us(&self) -> u64 {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
    }
}
