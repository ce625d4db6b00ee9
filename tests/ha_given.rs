//! Leases that a server gave while it served alone, and was restarted with: the other one, which gives addresses too, must come to know of
//! them. Two whole servers, turned by hand.

mod hand;

use std::net::Ipv4Addr;

use aplomado::lease::LeaseState;
use aplomado::store::Survivors;
use hand::{Hand, Played, Reply, START_S, Two, client_mac, normal, ok, setting};
use serde_json::{Value, json};

const GIVE: &str = "aplomado-sync-leases";

/// Both serve alone, and do not hear each other: the first has given `first` clients an address, the second `second`.
fn split(mode: &str, shards: usize, first: std::ops::Range<u8>, second: std::ops::Range<u8>) -> Two {
    let normal = mode;
    let mut two = Two::start(mode, &json!({ "delayed-updates-limit": 0, "sync-page-limit": 3 }), shards);
    two.run_to([normal, normal]);
    two.cut = true;
    two.run_to(["partner-down", "partner-down"]);
    // The second one is first, so that its leases are the older ones of each address.
    for client in second {
        two.serve(1, client);
    }
    two.pass(2000);
    for client in first {
        two.serve(0, client);
    }
    two
}

/// Each hears of the other one that it serves alone, and both begin to copy; each reads a page before the other one's is taken in.
fn copy_from_each_other(two: &mut Two) {
    for command in ["ha-heartbeat", "lease4-get-page"] {
        let count = |two: &Two| [0, 1].map(|server| two.sent(server, command).len());
        let before = count(two);
        two.held = vec![command];
        two.run_until(command, |two| count(two).iter().zip(before).all(|(now, before)| *now > before));
        (0..6).for_each(|_| two.turn());
    }
    two.held.clear();
}

#[test]
fn what_a_server_gave_alone_is_known_to_both_when_it_is_back_after_a_restart() {
    for shards in [1, 2] {
        let mut two = split("hot-standby", shards, 0..7, 100..100);
        let given = two.hands[0].holders();
        assert_eq!(given.len(), 7);
        two.kill(0);
        two.cut = false;
        two.hands[0].restart();
        two.run_to(["hot-standby", "hot-standby"]);
        assert_eq!(two.hands[1].holders(), given, "each lease is at the partner, as its server gave it");
        assert_eq!(two.hands[0].holders(), given);
        let leases: usize = two
            .sent(0, GIVE)
            .iter()
            .map(|sent| sent.arguments()["leases"].as_array().map_or(0, Vec::len))
            .sum();
        assert_eq!(leases, 7, "each was sent once");
        // Statistics are those of the leases that are there, however they came.
        for server in 0..2 {
            let call = two.hands[server].command(&json!({ "command": "statistic-get", "service": ["dhcp4"],
                "arguments": { "name": "subnet[1].assigned-addresses" } }));
            (0..20).for_each(|_| two.turn());
            let answer = two.hands[server].take_answer(call).expect("an answer");
            assert_eq!(answer["arguments"]["subnet[1].assigned-addresses"][0][0], 7, "{answer}");
        }
        // Nor is any of them given away by the partner alone.
        two.kill(0);
        two.run_to(["dead", "partner-down"]);
        for client in 100..110 {
            let address = two.serve(1, client);
            assert!(!given.contains_key(&address), "{address} is held by another client");
        }
    }
}

#[test]
fn of_an_address_that_both_gave_away_the_later_lease_is_at_both() {
    for (shards, dies) in [(1, true), (1, false), (2, true), (2, false)] {
        let mut two = split("hot-standby", shards, 0..3, 100..105);
        let (early, late) = (two.hands[1].holders(), two.hands[0].holders());
        assert!(late.keys().any(|address| early.contains_key(address)), "both gave one address away");
        // The second one's client renews an address that the first one gave after it: now its lease is the later one.
        two.pass(3000);
        let renewed = *late.keys().next().expect("a lease");
        let client = early[&renewed].0;
        let line =
            format!("request mac={} ciaddr={renewed} from={renewed} to=255.255.255.255", client_mac(client));
        let xid = two.hands[1].query(&line);
        (0..12).for_each(|_| two.turn());
        assert_eq!(two.hands[1].take_reply(xid).expect("an answer").kind(), "ack");
        two.cut = false;
        if dies {
            two.kill(0);
            two.hands[0].restart();
        }
        two.run_to(["hot-standby", "hot-standby"]);
        let [one, other] = [0, 1].map(|server| two.hands[server].holders());
        assert_eq!(one, other);
        assert_eq!(one[&renewed].0, client, "the renewal was last");
        for (address, lease) in &late {
            if *address != renewed {
                assert_eq!(one[address], *lease, "the first server's lease was last");
            }
        }
        assert!(early.keys().all(|address| one.contains_key(address)));
    }
}

#[test]
fn a_death_while_leases_are_given_loses_none_of_them() {
    // Who dies, and whether before anything was taken or when all was and nobody was told.
    for (dies, taken) in [(0, false), (0, true), (1, false), (1, true)] {
        let mut two = split("hot-standby", 2, 0..7, 100..103);
        two.kill(0);
        two.cut = false;
        two.hands[0].restart();
        let before = two.hands[0].holders();
        two.held = vec![GIVE];
        two.run_until("leases on their way", |two| !two.sent(0, GIVE).is_empty());
        if taken {
            (0..20).for_each(|_| two.turn());
        }
        two.kill(dies);
        two.held.clear();
        two.hands[dies].restart();
        two.run_to(["hot-standby", "hot-standby"]);
        let [one, other] = [0, 1].map(|server| two.hands[server].holders());
        assert_eq!(one, other, "server {dies} died, {taken}");
        for (address, (client, cltt)) in &before {
            assert!(one[address].1 >= *cltt, "{address} of client {client} is gone or older");
        }
    }
}

