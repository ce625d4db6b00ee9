//! A whole server in one thread: the engine, the shards, the log, the desk with its commands and the HA machine, as the program runs
//! them. What the program does with threads, sockets and clocks is done here by hand: turns, bodies in and out, a clock that is set.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use aplomado::config::finding::Finding;
use aplomado::config::load::{Source, load};
use aplomado::config::plan::SubnetIndex;
use aplomado::control::backend::{Completion, Daemon, LfcStart};
use aplomado::control::command::{Answer, Command};
use aplomado::control::dispatch::{Dispatcher, JobId, JobProgress};
use aplomado::control::lease_commands::ListingProgress;
use aplomado::control::table::{CommandTable, Presence};
use aplomado::exchange::request::{Job, Progress};
use aplomado::exchange::serving::{Serving, StatsBook};
use aplomado::ha::command::request::HA_COMMANDS;
use aplomado::ha::partner::OWN_COMMANDS;
use aplomado::ha::view::ScopeParts;
use aplomado::ids::{InterfaceId, Lsn};
use aplomado::journal::replay::SanityMode;
use aplomado::lease::request::{LeaseFilter, LeaseKey, LeaseReply, LeaseRequest};
use aplomado::lease::{Lease4Buf, LeaseState};
use aplomado::net::link::{Link, Snapshot, SocketType, Table};
use aplomado::net::{AnyPort, MemoryPort, RxFlags};
use aplomado::server::clock::Clock;
use aplomado::server::desk::{Desk, Errand, failure};
use aplomado::server::engine::{Engine, LogNext, Room, Start, Work};
use aplomado::server::ha::links::Links;
use aplomado::server::ha::workers::PeerWork;
use aplomado::server::shard_loop::Order;
use aplomado::server::{ha, setup};
use aplomado::store::{CrashDisk, SyncMode};
use aplomado::wire::drop::DropReason;

pub(crate) const LEASE_FILE: &str = "/leases/kea-leases4.csv";
/// Leases that one listing may have; no world has as many.
const MANY: u32 = 100_000;
const SLOTS: usize = 64;

/// How a server is started.
#[derive(Clone, Debug)]
pub(crate) struct Setting {
    /// Its `Dhcp4` block.
    pub(crate) text: String,
    pub(crate) address: Ipv4Addr,
    pub(crate) mac: [u8; 6],
    pub(crate) shard_count: usize,
    pub(crate) seed: u64,
}

/// One connection to a peer, and the call that is on it.
pub(crate) struct Connection {
    pub(crate) work: PeerWork,
    pub(crate) call: Option<u64>,
}

/// A command at work: its call, the state in which the machine was asked, and what there is of its answer.
struct Asked {
    call: u64,
    state: &'static str,
    out: Vec<u8>,
}

/// A command is answered.
pub(crate) struct Answered {
    pub(crate) call: u64,
    /// The state in which the machine was asked.
    pub(crate) asked_in: &'static str,
    pub(crate) body: Vec<u8>,
}

pub(crate) struct Server {
    pub(crate) desk: Desk,
    pub(crate) work: Work,
    /// What is shared with the first relationship.
    pub(crate) links: Arc<Links>,
    pub(crate) connections: Vec<Connection>,
    api: Dispatcher,
    wires: Vec<MemoryPort>,
    jobs: BTreeMap<JobId, Asked>,
    marks: Vec<Lsn>,
    table: Table,
    snapshot: Snapshot,
    generation: u64,
    pub(crate) injected: u64,
}

fn complain(findings: &[Finding]) -> ! {
    let all: Vec<String> = findings.iter().map(Finding::kea_text).collect();
    panic!("the configuration cannot be used: {}", all.join("; "));
}

