//! What the server runs on: interfaces, lease file, timers, threads, and what is refused or only kept.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr};

use super::{Builder, Fields};
use crate::config::json::{Map, Placed, Value};
use crate::config::tree::{
    Compatibility, DhcpDdns, ExpiredLeases, ExtendedInfoChecks, IdentifierKind, InterfaceChoice,
    InterfacesConfig, LeaseChecks, LeaseDatabase, MultiThreading, QueueControl, SanityChecks, SocketType,
};

/// Kea's order of lookup; `flex-id` is asked for by name only.
const DEFAULT_IDENTIFIERS: [IdentifierKind; 4] =
    [IdentifierKind::HwAddress, IdentifierKind::Duid, IdentifierKind::CircuitId, IdentifierKind::ClientId];

impl Builder<'_> {
    pub(super) fn interfaces_config(&mut self, map: &Map) -> InterfacesConfig {
        let Some(config) = map.child("interfaces-config") else {
            return InterfacesConfig::default();
        };
        let list_at = config.member("interfaces").map(crate::config::json::Member::place);
        let mut chosen = Vec::new();
        let mut names = HashSet::new();
        for entry in config.texts("interfaces") {
            match self.interface(&entry, &mut names) {
                Ok(choice) => chosen.push(Placed { value: choice, at: entry.at }),
                Err(reason) => {
                    let place = self.report.place(entry.at);
                    let text = format!("Failed to select interface: {reason} ({place})");
                    self.error(list_at.unwrap_or(entry.at), text);
                }
            }
        }
        let socket_type = config.find("dhcp-socket-type");
        if let Some(value) = socket_type
            && value.as_text() == Some("udp")
        {
            self.warning(
                value.at,
                "with dhcp-socket-type 'udp' only relays and clients that have an address are heard and answered",
            );
        }
        InterfacesConfig {
            interfaces: chosen,
            socket_type: socket_type.and_then(Value::as_text).and_then(|word| match word {
                "raw" => Some(SocketType::Raw),
                "udp" => Some(SocketType::Udp),
                _ => None,
            }),
            outbound_use_routing: config
                .find("outbound-interface")
                .and_then(Value::as_text)
                .map(|word| word == "use-routing"),
            re_detect: config.flag("re-detect").unwrap_or(true),
            require_all: config.flag("service-sockets-require-all"),
            retry_wait_ms: config.number("service-sockets-retry-wait-time"),
            max_retries: config.number("service-sockets-max-retries"),
            user_context: self.user_context(config),
        }
    }

    fn interface(
        &self,
        entry: &Placed<String>,
        names: &mut HashSet<String>,
    ) -> Result<InterfaceChoice, String> {
        let text: String = entry.value.chars().filter(|letter| !letter.is_ascii_whitespace()).collect();
        let (name, address) = match text.split_once('/') {
            Some((name, address)) => (name, Some(address)),
            None => (text.as_str(), None),
        };
        if name.is_empty() {
            return Err("empty interface name used in configuration".to_owned());
        }
        if name == "*" {
            if address.is_some() {
                return Err(
                    "wildcard interface name '*' must not be used in conjunction with an address".to_owned()
                );
            }
            return if names.insert("*".to_owned()) {
                Ok(InterfaceChoice::All)
            } else {
                Err("the wildcard interface '*' can only be specified once".to_owned())
            };
        }
        if address == Some("") {
            return Err("empty address specified in the interface configuration".to_owned());
        }
        let address: Option<Ipv4Addr> =
            match address {
                Some(address) => Some(address.parse().map_err(|_| {
                    format!("Failed to convert string to address '{address}': Invalid argument")
                })?),
                None => None,
            };
        if let Some(known) = self.interfaces {
            let Some(known) = known.iter().find(|known| known.name == name) else {
                return Err(format!("interface '{name}' doesn't exist in the system"));
            };
            if let Some(address) = address
                && !known.addresses.contains(&address)
            {
                return Err(format!("interface '{name}' doesn't have address '{address}' assigned"));
            }
        }
        let again = match address {
            Some(address) => !names.insert(format!("{name}/{address}")),
            None => !names.insert(name.to_owned()),
        };
        if again {
            return Err(format!("interface '{name}' has already been specified"));
        }
        let name = name.to_owned();
        Ok(address.map_or_else(
            || InterfaceChoice::Name(name.clone()),
            |address| InterfaceChoice::Address(name.clone(), address),
        ))
    }

    pub(super) fn lease_database(&mut self, map: &Map) -> LeaseDatabase {
        let Some(config) = map.child("lease-database") else {
            return LeaseDatabase::default();
        };
        if let Some(kind) = config.placed("type")
            && ["mysql", "postgresql"].contains(&kind.value.as_str())
        {
            let text = format!("lease-database type '{kind}' is not supported: leases are kept in a memfile");
            self.error(kind.at, text);
        }
        for key in ["max-reconnect-tries", "reconnect-wait-time"] {
            if let Some(value) = config.find(key)
                && value.as_integer().is_some_and(|number| number != 0)
            {
                self.error(value.at, format!("{key} must be 0 for a memfile lease-database"));
            }
        }
        let lfc_interval_s = config.find("lfc-interval").and_then(|value| {
            let number = value.as_integer()?;
            let seconds = u32::try_from(number).ok();
            if seconds.is_none() {
                let text =
                    format!("lfc-interval value: {number} is out of range, expected value: 0..4294967295");
                self.error(value.at, text);
            }
            seconds
        });
        let ours = ["type", "persist", "name", "lfc-interval", "max-row-errors", "user-context", "comment"];
        LeaseDatabase {
            persist: config.flag("persist"),
            name: config.string("name").filter(|name| !name.is_empty()),
            lfc_interval_s,
            max_row_errors: config.number("max-row-errors").unwrap_or(0),
            ignored: config
                .members()
                .iter()
                .filter(|member| !ours.contains(&member.key.as_str()))
                .map(|member| (member.key.clone(), member.value.clone()))
                .collect(),
            user_context: self.user_context(config),
        }
    }

    /// Databases that we do not ask: a reservation there would silently not be honoured.
    pub(super) fn refuse_databases(&mut self, map: &Map) {
        if let Some(member) = map.member("hosts-database") {
            self.error(
                member.key_at,
                "hosts-database is not supported: reservations belong in the configuration",
            );
        }
        if let Some(member) = map.member("hosts-databases")
            && member.value.as_list().is_some_and(|list| !list.is_empty())
        {
            self.error(
                member.key_at,
                "hosts-databases are not supported: reservations belong in the configuration",
            );
        }
        if let Some(member) = map.child("config-control").and_then(|config| config.member("config-databases"))
            && member.value.as_list().is_some_and(|list| !list.is_empty())
        {
            self.error(
                member.key_at,
                "config-databases are not supported: the configuration is what the files hold",
            );
        }
    }

    pub(super) fn expired_leases(&mut self, map: &Map) -> ExpiredLeases {
        let mut expired = ExpiredLeases::default();
        let Some(config) = map.child("expired-leases-processing") else {
            return expired;
        };
        let short = u32::from(u16::MAX);
        for (key, field, most) in [
            ("reclaim-timer-wait-time", &mut expired.reclaim_wait_s, short),
            ("flush-reclaimed-timer-wait-time", &mut expired.flush_wait_s, short),
            ("hold-reclaimed-time", &mut expired.hold_s, u32::MAX),
            ("max-reclaim-leases", &mut expired.max_leases, u32::MAX),
            ("max-reclaim-time", &mut expired.max_ms, 10000),
            ("unwarned-reclaim-cycles", &mut expired.unwarned_cycles, short),
        ] {
            let Some((value, number)) = config.find(key).and_then(|value| Some((value, value.as_integer()?)))
            else {
                continue;
            };
            match u32::try_from(number) {
                Ok(number) if number <= most => *field = number,
                _ if number < 0 => self.error(
                    value.at,
                    format!("value for configuration parameter '{key}' must not be negative"),
                ),
                _ => self.error(
                    value.at,
                    format!(
                        "out range value '{number}' for configuration parameter '{key}', expected maximum \
                         value of '{most}'"
                    ),
                ),
            }
        }
        expired
    }

    pub(super) fn sanity_checks(&mut self, map: &Map) -> SanityChecks {
        let Some(config) = map.child("sanity-checks") else {
            return SanityChecks::default();
        };
        let lease_checks = match config.placed("lease-checks") {
            None => LeaseChecks::default(),
            Some(word) => match word.value.as_str() {
                "none" => LeaseChecks::None,
                "warn" => LeaseChecks::Warn,
                "fix" => LeaseChecks::Fix,
                "fix-del" => LeaseChecks::FixDel,
                "del" => LeaseChecks::Del,
                other => {
                    let text = format!(
                        "Unsupported 'lease-checks value: {other}, supported values are: none, warn, fix, \
                         fix-del, del"
                    );
                    self.report.error(word.at, crate::config::finding::Style::Grammar, text);
                    LeaseChecks::default()
                }
            },
        };
        let extended_info =
            config.find("extended-info-checks").and_then(Value::as_text).and_then(|word| match word {
                "none" => Some(ExtendedInfoChecks::None),
                "fix" => Some(ExtendedInfoChecks::Fix),
                "strict" => Some(ExtendedInfoChecks::Strict),
                "pedantic" => Some(ExtendedInfoChecks::Pedantic),
                _ => None,
            });
        SanityChecks { lease_checks, extended_info }
    }

    pub(super) fn host_identifiers(&mut self, map: &Map) -> Vec<IdentifierKind> {
        if map.find("host-reservation-identifiers").is_none() {
            return DEFAULT_IDENTIFIERS.to_vec();
        }
        let mut kinds = Vec::new();
        let words = map.texts("host-reservation-identifiers");
        for word in &words {
            let kind = match word.value.as_str() {
                "hw-address" => IdentifierKind::HwAddress,
                "duid" => IdentifierKind::Duid,
                "circuit-id" => IdentifierKind::CircuitId,
                "client-id" => IdentifierKind::ClientId,
                "flex-id" => IdentifierKind::FlexId,
                "auto" if words.len() == 1 => return DEFAULT_IDENTIFIERS.to_vec(),
                "auto" => {
                    self.error(word.at, "if 'auto' keyword is used, no other values can be specified");
                    continue;
                }
                other => {
                    let text = format!(
                        "unknown host identifier '{other}', expected hw-address, duid, circuit-id, client-id, \
                         flex-id or auto"
                    );
                    self.error(word.at, text);
                    continue;
                }
            };
            if kinds.contains(&kind) {
                self.error(word.at, format!("duplicate host identifier '{word}'"));
            } else {
                kinds.push(kind);
            }
        }
        kinds
    }

    pub(super) fn multi_threading(&mut self, map: &Map) -> MultiThreading {
        let defaults = MultiThreading::default();
        let Some(config) = map.child("multi-threading") else {
            return defaults;
        };
        MultiThreading {
            enabled: config.flag("enable-multi-threading").unwrap_or(defaults.enabled),
            thread_pool_size: self.size(config, "thread-pool-size", "thread pool size", 0),
            packet_queue_size: self.size(config, "packet-queue-size", "packet queue size", 64),
        }
    }

    fn size(&mut self, config: &Map, key: &str, words: &str, default: u16) -> u16 {
        let Some((value, number)) = config.find(key).and_then(|value| Some((value, value.as_integer()?)))
        else {
            return default;
        };
        u16::try_from(number).unwrap_or_else(|_| {
            let bound = if number < 0 { "less than '0'" } else { "greater than '65535'" };
            self.error(value.at, format!("invalid {words} '{number}', it must not be {bound}"));
            default
        })
    }

    pub(super) fn queue_control(map: &Map) -> QueueControl {
        let mut queue = QueueControl::default();
        let Some(config) = map.child("dhcp-queue-control") else {
            return queue;
        };
        for member in config.members() {
            match member.key.as_str() {
                "enable-queue" => queue.enable_queue = member.value.as_bool().unwrap_or(false),
                "queue-type" => queue.queue_type = config.string("queue-type").unwrap_or_default(),
                "capacity" => queue.capacity = config.number("capacity").unwrap_or(queue.capacity),
                other => queue.others.push((other.to_owned(), member.value.clone())),
            }
        }
        queue
    }

    pub(super) fn dhcp_ddns(&mut self, map: &Map) -> DhcpDdns {
        let defaults = DhcpDdns::default();
        let Some(config) = map.child("dhcp-ddns") else {
            return defaults;
        };
        if let Some(value) = config.find("enable-updates")
            && value.as_bool() == Some(true)
        {
            self.error(
                value.at,
                "enable-updates is true, but DNS updates are not sent yet: names would silently be missing \
                 from the DNS",
            );
        }
        for (key, only) in [("ncr-protocol", "UDP"), ("ncr-format", "JSON")] {
            if let Some(word) = config.placed(key)
                && word.value != only
            {
                let what = if only == "UDP" { "NCR Protocol" } else { "NCR Format" };
                self.error(word.at, format!("D2ClientConfig error: {what}: {word} is not supported."));
            }
        }
        let mut address = |key: &str| -> Option<IpAddr> {
            let text = config.placed(key).filter(|text| !text.value.is_empty())?;
            let address = text.value.parse().ok();
            if address.is_none() {
                let what = format!("Failed to convert string to address '{text}': Invalid argument");
                self.error(text.at, format!("Failed to convert '{text}' to address: {what}"));
            }
            address
        };
        DhcpDdns {
            server_ip: address("server-ip").unwrap_or(defaults.server_ip),
            sender_ip: address("sender-ip"),
            server_port: config.number("server-port").unwrap_or(defaults.server_port),
            sender_port: config.number("sender-port").unwrap_or(defaults.sender_port),
            max_queue_size: config.number("max-queue-size").unwrap_or(defaults.max_queue_size),
            user_context: self.user_context(config),
        }
    }

    pub(super) fn compatibility(map: &Map) -> Compatibility {
        let flag = |key| map.child("compatibility").and_then(|config| config.flag(key)).unwrap_or(false);
        Compatibility {
            lenient_option_parsing: flag("lenient-option-parsing"),
            ignore_dhcp_server_identifier: flag("ignore-dhcp-server-identifier"),
            ignore_rai_link_selection: flag("ignore-rai-link-selection"),
            exclude_first_last_24: flag("exclude-first-last-24"),
        }
    }
}
