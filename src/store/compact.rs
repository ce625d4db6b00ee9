//! The cleanup of a lease file (Kea's LFC) in our own process: `X.2` and `X.1` become a new `X.2`.
//!
//! The order, each step durable before the next is begun:
//!
//! ```text
//! X.2 + X.1 -> X.output, synced -> renamed X.completed, folder synced -> X.2, X.1 removed
//!           -> X.completed renamed X.2, folder synced
//! ```
//!
//! A crash before the rename leaves `X.2` and `X.1` as they were; a crash after it leaves `X.completed`, which stands
//! for both. The last removals and rename need no order among themselves: replaying `X.1` once more over a result
//! that contains it changes nothing, as each address in it ends as it ended before.
//!
//! Memory: 16 octets and some room per v4 lease while it runs, and two buffers; the files are read in pieces.

use std::fmt;
use std::marker::PhantomData;

use super::disk::{Disk, DiskFile, DiskRead, OpenMode};
use super::error::Error;
use super::files::LeaseFiles;
use super::open::{CleanupProcess, cleanup_process, is_completed, keep_rejected};
use crate::journal::replay::{Body, LastWins, Lines, Part, Place};
use crate::journal::row::ROW_BYTES_MAX;
use crate::journal::{Family, RowReader, Schema};

const PIECE_BYTES: usize = 1 << 20;
/// What is read at once where rows follow each other in the file, and where they do not.
const WINDOW_BYTES: usize = 64 << 10;
const WINDOW_BYTES_ALONE: usize = 2 << 10;
const OUTPUT_BYTES: usize = 256 << 10;

/// How far a cleanup is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Octets worked off.
    pub done_bytes: u64,
    /// Octets in all: every file is read once and written, as far as it is still valid, once more.
    pub total_bytes: u64,
}

/// What a cleanup did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cleaned {
    /// There was nothing to clean up.
    Nothing,
    /// Somebody else is cleaning up: nothing was done.
    Busy,
    /// A cleanup that had finished its work was brought to its end.
    Resumed,
    /// `X.2` is new.
    Done {
        /// Leases in it.
        lease_count: u64,
        /// Bad rows that went to `X.rejected`.
        bad_count: u64,
    },
}

impl fmt::Display for Cleaned {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => out.write_str("nothing to clean up"),
            Self::Busy => out.write_str("not cleaned up: another process is cleaning up"),
            Self::Resumed => out.write_str("an earlier cleanup that was cut off is brought to its end"),
            Self::Done { lease_count, bad_count: 0 } => write!(out, "cleaned up: {lease_count} lease(s)"),
            Self::Done { lease_count, bad_count } => {
                write!(out, "cleaned up: {lease_count} lease(s), {bad_count} bad row(s) kept aside")
            }
        }
    }
}

/// One cleanup of one lease file. Runs in a thread of its own, at low priority: `server/` provides it, and holds the
/// live file's lock meanwhile.
#[derive(Debug)]
pub struct Compaction<'a, F: Family> {
    disk: &'a dyn Disk,
    files: LeaseFiles,
    pid: u32,
    family: PhantomData<fn() -> F>,
}

impl<'a, F: Family> Compaction<'a, F> {
    /// A cleanup of `files` by this process, `pid`.
    #[must_use]
    pub fn new(disk: &'a dyn Disk, files: LeaseFiles, pid: u32) -> Self {
        Self { disk, files, pid, family: PhantomData }
    }

    /// Cleans up what a rotation left. `go_on` is called after every piece (about a megabyte): it may sleep to keep
    /// the disk free for others, and ends the cleanup by answering false.
    ///
    /// # Errors
    /// The disk refuses, or a file is no lease file; what was there before is there still, and the next cleanup
    /// tries again.
    pub fn run(&self, go_on: &mut dyn FnMut(Progress) -> bool) -> Result<Cleaned, Error> {
        let Some(lock) =
            self.disk.lock(&self.files.pid_lock).map_err(Error::io("lock", &self.files.pid_lock))?
        else {
            return Ok(Cleaned::Busy);
        };
        if matches!(cleanup_process(self.disk, &self.files, self.pid)?, CleanupProcess::Running { .. }) {
            return Ok(Cleaned::Busy);
        }
        let result = self.write_pid().and_then(|()| self.clean(go_on));
        let removed = self.remove(&self.files.pid);
        let unlocked = self.remove(&self.files.pid_lock);
        drop(lock);
        let cleaned = result?;
        removed?;
        unlocked?;
        Ok(cleaned)
    }

