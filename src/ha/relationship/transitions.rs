//! Handlers of the states: guards, then the table.

use super::{Action, Heartbeat, Message, Relationship, RunningSync, bit};
use crate::ha::config::Pause;
use crate::ha::states::{Mode, Role, Scopes, State};
use crate::time::Now;

/// More handlers than this never run in one go: no chain of the table is as long.
const STEPS_MAX: usize = 16;

/// After a completion notice the next heartbeat is sent so soon: clients wait for its answer.
const HOLD_HEARTBEAT_MS: u64 = 20;

/// Why a handler runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trigger {
    /// Anything that may move the machine.
    Ordinary,
    /// The partner cancelled maintenance: this step stays.
    MaintenanceCancelled,
}

impl Relationship {
    /// Runs handlers until one stays.
    pub(super) fn run(&mut self, now: Now) {
        for _ in 0..STEPS_MAX {
            let Some(next) = self.step(now, Trigger::Ordinary) else { return };
            self.transition(next);
        }
    }

    /// After a state was forced: one handler runs. Where it leads is entered at the next event.
    pub(super) fn run_once(&mut self, now: Now, trigger: Trigger) {
        if let Some(next) = self.step(now, trigger) {
            self.transition(next);
            // No heartbeat comes there, so that there is no next event.
            if matches!(next, State::Backup | State::PassiveBackup) {
                self.run(now);
            }
        }
    }

    /// Changes the state. What the new one does on entry is done when its handler runs.
    pub(super) fn transition(&mut self, next: State) {
        let old = self.state;
        self.previous = old;
        self.state = next;
        self.entered = false;
        self.failover_forced = false;
        if old == next {
            return;
        }
        self.log(Message::StateTransition { from: old, to: next, partner: self.communication.partner_state });
        if old == State::CommunicationRecovery {
            self.undelivered |= !self.backlog.is_empty() || self.backlog.was_overflown() || self.resync_owed;
            self.backlog.clear();
            self.resync_owed = false;
            self.flush = None;
        }
        if next == self.config.mode.normal_state() {
            self.undelivered = false;
            (self.was_reset, self.is_empty, self.has_former) = (false, false, false);
        }
        self.reset = None;
        self.communication.forget_news();
        self.copy_spoiled = None;
        // A reset that comes to the same state again has not made anything known.
        let missing = u64::from(self.undelivered);
        self.alone_from = (next == State::PartnerDown).then_some(self.unsent.wrapping_sub(missing));
        self.lapses = self.lapses.wrapping_add(u32::from(next == State::PartnerDown));
        if old == State::Syncing
            && let Some(sync) = self.sync.take_if(|sync| sync.command.is_none())
        {
            self.actions.push_back(Action::CancelSync(sync.ticket));
        }
        self.sync_hold = None;
        self.note_entry();
    }

    /// Pauses, if the state that begins is configured so.
    pub(super) fn note_entry(&mut self) {
        if self.paused {
            return;
        }
        let before = &mut self.paused_before[self.state.index()];
        let pause = match self.config.pauses[self.state.index()] {
            Pause::Never => false,
            Pause::Once => !std::mem::replace(before, true),
            Pause::Always => true,
        };
        if pause {
            self.paused = true;
            self.log(Message::Paused { state: self.state });
        }
    }

    /// What the state does when its handler runs for the first time.
    pub(super) fn enter(&mut self) {
        self.entered = true;
        let behaviour = self.state.behaviour();
        if behaviour.clears_rejected {
            self.rejected.clear();
        }
        self.scopes = match behaviour.scopes {
            Scopes::None => 0,
            Scopes::Default => self.default_scopes(),
            Scopes::Failover => self.failover_scopes(),
            Scopes::FailoverIfAutomatic if self.failover_forced || self.config.own().auto_failover => {
                self.failover_scopes()
            }
            Scopes::FailoverIfAutomatic => self.default_scopes(),
        };
        if !behaviour.serves {
            // Off at once, whoever else has a say; on only when all origins agree.
            self.service = false;
        }
        self.actions.push_back(Action::LocalService(behaviour.serves));
    }

    fn default_scopes(&self) -> u16 {
        match self.config.own().role {
            Role::Primary | Role::Secondary => bit(self.config.this),
            Role::Standby | Role::Backup => 0,
        }
    }

    fn failover_scopes(&self) -> u16 {
        [Role::Primary, Role::Secondary]
            .into_iter()
            .filter_map(|role| self.config.with_role(role))
            .map(bit)
            .fold(0, |scopes, scope| scopes | scope)
    }

