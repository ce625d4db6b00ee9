//! Replies that wait for the partner while their lease ends: none of them may leave, for the address can be somebody else's by then. One
//! whole server, turned by hand, and a played partner that answers late.

mod hand;

use std::net::Ipv4Addr;

use aplomado::wire::drop::DropReason;
use hand::{Hand, Played, Reply, Sent, client_mac, normal, ok};
use serde_json::{Value, json};

const MODE: &str = "hot-standby";
const FIRST: Ipv4Addr = Ipv4Addr::new(192, 0, 3, 77);
const SECOND: Ipv4Addr = Ipv4Addr::new(192, 0, 3, 78);

/// A server whose partner takes its time with lease updates.
struct Slow {
    hand: Hand,
    played: Played,
    /// Connections whose update is not answered.
    open: Vec<usize>,
}

fn is_update(sent: &Sent) -> bool {
    sent.to == 1 && matches!(sent.command(), "lease4-update" | "lease4-del")
}

impl Slow {
    fn start(shards: usize) -> Self {
        let relationship = json!({ "max-response-delay": 60_000 });
        let (hand, played) = normal(MODE, &relationship, shards);
        Self { hand, played, open: Vec::new() }
    }

    /// What is to be done is done; updates stay unanswered.
    fn turn(&mut self) {
        let Self { hand, played, open } = self;
        for _ in 0..12 {
            hand.turn(&mut |sent| {
                if is_update(sent) {
                    open.push(sent.place);
                    return Reply::Later;
                }
                played.hear(sent)
            });
        }
    }

    fn say(&mut self, line: &str) -> u32 {
        let xid = self.hand.query(line);
        self.turn();
        xid
    }

    fn request(&mut self, client: u8, address: Ipv4Addr) -> u32 {
        let server = self.hand.setting.address;
        self.say(&format!("request mac={} want={address} sid={server}", client_mac(client)))
    }

    /// The partner answers everything: what leaves to whom.
    fn answer(&mut self) {
        for place in std::mem::take(&mut self.open) {
            self.hand.answered(place, ok(Value::Null));
        }
        let Self { hand, played, .. } = self;
        for _ in 0..40 {
            hand.turn(&mut |sent| played.hear(sent));
        }
        assert_eq!(hand.parked(), 0);
    }

    /// What a query was answered with.
    fn answered_with(&mut self, xid: u32) -> Option<(String, Ipv4Addr)> {
        self.hand.take_reply(xid).map(|reply| (reply.kind(), reply.yiaddr()))
    }

    fn taken_back(&mut self) -> u64 {
        let shards = &self.hand.server().desk.engine.shards;
        shards.iter().map(|shard| shard.counters.drop_count(DropReason::ParkCancelled)).sum()
    }
}

fn ack(address: Ipv4Addr) -> Option<(String, Ipv4Addr)> {
    Some(("ack".to_owned(), address))
}

/// Other clients, some at each shard.
const OTHERS: std::ops::Range<u8> = 2..7;

/// The client of a lease that is not acknowledged yet gives it back by a message that is late.
#[test]
fn what_a_late_release_or_decline_ends_is_not_acknowledged() {
    for (shards, other) in [1, 2].into_iter().flat_map(|shards| OTHERS.map(move |other| (shards, other))) {
        for (kind, is_free) in [("release", true), ("decline", false)] {
            let mut slow = Slow::start(shards);
            let first = slow.request(1, FIRST);
            assert_eq!(slow.hand.parked(), 1);
            let named = if is_free { format!("ciaddr={FIRST}") } else { format!("want={FIRST}") };
            slow.say(&format!("{kind} mac={} {named} from={FIRST} to=255.255.255.255", client_mac(1)));
            // Its row is durable: who asks now may have the address.
            let second = slow.request(other, FIRST);
            slow.answer();
            assert_eq!(slow.answered_with(first), None, "{kind}, {shards}: it is not the first client's");
            let expected = if is_free { ack(FIRST) } else { Some(("nak".to_owned(), Ipv4Addr::UNSPECIFIED)) };
            assert_eq!(slow.answered_with(second), expected, "{kind}, {shards}");
            assert_eq!(slow.taken_back(), 1);
        }
    }
}

/// A late older REQUEST moves the client to another address, and the one that it asked for last goes to somebody else.
#[test]
fn what_a_late_request_for_another_address_ends_is_not_acknowledged() {
    for shards in [1, 2] {
        let mut slow = Slow::start(shards);
        let newer = slow.request(1, FIRST);
        let older = slow.request(1, SECOND);
        let other = slow.request(2, FIRST);
        slow.answer();
        assert_eq!(slow.answered_with(newer), None, "{shards}: the address is the other client's");
        assert_eq!(slow.answered_with(older), ack(SECOND));
        assert_eq!(slow.answered_with(other), ack(FIRST));
        assert_eq!(slow.taken_back(), 1);
        let holders = slow.hand.holders();
        assert_eq!([FIRST, SECOND].map(|address| holders[&address].0), [2, 1]);
    }
}

/// An order removes all leases of a subnet.
#[test]
fn what_an_operator_wipes_is_not_acknowledged() {
    let mut slow = Slow::start(1);
    let first = slow.request(1, FIRST);
    let wipe = json!({ "command": "lease4-wipe", "service": ["dhcp4"], "arguments": { "subnet-id": 1 } });
    slow.hand.command(&wipe);
    slow.turn();
    let second = slow.request(2, FIRST);
    slow.answer();
    assert_eq!((slow.answered_with(first), slow.answered_with(second)), (None, ack(FIRST)));
}

