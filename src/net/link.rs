//! What interfaces there are, which of them the configuration selects, and what changes when they do.
//!
//! [`Snapshot::read`] asks the kernel once; [`select`] is a pure function over a snapshot; [`Table`] keeps the server's
//! numbers for interfaces and turns a new selection into the few [`Change`]s that shards must hear of. [`Monitor`] says when
//! to look again: interfaces that appear, vanish or change address are followed without a restart.
//!
//! Promises: cold path, may allocate; used by the control thread.

mod kernel;
pub mod make;

use std::fmt;
use std::net::Ipv4Addr;

pub use kernel::{Link, Monitor, Snapshot};

use crate::ids::InterfaceId;

use super::{ADDRESSES_MAX, PORTS_MAX};

/// How DHCPv4 is heard (`dhcp-socket-type`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SocketType {
    /// Packet sockets: clients without an address are answered directly.
    #[default]
    Raw,
    /// Ordinary sockets: relayed and unicast queries only.
    Udp,
}

/// An interface that is served: what its ports are opened with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selected {
    /// The interface's name.
    pub name: String,
    /// The kernel's number for it.
    pub index: u32,
    /// Its Ethernet address; all zero where it has none (UDP sockets only).
    pub mac: [u8; 6],
    /// The addresses that are served, at least one, in the kernel's order; the first is ours towards clients without an address.
    pub addresses: Vec<Ipv4Addr>,
}

/// An interface that the configuration asks for and that cannot be served now. Not an error: it may come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passed {
    /// The interface's name.
    pub name: String,
    /// Why not.
    pub why: Obstacle,
}

/// Why a selected interface cannot be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// It is administratively down.
    Down,
    /// It is up, without a carrier.
    NotRunning,
    /// It has none of the addresses asked for, or none at all.
    NoAddress,
    /// The loopback serves with UDP sockets and alone.
    Loopback,
    /// Raw frames need an Ethernet link.
    NotEthernet,
    /// More interfaces than [`PORTS_MAX`].
    TooMany,
}

impl fmt::Display for Passed {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = &self.name;
        match self.why {
            Obstacle::Down => write!(out, "the interface {name} is down"),
            Obstacle::NotRunning => write!(out, "the interface {name} is not running"),
            Obstacle::NoAddress => {
                write!(out, "the interface {name} has no usable IPv4 addresses configured")
            }
            Obstacle::Loopback => {
                write!(
                    out,
                    "the loopback interface {name} is served with dhcp-socket-type udp and alone only"
                )
            }
            Obstacle::NotEthernet => {
                write!(out, "the interface {name} is not Ethernet, which raw sockets need")
            }
            Obstacle::TooMany => {
                write!(out, "the interface {name} is beyond the {PORTS_MAX} that are served")
            }
        }
    }
}

/// What a configuration's list of interfaces comes to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// Served interfaces, by the kernel's index.
    pub served: Vec<Selected>,
    /// Interfaces asked for that cannot be served now.
    pub passed: Vec<Passed>,
}

/// Why a list of interfaces is refused. `Display` gives the reason alone; the caller says where in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SelectError {
    /// The position in the list.
    pub entry: usize,
    /// What is wrong with it.
    pub why: SelectReason,
}

/// What is wrong with an entry of the list of interfaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SelectReason {
    /// The entry, or its part before the slash, is empty.
    EmptyName,
    /// Nothing follows the slash.
    EmptyAddress,
    /// What follows the slash is no IPv4 address.
    BadAddress(String),
    /// `*` twice.
    WildcardTwice,
    /// `*` with an address.
    WildcardWithAddress,
    /// No such interface.
    NoInterface(String),
    /// The interface does not have that address.
    NoAddress(String, Ipv4Addr),
    /// The interface was named before.
    Twice(String),
    /// The same address of the same interface was named before.
    AddressTwice(String, Ipv4Addr),
}

