//! HA commands that reach us, from partners and administrators.

use serde_json::{Map, Value};

use super::Answer;
use super::json::{Kind, Malformed, Scanner};
use crate::ha::states::State;

/// The HA commands, as `list-commands` names them.
pub const HA_COMMANDS: [&str; 9] = [
    "ha-continue",
    "ha-heartbeat",
    "ha-maintenance-cancel",
    "ha-maintenance-notify",
    "ha-maintenance-start",
    "ha-reset",
    "ha-scopes",
    "ha-sync",
    "ha-sync-complete-notify",
];

/// What a dedicated listener of a DHCPv4 server with `restrict-commands` lets through, ours between two Aplomados included.
pub const LISTENER_COMMANDS: [&str; 18] = [
    "aplomado-bulk-apply",
    "aplomado-settings-get",
    "aplomado-sync-begin",
    "aplomado-sync-changes",
    "aplomado-sync-end",
    "aplomado-sync-leases",
    "dhcp-disable",
    "dhcp-enable",
    "ha-heartbeat",
    "ha-maintenance-notify",
    "ha-reset",
    "ha-sync-complete-notify",
    "lease4-del",
    "lease4-get-all",
    "lease4-get-page",
    "lease4-update",
    "list-commands",
    "status-get",
];

/// Whether a dedicated listener with `restrict-commands` lets `command` through.
#[must_use]
pub fn is_listener_command(command: &str) -> bool {
    LISTENER_COMMANDS.binary_search(&command).is_ok()
}

/// The outer parts of a command, found without building values: bulk commands are large.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head<'b> {
    /// `command`.
    pub command: String,
    /// The text of `arguments`; none when there are none.
    pub arguments: Option<&'b [u8]>,
    /// The text of `service`; none when there is none.
    pub service: Option<&'b [u8]>,
}

impl<'b> Head<'b> {
    /// Looks over the body of a request.
    ///
    /// # Errors
    /// The answer (result 1) to give.
    pub fn scan(body: &'b [u8]) -> Result<Self, Answer> {
        let mut scanner = Scanner::new(body);
        let malformed = |error: Malformed| {
            Answer::error(format!("expected JSON, found something else at octet {}", error.offset))
        };
        if scanner.kind().map_err(malformed)? != Kind::Map {
            return Err(Answer::error("invalid command: expected a map"));
        }
        let (mut command, mut arguments, mut service) = (None, None, None);
        scanner.expect(b'{').map_err(malformed)?;
        let mut first = true;
        while let Some(key) = scanner.next_key(first).map_err(malformed)? {
            first = false;
            match key {
                b"command" => {
                    if scanner.kind().map_err(malformed)? != Kind::Text {
                        return Err(Answer::error("invalid command: 'command' must be a string"));
                    }
                    let mut text = Vec::new();
                    scanner.string(&mut text).map_err(malformed)?;
                    command = String::from_utf8(text).ok();
                }
                b"arguments" => arguments = Some(scanner.skip().map_err(malformed)?),
                b"service" => service = Some(scanner.skip().map_err(malformed)?),
                b"remote-address" => {
                    scanner.skip().map_err(malformed)?;
                }
                other => {
                    let other = String::from_utf8_lossy(other);
                    return Err(Answer::error(format!(
                        "received command contains unsupported key '{other}'"
                    )));
                }
            }
        }
        let command = command.ok_or_else(|| Answer::error("invalid command: 'command' is missing"))?;
        Ok(Self { command, arguments, service })
    }
}

/// What a command asks of a relationship.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HaCommand {
    /// `ha-heartbeat`.
    Heartbeat,
    /// `ha-sync`.
    Sync {
        /// The peer to copy from.
        source: String,
        /// `max-period` of the `dhcp-disable`: 1 or more; none: without an end.
        max_period_s: Option<u64>,
    },
    /// `ha-scopes`.
    Scopes(Vec<String>),
    /// `ha-continue`.
    Continue,
    /// `ha-reset`.
    Reset,
    /// `ha-maintenance-start`: of all relationships.
    MaintenanceStart,
    /// `ha-maintenance-notify`.
    MaintenanceNotify {
        /// End instead of begin.
        cancel: bool,
        /// What the partner is in, or returns to; [`State::Unavailable`] when it does not say, or nothing we know.
        state: State,
    },
    /// `ha-maintenance-cancel`: of all relationships.
    MaintenanceCancel,
    /// `ha-sync-complete-notify`; the origin whose `dhcp-disable` ends, when it was given.
    SyncCompleteNotify {
        /// `origin-id`, else `origin`.
        origin: Option<u32>,
    },
}

