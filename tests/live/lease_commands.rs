//! Commands about leases.

use std::fs;
use std::net::Ipv4Addr;

use serde_json::{Value, json};

use crate::place::{FUTURE_S, Place, row};

#[test]
fn lease_commands_work_and_statistics_follow_at_once() {
    let place = Place::new();
    place.write_config(&place.base());
    let server = place.start();
    let counts = || {
        [
            "subnet[1].assigned-addresses",
            "subnet[2].assigned-addresses",
            "assigned-addresses",
            "declined-addresses",
        ]
        .map(|name| server.statistic(name))
    };
    assert_eq!(counts(), [0, 0, 0, 0]);
    for address in ["10.0.0.1", "10.0.0.2", "10.0.0.3"] {
        assert_eq!(server.add(address, 1)["result"], 0);
    }
    assert_eq!(server.add("10.9.0.1", 2)["result"], 0);
    assert_eq!(counts(), [3, 1, 4, 0]);
    assert_eq!(server.add("10.0.0.1", 1)["result"], 4, "there is one already");
    assert_eq!(server.add("10.9.0.1", 1)["result"], 4, "not in that subnet");
    assert_eq!(counts(), [3, 1, 4, 0]);

    let declined =
        json!({ "ip-address": "10.0.0.2", "hw-address": "02:00:00:01:00:02", "subnet-id": 1, "state": 1 });
    server.expect(0, "lease4-update", declined);
    assert_eq!(counts(), [3, 1, 4, 1]);
    let stat = server.expect(0, "stat-lease4-get", json!({ "subnet-id": 1 }));
    let set = &stat["arguments"]["result-set"];
    let column = |name: &str| {
        let columns = set["columns"].as_array().expect("columns");
        let position = columns.iter().position(|column| column == name).expect("the column");
        set["rows"][0][position].as_i64().expect("a number")
    };
    assert_eq!((column("assigned-addresses"), column("declined-addresses")), (3, 1), "{stat}");

    let by_hw = server.expect(0, "lease4-get-by-hw-address", json!({ "hw-address": "02:00:00:01:00:03" }));
    assert_eq!(by_hw["arguments"]["leases"][0]["ip-address"], "10.0.0.3");
    server.expect(0, "lease4-get", json!({ "ip-address": "10.0.0.3" }));
    server.expect(3, "lease4-get", json!({ "ip-address": "10.0.0.77" }));
    server.expect(0, "lease4-del", json!({ "ip-address": "10.0.0.2" }));
    server.expect(3, "lease4-del", json!({ "ip-address": "10.0.0.2" }));
    assert_eq!(counts(), [2, 1, 3, 0]);
    server.expect(0, "lease4-wipe", json!({ "subnet-id": 1 }));
    assert_eq!(counts(), [0, 1, 1, 0]);
    server.expect(3, "lease4-wipe", json!({ "subnet-id": 1 }));
    let kept = server.addresses();
    server.stop();

    let server = place.start();
    assert_eq!(server.addresses(), kept, "what was acknowledged is there after a restart");
    assert_eq!(server.statistic("subnet[2].assigned-addresses"), 1);
    server.stop();
}

#[test]
fn pages_of_all_shards_are_one_ascending_list_without_gaps_or_repeats() {
    let place = Place::new();
    place.write_config(&place.base());
    let all: Vec<Ipv4Addr> = (0..5000).map(|number| Ipv4Addr::from_bits(0x0a00_0001 + number * 3)).collect();
    place.write_leases(&all.iter().map(|address| row(*address, 1, FUTURE_S, 0)).collect::<Vec<_>>());
    let server = place.start();
    for limit in [7, 999, 4999, 5000, 100_000] {
        let (mut from, mut listed) = ("start".to_owned(), Vec::<Ipv4Addr>::new());
        loop {
            let page = server.ask("lease4-get-page", json!({ "from": from, "limit": limit }));
            let leases = page["arguments"]["leases"].as_array().cloned().unwrap_or_default();
            for lease in &leases {
                from = lease["ip-address"].as_str().expect("an address").to_owned();
                listed.push(from.parse().expect("an address"));
            }
            if leases.len() < limit || (limit == 7 && listed.len() > 700) {
                break;
            }
        }
        assert_eq!(listed, all[..listed.len()], "limit {limit}");
        assert!(limit == 7 || listed.len() == all.len(), "limit {limit}: {}", listed.len());
    }
    let answer = server.expect(0, "lease4-get-all", Value::Null);
    assert_eq!(answer["arguments"]["leases"].as_array().map(Vec::len), Some(all.len()));

    let file = place.path("dump.csv");
    server.expect(0, "lease4-write", json!({ "filename": file }));
    let text = fs::read_to_string(&file).expect("written");
    let dumped: Vec<Ipv4Addr> = text
        .lines()
        .skip(1)
        .map(|line| line.split(',').next().expect("a column").parse().expect("an address"))
        .collect();
    assert_eq!(dumped, all);
    let own = server.ask("lease4-write", json!({ "filename": place.path("leases.csv") }));
    assert_eq!(own["result"], 1, "the file that is served is not overwritten: {own}");
    server.stop();
}

