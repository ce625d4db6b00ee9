//! Faults of a server, put in on purpose from outside of it: each must be noticed, or the checks are worth nothing.

use aplomado::exchange::stats::add;
use aplomado::ha::partner::SYNC_LEASES_COMMAND;
use serde_json::{Value, json};

use super::checks::is_update;
use super::server::Server;
use super::world::World;

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Defect {
    /// Updates are answered and not made.
    UpdatesAnsweredOnly,
    /// Of what a copier brings the first lease is answered and not made.
    BroughtAnsweredOnly,
    /// A page of leases lacks its last one.
    PageTooShort,
    /// A server takes for durable what is not on the disk.
    DiskNotAwaited,
    /// A server takes for answered what the partner has not heard.
    PartnerNotAwaited,
    /// A lease is counted twice.
    CountedTwice,
    /// A server answers clients of the other one's scope, too.
    ForeignScope,
}

impl Defect {
    pub(crate) const ALL: [Self; 7] = [
        Self::UpdatesAnsweredOnly,
        Self::BroughtAnsweredOnly,
        Self::PageTooShort,
        Self::DiskNotAwaited,
        Self::PartnerNotAwaited,
        Self::CountedTwice,
        Self::ForeignScope,
    ];

    /// What a server says of a command that it has not got, or what it gets instead.
    pub(super) fn on_request(self, body: &mut Vec<u8>) -> Option<Vec<u8>> {
        let done = || b"[ { \"result\": 0, \"text\": \"done\" } ]".to_vec();
        match self {
            Self::UpdatesAnsweredOnly if is_update(body) => Some(done()),
            Self::BroughtAnsweredOnly => {
                let mut command: Value = serde_json::from_slice(body).ok()?;
                if command["command"] != SYNC_LEASES_COMMAND {
                    return None;
                }
                let leases = command["arguments"]["leases"].as_array_mut()?;
                leases.remove(0);
                if leases.is_empty() {
                    return Some(done());
                }
                *body = command.to_string().into_bytes();
                None
            }
            _ => None,
        }
    }

    /// What a server says instead.
    pub(super) fn on_answer(self, body: &mut Vec<u8>) {
        if self != Self::PageTooShort {
            return;
        }
        let Ok(mut answer) = serde_json::from_slice::<Value>(body) else { return };
        let Some(leases) = answer.pointer_mut("/0/arguments/leases").and_then(Value::as_array_mut) else {
            return;
        };
        // One that is the last of its page: whoever asks goes on behind it.
        if leases.len() < 2 {
            return;
        }
        let place = leases.len() - 2;
        leases.remove(place);
        let count = leases.len();
        answer[0]["arguments"]["count"] = json!(count);
        *body = answer.to_string().into_bytes();
    }

    /// Before a shard's turn.
    pub(super) fn on_turn(self, server: &mut Server, shard: usize) {
        let appended = server.work.shards[shard].shard().leases.log.appended();
        match self {
            Self::DiskNotAwaited => server.desk.engine.shards[shard].durable.publish(appended),
            Self::PartnerNotAwaited => {
                for peer in &server.links.peers {
                    peer.mark(shard).publish(appended);
                }
            }
            Self::ForeignScope => {
                let mut parts = server.word();
                if parts.serves_primary != parts.serves_secondary {
                    (parts.serves_primary, parts.serves_secondary) = (true, true);
                    server.links.publish(aplomado::ha::view::ScopeWord::new(parts));
                }
            }
            _ => {}
        }
    }
}

impl World {
    /// A defect that happens once.
    pub(super) fn suffer(&self) {
        if self.defect == Some(Defect::CountedTwice)
            && let Some(server) = &self.nodes[0].server
        {
            let serving = server.desk.engine.serving();
            add(&serving.subnet_stats(aplomado::config::plan::SubnetIndex(0)).assigned, 1);
        }
    }
}
