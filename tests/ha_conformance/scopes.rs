//! Behaviours 51 to 59 and 61, as far as one machine shows them.

use aplomado::ha::unacked::{ClientFingerprint, UnackedClients, UnackedCounts, age4_ms};
use aplomado::ha::view::{Decision, Scope};
use serde_json::json;

use crate::bucket::bucket;
use crate::rig::Server;

const DISCOVER: u8 = 1;
const BALANCED: [u8; 5] = [1, 3, 4, 7, 8];

fn decide(server: &Server, key: &[u8]) -> Decision {
    server.word.decide4((!key.is_empty()).then(|| bucket(key)), DISCOVER)
}

fn normal(mode: &str, this: &str) -> Server {
    Server::reach(mode, this, mode, json!({}))
}

#[test]
fn b51_vectors_decide_who_serves() {
    let (primary, secondary) = (normal("load-balancing", "alpha"), normal("load-balancing", "beta"));
    for line in include_str!("../data/buckets/vectors.txt").lines().filter(|line| !line.starts_with('#')) {
        let mut words = line.split_whitespace().skip(2);
        let hash: u8 = words.next().and_then(|word| word.parse().ok()).expect("a bucket");
        let scope = if hash.is_multiple_of(2) { Scope::Primary } else { Scope::Secondary };
        for server in [&primary, &secondary] {
            assert_eq!(server.word.decide4(Some(hash), DISCOVER).scope, Some(scope));
        }
    }
}

#[test]
fn b52_random_clients_are_split_and_both_servers_agree() {
    let (primary, secondary) = (normal("load-balancing", "alpha"), normal("load-balancing", "beta"));
    let (mut first, mut second) = (0, 0);
    let mut seed = 7u64;
    for _ in 0..65_535 {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let mac = &seed.to_be_bytes()[..6];
        let (one, other) = (decide(&primary, mac), decide(&secondary, mac));
        assert_eq!(one.scope, other.scope);
        assert!(one.in_scope != other.in_scope);
        assert_eq!(one.in_scope, one.scope == Some(Scope::Primary));
        first += u32::from(one.in_scope);
        second += u32::from(other.in_scope);
    }
    assert!(first > 16_384 && second > 16_384, "{first} {second}");
}

#[test]
fn b53_identifier_goes_before_the_address() {
    let server = normal("load-balancing", "alpha");
    let (mac, id) = ([0x52, 0x54, 0, 0x12, 0x34, 0x56], [1, 0x52, 0x54, 0, 0x12, 0x34, 0x56]);
    assert_eq!(decide(&server, &mac).scope, Some(Scope::Primary));
    assert_eq!(decide(&server, &id).scope, Some(Scope::Secondary));
}

#[test]
fn b54_query_without_a_key_is_nobodys_in_load_balancing() {
    for state in ["load-balancing", "partner-down", "terminated"] {
        for this in ["alpha", "beta"] {
            let server = Server::reach("load-balancing", this, state, json!({}));
            for message_type in BALANCED {
                let decision = server.word.decide4(None, message_type);
                assert_eq!(decision, Decision { scope: None, in_scope: false, analyse: false }, "{state}");
            }
        }
    }
}

#[test]
fn b55_in_hot_standby_no_key_is_needed() {
    // DHCPv6: a SOLICIT without a DUID.
    let (primary, standby) = (normal("hot-standby", "alpha"), normal("hot-standby", "beta"));
    assert!(primary.word.decide(None, true).in_scope);
    assert!(!standby.word.decide(None, true).in_scope);
    assert!(!normal("load-balancing", "alpha").word.decide(None, true).in_scope);
}

#[test]
fn b56_other_messages_are_served_by_whoever_gets_them() {
    for (mode, this) in [("load-balancing", "alpha"), ("load-balancing", "beta"), ("hot-standby", "beta")] {
        let server = normal(mode, this);
        for message_type in [0, 2, 5, 6, 9, 10, 14, 200] {
            let decision = server.word.decide4(None, message_type);
            assert_eq!(decision, Decision { scope: Some(Scope::Primary), in_scope: true, analyse: false });
        }
    }
    // DHCPv6: INFORMATION-REQUEST.
    assert!(!aplomado::ha::view::is_balanced6(11));
    assert!([1, 3, 4, 5, 6, 8, 9].into_iter().all(aplomado::ha::view::is_balanced6));
    assert!([2, 7, 10, 14, 20, 36].into_iter().all(|other| !aplomado::ha::view::is_balanced6(other)));
}

