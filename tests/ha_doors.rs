//! Who may send commands, and which: the same requests to a server of ours and to its partner, a Kea 2.2 (see `tests/lab`), with credentials
//! and without. Where the answers differ, the reason stands here.

mod lab;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddrV4, TcpStream};
use std::time::Duration;

use lab::Program::{Aplomado, Kea};
use lab::{CONTROL, Door, Lab, Setup};
use serde_json::{Value, json};

/// A request that the two answer differently, and why.
struct Different {
    /// How the request begins.
    request: &'static str,
    ours: &'static str,
    kea: &'static str,
    why: &'static str,
}

const OWN: &str = "said only between two of ours, which find out first that the other one knows it";
const NO_NAME: &str = "2.2 lets what has no name through, to be not found";
const NO_COMMAND: &str = "what is no command here is not looked at further; 2.2 looks for the name first";
const ASKED: &str =
    "2.2 sends credentials to a peer and asks nobody for them; the dedicated listener does since 3.3.1";

const FORBIDDEN: &str = "403 Forbidden | Content-Length, Content-Type, Date | 403 Forbidden";
const UNAUTHORIZED: &str = "401 Unauthorized | Content-Length, Content-Type, Date, \
    WWW-Authenticate: Basic realm=\"kea-dhcpv4-server\" | 401 Unauthorized";

/// What there is of a body: the result and, of a refusal, its text; of a success whether there are a text and arguments.
fn element(answer: &Value) -> String {
    let result = &answer["result"];
    let text = answer["text"].as_str().unwrap_or_default();
    if result.as_u64().is_some_and(|result| result >= 400) {
        return format!("{result} {text}");
    }
    let text = if text.is_empty() { "" } else { " text" };
    let arguments = if answer.get("arguments").is_some() { " arguments" } else { "" };
    format!("{result}{text}{arguments}")
}

/// Status line without version, the names of the headers, what is asked of the client, and the body.
fn read_answer(answer: &str) -> String {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.split_once(' ')).map_or("nothing", |(_, status)| status);
    let headers: Vec<&str> = lines
        .map(|line| {
            let (name, _) = line.split_once(':').unwrap_or_default();
            if name == "WWW-Authenticate" || !["Content-Length", "Content-Type", "Date"].contains(&name) {
                line
            } else {
                name
            }
        })
        .collect();
    let body = match serde_json::from_str(body) {
        Ok(Value::Array(list)) if list.len() == 1 => format!("[{}]", element(&list[0])),
        Ok(other) => element(&other),
        Err(_) => body.to_owned(),
    };
    format!("{status} | {} | {body}", headers.join(", "))
}

/// A request on a connection of its own; `authorization` is the line, empty for none.
fn ask(server: usize, line: &str, kind: &str, authorization: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(SocketAddrV4::new(CONTROL[server], 8005)).expect("it listens");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
    let head = format!(
        "{line}\r\nHost: x\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n{authorization}Connection: close",
        body.len()
    );
    stream.write_all(format!("{head}\r\n\r\n{body}").as_bytes()).expect("it reads");
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    read_answer(&answer)
}

fn post(server: usize, authorization: &str, body: &str) -> String {
    ask(server, "POST / HTTP/1.1", "application/json", authorization, body)
}

/// What was found of the two, request by request.
struct Found<'a> {
    different: &'a [Different],
    used: Vec<bool>,
    odd: Vec<String>,
}

impl<'a> Found<'a> {
    fn new(different: &'a [Different]) -> Self {
        Self { different, used: vec![false; different.len()], odd: Vec::new() }
    }

    fn compare(&mut self, request: &str, found: [String; 2]) {
        let place = self.different.iter().position(|one| request.starts_with(one.request));
        let is_as_told = place.map_or(found[0] == found[1], |place| {
            self.used[place] = true;
            let one = &self.different[place];
            assert!(!one.why.is_empty());
            found == [one.ours, one.kea] && one.ours != one.kea
        });
        if !is_as_told {
            self.odd.push(format!("{request}:\n  ours {}\n  Kea  {}", found[0], found[1]));
        }
    }

    fn end(self) {
        assert!(self.odd.is_empty(), "{} answers differ:\n{}", self.odd.len(), self.odd.join("\n"));
        assert!(self.used.iter().all(|&used| used), "a difference is told that is none");
    }
}

