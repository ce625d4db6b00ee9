//! Ordinary UDP sockets (`dhcp-socket-type: udp`), and the socket that keeps the port busy beside packet sockets.
//!
//! Sockets are bound to an address, so only what is sent to that very address is heard: relayed queries and unicast
//! renewals, no broadcast. Each shard has some for every address, which share the port and are steered by `chaddr`: DISCOVERs have their
//! own, for the reason that packet rings are two (`packet`), and relays are spread over [`LANES`] of each kind. A socket's queue that is
//! full drops whatever comes next, so a relay that floods fills its own lane, and those of the other lanes are heard.
//!
//! The port shows whole frames, as the others do: it writes the headers that the socket hides in front of each datagram
//! (source and destination hardware address unknown, all zero) and reads destination and source of a reply out of the
//! headers that the shard has built. Addresses do not change under an open port: the control thread opens it again.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsFd, BorrowedFd};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::ids::InterfaceId;
use crate::wire::frame;

use super::link::Selected;
use super::steer::LANES;
use super::sys::socket::{
    attach_filter, queued, set_int, set_receive_buffer, set_reuse_port_program, set_send_buffer,
};
use super::sys::{Epoll, Outgoing, Receiver, Sender};
use super::{
    DISCOVER_PART, FDS_MAX, FrameSlab, OpenError, Port, PortStats, RxBatch, RxFlags, RxFrame, SendReport,
    TxBatch, WINDOW_MAX, steer,
};

const ETHER_BYTES: usize = 14;
const IP_BYTES: usize = 20;
const UDP_BYTES: usize = 8;
const HEADERS_BYTES: usize = ETHER_BYTES + IP_BYTES + UDP_BYTES;
/// What the kernel may queue for a socket in either direction, in bytes as it counts them.
const QUEUE_BYTES: i32 = 4 << 20;

/// Which way replies to relays go (`outbound-interface`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Outbound {
    /// Out of the interface that the query came in by, from the address it was sent to.
    #[default]
    SameAsInbound,
    /// To relays, out of the interface that the routing table says; other replies as above. The source stays the address that the
    /// query was sent to: its socket is bound to it.
    UseRouting,
}

/// How UDP ports are opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UdpOptions {
    /// The UDP port that is heard.
    pub udp_port: u16,
    /// Which way replies go.
    pub outbound: Outbound,
}

impl Default for UdpOptions {
    fn default() -> Self {
        Self { udp_port: 67, outbound: Outbound::SameAsInbound }
    }
}

/// One shard's UDP sockets on one interface.
#[derive(Debug)]
pub struct UdpPort {
    interface: InterfaceId,
    interface_index: u32,
    outbound: Outbound,
    udp_port: u16,
    addresses: Vec<Ipv4Addr>,
    /// Those of the first address first; of each address those of the first lane first, DISCOVERs second.
    queues: Vec<Queue>,
    /// Queues with something in them, and whether there may be more.
    waiting: Vec<(usize, bool)>,
    /// Who is read first: turns with each batch.
    first: usize,
    readable: Epoll,
    receiver: Receiver,
    lent: usize,
    sender: Sender,
    stats: PortStats,
}

/// One socket of a shard.
#[derive(Debug)]
struct Queue {
    address: Ipv4Addr,
    has_discovers: bool,
    socket: Socket,
}

/// Sockets of a shard for one address.
const QUEUES_PER_ADDRESS: usize = 2 * LANES as usize;

/// Opens one port per shard on an interface, steered by `keys` (those of `classify::steer`).
///
/// # Errors
/// Without the privilege for a low port, when the address is gone, or when somebody else has the port.
pub fn open(
    link: &Selected,
    interface: InterfaceId,
    shards: u8,
    keys: (u32, u32),
    options: &UdpOptions,
) -> Result<Vec<UdpPort>, OpenError> {
    let failed = |step| move |source| OpenError { interface: link.name.clone(), step, source };
    let mut ports = Vec::with_capacity(usize::from(shards));
    let queue_count = QUEUES_PER_ADDRESS * link.addresses.len();
    for _ in 0..shards {
        ports.push(UdpPort {
            interface,
            interface_index: link.index,
            outbound: options.outbound,
            udp_port: options.udp_port,
            addresses: link.addresses.clone(),
            queues: Vec::with_capacity(queue_count),
            waiting: Vec::with_capacity(queue_count),
            first: 0,
            readable: Epoll::new(queue_count).map_err(failed("open a poll set"))?,
            receiver: Receiver::new(HEADERS_BYTES, WINDOW_MAX),
            lent: 0,
            sender: Sender::new(),
            stats: PortStats::default(),
        });
    }
    for address in &link.addresses {
        let group = bind_group(*address, shards, keys, options.udp_port)
            .map_err(|(step, source)| failed(step)(source))?;
        for (position, socket) in group.into_iter().enumerate() {
            // As the program counts them.
            let (kind, shard) = (position / usize::from(shards), position % usize::from(shards));
            let (port, has_discovers) = (&mut ports[shard], kind % 2 == 1);
            let number = u64::try_from(port.queues.len()).expect("few");
            port.readable.add(socket.as_fd(), number).map_err(failed("fill a poll set"))?;
            port.queues.push(Queue { address: *address, has_discovers, socket });
        }
    }
    Ok(ports)
}

