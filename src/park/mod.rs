//! Replies that wait until what they promise is safe: on disk, at the partner.
//!
//! A reply is parked with the log position of the row it depends on and the [`Gate`] it waits for. Each turn the shard reads
//! the watermarks and takes out, in order, what they cover. Replies that wait for the disk alone have a queue of their own, so that a
//! partner that is slow does not hold them; each queue has its bound, and a full one sheds.
//!
//! The awaited peers are the business of the HA state, which may change while replies wait: each release says which marks count
//! now. A peer's watermark is contiguous (everything at or below it is answered, one way or the other); an update that the
//! peer refused is told by [`Park::fail`] before the watermark passes it. So in each turn the shard first reads the
//! watermarks, then takes in the failures, then releases by what it has read.
//!
//! Promises: no allocation after construction, no panic on any order of calls. Owned by one shard. Nothing here is DHCPv4:
//! a reply is whatever token of a frame the shard uses.
//! Follows `parked-packet-limit` and the parking of Kea's HA hook.

use std::collections::VecDeque;

use crate::ids::{LeaseRef, Lsn, PeerId};

/// Most replies of a shard that wait for the disk alone.
pub const DISK_COUNT_MAX: usize = 65_536;
/// Most peers that a reply can wait for.
pub const PEERS_MAX: usize = 31;

/// What a reply waits for: bit 0 the disk, bit 1 + n the peer n.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Gate(u32);

impl Gate {
    /// Nothing: the reply leaves in the next release.
    pub const OPEN: Self = Self(0);
    /// The disk.
    pub const DISK: Self = Self(1);
    /// The disk and every peer there may be: a release under this keeps to what each reply was parked with.
    pub const ALL: Self = Self(u32::MAX);

    /// The same and a peer; a peer beyond [`PEERS_MAX`] changes nothing.
    #[must_use]
    pub const fn and_peer(self, peer: PeerId) -> Self {
        Self(self.0 | Self::peer(peer).0)
    }

    const fn peer(peer: PeerId) -> Self {
        if (peer.0 as usize) < PEERS_MAX { Self(2 << peer.0) } else { Self(0) }
    }

    /// What is in either.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// What is in both.
    #[must_use]
    pub const fn of(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Whether a peer is in it.
    #[must_use]
    pub const fn awaits_peers(self) -> bool {
        self.0 & !Self::DISK.0 != 0
    }

    /// Whether this peer is in it.
    #[must_use]
    pub const fn awaits(self, peer: PeerId) -> bool {
        self.of(Self::peer(peer)).0 != 0
    }

    /// It as a number, for a cell that threads share.
    #[must_use]
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// What [`Self::bits`] was of.
    #[must_use]
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    /// Whether nothing is in it.
    #[must_use]
    pub const fn is_open(self) -> bool {
        self.0 == 0
    }
}

/// What one shard has read of its watermarks in this turn.
#[derive(Clone, Copy, Debug)]
pub struct Marks {
    marks: [Lsn; PEERS_MAX + 1],
}

impl Default for Marks {
    fn default() -> Self {
        Self { marks: [Lsn(0); PEERS_MAX + 1] }
    }
}

impl Marks {
    /// Sets the durable position.
    pub fn set_disk(&mut self, lsn: Lsn) {
        self.marks[0] = lsn;
    }

    /// Sets what a peer has answered; a peer beyond [`PEERS_MAX`] is ignored.
    pub fn set_peer(&mut self, peer: PeerId, lsn: Lsn) {
        if let Some(mark) = self.marks[1..].get_mut(usize::from(peer.0)) {
            *mark = lsn;
        }
    }

    /// What a peer has answered; 0 for one beyond [`PEERS_MAX`].
    #[must_use]
    pub fn peer(&self, peer: PeerId) -> Lsn {
        self.marks[1..].get(usize::from(peer.0)).copied().unwrap_or_default()
    }

    /// The durable position.
    #[must_use]
    pub const fn disk(&self) -> Lsn {
        self.marks[0]
    }