const HEARTBEAT: &str = r#"{ "command": "ha-heartbeat", "service": [ "dhcp4" ] }"#;
/// `first:secret`, `second:` and the same with something wrong.
const AUTHORIZATIONS: [&str; 21] = [
    "",
    "Authorization: Basic Zmlyc3Q6c2VjcmV0",
    "Authorization: Basic c2Vjb25kOg==",
    "authorization: Basic Zmlyc3Q6c2VjcmV0",
    "Authorization: basic Zmlyc3Q6c2VjcmV0",
    "Authorization: BASIC Zmlyc3Q6c2VjcmV0",
    "Authorization: Basic   Zmlyc3Q6c2VjcmV0",
    "Authorization: Basic Zmlyc3Q6c2VjcmV0   ",
    "Authorization:Basic Zmlyc3Q6c2VjcmV0",
    "Authorization: Basic Zmlyc3Q6c2VjcmV1",
    "Authorization: Basic Zmlyc3Q6c2VjcmV0AA==",
    "Authorization: Basic zmlyc3Q6c2VjcmV0",
    "Authorization: Basic Zmlyc3Q6",
    "Authorization: Basic Zmlyc3Q=",
    "Authorization: Basic OnNlY3JldA==",
    "Authorization: Basic c2Vjb25kOg",
    "Authorization: Basic",
    "Authorization: ",
    "Authorization: Zmlyc3Q6c2VjcmV0",
    "Authorization: Bearer Zmlyc3Q6c2VjcmV0",
    "Authorization: Basic Zmlyc3Q6c2VjcmV0 more",
];
const GOOD: &str = "Authorization: Basic Zmlyc3Q6c2VjcmV0\r\n";
const BAD: &str = "Authorization: Basic Zmlyc3Q6c2VjcmV1\r\n";

#[test]
fn credentials_are_asked_for_as_a_control_agent_asks_for_them() {
    let mut setup = Setup::new("d-auth", "hot-standby", &[Aplomado, Kea]);
    setup.door = Door::Agent;
    setup.relationship = json!({ "max-response-delay": 60_000 });
    setup.agent = json!({ "authentication": { "type": "basic", "realm": "a lab", "clients": [
        { "user": "first", "password": "secret" }, { "user": "second", "password": "" } ] } });
    setup.peers = vec![
        json!({ "basic-auth-user": "first", "basic-auth-password": "secret" }),
        json!({ "basic-auth-user": "second" }),
    ];
    let Some(mut lab) = Lab::new(setup) else { return };
    lab.start_all();
    lab.await_normal();
    let mut found = Found::new(&[]);
    for authorization in AUTHORIZATIONS {
        let line = if authorization.is_empty() { String::new() } else { format!("{authorization}\r\n") };
        found.compare(
            &format!("heartbeat, {authorization:?}"),
            [0, 1].map(|server| post(server, &line, HEARTBEAT)),
        );
    }
    let twice = [GOOD, BAD].concat();
    found.compare("heartbeat, good and bad", [0, 1].map(|server| post(server, &twice, HEARTBEAT)));
    let twice = [BAD, GOOD].concat();
    found.compare("heartbeat, bad and good", [0, 1].map(|server| post(server, &twice, HEARTBEAT)));
    // What else is wrong with a request, and who hears of it.
    for (name, authorization) in [("nobody", ""), ("stranger", BAD), ("first", GOOD)] {
        for body in [
            "{ \"command\": ",
            "",
            "[ ]",
            "7",
            "{ }",
            "{ \"command\": 7 }",
            "{ \"command\": \"no-such\" }",
            r#"{ "command": "no-such", "service": [ "dhcp4" ] }"#,
            r#"{ "command": "list-commands" }"#,
        ] {
            found.compare(
                &format!("{name}: {body:?}"),
                [0, 1].map(|server| post(server, authorization, body)),
            );
        }
        for (line, kind) in [
            ("GET / HTTP/1.1", "application/json"),
            ("PUT / HTTP/1.1", "application/json"),
            ("POST / HTTP/1.0", "application/json"),
            ("POST /any HTTP/1.1", "application/json"),
            ("POST / HTTP/1.1", "text/plain"),
        ] {
            let asked = [0, 1].map(|server| ask(server, line, kind, authorization, HEARTBEAT));
            found.compare(&format!("{name}: {line} {kind}"), asked);
        }
    }
    found.end();
    lab.serve_all(0..5);
    lab.assert_equal(5);
}

/// Commands of the daemon, its hooks and HA, and names that are none.
const COMMANDS: [&str; 61] = [
    "aplomado-bulk-apply",
    "aplomado-settings-get",
    "aplomado-sync-begin",
    "aplomado-sync-changes",
    "aplomado-sync-end",
    "aplomado-sync-leases",
    "build-report",
    "config-get",
    "config-reload",
    "config-set",
    "config-test",
    "config-write",
    "dhcp-disable",
    "dhcp-enable",
    "ha-continue",
    "ha-heartbeat",
    "ha-maintenance-cancel",
    "ha-maintenance-notify",
    "ha-maintenance-start",
    "ha-reset",
    "ha-scopes",
    "ha-sync",
    "ha-sync-complete-notify",
    "lease4-add",
    "lease4-del",
    "lease4-get",
    "lease4-get-all",
    "lease4-get-by-client-id",
    "lease4-get-by-hostname",
    "lease4-get-by-hw-address",
    "lease4-get-page",
    "lease4-resend-ddns",
    "lease4-update",
    "lease4-wipe",
    "lease6-bulk-apply",
    "lease6-del",
    "lease6-get-all",
    "lease6-get-page",
    "lease6-update",
    "lease6-wipe",
    "leases-reclaim",
    "libreload",
    "list-commands",
    "no-such-command",
    "server-tag-get",
    "shutdown",
    "stat-lease4-get",
    "statistic-get",
    "statistic-get-all",
    "statistic-remove-all",
    "statistic-reset-all",
    "status-get",
    "subnet4-list",
    "version-get",
    "HA-HEARTBEAT",
    "Ha-Heartbeat",
    " ha-heartbeat",
    "ha-heartbeat ",
    "ha-heartbeat\\u0000",
    "ha-",
    "",
];

