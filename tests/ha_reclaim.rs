//! In a pair that has ended (`terminated`) each server reclaims only what it serves: of the other leases it is not told any more.

mod scenario;

use aplomado::classify::bucket::bucket;
use aplomado::exchange::reclaim::Reclaims;
use aplomado::ha::view::{ScopeParts, ScopeWord};
use aplomado::ids::ShardId;
use aplomado::lease::LeaseState;
use aplomado::lease::request::{LeaseReply, LeaseRequest};
use scenario::packet;
use scenario::world::{Fate, World};

const CONFIGURATION: &str = r#""valid-lifetime": 600, "subnet4": [ { "subnet": "192.0.2.0/24", "id": 1,
    "pools": [ { "pool": "192.0.2.10-192.0.2.99" } ] } ],
    "expired-leases-processing": { "hold-reclaimed-time": 100000 }"#;
const CLIENTS: u8 = 40;

fn hw_addr(client: u8) -> [u8; 6] {
    [2, 0, 0, 0, 1, client]
}

/// What a server in this word reclaims.
fn reclaims(parts: ScopeParts) -> Reclaims {
    let word = ScopeWord::new(ScopeParts { service: true, ..parts });
    let [even, odd, nobody] = [Some(0), Some(1), None].map(|bucket| word.reclaims(bucket));
    Reclaims { even, odd, nobody }
}

/// The clients whose leases have been reclaimed after an hour; every second client has an identifier.
fn reclaimed(shards: usize, scope: Reclaims, by_command: bool) -> Vec<u8> {
    let mut world = World::new(CONFIGURATION, shards);
    for client in 0..CLIENTS {
        let [a, b, c, d, e, f] = hw_addr(client);
        let identity =
            if client.is_multiple_of(2) { format!(" opt61=0x00{client:02x}77") } else { String::new() };
        let query = format!(
            "request mac={a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}{identity} want=192.0.2.{}",
            10 + client
        );
        let query = packet::query(&(query + " sid=192.0.2.1"), 7);
        assert!(matches!(world.put(&query, "v0"), Fate::Answered(_)), "client {client} is served");
    }
    world.shards.iter_mut().for_each(|shard| shard.reclaims = vec![scope]);
    if by_command {
        world.now = world.now.plus_ms(3_600_000);
        for shard in 0..shards {
            let shard = ShardId(u8::try_from(shard).expect("few"));
            let reply = world.command(shard, LeaseRequest::Reclaim { remove: false });
            assert!(matches!(reply, LeaseReply::Count(_)), "{reply:?}");
        }
    } else {
        world.advance(3_600_000);
        world.live_through(120);
    }
    let over = world.disk.values().filter(|lease| lease.view().state == LeaseState::Reclaimed);
    let mut over: Vec<u8> = over.map(|lease| lease.view().address.octets()[3] - 10).collect();
    over.sort_unstable();
    over
}

/// Whether a client is one of an even bucket.
fn is_even(client: u8) -> bool {
    let bucket = if client.is_multiple_of(2) { bucket(&[0, client, 0x77]) } else { bucket(&hw_addr(client)) };
    bucket.is_multiple_of(2)
}

#[test]
fn only_what_is_served_is_reclaimed_once_the_pair_has_ended() {
    let guard = ScopeParts { guard_reclamation: true, ..ScopeParts::default() };
    let balanced = ScopeParts { balanced: true, ..guard };
    let all: Vec<u8> = (0..CLIENTS).collect();
    let even: Vec<u8> = all.iter().copied().filter(|client| is_even(*client)).collect();
    let odd: Vec<u8> = all.iter().copied().filter(|client| !is_even(*client)).collect();
    assert!(even.len() > 5 && odd.len() > 5, "clients of both halves");
    for shards in [1, 2] {
        for by_command in [false, true] {
            let found = |parts| reclaimed(shards, reclaims(parts), by_command);
            assert_eq!(found(ScopeParts { serves_primary: true, ..balanced }), even);
            assert_eq!(found(ScopeParts { serves_secondary: true, ..balanced }), odd);
            assert_eq!(found(ScopeParts { serves_primary: true, ..guard }), all, "hot-standby, primary");
            assert_eq!(found(guard), [0u8; 0], "hot-standby, standby");
            // In every other state each server reclaims everything.
            assert_eq!(found(ScopeParts { guard_reclamation: false, ..balanced }), all);
        }
    }
}
