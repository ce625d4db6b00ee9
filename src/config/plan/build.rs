//! From the typed tree to a [`Plan`].
//!
//! Everything that only shows here (option values, class tests, interfaces that are missing) is reported, all of it;
//! with any error there is no plan.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

use super::classes::{Class, ClassNames, Guard, KNOWN, Stage, Test, UNKNOWN};
use super::expression::Surrounding;
use super::hosts::{Host, HostFilter, Hosts, Identifier};
use super::lookup::SubnetLookup;
use super::names::{CharacterSet, NameRules, ReplaceName};
use super::options::{NewOption, OptionStoreBuilder, ScopeIndex};
use super::{
    AllocatorKind, BootFields, FlexId, Globals, LeaseCache, Lifetimes, NameRulesIndex, Network, NetworkIndex,
    Plan, Pool, ReservationFlags, Settings, Subnet, SubnetIndex, Timers,
};
use crate::config::finding::{Report, Style};
use crate::config::json::{Placed, Span};
use crate::config::load::SystemInterface;
use crate::config::option::{Definitions, Family, encode_scope};
use crate::config::tree;
use crate::expr::{self, compile_bool, compile_string};
use crate::ids::{ClassId, InterfaceId};

/// Server identifier.
const SERVER_IDENTIFIER: u8 = 54;
/// IPv6-only preferred (RFC 8925).
const V6_ONLY_PREFERRED: u8 = 108;

/// What a plan depends on besides the configuration.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    /// Counts the plans of this process.
    pub generation: u64,
    /// The interfaces of the system, in the order of their [`InterfaceId`]s. A subnet whose interface is not among them
    /// is reached by its other rules only, until the next plan: interfaces come and go.
    pub interfaces: Vec<SystemInterface>,
}

/// The plan of `tree`; nothing when there was an error, now or before, in `report`.
pub fn build(tree: &tree::Dhcp4, surroundings: Surroundings, report: &mut Report) -> Option<Plan> {
    let mut definitions = Definitions::new(Family::V4);
    definitions.add_all(&tree.option_defs, report);
    let mut builder = Builder {
        report,
        definitions: &definitions,
        interfaces: surroundings.interfaces,
        class_names: ClassNames::default(),
        options: OptionStoreBuilder::default(),
        settings_known: HashMap::new(),
        name_rules: Vec::new(),
        name_rules_known: HashMap::new(),
        character_sets: HashMap::new(),
        server_identifiers: Vec::new(),
    };
    let plan = builder.plan(tree, surroundings.generation);
    (report.errors() == 0).then_some(plan)
}

/// A subnet of the tree with its network, if it is in a shared one.
type Placement<'a> = (&'a tree::Subnet4, NetworkIndex);

struct Builder<'a> {
    report: &'a mut Report,
    definitions: &'a Definitions,
    interfaces: Vec<SystemInterface>,
    class_names: ClassNames,
    options: OptionStoreBuilder,
    settings_known: HashMap<String, Arc<Settings>>,
    name_rules: Vec<NameRules>,
    name_rules_known: HashMap<NameRules, NameRulesIndex>,
    character_sets: HashMap<String, CharacterSet>,
    server_identifiers: Vec<Ipv4Addr>,
}

