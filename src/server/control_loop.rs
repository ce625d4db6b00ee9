//! The control thread: starts the engine, answers commands, minds interfaces, clean-ups and signals, ends everything.
//!
//! One event loop ([`ControlLoop`]) with the [`Desk`] behind it. Nothing here waits for a shard or for the disk; the clean-up of
//! the lease file has a thread of its own.

use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crossbeam::channel::{Receiver, Sender, unbounded};
use mio::unix::SourceFd;

use super::clock::Clock;
use super::desk::{Desk, Errand, failure};
use super::engine::{self, Engine, LoadedLeases, Room, Start};
use super::ha;
use super::listeners;
use super::network::Network;
use super::setup;
use super::shard_loop::Order;
use super::told;
use crate::allocate::Share;
use crate::config::finding::{Finding, Severity as Gravity};
use crate::config::load::Loaded;
use crate::config::tree::{ControlAgent, Dhcp4, ExtendedInfoChecks, LeaseChecks, SyncMode as Configured};
use crate::control::backend::{Backend, Completion, ConfigAction, ConfigOrder, Daemon, LfcStart, Ticket};
use crate::control::clock::Zone;
use crate::control::event_loop::ControlLoop;
use crate::control::log::{self, LogFormat, Severity};
use crate::control::notify::Notifier;
use crate::control::table::{CommandTable, Presence};
use crate::exchange::serving::StatsBook;
use crate::ids::InterfaceId;
use crate::journal::replay::SanityMode;
use crate::log;
use crate::net::link::{Change, Monitor, Selected, Snapshot, SocketType, Table};
use crate::net::udp::{Fallback, Outbound, UdpOptions};
use crate::net::{AnyPort, OpenError, packet, udp};
use crate::store::{Cleaned, RealDisk, SYNC_INTERVAL_MS, SyncMode};
use crate::time::Mono;

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

/// How long the control thread sleeps at most: timers of its own are looked at this often.
const SLEEP: Duration = Duration::from_millis(250);
/// How long a shutdown waits for answers that have not left.
const FAREWELL_MS: u64 = 2000;
/// How long a port that could not be opened is left alone before the next try.
const REOPEN_MS: u64 = 1000;
/// The port of DHCP servers.
const SERVER_PORT: u16 = 67;
const DHCP4: &str = "kea-dhcp4.dhcp4";
const LEASES: &str = "kea-dhcp4.leases";

fn wall_us() -> u64 {
    Clock::new().wall_us()
}

/// Serves what `files` hold until told to end; the value is what `shutdown` said, or 0.
///
/// # Errors
/// [`Failure`], to be told to the operator.
pub fn run(files: &[PathBuf], json: bool) -> Result<i64, Failure> {
    run_on(Network::System, files, json)
}

/// [`run`] on this network.
///
/// # Errors
/// [`Failure`], to be told to the operator.
pub fn run_on(network: Network, files: &[PathBuf], json: bool) -> Result<i64, Failure> {
    let clock = Clock::new();
    let snapshot =
        network.snapshot().map_err(|error| Failure::Start(format!("cannot list interfaces: {error}")))?;
    let interfaces = setup::system_interfaces(&snapshot);
    let loaded = setup::read(files, Some(&interfaces)).map_err(Failure::Start)?;
    let format = if json { LogFormat::Json } else { LogFormat::Human };
    let loggers = loaded.dhcp4.as_ref().map(|tree| tree.loggers.as_slice()).unwrap_or_default();
    log::start(listeners::loggers(loggers), format, wall_us);
    let ended = start_and_serve(network, files, loaded, &snapshot, clock);
    log::flush(Duration::from_secs(1));
    ended
}

