//! The journal against a plain map: random changes, turns, rotations, cleanups and restarts.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};

use aplomado::ids::{HwAddr, ShardId, SubnetId};
use aplomado::journal::{Change, ChangeOrigin, LogTx, V4, log_ring};
use aplomado::lease::{Lease4, Lease4Buf, LeaseState};
use aplomado::store::{Compaction, CrashDisk, GroupCommit, LeaseFiles, SyncMode, open};
use aplomado::sync::Watermark;
use aplomado::time::Mono;
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Step {
    Put { host: u8, lifetime: u32, hostname: Vec<u8>, state: u8 },
    Delete { host: u8 },
    Turn,
    Rotate,
    CleanUp,
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0u8..16, 1u32..=u32::MAX, proptest::collection::vec(any::<u8>(), 0..80), 0u8..=3)
            .prop_map(|(host, lifetime, hostname, state)| Step::Put { host, lifetime, hostname, state }),
        3 => (0u8..16).prop_map(|host| Step::Delete { host }),
        2 => Just(Step::Turn),
        1 => Just(Step::Rotate),
        1 => Just(Step::CleanUp),
        1 => Just(Step::Restart),
    ]
}

struct Server {
    commit: GroupCommit,
    tx: LogTx,
}

fn start(disk: &CrashDisk) -> (Server, BTreeMap<Ipv4Addr, Lease4Buf>) {
    let opened = open::<V4>(Arc::new(disk.clone()), &super::super::live(), 1).expect("no fault");
    let leases = Mutex::new(BTreeMap::new());
    let report = opened
        .image
        .load(3, 1, |_, lease| {
            leases.lock().expect("no panic").insert(lease.address, lease.to_owned());
        })
        .expect("no bad rows");
    assert!(report.findings.is_empty(), "{:?}", report.findings);
    let (tx, rx) = log_ring(ShardId(0), 0);
    let logs = vec![(rx, Arc::new(Watermark::default()))];
    let commit = GroupCommit::new(Some(opened.live), logs, Vec::new(), SyncMode::Group);
    (Server { commit, tx }, leases.into_inner().expect("no panic"))
}

fn lease<'a>(host: u8, lifetime: u32, hostname: &'a [u8], state: u8) -> Lease4<'a> {
    let state = LeaseState::from_number(u64::from(state)).expect("a state");
    Lease4 {
        address: Ipv4Addr::new(192, 0, 2, host),
        hw_addr: HwAddr::ethernet([2, 0, 0, 0, 0, host]),
        client_id: &[],
        cltt: 1_795_422_492,
        valid_lft: lifetime,
        subnet_id: SubnetId(1),
        pool_id: 0,
        state,
        fqdn_fwd: true,
        fqdn_rev: false,
        hostname,
        user_context: b"{ }",
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_content_of_the_files_makes_the_store_panic_or_forget_good_rows(
        spoils in proptest::collection::vec((any::<u16>(), any::<u8>(), 0u8..3), 0..12), suffix in 0usize..4,
    ) {
        let mut bytes = super::super::header(12).into_bytes();
        for host in 0..20 {
            bytes.extend_from_slice(super::super::row(host, 100 + u32::from(host)).as_bytes());
        }
        let untouched = bytes.clone();
        for (at, octet, kind) in spoils {
            let at = usize::from(at) % bytes.len().max(1);
            match kind {
                0 => bytes[at] = octet,
                1 => bytes.insert(at, octet),
                _ => bytes.truncate(bytes.len() - at % 40),
            }
        }
        let disk = CrashDisk::new();
        let name = format!("{}{}", super::super::live().display(), ["", ".1", ".2", ".completed"][suffix]);
        disk.put(std::path::Path::new(&name), &bytes);
        let Ok(opened) = open::<V4>(Arc::new(disk.clone()), &super::super::live(), 1) else { return Ok(()) };
        let leases = Mutex::new(BTreeMap::new());
        opened.image.load(2, 0, |_, lease| {
            leases.lock().expect("no panic").insert(lease.address, lease.to_owned());
        }).expect("no limit");
        // Rows that nothing happened to are there unless another row of the same address came after them.
        let found = leases.into_inner().expect("no panic");
        let rows: Vec<&[u8]> = bytes.split(|octet| *octet == b'\n').collect();
        for row in untouched.split(|octet| *octet == b'\n').skip(1).filter(|row| !row.is_empty()) {
            let address: Ipv4Addr = std::str::from_utf8(row).expect("ASCII").split(',').next().expect("a column").parse()
                .expect("an address");
            let prefix = format!("{address},");
            let same: Vec<_> = rows.iter().skip(1).filter(|other| other.starts_with(prefix.as_bytes())).collect();
            if same.len() == 1 && *same[0] == row {
                prop_assert!(found.contains_key(&address), "{address}");
            }
        }
    }

    #[test]
    fn the_file_holds_what_a_plain_map_holds(steps in proptest::collection::vec(step(), 1..80)) {
        let disk = CrashDisk::new();
        let mut model: BTreeMap<Ipv4Addr, Lease4Buf> = BTreeMap::new();
        let (mut server, _) = start(&disk);
        for step in steps.into_iter().chain([Step::Restart]) {
            match step {
                Step::Put { host, lifetime, hostname, state } => {
                    let lease = lease(host, lifetime, &hostname, state);
                    server.tx.append(&Change::Put(lease), ChangeOrigin::Client).expect("room");
                    model.insert(lease.address, lease.to_owned());
                }
                Step::Delete { host } => {
                    let gone = lease(host, 9, b"", 0);
                    server.tx.append(&Change::Delete(gone), ChangeOrigin::Client).expect("room");
                    model.remove(&gone.address);
                }
                Step::Turn => drop(server.commit.turn(Mono(0)).expect("no fault")),
                Step::Rotate => drop(server.commit.rotate().expect("no fault")),
                Step::CleanUp => {
                    let files = LeaseFiles::new(&super::super::live());
                    Compaction::<V4>::new(&disk, files, 1).run(&mut |_| true).expect("no fault");
                }
                Step::Restart => {
                    server.commit.finish(Mono(0)).expect("no fault");
                    let found;
                    (server, found) = start(&disk);
                    prop_assert_eq!(&found, &model);
                }
            }
        }
    }
}
