//! `aplomado`: a DHCP server that takes a Kea configuration, lease file and control API as they are, answers
//! from thread-per-core loops on raw sockets, and is one half of a highly available pair.
//!
//! The rooms, in order of dependency; a room uses only rooms above it (`tests/tidy.rs` keeps this):
//!
//! | room | what lives there |
//! |---|---|
//! | [`ids`], [`time`], [`sync`], [`memory`] | newtypes, time as a value, the shared cells, large tables and hints about memory |
//! | [`wire`] | views of and emitters for everything that travels on the wire |
//! | [`expr`] | client-class expressions, compiled to a flat program |
//! | [`config`] | Kea's JSON, checked, turned into an immutable plan |
//! | [`classify`] | RFC 3074 bucket, HA scope, client classes, subnet selection |
//! | [`lease`] | lease record, table, address claims, expiry |
//! | [`allocate`] | pools' allocators |
//! | [`journal`] | what a change of a lease is, as a row and as a log position |
//! | [`park`] | replies that wait for their log position to be safe |
//! | [`exchange`] | the DHCP rules |
//! | [`ha`] | the HA relationship: state machine, backlog, commands |
//! | *edges:* [`net`], [`store`], [`control`] | sockets, files, the control API |
//! | [`server`], [`cli`] | the wiring, the command line |
#![deny(unsafe_code)]

pub mod allocate;
pub mod classify;
pub mod cli;
pub mod config;
pub mod control;
pub mod exchange;
pub mod expr;
pub mod ha;
pub mod ids;
pub mod journal;
pub mod lease;
pub mod memory;
pub mod net;
pub mod park;
pub mod server;
pub mod store;
pub mod sync;
pub mod time;
pub mod wire;
