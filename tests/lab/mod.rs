//! A laboratory for servers in network namespaces: up to three of them as processes, a client's relay beside them, a second
//! network for what they say to each other, and the means to kill, stop and cut.
//!
//! ```text
//!   namespace hw-PID-NAME-1                 namespace hw-PID-NAME-c                    namespace hw-PID-NAME-2, -3
//!   eth0 10.77.0.1/16   clients  <---->  bridge br0, relay 10.77.0.100  <---->   eth0 10.77.0.2/16
//!   eth1 10.78.0.1/24   control  <---->  bridge br1                     <---->   eth1 10.78.0.2/24
//! ```
//! They need root and the `ip` command; where these are missing (or Kea, for a lab with it), [`Lab::new`] says `SKIPPED` and why. No
//! packet leaves its namespaces; every wait has an end.
#![allow(dead_code, reason = "each test crate uses a part")]

pub(crate) mod load;
pub(crate) mod peer;

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
/// Another one, in a network of its own.
const FAR_RELAY: Ipv4Addr = Ipv4Addr::new(10, 79, 0, 102);
/// Clients from this number on are behind the other relay.
pub(crate) const FAR_CLIENTS: u16 = 10_000;
/// Where the servers answer clients.
pub(crate) const SERVERS: [Ipv4Addr; 3] =
    [Ipv4Addr::new(10, 77, 0, 1), Ipv4Addr::new(10, 77, 0, 2), Ipv4Addr::new(10, 77, 0, 3)];
/// The mode of servers that are no pair.
const ALONE: &str = "alone";
/// Where they hear each other and the operator.
pub(crate) const CONTROL: [Ipv4Addr; 3] =
    [Ipv4Addr::new(10, 78, 0, 1), Ipv4Addr::new(10, 78, 0, 2), Ipv4Addr::new(10, 78, 0, 3)];
/// Their names, unless a lab gives them others.
pub(crate) const NAMES: [&str; 3] = ["one", "two", "three"];
/// Longest wait for anything that must come.
const PATIENCE: Duration = Duration::from_secs(30);
const KEA: &str = "/usr/sbin/kea-dhcp4";
const AGENT: &str = "/usr/sbin/kea-ctrl-agent";

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

/// The time.
#[expect(clippy::disallowed_methods, reason = "real servers live in real time")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Tries until it works, or fails the test.
pub(crate) fn until<T>(what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
    let start = now();
    loop {
        if let Some(value) = attempt() {
            return value;
        }
        assert!(now().duration_since(start) < PATIENCE, "no {what} within {PATIENCE:?}");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

/// What a server runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Program {
    Aplomado,
    Kea,
}

/// How the others reach a server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Door {
    /// The listener of HA itself.
    #[default]
    Dedicated,
    /// A control agent: Kea's own process, or our `Control-agent` block.
    Agent,
}

