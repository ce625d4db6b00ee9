//! Behaviours 53, 54, 60 and 61: whose a query is, and what is nobody's.

use std::collections::BTreeSet;

use aplomado::classify::bucket::bucket;
use aplomado::lease::LeaseState;
use serde_json::{Value, json};

use crate::hand::packet::{Answer, hex};
use crate::hand::{Hand, Played, Reply, Sent, ok, setting};
use crate::{SHARDS, balanced, is_of_two, turns};

/// What a statistic of the whole server counts.
fn counted(hand: &mut Hand, name: &str) -> u64 {
    let answer = hand.ask("statistic-get", &json!({ "name": name }), &mut |_| Reply::Later);
    answer["arguments"][name][0][0].as_u64().unwrap_or_else(|| panic!("{name}: {answer}"))
}

/// A server of a balanced pair in a state that it does not leave.
fn in_state(name: &str, shards: usize, state: &str) -> (Hand, Played) {
    let mut hand = Hand::start(balanced(name, shards));
    let mut played = Played::new();
    played.state = Some("load-balancing");
    hand.run_to("load-balancing", &mut |sent| played.hear(sent));
    move_to(&mut hand, &mut played, state);
    (hand, played)
}

fn move_to(hand: &mut Hand, played: &mut Played, state: &str) {
    match state {
        "partner-down" => played.state = None,
        "terminated" => (played.state, played.ahead_s) = (Some("load-balancing"), 70),
        _ => {}
    }
    hand.run_to(state, &mut |sent| played.hear(sent));
}

#[test]
fn b53_a_client_and_its_lease_are_of_the_server_of_its_identifier_whatever_its_address() {
    const CLIENTS: u8 = 40;
    let mac = |client: u8| format!("02:00:00:00:0d:{client:02x}");
    let identifier = |client: u8| [1, 7, client, 77];
    let who = |client: u8| {
        let [a, b, c, d] = identifier(client);
        format!("mac={} cid=0x{a:02x}{b:02x}{c:02x}{d:02x}", mac(client))
    };
    let halves = [0, 1].map(|half| -> BTreeSet<u8> {
        (0..CLIENTS).filter(|&client| bucket(&identifier(client)) % 2 == half).collect()
    });
    for half in &halves {
        let elsewhere = |client: &u8| bucket(&hex(&mac(*client))) % 2 != bucket(&identifier(*client)) % 2;
        assert!(half.iter().filter(|client| elsewhere(client)).count() > 5, "the address tells otherwise");
    }
    for shards in SHARDS {
        for (half, name) in ["one", "two"].into_iter().enumerate() {
            let (mut hand, mut played) = in_state(name, shards, "load-balancing");
            let offered = |hand: &mut Hand, played: &mut Played| -> Vec<(u8, Answer)> {
                let ask = |client| {
                    let line = format!("discover {}", who(client));
                    Some((client, hand.exchange(&line, &mut |sent| played.hear(sent))?))
                };
                (0..CLIENTS).filter_map(ask).collect()
            };
            let all = offered(&mut hand, &mut played);
            assert_eq!(
                all.iter().map(|(client, _)| *client).collect::<BTreeSet<_>>(),
                halves[half],
                "{name}"
            );
            // It serves all of them, each by the class of the server whose it is.
            move_to(&mut hand, &mut played, "partner-down");
            for (client, offer) in offered(&mut hand, &mut played) {
                assert_eq!(is_of_two(offer.yiaddr()), halves[1].contains(&client), "client {client}");
                let line =
                    format!("request {} want={} sid={}", who(client), offer.yiaddr(), hand.setting.address);
                let ack = hand.exchange(&line, &mut |sent| played.hear(sent)).expect("an answer");
                assert_eq!(ack.kind(), "ack");
            }
            assert_eq!(hand.holders().len(), usize::from(CLIENTS));
            // In a pair that has ended it reclaims the leases of its own clients, and no others.
            move_to(&mut hand, &mut played, "terminated");
            hand.pass(4_100_000);
            for _ in 0..60 {
                turns(&mut hand, &mut played, 2);
                hand.pass(1000);
            }
            let over: BTreeSet<u8> = hand
                .server()
                .leases()
                .values()
                .filter(|lease| lease.view().state == LeaseState::Reclaimed)
                .map(|lease| lease.view().client_id[2])
                .collect();
            assert_eq!(over, halves[half], "{name}");
        }
    }
}

