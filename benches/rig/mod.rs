//! One shard put together by hand, for benches and tests that turn it in their own thread: its log ring is drained and its
//! watermark published by the caller, its clients are numbers.
#![allow(dead_code, reason = "each of its users needs a part")]

pub(crate) mod port;

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use aplomado::allocate::Share;
use aplomado::classify::steer::Steering;
use aplomado::config::finding::Report;
use aplomado::config::load::{Source, SystemInterface, load};
use aplomado::config::plan::{Surroundings, build};
use aplomado::control::log::SampleQueue;
use aplomado::exchange::allocators::Allocators;
use aplomado::exchange::leases::Leases;
use aplomado::exchange::serving::{Serving, StatsBook};
use aplomado::exchange::stats::ShardCounters;
use aplomado::exchange::{Arrival, Shard};
use aplomado::ids::{HwAddr, InterfaceId, Lsn, ShardId, SubnetId};
use aplomado::journal::{LogRx, log_ring};
use aplomado::lease::address::{AddressSpace, Retiring};
use aplomado::lease::directory::Directory;
use aplomado::lease::table::{LeaseTable, TableLimits};
use aplomado::lease::{Lease4, LeaseState};
use aplomado::net::{BATCH_MAX, Doorbell, Port, PortSet};
use aplomado::server::sampler::SAMPLES_MAX;
use aplomado::server::setup::{prepare_space, reclamation};
use aplomado::server::shard_bell::ShardBell;
use aplomado::server::shard_loop::{
    Crossing, Event, HAND_OVER_SLOTS, HandOver, ORDERS_MAX, Order, ShardLoop, ShardParts, Shared,
};
use aplomado::store;
use aplomado::sync::{PlanCell, Watermark};
use aplomado::time::{Mono, Now};
use aplomado::wire::frame::{self, Addresses, PAYLOAD_OFFSET};
use crossbeam::channel::{Receiver, Sender, bounded};
use crossbeam::queue::ArrayQueue;

/// When every rig starts.
pub(crate) const START_S: u64 = 1_790_000_000;
/// The address of client 0; client `n` has the `n`th after it.
pub(crate) const BASE: u32 = 0x0a00_0000;
/// Our own address, in the subnet of all clients.
pub(crate) const OWN: Ipv4Addr = Ipv4Addr::new(10, 255, 255, 1);
/// Our own hardware address.
pub(crate) const OWN_L2: [u8; 6] = [2, 0xff, 0, 0, 0, 1];

const SEED: u64 = 0x5eed;
const LOG_SLOTS: usize = 4096;

/// A shard, the far end of its log, and the means to feed it.
pub(crate) struct Rig<P> {
    pub(crate) shard: ShardLoop<P>,
    pub(crate) counters: Arc<ShardCounters>,
    pub(crate) serving: Arc<Serving>,
    pub(crate) steering: Steering,
    pub(crate) now: Now,
    others: Vec<Leases>,
    log: LogRx,
    durable: Arc<Watermark>,
    pub(crate) orders: Sender<Order<P>>,
    pub(crate) events: Receiver<Event<P>>,
    /// Keeps the log's bell alive; nobody sleeps on it.
    _sleeper: store::Sleeper,
}

fn shard_id(number: usize) -> ShardId {
    ShardId(u8::try_from(number).expect("few shards"))
}

/// A plan from the text of a configuration, over one interface with [`OWN`].
fn serving(text: &str, book: &mut StatsBook) -> Arc<Serving> {
    let loaded = load(&[Source { name: "rig", text }], &mut |_: &str| Err(String::new()), None);
    let tree = loaded.dhcp4.expect("a good configuration");
    let surroundings = Surroundings {
        interfaces: vec![SystemInterface { name: "eth0".to_owned(), addresses: vec![OWN] }],
        ..Surroundings::default()
    };
    let mut report = Report::default();
    let plan = build(&tree, surroundings, &mut report);
    let plan = plan.unwrap_or_else(|| panic!("no plan: {:?}", report.into_findings()));
    let arrivals = vec![Some(Arrival { l2_own: OWN_L2, own_address: OWN, raw: true })];
    Arc::new(Serving::new(plan, reclamation(&tree.expired), arrivals, book))
}

