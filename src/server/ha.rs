//! One half of a pair: the HA machine driven from the control thread, and the threads that talk to the peers.
//!
//! [`Ha::step`] is called once per turn of the control loop: it takes in what workers and shards have to say, lets time pass for
//! the machine, and does what the machine wants. Nothing here waits: what takes time is a job of a worker ([`workers`]), a page of a
//! synchronisation is applied by the shards ([`copy`]), lease updates never pass through here ([`links`]).

pub mod bulk;
pub mod copy;
pub mod links;
pub mod queue;
pub mod source;
pub mod workers;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crossbeam::channel::{Receiver, Sender, unbounded};

use super::engine::Engine;
use crate::allocate::Share;
use crate::config::json::Value;
use crate::config::plan::Subnet;
use crate::config::tree::{Dhcp4, Feature, Subnet4};
use crate::control::backend::{Daemon, Ticket as ApiTicket};
use crate::control::command::{Answer as ApiAnswer, Arguments, Command};
use crate::control::http::{BasicAuth, HttpSettings};
use crate::control::listener::{HttpListenerSpec, ListenerSpec, Role};
use crate::control::log::Severity;
use crate::control::peer::PeerTarget;
use crate::control::tls;
use crate::exchange::RelationshipIndex;
use crate::exchange::serving::Serving;
use crate::ha::backlog::Delayed;
use crate::ha::command::lease::{UpdateForm, write_update4};
use crate::ha::command::outgoing::{self, Family};
use crate::ha::command::request::{HaCommand, HaRequest, is_listener_command};
use crate::ha::command::{Answer, HeartbeatAnswer, PeerAnswer, Verdict, verdict};
use crate::ha::config::{MultiThreading, Parsed, RelationshipConfig, parse};
use crate::ha::partner::{Hint, Partner};
use crate::ha::relationship::{Action, CommandToken, Event, Level, Message, Relationship, Ticket};
use crate::ha::relationships::{Output, Relationships};
use crate::ha::service::ServiceRequest;
use crate::ha::settings::{SETTINGS_COMMAND, Settings};
use crate::ha::states::{Mode, Role as PeerRole, State};
use crate::ha::sync::{SubnetFilter, Sync, SyncParams};
use crate::ha::unacked::Traffic;
use crate::ha::view::Scope;
use crate::ids::{Lsn, ShardId};
use crate::lease::request::LeaseReply;
use crate::log;
use crate::park::PEERS_MAX;
use crate::time::{Mono, Now};
use copy::{COPY_NUMBERS, Copy, Wish};
use links::Links;
use queue::UpdateQueue;
use workers::{Job, PeerWork, Report, Reporter, Tag, Updates};

const HA: &str = "kea-dhcp4.ha-hooks";
/// Differences between two configurations that the log names; of the others it says how many there are.
const DIFFERENCES_TOLD_MAX: usize = 8;
/// Where the number of an order says which relationship copies.
const COPY_INDEX_SHIFT: u32 = 56;

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

/// What a subnet, or its shared network, says of the relationship that serves it: the name of any of its peers.
fn server_name(context: Option<&Value>) -> Option<&str> {
    let name = context?.as_map()?.find("ha-server-name")?.as_text()?;
    (!name.is_empty()).then_some(name)
}

/// All subnets with the name that leads to their relationship.
fn named_subnets(tree: &Dhcp4) -> impl Iterator<Item = (&Subnet4, Option<&str>)> {
    let inner = tree.shared_networks.iter().flat_map(|network| {
        let of_network = server_name(network.user_context.as_ref());
        network
            .subnets
            .iter()
            .map(move |subnet| (subnet, server_name(subnet.user_context.as_ref()).or(of_network)))
    });
    inner.chain(tree.subnets.iter().map(|subnet| (subnet, server_name(subnet.user_context.as_ref()))))
}

/// Of several relationships the one with a peer of this name.
fn named_relationship(list: &[RelationshipConfig], name: Option<&str>) -> Option<RelationshipIndex> {
    let name = name?;
    let index = list.iter().position(|config| config.peer(name).is_some())?;
    u8::try_from(index).ok().map(RelationshipIndex)
}

