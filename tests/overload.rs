//! A shard that is asked for more than it can do: who is served then, and that nobody is turned away before.
//!
//! One shard and a port in memory, turned by hand: "what it can do" is one batch a turn.

#[path = "../benches/rig/mod.rs"]
mod rig;

use std::collections::HashMap;
use std::net::Ipv4Addr;

use aplomado::exchange::request::{REMOVED_PER_STEP_MAX, ROWS_AHEAD_MAX};
use aplomado::lease::request::{LeaseReply, LeaseRequest};
use aplomado::net::{BATCH_MAX, MemoryPort, RxFlags};
use aplomado::server::admission::{CROWDED_TURNS, PATIENCE_NS};
use aplomado::server::shard_loop::{Event, Order};
use aplomado::wire::codes::MessageType;
use aplomado::wire::drop::DropReason;
use aplomado::wire::frame::PAYLOAD_OFFSET;
use rig::{INTERFACE, Message, Rig, START_S, address};

const DISCOVER: u8 = 1;
const REQUEST: u8 = 3;
const CONFIGURATION: &str = r#"{ "Dhcp4": { "interfaces-config": { "interfaces": [ "eth0" ] },
    "valid-lifetime": 4000, "authoritative": true,
    "subnet4": [ { "id": 1, "subnet": "10.0.0.0/8", "pools": [ { "pool": "10.0.0.0-10.15.255.255" } ] } ] } }"#;
/// Frames that wait at most.
const SLOTS: usize = 512;
/// Clients that have a lease; those above it ask for an offer.
const BOUND: u32 = 20_000;
/// Frames that arrive while the shard serves a batch: five times as many as it serves.
const ARRIVE: u32 = 5 * 64;

struct Flood {
    rig: Rig<MemoryPort>,
    far: MemoryPort,
    next_bound: u32,
    next_unbound: u32,
    wall_ns: u64,
    /// Answers by relay and message type.
    answers: HashMap<(Ipv4Addr, u8), u64>,
}

impl Flood {
    fn new() -> Self {
        let (near, far) = MemoryPort::pair(INTERFACE, INTERFACE, SLOTS);
        let mut rig = Rig::new(CONFIGURATION, 1, near, 65_536);
        for number in 0..BOUND {
            rig.lease(number, 1500, 4000, b"");
        }
        let wall_ns = START_S * 1_000_000_000;
        Self { rig, far, next_bound: 0, next_unbound: BOUND, wall_ns, answers: HashMap::new() }
    }

    /// A message arrives `age_ns` ago; whether there was room for it.
    fn arrive(&mut self, kind: u8, giaddr: Ipv4Addr, age_ns: u64) -> bool {
        let mut message = Message { giaddr, ..Message::new(kind, 0) };
        if kind == REQUEST {
            message.client = self.next_bound;
            message.ciaddr = address(self.next_bound);
            self.next_bound = (self.next_bound + 1) % BOUND;
        } else {
            message.client = self.next_unbound;
            self.next_unbound += 1;
        }
        let mut frame = [0; 2048];
        let len = message.write(&mut frame);
        self.far.set_wall_ns(self.wall_ns - age_ns);
        self.far.inject(&frame[..len], RxFlags::default())
    }

    /// The shard serves one batch, and everybody gets the answers.
    fn turn(&mut self) {
        let mut now = self.rig.now;
        now.wall_s = self.wall_ns / 1_000_000_000;
        self.rig.shard.turn(now, self.wall_ns);
        self.rig.drain_log();
        self.rig.mind_control();
        let answers = &mut self.answers;
        let take = |bytes: &[u8]| {
            let message = &bytes[PAYLOAD_OFFSET..];
            let giaddr: [u8; 4] = *message[24..].first_chunk().expect("an answer is whole");
            *answers.entry((giaddr.into(), message[242])).or_default() += 1;
        };
        let mut take = take;
        while self.far.eject(&mut take).is_some() {}
        self.wall_ns += 400_000;
    }

    fn answered(&self, giaddr: Ipv4Addr, kind: u8) -> u64 {
        self.answers.get(&(giaddr, kind)).copied().unwrap_or(0)
    }

    fn dropped(&self, reason: DropReason) -> u64 {
        self.rig.counters.drop_count(reason)
    }

