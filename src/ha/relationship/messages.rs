//! What a relationship says in the log. Identifiers are Kea's where the meaning is the same.

use std::fmt;

use crate::ha::states::State;

/// How much a message matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Something an operator must look at.
    Error,
    /// Something an operator should look at.
    Warn,
    /// What happens.
    Info,
}

/// A message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// The state changed.
    StateTransition {
        /// Until now.
        from: State,
        /// From now on.
        to: State,
        /// The partner's, as known.
        partner: Option<State>,
    },
    /// The machine waits for `ha-continue`.
    Paused {
        /// Where.
        state: State,
    },
    /// The machine goes on.
    Continued,
    /// A heartbeat failed.
    HeartbeatFailed {
        /// To whom, and where that is.
        partner: String,
        /// Why.
        reason: String,
        /// How many in a row: not each one is said.
        failures: u32,
    },
    /// Heartbeats are answered again.
    HeartbeatsAnswered {
        /// By whom.
        partner: String,
        /// How many had failed.
        failures: u32,
    },
    /// The partner has been silent for longer than `max-response-delay`.
    CommunicationInterrupted {
        /// Who that is.
        partner: String,
        /// For how long.
        silence_ms: u64,
    },
    /// The partner's clock differs a lot.
    HighClockSkew {
        /// The partner's less ours.
        skew_s: i64,
    },
    /// The clocks are too far apart: the pair ends.
    ClockSkewTerminates {
        /// The partner's less ours.
        skew_s: i64,
    },
    /// Too many clients' updates were rejected: the pair ends.
    RejectsTerminate {
        /// How many.
        clients: usize,
    },
    /// The partner is in a state that this mode does not know: the configurations differ.
    InvalidPartnerState {
        /// The state of this server.
        own: State,
        /// That of the partner.
        state: Option<State>,
    },
    /// Leases are being copied.
    SyncStart {
        /// From whom.
        source: String,
    },
    /// All leases have been copied.
    SyncComplete,
    /// The copy failed.
    SyncFailed {
        /// Why.
        reason: String,
    },
    /// Updates that were kept are being sent.
    BacklogFlush {
        /// How many leases.
        leases: usize,
    },
    /// Not all of them were taken.
    BacklogFlushFailed,
    /// The backlog is full: a synchronisation will be needed.
    BacklogFull {
        /// `delayed-updates-limit`.
        limit: u32,
    },
    /// The partner is reset, so that it copies.
    PartnerLacksChanges,
    /// The partner refuses `ha-reset`, or does not know it: it is not asked again.
    ResetRefused {
        /// Why.
        reason: String,
    },
    /// The partner did not take `ha-reset`.
    ResetFailed {
        /// Why.
        reason: String,
    },
}

impl Message {
    /// The identifier.
    #[must_use]
    pub const fn id(&self) -> &'static str {
        match self {
            Self::StateTransition { .. } => "HA_STATE_TRANSITION",
            Self::Paused { .. } => "HA_STATE_MACHINE_PAUSED",
            Self::Continued => "HA_STATE_MACHINE_CONTINUED",
            Self::HeartbeatFailed { .. } => "HA_HEARTBEAT_COMMUNICATIONS_FAILED",
            Self::HeartbeatsAnswered { .. } => "HA_HEARTBEAT_COMMUNICATIONS_RESTORED",
            Self::CommunicationInterrupted { .. } => "HA_COMMUNICATION_INTERRUPTED",
            Self::HighClockSkew { .. } => "HA_HIGH_CLOCK_SKEW",
            Self::ClockSkewTerminates { .. } => "HA_HIGH_CLOCK_SKEW_CAUSED_TERMINATION",
            Self::RejectsTerminate { .. } => "HA_LEASE_UPDATE_REJECTS_CAUSED_TERMINATION",
            // Kea has one for each of the states in which its partner's can be wrong.
            Self::InvalidPartnerState { own, .. } => match own {
                State::CommunicationRecovery => "HA_INVALID_PARTNER_STATE_COMMUNICATION_RECOVERY",
                State::HotStandby => "HA_INVALID_PARTNER_STATE_HOT_STANDBY",
                State::LoadBalancing => "HA_INVALID_PARTNER_STATE_LOAD_BALANCING",
                _ => "HA_INVALID_PARTNER_STATE",
            },
            Self::SyncStart { .. } => "HA_SYNC_START",
            Self::SyncComplete => "HA_SYNC_SUCCESSFUL",
            Self::SyncFailed { .. } => "HA_SYNC_FAILED",
            Self::BacklogFlush { .. } => "HA_LEASES_BACKLOG_START",
            Self::BacklogFlushFailed => "HA_LEASES_BACKLOG_FAILED",
            Self::BacklogFull { .. } => "HA_LEASES_BACKLOG_FULL",
            Self::PartnerLacksChanges => "HA_PARTNER_LACKS_CHANGES",
            Self::ResetRefused { .. } | Self::ResetFailed { .. } => "HA_RESET_FAILED",
        }
    }

    /// How much it matters.
    #[must_use]
    pub const fn level(&self) -> Level {
        match self {
            Self::ClockSkewTerminates { .. }
            | Self::RejectsTerminate { .. }
            | Self::SyncFailed { .. }
            | Self::StateTransition { to: State::Terminated, .. } => Level::Error,
            // Somebody has to look: the pair is one server now, or two that do not hear each other.
            Self::StateTransition { to: State::PartnerDown | State::CommunicationRecovery, .. } => {
                Level::Warn
            }
            Self::StateTransition { .. }
            | Self::Paused { .. }
            | Self::Continued
            | Self::HeartbeatsAnswered { .. }
            | Self::SyncStart { .. }
            | Self::SyncComplete
            | Self::BacklogFlush { .. }
            | Self::PartnerLacksChanges => Level::Info,
            _ => Level::Warn,
        }
    }
}

