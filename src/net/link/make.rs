//! Links of our own: the demo and the instruments join network namespaces by a pair of virtual Ethernet devices.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;

use crate::net::sys::netlink;

use super::Snapshot;
use super::kernel::{
    ADDRESS_MESSAGE_BYTES, IFA_ADDRESS, IFA_LOCAL, IFF_UP, IFLA_ADDRESS, IFLA_IFNAME, LINK_MESSAGE_BYTES,
    MESSAGE_HEADER_BYTES, Messages, NLMSG_ERROR, RTM_NEWADDR, RTM_NEWLINK, host_u32, put_host,
};

const NLM_F_REQUEST_ACK: u16 = 0x1 | 0x4;
const NLM_F_CREATE_EXCL: u16 = 0x400 | 0x200;
const IFLA_LINKINFO: u16 = 18;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;
const FAMILY_IPV4: u32 = 2;

/// One end of a virtual wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VethEnd<'a> {
    /// The device's name, at most 15 octets.
    pub name: &'a str,
    /// Its Ethernet address.
    pub mac: [u8; 6],
}

/// Makes a pair of virtual Ethernet devices, `near` in the calling thread's network namespace, `far` in `namespace`. Both are
/// down and without address; they vanish with either namespace.
///
/// # Errors
/// Without CAP_NET_ADMIN over both namespaces, or when a name is taken.
pub fn veth_pair(near: VethEnd<'_>, far: VethEnd<'_>, namespace: &File) -> io::Result<()> {
    let mut request = Request::new(RTM_NEWLINK, NLM_F_CREATE_EXCL);
    request.zeros(LINK_MESSAGE_BYTES);
    request.end(near);
    request.nested(IFLA_LINKINFO, |info| {
        info.attribute(IFLA_INFO_KIND, b"veth");
        info.nested(IFLA_INFO_DATA, |data| {
            data.nested(VETH_INFO_PEER, |peer| {
                peer.zeros(LINK_MESSAGE_BYTES);
                peer.end(far);
                peer.attribute(IFLA_NET_NS_FD, &host_octets(namespace.as_raw_fd().unsigned_abs()));
            });
        });
    });
    request.send()
}

/// Gives an interface of the calling thread's network namespace an IPv4 address.
///
/// # Errors
/// Without CAP_NET_ADMIN, without such an interface, or when it has that address.
pub fn add_address(name: &str, address: Ipv4Addr, prefix_len: u8) -> io::Result<()> {
    let mut request = Request::new(RTM_NEWADDR, NLM_F_CREATE_EXCL);
    let start = request.zeros(ADDRESS_MESSAGE_BYTES);
    request.0[start] = u8::try_from(FAMILY_IPV4).expect("a constant");
    request.0[start + 1] = prefix_len;
    put_host(&mut request.0, start + 4, index(name)?);
    request.attribute(IFA_LOCAL, &address.octets());
    request.attribute(IFA_ADDRESS, &address.octets());
    request.send()
}

/// Sets an interface of the calling thread's network namespace up. When both ends of a wire are, they become running, though
/// not at once.
///
/// # Errors
/// Without CAP_NET_ADMIN, or without such an interface.
pub fn set_up(name: &str) -> io::Result<()> {
    let mut request = Request::new(RTM_NEWLINK, 0);
    let start = request.zeros(LINK_MESSAGE_BYTES);
    put_host(&mut request.0, start + 4, index(name)?);
    put_host(&mut request.0, start + 8, IFF_UP);
    put_host(&mut request.0, start + 12, IFF_UP);
    request.send()
}

fn index(name: &str) -> io::Result<u32> {
    let snapshot = Snapshot::read()?;
    let found = snapshot.link(name).map(|link| link.index);
    found.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("no interface named {name}")))
}

/// A request to the routing socket while it is written.
struct Request(Vec<u8>);

impl Request {
    fn new(kind: u16, flags: u16) -> Self {
        let mut bytes = vec![0; MESSAGE_HEADER_BYTES];
        put_host(&mut bytes, 4, u32::from(kind) | u32::from(flags | NLM_F_REQUEST_ACK) << 16);
        Self(bytes)
    }

    /// Appends `count` zero octets and says where they start.
    fn zeros(&mut self, count: usize) -> usize {
        let start = self.0.len();
        self.0.resize(start + count, 0);
        start
    }

    fn attribute(&mut self, kind: u16, value: &[u8]) {
        self.nested(kind, |request| request.0.extend_from_slice(value));
    }

    fn nested(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        let start = self.zeros(4);
        fill(self);
        let len = u32::try_from(self.0.len() - start).expect("a request is small");
        put_host(&mut self.0, start, len | u32::from(kind) << 16);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    fn end(&mut self, end: VethEnd<'_>) {
        let mut name = end.name.as_bytes().to_vec();
        name.push(0);
        self.attribute(IFLA_IFNAME, &name);
        self.attribute(IFLA_ADDRESS, &end.mac);
    }

    /// Sends the request and waits for what the kernel says to it.
    fn send(mut self) -> io::Result<()> {
        let len = u32::try_from(self.0.len()).expect("a request is small");
        put_host(&mut self.0, 0, len);
        let mut socket = netlink::open(0)?;
        socket.write_all(&self.0)?;
        let mut buffer = vec![0; 1 << 13];
        loop {
            let got = match socket.read(&mut buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                other => other?,
            };
            let said = Messages(&buffer[..got]).find(|message| message.kind == NLMSG_ERROR);
            if let Some(said) = said {
                return match host_u32(said.body, 0).unwrap_or(0).wrapping_neg() {
                    0 => Ok(()),
                    errno => Err(io::Error::from_raw_os_error(i32::try_from(errno).unwrap_or(libc::EIO))),
                };
            }
        }
    }
}

fn host_octets(value: u32) -> [u8; 4] {
    let mut octets = [0; 4];
    put_host(&mut octets, 0, value);
    octets
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_nested_by_length_and_padded_to_four() {
        let mut request = Request::new(RTM_NEWLINK, 0);
        request.nested(IFLA_LINKINFO, |info| info.attribute(IFLA_INFO_KIND, b"veth5"));
        assert_eq!(request.0.len(), 16 + 4 + 4 + 8);
        assert_eq!(host_u32(&request.0, 16), Some(16 | u32::from(IFLA_LINKINFO) << 16));
        assert_eq!(host_u32(&request.0, 20), Some(9 | u32::from(IFLA_INFO_KIND) << 16));
        assert_eq!(&request.0[24..], b"veth5\0\0\0");
    }

    #[test]
    fn an_interface_that_is_not_there_is_named() {
        let error = set_up("no-such-link").expect_err("there is none");
        assert_eq!(error.to_string(), "no interface named no-such-link");
    }
}
