//! Reservations, found by an identifier of the client or by address at the same cost whatever their number.

use std::net::Ipv4Addr;

use super::{BootFields, HostIndex, ScopeIndex, SubnetIndex};
use crate::ids::{ClassId, HwAddr};
use crate::memory::Table;
use crate::wire::Query;

pub use crate::config::tree::IdentifierKind;

/// The kinds, by number.
pub const IDENTIFIER_KINDS: usize = 5;

/// The identifiers that one query carries; empty ones are absent. Each is hashed once, whatever it is then looked for in.
#[derive(Clone, Copy, Debug, Default)]
pub struct Identifiers<'a> {
    values: [&'a [u8]; IDENTIFIER_KINDS],
    hashes: [u64; IDENTIFIER_KINDS],
}

impl<'a> Identifiers<'a> {
    /// The identifiers that `query` carries, of which `hw_addr` is the hardware address and `flex_id` what an expression
    /// made of it (empty: nothing).
    #[must_use]
    pub fn of_query(query: &Query<'a>, hw_addr: &'a HwAddr, flex_id: &'a [u8]) -> Self {
        let mut own = Self::default();
        own.set(IdentifierKind::HwAddress, hw_addr.as_bytes());
        own.set(IdentifierKind::Duid, query.duid().unwrap_or_default());
        own.set(IdentifierKind::CircuitId, query.relay_agent().circuit_id().unwrap_or_default());
        own.set(IdentifierKind::ClientId, query.client_id().unwrap_or_default());
        own.set(IdentifierKind::FlexId, flex_id);
        own
    }

    /// Notes that the query's identifier of this kind is `value`.
    pub fn set(&mut self, kind: IdentifierKind, value: &'a [u8]) {
        self.values[kind as usize] = value;
        self.hashes[kind as usize] = hash(kind as u8, value);
    }

    /// The query's identifier of this kind.
    #[must_use]
    pub fn value(&self, kind: IdentifierKind) -> Option<&'a [u8]> {
        Some(self.values[kind as usize]).filter(|value| !value.is_empty())
    }
}

/// Octets of an identifier kept inside a [`Host`]: a hardware address is found without a further step.
const INLINE_BYTES_MAX: usize = 14;

/// An identifier: short ones lie in place, long ones behind a pointer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identifier(Octets);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Octets {
    Short(u8, [u8; INLINE_BYTES_MAX]),
    Long(Box<[u8]>),
}

impl Identifier {
    /// The identifier of `octets`.
    #[must_use]
    pub fn new(octets: &[u8]) -> Self {
        let mut short = [0; INLINE_BYTES_MAX];
        match (u8::try_from(octets.len()), short.get_mut(..octets.len())) {
            (Ok(bytes), Some(room)) => {
                room.copy_from_slice(octets);
                Self(Octets::Short(bytes, short))
            }
            _ => Self(Octets::Long(octets.into())),
        }
    }

    /// Its octets.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            Octets::Short(bytes, octets) => &octets[..usize::from(*bytes)],
            Octets::Long(octets) => octets,
        }
    }
}

/// A reservation.
#[derive(Clone, Debug)]
pub struct Host {
    /// The subnet it belongs to; nothing for a global one.
    pub subnet: Option<SubnetIndex>,
    /// What kind of identifier it has.
    pub kind: IdentifierKind,
    /// The identifier.
    pub identifier: Identifier,
    /// The reserved address; 0.0.0.0 when none is.
    pub address: Ipv4Addr,
    /// The reserved name as configured; empty when none is.
    pub hostname: Box<[u8]>,
    /// Its options.
    pub options: ScopeIndex,
    /// The classes it gives to its client.
    pub classes: Box<[ClassId]>,
    /// Boot fields, which go before all others.
    pub boot: Option<Box<BootFields>>,
}

/// All reservations.
#[derive(Clone, Debug, Default)]
pub struct Hosts {
    hosts: Table<Host>,
    /// What is looked for, in which order: of what the configuration says, the kinds that any reservation has.
    order: Box<[IdentifierKind]>,
    /// The kinds that any reservation has, looked for or not.
    kinds: [bool; IDENTIFIER_KINDS],
    by_identifier: Index,
    by_address: Index,
}

