//! A tree as `config-get` and `config-write` show it: keys sorted, defaults filled in, older spellings where they
//! say the same, so that Kea 2.2 loads what it could have been given. What only later releases know is shown when
//! it was written.

mod infra;

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::finding::Report;
use super::hex;
use super::json::{Placed, compact};
use super::option::{Definitions, Family};
use super::tree::{
    Allocator, ClassTest, ClientClass, ControlAgent, DdnsSettings, Dhcp4, Host, HostnameChar, OptionData,
    OptionDef, Pool4, Prefix4, ReplaceClientName, ScopeSettings, SharedNetwork, Subnet4, Triplet,
};
use crate::ids::ColonHex;

/// The definitions that hold for `tree`: the standard ones and its own.
#[must_use]
pub fn definitions(tree: &Dhcp4) -> Definitions {
    let mut definitions = Definitions::new(Family::V4);
    // A tree that is shown has been loaded: what is wrong with a definition was reported then.
    definitions.add_all(&tree.option_defs, &mut Report::default());
    definitions
}

/// `{ "Dhcp4": … }`, the argument of `config-get` without its hash and the content of `config-write`.
#[must_use]
pub fn dhcp4(tree: &Dhcp4, definitions: &Definitions) -> Value {
    json!({ "Dhcp4": Value::Object(Render { definitions }.dhcp4(tree)) })
}

/// One subnet, as `subnet4-get` shows it.
#[must_use]
pub fn subnet4(
    tree: &Dhcp4,
    network: Option<&SharedNetwork>,
    subnet: &Subnet4,
    definitions: &Definitions,
) -> Value {
    Value::Object(Render { definitions }.subnet(tree, network, subnet))
}

/// `{ "Control-agent": … }`.
#[must_use]
pub fn control_agent(tree: &ControlAgent) -> Value {
    json!({ "Control-agent": Value::Object(infra::agent(tree)) })
}

/// SHA-256 of a configuration as printed, in upper-case hex.
#[must_use]
pub fn hash(configuration: &Value) -> String {
    upper_hex(&Sha256::digest(compact(configuration).as_bytes()))
}

struct Render<'a> {
    definitions: &'a Definitions,
}

/// Adds members, those that are there.
trait Put {
    fn put(&mut self, key: &str, value: impl Into<Value>);
    fn put_some<T: Into<Value>>(&mut self, key: &str, value: Option<T>);
    fn put_context(&mut self, context: Option<&super::json::Value>);
}

impl Put for Map<String, Value> {
    fn put(&mut self, key: &str, value: impl Into<Value>) {
        self.insert(key.to_owned(), value.into());
    }

    fn put_some<T: Into<Value>>(&mut self, key: &str, value: Option<T>) {
        if let Some(value) = value {
            self.put(key, value);
        }
    }

    fn put_context(&mut self, context: Option<&super::json::Value>) {
        self.put_some("user-context", context.map(super::json::Value::to_serde));
    }
}

