//! What a query is: its RFC 3074 bucket, the shard that owns its client, its classes, its subnet.
//!
//! Promises: no allocation, no panic on any input; any thread may call.

pub mod bucket;
pub mod classes;
pub mod steer;
pub mod subnet;
