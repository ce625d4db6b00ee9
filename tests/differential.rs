//! The scenarios of `tests/data/dora` put to Debian's Kea 2.2 as well, answer by answer and field by field.
//!
//! Kea runs in a network namespace of its own behind a veth pair; each scenario becomes its configuration by `config-set`, with leases
//! in memory only, and each query goes to it and to one shard in this process. Behind every query goes an INFORM: once that
//! is answered, what was not answered before will not be. Scenarios that make up time, or restart, or need what Kea 2.2 does
//! not know, are left out and counted.
//!
//! It needs root, `ip` and `kea-dhcp4`; where one is missing it says `SKIPPED` and why.

mod scenario;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use aplomado::classify::steer::Steering;
use aplomado::ids::InterfaceId;
use aplomado::net::link::{self, Monitor, Selected, Snapshot, SocketType};
use aplomado::net::packet::{self as packet_port, Hear, PacketOptions};
use aplomado::net::{Doorbell, FrameSlab, PacketPort, PortSet, RxBatch, TxBatch, enter_network_namespace};
use scenario::packet::{self, Answer};
use scenario::world::{Fate, World};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/dora");
const CLIENT_MAC: &str = "02:00:00:00:00:02";
const IFACE: InterfaceId = InterfaceId(0);
/// Longest wait for something that must come.
const PATIENCE: Duration = Duration::from_secs(10);
/// The same for an INFORM, which takes a millisecond.
const SENTINEL_PATIENCE: Duration = Duration::from_secs(3);
/// Longest the whole comparison may take.
const TIME_MAX: Duration = Duration::from_secs(55);
/// Fewer compared answers mean that something keeps the comparison from happening.
const ANSWERS_MIN: usize = 150;

/// Scenarios in which what Kea does depends on its clock: these may be played again, and count when they differ each time.
const BY_THE_CLOCK: &[(&str, &str)] = &[(
    "shared-network-goes-on-where-it-last-allocated",
    "Kea goes on in the subnet whose last try at an address is later, to the microsecond; two tries in one are a draw",
)];

/// Where we answer otherwise than Kea 2.2, on purpose: scenario, field, reason. `*` is every scenario, or every field; the field `answer`
/// is that there is one at all.
const DIFFERENCES: &[(&str, &str, &str)] = &[
    ("*", "l2", "since 2.6 the frame is broadcast too when the flag asks for it"),
    ("class-drop-drops-and-reject-rejects", "*", "the class REJECT came with 3.2"),
    (
        "client-that-can-do-without-ipv4-gets-no-lease",
        "*",
        "RFC 8925 is honoured since 2.3: no lease, no timers",
    ),
    (
        "first-and-last-of-a-slash-24-can-be-excluded",
        "*",
        "exclude-first-last-24 came with 2.7; 2.2 takes it and does nothing",
    ),
    (
        "link-selection-can-be-ignored",
        "yiaddr",
        "ignore-rai-link-selection came later; 2.2 takes it and does nothing",
    ),
    (
        "server-identifiers-can-be-ignored",
        "answer",
        "ignore-dhcp-server-identifier came later; 2.2 takes it and does nothing",
    ),
    (
        "global-reservation-counts-where-global-reservations-are-on",
        "*",
        "3.x gives a global reservation's address only where it fits the subnet",
    ),
    (
        "long-options-are-cut-into-pieces",
        "answer",
        "client identifiers may have 255 octets since 2.3; 2.2 drops those over 128",
    ),
    (
        "refusal-echoes-identifier-and-relay-information",
        "flags",
        "since 2.6 a relayed refusal has the BROADCAST flag",
    ),
    (
        "release-keeps-the-lease-for-its-client",
        "*",
        "2.2 deletes released leases; affinity after release came with 2.4",
    ),
    (
        "reservation-in-another-subnet-of-the-network-moves-the-client",
        "*",
        "3.x moves the client to the subnet of a reservation without address too",
    ),
    (
        "sloppy-messages-are-served",
        "hlen",
        "2.2 answers hlen 17 to 20 with 16 and an empty chaddr, which no client can take for its own",
    ),
    ("sloppy-messages-are-served", "chaddr", "the same"),
    ("template-class-spawns-the-specific-class-first", "*", "template classes came with 2.5"),
    ("vendor-class-is-assigned-raw-and-escaped", "file", "escaped names came with 3.1"),
    (
        "vendor-options-go-to-their-enterprise",
        "*",
        "3.x answers every enterprise that option 124 names, 2.2 only that of option 125",
    ),
    (
        "odd-names-are-cleaned",
        "*",
        "3.x sends no name when nothing is left of the client's; 2.2 sends the suffix or the root",
    ),
    ("odd-relay-information-is-echoed", "opt82", "2.2 doubles what came in two pieces"),
    (
        "reboot-without-a-subnet-asks-the-global-authoritative",
        "answer",
        "2.2 drops what a client without subnet broadcasts",
    ),
    ("reboot-without-a-subnet-is-ignored-when-not-authoritative", "answer", "the same"),
    ("subnet-guarded-by-known-is-never-selected", "answer", "the same"),
];

