//! One shard: a batch in, each stage over the whole batch, answers out; between batches its parked replies, the passing of
//! time, and what the control thread asks of it.
//!
//! ```text
//! recv (choose, when overloaded) -> parse, prefetch bucket -> prefetch record -> decide -> send | park | hand over
//! marks -> release parked -> one step of time -> one step of a command -> sleep when there is nothing
//! ```
//!
//! Promises: [`ShardLoop::turn`] neither allocates nor frees for packets, takes no lock but when the plan has changed, and
//! never blocks. Commands allocate what they answer with. Everything is bounded: batch, frames, park, hand-over ring, orders.

mod batch;
mod hand_over;
mod orders;
mod pace;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use crossbeam::channel::{Receiver, Sender};

use self::batch::{Parsed, Stage};
pub use self::hand_over::{Crossing, HAND_OVER_SLOTS, HandOver};
pub use self::orders::{Event, ORDERS_MAX, Order};
use self::pace::{NAP, Pace};
use super::admission::{Admission, Glance};
use super::ha::links::Refusal;
use super::pairs::{HaPart, Pairs};
use super::sampler::Sampler;
use super::shard_bell::ShardBell;
use crate::control::log::SampleQueue;
use crate::exchange::allocators::Allocators;
use crate::exchange::reclaim::{Cycles, Reclaims};
use crate::exchange::request::Job;
use crate::exchange::serving::Serving;
use crate::exchange::stats::INTERFACES_COUNTED;
use crate::exchange::{Outcome, Shard};
use crate::ids::{InterfaceId, Lsn, ShardId};
use crate::lease::address::Owner;
use crate::net::{BATCH_MAX, Frame, FrameSlab, Port, PortSet, PortStats, RxBatch, TxBatch, WINDOW_MAX};
use crate::park::{Gate, Marks, Park};
use crate::sync::PlanCell;
use crate::time::Now;
use crate::wire::codes::MessageType;
use crate::wire::dhcp4::Head;
use crate::wire::drop::DropReason;
use crate::wire::frame::Datagram;
use crate::wire::option::OptionTable;

/// How long frames wait for a shard that serves nobody: short enough for a ring of frames, and for clients whom it is to serve next.
const STANDBY_REST: Duration = Duration::from_millis(1);

/// What all shards read, once per batch.
pub struct Shared {
    /// The plan that is served.
    pub serving: PlanCell<Serving>,
    /// The allocators that go with the plan, one place per shard: taken once by each.
    pub allocators: Vec<parking_lot::Mutex<Option<Allocators>>>,
    /// Whether clients are served at all.
    pub enabled: AtomicBool,
    /// Packets to be told of.
    pub samples: Arc<SampleQueue>,
}

/// A reply that waits.
struct Waiting {
    frame: Frame,
    len: u16,
    interface: InterfaceId,
    kind: MessageType,
}

/// The parts that a shard loop is made of.
pub struct ShardParts<P> {
    /// Its exchange.
    pub shard: Shard,
    /// Its ports.
    pub ports: PortSet<P>,
    /// What all shards read.
    pub shared: Arc<Shared>,
    /// Its end of handing over.
    pub crossing: Crossing,
    /// Orders to it.
    pub orders: Receiver<Order<P>>,
    /// Events from it.
    pub events: Sender<Event<P>>,
    /// Wakes the control thread after an event.
    pub wake_control: Box<dyn Fn() + Send>,
    /// Wakes the log thread after changes.
    pub log_bell: crate::store::Doorbell,
    /// Its watermarks, and how those who move them wake it.
    pub bell: Arc<ShardBell>,
    /// The pairs that this server is half of.
    pub pairs: Vec<HaPart>,
    /// Replies that may wait for the disk alone.
    pub park_disk_max: usize,
    /// Replies that may wait for peers.
    pub park_peers_max: usize,
}

/// One shard with everything that it uses.
pub struct ShardLoop<P> {
    id: ShardId,
    shard: Shard,
    ports: PortSet<P>,
    shared: Arc<Shared>,
    serving: Arc<Serving>,
    generation: u64,
    crossing: Crossing,
    orders: Receiver<Order<P>>,
    events: Sender<Event<P>>,
    wake_control: Box<dyn Fn() + Send>,
    log_bell: crate::store::Doorbell,
    bell: Arc<ShardBell>,
    pairs: Pairs,
    rx: RxBatch,
    admission: Admission,
    glances: Box<[Glance; WINDOW_MAX]>,
    tx: TxBatch,
    tx_kinds: [MessageType; BATCH_MAX],
    slab: FrameSlab,
    park: Park<Waiting>,
    parsed: Box<[Parsed]>,
    marks: Marks,
    cycles: Cycles,
    job: Option<(u64, Job)>,
    /// Jobs that look at all leases, the first of them under way.
    long_jobs: VecDeque<(u64, Job)>,
    /// A job waits for room in the log.
    is_held_up: bool,
    wanted: bool,
    /// Frames have come since the last sleep.
    heard: bool,
    pace: Pace,
    logged: Lsn,
    sampler: Sampler,
    /// When the counters of the ports were last told, and those of ports that are gone.
    ports_told_s: u64,
    gone: Box<[PortStats]>,
    stopping: bool,
}

