//! Behaviours 86 to 95, as far as the machine and the commands show them.

use aplomado::ha::command::json::Scanner;
use aplomado::ha::command::lease::{LeaseReader, parse_delete4};
use aplomado::ha::command::page::{PageAnswer, PageRequest};
use aplomado::ha::command::request::{HA_COMMANDS, HaRequest, Head, is_listener_command};
use aplomado::ha::command::{Answer, HeartbeatAnswer, PeerAnswer};
use aplomado::ha::relationship::Event;
use aplomado::ha::service::ServiceRequest;
use aplomado::ids::SubnetId;
use aplomado::lease::request::LeaseKey;
use serde_json::{Value, json};

use crate::rig::{Server, no_answer, peer_answer, relationship, valid};

fn notify(cancel: bool) -> Option<Value> {
    Some(json!({ "cancel": cancel }))
}

#[test]
fn b86_reset_leads_to_waiting() {
    let mut server = Server::reach("load-balancing", "alpha", "waiting", json!({}));
    assert_eq!(server.result("ha-reset", None), 0);
    assert!(server.transitions().is_empty());
    for state in [
        "syncing",
        "ready",
        "load-balancing",
        "communication-recovery",
        "partner-down",
        "in-maintenance",
        "partner-in-maintenance",
        "terminated",
    ] {
        let mut server = Server::reach("load-balancing", "alpha", state, json!({}));
        assert_eq!(server.result("ha-reset", Some(json!({ "server-name": "beta" }))), 0);
        assert_eq!(server.transitions().first(), Some(&"waiting"), "{state}");
        assert!(!server.service);
    }
    let mut backup = Server::new("load-balancing", "gamma", json!({}));
    assert_eq!((backup.result("ha-reset", None), backup.state()), (0, "backup"));
    // No heartbeat would wake it: it serves again at once.
    let mut single = Server::new("passive-backup", "alpha", json!({}));
    assert_eq!((single.result("ha-reset", None), single.state()), (0, "passive-backup"));
    assert_eq!((single.service, single.scopes()), (true, vec!["alpha".to_owned()]));
}

#[test]
fn b87_maintenance_notices_by_state() {
    for state in ["waiting", "ready", "syncing", "partner-down", "load-balancing"] {
        let mut server = Server::reach("load-balancing", "beta", state, json!({}));
        assert_eq!(server.result("ha-maintenance-notify", notify(true)), 1, "{state}");
        assert_eq!(server.state(), state);
        assert_eq!(
            server.command("ha-maintenance-notify", notify(false)),
            Some(Answer::success("Server is in-maintenance state."))
        );
        assert_eq!((server.state(), server.service, server.scopes().len()), ("in-maintenance", false, 0));
    }
    let refusing = |mut server: Server, state: &str| {
        assert_eq!(server.result("ha-maintenance-notify", notify(false)), 1001);
        assert_eq!(server.state(), state);
    };
    refusing(Server::reach("load-balancing", "alpha", "terminated", json!({})), "terminated");
    refusing(
        Server::reach("load-balancing", "alpha", "partner-in-maintenance", json!({})),
        "partner-in-maintenance",
    );
    refusing(Server::new("load-balancing", "gamma", json!({})), "backup");
    let mut server = Server::new("load-balancing", "alpha", json!({}));
    for bad in [
        None,
        Some(json!({})),
        Some(json!([])),
        Some(json!({ "cancel": 1 })),
        Some(json!({ "cancel": false, "state": 1 })),
        Some(json!({ "cancel": false, "server-name": "delta" })),
    ] {
        assert_eq!(server.result("ha-maintenance-notify", bad), 1);
    }
}

