//! What the control thread asks of a shard about leases, and what it gets back.
//!
//! A request enters a shard between two batches, in capped steps. The answer to a change is complete when the
//! change is durable: `server/` holds it back until the shard's watermark covers its log position.

use std::net::Ipv4Addr;
use std::sync::Arc;

use super::known::KnownLeases;
use super::{Lease4Buf, LeaseState};
use crate::ids::{HwAddr, PeerId, SubnetId};

/// When a lease is put: what it takes for granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PutMode {
    /// `lease4-add`: there must be none (of any state) for the address.
    Add,
    /// `lease4-update` without `force-create`: there must be one.
    Update,
    /// `lease4-update` with `force-create`, bulk updates: whatever is there.
    Upsert,
    /// A bulk update of a server that does not know what was done here since this one serves alone, or from before what was copied from it: as
    /// [`PutMode::Upsert`], but what is newer here stays, as it will when they meet.
    Uninformed,
    /// A change of a partner that could not be reached when its client was told: as [`PutMode::Upsert`], but of two clients that were told at the
    /// same time, each by one server, both servers must come to name the same one.
    Delayed {
        /// The client was told. One that was not has nothing to lose against one that was.
        told: bool,
    },
    /// A page of a synchronisation: absent, or with an older `cltt`. With an equal one what is there stays, unless the partner wins.
    Newer,
    /// A change that was made elsewhere after everything that is here, whatever the clocks say: stored, unless it is here already.
    Later,
}

/// Who asks: a partner's change can lose against one that a client waits for (`design.md` trap 12 of crossing updates).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// An administrator's command.
    Command,
    /// A partner's lease update or page.
    Partner {
        /// Both are Aplomado, and of two changes of which neither is the newer one the partner's is made: those of the primary, and
        /// those of a server that served while the other did not.
        partner_wins: bool,
    },
    /// A peer that copies the leases of this server, and brings what it lacks.
    Copier {
        /// Which one.
        peer: PeerId,
        /// It is the primary: of two leases of one second its own stays.
        wins: bool,
    },
}

impl Origin {
    /// Whether another server asks.
    #[must_use]
    pub const fn is_peer(self) -> bool {
        matches!(self, Self::Partner { .. } | Self::Copier { .. })
    }
}

/// How a lease is named in a query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeaseKey {
    /// By its address.
    Address(Ipv4Addr),
    /// By client and subnet.
    HwAddr(SubnetId, HwAddr),
    /// By client and subnet.
    ClientId(SubnetId, Box<[u8]>),
}

/// Which leases a listing holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeaseFilter {
    /// All.
    All,
    /// Those of these subnets.
    Subnets(Box<[SubnetId]>),
    /// Those of this hardware address (type ignored), in any subnet.
    HwAddr(HwAddr),
    /// Those of this client identifier.
    ClientId(Box<[u8]>),
    /// Those of this host name, compared lower-cased.
    Hostname(Box<[u8]>),
    /// Those in this state, optionally of one subnet.
    State(LeaseState, Option<SubnetId>),
    /// Those that another server lacks.
    Lacking(Arc<KnownLeases>),
}

/// One of many changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeaseChange {
    /// Store a lease that is complete.
    Put(Lease4Buf),
    /// Remove the lease on this address.
    Delete {
        /// The address.
        address: Ipv4Addr,
        /// The lease that was removed elsewhere. With [`PutMode::Newer`], [`PutMode::Uninformed`] and [`PutMode::Delayed`] a newer one stays, and another
        /// client's.
        told: Option<Lease4Buf>,
    },
}

/// A question or order to a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeaseRequest {
    /// Store a lease.
    Put {
        /// The lease, complete.
        lease: Lease4Buf,
        /// What must be there before.
        mode: PutMode,
        /// Who asks.
        origin: Origin,
    },
    /// Remove a lease.
    Delete {
        /// Which.
        key: LeaseKey,
        /// Who asks.
        origin: Origin,
    },
    /// Make many changes, in their order, each for itself: answered by [`LeaseReply::Applied`].
    Apply {
        /// The changes.
        changes: Vec<LeaseChange>,
        /// What must be there before a lease is stored.
        mode: PutMode,
        /// Who asks.
        origin: Origin,
    },
    /// Find one lease.
    Get(LeaseKey),
    /// Find the leases of these addresses that the shard holds: answered with [`LeaseReply::Leases`], in any order.
    GetAll(Arc<[Ipv4Addr]>),
    /// Nothing but an answer: with the position of the last change that the shard has made.
    Mark,
    /// List leases with an address strictly above `from`, ascending, at most `limit`.
    List {
        /// The address below the first; 0.0.0.0 to start.
        from: Ipv4Addr,
        /// Most leases in the answer.
        limit: u32,
        /// Which.
        filter: LeaseFilter,
    },
    /// Remove all leases of one subnet (or of all subnets that are configured).
    Wipe(Option<SubnetId>),
    /// Reclaim all expired leases now; remove them when true, else keep them as reclaimed.
    Reclaim {
        /// Delete instead of keeping for affinity.
        remove: bool,
    },
}

/// What became of a [`LeaseRequest`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeaseReply {
    /// Stored: there was none before.
    Added,
    /// Stored over an existing lease.
    Updated,
    /// Not stored: what is there is as new or newer ([`PutMode::Newer`], [`PutMode::Delayed`]), or the same ([`PutMode::Later`]).
    Kept,
    /// Not stored: there is one already ([`PutMode::Add`]).
    Exists,
    /// No such lease.
    NotFound,
    /// Removed.
    Deleted,
    /// Refused: a client waits for another change of the same address, or the address cannot be had now; or shards take no orders.
    Busy,
    /// Refused: no room for another lease (the text says which limit).
    Full(&'static str),
    /// The lease asked for.
    Lease(Lease4Buf),
    /// The leases asked for, ascending; of a listing, as many as were asked for if there are more.
    Leases(Vec<Lease4Buf>),
    /// The first of the leases asked for, ascending: there are more, although these are fewer than were asked for.
    Part(Vec<Lease4Buf>),
    /// How many leases were removed or reclaimed.
    Count(u64),
    /// What became of each change of [`LeaseRequest::Apply`], in their order. They are durable when the last of them is.
    Applied(Vec<Self>),
    /// [`LeaseRequest::Mark`] has come by.
    Marked,
}