/// What a lab is made of.
#[derive(Clone)]
pub(crate) struct Setup {
    pub(crate) name: &'static str,
    pub(crate) mode: &'static str,
    /// Program and role of each server.
    pub(crate) servers: Vec<(Program, &'static str)>,
    pub(crate) door: Door,
    /// Parameters of the relationship that differ from the lab's.
    pub(crate) relationship: Value,
    /// Parameters of each peer, for all servers' configurations, by position.
    pub(crate) peers: Vec<Value>,
    /// Their names.
    pub(crate) names: [&'static str; 3],
    /// `subnet4`, where it is not the lab's.
    pub(crate) subnets: Option<Value>,
    /// `subnet4` of each server, where they differ.
    pub(crate) subnets_of: Vec<Value>,
    /// Members of `Dhcp4` that are not the lab's.
    pub(crate) dhcp4: Value,
    /// Members of `Control-agent` that are not the lab's.
    pub(crate) agent: Value,
    /// `high-availability` of each server, where it is not that of one relationship of all.
    pub(crate) relationships: Vec<Value>,
}

impl Setup {
    /// Servers that know nothing of each other.
    pub(crate) fn alone(name: &'static str, programs: &[Program]) -> Self {
        Self::new(name, ALONE, programs)
    }

    /// Servers of a mode in its usual roles, a third one as a backup.
    pub(crate) fn new(name: &'static str, mode: &'static str, programs: &[Program]) -> Self {
        let second = match mode {
            "hot-standby" => "standby",
            "load-balancing" => "secondary",
            _ => "backup",
        };
        let servers = programs.iter().copied().zip(["primary", second, "backup"]).collect();
        Self {
            name,
            mode,
            servers,
            door: Door::Dedicated,
            relationship: json!({}),
            peers: Vec::new(),
            names: NAMES,
            subnets: None,
            subnets_of: Vec::new(),
            dhcp4: json!({}),
            agent: json!({}),
            relationships: Vec::new(),
        }
    }
}

fn merge(into: &mut Value, from: &Value) {
    if let (Some(into), Some(from)) = (into.as_object_mut(), from.as_object()) {
        into.extend(from.clone());
    }
}

/// Servers, a relay, and the wires between them.
pub(crate) struct Lab {
    pub(crate) setup: Setup,
    spaces: Vec<String>,
    folder: tempfile::TempDir,
    running: Vec<Option<Child>>,
    agents: Vec<Option<Child>>,
    relay: UdpSocket,
    far_relay: UdpSocket,
}

impl Lab {
    /// A lab in which nothing runs yet; nothing where that cannot be.
    pub(crate) fn new(setup: Setup) -> Option<Self> {
        if setup.servers.iter().any(|(program, _)| *program == Program::Kea) && !Path::new(KEA).exists() {
            skip("there is no kea-dhcp4 here");
            return None;
        }
        let count = setup.servers.len();
        let space = |end: &str| format!("hw-{}-{}-{end}", std::process::id(), setup.name);
        let spaces: Vec<String> = ["1", "2", "3"].into_iter().take(count).chain(["c"]).map(space).collect();
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
        let c = spaces[count].as_str();
        for bridge in ["br0", "br1"] {
            run_ip(&["-n", c, "link", "add", bridge, "type", "bridge", "forward_delay", "0"]);
            run_ip(&["-n", c, "link", "set", bridge, "up"]);
        }
        for relay in [RELAY, FAR_RELAY, load::RELAY] {
            run_ip(&["-n", c, "addr", "add", &format!("{relay}/16"), "dev", "br0"]);
        }
        run_ip(&["-n", c, "addr", "add", "10.78.0.100/24", "dev", "br1"]);
        for (number, space) in ["1", "2", "3"].into_iter().zip(&spaces[..count]) {
            for (device, bridge, address) in [
                ("eth0", "br0", format!("10.77.0.{number}/16")),
                ("eth1", "br1", format!("10.78.0.{number}/24")),
            ] {
                let port = format!("{bridge}-{number}");
                run_ip(&[
                    "-n", space, "link", "add", device, "type", "veth", "peer", "name", &port, "netns", c,
                ]);
                run_ip(&["-n", space, "addr", "add", &address, "dev", device]);
                run_ip(&["-n", space, "link", "set", device, "up"]);
                run_ip(&["-n", c, "link", "set", &port, "master", bridge, "up"]);
            }
        }
        let folder = tempfile::tempdir().expect("a folder");
        enter_network_namespace(&File::open(format!("/run/netns/{c}")).expect("just made")).expect("as root");
        let relay = UdpSocket::bind((RELAY, 67)).expect("nobody else is there");
        let far_relay = UdpSocket::bind((FAR_RELAY, 67)).expect("nobody else is there");
        for socket in [&relay, &far_relay] {
            socket.set_read_timeout(Some(Duration::from_millis(50))).expect("a timeout");
        }
        let nobody = || (0..count).map(|_| None).collect();
        let lab = Self { setup, spaces, folder, running: nobody(), agents: nobody(), relay, far_relay };
        for server in 0..count {
            lab.configure(server);
        }
        Some(lab)
    }

    /// The folder of the lab's files.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The file of a server with this suffix.
    pub(crate) fn path(&self, server: usize, suffix: &str) -> PathBuf {
        self.folder.path().join(format!("{server}.{suffix}"))
    }

    /// Writes a server's configuration, as `setup` says now.
    pub(crate) fn configure(&self, server: usize) {
        let setup = &self.setup;
        let hooks = "/usr/lib/x86_64-linux-gnu/kea/hooks";
        let pools = if setup.mode == "load-balancing" {
            json!([{ "pool": "10.77.10.0 - 10.77.127.255", "client-class": "HA_one" },
                   { "pool": "10.77.128.0 - 10.77.250.255", "client-class": "HA_two" }])
        } else {
            json!([{ "pool": "10.77.10.0 - 10.77.250.255" }])
        };
        let own = json!([{ "id": 1, "subnet": "10.77.0.0/16", "pools": pools }]);
        let subnets = setup.subnets_of.get(server).or(setup.subnets.as_ref()).unwrap_or(&own);
        let peers: Vec<Value> = (0..setup.servers.len())
            .map(|peer| {
                let mut entry = json!({ "name": setup.names[peer], "url": format!("http://10.78.0.{}:8005/", peer + 1),
                    "role": setup.servers[peer].1 });
                merge(&mut entry, setup.peers.get(peer).unwrap_or(&Value::Null));
                entry
            })
            .collect();
        let agent = setup.door == Door::Agent;
        let mut relationship = json!({
            "this-server-name": setup.names[server], "mode": setup.mode, "heartbeat-delay": 250,
            "max-response-delay": 1000, "max-ack-delay": 250, "max-unacked-clients": 0,
            "multi-threading": { "enable-multi-threading": true, "http-dedicated-listener": !agent,
                                 "http-listener-threads": 2, "http-client-threads": 2 },
            "peers": peers,
        });
        merge(&mut relationship, &setup.relationship);
        let list = setup.relationships.get(server).cloned().unwrap_or_else(|| json!([relationship]));
        let commands = json!({ "library": format!("{hooks}/libdhcp_lease_cmds.so") });
        let libraries = if setup.mode == ALONE {
            json!([commands, { "library": format!("{hooks}/libdhcp_stat_cmds.so") }])
        } else {
            json!([commands, { "library": format!("{hooks}/libdhcp_ha.so"),
                               "parameters": { "high-availability": list } }])
        };
        let socket = self.path(server, "sock");
        let mut configuration = json!({ "Dhcp4": {
            "interfaces-config": { "interfaces": ["eth0"], "dhcp-socket-type": "raw" },
            "control-socket": { "socket-type": "unix", "socket-name": socket },
            "lease-database": { "type": "memfile", "persist": true, "name": self.path(server, "csv"),
                                "lfc-interval": 0 },
            "multi-threading": { "enable-multi-threading": true, "thread-pool-size": 2,
                                 "packet-queue-size": 64 },
            "valid-lifetime": 4000,
            "hooks-libraries": libraries,
            "loggers": [{ "name": "kea-dhcp4", "severity": "INFO", "output_options": [{ "output": "stderr" }] }],
            "subnet4": subnets,
        } });
        merge(&mut configuration["Dhcp4"], &setup.dhcp4);
        let mut control_agent = json!({ "Control-agent": {
            "http-host": format!("10.78.0.{}", server + 1), "http-port": 8005,
            "control-sockets": { "dhcp4": { "socket-type": "unix", "socket-name": socket } },
        } });
        merge(&mut control_agent["Control-agent"], &setup.agent);
        if agent && setup.servers[server].0 == Program::Aplomado {
            merge(&mut configuration, &control_agent);
        }
        std::fs::write(self.path(server, "conf"), configuration.to_string()).expect("room on the disk");
        std::fs::write(self.path(server, "agent.conf"), control_agent.to_string()).expect("room on the disk");
    }

    fn spawn(&self, server: usize, program: &[&str], configuration: &str) -> Child {
        let log = File::options().create(true).append(true).open(self.path(server, "log")).expect("a log");
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.spaces[server]]).args(program);
        command.arg("-c").arg(self.path(server, configuration));
        command.env("KEA_PIDFILE_DIR", self.folder.path()).env("KEA_LOCKFILE_DIR", self.folder.path());
        let log_too = log.try_clone().expect("a descriptor");
        command.stdin(Stdio::null()).stdout(log).stderr(log_too);
        command.spawn().expect("`ip netns exec` works")
    }