/// Open addressing, at most half full. A miss, which is what most clients are, costs a look at two octets in a table
/// that fits a processor's cache; a hit one more at the position.
#[derive(Clone, Debug, Default)]
struct Index {
    /// Upper bits of the hash, never 0; 0 is a vacant slot. The length is a power of two.
    tags: Table<u16>,
    positions: Table<u32>,
}

/// Multiplies into 128 bits and folds: good enough because a client cannot put keys into these tables, it can only
/// ask for keys that are not there, and the longest run of full slots is known when the plan is made.
fn mix(left: u64, right: u64) -> u64 {
    let product = u128::from(left ^ 0x9e37_79b9_7f4a_7c15) * u128::from(right ^ 0xd1b5_4a32_d192_ed03);
    #[expect(clippy::cast_possible_truncation, reason = "both halves are used")]
    let folded = (product >> 64) as u64 ^ product as u64;
    folded
}

/// The hash of an identifier or address, wherever it is reserved.
fn hash(kind: u8, octets: &[u8]) -> u64 {
    let mut state = mix(u64::from(kind), octets.len() as u64);
    let (words, rest) = octets.as_chunks::<8>();
    for word in words {
        state = mix(state, u64::from_be_bytes(*word));
    }
    mix(state, rest.iter().fold(0, |word, octet| word << 8 | u64::from(*octet)))
}

/// The same within one subnet, or among the global reservations.
fn within(scope: u32, hash: u64) -> u64 {
    mix(hash, u64::from(scope))
}

/// Which identifiers and addresses may be reserved in one subnet: never wrong when it says no. It lies beside what a query
/// reads of its subnet anyway, so that a client without a reservation, among however many, touches no table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HostFilter {
    identifiers: u64,
    addresses: u64,
}

impl HostFilter {
    /// Three bits of 64: with ten reservations one stranger in twenty passes.
    const fn bits(hash: u64) -> u64 {
        1 << (hash & 63) | 1 << (hash >> 6 & 63) | 1 << (hash >> 12 & 63)
    }

    /// Each bit is for a 64th of the subnet: reserved addresses mostly lie together, and apart from those of clients.
    const fn bit(address: Ipv4Addr, prefix_len: u8) -> u64 {
        let shift = 26_u32.saturating_sub(prefix_len as u32);
        1 << (address.to_bits() >> shift & 63)
    }

    /// From now on there is this reservation in the subnet with this length of prefix.
    pub fn add(&mut self, host: &Host, prefix_len: u8) {
        self.identifiers |= Self::bits(hash(host.kind as u8, host.identifier.as_bytes()));
        if !host.address.is_unspecified() {
            self.addresses |= Self::bit(host.address, prefix_len);
        }
    }

    /// Whether there may be one for an identifier with this hash.
    const fn may_know(self, hash: u64) -> bool {
        let bits = Self::bits(hash);
        self.identifiers & bits == bits
    }

    /// Whether there may be one of `address`, with the same length of prefix.
    #[must_use]
    pub const fn may_hold(self, address: Ipv4Addr, prefix_len: u8) -> bool {
        self.addresses & Self::bit(address, prefix_len) != 0
    }
}

/// Kind number of the hash of addresses.
const ADDRESS: u8 = 0xff;
/// Scope number of global reservations; no subnet has it.
const GLOBAL: u32 = u32::MAX;

impl Index {
    fn new(count: usize) -> Self {
        let slots = (count * 2).next_power_of_two();
        Self { tags: Table::filled(0, slots), positions: Table::filled(0, slots) }
    }

    fn tag(hash: u64) -> u16 {
        u16::try_from(hash >> 48).expect("16 bits remain").max(1)
    }

    fn first_slot(&self, hash: u64) -> usize {
        usize::try_from(hash & (self.tags.len() as u64).wrapping_sub(1)).expect("masked")
    }

