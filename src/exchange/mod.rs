//! The DHCPv4 rules: what a query leads to (RFC 2131 4.3, with Kea's decisions where the RFC leaves them open).
//!
//! [`Shard::process`] takes one parsed query and gives back an [`Outcome`]: silence with a reason, a reply that leaves at
//! once, or a reply that waits until the row of its lease is safe. It changes leases through [`leases::Leases`] only.
//!
//! Promises: no allocation, no system call, no lock, no panic on any input. A shard's state is touched by its thread only;
//! what it shares ([`crate::lease::address::AddressSpace`], [`crate::lease::directory::Directory`], [`stats::LeaseStats`]) is atomic.
//!
//! Bounds: the log ring and the list of addresses given up; when either is full a query changes nothing and is dropped
//! with a reason.

mod acknowledge;
mod allocation;
pub mod allocators;
mod answer;
mod classifier;
mod client;
pub mod context;
mod discover;
mod give_back;
mod known_answers;
pub mod leases;
mod names;
mod owner;
mod prefetching;
mod process;
pub mod reclaim;
pub mod request;
mod scope;
pub mod serving;
pub mod stats;

pub use answer::Arrival;
pub use process::{Given, Outcome, Shard};
pub use scope::{RelationshipIndex, SubnetScope};