#[test]
fn what_the_source_does_during_the_copy_is_later_than_all_before_also_when_its_clock_was_set_back() {
    for shards in [1, 2] {
        let mut two = Two::start("hot-standby", &json!({}), shards);
        two.run_to(["hot-standby", "hot-standby"]);
        let address = two.serve(0, 1);
        two.kill(1);
        two.run_to(["partner-down", "dead"]);
        two.hands[0].skew_s = -20;
        two.pass(50);
        two.hands[1].restart();
        // All pages have come, and the rest of the changes is still to be asked for.
        two.held = vec!["aplomado-sync-changes"];
        let asked = two.sent(1, "aplomado-sync-changes").len();
        two.run_until("copy", |two| two.sent(1, "aplomado-sync-changes").len() > asked);
        let before = two.hands[0].holders()[&address];
        let line =
            format!("request mac={} ciaddr={address} from={address} to=255.255.255.255", client_mac(1));
        let xid = two.hands[0].query(&line);
        (0..12).for_each(|_| two.turn());
        assert_eq!(two.hands[0].take_reply(xid).expect("an answer").kind(), "ack");
        let renewed = two.hands[0].holders()[&address];
        assert!(renewed.1 < before.1, "{before:?}, then {renewed:?}: the clock was set back");
        two.held.clear();
        two.run_to(["hot-standby", "hot-standby"]);
        assert_eq!([0, 1].map(|server| two.hands[server].holders()[&address]), [renewed; 2]);
    }
}

#[test]
fn nothing_is_given_to_a_source_that_does_not_know_how() {
    let mut two = split("hot-standby", 1, 0..4, 100..100);
    let given = two.hands[0].holders();
    two.kill(0);
    two.hands[0].restart();
    // A source of ours of before, played: it knows nothing but pages and sessions.
    let mut hand = two.hands.into_iter().next().expect("two");
    let mut peer = |sent: &hand::Sent| match sent.command() {
        "ha-heartbeat" => {
            hand::ok(json!({ "state": "partner-down", "date-time": "Wed, 18 Nov 2026 11:06:51 GMT",
            "scopes": ["one"], "unsent-update-count": 0 }))
        }
        "list-commands" => hand::ok(json!(["ha-heartbeat", "aplomado-sync-begin"])),
        "aplomado-sync-begin" => hand::ok(json!({ "session": 5 })),
        "lease4-get-page" => hand::ok(json!({ "count": 0, "leases": [] })),
        "aplomado-sync-changes" => {
            hand::ok(json!({ "deleted": [], "leases": [], "overflown": false, "remaining": 0 }))
        }
        GIVE => hand::result(2, serde_json::Value::Null),
        _ if sent.to == 2 => Reply::Silent,
        _ => hand::ok(json!({})),
    };
    hand.run_to("ready", &mut peer);
    assert_eq!(hand.sent.iter().filter(|sent| sent.command() == GIVE).count(), 1, "asked once");
    assert_eq!(hand.holders(), given);
}

#[test]
fn what_is_brought_replaces_older_leases_only_and_is_durable_when_it_is_answered() {
    for (own, peer, shards) in [("one", "two", 1), ("one", "two", 2), ("two", "one", 1)] {
        let mut hand = Hand::start(setting(own, "hot-standby", &json!({}), shards));
        let lease = |client: u8, cltt: u64| {
            json!({ "ip-address": "192.0.3.5", "hw-address": client_mac(client), "subnet-id": 1, "valid-lft": 4000,
                "expire": cltt + 4000 })
        };
        let mut held = lease(1, START_S);
        held["force-create"] = json!(true);
        assert_eq!(hand.ask("lease4-update", &held, &mut |_| Reply::Later)["result"], 0);
        let mut bring = |client: u8, cltt: u64| {
            let arguments =
                json!({ "leases": [lease(client, cltt)], "origin": "ha-partner", "server-name": peer });
            let answer = hand.ask(GIVE, &arguments, &mut |_| Reply::Later);
            assert_eq!((&answer["result"], &answer["arguments"]), (&json!(0), &json!(null)), "{answer}");
            let on_disk = hand::server::on_disk(&hand.disk.after(Survivors::Durable));
            let holders: Vec<Option<u8>> = [hand.holders().into_values().map(|(client, _)| client).next()]
                .into_iter()
                .chain([on_disk
                    .into_values()
                    .next()
                    .and_then(|lease| lease.view().hw_addr.as_bytes().last().copied())])
                .collect();
            assert_eq!(holders[0], holders[1], "what is answered is on the disk");
            holders[0]
        };
        assert_eq!(bring(2, START_S - 10), Some(1), "an older one");
        let stays = if own == "one" { 1 } else { 2 };
        assert_eq!(bring(2, START_S), Some(stays), "of the same second the primary's stays");
        assert_eq!(bring(2, START_S + 1), Some(2), "a newer one");
    }
}

#[test]
fn a_release_that_comes_after_the_next_lease_is_not_made() {
    for (mode, backlog) in [("hot-standby", 0), ("load-balancing", 0), ("load-balancing", 10)] {
        let mut two = Two::start(mode, &json!({ "delayed-updates-limit": backlog }), 2);
        two.run_to([mode, mode]);
        // One of the first server's scope.
        let first = |two: &mut Two| {
            (1..20).find(|&client| {
                let offer = two.hands[0].query(&format!("discover mac={}", client_mac(client)));
                (0..12).for_each(|_| two.turn());
                two.hands[0].take_reply(offer).is_some()
            })
        };
        let client = first(&mut two).expect("a client of the first server");
        let address = two.serve(0, client);
        two.cut = true;
        let line =
            format!("release mac={} ciaddr={address} from={address} to=255.255.255.255", client_mac(client));
        two.hands[0].query(&line);
        (0..12).for_each(|_| two.turn());
        let release = two.sent(0, "aplomado-bulk-apply").last().expect("a command").body.clone();
        assert_eq!(release["arguments"]["leases"][0]["state"], 3, "{release}");
        // With a backlog the next lease goes there first.
        if backlog > 0 {
            two.run_until("recovery", |two| two.hands[0].state() == "communication-recovery");
            assert_eq!(two.serve(0, client), address);
        }
        two.cut = false;
        two.run_to([mode, mode]);
        if backlog == 0 {
            assert_eq!(two.serve(0, client), address);
        }
        let held = two.hands[1].holders()[&address];
        let call = two.hands[1].command(&release);
        (0..12).for_each(|_| two.turn());
        assert_eq!(two.hands[1].take_answer(call).expect("an answer")["result"], 1);
        let kept = two.hands[1].server().lease(address).expect("it is there");
        assert_eq!(kept.view().state, LeaseState::Assigned, "{mode}, {backlog} in the backlog");
        assert_eq!(two.hands[1].holders()[&address], held);
    }
}

