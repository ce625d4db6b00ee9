//! HA commands that we send: the body of each.

use std::net::Ipv4Addr;

use serde_json::{Value, json};

use super::json::write_value;
use crate::ha::partner::{SYNC_BEGIN_COMMAND, SYNC_CHANGES_COMMAND, SYNC_END_COMMAND};
use crate::ha::states::State;

/// The address family of a server: which `service` it names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Family {
    /// `dhcp4`.
    #[default]
    V4,
    /// `dhcp6`.
    V6,
}

impl Family {
    /// The name in `service`.
    #[must_use]
    pub const fn service(self) -> &'static str {
        match self {
            Self::V4 => "dhcp4",
            Self::V6 => "dhcp6",
        }
    }

    /// `lease4-get-page` or `lease6-get-page`.
    #[must_use]
    pub const fn get_page(self) -> &'static str {
        match self {
            Self::V4 => "lease4-get-page",
            Self::V6 => "lease6-get-page",
        }
    }

    /// `lease4-get-all` or `lease6-get-all`.
    #[must_use]
    pub const fn get_all(self) -> &'static str {
        match self {
            Self::V4 => "lease4-get-all",
            Self::V6 => "lease6-get-all",
        }
    }
}

/// The body of any command.
#[must_use]
pub fn body(family: Family, command: &str, arguments: Option<Value>) -> Vec<u8> {
    let mut map = json!({ "command": command, "service": [family.service()] });
    if let (Some(arguments), Value::Object(map)) = (arguments, &mut map) {
        map.insert("arguments".to_owned(), arguments);
    }
    let mut body = Vec::new();
    write_value(&mut body, &map);
    body
}

/// `ha-heartbeat`.
#[must_use]
pub fn heartbeat(family: Family, server_name: &str) -> Vec<u8> {
    body(family, "ha-heartbeat", Some(json!({ "server-name": server_name })))
}

/// `ha-reset`.
#[must_use]
pub fn reset(family: Family, server_name: &str) -> Vec<u8> {
    body(family, "ha-reset", Some(json!({ "server-name": server_name })))
}

/// `ha-maintenance-notify`: begin, or with `cancel` end; `state` is what this server is in, or returns to.
#[must_use]
pub fn maintenance_notify(family: Family, server_name: &str, cancel: bool, state: State) -> Vec<u8> {
    body(
        family,
        "ha-maintenance-notify",
        Some(json!({ "cancel": cancel, "server-name": server_name, "state": state.name() })),
    )
}

/// `dhcp-disable`: the origin as a number for new partners and as a text for older ones.
#[must_use]
pub fn dhcp_disable(family: Family, origin: u32, max_period_s: Option<u64>) -> Vec<u8> {
    let mut arguments = json!({ "origin-id": origin, "origin": "ha-partner" });
    if let (Some(period), Value::Object(map)) = (max_period_s, &mut arguments) {
        map.insert("max-period".to_owned(), json!(period));
    }
    body(family, "dhcp-disable", Some(arguments))
}

/// `dhcp-enable`.
#[must_use]
pub fn dhcp_enable(family: Family, origin: u32) -> Vec<u8> {
    body(family, "dhcp-enable", Some(json!({ "origin-id": origin, "origin": "ha-partner" })))
}

/// `ha-sync-complete-notify`: here `origin` is a number too.
#[must_use]
pub fn sync_complete_notify(family: Family, server_name: &str, origin: u32) -> Vec<u8> {
    body(
        family,
        "ha-sync-complete-notify",
        Some(json!({ "server-name": server_name, "origin-id": origin, "origin": origin })),
    )
}

/// `lease4-get-page` from an address on; none is the start. One of ours is asked to say of which leases nobody was told (`untold`).
#[must_use]
pub fn page4(from: Option<Ipv4Addr>, limit: u32, untold: bool) -> Vec<u8> {
    let from = from.map_or_else(|| "start".to_owned(), |from| from.to_string());
    let mut arguments = json!({ "from": from, "limit": limit });
    if untold {
        arguments["untold"] = json!(true);
    }
    body(Family::V4, Family::V4.get_page(), Some(arguments))
}

/// `lease4-get-all`.
#[must_use]
pub fn get_all(family: Family) -> Vec<u8> {
    body(family, family.get_all(), None)
}

/// `list-commands`.
#[must_use]
pub fn list_commands(family: Family) -> Vec<u8> {
    body(family, "list-commands", None)
}

/// `aplomado-sync-begin`: the source remembers from now on which leases change.
#[must_use]
pub fn sync_begin(family: Family, server_name: &str) -> Vec<u8> {
    body(family, SYNC_BEGIN_COMMAND, Some(json!({ "server-name": server_name })))
}

/// `aplomado-sync-changes`: the next leases that changed. The same `sequence` again asks for the same ones again.
#[must_use]
pub fn sync_changes(family: Family, server_name: &str, session: u64, sequence: u64, limit: u32) -> Vec<u8> {
    body(
        family,
        SYNC_CHANGES_COMMAND,
        Some(json!({ "server-name": server_name, "session": session, "sequence": sequence, "limit": limit })),
    )
}

/// `aplomado-sync-end`: the source may forget the session.
#[must_use]
pub fn sync_end(family: Family, server_name: &str, session: u64) -> Vec<u8> {
    body(family, SYNC_END_COMMAND, Some(json!({ "server-name": server_name, "session": session })))
}