    fn arm_heartbeat(&mut self, now: Now) {
        let wanted = self.partner.is_some()
            && self.config.heartbeat_delay_ms > 0
            && self.state.behaviour().heartbeats
            && !self.is_copying();
        if wanted && self.heartbeat == Heartbeat::Stopped {
            // Twice as long after every answer that does not end the hold.
            let soon_ms = self.sync_hold.map(|hold| HOLD_HEARTBEAT_MS << hold.answered.min(16));
            let delay_ms = self.config.heartbeat_delay_ms.min(soon_ms.unwrap_or(u64::MAX));
            self.heartbeat = Heartbeat::Due(now.mono.plus_ms(delay_ms));
        }
    }

    /// The next heartbeat goes out as soon as [`Relationship::arm_heartbeat`] allows.
    pub(super) fn hasten_heartbeat(&mut self, now: Now) {
        if let Heartbeat::Due(_) = self.heartbeat {
            self.heartbeat = Heartbeat::Stopped;
            self.arm_heartbeat(now);
        }
    }

    /// Whether the synchronisation of the state `syncing` is running.
    fn is_copying(&self) -> bool {
        self.state == State::Syncing && self.sync.is_some()
    }

    /// The handler of the current state: where to go, or nothing to stay.
    fn step(&mut self, now: Now, trigger: Trigger) -> Option<State> {
        if !self.entered {
            self.enter();
        }
        self.arm_heartbeat(now);
        match self.state {
            State::Backup | State::PassiveBackup | State::Terminated | State::Unavailable => {
                self.heartbeat = Heartbeat::Stopped;
                return None;
            }
            State::InMaintenance => return None,
            State::PartnerInMaintenance => {
                return if self.paused {
                    None
                } else if self.must_terminate(now) {
                    Some(State::Terminated)
                } else {
                    (self.communication.partner_state == Some(State::Unavailable))
                        .then_some(State::PartnerDown)
                };
            }
            // Blocked until the copy has ended.
            State::Syncing if self.sync.is_some() => return None,
            _ => {}
        }
        if self.paused || trigger == Trigger::MaintenanceCancelled {
            return None;
        }
        if self.state == State::Waiting {
            if self.config.own().role == Role::Backup {
                return Some(State::Backup);
            }
            if self.config.mode == Mode::PassiveBackup {
                return Some(State::PassiveBackup);
            }
        }
        if self.must_terminate(now) {
            return Some(State::Terminated);
        }
        if self.partner_is_impossible() {
            if self.state == State::Waiting {
                return None;
            }
            self.log(Message::InvalidPartnerState {
                own: self.state,
                state: self.communication.partner_state,
            });
            return Some(State::Waiting);
        }
        self.decide(now)
    }

    fn must_terminate(&mut self, now: Now) -> bool {
        if let Some(skew_s) = self.communication.skew_to_warn(now) {
            self.log(Message::HighClockSkew { skew_s });
        }
        if self.communication.skew_terminates() {
            self.log(Message::ClockSkewTerminates { skew_s: self.communication.skew_s.unwrap_or(0) });
            return true;
        }
        if self.rejected.reached(now) {
            let clients = self.rejected.count(now);
            self.log(Message::RejectsTerminate { clients });
            return true;
        }
        false
    }

    /// The partner is in a state that its mode, which is ours, does not know.
    fn partner_is_impossible(&self) -> bool {
        match self.communication.partner_state {
            Some(State::CommunicationRecovery | State::LoadBalancing) => {
                self.config.mode != Mode::LoadBalancing
            }
            Some(State::HotStandby) => self.config.mode != Mode::HotStandby,
            _ => false,
        }
    }

    /// The partner is unavailable, and has been silent long enough to take its clients over.
    fn partner_is_down(&self, now: Now) -> bool {
        let config = &self.config;
        let traffic_test =
            self.service && (config.mode == Mode::LoadBalancing || config.own().role == Role::Standby);
        let failure_detected = config.max_unacked_clients == 0
            || self.communication.traffic.unacked_clients > u64::from(config.max_unacked_clients);
        self.is_interrupted(now) && (!traffic_test || failure_detected)
    }

