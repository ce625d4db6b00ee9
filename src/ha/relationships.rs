//! All relationships of a server, and who keeps its DHCP service off: what the control thread drives.
//!
//! Commands are led to the relationship that they name; maintenance is asked of all of them in turn; the origins of the
//! relationships and of whoever sent `dhcp-disable` decide together whether the service is on.

use std::collections::VecDeque;

use serde_json::Value;

use super::command::request::{HaCommand, HaRequest};
use super::command::{Answer, RESULT_SUCCESS, RESULT_UNSUPPORTED};
use super::config::RelationshipConfig;
use super::relationship::{Action, CommandToken, Event, Relationship};
use super::service::{ServiceOrigins, ServiceRequest};
use crate::time::{Mono, Now};

/// Tokens of callers are below this.
pub const TOKEN_MAX: u64 = u64::MAX - 1;
const MAINTENANCE_TOKEN: CommandToken = CommandToken(u64::MAX);

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// What the relationship of this number wants; never [`Action::LocalService`] or [`Action::ReleaseOrigin`], which end here.
    Of(usize, Action),
    /// A command without a relationship is answered.
    Answer {
        /// Whose.
        token: CommandToken,
        /// How.
        answer: Answer,
    },
    /// The DHCP service is on or off from now on.
    Service(bool),
}

/// `ha-maintenance-start` or `-cancel`, on its way through the relationships.
#[derive(Clone, Copy, Debug)]
struct Maintenance {
    token: CommandToken,
    start: bool,
    at: usize,
}

/// The relationships of one server, possibly none.
#[derive(Debug)]
pub struct Relationships {
    list: Vec<Relationship>,
    origins: ServiceOrigins,
    service: bool,
    maintenance: Option<Maintenance>,
    outputs: VecDeque<Output>,
}

impl Relationships {
    /// The relationships of a valid configuration; none for a server without HA.
    #[must_use]
    pub fn new(configs: Vec<RelationshipConfig>, now: Now) -> Self {
        Self {
            list: configs.into_iter().map(|config| Relationship::new(config, now)).collect(),
            origins: ServiceOrigins::default(),
            service: false,
            maintenance: None,
            outputs: VecDeque::new(),
        }
    }

    /// The server runs. Once, before anything else.
    pub fn start(&mut self, now: Now) {
        for relationship in &mut self.list {
            relationship.handle(now, Event::Start);
        }
        self.settle(now);
    }

    /// Takes an event of the relationship `index`.
    pub fn handle(&mut self, now: Now, index: usize, event: Event) {
        if let Some(relationship) = self.list.get_mut(index) {
            relationship.handle(now, event);
        }
        self.release_orphans(now);
        self.settle(now);
    }

    /// Time has passed.
    pub fn timer(&mut self, now: Now) {
        if self.origins.expire(now) {
            self.hold_lost(now);
        }
        for relationship in &mut self.list {
            relationship.handle(now, Event::Timer);
        }
        self.release_orphans(now);
        self.settle(now);
    }

    /// When [`Relationships::timer`] is due at the latest.
    #[must_use]
    pub fn deadline(&self) -> Option<Mono> {
        self.list.iter().filter_map(Relationship::deadline).chain(self.origins.deadline()).min()
    }

    /// The next thing to do; call until there is nothing.
    pub fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Takes an HA command. It is answered by an [`Output`] that carries `token`, at once or later.
    pub fn command(&mut self, now: Now, token: CommandToken, request: HaRequest) {
        if self.list.is_empty() {
            let answer = Answer {
                result: RESULT_UNSUPPORTED,
                text: "high availability is not configured".to_owned(),
                arguments: None,
            };
            return self.outputs.push_back(Output::Answer { token, answer });
        }
        let start = match request.command {
            HaCommand::MaintenanceStart => Some(true),
            HaCommand::MaintenanceCancel => Some(false),
            _ => None,
        };
        if let Some(start) = start {
            self.maintain(now, token, start);
        } else {
            let name = match &request.command {
                HaCommand::Sync { source, .. } => Some(source.as_str()),
                _ => request.server_name.as_deref(),
            };
            match self.find(name) {
                Some(index) => {
                    self.list[index].handle(now, Event::Command { token, command: request.command });
                }
                None => {
                    let answer = Answer::error(format!("no peer is called '{}'", name.unwrap_or_default()));
                    self.outputs.push_back(Output::Answer { token, answer });
                }
            }
        }
        self.settle(now);
    }

    /// `dhcp-disable`.
    pub fn disable(&mut self, now: Now, request: ServiceRequest) -> Answer {
        if let Err(reason) = self.origins.disable(now, request.origin, request.max_period_s) {
            return Answer::error(reason);
        }
        self.settle(now);
        Answer::success(match request.max_period_s {
            Some(period) => format!("DHCPv4 service disabled for {period} seconds"),
            None => "DHCPv4 service disabled".to_owned(),
        })
    }