/// Scenarios whose outcome under Kea 2.2 goes another way from some step on, on purpose: they are not compared.
const OTHER_WAYS: &[(&str, &str)] = &[
    ("answers-go-to-the-sender-not-to-chaddr", "this client does not hear frames to another"),
    ("class-drop-by-reservation-and-by-known", "it drops the INFORM that goes behind each query, too"),
    ("relay-port-is-honoured", "this client does not hear another port"),
];

fn skip(why: &str) {
    let _ = writeln!(io::stderr(), "SKIPPED: {}", why.trim_end());
}

fn ip(arguments: &[&str]) -> Result<(), String> {
    let output = Command::new("ip").args(arguments).output().map_err(|error| error.to_string())?;
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

/// Kea in its namespace, a client's end of the wire, and what both need removed afterwards.
struct Bench {
    spaces: [String; 2],
    folder: PathBuf,
    kea: Option<Child>,
}

impl Drop for Bench {
    fn drop(&mut self) {
        if let Some(kea) = &mut self.kea {
            let _ = kea.kill();
            let _ = kea.wait();
        }
        for space in &self.spaces {
            let _ = ip(&["netns", "del", space]);
        }
        if std::env::var_os("DIFFERENTIAL_LOG").is_none() {
            let _ = fs::remove_dir_all(&self.folder);
        }
    }
}

impl Bench {
    /// The wire and a Kea that listens to commands; nothing after saying why not.
    fn new() -> Option<Self> {
        if Command::new("kea-dhcp4").arg("-v").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err() {
            skip("there is no kea-dhcp4 here to compare with");
            return None;
        }
        let name = |end: &str| format!("pf-{}-{end}", std::process::id());
        let mut bench = Self {
            spaces: [name("s"), name("c")],
            folder: std::env::temp_dir().join(name("kea")),
            kea: None,
        };
        for space in &bench.spaces {
            if let Err(why) = ip(&["netns", "add", space]) {
                skip(&format!("no network namespaces here: {why}"));
                return None;
            }
        }
        let [server, client] = [bench.spaces[0].clone(), bench.spaces[1].clone()];
        let run = |arguments: &[&str]| ip(arguments).unwrap_or_else(|why| panic!("ip {arguments:?}: {why}"));
        run(&["-n", &server, "link", "add", "v0", "type", "veth", "peer", "name", "c0", "netns", &client]);
        run(&["-n", &server, "link", "add", "v1", "type", "veth", "peer", "name", "c1", "netns", &client]);
        for (space, device, mac, address) in [
            (&server, "v0", "02:00:00:00:00:01", "192.0.2.1/24"),
            (&server, "v1", "02:00:00:00:00:03", "10.20.0.1/24"),
            (&client, "c0", CLIENT_MAC, "192.0.2.254/24"),
            (&client, "c1", "02:00:00:00:00:04", "10.20.0.254/24"),
        ] {
            run(&["-n", space, "link", "set", device, "address", mac, "addrgenmode", "none"]);
            run(&["-n", space, "addr", "add", address, "dev", device]);
            run(&["-n", space, "link", "set", device, "up"]);
        }
        fs::create_dir_all(&bench.folder).expect("a folder for Kea");
        let file = bench.folder.join("kea.conf");
        fs::write(&file, bench.configuration("")).expect("a configuration for Kea");
        // The namespace is what the interface must be running in before Kea opens its sockets.
        enter(&server);
        drop((selected("v0"), selected("v1")));
        let kea = Command::new("kea-dhcp4")
            .arg("-c")
            .arg(&file)
            .env("KEA_LOCKFILE_DIR", &bench.folder)
            .env("KEA_PIDFILE_DIR", &bench.folder)
            .env("KEA_LOGGER_DESTINATION", bench.folder.join("log"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        bench.kea = Some(kea.expect("it has just told its version"));
        Some(bench)
    }

    /// A whole configuration with these members.
    fn configuration(&self, members: &str) -> String {
        let folder = self.folder.display();
        let comma = if members.trim().is_empty() { "" } else { "," };
        format!(
            "{{ \"Dhcp4\": {{ {} {comma}
               \"interfaces-config\": {{ \"interfaces\": [ \"v0\", \"v1\" ] }},
               \"lease-database\": {{ \"type\": \"memfile\", \"persist\": false }},
               \"multi-threading\": {{ \"enable-multi-threading\": false }},
               \"control-socket\": {{ \"socket-type\": \"unix\", \"socket-name\": \"{folder}/ctl\" }},
               \"loggers\": [ {{ \"name\": \"kea-dhcp4\", \"severity\": \"DEBUG\", \"debuglevel\": 40,
                   \"output_options\": [ {{ \"output\": \"{folder}/log\", \"flush\": true }} ] }} ] }} }}",
            members.trim().trim_end_matches(',')
        )
    }

    /// Tells Kea a command; its result code and text.
    fn tell(&self, command: &str) -> (i64, String) {
        let started = now();
        let mut stream = loop {
            match UnixStream::connect(self.folder.join("ctl")) {
                Ok(stream) => break stream,
                Err(error) => assert!(started.elapsed() < PATIENCE, "Kea does not listen: {error}"),
            }
            std::thread::yield_now();
        };
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream.write_all(command.as_bytes()).expect("Kea reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("Kea answers");
        let value: serde_json::Value = serde_json::from_str(&answer).expect("JSON");
        let value = value.get(0).unwrap_or(&value).clone();
        let text = value["text"].as_str().unwrap_or("").to_owned();
        (value["result"].as_i64().expect("a result"), text)
    }

    /// Kea serves this configuration from now on, without any lease.
    fn configure(&self, members: &str) -> Result<(), String> {
        let configuration = self.configuration(members);
        match self.tell(&format!("{{ \"command\": \"config-set\", \"arguments\": {configuration} }}")) {
            (0, _) => Ok(()),
            (_, why) => Err(why),
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "another program is waited for in real time")]
fn now() -> Instant {
    Instant::now()
}

fn enter(space: &str) {
    let file = File::open(format!("/run/netns/{space}")).expect("the namespace was just made");
    enter_network_namespace(&file).expect("root may enter it");
}

/// The interface once the kernel calls it running.
fn selected(name: &str) -> Selected {
    let mut monitor = Monitor::open().expect("a routing socket");
    loop {
        let snapshot = Snapshot::read().expect("the kernel lists interfaces");
        let selection =
            link::select(&snapshot, &[name], SocketType::Raw, false).expect("the interface is there");
        if let Some(served) = selection.served.into_iter().next() {
            return served;
        }
        assert!(monitor.wait(PATIENCE).expect("readable"), "{name} is running within {PATIENCE:?}");
    }
}

/// The client's end: one port hears what is sent to clients, one what is sent to relays.
struct Client {
    sets: Vec<PortSet<PacketPort>>,
    slab: FrameSlab,
    batch: TxBatch,
    sentinels: u32,
}

impl Client {
    fn new(space: &str) -> Self {
        enter(space);
        let interface = selected("c0");
        let sets = [68, 67]
            .into_iter()
            .map(|udp_port| {
                let options = PacketOptions {
                    udp_port,
                    hear: Hear::All,
                    rings_apart: false,
                    ..PacketOptions::default()
                };
                let keys = Steering::new(1, 1).multipliers();
                let ports = packet_port::open(&interface, IFACE, 1, keys, &options).expect("a packet socket");
                let mut set = PortSet::new(Arc::new(Doorbell::new().expect("an eventfd")));
                for port in ports {
                    assert!(set.add(port).is_ok(), "there is room");
                }
                set
            })
            .collect();
        Self { sets, slab: FrameSlab::new(64), batch: TxBatch::new(), sentinels: 0 }
    }

    fn send(&mut self, bytes: &[u8]) {
        let frame = self.slab.take().expect("frames are enough");
        self.slab.bytes_mut(&frame)[..bytes.len()].copy_from_slice(bytes);
        self.batch.push(frame, bytes.len(), IFACE);
        let report = self.sets[0].send(&mut self.batch, &mut self.slab);
        assert_eq!((report.sent, report.errno), (1, 0));
    }

    /// Asks Kea; its answer, if it gives one.
    fn ask(&mut self, bytes: &[u8], relayed: bool) -> Result<Option<Vec<u8>>, &'static str> {
        self.sentinels += 1;
        let mark = 0xbb00_0000 + self.sentinels;
        let way = if relayed { "giaddr=192.0.2.254" } else { "ciaddr=192.0.2.254 unicast" };
        self.send(bytes);
        self.send(&packet::query(&format!("inform mac=02:00:00:00:ff:ff l2={CLIENT_MAC} {way}"), mark));
        let mut answer = None;
        let (first, second) = if relayed { (1, 0) } else { (0, 1) };
        let started = now();
        let mut batch = RxBatch::new();
        loop {
            let mut done = false;
            for index in [first, second] {
                while self.sets[index].recv(&mut batch) > 0 {
                    for frame in batch.frames() {
                        let bytes = self.sets[index].bytes(frame).to_vec();
                        // Our own queries come by too: only replies count.
                        if bytes.get(42) != Some(&2) {
                            continue;
                        }
                        if bytes[46..50] == mark.to_be_bytes() {
                            done = true;
                        } else {
                            answer = Some(bytes);
                        }
                    }
                    self.sets[index].recycle(&mut batch);
                }
            }
            if done {
                return Ok(answer);
            }
            if started.elapsed() > SENTINEL_PATIENCE {
                return Err("Kea did not answer the INFORM behind it");
            }
            self.sets[first].wait(Duration::from_millis(100), || false).expect("poll works");
        }
    }
}

/// A line and its number.
type Numbered = (usize, String);

/// Configuration and queries of a scenario that needs nothing but packets; else why it is left out.
fn replayable(text: &str) -> Result<(String, Vec<Numbered>), &'static str> {
    let (mut members, mut queries) = (None, Vec::new());
    let mut lines = text.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        let line = line.trim();
        match line.split_whitespace().next() {
            Some("config") if members.is_some() => return Err("it has several configurations"),
            Some("config") => {
                members = Some(if line == "config {" {
                    let inside =
                        lines.by_ref().map(|(_, line)| line).take_while(|line| line.trim_end() != "}");
                    inside.collect::<Vec<_>>().join("\n")
                } else {
                    let name = &line["config ".len()..];
                    fs::read_to_string(Path::new(FOLDER).join(format!("{name}.json"))).expect("a file")
                });
            }
            Some("advance" | "live" | "set-back") => return Err("it makes time pass"),
            Some("restart" | "disk") => return Err("it is about the disk"),
            Some("scope") => return Err("it needs an HA scope"),
            Some("shards") => return Err("it is about several shards"),
            Some(">") if line.contains(" on=") => return Err("it uses a second interface"),
            Some(">") => queries.push((number + 1, line[1..].trim().to_owned())),
            _ => {}
        }
    }
    let members = members.expect("a configuration");
    if members.contains("interfaces-config") || members.contains("dhcp-socket-type") {
        return Err("it is about interfaces");
    }
    Ok((members, queries))
}

/// What differs between two answers: field, Kea's, ours.
fn compare(kea: &Answer, ours: &Answer) -> Vec<(String, String, String)> {
    let (kea, ours) = (kea.fields(), ours.fields());
    let keys: std::collections::BTreeSet<&String> = kea.iter().chain(&ours).map(|(key, _)| key).collect();
    let find = |fields: &[(String, String)], key: &str| {
        fields
            .iter()
            .find(|(own, _)| own == key)
            .map_or_else(|| "none".to_owned(), |(_, value)| value.clone())
    };
    keys.into_iter()
        .map(|key| (key.clone(), find(&kea, key), find(&ours, key)))
        .filter(|(_, kea, ours)| kea != ours)
        .collect()
}

#[test]
fn we_answer_as_kea_2_2_does_but_for_what_is_listed() {
    let Some(bench) = Bench::new() else { return };
    let started = now();
    let mut client = Client::new(&bench.spaces[1]);
    let mut paths: Vec<_> = fs::read_dir(FOLDER)
        .expect("the folder of scenarios")
        .map(|entry| entry.expect("a folder that can be read").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "scn"))
        .collect();
    paths.sort();
    let mut left_out: BTreeMap<String, usize> = BTreeMap::new();
    let (mut scenarios, mut answers, mut wrong) = (0, 0, Vec::new());
    let mut used = vec![false; DIFFERENCES.len()];
    let verbose = std::env::var_os("DIFFERENTIAL_LOG").is_some();
    let only = std::env::var("SCENARIO").ok();
    for path in &paths {
        let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
        if only.as_ref().is_some_and(|only| !name.contains(only)) {
            continue;
        }
        let text = fs::read_to_string(path).expect("a scenario");
        let mut leave_out = |why: &str| {
            if verbose {
                let _ = writeln!(io::stderr(), "{name}: {why}");
            }
            *left_out.entry(why.to_owned()).or_default() += 1;
        };
        if let Some((_, why)) = OTHER_WAYS.iter().find(|(own, _)| *own == name) {
            leave_out(why);
            continue;
        }
        let (members, queries) = match replayable(&text) {
            Ok(parts) => parts,
            Err(why) => {
                leave_out(why);
                continue;
            }
        };
        if let Err(why) = bench.configure(&members) {
            if verbose {
                let _ = writeln!(io::stderr(), "{name}: Kea says {why}");
            }
            leave_out("Kea 2.2 does not take its configuration");
            continue;
        }
        scenarios += 1;
        let attempts = if BY_THE_CLOCK.iter().any(|(own, _)| *own == name) { 3 } else { 1 };
        for attempt in 1..=attempts {
            if attempt > 1 {
                bench.configure(&members).expect("Kea has just taken it");
            }
            let mut odd = Vec::new();
            let mut world = World::new(&members, 1);
            for (count, (number, line)) in queries.iter().enumerate() {
                assert!(started.elapsed() < TIME_MAX, "the comparison is done within {TIME_MAX:?}");
                let line =
                    if line.contains(" l2=") { line.clone() } else { format!("{line} l2={CLIENT_MAC}") };
                let xid = 0x0a00_0001 + u32::try_from(count).expect("few queries");
                let bytes = packet::query(&line, xid);
                let kea = match client.ask(&bytes, line.contains("giaddr=")) {
                    Ok(kea) => kea.map(|bytes| Answer::read(&bytes)),
                    Err(why) => {
                        odd.push(format!("{name}:{number}: {why}"));
                        break;
                    }
                };
                let ours = match world.put(&bytes, "v0") {
                    Fate::Answered(bytes) => Some(Answer::read(&bytes)),
                    Fate::Served | Fate::Dropped(_) => None,
                };
                answers += 1;
                let differing = match (&kea, &ours) {
                    (None, None) => Vec::new(),
                    (Some(kea), Some(ours)) => compare(kea, ours),
                    (kea, ours) => {
                        let kind = |answer: &Option<Answer>| {
                            answer.as_ref().map_or_else(
                                || "silence".to_owned(),
                                |answer| format!("{} {}", answer.kind(), answer.yiaddr()),
                            )
                        };
                        vec![("answer".to_owned(), kind(kea), kind(ours))]
                    }
                };
                for (field, kea, ours) in differing {
                    let known = DIFFERENCES.iter().position(|(own, of, _)| {
                        (*own == "*" || *own == name) && (*of == "*" || *of == field)
                    });
                    match known {
                        Some(position) => used[position] = true,
                        None => odd.push(format!("{name}:{number}: {field}: Kea {kea}, we {ours}")),
                    }
                }
            }
            if odd.is_empty() || attempt == attempts {
                wrong.extend(odd);
                break;
            }
        }
    }
    drop(bench);
    let left: usize = left_out.values().sum();
    let _ = writeln!(
        io::stderr(),
        "{answers} queries of {scenarios} scenarios compared with Kea; {left} scenarios left out: {left_out:?}"
    );
    let unused: Vec<_> = DIFFERENCES.iter().zip(&used).filter(|(_, used)| !**used).collect();
    assert!(wrong.is_empty(), "{} differences that are not listed:\n{}", wrong.len(), wrong.join("\n"));
    assert!(unused.is_empty(), "differences listed that are none: {unused:?}");
    assert!(answers >= ANSWERS_MIN, "only {answers} answers were compared");
}
