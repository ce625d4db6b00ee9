//! The HA machines driven from the control thread, one member for each relationship, and the threads that talk to the peers.
//!
//! [`Ha::step`] is called once per turn of the control loop: it takes in what workers and shards have to say, lets time pass for
//! the machine, and does what the machine wants. Nothing here waits: what takes time is a job of a worker ([`workers`]), a page of a
//! synchronisation is applied by the shards ([`copy`]), lease updates never pass through here ([`links`]).

pub mod bulk;
pub mod copy;
mod give;
pub mod links;
mod member;
pub mod queue;
pub mod setup;
pub mod source;
pub mod workers;

use std::net::Ipv4Addr;
use std::sync::atomic::Ordering;

use super::engine::Engine;
use crate::control::backend::Ticket as ApiTicket;
use crate::control::command::{Answer as ApiAnswer, Arguments, Command};
use crate::ha::command::Answer;
use crate::ha::command::request::{HaCommand, HaRequest};
use crate::ha::config::Parsed;
use crate::ha::posts::{PostMark, PostNumber};
use crate::ha::relationship::CommandToken;
use crate::ha::relationships::{Output, Relationships};
use crate::ha::service::ServiceRequest;
use crate::ha::settings::Settings;
use crate::ha::states::{Role as PeerRole, State};
use crate::ids::{Lsn, PeerId, ShardId};
use crate::lease::request::LeaseReply;
use crate::time::{Mono, Now};
use copy::COPY_NUMBERS;
use member::Member;

const HA: &str = "kea-dhcp4.ha-hooks";
/// Where the number of an order says which relationship copies.
const COPY_INDEX_SHIFT: u32 = 56;

/// What [`Ha::step`] leaves to the control loop.
#[derive(Debug, Default)]
pub struct Done {
    /// Commands that are answered.
    pub answers: Vec<(ApiTicket, ApiAnswer)>,
    /// Whether the DHCP service has gone on or off.
    pub service_changed: bool,
}

/// The relationships of this server, at work.
pub struct Ha {
    relationships: Relationships,
    members: Vec<Member>,
}

/// The number from which the orders of a relationship's synchronisation are counted, beside [`COPY_NUMBERS`].
fn copy_number(index: usize) -> u64 {
    u64::try_from(index).unwrap_or(0) << COPY_INDEX_SHIFT
}

impl Ha {
    /// Whether the DHCP service is on.
    #[must_use]
    pub const fn service(&self) -> bool {
        self.relationships.service()
    }

    /// The state of the first relationship.
    #[must_use]
    pub fn state(&self) -> State {
        self.relationships.list()[0].state()
    }

    /// Whether the change of the partner, by any peer's name of the relationship, goes first when two of one address have crossed: the
    /// primary's does.
    #[must_use]
    pub fn partner_wins(&self, server_name: Option<&str>) -> bool {
        let member = self.relationships.find(server_name).and_then(|index| self.members.get(index));
        member.is_some_and(|member| member.config.own().role != PeerRole::Primary)
    }

    /// Whether this server may know more than the one of this name does: it goes on without it, or has not copied from it since it last did,
    /// in this life or the one before.
    #[must_use]
    pub fn may_know_more(&self, server_name: Option<&str>) -> bool {
        use State::{PartnerDown, PartnerInMaintenance, Syncing, Waiting};
        let index = self.relationships.find(server_name);
        index.is_some_and(|index| {
            let state = self.relationships.list()[index].state();
            matches!(state, PartnerDown | PartnerInMaintenance | Waiting | Syncing)
        })
    }

    /// The number of the other server of this name, if it is a peer.
    #[must_use]
    pub fn peer_id(&self, name: &str) -> Option<PeerId> {
        self.members.iter().find_map(|member| Some(member.links.peer(member.config.peer(name)?)?.id()))
    }

    /// Up to where the numbered commands to this peer tell of nothing newer than what it is let copy from now on.
    #[must_use]
    pub fn post_mark(&self, name: &str) -> Option<PostMark> {
        self.members.iter().find_map(|member| {
            let peer = member.links.peer(member.config.peer(name)?)?;
            Some(peer.posts.lock().mark())
        })
    }

    /// Whether a command that has come tells of nothing newer than what was copied from its sender.
    #[must_use]
    pub fn has_copied(&self, post: PostNumber) -> bool {
        self.members.iter().any(|member| member.copied.is_some_and(|mark| mark.covers(post)))
    }

    /// Whether `tree` says of HA what this was started with.
    #[must_use]
    pub fn is_same(&self, parsed: Option<&Parsed>) -> bool {
        parsed.is_some_and(|parsed| {
            parsed.relationships.iter().eq(self.members.iter().map(|member| &member.config))
        })
    }

    /// What a partner is told of this server's settings.
    #[must_use]
    pub fn settings(&self, engine: &Engine) -> ApiAnswer {
        let list: Vec<Settings> = self.members.iter().map(|member| member.settings(engine)).collect();
        let mut answer = Answer::success("settings of the relationships");
        answer.arguments = Some(Settings::to_value(&list));
        api_answer(answer)
    }

    /// The list of `status-get`.
    #[must_use]
    pub fn status(&self, now: Now) -> Option<serde_json::Value> {
        self.relationships.status(now)
    }