impl Render<'_> {
    fn dhcp4(&self, tree: &Dhcp4) -> Map<String, Value> {
        let mut map = Map::new();
        let (own, settings) = (&tree.own, &tree.settings);
        written_settings(&mut map, own);
        map.put("authoritative", settings.authoritative);
        map.put("boot-file-name", settings.boot_file_name.as_str());
        map.put("server-hostname", settings.server_hostname.as_str());
        map.put("next-server", settings.next_server.to_string());
        map.put("match-client-id", settings.match_client_id);
        map.put("calculate-tee-times", settings.calculate_tee_times);
        map.put("t1-percent", settings.t1_percent);
        map.put("t2-percent", settings.t2_percent);
        map.put("store-extended-info", settings.store_extended_info);
        map.put_some("renew-timer", settings.renew_timer_s);
        map.put_some("rebind-timer", settings.rebind_timer_s);
        map.put_some("cache-threshold", own.cache_threshold);
        map.put_some("cache-max-age", own.cache_max_age_s);
        map.put("valid-lifetime", settings.valid_lifetime.default);
        map.put_some("min-valid-lifetime", own.valid_lifetime.min);
        map.put_some("max-valid-lifetime", own.valid_lifetime.max);
        map.put("reservations-global", settings.reservations_global);
        map.put("reservations-in-subnet", settings.reservations_in_subnet);
        map.put("reservations-out-of-pool", settings.reservations_out_of_pool);
        map.put("hostname-char-set", settings.hostname_char_set.as_str());
        map.put("hostname-char-replacement", settings.hostname_char_replacement.as_str());
        map.put("ddns-send-updates", settings.ddns_send_updates);
        map.put("ddns-override-no-update", settings.ddns_override_no_update);
        map.put("ddns-override-client-update", settings.ddns_override_client_update);
        map.put("ddns-replace-client-name", replace_client_name(settings.ddns_replace_client_name));
        map.put("ddns-generated-prefix", settings.ddns_generated_prefix.as_str());
        map.put("ddns-qualifying-suffix", settings.ddns_qualifying_suffix.as_str());
        map.put("ddns-update-on-renew", settings.ddns_update_on_renew);
        if own.ddns.conflict_resolution_mode.is_none() {
            map.put("ddns-use-conflict-resolution", own.ddns.use_conflict_resolution.unwrap_or(true));
        }
        map.put("decline-probation-period", tree.decline_probation_period_s);
        map.put("dhcp4o6-port", tree.dhcp4o6_port);
        map.put("early-global-reservations-lookup", tree.early_global_reservations_lookup);
        map.put("echo-client-id", tree.echo_client_id);
        map.put("ip-reservations-unique", tree.ip_reservations_unique);
        map.put("parked-packet-limit", tree.parked_packet_limit);
        map.put("reservations-lookup-first", tree.reservations_lookup_first);
        map.put("server-tag", tree.server_tag.as_str());
        map.put("statistic-default-sample-age", tree.statistic_sample_age_s);
        map.put("statistic-default-sample-count", tree.statistic_sample_count);
        if tree.stash_agent_options {
            map.put("stash-agent-options", true);
        }
        map.put(
            "host-reservation-identifiers",
            tree.host_identifiers.iter().map(|kind| kind.key()).collect::<Vec<_>>(),
        );
        infra::infrastructure(&mut map, tree);
        map.put("option-data", self.options(&tree.options));
        map.put("option-def", option_defs(&tree.option_defs));
        if !tree.classes.is_empty() {
            map.put("client-classes", tree.classes.iter().map(|class| self.class(class)).collect::<Vec<_>>());
        }
        if !tree.reservations.is_empty() {
            map.put("reservations", self.hosts(&tree.reservations));
        }
        map.put(
            "shared-networks",
            tree.shared_networks.iter().map(|network| self.network(tree, network)).collect::<Vec<_>>(),
        );
        map.put(
            "subnet4",
            tree.subnets
                .iter()
                .map(|subnet| Value::Object(self.subnet(tree, None, subnet)))
                .collect::<Vec<_>>(),
        );
        map.put_context(tree.user_context.as_ref());
        map
    }

    fn network(&self, tree: &Dhcp4, network: &SharedNetwork) -> Value {
        let mut map = Map::new();
        let own = &network.own;
        written_settings(&mut map, own);
        dynamic_settings(&mut map, own);
        let chain = [own, &tree.own];
        let lifetime = TripletOf { chain: &chain }.triplet();
        derived_settings(&mut map, &chain, lifetime);
        map.put("name", network.name.as_str());
        if !network.interface.is_empty() {
            map.put("interface", network.interface.as_str());
        }
        map.put("relay", relay(&network.relays));
        guards(&mut map, &network.guards, &network.additional_classes);
        map.put("option-data", self.options(&network.options));
        map.put(
            "subnet4",
            network
                .subnets
                .iter()
                .map(|subnet| Value::Object(self.subnet(tree, Some(network), subnet)))
                .collect::<Vec<_>>(),
        );
        map.put_context(network.user_context.as_ref());
        Value::Object(map)
    }

    fn subnet(&self, tree: &Dhcp4, network: Option<&SharedNetwork>, subnet: &Subnet4) -> Map<String, Value> {
        let mut map = Map::new();
        let own = &subnet.own;
        written_settings(&mut map, own);
        dynamic_settings(&mut map, own);
        match network {
            Some(network) => {
                derived_settings(&mut map, &[own, &network.own, &tree.own], subnet.settings.valid_lifetime);
            }
            None => derived_settings(&mut map, &[own, &tree.own], subnet.settings.valid_lifetime),
        }
        map.put("4o6-interface", subnet.four_o6_interface.as_str());
        map.put("4o6-interface-id", subnet.four_o6_interface_id.as_str());
        map.put("4o6-subnet", subnet.four_o6_subnet.as_str());
        map.put("id", subnet.id.0);
        map.put("subnet", subnet.text.as_str());
        let inherited = network.map_or("", |network| &network.interface);
        if subnet.interface != inherited {
            map.put("interface", subnet.interface.as_str());
        }
        map.put("relay", relay(&subnet.relays));
        guards(&mut map, &subnet.guards, &subnet.additional_classes);
        map.put("option-data", self.options(&subnet.options));
        map.put("pools", subnet.pools.iter().map(|pool| self.pool(pool)).collect::<Vec<_>>());
        map.put("reservations", self.hosts(&subnet.reservations));
        map.put_context(subnet.user_context.as_ref());
        map
    }

    fn pool(&self, pool: &Pool4) -> Value {
        let mut map = Map::new();
        map.put("pool", pool_text(pool));
        if pool.pool_id > 0 {
            map.put("pool-id", pool.pool_id);
        }
        guards(&mut map, &pool.guards, &pool.additional_classes);
        hostname_char(&mut map, &pool.hostname_char);
        ddns_settings(&mut map, &pool.ddns);
        map.put("option-data", self.options(&pool.options));
        map.put_context(pool.user_context.as_ref());
        Value::Object(map)
    }

    fn class(&self, class: &ClientClass) -> Value {
        let mut map = Map::new();
        map.put("name", class.name.value.as_str());
        match &class.test {
            ClassTest::None => {}
            ClassTest::Test(test) => map.put("test", test.value.as_str()),
            ClassTest::Template(test) => map.put("template-test", test.value.as_str()),
        }
        if class.only_in_additional_list {
            map.put("only-if-required", true);
        }
        map.put("boot-file-name", class.boot_file_name.as_deref().unwrap_or_default());
        map.put("server-hostname", class.server_hostname.as_deref().unwrap_or_default());
        map.put(
            "next-server",
            class.next_server.map_or_else(|| "0.0.0.0".to_owned(), |address| address.to_string()),
        );
        // A class may define options of its own: they hold for its option-data alone.
        let definitions = self.definitions.for_class(&class.option_defs, &mut Report::default());
        map.put("option-data", Render { definitions: &definitions }.options(&class.options));
        map.put("option-def", option_defs(&class.option_defs));
        map.put_some("valid-lifetime", class.valid_lifetime.default);
        map.put_some("min-valid-lifetime", class.valid_lifetime.min);
        map.put_some("max-valid-lifetime", class.valid_lifetime.max);
        map.put_some("offer-lifetime", class.offer_lifetime_s);
        map.put_context(class.user_context.as_ref());
        Value::Object(map)
    }

    /// Hosts by identifier, then kind, as Kea keeps them.
    fn hosts(&self, hosts: &[Host]) -> Vec<Value> {
        let mut hosts: Vec<&Host> = hosts.iter().collect();
        hosts.sort_by(|left, right| (&left.identifier, left.kind).cmp(&(&right.identifier, right.kind)));
        hosts.into_iter().map(|host| self.host(host)).collect()
    }

    fn host(&self, host: &Host) -> Value {
        use super::tree::IdentifierKind::{Duid, HwAddress};
        let mut map = Map::new();
        let identifier = match host.kind {
            HwAddress | Duid => ColonHex(&host.identifier).to_string(),
            _ => upper_hex(&host.identifier),
        };
        map.put(host.kind.key(), identifier);
        map.put_some("ip-address", host.address.as_ref().map(|address| address.value.to_string()));
        map.put("hostname", host.hostname.as_str());
        map.put("client-classes", names(&host.client_classes));
        map.put("option-data", self.options(&host.options));
        map.put("next-server", host.next_server.to_string());
        map.put("server-hostname", host.server_hostname.as_str());
        map.put("boot-file-name", host.boot_file_name.as_str());
        map.put_context(host.user_context.as_ref());
        Value::Object(map)
    }

    /// Options by space, as Kea keeps them, those of vendors last.
    fn options(&self, options: &[OptionData]) -> Vec<Value> {
        let mut options: Vec<&OptionData> = options.iter().collect();
        options.sort_by_key(|option| {
            let space = option.space.as_ref().map_or("dhcp4", |space| &space.value);
            let enterprise = space.strip_prefix("vendor-").and_then(|number| number.parse::<u32>().ok());
            (enterprise, if enterprise.is_some() { "" } else { space })
        });
        options.into_iter().map(|option| self.option(option)).collect()
    }

    fn option(&self, option: &OptionData) -> Value {
        let space = option.space.as_ref().map_or("dhcp4", |space| &space.value);
        let definition = match (&option.code, &option.name) {
            (Some(code), _) => self.definitions.by_code(space, code.value),
            (None, Some(name)) => self.definitions.by_name(space, &name.value),
            (None, None) => None,
        };
        let code = option.code.as_ref().map(|code| code.value);
        let name = option.name.as_ref().map(|name| name.value.as_str());
        let text = &option.data.value;
        let csv = definition.is_some() && option.csv_format != Some(false);
        let mut map = Map::new();
        map.put_some("code", code.or_else(|| definition.map(|definition| definition.code)));
        map.put_some("name", definition.map(|definition| &*definition.name).or(name));
        map.put("csv-format", csv);
        let octets = || hex::quoted(text).map(<[u8]>::to_vec).or_else(|| hex::hex(text));
        let data = if csv { None } else { octets() };
        map.put("data", data.map_or_else(|| text.clone(), |octets| upper_hex(&octets)));
        map.put("space", space);
        map.put("always-send", option.always_send);
        if option.never_send {
            map.put("never-send", true);
        }
        if !option.client_classes.is_empty() {
            map.put("client-classes", names(&option.client_classes));
        }
        map.put_context(option.user_context.as_ref());
        Value::Object(map)
    }
}

