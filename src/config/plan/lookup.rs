//! Finding subnets by address, relay and interface: candidates come in ascending id, at a cost that does not grow
//! with the number of subnets.
//!
//! By address: one table per prefix length in use (at most 33, in practice one to four), probed for the address cut
//! to that length. A prefix belongs to one subnet, so the candidates are at most one per length in use.

use std::net::Ipv4Addr;

use super::SubnetIndex;
use crate::ids::InterfaceId;

/// Candidates per address: one per prefix length.
pub const CANDIDATES_MAX: usize = 33;

/// Subnets by address, relay and interface.
#[derive(Clone, Debug, Default)]
pub struct SubnetLookup {
    /// The prefix lengths in use, ascending, each with the mask it stands for.
    lengths: Vec<u32>,
    /// Open addressing over (prefix, mask): position + 1, 0 is free.
    by_prefix: Vec<(u32, u32, u32)>,
    /// Sorted by relay address, then by subnet.
    by_relay: Vec<(Ipv4Addr, SubnetIndex)>,
    /// Sorted by interface, then by subnet.
    by_interface: Vec<(InterfaceId, SubnetIndex)>,
}

fn slot_of(prefix: u32, mask: u32, slots: usize) -> usize {
    let mixed = (u64::from(prefix) << 32 | u64::from(mask)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    usize::try_from((mixed >> 32) & (slots as u64 - 1)).expect("masked")
}

impl SubnetLookup {
    /// The lookup over subnets given as (prefix, mask) in index order, relay addresses and interfaces.
    #[must_use]
    pub fn new(
        prefixes: &[(u32, u32)],
        mut by_relay: Vec<(Ipv4Addr, SubnetIndex)>,
        mut by_interface: Vec<(InterfaceId, SubnetIndex)>,
    ) -> Self {
        let mut lengths: Vec<u32> = prefixes.iter().map(|&(_, mask)| mask).collect();
        lengths.sort_unstable();
        lengths.dedup();
        let slots = (prefixes.len() * 2).next_power_of_two();
        let mut by_prefix = vec![(0, 0, 0); slots];
        for (index, &(prefix, mask)) in (1_u32..).zip(prefixes) {
            let mut slot = slot_of(prefix, mask, slots);
            while by_prefix[slot].2 != 0 {
                slot = (slot + 1) & (slots - 1);
            }
            by_prefix[slot] = (prefix, mask, index);
        }
        by_relay.sort_unstable();
        by_relay.dedup();
        by_interface.sort_unstable();
        by_interface.dedup();
        Self { lengths, by_prefix, by_relay, by_interface }
    }

    /// The first subnet in ascending id whose prefix contains `address` and that `allowed` lets pass.
    pub fn by_address(
        &self,
        address: Ipv4Addr,
        allowed: impl Fn(SubnetIndex) -> bool,
    ) -> Option<SubnetIndex> {
        let mut first: Option<SubnetIndex> = None;
        for &mask in &self.lengths {
            let prefix = address.to_bits() & mask;
            let mut slot = slot_of(prefix, mask, self.by_prefix.len());
            while let Some(&(found, found_mask, index)) = self.by_prefix.get(slot)
                && index != 0
            {
                let index = SubnetIndex(index - 1);
                if (found, found_mask) == (prefix, mask)
                    && first.is_none_or(|first| index < first)
                    && allowed(index)
                {
                    first = Some(index);
                }
                slot = (slot + 1) & (self.by_prefix.len() - 1);
            }
        }
        first
    }

    /// The subnets, ascending by id, whose relay list (own or the network's) has `relay`.
    pub fn by_relay(&self, relay: Ipv4Addr) -> impl Iterator<Item = SubnetIndex> + '_ {
        let from = self.by_relay.partition_point(|&(address, _)| address < relay);
        self.by_relay[from..].iter().take_while(move |entry| entry.0 == relay).map(|entry| entry.1)
    }

    /// The subnets, ascending by id, that are bound to `interface`.
    pub fn by_interface(&self, interface: InterfaceId) -> impl Iterator<Item = SubnetIndex> + '_ {
        let from = self.by_interface.partition_point(|&(bound, _)| bound < interface);
        self.by_interface[from..].iter().take_while(move |entry| entry.0 == interface).map(|entry| entry.1)
    }
}
