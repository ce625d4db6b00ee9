//! From JSON values to relationships.

use std::fmt::Write as _;

use serde_json::{Map, Value};

use super::check::{check_all, check_relationship};
use super::{
    Credentials, Finding, MultiThreading, Pause, PeerConfig, PeerUrl, RelationshipConfig, TlsFiles, Version,
};
use crate::ha::states::{Mode, Role, STATE_COUNT, State};
use crate::ha::view::PEERS_MAX;

/// The largest delay that could be seconds of the guide of 2018: nobody means so few milliseconds.
const SECONDS_MAX: u64 = 199;
/// Partners before this take a server in `communication-recovery` for unavailable.
const RECOVERY_SINCE: Version = Version::new(1, 9);
/// Most relationships: their origins are 1000 to 1999.
const RELATIONSHIPS_MAX: usize = 1000;

const RELATIONSHIP_KEYS: [&str; 24] = [
    "cert-file",
    "comment",
    "delay-unit",
    "delayed-updates-limit",
    "heartbeat-delay",
    "key-file",
    "max-ack-delay",
    "max-rejected-lease-updates",
    "max-response-delay",
    "max-unacked-clients",
    "mode",
    "multi-threading",
    "peers",
    "require-client-certs",
    "restrict-commands",
    "send-lease-updates",
    "state-machine",
    "sync-leases",
    "sync-page-limit",
    "sync-timeout",
    "this-server-name",
    "trust-anchor",
    "user-context",
    "wait-backup-ack",
];
const PEER_KEYS: [&str; 14] = [
    "auto-failover",
    "basic-auth-password",
    "basic-auth-password-file",
    "basic-auth-user",
    "basic-auth-user-file",
    "cert-file",
    "comment",
    "compatibility",
    "key-file",
    "name",
    "role",
    "trust-anchor",
    "url",
    "user-context",
];
const THREADING_KEYS: [&str; 4] =
    ["enable-multi-threading", "http-client-threads", "http-dedicated-listener", "http-listener-threads"];

/// Reads a file of credentials: its content, or why it cannot be read.
pub(super) type ReadFile<'a> = &'a mut dyn FnMut(&str) -> Result<String, String>;

/// A valid configuration, and what is worth saying about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parsed {
    /// One or more.
    pub relationships: Vec<RelationshipConfig>,
    /// Remarks.
    pub warnings: Vec<Finding>,
}

/// Parses and checks the value of `high-availability`. `read_file` reads a file of credentials.
///
/// # Errors
/// Everything that is wrong, at least one finding.
pub fn parse(
    value: &Value,
    read_file: &mut dyn FnMut(&str) -> Result<String, String>,
) -> Result<Parsed, Vec<Finding>> {
    let mut notes = Notes::default();
    let mut relationships = Vec::new();
    match value {
        Value::Array(list) if list.is_empty() => {
            notes.error("", "expected at least one relationship, found an empty list")
        }
        Value::Array(list) if list.len() > RELATIONSHIPS_MAX => {
            notes.error(
                "",
                format!("expected at most {RELATIONSHIPS_MAX} relationships, found {}", list.len()),
            );
        }
        Value::Array(list) => {
            for (index, entry) in (0u16..).zip(list) {
                relationships.extend(relationship(index, entry, &mut notes, read_file));
            }
            if relationships.len() == list.len() {
                check_all(&relationships, &mut notes);
            }
        }
        other => notes.error("", format!("expected a list of relationships, found {}", kind(other))),
    }
    if notes.errors.is_empty() {
        Ok(Parsed { relationships, warnings: notes.warnings })
    } else {
        Err(notes.errors)
    }
}

/// Findings as they are collected.
#[derive(Debug, Default)]
pub(super) struct Notes {
    errors: Vec<Finding>,
    warnings: Vec<Finding>,
}

impl Notes {
    pub(super) fn error(&mut self, path: &str, text: impl Into<String>) {
        self.errors.push(Finding { path: path.to_owned(), text: text.into() });
    }

    pub(super) fn warn(&mut self, path: &str, text: impl Into<String>) {
        self.warnings.push(Finding { path: path.to_owned(), text: text.into() });
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(number) if number.is_f64() => "a number with a fraction",
        Value::Number(_) => "an integer",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "a map",
    }
}

/// A map being read: every access says where it is.
struct Entry<'a> {
    path: String,
    map: &'a Map<String, Value>,
}

