//! The states of a relationship, by their names on the wire, and what each of them means for service and updates.

use std::fmt;

/// What two (or one) active servers do with the clients in normal operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mode {
    /// Both active servers answer, each its half of the RFC 3074 buckets.
    LoadBalancing,
    /// The primary answers, the standby watches.
    HotStandby,
    /// The primary answers, backups receive updates, nobody takes over by itself.
    PassiveBackup,
}

impl Mode {
    /// All modes.
    pub const ALL: [Self; 3] = [Self::LoadBalancing, Self::HotStandby, Self::PassiveBackup];

    /// The name in the configuration and in `status-get`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::LoadBalancing => "load-balancing",
            Self::HotStandby => "hot-standby",
            Self::PassiveBackup => "passive-backup",
        }
    }

    /// The mode called `name`.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mode| mode.name() == name)
    }

    /// The state that an active server of this mode is in when all is well.
    #[must_use]
    pub const fn normal_state(self) -> State {
        match self {
            Self::LoadBalancing => State::LoadBalancing,
            Self::HotStandby => State::HotStandby,
            Self::PassiveBackup => State::PassiveBackup,
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

/// A server's part in a relationship.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Active in every mode; moves first when both sides wait for each other.
    Primary,
    /// The other active server of load-balancing.
    Secondary,
    /// The other active server of hot-standby.
    Standby,
    /// A passive receiver of lease updates.
    Backup,
}

impl Role {
    /// All roles.
    pub const ALL: [Self; 4] = [Self::Primary, Self::Secondary, Self::Standby, Self::Backup];

    /// The name in the configuration and in `status-get`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Secondary => "secondary",
            Self::Standby => "standby",
            Self::Backup => "backup",
        }
    }

    /// The role called `name`.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.name() == name)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

/// How many states there are, [`State::Unavailable`] included: sizes tables by state.
pub const STATE_COUNT: usize = 13;

/// A state of the machine, as heartbeats carry it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum State {
    /// The role backup, for ever.
    Backup,
    /// Load-balancing with updates queued, because the partner does not answer ours.
    CommunicationRecovery,
    /// Normal in hot-standby.
    HotStandby,
    /// About to be shut down by its administrator: serves nobody.
    InMaintenance,
    /// Normal in load-balancing.
    LoadBalancing,
    /// Serves everybody, because the partner does not.
    PartnerDown,
    /// Serves everybody, because the partner is about to be shut down.
    PartnerInMaintenance,
    /// Normal in passive-backup.
    PassiveBackup,
    /// Holds what the partner held and waits to be let in.
    Ready,
    /// Copies the partner's leases.
    Syncing,
    /// The pair has given up: clocks too far apart, or too many updates rejected. An administrator must act.
    Terminated,
    /// Looks for the partner.
    Waiting,
    /// Only of a partner, never sent: it did not answer, or not as it must.
    Unavailable,
}

impl State {
    /// All states.
    pub const ALL: [Self; STATE_COUNT] = [
        Self::Backup,
        Self::CommunicationRecovery,
        Self::HotStandby,
        Self::InMaintenance,
        Self::LoadBalancing,
        Self::PartnerDown,
        Self::PartnerInMaintenance,
        Self::PassiveBackup,
        Self::Ready,
        Self::Syncing,
        Self::Terminated,
        Self::Waiting,
        Self::Unavailable,
    ];

    /// The name on the wire.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Backup => "backup",
            Self::CommunicationRecovery => "communication-recovery",
            Self::HotStandby => "hot-standby",
            Self::InMaintenance => "in-maintenance",
            Self::LoadBalancing => "load-balancing",
            Self::PartnerDown => "partner-down",
            Self::PartnerInMaintenance => "partner-in-maintenance",
            Self::PassiveBackup => "passive-backup",
            Self::Ready => "ready",
            Self::Syncing => "syncing",
            Self::Terminated => "terminated",
            Self::Waiting => "waiting",
            Self::Unavailable => "unavailable",
        }
    }

    /// The state called `name`.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }

    /// Its position in [`State::ALL`].
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// What the state means for service and updates.
    #[must_use]
    pub const fn behaviour(self) -> Behaviour {
        use Updates::{Count, Queue, Send};
        let (serves, scopes, to_partner, heartbeats, clears_rejected) = match self {
            Self::Waiting | Self::Syncing | Self::Ready => (false, Scopes::None, Count, true, true),
            Self::LoadBalancing | Self::HotStandby => (true, Scopes::Default, Send, true, false),
            Self::CommunicationRecovery => (true, Scopes::Default, Queue, true, false),
            Self::PartnerDown => (true, Scopes::FailoverIfAutomatic, Count, true, true),
            Self::PartnerInMaintenance => (true, Scopes::Failover, Send, true, false),
            Self::InMaintenance => (false, Scopes::None, Count, true, false),
            Self::PassiveBackup => (true, Scopes::Default, Count, false, false),
            Self::Backup | Self::Unavailable => (false, Scopes::None, Count, false, false),
            Self::Terminated => (true, Scopes::Default, Count, false, true),
        };
        Behaviour { serves, scopes, to_partner, heartbeats, clears_rejected }
    }
}

impl fmt::Display for State {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

/// What a state means, apart from transitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Behaviour {
    /// Whether the machine wants the local DHCP service on.
    pub serves: bool,
    /// Which scopes are served from entry on (until `ha-scopes` says otherwise).
    pub scopes: Scopes,
    /// What becomes of lease updates for the partner. Backups receive updates in every state.
    pub to_partner: Updates,
    /// Whether heartbeats are sent (by active servers of modes with two of them).
    pub heartbeats: bool,
    /// Whether entering the state forgets the clients with rejected updates.
    pub clears_rejected: bool,
}

/// Which scopes a state serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scopes {
    /// None.
    None,
    /// Primary and secondary: their own. Standby, backup: none.
    Default,
    /// Those of the primary and the secondary; in hot-standby only the primary has one.
    Failover,
    /// [`Scopes::Failover`] if this server has `auto-failover` or an administrator brought the state about, else the default.
    FailoverIfAutomatic,
}

/// What becomes of a lease update for the partner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Updates {
    /// It is sent, and the client's answer waits for it.
    Send,
    /// It is queued in the backlog; the client is answered at once.
    Queue,
    /// It is not sent but counted, so that the partner learns that there is something to copy.
    Count,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_lead_back() {
        for (position, state) in State::ALL.into_iter().enumerate() {
            assert_eq!(State::from_name(state.name()), Some(state));
            assert_eq!(state.index(), position);
        }
        for role in Role::ALL {
            assert_eq!(Role::from_name(role.name()), Some(role));
        }
        for mode in Mode::ALL {
            assert_eq!(Mode::from_name(mode.name()), Some(mode));
        }
        assert_eq!(State::from_name("Waiting"), None);
    }
}
