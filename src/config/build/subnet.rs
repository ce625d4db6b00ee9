//! Shared networks, subnets, pools.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr};

use super::scope::Inherited;
use super::{Builder, Fields};
use crate::config::finding::Style;
use crate::config::json::{Map, Member, Placed, Span};
use crate::config::tree::{Pool4, Prefix4, SharedNetwork, Subnet4};
use crate::ids::SubnetId;

/// Largest `id`: the one above means "none" to Kea.
const SUBNET_ID_MAX: u32 = u32::MAX - 1;

/// What must be unique among all subnets, networks or not.
#[derive(Default)]
struct Taken {
    ids: HashSet<u32>,
    texts: HashSet<(Ipv4Addr, u8)>,
    prefixes: HashMap<Prefix4, Span>,
}

impl Builder<'_> {
    /// Networks and the subnets outside them. Networks come first, whatever the order of the file, as in Kea: that
    /// is the order of automatic ids.
    pub(super) fn subnets(
        &mut self,
        map: &Map,
        global: &Inherited,
        unique: bool,
    ) -> (Vec<SharedNetwork>, Vec<Subnet4>) {
        let mut taken = Taken::default();
        let mut names = HashSet::new();
        let mut networks = Vec::new();
        for (map, at) in map.maps("shared-networks") {
            networks.push(self.network(map, at, global, &mut taken, &mut names, unique));
        }
        let mut subnets = Vec::new();
        for (map, at) in map.maps("subnet4") {
            subnets.extend(self.subnet(map, at, global, None, &mut taken, unique));
        }
        let inside = networks.iter_mut().flat_map(|network: &mut SharedNetwork| network.subnets.iter_mut());
        self.automatic_ids(inside.chain(subnets.iter_mut()), &taken.ids);
        (networks, subnets)
    }

    fn network(
        &mut self,
        map: &Map,
        at: Span,
        global: &Inherited,
        taken: &mut Taken,
        names: &mut HashSet<String>,
        unique: bool,
    ) -> SharedNetwork {
        let name = map.placed("name").unwrap_or_default();
        if map.find("name").is_some() && name.value.is_empty() {
            self.bare_error(name.at, "Shared-network with subnets  is missing mandatory 'name' parameter");
        } else if !name.value.is_empty() && !names.insert(name.value.clone()) {
            self.error(name.at, format!("duplicate network '{name}' found in the configuration"));
        }
        let own = self.scope_settings(map);
        let inherited = self.resolve(map, at, &own, global);
        let mut network = SharedNetwork {
            at,
            name: name.value,
            interface: map.string("interface").unwrap_or_default(),
            relays: self.relays(map).unwrap_or_default(),
            own,
            guards: self.guards(map),
            additional_classes: self.additional_classes(map),
            options: self.options(map),
            subnets: Vec::new(),
            user_context: self.user_context(map),
        };
        self.check_interface(map, "shared network", &network.name.clone());
        let mut interface = network.interface.clone();
        for (map, at) in map.maps("subnet4") {
            let Some(subnet) = self.subnet(map, at, &inherited, Some(&network), taken, unique) else {
                continue;
            };
            let text = &subnet.text;
            if !subnet.interface.is_empty() {
                if interface.is_empty() {
                    interface.clone_from(&subnet.interface);
                } else if interface != subnet.interface {
                    let own = &subnet.interface;
                    let text = format!(
                        "Subnet {text} has specified interface {own}, but earlier subnet in the same \
                         shared-network or the shared-network itself used {interface}"
                    );
                    self.bare_error(at, text);
                }
            }
            let (own, outer) = (subnet.settings.authoritative, inherited.settings.authoritative);
            if own != outer {
                let text = format!(
                    "Subnet {text} has different authoritative setting {own} than the shared-network \
                     itself: {outer}"
                );
                self.bare_error(at, text);
            }
            network.subnets.push(subnet);
        }
        network
    }

    fn subnet(
        &mut self,
        map: &Map,
        at: Span,
        outer: &Inherited,
        network: Option<&SharedNetwork>,
        taken: &mut Taken,
        unique: bool,
    ) -> Option<Subnet4> {
        self.scope = "subnet configuration failed: ";
        let own = self.scope_settings(map);
        let inherited = self.resolve(map, at, &own, outer);
        let id = self.subnet_id(map, at, taken);
        let prefix = self.prefix(map);
        self.scope = "";
        let (address, prefix) = prefix?;
        let text = format!("{address}/{}", prefix.length);
        if !taken.texts.insert((address, prefix.length)) {
            self.error(at, format!("subnet with the prefix of '{text}' already exists"));
        } else if let Some(before) = taken.prefixes.insert(prefix, at) {
            let place = self.report.place(before);
            self.warning(at, format!("subnet {text} holds the same addresses as the one at {place}"));
        }
        self.check_interface(map, "subnet", &text);
        let interface = map.string("interface").filter(|name| !name.is_empty());
        let interface = interface.or_else(|| network.map(|network| network.interface.clone()));
        let relays = self.relays(map).or_else(|| network.map(|network| network.relays.clone()));
        Some(Subnet4 {
            at,
            id: SubnetId(id),
            id_automatic: id == 0,
            prefix,
            interface: interface.unwrap_or_default(),
            relays: relays.unwrap_or_default(),
            own,
            settings: inherited.settings,
            guards: self.guards(map),
            additional_classes: self.additional_classes(map),
            options: self.options(map),
            pools: self.pools(map, prefix, &text),
            reservations: self.hosts(map, Some((id, prefix, &text)), unique),
            four_o6_interface: map.string("4o6-interface").unwrap_or_default(),
            four_o6_interface_id: map.string("4o6-interface-id").unwrap_or_default(),
            four_o6_subnet: map.string("4o6-subnet").unwrap_or_default(),
            user_context: self.user_context(map),
            text,
        })
    }

    /// The id as written, 0 when one is to be given.
    fn subnet_id(&mut self, map: &Map, at: Span, taken: &mut Taken) -> u32 {
        let Some(value) = map.find("id") else { return 0 };
        // That it is no integer has been said; it is not missing.
        let Some(number) = value.as_integer() else { return SUBNET_ID_MAX };
        match u32::try_from(number) {
            Ok(id) if id <= SUBNET_ID_MAX => {
                if id > 0 && !taken.ids.insert(id) {
                    self.error(at, format!("ID of the new IPv4 subnet '{id}' is already in use"));
                }
                id
            }
            _ => {
                let text =
                    format!("The 'id' value ({number}) is not within expected range: (1 - {SUBNET_ID_MAX})");
                self.scope_error(value.at, Style::Bare, &text);
                // Not 0: a wrong id is not a missing one.
                SUBNET_ID_MAX
            }
        }
    }

    /// Gives ids to subnets that have none: the lowest free ones, once all written ids are known.
    fn automatic_ids<'s>(&mut self, subnets: impl Iterator<Item = &'s mut Subnet4>, taken: &HashSet<u32>) {
        let mut next = 1_u32;
        let mut given = 0_usize;
        let mut first: Option<(Span, String, u32)> = None;
        for subnet in subnets.filter(|subnet| subnet.id_automatic) {
            while taken.contains(&next) {
                next = next.saturating_add(1);
            }
            subnet.id = SubnetId(next);
            first.get_or_insert_with(|| (subnet.at, subnet.text.clone(), next));
            next = next.saturating_add(1);
            given += 1;
        }
        if let Some((at, text, id)) = first {
            let text = format!(
                "{given} of the subnets have no 'id' and are numbered in order ({text} gets {id}): leases on disk \
                 refer to ids, so a subnet added or moved later may take over the leases of another"
            );
            self.warning(at, text);
        }
    }

    fn prefix(&mut self, map: &Map) -> Option<(Ipv4Addr, Prefix4)> {
        let value = map.find("subnet")?;
        let text: String = value.as_text()?.chars().filter(|letter| !letter.is_ascii_whitespace()).collect();
        let fault = match text.split_once('/') {
            None => format!("Invalid subnet syntax (prefix/len expected):{text}"),
            Some((_, "")) => format!("Invalid subnet syntax (prefix/len expected):{text}"),
            Some((address, length)) => match (address.parse::<IpAddr>(), length.parse::<i64>()) {
                (_, Err(_)) => format!("prefix length: '{length}' is not an integer"),
                (Err(_), _) => format!("Failed to convert string to address '{address}': Invalid argument"),
                (Ok(IpAddr::V6(address)), _) => format!("Non IPv4 prefix {address} specified in subnet4"),
                (Ok(IpAddr::V4(address)), Ok(length)) => {
                    let prefix = u8::try_from(length).ok().and_then(|length| Prefix4::new(address, length));
                    if let Some(prefix) = prefix {
                        return Some((address, prefix));
                    }
                    format!("Invalid prefix length specified for subnet: {length}")
                }
            },
        };
        self.scope_error(value.at, Style::After, &fault);
        None
    }

    /// The relays of a scope; nothing when it does not speak of relays.
    fn relays(&mut self, map: &Map) -> Option<Vec<Ipv4Addr>> {
        let member = map.member("relay")?;
        let relay = member.value.as_map()?;
        let mut relays = Vec::new();
        let mut entries = relay.texts("ip-addresses");
        if let Some(old) = relay.member("ip-address") {
            if relay.member("ip-addresses").is_some() {
                self.error(old.key_at, "specify either ip-address or ip-addresses, not both");
            }
            // "None", as Kea printed it before it had the list.
            entries.extend(relay.placed("ip-address").filter(|text| text.value != "0.0.0.0"));
        }
        let mut seen = HashSet::new();
        for entry in entries {
            match entry.value.parse::<IpAddr>() {
                Ok(IpAddr::V4(address)) => {
                    if seen.insert(address) {
                        relays.push(address);
                    }
                }
                Ok(IpAddr::V6(_)) => self.error(entry.at, format!("address {entry} is not a: IPv4address")),
                Err(_) => self.error(entry.at, format!("address {entry} is not a valid: IPv4address")),
            }
        }
        Some(relays)
    }

    fn check_interface(&mut self, map: &Map, what: &str, name: &str) {
        let (Some(known), Some(interface)) = (self.interfaces, map.placed("interface")) else {
            return;
        };
        if !interface.value.is_empty() && !known.iter().any(|known| known.name == interface.value) {
            let text = format!(
                "Specified network interface name {interface} for {what} {name} is not present in the system"
            );
            let prefix = if what == "subnet" { "subnet configuration failed: " } else { "" };
            self.error(interface.at, format!("{prefix}{text}"));
        }
    }

    fn pools(&mut self, map: &Map, prefix: Prefix4, text: &str) -> Vec<Pool4> {
        let mut pools = Vec::new();
        for (map, at) in map.maps("pools") {
            let Some((first, last)) = map.member("pool").and_then(|member| self.range(member)) else {
                continue;
            };
            if !prefix.contains(first) || !prefix.contains(last) {
                let text = format!(
                    "subnet configuration failed: a pool of type V4, with the following address range: \
                     {first}-{last} does not match the prefix of a subnet: {text} to which it is being added"
                );
                self.error(at, text);
                continue;
            }
            pools.push(Pool4 {
                at,
                first,
                last,
                pool_id: self.pool_id(map),
                guards: self.guards(map),
                additional_classes: self.additional_classes(map),
                options: self.options(map),
                hostname_char: self.hostname_char(map),
                ddns: self.ddns_settings(map),
                user_context: self.user_context(map),
            });
        }
        // A stable sort: of two pools at one address the later one is the one in the way.
        pools.sort_by_key(|pool| pool.first);
        let mut reach: Option<(Span, Ipv4Addr, Ipv4Addr)> = None;
        for pool in &pools {
            let this = (pool.at, pool.first, pool.last);
            if let Some(before) = reach
                && pool.first <= before.2
            {
                let (at, first, last) = this.max(before);
                let text = format!(
                    "subnet configuration failed: a pool of type V4, with the following address range: \
                     {first}-{last} overlaps with an existing pool in the subnet: {text} to which it is being added"
                );
                self.error(at, text);
            }
            reach = reach.filter(|before| before.2 > pool.last).or(Some(this));
        }
        pools
    }

    fn pool_id(&mut self, map: &Map) -> u32 {
        let Some((value, number)) = map.find("pool-id").and_then(|value| Some((value, value.as_integer()?)))
        else {
            return 0;
        };
        match u32::try_from(number) {
            Ok(id) if id > 0 => id,
            _ => {
                self.error(value.at, format!("pool-id {number} is not a positive integer greater than 0"));
                0
            }
        }
    }

    /// The addresses of `A-B` or `P/len`, blanks free.
    fn range(&mut self, member: &Member) -> Option<(Ipv4Addr, Ipv4Addr)> {
        let Placed { value: text, at } = Placed { value: member.value.as_text()?, at: member.value.at };
        let text: String = text.chars().filter(|letter| !letter.is_ascii_whitespace()).collect();
        if let Some((address, length)) = text.split_once('/') {
            let (Ok(address), Ok(length)) = (address.parse(), length.parse::<u8>()) else {
                self.error(at, format!("Failed to parse pool definition: {text}"));
                return None;
            };
            let Some(prefix) = Prefix4::new(address, length) else {
                self.error(at, format!("Failed to create pool defined by: {text}"));
                return None;
            };
            if prefix.first != address {
                let first = prefix.first;
                self.warning(at, format!("pool {text} begins at {first}, the first address of the prefix"));
            }
            return Some((prefix.first, prefix.last()));
        }
        let Some((first, last)) = text.split_once('-') else {
            let text = format!(
                "invalid pool definition: {text}. There are two acceptable formats <min address-max address> \
                 or <prefix/len>"
            );
            self.error(at, text);
            return None;
        };
        let (Ok(first), Ok(last)) = (first.parse::<Ipv4Addr>(), last.parse::<Ipv4Addr>()) else {
            self.error(at, format!("Failed to parse pool definition: {text}"));
            return None;
        };
        if first > last {
            self.error(at, format!("Failed to create pool defined by: {text}"));
            return None;
        }
        Some((first, last))
    }
}
