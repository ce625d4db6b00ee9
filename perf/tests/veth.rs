//! The instruments as an operator runs them: generator and reflector at the ends of a veth pair, in namespaces of their own.
//!
//! Needs root and the `ip` command; where these are missing the test says `SKIPPED` and why.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

const PERF: &str = env!("CARGO_BIN_EXE_aplomado-perf");

struct Wire {
    server: String,
    client: String,
}

impl Wire {
    fn new(name: &str) -> Option<Self> {
        let wire = Self {
            server: format!("nt-{}-{name}-s", std::process::id()),
            client: format!("nt-{}-{name}-c", std::process::id()),
        };
        let (s, c) = (wire.server.as_str(), wire.client.as_str());
        for arguments in [
            &["netns", "add", s][..],
            &["netns", "add", c],
            &["-n", s, "link", "add", "srv0", "type", "veth", "peer", "name", "cli0", "netns", c],
            &["-n", s, "link", "set", "srv0", "addrgenmode", "none", "up"],
            &["-n", c, "link", "set", "cli0", "addrgenmode", "none", "up"],
        ] {
            let done = Command::new("ip").args(arguments).output();
            let why = match done {
                Ok(output) if output.status.success() => continue,
                Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
                Err(error) => error.to_string(),
            };
            let _ = writeln!(std::io::stderr(), "SKIPPED: no network namespaces here: {}", why.trim_end());
            return None;
        }
        Some(wire)
    }

    fn reflector(&self, arguments: &str) -> Child {
        let mut child = Command::new("ip")
            .args(["netns", "exec", &self.server, PERF, "reflect", "-i", "srv0"])
            .args(arguments.split(' '))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the reflector starts");
        // It says so once its sockets are open.
        let mut said = BufReader::new(child.stderr.take().expect("piped"));
        let mut line = String::new();
        said.read_line(&mut line).expect("it says that it reflects");
        assert!(line.starts_with("reflecting on srv0"), "{line}");
        child
    }

    fn load(&self, arguments: &str) -> Output {
        Command::new("ip")
            .args(["netns", "exec", &self.client, PERF, "load", "-i", "cli0", "-q", "--sleep"])
            .args(arguments.split(' '))
            .output()
            .expect("the generator starts")
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        for space in [&self.server, &self.client] {
            let _ = Command::new("ip").args(["netns", "del", space]).output();
        }
    }
}

fn results(output: &Output) -> Value {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("one JSON object")
}

#[test]
fn generator_and_reflector_agree_on_what_passed_between_them() {
    let Some(wire) = Wire::new("reflect") else { return };
    let reflector = wire.reflector("-d 4 --shards 2");
    let load = results(&wire.load("-e reflect -r 2000 -d 1 -c 5000 --timeout-ms 2000 --drain 3"));
    let reflect = results(&reflector.wait_with_output().expect("it ends by itself"));
    assert_eq!((&load["started"], &load["lost"]), (&Value::from(2000), &Value::from(0)));
    assert_eq!((&reflect["received"], &reflect["sent"]), (&Value::from(2000), &Value::from(2000)));
}

#[test]
fn every_kind_of_exchange_completes_against_the_emptiest_server() {
    let Some(wire) = Wire::new("answer") else { return };
    let reflector = wire.reflector("-d 20 --answer");
    for (arguments, goal) in [
        ("-e dora -w 16", "dora"),
        ("-e discover -w 16", "discover"),
        ("-e renew -w 16", "renew"),
        ("-e release -r 500", "release"),
        ("-e dora -w 16 --giaddr 10.0.0.9 --server 10.0.0.1 --client-id", "dora"),
        ("--avalanche --attempts 5", "dora"),
    ] {
        let output = wire.load(&format!("{arguments} -d 1 -c 300"));
        let load = results(&output);
        let done = load["goals"][goal]["completed"].as_u64().expect("a count");
        assert!(done >= 100, "{arguments}: {done} {goal}");
        assert_eq!(load["violations"]["contradictions"], 0, "{arguments}");
    }
    let mut reflector = reflector;
    reflector.kill().expect("it still runs");
    reflector.wait().expect("it is our child");
}

#[test]
fn quick_comparison_leaves_a_table_its_numbers_and_plots() {
    let Some(_wire) = Wire::new("may") else { return };
    if std::thread::available_parallelism().map_or(1, usize::from) < 2 {
        let _ = writeln!(std::io::stderr(), "SKIPPED: one core is not enough for a server and a generator");
        return;
    }
    let out = std::env::temp_dir().join(format!("aplomado-compare-{}", std::process::id()));
    let output = Command::new(PERF)
        .args(["compare", "--quick", "--seconds", "2", "--only", "offer", "--servers", "reflector,aplomado"])
        .arg("--out")
        .arg(&out)
        .output()
        .expect("it starts");
    let results = results(&output);
    let measured = results["measured"].as_array().expect("a list");
    let reflector =
        measured.iter().find(|row| row["server"] == "reflector").expect("it needs no other program");
    assert!(reflector["probe"]["completed_per_second"].as_f64() > Some(100.0), "{reflector}");
    assert!(
        reflector["probe"]["lost_percent"].as_f64() < Some(1.0),
        "a rate that loses more is not its highest: {reflector}"
    );
    // The server itself is not built where only the instruments are tested: then that is said.
    let is_measured = measured.iter().any(|row| row["server"] == "aplomado");
    let is_skipped =
        String::from_utf8_lossy(&output.stderr).contains("SKIPPED: OFFER only, server on one core: aplomado");
    assert!(is_measured != is_skipped, "{results:#}");
    let table = std::fs::read_to_string(out.join("compare.md")).expect("a table");
    assert!(table.contains("| reflector | "), "{table}");
    let plot =
        std::fs::read_to_string(out.join("offer-only--server-on-one-core-completed.svg")).expect("a plot");
    assert!(plot.starts_with("<svg") && plot.contains("reflector</text>"), "{plot}");
    std::fs::remove_dir_all(out).expect("it is there");
}

#[test]
fn interface_that_is_not_there_is_said_by_name() {
    let output = Command::new(PERF).args(["load", "-i", "nowhere0"]).output().expect("it starts");
    assert!(!output.status.success());
    assert_eq!(String::from_utf8_lossy(&output.stderr), "error: there is no interface nowhere0\n");
}