    fn insert(&mut self, hash: u64, position: u32) {
        let mut slot = self.first_slot(hash);
        while self.tags[slot] != 0 {
            slot = (slot + 1) & (self.tags.len() - 1);
        }
        self.tags[slot] = Self::tag(hash);
        self.positions[slot] = position;
    }

    /// The positions that may be stored under `hash`, in order of insertion.
    fn find(&self, hash: u64) -> impl Iterator<Item = HostIndex> + '_ {
        let mut slot = if self.tags.is_empty() { 0 } else { self.first_slot(hash) };
        std::iter::from_fn(move || {
            loop {
                let at = slot;
                let found = *self.tags.get(at).filter(|&&tag| tag != 0)?;
                slot = (slot + 1) & (self.tags.len() - 1);
                if found == Self::tag(hash) {
                    return Some(HostIndex(self.positions[at]));
                }
            }
        })
    }
}

impl Hosts {
    /// The index of `hosts`, which are looked for by identifiers in this order (`host-reservation-identifiers`).
    #[must_use]
    pub fn new(hosts: Vec<Host>, order: &[IdentifierKind]) -> Self {
        if hosts.is_empty() {
            return Self::default();
        }
        let mut by_identifier = Index::new(hosts.len());
        let mut by_address = Index::new(hosts.len());
        for (position, host) in (0_u32..).zip(&hosts) {
            let scope = host.subnet.map_or(GLOBAL, |subnet| subnet.0);
            by_identifier.insert(within(scope, hash(host.kind as u8, host.identifier.as_bytes())), position);
            if !host.address.is_unspecified() {
                by_address.insert(within(scope, hash(ADDRESS, &host.address.octets())), position);
            }
        }
        let mut kinds = [false; IDENTIFIER_KINDS];
        hosts.iter().for_each(|host| kinds[host.kind as usize] = true);
        let order = order.iter().copied().filter(|kind| kinds[*kind as usize]).collect();
        Self { hosts: hosts.into(), order, kinds, by_identifier, by_address }
    }

    /// Whether any reservation has an identifier of this kind: of others a query's need not be known.
    #[must_use]
    #[inline(always)]
    pub fn has_kind(&self, kind: IdentifierKind) -> bool {
        self.kinds[kind as usize]
    }

    /// The reservation at `index`.
    #[must_use]
    pub fn host(&self, index: HostIndex) -> &Host {
        &self.hosts[super::at(index.0)]
    }