impl<'a> Entry<'a> {
    fn new(path: String, value: &'a Value, what: &str, notes: &mut Notes) -> Option<Self> {
        if let Value::Object(map) = value {
            Some(Self { path, map })
        } else {
            notes.error(&path, format!("expected {what}, found {}", kind(value)));
            None
        }
    }

    fn at(&self, key: &str) -> String {
        format!("{}/{key}", self.path)
    }

    fn warn_unknown(&self, known: &[&str], notes: &mut Notes) {
        for key in self.map.keys().filter(|key| !known.contains(&key.as_str())) {
            let mut text = format!("the key \"{key}\" is not known and has no effect");
            if let Some(near) = nearest(key, known) {
                let _ = write!(text, "; did you mean \"{near}\"?");
            }
            notes.warn(&self.at(key), text);
        }
    }

    fn string(&self, key: &str, notes: &mut Notes) -> Option<&'a str> {
        match self.map.get(key)? {
            Value::String(text) => Some(text),
            other => {
                notes.error(&self.at(key), format!("expected a string, found {}", kind(other)));
                None
            }
        }
    }

    /// A string that must be there.
    fn required(&self, key: &str, notes: &mut Notes) -> Option<&'a str> {
        if !self.map.contains_key(key) {
            notes.error(&self.path, format!("expected the key \"{key}\", found none"));
        }
        self.string(key, notes)
    }

    fn boolean(&self, key: &str, default: bool, notes: &mut Notes) -> bool {
        match self.map.get(key) {
            None => default,
            Some(Value::Bool(set)) => *set,
            Some(other) => {
                notes.error(&self.at(key), format!("expected true or false, found {}", kind(other)));
                default
            }
        }
    }

    fn integer(&self, key: &str, notes: &mut Notes) -> Option<u32> {
        let value = self.map.get(key)?;
        let number = match value {
            Value::Number(number) => number.as_u64().and_then(|number| u32::try_from(number).ok()),
            _ => None,
        };
        if number.is_none() {
            let found = if value.is_number() { value.to_string() } else { kind(value).to_owned() };
            notes.error(&self.at(key), format!("expected an integer from 0 to {}, found {found}", u32::MAX));
        }
        number
    }

    fn named<T>(
        &self,
        key: &str,
        names: &[&str],
        of: impl Fn(&str) -> Option<T>,
        notes: &mut Notes,
    ) -> Option<T> {
        let text = self.required(key, notes)?;
        let found = of(text);
        if found.is_none() {
            notes.error(&self.at(key), format!("expected one of {}, found \"{text}\"", names.join(", ")));
        }
        found
    }
}

