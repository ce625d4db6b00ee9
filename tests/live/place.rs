//! A folder to run the server in, and the server as a process that is asked and heard.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_aplomado");
/// No step of a test takes longer, even on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
pub(crate) const HEADER: &str =
    "address,hwaddr,client_id,valid_lifetime,expire,subnet_id,fqdn_fwd,fqdn_rev,hostname,state,user_context";
/// Long after any run of this test.
pub(crate) const FUTURE_S: u64 = 4_000_000_000;

#[expect(clippy::disallowed_methods, reason = "a test waits for another process, for so long at most")]
pub(crate) fn deadline() -> Instant {
    Instant::now() + PATIENCE
}

#[expect(clippy::disallowed_methods, reason = "a test waits for another process, for so long at most")]
pub(crate) fn left(until: Instant) -> Duration {
    until.saturating_duration_since(Instant::now())
}

/// A folder with a configuration, a lease file and a socket in it.
pub(crate) struct Place {
    folder: TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a folder") }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A configuration without interfaces: everything but packets works without privileges.
    pub(crate) fn base(&self) -> Value {
        json!({
            "interfaces-config": { "interfaces": [] },
            "control-socket": { "socket-type": "unix", "socket-name": self.path("socket") },
            "lease-database": { "type": "memfile", "name": self.path("leases.csv"), "lfc-interval": 0 },
            "multi-threading": { "enable-multi-threading": true, "thread-pool-size": 2 },
            "valid-lifetime": 3600,
            "hooks-libraries": [ { "library": "/usr/lib/kea/hooks/libdhcp_lease_cmds.so" } ],
            "subnet4": [
                { "id": 1, "subnet": "10.0.0.0/16", "pools": [ { "pool": "10.0.0.1 - 10.0.200.0" } ] },
                { "id": 2, "subnet": "10.9.0.0/16", "pools": [ { "pool": "10.9.0.1 - 10.9.0.99" } ] },
            ],
        })
    }

    pub(crate) fn write_config(&self, dhcp4: &Value) -> PathBuf {
        let path = self.path("kea.conf");
        fs::write(&path, json!({ "Dhcp4": dhcp4 }).to_string()).expect("a configuration");
        path
    }

    pub(crate) fn write_leases(&self, rows: &[String]) {
        let text = format!("{HEADER}\n{}\n", rows.join("\n"));
        fs::write(self.path("leases.csv"), text).expect("a lease file");
    }

    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(PROGRAM);
        command.arg("run").arg("-c").arg(self.path("kea.conf"));
        command
    }

    pub(crate) fn start(&self) -> Server {
        Server::start(self.command(), self.path("socket"))
    }

    /// Runs a server that does not get to serving; its exit code and what it said.
    pub(crate) fn fails(&self) -> (i32, String) {
        let mut server = Server::spawn(self.command(), self.path("socket"));
        let code = server.ended();
        (code, server.said.join("\n"))
    }
}

pub(crate) fn row(address: Ipv4Addr, subnet: u32, expire: u64, state: u8) -> String {
    let [_, _, high, low] = address.octets();
    format!("{address},02:00:00:00:{high:02x}:{low:02x},,3600,{expire},{subnet},0,0,,{state},")
}

pub(crate) struct Server {
    child: Child,
    socket: PathBuf,
    lines: Receiver<String>,
    pub(crate) said: Vec<String>,
}