    /// Starts a server, and its agent when that is another process.
    pub(crate) fn start(&mut self, server: usize) {
        let program = self.setup.servers[server].0;
        let words: &[&str] = match program {
            Program::Aplomado => &[env!("CARGO_BIN_EXE_aplomado"), "run"],
            Program::Kea => &[KEA],
        };
        self.running[server] = Some(self.spawn(server, words, "conf"));
        if program == Program::Kea && self.setup.door == Door::Agent && self.agents[server].is_none() {
            self.agents[server] = Some(self.spawn(server, &[AGENT], "agent.conf"));
        }
    }

    /// Starts all.
    pub(crate) fn start_all(&mut self) {
        for server in 0..self.running.len() {
            self.start(server);
        }
    }

    /// As by `kill -9`.
    pub(crate) fn kill(&mut self, server: usize) {
        if let Some(mut child) = self.running[server].take() {
            child.kill().expect("it runs");
            child.wait().expect("it has ended");
        }
    }

    /// Forgets a server's leases.
    pub(crate) fn lose_leases(&self, server: usize) {
        let _ = std::fs::remove_file(self.path(server, "csv"));
    }

    /// Stops a server (it hears and says nothing, its connections stay), or lets it go on.
    pub(crate) fn freeze(&self, server: usize, frozen: bool) {
        let id = self.running[server].as_ref().expect("it runs").id().to_string();
        let signal = if frozen { "-STOP" } else { "-CONT" };
        assert!(Command::new("kill").args([signal, &id]).status().is_ok_and(|status| status.success()));
    }

