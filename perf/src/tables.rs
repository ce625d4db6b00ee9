//! What was measured, as tables and plots.

use std::fmt::Write as _;

use crate::compare::{COST, DORA, HALF, HALF_PAIR, Measured, OFFER, OVERLOAD, PAIR, PEAK, RENEW, Results};
use crate::machine;
use crate::plot::{Plot, Series};
use crate::probe::Probe;

/// What a plot shows of a probe.
type Quantile = fn(&Probe) -> f64;

/// Places in a row of numbers: lowest, median, highest.
const MEDIAN: usize = 1;

/// The tables, as Markdown.
pub(crate) fn markdown(results: &Results) -> String {
    let mut out = format!(
        "# Servers side by side\n\n{}\n\nCommand: `{}`. Median of the rounds (lowest - highest).\n",
        machine::paragraph(&results.machine),
        results.command
    );
    targets(results, &mut out);
    for what in names(&results.measured, |row| &row.what) {
        let rows: Vec<Measured> = results.measured.iter().filter(|row| row.what == what).cloned().collect();
        let _ = writeln!(
            out,
            "\n## {what}\n\n| server | completed/s | asked/s | lost % | OFFER p50 us | p50 us | p99 us | p99.9 us | CPU us per exchange, each server | generator | bad answers |\n|---|---|---|---|---|---|---|---|---|---|---|"
        );
        for server in names(&rows, |row| &row.server) {
            let spread = |of: &dyn Fn(&Probe) -> f64| results.spread(&what, &server, of).unwrap_or_default();
            let cell = |of: &dyn Fn(&Probe) -> f64, digits: usize| {
                let [low, median, high] = spread(of);
                if (high - low).abs() < f64::EPSILON {
                    return format!("{median:.digits$}");
                }
                format!("{median:.digits$} ({low:.digits$} - {high:.digits$})")
            };
            let count = rows.iter().find(|row| row.server == server).map_or(0, |row| row.probe.cpu_us.len());
            let cpu: Vec<String> = (0..count)
                .map(|place| cell(&|probe: &Probe| probe.cpu_us.get(place).copied().unwrap_or(0.0), 1))
                .collect();
            let bad: u64 =
                rows.iter().filter(|row| row.server == server).map(|row| row.probe.violations).sum();
            let _ = writeln!(
                out,
                "| {server} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {bad} |",
                cell(&|probe| probe.completed, 0),
                cell(&|probe| probe.rate, 0),
                cell(&|probe| probe.lost_percent, 2),
                cell(&|probe| probe.offer_p50_us, 0),
                cell(&|probe| probe.p50_us, 0),
                cell(&|probe| probe.p99_us, 0),
                cell(&|probe| probe.p999_us, 0),
                cpu.join("; "),
                cell(&|probe| probe.generator_us, 1)
            );
        }
    }
    if !results.skipped.is_empty() {
        out.push_str("\n## Not measured\n\n");
        for line in &results.skipped {
            let _ = writeln!(out, "- SKIPPED: {line}");
        }
    }
    out
}

