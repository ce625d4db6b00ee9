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

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossbeam::channel::{Receiver, Sender};
use crossbeam::queue::ArrayQueue;

use super::admission::{Admission, Glance, PATIENCE_NS, Shed};
use super::ha::links::Refusal;
use super::pairs::{HaPart, Pairs, classes_of};
use super::sampler::Sampler;
use crate::control::log::SampleQueue;
use crate::exchange::allocators::Allocators;
use crate::exchange::reclaim::{Cycles, Reclaims};
use crate::exchange::request::{Job, Progress};
use crate::exchange::serving::Serving;
use crate::exchange::stats::INTERFACES_COUNTED;
use crate::exchange::{Given, Outcome, RelationshipIndex, Shard, SubnetScope};
use crate::ids::{InterfaceId, Lsn, PeerId, ShardId};
use crate::lease::address::Owner;
use crate::lease::request::{LeaseReply, LeaseRequest};
use crate::lease::table::{KeyHash, Part, Want};
use crate::net::{
    BATCH_MAX, FRAME_BYTES, Frame, FrameSlab, Port, PortSet, PortStats, RxBatch, RxFlags, RxFrame, TxBatch,
    WINDOW_MAX,
};
use crate::park::{Gate, Marks, Park};
use crate::sync::{PlanCell, Watermark};
use crate::time::Now;
use crate::wire::codes::MessageType;
use crate::wire::dhcp4::{self, Head, Packet, Strictness};
use crate::wire::drop::DropReason;
use crate::wire::frame::{self, Arrival as FrameArrival, Datagram};
use crate::wire::option::OptionTable;
use crate::wire::query::Query;

/// A packet that waited longer is shed: its client has asked again or soon will.
const STALE_NS: u64 = 1_000_000_000;
/// With so many subnets what the plan knows of each does not stay near the processor.
const SUBNETS_FAR: usize = 256;
/// Queries that other shards may have waiting here.
pub const HAND_OVER_SLOTS: usize = 256;
/// Queries taken from other shards in one turn.
const HAND_OVER_PER_TURN: usize = 32;
/// Orders about one lease each that a turn takes: a partner's updates come so when it has no bulk command.
const ORDERS_PER_TURN: usize = 16;
/// How long frames wait for a shard that serves nobody: short enough for a ring of frames, and for clients whom it is to serve next.
const STANDBY_REST: Duration = Duration::from_millis(1);
/// Orders that may wait for a shard.
pub const ORDERS_MAX: usize = 1024;

/// A query on its way to the shard that owns its client.
pub struct HandOver {
    bytes: [u8; FRAME_BYTES],
    len: usize,
    interface: InterfaceId,
    flags: RxFlags,
}

impl HandOver {
    /// Room for one query. Allocates.
    #[must_use]
    pub fn boxed() -> Box<Self> {
        Box::new(Self {
            bytes: [0; FRAME_BYTES],
            len: 0,
            interface: InterfaceId(0),
            flags: RxFlags::default(),
        })
    }
}

/// One shard's end of handing over: empty carriers, and where to put full ones. Carriers go round; none is ever made or freed.
pub struct Crossing {
    /// Empty carriers, shared by all shards.
    pub spare: Arc<ArrayQueue<Box<HandOver>>>,
    /// Full ones for each shard, by number.
    pub inboxes: Vec<Arc<ArrayQueue<Box<HandOver>>>>,
    /// How to wake each shard, by number.
    pub bells: Vec<Arc<crate::net::Doorbell>>,
}

/// What the control thread tells a shard.
pub enum Order<P> {
    /// Do this with leases; the answer carries the number back.
    Leases(u64, LeaseRequest),
    /// Serve this interface too.
    AddPort(P),
    /// Hear these addresses on this interface from now on.
    Readdress(InterfaceId, Arc<[std::net::Ipv4Addr]>),
    /// Serve this interface no more.
    RemovePort(InterfaceId),
    /// Memory for the table.
    Memory(Part),
    /// Stop after this turn.
    Stop,
}

