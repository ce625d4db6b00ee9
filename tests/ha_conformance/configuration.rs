//! Behaviours 1 to 14.

use aplomado::ha::config::{MultiThreading, parse};
use serde_json::{Value, json};

use crate::rig::{parse_one, relationship, valid};

fn refused(relationship: Value, part: &str) {
    let findings = parse_one(relationship).expect_err(part);
    assert!(findings.iter().any(|finding| finding.to_string().contains(part)), "{part}: {findings:?}");
}

fn lb(extra: Value) -> Value {
    relationship("load-balancing", "alpha", extra)
}

fn peers(mode: &str, roles: &[(&str, &str)]) -> Value {
    let peers: Vec<Value> = roles
        .iter()
        .zip(1..)
        .map(|((name, role), last)| json!({ "name": name, "url": format!("http://10.9.0.{last}:8005/"), "role": role }))
        .collect();
    json!({ "this-server-name": roles[0].0, "mode": mode, "peers": peers })
}

/// The load-balancing pair with keys of the second peer replaced.
fn second_peer(extra: Value, top: Value) -> Value {
    let mut map = lb(top);
    if let (Value::Object(peer), Value::Object(extra)) = (&mut map["peers"][1], extra) {
        peer.extend(extra);
    }
    map
}

#[test]
fn b01_names_must_match_be_there_and_be_unique() {
    refused(relationship("load-balancing", "delta", json!({})), "expected the name of one of the peers");
    refused(relationship("load-balancing", "  ", json!({})), "blank");
    refused(second_peer(json!({ "name": " " }), json!({})), "blank");
    refused(second_peer(json!({ "name": "alpha" }), json!({})), "\"alpha\" again");
    let mut without = lb(json!({}));
    without.as_object_mut().expect("a map").remove("this-server-name");
    refused(without, "this-server-name");
}

#[test]
fn b02_unknown_values_are_refused_unknown_keys_are_not() {
    refused(lb(json!({ "mode": "active-active" })), "active-active");
    refused(second_peer(json!({ "role": "tertiary" }), json!({})), "tertiary");
    let states = |state: &str, pause: &str| json!({ "state-machine": { "states": [{ "state": state, "pause": pause }] } });
    refused(lb(states("waiting", "sometimes")), "sometimes");
    refused(lb(states("thinking", "once")), "thinking");
    let parsed = parse(&json!([lb(json!({ "foo": 1, "hearbeat-delay": 1000 }))]), &mut |_| Ok(String::new()))
        .expect("valid");
    assert_eq!(parsed.warnings.len(), 2);
    assert!(parsed.warnings.iter().any(|finding| finding.text.contains("did you mean \"heartbeat-delay\"")));
}

#[test]
fn b03_integers_have_32_bits() {
    for key in [
        "heartbeat-delay",
        "max-response-delay",
        "max-ack-delay",
        "max-unacked-clients",
        "max-rejected-lease-updates",
        "delayed-updates-limit",
        "sync-timeout",
        "sync-page-limit",
    ] {
        refused(lb(json!({ key: -1 })), key);
        refused(lb(json!({ key: 4_294_967_296_u64 })), key);
        refused(lb(json!({ key: 1.5 })), key);
        refused(lb(json!({ key: "5" })), key);
        valid(lb(json!({ key: 4_294_967_295_u64 })));
    }
    assert_eq!(valid(lb(json!({ "heartbeat-delay": 0 }))).heartbeat_delay_ms, 0);
    refused(lb(json!({ "sync-page-limit": 0 })), "sync-page-limit");
    refused(lb(json!({ "sync-leases": 1 })), "expected true or false");
}

#[test]
fn b04_modes_have_their_roles() {
    refused(peers("load-balancing", &[("a", "primary")]), "expected a secondary");
    refused(peers("load-balancing", &[("a", "secondary")]), "expected a primary");
    refused(peers("load-balancing", &[("a", "primary"), ("b", "secondary"), ("c", "standby")]), "no standby");
    refused(peers("hot-standby", &[("a", "primary")]), "expected a standby");
    refused(peers("hot-standby", &[("a", "standby")]), "expected a primary");
    refused(peers("hot-standby", &[("a", "primary"), ("b", "standby"), ("c", "secondary")]), "no secondary");
    refused(peers("passive-backup", &[("a", "primary"), ("b", "standby")]), "no standby");
    refused(peers("passive-backup", &[("a", "backup")]), "expected a primary");
    valid(peers("passive-backup", &[("a", "primary")]));
    valid(peers("hot-standby", &[("a", "primary"), ("b", "standby"), ("c", "backup"), ("d", "backup")]));
}

#[test]
fn b05_two_primaries_come_before_what_the_mode_says() {
    for mode in ["load-balancing", "hot-standby", "passive-backup"] {
        let findings = parse_one(peers(
            mode,
            &[("a", "primary"), ("b", "primary"), ("c", "standby"), ("d", "secondary")],
        ))
        .expect_err("two primaries");
        assert!(findings[0].text.contains("at most one primary"), "{findings:?}");
    }
}

