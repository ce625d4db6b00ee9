//! A port without a network below it.

use std::hint::black_box;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::BorrowedFd;

use aplomado::ids::InterfaceId;
use aplomado::net::{FDS_MAX, FrameSlab, Port, PortStats, RxBatch, RxFrame, SendReport, TxBatch};

use super::{BATCH, INTERFACE, Message};

/// Octets of a place for a frame.
const PLACE_BYTES: usize = 512;

/// The smallest port: what it receives lies in place already, what it sends is copied once.
pub(crate) struct BenchPort {
    pub(crate) frames: Vec<[u8; PLACE_BYTES]>,
    /// What describes each of them.
    pub(crate) places: [RxFrame; BATCH],
    pub(crate) count: usize,
    out: Vec<[u8; PLACE_BYTES]>,
}

impl BenchPort {
    pub(crate) fn new() -> Self {
        Self {
            frames: vec![[0; PLACE_BYTES]; BATCH],
            places: std::array::from_fn(|_| RxFrame::default()),
            count: 0,
            out: vec![[0; PLACE_BYTES]; BATCH],
        }
    }

    /// Puts a message at `index` of the next batch.
    pub(crate) fn put(&mut self, index: usize, message: &Message<'_>) {
        let len = message.write(&mut self.frames[index]);
        assert_eq!(len, 342, "the frames that the targets speak of");
        let place = &mut self.places[index];
        place.len = u16::try_from(len).expect("342 fits");
        place.offset = u32::try_from(index).expect("a batch is small");
        place.interface = INTERFACE;
    }
}

impl Port for BenchPort {
    fn interface(&self) -> InterfaceId {
        INTERFACE
    }

    fn recv_batch(&mut self, batch: &mut RxBatch) -> io::Result<usize> {
        let count = std::mem::take(&mut self.count);
        for place in &self.places[..count] {
            batch.push(*place);
        }
        Ok(count)
    }

    fn bytes(&self, frame: &RxFrame) -> &[u8] {
        &self.frames[frame.offset as usize][..usize::from(frame.len)]
    }

    fn recycle(&mut self) {}

    fn is_ready(&self) -> bool {
        self.count > 0
    }

    fn is_crowded(&self) -> bool {
        false
    }

    fn send_batch(&mut self, batch: &TxBatch, slab: &FrameSlab) -> SendReport {
        let mut report = SendReport::default();
        for (place, sent) in self.out.iter_mut().zip(batch.frames()) {
            let len = usize::from(sent.len);
            place[..len].copy_from_slice(&slab.bytes(&sent.frame)[..len]);
            report.sent += 1;
        }
        black_box(&self.out);
        report
    }

    fn set_addresses(&mut self, _addresses: &[Ipv4Addr]) {}

    fn stats(&mut self) -> PortStats {
        PortStats::default()
    }

    fn fds(&self) -> [Option<BorrowedFd<'_>>; FDS_MAX] {
        [None; FDS_MAX]
    }
}