/// What a shard tells the control thread.
pub enum Event<P> {
    /// The answer to [`Order::Leases`]: complete once the position is durable.
    Leases(u64, LeaseReply, ShardId, Lsn),
    /// A port that is not served any more, to be closed.
    Port(P),
    /// The table would like memory.
    Want(ShardId, Want),
    /// Memory that it has done with, to be freed.
    Spare(Part),
    /// Reclamation falls behind.
    ReclaimBehind(ShardId),
    /// The shard has ended.
    Stopped(ShardId),
}

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

/// A packet of the batch after parsing.
struct Parsed {
    datagram: Datagram,
    options: OptionTable,
    head: Head,
    state: Stage,
}

#[derive(Clone, Copy)]
enum Stage {
    Dropped,
    Ready(KeyHash),
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
    /// What the log thread has made durable.
    pub durable: Arc<Watermark>,
    /// What each peer has answered, by number.
    pub acked: Vec<(PeerId, Arc<Watermark>)>,
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
    durable: Arc<Watermark>,
    acked: Vec<(PeerId, Arc<Watermark>)>,
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
    wanted: bool,
    /// Frames have come since the last sleep.
    heard: bool,
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
            durable: parts.durable,
            acked: parts.acked,
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
            wanted: false,
            heard: false,
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

