//! Random events and random octets: nothing panics, and what must never be, is not.

use aplomado::ha::command::bulk::read_bulk;
use aplomado::ha::command::json::Scanner;
use aplomado::ha::command::lease::LeaseReader;
use aplomado::ha::command::page::{PageAnswer, PageLeases};
use aplomado::ha::command::request::{HaCommand, HaRequest};
use aplomado::ha::command::{HeartbeatAnswer, PeerAnswer, PeerError, Verdict};
use aplomado::ha::config::{RelationshipConfig, parse};
use aplomado::ha::relationship::{Action, CommandToken, Event, Ticket};
use aplomado::ha::relationships::{Output, Relationships};
use aplomado::ha::service::ServiceRequest;
use aplomado::ha::states::{Mode, State};
use aplomado::ha::unacked::{ClientFingerprint, Traffic};
use aplomado::time::{Mono, Now};
use proptest::prelude::*;
use serde_json::json;

fn config(mode: Mode, this: &str, seed: u32) -> RelationshipConfig {
    let second = match mode {
        Mode::LoadBalancing => Some("secondary"),
        Mode::HotStandby => Some("standby"),
        Mode::PassiveBackup => None,
    };
    let mut peers = vec![json!({ "name": "alpha", "url": "http://10.9.0.1/", "role": "primary" })];
    peers.extend(second.map(|role| json!({ "name": "beta", "url": "http://10.9.0.2/", "role": role })));
    peers.push(json!({ "name": "gamma", "url": "http://10.9.0.3/", "role": "backup" }));
    let pause = ["never", "once", "always"][usize::try_from(seed % 3).expect("small")];
    let state = State::ALL[usize::try_from(seed % 12).expect("small")].name();
    let map = json!({ "this-server-name": this, "mode": mode.name(), "peers": peers, "heartbeat-delay": 1000,
        "max-response-delay": 3000, "max-unacked-clients": seed % 4, "max-rejected-lease-updates": seed % 5,
        "delayed-updates-limit": if mode == Mode::LoadBalancing { seed % 7 } else { 0 },
        "sync-leases": !seed.is_multiple_of(4), "send-lease-updates": !seed.is_multiple_of(5),
        "state-machine": { "states": [{ "state": state, "pause": pause }] } });
    parse(&json!([map]), &mut |_| Ok(String::new())).expect("valid").relationships.remove(0)
}

