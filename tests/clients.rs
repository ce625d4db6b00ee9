//! The built server and real clients, in network namespaces made for each test: `udhcpc`, `dhclient`, `perfdhcp`, and Kea as
//! the reader of the lease file.
//!
//! ```text
//!   namespace cl-PID-N-s                 namespace cl-PID-N-c
//!   srv0 192.0.2.1/24    <---- veth ---->  cli0 192.0.2.2/24
//! ```
//! They need root and the `ip` command; where these or a client are missing, a test says `SKIPPED` and why. No packet leaves the
//! namespaces.

#[path = "clients/world.rs"]
mod world;

use std::collections::HashSet;
use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, UdpSocket};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use aplomado::ids::InterfaceId;
use aplomado::net::link::{Selected, Snapshot};
use aplomado::net::packet::{self, Hear, PacketOptions};
use aplomado::net::{Doorbell, PacketPort, PortSet, RxBatch};
use aplomado::wire::codes::MessageType;
use aplomado::wire::dhcp4::{self, Packet};
use aplomado::wire::frame::{self, Arrival};
use aplomado::wire::option::OptionTable;
use serde_json::{Value, json};
use world::{PATIENCE, World, skip};

const ONE_ADDRESS: &str = "192.0.2.100 - 192.0.2.100";
const MANY_ADDRESSES: &str = "192.0.2.10 - 192.0.2.250";

#[test]
fn udhcpc_gets_renews_and_releases() {
    let Some(world) = World::new(&["udhcpc"]) else { return };
    let server = world.serve(&world.config(ONE_ADDRESS, &json!({})));
    let script = world.script();
    let mut client =
        world.start_client("udhcpc", &["-f", "-i", "cli0", "-s", &script, "-t", "20", "-T", "1"]);
    assert_eq!(client.wait_for("bound"), "bound 192.0.2.100 by 192.0.2.1");
    assert_eq!(world.rows()[&Ipv4Addr::new(192, 0, 2, 100)], ("02:00:00:00:00:02".to_owned(), true));
    client.signal("USR1");
    assert_eq!(client.wait_for("renew"), "renew 192.0.2.100 by 192.0.2.1");
    client.signal("USR2");
    client.wait_for("deconfig");
    client.kill();
    // The only address of the pool goes to the next client, so it was given back.
    world.ip_at_client(&["link", "set", "cli0", "address", "02:00:00:00:00:99"]);
    assert_eq!(world.udhcpc_once("cli0", 20).as_deref(), Some("bound 192.0.2.100 by 192.0.2.1"));
    server.signal("TERM");
    assert_eq!(server.wait_for_end().0.code(), Some(0));
}

#[test]
fn an_address_that_is_held_goes_to_nobody_else() {
    let Some(world) = World::new(&["udhcpc"]) else { return };
    let _server = world.serve(&world.config(ONE_ADDRESS, &json!({})));
    assert!(world.udhcpc_once("cli0", 20).is_some());
    world.ip_at_client(&["link", "set", "cli0", "address", "02:00:00:00:00:99"]);
    assert_eq!(world.udhcpc_once("cli0", 3), None);
}

#[test]
fn dhclient_gets_renews_and_releases() {
    let Some(world) = World::new(&["dhclient", "udhcpc"]) else { return };
    let _server = world.serve(&world.config(ONE_ADDRESS, &json!({ "renew-timer": 1 })));
    let (script, leases, pid) = (world.script(), world.path("dhclient.leases"), world.path("dhclient.pid"));
    let config = world.path("dhclient.conf");
    fs::write(&config, "retry 1;\ninitial-interval 1;\nbackoff-cutoff 1;\n").expect("room");
    fs::write(&leases, "").expect("room");
    let (leases, pid) = (leases.display().to_string(), pid.display().to_string());
    let config = config.display().to_string();
    let common = ["-4", "-sf", &script, "-lf", &leases, "-pf", &pid, "-cf", &config];
    let mut client = world.start_client("dhclient", &[&["-d"], &common[..], &["cli0"]].concat());
    assert_eq!(client.wait_for("BOUND"), "BOUND 192.0.2.100 by 192.0.2.1");
    assert_eq!(client.wait_for("RENEW"), "RENEW 192.0.2.100 by 192.0.2.1");
    let released = world.run_client("dhclient", &[&["-r"], &common[..], &["cli0"]].concat());
    assert!(String::from_utf8_lossy(&released.stdout).contains("RELEASE"), "{released:?}");
    drop(client);
    world.ip_at_client(&["link", "set", "cli0", "address", "02:00:00:00:00:99"]);
    assert_eq!(world.udhcpc_once("cli0", 20).as_deref(), Some("bound 192.0.2.100 by 192.0.2.1"));
}

