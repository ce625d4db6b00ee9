//! Whole frames of 342 octets through a whole shard: received from a port, parsed, classified, looked up, decided, encoded into
//! a frame of the slab, logged, parked, released and sent to a port.
//!
//! | case | what its clients do |
//! |---|---|
//! | `discover/SIZE` | a client with a lease discovers: it is offered its address |
//! | `renew/SIZE` | a client renews past the lease cache: its row is logged, its ACK parked and released a turn later |
//! | `renew/uncached` | the same with the lease cache off and time standing still, 1 M leases |
//! | `renew/cached` | the same within the lease cache: no row, 1 M leases |
//! | `renew/named` | as `renew/1m`, the client sends its host name and its lease keeps it |
//! | `discover/unknown` | a client that nobody knows is offered an address; two shards and their directory, 1 M leases |
//! | `port/alone` | what the port below costs: the same frames through its calls and nothing between |
//!
//! Clients come in an order that no cache follows. The port is the smallest there can be: 64 frames in a fixed place, each answer
//! copied to another. Making the frames and the log thread's work (it is another thread's) are outside the time.
//!
//! `APLOMADO_BENCH_10M=1` adds ten million leases (it needs about 3 GB); `APLOMADO_BENCH_SMOKE=1` makes every size tiny;
//! `APLOMADO_BENCH_INSTRUCTIONS=CASE` runs one case for an instruction counter (`scripts/instructions`).

mod rig;

use std::fmt::Write as _;
use std::hint::black_box;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use aplomado::ids::{HwAddr, InterfaceId, ShardId};
use aplomado::net::{FrameSlab, Port, PortStats, RxBatch, RxFrame, SendReport, TxBatch};
use criterion::{Criterion, Throughput};
use rig::{BATCH, INTERFACE, Message, Rig, Shuffle, address, client_id};

const DISCOVER: u8 = 1;
const REQUEST: u8 = 3;
/// Octets of a place for a frame.
const PLACE_BYTES: usize = 512;
/// Turns before the first that counts.
const WARM_TURNS: usize = 300;

/// The smallest port: what it receives lies in place already, what it sends is copied once.
struct BenchPort {
    frames: Vec<[u8; PLACE_BYTES]>,
    /// What describes each of them.
    places: [RxFrame; BATCH],
    count: usize,
    out: Vec<[u8; PLACE_BYTES]>,
}

impl BenchPort {
    fn new() -> Self {
        Self {
            frames: vec![[0; PLACE_BYTES]; BATCH],
            places: std::array::from_fn(|_| RxFrame::default()),
            count: 0,
            out: vec![[0; PLACE_BYTES]; BATCH],
        }
    }
}

impl Port for BenchPort {
    fn interface(&self) -> InterfaceId {
        INTERFACE
    }

    fn recv_batch(&mut self, batch: &mut RxBatch) -> io::Result<usize> {
        let count = std::mem::take(&mut self.count);
        for place in &self.places[..count] {
            batch.push(*place);
        }
        Ok(count)
    }

    fn bytes(&self, frame: &RxFrame) -> &[u8] {
        &self.frames[frame.offset as usize][..usize::from(frame.len)]
    }

    fn recycle(&mut self) {}

    fn is_ready(&self) -> bool {
        self.count > 0
    }

    fn send_batch(&mut self, batch: &TxBatch, slab: &FrameSlab) -> SendReport {
        let mut report = SendReport::default();
        for (place, sent) in self.out.iter_mut().zip(batch.frames()) {
            let len = usize::from(sent.len);
            place[..len].copy_from_slice(&slab.bytes(&sent.frame)[..len]);
            report.sent += 1;
        }
        black_box(&self.out);
        report
    }

    fn set_addresses(&mut self, _addresses: &[Ipv4Addr]) {}