impl fmt::Display for SelectError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.why {
            SelectReason::EmptyName => out.write_str("empty interface name used in configuration"),
            SelectReason::EmptyAddress => {
                out.write_str("empty address specified in the interface configuration")
            }
            SelectReason::BadAddress(text) => write!(out, "'{text}' is not a valid IPv4 address"),
            SelectReason::WildcardTwice => {
                out.write_str("the wildcard interface '*' can only be specified once")
            }
            SelectReason::WildcardWithAddress => {
                out.write_str("wildcard interface name '*' must not be used in conjunction with an address")
            }
            SelectReason::NoInterface(name) => write!(out, "interface '{name}' doesn't exist in the system"),
            SelectReason::NoAddress(name, address) => {
                write!(out, "interface '{name}' doesn't have address '{address}' assigned")
            }
            SelectReason::Twice(name) => write!(out, "interface '{name}' has already been specified"),
            SelectReason::AddressTwice(name, address) => {
                write!(out, "address '{address}' is already selected for the interface '{name}'")
            }
        }
    }
}

impl std::error::Error for SelectError {}

/// What one interface is asked for: all of its addresses, or some.
enum Asked {
    All,
    Some(Vec<Ipv4Addr>),
}

/// Applies the configured list (`"*"`, `"eth0"`, `"eth0/192.0.2.1"`) to the interfaces there are.
///
/// # Errors
/// What Kea refuses: see [`SelectReason`]. With `later` (a re-detection while serving), an interface or address that has gone is passed
/// over instead.
pub fn select(
    snapshot: &Snapshot,
    entries: &[&str],
    socket_type: SocketType,
    later: bool,
) -> Result<Selection, SelectError> {
    let mut wildcard = false;
    let mut asked: Vec<(&str, Asked)> = Vec::new();
    let mut selection = Selection::default();
    for (entry, text) in entries.iter().enumerate() {
        let refuse = |why| SelectError { entry, why };
        let (name, address) = match text.split_once('/') {
            Some((name, address)) => (name.trim(), Some(address.trim())),
            None => (text.trim(), None),
        };
        if name.is_empty() {
            return Err(refuse(SelectReason::EmptyName));
        }
        if name == "*" {
            if address.is_some() {
                return Err(refuse(SelectReason::WildcardWithAddress));
            }
            if wildcard {
                return Err(refuse(SelectReason::WildcardTwice));
            }
            wildcard = true;
            continue;
        }
        let address = match address {
            None => None,
            Some("") => return Err(refuse(SelectReason::EmptyAddress)),
            Some(address) => match address.parse::<Ipv4Addr>() {
                Ok(address) => Some(address),
                Err(_) => return Err(refuse(SelectReason::BadAddress(address.to_owned()))),
            },
        };
        let before = asked.iter_mut().find(|(known, _)| *known == name).map(|(_, asked)| asked);
        match (before, address) {
            (None, None) => asked.push((name, Asked::All)),
            (None, Some(address)) => asked.push((name, Asked::Some(vec![address]))),
            (Some(Asked::Some(list)), Some(address)) => {
                if list.contains(&address) {
                    return Err(refuse(SelectReason::AddressTwice(name.to_owned(), address)));
                }
                list.push(address);
            }
            (Some(_), _) => return Err(refuse(SelectReason::Twice(name.to_owned()))),
        }
        let Some(link) = snapshot.link(name) else {
            if later {
                continue;
            }
            return Err(refuse(SelectReason::NoInterface(name.to_owned())));
        };
        if let Some(address) = address
            && !later
            && !link.ipv4().any(|own| own == address)
        {
            return Err(refuse(SelectReason::NoAddress(name.to_owned(), address)));
        }
    }

    let alone = !wildcard && asked.len() == 1;
    for link in &snapshot.links {
        let asked = asked.iter().find(|(name, _)| *name == link.name).map(|(_, asked)| asked);
        let usable = usable(link, socket_type, alone && asked.is_some());
        let mut addresses: Vec<Ipv4Addr> = match asked {
            // With the wildcard beside it, an address alone narrows nothing.
            Some(Asked::Some(list)) if !wildcard => link.ipv4().filter(|own| list.contains(own)).collect(),
            Some(_) => link.ipv4().collect(),
            None if wildcard => match usable {
                Ok(()) => link.ipv4().collect(),
                // The wildcard means those that can be served, and is silent about the rest.
                Err(_) => continue,
            },
            None => continue,
        };
        addresses.truncate(ADDRESSES_MAX);
        let why = match usable {
            Err(why) => Some(why),
            Ok(()) if addresses.is_empty() && asked.is_none() => continue,
            Ok(()) if addresses.is_empty() => Some(Obstacle::NoAddress),
            Ok(()) if selection.served.len() == PORTS_MAX => Some(Obstacle::TooMany),
            Ok(()) => None,
        };
        match why {
            Some(why) => selection.passed.push(Passed { name: link.name.clone(), why }),
            None => selection.served.push(Selected {
                name: link.name.clone(),
                index: link.index,
                mac: link.mac.unwrap_or_default(),
                addresses,
            }),
        }
    }
    Ok(selection)
}

