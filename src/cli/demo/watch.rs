//! What the servers say of themselves: a thread per server asks for its state, and at the end both are asked for their leases.

use std::collections::BTreeMap;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::cli::ctl::ask_unix;
use crate::control::json;

/// How often a server is asked.
const PERIOD: Duration = Duration::from_millis(20);
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// What a server said last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// Its HA state.
    pub(super) state: String,
    /// The scopes that it serves.
    pub(super) scopes: Vec<String>,
}

/// The watch over one server; the thread ends soon after it.
pub(super) struct Watch {
    /// Nothing when the server does not answer.
    seen: Arc<Mutex<Option<Seen>>>,
    ended: Arc<AtomicBool>,
}

impl Watch {
    pub(super) fn over(socket: PathBuf) -> io::Result<Self> {
        let watch = Self { seen: Arc::default(), ended: Arc::default() };
        let (seen, ended) = (Arc::downgrade(&watch.seen), Arc::clone(&watch.ended));
        std::thread::Builder::new().name("watch".to_owned()).spawn(move || look(&socket, &seen, &ended))?;
        Ok(watch)
    }

    /// What the server said last; nothing when it does not answer.
    pub(super) fn seen(&self) -> Option<Seen> {
        self.seen.lock().clone()
    }

    /// Whether the server is in this state.
    pub(super) fn is_in(&self, state: &str) -> bool {
        self.seen.lock().as_ref().is_some_and(|seen| seen.state == state)
    }

    /// The server was killed: what it said does not hold any more.
    pub(super) fn forget(&self) {
        *self.seen.lock() = None;
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
    }
}

fn look(socket: &Path, seen: &Weak<Mutex<Option<Seen>>>, ended: &AtomicBool) {
    while !ended.load(Ordering::Relaxed) {
        let said = ask(socket, "status-get").ok().and_then(|arguments| {
            let local = &arguments["high-availability"][0]["ha-servers"]["local"];
            let scopes = local["scopes"].as_array()?.iter().filter_map(Value::as_str);
            Some(Seen {
                state: local["state"].as_str()?.to_owned(),
                scopes: scopes.map(str::to_owned).collect(),
            })
        });
        let Some(seen) = seen.upgrade() else { return };
        *seen.lock() = said;
        drop(seen);
        std::thread::park_timeout(PERIOD);
    }
}

/// The arguments of the answer to a command.
fn ask(socket: &Path, command: &str) -> Result<Value, String> {
    let mut request = Vec::new();
    json::print(&json!({ "command": command }), &mut request);
    let answer = ask_unix(socket, PATIENCE, &request).map_err(|error| error.to_string())?;
    let mut answer = json::parse(&answer).map_err(|error| error.to_string())?;
    match answer["result"].as_i64() {
        Some(0 | 3) => Ok(answer["arguments"].take()),
        _ => Err(format!("{command}: {answer}")),
    }
}

/// All leases of a server, by address.
pub(super) fn leases(socket: &Path) -> Result<BTreeMap<Ipv4Addr, Value>, String> {
    let mut arguments = ask(socket, "lease4-get-all")?;
    let Value::Array(leases) = arguments["leases"].take() else { return Err("no list of leases".to_owned()) };
    let mut by_address = BTreeMap::new();
    for lease in leases {
        let address = lease["ip-address"].as_str().and_then(|text| text.parse().ok());
        by_address.insert(address.ok_or_else(|| format!("a lease without address: {lease}"))?, lease);
    }
    Ok(by_address)
}

/// What is wrong with two databases: leases that one has and the other has not or has otherwise.
pub(super) fn differences(databases: [&BTreeMap<Ipv4Addr, Value>; 2], names: [&str; 2]) -> Vec<String> {
    let mut found = Vec::new();
    for (address, lease) in databases[0] {
        match databases[1].get(address) {
            None => found.push(format!("{} has {address} and {} has not", names[0], names[1])),
            Some(other) if other != lease => {
                found.push(format!("{address}: {} has {lease}, {} has {other}", names[0], names[1]));
            }
            Some(_) => {}
        }
    }
    let only = databases[1].keys().filter(|address| !databases[0].contains_key(*address));
    found.extend(only.map(|address| format!("{} has {address} and {} has not", names[1], names[0])));
    found
}

/// The acknowledged leases that a database does not have as they were acknowledged.
pub(super) fn missing(
    database: &BTreeMap<Ipv4Addr, Value>,
    name: &str,
    ledger: impl Iterator<Item = ([u8; 6], Ipv4Addr)>,
) -> Vec<String> {
    let missing = ledger.filter_map(|(mac, address)| {
        let expected = mac.map(|octet| format!("{octet:02x}")).join(":");
        let found = database.get(&address);
        if found.is_some_and(|lease| lease["hw-address"] == expected.as_str() && lease["state"] == 0) {
            return None;
        }
        let found = found.map_or_else(|| "nothing".to_owned(), Value::to_string);
        Some(format!("{expected} holds {address}, but {name} has {found}"))
    });
    missing.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn database(leases: &[(u8, &str, u64)]) -> BTreeMap<Ipv4Addr, Value> {
        let lease = |(last, mac, cltt): &(u8, &str, u64)| {
            (Ipv4Addr::new(10, 0, 0, *last), json!({ "hw-address": mac, "state": 0, "cltt": cltt }))
        };
        leases.iter().map(lease).collect()
    }

    #[test]
    fn databases_are_compared_both_ways_and_lease_by_lease() {
        let one = database(&[(1, "02:00:00:00:00:01", 7), (2, "02:00:00:00:00:02", 7)]);
        assert_eq!(differences([&one, &one], ["one", "two"]), Vec::<String>::new());
        let two = database(&[(2, "02:00:00:00:00:02", 8), (3, "02:00:00:00:00:03", 7)]);
        let found = differences([&one, &two], ["one", "two"]);
        assert_eq!(found.len(), 3, "{found:?}");
        assert_eq!(found[0], "one has 10.0.0.1 and two has not");
        assert!(found[1].starts_with("10.0.0.2: one has {"), "{found:?}");
        assert_eq!(found[2], "two has 10.0.0.3 and one has not");
    }

    #[test]
    fn a_lease_of_somebody_else_or_in_another_state_is_missing() {
        let mut one = database(&[(1, "02:00:00:00:00:01", 7), (2, "02:00:00:00:00:09", 7)]);
        let ledger = |last: u8| ([2, 0, 0, 0, 0, last], Ipv4Addr::new(10, 0, 0, last));
        assert_eq!(missing(&one, "one", [ledger(1)].into_iter()), Vec::<String>::new());
        assert_eq!(missing(&one, "one", [ledger(2), ledger(3)].into_iter()).len(), 2);
        if let Some(lease) = one.get_mut(&Ipv4Addr::new(10, 0, 0, 1)) {
            lease["state"] = json!(3);
        }
        assert_eq!(missing(&one, "one", [ledger(1)].into_iter()).len(), 1);
    }
}
