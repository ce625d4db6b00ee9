//! A shard thread neither allocates nor frees after its start: a whole [`ShardLoop`](aplomado::server::shard_loop::ShardLoop) under
//! a counting allocator, fed with everything that clients, relays and strangers send.
//!
//! `APLOMADO_ZERO_ALLOC_PACKETS` sets the number of packets (a million).

mod hand;
#[path = "../benches/rig/mod.rs"]
mod rig;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::net::Ipv4Addr;

use aplomado::memory::{Table, system_calls_here};
use aplomado::net::{MemoryPort, RxFlags};
use aplomado::wire::codes::MessageType;
use aplomado::wire::drop::DropReason;
use aplomado::wire::frame::PAYLOAD_OFFSET;
use rig::{BATCH, INTERFACE, Message, OWN, Rig, client_id, mac};

/// The system's allocator, counted on the threads that ask for it.
struct Counting;

thread_local! {
    /// Whether this thread counts, and what: no destructor and a constant start, so that looking allocates nothing.
    static ARMED: Cell<bool> = const { Cell::new(false) };
    static COUNTS: Cell<(u64, u64)> = const { Cell::new((0, 0)) };
}

fn count(allocated: u64, freed: u64) {
    if ARMED.get() {
        let (allocations, frees) = COUNTS.get();
        COUNTS.set((allocations + allocated, frees + freed));
    }
}

// SAFETY: every call goes to the system's allocator with what the caller gave; counting touches nothing of it. There is no way to
// see allocations in safe code.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(1, 0);
        // SAFETY: the caller's promise about `layout` is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(0, 1);
        // SAFETY: the caller's promise about `pointer` and `layout` is passed on; all memory comes from `System`.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(1, 1);
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const DISCOVER: u8 = 1;
const REQUEST: u8 = 3;
const DECLINE: u8 = 4;
const RELEASE: u8 = 7;
const INFORM: u8 = 8;

/// Clients; fewer addresses than clients, so that pools run dry too.
const CLIENTS: u32 = 7_000;
/// Turns before the first that counts.
const WARM_TURNS: usize = 64;

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        u32::try_from((u128::from(self.0) * u128::from(bound)) >> 64).expect("below the bound")
    }

    fn octet(&mut self) -> u8 {
        u8::try_from(self.below(256)).expect("below 256")
    }
}

/// What the clients know of themselves: the address that they were last offered or given.
struct Clients {
    known: Vec<Ipv4Addr>,
    random: Random,
}