/// Binds all shards' sockets to one address, in the order that the program wants.
fn bind_group(
    address: Ipv4Addr,
    shards: u8,
    keys: (u32, u32),
    udp_port: u16,
) -> Result<Vec<Socket>, (&'static str, io::Error)> {
    let at = |step| move |error| (step, error);
    let to = SockAddr::from(SocketAddrV4::new(address, udp_port));
    let count = QUEUES_PER_ADDRESS * usize::from(shards);
    let mut sockets = Vec::with_capacity(count);
    for index in 0..count {
        let socket = udp_socket().map_err(at("open a UDP socket"))?;
        // The first does not share, so that a port that another server has is an error and not a port for two.
        if index > 0 {
            socket.set_reuse_port(true).map_err(at("share a UDP port"))?;
        }
        socket.bind(&to).map_err(at("bind a UDP socket"))?;
        if index == 0 {
            socket.set_reuse_port(true).map_err(at("share a UDP port"))?;
        }
        sockets.push(socket);
    }
    // A group is there with its second member. What came before goes to any shard, which hands it over.
    set_reuse_port_program(&sockets[0], &steer::reuse_port(keys, shards))
        .map_err(at("set the steering program"))?;
    Ok(sockets)
}

fn udp_socket() -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    set_int(&socket, libc::IPPROTO_IP, libc::IP_PKTINFO, 1)?;
    set_int(&socket, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, 1)?;
    socket.set_broadcast(true)?;
    set_receive_buffer(&socket, QUEUE_BYTES)?;
    set_send_buffer(&socket, QUEUE_BYTES)?;
    Ok(socket)
}

/// Writes the headers of a datagram of `len` bytes. The UDP checksum is 0, "none": the kernel has looked at it.
fn write_headers(bytes: &mut [u8], from: SocketAddrV4, to: SocketAddrV4, len: usize) {
    bytes[..HEADERS_BYTES].fill(0);
    bytes[12] = 0x08;
    let udp_len = u16::try_from(UDP_BYTES + len).expect("a datagram fits a frame");
    let ip_len = u16::try_from(IP_BYTES + UDP_BYTES + len).expect("a datagram fits a frame");
    bytes[14] = 0x45;
    bytes[16..18].copy_from_slice(&ip_len.to_be_bytes());
    bytes[22] = 64;
    bytes[23] = 17;
    bytes[26..30].copy_from_slice(&from.ip().octets());
    bytes[30..34].copy_from_slice(&to.ip().octets());
    let checksum = frame::checksum(&bytes[14..34]);
    bytes[24..26].copy_from_slice(&checksum);
    bytes[34..36].copy_from_slice(&from.port().to_be_bytes());
    bytes[36..38].copy_from_slice(&to.port().to_be_bytes());
    bytes[38..40].copy_from_slice(&udp_len.to_be_bytes());
}

/// Source address, destination and payload of a frame that a shard has built; nothing when it is not IPv4 and UDP.
fn read_headers(frame: &[u8]) -> Option<(Ipv4Addr, SocketAddrV4, &[u8])> {
    let ip = frame.get(ETHER_BYTES..)?;
    let header_len = 4 * usize::from(ip.first()? & 0xf);
    let addresses: &[u8; 8] = ip.get(12..20)?.try_into().ok()?;
    let [a, b, c, d, e, f, g, h] = *addresses;
    let udp = ip.get(header_len..)?;
    let port = u16::from_be_bytes(udp.get(2..4)?.try_into().ok()?);
    let len = usize::from(u16::from_be_bytes(udp.get(4..6)?.try_into().ok()?));
    let payload = udp.get(UDP_BYTES..len)?;
    Some((Ipv4Addr::new(a, b, c, d), SocketAddrV4::new(Ipv4Addr::new(e, f, g, h), port), payload))
}

/// Whether a DHCPv4 message carries a relay's address (`giaddr`, RFC 2131 figure 1).
fn is_relayed(payload: &[u8]) -> bool {
    payload.get(24..28).is_some_and(|giaddr| giaddr != [0; 4])
}

