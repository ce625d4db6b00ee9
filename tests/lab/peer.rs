//! A peer that is played: it listens where a server expects its partner or a backup, and says what it is told to say.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aplomado::ha::command::date::format_http;
use parking_lot::Mutex;
use serde_json::{Value, json};

/// Where played peers are: the clients' end of the control network.
pub(crate) const PLAYED: Ipv4Addr = Ipv4Addr::new(10, 78, 0, 100);

/// The time, as a clock on the wall shows it.
#[expect(clippy::disallowed_methods, reason = "real servers live in real time")]
pub(crate) fn wall_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
}

/// What it says now.
#[derive(Clone, Debug)]
pub(crate) struct Script {
    /// The state in its heartbeats.
    pub(crate) state: &'static str,
    /// Its clock goes before ours by this.
    pub(crate) ahead_s: i64,
    /// The result of lease updates.
    pub(crate) update_result: u32,
    /// The result of `dhcp-disable`.
    pub(crate) disable_result: u32,
    /// What `ha-maintenance-notify` is answered.
    pub(crate) maintenance: Value,
    /// Answers to heartbeats, whole bodies, when they are not as usual.
    pub(crate) heartbeat: Option<Value>,
    /// The HTTP status of all answers.
    pub(crate) status: u16,
    /// Whether it lets connections be closed without an answer.
    pub(crate) silent: bool,
}

/// What it heard: the head and the body of each request.
#[derive(Clone, Debug)]
pub(crate) struct Heard {
    pub(crate) head: String,
    pub(crate) body: Value,
}

impl Heard {
    pub(crate) fn command(&self) -> &str {
        self.body["command"].as_str().unwrap_or_default()
    }
}

#[derive(Debug)]
struct Shared {
    script: Mutex<Script>,
    heard: Mutex<Vec<Heard>>,
    ended: AtomicBool,
}

/// A played peer; it ends when it is dropped.
pub(crate) struct Peer(Arc<Shared>);

impl Peer {
    /// One at this port of [`PLAYED`], in the network namespace of the thread.
    pub(crate) fn listen(port: u16) -> Self {
        let listener = TcpListener::bind(SocketAddrV4::new(PLAYED, port)).expect("nobody else is there");
        listener.set_nonblocking(true).expect("as any socket");
        let script = Script {
            state: "waiting",
            ahead_s: 0,
            update_result: 0,
            disable_result: 0,
            maintenance: json!([{ "result": 0, "text": "played" }]),
            heartbeat: None,
            status: 200,
            silent: false,
        };
        let shared = Arc::new(Shared {
            script: Mutex::new(script),
            heard: Mutex::default(),
            ended: AtomicBool::new(false),
        });
        let of_thread = Arc::clone(&shared);
        std::thread::spawn(move || {
            while !of_thread.ended.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((stream, _)) => {
                        let shared = Arc::clone(&of_thread);
                        std::thread::spawn(move || serve(&stream, &shared));
                    }
                    Err(_) => std::thread::park_timeout(Duration::from_millis(5)),
                }
            }
        });
        Self(shared)
    }

    /// It says something else from now on.
    pub(crate) fn script(&self, change: impl FnOnce(&mut Script)) {
        change(&mut self.0.script.lock());
    }

    /// What it has heard.
    pub(crate) fn heard(&self) -> Vec<Heard> {
        self.0.heard.lock().clone()
    }

    /// How often it has heard a command.
    pub(crate) fn count(&self, command: &str) -> usize {
        self.0.heard.lock().iter().filter(|heard| heard.command() == command).count()
    }

    /// Waits until it has answered so many heartbeats more.
    pub(crate) fn await_heartbeats(&self, more: usize) {
        let before = self.count("ha-heartbeat");
        super::until("heartbeats", || (self.count("ha-heartbeat") >= before + more).then_some(()));
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.0.ended.store(true, Ordering::Relaxed);
    }
}

/// Requests of one connection, until it is closed.
fn serve(stream: &TcpStream, shared: &Shared) -> Option<()> {
    stream.set_nonblocking(false).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(20))).ok()?;
    let mut reader = BufReader::new(stream);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if reader.read_line(&mut head).ok()? == 0 {
                return None;
            }
        }
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
        })?;
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        let body: Value = serde_json::from_slice(&body).ok()?;
        let script = shared.script.lock().clone();
        if script.silent || shared.ended.load(Ordering::Relaxed) {
            return None;
        }
        let answer = answer(&script, &body);
        shared.heard.lock().push(Heard { head, body });
        let text = answer.to_string();
        write!(
            &mut &*stream,
            "HTTP/1.1 {} Played\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{text}",
            script.status,
            text.len()
        )
        .ok()?;
    }
}

fn answer(script: &Script, body: &Value) -> Value {
    if script.status == 401 {
        return json!({ "result": 401, "text": "Unauthorized" });
    }
    let ok = |arguments: Value| json!([{ "result": 0, "text": "played", "arguments": arguments }]);
    match body["command"].as_str().unwrap_or_default() {
        "ha-heartbeat" => script.heartbeat.clone().unwrap_or_else(|| {
            let date = format_http(wall_s().saturating_add_signed(script.ahead_s));
            ok(json!({ "state": script.state, "date-time": date, "scopes": [], "unsent-update-count": 0 }))
        }),
        "list-commands" => ok(json!(["ha-heartbeat", "ha-sync-complete-notify"])),
        "lease4-get-page" => {
            json!([{ "result": 3, "text": "none", "arguments": { "count": 0, "leases": [] } }])
        }
        "lease4-update" | "lease4-del" => json!([{ "result": script.update_result, "text": "played" }]),
        "dhcp-disable" => json!([{ "result": script.disable_result, "text": "played" }]),
        "ha-maintenance-notify" => script.maintenance.clone(),
        _ => ok(json!({})),
    }
}