    /// `dhcp-enable`.
    pub fn enable(&mut self, now: Now, request: ServiceRequest) -> Answer {
        self.origins.enable(request.origin);
        self.settle(now);
        Answer::success("DHCP service successfully enabled")
    }

    /// Whether the DHCP service is on.
    #[must_use]
    pub const fn service(&self) -> bool {
        self.service
    }

    /// The relationship that has a peer of this name; without a name the first.
    #[must_use]
    pub fn find(&self, server_name: Option<&str>) -> Option<usize> {
        match server_name {
            None => (!self.list.is_empty()).then_some(0),
            Some(name) => {
                self.list.iter().position(|relationship| relationship.config().peer(name).is_some())
            }
        }
    }

    /// The relationships, in order.
    #[must_use]
    pub fn list(&self) -> &[Relationship] {
        &self.list
    }

    /// The relationship of this number, for its backlog.
    pub fn relationship_mut(&mut self, index: usize) -> Option<&mut Relationship> {
        self.list.get_mut(index)
    }

    /// The `high-availability` of `status-get`; none without HA.
    #[must_use]
    pub fn status(&self, now: Now) -> Option<Value> {
        (!self.list.is_empty()).then(|| {
            Value::Array(self.list.iter().map(|relationship| relationship.status(now).to_value()).collect())
        })
    }

    /// The `dhcp-state` of `status-get`.
    #[must_use]
    pub fn service_status(&self) -> Value {
        self.origins.status()
    }

    /// A partner that disabled this server to copy its leases, and then fell silent or gave the copy up without our hearing of it,
    /// will not enable it. Its `max-period` would, but clients would wait for that long. So an order that has not been repeated for
    /// `max-response-delay` lapses when no partner can be copying any more; one without a period stays. Should a copy go on all
    /// the same, it is made to begin anew if anything changed ([`Event::HoldLost`]). An origin does not tell which partner it is
    /// of: the rule asks all of them.
    fn release_orphans(&mut self, now: Now) {
        let active = || self.list.iter().filter(|relationship| relationship.partner().is_some());
        let silence_ms = active().map(|relationship| relationship.config().max_response_delay_ms).max();
        let nobody_copies = !active().any(|relationship| relationship.partner_may_copy(now));
        if let Some(silence_ms) = silence_ms.filter(|_| nobody_copies)
            && self.origins.release_partners(now, silence_ms)
        {
            self.hold_lost(now);
        }
    }

    /// An origin does not tell which partner it is of: all relationships take note.
    fn hold_lost(&mut self, now: Now) {
        for relationship in &mut self.list {
            relationship.handle(now, Event::HoldLost);
        }
    }

    fn maintain(&mut self, now: Now, token: CommandToken, start: bool) {
        if self.maintenance.is_some() {
            let answer = Answer::error("a maintenance command is being carried out already");
            return self.outputs.push_back(Output::Answer { token, answer });
        }
        self.maintenance = Some(Maintenance { token, start, at: 0 });
        self.ask_maintenance(now, 0, start);
    }

    fn ask_maintenance(&mut self, now: Now, index: usize, start: bool) {
        let command = if start { HaCommand::MaintenanceStart } else { HaCommand::MaintenanceCancel };
        self.list[index].handle(now, Event::Command { token: MAINTENANCE_TOKEN, command });
    }

    /// One relationship has answered: the next one, or the caller.
    fn maintained(&mut self, now: Now, answer: Answer) {
        let Some(run) = &mut self.maintenance else { return };
        let (start, next) = (run.start, run.at + 1);
        // A start ends at the first refusal; a cancellation goes over all.
        if next < self.list.len() && (!start || answer.result == RESULT_SUCCESS) {
            run.at = next;
            self.ask_maintenance(now, next, start);
        } else {
            let token = run.token;
            self.maintenance = None;
            self.outputs.push_back(Output::Answer { token, answer });
        }
    }

    /// Carries out what relationships want of each other and of the origins, until nothing is left.
    fn settle(&mut self, now: Now) {
        loop {
            let mut moved = false;
            for index in 0..self.list.len() {
                while let Some(action) = self.list[index].poll_action() {
                    moved = true;
                    match action {
                        Action::LocalService(on) => {
                            let origin = self.list[index].config().local_origin();
                            if on {
                                self.origins.enable(origin);
                            } else {
                                // There is always room: no more relationships than origins.
                                let _ = self.origins.disable(now, origin, None);
                            }
                        }
                        Action::ReleaseOrigin(origin) => self.origins.enable(origin),
                        Action::Answer { token: MAINTENANCE_TOKEN, answer } => self.maintained(now, answer),
                        other => self.outputs.push_back(Output::Of(index, other)),
                    }
                }
            }
            let on = self.origins.is_enabled();
            if on != self.service {
                moved = true;
                self.service = on;
                self.outputs.push_back(Output::Service(on));
            }
            for relationship in self.list.iter_mut().filter(|relationship| relationship.service() != on) {
                moved = true;
                relationship.handle(now, Event::Service(on));
            }
            if !moved {
                return;
            }
        }
    }
}