/// Subnets whose clients nobody will serve, because several relationships are configured and they name none.
fn warn_of_orphans(tree: &Dhcp4, list: &[RelationshipConfig]) {
    if list.len() < 2 {
        return;
    }
    for (subnet, name) in named_subnets(tree).filter(|(_, name)| named_relationship(list, *name).is_none()) {
        let found = name.map_or_else(|| "none".to_owned(), |name| format!("'{name}'"));
        log!(
            Severity::Warn,
            HA,
            HA_SUBNET4_WITHOUT_RELATIONSHIP,
            "clients of subnet {} (id {}) are not served: expected the name of a peer as ha-server-name in its user-context, found {found}",
            subnet.text,
            subnet.id.0
        );
    }
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

/// What [`Ha::step`] leaves to the control loop.
#[derive(Debug, Default)]
pub struct Done {
    /// Commands that are answered.
    pub answers: Vec<(ApiTicket, ApiAnswer)>,
    /// Whether the DHCP service has gone on or off.
    pub service_changed: bool,
}

/// The workers of one peer, as the control thread uses them.
struct PeerJobs {
    command: Sender<Job>,
    sync: Sender<Job>,
}

/// The relationships of this server, at work.
pub struct Ha {
    relationships: Relationships,
    members: Vec<Member>,
}

/// One half of a pair: what belongs to one relationship.
struct Member {
    /// Its number.
    index: usize,
    /// Whether there is no other.
    is_alone: bool,
    config: RelationshipConfig,
    links: Arc<Links>,
    partners: Vec<Partner>,
    jobs: Vec<Option<PeerJobs>>,
    heartbeat: Option<Sender<Job>>,
    reports: Receiver<Report>,
    copy: Option<Copy>,
    flush: Option<Ticket>,
    flushing: bool,
    seen: Traffic,
    lost: Vec<u64>,
    /// The number of its last order to a shard.
    number: u64,
    /// What was said last of what each peer runs.
    known: Vec<String>,
    /// The state that the partner was last heard to be in.
    heard: Option<State>,
    /// What was said last of where the partner's configuration differs.
    told: Option<Vec<String>>,
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
    for warning in &parsed.warnings {
        log!(Severity::Warn, HA, HA_CONFIGURATION_WARNING, "{warning}");
    }
    warn_of_orphans(tree, &parsed.relationships);
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
        let target = |peer: &crate::ha::config::PeerConfig| {
            let client = |files| tls::client_config(&tls_files(files), false);
            let tls = peer.tls.as_ref().map(client).transpose().map_err(|error| error.to_string())?;
            let credentials = peer.credentials.as_ref().map(|one| (one.user.clone(), one.password.clone()));
            Ok::<_, String>(PeerTarget { address: peer.url.address, credentials, tls })
        };
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
            let (member, work) = member.build(index, is_alone);
            ha.members.push(member);
            all.extend(work.into_iter().map(|work| (index, work)));
        }
        ha.relationships.start(now);
        (ha, all)
    }
}

impl PreparedMember {
    fn build(self, index: usize, is_alone: bool) -> (Member, Vec<PeerWork>) {
        let Self { config, links, queues } = self;
        let (reports_tx, reports) = unbounded();
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
            config,
            links,
            partners,
            jobs,
            heartbeat,
            reports,
            copy: None,
            flush: None,
            flushing: false,
            seen: Traffic::default(),
            number: copy_number(index),
            heard: None,
            told: None,
        };
        member.note_partners();
        (member, work)
    }
}

/// The number from which the orders of a relationship's synchronisation are counted, beside [`COPY_NUMBERS`].
fn copy_number(index: usize) -> u64 {
    u64::try_from(index).unwrap_or(0) << COPY_INDEX_SHIFT
}

impl Ha {
    /// Whether the DHCP service is on.
    #[must_use]
    pub const fn service(&self) -> bool {
        self.relationships.service()
    }

    /// The state of the first relationship.
    #[must_use]
    pub fn state(&self) -> State {
        self.relationships.list()[0].state()
    }

    /// Whether the change of the partner, by any peer's name of the relationship, goes first when two of one address have crossed: the
    /// primary's does.
    #[must_use]
    pub fn partner_wins(&self, server_name: Option<&str>) -> bool {
        let member = self.relationships.find(server_name).and_then(|index| self.members.get(index));
        member.is_some_and(|member| member.config.own().role != PeerRole::Primary)
    }

