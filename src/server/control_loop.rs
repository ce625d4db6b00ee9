//! The control thread: starts the engine, answers commands, minds interfaces, clean-ups and signals, ends everything.
//!
//! One event loop ([`ControlLoop`]) with the [`Desk`] behind it. Nothing here waits for a shard or for the disk; the clean-up of
//! the lease file has a thread of its own.

mod cleanup;
mod interfaces;
mod reconfigure;
mod start;

use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use mio::unix::SourceFd;

use self::cleanup::CleanUp;
use self::reconfigure::{Asked, Reconfiguring};
use super::clock::Clock;
use super::desk::{Desk, Errand};
use super::listeners;
use super::network::Network;
use super::setup;
use super::told;
use crate::config::finding::{Finding, Severity as Gravity};
use crate::control::backend::Backend;
use crate::control::event_loop::ControlLoop;
use crate::control::log::{self, LogFormat, Severity};
use crate::control::notify::Notifier;
use crate::ids::InterfaceId;
use crate::log;
use crate::net::link::{Change, Monitor, Selected, Table};
use crate::net::udp::Fallback;
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
    let ended = start::start_and_serve(network, files, loaded, &snapshot, clock);
    log::flush(Duration::from_secs(1));
    ended
}

fn warn(findings: &[Finding]) {
    for finding in findings.iter().filter(|finding| finding.severity == Gravity::Warning) {
        log!(Severity::Warn, DHCP4, DHCP4_CONFIG_LOAD_WARNING, "{finding}");
    }
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
    reconfiguring: Reconfiguring,
    cleanup: CleanUp,
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
        self.cleanup.schedule(&self.desk);
        self.desk.engine.enable(self.desk.is_enabled());
        self.tell_serving(lease_count);
        loop {
            let nap = if self.reconfiguring.is_at_work() { Duration::ZERO } else { self.desk.nap(SLEEP) };
            if let Err(error) = api.poll(Some(nap), &mut self.desk) {
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
                    self.reconfiguring.ask(Asked::Signal);
                } else if watched == link_watch && monitor.drain().unwrap_or(true) {
                    self.redetect();
                }
            }
            self.run_errands();
            self.go_on_configuring(&mut api);
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
    fn run_errands(&mut self) {
        for errand in std::mem::take(&mut self.desk.errands) {
            match errand {
                Errand::Configure(ticket, order) => self.reconfiguring.ask(Asked::Command(ticket, order)),
                Errand::CleanUp(ticket) => self.cleanup.ask(ticket, &mut self.desk),
                Errand::Shutdown(value) => {
                    log!(Severity::Info, DHCP4, DHCP4_SHUTDOWN_REQUEST, "told to end by a command");
                    self.end(value);
                }
                Errand::Service => self.desk.serve(),
            }
        }
    }

    /// What happens by the clock.
    fn mind_time(&mut self) {
        let now = self.desk.clock.now().mono;
        if !self.desk.disabling.expire(now).is_empty() {
            self.desk.serve();
        }
        self.feed_watchdog(now);
        self.cleanup.mind(now, &mut self.desk);
    }

    /// Only while every shard turns: a stuck one must be seen by the service manager. An idle one turns several times a second.
    fn feed_watchdog(&mut self, now: Mono) {
        let Some(interval) = self.notifier.watchdog_interval() else { return };
        if now < self.next_watchdog {
            return;
        }
        let turns: Vec<u64> =
            self.desk.engine.shards.iter().map(|shard| shard.counters.turn_count()).collect();
        let moved = turns.iter().zip(&self.turns).all(|(now, before)| now != before);
        if moved {
            self.notifier.watchdog();
            self.turns = turns;
            self.next_watchdog = now.plus_ms(u64::try_from(interval.as_millis()).unwrap_or(1000));
        }
    }
}

/// The desk must be a backend: said here, where both are known.
const _: fn(&mut Desk) -> &mut dyn Backend = |desk| desk;