/// What the shards of one server have in common, before they are put together.
struct Common {
    serving: Arc<Serving>,
    steering: Steering,
    shared: Arc<Shared>,
    spare: Arc<ArrayQueue<Box<HandOver>>>,
    inboxes: Vec<Arc<ArrayQueue<Box<HandOver>>>>,
    bells: Vec<Arc<Doorbell>>,
}

impl Common {
    /// The common part of `shard_count` shards that serve `configuration`, and each one's leases with the far end of its log.
    fn new(configuration: &str, shard_count: usize, lease_count: usize) -> (Self, Vec<(Leases, LogRx)>) {
        let mut book = StatsBook::default();
        let serving = serving(configuration, &mut book);
        let steering = Steering::new(SEED, shard_count);
        let space = Arc::new(AddressSpace::new(131_072));
        prepare_space(&space, &serving.plan, None).expect("blocks enough");
        let directory = (shard_count > 1).then(|| Arc::new(Directory::new((2 * lease_count).max(65_536))));
        let leases = (0..shard_count).map(|number| {
            let id = shard_id(number);
            let (log, rx) = log_ring(id, LOG_SLOTS);
            let limits = TableLimits {
                record_count_max: 1 << 26,
                record_count: lease_count / shard_count + 65_536,
                blob_bytes_max: 1 << 30,
            };
            let mut table = LeaseTable::new(limits, [7; 16], START_S);
            table.set_hold_reclaimed_s(serving.reclamation.hold_s);
            let leases = Leases {
                shard: id,
                table,
                space: Arc::clone(&space),
                directory: directory.clone(),
                steering,
                retiring: Retiring::new(65_536),
                log,
                totals: Arc::clone(&book.totals),
                recount: None,
                ended: Lsn(0),
            };
            (leases, rx)
        });
        let leases = leases.collect();
        let spare = Arc::new(ArrayQueue::new(HAND_OVER_SLOTS * shard_count));
        while spare.push(HandOver::boxed()).is_ok() {}
        let inbox = |_| Arc::new(ArrayQueue::new(HAND_OVER_SLOTS * shard_count));
        let shared = Arc::new(Shared {
            serving: PlanCell::new(Arc::clone(&serving)),
            allocators: (0..shard_count).map(|_| parking_lot::Mutex::new(None)).collect(),
            enabled: AtomicBool::new(true),
            samples: Arc::new(SampleQueue::new(SAMPLES_MAX)),
        });
        let common = Self {
            serving,
            steering,
            shared,
            spare,
            inboxes: (0..shard_count).map(inbox).collect(),
            bells: (0..shard_count).map(|_| Arc::new(Doorbell::new().expect("an eventfd"))).collect(),
        };
        (common, leases)
    }

    /// The shard of these leases.
    fn rig<P: Port>(&self, leases: Leases, log: LogRx, port: P) -> Rig<P> {
        let id = leases.shard;
        let counters = Arc::new(ShardCounters::default());
        let allocators = Allocators::new(&self.serving.plan, SEED, id, self.bells.len(), Share::default());
        let mut ports = PortSet::new(Arc::clone(&self.bells[usize::from(id.0)]));
        assert!(ports.add(port).is_ok(), "an empty set has room");
        let (orders, orders_rx) = bounded(ORDERS_MAX);
        // Bounded, so that what a shard says to the control thread does not allocate either.
        let (events_tx, events) = bounded(ORDERS_MAX);
        let (log_bell, sleeper) = store::doorbell();
        let durable = Arc::new(Watermark::default());
        let shard = ShardLoop::new(ShardParts {
            shard: Shard::new(leases, allocators, Arc::clone(&counters)),
            ports,
            shared: Arc::clone(&self.shared),
            crossing: Crossing {
                spare: Arc::clone(&self.spare),
                inboxes: self.inboxes.clone(),
                bells: self.bells.clone(),
            },
            orders: orders_rx,
            events: events_tx,
            wake_control: Box::new(|| {}),
            log_bell,
            bell: Arc::new(ShardBell::new(
                Arc::clone(&self.bells[usize::from(id.0)]),
                Arc::clone(&durable),
                Vec::new(),
            )),
            pairs: Vec::new(),
            park_disk_max: 16_384,
            park_peers_max: 64,
        });
        Rig {
            shard,
            counters,
            serving: Arc::clone(&self.serving),
            steering: self.steering,
            now: Now { mono: Mono(0), wall_s: START_S },
            others: Vec::new(),
            log,
            durable,
            orders,
            events,
            _sleeper: sleeper,
        }
    }
}