/// The wall clock is set forth by more than a lifetime while a reply waits.
#[test]
fn what_has_expired_meanwhile_is_not_acknowledged() {
    for (shards, other) in [1, 2].into_iter().flat_map(|shards| OTHERS.map(move |other| (shards, other))) {
        let mut slow = Slow::start(shards);
        let first = slow.request(1, FIRST);
        slow.hand.skew_s = 5000;
        slow.hand.pass(0);
        slow.turn();
        let second = slow.request(other, FIRST);
        slow.answer();
        assert_eq!((slow.answered_with(first), slow.answered_with(second)), (None, ack(FIRST)), "{shards}");
    }
}

/// Also where nobody has asked for the address yet.
#[test]
fn what_is_free_for_others_is_not_acknowledged() {
    for is_released in [true, false] {
        let mut slow = Slow::start(1);
        let first = slow.request(1, FIRST);
        if is_released {
            slow.say(&format!(
                "release mac={} ciaddr={FIRST} from={FIRST} to=255.255.255.255",
                client_mac(1)
            ));
        } else {
            slow.hand.skew_s = 5000;
            slow.hand.pass(0);
            slow.turn();
        }
        slow.answer();
        assert_eq!((slow.answered_with(first), slow.taken_back()), (None, 1), "released: {is_released}");
    }
}

/// What ends takes back its own reply only; and a client that asks again for what it has waits for one answer of the two.
#[test]
fn other_replies_leave_although_leases_ended_while_they_waited() {
    for shards in [1, 2] {
        let mut slow = Slow::start(shards);
        let stays = slow.request(3, SECOND);
        let ended = slow.request(1, FIRST);
        slow.say(&format!("release mac={} ciaddr={FIRST} from={FIRST} to=255.255.255.255", client_mac(1)));
        let again = slow.request(1, FIRST);
        slow.answer();
        assert_eq!(slow.answered_with(stays), ack(SECOND), "{shards}");
        assert_eq!(slow.answered_with(ended), None, "{shards}: it was given back after that");
        assert_eq!(slow.answered_with(again), ack(FIRST), "{shards}: it was asked for anew");
        assert_eq!(slow.taken_back(), 1);
        // A renewal that is repeated: both replies promise what is so.
        let two = [(); 2].map(|()| slow.request(3, SECOND));
        slow.answer();
        assert_eq!(two.map(|xid| slow.answered_with(xid)), [ack(SECOND), ack(SECOND)], "{shards}");
    }
}

/// Nobody is served here any more; whoever serves these clients now may give the address away unless it is told of the lease.
#[test]
fn what_waits_for_the_partner_waits_on_when_this_server_stops_serving() {
    let notify = json!({ "server-name": "one", "cancel": false, "state": "hot-standby" });
    for shards in [1, 2] {
        for (command, arguments) in [("ha-maintenance-notify", &notify), ("ha-reset", &Value::Null)] {
            for takes in [Some(true), Some(false), None] {
                let mut slow = Slow::start(shards);
                let first = slow.request(1, FIRST);
                assert_eq!(slow.hand.parked(), 1);
                let Slow { hand, played, open } = &mut slow;
                let before = hand.state();
                let answer = hand.ask(command, arguments, &mut |sent| played.hear(sent));
                assert_eq!(answer["result"], 0, "{answer}");
                for _ in 0..20 {
                    hand.turn(&mut |sent| if is_update(sent) { Reply::Later } else { played.hear(sent) });
                }
                assert_ne!(hand.state(), before);
                assert_eq!((hand.parked(), open.len()), (1, 1), "{command}");
                let reply = || match takes {
                    Some(true) => ok(Value::Null),
                    Some(false) => hand::result(4, Value::Null),
                    None => Reply::Silent,
                };
                hand.answered(open[0], reply());
                for _ in 0..20 {
                    hand.turn(&mut |sent| played.hear(sent));
                }
                assert_eq!(hand.parked(), 0);
                let expected = takes.filter(|takes| *takes).and_then(|_| ack(FIRST));
                assert_eq!(slow.answered_with(first), expected, "{command}, {takes:?}");
            }
        }
    }
}

/// Decided when the server still served, and logged when it does not any more: the partner is told all the same.
#[test]
fn what_is_logged_after_the_service_has_ended_is_told_before_it_is_acknowledged() {
    let mut slow = Slow::start(1);
    let server = slow.hand.setting.address;
    let line = format!("request mac={} want={FIRST} sid={server}", client_mac(1));
    let first = slow.hand.query(&line);
    slow.hand.server().turn_shard(0);
    assert_eq!(slow.hand.parked(), 1);
    let notify = json!({ "command": "ha-maintenance-notify", "service": ["dhcp4"],
        "arguments": { "server-name": "one", "cancel": false, "state": "hot-standby" } });
    slow.hand.command(&notify);
    while slow.hand.server().word().sent & 2 != 0 {
        slow.hand.server().turn_control();
    }
    slow.turn();
    assert_eq!((slow.hand.parked(), slow.open.len()), (1, 1));
    assert_eq!(slow.answered_with(first), None);
    slow.answer();
    assert_eq!(slow.answered_with(first), ack(FIRST));
}
