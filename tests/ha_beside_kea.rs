//! Requests that cannot be served, to a server of ours and to its partner, a Kea 2.2 (see `tests/lab`), by the unix socket and by HTTP: both give
//! the same status, envelope and result, with a text, and with arguments or without. Where they do not, the reason stands here.

mod lab;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddrV4, TcpStream};
use std::time::Duration;

use lab::Program::{Aplomado, Kea};
use lab::{CONTROL, Lab, NAMES, Setup};
use serde_json::{Value, json};

/// A request by one way: what ours and what Kea answers where they differ, and why.
struct Different {
    /// How the request begins, `OWN` and `PARTNER` instead of names.
    request: &'static str,
    way: &'static str,
    ours: &'static str,
    kea: &'static str,
    why: &'static str,
}

const NOT_READ: &str =
    "2.2 does not look at the arguments; since 2.5.5 they name a server, and have to be a map";
const LET_THROUGH: &str = "2.2 lets the fault through to its command channel, which says nothing, or 500";
const FROM_ITSELF: &str = "2.2 copies its own leases from itself";
const PARAMETER: &str = "a parameter of the content type does no harm";

const DIFFERENT: [Different; 19] = [
    Different {
        request: r#"{ "command": "ha-heartbeat", "arguments": [ 1 ]"#,
        way: "socket",
        ours: "1 text",
        kea: "0 text arguments",
        why: NOT_READ,
    },
    Different {
        request: r#"{ "command": "ha-heartbeat", "arguments": [ 1 ]"#,
        way: "http",
        ours: "200 [1 text]",
        kea: "200 [0 text arguments]",
        why: NOT_READ,
    },
    Different {
        request: r#"{ "command": "ha-sync", "arguments": { "server-name": "nobody""#,
        way: "socket",
        ours: "1 text",
        kea: "nothing",
        why: LET_THROUGH,
    },
    Different {
        request: r#"{ "command": "ha-sync", "arguments": { "server-name": "nobody""#,
        way: "http",
        ours: "200 [1 text]",
        kea: "500 500 text",
        why: LET_THROUGH,
    },
    Different {
        request: r#"{ "command": "ha-sync", "arguments": { "server-name": "OWN""#,
        way: "socket",
        ours: "1 text",
        kea: "0 text",
        why: FROM_ITSELF,
    },
    Different {
        request: r#"{ "command": "ha-sync", "arguments": { "server-name": "OWN""#,
        way: "http",
        ours: "200 [1 text]",
        kea: "200 [0 text]",
        why: FROM_ITSELF,
    },
    Different {
        request: r#"{ "command": "ha-maintenance-notify" }"#,
        way: "socket",
        ours: "1 text",
        kea: "nothing",
        why: LET_THROUGH,
    },
    Different {
        request: r#"{ "command": "ha-maintenance-notify" }"#,
        way: "http",
        ours: "200 [1 text]",
        kea: "500 500 text",
        why: LET_THROUGH,
    },
    Different {
        request: r#"{ "command": "ha-maintenance-notify", "arguments": { }"#,
        way: "socket",
        ours: "1 text",
        kea: "nothing",
        why: LET_THROUGH,
    },
    Different {
        request: r#"{ "command": "ha-maintenance-notify", "arguments": { }"#,
        way: "http",
        ours: "200 [1 text]",
        kea: "500 500 text",
        why: LET_THROUGH,
    },
    Different {
        request: r#"{ "command": "ha-maintenance-notify", "arguments": [ false ]"#,
        way: "socket",
        ours: "1 text",
        kea: "nothing",
        why: LET_THROUGH,
    },
    Different {
        request: r#"{ "command": "ha-maintenance-notify", "arguments": [ false ]"#,
        way: "http",
        ours: "200 [1 text]",
        kea: "500 500 text",
        why: LET_THROUGH,
    },
    Different {
        request: r#"{ "command": "ha-maintenance-notify", "arguments": { "state""#,
        way: "socket",
        ours: "1 text",
        kea: "nothing",
        why: LET_THROUGH,
    },
    Different {
        request: r#"{ "command": "ha-maintenance-notify", "arguments": { "state""#,
        way: "http",
        ours: "200 [1 text]",
        kea: "500 500 text",
        why: LET_THROUGH,
    },
    Different {
        request: r#"{ "command": "ha-maintenance-notify", "arguments": { "cancel": "false""#,
        way: "socket",
        ours: "1 text",
        kea: "nothing",
        why: LET_THROUGH,
    },
    Different {
        request: r#"{ "command": "ha-maintenance-notify", "arguments": { "cancel": "false""#,
        way: "http",
        ours: "200 [1 text]",
        kea: "500 500 text",
        why: LET_THROUGH,
    },
    Different {
        request: r#"{ "command": "ha-maintenance-notify", "arguments": { "cancel": 0"#,
        way: "socket",
        ours: "1 text",
        kea: "nothing",
        why: LET_THROUGH,
    },
    Different {
        request: r#"{ "command": "ha-maintenance-notify", "arguments": { "cancel": 0"#,
        way: "http",
        ours: "200 [1 text]",
        kea: "500 500 text",
        why: LET_THROUGH,
    },
    Different {
        request: r#"POST application/json; charset=utf-8"#,
        way: "http",
        ours: "200 [0 text arguments]",
        kea: "400 400 text",
        why: PARAMETER,
    },
];

