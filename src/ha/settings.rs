//! What the two servers of a pair should say alike, and where they do not: compared when they meet, for the operator's eyes.
//!
//! A Kea without `restrict-commands` gives its whole configuration (`config-get`); an Aplomado gives [`SETTINGS_COMMAND`], the same shape
//! with nothing in it that is secret. A Kea that restricts its listener tells nothing, and nothing is said about it.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::config::RelationshipConfig;

/// Gives what is compared here; between two Aplomados.
pub const SETTINGS_COMMAND: &str = "aplomado-settings-get";

/// The delays and limits by which both must judge alike, with Kea's defaults.
const NUMBERS: [(&str, u64); 4] = [
    ("heartbeat-delay", 10_000),
    ("max-response-delay", 60_000),
    ("max-ack-delay", 10_000),
    ("max-unacked-clients", 10),
];

/// What one server says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    this: String,
    mode: String,
    numbers: [u64; NUMBERS.len()],
    /// Peers by name, with their roles.
    peers: BTreeMap<String, String>,
    /// Subnets by number.
    subnets: BTreeMap<u64, String>,
}

impl Settings {
    /// What this server says of a relationship; `subnets` are those that it has for it.
    pub fn of(config: &RelationshipConfig, subnets: impl IntoIterator<Item = (u64, String)>) -> Self {
        let peers = config.peers.iter().map(|peer| (peer.name.clone(), peer.role.to_string())).collect();
        Self {
            this: config.own().name.clone(),
            mode: config.mode.to_string(),
            numbers: [
                config.heartbeat_delay_ms,
                config.max_response_delay_ms,
                config.max_ack_delay_ms,
                u64::from(config.max_unacked_clients),
            ],
            peers,
            subnets: subnets.into_iter().collect(),
        }
    }

    /// The same in the shape of `config-get`.
    #[must_use]
    pub fn to_value(list: &[Self]) -> Value {
        let relationships: Vec<Value> = list.iter().map(Self::relationship).collect();
        let subnets = list.iter().flat_map(|one| one.subnets.iter().map(move |subnet| (subnet, &one.this)));
        let subnets: Vec<Value> = subnets
            .map(|((id, subnet), this)| {
                json!({ "id": id, "subnet": subnet, "user-context": { "ha-server-name": this } })
            })
            .collect();
        json!({ "Dhcp4": {
            "hooks-libraries": [{ "parameters": { "high-availability": relationships } }],
            "subnet4": subnets,
        } })
    }

    fn relationship(&self) -> Value {
        let peers: Vec<Value> =
            self.peers.iter().map(|(name, role)| json!({ "name": name, "role": role })).collect();
        let mut map = json!({ "this-server-name": self.this, "mode": self.mode, "peers": peers });
        for ((name, _), value) in NUMBERS.iter().zip(self.numbers) {
            map[*name] = json!(value);
        }
        map
    }

    /// What a server says, in the shape of `config-get`, of the relationship that has a peer called `peer`; nothing when it says
    /// nothing of such a one.
    #[must_use]
    pub fn read(arguments: &Value, peer: &str) -> Option<Self> {
        let dhcp4 = arguments.get("Dhcp4")?;
        let libraries = dhcp4.get("hooks-libraries")?.as_array()?;
        let list =
            libraries.iter().find_map(|one| one.pointer("/parameters/high-availability")?.as_array())?;
        let text = |map: &Value, key: &str| map.get(key).and_then(Value::as_str).map(str::to_owned);
        let peers_of = |map: &Value| -> BTreeMap<String, String> {
            let peers = map.get("peers").and_then(Value::as_array).into_iter().flatten();
            peers.filter_map(|peer| Some((text(peer, "name")?, text(peer, "role")?))).collect()
        };
        let map = list.iter().find(|map| peers_of(map).contains_key(peer))?;
        // Of a hub only the subnets that name a peer of this relationship are of interest.
        let peers = peers_of(map);
        let name_of = |map: &Value| text(map.get("user-context")?, "ha-server-name");
        let networks = dhcp4.get("shared-networks").and_then(Value::as_array).into_iter().flatten();
        let subnets = networks.chain([dhcp4]).flat_map(|network| {
            let inner = network.get("subnet4").and_then(Value::as_array).into_iter().flatten();
            inner.map(move |subnet| (subnet, name_of(subnet).or_else(|| name_of(network))))
        });
        let subnets = subnets
            .filter(|(_, name)| list.len() == 1 || name.as_ref().is_some_and(|name| peers.contains_key(name)))
            .filter_map(|(subnet, _)| Some((subnet.get("id")?.as_u64()?, text(subnet, "subnet")?)))
            .collect();
        Some(Self {
            this: text(map, "this-server-name")?,
            mode: text(map, "mode")?,
            numbers: NUMBERS.map(|(name, default)| map.get(name).and_then(Value::as_u64).unwrap_or(default)),
            peers,
            subnets,
        })
    }

    /// Where the partner says something else, in words; empty when all is alike.
    #[must_use]
    pub fn differences(&self, partner: &Self) -> Vec<String> {
        let mut found = Vec::new();
        if self.this == partner.this {
            found.push(format!("both servers say that they are '{}'", self.this));
        }
        if self.mode != partner.mode {
            found.push(format!("mode is {} here, {} there", self.mode, partner.mode));
        }
        for ((name, _), (here, there)) in NUMBERS.iter().zip(self.numbers.iter().zip(partner.numbers)) {
            if *here != there {
                found.push(format!("{name} is {here} here, {there} there"));
            }
        }
        compare(&mut found, "peer", &self.peers, &partner.peers);
        compare(&mut found, "subnet", &self.subnets, &partner.subnets);
        found
    }
}

