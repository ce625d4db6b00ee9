//! How fast frames come, and whether a shard that has served them all may let more of them come before it looks again.
//!
//! To be woken costs more than to serve a frame. Where frames come so fast that a nap finds several of them, a shard that has nothing to
//! do naps instead of waiting for the very next one, as network cards moderate their interrupts. Where they are few, nobody waits for
//! a nap to end.

use std::time::Duration;

use crate::time::Mono;

/// How long a nap is. The kernel adds up to its timer slack of 50 microseconds.
pub(super) const NAP: Duration = Duration::from_micros(100);
/// So many frames are expected in a nap, or there is none.
const FRAMES_PER_NAP: u64 = 2;
/// How long frames are counted before the rate is judged.
const WINDOW_NS: u64 = 1_000_000;

/// The rate of a shard's frames.
#[derive(Debug, Default)]
pub(super) struct Pace {
    since: Mono,
    frames: u64,
    is_fast: bool,
}

impl Pace {
    /// A turn at `now` has received so many frames.
    pub(super) fn heard(&mut self, now: Mono, count: usize) {
        self.frames += count as u64;
        let passed_ns = now.0.saturating_sub(self.since.0);
        if passed_ns < WINDOW_NS {
            return;
        }
        let nap_ns = u64::try_from(NAP.as_nanos()).unwrap_or(u64::MAX);
        self.is_fast = self.frames.saturating_mul(nap_ns) >= passed_ns.saturating_mul(FRAMES_PER_NAP);
        (self.since, self.frames) = (now, 0);
    }

    /// Whether a nap will find frames.
    pub(super) const fn is_fast(&self) -> bool {
        self.is_fast
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Turns that hear one frame every so often, for 10 ms from `from` on; whether each one found the pace fast.
    fn at_every(pace: &mut Pace, from: u64, interval_ns: u64) -> Vec<bool> {
        (0..10_000_000 / interval_ns)
            .map(|turn| {
                pace.heard(Mono(from + turn * interval_ns), 1);
                pace.is_fast()
            })
            .collect()
    }

    #[test]
    fn naps_begin_and_end_within_a_window_of_the_rate_that_is_worth_them() {
        let mut pace = Pace::default();
        assert!(at_every(&mut pace, 5, 60_000).iter().all(|fast| !fast), "too few for a nap");
        let seen = at_every(&mut pace, 10_000_005, 40_000);
        assert!(seen[60..].iter().all(|fast| *fast), "{seen:?}");
        pace.heard(Mono(21_500_000), 0);
        pace.heard(Mono(23_000_000), 0);
        assert!(!pace.is_fast(), "nothing comes any more");
    }
}
