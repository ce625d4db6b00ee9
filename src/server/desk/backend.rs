//! The desk as the control API asks it.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use super::{Desk, Errand};
use crate::classify::subnet::{self, Origin as SelectOrigin};
use crate::config::plan::SubnetIndex;
use crate::config::render;
use crate::config::tree::Feature;
use crate::control::backend::{
    Backend, Completion, ConfigAction, ConfigOrder, Daemon, Features, InterfaceFacts, LfcStart,
    Order as Asked, SelectQuery, SocketsStatus, Status, SubnetFacts, Ticket,
};
use crate::control::command::{Answer, Command};
use crate::control::statistics::{PortCounter, Snapshot};
use crate::ha::partner::{BULK_COMMAND, SYNC_BEGIN_COMMAND, SYNC_LEASES_COMMAND};
use crate::ha::settings::SETTINGS_COMMAND;
use crate::ids::{InterfaceId, SubnetId};
use crate::lease::request::LeaseRequest;
use crate::net::link;
use crate::server::ha::Ha;
use crate::server::ha::source::SyncSource;
use crate::time::Now;

impl Backend for Desk {
    fn now(&mut self) -> Now {
        self.clock.now()
    }

    fn wall_us(&mut self) -> u64 {
        self.clock.wall_us()
    }

    fn submit(&mut self, ticket: Ticket, order: Asked) {
        match order {
            Asked::Lease(request) => {
                if matches!(request, LeaseRequest::List { .. }) {
                    self.source.listed(self.clock.now());
                }
                self.tell_copy(&request);
                self.ask_shards(ticket, request);
            }
            Asked::Config(ConfigOrder { daemon, action: ConfigAction::Write(file) }) => {
                let written = self.write_config(daemon, file);
                self.done.push((ticket, Completion::Written(written)));
            }
            Asked::Config(order) => self.errands.push(Errand::Configure(ticket, order)),
            Asked::WriteLeases(file) => self.start_writing(ticket, PathBuf::from(file)),
            Asked::Command(command)
                if self.ha.is_some()
                    && [BULK_COMMAND, SYNC_LEASES_COMMAND].contains(&command.name.as_str()) =>
            {
                self.apply_bulk(ticket, &command);
            }
            Asked::Command(command) if command.name == SETTINGS_COMMAND => {
                let answer = match &self.ha {
                    Some(ha) => ha.settings(&self.engine),
                    None => Answer::unsupported(&command.name),
                };
                self.done.push((ticket, Completion::Answer(answer)));
            }
            Asked::Command(command) if self.ha.is_some() && SyncSource::answers(&command.name) => {
                if command.name == SYNC_BEGIN_COMMAND {
                    self.note_copier(&command, true);
                }
                let ha = self.ha.as_ref();
                let (peer_id, mark) = (|name: &str| ha?.peer_id(name), |name: &str| ha?.post_mark(name));
                let now = self.clock.now();
                let answers = self.source.command(now, ticket, &command, peer_id, mark).into_iter();
                self.done.extend(answers.map(|(ticket, answer)| (ticket, Completion::Answer(answer))));
            }
            Asked::Command(command) => {
                let now = self.clock.now();
                if command.name == "ha-sync-complete-notify"
                    && let Some(name) = self.note_copier(&command, false)
                {
                    self.source.completed(&name);
                }
                let answer = match &mut self.ha {
                    Some(ha) => ha.command(now, ticket, &command),
                    None => Some(Answer::unsupported(&command.name)),
                };
                self.done.extend(answer.map(|answer| (ticket, Completion::Answer(answer))));
            }
            Asked::CleanLeaseFile if self.engine.files.is_none() => {
                self.done.push((ticket, Completion::LeaseFile(LfcStart::NotPersisted)));
            }
            Asked::CleanLeaseFile => self.errands.push(Errand::CleanUp(ticket)),
        }
    }

    fn features(&self) -> Features {
        let has = |feature| self.tree.hooks.iter().any(|hook| hook.feature == feature);
        Features { lease_cmds: has(Feature::LeaseCmds), ha: has(Feature::Ha) }
    }

    fn subnet(&self, id: SubnetId) -> Option<SubnetFacts> {
        let serving = self.engine.serving();
        let index = serving.plan.subnet_by_id(id)?;
        Some(self.facts(&serving.plan, index))
    }

    fn subnet_of(&self, address: Ipv4Addr) -> Option<SubnetFacts> {
        let serving = self.engine.serving();
        let index = serving.plan.lookup.by_address(address, |_| true)?;
        Some(self.facts(&serving.plan, index))
    }

    fn subnets(&self) -> Vec<SubnetFacts> {
        let serving = self.engine.serving();
        let count = u32::try_from(serving.plan.subnets.len()).unwrap_or(u32::MAX);
        (0..count).map(|index| self.facts(&serving.plan, SubnetIndex(index))).collect()
    }

    fn subnet_config(&self, id: SubnetId) -> Option<Vec<u8>> {
        let (network, subnet) = self.find_subnet(id)?;
        let value = render::subnet4(&self.tree, network, subnet, &render::definitions(&self.tree));
        Some(crate::config::json::compact(&value).into_bytes())
    }

