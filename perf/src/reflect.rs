//! The bare reflector: what machine, kernel and ports carry when there is no server between them.
//!
//! Each frame is copied into a frame of the slab, as a server builds its reply there, with hardware addresses, IP addresses and UDP
//! ports swapped; the checksums stay right, for a sum does not care for order.
//!
//! With `--answer` it is the emptiest DHCP server there could be, which has no state and no rules: the ceiling of four-way exchanges,
//! and what generators are compared against.

use std::io::Write;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aplomado::net::{FrameSlab, PacketPort, PortSet, PortStats, RxBatch, TxBatch};
use serde_json::{Value, json};

use crate::{clock, codec, wire};

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
    /// Answer DISCOVER and REQUEST with the address that the client's hardware address stands for, instead of swapping addresses.
    #[arg(long)]
    answer: bool,
    /// Send nothing: take what comes, as a server does that serves nobody.
    #[arg(long, conflicts_with = "answer")]
    listen: bool,
}

/// What is done with each frame.
#[derive(Clone, Copy, Debug)]
struct Work {
    own_mac: [u8; 6],
    task: Task,
}

#[derive(Clone, Copy, Debug)]
enum Task {
    Swap,
    /// Answers DHCP, from this address.
    Answer(Ipv4Addr),
    Listen,
}

/// Where an answering reflector's clients find it when its interface has no address.
const SERVER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

/// Reflects until the time is over, and says how much.
pub(crate) fn run(arguments: &Arguments) -> Result<Value, String> {
    let link = wire::interface(&arguments.interface)?;
    let sets = wire::open(&link, 67, arguments.shards, arguments.ring_slots, arguments.bypass_queue)?;
    // Whoever started us may not listen.
    let _ = writeln!(std::io::stderr(), "reflecting on {} with {} thread(s)", link.name, sets.len());
    let task = match (arguments.answer, arguments.listen) {
        (true, _) => Task::Answer(link.addresses.first().copied().unwrap_or(SERVER)),
        (_, true) => Task::Listen,
        _ => Task::Swap,
    };
    let work = Work { own_mac: link.mac, task };
    let begin_ns = clock::now_ns();
    let end_ns = begin_ns + crate::nanoseconds(arguments.duration);
    let stop = AtomicBool::new(false);
    let mut total = PortStats::default();
    std::thread::scope(|scope| -> Result<(), String> {
        let threads: Vec<_> = sets
            .into_iter()
            .map(|set| scope.spawn(|| reflect(set, end_ns, arguments.spin, work, &stop)))
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
    work: Work,
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
            match work.turn_round(bytes, slab.bytes_mut(&token)) {
                Some(len) => leaving.push(token, len, frame.interface),
                None => slab.put(token),
            }
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

impl Work {
    /// Makes the frame that goes back; its length.
    fn turn_round(self, from: &[u8], to: &mut [u8]) -> Option<usize> {
        match self.task {
            Task::Answer(server) => codec::answer(to, from, self.own_mac, server, address_of),
            Task::Listen => None,
            Task::Swap => {
                swap(from, &mut to[..from.len()], self.own_mac);
                Some(from.len())
            }
        }
    }
}

/// The address that a hardware address stands for: the last 28 bits in 16.0.0.0/4.
pub(crate) fn address_of(chaddr: [u8; 6]) -> Ipv4Addr {
    let [_, _, a, b, c, d] = chaddr;
    Ipv4Addr::new(16 | (a & 15), b, c, d)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn swapped_frame_goes_back_with_right_checksums() {
        let route = codec::Route {
            own_mac: [2, 0, 0, 0, 0, 2],
            server_mac: [255; 6],
            giaddr: Ipv4Addr::UNSPECIFIED,
            server: Ipv4Addr::UNSPECIFIED,
        };
        let message = codec::Message {
            kind: codec::kind::DISCOVER,
            xid: 9,
            chaddr: [2, 0xa9, 0, 0, 0, 1],
            secs: 0,
            ciaddr: Ipv4Addr::UNSPECIFIED,
            requested: Ipv4Addr::UNSPECIFIED,
            server_id: Ipv4Addr::UNSPECIFIED,
            client_id: false,
            broadcast: false,
        };
        let mut query = vec![0; 2048];
        let len = codec::build(&mut query, &route, &message);
        let mut back = vec![0; len];
        swap(&query[..len], &mut back, [2, 0, 0, 0, 0, 1]);
        let read = codec::parse(&back, true).expect("sums do not care for order");
        assert_eq!((read.xid, read.source_mac, read.source), (9, [2, 0, 0, 0, 0, 1], Ipv4Addr::BROADCAST));
        assert_eq!((&back[..6], &back[34..38]), (&route.own_mac[..], &[0, 67, 0, 68][..]));
    }
}
