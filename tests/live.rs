//! The server as its operator meets it: the real program, started from files, asked over its socket, ended by signals.
//!
//! Nothing here needs privileges but what says so when it is skipped. Every wait is bounded.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_aplomado");
/// No step of a test takes longer, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
const HEADER: &str =
    "address,hwaddr,client_id,valid_lifetime,expire,subnet_id,fqdn_fwd,fqdn_rev,hostname,state,user_context";
/// Long after any run of this test.
const FUTURE_S: u64 = 4_000_000_000;

#[expect(clippy::disallowed_methods, reason = "a test waits for another process, for so long at most")]
fn deadline() -> Instant {
    Instant::now() + PATIENCE
}

#[expect(clippy::disallowed_methods, reason = "a test waits for another process, for so long at most")]
fn left(until: Instant) -> Duration {
    until.saturating_duration_since(Instant::now())
}

/// A folder with a configuration, a lease file and a socket in it.
struct Place {
    folder: TempDir,
}

impl Place {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a folder") }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A configuration without interfaces: everything but packets works without privileges.
    fn base(&self) -> Value {
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

    fn write_config(&self, dhcp4: &Value) -> PathBuf {
        let path = self.path("kea.conf");
        fs::write(&path, json!({ "Dhcp4": dhcp4 }).to_string()).expect("a configuration");
        path
    }

    fn write_leases(&self, rows: &[String]) {
        let text = format!("{HEADER}\n{}\n", rows.join("\n"));
        fs::write(self.path("leases.csv"), text).expect("a lease file");
    }

    fn command(&self) -> Command {
        let mut command = Command::new(PROGRAM);
        command.arg("run").arg("-c").arg(self.path("kea.conf"));
        command
    }

    fn start(&self) -> Server {
        Server::start(self.command(), self.path("socket"))
    }

    /// Runs a server that does not get to serving; its exit code and what it said.
    fn fails(&self) -> (i32, String) {
        let mut server = Server::spawn(self.command(), self.path("socket"));
        let code = server.ended();
        (code, server.said.join("\n"))
    }
}

fn row(address: Ipv4Addr, subnet: u32, expire: u64, state: u8) -> String {
    let [_, _, high, low] = address.octets();
    format!("{address},02:00:00:00:{high:02x}:{low:02x},,3600,{expire},{subnet},0,0,,{state},")
}

struct Server {
    child: Child,
    socket: PathBuf,
    lines: Receiver<String>,
    said: Vec<String>,
}

impl Server {
    fn spawn(mut command: Command, socket: PathBuf) -> Self {
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

    fn start(command: Command, socket: PathBuf) -> Self {
        let mut server = Self::spawn(command, socket);
        server.hears("DHCP4_STARTED");
        server
    }

    /// Waits for a line that contains `text`.
    fn hears(&mut self, text: &str) -> String {
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
    fn ended(&mut self) -> i32 {
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

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args(["-s", name, &pid]).status().expect("kill runs");
        assert!(sent.success());
    }

    /// Sends octets and returns everything that comes back.
    fn raw(&self, bytes: &[u8]) -> Vec<u8> {
        let mut stream = UnixStream::connect(&self.socket).expect("the socket is there");
        stream.set_read_timeout(Some(PATIENCE)).expect("a limit");
        stream.write_all(bytes).expect("the server reads");
        stream.shutdown(Shutdown::Write).expect("half closed");
        let mut answer = Vec::new();
        // A server that breaks off is seen by what is missing.
        let _ = stream.read_to_end(&mut answer);
        answer
    }

    fn try_ask(&self, command: &Value) -> Option<Value> {
        let mut stream = UnixStream::connect(&self.socket).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        stream.write_all(command.to_string().as_bytes()).ok()?;
        stream.shutdown(Shutdown::Write).ok()?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).ok()?;
        serde_json::from_slice(&answer).ok()
    }

    fn ask(&self, name: &str, arguments: Value) -> Value {
        let mut command = json!({ "command": name });
        if !arguments.is_null() {
            command["arguments"] = arguments;
        }
        self.try_ask(&command).unwrap_or_else(|| panic!("no answer to {name}"))
    }

    /// Asks and expects the result; the answer.
    fn expect(&self, result: i64, name: &str, arguments: Value) -> Value {
        let answer = self.ask(name, arguments);
        assert_eq!(answer["result"], result, "{name}: {answer}");
        answer
    }

    fn statistic(&self, name: &str) -> i64 {
        let answer = self.expect(0, "statistic-get", json!({ "name": name }));
        answer["arguments"][name][0][0].as_i64().unwrap_or_else(|| panic!("{name}: {answer}"))
    }

    /// Waits for what shards do between two packets.
    fn await_statistic(&self, name: &str, value: i64) {
        for _ in 0..200 {
            if self.statistic(name) == value {
                return;
            }
            std::thread::park_timeout(Duration::from_millis(10));
        }
        assert_eq!(self.statistic(name), value, "{name}");
    }

    fn add(&self, address: &str, subnet: u32) -> Value {
        let address: Ipv4Addr = address.parse().expect("an address");
        let [_, _, high, low] = address.octets();
        let hw_address = format!("02:00:00:{subnet:02x}:{high:02x}:{low:02x}");
        self.ask(
            "lease4-add",
            json!({ "ip-address": address, "hw-address": hw_address, "subnet-id": subnet }),
        )
    }

    fn addresses(&self) -> BTreeSet<String> {
        let answer = self.ask("lease4-get-all", Value::Null);
        let leases = answer["arguments"]["leases"].as_array().cloned().unwrap_or_default();
        leases.iter().map(|lease| lease["ip-address"].as_str().expect("an address").to_owned()).collect()
    }

    fn stop(mut self) {
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

fn ends_with(code: i32, (got, said): (i32, String), words: &[&str]) {
    assert_eq!(got, code, "{said}");
    for word in words {
        assert!(said.contains(word), "{word:?} is not said:\n{said}");
    }
}

// ---- how it ends

#[test]
fn a_wrong_configuration_ends_with_1_and_its_place() {
    let place = Place::new();
    let mut dhcp4 = place.base();
    dhcp4["valid-lifetme"] = json!(1);
    place.write_config(&dhcp4);
    ends_with(1, place.fails(), &["kea.conf:1:", "valid-lifetme", "valid-lifetime"]);
}

/// What is wrong with a pair is said before it starts, with its place: by `check` and by `run` alike.
#[test]
fn a_wrong_pair_is_found_by_check_and_ends_with_1() {
    let peer = |name: &str, host: &str, role: &str| json!({ "name": name, "url": format!("http://{host}/"), "role": role });
    let pair = |this: &str, peers: [Value; 2]| json!({ "this-server-name": this, "mode": "hot-standby", "peers": peers });
    let one = pair("a", [peer("a", "127.0.0.1:18105", "primary"), peer("b", "127.0.0.1:18106", "standby")]);
    let host_name =
        pair("a", [peer("a", "localhost:18105", "primary"), peer("b", "127.0.0.1:18106", "standby")]);
    let same_address =
        pair("c", [peer("c", "127.0.0.1:18105", "primary"), peer("d", "127.0.0.1:18107", "standby")]);
    let mut no_certificate = one.clone();
    for key in ["trust-anchor", "cert-file", "key-file"] {
        no_certificate[key] = json!("/does/not/exist.pem");
    }
    let other = pair("c", [peer("c", "127.0.0.1:18108", "primary"), peer("d", "127.0.0.1:18107", "standby")]);
    for (list, code, words) in [
        (json!([host_name]), 1, "localhost"),
        (json!([one.clone(), same_address]), 1, "two have 127.0.0.1:18105"),
        (json!([no_certificate]), 1, "/does/not/exist.pem"),
        (json!([one, other]), 0, "clients of subnet 10.9.0.0/16 (id 2) are not served"),
    ] {
        let place = Place::new();
        let mut dhcp4 = place.base();
        dhcp4["hooks-libraries"].as_array_mut().expect("a list").push(
            json!({ "library": "/usr/lib/kea/hooks/libdhcp_ha.so", "parameters": { "high-availability": list } }),
        );
        let path = place.write_config(&dhcp4);
        let output = Command::new(PROGRAM).arg("check").arg(&path).output().expect("the program runs");
        let said = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert!(said.contains("kea.conf:1:") && said.contains(words), "expected {words}: {said}");
        if code != 0 {
            ends_with(1, place.fails(), &["kea.conf:1:", words]);
        }
    }
}

#[test]
fn a_wrong_command_line_ends_with_2() {
    let status = Command::new(PROGRAM).args(["run", "--no-such-flag"]).stderr(Stdio::null()).status();
    assert_eq!(status.expect("the program runs").code(), Some(2));
}

#[test]
fn a_configuration_that_is_not_there_ends_with_3_and_the_systems_words() {
    ends_with(3, Place::new().fails(), &["kea.conf", "No such file"]);
}

#[test]
fn a_lease_file_that_is_none_ends_with_3_and_is_left_alone() {
    let place = Place::new();
    place.write_config(&place.base());
    fs::write(place.path("leases.csv"), "a diary, dear\nnot leases\n").expect("written");
    ends_with(3, place.fails(), &["leases.csv:1", "it was left as it is"]);
    assert_eq!(fs::read(place.path("leases.csv")).expect("there"), b"a diary, dear\nnot leases\n");
}

#[test]
fn a_lease_file_that_cannot_be_opened_ends_with_3_and_the_reason() {
    let place = Place::new();
    place.write_config(&place.base());
    fs::create_dir(place.path("leases.csv")).expect("a folder in its place");
    ends_with(3, place.fails(), &["leases.csv", "cannot open", "not a regular file"]);
}

#[test]
fn a_second_server_on_the_same_lease_file_ends_with_3() {
    let place = Place::new();
    place.write_config(&place.base());
    let first = place.start();
    let mut other = place.base();
    other["control-socket"]["socket-name"] = json!(place.path("other-socket"));
    fs::write(place.path("other.conf"), json!({ "Dhcp4": other }).to_string()).expect("written");
    let mut command = Command::new(PROGRAM);
    command.arg("run").arg("-c").arg(place.path("other.conf"));
    let mut second = Server::spawn(command, place.path("other-socket"));
    let code = second.ended();
    ends_with(3, (code, second.said.join("\n")), &["another process is using it"]);
    first.expect(0, "status-get", Value::Null);
    first.stop();
}

#[test]
fn a_signal_ends_with_0_and_a_command_with_what_it_says() {
    let place = Place::new();
    place.write_config(&place.base());
    place.start().stop();
    let mut server = place.start();
    server.expect(0, "shutdown", json!({ "exit-value": 7 }));
    assert_eq!(server.ended(), 7);
    assert!(!place.path("socket").exists(), "the socket is gone with the server");
}

/// Adds leases until the server refuses or is gone; those acknowledged.
fn add_until_it_fails(server: &Server) -> Vec<Ipv4Addr> {
    let mut acknowledged = Vec::new();
    for number in 0..20_000_u32 {
        let address = Ipv4Addr::from_bits(0x0a00_0101 + number);
        let [_, _, high, low] = address.octets();
        let command = json!({ "command": "lease4-add", "arguments": {
            "ip-address": address, "hw-address": format!("02:00:00:01:{high:02x}:{low:02x}"), "subnet-id": 1 } });
        match server.try_ask(&command) {
            Some(answer) if answer["result"] == 0 => acknowledged.push(address),
            _ => return acknowledged,
        }
    }
    panic!("the disk never failed");
}

fn every_acknowledged_lease_is_in(file: &Path, acknowledged: &[Ipv4Addr]) {
    let text = fs::read_to_string(file).expect("the lease file");
    let kept: BTreeSet<&str> = text.lines().filter_map(|line| line.split(',').next()).collect();
    for address in acknowledged {
        assert!(kept.contains(address.to_string().as_str()), "{address} was acknowledged and is not kept");
    }
}

#[test]
fn a_disk_that_refuses_ends_with_4_and_nothing_more_is_acknowledged() {
    let place = Place::new();
    place.write_config(&place.base());
    // A file may not grow beyond 16 blocks; the signal that would end the process is ignored, the error remains.
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' XFSZ; ulimit -f 16; exec \"$0\" run -c \"$1\""]);
    command.arg(PROGRAM).arg(place.path("kea.conf"));
    let mut server = Server::start(command, place.path("socket"));
    let acknowledged = add_until_it_fails(&server);
    assert!(!acknowledged.is_empty());
    let code = server.ended();
    let said = server.said.join("\n");
    ends_with(4, (code, said), &["leases.csv", "os error 27", "no further lease is acknowledged"]);
    every_acknowledged_lease_is_in(&place.path("leases.csv"), &acknowledged);
}

#[test]
fn a_full_disk_ends_with_4_and_says_so() {
    let place = Place::new();
    let small = place.path("small");
    fs::create_dir(&small).expect("a folder");
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=16k", "tmpfs"])
        .arg(&small)
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !mounted {
        eprintln!("SKIPPED: a_full_disk_ends_with_4_and_says_so: cannot mount a small file system here");
        return;
    }
    struct Mounted(PathBuf);
    impl Drop for Mounted {
        fn drop(&mut self) {
            let _ = Command::new("umount").arg("-l").arg(&self.0).status();
        }
    }
    let mounted = Mounted(small.clone());
    let mut dhcp4 = place.base();
    dhcp4["lease-database"]["name"] = json!(small.join("leases.csv"));
    place.write_config(&dhcp4);
    let mut server = place.start();
    let acknowledged = add_until_it_fails(&server);
    let code = server.ended();
    ends_with(4, (code, server.said.join("\n")), &["the disk is full"]);
    every_acknowledged_lease_is_in(&small.join("leases.csv"), &acknowledged);
    drop(mounted);
}

// ---- the lease file at start

#[test]
fn a_missing_lease_file_is_created_with_its_header() {
    let place = Place::new();
    place.write_config(&place.base());
    let server = place.start();
    assert!(server.said.iter().any(|line| line.contains("leases.csv: created")), "{:?}", server.said);
    server.stop();
    let text = fs::read_to_string(place.path("leases.csv")).expect("created");
    assert!(text.starts_with("address,hwaddr,"), "{text}");
}

#[test]
fn bad_rows_and_a_torn_end_cost_only_themselves() {
    let place = Place::new();
    place.write_config(&place.base());
    let good = |low| row(Ipv4Addr::new(10, 0, 0, low), 1, FUTURE_S, 0);
    let text = format!("{HEADER}\n{}\n10.0.0.2,nonsense\n{}\n10.0.0.4,02:00:00", good(1), good(3));
    fs::write(place.path("leases.csv"), text).expect("written");
    let server = place.start();
    let said = server.said.join("\n");
    assert!(said.contains("leases.csv:3:") && said.contains("cut off a last row"), "{said}");
    let expected: BTreeSet<String> = ["10.0.0.1", "10.0.0.3"].map(str::to_owned).into();
    assert_eq!(server.addresses(), expected);
    server.stop();
    let rejected = fs::read_to_string(place.path("leases.csv.rejected")).expect("kept");
    assert!(rejected.contains("10.0.0.2,nonsense"), "{rejected}");
}

#[test]
fn more_bad_rows_than_max_row_errors_end_with_3() {
    let place = Place::new();
    let mut dhcp4 = place.base();
    dhcp4["lease-database"]["max-row-errors"] = json!(1);
    place.write_config(&dhcp4);
    place.write_leases(&["10.0.0.2,nonsense".to_owned(), "10.0.0.3,nonsense".to_owned()]);
    ends_with(3, place.fails(), &["leases.csv:3", "max-row-errors"]);
}

#[test]
fn lease_checks_decide_what_becomes_of_leases_in_the_wrong_subnet() {
    let rows = [
        row(Ipv4Addr::new(10, 0, 0, 1), 1, FUTURE_S, 0),
        row(Ipv4Addr::new(10, 9, 0, 1), 1, FUTURE_S, 0),
        row(Ipv4Addr::new(172, 16, 0, 1), 1, FUTURE_S, 0),
    ];
    let cases = [
        ("none", [Some(1), Some(1), Some(1)], false),
        ("warn", [Some(1), Some(1), Some(1)], true),
        ("fix", [Some(1), Some(2), Some(1)], true),
        ("fix-del", [Some(1), Some(2), None], true),
        ("del", [Some(1), None, None], true),
    ];
    for (mode, subnets, is_told) in cases {
        let place = Place::new();
        let mut dhcp4 = place.base();
        dhcp4["sanity-checks"] = json!({ "lease-checks": mode });
        place.write_config(&dhcp4);
        place.write_leases(&rows);
        let server = place.start();
        assert_eq!(
            server.said.iter().any(|line| line.contains("DHCPSRV_LEASE_SANITY_FAIL")),
            is_told,
            "{mode}"
        );
        for (address, subnet) in ["10.0.0.1", "10.9.0.1", "172.16.0.1"].into_iter().zip(subnets) {
            let answer = server.ask("lease4-get", json!({ "ip-address": address }));
            let found = answer["arguments"]["subnet-id"].as_u64();
            assert_eq!(found, subnet, "{mode} {address}: {answer}");
        }
        let assigned: i64 = subnets.iter().flatten().map(|_| 1).sum();
        assert_eq!(server.statistic("assigned-addresses"), assigned, "{mode}");
        server.stop();
    }
}

// ---- configuration

#[test]
fn a_bad_configuration_leaves_the_old_one_in_force() {
    let place = Place::new();
    place.write_config(&place.base());
    let mut server = place.start();
    let before = server.ask("config-get", Value::Null);

    let mut bad = place.base();
    bad["subnet4"][1]["subnet"] = json!("10.0.0.0/99");
    server.expect(1, "config-set", json!({ "Dhcp4": bad }));
    server.expect(1, "config-test", json!({ "Dhcp4": bad }));
    fs::write(place.path("kea.conf"), "{ \"Dhcp4\": { \"nonsense\": 1 } }").expect("written");
    let refused = server.expect(1, "config-reload", Value::Null);
    let text = refused["text"].as_str().expect("a text");
    let start = "Config reload failed: configuration error using file '";
    assert!(text.starts_with(start) && text.contains("nonsense"), "{text}");
    server.signal("HUP");
    server.hears("the old configuration stays");
    fs::write(place.path("kea.conf"), "{ }").expect("written");
    server.expect(1, "config-reload", Value::Null);

    assert_eq!(server.ask("config-get", Value::Null), before);
    server.expect(0, "subnet4-get", json!({ "id": 2 }));
    server.stop();
}

#[test]
fn counters_of_a_subnet_are_right_when_it_comes_back() {
    let place = Place::new();
    let whole = place.base();
    let mut part = whole.clone();
    part["subnet4"] = json!([whole["subnet4"][0]]);
    place.write_config(&whole);
    let server = place.start();
    for host in 1..=5 {
        assert_eq!(server.add(&format!("10.9.0.{host}"), 2)["result"], 0);
    }
    let assigned = |server: &Server| server.statistic("subnet[2].assigned-addresses");
    assert_eq!(assigned(&server), 5);
    server.expect(0, "config-set", json!({ "Dhcp4": part }));
    server.expect(0, "lease4-del", json!({ "ip-address": "10.9.0.1" }));
    server.expect(0, "config-set", json!({ "Dhcp4": whole }));
    assert_eq!(assigned(&server), 4);
    server.stop();
    // Started without the subnet, the leases of the file are counted all the same.
    place.write_config(&part);
    let server = place.start();
    server.expect(0, "lease4-del", json!({ "ip-address": "10.9.0.2" }));
    server.expect(0, "config-set", json!({ "Dhcp4": whole }));
    assert_eq!((assigned(&server), server.statistic("assigned-addresses")), (3, 3));
    server.stop();
}

#[test]
fn counters_of_a_pool_are_right_when_pools_move() {
    let place = Place::new();
    let pools = |list: &[(u32, &str)]| {
        let mut tree = place.base();
        let list = list.iter().map(|(id, pool)| json!({ "pool-id": id, "pool": pool }));
        tree["subnet4"][1]["pools"] = list.collect::<Vec<Value>>().into();
        tree
    };
    let halves = pools(&[(1, "10.9.0.1-10.9.0.127"), (2, "10.9.0.128-10.9.0.250")]);
    place.write_config(&halves);
    let server = place.start();
    for host in (100..160).filter(|host| host % 2 == 0) {
        assert_eq!(server.add(&format!("10.9.0.{host}"), 2)["result"], 0);
    }
    let assigned = |pool: u32| server.statistic(&format!("subnet[2].pool[{pool}].assigned-addresses"));
    assert_eq!((assigned(1), assigned(2)), (14, 16));
    // The border moves, and leases change while the shards still count.
    server.expect(
        0,
        "config-set",
        json!({ "Dhcp4": pools(&[(1, "10.9.0.1-10.9.0.109"), (2, "10.9.0.110-10.9.0.250")]) }),
    );
    for host in [100, 112, 158] {
        server.expect(0, "lease4-del", json!({ "ip-address": format!("10.9.0.{host}") }));
    }
    server.await_statistic("subnet[2].pool[1].assigned-addresses", 4);
    server.await_statistic("subnet[2].pool[2].assigned-addresses", 23);
    // One pool in the place of two, then both again.
    server.expect(0, "config-set", json!({ "Dhcp4": pools(&[(1, "10.9.0.1-10.9.0.250")]) }));
    server.expect(0, "config-set", json!({ "Dhcp4": halves }));
    server.await_statistic("subnet[2].pool[1].assigned-addresses", 12);
    server.await_statistic("subnet[2].pool[2].assigned-addresses", 15);
    assert_eq!(server.statistic("subnet[2].assigned-addresses"), 27);
    server.stop();
}

#[test]
fn relay_information_of_older_releases_is_kept_in_todays_form_unless_told_not_to() {
    for (checks, map) in [("fix", true), ("none", false)] {
        let place = Place::new();
        let mut dhcp4 = place.base();
        dhcp4["sanity-checks"] = json!({ "lease-checks": "warn", "extended-info-checks": checks });
        place.write_config(&dhcp4);
        let context = r#"{ "ISC": { "relay-agent-info": "0x0102616A" } }"#.replace(',', "&#x2c");
        place.write_leases(&[row(Ipv4Addr::new(10, 0, 0, 7), 1, FUTURE_S, 0) + &context]);
        let server = place.start();
        let answer = server.expect(0, "lease4-get", json!({ "ip-address": "10.0.0.7" }));
        let info = &answer["arguments"]["user-context"]["ISC"]["relay-agent-info"];
        assert_eq!(info["sub-options"] == "0x0102616A", map, "{answer}");
        assert_eq!(*info == "0x0102616A", !map, "{answer}");
        server.stop();
    }
}

#[test]
fn listeners_that_cannot_be_had_leave_all_others_as_they_were() {
    let place = Place::new();
    place.write_config(&place.base());
    let server = place.start();
    let mut other = place.base();
    other.as_object_mut().expect("a map").remove("control-socket");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("an address").port();
    other["control-sockets"] = json!([
        { "socket-type": "unix", "socket-name": place.path("second") },
        { "socket-type": "http", "socket-address": "127.0.0.1", "socket-port": port },
    ]);
    let answer = server.expect(1, "config-set", json!({ "Dhcp4": other }));
    assert!(
        answer["text"].as_str().is_some_and(|text| text.contains(&format!("127.0.0.1:{port}"))),
        "{answer}"
    );
    assert!(!place.path("second").exists());
    server.expect(0, "status-get", Value::Null);

    other["control-sockets"] = json!([{ "socket-type": "unix", "socket-name": place.path("second") }]);
    server.expect(0, "config-set", json!({ "Dhcp4": other }));
    let moved = UnixStream::connect(place.path("second"));
    assert!(moved.is_ok() && !place.path("socket").exists());
    server.stop();
}

#[test]
fn the_lease_database_cannot_be_changed_while_running() {
    let place = Place::new();
    place.write_config(&place.base());
    let server = place.start();
    let mut other = place.base();
    other["lease-database"]["name"] = json!(place.path("other.csv"));
    let answer = server.expect(1, "config-set", json!({ "Dhcp4": other }));
    assert!(answer["text"].as_str().is_some_and(|text| text.contains("restart")), "{answer}");
    server.stop();
}

#[test]
fn what_config_get_shows_can_be_set_and_what_config_write_writes_can_be_read() {
    let place = Place::new();
    let mut dhcp4 = place.base();
    dhcp4["client-classes"] = json!([{ "name": "voip", "test": "option[60].text == 'phone'" }]);
    dhcp4["option-data"] = json!([{ "name": "domain-name-servers", "data": "10.0.0.53, 10.0.0.54" }]);
    dhcp4["subnet4"][0]["reservations"] =
        json!([{ "hw-address": "02:00:00:00:00:99", "ip-address": "10.0.0.9" }]);
    place.write_config(&dhcp4);
    let server = place.start();
    let shown = server.expect(0, "config-get", Value::Null)["arguments"].clone();
    let mut sent = shown.clone();
    sent.as_object_mut().expect("a map").remove("hash");
    server.expect(0, "config-set", sent);
    let again = server.expect(0, "config-get", Value::Null)["arguments"].clone();
    assert_eq!(again["Dhcp4"], shown["Dhcp4"]);

    let file = place.path("written.conf");
    server.expect(0, "config-write", json!({ "filename": file }));
    let checked = Command::new(PROGRAM).arg("check").arg(&file).output().expect("check runs");
    assert_eq!(checked.status.code(), Some(0), "{}", String::from_utf8_lossy(&checked.stdout));
    server.expect(0, "config-write", Value::Null);
    server.expect(0, "config-reload", Value::Null);
    let after = server.expect(0, "config-get", Value::Null)["arguments"].clone();
    assert_eq!(after["Dhcp4"], shown["Dhcp4"]);
    server.stop();
}

#[test]
fn loggers_are_honoured_at_start_and_after_a_reload() {
    let place = Place::new();
    let mut dhcp4 = place.base();
    dhcp4["loggers"] = json!([{ "name": "kea-dhcp4", "severity": "INFO", "output_options": [
        { "output": "stderr" }, { "output": place.path("first.log") } ] }]);
    place.write_config(&dhcp4);
    let mut server = place.start();
    dhcp4["loggers"][0]["output_options"][1]["output"] = json!(place.path("second.log"));
    place.write_config(&dhcp4);
    server.signal("HUP");
    server.hears("DHCP4_CONFIG_COMPLETE");
    server.stop();
    let first = fs::read_to_string(place.path("first.log")).expect("written");
    let second = fs::read_to_string(place.path("second.log")).expect("written");
    assert!(first.contains("DHCP4_STARTED") && !first.contains("DHCP4_CONFIG_COMPLETE"), "{first}");
    assert!(second.contains("DHCP4_CONFIG_COMPLETE") && second.contains("DHCP4_SHUTDOWN"), "{second}");
}

// ---- with interfaces

/// Two network namespaces with a cable between them; gone when dropped.
struct Cable {
    server: String,
    client: String,
}

impl Cable {
    /// Nothing, said aloud, where there is no way to have one.
    fn new(test: &str, name: char) -> Option<Self> {
        let pid = std::process::id();
        let cable = Self { server: format!("hd-{pid}{name}-s"), client: format!("hd-{pid}{name}-c") };
        let (near, far) = (format!("s{pid}{name}"), format!("c{pid}{name}"));
        let steps = [
            format!("netns add {}", cable.server),
            format!("netns add {}", cable.client),
            format!(
                "link add {near} netns {} type veth peer name {far} netns {}",
                cable.server, cable.client
            ),
            format!("-n {} link set {near} name veth-s", cable.server),
            format!("-n {} link set {far} name veth-c", cable.client),
            format!("-n {} address add 10.0.255.1/16 dev veth-s", cable.server),
            format!("-n {} address add 10.0.255.2/16 dev veth-c", cable.client),
            format!("-n {} link set veth-s up", cable.server),
            format!("-n {} link set veth-c up", cable.client),
        ];
        for step in &steps {
            let done = Command::new("ip").args(step.split(' ')).stderr(Stdio::piped()).output();
            if !done.is_ok_and(|done| done.status.success()) {
                eprintln!("SKIPPED: {test}: no network namespaces here (`ip {step}` fails)");
                return None;
            }
        }
        Some(cable)
    }

    fn inside(namespace: &str, command: &Command) -> Command {
        let mut inside = Command::new("ip");
        inside.args(["netns", "exec", namespace]).arg(command.get_program()).args(command.get_args());
        inside
    }

    fn start(&self, place: &Place) -> Server {
        Server::start(Self::inside(&self.server, &place.command()), place.path("socket"))
    }

    /// What `perfdhcp` says in the end; nothing, said aloud, where it is not installed.
    fn perfdhcp(&self, test: &str, arguments: &str) -> Option<std::process::Child> {
        let mut command = Command::new("perfdhcp");
        command.arg("-4").args(["-l", "veth-c"]).args(arguments.split(' '));
        if Command::new("perfdhcp").arg("-v").output().is_err() {
            eprintln!("SKIPPED: {test}: perfdhcp is not installed");
            return None;
        }
        let mut command = Self::inside(&self.client, &command);
        Some(command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("ip runs"))
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        for namespace in [&self.server, &self.client] {
            let _ = Command::new("ip").args(["netns", "delete", namespace]).stderr(Stdio::null()).status();
        }
    }
}

/// The numbers behind `name:` in what perfdhcp says, one for each exchange.
fn numbers(text: &str, name: &str) -> Vec<u64> {
    let lines = text.lines().filter_map(|line| line.trim().strip_prefix(name));
    lines.filter_map(|rest| rest.trim_start_matches(':').split_whitespace().next()?.parse().ok()).collect()
}

#[test]
fn another_server_on_the_port_ends_with_3_and_is_suspected() {
    let Some(cable) = Cable::new("another_server_on_the_port_ends_with_3_and_is_suspected", 'a') else {
        return;
    };
    let place = Place::new();
    let mut dhcp4 = place.base();
    dhcp4["interfaces-config"]["interfaces"] = json!(["veth-s"]);
    place.write_config(&dhcp4);
    let first = cable.start(&place);
    let other = Place::new();
    let mut dhcp4 = other.base();
    dhcp4["interfaces-config"]["interfaces"] = json!(["veth-s"]);
    other.write_config(&dhcp4);
    let mut second = Server::spawn(Cable::inside(&cable.server, &other.command()), other.path("socket"));
    let code = second.ended();
    let words = ["veth-s", "os error 98", "is another DHCP server running?"];
    ends_with(3, (code, second.said.join("\n")), &words);
    first.stop();
}

#[test]
fn a_configuration_set_under_traffic_costs_no_client_anything() {
    const TEST: &str = "a_configuration_set_under_traffic_costs_no_client_anything";
    let Some(cable) = Cable::new(TEST, 'b') else { return };
    let place = Place::new();
    let mut dhcp4 = place.base();
    dhcp4["interfaces-config"]["interfaces"] = json!(["veth-s"]);
    place.write_config(&dhcp4);
    let server = cable.start(&place);
    // Addresses in the way of the allocator stay reserved throughout, others come and go far away. What a client has been
    // offered stays in the pool: to refuse it would be right, and is not the question here.
    let mut set = |round: usize| {
        dhcp4["subnet4"][0]["pools"] =
            json!([{ "pool": format!("10.0.0.1 - 10.0.{}.250", 100 + round % 7) }]);
        let far = 5 + round % 2;
        let reserved = (0..50).map(|host| (0, 100 + host)).chain((0..50).map(|host| (far, 1 + host)));
        dhcp4["subnet4"][0]["reservations"] = reserved
            .map(|(third, host)| {
                json!({ "hw-address": format!("02:99:00:00:{third:02x}:{host:02x}"),
                "ip-address": format!("10.0.{third}.{host}") })
            })
            .collect();
        server.expect(0, "config-set", json!({ "Dhcp4": dhcp4 }));
    };
    set(0);
    let Some(traffic) = cable.perfdhcp(TEST, "-r 150 -p 4 -R 100000 -W 2000000") else { return };
    for round in 1..60 {
        set(round);
    }
    let output = traffic.wait_with_output().expect("perfdhcp ends");
    let text = String::from_utf8_lossy(&output.stdout);
    let (sent, drops) = (numbers(&text, "sent packets"), numbers(&text, "drops"));
    assert!(sent.len() == 2 && sent[0] > 200, "{text}");
    let refused = server.statistic("pkt4-nak-sent");
    assert_eq!((drops, refused, server.statistic("pkt4-receive-drop")), (vec![0, 0], 0, 0), "{text}");
    // What the interface has heard is told within a second: perfdhcp's packets and nothing else.
    let heard = server.statistic("pkt4-received");
    assert!(heard.cast_unsigned() >= sent[0] + sent[1], "{heard} of {sent:?}");
    server.await_statistic("interface[veth-s].port-received", heard);
    assert_eq!(server.statistic("port-received"), heard);
    let addresses = server.addresses();
    assert_eq!(addresses.len() as u64, sent[1], "one lease for each client");
    assert!((100..150).all(|host| !addresses.contains(&format!("10.0.0.{host}"))), "reserved: {addresses:?}");
    server.stop();
}

#[test]
fn packets_that_find_no_address_are_told_of_without_flooding_the_log() {
    const TEST: &str = "packets_that_find_no_address_are_told_of_without_flooding_the_log";
    let Some(cable) = Cable::new(TEST, 'n') else { return };
    let place = Place::new();
    let mut dhcp4 = place.base();
    dhcp4["interfaces-config"]["interfaces"] = json!(["veth-s"]);
    dhcp4["subnet4"] =
        json!([{ "id": 1, "subnet": "10.0.0.0/16", "pools": [ { "pool": "10.0.0.1-10.0.0.1" } ] }]);
    place.write_config(&dhcp4);
    let mut server = cable.start(&place);
    let Some(mut traffic) = cable.perfdhcp(TEST, "-r 300 -p 3 -R 100000 -W 1") else { return };
    let line = server.hears("ALLOC_ENGINE_V4_ALLOC_FAIL");
    assert!(
        line.contains("WARN") && line.contains("hwtype=1 ") && line.contains("There is no address"),
        "{line}"
    );
    assert!(traffic.wait().is_ok());
    assert!(server.statistic("v4-allocation-fail") > 100);
    server.signal("TERM");
    assert_eq!(server.ended(), 0);
    // Three to four seconds of traffic, two shards, each reason once a second and shard.
    let lines = server.said.iter().filter(|line| line.contains("ALLOC_ENGINE_V4_ALLOC_FAIL")).count();
    assert!((1..=10).contains(&lines), "{}", server.said.join("\n"));
}

#[test]
fn interfaces_are_opened_and_closed_as_the_configuration_says() {
    const TEST: &str = "interfaces_are_opened_and_closed_as_the_configuration_says";
    let Some(cable) = Cable::new(TEST, 'd') else { return };
    let place = Place::new();
    let mut dhcp4 = place.base();
    dhcp4["interfaces-config"]["interfaces"] = json!([]);
    place.write_config(&dhcp4);
    let server = cable.start(&place);
    let served = |interfaces: &[&str], kind: &str| {
        let mut changed = dhcp4.clone();
        changed["interfaces-config"] = json!({ "interfaces": interfaces, "dhcp-socket-type": kind });
        server.expect(0, "config-set", json!({ "Dhcp4": changed }));
        let traffic = cable.perfdhcp(TEST, "-r 20 -n 5 -R 5 -W 500000 10.0.255.1")?;
        let output = traffic.wait_with_output().expect("perfdhcp ends");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let received = numbers(&text, "received packets");
        assert_eq!(received.len(), 2, "{text}");
        Some(received[0])
    };
    for (interfaces, kind, is_served) in [
        (&[][..], "raw", false),
        (&["veth-s"][..], "raw", true),
        (&["veth-s"][..], "udp", true),
        (&[][..], "udp", false),
        (&["veth-s/10.0.255.1"][..], "raw", true),
    ] {
        let Some(received) = served(interfaces, kind) else { return };
        assert_eq!(received > 0, is_served, "{interfaces:?} {kind}: {received}");
    }
    server.stop();
}

// ---- commands about leases

#[test]
fn lease_commands_work_and_statistics_follow_at_once() {
    let place = Place::new();
    place.write_config(&place.base());
    let server = place.start();
    let counts = || {
        [
            "subnet[1].assigned-addresses",
            "subnet[2].assigned-addresses",
            "assigned-addresses",
            "declined-addresses",
        ]
        .map(|name| server.statistic(name))
    };
    assert_eq!(counts(), [0, 0, 0, 0]);
    for address in ["10.0.0.1", "10.0.0.2", "10.0.0.3"] {
        assert_eq!(server.add(address, 1)["result"], 0);
    }
    assert_eq!(server.add("10.9.0.1", 2)["result"], 0);
    assert_eq!(counts(), [3, 1, 4, 0]);
    assert_eq!(server.add("10.0.0.1", 1)["result"], 4, "there is one already");
    assert_eq!(server.add("10.9.0.1", 1)["result"], 4, "not in that subnet");
    assert_eq!(counts(), [3, 1, 4, 0]);

    let declined =
        json!({ "ip-address": "10.0.0.2", "hw-address": "02:00:00:01:00:02", "subnet-id": 1, "state": 1 });
    server.expect(0, "lease4-update", declined);
    assert_eq!(counts(), [3, 1, 4, 1]);
    let stat = server.expect(0, "stat-lease4-get", json!({ "subnet-id": 1 }));
    let set = &stat["arguments"]["result-set"];
    let column = |name: &str| {
        let columns = set["columns"].as_array().expect("columns");
        let position = columns.iter().position(|column| column == name).expect("the column");
        set["rows"][0][position].as_i64().expect("a number")
    };
    assert_eq!((column("assigned-addresses"), column("declined-addresses")), (3, 1), "{stat}");

    let by_hw = server.expect(0, "lease4-get-by-hw-address", json!({ "hw-address": "02:00:00:01:00:03" }));
    assert_eq!(by_hw["arguments"]["leases"][0]["ip-address"], "10.0.0.3");
    server.expect(0, "lease4-get", json!({ "ip-address": "10.0.0.3" }));
    server.expect(3, "lease4-get", json!({ "ip-address": "10.0.0.77" }));
    server.expect(0, "lease4-del", json!({ "ip-address": "10.0.0.2" }));
    server.expect(3, "lease4-del", json!({ "ip-address": "10.0.0.2" }));
    assert_eq!(counts(), [2, 1, 3, 0]);
    server.expect(0, "lease4-wipe", json!({ "subnet-id": 1 }));
    assert_eq!(counts(), [0, 1, 1, 0]);
    server.expect(3, "lease4-wipe", json!({ "subnet-id": 1 }));
    let kept = server.addresses();
    server.stop();

    let server = place.start();
    assert_eq!(server.addresses(), kept, "what was acknowledged is there after a restart");
    assert_eq!(server.statistic("subnet[2].assigned-addresses"), 1);
    server.stop();
}

#[test]
fn pages_of_all_shards_are_one_ascending_list_without_gaps_or_repeats() {
    let place = Place::new();
    place.write_config(&place.base());
    let all: Vec<Ipv4Addr> = (0..5000).map(|number| Ipv4Addr::from_bits(0x0a00_0001 + number * 3)).collect();
    place.write_leases(&all.iter().map(|address| row(*address, 1, FUTURE_S, 0)).collect::<Vec<_>>());
    let server = place.start();
    for limit in [7, 999, 4999, 5000, 100_000] {
        let (mut from, mut listed) = ("start".to_owned(), Vec::<Ipv4Addr>::new());
        loop {
            let page = server.ask("lease4-get-page", json!({ "from": from, "limit": limit }));
            let leases = page["arguments"]["leases"].as_array().cloned().unwrap_or_default();
            for lease in &leases {
                from = lease["ip-address"].as_str().expect("an address").to_owned();
                listed.push(from.parse().expect("an address"));
            }
            if leases.len() < limit || (limit == 7 && listed.len() > 700) {
                break;
            }
        }
        assert_eq!(listed, all[..listed.len()], "limit {limit}");
        assert!(limit == 7 || listed.len() == all.len(), "limit {limit}: {}", listed.len());
    }
    let answer = server.expect(0, "lease4-get-all", Value::Null);
    assert_eq!(answer["arguments"]["leases"].as_array().map(Vec::len), Some(all.len()));

    let file = place.path("dump.csv");
    server.expect(0, "lease4-write", json!({ "filename": file }));
    let text = fs::read_to_string(&file).expect("written");
    let dumped: Vec<Ipv4Addr> = text
        .lines()
        .skip(1)
        .map(|line| line.split(',').next().expect("a column").parse().expect("an address"))
        .collect();
    assert_eq!(dumped, all);
    let own = server.ask("lease4-write", json!({ "filename": place.path("leases.csv") }));
    assert_eq!(own["result"], 1, "the file that is served is not overwritten: {own}");
    server.stop();
}

#[test]
fn expired_leases_are_reclaimed_on_demand_kept_or_removed() {
    for remove in [false, true] {
        let place = Place::new();
        let mut dhcp4 = place.base();
        dhcp4["expired-leases-processing"] = json!({ "reclaim-timer-wait-time": 0, "flush-reclaimed-timer-wait-time": 0, "hold-reclaimed-time": 3600 });
        place.write_config(&dhcp4);
        let expired = (1..=40).map(|low| row(Ipv4Addr::new(10, 0, 0, low), 1, 1_500_000_000, 0));
        let current = (1..=5).map(|low| row(Ipv4Addr::new(10, 0, 1, low), 1, FUTURE_S, 0));
        place.write_leases(&expired.chain(current).collect::<Vec<_>>());
        let server = place.start();
        assert_eq!(server.statistic("assigned-addresses"), 45);
        server.expect(0, "leases-reclaim", json!({ "remove": remove }));
        assert_eq!(server.statistic("assigned-addresses"), 5);
        assert_eq!(server.statistic("reclaimed-leases"), 40);
        assert_eq!(server.addresses().len(), if remove { 5 } else { 45 });
        if !remove {
            let lease = server.expect(0, "lease4-get", json!({ "ip-address": "10.0.0.1" }));
            assert_eq!(lease["arguments"]["state"], 2, "{lease}");
        }
        server.stop();
    }
}

#[test]
fn the_service_is_taken_away_and_given_back_also_by_itself() {
    let place = Place::new();
    place.write_config(&place.base());
    let mut server = place.start();
    server.expect(0, "dhcp-disable", Value::Null);
    server.hears("DHCP4_SERVICE_DISABLED");
    server.expect(0, "dhcp-enable", Value::Null);
    server.hears("DHCP4_SERVICE_ENABLED");
    server.expect(0, "dhcp-disable", json!({ "max-period": 1 }));
    server.hears("DHCP4_SERVICE_DISABLED");
    server.hears("DHCP4_SERVICE_ENABLED");
    server.stop();
}

#[test]
fn a_clean_up_on_demand_keeps_the_leases_and_forgets_the_history() {
    let place = Place::new();
    place.write_config(&place.base());
    let mut server = place.start();
    for round in 0..20 {
        let lease = json!({ "ip-address": "10.0.0.1", "hw-address": "02:00:00:01:00:01", "subnet-id": 1,
            "hostname": format!("host-{round}"), "force-create": true });
        server.expect(0, "lease4-update", lease);
    }
    assert_eq!(server.add("10.0.0.2", 1)["result"], 0);
    server.expect(0, "kea-lfc-start", Value::Null);
    for low in 3..30 {
        assert_eq!(server.add(&format!("10.0.0.{low}"), 1)["result"], 0, "service goes on");
    }
    server.hears("lease file: cleaned up: ");
    let before = server.addresses();
    server.stop();
    let previous = fs::read_to_string(place.path("leases.csv.2")).expect("the result of the clean-up");
    assert!(previous.contains("host-19") && !previous.contains("host-18"), "{previous}");
    assert!(!place.path("leases.csv.1").exists());
    let server = place.start();
    assert_eq!((server.addresses().len(), server.addresses()), (29, before));
    server.stop();
}

#[test]
fn a_clean_up_comes_by_itself_when_its_time_has_come() {
    let place = Place::new();
    let mut dhcp4 = place.base();
    dhcp4["lease-database"]["lfc-interval"] = json!(1);
    place.write_config(&dhcp4);
    let mut server = place.start();
    assert_eq!(server.add("10.0.0.2", 1)["result"], 0);
    server.hears("lease file: cleaned up: ");
    server.stop();
    assert!(place.path("leases.csv.2").exists());
}

// ---- whoever else talks to it

#[test]
fn nonsense_on_the_socket_is_an_error_and_nothing_else() {
    let place = Place::new();
    place.write_config(&place.base());
    let server = place.start();
    let deep = "[".repeat(200_000);
    let deep_arguments = format!("{{ \"command\": \"config-test\", \"arguments\": {deep}");
    let huge = "{ \"command\": \"lease4-get-page\", \"arguments\": { \"from\": \"start\", \"limit\": 99999999999999999999999999 } }";
    let cases: [&[u8]; 9] = [
        b"",
        b"{",
        b"{ \"command\"",
        b"\xff\xfe\x00\x01",
        b"null",
        b"[]",
        b"{ \"command\": 7 }",
        deep_arguments.as_bytes(),
        huge.as_bytes(),
    ];
    for bytes in cases {
        let answer = server.raw(bytes);
        if let Ok(answer) = serde_json::from_slice::<Value>(&answer) {
            assert_eq!(answer["result"], 1, "{answer}");
        } else {
            let shown = &bytes[..bytes.len().min(40)];
            assert!(answer.is_empty(), "{} gives {}", shown.escape_ascii(), answer.escape_ascii());
        }
    }
    server.expect(2, "no-such-command", Value::Null);
    server.expect(0, "status-get", Value::Null);
    server.stop();
}

#[test]
fn the_service_manager_hears_of_readiness_life_and_end() {
    let place = Place::new();
    place.write_config(&place.base());
    let manager = UnixDatagram::bind(place.path("notify")).expect("a socket");
    manager.set_read_timeout(Some(PATIENCE)).expect("a limit");
    let hear = || {
        let mut buffer = [0; 512];
        let count = manager.recv(&mut buffer).expect("a message in time");
        String::from_utf8_lossy(&buffer[..count]).into_owned()
    };
    let mut command = place.command();
    command.env("NOTIFY_SOCKET", place.path("notify")).env("WATCHDOG_USEC", "600000");
    command.env_remove("WATCHDOG_PID");
    let server = Server::start(command, place.path("socket"));
    assert!(hear().starts_with("READY=1"));
    assert_eq!((hear(), hear()), ("WATCHDOG=1".to_owned(), "WATCHDOG=1".to_owned()));
    server.signal("HUP");
    let mut heard = Vec::new();
    while heard.last().is_none_or(|line: &String| !line.starts_with("READY=1")) {
        heard.push(hear());
    }
    assert!(heard.iter().any(|line| line.starts_with("RELOADING=1")), "{heard:?}");
    assert!(heard.last().is_some_and(|line| line.contains("STATUS=serving on ")), "{heard:?}");
    fs::write(place.path("kea.conf"), "{ \"Dhcp4\": { \"subnet5\": [] } }").expect("writable");
    server.signal("HUP");
    let failed = loop {
        let line = hear();
        if line.starts_with("READY=1") {
            break line;
        }
    };
    assert!(failed.contains("the last reload failed"), "{failed}");
    server.signal("TERM");
    while hear() != "STOPPING=1" {}
}
