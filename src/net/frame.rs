//! Frames as values: descriptors of what was received, owned tokens of what will be sent.
//!
//! Promises: everything is allocated by `new`; afterwards nothing allocates. A [`Frame`] cannot be copied, so it can
//! neither be sent twice nor be used after it went back.

use crate::ids::InterfaceId;

use super::{BATCH_MAX, FRAME_BYTES, WINDOW_MAX};

/// What is known about a received frame beside its bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RxFlags(pub u8);

impl RxFlags {
    /// The sender is on this machine and has left the UDP checksum to hardware that was never reached: do not verify it.
    pub const CSUM_NOT_READY: Self = Self(1);
    /// Kernel or hardware has verified the UDP checksum.
    pub const CSUM_VALID: Self = Self(1 << 1);
    /// The headers were made by the port from what a datagram socket tells: no hardware source address is known, and
    /// the checksums are the kernel's business.
    pub const SYNTHETIC: Self = Self(1 << 2);
    /// The frame carried a priority tag (VLAN id 0), whose bits are in `vlan_tci`.
    pub const PRIORITY_TAG: Self = Self(1 << 3);

    /// Whether all flags of `other` are set.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Both sets of flags.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether the UDP checksum is still to be verified by the parser.
    #[must_use]
    pub const fn checksum_is_unverified(self) -> bool {
        self.0 & (Self::CSUM_NOT_READY.0 | Self::CSUM_VALID.0 | Self::SYNTHETIC.0) == 0
    }
}

/// A received frame: where it lies in its port, and what the port knows about it. Void after [`PortSet::recycle`](super::PortSet::recycle).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RxFrame {
    /// When it arrived, in nanoseconds of wall-clock time since the Unix epoch; 0 where nobody noted it.
    pub wall_ns: u64,
    /// Where it begins, a number that means something to its port alone.
    pub offset: u32,
    /// Bytes from the Ethernet header to the end of what arrived (padding included).
    pub len: u16,
    /// The interface it arrived on.
    pub interface: InterfaceId,
    /// The priority tag's control information where `flags` say that there was one, else 0.
    pub vlan_tci: u16,
    /// What else is known.
    pub flags: RxFlags,
    /// The position of its port in the [`PortSet`](super::PortSet), which writes it.
    pub(super) port: u8,
}

/// Up to [`BATCH_MAX`] received frames, of one turn; up to [`WINDOW_MAX`] while a batch is chosen among more.
#[derive(Clone, Debug)]
pub struct RxBatch {
    frames: [RxFrame; WINDOW_MAX],
    len: usize,
    limit: usize,
}

impl Default for RxBatch {
    fn default() -> Self {
        Self::new()
    }
}

impl RxBatch {
    /// An empty batch for [`BATCH_MAX`] frames.
    #[must_use]
    pub fn new() -> Self {
        Self { frames: [RxFrame::default(); WINDOW_MAX], len: 0, limit: BATCH_MAX }
    }

    /// The frames, in order of arrival per interface.
    #[must_use]
    pub fn frames(&self) -> &[RxFrame] {
        &self.frames[..self.len]
    }

    /// How many frames there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many more frames may be appended now.
    #[must_use]
    pub const fn room(&self) -> usize {
        self.limit - self.len
    }

    /// Appends a frame. For implementations of [`Port`](super::Port).
    ///
    /// # Panics
    /// When there is no [`room`](Self::room): ports ask first.
    pub fn push(&mut self, frame: RxFrame) {
        assert!(self.len < self.limit, "a port asks for room before it appends");
        self.frames[self.len] = frame;
        self.len += 1;
    }

    /// Lets at most `more` frames in beside those that are there, and never more than [`WINDOW_MAX`] in all.
    pub(super) fn admit(&mut self, more: usize) {
        self.limit = (self.len + more).min(WINDOW_MAX);
    }