impl Clients {
    /// The next frame on the wire.
    fn frame(&mut self, out: &mut [u8; 2048]) -> usize {
        let random = &mut self.random;
        if random.below(12) == 0 {
            // Octets that are no frame at all.
            let len = usize::try_from(random.below(700)).expect("small");
            out[..len].fill_with(|| random.octet());
            return len;
        }
        let client = random.below(CLIENTS);
        let known = self.known[usize::try_from(client).expect("small")];
        // Every third client is behind a relay.
        let giaddr =
            if client.is_multiple_of(3) { Ipv4Addr::new(10, 2, 0, 1) } else { Ipv4Addr::UNSPECIFIED };
        let mut message = Message { giaddr, ..Message::new(DISCOVER, client) };
        let mut options = Vec::new();
        if !client.is_multiple_of(5) {
            options.extend([61, 7]);
            options.extend(client_id(client));
        }
        let has_lease = !known.is_unspecified();
        match random.below(16) {
            0..=3 => {}
            4..=7 if has_lease => {
                message.kind = REQUEST;
                options.extend([54, 4]);
                options.extend(OWN.octets());
                options.extend([50, 4]);
                options.extend(known.octets());
            }
            8..=10 if has_lease => {
                message.kind = REQUEST;
                message.ciaddr = known;
                message.unicast = giaddr.is_unspecified() && random.below(4) > 0;
            }
            11 if has_lease => {
                message.kind = REQUEST;
                let address =
                    if random.below(3) == 0 { Ipv4Addr::new(10, 0, 5, random.octet()) } else { known };
                options.extend([50, 4]);
                options.extend(address.octets());
            }
            12 | 13 if has_lease => {
                message.kind = RELEASE;
                message.ciaddr = known;
            }
            // Few: each takes an address away for a minute.
            14 if has_lease && random.below(12) == 0 => {
                message.kind = DECLINE;
                options.extend([50, 4]);
                options.extend(known.octets());
            }
            15 if has_lease => {
                message.kind = INFORM;
                message.ciaddr = known;
            }
            _ if random.below(8) == 0 => message.kind = random.octet() % 20,
            _ => {}
        }
        match random.below(4) {
            0 => {
                let name = format!("Host-{client:x}_{}", random.below(3));
                options.extend([12, u8::try_from(name.len()).expect("short")]);
                options.extend(name.as_bytes());
            }
            1 => {
                let label = format!("fq{client}");
                let encoded =
                    [&[u8::try_from(label.len()).expect("short")], label.as_bytes(), b"\x07example\x00"];
                let encoded = encoded.concat();
                options.extend([
                    81,
                    u8::try_from(3 + encoded.len()).expect("short"),
                    [4, 5, 12, 6][usize::from(random.octet() % 4)],
                    0,
                    0,
                ]);
                options.extend(encoded);
            }
            _ => {}
        }
        match random.below(6) {
            0 => options.extend(b"\x3c\x0bPhone-77.de"),
            1 => options.extend(b"\x3c\x07go-away"),
            2 => options.extend(b"\x3c\x08MSFT 5.0"),
            3 => options.extend([125, 9, 0, 0, 0x11, 0x8b, 4, 1, 2, 1, 2, 124, 7, 0, 0, 0x11, 0x8b, 2, 1, 7]),
            _ => {}
        }
        if random.below(3) > 0 {
            options.extend([55, 9, 1, 3, 6, 15, 28, 42, 51, 58, 59]);
        }
        if random.below(40) == 0 {
            // A long option in parts (RFC 3396).
            for part in 0..3 {
                options.extend([43, 120]);
                options.extend([part; 120]);
            }
        }
        if !giaddr.is_unspecified() {
            let [high, low] = u16::try_from(client).expect("few").to_be_bytes();
            options.extend([82, 16, 1, 4, b'e', b't', high, low, 2, 8, b'r', 0, 1, 2, 3, 4, high, low]);
        }
        message.options = &options;
        let len = message.write(out);
        match random.below(24) {
            // Damage: what is left is often no message any more, and sometimes still is one.
            0 => {
                let at = PAYLOAD_OFFSET + 240 + usize::try_from(random.below(60)).expect("small");
                out[at] = random.octet();
                // Without a checksum, so that the damage gets past the frame.
                out[40..42].fill(0);
                len
            }
            1 => usize::try_from(random.below(u32::try_from(len).expect("small"))).expect("small"),
            2 => {
                let at = usize::try_from(random.below(u32::try_from(len).expect("small"))).expect("small");
                out[at] ^= random.octet();
                len
            }
            _ => len,
        }
    }

    /// Takes an answer in; gives its type.
    fn learn(&mut self, frame: &[u8]) -> u8 {
        let payload = &frame[PAYLOAD_OFFSET..];
        let kind = payload[242];
        let [_, _, number @ ..] = *payload[28..].first_chunk::<6>().expect("an answer is whole");
        let client = u32::from_be_bytes(number);
        if payload[28..34] == mac(client)
            && let Some(known) = self.known.get_mut(usize::try_from(client).expect("small"))
        {
            let yiaddr = *payload[16..].first_chunk::<4>().expect("an answer is whole");
            match kind {
                2 | 5 if yiaddr != [0; 4] => *known = yiaddr.into(),
                6 => *known = Ipv4Addr::UNSPECIFIED,
                _ => {}
            }
        }
        kind
    }
}

