//! The instruments' hold of an interface.

use std::sync::Arc;

use aplomado::ids::InterfaceId;
use aplomado::net::link::{Selected, Snapshot};
use aplomado::net::packet::{self, Hear, PacketOptions};
use aplomado::net::{Doorbell, PacketPort, PortSet};

/// The only interface of an instrument.
pub(crate) const INTERFACE: InterfaceId = InterfaceId(0);

/// The interface of this name, which needs to be Ethernet and up; an address it needs not.
pub(crate) fn interface(name: &str) -> Result<Selected, String> {
    let snapshot = Snapshot::read().map_err(|error| format!("cannot list interfaces: {error}"))?;
    let link = snapshot.link(name).ok_or_else(|| format!("there is no interface {name}"))?;
    let mac = link.mac.ok_or_else(|| format!("interface {name} is not Ethernet"))?;
    if !link.up {
        return Err(format!("interface {name} is down"));
    }
    Ok(Selected { name: link.name.clone(), index: link.index, mac, addresses: link.ipv4().collect() })
}

/// Ports on an interface, one per shard, that hear every frame to a UDP port.
pub(crate) fn open(
    link: &Selected,
    udp_port: u16,
    shards: u8,
    ring_slots: u32,
    bypass_queue: bool,
) -> Result<Vec<PortSet<PacketPort>>, String> {
    let options = PacketOptions { ring_slots, udp_port, hear: Hear::All, bypass_queue };
    let ports = packet::open(link, INTERFACE, shards, STEERING, &options)
        .map_err(|error| format!("{error}: {}", error.source))?;
    ports
        .into_iter()
        .map(|port| {
            let bell = Doorbell::new().map_err(|error| format!("cannot make a doorbell: {error}"))?;
            let mut set = PortSet::new(Arc::new(bell));
            set.add(port).map_err(|_| "a set has room for one port".to_owned())?;
            Ok(set)
        })
        .collect()
}

/// Any odd numbers spread clients over an instrument's threads.
const STEERING: (u32, u32) = (0x9e37_79b1, 0x85eb_ca6b);
