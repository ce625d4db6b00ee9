//! The configuration while the server runs.

use std::fs;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::place::{FUTURE_S, PROGRAM, Place, Server, row};

#[test]
fn a_bad_configuration_leaves_the_old_one_in_force() {
    let place = Place::new();
    place.write_config(&place.base());
    let mut server = place.start();
    let before = server.ask("config-get", Value::Null);

    let mut bad = place.base();
    bad["subnet4"][1]["subnet"] = json!("10.0.0.0/99");
    server.expect(1, "config-set", json!({ "Dhcp4": bad }));
    server.expect(1, "config-test", json!({ "Dhcp4": bad }));
    fs::write(place.path("kea.conf"), "{ \"Dhcp4\": { \"nonsense\": 1 } }").expect("written");
    let refused = server.expect(1, "config-reload", Value::Null);
    let text = refused["text"].as_str().expect("a text");
    let start = "Config reload failed: configuration error using file '";
    assert!(text.starts_with(start) && text.contains("nonsense"), "{text}");
    server.signal("HUP");
    server.hears("the old configuration stays");
    fs::write(place.path("kea.conf"), "{ }").expect("written");
    server.expect(1, "config-reload", Value::Null);

    assert_eq!(server.ask("config-get", Value::Null), before);
    server.expect(0, "subnet4-get", json!({ "id": 2 }));
    server.stop();
}

#[test]
fn a_configuration_with_more_addresses_than_there_is_room_for_takes_none_of_it() {
    let place = Place::new();
    let mut dhcp4 = place.base();
    place.write_config(&dhcp4);
    let server = place.start();
    let mut pool = |result: i64, command: &str, pool: &str| {
        dhcp4["subnet4"] = json!([{ "id": 1, "subnet": "0.0.0.0/0", "pools": [ { "pool": pool } ] }]);
        server.expect(result, command, json!({ "Dhcp4": dhcp4 }))
    };
    for command in ["config-test", "config-set"] {
        let answer = pool(1, command, "16.0.0.0/4");
        assert!(answer["text"].as_str().is_some_and(|text| text.contains("no room")), "{command}: {answer}");
    }
    // Half of all room, which a refused configuration must not have taken.
    pool(0, "config-test", "11.0.0.0/8");
    pool(0, "config-set", "11.0.0.0/8");
    server.stop();
}

