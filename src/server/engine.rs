//! The shards and the log thread: started together, told what to do by the control thread, ended together.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam::channel::{Receiver, Sender, bounded, unbounded};
use crossbeam::queue::ArrayQueue;
use parking_lot::Mutex;

use super::clock::Clock;
use super::ha::links::{Links, Territory, UpdateTap};
use super::ha::source::{Changed, ChangedTap};
use super::loading;
use super::log_work::log_thread;
use super::pairs::HaPart;
use super::sampler::SAMPLES_MAX;
use super::shard_bell::ShardBell;
use super::shard_loop::{
    Crossing, Event, HAND_OVER_SLOTS, HandOver, ORDERS_MAX, Order, ShardLoop, ShardParts, Shared,
};
use crate::allocate::Share;
use crate::classify::steer::Steering;
use crate::control::log::SampleQueue;
use crate::exchange::allocators::Allocators;
use crate::exchange::leases::Leases;
use crate::exchange::serving::{Serving, StatsBook};
use crate::exchange::stats::ShardCounters;
use crate::exchange::{RelationshipIndex, Shard};
use crate::ids::{Lsn, ShardId};
use crate::journal::replay::SanityMode;
use crate::journal::{LogRx, log_ring};
use crate::lease::address::{AddressSpace, Retiring};
use crate::lease::directory::Directory;
use crate::lease::table::{LeaseTable, TableLimits};
use crate::net::AnyPort;
use crate::net::{Doorbell, PortSet};
use crate::store::{self, Disk, GroupCommit, LeaseFiles, SyncMode};
use crate::sync::{PlanCell, Watermark};

pub use super::loading::LoadedLeases;
pub use super::log_work::{LogNext, LogStatus, LogWork, clean_up};

/// Slots of each shard's log ring, 128 octets each.
const LOG_SLOTS: usize = 32_768;
/// Replies of one shard that may wait for the disk alone.
const PARK_DISK_MAX: usize = 16_384;
/// Replies of one shard that may wait for peers, whatever the configuration says.
const PARK_PEERS_MAX: usize = 4096;
/// Addresses given up that may wait for their rows.
const RETIRING_MAX: usize = 65_536;
/// Networks of 256 addresses that leases may be in: 16 million addresses and as much again.
const BLOCKS_MAX: u32 = 131_072;
/// Leases that a table makes room for at once; more come as they are needed.
const RECORDS_AT_START: usize = 65_536;
/// Most leases of one table.
const RECORDS_MAX: usize = 1 << 26;
/// Bytes of host names, long identifiers and contexts in one table, at most.
const BLOBS_MAX: usize = 4 << 30;
/// How long an idle shard sleeps at most: time's work wants a look now and then.
const SHARD_SLEEP: Duration = Duration::from_millis(100);

/// How much one shard may have under way.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    /// Slots of its log ring, 128 octets each.
    pub log_slots: usize,
    /// Replies that may wait for the disk alone.
    pub parked_for_disk: usize,
    /// Replies that may wait for peers, whatever the configuration says.
    pub parked_for_peers: usize,
    /// Networks of 256 addresses that the leases of all shards may be in.
    pub blocks: u32,
}

impl Default for Room {
    fn default() -> Self {
        Self {
            log_slots: LOG_SLOTS,
            parked_for_disk: PARK_DISK_MAX,
            parked_for_peers: PARK_PEERS_MAX,
            blocks: BLOCKS_MAX,
        }
    }
}

