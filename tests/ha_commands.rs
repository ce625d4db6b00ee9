//! Every command of HA to a running server (see `tests/lab`) in every state, by its unix socket and by HTTP, as
//! `tests/data/ha/commands.jsonl` says. The partner is played.

mod lab;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddrV4, TcpStream};
use std::time::Duration;

use lab::Program::Aplomado;
use lab::peer::Peer;
use lab::{CONTROL, Lab, Setup, until};
use serde_json::{Value, json};

/// By what a command comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Socket,
    Http,
}

struct Table {
    lab: Lab,
    peer: Peer,
    /// Which server is the real one.
    own: usize,
    way: Way,
}

fn text<'v>(value: &'v Value, key: &str) -> &'v str {
    value[key].as_str().unwrap_or_else(|| panic!("{value}: {key} is a text"))
}

fn is_static(name: &str) -> &'static str {
    let names = [
        "backup",
        "communication-recovery",
        "hot-standby",
        "in-maintenance",
        "load-balancing",
        "partner-down",
        "partner-in-maintenance",
        "ready",
        "silent",
        "syncing",
        "terminated",
    ];
    names.into_iter().find(|known| *known == name).unwrap_or_else(|| panic!("{name}: no such state"))
}

impl Table {
    fn new(mode: &'static str, role: &str, way: Way) -> Option<Self> {
        let own = if role == "backup" { 2 } else { 0 };
        let name = match (mode, own, way) {
            ("hot-standby", 0, Way::Socket) => "c-hs",
            ("hot-standby", 0, Way::Http) => "c-hh",
            ("load-balancing", _, Way::Socket) => "c-ls",
            ("load-balancing", ..) => "c-lh",
            ("passive-backup", _, Way::Socket) => "c-ps",
            ("passive-backup", ..) => "c-ph",
            (_, _, Way::Socket) => "c-bs",
            (..) => "c-bh",
        };
        let mut setup = Setup::new(name, mode, &[Aplomado, Aplomado, Aplomado]);
        // Nothing that the backup is sent matters here, and nobody serves clients: a silence does not make anybody take over too soon.
        setup.relationship = json!({ "heartbeat-delay": 100, "max-unacked-clients": 10, "restrict-commands": false,
            "delayed-updates-limit": u32::from(mode == "load-balancing") * 100 });
        setup.peers = vec![json!({}), json!({ "url": "http://10.78.0.100:8005/" }), json!({})];
        let mut lab = Lab::new(setup)?;
        let peer = Peer::listen(8005);
        lab.start(own);
        until("a server", || lab.state(own));
        Some(Self { lab, peer, own, way })
    }

    fn state(&self) -> String {
        self.lab.state(self.own).expect("an answer")
    }

    fn servers(&self) -> Value {
        let answer = self.lab.order(self.own, "status-get", &Value::Null);
        answer["arguments"]["high-availability"][0]["ha-servers"].clone()
    }

    fn order(&self, command: &str, arguments: &Value) {
        self.lab.order(self.own, command, arguments);
    }

    /// The partner says that it is in `state`, and was heard.
    fn partner(&self, state: &str) {
        let state = is_static(state);
        self.peer.script(|script| {
            (script.silent, script.state) =
                (state == "silent", if state == "silent" { "hot-standby" } else { state });
        });
        let heard = if state == "silent" { "unavailable" } else { state };
        until("heartbeat", || {
            let servers = self.servers();
            (servers["remote"].is_null() || servers["remote"]["last-state"] == heard).then_some(())
        });
    }

    /// From wherever it is to `state`, with the partner in `partner`.
    fn bring(&self, state: &str, partner: &str) {
        let own = self.own;
        self.peer.script(|script| {
            (script.ahead_s, script.status, script.disable_result, script.silent) = (0, 200, 0, false);
            script.state = "syncing";
            script.maintenance = json!([{ "result": 0, "text": "played" }]);
        });
        if matches!(state, "backup" | "passive-backup") {
            self.lab.await_state(own, state);
            return;
        }
        // Twice: a state that follows from what was heard of the partner before may have come between.
        until("waiting", || {
            self.order("ha-reset", &Value::Null);
            self.peer.await_heartbeats(2);
            (self.state() == "waiting").then_some(())
        });
        let normal = self.lab.setup.mode;
        if state == "waiting" {
            return self.partner(partner);
        }
        if state == "syncing" {
            self.peer.script(|script| script.disable_result = 1);
        }
        self.peer.script(|script| script.state = "partner-down");
        if state == "syncing" {
            return self.lab.await_state(own, state);
        }
        self.lab.await_state(own, "ready");
        if state == "ready" {
            return;
        }
        if state == "partner-down" {
            self.peer.script(|script| script.silent = true);
            self.lab.await_state(own, state);
            return self.partner(partner);
        }
        self.peer.script(|script| script.state = "ready");
        self.lab.await_state(own, normal);
        self.partner(normal);
        match state {
            "communication-recovery" => self.peer.script(|script| script.silent = true),
            "partner-in-maintenance" => self.order("ha-maintenance-start", &Value::Null),
            "in-maintenance" => self.order("ha-maintenance-notify", &json!({ "cancel": false })),
            "terminated" => self.peer.script(|script| script.ahead_s = 100),
            _ => {}
        }
        self.lab.await_state(own, state);
        if state != "terminated" {
            self.partner(partner);
        }
    }