    /// Sleeps until something arrives, somebody rings, or `timeout` is over. A standby that has just heard its partner's clients lets
    /// more of them come before it looks: else every frame would wake it to be dropped.
    ///
    /// # Errors
    /// When the kernel cannot poll.
    pub fn sleep(&mut self, timeout: Duration) -> std::io::Result<()> {
        let (durable, marks, orders) = (&self.durable, &self.marks, &self.orders);
        let inbox = &self.crossing.inboxes[usize::from(self.id.0)];
        let (shared, generation) = (&self.shared, self.generation);
        let (acked, pairs) = (&self.acked, &self.pairs);
        let parked =
            self.park.disk_count() + self.park.peers_count() > 0 || !self.shard.leases.retiring.is_empty();
        let heard = std::mem::take(&mut self.heard);
        let has_work = || {
            !orders.is_empty()
                || !inbox.is_empty()
                || shared.serving.generation() != generation
                || pairs.has_news()
                || (parked
                    && (durable.read() != marks.disk()
                        || acked.iter().any(|(peer, mark)| mark.read() != marks.peer(*peer))))
        };
        if heard && pairs.serve_nobody() {
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

    /// Receives one batch and does everything for it.
    fn receive(&mut self, now: Now, wall_ns: u64) -> bool {
        let mut count = self.ports.recv(&mut self.rx);
        if count == 0 {
            return false;
        }
        self.heard = true;
        self.shard.counters.batch();
        let is_full = count == BATCH_MAX;
        let arrivals = self.rx.frames().iter().map(|frame| frame.wall_ns).filter(|wall_ns| *wall_ns != 0);
        let oldest_age_ns = arrivals.min().map_or(0, |oldest_ns| wall_ns.saturating_sub(oldest_ns));
        let is_behind = self.admission.is_behind(is_full, oldest_age_ns, wall_ns);
        if self.admission.is_overloaded(is_full && self.ports.is_crowded()) {
            count = self.choose();
        }
        let serving = Arc::clone(&self.serving);
        let enabled = self.shared.enabled.load(Ordering::Relaxed);
        for index in 0..count {
            self.parse(index, wall_ns, enabled, is_behind);
        }
        if is_full {
            self.shed_duplicates(count);
        }
        for index in 0..count {
            if let Stage::Ready(hash) = self.parsed[index].state {
                self.shard.leases.table.prefetch_record(hash);
            }
        }
        if serving.plan.subnets.len() >= SUBNETS_FAR {
            self.prefetch_plan(&serving, count);
        }
        for index in 0..count {
            if let Stage::Ready(hash) = self.parsed[index].state {
                self.decide(&serving, now, index, hash);
            }
        }
        self.ports.recycle(&mut self.rx);
        true
    }

    /// Chooses the batch among all that waits, if that makes a difference; how many frames it has.
    fn choose(&mut self) -> usize {
        let Self { ports, rx, admission, glances, shard, .. } = self;
        if !admission.is_mixed(rx.frames().iter().map(|frame| glance(ports, frame))) {
            return rx.len();
        }
        let count = ports.widen(rx);
        for (place, frame) in glances.iter_mut().zip(rx.frames()) {
            *place = glance(ports, frame);
        }
        let mut chosen = [false; WINDOW_MAX];
        admission.choose(&glances[..count], &mut chosen, |_, shed| {
            shard.counters.received();
            shard.counters.dropped(match shed {
                Shed::Discover => DropReason::ShedDiscover,
                Shed::Share => DropReason::ShedUnfair,
            });
        });
        rx.keep(&chosen);
        rx.len()
    }

    /// Parses frame `index` of the batch and starts loading its client's bucket.
    fn parse(&mut self, index: usize, wall_ns: u64, enabled: bool, is_behind: bool) {
        let rx = self.rx.frames()[index];
        let bytes = self.ports.bytes(&rx);
        let parsed = &mut self.parsed[index];
        parsed.state = Stage::Dropped;
        let counters = &self.shard.counters;
        let age_ns = if rx.wall_ns == 0 { 0 } else { wall_ns.saturating_sub(rx.wall_ns) };
        // Before anything is spent on it.
        if age_ns > STALE_NS {
            counters.received();
            return counters.dropped(DropReason::ShedStale);
        }
        if is_behind && age_ns >= PATIENCE_NS && Glance::at(bytes, 0).is_discover {
            counters.received();
            return counters.dropped(DropReason::ShedDiscover);
        }
        let arrival =
            FrameArrival { tag_stripped: false, checksum_not_ready: !rx.flags.checksum_is_unverified() };
        match frame::parse(bytes, arrival) {
            Ok(datagram) => parsed.datagram = datagram,
            Err(reason) => return counters.dropped(reason),
        }
        counters.received();
        if !enabled {
            return counters.dropped(DropReason::ServiceDisabled);
        }
        let payload = parsed.datagram.payload(bytes);
        let lenient = self.serving.plan.globals.lenient_option_parsing;
        match dhcp4::parse_with(payload, &mut parsed.options, Strictness { lenient }) {
            Ok(head) => parsed.head = head,
            Err(reason) => {
                self.sampler.message(reason, wall_ns / 1_000_000_000, payload);
                return counters.dropped(reason);
            }
        }
        counters.received_type(parsed.head.message_type);
        let Ok(query) = Query::new(&parsed.datagram, payload, &parsed.options, parsed.head, rx.interface)
        else {
            return counters.dropped(DropReason::ParseShort);
        };
        parsed.state = Stage::Ready(self.shard.prefetch(&query));
    }

    /// Starts loading what the plan of a large configuration has for each query of the batch, in two steps.
    fn prefetch_plan(&self, serving: &Serving, count: usize) {
        let mut likely = [None; BATCH_MAX];
        for (index, likely) in likely.iter_mut().enumerate().take(count) {
            *likely = self.ready(index).and_then(|query| self.shard.prefetch_plan(serving, &query));
        }
        for (index, likely) in likely.iter().enumerate().take(count) {
            if let Some(likely) = *likely
                && let Some(query) = self.ready(index)
            {
                Shard::prefetch_subnet(serving, &query, likely);
            }
        }
    }

    /// Packet `index` of the batch, unless it was dropped.
    fn ready(&self, index: usize) -> Option<Query<'_>> {
        let (rx, parsed) = (self.rx.frames()[index], &self.parsed[index]);
        let Stage::Ready(_) = parsed.state else { return None };
        let payload = parsed.datagram.payload(self.ports.bytes(&rx));
        Query::new(&parsed.datagram, payload, &parsed.options, parsed.head, rx.interface).ok()
    }

    /// Of several packets of one client in a full batch only the newest is served.
    fn shed_duplicates(&mut self, count: usize) {
        // Open addressing over positions of the batch, counted from one, the newest packet first: never full.
        let mut seen = [0_u8; 4 * BATCH_MAX];
        for index in (0..count).rev() {
            let Stage::Ready(hash) = self.parsed[index].state else { continue };
            let kind = self.parsed[index].head.message_type;
            if !matches!(kind, Some(MessageType::Discover | MessageType::Request)) {
                continue;
            }
            let mut place = usize::try_from(hash.bits() >> 32).unwrap_or_default() % seen.len();
            while let Some(newer) = usize::from(seen[place]).checked_sub(1) {
                let newer = &self.parsed[newer];
                if matches!(newer.state, Stage::Ready(other) if other == hash)
                    && newer.head.message_type == kind
                {
                    break;
                }
                place = (place + 1) % seen.len();
            }
            if seen[place] == 0 {
                seen[place] = u8::try_from(index + 1).expect("a batch is small");
            } else {
                self.parsed[index].state = Stage::Dropped;
                self.shard.counters.dropped(DropReason::ShedDuplicate);
            }
        }
    }

    /// Decides packet `index` of the batch.
    fn decide(&mut self, serving: &Serving, now: Now, index: usize, hash: KeyHash) {
        let rx = self.rx.frames()[index];
        let Some(arrival) = serving.arrival(rx.interface) else {
            return self.shard.counters.dropped(DropReason::FrameAddress);
        };
        if let Err(reason) = room(&self.park, self.pairs.gate(), self.parsed[index].head.message_type) {
            let parsed = &self.parsed[index];
            self.sampler.message(reason, now.wall_s, parsed.datagram.payload(self.ports.bytes(&rx)));
            return self.shard.counters.dropped(reason);
        }
        let Some(out) = self.slab.take() else {
            self.sampler.message(DropReason::FramesGone, now.wall_s, &[]);
            return self.shard.counters.dropped(DropReason::FramesGone);
        };
        let bytes = self.ports.bytes(&rx);
        let parsed = &self.parsed[index];
        let payload = parsed.datagram.payload(bytes);
        let Ok(packet) = Packet::new_checked(payload) else {
            self.slab.put(out);
            return self.shard.counters.dropped(DropReason::ParseShort);
        };
        let query = Query {
            datagram: &parsed.datagram,
            packet,
            options: &parsed.options,
            message_type: parsed.head.message_type,
            interface: rx.interface,
            recovered_relay: &[],
            replaced_client_id: &[],
        };
        let decision = self.pairs.decide(&query);
        if !decision.in_scope {
            if decision.analyse {
                self.pairs.analyse(RelationshipIndex(0), &query);
            }
            self.slab.put(out);
            return self.shard.counters.dropped(DropReason::HaNotForUs);
        }
        let late = self.pairs.late(serving);
        let given = Given {
            now,
            arrival: *arrival,
            scope_classes: classes_of(serving, RelationshipIndex(0), decision),
            by_subnet: late.as_ref().map(|late| late as &dyn SubnetScope),
            handed_over: false,
            key_hash: Some(hash),
        };
        let outcome = self.shard.process(serving, &given, &query, self.slab.bytes_mut(&out));
        if let Some(relationship) = late.and_then(|late| late.unanswered()) {
            self.pairs.analyse(relationship, &query);
        }
        if let Outcome::Drop(reason) = outcome {
            self.sampler.query(reason, now.wall_s, &query);
        }
        if let Outcome::HandOver(shard) = outcome {
            self.slab.put(out);
            let handed = hand_over(&self.crossing, shard, bytes, rx.interface, rx.flags);
            return match handed {
                Ok(()) => self.shard.counters.handed_over(),
                Err(reason) => self.shard.counters.dropped(reason),
            };
        }
        self.act(outcome, out, rx.interface);
    }

    /// Sends, parks or drops.
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

    /// Serves queries that other shards have passed on.
    fn take_over(&mut self, now: Now) -> bool {
        let inbox = Arc::clone(&self.crossing.inboxes[usize::from(self.id.0)]);
        let serving = Arc::clone(&self.serving);
        let mut busy = false;
        for _ in 0..HAND_OVER_PER_TURN {
            let Some(carrier) = inbox.pop() else { break };
            busy = true;
            self.serve_carrier(&serving, now, &carrier);
            // There is always room: as many carriers were made as there are places.
            let _ = self.crossing.spare.push(carrier);
        }
        busy
    }

    fn serve_carrier(&mut self, serving: &Serving, now: Now, carrier: &HandOver) {
        // Passed on before the service went off: a peer that copies our leases must have seen the last change by now.
        if !self.shared.enabled.load(Ordering::Relaxed) {
            return self.shard.counters.dropped(DropReason::ServiceDisabled);
        }
        let bytes = &carrier.bytes[..carrier.len];
        let arrival =
            FrameArrival { tag_stripped: false, checksum_not_ready: !carrier.flags.checksum_is_unverified() };
        let Ok(datagram) = frame::parse(bytes, arrival) else { return };
        let (slot, payload) = (BATCH_MAX, datagram.payload(bytes));
        let parsed = &mut self.parsed[slot];
        let strict = Strictness { lenient: serving.plan.globals.lenient_option_parsing };
        let Ok(head) = dhcp4::parse_with(payload, &mut parsed.options, strict) else { return };
        let Ok(query) = Query::new(&datagram, payload, &parsed.options, head, carrier.interface) else {
            return;
        };
        let Some(arrival) = serving.arrival(carrier.interface) else { return };
        if let Err(reason) = room(&self.park, self.pairs.gate(), head.message_type) {
            return self.shard.counters.dropped(reason);
        }
        let decision = self.pairs.decide(&query);
        if !decision.in_scope {
            return self.shard.counters.dropped(DropReason::HaNotForUs);
        }
        let Some(out) = self.slab.take() else {
            return self.shard.counters.dropped(DropReason::FramesGone);
        };
        let late = self.pairs.late(serving);
        let given = Given {
            now,
            arrival: *arrival,
            scope_classes: classes_of(serving, RelationshipIndex(0), decision),
            by_subnet: late.as_ref().map(|late| late as &dyn SubnetScope),
            handed_over: true,
            key_hash: None,
        };
        let outcome = self.shard.process(serving, &given, &query, self.slab.bytes_mut(&out));
        if let Outcome::Drop(reason) = outcome {
            self.sampler.query(reason, now.wall_s, &query);
        }
        if let Outcome::HandOver(shard) = outcome {
            // Once more, from the owner of the client to who has its lease.
            self.slab.put(out);
            return match hand_over(&self.crossing, shard, bytes, carrier.interface, carrier.flags) {
                Ok(()) => self.shard.counters.handed_over(),
                Err(reason) => self.shard.counters.dropped(reason),
            };
        }
        self.act(outcome, out, carrier.interface);
    }

    /// Reads the watermarks, releases what they cover, opens addresses.
    fn settle(&mut self) -> bool {
        let durable = self.durable.read();
        let mut moved = durable != self.marks.disk();
        self.marks.set_disk(durable);
        for (peer, mark) in &self.acked {
            let lsn = mark.read();
            moved |= lsn != self.marks.peer(*peer);
            self.marks.set_peer(*peer, lsn);
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
        let Self { park, marks, tx, tx_kinds, ports, slab, shard, .. } = self;
        park.release(marks, awaited, |parked| {
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

    /// Takes a few short orders or one long, or goes on with the command that is under way: one step per turn.
    fn obey(&mut self, now: Now) -> bool {
        if let Some((number, job)) = self.job.take() {
            self.work(now, number, job);
            return true;
        }
        for taken in 0..ORDERS_PER_TURN {
            let Ok(order) = self.orders.try_recv() else { return taken > 0 };
            let is_short = matches!(
                order,
                Order::Leases(
                    _,
                    LeaseRequest::Put { .. } | LeaseRequest::Delete { .. } | LeaseRequest::Get(_)
                )
            );
            self.follow(now, order);
            if !is_short {
                break;
            }
        }
        true
    }

    fn follow(&mut self, now: Now, order: Order<P>) {
        match order {
            Order::Leases(number, request) => self.work(now, number, Job::new(request)),
            Order::AddPort(port) => {
                if let Some(old) = self.ports.remove(port.interface()) {
                    self.let_go(old);
                }
                if let Err(port) = self.ports.add(port) {
                    self.tell(Event::Port(port));
                }
            }
            Order::Readdress(interface, addresses) => {
                for port in self.ports.ports_mut().iter_mut().filter(|port| port.interface() == interface) {
                    port.set_addresses(&addresses);
                }
            }
            Order::RemovePort(interface) => {
                if let Some(port) = self.ports.remove(interface) {
                    self.let_go(port);
                }
            }
            Order::Memory(part) => {
                self.wanted = false;
                if let Err(part) = self.shard.leases.table.give(part) {
                    self.tell(Event::Spare(part));
                }
            }
            Order::Stop => self.stopping = true,
        }
    }

    /// The position up to which every peer that replies wait for has answered.
    fn answered(&self) -> Lsn {
        let awaited = self.acked.iter().filter(|(peer, _)| self.pairs.gate().awaits(*peer));
        awaited.map(|(_, mark)| mark.read()).min().unwrap_or(Lsn(u64::MAX))
    }

    fn work(&mut self, now: Now, number: u64, job: Job) {
        let serving = Arc::clone(&self.serving);
        self.shard.answered = self.answered();
        let progress = self.shard.serve(&serving, now, job);
        while let Some((lsn, lease)) = self.shard.take_displaced() {
            let Self { park, slab, shard, .. } = self;
            park.cancel(lsn, lease, |parked| {
                slab.put(parked.frame.frame);
                shard.counters.dropped(DropReason::ParkCancelled);
            });
        }
        match progress {
            Progress::More(job) => self.job = Some((number, job)),
            Progress::Done(reply, lsn) => {
                let id = self.id;
                self.tell(Event::Leases(number, reply, id, lsn));
            }
        }
    }

    /// Asks for memory before it runs out, and moves a growing index along.
    fn mind_memory(&mut self) -> bool {
        if !self.wanted
            && let Some(want) = self.shard.leases.table.wants()
        {
            self.wanted = true;
            let id = self.id;
            self.tell(Event::Want(id, want));
        }
        let moving = self.shard.leases.table.migrate(64);
        if !moving && let Some(part) = self.shard.leases.table.discard() {
            self.tell(Event::Spare(part));
        }
        if std::mem::take(&mut self.cycles.warn) {
            let id = self.id;
            self.tell(Event::ReclaimBehind(id));
        }
        moving
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

/// What is seen of a frame before it is parsed.
fn glance<P: Port>(ports: &PortSet<P>, frame: &RxFrame) -> Glance {
    Glance::at(ports.bytes(frame), frame.interface.0)
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

/// Passes a query on to the shard that owns its client.
fn hand_over(
    crossing: &Crossing,
    shard: ShardId,
    bytes: &[u8],
    interface: InterfaceId,
    flags: RxFlags,
) -> Result<(), DropReason> {
    let to = usize::from(shard.0);
    let Some(inbox) = crossing.inboxes.get(to) else { return Err(DropReason::HandOverFull) };
    let Some(mut carrier) = crossing.spare.pop() else { return Err(DropReason::HandOverFull) };
    let fits = bytes.len() <= FRAME_BYTES;
    if fits {
        carrier.bytes[..bytes.len()].copy_from_slice(bytes);
        carrier.len = bytes.len();
        carrier.interface = interface;
        carrier.flags = flags;
        match inbox.push(carrier) {
            Ok(()) => {
                if let Some(bell) = crossing.bells.get(to) {
                    bell.ring();
                }
                return Ok(());
            }
            Err(back) => carrier = back,
        }
    }
    let _ = crossing.spare.push(carrier);
    Err(DropReason::HandOverFull)
}
