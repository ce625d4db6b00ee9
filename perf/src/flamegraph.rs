//! From a running process, or a program that it starts, to a flame graph.
//!
//! Samples with `perf` on the CPU clock, which works on every machine, also where the processor's counters are not to be had.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use inferno::collapse::Collapse as _;
use inferno::collapse::perf::Folder;
use serde_json::{Value, json};

use crate::lab::find_program;

/// What is looked at.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The process to look at.
    #[arg(short, long, required_unless_present = "command", conflicts_with = "command")]
    pid: Option<u32>,
    /// For this many seconds (a program that is started: until it ends).
    #[arg(short, long, default_value_t = 10.0)]
    seconds: f64,
    /// Samples per second and core.
    #[arg(short, long, default_value_t = 1999)]
    frequency: u32,
    /// The picture.
    #[arg(short, long, default_value = "flamegraph.svg")]
    out: PathBuf,
    /// A program and its arguments, such as a benchmark, to be started and looked at.
    #[arg(trailing_var_arg = true)]
    command: Vec<String>,
}

/// Samples, folds, draws.
pub(crate) fn run(arguments: &Arguments) -> Result<Value, String> {
    let perf = find_program("perf").ok_or(
        "perf is not installed: on Debian `apt install linux-perf`, on Ubuntu `apt install linux-tools-generic`, on Fedora `dnf install perf`",
    )?;
    let data = std::env::temp_dir().join(format!("aplomado-perf-{}.data", std::process::id()));
    let result = sample(arguments, &perf, &data);
    let _ = std::fs::remove_file(&data);
    result
}

fn sample(arguments: &Arguments, perf: &std::path::Path, data: &std::path::Path) -> Result<Value, String> {
    let mut record = Command::new(perf);
    record.args([
        "record",
        "-q",
        "-e",
        "cpu-clock",
        "--call-graph",
        "dwarf,16384",
        "-F",
        &arguments.frequency.to_string(),
        "-o",
    ]);
    record.arg(data);
    if let Some(pid) = arguments.pid {
        record.args(["-p", &pid.to_string(), "--", "sleep", &arguments.seconds.to_string()]);
    } else {
        record.arg("--").args(&arguments.command);
    }
    let done = record
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .output()
        .map_err(|error| format!("perf: {error}"))?;
    if !data.is_file() {
        return Err(format!("perf recorded nothing: {}", String::from_utf8_lossy(&done.stderr).trim_end()));
    }
    let script =
        Command::new(perf).args(["script", "--no-inline", "-i"]).arg(data).stderr(Stdio::null()).output();
    let script = script.map_err(|error| format!("perf: {error}"))?;
    let mut folded = Vec::new();
    let mut folder = Folder::default();
    folder
        .collapse(&script.stdout[..], &mut folded)
        .map_err(|error| format!("what perf says cannot be read: {error}"))?;
    let text = String::from_utf8_lossy(&folded);
    let stacks = text.lines().count();
    if stacks == 0 {
        return Err("perf saw nothing run: is the process idle?".to_owned());
    }
    let mut options = inferno::flamegraph::Options::default();
    // In percent: what is narrower cannot be seen, and makes the file several times as large.
    options.min_width = 0.2;
    options.title = arguments.pid.map_or_else(|| arguments.command.join(" "), |pid| format!("process {pid}"));
    let file = std::fs::File::create(&arguments.out)
        .map_err(|error| format!("{}: {error}", arguments.out.display()))?;
    inferno::flamegraph::from_lines(&mut options, text.lines(), file)
        .map_err(|error| format!("cannot draw: {error}"))?;
    Ok(json!({ "written_to": arguments.out, "stacks": stacks, "heaviest": heaviest(&text) }))
}

/// Functions by their own share of all samples, in percent.
fn heaviest(folded: &str) -> Vec<Value> {
    let mut own = std::collections::BTreeMap::<&str, u64>::new();
    let mut total = 0_u64;
    for line in folded.lines() {
        let Some((stack, count)) = line.rsplit_once(' ') else { continue };
        let count = count.parse::<u64>().unwrap_or(0);
        *own.entry(stack.rsplit(';').next().unwrap_or(stack)).or_default() += count;
        total += count;
    }
    let mut sorted: Vec<(&str, u64)> = own.into_iter().collect();
    sorted.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let share =
        |count: u64| format!("{}.{:02}", count * 100 / total.max(1), count * 10_000 / total.max(1) % 100);
    sorted
        .into_iter()
        .take(25)
        .map(|(name, count)| json!({ "function": name, "percent": share(count) }))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn share_of_a_function_is_what_it_has_by_itself() {
        let top = heaviest("main;parse 3\nmain;write;memcpy 5\nmain 1\nmain;parse;memcpy 1\n");
        assert_eq!(top[0], json!({ "function": "memcpy", "percent": "60.00" }));
        assert_eq!(top[1], json!({ "function": "parse", "percent": "30.00" }));
    }
}
