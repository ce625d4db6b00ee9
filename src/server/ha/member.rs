//! One half of a pair: what belongs to one relationship, between its machine, its workers and the shards.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crossbeam::channel::{Receiver, Sender};

use super::copy::{Copy, Wish};
use super::links::Links;
use super::workers::{Job, Report, Tag};
use super::{Done, HA, api_answer};
use crate::config::plan::Subnet;
use crate::control::backend::Ticket as ApiTicket;
use crate::control::log::Severity;
use crate::ha::backlog::{Delay, Delayed};
use crate::ha::command::bulk::{BulkWriter, bulk_verdicts};
use crate::ha::command::lease::{UpdateForm, write_update4};
use crate::ha::command::outgoing::{self, Family};
use crate::ha::command::{HeartbeatAnswer, PeerAnswer, Verdict, verdict};
use crate::ha::config::RelationshipConfig;
use crate::ha::partner::{Hint, Partner, Said};
use crate::ha::posts::PostMark;
use crate::ha::relationship::{Action, Event, Level, Message, Relationship, Ticket};
use crate::ha::relationships::Relationships;
use crate::ha::settings::{SETTINGS_COMMAND, Settings};
use crate::ha::states::{Role, State};
use crate::ha::sync::{SubnetFilter, SyncParams};
use crate::ha::unacked::Traffic;
use crate::server::engine::Engine;
use crate::time::Now;
use crate::{log, log_limited};

/// Differences between two configurations that the log names; of the others it says how many there are.
const DIFFERENCES_TOLD_MAX: usize = 8;

/// The workers of one peer, as the control thread uses them.
pub(super) struct PeerJobs {
    pub(super) command: Sender<Job>,
    pub(super) sync: Sender<Job>,
}

/// One half of a pair: what belongs to one relationship.
pub(super) struct Member {
    /// Its number.
    pub(super) index: usize,
    /// Whether there is no other.
    pub(super) is_alone: bool,
    pub(super) config: RelationshipConfig,
    pub(super) links: Arc<Links>,
    pub(super) partners: Vec<Partner>,
    pub(super) jobs: Vec<Option<PeerJobs>>,
    pub(super) heartbeat: Option<Sender<Job>>,
    pub(super) reports: Receiver<Report>,
    pub(super) copy: Option<Copy>,
    /// The source's commands until here tell of nothing newer than what was copied from it, or will be.
    pub(super) copied: Option<PostMark>,
    /// Whether the partner copies the leases of this server: it has begun, and not said since that it does something else.
    pub(super) is_copied: bool,
    /// By peer, whether it is being asked what it can do.
    pub(super) is_asking: Vec<bool>,
    pub(super) flush: Option<Ticket>,
    pub(super) flushing: bool,
    /// The number of the bulk command that carries the change of the backlog that is sent.
    pub(super) flush_number: Option<u64>,
    pub(super) seen: Traffic,
    pub(super) lost: Vec<u64>,
    /// The number of its last order to a shard.
    pub(super) number: u64,
    /// What was said last of what each peer runs.
    pub(super) known: Vec<String>,
    /// The state that the partner was last heard to be in.
    pub(super) heard: Option<State>,
    /// What was said last of where the partner's configuration differs.
    pub(super) told: Option<Vec<String>>,
}

impl Member {
    fn event(&self, relationships: &mut Relationships, now: Now, event: Event) {
        relationships.handle(now, self.index, event);
    }

    /// The partner has sent a heartbeat, with its name or without.
    pub(super) fn heard_heartbeat(&mut self, named: bool) {
        if let Some(partner) = self.config.partner() {
            self.partners[partner].learn(Hint::NamedItself(named));
            self.note_partners();
        }
    }

