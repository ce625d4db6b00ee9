//! Every foreign call and every raw pointer of the room, each behind a safe face in the file that makes it.
//!
//! Why not safe code: mapped rings, `sendmmsg`/`recvmmsg`, packet socket options, classic BPF and namespaces have no
//! safe interface in the standard library or in `socket2`.
#![expect(unsafe_code, reason = "system calls and mapped memory; each block says why it is sound")]

mod limit;
mod mmsg;
mod namespace;
pub(super) mod netlink;
mod poll;
mod ring;
pub(super) mod socket;
mod uptime;

pub use limit::raise_descriptor_limit;
pub(super) use mmsg::{Outgoing, Receiver, Sender};
pub use namespace::{
    end_with_parent, enter_network_namespace, enter_user_namespace, network_namespace, new_network_namespace,
};
pub(super) use poll::{Epoll, EventFd, PollSet};
pub(super) use ring::RxRing;
pub use uptime::monotonic_us;

use std::io;

/// The result of a system call that answers -1 on error.
fn checked(answer: libc::c_int) -> io::Result<libc::c_int> {
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(answer) }
}
