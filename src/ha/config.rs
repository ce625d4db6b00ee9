//! The `high-availability` list of the configuration: relationships, peers, credentials, delays, pauses.
//!
//! Parsing collects every finding instead of stopping at the first. Files with credentials are read through a
//! function that the caller gives. Delays are milliseconds, unless the values can only be the seconds of the guide of
//! 2018, or `delay-unit` says so.

mod check;
mod parse;
mod url;

use std::fmt;

pub use parse::{Parsed, parse};
pub use url::{PeerUrl, UrlError};

use super::partner::Version;
use super::states::{Mode, Role, STATE_COUNT, State};
use super::view::Scope;

/// One problem (or remark) about the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Where, from the list down: `[0]/peers[1]/url`. Empty for the list itself.
    pub path: String,
    /// What was expected and what came.
    pub text: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "high-availability{}: {}", self.path, self.text)
    }
}

/// When a state pauses the machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pause {
    /// Never.
    #[default]
    Never,
    /// At the first entry.
    Once,
    /// At every entry.
    Always,
}

/// User and password of HTTP basic authentication.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The user: not empty, without a colon.
    pub user: String,
    /// The password; may be empty.
    pub password: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Credentials({:?}, password hidden)", self.user)
    }
}

/// Names of the files of TLS, all three or none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificate authority: a file, or a folder of them.
    pub trust_anchor: String,
    /// Certificate of this server.
    pub cert_file: String,
    /// Its key.
    pub key_file: String,
}

/// One server of a relationship.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerConfig {
    /// Its name, also the name of its scope.
    pub name: String,
    /// Where it listens.
    pub url: PeerUrl,
    /// Its part.
    pub role: Role,
    /// Whether it takes over foreign scopes by itself; only this server's own entry is consulted.
    pub auto_failover: bool,
    /// What is sent to it; in this server's own entry, what its dedicated listener demands.
    pub credentials: Option<Credentials>,
    /// TLS towards it, whatever the scheme of its URL says.
    pub tls: Option<TlsFiles>,
    /// What it runs, when the operator says so (`"compatibility": "2.2"`); else it is found out.
    pub compatibility: Option<Version>,
}

/// The `multi-threading` block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MultiThreading {
    /// `enable-multi-threading`.
    pub enabled: bool,
    /// `http-dedicated-listener`.
    pub dedicated_listener: bool,
    /// `http-listener-threads`; 0 as many as DHCP threads.
    pub listener_threads: u32,
    /// `http-client-threads`: connections to each peer; 0 as many as DHCP threads.
    pub client_threads: u32,
}

impl Default for MultiThreading {
    fn default() -> Self {
        Self { enabled: true, dedicated_listener: true, listener_threads: 0, client_threads: 0 }
    }
}

impl MultiThreading {
    /// What is in force for a DHCP server of `dhcp_threads` threads (0: single-threaded). A single-threaded server has no dedicated
    /// listener and one connection per peer, whatever is asked for; that is not an error.
    #[must_use]
    pub const fn resolve(self, dhcp_threads: u32) -> Self {
        if !self.enabled || dhcp_threads == 0 {
            return Self {
                enabled: false,
                dedicated_listener: false,
                listener_threads: 1,
                client_threads: 1,
            };
        }
        Self {
            listener_threads: or_dhcp(self.listener_threads, dhcp_threads),
            client_threads: or_dhcp(self.client_threads, dhcp_threads),
            ..self
        }
    }
}

/// One relationship, valid as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelationshipConfig {
    /// Its number, from 0, in the order of the configuration.
    pub index: u16,
    /// The mode.
    pub mode: Mode,
    /// This server's position in `peers`.
    pub this: usize,
    /// All servers, this one included, as configured; at most [`super::view::PEERS_MAX`].
    pub peers: Vec<PeerConfig>,
    /// Pause between the end of a heartbeat and the next; 0: none are sent.
    pub heartbeat_delay_ms: u64,
    /// Silence longer than this is an interruption.
    pub max_response_delay_ms: u64,
    /// A client that has tried for longer than this is unacked.
    pub max_ack_delay_ms: u64,
    /// Tolerated unacked clients; 0: the traffic test is off.
    pub max_unacked_clients: u32,
    /// Clients with rejected updates that end the pair; 0: never.
    pub max_rejected_lease_updates: u32,
    /// Backlog of communication recovery, in leases; 0: that state does not exist.
    pub delayed_updates_limit: u32,
    /// Whether lease updates are sent at all.
    pub send_lease_updates: bool,
    /// Whether leases are copied from the partner at start.
    pub sync_leases: bool,
    /// Timeout of one page.
    pub sync_timeout_ms: u64,
    /// Leases per page: 1 or more.
    pub sync_page_limit: u32,
    /// Whether clients wait for backups too.
    pub wait_backup_ack: bool,
    /// Threads and the dedicated listener.
    pub multi_threading: MultiThreading,
    /// Whether the dedicated listener demands client certificates.
    pub require_client_certs: bool,
    /// Whether the dedicated listener takes HA commands only.
    pub restrict_commands: bool,
    /// When each state pauses, by [`State::index`].
    pub pauses: [Pause; STATE_COUNT],
}

