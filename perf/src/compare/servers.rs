//! The servers that are compared, each configured as its own manual recommends, with leases on disk.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::stage::{Server, Stage};

/// A server, or a pair of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Ours.
    Aplomado,
    /// Kea with one packet thread.
    Kea,
    /// Kea with two packet threads.
    KeaThreads,
    /// ISC dhcpd.
    Dhcpd,
    /// dnsmasq.
    Dnsmasq,
    /// A port that answers without rules, state and disk.
    Reflector,
}

impl Kind {
    pub(crate) const ALL: [Self; 6] =
        [Self::Aplomado, Self::Kea, Self::KeaThreads, Self::Dhcpd, Self::Dnsmasq, Self::Reflector];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Aplomado => "aplomado",
            Self::Kea => "kea",
            Self::KeaThreads => "kea-threads",
            Self::Dhcpd => "dhcpd",
            Self::Dnsmasq => "dnsmasq",
            Self::Reflector => "reflector",
        }
    }

    const fn program(self) -> Option<&'static str> {
        match self {
            Self::Aplomado | Self::Reflector => None,
            Self::Kea | Self::KeaThreads => Some("/usr/sbin/kea-dhcp4"),
            Self::Dhcpd => Some("/usr/sbin/dhcpd"),
            Self::Dnsmasq => Some("/usr/sbin/dnsmasq"),
        }
    }

    /// What the generator must be told for it. These two send to the client's hardware address where the others send to where the query
    /// came from, which a generator of a million clients on one interface does not hear: they are asked through a relay.
    pub(crate) const fn load_arguments(self) -> &'static str {
        match self {
            Self::Dhcpd | Self::Dnsmasq => "--giaddr 10.0.0.100 --server 10.0.0.1",
            _ => "",
        }
    }

    /// Whether it is on this machine.
    pub(crate) fn is_here(self) -> bool {
        self.program().is_none_or(|program| std::path::Path::new(program).exists())
    }
}

/// The half of a pair that a server is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Half {
    pub(crate) mode: &'static str,
}

/// Starts server `number` (counted from 1) and waits until it serves.
pub(crate) fn start(
    stage: &Stage,
    number: usize,
    kind: Kind,
    half: Option<Half>,
    core: Option<usize>,
    aplomado: &std::path::Path,
) -> Result<Server, String> {
    let configuration = stage.path(number, "conf");
    let text = |path: &PathBuf| path.display().to_string();
    let write = |content: String| {
        std::fs::write(&configuration, content)
            .map_err(|error| format!("{}: {error}", configuration.display()))
    };
    let words: Vec<String> = match kind {
        Kind::Aplomado | Kind::Kea | Kind::KeaThreads => {
            write(kea_configuration(stage, number, kind, half).to_string())?;
            let mut words = match kind.program() {
                Some(program) => vec![program.to_owned()],
                None => vec![aplomado.display().to_string(), "run".to_owned()],
            };
            words.extend(["-c".to_owned(), text(&configuration)]);
            words
        }
        Kind::Dhcpd => {
            let leases = stage.path(number, "leases");
            std::fs::write(&leases, "").map_err(|error| error.to_string())?;
            write(
                "authoritative; default-lease-time 4000; max-lease-time 4000; ping-check off;\n\
                 delayed-ack 64; max-ack-delay 5000;\n\
                 subnet 10.0.0.0 netmask 255.0.0.0 { range 10.1.0.0 10.8.255.255; }\n"
                    .to_owned(),
            )?;
            ["/usr/sbin/dhcpd", "-4", "-f", "-d", "-q", "-cf", &text(&configuration), "-lf", &text(&leases)]
                .into_iter()
                .map(str::to_owned)
                .chain(["-pf".to_owned(), text(&stage.path(number, "pid")), "srv0".to_owned()])
                .collect()
        }
        Kind::Dnsmasq => [
            "/usr/sbin/dnsmasq",
            "--keep-in-foreground",
            "--port=0",
            "--conf-file=/dev/null",
            "--interface=srv0",
            "--bind-interfaces",
            "--no-ping",
            "--quiet-dhcp",
            "--user=root",
            "--log-facility=-",
            "--dhcp-lease-max=600000",
            "--dhcp-range=10.1.0.0,10.8.255.255,255.0.0.0,4000",
            "--dhcp-authoritative",
        ]
        .into_iter()
        .map(str::to_owned)
        .chain([
            format!("--dhcp-leasefile={}", text(&stage.path(number, "leases"))),
            format!("--pid-file={}", text(&stage.path(number, "pid"))),
        ])
        .collect(),
        Kind::Reflector => {
            let own = std::env::current_exe().map_err(|error| error.to_string())?;
            [own.display().to_string(), "reflect".to_owned(), "-i".to_owned(), "srv0".to_owned()]
                .into_iter()
                .chain(["-d", "3600", "--answer"].map(str::to_owned))
                .collect()
        }
    };
    let mut server = stage.spawn(number, &words, core)?;
    match (kind, half) {
        (_, Some(half)) => {
            let socket = stage.path(number, "sock");
            if number == 1 {
                // The partner is not there yet: its state is asked for when both run.
                std::thread::park_timeout(std::time::Duration::from_millis(300));
            } else {
                server.await_ready(|| state(&socket).as_deref() == Some(half.mode))?;
            }
        }
        (Kind::Reflector, _) => {
            // Its messages go to the log, too.
            std::thread::park_timeout(std::time::Duration::from_millis(300));
        }
        (Kind::Dhcpd | Kind::Dnsmasq, _) => {
            std::thread::park_timeout(std::time::Duration::from_millis(1500));
        }
        _ => {
            let probe = "-e dora -c 1 -w 1 -d 0.05 --drain 0.1 --prefix 06a9";
            server.await_ready(|| {
                stage.load(probe, None).is_ok_and(|said| said["completed"].as_u64().unwrap_or(0) > 0)
            })?;
        }
    }
    Ok(server)
}

