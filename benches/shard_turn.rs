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
//! | `subnets/1` | a client with a lease discovers through a relay, 1 M leases in one subnet that has one reservation |
//! | `subnets/10k` | the same with 10,000 subnets, a relay each, and 100,000 reservations of other clients |
//! | `port/alone` | what the port below costs: the same frames through its calls and nothing between |
//!
//! Clients come in an order that no cache follows. The port is the smallest there can be: 64 frames in a fixed place, each answer
//! copied to another. Making the frames and the log thread's work (it is another thread's) are outside the time.
//!
//! After loading, each case says what memory it has made resident, all counted: table, index, wheel, addresses, rings, frames, port.
//! `subnets/ratio` runs the two cases of that name in turns of a few milliseconds each, so that a busy machine slows both, and
//! prints the median of their ratios.
//!
//! Ten million leases are left out where less than 4 GiB of memory are free; `APLOMADO_BENCH_SMOKE=1` makes every size tiny;
//! `APLOMADO_BENCH_INSTRUCTIONS=CASE` runs one case for an instruction counter (`scripts/instructions`).

mod rig;

use std::fmt::Write as _;
use std::hint::black_box;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use aplomado::exchange::stats::ShardCounters;
use aplomado::ids::{HwAddr, ShardId, SubnetId};
use aplomado::net::{FrameSlab, Port, RxBatch, TxBatch};
use aplomado::wire::drop::DropReason;
use criterion::{Criterion, Throughput};
use rig::port::BenchPort;
use rig::{BASE, BATCH, INTERFACE, Message, Rig, Shuffle, address, client_id};

const DISCOVER: u8 = 1;
const REQUEST: u8 = 3;
/// Turns before the first that counts.
const WARM_TURNS: usize = 300;
/// Subnets of the large configuration, and reservations in each.
const SUBNETS: u32 = 10_000;
const HOSTS_PER_SUBNET: u32 = 10;
/// Free memory that ten million leases want.
const LARGE_BYTES: u64 = 4 << 30;

/// What the clients of a case do.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Work {
    Discover,
    Unknown,
    /// Discovers through relays of so many subnets.
    Relayed {
        subnets: u32,
    },
    Renew {
        cached: bool,
        named: bool,
        moving: bool,
    },
}

/// One case: its name, its work, its leases.
#[derive(Clone, Copy)]
struct Case {
    name: &'static str,
    work: Work,
    lease_count: u32,
}

const RENEW: Work = Work::Renew { cached: false, named: false, moving: true };
const CASES: [Case; 12] = [
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
    Case { name: "subnets/1", work: Work::Relayed { subnets: 1 }, lease_count: 1_000_000 },
    Case { name: "subnets/10k", work: Work::Relayed { subnets: SUBNETS }, lease_count: 1_000_000 },
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

/// Which of [`SUBNETS`] blocks of 256 addresses a relayed client is in, and its address there.
fn relayed_place(number: u32) -> (u32, Ipv4Addr) {
    let block = number % SUBNETS;
    (block, Ipv4Addr::from_bits(BASE + block * 256 + 10 + number / SUBNETS))
}

/// The relay of a block: of all blocks the same one when they are one subnet.
fn relay_of(block: u32, subnets: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(0xac10_0000 + block % subnets)
}

/// The `subnet4` list of the relayed cases: one subnet over all blocks, or one for each. Clients and answers are the same.
fn relayed_subnets(subnets: u32) -> String {
    let mut text = String::new();
    for index in 0..subnets {
        let at = |last: u32| Ipv4Addr::from_bits(BASE + index * 256 + last);
        let (prefix_len, last) = if subnets == 1 { (8, (SUBNETS - 1) * 256 + 199) } else { (24, 199) };
        let separator = if index > 0 { ",\n" } else { "" };
        let _ = write!(
            text,
            r#"{separator}{{ "id": {}, "subnet": "{}/{prefix_len}", "pools": [ {{ "pool": "{}-{}" }} ],
            "relay": {{ "ip-addresses": [ "{}" ] }},
            "option-data": [ {{ "name": "routers", "data": "{}" }} ], "reservations": [ "#,
            index + 1,
            at(0),
            at(10),
            at(last),
            relay_of(index, subnets),
            at(1),
        );
        for host in 0..if subnets == 1 { 1 } else { HOSTS_PER_SUBNET } {
            let [a, b, c, d] = (index * HOSTS_PER_SUBNET + host).to_be_bytes();
            let separator = if host > 0 { "," } else { "" };
            let _ = write!(
                text,
                r#"{separator}{{ "hw-address": "06:00:{a:02x}:{b:02x}:{c:02x}:{d:02x}", "ip-address": "{}" }}"#,
                at(if subnets == 1 { (SUBNETS - 1) * 256 } else { 0 } + 200 + host)
            );
        }
        text.push_str(" ] }");
    }
    text
}

/// The memory of this process that is really there.
fn resident_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = text.split_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok());
    pages.unwrap_or_default() * 4096
}

/// The memory that may still be used.
fn free_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.map_or(u64::MAX, |kib| kib * 1024)
}

impl Bench {
    /// A bench of `case`; says what memory it takes.
    fn loud(case: Case) -> Self {
        let before = resident_bytes();
        let bench = Self::new(case);
        let bytes = resident_bytes().saturating_sub(before);
        let per_lease_tenths = bytes * 10 / u64::from(case.lease_count);
        println!(
            "{}: {} MiB resident, {}.{} bytes per lease",
            case.name,
            bytes >> 20,
            per_lease_tenths / 10,
            per_lease_tenths % 10
        );
        bench
    }