    /// Whether another server of this name is a peer.
    #[must_use]
    pub fn has_peer(&self, name: &str) -> bool {
        self.members
            .iter()
            .any(|member| member.config.peer(name).is_some_and(|position| position != member.config.this))
    }

    /// Whether `tree` says of HA what this was started with.
    #[must_use]
    pub fn is_same(&self, parsed: Option<&Parsed>) -> bool {
        parsed.is_some_and(|parsed| {
            parsed.relationships.iter().eq(self.members.iter().map(|member| &member.config))
        })
    }

    /// What a partner is told of this server's settings.
    #[must_use]
    pub fn settings(&self, engine: &Engine) -> ApiAnswer {
        let list: Vec<Settings> = self.members.iter().map(|member| member.settings(engine)).collect();
        let mut answer = Answer::success("settings of the relationships");
        answer.arguments = Some(Settings::to_value(&list));
        api_answer(answer)
    }

    /// The list of `status-get`.
    #[must_use]
    pub fn status(&self, now: Now) -> Option<serde_json::Value> {
        self.relationships.status(now)
    }

    /// The origins that keep the service off.
    #[must_use]
    pub fn disabled_by(&self) -> Vec<u32> {
        let status = self.relationships.service_status();
        let mut origins = Vec::new();
        if status.get("disabled-by-user").and_then(serde_json::Value::as_bool) == Some(true) {
            origins.push(crate::ha::service::ORIGIN_USER);
        }
        for key in ["disabled-by-local-command", "disabled-by-remote-command", "disabled-by-db-connection"] {
            let list = status.get(key).and_then(serde_json::Value::as_array);
            let numbers = list.into_iter().flatten().filter_map(serde_json::Value::as_u64);
            origins.extend(numbers.filter_map(|number| u32::try_from(number).ok()));
        }
        origins
    }

    /// When [`Self::step`] is due at the latest.
    #[must_use]
    pub fn deadline(&self) -> Option<Mono> {
        self.relationships.deadline()
    }

    /// `dhcp-disable`.
    pub fn disable(&mut self, now: Now, origin: u32, max_period_s: Option<u64>) {
        // A period of 0 is refused before it comes here.
        let _ = self.relationships.disable(now, ServiceRequest { origin, max_period_s });
    }

    /// `dhcp-enable`.
    pub fn enable(&mut self, now: Now, origin: u32) {
        let _ = self.relationships.enable(now, ServiceRequest { origin, max_period_s: None });
    }

    /// An HA command; true when it is one. Its answer comes with a later [`Done`].
    pub fn command(&mut self, now: Now, ticket: ApiTicket, command: &Command) -> Option<ApiAnswer> {
        let arguments = command.arguments();
        match HaRequest::parse(&command.name, arguments.as_ref()) {
            None => Some(ApiAnswer::unsupported(&command.name)),
            Some(Err(answer)) => Some(api_answer(answer)),
            Some(Ok(request)) => {
                let member = self.relationships.find(request.server_name.as_deref());
                if let (HaCommand::Heartbeat, Some(index)) = (&request.command, member) {
                    self.members[index].heard_heartbeat(request.server_name.is_some());
                }
                self.relationships.command(now, CommandToken(ticket.0), request);
                None
            }
        }
    }

    /// Whether leases are copied from a peer.
    #[must_use]
    pub fn is_copying(&self) -> bool {
        self.members.iter().any(|member| member.copy.is_some())
    }

    /// A shard's answer to an order of the synchronisation.
    pub fn copied(&mut self, number: u64, reply: &LeaseReply, shard: ShardId, lsn: Lsn) {
        let index = usize::try_from((number & !COPY_NUMBERS) >> COPY_INDEX_SHIFT).unwrap_or(usize::MAX);
        if let Some(copy) = self.members.get_mut(index).and_then(|member| member.copy.as_mut()) {
            copy.put(reply, shard, lsn);
        }
    }

    /// A peer's update changes the lease of `address`: what a copy has asked for may be older.
    pub fn touch(&mut self, address: Ipv4Addr) {
        for copy in self.members.iter_mut().filter_map(|member| member.copy.as_mut()) {
            copy.touch(address);
        }
    }