fn relationship(
    index: u16,
    value: &Value,
    notes: &mut Notes,
    read_file: ReadFile<'_>,
) -> Option<RelationshipConfig> {
    let errors_before = notes.errors.len();
    let entry = Entry::new(format!("[{index}]"), value, "a relationship, a map", notes)?;
    entry.warn_unknown(&RELATIONSHIP_KEYS, notes);

    let mode = entry.named("mode", &Mode::ALL.map(Mode::name), Mode::from_name, notes);
    let this_name = entry.required("this-server-name", notes).map(str::trim);
    if this_name == Some("") {
        notes.error(&entry.at("this-server-name"), "expected a name, found a blank one");
    }
    let delays = delays(&entry, notes);
    let tls = TlsParts::read(&entry, notes);
    let peers = peers(&entry, &tls, notes, read_file);
    let this = match (this_name, &peers) {
        (Some(name), Some(peers)) if !name.is_empty() => {
            let this = peers.iter().position(|peer| peer.name == name);
            if this.is_none() {
                notes.error(
                    &entry.at("this-server-name"),
                    format!("expected the name of one of the peers, found \"{name}\""),
                );
            }
            this
        }
        _ => None,
    };
    let limit = entry.integer("delayed-updates-limit", notes);
    let sync_page_limit = entry.integer("sync-page-limit", notes).unwrap_or(10_000);
    if sync_page_limit == 0 {
        notes.error(
            &entry.at("sync-page-limit"),
            "expected 1 or more, found 0: no synchronisation could ever succeed",
        );
    }
    let sync_timeout = entry.integer("sync-timeout", notes).unwrap_or(60_000);
    let max_unacked_clients = entry.integer("max-unacked-clients", notes).unwrap_or(10);
    let max_rejected_lease_updates = entry.integer("max-rejected-lease-updates", notes).unwrap_or(10);
    let send_lease_updates = entry.boolean("send-lease-updates", true, notes);
    let sync_leases = entry.boolean("sync-leases", true, notes);
    let wait_backup_ack = entry.boolean("wait-backup-ack", false, notes);
    let require_client_certs = entry.boolean("require-client-certs", true, notes);
    let restrict_commands = entry.boolean("restrict-commands", true, notes);
    let multi_threading = multi_threading(&entry, notes);
    let pauses = pauses(&entry, notes);

    let (mode, peers, this) = (mode?, peers?, this.unwrap_or(usize::MAX));
    let mut config = RelationshipConfig {
        index,
        mode,
        this,
        peers,
        heartbeat_delay_ms: delays.heartbeat_ms,
        max_response_delay_ms: delays.response_ms,
        max_ack_delay_ms: delays.ack_ms,
        max_unacked_clients,
        max_rejected_lease_updates,
        delayed_updates_limit: limit.unwrap_or(if mode == Mode::LoadBalancing { 100 } else { 0 }),
        send_lease_updates,
        sync_leases,
        sync_timeout_ms: u64::from(sync_timeout),
        sync_page_limit,
        wait_backup_ack,
        multi_threading,
        require_client_certs,
        restrict_commands,
        pauses,
    };
    check_relationship(&config, &entry.path, notes);
    let partner = (this < config.peers.len()).then(|| config.partner()).flatten();
    let partner = partner.and_then(|partner| config.peers[partner].compatibility);
    if config.delayed_updates_limit > 0 && partner.is_some_and(|version| version < RECOVERY_SINCE) {
        notes.warn(
            &entry.at("delayed-updates-limit"),
            format!("taken as 0: a partner before {RECOVERY_SINCE} does not know communication-recovery"),
        );
        config.delayed_updates_limit = 0;
    }
    (notes.errors.len() == errors_before).then_some(config)
}

struct Delays {
    heartbeat_ms: u64,
    response_ms: u64,
    ack_ms: u64,
}

/// The three delays. In the guide of 2018 they are seconds; in every version of Kea they are milliseconds.
fn delays(entry: &Entry<'_>, notes: &mut Notes) -> Delays {
    let heartbeat = entry.integer("heartbeat-delay", notes).map(u64::from);
    let response = entry.integer("max-response-delay", notes).map(u64::from);
    let ack = entry.integer("max-ack-delay", notes).map(u64::from);
    let short = |delay: u64| (1..=SECONDS_MAX).contains(&delay);
    let guessed = heartbeat.is_some_and(short) && response.is_some_and(short) && ack.is_none_or(short);
    let seconds = match entry.string("delay-unit", notes) {
        Some("s") => true,
        Some("ms") => false,
        Some(other) => {
            notes.error(&entry.at("delay-unit"), format!("expected \"s\" or \"ms\", found \"{other}\""));
            false
        }
        None => {
            if guessed {
                notes.warn(
                    &entry.path,
                    "heartbeat-delay, max-response-delay and max-ack-delay are so small that they are taken as seconds; \
                     write them in milliseconds, or add \"delay-unit\": \"s\" or \"ms\"",
                );
            }
            guessed
        }
    };
    let unit = if seconds { 1000 } else { 1 };
    let delays = Delays {
        heartbeat_ms: heartbeat.map_or(10_000, |delay| delay * unit),
        response_ms: response.map_or(60_000, |delay| delay * unit),
        ack_ms: ack.map_or(10_000, |delay| delay * unit),
    };
    if delays.heartbeat_ms != 0 && delays.response_ms <= delays.heartbeat_ms {
        notes.warn(
            &entry.path,
            format!(
                "max-response-delay ({} ms) should exceed heartbeat-delay ({} ms): the partner looks silent between two heartbeats",
                delays.response_ms, delays.heartbeat_ms
            ),
        );
    }
    delays
}

fn multi_threading(entry: &Entry<'_>, notes: &mut Notes) -> MultiThreading {
    let default = MultiThreading::default();
    let Some(value) = entry.map.get("multi-threading") else { return default };
    let Some(block) = Entry::new(entry.at("multi-threading"), value, "a map", notes) else { return default };
    block.warn_unknown(&THREADING_KEYS, notes);
    MultiThreading {
        enabled: block.boolean("enable-multi-threading", default.enabled, notes),
        dedicated_listener: block.boolean("http-dedicated-listener", default.dedicated_listener, notes),
        listener_threads: block.integer("http-listener-threads", notes).unwrap_or(0),
        client_threads: block.integer("http-client-threads", notes).unwrap_or(0),
    }
}