/// What no default is shown for: only what the scope wrote.
fn written_settings(map: &mut Map<String, Value>, own: &ScopeSettings) {
    map.put_some(
        "allocator",
        own.allocator.map(|allocator| match allocator {
            Allocator::Iterative => "iterative",
            Allocator::Random => "random",
            Allocator::Flq => "flq",
        }),
    );
    map.put_some("offer-lifetime", own.offer_lifetime_s);
    map.put_some("adaptive-lease-time-threshold", own.adaptive_lease_time_threshold);
    hostname_char(map, &own.hostname_char);
    ddns_settings(map, &own.ddns);
}

/// What networks and subnets look up when they need it: shown where it was written.
fn dynamic_settings(map: &mut Map<String, Value>, own: &ScopeSettings) {
    map.put_some("authoritative", own.authoritative);
    map.put_some("match-client-id", own.match_client_id);
    map.put_some("next-server", own.next_server.map(|address| address.to_string()));
    map.put_some("server-hostname", own.server_hostname.as_deref());
    map.put_some("boot-file-name", own.boot_file_name.as_deref());
    map.put_some("reservations-global", own.reservations_global);
    map.put_some("reservations-in-subnet", own.reservations_in_subnet);
    map.put_some("reservations-out-of-pool", own.reservations_out_of_pool);
}