#[test]
fn b88_cancel_returns_and_tells() {
    let mut server = Server::reach("load-balancing", "alpha", "load-balancing", json!({}));
    server.result("ha-maintenance-notify", Some(json!({ "cancel": false, "state": "load-balancing" })));
    let answer = server
        .command("ha-maintenance-notify", Some(json!({ "cancel": true, "state": "ready" })))
        .expect("an answer");
    assert_eq!((answer.result, answer.arguments), (0, Some(json!({ "state": "load-balancing" }))));
    assert_eq!((server.state(), server.partner_state(), server.service), ("load-balancing", "ready", true));
    // Said twice, there is no state to return to; a state that we do not know is unavailable.
    server.result("ha-maintenance-notify", notify(false));
    server.result("ha-maintenance-notify", notify(false));
    let answer = server
        .command("ha-maintenance-notify", Some(json!({ "cancel": true, "state": "thinking" })))
        .expect("an answer");
    assert_eq!(answer.arguments, Some(json!({ "state": "waiting" })));
    assert_eq!((server.state(), server.partner_state()), ("waiting", "unavailable"));
}

#[test]
fn b89_maintenance_start_by_the_partners_answer() {
    let start = |mode: &str| {
        let mut server = Server::reach(mode, "alpha", mode, json!({}));
        assert_eq!(server.command("ha-maintenance-start", None), None);
        let (_, cancel, state) = server.maintenance_sent().expect("a notice");
        assert_eq!((cancel, state.name()), (false, mode));
        server
    };
    let mut server = start("load-balancing");
    server.answer_maintenance(peer_answer(0, None));
    assert_eq!(
        (server.late_answer().expect("an answer").result, server.state()),
        (0, "partner-in-maintenance")
    );
    assert_eq!(server.scopes(), ["alpha", "beta"]);

    for answer in [no_answer(), peer_answer(1, None), PeerAnswer::parse(br#"{ "result": 0 }"#)] {
        let mut server = start("hot-standby");
        server.answer_maintenance(answer);
        assert_eq!((server.late_answer().expect("an answer").result, server.state()), (0, "partner-down"));
        assert_eq!((server.partner_state(), server.service), ("unavailable", true));
    }
    for code in [1001, 2, 4] {
        let mut server = start("hot-standby");
        server.answer_maintenance(peer_answer(code, None));
        let answer = server.late_answer().expect("an answer");
        assert!(answer.result == 1 && answer.text.contains(&code.to_string()), "{answer:?}");
        assert_eq!((server.state(), server.partner_state()), ("hot-standby", "unavailable"));
    }
    for state in ["in-maintenance", "partner-in-maintenance", "terminated"] {
        let mut server = Server::reach("load-balancing", "alpha", state, json!({}));
        assert_eq!(server.result("ha-maintenance-start", None), 1);
        assert!(server.maintenance_sent().is_none());
    }
    assert_eq!(Server::new("load-balancing", "gamma", json!({})).result("ha-maintenance-start", None), 1);
    assert_eq!(Server::new("passive-backup", "alpha", json!({})).result("ha-maintenance-start", None), 1);
}

#[test]
fn maintenance_serves_everybody_even_without_auto_failover() {
    let mut map = relationship("load-balancing", "alpha", json!({}));
    map["peers"][0]["auto-failover"] = json!(false);
    let mut server = Server::with(vec![valid(map)]);
    server.partner("ready");
    server.finish_sync(true);
    server.partner("load-balancing");
    server.command("ha-maintenance-start", None);
    server.answer_maintenance(no_answer());
    assert_eq!((server.state(), server.scopes().len()), ("partner-down", 2));
}

#[test]
fn maintenance_cancel_by_the_partners_answer() {
    let cancel = || {
        let mut server = Server::reach("load-balancing", "alpha", "partner-in-maintenance", json!({}));
        assert_eq!(server.command("ha-maintenance-cancel", None), None);
        let (_, cancel, state) = server.maintenance_sent().expect("a notice");
        assert_eq!((cancel, state.name()), (true, "load-balancing"));
        server
    };
    let mut server = cancel();
    server.answer_maintenance(peer_answer(0, Some(json!({ "state": "waiting" }))));
    assert_eq!((server.late_answer().expect("an answer").result, server.state()), (0, "load-balancing"));
    assert_eq!(server.partner_state(), "waiting");
    // Older ones do not say what they are in: that alone does not move the machine.
    let mut server = cancel();
    server.answer_maintenance(peer_answer(0, None));
    assert_eq!((server.state(), server.partner_state()), ("load-balancing", "unavailable"));
    server.partner("load-balancing");
    assert_eq!(server.state(), "load-balancing");
    for answer in [no_answer(), peer_answer(1, None)] {
        let mut server = cancel();
        server.answer_maintenance(answer);
        assert_eq!(
            (server.late_answer().expect("an answer").result, server.state()),
            (1, "partner-in-maintenance")
        );
        assert_eq!(server.partner_state(), "unavailable");
    }
    assert_eq!(
        Server::reach("load-balancing", "alpha", "load-balancing", json!({}))
            .result("ha-maintenance-cancel", None),
        1
    );
}

#[test]
fn maintenance_is_asked_of_all_relationships_until_one_refuses() {
    let pair = |first: &str, second: &str| {
        valid(json!({ "this-server-name": first, "mode": "hot-standby", "peers": [
            { "name": first, "url": "http://10.9.1.1:8005/", "role": "primary" },
            { "name": second, "url": "http://10.9.1.2:8005/", "role": "standby" } ] }))
    };
    let hub = || {
        let mut second = pair("c", "d");
        second.index = 1;
        let mut server = Server::with(vec![pair("a", "b"), second]);
        server.command("ha-maintenance-start", None);
        server
    };
    let mut server = hub();
    server.answer_maintenance(peer_answer(0, None));
    assert!(server.late_answer().is_none());
    let (ticket, ..) = server.maintenance_sent().expect("a second notice");
    server.ha.handle(server.now, 1, Event::MaintenanceAnswered { ticket, answer: peer_answer(1001, None) });
    server.collect();
    assert_eq!(server.late_answer().expect("an answer").result, 1);
    assert_eq!(server.ha.list()[0].state().name(), "partner-in-maintenance");
    assert_eq!(server.ha.list()[1].state().name(), "waiting");
    let mut server = hub();
    server.answer_maintenance(peer_answer(1001, None));
    assert_eq!(server.late_answer().expect("an answer").result, 1);
    assert_eq!(server.ha.list()[1].state().name(), "waiting", "not asked at all");
    assert_eq!(server.maintenance_sent().map(|sent| sent.1), Some(false));
}

fn disable(server: &mut Server, arguments: Value) -> u32 {
    let answer = match ServiceRequest::parse(Some(&arguments)) {
        Ok(request) => server.ha.disable(server.now, request),
        Err(answer) => answer,
    };
    server.collect();
    answer.result
}

fn enable(server: &mut Server, arguments: Value) {
    let request = ServiceRequest::parse(Some(&arguments)).expect("valid");
    assert_eq!(server.ha.enable(server.now, request).result, 0);
    server.collect();
}

#[test]
fn b90_origins_hold_the_service_apart() {
    let mut server =
        Server::reach("load-balancing", "alpha", "load-balancing", json!({ "heartbeat-delay": 100_000 }));
    for origin in [2000, 2001] {
        assert_eq!(disable(&mut server, json!({ "origin-id": origin })), 0);
    }
    assert!(!server.service && !server.word.service());
    enable(&mut server, json!({ "origin-id": 2000 }));
    assert!(!server.service);
    enable(&mut server, json!({ "origin-id": 2001 }));
    assert!(server.service && server.word.service());
    disable(&mut server, json!({ "origin-id": 2000, "max-period": 1 }));
    disable(&mut server, json!({ "origin-id": 2001, "max-period": 2 }));
    server.advance(1000);
    assert!(!server.service);
    assert!(
        !server.ha.service_status()["disabled-by-remote-command"]
            .as_array()
            .expect("a list")
            .contains(&json!(2000))
    );
    server.advance(1000);
    assert!(server.service);
}

#[test]
fn b91_arguments_of_dhcp_disable() {
    let mut server = Server::reach("load-balancing", "alpha", "load-balancing", json!({}));
    for bad in [
        json!({ "max-period": 0 }),
        json!({ "max-period": "1" }),
        json!({ "max-period": -1 }),
        json!({ "origin": "x" }),
        json!({ "origin": true }),
        json!({ "origin-id": "2000" }),
        json!({ "origin-id": 3000, "max-period": 1 }),
        json!([]),
    ] {
        assert_eq!(disable(&mut server, bad), 1);
    }
    assert!(server.service);
    let origin = |arguments: Value| ServiceRequest::parse(Some(&arguments)).expect("valid").origin;
    assert_eq!(origin(json!({ "origin-id": 2005, "origin": "user" })), 2005);
    assert_eq!(origin(json!({ "origin": "ha-partner" })), 2000);
    assert_eq!(origin(json!({ "origin": 2003 })), 2003);
    assert_eq!(origin(json!({})), 1);
    assert_eq!(ServiceRequest::parse(None).expect("valid").origin, 1);
}

#[test]
fn b92_completion_notice_releases_the_origin() {
    let mut server = Server::reach("load-balancing", "alpha", "load-balancing", json!({}));
    disable(&mut server, json!({ "origin-id": 2003, "max-period": 60 }));
    assert_eq!(
        server.result("ha-sync-complete-notify", Some(json!({ "origin-id": 2003, "origin": 2000 }))),
        0
    );
    assert!(server.service);
    // A partner of 2.2 disables us as `ha-partner` and then names nobody.
    disable(&mut server, json!({ "origin": "ha-partner", "max-period": 60 }));
    assert_eq!(server.result("ha-sync-complete-notify", None), 0);
    assert!(server.service);
    for bad in [json!({ "origin-id": "2000" }), json!({ "origin": "ha-partner" }), json!([])] {
        assert_eq!(server.result("ha-sync-complete-notify", Some(bad)), 1);
    }
}

#[test]
fn partner_down_rests_between_the_notice_and_the_next_heartbeat() {
    let noticed = || {
        let mut server = Server::reach("load-balancing", "alpha", "partner-down", json!({}));
        disable(&mut server, json!({ "origin-id": 2000, "origin": "ha-partner", "max-period": 60 }));
        server.result("ha-sync-complete-notify", Some(json!({ "origin-id": 2000, "origin": 2000 })));
        assert!(!server.service);
        server
    };
    let mut server = noticed();
    server.partner("ready");
    assert_eq!((server.state(), server.service), ("load-balancing", true));
    let mut server = noticed();
    server.silence();
    assert_eq!((server.state(), server.service), ("partner-down", true));
    // A partner that is back in `syncing` and then falls silent must not leave the clients without service.
    let mut server = noticed();
    server.partner("syncing");
    assert!(!server.service);
    server.silence();
    assert!(server.service);
    // Nor one that goes on answering without getting ready.
    let mut server = noticed();
    server.partner("waiting");
    server.partner("waiting");
    assert_eq!((server.state(), server.service), ("partner-down", true));
}

#[test]
fn copy_given_up_does_not_keep_the_service_off() {
    let extra = json!({ "max-response-delay": 15_000, "heartbeat-delay": 10_000 });
    let mut server = Server::reach("hot-standby", "alpha", "hot-standby", extra);
    disable(&mut server, json!({ "origin-id": 2000, "origin": "ha-partner", "max-period": 60 }));
    // While it says that it copies, it may.
    for _ in 0..3 {
        server.partner("syncing");
        assert!(!server.service);
    }
    disable(&mut server, json!({ "origin-id": 2000, "origin": "ha-partner", "max-period": 60 }));
    server.partner("hot-standby");
    assert!(!server.service, "the order is new");
    server.partner("hot-standby");
    assert!(server.service);
}

#[test]
fn copy_that_missed_changes_is_made_again() {
    let extra = json!({ "max-response-delay": 15_000 });
    let mut server = Server::reach("load-balancing", "alpha", "partner-down", extra);
    server.partner("syncing");
    disable(&mut server, json!({ "origin-id": 2000, "origin": "ha-partner", "max-period": 5 }));
    server.advance(5000);
    assert!(server.service, "the period is over before the copy");
    server.event(Event::Unsent(1));
    server.partner("ready");
    assert_eq!(server.state(), "partner-down");
    let ticket = server.reset_sent().expect("a reset");
    server.event(Event::ResetAnswered { ticket, answer: peer_answer(0, None) });
    assert_eq!(server.state(), "partner-down");
    server.partner("waiting");
    server.partner("ready");
    assert_eq!(server.state(), "load-balancing");
}

/// A partner that was waiting when it was asked has copied since; then this server's hold on the service ended, and it gave a lease.
#[test]
fn answer_of_before_a_copy_says_nothing_of_what_changed_after_it() {
    for is_late in [true, false] {
        let mut server = Server::reach("hot-standby", "alpha", "partner-down", json!({}));
        server.event(Event::Unsent(1));
        if is_late {
            server.await_heartbeat();
        }
        server.result("ha-sync-complete-notify", None);
        assert!(!server.service);
        server.result("ha-reset", None);
        server.event(Event::Unsent(1));
        server.partner("waiting");
        assert_eq!((server.state(), server.service), ("partner-down", true));
        server.partner("ready");
        assert_eq!(server.reset_sent().is_some(), is_late);
        assert_eq!(server.state(), if is_late { "partner-down" } else { "hot-standby" });
    }
}

/// A server that serves alone counts what it does not send where the log is written, and may be in its normal state before the count is heard.
#[test]
fn what_is_counted_when_the_pair_is_normal_already_is_copied_once_more() {
    for mode in ["load-balancing", "hot-standby"] {
        let mut server = Server::reach(mode, "alpha", mode, json!({}));
        server.event(Event::Unsent(0));
        server.partner(mode);
        assert_eq!(server.reset_sent(), None, "nothing is missing");
        server.forget();
        server.event(Event::Unsent(1));
        let ticket = server.reset_sent().expect("a reset");
        assert_eq!(server.logged(), ["HA_PARTNER_LACKS_CHANGES"]);
        server.event(Event::ResetAnswered { ticket, answer: no_answer() });
        assert_eq!(server.reset_sent(), Some(ticket), "not before the next heartbeat");
        server.partner(mode);
        let again = server.reset_sent().expect("another");
        assert_ne!(again, ticket);
        server.event(Event::ResetAnswered { ticket: again, answer: peer_answer(0, None) });
        for state in ["waiting", "syncing", "ready", mode, mode] {
            server.partner(state);
        }
        assert_eq!((server.state(), server.reset_sent()), (mode, Some(again)), "once is enough");
        // One that does not know the command cannot be made to.
        server.event(Event::Unsent(1));
        let ticket = server.reset_sent().expect("a reset");
        server.forget();
        server.event(Event::ResetAnswered { ticket, answer: peer_answer(2, None) });
        assert_eq!(server.logged(), ["HA_RESET_FAILED"], "an operator must help");
        server.partner(mode);
        assert_eq!(server.reset_sent(), None, "nor is it asked again");
        // One that copies anyway need not be told to.
        server.event(Event::Unsent(1));
        let ticket = server.reset_sent().expect("a reset");
        server.event(Event::ResetAnswered { ticket, answer: no_answer() });
        server.result("ha-sync-complete-notify", None);
        server.partner(mode);
        assert_eq!(server.reset_sent(), Some(ticket));
    }
    // While the partner is silent, what is kept for it would not bring this to it.
    let mut server =
        Server::reach("load-balancing", "alpha", "load-balancing", json!({ "delayed-updates-limit": 10 }));
    server.event(Event::Unsent(1));
    let ticket = server.reset_sent().expect("a reset");
    server.event(Event::ResetAnswered { ticket, answer: no_answer() });
    server.silence();
    assert_eq!(server.state(), "communication-recovery");
    server.forget();
    server.partner("load-balancing");
    let ticket = server.reset_sent().expect("a reset");
    server.event(Event::ResetAnswered { ticket, answer: peer_answer(0, None) });
    assert_eq!(server.transitions().first(), Some(&"waiting"));
}

#[test]
fn partner_that_dies_over_its_copy_does_not_keep_the_service_off() {
    let extra = json!({ "max-response-delay": 15_000 });
    let mut server = Server::reach("load-balancing", "alpha", "partner-down", extra);
    server.partner("syncing");
    disable(&mut server, json!({ "origin-id": 2000, "origin": "ha-partner", "max-period": 60 }));
    disable(&mut server, json!({ "origin-id": 2001 }));
    server.silence();
    assert!(!server.service);
    server.silence();
    assert!(!server.service, "the other one has no period: somebody means it");
    enable(&mut server, json!({ "origin-id": 2001 }));
    assert!(server.service);
}

#[test]
fn b93_restricted_listener_lets_partners_commands_through() {
    for command in [
        "ha-scopes",
        "ha-sync",
        "ha-continue",
        "ha-maintenance-start",
        "ha-maintenance-cancel",
        "config-get",
        "lease4-wipe",
        "lease4-add",
        "lease6-update",
        "lease6-get-page",
    ] {
        assert!(!is_listener_command(command), "{command}");
    }
    for command in [
        "lease4-update",
        "lease4-del",
        "lease4-get-page",
        "lease4-get-all",
        "ha-heartbeat",
        "ha-reset",
        "dhcp-disable",
        "status-get",
        "list-commands",
        "ha-maintenance-notify",
        "ha-sync-complete-notify",
    ] {
        assert!(is_listener_command(command), "{command}");
    }
}

#[test]
fn b95_status_before_and_after_contact() {
    let mut server = Server::new("load-balancing", "alpha", json!({}));
    let status = server.ha.status(server.now).expect("HA");
    let remote = &status[0]["ha-servers"]["remote"];
    assert_eq!(remote["in-touch"], json!(false));
    assert_eq!(
        (&remote["age"], &remote["last-state"], &remote["clock-skew"]),
        (&json!(0), &json!(""), &Value::Null)
    );
    server.answer_with("waiting", -5, Some(0));
    server.advance(4000);
    let status = server.ha.status(server.now).expect("HA");
    let expected = json!([{ "ha-mode": "load-balancing", "ha-servers": {
        "local": { "role": "primary", "server-name": "alpha", "scopes": [], "state": "syncing", "system-time": "2026-01-01 01:00:10" },
        "remote": { "role": "secondary", "server-name": "beta", "in-touch": true, "age": 4, "last-state": "waiting",
            "last-scopes": [], "communication-interrupted": false, "connecting-clients": 0, "unacked-clients": 0,
            "unacked-clients-left": 0, "analyzed-packets": 0, "system-time": "2026-01-01 01:00:05", "clock-skew": -5 } } }]);
    assert_eq!(status, expected);
    for server in
        [Server::new("load-balancing", "gamma", json!({})), Server::new("passive-backup", "alpha", json!({}))]
    {
        assert!(server.ha.status(server.now).expect("HA")[0]["ha-servers"].get("remote").is_none());
    }
}

#[test]
fn status_counts_down_the_unacked_clients() {
    let mut server = Server::reach(
        "hot-standby",
        "beta",
        "hot-standby",
        json!({ "max-response-delay": 15_000, "max-unacked-clients": 5 }),
    );
    server.silence();
    server.unacked(2);
    let remote =
        |server: &Server| server.ha.status(server.now).expect("HA")[0]["ha-servers"]["remote"].clone();
    assert_eq!(remote(&server)["unacked-clients-left"], json!(0));
    server.silence();
    server.unacked(2);
    let seen = remote(&server);
    assert_eq!(
        (&seen["communication-interrupted"], &seen["last-state"], &seen["clock-skew"]),
        (&json!(true), &json!("unavailable"), &Value::Null)
    );
    assert_eq!(
        (&seen["unacked-clients"], &seen["unacked-clients-left"], &seen["in-touch"]),
        (&json!(2), &json!(4), &json!(true))
    );
}

#[test]
fn all_ha_commands_are_known_by_name() {
    for name in HA_COMMANDS {
        assert!(HaRequest::parse(name, None).is_some());
    }
    assert!(HaRequest::parse("lease4-get", None).is_none());
}

/// What a Kea 2.2 and its partner said to each other, said to us: every request reads, every answer reads, and where our answer does
/// not depend on what happened before, its code is the same.
#[test]
fn captured_requests_and_answers_read() {
    let text = include_str!("../data/ha/captured-2.2.txt");
    let requests = text.lines().filter_map(|line| line.strip_prefix(">> "));
    let answers = text.lines().filter_map(|line| line.strip_prefix("<< "));
    let mut seen = 0;
    for (request, answer) in requests.zip(answers) {
        seen += 1;
        let head = Head::scan(request.as_bytes()).expect(request);
        let arguments: Option<Value> =
            head.arguments.map(|arguments| serde_json::from_slice(arguments).expect("JSON"));
        let theirs = PeerAnswer::parse(answer.as_bytes());
        if answer.starts_with('{') {
            assert!(theirs.is_err(), "a bare map: {answer}");
            continue;
        }
        let theirs = theirs.expect(answer);
        let ours = match head.command.as_str() {
            "dhcp-disable" | "dhcp-enable" => {
                ServiceRequest::parse(arguments.as_ref()).map_or_else(|answer| answer.result, |_| 0)
            }
            "lease4-del" => {
                parse_delete4(arguments.as_ref()).expect(request);
                continue;
            }
            "lease4-update" => {
                let mut reader = LeaseReader::default();
                let arguments = head.arguments.expect("arguments");
                let read = reader.update4(&mut Scanner::new(arguments)).expect("JSON").is_ok();
                assert_eq!(read, !theirs.text.starts_with("missing parameter"), "{request}");
                continue;
            }
            "lease4-get-page" => {
                PageRequest::parse(arguments.as_ref()).expect(request);
                assert_eq!(PageAnswer::scan(answer.as_bytes()).expect(answer).result, theirs.result);
                continue;
            }
            "ha-heartbeat" => {
                let read = HeartbeatAnswer::parse(Ok(theirs.clone()));
                assert_eq!(read.is_ok(), theirs.result == 0, "{answer}");
                continue;
            }
            "ha-sync" | "ha-maintenance-start" | "ha-maintenance-cancel" => {
                HaRequest::parse(&head.command, arguments.as_ref()).expect("known").expect("valid");
                continue;
            }
            name => {
                let renamed = arguments.map(|arguments| {
                    let text = arguments.to_string().replace("server1", "alpha").replace("server2", "beta");
                    serde_json::from_str(&text).expect("JSON")
                });
                Server::reach("load-balancing", "alpha", "load-balancing", json!({})).result(name, renamed)
            }
        };
        assert_eq!(i64::from(ours), theirs.result, "{request}");
    }
    assert_eq!(seen, 45);
}

#[test]
fn requests_with_strange_outsides_are_refused() {
    for body in ["[]", "7", "{}", r#"{"command":7}"#, r#"{"command":"x","foo":1}"#, r#"{"command":"x""#, ""] {
        assert_eq!(Head::scan(body.as_bytes()).expect_err("refused").result, 1, "{body}");
    }
    let body = br#"{"service":["dhcp4"],"command":"ha-\u0072eset","remote-address":"10.0.0.1"}"#;
    let head = Head::scan(body).expect("valid");
    assert_eq!(
        (head.command.as_str(), head.arguments, head.service),
        ("ha-reset", None, Some(&br#"["dhcp4"]"#[..]))
    );
}

#[test]
fn deletions_by_address_or_client() {
    let key = |arguments: Value| parse_delete4(Some(&arguments));
    let address = key(json!({ "ip-address": "10.0.0.1", "hw-address": 7 }));
    assert_eq!(address, Ok(LeaseKey::Address([10, 0, 0, 1].into())));
    let by = |kind: &str, identifier: &str| {
        key(json!({ "subnet-id": 3, "identifier-type": kind, "identifier": identifier }))
    };
    assert_eq!(by("client-id", "01:02"), Ok(LeaseKey::ClientId(SubnetId(3), [1, 2].into())));
    assert!(matches!(by("hw-address", "02:00:00:00:00:01"), Ok(LeaseKey::HwAddr(SubnetId(3), _))));
    let refused = [
        by("duid", "01"),
        by("client-id", ""),
        by("client-id", "zz"),
        key(json!({})),
        key(json!([])),
        key(json!({ "ip-address": "::1" })),
        parse_delete4(None),
    ];
    for refused in refused {
        assert_eq!(refused.expect_err("refused").result, 1);
    }
}