#[test]
fn expired_leases_are_reclaimed_on_demand_kept_or_removed() {
    for remove in [false, true] {
        let place = Place::new();
        let mut dhcp4 = place.base();
        dhcp4["expired-leases-processing"] = json!({ "reclaim-timer-wait-time": 0, "flush-reclaimed-timer-wait-time": 0, "hold-reclaimed-time": 3600 });
        place.write_config(&dhcp4);
        let expired = (1..=40).map(|low| row(Ipv4Addr::new(10, 0, 0, low), 1, 1_500_000_000, 0));
        let current = (1..=5).map(|low| row(Ipv4Addr::new(10, 0, 1, low), 1, FUTURE_S, 0));
        place.write_leases(&expired.chain(current).collect::<Vec<_>>());
        let server = place.start();
        assert_eq!(server.statistic("assigned-addresses"), 45);
        server.expect(0, "leases-reclaim", json!({ "remove": remove }));
        assert_eq!(server.statistic("assigned-addresses"), 5);
        assert_eq!(server.statistic("reclaimed-leases"), 40);
        assert_eq!(server.addresses().len(), if remove { 5 } else { 45 });
        if !remove {
            let lease = server.expect(0, "lease4-get", json!({ "ip-address": "10.0.0.1" }));
            assert_eq!(lease["arguments"]["state"], 2, "{lease}");
        }
        server.stop();
    }
}

#[test]
fn the_service_is_taken_away_and_given_back_also_by_itself() {
    let place = Place::new();
    place.write_config(&place.base());
    let mut server = place.start();
    server.expect(0, "dhcp-disable", Value::Null);
    server.hears("DHCP4_SERVICE_DISABLED");
    server.expect(0, "dhcp-enable", Value::Null);
    server.hears("DHCP4_SERVICE_ENABLED");
    server.expect(0, "dhcp-disable", json!({ "max-period": 1 }));
    server.hears("DHCP4_SERVICE_DISABLED");
    server.hears("DHCP4_SERVICE_ENABLED");
    server.stop();
}

#[test]
fn a_clean_up_on_demand_keeps_the_leases_and_forgets_the_history() {
    let place = Place::new();
    place.write_config(&place.base());
    let mut server = place.start();
    for round in 0..20 {
        let lease = json!({ "ip-address": "10.0.0.1", "hw-address": "02:00:00:01:00:01", "subnet-id": 1,
            "hostname": format!("host-{round}"), "force-create": true });
        server.expect(0, "lease4-update", lease);
    }
    assert_eq!(server.add("10.0.0.2", 1)["result"], 0);
    server.expect(0, "kea-lfc-start", Value::Null);
    for low in 3..30 {
        assert_eq!(server.add(&format!("10.0.0.{low}"), 1)["result"], 0, "service goes on");
    }
    server.hears("lease file: cleaned up: ");
    let before = server.addresses();
    server.stop();
    let previous = fs::read_to_string(place.path("leases.csv.2")).expect("the result of the clean-up");
    assert!(previous.contains("host-19") && !previous.contains("host-18"), "{previous}");
    assert!(!place.path("leases.csv.1").exists());
    let server = place.start();
    assert_eq!((server.addresses().len(), server.addresses()), (29, before));
    server.stop();
}

#[test]
fn a_clean_up_comes_by_itself_when_its_time_has_come() {
    let place = Place::new();
    let mut dhcp4 = place.base();
    dhcp4["lease-database"]["lfc-interval"] = json!(1);
    place.write_config(&dhcp4);
    let mut server = place.start();
    assert_eq!(server.add("10.0.0.2", 1)["result"], 0);
    server.hears("lease file: cleaned up: ");
    server.stop();
    assert!(place.path("leases.csv.2").exists());
}