    fn stats(&mut self) -> PortStats {
        PortStats::default()
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

/// What the clients of a case do.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Work {
    Discover,
    Unknown,
    Renew { cached: bool, named: bool, moving: bool },
}

/// One case: its name, its work, its leases.
#[derive(Clone, Copy)]
struct Case {
    name: &'static str,
    work: Work,
    lease_count: u32,
}

const RENEW: Work = Work::Renew { cached: false, named: false, moving: true };
const CASES: [Case; 10] = [
    Case { name: "discover/10k", work: Work::Discover, lease_count: 10_000 },
    Case { name: "renew/10k", work: RENEW, lease_count: 10_000 },
    Case { name: "discover/1m", work: Work::Discover, lease_count: 1_000_000 },
    Case { name: "renew/1m", work: RENEW, lease_count: 1_000_000 },
    Case { name: "discover/unknown", work: Work::Unknown, lease_count: 1_000_000 },
    Case {
        name: "renew/uncached",
        work: Work::Renew { cached: false, named: false, moving: false },
        lease_count: 1_000_000,
    },
    Case {
        name: "renew/cached",
        work: Work::Renew { cached: true, named: false, moving: false },
        lease_count: 1_000_000,
    },
    Case {
        name: "renew/named",
        work: Work::Renew { cached: false, named: true, moving: true },
        lease_count: 1_000_000,
    },
    Case { name: "discover/10m", work: Work::Discover, lease_count: 10_000_000 },
    Case { name: "renew/10m", work: RENEW, lease_count: 10_000_000 },
];

/// A shard at work on a case.
struct Bench {
    case: Case,
    rig: Rig<BenchPort>,
    shuffle: Shuffle,
    /// The next client that nobody knows.
    stranger: u32,
}

/// The host name of a client that has one.
fn host_name(number: u32) -> String {
    format!("client-{number:08x}")
}

impl Bench {
    fn new(case: Case) -> Self {
        let Case { work, lease_count, .. } = case;
        // A renewal comes after 39 % of the lifetime: one second is one turn of the moving cases.
        let turns_per_round = lease_count.div_ceil(64);
        let valid_s = (turns_per_round * 256 / 100).max(600);
        let moving = matches!(work, Work::Renew { moving: true, .. });
        let threshold =
            if matches!(work, Work::Renew { cached: false, moving: false, .. }) { 0.0 } else { 0.25 };
        let last = address(lease_count + lease_count / 4 + 4096);
        let mut text = String::new();
        let _ = write!(
            text,
            r#"{{ "Dhcp4": {{ "interfaces-config": {{ "interfaces": [ "eth0" ] }},
            "valid-lifetime": {valid_s}, "cache-threshold": {threshold:?},
            "option-data": [ {{ "name": "domain-name-servers", "data": "192.0.2.1, 192.0.2.2" }},
                {{ "name": "domain-name", "data": "example.com" }} ],
            "subnet4": [ {{ "id": 1, "subnet": "10.0.0.0/8", "interface": "eth0",
                "pools": [ {{ "pool": "10.0.0.0-{last}" }} ],
                "option-data": [ {{ "name": "routers", "data": "10.255.255.254" }} ] }} ] }} }}"#
        );
        let shard_count = if work == Work::Unknown { 2 } else { 1 };
        let count = usize::try_from(lease_count).expect("widening");
        let mut rig = Rig::new(&text, shard_count, BenchPort::new(), count);
        let named = matches!(work, Work::Renew { named: true, .. });
        let mut order = Shuffle::new(lease_count);
        for position in 0..lease_count {
            // In the order of renewal, so that a moving case finds every lease as old as the round is long.
            let number = order.step();
            let age_s = if moving { u64::from(turns_per_round - position / 64) } else { 1 };
            let name = if named { host_name(number) } else { String::new() };
            rig.lease(number, age_s, valid_s, name.as_bytes());
        }
        let mut bench = Self { case, rig, shuffle: Shuffle::new(lease_count), stranger: 0x4000_0000 };
        for _ in 0..WARM_TURNS {
            bench.fill();
            bench.rig.turn();
            bench.after();
        }
        bench
    }

    /// Puts a batch of frames into the port.
    fn fill(&mut self) {
        let Self { case, rig, shuffle, stranger } = self;
        let steering = rig.steering;
        let port = &mut rig.shard.ports().ports_mut()[0];
        for ((place, frame), index) in port.frames.iter_mut().zip(&mut port.places).zip(0..) {
            let client = match case.work {
                Work::Unknown => loop {
                    *stranger = stranger.wrapping_add(1) | 0x4000_0000;
                    if steering.owner(&HwAddr::ethernet(rig::mac(*stranger))) == ShardId(0) {
                        break *stranger;
                    }
                },
                _ => shuffle.step(),
            };
            let mut options = vec![61, 7];
            options.extend(client_id(client));
            let mut message = Message::new(DISCOVER, client);
            match case.work {
                Work::Discover | Work::Unknown => options.extend([57, 2, 5, 192]),
                Work::Renew { named, .. } => {
                    message.kind = REQUEST;
                    message.ciaddr = address(client);
                    message.unicast = true;
                    if named {
                        let name = host_name(client);
                        options.extend([12, u8::try_from(name.len()).expect("short")]);
                        options.extend(name.as_bytes());
                    }
                }
            }
            options.extend([55, 9, 1, 3, 6, 15, 28, 42, 51, 58, 59]);
            message.options = &options;
            let len = message.write(place);
            assert_eq!(len, 342, "the frames that the targets speak of");
            frame.len = u16::try_from(len).expect("342 fits");
            frame.offset = index;
            frame.interface = INTERFACE;
        }
        port.count = BATCH;
    }

    /// What other threads do, and time.
    fn after(&mut self) {
        self.rig.drain_log();
        self.rig.mind_control();
        if matches!(self.case.work, Work::Renew { moving: true, .. }) {
            self.rig.now = self.rig.now.plus_ms(1000);
        }
    }

    /// The time of `batches` turns with full batches.
    fn run(&mut self, batches: u64) -> Duration {
        let mut total = Duration::ZERO;
        let before = self.rig.counters.sent_count();
        for _ in 0..batches {
            self.fill();
            let start = clock();
            measured_turn(&mut self.rig);
            total += start.elapsed();
            self.after();
        }
        // The last batch's parked answers leave with the next turn.
        self.rig.turn();
        let sent = self.rig.counters.sent_count() - before;
        let asked = batches * u64::try_from(BATCH).expect("widening");
        assert!(
            sent >= asked && sent <= asked + u64::try_from(BATCH).expect("widening"),
            "{}: every client is answered: {sent} of {asked}",
            self.case.name
        );
        total
    }
}

