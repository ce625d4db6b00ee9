//! What more shards bring, in memory: 1, 2 and 4 shards of one server, each turned by a thread of its own; and two shards of one
//! server beside two processes of one shard each that have nothing to do with each other.
//!
//! What shards of one server share, and when they touch it:
//!
//! | shared | touched |
//! |---|---|
//! | generation of the plan, `enabled`, the plan itself | read by every turn and query, written by a reload |
//! | doorbells and rings for handing over | own ring looked at by every turn; others' for a client that lives there |
//! | directory of clients, address words | when a lease is made or freed; looked at for a client without a lease here |
//! | counters of leases by subnet | when a lease is made or freed |
//! | durable watermark | one per shard: written by the log thread, read by every turn |
//!
//! Beside this there are the caches and the memory of the machine, which two processes share too: the difference between
//! `shards` and `processes` is what the list above costs. Both are run in turns and the median of the ratios is printed.
//! Threads and processes stay on a core each: two that are woken together may share one for a whole round otherwise, where others
//! are at work. Only turns are timed; frames are made and logs drained outside, by the same thread. With more shards than cores
//! a turn's time holds other threads' work too: then the sum says what such a machine does, not what shards cost.
//!
//! `APLOMADO_BENCH_SMOKE=1` makes everything tiny.

mod rig;

use std::hint::black_box;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, Instant};

use aplomado::ids::{HwAddr, ShardId};
use rig::port::BenchPort;
use rig::{BATCH, Message, Rig, Shuffle, address, client_id, mac};

const DISCOVER: u8 = 1;
const REQUEST: u8 = 3;
/// The child's order: its place among processes, what its clients do, and how many leases it has.
const CHILD: &str = "APLOMADO_SCALING_CHILD";

/// Leases of a server, turns of a round, rounds.
#[derive(Clone, Copy)]
struct Size {
    leases: u32,
    turns: u32,
    rounds: u32,
}

impl Size {
    fn of_environment() -> Self {
        if std::env::var_os("APLOMADO_BENCH_SMOKE").is_some() {
            Self { leases: 4_000, turns: 10, rounds: 3 }
        } else {
            Self { leases: 1_000_000, turns: 500, rounds: 41 }
        }
    }
}

/// A shard at work, and the clients that it owns.
struct Worker {
    rig: Rig<BenchPort>,
    clients: Vec<u32>,
    order: Shuffle,
    kind: u8,
}

impl Worker {
    /// The shards of one server with `lease_count` leases, whose clients send messages of type `kind`.
    fn server(kind: u8, shard_count: usize, lease_count: u32) -> Vec<Self> {
        // Without a lease cache every renewal writes its row.
        let text = format!(
            r#"{{ "Dhcp4": {{ "interfaces-config": {{ "interfaces": [ "eth0" ] }},
            "valid-lifetime": 86400, "cache-threshold": 0.0,
            "option-data": [ {{ "name": "domain-name-servers", "data": "192.0.2.1, 192.0.2.2" }} ],
            "subnet4": [ {{ "id": 1, "subnet": "10.0.0.0/8", "interface": "eth0",
                "pools": [ {{ "pool": "10.0.0.0-{}" }} ] }} ] }} }}"#,
            address(lease_count + 4096)
        );
        let ports = (0..shard_count).map(|_| BenchPort::new()).collect();
        let count = usize::try_from(lease_count).expect("widening");
        let mut rigs = Rig::group(&text, ports, count);
        let mut clients = vec![Vec::new(); shard_count];
        let steering = rigs[0].steering;
        for number in 0..lease_count {
            let ShardId(owner) = steering.owner(&HwAddr::ethernet(mac(number)));
            rigs[usize::from(owner)].lease(number, 1, 86_400, b"");
            clients[usize::from(owner)].push(number);
        }
        rigs.into_iter()
            .zip(clients)
            .map(|(rig, clients)| {
                let order = Shuffle::new(u32::try_from(clients.len()).expect("as many as leases"));
                let mut worker = Self { rig, clients, order, kind };
                worker.round(20);
                worker
            })
            .collect()
    }

    fn fill(&mut self) {
        let Self { rig, clients, order, kind } = self;
        let port = &mut rig.shard.ports().ports_mut()[0];
        for index in 0..BATCH {
            let client = clients[usize::try_from(order.step()).expect("widening")];
            let mut message = Message::new(*kind, client);
            if *kind == REQUEST {
                message.ciaddr = address(client);
                message.unicast = true;
            }
            let mut options = vec![61, 7];
            options.extend(client_id(client));
            options.extend([55, 9, 1, 3, 6, 15, 28, 42, 51, 58, 59]);
            message.options = &options;
            port.put(index, &message);
        }
        port.count = BATCH;
    }

    /// The time of `turns` turns with full batches; every query is answered.
    fn round(&mut self, turns: u32) -> Duration {
        let before = self.rig.counters.sent_count();
        let mut total = Duration::ZERO;
        for _ in 0..turns {
            self.fill();
            let start = clock();
            black_box(self.rig.turn());
            total += start.elapsed();
            self.rig.drain_log();
            self.rig.mind_control();
        }
        // What is parked leaves with the next turn, which is not counted.
        self.rig.turn();
        let sent = self.rig.counters.sent_count() - before;
        assert_eq!(sent, u64::from(turns) * BATCH as u64, "every client is answered");
        total
    }
}

