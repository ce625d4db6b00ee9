//! Servers side by side, in turn, under the same load on the same machine.
//!
//! Each round runs every server once (A B A B); what stands in the table is the median of the rounds, with the lowest and highest.
//! A server that is not installed is left out, and said to be.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::machine;
use crate::probe::{Load, Probe, Session};
use crate::servers::{Kind, Team};
use crate::tables;

/// What is compared.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Folder for table, JSON and plots.
    #[arg(short, long, default_value = "perf/results")]
    out: PathBuf,
    /// A few minutes: short probes, one round, coarse searches.
    #[arg(long)]
    quick: bool,
    /// Rounds; each runs every server once.
    #[arg(long)]
    rounds: Option<u32>,
    /// Length of a probe, in seconds.
    #[arg(long)]
    seconds: Option<f64>,
    /// Only these parts.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Part>,
    /// Exchanges per second at which CPU time alone and as a pair is compared.
    #[arg(long, default_value_t = 5000.0)]
    cost_rate: f64,
    /// Only servers whose name begins with one of these.
    #[arg(long, value_delimiter = ',')]
    servers: Vec<String>,
}

/// A part of the comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// OFFERs against the bare reflector.
    Offer,
    /// Four-way exchanges with leases on disk: highest rate.
    Dora,
    /// Renewals, as fast as they are answered.
    Renew,
    /// Pairs: highest rate.
    Pair,
    /// Latency at half of what Kea carries.
    Fixed,
    /// CPU time alone and as a pair, at one rate.
    Cost,
    /// Five times the load that is carried.
    Overload,
}

/// One thing measured on one server in one round.
#[derive(Clone, Debug)]
pub(crate) struct Measured {
    /// What was measured; rows of one name are compared.
    pub(crate) what: String,
    pub(crate) server: String,
    pub(crate) probe: Probe,
}

/// All that was measured.
#[derive(Debug, Default)]
pub(crate) struct Results {
    pub(crate) measured: Vec<Measured>,
    /// Every probe by what was measured and server, for the plots.
    pub(crate) seen: Vec<Measured>,
    pub(crate) skipped: Vec<String>,
    pub(crate) machine: Value,
    pub(crate) command: String,
}

impl Results {
    fn add(&mut self, what: &str, team: &Team, probe: Probe) {
        tell(&format!(
            "{what}: {}: {:.0}/s of {:.0}/s, {:.2} % lost, p50 {:.0} us, p99 {:.0} us, CPU {:.1?} us, generator {:.1} us",
            team.name(),
            probe.completed,
            probe.rate,
            probe.lost_percent,
            probe.p50_us,
            probe.p99_us,
            probe.cpu_us,
            probe.generator_us,
        ));
        self.measured.push(Measured { what: what.to_owned(), server: team.name(), probe });
    }

    fn saw(&mut self, what: &str, team: &Team, probes: Vec<Probe>) {
        let seen = |probe| Measured { what: what.to_owned(), server: team.name(), probe };
        self.seen.extend(probes.into_iter().map(seen));
    }

    /// A server could not be measured.
    fn skip(&mut self, what: &str, team: &Team, why: &str) {
        let line = format!("{what}: {}: {why}", team.name());
        tell(&format!("SKIPPED: {line}"));
        if !self.skipped.contains(&line) {
            self.skipped.push(line);
        }
    }

    /// A number of all rounds of one server: lowest, median, highest.
    pub(crate) fn spread(&self, what: &str, server: &str, of: impl Fn(&Probe) -> f64) -> Option<[f64; 3]> {
        let rows = self.measured.iter().filter(|row| row.what == what && row.server == server);
        let mut values: Vec<f64> = rows.map(|row| of(&row.probe)).collect();
        values.sort_by(f64::total_cmp);
        let (low, high) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median = if values.len() % 2 == 1 {
            values[middle]
        } else {
            f64::midpoint(values[middle - 1], values[middle])
        };
        Some([low, median, high])
    }

    fn best_rate(&self, what: &str, server: &str) -> Option<f64> {
        Some(self.spread(what, server, |probe| probe.completed)?[1])
    }

    fn json(&self) -> Value {
        let rows = |rows: &[Measured]| {
            let row =
                |row: &Measured| json!({ "what": row.what, "server": row.server, "probe": row.probe.json() });
            rows.iter().map(row).collect::<Vec<Value>>()
        };
        json!({ "machine": self.machine, "command": self.command, "skipped": self.skipped,
                "measured": rows(&self.measured), "probes": rows(&self.seen) })
    }
}

