//! Real pairs in network namespaces: two servers as processes, a client's relay beside them, deaths and returns.
//!
//! ```text
//!   namespace hw-PID-NAME-1     namespace hw-PID-NAME-c               namespace hw-PID-NAME-2
//!   eth0 10.77.0.1/16  <---->   bridge br0, relay 10.77.0.100   <---->  eth0 10.77.0.2/16
//! ```
//! They need root and the `ip` command; where these are missing (or Kea, for the test with it), each test says `SKIPPED` and why. No
//! packet leaves its namespaces; every wait has an end.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddrV4, UdpSocket};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use aplomado::net::enter_network_namespace;
use serde_json::{Value, json};

const RELAY: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 100);
const SERVERS: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 77, 0, 1), Ipv4Addr::new(10, 77, 0, 2)];
/// Longest wait for anything that must come.
const PATIENCE: Duration = Duration::from_secs(20);
const KEA: &str = "/usr/sbin/kea-dhcp4";

fn skip(why: &str) {
    let _ = writeln!(io::stderr(), "SKIPPED: {}", why.trim_end());
}

fn ip(arguments: &[&str]) -> Result<(), String> {
    let output = Command::new("ip").args(arguments).output().map_err(|error| error.to_string())?;
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

fn run_ip(arguments: &[&str]) {
    if let Err(why) = ip(arguments) {
        panic!("ip {}: {why}", arguments.join(" "));
    }
}

#[expect(clippy::disallowed_methods, reason = "real servers live in real time")]
fn now() -> Instant {
    Instant::now()
}

/// Tries until it works, or fails the test.
fn until<T>(what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
    let start = now();
    loop {
        if let Some(value) = attempt() {
            return value;
        }
        assert!(now().duration_since(start) < PATIENCE, "no {what} within {PATIENCE:?}");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Program {
    Aplomado,
    Kea,
}

/// Two servers, a relay, and the wires between them.
struct Lab {
    spaces: [String; 3],
    folder: tempfile::TempDir,
    programs: [Program; 2],
    servers: [Option<Child>; 2],
    relay: UdpSocket,
}

impl Lab {
    fn new(name: &str, mode: &str, programs: [Program; 2]) -> Option<Self> {
        if programs.contains(&Program::Kea) && !Path::new(KEA).exists() {
            skip("there is no kea-dhcp4 here");
            return None;
        }
        let space = |end: &str| format!("hw-{}-{name}-{end}", std::process::id());
        let spaces = [space("1"), space("2"), space("c")];
        for (position, space) in spaces.iter().enumerate() {
            if let Err(why) = ip(&["netns", "add", space]) {
                for made in &spaces[..position] {
                    let _ = ip(&["netns", "del", made]);
                }
                skip(&format!("no network namespaces here: {why}"));
                return None;
            }
            run_ip(&["-n", space, "link", "set", "lo", "up"]);
        }
        let c = spaces[2].as_str();
        run_ip(&["-n", c, "link", "add", "br0", "type", "bridge", "forward_delay", "0"]);
        run_ip(&["-n", c, "addr", "add", "10.77.0.100/16", "dev", "br0"]);
        run_ip(&["-n", c, "link", "set", "br0", "up"]);
        for (number, space) in ["1", "2"].into_iter().zip(&spaces) {
            let port = format!("port{number}");
            run_ip(&["-n", space, "link", "add", "eth0", "type", "veth", "peer", "name", &port, "netns", c]);
            run_ip(&["-n", space, "addr", "add", &format!("10.77.0.{number}/16"), "dev", "eth0"]);
            run_ip(&["-n", space, "link", "set", "eth0", "up"]);
            run_ip(&["-n", c, "link", "set", &port, "master", "br0", "up"]);
        }
        let folder = tempfile::tempdir().expect("a folder");
        enter_network_namespace(&File::open(format!("/run/netns/{c}")).expect("just made")).expect("as root");
        let relay = UdpSocket::bind((RELAY, 67)).expect("nobody else is there");
        relay.set_read_timeout(Some(Duration::from_millis(100))).expect("a timeout");
        let lab = Self { spaces, folder, programs, servers: [None, None], relay };
        for server in 0..2 {
            lab.configure(server, mode);
        }
        Some(lab)
    }

    fn path(&self, server: usize, suffix: &str) -> PathBuf {
        self.folder.path().join(format!("{server}.{suffix}"))
    }

    fn configure(&self, server: usize, mode: &str) {
        let second = if mode == "hot-standby" { "standby" } else { "secondary" };
        let hooks = "/usr/lib/x86_64-linux-gnu/kea/hooks";
        let pools = if mode == "hot-standby" {
            json!([{ "pool": "10.77.10.0 - 10.77.20.255" }])
        } else {
            json!([{ "pool": "10.77.10.0 - 10.77.20.255", "client-class": "HA_one" },
                   { "pool": "10.77.30.0 - 10.77.40.255", "client-class": "HA_two" }])
        };
        let own_name = ["one", "two"][server];
        let pair = json!({
            "this-server-name": own_name, "mode": mode, "heartbeat-delay": 250,
            "max-response-delay": 1000, "max-ack-delay": 250, "max-unacked-clients": 0,
            "multi-threading": { "enable-multi-threading": true, "http-dedicated-listener": true,
                                 "http-listener-threads": 2, "http-client-threads": 2 },
            "peers": [
                { "name": "one", "url": "http://10.77.0.1:8005/", "role": "primary" },
                { "name": "two", "url": "http://10.77.0.2:8005/", "role": second },
            ],
        });
        let configuration = json!({ "Dhcp4": {
            "interfaces-config": { "interfaces": ["eth0"], "dhcp-socket-type": "raw" },
            "control-socket": { "socket-type": "unix", "socket-name": self.path(server, "sock") },
            "lease-database": { "type": "memfile", "persist": true, "name": self.path(server, "csv"),
                                "lfc-interval": 0 },
            "multi-threading": { "enable-multi-threading": true, "thread-pool-size": 2,
                                 "packet-queue-size": 64 },
            "valid-lifetime": 4000,
            "hooks-libraries": [
                { "library": format!("{hooks}/libdhcp_lease_cmds.so") },
                { "library": format!("{hooks}/libdhcp_ha.so"),
                  "parameters": { "high-availability": [pair] } },
            ],
            "loggers": [{ "name": "kea-dhcp4", "severity": "INFO", "output_options": [{ "output": "stderr" }] }],
            "subnet4": [{ "id": 1, "subnet": "10.77.0.0/16", "pools": pools }],
        } });
        std::fs::write(self.path(server, "conf"), configuration.to_string()).expect("room on the disk");
    }

    fn start(&mut self, server: usize) {
        let log = File::options().create(true).append(true).open(self.path(server, "log")).expect("a log");
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.spaces[server]]);
        match self.programs[server] {
            Program::Aplomado => command.args([env!("CARGO_BIN_EXE_aplomado"), "run"]),
            Program::Kea => command.arg(KEA),
        };
        command.arg("-c").arg(self.path(server, "conf"));
        command.env("KEA_PIDFILE_DIR", self.folder.path()).env("KEA_LOCKFILE_DIR", self.folder.path());
        let log_too = log.try_clone().expect("a descriptor");
        command.stdin(Stdio::null()).stdout(log).stderr(log_too);
        self.servers[server] = Some(command.spawn().expect("`ip netns exec` works"));
    }

    /// As by `kill -9`.
    fn kill(&mut self, server: usize) {
        if let Some(mut child) = self.servers[server].take() {
            child.kill().expect("it runs");
            child.wait().expect("it has ended");
        }
    }

    fn ask(&self, server: usize, command: &str) -> Option<Value> {
        let mut stream = UnixStream::connect(self.path(server, "sock")).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
        stream.write_all(json!({ "command": command }).to_string().as_bytes()).ok()?;
        stream.shutdown(Shutdown::Write).ok()?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).ok()?;
        serde_json::from_slice(&answer).ok()
    }

    fn state(&self, server: usize) -> Option<String> {
        let answer = self.ask(server, "ha-heartbeat")?;
        Some(answer["arguments"]["state"].as_str()?.to_owned())
    }

    fn await_normal(&self, mode: &str) {
        for server in 0..2 {
            until(&format!("{mode} of server {server}"), || self.state(server).filter(|state| state == mode));
        }
    }

    fn leases(&self, server: usize) -> BTreeSet<String> {
        let answer = self.ask(server, "lease4-get-all").expect("an answer");
        answer["arguments"]["leases"].as_array().expect("leases").iter().map(Value::to_string).collect()
    }

    fn query(&self, client: u16, kind: u8, options: &[u8]) -> Option<(Ipv4Addr, Ipv4Addr)> {
        let mut message = vec![0; 236];
        message[..4].copy_from_slice(&[1, 1, 6, 1]);
        let xid = [kind, 7, client.to_be_bytes()[0], client.to_be_bytes()[1]];
        message[4..8].copy_from_slice(&xid);
        message[24..28].copy_from_slice(&RELAY.octets());
        message[28..32].copy_from_slice(&[2, 0, 0, 9]);
        message[32..34].copy_from_slice(&client.to_be_bytes());
        message.extend([99, 130, 83, 99, 53, 1, kind]);
        message.extend(options);
        message.push(255);
        for server in SERVERS {
            // A dead server's address does not answer; the other one does.
            let _ = self.relay.send_to(&message, SocketAddrV4::new(server, 67));
        }
        let start = now();
        let mut buffer = [0; 1500];
        while now().duration_since(start) < Duration::from_millis(300) {
            let Ok((len, from)) = self.relay.recv_from(&mut buffer) else { continue };
            if len > 240 && buffer[4..8] == xid && buffer[0] == 2 {
                let address = Ipv4Addr::new(buffer[16], buffer[17], buffer[18], buffer[19]);
                let std::net::IpAddr::V4(from) = from.ip() else { continue };
                return Some((address, from));
            }
        }
        None
    }

    /// A client that tries until it holds an address: the address, and who gave it.
    fn serve(&self, client: u16) -> (Ipv4Addr, Ipv4Addr) {
        until(&format!("lease for client {client}"), || {
            let (address, server) = self.query(client, 1, &[])?;
            let mut options = vec![54, 4];
            options.extend(server.octets());
            options.extend([50, 4]);
            options.extend(address.octets());
            self.query(client, 3, &options)
        })
    }

    fn log(&self, server: usize) -> String {
        std::fs::read_to_string(self.path(server, "log")).unwrap_or_default()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for server in 0..2 {
            if let Some(mut child) = self.servers[server].take() {
                let _ = child.kill();
                let _ = child.wait();
            }
            if std::thread::panicking() {
                let _ = writeln!(io::stderr(), "--- log of server {server}\n{}", self.log(server));
            }
        }
        for space in &self.spaces {
            let _ = ip(&["netns", "del", space]);
        }
    }
}

