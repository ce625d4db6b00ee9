//! Group commit: one thread drains every shard's ring, writes the rows at once, syncs once, publishes positions.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use super::disk::{Disk, DiskFile, DiskLock, OpenMode};
use super::error::Error;
use super::files::LeaseFiles;
use crate::ids::Lsn;
use crate::journal::{LogRx, Tap};
use crate::sync::Watermark;
use crate::time::Mono;

/// Most changes of one group: bounds its buffer, and how long the first of them waits for the others to be written.
pub const GROUP_CHANGES_MAX: usize = 8192;

/// How much a watermark promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncMode {
    /// Published after `fdatasync`: survives a loss of power. The default.
    Group,
    /// Published after the write, which the end of the process survives; synced every so often.
    Interval {
        /// Milliseconds between two syncs while there is something to sync.
        interval_ms: u64,
    },
    /// Published after the write; when that reaches the disk is the kernel's affair.
    Never,
}

/// `"sync": "interval"` syncs so often, in milliseconds.
pub const SYNC_INTERVAL_MS: u64 = 1000;

/// What a turn did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Turn {
    /// Changes written.
    pub change_count: usize,
    /// Whether the disk was synced.
    pub is_synced: bool,
    /// When the next turn is due even if nothing comes; nothing when there is no such time.
    pub due: Option<Mono>,
}

/// What became of a rotation.
#[derive(Debug)]
pub enum Rotation {
    /// `X` is now `X.1` and a new `X` is written: a cleanup has work to do.
    Done,
    /// `X` holds no row: there is nothing to clean up.
    Nothing,
    /// `X.1` or `X.completed` is there from a cleanup that did not finish: it must run first, `X` is left alone.
    Waiting,
    /// `X` could not be renamed; it goes on being used.
    Failed(Error),
}

/// Counters of one [`GroupCommit`] since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CommitCounts {
    /// Changes written.
    pub changes: u64,
    /// Groups written.
    pub groups: u64,
    /// Octets written.
    pub bytes: u64,
    /// Syncs.
    pub syncs: u64,
    /// Rotations.
    pub rotations: u64,
}

/// The live file, opened for appending, with the lock that says it is ours.
pub struct LiveFile {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) files: LeaseFiles,
    pub(super) file: Box<dyn DiskFile>,
    pub(super) write_header: fn(&mut Vec<u8>),
    /// Whether a rotation would have something to move: rows, or a header of another release.
    pub(super) is_dirty: bool,
    #[expect(dead_code, reason = "held so that no other process takes the file")]
    pub(super) lock: Arc<dyn DiskLock>,
}

impl fmt::Debug for LiveFile {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("LiveFile").field("files", &self.files).finish_non_exhaustive()
    }
}

impl LiveFile {
    /// Appends whole rows and syncs them, without rings: for offline tools.
    ///
    /// # Errors
    /// When the disk refuses; any part of the rows may be there then.
    pub fn append_rows(&mut self, rows: &[u8]) -> Result<(), Error> {
        self.is_dirty |= !rows.is_empty();
        self.file.append(rows).map_err(Error::io("write", &self.files.live))?;
        self.file.sync().map_err(Error::io("sync", &self.files.live))
    }
}

struct Log {
    rx: LogRx,
    durable: Arc<Watermark>,
}

/// The log thread's work. `server/` owns the thread: it calls [`turn`](Self::turn) as long as there is something to
/// do, and sleeps on its doorbell when [`is_idle`](Self::is_idle).
///
/// Nothing waits for a group to fill: a turn takes what is there, and what comes while it syncs is the next group.
///
/// After an error the store is stopped for good: what reached the disk is not known, and a second `fdatasync` that
/// succeeds proves nothing about the first.
pub struct GroupCommit {
    live: Option<LiveFile>,
    logs: Vec<Log>,
    /// Which ring the next group starts with, so that none is always last when a group is full.
    first: usize,
    taps: Vec<Box<dyn Tap>>,
    rows: Vec<u8>,
    mode: SyncMode,
    sync_due: Option<Mono>,
    cause: Option<String>,
    counts: CommitCounts,
}

