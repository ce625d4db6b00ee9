//! Two servers, a link between them and clients, in virtual time: real machines, real commands as text, plain maps as lease tables.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::net::Ipv4Addr;

use aplomado::ha::backlog::Operation;
use aplomado::ha::command::json::Scanner;
use aplomado::ha::command::lease::{LeaseReader, UpdateForm, write_update4};
use aplomado::ha::command::outgoing::{self, Family};
use aplomado::ha::command::page::{
    PageAnswer, PageLeases, PageRequest, write_changes, write_page_end, write_page_lease, write_page_start,
};
use aplomado::ha::command::request::{HaRequest, Head};
use aplomado::ha::command::{Answer, HeartbeatAnswer, PeerAnswer, PeerError, Verdict, verdict};
use aplomado::ha::config::{RelationshipConfig, parse};
use aplomado::ha::feed::{ChangeFeed, ChangesRequest};
use aplomado::ha::partner::Partner;
use aplomado::ha::relationship::{Action, CommandToken, Event, Message, Ticket};
use aplomado::ha::relationships::{Output, Relationships};
use aplomado::ha::service::ServiceRequest;
use aplomado::ha::states::State;
use aplomado::ha::sync::{Applied, Expect, Reply, SubnetFilter, Sync, SyncAction, SyncParams};
use aplomado::ha::unacked::{ClientFingerprint, UnackedClients, UnackedCounts};
use aplomado::ha::view::ScopeWord;
use aplomado::ids::{HwAddr, SubnetId};
use aplomado::lease::{Lease4, Lease4Buf, LeaseState};
use aplomado::time::{Mono, Now};
use serde_json::{Value, json};

const WALL_START_S: u64 = 1_767_229_200;

/// Small, seeded, and the same everywhere.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(1))
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) % bound
    }
}

/// What a request in flight is for.
#[derive(Clone, Debug)]
enum Purpose {
    Heartbeat(Ticket),
    Reset(Ticket),
    Maintenance(Ticket),
    Copy(Ticket, Expect),
    Flush(Ticket),
    Update { client: u8 },
    ListCommands,
}

#[derive(Clone, Debug)]
enum Delivery {
    Request { call: u64, body: Vec<u8> },
    Response { call: u64, body: Option<Vec<u8>> },
    Timeout { call: u64 },
    Client { client: u8 },
}

/// A copy in flight, with the pages that are not applied yet.
struct Copying {
    ticket: Ticket,
    sync: Sync,
    pages: VecDeque<(Vec<u8>, PageAnswer)>,
}

pub(crate) struct Node {
    config: RelationshipConfig,
    pub(crate) ha: Option<Relationships>,
    pub(crate) word: ScopeWord,
    pub(crate) service: bool,
    pub(crate) leases: BTreeMap<Ipv4Addr, Lease4Buf>,
    pub(crate) skew_s: i64,
    pub(crate) aplomado: bool,
    pub(crate) transitions: Vec<&'static str>,
    pub(crate) commands: Vec<String>,
    pub(crate) answers: Vec<Answer>,
    pub(crate) off_since: Option<Mono>,
    pub(crate) off_ms_max: u64,
    partner: Partner,
    feed: ChangeFeed,
    copying: Vec<Copying>,
    unacked: UnackedClients,
    calls: BTreeMap<u64, Purpose>,
    token: u64,
}

pub(crate) struct World {
    pub(crate) now: Now,
    pub(crate) nodes: [Node; 2],
    pub(crate) link: [bool; 2],
    pub(crate) latency_ms: u64,
    pub(crate) loss_percent: u64,
    pub(crate) clients: u8,
    pub(crate) random: Random,
    pub(crate) acked: BTreeMap<u8, (Mono, u64)>,
    queue: BinaryHeap<Reverse<(u64, u64)>>,
    events: BTreeMap<u64, (usize, Delivery)>,
    numbers: u64,
    waiting_since: BTreeMap<u8, Mono>,
    pub(crate) gap_ms_max: u64,
}

pub(crate) fn address(client: u8) -> Ipv4Addr {
    [10, 0, 0, client].into()
}

