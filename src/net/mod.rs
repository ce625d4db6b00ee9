//! Frames in, frames out: the ports that a shard receives from and answers through, and what the kernel knows about
//! its interfaces.
//!
//! A [`Port`] is one shard's hold of one interface. Whatever is under it, it speaks whole Ethernet frames, so the
//! rooms above parse and build one thing only: [`packet`] reads a mapped AF_PACKET ring, [`udp`] makes the headers that
//! a datagram socket hides, [`memory`] joins two shards (or a shard and a test) in one process. [`fault`] and [`pcap`]
//! wrap any port. A [`PortSet`] is all the ports of one shard.
//!
//! Promises:
//! - No input from the network panics or allocates. After a port is open, `recv_batch`, `bytes`, `recycle` and
//!   `send_batch` allocate nothing, take no lock and, on the receiving side of a ring, make no system call.
//! - A received slot goes back to the kernel in the turn in which it was read ([`Port::recycle`]): ring slots are first
//!   in, first out, and one that is held stops all behind it.
//! - A port belongs to one shard thread. [`Doorbell`] is the only part that other threads touch.
//! - Frames that the interface does not own (other hosts', our own, another VLAN's, fragments) never reach a batch; each is counted in [`PortStats`].
//! - `unsafe` lives in `sys` alone; raw pointers do not leave their file there.
//!
//! Bounds: [`BATCH_MAX`] frames a batch, [`FRAME_BYTES`] a frame, [`PORTS_MAX`] ports a shard, [`ADDRESSES_MAX`] addresses a port.
//!
//! Follows RFC 894 (IP over Ethernet), RFC 2131 4.1 (what a server hears and how it answers), the Kea manual's chapter on
//! interface configuration.

mod any;
pub mod doorbell;
pub mod fault;
pub mod frame;
pub mod link;
pub mod memory;
pub mod packet;
pub mod pcap;
pub mod port_set;
pub mod steer;
mod sys;
pub mod udp;

use std::fmt;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::BorrowedFd;

pub use any::AnyPort;
pub use doorbell::Doorbell;
pub use frame::{Frame, FrameSlab, RxBatch, RxFlags, RxFrame, TxBatch, TxFrame};
pub use memory::MemoryPort;
pub use packet::PacketPort;
pub use port_set::PortSet;
pub use sys::{
    end_with_parent, enter_network_namespace, enter_user_namespace, monotonic_us, network_namespace,
    new_network_namespace, raise_descriptor_limit,
};
pub use udp::UdpPort;

use crate::ids::InterfaceId;

/// Most frames in one batch, received or sent.
pub const BATCH_MAX: usize = 64;
/// Most frames that a shard with more to do than it can looks at to choose a batch from.
pub const WINDOW_MAX: usize = 256;
/// Of each batch, one part in so many is for DISCOVERs when there are any, however much else there is.
pub const DISCOVER_PART: usize = 8;
/// Most descriptors that a port is polled by.
pub const FDS_MAX: usize = 8;
/// Bytes of one frame of a slab and of one ring slot: an Ethernet frame of 1500 bytes of payload and its descriptor fit.
pub const FRAME_BYTES: usize = 2048;
/// Most ports (one per served interface) in one shard.
pub const PORTS_MAX: usize = 256;
/// Most addresses that one port listens on.
pub const ADDRESSES_MAX: usize = 64;

/// One shard's hold of one interface: a batch in, a batch out.
pub trait Port {
    /// The interface, by its position in the server's table.
    fn interface(&self) -> InterfaceId;

    /// Appends what has arrived to `batch`, at most [`RxBatch::room`] frames, and says how many. Does not block.
    ///
    /// # Errors
    /// What the kernel answered, when the port cannot receive any more (its interface is gone). Nothing waiting is `Ok(0)`.
    fn recv_batch(&mut self, batch: &mut RxBatch) -> io::Result<usize>;

    /// The bytes of a frame that this port has put into a batch and that has not been recycled, from the Ethernet
    /// header on.
    ///
    /// # Panics
    /// When `frame` is not one of these: that is a bug of the caller.
    fn bytes(&self, frame: &RxFrame) -> &[u8];

    /// Gives back every slot lent since the last call. Descriptors from before it are void.
    fn recycle(&mut self);

    /// Whether `recv_batch` would find something now, as far as can be known without a system call.
    fn is_ready(&self) -> bool;

    /// Whether at least half of what can wait does, as far as can be known without a system call.
    fn is_crowded(&self) -> bool;

    /// Sends those frames of `batch` that go out of this port's interface, in order. Does not block and does not free
    /// frames: [`PortSet::send`] does.
    fn send_batch(&mut self, batch: &TxBatch, slab: &FrameSlab) -> SendReport;