fn start_and_serve(
    network: Network,
    files: &[PathBuf],
    loaded: Loaded,
    snapshot: &Snapshot,
    clock: Clock,
) -> Result<i64, Failure> {
    let mut findings = loaded.findings.clone();
    let Some(tree) = loaded.dhcp4.clone() else { return Err(Failure::Configuration(findings)) };
    let mut table = Table::new();
    let plan = setup::plan(&tree, &loaded, &mut table, snapshot, 1, &mut findings);
    let Some(plan) = plan else { return Err(Failure::Configuration(findings)) };
    warn(&findings);

    let refused = |error: std::io::Error| Failure::Start(told(&error));
    let mut commands = CommandTable::dhcp4();
    for name in crate::ha::command::request::HA_COMMANDS {
        commands.register_elsewhere(name, Presence::Ha);
    }
    for name in crate::ha::partner::OWN_COMMANDS {
        commands.register_elsewhere(name, Presence::Ha);
    }
    let mut api = ControlLoop::new([commands, CommandTable::agent()]).map_err(refused)?;
    let capacity = tree.aplomado.max_leases.unwrap_or_else(|| plan.lease_capacity());
    let mut book = StatsBook::default();
    let raw = setup::socket_type(&tree) == SocketType::Raw;
    let selection =
        setup::choose(&tree, snapshot, true).map_err(|error| Failure::Start(error.to_string()))?;
    for passed in &selection.passed {
        log!(Severity::Warn, DHCP4, DHCPSRV_OPEN_SOCKET_FAIL, "{passed}");
    }
    let changes = table.update(selection.served, setup::socket_type(&tree));
    let serving = setup::serving(&tree, plan, setup::arrivals(table.served(), raw), &mut book);
    let waker = api.waker();
    let wake_control: Arc<dyn Fn() + Send + Sync> = Arc::new(move || waker.wake());
    let seed = seed();
    let pair = ha::setup::prepare(&tree, shard_count(&tree), seed, &wake_control).map_err(Failure::Start)?;
    let start = Start {
        serving,
        book,
        shard_count: shard_count(&tree),
        lease_file: lease_file(&tree),
        sync: sync_mode(&tree),
        sanity: sanity_mode(&tree),
        upgrade_contexts: tree.sanity.extended_info != Some(ExtendedInfoChecks::None),
        row_errors_max: u64::from(tree.lease_database.max_row_errors),
        lease_capacity: capacity,
        share: pair.as_ref().map_or(Share::Whole, |pair| pair.share),
        seed,
        wake_control,
        pairs: pair.as_ref().map(ha::setup::Prepared::links).unwrap_or_default(),
        parked_max: tree.parked_packet_limit,
        room: Room::default(),
        disk: Arc::new(RealDisk),
    };
    let (engine, leases) = Engine::start(start, &clock).map_err(Failure::Start)?;
    tell_leases(&leases);
    let mut desk = Desk::new(engine, clock.clone(), tree, loaded.control_agent, files.to_vec());
    desk.ha = pair.map(|pair| pair.start(clock.now())).transpose().map_err(Failure::Start)?;
    let statistics = &mut api.dispatcher().statistics;
    statistics.set_zone(Zone::local());
    statistics.configure(desk.tree.statistic_sample_count, u64::from(desk.tree.statistic_sample_age_s));
    let (cleaned_tx, cleaned) = unbounded();
    let control = Control {
        network,
        desk,
        table,
        fallbacks: Vec::new(),
        unopened: Vec::new(),
        next_open: Mono(0),
        generation: 1,
        cleaned_tx,
        cleaned,
        cleaning: Cleaning::Idle,
        next_cleanup: Mono(0),
        want_cleanup: leases.needs_cleanup,
        cleanup_tickets: Vec::new(),
        notifier: Notifier::from_environment(),
        next_watchdog: Mono(0),
        turns: Vec::new(),
        ending: None,
    };
    control.serve(api, changes, leases.lease_count)
}

fn warn(findings: &[Finding]) {
    for finding in findings.iter().filter(|finding| finding.severity == Gravity::Warning) {
        log!(Severity::Warn, DHCP4, DHCP4_CONFIG_LOAD_WARNING, "{finding}");
    }
}

fn tell_leases(leases: &LoadedLeases) {
    for finding in &leases.findings {
        log!(Severity::Warn, LEASES, DHCPSRV_MEMFILE_LEASE_FILE_LOAD, "{finding}");
    }
    for (verdict, (count, first)) in &leases.odd {
        log!(
            Severity::Warn,
            LEASES,
            DHCPSRV_LEASE_SANITY_FAIL,
            "{count} lease(s) of the file are not in the subnet that they name, {first} for one: {verdict}"
        );
    }
    for (reason, count) in &leases.refused {
        log!(
            Severity::Error,
            LEASES,
            DHCPSRV_MEMFILE_LEASE_LOAD_ERROR,
            "{count} lease(s) of the file are not served: {reason}"
        );
    }
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

const fn sanity_mode(tree: &Dhcp4) -> SanityMode {
    match tree.sanity.lease_checks {
        LeaseChecks::None => SanityMode::None,
        LeaseChecks::Warn => SanityMode::Warn,
        LeaseChecks::Fix => SanityMode::Fix,
        LeaseChecks::FixDel => SanityMode::FixDel,
        LeaseChecks::Del => SanityMode::Del,
    }
}

/// A number that clients cannot guess.
fn seed() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::collections::hash_map::RandomState::new().build_hasher().finish()
}

