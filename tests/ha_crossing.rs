//! Two servers over one pool whose changes of one address cross on the way: at most one client hears that it is theirs.
//!
//! Whole shards on both sides; the network between them is this test, which decides what arrives first.

mod scenario;

use std::net::Ipv4Addr;

use aplomado::ids::{HwAddr, Lsn, ShardId};
use aplomado::lease::request::{LeaseChange, LeaseKey, LeaseReply, LeaseRequest, Origin, PutMode};
use aplomado::lease::{Lease4, Lease4Buf, LeaseState};
use scenario::packet;
use scenario::world::{Fate, World};

const POOL: &str = r#""subnet4": [ { "subnet": "192.0.2.0/24", "id": 1,
    "pools": [ { "pool": "192.0.2.10-192.0.2.40" } ] } ]"#;
const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 20);
const ANA: &str = "mac=02:00:00:00:0a:01";
const BEN: &str = "mac=02:00:00:00:0b:01";
const OF_THE_PARTNER: Origin = Origin::Partner { partner_wins: false };
const TOLD: PutMode = PutMode::Delayed { told: true };
const OF_THE_PRIMARY: Origin = Origin::Partner { partner_wins: true };

/// One server, and up to which change its partner has answered.
struct Server {
    world: World,
    shards: usize,
}

impl Server {
    fn new(shards: usize) -> Self {
        let mut world = World::new(POOL, shards);
        // The pair is at work and the partner has answered nothing yet.
        world.shards.iter_mut().for_each(|shard| shard.answered = Lsn(0));
        Self { world, shards }
    }

    /// A client takes [`ADDRESS`]; the lease that the partner is to be told of.
    fn lease_to(&mut self, client: &str) -> Lease4Buf {
        let query = packet::query(&format!("request {client} want={ADDRESS} sid=192.0.2.1"), 7);
        assert!(matches!(self.world.put(&query, "v0"), Fate::Answered(_)), "{client} is served");
        self.held().expect("it is stored")
    }

    /// What the server holds for the address.
    fn held(&mut self) -> Option<Lease4Buf> {
        (0..self.shards).find_map(|shard| {
            match self.serve_at(shard, LeaseRequest::Get(LeaseKey::Address(ADDRESS))) {
                LeaseReply::Lease(lease) => Some(lease),
                _ => None,
            }
        })
    }

    fn serve_at(&mut self, shard: usize, request: LeaseRequest) -> LeaseReply {
        self.world.command(ShardId(u8::try_from(shard).expect("few")), request)
    }

    /// The partner's command, at the shard that holds the address.
    fn command(&mut self, request: &LeaseRequest) -> LeaseReply {
        let holder = (0..self.shards)
            .find(|shard| {
                let get = LeaseRequest::Get(LeaseKey::Address(ADDRESS));
                self.serve_at(*shard, get) != LeaseReply::NotFound
            })
            .unwrap_or(0);
        self.serve_at(holder, request.clone())
    }

    /// Whether a reply that waited since the last time that this was asked must not leave any more.
    fn has_taken_back(&mut self) -> bool {
        self.world.taken_back() > 0
    }

    fn partner_has_answered(&mut self) {
        self.world.shards.iter_mut().for_each(|shard| shard.answered = Lsn(u64::MAX));
    }
}

fn put(lease: &Lease4Buf, origin: Origin) -> LeaseRequest {
    LeaseRequest::Put { lease: lease.clone(), mode: PutMode::Upsert, origin }
}

fn delete(origin: Origin) -> LeaseRequest {
    LeaseRequest::Delete { key: LeaseKey::Address(ADDRESS), origin }
}

#[test]
fn between_two_of_ours_the_primarys_change_wins_whichever_arrives_first() {
    for shards in [1, 2] {
        for primary_first in [true, false] {
            let (mut primary, mut secondary) = (Server::new(shards), Server::new(shards));
            let of_ana = primary.lease_to(ANA);
            let of_ben = secondary.lease_to(BEN);
            let at_secondary = put(&of_ana, OF_THE_PRIMARY);
            let at_primary = put(&of_ben, OF_THE_PARTNER);
            if primary_first {
                assert_eq!(secondary.command(&at_secondary), LeaseReply::Updated);
                assert_eq!(primary.command(&at_primary), LeaseReply::Busy);
            } else {
                assert_eq!(primary.command(&at_primary), LeaseReply::Busy);
                assert_eq!(secondary.command(&at_secondary), LeaseReply::Updated);
            }
            assert!(secondary.has_taken_back(), "nobody may tell Ben that the address is his");
            assert!(!primary.has_taken_back());
            assert_eq!(primary.held(), Some(of_ana.clone()));
            let at_secondary = secondary.held().expect("a lease");
            assert_eq!(at_secondary.view().hw_addr.as_bytes(), of_ana.view().hw_addr.as_bytes());
        }
    }
}