#[test]
fn b57_scopes_by_role_and_state() {
    assert_eq!(normal("load-balancing", "alpha").scopes(), ["alpha"]);
    assert_eq!(normal("load-balancing", "beta").scopes(), ["beta"]);
    assert_eq!(normal("hot-standby", "alpha").scopes(), ["alpha"]);
    assert!(normal("hot-standby", "beta").scopes().is_empty());
    let down = |mode, this, extra| Server::reach(mode, this, "partner-down", extra).scopes();
    assert_eq!(down("load-balancing", "alpha", json!({})), ["alpha", "beta"]);
    assert_eq!(down("load-balancing", "beta", json!({})), ["alpha", "beta"]);
    assert_eq!(down("hot-standby", "beta", json!({})), ["alpha"]);
    assert_eq!(Server::new("passive-backup", "alpha", json!({})).scopes(), ["alpha"]);
    for mode in ["load-balancing", "hot-standby", "passive-backup"] {
        assert!(Server::new(mode, "gamma", json!({})).scopes().is_empty(), "{mode}");
    }
}

#[test]
fn b57_nothing_that_makes_others_stand_in_makes_a_backup_serve() {
    let held = json!({ "state-machine": { "states": [{ "state": "waiting", "pause": "always" }] } });
    for mode in ["load-balancing", "hot-standby", "passive-backup"] {
        for (extra, stays) in [(json!({}), "backup"), (held.clone(), "waiting")] {
            let mut server = Server::new(mode, "gamma", extra);
            let watch = |server: &Server, when: &str| {
                let found = (server.state(), server.service, server.scopes());
                assert_eq!(found, (stays, false, Vec::new()), "{mode}, {when}");
                for key in [None, Some(0), Some(1)] {
                    assert!(!server.word.decide4(key, DISCOVER).in_scope, "{mode}, {when}");
                }
            };
            watch(&server, "at the start");
            // What a pair says to each other is not said to it; time passes, and clients ask for long.
            server.advance(3_600_000);
            server.unacked(1000);
            server.update(aplomado::ha::command::Verdict::Error, 1);
            watch(&server, "after a silence");
            for (command, arguments) in [
                ("ha-maintenance-start", None),
                ("ha-maintenance-notify", Some(json!({ "cancel": false, "state": "load-balancing" }))),
                ("ha-maintenance-notify", Some(json!({ "cancel": true, "state": "partner-down" }))),
                ("ha-maintenance-cancel", None),
            ] {
                assert_ne!(server.result(command, arguments), 0, "{mode}, {command}");
                watch(&server, command);
            }
            assert_eq!(server.result("ha-reset", None), 0);
            watch(&server, "after ha-reset");
        }
    }
    // Nor do the others take in its name.
    for (mode, this, failed_over) in [
        ("load-balancing", "alpha", &["alpha", "beta"][..]),
        ("load-balancing", "beta", &["alpha", "beta"]),
        ("hot-standby", "alpha", &["alpha"]),
        ("hot-standby", "beta", &["alpha"]),
    ] {
        for state in ["partner-down", "partner-in-maintenance"] {
            assert_eq!(Server::reach(mode, this, state, json!({})).scopes(), failed_over, "{this}, {state}");
        }
    }
}

#[test]
fn server_without_auto_failover_keeps_to_its_own() {
    for (mode, this, expected) in [
        ("load-balancing", "alpha", &["alpha"][..]),
        ("load-balancing", "beta", &["beta"]),
        ("hot-standby", "beta", &[]),
    ] {
        let mut map = crate::rig::relationship(mode, this, json!({}));
        let position = usize::from(this == "beta");
        map["peers"][position]["auto-failover"] = json!(false);
        let mut server = Server::with(vec![crate::rig::valid(map)]);
        server.interrupt();
        assert_eq!((server.state(), server.service), ("partner-down", true));
        assert_eq!(server.scopes(), expected);
        // Only the own entry is consulted.
        let mut map = crate::rig::relationship(mode, this, json!({}));
        map["peers"][1 - position]["auto-failover"] = json!(false);
        let mut server = Server::with(vec![crate::rig::valid(map)]);
        server.interrupt();
        assert!(server.word.parts().serves_primary);
    }
}

#[test]
fn b58_standby_watches_without_answering() {
    let standby = normal("hot-standby", "beta");
    assert!(standby.service);
    for key in 0..=255 {
        let decision = standby.word.decide4(Some(key), DISCOVER);
        assert_eq!(decision, Decision { scope: Some(Scope::Primary), in_scope: false, analyse: false });
    }
}

