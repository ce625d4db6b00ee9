//! Whole servers turned by hand, in virtual time, with scripted peers or with each other: what one server does towards its clients, its peers
//! and its operator is seen here call by call.
#![allow(dead_code, reason = "each test crate uses a part")]

#[path = "../scenario/packet.rs"]
pub(crate) mod packet;
#[path = "../sim/server.rs"]
pub(crate) mod server;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use aplomado::ha::command::date::format_http;
use aplomado::server::clock::Clock;
use aplomado::store::{CrashDisk, Survivors};
use aplomado::time::Mono;
use packet::Answer;
use serde_json::{Value, json};
use server::{Server, Setting};

/// Midnight before some day in November of 2026.
pub(crate) const START_S: u64 = 1_795_000_000;
/// What a peer may do with a command.
pub(crate) enum Reply {
    /// It answers.
    Body(Value),
    /// It does not answer.
    Silent,
    /// Its answer comes later, if at all.
    Later,
}

/// A success with these arguments.
pub(crate) fn ok(arguments: Value) -> Reply {
    result(0, arguments)
}

/// An answer with this result.
pub(crate) fn result(result: u32, arguments: Value) -> Reply {
    let mut map = json!({ "result": result, "text": "scripted" });
    if !arguments.is_null() {
        map["arguments"] = arguments;
    }
    Reply::Body(json!([map]))
}

/// A command on its way to a peer.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    /// The connection.
    pub(crate) place: usize,
    /// The position of the peer.
    pub(crate) to: usize,
    /// The true time.
    pub(crate) at_s: u64,
    /// How long the answer may take.
    pub(crate) limit_ms: u64,
    pub(crate) body: Value,
}

impl Sent {
    pub(crate) fn command(&self) -> &str {
        self.body["command"].as_str().expect("a command has a name")
    }

    pub(crate) fn arguments(&self) -> &Value {
        &self.body["arguments"]
    }
}

/// What a played peer does with a command.
type Role = Box<dyn FnMut(&Sent) -> Reply>;

/// A partner, played as Kea would be one, and a backup.
pub(crate) struct Played {
    /// The state that it says it is in; nothing when it does not answer at all.
    pub(crate) state: Option<&'static str>,
    /// Its clock goes before the true time by this.
    pub(crate) ahead_s: i64,
    /// What it makes of lease updates.
    pub(crate) updates: Role,
    /// What the backup does.
    pub(crate) backup: Role,
    /// Leases of its page.
    pub(crate) leases: Vec<Value>,
}

impl Played {
    /// One that waits and takes everything.
    pub(crate) fn new() -> Self {
        Self {
            state: Some("waiting"),
            ahead_s: 0,
            updates: Box::new(|_| ok(Value::Null)),
            backup: Box::new(|_| ok(Value::Null)),
            leases: Vec::new(),
        }
    }

    /// It hears a command.
    pub(crate) fn hear(&mut self, sent: &Sent) -> Reply {
        if sent.to == 2 {
            return (self.backup)(sent);
        }
        let Some(state) = self.state else { return Reply::Silent };
        match sent.command() {
            "ha-heartbeat" => {
                let date = format_http(sent.at_s.saturating_add_signed(self.ahead_s));
                ok(json!({ "state": state, "date-time": date, "scopes": [], "unsent-update-count": 0 }))
            }
            "list-commands" => ok(json!(["ha-heartbeat", "ha-sync-complete-notify"])),
            "lease4-get-page" => {
                let code = if self.leases.is_empty() { 3 } else { 0 };
                result(code, json!({ "count": self.leases.len(), "leases": self.leases }))
            }
            "lease4-update" | "lease4-del" => (self.updates)(sent),
            _ => ok(Value::Null),
        }
    }
}

/// A primary in its normal state, and its partner.
pub(crate) fn normal(mode: &'static str, relationship: &Value, shard_count: usize) -> (Hand, Played) {
    normal_of(setting("one", mode, relationship, shard_count), mode)
}