fn lease(client: u8, wall_s: u64) -> Lease4Buf {
    Lease4 {
        address: address(client),
        hw_addr: HwAddr::ethernet([2, 0, 0, 0, 0, client]),
        client_id: &[],
        cltt: wall_s,
        valid_lft: 86_400,
        subnet_id: SubnetId(1),
        pool_id: 0,
        state: LeaseState::Assigned,
        fqdn_fwd: false,
        fqdn_rev: false,
        hostname: b"",
        user_context: b"",
    }
    .to_owned()
}

impl World {
    pub(crate) fn new(mode: &str, extra: Value, seed: u64) -> Self {
        let second = if mode == "load-balancing" { "secondary" } else { "standby" };
        let config = |this: &str| {
            let mut map = json!({ "this-server-name": this, "mode": mode,
                "heartbeat-delay": 250, "max-response-delay": 1000, "max-ack-delay": 500, "max-unacked-clients": 0,
                "peers": [ { "name": "alpha", "url": "http://10.9.0.1:8005/", "role": "primary" },
                           { "name": "beta", "url": "http://10.9.0.2:8005/", "role": second } ] });
            if let (Value::Object(map), Value::Object(extra)) = (&mut map, extra.clone()) {
                map.extend(extra);
            }
            parse(&json!([map]), &mut |_| Ok(String::new())).expect("valid").relationships.remove(0)
        };
        let node = |this: &str| Node::new(config(this));
        let mut world = Self {
            now: Now { mono: Mono(1_000_000_000), wall_s: WALL_START_S },
            nodes: [node("alpha"), node("beta")],
            link: [true; 2],
            latency_ms: 1,
            loss_percent: 0,
            clients: 0,
            random: Random::new(seed),
            acked: BTreeMap::new(),
            queue: BinaryHeap::new(),
            events: BTreeMap::new(),
            numbers: 0,
            waiting_since: BTreeMap::new(),
            gap_ms_max: 0,
        };
        world.start(0);
        world.start(1);
        world
    }

    pub(crate) fn start(&mut self, node: usize) {
        let now = self.local(node);
        let server = &mut self.nodes[node];
        server.ha = Some(Relationships::new(vec![server.config.clone()], now));
        server.ha.as_mut().expect("just made").start(now);
        self.collect(node);
    }

    /// Kills a server; its leases stay on disk unless they are lost with it.
    pub(crate) fn kill(&mut self, node: usize, keep_leases: bool) {
        let config = self.nodes[node].config.clone();
        let old = std::mem::replace(&mut self.nodes[node], Node::new(config));
        let server = &mut self.nodes[node];
        server.aplomado = old.aplomado;
        server.skew_s = old.skew_s;
        if keep_leases {
            server.leases = old.leases;
        }
    }

    /// Clients begin to ask: each every 200 ms, of both servers.
    pub(crate) fn clients(&mut self, count: u8) {
        self.clients = count;
        for client in 1..=count {
            let delay = self.random.below(200);
            self.schedule(delay, 0, Delivery::Client { client });
        }
    }

