//! All ports of one shard: a fair share of each batch for every interface, replies out of the right one, and sleep.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::ids::InterfaceId;

use super::sys::PollSet;
use super::{
    Doorbell, FDS_MAX, FrameSlab, PORTS_MAX, Port, RxBatch, RxFrame, SendReport, TxBatch, WINDOW_MAX,
};

/// The ports of one shard. Belongs to the shard's thread; allocates in `new` alone.
#[derive(Debug)]
pub struct PortSet<P> {
    ports: Vec<P>,
    /// The port that is asked first in the next turn.
    first: usize,
    doorbell: Arc<Doorbell>,
    poll: PollSet,
}

impl<P: Port> PortSet<P> {
    /// A set without ports, whose sleep `doorbell` ends.
    #[must_use]
    pub fn new(doorbell: Arc<Doorbell>) -> Self {
        Self {
            ports: Vec::with_capacity(PORTS_MAX),
            first: 0,
            doorbell,
            poll: PollSet::with_capacity(FDS_MAX * PORTS_MAX + 1),
        }
    }

    /// Adds a port, or gives it back when there are [`PORTS_MAX`] already.
    ///
    /// # Errors
    /// The port itself, when the set is full.
    ///
    /// # Panics
    /// When the set has a port for that interface already: the control thread removes it first.
    pub fn add(&mut self, port: P) -> Result<(), P> {
        assert!(self.port(port.interface()).is_none(), "one port per interface and shard");
        if self.ports.len() == PORTS_MAX {
            return Err(port);
        }
        self.ports.push(port);
        Ok(())
    }

    /// Takes the port of an interface out, for the control thread to close. No batch may be under way.
    pub fn remove(&mut self, interface: InterfaceId) -> Option<P> {
        let position = self.ports.iter().position(|port| port.interface() == interface)?;
        self.first = 0;
        Some(self.ports.swap_remove(position))
    }

    /// The port of an interface.
    #[must_use]
    pub fn port(&self, interface: InterfaceId) -> Option<&P> {
        self.ports.iter().find(|port| port.interface() == interface)
    }

    /// All ports, to read their counters or set their addresses.
    pub fn ports_mut(&mut self) -> &mut [P] {
        &mut self.ports
    }

    /// The bell that ends this set's sleep.
    #[must_use]
    pub const fn doorbell(&self) -> &Arc<Doorbell> {
        &self.doorbell
    }

    /// Fills an empty `batch` with what has arrived. Each port gets an equal share first, and what others leave free
    /// second; the turn rotates, so that a flood on one interface does not starve the others. A port that fails is
    /// passed over; the link monitor removes it.
    pub fn recv(&mut self, batch: &mut RxBatch) -> usize {
        debug_assert!(batch.is_empty(), "a batch is recycled before it is filled again");
        let count = self.ports.len();
        if count == 0 {
            return 0;
        }
        self.first = (self.first + 1) % count;
        if count == 1 {
            batch.admit(super::BATCH_MAX - batch.len());
            self.recv_from(0, batch);
            return batch.len();
        }
        for round in 0..2 {
            for turn in 0..count {
                let position = (self.first + turn) % count;
                batch.admit(super::BATCH_MAX - batch.len());
                let share = if round == 0 { batch.room().div_ceil(count - turn) } else { batch.room() };
                if share == 0 {
                    return batch.len();
                }
                batch.admit(share);
                self.recv_from(position, batch);
            }
        }
        batch.len()
    }

    /// Whether a port holds at least half of what it can.
    pub fn is_crowded(&self) -> bool {
        self.ports.iter().any(Port::is_crowded)
    }

    /// Adds to a full batch what else waits in crowded ports, an equal share of [`WINDOW_MAX`] frames from each.
    pub fn widen(&mut self, batch: &mut RxBatch) -> usize {
        let mut left = self.ports.iter().filter(|port| port.is_crowded()).count();
        for position in 0..self.ports.len() {
            if left > 0 && self.ports[position].is_crowded() {
                batch.admit((WINDOW_MAX - batch.len()) / left);
                self.recv_from(position, batch);
                left -= 1;
            }
        }
        batch.len()
    }

    fn recv_from(&mut self, position: usize, batch: &mut RxBatch) {
        let start = batch.len();
        // An error here is one that every later call repeats until the link monitor removes the port; the port counts it.
        let _ = self.ports[position].recv_batch(batch);
        batch.stamp_port(start, u8::try_from(position).expect("PORTS_MAX fits 8 bits"));
    }

    /// The bytes of a frame of the current batch.
    ///
    /// # Panics
    /// When `frame` is of an earlier batch.
    #[must_use]
    pub fn bytes(&self, frame: &RxFrame) -> &[u8] {
        self.ports[usize::from(frame.port)].bytes(frame)
    }

    /// Ends a turn: all slots go back to the kernel, the batch is empty.
    pub fn recycle(&mut self, batch: &mut RxBatch) {
        if !batch.is_empty() {
            batch.clear();
        }
        for port in &mut self.ports {
            port.recycle();
        }
    }