fn usable(link: &Link, socket_type: SocketType, alone: bool) -> Result<(), Obstacle> {
    if link.loopback && !(alone && socket_type == SocketType::Udp) {
        Err(Obstacle::Loopback)
    } else if !link.up {
        Err(Obstacle::Down)
    } else if !link.running {
        Err(Obstacle::NotRunning)
    } else if socket_type == SocketType::Raw && link.mac.is_none() {
        Err(Obstacle::NotEthernet)
    } else {
        Ok(())
    }
}

/// What shards must do when a selection follows another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Close the ports of this interface.
    Close(InterfaceId),
    /// Open ports for this interface. A `Close` of the same number, where one is due, comes earlier.
    Open(InterfaceId, Selected),
    /// The ports stay; they listen on these addresses from now on.
    Readdress(InterfaceId, Selected),
}

/// The server's numbers for interfaces: a name keeps its number while the server runs, served or not, as long as there are
/// fewer names than numbers.
#[derive(Clone, Debug, Default)]
pub struct Table {
    names: Vec<String>,
    served: Vec<(InterfaceId, Selected)>,
}

impl Table {
    /// A table that serves nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What is served.
    #[must_use]
    pub fn served(&self) -> &[(InterfaceId, Selected)] {
        &self.served
    }

    /// The name behind a number.
    #[must_use]
    pub fn name(&self, id: InterfaceId) -> Option<&str> {
        self.names.get(usize::from(id.0)).map(String::as_str)
    }

    /// The number of a name, given when it is first asked for.
    ///
    /// # Panics
    /// When there were 65,536 different names, which no machine has.
    pub fn id(&mut self, name: &str) -> InterfaceId {
        let position = self.names.iter().position(|known| known == name).unwrap_or_else(|| {
            self.names.push(name.to_owned());
            self.names.len() - 1
        });
        InterfaceId(u16::try_from(position).expect("a machine has fewer than 65,536 interface names"))
    }

    /// Makes `served` what is served, and says what must be done for it: closings first.
    ///
    /// Packet ports follow a change of address; UDP ports are bound to theirs and are opened again.
    pub fn update(&mut self, served: Vec<Selected>, socket_type: SocketType) -> Vec<Change> {
        let next: Vec<(InterfaceId, Selected)> =
            served.into_iter().map(|selected| (self.id(&selected.name), selected)).collect();
        let mut changes = Vec::new();
        let mut openings = Vec::new();
        for (id, old) in &self.served {
            let kept = next.iter().any(|(other, new)| other == id && follows(old, new, socket_type));
            if !kept {
                changes.push(Change::Close(*id));
            }
        }
        for (id, new) in &next {
            let old = self.served.iter().find(|(other, _)| other == id).map(|(_, old)| old);
            match old {
                Some(old) if old == new => {}
                Some(old) if follows(old, new, socket_type) => {
                    openings.push(Change::Readdress(*id, new.clone()));
                }
                _ => openings.push(Change::Open(*id, new.clone())),
            }
        }
        changes.append(&mut openings);
        self.served = next;
        changes
    }
}

