//! The packed record of a DHCPv4 lease: one cache line.
//!
//! ```text
//!  0 address u32 | 4 subnet_id u32 | 8 cltt u32 (s) | 12 valid_lft u32 (s)
//! 16 pending_lsn 47 bits, flags 17 bits
//! 24 hw [u8; 6] | 30 htype | 31 hw_len
//! 32 next u32 | 36 prev u32 | 40 blob u32
//! 44 pool_id u8 | 45 client_id [u8; 19]                                            = 64
//! ```
//!
//! What does not fit (a hardware address of more than 6 octets, a client identifier of more than 19, a `pool-id` above
//! 254) lives in the record's blob, together with host name and user context. 19 octets hold the identifier of
//! RFC 4361 over a DUID of 14 octets, the longest that common clients send.

use std::net::Ipv4Addr;

use crate::ids::{HwAddr, Lsn, SubnetId};
use crate::lease::{LIFETIME_INFINITE_S, LeaseState};

/// Longest hardware address inside the record.
pub(super) const HW_INLINE_BYTES: usize = 6;
/// Longest client identifier inside the record.
pub(super) const CLIENT_ID_INLINE_BYTES: usize = 19;
/// `pool_id` of the record that says "look into the blob".
pub(super) const POOL_ID_IN_BLOB: u8 = 255;
/// No blob.
pub(super) const NO_BLOB: u32 = 0;

const STATE_MASK: u64 = 0b111;
const LSN_SHIFT: u32 = 17;
const CLIENT_ID_SHIFT: u32 = 10;
const CLIENT_ID_MASK: u64 = 0b1_1111 << CLIENT_ID_SHIFT;
const CLIENT_ID_IN_BLOB: u64 = 0b1_1111;
/// Highest log position that a record holds: 140 million millions.
const LSN_MAX: u64 = (1 << 47) - 1;

/// One bit of a record's flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub(super) enum Flag {
    FqdnFwd = 1 << 3,
    FqdnRev = 1 << 4,
    /// The type of the hardware address was not stored where the lease comes from.
    HtypeUnknown = 1 << 5,
    /// An awaited peer refused the last update.
    Uncacheable = 1 << 6,
    /// Too many leases share the hardware address: not in the index under it.
    HwUnindexed = 1 << 7,
    /// The same for the client identifier.
    ClientIdUnindexed = 1 << 8,
    /// The address may be somebody else's by now.
    Loose = 1 << 9,
    /// The slot holds a lease.
    Live = 1 << 15,
    /// No reply has left for the lease since its client got it here.
    Unpromised = 1 << 16,
}

/// A lease as the table keeps it; its long parts are seen through [`super::LeaseTable::view`].
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub struct Record {
    pub(super) address: u32,
    pub(super) subnet_id: u32,
    pub(super) cltt: u32,
    pub(super) valid_lft: u32,
    pub(super) lsn_flags: u64,
    pub(super) hw: [u8; HW_INLINE_BYTES],
    pub(super) htype: u8,
    pub(super) hw_len: u8,
    pub(super) next: u32,
    pub(super) prev: u32,
    pub(super) blob: u32,
    pub(super) pool_id: u8,
    pub(super) client_id: [u8; CLIENT_ID_INLINE_BYTES],
}

const _: () = assert!(size_of::<Record>() == 64 && align_of::<Record>() == 64);
const _: () = assert!(CLIENT_ID_INLINE_BYTES < 0b1_1111);

impl Record {
    /// A slot without a lease.
    pub(super) const VACANT: Self = Self {
        address: 0,
        subnet_id: 0,
        cltt: 0,
        valid_lft: 0,
        lsn_flags: 0,
        hw: [0; HW_INLINE_BYTES],
        htype: 0,
        hw_len: 0,
        next: u32::MAX,
        prev: u32::MAX,
        blob: NO_BLOB,
        pool_id: 0,
        client_id: [0; CLIENT_ID_INLINE_BYTES],
    };

