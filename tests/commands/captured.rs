//! What a real Kea answered, request by request, is what we answer.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::server::Running;

fn case(name: &str) -> (Value, Value) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/commands").join(format!("{name}.json"));
    let mut case: Value = serde_json::from_slice(&fs::read(file).expect("readable")).expect("JSON");
    (case["request"].take(), case["answer"][0].take())
}

/// Times are of the day of the recording.
fn without_times(mut value: Value) -> Value {
    match &mut value {
        Value::Object(map) => {
            map.remove("cltt");
            map.values_mut().for_each(|member| *member = without_times(member.take()));
        }
        Value::Array(list) => list.iter_mut().for_each(|element| *element = without_times(element.take())),
        _ => {}
    }
    value
}

fn by_address(answer: &mut Value) {
    let leases = answer["arguments"]["leases"].as_array_mut().expect("leases");
    leases.sort_by_key(|lease| lease["ip-address"].as_str().map(str::to_owned));
}

/// A session that an administrator had with a server, in its order: adding, changing, finding, listing, removing.
#[test]
fn lease_commands_are_answered_as_kea_answered() {
    let empty = Running::unix();
    let (request, answer) = case("003-startup-s2-joins");
    assert_eq!(empty.ask(&request.to_string()), answer);

    let (_, listing) = case("056-lease-get-all-subnet");
    let later = ["10.16.5.5", "10.16.5.7"];
    let before: Vec<Value> = listing["arguments"]["leases"].as_array().expect("leases").clone();
    let before =
        before.into_iter().filter(|lease| !later.iter().any(|address| lease["ip-address"] == *address));
    let before: Vec<Value> = before.collect();
    let running = Running::start(move |server| server.take_leases(&before), crate::server::unix_only);
    for name in [
        "046-lease-update-force-create",
        "047-lease-update-force-create-again",
        "048-lease-update-missing",
        "049-lease-add",
        "050-lease-add-dup",
        "051-lease-get",
        "052-lease-get-missing",
        "053-lease-del",
        "054-lease-del-missing",
        "055-lease-get-all",
        "056-lease-get-all-subnet",
        "057-lease-get-page-start",
        "058-lease-get-page-mid",
        "059-lease-get-page-end",
        "060-dhcp-disable",
        "061-dhcp-enable",
        "064-dhcp-disable-badorigin",
        "076-unknown-command",
        "083-lease-get-by-hw",
    ] {
        let (request, mut answer) = case(name);
        // Since Kea 2.4 a conflict has a code of its own.
        if ["048-lease-update-missing", "050-lease-add-dup"].contains(&name) {
            answer["result"] = 4.into();
        }
        let mut ours = running.ask(&request.to_string());
        if name == "056-lease-get-all-subnet" {
            // Kea lists a subnet's leases as they came to it; we go by address.
            by_address(&mut answer);
            by_address(&mut ours);
        }
        assert_eq!(without_times(ours), without_times(answer), "{name}");
    }
}

fn same_shape(ours: &Value, theirs: &Value, path: &str) {
    match (ours, theirs) {
        (Value::Object(ours), Value::Object(theirs)) => {
            for (key, theirs) in theirs {
                let ours = ours.get(key).unwrap_or_else(|| panic!("{path}/{key} is missing"));
                same_shape(ours, theirs, &format!("{path}/{key}"));
            }
        }
        (Value::Array(ours), Value::Array(theirs)) => {
            if let (Some(ours), Some(theirs)) = (ours.first(), theirs.first()) {
                same_shape(ours, theirs, &format!("{path}/0"));
            }
        }
        _ => assert_eq!(
            std::mem::discriminant(ours),
            std::mem::discriminant(theirs),
            "{path}: {ours} is of another type than {theirs}"
        ),
    }
}

#[test]
fn status_and_statistics_have_keas_shapes() {
    let running = Running::unix();
    for name in ["038-status-get", "040-statistic-get-all"] {
        let (request, answer) = case(name);
        same_shape(&running.ask(&request.to_string()), &answer, name);
    }
}

#[test]
fn every_command_of_kea_that_is_not_of_another_family_is_there() {
    let running = Running::unix();
    let (request, answer) = case("037-list-commands");
    let ours = running.ask(&request.to_string());
    let ours: Vec<&str> =
        ours["arguments"].as_array().expect("names").iter().filter_map(Value::as_str).collect();
    assert!(ours.is_sorted());
    for name in answer["arguments"].as_array().expect("names").iter().filter_map(Value::as_str) {
        // DHCPv6 and HA are other rooms'; libreload is gone since 2.4.
        if !name.starts_with("lease6-") && !name.starts_with("ha-") && name != "libreload" {
            assert!(ours.contains(&name), "{name}");
        }
    }
}
