//! Servers, clients and what is between them, in virtual time and from one seed.
//!
//! What must never be is looked for at every step.
//!
//! * An answer that waits for the partner is about a lease that the partner has ([`World::check_told`] says what is excused).
//! * Two clients may hold one address only when at least one of their leases was given by a server that did not wait for its partner
//!   ([`Holding::solo`]), and the other had not learned of it: each alone, both may give the same address away, and neither can
//!   know. Once both are in the normal state and both tables name the same client, it is learned. A duplicate that began so lasts
//!   until one of the two leases ends; what a lost disk alone knew of is known to nobody.
//!
//! Clocks that differ move the end of a lease by as much, and whole seconds by two more.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::fmt::Write as _;
use std::net::Ipv4Addr;

use aplomado::lease::{Lease4Buf, LeaseState};
use aplomado::server::clock::Clock;
use aplomado::store::{CrashDisk, Survivors};
use aplomado::time::Mono;
use serde_json::{Value, json};

use super::client::{Client, Doing};
use super::packet::Answer;
use super::server::{Answered, Server, Setting, on_disk};

pub(crate) const MS: u64 = 1_000_000;
pub(crate) const S: u64 = 1000 * MS;
const WALL_START_US: u64 = 1_767_229_200_000_000;
const NAMES: [&str; 3] = ["alpha", "beta", "gamma"];
/// The call number of what an operator asks.
const OPERATOR: usize = usize::MAX;
/// Turns after which the disk has long answered.
const DISK_TURNS_MAX: u64 = 20;
/// Most turns at one moment: a server that is busy for ever is a bug.
const ROUNDS_MAX: u32 = 200_000;

/// Small, seeded, and the same everywhere.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    pub(crate) fn percent(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }
}

#[derive(Clone, Debug)]
enum Event {
    Request { from: usize, life: u32, to: usize, call: u64, body: Vec<u8> },
    Response { to: usize, life: u32, call: u64, body: Result<Vec<u8>, String> },
    Query { to: usize, frame: Vec<u8>, shard: usize },
    Reply { client: usize, frame: Vec<u8> },
    Client(usize),
    Fault,
    Restart(usize),
}

struct Node {
    setting: Setting,
    disk: CrashDisk,
    server: Option<Server>,
    clock: Clock,
    life: u32,
    skew_us: i64,
    frozen_until: u64,
    lies_until: u64,
    slow_ms: u64,
    /// Which address was promised to whom, and until which second of this server's clock.
    promised: BTreeMap<Ipv4Addr, (usize, u64)>,
    /// Whom it had on which address when it ceased to tell its partner what it does, as far as it has; nothing while it tells.
    silent: Option<BTreeMap<Ipv4Addr, usize>>,
    /// How often it has turned, and when it last did so without waiting for its partner.
    turns: u64,
    alone_turn: u64,
    shown: &'static str,
    /// Started without its leases, and not in the normal state since.
    is_empty: bool,
}

/// A lease as a client holds it.
#[derive(Clone, Copy, Debug)]
struct Holding {
    client: usize,
    until: u64,
    /// Given by a server that did not wait for its partner, which has not learned of it since.
    solo: bool,
    /// One of two at a time, and allowed.
    twin: bool,
}