impl Server {
    /// A server on what `disk` holds. Leases that cannot be loaded are an error.
    pub(crate) fn start(setting: &Setting, disk: &CrashDisk, clock: &Clock) -> Result<Self, String> {
        let link = Link {
            name: "v0".to_owned(),
            index: 1,
            mac: Some(setting.mac),
            up: true,
            running: true,
            loopback: false,
            mtu: 1500,
            addresses: vec![(IpAddr::V4(setting.address), 16)],
        };
        let snapshot = Snapshot { links: vec![link] };
        let mut table = Table::new();
        let (tree, plan) = planned(&setting.text, &snapshot, &mut table, 1);
        let selection = setup::choose(&tree, &snapshot, true).map_err(|error| error.to_string())?;
        table.update(selection.served, SocketType::Raw);
        let mut book = StatsBook::default();
        let serving = setup::serving(&tree, plan, setup::arrivals(table.served(), true), &mut book);
        let wake: Arc<dyn Fn() + Send + Sync> = Arc::new(|| {});
        let pair = ha::setup::prepare(&tree, setting.shard_count, setting.seed, &wake)?.expect("a pair");
        let pairs = pair.links();
        let links = Arc::clone(&pairs[0]);
        let start = Start {
            serving,
            book,
            shard_count: setting.shard_count,
            lease_file: Some(LEASE_FILE.into()),
            sync: SyncMode::Group,
            sanity: SanityMode::Warn,
            row_errors_max: 0,
            lease_capacity: 1024,
            share: pair.share,
            seed: setting.seed,
            wake_control: wake,
            pairs,
            parked_max: tree.parked_packet_limit,
            upgrade_contexts: false,
            room: Room { log_slots: 1024, parked_for_disk: 128, parked_for_peers: 128, blocks: 1024 },
            disk: Arc::new(disk.clone()),
        };
        let (engine, work, loaded) = Engine::build(start, clock)?;
        assert!(loaded.refused.is_empty(), "leases found no room: {:?}", loaded.refused);
        let mut desk = Desk::new(engine, clock.clone(), tree, None, Vec::new());
        let (mut machine, peers) = pair.build(clock.now());
        machine.started(loaded.lease_count > 0);
        desk.ha = Some(machine);
        let mut commands = CommandTable::dhcp4();
        for name in HA_COMMANDS {
            commands.register_elsewhere(name, Presence::Ha);
        }
        for name in OWN_COMMANDS {
            commands.register_elsewhere(name, Presence::Ha);
        }
        let mut wires = Vec::new();
        for shard in &desk.engine.shards {
            let (far, near) = MemoryPort::pair(InterfaceId(0), InterfaceId(0), SLOTS);
            shard.order(Order::AddPort(AnyPort::Memory(near))).expect("a new shard takes orders");
            wires.push(far);
        }
        desk.engine.enable(desk.is_enabled());
        let marks = vec![Lsn(0); setting.shard_count * (links.peers.len() + 1)];
        Ok(Self {
            desk,
            work,
            links,
            connections: peers.into_iter().map(|(_, work)| Connection { work, call: None }).collect(),
            api: Dispatcher::new([commands]),
            wires,
            jobs: BTreeMap::new(),
            marks,
            table,
            snapshot,
            generation: 1,
            injected: 0,
        })
    }

    /// A frame arrives, at whichever shard: the one that it belongs to is found by the server.
    pub(crate) fn receive(&mut self, frame: &[u8], shard: usize) {
        let count = self.wires.len();
        let wire = &mut self.wires[shard % count];
        wire.set_wall_ns(self.desk.clock.wall_us().saturating_mul(1000));
        if wire.inject(frame, RxFlags::default()) {
            self.injected += 1;
        }
    }

    /// One turn of a shard; the frames that it sent.
    pub(crate) fn turn_shard(&mut self, shard: usize) -> (bool, Vec<Vec<u8>>) {
        let clock = &self.desk.clock;
        let busy = self.work.shards[shard].turn(clock.now(), clock.wall_us().saturating_mul(1000));
        let mut sent = Vec::new();
        while let Some(frame) = self.wires[shard].eject(<[u8]>::to_vec) {
            sent.push(frame);
        }
        (busy, sent)
    }

    /// One turn of the log. An error when leases cannot be kept any more.
    pub(crate) fn turn_log(&mut self) -> Result<bool, String> {
        let next = self.work.log.turn(self.desk.clock.now().mono);
        let failed = self.desk.engine.log.failure.lock().clone();
        failed.map_or_else(|| Ok(matches!(next, LogNext::Turn | LogNext::Gather)), Err)
    }