    /// One turn.
    pub fn step(&mut self, now: Now, engine: &Engine) -> Done {
        let mut done = Done::default();
        let Self { relationships, members } = self;
        for member in &mut *members {
            member.take_in(relationships, engine, now);
        }
        if relationships.deadline().is_some_and(|at| at <= now.mono) {
            relationships.timer(now);
        }
        loop {
            for member in &mut *members {
                member.step_copy(relationships, now, engine);
                member.step_flush(relationships, now);
            }
            let mut moved = false;
            while let Some(output) = relationships.poll() {
                moved = true;
                match output {
                    Output::Answer { token, answer } => {
                        done.answers.push((ApiTicket(token.0), api_answer(answer)));
                    }
                    Output::Service(_) => done.service_changed = true,
                    Output::Of(index, action) => {
                        if let Some(member) = members.get_mut(index) {
                            member.act(relationships, engine, action, &mut done);
                        }
                    }
                }
            }
            if !moved {
                break;
            }
        }
        for member in members {
            let relationship = &relationships.list()[member.index];
            member.links.remembers.store(relationship.remembers_rejected(), Ordering::Relaxed);
            member.mind_owed(relationship);
            member.tell_lost();
        }
        done
    }
}

impl Member {
    fn event(&self, relationships: &mut Relationships, now: Now, event: Event) {
        relationships.handle(now, self.index, event);
    }

    /// The partner has sent a heartbeat, with its name or without.
    fn heard_heartbeat(&mut self, named: bool) {
        if let Some(partner) = self.config.partner() {
            self.partners[partner].learn(Hint::NamedItself(named));
            self.note_partners();
        }
    }

    /// What shards and workers have to say.
    fn take_in(&mut self, relationships: &mut Relationships, engine: &Engine, now: Now) {
        self.take_delayed(relationships);
        let unsent = self.links.unsent.swap(0, Ordering::Relaxed);
        if unsent > 0 {
            self.event(relationships, now, Event::Unsent(unsent));
        }
        self.observe(relationships, now);
        let reports: Vec<Report> = self.reports.try_iter().collect();
        for report in reports {
            self.take_report(relationships, engine, now, report);
        }
    }

    /// A change that the partner did not answer may still be made there, later than it should: once the partner answers again it gets
    /// the change again. One that copies all leases needs nothing.
    fn mind_owed(&self, relationship: &Relationship) {
        let Some(partner) = relationship.partner() else { return };
        match relationship.state() {
            State::CommunicationRecovery => {}
            // In maintenance too: the partner serves our clients now, and no copy need follow.
            State::LoadBalancing | State::HotStandby | State::PartnerInMaintenance | State::InMaintenance => {
                if relationship.partner_state().is_some_and(|state| state != State::Unavailable) {
                    let count = self.links.send_owed(partner);
                    if count > 0 {
                        let name = &self.config.peers[partner].name;
                        log!(
                            Severity::Info,
                            HA,
                            HA_LEASE_UPDATES_REPEATED,
                            "{count} lease update(s) that {name} had not answered are sent again"
                        );
                    }
                }
            }
            _ => self.links.forget_owed(),
        }
    }

    /// Changes for the backlog; one that comes after the backlog was sent is sent by itself.
    fn take_delayed(&self, relationships: &mut Relationships) {
        let links = Arc::clone(&self.links);
        for Delayed { operation, lease } in links.delayed.try_iter() {
            let Some(relationship) = relationships.relationship_mut(self.index) else { return };
            if relationship.state() == State::CommunicationRecovery {
                relationship.queue_update(operation, lease);
            } else if let Some(partner) = relationship.partner() {
                links.send_unawaited(partner, Delayed { operation, lease });
            }
        }
    }

    fn observe(&mut self, relationships: &mut Relationships, now: Now) {
        let traffic = self.links.traffic(relationships.list()[self.index].epoch());
        if traffic != self.seen {
            self.seen = traffic;
            self.event(relationships, now, Event::Observed(traffic));
        }
    }

