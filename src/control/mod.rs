//! The control API: Kea's commands over unix sockets, HTTP and HTTPS, statistics, the log, and what an operator sees.
//!
//! One thread runs everything here: [`event_loop::ControlLoop`] owns the sockets, [`frame_unix`] and [`http`] turn
//! octets into requests and back without touching a socket, [`command`] and [`table`] say what a command is and who
//! answers it, [`server_commands`], [`lease_commands`] and [`statistics`] answer. What only the rest of the server
//! knows or can do is behind [`backend::Backend`], which `server/` implements.
//!
//! Promises: no octet from a client causes a panic; no command blocks the thread: what needs a shard, a disk or a
//! partner is a [`command::Continuation`] that resumes when `server/` calls [`event_loop::ControlLoop::complete`]. Allocation
//! is free here (cold path) but bounded: connections, request sizes, nesting, answers in memory and log lines each
//! have a named limit. Log lines may come from any thread and never block it.
//!
//! Follows the management API, statistics, control agent and logging chapters of Kea's reference manual, RFC 9112 for
//! HTTP/1.1, RFC 7617 for basic authentication.

pub mod backend;
pub mod clock;
pub mod command;
mod connection;
pub mod disabling;
pub mod dispatch;
pub mod event_loop;
pub mod frame_unix;
pub mod http;
pub mod json;
pub mod lease_commands;
pub mod lease_json;
pub mod listener;
pub mod log;
pub mod notify;
pub mod peer;
pub mod server_commands;
pub mod statistics;
mod stream;
pub mod table;
pub mod tls;
