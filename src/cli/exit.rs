//! How a process ends.

use std::process::{ExitCode, Termination};

/// The exit codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Ended well: 0.
    Well,
    /// The configuration is wrong: 1. Also a command that the server answered with an error.
    Configuration,
    /// The command line is wrong: 2.
    Usage,
    /// Cannot start (port, privilege, file): 3.
    CannotStart,
    /// Stopped by a fault: 4.
    Fault,
    /// What `shutdown` was told.
    Asked(u8),
}

impl Termination for Exit {
    fn report(self) -> ExitCode {
        ExitCode::from(match self {
            Self::Well => 0,
            Self::Configuration => 1,
            Self::Usage => 2,
            Self::CannotStart => 3,
            Self::Fault => 4,
            Self::Asked(code) => code,
        })
    }
}