impl<P: Port> Rig<P> {
    /// Shard 0 of `shard_count` with `port` on interface 0, room for `lease_count` leases, serving `configuration`.
    pub(crate) fn new(configuration: &str, shard_count: usize, port: P, lease_count: usize) -> Self {
        let (common, leases) = Common::new(configuration, shard_count, lease_count);
        let mut leases = leases.into_iter();
        let (own, log) = leases.next().expect("one shard at least");
        Self { others: leases.map(|(leases, _)| leases).collect(), ..common.rig(own, log, port) }
    }

    /// All shards of one server, one for each port, with room for `lease_count` leases together.
    pub(crate) fn group(configuration: &str, ports: Vec<P>, lease_count: usize) -> Vec<Self> {
        let (common, leases) = Common::new(configuration, ports.len(), lease_count);
        leases.into_iter().zip(ports).map(|((leases, log), port)| common.rig(leases, log, port)).collect()
    }

    /// Stores the lease of client `number` with its owner, `age_s` seconds old.
    pub(crate) fn lease(&mut self, number: u32, age_s: u64, valid_lft: u32, hostname: &[u8]) {
        self.lease_at((address(number), SubnetId(1)), number, age_s, valid_lft, hostname);
    }

    /// Stores a lease like [`Self::lease`] at an address of a subnet.
    pub(crate) fn lease_at(
        &mut self,
        (address, subnet_id): (Ipv4Addr, SubnetId),
        number: u32,
        age_s: u64,
        valid_lft: u32,
        hostname: &[u8],
    ) {
        let client_id = client_id(number);
        let lease = Lease4 {
            address,
            hw_addr: HwAddr::ethernet(mac(number)),
            client_id: &client_id,
            cltt: START_S - age_s,
            valid_lft,
            subnet_id,
            pool_id: 0,
            state: LeaseState::Assigned,
            fqdn_fwd: false,
            fqdn_rev: false,
            hostname,
            user_context: &[],
        };
        let owner = self.steering.owner(&lease.hw_addr);
        let own = &mut self.shard.shard().leases;
        let leases = if owner == own.shard {
            own
        } else {
            self.others.iter_mut().find(|other| other.shard == owner).expect("a shard of the rig")
        };
        leases.table.grow_now();
        // As after weeks of work: renewals leave a lease where the wheel will look at it in vain, at any time until it ends.
        let lease_s = u64::from(valid_lft);
        let left_s = lease_s.saturating_sub(age_s);
        let looked_at_in_s = (u64::from(number).wrapping_mul(0x9e37_79b9) % left_s.max(1) + 1).min(left_s);
        let first_cltt = if left_s == 0 { lease.cltt } else { START_S + looked_at_in_s - lease_s };
        let first = Lease4 { cltt: first_cltt, ..lease };
        leases.load(&self.serving, &first).expect("room for every lease of the rig");
        let hash = leases.table.hash_client_id(&client_id);
        let stored = leases.table.with_client_id(hash, &client_id).next().expect("it was just stored");
        leases.table.renew(stored, lease.cltt, valid_lft);
    }

    /// Does the log thread's part: what was logged is durable now. Gives the number of changes.
    pub(crate) fn drain_log(&mut self) -> usize {
        let count = self.log.drain(usize::MAX, |_, _, change| {
            std::hint::black_box(change);
        });
        self.durable.publish(self.log.drained());
        count
    }

    /// Does the control thread's part: gives the table the memory that it has asked for.
    pub(crate) fn mind_control(&self) {
        while let Ok(event) = self.events.try_recv() {
            if let Event::Want(_, want) = event {
                assert!(self.orders.try_send(Order::Memory(want.allocate())).is_ok(), "orders are taken");
            }
        }
    }