/// Where the clean-up of the lease file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cleaning {
    Idle,
    /// The log thread moves the file aside.
    Rotating,
    /// The clean-up's thread is at work.
    Running,
}

struct Control {
    network: Network,
    desk: Desk,
    table: Table,
    fallbacks: Vec<(InterfaceId, Fallback)>,
    /// Interfaces whose ports could not be opened, with the reason.
    unopened: Vec<(InterfaceId, Selected, String)>,
    next_open: Mono,
    generation: u64,
    cleaned_tx: Sender<Result<Cleaned, String>>,
    cleaned: Receiver<Result<Cleaned, String>>,
    cleaning: Cleaning,
    next_cleanup: Mono,
    want_cleanup: bool,
    cleanup_tickets: Vec<Ticket>,
    notifier: Notifier,
    next_watchdog: Mono,
    /// Turns of each shard when the watchdog was last told.
    turns: Vec<u64>,
    /// The exit value, and when to go without waiting any more.
    ending: Option<(i64, Mono)>,
}

impl Control {
    fn serve(mut self, mut api: ControlLoop, changes: Vec<Change>, lease_count: u64) -> Result<i64, Failure> {
        let refused = |error: std::io::Error| Failure::Start(told(&error));
        self.open(changes);
        if let Some((_, _, text)) = self.unopened.first() {
            return Err(Failure::Start(text.clone()));
        }
        api.listen(listeners::specs(&self.desk.tree, self.desk.agent.as_ref()).map_err(Failure::Start)?)
            .map_err(|errors| Failure::Start(errors.join("; ")))?;
        let (mut signals, writer) = UnixStream::pair().map_err(refused)?;
        signals.set_nonblocking(true).map_err(refused)?;
        let (mut hangups, hangup_writer) = UnixStream::pair().map_err(refused)?;
        hangups.set_nonblocking(true).map_err(refused)?;
        use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
        for (signal, pipe) in [(SIGTERM, &writer), (SIGINT, &writer), (SIGHUP, &hangup_writer)] {
            signal_hook::low_level::pipe::register(signal, pipe.try_clone().map_err(refused)?)
                .map_err(refused)?;
        }
        let mut monitor = Monitor::open().map_err(refused)?;
        let signal_watch = api.watch(&mut SourceFd(&signals.as_raw_fd())).map_err(refused)?;
        let hangup_watch = api.watch(&mut SourceFd(&hangups.as_raw_fd())).map_err(refused)?;
        let link_watch = api.watch(&mut SourceFd(&monitor.fd().as_raw_fd())).map_err(refused)?;

        // What changed since the first look and before the monitor heard of changes.
        self.redetect();
        self.schedule_cleanup();
        self.desk.engine.enable(self.desk.is_enabled());
        self.tell_serving(lease_count);
        loop {
            if let Err(error) = api.poll(Some(self.desk.nap(SLEEP)), &mut self.desk) {
                return Err(Failure::Fault(format!("the event queue failed: {error}")));
            }
            let failed = self.desk.engine.log.failure.lock().clone();
            if let Some(failure) = failed {
                self.desk.engine.enable(false);
                return Err(Failure::Fault(format!(
                    "leases cannot be kept any more: {failure}; no further lease is acknowledged"
                )));
            }
            self.desk.listen();
            self.desk.mind_pair();
            for watched in api.take_watched() {
                let mut octets = [0; 64];
                if watched == signal_watch && signals.read(&mut octets).is_ok_and(|count| count > 0) {
                    log!(Severity::Info, DHCP4, DHCP4_SHUTDOWN_REQUEST, "told to end by a signal");
                    self.end(0);
                } else if watched == hangup_watch && hangups.read(&mut octets).is_ok_and(|count| count > 0) {
                    log!(
                        Severity::Info,
                        DHCP4,
                        DHCP4_DYNAMIC_RECONFIGURATION,
                        "told to read the configuration again"
                    );
                    if let Err(text) = self.reload(&mut api) {
                        log!(
                            Severity::Error,
                            DHCP4,
                            DHCP4_CONFIG_LOAD_FAIL,
                            "Config reload failed: {text}; the old configuration stays"
                        );
                    }
                } else if watched == link_watch && monitor.drain().unwrap_or(true) {
                    self.redetect();
                }
            }
            self.run_errands(&mut api);
            self.desk.settle();
            self.desk.go_on_writing();
            for (ticket, completion) in std::mem::take(&mut self.desk.done) {
                api.complete(ticket, completion, &mut self.desk);
            }
            self.mind_time();
            self.desk.engine.samples.log_all();
            self.reopen();
            self.desk.engine.sweep();
            if let Some((value, deadline)) = self.ending
                && (api.is_quiet() || self.desk.clock.now().mono >= deadline)
            {
                self.notifier.stopping();
                let stopped = self.desk.engine.stop().map_err(Failure::Fault);
                log!(Severity::Info, DHCP4, DHCP4_SHUTDOWN, "server shutdown");
                return stopped.map(|()| value);
            }
        }
    }