/// As [`normal`], of this setting.
pub(crate) fn normal_of(setting: Setting, mode: &'static str) -> (Hand, Played) {
    let mut hand = Hand::start(setting);
    let mut played = Played::new();
    if mode == "passive-backup" {
        hand.run_to(mode, &mut |sent| played.hear(sent));
        return (hand, played);
    }
    hand.run_to("ready", &mut |sent| played.hear(sent));
    played.state = Some("ready");
    hand.run_to(mode, &mut |sent| played.hear(sent));
    played.state = Some(mode);
    let heard = |hand: &mut Hand| hand.servers()["remote"]["last-state"] == mode;
    hand.run_until("heartbeat", &mut |sent| played.hear(sent), heard);
    (hand, played)
}

/// One server.
pub(crate) struct Hand {
    pub(crate) setting: Setting,
    pub(crate) disk: CrashDisk,
    pub(crate) clock: Clock,
    pub(crate) server: Option<Server>,
    /// Milliseconds since the beginning, and how far its wall clock is off.
    pub(crate) ms: u64,
    pub(crate) skew_s: i64,
    calls: u64,
    xid: u32,
    answers: BTreeMap<u64, Value>,
    /// What it sent to clients.
    pub(crate) replies: Vec<Answer>,
    /// Everything that it sent to peers, heartbeats too.
    pub(crate) sent: Vec<Sent>,
}

/// A configuration of three peers, of which `name` is this server.
pub(crate) fn setting(name: &str, mode: &str, relationship: &Value, shard_count: usize) -> Setting {
    let second = match mode {
        "hot-standby" => "standby",
        "load-balancing" => "secondary",
        _ => "backup",
    };
    let mut map = json!({ "this-server-name": name, "mode": mode, "heartbeat-delay": 1000, "max-response-delay": 4000,
        "max-ack-delay": 1000, "max-unacked-clients": 0,
        "peers": [
            { "name": "one", "url": "http://192.0.2.1:8000/", "role": "primary" },
            { "name": "two", "url": "http://192.0.2.2:8000/", "role": second },
            { "name": "three", "url": "http://192.0.2.3:8000/", "role": "backup" } ] });
    let (Value::Object(into), Value::Object(from)) = (&mut map, relationship.clone()) else {
        panic!("{relationship}: a relationship is a map");
    };
    into.extend(from);
    let octet = if name == "one" { 1 } else { 2 };
    let text = json!({ "Dhcp4": {
        "interfaces-config": { "interfaces": ["v0"] },
        "lease-database": { "type": "memfile", "name": server::LEASE_FILE, "lfc-interval": 0 },
        "valid-lifetime": 4000,
        "cache-threshold": 0.0,
        "hooks-libraries": [
            { "library": "/usr/lib/kea/hooks/libdhcp_lease_cmds.so" },
            { "library": "/usr/lib/kea/hooks/libdhcp_ha.so", "parameters": { "high-availability": [map] } } ],
        "subnet4": [ { "id": 1, "subnet": "192.0.0.0/16", "pools": [ { "pool": "192.0.3.1 - 192.0.9.254" } ] } ],
    } });
    Setting {
        text: text.to_string(),
        address: Ipv4Addr::new(192, 0, 2, octet),
        mac: [2, 0, 0, 0, 1, octet],
        shard_count,
        seed: 7 + u64::from(octet),
    }
}

impl Hand {
    /// A server that has just been started.
    pub(crate) fn start(setting: Setting) -> Self {
        let (disk, clock) = (CrashDisk::new(), Clock::by_hand(Mono(0), 0));
        let mut hand = Self {
            setting,
            disk,
            clock,
            server: None,
            ms: 1000,
            skew_s: 0,
            calls: 0,
            xid: 0,
            answers: BTreeMap::new(),
            replies: Vec::new(),
            sent: Vec::new(),
        };
        hand.set_clock();
        hand.begin();
        hand
    }

    fn begin(&mut self) {
        self.server = Some(Server::start(&self.setting, &self.disk, &self.clock).expect("a server"));
    }

