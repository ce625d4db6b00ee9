//! A port whose arrivals get lost, late and doubled, by a seed: the same seed and the same calls give the same faults.
//!
//! It touches arrivals only; wrap both ends for both directions. Delay is counted in turns (calls of `recv_batch`), so no
//! clock is read. Everything is allocated by `new`: at most [`HELD_MAX`] frames are held at a time, and what would be one more
//! arrives in time.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::BorrowedFd;

use crate::ids::InterfaceId;

use super::{
    BATCH_MAX, FDS_MAX, FRAME_BYTES, FrameSlab, Port, PortStats, RxBatch, RxFrame, SendReport, TxBatch,
};

/// Most frames that are held back at a time.
pub const HELD_MAX: usize = 256;
/// Marks an offset as one of the wrapper's own buffers. Rings are smaller than this.
const OWN: u32 = 1 << 31;

/// How often what goes wrong, each in frames of a thousand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// Lost.
    pub lost_per_mille: u16,
    /// Arriving a second time, some turns later.
    pub doubled_per_mille: u16,
    /// Arriving late.
    pub late_per_mille: u16,
    /// How late at most, in turns; late is at least one turn.
    pub late_turns_max: u16,
}

/// A frame that is held back.
#[derive(Debug)]
struct Held {
    frame: RxFrame,
    /// Its copy among `buffers`.
    buffer: u32,
    due: u64,
}

/// A port with faults on its receiving side.
#[derive(Debug)]
pub struct Faulty<P> {
    inner: P,
    faults: Faults,
    random: u64,
    turn: u64,
    arrived: RxBatch,
    buffers: Box<[u8]>,
    free: Vec<u32>,
    held: Vec<Held>,
    lent: Vec<u32>,
}

impl<P: Port> Faulty<P> {
    /// Wraps `inner`.
    #[must_use]
    pub fn new(inner: P, faults: Faults, seed: u64) -> Self {
        let count = HELD_MAX + BATCH_MAX;
        Self {
            inner,
            faults,
            random: seed,
            turn: 0,
            arrived: RxBatch::new(),
            buffers: vec![0; count * FRAME_BYTES].into_boxed_slice(),
            free: (0..u32::try_from(count).expect("a constant")).collect(),
            held: Vec::with_capacity(HELD_MAX),
            lent: Vec::with_capacity(count),
        }
    }

    /// Changes what goes wrong from now on.
    pub const fn set_faults(&mut self, faults: Faults) {
        self.faults = faults;
    }

    /// Whether an event of this frequency happens now (splitmix64).
    fn happens(&mut self, per_mille: u16) -> bool {
        self.next() % 1000 < u64::from(per_mille)
    }

    fn next(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Keeps a copy of an arrived frame for a later turn; false when there is no room.
    fn hold(&mut self, frame: RxFrame) -> bool {
        if self.held.len() == HELD_MAX {
            return false;
        }
        let Some(buffer) = self.free.pop() else { return false };
        let late = 1 + self.next() % u64::from(self.faults.late_turns_max.max(1));
        let start = Self::start(buffer);
        let bytes = self.inner.bytes(&frame);
        self.buffers[start..start + bytes.len()].copy_from_slice(bytes);
        self.held.push(Held {
            frame: RxFrame { offset: OWN | buffer, ..frame },
            buffer,
            due: self.turn + late,
        });
        true
    }

    fn start(buffer: u32) -> usize {
        usize::try_from(buffer).expect("32 bits fit") * FRAME_BYTES
    }
}

impl<P: Port> Port for Faulty<P> {
    fn interface(&self) -> InterfaceId {
        self.inner.interface()
    }

    fn recv_batch(&mut self, batch: &mut RxBatch) -> io::Result<usize> {
        self.turn += 1;
        let start = batch.len();
        let mut position = 0;
        while position < self.held.len() && batch.room() > 0 {
            if self.held[position].due <= self.turn {
                let held = self.held.remove(position);
                self.lent.push(held.buffer);
                batch.push(held.frame);
            } else {
                position += 1;
            }
        }
        self.arrived.clear();
        self.arrived.admit(batch.room());
        let received = self.inner.recv_batch(&mut self.arrived);
        for index in 0..self.arrived.len() {
            let frame = self.arrived.frames()[index];
            if self.happens(self.faults.lost_per_mille) {
                continue;
            }
            if self.happens(self.faults.doubled_per_mille) {
                self.hold(frame);
            }
            if !(self.happens(self.faults.late_per_mille) && self.hold(frame)) {
                batch.push(frame);
            }
        }
        received?;
        Ok(batch.len() - start)
    }

