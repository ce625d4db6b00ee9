//! Packet sockets: a mapped ring to receive from, `sendmmsg` to answer with.
//!
//! All shards' ports of one interface are opened together and form one fan-out group, whose program steers by `chaddr`.
//! The order in which that is done loses and misplaces nothing: sockets are deaf until the group and its program stand.
//!
//! A server's port has several rings, because a full ring drops whatever comes next. DISCOVERs have rings of their own, and everything
//! else has others, which are read first: a flood of DISCOVERs costs no client its lease. Of each kind there is one for every lane
//! ([`lane`](steer::lane)): a relay that floods, or the clients of the link itself, fill the ring of their lane, and each batch takes an equal share of every
//! lane. What is too much is dropped by the kernel before it costs the shard anything.
//!
//! TPACKET_V2, because a block of V3 arrives when it is full or when a timer says so. Bound to IPv4 alone, so that nothing
//! else is copied. What the filter cannot know, the addresses that we serve, is compared here.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, BorrowedFd};

use socket2::Socket;

use crate::ids::InterfaceId;

use super::link::Selected;
use super::steer::LANES;
use super::sys::socket::{
    attach_filter, bind_packet, join_fanout, packet_drops, packet_socket, set_fanout_program, set_int,
    set_send_buffer,
};
use super::sys::{Outgoing, RxRing, Sender};
use super::{
    ADDRESSES_MAX, BATCH_MAX, DISCOVER_PART, FDS_MAX, FrameSlab, OpenError, Port, PortStats, RxBatch,
    RxFlags, RxFrame, SendReport, TxBatch, steer,
};

/// Most slots that one turn looks at, so that frames which are not for us cannot hold it.
const SLOTS_PER_TURN_MAX: u32 = 256;
const _: () = assert!(SLOTS_PER_TURN_MAX as usize >= BATCH_MAX, "a turn can fill a batch");
/// What a socket's queue towards the device may hold, in bytes as the kernel counts them: some 2,000 frames.
const SEND_BUFFER_BYTES: i32 = 4 << 20;
/// Ethernet and the shortest IP and UDP headers.
const HEADERS_BYTES: usize = 42;
/// Where a frame's offset has the number of its ring: rings are smaller, and the bit above is a wrapper's (`fault`).
const QUEUE_SHIFT: u32 = 28;
const _: () = assert!(QUEUES_MAX <= 8, "three bits number the rings");
/// Kinds of messages: DISCOVERs and all others.
const KINDS: usize = 2;
/// Sockets that the kernel takes into one fan-out group.
const GROUP_MAX: usize = 256;
/// Most rings of a port.
const QUEUES_MAX: usize = KINDS * LANES as usize;

/// Which destination addresses are heard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Hear {
    /// Those of the port and 255.255.255.255: what a server hears.
    #[default]
    Own,
    /// All that the kernel considers ours by hardware address: what a load generator hears.
    All,
}

/// How packet ports are opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PacketOptions {
    /// Slots of each ring: 64 to 131,072, made a power of two. Each takes [`FRAME_BYTES`](super::FRAME_BYTES) of kernel memory.
    pub ring_slots: u32,
    /// The UDP port that is heard.
    pub udp_port: u16,
    /// The addresses that are heard.
    pub hear: Hear,
    /// Whether frames leave without the interface's queueing discipline.
    pub bypass_queue: bool,
    /// Whether DISCOVERs, and the relays of each lane, have rings of their own.
    pub rings_apart: bool,
}

impl Default for PacketOptions {
    fn default() -> Self {
        Self { ring_slots: 1024, udp_port: 67, hear: Hear::Own, bypass_queue: false, rings_apart: true }
    }
}

/// One shard's packet socket on one interface.
#[derive(Debug)]
pub struct PacketPort {
    interface: InterfaceId,
    mac: [u8; 6],
    hear: Hear,
    /// As they stand in an IP header; room for [`ADDRESSES_MAX`] from the start.
    addresses: Vec<[u8; 4]>,
    /// Those of the first lane first, of each lane the one for DISCOVERs second; one alone when they are not apart.
    queues: Vec<Queue>,
    /// The lane that is read first: turns with each batch.
    first: usize,
    transmitter: Socket,
    sender: Sender,
    stats: PortStats,
}

/// A ring and the socket that fills it.
#[derive(Debug)]
struct Queue {
    // Before its socket, so that it is unmapped first; either order would be sound.
    ring: RxRing,
    receiver: Socket,
}

