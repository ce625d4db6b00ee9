//! Options and addresses of sockets that `socket2` has no safe call for.

use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::ptr;

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::checked;
use crate::net::steer::Instruction;

/// IPv4 over Ethernet, as packet sockets name it.
const PROTOCOL_IPV4: u16 = 0x0800;

/// A packet socket that receives nothing: its protocol is none yet.
pub(in crate::net) fn packet_socket() -> io::Result<Socket> {
    let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(0)))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Binds a packet socket to an interface, to receive IPv4 from it, or nothing and only send.
pub(in crate::net) fn bind_packet(socket: &Socket, interface_index: u32, receives: bool) -> io::Result<()> {
    let index = i32::try_from(interface_index).map_err(|_| io::Error::from_raw_os_error(libc::ENODEV))?;
    // SAFETY: all-zero bytes are a valid `sockaddr_ll`, which has integers only.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = u16::try_from(libc::AF_PACKET).expect("an address family fits 16 bits");
    address.sll_protocol = if receives { PROTOCOL_IPV4.to_be() } else { 0 };
    address.sll_ifindex = index;
    bind_to(socket, &address)
}

/// Binds a netlink socket to a set of groups (a bit mask).
pub(super) fn bind_netlink(socket: &Socket, groups: u32) -> io::Result<()> {
    // SAFETY: all-zero bytes are a valid `sockaddr_nl`, which has integers only.
    let mut address: libc::sockaddr_nl = unsafe { std::mem::zeroed() };
    address.nl_family = u16::try_from(libc::AF_NETLINK).expect("an address family fits 16 bits");
    address.nl_groups = groups;
    bind_to(socket, &address)
}

/// Binds to an address structure that begins with its family, as all do.
fn bind_to<A: Copy>(socket: &Socket, address: &A) -> io::Result<()> {
    let len = libc::socklen_t::try_from(size_of::<A>()).expect("an address is small");
    // SAFETY: `try_init` hands out zeroed storage larger than every address the kernel has (asserted); we fill in one that starts
    // with its family and give its true length.
    let ((), address) = unsafe {
        SockAddr::try_init(|storage, length| {
            assert!(size_of::<A>() <= size_of::<libc::sockaddr_storage>(), "the storage holds any address");
            ptr::copy_nonoverlapping(ptr::from_ref(address), storage.cast::<A>(), 1);
            *length = len;
            Ok(())
        })?
    };
    socket.bind(&address)
}

/// Sets an option whose value is an integer.
pub(in crate::net) fn set_int(socket: &Socket, level: i32, name: i32, value: i32) -> io::Result<()> {
    set(socket.as_fd(), level, name, &value)
}

fn set<T: Copy>(fd: BorrowedFd<'_>, level: i32, name: i32, value: &T) -> io::Result<()> {
    let len = libc::socklen_t::try_from(size_of::<T>()).expect("an option is small");
    // SAFETY: pointer and length describe `value`, which the kernel only reads.
    checked(unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, ptr::from_ref(value).cast(), len) })?;
    Ok(())
}

/// Attaches a socket filter in place of the one that was there.
pub(in crate::net) fn attach_filter(socket: &Socket, program: &[Instruction]) -> io::Result<()> {
    with_program(program, |program| set(socket.as_fd(), libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, program))
}

/// Gives a fan-out group its steering program.
pub(in crate::net) fn set_fanout_program(socket: &Socket, program: &[Instruction]) -> io::Result<()> {
    with_program(program, |program| set(socket.as_fd(), libc::SOL_PACKET, libc::PACKET_FANOUT_DATA, program))
}

/// Gives a group of UDP sockets on one port its steering program.
pub(in crate::net) fn set_reuse_port_program(socket: &Socket, program: &[Instruction]) -> io::Result<()> {
    with_program(program, |program| {
        set(socket.as_fd(), libc::SOL_SOCKET, libc::SO_ATTACH_REUSEPORT_CBPF, program)
    })
}