    /// The table: own state by partner state.
    fn decide(&mut self, now: Now) -> Option<State> {
        use State::{
            CommunicationRecovery, HotStandby, InMaintenance, LoadBalancing, PartnerDown,
            PartnerInMaintenance, Ready, Syncing, Terminated, Unavailable, Waiting,
        };
        let partner = self.communication.partner_state;
        if self.state != PartnerDown && partner == Some(Unavailable) && self.partner_is_down(now) {
            return Some(PartnerDown);
        }
        let normal = self.config.mode.normal_state();
        let is_primary = self.config.own().role == Role::Primary;
        let Some(partner) = partner else {
            let lost = self.state == CommunicationRecovery && !self.is_interrupted(now);
            return lost.then_some(Waiting);
        };
        match (self.state, partner) {
            (
                Waiting,
                CommunicationRecovery
                | HotStandby
                | LoadBalancing
                | InMaintenance
                | PartnerDown
                | PartnerInMaintenance
                | Ready,
            ) => Some(self.copy_or_ready()),
            (Waiting, Waiting) if is_primary => Some(self.copy_or_ready()),
            (Waiting, Terminated) if self.communication.is_terminated_for_long(now) => Some(Terminated),

            (Syncing, Unavailable) => None,
            (
                Syncing | Ready | LoadBalancing | HotStandby | CommunicationRecovery | PartnerDown,
                Terminated,
            ) => Some(Terminated),
            (Syncing, _) => {
                self.start_sync();
                None
            }

            (Ready, CommunicationRecovery | HotStandby | LoadBalancing) => Some(normal),
            (Ready, Ready) if is_primary => Some(normal),

            (Ready | LoadBalancing | HotStandby | CommunicationRecovery, InMaintenance) => {
                Some(PartnerInMaintenance)
            }
            (Ready | LoadBalancing | HotStandby | CommunicationRecovery, PartnerInMaintenance) => {
                Some(InMaintenance)
            }
            (LoadBalancing | HotStandby | CommunicationRecovery, PartnerDown) => Some(Waiting),
            (LoadBalancing, Unavailable) if self.config.delayed_updates_limit > 0 => {
                Some(CommunicationRecovery)
            }

            // A change was counted too late: it is not in the copy after which the two went on.
            (LoadBalancing, LoadBalancing) | (HotStandby, HotStandby) if self.undelivered => {
                self.send_reset();
                None
            }

            (CommunicationRecovery, Unavailable) => None,
            (CommunicationRecovery, CommunicationRecovery | LoadBalancing) => self.flush(now),
            (CommunicationRecovery, Ready | Syncing | Waiting) => {
                let lost = self.backlog.was_overflown() || self.resync_owed || self.undelivered;
                (lost && !self.is_interrupted(now)).then_some(Waiting)
            }
            (CommunicationRecovery, _) => (!self.is_interrupted(now)).then_some(Waiting),

            (PartnerDown, CommunicationRecovery | PartnerDown | PartnerInMaintenance) => Some(Waiting),
            (PartnerDown, Ready) if self.partner_lacks_changes() => {
                self.send_reset();
                None
            }
            (PartnerDown, Ready) => {
                let lacks = self.was_reset || self.is_empty || self.communication.has_new_unsent();
                Some(if lacks { Waiting } else { normal })
            }
            _ => None,
        }
    }

    /// What changed here is missing in the copy with which the partner is ready.
    fn partner_lacks_changes(&self) -> bool {
        let mut since = [self.copy_spoiled, self.alone_from].into_iter().flatten();
        self.has_former || since.any(|unsent| unsent != self.unsent)
    }

    const fn copy_or_ready(&self) -> State {
        if self.config.sync_leases { State::Syncing } else { State::Ready }
    }

    /// Begins the copy of the state `syncing`. Heartbeats rest meanwhile.
    fn start_sync(&mut self) {
        let Some(source) = self.partner else { return };
        if let Heartbeat::Due(_) = self.heartbeat {
            self.heartbeat = Heartbeat::Stopped;
        }
        let ticket = self.ticket();
        self.sync = Some(RunningSync { ticket, command: None });
        self.log(Message::SyncStart { source: self.config.peers[source].name.clone() });
        self.actions.push_back(Action::StartSync {
            ticket,
            source,
            max_period_s: Some(self.config.sync_max_period_s()),
        });
    }

    fn send_reset(&mut self) {
        if self.reset.is_none() {
            let ticket = self.ticket();
            self.reset = Some(ticket);
            self.log(Message::PartnerLacksChanges);
            self.actions.push_back(Action::SendReset(ticket));
        }
    }

    /// The partner answers again: send what was kept, or make it copy everything.
    fn flush(&mut self, now: Now) -> Option<State> {
        if self.is_interrupted(now) || self.flush.is_some() || self.reset.is_some() {
            return None;
        }
        if self.backlog.was_overflown() || self.resync_owed || self.undelivered {
            self.resync_owed = true;
            self.send_reset();
            return None;
        }
        if self.backlog.is_empty() {
            return Some(State::LoadBalancing);
        }
        let ticket = self.ticket();
        self.flush = Some(ticket);
        self.log(Message::BacklogFlush { leases: self.backlog.len() });
        self.actions.push_back(Action::FlushBacklog(ticket));
        None
    }
}
