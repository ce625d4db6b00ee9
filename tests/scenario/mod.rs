//! Scenarios as text: packets in a short notation, and a whole shard to put them to.
//!
//! | module | what |
//! |---|---|
//! | [`packet`] | the notation of queries and of what is expected of answers |
//! | [`world`] | shards as the server puts them together, with time made up and the disk in memory |
#![allow(dead_code, reason = "each test crate uses a part")]

pub(crate) mod packet;
pub(crate) mod world;
