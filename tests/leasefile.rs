//! Lease files as they are found: those of every Kea release, torn ones, spoilt ones, ones in use; and Kea itself
//! reading what we write.

mod leasefile {
    mod kea;
    mod model;
    mod rows;
}

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use aplomado::journal::{Family, V4, V6};
use aplomado::lease::{Lease4Buf, LeaseState};
use aplomado::store::{
    Cleaned, Compaction, CrashDisk, Error, Fault, Finding, GroupCommit, LeaseFiles, Opened, RealDisk,
    Rotation, SyncMode, open,
};

type Leases = BTreeMap<Ipv4Addr, Lease4Buf>;

const PID: u32 = 4711;

fn live() -> PathBuf {
    PathBuf::from("/leases/kea-leases4.csv")
}

fn header(column_count: usize) -> String {
    let mut names: Vec<&str> = V4::COLUMNS.iter().copied().take(column_count).collect();
    names.resize(column_count, "future");
    names.join(",") + "\n"
}

/// A good row of the current schema; the lifetime tells rows of one address apart.
fn row(host: u8, lifetime: u32) -> String {
    let expire = 1_895_415_292 + u64::from(lifetime);
    format!("192.0.2.{host},1a:1b:1c:1d:1e:1f,,{lifetime},{expire},1,0,0,abc,0,,0\n")
}

fn disk_with(files: &[(&str, String)]) -> CrashDisk {
    let disk = CrashDisk::new();
    for (suffix, text) in files {
        disk.put(&PathBuf::from(format!("{}{suffix}", live().display())), text.as_bytes());
    }
    disk
}

fn try_open(disk: &CrashDisk) -> Result<Opened<V4>, Error> {
    open::<V4>(Arc::new(disk.clone()), &live(), PID)
}

fn leases_of(opened: Opened<V4>, errors_max: u64) -> Result<(Leases, Vec<Finding>), Error> {
    let leases = Mutex::new(Leases::new());
    let report = opened.image.load(2, errors_max, |_, lease| {
        leases.lock().expect("no panic").insert(lease.address, lease.to_owned());
    })?;
    let findings = opened.findings.into_iter().chain(report.findings).collect();
    let leases = leases.into_inner().expect("no panic");
    assert_eq!(report.lease_count, leases.len() as u64, "each address is handed out once");
    Ok((leases, findings))
}

fn loaded(disk: &CrashDisk) -> (Leases, Vec<Finding>) {
    leases_of(try_open(disk).expect("a file that can be served"), 0).expect("no limit of bad rows")
}

fn lifetimes(leases: &Leases) -> Vec<(u8, u32)> {
    leases.values().map(|lease| (lease.view().address.octets()[3], lease.view().valid_lft)).collect()
}