/// Whether ports opened for `old` can go on as `new`.
fn follows(old: &Selected, new: &Selected, socket_type: SocketType) -> bool {
    old.index == new.index
        && old.mac == new.mac
        && (socket_type == SocketType::Raw || old.addresses == new.addresses)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(index: u32, name: &str, addresses: &[&str]) -> Link {
        Link {
            name: name.to_owned(),
            index,
            mac: Some([2, 0, 0, 0, 0, u8::try_from(index).expect("small")]),
            up: true,
            running: true,
            loopback: false,
            mtu: 1500,
            addresses: addresses.iter().map(|text| (text.parse().expect("an address"), 24)).collect(),
        }
    }

    fn machine() -> Snapshot {
        let mut lo = link(1, "lo", &["127.0.0.1"]);
        lo.loopback = true;
        lo.mac = None;
        let mut down = link(4, "eth2", &["10.0.2.1"]);
        (down.up, down.running) = (false, false);
        let mut unplugged = link(5, "eth3", &["10.0.3.1"]);
        unplugged.running = false;
        let mut tunnel = link(7, "tun0", &["10.0.5.1"]);
        tunnel.mac = None;
        Snapshot {
            links: vec![
                lo,
                link(2, "eth0", &["192.0.2.1", "2001:db8::1", "192.0.2.2"]),
                link(3, "eth1", &["10.0.1.1"]),
                down,
                unplugged,
                link(6, "eth4", &["fe80::1"]),
                tunnel,
            ],
        }
    }

    fn served(entries: &[&str], socket_type: SocketType) -> Vec<(String, Vec<String>)> {
        select(&machine(), entries, socket_type, false)
            .expect("a good list")
            .served
            .into_iter()
            .map(|one| (one.name, one.addresses.iter().map(ToString::to_string).collect()))
            .collect()
    }

    fn passed(entries: &[&str], socket_type: SocketType) -> Vec<String> {
        let selection = select(&machine(), entries, socket_type, false).expect("a good list");
        selection.passed.iter().map(ToString::to_string).collect()
    }

    fn refused(entries: &[&str]) -> (usize, String) {
        let error = select(&machine(), entries, SocketType::Raw, false).expect_err("a bad list");
        (error.entry, error.to_string())
    }

    #[test]
    fn empty_list_serves_nothing() {
        assert_eq!(served(&[], SocketType::Raw), []);
    }

    #[test]
    fn wildcard_is_every_interface_that_can_be_served_in_silence() {
        let expected = [
            ("eth0".to_owned(), vec!["192.0.2.1".to_owned(), "192.0.2.2".to_owned()]),
            ("eth1".to_owned(), vec!["10.0.1.1".to_owned()]),
        ];
        assert_eq!(served(&["*"], SocketType::Raw), expected);
        assert_eq!(served(&["*", "eth0/192.0.2.2"], SocketType::Raw), expected, "it narrows nothing");
        assert_eq!(passed(&["*"], SocketType::Raw), Vec::<String>::new());
        assert_eq!(served(&["*"], SocketType::Udp).len(), 3, "udp sockets need no Ethernet");
    }

    #[test]
    fn address_narrows_its_interface() {
        assert_eq!(
            served(&["eth0/192.0.2.2"], SocketType::Raw),
            [("eth0".to_owned(), vec!["192.0.2.2".to_owned()])]
        );
        assert_eq!(served(&["eth0/192.0.2.2", "eth0/192.0.2.1"], SocketType::Raw)[0].1.len(), 2);
    }

    #[test]
    fn interface_that_cannot_be_served_now_is_a_warning() {
        assert_eq!(passed(&["eth2"], SocketType::Raw), ["the interface eth2 is down"]);
        assert_eq!(passed(&["eth3"], SocketType::Raw), ["the interface eth3 is not running"]);
        assert_eq!(
            passed(&["eth4"], SocketType::Raw),
            ["the interface eth4 has no usable IPv4 addresses configured"]
        );
        assert_eq!(
            passed(&["tun0"], SocketType::Raw),
            ["the interface tun0 is not Ethernet, which raw sockets need"]
        );
    }

    #[test]
    fn loopback_serves_named_alone_with_udp_sockets() {
        assert_eq!(served(&["lo"], SocketType::Udp).len(), 1);
        assert_eq!(served(&["lo"], SocketType::Raw), []);
        assert_eq!(served(&["lo", "eth0"], SocketType::Udp).len(), 1);
        assert_eq!(
            passed(&["lo"], SocketType::Raw),
            ["the loopback interface lo is served with dhcp-socket-type udp and alone only"]
        );
    }

    #[test]
    fn bad_entries_are_refused_in_keas_words() {
        for (entries, entry, why) in [
            (&["eth0", ""][..], 1, "empty interface name used in configuration"),
            (&["eth9"], 0, "interface 'eth9' doesn't exist in the system"),
            (&["*", "*"], 1, "the wildcard interface '*' can only be specified once"),
            (&["eth0/10.9.9.9"], 0, "interface 'eth0' doesn't have address '10.9.9.9' assigned"),
            (
                &["*/10.0.1.1"],
                0,
                "wildcard interface name '*' must not be used in conjunction with an address",
            ),
            (&["eth0", "eth0"], 1, "interface 'eth0' has already been specified"),
            (&["eth0", "eth0/192.0.2.1"], 1, "interface 'eth0' has already been specified"),
            (&["eth0/192.0.2.1", "eth0"], 1, "interface 'eth0' has already been specified"),
            (&["eth0/"], 0, "empty address specified in the interface configuration"),
            (&["eth0/x"], 0, "'x' is not a valid IPv4 address"),
        ] {
            assert_eq!(refused(entries), (entry, why.to_owned()), "{entries:?}");
        }
    }

    #[test]
    fn interface_that_went_away_later_is_passed_over() {
        let mut snapshot = machine();
        snapshot.links.retain(|link| link.name != "eth1");
        let selection = select(&snapshot, &["eth0", "eth1"], SocketType::Raw, true).expect("serving goes on");
        assert_eq!(selection.served.len(), 1);
    }

    #[test]
    fn table_keeps_numbers_and_says_the_least_that_must_change() {
        let select = |snapshot: &Snapshot| {
            select(snapshot, &["*"], SocketType::Raw, true).expect("a good list").served
        };
        let mut table = Table::new();
        let mut snapshot = machine();
        let first = select(&snapshot);
        let (zero, one) = (InterfaceId(0), InterfaceId(1));
        assert_eq!(
            table.update(first.clone(), SocketType::Raw),
            [Change::Open(zero, first[0].clone()), Change::Open(one, first[1].clone())]
        );
        assert_eq!(table.update(first, SocketType::Raw), [], "nothing changed");

        snapshot.links[1].addresses.truncate(1);
        let second = select(&snapshot);
        assert_eq!(
            table.clone().update(second.clone(), SocketType::Raw),
            [Change::Readdress(zero, second[0].clone())]
        );
        assert_eq!(
            table.update(second.clone(), SocketType::Udp),
            [Change::Close(zero), Change::Open(zero, second[0].clone())],
            "a UDP socket is bound to its address"
        );

        snapshot.links[2].index = 99;
        let third = select(&snapshot);
        assert_eq!(
            table.update(third.clone(), SocketType::Raw),
            [Change::Close(one), Change::Open(one, third[1].clone())],
            "another device under the old name"
        );
        snapshot.links.retain(|link| link.name != "eth0");
        assert_eq!(table.update(select(&snapshot), SocketType::Raw), [Change::Close(zero)]);
        assert_eq!((table.name(zero), table.name(one)), (Some("eth0"), Some("eth1")));
        assert_eq!(table.served().len(), 1);
    }
}
