//! Shards as the server puts them together: one thread serves them all in turn, time is made up, the disk is a map.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use aplomado::allocate::Share;
use aplomado::classify::steer::Steering;
use aplomado::config::finding::{Finding, Report};
use aplomado::config::load::{Source, SystemInterface, load};
use aplomado::config::plan::{Plan, PoolIndex, Surroundings, build};
use aplomado::exchange::allocators::Allocators;
use aplomado::exchange::leases::Leases;
use aplomado::exchange::reclaim::Cycles;
use aplomado::exchange::request::{Job, Progress};
use aplomado::exchange::serving::{Serving, StatsBook};
use aplomado::exchange::stats::{LeaseStats, ShardCounters};
use aplomado::exchange::{Arrival, Given, Outcome, Shard, SubnetScope};
use aplomado::ids::{ClassId, InterfaceId, LeaseRef, Lsn, ShardId, SubnetId};
use aplomado::journal::{Change, LogRx, log_ring};
use aplomado::lease::address::{AddressSpace, Retiring};
use aplomado::lease::directory::Directory;
use aplomado::lease::request::{LeaseReply, LeaseRequest};
use aplomado::lease::table::{LeaseTable, TableLimits};
use aplomado::lease::{Lease4, Lease4Buf};
use aplomado::net::FRAME_BYTES;
use aplomado::server::setup;
use aplomado::time::{Mono, Now};
use aplomado::wire::codes::MessageType;
use aplomado::wire::dhcp4;
use aplomado::wire::drop::DropReason;
use aplomado::wire::frame::{self, Arrival as FrameArrival};
use aplomado::wire::option::OptionTable;
use aplomado::wire::query::Query;

use super::packet::{SERVER, SERVER_MAC};

/// The interfaces: `v0` is where queries come from unless said otherwise.
pub(crate) const INTERFACES: [(&str, Ipv4Addr); 2] = [("v0", SERVER), ("v1", Ipv4Addr::new(10, 20, 0, 1))];
const SEED: u64 = 0x5eed;

/// What became of a query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// The frame that left.
    Answered(Vec<u8>),
    /// Served, and never answered.
    Served,
    /// Dropped.
    Dropped(DropReason),
}

/// A server without threads, sockets and clocks.
pub(crate) struct World {
    pub(crate) serving: Serving,
    pub(crate) shards: Vec<Shard>,
    pub(crate) now: Now,
    /// What the disk holds: the last row of each address.
    pub(crate) disk: BTreeMap<Ipv4Addr, Lease4Buf>,
    /// Rows written so far.
    pub(crate) row_count: u64,
    /// Replies of each shard that would wait where a partner is waited for: the lease and its row.
    pub(crate) promised: Vec<(ShardId, LeaseRef, Lsn)>,
    /// While false, rows stay where they are and addresses given up stay closed.
    pub(crate) disk_works: bool,
    /// Classes of the HA scope.
    pub(crate) scope: Vec<ClassId>,
    /// What judges queries by their subnet.
    pub(crate) by_subnet: Option<Box<dyn SubnetScope>>,
    pub(crate) totals: Arc<LeaseStats>,
    members: String,
    logs: Vec<LogRx>,
    cycles: Vec<Cycles>,
    shard_count: usize,
}

/// The interfaces of the made-up machine.
fn machine() -> Vec<SystemInterface> {
    INTERFACES
        .iter()
        .map(|(name, address)| SystemInterface { name: (*name).to_owned(), addresses: vec![*address] })
        .collect()
}

/// The plan of a `Dhcp4` block with these members, with what else its configuration says.
fn serving(members: &str, book: &mut StatsBook) -> Serving {
    let text = format!("{{ \"Dhcp4\": {{ {members} }} }}");
    let mut no_files = |name: &str| Err(format!("no file {name}"));
    let loaded = load(&[Source { name: "test", text: &text }], &mut no_files, Some(&machine()));
    let complain = |findings: &[Finding]| -> ! {
        let all: Vec<String> = findings.iter().map(Finding::kea_text).collect();
        panic!("the configuration cannot be used:\n{}", all.join("\n"));
    };
    let Some(tree) = &loaded.dhcp4 else { complain(&loaded.findings) };
    let mut report = Report::default();
    report.files = loaded.files.clone();
    let plan: Plan = match build(tree, Surroundings { generation: 1, interfaces: machine() }, &mut report) {
        Some(plan) => plan,
        None => complain(&report.into_findings()),
    };
    let raw = setup::socket_type(tree) == aplomado::net::link::SocketType::Raw;
    let arrivals = INTERFACES
        .iter()
        .map(|(_, own_address)| Some(Arrival { l2_own: SERVER_MAC, own_address: *own_address, raw }))
        .collect();
    Serving::new(plan, setup::reclamation(&tree.expired), arrivals, book)
}

