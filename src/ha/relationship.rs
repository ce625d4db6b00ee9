//! The state machine of one relationship.
//!
//! Input is [`Relationship::handle`], output is [`Relationship::poll_action`] until it is empty, and [`Relationship::deadline`]
//! says when a [`Event::Timer`] is due at the latest. After an event the handler of the current state runs, and the
//! next one's if the state changes, until a handler stays. A state forced by a command runs one handler only.
//!
//! What takes time (heartbeat, synchronisation, flush, a command to the partner) is an action with a [`Ticket`]; its end comes back as
//! an event with the same ticket. An end that nobody waits for any more is ignored.

mod commands;
mod communication;
mod messages;
mod report;
mod transitions;

use std::collections::VecDeque;

use super::backlog::{Backlog, Delayed, Operation};
use super::command::request::HaCommand;
use super::command::{Answer, HeartbeatAnswer, PeerAnswer, PeerError, Verdict};
use super::config::RelationshipConfig;
use super::rejected::RejectedClients;
use super::states::{STATE_COUNT, State};
use super::unacked::{ClientFingerprint, Traffic};
use super::view::ScopeWord;
use crate::lease::Lease4Buf;
use crate::time::{Mono, Now};
use communication::Communication;
pub use messages::{Level, Message};

/// Names one running operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// Names a command whose answer may come later; the caller chooses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommandToken(pub u64);

/// What happens to a relationship.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The server runs. Once, before anything else.
    Start,
    /// Time has passed: at [`Relationship::deadline`], or at any other time.
    Timer,
    /// A heartbeat has ended.
    Heartbeat {
        /// Of [`Action::SendHeartbeat`].
        ticket: Ticket,
        /// What the partner said ([`HeartbeatAnswer::parse`]).
        result: Result<HeartbeatAnswer, String>,
    },
    /// The last awaited acknowledgement of lease updates by the partner, or its failure. Successes may be told once for many.
    Update {
        /// What the partner's answer means.
        verdict: Verdict,
        /// The client, when there is one.
        client: Option<ClientFingerprint>,
    },
    /// A synchronisation has ended.
    SyncFinished {
        /// Of [`Action::StartSync`].
        ticket: Ticket,
        /// Nothing, or why it failed.
        result: Result<(), String>,
    },
    /// The backlog has been sent ([`Relationship::pop_backlog`] gave nothing more), or a change of it failed.
    FlushFinished {
        /// Of [`Action::FlushBacklog`].
        ticket: Ticket,
        /// Whether every change was taken: a conflict is a failure here.
        success: bool,
    },
    /// The partner answered `ha-reset`, or did not.
    ResetAnswered {
        /// Of [`Action::SendReset`].
        ticket: Ticket,
        /// The answer.
        answer: Result<PeerAnswer, PeerError>,
    },
    /// The partner answered `ha-maintenance-notify`, or did not.
    MaintenanceAnswered {
        /// Of [`Action::SendMaintenanceNotify`].
        ticket: Ticket,
        /// The answer.
        answer: Result<PeerAnswer, PeerError>,
    },
    /// A command to this relationship.
    Command {
        /// Comes back in [`Action::Answer`].
        token: CommandToken,
        /// The command.
        command: HaCommand,
    },
    /// The DHCP service is on or off, by all origins.
    Service(bool),
    /// The service was kept off by the partner's origin, and now is not, for another reason than the partner's word.
    HoldLost,
    /// What the shards see of the partner's clients ([`super::unacked::UnackedCounts::sum`]); told before a timer or heartbeat.
    Observed(Traffic),
    /// So many client transactions changed leases and were not sent to the partner.
    Unsent(u64),
    /// In a copy the partner was given all of our leases that it lacked.
    Gave,
}