#[test]
fn b54_a_discover_without_identifier_and_address_is_dropped_by_both_in_every_state() {
    for shards in SHARDS {
        for state in ["load-balancing", "partner-down", "terminated"] {
            let mut answered = 0;
            for name in ["one", "two"] {
                let (mut hand, mut played) = in_state(name, shards, state);
                let counts = |hand: &mut Hand| {
                    ["pkt4-not-for-us", "pkt4-receive-drop"].map(|name| counted(hand, name))
                };
                let before = counts(&mut hand);
                let reply = hand.exchange("discover chaddr=-", &mut |sent| played.hear(sent));
                assert_eq!(reply, None, "{name} in {state}");
                assert_eq!(counts(&mut hand), before.map(|count| count + 1), "{name} in {state}");
                // An identifier alone is enough.
                let reply = hand.exchange("discover chaddr=- cid=0x00616263", &mut |sent| played.hear(sent));
                answered += usize::from(reply.is_some());
            }
            assert_eq!(answered, if state == "partner-down" { 2 } else { 1 }, "{state}");
        }
    }
}

/// A client of the first server, or of the second.
fn client_of(half: u8) -> String {
    let mac = |client: u8| format!("02:00:00:00:0c:{client:02x}");
    (0..=255).map(mac).find(|mac| bucket(&hex(mac)) % 2 == half).expect("half of them are")
}

#[test]
fn b60_what_cannot_be_parsed_is_dropped_before_anybody_asks_whose_it_is() {
    for shards in SHARDS {
        let setting = setting("one", "load-balancing", &json!({ "max-unacked-clients": 100 }), shards);
        let mut hand = Hand::start(setting);
        let mut played = Played::new();
        played.state = Some("load-balancing");
        hand.run_to("load-balancing", &mut |sent| played.hear(sent));
        played.state = None;
        // Now the clients of the other server are looked at.
        let interrupted =
            |hand: &mut Hand| hand.servers()["remote"]["communication-interrupted"] == json!(true);
        hand.run_until("interruption", &mut |sent| played.hear(sent), interrupted);
        let counts = |hand: &mut Hand| {
            let looked_at = hand.servers()["remote"]["analyzed-packets"].as_u64().expect("a count");
            let [failed, dropped, others] =
                ["pkt4-parse-failed", "pkt4-receive-drop", "pkt4-not-for-us"].map(|name| counted(hand, name));
            [failed, dropped, others, looked_at]
        };
        let mut count_one = |hand: &mut Hand, line: &str| {
            let before = counts(hand);
            let reply = hand.exchange(line, &mut |sent| played.hear(sent));
            let after = counts(hand);
            (reply.is_some(), [0, 1, 2, 3].map(|place| after[place] - before[place]))
        };
        let [own, other] = [0, 1].map(client_of);
        assert_eq!(count_one(&mut hand, &format!("discover mac={own} secs=9")), (true, [0, 0, 0, 0]));
        assert_eq!(count_one(&mut hand, &format!("discover mac={other} secs=9")), (false, [0, 1, 1, 1]));
        for broken in [
            "cut=236",
            "cut=239",
            "cookie=0x63825364",
            "hlen=21",
            "opt50=0x010203",
            "opt54=0x01",
            "opt81=0x00",
        ] {
            for mac in [&own, &other] {
                let line = format!("discover mac={mac} secs=9 {broken}");
                assert_eq!(count_one(&mut hand, &line), (false, [1, 1, 0, 0]), "{line}");
            }
        }
    }
}

#[test]
fn b60_a_discover_with_a_cut_vendor_option_is_kept_and_classified() {
    for shards in SHARDS {
        let (mut hand, mut played) = in_state("one", shards, "partner-down");
        let failed = counted(&mut hand, "pkt4-parse-failed");
        for half in [0, 1] {
            for vendor in ["opt125=0x0000000909ff", "opt124=0x0000000909ff", "opt43=0x01ff"] {
                let line = format!("discover mac={} {vendor}", client_of(half));
                let offer = hand.exchange(&line, &mut |sent| played.hear(sent)).expect(&line);
                assert_eq!(offer.kind(), "offer");
                assert_eq!(is_of_two(offer.yiaddr()), half == 1, "{line}");
            }
        }
        assert_eq!(counted(&mut hand, "pkt4-parse-failed"), failed);
    }
}

