//! The log thread: rows written and synced in groups, watermarks published, the file moved aside for its clean-up.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;

use super::clock::Clock;
use super::gathering::{LOG_GROUPS_APART, is_worth_a_pause};
use super::shard_bell::ShardBell;
use super::told;
use crate::journal::V4;
use crate::store::{self, Compaction, GroupCommit, LeaseFiles, RealDisk, Rotation};
use crate::time::Mono;

/// How long an idle log thread sleeps at most.
const LOG_SLEEP: Duration = Duration::from_millis(500);
/// What the log thread says of itself.
#[derive(Debug, Default)]
pub struct LogStatus {
    /// Why it has stopped; nothing while it works.
    pub failure: Mutex<Option<String>>,
    /// Changes written.
    pub changes: AtomicU64,
    /// Groups written.
    pub groups: AtomicU64,
    /// Syncs.
    pub syncs: AtomicU64,
    /// Whether the control thread waits for a change to become durable: only then is it woken after a group.
    pub(super) awaited: AtomicBool,
    pub(super) rotate: AtomicBool,
    /// What became of the rotation that was asked for: whether there is something to clean up, or why it failed.
    pub(super) rotated: Mutex<Option<Result<bool, String>>>,
    pub(super) stop: AtomicBool,
}

/// The log thread's work.
pub struct LogWork {
    pub(super) group: GroupCommit,
    pub(super) status: Arc<LogStatus>,
    pub(super) bells: Vec<Arc<ShardBell>>,
    pub(super) wake_control: Arc<dyn Fn() + Send + Sync>,
    pub(super) sleeper: store::Sleeper,
}

/// What comes after a turn of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogNext {
    /// Another turn.
    Turn,
    /// Another turn, but changes come so fast that it is worth letting more of them come first.
    Gather,
    /// Nothing before this time, or before the bell rings.
    Sleep(Option<Mono>),
    /// The end: [`LogStatus::failure`] says whether there is something wrong.
    End,
}

impl LogWork {
    /// One turn: rows written and synced, watermarks published, a rotation that was asked for.
    pub fn turn(&mut self, now: Mono) -> LogNext {
        let status = &*self.status;
        let turn = match self.group.turn(now) {
            Ok(turn) => turn,
            Err(error) => return self.fail(&error),
        };
        let counts = self.group.counts();
        status.changes.store(counts.changes, Ordering::Relaxed);
        status.groups.store(counts.groups, Ordering::Relaxed);
        status.syncs.store(counts.syncs, Ordering::Relaxed);
        if turn.change_count > 0 {
            for bell in &self.bells {
                bell.mark_moved();
            }
            // Commands wait for durability too, sometimes: a system call for every group would be too much.
            fence(Ordering::SeqCst);
            if status.awaited.load(Ordering::Relaxed) && status.awaited.swap(false, Ordering::Relaxed) {
                (self.wake_control)();
            }
        }
        if status.rotate.swap(false, Ordering::AcqRel) {
            let outcome = match self.group.rotate() {
                Ok(Rotation::Done | Rotation::Waiting) => Ok(true),
                Ok(Rotation::Nothing) => Ok(false),
                Ok(Rotation::Failed(error)) => Err(told(&error)),
                Err(error) => return self.fail(&error),
            };
            *status.rotated.lock() = Some(outcome);
            (self.wake_control)();
        }
        if is_worth_a_pause(turn.change_count) {
            LogNext::Gather
        } else if turn.change_count > 0 {
            LogNext::Turn
        } else if status.stop.load(Ordering::Acquire) && self.group.is_idle() {
            LogNext::End
        } else {
            LogNext::Sleep(turn.due)
        }
    }

    fn fail(&self, error: &store::Error) -> LogNext {
        *self.status.failure.lock() = Some(told(error));
        (self.wake_control)();
        LogNext::End
    }

    /// Sleeps until `limit` is over or there is something to do.
    fn sleep(&self, limit: Duration) {
        self.sleeper.sleep(Some(limit), || {
            !self.group.is_idle()
                || self.status.rotate.load(Ordering::Acquire)
                || self.status.stop.load(Ordering::Acquire)
        });
    }

    /// Writes what is left, when nothing has failed before.
    pub fn finish(self, now: Mono) {
        if self.status.failure.lock().is_some() {
            return;
        }
        if let Err(error) = self.group.finish(now) {
            *self.status.failure.lock() = Some(told(&error));
        }
        (self.wake_control)();
    }
}

pub(super) fn log_thread(mut log: LogWork, clock: &Clock) {
    loop {
        let begun = clock.now().mono;
        match log.turn(begun) {
            LogNext::Turn => {}
            LogNext::Gather => clock.rest(begun, LOG_GROUPS_APART),
            LogNext::Sleep(due) => log.sleep(due.map_or(LOG_SLEEP, |due| {
                Duration::from_nanos(due.0.saturating_sub(clock.now().mono.0)).min(LOG_SLEEP)
            })),
            LogNext::End => return log.finish(clock.now().mono),
        }
    }
}

/// Cleans the lease file up in a thread of its own: what was moved aside becomes the new `X.2`.
///
/// # Errors
/// When there is no thread to be had.
pub fn clean_up(
    files: &LeaseFiles,
    done: impl FnOnce(Result<store::Cleaned, String>) + Send + 'static,
) -> std::io::Result<JoinHandle<()>> {
    let files = files.clone();
    std::thread::Builder::new().name("lfc".to_owned()).spawn(move || {
        let disk = RealDisk;
        let compaction = Compaction::<V4>::new(&disk, files, std::process::id());
        done(compaction.run(&mut |_| true).map_err(|error| told(&error)));
    })
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::ids::ShardId;
    use crate::journal::{Change, ChangeOrigin, log_ring};
    use crate::lease::Lease4;
    use crate::server::gathering::FAST_CHANGES_MIN;
    use crate::store::SyncMode;
    use crate::sync::Watermark;

    #[test]
    fn only_after_a_group_of_many_changes_the_next_one_is_let_grow() {
        let (mut tx, rx) = log_ring(ShardId(0), 1 << 10);
        let durable = Arc::new(Watermark::default());
        let group = GroupCommit::new(None, vec![(rx, Arc::clone(&durable))], Vec::new(), SyncMode::Group);
        let (_, sleeper) = store::doorbell();
        let (status, wake_control) = (Arc::default(), Arc::new(|| {}));
        let mut log = LogWork { group, status, bells: Vec::new(), wake_control, sleeper };
        let mut turn_with = |count: usize| {
            for _ in 0..count {
                let change = Change::Put(Lease4::sample(Ipv4Addr::new(192, 0, 2, 1)));
                tx.append(&change, ChangeOrigin::Client).expect("room");
            }
            log.turn(Mono(0))
        };
        assert_eq!(turn_with(FAST_CHANGES_MIN - 1), LogNext::Turn);
        assert_eq!(turn_with(FAST_CHANGES_MIN), LogNext::Gather);
        assert_eq!(
            durable.read().0,
            2 * FAST_CHANGES_MIN as u64 - 1,
            "what is written waits for nothing more"
        );
        assert_eq!(turn_with(1), LogNext::Turn);
        assert_eq!(turn_with(0), LogNext::Sleep(None));
    }
}
