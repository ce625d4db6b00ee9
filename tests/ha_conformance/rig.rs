//! One server with a scripted partner, in virtual time.

use std::collections::VecDeque;

use aplomado::ha::command::request::HaRequest;
use aplomado::ha::command::{Answer, HeartbeatAnswer, PeerAnswer, PeerError, Verdict};
use aplomado::ha::config::{Finding, RelationshipConfig, parse};
use aplomado::ha::relationship::{Action, CommandToken, Event, Message, Relationship, Ticket};
use aplomado::ha::relationships::{Output, Relationships};
use aplomado::ha::states::State;
use aplomado::ha::unacked::{ClientFingerprint, Traffic};
use aplomado::ha::view::ScopeWord;
use aplomado::time::{Mono, Now};
use serde_json::{Map, Value, json};

/// Some moment on both clocks.
pub(crate) const START: Now = Now { mono: Mono(5_000_000_000), wall_s: 1_767_229_200 };

/// `alpha` is the primary, `beta` the other active server, `gamma` a backup.
pub(crate) fn relationship(mode: &str, this: &str, extra: Value) -> Value {
    let second = match mode {
        "load-balancing" => Some("secondary"),
        "hot-standby" => Some("standby"),
        _ => None,
    };
    let mut peers = vec![json!({ "name": "alpha", "url": "http://10.9.0.1:8005/", "role": "primary" })];
    peers.extend(second.map(|role| json!({ "name": "beta", "url": "http://10.9.0.2:8005/", "role": role })));
    peers.push(json!({ "name": "gamma", "url": "http://10.9.0.3:8005/", "role": "backup" }));
    let mut map = json!({ "this-server-name": this, "mode": mode, "peers": peers });
    if let (Value::Object(map), Value::Object(extra)) = (&mut map, extra) {
        map.extend(extra);
    }
    map
}

pub(crate) fn parse_one(relationship: Value) -> Result<RelationshipConfig, Vec<Finding>> {
    parse(&json!([relationship]), &mut |name| Err(format!("no file {name}")))
        .map(|mut parsed| parsed.relationships.remove(0))
}

/// Everything a valid configuration says, or a panic with the findings.
pub(crate) fn valid(relationship: Value) -> RelationshipConfig {
    parse_one(relationship).expect("a valid configuration")
}

pub(crate) struct Server {
    pub(crate) ha: Relationships,
    pub(crate) now: Now,
    pub(crate) word: ScopeWord,
    pub(crate) service: bool,
    pub(crate) outputs: VecDeque<Output>,
    heartbeat: Option<Ticket>,
    tokens: u64,
}

impl Server {
    pub(crate) fn new(mode: &str, this: &str, extra: Value) -> Self {
        Self::with(vec![valid(relationship(mode, this, extra))])
    }

    pub(crate) fn with(configs: Vec<RelationshipConfig>) -> Self {
        let mut server = Self {
            ha: Relationships::new(configs, START),
            now: START,
            word: ScopeWord::ALONE,
            service: false,
            outputs: VecDeque::new(),
            heartbeat: None,
            tokens: 0,
        };
        server.ha.start(START);
        server.collect();
        server
    }

    pub(crate) fn collect(&mut self) {
        while let Some(output) = self.ha.poll() {
            match &output {
                Output::Of(0, Action::Publish(word)) => self.word = *word,
                Output::Of(0, Action::SendHeartbeat(ticket)) => self.heartbeat = Some(*ticket),
                Output::Service(on) => self.service = *on,
                _ => {}
            }
            self.outputs.push_back(output);
        }
    }

    pub(crate) fn relationship(&self) -> &Relationship {
        &self.ha.list()[0]
    }