/// Requests without arguments that say more than their name.
const BODIES: [&str; 12] = [
    r#"{ "command": "ha-heartbeats" }"#,
    r#"{ "command": "" }"#,
    r#"{ "command": 7 }"#,
    r#"{ "command": ["ha-heartbeat"] }"#,
    r#"{ "service": ["dhcp4"] }"#,
    "{ }",
    "[ ]",
    r#""ha-heartbeat""#,
    "7",
    r#"{ "command": "ha-heartbeat", "more": 1 }"#,
    r#"{ "command": "ha-heartbeat", "#,
    r#"{ "command": "ha-heartbeat", "service": "dhcp4" }"#,
];

/// Commands with arguments that are wrong, or in a state in which they are.
const COMMANDS: [(&str, &str); 43] = [
    ("ha-heartbeat", "[ 1 ]"),
    ("ha-sync", "null"),
    ("ha-sync", "[ ]"),
    ("ha-sync", "{ }"),
    ("ha-sync", r#"{ "max-period": 10 }"#),
    ("ha-sync", r#"{ "server-name": 7 }"#),
    ("ha-sync", r#"{ "server-name": "nobody" }"#),
    ("ha-sync", r#"{ "server-name": "OWN" }"#),
    ("ha-sync", r#"{ "server-name": "PARTNER", "max-period": 0 }"#),
    ("ha-sync", r#"{ "server-name": "PARTNER", "max-period": -1 }"#),
    ("ha-sync", r#"{ "server-name": "PARTNER", "max-period": "10" }"#),
    ("ha-scopes", "null"),
    ("ha-scopes", "[ ]"),
    ("ha-scopes", "{ }"),
    ("ha-scopes", r#"{ "scopes": "OWN" }"#),
    ("ha-scopes", r#"{ "scopes": { } }"#),
    ("ha-scopes", r#"{ "scopes": [ 1 ] }"#),
    ("ha-scopes", r#"{ "scopes": [ "OWN", "nobody" ] }"#),
    ("ha-scopes", r#"{ "scopes": [ "HA_nobody" ] }"#),
    ("ha-maintenance-notify", "null"),
    ("ha-maintenance-notify", "{ }"),
    ("ha-maintenance-notify", "[ false ]"),
    ("ha-maintenance-notify", r#"{ "state": "ready" }"#),
    ("ha-maintenance-notify", r#"{ "cancel": "false" }"#),
    ("ha-maintenance-notify", r#"{ "cancel": 0 }"#),
    ("ha-maintenance-notify", r#"{ "cancel": true }"#),
    ("ha-maintenance-cancel", "null"),
    ("ha-maintenance-cancel", "{ }"),
    ("ha-continue", "null"),
    ("ha-continue", "{ }"),
    ("dhcp-disable", "[ 1 ]"),
    ("dhcp-disable", "7"),
    ("dhcp-disable", r#"{ "max-period": 0 }"#),
    ("dhcp-disable", r#"{ "max-period": -1 }"#),
    ("dhcp-disable", r#"{ "max-period": "5" }"#),
    ("dhcp-disable", r#"{ "max-period": true }"#),
    ("dhcp-disable", r#"{ "origin": "x" }"#),
    ("dhcp-disable", r#"{ "origin": [ 1 ] }"#),
    ("dhcp-enable", "[ 1 ]"),
    ("dhcp-enable", r#"{ "origin": "x" }"#),
    ("dhcp-enable", "null"),
    ("ha-sync-complete-notify", "null"),
    ("status-get", "[ 1 ]"),
];

/// What there is of an answer: the result, and whether there are a text and arguments.
fn element(answer: &Value) -> String {
    let result = &answer["result"];
    let text = if answer["text"].as_str().is_some_and(|text| !text.is_empty()) { " text" } else { "" };
    let arguments = if answer.get("arguments").is_some() { " arguments" } else { "" };
    format!("{result}{text}{arguments}")
}

fn by_socket(lab: &Lab, server: usize, body: &str) -> String {
    match lab.ask_text(server, body) {
        None => "nothing".to_owned(),
        Some(answer) => element(&answer),
    }
}

fn by_http(server: usize, method: &str, kind: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(SocketAddrV4::new(CONTROL[server], 8005)).expect("it listens");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
    let head = format!(
        "{method} / HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close",
        body.len()
    );
    stream.write_all(format!("{head}\r\n\r\n{body}").as_bytes()).expect("it reads");
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
    let status = head.split(' ').nth(1).unwrap_or("nothing");
    match serde_json::from_str(body) {
        Ok(Value::Array(list)) if list.len() == 1 => format!("{status} [{}]", element(&list[0])),
        Ok(other) => format!("{status} {}", element(&other)),
        Err(_) => status.to_owned(),
    }
}

#[test]
fn requests_that_cannot_be_served_are_answered_as_kea_answers_them() {
    let mut setup = Setup::new("b-err", "hot-standby", &[Aplomado, Kea]);
    setup.relationship = json!({ "max-response-delay": 60_000, "restrict-commands": false });
    let Some(mut lab) = Lab::new(setup) else { return };
    lab.start_all();
    lab.await_normal();
    let bodies = BODIES.iter().map(|body| (*body).to_owned());
    let commands = COMMANDS.iter().map(|(command, arguments)| match *arguments {
        "null" => format!(r#"{{ "command": "{command}" }}"#),
        arguments => format!(r#"{{ "command": "{command}", "arguments": {arguments} }}"#),
    });
    let (mut odd, mut used) = (Vec::new(), [false; DIFFERENT.len()]);
    let mut compare = |request: &str, way: &'static str, found: [String; 2]| {
        let place = DIFFERENT.iter().position(|one| request.starts_with(one.request) && one.way == way);
        let is_as_told = match place {
            None => found[0] == found[1],
            Some(place) => {
                used[place] = true;
                let one = &DIFFERENT[place];
                assert!(!one.why.is_empty());
                found == [one.ours, one.kea] && one.ours != one.kea
            }
        };
        if !is_as_told {
            odd.push(format!("{way} {request}: ours {:?}, Kea {:?}", found[0], found[1]));
        }
    };
    for request in bodies.chain(commands) {
        let said =
            |server: usize| request.replace("OWN", NAMES[server]).replace("PARTNER", NAMES[1 - server]);
        compare(&request, "socket", [0, 1].map(|server| by_socket(&lab, server, &said(server))));
        let http = |server| by_http(server, "POST", "application/json", &said(server));
        compare(&request, "http", [0, 1].map(http));
    }
    let good = r#"{ "command": "ha-heartbeat" }"#;
    for (method, kind) in [
        ("GET", "application/json"),
        ("PUT", "application/json"),
        ("POST", "text/plain"),
        ("POST", "application/json; charset=utf-8"),
    ] {
        let found = [0, 1].map(|server| by_http(server, method, kind, good));
        compare(&format!("{method} {kind}"), "http", found);
    }
    assert!(odd.is_empty(), "{} answers differ:\n{}", odd.len(), odd.join("\n"));
    assert!(used.iter().all(|&used| used), "a difference is told that is none");
    lab.await_normal();
}
