//! The lease file at start.

use std::collections::BTreeSet;
use std::fs;
use std::net::Ipv4Addr;

use serde_json::json;

use crate::place::{FUTURE_S, HEADER, Place, ends_with, row};

#[test]
fn a_missing_lease_file_is_created_with_its_header() {
    let place = Place::new();
    place.write_config(&place.base());
    let server = place.start();
    assert!(server.said.iter().any(|line| line.contains("leases.csv: created")), "{:?}", server.said);
    server.stop();
    let text = fs::read_to_string(place.path("leases.csv")).expect("created");
    assert!(text.starts_with("address,hwaddr,"), "{text}");
}

#[test]
fn bad_rows_and_a_torn_end_cost_only_themselves() {
    let place = Place::new();
    place.write_config(&place.base());
    let good = |low| row(Ipv4Addr::new(10, 0, 0, low), 1, FUTURE_S, 0);
    let text = format!("{HEADER}\n{}\n10.0.0.2,nonsense\n{}\n10.0.0.4,02:00:00", good(1), good(3));
    fs::write(place.path("leases.csv"), text).expect("written");
    let server = place.start();
    let said = server.said.join("\n");
    assert!(said.contains("leases.csv:3:") && said.contains("cut off a last row"), "{said}");
    let expected: BTreeSet<String> = ["10.0.0.1", "10.0.0.3"].map(str::to_owned).into();
    assert_eq!(server.addresses(), expected);
    server.stop();
    let rejected = fs::read_to_string(place.path("leases.csv.rejected")).expect("kept");
    assert!(rejected.contains("10.0.0.2,nonsense"), "{rejected}");
}

#[test]
fn more_bad_rows_than_max_row_errors_end_with_3() {
    let place = Place::new();
    let mut dhcp4 = place.base();
    dhcp4["lease-database"]["max-row-errors"] = json!(1);
    place.write_config(&dhcp4);
    place.write_leases(&["10.0.0.2,nonsense".to_owned(), "10.0.0.3,nonsense".to_owned()]);
    ends_with(3, place.fails(), &["leases.csv:3", "max-row-errors"]);
}

#[test]
fn lease_checks_decide_what_becomes_of_leases_in_the_wrong_subnet() {
    const ABSENT: u32 = 99;
    let at = |address: &str, subnet| row(address.parse().expect("an address"), subnet, FUTURE_S, 0);
    // What Kea 2.2 makes of the same rows in each mode; an overlap goes to the lower id. Only of the last one it keeps, with
    // `del`, the older row until it has cleaned its file up.
    let rows = [
        (at("10.0.0.1", 1), [Some(1); 5]),
        (at("10.9.0.1", 1), [Some(1), Some(1), Some(2), Some(2), None]),
        (at("10.9.0.2", ABSENT), [Some(ABSENT), Some(ABSENT), Some(2), Some(2), None]),
        (at("10.7.1.1", ABSENT), [Some(ABSENT), Some(ABSENT), Some(3), Some(3), None]),
        (at("10.7.1.2", 4), [Some(4); 5]),
        (at("172.16.0.1", 1), [Some(1), Some(1), Some(1), None, None]),
        (at("172.16.0.2", ABSENT), [Some(ABSENT), Some(ABSENT), Some(ABSENT), None, None]),
        (at("10.0.0.3", 2) + "\n" + &at("10.0.0.3", 1), [Some(1); 5]),
        (at("10.0.0.4", 1) + "\n" + &at("10.0.0.4", 2), [Some(2), Some(2), Some(1), Some(1), None]),
    ];
    let kept_as_they_are = [None, Some(6), Some(2), None, None];
    for (index, mode) in ["none", "warn", "fix", "fix-del", "del"].into_iter().enumerate() {
        let place = Place::new();
        let mut dhcp4 = place.base();
        let subnets = dhcp4["subnet4"].as_array_mut().expect("a list");
        subnets.push(json!({ "id": 3, "subnet": "10.7.0.0/16" }));
        subnets.push(json!({ "id": 4, "subnet": "10.7.1.0/24" }));
        dhcp4["sanity-checks"] = json!({ "lease-checks": mode });
        place.write_config(&dhcp4);
        place.write_leases(&rows.iter().map(|(row, _)| row.clone()).collect::<Vec<String>>());
        let server = place.start();
        let said: Vec<&String> =
            server.said.iter().filter(|line| line.contains("DHCPSRV_LEASE_SANITY_FAIL")).collect();
        assert_eq!(!said.is_empty(), mode != "none", "{mode}");
        let kept = said.iter().find(|line| line.contains("kept as they are"));
        match kept_as_they_are[index] {
            None => assert_eq!(kept, None, "{mode}"),
            Some(count) => {
                let kept = kept.unwrap_or_else(|| panic!("{mode}: {said:?}"));
                assert!(kept.contains(&format!("{count} lease(s)")), "{mode}: {kept}");
            }
        }
        for (row, subnets) in &rows {
            let address = row.split(',').next().expect("an address");
            let answer = server.ask("lease4-get", json!({ "ip-address": address }));
            let found = answer["arguments"]["subnet-id"].as_u64();
            assert_eq!(found, subnets[index].map(u64::from), "{mode} {address}: {answer}");
        }
        let assigned = rows.iter().filter(|(_, subnets)| subnets[index].is_some()).count();
        assert_eq!(server.statistic("assigned-addresses"), i64::try_from(assigned).expect("few"), "{mode}");
        server.stop();
    }
}
