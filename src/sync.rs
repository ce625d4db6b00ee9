//! The few cells that threads share: a watermark and the plan cell.
//!
//! Promises: no lock is taken per packet; readers of a [`Watermark`] never block. Any thread may call.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam::utils::CachePadded;
use parking_lot::Mutex;

use crate::ids::Lsn;

/// A log position that only grows: published by one thread (log thread, peer worker), read by a shard.
#[derive(Debug, Default)]
pub struct Watermark(CachePadded<AtomicU64>);

impl Watermark {
    /// Makes `lsn` visible. A lower value than the one published is ignored: a watermark never goes back.
    pub fn publish(&self, lsn: Lsn) {
        self.0.fetch_max(lsn.0, Ordering::Release);
    }

    /// The highest position published.
    #[must_use]
    pub fn read(&self) -> Lsn {
        Lsn(self.0.load(Ordering::Acquire))
    }
}

/// An immutable value that is replaced as a whole; readers compare one generation number per batch.
#[derive(Debug)]
pub struct PlanCell<T> {
    generation: CachePadded<AtomicU64>,
    current: Mutex<Arc<T>>,
}

impl<T> PlanCell<T> {
    /// A cell that holds `first` as generation 1.
    #[must_use]
    pub fn new(first: Arc<T>) -> Self {
        Self { generation: CachePadded::new(AtomicU64::new(1)), current: Mutex::new(first) }
    }

    /// The number of the value held; compare with the one a reader remembers.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// The value held. Takes a lock: call it only when the generation has changed.
    #[must_use]
    pub fn load(&self) -> Arc<T> {
        Arc::clone(&self.current.lock())
    }

    /// Replaces the value and returns the old one, which the caller frees when no shard uses it any more.
    pub fn publish(&self, next: Arc<T>) -> Arc<T> {
        let mut current = self.current.lock();
        let old = std::mem::replace(&mut *current, next);
        self.generation.fetch_add(1, Ordering::Release);
        old
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn watermark_never_goes_back() {
        let mark = Watermark::default();
        mark.publish(Lsn(5));
        mark.publish(Lsn(3));
        assert_eq!(mark.read(), Lsn(5));
    }

    #[test]
    fn plan_cell_counts_generations() {
        let cell = PlanCell::new(Arc::new(1));
        assert_eq!((cell.generation(), *cell.load()), (1, 1));
        assert_eq!(*cell.publish(Arc::new(2)), 1);
        assert_eq!((cell.generation(), *cell.load()), (2, 2));
    }
}