    fn take_report(&mut self, relationships: &mut Relationships, engine: &Engine, now: Now, report: Report) {
        match report {
            Report::Answered(Tag::Heartbeat(ticket), answer) => {
                let result = HeartbeatAnswer::parse(answer);
                if let (Ok(answer), Some(partner)) = (&result, self.config.partner()) {
                    self.partners[partner].learn(Hint::HeartbeatAnswer {
                        unsent: answer.unsent_update_count.is_some(),
                        scopes: answer.scopes.is_some(),
                    });
                    self.note_partners();
                    // One that begins anew has been started again, perhaps as another program or with another configuration, and faster
                    // than anybody could miss it.
                    let before = self.heard.replace(answer.state);
                    if answer.state == State::Waiting && before.is_some_and(|before| before != State::Waiting)
                    {
                        self.ask_commands(partner);
                    }
                }
                self.event(relationships, now, Event::Heartbeat { ticket, result });
            }
            Report::Answered(Tag::Reset(ticket), answer) => {
                self.event(relationships, now, Event::ResetAnswered { ticket, answer });
            }
            Report::Answered(Tag::Maintenance(ticket), answer) => {
                self.event(relationships, now, Event::MaintenanceAnswered { ticket, answer });
            }
            Report::Answered(Tag::Flush(ticket), answer) => {
                self.flushing = false;
                if self.flush == Some(ticket) && verdict(&answer) != Verdict::Success {
                    self.flush = None;
                    self.event(relationships, now, Event::FlushFinished { ticket, success: false });
                }
            }
            Report::Answered(Tag::Commands(position), answer) => {
                let names = answer.ok().filter(PeerAnswer::is_success).and_then(|answer| {
                    let list = answer.arguments?;
                    let names = list.as_array()?.iter().filter_map(|name| name.as_str().map(str::to_owned));
                    Some(names.collect::<Vec<String>>())
                });
                self.ask_settings(position, names.as_deref());
                self.learn_commands(position, names);
            }
            Report::Answered(Tag::Settings(position), answer) => {
                let arguments =
                    answer.ok().filter(PeerAnswer::is_success).and_then(|answer| answer.arguments);
                if let Some(arguments) = arguments {
                    self.compare_settings(engine, position, &arguments);
                }
            }
            Report::Answered(Tag::Sync(ticket) | Tag::Page(ticket), answer) => {
                if let Some(copy) = self.copy.as_mut().filter(|copy| copy.ticket == ticket) {
                    copy.answered(answer);
                }
            }
            Report::Page(ticket, page) => {
                if let Some(copy) = self.copy.as_mut().filter(|copy| copy.ticket == ticket) {
                    copy.page_came(page);
                }
            }
            Report::ReleasedRefused(position) => {
                self.partners[position].learn(Hint::ReleasedRefused);
                self.note_partners();
            }
            Report::Updates { position, verdict, client, text } => {
                if verdict != Verdict::Success {
                    let name = &self.config.peers[position].name;
                    log!(Severity::Warn, HA, HA_LEASE_UPDATE_FAILED, "lease update to {name} failed: {text}");
                }
                if self.config.partner() == Some(position) {
                    self.event(relationships, now, Event::Update { verdict, client });
                }
            }
        }
    }

    /// Asks the partner for what both should say alike, when it has a command for that.
    fn ask_settings(&self, position: usize, names: Option<&[String]>) {
        let knows = |command: &str| names.is_some_and(|names| names.iter().any(|name| name == command));
        let command = [SETTINGS_COMMAND, "config-get"].into_iter().find(|command| knows(command));
        if let Some(command) = command.filter(|_| self.config.partner() == Some(position)) {
            let body = outgoing::body(Family::V4, command, None);
            self.send(position, self.command_job(Tag::Settings(position), body));
        }
    }

    /// What this server says of the relationship.
    fn settings(&self, engine: &Engine) -> Settings {
        let serving = engine.serving();
        let filter = if self.is_alone { SubnetFilter::All } else { self.filter(engine) };
        let subnets = serving.plan.subnets.iter().filter(|subnet| filter.keeps(subnet.id));
        let text =
            |subnet: &Subnet| (u64::from(subnet.id.0), format!("{}/{}", subnet.prefix, subnet.prefix_len));
        Settings::of(&self.config, subnets.map(text))
    }

    /// Says once where the two servers do not say the same.
    fn compare_settings(&mut self, engine: &Engine, position: usize, arguments: &serde_json::Value) {
        let here = self.settings(engine);
        let name = &self.config.peers[position].name;
        let told = match Settings::read(arguments, &self.config.own().name) {
            None => vec![format!("it has no relationship with a peer called '{}'", self.config.own().name)],
            Some(there) => here.differences(&there),
        };
        if self.told.as_ref() == Some(&told) {
            return;
        }
        if told.is_empty() {
            log!(
                Severity::Info,
                HA,
                HA_PEER_AGREES,
                "{name} has the same names, delays and subnets as this server"
            );
        } else {
            let more = match told.len().saturating_sub(DIFFERENCES_TOLD_MAX) {
                0 => String::new(),
                more => format!("; and {more} more"),
            };
            let first = told[..told.len().min(DIFFERENCES_TOLD_MAX)].join("; ");
            log!(
                Severity::Warn,
                HA,
                HA_PEER_DIFFERS,
                "{name} is not configured as this server is: {first}{more}"
            );
        }
        self.told = Some(told);
    }