    /// Cuts what the servers say to each other, or mends it. Packets vanish; nobody is told.
    pub(crate) fn cut_control(&self, cut: bool) {
        let space = self.spaces.last().expect("the clients' space");
        run_ip(&["-n", space, "link", "set", "br1-2", if cut { "down" } else { "up" }]);
    }

    /// Cuts a server off from everybody, without a word, or joins it again.
    pub(crate) fn cut_off(&self, server: usize, cut: bool) {
        let space = self.spaces.last().expect("the clients' space");
        for bridge in ["br0", "br1"] {
            let port = format!("{bridge}-{}", server + 1);
            run_ip(&["-n", space, "link", "set", &port, if cut { "down" } else { "up" }]);
        }
    }

    /// A command by the unix socket.
    pub(crate) fn command(&self, server: usize, command: &str, arguments: &Value) -> Option<Value> {
        let mut body = json!({ "command": command });
        if !arguments.is_null() {
            body["arguments"] = arguments.clone();
        }
        self.ask(server, &body)
    }

    /// Any body by the unix socket.
    pub(crate) fn ask(&self, server: usize, body: &Value) -> Option<Value> {
        self.ask_text(server, &body.to_string())
    }

    /// Any text by the unix socket.
    pub(crate) fn ask_text(&self, server: usize, body: &str) -> Option<Value> {
        let mut stream = UnixStream::connect(self.path(server, "sock")).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
        stream.write_all(body.as_bytes()).ok()?;
        stream.shutdown(Shutdown::Write).ok()?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).ok()?;
        serde_json::from_slice(&answer).ok()
    }

    /// A command that must succeed.
    pub(crate) fn order(&self, server: usize, command: &str, arguments: &Value) -> Value {
        let answer = self.command(server, command, arguments).expect("an answer");
        assert_eq!(answer["result"], 0, "{command} at {}: {answer}", NAMES[server]);
        answer
    }

    /// The state in which a server is.
    pub(crate) fn state(&self, server: usize) -> Option<String> {
        let answer = self.command(server, "ha-heartbeat", &Value::Null)?;
        Some(answer["arguments"]["state"].as_str()?.to_owned())
    }

    /// Waits until a server is in `state`.
    pub(crate) fn await_state(&self, server: usize, state: &str) {
        until(&format!("{state} of server {}", NAMES[server]), || {
            self.state(server).filter(|current| current == state)
        });
    }

    /// Waits until both active servers are in the normal state of their mode.
    pub(crate) fn await_normal(&self) {
        for server in 0..2 {
            self.await_state(server, self.setup.mode);
        }
    }

    /// All leases of a server.
    pub(crate) fn leases(&self, server: usize) -> BTreeSet<String> {
        let answer = self.command(server, "lease4-get-all", &Value::Null).expect("an answer");
        let list = answer["arguments"]["leases"].as_array().cloned().unwrap_or_default();
        list.iter().map(Value::to_string).collect()
    }

    /// All servers hold the same `count` leases, at the latest after a moment: backups are not waited for.
    pub(crate) fn assert_equal(&self, count: usize) {
        let all = |lab: &Self| (0..lab.running.len()).map(|server| lab.leases(server)).collect::<Vec<_>>();
        let start = now();
        loop {
            let found = all(self);
            if found.iter().all(|leases| leases.len() == count && *leases == found[0]) {
                return;
            }
            if now().duration_since(start) > Duration::from_secs(3) {
                for (server, leases) in found.iter().enumerate() {
                    let others = &found[usize::from(server == 0)];
                    let odd: Vec<_> = leases.difference(others).take(5).collect();
                    let _ =
                        writeln!(io::stderr(), "{}: {} leases, alone {odd:?}", NAMES[server], leases.len());
                }
                panic!("the databases differ, or do not hold {count} leases");
            }
            std::thread::park_timeout(Duration::from_millis(50));
        }
    }

    /// Sends a message of any kind to one server, as the relay does; the answer to it, if one comes before `patience` is over.
    pub(crate) fn exchange(&self, server: usize, message: &[u8], patience: Duration) -> Option<Vec<u8>> {
        self.relay.send_to(message, SocketAddrV4::new(SERVERS[server], 67)).expect("it is sent");
        let start = now();
        let mut buffer = [0; 1500];
        while now().duration_since(start) < patience {
            let Ok((len, _)) = self.relay.recv_from(&mut buffer) else { continue };
            if len > 240 && buffer[0] == 2 && message.get(4..8) == Some(&buffer[4..8]) {
                return Some(buffer[..len].to_vec());
            }
        }
        None
    }

    /// The process of a server.
    pub(crate) fn process(&self, server: usize) -> u32 {
        self.running[server].as_ref().expect("it runs").id()
    }

    fn query(&self, client: u16, kind: u8, options: &[u8]) -> Option<(Ipv4Addr, Ipv4Addr)> {
        let mut message = vec![0; 236];
        message[..4].copy_from_slice(&[1, 1, 6, 1]);
        let xid = [kind, 7, client.to_be_bytes()[0], client.to_be_bytes()[1]];
        message[4..8].copy_from_slice(&xid);
        // Seconds since the client began: to the partner of a dead server it has waited long enough.
        message[8..10].copy_from_slice(&[0, 2]);
        let (relay, socket) =
            if client < FAR_CLIENTS { (RELAY, &self.relay) } else { (FAR_RELAY, &self.far_relay) };
        message[24..28].copy_from_slice(&relay.octets());
        message[28..32].copy_from_slice(&[2, 0, 0, 9]);
        message[32..34].copy_from_slice(&client.to_be_bytes());
        message.extend([99, 130, 83, 99, 53, 1, kind]);
        message.extend(options);
        message.push(255);
        for server in &SERVERS[..self.running.len()] {
            // A dead server's address does not answer; the other one does.
            let _ = socket.send_to(&message, SocketAddrV4::new(*server, 67));
        }
        let start = now();
        let mut buffer = [0; 1500];
        while now().duration_since(start) < Duration::from_millis(300) {
            let Ok((len, from)) = socket.recv_from(&mut buffer) else { continue };
            if len > 240 && buffer[4..8] == xid && buffer[0] == 2 {
                let address = Ipv4Addr::new(buffer[16], buffer[17], buffer[18], buffer[19]);
                let std::net::IpAddr::V4(from) = from.ip() else { continue };
                return Some((address, from));
            }
        }
        None
    }

    /// One try of a client to get an address.
    pub(crate) fn try_to_serve(&self, client: u16) -> Option<(Ipv4Addr, Ipv4Addr)> {
        let (address, server) = self.query(client, 1, &[])?;
        let mut options = vec![54, 4];
        options.extend(server.octets());
        options.extend([50, 4]);
        options.extend(address.octets());
        self.query(client, 3, &options)
    }

    /// A client that tries until it holds an address: the address, and who gave it.
    pub(crate) fn serve(&self, client: u16) -> (Ipv4Addr, Ipv4Addr) {
        until(&format!("lease for client {client}"), || self.try_to_serve(client))
    }

    /// Clients that try until each holds an address; who gave them.
    pub(crate) fn serve_all(&self, clients: std::ops::Range<u16>) -> BTreeSet<Ipv4Addr> {
        clients.map(|client| self.serve(client).1).collect()
    }

    /// No two of these clients hold the same address.
    pub(crate) fn assert_distinct(&self, clients: std::ops::Range<u16>) {
        let count = clients.len();
        let held: BTreeSet<Ipv4Addr> = clients.map(|client| self.serve(client).0).collect();
        assert_eq!(held.len(), count, "no address is held twice");
    }

    /// What a server has said.
    pub(crate) fn log(&self, server: usize) -> String {
        std::fs::read_to_string(self.path(server, "log")).unwrap_or_default()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for child in self.running.iter_mut().chain(&mut self.agents).filter_map(Option::as_mut) {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            for (server, name) in NAMES.iter().enumerate().take(self.running.len()) {
                let log = self.log(server);
                let lines: Vec<&str> = log.lines().collect();
                let last = lines[lines.len().saturating_sub(60)..].join("\n");
                let _ = writeln!(io::stderr(), "--- end of the log of server {name}\n{last}");
            }
        }
        for space in &self.spaces {
            let _ = ip(&["netns", "del", space]);
        }
    }
}
