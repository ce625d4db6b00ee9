//! The requests of the table, made from forms: every command with good, missing, badly typed, out of range and unknown arguments.

use serde_json::{Map, Value, json};

/// Stands for a folder of the server's in requests and answers.
pub(crate) const FOLDER: &str = "/FOLDER";

/// One request of the table.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Request {
    /// As it goes over the wire.
    pub(crate) text: String,
    /// Whether the leases are those of [`leases`] before it, whatever the requests before did.
    pub(crate) afresh: bool,
}

/// What Kea 2.2 does not survive, or what would end or deafen the server.
const LEFT_OUT: [(&str, &[&str]); 6] = [
    ("lease4-resend-ddns", &["none", "{}", "[]", "5", "\"x\"", "null"]),
    ("statistic-sample-count-set", &["\"max-samples\":0,", "\"max-samples\":-1,", "\"max-samples\":922"]),
    ("statistic-sample-count-set-all", &["\"max-samples\":-1}", "\"max-samples\":922"]),
    ("statistic-sample-age-set", &["\"duration\":-1,", "\"duration\":922"]),
    ("statistic-sample-age-set-all", &["\"duration\":-1}", "\"duration\":922"]),
    ("shutdown", &["none", "{}", "{\"exit-value\":"]),
];

/// The leases that are there before each request about leases.
pub(crate) fn leases() -> Vec<Value> {
    vec![
        json!({ "ip-address": "10.0.0.1", "hw-address": "02:00:00:00:00:01", "client-id": "01:02:03:01",
                "hostname": "one.example.org", "valid-lft": 600, "expire": 2_000_000_000 }),
        json!({ "ip-address": "10.0.0.2", "hw-address": "02:00:00:00:00:02", "state": 1 }),
        json!({ "ip-address": "10.9.0.1", "hw-address": "02:00:00:00:00:01", "subnet-id": 2 }),
    ]
}

/// Values of other types, and of the same out of its range, than a good one.
fn odd_values(good: &Value) -> Vec<Value> {
    match good {
        Value::String(_) => {
            vec![json!(1), json!(true), json!(null), json!([]), json!({}), json!(""), json!("non sense")]
        }
        Value::Number(_) => vec![
            json!("1"),
            json!(true),
            json!(null),
            json!([1]),
            json!({}),
            json!(-1),
            json!(0),
            json!(1.5),
            json!(4_294_967_297_u64),
            json!(9_223_372_036_854_775_807_i64),
        ],
        Value::Bool(_) => vec![json!(1), json!("true"), json!(null), json!([true])],
        Value::Array(_) => vec![
            json!(1),
            json!("x"),
            json!({}),
            json!([]),
            json!(["1"]),
            json!([-1]),
            json!([null]),
            json!([9]),
            json!([1, 2]),
            json!([1, 1]),
            json!([4_294_967_297_u64]),
        ],
        Value::Object(_) => vec![json!(1), json!("x"), json!([]), json!({}), json!(null)],
        Value::Null => Vec::new(),
    }
}

/// Good arguments, without each, with odd values for each, with one that nobody knows, and things that are no arguments.
fn variations(good: &Value) -> Vec<Option<Value>> {
    let mut all =
        vec![None, Some(json!({})), Some(json!([])), Some(json!(5)), Some(json!("x")), Some(json!(null))];
    let Value::Object(map) = good else { return all };
    all.push(Some(good.clone()));
    let mut put = |key: &str, value: Option<Value>| {
        let mut changed = map.clone();
        match value {
            Some(value) => changed.insert(key.to_owned(), value),
            None => changed.remove(key),
        };
        all.push(Some(Value::Object(changed)));
    };
    put("foo", Some(json!(1)));
    for (key, value) in map {
        put(key, None);
        for odd in odd_values(value) {
            put(key, Some(odd));
        }
    }
    all.dedup();
    all
}

fn write(command: &str, arguments: Option<&Value>) -> String {
    let arguments = arguments.map(|arguments| format!(",\"arguments\":{arguments}")).unwrap_or_default();
    format!("{{\"command\":\"{command}\"{arguments}}}")
}

fn is_left_out(command: &str, arguments: Option<&Value>) -> bool {
    let text = arguments.map_or_else(|| "none".to_owned(), Value::to_string);
    let is_there = |part: &str| if part.len() > 8 { text.contains(part) } else { text == part };
    LEFT_OUT.iter().any(|(name, parts)| *name == command && parts.iter().any(|part| is_there(part)))
}