impl Queue {
    /// A queue that hears nothing yet.
    fn open(slots: u32) -> Result<Self, (&'static str, io::Error)> {
        let at = |step| move |error| (step, error);
        let receiver = packet_socket().map_err(at("open a packet socket"))?;
        attach_filter(&receiver, &steer::deaf()).map_err(at("attach a socket filter"))?;
        // Older kernels do not know it; then the filter's look at the packet type does the same.
        let _ = set_int(&receiver, libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, 1);
        let ring = RxRing::new(&receiver, slots).map_err(at("make a receiving ring"))?;
        Ok(Self { ring, receiver })
    }
}

/// Opens one port per shard on an interface, steered by `keys` (those of `classify::steer`).
///
/// # Errors
/// Without CAP_NET_RAW, when the interface is gone, or when the kernel has no memory for the rings.
pub fn open(
    link: &Selected,
    interface: InterfaceId,
    shards: u8,
    keys: (u32, u32),
    options: &PacketOptions,
) -> Result<Vec<PacketPort>, OpenError> {
    let failed = |step| move |source| OpenError { interface: link.name.clone(), step, source };
    let lanes = lanes(shards);
    let queue_count = if options.rings_apart { KINDS * usize::from(lanes) } else { 1 };
    let mut ports = Vec::with_capacity(usize::from(shards));
    for _ in 0..shards {
        let queue = |_| Queue::open(options.ring_slots).map_err(|(step, source)| failed(step)(source));
        let queues = (0..queue_count).map(queue).collect::<Result<Vec<_>, _>>()?;
        let transmitter = packet_socket().map_err(failed("open a packet socket"))?;
        bind_packet(&transmitter, link.index, false).map_err(failed("bind a packet socket"))?;
        if options.bypass_queue {
            set_int(&transmitter, libc::SOL_PACKET, libc::PACKET_QDISC_BYPASS, 1)
                .map_err(failed("bypass the queueing discipline"))?;
        }
        set_send_buffer(&transmitter, SEND_BUFFER_BYTES).map_err(failed("size the sending queue"))?;
        let mut port = PacketPort {
            interface,
            mac: link.mac,
            hear: options.hear,
            addresses: Vec::with_capacity(ADDRESSES_MAX),
            queues,
            first: 0,
            transmitter,
            sender: Sender::new(),
            stats: PortStats::default(),
        };
        port.set_addresses(&link.addresses);
        ports.push(port);
    }
    // As the program counts them.
    let queues = (0..queue_count).flat_map(|number| ports.iter().map(move |port| &port.queues[number]));
    let receivers: Vec<&Socket> = queues.map(|queue| &queue.receiver).collect();
    for receiver in &receivers {
        bind_packet(receiver, link.index, true).map_err(failed("bind a packet socket"))?;
    }
    if let [first, others @ ..] = receivers.as_slice()
        && !others.is_empty()
    {
        let group = join_fanout(first, None).map_err(failed("make a fan-out group"))?;
        let program: &[steer::Instruction] = if options.rings_apart {
            &steer::fan_out_apart(keys, shards, lanes)
        } else {
            &steer::fan_out(keys, shards)
        };
        set_fanout_program(first, program).map_err(failed("set the steering program"))?;
        for receiver in others {
            join_fanout(receiver, Some(group)).map_err(failed("join a fan-out group"))?;
        }
    }
    for receiver in &receivers {
        attach_filter(receiver, &steer::hear(link.index, options.udp_port))
            .map_err(failed("attach a socket filter"))?;
    }
    Ok(ports)
}

/// How many lanes fit into a fan-out group, which has [`GROUP_MAX`] members at most.
const fn lanes(shards: u8) -> u8 {
    let mut lanes = LANES;
    while lanes > 1 && KINDS * lanes as usize * shards as usize > GROUP_MAX {
        lanes /= 2;
    }
    lanes
}

/// What a frame is to a port that compares addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Ours,
    Malformed,
    Fragment,
    Own,
    NotOurs,
}

/// Judges a frame that has passed the filter (`steer::hear`).
fn judge(bytes: &[u8], mac: [u8; 6], addresses: Option<&[[u8; 4]]>) -> Verdict {
    let Some(headers) = bytes.first_chunk::<HEADERS_BYTES>() else { return Verdict::Malformed };
    if headers[12..14] != [0x08, 0x00] || headers[14] >> 4 != 4 || headers[14] & 0xf < 5 {
        return Verdict::Malformed;
    }
    if headers[20] & 0x3f != 0 || headers[21] != 0 {
        return Verdict::Fragment;
    }
    if headers[6..12] == mac {
        return Verdict::Own;
    }
    let destination = &headers[30..34];
    match addresses {
        Some(own) if destination != [255; 4] && !own.iter().any(|address| destination == address) => {
            Verdict::NotOurs
        }
        _ => Verdict::Ours,
    }
}