/// What networks and subnets copy from outside: shown as it holds, wherever in `chain`, innermost first, it was
/// written.
fn derived_settings(map: &mut Map<String, Value>, chain: &[&ScopeSettings], lifetime: Triplet) {
    fn first<T>(chain: &[&ScopeSettings], of: impl Fn(&ScopeSettings) -> Option<T>) -> Option<T> {
        chain.iter().find_map(|scope| of(scope))
    }
    map.put("min-valid-lifetime", lifetime.min);
    map.put("valid-lifetime", lifetime.default);
    map.put("max-valid-lifetime", lifetime.max);
    map.put_some("renew-timer", first(chain, |scope| scope.renew_timer_s));
    map.put_some("rebind-timer", first(chain, |scope| scope.rebind_timer_s));
    map.put("calculate-tee-times", first(chain, |scope| scope.calculate_tee_times).unwrap_or(false));
    map.put("t1-percent", first(chain, |scope| scope.t1_percent).unwrap_or(0.5));
    map.put("t2-percent", first(chain, |scope| scope.t2_percent).unwrap_or(0.875));
    map.put("store-extended-info", first(chain, |scope| scope.store_extended_info).unwrap_or(false));
    map.put_some("cache-threshold", first(chain, |scope| scope.cache_threshold));
    map.put_some("cache-max-age", first(chain, |scope| scope.cache_max_age_s));
}

/// The lifetime that a network's members and those around it make.
struct TripletOf<'a> {
    chain: &'a [&'a ScopeSettings],
}