/// A server that serves alone, and its partner, which nobody hears.
fn alone() -> (Hand, Played) {
    let (mut hand, mut played) = normal("hot-standby", &json!({}), 1);
    played.state = None;
    hand.run_to("partner-down", &mut |sent| played.hear(sent));
    (hand, played)
}

/// The partner says that it has copied, and is not heard until the service is on again.
fn copied_and_silent(hand: &mut Hand, played: &mut Played) {
    played.state = None;
    let notice = json!({ "server-name": "two", "origin-id": 2000, "origin": 2000 });
    let answer = hand.ask("ha-sync-complete-notify", &notice, &mut |sent| played.hear(sent));
    assert_eq!(answer["result"], 0, "{answer}");
    hand.run_until("service", &mut |sent| played.hear(sent), |hand| hand.server().word().service);
}

fn resets(hand: &Hand) -> usize {
    hand.sent.iter().filter(|sent| sent.command() == "ha-reset").count()
}

fn hears(hand: &mut Hand, played: &mut Played, state: &'static str) {
    played.state = Some(state);
    let is_heard = |hand: &mut Hand| hand.servers()["remote"]["last-state"] == state;
    hand.run_until(state, &mut |sent| played.hear(sent), is_heard);
}

#[test]
fn a_partner_that_was_ready_before_this_server_served_alone_copies_again_if_there_is_anything_new() {
    for gives in [true, false] {
        let (mut hand, mut played) = alone();
        if gives {
            hand.serve(1, &mut |_| Reply::Silent).expect("it serves alone");
        }
        hears(&mut hand, &mut played, "ready");
        if gives {
            assert_eq!((hand.state(), resets(&hand)), ("partner-down", 1), "its copy is an old one");
            hears(&mut hand, &mut played, "waiting");
            hears(&mut hand, &mut played, "ready");
        }
        assert_eq!((hand.state(), resets(&hand)), ("hot-standby", usize::from(gives)));
    }
    // One that was seen to copy has what was given before.
    let (mut hand, mut played) = alone();
    hand.serve(1, &mut |_| Reply::Silent).expect("it serves alone");
    let notice = json!({ "server-name": "two", "origin-id": 2000, "origin": 2000 });
    hand.ask("ha-sync-complete-notify", &notice, &mut |sent| played.hear(sent));
    hears(&mut hand, &mut played, "ready");
    assert_eq!((hand.state(), resets(&hand)), ("hot-standby", 0));
}

#[test]
fn the_answer_to_a_reset_says_nothing_of_what_was_given_after_the_copy_that_it_began() {
    let (mut hand, mut played) = alone();
    copied_and_silent(&mut hand, &mut played);
    hand.serve(1, &mut |_| Reply::Silent).expect("it serves alone");
    played.state = Some("ready");
    hand.run_until(
        "reset",
        &mut |sent| if sent.command() == "ha-reset" { Reply::Later } else { played.hear(sent) },
        |hand| resets(hand) == 1,
    );
    let place = hand.sent.iter().rfind(|sent| sent.command() == "ha-reset").expect("a reset").place;
    // It was reset and has copied, and the answer to that is still on its way.
    copied_and_silent(&mut hand, &mut played);
    hand.serve(2, &mut |_| Reply::Silent).expect("it serves alone");
    hand.answered(place, ok(Value::Null));
    hears(&mut hand, &mut played, "ready");
    assert_eq!((hand.state(), resets(&hand)), ("partner-down", 2), "the second lease is not in that copy");
    hears(&mut hand, &mut played, "waiting");
    hears(&mut hand, &mut played, "ready");
    assert_eq!((hand.state(), resets(&hand)), ("hot-standby", 2));
}

#[test]
fn neither_a_notice_that_comes_late_nor_a_reset_makes_known_what_was_given_alone() {
    // The partner's hold on the service ran out before its notice came.
    let (mut hand, mut played) = alone();
    let hold = json!({ "max-period": 1, "origin": 2000, "origin-id": 2000 });
    hand.ask("dhcp-disable", &hold, &mut |sent| played.hear(sent));
    hand.run_until("end of it", &mut |sent| played.hear(sent), |hand| hand.server().word().service);
    hand.serve(1, &mut |_| Reply::Silent).expect("it serves alone");
    copied_and_silent(&mut hand, &mut played);
    hears(&mut hand, &mut played, "ready");
    assert_eq!((hand.state(), resets(&hand)), ("partner-down", 1), "the lease is not in that copy");
    // An operator resets it, and it comes to the same state without the partner.
    let (mut hand, mut played) = alone();
    hand.serve(1, &mut |_| Reply::Silent).expect("it serves alone");
    assert_eq!(hand.ask("ha-reset", &Value::Null, &mut |sent| played.hear(sent))["result"], 0);
    hand.run_to("partner-down", &mut |sent| played.hear(sent));
    hears(&mut hand, &mut played, "ready");
    assert_eq!((hand.state(), resets(&hand)), ("partner-down", 1), "the partner was ready before");
}