    /// From now on frames to one of `addresses` (or 255.255.255.255) are heard; at most [`ADDRESSES_MAX`], the rest is
    /// left out. Cold path, but without allocation.
    fn set_addresses(&mut self, addresses: &[Ipv4Addr]);

    /// Counters since the port was opened. May make a system call: once a second, not once a batch.
    fn stats(&mut self) -> PortStats;

    /// What to poll for arrivals; nothing for a port that rings the shard's [`Doorbell`] instead.
    fn fds(&self) -> [Option<BorrowedFd<'_>>; FDS_MAX];

    /// The error that made one of `fds` readable with an error condition, and clears it (a link that went down reports it once).
    fn take_error(&mut self) -> Option<io::Error> {
        None
    }
}

/// Why a port could not be opened.
#[derive(Debug)]
pub struct OpenError {
    /// The interface's name.
    pub interface: String,
    /// What was tried, to be read after "cannot".
    pub step: &'static str,
    /// What the kernel answered.
    pub source: io::Error,
}

impl fmt::Display for OpenError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "cannot {} on interface {}", self.step, self.interface)
    }
}

impl std::error::Error for OpenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

/// What became of a batch given to [`Port::send_batch`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SendReport {
    /// Frames that the kernel (or the far end) took.
    pub sent: u32,
    /// Frames dropped because a queue on the way out was full.
    pub full: u32,
    /// Frames that the kernel refused for another reason, which is `errno`; with no port for the interface, `errno` is 0.
    pub failed: u32,
    /// The last system error number seen, 0 for none.
    pub errno: i32,
}

impl SendReport {
    /// Adds what another call did.
    pub const fn add(&mut self, other: &Self) {
        self.sent += other.sent;
        self.full += other.full;
        self.failed += other.failed;
        if other.errno != 0 {
            self.errno = other.errno;
        }
    }
}

/// A port's counters, in frames, since it was opened. Every frame that the kernel showed us is in exactly one `rx_*` of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortStats {
    /// Put into a batch.
    pub rx_frames: u64,
    /// Dropped by the kernel because the ring or the socket's queue was full.
    pub rx_kernel_dropped: u64,
    /// DISCOVERs dropped by the kernel because their own ring was full.
    pub rx_discover_dropped: u64,
    /// Longer than a slot: dropped.
    pub rx_truncated: u64,
    /// With the tag of a VLAN that this interface does not stand for: dropped.
    pub rx_vlan: u64,
    /// First fragments of a datagram for our port: dropped.
    pub rx_fragment: u64,
    /// For an address that is none of the port's: dropped.
    pub rx_not_ours: u64,
    /// Sent from our own hardware address: dropped.
    pub rx_own: u64,
    /// Too short or not IPv4 over Ethernet in spite of the filter: dropped.
    pub rx_malformed: u64,
    /// Handed to the kernel.
    pub tx_frames: u64,
    /// Dropped because a queue on the way out was full.
    pub tx_full: u64,
    /// Refused by the kernel for another reason.
    pub tx_failed: u64,
    /// Error conditions of the receiving side (link down).
    pub errors: u64,
}

impl PortStats {
    /// Adds the counters of another port (or another shard's port on the same interface).
    pub const fn add(&mut self, other: &Self) {
        self.rx_frames += other.rx_frames;
        self.rx_kernel_dropped += other.rx_kernel_dropped;
        self.rx_discover_dropped += other.rx_discover_dropped;
        self.rx_truncated += other.rx_truncated;
        self.rx_vlan += other.rx_vlan;
        self.rx_fragment += other.rx_fragment;
        self.rx_not_ours += other.rx_not_ours;
        self.rx_own += other.rx_own;
        self.rx_malformed += other.rx_malformed;
        self.tx_frames += other.tx_frames;
        self.tx_full += other.tx_full;
        self.tx_failed += other.tx_failed;
        self.errors += other.errors;
    }

    /// How many counters there are.
    pub const COUNT: usize = 13;

    /// All counters, in the order of their fields.
    #[must_use]
    pub const fn values(&self) -> [u64; Self::COUNT] {
        [
            self.rx_frames,
            self.rx_kernel_dropped,
            self.rx_discover_dropped,
            self.rx_truncated,
            self.rx_vlan,
            self.rx_fragment,
            self.rx_not_ours,
            self.rx_own,
            self.rx_malformed,
            self.tx_frames,
            self.tx_full,
            self.tx_failed,
            self.errors,
        ]
    }

    /// Counts a report of the sending side.
    pub(crate) const fn count_sent(&mut self, report: &SendReport) {
        self.tx_frames += report.sent as u64;
        self.tx_full += report.full as u64;
        self.tx_failed += report.failed as u64;
    }
}
