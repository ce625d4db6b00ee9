//! What the control thread asks of shards, and when: a server whose threads are turned by hand, or not at all.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use aplomado::allocate::Share;
use aplomado::config::load::{Source, load};
use aplomado::control::backend::{Backend as _, Completion, Order as Work, Ticket};
use aplomado::exchange::serving::StatsBook;
use aplomado::ids::{HwAddr, SubnetId};
use aplomado::journal::replay::SanityMode;
use aplomado::lease::address::AddressSpace;
use aplomado::lease::request::{LeaseFilter, LeaseReply, LeaseRequest, Origin, PutMode};
use aplomado::lease::{Lease4, LeaseState};
use aplomado::net::link::{Link, Snapshot, Table};
use aplomado::server::clock::Clock;
use aplomado::server::desk::Desk;
use aplomado::server::engine::{Engine, Room, Start, Work as Threads};
use aplomado::server::setup::{self, BLOCKS_PER_STEP_MAX, SpaceWork};
use aplomado::server::shard_loop::{Event, Order};
use aplomado::store::{CrashDisk, SyncMode};

const START_S: u64 = 1_790_000_000;
const SHARDS: usize = 4;

/// A server that serves one pool.
fn server(pool: &str, blocks: u32) -> (Desk, Threads) {
    let text = format!(
        r#"{{ "Dhcp4": {{ "interfaces-config": {{ "interfaces": [ "v0" ] }}, "valid-lifetime": 4000,
            "lease-database": {{ "type": "memfile", "persist": false }},
            "subnet4": [ {{ "id": 1, "subnet": "10.0.0.0/8", "pools": [ {{ "pool": "{pool}" }} ] }} ] }} }}"#
    );
    let link = Link {
        name: "v0".to_owned(),
        index: 1,
        mac: Some([2, 0, 0, 0, 0, 1]),
        up: true,
        running: true,
        loopback: false,
        mtu: 1500,
        addresses: vec![(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), 8)],
    };
    let snapshot = Snapshot { links: vec![link] };
    let interfaces = setup::system_interfaces(&snapshot);
    let source = [Source { name: "desk", text: &text }];
    let loaded = load(&source, &mut |_: &str| Err(String::new()), Some(&interfaces));
    let tree = loaded.dhcp4.clone().expect("a good configuration");
    let plan = setup::plan(&tree, &loaded, &mut Table::new(), &snapshot, 1, &mut Vec::new());
    let mut book = StatsBook::default();
    let serving = setup::serving(&tree, plan.expect("a plan"), Vec::new(), &mut book);
    let clock = Clock::new();
    let start = Start {
        serving,
        book,
        shard_count: SHARDS,
        lease_file: None,
        sync: SyncMode::Group,
        sanity: SanityMode::Warn,
        row_errors_max: 0,
        lease_capacity: 16_384,
        share: Share::Whole,
        seed: 7,
        wake_control: Arc::new(|| {}),
        pairs: Vec::new(),
        parked_max: 0,
        upgrade_contexts: false,
        room: Room { log_slots: 4096, parked_for_disk: 128, parked_for_peers: 128, blocks },
        disk: Arc::new(CrashDisk::new()),
    };
    let (engine, threads, _) = Engine::build(start, &clock).expect("it is built");
    (Desk::new(engine, clock, tree, None, Vec::new()), threads)
}

/// Every thread does what it can.
fn turn(threads: &mut Threads, desk: &Desk) {
    let now = desk.clock.now();
    for shard in &mut threads.shards {
        shard.turn(now, START_S * 1_000_000_000);
    }
    threads.log.turn(now.mono);
}

/// Turns everything until the work is done.
fn done(threads: &mut Threads, desk: &mut Desk, ticket: Ticket) -> Completion {
    for _ in 0..100_000 {
        turn(threads, desk);
        desk.listen();
        desk.settle();
        let place = desk.done.iter().position(|(done, _)| *done == ticket);
        if let Some(place) = place {
            return desk.done.swap_remove(place).1;
        }
    }
    panic!("{ticket:?} is never done");
}

fn page(from: u32, limit: u32) -> Work {
    Work::Lease(LeaseRequest::List { from: Ipv4Addr::from_bits(from), limit, filter: LeaseFilter::All })
}

