//! Opening a lease file: who else uses it, which files count, what a crash or another program left of them.

use std::collections::HashSet;
use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::commit::{LiveFile, renew};
use super::disk::{Disk, OpenMode};
use super::error::Error;
use super::files::LeaseFiles;
use crate::journal::replay::{Body, LastWins, Line, Part, Place, RowError};
use crate::journal::row::{SchemaClass, excerpt};
use crate::journal::{Family, RowReader, RowReason};

/// Most bad rows that are taken for rows of a damaged lease file; a file with more is something else and refused,
/// whatever `max-row-errors` says.
pub const BAD_ROWS_MAX: usize = 1_000_000;

/// Past this size `X.rejected` is only appended to, without looking whether a row is there already.
const REJECTED_BYTES_READ_MAX: u64 = 64 << 20;

const EXCERPT_BYTES: usize = 160;

/// Something that the operator should know about the files; the store works all the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// The last row was not written to its end and could not be read: it was cut off. It was never acknowledged.
    TornRow {
        /// The file.
        path: PathBuf,
        /// Its line, from 1.
        line: u64,
        /// What was there, shortened.
        text: String,
    },
    /// A header was not written to its end (no row had been): it was written again.
    TornHeader {
        /// The file.
        path: PathBuf,
    },
    /// A file that should hold at least a header is empty.
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// Bad rows, kept in `X.rejected`.
    BadRows {
        /// The file.
        path: PathBuf,
        /// How many.
        count: u64,
        /// The first of them.
        first: RowError,
    },
    /// The file was written by a release with other columns: a cleanup converts it.
    OtherSchema {
        /// The file.
        path: PathBuf,
        /// Columns in its header.
        column_count: usize,
    },
    /// A pid file that names no cleanup.
    StalePid {
        /// The file.
        path: PathBuf,
        /// The number in it.
        pid: u32,
    },
    /// The file did not exist and was created.
    Created {
        /// The file.
        path: PathBuf,
    },
}

impl fmt::Display for Finding {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TornRow { path, line, text } => {
                write!(
                    out,
                    "{}:{line}: cut off a last row that was not written to its end: {text}",
                    path.display()
                )
            }
            Self::TornHeader { path } => {
                write!(out, "{}:1: wrote the header again, it was not written to its end", path.display())
            }
            Self::Empty { path } => write!(out, "{}: empty where at least a header belongs", path.display()),
            Self::BadRows { path, count, first } => write!(
                out,
                "{}:{}: {}; bad rows in this file: {count}, kept in the file *.rejected",
                path.display(),
                first.line,
                first.reason
            ),
            Self::OtherSchema { path, column_count } => {
                write!(
                    out,
                    "{}: written with {column_count} columns, to be converted by a cleanup",
                    path.display()
                )
            }
            Self::StalePid { path, pid } => {
                write!(out, "{}: names process {pid}, which is no cleanup: ignored", path.display())
            }
            Self::Created { path } => write!(out, "{}: created", path.display()),
        }
    }
}

/// A lease file that is ours to serve.
#[derive(Debug)]
pub struct Opened<F: Family> {
    /// For [`GroupCommit`](super::GroupCommit).
    pub live: LiveFile,
    /// The leases, to be loaded.
    pub image: Image<F>,
    /// What was odd.
    pub findings: Vec<Finding>,
    /// A rotation and a cleanup are due at once, even when `lfc-interval` is 0: a cleanup was interrupted, or a file
    /// has columns of another release.
    pub needs_cleanup: bool,
}

/// What the files of one lease file held when they were opened.
#[derive(Debug)]
pub struct Image<F: Family> {
    disk: Arc<dyn Disk>,
    rejected: PathBuf,
    files: Vec<ImageFile>,
    family: PhantomData<fn() -> F>,
}

#[derive(Debug)]
struct ImageFile {
    path: PathBuf,
    bytes: Vec<u8>,
}

