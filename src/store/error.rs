//! What can go wrong with a lease file, in words for the operator.

use std::path::{Path, PathBuf};
use std::{fmt, io};

use crate::journal::HeaderError;

/// Why the store cannot start or go on.
#[derive(Debug)]
pub enum Error {
    /// Another process serves the same file.
    InUse {
        /// The lease file.
        path: PathBuf,
    },
    /// A cleanup by another program is at work on the file.
    CleanupRunning {
        /// The pid file that says so.
        path: PathBuf,
        /// The process it names.
        pid: u32,
        /// What runs under that number.
        program: String,
    },
    /// The file is not a lease file of this family: it is left as it is.
    Header {
        /// The file.
        path: PathBuf,
        /// Line of the header, from 1.
        line: u64,
        /// What is wrong with it.
        source: HeaderError,
    },
    /// More bad rows than `max-row-errors` tolerates.
    RowErrors {
        /// The file.
        path: PathBuf,
        /// The limit passed.
        limit: u64,
        /// Line of the row that passed it, from 1.
        line: u64,
        /// What is wrong with that row.
        reason: &'static str,
    },
    /// The operating system refused.
    Io {
        /// What was tried, as a verb: "write", "sync".
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// An earlier error left the disk in doubt: nothing more is written or acknowledged.
    Stopped {
        /// The earlier error.
        cause: String,
    },
    /// Asked to stop by the caller.
    Cancelled,
}

impl Error {
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, path: path.to_owned(), source }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InUse { path } => {
                write!(out, "lease file {}: another process is using it", path.display())
            }
            Self::CleanupRunning { path, pid, program } => write!(
                out,
                "unable to load leases from files while the lease file cleanup is in progress: {} names process {pid} ({program})",
                path.display()
            ),
            Self::Header { path, line, .. } => write!(
                out,
                "{}:{line}: not a lease file that can be read; it was left as it is",
                path.display()
            ),
            Self::RowErrors { path, limit, line, reason } => write!(
                out,
                "{}:{line}: {reason}; more than {limit} bad rows (max-row-errors)",
                path.display()
            ),
            Self::Io { action, path, source } if source.kind() == io::ErrorKind::StorageFull => {
                write!(out, "lease file {}: cannot {action}: the disk is full", path.display())
            }
            Self::Io { action, path, .. } => write!(out, "lease file {}: cannot {action}", path.display()),
            Self::Stopped { cause } => {
                write!(
                    out,
                    "lease storage stopped by an earlier error, nothing is acknowledged any more: {cause}"
                )
            }
            Self::Cancelled => out.write_str("stopped before it was done"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Header { source, .. } => Some(source),
            Self::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}
