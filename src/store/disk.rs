//! What the store asks of a file system: a trait, so that tests can lose power at every call.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

/// How a file is opened for writing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// It exists; writes go to its end.
    Append,
    /// It is created; when it exists that is an error.
    CreateNew,
    /// It is created, or emptied when it exists.
    Truncate,
}

/// The calls on a file system that the store makes. What each promises after a loss of power:
///
/// - octets written are there only after [`DiskFile::sync`];
/// - a creation, rename or removal is there only after [`Disk::sync_dir`] of its folder;
/// - a rename is whole or not there; nothing else is atomic, and nothing happens in order.
pub trait Disk: Send + Sync {
    /// Opens a file for writing at its end; a new one is readable by its owner and group only.
    ///
    /// # Errors
    /// As the operating system says.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn DiskFile>>;

    /// Opens a file for reading; `None` when there is no such file.
    ///
    /// # Errors
    /// As the operating system says.
    fn open_read(&self, path: &Path) -> io::Result<Option<Box<dyn DiskRead>>>;

    /// Whether there is such a file.
    ///
    /// # Errors
    /// As the operating system says.
    fn exists(&self, path: &Path) -> io::Result<bool>;

    /// Gives a file another name, over whatever had that name.
    ///
    /// # Errors
    /// As the operating system says.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file; that it is not there is no error.
    ///
    /// # Errors
    /// As the operating system says.
    fn unlink(&self, path: &Path) -> io::Result<()>;

    /// Makes creations, renames and removals in the folder of `path` survive a loss of power.
    ///
    /// # Errors
    /// As the operating system says.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;

    /// Takes the lock file `path` until the answer is dropped or the process ends, however it ends; `None` when
    /// somebody else has it.
    ///
    /// # Errors
    /// As the operating system says.
    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn DiskLock>>>;

    /// The name of the program that runs as process `pid`; `None` when there is no such process.
    fn process_name(&self, pid: u32) -> Option<String>;
}

impl std::fmt::Debug for dyn Disk + '_ {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Disk")
    }
}

/// A file opened for writing at its end.
pub trait DiskFile: Send {
    /// Appends `bytes`. After an error any part of them may be there.
    ///
    /// # Errors
    /// As the operating system says.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Makes all that was written survive a loss of power (`fdatasync`).
    ///
    /// # Errors
    /// As the operating system says; what is on the disk is not known then.
    fn sync(&mut self) -> io::Result<()>;

    /// Cuts the file at `len` octets.
    ///
    /// # Errors
    /// As the operating system says.
    fn truncate(&mut self, len: u64) -> io::Result<()>;
}

/// A file opened for reading.
pub trait DiskRead: Send {
    /// Octets of the file.
    ///
    /// # Errors
    /// As the operating system says.
    fn len(&self) -> io::Result<u64>;

    /// Whether the file has no octet.
    ///
    /// # Errors
    /// As the operating system says.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Reads at `offset` into `room`, as much as fits; how many octets, 0 at the end of the file.
    ///
    /// # Errors
    /// As the operating system says.
    fn read_at(&self, room: &mut [u8], offset: u64) -> io::Result<usize>;

    /// The whole file.
    ///
    /// # Errors
    /// As the operating system says, or out of memory.
    fn read_all(&self) -> io::Result<Vec<u8>> {
        let len = usize::try_from(self.len()?).map_err(io::Error::other)?;
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(len).map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))?;
        bytes.resize(len, 0);
        let mut at = 0;
        while at < len {
            let count = self.read_at(&mut bytes[at..], at as u64)?;
            if count == 0 {
                break;
            }
            at += count;
        }
        bytes.truncate(at);
        Ok(bytes)
    }
}

/// A lock held.
pub trait DiskLock: Send + Sync {}

/// The file system of the machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealDisk;

/// Lease files name clients: nobody outside owner and group reads them.
const FILE_MODE: u32 = 0o640;

impl Disk for RealDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        options.mode(FILE_MODE);
        match mode {
            OpenMode::Append => options.append(true),
            OpenMode::CreateNew => options.append(true).create_new(true),
            OpenMode::Truncate => options.write(true).create(true).truncate(true),
        };
        Ok(Box::new(RealFile(options.open(path)?)))
    }

    fn open_read(&self, path: &Path) -> io::Result<Option<Box<dyn DiskRead>>> {
        match File::open(path) {
            Ok(file) if file.metadata()?.is_file() => Ok(Some(Box::new(RealFile(file)))),
            Ok(_) => Err(io::Error::other("not a regular file")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        fs::exists(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or_else(|| Path::new(".")))?.sync_all()
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn DiskLock>>> {
        let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Box::new(RealLock(file)))),
            Err(fs::TryLockError::WouldBlock) => Ok(None),
            Err(fs::TryLockError::Error(error)) => Err(error),
        }
    }

    fn process_name(&self, pid: u32) -> Option<String> {
        let mut name = String::new();
        File::open(format!("/proc/{pid}/comm")).ok()?.read_to_string(&mut name).ok()?;
        Some(name.trim_end().to_owned())
    }
}

struct RealFile(File);

impl DiskFile for RealFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }
}

impl DiskRead for RealFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read_at(&self, room: &mut [u8], offset: u64) -> io::Result<usize> {
        loop {
            match self.0.read_at(room, offset) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }
}

/// Holds the file open: the kernel frees the lock with it.
struct RealLock(#[expect(dead_code, reason = "held for its lock")] File);

impl DiskLock for RealLock {}
