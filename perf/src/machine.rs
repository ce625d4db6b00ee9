//! What the numbers were taken on.

use std::process::Command;

use serde_json::{Value, json};

/// Processor, cores, memory, kernel, commit.
pub(crate) fn describe() -> Value {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let line = |text: &str, name: &str| {
        let found = text.lines().find_map(|line| line.strip_prefix(name));
        found.map_or_else(String::new, |rest| rest.trim_matches([' ', '\t', ':']).to_owned())
    };
    let git = |arguments: &[&str]| {
        let output = Command::new("git").args(arguments).output();
        output.map_or_else(
            |_| String::new(),
            |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        )
    };
    let is_changed =
        !git(&["status", "--porcelain", "--untracked-files=no", "--", "src", "perf/src", "Cargo.lock"])
            .is_empty();
    json!({
        "processor": line(&read("/proc/cpuinfo"), "model name"),
        "cores": std::thread::available_parallelism().map_or(1, usize::from),
        "memory": line(&read("/proc/meminfo"), "MemTotal"),
        "kernel": read("/proc/sys/kernel/osrelease").trim(),
        "load_before": read("/proc/loadavg").trim(),
        "commit": format!("{}{}", git(&["rev-parse", "--short=12", "HEAD"]), if is_changed { " with changes" } else { "" }),
    })
}

/// The command line, without the folder of the program.
pub(crate) fn command() -> String {
    let words: Vec<String> = std::env::args().skip(1).collect();
    format!("aplomado-perf {}", words.join(" "))
}

/// What `describe` found, as a paragraph.
pub(crate) fn paragraph(machine: &Value) -> String {
    let text = |name: &str| machine[name].as_str().unwrap_or("unknown").to_owned();
    format!(
        "{}, {} cores, {} memory, Linux {}; commit {}; load average before: {}.",
        text("processor"),
        machine["cores"],
        text("memory"),
        text("kernel"),
        text("commit"),
        text("load_before")
    )
}