#[test]
fn with_a_kea_both_sides_keep_to_what_they_have_told_each_other() {
    // Kea makes every change that it is told of; ours refuses while its own is on the way.
    let mut ours = Server::new(1);
    let of_ben = ours.lease_to(BEN);
    let mut elsewhere = Server::new(1);
    let of_ana = elsewhere.lease_to(ANA);
    assert_eq!(
        ours.command(&put(&of_ana, Origin::Command)),
        LeaseReply::Busy,
        "Kea 2.2 does not say who asks"
    );
    assert_eq!(ours.command(&put(&of_ana, OF_THE_PARTNER)), LeaseReply::Busy);
    assert_eq!(ours.held(), Some(of_ben));
    assert!(!ours.has_taken_back());
}

#[test]
fn an_answer_that_overtakes_the_partners_own_change_does_not_give_the_address_away() {
    // The partner gave the address to Ana, then heard of Ben and agreed; its own change comes last.
    let mut ours = Server::new(1);
    let of_ben = ours.lease_to(BEN);
    let of_ana = Server::new(1).lease_to(ANA);
    ours.partner_has_answered();
    for origin in [OF_THE_PARTNER, OF_THE_PRIMARY] {
        assert_eq!(ours.command(&put(&of_ana, origin)), LeaseReply::Busy);
    }
    assert_eq!(ours.held(), Some(of_ben), "Ben may have been acknowledged");
    assert!(!ours.has_taken_back());
    assert_eq!(ours.command(&put(&of_ana, Origin::Command)), LeaseReply::Updated, "an operator may");
}

#[test]
fn what_the_partner_knows_of_is_no_obstacle() {
    let mut ours = Server::new(1);
    ours.lease_to(BEN);
    let of_ana = Server::new(1).lease_to(ANA);
    ours.partner_has_answered();
    // Nothing that the partner did before it knew is on its way any more.
    ours.world.advance(10_000);
    assert_eq!(ours.command(&put(&of_ana, OF_THE_PARTNER)), LeaseReply::Updated);
    assert_eq!(ours.held().map(|lease| lease.view().hw_addr), Some(of_ana.view().hw_addr));
}

#[test]
fn an_address_that_is_declined_right_after_it_was_given_has_no_second_client() {
    for origin in [OF_THE_PARTNER, OF_THE_PRIMARY] {
        let (mut ours, mut partner) = (Server::new(1), Server::new(1));
        let of_ana = partner.lease_to(ANA);
        assert_eq!(ours.command(&put(&of_ana, origin)), LeaseReply::Added);
        partner.world.put(&packet::query(&format!("decline {ANA} want={ADDRESS}"), 8), "v0");
        let declined = partner.held().expect("a lease in probation");
        assert_eq!(declined.view().state, LeaseState::Declined);
        // A change of ours that the partner does not know is not undone by it; the primary's goes first.
        let is_first = origin == OF_THE_PRIMARY;
        let mut busy = Server::new(1);
        busy.lease_to(BEN);
        let reply = busy.command(&put(&declined, origin));
        assert_eq!(reply, if is_first { LeaseReply::Updated } else { LeaseReply::Busy });
        assert_eq!(busy.has_taken_back(), is_first, "Ben is told only of what stays");
        ours.partner_has_answered();
        assert_eq!(ours.command(&put(&declined, origin)), LeaseReply::Updated);
        assert_eq!(ours.held(), Some(declined));
    }
}

#[test]
fn the_same_clients_lease_is_taken_although_ours_is_on_the_way() {
    let mut ours = Server::new(1);
    let of_ben = ours.lease_to(BEN);
    assert_eq!(ours.command(&put(&of_ben, OF_THE_PARTNER)), LeaseReply::Updated);
    assert!(!ours.has_taken_back(), "Ben may have his answer");
}