    /// The origins that keep the service off.
    #[must_use]
    pub fn disabled_by(&self) -> Vec<u32> {
        let status = self.relationships.service_status();
        let mut origins = Vec::new();
        if status.get("disabled-by-user").and_then(serde_json::Value::as_bool) == Some(true) {
            origins.push(crate::ha::service::ORIGIN_USER);
        }
        for key in ["disabled-by-local-command", "disabled-by-remote-command", "disabled-by-db-connection"] {
            let list = status.get(key).and_then(serde_json::Value::as_array);
            let numbers = list.into_iter().flatten().filter_map(serde_json::Value::as_u64);
            origins.extend(numbers.filter_map(|number| u32::try_from(number).ok()));
        }
        origins
    }

    /// When [`Self::step`] is due at the latest.
    #[must_use]
    pub fn deadline(&self) -> Option<Mono> {
        self.relationships.deadline()
    }

    /// `dhcp-disable`.
    pub fn disable(&mut self, now: Now, origin: u32, max_period_s: Option<u64>) {
        // A period of 0 is refused before it comes here.
        let _ = self.relationships.disable(now, ServiceRequest { origin, max_period_s });
    }

    /// `dhcp-enable`.
    pub fn enable(&mut self, now: Now, origin: u32) {
        let _ = self.relationships.enable(now, ServiceRequest { origin, max_period_s: None });
    }

    /// An HA command; true when it is one. Its answer comes with a later [`Done`].
    pub fn command(&mut self, now: Now, ticket: ApiTicket, command: &Command) -> Option<ApiAnswer> {
        let arguments = command.arguments();
        match HaRequest::parse(&command.name, arguments.as_ref()) {
            None => Some(ApiAnswer::unsupported(&command.name)),
            Some(Err(answer)) => Some(api_answer(answer)),
            Some(Ok(request)) => {
                let member = self.relationships.find(request.server_name.as_deref());
                if let (HaCommand::Heartbeat, Some(index)) = (&request.command, member) {
                    self.members[index].heard_heartbeat(request.server_name.is_some());
                }
                self.relationships.command(now, CommandToken(ticket.0), request);
                None
            }
        }
    }

    /// Whether leases are copied from a peer.
    #[must_use]
    pub fn is_copying(&self) -> bool {
        self.members.iter().any(|member| member.copy.is_some())
    }

    /// A shard's answer to an order of the synchronisation.
    pub fn copied(&mut self, number: u64, reply: &LeaseReply, shard: ShardId, lsn: Lsn) {
        let index = usize::try_from((number & !COPY_NUMBERS) >> COPY_INDEX_SHIFT).unwrap_or(usize::MAX);
        if let Some(copy) = self.members.get_mut(index).and_then(|member| member.copy.as_mut()) {
            copy.put(number, reply, shard, lsn);
        }
    }

    /// A peer's update changes the lease of `address`: what a copy has asked for may be older.
    pub fn touch(&mut self, address: Ipv4Addr) {
        for copy in self.members.iter_mut().filter_map(|member| member.copy.as_mut()) {
            copy.touch(address);
        }
    }

    /// Whether this server has started with leases.
    pub fn started(&mut self, with_leases: bool) {
        for index in 0..self.members.len() {
            if let Some(relationship) = self.relationships.relationship_mut(index) {
                relationship.started(with_leases);
            }
        }
    }

    /// A partner begins to copy the leases of this server, or has done so.
    pub fn note_copier(&mut self, name: &str, copies: bool) {
        for member in &mut self.members {
            if member.config.partner().is_some_and(|partner| member.config.peers[partner].name == name) {
                member.is_copied = copies;
            }
        }
    }

    /// One turn.
    pub fn step(&mut self, now: Now, engine: &Engine) -> Done {
        let mut done = Done::default();
        let Self { relationships, members } = self;
        for member in &mut *members {
            member.take_in(relationships, engine, now);
        }
        if relationships.deadline().is_some_and(|at| at <= now.mono) {
            relationships.timer(now);
        }
        loop {
            for member in &mut *members {
                member.step_copy(relationships, now, engine);
                member.step_flush(relationships, now);
            }
            let mut moved = false;
            while let Some(output) = relationships.poll() {
                moved = true;
                match output {
                    Output::Answer { token, answer } => {
                        done.answers.push((ApiTicket(token.0), api_answer(answer)));
                    }
                    Output::Service(_) => done.service_changed = true,
                    Output::Of(index, action) => {
                        if let Some(member) = members.get_mut(index) {
                            member.act(relationships, engine, now, action, &mut done);
                        }
                    }
                }
            }
            if !moved {
                break;
            }
        }
        for member in members {
            let relationship = &relationships.list()[member.index];
            member.links.remembers.store(relationship.remembers_rejected(), Ordering::Relaxed);
            member.links.want(relationship.wanted());
            member.mind_owed(relationship);
            member.tell_lost();
        }
        done
    }
}

/// An answer as the control API gives it.
#[must_use]
pub fn api_answer(answer: Answer) -> ApiAnswer {
    let arguments = answer.arguments.map_or(Arguments::None, Arguments::Value);
    ApiAnswer { result: answer.result, text: answer.text, arguments }
}