    pub(crate) fn state(&self) -> &'static str {
        self.relationship().state().name()
    }

    pub(crate) fn scopes(&self) -> Vec<String> {
        self.relationship().scope_names()
    }

    pub(crate) fn partner_state(&self) -> &'static str {
        self.relationship().partner_state().map_or("", State::name)
    }

    pub(crate) fn event(&mut self, event: Event) {
        self.ha.handle(self.now, 0, event);
        self.collect();
    }

    /// Lets time pass, with a timer at every deadline.
    pub(crate) fn advance(&mut self, ms: u64) {
        let end = self.now.plus_ms(ms);
        let start = self.now;
        while let Some(deadline) = self.ha.deadline().filter(|&deadline| deadline <= end.mono) {
            let passed = Mono(deadline.0.max(self.now.mono.0)).ms_since(start.mono);
            self.now = start.plus_ms(passed);
            self.ha.timer(self.now);
            self.collect();
        }
        self.now = end;
        self.ha.timer(self.now);
        self.collect();
    }

    /// Whether a heartbeat is on its way.
    pub(crate) fn heartbeat_sent(&self) -> bool {
        self.heartbeat.is_some()
    }

    /// Waits for the next heartbeat to be sent.
    pub(crate) fn await_heartbeat(&mut self) -> Ticket {
        for _ in 0..1000 {
            if let Some(ticket) = self.heartbeat {
                return ticket;
            }
            let deadline = self.ha.deadline().expect("a heartbeat to come");
            let ms = deadline.ms_since(self.now.mono).max(1);
            self.advance(ms);
        }
        panic!("no heartbeat in {}", self.state());
    }

    /// The next heartbeat is answered so; nothing else happens.
    pub(crate) fn heartbeat_result(&mut self, result: Result<HeartbeatAnswer, String>) {
        let ticket = self.await_heartbeat();
        self.heartbeat = None;
        self.event(Event::Heartbeat { ticket, result });
    }

    pub(crate) fn answer_with(&mut self, state: &str, skew_s: i64, unsent: Option<u64>) {
        self.await_heartbeat();
        let answer = HeartbeatAnswer {
            state: State::from_name(state).expect("a state"),
            date_time_s: self.now.wall_s.checked_add_signed(skew_s).expect("a date"),
            scopes: Some(Vec::new()),
            unsent_update_count: unsent,
        };
        self.heartbeat_result(Ok(answer));
    }

    /// The next heartbeat says that the partner is in `state`.
    pub(crate) fn partner(&mut self, state: &str) {
        self.answer_with(state, 0, Some(0));
    }

    /// The next heartbeat fails.
    pub(crate) fn silence(&mut self) {
        self.heartbeat_result(Err("connection refused".to_owned()));
    }

    /// Heartbeats fail until the interruption is noticed, and once more.
    pub(crate) fn interrupt(&mut self) {
        let limit = self.relationship().config().max_response_delay_ms;
        let start = self.now.mono;
        while self.now.mono.ms_since(start) <= limit {
            self.silence();
            if self.relationship().config().heartbeat_delay_ms == 0
                || !self.relationship().state().behaviour().heartbeats
            {
                break;
            }
        }
        self.silence();
    }

    pub(crate) fn update(&mut self, verdict: Verdict, client: u64) {
        self.event(Event::Update { verdict, client: Some(ClientFingerprint(client)) });
    }

    pub(crate) fn unacked(&mut self, clients: u64) {
        let traffic = Traffic {
            analyzed_packets: clients,
            connecting_clients: clients,
            unacked_clients: clients,
            untold_packets: 0,
        };
        self.event(Event::Observed(traffic));
    }

    /// Sends a command; its answer, if it comes at once.
    pub(crate) fn command(&mut self, name: &str, arguments: Option<Value>) -> Option<Answer> {
        let request = match HaRequest::parse(name, arguments.as_ref()).expect("an HA command") {
            Ok(request) => request,
            Err(answer) => return Some(answer),
        };
        self.tokens += 1;
        let token = CommandToken(self.tokens);
        self.ha.command(self.now, token, request);
        self.collect();
        self.answer_of(token)
    }

    pub(crate) fn result(&mut self, name: &str, arguments: Option<Value>) -> u32 {
        self.command(name, arguments).expect("an answer at once").result
    }

    /// The answer to the last command, when it comes late.
    pub(crate) fn late_answer(&self) -> Option<Answer> {
        self.answer_of(CommandToken(self.tokens))
    }

    fn answer_of(&self, wanted: CommandToken) -> Option<Answer> {
        self.outputs.iter().find_map(|output| match output {
            Output::Of(_, Action::Answer { token, answer }) | Output::Answer { token, answer }
                if *token == wanted =>
            {
                Some(answer.clone())
            }
            _ => None,
        })
    }

    /// Forgets what was put out so far.
    pub(crate) fn forget(&mut self) {
        self.outputs.clear();
    }

    pub(crate) fn actions(&self) -> impl Iterator<Item = &Action> {
        self.outputs.iter().filter_map(|output| match output {
            Output::Of(_, action) => Some(action),
            _ => None,
        })
    }

    /// Transitions since the last [`Server::forget`].
    pub(crate) fn transitions(&self) -> Vec<&'static str> {
        self.actions()
            .filter_map(|action| match action {
                Action::Log(Message::StateTransition { to, .. }) => Some(to.name()),
                _ => None,
            })
            .collect()
    }

    /// Identifiers of the lines logged since the last [`Server::forget`].
    pub(crate) fn logged(&self) -> Vec<&'static str> {
        let message =
            |action: &Action| if let Action::Log(message) = action { Some(message.id()) } else { None };
        self.actions().filter_map(message).collect()
    }

    pub(crate) fn sync_started(&self) -> Option<Ticket> {
        self.actions()
            .filter_map(
                |action| if let Action::StartSync { ticket, .. } = action { Some(*ticket) } else { None },
            )
            .last()
    }

    pub(crate) fn finish_sync(&mut self, success: bool) {
        let ticket = self.sync_started().expect("a synchronisation");
        let result = if success { Ok(()) } else { Err("page lost".to_owned()) };
        self.event(Event::SyncFinished { ticket, result });
    }

    pub(crate) fn flush_started(&self) -> Option<Ticket> {
        self.actions()
            .filter_map(|action| if let Action::FlushBacklog(ticket) = action { Some(*ticket) } else { None })
            .last()
    }

    pub(crate) fn reset_sent(&self) -> Option<Ticket> {
        self.actions()
            .filter_map(|action| if let Action::SendReset(ticket) = action { Some(*ticket) } else { None })
            .last()
    }

    /// The last `ha-maintenance-notify` sent: ticket, `cancel`, `state`.
    pub(crate) fn maintenance_sent(&self) -> Option<(Ticket, bool, State)> {
        self.actions()
            .filter_map(|action| match action {
                Action::SendMaintenanceNotify { ticket, cancel, state } => Some((*ticket, *cancel, *state)),
                _ => None,
            })
            .last()
    }

    pub(crate) fn answer_maintenance(&mut self, answer: Result<PeerAnswer, PeerError>) {
        let (ticket, ..) = self.maintenance_sent().expect("a question");
        self.event(Event::MaintenanceAnswered { ticket, answer });
    }

    /// Brings the server to `state` with a partner that makes it stay there, from a fresh start.
    pub(crate) fn reach(mode: &str, this: &str, state: &str, extra: Value) -> Self {
        let mut map = Map::new();
        // The partner is never silent for long enough by accident.
        map.insert("max-response-delay".to_owned(), json!(60_000));
        if let Value::Object(extra) = extra {
            map.extend(extra);
        }
        let mut server = Self::new(mode, this, Value::Object(map));
        let normal = mode;
        match state {
            "waiting" => {}
            "syncing" => {
                server.partner("ready");
                server.finish_sync(false);
            }
            "ready" => {
                // Each role stays in `ready` with the partner that let it in.
                server.partner(if this == "alpha" { "waiting" } else { "ready" });
                server.finish_sync(true);
            }
            "load-balancing" | "hot-standby" => {
                server.partner("ready");
                server.finish_sync(true);
                server.partner(normal);
            }
            "communication-recovery" => {
                server = Self::reach(mode, this, normal, server.extra());
                server.silence();
            }
            "partner-down" => server.interrupt(),
            "partner-in-maintenance" => {
                server = Self::reach(mode, this, normal, server.extra());
                server.partner("in-maintenance");
            }
            "in-maintenance" => {
                server.result("ha-maintenance-notify", Some(json!({ "cancel": false })));
            }
            "terminated" => server.answer_with("waiting", 61, Some(0)),
            other => panic!("no way to {other}"),
        }
        assert_eq!(server.state(), state);
        server.forget();
        server
    }

    /// The settings that tests vary, for a second server like this one.
    fn extra(&self) -> Value {
        let config = self.relationship().config();
        let pauses: Vec<Value> = State::ALL
            .into_iter()
            .filter(|&state| config.pause(state) != aplomado::ha::config::Pause::Never)
            .map(|state| json!({ "state": state.name(), "pause": format!("{:?}", config.pause(state)).to_lowercase() }))
            .collect();
        json!({
            "heartbeat-delay": config.heartbeat_delay_ms,
            "max-response-delay": config.max_response_delay_ms,
            "max-unacked-clients": config.max_unacked_clients,
            "max-rejected-lease-updates": config.max_rejected_lease_updates,
            "delayed-updates-limit": config.delayed_updates_limit,
            "send-lease-updates": config.send_lease_updates,
            "sync-leases": config.sync_leases,
            "state-machine": { "states": pauses },
        })
    }
}

/// An answer of a peer.
pub(crate) fn peer_answer(result: i64, arguments: Option<Value>) -> Result<PeerAnswer, PeerError> {
    Ok(PeerAnswer { result, text: "text".to_owned(), arguments })
}

/// No answer of a peer.
pub(crate) fn no_answer() -> Result<PeerAnswer, PeerError> {
    Err(PeerError::Io("connection refused".to_owned()))
}
