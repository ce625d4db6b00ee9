//! What interfaces there are, which of them the configuration selects, and what changes when they do.
//!
//! [`Snapshot::read`] asks the kernel once; [`select`] is a pure function over a snapshot; [`Table`] keeps the server's
//! numbers for interfaces and turns a new selection into the few [`Change`]s that shards must hear of. [`Monitor`] says when
//! to look again: interfaces that appear, vanish or change address are followed without a restart.
//!
//! Promises: cold path, may allocate; used by the control thread. Whatever the kernel sends is parsed without panic: a
//! message cut short ends there.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use socket2::Socket;

use crate::ids::InterfaceId;

use super::sys::{PollSet, netlink};
use super::{ADDRESSES_MAX, PORTS_MAX};

/// A network interface as the kernel describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its name.
    pub name: String,
    /// The kernel's number for it, which another interface may get after it has gone.
    pub index: u32,
    /// Its Ethernet address; nothing for other kinds of link.
    pub mac: Option<[u8; 6]>,
    /// Administratively up.
    pub up: bool,
    /// Up, and something is at the other end.
    pub running: bool,
    /// The loopback.
    pub loopback: bool,
    /// Largest payload in bytes.
    pub mtu: u32,
    /// Its addresses of both families with their prefix lengths, in the kernel's order.
    pub addresses: Vec<(IpAddr, u8)>,
}

impl Link {
    /// Its IPv4 addresses, in the kernel's order.
    pub fn ipv4(&self) -> impl Iterator<Item = Ipv4Addr> {
        self.addresses.iter().filter_map(|(address, _)| match address {
            IpAddr::V4(address) => Some(*address),
            IpAddr::V6(_) => None,
        })
    }
}

/// All interfaces at one moment, by the kernel's index.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// The interfaces.
    pub links: Vec<Link>,
}

impl Snapshot {
    /// Asks the kernel for the interfaces of the calling thread's network namespace.
    ///
    /// # Errors
    /// When the routing socket cannot be opened or the kernel refuses the question.
    pub fn read() -> io::Result<Self> {
        let mut socket = netlink::open(0)?;
        // Changes between and during the two dumps are marked by the kernel, or seen by the monitor, which was opened before.
        for _ in 0..DUMP_ATTEMPTS {
            let mut snapshot = Self::default();
            let links = dump(&mut socket, RTM_GETLINK, |message| snapshot.add_link(message))?;
            let addresses = dump(&mut socket, RTM_GETADDR, |message| snapshot.add_address(message))?;
            if links && addresses {
                snapshot.links.sort_by_key(|link| link.index);
                return Ok(snapshot);
            }
        }
        Err(io::Error::new(io::ErrorKind::Interrupted, "the interfaces kept changing while they were listed"))
    }

    /// The interface of this name.
    #[must_use]
    pub fn link(&self, name: &str) -> Option<&Link> {
        self.links.iter().find(|link| link.name == name)
    }

    fn add_link(&mut self, message: &Message<'_>) {
        if message.kind != RTM_NEWLINK {
            return;
        }
        let (Some(kind), Some(index), Some(flags)) =
            (host_u16(message.body, 2), host_u32(message.body, 4), host_u32(message.body, 8))
        else {
            return;
        };
        let mut link = Link {
            name: String::new(),
            index,
            mac: None,
            up: flags & IFF_UP != 0,
            running: flags & IFF_RUNNING != 0,
            loopback: flags & IFF_LOOPBACK != 0,
            mtu: 0,
            addresses: Vec::new(),
        };
        for (attribute, value) in Attributes(message.body.get(LINK_MESSAGE_BYTES..).unwrap_or_default()) {
            match attribute {
                IFLA_IFNAME => {
                    let name = value.split(|byte| *byte == 0).next().unwrap_or_default();
                    link.name = String::from_utf8_lossy(name).into_owned();
                }
                IFLA_ADDRESS if kind == ARPHRD_ETHER => link.mac = value.try_into().ok(),
                IFLA_MTU => link.mtu = host_u32(value, 0).unwrap_or(0),
                _ => {}
            }
        }
        self.links.push(link);
    }