impl fmt::Display for Message {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::StateTransition { from, to, partner } => {
                let partner = partner.map_or("not known yet", State::name);
                write!(out, "from {from} to {to}, partner {partner}: {}", meaning(*to))
            }
            Self::Paused { state } => write!(out, "paused in {state} until the command ha-continue"),
            Self::Continued => out.write_str("no longer paused"),
            Self::HeartbeatFailed { partner, reason, failures: 1 } => {
                write!(out, "no heartbeat with {partner}: {reason}")
            }
            Self::HeartbeatFailed { partner, reason, failures } => {
                write!(out, "no heartbeat with {partner}, {failures} in a row have failed: {reason}")
            }
            Self::HeartbeatsAnswered { partner, failures } => {
                write!(out, "{partner} answers heartbeats again, after {failures} that failed")
            }
            Self::CommunicationInterrupted { partner, silence_ms } => {
                write!(out, "no contact with {partner} for {silence_ms} ms, longer than max-response-delay")
            }
            Self::HighClockSkew { skew_s } => {
                write!(out, "the partner's clock differs by {skew_s} s; more than 60 s ends the pair")
            }
            Self::ClockSkewTerminates { skew_s } => {
                write!(
                    out,
                    "the partner's clock differs by {skew_s} s: set the clocks, then restart or reset both servers"
                )
            }
            Self::RejectsTerminate { clients } => {
                write!(
                    out,
                    "the partner rejected updates of {clients} client(s): compare the configurations of both servers"
                )
            }
            Self::InvalidPartnerState { state, .. } => {
                let state = state.map_or("none", State::name);
                write!(
                    out,
                    "the partner is in {state}, which this mode does not know: compare the configurations"
                )
            }
            Self::SyncStart { source } => write!(out, "copying the leases of {source}"),
            Self::SyncComplete => out.write_str("the leases are copied"),
            Self::SyncFailed { reason } => write!(out, "copying the leases failed: {reason}"),
            Self::BacklogFlush { leases } => write!(out, "sending {leases} update(s) that were kept"),
            Self::BacklogFlushFailed => {
                out.write_str("an update that was kept was not taken; the servers will synchronise")
            }
            Self::BacklogFull { limit } => {
                write!(
                    out,
                    "more than {limit} update(s) to keep; the servers will synchronise when they talk again"
                )
            }
            Self::PartnerLacksChanges => out.write_str(
                "changes that were made here are unknown to the partner; it is told to copy all leases",
            ),
            Self::ResetRefused { reason } => {
                write!(
                    out,
                    "the partner does not copy although it lacks changes, give it an ha-sync: {reason}"
                )
            }
            Self::ResetFailed { reason } => write!(out, "the partner was not reset, again later: {reason}"),
        }
    }
}

/// What a state means to somebody who reads the log at night.
const fn meaning(state: State) -> &'static str {
    match state {
        State::Waiting => "serves nobody until it hears from the partner or takes it for dead",
        State::Syncing => "serves nobody while it copies the partner's leases",
        State::Ready => "has all leases, serves nobody until the partner agrees",
        State::LoadBalancing => "each server serves its half",
        State::HotStandby => "the primary serves, the standby stands by",
        State::CommunicationRecovery => "serves its half and keeps updates for the partner",
        State::PartnerDown => "takes the partner for dead",
        State::PartnerInMaintenance => "serves all clients, the partner may be stopped",
        State::InMaintenance => "serves nobody, may be stopped",
        State::PassiveBackup => "serves all clients, backups get copies",
        State::Backup => "serves nobody, keeps copies",
        State::Terminated => {
            "the pair has ended, each serves by itself: mend what was said before, then restart both"
        }
        State::Unavailable => "does not answer",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_somebody_must_look_at_is_not_said_like_what_just_happens() {
        let to = |to| Message::StateTransition { from: State::LoadBalancing, to, partner: None };
        assert_eq!(to(State::PartnerDown).level(), Level::Warn);
        assert_eq!(to(State::Terminated).level(), Level::Error);
        assert_eq!(to(State::LoadBalancing).level(), Level::Info);
        assert_eq!(
            to(State::PartnerDown).to_string(),
            "from load-balancing to partner-down, partner not known yet: takes the partner for dead"
        );
    }
}
