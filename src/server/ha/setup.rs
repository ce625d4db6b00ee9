//! What the configuration makes of HA: listeners, classes, the relationship of each subnet, and members that are ready to start.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crossbeam::channel::unbounded;

use super::links::Links;
use super::member::{Member, PeerJobs};
use super::queue::UpdateQueue;
use super::workers::{PeerWork, Reporter, Updates};
use super::{Ha, copy_number};
use crate::allocate::Share;
use crate::config::finding::{Report, Style};
use crate::config::json::Value;
use crate::config::tree::{Dhcp4, Feature, Subnet4};
use crate::control::backend::Daemon;
use crate::control::http::{BasicAuth, HttpSettings};
use crate::control::listener::{HttpListenerSpec, ListenerSpec, Role};
use crate::control::peer::PeerTarget;
use crate::control::tls;
use crate::exchange::RelationshipIndex;
use crate::exchange::serving::Serving;
use crate::ha::command::request::is_listener_command;
use crate::ha::config::{MultiThreading, Parsed, PeerConfig, RelationshipConfig, parse};
use crate::ha::partner::Partner;
use crate::ha::posts::PostNumbers;
use crate::ha::relationships::Relationships;
use crate::ha::states::{Mode, Role as PeerRole};
use crate::ha::unacked::Traffic;
use crate::ha::view::Scope;
use crate::park::PEERS_MAX;
use crate::time::Now;

/// What the configuration says about HA; nothing without the HA library.
///
/// # Errors
/// Everything that is wrong with it.
pub fn configured(tree: &Dhcp4) -> Result<Option<Parsed>, String> {
    let Some(hook) = tree.hooks.iter().find(|hook| hook.feature == Feature::Ha) else { return Ok(None) };
    let parameters = hook.parameters.as_ref().map(crate::config::json::Value::to_serde);
    let Some(list) = parameters.as_ref().and_then(|parameters| parameters.get("high-availability")) else {
        return Err("expected the parameter high-availability of the HA library, found none".to_owned());
    };
    let mut read_file = |name: &str| std::fs::read_to_string(name).map_err(|error| error.to_string());
    let parsed = parse(list, &mut read_file)
        .map_err(|findings| findings.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))?;
    let peers: usize = parsed.relationships.iter().map(|config| config.peers.len()).sum();
    if peers > PEERS_MAX {
        return Err(format!(
            "high-availability: expected at most {PEERS_MAX} peers in all relationships, found {peers}"
        ));
    }
    Ok(Some(parsed))
}

/// Threads and listener in force, by the configuration of the server.
fn threading(tree: &Dhcp4, config: &RelationshipConfig, shard_count: usize) -> MultiThreading {
    let threads = if tree.multi_threading.enabled { u32::try_from(shard_count).unwrap_or(1) } else { 0 };
    config.multi_threading.resolve(threads)
}

/// The dedicated listeners of the relationships that have one.
///
/// # Errors
/// A certificate that cannot be used; one address for two relationships.
pub fn listeners(tree: &Dhcp4) -> Result<Vec<ListenerSpec>, String> {
    let Some(parsed) = configured(tree)? else { return Ok(Vec::new()) };
    let mut listeners = Vec::new();
    let mut taken: Vec<SocketAddr> = Vec::new();
    for config in parsed.relationships.iter().filter(|config| threading(tree, config, 1).dedicated_listener) {
        let address = config.own().url.address;
        if taken.contains(&address) {
            return Err(format!(
                "high-availability: each relationship listens on an address of its own, but two have {address}"
            ));
        }
        taken.push(address);
        listeners.push(listener(config)?);
    }
    Ok(listeners)
}

fn listener(config: &RelationshipConfig) -> Result<ListenerSpec, String> {
    let own = config.own();
    let auth = own.credentials.as_ref().map(|credentials| {
        let client = (credentials.user.as_str(), credentials.password.as_str());
        BasicAuth::new(Daemon::Dhcp4.realm(), [client])
    });
    let tls = own
        .tls
        .as_ref()
        .map(|files| {
            tls::server_config(&tls_files(files), config.require_client_certs)
                .map_err(|error| error.to_string())
        })
        .transpose()?;
    let accepts = config.restrict_commands.then_some(is_listener_command as fn(&str) -> bool);
    Ok(ListenerSpec::Http(HttpListenerSpec {
        address: own.url.address,
        role: Role::Dedicated { daemon: Daemon::Dhcp4, accepts },
        settings: HttpSettings { auth, headers: Vec::new() },
        tls,
    }))
}

fn tls_files(files: &crate::ha::config::TlsFiles) -> tls::TlsFiles {
    tls::TlsFiles {
        trust_anchor: PathBuf::from(&files.trust_anchor),
        cert_file: PathBuf::from(&files.cert_file),
        key_file: PathBuf::from(&files.key_file),
    }
}

/// What a subnet, or else its shared network, says of the relationship that serves it: the name of any of its peers. What a subnet says
/// counts also when it is no name: it leads nowhere then, whatever the network says.
fn server_name<'a>(own: Option<&'a Value>, of_network: Option<&'a Value>) -> Option<&'a str> {
    let said = |context: Option<&'a Value>| context?.as_map()?.find("ha-server-name");
    let name = said(own).or_else(|| said(of_network))?.as_text()?;
    (!name.is_empty()).then_some(name)
}

