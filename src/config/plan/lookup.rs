//! Finding subnets by address, relay and interface: candidates come in ascending id, at a cost that does not grow
//! with the number of subnets.
//!
//! Tables of open addressing, so that an answer is one cache line. By address there is a probe for each prefix length
//! in use (at most 33, in practice one to four) with the address cut to that length; by relay one probe, and what is
//! stored under one relay follows in order. Each entry says whether its subnet is open to everybody: only a guarded
//! subnet has to be looked at before it is chosen.

use std::net::Ipv4Addr;

use super::{Subnet, SubnetIndex};
use crate::config::tree::netmask_bits;
use crate::ids::InterfaceId;
use crate::memory::Table;

/// An entry of a table; a vacant one has no mask.
#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    address: u32,
    /// The prefix length, which is 33 for a relay; 255 for a vacant entry.
    length: u8,
    /// Whether the subnet and its network have no guard.
    is_open: bool,
    subnet: u32,
}

/// The length that stands for "a relay's address".
const RELAY: u8 = 33;
/// The length of vacant entries.
const VACANT: u8 = u8::MAX;

/// Open addressing, at most half full.
#[derive(Clone, Debug, Default)]
struct Entries(Table<Entry>);

impl Entries {
    fn new(count: usize) -> Self {
        if count == 0 {
            return Self::default();
        }
        let vacant = Entry { length: VACANT, ..Entry::default() };
        Self(Table::filled(vacant, (count * 2).next_power_of_two().max(2)))
    }

    fn first_slot(&self, address: u32, length: u8) -> usize {
        if self.0.is_empty() {
            return 0;
        }
        let mixed = (u64::from(address) << 8 | u64::from(length)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        usize::try_from((mixed >> 32) & (self.0.len() as u64 - 1)).expect("masked")
    }

    fn insert(&mut self, entry: Entry) {
        let mut slot = self.first_slot(entry.address, entry.length);
        while self.0[slot].length != VACANT {
            slot = (slot + 1) & (self.0.len() - 1);
        }
        self.0[slot] = entry;
    }

    /// The entries for `address` and `length`, in order of insertion.
    fn find(&self, address: u32, length: u8) -> impl Iterator<Item = &Entry> {
        let mut slot = self.first_slot(address, length);
        std::iter::from_fn(move || {
            loop {
                let entry = self.0.get(slot).filter(|entry| entry.length != VACANT)?;
                slot = (slot + 1) & (self.0.len() - 1);
                if (entry.address, entry.length) == (address, length) {
                    return Some(entry);
                }
            }
        })
    }
}

/// The first `length` bits of `address`.
fn prefix_of(address: Ipv4Addr, length: u8) -> u32 {
    address.to_bits() & netmask_bits(length)
}

/// Subnets by address, relay and interface.
#[derive(Clone, Debug, Default)]
pub struct SubnetLookup {
    /// The prefix lengths in use, ascending.
    lengths: Vec<u8>,
    by_prefix: Entries,
    by_relay: Entries,
    /// Sorted by interface, then by subnet.
    by_interface: Vec<(InterfaceId, SubnetIndex)>,
    /// By interface, the first subnet that is bound to it, if it is open.
    open_on: Vec<Option<SubnetIndex>>,
}

impl SubnetLookup {
    /// The lookup over `subnets` with their relay addresses and interfaces, both ascending by subnet.
    #[must_use]
    pub fn new(
        subnets: &[Subnet],
        mut by_relay: Vec<(Ipv4Addr, SubnetIndex)>,
        mut by_interface: Vec<(InterfaceId, SubnetIndex)>,
    ) -> Self {
        let mut lengths: Vec<u8> = subnets.iter().map(|subnet| subnet.prefix_len).collect();
        lengths.sort_unstable();
        lengths.dedup();
        let mut prefixes = Entries::new(subnets.len());
        for (index, subnet) in (0..).zip(subnets) {
            prefixes.insert(Entry {
                address: subnet.prefix.to_bits(),
                length: subnet.prefix_len,
                is_open: subnet.is_open,
                subnet: index,
            });
        }
        by_relay.sort_unstable();
        by_relay.dedup();
        let mut relays = Entries::new(by_relay.len());
        for (address, index) in by_relay {
            relays.insert(Entry {
                address: address.to_bits(),
                length: RELAY,
                is_open: subnets[super::at(index.0)].is_open,
                subnet: index.0,
            });
        }
        by_interface.sort_unstable();
        by_interface.dedup();
        let mut open_on = Vec::new();
        for (interface, index) in by_interface.iter().rev() {
            let at = usize::from(interface.0);
            open_on.resize(open_on.len().max(at + 1), None);
            open_on[at] = Some(*index).filter(|index| subnets[super::at(index.0)].is_open);
        }
        Self { lengths, by_prefix: prefixes, by_relay: relays, by_interface, open_on }
    }

    /// The first subnet in ascending id whose prefix contains `address` and that is open or that `allowed` lets pass.
    #[inline(always)]
    pub fn by_address(
        &self,
        address: Ipv4Addr,
        allowed: impl Fn(SubnetIndex) -> bool,
    ) -> Option<SubnetIndex> {
        let mut first: Option<SubnetIndex> = None;
        for &length in &self.lengths {
            for entry in self.by_prefix.find(prefix_of(address, length), length) {
                let index = SubnetIndex(entry.subnet);
                if first.is_none_or(|first| index < first) && (entry.is_open || allowed(index)) {
                    first = Some(index);
                }
            }
        }
        first
    }

    /// The first subnet in ascending id whose relay list (own or the network's) has `relay` and that is open or that
    /// `allowed` lets pass.
    pub fn by_relay(&self, relay: Ipv4Addr, allowed: impl Fn(SubnetIndex) -> bool) -> Option<SubnetIndex> {
        self.by_relay
            .find(relay.to_bits(), RELAY)
            .find(|entry| entry.is_open || allowed(SubnetIndex(entry.subnet)))
            .map(|entry| SubnetIndex(entry.subnet))
    }

    /// The first subnet in ascending id that is bound to `interface` and open, or that `allowed` lets pass.
    #[inline(always)]
    pub fn first_on(
        &self,
        interface: InterfaceId,
        allowed: impl Fn(SubnetIndex) -> bool,
    ) -> Option<SubnetIndex> {
        match self.open_on.get(usize::from(interface.0)) {
            Some(Some(open)) => Some(*open),
            _ => self.by_interface(interface).find(|&index| allowed(index)),
        }
    }

    /// What is looked at first for `relay`, to be loaded before: by [`Self::by_relay`], and where no subnet lists relays by
    /// [`Self::by_address`].
    #[must_use]
    pub fn first_look(&self, relay: Ipv4Addr) -> Option<&impl Sized> {
        if !self.by_relay.0.is_empty() {
            return self.by_relay.0.get(self.by_relay.first_slot(relay.to_bits(), RELAY));
        }
        let length = *self.lengths.first()?;
        self.by_prefix.0.get(self.by_prefix.first_slot(prefix_of(relay, length), length))
    }

    /// The subnets, ascending by id, that are bound to `interface`.
    pub fn by_interface(&self, interface: InterfaceId) -> impl Iterator<Item = SubnetIndex> + '_ {
        let from = self.by_interface.partition_point(|&(bound, _)| bound < interface);
        self.by_interface[from..].iter().take_while(move |entry| entry.0 == interface).map(|entry| entry.1)
    }
}
