//! What a change of a lease is: a record in a shard's log ring, a row in the lease file, a position to wait for.
//!
//! The lease file is Kea's memfile CSV and nothing else: what [`row4`] writes Kea loads, and what any Kea since 0.9
//! wrote it reads. A shard appends a [`Change`] to its ring ([`LogTx::append`]) and gets a log position; the log
//! thread drains all rings ([`LogRx::drain`]), writes rows and publishes positions (`store/`).
//!
//! Promises: no input makes these functions panic, whatever octets a host name or context holds and whatever a file
//! contains. Appending neither allocates nor locks nor calls the kernel; draining allocates only until its buffers
//! have grown to the longest record; reading a row allocates only until its scratch has grown to the longest row.
//! One thread owns a [`LogTx`], one a [`LogRx`]; everything else is `&mut self` or pure.
//!
//! Bounds: a record is at most [`RECORD_BYTES_MAX`] octets in slots of [`SLOT_BYTES`]; a row read from a file at
//! most [`ROW_BYTES_MAX`] octets.
//!
//! Rules of watermarks. Each shard counts its changes from 1; [`crate::ids::Lsn`] 0 is "nothing to wait for". A watermark says
//! that *all* changes of its shard up to it are safe at one place (this disk, one partner): it is published by the
//! one thread that made them so, never before, and never goes back. Positions of two shards say nothing about
//! each other. They start again from 1 in every life of the process: a position is never written to disk, because
//! the order of the rows in the file is all that a restart needs.
//!
//! Followed: the format of Kea's memfile backend, schemas 1.0 to 3.0 (v4) and 1.0 to 5.0 (v6).

mod json;
mod record;
pub mod replay;
mod ring;
pub mod row;
pub mod row4;
pub mod row6;
mod text;

pub use record::{RECORD_BYTES_MAX, SLOT_BYTES};
pub use ring::{AppendError, LogRx, LogTx, RING_SLOTS_MIN, Tap, log_ring};
pub use row::{Family, HeaderError, ROW_BYTES_MAX, RowReader, RowReason, Schema};
pub use row4::V4;
pub use row6::V6;

use crate::ids::PeerId;
use crate::lease::Lease4;

/// A change of one lease. DHCPv6 adds its own pair of variants: whoever keeps or carries changes matches on all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change<'a> {
    /// The lease is now as given, whatever was there.
    Put(Lease4<'a>),
    /// The lease is gone; given is what was last known of it.
    Delete(Lease4<'a>),
}

impl Change<'_> {
    /// Appends the row of this change with its line end to `out`.
    pub fn write_row(&self, out: &mut Vec<u8>) {
        match self {
            Self::Put(lease) => row4::write(lease, out),
            Self::Delete(lease) => row4::write_deletion(lease, out),
        }
    }
}

/// Who caused a change; what travels to peers depends on it, what is written to disk does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeOrigin {
    /// A client's message: the partner is told.
    Client,
    /// An administrator's command.
    Command,
    /// The partner itself, by update or synchronisation: it must not be told again.
    Partner,
    /// The passing of time: each server reclaims its own.
    Expiry,
    /// A peer that copies the leases of this server, and brings what it lacks.
    Copier(PeerId),
}

impl ChangeOrigin {
    /// The first number of [`Self::Copier`].
    const COPIERS: u8 = 16;

    const fn number(self) -> u8 {
        match self {
            Self::Client => 1,
            Self::Command => 2,
            Self::Partner => 3,
            Self::Expiry => 4,
            // One of so many peers that its number finds no room hears of what it has brought, which does no harm.
            Self::Copier(PeerId(peer)) => match peer.checked_add(Self::COPIERS) {
                Some(number) => number,
                None => Self::Partner.number(),
            },
        }
    }

    const fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::Client,
            2 => Self::Command,
            3 => Self::Partner,
            4 => Self::Expiry,
            Self::COPIERS.. => Self::Copier(PeerId(number - Self::COPIERS)),
            _ => return None,
        })
    }
}