/// All subnets with the name that leads to their relationship.
fn named_subnets(tree: &Dhcp4) -> impl Iterator<Item = (&Subnet4, Option<&str>)> {
    let inner = tree.shared_networks.iter().flat_map(|network| {
        let of_network = network.user_context.as_ref();
        network
            .subnets
            .iter()
            .map(move |subnet| (subnet, server_name(subnet.user_context.as_ref(), of_network)))
    });
    inner.chain(tree.subnets.iter().map(|subnet| (subnet, server_name(subnet.user_context.as_ref(), None))))
}

/// Of several relationships the one with a peer of this name.
fn named_relationship(list: &[RelationshipConfig], name: Option<&str>) -> Option<RelationshipIndex> {
    let name = name?;
    let index = list.iter().position(|config| config.peer(name).is_some())?;
    u8::try_from(index).ok().map(RelationshipIndex)
}

/// Everything about HA that an operator must know before the configuration is in force: what is wrong with it, its certificates
/// included, and what is odd.
pub fn examine(tree: &Dhcp4, report: &mut Report) {
    let Some(hook) = tree.hooks.iter().find(|hook| hook.feature == Feature::Ha) else { return };
    let parsed = match configured(tree) {
        Ok(Some(parsed)) => parsed,
        Ok(None) => return,
        Err(text) => return report.error(hook.at, Style::After, text),
    };
    if let Err(text) = listeners(tree) {
        report.error(hook.at, Style::After, text);
    }
    for config in &parsed.relationships {
        let others = config.peers.iter().enumerate().filter(|(position, _)| *position != config.this);
        for (_, peer) in others {
            if let Err(text) = target(peer) {
                report.error(hook.at, Style::After, format!("peer {}: {text}", peer.name));
            }
        }
    }
    for warning in &parsed.warnings {
        report.warning(hook.at, Style::After, warning.to_string());
    }
    if parsed.relationships.len() < 2 {
        return;
    }
    for (subnet, name) in named_subnets(tree) {
        if named_relationship(&parsed.relationships, name).is_some() {
            continue;
        }
        let found = name.map_or_else(|| "none".to_owned(), |name| format!("'{name}'"));
        let text = format!(
            "clients of subnet {} (id {}) are not served: expected the name of a peer as ha-server-name in its user-context, found {found}",
            subnet.text, subnet.id.0
        );
        report.warning(subnet.at, Style::After, text);
    }
}

/// How a peer is reached.
fn target(peer: &PeerConfig) -> Result<PeerTarget, String> {
    let client = |files| tls::client_config(&tls_files(files), false);
    let tls = peer.tls.as_ref().map(client).transpose().map_err(|error| error.to_string())?;
    let credentials = peer.credentials.as_ref().map(|one| (one.user.clone(), one.password.clone()));
    Ok(PeerTarget { address: peer.url.address, credentials, tls })
}

/// The classes of the scopes, and which relationship serves which subnet, for a plan that is about to be served.
pub fn complete(tree: &Dhcp4, serving: &mut Serving) {
    let Ok(Some(parsed)) = configured(tree) else { return };
    serving.scope_classes = parsed
        .relationships
        .iter()
        .map(|config| {
            [Scope::Primary, Scope::Secondary].map(|scope| {
                let names = config.class_names(scope).into_iter().flatten();
                names.filter_map(|name| serving.plan.class_names.find(&name)).collect()
            })
        })
        .collect();
    let mut of_subnet = vec![None; serving.plan.subnets.len()];
    for (subnet, name) in named_subnets(tree) {
        let place = serving.plan.subnet_by_id(subnet.id).and_then(|index| usize::try_from(index.0).ok());
        if let Some(place) = place.and_then(|place| of_subnet.get_mut(place)) {
            *place = named_relationship(&parsed.relationships, name);
        }
    }
    serving.relationships = of_subnet;
}

/// What a server with HA starts with: made before the engine, finished after it.
pub struct Prepared {
    members: Vec<PreparedMember>,
    /// For the engine.
    pub share: Share,
}

struct PreparedMember {
    config: RelationshipConfig,
    links: Arc<Links>,
    queues: Vec<Vec<UpdateQueue>>,
}

/// Which half of the pools that both servers of a pair allocate from this one begins in.
fn share(list: &[RelationshipConfig]) -> Share {
    match list {
        [config] if config.mode == Mode::LoadBalancing => match config.own().role {
            PeerRole::Primary => Share::Lower,
            PeerRole::Secondary => Share::Upper,
            PeerRole::Standby | PeerRole::Backup => Share::Whole,
        },
        _ => Share::Whole,
    }
}