    fn add_address(&mut self, message: &Message<'_>) {
        if message.kind != RTM_NEWADDR {
            return;
        }
        let (Some(prefix_len), Some(index)) = (message.body.get(1).copied(), host_u32(message.body, 4))
        else {
            return;
        };
        let (mut local, mut address) = (None, None);
        for (attribute, value) in Attributes(message.body.get(ADDRESS_MESSAGE_BYTES..).unwrap_or_default()) {
            let value = <[u8; 4]>::try_from(value)
                .map(|octets| IpAddr::V4(Ipv4Addr::from(octets)))
                .or_else(|_| <[u8; 16]>::try_from(value).map(|octets| IpAddr::V6(Ipv6Addr::from(octets))));
            match (attribute, value) {
                (IFA_LOCAL, Ok(value)) => local = Some(value),
                (IFA_ADDRESS, Ok(value)) => address = Some(value),
                _ => {}
            }
        }
        // On a point-to-point link the "address" is the far end's, the "local" one is ours; elsewhere v6 has only the former.
        if let Some(own) = local.or(address)
            && let Some(link) = self.links.iter_mut().find(|link| link.index == index)
        {
            link.addresses.push((own, prefix_len));
        }
    }
}

/// Says when interfaces or addresses have changed. Open it before the first [`Snapshot::read`], or a change in between is missed.
#[derive(Debug)]
pub struct Monitor(Socket);

impl Monitor {
    /// A monitor of the calling thread's network namespace.
    ///
    /// # Errors
    /// When the routing socket cannot be opened.
    pub fn open() -> io::Result<Self> {
        let socket = netlink::open(GROUPS)?;
        socket.set_nonblocking(true)?;
        Ok(Self(socket))
    }

    /// What to poll: readable when something has changed.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Sleeps until something has changed, then reads it; whether anything did within `timeout`. For callers without an event loop.
    ///
    /// # Errors
    /// When the socket is broken.
    pub fn wait(&mut self, timeout: Duration) -> io::Result<bool> {
        let mut poll = PollSet::with_capacity(1);
        poll.push(Some(self.0.as_fd()));
        poll.wait(timeout)?;
        self.drain()
    }

    /// Reads everything that is there; whether it was anything. Then it is time for a new [`Snapshot`].
    ///
    /// # Errors
    /// When the socket is broken.
    pub fn drain(&mut self) -> io::Result<bool> {
        let mut buffer = vec![0; DUMP_BYTES];
        let mut any = false;
        loop {
            match self.0.read(&mut buffer) {
                Ok(_) => any = true,
                // More changes than the queue holds: some are lost, but that there were some is all we ask.
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => any = true,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(any),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

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

// What follows is the kernel's routing protocol (rtnetlink(7)): messages in host byte order, each with a header of 16 bytes, a
// fixed part, and attributes of 4 bytes and a value, all aligned to 4.

const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST_DUMP: u16 = 0x301;
const NLM_F_DUMP_INTR: u16 = 0x10;
/// RTMGRP_LINK, RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR.
const GROUPS: u32 = 0x1 | 0x10 | 0x100;
const MESSAGE_HEADER_BYTES: usize = 16;
const LINK_MESSAGE_BYTES: usize = 16;
const ADDRESS_MESSAGE_BYTES: usize = 8;
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFF_UP: u32 = 0x1;
const IFF_LOOPBACK: u32 = 0x8;
const IFF_RUNNING: u32 = 0x40;
const ARPHRD_ETHER: u16 = 1;
/// More than the kernel puts into one datagram of a dump.
const DUMP_BYTES: usize = 1 << 16;
/// How often a dump that was disturbed by changes is repeated.
const DUMP_ATTEMPTS: usize = 16;

struct Message<'a> {
    kind: u16,
    flags: u16,
    body: &'a [u8],
}

struct Messages<'a>(&'a [u8]);

impl<'a> Iterator for Messages<'a> {
    type Item = Message<'a>;

    fn next(&mut self) -> Option<Message<'a>> {
        let len = usize::try_from(host_u32(self.0, 0)?).ok()?;
        let body = self.0.get(MESSAGE_HEADER_BYTES..len)?;
        let message = Message { kind: host_u16(self.0, 4)?, flags: host_u16(self.0, 6)?, body };
        self.0 = self.0.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    }
}

struct Attributes<'a>(&'a [u8]);

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<(u16, &'a [u8])> {
        let len = usize::from(host_u16(self.0, 0)?);
        let kind = host_u16(self.0, 2)?;
        let value = self.0.get(4..len)?;
        self.0 = self.0.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    }
}