#[expect(clippy::disallowed_methods, reason = "a bench measures time")]
fn clock() -> Instant {
    Instant::now()
}

/// Packets per second of one that took `time` for `turns` turns.
fn rate(turns: u32, time: Duration) -> f64 {
    f64::from(turns) * BATCH as f64 / time.as_secs_f64()
}

/// Keeps the calling thread on the core of this place, counted among those that it may use.
fn stay_on_core(place: usize) {
    let allowed = rustix::thread::sched_getaffinity(None).expect("a thread may ask");
    let cores: Vec<usize> =
        (0..rustix::thread::CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core)).collect();
    let mut own = rustix::thread::CpuSet::new();
    own.set(cores[place % cores.len()]);
    rustix::thread::sched_setaffinity(None, &own).expect("a thread may stay on a core that it may use");
}

/// The shards of one server, each in a thread that stays, as they do in a server: a thread made anew for a round begins on
/// whichever core is free, with another shard's memory in that core's caches.
struct Team {
    members: Vec<(Sender<u32>, Receiver<Duration>)>,
}

impl Team {
    fn start(workers: Vec<Worker>) -> Self {
        let members = workers.into_iter().enumerate().map(|(place, mut worker)| {
            let (order, orders) = mpsc::channel();
            let (result, results) = mpsc::channel();
            std::thread::spawn(move || {
                stay_on_core(place);
                for turns in orders {
                    if result.send(worker.round(turns)).is_err() {
                        return;
                    }
                }
            });
            (order, results)
        });
        Self { members: members.collect() }
    }

    /// Packets per second of all shards together, told to begin one after the other as processes are.
    fn round(&self, turns: u32) -> f64 {
        for (order, _) in &self.members {
            order.send(turns).expect("a shard waits for orders");
        }
        self.members
            .iter()
            .map(|(_, results)| rate(turns, results.recv().expect("a shard does not panic")))
            .sum()
    }
}

/// A process with a server of one shard, that runs a round whenever it is told how long.
struct Process {
    child: Child,
    orders: ChildStdin,
    results: BufReader<ChildStdout>,
}

impl Process {
    fn start(place: usize, kind: u8, lease_count: u32) -> Self {
        let program = std::env::current_exe().expect("a bench has a file");
        let mut child = Command::new(program)
            .env(CHILD, format!("{place} {kind} {lease_count}"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a bench can be started again");
        let orders = child.stdin.take().expect("piped");
        let results = BufReader::new(child.stdout.take().expect("piped"));
        let mut process = Self { child, orders, results };
        // The first answer comes when the leases are loaded.
        process.order(1);
        process.result();
        process
    }

    fn order(&mut self, turns: u32) {
        writeln!(self.orders, "{turns}").expect("the process reads");
    }

    fn result(&mut self) -> Duration {
        let mut line = String::new();
        self.results.read_line(&mut line).expect("the process writes");
        Duration::from_nanos(line.trim().parse().expect("the process writes nanoseconds"))
    }

    /// Ends with its input.
    fn end(self) {
        let Self { mut child, orders, .. } = self;
        drop(orders);
        assert!(child.wait().expect("a child").success(), "the process ended well");
    }
}

/// The life of a [`Process`].
fn be_process(order: &str) {
    let order: Vec<u32> = order.split(' ').map(|number| number.parse().expect("a number")).collect();
    let [place, kind, lease_count] = order[..] else { panic!("three numbers, not {order:?}") };
    stay_on_core(usize::try_from(place).expect("widening"));
    let mut workers = Worker::server(u8::try_from(kind).expect("a message type"), 1, lease_count);
    for line in std::io::stdin().lines() {
        let turns = line.expect("text").trim().parse().expect("a count of turns");
        println!("{}", workers[0].round(turns).as_nanos());
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}

fn scaling(name: &str, kind: u8, size: Size) {
    let mut one = None;
    for shard_count in [1, 2, 4] {
        let team = Team::start(Worker::server(kind, shard_count, size.leases));
        let rates = (0..size.rounds).map(|_| team.round(size.turns)).collect();
        let middle = median(rates);
        let single = *one.get_or_insert(middle);
        println!("{name}/{shard_count}: {middle:.0} packets/s, {:.2} times one shard", middle / single);
    }
    let team = Team::start(Worker::server(kind, 2, size.leases));
    let mut processes = [0, 1].map(|place| Process::start(place, kind, size.leases / 2));
    let (mut shards, mut apart, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..size.rounds {
        let shared = team.round(size.turns);
        processes.iter_mut().for_each(|process| process.order(size.turns));
        let unrelated: f64 = processes.iter_mut().map(|process| rate(size.turns, process.result())).sum();
        shards.push(shared);
        apart.push(unrelated);
        ratios.push(shared / unrelated);
    }
    processes.into_iter().for_each(Process::end);
    println!(
        "{name}/apart: 2 shards {:.0} packets/s, 2 processes {:.0}; shards reach {:.2} of processes (median of {})",
        median(shards),
        median(apart),
        median(ratios),
        size.rounds
    );
}

fn main() {
    if let Ok(order) = std::env::var(CHILD) {
        return be_process(&order);
    }
    let size = Size::of_environment();
    scaling("discover", DISCOVER, size);
    scaling("renew", REQUEST, size);
}
