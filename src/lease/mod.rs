//! Leases: what one is, the table that a shard keeps them in, the claims on addresses that shards share, expiry.
//!
//! [`Lease4`] is how the rest of the program speaks of a lease: the journal writes it, commands and peers exchange
//! it, the table stores it in a packed record of 64 bytes.
//!
//! | module | what | threads |
//! |---|---|---|
//! | [`table`] | leases of one shard by client, their ends | its shard only |
//! | [`address`] | who holds an address; the index by address | all shards, lock-free |
//! | [`directory`] | which other shard may hold a client's lease | all shards, lock-free |
//! | [`known`] | what another server has | values |
//! | [`request`] | what the control thread asks of shards | values |
//!
//! Promises: what a shard calls neither allocates nor locks nor panics on any lease or address; memory is made by the control
//! thread and handed in. Every structure has its bound, given at construction.

pub mod address;
pub mod directory;
pub mod known;
pub mod request;
pub mod table;

use std::fmt;
use std::net::Ipv4Addr;

use crate::ids::{HwAddr, SubnetId};

/// A lifetime that never ends (RFC 2131 3.3).
pub const LIFETIME_INFINITE_S: u32 = u32::MAX;

/// The state of a lease, by Kea's numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum LeaseState {
    /// In use (or, by its time, expired and not yet reclaimed).
    #[default]
    Assigned = 0,
    /// A client found the address in use: probation, no identity.
    Declined = 1,
    /// Expired and reclaimed, kept for affinity.
    Reclaimed = 2,
    /// Released by its client, kept for affinity.
    Released = 3,
    /// DHCPv6 only: registered by its owner (RFC 9686).
    Registered = 4,
}

impl LeaseState {
    /// The state of Kea's number `number`, or nothing when there is none.
    #[must_use]
    pub const fn from_number(number: u64) -> Option<Self> {
        Some(match number {
            0 => Self::Assigned,
            1 => Self::Declined,
            2 => Self::Reclaimed,
            3 => Self::Released,
            4 => Self::Registered,
            _ => return None,
        })
    }

    /// Kea's number.
    #[must_use]
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// Kea's name (`lease4-get-by-state`).
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Assigned => "default",
            Self::Declined => "declined",
            Self::Reclaimed => "expired-reclaimed",
            Self::Released => "released",
            Self::Registered => "registered",
        }
    }
}

impl fmt::Display for LeaseState {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

/// Everything that is known of a DHCPv4 lease; the long parts are borrowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease4<'a> {
    /// The leased address, the lease's primary key.
    pub address: Ipv4Addr,
    /// The client's hardware address; empty when unknown or declined.
    pub hw_addr: HwAddr,
    /// Content of the client identifier option with its type octet; empty when there is none.
    pub client_id: &'a [u8],
    /// Client's last transmission time: seconds since the Unix epoch.
    pub cltt: u64,
    /// Seconds; [`LIFETIME_INFINITE_S`] never ends; 0 is a deletion marker in files.
    pub valid_lft: u32,
    /// The subnet it belongs to.
    pub subnet_id: SubnetId,
    /// `pool-id` of its pool; 0 when that is not configured.
    pub pool_id: u32,
    /// What it is in.
    pub state: LeaseState,
    /// A forward DNS update was requested.
    pub fqdn_fwd: bool,
    /// A reverse DNS update was requested.
    pub fqdn_rev: bool,
    /// Lower-cased host name; empty when none. Any octets: it comes from the network.
    pub hostname: &'a [u8],
    /// JSON map in Kea's printed form; empty when none.
    pub user_context: &'a [u8],
}

impl Lease4<'_> {
    /// Whether it names no client, by which it could be found again: only a declined address is of nobody. Kea reads no other such row.
    #[must_use]
    pub fn is_of_nobody(&self) -> bool {
        self.hw_addr.is_empty() && self.client_id.is_empty() && self.state != LeaseState::Declined
    }

    /// `cltt + valid_lft` in 64 bits, as files and updates carry it, also for infinite leases.
    #[must_use]
    pub fn expire(&self) -> u64 {
        self.cltt.saturating_add(u64::from(self.valid_lft))
    }

    /// Whether its time is over: strictly past the end, never for an infinite one.
    #[must_use]
    pub fn is_expired(&self, wall_s: u64) -> bool {
        self.valid_lft != LIFETIME_INFINITE_S && self.expire() < wall_s
    }

    /// A copy that owns its parts. Allocates: cold paths only.
    #[must_use]
    pub fn to_owned(&self) -> Lease4Buf {
        Lease4Buf {
            fixed: Lease4 { client_id: &[], hostname: &[], user_context: &[], ..*self },
            client_id: self.client_id.into(),
            hostname: self.hostname.into(),
            user_context: self.user_context.into(),
            untold: false,
        }
    }
}

#[cfg(test)]
impl Lease4<'static> {
    /// A lease for tests of what is done with leases, where only its address matters: it is in subnet 1, of the second 1 and two seconds long, of
    /// a client whose hardware address ends as the address does.
    pub(crate) fn sample(address: Ipv4Addr) -> Self {
        let [.., last] = address.octets();
        Self {
            address,
            hw_addr: HwAddr::ethernet([2, 0, 0, 0, 0, last]),
            client_id: b"",
            cltt: 1,
            valid_lft: 2,
            subnet_id: SubnetId(1),
            pool_id: 0,
            state: LeaseState::Assigned,
            fqdn_fwd: false,
            fqdn_rev: false,
            hostname: b"",
            user_context: b"",
        }
    }
}

/// A [`Lease4`] that owns its parts: cold paths only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease4Buf {
    fixed: Lease4<'static>,
    client_id: Box<[u8]>,
    hostname: Box<[u8]>,
    user_context: Box<[u8]>,
    untold: bool,
}

impl Lease4Buf {
    /// The same lease, of which its client has heard or not.
    #[must_use]
    pub const fn with_untold(mut self, untold: bool) -> Self {
        self.untold = untold;
        self
    }

    /// Whether its client is known not to have heard of it, nor to hear of it any more. Only pages for another server say so.
    #[must_use]
    pub const fn is_untold(&self) -> bool {
        self.untold
    }

    /// The lease, borrowed.
    #[must_use]
    pub fn view(&self) -> Lease4<'_> {
        Lease4 {
            client_id: &self.client_id,
            hostname: &self.hostname,
            user_context: &self.user_context,
            ..self.fixed
        }
    }
}
