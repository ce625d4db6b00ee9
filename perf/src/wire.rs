//! The instruments' hold of an interface.

use std::sync::Arc;
use std::time::Duration;

use aplomado::ids::InterfaceId;
use aplomado::net::link::{Monitor, Selected, Snapshot};
use aplomado::net::packet::{self, Hear, PacketOptions};
use aplomado::net::{Doorbell, PacketPort, PortSet};

/// The only interface of an instrument.
pub(crate) const INTERFACE: InterfaceId = InterfaceId(0);

/// How long an interface may take from "up" to "running".
const PATIENCE: Duration = Duration::from_secs(5);

/// The interface of this name, which needs to be Ethernet and running; an address it needs not. One that is not running yet is
/// waited for: a new veth drops everything until the kernel calls it so.
pub(crate) fn interface(name: &str) -> Result<Selected, String> {
    let failed = |error| format!("cannot list interfaces: {error}");
    let mut monitor = Monitor::open().map_err(failed)?;
    loop {
        let snapshot = Snapshot::read().map_err(failed)?;
        let link = snapshot.link(name).ok_or_else(|| format!("there is no interface {name}"))?;
        let mac = link.mac.ok_or_else(|| format!("interface {name} is not Ethernet"))?;
        if link.running {
            return Ok(Selected {
                name: link.name.clone(),
                index: link.index,
                mac,
                addresses: link.ipv4().collect(),
            });
        }
        if !monitor.wait(PATIENCE).map_err(failed)? {
            return Err(format!("interface {name} is not running"));
        }
    }
}

/// Ports on an interface, one per shard, that hear every frame to a UDP port.
pub(crate) fn open(
    link: &Selected,
    udp_port: u16,
    shards: u8,
    ring_slots: u32,
    bypass_queue: bool,
) -> Result<Vec<PortSet<PacketPort>>, String> {
    let options = PacketOptions { ring_slots, udp_port, hear: Hear::All, bypass_queue, rings_apart: false };
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