#[test]
fn b06_waiting_for_backups_is_for_passive_backup() {
    refused(lb(json!({ "wait-backup-ack": true })), "wait-backup-ack");
    refused(relationship("hot-standby", "alpha", json!({ "wait-backup-ack": true })), "wait-backup-ack");
    assert!(
        valid(relationship("passive-backup", "alpha", json!({ "wait-backup-ack": true }))).wait_backup_ack
    );
}

#[test]
fn b07_backlog_is_for_load_balancing() {
    for mode in ["hot-standby", "passive-backup"] {
        refused(relationship(mode, "alpha", json!({ "delayed-updates-limit": 1 })), "delayed-updates-limit");
        assert_eq!(valid(relationship(mode, "alpha", json!({}))).delayed_updates_limit, 0);
    }
    assert_eq!(valid(lb(json!({}))).delayed_updates_limit, 100);
}

#[test]
fn b08_hosts_are_addresses() {
    refused(second_peer(json!({ "url": "http://localhost:8005/" }), json!({})), "IP address");
    refused(second_peer(json!({ "url": "10.9.0.2:8005" }), json!({})), "http://");
    let config = valid(second_peer(json!({ "url": "http://[2001:db8::1]:8080/" }), json!({})));
    assert_eq!(config.peers[1].url.address.to_string(), "[2001:db8::1]:8080");
}

#[test]
fn b09_https_needs_tls_parameters() {
    let https = json!({ "url": "https://10.9.0.2:8005/" });
    refused(second_peer(https.clone(), json!({})), "https");
    let files = json!({ "trust-anchor": "ca", "cert-file": "cert", "key-file": "key" });
    assert!(valid(second_peer(https, files)).peers[1].tls.is_some());
}

#[test]
fn b10_tls_parameters_are_inherited_overridden_or_switched_off() {
    let files = json!({ "trust-anchor": "ca", "cert-file": "cert", "key-file": "key" });
    let inherited = valid(lb(files.clone()));
    assert!(inherited.peers.iter().all(|peer| peer.tls.as_ref().is_some_and(|tls| tls.trust_anchor == "ca")));
    let own = json!({ "trust-anchor": "ca2", "cert-file": "cert2", "key-file": "key2" });
    let tls = valid(second_peer(own, files.clone())).peers[1].tls.clone().expect("TLS");
    assert_eq!(
        (tls.trust_anchor.as_str(), tls.cert_file.as_str(), tls.key_file.as_str()),
        ("ca2", "cert2", "key2")
    );
    let off = json!({ "trust-anchor": "", "cert-file": "", "key-file": "" });
    let config = valid(second_peer(off, files.clone()));
    assert!(config.peers[1].tls.is_none() && config.peers[0].tls.is_some());
    refused(second_peer(json!({ "key-file": "" }), files), "no key-file");
    refused(lb(json!({ "cert-file": "cert" })), "no trust-anchor, no key-file");
}

#[test]
fn b11_users_have_no_colon_and_one_source() {
    refused(second_peer(json!({ "basic-auth-user": "a:b" }), json!({})), "colon");
    assert_eq!(
        valid(second_peer(json!({ "basic-auth-user": "", "basic-auth-password": "p" }), json!({}))).peers[1]
            .credentials,
        None
    );
    refused(
        second_peer(json!({ "basic-auth-user": "u", "basic-auth-user-file": "f" }), json!({})),
        "found both",
    );
    refused(
        second_peer(json!({ "basic-auth-password": "u", "basic-auth-password-file": "f" }), json!({})),
        "found both",
    );
    refused(second_peer(json!({ "basic-auth-user-file": "f" }), json!({})), "cannot read \"f\"");
    let files =
        second_peer(json!({ "basic-auth-user-file": "u", "basic-auth-password-file": "p" }), json!({}));
    let parsed = parse(&json!([files]), &mut |name| Ok(format!("{name}1\nmore\n"))).expect("valid");
    let credentials = parsed.relationships[0].peers[1].credentials.clone().expect("credentials");
    assert_eq!((credentials.user.as_str(), credentials.password.as_str()), ("u1", "p1"));
    assert!(!format!("{credentials:?}").contains("p1"));
}

#[test]
fn b12_threads_follow_the_dhcp_server() {
    let block = |extra: Value| valid(lb(json!({ "multi-threading": extra }))).multi_threading;
    let off = block(json!({})).resolve(0);
    assert!(!off.enabled && !off.dedicated_listener);
    let automatic = block(json!({})).resolve(4);
    let expected =
        MultiThreading { enabled: true, dedicated_listener: true, listener_threads: 4, client_threads: 4 };
    assert_eq!(automatic, expected);
    let explicit = block(json!({ "http-listener-threads": 2, "http-client-threads": 7 })).resolve(4);
    assert_eq!((explicit.listener_threads, explicit.client_threads), (2, 7));
    assert!(!block(json!({ "enable-multi-threading": false })).resolve(4).dedicated_listener);
    refused(lb(json!({ "multi-threading": [] })), "multi-threading");
}