impl UdpPort {
    /// Notes which queues have something in them.
    fn look(&mut self) -> io::Result<()> {
        self.waiting.clear();
        let readable = self.readable.readable()?;
        self.waiting.extend(readable.filter_map(|number| Some((usize::try_from(number).ok()?, true))));
        if !self.waiting.is_empty() {
            self.first = self.first.wrapping_add(1);
            let start = self.first % self.waiting.len();
            self.waiting.rotate_left(start);
        }
        Ok(())
    }

    /// Fills the batch but for `kept` places from the queues of one kind: an equal share of each first, and what others leave free
    /// second. How many came.
    fn recv_kind(
        &mut self,
        batch: &mut RxBatch,
        kept: usize,
        discovers: bool,
        failure: &mut Option<io::Error>,
    ) -> usize {
        let start = batch.len();
        for is_shared in [true, false] {
            let is_wanted = |port: &Self, (queue, more): (usize, bool)| {
                more && port.queues[queue].has_discovers == discovers
            };
            let mut left = self.waiting.iter().filter(|waiting| is_wanted(self, **waiting)).count();
            for place in 0..self.waiting.len() {
                if !is_wanted(self, self.waiting[place]) {
                    continue;
                }
                let room = batch.room().saturating_sub(kept).min(WINDOW_MAX - self.lent);
                if room == 0 {
                    break;
                }
                let share = if is_shared { room.div_ceil(left) } else { room };
                left -= 1;
                let got = self.recv_from(self.waiting[place].0, batch, share, failure);
                self.waiting[place].1 = got == share;
            }
        }
        batch.len() - start
    }

    /// Moves what waits in a queue, `room` datagrams at most, into the batch; how many it gave.
    fn recv_from(
        &mut self,
        queue: usize,
        batch: &mut RxBatch,
        room: usize,
        failure: &mut Option<io::Error>,
    ) -> usize {
        let Queue { address, socket, .. } = &self.queues[queue];
        let got = match self.receiver.recv(socket.as_fd(), self.lent, room) {
            Ok(got) => got,
            Err(error) => {
                self.stats.errors += 1;
                *failure = Some(error);
                return 0;
            }
        };
        for index in self.lent..self.lent + got {
            let incoming = self.receiver.incoming(index);
            if incoming.truncated {
                self.stats.rx_truncated += 1;
                continue;
            }
            let to = if incoming.to.is_unspecified() { *address } else { incoming.to };
            let to = SocketAddrV4::new(to, self.udp_port);
            write_headers(self.receiver.buffer_mut(index), incoming.from, to, incoming.len);
            batch.push(RxFrame {
                wall_ns: incoming.wall_ns,
                offset: u32::try_from(index).expect("a window is small"),
                len: u16::try_from(HEADERS_BYTES + incoming.len).expect("a datagram fits a frame"),
                interface: self.interface,
                flags: RxFlags::SYNTHETIC,
                ..RxFrame::default()
            });
        }
        self.lent += got;
        got
    }
}

impl Port for UdpPort {
    fn interface(&self) -> InterfaceId {
        self.interface
    }

    fn recv_batch(&mut self, batch: &mut RxBatch) -> io::Result<usize> {
        let start = batch.len();
        self.look()?;
        if self.waiting.is_empty() {
            return Ok(0);
        }
        let whole = batch.room();
        let kept = whole / DISCOVER_PART;
        let mut failure = None;
        // DISCOVERs last, in one run, as the choice among frames expects it; what they leave is for the others.
        let others = self.recv_kind(batch, kept, false, &mut failure);
        self.recv_kind(batch, 0, true, &mut failure);
        if others + kept >= whole {
            self.recv_kind(batch, 0, false, &mut failure);
        }
        let received = batch.len() - start;
        self.stats.rx_frames += u64::try_from(received).expect("a batch is small");
        match failure {
            Some(error) if received == 0 => Err(error),
            _ => Ok(received),
        }
    }

    fn bytes(&self, frame: &RxFrame) -> &[u8] {
        let index = usize::try_from(frame.offset).expect("32 bits fit");
        assert!(index < self.lent, "a frame is read before it is recycled");
        &self.receiver.buffer(index)[..usize::from(frame.len)]
    }

    fn recycle(&mut self) {
        self.lent = 0;
    }

    /// A socket does not tell without a system call.
    fn is_ready(&self) -> bool {
        false
    }

    /// A system call for each socket, but this is asked after full batches only.
    fn is_crowded(&self) -> bool {
        let mut states = self.queues.iter().filter_map(|queue| queued(&queue.socket).ok());
        states.any(|state| state.bytes >= state.bytes_max / 2)
    }