    fn shared_networks(&self) -> Vec<String> {
        self.tree.shared_networks.iter().map(|network| network.name.clone()).collect()
    }

    fn shared_network_config(&self, name: &str) -> Option<Vec<u8>> {
        let rendered = self.rendered(Daemon::Dhcp4);
        let networks = rendered.get("Dhcp4")?.get("shared-networks")?.as_array()?;
        let network = networks
            .iter()
            .find(|network| network.get("name").and_then(|value| value.as_str()) == Some(name))?;
        Some(crate::config::json::compact(network).into_bytes())
    }

    fn select_subnet(&self, query: &SelectQuery) -> Option<SubnetFacts> {
        let serving = self.engine.serving();
        let plan = &serving.plan;
        let interface = query
            .interface
            .as_ref()
            .and_then(|name| plan.interfaces.iter().position(|interface| *interface.name == **name))
            .and_then(|position| u16::try_from(position).ok())
            .map_or(InterfaceId(u16::MAX), InterfaceId);
        let address = |address: Option<Ipv4Addr>| address.unwrap_or(Ipv4Addr::UNSPECIFIED);
        let origin = SelectOrigin {
            link_selection: query.link,
            subnet_selection: query.subnet,
            giaddr: address(query.relay),
            ciaddr: address(query.address),
            source: address(query.remote),
            to_broadcast: query.local.is_none_or(|local| local.is_broadcast()),
            interface,
        };
        let classes: Vec<_> = query.classes.iter().filter_map(|name| plan.class_names.find(name)).collect();
        let index = subnet::select(plan, &origin, &classes)?;
        Some(self.facts(plan, index))
    }

    fn config(&self, daemon: Daemon) -> Vec<u8> {
        let rendered = self.rendered(daemon);
        let block = rendered.get(daemon.block()).unwrap_or(&serde_json::Value::Null);
        crate::config::json::compact(block).into_bytes()
    }

    fn server_tag(&self) -> String {
        self.tree.server_tag.clone()
    }

    fn status(&mut self) -> Status {
        let now = self.clock.now();
        Status {
            uptime_s: now.seconds_since(self.started),
            reload_s: now.seconds_since(self.configured),
            thread_count: u32::try_from(self.engine.shards.len()).unwrap_or(0),
            packet_queue_size: u32::from(self.tree.multi_threading.packet_queue_size),
            packet_queue_means: [0.0; 3],
            lease_file: self.engine.files.as_ref().map(|files| files.live.display().to_string()),
            sockets: if self.socket_errors.is_empty() {
                SocketsStatus::Ready
            } else {
                SocketsStatus::Retrying(self.socket_errors.clone())
            },
            disabled_by: self.ha.as_ref().map_or_else(|| self.disabling.origins().collect(), Ha::disabled_by),
            high_availability: self.ha.as_ref().and_then(|ha| ha.status(now)),
        }
    }

    fn interfaces(&mut self, _scan: bool) -> Vec<InterfaceFacts> {
        let Ok(snapshot) = link::Snapshot::read() else { return Vec::new() };
        snapshot
            .links
            .iter()
            .map(|link| InterfaceFacts {
                name: link.name.clone(),
                index: link.index,
                mac: link.mac.map(|mac| crate::ids::ColonHex(&mac).to_string()).unwrap_or_default(),
                hw_type: if link.loopback { 772 } else { 1 },
                loopback: link.loopback,
                up: link.up,
                running: link.running,
                multicast: !link.loopback,
                broadcast: !link.loopback,
                in_use: self.served.contains(&link.name),
                addresses: link.addresses.iter().map(|(address, _)| address.to_string()).collect(),
            })
            .collect()
    }

    fn sample(&mut self, into: &mut Snapshot) {
        self.read_statistics(into);
    }

    fn dhcp_disable(&mut self, origin: u32, max_period_s: Option<u64>) {
        let now = self.clock.now();
        if let Some(ha) = &mut self.ha {
            ha.disable(now, origin, max_period_s);
            // At once: a peer that copies asks for the last changes next, and no client may be served after them.
            return self.engine.enable(self.is_enabled());
        }
        self.disabling.disable(origin, max_period_s, now.mono);
        self.errands.push(Errand::Service);
    }

    fn dhcp_enable(&mut self, origin: u32) {
        let now = self.clock.now();
        if let Some(ha) = &mut self.ha {
            return ha.enable(now, origin);
        }
        self.disabling.enable(origin);
        self.errands.push(Errand::Service);
    }

    fn shutdown(&mut self, exit_value: i64) {
        self.errands.push(Errand::Shutdown(exit_value));
    }
}

impl Desk {
    /// A partner says that it begins to copy leases, or has done so: its name.
    fn note_copier(&mut self, command: &Command, copies: bool) -> Option<String> {
        let arguments = command.arguments();
        let name = arguments.as_ref()?.get("server-name")?.as_str()?.to_owned();
        self.ha.as_mut()?.note_copier(&name, copies);
        Some(name)
    }
}

const _: () =
    assert!(PortCounter::COUNT == crate::net::PortStats::COUNT, "every counter of a port has a name");