/// Takes the lease file `live` for this process `pid` and reads what is there: `X.completed`, or else `X.2` and `X.1`,
/// then `X`, which is created when there is none. Nothing but a torn end of `X` is changed.
///
/// # Errors
/// Somebody else uses the file or cleans it up, a file is not a lease file of this family, or the disk refuses.
pub fn open<F: Family>(disk: Arc<dyn Disk>, live: &Path, pid: u32) -> Result<Opened<F>, Error> {
    let files = LeaseFiles::new(live);
    let lock = disk.lock(&files.lock).map_err(Error::io("lock", &files.lock))?;
    let Some(lock) = lock else { return Err(Error::InUse { path: live.to_owned() }) };
    let mut findings = Vec::new();
    refuse_beside_cleanup(&*disk, &files, pid, &mut findings)?;

    let mut images = Vec::new();
    let completed = read_file(&*disk, &files.completed)?;
    let is_completed = is_completed(&*disk, &files)?;
    let mut needs_cleanup = completed.is_some();
    let mut is_converted = false;
    let older = if is_completed { vec![&files.completed] } else { vec![&files.previous, &files.copy] };
    if completed.is_some() && !is_completed {
        findings.push(Finding::Empty { path: files.completed.clone() });
    }
    for path in older {
        let Some(bytes) = read_file(&*disk, path)? else { continue };
        needs_cleanup |= path != &files.previous;
        if bytes.is_empty() {
            findings.push(Finding::Empty { path: path.clone() });
            continue;
        }
        let body = check_header::<F>(path, &bytes)?;
        is_converted |= note_schema(path, body, &mut findings);
        images.push(ImageFile { path: path.clone(), bytes });
    }

    let (mut file, bytes) = open_live::<F>(&*disk, &files, &mut findings)?;
    let body = check_header::<F>(live, &bytes)?;
    let has_rows = body.lines.clone().next().is_some();
    is_converted |= note_schema(live, body, &mut findings);
    images.push(ImageFile { path: live.to_owned(), bytes });

    // What we are about to serve may be in memory only: whoever wrote it was killed before the sync, or is Kea and
    // never syncs. A client may be told of these leases without another row being written.
    for image in images.iter().filter(|image| image.path != *live) {
        let path = &image.path;
        let mut older = disk.open(path, OpenMode::Append).map_err(Error::io("open for writing", path))?;
        older.sync().map_err(Error::io("sync", path))?;
    }
    file.sync().map_err(Error::io("sync", live))?;
    disk.sync_dir(live).map_err(Error::io("sync the folder of", live))?;

    let rejected = files.rejected.clone();
    Ok(Opened {
        live: LiveFile {
            disk: Arc::clone(&disk),
            files,
            file,
            write_header: F::write_header,
            is_dirty: has_rows || is_converted,
            lock: Arc::from(lock),
        },
        image: Image { disk, rejected, files: images, family: PhantomData },
        findings,
        needs_cleanup: needs_cleanup || is_converted,
    })
}

/// Whether `X.completed` stands for a finished cleanup. A finished one holds at least a header: an empty file is what
/// a loss of power made of one that was renamed before it was synced, and must not hide `X.2` and `X.1`.
pub(super) fn is_completed(disk: &dyn Disk, files: &LeaseFiles) -> Result<bool, Error> {
    let path = &files.completed;
    match disk.open_read(path).map_err(Error::io("open", path))? {
        None => Ok(false),
        Some(file) => Ok(file.len().map_err(Error::io("read", path))? > 0),
    }
}

/// The process that cleans up this lease file now, if any: the number in `X.pid` counts only while a cleanup program
/// runs under it. Our own cleanups hold `X.lock` and need no second look.
pub(super) fn cleanup_process(
    disk: &dyn Disk,
    files: &LeaseFiles,
    pid: u32,
) -> Result<CleanupProcess, Error> {
    let path = &files.pid;
    let Some(bytes) = read_file(disk, path)? else { return Ok(CleanupProcess::None) };
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(32)]).trim().to_owned();
    let Ok(named) = text.parse::<u32>() else { return Ok(CleanupProcess::Stale(0)) };
    match disk.process_name(named) {
        Some(program) if named != pid && program.contains("lfc") => {
            Ok(CleanupProcess::Running { pid: named, program })
        }
        _ => Ok(CleanupProcess::Stale(named)),
    }
}