    /// The leased address.
    #[must_use]
    pub const fn address(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.address)
    }

    /// The subnet it belongs to.
    #[must_use]
    pub const fn subnet_id(&self) -> SubnetId {
        SubnetId(self.subnet_id)
    }

    /// Client's last transmission time, seconds since the Unix epoch.
    #[must_use]
    pub fn cltt(&self) -> u64 {
        u64::from(self.cltt)
    }

    /// Lifetime in seconds; [`LIFETIME_INFINITE_S`] never ends.
    #[must_use]
    pub const fn valid_lft(&self) -> u32 {
        self.valid_lft
    }

    /// `cltt + valid_lft`, also for infinite leases.
    #[must_use]
    pub fn expire(&self) -> u64 {
        u64::from(self.cltt) + u64::from(self.valid_lft)
    }

    /// Whether its time is over: strictly past the end, never for an infinite one.
    #[must_use]
    pub fn is_expired(&self, wall_s: u64) -> bool {
        self.valid_lft != LIFETIME_INFINITE_S && self.expire() < wall_s
    }

    /// What it is in.
    #[must_use]
    pub fn state(&self) -> LeaseState {
        LeaseState::from_number(self.lsn_flags & STATE_MASK).expect("only states are stored")
    }

    /// A forward DNS update was requested.
    #[must_use]
    pub const fn fqdn_fwd(&self) -> bool {
        self.has(Flag::FqdnFwd)
    }

    /// A reverse DNS update was requested.
    #[must_use]
    pub const fn fqdn_rev(&self) -> bool {
        self.has(Flag::FqdnRev)
    }

    /// The log position of its last row; the reply to its client waits for that.
    #[must_use]
    pub const fn pending_lsn(&self) -> Lsn {
        Lsn(self.lsn_flags >> LSN_SHIFT)
    }

    /// Whether an awaited peer refused the last update, so that the next REQUEST must write and send again.
    #[must_use]
    pub const fn is_uncacheable(&self) -> bool {
        self.has(Flag::Uncacheable)
    }

    /// Whether its client has got the lease from this server and no reply has left yet that says so. Of a server without a partner, and of
    /// what was read from disk, this is not known.
    #[must_use]
    pub const fn is_unpromised(&self) -> bool {
        self.has(Flag::Unpromised)
    }

    /// Whether its client has not heard of it and will not: the reply was dropped with the update.
    #[must_use]
    pub const fn is_untold(&self) -> bool {
        self.is_unpromised() && self.is_uncacheable()
    }

    /// Whether the address may have been taken by another shard: before the lease is used again, the owner must have
    /// it back by [`crate::lease::address::AddressSpace::reactivate`]. False for every lease in plain use, so that
    /// a renewal touches no shared word.
    #[must_use]
    pub const fn is_loose(&self) -> bool {
        self.has(Flag::Loose)
    }

    /// Whether the lease carries a client identifier.
    #[must_use]
    pub const fn has_client_id(&self) -> bool {
        self.lsn_flags & CLIENT_ID_MASK != 0
    }

    /// Whether the hardware address may have any type (it came from a file, which does not say).
    #[must_use]
    pub const fn is_htype_unknown(&self) -> bool {
        self.has(Flag::HtypeUnknown)
    }

    pub(super) const fn has(&self, flag: Flag) -> bool {
        self.lsn_flags & flag as u64 != 0
    }

    pub(super) const fn set(&mut self, flag: Flag, on: bool) {
        if on {
            self.lsn_flags |= flag as u64;
        } else {
            self.lsn_flags &= !(flag as u64);
        }
    }

    pub(super) fn set_state(&mut self, state: LeaseState) {
        self.lsn_flags = self.lsn_flags & !STATE_MASK | u64::from(state.number());
    }

    pub(super) fn set_pending_lsn(&mut self, lsn: Lsn) {
        assert!(lsn.0 <= LSN_MAX, "a log position fits 47 bits");
        self.lsn_flags = self.lsn_flags & ((1 << LSN_SHIFT) - 1) | lsn.0 << LSN_SHIFT;
    }

    /// The identifier inside the record, or nothing when it is in the blob.
    pub(super) fn client_id_inline(&self) -> Option<&[u8]> {
        match (self.lsn_flags & CLIENT_ID_MASK) >> CLIENT_ID_SHIFT {
            CLIENT_ID_IN_BLOB => None,
            len => self.client_id.get(..usize::try_from(len).expect("five bits")),
        }
    }

    /// Stores `client_id` inside when it fits; says whether it did.
    pub(super) fn set_client_id(&mut self, client_id: &[u8]) -> bool {
        let inline = client_id.len() <= CLIENT_ID_INLINE_BYTES;
        self.client_id = [0; CLIENT_ID_INLINE_BYTES];
        let mark = if inline {
            self.client_id[..client_id.len()].copy_from_slice(client_id);
            u64::try_from(client_id.len()).expect("at most 19")
        } else {
            CLIENT_ID_IN_BLOB
        };
        self.lsn_flags = self.lsn_flags & !CLIENT_ID_MASK | mark << CLIENT_ID_SHIFT;
        inline
    }

    /// The hardware address inside the record, or nothing when it is in the blob.
    pub(super) fn hw_inline(&self) -> Option<&[u8]> {
        self.hw.get(..usize::from(self.hw_len))
    }

    /// Stores `hw_addr` inside when it fits; says whether it did.
    pub(super) fn set_hw(&mut self, hw_addr: &HwAddr) -> bool {
        let octets = hw_addr.as_bytes();
        self.htype = hw_addr.htype;
        self.hw_len = u8::try_from(octets.len()).expect("a hardware address has at most 20 octets");
        self.hw = [0; HW_INLINE_BYTES];
        let inline = octets.len() <= HW_INLINE_BYTES;
        if inline {
            self.hw[..octets.len()].copy_from_slice(octets);
        }
        inline
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_state_lsn_and_identifier_do_not_touch_each_other() {
        let mut record = Record::VACANT;
        record.set(Flag::Live, true);
        record.set_pending_lsn(Lsn(LSN_MAX));
        record.set_state(LeaseState::Registered);
        assert!(record.set_client_id(&[7; CLIENT_ID_INLINE_BYTES]));
        record.set(Flag::Loose, true);
        assert_eq!(record.pending_lsn(), Lsn(LSN_MAX));
        assert_eq!(record.state(), LeaseState::Registered);
        assert_eq!(record.client_id_inline(), Some(&[7; CLIENT_ID_INLINE_BYTES][..]));
        record.set_pending_lsn(Lsn(1));
        record.set_state(LeaseState::Assigned);
        assert!(!record.set_client_id(&[7; CLIENT_ID_INLINE_BYTES + 1]));
        assert!(record.has(Flag::Live) && record.is_loose() && record.has_client_id());
        assert_eq!((record.pending_lsn(), record.client_id_inline()), (Lsn(1), None));
        record.set(Flag::Loose, false);
        assert!(record.has(Flag::Live) && !record.is_loose() && !record.is_uncacheable());
    }
}
