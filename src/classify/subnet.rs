//! Which subnet a query starts in.
//!
//! The rules in their order: what the relay agent or the client names (RFC 3527 link selection, RFC 3011 subnet
//! selection) and then nothing else; the relay's address in a relay list; the subnet of the relay, of the client's own
//! address, of its source address; the subnet bound to the interface; the subnet of the interface's address. Among
//! several it is the one with the lowest id whose guard and whose network's guard admit the query.

use std::net::Ipv4Addr;

use crate::config::plan::{Plan, SubnetIndex};
use crate::ids::{ClassId, InterfaceId};
use crate::wire::Query;

/// What a query says about where it comes from; 0.0.0.0 says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Sub-option 5 of the relay agent information, when it has four octets.
    pub link_selection: Option<Ipv4Addr>,
    /// Option 118.
    pub subnet_selection: Option<Ipv4Addr>,
    /// The relay agent.
    pub giaddr: Ipv4Addr,
    /// The client's own address.
    pub ciaddr: Ipv4Addr,
    /// Where the datagram came from.
    pub source: Ipv4Addr,
    /// Whether the datagram was sent to 255.255.255.255.
    pub to_broadcast: bool,
    /// Where it was received.
    pub interface: InterfaceId,
}

impl Origin {
    /// Where `query` comes from.
    #[must_use]
    pub fn of(query: &Query<'_>) -> Self {
        Self {
            link_selection: query.relay_agent().link_selection(),
            subnet_selection: query.subnet_selection(),
            giaddr: if query.is_relayed() { query.packet.giaddr() } else { Ipv4Addr::UNSPECIFIED },
            ciaddr: query.packet.ciaddr(),
            source: query.datagram.src,
            to_broadcast: query.datagram.is_broadcast(),
            interface: query.interface,
        }
    }
}

/// The subnet that a query from `origin` with `classes` starts in.
#[must_use]
#[inline(always)]
pub fn select(plan: &Plan, origin: &Origin, classes: &[ClassId]) -> Option<SubnetIndex> {
    let allowed = |index: SubnetIndex| plan.subnet_allowed(index, classes);
    let set = |address: Ipv4Addr| Some(address).filter(|address| !address.is_unspecified());
    let with_address = |address| plan.lookup.by_address(address, allowed);

    let link = origin.link_selection.filter(|_| !plan.globals.ignore_link_selection);
    if let Some(named) = link.or(origin.subnet_selection).and_then(set) {
        return with_address(named);
    }
    if let Some(relay) = set(origin.giaddr) {
        return match plan.lookup.by_relay(relay, allowed) {
            Some(listed) => Some(listed),
            None => with_address(relay),
        };
    }
    let unicast = |address| set(address).filter(|_| !origin.to_broadcast);
    if let Some(address) = unicast(origin.ciaddr).or_else(|| unicast(origin.source)) {
        return with_address(address);
    }
    if let Some(bound) = plan.lookup.first_on(origin.interface, allowed) {
        return Some(bound);
    }
    let interface = plan.interfaces.get(usize::from(origin.interface.0))?;
    with_address(*interface.addresses.first()?)
}