impl TripletOf<'_> {
    fn triplet(&self) -> Triplet {
        let default = self.chain.iter().find_map(|scope| scope.valid_lifetime.default).unwrap_or(7200);
        Triplet {
            min: self.chain.iter().find_map(|scope| scope.valid_lifetime.min).unwrap_or(default),
            default,
            max: self.chain.iter().find_map(|scope| scope.valid_lifetime.max).unwrap_or(default),
        }
    }
}

fn hostname_char(map: &mut Map<String, Value>, own: &HostnameChar) {
    map.put_some("hostname-char-set", own.set.as_deref());
    map.put_some("hostname-char-replacement", own.replacement.as_deref());
}

fn ddns_settings(map: &mut Map<String, Value>, own: &DdnsSettings) {
    map.put_some("ddns-send-updates", own.send_updates);
    map.put_some("ddns-override-no-update", own.override_no_update);
    map.put_some("ddns-override-client-update", own.override_client_update);
    map.put_some("ddns-replace-client-name", own.replace_client_name.map(replace_client_name));
    map.put_some("ddns-generated-prefix", own.generated_prefix.as_deref());
    map.put_some("ddns-qualifying-suffix", own.qualifying_suffix.as_deref());
    map.put_some("ddns-update-on-renew", own.update_on_renew);
    map.put_some("ddns-use-conflict-resolution", own.use_conflict_resolution);
    map.put_some("ddns-conflict-resolution-mode", own.conflict_resolution_mode.as_deref());
    map.put_some("ddns-ttl-percent", own.ttl_percent);
    map.put_some("ddns-ttl", own.ttl_s);
    map.put_some("ddns-ttl-min", own.ttl_min_s);
    map.put_some("ddns-ttl-max", own.ttl_max_s);
}

const fn replace_client_name(word: ReplaceClientName) -> &'static str {
    match word {
        ReplaceClientName::Never => "never",
        ReplaceClientName::Always => "always",
        ReplaceClientName::WhenPresent => "when-present",
        ReplaceClientName::WhenNotPresent => "when-not-present",
    }
}

/// Definitions by space, as Kea keeps them.
fn option_defs(defs: &[OptionDef]) -> Vec<Value> {
    let space = |def: &&OptionDef| def.space.as_ref().map_or("dhcp4", |space| &space.value).to_owned();
    let mut defs: Vec<&OptionDef> = defs.iter().collect();
    defs.sort_by_key(space);
    defs.into_iter()
        .map(|def| {
            let mut map = Map::new();
            map.put("name", def.name.value.as_str());
            map.put("code", def.code.value);
            map.put("type", def.type_word.value.as_str());
            map.put("space", def.space.as_ref().map_or("dhcp4", |space| &space.value));
            map.put("array", def.array);
            map.put("record-types", def.record_types.value.as_str());
            map.put("encapsulate", def.encapsulate.value.as_str());
            map.put_context(def.user_context.as_ref());
            Value::Object(map)
        })
        .collect()
}

/// One guard has the older spelling, which every release reads.
fn guards(map: &mut Map<String, Value>, guards: &[Placed<String>], additional: &[Placed<String>]) {
    match guards {
        [] => {}
        [guard] => map.put("client-class", guard.value.as_str()),
        guards => map.put("client-classes", names(guards)),
    }
    if !additional.is_empty() {
        map.put("require-client-classes", names(additional));
    }
}

fn names(classes: &[Placed<String>]) -> Vec<Value> {
    classes.iter().map(|class| class.value.as_str().into()).collect()
}

fn relay(relays: &[std::net::Ipv4Addr]) -> Value {
    json!({ "ip-addresses": relays.iter().map(ToString::to_string).collect::<Vec<_>>() })
}

/// `P/len` where the addresses are exactly those of a prefix, else `A-B`.
fn pool_text(pool: &Pool4) -> String {
    let (first, last) = (pool.first, pool.last);
    let host_bits = (u32::from(first) ^ u32::from(last)).count_ones();
    let prefix = u8::try_from(32 - host_bits).ok().and_then(|length| Prefix4::new(first, length));
    match prefix {
        Some(prefix) if prefix.first == first && prefix.last() == last => {
            format!("{first}/{}", prefix.length)
        }
        _ => format!("{first}-{last}"),
    }
}

fn upper_hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02X}")).collect()
}