impl<P: Port> ShardLoop<P> {
    /// A loop of these parts. Allocates.
    #[must_use]
    pub fn new(parts: ShardParts<P>) -> Self {
        let serving = parts.shared.serving.load();
        let generation = parts.shared.serving.generation();
        let sampler = Sampler::new(Arc::clone(&parts.shared.samples));
        let frames = parts.park_disk_max + parts.park_peers_max + 2 * BATCH_MAX;
        let mut shard = parts.shard;
        shard.reclaims = vec![Reclaims::ALL; parts.pairs.len()];
        let parsed = (0..=BATCH_MAX)
            .map(|_| Parsed {
                datagram: Datagram::EMPTY,
                options: OptionTable::new(),
                head: Head { message_type: None, has_message_type: false },
                relay: None,
                likely: None,
                state: Stage::Dropped,
            })
            .collect();
        Self {
            id: shard.leases.shard,
            shard,
            ports: parts.ports,
            shared: parts.shared,
            serving,
            generation,
            crossing: parts.crossing,
            orders: parts.orders,
            events: parts.events,
            wake_control: parts.wake_control,
            log_bell: parts.log_bell,
            bell: parts.bell,
            pairs: Pairs::new(parts.pairs),
            rx: RxBatch::new(),
            admission: Admission::new(),
            glances: Box::new([Glance::default(); WINDOW_MAX]),
            tx: TxBatch::new(),
            tx_kinds: [MessageType::Offer; BATCH_MAX],
            slab: FrameSlab::new(u32::try_from(frames).unwrap_or(u32::MAX)),
            park: Park::new(parts.park_disk_max, parts.park_peers_max),
            parsed,
            marks: Marks::default(),
            cycles: Cycles::default(),
            job: None,
            long_jobs: VecDeque::new(),
            is_held_up: false,
            wanted: false,
            heard: false,
            pace: Pace::default(),
            logged: Lsn(0),
            sampler,
            ports_told_s: 0,
            gone: vec![PortStats::default(); INTERFACES_COUNTED].into_boxed_slice(),
            stopping: false,
        }
    }

    /// The exchange, for tests and measurements.
    pub const fn shard(&mut self) -> &mut Shard {
        &mut self.shard
    }

    /// The ports, for tests and measurements.
    pub const fn ports(&mut self) -> &mut PortSet<P> {
        &mut self.ports
    }

    /// Whether the loop has been told to stop.
    #[must_use]
    pub const fn is_stopping(&self) -> bool {
        self.stopping
    }

    /// One turn at `now`, `wall_ns` being the same time in nanoseconds of wall clock. True when there was something to do.
    pub fn turn(&mut self, now: Now, wall_ns: u64) -> bool {
        self.refresh();
        if self.pairs.refresh(&mut self.shard.reclaims) {
            self.shard.untold = Some(self.shard.leases.log.appended());
        }
        self.shard.counters.turned();
        let mut busy = self.receive(now, wall_ns);
        busy |= self.take_over(now);
        busy |= self.obey(now);
        busy |= self.settle();
        let serving = Arc::clone(&self.serving);
        busy |= self.shard.pass_time(&serving, now, &mut self.cycles);
        busy |= self.mind_memory();
        self.flush();
        self.ring_log();
        if now.wall_s != self.ports_told_s {
            self.ports_told_s = now.wall_s;
            self.tell_ports();
        }
        busy
    }

    /// Shows the control thread what the ports have counted: once a second, for it costs a system call each.
    fn tell_ports(&mut self) {
        let rest = INTERFACES_COUNTED - 1;
        let mut others = self.gone[rest];
        for port in self.ports.ports_mut() {
            let (row, stats) = (counted_row(port.interface()), port.stats());
            if row == rest {
                others.add(&stats);
                continue;
            }
            let mut all = self.gone[row];
            all.add(&stats);
            self.shard.counters.ports_counted(row, &all.values());
        }
        self.shard.counters.ports_counted(rest, &others.values());
    }

    /// A port leaves; its counts stay.
    fn let_go(&mut self, mut port: P) {
        let row = counted_row(port.interface());
        self.gone[row].add(&port.stats());
        if row < INTERFACES_COUNTED - 1 {
            self.shard.counters.ports_counted(row, &self.gone[row].values());
        }
        self.tell(Event::Port(port));
    }