fn put(desk: &mut Desk, threads: &mut Threads, number: u32) {
    let [_, a, b, c] = number.to_be_bytes();
    let hw_addr = HwAddr::ethernet([2, 0, 0, a, b, c]);
    let lease = Lease4 {
        address: Ipv4Addr::from_bits(0x0a01_0000 + number),
        hw_addr,
        client_id: &[],
        cltt: START_S,
        valid_lft: 4000,
        subnet_id: SubnetId(1),
        pool_id: 0,
        state: LeaseState::Assigned,
        fqdn_fwd: false,
        fqdn_rev: false,
        hostname: &[],
        user_context: &[],
    };
    let request = LeaseRequest::Put { lease: lease.to_owned(), mode: PutMode::Add, origin: Origin::Command };
    let ticket = Ticket(u64::from(number));
    desk.submit(ticket, Work::Lease(request));
    let added = done(threads, desk, ticket);
    assert!(matches!(added, Completion::Lease(LeaseReply::Added)), "{added:?}");
}

#[test]
fn page_that_shards_have_no_room_for_is_asked_for_when_they_have() {
    let (mut desk, mut threads) = server("10.1.0.0/16", 1024);
    // A shard that is stuck takes as many orders as there is room for.
    while desk.engine.shards[0].order(Order::Leases(u64::MAX >> 8, LeaseRequest::Mark)).is_ok() {}
    let ticket = Ticket(1);
    desk.submit(ticket, page(0, 10));
    for _ in 0..3 {
        desk.listen();
        desk.settle();
        assert!(desk.done.is_empty(), "nobody is told to ask again at once: {:?}", desk.done);
    }
    let listed = done(&mut threads, &mut desk, ticket);
    assert!(
        matches!(&listed, Completion::Lease(LeaseReply::Leases(leases)) if leases.is_empty()),
        "{listed:?}"
    );
}

#[test]
fn shards_list_together_about_as_many_leases_as_a_page_has() {
    const LEASES: u32 = 2000;
    const PAGE: u32 = 500;
    let (mut desk, mut threads) = server("10.1.0.0/16", 1024);
    for number in 0..LEASES {
        put(&mut desk, &mut threads, number);
    }
    let (mut from, mut listed, mut fetched) = (0, BTreeSet::new(), 0);
    for number in 10_000.. {
        let ticket = Ticket(number);
        desk.submit(ticket, page(from, PAGE));
        // What the shards say is counted on its way.
        while desk.done.is_empty() {
            turn(&mut threads, &desk);
            while let Ok(event) = desk.engine.events.try_recv() {
                if let Event::Leases(number, reply, shard, lsn) = event {
                    fetched += if let LeaseReply::Leases(leases) = &reply { leases.len() } else { 0 };
                    desk.answered(number, reply, shard, lsn);
                }
            }
            desk.settle();
        }
        let (leases, has_more) = match desk.done.remove(0).1 {
            Completion::Lease(LeaseReply::Leases(leases)) => {
                let is_full = leases.len() == PAGE as usize;
                (leases, is_full)
            }
            Completion::Lease(LeaseReply::Part(leases)) => (leases, true),
            other => panic!("{other:?}"),
        };
        for lease in &leases {
            from = lease.view().address.to_bits();
            assert!(listed.insert(from), "once");
        }
        if !has_more {
            break;
        }
    }
    assert_eq!(listed, (0x0a01_0000..0x0a01_0000 + LEASES).collect());
    let wanted = usize::try_from(LEASES).expect("few");
    assert!(
        fetched <= 2 * wanted,
        "{fetched} leases for {wanted}, where {SHARDS} shards could list them all"
    );
}

#[test]
fn room_for_a_pool_of_a_whole_class_a_is_made_in_steps() {
    const NETWORKS: u32 = 65_536;
    let (desk, _threads) = server("10.0.0.0/8", NETWORKS);
    let plan = &desk.engine.serving().plan;
    let space = AddressSpace::new(NETWORKS);
    let mut work = SpaceWork::new(&space, plan).expect("room").expect("more than a step");
    let mut steps = 1;
    loop {
        let before = space.block_count();
        let is_last = work.step(&space).expect("room");
        assert!(space.block_count() - before <= BLOCKS_PER_STEP_MAX);
        if is_last {
            break;
        }
        steps += 1;
    }
    assert_eq!((space.block_count(), steps), (NETWORKS, NETWORKS / BLOCKS_PER_STEP_MAX));
    assert!(SpaceWork::new(&space, plan).expect("it is made").is_none(), "nothing is left to be made");
    let short = AddressSpace::new(NETWORKS - 1);
    assert!(SpaceWork::new(&short, plan).is_err());
    assert_eq!(short.block_count(), 0, "what is refused takes no room");
}
