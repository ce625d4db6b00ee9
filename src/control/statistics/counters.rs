//! The names of counters, and their values at one moment.

use crate::ids::SubnetId;
use crate::wire::drop::DropReason;

macro_rules! counters {
    ($(#[$doc:meta])* $name:ident { $($variant:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum $name { $(#[doc = concat!("`", $text, "`")] $variant,)* }

        impl $name {
            /// All, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];
            /// How many there are.
            pub const COUNT: usize = Self::ALL.len();

            /// Kea's name (the last part of it for counters of subnets and pools).
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            /// Position in a [`Snapshot`]'s array.
            #[must_use]
            pub const fn index(self) -> usize {
                self as usize
            }
        }
    };
}

counters! {
    /// Counters of the whole server.
    ServerCounter {
        Received = "pkt4-received",
        DiscoverReceived = "pkt4-discover-received",
        OfferReceived = "pkt4-offer-received",
        RequestReceived = "pkt4-request-received",
        AckReceived = "pkt4-ack-received",
        NakReceived = "pkt4-nak-received",
        ReleaseReceived = "pkt4-release-received",
        DeclineReceived = "pkt4-decline-received",
        InformReceived = "pkt4-inform-received",
        LeaseQueryReceived = "pkt4-lease-query-received",
        UnknownReceived = "pkt4-unknown-received",
        Sent = "pkt4-sent",
        OfferSent = "pkt4-offer-sent",
        AckSent = "pkt4-ack-sent",
        NakSent = "pkt4-nak-sent",
        LeaseQueryUnknownSent = "pkt4-lease-query-response-unknown-sent",
        LeaseQueryUnassignedSent = "pkt4-lease-query-response-unassigned-sent",
        LeaseQueryActiveSent = "pkt4-lease-query-response-active-sent",
        ReceiveDrop = "pkt4-receive-drop",
        ServiceDisabled = "pkt4-service-disabled",
        ParseFailed = "pkt4-parse-failed",
        QueueFull = "pkt4-queue-full",
        Duplicate = "pkt4-duplicate",
        RfcViolation = "pkt4-rfc-violation",
        AdminFiltered = "pkt4-admin-filtered",
        NotForUs = "pkt4-not-for-us",
        ProcessingFailed = "pkt4-processing-failed",
        LimitExceeded = "pkt4-limit-exceeded",
        AllocationFail = "v4-allocation-fail",
        AllocationFailSharedNetwork = "v4-allocation-fail-shared-network",
        AllocationFailSubnet = "v4-allocation-fail-subnet",
        AllocationFailNoPools = "v4-allocation-fail-no-pools",
        AllocationFailClasses = "v4-allocation-fail-classes",
        LeaseReuses = "v4-lease-reuses",
        ReservationConflicts = "v4-reservation-conflicts",
        Assigned = "assigned-addresses",
        CumulativeAssigned = "cumulative-assigned-addresses",
        Declined = "declined-addresses",
        Reclaimed = "reclaimed-leases",
        ReclaimedDeclined = "reclaimed-declined-addresses",
    }
}

counters! {
    /// Counters of one subnet: `subnet[id].NAME`.
    SubnetCounter {
        Total = "total-addresses",
        Assigned = "assigned-addresses",
        CumulativeAssigned = "cumulative-assigned-addresses",
        Declined = "declined-addresses",
        Reclaimed = "reclaimed-leases",
        ReclaimedDeclined = "reclaimed-declined-addresses",
        AllocationFail = "v4-allocation-fail",
        AllocationFailSharedNetwork = "v4-allocation-fail-shared-network",
        AllocationFailSubnet = "v4-allocation-fail-subnet",
        AllocationFailNoPools = "v4-allocation-fail-no-pools",
        AllocationFailClasses = "v4-allocation-fail-classes",
        LeaseReuses = "v4-lease-reuses",
        ReservationConflicts = "v4-reservation-conflicts",
    }
}

counters! {
    /// Counters of the pools of one subnet that share a `pool-id`: `subnet[id].pool[pid].NAME`.
    PoolCounter {
        Total = "total-addresses",
        Assigned = "assigned-addresses",
        CumulativeAssigned = "cumulative-assigned-addresses",
        Declined = "declined-addresses",
        Reclaimed = "reclaimed-leases",
        ReclaimedDeclined = "reclaimed-declined-addresses",
    }
}

counters! {
    /// Counters of the ports, in the order in which ports count: all interfaces together, and `interface[name].NAME`. Kea has none of
    /// them, so each is shown from when it first moves on.
    PortCounter {
        Received = "port-received",
        RingFull = "port-ring-full",
        DiscoverRingFull = "port-discover-ring-full",
        Truncated = "port-truncated",
        Vlan = "port-vlan",
        Fragment = "port-fragment",
        NotOurs = "port-not-ours",
        Own = "port-own",
        Malformed = "port-malformed",
        Sent = "port-sent",
        SendFull = "port-send-full",
        SendFailed = "port-send-failed",
        Errors = "port-errors",
    }
}

/// Counters at one moment, summed over the shards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// By [`ServerCounter::index`].
    pub server: [u64; ServerCounter::COUNT],
    /// By [`DropReason::index`].
    pub drops: [u64; DropReason::COUNT],
    /// By [`PortCounter::index`], all interfaces together.
    pub ports: [u64; PortCounter::COUNT],
    /// The same of each interface that has or had ports, by name.
    pub interfaces: Vec<(String, [u64; PortCounter::COUNT])>,
    /// Every configured subnet, in any order.
    pub subnets: Vec<SubnetSample>,
}

impl Default for Snapshot {
    fn default() -> Self {
        Self {
            server: [0; ServerCounter::COUNT],
            drops: [0; DropReason::COUNT],
            ports: [0; PortCounter::COUNT],
            interfaces: Vec::new(),
            subnets: Vec::new(),
        }
    }
}

/// Counters of one subnet at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SubnetSample {
    /// The subnet.
    pub id: SubnetId,
    /// By [`SubnetCounter::index`].
    pub values: [u64; SubnetCounter::COUNT],
    /// By `pool-id`, each once.
    pub pools: Vec<(u32, [u64; PoolCounter::COUNT])>,
}
