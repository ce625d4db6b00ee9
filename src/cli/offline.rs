//! `leases`: work on a lease file while no server has it, with a progress bar on a terminal.

use std::fs;
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::sync::Arc;

use clap::{Subcommand, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};

use super::Exit;
use super::leases::{self, Failure, Format};
use crate::server::told;
use crate::store::RealDisk;

/// How leases are written or read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum FormatName {
    /// Kea's lease file.
    #[default]
    Csv,
    /// One JSON map per line, as the control API prints leases.
    Json,
}

impl From<FormatName> for Format {
    fn from(name: FormatName) -> Self {
        match name {
            FormatName::Csv => Self::Csv,
            FormatName::Json => Self::Json,
        }
    }
}

/// What is done with a lease file.
#[derive(Debug, Subcommand)]
pub enum Action {
    /// Write the leases of FILE (and of the files beside it) to standard output, ascending, each address once.
    Export {
        /// The lease file, as lease-database.name has it.
        file: PathBuf,
        /// How.
        #[arg(long, value_enum, default_value_t)]
        format: FormatName,
    },
    /// Add the leases of INPUT to FILE; all or nothing.
    Import {
        /// The lease file; created when there is none.
        file: PathBuf,
        /// Where the leases come from.
        input: PathBuf,
        /// How they are written there.
        #[arg(long, value_enum, default_value_t)]
        format: FormatName,
    },
    /// Print everything that is wrong with FILE as FILE:LINE: reason, and what it holds. Exit code 1 when rows are bad.
    Verify {
        /// The lease file.
        file: PathBuf,
    },
    /// Clean FILE up as the server does while it runs: one row for each lease.
    Compact {
        /// The lease file.
        file: PathBuf,
    },
}

/// Does it.
pub(super) fn run(action: &Action) -> Exit {
    let bar = if io::stderr().is_terminal() { ProgressBar::new(0) } else { ProgressBar::hidden() };
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {bytes}/{total_bytes} {eta}") {
        bar.set_style(style);
    }
    let mut progress = |done: u64, total: u64| {
        bar.set_length(total);
        bar.set_position(done);
    };
    let disk = Arc::new(RealDisk);
    let mut out = io::BufWriter::new(io::stdout().lock());
    let pid = std::process::id();
    let done = match action {
        Action::Export { file, format } => {
            leases::export(disk, file, (*format).into(), &mut out, &mut progress)
                .map(|summary| (summary.to_string(), Exit::Well))
        }
        Action::Verify { file } => leases::verify(disk, file, &mut out, &mut progress).map(|summary| {
            let exit = if summary.bad_count > 0 { Exit::Configuration } else { Exit::Well };
            (summary.to_string(), exit)
        }),
        Action::Compact { file } => leases::compact(disk, file, pid, &mut progress).map(|compacted| {
            let findings: Vec<String> =
                compacted.findings.iter().map(|finding| format!("{finding}\n")).collect();
            (format!("{}{}", findings.concat(), compacted.cleaned), Exit::Well)
        }),
        Action::Import { file, input, format } => match fs::read(input) {
            Ok(octets) => leases::import(disk, file, pid, (input, &octets), (*format).into(), &mut progress)
                .map(|imported| (format!("{} lease(s) added", imported.row_count), Exit::Well)),
            Err(error) => {
                bar.finish_and_clear();
                eprintln!("aplomado: cannot read {}: {error}", input.display());
                return Exit::CannotStart;
            }
        },
    };
    bar.finish_and_clear();
    // What could not be written was told by the action itself.
    let _ = out.flush();
    match done {
        Ok((text, exit)) => {
            eprintln!("{text}");
            exit
        }
        Err(failure) => {
            match &failure {
                Failure::Store(error) => eprintln!("aplomado: {}", told(error)),
                other => eprintln!("aplomado: {}", told(other)),
            }
            exit_of(&failure)
        }
    }
}

const fn exit_of(failure: &Failure) -> Exit {
    match failure {
        Failure::Input { .. } => Exit::Configuration,
        _ => Exit::CannotStart,
    }
}
