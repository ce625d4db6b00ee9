//! How a shard wakes the log thread: for the price of a fence when it is awake, of one system call when it sleeps.
//!
//! The sleeper says that it sleeps, then looks once more whether there is work; the ringer appends, then looks
//! whether somebody sleeps. With a full fence between the two steps on both sides, at least one sees the other.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::time::Duration;

use crossbeam::sync::{Parker, Unparker};
use crossbeam::utils::CachePadded;

/// The ringing end: any thread, any number of clones.
#[derive(Clone, Debug)]
pub struct Doorbell {
    is_asleep: Arc<CachePadded<AtomicBool>>,
    unparker: Unparker,
}

/// The sleeping end: the one thread that made it or was given it.
#[derive(Debug)]
pub struct Sleeper {
    is_asleep: Arc<CachePadded<AtomicBool>>,
    parker: Parker,
}

/// A doorbell and its sleeper.
#[must_use]
pub fn doorbell() -> (Doorbell, Sleeper) {
    let is_asleep = Arc::new(CachePadded::new(AtomicBool::new(false)));
    let parker = Parker::new();
    let unparker = parker.unparker().clone();
    (Doorbell { is_asleep: Arc::clone(&is_asleep), unparker }, Sleeper { is_asleep, parker })
}

impl Doorbell {
    /// Wakes the sleeper if it sleeps. Call it after the work has been made visible, once per batch.
    #[inline]
    pub fn ring(&self) {
        fence(Ordering::SeqCst);
        if self.is_asleep.load(Ordering::Relaxed) && self.is_asleep.swap(false, Ordering::AcqRel) {
            self.unparker.unpark();
        }
    }
}

impl Sleeper {
    /// Sleeps until rung or until `limit` has passed, unless `has_work` says that there is something to do already.
    /// May return early for no reason.
    pub fn sleep(&self, limit: Option<Duration>, has_work: impl FnOnce() -> bool) {
        self.is_asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        if !has_work() {
            match limit {
                Some(limit) => self.parker.park_timeout(limit),
                None => self.parker.park(),
            }
        }
        self.is_asleep.store(false, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use super::*;

    #[test]
    fn no_ring_is_lost_however_sleep_and_work_interleave() {
        let (bell, sleeper) = doorbell();
        let work = Arc::new(AtomicU64::new(0));
        let done = Arc::new(AtomicU64::new(0));
        let (theirs, finished) = (Arc::clone(&work), Arc::clone(&done));
        let worker = std::thread::spawn(move || {
            let mut seen = 0;
            while seen < 20_000 {
                // Without a limit: a lost ring would hang this test for ever.
                sleeper.sleep(None, || theirs.load(Ordering::Acquire) > seen);
                seen = theirs.load(Ordering::Acquire);
                finished.store(seen, Ordering::Release);
            }
        });
        for round in 1..=20_000 {
            work.store(round, Ordering::Release);
            bell.ring();
            if round % 3 == 0 {
                while done.load(Ordering::Acquire) < round {
                    std::thread::yield_now();
                }
            }
        }
        worker.join().expect("the sleeper ended well");
    }
}
