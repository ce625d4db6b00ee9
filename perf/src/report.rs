//! What a run has shown: counters, latencies, a time line; as JSON and as one line a second.

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use crate::codec::Fault;
use crate::exchange::Goal;

/// Longest latency told apart, in nanoseconds; what is longer counts as this.
const LATENCY_NS_MAX: u64 = 120_000_000_000;
/// Width of one place of the time line.
pub(crate) const TIME_LINE_NS: u64 = 100_000_000;
/// Most places of the time line: beyond it only the sums count.
const TIME_LINE_MAX: usize = 36_000;

/// Latencies of one kind.
#[derive(Debug)]
pub(crate) struct Latency(Histogram<u64>);

impl Latency {
    pub(crate) fn new() -> Self {
        let histogram = Histogram::new_with_bounds(1, LATENCY_NS_MAX, 3);
        Self(histogram.expect("constant bounds that the library accepts"))
    }

    pub(crate) fn record(&mut self, ns: u64) {
        self.0.saturating_record(ns.max(1));
    }

    /// A quantile in microseconds.
    #[expect(clippy::cast_precision_loss, reason = "latencies below 2^53 ns")]
    pub(crate) fn quantile_us(&self, quantile: f64) -> f64 {
        self.0.value_at_quantile(quantile) as f64 / 1000.0
    }

    #[expect(clippy::cast_precision_loss, reason = "latencies below 2^53 ns")]
    fn json(&self) -> Value {
        if self.0.is_empty() {
            return Value::Null;
        }
        json!({
            "count": self.0.len(),
            "mean_us": self.0.mean() / 1000.0,
            "p50_us": self.quantile_us(0.5),
            "p90_us": self.quantile_us(0.9),
            "p99_us": self.quantile_us(0.99),
            "p99_9_us": self.quantile_us(0.999),
            "p99_99_us": self.quantile_us(0.9999),
            "max_us": self.0.max() as f64 / 1000.0,
        })
    }
}

/// Counters of one goal.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) started: u64,
    pub(crate) completed: u64,
    pub(crate) lost: u64,
    pub(crate) refused: u64,
}

/// A run's results.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) tallies: [Tally; Goal::ALL.len()],
    /// From when the DISCOVER was due to the OFFER.
    pub(crate) offer: Latency,
    /// From the REQUEST (renewals: from when it was due) to the ACK.
    pub(crate) ack: Latency,
    /// From when the exchange was due to its end.
    pub(crate) whole: Latency,
    pub(crate) sent: u64,
    pub(crate) sent_again: u64,
    pub(crate) send_failed: u64,
    pub(crate) received: u64,
    /// Replies to no exchange under way: late, doubled, or the second server's.
    pub(crate) unexpected: u64,
    /// Replies that are none, by reason.
    pub(crate) faults: [u64; Fault::NAMES.len()],
    /// A client with an address got another.
    pub(crate) address_changed: u64,
    /// An address was given to two clients.
    pub(crate) address_twice: u64,
    /// Answers that contradict their query: another client's hardware address, no address, another message type.
    pub(crate) contradictions: u64,
    /// Starts that had to wait because too many exchanges were under way.
    pub(crate) held_back: u64,
    /// Exchanges begun while load was to be offered: fewer than are due then, where the generator is the limit.
    pub(crate) started_in_time: u64,
    time_line: Vec<u32>,
    last_end_ns: u64,
    gap_ns_max: u64,
    begin_ns: u64,
}

impl Report {
    pub(crate) fn new(begin_ns: u64) -> Self {
        Self {
            tallies: [Tally::default(); Goal::ALL.len()],
            offer: Latency::new(),
            ack: Latency::new(),
            whole: Latency::new(),
            sent: 0,
            sent_again: 0,
            send_failed: 0,
            received: 0,
            unexpected: 0,
            faults: [0; Fault::NAMES.len()],
            address_changed: 0,
            address_twice: 0,
            contradictions: 0,
            held_back: 0,
            started_in_time: 0,
            time_line: Vec::new(),
            last_end_ns: begin_ns,
            gap_ns_max: 0,
            begin_ns,
        }
    }

