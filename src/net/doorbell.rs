//! How other threads wake a shard that sleeps, and cost it nothing while it does not.
//!
//! The shard announces its sleep, looks at its queues once more, and only then sleeps; a producer fills its queue, and
//! only then looks whether the shard sleeps. Whatever the order, either the shard sees the work or the producer sees the
//! sleeper. A ring costs one load while the shard works, one system call when it sleeps.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, Ordering, fence};

use crossbeam::utils::CachePadded;

use super::sys::EventFd;

/// A shard's bell. Any thread may ring; the shard alone sleeps on it.
#[derive(Debug)]
pub struct Doorbell {
    asleep: CachePadded<AtomicBool>,
    event: EventFd,
}

impl Doorbell {
    /// A bell nobody has rung.
    ///
    /// # Errors
    /// When the kernel has no file descriptor left.
    pub fn new() -> io::Result<Self> {
        Ok(Self { asleep: CachePadded::new(AtomicBool::new(false)), event: EventFd::new()? })
    }

    /// Wakes the shard if it sleeps or is about to. Call it after the work is visible in its queue.
    pub fn ring(&self) {
        fence(Ordering::SeqCst);
        if self.asleep.load(Ordering::Relaxed) && self.asleep.swap(false, Ordering::Relaxed) {
            self.event.signal();
        }
    }

    /// Whether the shard sleeps or is about to, for a ringer that would not wake it for everything. Call it after a full fence that
    /// follows the work.
    #[must_use]
    pub fn has_sleeper(&self) -> bool {
        self.asleep.load(Ordering::Relaxed)
    }

    /// Announces sleep; after it the shard looks at its queues once more.
    pub(super) fn lie_down(&self) {
        self.asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// Ends the announcement; `rung` says that the descriptor was readable.
    pub(super) fn get_up(&self, rung: bool) {
        // A producer that took the flag has rung or is about to: then the descriptor may become readable after we have
        // looked, and the next sleep ends at once, once. That is harmless.
        self.asleep.store(false, Ordering::Relaxed);
        if rung {
            self.event.drain();
        }
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.event.fd()
    }
}
