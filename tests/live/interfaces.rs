//! Served interfaces, with packets.

use serde_json::json;

use crate::cable::{Cable, numbers};
use crate::place::{Place, Server, ends_with};

#[test]
fn another_server_on_the_port_ends_with_3_and_is_suspected() {
    let Some(cable) = Cable::new("another_server_on_the_port_ends_with_3_and_is_suspected", 'a') else {
        return;
    };
    let place = Place::new();
    let mut dhcp4 = place.base();
    dhcp4["interfaces-config"]["interfaces"] = json!(["veth-s"]);
    place.write_config(&dhcp4);
    let first = cable.start(&place);
    let other = Place::new();
    let mut dhcp4 = other.base();
    dhcp4["interfaces-config"]["interfaces"] = json!(["veth-s"]);
    other.write_config(&dhcp4);
    let mut second = Server::spawn(Cable::inside(&cable.server, &other.command()), other.path("socket"));
    let code = second.ended();
    let words = ["veth-s", "os error 98", "is another DHCP server running?"];
    ends_with(3, (code, second.said.join("\n")), &words);
    first.stop();
}

#[test]
fn a_configuration_set_under_traffic_costs_no_client_anything() {
    const TEST: &str = "a_configuration_set_under_traffic_costs_no_client_anything";
    let Some(cable) = Cable::new(TEST, 'b') else { return };
    let place = Place::new();
    let mut dhcp4 = place.base();
    dhcp4["interfaces-config"]["interfaces"] = json!(["veth-s"]);
    place.write_config(&dhcp4);
    let server = cable.start(&place);
    // Addresses in the way of the allocator stay reserved throughout, others come and go far away. What a client has been
    // offered stays in the pool: to refuse it would be right, and is not the question here.
    let mut set = |round: usize| {
        dhcp4["subnet4"][0]["pools"] =
            json!([{ "pool": format!("10.0.0.1 - 10.0.{}.250", 100 + round % 7) }]);
        let far = 5 + round % 2;
        let reserved = (0..50).map(|host| (0, 100 + host)).chain((0..50).map(|host| (far, 1 + host)));
        dhcp4["subnet4"][0]["reservations"] = reserved
            .map(|(third, host)| {
                json!({ "hw-address": format!("02:99:00:00:{third:02x}:{host:02x}"),
                "ip-address": format!("10.0.{third}.{host}") })
            })
            .collect();
        server.expect(0, "config-set", json!({ "Dhcp4": dhcp4 }));
    };
    set(0);
    let Some(traffic) = cable.perfdhcp(TEST, "-r 150 -p 4 -R 100000 -W 2000000") else { return };
    for round in 1..60 {
        set(round);
    }
    let output = traffic.wait_with_output().expect("perfdhcp ends");
    let text = String::from_utf8_lossy(&output.stdout);
    let (sent, drops) = (numbers(&text, "sent packets"), numbers(&text, "drops"));
    assert!(sent.len() == 2 && sent[0] > 200, "{text}");
    let refused = server.statistic("pkt4-nak-sent");
    assert_eq!((drops, refused, server.statistic("pkt4-receive-drop")), (vec![0, 0], 0, 0), "{text}");
    // What the interface has heard is told within a second: perfdhcp's packets and nothing else.
    let heard = server.statistic("pkt4-received");
    assert!(heard.cast_unsigned() >= sent[0] + sent[1], "{heard} of {sent:?}");
    server.await_statistic("interface[veth-s].port-received", heard);
    assert_eq!(server.statistic("port-received"), heard);
    let addresses = server.addresses();
    assert_eq!(addresses.len() as u64, sent[1], "one lease for each client");
    assert!((100..150).all(|host| !addresses.contains(&format!("10.0.0.{host}"))), "reserved: {addresses:?}");
    server.stop();
}

#[test]
fn packets_that_find_no_address_are_told_of_without_flooding_the_log() {
    const TEST: &str = "packets_that_find_no_address_are_told_of_without_flooding_the_log";
    let Some(cable) = Cable::new(TEST, 'n') else { return };
    let place = Place::new();
    let mut dhcp4 = place.base();
    dhcp4["interfaces-config"]["interfaces"] = json!(["veth-s"]);
    dhcp4["subnet4"] =
        json!([{ "id": 1, "subnet": "10.0.0.0/16", "pools": [ { "pool": "10.0.0.1-10.0.0.1" } ] }]);
    place.write_config(&dhcp4);
    let mut server = cable.start(&place);
    let Some(mut traffic) = cable.perfdhcp(TEST, "-r 300 -p 3 -R 100000 -W 1") else { return };
    let line = server.hears("ALLOC_ENGINE_V4_ALLOC_FAIL");
    assert!(
        line.contains("WARN") && line.contains("hwtype=1 ") && line.contains("There is no address"),
        "{line}"
    );
    assert!(traffic.wait().is_ok());
    assert!(server.statistic("v4-allocation-fail") > 100);
    server.signal("TERM");
    assert_eq!(server.ended(), 0);
    // Three to four seconds of traffic, two shards, each reason once a second and shard.
    let lines = server.said.iter().filter(|line| line.contains("ALLOC_ENGINE_V4_ALLOC_FAIL")).count();
    assert!((1..=10).contains(&lines), "{}", server.said.join("\n"));
}

#[test]
fn interfaces_are_opened_and_closed_as_the_configuration_says() {
    const TEST: &str = "interfaces_are_opened_and_closed_as_the_configuration_says";
    let Some(cable) = Cable::new(TEST, 'd') else { return };
    let place = Place::new();
    let mut dhcp4 = place.base();
    dhcp4["interfaces-config"]["interfaces"] = json!([]);
    place.write_config(&dhcp4);
    let server = cable.start(&place);
    let served = |interfaces: &[&str], kind: &str| {
        let mut changed = dhcp4.clone();
        changed["interfaces-config"] = json!({ "interfaces": interfaces, "dhcp-socket-type": kind });
        server.expect(0, "config-set", json!({ "Dhcp4": changed }));
        let traffic = cable.perfdhcp(TEST, "-r 20 -n 5 -R 5 -W 500000 10.0.255.1")?;
        let output = traffic.wait_with_output().expect("perfdhcp ends");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let received = numbers(&text, "received packets");
        assert_eq!(received.len(), 2, "{text}");
        Some(received[0])
    };
    for (interfaces, kind, is_served) in [
        (&[][..], "raw", false),
        (&["veth-s"][..], "raw", true),
        (&["veth-s"][..], "udp", true),
        (&[][..], "udp", false),
        (&["veth-s/10.0.255.1"][..], "raw", true),
    ] {
        let Some(received) = served(interfaces, kind) else { return };
        assert_eq!(received > 0, is_served, "{interfaces:?} {kind}: {received}");
    }
    server.stop();
}