#[test]
fn a_deletion_does_not_hit_a_lease_that_the_partner_has_not_heard_of() {
    let mut ours = Server::new(1);
    let of_ben = ours.lease_to(BEN);
    assert_eq!(ours.command(&delete(OF_THE_PARTNER)), LeaseReply::NotFound, "its lease is gone indeed");
    assert_eq!(ours.held(), Some(of_ben));
    ours.partner_has_answered();
    assert_eq!(ours.command(&delete(OF_THE_PARTNER)), LeaseReply::Deleted);
    assert_eq!(ours.held(), None);
    assert!(ours.has_taken_back(), "a reply that still waits for the disk must not leave");
}

#[test]
fn a_page_of_a_synchronisation_leaves_what_is_on_its_way() {
    let mut ours = Server::new(1);
    let of_ben = ours.lease_to(BEN);
    let mut newer = Server::new(1);
    newer.world.advance(10_000);
    let of_ana = newer.lease_to(ANA);
    let page = LeaseRequest::Put { lease: of_ana, mode: PutMode::Newer, origin: OF_THE_PARTNER };
    assert_eq!(ours.command(&page), LeaseReply::Kept);
    assert_eq!(ours.held(), Some(of_ben));
}

#[test]
fn in_the_same_second_the_lease_of_the_server_that_served_last_stays() {
    // Here the address went to Ben, and the server died before anybody heard; the other one gave it to Ana at once.
    let mut ours = Server::new(1);
    let of_ben = ours.lease_to(BEN);
    ours.partner_has_answered();
    ours.world.replies_leave();
    let of_ana = Server::new(1).lease_to(ANA);
    assert_eq!(of_ana.view().cltt, of_ben.view().cltt, "in one second");
    let page =
        |lease: &Lease4Buf, origin| LeaseRequest::Put { lease: lease.clone(), mode: PutMode::Newer, origin };
    assert_eq!(ours.command(&page(&of_ana, OF_THE_PARTNER)), LeaseReply::Kept, "as at a Kea");
    assert_eq!(ours.command(&page(&of_ben, OF_THE_PRIMARY)), LeaseReply::Kept, "nothing to write");
    assert_eq!(ours.command(&page(&of_ana, OF_THE_PRIMARY)), LeaseReply::Updated);
    assert_eq!(ours.held(), Some(of_ana.clone()));
    // What a client was not told is not the later one, nor is it what the other one lacks.
    let mut untold = Server::new(1);
    untold.world.advance(3_000_000);
    let later = untold.lease_to(BEN);
    assert!(later.view().cltt > of_ana.view().cltt);
    untold.world.shards[0].answered = Lsn(u64::MAX);
    assert_eq!(untold.command(&page(&of_ana, OF_THE_PARTNER)), LeaseReply::Updated);
    assert_eq!(untold.held(), Some(of_ana));
    // A newer one is newer, whoever has it.
    ours.world.advance(3_000_000);
    let newer = ours.lease_to(ANA);
    ours.world.replies_leave();
    assert_eq!(ours.command(&page(&of_ben, OF_THE_PRIMARY)), LeaseReply::Kept);
    assert_eq!(ours.held(), Some(newer));
}

fn delayed(lease: &Lease4Buf, origin: Origin) -> LeaseRequest {
    LeaseRequest::Put { lease: lease.clone(), mode: TOLD, origin }
}

/// Two servers that could not talk gave one address to two clients, and told them.
#[test]
fn of_two_backlogs_that_cross_both_servers_take_the_same_lease() {
    for (primary_s, secondary_s, ana_stays) in [(0, 0, true), (1, 0, true), (0, 1, false)] {
        for primary_first in [true, false] {
            let case = format!("{primary_s} s and {secondary_s} s, primary first {primary_first}");
            let (mut primary, mut secondary) = (Server::new(1), Server::new(1));
            primary.world.advance(primary_s * 1_000_000);
            secondary.world.advance(secondary_s * 1_000_000);
            let (of_ana, of_ben) = (primary.lease_to(ANA), secondary.lease_to(BEN));
            for server in [&mut primary, &mut secondary] {
                server.partner_has_answered();
                server.world.replies_leave();
            }
            let at_secondary = delayed(&of_ana, OF_THE_PRIMARY);
            let at_primary = delayed(&of_ben, OF_THE_PARTNER);
            let (first, second);
            if primary_first {
                first = secondary.command(&at_secondary);
                second = primary.command(&at_primary);
            } else {
                second = primary.command(&at_primary);
                first = secondary.command(&at_secondary);
            }
            let expected = if ana_stays { &of_ana } else { &of_ben };
            for server in [&mut primary, &mut secondary] {
                let held = server.held().expect("a lease");
                assert_eq!(held.view().hw_addr, expected.view().hw_addr, "{case}");
            }
            let [stored, left] = [LeaseReply::Updated, LeaseReply::Kept];
            let answers = if ana_stays { (stored, left) } else { (left, stored) };
            assert_eq!((first, second), answers, "{case}");
        }
    }
}