#[test]
fn a_state_that_a_reset_led_to_does_not_serve_before_the_pair_has_settled() {
    let (mut hand, mut played) = alone();
    assert_eq!(hand.ask("ha-reset", &Value::Null, &mut |sent| played.hear(sent))["result"], 0);
    assert_eq!(hand.state(), "partner-down", "nobody was heard");
    let notice = json!({ "server-name": "two", "origin-id": 2000, "origin": 2000 });
    hand.ask("ha-sync-complete-notify", &notice, &mut |sent| played.hear(sent));
    played.state = Some("syncing");
    for _ in 0..8 {
        (0..6).for_each(|_| hand.turn(&mut |sent| played.hear(sent)));
        assert!(!hand.server().word().service, "what is given now is missing in the copy");
        hand.pass(50);
    }
    hears(&mut hand, &mut played, "ready");
    assert_eq!((hand.state(), resets(&hand)), ("hot-standby", 0));
}

/// The first server has given an address and told nobody, as its partner did not answer; then the second one gave it to client 100, an earlier time
/// by its clock. Both serve alone.
fn untold_and_told(shards: usize) -> (Two, Ipv4Addr) {
    let mut two = Two::start("load-balancing", &json!({ "sync-page-limit": 3 }), shards);
    two.run_to(["load-balancing", "load-balancing"]);
    two.cut = true;
    // Nobody hears that the first one has given the address: its answer waits for the second one, until that is gone.
    let (mut address, mut asked) = (None, 0);
    for client in 1..20 {
        let offer = two.hands[0].query(&format!("discover mac={}", client_mac(client)));
        (0..12).for_each(|_| two.turn());
        let Some(offer) = two.hands[0].take_reply(offer) else { continue };
        let line = format!(
            "request mac={} want={} sid={}",
            client_mac(client),
            offer.yiaddr(),
            two.hands[0].setting.address
        );
        asked = two.hands[0].query(&line);
        address = Some(offer.yiaddr());
        break;
    }
    let address = address.expect("a client of the first server");
    (0..12).for_each(|_| two.turn());
    assert_eq!(two.hands[0].holders().len(), 1, "it has a row");
    two.run_to(["partner-down", "partner-down"]);
    assert!(two.hands[0].take_reply(asked).is_none(), "its client was not answered");
    // The second one gives it away before that, as clocks have it.
    two.hands[1].skew_s = -30;
    two.pass(50);
    let offer = two.hands[1].query(&format!("discover mac={} want={address}", client_mac(100)));
    (0..12).for_each(|_| two.turn());
    assert_eq!(two.hands[1].take_reply(offer).expect("an offer").yiaddr(), address);
    let own = two.hands[1].setting.address;
    let ack = two.hands[1].query(&format!("request mac={} want={address} sid={own}", client_mac(100)));
    (0..24).for_each(|_| two.turn());
    assert_eq!(two.hands[1].take_reply(ack).expect("an answer").kind(), "ack");
    (two, address)
}

#[test]
fn a_lease_that_its_client_was_not_told_of_does_not_replace_one_that_was_told() {
    for shards in [1, 2] {
        for at_once in [false, true] {
            let (mut two, address) = untold_and_told(shards);
            two.cut = false;
            if at_once {
                copy_from_each_other(&mut two);
            }
            two.run_to(["load-balancing", "load-balancing"]);
            for server in 0..2 {
                let holder = two.hands[server].holders()[&address].0;
                assert_eq!(holder, 100, "server {server}, {shards} shard(s), at once {at_once}");
            }
        }
    }
}

#[test]
fn of_one_second_a_lease_that_was_given_again_stays_before_its_release() {
    for shards in [1, 2] {
        let mut two = split("hot-standby", shards, 0..1, 100..100);
        let address = *two.hands[0].holders().keys().next().expect("a lease");
        two.kill(0);
        // The other one comes to know of the release, and dies before it hears of the lease that followed.
        let released = json!({ "ip-address": address, "hw-address": client_mac(0), "subnet-id": 1, "valid-lft": 0,
            "expire": two.hands[0].disk_cltt(address), "state": 3 });
        let arguments = json!({ "leases": [released], "origin": "ha-partner", "server-name": "one" });
        let answer = two.hands[1].ask("aplomado-bulk-apply", &arguments, &mut |_| Reply::Silent);
        assert_eq!(answer["result"], 0, "{answer}");
        two.cut = false;
        two.hands[0].restart();
        two.run_to(["hot-standby", "hot-standby"]);
        for server in 0..2 {
            let lease = two.hands[server].server().lease(address).expect("it is there");
            assert_eq!(lease.view().state, LeaseState::Assigned, "server {server}, {shards} shard(s)");
        }
    }
}

#[test]
fn a_lease_of_before_is_not_answered_from_the_cache_while_the_partner_is_not_waited_for() {
    let caching = |shards| {
        let mut setting = setting("one", "hot-standby", &json!({}), shards);
        setting.text = setting.text.replace("\"cache-threshold\":0.0", "\"cache-threshold\":0.5");
        setting
    };
    for shards in [1, 2] {
        let (mut hand, mut played) = hand::normal_of(caching(shards), "hot-standby");
        let address = hand.serve(1, &mut |sent| played.hear(sent)).expect("a lease");
        let renewed = |hand: &mut Hand, played: &mut Played| {
            hand.pass(2000);
            let mac = client_mac(1);
            let line = format!("request mac={mac} ciaddr={address} from={address} to=255.255.255.255");
            assert_eq!(hand.exchange(&line, &mut |sent| played.hear(sent)).expect("an answer").kind(), "ack");
            hand.holders()[&address].1
        };
        let given = hand.holders()[&address].1;
        assert_eq!(renewed(&mut hand, &mut played), given, "from the cache");
        played.state = None;
        hand.run_to("partner-down", &mut |sent| played.hear(sent));
        // The partner may serve the client, too, and hear after that how it gives the address back: the later of both counts.
        let alone = renewed(&mut hand, &mut played);
        assert!(alone > given);
        assert!(renewed(&mut hand, &mut played) > alone, "each time");
    }
}