/// What an engine is started with.
pub struct Start {
    /// The plan to serve first.
    pub serving: Arc<Serving>,
    /// The counters that the plan shares.
    pub book: StatsBook,
    /// How many shards.
    pub shard_count: usize,
    /// The lease file; nothing for leases in memory alone.
    pub lease_file: Option<PathBuf>,
    /// How rows are made durable.
    pub sync: SyncMode,
    /// `sanity-checks.lease-checks`.
    pub sanity: SanityMode,
    /// `sanity-checks.extended-info-checks` is not `none`: relay information of older releases is kept in today's form.
    pub upgrade_contexts: bool,
    /// `max-row-errors`.
    pub row_errors_max: u64,
    /// Leases to expect: room in the directory and the first tables.
    pub lease_capacity: u64,
    /// Which part of unguarded pools is ours first.
    pub share: Share,
    /// Seeds hashes and random orders; from the system, so that no client can guess it.
    pub seed: u64,
    /// Wakes the control thread.
    pub wake_control: Arc<dyn Fn() + Send + Sync>,
    /// The pairs that this server is half of.
    pub pairs: Vec<Arc<Links>>,
    /// `parked-packet-limit`: replies that may wait for peers, over all shards; 0 as many as can.
    pub parked_max: u32,
    /// Room for what is under way.
    pub room: Room,
    /// Where the lease file is.
    pub disk: Arc<dyn Disk>,
}

/// One shard as the control thread sees it.
pub struct ShardHandle {
    /// Orders to it.
    pub orders: Sender<Order<AnyPort>>,
    /// Wakes it.
    pub bell: Arc<Doorbell>,
    /// What it counts.
    pub counters: Arc<ShardCounters>,
    /// What is durable of its changes.
    pub durable: Arc<Watermark>,
    thread: Option<JoinHandle<()>>,
}

impl ShardHandle {
    /// Gives an order and wakes the shard.
    ///
    /// # Errors
    /// [`NotTaken`] when as many orders wait as may, or the shard has ended; the order is dropped.
    pub fn order(&self, order: Order<AnyPort>) -> Result<(), NotTaken> {
        self.orders.try_send(order).map_err(|_| NotTaken)?;
        self.bell.ring();
        Ok(())
    }
}

/// A shard has not taken an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotTaken;

/// What shards and log thread do, turn by turn.
pub struct Work {
    /// The shards, by number.
    pub shards: Vec<ShardLoop<AnyPort>>,
    /// The log thread's work.
    pub log: LogWork,
}

/// Shards and log thread at work.
pub struct Engine {
    /// What all shards read.
    pub shared: Arc<Shared>,
    /// The shards.
    pub shards: Vec<ShardHandle>,
    /// Events from them.
    pub events: Receiver<Event<AnyPort>>,
    /// Who holds which address.
    pub space: Arc<AddressSpace>,
    /// Who owns which client.
    pub steering: Steering,
    /// The counters of subnets and pools.
    pub book: StatsBook,
    /// Packets that shards want to be told of.
    pub samples: Arc<SampleQueue>,
    /// The log thread's state.
    pub log: Arc<LogStatus>,
    /// What changes while a peer copies the leases.
    pub changed: Arc<Changed>,
    /// The names of the lease file's companions; nothing without a file.
    pub files: Option<LeaseFiles>,
    log_bell: store::Doorbell,
    log_thread: Option<JoinHandle<()>>,
    seed: u64,
    share: Share,
    retired: Vec<Arc<Serving>>,
}

impl Engine {
    /// Opens the lease file, loads the leases, starts the threads. Nothing is received before ports are added.
    ///
    /// # Errors
    /// What the operator must know: the lease file, memory, threads.
    pub fn start(start: Start, clock: &Clock) -> Result<(Self, LoadedLeases), String> {
        let (mut engine, work, loaded) = Self::build(start, clock)?;
        engine.spawn(work, clock)?;
        Ok((engine, loaded))
    }

