//! The servers that are compared, each configured as its own manual recommends for speed, with durable leases where it has them.

use std::fmt::Write as _;
use std::io::{Read, Write as _};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::lab::{Lab, Running, find_program, until};

/// A server program with its settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Aplomado,
    /// The same with rows that are written and not synced, as Kea's are: what being durable costs. Nothing is compared with it.
    AplomadoUnsynced,
    /// Swaps addresses: no DHCP at all.
    Reflector,
    /// The reflector that answers DISCOVER and REQUEST, without state, rules or a disk: what machine, kernel and generator carry of
    /// four-way exchanges at all.
    Answerer,
    /// The reflector that only takes what comes: beside one that answers what machine, kernel and generator carry of a pair.
    Listener,
    /// Kea without threads, which is its fastest with leases on disk.
    Kea,
    /// Kea with two threads and its default queue, which is its fastest for renewals.
    KeaThreads,
    Dhcpd,
    Dnsmasq,
}

impl Kind {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Aplomado => "aplomado",
            Self::AplomadoUnsynced => "aplomado, not synced",
            Self::Reflector => "reflector",
            Self::Answerer => "reflector that answers",
            Self::Listener => "one that listens",
            Self::Kea => "kea",
            Self::KeaThreads => "kea, 2 threads",
            Self::Dhcpd => "dhcpd",
            Self::Dnsmasq => "dnsmasq",
        }
    }

    /// Where its program is; why it cannot run here.
    pub(crate) fn program(self) -> Result<String, String> {
        let own = std::env::current_exe().map_err(|error| format!("where am I: {error}"))?;
        let found = match self {
            Self::Reflector | Self::Answerer | Self::Listener => Some(own),
            Self::Aplomado | Self::AplomadoUnsynced => std::env::var_os("APLOMADO").map_or_else(
                || own.parent().map(|folder| folder.join("aplomado")).filter(|path| path.is_file()),
                |path| Some(path.into()),
            ),
            Self::Kea | Self::KeaThreads => find_program("kea-dhcp4"),
            Self::Dhcpd => find_program("dhcpd"),
            Self::Dnsmasq => find_program("dnsmasq"),
        };
        let found = found.ok_or_else(|| format!("{} is not installed", self.name()))?;
        Ok(found.to_string_lossy().into_owned())
    }

    /// No server, but this program as a reflector.
    const fn is_reflector(self) -> bool {
        matches!(self, Self::Reflector | Self::Answerer | Self::Listener)
    }

    /// This server, in whatever setting.
    const fn is_ours(self) -> bool {
        matches!(self, Self::Aplomado | Self::AplomadoUnsynced)
    }

    /// Sends to the client's hardware address, which no interface of the generator has; to all when it is asked to.
    pub(crate) const fn needs_broadcast(self) -> bool {
        matches!(self, Self::Dhcpd | Self::Dnsmasq)
    }

    const fn takes_kea_configuration(self) -> bool {
        matches!(self, Self::Kea | Self::KeaThreads) || self.is_ours()
    }

    /// How fast it may be at most: where a search for its highest rate begins.
    pub(crate) const fn guess(self, is_pair: bool) -> f64 {
        match (self, is_pair) {
            (Self::Aplomado | Self::AplomadoUnsynced, false) => 60_000.0,
            (Self::Aplomado | Self::AplomadoUnsynced, true) => 30_000.0,
            (Self::Reflector, _) => 200_000.0,
            (Self::Answerer | Self::Listener, _) => 90_000.0,
            (Self::Kea | Self::KeaThreads, false) => 7_500.0,
            (Self::Kea | Self::KeaThreads, true) => 2_400.0,
            (Self::Dhcpd, _) => 600.0,
            (Self::Dnsmasq, _) => 300.0,
        }
    }
}

/// Which servers run together.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Team {
    /// One, or the primary and its partner.
    pub(crate) kinds: Vec<Kind>,
    /// Kea's name of the pair's mode; none for what is no pair to itself.
    pub(crate) mode: &'static str,
    /// Parameters of the relationship, milliseconds: between heartbeats, and until a silent partner is down.
    pub(crate) delays_ms: (u32, u32),
    pub(crate) lfc_interval_s: u32,
    /// First and last address of the pool.
    pub(crate) pool: (&'static str, &'static str),
    /// Classes whose expressions are evaluated for every query and match none.
    pub(crate) classes: u32,
    /// Whether lease commands are answered, by the unix socket and on port [`COMMANDS_PORT`] of the server's loopback address.
    pub(crate) has_lease_commands: bool,
}

