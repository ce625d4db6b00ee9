//! A disk in memory that can lose power: for tests and the simulator.
//!
//! It keeps two views. What the program sees is *live*. What is *durable* is a file's octets at its last sync and a
//! folder's entries at its last sync; everything between the two may or may not be there after a loss of power:
//! octets not synced may be lost, torn anywhere or read as zeros, and each creation, rename and removal since the
//! folder's last sync is there or not, whatever became of the others.
//!
//! All calls that change something are numbered from 0; any of them can be told to fail, or to be the last.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::disk::{Disk, DiskFile, DiskLock, DiskRead, OpenMode};

/// What happens at a numbered call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Power is lost: of an append, only so many octets (at most) were given to the disk; every later call fails.
    Power {
        /// Octets of an append that were still taken.
        kept_bytes: usize,
    },
    /// This call fails, an append after so many octets; the next may succeed.
    Error {
        /// What the call answers.
        kind: io::ErrorKind,
        /// Octets of an append that were still taken.
        kept_bytes: usize,
    },
}

/// What is there after the loss of power.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Survivors {
    /// All that the program had done: the process was killed, the machine goes on.
    All,
    /// Only what was synced.
    Durable,
    /// Some of what was not synced, chosen by this seed.
    Some(u64),
}

/// The disk. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct CrashDisk(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    inodes: Vec<Inode>,
    live: BTreeMap<PathBuf, usize>,
    durable: BTreeMap<PathBuf, usize>,
    /// Changes of folders since their last sync, in order.
    pending: Vec<(PathBuf, FolderChange)>,
    locks: BTreeSet<PathBuf>,
    processes: BTreeMap<u32, String>,
    faults: BTreeMap<u64, Fault>,
    call_count: u64,
    is_off: bool,
}

#[derive(Clone, Debug, Default)]
struct Inode {
    live: Vec<u8>,
    durable: Vec<u8>,
}

#[derive(Clone, Debug)]
enum FolderChange {
    Create(PathBuf, usize),
    Rename(PathBuf, PathBuf),
    Unlink(PathBuf),
}

impl FolderChange {
    fn apply(&self, entries: &mut BTreeMap<PathBuf, usize>) {
        match self {
            Self::Create(path, inode) => {
                entries.insert(path.clone(), *inode);
            }
            Self::Rename(from, to) => {
                if let Some(inode) = entries.remove(from) {
                    entries.insert(to.clone(), inode);
                }
            }
            Self::Unlink(path) => {
                entries.remove(path);
            }
        }
    }
}

/// A small generator for choices; any seed will do.
#[derive(Debug)]
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap_or(0) % bound.max(1)
    }
}

fn folder(path: &Path) -> PathBuf {
    path.parent().unwrap_or_else(|| Path::new("")).to_owned()
}

impl State {
    /// Numbers a call that changes something; how many octets an append may take, and how it ends.
    fn begin(&mut self) -> io::Result<Option<Fault>> {
        if self.is_off {
            return Err(io::Error::other("the power is off"));
        }
        let call = self.call_count;
        self.call_count += 1;
        let fault = self.faults.remove(&call);
        if matches!(fault, Some(Fault::Power { .. })) {
            self.is_off = true;
        }
        Ok(fault)
    }

    /// As [`Self::begin`], for calls that are done or not done.
    fn begin_whole(&mut self) -> io::Result<()> {
        match self.begin()? {
            None => Ok(()),
            Some(Fault::Power { .. }) => Err(io::Error::other("the power went off")),
            Some(Fault::Error { kind, .. }) => Err(kind.into()),
        }
    }

    fn change_folder(&mut self, path: &Path, change: FolderChange) {
        change.apply(&mut self.live);
        self.pending.push((folder(path), change));
    }
}

impl CrashDisk {
    /// An empty disk.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What happens at call `call`, counted from 0.
    pub fn fault_at(&self, call: u64, fault: Fault) {
        self.0.lock().faults.insert(call, fault);
    }

    /// Calls so far that change something.
    #[must_use]
    pub fn call_count(&self) -> u64 {
        self.0.lock().call_count
    }

    /// Pretends that process `pid` runs a program.
    pub fn run_process(&self, pid: u32, program: &str) {
        self.0.lock().processes.insert(pid, program.to_owned());
    }

    /// Puts a file there, durable at once.
    pub fn put(&self, path: &Path, bytes: &[u8]) {
        let mut state = self.0.lock();
        let inode = state.inodes.len();
        state.inodes.push(Inode { live: bytes.to_vec(), durable: bytes.to_vec() });
        state.live.insert(path.to_owned(), inode);
        state.durable.insert(path.to_owned(), inode);
    }