    fn tell_serving(&self, lease_count: u64) {
        let text = format!("{}, {lease_count} lease(s) loaded", self.serving());
        log!(Severity::Info, DHCP4, DHCP4_STARTED, "{text}");
        self.notifier.ready(&text);
    }

    /// Where clients are served, for people.
    fn serving(&self) -> String {
        let names: Vec<String> = self
            .table
            .served()
            .iter()
            .map(|(_, link)| {
                let addresses: Vec<String> = link.addresses.iter().map(ToString::to_string).collect();
                format!("{}/{}", link.name, addresses.join(","))
            })
            .collect();
        let on = if names.is_empty() { "no interface yet".to_owned() } else { names.join(" ") };
        let shards = self.desk.engine.shards.len();
        format!("serving on {on} with {shards} shard(s)")
    }

    fn end(&mut self, value: i64) {
        let deadline = self.desk.clock.now().mono.plus_ms(FAREWELL_MS);
        self.ending.get_or_insert((value, deadline));
    }

    /// Does what the desk has been asked for and cannot do itself.
    fn run_errands(&mut self, api: &mut ControlLoop) {
        for errand in std::mem::take(&mut self.desk.errands) {
            match errand {
                Errand::Configure(ticket, order) => {
                    let completion = self.configure(api, &order);
                    self.desk.done.push((ticket, completion));
                }
                Errand::CleanUp(ticket) => match self.cleaning {
                    Cleaning::Idle => {
                        self.start_cleanup();
                        self.cleanup_tickets.push(ticket);
                    }
                    Cleaning::Rotating | Cleaning::Running => {
                        self.desk.done.push((ticket, Completion::LeaseFile(LfcStart::Running)));
                    }
                },
                Errand::Shutdown(value) => {
                    log!(Severity::Info, DHCP4, DHCP4_SHUTDOWN_REQUEST, "told to end by a command");
                    self.end(value);
                }
                Errand::Service => self.desk.serve(),
            }
        }
    }

    fn configure(&mut self, api: &mut ControlLoop, order: &ConfigOrder) -> Completion {
        let outcome = match (&order.action, order.daemon) {
            (ConfigAction::Reload, _) => self.reload(api),
            (ConfigAction::Test(text), daemon) => {
                self.read_command(daemon, text).and_then(|loaded| self.check(&loaded))
            }
            (ConfigAction::Set(text), daemon) => self.read_command(daemon, text).and_then(|loaded| {
                let agent = loaded.control_agent.clone().or_else(|| self.desk.agent.clone());
                self.apply(api, &loaded, agent)
            }),
            (ConfigAction::Write(_), _) => Ok(()),
        };
        match outcome {
            Ok(()) => Completion::Config(Ok(())),
            Err(text) => failure(text),
        }
    }

    fn read_command(
        &self,
        daemon: Daemon,
        text: &crate::control::backend::ConfigText,
    ) -> Result<Loaded, String> {
        let snapshot = self.network.snapshot().map_err(|error| format!("cannot list interfaces: {error}"))?;
        self.desk.read_command(daemon, text, &setup::system_interfaces(&snapshot))
    }