/// Moves what waits in a ring into the batch until only `kept` places of it are left.
fn take(
    ring: &mut RxRing,
    batch: &mut RxBatch,
    kept: usize,
    (interface, mark): (InterfaceId, u32),
    judge: impl Fn(&[u8]) -> Verdict,
    stats: &mut PortStats,
) {
    while batch.room() > kept && ring.lent() < SLOTS_PER_TURN_MAX {
        let Some(slot) = ring.take() else { break };
        if slot.truncated {
            stats.rx_truncated += 1;
            continue;
        }
        let mut flags = RxFlags::default();
        let mut vlan_tci = 0;
        if slot.status & libc::TP_STATUS_VLAN_VALID != 0 {
            if slot.vlan_tci & 0x0fff != 0 {
                stats.rx_vlan += 1;
                continue;
            }
            flags = flags.with(RxFlags::PRIORITY_TAG);
            vlan_tci = slot.vlan_tci;
        }
        if slot.status & libc::TP_STATUS_CSUMNOTREADY != 0 {
            flags = flags.with(RxFlags::CSUM_NOT_READY);
        }
        if slot.status & libc::TP_STATUS_CSUM_VALID != 0 {
            flags = flags.with(RxFlags::CSUM_VALID);
        }
        match judge(ring.bytes(slot.offset, slot.len)) {
            Verdict::Ours => batch.push(RxFrame {
                wall_ns: slot.wall_ns,
                offset: slot.offset | mark,
                len: slot.len,
                interface,
                vlan_tci,
                flags,
                ..RxFrame::default()
            }),
            Verdict::Malformed => stats.rx_malformed += 1,
            Verdict::Fragment => stats.rx_fragment += 1,
            Verdict::Own => stats.rx_own += 1,
            Verdict::NotOurs => stats.rx_not_ours += 1,
        }
    }
}

impl PacketPort {
    /// Whether anything waits in the rings of a kind.
    fn has_waiting(&self, kind: usize) -> bool {
        self.queues.iter().skip(kind).step_by(KINDS).any(|queue| queue.ring.is_ready())
    }

    /// Fills the batch but for `kept` places from the rings of one kind: an equal share of each lane first, and what others leave free
    /// second.
    fn take_kind(&mut self, kind: usize, batch: &mut RxBatch, kept: usize) {
        let lanes = self.queues.len() / KINDS;
        let mut left = (0..lanes).filter(|lane| self.queues[KINDS * lane + kind].ring.is_ready()).count();
        for is_shared in [true, false] {
            for turn in 0..lanes {
                let number = KINDS * ((self.first + turn) % lanes) + kind;
                let room = batch.room().saturating_sub(kept);
                if left == 0 || room == 0 {
                    return;
                }
                if self.queues[number].ring.is_ready() {
                    let share = if is_shared { room.div_ceil(left) } else { room };
                    self.take_from(number, batch, batch.room() - share);
                    left -= usize::from(is_shared && left > 1);
                }
            }
        }
    }

    /// Moves what waits in a ring into the batch until only `kept` places of it are left.
    fn take_from(&mut self, number: usize, batch: &mut RxBatch, kept: usize) {
        let Self { interface, mac, hear, addresses, queues, stats, .. } = self;
        let addresses = match hear {
            Hear::Own => Some(addresses.as_slice()),
            Hear::All => None,
        };
        let mark = u32::try_from(number).expect("few") << QUEUE_SHIFT;
        let judge = |bytes: &[u8]| judge(bytes, *mac, addresses);
        take(&mut queues[number].ring, batch, kept, (*interface, mark), judge, stats);
    }
}

impl Port for PacketPort {
    fn interface(&self) -> InterfaceId {
        self.interface
    }

    fn recv_batch(&mut self, batch: &mut RxBatch) -> io::Result<usize> {
        let start = batch.len();
        if self.queues.len() == 1 {
            self.take_from(0, batch, 0);
        } else {
            self.first = self.first.wrapping_add(1);
            let kept = if self.has_waiting(1) { batch.room() / DISCOVER_PART } else { 0 };
            // DISCOVERs last, in one run, as the choice among frames expects it; what they leave is for the others.
            self.take_kind(0, batch, kept);
            let has_more = batch.room() == kept;
            self.take_kind(1, batch, 0);
            if has_more {
                self.take_kind(0, batch, 0);
            }
        }
        let count = batch.len() - start;
        self.stats.rx_frames += u64::try_from(count).expect("a batch is small");
        Ok(count)
    }

    fn bytes(&self, frame: &RxFrame) -> &[u8] {
        let number = usize::try_from(frame.offset >> QUEUE_SHIFT).expect("three bits");
        self.queues[number].ring.bytes(frame.offset & ((1 << QUEUE_SHIFT) - 1), frame.len)
    }