#[test]
fn shard_neither_allocates_nor_frees_for_packets() {
    let packets: usize = std::env::var("APLOMADO_ZERO_ALLOC_PACKETS")
        .map_or(1_000_000, |count| count.parse().expect("APLOMADO_ZERO_ALLOC_PACKETS is a number"));
    ARMED.set(true);
    drop(std::hint::black_box(Box::new(1_u64)));
    ARMED.set(false);
    assert_eq!(COUNTS.replace((0, 0)), (1, 1), "what is allocated and freed is seen");
    let before = system_calls_here();
    drop(Table::filled(1_u64, 1 << 20));
    assert!(system_calls_here() > before, "tables that are mapped are seen, too");

    let (near, mut far) = MemoryPort::pair(INTERFACE, INTERFACE, 512);
    let configuration = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/zero_alloc/kea-dhcp4.conf");
    let configuration = std::fs::read_to_string(configuration).expect("the test's configuration");
    let mut rig = Rig::new(&configuration, 1, near, 65_536);
    let mut clients = Clients {
        known: vec![Ipv4Addr::UNSPECIFIED; usize::try_from(CLIENTS).expect("few")],
        random: Random(0x2026_1123),
    };
    let mut frame = [0; 2048];
    let (mut answers, mut changes) = (0_usize, 0_usize);
    for turn in 0..WARM_TURNS + packets.div_ceil(BATCH) {
        for _ in 0..BATCH {
            let len = clients.frame(&mut frame);
            let flags = if clients.random.below(3) == 0 { RxFlags::CSUM_VALID } else { RxFlags::default() };
            assert!(far.inject(&frame[..len], flags), "the port has room for a batch");
        }
        ARMED.set(turn >= WARM_TURNS);
        let mapped = system_calls_here();
        rig.turn();
        ARMED.set(false);
        assert_eq!(system_calls_here(), mapped, "no memory is mapped in turn {turn}");
        let counts = COUNTS.get();
        assert_eq!(counts, (0, 0), "allocations and frees in turn {turn}");
        while let Some(kind) = far.eject(|bytes| clients.learn(bytes)) {
            assert!(
                matches!(kind, 2 | 5 | 6),
                "a server sends offers and acknowledgements of two kinds, not {kind}"
            );
            answers += 1;
        }
        // The disk is sometimes behind.
        if clients.random.below(3) > 0 {
            changes += rig.drain_log();
        }
        rig.mind_control();
        rig.now = rig.now.plus_ms(250);
    }
    // What was measured is what was meant to be measured.
    let counters = &rig.counters;
    let report: Vec<(&str, u64)> = DropReason::ALL
        .iter()
        .map(|reason| (reason.name(), counters.drop_count(*reason)))
        .filter(|(_, count)| *count > 0)
        .collect();
    println!("{answers} answers, {changes} changes, dropped: {report:?}");
    let least = u64::try_from(packets / 200).expect("widening");
    for kind in [MessageType::Offer, MessageType::Ack, MessageType::Nak] {
        let count = counters.sent_type_count(kind);
        assert!(count > least, "{kind:?}: {count} sent");
    }
    for kind in [MessageType::Release, MessageType::Decline, MessageType::Inform] {
        let count = counters.received_type_count(Some(kind));
        assert!(count > least / 4, "{kind:?}: {count} received");
    }
    assert!(report.len() > 15, "many reasons to drop a packet came up: {report:?}");
    assert!(changes > packets / 20, "leases changed: {changes}");
}

/// Queries of many clients at a whole server of a pair; how many it answered. Nothing is allocated by its shard meanwhile.
fn flood(hand: &mut hand::Hand, played: &mut hand::Played, random: &mut Random, turns: usize) -> usize {
    let state = hand.state();
    let before = hand.replies.len();
    for turn in 0..turns {
        for _ in 0..BATCH / 2 {
            let client = random.below(60_000);
            let [_, a, b, c] = client.to_be_bytes();
            let secs = random.below(40);
            hand.query(&format!("discover mac=02:00:00:{a:02x}:{b:02x}:{c:02x} secs={secs}"));
        }
        let server = hand.server();
        let (now, wall_ns) = (server.desk.clock.now(), server.desk.clock.wall_us() * 1000);
        // The first turns see what has changed since the last ones.
        ARMED.set(turn >= 4);
        server.work.shards[0].turn(now, wall_ns);
        ARMED.set(false);
        assert_eq!(COUNTS.get(), (0, 0), "allocations and frees in turn {turn} in {state}");
        hand.turn(&mut |sent| played.hear(sent));
    }
    hand.replies.len() - before
}

#[test]
fn shard_of_a_pair_neither_allocates_nor_frees_for_its_partners_clients() {
    use serde_json::{Value, json};
    let (mut hand, mut played) = hand::normal("load-balancing", &json!({ "max-unacked-clients": 100 }), 1);
    let mut random = Random(0x2026_1126);
    // Half of them are the partner's.
    let queries = 200 * BATCH / 2;
    let answered = flood(&mut hand, &mut played, &mut random, 200);
    assert!(answered > queries / 4 && answered < queries * 3 / 4, "{answered} of {queries}");
    // The partner's are looked at, more of them than are remembered, while it is silent.
    played.state = None;
    hand.run_to("communication-recovery", &mut |sent| played.hear(sent));
    hand.pass(6000);
    hand.turn(&mut |sent| played.hear(sent));
    assert!(flood(&mut hand, &mut played, &mut random, 400) > 0, "its own are served");
    let remote = hand.servers()["remote"].clone();
    let unacked = remote["unacked-clients"].as_u64().expect("a count");
    let analyzed = remote["analyzed-packets"].as_u64().expect("a count");
    assert!(unacked > 100 && analyzed > 1000, "{remote}");
    // All are served by the one that is left; and none while the service is off.
    hand.run_to("partner-down", &mut |sent| played.hear(sent));
    assert_eq!(flood(&mut hand, &mut played, &mut random, 200), queries);
    hand.ask("dhcp-disable", &Value::Null, &mut |sent| played.hear(sent));
    hand.replies.clear();
    assert_eq!(flood(&mut hand, &mut played, &mut random, 100), 0);
}