    fn learn_commands(&mut self, position: usize, names: Option<Vec<String>>) {
        let known = names.as_ref().map(|names| names.iter().map(String::as_str));
        self.partners[position].learn_commands(known);
        self.note_partners();
        let (name, what) = (&self.config.peers[position].name, self.partners[position].describe());
        if self.known[position] != what {
            log!(Severity::Info, HA, HA_PEER_KNOWN, "in contact with {name}, which runs {what}");
            self.known[position] = what;
        }
    }

    /// Asks a peer anew what it is.
    fn ask_commands(&mut self, position: usize) {
        self.partners[position].forget();
        self.note_partners();
        let body = outgoing::list_commands(Family::V4);
        self.send(position, self.command_job(Tag::Commands(position), body));
    }

    /// What update workers must know of the peers' programs.
    fn note_partners(&self) {
        for peer in &self.links.peers {
            let partner = &self.partners[peer.position];
            peer.bulk.store(partner.takes_bulk(), Ordering::Relaxed);
            peer.released.store(partner.takes_released(), Ordering::Relaxed);
        }
    }

    /// Changes that a peer did not get are said once per outage.
    fn tell_lost(&mut self) {
        for peer in &self.links.peers {
            let lost = peer.lost.load(Ordering::Relaxed);
            if lost > 0 && self.lost[peer.position] == 0 {
                let name = &self.config.peers[peer.position].name;
                log!(
                    Severity::Warn,
                    HA,
                    HA_LEASE_UPDATES_LOST,
                    "{name} does not take lease updates as fast as they come, or not at all: it needs ha-sync"
                );
            }
            self.lost[peer.position] = lost;
        }
    }

    fn send(&self, position: usize, job: Job) {
        if let Some(jobs) = &self.jobs[position] {
            // The worker lives as long as its channel.
            let _ = jobs.command.send(job);
        }
    }

    fn command_job(&self, tag: Tag, body: Vec<u8>) -> Job {
        Job { tag, body, timeout: Duration::from_millis(self.config.timeouts().command_ms) }
    }

    fn act(&mut self, relationships: &Relationships, engine: &Engine, action: Action, done: &mut Done) {
        let name = self.config.own().name.clone();
        match action {
            Action::SendHeartbeat(ticket) => {
                let timeout = Duration::from_millis(self.config.timeouts().heartbeat_ms);
                let body = outgoing::heartbeat(Family::V4, &name);
                if let Some(heartbeat) = &self.heartbeat {
                    let _ = heartbeat.send(Job { tag: Tag::Heartbeat(ticket), body, timeout });
                }
            }
            Action::Publish(word) => self.links.publish(word),
            Action::StartSync { ticket, source, max_period_s } => {
                let mut params = SyncParams::new(&self.config, &self.partners[source], max_period_s);
                let relationship = &relationships.list()[self.index];
                params.serves = relationship.state().behaviour().serves;
                let filter = self.filter(engine);
                let goes_first = relationship.source_goes_first(source);
                self.copy = Some(Copy::new(ticket, source, Sync::new(params), filter, goes_first));
            }
            Action::CancelSync(ticket) => {
                if let Some(copy) = self.copy.as_mut().filter(|copy| copy.ticket == ticket) {
                    copy.cancel();
                }
            }
            Action::FlushBacklog(ticket) => self.flush = Some(ticket),
            Action::SendReset(ticket) => {
                if let Some(partner) = self.config.partner() {
                    let body = outgoing::reset(Family::V4, &name);
                    self.send(partner, self.command_job(Tag::Reset(ticket), body));
                }
            }
            Action::SendMaintenanceNotify { ticket, cancel, state } => {
                if let Some(partner) = self.config.partner() {
                    let body = outgoing::maintenance_notify(Family::V4, &name, cancel, state);
                    self.send(partner, self.command_job(Tag::Maintenance(ticket), body));
                }
            }
            Action::ContactRegained => {
                if let Some(partner) = self.config.partner() {
                    self.ask_commands(partner);
                }
            }
            Action::ContactLost => {
                log!(Severity::Warn, HA, HA_COMMUNICATION_LOST, "the partner does not answer as it must");
            }
            Action::Answer { token, answer } => {
                done.answers.push((ApiTicket(token.0), api_answer(answer)));
            }
            Action::Log(message) => tell(&message),
            // These end in `Relationships`.
            Action::LocalService(_) | Action::ReleaseOrigin(_) => {}
        }
    }