/// Where commands are taken by HTTP.
pub(crate) const COMMANDS_PORT: u16 = 8001;

impl Team {
    pub(crate) fn single(kind: Kind) -> Self {
        let pool = match kind {
            // With many more free addresses it falls behind at a few exchanges per second.
            Kind::Dhcpd => ("10.16.0.0", "10.16.63.255"),
            _ => ("10.16.0.0", "10.79.255.255"),
        };
        Self {
            kinds: vec![kind],
            mode: "",
            delays_ms: (1000, 20_000),
            lfc_interval_s: 0,
            pool,
            classes: 0,
            has_lease_commands: false,
        }
    }

    pub(crate) fn pair(one: Kind, two: Kind, mode: &'static str) -> Self {
        Self { kinds: vec![one, two], mode, ..Self::single(one) }
    }

    /// What tables call it.
    pub(crate) fn name(&self) -> String {
        match self.kinds[..] {
            [one] => one.name().to_owned(),
            [one, two] if one == two => format!("{} pair, {}", one.name(), self.mode),
            _ => {
                let names: Vec<&str> = self.kinds.iter().map(|kind| kind.name()).collect();
                let names = names.join(" before ");
                if self.mode.is_empty() { names } else { format!("{names}, {}", self.mode) }
            }
        }
    }

    pub(crate) const fn is_pair(&self) -> bool {
        self.kinds.len() > 1
    }

    /// Why it cannot run here.
    pub(crate) fn check(&self) -> Result<(), String> {
        self.kinds.iter().try_for_each(|kind| kind.program().map(|_| ()))
    }

    /// Writes files and starts server `number` in `lab`; it may not answer yet.
    pub(crate) fn start_one(&self, lab: &Lab, number: usize, cores: Option<&str>) -> Result<Running, String> {
        let kind = self.kinds[number];
        let mut words = vec![kind.program()?];
        let path = |ending: &str| lab.path(number, ending).to_string_lossy().into_owned();
        let configuration = path("conf");
        match kind {
            Kind::Reflector | Kind::Answerer | Kind::Listener => {
                words.extend(["reflect", "-i", "eth0", "-d", "3600"].map(str::to_owned));
                // Threads, rings and bytes as the server has them.
                let more: &[&str] = match kind {
                    Kind::Answerer => &["--answer", "--shards", "2"],
                    Kind::Listener => &["--listen", "--shards", "2"],
                    _ => &[],
                };
                words.extend(more.iter().map(|word| (*word).to_owned()));
            }
            Kind::Aplomado | Kind::AplomadoUnsynced => {
                words.extend(["run".to_owned(), "-c".to_owned(), configuration.clone()])
            }
            Kind::Kea | Kind::KeaThreads => words.extend(["-c".to_owned(), configuration.clone()]),
            Kind::Dhcpd => {
                let leases = path("leases");
                let _ = std::fs::File::options().create(true).append(true).open(&leases);
                let arguments =
                    ["-4", "-f", "-q", "-cf", &configuration, "-lf", &leases, "-pf", &path("pid"), "eth0"];
                words.extend(arguments.map(str::to_owned));
            }
            Kind::Dnsmasq => words.extend(["-k".to_owned(), "-C".to_owned(), configuration.clone()]),
        }
        let text = match kind {
            kind if kind.is_reflector() => String::new(),
            Kind::Dhcpd => format!(
                "authoritative;\nping-check false;\ndefault-lease-time 4000;\nmax-lease-time 4000;\n\
                 subnet 10.0.0.0 netmask 255.0.0.0 {{ range {} {}; }}\n",
                self.pool.0, self.pool.1
            ),
            Kind::Dnsmasq => format!(
                "port=0\ninterface=eth0\nbind-interfaces\nno-ping\ndhcp-authoritative\nquiet-dhcp\nuser=root\nlog-facility=-\n\
                 dhcp-lease-max=1000000\ndhcp-leasefile={}\ndhcp-range={},{},4000\n",
                path("leases"),
                self.pool.0,
                self.pool.1
            ),
            _ => self.kea_configuration(lab, number).to_string(),
        };
        std::fs::write(&configuration, text).map_err(|error| format!("{configuration}: {error}"))?;
        lab.spawn(number, &words, cores)
    }

