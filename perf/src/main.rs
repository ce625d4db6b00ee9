//! Instruments that show how fast `aplomado` is, and any other DHCP server beside it.
//!
//! `load` offers, `reflect` is the ceiling of machine and kernel; `compare` runs servers side by side under them, `lifecycle` tries
//! start, sync, takeover, cleanup and listings, `flamegraph` shows where time goes. Each prints its results as one JSON object on standard
//! output, and ends by itself.

mod clients;
mod clock;
mod codec;
mod compare;
mod exchange;
mod flamegraph;
mod generator;
mod lab;
mod lifecycle;
mod listing;
mod load;
mod machine;
mod plot;
mod probe;
mod reflect;
mod report;
mod servers;
mod tables;
mod wire;

use std::process::ExitCode;

use clap::Parser;

/// Instruments that show how fast a DHCP server is.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    instrument: Instrument,
}

#[derive(Debug, clap::Subcommand)]
enum Instrument {
    /// Offer load to a server and check every answer.
    ///
    /// The server is reached through an interface of this machine, usually one end of a veth pair whose other end is in the server's
    /// network namespace. Needs CAP_NET_RAW. Ends with 1 when an answer was wrong.
    Load(load::Arguments),
    /// Send every DHCP frame back to where it came from: what machine, kernel and ports carry.
    Reflect(reflect::Arguments),
    /// Run servers side by side, alone and as pairs: highest rates, latencies, CPU time, overload; as table, JSON and plots.
    ///
    /// Needs root (it makes network namespaces). Servers that are not installed are left out, and said to be. The program `aplomado`
    /// is looked for beside this one, or where the environment variable APLOMADO says.
    Compare(compare::Arguments),
    /// Try start, sync of an empty partner, takeover, cleanup of the lease file, and listings of it. Needs root.
    Lifecycle(lifecycle::Arguments),
    /// From a running process, or a program to be started, to a flame graph.
    Flamegraph(flamegraph::Arguments),
}

fn main() -> ExitCode {
    let done = match Cli::parse().instrument {
        Instrument::Load(arguments) => load::run(&arguments),
        Instrument::Reflect(arguments) => reflect::run(&arguments).map(|value| (value, true)),
        Instrument::Compare(arguments) => compare::run(&arguments).map(|value| (value, true)),
        Instrument::Lifecycle(arguments) => lifecycle::run(&arguments).map(|value| (value, true)),
        Instrument::Flamegraph(arguments) => flamegraph::run(&arguments).map(|value| (value, true)),
    };
    match done {
        Ok((value, good)) => {
            println!("{value:#}");
            if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(why) => {
            eprintln!("error: {why}");
            ExitCode::FAILURE
        }
    }
}

/// Seconds as nanoseconds; below 0 is 0.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturating, which is meant")]
fn nanoseconds(seconds: f64) -> u64 {
    (seconds * 1e9) as u64
}
