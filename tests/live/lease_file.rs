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
    let rows = [
        row(Ipv4Addr::new(10, 0, 0, 1), 1, FUTURE_S, 0),
        row(Ipv4Addr::new(10, 9, 0, 1), 1, FUTURE_S, 0),
        row(Ipv4Addr::new(172, 16, 0, 1), 1, FUTURE_S, 0),
    ];
    let cases = [
        ("none", [Some(1), Some(1), Some(1)], false),
        ("warn", [Some(1), Some(1), Some(1)], true),
        ("fix", [Some(1), Some(2), Some(1)], true),
        ("fix-del", [Some(1), Some(2), None], true),
        ("del", [Some(1), None, None], true),
    ];
    for (mode, subnets, is_told) in cases {
        let place = Place::new();
        let mut dhcp4 = place.base();
        dhcp4["sanity-checks"] = json!({ "lease-checks": mode });
        place.write_config(&dhcp4);
        place.write_leases(&rows);
        let server = place.start();
        assert_eq!(
            server.said.iter().any(|line| line.contains("DHCPSRV_LEASE_SANITY_FAIL")),
            is_told,
            "{mode}"
        );
        for (address, subnet) in ["10.0.0.1", "10.9.0.1", "172.16.0.1"].into_iter().zip(subnets) {
            let answer = server.ask("lease4-get", json!({ "ip-address": address }));
            let found = answer["arguments"]["subnet-id"].as_u64();
            assert_eq!(found, subnet, "{mode} {address}: {answer}");
        }
        let assigned: i64 = subnets.iter().flatten().map(|_| 1).sum();
        assert_eq!(server.statistic("assigned-addresses"), assigned, "{mode}");
        server.stop();
    }
}
