//! A running server (see `tests/lab`) whose partner is played over real connections: clocks that are apart, updates that are rejected,
//! heartbeats that are not as they must be, credentials, the listener's filter. Numbers are those of the conformance list.

mod lab;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddrV4, TcpStream};
use std::time::Duration;

use lab::Program::Aplomado;
use lab::peer::Peer;
use lab::{CONTROL, Lab, Setup, now, until};
use serde_json::{Value, json};

/// A primary whose partner is played, in `hot-standby`.
fn pair(name: &'static str, relationship: Value, partner: Value) -> Option<(Lab, Peer)> {
    let mut setup = Setup::new(name, "hot-standby", &[Aplomado, Aplomado]);
    setup.relationship = relationship;
    let mut entry = json!({ "url": "http://10.78.0.100:8005/" });
    entry.as_object_mut().expect("a map").extend(partner.as_object().expect("a map").clone());
    setup.peers = vec![json!({}), entry];
    start(setup)
}

fn start(setup: Setup) -> Option<(Lab, Peer)> {
    let mut lab = Lab::new(setup)?;
    let peer = Peer::listen(8005);
    lab.start(0);
    lab.await_state(0, "ready");
    peer.script(|script| script.state = "ready");
    lab.await_state(0, "hot-standby");
    peer.script(|script| script.state = "hot-standby");
    peer.await_heartbeats(2);
    Some((lab, peer))
}

fn servers(lab: &Lab) -> Value {
    let answer = lab.order(0, "status-get", &Value::Null);
    answer["arguments"]["high-availability"][0]["ha-servers"].clone()
}

fn remote(lab: &Lab) -> Value {
    servers(lab)["remote"].clone()
}

