//! Behaviours 15 to 26.

use aplomado::ha::command::outgoing::{self, Family};
use aplomado::ha::command::{HeartbeatAnswer, PeerAnswer, PeerError, Verdict};
use aplomado::ha::relationship::Action;
use serde_json::{Value, json};

use crate::rig::{START, Server, relationship, valid};

#[test]
fn b15_start_is_waiting_without_service_and_the_first_heartbeat_takes_its_time() {
    let mut server = Server::new("load-balancing", "alpha", json!({ "heartbeat-delay": 5000 }));
    assert_eq!((server.state(), server.service, server.scopes().len()), ("waiting", false, 0));
    server.advance(4999);
    assert!(!server.heartbeat_sent());
    server.advance(1);
    assert!(server.heartbeat_sent());
}

#[test]
fn b16_backup_goes_to_backup_and_says_nothing() {
    for mode in ["load-balancing", "hot-standby", "passive-backup"] {
        let mut server = Server::new(mode, "gamma", json!({}));
        assert_eq!((server.state(), server.service, server.scopes().len()), ("backup", false, 0));
        server.advance(600_000);
        assert!(!server.heartbeat_sent() && server.ha.deadline().is_none());
        assert_eq!(server.state(), "backup");
    }
}

#[test]
fn b17_passive_backup_primary_serves_at_once() {
    let mut server = Server::new("passive-backup", "alpha", json!({}));
    assert_eq!((server.state(), server.service), ("passive-backup", true));
    assert_eq!(server.scopes(), ["alpha"]);
    server.advance(600_000);
    assert!(!server.heartbeat_sent());
}

#[test]
fn b18_heartbeats_go_to_the_partner_with_its_credentials() {
    let mut map = relationship("load-balancing", "alpha", json!({}));
    map["peers"][1]["basic-auth-user"] = json!("admin");
    let config = valid(map);
    let partner = config.partner().expect("a partner");
    assert_eq!(config.peers[partner].name, "beta");
    assert_eq!(config.peers[partner].credentials.as_ref().expect("credentials").user, "admin");
    // Its position is the only place that a heartbeat can go to: the action names no peer.
    assert_eq!(Server::with(vec![config]).relationship().partner(), Some(partner));
}

#[test]
fn b19_heartbeat_answer_has_all_four_fields() {
    let mut server = Server::reach("load-balancing", "alpha", "load-balancing", json!({}));
    let answer = server.command("ha-heartbeat", Some(json!({ "server-name": "beta" }))).expect("an answer");
    assert_eq!(answer.result, 0);
    let arguments = answer.arguments.as_ref().expect("arguments");
    assert_eq!(arguments["state"], "load-balancing");
    assert_eq!(arguments["scopes"], json!(["alpha"]));
    assert_eq!(arguments["unsent-update-count"], json!(0));
    let back =
        HeartbeatAnswer::parse(PeerAnswer::parse(&answer.to_http_body())).expect("what we read ourselves");
    assert_eq!(back.date_time_s, server.now.wall_s);
    assert!(back.date_time_s > START.wall_s);
}

fn answered(body: &Value) -> Result<HeartbeatAnswer, String> {
    HeartbeatAnswer::parse(PeerAnswer::parse(body.to_string().as_bytes()))
}

fn good() -> Value {
    json!({ "state": "waiting", "date-time": "Thu, 01 Jan 2026 01:00:00 GMT", "scopes": [], "unsent-update-count": 0 })
}

fn without(key: &str) -> Value {
    let mut arguments = good();
    arguments.as_object_mut().expect("a map").remove(key);
    json!([{ "result": 0, "arguments": arguments }])
}

fn with(key: &str, value: Value) -> Value {
    let mut arguments = good();
    arguments[key] = value;
    json!([{ "result": 0, "arguments": arguments }])
}

#[test]
fn b20_bad_heartbeat_answers_make_the_partner_unavailable() {
    let failures = [
        HeartbeatAnswer::parse(Err(PeerError::Io("connection refused".to_owned()))),
        answered(&json!({ "result": 401, "text": "Unauthorized" })),
        answered(&json!([{ "result": 1, "text": "unable to forward command" }])),
        answered(&json!([])),
        answered(&json!([[]])),
        answered(&json!([{ "result": "0" }])),
        answered(&json!([{ "result": 0, "text": "no arguments" }])),
        answered(&without("state")),
        answered(&with("state", json!("thinking"))),
        answered(&without("date-time")),
        answered(&with("date-time", json!("2026-01-01 01:00:00"))),
        answered(&with("unsent-update-count", json!("0"))),
        HeartbeatAnswer::parse(PeerAnswer::parse(b"")),
        HeartbeatAnswer::parse(PeerAnswer::parse(b"[ { \"result\": 0")),
    ];
    for (number, failure) in failures.into_iter().enumerate() {
        assert!(failure.is_err(), "failure {number}");
        let mut server = Server::reach("hot-standby", "alpha", "hot-standby", json!({}));
        server.heartbeat_result(failure);
        assert_eq!(server.partner_state(), "unavailable");
        let age = server.relationship().status(server.now).remote.expect("a partner").age_s;
        assert_eq!(age, server.relationship().config().heartbeat_delay_ms / 1000);
    }
}

