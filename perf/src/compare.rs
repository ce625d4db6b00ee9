//! Servers side by side: the same clients, the same wires, in turn (A B A B), each at its best.
//!
//! Every server is first tried with several numbers of exchanges under way; the one at which it completes most, with less than one
//! percent lost, is its own for all that follows. Rates are medians over the rounds, with the lowest and the highest beside them.

mod plot;
mod servers;
mod stage;
mod table;

use std::path::PathBuf;

use serde_json::{Map, Value, json};

use servers::{Half, Kind};
use stage::{Server, Stage};

/// Exchanges under way that are tried.
const WINDOWS: [u32; 4] = [8, 32, 128, 512];
/// Clients of a measured run: each gets its first address, so that every exchange makes a lease.
const CLIENTS: u32 = 500_000;
/// Loss that is allowed at a server's best rate, in percent.
const LOSS_MAX: f64 = 1.0;

/// What is compared.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Runs of each server; the median counts.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Seconds of each run.
    #[arg(long, default_value_t = 4.0)]
    seconds: f64,
    /// What is done: any of single, latency, overload, ceiling, pair.
    #[arg(long, value_delimiter = ',', default_value = "single,latency,overload,ceiling,pair")]
    parts: Vec<String>,
    /// Which servers; all that are installed when not said.
    #[arg(long, value_delimiter = ',')]
    servers: Vec<String>,
    /// The program to measure; the one beside this one when not said.
    #[arg(long)]
    aplomado: Option<PathBuf>,
    /// Where the table, the numbers and the plots go.
    #[arg(long, default_value = "perf/results")]
    out: PathBuf,
}

/// One measured run.
#[derive(Clone, Debug)]
struct Sample {
    rate: f64,
    lost_percent: f64,
    cpu_us: Vec<f64>,
    value: Value,
}

/// What a server at its best does.
#[derive(Clone, Debug)]
struct Best {
    window: u32,
    rate: f64,
    lowest: f64,
    highest: f64,
    cpu_us: f64,
}

impl Best {
    fn json(&self) -> Value {
        json!({ "per_second": self.rate, "lowest": self.lowest, "highest": self.highest,
                "window": self.window, "server_cpu_us_per_exchange": self.cpu_us })
    }
}

struct Bench<'a> {
    arguments: &'a Arguments,
    aplomado: PathBuf,
}

/// Runs the comparison and writes its files; the numbers.
pub(crate) fn run(arguments: &Arguments) -> Result<Value, String> {
    let own = std::env::current_exe().map_err(|error| error.to_string())?;
    let aplomado = arguments.aplomado.clone().unwrap_or_else(|| own.with_file_name("aplomado"));
    if !aplomado.exists() {
        return Err(format!("{} is not there: build it first, or say --aplomado PATH", aplomado.display()));
    }
    let bench = Bench { arguments, aplomado };
    let mut results = Map::new();
    results.insert("machine".to_owned(), table::machine());
    let part = |name: &str| arguments.parts.iter().any(|part| part == name);
    let kinds: Vec<Kind> = Kind::ALL
        .into_iter()
        .filter(|kind| {
            arguments.servers.is_empty() || arguments.servers.iter().any(|name| name == kind.name())
        })
        .filter(|kind| {
            if !kind.is_here() {
                eprintln!("SKIPPED: {} is not installed", kind.name());
            }
            kind.is_here()
        })
        .collect();
    if part("single") {
        let mut best = bench.in_turn("single", &kinds, None)?;
        best.sort_by(|one, other| other.1.rate.total_cmp(&one.1.rate));
        let list = best.iter().map(|(kind, best)| (kind.name().to_owned(), best.json()));
        results.insert("single".to_owned(), Value::Object(list.collect()));
        if part("latency") {
            results.insert("latency".to_owned(), bench.latency(&best)?);
        }
        if part("overload") {
            results.insert("overload".to_owned(), bench.overload(&kinds)?);
        }
    }
    if part("ceiling") {
        results.insert("ceiling".to_owned(), bench.ceiling()?);
    }
    if part("pair") {
        for mode in ["hot-standby", "load-balancing"] {
            let pairs: Vec<Kind> =
                [Kind::Aplomado, Kind::KeaThreads].into_iter().filter(|kind| kind.is_here()).collect();
            let best = bench.in_turn(mode, &pairs, Some(Half { mode }))?;
            let list = best.iter().map(|(kind, best)| (kind.name().to_owned(), best.json()));
            let mut list: Map<String, Value> = list.collect();
            if Kind::Kea.is_here() {
                let mixed = bench.best_of("mixed", [Kind::Aplomado, Kind::KeaThreads], Half { mode })?;
                list.insert("aplomado-with-kea".to_owned(), mixed.json());
            }
            results.insert(mode.to_owned(), Value::Object(list));
        }
    }
    let value = Value::Object(results);
    table::write(&arguments.out, &value)?;
    Ok(value)
}