    fn bytes(&self, frame: &RxFrame) -> &[u8] {
        if frame.offset & OWN == 0 {
            return self.inner.bytes(frame);
        }
        let buffer = frame.offset & !OWN;
        assert!(self.lent.contains(&buffer), "a frame is read before it is recycled");
        let start = Self::start(buffer);
        &self.buffers[start..start + usize::from(frame.len)]
    }

    fn recycle(&mut self) {
        self.free.append(&mut self.lent);
        self.inner.recycle();
    }

    fn is_ready(&self) -> bool {
        !self.held.is_empty() || self.inner.is_ready()
    }

    fn is_crowded(&self) -> bool {
        self.inner.is_crowded()
    }

    fn send_batch(&mut self, batch: &TxBatch, slab: &FrameSlab) -> SendReport {
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

    /// What arrives, turn by turn, of 1000 numbered frames sent ten a turn.
    fn run(faults: Faults, seed: u64) -> Vec<Vec<u16>> {
        let (mut far, near) = MemoryPort::pair(InterfaceId(0), InterfaceId(0), 64);
        let mut port = Faulty::new(near, faults, seed);
        let mut batch = RxBatch::new();
        let mut turns = Vec::new();
        let mut number = 0_u16;
        while number < 1000 || port.is_ready() {
            for _ in 0..10 {
                if number < 1000 {
                    assert!(far.inject(&number.to_be_bytes(), RxFlags::default()));
                    number += 1;
                }
            }
            port.recv_batch(&mut batch).expect("memory does not fail");
            let read = |frame| <[u8; 2]>::try_from(port.bytes(frame)).map(u16::from_be_bytes);
            turns.push(batch.frames().iter().map(|frame| read(frame).expect("two bytes")).collect());
            batch.clear();
            port.recycle();
        }
        turns
    }

    #[test]
    fn without_faults_everything_arrives_in_order() {
        let seen: Vec<u16> = run(Faults::default(), 1).concat();
        assert_eq!(seen, (0..1000).collect::<Vec<_>>());
    }

    #[test]
    fn same_seed_gives_the_same_faults() {
        let faults =
            Faults { lost_per_mille: 100, doubled_per_mille: 50, late_per_mille: 200, late_turns_max: 7 };
        assert_eq!(run(faults, 42), run(faults, 42));
        assert_ne!(run(faults, 42), run(faults, 43));
    }

    #[test]
    fn lost_is_lost_and_doubled_comes_twice() {
        let lost = run(Faults { lost_per_mille: 300, ..Faults::default() }, 7).concat();
        assert!((600..800).contains(&lost.len()), "{} of 1000 arrived", lost.len());
        assert!(lost.is_sorted_by(|a, b| a < b), "the rest in order, once");

        let faults = Faults { doubled_per_mille: 300, late_turns_max: 3, ..Faults::default() };
        let mut doubled = run(faults, 7).concat();
        assert!((1200..1400).contains(&doubled.len()), "{} arrived", doubled.len());
        doubled.sort_unstable();
        doubled.dedup();
        assert_eq!(doubled.len(), 1000, "none is missing");
    }

    #[test]
    fn late_is_late_by_at_most_so_many_turns() {
        let faults = Faults { late_per_mille: 500, late_turns_max: 4, ..Faults::default() };
        let turns = run(faults, 9);
        let mut late = 0;
        for (turn, seen) in turns.iter().enumerate() {
            for number in seen {
                let delay = turn - usize::from(*number) / 10;
                assert!(delay <= 4);
                late += usize::from(delay > 0);
            }
        }
        assert_eq!(turns.concat().len(), 1000);
        assert!((400..600).contains(&late), "{late} were late");
    }
}