/// A server that stands by for two others, `a` and `c`. Its subnets are 10.N.0.0/16 with N as identifier.
fn hub(shards: usize) -> Hand {
    let relationship = |this: &str, primary: &str, number: u8| {
        json!({ "this-server-name": this, "mode": "hot-standby", "heartbeat-delay": 1000, "max-response-delay": 4000,
            "max-unacked-clients": 0, "peers": [
                { "name": primary, "url": format!("http://192.0.2.9:800{number}/"), "role": "primary" },
                { "name": this, "url": format!("http://192.0.2.1:800{number}/"), "role": "standby" } ] })
    };
    let subnet = |id: u8, context: Value| {
        let mut map = json!({ "id": id, "subnet": format!("10.{id}.0.0/16"),
            "pools": [{ "pool": format!("10.{id}.0.10 - 10.{id}.0.99") }] });
        if !context.is_null() {
            map["user-context"] = context;
        }
        map
    };
    let named = |name: Value| json!({ "ha-server-name": name });
    let network = |name: &str, context: Value, subnets: Value| json!({ "name": name, "user-context": context, "subnet4": subnets });
    let mut setting = setting("one", "hot-standby", &json!({}), shards);
    let mut text: Value = serde_json::from_str(&setting.text).expect("JSON");
    let four = &mut text["Dhcp4"];
    four["hooks-libraries"][1]["parameters"]["high-availability"] =
        json!([relationship("b", "a", 1), relationship("d", "c", 2)]);
    four["subnet4"] = json!([
        subnet(1, named(json!("a"))),
        subnet(2, named(json!("b"))),
        subnet(3, named(json!("c"))),
        subnet(4, Value::Null),
        subnet(5, json!({ "note": "no name" })),
        subnet(6, named(json!(7))),
        subnet(7, named(json!(["a"]))),
        subnet(8, named(json!(""))),
        subnet(9, named(json!("nobody"))),
    ]);
    four["shared-networks"] = json!([
        network("of-a", named(json!("a")), json!([subnet(21, Value::Null)])),
        network("of-a-too", named(json!("a")), json!([subnet(22, json!({ "note": "none" }))])),
        network("of-a-but-one", named(json!("a")), json!([subnet(23, named(json!("c")))])),
        network("of-c", named(json!("c")), json!([subnet(24, Value::Null)])),
        network("of-c-but-one", named(json!("c")), json!([subnet(25, named(json!("a")))])),
        network("of-no-text", named(json!(7)), json!([subnet(26, Value::Null)])),
        network("of-none", json!({}), json!([subnet(27, Value::Null)])),
        network("of-a-but-a-number", named(json!("a")), json!([subnet(28, named(json!(7)))])),
        network("of-a-but-nothing", named(json!("a")), json!([subnet(29, named(json!("")))])),
    ]);
    setting.text = text.to_string();
    Hand::start(setting)
}

#[test]
fn b61_a_hub_drops_what_no_name_leads_to_a_relationship_that_serves() {
    for shards in SHARDS {
        let mut hand = hub(shards);
        // `a` dies; `c` serves its clients itself.
        let first = hand.server().connections.len() / 2;
        let mut played = Played::new();
        let mut peers = |sent: &Sent| {
            played.state = (sent.place >= first).then_some("hot-standby");
            if sent.command() == "lease4-update" {
                ok(Value::Null)
            } else {
                played.hear(&Sent { to: 1, ..sent.clone() })
            }
        };
        hand.run_until("both states", &mut peers, |hand| {
            let now = hand.clock.now();
            let status = hand.server().desk.ha.as_ref().and_then(|ha| ha.status(now)).expect("a pair");
            let state = |index: usize| status[index]["ha-servers"]["local"]["state"].clone();
            [state(0), state(1)] == ["partner-down", "hot-standby"]
        });
        let mut ask = |kind: &str, id: u8| {
            let before = ["pkt4-not-for-us", "pkt4-receive-drop"].map(|name| counted(&mut hand, name));
            let line = format!("{kind} mac=02:00:00:00:00:{id:02x} giaddr=10.{id}.0.1 to=255.255.255.255");
            let reply = hand.exchange(&line, &mut peers);
            let after = ["pkt4-not-for-us", "pkt4-receive-drop"].map(|name| counted(&mut hand, name));
            match reply {
                Some(reply) => {
                    assert_eq!((reply.kind(), after), ("offer".to_owned(), before), "{line}");
                    assert_eq!(reply.yiaddr().octets()[1], id);
                    true
                }
                None => {
                    assert_eq!(after, before.map(|count| count + 1), "{line}");
                    false
                }
            }
        };
        for (id, is_served, why) in [
            (1, true, "the name of the primary"),
            (2, true, "its own name there"),
            (3, false, "a relationship that serves nothing"),
            (4, false, "no context"),
            (5, false, "no name"),
            (6, false, "a number"),
            (7, false, "a list"),
            (8, false, "an empty name"),
            (9, false, "nobody's name"),
            (10, false, "no subnet"),
            (21, true, "the name of its network"),
            (22, true, "the name of its network, beside a context without"),
            (23, false, "its own name before that of its network, which is served"),
            (24, false, "its network's, which is not served"),
            (25, true, "its own name before that of its network, which is not served"),
            (26, false, "a number as that of its network"),
            (27, false, "no name in its network"),
            (28, false, "a number before the name of its network"),
            (29, false, "an empty name before that of its network"),
        ] {
            assert_eq!(ask("discover", id), is_served, "subnet {id}: {why}");
        }
        assert!(!ask("request want=10.6.0.10", 6) && !ask("request want=10.24.0.10", 24));
    }
}