fn pauses(entry: &Entry<'_>, notes: &mut Notes) -> [Pause; STATE_COUNT] {
    let mut pauses = [Pause::Never; STATE_COUNT];
    let mut seen = [false; STATE_COUNT];
    let Some(value) = entry.map.get("state-machine") else { return pauses };
    let Some(machine) = Entry::new(entry.at("state-machine"), value, "a map", notes) else { return pauses };
    machine.warn_unknown(&["states"], notes);
    let list = match machine.map.get("states") {
        None => return pauses,
        Some(Value::Array(list)) => list,
        Some(other) => {
            notes.error(&machine.at("states"), format!("expected a list, found {}", kind(other)));
            return pauses;
        }
    };
    // `unavailable` is never a state of this server.
    let own_state = |name: &str| State::from_name(name).filter(|&state| state != State::Unavailable);
    let names: Vec<&str> = State::ALL[..STATE_COUNT - 1].iter().map(|state| state.name()).collect();
    for (position, item) in list.iter().enumerate() {
        let path = format!("{}[{position}]", machine.at("states"));
        let Some(item) = Entry::new(path, item, "a map", notes) else { continue };
        item.warn_unknown(&["pause", "state"], notes);
        let state = item.named("state", &names, own_state, notes);
        let pause = match item.string("pause", notes) {
            None | Some("never") => Pause::Never,
            Some("once") => Pause::Once,
            Some("always") => Pause::Always,
            Some(other) => {
                notes.error(
                    &item.at("pause"),
                    format!("expected one of always, never, once, found \"{other}\""),
                );
                Pause::Never
            }
        };
        let Some(state) = state else { continue };
        if std::mem::replace(&mut seen[state.index()], true) {
            notes.error(&item.path, format!("expected each state once, found \"{state}\" again"));
        }
        pauses[state.index()] = pause;
    }
    pauses
}

/// The three TLS parameters as written at one level: absent, empty (unset), or a value.
struct TlsParts<'a> {
    trust_anchor: Option<&'a str>,
    cert_file: Option<&'a str>,
    key_file: Option<&'a str>,
}

impl<'a> TlsParts<'a> {
    fn read(entry: &Entry<'a>, notes: &mut Notes) -> Self {
        Self {
            trust_anchor: entry.string("trust-anchor", notes),
            cert_file: entry.string("cert-file", notes),
            key_file: entry.string("key-file", notes),
        }
    }

    /// What is in force for a peer: its own value where there is one (an empty one unsets), else the relationship's.
    fn effective(&self, inherited: &Self, path: &str, notes: &mut Notes) -> Option<TlsFiles> {
        let pick =
            |own: Option<&'a str>, above: Option<&'a str>| own.or(above).filter(|name| !name.is_empty());
        let parts = [
            ("trust-anchor", pick(self.trust_anchor, inherited.trust_anchor)),
            ("cert-file", pick(self.cert_file, inherited.cert_file)),
            ("key-file", pick(self.key_file, inherited.key_file)),
        ];
        match parts {
            [(_, Some(trust_anchor)), (_, Some(cert_file)), (_, Some(key_file))] => Some(TlsFiles {
                trust_anchor: trust_anchor.to_owned(),
                cert_file: cert_file.to_owned(),
                key_file: key_file.to_owned(),
            }),
            [(_, None), (_, None), (_, None)] => None,
            _ => {
                let absent: Vec<&str> =
                    parts.iter().filter(|part| part.1.is_none()).map(|part| part.0).collect();
                notes.error(
                    path,
                    format!(
                        "expected all of trust-anchor, cert-file, key-file or none, found no {}",
                        absent.join(", no ")
                    ),
                );
                None
            }
        }
    }
}

