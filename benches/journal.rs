//! The lease log, from the shard's append to the synced row and back at the next start.
//!
//! `commit/N` writes to a real file under the target folder, so it measures this machine's disk as much as us.

use std::hint::black_box;
use std::net::Ipv4Addr;
use std::sync::Arc;

use aplomado::ids::{HwAddr, ShardId, SubnetId};
use aplomado::journal::replay::{Body, LastWins, Part, ReplaySink, RowError, replay};
use aplomado::journal::{Change, ChangeOrigin, Family, RowReader, V4, log_ring};
use aplomado::lease::{Lease4, LeaseState};
use aplomado::store::{GroupCommit, RealDisk, SyncMode, open};
use aplomado::sync::Watermark;
use aplomado::time::Mono;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};

const ROW_COUNT: u32 = 1_000_000;

fn lease(index: u32) -> Lease4<'static> {
    let [_, a, b, c] = index.to_be_bytes();
    Lease4 {
        address: Ipv4Addr::from(0x0a00_0000 + index),
        hw_addr: HwAddr::ethernet([2, 0, 0, a, b, c]),
        client_id: &[1, 2, 0, 0, 0xaa, 0xbb, 0xcc],
        cltt: 1_795_422_492 + u64::from(index),
        valid_lft: 86_400,
        subnet_id: SubnetId(1),
        pool_id: 0,
        state: LeaseState::Assigned,
        fqdn_fwd: false,
        fqdn_rev: false,
        hostname: b"host-name.example.org",
        user_context: b"",
    }
}

fn append(bench: &mut Criterion) {
    let mut group = bench.benchmark_group("journal");
    group.throughput(Throughput::Elements(64));
    let (mut tx, mut rx) = log_ring(ShardId(0), 1 << 14);
    group.bench_function("append_drain/64", |bencher| {
        bencher.iter(|| {
            for index in 0..64 {
                tx.append(&Change::Put(lease(index)), ChangeOrigin::Client).expect("drained every time");
            }
            rx.drain(64, |lsn, _, change| {
                black_box((lsn, change));
            })
        });
    });
    group.bench_function("append/64", |bencher| {
        bencher.iter_batched(
            || rx.drain(usize::MAX, |_, _, _| ()),
            |_| {
                for index in 0..64 {
                    tx.append(&Change::Put(lease(index)), ChangeOrigin::Client).expect("drained every time");
                }
            },
            BatchSize::PerIteration,
        );
    });
    let mut rows = Vec::new();
    let leases: Vec<_> = (0..64).map(lease).collect();
    group.bench_function("format/64", |bencher| {
        bencher.iter(|| {
            rows.clear();
            for lease in &leases {
                Change::Put(*lease).write_row(&mut rows);
            }
            rows.len()
        });
    });
    group.finish();
}

fn commit(bench: &mut Criterion) {
    let mut group = bench.benchmark_group("commit");
    group.sample_size(20);
    for size in [1u32, 8, 64, 256, 512] {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("room");
        let path = folder.path().join("leases.csv");
        let opened = open::<V4>(Arc::new(RealDisk), &path, std::process::id()).expect("a new file");
        let (mut tx, rx) = log_ring(ShardId(0), 1 << 14);
        let durable = Arc::new(Watermark::default());
        let logs = vec![(rx, Arc::clone(&durable))];
        let mut commit = GroupCommit::new(Some(opened.live), logs, Vec::new(), SyncMode::Group);
        group.throughput(Throughput::Elements(u64::from(size)));
        group.bench_function(format!("{size}"), |bencher| {
            bencher.iter(|| {
                for index in 0..size {
                    tx.append(&Change::Put(lease(index)), ChangeOrigin::Client).expect("drained every time");
                }
                commit.turn(Mono(0)).expect("a good disk");
                assert_eq!(durable.read(), tx.appended());
            });
        });
    }
    group.finish();
}

struct Count(u64);

impl ReplaySink<V4> for Count {
    fn put(&mut self, lease: &Lease4<'_>) {
        self.0 += u64::from(lease.valid_lft);
    }

    fn delete(&mut self, _key: Ipv4Addr) {}

    fn reject(&mut self, error: RowError, _text: &[u8]) {
        panic!("{error}");
    }
}

fn read(bench: &mut Criterion) {
    let mut bytes = Vec::new();
    V4::write_header(&mut bytes);
    for index in 0..ROW_COUNT {
        Change::Put(lease(index)).write_row(&mut bytes);
    }
    let mut group = bench.benchmark_group("replay");
    group.sample_size(10);
    group.throughput(Throughput::Elements(u64::from(ROW_COUNT)));
    group.bench_function("rows/1m", |bencher| {
        bencher.iter(|| {
            let mut count = Count(0);
            replay::<V4>(Body::new::<V4>(&bytes).expect("our header"), 0, &mut count).expect("good rows");
            count.0
        });
    });
    for parts in [1, 2] {
        // One thread's share of the work: what a load takes when there are as many cores as parts.
        group.bench_function(format!("last_wins/1m/part_of_{parts}"), |bencher| {
            bencher.iter(|| {
                let body = Body::new::<V4>(&bytes).expect("our header");
                let mut reader = RowReader::<V4>::new(body.schema);
                let mut leases = LastWins::<V4>::new(Part::new(0, parts), 1 << 20);
                for line in body.lines {
                    leases.apply(0, line, &mut reader).expect("good rows");
                }
                let mut sum = 0;
                for place in leases.into_places() {
                    let start = usize::try_from(place.offset()).expect("in memory");
                    let lease = reader.read(&bytes[start..start + place.row_bytes()]).expect("a good row");
                    sum += u64::from(lease.valid_lft);
                }
                sum
            });
        });
    }
    group.finish();
}

criterion_group!(benches, append, commit, read);
criterion_main!(benches);