/// What a seed has seen, to tell whether seeds see enough.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) acks: u64,
    pub(crate) crashes: u64,
    pub(crate) twins: u64,
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
    mode: &'static str,
    random: Random,
    now: u64,
    nodes: Vec<Node>,
    clients: Vec<Client>,
    holdings: BTreeMap<Ipv4Addr, Vec<Holding>>,
    queue: BinaryHeap<Reverse<(u64, u64)>>,
    events: BTreeMap<u64, Event>,
    number: u64,
    /// Per mille of messages lost, from each to each.
    loss: [[u64; 3]; 3],
    /// Per cent of packets of clients that are lost.
    client_loss: u64,
    /// Who answers whom.
    origins: BTreeMap<(usize, u32, u64), (usize, u32)>,
    calm: bool,
    backup: bool,
    trace: Trace,
    skewed: bool,
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
            queue: BinaryHeap::new(),
            events: BTreeMap::new(),
            number: 0,
            loss: [[0; 3]; 3],
            client_loss: 0,
            origins: BTreeMap::new(),
            calm: false,
            backup,
            trace,
            skewed,
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

    fn tell(&mut self, text: impl FnOnce() -> String) {
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

    fn schedule(&mut self, delay: u64, event: Event) {
        self.number += 1;
        self.queue.push(Reverse((self.now + delay, self.number)));
        self.events.insert(self.number, event);
    }

    fn set_clocks(&self) {
        for node in &self.nodes {
            let wall = WALL_START_US + (self.now - S) / 1000;
            node.clock.set(Mono(self.now), wall.saturating_add_signed(node.skew_us));
        }
    }

    fn start(&mut self, node: usize) {
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
    fn name(&self, node: usize) -> usize {
        if self.mode == "passive-backup" && node == 1 { 2 } else { node }
    }

    fn crash(&mut self, node: usize, survivors: Survivors) {
        let now_s = self.nodes[node].clock.now().wall_s;
        let Some(mut server) = self.nodes[node].server.take() else { return };
        let leases = server.leases();
        drop(server);
        let name = NAMES[self.name(node)];
        self.tell(|| format!("{name} is killed, {survivors:?} of its files survive"));
        self.seen.crashes += 1;
        let one = &mut self.nodes[node];
        one.disk = one.disk.after(survivors);
        one.silent = None;
        let found = on_disk(&one.disk.after(Survivors::All));
        for (address, (client, expire)) in std::mem::take(&mut one.promised) {
            let is_clients = |lease: &Lease4Buf| {
                let lease = lease.view();
                lease.hw_addr.as_bytes().last() == u8::try_from(client).ok().as_ref()
                    && lease.state == LeaseState::Assigned
                    && lease.expire() >= expire
            };
            if expire > now_s && leases.get(&address).is_some_and(is_clients) {
                assert!(
                    found.get(&address).is_some_and(is_clients),
                    "{name} has promised {address} to client {client} until {expire}, and after a crash its file says {:?}",
                    found.get(&address)
                );
            }
        }
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

    fn deliver(&mut self) {
        while let Some(Reverse((at, number))) = self.queue.peek().copied() {
            if at > self.now {
                return;
            }
            self.queue.pop();
            let Some(event) = self.events.remove(&number) else { continue };
            self.happen(event);
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Restart(node) => self.start(node),
            Event::Fault if !self.calm => self.fault(),
            Event::Fault => {}
            Event::Request { from, life, to, call, body } => {
                let name = NAMES[self.name(to)];
                if from != OPERATOR {
                    self.origins.insert((to, self.nodes[to].life, call), (from, life));
                }
                match &mut self.nodes[to].server {
                    Some(server) => {
                        if let Some(answer) = server.command(call, &body) {
                            self.answer(to, call, answer);
                        }
                    }
                    None if from == OPERATOR => {}
                    None => {
                        let body = Err(format!("{name} does not listen"));
                        self.schedule(MS, Event::Response { to: from, life, call, body });
                    }
                }
            }
            Event::Response { to, life, call, body } => {
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
                    self.schedule(next, Event::Client(client));
                }
            }
            Event::Client(client) => self.wake(client),
        }
    }

    fn wake(&mut self, client: usize) {
        let said = self.clients[client].wake(self.now, &mut self.random, self.calm);
        // One timer at a time: what was asked for before is forgotten.
        self.events.retain(|_, event| !matches!(event, Event::Client(other) if *other == client));
        self.schedule(said.next, Event::Client(client));
        if let Some(address) = said.gives_up {
            self.give_up(client, address);
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

    fn give_up(&mut self, client: usize, address: Ipv4Addr) {
        if let Some(holders) = self.holdings.get_mut(&address) {
            holders.retain(|holding| holding.client != client);
        }
        for node in &mut self.nodes {
            node.promised.retain(|_, (holder, _)| *holder != client);
        }
    }

    /// Turns every server that is not stopped; true when any had something to do.
    fn turn(&mut self) -> bool {
        let mut busy = false;
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
                if !self.calm && self.random.percent(15) {
                    busy = true;
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
        busy
    }

    fn turn_part(&mut self, node: usize, part: usize) -> bool {
        let shards = self.nodes[node].setting.shard_count;
        let one = &mut self.nodes[node];
        let Some(server) = &mut one.server else { return false };
        match part.checked_sub(shards) {
            None => {
                if server.word().awaited & (2 >> node) == 0 {
                    one.alone_turn = one.turns;
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

    fn turn_peers(&mut self, node: usize) -> bool {
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

    fn is_lost(&mut self, from: usize, to: usize) -> bool {
        !self.calm && self.random.below(1000) < self.loss[from][to]
    }

    fn delay(&mut self, to: usize) -> u64 {
        if self.calm {
            return MS;
        }
        let slow = self.nodes[to].slow_ms;
        (100 + self.random.below(2000)) * 1000 + self.random.below(slow + 1) * MS
    }

    /// A server has answered a command.
    fn answer(&mut self, node: usize, call: u64, mut body: Vec<u8>) {
        let life = self.nodes[node].life;
        let name = NAMES[self.name(node)];
        let Some(&(to, asker)) = self.origins.get(&(node, life, call)) else {
            return self.tell(|| format!("{name} to its operator: {}", short(&body)));
        };
        if self.nodes[node].lies_until > self.now && self.random.percent(40) {
            body = match self.random.below(6) {
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
    fn sent(&mut self, node: usize, frame: Vec<u8>) {
        let answer = Answer::read(&frame);
        let client = usize::from(answer.fixed[33]);
        let name = NAMES[self.name(node)];
        let (kind, address) = (answer.kind(), answer.yiaddr());
        self.tell(|| format!("{name} to client {client}: {kind} {address}"));
        if kind == "ack"
            && let Some(Ok(time)) = answer.option(51).map(<[u8; 4]>::try_from)
        {
            self.promise(node, client, address, u64::from(u32::from_be_bytes(time)));
        }
        if self.calm || !self.random.percent(self.client_loss) {
            let delay = (100 + self.random.below(3000)) * 1000;
            self.schedule(delay, Event::Reply { client, frame });
        }
    }

    /// A server has promised an address.
    fn promise(&mut self, node: usize, client: usize, address: Ipv4Addr, lifetime_s: u64) {
        self.seen.acks += 1;
        let name = NAMES[self.name(node)];
        let server = self.nodes[node].server.as_ref().expect("it has just sent");
        let word = server.word();
        let partner = if self.mode == "passive-backup" { None } else { [1, 0].get(node).copied() };
        // What was decided without the partner waits for the disk alone, whatever has become of the partner since.
        let alone = self.nodes[node].turns - self.nodes[node].alone_turn <= DISK_TURNS_MAX;
        let solo = alone || partner.is_none_or(|partner| word.awaited & (1 << partner) == 0);
        let wall_s = self.nodes[node].clock.now().wall_s;
        // A repeated answer is for the lease as it is, whose end is at most this far away.
        self.nodes[node].promised.insert(address, (client, (wall_s + lifetime_s).saturating_sub(1)));
        if let Some(partner) = partner.filter(|_| !solo) {
            self.check_told(node, partner, client, address);
        }
        // A client that is given another address has given up the first.
        for holders in self.holdings.values_mut() {
            holders.retain(|holding| holding.client != client);
        }
        let now = self.now;
        let slack = if self.skewed { 22 * S } else { 2 * S };
        let holders = self.holdings.entry(address).or_default();
        holders.retain(|holding| holding.until > now);
        let others: Vec<Holding> =
            holders.iter().copied().filter(|holding| holding.until > now + slack).collect();
        let twin = !others.is_empty();
        for other in &others {
            assert!(
                solo || other.solo || other.twin,
                "{name} gives {address} to client {client} while client {} holds it, and neither was given alone",
                other.client
            );
        }
        if twin {
            self.seen.twins += 1;
            holders.iter_mut().for_each(|holding| holding.twin = true);
        }
        holders.push(Holding { client, until: now + lifetime_s * S, solo, twin });
    }

    /// An answer that waits for the partner is about a lease that the partner has. It may have forgotten, with its disk. And it may have
    /// taken over meanwhile: then it changes leases without a word to a server that does not know yet, which repeats what both knew
    /// before. An answer about a lease that was given alone has no such excuse.
    fn check_told(&mut self, node: usize, partner: usize, client: usize, address: Ipv4Addr) {
        let other = &mut self.nodes[partner];
        let Some(server) = other.server.as_mut().filter(|_| !other.is_empty) else { return };
        let is_there = server.lease(address).is_some_and(|lease| holder(&lease) == Some(client));
        match &mut other.silent {
            Some(known) if is_there => {
                known.insert(address, client);
            }
            Some(known) if known.get(&address) == Some(&client) => {}
            _ => assert!(
                is_there,
                "{} has answered client {client} before its partner had {address}",
                NAMES[self.name(node)]
            ),
        }
    }

    /// Takes down what a server knows when it ceases to tell its partner of what it does.
    fn look_at_silence(&mut self) {
        if self.mode == "passive-backup" {
            return;
        }
        for node in 0..2 {
            let one = &mut self.nodes[node];
            let Some(server) = &mut one.server else { continue };
            if server.word().sent & (2 >> node) != 0 {
                one.silent = None;
            } else if one.silent.is_none() {
                let leases = server.leases();
                let held = leases.iter().filter_map(|(address, lease)| Some((*address, holder(lease)?)));
                one.silent = Some(held.collect());
            }
        }
    }

    /// Tells what has changed, and what it means for leases that were given alone.
    fn look_at_states(&mut self) {
        let mut normal = 0;
        for node in 0..self.nodes.len() {
            let Some(server) = &self.nodes[node].server else { continue };
            let state = server.state();
            normal += usize::from(node < 2 && state == self.mode);
            if state == self.mode {
                self.nodes[node].is_empty = false;
            }
            if state != self.nodes[node].shown {
                self.nodes[node].shown = state;
                self.seen.states.insert(state);
                let name = NAMES[self.name(node)];
                self.tell(|| format!("{name} is in {state}"));
            }
        }
        if normal == 2 && self.mode != "passive-backup" {
            self.settle_alone();
        }
    }

    /// Both servers are in the normal state: what both have is not given alone any more.
    fn settle_alone(&mut self) {
        let holdings = &self.holdings;
        let is_open =
            |address: &Ipv4Addr| holdings.get(address).into_iter().flatten().any(|holding| holding.solo);
        let open: BTreeSet<Ipv4Addr> = holdings.keys().copied().filter(is_open).collect();
        for address in open {
            let mut owners = BTreeSet::new();
            for node in &mut self.nodes[..2] {
                let lease = node.server.as_mut().and_then(|server| server.lease(address));
                // One that is released or over here may be given away, whatever the other has promised its client alone.
                let lease = lease.filter(|lease| lease.view().state == LeaseState::Assigned);
                owners.insert(lease.and_then(|lease| lease.view().hw_addr.as_bytes().last().copied()));
            }
            let Some(Some(owner)) = owners.first().copied().filter(|_| owners.len() == 1) else { continue };
            let owner = usize::from(owner);
            let holders = self.holdings.entry(address).or_default();
            holders
                .iter_mut()
                .filter(|holding| holding.client == owner)
                .for_each(|holding| holding.solo = false);
        }
    }

    fn command(&mut self, node: usize, command: &str, arguments: &Value) {
        let name = NAMES[self.name(node)];
        self.tell(|| format!("the operator to {name}: {command} {arguments}"));
        self.number += 1;
        let body = json!({ "command": command, "service": ["dhcp4"], "arguments": arguments }).to_string();
        let event =
            Event::Request { from: OPERATOR, life: 0, to: node, call: self.number, body: body.into_bytes() };
        self.schedule(MS, event);
    }

    fn fault(&mut self) {
        let wait = (300 + self.random.below(4000)) * MS;
        self.schedule(wait, Event::Fault);
        let count = self.nodes.len() as u64;
        let node = usize::try_from(self.random.below(count)).expect("small");
        let other = usize::try_from(self.random.below(count)).expect("small");
        match self.random.below(20) {
            0..3 => {
                let loss = [1000, 1000, 300, 50][usize::try_from(self.random.below(4)).expect("small")];
                self.loss[node][other] = loss;
                let both = self.random.percent(60);
                if both {
                    self.loss[other][node] = loss;
                }
                self.tell(|| {
                    format!("of messages from {node} to {other} {loss} in 1000 are lost, both ways: {both}")
                });
            }
            3..6 => {
                self.loss = [[0; 3]; 3];
                self.client_loss = 0;
                self.nodes.iter_mut().for_each(|node| node.slow_ms = 0);
                self.tell(|| "the network is whole".to_owned());
            }
            6 | 7 => {
                let survivors = match self.random.below(3) {
                    0 => Survivors::All,
                    1 => Survivors::Durable,
                    _ => Survivors::Some(self.random.next()),
                };
                self.crash(node, survivors);
                if self.random.percent(8) {
                    self.nodes[node].disk = CrashDisk::new();
                    self.nodes[node].is_empty = true;
                    // What it gave alone nobody knows any more.
                    for holding in self.holdings.values_mut().flatten().filter(|holding| holding.solo) {
                        holding.twin = true;
                    }
                    self.tell(|| "its disk is lost".to_owned());
                }
                let delay = self.random.below(6000) * MS;
                self.schedule(delay, Event::Restart(node));
            }
            8 => {
                self.nodes[node].slow_ms = self.random.below(1500);
                self.tell(|| format!("{node} answers slowly"));
            }
            9 => {
                self.nodes[node].frozen_until = self.now + (50 + self.random.below(3000)) * MS;
                self.tell(|| format!("{node} stands still"));
            }
            10 => self.nodes[node].lies_until = self.now + (200 + self.random.below(3000)) * MS,
            11 | 12 => {
                self.client_loss = [0, 5, 20, 50][usize::try_from(self.random.below(4)).expect("small")];
            }
            13 if self.skewed => {
                self.nodes[node].skew_us = i64::try_from(self.random.below(20_000_000)).expect("small");
                self.tell(|| format!("the clock of {node} is set"));
            }
            14 => {
                let text =
                    self.nodes[node].setting.text.replace("\"valid-lifetime\":40", "\"valid-lifetime\":41");
                if let Some(server) = &mut self.nodes[node].server {
                    server.reload(&text);
                    self.tell(|| format!("{node} has a new configuration"));
                }
            }
            13 | 15 => {}
            _ => self.operate(node, other),
        }
    }

    fn operate(&mut self, node: usize, other: usize) {
        let (own, name) = (NAMES[self.name(node)], NAMES[self.name(other)]);
        let (command, arguments) = match self.random.below(10) {
            0 => ("ha-scopes", json!({ "scopes": [own], "server-name": own })),
            1 => ("ha-scopes", json!({ "scopes": [] })),
            2 | 3 => ("ha-reset", json!({})),
            4 => ("ha-maintenance-start", json!({})),
            5 => ("ha-maintenance-cancel", json!({})),
            6 => ("ha-sync", json!({ "server-name": name, "max-period": 5 })),
            7 => ("dhcp-disable", json!({ "max-period": 3 })),
            8 => ("dhcp-enable", json!({})),
            _ => ("ha-continue", json!({})),
        };
        self.command(node, command, &arguments);
    }

    /// Faults begin.
    pub(crate) fn storm(&mut self, duration: u64) {
        self.schedule(2 * S, Event::Fault);
        self.run(duration);
    }

    /// Faults end; the operator puts right what only an operator can, and some time later everything is well.
    pub(crate) fn settle(&mut self) {
        self.calm = true;
        for node in 0..self.nodes.len() {
            let one = &mut self.nodes[node];
            (one.frozen_until, one.lies_until, one.slow_ms, one.skew_us) = (0, 0, 0, 0);
            self.start(node);
        }
        self.tell(|| "the faults are over".to_owned());
        self.set_clocks();
        self.run(8 * S);
        for round in 0..3 {
            for node in 0..self.nodes.len() {
                let server = self.nodes[node].server.as_ref().expect("started");
                let (state, word) = (server.state(), server.word());
                // An order to begin maintenance can take effect when its answer has timed out, after the first round.
                let is_stuck = match state {
                    "terminated" => round == 0,
                    "in-maintenance" | "partner-in-maintenance" => round <= 1,
                    _ => false,
                };
                let serves = word.serves_primary || word.serves_secondary;
                let is_mute = node < 2 && state == self.mode && self.should_serve(node) && !serves;
                if is_stuck || is_mute {
                    self.crash(node, Survivors::All);
                    self.start(node);
                }
            }
            self.run(12 * S);
        }
        if self.backup {
            let backup = self.nodes.len() - 1;
            self.command(backup, "ha-sync", &json!({ "server-name": "alpha", "max-period": 5 }));
        }
        self.run(15 * S);
        self.check_rest();
    }

    fn should_serve(&self, node: usize) -> bool {
        node == 0 || self.mode == "load-balancing"
    }

    fn check_rest(&mut self) {
        let mut wrong = String::new();
        // What has arrived is done with first: queries are on their way between shards, too.
        let busy = (0..ROUNDS_MAX).take_while(|_| self.turn()).count();
        assert!(busy < 1000, "the servers do not come to rest");
        let now = self.now;
        let count = if self.mode == "passive-backup" { 1 } else { 2 };
        for node in 0..count {
            let state = self.nodes[node].server.as_ref().expect("started").state();
            if state != self.mode {
                let _ = writeln!(wrong, "{} is in {state}", NAMES[self.name(node)]);
            }
        }
        for client in &self.clients {
            let is_served = matches!(client.doing, Doing::Bound { until, .. } if until > now);
            if !is_served {
                let _ = writeln!(wrong, "client {} is not served: {:?}", client.number, client.doing);
            }
        }
        let mut tables = Vec::new();
        for node in &mut self.nodes {
            let wall_s = node.clock.now().wall_s;
            let server = node.server.as_mut().expect("started");
            if server.job_count() > 0 {
                let _ = writeln!(wrong, "{} commands are not answered", server.job_count());
            }
            server.check_counters();
            let mut leases = server.leases();
            leases.retain(|_, lease| {
                lease.view().state == LeaseState::Assigned && lease.view().expire() > wall_s + 1
            });
            let told = leases.into_iter().map(|(address, lease)| {
                let lease = lease.view();
                (address, (lease.hw_addr.as_bytes().to_vec(), lease.expire()))
            });
            tables.push(told.collect::<BTreeMap<_, _>>());
        }
        for node in 1..tables.len() {
            for address in tables[0].keys().chain(tables[node].keys()) {
                let (one, other) = (tables[0].get(address), tables[node].get(address));
                if one != other {
                    let _ = writeln!(
                        wrong,
                        "{address}: alpha has {one:?}, {} has {other:?}",
                        NAMES[self.name(node)]
                    );
                }
            }
        }
        assert!(wrong.is_empty(), "at rest:\n{wrong}");
    }
}

/// The client that has a lease in use.
fn holder(lease: &Lease4Buf) -> Option<usize> {
    let lease = lease.view();
    let octet = lease.hw_addr.as_bytes().last().filter(|_| lease.state == LeaseState::Assigned);
    octet.map(|octet| usize::from(*octet))
}

/// What a heartbeat's answer says is the state of the machine.
fn check_shown(body: &[u8], before: &str, after: &str) {
    let Ok(answer) = serde_json::from_slice::<Value>(body) else { return };
    let Some(shown) = answer.pointer("/0/arguments/state").and_then(Value::as_str) else { return };
    if answer.pointer("/0/arguments/unsent-update-count").is_some() {
        assert!(
            shown == before || shown == after,
            "{shown} is shown, the machine goes from {before} to {after}"
        );
    }
}

/// A body in few words.
fn short(body: &[u8]) -> String {
    let text: String = String::from_utf8_lossy(body).split_whitespace().collect::<Vec<_>>().join(" ");
    text.chars().take(220).collect()
}

/// The configurations of the servers.
fn texts(mode: &str, names: &[usize], guarded: bool, random: &mut Random) -> Vec<String> {
    let roles = match mode {
        "hot-standby" => ["primary", "standby", "backup"],
        _ => ["primary", "secondary", "backup"],
    };
    let peers: Vec<Value> = names
        .iter()
        .map(|&name| json!({ "name": NAMES[name], "url": format!("http://192.0.2.{}:8000/", name + 1), "role": roles[name] }))
        .collect();
    let pools = if guarded && mode == "load-balancing" {
        json!([ { "pool": "192.0.2.10 - 192.0.2.25", "client-class": "HA_alpha" },
                { "pool": "192.0.2.40 - 192.0.2.55", "client-class": "HA_beta" } ])
    } else {
        json!([ { "pool": "192.0.2.10 - 192.0.2.30" } ])
    };
    let mut relationship = json!({
        "mode": mode, "heartbeat-delay": 250, "max-response-delay": 1000, "max-ack-delay": 1000,
        "delay-unit": "ms",
        "max-unacked-clients": random.below(2) * 2, "sync-timeout": 2000, "sync-page-limit": 2 + random.below(30),
        "max-rejected-lease-updates": random.below(2) * 10,
        "multi-threading": { "enable-multi-threading": true, "http-client-threads": 1 + random.below(2) },
        "peers": peers });
    if mode == "load-balancing" {
        relationship["delayed-updates-limit"] = json!(random.below(3) * 5);
    }
    names
        .iter()
        .map(|&name| {
            let mut own = relationship.clone();
            own["this-server-name"] = json!(NAMES[name]);
            let block = json!({ "Dhcp4": {
                "interfaces-config": { "interfaces": ["v0"] },
                "lease-database": { "type": "memfile", "name": super::server::LEASE_FILE, "lfc-interval": 0 },
                "valid-lifetime": 40,
                // More clients decline than there are addresses for in a day.
                "decline-probation-period": 20,
                "multi-threading": { "enable-multi-threading": true, "thread-pool-size": 2 },
                "hooks-libraries": [
                    { "library": "/usr/lib/kea/hooks/libdhcp_lease_cmds.so" },
                    { "library": "/usr/lib/kea/hooks/libdhcp_ha.so",
                      "parameters": { "high-availability": [own] } } ],
                "subnet4": [ { "id": 1, "subnet": "192.0.0.0/16", "pools": pools } ] } });
            block.to_string()
        })
        .collect()
}
