//! Commands, their texts and codes, one by one.

use serde_json::{Value, json};

use crate::server::{Running, subnet, unix_only};

#[test]
fn vectors_of_the_unix_channel() {
    let running = Running::unix();
    for (request, answer) in [
        (
            r#"{"command":"statistic-get","arguments":{"name":"nope"}}"#,
            r#"{ "arguments": {  }, "result": 0 }"#,
        ),
        (r#"{"command":"foo"}"#, r#"{ "result": 2, "text": "'foo' command not supported." }"#),
        (
            r#"{"command":"lease4-get-page","arguments":{"from":"start","limit":5}}"#,
            r#"{ "arguments": { "count": 0, "leases": [  ] }, "result": 3, "text": "0 IPv4 lease(s) found." }"#,
        ),
        (
            r#"{"command":"lease4-wipe"}"#,
            r#"{ "result": 3, "text": "Deleted 0 IPv4 lease(s) from subnet(s) 1" }"#,
        ),
        (r#"{"command":"version-get",}"#, r#"{ "result": 1, "text": "String expected in <wire>:0:26" }"#),
        ("abc", r#"{ "result": 1, "text": "invalid first character a" }"#),
        (
            r#"{"command":"config-test","arguments":{"Dhcp4":{"valid-lifetime":5},"X":1}}"#,
            r#"{ "result": 1, "text": "Unsupported 'X' parameter." }"#,
        ),
        (
            r#"{"command":"dhcp-disable","arguments":{"max-period":20}}"#,
            r#"{ "result": 0, "text": "DHCPv4 service disabled for 20 seconds" }"#,
        ),
        (
            r#"{"command":"dhcp-enable","arguments":{"origin":""}}"#,
            r#"{ "result": 1, "text": "invalid value used for 'origin' parameter: (empty string)" }"#,
        ),
        (
            r#"{"command":"lease4-add","arguments":{"ip-address":"10.0.2.15"}}"#,
            r#"{ "result": 1, "text": "missing parameter 'hw-address' (<wire>:0:37)" }"#,
        ),
    ] {
        assert_eq!(running.ask_text(request), answer, "{request}");
    }
    for request in [
        r#"{"command":"version-get"} trailing"#,
        "// c\n{\"command\": /* z */ \"version-get\"}",
        r#"{"command":"version-get","service":"x"}"#,
        r#"{"command":"version-get","arguments":5}"#,
    ] {
        let answer = running.ask(request);
        assert_eq!((&answer["result"], &answer["text"]), (&json!(0), &json!(env!("CARGO_PKG_VERSION"))));
    }
}

/// (command, arguments or nothing, result, text)
type Row = (&'static str, &'static str, u32, &'static str);

fn check(running: &Running, rows: &[Row]) {
    for (command, arguments, result, text) in rows {
        let request = if arguments.is_empty() {
            format!("{{\"command\":\"{command}\"}}")
        } else {
            format!("{{\"command\":\"{command}\",\"arguments\":{arguments}}}")
        };
        let answer = running.ask(&request);
        assert_eq!(answer["result"], *result, "{request}: {answer}");
        assert_eq!(answer.get("text").and_then(Value::as_str).unwrap_or_default(), *text, "{request}");
    }
}

#[test]
fn server_commands_say_what_kea_says() {
    let running = Running::unix();
    check(
        &running,
        &[
            ("config-test", "", 1, "Missing mandatory 'arguments' parameter."),
            ("config-test", "{}", 1, "Missing mandatory 'Dhcp4' parameter."),
            ("config-test", r#"{"Dhcp4":1}"#, 1, "'Dhcp4' parameter expected to be a map."),
            ("config-set", r#"{"Dhcp4":{},"hash":"","a":1}"#, 1, "Unsupported 'a' parameter (and 'hash')."),
            (
                "config-test",
                r#"{"Dhcp4":{"foo":1}}"#,
                1,
                "unsupported global configuration parameter: foo (<wire>:0:1)",
            ),
            (
                "config-test",
                r#"{"Dhcp4":{}}"#,
                0,
                "Configuration seems sane. Control-sockets, hook-libraries, and D2 configuration were sanity \
                 checked, but not applied.",
            ),
            ("config-set", r#"{"Dhcp4":{}}"#, 0, "Configuration successful."),
            ("config-reload", "", 1, "Config reload failed: configuration error using file 'F': gone"),
            ("config-write", r#"{"filename":"F"}"#, 0, "Configuration written to F successful"),
            ("config-write", "5", 1, "Argument must be a map"),
            ("config-write", r#"{"filename":""}"#, 1, "Error during config-write: no file"),
            ("config-write", r#"{"filename":1}"#, 1, "passed parameter 'filename' is not a string"),
            ("config-write", "", 1, "Error during config-write: no file"),
            ("config-backend-pull", "", 3, "No config backend."),
            ("kea-lfc-start", "", 3, "kea-lfc already running"),
            ("interface-list", "", 0, "1 interfaces detected."),
            ("leases-reclaim", "", 1, "Missing mandatory 'remove' parameter."),
            ("leases-reclaim", r#"{"remove":1}"#, 1, "'remove' parameter expected to be a boolean."),
            ("leases-reclaim", r#"{"remove":true}"#, 0, "Reclamation of expired leases is complete."),
            ("shutdown", "[]", 1, "Argument must be a map"),
            ("shutdown", r#"{"exit-value":"a"}"#, 1, "parameter 'exit-value' is not an integer"),
            ("dhcp-disable", "[]", 1, "arguments for the 'dhcp-disable' command must be a map"),
            ("dhcp-disable", r#"{"max-period":"a"}"#, 1, "'max-period' argument must be a number"),
            ("dhcp-disable", r#"{"max-period":0}"#, 1, "'max-period' must be positive integer"),
            ("dhcp-disable", r#"{"max-period":-5}"#, 1, "'max-period' must be positive integer"),
            ("dhcp-disable", r#"{"origin-id":"a"}"#, 1, "'origin-id' argument must be a number"),
            ("dhcp-disable", r#"{"origin":[]}"#, 1, "'origin' argument must be a string or a number"),
            ("dhcp-disable", r#"{"origin":"ha-partner","origin-id":2001}"#, 0, "DHCPv4 service disabled"),
            ("dhcp-disable", r#"{"origin":1000}"#, 0, "DHCPv4 service disabled"),
        ],
    );
    let state = &running.ask(r#"{"command":"status-get"}"#)["arguments"]["dhcp-state"];
    assert_eq!(
        *state,
        json!({ "globally-disabled": true, "disabled-by-user": false, "disabled-by-local-command": [1000],
                "disabled-by-remote-command": [2001], "disabled-by-db-connection": [] })
    );
    let config = running.ask_text(r#"{"command":"config-get"}"#);
    let hash = running.ask(r#"{"command":"config-hash-get"}"#)["arguments"]["hash"].clone();
    assert_eq!(
        config,
        format!(
            "{{ \"arguments\": {{ \"Dhcp4\": {{ \"of\": \"Dhcp4\" }}, \"hash\": {hash} }}, \"result\": 0 }}"
        )
    );
    // SHA-256 of the octets `{ "Dhcp4": { "of": "Dhcp4" } }`, by another program.
    assert_eq!(hash, "3850985F8149B2244B9F589A0098A2D784B2961CBA4D9B3F3E4E8FDBB6BEBCCB");
}

#[test]
fn lease_commands_say_what_kea_says() {
    let running =
        Running::start(|server| server.subnets = vec![subnet(1, 10, 8), subnet(7, 192, 24)], unix_only);
    let lease = r#"{"ip-address":"10.0.0.1","hw-address":"02:00:00:00:00:01","hostname":"Foo,bar&x"}"#;
    check(
        &running,
        &[
            ("lease4-add", "", 1, "no parameters specified for the command"),
            ("lease4-add", lease, 0, "Lease for address 10.0.0.1, subnet-id 1 added."),
            ("lease4-add", lease, 4, "IPv4 lease already exists."),
            (
                "lease4-add",
                r#"{"ip-address":"10.0.0.9","hw-address":"01:02","expire":99999999999}"#,
                1,
                "expected an 'expire' of at most 4295053695 for address 10.0.0.9, got 99999999999",
            ),
            (
                "lease4-add",
                r#"{"ip-address":"10.0.0.2","hw-address":"","subnet-id":9}"#,
                4,
                "Invalid subnet-id: No IPv4 subnet with subnet-id=9 currently configured.",
            ),
            (
                "lease4-add",
                r#"{"ip-address":"10.0.0.2","hw-address":"","subnet-id":7}"#,
                4,
                "The address 10.0.0.2 does not belong to subnet 192.0.0.0/24, subnet-id=7",
            ),
            (
                "lease4-add",
                r#"{"ip-address":"10.0.0.2","hw-address":""}"#,
                1,
                "expected a hw-address or a client-id of the client that has 10.0.0.2: nobody reads a lease without both from a file",
            ),
            (
                "lease4-add",
                r#"{"ip-address":"172.16.0.1","hw-address":""}"#,
                4,
                "subnet-id not specified and failed to find a subnet for address 172.16.0.1",
            ),
            (
                "lease4-add",
                r#"{"ip-address":"2001:db8::1","hw-address":""}"#,
                1,
                "Non-IPv4 address specified: 2001:db8::1",
            ),
            (
                "lease4-update",
                r#"{"ip-address":"10.0.0.2","hw-address":"","expire":5,"valid-lft":6}"#,
                1,
                "expiration time must be greater than valid lifetime for address 10.0.0.2",
            ),
            (
                "lease4-update",
                r#"{"ip-address":"10.0.0.2","hw-address":"","fqdn-fwd":true}"#,
                1,
                "No hostname specified and either forward or reverse fqdn was set to true.",
            ),
            ("lease4-get", "", 1, "Parameters missing or are not a map."),
            ("lease4-get", r#"{"ip-address":1}"#, 1, "'ip-address' is not a string."),
            ("lease4-get", r#"{"ip-address":"::1"}"#, 1, "Invalid IPv4 address specified: ::1"),
            ("lease4-get", "{}", 1, "Mandatory 'subnet-id' parameter missing."),
            ("lease4-get", r#"{"subnet-id":"1"}"#, 1, "'subnet-id' parameter is not integer."),
            (
                "lease4-get",
                r#"{"subnet-id":1}"#,
                1,
                "No 'ip-address' provided and 'identifier-type' is either missing or not a string.",
            ),
            (
                "lease4-get",
                r#"{"subnet-id":1,"identifier-type":"hw-address"}"#,
                1,
                "No 'ip-address' provided and 'identifier' is either missing or not a string.",
            ),
            (
                "lease4-get",
                r#"{"subnet-id":1,"identifier-type":"x","identifier":"01"}"#,
                1,
                "Incorrect identifier type: x, the only supported values are: hw-address, duid, client-id",
            ),
            (
                "lease4-get",
                r#"{"subnet-id":1,"identifier-type":"duid","identifier":"01"}"#,
                1,
                "Query by duid is not allowed in v4.",
            ),
            (
                "lease4-get",
                r#"{"ip-address":"10.0.0.1","iaid":1}"#,
                1,
                "'iaid' parameter is specific to DHCPv6.",
            ),
            (
                "lease4-get",
                r#"{"subnet-id":1,"identifier-type":"hw-address","identifier":"02:00:00:00:00:01"}"#,
                0,
                "IPv4 lease found.",
            ),
            ("lease4-get-all", "{}", 1, "'subnets' parameter not specified"),
            ("lease4-get-all", r#"{"subnets":1}"#, 1, "'subnets' parameter must be a list"),
            ("lease4-get-all", r#"{"subnets":["1"]}"#, 1, "listed subnet identifiers must be numbers"),
            ("lease4-get-all", r#"{"subnets":[7]}"#, 3, "0 IPv4 lease(s) found."),
            ("lease4-get-page", "{}", 1, "'from' parameter not specified"),
            ("lease4-get-page", r#"{"from":"start","limit":0}"#, 1, "'limit' parameter must not be 0."),
            ("lease4-get-page", r#"{"from":"start","limit":4294967295}"#, 0, "1 IPv4 lease(s) found."),
            ("lease4-get-by-hostname", r#"{"hostname":""}"#, 1, "'hostname' parameter is empty"),
            ("lease4-get-by-hostname", r#"{"hostname":"FOO,bar&x"}"#, 0, "1 IPv4 lease(s) found."),
            ("lease4-get-by-client-id", r#"{"client-id":"01:02"}"#, 3, "0 IPv4 lease(s) found."),
            (
                "lease4-get-by-client-id",
                r#"{"client-id":"01"}"#,
                1,
                "'client-id' is too short (1 octet), at least 2 are required",
            ),
            (
                "lease4-get",
                r#"{"subnet-id":1,"identifier-type":"client-id","identifier":""}"#,
                1,
                "'client-id' is empty; without one, leave it out",
            ),
            (
                "lease4-get-by-state",
                r#"{"state":"default","subnet-id":1}"#,
                0,
                "1 IPv4 lease(s) found with state default (0) in subnet 1.",
            ),
            ("lease4-get-by-state", r#"{"state":1}"#, 3, "0 IPv4 lease(s) found with state declined (1)."),
            ("lease4-resend-ddns", r#"{"ip-address":"10.0.0.1"}"#, 4, "DDNS updating is not enabled"),
            ("lease4-write", r#"{"filename":"/x"}"#, 0, "IPv4 lease database into '/x'."),
            (
                "lease4-del",
                r#"{"ip-address":"10.0.0.1","update-ddns":1}"#,
                1,
                "'update-ddns' is not a boolean",
            ),
            ("lease4-wipe", r#"{"subnet-id":7}"#, 3, "Deleted 0 IPv4 lease(s) from subnet(s) 7"),
            ("lease4-wipe", r#"{"subnet-id":99}"#, 3, "Deleted 0 IPv4 lease(s) from subnet(s) 99"),
            ("lease4-wipe", "", 0, "Deleted 1 IPv4 lease(s) from subnet(s) 1 7"),
        ],
    );
}

#[test]
fn subnet_commands_say_what_kea_says() {
    let running = Running::start(
        |server| {
            server.subnets = vec![subnet(1, 10, 8), subnet(7, 192, 24)];
            server.subnets[1].shared_network = Some("floor".to_owned());
        },
        unix_only,
    );
    check(
        &running,
        &[
            ("subnet4-list", "", 0, "2 IPv4 subnets found"),
            ("subnet4-get", r#"{"id":7}"#, 0, "Info about IPv4 subnet 192.0.0.0/24 (id 7) returned"),
            (
                "subnet4-get",
                r#"{"subnet":"10.0.0.0/8"}"#,
                0,
                "Info about IPv4 subnet 10.0.0.0/8 (id 1) returned",
            ),
            ("subnet4-get", r#"{"id":8}"#, 3, "No subnet with id 8 found"),
            ("subnet4-get", r#"{"subnet":"10.0.0.0/9"}"#, 3, "No 10.0.0.0/9 subnet found"),
            ("subnet4-get", r#"{"a":1}"#, 1, "'id' or 'subnet' parameter required"),
            (
                "subnet4-get",
                r#"{"id":1,"subnet":""}"#,
                1,
                "invalid number of arguments 2 for the 'subnet4-get' command. Expecting 'id' or 'subnet'",
            ),
            ("network4-list", "", 0, "1 IPv4 network found"),
            ("network4-get", r#"{"name":"floor"}"#, 0, "Info about IPv4 shared network 'floor' returned"),
            ("network4-get", r#"{"name":"x"}"#, 3, "No 'x' shared network found"),
            ("subnet4-select-test", "", 1, "empty arguments"),
            ("subnet4-select-test", "1", 1, "arguments must be a map"),
            ("subnet4-select-test", r#"{"x":1}"#, 1, "unknown entry 'x'"),
            ("subnet4-select-test", r#"{"relay":"::1"}"#, 1, "bad 'relay' entry: not IPv4"),
            ("subnet4-select-test", r#"{"relay":1}"#, 1, "'relay' entry must be a string"),
            ("subnet4-select-test", r#"{"relay":"10.0.0.1"}"#, 0, "selected subnet '10.0.0.0/8' id 1"),
            (
                "subnet4-select-test",
                r#"{"relay":"192.0.0.1"}"#,
                0,
                "selected shared network 'floor' starting with subnet '192.0.0.0/24' id 7",
            ),
            ("stat-lease4-get", "", 0, "stat-lease4-get[all subnets]: 2 rows found"),
            ("stat-lease4-get", r#"{"subnet-id":7}"#, 0, "stat-lease4-get[subnet-id=7]: 1 rows found"),
            (
                "stat-lease4-get",
                r#"{"subnet-id":9}"#,
                3,
                "stat-lease4-get[subnet-id=9]: no matching data, subnet-id: 9 does not exist",
            ),
            (
                "stat-lease4-get",
                r#"{"subnet-range":{"first-subnet-id":2,"last-subnet-id":5}}"#,
                3,
                "stat-lease4-get[subnets 2 through 5]: no matching data, selected ID range: 2 through 5 includes no \
                 known subnets",
            ),
            (
                "stat-lease4-get",
                r#"{"subnet-range":{},"subnet-id":1}"#,
                1,
                "cannot specify both subnet-id and subnet-range",
            ),
        ],
    );
    let nothing = running.ask(r#"{"command":"stat-lease4-get","arguments":{"subnet-id":9}}"#);
    assert_eq!(nothing["arguments"], json!({}));
    let list = running.ask_text(r#"{"command":"subnet4-list"}"#);
    assert_eq!(
        list,
        "{ \"arguments\": { \"subnets\": [ { \"id\": 1, \"shared-network-name\": null, \"subnet\": \"10.0.0.0/8\" }, \
         { \"id\": 7, \"shared-network-name\": \"floor\", \"subnet\": \"192.0.0.0/24\" } ] }, \"result\": 0, \
         \"text\": \"2 IPv4 subnets found\" }"
    );
    let rows = &running.ask(r#"{"command":"stat-lease4-get"}"#)["arguments"]["result-set"]["rows"];
    assert_eq!(*rows, json!([[1, 100, 0, 0, 0], [7, 100, 0, 0, 0]]));
}

#[test]
fn statistics_say_what_kea_says() {
    let running = Running::unix();
    let received = || running.ask(r#"{"command":"statistic-get","arguments":{"name":"pkt4-received"}}"#);
    let answer = received();
    let sample = &answer["arguments"]["pkt4-received"][0];
    assert_eq!(sample[0], 24);
    assert_eq!(sample[1], "2026-11-23 06:28:50.000000");
    check(
        &running,
        &[
            ("statistic-get", "", 1, "Missing mandatory 'name' parameter."),
            ("statistic-get", r#"{"name":1}"#, 1, "'name' parameter expected to be a string."),
            ("statistic-reset", r#"{"name":"x"}"#, 1, "No 'x' statistic found"),
            ("statistic-reset", r#"{"name":"pkt4-received"}"#, 0, "Statistic 'pkt4-received' reset."),
            (
                "statistic-sample-age-set",
                r#"{"name":"pkt4-sent"}"#,
                1,
                "Missing mandatory 'duration' parameter.",
            ),
            (
                "statistic-sample-age-set",
                r#"{"name":"pkt4-sent","duration":5}"#,
                0,
                "Statistic 'pkt4-sent' duration limit is set.",
            ),
            (
                "statistic-sample-age-set-all",
                r#"{"duration":5}"#,
                0,
                "All statistics duration limit are set.",
            ),
            (
                "statistic-sample-count-set",
                r#"{"name":"pkt4-sent","max-samples":"1"}"#,
                1,
                "'max-samples' parameter expected to be an integer.",
            ),
            (
                "statistic-sample-count-set-all",
                r#"{"max-samples":0}"#,
                1,
                "'max-samples' parameter must not be zero",
            ),
            (
                "statistic-sample-count-set-all",
                r#"{"max-samples":2}"#,
                0,
                "All statistics count limit are set.",
            ),
            ("statistic-remove", r#"{"name":"pkt4-sent"}"#, 0, "Statistic 'pkt4-sent' removed."),
            ("statistic-remove", r#"{"name":"pkt4-sent"}"#, 1, "No 'pkt4-sent' statistic found"),
            ("statistic-reset-all", "", 0, "All statistics reset to neutral values."),
        ],
    );
    assert_eq!(received()["arguments"]["pkt4-received"].as_array().map(Vec::len), Some(1));
    assert_eq!(received()["arguments"]["pkt4-received"][0][0], 0);
    let global = running.ask(r#"{"command":"statistic-global-get-all"}"#);
    assert!(global["arguments"].as_object().expect("a map").keys().all(|name| !name.contains('[')));
    check(
        &running,
        &[(
            "statistic-remove-all",
            "",
            0,
            "Warning: statistic-remove-all command is deprecated. All statistics removed.",
        )],
    );
    assert_eq!(running.ask(r#"{"command":"statistic-get-all"}"#)["arguments"], json!({}));
}
