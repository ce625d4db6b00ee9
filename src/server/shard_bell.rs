//! When a shard that sleeps is woken for a watermark: once all that the first of its parked replies waits for is there. Else a reply that
//! waits for disk and peers would wake its shard once for each of them, to be sent by the last one alone.
//!
//! The shard says what it waits for, announces its sleep and looks at the marks once more; whoever moves a mark looks at what the shard
//! waits for after that, and at the other marks. Whatever the order, the shard sees the mark or the mover sees what it needs, and of two
//! marks that move at once at least one mover sees both.
//!
//! Promises: no lock, no allocation after construction; any thread may ring, the shard alone says what it waits for.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

use crate::ids::{Lsn, PeerId};
use crate::net::Doorbell;
use crate::park::Gate;
use crate::sync::Watermark;

/// Nothing waits.
const NOTHING: u64 = u64::MAX;

/// A shard's bell, its watermarks, and what it sleeps for.
#[derive(Debug)]
pub struct ShardBell {
    bell: Arc<Doorbell>,
    durable: Arc<Watermark>,
    acked: Vec<(PeerId, Arc<Watermark>)>,
    /// The lowest position that waits for the disk alone.
    disk: AtomicU64,
    /// The first reply that waits for peers: its position and its gate.
    lsn: AtomicU64,
    gate: AtomicU32,
}

impl ShardBell {
    /// A bell for a shard whose replies wait for these marks.
    #[must_use]
    pub const fn new(
        bell: Arc<Doorbell>,
        durable: Arc<Watermark>,
        acked: Vec<(PeerId, Arc<Watermark>)>,
    ) -> Self {
        let (disk, lsn, gate) = (AtomicU64::new(NOTHING), AtomicU64::new(NOTHING), AtomicU32::new(0));
        Self { bell, durable, acked, disk, lsn, gate }
    }

    /// What the log thread has made durable.
    #[must_use]
    pub fn durable(&self) -> Lsn {
        self.durable.read()
    }

    /// What each peer has answered.
    pub fn acked(&self) -> impl Iterator<Item = (PeerId, Lsn)> {
        self.acked.iter().map(|(peer, mark)| (*peer, mark.read()))
    }

    /// Wakes the shard if it sleeps: there is something to do.
    pub fn ring(&self) {
        self.bell.ring();
    }

    /// A mark has moved: wakes the shard if it sleeps and that was the last one it needed.
    pub fn mark_moved(&self) {
        fence(Ordering::SeqCst);
        if self.bell.has_sleeper() && self.is_due() {
            self.bell.ring();
        }
    }

    /// Before it announces its sleep, the shard says what it will wait for: the lowest position that needs the disk alone, and the
    /// first reply for peers.
    pub fn sleep_for(&self, disk: Option<Lsn>, peers: Option<(Lsn, Gate)>) {
        self.disk.store(disk.map_or(NOTHING, |lsn| lsn.0), Ordering::Relaxed);
        let (lsn, gate) = peers.map_or((NOTHING, Gate::OPEN), |(lsn, gate)| (lsn.0, gate));
        self.lsn.store(lsn, Ordering::Relaxed);
        self.gate.store(gate.bits(), Ordering::Relaxed);
    }

    /// Whether the marks cover anything that the shard waits for.
    #[must_use]
    pub fn is_due(&self) -> bool {
        let (durable, lsn) = (self.durable.read(), self.lsn.load(Ordering::Relaxed));
        if self.disk.load(Ordering::Relaxed) <= durable.0 {
            return true;
        }
        if lsn == NOTHING || durable.0 < lsn {
            return false;
        }
        let gate = Gate::from_bits(self.gate.load(Ordering::Relaxed));
        self.acked.iter().all(|(peer, mark)| !gate.awaits(*peer) || mark.read().0 >= lsn)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;
    use std::time::Duration;

    use super::*;
    use crate::net::{MemoryPort, PortSet};

    fn parts() -> (Arc<ShardBell>, PortSet<MemoryPort>, Arc<Watermark>, Arc<Watermark>) {
        let bell = Arc::new(Doorbell::new().expect("an eventfd"));
        let (durable, acked) = (Arc::new(Watermark::default()), Arc::new(Watermark::default()));
        let peers = vec![(PeerId(3), Arc::clone(&acked))];
        let bell_of_shard = ShardBell::new(Arc::clone(&bell), Arc::clone(&durable), peers);
        (Arc::new(bell_of_shard), PortSet::new(bell), durable, acked)
    }

    #[test]
    fn a_reply_for_disk_and_peer_is_due_when_both_are_there_and_one_for_the_disk_when_that_is() {
        let (bell, _, durable, acked) = parts();
        assert!(!bell.is_due(), "nothing waits");
        let both = Gate::DISK.and_peer(PeerId(3));
        bell.sleep_for(None, Some((Lsn(5), both)));
        durable.publish(Lsn(9));
        assert!(!bell.is_due());
        acked.publish(Lsn(4));
        assert!(!bell.is_due());
        acked.publish(Lsn(5));
        assert!(bell.is_due());
        bell.sleep_for(Some(Lsn(10)), Some((Lsn(6), both)));
        assert!(!bell.is_due());
        durable.publish(Lsn(10));
        assert!(bell.is_due(), "what waits for the disk alone does not wait for the peer");
        bell.sleep_for(None, Some((Lsn(6), Gate::DISK)));
        assert!(bell.is_due(), "the peer is not awaited any more");
    }

    #[test]
    fn no_wake_is_lost_however_the_two_marks_move_and_the_shard_lies_down() {
        const LAST: u64 = 3000;
        let (bell, mut ports, durable, acked) = parts();
        let ended = Arc::new(AtomicBool::new(false));
        let movers: Vec<_> = [durable, acked]
            .into_iter()
            .map(|mark| {
                let (bell, ended) = (Arc::clone(&bell), Arc::clone(&ended));
                std::thread::spawn(move || {
                    // Each waits for the shard to want the next position, then moves on at its own pace.
                    for lsn in 1..=LAST {
                        while bell.lsn.load(Ordering::Acquire) < lsn && !ended.load(Ordering::Relaxed) {
                            std::thread::yield_now();
                        }
                        mark.publish(Lsn(lsn));
                        bell.mark_moved();
                    }
                })
            })
            .collect();
        let gate = Gate::DISK.and_peer(PeerId(3));
        for lsn in 1..=LAST {
            bell.sleep_for(None, Some((Lsn(lsn), gate)));
            while !bell.is_due() {
                // A lost wake would make this test last for ever.
                ports.wait(Duration::from_secs(600), || bell.is_due()).expect("polled");
            }
        }
        ended.store(true, Ordering::Relaxed);
        for mover in movers {
            mover.join().expect("no panic");
        }
    }
}