/// A command with the relationship that it is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HaRequest {
    /// Any peer's name of the relationship; none: the first.
    pub server_name: Option<String>,
    /// What it asks.
    pub command: HaCommand,
}

impl HaRequest {
    /// Reads a command; `None` when `name` is not an HA command.
    ///
    /// # Errors
    /// The answer (result 1) to give when the arguments are not as they must be.
    pub fn parse(name: &str, arguments: Option<&Value>) -> Option<Result<Self, Answer>> {
        HA_COMMANDS.binary_search(&name).is_ok().then(|| Self::parse_known(name, arguments))
    }

    fn parse_known(name: &str, arguments: Option<&Value>) -> Result<Self, Answer> {
        let empty = Map::new();
        let map = match arguments {
            None | Some(Value::Null) => &empty,
            Some(Value::Object(map)) => map,
            Some(_) => return Err(Answer::error(format!("arguments in the '{name}' command are not a map"))),
        };
        let server_name = if name == "ha-sync" { None } else { text(map, name, "server-name")? };
        let command = match name {
            "ha-heartbeat" => HaCommand::Heartbeat,
            "ha-continue" => HaCommand::Continue,
            "ha-reset" => HaCommand::Reset,
            "ha-maintenance-start" => HaCommand::MaintenanceStart,
            "ha-maintenance-cancel" => HaCommand::MaintenanceCancel,
            "ha-maintenance-notify" => HaCommand::MaintenanceNotify {
                cancel: map
                    .get("cancel")
                    .ok_or_else(|| Answer::error(format!("'cancel' is mandatory for the '{name}' command")))?
                    .as_bool()
                    .ok_or_else(|| {
                        Answer::error(format!("'cancel' must be a boolean in the '{name}' command"))
                    })?,
                state: text(map, name, "state")?
                    .and_then(|state| State::from_name(&state))
                    .unwrap_or(State::Unavailable),
            },
            "ha-sync" => sync(map)?,
            "ha-scopes" => scopes(map)?,
            _ => HaCommand::SyncCompleteNotify {
                origin: match origin(map, name, "origin-id")? {
                    Some(origin) => Some(origin),
                    None => origin(map, name, "origin")?,
                },
            },
        };
        Ok(Self { server_name, command })
    }
}

fn text(map: &Map<String, Value>, command: &str, key: &str) -> Result<Option<String>, Answer> {
    match map.get(key) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(Answer::error(format!("'{key}' must be a string in the '{command}' command"))),
    }
}

fn origin(map: &Map<String, Value>, command: &str, key: &str) -> Result<Option<u32>, Answer> {
    map.get(key)
        .map(|value| {
            value.as_u64().and_then(|id| u32::try_from(id).ok()).ok_or_else(|| {
                Answer::error(format!("'{key}' must be an integer in the '{command}' command"))
            })
        })
        .transpose()
}

fn sync(map: &Map<String, Value>) -> Result<HaCommand, Answer> {
    let source = text(map, "ha-sync", "server-name")?
        .ok_or_else(|| Answer::error("'server-name' is mandatory for the 'ha-sync' command"))?;
    let max_period_s = match map.get("max-period") {
        None => None,
        Some(value) => Some(value.as_u64().filter(|&period| period > 0).ok_or_else(|| {
            Answer::error("'max-period' must be a positive integer in the 'ha-sync' command")
        })?),
    };
    Ok(HaCommand::Sync { source, max_period_s })
}

fn scopes(map: &Map<String, Value>) -> Result<HaCommand, Answer> {
    let list = match map.get("scopes") {
        Some(Value::Array(list)) => list,
        Some(_) => return Err(Answer::error("'scopes' must be a list in the 'ha-scopes' command")),
        None => return Err(Answer::error("'scopes' is mandatory for the 'ha-scopes' command")),
    };
    list.iter()
        .map(|scope| {
            scope
                .as_str()
                .map(str::to_owned)
                .ok_or_else(|| Answer::error("scope name must be a string in the 'ha-scopes' command"))
        })
        .collect::<Result<Vec<String>, Answer>>()
        .map(HaCommand::Scopes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_commands_are_sorted() {
        assert!(HA_COMMANDS.is_sorted());
        assert!(LISTENER_COMMANDS.is_sorted());
    }
}
