//! Behaviours of the conformance list that need a whole server: what its clients get while its peers answer, refuse or are silent. The number
//! of each is in the name of its test. The server is turned by hand, its peers are played.

mod hand;

#[path = "ha_behaviours/queries.rs"]
mod queries;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::rc::Rc;

use aplomado::wire::drop::DropReason;
use hand::server::Setting;
use hand::{Hand, Played, Reply, START_S, Sent, client_mac, normal, normal_of, ok, result, setting};
use serde_json::{Value, json};

const SHARDS: [usize; 2] = [1, 2];

/// A server of a balanced pair, each of which has a pool for its clients. No backlog is kept.
fn balanced(name: &str, shards: usize) -> Setting {
    let mut setting = setting(name, "load-balancing", &json!({ "delayed-updates-limit": 0 }), shards);
    let mut text: Value = serde_json::from_str(&setting.text).expect("JSON");
    text["Dhcp4"]["subnet4"][0]["pools"] = json!([
        { "pool": "192.0.16.0 - 192.0.31.255", "client-class": "HA_one" },
        { "pool": "192.0.32.0 - 192.0.47.255", "client-class": "HA_two" }]);
    setting.text = text.to_string();
    setting
}

/// Whether an address is of the second server's pool (see [`balanced`]).
fn is_of_two(address: Ipv4Addr) -> bool {
    address >= Ipv4Addr::new(192, 0, 32, 0)
}

/// Updates that were sent to the peer at a position since `from`.
fn updates(hand: &Hand, from: usize, to: usize) -> Vec<(String, String)> {
    let sent = hand.sent[from..].iter().filter(|sent| sent.to == to && sent.command().starts_with("lease4-"));
    let address = |sent: &Sent| sent.arguments()["ip-address"].as_str().expect("an address").to_owned();
    sent.map(|sent| (sent.command().to_owned(), address(sent))).collect()
}

/// What the server says of its partner's state.
fn last_state(hand: &mut Hand) -> String {
    hand.servers()["remote"]["last-state"].as_str().expect("a state").to_owned()
}

fn turns(hand: &mut Hand, played: &mut Played, count: usize) {
    for _ in 0..count {
        hand.turn(&mut |sent| played.hear(sent));
    }
}

/// A client that has an offer asks for it; the number of its query.
fn request(hand: &mut Hand, played: &mut Played, client: u8) -> u32 {
    let mac = client_mac(client);
    let offer =
        hand.exchange(&format!("discover mac={mac}"), &mut |sent| played.hear(sent)).expect("an offer");
    let line = format!("request mac={mac} want={} sid={}", offer.yiaddr(), hand.setting.address);
    hand.query(&line)
}

#[test]
fn b52_each_of_65535_clients_is_of_one_server_and_of_the_class_of_that_server_at_both() {
    let mut hands = ["one", "two"].map(|name| Hand::start(balanced(name, 2)));
    for hand in &mut hands {
        let mut played = Played::new();
        played.state = Some("load-balancing");
        hand.run_to("load-balancing", &mut |sent| played.hear(sent));
    }
    let mut random = 1u64;
    let mut macs = BTreeSet::new();
    while macs.len() < 65_535 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let octets = random.to_be_bytes();
        macs.insert([2, octets[0], octets[1], octets[2], octets[3], octets[4]]);
    }
    // Which client was offered an address of which pool by which server.
    let offered = |hand: &mut Hand, answers: bool| {
        let mut pools = BTreeMap::new();
        for some in macs.iter().copied().collect::<Vec<_>>().chunks(32) {
            for mac in some {
                let text: Vec<String> = mac.iter().map(|octet| format!("{octet:02x}")).collect();
                hand.query(&format!("discover mac={}", text.join(":")));
            }
            for _ in 0..4 {
                hand.turn(&mut |_| if answers { ok(Value::Null) } else { Reply::Silent });
            }
            for offer in hand.replies.drain(..) {
                assert_eq!(offer.kind(), "offer");
                let mac: [u8; 6] = offer.fixed[28..34].try_into().expect("six");
                pools.insert(mac, is_of_two(offer.yiaddr()));
            }
        }
        pools
    };
    let [one, two] = &mut hands;
    let (first, second) = (offered(one, true), offered(two, true));
    assert_eq!(first.len() + second.len(), macs.len(), "each is answered by one");
    assert!(first.keys().all(|mac| !second.contains_key(mac)));
    assert!(
        first.len() > macs.len() / 4 && second.len() > macs.len() / 4,
        "{} and {}",
        first.len(),
        second.len()
    );
    assert!(first.values().all(|&of_two| !of_two) && second.values().all(|&of_two| of_two));
    // Each of them alone: the class stays that of the server whose client it is.
    for hand in [one, two] {
        hand.run_to("partner-down", &mut |_| Reply::Silent);
        let all = offered(hand, false);
        assert_eq!(all.len(), macs.len());
        assert!(all.iter().all(|(mac, &of_two)| of_two == second.contains_key(mac)));
    }
}