/// The rows of targets that the numbers at hand can answer.
fn targets(results: &Results, out: &mut String) {
    let median = |what: &str, server: &str, of: &dyn Fn(&Probe) -> f64| {
        results.spread(what, server, of).map(|spread| spread[MEDIAN])
    };
    let rate = |what: &str, server: &str| median(what, server, &|probe| probe.completed);
    // Kea at whichever of its settings is the better one.
    let best_kea = |what: &str| {
        let rates = ["kea", "kea, 2 threads"].map(|server| rate(what, server));
        rates.into_iter().flatten().reduce(f64::max)
    };
    let ratio = |ours: Option<f64>, other: Option<f64>| Some(ours? / other?);
    let (own, own_lb) = ("aplomado pair, hot-standby", "aplomado pair, load-balancing");
    let (kea, kea_lb) = ("kea pair, hot-standby", "kea pair, load-balancing");
    let mixed = "aplomado before kea, hot-standby";
    let bare = "reflector that answers before one that listens";
    let cpu = |what: &str, server: &str| {
        median(what, server, &|probe| probe.cpu_us.first().copied().unwrap_or(0.0))
    };
    let p99 = |server: &str| median(HALF, server, &|probe| probe.p99_us);
    let offer = |server: &str| median(HALF, server, &|probe| probe.offer_p50_us);
    let least = |one: Option<f64>, other: Option<f64>| Some(one?.min(other?));
    let packet_ns = |server: &str| cpu(OFFER, server).map(|us| us * 1000.0);
    let extra = packet_ns("aplomado").zip(packet_ns("reflector")).map(|(ours, bare)| ours - bare);
    let rows: [(&str, &str, Option<f64>, bool); 14] = [
        (
            "OFFER only, packets/s against the reflector",
            "0.85",
            ratio(rate(OFFER, "aplomado"), rate(OFFER, "reflector")),
            true,
        ),
        ("or server CPU per packet above the reflector's, ns", "400", extra, false),
        ("DORA, durable, against Kea", "12", ratio(rate(DORA, "aplomado"), best_kea(DORA)), true),
        (
            "the same against what answers without state, rules or disk ",
            "",
            ratio(rate(DORA, "aplomado"), rate(DORA, "reflector that answers")),
            true,
        ),
        ("renewals against Kea", "", ratio(rate(RENEW, "aplomado"), best_kea(RENEW)), true),
        (
            "p99 at half of Kea's rate, against Kea's",
            "0.5",
            ratio(p99("aplomado"), least(p99("kea"), p99("kea, 2 threads"))),
            false,
        ),
        (
            "OFFER p50 at half of Kea's rate, against Kea's",
            "1",
            ratio(offer("aplomado"), least(offer("kea"), offer("kea, 2 threads"))),
            false,
        ),
        ("pair, hot-standby, against a Kea pair", "25", ratio(rate(PAIR, own), rate(PAIR, kea)), true),
        (
            "pair, load-balancing, against a Kea pair",
            "25",
            ratio(rate(PAIR, own_lb), rate(PAIR, kea_lb)),
            true,
        ),
        (
            "a pair without state, rules, disk or partner, against a Kea pair, hot-standby ",
            "",
            ratio(rate(PAIR, bare), rate(PAIR, kea)),
            true,
        ),
        ("the same, load-balancing", "", ratio(rate(PAIR, bare), rate(PAIR, kea_lb)), true),
        ("with a Kea partner, against a Kea pair", "1", ratio(rate(PAIR, mixed), rate(PAIR, kea)), true),
        (
            "CPU per exchange of the answering server, pair against alone",
            "1.25",
            ratio(cpu(COST, own), cpu(COST, "aplomado")),
            false,
        ),
        (
            "goodput at 5 x, against the peak",
            "0.9",
            ratio(rate(OVERLOAD, "aplomado"), rate(PEAK, "aplomado")),
            true,
        ),
    ];
    out.push_str("\n## Targets\n\n| what | target | reached | |\n|---|---|---|---|\n");
    for (what, target, reached, is_floor) in rows {
        let Some(reached) = reached else { continue };
        // What only stands beside a target has none of its own.
        if target.is_empty() {
            let _ = writeln!(out, "| {what} | | {reached:.2} | |");
            continue;
        }
        let limit: f64 = target.parse().expect("a constant above");
        let is_good = if is_floor { reached >= limit } else { reached <= limit };
        let sign = if is_floor { "≥" } else { "≤" };
        let verdict = if is_good { "reached" } else { "**missed**" };
        let _ = writeln!(out, "| {what} | {sign} {target} | {reached:.2} | {verdict} |");
    }
    let offered = median(OVERLOAD, "aplomado", &|probe| probe.offered);
    if let Some(times) = ratio(offered, rate(PEAK, "aplomado")) {
        let _ = writeln!(out, "| offered at 5 x, in times of the peak | | {times:.2} | |");
    }
    for server in ["kea", "kea, 2 threads"] {
        if let Some(kea) = ratio(rate(OVERLOAD, server), rate(PEAK, server)) {
            let _ = writeln!(out, "| goodput of {server} at 5 x, against its peak | | {kea:.2} | |");
        }
    }
    if let Some(unsynced) = ratio(p99("aplomado, not synced"), least(p99("kea"), p99("kea, 2 threads"))) {
        let _ = writeln!(
            out,
            "| p99 at half of Kea's rate with rows not synced, as Kea's are not, against Kea's | | {unsynced:.2} | |"
        );
    }
    let half_pair = |server: &str| median(HALF_PAIR, server, &|probe| probe.p99_us);
    if let Some(pairs) = ratio(half_pair(own), half_pair(kea)) {
        let _ =
            writeln!(out, "| p99 of pairs at half of a Kea pair's rate, against Kea's | | {pairs:.2} | |");
    }
}

