//! The kernel's routing socket, as a stream of datagrams; what is in them is read in `link`.

use std::io;

use socket2::{Domain, Protocol, Socket, Type};

use super::socket::{bind_netlink, set_receive_buffer};

/// A routing socket that hears the given groups (a bit mask of `RTMGRP_*`; 0 for none).
pub(in crate::net) fn open(groups: u32) -> io::Result<Socket> {
    let socket =
        Socket::new(Domain::from(libc::AF_NETLINK), Type::RAW, Some(Protocol::from(libc::NETLINK_ROUTE)))?;
    // A machine with thousands of links sends them in a burst.
    let _ = set_receive_buffer(&socket, 1 << 20);
    bind_netlink(&socket, groups)?;
    Ok(socket)
}