    fn recycle(&mut self) {
        for queue in &mut self.queues {
            queue.ring.recycle();
        }
    }

    fn is_ready(&self) -> bool {
        self.queues.iter().any(|queue| queue.ring.is_ready())
    }

    fn is_crowded(&self) -> bool {
        self.queues.iter().any(|queue| queue.ring.is_half_full())
    }

    fn send_batch(&mut self, batch: &TxBatch, slab: &FrameSlab) -> SendReport {
        let own = self.interface;
        let frames = batch.frames().iter().filter(|sent| sent.interface == own).map(|sent| Outgoing {
            bytes: &slab.bytes(&sent.frame)[..usize::from(sent.len)],
            to: None,
            from: (Ipv4Addr::UNSPECIFIED, 0),
        });
        let report = self.sender.send(self.transmitter.as_fd(), frames);
        self.stats.count_sent(&report);
        report
    }

    fn set_addresses(&mut self, addresses: &[Ipv4Addr]) {
        self.addresses.clear();
        self.addresses.extend(addresses.iter().take(ADDRESSES_MAX).map(Ipv4Addr::octets));
    }

    fn stats(&mut self) -> PortStats {
        // The kernel's counters start again with each reading.
        for (number, queue) in self.queues.iter().enumerate() {
            let Ok(drops) = packet_drops(&queue.receiver) else { continue };
            if number % KINDS == 1 {
                self.stats.rx_discover_dropped += u64::from(drops);
            } else {
                self.stats.rx_kernel_dropped += u64::from(drops);
            }
        }
        self.stats
    }

    fn fds(&self) -> [Option<BorrowedFd<'_>>; FDS_MAX] {
        std::array::from_fn(|number| self.queues.get(number).map(|queue| queue.receiver.as_fd()))
    }

    fn take_error(&mut self) -> Option<io::Error> {
        // Every socket has it, and keeps it until it is read.
        let mut errors = self.queues.iter().map(|queue| queue.receiver.take_error().ok().flatten());
        let error = errors.by_ref().fold(None, Option::or);
        if error.is_some() {
            self.stats.errors += 1;
        }
        error
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

    fn frame() -> Vec<u8> {
        let mut bytes = vec![0; 300];
        bytes[12] = 0x08;
        bytes[14] = 0x45;
        bytes[23] = 17;
        bytes[30..34].copy_from_slice(&[192, 0, 2, 1]);
        bytes
    }

    fn verdict(bytes: &[u8]) -> Verdict {
        judge(bytes, MAC, Some(&[[192, 0, 2, 1], [192, 0, 2, 2]]))
    }

    #[test]
    fn lanes_are_fewer_where_a_fan_out_group_has_no_room_for_all() {
        let most = u8::try_from(crate::ids::SHARDS_MAX).expect("few");
        for (shards, expected) in [(1, LANES), (32, LANES), (33, 2), (most, 2)] {
            assert_eq!(lanes(shards), expected, "{shards} shards");
        }
    }

    #[test]
    fn frame_to_one_of_our_addresses_or_to_all_is_ours() {
        let mut bytes = frame();
        assert_eq!(verdict(&bytes), Verdict::Ours);
        bytes[33] = 2;
        assert_eq!(verdict(&bytes), Verdict::Ours);
        bytes[33] = 3;
        assert_eq!(verdict(&bytes), Verdict::NotOurs);
        assert_eq!(judge(&bytes, MAC, None), Verdict::Ours, "a generator hears all");
        bytes[33] = 255;
        assert_eq!(verdict(&bytes), Verdict::NotOurs, "a subnet's broadcast is not heard");
        bytes[30..34].fill(255);
        assert_eq!(verdict(&bytes), Verdict::Ours);
    }

    #[test]
    fn frame_from_our_own_hardware_address_is_ignored() {
        let mut bytes = frame();
        bytes[6..12].copy_from_slice(&MAC);
        assert_eq!(verdict(&bytes), Verdict::Own);
    }

    #[test]
    fn fragments_are_told_apart() {
        let mut bytes = frame();
        bytes[20] = 0x40;
        assert_eq!(verdict(&bytes), Verdict::Ours, "do not fragment");
        bytes[20] = 0x20;
        assert_eq!(verdict(&bytes), Verdict::Fragment, "the first of several");
        bytes[20..22].copy_from_slice(&[0, 1]);
        assert_eq!(verdict(&bytes), Verdict::Fragment, "a later one");
    }

    #[test]
    fn every_truncation_is_judged_without_panic() {
        let bytes = frame();
        for len in 0..bytes.len() {
            let expected = if len < HEADERS_BYTES { Verdict::Malformed } else { Verdict::Ours };
            assert_eq!(verdict(&bytes[..len]), expected);
        }
    }
}
