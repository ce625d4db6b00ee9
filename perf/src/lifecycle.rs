//! What happens rarely and must be quick all the same: start, sync of an empty partner, takeover, cleanup of the lease file, listings.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::compare::tell;
use crate::lab::{Lab, Running, pause, until};
use crate::probe::{Load, Session};
use crate::servers::{self, Kind, Team};
use crate::{clock, listing, machine};

/// What is tried.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Folder for table and JSON.
    #[arg(short, long, default_value = "perf/results")]
    out: PathBuf,
    /// Leases to start with; several are tried in turn.
    #[arg(short, long, value_delimiter = ',', default_values_t = [1_000_000, 10_000_000])]
    leases: Vec<u32>,
    /// Leases to sync to an empty partner, for the cleanup, and to list.
    #[arg(long, default_value_t = 1_000_000)]
    sync_leases: u32,
    /// Exchanges a second while an empty partner comes; several are tried in turn.
    #[arg(long, value_delimiter = ',', default_values_t = [500])]
    sync_rates: Vec<u32>,
    /// Only these parts.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Part>,
}

/// A part of a server's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// From the start of the process to the first answer, and memory per lease.
    Start,
    /// An empty partner comes.
    Sync,
    /// The partner is killed, or falls silent.
    Failover,
    /// The lease file is cleaned up under load.
    Cleanup,
    /// Leases are listed, counted and wiped under load.
    Listing,
}

/// A row of the table.
struct Row {
    what: String,
    target: &'static str,
    reached: String,
    value: Value,
}

const POOL: (&str, &str) = ("10.16.0.0", "10.191.255.255");

fn now_s() -> u64 {
    #[expect(clippy::disallowed_methods, reason = "lease files carry the time of day")]
    let now = std::time::SystemTime::now();
    now.duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn seconds_since(begin_ns: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "below 2^53 ns")]
    let ns = (clock::now_ns() - begin_ns) as f64;
    ns / 1e9
}