/// A pool of sixteen million addresses wants room for them, and other commands are answered while it is made.
#[test]
fn commands_are_answered_while_room_is_made_for_a_big_pool() {
    let place = Place::new();
    let mut dhcp4 = place.base();
    place.write_config(&dhcp4);
    let mut server = place.start();
    dhcp4["subnet4"] =
        json!([{ "id": 1, "subnet": "11.0.0.0/8", "pools": [ { "pool": "11.0.0.0 - 11.255.255.255" } ] }]);
    let mut stream = UnixStream::connect(place.path("socket")).expect("it listens");
    let command = json!({ "command": "config-set", "arguments": { "Dhcp4": dhcp4 } }).to_string();
    stream.write_all(command.as_bytes()).expect("it reads");
    stream.shutdown(Shutdown::Write).expect("half closed");
    stream.set_nonblocking(true).expect("settable");
    let (mut others, mut answer) = (0, [0; 4096]);
    let count = loop {
        match stream.read(&mut answer) {
            Ok(count) => break count,
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
        server.expect(0, "version-get", Value::Null);
        others += 1;
        // Else many would be answered in one turn of the control thread.
        std::thread::park_timeout(Duration::from_millis(1));
    };
    let answer: Value = serde_json::from_slice(&answer[..count]).expect("whole");
    assert_eq!(answer["result"], 0, "{answer}");
    // Some can be on their way before it begins and when it ends.
    assert!(others > 4, "{others} answers meanwhile");
    assert_eq!(server.add("11.255.255.254", 1)["result"], 0);
    // The same again by signal, beside which a command waits its turn.
    dhcp4["subnet4"][0]["subnet"] = json!("12.0.0.0/7");
    dhcp4["subnet4"][0]["pools"][0]["pool"] = json!("12.0.0.0 - 12.127.255.255");
    place.write_config(&dhcp4);
    server.signal("HUP");
    server.expect(0, "config-set", json!({ "Dhcp4": place.base() }));
    for subnets in ["1 subnet(s)", "2 subnet(s)"] {
        server.hears(&format!("the configuration is in force: {subnets}"));
    }
    server.stop();
}

#[test]
fn counters_of_a_subnet_are_right_when_it_comes_back() {
    let place = Place::new();
    let whole = place.base();
    let mut part = whole.clone();
    part["subnet4"] = json!([whole["subnet4"][0]]);
    place.write_config(&whole);
    let server = place.start();
    for host in 1..=5 {
        assert_eq!(server.add(&format!("10.9.0.{host}"), 2)["result"], 0);
    }
    let assigned = |server: &Server| server.statistic("subnet[2].assigned-addresses");
    assert_eq!(assigned(&server), 5);
    server.expect(0, "config-set", json!({ "Dhcp4": part }));
    server.expect(0, "lease4-del", json!({ "ip-address": "10.9.0.1" }));
    server.expect(0, "config-set", json!({ "Dhcp4": whole }));
    assert_eq!(assigned(&server), 4);
    server.stop();
    // Started without the subnet, the leases of the file are counted all the same.
    place.write_config(&part);
    let server = place.start();
    server.expect(0, "lease4-del", json!({ "ip-address": "10.9.0.2" }));
    server.expect(0, "config-set", json!({ "Dhcp4": whole }));
    assert_eq!((assigned(&server), server.statistic("assigned-addresses")), (3, 3));
    server.stop();
}

#[test]
fn counters_of_a_pool_are_right_when_pools_move() {
    let place = Place::new();
    let pools = |list: &[(u32, &str)]| {
        let mut tree = place.base();
        let list = list.iter().map(|(id, pool)| json!({ "pool-id": id, "pool": pool }));
        tree["subnet4"][1]["pools"] = list.collect::<Vec<Value>>().into();
        tree
    };
    let halves = pools(&[(1, "10.9.0.1-10.9.0.127"), (2, "10.9.0.128-10.9.0.250")]);
    place.write_config(&halves);
    let server = place.start();
    for host in (100..160).filter(|host| host % 2 == 0) {
        assert_eq!(server.add(&format!("10.9.0.{host}"), 2)["result"], 0);
    }
    let assigned = |pool: u32| server.statistic(&format!("subnet[2].pool[{pool}].assigned-addresses"));
    assert_eq!((assigned(1), assigned(2)), (14, 16));
    // The border moves, and leases change while the shards still count.
    server.expect(
        0,
        "config-set",
        json!({ "Dhcp4": pools(&[(1, "10.9.0.1-10.9.0.109"), (2, "10.9.0.110-10.9.0.250")]) }),
    );
    for host in [100, 112, 158] {
        server.expect(0, "lease4-del", json!({ "ip-address": format!("10.9.0.{host}") }));
    }
    server.await_statistic("subnet[2].pool[1].assigned-addresses", 4);
    server.await_statistic("subnet[2].pool[2].assigned-addresses", 23);
    // One pool in the place of two, then both again.
    server.expect(0, "config-set", json!({ "Dhcp4": pools(&[(1, "10.9.0.1-10.9.0.250")]) }));
    server.expect(0, "config-set", json!({ "Dhcp4": halves }));
    server.await_statistic("subnet[2].pool[1].assigned-addresses", 12);
    server.await_statistic("subnet[2].pool[2].assigned-addresses", 15);
    assert_eq!(server.statistic("subnet[2].assigned-addresses"), 27);
    server.stop();
}

#[test]
fn relay_information_of_older_releases_is_kept_in_todays_form_unless_told_not_to() {
    for (checks, map) in [("fix", true), ("none", false)] {
        let place = Place::new();
        let mut dhcp4 = place.base();
        dhcp4["sanity-checks"] = json!({ "lease-checks": "warn", "extended-info-checks": checks });
        place.write_config(&dhcp4);
        let context = r#"{ "ISC": { "relay-agent-info": "0x0102616A" } }"#.replace(',', "&#x2c");
        place.write_leases(&[row(Ipv4Addr::new(10, 0, 0, 7), 1, FUTURE_S, 0) + &context]);
        let server = place.start();
        let answer = server.expect(0, "lease4-get", json!({ "ip-address": "10.0.0.7" }));
        let info = &answer["arguments"]["user-context"]["ISC"]["relay-agent-info"];
        assert_eq!(info["sub-options"] == "0x0102616A", map, "{answer}");
        assert_eq!(*info == "0x0102616A", !map, "{answer}");
        server.stop();
    }
}

#[test]
fn listeners_that_cannot_be_had_leave_all_others_as_they_were() {
    let place = Place::new();
    place.write_config(&place.base());
    let server = place.start();
    let mut other = place.base();
    other.as_object_mut().expect("a map").remove("control-socket");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("an address").port();
    other["control-sockets"] = json!([
        { "socket-type": "unix", "socket-name": place.path("second") },
        { "socket-type": "http", "socket-address": "127.0.0.1", "socket-port": port },
    ]);
    let answer = server.expect(1, "config-set", json!({ "Dhcp4": other }));
    assert!(
        answer["text"].as_str().is_some_and(|text| text.contains(&format!("127.0.0.1:{port}"))),
        "{answer}"
    );
    assert!(!place.path("second").exists());
    server.expect(0, "status-get", Value::Null);

    other["control-sockets"] = json!([{ "socket-type": "unix", "socket-name": place.path("second") }]);
    server.expect(0, "config-set", json!({ "Dhcp4": other }));
    let moved = UnixStream::connect(place.path("second"));
    assert!(moved.is_ok() && !place.path("socket").exists());
    server.stop();
}

#[test]
fn the_lease_database_cannot_be_changed_while_running() {
    let place = Place::new();
    place.write_config(&place.base());
    let server = place.start();
    let mut other = place.base();
    other["lease-database"]["name"] = json!(place.path("other.csv"));
    let answer = server.expect(1, "config-set", json!({ "Dhcp4": other }));
    assert!(answer["text"].as_str().is_some_and(|text| text.contains("restart")), "{answer}");
    server.stop();
}

#[test]
fn what_config_get_shows_can_be_set_and_what_config_write_writes_can_be_read() {
    let place = Place::new();
    let mut dhcp4 = place.base();
    dhcp4["client-classes"] = json!([{ "name": "voip", "test": "option[60].text == 'phone'" }]);
    dhcp4["option-data"] = json!([{ "name": "domain-name-servers", "data": "10.0.0.53, 10.0.0.54" }]);
    dhcp4["subnet4"][0]["reservations"] =
        json!([{ "hw-address": "02:00:00:00:00:99", "ip-address": "10.0.0.9" }]);
    place.write_config(&dhcp4);
    let server = place.start();
    let shown = server.expect(0, "config-get", Value::Null)["arguments"].clone();
    let mut sent = shown.clone();
    sent.as_object_mut().expect("a map").remove("hash");
    server.expect(0, "config-set", sent);
    let again = server.expect(0, "config-get", Value::Null)["arguments"].clone();
    assert_eq!(again["Dhcp4"], shown["Dhcp4"]);

    let file = place.path("written.conf");
    server.expect(0, "config-write", json!({ "filename": file }));
    let checked = Command::new(PROGRAM).arg("check").arg(&file).output().expect("check runs");
    assert_eq!(checked.status.code(), Some(0), "{}", String::from_utf8_lossy(&checked.stdout));
    server.expect(0, "config-write", Value::Null);
    server.expect(0, "config-reload", Value::Null);
    let after = server.expect(0, "config-get", Value::Null)["arguments"].clone();
    assert_eq!(after["Dhcp4"], shown["Dhcp4"]);
    server.stop();
}

#[test]
fn loggers_are_honoured_at_start_and_after_a_reload() {
    let place = Place::new();
    let mut dhcp4 = place.base();
    dhcp4["loggers"] = json!([{ "name": "kea-dhcp4", "severity": "INFO", "output_options": [
        { "output": "stderr" }, { "output": place.path("first.log") } ] }]);
    place.write_config(&dhcp4);
    let mut server = place.start();
    dhcp4["loggers"][0]["output_options"][1]["output"] = json!(place.path("second.log"));
    place.write_config(&dhcp4);
    server.signal("HUP");
    server.hears("DHCP4_CONFIG_COMPLETE");
    server.stop();
    let first = fs::read_to_string(place.path("first.log")).expect("written");
    let second = fs::read_to_string(place.path("second.log")).expect("written");
    assert!(first.contains("DHCP4_STARTED") && !first.contains("DHCP4_CONFIG_COMPLETE"), "{first}");
    assert!(second.contains("DHCP4_CONFIG_COMPLETE") && second.contains("DHCP4_SHUTDOWN"), "{second}");
}
