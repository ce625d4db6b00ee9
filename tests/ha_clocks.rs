//! Clocks that jump while a pair is at work: what is told, when the pair ends, and that leases stay what their clients were promised. Whole
//! servers, turned by hand; the time that passes is one, the time of day is each server's own.

mod hand;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use hand::{Reply, Sent, Two, client_mac};
use serde_json::{Value, json};

const MODES: [&str; 2] = ["hot-standby", "load-balancing"];
/// The longest that clients are promised an address.
const LIFETIME_S: u64 = 4000;

/// Of which server, which address, for how long.
type Given = (usize, Ipv4Addr, u64);

/// A pair in its normal state.
fn normal(mode: &str, shards: usize) -> Two {
    let mut two = Two::start(mode, &json!({}), shards);
    two.run_to([mode, mode]);
    two
}

/// The wall clock of a server is set.
fn step(two: &mut Two, server: usize, by_s: i64) {
    two.hands[server].skew_s += by_s;
    two.pass(0);
}

fn wall_s(two: &Two, server: usize) -> u64 {
    two.hands[server].clock.now().wall_s
}

/// A query to both servers, as clients send theirs: who answers, and what.
fn ask(two: &mut Two, line: &str) -> Option<(usize, hand::packet::Answer)> {
    let asked = [0, 1].map(|server| two.hands[server].query(line));
    (0..24).for_each(|_| two.turn());
    let mut answers = asked.iter().zip(&mut two.hands).map(|(xid, hand)| hand.take_reply(*xid)).enumerate();
    answers.find_map(|(server, answer)| Some((server, answer?)))
}

/// The answer to a REQUEST is an ACK that promises what the server has stored.
fn kept(two: &mut Two, line: &str) -> Given {
    let (server, ack) = ask(two, line).unwrap_or_else(|| panic!("{line}: no answer"));
    assert_eq!(ack.kind(), "ack", "{line}");
    let promised = ack.option(51).expect("a lease time");
    let promised_s = u64::from(u32::from_be_bytes(promised.try_into().expect("four octets")));
    assert!(promised_s <= LIFETIME_S, "{line}: {promised_s} s");
    let (address, now_s) = (ack.yiaddr(), wall_s(two, server));
    let stored = two.hands[server].server().lease(address).expect("it is stored");
    assert_eq!(stored.view().expire(), now_s + promised_s, "{line}: what is stored is what is promised");
    (server, address, promised_s)
}

fn give(two: &mut Two, client: u8) -> Given {
    let mac = client_mac(client);
    let (server, offer) = ask(two, &format!("discover mac={mac}")).expect("an offer");
    let own = two.hands[server].setting.address;
    kept(two, &format!("request mac={mac} want={} sid={own}", offer.yiaddr()))
}

fn renew(two: &mut Two, client: u8, address: Ipv4Addr) -> Given {
    let mac = client_mac(client);
    kept(two, &format!("request mac={mac} ciaddr={address} from={address} to=255.255.255.255"))
}

fn give_all(two: &mut Two, clients: std::ops::Range<u8>) -> BTreeMap<u8, Ipv4Addr> {
    clients.map(|client| (client, give(two, client).1)).collect()
}

/// Each of these clients is the holder of its address at both servers.
fn assert_held(two: &mut Two, clients: &BTreeMap<u8, Ipv4Addr>, what: &str) {
    for server in 0..2 {
        let holders = two.hands[server].holders();
        for (client, address) in clients {
            let holder = holders.get(address).map(|(holder, _)| *holder);
            assert_eq!(holder, Some(*client), "{what}: {address} at server {server}");
        }
    }
}

fn states(two: &Two) -> [&'static str; 2] {
    [0, 1].map(|server| two.hands[server].state())
}

/// By how much the partner's clock is ahead of a server's, as it says.
fn skew(two: &mut Two, server: usize) -> Value {
    let status = order(two, server, "status-get", &Value::Null);
    status["arguments"]["high-availability"][0]["ha-servers"]["remote"]["clock-skew"].clone()
}

/// A command to one of them, and its answer.
fn order(two: &mut Two, server: usize, command: &str, arguments: &Value) -> Value {
    let mut body = json!({ "command": command, "service": ["dhcp4"] });
    if !arguments.is_null() {
        body["arguments"] = arguments.clone();
    }
    let call = two.hands[server].command(&body);
    let mut answer = Value::Null;
    two.run_until("answer", |two| {
        two.hands[server].take_answer(call).is_some_and(|taken| {
            answer = taken;
            true
        })
    });
    assert_eq!(answer["result"], 0, "{answer}");
    answer
}