/// One line to whoever waits.
pub(crate) fn tell(line: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr(), "{line}");
}

pub(crate) const OFFER: &str = "OFFER only, server on one core";
pub(crate) const DORA: &str = "DORA, durable";
pub(crate) const RENEW: &str = "renewals, 64 under way";
pub(crate) const PAIR: &str = "DORA, pair";
pub(crate) const PEAK: &str = "DORA, 100 classes, server on one core";
pub(crate) const OVERLOAD: &str = "DORA, 100 classes, server on one core, 5 x";
/// Half of what Kea carries.
pub(crate) const HALF: &str = "at half of Kea's highest rate";
pub(crate) const HALF_PAIR: &str = "pairs at half of a Kea pair's highest rate";
/// What a partner costs.
pub(crate) const COST: &str = "CPU time alone and as a pair, at one rate";

/// What makes a query costly, and clients slow, where more is offered than a server carries.
const CLASSES: u32 = 100;
const THINK_MS: u32 = 2;

const KEA_RATES: (f64, f64) = (7_500.0, 2_450.0);

struct Run<'a> {
    arguments: &'a Arguments,
    results: Results,
    seconds: f64,
    precision: f64,
}

impl Run<'_> {
    fn wants(&self, part: Part) -> bool {
        self.arguments.only.is_empty() || self.arguments.only.contains(&part)
    }

    fn wants_server(&self, team: &Team) -> bool {
        let names = &self.arguments.servers;
        names.is_empty() || names.iter().any(|name| team.name().starts_with(name.as_str()))
    }

    /// Runs one team; what goes wrong with it is said and does not end the others' runs.
    fn with(
        &mut self,
        what: &str,
        team: &Team,
        is_pinned: bool,
        work: impl FnOnce(&mut Self, &mut Session) -> Result<(), String>,
    ) {
        if !self.wants_server(team) {
            return;
        }
        let done = team
            .check()
            .and_then(|()| Session::start(team, is_pinned))
            .and_then(|mut session| work(self, &mut session));
        if let Err(why) = done {
            self.results.skip(what, team, &why);
        }
    }

    fn load(&self, exchange: &'static str, has_own_core: bool) -> Load {
        Load { exchange, seconds: self.seconds, has_own_core, think_ms: 0 }
    }

    /// The highest rate of a team, in one round.
    fn highest(&mut self, what: &str, team: &Team, exchange: &'static str, is_pinned: bool) {
        let load = self.load(exchange, is_pinned);
        let guess = self.results.best_rate(what, &team.name());
        let guess = guess.unwrap_or_else(|| team.kinds[0].guess(team.is_pair()));
        let precision = self.precision;
        self.with(what, team, is_pinned, |run, session| {
            let mut seen = Vec::new();
            let best = session.search(load, guess, precision, &mut seen);
            run.results.saw(what, team, seen);
            let best = best?.ok_or("no rate is carried with less than 1 % lost")?;
            run.results.add(what, team, best);
            Ok(())
        });
    }

    fn at(&mut self, what: &str, team: &Team, rate: f64) {
        let load = Load { seconds: self.seconds * 2.0, ..self.load("dora", false) };
        self.with(what, team, false, |run, session| {
            session.probe(Load { seconds: 0.5, ..load }, rate)?;
            let probe = session.probe(load, rate)?;
            run.results.add(what, team, probe);
            Ok(())
        });
    }

    fn renew(&mut self, team: &Team) {
        let load = self.load("renew", false);
        self.with(RENEW, team, false, |run, session| {
            let probe = session.closed(load, 64, 10_000)?;
            run.results.add(RENEW, team, probe);
            Ok(())
        });
    }

    /// Peak with the server on one core, then five times that.
    ///
    /// Both servers have [`CLASSES`] to evaluate: a generator with one core cannot offer five times what a server with nothing to do
    /// but leases carries. Clients think before they ask for their offer, for otherwise REQUESTs come into the very places that a
    /// batch of DISCOVERs has left.
    fn overload(&mut self, team: &Team) {
        let team = &Team { classes: CLASSES, ..team.clone() };
        let load = Load { think_ms: THINK_MS, ..self.load("dora", true) };
        let (guess, precision) = (team.kinds[0].guess(false) / 3.0, self.precision);
        self.with(OVERLOAD, team, true, |run, session| {
            let mut seen = Vec::new();
            let best = session.search(load, guess, precision, &mut seen)?.ok_or("no rate is carried")?;
            let mut peak = best.clone();
            for probe in &seen {
                if probe.completed > peak.completed {
                    peak = probe.clone();
                }
            }
            for times in [2.0, 3.0] {
                seen.push(session.probe(load, peak.completed * times)?);
                session.settle()?;
            }
            let flooded =
                session.probe(Load { seconds: load.seconds * 2.0, ..load }, peak.completed * 5.0)?;
            seen.push(flooded.clone());
            run.results.saw(OVERLOAD, team, seen);
            run.results.add(PEAK, team, peak);
            run.results.add(OVERLOAD, team, flooded);
            Ok(())
        });
    }

    fn round(&mut self) {
        use Kind::{
            Answerer, Aplomado, AplomadoUnsynced, Dhcpd, Dnsmasq, Kea, KeaThreads, Listener, Reflector,
        };
        let all = [Aplomado, Kea, KeaThreads, Dhcpd, Dnsmasq].map(Team::single);
        let pairs = [
            Team::pair(Aplomado, Aplomado, "hot-standby"),
            Team::pair(Kea, Kea, "hot-standby"),
            Team::pair(Aplomado, Kea, "hot-standby"),
            Team::pair(Aplomado, Aplomado, "load-balancing"),
            Team::pair(Kea, Kea, "load-balancing"),
        ];
        if self.wants(Part::Offer) {
            self.highest(OFFER, &Team::single(Aplomado), "discover", true);
            self.highest(OFFER, &Team::single(Reflector), "reflect", true);
        }
        if self.wants(Part::Dora) {
            for team in &all {
                self.highest(DORA, team, "dora", false);
            }
            self.highest(DORA, &Team::single(Answerer), "dora", false);
        }
        if self.wants(Part::Renew) {
            // The others send renewals' answers to the client's address, which nobody in the laboratory has.
            for team in &all[..3] {
                self.renew(team);
            }
        }
        if self.wants(Part::Pair) {
            for team in &pairs {
                self.highest(PAIR, team, "dora", false);
            }
            self.highest(PAIR, &Team::pair(Answerer, Listener, ""), "dora", false);
        }
        if self.wants(Part::Fixed) {
            // Of whichever of its settings carries more here.
            let kea = [Kea, KeaThreads].map(|server| self.results.best_rate(DORA, server.name()));
            let single = kea.into_iter().flatten().reduce(f64::max).unwrap_or(KEA_RATES.0) / 2.0;
            let pair = self.results.best_rate(PAIR, &pairs[1].name()).unwrap_or(KEA_RATES.1) / 2.0;
            for team in &all[..3] {
                self.at(HALF, team, single.round());
            }
            self.at(HALF, &Team::single(AplomadoUnsynced), single.round());
            for team in &pairs[..3] {
                self.at(HALF_PAIR, team, pair.round());
            }
        }
        if self.wants(Part::Cost) {
            for team in [&all[0], &pairs[0], &pairs[3]] {
                self.at(COST, team, self.arguments.cost_rate);
            }
        }
        if self.wants(Part::Overload) {
            for team in &all[..2] {
                self.overload(team);
            }
        }
    }
}

