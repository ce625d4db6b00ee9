//! Servers, clients and what is between them, in virtual time and from one seed. What must never be is in [`super::checks`].

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::net::Ipv4Addr;

use aplomado::server::clock::Clock;
use aplomado::store::{CrashDisk, Survivors};
use aplomado::time::Mono;

use super::checks::{Holding, addresses, check_shown, is_update};
use super::client::Client;
use super::defect::Defect;
use super::packet::Answer;
use super::random::{MS, Random, S};
use super::server::{Answered, Server, Setting};
use super::texts::texts;

pub(super) const WALL_START_US: u64 = 1_767_229_200_000_000;
pub(super) const NAMES: [&str; 3] = ["alpha", "beta", "gamma"];
/// The call number of what an operator asks.
pub(super) const OPERATOR: usize = usize::MAX;
/// Most turns at one moment: a server that is busy for ever is a bug.
pub(super) const ROUNDS_MAX: u32 = 200_000;

#[derive(Clone, Debug)]
pub(super) enum Event {
    Request { from: usize, life: u32, to: usize, call: u64, body: Vec<u8> },
    Response { to: usize, life: u32, call: u64, body: Result<Vec<u8>, String> },
    Query { to: usize, frame: Vec<u8>, shard: usize },
    Reply { client: usize, frame: Vec<u8> },
    Client(usize),
    Fault,
    Restart(usize),
}

pub(super) struct Node {
    pub(super) setting: Setting,
    pub(super) disk: CrashDisk,
    pub(super) server: Option<Server>,
    pub(super) clock: Clock,
    pub(super) life: u32,
    pub(super) skew_us: i64,
    pub(super) frozen_until: u64,
    pub(super) lies_until: u64,
    pub(super) slow_ms: u64,
    /// Which address was promised to whom, and until which second of this server's clock.
    pub(super) promised: BTreeMap<Ipv4Addr, (usize, u64)>,
    /// Whom it had on which address when it ceased to tell its partner what it does, as far as it has; nothing while it tells.
    pub(super) silent: Option<BTreeMap<Ipv4Addr, usize>>,
    /// How often it has turned, and when it last did so without waiting for its partner.
    pub(super) turns: u64,
    pub(super) alone_turn: u64,
    pub(super) shown: &'static str,
    /// Started without its leases, and not in the normal state since.
    pub(super) is_empty: bool,
}

/// An answer that refuses the first change of a command.
const REFUSES_ONE: &[u8] =
    br#"[ { "result": 0, "text": "no", "arguments": { "failed": [ { "index": 0, "result": 4, "text": "no" } ] } } ]"#;

/// What a seed has seen, to tell whether seeds see enough.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) acks: u64,
    pub(crate) crashes: u64,
    pub(crate) twins: u64,
    /// Tables of both servers of a pair that were compared while no client said anything.
    pub(crate) compared: u64,
    /// Promises that both knew then.
    pub(crate) known: u64,
    pub(crate) states: BTreeSet<&'static str>,
    pub(crate) fingerprint: u64,
}

/// What is done with the story.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trace {
    Off,
    /// Its fingerprint is taken.
    Kept,
    /// It is printed, too.
    Told,
}

pub(crate) struct World {
    pub(super) mode: &'static str,
    pub(super) random: Random,
    pub(super) now: u64,
    pub(super) nodes: Vec<Node>,
    pub(super) clients: Vec<Client>,
    pub(super) holdings: BTreeMap<Ipv4Addr, Vec<Holding>>,
    /// What each client has released or declined last, and when.
    pub(super) given_back: BTreeMap<usize, (Ipv4Addr, u64)>,
    pub(super) queue: BinaryHeap<Reverse<(u64, u64)>>,
    pub(super) events: BTreeMap<u64, Event>,
    pub(super) number: u64,
    /// Per mille of messages lost, from each to each.
    pub(super) loss: [[u64; 3]; 3],
    /// Per cent of packets of clients that are lost.
    pub(super) client_loss: u64,
    /// Who answers whom.
    pub(super) origins: BTreeMap<(usize, u32, u64), (usize, u32)>,
    /// Lease updates that are not answered, by the same key.
    pub(super) updates: BTreeMap<(usize, u32, u64), Vec<u8>>,
    pub(super) calm: bool,
    /// Something has happened since the last turn in which nobody had anything to do: parts may be kept from turning.
    pub(super) lively: bool,
    /// Clients say nothing: what servers know they know from each other.
    pub(super) muted: bool,
    /// Addresses of which a partner has refused a change, or seemed to: nobody was told of the change, and both know different things then.
    pub(super) refused: BTreeSet<Ipv4Addr>,
    /// The lease updates between both servers of a pair that are not answered for who sent them, by call.
    pub(super) told: BTreeMap<u64, Vec<Ipv4Addr>>,
    pub(super) backup: bool,
    pub(super) trace: Trace,
    pub(super) skewed: bool,
    /// What is wrong with all servers.
    pub(super) defect: Option<Defect>,
    pub(crate) seen: Seen,
}