/// What `X.pid` says.
pub(super) enum CleanupProcess {
    None,
    Stale(u32),
    Running { pid: u32, program: String },
}

fn refuse_beside_cleanup(
    disk: &dyn Disk,
    files: &LeaseFiles,
    pid: u32,
    findings: &mut Vec<Finding>,
) -> Result<(), Error> {
    match cleanup_process(disk, files, pid)? {
        CleanupProcess::None => {}
        CleanupProcess::Stale(pid) => findings.push(Finding::StalePid { path: files.pid.clone(), pid }),
        CleanupProcess::Running { pid, program } => {
            return Err(Error::CleanupRunning { path: files.pid.clone(), pid, program });
        }
    }
    let path = &files.pid_lock;
    if disk.exists(path).map_err(Error::io("look for", path))?
        && disk.lock(path).map_err(Error::io("lock", path))?.is_none()
    {
        return Err(Error::CleanupRunning {
            path: path.clone(),
            pid: 0,
            program: "unknown, it holds the lock".into(),
        });
    }
    Ok(())
}

fn read_file(disk: &dyn Disk, path: &Path) -> Result<Option<Vec<u8>>, Error> {
    let file = disk.open_read(path).map_err(Error::io("open", path))?;
    file.map(|file| file.read_all()).transpose().map_err(Error::io("read", path))
}

fn check_header<'a, F: Family>(path: &Path, bytes: &'a [u8]) -> Result<Body<'a>, Error> {
    Body::new::<F>(bytes).map_err(|(line, source)| Error::Header { path: path.to_owned(), line, source })
}

fn note_schema(path: &Path, body: Body<'_>, findings: &mut Vec<Finding>) -> bool {
    let is_other = body.schema.class != SchemaClass::Current;
    if is_other {
        findings.push(Finding::OtherSchema { path: path.to_owned(), column_count: body.schema.column_count });
    }
    is_other
}

/// Opens `X` for appending, with a header and a line end at its end, and says what it holds.
fn open_live<F: Family>(
    disk: &dyn Disk,
    files: &LeaseFiles,
    findings: &mut Vec<Finding>,
) -> Result<(Box<dyn super::DiskFile>, Vec<u8>), Error> {
    let path = &files.live;
    let mut header = Vec::new();
    F::write_header(&mut header);
    let Some(mut bytes) = read_file(disk, path)? else {
        let file =
            renew(disk, path, F::write_header).map_err(|(action, source)| Error::io(action, path)(source))?;
        findings.push(Finding::Created { path: path.clone() });
        return Ok((file, header));
    };
    // A loss of power may leave octets that were never written as zeros.
    let written = bytes.len() - bytes.iter().rev().take_while(|octet| **octet == 0).count();
    let is_header_torn = written < header.len() && header.starts_with(&bytes[..written]);
    let tail_start = memchr::memrchr(b'\n', &bytes).map_or(0, |at| at + 1);
    if tail_start == bytes.len() && !is_header_torn {
        let file = disk.open(path, OpenMode::Append).map_err(Error::io("open for writing", path))?;
        return Ok((file, bytes));
    }
    if !is_header_torn {
        // Before the file is touched: it might not be a lease file at all.
        check_header::<F>(path, &bytes)?;
    }
    let mut file = disk.open(path, OpenMode::Append).map_err(Error::io("open for writing", path))?;
    if is_header_torn {
        let finding = if bytes.is_empty() {
            Finding::Empty { path: path.clone() }
        } else {
            Finding::TornHeader { path: path.clone() }
        };
        findings.push(finding);
        file.truncate(0).map_err(Error::io("cut", path))?;
        file.append(&header).map_err(Error::io("write", path))?;
        bytes = header;
    } else if tail_start == 0 || reads_well::<F>(path, &bytes, tail_start)? {
        // Complete but for its line end, which an editor may have left out.
        file.append(b"\n").map_err(Error::io("write", path))?;
        bytes.push(b'\n');
    } else {
        let line = 1 + memchr::memchr_iter(b'\n', &bytes).count() as u64;
        let text = excerpt(&bytes[tail_start..], EXCERPT_BYTES);
        findings.push(Finding::TornRow { path: path.clone(), line, text });
        file.truncate(tail_start as u64).map_err(Error::io("cut", path))?;
        bytes.truncate(tail_start);
    }
    Ok((file, bytes))
}