/// As many heartbeats as before, give or take the one at either end.
fn assert_as_before(found: [usize; 2], before: [usize; 2], what: &str) {
    assert!(
        (0..2).all(|server| found[server].abs_diff(before[server]) <= 1),
        "{what}: {found:?}, {before:?} before"
    );
}

/// Time passes; how many heartbeats each has sent meanwhile.
fn heartbeats(two: &mut Two, seconds: u64) -> [usize; 2] {
    let before = [0, 1].map(|server| two.sent(server, "ha-heartbeat").len());
    for _ in 0..seconds * 10 {
        (0..6).for_each(|_| two.turn());
        two.pass(100);
    }
    [0, 1].map(|server| two.sent(server, "ha-heartbeat").len() - before[server])
}

fn updates(two: &Two) -> usize {
    let of = |server, command| two.sent(server, command).iter().filter(|sent| sent.to == 1 - server).count();
    (0..2).map(|server| of(server, "aplomado-bulk-apply") + of(server, "lease4-update")).sum()
}

#[test]
fn clocks_up_to_a_minute_apart_are_told_and_end_nothing() {
    for (mode, shards) in MODES.into_iter().flat_map(|mode| [(mode, 1), (mode, 2)]) {
        for (server, by_s) in [(0, 31), (0, -60), (1, 60), (1, -31)] {
            let what = format!("{mode}, server {server} by {by_s} s");
            let mut two = normal(mode, shards);
            let clients = give_all(&mut two, 1..9);
            let pace = heartbeats(&mut two, 20);
            assert!(pace.iter().all(|&count| count > 10), "{what}: {pace:?}");
            step(&mut two, server, by_s);
            assert_as_before(heartbeats(&mut two, 20), pace, &what);
            assert_eq!(states(&two), [mode, mode], "{what}");
            assert_eq!(
                [skew(&mut two, 1 - server), skew(&mut two, server)],
                [json!(by_s), json!(-by_s)],
                "{what}"
            );
            for (client, address) in &clients {
                assert_eq!(renew(&mut two, *client, *address).1, *address, "{what}");
            }
            let more = give_all(&mut two, 20..24);
            assert_held(&mut two, &clients, &what);
            assert_held(&mut two, &more, &what);
            step(&mut two, server, -by_s);
            assert_as_before(heartbeats(&mut two, 20), pace, &what);
            assert_eq!(states(&two), [mode, mode], "{what}");
            assert_eq!([skew(&mut two, 0), skew(&mut two, 1)], [json!(0), json!(0)], "{what}");
            for (client, address) in clients.iter().chain(&more) {
                renew(&mut two, *client, *address);
            }
            let [one, other] = [0, 1].map(|server| two.hands[server].holders());
            assert_eq!(
                one, other,
                "{what}: each renewal is at both, also of a lease that the clock had put ahead"
            );
        }
    }
}

