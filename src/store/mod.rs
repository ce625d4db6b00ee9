//! Leases on disk: the lease file of Kea's memfile backend, kept by our own rules of durability.
//!
//! One log thread owns the live file and turns what shards append into durable rows ([`GroupCommit`]). What is
//! acknowledged is on the disk: after `kill -9` and after a loss of power every lease whose position was published is
//! there with its newest published content, and what was deleted stays deleted. All of it goes through the
//! [`Disk`] trait, so that tests can lose power at every call.
//!
//! Promises: no content of any file makes it panic; after an error of the disk nothing more is acknowledged.
//! Bounds: a group has at most [`commit::GROUP_CHANGES_MAX`] changes.

pub mod commit;
pub mod compact;
pub mod crash_disk;
pub mod disk;
pub mod doorbell;
mod error;
mod files;
pub mod open;

pub use commit::{CommitCounts, GroupCommit, LiveFile, Rotation, SYNC_INTERVAL_MS, SyncMode, Turn};
pub use compact::{Cleaned, Compaction, Progress};
pub use crash_disk::{CrashDisk, Fault, Survivors};
pub use disk::{Disk, DiskFile, DiskLock, DiskRead, OpenMode, RealDisk};
pub use doorbell::{Doorbell, Sleeper, doorbell};
pub use error::Error;
pub use files::LeaseFiles;
pub use open::{Finding, Image, LoadReport, Opened, RowCounts, open};