/// The HA state that a server says.
pub(crate) fn state(socket: &std::path::Path) -> Option<String> {
    use std::io::{Read as _, Write as _};
    let mut stream = std::os::unix::net::UnixStream::connect(socket).ok()?;
    stream.set_read_timeout(Some(std::time::Duration::from_secs(5))).ok()?;
    stream.write_all(br#"{ "command": "ha-heartbeat" }"#).ok()?;
    stream.shutdown(std::net::Shutdown::Write).ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    let value: Value = serde_json::from_slice(&answer).ok()?;
    Some(value["arguments"]["state"].as_str()?.to_owned())
}

fn kea_configuration(stage: &Stage, number: usize, kind: Kind, half: Option<Half>) -> Value {
    let threads = kind == Kind::KeaThreads || half.is_some();
    let hooks = "/usr/lib/x86_64-linux-gnu/kea/hooks";
    let balanced = half.is_some_and(|half| half.mode == "load-balancing");
    let pools = if balanced {
        json!([{ "pool": "10.1.0.0 - 10.4.255.255", "client-class": "HA_one" },
               { "pool": "10.5.0.0 - 10.8.255.255", "client-class": "HA_two" }])
    } else {
        json!([{ "pool": "10.1.0.0 - 10.8.255.255" }])
    };
    let libraries = half.map_or_else(
        || json!([]),
        |half| {
            let second = if half.mode == "hot-standby" { "standby" } else { "secondary" };
            let own = if number == 1 { "one" } else { "two" };
            json!([
                { "library": format!("{hooks}/libdhcp_lease_cmds.so") },
                { "library": format!("{hooks}/libdhcp_ha.so"), "parameters": { "high-availability": [ {
                    "this-server-name": own, "mode": half.mode,
                    "heartbeat-delay": 500, "max-response-delay": 10_000, "max-ack-delay": 5000,
                    "max-unacked-clients": 10,
                    "multi-threading": { "enable-multi-threading": true, "http-dedicated-listener": true,
                        "http-listener-threads": 2, "http-client-threads": 2 },
                    "peers": [
                        { "name": "one", "url": "http://10.255.0.1:8005/", "role": "primary" },
                        { "name": "two", "url": "http://10.255.0.2:8005/", "role": second } ] } ] } },
            ])
        },
    );
    let mut configuration = json!({ "Dhcp4": {
        "interfaces-config": { "interfaces": ["srv0"], "dhcp-socket-type": "raw" },
        "control-socket": { "socket-type": "unix", "socket-name": stage.path(number, "sock") },
        "lease-database": { "type": "memfile", "persist": true, "name": stage.path(number, "csv"),
                            "lfc-interval": 0 },
        "multi-threading": { "enable-multi-threading": threads, "thread-pool-size": 2, "packet-queue-size": 64 },
        "valid-lifetime": 4000,
        "hooks-libraries": libraries,
        "loggers": [{ "name": "kea-dhcp4", "severity": "WARN", "output_options": [{ "output": "stderr" }] }],
        "subnet4": [{ "id": 1, "subnet": "10.0.0.0/8", "interface": "srv0", "pools": pools }],
    } });
    if kind == Kind::Aplomado {
        // `enable-multi-threading: false` would mean one shard: ours is what its default is, one shard for each core.
        configuration["Dhcp4"]["multi-threading"] =
            json!({ "enable-multi-threading": true, "thread-pool-size": 0 });
    }
    configuration
}