/// What a relationship wants done.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Send `ha-heartbeat` to the partner.
    SendHeartbeat(Ticket),
    /// This server's own origin wants the DHCP service on or off.
    LocalService(bool),
    /// Remove an origin that a partner named from those that keep the service off.
    ReleaseOrigin(u32),
    /// Show this word to the shards.
    Publish(ScopeWord),
    /// Copy leases ([`super::sync`]).
    StartSync {
        /// Comes back in [`Event::SyncFinished`].
        ticket: Ticket,
        /// The peer to copy from, by position.
        source: usize,
        /// `max-period` of `dhcp-disable`.
        max_period_s: Option<u64>,
    },
    /// Stop that synchronisation: nobody waits for its end any more; the source is to be enabled again.
    CancelSync(Ticket),
    /// Send what [`Relationship::pop_backlog`] gives, in order, one after the other, until it gives nothing.
    FlushBacklog(Ticket),
    /// Send `ha-reset` to the partner.
    SendReset(Ticket),
    /// Send `ha-maintenance-notify` to the partner.
    SendMaintenanceNotify {
        /// Comes back in [`Event::MaintenanceAnswered`].
        ticket: Ticket,
        /// `cancel`.
        cancel: bool,
        /// `state`.
        state: State,
    },
    /// The partner answers again: ask what it can do, send again what timed out.
    ContactRegained,
    /// The partner does not answer, or not as it must.
    ContactLost,
    /// Answer a command.
    Answer {
        /// Of [`Event::Command`].
        token: CommandToken,
        /// The answer.
        answer: Answer,
    },
    /// Say something in the log.
    Log(Message),
}

/// What the timer of heartbeats does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Heartbeat {
    Stopped,
    Due(Mono),
    InFlight(Asked),
}

/// A heartbeat in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Asked {
    ticket: Ticket,
    /// When, by the own wall clock.
    wall_s: u64,
    /// [`Relationship::lapses`] then.
    lapses: u32,
}

/// A synchronisation in flight, and for whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct RunningSync {
    ticket: Ticket,
    command: Option<CommandToken>,
}

/// In `partner-down` after a completion notice: the service is off until the pair has settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct SyncHold {
    since: Mono,
    /// Heartbeats answered meanwhile.
    answered: u8,
}

/// A question to the partner about maintenance in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct RunningMaintenance {
    ticket: Ticket,
    token: CommandToken,
    cancel: bool,
}

/// One relationship. Owned and driven by the control thread.
#[derive(Debug)]
pub struct Relationship {
    config: RelationshipConfig,
    partner: Option<usize>,
    state: State,
    previous: State,
    entered: bool,
    failover_forced: bool,
    paused: bool,
    paused_before: [bool; STATE_COUNT],
    scopes: u16,
    communication: Communication,
    rejected: RejectedClients,
    backlog: Backlog,
    resync_owed: bool,
    unsent: u64,
    /// Changes were not sent, or kept and then lost, and the partner has not copied our leases since.
    undelivered: bool,
    /// The partner has reset this server while both went on by themselves: it lost changes that it had kept for us, and we have not copied
    /// its leases since.
    was_reset: bool,
    /// We have started without a lease, and neither has copied the other's leases since.
    is_empty: bool,
    /// We have started with leases, some of which we may have given alone just before, and have not seen the partner begin or end a copy of
    /// them since: one that is ready may have made its copy earlier.
    has_former: bool,
    service: bool,
    heartbeat: Heartbeat,
    sync: Option<RunningSync>,
    flush: Option<Ticket>,
    reset: Option<Ticket>,
    maintenance: Option<RunningMaintenance>,
    sync_hold: Option<SyncHold>,
    /// The count of unsent updates when a partner's hold on the service ended otherwise than by the partner: what changed since
    /// is missing in the copy that it may still finish.
    copy_spoiled: Option<u64>,
    /// The count of unsent updates when this server began to serve alone, until the partner is seen to copy: a partner that is ready already
    /// has copied before that.
    alone_from: Option<u64>,
    /// How often `copy_spoiled` or `alone_from` came to hold (wrapping): the answer to what was asked before may be of a moment before.
    lapses: u32,
    epoch: u16,
    /// How often answers have begun to wait for the partner, or to be about its clients (wrapping).
    stretch: u8,
    /// For which moment of interruption the machine has run.
    interruption_seen: Option<Mono>,
    tickets: u64,
    actions: VecDeque<Action>,
    published: Option<ScopeWord>,
}

