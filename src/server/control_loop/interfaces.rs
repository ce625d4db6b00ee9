//! The interfaces that are served and their ports: opened and closed, tried again, looked at anew when a link changes.

use std::net::Ipv4Addr;
use std::sync::Arc;

use super::{Control, DHCP4};
use crate::config::load::Loaded;
use crate::control::log::Severity;
use crate::ids::InterfaceId;
use crate::log;
use crate::net::link::{Change, Selected, SocketType};
use crate::net::udp::{Fallback, Outbound, UdpOptions};
use crate::net::{AnyPort, OpenError, packet, udp};
use crate::server::shard_loop::Order;
use crate::server::{setup, told};
use crate::time::Mono;

/// How long a port that could not be opened is left alone before the next try.
const REOPEN_MS: u64 = 1000;
/// The port of DHCP servers.
const SERVER_PORT: u16 = 67;

impl Control {
    /// Opens and closes ports as `changes` say. What cannot be had is told, shown in `status-get` and tried again.
    pub(super) fn open(&mut self, changes: Vec<Change>) {
        let shards = u8::try_from(self.desk.engine.shards.len()).unwrap_or(u8::MAX);
        let keys = self.desk.engine.steering.multipliers();
        let raw = setup::socket_type(&self.desk.tree) == SocketType::Raw;
        for change in changes {
            let (Change::Close(id) | Change::Open(id, _) | Change::Readdress(id, _)) = change;
            let known = self.unopened.iter().position(|(other, ..)| *other == id);
            let known = known.map(|position| self.unopened.remove(position).2);
            let failed = match &change {
                Change::Close(id) => {
                    self.fallbacks.retain(|(other, _)| other != id);
                    for shard in &self.desk.engine.shards {
                        // A shard that takes no orders has failed, and the loop will see it.
                        let _ = shard.order(Order::RemovePort(*id));
                    }
                    None
                }
                Change::Open(id, selected) => match self.ports(*id, selected, shards, keys) {
                    Ok(ports) => {
                        for (shard, port) in self.desk.engine.shards.iter().zip(ports) {
                            let _ = shard.order(Order::AddPort(port));
                        }
                        None
                    }
                    Err(error) => {
                        self.fallbacks.retain(|(other, _)| other != id);
                        Some((selected.clone(), error))
                    }
                },
                Change::Readdress(id, selected) => {
                    let addresses: Arc<[Ipv4Addr]> = selected.addresses.clone().into();
                    for shard in &self.desk.engine.shards {
                        let _ = shard.order(Order::Readdress(*id, Arc::clone(&addresses)));
                    }
                    self.fallbacks.retain(|(other, _)| other != id);
                    let opened = if raw { self.fall_back(*id, selected) } else { Ok(()) };
                    opened.err().map(|error| (selected.clone(), error))
                }
            };
            if let Some((selected, error)) = failed {
                let text = told(&error);
                if known.as_ref() != Some(&text) {
                    let next = if self.next_open == Mono(0) { "" } else { "; it is tried again" };
                    log!(Severity::Error, DHCP4, DHCPSRV_OPEN_SOCKET_FAIL, "{text}{next}");
                }
                self.unopened.push((id, selected, text));
            } else if known.is_some() && !matches!(change, Change::Close(_)) {
                let name = self.table.name(id).unwrap_or("?");
                log!(Severity::Info, DHCP4, DHCP4_OPEN_SOCKETS_SUCCESS, "the sockets of {name} are open now");
            }
        }
        self.next_open = self.desk.clock.now().mono.plus_ms(REOPEN_MS);
        self.desk.socket_errors = self.unopened.iter().map(|(_, _, text)| text.clone()).collect();
        let unopened = &self.unopened;
        let served = self.table.served().iter();
        let open = served.filter(|(id, _)| unopened.iter().all(|(other, ..)| other != id));
        self.desk.served = open.map(|(_, link)| link.name.clone()).collect();
    }

    /// Tries again what could not be opened.
    pub(super) fn reopen(&mut self) {
        if self.unopened.is_empty() || self.desk.clock.now().mono < self.next_open {
            return;
        }
        let again: Vec<Change> =
            self.unopened.iter().map(|(id, selected, _)| Change::Open(*id, selected.clone())).collect();
        self.open(again);
    }

    fn ports(
        &mut self,
        id: InterfaceId,
        selected: &Selected,
        shards: u8,
        keys: (u32, u32),
    ) -> Result<Vec<AnyPort>, OpenError> {
        if let Some(given) = self.network.take_port(&self.desk.engine.shards[0].bell) {
            return Ok(given);
        }
        match setup::socket_type(&self.desk.tree) {
            SocketType::Raw => {
                self.fall_back(id, selected)?;
                let options = packet::PacketOptions::default();
                Ok(packet::open(selected, id, shards, keys, &options)?
                    .into_iter()
                    .map(AnyPort::Packet)
                    .collect())
            }
            SocketType::Udp => {
                let outbound = if self.desk.tree.interfaces.outbound_use_routing.unwrap_or(false) {
                    Outbound::UseRouting
                } else {
                    Outbound::SameAsInbound
                };
                let options = UdpOptions { outbound, ..UdpOptions::default() };
                Ok(udp::open(selected, id, shards, keys, &options)?.into_iter().map(AnyPort::Udp).collect())
            }
        }
    }

    /// Binds the port beside packet sockets, so that the kernel does not answer relays with "port unreachable".
    fn fall_back(&mut self, id: InterfaceId, selected: &Selected) -> Result<(), OpenError> {
        for address in &selected.addresses {
            let fallback = Fallback::open(&selected.name, *address, SERVER_PORT)?;
            self.fallbacks.push((id, fallback));
        }
        Ok(())
    }

    /// Looks at the interfaces again.
    pub(super) fn redetect(&mut self) {
        if !self.desk.tree.interfaces.re_detect {
            return;
        }
        let Ok(snapshot) = self.network.snapshot() else { return };
        let Ok(selection) = setup::choose(&self.desk.tree, &snapshot, true) else { return };
        let socket_type = setup::socket_type(&self.desk.tree);
        let changes = self.table.update(selection.served, socket_type);
        if changes.is_empty() {
            return;
        }
        for change in &changes {
            match change {
                Change::Open(_, link) | Change::Readdress(_, link) => {
                    let addresses: Vec<String> = link.addresses.iter().map(ToString::to_string).collect();
                    let (name, addresses) = (&link.name, addresses.join(","));
                    log!(
                        Severity::Info,
                        DHCP4,
                        DHCPSRV_CFGMGR_ADD_IFACE,
                        "{name} is served now as {addresses}"
                    );
                }
                Change::Close(id) => {
                    let name = self.table.name(*id).unwrap_or("?");
                    log!(Severity::Warn, DHCP4, DHCPSRV_NO_SOCKETS_OPEN, "{name} is not served any more");
                }
            }
        }
        // The plan knows interfaces and how answers leave by them: a new one with the same configuration.
        self.generation += 1;
        let (tree, generation) = (self.desk.tree.clone(), self.generation);
        let mut findings = Vec::new();
        let plan =
            setup::plan(&tree, &Loaded::default(), &mut self.table, &snapshot, generation, &mut findings);
        if let Some(plan) = plan {
            let arrivals = setup::arrivals(self.table.served(), socket_type == SocketType::Raw);
            let serving = setup::serving(&tree, plan, arrivals, &mut self.desk.engine.book);
            if let Err(text) = self.desk.engine.publish(serving) {
                log!(Severity::Error, DHCP4, DHCP4_CONFIG_LOAD_FAIL, "{text}");
            }
        }
        self.open(changes);
    }
}