impl Server {
    pub(crate) fn spawn(mut command: Command, socket: PathBuf) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let stderr = child.stderr.take().expect("piped");
        let (tx, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if tx.send(line).is_err() {
                    break;
                }
            }
        });
        Self { child, socket, lines, said: Vec::new() }
    }

    pub(crate) fn start(command: Command, socket: PathBuf) -> Self {
        let mut server = Self::spawn(command, socket);
        server.hears("DHCP4_STARTED");
        server
    }

    /// Waits for a line that contains `text`.
    pub(crate) fn hears(&mut self, text: &str) -> String {
        let until = deadline();
        loop {
            match self.lines.recv_timeout(left(until)) {
                Ok(line) => {
                    self.said.push(line.clone());
                    if line.contains(text) {
                        return line;
                    }
                }
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    panic!("no line with {text:?} among:\n{}", self.said.join("\n"))
                }
            }
        }
    }

    /// Waits for the end of the process; its exit code.
    pub(crate) fn ended(&mut self) -> i32 {
        let until = deadline();
        // The end of its output is the end of the process, give or take what `wait` waits for.
        loop {
            match self.lines.recv_timeout(left(until)) {
                Ok(line) => self.said.push(line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => panic!("still running:\n{}", self.said.join("\n")),
            }
        }
        self.child.wait().expect("a status").code().unwrap_or(-1)
    }

    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args(["-s", name, &pid]).status().expect("kill runs");
        assert!(sent.success());
    }

    /// Sends octets and returns everything that comes back.
    pub(crate) fn raw(&self, bytes: &[u8]) -> Vec<u8> {
        let mut stream = UnixStream::connect(&self.socket).expect("the socket is there");
        stream.set_read_timeout(Some(PATIENCE)).expect("a limit");
        stream.write_all(bytes).expect("the server reads");
        stream.shutdown(Shutdown::Write).expect("half closed");
        let mut answer = Vec::new();
        // A server that breaks off is seen by what is missing.
        let _ = stream.read_to_end(&mut answer);
        answer
    }

    pub(crate) fn try_ask(&self, command: &Value) -> Option<Value> {
        let mut stream = UnixStream::connect(&self.socket).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        stream.write_all(command.to_string().as_bytes()).ok()?;
        stream.shutdown(Shutdown::Write).ok()?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).ok()?;
        serde_json::from_slice(&answer).ok()
    }

    pub(crate) fn ask(&self, name: &str, arguments: Value) -> Value {
        let mut command = json!({ "command": name });
        if !arguments.is_null() {
            command["arguments"] = arguments;
        }
        self.try_ask(&command).unwrap_or_else(|| panic!("no answer to {name}"))
    }

    /// Asks and expects the result; the answer.
    pub(crate) fn expect(&self, result: i64, name: &str, arguments: Value) -> Value {
        let answer = self.ask(name, arguments);
        assert_eq!(answer["result"], result, "{name}: {answer}");
        answer
    }

    pub(crate) fn statistic(&self, name: &str) -> i64 {
        self.seen_statistic(name).unwrap_or_else(|| panic!("there is no {name}"))
    }

    /// A statistic; nothing as long as there has been nothing to count.
    fn seen_statistic(&self, name: &str) -> Option<i64> {
        let answer = self.expect(0, "statistic-get", json!({ "name": name }));
        answer["arguments"][name][0][0].as_i64()
    }

    /// Waits for what shards do between two packets.
    pub(crate) fn await_statistic(&self, name: &str, value: i64) {
        self.await_that(name, |now| now == value);
    }

    /// Waits until a statistic is as it should be.
    pub(crate) fn await_that(&self, name: &str, is_wanted: impl Fn(i64) -> bool) {
        for _ in 0..200 {
            if self.seen_statistic(name).is_some_and(&is_wanted) {
                return;
            }
            std::thread::park_timeout(Duration::from_millis(10));
        }
        let value = self.statistic(name);
        assert!(is_wanted(value), "{name} is {value}");
    }

    pub(crate) fn add(&self, address: &str, subnet: u32) -> Value {
        let address: Ipv4Addr = address.parse().expect("an address");
        let [_, _, high, low] = address.octets();
        let hw_address = format!("02:00:00:{subnet:02x}:{high:02x}:{low:02x}");
        self.ask(
            "lease4-add",
            json!({ "ip-address": address, "hw-address": hw_address, "subnet-id": subnet }),
        )
    }

    pub(crate) fn addresses(&self) -> BTreeSet<String> {
        let answer = self.ask("lease4-get-all", Value::Null);
        let leases = answer["arguments"]["leases"].as_array().cloned().unwrap_or_default();
        leases.iter().map(|lease| lease["ip-address"].as_str().expect("an address").to_owned()).collect()
    }

    pub(crate) fn stop(mut self) {
        self.signal("TERM");
        assert_eq!(self.ended(), 0, "{}", self.said.join("\n"));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail when it has ended already, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn ends_with(code: i32, (got, said): (i32, String), words: &[&str]) {
    assert_eq!(got, code, "{said}");
    for word in words {
        assert!(said.contains(word), "{word:?} is not said:\n{said}");
    }
}