#[test]
fn perfdhcp_loses_nothing_and_sees_no_address_twice() {
    let Some(world) = World::new(&["perfdhcp"]) else { return };
    let _server = world.serve(&world.config(MANY_ADDRESSES, &json!({})));
    let text = perfdhcp(&world, &["-r", "100", "-f", "30", "-R", "200", "-p", "5", "-u"]);
    let drops: Vec<&str> = text.lines().filter(|line| line.starts_with("drops:")).collect();
    assert!(drops.len() >= 2 && drops.iter().all(|line| *line == "drops: 0"), "{text}");
    assert!(text.lines().any(|line| line.starts_with("non unique addresses: 0")), "{text}");
    let received: u64 = numbers(&text, "received packets: ").sum();
    assert!(received > 500, "{received} answers\n{text}");
}

#[test]
fn each_interface_gives_addresses_of_its_own_subnet() {
    let Some(world) = World::new(&["udhcpc"]) else { return };
    world.add_wire(1, "198.51.100");
    let config = world.config(
        ONE_ADDRESS,
        &json!({
            "interfaces-config": { "interfaces": ["srv0", "srv1"] },
            "subnet4": [
                { "id": 1, "subnet": "192.0.2.0/24", "pools": [ { "pool": ONE_ADDRESS } ] },
                { "id": 2, "subnet": "198.51.100.0/24",
                  "pools": [ { "pool": "198.51.100.50 - 198.51.100.50" } ] },
            ],
        }),
    );
    let _server = world.serve(&config);
    assert_eq!(world.udhcpc_once("cli1", 20).as_deref(), Some("bound 198.51.100.50 by 198.51.100.1"));
    assert_eq!(world.udhcpc_once("cli0", 20).as_deref(), Some("bound 192.0.2.100 by 192.0.2.1"));
}

#[test]
fn udp_sockets_answer_a_relay() {
    let Some(world) = World::new(&[]) else { return };
    let config = world.config(
        ONE_ADDRESS,
        &json!({ "interfaces-config": { "interfaces": ["srv0"], "dhcp-socket-type": "udp" } }),
    );
    let _server = world.serve(&config);
    let answer = world.in_client(|| {
        let socket = UdpSocket::bind((Ipv4Addr::new(192, 0, 2, 2), 67)).expect("a relay's port");
        socket.set_read_timeout(Some(Duration::from_secs(2))).expect("a timeout");
        let mut query = vec![0; 300];
        query[..4].copy_from_slice(&[1, 1, 6, 1]);
        query[4..8].copy_from_slice(&[1, 2, 3, 4]);
        query[24..28].copy_from_slice(&[192, 0, 2, 2]);
        query[28..34].copy_from_slice(&[2, 0, 0, 0, 7, 7]);
        query[236..244].copy_from_slice(&[0x63, 0x82, 0x53, 0x63, 53, 1, 1, 255]);
        let mut answer = vec![0; 1500];
        for _ in 0..10 {
            socket.send_to(&query, (Ipv4Addr::new(192, 0, 2, 1), 67)).expect("the wire is there");
            if let Ok((len, from)) = socket.recv_from(&mut answer) {
                answer.truncate(len);
                return Some((from.to_string(), answer));
            }
        }
        None
    });
    let (from, answer) = answer.expect("an answer within ten tries");
    assert_eq!(from, "192.0.2.1:67");
    let mut table = OptionTable::new();
    let head = dhcp4::parse(&answer, &mut table).expect("a DHCP message");
    let packet = Packet::new_checked(&answer).expect("a DHCP message");
    assert_eq!(head.message_type, Some(MessageType::Offer));
    assert_eq!((packet.xid(), packet.yiaddr()), (0x0102_0304, Ipv4Addr::new(192, 0, 2, 100)));
    assert_eq!(packet.giaddr(), Ipv4Addr::new(192, 0, 2, 2));
}