    pub(crate) fn state(&self, node: usize) -> &'static str {
        self.nodes[node].ha.as_ref().map_or("dead", |ha| ha.list()[0].state().name())
    }

    pub(crate) fn states(&self) -> [&'static str; 2] {
        [self.state(0), self.state(1)]
    }

    pub(crate) fn command(&mut self, node: usize, name: &str, arguments: Option<Value>) {
        let request = HaRequest::parse(name, arguments.as_ref()).expect("an HA command").expect("valid");
        let now = self.local(node);
        let server = &mut self.nodes[node];
        server.token += 1;
        let token = CommandToken(server.token);
        if let Some(ha) = &mut server.ha {
            ha.command(now, token, request);
        }
        self.collect(node);
    }

    /// Runs until both servers are in these states; panics when that takes too long.
    pub(crate) fn await_states(&mut self, states: [&str; 2], ms_max: u64) -> u64 {
        let start = self.now.mono;
        while self.states() != states {
            let waited = self.now.mono.ms_since(start);
            assert!(waited < ms_max, "{:?} instead of {states:?} after {ms_max} ms", self.states());
            self.run(5);
        }
        self.now.mono.ms_since(start)
    }

    pub(crate) fn run(&mut self, ms: u64) {
        let end = self.now.plus_ms(ms).mono;
        loop {
            let next_event = self.queue.peek().map(|Reverse((at, _))| Mono(*at));
            let deadlines = self.nodes.iter().filter_map(|node| node.ha.as_ref()?.deadline());
            let Some(next) = next_event.into_iter().chain(deadlines).min().filter(|&next| next <= end) else {
                break;
            };
            self.set_time(next.max(self.now.mono));
            let due = self.queue.peek().is_some_and(|Reverse((at, _))| *at <= self.now.mono.0);
            if due && let Some(Reverse((_, number))) = self.queue.pop() {
                let (node, delivery) = self.events.remove(&number).expect("scheduled");
                self.deliver(node, delivery);
            }
            for node in 0..2 {
                self.timer(node);
            }
            self.check();
        }
        self.set_time(end);
    }

    fn set_time(&mut self, mono: Mono) {
        self.now = Now { mono, wall_s: WALL_START_S + mono.0 / 1_000_000_000 };
    }

    fn local(&self, node: usize) -> Now {
        let wall_s = self.now.wall_s.checked_add_signed(self.nodes[node].skew_s).expect("a date");
        Now { wall_s, ..self.now }
    }

    fn timer(&mut self, node: usize) {
        let now = self.local(node);
        let server = &mut self.nodes[node];
        let Some(ha) = &mut server.ha else { return };
        if ha.deadline().is_some_and(|deadline| deadline <= now.mono) {
            let traffic = UnackedCounts::sum([&*server.unacked.counts()], ha.list()[0].epoch());
            ha.handle(now, 0, Event::Observed(traffic));
            ha.timer(now);
            assert!(ha.deadline().is_none_or(|deadline| deadline > now.mono), "a timer that does not end");
            self.collect(node);
        }
    }

    /// What must hold at every moment.
    fn check(&mut self) {
        for (number, node) in self.nodes.iter_mut().enumerate() {
            let Some(ha) = &node.ha else { continue };
            let relationship = &ha.list()[0];
            let state = relationship.state();
            assert!(!node.service || state.behaviour().serves, "server {number} serves in {state}");
            assert_eq!(
                node.word.service(),
                node.service,
                "server {number} shows another service than it has"
            );
            if node.service {
                if let Some(since) = node.off_since.take() {
                    node.off_ms_max = node.off_ms_max.max(self.now.mono.ms_since(since));
                }
            } else {
                node.off_since.get_or_insert(self.now.mono);
            }
        }
    }

    fn schedule(&mut self, delay_ms: u64, node: usize, delivery: Delivery) {
        self.numbers += 1;
        self.events.insert(self.numbers, (node, delivery));
        self.queue.push(Reverse((self.now.mono.plus_ms(delay_ms).0, self.numbers)));
    }

    fn is_lost(&mut self, from: usize) -> bool {
        !self.link[from] || self.random.below(100) < self.loss_percent
    }

    fn send(&mut self, from: usize, purpose: Purpose, body: Vec<u8>, timeout_ms: u64) {
        self.numbers += 1;
        let call = self.numbers;
        self.nodes[from].calls.insert(call, purpose);
        self.schedule(timeout_ms, from, Delivery::Timeout { call });
        if self.is_lost(from) {
            return;
        }
        let latency = self.latency_ms + self.random.below(2);
        if self.nodes[1 - from].ha.is_none() {
            // Its kernel refuses the connection.
            self.schedule(latency, from, Delivery::Response { call, body: None });
        } else {
            self.schedule(latency, 1 - from, Delivery::Request { call, body });
        }
    }

    fn deliver(&mut self, node: usize, delivery: Delivery) {
        match delivery {
            Delivery::Request { call, body } => {
                if self.nodes[node].ha.is_none() {
                    // It died with the request in its queue: its kernel resets the connection.
                    let latency = self.latency_ms;
                    return self.schedule(latency, 1 - node, Delivery::Response { call, body: None });
                }
                let answer = self.serve(node, &body);
                if !self.is_lost(node) {
                    let latency = self.latency_ms;
                    self.schedule(latency, 1 - node, Delivery::Response { call, body: Some(answer) });
                }
            }
            Delivery::Response { call, body } => {
                if let Some(purpose) = self.nodes[node].calls.remove(&call) {
                    let refused = || PeerError::Io("connection refused".to_owned());
                    self.answered(node, purpose, body.ok_or_else(refused));
                }
            }
            Delivery::Timeout { call } => {
                if let Some(purpose) = self.nodes[node].calls.remove(&call) {
                    self.answered(node, purpose, Err(PeerError::Io("timed out".to_owned())));
                }
            }
            Delivery::Client { client } => self.client_asks(client),
        }
    }

    fn answered(&mut self, node: usize, purpose: Purpose, body: Result<Vec<u8>, PeerError>) {
        let short = |body: &Result<Vec<u8>, PeerError>| match body {
            Ok(body) => PeerAnswer::parse(body),
            Err(error) => Err(error.clone()),
        };
        let event = match purpose {
            Purpose::Heartbeat(ticket) => {
                Event::Heartbeat { ticket, result: HeartbeatAnswer::parse(short(&body)) }
            }
            Purpose::Reset(ticket) => Event::ResetAnswered { ticket, answer: short(&body) },
            Purpose::Maintenance(ticket) => Event::MaintenanceAnswered { ticket, answer: short(&body) },
            Purpose::Flush(ticket) => {
                if verdict(&short(&body)) == Verdict::Success {
                    return self.flush(node, ticket);
                }
                Event::FlushFinished { ticket, success: false }
            }
            Purpose::Update { client } => {
                let verdict = verdict(&short(&body));
                if verdict == Verdict::Success {
                    self.acknowledge(node, client);
                }
                Event::Update { verdict, client: Some(ClientFingerprint(u64::from(client))) }
            }
            Purpose::ListCommands => {
                let answer = short(&body).ok().and_then(|answer| answer.arguments);
                let names = answer
                    .as_ref()
                    .and_then(Value::as_array)
                    .map(|list| list.iter().filter_map(Value::as_str));
                self.nodes[node].partner.learn_commands(names);
                return;
            }
            Purpose::Copy(ticket, expect) => return self.copy_answered(node, ticket, expect, body),
        };
        self.event(node, event);
    }

    fn event(&mut self, node: usize, event: Event) {
        let now = self.local(node);
        if let Some(ha) = &mut self.nodes[node].ha {
            ha.handle(now, 0, event);
        }
        self.collect(node);
    }

    fn collect(&mut self, node: usize) {
        while let Some(output) = self.nodes[node].ha.as_mut().and_then(Relationships::poll) {
            match output {
                Output::Service(on) => self.nodes[node].service = on,
                Output::Answer { answer, .. } => self.nodes[node].answers.push(answer),
                Output::Of(_, action) => self.act(node, action),
            }
        }
    }

    fn act(&mut self, node: usize, action: Action) {
        let name = self.nodes[node].config.own().name.clone();
        let timeouts = self.nodes[node].config.timeouts();
        match action {
            Action::SendHeartbeat(ticket) => {
                let body = outgoing::heartbeat(Family::V4, &name);
                self.send(node, Purpose::Heartbeat(ticket), body, timeouts.heartbeat_ms);
            }
            Action::Publish(word) => self.nodes[node].word = word,
            Action::StartSync { ticket, max_period_s, .. } => {
                let server = &mut self.nodes[node];
                let params = SyncParams::new(&server.config, &server.partner, max_period_s);
                server.copying.push(Copying { ticket, sync: Sync::new(params), pages: VecDeque::new() });
                self.copy_on(node, ticket);
            }
            Action::CancelSync(ticket) => {
                if let Some(copying) =
                    self.nodes[node].copying.iter_mut().find(|copying| copying.ticket == ticket)
                {
                    copying.sync.cancel();
                }
                self.copy_on(node, ticket);
            }
            Action::FlushBacklog(ticket) => self.flush(node, ticket),
            Action::SendReset(ticket) => {
                self.send(
                    node,
                    Purpose::Reset(ticket),
                    outgoing::reset(Family::V4, &name),
                    timeouts.command_ms,
                );
            }
            Action::SendMaintenanceNotify { ticket, cancel, state } => {
                let body = outgoing::maintenance_notify(Family::V4, &name, cancel, state);
                self.send(node, Purpose::Maintenance(ticket), body, timeouts.command_ms);
            }
            Action::ContactRegained => {
                self.nodes[node].partner.forget();
                self.send(
                    node,
                    Purpose::ListCommands,
                    outgoing::list_commands(Family::V4),
                    timeouts.command_ms,
                );
            }
            Action::Answer { answer, .. } => self.nodes[node].answers.push(answer),
            Action::Log(Message::StateTransition { to, .. }) => self.nodes[node].transitions.push(to.name()),
            Action::Log(_) | Action::ContactLost => {}
            Action::LocalService(_) | Action::ReleaseOrigin(_) => panic!("these end in the room itself"),
        }
    }

    fn flush(&mut self, node: usize, ticket: Ticket) {
        let update_ms = self.nodes[node].config.timeouts().update_ms;
        let relationship = self.nodes[node].ha.as_mut().and_then(|ha| ha.relationship_mut(0)).expect("alive");
        match relationship.pop_backlog() {
            Some(delayed) => {
                let body = self.nodes[node].update(delayed.operation, &delayed.lease.view());
                self.send(node, Purpose::Flush(ticket), body, update_ms);
            }
            None => self.event(node, Event::FlushFinished { ticket, success: true }),
        }
    }

    fn copy_answered(
        &mut self,
        node: usize,
        ticket: Ticket,
        expect: Expect,
        body: Result<Vec<u8>, PeerError>,
    ) {
        let Some(copying) = self.nodes[node].copying.iter_mut().find(|copying| copying.ticket == ticket)
        else {
            return;
        };
        let reply = match (expect, body) {
            (Expect::Short, Ok(body)) => Reply::Short(PeerAnswer::parse(&body)),
            (Expect::Short, Err(error)) => Reply::Short(Err(error)),
            (Expect::Page, Ok(body)) => {
                let page = PageAnswer::scan(&body);
                if let Ok(page) = &page {
                    copying.pages.push_back((body, page.clone()));
                }
                Reply::Page(page)
            }
            (Expect::Page, Err(error)) => Reply::Page(Err(error)),
        };
        copying.sync.answered(reply);
        self.copy_on(node, ticket);
    }

    fn copy_on(&mut self, node: usize, ticket: Ticket) {
        loop {
            let server = &mut self.nodes[node];
            let Some(at) = server.copying.iter().position(|copying| copying.ticket == ticket) else { return };
            match server.copying[at].sync.poll_action() {
                None => return,
                Some(SyncAction::Send { body, timeout_ms, expect }) => {
                    self.send(node, Purpose::Copy(ticket, expect), body, timeout_ms);
                }
                Some(SyncAction::Apply { changes }) => {
                    let (body, page) = server.copying[at].pages.pop_front().expect("a page to apply");
                    let filter = SubnetFilter::new(&server.config, []);
                    let applied = server.apply(&body, &page, changes, &filter);
                    server.copying[at].sync.applied(Ok(applied));
                }
                Some(SyncAction::Commands(names)) => {
                    server
                        .partner
                        .learn_commands(names.as_ref().map(|names| names.iter().map(String::as_str)));
                }
                Some(SyncAction::Unsupported(command)) => {
                    server.partner.learn(aplomado::ha::partner::Hint::Unsupported(command));
                }
                Some(SyncAction::Give) => panic!("these copies give nothing"),
                Some(SyncAction::Finished(result)) => {
                    server.copying.remove(at);
                    self.event(node, Event::SyncFinished { ticket, result: result.map(|_| ()) });
                    return;
                }
            }
        }
    }

    fn client_asks(&mut self, client: u8) {
        if client > self.clients {
            return;
        }
        self.schedule(200, 0, Delivery::Client { client });
        let since = *self.waiting_since.entry(client).or_insert(self.now.mono);
        let age_ms = self.now.mono.ms_since(since);
        for node in 0..2 {
            let now = self.local(node);
            let server = &mut self.nodes[node];
            let Some(ha) = &mut server.ha else { continue };
            let word = server.word;
            if !word.service() {
                continue;
            }
            // Clients alternate between the buckets: who is odd belongs to the secondary.
            let decision = word.decide4(Some(client), 3);
            if decision.analyse {
                server.unacked.analyse(
                    word.epoch(),
                    Some(ClientFingerprint(u64::from(client) << 8)),
                    Some(age_ms),
                );
            }
            if !decision.in_scope {
                continue;
            }
            let lease = lease(client, now.wall_s);
            let parts = word.parts();
            server.leases.insert(address(client), lease.clone());
            server.feed.note(address(client));
            if parts.queue {
                ha.relationship_mut(0).expect("one").queue_update(Operation::Update, lease);
            } else if parts.count_unsent {
                ha.handle(now, 0, Event::Unsent(1));
                self.collect(node);
            } else if parts.awaited != 0 {
                let body = self.nodes[node].update(Operation::Update, &lease.view());
                let timeout = self.nodes[node].config.timeouts().update_ms;
                self.send(node, Purpose::Update { client }, body, timeout);
                continue;
            }
            self.acknowledge(node, client);
        }
    }

    fn acknowledge(&mut self, node: usize, client: u8) {
        if let Some(since) = self.waiting_since.remove(&client) {
            self.gap_ms_max = self.gap_ms_max.max(self.now.mono.ms_since(since));
        }
        let cltt = self.nodes[node].leases.get(&address(client)).map_or(0, |lease| lease.view().cltt);
        let newest = self.acked.entry(client).or_default();
        *newest = (self.now.mono, newest.1.max(cltt));
    }

    fn serve(&mut self, node: usize, body: &[u8]) -> Vec<u8> {
        let request: Value = serde_json::from_slice(body).expect("what we send is JSON");
        let command = request["command"].as_str().expect("a command").to_owned();
        let arguments = request.get("arguments");
        self.nodes[node].commands.push(command.clone());
        let now = self.local(node);
        let answer = match HaRequest::parse(&command, arguments) {
            Some(Ok(request)) => {
                let server = &mut self.nodes[node];
                let before = server.answers.len();
                let ha = server.ha.as_mut().expect("alive");
                ha.command(now, CommandToken(0), request);
                self.collect(node);
                assert!(self.nodes[node].answers.len() > before, "partners are answered at once");
                self.nodes[node].answers.pop().expect("an answer")
            }
            Some(Err(answer)) => answer,
            None => {
                return self.nodes[node].serve_lease(now, &command, arguments, body).unwrap_or_else(
                    |answer| {
                        let done = answer.to_http_body();
                        self.collect(node);
                        done
                    },
                );
            }
        };
        answer.to_http_body()
    }
}