    /// A file's octets as the program sees them.
    #[must_use]
    pub fn content(&self, path: &Path) -> Option<Vec<u8>> {
        let state = self.0.lock();
        state.live.get(path).map(|inode| state.inodes[*inode].live.clone())
    }

    /// All file names as the program sees them.
    #[must_use]
    pub fn names(&self) -> Vec<PathBuf> {
        self.0.lock().live.keys().cloned().collect()
    }

    /// The disk as it is found after the power came back (or the process was started again).
    #[must_use]
    pub fn after(&self, survivors: Survivors) -> Self {
        let state = self.0.lock();
        let (entries, contents) = match survivors {
            Survivors::All => {
                (state.live.clone(), state.inodes.iter().map(|inode| inode.live.clone()).collect())
            }
            Survivors::Durable => (
                state.durable.clone(),
                state.inodes.iter().map(|inode| inode.durable.clone()).collect::<Vec<_>>(),
            ),
            Survivors::Some(seed) => {
                let mut chance = Chance(seed);
                let mut entries = state.durable.clone();
                for (_, change) in &state.pending {
                    if chance.below(2) == 0 {
                        change.apply(&mut entries);
                    }
                }
                let contents = state.inodes.iter().map(|inode| inode.survivor(&mut chance)).collect();
                (entries, contents)
            }
        };
        let inodes =
            contents.into_iter().map(|bytes| Inode { live: bytes.clone(), durable: bytes }).collect();
        let next = State {
            inodes,
            live: entries.clone(),
            durable: entries,
            processes: state.processes.clone(),
            ..State::default()
        };
        Self(Arc::new(Mutex::new(next)))
    }
}

impl Inode {
    fn survivor(&self, chance: &mut Chance) -> Vec<u8> {
        if self.live == self.durable {
            return self.durable.clone();
        }
        if !self.live.starts_with(&self.durable) {
            // Cut since the last sync: either has happened or not.
            return if chance.below(2) == 0 { self.live.clone() } else { self.durable.clone() };
        }
        match chance.below(4) {
            0 => self.durable.clone(),
            1 => self.live.clone(),
            more => {
                let synced = self.durable.len();
                let kept = synced + chance.below(self.live.len() - synced + 1);
                let mut bytes = self.live[..kept].to_vec();
                if more == 3 {
                    // The length reached the disk, the octets did not.
                    bytes.resize(self.live.len(), 0);
                }
                bytes
            }
        }
    }
}

impl Disk for CrashDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.0.lock();
        let found = state.live.get(path).copied();
        let inode = match (found, mode) {
            (Some(_), OpenMode::CreateNew) => return Err(io::ErrorKind::AlreadyExists.into()),
            (None, OpenMode::Append) => return Err(io::ErrorKind::NotFound.into()),
            (Some(inode), OpenMode::Append) => inode,
            (Some(inode), OpenMode::Truncate) => {
                state.begin_whole()?;
                state.inodes[inode].live.clear();
                inode
            }
            (None, OpenMode::CreateNew | OpenMode::Truncate) => {
                state.begin_whole()?;
                let inode = state.inodes.len();
                state.inodes.push(Inode::default());
                state.change_folder(path, FolderChange::Create(path.to_owned(), inode));
                inode
            }
        };
        Ok(Box::new(Handle { disk: self.clone(), inode }))
    }

    fn open_read(&self, path: &Path) -> io::Result<Option<Box<dyn DiskRead>>> {
        let inode = self.0.lock().live.get(path).copied();
        Ok(inode.map(|inode| Box::new(Handle { disk: self.clone(), inode }) as Box<dyn DiskRead>))
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        Ok(self.0.lock().live.contains_key(path))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        if !state.live.contains_key(from) {
            return Err(io::ErrorKind::NotFound.into());
        }
        state.begin_whole()?;
        state.change_folder(from, FolderChange::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        if state.live.contains_key(path) {
            state.begin_whole()?;
            state.change_folder(path, FolderChange::Unlink(path.to_owned()));
        }
        Ok(())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        state.begin_whole()?;
        let synced = folder(path);
        let pending = std::mem::take(&mut state.pending);
        for (folder, change) in pending {
            if folder == synced {
                change.apply(&mut state.durable);
            } else {
                state.pending.push((folder, change));
            }
        }
        Ok(())
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn DiskLock>>> {
        let is_free = self.0.lock().locks.insert(path.to_owned());
        if !is_free {
            return Ok(None);
        }
        drop(self.open(path, OpenMode::Truncate)?);
        Ok(Some(Box::new(Held { disk: self.clone(), path: path.to_owned() })))
    }

    fn process_name(&self, pid: u32) -> Option<String> {
        self.0.lock().processes.get(&pid).cloned()
    }
}

struct Handle {
    disk: CrashDisk,
    inode: usize,
}

impl DiskFile for Handle {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.disk.0.lock();
        let fault = state.begin()?;
        let (count, result) = match fault {
            None => (bytes.len(), Ok(())),
            Some(Fault::Power { kept_bytes }) => (kept_bytes, Err(io::Error::other("the power went off"))),
            Some(Fault::Error { kind, kept_bytes }) => (kept_bytes, Err(kind.into())),
        };
        state.inodes[self.inode].live.extend_from_slice(&bytes[..count.min(bytes.len())]);
        result
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut state = self.disk.0.lock();
        state.begin_whole()?;
        let inode = &mut state.inodes[self.inode];
        inode.durable = inode.live.clone();
        Ok(())
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        let mut state = self.disk.0.lock();
        state.begin_whole()?;
        state.inodes[self.inode].live.truncate(usize::try_from(len).unwrap_or(usize::MAX));
        Ok(())
    }
}