#[test]
fn every_ack_on_the_wire_survives_kill_9() {
    let Some(world) = World::new(&["perfdhcp"]) else { return };
    let config = world.config(
        "10.9.1.0 - 10.9.255.250",
        &json!({ "subnet4": [ { "id": 1, "subnet": "10.9.0.0/16", "relay": { "ip-addresses": ["192.0.2.2"] },
                                "pools": [ { "pool": "10.9.1.0 - 10.9.255.250" } ] } ] }),
    );
    let server = world.serve(&config);
    // perfdhcp stands as a relay: answers go to its port 67.
    let mut ears = world.in_client(|| Ears::open("cli0"));
    let load = world.start_client(
        "perfdhcp",
        &["-4", "-l", "cli0", "-r", "500", "-R", "20000", "-p", "20", "-W", "1", "192.0.2.1"],
    );
    let mut acks = HashSet::new();
    while acks.len() < 600 {
        assert!(ears.listen(&mut acks), "{} ACKs and no more within {PATIENCE:?}", acks.len());
    }
    server.kill();
    while ears.listen_now(&mut acks) {}
    load.kill();
    let rows = world.rows();
    let missing: Vec<_> =
        acks.iter().filter(|(address, mac)| rows.get(address) != Some(&(mac.clone(), true))).collect();
    assert!(
        missing.is_empty(),
        "{} of {} acknowledged leases are not in the file: {missing:?}",
        missing.len(),
        acks.len()
    );

    let mut server = world.start_server(&config);
    let line = server.wait_for("lease(s) loaded");
    let loaded: usize = numbers(&line.replace(", ", "\n"), "")
        .last()
        .map_or(0, |count| usize::try_from(count).expect("small"));
    let held = rows.values().filter(|(_, held)| *held).count();
    assert_eq!(loaded, held, "{line}");
    server.signal("TERM");
    assert_eq!(server.wait_for_end().0.code(), Some(0));
}

#[test]
fn sigterm_and_sigint_end_well() {
    let Some(world) = World::new(&[]) else { return };
    let config = world.config(ONE_ADDRESS, &json!({}));
    for signal in ["TERM", "INT"] {
        let server = world.serve(&config);
        server.signal(signal);
        let (status, said) = server.wait_for_end();
        assert_eq!(status.code(), Some(0), "after SIG{signal}: {said}");
    }
}

#[test]
fn a_second_server_on_the_same_lease_file_is_refused() {
    let Some(world) = World::new(&[]) else { return };
    let config = world.config(ONE_ADDRESS, &json!({}));
    let first = world.serve(&config);
    let (status, said) = world.start_server(&config).wait_for_end();
    assert_eq!(status.code(), Some(3), "{said}");
    let leases = world.leases().display().to_string();
    assert!(said.contains("cannot start") && said.contains(&leases), "the file is named: {said}");
    // The first is not disturbed, and a killed one leaves no obstacle.
    first.kill();
    let again = world.serve(&config);
    again.signal("TERM");
    assert_eq!(again.wait_for_end().0.code(), Some(0));
}

