//! Allocators over a pool of a million addresses: empty, and with one address in a thousand left, in scattered places; one shard
//! alone and two at once over the same pool. A step picks, claims and frees again, so that the fill stays.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use aplomado::allocate::{Allocator, AllocatorKind, ClaimedPick, PoolRange, Share, Start};
use aplomado::ids::{LeaseRef, ShardId};
use aplomado::lease::address::AddressSpace;
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};

const BASE: u32 = 0x0a00_0000;
const POOL: u32 = 1 << 20;

fn space_with(taken_per_1024: u32) -> AddressSpace {
    let space = AddressSpace::new(POOL / 256 + 1);
    space.ensure(Ipv4Addr::from_bits(BASE), Ipv4Addr::from_bits(BASE + POOL - 1)).expect("blocks enough");
    for offset in 0..POOL {
        // Scattered, and the same in every run.
        if offset.wrapping_mul(0x9e37_79b1) >> 22 < taken_per_1024 {
            space.claim(Ipv4Addr::from_bits(BASE + offset), ShardId(9), LeaseRef(offset)).expect("free");
        }
    }
    space
}

fn step(own: &mut Allocator, pools: &[PoolRange], space: &AddressSpace, shard: ShardId) {
    let ClaimedPick::Claimed { address, .. } = own.pick_and_claim(pools, space, |_| true, shard, LeaseRef(1))
    else {
        panic!("an address in a thousand is free");
    };
    assert!(space.release(address, shard, LeaseRef(1)), "claimed by us");
    own.freed(pools, address);
}

#[expect(clippy::disallowed_methods, reason = "a benchmark measures wall time of several threads")]
fn timed(shards: &mut [Allocator], pools: &[PoolRange], space: &AddressSpace, steps: u64) -> Duration {
    let start = Instant::now();
    std::thread::scope(|scope| {
        for (shard, own) in (0..).zip(shards) {
            scope.spawn(move || {
                for _ in 0..steps {
                    step(own, pools, space, ShardId(shard));
                }
            });
        }
    });
    start.elapsed()
}

fn allocate(criterion: &mut Criterion) {
    let pools = [PoolRange { first: Ipv4Addr::from_bits(BASE), last: Ipv4Addr::from_bits(BASE + POOL - 1) }];
    let mut group = criterion.benchmark_group("allocate");
    for (fill, taken_per_1024) in [("empty", 0), ("999_full", 1023)] {
        let space = space_with(taken_per_1024);
        for (name, kind) in [
            ("iterative", AllocatorKind::Iterative),
            ("random", AllocatorKind::Random),
            ("flq", AllocatorKind::Flq),
        ] {
            for shard_count in [1_u8, 2] {
                let mut shards: Vec<_> = (0..shard_count)
                    .map(|shard| {
                        let start =
                            Start::of_shard(5, ShardId(shard), usize::from(shard_count), Share::Whole);
                        Allocator::new(kind, &pools, start)
                    })
                    .collect();
                let id = BenchmarkId::new(format!("{name}/{fill}"), format!("{shard_count}_shards"));
                group.bench_function(id, |bench| {
                    bench.iter_custom(|steps| timed(&mut shards, &pools, &space, steps));
                });
            }
        }
    }
    group.finish();
}

/// The first pick of a new allocator, as after a start or a reload.
fn first_pick(criterion: &mut Criterion) {
    let pools = [PoolRange { first: Ipv4Addr::from_bits(BASE), last: Ipv4Addr::from_bits(BASE + POOL - 1) }];
    let space = space_with(1023);
    let mut group = criterion.benchmark_group("allocate/first_pick");
    for (name, kind) in [
        ("iterative", AllocatorKind::Iterative),
        ("random", AllocatorKind::Random),
        ("flq", AllocatorKind::Flq),
    ] {
        group.bench_function(name, |bench| {
            bench.iter_batched_ref(
                || Allocator::new(kind, &pools, Start { position: 0, seed: 1 }),
                |own| own.pick(&pools, &space, |_| true),
                criterion::BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, allocate, first_pick);
criterion_main!(benches);