impl Builder<'_> {
    fn plan(&mut self, tree: &tree::Dhcp4, generation: u64) -> Plan {
        for class in &tree.classes {
            self.class(&class.name);
        }
        let classes = self.classes(&tree.classes);
        let mut class_positions = vec![u32::MAX; classes.len()];
        for (position, class) in (0..).zip(&classes) {
            let number = usize::from(class.id.0);
            class_positions.resize(class_positions.len().max(number + 1), u32::MAX);
            class_positions[number] = position;
        }

        let options = self.scope(self.definitions, &tree.options, true);
        let name_rules = self.rules(&tree.settings, None);
        let (mut networks, network_options, placements) = self.networks(tree);
        let mut subnets = Vec::with_capacity(placements.len());
        let mut pools = Vec::new();
        let mut relays = Vec::new();
        let mut bound = Vec::new();
        for (position, &(subnet, network)) in placements.iter().enumerate() {
            let index = SubnetIndex(count(position));
            let mut built =
                self.subnet(index, subnet, network, network_options[super::at(network.0)], &mut pools);
            relays.extend(
                subnet.relays.iter().filter(|relay| !relay.is_unspecified()).map(|&relay| (relay, index)),
            );
            bound.extend(self.interface(subnet).map(|interface| (interface, index)));
            let shared = &mut networks[super::at(network.0)];
            built.is_open &= shared.guard.0.is_empty();
            shared.has_v6_only_preferred |=
                self.options.store().scope(built.options).codes.contains(V6_ONLY_PREFERRED);
            subnets.push(built);
        }

        let hosts = self.hosts(tree, &placements);
        for host in &hosts {
            if let Some(index) = host.subnet {
                let subnet = &mut subnets[super::at(index.0)];
                subnet.filter.add(host, subnet.prefix_len);
                networks[super::at(subnet.network.0)].has_hosts = true;
            }
        }
        let network_subnets = members(&mut networks, &subnets);
        for subnet in &mut subnets {
            let network = &networks[super::at(subnet.network.0)];
            subnet.is_alone = network.name.is_none();
            subnet.has_v6_only_preferred = network.has_v6_only_preferred;
            let pools = &pools[super::at(subnet.pools.start)..super::at(subnet.pools.end)];
            subnet.has_additional_classes = !subnet.additional_classes.is_empty()
                || !network.additional_classes.is_empty()
                || pools.iter().any(|pool| !pool.additional_classes.is_empty());
        }
        self.server_identifiers.sort_unstable();
        self.server_identifiers.dedup();
        Plan {
            generation,
            globals: Globals {
                authoritative: tree.settings.authoritative,
                echo_client_id: tree.echo_client_id,
                decline_probation_s: tree.decline_probation_period_s,
                flex_id: self.flex_id(tree),
                early_global_lookup: tree.early_global_reservations_lookup,
                ip_reservations_unique: tree.ip_reservations_unique,
                lenient_option_parsing: tree.compatibility.lenient_option_parsing,
                ignore_server_identifier: tree.compatibility.ignore_dhcp_server_identifier,
                ignore_link_selection: tree.compatibility.ignore_rai_link_selection,
                exclude_first_last_24: tree.compatibility.exclude_first_last_24,
                stash_agent_options: tree.stash_agent_options,
                options,
                name_rules,
                server_identifiers: std::mem::take(&mut self.server_identifiers).into(),
                shapes: Box::new(self.definitions.shapes()),
            },
            lookup: SubnetLookup::new(&subnets, relays, bound),
            subnets: subnets.into(),
            networks: networks.into(),
            network_subnets: network_subnets.into(),
            pools: pools.into(),
            classes,
            class_positions,
            class_names: std::mem::take(&mut self.class_names),
            hosts: Hosts::new(hosts, &tree.host_identifiers),
            options: std::mem::take(&mut self.options).finish(),
            name_rules: std::mem::take(&mut self.name_rules),
            interfaces: std::mem::take(&mut self.interfaces),
        }
    }

    fn class(&mut self, name: &Placed<String>) -> Option<ClassId> {
        let id = self.class_names.intern(&name.value);
        if id.is_none() {
            let text = format!("more than {} names of client classes", self.class_names.count());
            self.report.error(name.at, Style::After, text);
        }
        id
    }

    fn class_list(&mut self, names: &[Placed<String>]) -> Box<[ClassId]> {
        names.iter().filter_map(|name| self.class(name)).collect()
    }

    fn guard(&mut self, names: &[Placed<String>]) -> Guard {
        Guard(self.class_list(names))
    }

    fn classes(&mut self, classes: &[tree::ClientClass]) -> Vec<Class> {
        let mut built = Vec::with_capacity(classes.len());
        let mut defined = Vec::with_capacity(classes.len());
        let mut known = vec![KNOWN, UNKNOWN];
        for class in classes {
            let Some(id) = self.class_names.find(&class.name.value) else { continue };
            let test = self.test(class, &defined);
            let after_known =
                test.as_ref().is_some_and(|test| known.iter().any(|&known| test.depends_on(known)));
            if after_known {
                known.push(id);
            }
            defined.push(id);
            let definitions = self.definitions.for_class(&class.option_defs, self.report);
            let options = self.scope(&definitions, &class.options, false);
            let lifetime = class.valid_lifetime;
            built.push(Class {
                id,
                stage: match &test {
                    Some(_) if class.only_in_additional_list => Stage::OnDemand,
                    Some(_) if after_known => Stage::AfterKnown,
                    Some(_) => Stage::First,
                    None => Stage::OnDemand,
                },
                test,
                options,
                boot: BootFields {
                    next_server: class.next_server.filter(|address| !address.is_unspecified()),
                    server_hostname: class.server_hostname.as_deref().and_then(octets),
                    boot_file_name: class.boot_file_name.as_deref().and_then(octets),
                },
                lifetimes: lifetime.default.map(|default_s| Lifetimes {
                    min_s: lifetime.min.unwrap_or(default_s),
                    default_s,
                    max_s: lifetime.max.unwrap_or(default_s),
                }),
                offer_lifetime_s: class.offer_lifetime_s,
                server_identifier: server_identifier(&self.options, options),
            });
        }
        built
    }

    /// The compiled test of `class`.
    fn test(&mut self, class: &tree::ClientClass, defined: &[ClassId]) -> Option<Test> {
        let surrounding = Surrounding {
            definitions: self.definitions,
            names: RefCell::new(&mut self.class_names),
            defined,
        };
        let (at, test) = match &class.test {
            tree::ClassTest::None => return None,
            tree::ClassTest::Test(text) => {
                (text.at, compile_bool(&text.value, expr::Family::V4, &surrounding).map(Test::Bool))
            }
            tree::ClassTest::Template(text) => {
                let prefix = format!("SPAWN_{}_", class.name.value).into_bytes().into_boxed_slice();
                let program = compile_string(&text.value, expr::Family::V4, &surrounding);
                (text.at, program.map(|program| Test::Template(program, prefix)))
            }
        };
        test.map_err(|error| self.report.error(at, Style::After, format!("{error} at"))).ok()
    }

    /// The compiled expression of `libdhcp_flex_id`, which may ask for every class.
    fn flex_id(&mut self, tree: &tree::Dhcp4) -> Option<Arc<FlexId>> {
        let configured = tree.flex_id.as_ref()?;
        let defined: Vec<ClassId> =
            tree.classes.iter().filter_map(|class| self.class_names.find(&class.name.value)).collect();
        let surrounding = Surrounding {
            definitions: self.definitions,
            names: RefCell::new(&mut self.class_names),
            defined: &defined,
        };
        let text = &configured.expression;
        match compile_string(&text.value, expr::Family::V4, &surrounding) {
            Ok(program) => {
                Some(Arc::new(FlexId { program, replaces_client_id: configured.replace_client_id }))
            }
            Err(error) => {
                self.report.error(text.at, Style::After, format!("{error} at"));
                None
            }
        }
    }

    /// Stores one scope's options; of `ours`, the server identifiers become the server's own addresses.
    fn scope(&mut self, definitions: &Definitions, options: &[tree::OptionData], ours: bool) -> ScopeIndex {
        if options.is_empty() {
            return ScopeIndex::default();
        }
        let encoded = encode_scope(definitions, options, self.report);
        let mut entries = Vec::with_capacity(encoded.len());
        for option in encoded {
            entries.push(NewOption {
                code: option.code,
                enterprise: option.enterprise,
                vendor: option.vendor,
                always: option.from.always_send,
                never: option.from.never_send,
                guard: self.guard(&option.from.client_classes),
                value: option.value,
            });
        }
        let scope = self.options.scope(&entries);
        if ours {
            self.server_identifiers.extend(server_identifier(&self.options, scope));
        }
        scope
    }

    fn rules(&mut self, settings: &tree::Settings, pool: Option<&tree::Pool4>) -> NameRulesIndex {
        let text = |own: Option<&String>, inherited: &String| own.unwrap_or(inherited).clone().into_bytes();
        let ddns = pool.map(|pool| &pool.ddns);
        let characters = pool.map(|pool| &pool.hostname_char);
        let replace =
            ddns.and_then(|ddns| ddns.replace_client_name).unwrap_or(settings.ddns_replace_client_name);
        let set = characters.and_then(|own| own.set.as_ref()).unwrap_or(&settings.hostname_char_set);
        let suffix =
            ddns.and_then(|ddns| ddns.qualifying_suffix.as_ref()).unwrap_or(&settings.ddns_qualifying_suffix);
        let rules = NameRules {
            // Updates are not sent: a configuration that switches them on is refused before it comes here.
            updates: false,
            override_no_update: ddns
                .and_then(|ddns| ddns.override_no_update)
                .unwrap_or(settings.ddns_override_no_update),
            override_client_update: ddns
                .and_then(|ddns| ddns.override_client_update)
                .unwrap_or(settings.ddns_override_client_update),
            update_on_renew: ddns
                .and_then(|ddns| ddns.update_on_renew)
                .unwrap_or(settings.ddns_update_on_renew),
            replace: match replace {
                tree::ReplaceClientName::Never => ReplaceName::Never,
                tree::ReplaceClientName::Always => ReplaceName::Always,
                tree::ReplaceClientName::WhenPresent => ReplaceName::WhenPresent,
                tree::ReplaceClientName::WhenNotPresent => ReplaceName::WhenNotPresent,
            },
            generated_prefix: text(
                ddns.and_then(|ddns| ddns.generated_prefix.as_ref()),
                &settings.ddns_generated_prefix,
            )
            .into(),
            suffix: suffix.trim_matches('.').as_bytes().into(),
            unwanted: self.character_set(set, pool.map_or_else(Span::default, |pool| pool.at)),
            replacement: text(
                characters.and_then(|own| own.replacement.as_ref()),
                &settings.hostname_char_replacement,
            )
            .into(),
        };
        if let Some(&index) = self.name_rules_known.get(&rules) {
            return index;
        }
        let index = NameRulesIndex(count(self.name_rules.len()));
        self.name_rules.push(rules.clone());
        self.name_rules_known.insert(rules, index);
        index
    }

    fn character_set(&mut self, pattern: &str, at: Span) -> CharacterSet {
        if let Some(known) = self.character_sets.get(pattern) {
            return known.clone();
        }
        let set = CharacterSet::new(pattern).unwrap_or_else(|text| {
            self.report.error(at, Style::After, text);
            CharacterSet::default()
        });
        self.character_sets.insert(pattern.to_owned(), set.clone());
        set
    }

    /// All networks with their options, and all subnets ascending by id.
    fn networks<'t>(&mut self, tree: &'t tree::Dhcp4) -> (Vec<Network>, Vec<ScopeIndex>, Vec<Placement<'t>>) {
        let mut networks = Vec::new();
        let mut options = Vec::new();
        let mut placements: Vec<Placement<'t>> = Vec::new();
        for shared in &tree.shared_networks {
            let index = NetworkIndex(count(networks.len()));
            let own = self.scope(self.definitions, &shared.options, true);
            networks.push(Network {
                name: Some(shared.name.as_str().into()),
                members: 0..0,
                guard: self.guard(&shared.guards),
                additional_classes: self.class_list(&shared.additional_classes),
                has_hosts: false,
                has_v6_only_preferred: self.options.store().scope(own).codes.contains(V6_ONLY_PREFERRED),
            });
            options.push(own);
            placements.extend(shared.subnets.iter().map(|subnet| (subnet, index)));
        }
        for subnet in &tree.subnets {
            placements.push((subnet, NetworkIndex(count(networks.len()))));
            networks.push(Network {
                name: None,
                members: 0..0,
                guard: Guard::default(),
                additional_classes: Box::default(),
                has_hosts: false,
                has_v6_only_preferred: false,
            });
            options.push(ScopeIndex::default());
        }
        placements.sort_by_key(|(subnet, _)| subnet.id);
        (networks, options, placements)
    }

    fn interface(&self, subnet: &tree::Subnet4) -> Option<InterfaceId> {
        if subnet.interface.is_empty() {
            return None;
        }
        let position = self.interfaces.iter().position(|interface| interface.name == subnet.interface)?;
        u16::try_from(position).ok().map(InterfaceId)
    }

    fn subnet(
        &mut self,
        index: SubnetIndex,
        subnet: &tree::Subnet4,
        network: NetworkIndex,
        network_options: ScopeIndex,
        pools: &mut Vec<Pool>,
    ) -> Subnet {
        let settings = &subnet.settings;
        let own_options = self.scope(self.definitions, &subnet.options, true);
        let options = self.options.merge(&[own_options, network_options]);
        let name_rules = self.rules(settings, None);
        let first_pool = count(pools.len());
        for pool in &subnet.pools {
            let pool_options = self.scope(self.definitions, &pool.options, false);
            let built = Pool {
                subnet: index,
                first: pool.first,
                last: pool.last,
                pool_id: pool.pool_id,
                guard: self.guard(&pool.guards),
                additional_classes: self.class_list(&pool.additional_classes),
                options: self.options.merge(&[pool_options, own_options, network_options]),
                name_rules: if pool.ddns == tree::DdnsSettings::default()
                    && pool.hostname_char == tree::HostnameChar::default()
                {
                    name_rules
                } else {
                    self.rules(settings, Some(pool))
                },
            };
            pools.push(built);
        }
        let guard = self.guard(&subnet.guards);
        let is_open = guard.0.is_empty();
        let timers = Timers {
            renew_s: settings.renew_timer_s,
            rebind_s: settings.rebind_timer_s,
            calculate: settings.calculate_tee_times,
            t1_share: settings.t1_percent,
            t2_share: settings.t2_percent,
        };
        let held = Settings {
            guard,
            additional_classes: self.class_list(&subnet.additional_classes),
            lifetimes: Lifetimes {
                min_s: settings.valid_lifetime.min,
                default_s: settings.valid_lifetime.default,
                max_s: settings.valid_lifetime.max,
            },
            offer_lifetime_s: settings.offer_lifetime_s,
            adaptive_threshold: settings.adaptive_lease_time_threshold,
            timers,
            default_times: timers.t1_t2_s(settings.valid_lifetime.default),
            match_client_id: settings.match_client_id,
            authoritative: settings.authoritative,
            boot: BootFields {
                next_server: Some(settings.next_server).filter(|address| !address.is_unspecified()),
                server_hostname: octets(&settings.server_hostname),
                boot_file_name: octets(&settings.boot_file_name),
            },
            reservations: ReservationFlags {
                global: settings.reservations_global,
                in_subnet: settings.reservations_in_subnet,
                out_of_pool: settings.reservations_out_of_pool,
            },
            allocator: match settings.allocator {
                tree::Allocator::Iterative => AllocatorKind::Iterative,
                tree::Allocator::Random => AllocatorKind::Random,
                tree::Allocator::Flq => AllocatorKind::Flq,
            },
            cache: LeaseCache {
                threshold: Some(settings.cache_threshold),
                max_age_s: settings.cache_max_age_s,
            },
            store_extended_info: settings.store_extended_info,
            name_rules,
        };
        Subnet {
            id: subnet.id,
            prefix: subnet.prefix.first,
            plain_pool: plain_pool(&pools[super::at(first_pool)..], name_rules),
            network,
            pools: first_pool..count(pools.len()),
            settings: self.share(held),
            options,
            prefix_len: subnet.prefix.length,
            is_open,
            is_alone: false,
            has_additional_classes: false,
            has_v6_only_preferred: false,
            filter: HostFilter::default(),
        }
    }

    /// Stores settings, equal ones once.
    fn share(&mut self, settings: Settings) -> Arc<Settings> {
        // Floats have no hash; their printed form tells every two of them apart.
        Arc::clone(self.settings_known.entry(format!("{settings:?}")).or_insert_with(|| Arc::new(settings)))
    }

    fn hosts(&mut self, tree: &tree::Dhcp4, placements: &[Placement<'_>]) -> Vec<Host> {
        let inside = placements.iter().enumerate().flat_map(|(position, (subnet, _))| {
            subnet.reservations.iter().map(move |host| (Some(SubnetIndex(count(position))), host))
        });
        let global = tree.reservations.iter().map(|host| (None, host));
        inside.chain(global).map(|(subnet, host)| self.host(subnet, host)).collect()
    }

    fn host(&mut self, subnet: Option<SubnetIndex>, host: &tree::Host) -> Host {
        let boot = BootFields {
            next_server: Some(host.next_server).filter(|address| !address.is_unspecified()),
            server_hostname: octets(&host.server_hostname),
            boot_file_name: octets(&host.boot_file_name),
        };
        Host {
            subnet,
            kind: host.kind,
            identifier: Identifier::new(&host.identifier),
            address: host.address.as_ref().map_or(Ipv4Addr::UNSPECIFIED, |address| address.value),
            hostname: host.hostname.as_bytes().into(),
            options: self.scope(self.definitions, &host.options, false),
            classes: self.class_list(&host.client_classes),
            boot: (!boot.is_empty()).then(|| Box::new(boot)),
        }
    }
}