#[test]
fn a_change_of_the_backlog_is_not_sent_over_what_the_partner_has_brought_since() {
    let relationship = json!({ "delayed-updates-limit": 10, "max-unacked-clients": 5 });
    let (mut hand, mut played) = normal("load-balancing", &relationship, 1);
    played.state = None;
    hand.run_to("communication-recovery", &mut |sent| played.hear(sent));
    let given: Vec<_> =
        (1..20).filter_map(|client| Some((client, hand.serve(client, &mut |_| Reply::Silent)?))).collect();
    let [(client, brought), (_, kept), ..] = given[..] else { panic!("{given:?}: expected two clients") };
    let lease = json!({ "ip-address": brought, "hw-address": client_mac(client), "subnet-id": 1, "valid-lft": 4000,
        "expire": START_S + 8000 });
    let arguments = json!({ "leases": [lease], "origin": "ha-partner", "server-name": "two" });
    let answer = hand.ask(GIVE, &arguments, &mut |_| Reply::Silent);
    assert_eq!(answer["result"], 0, "{answer}");
    played.state = Some("load-balancing");
    hand.run_to("load-balancing", &mut |sent| played.hear(sent));
    let flushed = |address| {
        let is_it = |sent: &&hand::Sent| sent.to == 1 && sent.arguments()["ip-address"] == json!(address);
        hand.sent.iter().rev().filter(is_it).count()
    };
    assert!(flushed(kept) > 0, "the others are sent");
    assert_eq!(flushed(brought), 0);
}

#[test]
fn two_servers_that_copy_from_each_other_at_once_come_to_hold_the_same() {
    for shards in [1, 2] {
        let mut two = Two::start("hot-standby", &json!({ "sync-page-limit": 3 }), shards);
        two.run_to(["hot-standby", "hot-standby"]);
        two.cut = true;
        two.run_to(["partner-down", "partner-down"]);
        // In one second, each to clients of its own.
        let second = two.hands[0].ms / 1000;
        for client in 0..5 {
            two.serve(0, client);
            two.serve(1, 100 + client);
        }
        assert_eq!(two.hands[0].ms / 1000, second, "in one second");
        let [of_the_primary, other] = [0, 1].map(|server| two.hands[server].holders());
        assert!(
            of_the_primary.keys().any(|address| other.contains_key(address)),
            "both gave one address away"
        );
        two.cut = false;
        copy_from_each_other(&mut two);
        two.run_to(["hot-standby", "hot-standby"]);
        assert!((0..2).all(|server| !two.sent(server, "aplomado-sync-begin").is_empty()), "both copy");
        let [one, other] = [0, 1].map(|server| two.hands[server].holders());
        assert_eq!(one, other, "{shards} shard(s)");
        // Of one address and one second the primary's stays.
        assert!(of_the_primary.iter().all(|(address, lease)| one[address] == *lease), "{one:?}");
    }
}

/// A bulk command of the partner with one change: the client's lease of `address` is released, or held for 4,000 s, since `cltt`.
fn change(client: u8, address: Ipv4Addr, released: bool, cltt: u64, post: (u64, u64)) -> Value {
    let (state, valid_lft) = if released { (3, 0) } else { (0, 4000) };
    json!({ "leases": [{ "ip-address": address.to_string(), "hw-address": client_mac(client), "subnet-id": 1,
            "state": state, "valid-lft": valid_lft, "expire": cltt + valid_lft }],
        "origin": "ha-partner", "post-session": post.0, "post": post.1, "post-since": 1, "server-name": "two" })
}

/// A lease of a page, held since the start.
fn on_a_page(client: u8, address: Ipv4Addr) -> Value {
    json!({ "ip-address": address.to_string(), "hw-address": client_mac(client), "subnet-id": 1, "state": 0,
        "cltt": START_S, "valid-lft": 4000, "fqdn-fwd": false, "fqdn-rev": false, "hostname": "" })
}

/// Who holds an address.
fn held(hand: &mut Hand, address: Ipv4Addr) -> Option<u8> {
    let lease = hand.server().lease(address)?;
    let lease = lease.view();
    (lease.state == LeaseState::Assigned).then(|| lease.hw_addr.as_bytes().last().copied())?
}

#[test]
fn a_change_that_comes_after_a_copy_does_not_replace_what_was_copied() {
    let address = Ipv4Addr::new(192, 0, 3, 5);
    // By session and number: until 6 the source says that its leases are at least as new.
    for (post, is_made) in [((77, 5), false), ((77, 6), false), ((77, 7), true), ((78, 5), true)] {
        let mut hand = Hand::start(setting("one", "hot-standby", &json!({}), 1));
        let mut played = Played::new();
        played.state = Some("partner-down");
        played.leases = vec![on_a_page(1, address)];
        let mut peer = |sent: &hand::Sent| match sent.command() {
            "list-commands" if sent.to == 1 => ok(json!([
                "ha-heartbeat",
                "ha-sync-complete-notify",
                "aplomado-bulk-apply",
                "aplomado-sync-begin"
            ])),
            "aplomado-sync-begin" => ok(json!({ "session": 5, "post-session": 77, "post": 5 })),
            "aplomado-sync-changes" => {
                ok(json!({ "deleted": [], "leases": [], "overflown": false, "remaining": 0,
                "post-session": 77, "post": 6 }))
            }
            _ => played.hear(sent),
        };
        hand.run_to("ready", &mut peer);
        assert_eq!(held(&mut hand, address), Some(1), "it was copied");
        let late = change(1, address, true, START_S - 1, post);
        let answer = hand.ask("aplomado-bulk-apply", &late, &mut |_| Reply::Later);
        assert_eq!((&answer["result"], &answer["arguments"]), (&json!(0), &Value::Null), "{answer}");
        assert_eq!(held(&mut hand, address), (!is_made).then_some(1), "{post:?}");
        let newer = change(1, address, false, START_S + 5, post);
        hand.ask("aplomado-bulk-apply", &newer, &mut |_| Reply::Later);
        assert_eq!(hand.holders()[&address], (1, START_S + 5), "what is newer is made");
    }
}