#[test]
fn b62_for_a_client_that_moves_the_partner_gets_a_del_and_then_an_update() {
    for shards in SHARDS {
        let (mut hand, mut played) = normal("hot-standby", &json!({}), shards);
        let had = hand.serve(1, &mut |sent| played.hear(sent)).expect("a lease");
        hand.reload_pool("192.0.20.1 - 192.0.20.254");
        let from = hand.sent.len();
        let given = hand.serve(1, &mut |sent| played.hear(sent)).expect("another one");
        turns(&mut hand, &mut played, 40);
        let told = hand.sent[from..].iter().filter(|sent| sent.to == 1 && sent.command() != "ha-heartbeat");
        let told: Vec<&Sent> = told.collect();
        let names: Vec<&str> = told.iter().map(|sent| sent.command()).collect();
        assert_eq!(names, ["lease4-del", "lease4-update"], "{told:?}");
        for (sent, address) in told.iter().zip([had, given]) {
            let arguments = sent.arguments();
            assert_eq!(arguments["ip-address"], address.to_string());
            assert_eq!(arguments["origin"], "ha-partner");
            assert!(arguments["expire"].is_u64() && arguments.get("cltt").is_none(), "{arguments}");
        }
        assert_eq!(told[0].arguments().get("force-create"), None);
        assert_eq!(told[1].arguments()["force-create"], true);
    }
}

#[test]
fn b64_a_client_is_answered_when_all_commands_to_the_partner_are_and_backups_are_told_and_not_awaited() {
    for shards in SHARDS {
        let (mut hand, mut played) = normal("hot-standby", &json!({}), shards);
        let had = hand.serve(1, &mut |sent| played.hear(sent)).expect("a lease");
        // Its address is in no pool any more: it gets another one, and the partner two commands.
        hand.reload_pool("192.0.20.1 - 192.0.20.254");
        let waiting: Rc<RefCell<Vec<usize>>> = Rc::default();
        let seen = Rc::clone(&waiting);
        played.updates = Box::new(move |sent| {
            seen.borrow_mut().push(sent.place);
            Reply::Later
        });
        played.backup = Box::new(|_| Reply::Later);
        let from = hand.sent.len();
        let xid = request(&mut hand, &mut played, 1);
        for answered in 0..2 {
            turns(&mut hand, &mut played, 30);
            assert!(hand.take_reply(xid).is_none(), "{answered} of two commands are answered");
            assert_eq!(hand.parked(), 1);
            let place = waiting.borrow_mut().remove(0);
            hand.answered(place, ok(Value::Null));
        }
        turns(&mut hand, &mut played, 30);
        let given = hand.take_reply(xid).expect("both are").yiaddr();
        assert!(given != had && hand.parked() == 0);
        let expected = [("lease4-del", had), ("lease4-update", given)]
            .map(|(name, address)| (name.to_owned(), address.to_string()));
        assert_eq!(updates(&hand, from, 1).into_iter().collect::<BTreeSet<_>>(), expected.clone().into());
        // The backup has not answered the first one, so that on its connection the second one may still wait.
        let told = updates(&hand, from, 2);
        assert!(!told.is_empty() && told.iter().all(|one| expected.contains(one)), "{told:?}");
    }
}

#[test]
fn b65_a_backup_that_is_offline_holds_nobody_up() {
    for shards in SHARDS {
        let (mut hand, mut played) = normal("hot-standby", &json!({}), shards);
        played.backup = Box::new(|_| Reply::Silent);
        assert!(hand.serve(1, &mut |sent| played.hear(sent)).is_some());
        assert_eq!(last_state(&mut hand), "hot-standby");
    }
}

