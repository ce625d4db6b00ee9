//! Commands to a relationship, and its own to the partner about maintenance.

use serde_json::json;

use super::transitions::Trigger;
use super::{
    Action, Answer, CommandToken, HaCommand, Message, PeerAnswer, PeerError, Relationship,
    RunningMaintenance, RunningSync, State, SyncHold, Ticket, bit,
};
use crate::ha::command::{RESULT_ERROR, RESULT_MAINTENANCE_NOT_ALLOWED};
use crate::ha::states::Role;
use crate::time::Now;

impl Relationship {
    pub(super) fn command(&mut self, now: Now, token: CommandToken, command: HaCommand) {
        let answer = match command {
            HaCommand::Heartbeat => self.heartbeat_answer(now).to_answer(),
            HaCommand::Sync { source, max_period_s } => {
                return self.sync_command(token, &source, max_period_s);
            }
            HaCommand::Scopes(scopes) => self.scopes_command(&scopes),
            HaCommand::Continue => self.continue_command(now),
            HaCommand::Reset => self.reset_command(now),
            HaCommand::MaintenanceStart => return self.maintenance_start(token),
            HaCommand::MaintenanceCancel => return self.maintenance_cancel(token),
            HaCommand::MaintenanceNotify { cancel: false, .. } => self.maintenance_began(now),
            HaCommand::MaintenanceNotify { cancel: true, state } => self.maintenance_cancelled(now, state),
            HaCommand::SyncCompleteNotify { origin } => self.sync_completed(now, origin),
        };
        self.answer(token, answer);
    }

    fn sync_command(&mut self, token: CommandToken, name: &str, max_period_s: Option<u64>) {
        let source = match self.config.peer(name) {
            None => return self.answer(token, Answer::error(format!("no peer is called '{name}'"))),
            Some(source) if source == self.config.this => {
                return self.answer(token, Answer::error("this server cannot copy leases from itself"));
            }
            Some(source) => source,
        };
        if self.sync.is_some() {
            return self.answer(token, Answer::error("leases are being copied already"));
        }
        let ticket = self.ticket();
        self.sync = Some(RunningSync { ticket, command: Some(token) });
        self.log(Message::SyncStart { source: name.to_owned() });
        self.actions.push_back(Action::StartSync { ticket, source, max_period_s });
    }

    fn scopes_command(&mut self, names: &[String]) -> Answer {
        let mut scopes = 0;
        for name in names {
            // Both guides show the class instead of the scope; a peer of just that name goes first.
            let bare =
                || ["HA_", "ha_"].into_iter().find_map(|prefix| self.config.peer(name.strip_prefix(prefix)?));
            match self.config.peer(name).or_else(bare) {
                Some(position) => scopes |= bit(position),
                None => {
                    return Answer::error(format!(
                        "invalid server name specified '{name}' while enabling/disabling HA scopes"
                    ));
                }
            }
        }
        self.scopes = scopes;
        Answer::success("New HA scopes configured.")
    }

    fn continue_command(&mut self, now: Now) -> Answer {
        if !std::mem::replace(&mut self.paused, false) {
            return Answer::success("HA state machine is not paused.");
        }
        self.log(Message::Continued);
        // Without heartbeats nothing else would wake the machine.
        if self.partner.is_none() || self.config.heartbeat_delay_ms == 0 {
            self.run(now);
        }
        Answer::success("HA state machine continues.")
    }

    fn reset_command(&mut self, now: Now) -> Answer {
        if self.state == State::Waiting {
            return Answer::success("HA state machine already in WAITING state.");
        }
        if self.state == State::Terminated {
            // Nothing was measured since the pair ended: what ended it then must not end it again unseen.
            self.communication.forget_measurements();
        }
        // A partner whose backlog has overflown does this. It may be seen to be ready before it was ever heard, if it is quick.
        self.was_reset |= matches!(self.state, State::CommunicationRecovery | State::LoadBalancing);
        self.transition(State::Waiting);
        self.run_once(now, Trigger::Ordinary);
        Answer::success("HA state machine reset.")
    }

    /// The partner's administrator wants to shut this server down.
    fn maintenance_began(&mut self, now: Now) -> Answer {
        // A backup that is paused before it gets to `backup` serves nobody either.
        let forbidden = matches!(self.state, State::Backup | State::PartnerInMaintenance | State::Terminated);
        if forbidden || self.config.own().role == Role::Backup {
            return Answer {
                result: RESULT_MAINTENANCE_NOT_ALLOWED,
                text: format!(
                    "Unable to transition the server from the {} to in-maintenance state.",
                    self.state
                ),
                arguments: None,
            };
        }
        self.transition(State::InMaintenance);
        self.run_once(now, Trigger::Ordinary);
        Answer::success("Server is in-maintenance state.")
    }

    fn maintenance_cancelled(&mut self, now: Now, partner: State) -> Answer {
        if self.state != State::InMaintenance {
            return Answer::error(format!(
                "Unable to cancel the maintenance for the server not in the in-maintenance state: it is in {}.",
                self.state
            ));
        }
        if partner == State::Unavailable {
            self.partner_unavailable();
        } else {
            self.communication.record(partner, Some(now));
        }
        self.transition(self.before(State::InMaintenance));
        self.run_once(now, Trigger::MaintenanceCancelled);
        Answer::success("Server maintenance canceled.").with(json!({ "state": self.state.name() }))
    }

    /// Where maintenance returns to.
    fn before(&self, maintenance: State) -> State {
        if self.previous == maintenance { State::Waiting } else { self.previous }
    }