#[test]
fn a_bad_configuration_is_refused_with_its_place() {
    let folder = tempfile::tempdir().expect("a folder for temporary files");
    let path = folder.path().join("bad.conf");
    fs::write(&path, "{ \"Dhcp4\": {\n  \"valid-lifetme\": 60\n} }\n").expect("room");
    let output = Command::new(env!("CARGO_BIN_EXE_aplomado"))
        .arg("run")
        .arg("-c")
        .arg(&path)
        .stdin(Stdio::null())
        .output()
        .expect("the server runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(&format!("{}:2:", path.display())), "{said}");
    assert!(said.contains("valid-lifetime"), "the nearest known key: {said}");
}

#[test]
fn an_interface_that_comes_later_or_changes_its_address_is_served() {
    let Some(world) = World::without_wire(&["udhcpc"]) else { return };
    // One that is named must be there at the start, as with Kea; with the wildcard it may come.
    let any = json!({ "interfaces-config": { "interfaces": ["*"] } });
    let _server = world.serve(&world.config(ONE_ADDRESS, &any));
    world.add_wire(0, "192.0.2");
    assert_eq!(world.udhcpc_once("cli0", 20).as_deref(), Some("bound 192.0.2.100 by 192.0.2.1"));
    world.ip_at_server(&["addr", "del", "192.0.2.1/24", "dev", "srv0"]);
    world.ip_at_server(&["addr", "add", "192.0.2.9/24", "dev", "srv0"]);
    // The server hears of it a moment after we have done it.
    let served =
        (0..20).any(|_| world.udhcpc_once("cli0", 5).as_deref() == Some("bound 192.0.2.100 by 192.0.2.9"));
    assert!(served, "answers come from the new address");
    world.ip_at_server(&["link", "del", "srv0"]);
    world.add_wire(0, "192.0.2");
    assert_eq!(world.udhcpc_once("cli0", 20).as_deref(), Some("bound 192.0.2.100 by 192.0.2.1"));
}

#[test]
fn kea_loads_the_lease_file_that_we_wrote() {
    const KEA: &str = "/usr/sbin/kea-dhcp4";
    let Some(world) = World::new(&["perfdhcp", "kea-dhcp4"]) else { return };
    let hooks = ["x86_64-linux-gnu/", "aarch64-linux-gnu/", ""]
        .map(|machine| format!("/usr/lib/{machine}kea/hooks/libdhcp_lease_cmds.so"));
    let Some(hook) = hooks.into_iter().find(|hook| Path::new(hook).exists()) else {
        return skip("Kea's lease commands are not installed");
    };
    let server = world.serve(&world.config(MANY_ADDRESSES, &json!({})));
    let text = perfdhcp(&world, &["-r", "100", "-f", "20", "-F", "20", "-R", "150", "-p", "3"]);
    server.signal("TERM");
    assert_eq!(server.wait_for_end().0.code(), Some(0));
    let mut ours: Vec<String> = world
        .rows()
        .into_iter()
        .filter(|(_, (_, held))| *held)
        .map(|(address, (hw_addr, _))| format!("{address} {hw_addr}"))
        .collect();
    assert!(ours.len() > 50, "{} leases\n{text}", ours.len());

    let socket = world.path("kea.sock");
    let config = json!({ "Dhcp4": {
        "interfaces-config": { "interfaces": [] },
        "control-socket": { "socket-type": "unix", "socket-name": socket },
        "lease-database": { "type": "memfile", "name": world.leases(), "lfc-interval": 0 },
        "expired-leases-processing": { "reclaim-timer-wait-time": 0, "flush-reclaimed-timer-wait-time": 0 },
        "hooks-libraries": [ { "library": hook } ],
        "subnet4": [ { "id": 1, "subnet": "192.0.2.0/24" } ],
        "loggers": [ { "name": "kea-dhcp4", "severity": "INFO",
                       "output_options": [ { "output": "stderr", "flush": true } ] } ],
    } });
    let path = world.path("kea.conf");
    fs::write(&path, config.to_string()).expect("room");
    let mut kea = world.start_kea(KEA, &path);
    kea.wait_for("DHCP4_STARTED");
    let mut stream = UnixStream::connect(&socket).expect("Kea listens");
    stream.write_all(b"{ \"command\": \"lease4-get-all\" }").expect("Kea reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("Kea answers");
    let answer: Value = serde_json::from_str(&answer).expect("JSON");
    let leases = answer["arguments"]["leases"].as_array().expect("leases");
    let mut kept: Vec<String> = leases
        .iter()
        .filter(|lease| lease["valid-lft"] != 0)
        .map(|lease| {
            let text = |key: &str| lease[key].as_str().unwrap_or("").to_owned();
            format!("{} {}", text("ip-address"), text("hw-address"))
        })
        .collect();
    ours.sort();
    kept.sort();
    assert_eq!(kept, ours);
    assert!(!kea.said().contains("ERROR"), "{}", kea.said());
}

/// Runs `perfdhcp` as a relay at `192.0.2.2` and returns what it printed. It waits half a second for the last answers.
fn perfdhcp(world: &World, arguments: &[&str]) -> String {
    let common = ["-4", "-l", "cli0", "-W", "500000"];
    let output = world.run_client("perfdhcp", &[&common, arguments, &["192.0.2.1"]].concat());
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        matches!(output.status.code(), Some(0 | 3)),
        "{:?} {text} {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    text
}

/// The number after `label` (or at the start) of each line that has one.
fn numbers<'a>(text: &'a str, label: &'a str) -> impl Iterator<Item = u64> + 'a {
    text.lines().filter_map(move |line| line.strip_prefix(label)?.split(' ').next()?.parse().ok())
}

/// Hears what the server sends to relays.
struct Ears {
    set: PortSet<PacketPort>,
    batch: RxBatch,
    table: OptionTable,
}

impl Ears {
    fn open(link: &str) -> Self {
        let snapshot = Snapshot::read().expect("the kernel lists interfaces");
        let link = snapshot.link(link).expect("the wire is there");
        let selected = Selected {
            name: link.name.clone(),
            index: link.index,
            mac: link.mac.expect("Ethernet"),
            addresses: link.ipv4().collect(),
        };
        let options = PacketOptions {
            ring_slots: 8192,
            hear: Hear::All,
            rings_apart: false,
            ..PacketOptions::default()
        };
        let mut set = PortSet::new(Arc::new(Doorbell::new().expect("an eventfd")));
        for port in packet::open(&selected, InterfaceId(0), 1, (1, 1), &options).expect("root may") {
            assert!(set.add(port).is_ok(), "there is room");
        }
        Self { set, batch: RxBatch::new(), table: OptionTable::new() }
    }

    /// Waits for frames and notes the ACKs among them; whether any frame came.
    fn listen(&mut self, acks: &mut HashSet<(Ipv4Addr, String)>) -> bool {
        self.set.wait(PATIENCE, || false).expect("poll works");
        self.listen_now(acks)
    }

    /// Notes the ACKs among the frames that are there; whether there were frames.
    fn listen_now(&mut self, acks: &mut HashSet<(Ipv4Addr, String)>) -> bool {
        let count = self.set.recv(&mut self.batch);
        for frame in self.batch.frames() {
            let bytes = self.set.bytes(frame);
            let arrival = Arrival { tag_stripped: false, checksum_not_ready: true };
            let Ok(datagram) = frame::parse(bytes, arrival) else { continue };
            let payload = datagram.payload(bytes);
            let Ok(head) = dhcp4::parse(payload, &mut self.table) else { continue };
            let Ok(packet) = Packet::new_checked(payload) else { continue };
            if head.message_type == Some(MessageType::Ack) {
                let mac: Vec<String> = packet.chaddr().iter().map(|octet| format!("{octet:02x}")).collect();
                acks.insert((packet.yiaddr(), mac.join(":")));
            }
        }
        self.set.recycle(&mut self.batch);
        count > 0
    }
}