#[test]
fn b65_a_partner_that_is_offline_or_refuses_is_unavailable_and_the_response_is_dropped() {
    type Answer = fn() -> Reply;
    let cases: [(&str, Answer); 3] = [
        ("offline", || Reply::Silent),
        ("result 1", || result(1, Value::Null)),
        ("401", || Reply::Body(json!({ "result": 401, "text": "Unauthorized" }))),
    ];
    for (case, answer) in cases {
        for shards in SHARDS {
            let (mut hand, mut played) = normal("hot-standby", &json!({}), shards);
            played.updates = Box::new(move |_| answer());
            let xid = request(&mut hand, &mut played, 1);
            turns(&mut hand, &mut played, 40);
            assert!(hand.take_reply(xid).is_none(), "{case}: answered");
            assert_eq!(hand.parked(), 0, "{case}: not dropped");
            assert_eq!(last_state(&mut hand), "unavailable", "{case}");
            // It is there again, and takes updates: the same query is answered, not from what is here but after the partner was asked.
            played.updates = Box::new(|_| ok(Value::Null));
            hand.run_until("contact", &mut |sent| played.hear(sent), |hand| {
                last_state(hand) == "hot-standby"
            });
            let from = hand.sent.len();
            assert!(hand.serve(1, &mut |sent| played.hear(sent)).is_some(), "{case}");
            assert_eq!(updates(&hand, from, 1).len(), 1, "{case}");
        }
    }
}

#[test]
fn b66_a_conflict_drops_the_response_and_counts_its_client_until_a_success() {
    let refused: Rc<RefCell<BTreeSet<String>>> = Rc::default();
    let list = Rc::clone(&refused);
    let refuse = move |sent: &Sent| {
        let mac = sent.arguments()["hw-address"].as_str().expect("an address").to_owned();
        if list.borrow().contains(&mac) { result(4, Value::Null) } else { ok(Value::Null) }
    };
    let (mut hand, mut played) = normal("hot-standby", &json!({ "max-rejected-lease-updates": 2 }), 1);
    played.updates = Box::new(refuse);
    let mut try_it = |hand: &mut Hand, client, refuses: bool| {
        let mac = client_mac(client);
        if refuses {
            refused.borrow_mut().insert(mac);
        } else {
            refused.borrow_mut().remove(&mac);
        }
        let xid = request(hand, &mut played, client);
        turns(hand, &mut played, 30);
        let answered = hand.take_reply(xid).is_some();
        let state = hand.state();
        (answered, state, last_state(hand))
    };
    let (normal, there) = ("hot-standby", "hot-standby".to_owned());
    // The same client twice: once counted.
    assert_eq!(try_it(&mut hand, 1, true), (false, normal, there.clone()));
    assert_eq!(try_it(&mut hand, 1, true), (false, normal, there.clone()));
    // It succeeds and is forgotten, so that the next one is the only one.
    assert_eq!(try_it(&mut hand, 1, false), (true, normal, there.clone()));
    assert_eq!(try_it(&mut hand, 2, true), (false, normal, there.clone()));
    // And another one is one too many.
    assert_eq!(try_it(&mut hand, 3, true), (false, "terminated", there));
}

#[test]
fn b68_a_success_that_names_failed_leases_answers_the_client() {
    let (mut hand, mut played) = normal("hot-standby", &json!({}), 2);
    played.updates = Box::new(|sent| {
        let failed =
            json!({ "ip-address": sent.arguments()["ip-address"], "result": 4, "error-message": "no" });
        ok(json!({ "failed-leases": [failed], "failed-deleted-leases": [failed] }))
    });
    assert!(hand.serve(1, &mut |sent| played.hear(sent)).is_some());
    assert_eq!(last_state(&mut hand), "hot-standby");
}

#[test]
fn b69_alone_nothing_is_sent_to_the_partner_each_transaction_counts_and_backups_are_told() {
    for shards in SHARDS {
        let (mut hand, mut played) = normal("hot-standby", &json!({}), shards);
        played.state = None;
        hand.run_to("partner-down", &mut |sent| played.hear(sent));
        let unsent = |hand: &mut Hand| {
            let answer = hand.ask("ha-heartbeat", &Value::Null, &mut |_| Reply::Later);
            answer["arguments"]["unsent-update-count"].as_u64().expect("a count")
        };
        let before = unsent(&mut hand);
        let from = hand.sent.len();
        let had = hand.serve(1, &mut |sent| played.hear(sent)).expect("served at once");
        assert_eq!(unsent(&mut hand), before + 1);
        // Two changes, one transaction.
        hand.reload_pool("192.0.20.1 - 192.0.20.254");
        let given = hand.serve(1, &mut |sent| played.hear(sent)).expect("served at once");
        assert_eq!(unsent(&mut hand), before + 2);
        turns(&mut hand, &mut played, 20);
        assert_eq!(updates(&hand, from, 1), [], "to the partner");
        let update = |address: Ipv4Addr| ("lease4-update".to_owned(), address.to_string());
        let expected =
            BTreeSet::from([update(had), ("lease4-del".to_owned(), had.to_string()), update(given)]);
        assert_eq!(updates(&hand, from, 2).into_iter().collect::<BTreeSet<_>>(), expected, "to the backup");
    }
}