/// Good arguments of each command that leases depend on.
fn lease_forms() -> Vec<(&'static str, Value)> {
    let lease = json!({
        "ip-address": "10.0.0.7", "hw-address": "02:00:00:00:00:07", "client-id": "01:02:03:07", "subnet-id": 1,
        "valid-lft": 600, "expire": 2_000_000_000, "hostname": "Seven.Example.ORG", "fqdn-fwd": true, "fqdn-rev": false,
        "state": 0, "user-context": { "a": 1 }, "comment": "new",
    });
    let with = |more: Value| {
        let mut all: Map<String, Value> = lease.as_object().cloned().unwrap_or_default();
        all.extend(more.as_object().cloned().unwrap_or_default());
        Value::Object(all)
    };
    let by_hw = json!({ "subnet-id": 1, "identifier-type": "hw-address", "identifier": "02:00:00:00:00:01" });
    let by_id = json!({ "subnet-id": 1, "identifier-type": "client-id", "identifier": "01:02:03:01" });
    vec![
        ("lease4-add", lease.clone()),
        ("lease4-add", json!({ "ip-address": "10.0.0.8", "hw-address": "02:00:00:00:00:08" })),
        ("lease4-add", json!({ "ip-address": "10.0.0.1", "hw-address": "02:00:00:00:00:08" })),
        (
            "lease4-add",
            json!({ "ip-address": "10.9.0.8", "hw-address": "02:00:00:00:00:08", "subnet-id": 1 }),
        ),
        ("lease4-add", json!({ "ip-address": "172.16.0.8", "hw-address": "02:00:00:00:00:08" })),
        ("lease4-add", json!({ "ip-address": "2001:db8::1", "hw-address": "02:00:00:00:00:08" })),
        ("lease4-update", with(json!({ "ip-address": "10.0.0.1" }))),
        ("lease4-update", with(json!({ "ip-address": "10.0.0.2", "force-create": true }))),
        (
            "lease4-update",
            json!({ "ip-address": "10.0.0.7", "hw-address": "02:00:00:00:00:07", "force-create": true }),
        ),
        ("lease4-get", json!({ "ip-address": "10.0.0.1" })),
        ("lease4-get", json!({ "ip-address": "10.0.0.9" })),
        ("lease4-get", by_hw.clone()),
        ("lease4-get", by_id.clone()),
        ("lease4-get", json!({ "subnet-id": 1, "identifier-type": "duid", "identifier": "01:02:03:01" })),
        ("lease4-get", json!({ "ip-address": "10.0.0.1", "iaid": 1 })),
        ("lease4-del", json!({ "ip-address": "10.0.0.1", "update-ddns": false })),
        ("lease4-del", json!({ "ip-address": "10.0.0.9" })),
        ("lease4-del", by_hw),
        ("lease4-del", by_id),
        ("lease4-get-all", json!({ "subnets": [1] })),
        ("lease4-get-page", json!({ "from": "start", "limit": 2 })),
        ("lease4-get-page", json!({ "from": "10.0.0.1", "limit": 10 })),
        ("lease4-get-page", json!({ "from": "10.9.0.1", "limit": 1 })),
        ("lease4-get-page", json!({ "from": "::1", "limit": 1 })),
        ("lease4-get-by-hw-address", json!({ "hw-address": "02:00:00:00:00:01" })),
        ("lease4-get-by-client-id", json!({ "client-id": "01:02:03:01" })),
        ("lease4-get-by-hostname", json!({ "hostname": "One.Example.org" })),
        ("lease4-wipe", json!({ "subnet-id": 1 })),
        ("lease4-resend-ddns", json!({ "ip-address": "10.0.0.1" })),
        ("lease4-resend-ddns", json!({ "ip-address": "10.0.0.9" })),
        ("leases-reclaim", json!({ "remove": true })),
        ("stat-lease4-get", json!({ "subnet-id": 1 })),
        ("stat-lease4-get", json!({ "subnet-id": 7 })),
        ("stat-lease4-get", json!({ "subnet-range": { "first-subnet-id": 1, "last-subnet-id": 2 } })),
        ("stat-lease4-get", json!({ "subnet-range": { "first-subnet-id": 3, "last-subnet-id": 9 } })),
        ("stat-lease4-get", json!({ "subnet-range": { "first-subnet-id": 2, "last-subnet-id": 1 } })),
        ("stat-lease4-get", json!({ "subnet-range": { "first-subnet-id": 1 } })),
        ("stat-lease4-get", json!({ "subnet-range": { "first-subnet-id": "1", "last-subnet-id": 2 } })),
        (
            "stat-lease4-get",
            json!({ "subnet-id": 1, "subnet-range": { "first-subnet-id": 1, "last-subnet-id": 2 } }),
        ),
    ]
}