#[test]
fn clocks_two_minutes_apart_end_the_pair_until_they_are_set_and_it_is_reset() {
    for (mode, shards) in MODES.into_iter().flat_map(|mode| [(mode, 1), (mode, 2)]) {
        for (server, by_s) in [(0, 120), (0, -120), (1, 120), (1, -120)] {
            let what = format!("{mode}, server {server} by {by_s} s");
            let mut two = normal(mode, shards);
            let clients = give_all(&mut two, 1..9);
            step(&mut two, server, by_s);
            two.run_to(["terminated", "terminated"]);
            assert_held(&mut two, &clients, &what);
            assert_eq!(heartbeats(&mut two, 30), [0, 0], "{what}: they say nothing to each other");
            // Each goes on with the clients of its own scope, and tells nobody.
            let told = updates(&two);
            let mut servers: Vec<usize> =
                clients.iter().map(|(client, address)| renew(&mut two, *client, *address).0).collect();
            let more: Vec<Given> = (20..30).map(|client| give(&mut two, client)).collect();
            servers.extend(more.iter().map(|given| given.0));
            let count = if mode == "hot-standby" { 1 } else { 2 };
            assert_eq!(servers.iter().collect::<std::collections::BTreeSet<_>>().len(), count, "{what}");
            let more: BTreeMap<u8, Ipv4Addr> =
                (20..30).zip(more).map(|(client, given)| (client, given.1)).collect();
            let distinct: std::collections::BTreeSet<_> = clients.values().chain(more.values()).collect();
            assert_eq!(distinct.len(), clients.len() + more.len(), "{what}: no address is held twice");
            assert_eq!(updates(&two), told, "{what}");

            // Setting the clock is not enough.
            step(&mut two, server, -by_s);
            assert_eq!(heartbeats(&mut two, 30), [0, 0], "{what}");
            assert_eq!(states(&two), ["terminated", "terminated"], "{what}");
            for server in 0..2 {
                order(&mut two, server, "ha-reset", &Value::Null);
            }
            two.run_to([mode, mode]);
            assert_held(&mut two, &clients, &what);
            assert_held(&mut two, &more, &what);
            // From the next renewal on each lease ends when its client was told, at both.
            for (client, address) in clients.iter().chain(&more) {
                let (giver, _, promised_s) = renew(&mut two, *client, *address);
                let end_s = wall_s(&two, giver) + promised_s;
                for server in 0..2 {
                    let lease = two.hands[server].server().lease(*address).expect("it is held");
                    assert_eq!(lease.view().expire(), end_s, "{what}: {address} at server {server}");
                }
            }
        }
    }
}

/// Both clocks are set at once: the servers agree, and nothing but the time of day has changed.
#[test]
fn clocks_that_jump_together_move_no_timer() {
    for mode in MODES {
        for by_s in [1000, -1000, -86_400] {
            let what = format!("{mode}, both by {by_s} s");
            // How long a silent partner is waited for, and a service that was disabled for some time stays off.
            let times = [0, by_s].map(|by_s| {
                let mut two = normal(mode, 1);
                let clients = give_all(&mut two, 1..9);
                let pace = heartbeats(&mut two, 20);
                order(&mut two, 0, "dhcp-disable", &json!({ "max-period": 20 }));
                (0..2).for_each(|server| step(&mut two, server, by_s));
                let begun = two.hands[0].ms;
                two.run_until("service", |two| two.hands[0].server().desk.is_enabled());
                let disabled_ms = two.hands[0].ms - begun;
                assert_eq!(states(&two), [mode, mode], "{what}");
                assert_as_before(heartbeats(&mut two, 20), pace, &what);
                for (client, address) in &clients {
                    assert_eq!(renew(&mut two, *client, *address).1, *address, "{what}");
                }
                let [one, other] = [0, 1].map(|server| two.hands[server].holders());
                assert_eq!(one, other, "{what}");
                assert_held(&mut two, &clients, &what);
                two.cut = true;
                let begun = two.hands[0].ms;
                (0..2).for_each(|server| step(&mut two, server, by_s));
                two.run_to(["partner-down", "partner-down"]);
                (disabled_ms, two.hands[0].ms - begun)
            });
            assert_eq!(times[0], times[1], "{what}");
            assert!(times[0].0 > 19_000, "{times:?}");
        }
    }
}

/// A server is stopped for more than a minute, with all its clocks running, and finds the answer to its last heartbeat when it goes on.
#[test]
fn the_age_of_an_answer_is_no_skew() {
    for mode in MODES {
        let (mut hand, mut played) = hand::normal(mode, &json!({}), 1);
        let sent = hand.sent.len();
        let mut later =
            |sent: &Sent| if sent.command() == "ha-heartbeat" { Reply::Later } else { played.hear(sent) };
        hand.run_until("heartbeat", &mut later, |hand| {
            hand.sent[sent..].iter().any(|sent| sent.command() == "ha-heartbeat")
        });
        let asked =
            hand.sent[sent..].iter().find(|sent| sent.command() == "ha-heartbeat").expect("one").clone();
        let answer = played.hear(&asked);
        hand.pass(75_000);
        hand.answered(asked.place, answer);
        hand.turn(&mut |sent| played.hear(sent));
        assert_eq!(hand.servers()["remote"]["clock-skew"], 0);
        for _ in 0..100 {
            hand.turn(&mut |sent| played.hear(sent));
            hand.pass(50);
            assert_eq!(hand.state(), mode);
        }
    }
}