    fn step_copy(&mut self, relationships: &mut Relationships, now: Now, engine: &Engine) {
        let Some(copy) = &mut self.copy else { return };
        let (ticket, source) = (copy.ticket, copy.source);
        copy.is_from_ours = self.partners[source].takes_bulk();
        for wish in copy.step(engine, &mut self.number) {
            match wish {
                Wish::Send { body, timeout_ms, page } => {
                    let tag = if page { Tag::Page(ticket) } else { Tag::Sync(ticket) };
                    if let Some(jobs) = &self.jobs[source] {
                        let _ = jobs.sync.send(Job { tag, body, timeout: Duration::from_millis(timeout_ms) });
                    }
                }
                Wish::Unsupported(command) => {
                    self.partners[source].learn(Hint::Unsupported(command));
                    self.note_partners();
                }
                Wish::Commands(names) => self.learn_commands(source, names),
                Wish::Finished(result) => {
                    self.copy = None;
                    if let Ok(summary) = &result {
                        log!(
                            Severity::Info,
                            HA,
                            HA_LEASES_SYNC_LEASE_PAGE_RECEIVED,
                            "{} page(s): {} lease(s) stored, {} kept as they were, {} unusable",
                            summary.pages,
                            summary.applied.stored,
                            summary.applied.kept,
                            summary.applied.bad
                        );
                    }
                    self.event(
                        relationships,
                        now,
                        Event::SyncFinished { ticket, result: result.map(|_| ()) },
                    );
                    return;
                }
            }
        }
    }

    /// The leases of a source that are kept: of several relationships those of its own subnets, if it has any.
    fn filter(&self, engine: &Engine) -> SubnetFilter {
        let serving = engine.serving();
        let of_us = |index: usize| {
            let relationship = serving.relationships.get(index).copied().flatten();
            relationship.filter(|relationship| usize::from(relationship.0) == self.index)
        };
        let own = serving.plan.subnets.iter().enumerate().filter(|(index, _)| of_us(*index).is_some());
        SubnetFilter::of(own.map(|(_, subnet)| subnet.id))
    }

    /// Sends the backlog, one change after the other.
    fn step_flush(&mut self, relationships: &mut Relationships, now: Now) {
        let (Some(ticket), false) = (self.flush, self.flushing) else { return };
        let Some(relationship) = relationships.relationship_mut(self.index) else { return };
        let Some(partner) = relationship.partner() else { return };
        if let Some(Delayed { operation, lease }) = relationship.pop_backlog() {
            let form = UpdateForm {
                released_as_update: self.partners[partner].takes_released(),
                expire_32_bits: false,
            };
            let mut body = Vec::new();
            write_update4(&mut body, operation, &lease.view(), form);
            let timeout = Duration::from_millis(self.config.timeouts().update_ms);
            self.flushing = true;
            self.send(partner, Job { tag: Tag::Flush(ticket), body, timeout });
        } else {
            self.flush = None;
            self.event(relationships, now, Event::FlushFinished { ticket, success: true });
        }
    }
}

/// Says what the machine says.
fn tell(message: &Message) {
    let severity = match message.level() {
        Level::Error => Severity::Error,
        Level::Warn => Severity::Warn,
        Level::Info => Severity::Info,
    };
    if crate::control::log::is_enabled(severity, HA) {
        crate::control::log::write(severity, HA, message.id(), format_args!("{message}"));
    }
}

/// An answer as the control API gives it.
#[must_use]
pub fn api_answer(answer: Answer) -> ApiAnswer {
    let arguments = answer.arguments.map_or(Arguments::None, Arguments::Value);
    ApiAnswer { result: answer.result, text: answer.text, arguments }
}