    fn new(case: Case) -> Self {
        let Case { work, lease_count, .. } = case;
        // A renewal comes after 39 % of the lifetime: one second is one turn of the moving cases.
        let turns_per_round = lease_count.div_ceil(64);
        let valid_s = (turns_per_round * 256 / 100).max(600);
        let moving = matches!(work, Work::Renew { moving: true, .. });
        let threshold =
            if matches!(work, Work::Renew { cached: false, moving: false, .. }) { 0.0 } else { 0.25 };
        let last = address(lease_count + lease_count / 4 + 4096);
        let subnets = match work {
            Work::Relayed { subnets } => relayed_subnets(subnets),
            _ => format!(
                r#"{{ "id": 1, "subnet": "10.0.0.0/8", "interface": "eth0",
                "pools": [ {{ "pool": "10.0.0.0-{last}" }} ],
                "option-data": [ {{ "name": "routers", "data": "10.255.255.254" }} ] }}"#
            ),
        };
        let mut text = String::new();
        let _ = write!(
            text,
            r#"{{ "Dhcp4": {{ "interfaces-config": {{ "interfaces": [ "eth0" ] }},
            "valid-lifetime": {valid_s}, "cache-threshold": {threshold:?},
            "option-data": [ {{ "name": "domain-name-servers", "data": "192.0.2.1, 192.0.2.2" }},
                {{ "name": "domain-name", "data": "example.com" }} ],
            "subnet4": [ {subnets} ] }} }}"#
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
            let place = match work {
                Work::Relayed { subnets } => {
                    let (block, address) = relayed_place(number);
                    (address, SubnetId(block % subnets + 1))
                }
                _ => (address(number), SubnetId(1)),
            };
            rig.lease_at(place, number, age_s, valid_s, name.as_bytes());
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
        for index in 0..BATCH {
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
                Work::Relayed { subnets } => {
                    options.extend([57, 2, 5, 192]);
                    message.giaddr = relay_of(relayed_place(client).0, subnets);
                }
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
            port.put(index, &message);
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
        // The directory takes one stranger in two million for a client of another shard, which is not there.
        let counters = Arc::clone(&self.rig.counters);
        let treated = || counters.sent_count() + counters.hand_over_count();
        let before = treated();
        for _ in 0..batches {
            self.fill();
            let start = clock();
            measured_turn(&mut self.rig);
            total += start.elapsed();
            self.after();
        }
        // The last batch's parked answers leave with the next turn.
        self.rig.turn();
        let sent = treated() - before;
        let asked = batches * u64::try_from(BATCH).expect("widening");
        assert!(
            sent >= asked && sent <= asked + u64::try_from(BATCH).expect("widening"),
            "{}: every client is answered: {sent} of {asked}; dropped: {:?}",
            self.case.name,
            drops(&counters)
        );
        total
    }
}

/// What was dropped so far, by reason.
fn drops(counters: &ShardCounters) -> Vec<(&'static str, u64)> {
    let counted = DropReason::ALL.iter().map(|reason| (reason.name(), counters.drop_count(*reason)));
    counted.filter(|(_, count)| *count > 0).collect()
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
    let is_large = |case: &Case| case.lease_count > 1_000_000;
    CASES
        .into_iter()
        .filter(move |case| {
            let fits = smoke || !is_large(case) || free_bytes() >= LARGE_BYTES;
            if !fits {
                println!("{} is left out: less than {} GiB of memory are free", case.name, LARGE_BYTES >> 30);
            }
            fits
        })
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
        let mut bench = Bench::loud(case);
        let mut group = criterion.benchmark_group(kind);
        group.throughput(Throughput::Elements(u64::try_from(BATCH).expect("widening")));
        group.bench_function(size, |bencher| bencher.iter_custom(|batches| bench.run(batches)));
    }
}

/// What a large configuration costs a query, as a ratio: both cases in one process, in turns.
fn subnet_ratio() {
    let named = |name: &str| cases().find(|case| case.name == name).expect("a case of the list");
    let (mut one, mut many) = (Bench::new(named("subnets/1")), Bench::new(named("subnets/10k")));
    let rounds = if std::env::var_os("APLOMADO_BENCH_SMOKE").is_some() { 3 } else { 101 };
    let mut ratios = Vec::new();
    let mut best = [Duration::MAX; 2];
    for _ in 0..rounds {
        let times = [one.run(100), many.run(100)];
        ratios.push(times[1].as_secs_f64() / times[0].as_secs_f64());
        best = [best[0].min(times[0]), best[1].min(times[1])];
    }
    ratios.sort_unstable_by(f64::total_cmp);
    let [one_ns, many_ns] = best.map(|best| best.as_nanos() / (100 * BATCH as u128));
    println!(
        "subnets/ratio: {:.2} (median of {rounds}; best rounds: {one_ns} ns with one subnet, {many_ns} ns with {SUBNETS})",
        ratios[ratios.len() / 2]
    );
}

/// Runs `name` over 10,000 leases for an instruction counter that looks at [`measured_turn`] alone.
fn count_instructions(name: &str) {
    let case = CASES.into_iter().find(|case| case.name == name).expect("a case of the list");
    let turns = 200;
    let leases = if matches!(case.work, Work::Relayed { .. }) { SUBNETS } else { 10_000 };
    let mut bench = Bench::new(Case { lease_count: case.lease_count.min(leases), ..case });
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
    let wanted = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    if wanted.is_none_or(|wanted| "subnets/ratio".contains(wanted.as_str())) {
        subnet_ratio();
    }
    criterion.final_summary();
}