    /// Whether `gate` is open for what depends on `lsn`.
    #[must_use]
    pub fn cover(&self, gate: Gate, lsn: Lsn) -> bool {
        let mut left = gate.0;
        while left != 0 {
            if self.marks[left.trailing_zeros() as usize] < lsn {
                return false;
            }
            left &= left - 1;
        }
        true
    }
}

/// The queue is full; the reply comes back to be dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full<F> {
    /// The reply that found no room.
    pub frame: F,
    /// Whether it is the bound on replies that wait for peers (`parked-packet-limit`), not the one on those for the disk.
    pub by_peers: bool,
}

/// A reply taken out of the park.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parked<F> {
    /// The reply.
    pub frame: F,
    /// The lease it is about.
    pub lease: LeaseRef,
    /// The position it waited for.
    pub lsn: Lsn,
}

/// The parked replies of one shard; `F` is a frame's token.
#[derive(Debug)]
pub struct Park<F> {
    disk: Queue<F>,
    peers: Queue<F>,
}

impl<F> Park<F> {
    /// An empty park with room for [`DISK_COUNT_MAX`] replies that wait for the disk alone (or fewer) and
    /// `peers_count_max` that wait for peers. Allocates.
    #[must_use]
    pub fn new(disk_count_max: usize, peers_count_max: usize) -> Self {
        Self { disk: Queue::new(disk_count_max.min(DISK_COUNT_MAX)), peers: Queue::new(peers_count_max) }
    }

    /// Changes the bound on replies that wait for peers, at most to what was given at construction. Those that are parked stay.
    pub fn set_peers_count_max(&mut self, peers_count_max: usize) {
        self.peers.count_max = peers_count_max.min(self.peers.entries.capacity());
    }

    /// Replies parked for the disk alone.
    #[must_use]
    pub const fn disk_count(&self) -> usize {
        self.disk.live
    }

    /// Replies parked for peers.
    #[must_use]
    pub const fn peers_count(&self) -> usize {
        self.peers.live
    }

    /// Whether a reply that needs `gate` would find room: asked before its row is written.
    #[must_use]
    pub fn has_room(&self, gate: Gate) -> bool {
        let queue = if gate.awaits_peers() { &self.peers } else { &self.disk };
        queue.has_room()
    }

    /// Parks `frame` until `gate` is open for `lsn`.
    ///
    /// # Errors
    /// [`Full`] with the frame.
    pub fn park(&mut self, frame: F, lsn: Lsn, gate: Gate, lease: LeaseRef) -> Result<(), Full<F>> {
        let by_peers = gate.awaits_peers();
        let queue = if by_peers { &mut self.peers } else { &mut self.disk };
        queue.push(frame, lsn, gate, lease).map_err(|frame| Full { frame, by_peers })
    }

    /// Takes out every reply whose turn has come: in the order of parking, per queue, as long as `marks` cover what it waits for,
    /// counting only what `awaited` names (the disk always counts).
    pub fn release(&mut self, marks: &Marks, awaited: Gate, mut leave: impl FnMut(Parked<F>)) {
        let awaited = Gate(awaited.0 | Gate::DISK.0);
        self.disk.release(marks, awaited, &mut leave);
        self.peers.release(marks, awaited, &mut leave);
    }

    /// What the next reply to leave waits for, counting only what `awaited` names: the position of the first that waits for the disk alone,
    /// position and gate of the first that waits for peers.
    #[must_use]
    pub fn first(&self, awaited: Gate) -> (Option<Lsn>, Option<(Lsn, Gate)>) {
        let awaited = awaited.and(Gate::DISK);
        let peers = self.peers.first().map(|entry| (entry.lsn, entry.gate.of(awaited)));
        (self.disk.first().map(|entry| entry.lsn), peers)
    }

    /// Takes out the replies that depend on `lsn` and wait for `peer`, which has refused it: they are dropped, and their leases
    /// marked ([`crate::lease::table::LeaseTable::mark_uncacheable`]).
    pub fn fail(&mut self, lsn: Lsn, peer: PeerId, dropped: impl FnMut(Parked<F>)) {
        self.peers.take_out(lsn, |entry| entry.gate.awaits(peer), dropped);
    }