impl Node {
    fn new(config: RelationshipConfig) -> Self {
        Self {
            ha: None,
            word: ScopeWord::ALONE,
            service: false,
            leases: BTreeMap::new(),
            skew_s: 0,
            aplomado: false,
            transitions: Vec::new(),
            commands: Vec::new(),
            answers: Vec::new(),
            off_since: None,
            off_ms_max: 0,
            partner: Partner::new(None),
            feed: ChangeFeed::default(),
            copying: Vec::new(),
            unacked: UnackedClients::new(config.max_unacked_clients, config.max_ack_delay_ms),
            calls: BTreeMap::new(),
            token: 0,
            config,
        }
    }

    fn update(&self, operation: Operation, lease: &Lease4<'_>) -> Vec<u8> {
        let form = UpdateForm { released_as_update: self.partner.takes_released(), expire_32_bits: false };
        let mut body = Vec::new();
        write_update4(&mut body, operation, lease, form);
        body
    }

    fn apply(&mut self, body: &[u8], page: &PageAnswer, changes: bool, filter: &SubnetFilter) -> Applied {
        let mut applied = Applied::default();
        for address in &page.deleted {
            self.leases.remove(address);
            applied.stored += 1;
        }
        let mut read = PageLeases::new(page, body);
        while let Some(lease) = read.next() {
            let Ok(lease) = lease else {
                applied.bad += 1;
                continue;
            };
            let newer = self.leases.get(&lease.address).is_none_or(|own| own.view().cltt < lease.cltt);
            if filter.keeps(lease.subnet_id) && (changes || newer) {
                self.leases.insert(lease.address, lease.to_owned());
                applied.stored += 1;
            } else {
                applied.kept += 1;
            }
        }
        applied
    }