#[test]
fn who_copies_is_told_which_changes_are_in_the_copy() {
    let mut two = Two::start("hot-standby", &json!({}), 1);
    two.run_to(["hot-standby", "hot-standby"]);
    let ask = |two: &mut Two, command: &str, mut arguments: Value| {
        arguments["server-name"] = json!("two");
        let call = two.hands[0]
            .command(&json!({ "command": command, "service": ["dhcp4"], "arguments": arguments }));
        (0..40).for_each(|_| two.turn());
        two.hands[0].take_answer(call).expect("an answer")["arguments"].clone()
    };
    let begun = ask(&mut two, "aplomado-sync-begin", json!({}));
    assert_eq!(begun["post"], 0, "{begun}");
    for client in 1..4 {
        two.serve(0, client);
    }
    let last = two.sent(0, "aplomado-bulk-apply").last().expect("a command").arguments().clone();
    let changes = json!({ "session": begun["session"], "sequence": 1, "limit": 100 });
    let changes = ask(&mut two, "aplomado-sync-changes", changes);
    assert_eq!(changes["leases"].as_array().map(Vec::len), Some(3));
    let begun = ask(&mut two, "aplomado-sync-begin", json!({}));
    for told in [changes, begun] {
        assert_eq!((&told["post-session"], &told["post"]), (&last["post-session"], &last["post"]), "{told}");
    }
}

#[test]
fn that_one_client_has_no_lease_ends_no_other_ones() {
    // A page of a server that serves: somebody holds the address that a client of ours gave back later than that.
    let address = Ipv4Addr::new(192, 0, 3, 5);
    let mut hand = Hand::start(setting("one", "hot-standby", &json!({}), 1));
    let mut released = change(2, address, true, START_S + 5, (1, 1))["leases"][0].clone();
    released["force-create"] = json!(true);
    assert_eq!(hand.ask("lease4-update", &released, &mut |_| Reply::Later)["result"], 0);
    let mut played = Played::new();
    played.state = Some("partner-down");
    played.leases = vec![on_a_page(1, address)];
    hand.run_to("ready", &mut |sent| played.hear(sent));
    assert_eq!(held(&mut hand, address), Some(1));
    // Nor does it end one when it is brought.
    let mut bring = |client: u8| {
        let brought = change(client, address, true, START_S + 9, (1, 1));
        assert_eq!(hand.ask(GIVE, &brought, &mut |_| Reply::Later)["result"], 0);
        held(&mut hand, address)
    };
    assert_eq!((bring(2), bring(1)), (Some(1), None));
}

/// A server whose partner is about to be shut down.
fn in_place_of_the_partner() -> (Hand, Played) {
    let (mut hand, mut played) = normal("hot-standby", &json!({}), 1);
    hand.ask("ha-maintenance-start", &Value::Null, &mut |sent| played.hear(sent));
    played.state = Some("in-maintenance");
    hand.run_to("partner-in-maintenance", &mut |sent| played.hear(sent));
    (hand, played)
}

#[test]
fn a_partner_that_has_not_noticed_does_not_undo_what_this_server_did_alone() {
    for (mut hand, mut played) in [alone(), in_place_of_the_partner()] {
        let address = hand.serve(1, &mut |sent| played.hear(sent)).expect("it serves alone");
        let (_, cltt) = hand.holders()[&address];
        let mut hears = |client: u8, kind: &str, cltt: u64| {
            let mut post = change(client, address, kind == "released", cltt, (77, 1));
            if kind == "deleted" {
                post["leases"][0]["delete"] = json!(true);
            }
            let answer = hand.ask("aplomado-bulk-apply", &post, &mut |sent| played.hear(sent));
            let refused = answer["arguments"]["failed"].as_array().map_or(0, Vec::len);
            (refused, held(&mut hand, address))
        };
        assert_eq!(hears(1, "released", cltt), (0, Some(1)), "given again in the second of its release");
        assert_eq!(hears(1, "released", cltt - 20), (0, Some(1)), "released before");
        assert_eq!(hears(1, "deleted", cltt - 20), (0, Some(1)), "given up for another one before");
        assert_eq!(
            hears(2, "held", cltt - 20),
            (1, Some(1)),
            "its client does not hear that it has the address"
        );
        assert_eq!(hears(2, "deleted", cltt + 20), (0, Some(1)), "another client has given it up");
        assert_eq!(
            hears(2, "released", cltt + 20),
            (1, Some(1)),
            "that another client has it no more says nothing of this one"
        );
        assert_eq!(hears(1, "released", cltt + 20), (0, None), "released since");
        assert_eq!(
            hears(1, "held", cltt + 10),
            (1, None),
            "its client does not hear so: it has nothing here"
        );
        assert_eq!(hears(1, "held", cltt + 21), (0, Some(1)), "given since");
        assert_eq!(hears(1, "deleted", cltt + 21), (0, None), "given up since");
    }
    // Nor what it did alone in the life before.
    let (mut hand, _) = alone();
    let address = hand.serve(1, &mut |_| Reply::Silent).expect("it serves alone");
    let (_, cltt) = hand.holders()[&address];
    hand.kill();
    hand.restart();
    assert_eq!(hand.state(), "waiting");
    let late = change(1, address, true, cltt - 2, (77, 1));
    hand.ask("aplomado-bulk-apply", &late, &mut |_| Reply::Later);
    assert_eq!(held(&mut hand, address), Some(1));
    // Not of a server that waits for its partner.
    let (mut hand, mut played) = normal("hot-standby", &json!({}), 1);
    let address = hand.serve(1, &mut |sent| played.hear(sent)).expect("an address");
    let (_, cltt) = hand.holders()[&address];
    let late = change(1, address, true, cltt - 20, (77, 1));
    hand.ask("aplomado-bulk-apply", &late, &mut |sent| played.hear(sent));
    assert_eq!(held(&mut hand, address), None, "a clock was set");
}