impl fmt::Debug for GroupCommit {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("GroupCommit")
            .field("live", &self.live)
            .field("counts", &self.counts)
            .finish_non_exhaustive()
    }
}

impl GroupCommit {
    /// Commits the rings of `logs` to `live`, publishing what is safe in each one's watermark. Without a file
    /// (`persist: false`) changes are offered to the taps and published at once.
    #[must_use]
    pub fn new(
        live: Option<LiveFile>,
        logs: Vec<(LogRx, Arc<Watermark>)>,
        taps: Vec<Box<dyn Tap>>,
        mode: SyncMode,
    ) -> Self {
        let logs = logs.into_iter().map(|(rx, durable)| Log { rx, durable }).collect();
        Self {
            live,
            logs,
            first: 0,
            taps,
            rows: Vec::new(),
            mode,
            sync_due: None,
            cause: None,
            counts: CommitCounts::default(),
        }
    }

    /// Whether no shard has appended anything that is not written yet.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.logs.iter().all(|log| log.rx.is_empty())
    }

    /// Counters since the start.
    #[must_use]
    pub const fn counts(&self) -> CommitCounts {
        self.counts
    }

    /// Adds a tap: it sees every change drained from now on.
    pub fn add_tap(&mut self, tap: Box<dyn Tap>) {
        self.taps.push(tap);
    }

    /// Changes how much a watermark promises from the next turn on.
    pub fn set_mode(&mut self, mode: SyncMode) {
        self.mode = mode;
    }

    /// Takes what the rings hold, offers it to the taps, writes it, syncs it as the mode says, publishes it.
    ///
    /// # Errors
    /// When the disk refuses. No position of this group is published then, and every later call fails too.
    pub fn turn(&mut self, now: Mono) -> Result<Turn, Error> {
        self.refuse_if_stopped()?;
        self.rows.clear();
        let mut change_count = 0;
        let log_count = self.logs.len();
        let share = GROUP_CHANGES_MAX / log_count.max(1);
        let Self { logs, taps, rows, live, .. } = self;
        for step in 0..log_count {
            let log = &mut logs[(self.first + step) % log_count];
            let shard = log.rx.shard();
            change_count += log.rx.drain(share, |lsn, origin, change| {
                for tap in taps.iter_mut() {
                    tap.offer(shard, lsn, origin, change);
                }
                if live.is_some() {
                    change.write_row(rows);
                }
            });
        }
        self.first = (self.first + 1) % log_count.max(1);
        if change_count > 0 {
            for tap in taps.iter_mut() {
                tap.group_end();
            }
            self.counts.changes += change_count as u64;
            self.counts.groups += 1;
            self.counts.bytes += self.rows.len() as u64;
        }
        let is_synced = self.write_group(now)?;
        if change_count > 0 {
            for log in &self.logs {
                log.durable.publish(log.rx.drained());
            }
        }
        Ok(Turn { change_count, is_synced, due: self.sync_due })
    }

    /// Writes the formatted rows and syncs when the mode says so; whether it synced.
    fn write_group(&mut self, now: Mono) -> Result<bool, Error> {
        let Some(live) = &mut self.live else { return Ok(false) };
        if !self.rows.is_empty() {
            live.is_dirty = true;
            if let Err(source) = live.file.append(&self.rows) {
                return Err(self.stop("write", source));
            }
            match self.mode {
                SyncMode::Group => self.sync_due = Some(now),
                SyncMode::Interval { interval_ms } => {
                    self.sync_due.get_or_insert_with(|| now.plus_ms(interval_ms));
                }
                SyncMode::Never => self.sync_due = None,
            }
        }
        if self.sync_due.is_none_or(|due| due > now) {
            return Ok(false);
        }
        self.sync()?;
        Ok(true)
    }

    fn sync(&mut self) -> Result<(), Error> {
        if let Some(live) = &mut self.live {
            if let Err(source) = live.file.sync() {
                return Err(self.stop("sync", source));
            }
            self.counts.syncs += 1;
        }
        self.sync_due = None;
        Ok(())
    }

    /// Moves `X` to `X.1` and starts a new `X`, if that is possible now. Call it between two turns; rows written later
    /// go to the new file, which is on the disk with its folder entry when this returns.
    ///
    /// # Errors
    /// When the file is gone from under us and no new one can be had: the store is stopped then.
    pub fn rotate(&mut self) -> Result<Rotation, Error> {
        self.refuse_if_stopped()?;
        let Some(live) = &self.live else { return Ok(Rotation::Nothing) };
        let is_waiting = live.disk.exists(&live.files.copy).and_then(|copy| {
            let completed = live.disk.exists(&live.files.completed)?;
            Ok(copy || completed)
        });
        match is_waiting {
            Ok(true) => return Ok(Rotation::Waiting),
            Ok(false) if !live.is_dirty => return Ok(Rotation::Nothing),
            Ok(false) => {}
            Err(source) => return Ok(Rotation::Failed(Error::io("look for", &live.files.copy)(source))),
        }
        // The rows of the old file must not be younger on the disk than its new name: a cleanup reads them.
        self.sync()?;
        let Some(live) = &mut self.live else { return Ok(Rotation::Nothing) };
        if let Err(source) = live.disk.rename(&live.files.live, &live.files.copy) {
            return Ok(Rotation::Failed(Error::io("rename", &live.files.live)(source)));
        }
        match renew(&*live.disk, &live.files.live, live.write_header) {
            Ok(file) => live.file = file,
            Err((action, source)) => return Err(self.stop(action, source)),
        }
        live.is_dirty = false;
        self.counts.rotations += 1;
        Ok(Rotation::Done)
    }

    /// The file names and what the cleanup needs to run beside us; nothing without a file.
    #[must_use]
    pub fn files(&self) -> Option<&LeaseFiles> {
        self.live.as_ref().map(|live| &live.files)
    }

    /// Writes and syncs what is left, for a clean end.
    ///
    /// # Errors
    /// As [`turn`](Self::turn).
    pub fn finish(mut self, now: Mono) -> Result<CommitCounts, Error> {
        while self.turn(now)?.change_count > 0 {}
        self.sync()?;
        Ok(self.counts)
    }

    /// The positions drained so far, by ring: for tests and the status command.
    pub fn drained(&self) -> impl Iterator<Item = Lsn> {
        self.logs.iter().map(|log| log.rx.drained())
    }

    fn refuse_if_stopped(&self) -> Result<(), Error> {
        self.cause.as_ref().map_or(Ok(()), |cause| Err(Error::Stopped { cause: cause.clone() }))
    }

    fn stop(&mut self, action: &'static str, source: std::io::Error) -> Error {
        let path = self.live.as_ref().map_or_else(|| Path::new(""), |live| &live.files.live);
        let cause = format!("cannot {action} {}: {source}", path.display());
        let error = Error::io(action, path)(source);
        self.cause = Some(cause);
        error
    }
}

