//! The start: what a configuration asks for becomes an engine with its leases, and a control loop over it.

use std::path::PathBuf;
use std::sync::Arc;

use super::cleanup::CleanUp;
use super::{Control, DHCP4, Failure, LEASES, warn};
use crate::allocate::Share;
use crate::config::load::Loaded;
use crate::config::tree::{Dhcp4, ExtendedInfoChecks, LeaseChecks, SyncMode as Configured};
use crate::control::clock::Zone;
use crate::control::event_loop::ControlLoop;
use crate::control::log::Severity;
use crate::control::notify::Notifier;
use crate::control::table::{CommandTable, Presence};
use crate::exchange::serving::StatsBook;
use crate::journal::replay::SanityMode;
use crate::log;
use crate::net::link::{Snapshot, SocketType, Table};
use crate::net::raise_descriptor_limit;
use crate::server::clock::Clock;
use crate::server::desk::Desk;
use crate::server::engine::{Engine, LoadedLeases, Room, Start};
use crate::server::network::Network;
use crate::server::{ha, setup, told};
use crate::store::{RealDisk, SYNC_INTERVAL_MS, SyncMode};
use crate::time::Mono;

pub(super) fn start_and_serve(
    network: Network,
    files: &[PathBuf],
    loaded: Loaded,
    snapshot: &Snapshot,
    clock: Clock,
) -> Result<i64, Failure> {
    let mut findings = loaded.findings.clone();
    let Some(tree) = loaded.dhcp4.clone() else {
        setup::examine_faulty(&loaded, &mut findings);
        return Err(Failure::Configuration(findings));
    };
    let mut table = Table::new();
    let plan = setup::plan(&tree, &loaded, &mut table, snapshot, 1, &mut findings);
    let Some(plan) = plan else { return Err(Failure::Configuration(findings)) };
    warn(&findings);

    let refused = |error: std::io::Error| Failure::Start(told(&error));
    // Without it a large configuration says itself which socket it could not open.
    let _ = raise_descriptor_limit();
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
    if let Some(ha) = &mut desk.ha {
        ha.started(leases.lease_count > 0);
    }
    let statistics = &mut api.dispatcher().statistics;
    statistics.set_zone(Zone::local());
    statistics.configure(desk.tree.statistic_sample_count, u64::from(desk.tree.statistic_sample_age_s));
    let control = Control {
        network,
        desk,
        table,
        fallbacks: Vec::new(),
        unopened: Vec::new(),
        next_open: Mono(0),
        generation: 1,
        reconfiguring: super::reconfigure::Reconfiguring::default(),
        cleanup: CleanUp::new(leases.needs_cleanup),
        notifier: Notifier::from_environment(),
        next_watchdog: Mono(0),
        turns: Vec::new(),
        ending: None,
    };
    control.serve(api, changes, leases.lease_count)
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
pub(super) fn shard_count(tree: &Dhcp4) -> usize {
    let configured = usize::from(tree.multi_threading.thread_pool_size);
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let count = if tree.multi_threading.enabled && configured > 0 { configured } else { cores };
    count.clamp(1, crate::ids::SHARDS_MAX)
}

/// The file that keeps the leases, if any does.
pub(super) fn lease_file(tree: &Dhcp4) -> Option<PathBuf> {
    let database = &tree.lease_database;
    database.persists().then(|| PathBuf::from(database.name.as_deref().unwrap_or(setup::LEASE_FILE_DEFAULT)))
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
