//! From checked values to the typed tree.
//!
//! The checker has judged keys, types and ranges and reported them; here a member of the wrong type is as good as
//! absent, and what is judged is meaning: texts that stand for addresses, members that exclude each other, names
//! and numbers that must be unique.

mod control;
mod entry;
mod flex_id;
mod host;
mod infra;
mod scope;
mod subnet;

use std::net::Ipv4Addr;

use super::finding::{Report, Style};
use super::json::{Data, Map, Member, Placed, Span, Value};
use super::load::SystemInterface;
use super::tree::{Aplomado, ControlAgent, Dhcp4, Logger, SyncMode};

/// What building needs beside the values.
pub(super) struct Builder<'r> {
    report: &'r mut Report,
    /// The interfaces of the machine, when names are to be compared with them.
    interfaces: Option<&'r [SystemInterface]>,
    /// What Kea puts before faults of the scope being built.
    scope: &'static str,
}

impl<'r> Builder<'r> {
    pub(super) const fn new(report: &'r mut Report, interfaces: Option<&'r [SystemInterface]>) -> Self {
        Self { report, interfaces, scope: "" }
    }

    /// The tree of the block `Dhcp4`; only to be used when nothing was reported as an error.
    pub(super) fn dhcp4(&mut self, member: &Member) -> Dhcp4 {
        let Some(map) = member.value.as_map() else {
            return Dhcp4::default();
        };
        let interfaces = self.interfaces_config(map);
        // An interface that is named and cannot be had has been told already.
        let config = map.child("interfaces-config");
        if config.is_none_or(|config| config.texts("interfaces").is_empty()) {
            let place = config.and_then(|config| config.member("interfaces"));
            let place = place.map_or(member.key_at, Member::place);
            self.warning(place, "no interface is named in interfaces-config: nobody is served");
        }
        let option_defs = self.option_defs(map);
        let options = self.options(map);
        let classes = self.classes(map);
        let dhcp_ddns = self.dhcp_ddns(map);
        let mut own = self.scope_settings(map);
        self.inherit_ddns_legacy(map, &mut own);
        let global = self.global_settings(map, &own);
        let unique = map.flag("ip-reservations-unique").unwrap_or(true);
        let (shared_networks, subnets) = self.subnets(map, &global, unique);
        let reservations = self.hosts(map, None, unique);
        let user_context = self.user_context(map);
        self.refuse_databases(map);
        let hooks = self.hooks(map);
        let flex_id = self.flex_id(&hooks);
        let host_identifiers = self.host_identifiers(map);
        self.warn_of_flex_ids(
            map,
            flex_id.is_some(),
            &host_identifiers,
            (&subnets, &shared_networks, &reservations),
        );
        Dhcp4 {
            at: member.value.at,
            own,
            settings: global.settings,
            interfaces,
            lease_database: self.lease_database(map),
            expired: self.expired_leases(map),
            sanity: self.sanity_checks(map),
            option_defs,
            options,
            classes,
            shared_networks,
            subnets,
            reservations,
            host_identifiers,
            control_sockets: self.control_sockets(map),
            hooks,
            flex_id,
            loggers: self.loggers(map),
            multi_threading: self.multi_threading(map),
            queue_control: Self::queue_control(map),
            dhcp_ddns,
            compatibility: Self::compatibility(map),
            echo_client_id: map.flag("echo-client-id").unwrap_or(true),
            decline_probation_period_s: map.number("decline-probation-period").unwrap_or(86400),
            ip_reservations_unique: unique,
            early_global_reservations_lookup: map.flag("early-global-reservations-lookup").unwrap_or(false),
            reservations_lookup_first: map.flag("reservations-lookup-first").unwrap_or(false),
            parked_packet_limit: map.number("parked-packet-limit").unwrap_or(256),
            server_tag: map.string("server-tag").unwrap_or_default(),
            statistic_sample_count: map.number("statistic-default-sample-count").unwrap_or(20),
            statistic_sample_age_s: map.number("statistic-default-sample-age").unwrap_or(0),
            stash_agent_options: map.flag("stash-agent-options").unwrap_or(false),
            dhcp4o6_port: map.number("dhcp4o6-port").unwrap_or(0),
            aplomado: self.aplomado(user_context.as_ref()),
            user_context,
        }
    }

    /// The tree of the block `Control-agent`; only to be used when nothing was reported as an error.
    pub(super) fn control_agent(&mut self, member: &Member) -> Option<ControlAgent> {
        let map = member.value.as_map()?;
        Some(self.agent(member, map))
    }

    /// The loggers of `map`, with those that `Logging` holds for a daemon.
    pub(super) fn logging(&mut self, member: &Member) -> Vec<Logger> {
        member.value.as_map().map_or_else(Vec::new, |map| self.loggers(map))
    }