/// Good arguments of the other commands, in an order in which none spoils the next.
fn server_forms() -> Vec<(&'static str, Value)> {
    let of = |name: &str| json!({ "name": name });
    vec![
        ("list-commands", json!({ "a": 1 })),
        ("version-get", json!({ "a": 1 })),
        ("build-report", json!({ "a": 1 })),
        ("config-get", json!({ "a": 1 })),
        ("status-get", json!({ "a": 1 })),
        ("server-tag-get", json!({ "a": 1 })),
        ("config-backend-pull", json!({ "a": 1 })),
        ("config-test", json!({ "Dhcp4": { "valid-lifetime": 60 } })),
        ("config-test", json!({ "Dhcp4": { "valid-lifetime": 60, "renew-timer": "x" } })),
        ("config-test", json!({ "Dhcp4": { "nonsense": 1 } })),
        ("config-test", json!({ "Dhcp4": {}, "Dhcp6": {}, "Control-agent": {} })),
        ("config-write", json!({ "filename": format!("{FOLDER}/written.json") })),
        ("shutdown", json!({ "exit-value": 1 })),
        ("dhcp-disable", json!({ "max-period": 60, "origin": "user" })),
        ("dhcp-disable", json!({ "origin": "ha-partner" })),
        ("dhcp-enable", json!({ "origin": "user" })),
        ("dhcp-enable", json!({ "origin": "ha-partner" })),
        ("statistic-get", of("pkt4-received")),
        ("statistic-get", of("subnet[1].assigned-addresses")),
        ("statistic-sample-count-set", json!({ "name": "pkt4-received", "max-samples": 5 })),
        ("statistic-sample-count-set", json!({ "name": "nobody", "max-samples": 5 })),
        ("statistic-sample-age-set", json!({ "name": "pkt4-received", "duration": 60 })),
        ("statistic-sample-age-set", json!({ "name": "nobody", "duration": 60 })),
        ("statistic-sample-age-set-all", json!({ "duration": 60 })),
        ("statistic-sample-count-set-all", json!({ "max-samples": 5 })),
        ("statistic-reset", of("pkt4-sent")),
        ("statistic-reset-all", json!({ "a": 1 })),
        ("statistic-get-all", json!({ "a": 1 })),
        ("statistic-remove", of("pkt4-sent")),
        ("statistic-remove-all", json!({ "a": 1 })),
        // It takes leases that are not kept on disk away from Kea.
        ("config-reload", json!({ "a": 1 })),
    ]
}

/// What is no command, or not quite.
const ENVELOPES: [&str; 25] = [
    "{\"command\":\"nonsense\"}",
    "{\"command\":\"\"}",
    "{\"command\":1}",
    "{\"command\":null}",
    "{\"command\":{}}",
    "{}",
    "[]",
    "[{\"command\":\"version-get\"}]",
    "{\"arguments\":{}}",
    "{\"command\":\"server-tag-get\",\"foo\":1}",
    "{\"foo\":1}",
    "{\"command\":\"server-tag-get\",\"service\":\"x\"}",
    "{\"command\":\"server-tag-get\",\"service\":[\"dhcp6\"]}",
    "{\"command\":\"server-tag-get\",}",
    "{\"command\":\"server-tag-get\" \"a\":1}",
    "{\"command\":\"server-tag-get\"} and more",
    "// a comment\n{\"command\": /* another */ \"server-tag-get\" # and one\n}",
    "{\"command\":\"server-tag-get\",\"command\":\"nonsense\"}",
    "{\"command\":\"server-tag-get\",\"arguments\":{\"a\":01}}",
    "{\"command\":\"server-tag-get\",\"arguments\":{\"a\":truth}}",
    "{\"command\":\"server-tag-get\",\"arguments\":{\"a\":9223372036854775808}}",
    "{\"command\":\"server-tag-get\",\n \"arguments\":{\"a\":18446744073709551615}}",
    "{\"command\":\"server-tag-get\",\"arguments\":-9223372036854775809}",
    "nonsense",
    "{\"command\":\"Server-Tag-Get\"}",
];

/// All requests, in their order.
pub(crate) fn requests() -> Vec<Request> {
    let mut all: Vec<Request> =
        ENVELOPES.iter().map(|text| Request { text: (*text).to_owned(), afresh: false }).collect();
    let forms = lease_forms().into_iter().map(|form| (form, true));
    for ((command, good), afresh) in forms.chain(server_forms().into_iter().map(|form| (form, false))) {
        for arguments in variations(&good) {
            let request = Request { text: write(command, arguments.as_ref()), afresh };
            if !is_left_out(command, arguments.as_ref()) && !all.contains(&request) {
                all.push(request);
            }
        }
    }
    all
}