impl Relationship {
    /// A relationship that starts at `now`, in `waiting`. Start-up counts as contact.
    #[must_use]
    pub fn new(config: RelationshipConfig, now: Now) -> Self {
        let partner = config.partner();
        Self {
            partner,
            state: State::Waiting,
            previous: State::Waiting,
            entered: false,
            failover_forced: false,
            paused: false,
            paused_before: [false; STATE_COUNT],
            scopes: 0,
            communication: Communication::new(now),
            rejected: RejectedClients::new(config.max_rejected_lease_updates),
            backlog: Backlog::new(config.delayed_updates_limit),
            resync_owed: false,
            unsent: 0,
            undelivered: false,
            was_reset: false,
            is_empty: false,
            has_former: false,
            service: false,
            heartbeat: Heartbeat::Stopped,
            sync: None,
            flush: None,
            reset: None,
            maintenance: None,
            sync_hold: None,
            copy_spoiled: None,
            alone_from: None,
            lapses: 0,
            epoch: 0,
            stretch: 0,
            interruption_seen: None,
            tickets: 0,
            actions: VecDeque::new(),
            published: None,
            config,
        }
    }

    /// Takes an event. Its consequences are in [`Relationship::poll_action`].
    pub fn handle(&mut self, now: Now, event: Event) {
        match event {
            Event::Start => {
                self.note_entry();
                self.run(now);
            }
            Event::Timer => self.timer(now),
            Event::Heartbeat { ticket, result } => self.heartbeat_ended(now, ticket, result),
            Event::Update { verdict, client } => self.update_ended(now, verdict, client),
            Event::SyncFinished { ticket, result } => self.sync_ended(now, ticket, result),
            Event::FlushFinished { ticket, success } => self.flush_ended(now, ticket, success),
            Event::ResetAnswered { ticket, answer } => self.reset_ended(now, ticket, &answer),
            Event::MaintenanceAnswered { ticket, answer } => self.maintenance_ended(now, ticket, answer),
            Event::Command { token, command } => self.command(now, token, command),
            Event::Service(on) => self.service = on,
            Event::HoldLost => self.spoil_copy(),
            Event::Observed(traffic) => self.communication.traffic = traffic,
            Event::Unsent(count) => {
                self.count_unsent(count);
                // In the normal state this is something that nothing else brings to the partner.
                if count > 0 && self.state == self.config.mode.normal_state() {
                    self.run(now);
                }
            }
            Event::Gave => (self.undelivered, self.has_former) = (false, false),
        }
        self.publish(now);
    }

    /// Whether this server has started with leases. Without a single one, a partner that is ready may have copied them in a life before;
    /// with some, it may have copied them before the last of them were given.
    pub const fn started(&mut self, with_leases: bool) {
        (self.is_empty, self.has_former) = (!with_leases, with_leases);
    }

    /// The next thing to do; call until there is nothing.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When [`Event::Timer`] is due at the latest.
    #[must_use]
    pub fn deadline(&self) -> Option<Mono> {
        let heartbeat = match self.heartbeat {
            Heartbeat::Due(at) => Some(at),
            Heartbeat::Stopped | Heartbeat::InFlight(..) => None,
        };
        let interruption = self.interruption_at().filter(|&at| self.interruption_seen != Some(at));
        [heartbeat, interruption].into_iter().flatten().min()
    }

    /// Keeps a change for the partner, which does not answer (communication recovery). In every other state the change is of no use
    /// here and is left out.
    pub fn queue_update(&mut self, operation: Operation, lease: Lease4Buf) {
        if self.state == State::CommunicationRecovery && self.config.send_lease_updates {
            let was_overflown = self.backlog.was_overflown();
            if !self.backlog.push(operation, lease) && !was_overflown {
                self.log(Message::BacklogFull { limit: self.config.delayed_updates_limit });
            }
        }
    }

    /// The oldest change of the backlog, while it is being flushed.
    pub fn pop_backlog(&mut self) -> Option<Delayed> {
        self.flush.and_then(|_| self.backlog.pop())
    }