/// How long commands to a peer may take: nothing outlasts what failure detection allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// `ha-heartbeat`.
    pub heartbeat_ms: u64,
    /// A lease update, single or bulk.
    pub update_ms: u64,
    /// A page of leases; 0 has no end in Kea, here it is ten minutes.
    pub page_ms: u64,
    /// Every other command.
    pub command_ms: u64,
}

/// The longest that any command but a page may take.
const COMMAND_MS_MAX: u64 = 10_000;
/// The least that a heartbeat is given.
const HEARTBEAT_MS_MIN: u64 = 200;
/// The least that a lease update is given: a `max-response-delay` of 0 must not make every update fail.
const UPDATE_MS_MIN: u64 = 200;
/// What a page is given when the configuration sets no limit: nothing in this server waits for ever.
const PAGE_MS_WITHOUT_LIMIT: u64 = 600_000;

impl RelationshipConfig {
    /// This server's entry.
    #[must_use]
    pub fn own(&self) -> &PeerConfig {
        &self.peers[self.this]
    }

    /// The position of the partner: the other active server. None for a backup and in passive-backup.
    #[must_use]
    pub fn partner(&self) -> Option<usize> {
        if self.own().role == Role::Backup || self.mode == Mode::PassiveBackup {
            return None;
        }
        self.peers.iter().position(|peer| peer.role != Role::Backup && peer.name != self.own().name)
    }

    /// The position of the server of this role, for the two active ones.
    #[must_use]
    pub fn with_role(&self, role: Role) -> Option<usize> {
        self.peers.iter().position(|peer| peer.role == role)
    }

    /// The position of the peer called `name`, this server included.
    #[must_use]
    pub fn peer(&self, name: &str) -> Option<usize> {
        self.peers.iter().position(|peer| peer.name == name)
    }

    /// Positions of the peers but this server, by ascending name: the order in which updates go out.
    #[must_use]
    pub fn others(&self) -> Vec<usize> {
        let mut others: Vec<usize> =
            (0..self.peers.len()).filter(|&position| position != self.this).collect();
        others.sort_by(|&left, &right| self.peers[left].name.cmp(&self.peers[right].name));
        others
    }

    /// The classes that a query of this scope gets: `HA_` and the server's name, and the spelling of the first guide. None when there
    /// is no such server.
    #[must_use]
    pub fn class_names(&self, scope: Scope) -> Option<[String; 2]> {
        let role = match scope {
            Scope::Primary => Role::Primary,
            Scope::Secondary => Role::Secondary,
        };
        let name = &self.peers[self.with_role(role)?].name;
        Some([format!("HA_{name}"), format!("ha_{name}")])
    }

    /// When the state `state` pauses.
    #[must_use]
    pub const fn pause(&self, state: State) -> Pause {
        self.pauses[state.index()]
    }

    /// Timeouts derived from the delays.
    #[must_use]
    pub fn timeouts(&self) -> Timeouts {
        Timeouts {
            heartbeat_ms: COMMAND_MS_MAX.min(HEARTBEAT_MS_MIN.max(self.max_response_delay_ms / 2)),
            update_ms: COMMAND_MS_MAX.min(UPDATE_MS_MIN.max(self.max_response_delay_ms)),
            page_ms: if self.sync_timeout_ms == 0 { PAGE_MS_WITHOUT_LIMIT } else { self.sync_timeout_ms },
            command_ms: COMMAND_MS_MAX,
        }
    }

    /// `max-period` of an automatic `dhcp-disable`.
    #[must_use]
    pub fn sync_max_period_s(&self) -> u64 {
        (self.sync_timeout_ms / 1000).max(1)
    }

    /// This server's own origin of `dhcp-disable`: 1000 and the relationship's number.
    #[must_use]
    pub const fn local_origin(&self) -> u32 {
        super::service::ORIGIN_HA_LOCAL + self.index as u32
    }

    /// The origin that this server names to its partner: 2000 and the relationship's number.
    #[must_use]
    pub const fn remote_origin(&self) -> u32 {
        super::service::ORIGIN_HA_PARTNER + self.index as u32
    }
}

const fn or_dhcp(count: u32, dhcp_threads: u32) -> u32 {
    if count == 0 { dhcp_threads } else { count }
}