/// Gives each network its run in the list of subnets, which it returns.
fn members(networks: &mut [Network], subnets: &[Subnet]) -> Vec<SubnetIndex> {
    let mut order: Vec<SubnetIndex> = (0..count(subnets.len())).map(SubnetIndex).collect();
    // Stable: within a network the subnets stay ascending by id.
    order.sort_by_key(|index| subnets[super::at(index.0)].network);
    for (position, index) in (0..).zip(&order) {
        let members = &mut networks[super::at(subnets[super::at(index.0)].network.0)].members;
        if members.start == members.end {
            members.start = position;
        }
        members.end = position + 1;
    }
    order
}

fn server_identifier(options: &OptionStoreBuilder, scope: ScopeIndex) -> Option<Ipv4Addr> {
    let store = options.store();
    let entry = store.instances(store.scope(scope), SERVER_IDENTIFIER).next()?;
    store.value(entry).first_chunk::<4>().copied().map(Ipv4Addr::from)
}

fn octets(text: &str) -> Option<Box<[u8]>> {
    (!text.is_empty()).then(|| text.as_bytes().into())
}

fn count(count: usize) -> u32 {
    u32::try_from(count).expect("a configuration of less than 2^32 parts")
}

/// The ends of the only one of `pools` if nothing about it has to be looked up; else in the wrong order.
fn plain_pool(pools: &[Pool], name_rules: NameRulesIndex) -> (Ipv4Addr, Ipv4Addr) {
    match pools {
        [pool]
            if pool.guard.is_open()
                && pool.additional_classes.is_empty()
                && pool.pool_id == 0
                && pool.name_rules == name_rules =>
        {
            (pool.first, pool.last)
        }
        _ => (Ipv4Addr::BROADCAST, Ipv4Addr::UNSPECIFIED),
    }
}