    /// Whether a configuration could be applied.
    fn check(&self, loaded: &Loaded) -> Result<(), String> {
        let Some(tree) = &loaded.dhcp4 else { return Ok(()) };
        let snapshot = self.network.snapshot().map_err(|error| format!("cannot list interfaces: {error}"))?;
        let mut findings = Vec::new();
        let plan = setup::plan(tree, loaded, &mut Table::new(), &snapshot, 0, &mut findings);
        match plan {
            Some(_) => Ok(()),
            None => Err(first_error(&findings)),
        }
    }

    /// Reads the start-up files again.
    fn reload(&mut self, api: &mut ControlLoop) -> Result<(), String> {
        self.notifier.reloading(crate::net::monotonic_us());
        let outcome = self.reread(api);
        let failed =
            if outcome.is_err() { "; the last reload failed, the old configuration stays" } else { "" };
        self.notifier.ready(&format!("{}{failed}", self.serving()));
        outcome.map_err(|text| {
            let names: Vec<String> = self.desk.files.iter().map(|file| file.display().to_string()).collect();
            format!("configuration error using file '{}': {text}", names.join("', '"))
        })
    }

    fn reread(&mut self, api: &mut ControlLoop) -> Result<(), String> {
        let snapshot = self.network.snapshot().map_err(|error| format!("cannot list interfaces: {error}"))?;
        let files = self.desk.files.clone();
        let loaded = setup::read(&files, Some(&setup::system_interfaces(&snapshot)))?;
        if let Some(finding) = loaded.first_error() {
            return Err(finding.kea_text());
        }
        if loaded.dhcp4.is_none() {
            return Err("there is no Dhcp4 block".to_owned());
        }
        // The files are the whole truth: an agent that they do not name any more is gone.
        self.apply(api, &loaded, loaded.control_agent.clone())
    }

    /// Puts a configuration in force; when anything of it cannot be had, the old one stays.
    ///
    /// Everything that can fail comes before the plan is published: interfaces are chosen on a copy of the table, and
    /// listeners are put back when the plan finds no room. Ports come after it, as in Kea: one that cannot be opened is
    /// told in `status-get` and tried again, because the interface may be back any moment.
    fn apply(
        &mut self,
        api: &mut ControlLoop,
        loaded: &Loaded,
        agent: Option<ControlAgent>,
    ) -> Result<(), String> {
        let Some(tree) = loaded.dhcp4.clone() else {
            // A command for the agent alone.
            if agent.is_none() {
                return Err("there is neither a Dhcp4 nor a Control-agent block".to_owned());
            }
            let specs = listeners::specs(&self.desk.tree, agent.as_ref())?;
            api.listen(specs).map_err(|errors| errors.join("; "))?;
            self.desk.agent = agent;
            return Ok(());
        };
        if lease_file(&tree) != lease_file(&self.desk.tree) {
            return Err("lease-database cannot be changed while the server runs: restart it".to_owned());
        }
        let pair = ha::setup::configured(&tree)?;
        if self.desk.ha.as_ref().map_or_else(|| pair.is_some(), |ha| !ha.is_same(pair.as_ref())) {
            return Err("high-availability cannot be changed while the server runs: restart it".to_owned());
        }
        let snapshot =
            self.network.snapshot().map_err(|error| format!("cannot list interfaces: {}", told(&error)))?;
        let mut findings = loaded.findings.clone();
        let mut table = self.table.clone();
        let generation = self.generation + 1;
        let plan = setup::plan(&tree, loaded, &mut table, &snapshot, generation, &mut findings);
        let Some(plan) = plan else { return Err(first_error(&findings)) };
        let selection = setup::choose(&tree, &snapshot, true).map_err(|error| told(&error))?;
        let socket_type = setup::socket_type(&tree);
        let mut changes = Vec::new();
        if socket_type != setup::socket_type(&self.desk.tree) {
            // Other sockets: all are closed before any is opened.
            changes = table.update(Vec::new(), socket_type);
        }
        changes.extend(table.update(selection.served, socket_type));
        let arrivals = setup::arrivals(table.served(), socket_type == SocketType::Raw);
        let specs = listeners::specs(&tree, agent.as_ref())?;
        api.listen(specs).map_err(|errors| errors.join("; "))?;
        let serving = setup::serving(&tree, plan, arrivals, &mut self.desk.engine.book);
        if let Err(text) = self.desk.engine.publish(serving) {
            let old = listeners::specs(&self.desk.tree, self.desk.agent.as_ref());
            if let Err(again) = old.and_then(|specs| api.listen(specs).map_err(|errors| errors.join("; "))) {
                log!(Severity::Error, DHCP4, COMMAND_LISTENER_FAIL, "listeners not put back: {again}");
            }
            return Err(text);
        }
        // From here on the new configuration is in force.
        self.generation = generation;
        self.table = table;
        self.desk.tree = tree;
        self.desk.agent = agent;
        self.desk.configured = self.desk.clock.now();
        self.desk.disabling.reconfigured();
        self.desk.serve();
        log::configure(listeners::loggers(&self.desk.tree.loggers));
        warn(&findings);
        for passed in &selection.passed {
            log!(Severity::Warn, DHCP4, DHCPSRV_OPEN_SOCKET_FAIL, "{passed}");
        }
        let shards = self.desk.engine.shards.len();
        if shard_count(&self.desk.tree) != shards {
            log!(
                Severity::Warn,
                DHCP4,
                DHCP4_MULTI_THREADING_INFO,
                "thread-pool-size takes effect at the next start: {shards} shard(s) go on"
            );
        }
        let statistics = &mut api.dispatcher().statistics;
        statistics.configure(
            self.desk.tree.statistic_sample_count,
            u64::from(self.desk.tree.statistic_sample_age_s),
        );
        statistics.recounted();
        self.schedule_cleanup();
        self.open(changes);
        log!(
            Severity::Info,
            DHCP4,
            DHCP4_CONFIG_COMPLETE,
            "the configuration is in force: {} subnet(s)",
            self.desk.engine.serving().plan.subnets.len()
        );
        Ok(())
    }