    /// One turn at the rig's time.
    pub(crate) fn turn(&mut self) -> bool {
        self.shard.turn(self.now, self.now.wall_s * 1_000_000_000)
    }
}

/// The hardware address of a client.
pub(crate) fn mac(number: u32) -> [u8; 6] {
    let [a, b, c, d] = number.to_be_bytes();
    [2, 0, a, b, c, d]
}

/// The client identifier: type 1 and the hardware address.
pub(crate) fn client_id(number: u32) -> [u8; 7] {
    let [a, b, c, d] = number.to_be_bytes();
    [1, 2, 0, a, b, c, d]
}

/// The address of a client's lease, if the rig has given it one.
pub(crate) fn address(number: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(BASE + number)
}

/// A DHCP message that a client or a relay sends.
pub(crate) struct Message<'a> {
    pub(crate) kind: u8,
    pub(crate) client: u32,
    pub(crate) ciaddr: Ipv4Addr,
    pub(crate) giaddr: Ipv4Addr,
    /// To us alone; else to everybody.
    pub(crate) unicast: bool,
    /// Options after 53, without END.
    pub(crate) options: &'a [u8],
}

impl Message<'_> {
    /// A message of type `kind` from a client that has no address yet.
    pub(crate) const fn new(kind: u8, client: u32) -> Self {
        Self {
            kind,
            client,
            ciaddr: Ipv4Addr::UNSPECIFIED,
            giaddr: Ipv4Addr::UNSPECIFIED,
            unicast: false,
            options: &[],
        }
    }

    /// Writes the whole frame, at least 342 octets, checksums and all; gives its length.
    pub(crate) fn write(&self, out: &mut [u8]) -> usize {
        let payload = &mut out[PAYLOAD_OFFSET..];
        payload[..300].fill(0);
        payload[..4].copy_from_slice(&[1, 1, 6, u8::from(!self.giaddr.is_unspecified())]);
        payload[4..8].copy_from_slice(&self.client.wrapping_mul(0x9e37_79b9).to_be_bytes());
        payload[12..16].copy_from_slice(&self.ciaddr.octets());
        payload[24..28].copy_from_slice(&self.giaddr.octets());
        payload[28..34].copy_from_slice(&mac(self.client));
        payload[236..243].copy_from_slice(&[0x63, 0x82, 0x53, 0x63, 53, 1, self.kind]);
        let end = 243 + self.options.len();
        payload[243..end].copy_from_slice(self.options);
        payload[end] = 255;
        let payload_len = (end + 1).max(300);
        let relayed = !self.giaddr.is_unspecified();
        let addresses = Addresses {
            l2_src: if relayed { [2, 0xfe, 0, 0, 0, 9] } else { mac(self.client) },
            l2_dst: if self.unicast || relayed { OWN_L2 } else { frame::BROADCAST },
            src: if relayed { self.giaddr } else { self.ciaddr },
            dst: if self.unicast || relayed { OWN } else { Ipv4Addr::BROADCAST },
            src_port: if relayed { 67 } else { 68 },
            dst_port: 67,
        };
        frame::emit(out, &addresses, payload_len).expect("a frame has room")
    }
}

/// Visits every number below `count` once per round, in no order that a cache could follow.
pub(crate) struct Shuffle {
    at: u64,
    stride: u64,
    count: u64,
}

impl Shuffle {
    pub(crate) fn new(count: u32) -> Self {
        let count = u64::from(count);
        // Without a common divisor every number comes once; about the golden section, neighbours in time lie far apart.
        let mut stride = (count * 618_034 / 1_000_000) | 1;
        while gcd(stride, count) != 1 {
            stride += 2;
        }
        Self { at: 0, stride, count }
    }

    pub(crate) fn step(&mut self) -> u32 {
        self.at = (self.at + self.stride) % self.count;
        u32::try_from(self.at).expect("below a count of 32 bits")
    }
}

fn gcd(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

/// Frames of one batch.
pub(crate) const BATCH: usize = BATCH_MAX;
/// The interface of every rig.
pub(crate) const INTERFACE: InterfaceId = InterfaceId(0);