impl World {
    pub(crate) fn new(seed: u64, trace: Trace) -> Self {
        let mut random = Random::new(seed);
        let mode = ["load-balancing", "hot-standby", "load-balancing", "hot-standby", "passive-backup"]
            [usize::try_from(random.below(5)).expect("small")];
        let backup = mode == "passive-backup" || random.percent(25);
        let guarded = random.percent(50);
        let names: Vec<usize> = match (mode, backup) {
            ("passive-backup", _) => vec![0, 2],
            (_, true) => vec![0, 1, 2],
            _ => vec![0, 1],
        };
        let texts = texts(mode, &names, guarded, &mut random);
        let skewed = random.percent(25);
        let mut nodes = Vec::new();
        for (place, text) in texts.into_iter().enumerate() {
            let octet = u8::try_from(place + 1).expect("few");
            let setting = Setting {
                text,
                address: Ipv4Addr::new(192, 0, 2, octet),
                mac: [2, 0, 0, 0, 1, octet],
                shard_count: usize::try_from(1 + random.below(2)).expect("small"),
                seed: random.next(),
            };
            let skew_us = if skewed { i64::try_from(random.below(20_000_000)).expect("small") } else { 0 };
            nodes.push(Node {
                setting,
                disk: CrashDisk::new(),
                server: None,
                clock: Clock::by_hand(Mono(S), WALL_START_US),
                life: 0,
                skew_us,
                frozen_until: 0,
                lies_until: 0,
                slow_ms: 0,
                promised: BTreeMap::new(),
                silent: None,
                turns: 0,
                alone_turn: 0,
                shown: "",
                is_empty: false,
            });
        }
        let client_count = 6 + u8::try_from(random.below(8)).expect("small");
        let mut world = Self {
            mode,
            random,
            now: S,
            nodes,
            clients: (0..client_count).map(Client::new).collect(),
            holdings: BTreeMap::new(),
            given_back: BTreeMap::new(),
            queue: BinaryHeap::new(),
            events: BTreeMap::new(),
            number: 0,
            loss: [[0; 3]; 3],
            client_loss: 0,
            origins: BTreeMap::new(),
            updates: BTreeMap::new(),
            calm: false,
            lively: true,
            muted: false,
            refused: BTreeSet::new(),
            told: BTreeMap::new(),
            backup,
            trace,
            skewed,
            defect: None,
            seen: Seen::default(),
        };
        world.set_clocks();
        let shape = format!("{mode}, guarded pools: {guarded}, backup: {backup}, {client_count} clients");
        world.tell(|| shape);
        for node in 0..world.nodes.len() {
            world.schedule(0, Event::Restart(node));
        }
        for client in 0..world.clients.len() {
            let delay = world.random.below(3000) * MS;
            world.schedule(delay, Event::Client(client));
        }
        world
    }

    /// The same with servers that are not as they must be.
    pub(crate) fn with_defect(seed: u64, defect: Defect) -> Self {
        Self { defect: Some(defect), ..Self::new(seed, Trace::Off) }
    }