    /// A body by the way of this table; the element of the answer.
    fn ask(&self, body: &Value) -> Value {
        if self.way == Way::Socket {
            return self.lab.ask(self.own, body).expect("an answer");
        }
        let mut stream = TcpStream::connect(SocketAddrV4::new(CONTROL[self.own], 8005)).expect("it listens");
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
        let text = body.to_string();
        let length = text.len();
        let head = format!(
            "POST / HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close"
        );
        stream.write_all(format!("{head}\r\n\r\n{text}").as_bytes()).expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        assert!(head.starts_with("HTTP/1.1 200 "), "{text}: {head}");
        let list: Value = serde_json::from_str(body).expect("JSON");
        assert_eq!(list.as_array().map(Vec::len), Some(1), "{text}: a list of one, not {list}");
        list[0].clone()
    }

    fn case(&self, line: &str, case: &Value, state: &str) {
        if let Some(answer) = case.get("played") {
            self.peer.script(|script| script.maintenance = answer.clone());
        }
        if let Some(first) = case.get("first") {
            self.order(text(first, "say"), &first["with"]);
        }
        let body = if let Some(whole) = case.get("whole") {
            whole.clone()
        } else {
            let mut body = json!({ "command": case["say"], "service": ["dhcp4"] });
            if let Some(arguments) = case.get("with") {
                body["arguments"] = arguments.clone();
            }
            body
        };
        let before = self.peer.heard().len();
        let answer = self.ask(&body);
        let after = self.state();
        let heard: Vec<String> = self.peer.heard()[before..]
            .iter()
            .map(|heard| heard.command().to_owned())
            .filter(|command| command != "ha-heartbeat" && command != "list-commands")
            .collect();
        assert_eq!(answer["result"], case["is"], "{line}\n{answer}");
        let said = answer["text"].as_str().unwrap_or_default();
        assert!(case["is"] == 0 || !said.is_empty(), "{line}\nwhy not is said: {answer}");
        if let Some(text) = case["text"].as_str() {
            assert!(said.contains(text), "{line}\n{answer}");
        }
        match case.get("arguments") {
            None => assert!(answer.get("arguments").is_none(), "{line}\n{answer}"),
            Some(Value::Bool(_)) => assert!(answer["arguments"].is_object(), "{line}\n{answer}"),
            Some(exactly) => assert_eq!(answer["arguments"], *exactly, "{line}\n{answer}"),
        }
        let expected = case["then"].as_str().unwrap_or(state);
        assert!(expected.split(" or ").any(|state| state == after), "{line}\nthe state is {after}");
        if let Some(scopes) = case.get("scopes") {
            assert_eq!(self.servers()["local"]["scopes"], *scopes, "{line}");
        }
        if let Some(off) = case.get("off") {
            let status = self.lab.order(self.own, "status-get", &Value::Null);
            let dhcp = &status["arguments"]["dhcp-state"];
            let mut origins: Vec<u64> = Vec::new();
            origins.extend((dhcp["disabled-by-user"] == true).then_some(1));
            for key in ["disabled-by-local-command", "disabled-by-remote-command"] {
                origins.extend(dhcp[key].as_array().into_iter().flatten().filter_map(Value::as_u64));
            }
            assert_eq!(json!(origins), *off, "{line}\n{dhcp}");
            assert_eq!(dhcp["globally-disabled"], !origins.is_empty(), "{line}");
        }
        for command in case["sends"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            assert!(heard.iter().any(|heard| heard == command), "{line}\nit sent {heard:?}");
        }
        assert!(case["silent"] != true || heard.is_empty(), "{line}\nit sent {heard:?}");
    }
}

fn commands(way: Way, mode: &'static str, role: &str) {
    let data = include_str!("data/ha/commands.jsonl");
    let Some(table) = Table::new(mode, role, way) else { return };
    let (mut is_here, mut section, mut count) = (false, (String::new(), String::new()), 0);
    for line in data.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let entry: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"));
        if entry.get("mode").is_some() {
            is_here = text(&entry, "mode") == mode && text(&entry, "role") == role;
        } else if !is_here {
        } else if entry.get("in").is_some() {
            section = (text(&entry, "in").to_owned(), text(&entry, "partner").to_owned());
            table.bring(&section.0, &section.1);
        } else {
            if table.state() != section.0 || entry.get("then").is_some() || entry.get("played").is_some() {
                table.bring(&section.0, &section.1);
            }
            table.case(line, &entry, &section.0);
            count += 1;
        }
    }
    assert!(count > 3, "{count} cases");
}

#[test]
fn commands_to_a_primary_by_its_socket() {
    commands(Way::Socket, "hot-standby", "primary");
}

#[test]
fn commands_to_a_primary_by_http() {
    commands(Way::Http, "hot-standby", "primary");
}

#[test]
fn commands_to_a_server_that_shares_the_load() {
    commands(Way::Socket, "load-balancing", "primary");
    commands(Way::Http, "load-balancing", "primary");
}

#[test]
fn commands_to_a_primary_of_backups() {
    commands(Way::Socket, "passive-backup", "primary");
    commands(Way::Http, "passive-backup", "primary");
}

#[test]
fn commands_to_a_backup() {
    commands(Way::Socket, "hot-standby", "backup");
    commands(Way::Http, "hot-standby", "backup");
}