    /// Sleeps until something arrives, somebody rings, or `timeout` is over. Where frames come fast, it naps and finds several of them. A
    /// standby that has just heard its partner's clients lets more of them come before it looks: else every frame would wake it to be
    /// dropped.
    ///
    /// # Errors
    /// When the kernel cannot poll.
    pub fn sleep(&mut self, timeout: Duration) -> std::io::Result<()> {
        let heard = std::mem::take(&mut self.heard);
        let serves_nobody = self.pairs.serve_nobody();
        // Nobody rings for room in the log.
        if self.is_held_up || self.pace.is_fast() && !serves_nobody {
            return self.ports.nap(timeout.min(NAP));
        }
        let (disk, peers) = self.park.first(self.pairs.gate());
        let retiring = self.shard.leases.retiring.first();
        let job = self.long_jobs.front().map(|(_, job)| job.awaited());
        self.bell.sleep_for(disk.into_iter().chain(retiring).chain(job).min(), peers);
        let (bell, orders) = (&self.bell, &self.orders);
        let inbox = &self.crossing.inboxes[usize::from(self.id.0)];
        let (shared, generation) = (&self.shared, self.generation);
        let pairs = &self.pairs;
        let has_work = || {
            !orders.is_empty()
                || !inbox.is_empty()
                || shared.serving.generation() != generation
                || pairs.has_news()
                || bell.is_due()
        };
        if heard && serves_nobody {
            self.ports.rest(timeout.min(STANDBY_REST), has_work)
        } else {
            self.ports.wait(timeout, has_work)
        }
    }

    /// Takes the new plan when there is one.
    fn refresh(&mut self) {
        let generation = self.shared.serving.generation();
        if generation == self.generation {
            return;
        }
        if let Some(place) = self.shared.allocators.get(usize::from(self.id.0)) {
            // Both under one lock, which whoever publishes holds too: allocators of another plan would name other pools.
            let mut place = place.lock();
            self.generation = self.shared.serving.generation();
            self.serving = self.shared.serving.load();
            if let Some(fresh) = place.take() {
                // The old ones go back into the place: whoever publishes the next plan frees them.
                *place = Some(std::mem::replace(&mut self.shard.allocators, fresh));
            }
        }
        self.shard.take_plan(&self.serving);
        self.shard.leases.table.set_hold_reclaimed_s(self.serving.reclamation.hold_s);
    }

    /// Sends, parks or drops.
    #[inline(always)]
    fn act(&mut self, outcome: Outcome, frame: Frame, interface: InterfaceId) {
        match outcome {
            Outcome::Reply { len, kind } => self.queue(frame, len, interface, kind),
            Outcome::Park { len, kind, lsn, lease } => {
                let table = &self.shard.leases.table;
                let gate =
                    self.pairs.gate_of(&self.serving, || Some(table.record_if_live(lease)?.subnet_id()));
                if self.marks.cover(gate, lsn) {
                    return self.queue(frame, len, interface, kind);
                }
                let len = u16::try_from(len).expect("a frame is at most FRAME_BYTES long");
                let waiting = Waiting { frame, len, interface, kind };
                if let Err(full) = self.park.park(waiting, lsn, gate, lease) {
                    self.slab.put(full.frame.frame);
                    let reason = if full.by_peers { DropReason::ParkFull } else { DropReason::DiskParkFull };
                    self.shard.counters.dropped(reason);
                }
            }
            Outcome::Drop(reason) => {
                self.slab.put(frame);
                self.shard.counters.dropped(reason);
            }
            Outcome::Done(_) => {
                self.slab.put(frame);
                self.shard.counters.dropped(DropReason::NoAnswer);
            }
            Outcome::HandOver(_) => {
                self.slab.put(frame);
                self.shard.counters.dropped(DropReason::HandOverFull);
            }
        }
    }

    fn queue(&mut self, frame: Frame, len: usize, interface: InterfaceId, kind: MessageType) {
        if self.tx.room() == 0 {
            self.flush();
        }
        self.tx_kinds[self.tx.len()] = kind;
        self.tx.push(frame, len, interface);
    }

    /// Sends what is queued.
    fn flush(&mut self) {
        let queued = self.tx.len();
        if queued == 0 {
            return;
        }
        let report = self.ports.send(&mut self.tx, &mut self.slab);
        // Which frames of a batch were refused is not known; what was refused is counted, the rest by its type.
        for kind in &self.tx_kinds[..queued.min(report.sent as usize)] {
            self.shard.counters.sent(*kind);
        }
        self.shard.counters.dropped_many(DropReason::TxFull, u64::from(report.full));
        self.shard.counters.dropped_many(DropReason::TxFailed, u64::from(report.failed));
    }