/// Calls of [`measured_turn`]. Counted so that the compiler does not take it and [`Rig::turn`] for the same function, which once put
/// the turns of the warming up among the measured ones.
static MEASURED_TURNS: AtomicU64 = AtomicU64::new(0);

/// The one call that instruction counters look at: not inlined, so that it has a name.
#[inline(never)]
fn measured_turn(rig: &mut Rig<BenchPort>) {
    MEASURED_TURNS.fetch_add(1, Ordering::Relaxed);
    black_box(rig.turn());
}

#[expect(clippy::disallowed_methods, reason = "a bench measures time")]
fn clock() -> Instant {
    Instant::now()
}

/// The port's calls of a turn, without the shard between them.
#[inline(never)]
fn measured_port(port: &mut BenchPort, rx: &mut RxBatch, tx: &TxBatch, slab: &FrameSlab) {
    port.count = BATCH;
    let count = port.recv_batch(rx).expect("this port does not fail");
    for frame in &rx.frames()[..count] {
        black_box(port.bytes(frame).len());
    }
    rx.clear();
    port.recycle();
    black_box(port.send_batch(tx, slab));
}

fn port_alone(criterion: &mut Criterion) {
    let mut port = BenchPort::new();
    port.places.iter_mut().for_each(|frame| frame.len = 342);
    let mut slab = FrameSlab::new(u32::try_from(BATCH).expect("few"));
    let (mut rx, mut tx) = (RxBatch::new(), TxBatch::new());
    while let Some(frame) = slab.take() {
        tx.push(frame, 342, INTERFACE);
    }
    let mut group = criterion.benchmark_group("port");
    group.throughput(Throughput::Elements(u64::try_from(BATCH).expect("widening")));
    group.bench_function("alone", |bencher| {
        bencher.iter(|| measured_port(&mut port, &mut rx, &tx, &slab));
    });
}

/// The cases to run, at the sizes that the environment allows.
fn cases() -> impl Iterator<Item = Case> {
    let smoke = std::env::var_os("APLOMADO_BENCH_SMOKE").is_some();
    let large = std::env::var_os("APLOMADO_BENCH_10M").is_some();
    let lease_count_max = if large && !smoke { 10_000_000 } else { 1_000_000 };
    CASES
        .into_iter()
        .filter(move |case| case.lease_count <= lease_count_max)
        .map(move |case| Case { lease_count: if smoke { 2_000 } else { case.lease_count }, ..case })
}

fn shard_turn(criterion: &mut Criterion) {
    let wanted = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    for case in cases() {
        // Leases are loaded only for cases that run.
        if wanted.as_ref().is_some_and(|wanted| !case.name.contains(wanted.as_str())) {
            continue;
        }
        let (kind, size) = case.name.split_once('/').expect("two parts");
        let mut bench = Bench::new(case);
        let mut group = criterion.benchmark_group(kind);
        group.throughput(Throughput::Elements(u64::try_from(BATCH).expect("widening")));
        group.bench_function(size, |bencher| bencher.iter_custom(|batches| bench.run(batches)));
    }
}

/// Runs `name` over 10,000 leases for an instruction counter that looks at [`measured_turn`] alone.
fn count_instructions(name: &str) {
    let case = CASES.into_iter().find(|case| case.name == name).expect("a case of the list");
    let turns = 200;
    let mut bench = Bench::new(Case { lease_count: case.lease_count.min(10_000), ..case });
    bench.run(turns);
    let measured = MEASURED_TURNS.load(Ordering::Relaxed);
    println!("packets {}", measured * u64::try_from(BATCH).expect("widening"));
}

fn main() {
    if let Ok(name) = std::env::var("APLOMADO_BENCH_INSTRUCTIONS") {
        return count_instructions(&name);
    }
    let mut criterion = Criterion::default().configure_from_args();
    port_alone(&mut criterion);
    shard_turn(&mut criterion);
    criterion.final_summary();
}
