//! The bare reflector: what machine, kernel and ports carry when there is no server between them.
//!
//! Each frame is copied into a frame of the slab, as a server builds its reply there, with hardware addresses, IP addresses and UDP
//! ports swapped; the checksums stay right, for a sum does not care for order.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aplomado::net::{FrameSlab, PacketPort, PortSet, PortStats, RxBatch, TxBatch};
use serde_json::{Value, json};

use crate::{clock, wire};

/// What a reflector does.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Interface to reflect on.
    #[arg(short, long)]
    interface: String,
    /// Stop after this many seconds.
    #[arg(short, long, default_value_t = 10.0)]
    duration: f64,
    /// Threads, with one ring each.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=64))]
    shards: u8,
    /// Slots of each ring.
    #[arg(long, default_value_t = 4096)]
    ring_slots: u32,
    /// Look for frames all the time instead of sleeping when there is none.
    #[arg(long)]
    spin: bool,
    /// Leave out the interface's queueing discipline.
    #[arg(long)]
    bypass_queue: bool,
}

/// Reflects until the time is over, and says how much.
pub(crate) fn run(arguments: &Arguments) -> Result<Value, String> {
    let link = wire::interface(&arguments.interface)?;
    let sets = wire::open(&link, 67, arguments.shards, arguments.ring_slots, arguments.bypass_queue)?;
    eprintln!("reflecting on {} with {} thread(s)", link.name, sets.len());
    let begin_ns = clock::now_ns();
    let end_ns = begin_ns + crate::nanoseconds(arguments.duration);
    let stop = AtomicBool::new(false);
    let mut total = PortStats::default();
    std::thread::scope(|scope| -> Result<(), String> {
        let threads: Vec<_> = sets
            .into_iter()
            .map(|set| scope.spawn(|| reflect(set, end_ns, arguments.spin, link.mac, &stop)))
            .collect();
        for thread in threads {
            let stats = thread.join().map_err(|_| "a reflecting thread died".to_owned())??;
            total.add(&stats);
        }
        Ok(())
    })?;
    let (user_s, system_s) = clock::cpu_seconds().unwrap_or_default();
    Ok(json!({
        "seconds": arguments.duration,
        "received": total.rx_frames,
        "sent": total.tx_frames,
        "dropped_by_kernel": total.rx_kernel_dropped,
        "send_failed": total.tx_full + total.tx_failed,
        "cpu_user_s": user_s,
        "cpu_system_s": system_s,
    }))
}

fn reflect(
    mut set: PortSet<PacketPort>,
    end_ns: u64,
    spin: bool,
    own_mac: [u8; 6],
    stop: &AtomicBool,
) -> Result<PortStats, String> {
    let mut slab = FrameSlab::new(u32::try_from(aplomado::net::BATCH_MAX).expect("a batch is small"));
    let (mut arrived, mut leaving) = (RxBatch::new(), TxBatch::new());
    while clock::now_ns() < end_ns && !stop.load(Ordering::Relaxed) {
        if set.recv(&mut arrived) == 0 {
            set.recycle(&mut arrived);
            if !spin && let Err(error) = set.wait(Duration::from_millis(10), || false) {
                stop.store(true, Ordering::Relaxed);
                return Err(format!("cannot wait for frames: {error}"));
            }
            continue;
        }
        for frame in arrived.frames() {
            let bytes = set.bytes(frame);
            let Some(token) = slab.take() else { break };
            swap(bytes, &mut slab.bytes_mut(&token)[..bytes.len()], own_mac);
            leaving.push(token, bytes.len(), frame.interface);
        }
        set.send(&mut leaving, &mut slab);
        set.recycle(&mut arrived);
    }
    let mut stats = PortStats::default();
    for port in set.ports_mut() {
        stats.add(&aplomado::net::Port::stats(port));
    }
    Ok(stats)
}

/// Copies a frame with its ends swapped. Ports hand out frames that hold an Ethernet and an IPv4 header.
fn swap(from: &[u8], to: &mut [u8], own_mac: [u8; 6]) {
    to.copy_from_slice(from);
    to[..6].copy_from_slice(&from[6..12]);
    to[6..12].copy_from_slice(&own_mac);
    to[26..30].copy_from_slice(&from[30..34]);
    to[30..34].copy_from_slice(&from[26..30]);
    let udp = 14 + 4 * usize::from(from[14] & 0xf);
    if from.len() >= udp + 4 {
        to[udp..udp + 2].copy_from_slice(&from[udp + 2..udp + 4]);
        to[udp + 2..udp + 4].copy_from_slice(&from[udp..udp + 2]);
    }
}