    /// The flush and the reset that are still wanted. What was begun before the state changed is not: sent late, a change of a backlog that
    /// was given up would go over what the partner has learned since.
    #[must_use]
    pub const fn wanted(&self) -> [Option<Ticket>; 2] {
        [self.flush, self.reset]
    }

    /// The configuration.
    #[must_use]
    pub const fn config(&self) -> &RelationshipConfig {
        &self.config
    }

    /// The state.
    #[must_use]
    pub const fn state(&self) -> State {
        self.state
    }

    /// What the partner last said it is in, [`State::Unavailable`] included; none before the first heartbeat has ended.
    #[must_use]
    pub const fn partner_state(&self) -> Option<State> {
        self.communication.partner_state
    }

    /// The position of the partner among the peers.
    #[must_use]
    pub const fn partner(&self) -> Option<usize> {
        self.partner
    }

    /// Whether, in a copy from `source`, its lease goes before one that is here with the same `cltt`. Who served while the other did not
    /// has told its clients last; of two that did the same the primary decides, so that both come to hold the same.
    #[must_use]
    pub fn source_goes_first(&self, source: usize) -> bool {
        let role = self.config.own().role;
        if self.partner != Some(source) {
            return role == super::states::Role::Backup;
        }
        let serves = self.state.behaviour().serves;
        let partner_serves = self.communication.partner_state.is_some_and(|state| state.behaviour().serves);
        if serves == partner_serves { role != super::states::Role::Primary } else { partner_serves }
    }

    /// Whether a partner that says it is ready has copied before this server went on alone, as far as is known.
    #[must_use]
    pub const fn partner_copied_before(&self) -> bool {
        self.has_former || self.alone_from.is_some() || self.copy_spoiled.is_some()
    }

    /// Whether the partner can be copying our leases, as far as is known: it says so, or has not been heard of for less than
    /// `max-response-delay`.
    #[must_use]
    pub fn partner_may_copy(&self, now: Now) -> bool {
        match self.communication.partner_state {
            None | Some(State::Syncing) => true,
            Some(State::Unavailable) => !self.is_interrupted(now),
            Some(_) => false,
        }
    }

    /// Whether the DHCP service is on, as far as this relationship knows.
    #[must_use]
    pub const fn service(&self) -> bool {
        self.service
    }

    /// Whether only `ha-continue` moves the machine.
    #[must_use]
    pub const fn is_paused(&self) -> bool {
        self.paused
    }

    /// Whether a synchronisation is running, the machine's own or one asked for.
    #[must_use]
    pub const fn is_syncing(&self) -> bool {
        self.sync.is_some()
    }

    /// Whether clients with rejected updates are remembered: only then must successes be told one by one.
    #[must_use]
    pub fn remembers_rejected(&self) -> bool {
        !self.rejected.is_empty()
    }

    /// The backlog.
    #[must_use]
    pub const fn backlog(&self) -> &Backlog {
        &self.backlog
    }

    /// The contact epoch of [`super::unacked`].
    #[must_use]
    pub const fn epoch(&self) -> u16 {
        self.epoch
    }

    fn ticket(&mut self) -> Ticket {
        self.tickets += 1;
        Ticket(self.tickets)
    }

    fn log(&mut self, message: Message) {
        self.actions.push_back(Action::Log(message));
    }

    fn answer(&mut self, token: CommandToken, answer: Answer) {
        self.actions.push_back(Action::Answer { token, answer });
    }

    /// When silence becomes an interruption: a millisecond past the delay.
    fn interruption_at(&self) -> Option<Mono> {
        self.partner?;
        let silence_ms = self.config.max_response_delay_ms.saturating_add(1);
        Some(self.communication.last_contact.plus_ms(silence_ms))
    }

    fn is_interrupted(&self, now: Now) -> bool {
        self.partner.is_some()
            && now.mono.ms_since(self.communication.last_contact) > self.config.max_response_delay_ms
    }

