//! The load-balancing bucket of a client's key: 6 octets (hardware address), 7 (client identifier of one), 19 (RFC 4361).

use std::hint::black_box;

use aplomado::classify::bucket::bucket;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

fn buckets(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("bucket");
    group.throughput(Throughput::Elements(1));
    let key: [u8; 19] = std::array::from_fn(|index| u8::try_from(index * 7).expect("small"));
    for len in [6, 7, 19] {
        group.bench_function(len.to_string(), |bencher| bencher.iter(|| bucket(black_box(&key[..len]))));
    }
    group.finish();
}

criterion_group!(benches, buckets);
criterion_main!(benches);