/// Reads the configuration and makes what the engine needs of it; nothing without HA.
///
/// # Errors
/// What is wrong with the configuration.
pub fn prepare(
    tree: &Dhcp4,
    shard_count: usize,
    seed: u64,
    wake_control: &Arc<dyn Fn() + Send + std::marker::Sync>,
) -> Result<Option<Prepared>, String> {
    let Some(parsed) = configured(tree)? else { return Ok(None) };
    let share = share(&parsed.relationships);
    let mut members = Vec::new();
    let mut first_peer = 0;
    for config in parsed.relationships {
        let workers = usize::try_from(threading(tree, &config, shard_count).client_threads).unwrap_or(1);
        let workers = workers.clamp(1, 64);
        let (links, queues) =
            Links::new(&config, first_peer, shard_count, workers, seed, Arc::clone(wake_control));
        first_peer = first_peer.saturating_add(u8::try_from(config.peers.len()).unwrap_or(u8::MAX));
        members.push(PreparedMember { config, links, queues });
    }
    Ok(Some(Prepared { members, share }))
}

impl Prepared {
    /// What the engine's threads share with each relationship, by number.
    #[must_use]
    pub fn links(&self) -> Vec<Arc<Links>> {
        self.members.iter().map(|member| Arc::clone(&member.links)).collect()
    }

    /// Starts the machines, and a thread for each connection to a peer.
    ///
    /// # Errors
    /// Certificates that cannot be used; no threads.
    pub fn start(self, now: Now) -> Result<Ha, String> {
        let (ha, work) = self.build(now);
        for member in &ha.members {
            for (position, peer) in member.config.peers.iter().enumerate() {
                if member.links.peer(position).is_some() {
                    target(peer)?;
                }
            }
        }
        for (index, work) in work {
            let target = target(&ha.members[index].config.peers[work.position])?;
            work.start(&target).map_err(|error| format!("cannot start a worker of HA: {error}"))?;
        }
        Ok(ha)
    }

    /// Starts the machines; what they want to say to peers is for the caller to carry. Each piece of it comes with the number of its
    /// relationship.
    #[must_use]
    pub fn build(self, now: Now) -> (Ha, Vec<(usize, PeerWork)>) {
        let configs = self.members.iter().map(|member| member.config.clone()).collect();
        let mut ha = Ha { relationships: Relationships::new(configs, now), members: Vec::new() };
        let is_alone = self.members.len() == 1;
        let mut all = Vec::new();
        for (index, member) in self.members.into_iter().enumerate() {
            let (member, work) = member.build(index, is_alone, now);
            ha.members.push(member);
            all.extend(work.into_iter().map(|work| (index, work)));
        }
        ha.relationships.start(now);
        (ha, all)
    }
}

impl PreparedMember {
    fn build(self, index: usize, is_alone: bool, now: Now) -> (Member, Vec<PeerWork>) {
        let Self { config, links, queues } = self;
        let (reports_tx, reports) = unbounded();
        // Of two lives at least one of both clocks is another, and two servers that start at one time have two names: to a peer of both
        // their commands must not look like those of one. 53 bits, as JSON numbers go.
        let name = config
            .own()
            .name
            .bytes()
            .fold(0u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        let session = (now.wall_s.rotate_left(20) ^ now.mono.0 ^ (index as u64).rotate_left(48) ^ name)
            & ((1 << 53) - 1);
        for peer in &links.peers {
            *peer.posts.lock() = PostNumbers::new(session);
        }
        let reporter = Reporter { reports: reports_tx, links: Arc::clone(&links) };
        let update_timeout = Duration::from_millis(config.timeouts().update_ms);
        let mut work = Vec::new();
        let mut jobs: Vec<Option<PeerJobs>> = (0..config.peers.len()).map(|_| None).collect();
        let mut heartbeat = None;
        // Threads are told apart by relationship only where there are several.
        let of = if index == 0 { String::new() } else { format!("{index}-") };
        for (place, queues) in queues.into_iter().enumerate() {
            let position = links.peers[place].position;
            for (number, queue) in queues.into_iter().enumerate() {
                let updates = Updates::new(place, &config.own().name, update_timeout, queue);
                let name = format!("ha-upd-{of}{position}-{number}");
                work.push(PeerWork::updates(position, name, updates, reporter.clone()));
            }
            let mut commands = |name: String| {
                let (sender, receiver) = unbounded();
                work.push(PeerWork::commands(position, name, receiver, reporter.clone()));
                sender
            };
            jobs[position] = Some(PeerJobs {
                command: commands(format!("ha-command-{of}{position}")),
                sync: commands(format!("ha-sync-{of}{position}")),
            });
            if config.partner() == Some(position) {
                heartbeat = Some(commands(format!("ha-heartbeat{}", of.trim_end_matches('-'))));
            }
        }
        let partners = config.peers.iter().map(|peer| Partner::new(peer.compatibility)).collect();
        let member = Member {
            index,
            is_alone,
            lost: vec![0; config.peers.len()],
            known: vec![String::new(); config.peers.len()],
            is_asking: vec![false; config.peers.len()],
            config,
            links,
            partners,
            jobs,
            heartbeat,
            reports,
            copy: None,
            copied: None,
            is_copied: false,
            flush: None,
            flushing: false,
            flush_number: None,
            seen: Traffic::default(),
            number: copy_number(index),
            heard: None,
            told: None,
        };
        member.note_partners();
        (member, work)
    }
}
