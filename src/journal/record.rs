//! A change as octets in a log ring. Never on disk: its layout may change with every release.
//!
//! ```text
//! octet  0 +2  bytes of the record, this included
//!        2     kind: 1 put, 2 delete (DHCPv4); 3 and above are free for DHCPv6
//!        3     origin
//!        4 +4  address              8 +4  subnet id
//!       12 +4  pool id             16 +4  valid lifetime, s
//!       20 +8  cltt, s since 1970  28     state
//!       29     flags: 1 fqdn_fwd, 2 fqdn_rev
//!       30     htype               31     hlen
//!       32 +20 chaddr              52     bytes of the client identifier
//!       53     unused              54 +2  bytes of the host name
//!       56 +2  bytes of the user context
//!       58 +2  unused              60     client identifier, host name, user context
//! ```
//!
//! All little-endian: it never leaves the machine. A lease with a usual identifier and a name of up to 61 octets
//! fits one slot.

use std::net::Ipv4Addr;

use super::{Change, ChangeOrigin};
use crate::ids::{HW_ADDR_BYTES_MAX, HwAddr, SubnetId};
use crate::lease::{Lease4, LeaseState};

/// Octets of one slot of a ring: two cache lines.
pub const SLOT_BYTES: usize = 128;
/// Longest record.
pub const RECORD_BYTES_MAX: usize = u16::MAX as usize;

const FIXED_BYTES: usize = 60;
const KIND_PUT4: u8 = 1;
const KIND_DELETE4: u8 = 2;

const _: () = assert!(FIXED_BYTES < SLOT_BYTES, "the fixed part is read from the first slot");
const _: () = assert!(HW_ADDR_BYTES_MAX == 20, "the layout above has room for exactly so many");

/// Octets of `change` as a record, or nothing when it is too long.
pub(super) fn record_bytes(change: &Change<'_>) -> Option<usize> {
    let (Change::Put(lease) | Change::Delete(lease)) = change;
    u8::try_from(lease.client_id.len()).ok()?;
    let bytes = FIXED_BYTES + lease.client_id.len() + lease.hostname.len() + lease.user_context.len();
    (bytes <= RECORD_BYTES_MAX).then_some(bytes)
}

/// The long parts of a change, in the order in which they follow the fixed part.
pub(super) fn long_parts<'a>(change: &Change<'a>) -> [&'a [u8]; 3] {
    let (Change::Put(lease) | Change::Delete(lease)) = change;
    [lease.client_id, lease.hostname, lease.user_context]
}

/// Writes the fixed part; `bytes` is what [`record_bytes`] said.
#[inline(always)]
pub(super) fn write_fixed(
    change: &Change<'_>,
    origin: ChangeOrigin,
    bytes: usize,
    slot: &mut [u8; SLOT_BYTES],
) -> usize {
    let (kind, lease) = match change {
        Change::Put(lease) => (KIND_PUT4, lease),
        Change::Delete(lease) => (KIND_DELETE4, lease),
    };
    let length =
        |count: usize| u16::try_from(count).expect("record_bytes bounds every part by a record's length");
    slot[0..2].copy_from_slice(&length(bytes).to_le_bytes());
    slot[2] = kind;
    slot[3] = origin.number();
    slot[4..8].copy_from_slice(&lease.address.octets());
    slot[8..12].copy_from_slice(&lease.subnet_id.0.to_le_bytes());
    slot[12..16].copy_from_slice(&lease.pool_id.to_le_bytes());
    slot[16..20].copy_from_slice(&lease.valid_lft.to_le_bytes());
    slot[20..28].copy_from_slice(&lease.cltt.to_le_bytes());
    slot[28] = lease.state.number();
    slot[29] = u8::from(lease.fqdn_fwd) | u8::from(lease.fqdn_rev) << 1;
    slot[30] = lease.hw_addr.htype;
    slot[31] = length(lease.hw_addr.as_bytes().len()).to_le_bytes()[0];
    slot[32..52].copy_from_slice(lease.hw_addr.padded());
    slot[52] = length(lease.client_id.len()).to_le_bytes()[0];
    slot[54..56].copy_from_slice(&length(lease.hostname.len()).to_le_bytes());
    slot[56..58].copy_from_slice(&length(lease.user_context.len()).to_le_bytes());
    FIXED_BYTES
}

/// Octets of the record whose first slot this is.
pub(super) fn bytes_of(slot: &[u8; SLOT_BYTES]) -> usize {
    usize::from(u16::from_le_bytes([slot[0], slot[1]]))
}

/// Reads a whole record. A record is made by [`write_fixed`] in the same process: one that cannot be read is a bug.
pub(super) fn read(record: &[u8]) -> (ChangeOrigin, Change<'_>) {
    let word = |at: usize| u32::from_le_bytes([record[at], record[at + 1], record[at + 2], record[at + 3]]);
    let half = |at: usize| usize::from(u16::from_le_bytes([record[at], record[at + 1]]));
    let (client_id, rest) = record[FIXED_BYTES..].split_at(usize::from(record[52]));
    let (hostname, rest) = rest.split_at(half(54));
    let (user_context, _) = rest.split_at(half(56));
    let hw_len = usize::from(record[31]);
    let lease = Lease4 {
        address: Ipv4Addr::new(record[4], record[5], record[6], record[7]),
        hw_addr: HwAddr::new(record[30], &record[32..32 + hw_len]).expect("a record holds a HwAddr's octets"),
        client_id,
        cltt: u64::from(word(24)) << 32 | u64::from(word(20)),
        valid_lft: word(16),
        subnet_id: SubnetId(word(8)),
        pool_id: word(12),
        state: LeaseState::from_number(u64::from(record[28])).expect("a record holds a LeaseState's number"),
        fqdn_fwd: record[29] & 1 != 0,
        fqdn_rev: record[29] & 2 != 0,
        hostname,
        user_context,
    };
    let origin = ChangeOrigin::from_number(record[3]).expect("a record holds a ChangeOrigin's number");
    let change = match record[2] {
        KIND_PUT4 => Change::Put(lease),
        KIND_DELETE4 => Change::Delete(lease),
        kind => unreachable!("no writer makes records of kind {kind}"),
    };
    (origin, change)
}