impl World {
    /// A server of `shard_count` shards with the members of a `Dhcp4` block as its configuration.
    pub(crate) fn new(members: &str, shard_count: usize) -> Self {
        Self::with_leases(
            members,
            shard_count,
            &BTreeMap::new(),
            Now { mono: Mono(1_000_000_000), wall_s: 1_700_000_000 },
        )
    }

    /// The same, with the leases of `disk` loaded as after a start.
    fn with_leases(
        members: &str,
        shard_count: usize,
        disk: &BTreeMap<Ipv4Addr, Lease4Buf>,
        now: Now,
    ) -> Self {
        let mut book = StatsBook::default();
        let serving = serving(members, &mut book);
        let space = Arc::new(AddressSpace::new(4096));
        setup::prepare_space(&space, &serving.plan, None).expect("room for a small plan");
        let steering = Steering::new(SEED, shard_count);
        let directory = (shard_count > 1).then(|| Arc::new(Directory::new(4096)));
        let (mut shards, mut logs) = (Vec::new(), Vec::new());
        for number in 0..shard_count {
            let id = ShardId(u8::try_from(number).expect("few shards"));
            let (log, rx) = log_ring(id, 1024);
            let limits =
                TableLimits { record_count_max: 65_536, record_count: 4096, blob_bytes_max: 1 << 21 };
            let mut table = LeaseTable::new(limits, [7; 16], now.wall_s);
            table.set_hold_reclaimed_s(serving.reclamation.hold_s);
            let leases = Leases {
                shard: id,
                table,
                space: Arc::clone(&space),
                directory: directory.clone(),
                steering,
                retiring: Retiring::new(4096),
                log,
                totals: Arc::clone(&book.totals),
                recount: None,
                ended: Lsn(0),
            };
            let allocators = Allocators::new(&serving.plan, SEED, id, shard_count, Share::Whole);
            shards.push(Shard::new(leases, allocators, Arc::new(ShardCounters::default())));
            logs.push(rx);
        }
        for lease in disk.values() {
            let lease = lease.view();
            // What memory knows and files do not: the hardware type.
            let hw_addr = aplomado::ids::HwAddr::new(1, lease.hw_addr.as_bytes()).expect("it was one");
            let lease = Lease4 { hw_addr, ..lease };
            space.ensure(lease.address, lease.address).expect("room");
            let owner = steering.owner(&hw_addr);
            shards[usize::from(owner.0)].leases.load(&serving, &lease).expect("it was loaded before");
        }
        Self {
            cycles: vec![Cycles::default(); shard_count],
            serving,
            shards,
            now,
            disk: disk.clone(),
            row_count: 0,
            promised: Vec::new(),
            disk_works: true,
            scope: Vec::new(),
            by_subnet: None,
            totals: book.totals,
            members: members.to_owned(),
            logs,
            shard_count,
        }
    }

    /// The server ends and starts again with what the disk holds.
    pub(crate) fn restart(&mut self) {
        self.write();
        *self = Self::with_leases(&self.members, self.shard_count, &self.disk, self.now);
    }

    /// Puts a frame to the shard that would receive it, and to those that it is handed to.
    pub(crate) fn put(&mut self, bytes: &[u8], interface: &str) -> Fate {
        let arrival = FrameArrival::default();
        let first = frame::parse(bytes, arrival).ok().map_or(ShardId(0), |datagram| {
            // The kernel's program reads the hardware address where it stands in the payload.
            let payload = datagram.payload(bytes);
            let mut six = [0; 6];
            if let Some(octets) = payload.get(28..34) {
                let len = usize::from(payload[2]).min(6);
                six[..len].copy_from_slice(&octets[..len]);
            }
            self.shards[0].leases.steering.owner_of_six(six)
        });
        self.put_to(first, bytes, interface)
    }