fn with_program<T>(program: &[Instruction], attach: impl FnOnce(&libc::sock_fprog) -> T) -> T {
    let mut own: Vec<libc::sock_filter> = program
        .iter()
        .map(|step| libc::sock_filter { code: step.code, jt: step.jt, jf: step.jf, k: step.k })
        .collect();
    let len = u16::try_from(own.len()).expect("a program is short");
    // The kernel copies the program while the call lasts; `own` lives until then.
    attach(&libc::sock_fprog { len, filter: own.as_mut_ptr() })
}

/// Joins a new fan-out group, whose number is the answer, or the group with a given number. The group steers by a program that
/// is still to be set and sends everything to its first socket until then.
pub(in crate::net) fn join_fanout(socket: &Socket, group: Option<u16>) -> io::Result<u16> {
    let kind = libc::PACKET_FANOUT_CBPF;
    let argument =
        group.map_or((kind | libc::PACKET_FANOUT_FLAG_UNIQUEID) << 16, |id| (kind << 16) | u32::from(id));
    set(socket.as_fd(), libc::SOL_PACKET, libc::PACKET_FANOUT, &argument)?;
    let mut answer = 0_u32;
    read_option(socket.as_fd(), libc::SOL_PACKET, libc::PACKET_FANOUT, &mut answer)?;
    Ok(u16::try_from(answer & 0xffff).expect("16 bits"))
}

/// Frames that the ring had no room for since the last call.
pub(in crate::net) fn packet_drops(socket: &Socket) -> io::Result<u32> {
    let mut answer = libc::tpacket_stats { tp_packets: 0, tp_drops: 0 };
    read_option(socket.as_fd(), libc::SOL_PACKET, libc::PACKET_STATISTICS, &mut answer)?;
    Ok(answer.tp_drops)
}

/// How full a socket's queue is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::net) struct Queued {
    /// Bytes in it, as the kernel counts them.
    pub(in crate::net) bytes: u32,
    /// Bytes that it may hold.
    pub(in crate::net) bytes_max: u32,
    /// Datagrams that it had no room for since the socket was opened; wraps.
    pub(in crate::net) dropped: u32,
}

/// Asks for the state of a socket's receiving queue (`SO_MEMINFO`).
pub(in crate::net) fn queued(socket: &Socket) -> io::Result<Queued> {
    /// Positions in the kernel's list (`linux/sock_diag.h`), and its length.
    const RMEM_ALLOC: usize = 0;
    const RCVBUF: usize = 1;
    const DROPS: usize = 8;
    let mut answer = [0_u32; DROPS + 1];
    read_option(socket.as_fd(), libc::SOL_SOCKET, libc::SO_MEMINFO, &mut answer)?;
    Ok(Queued { bytes: answer[RMEM_ALLOC], bytes_max: answer[RCVBUF], dropped: answer[DROPS] })
}

/// Fills `answer`, integers alone, with an option's value.
pub(super) fn read_option<T: Copy>(
    fd: BorrowedFd<'_>,
    level: i32,
    name: i32,
    answer: &mut T,
) -> io::Result<()> {
    let mut len = libc::socklen_t::try_from(size_of::<T>()).expect("an option is small");
    // SAFETY: pointer and length describe `answer`, which the kernel fills at most to that length; the callers in this file use
    // structures of integers, for which every bit pattern is a value.
    checked(unsafe {
        libc::getsockopt(fd.as_raw_fd(), level, name, ptr::from_mut(answer).cast(), &raw mut len)
    })?;
    Ok(())
}

/// Asks for a queue of `bytes` towards the kernel, beyond the system's limit where we may.
pub(in crate::net) fn set_send_buffer(socket: &Socket, bytes: i32) -> io::Result<()> {
    set_int(socket, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, bytes)
        .or_else(|_| set_int(socket, libc::SOL_SOCKET, libc::SO_SNDBUF, bytes))
}

/// Asks for a queue of `bytes` from the kernel, beyond the system's limit where we may.
pub(in crate::net) fn set_receive_buffer(socket: &Socket, bytes: i32) -> io::Result<()> {
    set_int(socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, bytes)
        .or_else(|_| set_int(socket, libc::SOL_SOCKET, libc::SO_RCVBUF, bytes))
}
