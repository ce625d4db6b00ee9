//! One server or pair under load at one rate, and the search for the highest rate that it carries.

use serde_json::{Value, json};

use crate::lab::{Lab, Running, pause};
use crate::servers::Team;

/// More lost exchanges than this, in percent, and a rate is not carried.
const LOST_PERCENT_MAX: f64 = 1.0;
/// Fewer completed in time than this part of the rate, and it is not carried either: it only queues.
const COMPLETED_MIN: f64 = 0.95;

/// What one rate showed.
#[derive(Clone, Debug)]
pub(crate) struct Probe {
    /// Exchanges asked for, per second.
    pub(crate) rate: f64,
    /// Exchanges begun, per second: less than asked for where the generator is the limit.
    pub(crate) started: f64,
    /// Exchanges begun while load was to be offered, per second.
    pub(crate) offered: f64,
    /// Exchanges completed while load was offered, per second.
    pub(crate) completed: f64,
    pub(crate) lost_percent: f64,
    pub(crate) offer_p50_us: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) p999_us: f64,
    /// CPU time of each server, per completed exchange, in microseconds.
    pub(crate) cpu_us: Vec<f64>,
    /// CPU time of each server, in seconds.
    pub(crate) cpu_s: Vec<f64>,
    /// CPU time of the generator per completed exchange, in microseconds: it shares the cores.
    pub(crate) generator_us: f64,
    pub(crate) violations: u64,
    pub(crate) longest_gap_ms: f64,
}

impl Probe {
    pub(crate) fn is_carried(&self) -> bool {
        self.lost_percent < LOST_PERCENT_MAX && self.completed >= COMPLETED_MIN * self.rate
    }

    pub(crate) fn json(&self) -> Value {
        json!({
            "rate": self.rate, "started_per_second": self.started, "offered_per_second": self.offered, "completed_per_second": self.completed,
            "lost_percent": self.lost_percent, "offer_p50_us": self.offer_p50_us, "p50_us": self.p50_us,
            "p99_us": self.p99_us, "p99_9_us": self.p999_us, "server_cpu_us_per_exchange": self.cpu_us,
            "server_cpu_s": self.cpu_s, "generator_cpu_us_per_exchange": self.generator_us, "violations": self.violations, "longest_gap_ms": self.longest_gap_ms,
        })
    }
}

/// How the load of a probe is made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    /// The generator's goal.
    pub(crate) exchange: &'static str,
    pub(crate) seconds: f64,
    /// The generator looks for frames all the time and has a core of its own; the servers have the other.
    pub(crate) has_own_core: bool,
    /// How long clients think about an OFFER, in milliseconds.
    pub(crate) think_ms: u32,
}

impl Load {
    const fn cores(self) -> Option<&'static str> {
        if self.has_own_core { Some("1") } else { None }
    }
}

/// Servers that run, and what was asked of them so far.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) team: Team,
    // Ended before their files and namespaces go.
    pub(crate) running: Vec<Running>,
    pub(crate) lab: Lab,
    /// Populations of clients used so far: each probe asks for new leases.
    populations: u16,
}