    /// Keeps those frames whose positions are set, in their order. The others' slots go back with the batch.
    pub fn keep(&mut self, chosen: &[bool; WINDOW_MAX]) {
        let mut kept = 0;
        for (index, _) in chosen.iter().enumerate().take(self.len).filter(|(_, chosen)| **chosen) {
            self.frames[kept] = self.frames[index];
            kept += 1;
        }
        self.len = kept;
    }

    /// Marks the frames from `start` on as coming from the port at this position of the set.
    pub(super) fn stamp_port(&mut self, start: usize, port: u8) {
        for frame in &mut self.frames[start..self.len] {
            frame.port = port;
        }
    }

    /// Forgets all frames; their slots are given back by the port.
    pub fn clear(&mut self) {
        self.len = 0;
        self.limit = BATCH_MAX;
    }
}

/// A frame of a [`FrameSlab`], owned: a reply that is being built, waits in the park, or is about to leave.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame(u32);

impl Frame {
    /// The frame's position in its slab, for tables kept beside it.
    #[must_use]
    pub const fn index(&self) -> u32 {
        self.0
    }
}

/// From one frame of a slab to the next. With a power of two the replies of a batch would all lie in a few sets of the processor's cache.
const STRIDE: usize = FRAME_BYTES + 64;

/// A shard's frames for replies: `count` times [`FRAME_BYTES`], of which only those ever used take memory.
#[derive(Debug)]
pub struct FrameSlab {
    bytes: Box<[u8]>,
    /// Frames given back, the latest on top: it is the one that is still in the cache.
    free: Vec<u32>,
    /// Frames from here on were never taken, and their memory was never touched.
    fresh: u32,
    count: u32,
}

impl FrameSlab {
    /// A slab of `count` frames: one batch and the bound of the park is what a shard needs.
    ///
    /// # Panics
    /// When the slab would not fit the address space.
    #[must_use]
    pub fn new(count: u32) -> Self {
        let frames = usize::try_from(count).expect("32 bits fit");
        let bytes = frames.checked_mul(STRIDE).expect("a slab fits the address space");
        // Zeroed memory comes from the kernel untouched: pages appear as frames are first used.
        Self { bytes: vec![0; bytes].into_boxed_slice(), free: Vec::with_capacity(frames), fresh: 0, count }
    }

    /// A frame whose content is whatever was there before, or nothing when all are in use.
    pub fn take(&mut self) -> Option<Frame> {
        if let Some(index) = self.free.pop() {
            return Some(Frame(index));
        }
        if self.fresh == self.count {
            return None;
        }
        self.fresh += 1;
        Some(Frame(self.fresh - 1))
    }

    /// Takes a frame back.
    ///
    /// # Panics
    /// When the frame is not of this slab.
    pub fn put(&mut self, frame: Frame) {
        assert!(frame.0 < self.fresh, "a frame goes back to the slab that gave it");
        self.free.push(frame.0);
    }

    /// How many frames can be taken now.
    #[must_use]
    pub fn free_count(&self) -> usize {
        self.free.len() + usize::try_from(self.count - self.fresh).expect("32 bits fit")
    }

    /// How many frames there are in all.
    #[must_use]
    pub const fn count(&self) -> u32 {
        self.count
    }

    /// All bytes of a frame.
    #[must_use]
    pub fn bytes(&self, frame: &Frame) -> &[u8] {
        let start = Self::start(frame);
        &self.bytes[start..start + FRAME_BYTES]
    }

    /// All bytes of a frame, to build a reply in.
    pub fn bytes_mut(&mut self, frame: &Frame) -> &mut [u8] {
        let start = Self::start(frame);
        &mut self.bytes[start..start + FRAME_BYTES]
    }

    fn start(frame: &Frame) -> usize {
        usize::try_from(frame.0).expect("32 bits fit") * STRIDE
    }
}

/// A frame on its way out.
#[derive(Debug, PartialEq, Eq)]
pub struct TxFrame {
    /// The frame, from the Ethernet header on.
    pub frame: Frame,
    /// How many of its bytes are the frame.
    pub len: u16,
    /// The interface that it leaves from.
    pub interface: InterfaceId,
}