/// Every plot with its file's name.
pub(crate) fn plots(results: &Results) -> Vec<(String, String)> {
    let mut files = Vec::new();
    for what in names(&results.seen, |row| &row.what) {
        let rows: Vec<&Measured> = results.seen.iter().filter(|row| row.what == what).collect();
        let line = |server: &str, name: String, of: &dyn Fn(&Probe) -> f64| {
            let own = rows.iter().filter(|row| row.server == server);
            let mut points: Vec<(f64, f64)> = own.map(|row| (row.probe.rate, of(&row.probe))).collect();
            points.sort_by(|one, other| one.0.total_cmp(&other.0));
            Series { name, points }
        };
        let servers = names(&results.seen, |row| &row.server);
        let servers: Vec<String> =
            servers.into_iter().filter(|server| rows.iter().any(|row| row.server == *server)).collect();
        let completed = Plot {
            title: format!("{what}: offered against completed"),
            x: "exchanges offered per second",
            y: "exchanges completed per second",
            series: servers
                .iter()
                .map(|server| line(server, server.clone(), &|probe| probe.completed))
                .collect(),
        };
        let quantiles: [(&str, Quantile); 3] =
            [("p50", |probe| probe.p50_us), ("p99", |probe| probe.p99_us), ("p99.9", |probe| probe.p999_us)];
        let file: String = what
            .chars()
            .map(|one| if one.is_ascii_alphanumeric() { one.to_ascii_lowercase() } else { '-' })
            .collect();
        files.extend(completed.svg().map(|svg| (format!("{file}-completed.svg"), svg)));
        for (quantile, of) in quantiles {
            let latency = Plot {
                title: format!("{what}: {quantile} latency"),
                x: "exchanges offered per second",
                y: "microseconds",
                series: servers.iter().map(|server| line(server, server.clone(), &of)).collect(),
            };
            files
                .extend(latency.svg().map(|svg| (format!("{file}-{}.svg", quantile.replace('.', "-")), svg)));
        }
    }
    files
}

/// The names in order of their first appearance.
fn names(rows: &[Measured], of: impl Fn(&Measured) -> &String) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for row in rows {
        if !found.contains(of(row)) {
            found.push(of(row).clone());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(what: &str, server: &str, completed: f64, p99_us: f64) -> Measured {
        let probe = Probe {
            rate: completed,
            started: completed,
            offered: completed,
            completed,
            lost_percent: 0.0,
            offer_p50_us: 50.0,
            p50_us: 80.0,
            p99_us,
            p999_us: 2.0 * p99_us,
            cpu_us: vec![9.0],
            cpu_s: vec![0.1],
            generator_us: 7.0,
            violations: 0,
            longest_gap_ms: 1.0,
        };
        Measured { what: what.to_owned(), server: server.to_owned(), probe }
    }

    #[test]
    fn ratio_is_of_medians_and_against_the_better_kea() {
        let measured = vec![
            row(DORA, "aplomado", 80_000.0, 10.0),
            row(DORA, "aplomado", 100_000.0, 10.0),
            row(DORA, "kea", 7_000.0, 10.0),
            row(DORA, "kea, 2 threads", 10_000.0, 10.0),
        ];
        let text = markdown(&Results { seen: measured.clone(), measured, ..Results::default() });
        assert!(text.contains("| DORA, durable, against Kea | ≥ 12 | 9.00 | **missed** |"), "{text}");
        assert!(text.contains("| aplomado | 90000 (80000 - 100000) |"), "{text}");
        assert!(!text.contains("against the reflector"), "what was not measured has no row: {text}");
    }

    #[test]
    fn latency_target_is_a_ceiling() {
        let measured = vec![
            row(HALF, "aplomado", 3_700.0, 400.0),
            row(HALF, "aplomado, not synced", 3_700.0, 90.0),
            row(HALF, "kea", 3_700.0, 1_000.0),
            row(HALF, "kea, 2 threads", 3_700.0, 900.0),
        ];
        let text = markdown(&Results { measured, ..Results::default() });
        assert!(text.contains("against Kea's | ≤ 0.5 | 0.44 | reached |"), "{text}");
        assert!(text.contains("as Kea's are not, against Kea's | | 0.10 | |"), "{text}");
    }
}