    /// Commands about leases and the service: a body, or an answer without leases.
    fn serve_lease(
        &mut self,
        now: Now,
        command: &str,
        arguments: Option<&Value>,
        body: &[u8],
    ) -> Result<Vec<u8>, Answer> {
        let ha = self.ha.as_mut().expect("alive");
        match command {
            "dhcp-disable" => Err(ha.disable(now, ServiceRequest::parse(arguments)?)),
            "dhcp-enable" => Err(ha.enable(now, ServiceRequest::parse(arguments)?)),
            "list-commands" => {
                let mut names = vec!["ha-heartbeat", "ha-sync-complete-notify"];
                if self.aplomado {
                    names.extend(["aplomado-bulk-apply", "aplomado-sync-begin"]);
                }
                Err(Answer::success("").with(json!(names)))
            }
            "lease4-get-page" => {
                let page = PageRequest::parse(arguments)?;
                let limit = usize::try_from(page.limit).expect("fits");
                let leases: Vec<&Lease4Buf> = self
                    .leases
                    .iter()
                    .filter(|(address, _)| **address > page.from)
                    .map(|(_, lease)| lease)
                    .take(limit)
                    .collect();
                let mut out = Vec::new();
                write_page_start(&mut out, leases.len() as u64);
                for (position, lease) in leases.iter().enumerate() {
                    write_page_lease(&mut out, position == 0, &lease.view());
                }
                write_page_end(&mut out, leases.len() as u64);
                Ok(out)
            }
            "lease4-update" => {
                let head = Head::scan(body)?;
                let mut reader = LeaseReader::default();
                let arguments = head.arguments.expect("arguments");
                let update = reader.update4(&mut Scanner::new(arguments)).expect("JSON").expect("a lease");
                let lease = update.complete(now.wall_s, update.lease.subnet_id, 0);
                self.leases.insert(lease.address, lease.to_owned());
                self.feed.note(lease.address);
                Err(Answer::success("IPv4 lease updated."))
            }
            "aplomado-sync-begin" if self.aplomado => {
                let session = self.feed.begin(now);
                Err(Answer::success("").with(json!({ "session": session })))
            }
            "aplomado-sync-changes" if self.aplomado => {
                let changes = self
                    .feed
                    .take(now, ChangesRequest::parse(arguments)?)
                    .ok_or_else(|| Answer::error("no session"))?;
                let (present, deleted): (Vec<Ipv4Addr>, Vec<Ipv4Addr>) =
                    changes.addresses.iter().partition(|address| self.leases.contains_key(address));
                let mut out = Vec::new();
                let leases = present.iter().map(|address| self.leases[address].view());
                write_changes(
                    &mut out,
                    leases,
                    deleted.iter().copied(),
                    changes.remaining,
                    changes.overflown,
                );
                Ok(out)
            }
            _ => Err(Answer {
                result: 2,
                text: format!("'{command}' command not supported."),
                arguments: None,
            }),
        }
    }

    pub(crate) fn serving_state(&self) -> bool {
        self.ha.as_ref().is_some_and(|ha| ha.list()[0].state() != State::Terminated)
    }
}
