//! Debian's Kea reads what we write, and we read what it makes of it. Skipped, and said so, where Kea is not installed.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::Ipv4Addr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use aplomado::ids::{HwAddr, ShardId, SubnetId};
use aplomado::journal::{Change, ChangeOrigin, V4, log_ring};
use aplomado::lease::{LIFETIME_INFINITE_S, Lease4, LeaseState};
use aplomado::store::{Error, Finding, GroupCommit, RealDisk, SyncMode, open};
use aplomado::sync::Watermark;
use aplomado::time::Mono;
use serde_json::{Value, json};

/// Kea 2.2 drops rows with a longer client identifier; later ones take 255 octets.
const LONGEST_ID: [u8; 128] = [0xff; 128];
const KEA: &str = "/usr/sbin/kea-dhcp4";
const HOOK_FOLDERS: [&str; 3] =
    ["/usr/lib/x86_64-linux-gnu/kea/hooks", "/usr/lib/aarch64-linux-gnu/kea/hooks", "/usr/lib/kea/hooks"];

/// Kea without any interface: it serves its control socket and its lease file.
struct Kea {
    child: Child,
    socket: PathBuf,
}

impl Kea {
    fn start(folder: &Path, hook: &Path, leases: &Path) -> Self {
        let socket = folder.join("control");
        let config = json!({ "Dhcp4": {
            "interfaces-config": { "interfaces": [] },
            "control-socket": { "socket-type": "unix", "socket-name": socket },
            "lease-database": { "type": "memfile", "name": leases, "lfc-interval": 0 },
            "expired-leases-processing": { "reclaim-timer-wait-time": 0, "flush-reclaimed-timer-wait-time": 0 },
            "hooks-libraries": [ { "library": hook } ],
            "subnet4": [ { "id": 1, "subnet": "192.0.2.0/24" } ],
            "loggers": [ { "name": "kea-dhcp4", "severity": "INFO",
                           "output_options": [ { "output": "stdout", "flush": true } ] } ],
        } });
        let path = folder.join("kea.conf");
        std::fs::write(&path, config.to_string()).expect("room");
        let mut child = Command::new(KEA)
            .arg("-c")
            .arg(&path)
            .env("KEA_PIDFILE_DIR", folder)
            .env("KEA_LOCKFILE_DIR", folder)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("Kea is installed");
        let mut log = BufReader::new(child.stdout.take().expect("piped"));
        let mut said = String::new();
        while !said.contains("DHCP4_STARTED") {
            let count = log.read_line(&mut said).expect("Kea logs text");
            assert!(count > 0, "Kea ended instead of starting:\n{said}");
        }
        assert!(!said.contains("DHCPSRV_MEMFILE_LEASE_LOAD_ROW_ERROR"), "{said}");
        // What it still says is nobody's concern, but it must not find the pipe full.
        std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        Self { child, socket }
    }