    fn write_pid(&self) -> Result<(), Error> {
        let path = &self.files.pid;
        let mut file = self.disk.open(path, OpenMode::Truncate).map_err(Error::io("create", path))?;
        file.append(format!("{}\n", self.pid).as_bytes()).map_err(Error::io("write", path))
    }

    fn remove(&self, path: &std::path::Path) -> Result<(), Error> {
        self.disk.unlink(path).map_err(Error::io("remove", path))
    }

    fn clean(&self, go_on: &mut dyn FnMut(Progress) -> bool) -> Result<Cleaned, Error> {
        if is_completed(self.disk, &self.files)? {
            self.settle()?;
            return Ok(Cleaned::Resumed);
        }
        // An empty one is the wreck of somebody's cleanup: it stands for nothing.
        self.remove(&self.files.completed)?;
        if !self.disk.exists(&self.files.copy).map_err(Error::io("look for", &self.files.copy))? {
            return Ok(Cleaned::Nothing);
        }
        let result = self.build(go_on);
        if result.is_err() {
            // Free the room that it takes; that this fails too changes nothing, as the next cleanup starts it anew.
            let _ = self.disk.unlink(&self.files.output);
        }
        let cleaned = result?;
        self.settle()?;
        Ok(cleaned)
    }

    /// `X.completed` takes the place of `X.2` and `X.1`.
    fn settle(&self) -> Result<(), Error> {
        self.remove(&self.files.previous)?;
        self.remove(&self.files.copy)?;
        let rename = self.disk.rename(&self.files.completed, &self.files.previous);
        rename.map_err(Error::io("rename", &self.files.completed))?;
        self.sync_dir()
    }

    fn sync_dir(&self) -> Result<(), Error> {
        self.disk.sync_dir(&self.files.live).map_err(Error::io("sync the folder of", &self.files.live))
    }

    /// `X.2` and `X.1` become `X.completed`.
    fn build(&self, go_on: &mut dyn FnMut(Progress) -> bool) -> Result<Cleaned, Error> {
        let mut sources = Vec::new();
        for path in [&self.files.previous, &self.files.copy] {
            if let Some(file) = self.disk.open_read(path).map_err(Error::io("open", path))? {
                let len = file.len().map_err(Error::io("read", path))?;
                if len > 0 {
                    sources.push(Source { path, file, len });
                }
            }
        }
        let len: u64 = sources.iter().map(|source| source.len).sum();
        let mut progress = Progress { done_bytes: 0, total_bytes: len * 2 };
        let mut index = LastWins::<F>::new(Part::WHOLE, 0);
        let mut readers = Vec::new();
        let mut bad_count = 0;
        for (number, source) in (0u8..).zip(&sources) {
            let (schema, bad) = self.index(number, source, &mut index, &mut progress, go_on)?;
            readers.push(RowReader::<F>::new(schema));
            bad_count += bad;
        }
        let lease_count = index.lease_count() as u64;
        self.write_output(index, &sources, &mut readers, &mut progress, go_on)?;
        let rename = self.disk.rename(&self.files.output, &self.files.completed);
        rename.map_err(Error::io("rename", &self.files.output))?;
        self.sync_dir()?;
        Ok(Cleaned::Done { lease_count, bad_count })
    }

    /// Reads one file in pieces and notes where its rows stand; its schema, and how many rows were bad.
    fn index(
        &self,
        number: u8,
        source: &Source<'_>,
        index: &mut LastWins<F>,
        progress: &mut Progress,
        go_on: &mut dyn FnMut(Progress) -> bool,
    ) -> Result<(Schema, u64), Error> {
        let mut piece = Vec::new();
        let mut base = 0;
        let mut line_number = 0;
        let mut reader: Option<(Schema, RowReader<F>)> = None;
        let mut bad_count = 0;
        loop {
            let is_last = source.fill(&mut piece, base)?;
            let end =
                if is_last { piece.len() } else { memchr::memrchr(b'\n', &piece).map_or(0, |at| at + 1) };
            let bytes = &piece[..end];
            let mut lines = Lines::of_piece(bytes, base, line_number);
            let (schema, reader) = match &mut reader {
                Some((schema, reader)) => (schema, reader),
                none => {
                    let body = Body::new::<F>(bytes).map_err(|(line, error)| Error::Header {
                        path: source.path.to_owned(),
                        line,
                        source: error,
                    })?;
                    lines = body.lines;
                    let (schema, reader) = none.insert((body.schema, RowReader::new(body.schema)));
                    (schema, reader)
                }
            };
            let mut rejected = Vec::new();
            for line in lines.by_ref() {
                if index.apply(number, line, reader).is_err() {
                    rejected.push(line.text);
                }
            }
            bad_count += rejected.len() as u64;
            keep_rejected(self.disk, &self.files.rejected, rejected.into_iter())?;
            line_number = lines.number();
            base += end as u64;
            progress.done_bytes += end as u64;
            if !go_on(*progress) {
                return Err(Error::Cancelled);
            }
            if is_last {
                return Ok((*schema, bad_count));
            }
            piece.drain(..end);
        }
    }