fn folder() -> PathBuf {
    let folder = std::env::temp_dir().join(format!("aplomado-perf-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&folder);
    folder
}

fn wait_answer(lab: &Lab, number: usize, running: &mut Running, patience_s: f64) -> Result<(), String> {
    let answered = until("answer of the server", patience_s, || {
        if running.has_ended() {
            return Some(false);
        }
        servers::command(lab, number, "version-get", &Value::Null).map(|_| true)
    })?;
    if answered { Ok(()) } else { Err(format!("the server has ended: {}", running.last_words())) }
}

fn start(kind: Kind, count: u32) -> Result<Vec<Row>, String> {
    let team = Team { pool: POOL, ..Team::single(kind) };
    team.check()?;
    let lab = Lab::new(1, &folder())?;
    let mut empty = team.start_one(&lab, 0, None)?;
    wait_answer(&lab, 0, &mut empty, 60.0)?;
    let bare = empty.resident();
    drop(empty);
    servers::write_leases(&lab.path(0, "csv"), count, now_s())?;
    let begin_ns = clock::now_ns();
    let mut running = team.start_one(&lab, 0, None)?;
    wait_answer(&lab, 0, &mut running, 300.0)?;
    let seconds = seconds_since(begin_ns);
    let cpu_s = running.cpu_seconds();
    // The last freed pages go back meanwhile.
    pause(1000);
    let resident = running.resident();
    let per_lease = resident.saturating_sub(bare) / u64::from(count);
    let whole = resident / u64::from(count);
    let name = kind.name();
    let is_ours = kind == Kind::Aplomado;
    Ok(vec![
        Row {
            what: format!("{name}: start with {count} leases on disk to the first answer"),
            target: if is_ours && count == 1_000_000 { "≤ 1.5 s" } else { "" },
            reached: format!("{seconds:.2} s ({cpu_s:.2} s CPU)"),
            value: json!({ "seconds": seconds, "cpu_seconds": cpu_s }),
        },
        Row {
            what: format!("{name}: memory per lease at {count} (with everything that an empty server has)"),
            target: if is_ours && count == 10_000_000 { "≤ 200 bytes" } else { "" },
            reached: format!("{per_lease} bytes ({whole})"),
            value: json!({ "bytes_per_lease": per_lease, "resident": resident, "resident_empty": bare }),
        },
    ])
}

/// Seconds for which clients ask while an empty partner comes.
const SYNC_LOAD_S: u32 = 20;

/// An empty partner comes while clients ask, each of them once.
fn sync(kind: Kind, count: u32, rate: u32) -> Result<Vec<Row>, String> {
    let team = Team { delays_ms: (250, 1000), pool: POOL, ..Team::pair(kind, kind, "hot-standby") };
    team.check()?;
    let lab = Lab::new(2, &folder())?;
    servers::write_leases(&lab.path(0, "csv"), count, now_s())?;
    let mut one = team.start_one(&lab, 0, None)?;
    wait_answer(&lab, 0, &mut one, 120.0)?;
    until("partner-down of the server that is alone", 60.0, || {
        (servers::state(&lab, 0)? == "partner-down").then_some(())
    })?;
    let clients = 2 * rate * SYNC_LOAD_S;
    let arguments =
        format!("-e dora -r {rate} -d {SYNC_LOAD_S} -c {clients} --prefix 0277 --drain 2 --sleep");
    let offering = lab.generator(&arguments, None)?;
    pause(1000);
    let begin_ns = clock::now_ns();
    let mut running = vec![one, team.start_one(&lab, 1, None)?];
    let patience = until("pair with all leases", 120.0, || {
        (0..2).all(|number| servers::state(&lab, number).as_deref() == Some("hot-standby")).then_some(())
    });
    let seconds = seconds_since(begin_ns);
    patience?;
    let seen = offering.results()?;
    team.wait_ready(&lab, &mut running)?;
    let gap_ms = seen["longest_gap_ms"].as_f64().unwrap_or(0.0);
    let [lost, started] = ["lost", "started"].map(|key| seen[key].as_u64().unwrap_or(0));
    let cpu: Vec<f64> = running.iter().map(Running::cpu_seconds).collect();
    let is_ours = kind == Kind::Aplomado;
    let name = kind.name();
    Ok(vec![
        Row {
            what: format!(
                "{name}: start of an empty partner to a pair with {count} leases, {rate} exchanges/s"
            ),
            target: if is_ours { "≤ 5 s" } else { "" },
            reached: format!("{seconds:.2} s (CPU {cpu:.1?} s)"),
            value: json!({ "seconds": seconds, "cpu_seconds": cpu, "rate": rate }),
        },
        Row {
            what: format!("{name}: clients unserved during it, {rate} exchanges/s"),
            target: if is_ours { "≤ 200 ms" } else { "" },
            reached: format!("{gap_ms:.0} ms, {lost} of {started} exchanges lost"),
            value: json!({ "longest_gap_ms": gap_ms, "lost": lost, "started": started, "rate": rate,
                           "violations": seen["violations"], "latency": seen["latency"]["exchange"] }),
        },
    ])
}

/// How a partner is lost.
#[derive(Clone, Copy)]
enum Loss {
    Killed,
    Stopped,
    Cut,
}

fn failover(kind: Kind, loss: Loss) -> Result<Row, String> {
    let team = Team { delays_ms: (250, 1000), ..Team::pair(kind, kind, "hot-standby") };
    team.check()?;
    let lab = Lab::new(2, &folder())?;
    let mut running = team.start(&lab, None)?;
    let arguments =
        "-e dora -r 200 -d 8 -c 4000 --prefix 0277 --drain 1 --sleep --attempts 5 --timeout-ms 100";
    let offering = lab.generator(arguments, None)?;
    pause(2000);
    let what = match loss {
        Loss::Killed => {
            running[0].kill();
            "killed"
        }
        Loss::Stopped => {
            running[0].freeze()?;
            "stopped (SIGSTOP)"
        }
        Loss::Cut => {
            lab.cut()?;
            "cut off"
        }
    };
    let seen = offering.results()?;
    let gap_ms = seen["longest_gap_ms"].as_f64().unwrap_or(0.0);
    Ok(Row {
        what: format!("{}: partner {what}, to the first answer for its clients", kind.name()),
        target: if kind == Kind::Aplomado { "≤ 1.5 s" } else { "" },
        reached: format!("{:.2} s, {} exchanges lost", gap_ms / 1000.0, seen["lost"]),
        value: json!({ "longest_gap_ms": gap_ms, "lost": seen["lost"], "state": servers::state(&lab, 1) }),
    })
}

/// The same load with and without cleanups of a big lease file.
fn cleanup(count: u32) -> Result<Row, String> {
    let mut latency = Vec::new();
    for lfc_interval_s in [0, 2] {
        let team = Team { lfc_interval_s, ..Team::single(Kind::Aplomado) };
        team.check()?;
        let lab = Lab::new(1, &folder())?;
        servers::write_leases(&lab.path(0, "csv"), count, now_s())?;
        let mut one = team.start_one(&lab, 0, None)?;
        wait_answer(&lab, 0, &mut one, 120.0)?;
        let mut session = Session::over(team, lab, vec![one]);
        let load = Load { exchange: "dora", seconds: 8.0, has_own_core: false, think_ms: 0 };
        let probe = session.probe(load, 4000.0)?;
        let is_cleaned =
            session.lab.path(0, "csv.2").exists() || session.lab.path(0, "csv.completed").exists();
        if (lfc_interval_s > 0) != is_cleaned {
            return Err(format!("with lfc-interval {lfc_interval_s} a cleanup has ended: {is_cleaned}"));
        }
        latency.push(probe);
    }
    let cells: Vec<String> = latency
        .iter()
        .map(|probe| {
            format!(
                "p99 {:.0} us, p99.9 {:.0} us, {:.2} % lost",
                probe.p99_us, probe.p999_us, probe.lost_percent
            )
        })
        .collect();
    Ok(Row {
        what: format!(
            "aplomado: 4000 exchanges/s with {count} leases: without cleanups; cleaned up all the time"
        ),
        target: "",
        reached: cells.join("; "),
        value: json!({ "without": latency[0].json(), "with": latency[1].json() }),
    })
}

/// What listings cost those who are served meanwhile.
fn listing(count: u32) -> Result<Vec<Row>, String> {
    let team = listing::team(POOL);
    team.check()?;
    let lab = Lab::new(1, &folder())?;
    servers::write_leases(&lab.path(0, "csv"), count, now_s())?;
    let mut one = team.start_one(&lab, 0, None)?;
    wait_answer(&lab, 0, &mut one, 120.0)?;
    let trials = listing::run(&lab, &mut one, count)?;
    let row = |trial: listing::Trial| Row {
        what: trial.what,
        target: "",
        reached: trial.reached,
        value: trial.value,
    };
    Ok(trials.into_iter().map(row).collect())
}

/// Tries, and writes what came out.
pub(crate) fn run(arguments: &Arguments) -> Result<Value, String> {
    let wants = |part: Part| arguments.only.is_empty() || arguments.only.contains(&part);
    let machine = machine::describe();
    let mut rows = Vec::new();
    let mut skipped = Vec::new();
    let mut take = |what: &str, done: Result<Vec<Row>, String>| match done {
        Ok(done) => {
            for row in done {
                tell(&format!("{}: {}", row.what, row.reached));
                rows.push(row);
            }
        }
        Err(why) => {
            tell(&format!("SKIPPED: {what}: {why}"));
            skipped.push(format!("{what}: {why}"));
        }
    };
    if wants(Part::Start) {
        for count in &arguments.leases {
            take("start", start(Kind::Aplomado, *count));
        }
    }
    if wants(Part::Sync) {
        for rate in &arguments.sync_rates {
            take("sync", sync(Kind::Aplomado, arguments.sync_leases, *rate));
        }
    }
    if wants(Part::Failover) {
        for loss in [Loss::Killed, Loss::Stopped, Loss::Cut] {
            take("failover", failover(Kind::Aplomado, loss).map(|row| vec![row]));
        }
    }
    if wants(Part::Cleanup) {
        take("cleanup", cleanup(arguments.sync_leases).map(|row| vec![row]));
    }
    if wants(Part::Listing) {
        take("listing", listing(arguments.sync_leases));
    }
    if rows.is_empty() {
        return Err(format!("nothing could be tried: {}", skipped.join("; ")));
    }
    let mut text = format!(
        "# From start to takeover\n\n{}\n\nCommand: `{}`.\n\n| what | target | reached |\n|---|---|---|\n",
        machine::paragraph(&machine),
        machine::command()
    );
    for row in &rows {
        text.push_str(&format!("| {} | {} | {} |\n", row.what, row.target, row.reached));
    }
    for line in &skipped {
        text.push_str(&format!("\nSKIPPED: {line}\n"));
    }
    let list: Vec<Value> = rows
        .iter()
        .map(|row| json!({ "what": row.what, "target": row.target, "value": row.value }))
        .collect();
    let value = json!({ "machine": machine, "rows": list, "skipped": skipped });
    std::fs::create_dir_all(&arguments.out)
        .map_err(|error| format!("{}: {error}", arguments.out.display()))?;
    for (name, text) in [("lifecycle.md", text), ("lifecycle.json", format!("{value:#}\n"))] {
        let path = arguments.out.join(name);
        std::fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(value)
}