    /// As by `kill -9`.
    pub(crate) fn kill(&mut self) {
        self.server = None;
        self.disk = self.disk.after(Survivors::Durable);
    }

    /// Starts what was killed.
    pub(crate) fn restart(&mut self) {
        self.begin();
    }

    pub(crate) fn server(&mut self) -> &mut Server {
        self.server.as_mut().expect("it runs")
    }

    pub(crate) fn is_running(&self) -> bool {
        self.server.is_some()
    }

    pub(crate) fn state(&self) -> &'static str {
        self.server.as_ref().map_or("dead", Server::state)
    }

    fn set_clock(&self) {
        let wall = START_S.saturating_add_signed(self.skew_s) * 1_000_000 + self.ms * 1000;
        self.clock.set(Mono(self.ms * 1_000_000), wall);
    }

    /// Time passes.
    pub(crate) fn pass(&mut self, ms: u64) {
        self.ms += ms;
        self.set_clock();
    }

    /// Everything turns once, and `peer` hears what is sent to it.
    pub(crate) fn turn(&mut self, peer: &mut dyn FnMut(&Sent) -> Reply) {
        let Some(server) = &mut self.server else { return };
        for shard in 0..server.work.shards.len() {
            let (_, frames) = server.turn_shard(shard);
            self.replies.extend(frames.iter().map(|frame| Answer::read(frame)));
        }
        server.turn_log().expect("a disk");
        for answer in server.turn_control() {
            let body: Value = serde_json::from_slice(&answer.body).expect("JSON");
            self.answers.insert(answer.call, body[0].clone());
        }
        for (place, connection) in server.connections.iter_mut().enumerate() {
            if connection.call.is_some() {
                continue;
            }
            let Some(post) = connection.work.next_post() else { continue };
            let body = serde_json::from_slice(&post.body).expect("JSON");
            let sent = Sent {
                place,
                to: connection.work.position,
                at_s: START_S + self.ms / 1000,
                limit_ms: u64::try_from(post.timeout.as_millis()).expect("short"),
                body,
            };
            match peer(&sent) {
                Reply::Body(body) => connection.work.answered(Ok(body.to_string().into_bytes())),
                Reply::Silent => connection.work.answered(Err("timed out".to_owned())),
                Reply::Later => connection.call = Some(0),
            }
            self.sent.push(sent);
        }
    }

    /// The answer that comes later on a connection.
    pub(crate) fn answered(&mut self, place: usize, reply: Reply) {
        let connection = &mut self.server().connections[place];
        assert!(connection.call.take().is_some(), "nothing is under way on connection {place}");
        match reply {
            Reply::Body(body) => connection.work.answered(Ok(body.to_string().into_bytes())),
            Reply::Silent | Reply::Later => connection.work.answered(Err("timed out".to_owned())),
        }
    }

    /// A command arrives; its number.
    pub(crate) fn command(&mut self, body: &Value) -> u64 {
        self.calls += 1;
        let call = self.calls;
        if let Some(answer) = self.server().command(call, body.to_string().as_bytes()) {
            let body: Value = serde_json::from_slice(&answer).expect("JSON");
            self.answers.insert(call, body[0].clone());
        }
        call
    }

    /// The answer to a command, once.
    pub(crate) fn take_answer(&mut self, call: u64) -> Option<Value> {
        self.answers.remove(&call)
    }

    /// A command and its answer.
    pub(crate) fn ask(
        &mut self,
        command: &str,
        arguments: &Value,
        peer: &mut dyn FnMut(&Sent) -> Reply,
    ) -> Value {
        let mut body = json!({ "command": command, "service": ["dhcp4"] });
        if !arguments.is_null() {
            body["arguments"] = arguments.clone();
        }
        let call = self.command(&body);
        for _ in 0..2000 {
            self.turn(peer);
            if let Some(answer) = self.take_answer(call) {
                return answer;
            }
        }
        panic!("no answer to {body}");
    }

    /// A query arrives.
    pub(crate) fn query(&mut self, line: &str) -> u32 {
        self.xid += 1;
        let frame = packet::query(line, self.xid);
        self.server().receive(&frame, 0);
        self.xid
    }

    /// The reply to a query, if it has been sent.
    pub(crate) fn take_reply(&mut self, xid: u32) -> Option<Answer> {
        let place = self.replies.iter().position(|reply| reply.fixed[4..8] == xid.to_be_bytes())?;
        Some(self.replies.remove(place))
    }

    /// A query, and its reply if one comes within some turns.
    pub(crate) fn exchange(&mut self, line: &str, peer: &mut dyn FnMut(&Sent) -> Reply) -> Option<Answer> {
        let xid = self.query(line);
        for _ in 0..12 {
            self.turn(peer);
        }
        self.take_reply(xid)
    }

    /// A client gets an address; nothing if it is not answered.
    pub(crate) fn serve(&mut self, client: u8, peer: &mut dyn FnMut(&Sent) -> Reply) -> Option<Ipv4Addr> {
        let mac = client_mac(client);
        let offer = self.exchange(&format!("discover mac={mac}"), peer)?;
        assert_eq!(offer.kind(), "offer");
        let server = self.setting.address;
        let line = format!("request mac={mac} want={} sid={server}", offer.yiaddr());
        let ack = self.exchange(&line, peer)?;
        assert_eq!(ack.kind(), "ack");
        Some(ack.yiaddr())
    }

    /// Time passes in steps of 50 ms until `is_so`.
    pub(crate) fn run_until(
        &mut self,
        what: &str,
        peer: &mut dyn FnMut(&Sent) -> Reply,
        mut is_so: impl FnMut(&mut Self) -> bool,
    ) {
        for _ in 0..4000 {
            for _ in 0..4 {
                self.turn(peer);
            }
            if is_so(self) {
                return;
            }
            self.pass(50);
        }
        panic!("no {what}; the state is {}", self.state());
    }

    /// As [`Self::run_until`], for a state.
    pub(crate) fn run_to(&mut self, state: &str, peer: &mut dyn FnMut(&Sent) -> Reply) {
        self.run_until(state, peer, |hand| hand.state() == state);
    }

    /// Who holds each address, by the last octets of both, and since when.
    pub(crate) fn holders(&mut self) -> BTreeMap<Ipv4Addr, (u8, u64)> {
        let leases = self.server().leases();
        let of = |lease: &aplomado::lease::Lease4Buf| {
            let lease = lease.view();
            (lease.hw_addr.as_bytes().last().copied().unwrap_or_default(), lease.cltt)
        };
        leases.iter().map(|(address, lease)| (*address, of(lease))).collect()
    }

    /// Since when a lease of the file is what it is.
    pub(crate) fn disk_cltt(&self, address: Ipv4Addr) -> u64 {
        server::on_disk(&self.disk.after(Survivors::Durable))[&address].view().cltt
    }

    /// The pool is another one from now on.
    pub(crate) fn reload_pool(&mut self, pool: &str) {
        let mut text: Value = serde_json::from_str(&self.setting.text).expect("JSON");
        text["Dhcp4"]["subnet4"][0]["pools"][0]["pool"] = json!(pool);
        self.setting.text = text.to_string();
        let text = self.setting.text.clone();
        self.server().reload(&text);
    }

    /// Replies that wait.
    pub(crate) fn parked(&self) -> usize {
        let server = self.server.as_ref().expect("it runs");
        server.work.shards.iter().map(|shard| shard.parked().0 + shard.parked().1).sum()
    }

    /// What `status-get` says of its relationship.
    pub(crate) fn servers(&mut self) -> Value {
        let status = self.ask("status-get", &Value::Null, &mut |_| Reply::Later);
        status["arguments"]["high-availability"][0]["ha-servers"].clone()
    }
}