    fn write_output(
        &self,
        index: LastWins<F>,
        sources: &[Source<'_>],
        readers: &mut [RowReader<F>],
        progress: &mut Progress,
        go_on: &mut dyn FnMut(Progress) -> bool,
    ) -> Result<(), Error> {
        let path = &self.files.output;
        let mut file = self.disk.open(path, OpenMode::Truncate).map_err(Error::io("create", path))?;
        let mut rows = Vec::with_capacity(OUTPUT_BYTES + ROW_BYTES_MAX / 16);
        F::write_header(&mut rows);
        let mut windows: Vec<Window<'_>> = sources.iter().map(Window::new).collect();
        for (_, place) in index.into_sorted() {
            let text = windows[place.file()].row(place)?;
            let lease = readers[place.file()].read(text).map_err(|reason| Error::Io {
                action: "read again",
                path: sources[place.file()].path.to_owned(),
                source: std::io::Error::other(reason.text()),
            })?;
            F::write(&lease, &mut rows);
            progress.done_bytes += place.row_bytes() as u64;
            if rows.len() >= OUTPUT_BYTES {
                self.write_piece(&mut *file, &mut rows)?;
                if !go_on(*progress) {
                    return Err(Error::Cancelled);
                }
            }
        }
        self.write_piece(&mut *file, &mut rows)?;
        file.sync().map_err(Error::io("sync", path))
    }

    fn write_piece(&self, file: &mut dyn DiskFile, rows: &mut Vec<u8>) -> Result<(), Error> {
        file.append(rows).map_err(Error::io("write", &self.files.output))?;
        rows.clear();
        Ok(())
    }
}

struct Source<'a> {
    path: &'a std::path::Path,
    file: Box<dyn DiskRead>,
    len: u64,
}

impl Source<'_> {
    /// Adds about a piece to `piece`, which starts `base` octets into the file, until it holds at least one line end;
    /// whether that was the last.
    fn fill(&self, piece: &mut Vec<u8>, base: u64) -> Result<bool, Error> {
        loop {
            let start = piece.len();
            let at = base + start as u64;
            piece.resize(start + PIECE_BYTES, 0);
            let count = self.file.read_at(&mut piece[start..], at).map_err(Error::io("read", self.path))?;
            piece.truncate(start + count);
            if count == 0 || at + count as u64 >= self.len {
                return Ok(true);
            }
            if memchr::memchr(b'\n', &piece[start..]).is_some() {
                return Ok(false);
            }
            if piece.len() > 64 * ROW_BYTES_MAX {
                let source = std::io::Error::other("a line of more than 64 MiB is no row of a lease file");
                return Err(Error::io("read", self.path)(source));
            }
        }
    }
}

/// A stretch of a file in memory.
struct Window<'a> {
    source: &'a Source<'a>,
    start: u64,
    bytes: Vec<u8>,
}

impl<'a> Window<'a> {
    fn new(source: &'a Source<'a>) -> Self {
        Self { source, start: 0, bytes: Vec::new() }
    }

    fn row(&mut self, place: Place) -> Result<&[u8], Error> {
        let (offset, len) = (place.offset(), place.row_bytes());
        let end = self.start + self.bytes.len() as u64;
        if offset < self.start || offset + len as u64 > end {
            // Rows of a former cleanup follow each other, rows of a journal do not: do not read a lot for one row.
            let is_next = offset >= self.start && offset < end + WINDOW_BYTES as u64;
            let room = len.max(if is_next { WINDOW_BYTES } else { WINDOW_BYTES_ALONE });
            self.bytes.resize(room, 0);
            let mut count = 0;
            while count < len {
                let read = self.source.file.read_at(&mut self.bytes[count..], offset + count as u64);
                match read.map_err(Error::io("read", self.source.path))? {
                    0 => break,
                    more => count += more,
                }
            }
            self.bytes.truncate(count);
            self.start = offset;
            if count < len {
                let source = std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
                return Err(Error::io("read again", self.source.path)(source));
            }
        }
        let at = usize::try_from(offset - self.start).unwrap_or(usize::MAX);
        Ok(&self.bytes[at..at + len])
    }
}