    /// Opens and closes ports as `changes` say. What cannot be had is told, shown in `status-get` and tried again.
    fn open(&mut self, changes: Vec<Change>) {
        let shards = u8::try_from(self.desk.engine.shards.len()).unwrap_or(u8::MAX);
        let keys = self.desk.engine.steering.multipliers();
        let raw = setup::socket_type(&self.desk.tree) == SocketType::Raw;
        for change in changes {
            let (Change::Close(id) | Change::Open(id, _) | Change::Readdress(id, _)) = change;
            let known = self.unopened.iter().position(|(other, ..)| *other == id);
            let known = known.map(|position| self.unopened.remove(position).2);
            let failed = match &change {
                Change::Close(id) => {
                    self.fallbacks.retain(|(other, _)| other != id);
                    for shard in &self.desk.engine.shards {
                        // A shard that takes no orders has failed, and the loop will see it.
                        let _ = shard.order(Order::RemovePort(*id));
                    }
                    None
                }
                Change::Open(id, selected) => match self.ports(*id, selected, shards, keys) {
                    Ok(ports) => {
                        for (shard, port) in self.desk.engine.shards.iter().zip(ports) {
                            let _ = shard.order(Order::AddPort(port));
                        }
                        None
                    }
                    Err(error) => {
                        self.fallbacks.retain(|(other, _)| other != id);
                        Some((selected.clone(), error))
                    }
                },
                Change::Readdress(id, selected) => {
                    let addresses: Arc<[std::net::Ipv4Addr]> = selected.addresses.clone().into();
                    for shard in &self.desk.engine.shards {
                        let _ = shard.order(Order::Readdress(*id, Arc::clone(&addresses)));
                    }
                    self.fallbacks.retain(|(other, _)| other != id);
                    let opened = if raw { self.fall_back(*id, selected) } else { Ok(()) };
                    opened.err().map(|error| (selected.clone(), error))
                }
            };
            if let Some((selected, error)) = failed {
                let text = told(&error);
                if known.as_ref() != Some(&text) {
                    let next = if self.next_open == Mono(0) { "" } else { "; it is tried again" };
                    log!(Severity::Error, DHCP4, DHCPSRV_OPEN_SOCKET_FAIL, "{text}{next}");
                }
                self.unopened.push((id, selected, text));
            } else if known.is_some() && !matches!(change, Change::Close(_)) {
                let name = self.table.name(id).unwrap_or("?");
                log!(Severity::Info, DHCP4, DHCP4_OPEN_SOCKETS_SUCCESS, "the sockets of {name} are open now");
            }
        }
        self.next_open = self.desk.clock.now().mono.plus_ms(REOPEN_MS);
        self.desk.socket_errors = self.unopened.iter().map(|(_, _, text)| text.clone()).collect();
        let unopened = &self.unopened;
        let served = self.table.served().iter();
        let open = served.filter(|(id, _)| unopened.iter().all(|(other, ..)| other != id));
        self.desk.served = open.map(|(_, link)| link.name.clone()).collect();
    }