impl DiskRead for Handle {
    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.0.lock().inodes[self.inode].live.len() as u64)
    }

    fn read_at(&self, room: &mut [u8], offset: u64) -> io::Result<usize> {
        let state = self.disk.0.lock();
        let bytes = &state.inodes[self.inode].live;
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
        let count = room.len().min(bytes.len() - start);
        room[..count].copy_from_slice(&bytes[start..start + count]);
        Ok(count)
    }
}

struct Held {
    disk: CrashDisk,
    path: PathBuf,
}

impl DiskLock for Held {}

impl Drop for Held {
    fn drop(&mut self) {
        self.disk.0.lock().locks.remove(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(name: &str) -> PathBuf {
        PathBuf::from("/d").join(name)
    }

    #[test]
    fn what_was_not_synced_is_lost_or_torn() {
        let disk = CrashDisk::new();
        let mut file = disk.open(&path("x"), OpenMode::CreateNew).expect("new");
        file.append(b"one").expect("no fault");
        assert!(disk.after(Survivors::Durable).names().is_empty(), "the entry was not synced");
        disk.sync_dir(&path("x")).expect("no fault");
        assert_eq!(disk.after(Survivors::Durable).content(&path("x")), Some(vec![]), "a name without octets");
        file.sync().expect("no fault");
        file.append(b"two").expect("no fault");
        assert_eq!(disk.after(Survivors::Durable).content(&path("x")).expect("durable"), b"one");
        assert_eq!(disk.after(Survivors::All).content(&path("x")).expect("live"), b"onetwo");
        let seen: BTreeSet<_> =
            (0..200).filter_map(|seed| disk.after(Survivors::Some(seed)).content(&path("x"))).collect();
        for expected in [&b"one"[..], b"onet", b"onetw", b"onetwo", b"one\0\0\0", b"onet\0\0"] {
            assert!(seen.contains(expected), "{}", expected.escape_ascii());
        }
    }

    #[test]
    fn folder_changes_are_lost_one_by_one() {
        let disk = CrashDisk::new();
        disk.put(&path("a"), b"a");
        disk.put(&path("b"), b"b");
        disk.unlink(&path("b")).expect("no fault");
        disk.rename(&path("a"), &path("c")).expect("no fault");
        let seen: BTreeSet<_> = (0..50).map(|seed| disk.after(Survivors::Some(seed)).names()).collect();
        assert_eq!(seen.len(), 4);
        disk.sync_dir(&path("a")).expect("no fault");
        assert_eq!(disk.after(Survivors::Durable).names(), [path("c")]);
    }

    #[test]
    fn after_power_is_lost_every_call_fails() {
        let disk = CrashDisk::new();
        let mut file = disk.open(&path("x"), OpenMode::CreateNew).expect("new");
        disk.fault_at(1, Fault::Power { kept_bytes: 2 });
        assert!(file.append(b"abc").is_err());
        assert!(file.sync().is_err() && disk.sync_dir(&path("x")).is_err());
        assert_eq!(disk.after(Survivors::All).content(&path("x")).expect("live"), b"ab");
    }
}
