//! The command line: what the words mean, how a process ends.

pub mod ctl;
pub mod demo;
pub mod exit;
pub mod leases;
pub mod offline;
pub mod run;

use std::io::IsTerminal as _;
use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};

pub use exit::Exit;

/// A highly available DHCP server that takes a Kea configuration as it is.
#[derive(Debug, Parser)]
#[command(
    name = "aplomado",
    version,
    about,
    after_help = "Start with:  aplomado check kea-dhcp4.conf && aplomado run -c kea-dhcp4.conf\n\
                  See it work: aplomado demo\n\n\
                  Exit codes: 0 ended well, 1 configuration, 2 usage, 3 cannot start (port, privilege, file), 4 stopped by a fault."
)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

/// How log lines look on standard error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Human,
    /// One JSON map per line.
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve what the configuration files hold: Dhcp4 and Control-agent blocks, in one process.
    ///
    /// Needs CAP_NET_RAW for packet sockets and CAP_NET_BIND_SERVICE for port 67. SIGHUP reads the files again, SIGTERM and
    /// SIGINT end cleanly: every acknowledged lease is on disk before the process ends.
    Run {
        /// A Kea configuration file; may be given several times (Dhcp4 in one, Control-agent in another).
        #[arg(short, long = "config", value_name = "FILE", required = true)]
        config: Vec<PathBuf>,
        /// How log lines look on standard error.
        #[arg(long, value_enum, default_value_t)]
        log_format: LogFormat,
    },
    /// Check configuration files and print everything that is wrong, as FILE:LINE:COLUMN.
    ///
    /// Exit code 0 when the server would take them, 1 when not. Interfaces of this machine are not asked for.
    Check {
        /// Kea configuration files that belong together.
        #[arg(value_name = "FILE", required_unless_present = "config")]
        files: Vec<PathBuf>,
        /// One more of them, written as for `run`; may be given several times.
        #[arg(short, long = "config", value_name = "FILE")]
        config: Vec<PathBuf>,
    },
    /// Send one command to a running server and print the answer.
    Ctl(ctl::CtlArgs),
    /// Work on a lease file while no server has it.
    Leases {
        /// What to do.
        #[command(subcommand)]
        action: offline::Action,
    },
    /// Show a pair at work on this machine: two servers, a thousand clients, kill -9, takeover, return, and the proof.
    Demo(demo::DemoArgs),
}

/// Runs the command line.
#[must_use]
pub fn main() -> Exit {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Nothing to be done when even that cannot be printed.
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage } else { Exit::Well };
        }
    };
    match arguments.command {
        Command::Run { config, log_format } => run::run(&config, log_format),
        Command::Check { files, config } => run::check(&[files, config].concat()),
        Command::Ctl(arguments) => match ctl::run(&coloured(arguments), &mut std::io::stdout()) {
            Ok(0) => Exit::Well,
            Ok(code) => Exit::Asked(code),
            Err(error) => {
                eprintln!("aplomado: {error}");
                Exit::Asked(ctl::EXIT_NOT_ASKED)
            }
        },
        Command::Leases { action } => offline::run(&action),
        Command::Demo(arguments) => demo::run(arguments),
    }
}

/// With colours where they can be seen and are wanted (<https://no-color.org>).
fn coloured(arguments: ctl::CtlArgs) -> ctl::CtlArgs {
    let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    ctl::CtlArgs { colours: wanted && std::io::stdout().is_terminal(), ..arguments }
}
