//! Reservations, found by an identifier of the client or by address at the same cost whatever their number.

use std::net::Ipv4Addr;

use super::{BootFields, HostIndex, ScopeIndex, SubnetIndex};
use crate::ids::{ClassId, HwAddr};
use crate::wire::Query;

pub use crate::config::tree::IdentifierKind;

/// The kinds, by number.
pub const IDENTIFIER_KINDS: usize = 5;

/// The identifiers that one query carries; empty ones are absent.
#[derive(Clone, Copy, Debug, Default)]
pub struct Identifiers<'a>([&'a [u8]; IDENTIFIER_KINDS]);

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
        self.0[kind as usize] = value;
    }

    /// The query's identifier of this kind.
    #[must_use]
    pub fn value(&self, kind: IdentifierKind) -> Option<&'a [u8]> {
        Some(self.0[kind as usize]).filter(|value| !value.is_empty())
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
    pub identifier: Box<[u8]>,
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
    hosts: Vec<Host>,
    /// Open addressing: upper half of the hash and position + 1; 0 is free. The length is a power of two.
    by_identifier: Vec<(u32, u32)>,
    by_address: Vec<(u32, u32)>,
}

/// Multiplies into 128 bits and folds: good enough because a client cannot put keys into these tables, it can only
/// ask for keys that are not there, and the longest run of full slots is known when the plan is made.
fn mix(left: u64, right: u64) -> u64 {
    let product = u128::from(left ^ 0x9e37_79b9_7f4a_7c15) * u128::from(right ^ 0xd1b5_4a32_d192_ed03);
    #[expect(clippy::cast_possible_truncation, reason = "both halves are used")]
    let folded = (product >> 64) as u64 ^ product as u64;
    folded
}

fn hash(scope: u32, kind: u8, octets: &[u8]) -> u64 {
    let mut state = mix(u64::from(scope) << 8 | u64::from(kind), octets.len() as u64);
    for chunk in octets.chunks(8) {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        state = mix(state, u64::from_be_bytes(word));
    }
    state
}

/// Kind number of the hash of addresses.
const ADDRESS: u8 = 0xff;
/// Scope number of global reservations; no subnet has it.
const GLOBAL: u32 = u32::MAX;

fn tag(hash: u64) -> u32 {
    u32::try_from(hash >> 32).expect("32 bits remain")
}

fn insert(slots: &mut [(u32, u32)], hash: u64, position: u32) {
    let mask = slots.len() - 1;
    let mut slot = usize::try_from(hash & mask as u64).expect("masked");
    while slots[slot].1 != 0 {
        slot = (slot + 1) & mask;
    }
    slots[slot] = (tag(hash), position + 1);
}

/// The positions stored under `hash`, in order of insertion.
fn matches(slots: &[(u32, u32)], hash: u64) -> impl Iterator<Item = u32> + '_ {
    let mask = slots.len().wrapping_sub(1);
    let mut slot = usize::try_from(hash & mask as u64).expect("masked");
    std::iter::from_fn(move || {
        loop {
            let &(found, position) = slots.get(slot)?;
            let position = position.checked_sub(1)?;
            slot = (slot + 1) & mask;
            if found == tag(hash) {
                return Some(position);
            }
        }
    })
}

impl Hosts {
    /// The index of `hosts`.
    #[must_use]
    pub fn new(hosts: Vec<Host>) -> Self {
        if hosts.is_empty() {
            return Self::default();
        }
        let slots = (hosts.len() * 2).next_power_of_two();
        let mut by_identifier = vec![(0, 0); slots];
        let mut by_address = vec![(0, 0); slots];
        for (position, host) in (0_u32..).zip(&hosts) {
            let scope = host.subnet.map_or(GLOBAL, |subnet| subnet.0);
            insert(&mut by_identifier, hash(scope, host.kind as u8, &host.identifier), position);
            if !host.address.is_unspecified() {
                insert(&mut by_address, hash(scope, ADDRESS, &host.address.octets()), position);
            }
        }
        Self { hosts, by_identifier, by_address }
    }

    /// The reservation at `index`.
    #[must_use]
    pub fn host(&self, index: HostIndex) -> &Host {
        &self.hosts[super::at(index.0)]
    }

    /// All reservations; a position is a [`HostIndex`].
    #[must_use]
    pub fn all(&self) -> &[Host] {
        &self.hosts
    }

    /// The reservation of `subnet` (nothing: a global one) for the client that has `identifiers`: the first kind in
    /// `order` for which there is one.
    #[must_use]
    pub fn find(
        &self,
        subnet: Option<SubnetIndex>,
        order: &[IdentifierKind],
        identifiers: &Identifiers<'_>,
    ) -> Option<HostIndex> {
        order.iter().find_map(|&kind| self.find_one(subnet, kind, identifiers.value(kind)?))
    }

    /// The reservation of `subnet` (nothing: a global one) whose identifier is `value`.
    #[must_use]
    pub fn find_one(
        &self,
        subnet: Option<SubnetIndex>,
        kind: IdentifierKind,
        value: &[u8],
    ) -> Option<HostIndex> {
        let hash = hash(subnet.map_or(GLOBAL, |subnet| subnet.0), kind as u8, value);
        matches(&self.by_identifier, hash).map(HostIndex).find(|&index| {
            let host = self.host(index);
            host.kind == kind && host.subnet == subnet && *host.identifier == *value
        })
    }

    /// The reservations of `subnet` (nothing: the global ones) that hold `address`.
    pub fn holders(
        &self,
        subnet: Option<SubnetIndex>,
        address: Ipv4Addr,
    ) -> impl Iterator<Item = HostIndex> + '_ {
        let hash = hash(subnet.map_or(GLOBAL, |subnet| subnet.0), ADDRESS, &address.octets());
        matches(&self.by_address, hash).map(HostIndex).filter(move |&index| {
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
            if identifiers.value(host.kind) == Some(&*host.identifier) {
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
            identifier: identifier.into(),
            address: Ipv4Addr::from(address),
            hostname: Box::default(),
            options: ScopeIndex::default(),
            classes: Box::default(),
            boot: None,
        }
    }

    fn any_host() -> impl Strategy<Value = Host> {
        let identifier = proptest::collection::vec(0_u8..3, 1..10);
        (proptest::option::of(0_u32..3), 0..3_usize, identifier, 0_u32..6)
            .prop_map(|(subnet, kind, identifier, address)| host(subnet, kind, identifier, address))
    }

    proptest! {
        #[test]
        fn lookups_agree_with_a_walk_over_all(
            hosts in proptest::collection::vec(any_host(), 0..60),
            queries in proptest::collection::vec(any_host(), 0..60),
        ) {
            let index = Hosts::new(hosts.clone());
            for query in hosts.iter().chain(&queries) {
                let same = |host: &&Host| {
                    (host.subnet, host.kind, &host.identifier) == (query.subnet, query.kind, &query.identifier)
                };
                let found = index.find_one(query.subnet, query.kind, &query.identifier);
                let walked = hosts.iter().position(|host| same(&host));
                prop_assert_eq!(found.map(|found| super::super::at(found.0)), walked);

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