impl Session {
    /// Starts a team in namespaces of its own.
    pub(crate) fn start(team: &Team, is_pinned: bool) -> Result<Self, String> {
        let folder = std::env::temp_dir().join(format!("aplomado-perf-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        let lab = Lab::new(team.kinds.len(), &folder)?;
        let running = team.start(&lab, is_pinned.then_some("0"))?;
        Ok(Self::over(team.clone(), lab, running))
    }

    /// Servers that run already.
    pub(crate) const fn over(team: Team, lab: Lab, running: Vec<Running>) -> Self {
        Self { team, lab, running, populations: 0 }
    }

    /// Octets that no other probe's clients begin with.
    pub(crate) fn new_prefix(&mut self) -> String {
        self.populations = (self.populations + 1) & 0xff;
        format!("{:04x}", 0x0200 | self.populations)
    }

    /// Offers load at `rate`.
    pub(crate) fn probe(&mut self, load: Load, rate: f64) -> Result<Probe, String> {
        let prefix = self.new_prefix();
        let clients = (rate * load.seconds).ceil() + 64.0;
        let sleep = if load.has_own_core { "" } else { "--sleep" };
        let broadcast = if self.team.kinds[0].needs_broadcast() { "--broadcast" } else { "" };
        let arguments = format!(
            "-e {} -r {rate} -d {} -c {clients} --prefix {prefix} --drain 1.2 --ring-slots 32768 --think-ms {} {sleep} {broadcast}",
            load.exchange, load.seconds, load.think_ms
        );
        self.measured(&arguments, load, rate)
    }

    /// Keeps so many exchanges of this kind under way, by clients that have addresses.
    pub(crate) fn closed(&mut self, load: Load, window: u32, clients: u32) -> Result<Probe, String> {
        let arguments = format!(
            "-e {} -w {window} -d {} -c {clients} --prefix 02ff --preload 64 --drain 1.2 --sleep",
            load.exchange, load.seconds
        );
        self.measured(&arguments, load, 0.0)
    }

    fn measured(&mut self, arguments: &str, load: Load, rate: f64) -> Result<Probe, String> {
        let cpu = |running: &[Running]| running.iter().map(Running::cpu_seconds).collect::<Vec<f64>>();
        let before = cpu(&self.running);
        let seen = self.lab.load(arguments, load.cores())?;
        let cpu_s: Vec<f64> =
            cpu(&self.running).iter().zip(before).map(|(after, before)| after - before).collect();
        for (number, one) in self.running.iter_mut().enumerate() {
            if one.has_ended() {
                return Err(format!("{} has ended: {}", self.team.kinds[number].name(), one.last_words()));
            }
        }
        let number = |pointer: &str| seen.pointer(pointer).and_then(Value::as_f64).unwrap_or(0.0);
        let wrong = |pointer: &str| seen.pointer(pointer).and_then(Value::as_u64).unwrap_or(0);
        let done = number("/completed").max(1.0);
        Ok(Probe {
            rate,
            started: number("/started_per_second"),
            offered: number("/offered_per_second"),
            completed: number("/completed_per_second"),
            lost_percent: number("/lost_percent"),
            offer_p50_us: number("/latency/offer/p50_us"),
            p50_us: number("/latency/exchange/p50_us"),
            p99_us: number("/latency/exchange/p99_us"),
            p999_us: number("/latency/exchange/p99_9_us"),
            cpu_us: cpu_s.iter().map(|seconds| seconds * 1e6 / done).collect(),
            cpu_s,
            generator_us: (number("/generator/cpu_user_s") + number("/generator/cpu_system_s")) * 1e6 / done,
            violations: wrong("/violations/address_changed")
                + wrong("/violations/address_twice")
                + wrong("/violations/contradictions"),
            longest_gap_ms: number("/longest_gap_ms"),
        })
    }

    /// Lets what is queued run off, and a pair that lost sight of its partner find it again.
    pub(crate) fn settle(&mut self) -> Result<(), String> {
        pause(200);
        if self.team.is_pair() { self.team.wait_ready(&self.lab, &mut self.running) } else { Ok(()) }
    }

    /// The highest rate that is carried, to within `precision` (1.05 for a twentieth), and everything seen on the way; nothing when
    /// not even a two-thousandth of `guess` is.
    pub(crate) fn search(
        &mut self,
        load: Load,
        guess: f64,
        precision: f64,
        seen: &mut Vec<Probe>,
    ) -> Result<Option<Probe>, String> {
        let mut best: Option<Probe> = None;
        let mut refused: Option<f64> = None;
        let mut rate = guess;
        loop {
            let probe = self.probe(load, rate)?;
            seen.push(probe.clone());
            if probe.is_carried() {
                best = Some(probe);
            } else {
                refused = Some(rate);
                self.settle()?;
            }
            rate = match (&best, refused) {
                (Some(best), Some(refused)) if refused / best.rate <= precision => break,
                (Some(best), Some(refused)) => (best.rate * refused).sqrt(),
                (Some(best), None) => best.rate * 1.5,
                (None, Some(refused)) if refused < guess / 2000.0 => break,
                (None, _) => rate / 1.5,
            }
            .round();
        }
        Ok(best)
    }
}
