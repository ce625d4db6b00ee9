//! A shard's part of the HA relationships of its server: what they say of queries and leases, and who is awaited.
//!
//! With one relationship a query is judged before anything else is looked at. With several (a hub) each subnet belongs to one of them, so
//! that a query is judged once its subnet is known, and the classes of the scopes come too late for the choice of the subnet.
//!
//! Promises: no allocation after construction, no lock; words are read once per turn.

use std::cell::Cell;
use std::sync::Arc;

use crossbeam::channel::Receiver;

use super::ha::links::{Links, Refusal};
use crate::classify::bucket::bucket;
use crate::exchange::reclaim::Reclaims;
use crate::exchange::serving::Serving;
use crate::exchange::{RelationshipIndex, SubnetScope};
use crate::ha::unacked::{UnackedClients, age4_ms};
use crate::ha::view::{Decision, Scope, ScopeWord, is_balanced4};
use crate::ids::{ClassId, PeerId, SubnetId};
use crate::park::Gate;
use crate::wire::query::Query;

/// A shard's part of one relationship.
pub struct HaPart {
    /// What it shares with the threads that talk to the peers.
    pub links: Arc<Links>,
    /// Updates that a peer did not take.
    pub refused: Receiver<Refusal>,
    /// Clients that a silent partner should have answered.
    pub unacked: UnackedClients,
}

/// A shard's part of all relationships; without HA of none.
pub struct Pairs {
    parts: Vec<HaPart>,
    /// What each relationship says in this turn, and what it said in the last release.
    words: Vec<ScopeWord>,
    released: Vec<ScopeWord>,
    /// What replies wait for in each relationship.
    gates: Vec<Gate>,
    /// All of them together.
    gate: Gate,
    /// What new replies wait for: not that for which older ones still do.
    open: Gate,
    /// Whether replies of a relationship with a partner do not wait for it.
    alone: bool,
}

impl Pairs {
    /// The parts, by number of the relationship. Allocates.
    #[must_use]
    pub fn new(parts: Vec<HaPart>) -> Self {
        let words = vec![ScopeWord::ALONE; parts.len()];
        Self {
            released: words.clone(),
            gates: vec![Gate::DISK; parts.len()],
            gate: Gate::DISK,
            open: Gate::DISK,
            alone: false,
            words,
            parts,
        }
    }

    /// Reads the words: once per turn. When any has changed, `reclaims` takes in whose leases are reclaimed here. True when replies do not
    /// wait for a partner, or have begun to since the last turn, even if they did not wait for it in between: of leases from before that
    /// the partner may know something newer.
    #[must_use]
    pub fn refresh(&mut self, reclaims: &mut [Reclaims]) -> bool {
        let mut begins = false;
        for (index, part) in self.parts.iter().enumerate() {
            let word = part.links.scope.read();
            if word == self.words[index] {
                continue;
            }
            begins |= word.stretch() != self.words[index].stretch();
            self.words[index] = word;
            let awaited = word.awaited() | word.held(part.links.partner);
            self.gates[index] = part.links.peers_of(awaited).fold(Gate::DISK, Gate::and_peer);
            self.gate = self.gates.iter().fold(Gate::DISK, |all, gate| all.and(*gate));
            let peers = self
                .parts
                .iter()
                .zip(&self.words)
                .flat_map(|(part, word)| part.links.peers_of(word.awaited()));
            self.open = peers.fold(Gate::DISK, Gate::and_peer);
            if let Some(reclaims) = reclaims.get_mut(index) {
                let [even, odd, nobody] = [Some(0), Some(1), None].map(|bucket| word.reclaims(bucket));
                *reclaims = Reclaims { even, odd, nobody };
            }
            self.alone = self.parts.iter().zip(&self.words).any(|(part, word)| {
                part.links.partner.is_some_and(|partner| word.awaited() & (1 << partner) == 0)
            });
        }
        begins || self.alone
    }

    /// Whether other servers serve all clients, and none of their queries is looked at for its age either.
    #[must_use]
    pub fn serve_nobody(&self) -> bool {
        let serves = |word: &ScopeWord| {
            let parts = word.parts();
            *word == ScopeWord::ALONE || parts.serves_primary || parts.serves_secondary || parts.analyse
        };
        !self.words.is_empty() && !self.words.iter().any(serves)
    }

    /// Everything that any reply waits for.
    #[must_use]
    pub const fn gate(&self) -> Gate {
        self.gate
    }

    /// Everything that new replies wait for.
    #[must_use]
    pub const fn open_gate(&self) -> Gate {
        self.open
    }

    /// What a reply about a lease of this subnet waits for.
    #[must_use]
    pub fn gate_of(&self, serving: &Serving, subnet: impl FnOnce() -> Option<SubnetId>) -> Gate {
        if !self.are_several() {
            return self.gate;
        }
        let relationship = subnet().and_then(|subnet| serving.relationship_of_id(subnet));
        relationship.and_then(|index| self.gates.get(usize::from(index.0)).copied()).unwrap_or(Gate::DISK)
    }