fn reads_well<F: Family>(path: &Path, bytes: &[u8], tail_start: usize) -> Result<bool, Error> {
    let body = check_header::<F>(path, bytes)?;
    Ok(RowReader::<F>::new(body.schema).read(&bytes[tail_start..]).is_ok())
}

/// What a load did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoadReport {
    /// Leases handed out.
    pub lease_count: u64,
    /// Bad rows by file, and other things found.
    pub findings: Vec<Finding>,
}

/// How many rows a look at some lease files saw.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RowCounts {
    /// Rows, good and bad.
    pub rows: u64,
    /// Bad rows.
    pub bad: u64,
    /// Leases that remain.
    pub leases: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct BadRow {
    file: usize,
    offset: u64,
    row_bytes: usize,
    line: u64,
    reason: u8,
}

struct BadRows {
    rows: Vec<(BadRow, RowReason)>,
}

impl BadRows {
    fn add(&mut self, file: usize, line: Line<'_>, reason: RowReason) {
        if self.rows.len() <= BAD_ROWS_MAX {
            let row = BadRow {
                file,
                offset: line.offset,
                row_bytes: line.text.len(),
                line: line.number,
                reason: reason as u8,
            };
            self.rows.push((row, reason));
        }
    }
}

impl<F: Family> Image<F> {
    /// Reads what is there without taking it or changing anything, also while a server works on it.
    ///
    /// # Errors
    /// A file is not a lease file of this family, there is none at all, or the disk refuses.
    pub fn read(disk: Arc<dyn Disk>, live: &Path) -> Result<Self, Error> {
        let files = LeaseFiles::new(live);
        let found = loop {
            // Against the direction in which rows travel: what moves on meanwhile is read twice, not missed, and to
            // read a row twice changes nothing.
            let live = read_file(&*disk, &files.live)?;
            let copy = read_file(&*disk, &files.copy)?;
            let previous = read_file(&*disk, &files.previous)?;
            let completed = read_file(&*disk, &files.completed)?.filter(|bytes| !bytes.is_empty());
            let is_missed = previous.is_none() && completed.is_none();
            if is_missed && disk.exists(&files.previous).map_err(Error::io("look for", &files.previous))? {
                continue;
            }
            let older = if completed.is_some() { (None, None) } else { (previous, copy) };
            break [
                (&files.completed, completed),
                (&files.previous, older.0),
                (&files.copy, older.1),
                (&files.live, live),
            ];
        };
        let mut images = Vec::new();
        for (path, bytes) in found {
            let Some(bytes) = bytes else { continue };
            if !bytes.is_empty() {
                check_header::<F>(path, &bytes)?;
            }
            images.push(ImageFile { path: path.clone(), bytes });
        }
        if images.is_empty() {
            return Err(Error::io("open", live)(io::ErrorKind::NotFound.into()));
        }
        images.retain(|image| !image.bytes.is_empty());
        Ok(Self { disk, rejected: files.rejected, files: images, family: PhantomData })
    }

