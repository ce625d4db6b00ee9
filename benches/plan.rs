//! What a large configuration costs: to load, and per query against one of a single subnet.
//!
//! `load` is the whole way from text to plan. The lookups take the rare paths too: `select` by relay and by address,
//! `host/hit` and `host/miss` for a client with and without reservation, `reserved` as an allocator asks,
//! `options` as an answer needs them.

use std::fmt::Write as _;
use std::hint::black_box;
use std::net::Ipv4Addr;

use aplomado::classify::subnet::{Origin, select};
use aplomado::config::finding::Report;
use aplomado::config::load::{Source, load};
use aplomado::config::plan::classes::ALL;
use aplomado::config::plan::{
    ChosenOptions, IdentifierKind, Identifiers, Plan, ScopeIndex, Sources, SubnetIndex, Surroundings, Wanted,
    build, resolve,
};
use aplomado::ids::InterfaceId;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

/// Subnets and reservations of the large configuration.
const LARGE: (u32, u32) = (10_000, 100_000);
/// Queries of a batch.
const BATCH: usize = 64;
/// Of the small one.
const SMALL: (u32, u32) = (1, 1);

/// `subnets` of 256 addresses from 10.0.0.0 on, a pool, a router and a relay each, and `hosts` spread over them.
fn configuration((subnets, hosts): (u32, u32)) -> String {
    let mut text = String::from(
        r#"{ "Dhcp4": { "option-data": [ { "name": "domain-name-servers", "data": "192.0.2.1, 192.0.2.2" },
        { "name": "domain-name", "data": "example.com" } ], "subnet4": [ "#,
    );
    let per_subnet = hosts.div_ceil(subnets);
    for index in 0..subnets {
        let at = |last: u32| Ipv4Addr::from(0x0a00_0000 + index * 256 + last);
        if index > 0 {
            text.push_str(",\n");
        }
        let _ = write!(
            text,
            r#"{{ "id": {}, "subnet": "{}/24", "pools": [ {{ "pool": "{}-{}" }} ],
            "relay": {{ "ip-addresses": [ "{}" ] }},
            "option-data": [ {{ "name": "routers", "data": "{}" }} ], "reservations": [ "#,
            index + 1,
            at(0),
            at(10),
            at(199),
            Ipv4Addr::from(0xac10_0000 + index),
            at(1),
        );
        for host in 0..per_subnet {
            let number = index * per_subnet + host;
            let [_, a, b, c] = number.to_be_bytes();
            let separator = if host > 0 { "," } else { "" };
            let _ = write!(
                text,
                r#"{separator}{{ "hw-address": "02:00:00:{a:02x}:{b:02x}:{c:02x}", "ip-address": "{}" }}"#,
                at(200 + host)
            );
        }
        text.push_str(" ] }");
    }
    text + " ] } }"
}

fn plan(text: &str) -> Plan {
    let loaded = load(&[Source { name: "bench", text }], &mut |_: &str| Err(String::new()), None);
    let tree = loaded.dhcp4.expect("a good configuration");
    let mut report = Report::default();
    build(&tree, Surroundings::default(), &mut report).expect("a good configuration")
}

/// A cheap sequence that visits subnets in no order.
fn step(state: &mut u32, below: u32) -> u32 {
    *state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
    u32::try_from((u64::from(*state) * u64::from(below)) >> 32).expect("below u32")
}

fn lookups(criterion: &mut Criterion, label: &str, size: (u32, u32)) {
    let plan = plan(&configuration(size));
    let (subnets, hosts) = size;
    let per_subnet = hosts.div_ceil(subnets);
    let mut group = criterion.benchmark_group("plan");
    group.throughput(Throughput::Elements(1));
    let nowhere = Origin {
        link_selection: None,
        subnet_selection: None,
        giaddr: Ipv4Addr::UNSPECIFIED,
        ciaddr: Ipv4Addr::UNSPECIFIED,
        source: Ipv4Addr::UNSPECIFIED,
        to_broadcast: true,
        interface: InterfaceId(0),
    };

    let mut state = 1;
    group.bench_function(format!("select/relay/{label}"), |bencher| {
        bencher.iter(|| {
            let giaddr = Ipv4Addr::from(0xac10_0000 + step(&mut state, subnets));
            select(&plan, black_box(&Origin { giaddr, ..nowhere }), &[ALL]).expect("a relay of a subnet")
        });
    });
    group.bench_function(format!("select/address/{label}"), |bencher| {
        bencher.iter(|| {
            let giaddr = Ipv4Addr::from(0x0a00_0001 + 256 * step(&mut state, subnets));
            select(&plan, black_box(&Origin { giaddr, ..nowhere }), &[ALL]).expect("an address of a subnet")
        });
    });
    for (kind, prefix) in [("hit", 0x02), ("miss", 0x06)] {
        group.bench_function(format!("host/{kind}/{label}"), |bencher| {
            bencher.iter(|| {
                let number = step(&mut state, subnets * per_subnet);
                let [_, a, b, c] = number.to_be_bytes();
                let address = [prefix, 0, 0, a, b, c];
                let mut identifiers = Identifiers::default();
                identifiers.set(IdentifierKind::HwAddress, &address);
                let subnet = SubnetIndex(number / per_subnet);
                plan.hosts.find(Some(subnet), black_box(&identifiers))
            });
        });
    }
    group.bench_function(format!("reserved/{label}"), |bencher| {
        bencher.iter(|| {
            let index = step(&mut state, subnets);
            let address = Ipv4Addr::from(0x0a00_0000 + 256 * index + 100);
            plan.hosts.is_reserved_for_other(SubnetIndex(index), black_box(address), &Identifiers::default())
        });
    });
    let mut options = ChosenOptions::default();
    group.bench_function(format!("options/{label}"), |bencher| {
        bencher.iter(|| {
            let subnet = SubnetIndex(step(&mut state, subnets));
            let place = plan.pools_of(subnet)[0].options;
            let sources = Sources { place, classes: &[ALL], ..Sources::default() };
            let wanted = Wanted { requested: &[1, 3, 6, 15, 28, 42, 51, 58, 59], ..Wanted::default() };
            resolve(&plan, black_box(&sources), &wanted, &mut options);
            options.iter(&plan).map(|(_, value)| value.len()).sum::<usize>()
        });
    });
    // What queries of clients without reservation ask of a plan, from relay to options, in batches as shards do it:
    // each stage over the whole batch, so that its fetches from memory overlap.
    group.throughput(Throughput::Elements(BATCH as u64));
    group.bench_function(format!("batch/{label}"), |bencher| {
        let mut numbers = [0; BATCH];
        let mut chosen = [SubnetIndex(0); BATCH];
        let mut places = [ScopeIndex::default(); BATCH];
        bencher.iter(|| {
            for (number, subnet) in numbers.iter_mut().zip(&mut chosen) {
                *number = step(&mut state, subnets);
                let giaddr = Ipv4Addr::from(0xac10_0000 + *number);
                *subnet = select(&plan, black_box(&Origin { giaddr, ..nowhere }), &[ALL]).expect("a subnet");
            }
            let mut found = 0;
            for (number, subnet) in numbers.iter().zip(&chosen) {
                let [_, a, b, c] = number.to_be_bytes();
                let address = [6, 0, 0, a, b, c];
                let mut identifiers = Identifiers::default();
                identifiers.set(IdentifierKind::HwAddress, &address);
                found += usize::from(plan.find_host(*subnet, black_box(&identifiers)).is_some());
            }
            for ((number, subnet), place) in numbers.iter().zip(&chosen).zip(&mut places) {
                let address = Ipv4Addr::from(0x0a00_0000 + 256 * number + 50);
                *place = plan.pool(plan.pool_of(*subnet, black_box(address)).expect("a pool")).options;
            }
            for &place in &places {
                let sources = Sources { place, classes: &[ALL], ..Sources::default() };
                let wanted = Wanted { requested: &[1, 3, 6, 15, 28, 42, 51, 58, 59], ..Wanted::default() };
                resolve(&plan, black_box(&sources), &wanted, &mut options);
                found += options.iter(&plan).map(|(_, value)| value.len()).sum::<usize>();
            }
            found
        });
    });
    group.finish();
}

fn loads(criterion: &mut Criterion) {
    let text = configuration(LARGE);
    let mut group = criterion.benchmark_group("plan");
    group.sample_size(10);
    group.throughput(Throughput::Bytes(text.len() as u64));
    group.bench_function("load/10k", |bencher| bencher.iter(|| plan(black_box(&text))));
    group.finish();
}

fn all(criterion: &mut Criterion) {
    lookups(criterion, "1", SMALL);
    lookups(criterion, "10k", LARGE);
    loads(criterion);
}

criterion_group!(benches, all);
criterion_main!(benches);