#[test]
fn b73_a_backup_that_fails_drops_the_response_only_when_it_is_awaited() {
    type Answer = fn() -> Reply;
    let cases: [Answer; 3] = [|| Reply::Silent, || result(1, Value::Null), || result(4, Value::Null)];
    for awaited in [true, false] {
        for failure in cases {
            for failing in [1, 2] {
                let (mut hand, mut played) =
                    normal("passive-backup", &json!({ "wait-backup-ack": awaited }), 2);
                let mut peers = |sent: &Sent| {
                    let fails = sent.to == failing && sent.command().starts_with("lease4-");
                    if fails { failure() } else { ok(Value::Null) }
                };
                let offer = hand.exchange("discover mac=02:00:00:00:0c:01", &mut peers).expect("an offer");
                let line = format!("request mac=02:00:00:00:0c:01 want={} sid=192.0.2.1", offer.yiaddr());
                let from = hand.sent.len();
                assert_eq!(hand.exchange(&line, &mut peers).is_some(), !awaited, "backup {failing} fails");
                assert_eq!((updates(&hand, from, 1).len(), updates(&hand, from, 2).len()), (1, 1));
                assert_eq!(hand.parked(), 0);
                // Once it takes the update, so is the client answered.
                assert!(hand.serve(1, &mut |sent| played.hear(sent)).is_some());
            }
        }
    }
}

#[test]
fn b75_a_decline_is_one_update_in_state_1_and_nothing_waits() {
    for shards in SHARDS {
        let (mut hand, mut played) = normal("hot-standby", &json!({}), shards);
        let address = hand.serve(1, &mut |sent| played.hear(sent)).expect("a lease");
        played.updates = Box::new(|_| Reply::Later);
        let from = hand.sent.len();
        hand.query(&format!("decline mac={} want={address} sid=192.0.2.1", client_mac(1)));
        turns(&mut hand, &mut played, 20);
        assert_eq!(hand.parked(), 0);
        let sent: Vec<&Sent> = hand.sent[from..]
            .iter()
            .filter(|sent| sent.to == 1 && sent.command() != "ha-heartbeat")
            .collect();
        assert_eq!(sent.len(), 1, "{sent:?}");
        let arguments = sent[0].arguments();
        assert_eq!((sent[0].command(), &arguments["state"]), ("lease4-update", &json!(1)));
        assert_eq!(
            (&arguments["ip-address"], &arguments["hw-address"]),
            (&json!(address.to_string()), &json!(""))
        );
    }
}

/// A lease as pages show it.
fn shown(last: u8) -> Value {
    json!({ "cltt": START_S - 10, "fqdn-fwd": false, "fqdn-rev": false, "hostname": "", "hw-address": format!("02:00:00:00:09:{last:02x}"),
        "ip-address": format!("192.0.3.{last}"), "state": 0, "subnet-id": 1, "valid-lft": 4000 })
}

/// The commands of a copy that were sent, with what they say.
fn copying(hand: &Hand) -> Vec<(String, Value)> {
    let of_a_copy = ["dhcp-disable", "dhcp-enable", "lease4-get-page", "ha-sync-complete-notify"];
    let sent = hand.sent.iter().filter(|sent| of_a_copy.contains(&sent.command()));
    sent.map(|sent| {
        let mut arguments = sent.arguments().clone();
        arguments.as_object_mut().expect("a map").remove("server-name");
        (sent.command().to_owned(), arguments)
    })
    .collect()
}