    /// Opens the lease file and loads the leases. Whoever has no threads to give turns the work by hand.
    ///
    /// # Errors
    /// What the operator must know: the lease file, memory.
    pub fn build(mut start: Start, clock: &Clock) -> Result<(Self, Work, LoadedLeases), String> {
        let shard_count = start.shard_count.max(1);
        let steering = Steering::new(start.seed, shard_count);
        let space = Arc::new(AddressSpace::new(start.room.blocks));
        super::setup::prepare_space(&space, &start.serving.plan, None)?;
        let expected = usize::try_from(start.lease_capacity).unwrap_or(usize::MAX).min(1 << 25);
        let directory = (shard_count > 1).then(|| Arc::new(Directory::new(expected.max(65_536) * 2)));
        let mut key = [0; 16];
        key[..8].copy_from_slice(&start.seed.to_be_bytes());
        key[8..]
            .copy_from_slice(&start.seed.rotate_left(29).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());

        let now = clock.now();
        let mut leases = Vec::new();
        let mut logs: Vec<(LogRx, Arc<Watermark>)> = Vec::new();
        for number in 0..shard_count {
            let id = ShardId(u8::try_from(number).map_err(|_| "too many shards".to_owned())?);
            let (log, rx) = log_ring(id, start.room.log_slots);
            let limits = TableLimits {
                record_count_max: RECORDS_MAX,
                record_count: (expected / shard_count).clamp(1024, RECORDS_AT_START),
                blob_bytes_max: BLOBS_MAX,
            };
            let mut table = LeaseTable::new(limits, key, now.wall_s);
            table.set_hold_reclaimed_s(start.serving.reclamation.hold_s);
            leases.push(Mutex::new(Leases {
                shard: id,
                table,
                space: Arc::clone(&space),
                directory: directory.clone(),
                steering,
                retiring: Retiring::new(RETIRING_MAX),
                log,
                totals: Arc::clone(&start.book.totals),
                recount: None,
                ended: Lsn(0),
            }));
            logs.push((rx, Arc::new(Watermark::default())));
        }

        let (live, loaded) = match &start.lease_file {
            Some(path) => {
                let (live, loaded) = loading::load(path, &start, &leases, &space, steering)?;
                (Some(live), loaded)
            }
            None => (None, LoadedLeases::default()),
        };
        for (subnet, (assigned, declined)) in &loaded.absent {
            start.book.count_absent(*subnet, *assigned, *declined);
        }
        Arc::get_mut(&mut start.serving).expect("nobody serves from it yet").learn_absent(&start.book);

        let shared = Arc::new(Shared {
            serving: PlanCell::new(Arc::clone(&start.serving)),
            allocators: (0..shard_count).map(|_| Mutex::new(None)).collect(),
            enabled: AtomicBool::new(false),
            samples: Arc::new(SampleQueue::new(SAMPLES_MAX)),
        });
        let (event_tx, events) = unbounded();
        let spare = Arc::new(ArrayQueue::new(HAND_OVER_SLOTS * shard_count));
        if shard_count > 1 {
            while spare.push(HandOver::boxed()).is_ok() {}
        }
        let inboxes: Vec<_> =
            (0..shard_count).map(|_| Arc::new(ArrayQueue::new(HAND_OVER_SLOTS * shard_count))).collect();
        let bells = (0..shard_count)
            .map(|_| Doorbell::new().map(Arc::new))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| format!("no file descriptor for a shard's bell: {error}"))?;

        let (log_bell, sleeper) = store::doorbell();
        let log = Arc::new(LogStatus::default());
        let durables: Vec<Arc<Watermark>> = logs.iter().map(|(_, durable)| Arc::clone(durable)).collect();
        let peers = || start.pairs.iter().flat_map(|links| &links.peers);
        let shard_bells: Vec<Arc<ShardBell>> = (0..shard_count)
            .map(|number| {
                let acked = peers().map(|peer| (peer.id(), peer.mark(number))).collect();
                let (bell, durable) = (Arc::clone(&bells[number]), Arc::clone(&durables[number]));
                Arc::new(ShardBell::new(bell, durable, acked))
            })
            .collect();
        let files = live.as_ref().map(|_| {
            LeaseFiles::new(start.lease_file.as_deref().unwrap_or_else(|| std::path::Path::new("")))
        });
        let mut group = GroupCommit::new(live, logs, Vec::new(), start.sync);
        for (index, links) in (0..=u8::MAX).map(RelationshipIndex).zip(&start.pairs) {
            links.set_bells(shard_bells.clone());
            let territory = (start.pairs.len() > 1).then(|| Territory::new(index, Arc::clone(&shared)));
            group.add_tap(Box::new(UpdateTap::new(Arc::clone(links), territory)));
        }
        let changed = Arc::new(Changed::default());
        if !start.pairs.is_empty() {
            group.add_tap(Box::new(ChangedTap::new(Arc::clone(&changed))));
        }
        let log_work = LogWork {
            group,
            status: Arc::clone(&log),
            bells: shard_bells.clone(),
            wake_control: Arc::clone(&start.wake_control),
            sleeper,
        };