#[test]
fn a_restricted_listener_lets_through_what_keas_does() {
    let mut setup = Setup::new("d-only", "hot-standby", &[Aplomado, Kea]);
    setup.relationship = json!({ "max-response-delay": 60_000, "restrict-commands": true });
    let Some(mut lab) = Lab::new(setup) else { return };
    lab.start_all();
    lab.await_normal();
    let own = |request, ours| Different { request, ours, kea: FORBIDDEN, why: OWN };
    const DONE: &str = "200 OK | Content-Length, Content-Type, Date | [0 text arguments]";
    const FAULT: &str = "200 OK | Content-Length, Content-Type, Date | [1 text]";
    let different = [
        own(r#"{ "command": "aplomado-bulk-apply""#, FAULT),
        own(r#"{ "command": "aplomado-settings-get""#, DONE),
        own(r#"{ "command": "aplomado-sync-begin""#, FAULT),
        own(r#"{ "command": "aplomado-sync-changes""#, FAULT),
        own(r#"{ "command": "aplomado-sync-end""#, FAULT),
        own(r#"{ "command": "aplomado-sync-leases""#, FAULT),
        Different {
            request: r#"{ "command": "", "#,
            ours: FORBIDDEN,
            kea: "200 OK | Content-Length, Content-Type, Date | [2 text]",
            why: NO_NAME,
        },
        Different {
            request: r#"{ "command": "config-get", "more": 1 }"#,
            ours: FAULT,
            kea: FORBIDDEN,
            why: NO_COMMAND,
        },
    ];
    let mut found = Found::new(&different);
    for command in COMMANDS {
        // Whether it is let through is what counts, so nothing is to be done by it. 2.2 stumbles over a list where it expects `cancel`.
        let arguments = match command {
            "ha-reset" | "ha-sync-complete-notify" | "ha-heartbeat" | "status-get" | "list-commands" => "",
            "ha-maintenance-notify" => r#", "arguments": { "cancel": true }"#,
            _ => r#", "arguments": [ 1 ]"#,
        };
        let body = format!(r#"{{ "command": "{command}"{arguments} }}"#);
        found.compare(&body, [0, 1].map(|server| post(server, "", &body)));
    }
    for body in [
        "{ \"command\": ",
        "",
        "[ ]",
        "7",
        "{ }",
        "{ \"command\": 7 }",
        "{ \"command\": [ \"ha-heartbeat\" ] }",
        r#"{ "command": "config-get", "service": [ "dhcp6" ] }"#,
        r#"{ "command": "ha-heartbeat", "service": [ "dhcp6" ] }"#,
        r#"{ "command": "config-get", "more": 1 }"#,
        r#"{ "command": "ha-heartbeat", "more": 1 }"#,
        r#"[ { "command": "ha-heartbeat" } ]"#,
        r#"{ "command": "ha-heartbeat", "command": "config-get" }"#,
        r#"{ "command": "config-get", "command": "ha-heartbeat" }"#,
    ] {
        found.compare(body, [0, 1].map(|server| post(server, "", body)));
    }
    found.end();
    lab.await_normal();
}

#[test]
fn a_dedicated_listener_asks_for_the_credentials_of_its_own_entry() {
    let mut setup = Setup::new("d-peer", "hot-standby", &[Aplomado, Kea]);
    setup.relationship = json!({ "max-response-delay": 60_000, "restrict-commands": true });
    setup.peers = vec![
        json!({ "basic-auth-user": "first", "basic-auth-password": "secret" }),
        json!({ "basic-auth-user": "first", "basic-auth-password": "secret" }),
    ];
    let Some(mut lab) = Lab::new(setup) else { return };
    lab.start_all();
    lab.await_normal();
    let done = "200 OK | Content-Length, Content-Type, Date | [0 text arguments]";
    let fault = "200 OK | Content-Length, Content-Type, Date | [1 text]";
    let asked = |request, kea| Different { request, ours: UNAUTHORIZED, kea, why: ASKED };
    let different = [
        asked("nobody: heartbeat", done),
        asked("nobody: config-get", FORBIDDEN),
        asked("stranger: heartbeat", done),
        asked("stranger: config-get", FORBIDDEN),
        asked("nobody: no body", fault),
        asked("stranger: no body", fault),
    ];
    let mut found = Found::new(&different);
    for (name, authorization) in [("nobody", ""), ("stranger", BAD), ("first", GOOD)] {
        for (what, body) in [
            ("heartbeat", HEARTBEAT),
            ("config-get", r#"{ "command": "config-get" }"#),
            ("half a map", "{ \"command\": "),
            ("no body", ""),
        ] {
            let answers = [0, 1].map(|server| post(server, authorization, body));
            found.compare(&format!("{name}: {what}"), answers);
        }
    }
    found.end();
    lab.serve_all(0..5);
    lab.assert_equal(5);
}