fn content(disk: &CrashDisk, suffix: &str) -> Option<String> {
    let bytes = disk.content(&PathBuf::from(format!("{}{suffix}", live().display())))?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

#[test]
fn the_files_of_real_kea_pairs_are_read_without_a_bad_row() {
    for (name, count, declined) in
        [("v4-hs-s1", 17, 2), ("v4-hs-s2", 17, 2), ("v4-lb-s1", 0, 0), ("v4-lb-s2", 0, 0), ("v4-lb-s3", 0, 0)]
    {
        let path = format!("{}/tests/data/leasefile/{name}.csv", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(&path).expect("a file of this repository");
        let disk = disk_with(&[("", text.clone())]);
        let (leases, findings) = loaded(&disk);
        assert_eq!(findings, [Finding::OtherSchema { path: live(), column_count: 11 }], "{name}");
        // The naive reading: split at commas, the last row of an address wins, lifetime 0 removes.
        let mut naive = BTreeMap::new();
        for row in text.lines().skip(1) {
            let columns: Vec<&str> = row.split(',').collect();
            let address: Ipv4Addr = columns[0].parse().expect("an address");
            if columns[3] == "0" {
                naive.remove(&address);
            } else {
                naive.insert(address, (columns[1].to_owned(), columns[4].to_owned(), columns[9].to_owned()));
            }
        }
        let ours: BTreeMap<_, _> = leases
            .iter()
            .map(|(address, lease)| {
                let lease = lease.view();
                (
                    *address,
                    (lease.hw_addr.to_string(), lease.expire().to_string(), lease.state.number().to_string()),
                )
            })
            .collect();
        assert_eq!(ours, naive, "{name}");
        if count > 0 {
            let found = leases.values().filter(|lease| lease.view().state == LeaseState::Declined).count();
            assert_eq!((leases.len(), found), (count, declined), "{name}");
        }
    }
}

#[test]
fn files_of_dhcpv6_are_cleaned_up_by_the_same_code() {
    for (name, lease_count) in [("v6-hs-s1", 9), ("v6-hs-s2", 9), ("v6-sample-all-kinds", 4)] {
        let path = format!("{}/tests/data/leasefile/{name}.csv", env!("CARGO_MANIFEST_DIR"));
        let disk = CrashDisk::new();
        disk.put(&live(), &std::fs::read(path).expect("a file of this repository"));
        let opened = open::<V6>(Arc::new(disk.clone()), &live(), PID).expect("a file of DHCPv6");
        assert!(opened.needs_cleanup, "it has 17 columns");
        let mut commit = GroupCommit::new(Some(opened.live), Vec::new(), Vec::new(), SyncMode::Group);
        assert!(matches!(commit.rotate().expect("no fault"), Rotation::Done));
        let run = Compaction::<V6>::new(&disk, LeaseFiles::new(&live()), PID).run(&mut |_| true);
        assert_eq!(run.expect("no fault"), Cleaned::Done { lease_count, bad_count: 0 }, "{name}");
        let columns =
            content(&disk, ".2").expect("the result").lines().map(|row| row.split(',').count()).max();
        assert_eq!(columns, Some(18));
    }
}

#[test]
fn a_host_name_that_kea_wrote_with_a_line_end_costs_its_own_lease_only() {
    let path = format!("{}/tests/data/leasefile/v4-sample-all-kinds.csv", env!("CARGO_MANIFEST_DIR"));
    let bytes = std::fs::read(path).expect("a file of this repository");
    let disk = CrashDisk::new();
    disk.put(&live(), &bytes);
    let (leases, findings) = loaded(&disk);
    assert_eq!(leases.len(), 10, "12 were added, one was deleted later, one is broken");
    assert!(
        findings.iter().any(|finding| matches!(finding, Finding::BadRows { count: 2, .. })),
        "both halves of the broken row: {findings:?}"
    );
    let kept = content(&disk, ".rejected").expect("bad rows are kept");
    assert!(kept.contains("host,new\n") || kept.contains("new\nline,0,"), "{kept}");
    let hostname = |host: u8| leases[&Ipv4Addr::new(10, 16, 0, host)].view().hostname.to_vec();
    assert_eq!(hostname(2), b"comma,host");
    assert_eq!(hostname(3), b"back\\slash");
    assert_eq!(hostname(4), b"amp&#x2chost");
    assert_eq!(hostname(7), b"uml\xfcaut");
    let context = leases[&Ipv4Addr::new(10, 16, 0, 8)].view().user_context.to_vec();
    assert_eq!(
        String::from_utf8(context).expect("ASCII"),
        r#"{ "ISC": { "relay-agent-info": "0x0104" }, "a": "b,c", "n": { "x": [ 1, 2 ] } }"#
    );
}

#[test]
fn files_of_other_schemas_are_read_and_ask_for_a_cleanup() {
    let ten = "192.0.2.1,1a:1b,,100,1895415392,1,0,0,abc,0\n";
    let twelve = row(2, 200);
    let disk = disk_with(&[("", header(10) + ten + &twelve)]);
    let opened = try_open(&disk).expect("an old file");
    assert!(opened.needs_cleanup);
    let (leases, _) = leases_of(opened, 0).expect("good rows");
    assert_eq!(lifetimes(&leases), [(1, 100), (2, 200)]);

    let disk = disk_with(&[("", header(13) + row(1, 100).trim_end() + ",x\n")]);
    let opened = try_open(&disk).expect("a newer file");
    assert!(opened.needs_cleanup);
    assert_eq!(lifetimes(&leases_of(opened, 0).expect("good rows").0), [(1, 100)]);

    let disk = disk_with(&[("", header(12) + &row(1, 100))]);
    assert!(!try_open(&disk).expect("our own").needs_cleanup);
}

#[test]
fn a_cleanup_after_an_upgrade_leaves_current_files() {
    let old = "192.0.2.1,1a:1b,,100,1895415392,1,0,0,abc,0\n";
    let disk = disk_with(&[("", header(10) + old), (".2", header(10) + &old.replace(".2.1,", ".2.9,"))]);
    let opened = try_open(&disk).expect("an old file");
    let mut commit = GroupCommit::new(Some(opened.live), Vec::new(), Vec::new(), SyncMode::Group);
    assert!(matches!(commit.rotate().expect("no fault"), Rotation::Done));
    let run = Compaction::<V4>::new(&disk, LeaseFiles::new(&live()), PID).run(&mut |_| true);
    assert_eq!(run.expect("no fault"), Cleaned::Done { lease_count: 2, bad_count: 0 });
    assert_eq!(content(&disk, ""), Some(header(12)));
    let previous = content(&disk, ".2").expect("the result");
    assert_eq!(
        previous,
        header(12)
            + "192.0.2.1,1a:1b,,100,1895415392,1,0,0,abc,0,,0\n"
            + "192.0.2.9,1a:1b,,100,1895415392,1,0,0,abc,0,,0\n"
    );
    assert_eq!(
        (content(&disk, ".1"), content(&disk, ".pid"), content(&disk, ".pid.lock")),
        (None, None, None)
    );
}

#[test]
fn a_finished_cleanup_supersedes_its_sources() {
    let files = |with_completed: bool| {
        let mut files = vec![
            ("", header(12) + &row(4, 40)),
            (".1", header(12) + &row(1, 11) + &row(2, 12)),
            (".2", header(12) + &row(2, 22) + &row(3, 23)),
        ];
        if with_completed {
            files.push((".completed", header(12) + &row(5, 50)));
        }
        disk_with(&files)
    };
    let disk = files(true);
    assert_eq!(lifetimes(&loaded(&disk).0), [(4, 40), (5, 50)]);
    let run = Compaction::<V4>::new(&disk, LeaseFiles::new(&live()), PID).run(&mut |_| true);
    assert_eq!(run.expect("no fault"), Cleaned::Resumed);
    assert_eq!(content(&disk, ".2"), Some(header(12) + &row(5, 50)));
    assert_eq!((content(&disk, ".1"), content(&disk, ".completed")), (None, None));

    assert_eq!(lifetimes(&loaded(&files(false)).0), [(1, 11), (2, 12), (3, 23), (4, 40)]);
}

#[test]
fn an_empty_completed_file_does_not_hide_its_sources() {
    let disk =
        disk_with(&[("", header(12)), (".1", header(12) + &row(1, 11)), (".completed", String::new())]);
    let (leases, findings) = loaded(&disk);
    assert_eq!(lifetimes(&leases), [(1, 11)]);
    assert!(matches!(&findings[..], [Finding::Empty { .. }]), "{findings:?}");
    let run = Compaction::<V4>::new(&disk, LeaseFiles::new(&live()), PID).run(&mut |_| true);
    assert_eq!(run.expect("no fault"), Cleaned::Done { lease_count: 1, bad_count: 0 });
    assert_eq!(lifetimes(&loaded(&disk).0), [(1, 11)]);
}

#[test]
fn a_missing_or_empty_file_is_created_with_a_header() {
    for disk in [disk_with(&[]), disk_with(&[("", String::new())])] {
        let (leases, findings) = loaded(&disk);
        assert!(leases.is_empty());
        assert!(matches!(&findings[..], [Finding::Created { .. } | Finding::Empty { .. }]));
        assert_eq!(content(&disk, ""), Some(header(12)));
    }
}

#[test]
fn a_file_that_is_no_lease_file_is_refused_and_left_alone() {
    for text in [
        "address,hwaddr,clientid,valid_lifetime,expire\n",
        "address,duid,valid_lifetime,expire,subnet_id,pref_lifetime\n",
        "daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin\n",
        "some text without a line end",
        "\n\n",
        "address,hwaddr\n",
    ] {
        for suffix in ["", ".1", ".2", ".completed"] {
            let disk = disk_with(&[(suffix, text.to_owned())]);
            let error = try_open(&disk).expect_err("not a lease file");
            assert!(matches!(error, Error::Header { .. }), "{error:?}");
            assert!(error.to_string().contains(&format!("kea-leases4.csv{suffix}:")), "{error}");
            assert_eq!(content(&disk, suffix).as_deref(), Some(text));
        }
    }
}

#[test]
fn a_torn_last_row_is_cut_off_and_a_complete_one_without_line_end_is_kept() {
    let start = header(12) + &row(1, 100);
    for torn in
        ["1", "192.0.2.2,1a:1b:1c:1d:1e:1f,,200,18954", "\0\0\0\0", "192.0.2.2,1a:1b,,1,2,1,0,0,abc,0,,"]
    {
        let disk = disk_with(&[("", start.clone() + torn)]);
        let (leases, findings) = loaded(&disk);
        assert_eq!(lifetimes(&leases), [(1, 100)]);
        let text = torn.replace('\0', "\\x00");
        assert_eq!(findings, [Finding::TornRow { path: live(), line: 3, text }]);
        assert_eq!(content(&disk, "").as_ref(), Some(&start), "cut where the last whole row ends");
        assert_eq!(content(&disk, ".rejected"), None);
    }
    let disk = disk_with(&[("", start.clone() + row(2, 200).trim_end())]);
    assert_eq!(lifetimes(&loaded(&disk).0), [(1, 100), (2, 200)]);
    assert_eq!(content(&disk, ""), Some(start + &row(2, 200)));
}

#[test]
fn a_header_torn_while_it_was_written_is_written_again() {
    for cut in 0..header(12).len() {
        for zeros in [0, 3] {
            let text = header(12)[..cut].to_owned() + &"\0".repeat(zeros);
            let disk = disk_with(&[("", text), (".1", header(12) + &row(1, 11))]);
            assert_eq!(lifetimes(&loaded(&disk).0), [(1, 11)], "cut at {cut}");
            assert_eq!(content(&disk, ""), Some(header(12)));
        }
    }
}

#[test]
fn bad_rows_are_kept_aside_once_and_reported_with_their_place() {
    let bad = "192.0.2.16,,,7200,1895422492,1,0,0,abc,0,,0\n";
    let text =
        header(12) + &row(1, 100) + bad + &row(2, 200) + "192.0.2.18,1a1b1c1d1e1f,01:02,1,2,1,0,0,,0,,0\n";
    let disk = disk_with(&[("", text)]);
    for _ in 0..3 {
        let (leases, findings) = loaded(&disk);
        assert_eq!(lifetimes(&leases), [(1, 100), (2, 200)]);
        let said = findings.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
        assert!(said.starts_with("/leases/kea-leases4.csv:3: neither hwaddr nor client_id"), "{said}");
        let kept = content(&disk, ".rejected").expect("kept");
        assert_eq!(kept, bad.to_owned() + "192.0.2.18,1a1b1c1d1e1f,01:02,1,2,1,0,0,,0,,0\n");
    }
}

#[test]
fn more_bad_rows_than_allowed_refuse_the_file() {
    let disk = disk_with(&[("", header(12) + "a\nb\n" + &row(1, 1) + "c\n")]);
    let open_with = |limit| leases_of(try_open(&disk).expect("a good header"), limit);
    assert_eq!(open_with(3).expect("three are allowed").0.len(), 1);
    let error = open_with(2).expect_err("one too many");
    assert!(matches!(error, Error::RowErrors { limit: 2, line: 5, .. }), "{error:?}");
    assert!(error.to_string().contains("max-row-errors"), "{error}");
}

#[test]
fn a_second_server_on_the_same_file_is_told_so() {
    let disk = disk_with(&[]);
    let first = try_open(&disk).expect("free");
    let error = try_open(&disk).expect_err("in use");
    assert!(matches!(error, Error::InUse { .. }), "{error:?}");
    assert!(error.to_string().contains("another process is using it"), "{error}");
    drop(first);
    assert!(try_open(&disk).is_ok(), "the lock ends with its holder");

    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("leases.csv");
    let first = open::<V4>(Arc::new(RealDisk), &path, std::process::id()).expect("free");
    let error = open::<V4>(Arc::new(RealDisk), &path, std::process::id()).expect_err("in use");
    assert!(matches!(error, Error::InUse { .. }), "{error:?}");
    drop(first);
    open::<V4>(Arc::new(RealDisk), &path, std::process::id()).expect("free again");
}

#[test]
fn only_a_pid_file_of_a_living_cleanup_is_an_obstacle() {
    let with_pid = |text: &str| {
        let disk = disk_with(&[("", header(12)), (".pid", text.to_owned())]);
        disk.run_process(77, "kea-lfc");
        disk.run_process(78, "nginx");
        disk.run_process(PID, "aplomado-lfc");
        disk
    };
    let error = try_open(&with_pid("77\n")).expect_err("a cleanup is running");
    assert!(matches!(error, Error::CleanupRunning { pid: 77, .. }), "{error:?}");
    assert!(
        error.to_string().starts_with("unable to load leases from files while the lease file cleanup is in")
    );
    for stale in ["78\n", "79\n", "0\n", "", "garbage", "4711\n"] {
        assert!(try_open(&with_pid(stale)).is_ok(), "{stale}");
    }
    let run = Compaction::<V4>::new(&with_pid("77\n"), LeaseFiles::new(&live()), PID).run(&mut |_| true);
    assert_eq!(run.expect("no fault"), Cleaned::Busy);
}

#[test]
fn a_file_that_cannot_be_read_or_created_names_itself() {
    let folder = tempfile::tempdir().expect("a folder");
    let error = open::<V4>(Arc::new(RealDisk), &folder.path().join("missing/leases.csv"), PID)
        .expect_err("no folder");
    assert!(error.to_string().contains("missing/leases.csv"), "{error}");
    let path = folder.path().join("leases.csv");
    std::fs::create_dir(&path).expect("a new folder");
    let error = open::<V4>(Arc::new(RealDisk), &path, PID).expect_err("a folder is no file");
    assert!(matches!(error, Error::Io { action: "open", .. }), "{error:?}");
    let disk = disk_with(&[]);
    disk.fault_at(1, Fault::Error { kind: std::io::ErrorKind::PermissionDenied, kept_bytes: 0 });
    assert!(matches!(try_open(&disk).expect_err("refused"), Error::Io { .. }));
}

#[test]
fn a_cancelled_cleanup_leaves_everything_for_the_next_one() {
    let disk =
        disk_with(&[("", header(12)), (".1", header(12) + &row(1, 11)), (".2", header(12) + &row(2, 12))]);
    let files = LeaseFiles::new(&live());
    let error = Compaction::<V4>::new(&disk, files.clone(), PID).run(&mut |_| false).expect_err("cancelled");
    assert!(matches!(error, Error::Cancelled));
    assert!(content(&disk, ".output").is_none() && content(&disk, ".pid").is_none());
    let mut last = aplomado::store::Progress::default();
    let run = Compaction::<V4>::new(&disk, files, PID).run(&mut |progress| {
        assert!(progress.done_bytes >= last.done_bytes && progress.done_bytes <= progress.total_bytes);
        last = progress;
        true
    });
    assert_eq!(run.expect("no fault"), Cleaned::Done { lease_count: 2, bad_count: 0 });
}

#[test]
fn a_full_disk_during_a_cleanup_frees_the_room_again() {
    let disk = disk_with(&[("", header(12)), (".1", header(12) + &row(1, 11))]);
    let start = disk.call_count();
    for call in start..start + 20 {
        let disk = disk.after(aplomado::store::Survivors::All);
        disk.fault_at(call - start, Fault::Error { kind: std::io::ErrorKind::StorageFull, kept_bytes: 20 });
        let result = Compaction::<V4>::new(&disk, LeaseFiles::new(&live()), PID).run(&mut |_| true);
        if result.is_err() {
            assert_eq!(content(&disk, ".output"), None, "call {call}");
        }
        let disk = disk.after(aplomado::store::Survivors::All);
        assert_eq!(lifetimes(&loaded(&disk).0), [(1, 11)], "call {call}");
    }
}

#[test]
fn a_large_cleanup_reads_its_files_in_pieces() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("leases.csv");
    let files = LeaseFiles::new(&path);
    let mut journal = header(12);
    let mut previous = header(12);
    for index in 0..60_000u32 {
        let address = Ipv4Addr::from(0x0a00_0000 + index);
        previous += &format!("{address},02:00:00:00:00:01,,100,1895415392,1,0,0,{index},0,,0\n");
        if index % 3 != 0 {
            let address = Ipv4Addr::from(0x0a00_0000 + (index * 7919) % 60_000);
            let lifetime = if index % 5 == 0 { 0 } else { 200 };
            journal += &format!("{address},02:00:00:00:00:02,,{lifetime},1895415492,1,0,0,,0,,0\n");
        }
    }
    std::fs::write(&files.previous, &previous).expect("room");
    std::fs::write(&files.copy, &journal).expect("room");
    std::fs::write(&files.live, header(12)).expect("room");
    let load = |path: &Path| {
        leases_of(open::<V4>(Arc::new(RealDisk), path, PID).expect("good files"), 0).expect("good rows").0
    };
    let before = load(&path);
    let run = Compaction::<V4>::new(&RealDisk, files.clone(), PID).run(&mut |_| true).expect("no fault");
    assert_eq!(run, Cleaned::Done { lease_count: before.len() as u64, bad_count: 0 });
    assert!(!files.copy.exists() && before.len() > 20_000 && before.len() < 60_000);
    assert_eq!(load(&path), before);
}
