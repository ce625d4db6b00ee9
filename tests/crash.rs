//! What was acknowledged is there after a crash, wherever it strikes: at every call that changes the disk, with every
//! kind of survivors, and again while recovering from the first crash.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use aplomado::ids::{HwAddr, Lsn, ShardId, SubnetId};
use aplomado::journal::{Change, ChangeOrigin, LogTx, V4, log_ring};
use aplomado::lease::{Lease4, Lease4Buf, LeaseState};
use aplomado::store::{
    Compaction, CrashDisk, Disk, Error, Fault, GroupCommit, LeaseFiles, LiveFile, Rotation, Survivors,
    SyncMode, open,
};
use aplomado::sync::Watermark;
use aplomado::time::Mono;

const PID: u32 = 4711;
const SHARD_COUNT: u8 = 2;

fn live() -> PathBuf {
    PathBuf::from("/var/lib/kea/kea-leases4.csv")
}

type Leases = BTreeMap<Ipv4Addr, Lease4Buf>;

/// One address's states in the order in which they were appended, and how many of them were acknowledged.
#[derive(Clone, Debug, Default)]
struct History {
    states: Vec<Option<Lease4Buf>>,
    acknowledged: usize,
}

/// What the clients know, across lives of the server.
#[derive(Clone, Debug, Default)]
struct Truth(BTreeMap<Ipv4Addr, History>);

impl Truth {
    fn check(&self, found: &Leases, context: &dyn Fn() -> String) {
        for (address, history) in &self.0 {
            let found = found.get(address).cloned();
            let earliest = history.acknowledged.saturating_sub(1);
            let mut allowed = history.states[earliest..].to_vec();
            if history.acknowledged == 0 {
                allowed.push(None);
            }
            assert!(
                allowed.contains(&found),
                "{}: {address} is {found:?}, acknowledged {} of {:?}",
                context(),
                history.acknowledged,
                history.states
            );
        }
        for address in found.keys() {
            assert!(self.0.contains_key(address), "{}: {address} was never leased", context());
        }
    }

    /// After a recovery its result is what counts: rows that survived unacknowledged are as good as any.
    fn settle(&mut self, found: &Leases) {
        for (address, history) in &mut self.0 {
            *history = History { states: vec![found.get(address).cloned()], acknowledged: 1 };
        }
    }
}

/// A server's life from start to crash.
struct Life<'a> {
    disk: Arc<dyn Disk>,
    commit: GroupCommit,
    shards: Vec<(LogTx, Arc<Watermark>, Vec<(Lsn, Ipv4Addr)>)>,
    truth: &'a mut Truth,
}

fn load(disk: &CrashDisk) -> Result<(LiveFile, Leases, bool), Error> {
    let opened = open::<V4>(Arc::new(disk.clone()), &live(), PID)?;
    let leases = Mutex::new(Leases::new());
    opened.image.load(2, 0, |_, lease| {
        let before = leases.lock().expect("no panic").insert(lease.address, lease.to_owned());
        assert!(before.is_none(), "{} was handed out twice", lease.address);
    })?;
    Ok((opened.live, leases.into_inner().expect("no panic"), opened.needs_cleanup))
}

impl<'a> Life<'a> {
    fn begin(disk: &CrashDisk, truth: &'a mut Truth) -> Result<Self, Error> {
        let (live_file, leases, needs_cleanup) = load(disk)?;
        truth.check(&leases, &|| "at start".into());
        truth.settle(&leases);
        let mut shards = Vec::new();
        let mut logs = Vec::new();
        for shard in 0..SHARD_COUNT {
            let (tx, rx) = log_ring(ShardId(shard), 0);
            let mark = Arc::new(Watermark::default());
            logs.push((rx, Arc::clone(&mark)));
            shards.push((tx, mark, Vec::new()));
        }
        let commit = GroupCommit::new(Some(live_file), logs, Vec::new(), SyncMode::Group);
        let mut life = Self { disk: Arc::new(disk.clone()), commit, shards, truth };
        if needs_cleanup {
            life.clean_up()?;
        }
        Ok(life)
    }

