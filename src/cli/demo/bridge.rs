//! A server on an in-process port, for systems that allow no namespaces: frames come in on standard input and go out on
//! standard output, each with its length before it. Everything else, from the shard to the HA machine, is what `run` runs.

use std::io::{self, Write};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crossbeam::channel::{TryRecvError, bounded, unbounded};

use super::stage::{ENDS, PREFIX_LEN, SERVER_LINK};
use super::wire::{put_frame, read_frame};
use crate::cli::{Exit, run};
use crate::ids::InterfaceId;
use crate::net::link::{Link, Snapshot};
use crate::net::{Doorbell, MemoryPort, PortSet, RxFlags};
use crate::server::control_loop;
use crate::server::network::Network;

/// Frames that may wait on either side of the port.
const SLOTS: usize = 512;
/// How long the bridge sleeps at most.
const SLEEP: Duration = Duration::from_millis(50);

/// Serves `config` as this server of the pair, until standard input ends.
pub(super) fn serve(config: PathBuf, server: usize) -> Exit {
    let end = ENDS.servers[server.min(1)];
    let link = Link {
        name: SERVER_LINK.to_owned(),
        index: 1,
        mac: Some(end.mac),
        up: true,
        running: true,
        loopback: false,
        mtu: 1500,
        addresses: vec![(IpAddr::V4(end.address), PREFIX_LEN)],
    };
    let (mut near, mut far) = MemoryPort::pair(InterfaceId(0), InterfaceId(0), SLOTS);
    let (joined, shards) = bounded(1);
    let started = Doorbell::new().and_then(|bell| {
        let bell = Arc::new(bell);
        far.rings(Arc::clone(&bell));
        std::thread::Builder::new().name("bridge".to_owned()).spawn(move || {
            if let Ok(shard) = shards.recv() {
                near.rings(shard);
                if let Err(error) = pump(near, bell) {
                    eprintln!("aplomado: the pipes failed: {error}");
                }
            }
            // The clients have gone. A process that does not take the signal ends with its parent.
            let _ = signal_hook::low_level::raise(signal_hook::consts::SIGTERM);
        })
    });
    if let Err(error) = started {
        eprintln!("aplomado: cannot start: {error}");
        return Exit::CannotStart;
    }
    let snapshot = Snapshot { links: vec![link] };
    let network = Network::Given { snapshot, port: Some(Box::new(far)), joined };
    run::ended(control_loop::run_on(network, &[config], false))
}

/// Carries frames both ways until standard input ends.
fn pump(near: MemoryPort, bell: Arc<Doorbell>) -> io::Result<()> {
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
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => return Ok(()),
            }
        }
        while near.eject(|frame| put_frame(&mut octets, frame)).is_some() {}
        if !octets.is_empty() {
            out.write_all(&octets)?;
            out.flush()?;
            octets.clear();
        }
    }
}