    /// One turn of the control thread; the answers that are complete.
    pub(crate) fn turn_control(&mut self) -> Vec<Answered> {
        self.desk.listen();
        self.desk.mind_pair();
        for errand in std::mem::take(&mut self.desk.errands) {
            match errand {
                Errand::Service => self.desk.serve(),
                Errand::CleanUp(ticket) => {
                    self.desk.done.push((ticket, Completion::LeaseFile(LfcStart::Running)));
                }
                Errand::Configure(ticket, _) => self.desk.done.push((ticket, failure("not here"))),
                Errand::Shutdown(_) => {}
            }
        }
        self.desk.settle();
        for (ticket, completion) in std::mem::take(&mut self.desk.done) {
            self.api.complete(ticket, completion, &mut self.desk);
        }
        self.desk.engine.sweep();
        self.poll_jobs()
    }

    fn poll_jobs(&mut self) -> Vec<Answered> {
        let mut answers = Vec::new();
        let Self { jobs, api, desk, .. } = self;
        jobs.retain(|job, Asked { call, state, out }| {
            let body = match api.poll(*job, 0, false, out, desk) {
                JobProgress::Answered(answer) => answer.to_printed(),
                JobProgress::Listing(ListingProgress::Finished(_)) => std::mem::take(out),
                JobProgress::Listing(ListingProgress::Broken) | JobProgress::Gone => Vec::new(),
                JobProgress::Waiting | JobProgress::Listing(_) => return true,
            };
            let body = [b"[ ", body.as_slice(), b" ]"].concat();
            answers.push(Answered { call: *call, asked_in: state, body });
            false
        });
        answers
    }

    /// A command arrives; its answer comes with a later turn.
    pub(crate) fn command(&mut self, call: u64, body: &[u8]) -> Option<Vec<u8>> {
        match Command::parse(body.to_vec(), "10.9.0.9") {
            Ok(command) => {
                let state = self.state();
                let job = self.api.start(Daemon::Dhcp4, &command, &mut self.desk);
                self.api.set_needs_length(job, true);
                self.jobs.insert(job, Asked { call, state, out: Vec::new() });
                None
            }
            Err(fault) => {
                let answer: Answer = fault.answer();
                Some([b"[ ", answer.to_printed().as_slice(), b" ]"].concat())
            }
        }
    }

    /// Commands that are not answered.
    pub(crate) fn job_count(&self) -> usize {
        self.jobs.len()
    }