pub(crate) fn client_mac(client: u8) -> String {
    format!("02:00:00:00:0c:{client:02x}")
}

/// Two servers that hear each other, or not.
pub(crate) struct Two {
    pub(crate) hands: [Hand; 2],
    /// Commands that the other one is busy with: from whom, on which connection, which call.
    calls: Vec<(usize, usize, u64)>,
    /// Nobody hears the other.
    pub(crate) cut: bool,
    /// Commands that are kept from the other one until this is empty.
    pub(crate) held: Vec<&'static str>,
}

impl Two {
    pub(crate) fn start(mode: &str, relationship: &Value, shard_count: usize) -> Self {
        let hand = |name| Hand::start(setting(name, mode, relationship, shard_count));
        Self { hands: [hand("one"), hand("two")], calls: Vec::new(), cut: false, held: Vec::new() }
    }

    /// Both turn, and what they say arrives.
    pub(crate) fn turn(&mut self) {
        for from in 0..2 {
            let mut sent: Vec<Sent> = Vec::new();
            let (cut, other) = (self.cut, self.hands[1 - from].is_running());
            self.hands[from].turn(&mut |command| {
                if command.to == 2 || cut || !other {
                    return Reply::Silent;
                }
                sent.push(command.clone());
                Reply::Later
            });
            for command in sent {
                let call = self.hands[1 - from].command(&command.body);
                self.calls.push((from, command.place, call));
            }
        }
        let Self { hands, calls, cut, held } = self;
        calls.retain(|&(from, place, call)| {
            if !hands[from].is_running() {
                return false;
            }
            if *cut || !hands[1 - from].is_running() {
                hands[from].answered(place, Reply::Silent);
                return false;
            }
            let last = hands[from].sent.iter().rfind(|sent| sent.place == place);
            if last.is_some_and(|sent| held.contains(&sent.command())) {
                return true;
            }
            let Some(answer) = hands[1 - from].take_answer(call) else { return true };
            hands[from].answered(place, Reply::Body(json!([answer])));
            false
        });
    }