    fn send_batch(&mut self, batch: &TxBatch, slab: &FrameSlab) -> SendReport {
        let mut report = SendReport::default();
        let (interface, index, outbound) = (self.interface, self.interface_index, self.outbound);
        let addresses = &self.addresses;
        let first_queues = self.queues.iter().step_by(QUEUES_PER_ADDRESS);
        for (position, Queue { address, socket, .. }) in first_queues.enumerate() {
            let frames =
                batch.frames().iter().filter(|sent| sent.interface == interface).filter_map(|sent| {
                    let frame = &slab.bytes(&sent.frame)[..usize::from(sent.len)];
                    let (source, to, payload) = read_headers(frame)?;
                    // A reply leaves from the socket that has its source address; any other source from the first.
                    let ours = source == *address;
                    let nobodys = position == 0 && !addresses.contains(&source);
                    let from = if outbound == Outbound::UseRouting && is_relayed(payload) {
                        (Ipv4Addr::UNSPECIFIED, 0)
                    } else {
                        (source, index)
                    };
                    (ours || nobodys).then_some(Outgoing { bytes: payload, to: Some(to), from })
                });
            report.add(&self.sender.send(socket.as_fd(), frames));
        }
        let asked = batch.frames().iter().filter(|sent| sent.interface == interface).count();
        let tried = report.sent + report.full + report.failed;
        // Frames that are not IPv4 and UDP cannot leave by a UDP socket.
        report.failed += u32::try_from(asked).expect("a batch is small") - tried;
        self.stats.count_sent(&report);
        report
    }

    /// The sockets are bound: the control thread opens the port again instead.
    fn set_addresses(&mut self, _addresses: &[Ipv4Addr]) {}

    fn stats(&mut self) -> PortStats {
        (self.stats.rx_kernel_dropped, self.stats.rx_discover_dropped) = (0, 0);
        for queue in &self.queues {
            let dropped = queued(&queue.socket).map_or(0, |state| u64::from(state.dropped));
            if queue.has_discovers {
                self.stats.rx_discover_dropped += dropped;
            } else {
                self.stats.rx_kernel_dropped += dropped;
            }
        }
        self.stats
    }

    fn fds(&self) -> [Option<BorrowedFd<'_>>; FDS_MAX] {
        let mut fds = [None; FDS_MAX];
        fds[0] = Some(self.readable.fd());
        fds
    }
}

/// A UDP socket that has the port and hears nothing. Beside packet sockets it keeps the kernel from answering relays with
/// "port unreachable"; its filter keeps its queue empty. Closed when dropped.
#[derive(Debug)]
pub struct Fallback(#[expect(dead_code, reason = "held for its effect on the kernel")] Socket);

impl Fallback {
    /// Binds `address` and `udp_port`.
    ///
    /// # Errors
    /// Without the privilege for a low port, when the address is gone, or when somebody else has the port: most likely another
    /// DHCP server.
    pub fn open(interface: &str, address: Ipv4Addr, udp_port: u16) -> Result<Self, OpenError> {
        let failed = |step| move |source| OpenError { interface: interface.to_owned(), step, source };
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))
            .map_err(failed("open the fallback socket"))?;
        attach_filter(&socket, &steer::deaf()).map_err(failed("attach a socket filter"))?;
        socket
            .bind(&SockAddr::from(SocketAddrV4::new(address, udp_port)))
            .map_err(failed("bind the fallback socket"))?;
        Ok(Self(socket))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_headers_read_back() {
        let from = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 9), 67);
        let to = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 1), 1067);
        let mut bytes = vec![0xff; 400];
        write_headers(&mut bytes, from, to, 240);
        bytes[HEADERS_BYTES..].fill(7);
        let (source, destination, payload) = read_headers(&bytes).expect("a frame");
        assert_eq!((source, destination, payload.len()), (*from.ip(), to, 240));
        let sum = frame::checksum(&bytes[ETHER_BYTES..ETHER_BYTES + IP_BYTES]);
        assert_eq!(sum, [0, 0], "the sum of a good header is 0");
        assert!(payload.iter().all(|byte| *byte == 7));
        for len in 0..HEADERS_BYTES + 240 {
            assert_eq!(read_headers(&bytes[..len]), None, "cut at {len}");
        }
    }

    #[test]
    fn a_datagram_becomes_a_frame_that_shards_can_read() {
        let relay = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 2), 67);
        let own = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 1), 67);
        let mut bytes = vec![7; HEADERS_BYTES + 240];
        write_headers(&mut bytes, relay, own, 240);
        let arrival = frame::Arrival { tag_stripped: false, checksum_not_ready: false };
        let datagram = frame::parse(&bytes, arrival).expect("whole, with the checksums that are looked at");
        assert_eq!((datagram.src, datagram.dst, datagram.payload_len), (*relay.ip(), *own.ip(), 240));
    }
}