    /// The name of the machine's state.
    pub(crate) fn state(&self) -> &'static str {
        self.desk.ha.as_ref().map_or("none", |ha| ha.state().name())
    }

    /// The lease on an address.
    pub(crate) fn lease(&mut self, address: Ipv4Addr) -> Option<Lease4Buf> {
        let (now, serving) = (self.desk.clock.now(), self.desk.engine.serving());
        self.work.shards.iter_mut().find_map(|shard| {
            let job = Job::new(LeaseRequest::Get(LeaseKey::Address(address)));
            match shard.shard().serve(&serving, now, job) {
                Progress::Done(LeaseReply::Lease(lease), _) => Some(lease),
                _ => None,
            }
        })
    }

    /// What the shards see of the machine.
    pub(crate) fn word(&self) -> ScopeParts {
        self.links.scope.read().parts()
    }

    /// Whether answers wait for one of these peers, by position: new ones, or those from before of a server that has stopped serving.
    pub(crate) fn awaits(&self, peers: u16) -> bool {
        let word = self.links.scope.read();
        (word.awaited() | word.held(self.links.partner)) & peers != 0
    }

    /// All leases in the tables, by address.
    pub(crate) fn leases(&mut self) -> BTreeMap<Ipv4Addr, Lease4Buf> {
        let (now, serving) = (self.desk.clock.now(), self.desk.engine.serving());
        let mut all = BTreeMap::new();
        for shard in &mut self.work.shards {
            let filter = LeaseFilter::All;
            let request = LeaseRequest::List { from: Ipv4Addr::UNSPECIFIED, limit: MANY, filter };
            let mut job = Job::new(request);
            loop {
                match shard.shard().serve(&serving, now, job) {
                    Progress::More(next) => job = next,
                    Progress::Done(LeaseReply::Leases(leases), _) => {
                        all.extend(leases.into_iter().map(|lease| (lease.view().address, lease)));
                        break;
                    }
                    Progress::Done(other, _) => panic!("a listing came to {other:?}"),
                }
            }
        }
        all
    }

    /// Watermarks never go back.
    pub(crate) fn check_marks(&mut self) {
        let shards = self.desk.engine.shards.iter().map(|shard| shard.durable.read());
        let count = self.desk.engine.shards.len();
        let peers = &self.links.peers;
        let answered = peers.iter().flat_map(|peer| (0..count).map(|shard| peer.mark(shard).read()));
        for (before, now) in self.marks.iter_mut().zip(shards.chain(answered)) {
            assert!(now >= *before, "a watermark went back from {before:?} to {now:?}");
            *before = now;
        }
        for shard in &self.work.shards {
            let (disk, peers) = shard.parked();
            assert!(disk <= 128 && peers <= 128, "{disk} and {peers} replies wait: more than may");
        }
        assert!(self.jobs.len() < 64, "{} commands are at work", self.jobs.len());
    }

    /// Every query that was received was answered, counted as dropped, or waits.
    pub(crate) fn check_counters(&self) {
        let (mut sent, mut dropped, mut parked) = (0, 0, 0);
        for (shard, turned) in self.desk.engine.shards.iter().zip(&self.work.shards) {
            sent += shard.counters.sent_count();
            dropped += DropReason::ALL.iter().map(|&reason| shard.counters.drop_count(reason)).sum::<u64>();
            parked += (turned.parked().0 + turned.parked().1) as u64;
        }
        assert_eq!(self.injected, sent + dropped + parked, "{sent} sent, {dropped} dropped, {parked} parked");
    }

    /// Statistics are those of the leases that are there.
    pub(crate) fn check_statistics(&mut self) {
        let leases = self.leases();
        let count = |states: &[LeaseState]| {
            let is_it = |lease: &&Lease4Buf| states.contains(&lease.view().state);
            i64::try_from(leases.values().filter(is_it).count()).expect("few")
        };
        let serving = self.desk.engine.serving();
        let stats = serving.subnet_stats(SubnetIndex(0));
        let told = (stats.assigned.load(Ordering::Relaxed), stats.declined.load(Ordering::Relaxed));
        let there = (count(&[LeaseState::Assigned, LeaseState::Declined]), count(&[LeaseState::Declined]));
        assert_eq!(told, there, "assigned and declined leases by statistics, and by the table");
    }

    /// Serves another configuration of the same networks.
    pub(crate) fn reload(&mut self, text: &str) {
        self.generation += 1;
        let (tree, plan) = planned(text, &self.snapshot, &mut self.table, self.generation);
        let arrivals = setup::arrivals(self.table.served(), true);
        let serving: Arc<Serving> = setup::serving(&tree, plan, arrivals, &mut self.desk.engine.book);
        self.desk.engine.publish(serving).expect("room for the same addresses");
        self.desk.tree = tree;
    }
}

fn planned(
    text: &str,
    snapshot: &Snapshot,
    table: &mut Table,
    generation: u64,
) -> (aplomado::config::tree::Dhcp4, aplomado::config::plan::Plan) {
    let mut no_files = |name: &str| Err(format!("no file {name}"));
    let interfaces = setup::system_interfaces(snapshot);
    let loaded = load(&[Source { name: "sim", text }], &mut no_files, Some(&interfaces));
    let Some(tree) = loaded.dhcp4.clone() else { complain(&loaded.findings) };
    let mut findings = Vec::new();
    match setup::plan(&tree, &loaded, table, snapshot, generation, &mut findings) {
        Some(plan) => (tree, plan),
        None => complain(&findings),
    }
}

/// What a lease file holds after a crash: who has which address, and until when.
pub(crate) fn on_disk(disk: &CrashDisk) -> BTreeMap<Ipv4Addr, Lease4Buf> {
    use aplomado::journal::V4;
    let found = std::sync::Mutex::new(BTreeMap::new());
    let opened = aplomado::store::open::<V4>(Arc::new(disk.clone()), Path::new(LEASE_FILE), 1)
        .expect("a lease file can be opened after a crash");
    opened
        .image
        .load(1, 0, |_, lease| {
            found.lock().expect("no panic").insert(lease.address, lease.to_owned());
        })
        .expect("a lease file can be loaded after a crash");
    found.into_inner().expect("no panic")
}