#[test]
fn a_change_of_a_backlog_goes_over_a_lease_that_nobody_was_told_of_and_not_over_one_on_its_way() {
    let of_ana = Server::new(1).lease_to(ANA);
    let mut ours = Server::new(1);
    ours.world.advance(1_000_000);
    let of_ben = ours.lease_to(BEN);
    for origin in [OF_THE_PARTNER, OF_THE_PRIMARY] {
        assert_eq!(ours.command(&delayed(&of_ana, origin)), LeaseReply::Busy, "the partner may have made it");
    }
    assert_eq!(ours.held(), Some(of_ben.clone()));
    ours.partner_has_answered();
    assert_eq!(ours.command(&delayed(&of_ana, OF_THE_PARTNER)), LeaseReply::Updated, "Ben has heard nothing");
    assert!(ours.has_taken_back());
    // What she was not told replaces nothing that was told.
    let mut ours = Server::new(1);
    let of_ben = ours.lease_to(BEN);
    ours.partner_has_answered();
    let mut later = of_ana.view();
    later.cltt += 5;
    let untold = PutMode::Delayed { told: false };
    let change = LeaseRequest::Put { lease: later.to_owned(), mode: untold, origin: OF_THE_PRIMARY };
    let mut neither = Server::new(1);
    neither.lease_to(BEN);
    neither.partner_has_answered();
    assert_eq!(neither.command(&change), LeaseReply::Updated, "nor was Ben");
    ours.world.replies_leave();
    assert_eq!(ours.command(&change), LeaseReply::Kept);
    assert_eq!(ours.held(), Some(of_ben));
    // Nobody is told of a declined address.
    later.hw_addr = HwAddr::new(1, &[]).expect("fits");
    later.state = LeaseState::Declined;
    let change = LeaseRequest::Put { lease: later.to_owned(), mode: untold, origin: OF_THE_PARTNER };
    assert_eq!(ours.command(&change), LeaseReply::Updated);
    // That Ana has no lease any more says nothing of Ben's.
    let mut ours = Server::new(1);
    let of_ben = ours.lease_to(BEN);
    ours.partner_has_answered();
    ours.world.replies_leave();
    let mut ended = of_ana.view();
    (ended.state, ended.cltt) = (LeaseState::Released, ended.cltt + 1);
    assert_eq!(ours.command(&delayed(&ended.to_owned(), OF_THE_PRIMARY)), LeaseReply::Kept);
    let change = LeaseChange::Delete { address: ADDRESS, told: Some(of_ana) };
    let request = LeaseRequest::Apply { changes: vec![change], mode: TOLD, origin: OF_THE_PRIMARY };
    assert_eq!(ours.command(&request), LeaseReply::Applied(vec![LeaseReply::Kept]));
    assert_eq!(ours.held(), Some(of_ben));
}

/// A client has a lease of a server that died before it could say so, and the one that the other server gave it.
#[test]
fn a_client_with_two_leases_keeps_the_one_that_it_asks_for() {
    for shards in [1, 2] {
        for (kind, later) in [("renew", false), ("renew", true), ("reboot", false), ("select", true)] {
            let mut ours = Server::new(shards);
            let unheard = ours.lease_to(ANA);
            ours.partner_has_answered();
            if later {
                ours.world.advance(1_000);
            }
            let unheard = unheard.view();
            let heard = Lease4 {
                address: Ipv4Addr::new(192, 0, 2, 30),
                cltt: unheard.cltt + u64::from(later),
                ..unheard
            };
            let owner = (0..shards)
                .find(|&shard| {
                    ours.serve_at(shard, LeaseRequest::Get(LeaseKey::Address(ADDRESS)))
                        != LeaseReply::NotFound
                })
                .expect("a lease");
            let page =
                LeaseRequest::Put { lease: heard.to_owned(), mode: PutMode::Newer, origin: OF_THE_PARTNER };
            assert_eq!(ours.serve_at(owner, page), LeaseReply::Added);
            let query = match kind {
                "renew" => format!("request {ANA} ciaddr={}", heard.address),
                "reboot" => format!("request {ANA} want={}", heard.address),
                _ => format!("request {ANA} want={} sid=192.0.2.1", heard.address),
            };
            let Fate::Answered(frame) = ours.world.put(&packet::query(&query, 9), "v0") else {
                panic!("{kind}, {shards} shard(s): no answer")
            };
            let answer = packet::Answer::read(&frame).kind();
            assert_eq!(answer, "ack", "{kind}, {shards} shard(s)");
            assert_eq!(ours.held(), None, "{kind}: the other address is free for somebody else");
        }
    }
}

