//! The control thread: starts the engine, answers commands, minds interfaces, clean-ups and signals, ends everything.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};
use std::os::fd::AsRawFd;

use super::clock::Clock;
use super::engine::{Engine, LoadedLeases, Start};
use super::setup;
use super::shard_loop::{Event, Order};
use crate::allocate::Share;
use crate::config::finding::Finding;
use crate::config::tree::{Dhcp4, SyncMode as Configured};
use crate::exchange::serving::StatsBook;
use crate::ids::InterfaceId;
use crate::net::AnyPort;
use crate::net::link::{Change, Monitor, Selected, Snapshot, SocketType, Table};
use crate::net::udp::{Fallback, Outbound, UdpOptions};
use crate::net::{packet, udp};
use crate::store::{SYNC_INTERVAL_MS, SyncMode};

/// Why a server ended, or did not start.
#[derive(Debug)]
pub enum Failure {
    /// The configuration is wrong.
    Configuration(Vec<Finding>),
    /// Port, privilege, file.
    Start(String),
    /// Something broke while serving.
    Fault(String),
}

const WAKE: Token = Token(0);
const SIGNAL: Token = Token(1);
const LINK: Token = Token(2);
/// How long the control thread sleeps at most.
const SLEEP: Duration = Duration::from_millis(500);

/// Serves what `files` hold until told to end; the value is what `shutdown` said, or 0.
///
/// # Errors
/// [`Failure`], to be told to the operator.
pub fn run(files: &[PathBuf], json: bool) -> Result<i64, Failure> {
    let clock = Clock::new();
    let snapshot =
        Snapshot::read().map_err(|error| Failure::Start(format!("cannot list interfaces: {error}")))?;
    let interfaces = setup::system_interfaces(&snapshot);
    let loaded = setup::read(files, Some(&interfaces)).map_err(Failure::Start)?;
    let mut findings = loaded.findings.clone();
    let Some(tree) = loaded.dhcp4 else { return Err(Failure::Configuration(findings)) };
    let mut table = Table::new();
    let plan = setup::plan(&tree, &loaded.files, &mut table, &snapshot, 1, &mut findings);
    let Some(plan) = plan else { return Err(Failure::Configuration(findings)) };
    for finding in &findings {
        eprintln!("{}", finding.kea_text());
    }
    let _ = json;

    let poll = Poll::new().map_err(|error| Failure::Start(format!("no event queue: {error}")))?;
    let waker =
        Arc::new(Waker::new(poll.registry(), WAKE).map_err(|error| Failure::Start(error.to_string()))?);
    let capacity = tree.aplomado.max_leases.unwrap_or_else(|| plan.lease_capacity());
    let mut book = StatsBook::default();
    let raw = setup::socket_type(&tree) == SocketType::Raw;
    let selection =
        setup::choose(&tree, &snapshot, true).map_err(|error| Failure::Start(error.to_string()))?;
    let changes = table.update(selection.served, setup::socket_type(&tree));
    let arrivals = setup::arrivals(table.served(), raw);
    let serving = setup::serving(&tree, plan, arrivals, &mut book);
    let start = Start {
        serving,
        book,
        shard_count: shard_count(&tree),
        lease_file: lease_file(&tree),
        sync: sync_mode(&tree),
        row_errors_max: u64::from(tree.lease_database.max_row_errors),
        lease_capacity: capacity,
        share: Share::Whole,
        seed: seed(),
        wake_control: {
            let waker = Arc::clone(&waker);
            Arc::new(move || {
                // A waker fails only when the loop is gone.
                let _ = waker.wake();
            })
        },
    };
    let (engine, leases) = Engine::start(start, clock).map_err(Failure::Start)?;
    let mut control =
        Control { engine, tree, table, fallbacks: Vec::new(), poll, want_cleanup: leases.needs_cleanup };
    control.open(changes)?;
    control.serve(&leases)
}

/// How many shards a configuration wants.
fn shard_count(tree: &Dhcp4) -> usize {
    let configured = usize::from(tree.multi_threading.thread_pool_size);
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let count = if tree.multi_threading.enabled && configured > 0 { configured } else { cores };
    count.clamp(1, crate::ids::SHARDS_MAX)
}

fn lease_file(tree: &Dhcp4) -> Option<PathBuf> {
    let database = &tree.lease_database;
    database.persist.then(|| PathBuf::from(database.name.as_deref().unwrap_or(setup::LEASE_FILE_DEFAULT)))
}

const fn sync_mode(tree: &Dhcp4) -> SyncMode {
    match tree.aplomado.sync {
        Configured::Group => SyncMode::Group,
        Configured::Interval => SyncMode::Interval { interval_ms: SYNC_INTERVAL_MS },
        Configured::Never => SyncMode::Never,
    }
}

/// A number that clients cannot guess.
fn seed() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::collections::hash_map::RandomState::new().build_hasher().finish()
}

struct Control {
    engine: Engine,
    tree: Dhcp4,
    table: Table,
    fallbacks: Vec<(InterfaceId, Fallback)>,
    poll: Poll,
    want_cleanup: bool,
}

