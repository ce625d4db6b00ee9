//! The clocks: the only place that reads them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::time::{Mono, Now};

/// Both clocks, from one start.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    System(Instant),
    Hand(Arc<Hand>),
}

#[derive(Debug)]
struct Hand {
    mono: AtomicU64,
    wall_us: AtomicU64,
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock {
    /// The machine's clocks; monotonic time starts now.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the place that reads clocks")]
    pub fn new() -> Self {
        Self(Source::System(Instant::now()))
    }

    /// Clocks that stand until [`Self::set`] moves them, all clones together: virtual time.
    #[must_use]
    pub fn by_hand(mono: Mono, wall_us: u64) -> Self {
        Self(Source::Hand(Arc::new(Hand { mono: mono.0.into(), wall_us: wall_us.into() })))
    }

    /// Moves clocks that were made with [`Self::by_hand`]; the machine's are left alone.
    pub fn set(&self, mono: Mono, wall_us: u64) {
        if let Source::Hand(hand) = &self.0 {
            hand.mono.store(mono.0, Ordering::Relaxed);
            hand.wall_us.store(wall_us, Ordering::Relaxed);
        }
    }

    /// Both clocks, read one after the other.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the place that reads clocks")]
    pub fn now(&self) -> Now {
        let mono = match &self.0 {
            Source::System(start) => {
                u64::try_from(Instant::now().duration_since(*start).as_nanos()).unwrap_or(u64::MAX)
            }
            Source::Hand(hand) => hand.mono.load(Ordering::Relaxed),
        };
        Now { mono: Mono(mono), wall_s: self.wall_us() / 1_000_000 }
    }

    /// Sleeps until `time` has passed since `begun`; with clocks moved by hand nobody sleeps.
    #[expect(clippy::disallowed_methods, reason = "only server/ sleeps, and here it is")]
    pub fn rest(&self, begun: Mono, time: Duration) {
        if let Source::System(_) = &self.0 {
            let gone = Duration::from_nanos(self.now().mono.0.saturating_sub(begun.0));
            std::thread::sleep(time.saturating_sub(gone));
        }
    }

    /// Wall-clock time in microseconds since the Unix epoch; 0 for a clock that is set before it.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the place that reads clocks")]
    pub fn wall_us(&self) -> u64 {
        match &self.0 {
            Source::System(_) => SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| u64::try_from(since.as_micros()).unwrap_or(u64::MAX)),
            Source::Hand(hand) => hand.wall_us.load(Ordering::Relaxed),
        }
    }
}
