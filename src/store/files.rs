//! The names around a lease file: those of Kea's cleanup, and two of our own.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The files that belong to the lease file `X`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseFiles {
    /// `X`: the live journal.
    pub live: PathBuf,
    /// `X.1`: the former `X`, waiting for its cleanup.
    pub copy: PathBuf,
    /// `X.2`: the result of the previous cleanup.
    pub previous: PathBuf,
    /// `X.output`: what a cleanup is writing.
    pub output: PathBuf,
    /// `X.completed`: what a cleanup has finished; stands for `X.2` and `X.1` together.
    pub completed: PathBuf,
    /// `X.pid`: who runs a cleanup.
    pub pid: PathBuf,
    /// `X.pid.lock`: guards `X.pid`.
    pub pid_lock: PathBuf,
    /// `X.lock`: held by the server (or offline tool) that works on `X`; ours, Kea does not look at it.
    pub lock: PathBuf,
    /// `X.rejected`: rows that could not be read, kept for a person to look at; ours.
    pub rejected: PathBuf,
}

impl LeaseFiles {
    /// The names around `live`.
    #[must_use]
    pub fn new(live: &Path) -> Self {
        let with = |suffix: &str| {
            let mut name = OsString::from(live);
            name.push(suffix);
            PathBuf::from(name)
        };
        Self {
            live: live.to_owned(),
            copy: with(".1"),
            previous: with(".2"),
            output: with(".output"),
            completed: with(".completed"),
            pid: with(".pid"),
            pid_lock: with(".pid.lock"),
            lock: with(".lock"),
            rejected: with(".rejected"),
        }
    }
}