fn sleep(time: Duration) {
    let start = now();
    while now().duration_since(start) < time {
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

/// Clocks apart in one direction: not said, said once, still a pair, not a pair any more. Of two clocks that show whole seconds the difference
/// may come out one less than it is.
fn skew(name: &'static str, [silent, said, last, end]: [i64; 4]) {
    let Some((lab, peer)) = pair(name, json!({}), json!({})) else { return };
    lab.serve(1);
    let times = |message: &str| lab.log(0).matches(message).count();
    let is_about = |found: &Value, skew: i64| {
        let found = found.as_i64().expect("a number");
        found == skew || found == skew - 1
    };
    let apart = |skew: i64| {
        peer.script(|script| script.ahead_s = skew);
        peer.await_heartbeats(3);
        let servers = servers(&lab);
        let text = |which: &str| servers[which]["system-time"].as_str().map(str::len);
        (servers["remote"]["clock-skew"].clone(), text("local"), text("remote"))
    };
    for (skew, warned) in [(0, 0), (silent, 0), (said, 1), (last, 1)] {
        let (found, local, remote) = apart(skew);
        assert!(is_about(&found, skew), "{found} instead of {skew}");
        assert_eq!((local, remote), (Some(19), Some(19)), "both times are told");
        assert_eq!(times("HA_HIGH_CLOCK_SKEW "), warned, "at {skew} s");
        assert_eq!(lab.state(0).as_deref(), Some("hot-standby"), "at {skew} s");
    }
    assert_eq!(times("HA_HIGH_CLOCK_SKEW_CAUSED_TERMINATION"), 0);
    peer.script(|script| script.ahead_s = end);
    lab.await_state(0, "terminated");
    assert_eq!(times("HA_HIGH_CLOCK_SKEW_CAUSED_TERMINATION"), 1);
    assert_eq!(times("HA_HIGH_CLOCK_SKEW "), 1, "not again within a minute");
    // From now on nothing is sent, and clients are served.
    sleep(Duration::from_millis(300));
    let heard = peer.heard().len();
    lab.serve_all(2..6);
    sleep(Duration::from_millis(700));
    assert_eq!(peer.heard().len(), heard, "{:?}", peer.heard().last());
    // The clocks are right again, and both are told to begin anew.
    peer.script(|script| {
        script.ahead_s = 0;
        script.state = "waiting";
    });
    lab.order(0, "ha-reset", &Value::Null);
    lab.await_state(0, "ready");
    let left = remote(&lab)["clock-skew"].as_i64().expect("seconds");
    assert!(left.abs() <= 1, "{left}");
}

#[test]
fn b45_a_partner_whose_clock_is_fast_is_warned_about_and_then_left() {
    skew("k-fast", [30, 32, 60, 62]);
}

#[test]
fn b45_a_partner_whose_clock_is_slow_is_warned_about_and_then_left() {
    skew("k-slow", [-29, -31, -59, -61]);
}

#[test]
fn b47_clients_whose_updates_are_rejected_end_the_pair_when_they_are_enough() {
    let Some((lab, peer)) = pair("rej", json!({ "max-rejected-lease-updates": 3 }), json!({})) else {
        return;
    };
    lab.serve(1);
    peer.script(|script| script.update_result = 4);
    for client in [10, 11, 10, 11] {
        assert_eq!(lab.try_to_serve(client), None, "client {client}");
    }
    assert_eq!(remote(&lab)["last-state"], "hot-standby", "a conflict is no failure");
    assert_eq!(lab.state(0).as_deref(), Some("hot-standby"));
    // One of them succeeds, and does not count any more.
    peer.script(|script| script.update_result = 0);
    lab.serve(10);
    peer.script(|script| script.update_result = 4);
    assert_eq!(lab.try_to_serve(12), None);
    assert_eq!(lab.state(0).as_deref(), Some("hot-standby"));
    assert_eq!(lab.try_to_serve(13), None);
    lab.await_state(0, "terminated");
    assert_eq!(lab.log(0).matches("HA_LEASE_UPDATE_REJECTS_CAUSED_TERMINATION").count(), 1);
    let updates = peer.count("lease4-update");
    lab.serve_all(10..20);
    assert_eq!(peer.count("lease4-update"), updates, "nothing is sent any more");
}

#[test]
fn b18_heartbeats_go_to_the_partner_alone_with_the_credentials_of_its_entry() {
    let entry = |port: u16, user: &str, password: &str| json!({ "url": format!("http://10.78.0.100:{port}/"), "basic-auth-user": user, "basic-auth-password": password });
    let mut setup = Setup::new("auth", "hot-standby", &[Aplomado, Aplomado, Aplomado]);
    setup.peers = vec![
        json!({ "basic-auth-user": "own", "basic-auth-password": "secret" }),
        entry(8005, "partner", "p1"),
        entry(8006, "backup", "p2"),
    ];
    let Some(mut lab) = Lab::new(setup) else { return };
    let [partner, backup] = [8005, 8006].map(Peer::listen);
    lab.start(0);
    lab.await_state(0, "ready");
    partner.script(|script| script.state = "ready");
    lab.await_state(0, "hot-standby");
    partner.script(|script| script.state = "hot-standby");
    partner.await_heartbeats(3);
    lab.serve_all(0..3);
    until("updates to the backup", || (backup.count("lease4-update") == 3).then_some(()));
    partner.await_heartbeats(3);
    assert_eq!(backup.count("ha-heartbeat"), 0);
    assert!(partner.count("ha-heartbeat") >= 6);
    // base64 of "partner:p1" and of "backup:p2".
    for (peer, credentials) in [(&partner, "Basic cGFydG5lcjpwMQ=="), (&backup, "Basic YmFja3VwOnAy")] {
        for heard in peer.heard() {
            let line =
                heard.head.lines().find(|line| line.to_ascii_lowercase().starts_with("authorization:"));
            let value = line.and_then(|line| line.split_once(": ")).map(|(_, value)| value.trim());
            assert_eq!(value, Some(credentials), "{}", heard.head);
        }
    }
}

#[test]
fn b65_a_partner_that_refuses_with_401_is_unavailable_and_the_response_is_dropped() {
    let Some((lab, peer)) = pair("p-401", json!({ "max-response-delay": 60_000 }), json!({})) else { return };
    lab.serve(1);
    peer.script(|script| script.status = 401);
    assert_eq!(lab.try_to_serve(2), None);
    assert_eq!(remote(&lab)["last-state"], "unavailable");
    assert!(lab.log(0).contains("refused with 401"));
    peer.script(|script| script.status = 200);
    until("contact", || (remote(&lab)["last-state"] == "hot-standby").then_some(()));
    lab.serve(2);
}

#[test]
fn b20_to_b23_heartbeats_that_are_not_as_they_must_be_are_no_contact() {
    let Some((lab, peer)) = pair("hb", json!({ "max-response-delay": 60_000 }), json!({})) else { return };
    let date = "Wed, 18 Nov 2026 11:06:40 GMT";
    let now_date = aplomado::ha::command::date::format_http(lab::peer::wall_s());
    let answer = |arguments: Value| json!([{ "result": 0, "text": "", "arguments": arguments }]);
    let good = json!({ "state": "hot-standby", "date-time": now_date });
    let with = |key: &str, value: Value| {
        let mut map = good.clone();
        map[key] = value;
        answer(map)
    };
    let contacted = || {
        until("contact", || (remote(&lab)["last-state"] == "hot-standby").then_some(()));
        remote(&lab)["age"].as_u64().expect("seconds")
    };
    for (case, body, is_contact) in [
        ("no counter, no scopes", answer(good.clone()), true),
        ("scopes of another type", with("scopes", json!("one")), true),
        ("counter", with("unsent-update-count", json!(7)), true),
        ("refused", json!([{ "result": 1, "text": "no" }]), false),
        ("no state", answer(json!({ "date-time": date })), false),
        ("unknown state", with("state", json!("asleep")), false),
        ("no date", answer(json!({ "state": "hot-standby" })), false),
        ("no such date", with("date-time", json!("yesterday")), false),
        ("a counter that is a text", with("unsent-update-count", json!("7")), false),
        ("a bare map", json!({ "result": 0, "arguments": good }), false),
        ("an empty list", json!([]), false),
        ("no map", json!([7]), false),
    ] {
        peer.script(|script| script.heartbeat = None);
        contacted();
        peer.script(|script| script.heartbeat = Some(body));
        peer.await_heartbeats(2);
        if is_contact {
            assert_eq!(contacted(), 0, "{case}");
            continue;
        }
        until(case, || (remote(&lab)["last-state"] == "unavailable").then_some(()));
        // Time goes on since the last contact, whatever else comes.
        sleep(Duration::from_millis(1100));
        let found = remote(&lab);
        assert!(found["age"].as_u64() >= Some(1) && found["clock-skew"].is_null(), "{case}: {found}");
    }
}

/// Asks by HTTP: status, and the body.
fn ask(head: &str, body: &Value) -> (String, Value) {
    let mut stream = TcpStream::connect(SocketAddrV4::new(CONTROL[0], 8005)).expect("it listens");
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
    let text = body.to_string();
    let request = format!(
        "POST / HTTP/1.1\r\n{head}Content-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{text}",
        text.len()
    );
    stream.write_all(request.as_bytes()).expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    let status = head.split(' ').nth(1).expect("a status").to_owned();
    (status, serde_json::from_str(body).expect("JSON"))
}

#[test]
fn b93_a_restricted_listener_refuses_the_operators_commands_and_executes_the_partners() {
    let Some((lab, _peer)) = pair("r-93", json!({ "restrict-commands": true }), json!({})) else { return };
    let command = |name: &str, arguments: Value| {
        ask("", &json!({ "command": name, "service": ["dhcp4"], "arguments": arguments }))
    };
    for (name, arguments) in [
        ("ha-scopes", json!({ "scopes": [] })),
        ("ha-sync", json!({ "server-name": "two" })),
        ("ha-continue", json!({})),
        ("ha-maintenance-start", json!({})),
        ("config-get", json!({})),
        ("lease4-wipe", json!({ "subnet-id": 1 })),
    ] {
        assert_eq!(
            command(name, arguments),
            ("403".to_owned(), json!({ "result": 403, "text": "Forbidden" })),
            "{name}"
        );
    }
    assert_eq!(servers(&lab)["local"]["scopes"], json!(["one"]), "nothing was done");
    let lease = json!({ "ip-address": "10.77.10.200", "hw-address": "02:00:00:00:00:99", "subnet-id": 1, "valid-lft": 3600,
        "expire": lab::peer::wall_s() + 3600, "fqdn-fwd": false, "fqdn-rev": false, "hostname": "", "state": 0, "force-create": true,
        "origin": "ha-partner" });
    let (status, answer) = command("lease4-update", lease);
    assert_eq!((status.as_str(), &answer[0]["result"]), ("200", &json!(0)), "{answer}");
    let there = lab.order(0, "lease4-get", &json!({ "ip-address": "10.77.10.200" }));
    assert_eq!(there["arguments"]["hw-address"], "02:00:00:00:00:99");
}