/// Compares, and writes what came out.
pub(crate) fn run(arguments: &Arguments) -> Result<Value, String> {
    let rounds = arguments.rounds.unwrap_or(if arguments.quick { 1 } else { 2 });
    let seconds = arguments.seconds.unwrap_or(if arguments.quick { 0.7 } else { 1.5 });
    let precision = if arguments.quick { 1.25 } else { 1.06 };
    let results = Results { machine: machine::describe(), command: machine::command(), ..Results::default() };
    let mut run = Run { arguments, results, seconds, precision };
    for number in 1..=rounds {
        tell(&format!("round {number} of {rounds}"));
        run.round();
    }
    let results = run.results;
    if results.measured.is_empty() {
        return Err(format!("nothing could be measured: {}", results.skipped.join("; ")));
    }
    let value = results.json();
    std::fs::create_dir_all(&arguments.out)
        .map_err(|error| format!("{}: {error}", arguments.out.display()))?;
    let mut files = tables::plots(&results);
    files.push(("compare.md".to_owned(), tables::markdown(&results)));
    files.push(("compare.json".to_owned(), format!("{value:#}\n")));
    for (name, text) in files {
        let path = arguments.out.join(name);
        std::fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(json!({ "measured": value["measured"], "skipped": value["skipped"], "written_to": arguments.out }))
}