    /// Whether there is no reservation at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.hosts.is_empty()
    }

    /// All reservations; a position is a [`HostIndex`].
    #[must_use]
    pub fn all(&self) -> &[Host] {
        &self.hosts
    }

    /// The reservation of `subnet` (nothing: a global one) for the client that has `identifiers`: of the first kind in order
    /// for which there is one.
    #[must_use]
    pub fn find(&self, subnet: Option<SubnetIndex>, identifiers: &Identifiers<'_>) -> Option<HostIndex> {
        self.order.iter().find_map(|&kind| {
            self.find_hashed(subnet, kind, identifiers.value(kind)?, identifiers.hashes[kind as usize])
        })
    }

    /// The same for a subnet with this filter.
    #[must_use]
    pub fn find_filtered(
        &self,
        subnet: SubnetIndex,
        filter: HostFilter,
        identifiers: &Identifiers<'_>,
    ) -> Option<HostIndex> {
        self.order.iter().find_map(|&kind| {
            let hash = identifiers.hashes[kind as usize];
            let value = identifiers.value(kind).filter(|_| filter.may_know(hash))?;
            self.find_hashed(Some(subnet), kind, value, hash)
        })
    }

    /// The reservation of `subnet` (nothing: a global one) whose identifier is `value`.
    #[must_use]
    pub fn find_one(
        &self,
        subnet: Option<SubnetIndex>,
        kind: IdentifierKind,
        value: &[u8],
    ) -> Option<HostIndex> {
        self.find_hashed(subnet, kind, value, hash(kind as u8, value))
    }

    fn find_hashed(
        &self,
        subnet: Option<SubnetIndex>,
        kind: IdentifierKind,
        value: &[u8],
        hash: u64,
    ) -> Option<HostIndex> {
        let hash = within(subnet.map_or(GLOBAL, |subnet| subnet.0), hash);
        self.by_identifier.find(hash).find(|&index| {
            let host = self.host(index);
            host.kind == kind && host.subnet == subnet && host.identifier.as_bytes() == value
        })
    }

    /// The reservations of `subnet` (nothing: the global ones) that hold `address`.
    pub fn holders(
        &self,
        subnet: Option<SubnetIndex>,
        address: Ipv4Addr,
    ) -> impl Iterator<Item = HostIndex> + '_ {
        let hash = within(subnet.map_or(GLOBAL, |subnet| subnet.0), hash(ADDRESS, &address.octets()));
        self.by_address.find(hash).filter(move |&index| {
            let host = self.host(index);
            host.address == address && host.subnet == subnet
        })
    }

    /// Whether `address` is reserved in `subnet`, and for nobody who has one of `identifiers`.
    #[must_use]
    pub fn is_reserved_for_other(
        &self,
        subnet: SubnetIndex,
        address: Ipv4Addr,
        identifiers: &Identifiers<'_>,
    ) -> bool {
        let mut reserved = false;
        for index in self.holders(Some(subnet), address) {
            let host = self.host(index);
            if identifiers.value(host.kind) == Some(host.identifier.as_bytes()) {
                return false;
            }
            reserved = true;
        }
        reserved
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KINDS: [IdentifierKind; 3] =
        [IdentifierKind::HwAddress, IdentifierKind::ClientId, IdentifierKind::FlexId];

    fn host(subnet: Option<u32>, kind: usize, identifier: Vec<u8>, address: u32) -> Host {
        Host {
            subnet: subnet.map(SubnetIndex),
            kind: KINDS[kind],
            identifier: Identifier::new(&identifier),
            address: Ipv4Addr::from(address),
            hostname: Box::default(),
            options: ScopeIndex::default(),
            classes: Box::default(),
            boot: None,
        }
    }

    fn any_host() -> impl Strategy<Value = Host> {
        let identifier = proptest::collection::vec(0_u8..3, 1..20);
        (proptest::option::of(0_u32..3), 0..3_usize, identifier, 0_u32..6)
            .prop_map(|(subnet, kind, identifier, address)| host(subnet, kind, identifier, address))
    }

    proptest! {
        #[test]
        fn lookups_agree_with_a_walk_over_all(
            hosts in proptest::collection::vec(any_host(), 0..60),
            queries in proptest::collection::vec(any_host(), 0..60),
            prefix_len in 0_u8..=32,
        ) {
            let index = Hosts::new(hosts.clone(), &KINDS);
            for query in hosts.iter().chain(&queries) {
                let same = |host: &&Host| {
                    (host.subnet, host.kind, &host.identifier) == (query.subnet, query.kind, &query.identifier)
                };
                let found = index.find_one(query.subnet, query.kind, query.identifier.as_bytes());
                let walked = hosts.iter().position(|host| same(&host));
                prop_assert_eq!(found.map(|found| super::super::at(found.0)), walked);

                let mut filter = HostFilter::default();
                let own = hosts.iter().filter(|host| host.subnet == query.subnet);
                own.for_each(|host| filter.add(host, prefix_len));
                if let Some(subnet) = query.subnet {
                    let mut identifiers = Identifiers::default();
                    identifiers.set(query.kind, query.identifier.as_bytes());
                    prop_assert_eq!(
                        index.find_filtered(subnet, filter, &identifiers),
                        index.find(query.subnet, &identifiers)
                    );
                }
                let is_held = index.holders(query.subnet, query.address).next().is_some();
                prop_assert!(filter.may_hold(query.address, prefix_len) || !is_held);

                let held: Vec<usize> =
                    index.holders(query.subnet, query.address).map(|found| super::super::at(found.0)).collect();
                let mut walked: Vec<usize> = (0..hosts.len())
                    .filter(|&at| {
                        (hosts[at].subnet, hosts[at].address) == (query.subnet, query.address)
                            && !query.address.is_unspecified()
                    })
                    .collect();
                walked.sort_unstable();
                prop_assert_eq!(held, walked);
            }
        }
    }
}