/// Up to [`BATCH_MAX`] frames on their way out.
#[derive(Debug)]
pub struct TxBatch {
    frames: Vec<TxFrame>,
}

impl Default for TxBatch {
    fn default() -> Self {
        Self::new()
    }
}

impl TxBatch {
    /// An empty batch.
    #[must_use]
    pub fn new() -> Self {
        Self { frames: Vec::with_capacity(BATCH_MAX) }
    }

    /// The frames, in the order in which they leave.
    #[must_use]
    pub fn frames(&self) -> &[TxFrame] {
        &self.frames
    }

    /// How many frames there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.frames.len()
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// How many more frames fit.
    #[must_use]
    pub const fn room(&self) -> usize {
        BATCH_MAX - self.frames.len()
    }

    /// Appends a frame of `len` bytes that leaves through `interface`.
    ///
    /// # Panics
    /// When the batch is full (ask [`room`](Self::room)) or `len` is more than a frame holds.
    pub fn push(&mut self, frame: Frame, len: usize, interface: InterfaceId) {
        assert!(self.frames.len() < BATCH_MAX, "a full batch is sent before more is added");
        assert!(len <= FRAME_BYTES, "a frame holds {FRAME_BYTES} bytes, not {len}");
        let len = u16::try_from(len).expect("a frame's length fits 16 bits");
        self.frames.push(TxFrame { frame, len, interface });
    }

    /// Gives all frames back to the slab, sent or not.
    pub fn recycle(&mut self, slab: &mut FrameSlab) {
        for sent in self.frames.drain(..) {
            slab.put(sent.frame);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slab_gives_each_frame_once_until_it_is_given_back() {
        let mut slab = FrameSlab::new(3);
        let frames: Vec<Frame> = std::iter::from_fn(|| slab.take()).collect();
        assert_eq!(frames.iter().map(Frame::index).collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!((slab.free_count(), slab.take()), (0, None));
        for frame in frames {
            slab.put(frame);
        }
        assert_eq!(slab.free_count(), 3);
        assert_eq!(slab.take().expect("one is free").index(), 2, "the warmest frame comes first");
    }

    #[test]
    fn frames_do_not_overlap() {
        let mut slab = FrameSlab::new(2);
        let (a, b) = (slab.take().expect("first"), slab.take().expect("second"));
        slab.bytes_mut(&a).fill(0xaa);
        slab.bytes_mut(&b).fill(0xbb);
        assert!(slab.bytes(&a).iter().all(|byte| *byte == 0xaa));
        assert_eq!(slab.bytes(&b).len(), FRAME_BYTES);
    }

    #[test]
    fn sent_batch_returns_its_frames() {
        let mut slab = FrameSlab::new(2);
        let mut batch = TxBatch::new();
        batch.push(slab.take().expect("free"), 342, InterfaceId(0));
        batch.push(slab.take().expect("free"), 342, InterfaceId(1));
        batch.recycle(&mut slab);
        assert_eq!((batch.len(), batch.room(), slab.free_count()), (0, BATCH_MAX, 2));
    }

    #[test]
    fn batch_admits_a_share_and_never_more_than_its_size() {
        let mut batch = RxBatch::new();
        batch.admit(2);
        batch.push(RxFrame::default());
        assert_eq!(batch.room(), 1);
        batch.admit(1000);
        assert_eq!(batch.room(), WINDOW_MAX - 1);
        batch.push(RxFrame { len: 7, ..RxFrame::default() });
        let mut chosen = [false; WINDOW_MAX];
        chosen[1] = true;
        batch.keep(&chosen);
        assert_eq!(batch.frames(), [RxFrame { len: 7, ..RxFrame::default() }]);
        batch.clear();
        assert_eq!((batch.len(), batch.room()), (0, BATCH_MAX));
    }
}
