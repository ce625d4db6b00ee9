//! Reservations.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr};

use super::{Builder, Fields};
use crate::config::hex;
use crate::config::json::{Map, Placed, Span, Value};
use crate::config::tree::{Host, IdentifierKind, Prefix4};
use crate::ids::{CLIENT_ID_BYTES_MAX, ColonHex, DUID_BYTES_MAX, HW_ADDR_BYTES_MAX};

/// Longest circuit-id and flex-id of a host.
const TEXTUAL_ID_BYTES_MAX: usize = 128;

const KINDS: [IdentifierKind; 5] = [
    IdentifierKind::HwAddress,
    IdentifierKind::Duid,
    IdentifierKind::CircuitId,
    IdentifierKind::ClientId,
    IdentifierKind::FlexId,
];

impl IdentifierKind {
    /// The key that it is written under.
    #[must_use]
    pub const fn key(self) -> &'static str {
        match self {
            Self::HwAddress => "hw-address",
            Self::Duid => "duid",
            Self::CircuitId => "circuit-id",
            Self::ClientId => "client-id",
            Self::FlexId => "flex-id",
        }
    }

    /// Fewest and most octets. A host with fewer is taken, as by Kea, and will never be found.
    const fn bytes(self) -> (usize, usize) {
        match self {
            Self::HwAddress => (1, HW_ADDR_BYTES_MAX),
            Self::Duid => (3, DUID_BYTES_MAX),
            Self::ClientId => (2, CLIENT_ID_BYTES_MAX),
            Self::CircuitId | Self::FlexId => (1, TEXTUAL_ID_BYTES_MAX),
        }
    }
}

impl Builder<'_> {
    /// `reservations` of a subnet (its id as written, prefix and text) or of the global scope.
    pub(super) fn hosts(
        &mut self,
        map: &Map,
        subnet: Option<(u32, Prefix4, &str)>,
        unique: bool,
    ) -> Vec<Host> {
        let list = map.find("reservations").and_then(Value::as_list).unwrap_or_default();
        let mut hosts: Vec<Host> = Vec::with_capacity(list.len());
        let mut identifiers: HashSet<(IdentifierKind, Box<[u8]>)> = HashSet::with_capacity(list.len());
        let mut addresses: HashSet<Ipv4Addr> = HashSet::with_capacity(list.len());
        let id = subnet.map_or(0, |(id, ..)| id);
        for (map, at) in map.maps("reservations") {
            let Some(host) = self.host(map, at) else {
                continue;
            };
            if let (Some(address), Some((_, prefix, text))) = (&host.address, subnet)
                && !prefix.contains(address.value)
            {
                let what = format!(
                    "specified reservation '{}' is not within the IPv4 subnet '{text}'",
                    address.value
                );
                self.bare_error(address.at, what);
            }
            if !identifiers.insert((host.kind, host.identifier.clone())) {
                self.bare_error(at, same_identifier(&host, id));
            }
            if let Some(address) = &host.address
                && !addresses.insert(address.value)
                && unique
            {
                self.bare_error(at, same_address(&host, address.value, id));
            }
            hosts.push(host);
        }
        hosts
    }

    fn host(&mut self, map: &Map, at: Span) -> Option<Host> {
        let mut found = None;
        for kind in KINDS {
            let Some(text) = map.placed(kind.key()) else {
                continue;
            };
            if let Some((before, _)) = found {
                let (before, key) = (IdentifierKind::key(before), kind.key());
                self.error(at, format!("the '{before}' and '{key}' are mutually exclusive"));
                return None;
            }
            found = Some((kind, text));
        }
        let Some((kind, text)) = found else {
            // A mistyped identifier has been reported as such.
            if !KINDS.iter().any(|kind| map.find(kind.key()).is_some()) {
                self.error(
                    at,
                    "one of the supported identifiers must be specified for host reservation: \
                     circuit-id, client-id, duid, flex-id, hw-address",
                );
            }
            return None;
        };
        let identifier = self.identifier(kind, &text)?;
        let address = self.host_address(map);
        Some(Host {
            at,
            kind,
            identifier,
            address,
            hostname: map.string("hostname").unwrap_or_default(),
            client_classes: map.texts("client-classes"),
            options: self.options(map),
            next_server: self.next_server(map).unwrap_or(Ipv4Addr::UNSPECIFIED),
            server_hostname: self.server_hostname(map).unwrap_or_default(),
            boot_file_name: self.boot_file_name(map).unwrap_or_default(),
            user_context: self.user_context(map),
        })
    }

    fn identifier(&mut self, kind: IdentifierKind, text: &Placed<String>) -> Option<Box<[u8]>> {
        let octets = hex::quoted(&text.value).map(<[u8]>::to_vec).or_else(|| hex::hex(&text.value));
        let Some(octets) = octets else {
            self.error(text.at, format!("invalid host identifier value '{text}'"));
            return None;
        };
        let (least, most) = kind.bytes();
        let (key, count) = (kind.key(), octets.len());
        if octets.is_empty() {
            self.error(text.at, "empty host identifier used");
            return None;
        }
        if count > most {
            self.error(
                text.at,
                format!("'{key}' of {count} octets is too long, at most {most} are expected"),
            );
            return None;
        }
        if count < least {
            let what = format!(
                "'{key}' of {count} octets is shorter than any client's, at least {least} are expected: \
                 the reservation will not be used"
            );
            self.warning(text.at, what);
        }
        Some(octets.into_boxed_slice())
    }

    fn host_address(&mut self, map: &Map) -> Option<Placed<Ipv4Addr>> {
        let text = map.placed("ip-address")?;
        let at = text.at;
        match text.value.parse::<IpAddr>() {
            Ok(IpAddr::V4(address)) if address.is_unspecified() || address.is_broadcast() => {
                self.error(at, format!("must not make reservation for the '{address}' address"));
                None
            }
            Ok(IpAddr::V4(address)) => Some(Placed { value: address, at }),
            Ok(IpAddr::V6(address)) => {
                self.error(at, format!("address '{address}' is not an IPv4 address"));
                None
            }
            Err(_) => {
                self.error(at, format!("Failed to convert string to address '{text}': Invalid argument"));
                None
            }
        }
    }
}

fn same_identifier(host: &Host, id: u32) -> String {
    let octets = ColonHex(&host.identifier);
    match host.kind {
        IdentifierKind::HwAddress => format!(
            "failed to add new host using the HW address '{octets}' to the IPv4 subnet id '{id}' as this host \
             has already been added"
        ),
        IdentifierKind::Duid => format!(
            "failed to add new host using the DUID '{octets}' to the IPv4 subnet id '{id}' as this host has \
             already been added"
        ),
        kind => {
            let text: String = host.identifier.iter().map(|octet| format!("{octet:02X}")).collect();
            format!("failed to add duplicate IPv4 host using identifier: {}={text}", kind.key())
        }
    }
}

fn same_address(host: &Host, address: Ipv4Addr, id: u32) -> String {
    let shown = |kind| {
        if host.kind == kind { ColonHex(&host.identifier).to_string() } else { "(null)".to_owned() }
    };
    // The quote that Kea forgets is missing here too: scripts match this line.
    format!(
        "failed to add new host using the HW address '{} and DUID '{}' to the IPv4 subnet id '{id}' for the \
         address {address}: There's already a reservation for this address",
        shown(IdentifierKind::HwAddress),
        shown(IdentifierKind::Duid),
    )
}