#[test]
fn b21_scopes_may_be_missing_or_wrong() {
    for body in [without("scopes"), with("scopes", json!("alpha")), with("scopes", json!([1]))] {
        assert_eq!(answered(&body).expect("successful").scopes, None);
    }
    let scopes = answered(&with("scopes", json!(["beta"]))).expect("successful").scopes;
    assert_eq!(scopes, Some(vec!["beta".to_owned()]));
}

#[test]
fn b22_unsent_count_may_be_missing() {
    assert_eq!(answered(&without("unsent-update-count")).expect("successful").unsent_update_count, None);
    // A count beyond 2^63 looks negative in Kea's JSON.
    assert_eq!(
        answered(&with("unsent-update-count", json!(-1))).expect("successful").unsent_update_count,
        Some(u64::MAX)
    );
}

#[test]
fn b23_bare_map_fails_whatever_it_says() {
    assert!(answered(&json!({ "result": 0, "arguments": good() })).is_err());
    assert!(answered(&json!([{ "result": 0, "arguments": good() }])).is_ok());
    assert!(answered(&json!([{ "result": 3, "arguments": good() }])).is_ok());
}

#[test]
fn b24_only_heartbeats_are_contact() {
    let mut server =
        Server::reach("load-balancing", "alpha", "load-balancing", json!({ "heartbeat-delay": 5000 }));
    let age = |server: &Server| server.relationship().status(server.now).remote.expect("a partner").age_s;
    server.advance(4000);
    server.update(Verdict::Success, 1);
    assert_eq!(age(&server), 4);
    server.unacked(3);
    let epoch = server.word.epoch();
    server.partner("load-balancing");
    assert_eq!(age(&server), 0);
    assert_eq!(server.relationship().status(server.now).remote.expect("a partner").unacked_clients, 0);
    assert_ne!(server.word.epoch(), epoch);
}

#[test]
fn b25_interruption_is_silence_longer_than_the_delay() {
    let mut server =
        Server::reach("load-balancing", "alpha", "load-balancing", json!({ "max-response-delay": 15_000 }));
    server.advance(15_000);
    assert!(!server.word.parts().analyse);
    server.advance(1);
    assert!(server.word.parts().analyse);
    assert!(server.relationship().status(server.now).remote.expect("a partner").communication_interrupted);
}

#[test]
fn b26_heartbeats_to_nobody_we_know_fail() {
    let mut server = Server::new("load-balancing", "alpha", json!({}));
    assert_eq!(server.result("ha-heartbeat", Some(json!({ "server-name": "delta" }))), 1);
    assert_eq!(server.result("ha-heartbeat", Some(json!({ "server-name": 1 }))), 1);
    assert_eq!(server.result("ha-heartbeat", Some(json!([]))), 1);
    for name in ["alpha", "beta", "gamma"] {
        assert_eq!(server.result("ha-heartbeat", Some(json!({ "server-name": name }))), 0);
    }
    assert_eq!(server.result("ha-heartbeat", None), 0);
}

#[test]
fn heartbeat_request_is_as_captured_with_our_name() {
    let body = outgoing::heartbeat(Family::V4, "alpha");
    assert_eq!(
        body,
        br#"{ "arguments": { "server-name": "alpha" }, "command": "ha-heartbeat", "service": [ "dhcp4" ] }"#
    );
}

#[test]
fn silence_is_noticed_on_time_while_a_heartbeat_is_in_flight() {
    let mut server = Server::reach(
        "hot-standby",
        "beta",
        "hot-standby",
        json!({ "heartbeat-delay": 250, "max-response-delay": 1000, "max-unacked-clients": 0 }),
    );
    // The first heartbeat fails, the second is not answered at all.
    server.silence();
    server.await_heartbeat();
    server.forget();
    let contact_age = 1001;
    server.advance(contact_age);
    assert_eq!(server.transitions(), ["partner-down"]);
    assert!(server.service);
    assert!(
        server.actions().any(|action| matches!(action, Action::Publish(word) if word.parts().serves_primary))
    );
}
