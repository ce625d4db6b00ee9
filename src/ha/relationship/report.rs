//! What a relationship shows: to the partner, to administrators, to the shards.

use super::{Relationship, bit};
use crate::ha::command::HeartbeatAnswer;
use crate::ha::command::status::{LocalStatus, RelationshipStatus, RemoteStatus};
use crate::ha::states::{Mode, Role, State, Updates};
use crate::ha::view::{ScopeParts, ScopeWord};
use crate::time::Now;

impl Relationship {
    /// Names of the scopes served, sorted.
    #[must_use]
    pub fn scope_names(&self) -> Vec<String> {
        let served =
            self.config.peers.iter().enumerate().filter(|(position, _)| self.scopes & bit(*position) != 0);
        let mut names: Vec<String> = served.map(|(_, peer)| peer.name.clone()).collect();
        names.sort();
        names
    }

    /// What a heartbeat is answered.
    #[must_use]
    pub fn heartbeat_answer(&self, now: Now) -> HeartbeatAnswer {
        HeartbeatAnswer {
            state: self.state,
            date_time_s: now.wall_s,
            scopes: Some(self.scope_names()),
            unsent_update_count: Some(self.unsent),
        }
    }

    /// The element of `status-get`.
    #[must_use]
    pub fn status(&self, now: Now) -> RelationshipStatus {
        let communication = &self.communication;
        let local = LocalStatus {
            role: self.config.own().role,
            server_name: self.config.own().name.clone(),
            scopes: self.scope_names(),
            state: self.state,
            system_time_s: communication.own_time_s,
            paused: self.paused,
        };
        let remote = self.partner.map(|partner| {
            let traffic = communication.traffic;
            let max = u64::from(self.config.max_unacked_clients);
            let interrupted = self.is_interrupted(now);
            let left = if interrupted && traffic.unacked_clients <= max {
                max - traffic.unacked_clients + 1
            } else {
                0
            };
            RemoteStatus {
                role: self.config.peers[partner].role,
                server_name: self.config.peers[partner].name.clone(),
                last_state: communication.partner_state,
                age_s: now.mono.ms_since(communication.last_contact) / 1000,
                last_scopes: communication.partner_scopes.clone(),
                communication_interrupted: interrupted,
                connecting_clients: traffic.connecting_clients,
                unacked_clients: traffic.unacked_clients,
                unacked_clients_left: left,
                analyzed_packets: traffic.analyzed_packets,
                system_time_s: communication.partner_time_s,
                clock_skew_s: communication.skew_s,
            }
        });
        RelationshipStatus { mode: self.config.mode, local, remote }
    }

    /// What shards see now.
    pub(super) fn word(&self, now: Now) -> ScopeWord {
        let config = &self.config;
        let serves =
            |role: Role| config.with_role(role).is_some_and(|position| self.scopes & bit(position) != 0);
        let to_partner = self.state.behaviour().to_partner;
        let (mut awaited, mut sent) = (0, 0);
        if config.send_lease_updates {
            for position in config.others() {
                if Some(position) == self.partner {
                    if to_partner == Updates::Send {
                        awaited |= bit(position);
                        sent |= bit(position);
                    }
                } else if config.peers[position].role == Role::Backup {
                    sent |= bit(position);
                    if config.wait_backup_ack {
                        awaited |= bit(position);
                    }
                }
            }
        }
        let partner_updates = self.partner.is_some() && config.send_lease_updates;
        ScopeWord::new(ScopeParts {
            balanced: config.mode == Mode::LoadBalancing,
            serves_primary: serves(Role::Primary),
            serves_secondary: serves(Role::Secondary),
            analyse: self.is_interrupted(now),
            service: self.service,
            queue: partner_updates && to_partner == Updates::Queue,
            count_unsent: partner_updates && to_partner == Updates::Count,
            guard_reclamation: self.state == State::Terminated,
            stretch: self.stretch,
            epoch: self.epoch,
            awaited,
            sent,
        })
    }
}