    /// The same for a frame that came in at a certain shard.
    pub(crate) fn put_to(&mut self, first: ShardId, bytes: &[u8], interface: &str) -> Fate {
        let position = INTERFACES.iter().position(|(name, _)| *name == interface).expect("an interface");
        let id = InterfaceId(u16::try_from(position).expect("few interfaces"));
        let fate = match self.step(first, bytes, id, false) {
            Err(next) => match self.step(next, bytes, id, true) {
                Err(last) => self.step(last, bytes, id, true).expect("a query is handed over twice at most"),
                Ok(fate) => fate,
            },
            Ok(fate) => fate,
        };
        self.write();
        fate
    }

    /// A command to one shard, done to its end and written.
    pub(crate) fn command(&mut self, shard: ShardId, request: LeaseRequest) -> LeaseReply {
        let mut job = Job::new(request);
        loop {
            let shard = &mut self.shards[usize::from(shard.0)];
            match shard.serve(&self.serving, self.now, job) {
                Progress::More(more) => job = more,
                Progress::Done(reply, _) => {
                    self.write();
                    return reply;
                }
            }
        }
    }

    /// One shard's part: what became of the query, or the shard that it goes to.
    fn step(
        &mut self,
        shard: ShardId,
        bytes: &[u8],
        interface: InterfaceId,
        handed_over: bool,
    ) -> Result<Fate, ShardId> {
        let id = shard;
        let shard = &mut self.shards[usize::from(id.0)];
        let counters = Arc::clone(&shard.counters);
        let dropped = |reason| {
            counters.dropped(reason);
            Ok(Fate::Dropped(reason))
        };
        let datagram = match frame::parse(bytes, FrameArrival::default()) {
            Ok(datagram) => datagram,
            Err(reason) => return dropped(reason),
        };
        if !handed_over {
            counters.received();
        }
        let payload = datagram.payload(bytes);
        let mut options = OptionTable::new();
        let strict = self.serving.plan.globals.strictness();
        let head = match dhcp4::parse_with(payload, &mut options, strict) {
            Ok(head) => head,
            Err(reason) => return dropped(reason),
        };
        if !handed_over {
            counters.received_type(head.message_type);
        }
        let query =
            Query::new(&datagram, payload, &options, head, interface).expect("it has just been parsed");
        let arrival = *self.serving.arrival(interface).expect("every interface is served");
        let given = Given {
            now: self.now,
            came_ns: 0,
            arrival: &arrival,
            scope_classes: &self.scope,
            by_subnet: self.by_subnet.as_deref(),
            handed_over,
            key_hash: None,
        };
        let mut out = [0; FRAME_BYTES];
        match shard.process(&self.serving, &given, &query, &mut out) {
            Outcome::Drop(reason) => dropped(reason),
            Outcome::HandOver(next) => {
                counters.handed_over(Ok(()));
                Err(next)
            }
            Outcome::Park { len, kind, lsn, lease } => {
                self.promised.push((id, lease, lsn));
                counters.sent(kind);
                Ok(Fate::Answered(out[..len].to_vec()))
            }
            Outcome::Reply { len, kind } => {
                counters.sent(kind);
                Ok(Fate::Answered(out[..len].to_vec()))
            }
            Outcome::Done(_) => {
                counters.dropped(DropReason::NoAnswer);
                Ok(Fate::Served)
            }
        }
    }

    /// The replies that wait leave.
    pub(crate) fn replies_leave(&mut self) {
        for (shard, lease, _) in std::mem::take(&mut self.promised) {
            self.shards[usize::from(shard.0)].leases.promise(lease);
        }
    }

    /// How many replies that waited since the last time that this was asked must not leave any more.
    pub(crate) fn taken_back(&mut self) -> usize {
        let promised = std::mem::take(&mut self.promised);
        let is_over = |&(shard, lease, lsn): &(ShardId, LeaseRef, Lsn)| {
            !self.shards[usize::from(shard.0)].leases.is_promised(lease, lsn)
        };
        promised.iter().filter(|promise| is_over(promise)).count()
    }