    /// Tries again what could not be opened.
    fn reopen(&mut self) {
        if self.unopened.is_empty() || self.desk.clock.now().mono < self.next_open {
            return;
        }
        let again: Vec<Change> =
            self.unopened.iter().map(|(id, selected, _)| Change::Open(*id, selected.clone())).collect();
        self.open(again);
    }

    fn ports(
        &mut self,
        id: InterfaceId,
        selected: &Selected,
        shards: u8,
        keys: (u32, u32),
    ) -> Result<Vec<AnyPort>, OpenError> {
        if let Some(given) = self.network.take_port(&self.desk.engine.shards[0].bell) {
            return Ok(given);
        }
        match setup::socket_type(&self.desk.tree) {
            SocketType::Raw => {
                self.fall_back(id, selected)?;
                let options = packet::PacketOptions::default();
                Ok(packet::open(selected, id, shards, keys, &options)?
                    .into_iter()
                    .map(AnyPort::Packet)
                    .collect())
            }
            SocketType::Udp => {
                let outbound = if self.desk.tree.interfaces.outbound_use_routing.unwrap_or(false) {
                    Outbound::UseRouting
                } else {
                    Outbound::SameAsInbound
                };
                let options = UdpOptions { outbound, ..UdpOptions::default() };
                Ok(udp::open(selected, id, shards, keys, &options)?.into_iter().map(AnyPort::Udp).collect())
            }
        }
    }

    /// Binds the port beside packet sockets, so that the kernel does not answer relays with "port unreachable".
    fn fall_back(&mut self, id: InterfaceId, selected: &Selected) -> Result<(), OpenError> {
        for address in &selected.addresses {
            let fallback = Fallback::open(&selected.name, *address, SERVER_PORT)?;
            self.fallbacks.push((id, fallback));
        }
        Ok(())
    }

    /// Looks at the interfaces again.
    fn redetect(&mut self) {
        if !self.desk.tree.interfaces.re_detect {
            return;
        }
        let Ok(snapshot) = self.network.snapshot() else { return };
        let Ok(selection) = setup::choose(&self.desk.tree, &snapshot, true) else { return };
        let socket_type = setup::socket_type(&self.desk.tree);
        let changes = self.table.update(selection.served, socket_type);
        if changes.is_empty() {
            return;
        }
        for change in &changes {
            match change {
                Change::Open(_, link) | Change::Readdress(_, link) => {
                    let addresses: Vec<String> = link.addresses.iter().map(ToString::to_string).collect();
                    let (name, addresses) = (&link.name, addresses.join(","));
                    log!(
                        Severity::Info,
                        DHCP4,
                        DHCPSRV_CFGMGR_ADD_IFACE,
                        "{name} is served now as {addresses}"
                    );
                }
                Change::Close(id) => {
                    let name = self.table.name(*id).unwrap_or("?");
                    log!(Severity::Warn, DHCP4, DHCPSRV_NO_SOCKETS_OPEN, "{name} is not served any more");
                }
            }
        }
        // The plan knows interfaces and how answers leave by them: a new one with the same configuration.
        self.generation += 1;
        let (tree, generation) = (self.desk.tree.clone(), self.generation);
        let mut findings = Vec::new();
        let plan =
            setup::plan(&tree, &Loaded::default(), &mut self.table, &snapshot, generation, &mut findings);
        if let Some(plan) = plan {
            let arrivals = setup::arrivals(self.table.served(), socket_type == SocketType::Raw);
            let serving = setup::serving(&tree, plan, arrivals, &mut self.desk.engine.book);
            if let Err(text) = self.desk.engine.publish(serving) {
                log!(Severity::Error, DHCP4, DHCP4_CONFIG_LOAD_FAIL, "{text}");
            }
        }
        self.open(changes);
    }