    /// Sends every frame of `batch` through the port of its interface and gives all frames back to `slab`, sent or not.
    pub fn send(&mut self, batch: &mut TxBatch, slab: &mut FrameSlab) -> SendReport {
        let mut report = SendReport::default();
        if batch.is_empty() {
            return report;
        }
        for port in &mut self.ports {
            let own = port.interface();
            if batch.frames().iter().any(|sent| sent.interface == own) {
                report.add(&port.send_batch(batch, slab));
            }
        }
        let tried = report.sent + report.full + report.failed;
        // An interface that vanished between query and reply has no port any more.
        report.failed += u32::try_from(batch.len()).expect("a batch is small") - tried;
        batch.recycle(slab);
        report
    }

    /// Sleeps as [`Self::wait`] does, but lets frames wait in their rings: for a shard whose frames are in no hurry.
    ///
    /// # Errors
    /// As [`Self::wait`].
    pub fn rest(&mut self, timeout: Duration, has_work: impl FnOnce() -> bool) -> io::Result<()> {
        self.doorbell.lie_down();
        if has_work() {
            self.doorbell.get_up(false);
            return Ok(());
        }
        self.poll.clear();
        self.poll.push(Some(self.doorbell.fd()));
        let slept = self.poll.wait(timeout);
        self.doorbell.get_up(self.poll.is_readable(0));
        slept.map(|_| ())
    }

    /// Sleeps for `time` whatever comes. Nobody need ring meanwhile.
    ///
    /// # Errors
    /// As [`Self::wait`].
    pub fn nap(&mut self, time: Duration) -> io::Result<()> {
        self.poll.clear();
        self.poll.wait(time)
    }

