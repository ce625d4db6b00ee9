//! A partner that is heard of again while something older is under way to it: the backlog, and the questions that go before it. The server is
//! turned by hand, its partner is played.

mod hand;

use std::cell::Cell;
use std::net::Ipv4Addr;
use std::rc::Rc;

use hand::{Hand, Reply, Sent, client_mac, normal, ok};
use serde_json::{Value, json};

const MODE: &str = "load-balancing";

/// The changes of a command, by address and with the end of each lease.
fn changes(sent: &Sent) -> Vec<(String, u64)> {
    let arguments = sent.arguments();
    let leases =
        arguments["leases"].as_array().map_or_else(|| std::slice::from_ref(arguments), Vec::as_slice);
    let change = |lease: &Value| {
        let address = lease["ip-address"].as_str().expect("an address").to_owned();
        (address, lease["expire"].as_u64().expect("a time"))
    };
    leases.iter().map(change).collect()
}

/// Whether a command carries lease updates, and their places and changes.
fn is_update(sent: &Sent) -> bool {
    sent.to == 1 && ["lease4-update", "lease4-del", "aplomado-bulk-apply"].contains(&sent.command())
}

fn renew(hand: &mut Hand, client: u8, address: Ipv4Addr) -> u32 {
    let mac = client_mac(client);
    hand.query(&format!("request mac={mac} ciaddr={address} from={address} to=255.255.255.255"))
}

/// A lease is renewed, the partner falls silent with the update under way, the lease is renewed again, and the partner is heard of.
#[test]
fn the_backlog_waits_for_what_is_under_way_and_may_still_be_made() {
    for (is_ours, is_answered, shards) in
        [(true, true, 1), (true, false, 2), (false, true, 2), (false, false, 1)]
    {
        let case = format!("ours {is_ours}, answered {is_answered}");
        let (mut hand, mut played) = normal(MODE, &json!({ "max-response-delay": 60_000 }), shards);
        let [silent, holds] = [(), ()].map(|()| Rc::new(Cell::new(false)));
        let state = Rc::new(Cell::new(MODE));
        let mut peer = {
            let (silent, holds, state) = (Rc::clone(&silent), Rc::clone(&holds), Rc::clone(&state));
            move |sent: &Sent| {
                played.state = Some(state.get());
                match sent.command() {
                    _ if sent.to != 1 => played.hear(sent),
                    "list-commands" if is_ours => {
                        ok(json!(["ha-heartbeat", "ha-sync-complete-notify", "aplomado-bulk-apply"]))
                    }
                    "ha-heartbeat" if silent.get() => Reply::Silent,
                    _ if is_update(sent) && holds.get() => Reply::Later,
                    _ if is_update(sent) => ok(Value::Null),
                    _ => played.hear(sent),
                }
            }
        };
        // It is asked for its commands when it is heard of again.
        silent.set(true);
        hand.run_to("communication-recovery", &mut peer);
        silent.set(false);
        hand.run_to(MODE, &mut peer);
        let served = (1..40).find_map(|client| Some((client, hand.serve(client, &mut peer)?)));
        let (client, address) = served.expect("half of the clients are this server's");

        holds.set(true);
        hand.pass(1000);
        let before = hand.sent.len();
        renew(&mut hand, client, address);
        hand.run_until("an update", &mut peer, |hand| hand.sent[before..].iter().any(is_update));
        let older = hand.sent[before..].iter().find(|sent| is_update(sent)).cloned().expect("it was sent");
        assert_eq!(older.command() == "aplomado-bulk-apply", is_ours, "{case}");
        silent.set(true);
        hand.run_to("communication-recovery", &mut peer);
        hand.pass(1000);
        let before = hand.sent.len();
        let again = renew(&mut hand, client, address);
        hand.run_until("an answer", &mut peer, |hand| hand.take_reply(again).is_some());
        state.set("communication-recovery");
        silent.set(false);
        holds.set(false);
        let heard = |hand: &mut Hand| hand.servers()["remote"]["last-state"] == "communication-recovery";
        hand.run_until("heartbeat", &mut peer, heard);
        for _ in 0..40 {
            hand.turn(&mut peer);
        }
        assert!(!hand.sent[before..].iter().any(is_update), "{case}: the older one may come after it");
        assert_eq!(hand.state(), "communication-recovery", "{case}");

        hand.answered(older.place, if is_answered { ok(Value::Null) } else { Reply::Silent });
        hand.run_to(MODE, &mut peer);
        let sent: Vec<&Sent> = hand.sent[before..].iter().filter(|sent| is_update(sent)).collect();
        assert!(!sent.is_empty(), "{case}");
        let newest = changes(&older)[0].1;
        for sent in &sent {
            let sent = changes(sent);
            assert_eq!(sent.len(), 1, "{case}");
            assert!(sent[0].0 == address.to_string() && sent[0].1 > newest, "{case}: {sent:?}");
        }
        if is_ours {
            // What was given up is refused if it comes now.
            let post = |sent: &Sent, key: &str| sent.arguments()[key].as_u64();
            let is_late = post(&older, "post") < post(sent[0], "post-since");
            assert!(is_late, "{case}: {older:?} and then {:?}", sent[0]);
        }
    }
}

/// A partner that answers heartbeats and not what it is asked when it is heard of again: the backlog, which goes the same way, does not wait
/// longer for that than for an update.
#[test]
fn an_unanswered_question_holds_the_backlog_no_longer_than_an_update_may_take() {
    for unanswered in ["list-commands", "config-get"] {
        for (delay_ms, limit_ms) in [(3000, 3000), (60_000, 10_000)] {
            let (mut hand, mut played) = normal(MODE, &json!({ "max-response-delay": delay_ms }), 1);
            let served =
                (1..40).find_map(|client| Some((client, hand.serve(client, &mut |sent| played.hear(sent))?)));
            let (client, address) = served.expect("half of the clients are this server's");
            played.state = None;
            hand.run_to("communication-recovery", &mut |sent| played.hear(sent));
            let again = renew(&mut hand, client, address);
            let is_served = |hand: &mut Hand| hand.take_reply(again).is_some();
            hand.run_until("an answer", &mut |sent| played.hear(sent), is_served);
            let before = hand.sent.len();
            played.state = Some("communication-recovery");
            let mut peer = |sent: &Sent| match sent.command() {
                command if command == unanswered => Reply::Later,
                "list-commands" => ok(json!(["ha-heartbeat", "ha-sync-complete-notify", "config-get"])),
                _ => played.hear(sent),
            };
            let asked =
                |hand: &Hand| hand.sent[before..].iter().find(|sent| sent.command() == unanswered).cloned();
            hand.run_until("a question", &mut peer, |hand| asked(hand).is_some());
            let asked = asked(&hand).expect("it was sent");
            assert_eq!(asked.limit_ms, limit_ms, "{unanswered}");
            hand.answered(asked.place, Reply::Silent);
            hand.run_to(MODE, &mut peer);
            let flushed = hand.sent[before..].iter().find(|sent| is_update(sent)).expect("the backlog");
            assert_eq!(flushed.place, asked.place, "it goes the same way");
        }
    }
}