#[test]
fn b84_ha_sync_of_a_backup_sends_what_syncing_sends_and_to_nobody_when_there_is_no_such_source() {
    let paged = json!({ "sync-page-limit": 2, "sync-timeout": 30_000 });
    let script = || {
        let mut played = Played::new();
        played.leases = vec![shown(1), shown(2)];
        played
    };
    // Pages until one is short: the second is.
    fn hear(played: &mut Played, sent: &Sent) -> Reply {
        if sent.command() == "lease4-get-page" && sent.arguments()["from"] != "start" {
            played.leases.clear();
        }
        // Whoever is asked here is the source.
        played.hear(&Sent { to: 1, ..sent.clone() })
    }
    let mut standby = Hand::start(setting("two", "hot-standby", &paged, 2));
    let mut played = script();
    played.state = Some("partner-down");
    standby.run_to("ready", &mut |sent| hear(&mut played, sent));
    let expected = copying(&standby);
    let names: Vec<&str> = expected.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(
        names,
        ["dhcp-disable", "lease4-get-page", "dhcp-disable", "lease4-get-page", "ha-sync-complete-notify"]
    );

    let mut backup = Hand::start(setting("two", "passive-backup", &paged, 2));
    let mut played = script();
    backup.run_to("backup", &mut |sent| hear(&mut played, sent));
    for source in ["two", "nobody", ""] {
        let asked = json!({ "server-name": source, "max-period": 30 });
        assert_eq!(
            backup.ask("ha-sync", &asked, &mut |sent| hear(&mut played, sent))["result"],
            1,
            "{source}"
        );
        assert!(backup.sent.is_empty(), "{source}: {:?}", backup.sent);
    }
    let asked = json!({ "server-name": "one", "max-period": 30 });
    let answer = backup.ask("ha-sync", &asked, &mut |sent| hear(&mut played, sent));
    assert_eq!((&answer["result"], backup.state()), (&json!(0), "backup"), "{answer}");
    assert_eq!(copying(&backup), expected);
    assert!(backup.sent.iter().all(|sent| sent.to == 0), "only the source is asked");
    assert_eq!(backup.holders().len(), 2);
    assert_eq!(backup.holders(), standby.holders());
}

#[test]
fn b85_pages_are_exclusive_ascending_and_hold_all_states() {
    for shards in SHARDS {
        let mut hand = Hand::start(setting("two", "hot-standby", &json!({}), shards));
        let page = |hand: &mut Hand, from: Value, limit: Value| {
            hand.ask("lease4-get-page", &json!({ "from": from, "limit": limit }), &mut |_| Reply::Later)
        };
        let addresses = |answer: &Value| -> Vec<String> {
            let list = answer["arguments"]["leases"].as_array().expect("a list");
            list.iter().map(|lease| lease["ip-address"].as_str().expect("an address").to_owned()).collect()
        };
        let empty = page(&mut hand, json!("start"), json!(10));
        assert_eq!((&empty["result"], &empty["arguments"]["leases"]), (&json!(3), &json!([])));
        // Of all states, two of them long over, in no order.
        for (last, state) in [(200, 0), (7, 1), (30, 2), (9, 3), (100, 0)] {
            let mut lease = shown(last);
            let map = lease.as_object_mut().expect("a map");
            map.remove("cltt");
            map.insert("state".to_owned(), json!(state));
            map.insert("force-create".to_owned(), json!(true));
            map.insert("expire".to_owned(), json!(if last == 100 { START_S - 5000 } else { START_S + 4000 }));
            let answer = hand.ask("lease4-update", &lease, &mut |_| Reply::Later);
            assert_eq!(answer["result"], 0, "{answer}");
        }
        let all = ["192.0.3.7", "192.0.3.9", "192.0.3.30", "192.0.3.100", "192.0.3.200"];
        let first = page(&mut hand, json!("start"), json!(10));
        assert_eq!(addresses(&first), all);
        let states: Vec<&Value> = first["arguments"]["leases"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|lease| &lease["state"])
            .collect();
        assert_eq!(states, [1, 3, 2, 0, 0]);
        assert_eq!(page(&mut hand, json!("0.0.0.0"), json!(10)), first);
        assert_eq!(addresses(&page(&mut hand, json!("start"), json!(2))), all[..2]);
        assert_eq!(
            addresses(&page(&mut hand, json!("192.0.3.9"), json!(2))),
            all[2..4],
            "without that address"
        );
        assert_eq!(
            addresses(&page(&mut hand, json!("192.0.3.10"), json!(9))),
            all[2..],
            "of which there is none"
        );
        let last = page(&mut hand, json!("192.0.3.200"), json!(9));
        assert_eq!((&last["result"], &last["arguments"]["leases"]), (&json!(3), &json!([])));
        for (from, limit) in [
            (json!("2001:db8::1"), json!(5)),
            (json!("::"), json!(5)),
            (json!("start"), json!(0)),
            (json!("start"), json!(-1)),
            (json!("start"), json!(4_294_967_296_u64)),
            (json!("start"), json!("5")),
            (json!(3), json!(5)),
            (json!("begin"), json!(5)),
        ] {
            let answer = page(&mut hand, from.clone(), limit.clone());
            assert_eq!(answer["result"], 1, "from {from}, limit {limit}: {answer}");
        }
    }
}