#[test]
fn what_was_under_way_when_this_server_went_on_alone_is_copied() {
    for fails in [None, Some("communication-recovery"), Some("partner-down")] {
        let relationship = json!({ "delayed-updates-limit": 100, "max-unacked-clients": 0 });
        let (mut hand, mut played) = normal("load-balancing", &relationship, 1);
        let (client, offer) = (1..20)
            .find_map(|client| {
                let line = format!("discover mac={}", client_mac(client));
                Some((client, hand.exchange(&line, &mut |sent| played.hear(sent))?))
            })
            .expect("a client of this server");
        let line = format!(
            "request mac={} want={} sid={}",
            client_mac(client),
            offer.yiaddr(),
            hand.setting.address
        );
        let xid = hand.query(&line);
        // Its update is under way when the partner falls silent. Then the client is answered.
        played.state = None;
        let mut peer = |sent: &hand::Sent| match sent.command() {
            "lease4-update" if fails.is_some() => Reply::Later,
            "lease4-update" => ok(Value::Null),
            _ => played.hear(sent),
        };
        if let Some(state) = fails {
            hand.run_to(state, &mut peer);
            let is_update = |sent: &&hand::Sent| sent.command() == "lease4-update" && sent.to == 1;
            let place = hand.sent.iter().rfind(is_update).expect("an update").place;
            hand.answered(place, Reply::Silent);
        }
        hand.run_to("partner-down", &mut peer);
        assert_eq!(hand.take_reply(xid).expect("an answer").kind(), "ack");
        hears(&mut hand, &mut played, "ready");
        let (state, asked) = if fails.is_some() { ("partner-down", 1) } else { ("load-balancing", 0) };
        assert_eq!((hand.state(), resets(&hand)), (state, asked), "{fails:?}");
    }
}

#[test]
fn a_partner_that_did_not_say_what_it_can_do_is_asked_again() {
    let mut hand = Hand::start(setting("one", "hot-standby", &json!({}), 1));
    let mut played = Played::new();
    let mut asked = 0;
    let mut peer = |sent: &hand::Sent| match sent.command() {
        "list-commands" if sent.to == 1 => {
            asked += 1;
            match asked {
                1 => Reply::Silent,
                2 => Reply::Body(json!("nothing of that kind")),
                // As a control agent says whose server does not run.
                3 => Reply::Body(json!([{ "result": 1, "text": "unable to forward" }])),
                4 => Reply::Body(json!([{ "result": 0, "text": "no list" }])),
                _ => ok(json!([
                    "ha-heartbeat",
                    "ha-sync-complete-notify",
                    "aplomado-bulk-apply",
                    "aplomado-sync-begin"
                ])),
            }
        }
        "aplomado-sync-begin" => ok(json!({ "session": 5 })),
        "aplomado-sync-changes" => {
            ok(json!({ "deleted": [], "leases": [], "overflown": false, "remaining": 0 }))
        }
        _ => {
            // It copies itself at first.
            played.state = Some(if asked < 5 { "syncing" } else { "partner-down" });
            played.hear(sent)
        }
    };
    hand.run_to("ready", &mut peer);
    assert!(asked >= 5, "asked {asked} times");
    let began = hand.sent.iter().any(|sent| sent.command() == "aplomado-sync-begin");
    assert!(began, "it is known as what it is");
}

#[test]
fn commands_of_two_servers_that_were_started_at_one_time_are_told_apart() {
    let mut two = Two::start("load-balancing", &json!({}), 1);
    two.run_to(["load-balancing", "load-balancing"]);
    let sessions = |two: &Two, server| -> Vec<Value> {
        two.sent(server, "aplomado-bulk-apply")
            .iter()
            .map(|sent| sent.arguments()["post-session"].clone())
            .collect()
    };
    for client in 1..20 {
        for server in 0..2 {
            let offer = two.hands[server].query(&format!("discover mac={}", client_mac(client)));
            (0..12).for_each(|_| two.turn());
            if two.hands[server].take_reply(offer).is_some() {
                two.serve(server, client);
            }
        }
    }
    let [one, other] = [0, 1].map(|server| sessions(&two, server));
    assert!(!one.is_empty() && !other.is_empty());
    assert!(one.iter().all(|session| !other.contains(session)), "{one:?} and {other:?}");
}

#[test]
fn what_a_server_gave_before_it_was_restarted_is_not_in_the_copy_of_a_partner_that_stayed_ready() {
    for copies in [false, true] {
        let (mut hand, mut played) = alone();
        hand.serve(1, &mut |_| Reply::Silent).expect("it serves alone");
        hand.kill();
        hand.restart();
        let before = resets(&hand);
        hand.run_to("partner-down", &mut |sent| played.hear(sent));
        if copies {
            let notice = json!({ "server-name": "two", "origin-id": 2000, "origin": 2000 });
            hand.ask("ha-sync-complete-notify", &notice, &mut |sent| played.hear(sent));
        }
        played.state = Some("ready");
        hand.run_to("hot-standby", &mut |sent| played.hear(sent));
        assert_eq!(resets(&hand) - before, usize::from(!copies), "its copy may be older than the last lease");
    }
    // A server without leases has given none.
    let mut hand = Hand::start(setting("one", "hot-standby", &json!({}), 1));
    let mut played = Played::new();
    played.state = None;
    hand.run_to("partner-down", &mut |sent| played.hear(sent));
    hears(&mut hand, &mut played, "ready");
    assert_eq!(resets(&hand), 0);
}

