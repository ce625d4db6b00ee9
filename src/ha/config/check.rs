//! Rules between the parts: roles, modes, several relationships.

use super::parse::Notes;
use super::{RelationshipConfig, Role};
use crate::ha::states::Mode;

/// Roles and flags of one relationship: multiplicity first, then what the mode needs, then what it forbids.
pub(super) fn check_relationship(config: &RelationshipConfig, path: &str, notes: &mut Notes) {
    let count = |role: Role| config.peers.iter().filter(|peer| peer.role == role).count();
    let peers = format!("{path}/peers");
    for role in [Role::Primary, Role::Secondary, Role::Standby] {
        if count(role) > 1 {
            notes.error(&peers, format!("expected at most one {role}, found {}", count(role)));
        }
    }
    let mode = config.mode;
    let (needed, forbidden): (&[Role], &[Role]) = match mode {
        Mode::LoadBalancing => (&[Role::Secondary, Role::Primary], &[Role::Standby]),
        Mode::HotStandby => (&[Role::Standby, Role::Primary], &[Role::Secondary]),
        Mode::PassiveBackup => (&[Role::Primary], &[Role::Secondary, Role::Standby]),
    };
    for &role in forbidden {
        if count(role) > 0 {
            notes.error(&peers, format!("expected no {role} in {mode}, found one"));
        }
    }
    for &role in needed {
        if count(role) == 0 {
            notes.error(&peers, format!("expected a {role} in {mode}, found none"));
        }
    }
    if config.wait_backup_ack && mode != Mode::PassiveBackup {
        notes.error(&format!("{path}/wait-backup-ack"), format!("expected false in {mode}, found true"));
    }
    if config.delayed_updates_limit > 0 && mode != Mode::LoadBalancing {
        notes.error(
            &format!("{path}/delayed-updates-limit"),
            format!("expected 0 in {mode}, found {}", config.delayed_updates_limit),
        );
    }
}

/// Rules over all relationships: a hub is made of hot-standby pairs, and every peer name (this server's too) is of one pair.
pub(super) fn check_all(relationships: &[RelationshipConfig], notes: &mut Notes) {
    if relationships.len() < 2 {
        return;
    }
    for (position, config) in relationships.iter().enumerate() {
        if config.mode != Mode::HotStandby {
            notes.error(
                &format!("[{position}]/mode"),
                format!("expected hot-standby where there are several relationships, found {}", config.mode),
            );
        }
        for peer in &config.peers {
            if relationships[..position].iter().any(|earlier| earlier.peer(&peer.name).is_some()) {
                notes.error(
                    &format!("[{position}]/peers"),
                    format!(
                        "expected each peer name in one relationship only, found \"{}\" again",
                        peer.name
                    ),
                );
            }
        }
    }
}