impl Control {
    /// Opens and closes ports as `changes` say.
    fn open(&mut self, changes: Vec<Change>) -> Result<(), Failure> {
        let shards = u8::try_from(self.engine.shards.len()).unwrap_or(u8::MAX);
        let (k1, k2) = self.engine.steering.multipliers();
        for change in changes {
            match change {
                Change::Close(id) | Change::Readdress(id, _) if matches!(change, Change::Close(_)) => {
                    self.fallbacks.retain(|(other, _)| *other != id);
                    for shard in &self.engine.shards {
                        let _ = shard.order(Order::RemovePort(id));
                    }
                }
                Change::Open(id, selected) | Change::Readdress(id, selected) => {
                    let ports = self.ports(id, &selected, shards, (k1, k2))?;
                    for (shard, port) in self.engine.shards.iter().zip(ports) {
                        if shard.order(Order::AddPort(port)).is_err() {
                            return Err(Failure::Fault("a shard does not take orders".to_owned()));
                        }
                    }
                }
                Change::Close(_) => {}
            }
        }
        Ok(())
    }

    fn ports(
        &mut self,
        id: InterfaceId,
        selected: &Selected,
        shards: u8,
        keys: (u32, u32),
    ) -> Result<Vec<AnyPort>, Failure> {
        let failed = |error: crate::net::OpenError| Failure::Start(error.to_string());
        match setup::socket_type(&self.tree) {
            SocketType::Raw => {
                for address in &selected.addresses {
                    let fallback = Fallback::open(&selected.name, *address, 67).map_err(failed)?;
                    self.fallbacks.push((id, fallback));
                }
                let options = packet::PacketOptions::default();
                let ports = packet::open(selected, id, shards, keys, &options).map_err(failed)?;
                Ok(ports.into_iter().map(AnyPort::Packet).collect())
            }
            SocketType::Udp => {
                let outbound = if self.tree.interfaces.outbound_use_routing.unwrap_or(false) {
                    Outbound::UseRouting
                } else {
                    Outbound::SameAsInbound
                };
                let options = UdpOptions { outbound, ..UdpOptions::default() };
                let ports = udp::open(selected, id, shards, keys, &options).map_err(failed)?;
                Ok(ports.into_iter().map(AnyPort::Udp).collect())
            }
        }
    }

    fn serve(mut self, leases: &LoadedLeases) -> Result<i64, Failure> {
        let start = |error: std::io::Error| Failure::Start(error.to_string());
        let (mut signals, writer) = std::os::unix::net::UnixStream::pair().map_err(start)?;
        signals.set_nonblocking(true).map_err(start)?;
        for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
            signal_hook::low_level::pipe::register(signal, writer.try_clone().map_err(start)?)
                .map_err(start)?;
        }
        let registry = self.poll.registry();
        registry.register(&mut SourceFd(&signals.as_raw_fd()), SIGNAL, Interest::READABLE).map_err(start)?;
        let mut monitor = Monitor::open().map_err(start)?;
        registry
            .register(&mut SourceFd(&monitor.fd().as_raw_fd()), LINK, Interest::READABLE)
            .map_err(start)?;
        self.engine.enable(true);
        let names: Vec<String> = self
            .table
            .served()
            .iter()
            .map(|(_, link)| {
                let addresses: Vec<String> = link.addresses.iter().map(ToString::to_string).collect();
                format!("{}/{}", link.name, addresses.join(","))
            })
            .collect();
        eprintln!(
            "serving on {} with {} shard(s), {} lease(s) loaded",
            if names.is_empty() { "no interface".to_owned() } else { names.join(" ") },
            self.engine.shards.len(),
            leases.lease_count
        );
        let mut events = Events::with_capacity(64);
        loop {
            match self.poll.poll(&mut events, Some(SLEEP)) {
                Ok(()) => {}
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Failure::Fault(format!("event queue: {error}"))),
            }
            let tokens: BTreeSet<usize> = events.iter().map(|event| event.token().0).collect();
            if let Some(failure) = self.engine.log.failure.lock().clone() {
                return Err(Failure::Fault(failure));
            }
            self.listen();
            if tokens.contains(&LINK.0) && monitor.drain().unwrap_or(true) {
                self.redetect()?;
            }
            if tokens.contains(&SIGNAL.0) {
                use std::io::Read;
                let mut octets = [0; 16];
                if signals.read(&mut octets).is_ok_and(|count| count > 0) {
                    return self.engine.stop().map(|()| 0).map_err(Failure::Fault);
                }
            }
            self.engine.sweep();
        }
    }

    /// Looks at the interfaces again.
    fn redetect(&mut self) -> Result<(), Failure> {
        if !self.tree.interfaces.re_detect {
            return Ok(());
        }
        let Ok(snapshot) = Snapshot::read() else { return Ok(()) };
        let Ok(selection) = setup::choose(&self.tree, &snapshot, true) else { return Ok(()) };
        let changes = self.table.update(selection.served, setup::socket_type(&self.tree));
        if changes.is_empty() {
            return Ok(());
        }
        self.open(changes)
    }

    /// Takes in what the shards say.
    fn listen(&mut self) {
        while let Ok(event) = self.engine.events.try_recv() {
            match event {
                Event::Want(shard, want) => {
                    let part = want.allocate();
                    if let Some(handle) = self.engine.shards.get(usize::from(shard.0)) {
                        let _ = handle.order(Order::Memory(part));
                    }
                }
                Event::Spare(part) => drop(part),
                Event::Port(port) => drop(port),
                Event::Leases(..) | Event::ReclaimBehind(_) | Event::Stopped(_) => {}
            }
        }
        let _ = self.want_cleanup;
    }
}
