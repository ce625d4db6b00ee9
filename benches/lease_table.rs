//! The lease table as a shard uses it: renewals of random leases in batches with prefetch and one at a time, clients that are
//! not there, new clients; tables larger than the cache.
//!
//! `LEASES=10000000 cargo bench --bench lease_table` measures ten million; the default is ten thousand and a million.
//! Each size also prints what a lease costs in memory.

use std::hint::black_box;
use std::net::Ipv4Addr;

use aplomado::ids::{HwAddr, LeaseRef, ShardId, SubnetId};
use aplomado::lease::address::{AddressSpace, BLOCK_BYTES};
use aplomado::lease::table::{KeyHash, LeaseTable, Origin, TableLimits};
use aplomado::lease::{Lease4, LeaseState};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

const BATCH: usize = 64;
const START_S: u64 = 1_700_000_000;
const BASE: u32 = 0x0a00_0000;

struct Client {
    hw_addr: HwAddr,
    client_id: [u8; 7],
}

impl Client {
    fn of(number: u32) -> Self {
        let [a, b, c, d] = number.to_be_bytes();
        Self { hw_addr: HwAddr::ethernet([2, 0, a, b, c, d]), client_id: [1, 2, 0, a, b, c, d] }
    }

    fn lease(&self, number: u32) -> Lease4<'_> {
        Lease4 {
            address: Ipv4Addr::from_bits(BASE + number),
            hw_addr: self.hw_addr,
            client_id: &self.client_id,
            cltt: START_S,
            valid_lft: 3600,
            subnet_id: SubnetId(1),
            pool_id: 0,
            state: LeaseState::Assigned,
            fqdn_fwd: false,
            fqdn_rev: false,
            hostname: &[],
            user_context: &[],
        }
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        u32::try_from((u128::from(self.0) * u128::from(bound)) >> 64).expect("below the bound")
    }
}

fn sizes() -> Vec<u32> {
    match std::env::var("LEASES") {
        Ok(list) => list.split(',').map(|size| size.trim().parse().expect("LEASES holds numbers")).collect(),
        Err(_) => vec![10_000, 1_000_000],
    }
}

fn resident_bytes() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm")
        .ok()
        .and_then(|line| line.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()));
    pages.unwrap_or(0) * 4096
}

fn filled(lease_count: u32) -> LeaseTable {
    let before = resident_bytes();
    let record_count = usize::try_from(lease_count).expect("widening");
    let limits = TableLimits {
        record_count_max: record_count + 100_000,
        record_count: record_count + 1000,
        blob_bytes_max: 0,
    };
    let mut table = LeaseTable::new(limits, [3; 16], START_S);
    let space = AddressSpace::new(lease_count / 256 + 2);
    space.ensure(Ipv4Addr::from_bits(BASE), Ipv4Addr::from_bits(BASE + lease_count)).expect("blocks enough");
    for number in 0..lease_count {
        let client = Client::of(number);
        let lease = table.insert(&client.lease(number), Origin::Client).expect("room");
        space.claim(Ipv4Addr::from_bits(BASE + number), ShardId(0), lease).expect("free");
    }
    let stats = table.stats();
    let own = stats.table_bytes as f64 / f64::from(lease_count);
    let space = f64::from(space.block_count()) * BLOCK_BYTES as f64 / f64::from(lease_count);
    let resident = (resident_bytes() - before) as f64 / f64::from(lease_count);
    eprintln!(
        "{lease_count} leases, two keys each: {own:.1} bytes of table, {space:.1} of address space, {resident:.1} resident, each"
    );
    table
}

/// Finds a client's lease as the rules do: by identifier, then by hardware address.
fn find(table: &LeaseTable, client: &Client, by_id: KeyHash, by_hw: KeyHash) -> Option<LeaseRef> {
    table
        .with_client_id(by_id, &client.client_id)
        .next()
        .or_else(|| table.with_hw(by_hw, &client.hw_addr, &client.client_id).next())
}

/// The stages of a batch; gives how many were found.
fn renew_batch(table: &mut LeaseTable, clients: &[Client], cltt: u64) -> usize {
    let mut hashes = [None; BATCH];
    for (hash, client) in hashes.iter_mut().zip(clients) {
        let both = (table.hash_client_id(&client.client_id), table.hash_hw(&client.hw_addr));
        table.prefetch(both.0);
        table.prefetch(both.1);
        *hash = Some(both);
    }
    for (by_id, _) in hashes.iter().flatten() {
        table.prefetch_record(*by_id);
    }
    let mut found = 0;
    for (client, (by_id, by_hw)) in clients.iter().zip(hashes.into_iter().flatten()) {
        if let Some(lease) = find(table, client, by_id, by_hw) {
            table.renew(lease, cltt, 3600);
            found += 1;
        }
    }
    found
}

fn renew_one_by_one(table: &mut LeaseTable, clients: &[Client], cltt: u64) -> usize {
    let mut found = 0;
    for client in clients {
        let (by_id, by_hw) = (table.hash_client_id(&client.client_id), table.hash_hw(&client.hw_addr));
        if let Some(lease) = find(table, client, by_id, by_hw) {
            table.renew(lease, cltt, 3600);
            found += 1;
        }
    }
    found
}

fn lease_table(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("lease_table");
    group.throughput(Throughput::Elements(u64::try_from(BATCH).expect("small")));
    for lease_count in sizes() {
        let mut table = filled(lease_count);
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        let known = |random: &mut Random| -> Vec<Client> {
            (0..BATCH).map(|_| Client::of(random.below(lease_count))).collect()
        };
        let unknown = |random: &mut Random| -> Vec<Client> {
            (0..BATCH).map(|_| Client::of(lease_count + random.below(u32::MAX / 2))).collect()
        };
        // Enough batches made ahead that none is still in the cache when it comes again.
        let known: Vec<_> = (0..4096).map(|_| known(&mut random)).collect();
        let unknown: Vec<_> = (0..4096).map(|_| unknown(&mut random)).collect();
        let mut turn = 0_usize;
        let mut next = move || {
            turn = (turn + 1) % 4096;
            turn
        };
        group.bench_function(BenchmarkId::new("renew/batch64", lease_count), |bench| {
            bench.iter(|| assert_eq!(renew_batch(&mut table, &known[next()], START_S + 1), BATCH));
        });
        group.bench_function(BenchmarkId::new("renew/single", lease_count), |bench| {
            bench.iter(|| assert_eq!(renew_one_by_one(&mut table, &known[next()], START_S + 1), BATCH));
        });
        group.bench_function(BenchmarkId::new("miss/batch64", lease_count), |bench| {
            bench.iter(|| assert_eq!(renew_batch(&mut table, &unknown[next()], START_S + 1), 0));
        });
        group.bench_function(BenchmarkId::new("miss/single", lease_count), |bench| {
            bench.iter(|| assert_eq!(renew_one_by_one(&mut table, &unknown[next()], START_S + 1), 0));
        });
        group.bench_function(BenchmarkId::new("new_and_removed", lease_count), |bench| {
            let mut stored = Vec::with_capacity(BATCH);
            bench.iter(|| {
                for client in &unknown[next()] {
                    stored.push(table.insert(&client.lease(1), Origin::Client).expect("room"));
                }
                for lease in stored.drain(..) {
                    table.remove(black_box(lease));
                }
            });
        });
    }
    group.finish();
}

criterion_group!(benches, lease_table);
criterion_main!(benches);