    pub(super) fn tell(&mut self, text: impl FnOnce() -> String) {
        if self.trace == Trace::Off {
            return;
        }
        let text = text();
        for byte in text.bytes() {
            self.seen.fingerprint = (self.seen.fingerprint ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        if self.trace == Trace::Told {
            let us = (self.now - S) / 1000;
            println!("{:4}.{:06}  {text}", us / 1_000_000, us % 1_000_000);
        }
    }

    pub(super) fn schedule(&mut self, delay: u64, event: Event) {
        self.number += 1;
        self.queue.push(Reverse((self.now + delay, self.number)));
        self.events.insert(self.number, event);
    }

    pub(super) fn set_clocks(&self) {
        for node in &self.nodes {
            let wall = WALL_START_US + (self.now - S) / 1000;
            node.clock.set(Mono(self.now), wall.saturating_add_signed(node.skew_us));
        }
    }

    pub(super) fn start(&mut self, node: usize) {
        let one = &mut self.nodes[node];
        if one.server.is_some() {
            return;
        }
        one.life += 1;
        one.shown = "";
        match Server::start(&one.setting, &one.disk, &one.clock) {
            Ok(server) => one.server = Some(server),
            Err(error) => panic!("{} does not start: {error}", NAMES[self.name(node)]),
        }
        let name = NAMES[self.name(node)];
        self.tell(|| format!("{name} starts"));
    }

    /// The position in [`NAMES`] of a node.
    pub(super) fn name(&self, node: usize) -> usize {
        if self.mode == "passive-backup" && node == 1 { 2 } else { node }
    }

    pub(super) fn crash(&mut self, node: usize, survivors: Survivors) {
        let Some(mut server) = self.nodes[node].server.take() else { return };
        let leases = server.leases();
        drop(server);
        let name = NAMES[self.name(node)];
        self.tell(|| format!("{name} is killed, {survivors:?} of its files survive"));
        self.forget_untold(&leases);
        self.seen.crashes += 1;
        let one = &mut self.nodes[node];
        one.disk = one.disk.after(survivors);
        one.silent = None;
        self.check_kept(node, &leases);
    }

    /// Until the given time from now.
    pub(crate) fn run(&mut self, duration: u64) {
        let end = self.now + duration;
        let mut rounds = 0;
        while self.now < end {
            self.set_clocks();
            self.deliver();
            let busy = self.turn();
            rounds = if busy { rounds + 1 } else { 0 };
            assert!(rounds < ROUNDS_MAX, "the servers are busy for ever");
            let mut next = self.now + if busy { (50 + self.random.below(400)) * 1000 } else { 100 * MS };
            if let Some(Reverse((at, _))) = self.queue.peek() {
                next = next.min((*at).max(self.now + 1000));
            }
            if !busy {
                for node in self.nodes.iter().filter(|node| node.frozen_until <= self.now) {
                    if let Some(server) = &node.server {
                        let nap = server.desk.nap(std::time::Duration::from_millis(100));
                        next = next.min(self.now + u64::try_from(nap.as_nanos()).expect("short"));
                    }
                }
            }
            self.now = next.max(self.now + 1000).min(end);
        }
    }

    pub(super) fn deliver(&mut self) {
        while let Some(Reverse((at, number))) = self.queue.peek().copied() {
            if at > self.now {
                return;
            }
            self.queue.pop();
            let Some(event) = self.events.remove(&number) else { continue };
            self.lively = true;
            self.happen(event);
        }
    }

    pub(super) fn happen(&mut self, event: Event) {
        match event {
            Event::Restart(node) => self.start(node),
            Event::Fault if !self.calm => self.fault(),
            Event::Fault => {}
            Event::Request { from, life, to, call, mut body } => {
                let name = NAMES[self.name(to)];
                if from != OPERATOR {
                    let key = (to, self.nodes[to].life, call);
                    self.origins.insert(key, (from, life));
                    if is_update(&body) {
                        self.updates.insert(key, body.clone());
                    }
                }
                let instead = self.defect.and_then(|defect| defect.on_request(&mut body));
                match (&mut self.nodes[to].server, instead) {
                    (Some(_), Some(answer)) => self.answer(to, call, answer),
                    (Some(server), None) => {
                        if let Some(answer) = server.command(call, &body) {
                            self.answer(to, call, answer);
                        }
                    }
                    (None, _) if from == OPERATOR => {}
                    (None, _) => {
                        let body = Err(format!("{name} does not listen"));
                        self.schedule(MS, Event::Response { to: from, life, call, body });
                    }
                }
            }
            Event::Response { to, life, call, body } => {
                if let Some(addresses) = self.told.remove(&call) {
                    self.note_verdict(addresses, &body);
                }
                if self.nodes[to].life != life {
                    return;
                }
                let Some(server) = &mut self.nodes[to].server else { return };
                let waiting = server.connections.iter_mut().find(|one| one.call == Some(call));
                if let Some(connection) = waiting {
                    connection.call = None;
                    let text = match &body {
                        Ok(body) => short(body),
                        Err(error) => error.clone(),
                    };
                    connection.work.answered(body);
                    let name = NAMES[self.name(to)];
                    self.tell(|| format!("{name} hears {text}"));
                }
            }
            Event::Query { to, frame, shard } => {
                if let Some(server) = &mut self.nodes[to].server {
                    server.receive(&frame, shard);
                }
            }
            Event::Reply { client, frame } => {
                let answer = Answer::read(&frame);
                let (gone, next) = self.clients[client].hear(self.now, &answer, &mut self.random);
                if let Some(address) = gone {
                    self.give_up(client, address);
                }
                if let Some(next) = next {
                    self.set_timer(client, next);
                }
            }
            Event::Client(client) => self.wake(client),
        }
    }

    pub(super) fn wake(&mut self, client: usize) {
        if self.muted {
            return self.schedule(100 * MS, Event::Client(client));
        }
        let said = self.clients[client].wake(self.now, &mut self.random, self.calm);
        self.set_timer(client, said.next);
        if let Some(address) = said.gives_up {
            self.give_up(client, address);
            self.given_back.insert(client, (address, self.now));
        }
        let Some((frame, line)) = said.frame else { return };
        self.tell(|| format!("client {client}: {line}"));
        for to in 0..self.nodes.len() {
            for _ in 0..if self.random.percent(3) { 2 } else { 1 } {
                if !self.calm && self.random.percent(self.client_loss) {
                    continue;
                }
                let delay = (100 + self.random.below(3000)) * 1000;
                let shard = usize::try_from(self.random.below(2)).expect("small");
                self.schedule(delay, Event::Query { to, frame: frame.clone(), shard });
            }
        }
    }

    /// One timer at a time: what a client has waited for before is forgotten.
    fn set_timer(&mut self, client: usize, delay: u64) {
        self.events.retain(|_, event| !matches!(event, Event::Client(other) if *other == client));
        self.schedule(delay, Event::Client(client));
    }

    pub(super) fn give_up(&mut self, client: usize, address: Ipv4Addr) {
        if let Some(holders) = self.holdings.get_mut(&address) {
            holders.retain(|holding| holding.client != client);
        }
        for node in &mut self.nodes {
            node.promised.retain(|_, (holder, _)| *holder != client);
        }
    }

    /// Turns every server that is not stopped; true when any had something to do, or may have.
    pub(super) fn turn(&mut self) -> bool {
        // Work that is held up is done later. Where there was none, every part has its turn, and time may pass quickly: most of it is quiet.
        let (mut busy, mut held) = (false, false);
        for node in 0..self.nodes.len() {
            if self.nodes[node].frozen_until > self.now || self.nodes[node].server.is_none() {
                continue;
            }
            self.nodes[node].turns += 1;
            let mut parts: Vec<usize> = (0..self.nodes[node].setting.shard_count + 3).collect();
            for place in (1..parts.len()).rev() {
                let other = usize::try_from(self.random.below(place as u64 + 1)).expect("small");
                parts.swap(place, other);
            }
            for part in parts {
                if self.lively && !self.calm && self.random.percent(15) {
                    held = true;
                    continue;
                }
                busy |= self.turn_part(node, part);
            }
            if let Some(server) = &mut self.nodes[node].server {
                server.check_marks();
            }
        }
        self.look_at_silence();
        self.look_at_states();
        self.lively = busy;
        busy || held
    }

    pub(super) fn turn_part(&mut self, node: usize, part: usize) -> bool {
        let shards = self.nodes[node].setting.shard_count;
        let one = &mut self.nodes[node];
        let Some(server) = &mut one.server else { return false };
        match part.checked_sub(shards) {
            None => {
                if !server.awaits(2 >> node) {
                    one.alone_turn = one.turns;
                }
                if let Some(defect) = self.defect {
                    defect.on_turn(server, part);
                }
                let (busy, sent) = server.turn_shard(part);
                for frame in sent {
                    self.sent(node, frame);
                }
                busy
            }
            Some(0) => match server.turn_log() {
                Ok(busy) => busy,
                Err(error) => panic!("{} cannot keep leases: {error}", NAMES[self.name(node)]),
            },
            Some(1) => {
                let answers = server.turn_control();
                let state = server.state();
                let mut busy = false;
                for Answered { call, asked_in, body } in answers {
                    busy = true;
                    check_shown(&body, asked_in, state);
                    self.answer(node, call, body);
                }
                busy
            }
            Some(_) => self.turn_peers(node),
        }
    }

    pub(super) fn turn_peers(&mut self, node: usize) -> bool {
        let mut posts = Vec::new();
        let Some(server) = &mut self.nodes[node].server else { return false };
        for connection in server.connections.iter_mut().filter(|one| one.call.is_none()) {
            if let Some(post) = connection.work.next_post() {
                self.number += 1;
                connection.call = Some(self.number);
                posts.push((self.number, connection.work.position, post));
            }
        }
        let busy = !posts.is_empty();
        let life = self.nodes[node].life;
        for (call, position, post) in posts {
            let timeout = u64::try_from(post.timeout.as_nanos()).unwrap_or(u64::MAX).clamp(MS, 60 * S);
            let late = Err("no answer in time".to_owned());
            self.schedule(timeout, Event::Response { to: node, life, call, body: late });
            let to = position;
            let (name, other) = (NAMES[self.name(node)], NAMES[self.name(to)]);
            if to < 2 && is_update(&post.body) {
                self.told.insert(call, addresses(&post.body));
            }
            let text = short(&post.body);
            if self.is_lost(node, to) {
                self.tell(|| format!("{name} to {other}, lost: {text}"));
                continue;
            }
            self.tell(|| format!("{name} to {other}: {text}"));
            let copies = if !self.calm && self.random.percent(1) { 2 } else { 1 };
            for _ in 0..copies {
                let delay = self.delay(to);
                let body = post.body.clone();
                self.schedule(delay, Event::Request { from: node, life, to, call, body });
            }
        }
        busy
    }

    pub(super) fn is_lost(&mut self, from: usize, to: usize) -> bool {
        !self.calm && self.random.below(1000) < self.loss[from][to]
    }

    pub(super) fn delay(&mut self, to: usize) -> u64 {
        if self.calm {
            return MS;
        }
        let slow = self.nodes[to].slow_ms;
        (100 + self.random.below(2000)) * 1000 + self.random.below(slow + 1) * MS
    }

    /// A server has answered a command.
    pub(super) fn answer(&mut self, node: usize, call: u64, mut body: Vec<u8>) {
        let life = self.nodes[node].life;
        let name = NAMES[self.name(node)];
        let Some(&(to, asker)) = self.origins.get(&(node, life, call)) else {
            return self.tell(|| format!("{name} to its operator: {}", short(&body)));
        };
        if let Some(update) = self.updates.remove(&(node, life, call)) {
            self.note_told(node, &update, &body);
        }
        if let Some(defect) = self.defect {
            defect.on_answer(&mut body);
        }
        if self.nodes[node].lies_until > self.now && self.random.percent(40) {
            let has = |part: &[u8]| body.windows(part.len()).any(|there| there == part);
            let is_whole = has(b"\"result\": 0") && !has(b"failed");
            body = match self.random.below(8) {
                6 | 7 if is_whole => REFUSES_ONE.to_vec(),
                0 => b"[ { \"result\": 1, \"text\": \"no\" } ]".to_vec(),
                1 => b"[ { \"result\": 4, \"text\": \"no\" } ]".to_vec(),
                2 => body.get(2..body.len().saturating_sub(2)).unwrap_or_default().to_vec(),
                3 => (0..self.random.below(60))
                    .map(|_| u8::try_from(self.random.below(256)).expect("octet"))
                    .collect(),
                4 => b"[ ]".to_vec(),
                _ => body[..body.len() / 2].to_vec(),
            };
            self.tell(|| format!("{name} lies: {}", short(&body)));
        }
        if self.is_lost(node, to) {
            return;
        }
        let delay = self.delay(node);
        self.schedule(delay, Event::Response { to, life: asker, call, body: Ok(body) });
    }

    /// A frame has left a server.
    pub(super) fn sent(&mut self, node: usize, frame: Vec<u8>) {
        let answer = Answer::read(&frame);
        let client = usize::from(answer.fixed[33]);
        let name = NAMES[self.name(node)];
        let (kind, address) = (answer.kind(), answer.yiaddr());
        self.tell(|| format!("{name} to client {client}: {kind} {address}"));
        if kind == "ack"
            && let Some(Ok(time)) = answer.option(51).map(<[u8; 4]>::try_from)
        {
            self.promise(node, client, &answer, u64::from(u32::from_be_bytes(time)));
        }
        if self.calm || !self.random.percent(self.client_loss) {
            let delay = (100 + self.random.below(3000)) * 1000;
            self.schedule(delay, Event::Reply { client, frame });
        }
    }
}

/// A body in few words.
fn short(body: &[u8]) -> String {
    let text: String = String::from_utf8_lossy(body).split_whitespace().collect::<Vec<_>>().join(" ");
    text.chars().take(1500).collect()
}
