//! The server on an in-process port, for systems that allow no namespaces: frames come in on standard input and go out on
//! standard output, each with its length before it. Everything else, from the shard to the lease file, is what `run` runs.

use std::io::{self, Write};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crossbeam::channel::unbounded;

use super::stage::{ENDS, PREFIX_LEN, SERVER, SERVER_LINK, put_frame, read_frame};
use crate::allocate::Share;
use crate::exchange::serving::StatsBook;
use crate::ids::InterfaceId;
use crate::net::link::{Link, Snapshot, SocketType, Table};
use crate::net::{AnyPort, Doorbell, MemoryPort, PortSet, RxFlags};
use crate::server::clock::Clock;
use crate::server::engine::{Engine, Start};
use crate::server::setup;
use crate::server::shard_loop::{Event, Order};
use crate::store::SyncMode;

/// Frames that may wait on either side of the port.
const SLOTS: usize = 512;
/// How long the bridge sleeps at most.
const SLEEP: Duration = Duration::from_millis(50);

/// Serves `config` until standard input ends.
pub(super) fn serve(config: PathBuf) -> Result<(), String> {
    let clock = Clock::new();
    let link = Link {
        name: SERVER_LINK.to_owned(),
        index: 1,
        mac: Some(ENDS.server_mac),
        up: true,
        running: true,
        loopback: false,
        mtu: 1500,
        addresses: vec![(IpAddr::V4(SERVER), PREFIX_LEN)],
    };
    let snapshot = Snapshot { links: vec![link] };
    let loaded = setup::read(&[config], Some(&setup::system_interfaces(&snapshot)))?;
    let mut findings = Vec::new();
    let tree = loaded.dhcp4.as_ref().ok_or("the demo's configuration is refused")?;
    let mut table = Table::new();
    let plan = setup::plan(tree, &loaded, &mut table, &snapshot, 1, &mut findings)
        .ok_or("the demo's configuration is refused")?;
    let selection = setup::choose(tree, &snapshot, true).map_err(|error| error.to_string())?;
    table.update(selection.served, SocketType::Raw);
    let mut book = StatsBook::default();
    let lease_capacity = plan.lease_capacity();
    let serving = setup::serving(tree, plan, setup::arrivals(table.served(), true), &mut book);
    let bell = Arc::new(Doorbell::new().map_err(|error| error.to_string())?);
    let start = Start {
        serving,
        book,
        shard_count: 1,
        lease_file: tree.lease_database.name.as_deref().map(PathBuf::from),
        sync: SyncMode::Group,
        row_errors_max: 0,
        sanity: crate::journal::replay::SanityMode::Warn,
        lease_capacity,
        share: Share::Whole,
        seed: clock.wall_us(),
        wake_control: {
            let bell = Arc::clone(&bell);
            Arc::new(move || bell.ring())
        },
        ha: None,
        parked_max: 0,
    };
    let (engine, leases) = Engine::start(start, clock)?;
    let (mut near, mut far) = MemoryPort::pair(InterfaceId(0), InterfaceId(0), SLOTS);
    near.rings(Arc::clone(&engine.shards[0].bell));
    far.rings(Arc::clone(&bell));
    if engine.shards[0].order(Order::AddPort(AnyPort::Memory(far))).is_err() {
        return Err("the shard does not take orders".to_owned());
    }
    engine.enable(true);
    eprintln!("serving on an in-process port, {} lease(s) loaded", leases.lease_count);
    let pumped = pump(&engine, near, bell);
    engine.stop()?;
    pumped.map_err(|error| error.to_string())
}

/// Carries frames both ways until standard input ends.
fn pump(engine: &Engine, near: MemoryPort, bell: Arc<Doorbell>) -> io::Result<()> {
    let (sender, arrived) = unbounded();
    {
        let bell = Arc::clone(&bell);
        std::thread::Builder::new().name("pipe".to_owned()).spawn(move || {
            let mut input = io::stdin().lock();
            while let Ok(Some(frame)) = read_frame(&mut input) {
                if sender.send(frame).is_err() {
                    return;
                }
                bell.ring();
            }
            drop(sender);
            bell.ring();
        })?;
    }
    let mut set = PortSet::new(bell);
    assert!(set.add(near).is_ok(), "a new set has room");
    let mut out = io::stdout().lock();
    let mut octets = Vec::new();
    loop {
        set.wait(SLEEP, || !arrived.is_empty())?;
        let Some(near) = set.ports_mut().first_mut() else { return Ok(()) };
        loop {
            match arrived.try_recv() {
                // A full port loses the frame, as a ring would.
                Ok(frame) => drop(near.inject(&frame, RxFlags::default())),
                Err(crossbeam::channel::TryRecvError::Empty) => break,
                Err(crossbeam::channel::TryRecvError::Disconnected) => return Ok(()),
            }
        }
        while near.eject(|frame| put_frame(&mut octets, frame)).is_some() {}
        if !octets.is_empty() {
            out.write_all(&octets)?;
            out.flush()?;
            octets.clear();
        }
        while let Ok(event) = engine.events.try_recv() {
            if let Event::Want(shard, want) = event {
                let part = want.allocate();
                if let Some(handle) = engine.shards.get(usize::from(shard.0)) {
                    // A shard that takes no orders asks again.
                    let _ = handle.order(Order::Memory(part));
                }
            }
        }
        if let Some(failure) = engine.log.failure.lock().clone() {
            return Err(io::Error::other(failure));
        }
    }
}