/// The query of a client for an address of its own: its number is the last octet of both.
fn ask(number: u8) -> Vec<u8> {
    packet::query(&format!("request mac=02:00:00:00:0c:{number:02x} want=192.0.2.{number} sid=192.0.2.1"), 7)
}

/// What a server would tell of its leases on these addresses, held by these clients.
fn leases_to(server: &mut Server, numbers: std::ops::RangeInclusive<u8>) -> Vec<Lease4Buf> {
    numbers
        .map(|number| {
            assert!(matches!(server.world.put(&ask(number), "v0"), Fate::Answered(_)));
            let key = LeaseKey::Address(Ipv4Addr::new(192, 0, 2, number));
            match server.serve_at(0, LeaseRequest::Get(key)) {
                LeaseReply::Lease(lease) => lease,
                other => panic!("expected the lease of {number}, found {other:?}"),
            }
        })
        .collect()
}

#[test]
fn of_many_changes_in_one_order_each_is_made_or_refused_for_itself() {
    let mut ours = Server::new(1);
    let of_ben = ours.lease_to(BEN);
    let of_ana = Server::new(1).lease_to(ANA);
    let of_others = leases_to(&mut Server::new(1), 10..=12);
    let changes = vec![
        LeaseChange::Put(of_others[0].clone()),
        LeaseChange::Put(of_ana.clone()),
        LeaseChange::Put(of_others[1].clone()),
        LeaseChange::Put(of_others[0].clone()),
        LeaseChange::Put(of_others[2].clone()),
        LeaseChange::Delete { address: of_others[2].view().address, told: None },
        LeaseChange::Delete { address: Ipv4Addr::new(192, 0, 2, 40), told: None },
    ];
    ours.partner_has_answered();
    let (mode, origin) = (PutMode::Upsert, OF_THE_PARTNER);
    let reply = ours.serve_at(0, LeaseRequest::Apply { changes, mode, origin });
    use LeaseReply::{Added, Busy, Deleted, NotFound, Updated};
    assert_eq!(
        reply,
        LeaseReply::Applied(vec![Added, Busy, Added, Updated, Added, Deleted, NotFound]),
        "Ben may have been acknowledged; the same lease twice is one lease"
    );
    assert_eq!(ours.held(), Some(of_ben));
    for (number, is_there) in [(10, true), (11, true), (12, false)] {
        let get = LeaseRequest::Get(LeaseKey::Address(Ipv4Addr::new(192, 0, 2, number)));
        assert_eq!(ours.serve_at(0, get) != NotFound, is_there, "{number}");
    }
    let changes = of_others[..2].iter().cloned().map(LeaseChange::Put).collect();
    let (mode, origin) = (PutMode::Newer, OF_THE_PARTNER);
    let reply = ours.serve_at(0, LeaseRequest::Apply { changes, mode, origin });
    assert_eq!(reply, LeaseReply::Applied(vec![LeaseReply::Kept, LeaseReply::Kept]));
}

