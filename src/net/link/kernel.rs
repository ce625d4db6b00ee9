//! What the kernel says about its interfaces, read from its routing socket (rtnetlink(7)).
//!
//! Messages are in host byte order: a header of 16 bytes, a fixed part, and attributes of 4 bytes and a value, all aligned to 4.
//! Whatever comes is parsed without panic: a message cut short ends there.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use socket2::Socket;

use crate::net::sys::{PollSet, netlink};

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

pub(super) const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
pub(super) const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
pub(super) const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST_DUMP: u16 = 0x301;
const NLM_F_DUMP_INTR: u16 = 0x10;
/// RTMGRP_LINK, RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR.
const GROUPS: u32 = 0x1 | 0x10 | 0x100;
pub(super) const MESSAGE_HEADER_BYTES: usize = 16;
pub(super) const LINK_MESSAGE_BYTES: usize = 16;
pub(super) const ADDRESS_MESSAGE_BYTES: usize = 8;
pub(super) const IFLA_ADDRESS: u16 = 1;
pub(super) const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
pub(super) const IFA_ADDRESS: u16 = 1;
pub(super) const IFA_LOCAL: u16 = 2;
pub(super) const IFF_UP: u32 = 0x1;
const IFF_LOOPBACK: u32 = 0x8;
const IFF_RUNNING: u32 = 0x40;
const ARPHRD_ETHER: u16 = 1;
/// More than the kernel puts into one datagram of a dump.
const DUMP_BYTES: usize = 1 << 16;
/// How often a dump that was disturbed by changes is repeated.
const DUMP_ATTEMPTS: usize = 16;

pub(super) struct Message<'a> {
    pub(super) kind: u16,
    flags: u16,
    pub(super) body: &'a [u8],
}

pub(super) struct Messages<'a>(pub(super) &'a [u8]);

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
pub(super) fn host_u32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[expect(clippy::host_endian_bytes, reason = "the kernel's routing socket speaks the machine's byte order")]
pub(super) fn put_host(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_ne_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

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
