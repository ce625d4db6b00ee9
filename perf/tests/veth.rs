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
fn interface_that_is_not_there_is_said_by_name() {
    let output = Command::new(PERF).args(["load", "-i", "nowhere0"]).output().expect("it starts");
    assert!(!output.status.success());
    assert_eq!(String::from_utf8_lossy(&output.stderr), "error: there is no interface nowhere0\n");
}
