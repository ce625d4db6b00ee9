//! What a comparison leaves behind: numbers, a table, plots.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use super::plot::{Line, Scale, svg};

/// The machine, its kernel, and the commit that was measured.
pub(super) fn machine() -> Value {
    let first = |path: &str, key: &str| {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with(key)).unwrap_or_default();
        line.split_once(':').map_or(line, |(_, value)| value).trim().to_owned()
    };
    let said = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output().ok();
        output.map_or_else(String::new, |output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    json!({
        "processor": first("/proc/cpuinfo", "model name"),
        "cores": std::thread::available_parallelism().map_or(0, std::num::NonZero::get),
        "kernel": said("uname", &["-r"]),
        "commit": said("git", &["rev-parse", "--short", "HEAD"]),
    })
}

/// Writes `compare.json`, `compare.md` and the plots to `folder`.
pub(super) fn write(folder: &Path, results: &Value) -> Result<(), String> {
    let file = |name: &str, content: String| {
        let path = folder.join(name);
        std::fs::write(&path, content).map_err(|error| format!("{}: {error}", path.display()))
    };
    std::fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    file("compare.json", format!("{results:#}\n"))?;
    file("compare.md", markdown(results))?;
    if let Some(servers) = results["latency"]["servers"].as_object() {
        let mut lines = Vec::new();
        for (name, points) in servers {
            for (quantile, key) in
                [("p50", "exchange_p50_us"), ("p99", "exchange_p99_us"), ("p99.9", "exchange_p99_9_us")]
            {
                let mut points = pairs(points, "offered_per_second", key);
                points.sort_by(|one, other| one.0.total_cmp(&other.0));
                lines.push(Line { name: format!("{name} {quantile}"), points });
            }
        }
        let title = "Latency of a four-way exchange by rate";
        file("latency.svg", svg(title, "exchanges offered per second", "µs", Scale::Logarithmic, &lines))?;
    }
    if let Some(servers) = results["overload"].as_object() {
        let lines: Vec<Line> = servers
            .iter()
            .map(|(name, server)| Line {
                name: name.clone(),
                points: pairs(&server["points"], "offered_per_second", "completed_per_second"),
            })
            .collect();
        let title = "Completed by offered, one core for the server";
        file(
            "overload.svg",
            svg(title, "offered per second", "completed per second", Scale::Linear, &lines),
        )?;
    }
    Ok(())
}

fn pairs(points: &Value, x: &str, y: &str) -> Vec<(f64, f64)> {
    let list = points.as_array().map(Vec::as_slice).unwrap_or_default();
    list.iter().filter_map(|point| Some((point[x].as_f64()?, point[y].as_f64()?))).collect()
}

fn markdown(results: &Value) -> String {
    let mut out = String::new();
    let machine = &results["machine"];
    let _ = writeln!(
        out,
        "Machine: {}, {} cores, kernel {}; commit {}.\n",
        machine["processor"].as_str().unwrap_or_default(),
        machine["cores"],
        machine["kernel"].as_str().unwrap_or_default(),
        machine["commit"].as_str().unwrap_or_default()
    );
    for (part, title) in [
        ("single", "One server, four-way exchanges, leases on disk"),
        ("hot-standby", "Hot-standby pairs"),
        ("load-balancing", "Load-balancing pairs"),
        ("ceiling", "DISCOVER and OFFER alone, server and generator on a core each"),
    ] {
        let Some(servers) = results[part].as_object() else { continue };
        let kea = ["kea", "kea-threads"]
            .iter()
            .filter_map(|name| servers.get(*name)?["per_second"].as_f64())
            .fold(0.0, f64::max);
        let _ = writeln!(
            out,
            "### {title}\n\n| server | per second | lowest to highest | under way | server CPU µs each | times Kea |"
        );
        let _ = writeln!(out, "|---|---|---|---|---|---|");
        for (name, server) in servers {
            let number = |key: &str| server[key].as_f64().unwrap_or(0.0);
            let times = if kea > 0.0 { format!("{:.1}", number("per_second") / kea) } else { "-".to_owned() };
            let _ = writeln!(
                out,
                "| {name} | {:.0} | {:.0} to {:.0} | {} | {:.1} | {times} |",
                number("per_second"),
                number("lowest"),
                number("highest"),
                server["window"],
                number("server_cpu_us_per_exchange")
            );
        }
        out.push('\n');
    }
    if let Some(servers) = results["latency"]["servers"].as_object() {
        let _ = writeln!(
            out,
            "### Latency, open loop\n\n| server | offered/s | completed/s | OFFER p50 µs | exchange p50 | p99 | p99.9 |"
        );
        let _ = writeln!(out, "|---|---|---|---|---|---|---|");
        for (name, points) in servers {
            for point in points.as_array().into_iter().flatten() {
                let number = |key: &str| point[key].as_f64().unwrap_or(f64::NAN);
                let _ = writeln!(
                    out,
                    "| {name} | {:.0} | {:.0} | {:.0} | {:.0} | {:.0} | {:.0} |",
                    number("offered_per_second"),
                    number("completed_per_second"),
                    number("offer_p50_us"),
                    number("exchange_p50_us"),
                    number("exchange_p99_us"),
                    number("exchange_p99_9_us")
                );
            }
        }
        out.push('\n');
    }
    if let Some(servers) = results["overload"].as_object() {
        let _ = writeln!(
            out,
            "### Overload, one core for the server\n\n| server | offered/s | completed/s | of its peak |"
        );
        let _ = writeln!(out, "|---|---|---|---|");
        for (name, server) in servers {
            let peak = server["peak_per_second"].as_f64().unwrap_or(f64::NAN);
            for point in server["points"].as_array().into_iter().flatten() {
                let number = |key: &str| point[key].as_f64().unwrap_or(f64::NAN);
                let completed = number("completed_per_second");
                let _ = writeln!(
                    out,
                    "| {name} | {:.0} | {completed:.0} | {:.2} |",
                    number("offered_per_second"),
                    completed / peak
                );
            }
        }
    }
    out
}
