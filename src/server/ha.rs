//! One half of a pair: the HA machine driven from the control thread, and the threads that talk to the peers.
//!
//! [`Ha::step`] is called once per turn of the control loop: it takes in what workers and shards have to say, lets time pass for
//! the machine, and does what the machine wants. Nothing here waits: what takes time is a job of a worker ([`workers`]), a page of a
//! synchronisation is applied by the shards ([`copy`]), lease updates never pass through here ([`links`]).

pub mod bulk;
pub mod copy;
pub mod links;
pub mod workers;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crossbeam::channel::{Receiver, Sender, unbounded};

use super::engine::Engine;
use crate::allocate::Share;
use crate::config::tree::{Dhcp4, Feature};
use crate::control::backend::{Daemon, Ticket as ApiTicket};
use crate::control::command::{Answer as ApiAnswer, Arguments, Command};
use crate::control::http::{BasicAuth, HttpSettings};
use crate::control::listener::{HttpListenerSpec, ListenerSpec, Role};
use crate::control::log::Severity;
use crate::control::peer::PeerTarget;
use crate::control::tls;
use crate::exchange::serving::Serving;
use crate::ha::backlog::Delayed;
use crate::ha::command::lease::{UpdateForm, write_update4};
use crate::ha::command::outgoing::{self, Family};
use crate::ha::command::request::{HaCommand, HaRequest, is_listener_command};
use crate::ha::command::{Answer, HeartbeatAnswer, Verdict, verdict};
use crate::ha::config::{MultiThreading, Parsed, RelationshipConfig, parse};
use crate::ha::partner::{Hint, Partner};
use crate::ha::relationship::{Action, CommandToken, Event, Level, Message, Ticket};
use crate::ha::relationships::{Output, Relationships};
use crate::ha::service::ServiceRequest;
use crate::ha::states::{Mode, Role as PeerRole, State};
use crate::ha::sync::{SubnetFilter, Sync, SyncParams};
use crate::ha::unacked::Traffic;
use crate::ha::view::Scope;
use crate::ids::{Lsn, ShardId};
use crate::lease::request::LeaseReply;
use crate::log;
use crate::time::{Mono, Now};
use copy::{Copy, Wish};
use links::{Links, Update};
use workers::{Job, PeerWork, Report, Reporter, Tag, Updates};

const HA: &str = "kea-dhcp4.ha-hooks";

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
    if parsed.relationships.len() > 1 {
        return Err("high-availability: several relationships are not served yet, only one".to_owned());
    }
    Ok(Some(parsed))
}

/// Threads and listener in force, by the configuration of the server.
fn threading(tree: &Dhcp4, config: &RelationshipConfig, shard_count: usize) -> MultiThreading {
    let threads = if tree.multi_threading.enabled { u32::try_from(shard_count).unwrap_or(1) } else { 0 };
    config.multi_threading.resolve(threads)
}

/// The dedicated listener, when there is one.
///
/// # Errors
/// A certificate that cannot be used.
pub fn listener(tree: &Dhcp4) -> Result<Option<ListenerSpec>, String> {
    let Some(parsed) = configured(tree)? else { return Ok(None) };
    let config = &parsed.relationships[0];
    if !threading(tree, config, 1).dedicated_listener {
        return Ok(None);
    }
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
    Ok(Some(ListenerSpec::Http(HttpListenerSpec {
        address: own.url.address,
        role: Role::Dedicated { daemon: Daemon::Dhcp4, accepts },
        settings: HttpSettings { auth, headers: Vec::new() },
        tls,
    })))
}

fn tls_files(files: &crate::ha::config::TlsFiles) -> tls::TlsFiles {
    tls::TlsFiles {
        trust_anchor: PathBuf::from(&files.trust_anchor),
        cert_file: PathBuf::from(&files.cert_file),
        key_file: PathBuf::from(&files.key_file),
    }
}