/// Asks for a list and shows each message of the answer; whether the list is of one moment.
fn dump(socket: &mut Socket, kind: u16, mut show: impl FnMut(&Message<'_>)) -> io::Result<bool> {
    let mut request = [0_u8; MESSAGE_HEADER_BYTES + LINK_MESSAGE_BYTES];
    let len = u32::try_from(request.len()).expect("a constant");
    put_host(&mut request, 0, len);
    put_host(&mut request, 4, u32::from(kind) | u32::from(NLM_F_REQUEST_DUMP) << 16);
    socket.write_all(&request)?;
    let mut steady = true;
    let mut buffer = vec![0; DUMP_BYTES];
    loop {
        let got = match socket.read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            other => other?,
        };
        for message in Messages(&buffer[..got]) {
            steady &= message.flags & NLM_F_DUMP_INTR == 0;
            match message.kind {
                NLMSG_DONE => return Ok(steady),
                NLMSG_ERROR => {
                    let errno = host_u32(message.body, 0).unwrap_or(0).wrapping_neg();
                    return Err(io::Error::from_raw_os_error(i32::try_from(errno).unwrap_or(libc::EIO)));
                }
                _ => show(&message),
            }
        }
    }
}

#[expect(clippy::host_endian_bytes, reason = "the kernel's routing socket speaks the machine's byte order")]
fn host_u16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

#[expect(clippy::host_endian_bytes, reason = "the kernel's routing socket speaks the machine's byte order")]
fn host_u32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[expect(clippy::host_endian_bytes, reason = "the kernel's routing socket speaks the machine's byte order")]
fn put_host(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_ne_bytes());
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

    #[test]
    fn routing_messages_cut_anywhere_end_there() {
        let mut bytes = vec![0; 44];
        put_host(&mut bytes, 0, 44);
        put_host(&mut bytes, 4, u32::from(RTM_NEWLINK));
        put_host(&mut bytes, 16, u32::from(ARPHRD_ETHER) << 16);
        put_host(&mut bytes, 20, 7);
        put_host(&mut bytes, 32, 9 | u32::from(IFLA_IFNAME) << 16);
        bytes[36..41].copy_from_slice(b"eth9\0");
        let read = |bytes: &[u8]| {
            let mut snapshot = Snapshot::default();
            for message in Messages(bytes) {
                snapshot.add_link(&message);
                snapshot.add_address(&message);
            }
            snapshot.links
        };
        let links = read(&bytes);
        assert_eq!((links[0].index, links[0].name.as_str()), (7, "eth9"));
        for len in 0..bytes.len() {
            assert_eq!(read(&bytes[..len]), []);
            let mut short = bytes.clone();
            put_host(&mut short, 0, u32::try_from(len).expect("small"));
            assert!(read(&short).len() <= 1);
        }
        put_host(&mut bytes, 32, 0xffff);
        assert_eq!(read(&bytes)[0].name, "", "an attribute longer than its message");
    }

    #[test]
    fn kernel_tells_of_the_loopback() {
        let snapshot = Snapshot::read().expect("any process may ask");
        let lo = snapshot.links.iter().find(|link| link.loopback).expect("every namespace has one");
        assert_eq!((lo.mac, lo.mtu > 0), (None, true));
    }
}