    fn append(&mut self, host: u8, step: u32, is_deletion: bool) {
        let shard = usize::from(host % SHARD_COUNT);
        let name = format!("host-{host},step\n{step}").repeat(usize::try_from(step % 7).expect("small"));
        let lease = Lease4 {
            address: Ipv4Addr::new(192, 0, 2, host),
            hw_addr: HwAddr::ethernet([2, 0, 0, 0, 0, host]),
            client_id: &[1, 2, 0, 0, 0, 0, host],
            cltt: 1_795_422_492 + u64::from(step),
            valid_lft: 3600,
            subnet_id: SubnetId(1),
            // One digit: a row torn before its line end is then the whole row or a bad one.
            pool_id: step % 10,
            state: LeaseState::Assigned,
            fqdn_fwd: false,
            fqdn_rev: true,
            hostname: name.as_bytes(),
            user_context: b"",
        };
        let change = if is_deletion { Change::Delete(lease) } else { Change::Put(lease) };
        let (tx, _, waiting) = &mut self.shards[shard];
        let lsn = tx.append(&change, ChangeOrigin::Client).expect("the ring is large");
        waiting.push((lsn, lease.address));
        let state = (!is_deletion).then(|| lease.to_owned());
        self.truth.0.entry(lease.address).or_default().states.push(state);
    }

    fn turn(&mut self) -> Result<(), Error> {
        let result = self.commit.turn(Mono(0));
        // Watermarks are read even after an error: what they say was promised.
        for (_, mark, waiting) in &mut self.shards {
            let durable = mark.read();
            waiting.retain(|(lsn, address)| {
                let is_acknowledged = *lsn <= durable;
                if is_acknowledged {
                    self.truth.0.get_mut(address).expect("appended").acknowledged += 1;
                }
                !is_acknowledged
            });
        }
        result.map(|_| ())
    }

    fn clean_up(&mut self) -> Result<(), Error> {
        for _ in 0..2 {
            let rotation = self.commit.rotate()?;
            if let Rotation::Failed(error) = rotation {
                return Err(error);
            }
            let is_last = !matches!(rotation, Rotation::Waiting);
            // The service goes on between the steps.
            self.append(250, 1, false);
            self.turn()?;
            let files = LeaseFiles::new(&live());
            Compaction::<V4>::new(&*self.disk, files, PID).run(&mut |_| true)?;
            if is_last {
                break;
            }
        }
        Ok(())
    }

    /// The scripted work of one life; every kind of call that the store makes is in it.
    fn work(&mut self) -> Result<(), Error> {
        for step in 0..24u32 {
            let host = u8::try_from(step % 9).expect("small");
            self.append(host, step, step % 5 == 4);
            if step % 3 == 0 {
                self.append(host + 20, step, false);
            }
            if step % 2 == 0 {
                self.turn()?;
            }
            if step == 9 || step == 17 {
                self.clean_up()?;
            }
        }
        self.turn()
    }
}

/// Runs two lives on `disk`; the error that ended them early, if any.
fn run(disk: &CrashDisk, truth: &mut Truth) -> Result<(), Error> {
    Life::begin(disk, truth)?.work()?;
    Life::begin(disk, truth)?.work()
}

fn survivors() -> impl Iterator<Item = Survivors> {
    [Survivors::All, Survivors::Durable].into_iter().chain((0..12).map(Survivors::Some))
}

#[test]
fn acknowledged_leases_survive_a_crash_at_every_call() {
    let quiet = CrashDisk::new();
    run(&quiet, &mut Truth::default()).expect("no fault");
    let call_count = quiet.call_count();
    assert!(call_count > 100, "the script makes {call_count} calls: too few to prove anything");
    let mut recoveries = 0;
    for call in 0..call_count {
        for kept_bytes in [0, 1, 40, 150, usize::MAX] {
            let disk = CrashDisk::new();
            let mut truth = Truth::default();
            disk.fault_at(call, Fault::Power { kept_bytes });
            let error = run(&disk, &mut truth).expect_err("the power went off");
            assert!(matches!(error, Error::Io { .. }), "call {call}: {error}");
            for survivors in survivors() {
                let after = disk.after(survivors);
                let context = || format!("call {call}, kept {kept_bytes}, {survivors:?}");
                let (_, leases, _) = load(&after).unwrap_or_else(|error| panic!("{}: {error:?}", context()));
                truth.check(&leases, &context);
                recoveries += 1;
            }
        }
    }
    println!("{call_count} calls, {recoveries} recoveries");
}