    /// The log threads's part: rows to the disk, addresses given up opened.
    pub(crate) fn write(&mut self) {
        if !self.disk_works {
            return;
        }
        let (disk, count) = (&mut self.disk, &mut self.row_count);
        for (shard, log) in self.shards.iter_mut().zip(&mut self.logs) {
            log.drain(usize::MAX, |_, _, change| {
                *count += 1;
                match change {
                    Change::Put(lease) => {
                        disk.insert(lease.address, lease.to_owned());
                    }
                    Change::Delete(lease) => {
                        disk.remove(&lease.address);
                    }
                }
            });
            let durable: Lsn = log.drained();
            let Shard { leases, allocators, .. } = shard;
            leases.settle(durable, |address| allocators.freed(&self.serving.plan, address));
        }
    }

    /// Lets time pass; shards do what they do about it at the end.
    pub(crate) fn advance(&mut self, ms: u64) {
        self.now = self.now.plus_ms(ms);
        loop {
            let mut busy = false;
            for (shard, cycles) in self.shards.iter_mut().zip(&mut self.cycles) {
                busy |= shard.pass_time(&self.serving, self.now, cycles);
            }
            self.write();
            if !busy {
                break;
            }
        }
    }

    /// Lets time pass in steps of a second, as it does.
    pub(crate) fn live_through(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.advance(1000);
        }
    }

    /// A number that the server counts: `assigned`, `subnet[1].assigned`, `pool[0].assigned`, `drop.NAME`, `received`,
    /// `sent`, `sent.offer`, `rows`.
    pub(crate) fn count(&self, name: &str) -> i64 {
        let sum = |of: &dyn Fn(&ShardCounters) -> u64| -> i64 {
            let total: u64 = self.shards.iter().map(|shard| of(&shard.counters)).sum();
            i64::try_from(total).expect("few packets")
        };
        if let Some(reason) = name.strip_prefix("drop.") {
            let reason = reason_named(reason);
            return sum(&|counters| counters.drop_count(reason));
        }
        match name {
            "rows" => return i64::try_from(self.row_count).expect("few rows"),
            "received" => return sum(&|counters| counters.received_count()),
            "sent" => return sum(&|counters| counters.sent_count()),
            "sent.offer" => return sum(&|counters| counters.sent_type_count(MessageType::Offer)),
            "sent.ack" => return sum(&|counters| counters.sent_type_count(MessageType::Ack)),
            "sent.nak" => return sum(&|counters| counters.sent_type_count(MessageType::Nak)),
            "received.discover" => {
                return sum(&|counters| counters.received_type_count(Some(MessageType::Discover)));
            }
            "received.unknown" => return sum(&|counters| counters.received_type_count(None)),
            _ => {}
        }
        let between = |text: &str| -> u32 {
            let inside = text.split_once('[').and_then(|(_, rest)| rest.split_once(']')).expect("[NUMBER]");
            inside.0.parse().expect("a number")
        };
        let (stats, name): (&LeaseStats, &str) = match name.split_once("].") {
            Some((scope, rest)) if scope.starts_with("subnet[") => {
                let id = SubnetId(between(&format!("{scope}]")));
                let index = self.serving.plan.subnet_by_id(id).expect("a subnet of the plan");
                (self.serving.subnet_stats(index), rest)
            }
            Some((scope, rest)) => (self.serving.pool_stats(PoolIndex(between(&format!("{scope}]")))), rest),
            None => (&self.totals, name),
        };
        let counter = match name {
            "assigned" => &stats.assigned,
            "cumulative" => &stats.cumulative_assigned,
            "declined" => &stats.declined,
            "reclaimed" => &stats.reclaimed,
            "reclaimed-declined" => &stats.reclaimed_declined,
            "reuses" => &stats.reuses,
            "conflicts" => &stats.reservation_conflicts,
            "fail" => &stats.fail,
            "fail-no-pools" => &stats.fail_no_pools,
            "fail-subnet" => &stats.fail_subnet,
            "fail-shared-network" => &stats.fail_shared_network,
            "fail-classes" => &stats.fail_classes,
            other => panic!("{other}: no such counter"),
        };
        counter.load(Ordering::Relaxed)
    }
}

/// The reason whose own counter has this name.
pub(crate) fn reason_named(name: &str) -> DropReason {
    let found = DropReason::ALL.iter().find(|reason| reason.name() == name);
    *found.unwrap_or_else(|| panic!("{name}: no such reason"))
}