impl Bench<'_> {
    fn note(&self, text: &str) {
        eprintln!("{text}");
    }

    fn start(
        &self,
        stage: &Stage,
        kinds: &[Kind],
        half: Option<Half>,
        core: Option<usize>,
    ) -> Result<Vec<Server>, String> {
        let mut servers = Vec::new();
        for (number, kind) in (1..).zip(kinds) {
            servers.push(servers::start(stage, number, *kind, half, core, &self.aplomado)?);
        }
        if let Some(half) = half {
            let socket = stage.path(1, "sock");
            servers[0].await_ready(|| servers::state(&socket).as_deref() == Some(half.mode))?;
        }
        Ok(servers)
    }

    /// One run of a server or pair from an empty lease file.
    fn sample(&self, kinds: &[Kind], half: Option<Half>, window: u32) -> Result<Sample, String> {
        let stage = Stage::new(kinds.len())?;
        let servers = self.start(&stage, kinds, half, None)?;
        let before: Vec<f64> = servers.iter().map(Server::cpu_s).collect();
        let value = stage.load(
            &format!(
                "-e dora -c {CLIENTS} -w {window} -d {} --sleep --drain 3 {}",
                self.arguments.seconds,
                kinds[0].load_arguments()
            ),
            None,
        )?;
        Ok(sample_of(value, &servers, &before))
    }

    /// Each server's own best number of exchanges under way, then all of them in turn.
    fn in_turn(&self, what: &str, kinds: &[Kind], half: Option<Half>) -> Result<Vec<(Kind, Best)>, String> {
        let of = |kind: Kind| if half.is_some() { vec![kind, kind] } else { vec![kind] };
        let mut windows = Vec::new();
        for &kind in kinds {
            windows.push(self.search(what, kind.name(), &of(kind), half)?);
        }
        let mut samples: Vec<Vec<Sample>> = vec![Vec::new(); kinds.len()];
        for round in 0..self.arguments.rounds {
            for ((&kind, &window), samples) in kinds.iter().zip(&windows).zip(&mut samples) {
                let sample = self.sample(&of(kind), half, window)?;
                self.note(&format!("{what} round {}: {} {:.0}/s", round + 1, kind.name(), sample.rate));
                samples.push(sample);
            }
        }
        Ok(kinds
            .iter()
            .zip(windows)
            .zip(&samples)
            .map(|((kind, window), samples)| (*kind, best(window, samples)))
            .collect())
    }

    fn best_of(&self, what: &str, kinds: [Kind; 2], half: Half) -> Result<Best, String> {
        let window = self.search(half.mode, what, &kinds, Some(half))?;
        let samples: Result<Vec<Sample>, String> =
            (0..self.arguments.rounds).map(|_| self.sample(&kinds, Some(half), window)).collect();
        let best = best(window, &samples?);
        self.note(&format!("{}: {what} {:.0}/s", half.mode, best.rate));
        Ok(best)
    }

    fn search(&self, what: &str, name: &str, kinds: &[Kind], half: Option<Half>) -> Result<u32, String> {
        let mut found = (WINDOWS[0], 0.0);
        for window in WINDOWS {
            let sample = self.sample(kinds, half, window)?;
            self.note(&format!(
                "{what}: {name}, {window} under way: {:.0}/s, {:.2} % lost",
                sample.rate, sample.lost_percent
            ));
            if sample.lost_percent < LOSS_MAX && sample.rate > found.1 {
                found = (window, sample.rate);
            }
        }
        Ok(found.0)
    }

    /// Latencies at rates that both ours and Kea can carry, and beyond.
    fn latency(&self, best: &[(Kind, Best)]) -> Result<Value, String> {
        let rate_of = |kind: Kind| best.iter().find(|(one, _)| *one == kind).map(|(_, best)| best.rate);
        let kea = [Kind::Kea, Kind::KeaThreads]
            .into_iter()
            .filter_map(|kind| Some((kind, rate_of(kind)?)))
            .max_by(|one, other| one.1.total_cmp(&other.1));
        let mut lists = Map::new();
        let half = kea.map_or(5000.0, |(_, rate)| rate / 2.0);
        let servers = [Some((Kind::Aplomado, rate_of(Kind::Aplomado).unwrap_or(half))), kea];
        for (kind, peak) in servers.into_iter().flatten() {
            let mut points = Vec::new();
            let mut rates = vec![half];
            rates.extend([0.25, 0.5, 0.75, 0.9].map(|part| peak * part));
            for rate in rates {
                let stage = Stage::new(1)?;
                let _server = self.start(&stage, &[kind], None, None)?;
                let seconds = self.arguments.seconds;
                let value =
                    stage.load(&format!("-e dora -c {CLIENTS} -r {rate:.0} -d {seconds} --sleep"), None)?;
                let latency = &value["latency"];
                let point = json!({
                    "offered_per_second": rate,
                    "completed_per_second": value["completed_per_second"],
                    "lost_percent": value["lost_percent"],
                    "offer_p50_us": latency["offer"]["p50_us"],
                    "offer_p99_us": latency["offer"]["p99_us"],
                    "exchange_p50_us": latency["exchange"]["p50_us"],
                    "exchange_p99_us": latency["exchange"]["p99_us"],
                    "exchange_p99_9_us": latency["exchange"]["p99_9_us"],
                });
                self.note(&format!("latency: {} at {rate:.0}/s: {point}", kind.name()));
                points.push(point);
            }
            lists.insert(kind.name().to_owned(), json!(points));
        }
        Ok(json!({ "half_load_of_kea_per_second": half, "servers": lists }))
    }

    /// Up to five times what a server carries; it has one core, the generator the other.
    fn overload(&self, kinds: &[Kind]) -> Result<Value, String> {
        let mut lists = Map::new();
        for &kind in kinds.iter().filter(|kind| matches!(kind, Kind::Aplomado | Kind::Kea)) {
            let seconds = self.arguments.seconds;
            let run = |load: &str| -> Result<Value, String> {
                let stage = Stage::new(1)?;
                let _server = self.start(&stage, &[kind], None, Some(0))?;
                stage.load(load, Some(1))
            };
            let peak = run(&format!("-e dora -c {CLIENTS} -w 128 -d {seconds}"))?;
            let peak = peak["completed_per_second"].as_f64().unwrap_or(0.0);
            let mut points = vec![json!({ "offered_per_second": peak, "completed_per_second": peak })];
            for times in [1.5, 2.0, 3.0, 5.0] {
                let offered = peak * times;
                let value =
                    run(&format!("-e dora -c {CLIENTS} -r {offered:.0} -d {seconds} --timeout-ms 1000"))?;
                let completed = value["completed_per_second"].as_f64().unwrap_or(0.0);
                self.note(&format!(
                    "overload: {} offered {times} times its {peak:.0}/s: {completed:.0}/s",
                    kind.name()
                ));
                points.push(json!({ "offered_per_second": value["started_per_second"],
                    "completed_per_second": completed, "held_back": value["held_back"] }));
            }
            lists.insert(kind.name().to_owned(), json!({ "peak_per_second": peak, "points": points }));
        }
        Ok(Value::Object(lists))
    }

    /// DISCOVER and OFFER alone, against a port that answers without rules.
    fn ceiling(&self) -> Result<Value, String> {
        let mut lists = Map::new();
        let kinds = [Kind::Aplomado, Kind::Reflector];
        let mut samples: Vec<Vec<Sample>> = vec![Vec::new(); kinds.len()];
        for _ in 0..self.arguments.rounds {
            for (&kind, samples) in kinds.iter().zip(&mut samples) {
                let stage = Stage::new(1)?;
                let servers = self.start(&stage, &[kind], None, Some(0))?;
                let before: Vec<f64> = servers.iter().map(Server::cpu_s).collect();
                let seconds = self.arguments.seconds;
                let value = stage.load(&format!("-e discover -c {CLIENTS} -w 512 -d {seconds}"), Some(1))?;
                let sample = sample_of(value, &servers, &before);
                self.note(&format!(
                    "ceiling: {} {:.0} offers/s, {:.2} us of its processor each",
                    kind.name(),
                    sample.rate,
                    sample.cpu_us[0]
                ));
                samples.push(sample);
            }
        }
        for (kind, samples) in kinds.iter().zip(&samples) {
            lists.insert(kind.name().to_owned(), best(512, samples).json());
        }
        Ok(Value::Object(lists))
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts below 2^53")]
fn sample_of(value: Value, servers: &[Server], before: &[f64]) -> Sample {
    let completed = value["completed"].as_u64().unwrap_or(0).max(1) as f64;
    let cpu_us =
        servers.iter().zip(before).map(|(server, before)| (server.cpu_s() - before) * 1e6 / completed);
    Sample {
        rate: value["completed_per_second"].as_f64().unwrap_or(0.0),
        lost_percent: value["lost_percent"].as_f64().unwrap_or(100.0),
        cpu_us: cpu_us.collect(),
        value,
    }
}

/// The median run.
fn best(window: u32, samples: &[Sample]) -> Best {
    let mut sorted: Vec<&Sample> = samples.iter().collect();
    sorted.sort_by(|one, other| one.rate.total_cmp(&other.rate));
    let rate = |at: usize| sorted.get(at).map_or(0.0, |sample| sample.rate);
    let middle = sorted.get(sorted.len() / 2);
    debug_assert!(middle.is_none_or(|sample| sample.value.is_object()), "a run has results");
    Best {
        window,
        rate: rate(sorted.len() / 2),
        lowest: rate(0),
        highest: rate(sorted.len().saturating_sub(1)),
        cpu_us: middle.map_or(0.0, |sample| sample.cpu_us.iter().sum()),
    }
}
