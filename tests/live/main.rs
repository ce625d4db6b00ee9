//! The server as its operator meets it: the real program, started from files, asked over its socket, ended by signals.
//!
//! Nothing here needs privileges but what says so when it is skipped. Every wait is bounded.

mod cable;
mod configuration;
mod ends;
mod interfaces;
mod lease_commands;
mod lease_file;
mod others;
mod overload;
mod place;