        let mut shards = Vec::new();
        let mut loops = Vec::new();
        for (number, leases) in leases.into_iter().enumerate() {
            let id = ShardId(u8::try_from(number).map_err(|_| "too many shards".to_owned())?);
            let counters = Arc::new(ShardCounters::default());
            let allocators = Allocators::new(&start.serving.plan, start.seed, id, shard_count, start.share);
            let shard = Shard::new(leases.into_inner(), allocators, Arc::clone(&counters));
            let (orders, orders_rx) = bounded(ORDERS_MAX);
            let parts = ShardParts {
                shard,
                ports: PortSet::new(Arc::clone(&bells[number])),
                shared: Arc::clone(&shared),
                crossing: Crossing {
                    spare: Arc::clone(&spare),
                    inboxes: inboxes.clone(),
                    bells: bells.clone(),
                },
                orders: orders_rx,
                events: event_tx.clone(),
                wake_control: {
                    let wake = Arc::clone(&start.wake_control);
                    Box::new(move || wake())
                },
                log_bell: log_bell.clone(),
                bell: Arc::clone(&shard_bells[number]),
                pairs: start
                    .pairs
                    .iter()
                    .map(|links| HaPart {
                        links: Arc::clone(links),
                        refused: links.refused(id),
                        unacked: links.unacked_clients(number),
                    })
                    .collect(),
                park_disk_max: start.room.parked_for_disk,
                park_peers_max: park_peers_max(start.parked_max, shard_count, start.room.parked_for_peers),
            };
            loops.push(ShardLoop::new(parts));
            shards.push(ShardHandle {
                orders,
                bell: Arc::clone(&bells[number]),
                counters,
                durable: Arc::clone(&durables[number]),
                thread: None,
            });
        }
        let engine = Self {
            samples: Arc::clone(&shared.samples),
            shared,
            shards,
            events,
            space,
            steering,
            book: start.book,
            log,
            changed,
            files,
            log_bell,
            log_thread: None,
            seed: start.seed,
            share: start.share,
            retired: Vec::new(),
        };
        Ok((engine, Work { shards: loops, log: log_work }, loaded))
    }

    /// Gives the work threads of its own.
    ///
    /// # Errors
    /// When there are none to be had.
    fn spawn(&mut self, work: Work, clock: &Clock) -> Result<(), String> {
        let Work { shards, log } = work;
        let own_clock = clock.clone();
        let thread = std::thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || log_thread(log, &own_clock))
            .map_err(|error| format!("cannot start the log thread: {error}"))?;
        self.log_thread = Some(thread);
        for (number, (shard, handle)) in shards.into_iter().zip(&mut self.shards).enumerate() {
            let clock = clock.clone();
            let thread = std::thread::Builder::new()
                .name(format!("shard-{number}"))
                .spawn(move || shard_thread(shard, &clock))
                .map_err(|error| format!("cannot start a shard: {error}"))?;
            handle.thread = Some(thread);
        }
        Ok(())
    }

    /// Puts a new plan in force: every shard takes it with its next turn.
    ///
    /// # Errors
    /// When there is no room for its addresses; the old plan stays.
    pub fn publish(&mut self, serving: Arc<Serving>) -> Result<(), String> {
        let old = self.shared.serving.load();
        super::setup::prepare_space(&self.space, &serving.plan, Some(&old.plan))?;
        let count = self.shards.len();
        let fresh: Vec<Allocators> = (0..u8::try_from(count).unwrap_or(u8::MAX))
            .map(|number| Allocators::new(&serving.plan, self.seed, ShardId(number), count, self.share))
            .collect();
        // Plan and allocators change together: a shard that takes its allocators looks at the generation under the same
        // lock, so it never has those of another plan.
        let mut places: Vec<_> = self.shared.allocators.iter().map(|place| place.lock()).collect();
        let mut done_with = Vec::with_capacity(count);
        for (place, fresh) in places.iter_mut().zip(fresh) {
            done_with.push(place.replace(fresh));
        }
        self.retired.push(self.shared.serving.publish(serving));
        drop(places);
        drop(done_with);
        for shard in &self.shards {
            shard.bell.ring();
        }
        self.sweep();
        Ok(())
    }

    /// Frees plans that no shard uses any more.
    pub fn sweep(&mut self) {
        self.retired.retain(|serving| Arc::strong_count(serving) > 1);
    }

    /// Clients are served, or not.
    pub fn enable(&self, enabled: bool) {
        self.shared.enabled.store(enabled, Ordering::Relaxed);
    }

    /// The plan in force.
    #[must_use]
    pub fn serving(&self) -> Arc<Serving> {
        self.shared.serving.load()
    }

    /// Whether everything up to `lsn` of a shard is durable.
    #[must_use]
    pub fn is_durable(&self, shard: ShardId, lsn: Lsn) -> bool {
        self.shards.get(usize::from(shard.0)).is_none_or(|shard| shard.durable.read() >= lsn)
    }

    /// Asks the log thread to move the lease file aside for a clean-up; [`Self::take_rotation`] tells what became of it.
    pub fn ask_rotation(&self) {
        *self.log.rotated.lock() = None;
        self.log.rotate.store(true, Ordering::Release);
        self.log_bell.ring();
    }

    /// What became of the rotation asked for, once: true when a clean-up has work to do.
    #[must_use]
    pub fn take_rotation(&self) -> Option<Result<bool, String>> {
        self.log.rotated.lock().take()
    }

    /// Says that the control thread waits for a change to become durable. Look at [`Self::is_durable`] once more after
    /// it: a group that was published before is not told again.
    pub fn await_durability(&self) {
        self.log.awaited.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// Ends everything: shards first, then the log with all that they have logged.
    ///
    /// # Errors
    /// What the log thread could not write.
    pub fn stop(mut self) -> Result<(), String> {
        self.enable(false);
        for shard in &self.shards {
            // A shard that takes no orders any more has ended.
            let _ = shard.orders.send(Order::Stop);
            shard.bell.ring();
        }
        for shard in &mut self.shards {
            if let Some(thread) = shard.thread.take() {
                thread.join().map_err(|_| "a shard has failed".to_owned())?;
            }
        }
        self.log.stop.store(true, Ordering::Release);
        self.log_bell.ring();
        if let Some(thread) = self.log_thread.take() {
            thread.join().map_err(|_| "the log thread has failed".to_owned())?;
        }
        self.log.failure.lock().take().map_or(Ok(()), Err)
    }
}

/// One shard's part of `parked-packet-limit`.
fn park_peers_max(parked_max: u32, shard_count: usize, most: usize) -> usize {
    match usize::try_from(parked_max).unwrap_or(usize::MAX) {
        0 => most,
        limit => limit.div_ceil(shard_count).min(most),
    }
}

fn shard_thread(mut shard: ShardLoop<AnyPort>, clock: &Clock) {
    while !shard.is_stopping() {
        let busy = shard.turn(clock.now(), clock.wall_us().saturating_mul(1000));
        if !busy && shard.sleep(SHARD_SLEEP).is_err() {
            // Polling fails only when the kernel has no memory: the next turn goes on without sleep.
            std::thread::yield_now();
        }
    }
    shard.end();
}