/// The classes of the scopes, for a plan that is about to be served.
pub fn scope_classes(tree: &Dhcp4, serving: &mut Serving) {
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

/// One half of a pair.
pub struct Ha {
    config: RelationshipConfig,
    relationships: Relationships,
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
    number: u64,
}

/// What a server with HA starts with: made before the engine, finished after it.
pub struct Prepared {
    config: RelationshipConfig,
    /// For the engine.
    pub links: Arc<Links>,
    /// For the engine, too.
    pub share: Share,
    queues: Vec<Vec<Receiver<Update>>>,
}

/// Which half of the pools that both servers of a pair allocate from this one begins in.
fn share(config: &RelationshipConfig) -> Share {
    match (config.mode, config.own().role) {
        (Mode::LoadBalancing, PeerRole::Primary) => Share::Lower,
        (Mode::LoadBalancing, PeerRole::Secondary) => Share::Upper,
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
    wake_control: Arc<dyn Fn() + Send + std::marker::Sync>,
) -> Result<Option<Prepared>, String> {
    let Some(mut parsed) = configured(tree)? else { return Ok(None) };
    for warning in &parsed.warnings {
        log!(Severity::Warn, HA, HA_CONFIGURATION_WARNING, "{warning}");
    }
    let config = parsed.relationships.remove(0);
    let workers = usize::try_from(threading(tree, &config, shard_count).client_threads).unwrap_or(1);
    let (links, queues) = Links::new(&config, 0, shard_count, workers.clamp(1, 64), seed, wake_control);
    let share = share(&config);
    Ok(Some(Prepared { config, links, share, queues }))
}

impl Prepared {
    /// Starts the machine, and a thread for each connection to a peer.
    ///
    /// # Errors
    /// Certificates that cannot be used; no threads.
    pub fn start(self, now: Now) -> Result<Ha, String> {
        let (ha, work) = self.build(now);
        let config = &ha.config;
        let target = |peer: &crate::ha::config::PeerConfig| {
            let client = |files| tls::client_config(&tls_files(files), false);
            let tls = peer.tls.as_ref().map(client).transpose().map_err(|error| error.to_string())?;
            let credentials = peer.credentials.as_ref().map(|one| (one.user.clone(), one.password.clone()));
            Ok::<_, String>(PeerTarget { address: peer.url.address, credentials, tls })
        };
        for (position, peer) in config.peers.iter().enumerate() {
            if ha.links.peer(position).is_some() {
                target(peer)?;
            }
        }
        for work in work {
            let target = target(&config.peers[work.position])?;
            work.start(&target).map_err(|error| format!("cannot start a worker of HA: {error}"))?;
        }
        Ok(ha)
    }

    /// Starts the machine; what it wants to say to peers is for the caller to carry.
    #[must_use]
    pub fn build(self, now: Now) -> (Ha, Vec<PeerWork>) {
        let Self { config, links, queues, .. } = self;
        let (reports_tx, reports) = unbounded();
        let reporter = Reporter { reports: reports_tx, links: Arc::clone(&links) };
        let update_timeout = Duration::from_millis(config.timeouts().update_ms);
        let mut work = Vec::new();
        let mut jobs: Vec<Option<PeerJobs>> = (0..config.peers.len()).map(|_| None).collect();
        let mut heartbeat = None;
        for (place, queues) in queues.into_iter().enumerate() {
            let position = links.peers[place].position;
            for (number, queue) in queues.into_iter().enumerate() {
                let updates = Updates::new(place, &config.own().name, update_timeout, queue);
                let name = format!("ha-upd-{position}-{number}");
                work.push(PeerWork::updates(position, name, updates, reporter.clone()));
            }
            let mut commands = |name: String| {
                let (sender, receiver) = unbounded();
                work.push(PeerWork::commands(position, name, receiver, reporter.clone()));
                sender
            };
            jobs[position] = Some(PeerJobs {
                command: commands(format!("ha-command-{position}")),
                sync: commands(format!("ha-sync-{position}")),
            });
            if config.partner() == Some(position) {
                heartbeat = Some(commands("ha-heartbeat".to_owned()));
            }
        }
        let partners = config.peers.iter().map(|peer| Partner::new(peer.compatibility)).collect();
        let mut ha = Ha {
            relationships: Relationships::new(vec![config.clone()], now),
            lost: vec![0; config.peers.len()],
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
            number: 0,
        };
        ha.relationships.start(now);
        ha.note_partners();
        (ha, work)
    }
}

impl Ha {
    /// Whether the DHCP service is on.
    #[must_use]
    pub const fn service(&self) -> bool {
        self.relationships.service()
    }

    /// The state that the machine is in.
    #[must_use]
    pub fn state(&self) -> State {
        self.relationships.list()[0].state()
    }

    /// Whether the partner's change goes first when two of one address have crossed: the primary's does.
    #[must_use]
    pub fn partner_wins(&self) -> bool {
        self.config.own().role != PeerRole::Primary
    }

    /// Whether `tree` says of HA what this was started with.
    #[must_use]
    pub fn is_same(&self, parsed: Option<&Parsed>) -> bool {
        parsed.is_some_and(|parsed| parsed.relationships.first() == Some(&self.config))
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
                if let (HaCommand::Heartbeat, Some(partner)) = (&request.command, self.config.partner()) {
                    self.partners[partner].learn(Hint::NamedItself(request.server_name.is_some()));
                    self.note_partners();
                }
                self.relationships.command(now, CommandToken(ticket.0), request);
                None
            }
        }
    }

    /// A shard's answer to an order of the synchronisation.
    pub fn copied(&mut self, reply: &LeaseReply, shard: ShardId, lsn: Lsn) {
        if let Some(copy) = &mut self.copy {
            copy.put(reply, shard, lsn);
        }
    }

    fn event(&mut self, now: Now, event: Event) {
        self.relationships.handle(now, 0, event);
    }

    /// One turn.
    pub fn step(&mut self, now: Now, engine: &Engine) -> Done {
        let mut done = Done::default();
        self.take_delayed();
        let unsent = self.links.unsent.swap(0, Ordering::Relaxed);
        if unsent > 0 {
            self.event(now, Event::Unsent(unsent));
        }
        self.observe(now);
        let reports: Vec<Report> = self.reports.try_iter().collect();
        for report in reports {
            self.take_report(now, report);
        }
        if self.relationships.deadline().is_some_and(|at| at <= now.mono) {
            self.relationships.timer(now);
        }
        loop {
            self.step_copy(now, engine);
            self.step_flush(now);
            let mut moved = false;
            while let Some(output) = self.relationships.poll() {
                moved = true;
                match output {
                    Output::Answer { token, answer } => {
                        done.answers.push((ApiTicket(token.0), api_answer(answer)));
                    }
                    Output::Service(_) => done.service_changed = true,
                    Output::Of(_, action) => self.act(action, &mut done),
                }
            }
            if !moved {
                break;
            }
        }
        let remembers = self.relationships.list()[0].remembers_rejected();
        self.links.remembers.store(remembers, Ordering::Relaxed);
        self.mind_owed();
        self.tell_lost();
        done
    }

    /// A change that the partner did not answer may still be made there, later than it should: once the partner answers again it gets
    /// the change again. One that copies all leases needs nothing.
    fn mind_owed(&self) {
        let relationship = &self.relationships.list()[0];
        let Some(partner) = relationship.partner() else { return };
        match relationship.state() {
            State::CommunicationRecovery => {}
            State::LoadBalancing | State::HotStandby | State::PartnerInMaintenance => {
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
    fn take_delayed(&mut self) {
        let links = Arc::clone(&self.links);
        for Delayed { operation, lease } in links.delayed.try_iter() {
            let Some(relationship) = self.relationships.relationship_mut(0) else { return };
            if relationship.state() == State::CommunicationRecovery {
                relationship.queue_update(operation, lease);
            } else if let Some(partner) = relationship.partner() {
                links.send_unawaited(partner, Delayed { operation, lease });
            }
        }
    }

    fn observe(&mut self, now: Now) {
        let traffic = self.links.traffic(self.relationships.list()[0].epoch());
        if traffic != self.seen {
            self.seen = traffic;
            self.event(now, Event::Observed(traffic));
        }
    }

    fn take_report(&mut self, now: Now, report: Report) {
        match report {
            Report::Answered(Tag::Heartbeat(ticket), answer) => {
                let result = HeartbeatAnswer::parse(answer);
                if let (Ok(answer), Some(partner)) = (&result, self.config.partner()) {
                    self.partners[partner].learn(Hint::HeartbeatAnswer {
                        unsent: answer.unsent_update_count.is_some(),
                        scopes: answer.scopes.is_some(),
                    });
                    self.note_partners();
                }
                self.event(now, Event::Heartbeat { ticket, result });
            }
            Report::Answered(Tag::Reset(ticket), answer) => {
                self.event(now, Event::ResetAnswered { ticket, answer });
            }
            Report::Answered(Tag::Maintenance(ticket), answer) => {
                self.event(now, Event::MaintenanceAnswered { ticket, answer });
            }
            Report::Answered(Tag::Flush(ticket), answer) => {
                self.flushing = false;
                if self.flush == Some(ticket) && verdict(&answer) != Verdict::Success {
                    self.flush = None;
                    self.event(now, Event::FlushFinished { ticket, success: false });
                }
            }
            Report::Answered(Tag::Commands(position), answer) => {
                let names =
                    answer.ok().filter(crate::ha::command::PeerAnswer::is_success).and_then(|answer| {
                        let list = answer.arguments?;
                        let names =
                            list.as_array()?.iter().filter_map(|name| name.as_str().map(str::to_owned));
                        Some(names.collect::<Vec<String>>())
                    });
                self.learn_commands(position, names);
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
                    self.event(now, Event::Update { verdict, client });
                }
            }
        }
    }

    fn learn_commands(&mut self, position: usize, names: Option<Vec<String>>) {
        let known = names.as_ref().map(|names| names.iter().map(String::as_str));
        self.partners[position].learn_commands(known);
        self.note_partners();
        let (name, what) = (&self.config.peers[position].name, self.partners[position].describe());
        log!(Severity::Info, HA, HA_PEER_KNOWN, "in contact with {name}, which runs {what}");
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

    fn act(&mut self, action: Action, done: &mut Done) {
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
                let params = SyncParams::new(&self.config, &self.partners[source], max_period_s);
                let filter = SubnetFilter::All;
                let goes_first = self.relationships.list()[0].source_goes_first(source);
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
                    self.partners[partner].forget();
                    self.note_partners();
                    let body = outgoing::list_commands(Family::V4);
                    self.send(partner, self.command_job(Tag::Commands(partner), body));
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

    fn step_copy(&mut self, now: Now, engine: &Engine) {
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
                    self.event(now, Event::SyncFinished { ticket, result: result.map(|_| ()) });
                    return;
                }
            }
        }
    }

    /// Sends the backlog, one change after the other.
    fn step_flush(&mut self, now: Now) {
        let (Some(ticket), false) = (self.flush, self.flushing) else { return };
        let Some(relationship) = self.relationships.relationship_mut(0) else { return };
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
            self.event(now, Event::FlushFinished { ticket, success: true });
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
