//! The one room that wires the others: threads, clocks, signals, start and end.
//!
//! | thread | what it does | module |
//! |---|---|---|
//! | `shard-N` | receives, decides, answers; owns the leases of its clients | [`shard_loop`] |
//! | `log` | writes rows, syncs, publishes watermarks | [`engine`] |
//! | `control` (the first) | control API, HA machine, configuration, interfaces, clean-up of the lease file | [`control_loop`] |
//!
//! Promises: a shard thread neither allocates nor frees for a packet, takes no lock, and makes no system call but those of
//! its ports. What shards and control say to each other goes through bounded queues and published words.

pub mod clock;
pub mod control_loop;
pub mod desk;
pub mod engine;
pub mod listeners;
pub mod setup;
pub mod shard_loop;