    /// Starts all, and waits until they serve.
    pub(crate) fn start(&self, lab: &Lab, cores: Option<&str>) -> Result<Vec<Running>, String> {
        let mut running = Vec::new();
        for number in 0..self.kinds.len() {
            running.push(self.start_one(lab, number, cores)?);
        }
        self.wait_ready(lab, &mut running)?;
        Ok(running)
    }

    /// Waits until all serve: a pair in its mode's state.
    pub(crate) fn wait_ready(&self, lab: &Lab, running: &mut [Running]) -> Result<(), String> {
        for (number, one) in running.iter_mut().enumerate() {
            let name = self.kinds[number].name();
            let ready = until("answer", 60.0, || {
                if one.has_ended() {
                    return Some(false);
                }
                self.serves(lab, number, one).then_some(true)
            });
            match ready {
                Ok(true) => {}
                Ok(false) => return Err(format!("{name} has ended: {}", one.last_words())),
                Err(why) => return Err(format!("{name} does not serve: {why}: {}", one.last_words())),
            }
        }
        Ok(())
    }

    fn serves(&self, lab: &Lab, number: usize, running: &Running) -> bool {
        if !self.mode.is_empty() {
            return state(lab, number).as_deref() == Some(self.mode);
        }
        match self.kinds[number] {
            kind if kind.takes_kea_configuration() => {
                command(lab, number, "version-get", &Value::Null).is_some()
            }
            kind if kind.is_reflector() => running.last_words().contains("reflecting"),
            // Both say so, in their own words, or fail the first probe.
            _ => holds_port_67(running.id()),
        }
    }

    fn kea_configuration(&self, lab: &Lab, number: usize) -> Value {
        let hooks = "/usr/lib/x86_64-linux-gnu/kea/hooks";
        let pool = |first: &str, last: &str| format!("{first} - {last}");
        let pools = if self.mode == "load-balancing" {
            json!([{ "pool": pool("10.16.0.0", "10.47.255.255"), "client-class": "HA_one" },
                   { "pool": pool("10.48.0.0", "10.79.255.255"), "client-class": "HA_two" }])
        } else {
            json!([{ "pool": pool(self.pool.0, self.pool.1) }])
        };
        let mut dhcp4 = json!({
            "interfaces-config": { "interfaces": ["eth0"], "dhcp-socket-type": "raw" },
            "control-socket": { "socket-type": "unix", "socket-name": lab.path(number, "sock") },
            "lease-database": { "type": "memfile", "persist": true, "name": lab.path(number, "csv"),
                                "lfc-interval": self.lfc_interval_s },
            "valid-lifetime": 4000,
            "loggers": [{ "name": "kea-dhcp4", "severity": "WARN", "output_options": [{ "output": "stderr" }] }],
            "subnet4": [{ "id": 1, "subnet": "10.0.0.0/8", "pools": pools }],
        });
        // Kea's best: one thread for new leases on disk, two for renewals and wherever there is a partner.
        let is_threaded = self.is_pair() || self.kinds[number] == Kind::KeaThreads;
        if self.kinds[number] == Kind::AplomadoUnsynced {
            dhcp4["user-context"] = json!({ "aplomado": { "sync": "never" } });
        }
        if !self.kinds[number].is_ours() {
            dhcp4["multi-threading"] = json!({ "enable-multi-threading": is_threaded, "thread-pool-size": 2,
                                               "packet-queue-size": 64 });
        }
        if self.classes > 0 {
            let class = |number: u32| {
                json!({ "name": format!("class-{number}"),
                        "test": format!("substring(hexstring(pkt4.mac, ':'), 0, 14) == '00:11:22:33:{:02x}'", number % 256) })
            };
            dhcp4["client-classes"] = (0..self.classes).map(class).collect();
        }
        if self.has_lease_commands {
            dhcp4["hooks-libraries"] = json!([{ "library": format!("{hooks}/libdhcp_lease_cmds.so") }]);
            let unix = dhcp4["control-socket"].take();
            let http =
                json!({ "socket-type": "http", "socket-address": "127.0.0.1", "socket-port": COMMANDS_PORT });
            dhcp4["control-sockets"] = json!([unix, http]);
            dhcp4.as_object_mut().and_then(|map| map.remove("control-socket"));
        }
        if self.is_pair() {
            // The default of 256 is some three milliseconds of what our pair carries; no pair of Kea's comes near it.
            dhcp4["parked-packet-limit"] = json!(8192);
            let second = if self.mode == "hot-standby" { "standby" } else { "secondary" };
            let relationship = json!({
                "this-server-name": (["one", "two"][number]), "mode": self.mode,
                "heartbeat-delay": self.delays_ms.0, "max-response-delay": self.delays_ms.1,
                "max-ack-delay": self.delays_ms.0, "max-unacked-clients": 0,
                "multi-threading": { "enable-multi-threading": true, "http-dedicated-listener": true,
                                     "http-listener-threads": 2, "http-client-threads": 2 },
                "peers": [
                    { "name": "one", "url": "http://192.168.9.1:8005/", "role": "primary" },
                    { "name": "two", "url": "http://192.168.9.2:8005/", "role": second },
                ],
            });
            dhcp4["hooks-libraries"] = json!([
                { "library": format!("{hooks}/libdhcp_lease_cmds.so") },
                { "library": format!("{hooks}/libdhcp_ha.so"),
                  "parameters": { "high-availability": [relationship] } },
            ]);
        }
        json!({ "Dhcp4": dhcp4 })
    }
}