    /// `user-context` with `comment` folded in. `comment` behind a context that has one is refused, as in Kea; before
    /// it the context's own wins.
    fn user_context(&mut self, map: &Map) -> Option<Value> {
        let context = map.member("user-context");
        let comment = map.member("comment");
        let Some(comment) = comment else {
            return context.map(|context| context.value.clone());
        };
        let folded =
            Member { key: "comment".to_owned(), key_at: comment.key_at, value: comment.value.clone() };
        let Some(context) = context else {
            let mut alone = Map::default();
            alone.push(folded);
            return Some(Value { at: comment.value.at, data: Data::Map(alone) });
        };
        let mut merged = context.value.as_map().cloned().unwrap_or_default();
        if merged.find("comment").is_some() {
            let later =
                (comment.key_at.line, comment.key_at.column) > (context.key_at.line, context.key_at.column);
            if later {
                let place = self.report.place(context.value.at);
                let text = format!("duplicate user-context/comment entries (previous at {place})");
                self.report.error(comment.key_at, Style::Grammar, text);
            }
        } else {
            merged.push(folded);
        }
        Some(Value { at: context.value.at, data: Data::Map(merged) })
    }

    /// Our own settings. A key that we do not know may be one of a later release: a warning.
    fn aplomado(&mut self, context: Option<&Value>) -> Aplomado {
        let mut settings = Aplomado::default();
        let Some(member) = context.and_then(Value::as_map).and_then(|map| map.member("aplomado")) else {
            return settings;
        };
        let Some(map) = member.value.as_map() else {
            self.report.error(member.value.at, Style::After, "'aplomado' in user-context must be a map");
            return settings;
        };
        for Member { key, key_at, value } in map.members() {
            match key.as_str() {
                "sync" => match value.as_text() {
                    Some("group") => settings.sync = SyncMode::Group,
                    Some("interval") => settings.sync = SyncMode::Interval,
                    Some("never") => settings.sync = SyncMode::Never,
                    _ => self.report.error(
                        value.at,
                        Style::After,
                        "'sync' must be \"group\", \"interval\" or \"never\"",
                    ),
                },
                "max-leases" => match value.as_integer().and_then(|count| u64::try_from(count).ok()) {
                    Some(count) if count > 0 => settings.max_leases = Some(count),
                    _ => self.report.error(value.at, Style::After, "'max-leases' must be a positive integer"),
                },
                "comment" => {}
                other => {
                    let text =
                        format!("'{other}' is not a setting of aplomado; known are sync and max-leases");
                    self.report.warning(*key_at, Style::After, text);
                }
            }
        }
        settings
    }

    /// An IPv4 address of `member`, or a finding that begins with `fault`.
    fn address(&mut self, member: &Member, fault: &str) -> Option<Ipv4Addr> {
        let text = member.value.as_text()?;
        match text.parse() {
            Ok(address) => Some(address),
            Err(_) => {
                self.report.error(member.value.at, Style::After, format!("{fault}'{text}'"));
                None
            }
        }
    }

    fn error(&mut self, at: Span, text: impl Into<String>) {
        self.report.error(at, Style::After, text);
    }

    /// An error of the scope being built; `style` says whether Kea names the place.
    fn scope_error(&mut self, at: Span, style: Style, text: &str) {
        self.report.error(at, style, format!("{}{text}", self.scope));
    }

    /// An error for which Kea names no place.
    fn bare_error(&mut self, at: Span, text: impl Into<String>) {
        self.report.error(at, Style::Bare, text);
    }

    fn warning(&mut self, at: Span, text: impl Into<String>) {
        self.report.warning(at, Style::After, text);
    }
}

/// Members by type: absent and mistyped are the same here.
trait Fields {
    fn string(&self, key: &str) -> Option<String>;
    fn flag(&self, key: &str) -> Option<bool>;
    fn fraction(&self, key: &str) -> Option<f64>;
    fn number<T: TryFrom<i64>>(&self, key: &str) -> Option<T>;
    fn placed(&self, key: &str) -> Option<Placed<String>>;
    fn texts(&self, key: &str) -> Vec<Placed<String>>;
    fn child(&self, key: &str) -> Option<&Map>;
    fn maps<'m>(&'m self, key: &str) -> impl Iterator<Item = (&'m Map, Span)>;
}

impl Fields for Map {
    fn string(&self, key: &str) -> Option<String> {
        self.find(key).and_then(Value::as_text).map(str::to_owned)
    }

    fn flag(&self, key: &str) -> Option<bool> {
        self.find(key).and_then(Value::as_bool)
    }

    fn fraction(&self, key: &str) -> Option<f64> {
        match self.find(key)?.data {
            Data::Double(number) => Some(number),
            // The API takes 1 for 1.0. What a fraction is for has six digits: no precision is lost.
            Data::Integer(number) => i32::try_from(number).ok().map(f64::from),
            _ => None,
        }
    }

    fn number<T: TryFrom<i64>>(&self, key: &str) -> Option<T> {
        T::try_from(self.find(key)?.as_integer()?).ok()
    }

    fn placed(&self, key: &str) -> Option<Placed<String>> {
        let value = self.find(key)?;
        Some(Placed { value: value.as_text()?.to_owned(), at: value.at })
    }

    fn texts(&self, key: &str) -> Vec<Placed<String>> {
        let elements = self.find(key).and_then(Value::as_list).unwrap_or_default();
        elements
            .iter()
            .filter_map(|element| Some(Placed { value: element.as_text()?.to_owned(), at: element.at }))
            .collect()
    }

    fn child(&self, key: &str) -> Option<&Self> {
        self.find(key).and_then(Value::as_map)
    }

    fn maps<'m>(&'m self, key: &str) -> impl Iterator<Item = (&'m Self, Span)> {
        let elements = self.find(key).and_then(Value::as_list).unwrap_or_default();
        elements.iter().filter_map(|element| Some((element.as_map()?, element.at)))
    }
}
