//! A server, ours or Kea, with the configuration of the table, and its answers without what changes from one run to the next.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::forms::{self, FOLDER, Request};

/// Longest wait for an answer, or for a server to be there.
const PATIENCE: Duration = Duration::from_secs(60);
const HOOKS: &str = "/usr/lib/x86_64-linux-gnu/kea/hooks";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Program {
    Aplomado,
    Kea,
}

pub(crate) struct Player {
    child: Child,
    folder: TempDir,
}

#[expect(clippy::disallowed_methods, reason = "another process is waited for in real time")]
fn now() -> Instant {
    Instant::now()
}

impl Player {
    /// Starts a server without interfaces; nothing where Kea is not installed.
    pub(crate) fn start(program: Program) -> Option<Self> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        let configuration = json!({ "Dhcp4": {
            "interfaces-config": { "interfaces": [] },
            "control-socket": { "socket-type": "unix", "socket-name": path("socket") },
            "lease-database": { "type": "memfile", "persist": false },
            "multi-threading": { "enable-multi-threading": false },
            "valid-lifetime": 3600,
            "hooks-libraries": [ { "library": format!("{HOOKS}/libdhcp_lease_cmds.so") },
                                 { "library": format!("{HOOKS}/libdhcp_stat_cmds.so") } ],
            "subnet4": [
                { "id": 1, "subnet": "10.0.0.0/16", "pools": [ { "pool": "10.0.0.1 - 10.0.200.0" } ] },
                { "id": 2, "subnet": "10.9.0.0/16", "pools": [ { "pool": "10.9.0.1 - 10.9.0.99" } ] },
            ],
        } });
        fs::write(path("conf"), configuration.to_string()).expect("room on the disk");
        let mut command = match program {
            Program::Aplomado => {
                let mut command = Command::new(env!("CARGO_BIN_EXE_aplomado"));
                command.arg("run");
                command
            }
            Program::Kea => Command::new("kea-dhcp4"),
        };
        command.arg("-c").arg(path("conf")).stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(File::create(path("log")).expect("a log"));
        // Names of files without a folder are among the arguments.
        command.current_dir(folder.path());
        command.env("KEA_PIDFILE_DIR", folder.path()).env("KEA_LOCKFILE_DIR", folder.path());
        let child = command.spawn().ok()?;
        let player = Self { child, folder };
        let start = now();
        while player.ask("{\"command\":\"version-get\"}").is_none() {
            assert!(start.elapsed() < PATIENCE, "{program:?} does not answer");
            std::thread::park_timeout(Duration::from_millis(20));
        }
        Some(player)
    }

    fn ask(&self, text: &str) -> Option<Value> {
        let mut stream = UnixStream::connect(self.folder.path().join("socket")).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).expect("a limit");
        stream.write_all(text.as_bytes()).ok()?;
        stream.shutdown(Shutdown::Write).ok()?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).ok()?;
        serde_json::from_slice(&answer).ok()
    }

    /// All leases, ascending.
    fn leases(&self) -> Value {
        let mut answer = self.ask("{\"command\":\"lease4-get-all\"}").unwrap_or_default();
        let mut leases = answer["arguments"]["leases"].take();
        if let Some(leases) = leases.as_array_mut() {
            leases.sort_by_key(|lease| lease["ip-address"].to_string());
        }
        leases
    }

    /// Asks, and the answer as the table has it. With `leases`, those that are there then, when they are others than
    /// before.
    pub(crate) fn play(&self, request: &Request) -> Value {
        let mut there = Value::Null;
        if request.afresh {
            self.ask("{\"command\":\"lease4-wipe\"}");
            for lease in forms::leases() {
                let add = json!({ "command": "lease4-add", "arguments": lease }).to_string();
                let answer =
                    self.ask(&add).unwrap_or_else(|| panic!("no answer to {add}, before {}", request.text));
                assert_eq!(answer["result"], 0, "{add}: {answer}");
            }
            there = self.leases();
        }
        let folder = self.folder.path().to_str().expect("UTF-8");
        let text = request.text.replace(FOLDER, folder);
        let Some(mut answer) = self.ask(&text) else { return Value::Null };
        if request.afresh {
            let left = self.leases();
            if left != there {
                answer["leases"] = left;
            }
        }
        let own =
            ["list-commands", "version-get", "build-report", "config-get", "status-get", "statistic-get-all"];
        if own.iter().any(|name| text.contains(name)) && answer["result"] == 0 {
            answer = json!({ "result": 0 });
        }
        without_times(&mut answer, folder);
        answer
    }
}

impl Drop for Player {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Takes out what is of the day, the process or its folder.
fn without_times(value: &mut Value, folder: &str) {
    match value {
        Value::Object(map) => {
            map.remove("size");
            map.remove("timestamp");
            // Of a configuration that names the folder.
            if let Some(hash) = map.get_mut("hash") {
                *hash = json!("");
            }
            if map.get("cltt").and_then(Value::as_u64).is_some_and(|cltt| cltt != 1_999_999_400) {
                map.insert("cltt".to_owned(), json!("now"));
            }
            map.values_mut().for_each(|member| without_times(member, folder));
        }
        Value::Array(list) => {
            // Of samples the newest one: we take them when somebody looks, Kea whenever a value moves.
            if list.iter().all(|element| element[1].as_str().is_some_and(is_time)) {
                list.truncate(1);
            }
            list.sort_by_key(|element| element.get("ip-address").map(Value::to_string));
            list.iter_mut().for_each(|element| without_times(element, folder));
        }
        Value::String(text) => {
            *text = text.replace(folder, FOLDER);
            if is_time(text) {
                *text = "now".to_owned();
            }
        }
        _ => {}
    }
}

/// Whether it is a time as samples of statistics have it.
fn is_time(text: &str) -> bool {
    text.len() == 26 && text.as_bytes()[19] == b'.' && text.starts_with("20")
}
