//! What was said to and by a pair of Kea 2.2 (`tests/data/ha/captured-*.jsonl`), said again to a pair of ours (see `tests/lab`): the
//! answers have the same HTTP status, headers, envelope, result codes and shape.

mod lab;

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddrV4, TcpStream};
use std::path::Path;
use std::time::Duration;

use lab::Program::Aplomado;
use lab::{CONTROL, Door, Lab, Setup};
use serde_json::{Value, json};

/// Answers in which we differ: the result that we give instead, with status 200, and why.
const DIFFERENT: [(&str, u64, &str); 8] = [
    ("048", 4, "a conflict has a code of its own since Kea 2.3.1"),
    ("050", 4, "a conflict"),
    ("075", 1, "an unknown name breaks Kea's listener: 500, and a bare map"),
    ("084", 3, "an unknown subnet breaks it likewise; its unix socket answers 3"),
    ("085", 0, "statistics of leases are built in"),
    ("100", 0, "the answer to a cancel carries the state since Kea 2.7.6"),
    ("172", 4, "a conflict"),
    ("173", 4, "a conflict"),
];

/// Asks as it was asked; status line, names of the headers, body.
fn ask(server: usize, head: &str, body: &str) -> (String, Vec<String>, Value) {
    let mut stream = TcpStream::connect(SocketAddrV4::new(CONTROL[server], 8005)).expect("it listens");
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
    let closing = format!("{head}\r\nConnection: close\r\n\r\n{body}");
    stream.write_all(closing.as_bytes()).expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap_or_default().to_owned();
    let mut headers: Vec<String> =
        lines.filter_map(|line| Some(line.split_once(':')?.0.to_owned())).collect();
    headers.sort_unstable();
    (status, headers, serde_json::from_str(body).unwrap_or(Value::Null))
}

/// Whether `answer` has what `shape` has: the same keys with values of the same kinds, and the same texts and numbers where the shape
/// gives any but empty ones.
fn fits(answer: &Value, shape: &Value, at: &str, odd: &mut Vec<String>) {
    match (answer, shape) {
        (Value::Object(answer), Value::Object(shape)) => {
            for (key, shape) in shape {
                match answer.get(key) {
                    None => odd.push(format!("{at}.{key} is missing")),
                    Some(value) => fits(value, shape, &format!("{at}.{key}"), odd),
                }
            }
        }
        (Value::Array(answer), Value::Array(shape)) => {
            for wanted in shape {
                let found = answer.iter().any(|value| {
                    let mut odd = Vec::new();
                    fits(value, wanted, at, &mut odd);
                    odd.is_empty()
                });
                if !found {
                    odd.push(format!("{at}: nothing like {wanted} in {}", json!(answer)));
                }
            }
        }
        (Value::String(answer), Value::String(shape)) if shape.is_empty() || answer == shape => {}
        (Value::Number(answer), Value::Number(shape)) if shape.as_u64() == Some(0) || answer == shape => {}
        (Value::Bool(_), Value::Bool(_)) | (Value::Null, Value::Null) => {}
        _ => odd.push(format!("{at} is {answer}, not like {shape}")),
    }
}

fn replay(name: &'static str, mode: &'static str, door: Door, file: &str) {
    let mut setup = Setup::new(name, mode, &[Aplomado, Aplomado]);
    setup.door = door;
    setup.relationship = json!({ "restrict-commands": false });
    setup.names = ["server1", "server2", "server3"];
    let pools = json!([{ "pool": "10.16.0.0-10.47.255.255", "client-class": "HA_server1" },
                       { "pool": "10.48.0.0-10.79.255.255", "client-class": "HA_server2" }]);
    setup.subnets =
        Some(json!([{ "id": 1, "subnet": "10.0.0.0/8", "valid-lifetime": 86400, "pools": pools }]));
    let Some(mut lab) = Lab::new(setup) else { return };
    lab.start_all();
    lab.await_normal();
    // Each has heard that the other is in its normal state, too.
    for server in 0..2 {
        lab::until("normal state of the partner", || {
            let status = lab.command(server, "status-get", &Value::Null)?;
            let remote = &status["arguments"]["high-availability"][0]["ha-servers"]["remote"];
            (remote["last-state"] == mode).then_some(())
        });
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/ha").join(file);
    let (mut wrong, mut count) = (Vec::new(), 0);
    for line in fs::read_to_string(path).expect("readable").lines() {
        let case: Value = serde_json::from_str(line).expect("JSON");
        let text = |key: &str| case[key].as_str().expect("a text");
        let title = text("case");
        let different = DIFFERENT.iter().find(|(number, ..)| title.starts_with(number));
        let wanted = match different {
            Some((_, result, _)) => json!({ "list": true, "result": result }),
            None => case["answer"].clone(),
        };
        let server = usize::from(case["server"] == 1);
        let (status, mut headers, answer) = ask(server, text("head"), text("body"));
        // We were asked to close, Kea was not.
        headers.retain(|header| header != "Connection");
        let mut odd = Vec::new();
        let wanted_status = if different.is_some() { "HTTP/1.1 200 OK" } else { text("status") };
        if status != wanted_status {
            odd.push(format!("the status is {status}"));
        }
        if json!(headers) != case["headers"] {
            odd.push(format!("the headers are {headers:?}"));
        }
        let is_list = wanted["list"] == true;
        let element = if is_list { &answer[0] } else { &answer };
        if answer.is_array() != is_list || (is_list && answer.as_array().is_none_or(|list| list.len() != 1)) {
            odd.push(format!("the body is {answer}"));
        }
        if element["result"] != wanted["result"] {
            odd.push(format!("the answer is {element}"));
        } else {
            if let Some(shape) = wanted.get("arguments") {
                fits(&element["arguments"], shape, "arguments", &mut odd);
            }
            if wanted.get("text").is_some() && !element["text"].is_string() {
                odd.push("text is missing".to_owned());
            }
        }
        count += 1;
        if !odd.is_empty() {
            wrong.push(format!("{title}: {}", odd.join("; ")));
        }
    }
    assert!(count > 30, "{file} holds {count} cases");
    assert!(wrong.is_empty(), "{} of {count} answers differ:\n{}", wrong.len(), wrong.join("\n"));
    // Whatever was asked, the pair is a pair still.
    lab.await_normal();
}

#[test]
fn a_session_with_a_pair_that_shares_the_load() {
    replay("r-lb", "load-balancing", Door::Dedicated, "captured-load-balancing.jsonl");
}

#[test]
fn a_session_with_a_pair_behind_agents() {
    replay("r-ca", "hot-standby", Door::Agent, "captured-agent.jsonl");
}