    fn dropped_in_all(&self) -> u64 {
        DropReason::ALL.iter().map(|reason| self.dropped(*reason)).sum()
    }

    /// Serves what is still there.
    fn run_dry(&mut self) {
        for _ in 0..SLOTS / BATCH_MAX + 4 {
            self.turn();
        }
    }
}

const OFFER: u8 = 2;
const ACK: u8 = 5;
const DIRECT: Ipv4Addr = Ipv4Addr::UNSPECIFIED;
const ONE: Ipv4Addr = Ipv4Addr::new(10, 20, 0, 1);
const OTHER: Ipv4Addr = Ipv4Addr::new(10, 21, 0, 1);

#[test]
fn clients_with_a_lease_are_served_while_others_flood() {
    let mut flood = Flood::new();
    let (mut asked, turns) = (0_u64, u64::from(CROWDED_TURNS) + 400);
    for turn in 0..turns {
        for number in 0..ARRIVE {
            let kind = if number % 10 == 3 { REQUEST } else { DISCOVER };
            flood.arrive(kind, DIRECT, 0);
            asked += u64::from(kind == REQUEST && turn > u64::from(CROWDED_TURNS) + 8);
        }
        flood.turn();
        if turn == u64::from(CROWDED_TURNS) + 8 {
            flood.answers.clear();
        }
    }
    let (acks, offers) = (flood.answered(DIRECT, ACK), flood.answered(DIRECT, OFFER));
    // A fifth of all is served; without a preference it would be a fifth of these, and with it as many as the port has room for.
    assert!(acks * 10 >= asked * 7, "{acks} of {asked} REQUESTs, {offers} OFFERs");
    assert!(acks + offers >= 390 * 60, "batches stay full: {acks} and {offers}");
    assert!(flood.dropped(DropReason::ShedDiscover) > 0);
    assert_eq!(flood.dropped(DropReason::ShedUnfair), 0, "there is one group of clients");
    flood.run_dry();
    let counters = &flood.rig.counters;
    let served = counters.sent_count() + flood.dropped_in_all();
    assert_eq!(counters.received_count(), served, "each frame is answered or counted as dropped");
    assert_eq!(counters.sent_type_count(MessageType::Nak), 0);
}

#[test]
fn relay_that_floods_does_not_starve_another() {
    let mut flood = Flood::new();
    let mut asked = 0;
    for turn in 0..CROWDED_TURNS + 400 {
        for number in 0..ARRIVE {
            let relay = if number % 40 == 7 { OTHER } else { ONE };
            flood.arrive(DISCOVER, relay, 0);
            asked += u64::from(relay == OTHER && turn > CROWDED_TURNS + 80);
        }
        flood.turn();
        if turn == CROWDED_TURNS + 80 {
            flood.answers.clear();
        }
    }
    let (one, other) = (flood.answered(ONE, OFFER), flood.answered(OTHER, OFFER));
    assert!(other * 10 >= asked * 7, "{other} of {asked}, where the flood got {one}");
    assert!(one + other >= 310 * 60, "batches stay full: {one} and {other}");
    assert!(flood.dropped(DropReason::ShedUnfair) > 0);
}

#[test]
fn burst_that_a_port_has_room_for_is_served_whole() {
    let mut flood = Flood::new();
    for _ in 0..10 {
        for number in 0..SLOTS {
            let relay = if number % 5 == 0 { OTHER } else { ONE };
            let kind = if number % 3 == 0 { REQUEST } else { DISCOVER };
            // All of them have waited, for the machine stood still.
            assert!(flood.arrive(kind, relay, 2 * PATIENCE_NS));
        }
        flood.run_dry();
    }
    assert_eq!(flood.dropped_in_all(), 0);
    assert_eq!(flood.answers.values().sum::<u64>(), 10 * u64::try_from(SLOTS).expect("small"));
}