    fn timer(&mut self, now: Now) {
        if let Heartbeat::Due(at) = self.heartbeat
            && at <= now.mono
        {
            let ticket = self.ticket();
            self.heartbeat = Heartbeat::InFlight(Asked { ticket, wall_s: now.wall_s, lapses: self.lapses });
            self.actions.push_back(Action::SendHeartbeat(ticket));
        }
        // Whatever is in flight: silence is noticed when it has lasted long enough.
        if let Some(at) = self.interruption_at()
            && at <= now.mono
            && self.interruption_seen != Some(at)
        {
            self.interruption_seen = Some(at);
            let silence_ms = now.mono.ms_since(self.communication.last_contact);
            if self.state.behaviour().heartbeats && self.communication.partner_state.is_some() {
                let partner = self.partner_words();
                self.log(Message::CommunicationInterrupted { partner, silence_ms });
            }
            self.run(now);
        }
    }

    fn heartbeat_ended(&mut self, now: Now, ticket: Ticket, result: Result<HeartbeatAnswer, String>) {
        let Heartbeat::InFlight(asked) = self.heartbeat else { return };
        if asked.ticket != ticket {
            return;
        }
        self.heartbeat = Heartbeat::Stopped;
        let success = result.is_ok();
        match result {
            Ok(answer) => self.contact(now, asked, answer),
            Err(reason) => {
                if let Some(failures) = self.communication.failed(now, &reason) {
                    let partner = self.partner_words();
                    self.log(Message::HeartbeatFailed { partner, reason, failures });
                }
                self.partner_unavailable();
            }
        }
        if self.state == State::PartnerDown
            && let Some(hold) = &mut self.sync_hold
        {
            if success {
                hold.answered = hold.answered.saturating_add(1);
            } else {
                self.end_sync_hold();
            }
        }
        self.run(now);
        if self.state == State::PartnerDown
            && let Some(hold) = self.sync_hold
        {
            // The first answer after the notice may still be of a moment before it. A partner that is waiting at the second
            // begins anew; one that has not got on for so long may have stopped. Clients must wait for neither.
            let waiting = self.communication.partner_state == Some(State::Waiting) && hold.answered >= 2;
            if waiting || now.mono.ms_since(hold.since) > self.config.max_response_delay_ms {
                self.end_sync_hold();
            }
        }
    }

    /// Who the partner is, and where.
    fn partner_words(&self) -> String {
        let Some(partner) = self.partner else { return "nobody".to_owned() };
        let peer = &self.config.peers[partner];
        format!("{} ({})", peer.name, peer.url.address)
    }

    fn end_sync_hold(&mut self) {
        if self.sync_hold.take().is_some() {
            self.spoil_copy();
            self.actions.push_back(Action::LocalService(true));
        }
    }

    /// What changes from now on is missing in the copy that the partner makes or has made, also in one that a reset on its way began: its
    /// answer says nothing any more. What has changed since an earlier time is missing all the same.
    fn spoil_copy(&mut self) {
        self.copy_spoiled.get_or_insert(self.unsent);
        self.lapses = self.lapses.wrapping_add(1);
        if matches!(self.state, State::PartnerDown) {
            self.reset = None;
        }
    }

    /// What has changed until now is in the next copy with which the partner is ready.
    const fn partner_copies(&mut self) {
        (self.copy_spoiled, self.alone_from, self.has_former) = (None, None, false);
    }

    fn contact(&mut self, now: Now, asked: Asked, answer: HeartbeatAnswer) {
        let regained = matches!(self.communication.partner_state, None | Some(State::Unavailable));
        if self.is_interrupted(now) || self.communication.traffic != Traffic::default() {
            // What shards counted is void; they see it by the epoch.
            self.epoch = self.epoch.wrapping_add(1);
        }
        if answer.state == State::Waiting && asked.lapses == self.lapses {
            // It copies from the beginning. An answer that was on its way for long may be of before a copy that it has made since.
            self.partner_copies();
        }
        self.communication.contact(now, asked.wall_s, answer);
        let failures = self.communication.answered();
        if failures > 0 {
            let partner = self.partner_words();
            self.log(Message::HeartbeatsAnswered { partner, failures });
        }
        if regained {
            self.actions.push_back(Action::ContactRegained);
        }
    }