/// Start, load, death of the primary, takeover, return; the databases are equal before and after.
fn story(name: &str, mode: &str, programs: [Program; 2]) {
    let Some(mut lab) = Lab::new(name, mode, programs) else { return };
    for server in 0..2 {
        lab.start(server);
    }
    lab.await_normal(mode);
    let givers: BTreeSet<Ipv4Addr> = (0..40).map(|client| lab.serve(client).1).collect();
    let expected = if mode == "hot-standby" { 1 } else { 2 };
    assert_eq!(givers.len(), expected, "who serves in {mode}: {givers:?}");
    // An acknowledged lease is at the partner already: nothing to wait for.
    assert_eq!(lab.leases(0), lab.leases(1));
    assert_eq!(lab.leases(0).len(), 40);

    lab.kill(0);
    let death = now();
    for client in 40..60 {
        assert_eq!(lab.serve(client).1, SERVERS[1]);
        if client == 40 {
            let gap = now().duration_since(death);
            assert!(gap < Duration::from_secs(5), "clients waited for {gap:?}");
        }
    }
    let held: BTreeSet<Ipv4Addr> = (0..60).map(|client| lab.serve(client).0).collect();
    assert_eq!(held.len(), 60, "no address is held twice");

    lab.start(0);
    lab.await_normal(mode);
    assert_eq!(lab.leases(0).len(), 60);
    assert_eq!(lab.leases(0), lab.leases(1));
    for client in 60..80 {
        lab.serve(client);
    }
    assert_eq!(lab.leases(0), lab.leases(1));
}

#[test]
fn hot_standby_serves_through_the_death_of_its_primary() {
    story("hs", "hot-standby", [Program::Aplomado, Program::Aplomado]);
}

#[test]
fn load_balancing_serves_through_the_death_of_its_primary() {
    story("lb", "load-balancing", [Program::Aplomado, Program::Aplomado]);
}

#[test]
fn kea_takes_over_from_us_and_gives_back() {
    story("ak", "hot-standby", [Program::Aplomado, Program::Kea]);
}

#[test]
fn we_take_over_from_kea_and_give_back() {
    story("ka", "hot-standby", [Program::Kea, Program::Aplomado]);
}
