//! A port without a kernel: two ends in one process, for tests, benches, the simulator and the unprivileged demo.
//!
//! Buffers circulate between the two ends, so that sending and receiving allocate nothing after [`MemoryPort::pair`].

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use crossbeam::queue::ArrayQueue;

use crate::ids::InterfaceId;

use super::{
    Doorbell, FDS_MAX, FRAME_BYTES, FrameSlab, Port, PortStats, RxBatch, RxFlags, RxFrame, SendReport,
    TxBatch, WINDOW_MAX,
};

/// A frame between two ends.
#[derive(Debug)]
struct Parcel {
    len: u16,
    flags: RxFlags,
    wall_ns: u64,
    bytes: Box<[u8; FRAME_BYTES]>,
}

/// One direction: filled parcels towards the receiver, empty ones back.
#[derive(Debug)]
struct Lane {
    filled: ArrayQueue<Parcel>,
    empty: ArrayQueue<Parcel>,
}

impl Lane {
    fn new(slots: usize) -> Self {
        let lane = Self { filled: ArrayQueue::new(slots), empty: ArrayQueue::new(slots) };
        for _ in 0..slots {
            let parcel =
                Parcel { len: 0, flags: RxFlags::default(), wall_ns: 0, bytes: Box::new([0; FRAME_BYTES]) };
            let pushed = lane.empty.push(parcel);
            assert!(pushed.is_ok(), "the lane has a place for each of its parcels");
        }
        lane
    }
}

/// One end of a pair. What one end sends, the other receives.
#[derive(Debug)]
pub struct MemoryPort {
    interface: InterfaceId,
    incoming: Arc<Lane>,
    outgoing: Arc<Lane>,
    lent: Vec<Parcel>,
    far_bell: Option<Arc<Doorbell>>,
    wall_ns: u64,
    stats: PortStats,
}

impl MemoryPort {
    /// Two joined ends, each with room for `slots` frames that the other has not read yet.
    ///
    /// # Panics
    /// When `slots` is 0.
    #[must_use]
    pub fn pair(left: InterfaceId, right: InterfaceId, slots: usize) -> (Self, Self) {
        let (there, back) = (Arc::new(Lane::new(slots)), Arc::new(Lane::new(slots)));
        let end = |interface, incoming: &Arc<Lane>, outgoing: &Arc<Lane>| Self {
            interface,
            incoming: Arc::clone(incoming),
            outgoing: Arc::clone(outgoing),
            lent: Vec::with_capacity(WINDOW_MAX),
            far_bell: None,
            wall_ns: 0,
            stats: PortStats::default(),
        };
        (end(left, &back, &there), end(right, &there, &back))
    }

    /// Rings `bell`, which is the far shard's, whenever something was sent.
    pub fn rings(&mut self, bell: Arc<Doorbell>) {
        self.far_bell = Some(bell);
    }

    /// The time of arrival that frames sent from now on carry, in nanoseconds of wall-clock time; 0 for none.
    pub const fn set_wall_ns(&mut self, wall_ns: u64) {
        self.wall_ns = wall_ns;
    }

    /// Sends one frame that is not of a slab; false when the far end has no room or `bytes` is longer than a frame.
    pub fn inject(&mut self, bytes: &[u8], flags: RxFlags) -> bool {
        let sent = self.deliver(bytes, flags);
        if sent && let Some(bell) = &self.far_bell {
            bell.ring();
        }
        sent
    }

    /// Takes one received frame out of the port without a batch, and shows its bytes to `look`.
    pub fn eject<T>(&mut self, look: impl FnOnce(&[u8]) -> T) -> Option<T> {
        let parcel = self.incoming.filled.pop()?;
        let seen = look(&parcel.bytes[..usize::from(parcel.len)]);
        Self::give_back(&self.incoming, parcel);
        Some(seen)
    }

    fn deliver(&self, bytes: &[u8], flags: RxFlags) -> bool {
        if bytes.len() > FRAME_BYTES {
            return false;
        }
        let Some(mut parcel) = self.outgoing.empty.pop() else { return false };
        parcel.bytes[..bytes.len()].copy_from_slice(bytes);
        parcel.len = u16::try_from(bytes.len()).expect("a frame's length fits 16 bits");
        parcel.flags = flags;
        parcel.wall_ns = self.wall_ns;
        let pushed = self.outgoing.filled.push(parcel);
        assert!(pushed.is_ok(), "there are as many places as parcels");
        true
    }

    fn give_back(lane: &Lane, parcel: Parcel) {
        let pushed = lane.empty.push(parcel);
        assert!(pushed.is_ok(), "there are as many places as parcels");
    }
}

impl Port for MemoryPort {
    fn interface(&self) -> InterfaceId {
        self.interface
    }

    fn recv_batch(&mut self, batch: &mut RxBatch) -> io::Result<usize> {
        let room = batch.room().min(WINDOW_MAX - self.lent.len());
        let mut count = 0;
        while count < room
            && let Some(parcel) = self.incoming.filled.pop()
        {
            batch.push(RxFrame {
                wall_ns: parcel.wall_ns,
                offset: u32::try_from(self.lent.len()).expect("a batch is small"),
                len: parcel.len,
                interface: self.interface,
                flags: parcel.flags,
                ..RxFrame::default()
            });
            self.lent.push(parcel);
            count += 1;
        }
        self.stats.rx_frames += u64::try_from(count).expect("a batch is small");
        Ok(count)
    }

    fn bytes(&self, frame: &RxFrame) -> &[u8] {
        let position = usize::try_from(frame.offset).expect("32 bits fit");
        let parcel = self.lent.get(position).expect("a frame is read before it is recycled");
        &parcel.bytes[..usize::from(parcel.len)]
    }

    fn recycle(&mut self) {
        for parcel in self.lent.drain(..) {
            Self::give_back(&self.incoming, parcel);
        }
    }

    fn is_ready(&self) -> bool {
        !self.incoming.filled.is_empty()
    }

    fn is_crowded(&self) -> bool {
        2 * self.incoming.filled.len() >= self.incoming.filled.capacity()
    }

    fn send_batch(&mut self, batch: &TxBatch, slab: &FrameSlab) -> SendReport {
        let mut report = SendReport::default();
        for sent in batch.frames().iter().filter(|sent| sent.interface == self.interface) {
            if self.deliver(&slab.bytes(&sent.frame)[..usize::from(sent.len)], RxFlags::default()) {
                report.sent += 1;
            } else {
                report.full += 1;
            }
        }
        self.stats.count_sent(&report);
        if report.sent > 0
            && let Some(bell) = &self.far_bell
        {
            bell.ring();
        }
        report
    }

    /// An in-process wire has two ends and no addresses: everything sent is heard.
    fn set_addresses(&mut self, _addresses: &[Ipv4Addr]) {}

    fn stats(&mut self) -> PortStats {
        self.stats
    }

    fn fds(&self) -> [Option<BorrowedFd<'_>>; FDS_MAX] {
        [None; FDS_MAX]
    }
}