    /// Whether there is no HA.
    #[must_use]
    pub const fn are_none(&self) -> bool {
        self.parts.is_empty()
    }

    /// Whether a query must have its subnet before it can be judged.
    #[must_use]
    pub const fn are_several(&self) -> bool {
        self.parts.len() > 1
    }

    /// Whose half of the clients a query belongs to, before anything else is known of it.
    #[must_use]
    #[inline(always)]
    pub fn decide(&self, query: &Query<'_>) -> Decision {
        match &*self.words {
            [word] => scope_of(*word, query),
            // Nobody, or nobody yet.
            _ => ScopeWord::ALONE.decide(None, false),
        }
    }

    /// What judges a query once its subnet is known; nothing with one relationship.
    #[must_use]
    pub fn late<'a>(&'a self, serving: &'a Serving) -> Option<LateScope<'a>> {
        self.are_several().then(|| LateScope { words: &self.words, serving, unanswered: Cell::new(None) })
    }

    /// Takes in a query that the partner of a relationship should answer, and perhaps does not.
    pub fn analyse(&mut self, relationship: RelationshipIndex, query: &Query<'_>) {
        let Some(part) = self.parts.get_mut(usize::from(relationship.0)) else { return };
        let epoch = self.words[usize::from(relationship.0)].epoch();
        let client =
            part.links.fingerprint(query.hw_addr().as_bytes(), query.client_id().unwrap_or_default());
        part.unacked.analyse(epoch, Some(client), Some(age4_ms(query.packet.secs())));
    }

    /// The next update that a peer did not take.
    #[must_use]
    pub fn next_refusal(&self) -> Option<Refusal> {
        self.parts.iter().find_map(|part| part.refused.try_recv().ok())
    }

    /// Whether there is a reason for another turn.
    #[must_use]
    pub fn has_news(&self) -> bool {
        let mut parts = self.parts.iter().zip(&self.words);
        parts.any(|(part, word)| !part.refused.is_empty() || part.links.scope.read() != *word)
    }

    /// Whether the words have changed since this was asked last: what replies wait for may be another.
    pub fn take_change(&mut self) -> bool {
        let changed = self.words != self.released;
        self.released.copy_from_slice(&self.words);
        changed
    }
}

/// Judges a query by the relationship of its subnet.
#[derive(Debug)]
pub struct LateScope<'a> {
    words: &'a [ScopeWord],
    serving: &'a Serving,
    /// The relationship whose partner should answer the query, and perhaps does not.
    unanswered: Cell<Option<RelationshipIndex>>,
}

impl LateScope<'_> {
    /// The relationship whose partner should answer the query, when that is worth a look.
    #[must_use]
    pub fn unanswered(&self) -> Option<RelationshipIndex> {
        self.unanswered.get()
    }
}

impl SubnetScope for LateScope<'_> {
    fn classes(&self, relationship: Option<RelationshipIndex>) -> Option<&[ClassId]> {
        let index = relationship?;
        // Only hot-standby is served by a hub: there is nothing to share out.
        let decision = self.words.get(usize::from(index.0))?.decide(None, true);
        if decision.analyse {
            self.unanswered.set(relationship);
        }
        decision.in_scope.then(|| classes_of(self.serving, index, decision))
    }
}

fn scope_of(word: ScopeWord, query: &Query<'_>) -> Decision {
    let kind = query.message_type.map_or(0, |kind| kind.number());
    let balanced = is_balanced4(kind);
    let bucket = if balanced { query.bucket_key().map(|key| bucket(key.as_bytes())) } else { None };
    word.decide(bucket, balanced)
}

/// The classes that go with a decision.
#[must_use]
pub fn classes_of(serving: &Serving, relationship: RelationshipIndex, decision: Decision) -> &[ClassId] {
    match decision.scope {
        Some(scope) => serving.scope_classes(relationship, matches!(scope, Scope::Secondary)),
        None => &[],
    }
}

/// The numbers of peers for the gates: those of all relationships in one row.
#[must_use]
pub fn peer_id(first: u8, position: usize) -> PeerId {
    PeerId(u8::try_from(position).unwrap_or(u8::MAX).saturating_add(first))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ha::view::ScopeParts;

    #[test]
    fn only_a_server_that_neither_serves_nor_looks_leaves_clients_to_others() {
        let nobody = ScopeParts { service: true, sent: 2, ..ScopeParts::default() };
        let pairs = |words: &[ScopeWord]| Pairs { words: words.to_vec(), ..Pairs::new(Vec::new()) };
        let word = ScopeWord::new;
        assert!(pairs(&[word(nobody)]).serve_nobody());
        assert!(pairs(&[word(nobody), word(nobody)]).serve_nobody());
        for serving in [
            word(ScopeParts { serves_primary: true, ..nobody }),
            word(ScopeParts { serves_secondary: true, balanced: true, ..nobody }),
            word(ScopeParts { analyse: true, ..nobody }),
            ScopeWord::ALONE,
        ] {
            assert!(!pairs(&[word(nobody), serving]).serve_nobody());
        }
        assert!(!pairs(&[]).serve_nobody(), "without HA all clients are its own");
    }
}