    /// What shards and workers have to say.
    pub(super) fn take_in(&mut self, relationships: &mut Relationships, engine: &Engine, now: Now) {
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
    pub(super) fn mind_owed(&self, relationship: &Relationship) {
        let Some(partner) = relationship.partner() else { return };
        match relationship.state() {
            State::CommunicationRecovery => {}
            state if hears_of_changes(state) => {
                self.links.forget_kept();
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
            state => {
                self.links.forget_owed(state == State::PartnerDown && relationship.partner_copied_before())
            }
        }
    }

    /// Changes for the backlog. One that comes after the backlog was sent is sent by itself; a partner that has to copy all leases needs none.
    fn take_delayed(&self, relationships: &mut Relationships) {
        let count_unsent = self.links.scope.read().parts().count_unsent;
        for delayed in self.links.delayed.try_iter() {
            let Some(relationship) = relationships.relationship_mut(self.index) else { return };
            let state = relationship.state();
            if state == State::CommunicationRecovery {
                relationship.queue_update(delayed.operation, delayed.lease);
            } else if let Some(partner) = relationship.partner().filter(|_| hears_of_changes(state)) {
                self.links.send_delayed(partner, delayed);
            } else if count_unsent {
                self.links.unsent.fetch_add(1, Ordering::Relaxed);
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
                    let is_anew = answer.state == State::Waiting
                        && before.is_some_and(|before| before != State::Waiting);
                    if is_anew || self.partners[partner].is_unasked() && !self.is_asking[partner] {
                        self.ask_commands(partner);
                    }
                    self.is_copied &= answer.state == State::Syncing;
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
                let outcome = match (self.flush_number.take(), relationships.list()[self.index].partner()) {
                    (Some(number), Some(partner)) => {
                        if let Some(peer) = self.links.peer(partner) {
                            peer.posts.lock().end(number);
                        }
                        bulk_verdicts(1, &answer).first().copied()
                    }
                    _ => Some(verdict(&answer)),
                };
                if self.flush == Some(ticket) && outcome != Some(Verdict::Success) {
                    self.flush = None;
                    self.event(relationships, now, Event::FlushFinished { ticket, success: false });
                }
            }
            Report::Answered(Tag::Commands(position), answer) => {
                self.is_asking[position] = false;
                let names = match Said::read(answer) {
                    Said::Commands(names) => Some(names),
                    Said::Nothing => None,
                    Said::Unknown => return,
                };
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
                    self.copied = copy.answered(answer).or(self.copied);
                }
            }
            Report::Page(ticket, page) => {
                if let Some(copy) = self.copy.as_mut().filter(|copy| copy.ticket == ticket) {
                    self.copied = page.as_ref().ok().and_then(|(page, _)| page.mark()).or(self.copied);
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
                    // Under load every client repeats its query against a dead partner: one line says it as well as hundreds.
                    log_limited!(
                        Severity::Warn,
                        HA,
                        HA_LEASE_UPDATE_FAILED,
                        "lease update to {name} failed: {text}"
                    );
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
            self.send(position, self.question(Tag::Settings(position), body));
        }
    }

    /// What this server says of the relationship.
    pub(super) fn settings(&self, engine: &Engine) -> Settings {
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
        self.is_asking[position] = true;
        self.send(position, self.question(Tag::Commands(position), body));
    }

    /// What update workers must know of the peers' programs.
    pub(super) fn note_partners(&self) {
        for peer in &self.links.peers {
            let partner = &self.partners[peer.position];
            peer.bulk.store(partner.takes_bulk(), Ordering::Relaxed);
            peer.released.store(partner.takes_released(), Ordering::Relaxed);
        }
    }

    /// Changes that a peer did not get are said once per outage.
    pub(super) fn tell_lost(&mut self) {
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

    /// A question to a peer that has just been heard of. The backlog waits behind it, so that it may take no longer than an update.
    fn question(&self, tag: Tag, body: Vec<u8>) -> Job {
        Job { tag, body, timeout: Duration::from_millis(self.config.timeouts().update_ms) }
    }

    fn command_job(&self, tag: Tag, body: Vec<u8>) -> Job {
        Job { tag, body, timeout: Duration::from_millis(self.config.timeouts().command_ms) }
    }

    pub(super) fn act(
        &mut self,
        relationships: &Relationships,
        engine: &Engine,
        now: Now,
        action: Action,
        done: &mut Done,
    ) {
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
                params.gives =
                    self.config.partner() == Some(source) && relationship.state() == State::Syncing;
                let filter = self.filter(engine);
                let goes_first = relationship.source_goes_first(source);
                let is_primary = self.config.own().role == Role::Primary;
                self.copy =
                    Some(Copy::new(ticket, source, params, filter, goes_first, is_primary, now.wall_s));
            }
            Action::CancelSync(ticket) => {
                if let Some(copy) = self.copy.as_mut().filter(|copy| copy.ticket == ticket) {
                    copy.cancel();
                }
            }
            Action::FlushBacklog(ticket) => self.flush = Some(ticket),
            Action::SendReset(ticket) => {
                if let Some(partner) = self.config.partner() {
                    self.links.want(relationships.list()[self.index].wanted());
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

    pub(super) fn step_copy(&mut self, relationships: &mut Relationships, now: Now, engine: &Engine) {
        let Some(copy) = &mut self.copy else { return };
        let (ticket, source) = (copy.ticket, copy.source);
        copy.is_from_ours = self.partners[source].takes_bulk();
        copy.is_mutual = self.is_copied && self.config.partner() == Some(source);
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
                Wish::Gave(taken, refused) => {
                    if refused == 0 {
                        self.event(relationships, now, Event::Gave);
                    }
                    if (taken, refused) == (0, 0) {
                        continue;
                    }
                    let name = &self.config.peers[source].name;
                    let severity = if refused > 0 { Severity::Warn } else { Severity::Info };
                    log!(
                        severity,
                        HA,
                        HA_SYNC_LEASES_GIVEN,
                        "{name} lacked {taken} lease(s) of this server and has them now; {refused} it did not take"
                    );
                }
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
    pub(super) fn step_flush(&mut self, relationships: &mut Relationships, now: Now) {
        let (Some(ticket), false) = (self.flush, self.flushing) else { return };
        let Some(relationship) = relationships.relationship_mut(self.index) else { return };
        let Some(partner) = relationship.partner() else { return };
        // What the partner has not answered yet it may make after the backlog, over something newer. What was given up it makes no more, or
        // hears of again.
        if !self.links.is_settled(partner) {
            return;
        }
        let mut next = relationship.pop_backlog();
        // The partner may have brought what it gave meanwhile.
        while next.as_ref().is_some_and(|change| self.links.is_overtaken(change.lease.view().address)) {
            next = relationship.pop_backlog();
        }
        if let Some(Delayed { operation, lease }) = next {
            let mut body = Vec::new();
            match self.links.peer(partner).filter(|_| self.partners[partner].takes_bulk()) {
                Some(peer) => {
                    let post = peer.posts.lock().begin();
                    self.flush_number = Some(post.number);
                    let mut writer = BulkWriter::new(&self.config.own().name);
                    writer.push(operation, &lease.view());
                    writer.mark(Some(Delay::Told));
                    body.extend_from_slice(writer.finish(Some(post)));
                }
                None => {
                    let form = UpdateForm {
                        released_as_update: self.partners[partner].takes_released(),
                        expire_32_bits: false,
                    };
                    write_update4(&mut body, operation, &lease.view(), form);
                }
            }
            let timeout = Duration::from_millis(self.config.timeouts().update_ms);
            self.flushing = true;
            self.links.want(relationship.wanted());
            self.send(partner, Job { tag: Tag::Flush(ticket), body, timeout });
        } else {
            self.flush = None;
            self.event(relationships, now, Event::FlushFinished { ticket, success: true });
        }
    }
}

/// Whether the partner of a server in this state is to have every change that it made before. In maintenance too: the partner serves its clients
/// then, and no copy need follow.
const fn hears_of_changes(state: State) -> bool {
    use State::{HotStandby, InMaintenance, LoadBalancing, PartnerInMaintenance};
    matches!(state, LoadBalancing | HotStandby | PartnerInMaintenance | InMaintenance)
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