    fn command(&self, name: &str, arguments: &Value) -> Value {
        let mut stream = UnixStream::connect(&self.socket).expect("Kea listens once it has started");
        let command = json!({ "command": name, "arguments": arguments });
        stream.write_all(command.to_string().as_bytes()).expect("Kea reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("Kea answers");
        serde_json::from_str(&answer).expect("JSON")
    }

    /// All leases by address, as Kea tells them.
    fn leases(&self) -> BTreeMap<Ipv4Addr, Value> {
        let answer = self.command("lease4-get-all", &json!({ "subnets": [ 1 ] }));
        let leases = answer["arguments"]["leases"].as_array().cloned().unwrap_or_default();
        leases
            .into_iter()
            .map(|lease| (lease["ip-address"].as_str().expect("text").parse().expect("an address"), lease))
            .collect()
    }

    fn stop(mut self) {
        self.command("shutdown", &json!({}));
        self.child.wait().expect("it was started here");
    }
}

impl Drop for Kea {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn as_kea_tells(lease: &Lease4<'_>) -> Value {
    let mut told = json!({
        "ip-address": lease.address.to_string(), "hw-address": lease.hw_addr.to_string(), "cltt": lease.cltt,
        "valid-lft": lease.valid_lft, "subnet-id": lease.subnet_id.0, "state": lease.state.number(),
        "fqdn-fwd": lease.fqdn_fwd, "fqdn-rev": lease.fqdn_rev,
        "hostname": std::str::from_utf8(lease.hostname).expect("text"),
    });
    if !lease.client_id.is_empty() {
        told["client-id"] = aplomado::ids::ColonHex(lease.client_id).to_string().into();
    }
    if !lease.user_context.is_empty() {
        told["user-context"] = serde_json::from_slice(lease.user_context).expect("JSON");
    }
    told
}

fn samples() -> Vec<Lease4<'static>> {
    let plain = Lease4 {
        address: Ipv4Addr::new(192, 0, 2, 1),
        hw_addr: HwAddr::ethernet([2, 0, 0, 0, 0, 1]),
        client_id: &[1, 2, 0, 0, 0, 0, 1],
        cltt: 1_795_422_492,
        valid_lft: 86_400,
        subnet_id: SubnetId(1),
        pool_id: 0,
        state: LeaseState::Assigned,
        fqdn_fwd: false,
        fqdn_rev: false,
        hostname: b"plain.example.org",
        user_context: b"",
    };
    let at = |host: u8| Ipv4Addr::new(192, 0, 2, host);
    vec![
        plain,
        Lease4 { address: at(2), hostname: b"comma,amp&#x2c\"quote\\back", fqdn_fwd: true, ..plain },
        Lease4 { address: at(3), client_id: &[], valid_lft: LIFETIME_INFINITE_S, fqdn_rev: true, ..plain },
        Lease4 {
            address: at(4),
            hw_addr: HwAddr::new(1, &[]).expect("empty"),
            client_id: &[],
            hostname: b"",
            state: LeaseState::Declined,
            ..plain
        },
        Lease4 { address: at(5), state: LeaseState::Reclaimed, hostname: b"", pool_id: 7, ..plain },
        Lease4 {
            address: at(6),
            user_context: br#"{ "ISC": { "relay-agent-info": "0x0104" }, "a": "b,c" }"#,
            ..plain
        },
        Lease4 { address: at(7), client_id: &LONGEST_ID, ..plain },
        Lease4 { address: at(8), hw_addr: HwAddr::new(1, &[]).expect("empty"), ..plain },
        Lease4 { address: at(200), ..plain },
    ]
}

#[test]
fn kea_and_we_read_each_others_files() {
    let hook = HOOK_FOLDERS
        .iter()
        .map(|folder| Path::new(folder).join("libdhcp_lease_cmds.so"))
        .find(|p| p.exists());
    let Some(hook) = hook.filter(|_| Path::new(KEA).exists()) else {
        eprintln!(
            "SKIPPED: Kea with its lease_cmds hook is not installed, the exchange of lease files is not tried"
        );
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("kea-leases4.csv");

    // We write, in two groups, with an update and a deletion on the way.
    let opened = open::<V4>(Arc::new(RealDisk), &path, std::process::id()).expect("a new file");
    let (mut tx, rx) = log_ring(ShardId(0), 0);
    let logs = vec![(rx, Arc::new(Watermark::default()))];
    let mut commit = GroupCommit::new(Some(opened.live), logs, Vec::new(), SyncMode::Group);
    for lease in &samples() {
        let older = Lease4 { cltt: 1, hostname: b"older", ..*lease };
        tx.append(&Change::Put(older), ChangeOrigin::Client).expect("room");
    }
    commit.turn(Mono(0)).expect("a good disk");
    let mut expected = BTreeMap::new();
    for lease in &samples() {
        let change =
            if lease.address.octets()[3] == 200 { Change::Delete(*lease) } else { Change::Put(*lease) };
        tx.append(&change, ChangeOrigin::Client).expect("room");
        if matches!(change, Change::Put(_)) {
            expected.insert(lease.address, as_kea_tells(lease));
        }
    }
    commit.finish(Mono(0)).expect("a good disk");

    // Kea reads it, changes it, and is asked what it holds.
    let kea = Kea::start(folder.path(), &hook, &path);
    let mut told = kea.leases();
    for (address, lease) in &mut told {
        // An absent identifier and an empty one are the same.
        lease.as_object_mut().expect("a map").retain(|key, value| key != "client-id" || *value != "");
        assert_eq!(Some(&*lease), expected.get(address), "{address}");
    }
    assert_eq!(told.len(), expected.len());
    let added = kea.command(
        "lease4-add",
        &json!({ "ip-address": "192.0.2.100", "hw-address": "02:00:00:00:01:00", "hostname": "by,kea&",
                 "user-context": { "note": "a,b", "n": [ 1, 2.5 ] } }),
    );
    assert_eq!(added["result"], 0, "{added}");
    let gone = kea.command("lease4-del", &json!({ "ip-address": "192.0.2.1" }));
    assert_eq!(gone["result"], 0, "{gone}");
    let told = kea.leases();
    kea.stop();

    // We read what it left; the cleanup that it began because of our twelfth column may still be running.
    let opened = loop {
        match open::<V4>(Arc::new(RealDisk), &path, std::process::id()) {
            Err(Error::CleanupRunning { .. }) => std::thread::yield_now(),
            result => break result.expect("Kea's files are good"),
        }
    };
    for finding in &opened.findings {
        assert!(matches!(finding, Finding::OtherSchema { .. } | Finding::StalePid { .. }), "{finding}");
    }
    let found = Mutex::new(BTreeMap::new());
    let report = opened
        .image
        .load(1, 1, |_, lease| {
            found.lock().expect("no panic").insert(lease.address, as_kea_tells(lease));
        })
        .expect("Kea's rows are good");
    assert!(report.findings.is_empty(), "{:?}", report.findings);
    let found = found.into_inner().expect("no panic");
    for (address, lease) in &told {
        let mut lease = lease.clone();
        lease.as_object_mut().expect("a map").retain(|key, value| key != "client-id" || *value != "");
        assert_eq!(found.get(address), Some(&lease), "{address}");
    }
    assert_eq!(found.len(), told.len());
    println!("compared {} leases both ways", told.len());
}