    /// Hands out the leases that remain by ascending address; bad rows go to `refuse` with their file, a last one without its
    /// line end as [`RowReason::Torn`].
    pub fn for_each(
        &self,
        mut refuse: impl FnMut(&Path, RowError),
        mut take: impl FnMut(&F::Lease<'_>),
    ) -> RowCounts {
        let mut counts = RowCounts::default();
        let mut leases = LastWins::<F>::new(Part::WHOLE, 0);
        let mut readers = self.readers();
        for ((number, file), reader) in (0u8..).zip(&self.files).zip(&mut readers) {
            let body = Body::new::<F>(&file.bytes).expect("the header was checked when the file was read");
            for line in body.lines {
                counts.rows += 1;
                if let Err(reason) = leases.apply(number, line, reader) {
                    counts.bad += 1;
                    // What its columns lack is not what is wrong with it.
                    let is_torn = line.offset + line.text.len() as u64 == file.bytes.len() as u64;
                    let reason = if is_torn { RowReason::Torn } else { reason };
                    refuse(&file.path, RowError { line: line.number, offset: line.offset, reason });
                }
            }
        }
        for (_, place) in leases.into_sorted() {
            let text = self.row(place);
            take(&readers[place.file()].read(text).expect("the same octets were read before"));
            counts.leases += 1;
        }
        counts
    }

    /// The files, in the order of replay.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(|file| file.path.as_path())
    }

    fn readers(&self) -> Vec<RowReader<F>> {
        let reader = |file: &ImageFile| {
            let body = Body::new::<F>(&file.bytes).expect("the header was checked when the file was read");
            RowReader::<F>::new(body.schema)
        };
        self.files.iter().map(reader).collect()
    }

    fn row(&self, place: Place) -> &[u8] {
        let start = usize::try_from(place.offset()).expect("an offset into memory");
        &self.files[place.file()].bytes[start..start + place.row_bytes()]
    }