fn peers(
    entry: &Entry<'_>,
    tls: &TlsParts<'_>,
    notes: &mut Notes,
    read_file: ReadFile<'_>,
) -> Option<Vec<PeerConfig>> {
    let path = entry.at("peers");
    let list = match entry.map.get("peers") {
        Some(Value::Array(list)) => list,
        Some(other) => {
            notes.error(&path, format!("expected a list of peers, found {}", kind(other)));
            return None;
        }
        None => {
            notes.error(&entry.path, "expected the key \"peers\", found none");
            return None;
        }
    };
    if list.len() > PEERS_MAX {
        notes.error(&path, format!("expected at most {PEERS_MAX} peers, found {}", list.len()));
        return None;
    }
    let mut peers: Vec<PeerConfig> = Vec::new();
    for (position, value) in list.iter().enumerate() {
        let Some(item) = Entry::new(format!("{path}[{position}]"), value, "a peer, a map", notes) else {
            continue;
        };
        let Some(peer) = peer(&item, tls, notes, read_file) else { continue };
        if peers.iter().any(|other| other.name == peer.name) {
            notes.error(&item.at("name"), format!("expected each name once, found \"{}\" again", peer.name));
        }
        peers.push(peer);
    }
    (peers.len() == list.len()).then_some(peers)
}

fn peer(
    item: &Entry<'_>,
    inherited: &TlsParts<'_>,
    notes: &mut Notes,
    read_file: ReadFile<'_>,
) -> Option<PeerConfig> {
    item.warn_unknown(&PEER_KEYS, notes);
    let name = item.required("name", notes).map(str::trim);
    if name == Some("") {
        notes.error(&item.at("name"), "expected a name, found a blank one");
    }
    let role = item.named("role", &Role::ALL.map(Role::name), Role::from_name, notes);
    let url = item.required("url", notes).and_then(|text| match PeerUrl::parse(text) {
        Ok(url) => Some(url),
        Err(error) => {
            notes.error(&item.at("url"), format!("{error}, found \"{text}\""));
            None
        }
    });
    let tls = TlsParts::read(item, notes).effective(inherited, &item.path, notes);
    if let Some(url) = url.as_ref().filter(|url| url.https && tls.is_none()) {
        notes.error(
            &item.at("url"),
            format!(
                "expected trust-anchor, cert-file and key-file for an https URL, found none for \"{}\"",
                url.text
            ),
        );
    }
    let auto_failover = item.boolean("auto-failover", true, notes);
    let credentials = credentials(item, notes, read_file);
    let compatibility = item.string("compatibility", notes).and_then(|text| {
        let version = Version::parse(text);
        if version.is_none() {
            notes.error(
                &item.at("compatibility"),
                format!("expected a version such as \"2.2\", found \"{text}\""),
            );
        }
        version
    });
    let name = name.filter(|name| !name.is_empty())?;
    Some(PeerConfig {
        name: name.to_owned(),
        url: url?,
        role: role?,
        auto_failover,
        credentials,
        tls,
        compatibility,
    })
}

/// User and password, each as a value or as the first line of a file; an empty user means no authentication.
fn credentials(item: &Entry<'_>, notes: &mut Notes, read_file: ReadFile<'_>) -> Option<Credentials> {
    let mut part = |value_key: &str, file_key: &str| -> Option<String> {
        let value = item.string(value_key, notes);
        let file = item.string(file_key, notes);
        match (value, file) {
            (Some(_), Some(_)) => {
                notes.error(&item.path, format!("expected {value_key} or {file_key}, found both"));
                None
            }
            (Some(value), None) => Some(value.to_owned()),
            (None, Some(file)) => match read_file(file) {
                Ok(content) => Some(content.lines().next().unwrap_or("").to_owned()),
                Err(reason) => {
                    notes.error(&item.at(file_key), format!("cannot read \"{file}\": {reason}"));
                    None
                }
            },
            (None, None) => None,
        }
    };
    let user = part("basic-auth-user", "basic-auth-user-file").unwrap_or_default();
    let password = part("basic-auth-password", "basic-auth-password-file").unwrap_or_default();
    if user.contains(':') {
        notes.error(&item.path, "expected a basic-auth-user without a colon, found one");
    }
    (!user.is_empty()).then_some(Credentials { user, password })
}

/// The known key that `key` is closest to, when it is close enough to be a slip.
fn nearest<'k>(key: &str, known: &[&'k str]) -> Option<&'k str> {
    let (distance, near) = known.iter().map(|candidate| (edits(key, candidate), *candidate)).min()?;
    (distance <= 3 && distance * 3 <= near.len()).then_some(near)
}

/// Levenshtein distance by octets.
fn edits(left: &str, right: &str) -> usize {
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (line, from) in left.bytes().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], line + 1);
        for (column, to) in right.bytes().enumerate() {
            let replaced = diagonal + usize::from(from != to);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[right.len()]
}