/// Creates `path` with a header, on the disk and in its folder.
///
/// The folder is synced twice: first what was there before gets out of the way for good, so that no loss of power
/// can leave the new, empty file as the only one.
pub(super) fn renew(
    disk: &dyn Disk,
    path: &Path,
    write_header: fn(&mut Vec<u8>),
) -> Result<Box<dyn DiskFile>, (&'static str, std::io::Error)> {
    disk.sync_dir(path).map_err(|source| ("sync the folder of", source))?;
    let mut file = disk.open(path, OpenMode::CreateNew).map_err(|source| ("create", source))?;
    let mut header = Vec::new();
    write_header(&mut header);
    file.append(&header).map_err(|source| ("write", source))?;
    file.sync().map_err(|source| ("sync", source))?;
    disk.sync_dir(path).map_err(|source| ("sync the folder of", source))?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use parking_lot::Mutex;

    use super::*;
    use crate::ids::ShardId;
    use crate::journal::{Change, ChangeOrigin, LogTx, V4, log_ring};
    use crate::lease::Lease4;
    use crate::store::{CrashDisk, Survivors, open};

    fn put(host: u8) -> Change<'static> {
        Change::Put(Lease4::sample(Ipv4Addr::new(192, 0, 2, host)))
    }

    struct Fixture {
        disk: CrashDisk,
        commit: GroupCommit,
        shards: Vec<(LogTx, Arc<Watermark>)>,
    }

    fn fixture(shard_count: u8, is_kept: bool, taps: Vec<Box<dyn Tap>>, mode: SyncMode) -> Fixture {
        let disk = CrashDisk::new();
        let live = is_kept
            .then(|| open::<V4>(Arc::new(disk.clone()), Path::new("/l/x"), 1).expect("a new file").live);
        let mut logs = Vec::new();
        let mut shards = Vec::new();
        for shard in 0..shard_count {
            let (tx, rx) = log_ring(ShardId(shard), 1 << 15);
            let mark = Arc::new(Watermark::default());
            logs.push((rx, Arc::clone(&mark)));
            shards.push((tx, mark));
        }
        Fixture { disk, commit: GroupCommit::new(live, logs, taps, mode), shards }
    }

    impl Fixture {
        fn append(&mut self, shard: usize, host: u8) {
            self.shards[shard].0.append(&put(host), ChangeOrigin::Client).expect("room");
        }

        fn durable_rows(&self) -> usize {
            let bytes = self.disk.after(Survivors::Durable).content(Path::new("/l/x")).expect("there");
            memchr::memchr_iter(b'\n', &bytes).count() - 1
        }

        fn marks(&self) -> Vec<u64> {
            self.shards.iter().map(|(_, mark)| mark.read().0).collect()
        }
    }

    #[test]
    fn a_group_of_all_shards_is_one_write_and_one_sync() {
        let mut fixture = fixture(3, true, Vec::new(), SyncMode::Group);
        fixture.append(0, 1);
        fixture.append(2, 2);
        fixture.append(2, 3);
        let calls = fixture.disk.call_count();
        let turn = fixture.commit.turn(Mono(0)).expect("no fault");
        assert_eq!(turn, Turn { change_count: 3, is_synced: true, due: None });
        assert_eq!((fixture.disk.call_count() - calls, fixture.durable_rows()), (2, 3));
        assert_eq!(fixture.marks(), [1, 0, 2]);
        let turn = fixture.commit.turn(Mono(0)).expect("no fault");
        assert_eq!(
            (turn, fixture.disk.call_count() - calls),
            (Turn::default(), 2),
            "nothing to do, nothing done"
        );
    }

    #[test]
    fn interval_publishes_after_the_write_and_syncs_when_due() {
        let mut fixture = fixture(1, true, Vec::new(), SyncMode::Interval { interval_ms: 1000 });
        let at = |ms| Mono(0).plus_ms(ms);
        fixture.append(0, 1);
        let turn = fixture.commit.turn(at(5)).expect("no fault");
        assert_eq!(turn, Turn { change_count: 1, is_synced: false, due: Some(at(1005)) });
        assert_eq!((fixture.marks(), fixture.durable_rows()), (vec![1], 0));
        fixture.append(0, 2);
        assert_eq!(
            fixture.commit.turn(at(900)).expect("no fault").due,
            Some(at(1005)),
            "counted from the first row"
        );
        let turn = fixture.commit.turn(at(1005)).expect("no fault");
        assert_eq!(turn, Turn { change_count: 0, is_synced: true, due: None });
        assert_eq!(fixture.durable_rows(), 2);
    }

    #[test]
    fn never_writes_and_leaves_the_sync_to_the_end() {
        let mut fixture = fixture(1, true, Vec::new(), SyncMode::Never);
        fixture.append(0, 1);
        assert_eq!(fixture.commit.turn(Mono(0)).expect("no fault").due, None);
        assert_eq!((fixture.marks(), fixture.durable_rows()), (vec![1], 0));
        let disk = fixture.disk.clone();
        let counts = fixture.commit.finish(Mono(0)).expect("no fault");
        assert_eq!((counts.changes, counts.syncs), (1, 1));
        assert!(
            disk.after(Survivors::Durable).content(Path::new("/l/x")).expect("there").ends_with(b",0,,0\n")
        );
    }

    #[test]
    fn without_a_file_changes_are_published_at_once() {
        let mut fixture = fixture(2, false, Vec::new(), SyncMode::Group);
        fixture.append(1, 1);
        fixture.commit.turn(Mono(0)).expect("there is no disk to fail");
        assert_eq!((fixture.marks(), fixture.disk.names().len()), (vec![0, 1], 0));
        assert!(matches!(fixture.commit.rotate(), Ok(Rotation::Nothing)));
    }

    /// What a tap was told, and how many calls the disk had seen by then.
    #[derive(Clone, Default)]
    struct Heard(Arc<Mutex<Vec<(u8, u64, ChangeOrigin)>>>, Arc<Mutex<u32>>);

    impl Tap for Heard {
        fn offer(&mut self, shard: ShardId, lsn: Lsn, origin: ChangeOrigin, _change: &Change<'_>) {
            self.0.lock().push((shard.0, lsn.0, origin));
        }

        fn group_end(&mut self) {
            *self.1.lock() += 1;
        }
    }

    #[test]
    fn taps_hear_every_change_of_a_group_before_it_is_written() {
        let heard = Heard::default();
        let mut fixture = fixture(2, true, vec![Box::new(heard.clone())], SyncMode::Group);
        fixture.append(0, 1);
        fixture.append(1, 2);
        fixture.append(1, 3);
        let call = fixture.disk.call_count();
        let kind = std::io::ErrorKind::StorageFull;
        fixture.disk.fault_at(call, crate::store::Fault::Error { kind, kept_bytes: 0 });
        fixture.commit.turn(Mono(0)).expect_err("the write fails");
        let client = ChangeOrigin::Client;
        assert_eq!(*heard.0.lock(), [(0, 1, client), (1, 1, client), (1, 2, client)]);
        assert_eq!((*heard.1.lock(), fixture.marks()), (1, vec![0, 0]));
    }

    #[test]
    fn a_flood_of_one_shard_leaves_room_in_the_group_for_the_others() {
        let mut fixture = fixture(2, true, Vec::new(), SyncMode::Group);
        for _ in 0..3 * GROUP_CHANGES_MAX {
            fixture.append(0, 1);
        }
        fixture.append(1, 2);
        let turn = fixture.commit.turn(Mono(0)).expect("no fault");
        assert_eq!(turn.change_count, GROUP_CHANGES_MAX / 2 + 1);
        assert_eq!(fixture.marks()[1], 1);
        assert!(!fixture.commit.is_idle());
    }

    #[test]
    fn a_file_without_rows_is_not_rotated() {
        let mut fixture = fixture(1, true, Vec::new(), SyncMode::Group);
        assert!(matches!(fixture.commit.rotate(), Ok(Rotation::Nothing)));
        fixture.append(0, 1);
        fixture.commit.turn(Mono(0)).expect("no fault");
        assert!(matches!(fixture.commit.rotate(), Ok(Rotation::Done)));
        assert!(matches!(fixture.commit.rotate(), Ok(Rotation::Waiting)));
        fixture.append(0, 2);
        fixture.commit.turn(Mono(0)).expect("the new file is open");
        assert_eq!(fixture.durable_rows(), 1);
    }
}