#[test]
fn a_server_that_lost_its_leases_copies_them_from_a_partner_that_was_ready_before() {
    for loses in [true, false] {
        let (mut hand, mut played) = alone();
        hand.serve(1, &mut |_| Reply::Silent).expect("it serves alone");
        hand.kill();
        if loses {
            hand.disk = aplomado::store::CrashDisk::new();
        }
        hand.restart();
        hand.run_to("partner-down", &mut |sent| played.hear(sent));
        let pages = |hand: &Hand| hand.sent.iter().filter(|sent| sent.command() == "lease4-get-page").count();
        let before = pages(&hand);
        played.state = Some("ready");
        hand.run_until("an end", &mut |sent| played.hear(sent), |hand| {
            matches!(hand.state(), "hot-standby" | "ready")
        });
        assert_eq!(pages(&hand) > before, loses);
    }
    // Nothing is copied when the first server of a new pair has served alone, and the second one has copied from it.
    let mut hand = Hand::start(setting("one", "hot-standby", &json!({}), 1));
    let mut played = Played::new();
    played.state = None;
    hand.run_to("partner-down", &mut |sent| played.hear(sent));
    played.state = Some("syncing");
    let notice = json!({ "server-name": "two", "origin-id": 2000, "origin": 2000 });
    hand.ask("ha-sync-complete-notify", &notice, &mut |sent| played.hear(sent));
    hears(&mut hand, &mut played, "ready");
    assert_eq!(hand.state(), "hot-standby");
}

#[test]
fn a_change_that_was_under_way_before_a_copy_is_not_sent_again_after_it() {
    for copied in [true, false] {
        let (mut hand, mut played) = normal("hot-standby", &json!({}), 1);
        let mac = client_mac(1);
        let updates = |hand: &Hand| {
            hand.sent.iter().filter(|sent| sent.to == 1 && sent.command() == "lease4-update").count()
        };
        let mut never = |sent: &hand::Sent| if sent.to == 1 { Reply::Later } else { Reply::Silent };
        let offer = hand.exchange(&format!("discover mac={mac}"), &mut never).expect("an offer");
        let line = format!("request mac={mac} want={} sid={}", offer.yiaddr(), hand.setting.address);
        assert!(hand.exchange(&line, &mut never).is_none(), "it waits for the partner");
        assert_eq!(updates(&hand), 1);
        let place = hand
            .sent
            .iter()
            .rfind(|sent| sent.command() == "lease4-update" && sent.to == 1)
            .expect("one")
            .place;
        if copied {
            // The partner falls silent and copies all leases when it is back.
            played.state = None;
            hand.run_to("partner-down", &mut |sent| played.hear(sent));
            for state in ["waiting", "syncing"] {
                played.state = Some(state);
                (0..60).for_each(|_| {
                    hand.turn(&mut |sent| played.hear(sent));
                    hand.pass(50);
                });
            }
            let notice = json!({ "server-name": "two", "origin-id": 2000, "origin": 2000 });
            hand.ask("ha-sync-complete-notify", &notice, &mut |sent| played.hear(sent));
            played.state = Some("ready");
            hand.run_to("hot-standby", &mut |sent| played.hear(sent));
            played.state = Some("hot-standby");
        }
        let before = updates(&hand);
        hand.answered(place, Reply::Silent);
        (0..60).for_each(|_| {
            hand.turn(&mut |sent| played.hear(sent));
            hand.pass(50);
        });
        assert_eq!(updates(&hand) - before, usize::from(!copied), "it was copied: {copied}");
        assert_eq!(resets(&hand), 0, "nor is the partner made to copy again");
    }
}

#[test]
fn a_server_that_was_reset_copies_also_when_the_partner_has_copied_meanwhile() {
    // A Kea whose backlog overflowed resets this server: it has changes that it does not send again.
    let (mut hand, mut played) = normal("load-balancing", &json!({}), 1);
    played.state = None;
    assert_eq!(hand.ask("ha-reset", &Value::Null, &mut |sent| played.hear(sent))["result"], 0);
    hand.run_to("partner-down", &mut |sent| played.hear(sent));
    let notice = json!({ "server-name": "two", "origin-id": 2000, "origin": 2000 });
    hand.ask("ha-sync-complete-notify", &notice, &mut |sent| played.hear(sent));
    let pages = |hand: &Hand| hand.sent.iter().filter(|sent| sent.command() == "lease4-get-page").count();
    let before = pages(&hand);
    played.state = Some("ready");
    hand.run_until("an end", &mut |sent| played.hear(sent), |hand| {
        matches!(hand.state(), "load-balancing" | "ready")
    });
    assert!(pages(&hand) > before, "it goes on without what the partner has");
}

/// A server that stood still reads late that a client has given its address back. Its partner, alone meanwhile, has given the address to somebody
/// else, by the time on its clock before this one goes on.
#[test]
fn a_release_is_of_the_second_in_which_it_came_not_of_that_in_which_it_is_read() {
    // Of an old lease, and of one that was given in a second after that of the release, by a clock that went back since.
    for (shards, set_back_s) in [(1, 0), (2, 0), (1, 30)] {
        let (mut hand, mut played) = normal("hot-standby", &json!({}), shards);
        for client in 1..6 {
            let address = hand.serve(client, &mut |sent| played.hear(sent)).expect("an address");
            let given = hand.holders()[&address].1;
            hand.pass(10_000 - hand.ms % 1000 - 100);
            hand.skew_s = -set_back_s;
            hand.pass(0);
            let came = START_S.saturating_add_signed(hand.skew_s) + hand.ms / 1000;
            let line = format!(
                "release mac={} ciaddr={address} from={address} to=255.255.255.255",
                client_mac(client)
            );
            hand.query(&line);
            hand.pass(900);
            (0..12).for_each(|_| hand.turn(&mut |sent| played.hear(sent)));
            let lease = hand.server().lease(address).expect("a row");
            let lease = lease.view();
            assert_ne!(lease.state, LeaseState::Assigned);
            assert_eq!(lease.cltt, came.max(given));
            hand.skew_s = 0;
        }
    }
}