    /// Takes out everything that waits for peers: when service ends.
    pub fn drain_peers(&mut self, mut dropped: impl FnMut(Parked<F>)) {
        self.peers.drain(&mut dropped);
    }

    /// Takes out everything.
    pub fn drain(&mut self, mut dropped: impl FnMut(Parked<F>)) {
        self.disk.drain(&mut dropped);
        self.peers.drain(&mut dropped);
    }
}

#[derive(Debug)]
struct Queue<F> {
    entries: VecDeque<Entry<F>>,
    count_max: usize,
    /// Entries with a frame.
    live: usize,
    /// Live entries that joined: parked for an older position than one before them.
    joined: usize,
}

#[derive(Debug)]
struct Entry<F> {
    /// Nothing once it was taken out.
    frame: Option<F>,
    lsn: Lsn,
    /// The highest position so far: sorted, unlike `lsn`.
    order: Lsn,
    gate: Gate,
    lease: LeaseRef,
}

impl<F> Entry<F> {
    fn is_joined(&self) -> bool {
        self.lsn < self.order
    }
}

impl<F> Queue<F> {
    fn new(count_max: usize) -> Self {
        Self { entries: VecDeque::with_capacity(count_max), count_max, live: 0, joined: 0 }
    }

    /// Taken-out entries in the middle still hold their places.
    fn has_room(&self) -> bool {
        self.entries.len() < self.count_max
    }

    fn push(&mut self, frame: F, lsn: Lsn, gate: Gate, lease: LeaseRef) -> Result<(), F> {
        if !self.has_room() {
            return Err(frame);
        }
        let order = self.entries.back().map_or(lsn, |last| last.order.max(lsn));
        let entry = Entry { frame: Some(frame), lsn, order, gate, lease };
        self.live += 1;
        self.joined += usize::from(entry.is_joined());
        self.entries.push_back(entry);
        Ok(())
    }

    /// The first entry that has not been taken out.
    fn first(&self) -> Option<&Entry<F>> {
        self.entries.iter().find(|entry| entry.frame.is_some())
    }

    fn release(&mut self, marks: &Marks, awaited: Gate, leave: &mut impl FnMut(Parked<F>)) {
        while let Some(entry) = self
            .entries
            .pop_front_if(|entry| entry.frame.is_none() || marks.cover(entry.gate.of(awaited), entry.lsn))
        {
            self.hand_over(entry, leave);
        }
    }

    fn drain(&mut self, dropped: &mut impl FnMut(Parked<F>)) {
        while let Some(entry) = self.entries.pop_front() {
            self.hand_over(entry, dropped);
        }
    }

    fn hand_over(&mut self, entry: Entry<F>, to: &mut impl FnMut(Parked<F>)) {
        let joined = entry.is_joined();
        if let Some(frame) = entry.frame {
            self.live -= 1;
            self.joined -= usize::from(joined);
            to(Parked { frame, lease: entry.lease, lsn: entry.lsn });
        }
    }

    /// Takes out the entries for `lsn` that `which` names. Positions are sorted except for the joined ones, so this looks at the run of
    /// this position and goes further only while joined entries may follow.
    fn take_out(&mut self, lsn: Lsn, which: impl Fn(&Entry<F>) -> bool, mut dropped: impl FnMut(Parked<F>)) {
        let from = self.entries.partition_point(|entry| entry.order < lsn);
        for entry in self.entries.range_mut(from..) {
            if entry.order > lsn && self.joined == 0 {
                return;
            }
            if entry.lsn == lsn && which(entry) {
                let joined = entry.is_joined();
                if let Some(frame) = entry.frame.take() {
                    self.live -= 1;
                    self.joined -= usize::from(joined);
                    dropped(Parked { frame, lease: entry.lease, lsn: entry.lsn });
                }
            }
        }
    }
}