#[test]
fn a_crash_while_recovering_loses_nothing_either() {
    let quiet = CrashDisk::new();
    run(&quiet, &mut Truth::default()).expect("no fault");
    let mut recoveries = 0;
    for call in (0..quiet.call_count()).step_by(7) {
        let disk = CrashDisk::new();
        let mut truth = Truth::default();
        disk.fault_at(call, Fault::Power { kept_bytes: 60 });
        run(&disk, &mut truth).expect_err("the power went off");
        for seed in 0..3 {
            for second in 0..20 {
                let again = disk.after(Survivors::Some(seed));
                let mut truth = truth.clone();
                again.fault_at(second, Fault::Power { kept_bytes: 30 });
                let result = Life::begin(&again, &mut truth).and_then(|mut life| life.work());
                assert!(result.is_err(), "the script makes more than {second} calls");
                for survivors in survivors() {
                    let context = || format!("call {call}, seed {seed}, then call {second}, {survivors:?}");
                    let (_, leases, _) = load(&again.after(survivors))
                        .unwrap_or_else(|error| panic!("{}: {error:?}", context()));
                    truth.check(&leases, &context);
                    recoveries += 1;
                }
            }
        }
    }
    println!("{recoveries} recoveries");
}

#[test]
fn an_error_of_the_disk_stops_acknowledging_and_loses_nothing() {
    let quiet = CrashDisk::new();
    run(&quiet, &mut Truth::default()).expect("no fault");
    for call in 0..quiet.call_count() {
        for kind in [std::io::ErrorKind::StorageFull, std::io::ErrorKind::Other] {
            let disk = CrashDisk::new();
            let mut truth = Truth::default();
            disk.fault_at(call, Fault::Error { kind, kept_bytes: 70 });
            // Not every error ends the service: one of a cleanup leaves it running.
            let _ = run(&disk, &mut truth);
            for survivors in survivors() {
                let context = || format!("call {call} fails with {kind:?}, {survivors:?}");
                let (_, leases, _) =
                    load(&disk.after(survivors)).unwrap_or_else(|error| panic!("{}: {error:?}", context()));
                truth.check(&leases, &context);
            }
        }
    }
}

#[test]
fn after_a_failed_write_or_sync_the_store_is_stopped_for_good() {
    for offset in 0..2 {
        let disk = CrashDisk::new();
        let mut truth = Truth::default();
        let mut life = Life::begin(&disk, &mut truth).expect("no fault");
        let call = disk.call_count() + offset;
        disk.fault_at(call, Fault::Error { kind: std::io::ErrorKind::StorageFull, kept_bytes: 10 });
        life.append(1, 1, false);
        let error = life.turn().expect_err("the disk is full");
        assert!(error.to_string().contains("the disk is full"), "{error}");
        life.append(2, 1, false);
        for _ in 0..2 {
            assert!(matches!(life.turn(), Err(Error::Stopped { .. })));
            assert!(matches!(life.commit.rotate(), Err(Error::Stopped { .. })));
        }
        assert_eq!(life.shards[0].1.read(), Lsn(0));
        assert_eq!(life.shards[1].1.read(), Lsn(0));
    }
}

#[test]
fn nothing_is_published_before_the_folder_entry_of_a_new_file_is_durable() {
    let disk = CrashDisk::new();
    let mut truth = Truth::default();
    let mut life = Life::begin(&disk, &mut truth).expect("no fault");
    life.append(1, 1, false);
    life.turn().expect("no fault");
    assert!(matches!(life.commit.rotate().expect("no fault"), Rotation::Done));
    life.append(1, 2, false);
    life.append(2, 2, false);
    life.turn().expect("no fault");
    let (_, leases, _) = load(&disk.after(Survivors::Durable)).expect("no fault");
    assert_eq!(leases.len(), 2);
    assert_eq!(leases[&Ipv4Addr::new(192, 0, 2, 1)].view().pool_id, 2);
}

#[test]
fn a_cleanup_leaves_the_names_that_kea_expects() {
    let disk = CrashDisk::new();
    let mut truth = Truth::default();
    Life::begin(&disk, &mut truth).expect("no fault").work().expect("no fault");
    let files = LeaseFiles::new(&live());
    assert_eq!(disk.names(), [files.live, files.previous.clone(), files.lock]);
    let text = String::from_utf8(disk.content(&files.previous).expect("there")).expect("ASCII");
    let address = |row: &str| row.split(',').next().and_then(|column| column.parse::<Ipv4Addr>().ok());
    let addresses: Vec<_> = text.lines().skip(1).map(|row| address(row).expect("an address")).collect();
    assert!(addresses.is_sorted() && addresses.len() > 5, "{addresses:?}");
    assert!(
        text.lines().skip(1).all(|row| row.split(',').nth(3) == Some("3600")),
        "no deletion rows: {text}"
    );
}