    /// What happens by the clock.
    fn mind_time(&mut self) {
        let now = self.desk.clock.now().mono;
        if !self.desk.disabling.expire(now).is_empty() {
            self.desk.serve();
        }
        if let Some(interval) = self.notifier.watchdog_interval()
            && now >= self.next_watchdog
        {
            // Only while every shard turns: a stuck one must be seen by the service manager. An idle one turns several
            // times a second.
            let turns: Vec<u64> =
                self.desk.engine.shards.iter().map(|shard| shard.counters.turn_count()).collect();
            let moved = turns.iter().zip(&self.turns).all(|(now, before)| now != before);
            if moved {
                self.notifier.watchdog();
                self.turns = turns;
                self.next_watchdog = now.plus_ms(u64::try_from(interval.as_millis()).unwrap_or(1000));
            }
        }
        match self.cleaning {
            Cleaning::Idle => {
                let due = self.desk.tree.lease_database.lfc_interval_s > 0 && now >= self.next_cleanup;
                if self.desk.engine.files.is_some() && (due || self.want_cleanup) {
                    self.start_cleanup();
                }
            }
            Cleaning::Rotating => match self.desk.engine.take_rotation() {
                Some(Ok(true)) => self.run_cleanup(),
                Some(Ok(false)) => self.cleanup_done(),
                Some(Err(text)) => {
                    log!(
                        Severity::Error,
                        LEASES,
                        DHCPSRV_MEMFILE_LFC_FAIL,
                        "lease file not cleaned up: {text}"
                    );
                    for ticket in std::mem::take(&mut self.cleanup_tickets) {
                        self.desk.done.push((ticket, Completion::LeaseFile(LfcStart::Failed)));
                    }
                    self.cleanup_done();
                }
                None => {}
            },
            Cleaning::Running => {
                if let Ok(outcome) = self.cleaned.try_recv() {
                    match outcome {
                        Ok(cleaned) => {
                            log!(
                                Severity::Info,
                                LEASES,
                                DHCPSRV_MEMFILE_LFC_EXECUTE,
                                "lease file: {cleaned}"
                            );
                        }
                        Err(text) => {
                            log!(
                                Severity::Error,
                                LEASES,
                                DHCPSRV_MEMFILE_LFC_FAIL,
                                "lease file not cleaned up: {text}"
                            );
                        }
                    }
                    self.cleanup_done();
                }
            }
        }
    }

    fn schedule_cleanup(&mut self) {
        let interval_ms = u64::from(self.desk.tree.lease_database.lfc_interval_s) * 1000;
        self.next_cleanup = self.desk.clock.now().mono.plus_ms(interval_ms);
    }

    fn start_cleanup(&mut self) {
        self.want_cleanup = false;
        self.cleaning = Cleaning::Rotating;
        self.desk.engine.ask_rotation();
    }

    fn run_cleanup(&mut self) {
        let Some(files) = self.desk.engine.files.clone() else { return self.cleanup_done() };
        let done = self.cleaned_tx.clone();
        let started = engine::clean_up(&files, move |outcome| {
            // The control thread outlives the clean-up, or nobody asks.
            let _ = done.send(outcome);
        });
        match started {
            Ok(_) => {
                self.cleaning = Cleaning::Running;
                for ticket in std::mem::take(&mut self.cleanup_tickets) {
                    self.desk.done.push((ticket, Completion::LeaseFile(LfcStart::Started)));
                }
            }
            Err(error) => {
                log!(
                    Severity::Error,
                    LEASES,
                    DHCPSRV_MEMFILE_LFC_FAIL,
                    "no thread for the clean-up: {error}"
                );
                for ticket in std::mem::take(&mut self.cleanup_tickets) {
                    self.desk.done.push((ticket, Completion::LeaseFile(LfcStart::Failed)));
                }
                self.cleanup_done();
            }
        }
    }

    fn cleanup_done(&mut self) {
        self.cleaning = Cleaning::Idle;
        // Asked for while there was nothing to do: it has been done.
        for ticket in std::mem::take(&mut self.cleanup_tickets) {
            self.desk.done.push((ticket, Completion::LeaseFile(LfcStart::Started)));
        }
        self.schedule_cleanup();
    }
}

fn first_error(findings: &[Finding]) -> String {
    findings
        .iter()
        .find(|finding| finding.severity == Gravity::Error)
        .map_or_else(|| "the configuration is not usable".to_owned(), Finding::kea_text)
}

/// The desk must be a backend: said here, where both are known.
const _: fn(&mut Desk) -> &mut dyn Backend = |desk| desk;