/// The state of a server of a pair.
pub(crate) fn state(lab: &Lab, number: usize) -> Option<String> {
    let answer = command(lab, number, "ha-heartbeat", &Value::Null)?;
    Some(answer["arguments"]["state"].as_str()?.to_owned())
}

/// A command by the unix socket, and its answer.
pub(crate) fn command(lab: &Lab, number: usize, command: &str, arguments: &Value) -> Option<Value> {
    let mut stream = UnixStream::connect(lab.path(number, "sock")).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
    let mut body = json!({ "command": command });
    if !arguments.is_null() {
        body["arguments"] = arguments.clone();
    }
    stream.write_all(body.to_string().as_bytes()).ok()?;
    stream.shutdown(Shutdown::Write).ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    serde_json::from_slice(&answer).ok()
}

/// Whether a process's network namespace has a UDP socket on port 67.
fn holds_port_67(process: u32) -> bool {
    let text = std::fs::read_to_string(format!("/proc/{process}/net/udp")).unwrap_or_default();
    text.lines().any(|line| line.split_whitespace().nth(1).is_some_and(|local| local.ends_with(":0043")))
}

/// Writes a lease file of this many leases, which expire `valid_s` after `now_s`.
pub(crate) fn write_leases(path: &Path, count: u32, now_s: u64) -> Result<(), String> {
    let failed = |error| format!("{}: {error}", path.display());
    let file = std::fs::File::create(path).map_err(failed)?;
    let mut out = std::io::BufWriter::with_capacity(1 << 20, file);
    let header = "address,hwaddr,client_id,valid_lifetime,expire,subnet_id,fqdn_fwd,fqdn_rev,hostname,state,user_context,pool_id\n";
    out.write_all(header.as_bytes()).map_err(failed)?;
    let mut row = String::new();
    for number in 0..count {
        row.clear();
        let [a, b, c, d] = (0x0a10_0000 + number).to_be_bytes();
        let [w, x, y, z] = number.to_be_bytes();
        let _ = writeln!(
            row,
            "{a}.{b}.{c}.{d},02:a9:{w:02x}:{x:02x}:{y:02x}:{z:02x},,86400,{},1,0,0,,0,,0",
            now_s + 86_400
        );
        out.write_all(row.as_bytes()).map_err(failed)?;
    }
    out.flush().map_err(failed)
}