#[test]
fn replies_of_every_lease_that_one_order_gives_away_are_taken_back() {
    let (mut ours, mut primary) = (Server::new(1), Server::new(1));
    leases_to(&mut ours, 10..=40);
    ours.world.advance(1000);
    let changes = (10..=40)
        .map(|number| {
            let client =
                format!("request mac=02:00:00:00:0d:{number:02x} want=192.0.2.{number} sid=192.0.2.1");
            assert!(matches!(primary.world.put(&packet::query(&client, 7), "v0"), Fate::Answered(_)));
            let key = LeaseKey::Address(Ipv4Addr::new(192, 0, 2, number));
            match primary.serve_at(0, LeaseRequest::Get(key)) {
                LeaseReply::Lease(lease) => LeaseChange::Put(lease),
                other => panic!("expected a lease, found {other:?}"),
            }
        })
        .collect();
    let (mode, origin) = (PutMode::Upsert, OF_THE_PRIMARY);
    let reply = ours.serve_at(0, LeaseRequest::Apply { changes, mode, origin });
    assert_eq!(reply, LeaseReply::Applied(vec![LeaseReply::Updated; 31]));
    assert_eq!(ours.world.taken_back(), 31, "none of the first clients may be told that it has an address");
}

/// Leases that were given alone, or were on disk at the start, are not answered from the cache once replies wait for the partner.
#[test]
fn a_lease_that_the_partner_may_not_know_of_is_written_again_and_only_once() {
    let mut ours = Server::new(1);
    let alone = ours.lease_to(BEN);
    let renew = |ours: &mut Server| {
        ours.world.advance(2_000);
        ours.lease_to(BEN).view().cltt
    };
    assert_eq!(renew(&mut ours), alone.view().cltt, "without a partner the cache answers");
    // From now on replies wait for the partner.
    let shard = &mut ours.world.shards[0];
    shard.untold = Some(shard.leases.log.appended());
    let told = renew(&mut ours);
    assert_eq!(told, alone.view().cltt + 4, "a new row is what the partner is told");
    assert_eq!(renew(&mut ours), told, "it knows now");
    // A lease that the partner has sent since is known to it.
    let of_ana = Server::new(1).lease_to(ANA);
    ours.partner_has_answered();
    assert_eq!(ours.command(&put(&of_ana, OF_THE_PRIMARY)), LeaseReply::Busy);
    ours.world.advance(10_000);
    assert_eq!(ours.command(&put(&of_ana, OF_THE_PARTNER)), LeaseReply::Updated);
    assert_eq!(ours.lease_to(ANA), of_ana);
}

/// A lease of a clock that ran ahead ends later than its client is told: it is written anew, the cache does not answer.
#[test]
fn a_lease_from_the_future_is_written_again() {
    let mut ours = Server::new(1);
    let ahead = ours.lease_to(BEN);
    ours.world.now.wall_s -= 40;
    let mended = ours.lease_to(BEN);
    assert_eq!(mended.view().cltt, ahead.view().cltt - 40);
    ours.world.now.wall_s += 20;
    assert_eq!(ours.lease_to(BEN), mended, "now the cache answers");
}

/// The partner's lease for a client comes to the shard that had its address for somebody else, while the client's own shard has another.
#[test]
fn a_client_with_leases_at_two_shards_is_answered_wherever_its_query_comes_in() {
    for arrival in [0, 1] {
        let mut ours = Server::new(2);
        let first = ours.lease_to(ANA);
        let get = LeaseRequest::Get(LeaseKey::Address(ADDRESS));
        let own = (0..2).find(|&shard| ours.serve_at(shard, get.clone()) != LeaseReply::NotFound);
        let other = 1 - own.expect("a lease");
        ours.partner_has_answered();
        ours.world.advance(20_000);
        let address = Ipv4Addr::new(192, 0, 2, 30);
        let second = Lease4 { address, cltt: first.view().cltt + 10, ..first.view() };
        let page =
            LeaseRequest::Put { lease: second.to_owned(), mode: PutMode::Newer, origin: OF_THE_PARTNER };
        assert_eq!(ours.serve_at(other, page), LeaseReply::Added);
        for asked in [ADDRESS, address, ADDRESS] {
            let query = packet::query(&format!("request {ANA} ciaddr={asked}"), 9);
            let Fate::Answered(frame) = ours.world.put_to(ShardId(arrival), &query, "v0") else {
                panic!("{asked} at shard {arrival}: no answer")
            };
            let answer = packet::Answer::read(&frame);
            assert_eq!((answer.kind().as_str(), answer.yiaddr()), ("ack", asked), "at shard {arrival}");
        }
        // What ends a lease finds it by its address.
        let query = packet::query(&format!("release {ANA} ciaddr={address}"), 10);
        assert!(matches!(ours.world.put_to(ShardId(arrival), &query, "v0"), Fate::Served));
    }
}