fn compare<K: Ord + std::fmt::Display>(
    found: &mut Vec<String>,
    what: &str,
    here: &BTreeMap<K, String>,
    there: &BTreeMap<K, String>,
) {
    for (key, value) in here {
        match there.get(key) {
            Some(other) if other == value => {}
            Some(other) => found.push(format!("{what} {key} is {value} here, {other} there")),
            None => found.push(format!("{what} {key} ({value}) is only here")),
        }
    }
    for (key, value) in there.iter().filter(|(key, _)| !here.contains_key(key)) {
        found.push(format!("{what} {key} ({value}) is only there"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ha::config::parse;

    fn settings(this: &str, extra: &Value, subnets: &[(u64, &str)]) -> Settings {
        let mut map = json!({ "this-server-name": this, "mode": "hot-standby", "peers": [
            { "name": "one", "url": "http://10.9.0.1:8005/", "role": "primary", "basic-auth-user": "u",
              "basic-auth-password": "geheim" },
            { "name": "two", "url": "http://10.9.0.2:8005/", "role": "standby" } ] });
        for (key, value) in extra.as_object().expect("a map") {
            map[key] = value.clone();
        }
        let parsed = parse(&json!([map]), &mut |_| Ok(String::new())).expect("valid");
        Settings::of(&parsed.relationships[0], subnets.iter().map(|(id, text)| (*id, (*text).to_owned())))
    }

    #[test]
    fn what_is_sent_is_read_again_and_holds_no_secret() {
        let two = settings("two", &json!({}), &[(1, "10.1.0.0/16"), (2, "10.2.0.0/16")]);
        let value = Settings::to_value(std::slice::from_ref(&two));
        assert!(!value.to_string().contains("geheim"));
        assert_eq!(Settings::read(&value, "one"), Some(two.clone()));
        assert_eq!(Settings::read(&value, "three"), None);
        assert_eq!(
            settings("one", &json!({}), &[(1, "10.1.0.0/16"), (2, "10.2.0.0/16")]).differences(&two),
            [""; 0]
        );
    }

    #[test]
    fn a_kea_leaves_out_what_is_the_default() {
        let kea = json!({ "Dhcp4": {
            "hooks-libraries": [ { "library": "libdhcp_lease_cmds.so" },
                { "library": "libdhcp_ha.so", "parameters": { "high-availability": [
                    { "this-server-name": "two", "mode": "hot-standby", "max-ack-delay": 5000, "peers": [
                        { "name": "one", "url": "http://10.9.0.1:8005/", "role": "primary" },
                        { "name": "two", "url": "http://10.9.0.2:8005/", "role": "standby" } ] } ] } } ],
            "shared-networks": [ { "name": "n", "subnet4": [ { "id": 7, "subnet": "10.7.0.0/24" } ] } ],
            "subnet4": [ { "id": 1, "subnet": "10.1.0.0/24" }, { "id": 3, "subnet": "10.3.0.0/24" } ] } });
        let kea = Settings::read(&kea, "one").expect("a relationship with us");
        let here = settings("one", &json!({}), &[(1, "10.1.0.0/16"), (2, "10.2.0.0/16"), (7, "10.7.0.0/24")]);
        assert_eq!(
            here.differences(&kea),
            [
                "max-ack-delay is 10000 here, 5000 there",
                "subnet 1 is 10.1.0.0/16 here, 10.1.0.0/24 there",
                "subnet 2 (10.2.0.0/16) is only here",
                "subnet 3 (10.3.0.0/24) is only there",
            ]
        );
    }

    #[test]
    fn of_a_hub_only_its_subnets_for_the_relationship_count() {
        let other = json!({ "this-server-name": "two-b", "peers": [
            { "name": "three", "url": "http://10.9.0.3:8005/", "role": "primary" },
            { "name": "two-b", "url": "http://10.9.0.2:8006/", "role": "standby" } ] });
        let hub = Settings::to_value(&[
            settings("two", &json!({}), &[(1, "10.1.0.0/16")]),
            settings("two-b", &other, &[(2, "10.2.0.0/16")]),
        ]);
        let there = Settings::read(&hub, "one").expect("a relationship with us");
        assert_eq!(settings("one", &json!({}), &[(1, "10.1.0.0/16")]).differences(&there), [""; 0]);
    }

    #[test]
    fn names_and_roles_are_compared() {
        let here = settings("one", &json!({}), &[]);
        let swapped = json!({ "peers": [
            { "name": "one", "url": "http://10.9.0.1:8005/", "role": "standby" },
            { "name": "two", "url": "http://10.9.0.2:8005/", "role": "primary" },
            { "name": "three", "url": "http://10.9.0.3:8005/", "role": "backup" } ] });
        let found = here.differences(&settings("one", &swapped, &[]));
        assert_eq!(
            found,
            [
                "both servers say that they are 'one'",
                "peer one is primary here, standby there",
                "peer two is standby here, primary there",
                "peer three (backup) is only there",
            ]
        );
    }
}