    /// Reads the watermarks, releases what they cover, opens addresses.
    fn settle(&mut self) -> bool {
        let durable = self.bell.durable();
        // Addresses open a few in a turn, and so perhaps not all that could when the mark moved.
        let opening = self.shard.leases.retiring.first();
        let mut moved = durable != self.marks.disk() || opening.is_some_and(|lsn| lsn <= durable);
        self.marks.set_disk(durable);
        for (peer, lsn) in self.bell.acked() {
            moved |= lsn != self.marks.peer(peer);
            self.marks.set_peer(peer, lsn);
        }
        // After the marks and before the release: what a peer refused must not leave.
        while let Some(refusal) = self.pairs.next_refusal() {
            self.refuse(refusal);
            moved = true;
        }
        moved |= self.pairs.take_change();
        if !moved {
            return false;
        }
        // Without HA nobody but the disk is awaited. With it, only those who are awaited now.
        let awaited = self.pairs.gate();
        let serving = Arc::clone(&self.serving);
        let Shard { leases, allocators, .. } = &mut self.shard;
        leases.settle(durable, |address| allocators.freed(&serving.plan, address));
        let Self { park, marks, tx, tx_kinds, ports, slab, shard, pairs, .. } = self;
        let is_paired = !pairs.are_none();
        park.release(marks, awaited, |parked| {
            if !shard.leases.is_promised(parked.lease, parked.lsn) {
                slab.put(parked.frame.frame);
                return shard.counters.dropped(DropReason::ParkCancelled);
            }
            if is_paired {
                shard.leases.promise(parked.lease);
            }
            if tx.room() == 0 {
                let queued = tx.len();
                let report = ports.send(tx, slab);
                for kind in &tx_kinds[..queued.min(report.sent as usize)] {
                    shard.counters.sent(*kind);
                }
                shard.counters.dropped_many(DropReason::TxFull, u64::from(report.full));
                shard.counters.dropped_many(DropReason::TxFailed, u64::from(report.failed));
            }
            let Waiting { frame, len, interface, kind } = parked.frame;
            tx_kinds[tx.len()] = kind;
            tx.push(frame, usize::from(len), interface);
        });
        true
    }

    fn tell(&self, event: Event<P>) {
        // The control thread outlives the shards; if it is gone, nobody needs the event.
        let _ = self.events.send(event);
        (self.wake_control)();
    }

    /// Wakes the log thread when this turn has logged anything.
    fn ring_log(&mut self) {
        let appended = self.shard.leases.log.appended();
        if appended != self.logged {
            self.logged = appended;
            self.log_bell.ring();
        }
    }

    /// The end: parked replies that are covered leave, the others are dropped; then the control thread is told.
    pub fn end(&mut self) {
        self.settle();
        self.flush();
        let Self { park, slab, .. } = self;
        park.drain(|parked| slab.put(parked.frame.frame));
        let id = self.id;
        self.tell(Event::Stopped(id));
    }

    /// Replies that wait, for the disk and for peers.
    #[must_use]
    pub const fn parked(&self) -> (usize, usize) {
        (self.park.disk_count(), self.park.peers_count())
    }

    /// Marks a lease whose update a peer refused, and drops its reply. Also one that no reply waits for: the peer must hear of
    /// it at the next REQUEST.
    pub fn refuse(&mut self, refusal: Refusal) {
        let Refusal { lsn, peer, address } = refusal;
        let Self { id, park, slab, shard, .. } = self;
        park.fail(lsn, peer, |parked| {
            slab.put(parked.frame.frame);
            shard.counters.dropped(DropReason::ParkCancelled);
        });
        let table = &mut shard.leases.table;
        if let Owner::InUse { shard: of, lease } = shard.leases.space.owner(address)
            && of == *id
            && table.record_if_live(lease).is_some_and(|record| record.pending_lsn() == lsn)
        {
            table.mark_uncacheable(lease);
        }
    }
}

/// Where the ports of an interface are counted.
fn counted_row(interface: InterfaceId) -> usize {
    usize::from(interface.0).min(INTERFACES_COUNTED - 1)
}

/// Whether what a query may lead to would find room; only a REQUEST is answered by something that waits.
fn room(park: &Park<Waiting>, gate: Gate, kind: Option<MessageType>) -> Result<(), DropReason> {
    if !park.has_room(Gate::DISK) {
        return Err(DropReason::DiskParkFull);
    }
    if gate.awaits_peers() && kind == Some(MessageType::Request) && !park.has_room(gate) {
        return Err(DropReason::ParkFull);
    }
    Ok(())
}
