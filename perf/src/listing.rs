//! Listings of a big database while clients are served: what they cost the clients, other commands, and memory.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddrV4, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use aplomado::net::enter_network_namespace;
use serde_json::{Value, json};

use crate::lab::{Lab, Running, pause};
use crate::servers::{self, COMMANDS_PORT, Kind, Team};
use crate::{clock, nanoseconds};

/// Exchanges per second beside the listings.
const RATE: u32 = 2000;
/// How long each is tried.
const SECONDS: f64 = 6.0;
/// Between two heartbeats.
const HEARTBEAT_MS: u64 = 5;
/// Longest wait for a piece of an answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// What asks, again and again, while clients are served.
#[derive(Clone, Copy)]
struct Asker {
    command: &'static str,
    arguments: &'static str,
    by: By,
    /// How many do so at once.
    count: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    Unix,
    Http,
    /// By the unix socket, and the answer is never read.
    UnixUnread,
    /// By the unix socket, once.
    UnixOnce,
}

const fn asker(command: &'static str, arguments: &'static str, by: By, count: usize) -> Asker {
    Asker { command, arguments, by, count }
}

/// What is tried, in this order: the last one leaves nothing to list.
const TRIALS: [(&str, &[Asker]); 11] = [
    ("nothing", &[]),
    ("lease4-get-all", &[asker("lease4-get-all", "{}", By::Unix, 1)]),
    ("lease4-get-all by HTTP", &[asker("lease4-get-all", "{}", By::Http, 1)]),
    (
        "lease4-get-page of a million",
        &[asker("lease4-get-page", r#"{"from":"start","limit":1000000}"#, By::Unix, 1)],
    ),
    ("lease4-get-by-hostname", &[asker("lease4-get-by-hostname", r#"{"hostname":"nobody"}"#, By::Unix, 1)]),
    ("lease4-get-by-state", &[asker("lease4-get-by-state", r#"{"state":"declined"}"#, By::Unix, 1)]),
    ("stat-lease4-get", &[asker("stat-lease4-get", "", By::Unix, 1)]),
    (
        "4 times lease4-get-all, 4 times by HTTP",
        &[asker("lease4-get-all", "", By::Unix, 4), asker("lease4-get-all", "", By::Http, 4)],
    ),
    ("200 times lease4-get-all that nobody reads", &[asker("lease4-get-all", "", By::UnixUnread, 200)]),
    ("leases-reclaim", &[asker("leases-reclaim", r#"{"remove":true}"#, By::Unix, 1)]),
    ("lease4-wipe", &[asker("lease4-wipe", "", By::UnixOnce, 1)]),
];

/// What askers saw.
#[derive(Debug, Default)]
struct Seen {
    answers: AtomicU64,
    octets: AtomicU64,
    broken: AtomicU64,
}

fn request(asker: Asker) -> String {
    let arguments = match asker.arguments {
        "" | "{}" => String::new(),
        some => format!(", \"arguments\": {some}"),
    };
    let body = format!("{{ \"command\": \"{}\"{arguments} }}", asker.command);
    if asker.by != By::Http {
        return body;
    }
    format!(
        "POST / HTTP/1.1\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// Reads an answer to its end without keeping it; its octets, if it is whole.
fn read_through(mut stream: impl Read) -> Option<u64> {
    let mut piece = vec![0; 256 << 10];
    let (mut octets, mut last) = (0, Vec::new());
    loop {
        let count = stream.read(&mut piece).ok()?;
        if count == 0 {
            break;
        }
        octets += count as u64;
        last = piece[count.saturating_sub(8)..count].to_vec();
    }
    last.trim_ascii_end()
        .ends_with(b"}")
        .then_some(octets)
        .or_else(|| last.trim_ascii_end().ends_with(b"]").then_some(octets))
}

fn ask_once(socket: &Path, asker: Asker, ended: &AtomicBool) -> Option<u64> {
    let request = request(asker);
    if asker.by == By::Http {
        let mut stream = TcpStream::connect(SocketAddrV4::new(Ipv4Addr::LOCALHOST, COMMANDS_PORT)).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        stream.write_all(request.as_bytes()).ok()?;
        return read_through(stream);
    }
    let mut stream = UnixStream::connect(socket).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    stream.write_all(request.as_bytes()).ok()?;
    stream.shutdown(Shutdown::Write).ok()?;
    if asker.by == By::UnixUnread {
        while !ended.load(Ordering::Relaxed) {
            pause(50);
        }
        return Some(0);
    }
    read_through(stream)
}

fn ask_on(lab: &Lab, asker: Asker, ended: &AtomicBool, seen: &Seen) {
    if asker.by == By::Http {
        let space = File::open(format!("/run/netns/{}", lab.space(0)));
        if space.is_err() || space.is_ok_and(|space| enter_network_namespace(&space).is_err()) {
            seen.broken.fetch_add(1, Ordering::Relaxed);
            return;
        }
    }
    let socket = lab.path(0, "sock");
    while !ended.load(Ordering::Relaxed) {
        match ask_once(&socket, asker, ended) {
            Some(octets) => {
                seen.answers.fetch_add(1, Ordering::Relaxed);
                seen.octets.fetch_add(octets, Ordering::Relaxed);
            }
            None => {
                seen.broken.fetch_add(1, Ordering::Relaxed);
                pause(10);
            }
        }
        if asker.by == By::UnixOnce {
            return;
        }
    }
}

/// Asks for the version again and again; how long each answer took, in nanoseconds, sorted.
fn beat(lab: &Lab, ended: &AtomicBool) -> Vec<u64> {
    let mut taken = Vec::new();
    while !ended.load(Ordering::Relaxed) {
        let begin_ns = clock::now_ns();
        let answered = servers::command(lab, 0, "version-get", &Value::Null).is_some();
        taken.push(if answered { clock::now_ns() - begin_ns } else { nanoseconds(10.0) });
        pause(HEARTBEAT_MS);
    }
    taken.sort_unstable();
    taken
}

/// A row of the table, and its numbers.
pub(crate) struct Trial {
    pub(crate) what: String,
    pub(crate) reached: String,
    pub(crate) value: Value,
}

#[expect(clippy::cast_precision_loss, reason = "below 2^53")]
fn ms(ns: u64) -> f64 {
    ns as f64 / 1e6
}

fn try_one(
    lab: &Lab,
    running: &mut Running,
    name: &str,
    askers: &[Asker],
    prefix: &str,
    count: u32,
) -> Result<Trial, String> {
    running.forget_peak();
    let resident = running.resident();
    let ended = AtomicBool::new(false);
    let seen = Seen::default();
    let cpu = running.cpu_seconds();
    let (load, beats) = std::thread::scope(|scope| {
        let beating = scope.spawn(|| beat(lab, &ended));
        for asker in askers {
            for _ in 0..asker.count {
                scope.spawn(|| ask_on(lab, *asker, &ended, &seen));
            }
        }
        let clients = f64::from(RATE) * SECONDS;
        let load = lab.load(
            &format!("-e dora -r {RATE} -d {SECONDS} -c {clients} --prefix {prefix} --drain 2 --sleep --ring-slots 32768"),
            None,
        );
        ended.store(true, Ordering::Relaxed);
        (load, beating.join().unwrap_or_default())
    });
    let load = load?;
    if running.has_ended() {
        return Err(format!("the server has ended: {}", running.last_words()));
    }
    let peak = running.peak();
    let latency = |name: &str| {
        load.pointer(&format!("/latency/exchange/{name}")).and_then(Value::as_f64).unwrap_or(0.0)
    };
    let (answers, octets, broken) =
        (seen.answers.into_inner(), seen.octets.into_inner(), seen.broken.into_inner());
    let at =
        |per_mille: usize| beats.get(beats.len().saturating_sub(1) * per_mille / 1000).copied().unwrap_or(0);
    let mib = |octets: u64| octets >> 20;
    let reached = format!(
        "p50 {:.2} ms, p99 {:.2} ms, p99.9 {:.2} ms, longest {:.1} ms, {} of {} lost; {answers} answers ({} MiB, {broken} broken); another command p99 {:.1} ms, longest {:.1} ms; resident {} MiB, {} MiB more at most",
        latency("p50_us") / 1000.0,
        latency("p99_us") / 1000.0,
        latency("p99_9_us") / 1000.0,
        latency("max_us") / 1000.0,
        load["lost"],
        load["started"],
        mib(octets),
        ms(at(990)),
        ms(at(1000)),
        mib(resident),
        mib(peak.saturating_sub(resident)),
    );
    Ok(Trial {
        what: format!("aplomado: {RATE} exchanges/s with {count} leases, and meanwhile {name}"),
        reached,
        value: json!({
            "latency": load["latency"]["exchange"], "lost": load["lost"], "started": load["started"],
            "answers": answers, "answer_octets": octets, "broken": broken,
            "other_command_p99_ms": ms(at(990)), "other_command_max_ms": ms(at(1000)),
            "resident": resident, "peak": peak, "server_cpu_s": running.cpu_seconds() - cpu,
        }),
    })
}

/// Lists a database of `count` leases in every way while clients are served.
pub(crate) fn run(lab: &Lab, running: &mut Running, count: u32) -> Result<Vec<Trial>, String> {
    let mut trials = Vec::new();
    for (number, (name, askers)) in (0_u8..).zip(&TRIALS) {
        let prefix = format!("02{:02x}", 0x10 + number);
        let trial = try_one(lab, running, name, askers, &prefix, count)?;
        trials.push(trial);
        // What is read no more is let go.
        pause(500);
    }
    Ok(trials)
}

/// A team whose server answers lease commands by both channels.
pub(crate) fn team(pool: (&'static str, &'static str)) -> Team {
    Team { pool, has_lease_commands: true, ..Team::single(Kind::Aplomado) }
}