#[test]
fn b13_hubs_are_hot_standby_pairs_with_names_of_their_own() {
    let pair = |mode: &str, first: &str, second: &str| {
        let other = if mode == "hot-standby" { "standby" } else { "secondary" };
        peers(mode, &[(first, "primary"), (second, other)])
    };
    let parse_two = |one: Value, two: Value| parse(&json!([one, two]), &mut |_| Ok(String::new()));
    let findings = parse_two(pair("load-balancing", "a", "b"), pair("load-balancing", "c", "d"))
        .expect_err("not hot-standby");
    assert!(findings.iter().any(|finding| finding.text.contains("expected hot-standby")));
    let findings =
        parse_two(pair("hot-standby", "a", "b"), pair("hot-standby", "a", "d")).expect_err("shared name");
    assert!(findings.iter().any(|finding| finding.text.contains("\"a\" again")));
    let parsed = parse_two(pair("hot-standby", "a", "b"), pair("hot-standby", "c", "d")).expect("valid");
    assert_eq!(
        (parsed.relationships[1].local_origin(), parsed.relationships[1].remote_origin()),
        (1001, 2001)
    );
}

#[test]
fn b14_pauses_default_to_never_and_are_given_once() {
    let config = valid(lb(json!({ "state-machine": { "states": [{ "state": "ready" }] } })));
    assert_eq!(config.pause(aplomado::ha::states::State::Ready), aplomado::ha::config::Pause::Never);
    let twice = json!([{ "state": "ready", "pause": "once" }, { "state": "ready" }]);
    refused(lb(json!({ "state-machine": { "states": twice } })), "\"ready\"");
}

#[test]
fn refusals_of_the_list_itself() {
    for list in [
        json!({}),
        json!([]),
        json!([1]),
        json!(null),
        json!([{ "mode": "hot-standby", "this-server-name": "a" }]),
    ] {
        assert!(parse(&list, &mut |_| Ok(String::new())).is_err(), "{list}");
    }
}

#[test]
fn delays_of_the_first_guide_are_seconds() {
    let delays = |extra: Value| {
        let config = valid(lb(extra));
        (config.heartbeat_delay_ms, config.max_response_delay_ms, config.max_ack_delay_ms)
    };
    assert_eq!(delays(json!({})), (10_000, 60_000, 10_000));
    assert_eq!(
        delays(json!({ "heartbeat-delay": 10, "max-response-delay": 60, "max-ack-delay": 5 })),
        (10_000, 60_000, 5000)
    );
    assert_eq!(delays(json!({ "heartbeat-delay": 10, "max-response-delay": 60 })), (10_000, 60_000, 10_000));
    // One value that cannot be meant so, and all of them are milliseconds.
    assert_eq!(delays(json!({ "heartbeat-delay": 10, "max-response-delay": 200 })), (10, 200, 10_000));
    assert_eq!(
        delays(json!({ "heartbeat-delay": 10, "max-response-delay": 60, "max-ack-delay": 0 })),
        (10, 60, 0)
    );
    assert_eq!(delays(json!({ "heartbeat-delay": 10 })), (10, 60_000, 10_000));
    assert_eq!(
        delays(json!({ "heartbeat-delay": 10, "max-response-delay": 60, "delay-unit": "ms" })),
        (10, 60, 10_000)
    );
    assert_eq!(
        delays(json!({ "heartbeat-delay": 500, "max-response-delay": 600, "delay-unit": "s" })),
        (500_000, 600_000, 10_000)
    );
    refused(lb(json!({ "delay-unit": "min" })), "delay-unit");
    let parsed = parse(
        &json!([lb(json!({ "heartbeat-delay": 10, "max-response-delay": 60, "sync-timeout": 60 }))]),
        &mut |_| Ok(String::new()),
    )
    .expect("valid");
    assert!(parsed.warnings.iter().any(|finding| finding.text.contains("taken as seconds")));
    assert_eq!(parsed.relationships[0].sync_timeout_ms, 60);
}

#[test]
fn timeouts_never_outlast_detection() {
    let timeouts = |response: u64| valid(lb(json!({ "max-response-delay": response }))).timeouts();
    assert_eq!((timeouts(1000).heartbeat_ms, timeouts(1000).update_ms), (500, 1000));
    assert_eq!((timeouts(300).heartbeat_ms, timeouts(60_000).heartbeat_ms), (200, 10_000));
    assert_eq!((timeouts(60_000).update_ms, timeouts(1000).page_ms), (10_000, 60_000));
}

#[test]
fn partner_of_2018_is_spared_what_it_does_not_know() {
    let limit = |version: &str| {
        valid(second_peer(json!({ "compatibility": version }), json!({}))).delayed_updates_limit
    };
    assert_eq!((limit("1.4"), limit("1.8.2"), limit("2.2"), limit("3.0")), (0, 0, 100, 100));
    refused(second_peer(json!({ "compatibility": "old" }), json!({})), "compatibility");
}