    fn maintenance_start(&mut self, token: CommandToken) {
        if !self.may_start_maintenance() {
            let text = format!(
                "Unable to transition the server from the {} to partner-in-maintenance state.",
                self.state
            );
            return self.answer(token, Answer::error(text));
        }
        self.ask_about_maintenance(token, false, self.state);
    }

    const fn may_start_maintenance(&self) -> bool {
        !matches!(
            self.state,
            State::Backup | State::InMaintenance | State::PartnerInMaintenance | State::Terminated
        )
    }

    fn maintenance_cancel(&mut self, token: CommandToken) {
        if self.state != State::PartnerInMaintenance {
            return self.answer(
                token,
                Answer::error(
                    "Unable to cancel maintenance request because the server is not in the partner-in-maintenance state.",
                ),
            );
        }
        self.ask_about_maintenance(token, true, self.before(State::PartnerInMaintenance));
    }

    fn ask_about_maintenance(&mut self, token: CommandToken, cancel: bool, state: State) {
        if self.partner.is_none() {
            return self
                .answer(token, Answer::error("this server has no partner to take over or give back to"));
        }
        if self.maintenance.is_some() {
            return self.answer(token, Answer::error("the partner is being asked about maintenance already"));
        }
        let ticket = self.ticket();
        self.maintenance = Some(RunningMaintenance { ticket, token, cancel });
        self.actions.push_back(Action::SendMaintenanceNotify { ticket, cancel, state });
    }

    pub(super) fn maintenance_ended(
        &mut self,
        now: Now,
        ticket: Ticket,
        answer: Result<PeerAnswer, PeerError>,
    ) {
        let Some(asked) = self.maintenance.take_if(|asked| asked.ticket == ticket) else { return };
        let answer = if asked.cancel {
            self.maintenance_cancel_ended(now, answer)
        } else {
            self.maintenance_start_ended(now, answer)
        };
        self.answer(asked.token, answer);
    }

    fn maintenance_start_ended(&mut self, now: Now, answer: Result<PeerAnswer, PeerError>) -> Answer {
        match answer {
            // The machine may have moved while the partner was asked.
            Ok(answer) if answer.is_success() && self.may_start_maintenance() => {
                self.transition(State::PartnerInMaintenance);
                self.run_once(now, Trigger::Ordinary);
                Answer::success(
                    "Server is now in the partner-in-maintenance state and its partner is in-maintenance state. \
                     The partner can be now safely shut down.",
                )
            }
            Ok(answer) if answer.is_success() => Answer::error(format!(
                "The partner is in-maintenance, but this server is in {} meanwhile; cancel or reset the partner.",
                self.state
            )),
            Ok(PeerAnswer { result, text, .. }) if result != i64::from(RESULT_ERROR) => {
                self.partner_unavailable();
                Answer::error(format!("The partner refused to enter maintenance (result {result}): {text}"))
            }
            refused => {
                let reason = match refused {
                    Ok(answer) => answer.text,
                    Err(error) => error.to_string(),
                };
                self.partner_unavailable();
                if !self.may_start_maintenance() {
                    return Answer::error(format!(
                        "The partner does not answer: {reason}; this server is in {}.",
                        self.state
                    ));
                }
                self.transition(State::PartnerDown);
                // The administrator said so: every client is served, whatever `auto-failover` says.
                self.failover_forced = true;
                self.run_once(now, Trigger::Ordinary);
                Answer::success(format!(
                    "Server is now in the partner-down state as its partner appears to be offline for maintenance: {reason}"
                ))
            }
        }
    }

    fn maintenance_cancel_ended(&mut self, now: Now, answer: Result<PeerAnswer, PeerError>) -> Answer {
        let failed = match &answer {
            Ok(answer) if answer.is_success() => None,
            Ok(answer) => Some(format!("result {}: {}", answer.result, answer.text)),
            Err(error) => Some(error.to_string()),
        };
        if let Some(reason) = failed {
            self.partner_unavailable();
            return Answer::error(format!("The partner did not cancel its maintenance: {reason}"));
        }
        match answer.ok().and_then(|answer| answer.state()).filter(|&state| state != State::Unavailable) {
            Some(state) => self.communication.record(state, Some(now)),
            None => self.partner_unavailable(),
        }
        if self.state != State::PartnerInMaintenance {
            return Answer::error(format!("This server is in {} meanwhile.", self.state));
        }
        self.transition(self.before(State::PartnerInMaintenance));
        self.run_once(now, Trigger::MaintenanceCancelled);
        Answer::success("Server maintenance successfully canceled.")
    }

    /// The partner has copied our leases.
    fn sync_completed(&mut self, now: Now, origin: Option<u32>) -> Answer {
        if self.state == State::PartnerDown {
            // A state that a reset led to is entered at the next event: its service must not come on after this.
            if !self.entered {
                self.enter();
            }
            // No new leases until the pair has settled: the next heartbeats decide.
            self.sync_hold = Some(SyncHold { since: now.mono, answered: 0 });
            self.service = false;
            self.actions.push_back(Action::LocalService(false));
            self.hasten_heartbeat(now);
        }
        (self.undelivered, self.alone_from, self.is_empty, self.has_former) = (false, None, false, false);
        // A partner that names no origin disabled us as `ha-partner`.
        let origin = origin.unwrap_or_else(|| self.config.remote_origin());
        self.actions.push_back(Action::ReleaseOrigin(origin));
        Answer::success("Server successfully notified about the synchronization completion.")
    }
}