    pub(crate) fn tally(&mut self, goal: Goal) -> &mut Tally {
        let place = Goal::ALL.iter().position(|one| *one == goal).expect("every goal is listed");
        &mut self.tallies[place]
    }

    /// An exchange has completed.
    pub(crate) fn complete(&mut self, goal: Goal, due_ns: u64, now_ns: u64) {
        self.tally(goal).completed += 1;
        self.whole.record(now_ns.saturating_sub(due_ns));
        self.gap_ns_max = self.gap_ns_max.max(now_ns.saturating_sub(self.last_end_ns));
        self.last_end_ns = now_ns;
        let place = (now_ns.saturating_sub(self.begin_ns) / TIME_LINE_NS).min(TIME_LINE_MAX as u64 - 1);
        let place = usize::try_from(place).expect("bounded");
        if self.time_line.len() <= place {
            self.time_line.resize(place + 1, 0);
        }
        self.time_line[place] += 1;
    }

    pub(crate) fn completed(&self) -> u64 {
        self.tallies.iter().map(|tally| tally.completed).sum()
    }

    pub(crate) fn started(&self) -> u64 {
        self.tallies.iter().map(|tally| tally.started).sum()
    }

    pub(crate) fn lost(&self) -> u64 {
        self.tallies.iter().map(|tally| tally.lost).sum()
    }

    /// Answers that no correct server gives.
    pub(crate) fn violations(&self) -> u64 {
        self.address_changed + self.address_twice + self.contradictions + self.faults.iter().sum::<u64>()
    }

    /// The results of a run that offered load for `active_ns`.
    #[expect(clippy::cast_precision_loss, reason = "counts below 2^53")]
    pub(crate) fn json(&self, active_ns: u64) -> Value {
        let seconds = active_ns as f64 / 1e9;
        let in_time: u64 = self
            .time_line
            .iter()
            .take(usize::try_from(active_ns / TIME_LINE_NS).unwrap_or(usize::MAX))
            .map(|count| u64::from(*count))
            .sum();
        let goals: serde_json::Map<String, Value> = Goal::ALL
            .iter()
            .zip(&self.tallies)
            .filter(|(_, tally)| tally.started > 0)
            .map(|(goal, tally)| {
                let value = json!({
                    "started": tally.started, "completed": tally.completed, "lost": tally.lost, "refused": tally.refused
                });
                (goal.name().to_owned(), value)
            })
            .collect();
        let faults: serde_json::Map<String, Value> = Fault::NAMES
            .iter()
            .zip(&self.faults)
            .map(|(name, count)| ((*name).to_owned(), json!(count)))
            .collect();
        json!({
            "seconds": seconds,
            "started": self.started(),
            "completed": self.completed(),
            "lost": self.lost(),
            "lost_percent": 100.0 * self.lost() as f64 / (self.started().max(1)) as f64,
            "started_per_second": self.started() as f64 / seconds,
            "offered_per_second": self.started_in_time as f64 / seconds,
            "completed_per_second": in_time as f64 / seconds,
            "goals": goals,
            "latency": {
                "offer": self.offer.json(),
                "ack": self.ack.json(),
                "exchange": self.whole.json(),
            },
            "frames": {
                "sent": self.sent,
                "sent_again": self.sent_again,
                "send_failed": self.send_failed,
                "received": self.received,
                "unexpected": self.unexpected,
            },
            "violations": {
                "address_changed": self.address_changed,
                "address_twice": self.address_twice,
                "contradictions": self.contradictions,
                "malformed": faults,
            },
            "held_back": self.held_back,
            "longest_gap_ms": self.gap_ns_max as f64 / 1e6,
            "completed_per_100_ms": self.time_line,
        })
    }
}
