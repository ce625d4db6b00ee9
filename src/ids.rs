//! The names of things: newtypes without behaviour beyond parsing their parts and printing themselves.
//!
//! Promises: no allocation, no panic on any input; any thread may use them.

use std::fmt;

/// Longest hardware address that DHCPv4 carries and Kea accepts (`hlen` 17 to 20 are zero-padded past `chaddr`).
pub const HW_ADDR_BYTES_MAX: usize = 20;
/// Longest DHCPv4 client identifier (one option's worth; longer ones are concatenations nobody sends).
pub const CLIENT_ID_BYTES_MAX: usize = 255;
/// Longest DUID (RFC 8415 11.1: 128 octets and the type).
pub const DUID_BYTES_MAX: usize = 130;
/// Most shards that a server runs.
pub const SHARDS_MAX: usize = 64;

/// A subnet's identifier as configured: 1 to 4294967294. 0 stands for "not known".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubnetId(pub u32);

/// A shard: one receive loop with the leases of the clients that it owns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId(pub u8);

/// A peer of the HA relationships, by position among all configured peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId(pub u8);

/// A position in one shard's log: the first change is 1; 0 means "nothing to wait for". Never goes back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(pub u64);

/// A lease's slot in its shard's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseRef(pub u32);

/// A client class by its position in the plan's table of class names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClassId(pub u16);

/// A network interface by its position in the server's table of interfaces (not the kernel's index).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InterfaceId(pub u16);

/// A hardware address with its type (RFC 2131 `htype`, `hlen`, `chaddr`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
// In whole words: one of odd length is copied in parts that overlap, and whoever reads the copy next waits for all of them to arrive.
#[repr(align(8))]
pub struct HwAddr {
    /// `htype`; 1 is Ethernet.
    pub htype: u8,
    len: u8,
    bytes: [u8; HW_ADDR_BYTES_MAX],
}

impl HwAddr {
    /// The address of `bytes`, or nothing when there are more than [`HW_ADDR_BYTES_MAX`].
    #[must_use]
    #[inline]
    pub fn new(htype: u8, bytes: &[u8]) -> Option<Self> {
        // Nearly all are six octets long: a move instead of a call.
        if let Ok(six) = bytes.try_into() {
            return Some(Self { htype, ..Self::ethernet(six) });
        }
        let len = u8::try_from(bytes.len()).ok()?;
        let mut own = [0; HW_ADDR_BYTES_MAX];
        own.get_mut(..bytes.len())?.copy_from_slice(bytes);
        Some(Self { htype, len, bytes: own })
    }

    /// An Ethernet address.
    #[must_use]
    #[inline]
    pub const fn ethernet(mac: [u8; 6]) -> Self {
        let mut bytes = [0; HW_ADDR_BYTES_MAX];
        [bytes[0], bytes[1], bytes[2], bytes[3], bytes[4], bytes[5]] = mac;
        Self { htype: 1, len: 6, bytes }
    }

    /// The address of the first `hlen` octets of a message's `chaddr`; past the sixteenth it has zeros, and of more than
    /// [`HW_ADDR_BYTES_MAX`] those.
    #[must_use]
    #[inline(always)]
    pub fn of_field(htype: u8, hlen: u8, field: &[u8; 16]) -> Self {
        let len = hlen.min(u8::try_from(HW_ADDR_BYTES_MAX).expect("few"));
        // All at once: what is put together of small parts and moved then waits for them.
        let kept = u128::MAX.checked_shr(128_u32.saturating_sub(u32::from(len) * 8)).unwrap_or(0);
        let mut bytes = [0; HW_ADDR_BYTES_MAX];
        if let Some(head) = bytes.first_chunk_mut() {
            *head = (u128::from_le_bytes(*field) & kept).to_le_bytes();
        }
        Self { htype, len, bytes }
    }

    /// The address of at most six octets that are stored with zeros behind them; `len` says how many they are.
    #[must_use]
    #[inline(always)]
    pub(crate) fn of_six(htype: u8, len: u8, octets: [u8; 6]) -> Self {
        let [a, b, c, d, e, f] = octets;
        let mut bytes = [0; HW_ADDR_BYTES_MAX];
        if let Some(head) = bytes.first_chunk_mut() {
            // One store, as in `of_field`.
            *head = u64::from_le_bytes([a, b, c, d, e, f, 0, 0]).to_le_bytes();
        }
        Self { htype, len: len.min(6), bytes }
    }

    /// The octets without the type, with zeros behind them.
    #[must_use]
    pub(crate) const fn padded(&self) -> &[u8; HW_ADDR_BYTES_MAX] {
        &self.bytes
    }

    /// The octets without the type.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    /// Whether there is no octet at all (`hlen` 0).
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl fmt::Display for HwAddr {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        ColonHex(self.as_bytes()).fmt(out)
    }
}

impl fmt::Debug for HwAddr {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "HwAddr({}:{self})", self.htype)
    }
}

/// Octets as Kea prints identifiers: lower-case hex joined by colons.
#[derive(Clone, Copy, Debug)]
pub struct ColonHex<'a>(pub &'a [u8]);

impl fmt::Display for ColonHex<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, octet) in self.0.iter().enumerate() {
            if index > 0 {
                out.write_str(":")?;
            }
            write!(out, "{octet:02x}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hardware_address_prints_as_colon_hex_without_type() {
        let address = HwAddr::ethernet([0x02, 0, 0, 0, 0, 0xab]);
        assert_eq!(address.to_string(), "02:00:00:00:00:ab");
        assert_eq!(HwAddr::new(1, &[]).expect("empty fits").to_string(), "");
        assert!(HwAddr::new(1, &[0; 21]).is_none());
    }

    #[test]
    fn of_a_field_count_the_octets_that_hlen_says() {
        let field: [u8; 16] = std::array::from_fn(|at| u8::try_from(at + 1).expect("few"));
        for hlen in 0..=u8::MAX {
            let mut octets = [0; HW_ADDR_BYTES_MAX];
            let len = usize::from(hlen).min(HW_ADDR_BYTES_MAX);
            let there = len.min(field.len());
            octets[..there].copy_from_slice(&field[..there]);
            assert_eq!(Some(HwAddr::of_field(7, hlen, &field)), HwAddr::new(7, &octets[..len]), "{hlen}");
        }
    }

    #[test]
    fn of_six_stored_octets_count_those_that_the_length_says() {
        for len in 0..=6_u8 {
            let mut stored = [0; 6];
            stored[..usize::from(len)].copy_from_slice(&[1, 2, 3, 4, 5, 6][..usize::from(len)]);
            let address = HwAddr::of_six(7, len, stored);
            assert_eq!(Some(address), HwAddr::new(7, &stored[..usize::from(len)]));
            assert_eq!(address.padded()[6..], [0; 14]);
        }
    }
}