    fn partner_unavailable(&mut self) {
        if self.partner.is_none() {
            return;
        }
        if self.communication.partner_state != Some(State::Unavailable) {
            self.actions.push_back(Action::ContactLost);
        }
        self.communication.record(State::Unavailable, None);
    }

    fn update_ended(&mut self, now: Now, verdict: Verdict, client: Option<ClientFingerprint>) {
        match (verdict, client) {
            (Verdict::Success, Some(client)) => self.rejected.remove(client),
            (Verdict::Conflict, Some(client)) => self.rejected.add(now, client),
            (Verdict::Error, _) => self.partner_unavailable(),
            (Verdict::Success | Verdict::Conflict, None) => {}
        }
        self.run(now);
    }

    fn sync_ended(&mut self, now: Now, ticket: Ticket, result: Result<(), String>) {
        let Some(sync) = self.sync.take_if(|sync| sync.ticket == ticket) else { return };
        if let Err(reason) = &result {
            self.partner_unavailable();
            self.log(Message::SyncFailed { reason: reason.clone() });
        } else {
            self.log(Message::SyncComplete);
        }
        match sync.command {
            Some(token) => {
                let answer = match result {
                    Ok(()) => Answer::success("Lease database synchronization complete."),
                    Err(reason) => Answer::error(format!("Lease database synchronization failed: {reason}")),
                };
                self.answer(token, answer);
            }
            None => {
                if result.is_ok() && self.state == State::Syncing {
                    (self.was_reset, self.is_empty) = (false, false);
                    // A partner that serves alone copies from one that is ready only when its count differs from the last one that it
                    // heard, and it may have heard the last change while we were still copying.
                    if self.undelivered {
                        self.count_unsent(1);
                    }
                    self.transition(State::Ready);
                }
            }
        }
        self.run(now);
    }

    fn flush_ended(&mut self, now: Now, ticket: Ticket, success: bool) {
        if self.flush.take_if(|flush| *flush == ticket).is_none() {
            return;
        }
        if !success {
            // Changes may be lost between the two databases: from now on only a synchronisation helps.
            self.resync_owed = true;
            self.log(Message::BacklogFlushFailed);
        }
        self.run(now);
    }

    fn reset_ended(&mut self, now: Now, ticket: Ticket, answer: &Result<PeerAnswer, PeerError>) {
        if self.reset.take_if(|reset| *reset == ticket).is_none() {
            return;
        }
        match answer {
            Ok(answer) if answer.is_success() && self.state == State::CommunicationRecovery => {
                self.transition(State::Waiting);
                self.run(now);
            }
            // The partner copies again. One that does not know the command cannot be made to.
            Ok(answer) if answer.is_success() || self.state != State::CommunicationRecovery => {
                if !answer.is_success() {
                    self.log(Message::ResetRefused { reason: answer.text.clone() });
                }
                self.partner_copies();
                if self.state != State::PartnerDown {
                    self.undelivered = false;
                }
            }
            // Again at the next heartbeat: the synchronisation is still owed.
            Ok(answer) => self.log(Message::ResetFailed { reason: answer.text.clone() }),
            Err(error) => self.log(Message::ResetFailed { reason: error.to_string() }),
        }
    }

    /// Counts on; the sum skips 0, which says "just started".
    fn count_unsent(&mut self, count: u64) {
        if self.partner.is_some() && self.config.send_lease_updates {
            let (sum, wrapped) = self.unsent.overflowing_add(count);
            self.unsent = sum + u64::from(wrapped);
            self.undelivered |= count > 0;
        }
    }

    fn publish(&mut self, now: Now) {
        let mut word = self.word(now);
        if self
            .partner
            .is_some_and(|partner| self.published.unwrap_or(word).begins_stretch(word, bit(partner)))
        {
            self.stretch = self.stretch.wrapping_add(1);
            word = self.word(now);
        }
        if self.published != Some(word) {
            self.published = Some(word);
            self.actions.push_back(Action::Publish(word));
        }
    }
}

/// A peer's bit in a mask.
const fn bit(position: usize) -> u16 {
    1 << position
}