#[test]
fn shard_that_cannot_keep_up_gives_up_discovers_that_have_waited_long() {
    let mut flood = Flood::new();
    let turns = 2 * PATIENCE_NS / 400_000;
    let mut asked = 0;
    for turn in 0..turns {
        // What is not refused here has waited longer than the client of a DISCOVER will.
        while flood.arrive(DISCOVER, DIRECT, PATIENCE_NS + 1_000) {
            if flood.next_unbound.is_multiple_of(8) && flood.arrive(REQUEST, DIRECT, PATIENCE_NS + 1_000) {
                asked += 1;
            }
        }
        if turn == turns / 2 {
            assert_eq!(flood.dropped(DropReason::ShedStale), 0);
        }
        flood.turn();
    }
    assert!(flood.dropped(DropReason::ShedDiscover) > 1000);
    let offers = flood.answered(DIRECT, OFFER);
    flood.run_dry();
    assert!(flood.answered(DIRECT, OFFER) <= offers + 512, "those that have waited are not offered anything");
    assert_eq!(flood.answered(DIRECT, ACK), asked, "every REQUEST that found room");
}

/// A wipe has rows enough for every slot of the log; clients must find room in it all the same.
#[test]
fn wipe_leaves_clients_their_room_in_the_log() {
    wiped_or_reclaimed(LeaseRequest::Wipe(None), 1500);
}

#[test]
fn reclamation_that_is_asked_for_leaves_clients_their_room_in_the_log() {
    wiped_or_reclaimed(LeaseRequest::Reclaim { remove: true }, 5000);
}

/// The leases, so many seconds old, are taken away as `request` says while clients ask for new ones.
fn wiped_or_reclaimed(request: LeaseRequest, age_s: u64) {
    let (near, far) = MemoryPort::pair(INTERFACE, INTERFACE, SLOTS);
    let mut rig = Rig::new(CONFIGURATION, 1, near, 65_536);
    for number in 0..BOUND {
        rig.lease(number, age_s, 4000, b"");
    }
    let wall_ns = START_S * 1_000_000_000;
    let mut flood = Flood { rig, far, next_bound: 0, next_unbound: BOUND, wall_ns, answers: HashMap::new() };
    assert!(flood.rig.orders.send(Order::Leases(7, request)).is_ok(), "orders are taken");
    let (mut requests, mut rows, mut rows_at_once) = (0, 0, 0);
    let count = loop {
        // The disk is slow: many turns for each group.
        for _ in 0..200 {
            let mut message = Message::new(REQUEST, flood.next_unbound);
            let server = rig::OWN.octets();
            let wanted = address(flood.next_unbound).octets();
            let options = [&[54, 4], server.as_slice(), &[50, 4], wanted.as_slice()].concat();
            message.options = &options;
            let mut frame = [0; 2048];
            let len = message.write(&mut frame);
            flood.far.set_wall_ns(flood.wall_ns);
            assert!(flood.far.inject(&frame[..len], RxFlags::default()));
            flood.next_unbound += 1;
            requests += 1;
            flood.rig.shard.turn(flood.rig.now, flood.wall_ns);
        }
        while flood.far.eject(|_| ()).is_some() {}
        let group = flood.rig.drain_log();
        rows_at_once = rows_at_once.max(group);
        rows += group;
        flood.rig.shard.turn(flood.rig.now, flood.wall_ns);
        let mut count = None;
        while let Ok(event) = flood.rig.events.try_recv() {
            match event {
                Event::Leases(7, LeaseReply::Count(all), ..) => count = Some(all),
                Event::Want(_, want) => {
                    assert!(flood.rig.orders.try_send(Order::Memory(want.allocate())).is_ok());
                }
                _ => {}
            }
        }
        if let Some(count) = count {
            break count;
        }
        assert!(requests < 200 * 1000, "it comes to an end");
    };
    // Whose new lease the wipe comes by is not told that it has one.
    let reasons = DropReason::ALL.iter().filter(|reason| **reason != DropReason::ParkCancelled);
    let dropped: Vec<_> = reasons.filter(|reason| flood.dropped(**reason) > 0).collect();
    assert_eq!(dropped, Vec::<&DropReason>::new(), "no client is turned away");
    assert!(rows >= requests, "{rows} rows, those of {requests} clients among them");
    // Some are reclaimed by the shard's own cycle.
    assert!(count + 200 >= u64::from(BOUND), "{count} of {BOUND}");
    let ahead = usize::try_from(ROWS_AHEAD_MAX).expect("few") + REMOVED_PER_STEP_MAX;
    assert!(rows_at_once <= ahead + 200, "{rows_at_once} rows of {rows} wait at once");
}