    /// Sleeps until a frame arrives, the bell rings or `timeout` is over. `has_work` is asked once after the sleep was
    /// announced: whatever it looks at, its producers ring the bell after they have changed it.
    ///
    /// # Errors
    /// When the kernel cannot poll (out of memory).
    pub fn wait(&mut self, timeout: Duration, has_work: impl FnOnce() -> bool) -> io::Result<()> {
        if self.ports.iter().any(Port::is_ready) {
            return Ok(());
        }
        self.doorbell.lie_down();
        if has_work() || self.ports.iter().any(Port::is_ready) {
            self.doorbell.get_up(false);
            return Ok(());
        }
        self.poll.clear();
        self.poll.push(Some(self.doorbell.fd()));
        for port in &self.ports {
            for fd in port.fds() {
                self.poll.push(fd);
            }
        }
        let slept = self.poll.wait(timeout);
        self.doorbell.get_up(self.poll.is_readable(0));
        slept?;
        for (position, port) in self.ports.iter_mut().enumerate() {
            let mut fds = FDS_MAX * position + 1..=FDS_MAX * (position + 1);
            if fds.any(|fd| self.poll.is_in_error(fd)) {
                // Reading the error clears it; without that every later sleep would end at once.
                port.take_error();
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::{BATCH_MAX, MemoryPort, RxFlags};
    use super::*;

    fn set_of(count: u16) -> (PortSet<MemoryPort>, Vec<MemoryPort>) {
        let mut set = PortSet::new(Arc::new(Doorbell::new().expect("an eventfd")));
        let mut far = Vec::new();
        for id in 0..count {
            let (near, mut other) = MemoryPort::pair(InterfaceId(id), InterfaceId(id), 256);
            other.rings(Arc::clone(set.doorbell()));
            set.add(near).expect("there is room");
            far.push(other);
        }
        (set, far)
    }

    fn turn(set: &mut PortSet<MemoryPort>) -> Vec<(u16, Vec<u8>)> {
        let mut batch = RxBatch::new();
        set.recv(&mut batch);
        let seen =
            batch.frames().iter().map(|frame| (frame.interface.0, set.bytes(frame).to_vec())).collect();
        set.recycle(&mut batch);
        assert!(batch.is_empty());
        seen
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "it is time that is tested")]
    fn rest_is_ended_by_the_bell_or_by_work_and_not_by_frames() {
        let (mut set, mut far) = set_of(1);
        assert!(far[0].inject(b"x", RxFlags::default()));
        let began = std::time::Instant::now();
        set.rest(Duration::from_millis(40), || false).expect("polled");
        assert!(began.elapsed() >= Duration::from_millis(30), "the frame may wait");
        assert_eq!(turn(&mut set).len(), 1, "and is there");
        set.rest(Duration::from_secs(600), || true).expect("polled");
        let (bell, ended) = (Arc::clone(set.doorbell()), std::sync::atomic::AtomicBool::new(false));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !ended.load(std::sync::atomic::Ordering::Relaxed) {
                    bell.ring();
                    std::thread::yield_now();
                }
            });
            set.rest(Duration::from_secs(600), || false).expect("polled");
            ended.store(true, std::sync::atomic::Ordering::Relaxed);
        });
    }

    #[test]
    fn flooded_interface_leaves_others_their_share() {
        let (mut set, mut far) = set_of(3);
        for number in 0..200_u8 {
            assert!(far[0].inject(&[number], RxFlags::default()));
        }
        assert!(far[1].inject(b"one", RxFlags::default()));
        assert!(far[2].inject(b"two", RxFlags::default()));
        let first = turn(&mut set);
        assert_eq!(first.len(), BATCH_MAX, "what the others leave free is used");
        assert!(first.contains(&(1, b"one".to_vec())) && first.contains(&(2, b"two".to_vec())));
        let flood: Vec<u8> = first.iter().filter(|(id, _)| *id == 0).map(|(_, bytes)| bytes[0]).collect();
        assert_eq!(flood, (0..62).collect::<Vec<u8>>(), "in order of arrival");
        assert_eq!(turn(&mut set).len(), BATCH_MAX);
    }

    #[test]
    fn every_flooded_interface_gets_an_equal_share() {
        let (mut set, mut far) = set_of(4);
        for port in &mut far {
            for _ in 0..100 {
                assert!(port.inject(b"x", RxFlags::default()));
            }
        }
        let seen = turn(&mut set);
        for id in 0..4 {
            assert_eq!(seen.iter().filter(|(interface, _)| *interface == id).count(), BATCH_MAX / 4);
        }
    }

    #[test]
    fn reply_leaves_from_the_interface_it_names() {
        let (mut set, mut far) = set_of(2);
        let mut slab = FrameSlab::new(8);
        let mut batch = TxBatch::new();
        for id in [1_u16, 0, 1, 7] {
            let frame = slab.take().expect("free");
            slab.bytes_mut(&frame)[0] = u8::try_from(id).expect("small");
            batch.push(frame, 1, InterfaceId(id));
        }
        let report = set.send(&mut batch, &mut slab);
        assert_eq!(report, SendReport { sent: 3, full: 0, failed: 1, errno: 0 }, "7 is no interface of ours");
        assert_eq!(slab.free_count(), 8, "all frames are back");
        assert_eq!(far[0].eject(<[u8]>::to_vec), Some(vec![0]));
        assert_eq!(far[1].eject(<[u8]>::to_vec), Some(vec![1]));
        assert_eq!(far[1].eject(<[u8]>::to_vec), Some(vec![1]));
        assert_eq!(far[1].eject(<[u8]>::to_vec), None);
    }

    #[test]
    fn full_far_end_is_counted_and_recovers() {
        let (mut near, mut far) = MemoryPort::pair(InterfaceId(0), InterfaceId(0), 2);
        assert!(near.inject(b"a", RxFlags::default()) && near.inject(b"b", RxFlags::default()));
        assert!(!near.inject(b"c", RxFlags::default()));
        assert_eq!(far.eject(<[u8]>::to_vec), Some(b"a".to_vec()));
        assert!(near.inject(b"c", RxFlags::default()));
    }

    #[test]
    fn sleeper_is_woken_by_work_however_it_races_with_the_sleep() {
        let (mut set, mut far) = set_of(1);
        let mut port = far.pop().expect("one end");
        let sender = std::thread::spawn(move || {
            for number in 0..5000_u32 {
                // One frame at a time: the next one leaves when the far end has answered the last.
                assert!(port.inject(&number.to_be_bytes(), RxFlags::default()));
                while port.eject(|_| ()).is_none() {
                    std::hint::spin_loop();
                }
            }
        });
        let mut slab = FrameSlab::new(1);
        let mut batch = RxBatch::new();
        let mut answers = TxBatch::new();
        let mut seen = 0;
        while seen < 5000 {
            // A lost ring would show as a sleep of a minute.
            set.wait(Duration::from_secs(60), || false).expect("poll works");
            if set.recv(&mut batch) > 0 {
                seen += 1;
                answers.push(slab.take().expect("free"), 4, InterfaceId(0));
                set.send(&mut answers, &mut slab);
            }
            set.recycle(&mut batch);
        }
        sender.join().expect("the far end ends well");
    }

    #[test]
    fn work_that_came_before_the_sleep_prevents_it() {
        let (mut set, _far) = set_of(1);
        set.wait(Duration::from_secs(60), || true).expect("poll works");
        set.doorbell().ring();
        set.wait(Duration::from_millis(1), || false).expect("a ring to nobody costs nothing");
    }

    #[test]
    #[should_panic(expected = "recycled")]
    fn frame_of_an_earlier_turn_is_a_bug() {
        let (mut set, mut far) = set_of(1);
        assert!(far[0].inject(b"x", RxFlags::default()));
        let mut batch = RxBatch::new();
        set.recv(&mut batch);
        let stale = batch.frames()[0];
        set.recycle(&mut batch);
        let _ = set.bytes(&stale);
    }
}