/// The backlog waits behind a command that the partner does not answer; meanwhile it is given up, and the pair is normal again by a copy.
#[test]
fn a_change_of_a_backlog_that_was_given_up_is_not_sent_late() {
    let (mut hand, mut played) = normal("load-balancing", &json!({ "max-unacked-clients": 10 }), 1);
    let client = (1..50)
        .find(|&client| {
            hand.exchange(&format!("discover mac={}", client_mac(client)), &mut |_| ok(Value::Null)).is_some()
        })
        .expect("a client of the primary's half");
    let peer = |hand: &mut Hand, played: &mut Played, what: &str, state: &str| {
        hand.run_until(what, &mut |sent| played.hear(sent), |hand| hand.state() == state);
    };
    played.state = None;
    peer(&mut hand, &mut played, "silence", "communication-recovery");
    let address = hand.serve(client, &mut |_| Reply::Silent).expect("it serves its half");
    // It is heard again. What it can do is asked first, and not answered.
    played.state = Some("load-balancing");
    hand.pass(1000);
    for _ in 0..30 {
        hand.turn(&mut |sent| {
            if sent.command() == "list-commands" { Reply::Later } else { played.hear(sent) }
        });
    }
    let place = hand.sent.iter().rfind(|sent| sent.command() == "list-commands").expect("asked").place;
    assert_eq!(hand.state(), "communication-recovery", "the backlog waits");
    // The partner served alone, and has copied.
    played.state = Some("partner-down");
    peer(&mut hand, &mut played, "a copy", "ready");
    played.state = Some("load-balancing");
    peer(&mut hand, &mut played, "the normal state", "load-balancing");
    hand.pass(5000);
    let line =
        format!("request mac={} ciaddr={address} from={address} to=255.255.255.255", client_mac(client));
    let from = hand.sent.len();
    assert!(hand.exchange(&line, &mut |sent| played.hear(sent)).is_some());
    assert_eq!(updates(&hand, from, 1), [("lease4-update".to_owned(), address.to_string())]);
    // Now that command is answered at last.
    hand.answered(place, ok(json!(["ha-heartbeat", "ha-sync-complete-notify"])));
    turns(&mut hand, &mut played, 40);
    assert_eq!(updates(&hand, from, 1).len(), 1, "{:?}", updates(&hand, from, 1));
}

#[test]
fn no_more_replies_wait_for_the_partner_than_may_and_who_finds_no_room_is_served_when_it_asks_again() {
    // The limit is the server's, shared out to its shards.
    for (shards, limit, waiting) in [(1, 3, 3..=3), (2, 4, 2..=4), (1, 0, 12..=12)] {
        let mut setting = setting("one", "hot-standby", &json!({}), shards);
        let mut text: Value = serde_json::from_str(&setting.text).expect("JSON");
        text["Dhcp4"]["parked-packet-limit"] = json!(limit);
        setting.text = text.to_string();
        let (mut hand, mut played) = normal_of(setting, "hot-standby");
        let places: Rc<RefCell<Vec<usize>>> = Rc::default();
        let seen = Rc::clone(&places);
        played.updates = Box::new(move |sent| {
            seen.borrow_mut().push(sent.place);
            Reply::Later
        });
        let queries: Vec<u32> = (1..=12).map(|client| request(&mut hand, &mut played, client)).collect();
        turns(&mut hand, &mut played, 20);
        assert!(waiting.contains(&hand.parked()), "{} replies wait", hand.parked());
        assert!(queries.iter().all(|&xid| hand.take_reply(xid).is_none()));
        let full = DropReason::ParkFull;
        let dropped: u64 =
            hand.server().desk.engine.shards.iter().map(|shard| shard.counters.drop_count(full)).sum();
        assert_eq!(dropped, 12 - hand.parked() as u64);
        // The partner answers at last, and from now on at once.
        played.updates = Box::new(|_| ok(Value::Null));
        let parked = hand.parked();
        for place in places.borrow_mut().drain(..) {
            hand.answered(place, ok(Value::Null));
        }
        turns(&mut hand, &mut played, 40);
        assert_eq!(queries.iter().filter(|&&xid| hand.take_reply(xid).is_some()).count(), parked);
        for client in 1..=12 {
            assert!(hand.serve(client, &mut |sent| played.hear(sent)).is_some(), "client {client}");
        }
    }
}
