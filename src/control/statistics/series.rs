//! Samples of one counter over time.

use std::collections::VecDeque;
use std::io::Write as _;

use super::SAMPLES_MAX;
use crate::control::clock::{self, Zone};

/// Which samples are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Retention {
    Count(u32),
    AgeUs(u64),
}

/// The samples of one counter.
#[derive(Clone, Debug)]
pub(super) struct Series {
    /// Newest first: value, microseconds since the epoch.
    pub(super) samples: VecDeque<(i64, u64)>,
    pub(super) retention: Retention,
    /// What the counter stood at when this series was last zero.
    pub(super) offset: u64,
    /// The counter at removal: the series is not there until it moves.
    pub(super) hidden_at: Option<u64>,
}

impl Series {
    pub(super) fn new(retention: Retention) -> Self {
        Self { samples: VecDeque::new(), retention, offset: 0, hidden_at: None }
    }

    pub(super) fn observe(&mut self, raw: u64, now_us: u64) {
        if let Some(at) = self.hidden_at {
            if at == raw {
                return;
            }
            self.hidden_at = None;
            self.offset = at;
        }
        let value = i64::try_from(i128::from(raw) - i128::from(self.offset)).unwrap_or(i64::MAX);
        if self.samples.front().is_none_or(|(newest, _)| *newest != value) {
            self.samples.push_front((value, now_us));
        }
        self.trim(now_us);
    }

    pub(super) fn trim(&mut self, now_us: u64) {
        let count_max = match self.retention {
            Retention::Count(count) => usize::try_from(count).unwrap_or(SAMPLES_MAX),
            Retention::AgeUs(age_us) => {
                // The newest sample stays whatever its age.
                while self.samples.len() > 1
                    && self.samples.back().is_some_and(|(_, at)| now_us.saturating_sub(*at) > age_us)
                {
                    self.samples.pop_back();
                }
                SAMPLES_MAX
            }
        };
        self.samples.truncate(count_max.clamp(1, SAMPLES_MAX));
    }

    pub(super) fn reset(&mut self, raw: u64, now_us: u64) {
        self.offset = raw;
        self.samples.clear();
        self.samples.push_front((0, now_us));
    }

    /// The counter itself is the value again, and there.
    pub(super) const fn forget_reset(&mut self) {
        self.offset = 0;
        self.hidden_at = None;
    }

    pub(super) fn remove(&mut self, raw: u64) {
        self.samples.clear();
        self.hidden_at = Some(raw);
    }

    pub(super) const fn is_there(&self) -> bool {
        self.hidden_at.is_none()
    }

    pub(super) fn print(&self, zone: &Zone, out: &mut Vec<u8>) {
        out.extend_from_slice(b"[ ");
        for (index, (value, at_us)) in self.samples.iter().enumerate() {
            if index > 0 {
                out.extend_from_slice(b", ");
            }
            // Writing to a vector cannot fail.
            let _ =
                write!(out, "[ {value}, \"{}\" ]", clock::stamp(*at_us, zone.offset_s(at_us / 1_000_000)));
        }
        out.extend_from_slice(b" ]");
    }
}