#[test]
fn b59_scopes_are_set_by_command() {
    let mut server = normal("load-balancing", "alpha");
    let set = |server: &mut Server, scopes| server.result("ha-scopes", Some(json!({ "scopes": scopes })));
    assert_eq!(set(&mut server, json!(["beta"])), 0);
    assert_eq!(server.scopes(), ["beta"]);
    assert!(
        !server.word.decide4(Some(0), DISCOVER).in_scope && server.word.decide4(Some(1), DISCOVER).in_scope
    );
    assert_eq!(set(&mut server, json!(["gamma"])), 0);
    assert_eq!(server.scopes(), ["gamma"]);
    // One bad name, and nothing changes.
    assert_eq!(set(&mut server, json!(["alpha", "delta"])), 1);
    assert_eq!(server.scopes(), ["gamma"]);
    // The names of the guides are taken for what they mean.
    assert_eq!(set(&mut server, json!(["HA_beta", "ha_alpha"])), 0);
    assert_eq!(server.scopes(), ["alpha", "beta"]);
    assert_eq!(set(&mut server, json!([])), 0);
    assert!(server.scopes().is_empty() && server.service);
    for bad in [json!("beta"), json!([1]), json!(null)] {
        assert_eq!(set(&mut server, bad), 1);
    }
    assert_eq!(server.result("ha-scopes", None), 1);
    assert_eq!(server.state(), "load-balancing");
    // The next state begins with its own.
    server.silence();
    assert_eq!((server.state(), server.scopes()), ("communication-recovery", vec!["alpha".to_owned()]));
}

#[test]
fn clients_of_a_silent_partner_are_watched_from_the_interruption_on() {
    let mut server = Server::reach(
        "load-balancing",
        "alpha",
        "load-balancing",
        json!({ "max-response-delay": 25_000, "max-unacked-clients": 2, "heartbeat-delay": 10_000 }),
    );
    let mut shard = UnackedClients::new(2, 10_000);
    let counts = shard.counts();
    server.silence();
    let query = |server: &Server, shard: &mut UnackedClients, client: u8, secs: u16| {
        let decision = server.word.decide4(Some(1), DISCOVER);
        if decision.analyse {
            let client = ClientFingerprint::v4((1, 2), &[2, 0, 0, 0, 0, client], &[]);
            shard.analyse(server.word.epoch(), Some(client), Some(age4_ms(secs)));
        }
        decision.analyse
    };
    assert!(!query(&server, &mut shard, 1, 20));
    server.silence();
    server.silence();
    assert_eq!(server.state(), "communication-recovery");
    for client in 1..=3 {
        assert!(query(&server, &mut shard, client, 11));
    }
    let seen = UnackedCounts::sum([&*counts], server.word.epoch());
    assert_eq!(seen.unacked_clients, 3);
    server.event(aplomado::ha::relationship::Event::Observed(seen));
    // Acted on when the machine runs, not before.
    assert_eq!(server.state(), "communication-recovery");
    server.silence();
    assert_eq!(server.state(), "partner-down");
}

#[test]
fn b61_relationships_are_found_by_any_peers_name() {
    // Which relationship serves a query is its subnet's `ha-server-name`; the name leads here.
    let hub = |first: &str, second: &str, index: u64| {
        json!({ "this-server-name": second, "mode": "hot-standby", "peers": [
            { "name": first, "url": format!("http://10.9.{index}.1:8005/"), "role": "primary" },
            { "name": second, "url": format!("http://10.9.{index}.2:8005/"), "role": "standby" } ] })
    };
    let list = json!([hub("a", "b", 1), hub("c", "d", 2)]);
    let parsed = aplomado::ha::config::parse(&list, &mut |_| Ok(String::new())).expect("valid");
    let server = Server::with(parsed.relationships);
    assert_eq!(server.ha.find(Some("b")), Some(0));
    assert_eq!(server.ha.find(Some("c")), Some(1));
    assert_eq!(server.ha.find(Some("e")), None);
    assert_eq!(server.ha.find(None), Some(0));
}

#[test]
fn terminated_servers_reclaim_only_what_they_serve() {
    let (primary, standby) = (
        Server::reach("load-balancing", "alpha", "terminated", json!({})),
        Server::reach("hot-standby", "beta", "terminated", json!({})),
    );
    assert!(primary.word.reclaims(Some(0)) && !primary.word.reclaims(Some(1)));
    assert!(!standby.word.reclaims(Some(0)) && !standby.word.reclaims(Some(1)));
    for state in ["waiting", "load-balancing", "partner-down", "in-maintenance"] {
        let server = Server::reach("load-balancing", "alpha", state, json!({}));
        assert!(server.word.reclaims(Some(0)) && server.word.reclaims(Some(1)) && server.word.reclaims(None));
    }
}

#[test]
fn queries_get_the_class_of_both_spellings() {
    let server = normal("load-balancing", "beta");
    let config = server.relationship().config();
    assert_eq!(config.class_names(Scope::Primary), Some(["HA_alpha".to_owned(), "ha_alpha".to_owned()]));
    assert_eq!(config.class_names(Scope::Secondary), Some(["HA_beta".to_owned(), "ha_beta".to_owned()]));
    assert_eq!(normal("hot-standby", "beta").relationship().config().class_names(Scope::Secondary), None);
}
