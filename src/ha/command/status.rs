//! The HA part of `status-get`.

use serde_json::{Map, Value, json};

use super::date::format_status;
use crate::ha::states::{Mode, Role, State};

/// What is said of this server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalStatus {
    /// Its role.
    pub role: Role,
    /// Its name.
    pub server_name: String,
    /// The scopes it serves.
    pub scopes: Vec<String>,
    /// Its state.
    pub state: State,
    /// Its clock when skew was last measured; none when it was not, or the partner is unavailable.
    pub system_time_s: Option<u64>,
    /// Whether its machine waits for `ha-continue`: said only then, since Kea's answer does not have it.
    pub paused: bool,
}

/// What is said of the partner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteStatus {
    /// Its role.
    pub role: Role,
    /// Its name.
    pub server_name: String,
    /// What it last reported, or that it is unavailable; none before the first heartbeat has ended.
    pub last_state: Option<State>,
    /// Since the last contact, whole seconds.
    pub age_s: u64,
    /// The scopes it last reported.
    pub last_scopes: Vec<String>,
    /// Whether it has been silent for longer than `max-response-delay`.
    pub communication_interrupted: bool,
    /// Its clients seen since.
    pub connecting_clients: u64,
    /// Those that tried for too long.
    pub unacked_clients: u64,
    /// How many more of them end the wait.
    pub unacked_clients_left: u64,
    /// Queries looked at.
    pub analyzed_packets: u64,
    /// Its clock when skew was last measured.
    pub system_time_s: Option<u64>,
    /// Its clock less ours.
    pub clock_skew_s: Option<i64>,
}

/// One relationship.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelationshipStatus {
    /// The mode.
    pub mode: Mode,
    /// This server.
    pub local: LocalStatus,
    /// The partner; none for a backup and in passive-backup.
    pub remote: Option<RemoteStatus>,
}

impl RelationshipStatus {
    /// The element of the list `high-availability`.
    #[must_use]
    pub fn to_value(&self) -> Value {
        let time =
            |seconds: Option<u64>| seconds.map_or(Value::Null, |seconds| json!(format_status(seconds)));
        let mut servers = Map::new();
        let mut local = json!({
            "role": self.local.role.name(),
            "server-name": self.local.server_name,
            "scopes": self.local.scopes,
            "state": self.local.state.name(),
            "system-time": time(self.local.system_time_s),
        });
        if self.local.paused {
            local["paused"] = Value::Bool(true);
        }
        servers.insert("local".to_owned(), local);
        if let Some(remote) = &self.remote {
            let in_touch = remote.last_state.is_some();
            servers.insert(
                "remote".to_owned(),
                json!({
                    "role": remote.role.name(),
                    "server-name": remote.server_name,
                    "in-touch": in_touch,
                    "age": if in_touch { remote.age_s } else { 0 },
                    "last-state": remote.last_state.map_or("", State::name),
                    "last-scopes": remote.last_scopes,
                    "communication-interrupted": remote.communication_interrupted,
                    "connecting-clients": remote.connecting_clients,
                    "unacked-clients": remote.unacked_clients,
                    "unacked-clients-left": remote.unacked_clients_left,
                    "analyzed-packets": remote.analyzed_packets,
                    "system-time": time(remote.system_time_s),
                    "clock-skew": remote.clock_skew_s,
                }),
            );
        }
        json!({ "ha-mode": self.mode.name(), "ha-servers": servers })
    }
}