    pub(crate) fn kill(&mut self, server: usize) {
        self.hands[server].kill();
        // What it was asked is lost with it, and the answers to what it asked.
        let Self { hands, calls, .. } = self;
        calls.retain(|&(from, place, _)| {
            if from != server {
                hands[from].answered(place, Reply::Silent);
            }
            false
        });
    }

    pub(crate) fn pass(&mut self, ms: u64) {
        for hand in &mut self.hands {
            hand.pass(ms);
        }
    }

    pub(crate) fn run_until(&mut self, what: &str, mut is_so: impl FnMut(&mut Self) -> bool) {
        for _ in 0..4000 {
            for _ in 0..6 {
                self.turn();
                if is_so(self) {
                    return;
                }
            }
            self.pass(50);
        }
        panic!("no {what}; the states are {} and {}", self.hands[0].state(), self.hands[1].state());
    }

    pub(crate) fn run_to(&mut self, states: [&str; 2]) {
        let what = states.join(" and ");
        self.run_until(&what, |two| [0, 1].map(|server| two.hands[server].state()) == states);
    }

    /// A client gets an address from one of them.
    pub(crate) fn serve(&mut self, server: usize, client: u8) -> Ipv4Addr {
        let mac = client_mac(client);
        let own = self.hands[server].setting.address;
        for _ in 0..40 {
            let offer = self.hands[server].query(&format!("discover mac={mac}"));
            (0..12).for_each(|_| self.turn());
            if let Some(offer) = self.hands[server].take_reply(offer) {
                let line = format!("request mac={mac} want={} sid={own}", offer.yiaddr());
                let ack = self.hands[server].query(&line);
                (0..24).for_each(|_| self.turn());
                if let Some(ack) = self.hands[server].take_reply(ack).filter(|ack| ack.kind() == "ack") {
                    return ack.yiaddr();
                }
            }
            self.pass(50);
        }
        panic!("client {client} is not served by server {server} in {}", self.hands[server].state());
    }

    /// Commands of this name that a server has sent.
    pub(crate) fn sent(&self, server: usize, command: &str) -> Vec<&Sent> {
        self.hands[server].sent.iter().filter(|sent| sent.command() == command).collect()
    }
}