    /// Octets read.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes.len() as u64).sum()
    }

    /// Replays the rows with `thread_count` threads and hands every lease that remains to `take`, with the number of
    /// the thread that calls (below `thread_count`). Each address is handed out once. Bad rows go to `X.rejected`.
    ///
    /// `errors_max` is Kea's `max-row-errors`, per file: 0 tolerates any number.
    ///
    /// # Errors
    /// Too many bad rows, before any lease is handed out; or `X.rejected` cannot be written.
    pub fn load<T>(self, thread_count: u32, errors_max: u64, take: T) -> Result<LoadReport, Error>
    where
        T: Fn(u32, &F::Lease<'_>) + Sync,
    {
        let thread_count = thread_count.clamp(1, 64);
        let (parts, bad) = self.index(thread_count)?;
        let findings = self.settle(bad, errors_max)?;
        let (image, take) = (&self, &take);
        let lease_count = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..)
                .zip(parts)
                .map(|(index, part)| scope.spawn(move || image.hand_out(part, &|lease| take(index, lease))))
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
                .sum()
        });
        Ok(LoadReport { lease_count, findings })
    }

    fn hand_out(&self, part: LastWins<F>, take: &impl Fn(&F::Lease<'_>)) -> u64 {
        let mut readers = self.readers();
        let places = part.into_places();
        for place in &places {
            let lease =
                readers[place.file()].read(self.row(*place)).expect("the same octets were read before");
            take(&lease);
        }
        places.len() as u64
    }

    #[expect(clippy::type_complexity, reason = "two results of one pass, named where they are used")]
    fn index(&self, thread_count: u32) -> Result<(Vec<LastWins<F>>, Vec<(BadRow, RowReason)>), Error> {
        // A guess of the leases per thread from the octets: an eighth of the rows too few costs one growth.
        let guess = usize::try_from(self.bytes() / 96 / u64::from(thread_count)).unwrap_or(0);
        let results = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..thread_count)
                .map(|index| {
                    scope.spawn(move || -> Result<_, Error> {
                        let mut part = LastWins::<F>::new(Part::new(index, thread_count), guess);
                        let mut bad = BadRows { rows: Vec::new() };
                        for (number, file) in (0u8..).zip(&self.files) {
                            let body = check_header::<F>(&file.path, &file.bytes)?;
                            let mut reader = RowReader::<F>::new(body.schema);
                            for line in body.lines {
                                if let Err(reason) = part.apply(number, line, &mut reader) {
                                    bad.add(usize::from(number), line, reason);
                                }
                            }
                        }
                        Ok((part, bad.rows))
                    })
                })
                .collect();
            let join = |thread: std::thread::ScopedJoinHandle<'_, _>| {
                thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            };
            threads.into_iter().map(join).collect::<Result<Vec<_>, Error>>()
        })?;
        let (parts, bad): (Vec<_>, Vec<_>) = results.into_iter().unzip();
        let mut bad: Vec<_> = bad.into_iter().flatten().collect();
        bad.sort_unstable_by_key(|(row, _)| *row);
        Ok((parts, bad))
    }

    /// Counts bad rows against the limit and keeps them in `X.rejected`.
    fn settle(&self, bad: Vec<(BadRow, RowReason)>, errors_max: u64) -> Result<Vec<Finding>, Error> {
        let mut findings = Vec::new();
        for (number, file) in self.files.iter().enumerate() {
            let own = || bad.iter().filter(move |(row, _)| row.file == number);
            let Some((first, reason)) = own().next() else { continue };
            let count = own().count() as u64;
            let bound = BAD_ROWS_MAX as u64;
            let limit = if errors_max == 0 { bound } else { errors_max.min(bound) };
            if count > limit {
                let passed = usize::try_from(limit).ok().and_then(|limit| own().nth(limit));
                let (row, reason) = passed.map_or((first, *reason), |(row, reason)| (row, *reason));
                let path = file.path.clone();
                return Err(Error::RowErrors { path, limit, line: row.line, reason: reason.text() });
            }
            let first = RowError { line: first.line, offset: first.offset, reason: *reason };
            findings.push(Finding::BadRows { path: file.path.clone(), count, first });
        }
        let texts = bad.iter().map(|(row, _)| {
            let start = usize::try_from(row.offset).unwrap_or(usize::MAX);
            &self.files[row.file].bytes[start..start + row.row_bytes]
        });
        keep_rejected(&*self.disk, &self.rejected, texts)?;
        Ok(findings)
    }
}

/// Appends rows to `X.rejected` unless the same row is there already (the same file may be opened many times before a
/// cleanup drops the row), and syncs it.
pub(super) fn keep_rejected<'a>(
    disk: &dyn Disk,
    path: &Path,
    rows: impl Iterator<Item = &'a [u8]>,
) -> Result<(), Error> {
    let mut rows = rows.peekable();
    if rows.peek().is_none() {
        return Ok(());
    }
    let known = match disk.open_read(path).map_err(Error::io("open", path))? {
        Some(file) if file.len().is_ok_and(|len| len <= REJECTED_BYTES_READ_MAX) => {
            Some(file.read_all().map_err(Error::io("read", path))?)
        }
        Some(_) => Some(Vec::new()),
        None => None,
    };
    let mode = if known.is_some() { OpenMode::Append } else { OpenMode::CreateNew };
    let known = known.unwrap_or_default();
    let mut seen: HashSet<&[u8]> = known.split(|octet| *octet == b'\n').collect();
    let mut text = Vec::new();
    if known.last().is_some_and(|last| *last != b'\n') {
        text.push(b'\n');
    }
    let before = text.len();
    for row in rows {
        if seen.insert(row) {
            text.extend_from_slice(row);
            text.push(b'\n');
        }
    }
    if text.len() == before {
        return Ok(());
    }
    let write = || -> io::Result<()> {
        let mut file = disk.open(path, mode)?;
        file.append(&text)?;
        file.sync()?;
        disk.sync_dir(path)
    };
    write().map_err(Error::io("write", path))
}
