//! A port that writes down what passes through it, in the format that packet analysers read (pcap, nanoseconds, Ethernet).
//!
//! For tests, demonstrations and a look at one client: writing is not free and happens in the shard. Frames sent are stamped
//! with the time of the last frame received, because a port reads no clock. After the first failed write nothing more is
//! written, and the error is kept for whoever asks: recording never disturbs service.

use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::os::fd::BorrowedFd;

use crate::ids::InterfaceId;

use super::{FDS_MAX, FrameSlab, Port, PortStats, RxBatch, RxFrame, SendReport, TxBatch};

/// Files with times in nanoseconds begin with this, in the writer's byte order: ours is big-endian everywhere.
const MAGIC_NANOSECONDS: u32 = 0xa1b2_3c4d;
const SNAP_BYTES: u32 = 65_535;
const LINK_ETHERNET: u32 = 1;

/// Writes frames to `out`.
#[derive(Debug)]
pub struct PcapWriter<W> {
    out: W,
}

impl<W: Write> PcapWriter<W> {
    /// Writes the head of the file.
    ///
    /// # Errors
    /// What `out` answers.
    pub fn new(mut out: W) -> io::Result<Self> {
        let mut head = [0; 24];
        head[..4].copy_from_slice(&MAGIC_NANOSECONDS.to_be_bytes());
        head[5] = 2;
        head[7] = 4;
        head[16..20].copy_from_slice(&SNAP_BYTES.to_be_bytes());
        head[20..].copy_from_slice(&LINK_ETHERNET.to_be_bytes());
        out.write_all(&head)?;
        Ok(Self { out })
    }

    /// Writes one frame with its time in nanoseconds since the Unix epoch. Seconds beyond 32 bits wrap, as the format has it.
    ///
    /// # Errors
    /// What `out` answers.
    pub fn write(&mut self, wall_ns: u64, frame: &[u8]) -> io::Result<()> {
        let seconds = u32::try_from(wall_ns / 1_000_000_000 % (1 << 32)).expect("wrapped");
        let nanoseconds = u32::try_from(wall_ns % 1_000_000_000).expect("below 10^9");
        let len = u32::try_from(frame.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        let mut head = [0; 16];
        for (field, value) in head.chunks_exact_mut(4).zip([seconds, nanoseconds, len, len]) {
            field.copy_from_slice(&value.to_be_bytes());
        }
        self.out.write_all(&head)?;
        self.out.write_all(frame)
    }

    /// Gives `out` back.
    pub fn into_inner(self) -> W {
        self.out
    }
}

/// A port whose frames are written down, both ways.
#[derive(Debug)]
pub struct Recorded<P, W> {
    inner: P,
    writer: PcapWriter<W>,
    last_ns: u64,
    broken: Option<io::Error>,
}

impl<P: Port, W: Write> Recorded<P, W> {
    /// Wraps `inner`.
    pub const fn new(inner: P, writer: PcapWriter<W>) -> Self {
        Self { inner, writer, last_ns: 0, broken: None }
    }

    /// The error that ended the recording, if one did.
    pub const fn broken(&self) -> Option<&io::Error> {
        self.broken.as_ref()
    }

    /// Gives port and writer back.
    pub fn into_parts(self) -> (P, PcapWriter<W>) {
        (self.inner, self.writer)
    }
}

impl<P: Port, W: Write> Port for Recorded<P, W> {
    fn interface(&self) -> InterfaceId {
        self.inner.interface()
    }

    fn recv_batch(&mut self, batch: &mut RxBatch) -> io::Result<usize> {
        let start = batch.len();
        let received = self.inner.recv_batch(batch);
        for frame in &batch.frames()[start..] {
            self.last_ns = frame.wall_ns;
            if self.broken.is_none() {
                self.broken = self.writer.write(frame.wall_ns, self.inner.bytes(frame)).err();
            }
        }
        received
    }

    fn bytes(&self, frame: &RxFrame) -> &[u8] {
        self.inner.bytes(frame)
    }

    fn recycle(&mut self) {
        self.inner.recycle();
    }

    fn is_ready(&self) -> bool {
        self.inner.is_ready()
    }

    fn is_crowded(&self) -> bool {
        self.inner.is_crowded()
    }

    fn send_batch(&mut self, batch: &TxBatch, slab: &FrameSlab) -> SendReport {
        let own = self.inner.interface();
        for sent in batch.frames().iter().filter(|sent| sent.interface == own) {
            if self.broken.is_none() {
                let bytes = &slab.bytes(&sent.frame)[..usize::from(sent.len)];
                self.broken = self.writer.write(self.last_ns, bytes).err();
            }
        }
        self.inner.send_batch(batch, slab)
    }

    fn set_addresses(&mut self, addresses: &[Ipv4Addr]) {
        self.inner.set_addresses(addresses);
    }

    fn stats(&mut self) -> PortStats {
        self.inner.stats()
    }

    fn fds(&self) -> [Option<BorrowedFd<'_>>; FDS_MAX] {
        self.inner.fds()
    }

    fn take_error(&mut self) -> Option<io::Error> {
        self.inner.take_error()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{MemoryPort, RxFlags};
    use super::*;

    #[test]
    fn both_directions_are_written_with_the_time_of_arrival() {
        let (mut far, near) = MemoryPort::pair(InterfaceId(0), InterfaceId(0), 8);
        let mut port = Recorded::new(near, PcapWriter::new(Vec::new()).expect("memory takes all"));
        far.set_wall_ns(5_000_000_007);
        assert!(far.inject(b"query", RxFlags::default()));
        let mut batch = RxBatch::new();
        assert_eq!(port.recv_batch(&mut batch).expect("memory does not fail"), 1);
        let (mut slab, mut replies) = (FrameSlab::new(1), TxBatch::new());
        let frame = slab.take().expect("free");
        slab.bytes_mut(&frame)[..5].copy_from_slice(b"reply");
        replies.push(frame, 5, InterfaceId(0));
        assert_eq!(port.send_batch(&replies, &slab).sent, 1);
        let file = port.into_parts().1.into_inner();
        let mut expected = vec![0xa1, 0xb2, 0x3c, 0x4d, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0];
        expected.extend_from_slice(&[0, 0, 0xff, 0xff, 0, 0, 0, 1]);
        for bytes in [b"query", b"reply"] {
            expected.extend_from_slice(&[0, 0, 0, 5, 0, 0, 0, 7, 0, 0, 0, 5, 0, 0, 0, 5]);
            expected.extend_from_slice(bytes);
        }
        assert_eq!(file, expected);
    }

    #[test]
    fn full_disk_ends_the_recording_and_not_the_service() {
        let (mut far, near) = MemoryPort::pair(InterfaceId(0), InterfaceId(0), 8);
        let mut room = [0; 30];
        let mut port = Recorded::new(near, PcapWriter::new(&mut room[..]).expect("the head fits"));
        assert!(far.inject(b"query", RxFlags::default()));
        let mut batch = RxBatch::new();
        assert_eq!(port.recv_batch(&mut batch).expect("memory does not fail"), 1);
        assert!(port.broken().is_some());
        assert_eq!(port.bytes(&batch.frames()[0]), b"query");
    }
}