/// One thing that happens.
#[derive(Clone, Debug)]
enum Step {
    Pass(u64),
    Heartbeat(Option<(usize, i64, Option<u64>)>),
    Update(u8, u64),
    Sync(bool),
    Flush(bool),
    Reset(i64),
    Maintenance(i64, usize),
    Command(u8, usize),
    Disable(u32, Option<u64>),
    Enable(u32),
    Observed(u64),
    Unsent(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let heartbeat = (0..12usize, -70..70i64, prop::option::of(0..3u64));
    let step = prop_oneof![
        6 => (0..4000u64).prop_map(Step::Pass),
        8 => prop::option::weighted(0.8, heartbeat).prop_map(Step::Heartbeat),
        2 => (0..3u8, 0..6u64).prop_map(|(verdict, client)| Step::Update(verdict, client)),
        4 => any::<bool>().prop_map(Step::Sync),
        2 => any::<bool>().prop_map(Step::Flush),
        1 => (-1..3i64).prop_map(Step::Reset),
        1 => (prop::sample::select(vec![-1, 0, 1, 2, 1001]), 0..13usize).prop_map(|(code, state)| Step::Maintenance(code, state)),
        2 => (0..9u8, 0..13usize).prop_map(|(command, state)| Step::Command(command, state)),
        1 => (1999..2003u32, prop::option::of(1..4u64)).prop_map(|(origin, period)| Step::Disable(origin, period)),
        1 => (1999..2003u32).prop_map(Step::Enable),
        1 => (0..20u64).prop_map(Step::Observed),
        1 => any::<u64>().prop_map(Step::Unsent),
    ];
    prop::collection::vec(step, 1..120)
}

/// What is in flight, as whoever carries out actions knows it.
#[derive(Default)]
struct Edge {
    service: bool,
    heartbeats: Vec<Ticket>,
    syncs: Vec<Ticket>,
    flushes: Vec<Ticket>,
    resets: Vec<Ticket>,
    notices: Vec<Ticket>,
    answered: Vec<u64>,
}

impl Edge {
    fn collect(&mut self, ha: &mut Relationships) {
        let mut outputs = 0;
        while let Some(output) = ha.poll() {
            outputs += 1;
            assert!(outputs < 100, "one event never wants this much");
            match output {
                Output::Service(on) => self.service = on,
                Output::Answer { token, .. } => self.answered.push(token.0),
                Output::Of(_, action) => match action {
                    Action::SendHeartbeat(ticket) => self.heartbeats.push(ticket),
                    Action::StartSync { ticket, .. } => self.syncs.push(ticket),
                    Action::FlushBacklog(ticket) => self.flushes.push(ticket),
                    Action::SendReset(ticket) => self.resets.push(ticket),
                    Action::SendMaintenanceNotify { ticket, .. } => self.notices.push(ticket),
                    Action::Answer { token, .. } => self.answered.push(token.0),
                    _ => {}
                },
            }
        }
    }
}

fn answer(code: i64, state: State) -> Result<PeerAnswer, PeerError> {
    if code < 0 {
        return Err(PeerError::Io("gone".to_owned()));
    }
    Ok(PeerAnswer { result: code, text: String::new(), arguments: Some(json!({ "state": state.name() })) })
}

fn command(number: u8, state: State) -> HaCommand {
    match number {
        0 => HaCommand::Heartbeat,
        1 => HaCommand::Sync { source: "gamma".to_owned(), max_period_s: Some(1) },
        2 => HaCommand::Scopes(vec!["alpha".to_owned()]),
        3 => HaCommand::Continue,
        4 => HaCommand::Reset,
        5 => HaCommand::MaintenanceStart,
        6 => HaCommand::MaintenanceNotify { cancel: state.index().is_multiple_of(2), state },
        7 => HaCommand::MaintenanceCancel,
        _ => HaCommand::SyncCompleteNotify { origin: None },
    }
}

fn play(mode: Mode, this: &str, seed: u32, steps: &[Step]) {
    let mut now = Now { mono: Mono(1), wall_s: 1_767_229_200 };
    let mut ha = Relationships::new(vec![config(mode, this, seed)], now);
    let mut edge = Edge::default();
    ha.start(now);
    edge.collect(&mut ha);
    let mut asked = 0;
    for step in steps {
        let event = match step {
            Step::Pass(ms) => {
                now = now.plus_ms(*ms);
                ha.timer(now);
                assert!(
                    ha.deadline().is_none_or(|deadline| deadline > now.mono),
                    "a timer that does not end"
                );
                None
            }
            Step::Heartbeat(result) => edge.heartbeats.pop().map(|ticket| {
                let result = result.map(|(state, skew_s, unsent_update_count)| HeartbeatAnswer {
                    state: State::ALL[state],
                    date_time_s: now.wall_s.saturating_add_signed(skew_s),
                    scopes: None,
                    unsent_update_count,
                });
                Event::Heartbeat { ticket, result: result.ok_or_else(|| "silence".to_owned()) }
            }),
            Step::Update(verdict, client) => {
                let verdict = [Verdict::Success, Verdict::Conflict, Verdict::Error][usize::from(*verdict)];
                Some(Event::Update { verdict, client: Some(ClientFingerprint(*client)) })
            }
            Step::Sync(success) => edge.syncs.pop().map(|ticket| Event::SyncFinished {
                ticket,
                result: if *success { Ok(()) } else { Err("lost".to_owned()) },
            }),
            Step::Flush(success) => {
                edge.flushes.pop().map(|ticket| Event::FlushFinished { ticket, success: *success })
            }
            Step::Reset(code) => edge
                .resets
                .pop()
                .map(|ticket| Event::ResetAnswered { ticket, answer: answer(*code, State::Waiting) }),
            Step::Maintenance(code, state) => edge.notices.pop().map(|ticket| Event::MaintenanceAnswered {
                ticket,
                answer: answer(*code, State::ALL[*state]),
            }),
            Step::Command(number, state) => {
                asked += 1;
                let request = HaRequest { server_name: None, command: command(*number, State::ALL[*state]) };
                ha.command(now, CommandToken(asked), request);
                None
            }
            Step::Disable(origin, max_period_s) => {
                ha.disable(now, ServiceRequest { origin: *origin, max_period_s: *max_period_s });
                None
            }
            Step::Enable(origin) => {
                ha.enable(now, ServiceRequest { origin: *origin, max_period_s: None });
                None
            }
            Step::Observed(clients) => {
                Some(Event::Observed(Traffic { unacked_clients: *clients, ..Traffic::default() }))
            }
            Step::Unsent(count) => Some(Event::Unsent(*count)),
        };
        if let Some(event) = event {
            ha.handle(now, 0, event);
        }
        edge.collect(&mut ha);

        let relationship = &ha.list()[0];
        let state = relationship.state();
        assert_eq!(edge.service, ha.service());
        assert_eq!(relationship.service(), ha.service());
        assert!(!ha.service() || state.behaviour().serves, "service in {state}");
        assert_ne!(state, State::Unavailable);
        if this == "gamma" {
            assert!(matches!(state, State::Waiting | State::Backup), "{state}");
        }
        match mode {
            Mode::LoadBalancing => assert!(!matches!(state, State::HotStandby | State::PassiveBackup)),
            Mode::HotStandby => assert!(!matches!(
                state,
                State::LoadBalancing | State::CommunicationRecovery | State::PassiveBackup
            )),
            Mode::PassiveBackup => {
                assert!(matches!(
                    state,
                    State::PassiveBackup | State::Waiting | State::Backup | State::InMaintenance
                ));
            }
        }
        assert!(relationship.backlog().is_empty() || state == State::CommunicationRecovery);
        let status = ha.status(now).expect("HA");
        assert_eq!(status[0]["ha-servers"]["local"]["state"], state.name());
    }
    edge.answered.sort_unstable();
    edge.answered.dedup();
    let late = edge.syncs.len() + edge.notices.len();
    let answered = u64::try_from(edge.answered.len() + late).expect("small");
    assert!(answered >= asked, "every command is answered, at once or when the partner has answered");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(400) })]

    #[test]
    fn no_order_of_events_brings_the_machine_out_of_its_rules(
        mode in 0..3usize, this in 0..3usize, seed in 0..420u32, steps in steps()
    ) {
        let this = ["alpha", "beta", "gamma"][this];
        let mode = Mode::ALL[mode];
        if mode != Mode::PassiveBackup || this != "beta" {
            play(mode, this, seed, &steps);
        }
    }

    #[test]
    fn no_octets_stop_the_readers(octets in prop::collection::vec(any::<u8>(), 0..200)) {
        read_everything(&octets);
    }

    #[test]
    fn no_damage_to_a_page_stops_the_readers(at in any::<prop::sample::Index>(), octet in any::<u8>(), cut in any::<prop::sample::Index>()) {
        let mut page = include_bytes!("data/ha/page-of-kea-2.2.json").to_vec();
        let at = at.index(page.len());
        page[at] = octet;
        read_everything(&page);
        let cut = cut.index(page.len());
        read_everything(&page[..cut]);
    }
}

fn read_everything(octets: &[u8]) {
    if let Ok(page) = PageAnswer::scan(octets) {
        let mut leases = PageLeases::new(&page, octets);
        let mut count = 0;
        while leases.next().is_some() {
            count += 1;
        }
        assert!(count <= page.count + 1);
    }
    let _ = read_bulk(octets, |_| ());
    let _ = HeartbeatAnswer::parse(PeerAnswer::parse(octets));
    let mut reader = LeaseReader::default();
    let _ = reader.dump4(&mut Scanner::new(octets));
    let _ = reader.update4(&mut Scanner::new(octets));
    let mut scanner = Scanner::new(octets);
    while scanner.skip().is_ok() {}
    if let Ok(value) = serde_json::from_slice::<serde_json::Value>(octets) {
        let _ = parse(&value, &mut |_| Ok(String::new()));
    }
}
