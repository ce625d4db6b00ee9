//! Instruments that show how fast `aplomado` is, and any other DHCP server beside it.
//!
//! `load` offers, `reflect` is the ceiling of machine and kernel. Both print their results as one JSON object on standard output,
//! and end by themselves.

mod clients;
mod clock;
mod codec;
mod exchange;
mod generator;
mod load;
mod reflect;
mod report;
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
}

fn main() -> ExitCode {
    let done = match Cli::parse().instrument {
        Instrument::Load(arguments) => load::run(&arguments),
        Instrument::Reflect(arguments) => reflect::run(&arguments).map(|value| (value, true)),
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
