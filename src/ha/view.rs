//! What shards see of a relationship: one word, published by the control thread, read once per batch.
//!
//! Promises: [`ScopeWord::decide`] takes no lock, does not allocate and does not panic; any thread may read a
//! [`ScopeView`], only the thread that drives the relationship publishes.
//!
//! ```text
//!  63   57 56 55             40 39             24 23              8 7 6 5 4 3 2 1 0
//! +-------+--+-----------------+-----------------+-----------------+-+-+-+-+-+-+-+-+
//! |stretch| G| peers sent to   | peers awaited   | contact epoch   |U|Q|V|A|S|P|B|H|
//! +-------+--+-----------------+-----------------+-----------------+-+-+-+-+-+-+-+-+
//!  H relationship present   B balanced by hash   P, S primary's, secondary's scope served
//!  A analyse what is out of scope   V service on   Q queue for the partner   U count as unsent
//!  G reclaim only what is in scope   stretch: a number for what is known on both sides
//! ```

use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam::utils::CachePadded;

/// Most peers of one relationship, this server included: a bit each in [`ScopeWord`].
pub const PEERS_MAX: usize = 16;

const PRESENT: u64 = 1;
const BALANCED: u64 = 1 << 1;
const SERVES_PRIMARY: u64 = 1 << 2;
const SERVES_SECONDARY: u64 = 1 << 3;
const ANALYSE: u64 = 1 << 4;
const SERVICE: u64 = 1 << 5;
const QUEUE: u64 = 1 << 6;
const COUNT_UNSENT: u64 = 1 << 7;
const GUARD_RECLAMATION: u64 = 1 << 56;
const EPOCH_SHIFT: u32 = 8;
const AWAITED_SHIFT: u32 = 24;
const SENT_SHIFT: u32 = 40;
const STRETCH_SHIFT: u32 = 57;

/// Whose half of the clients a query belongs to: the `HA_` class that it gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// The primary's; in hot-standby and passive-backup the only one.
    Primary,
    /// The secondary's.
    Secondary,
}

/// What HA says of one query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The scope whose class the query gets, served or not; none when there is nothing to hash.
    pub scope: Option<Scope>,
    /// Whether this server handles it. Otherwise it is dropped, not for us.
    pub in_scope: bool,
    /// Whether it is to be looked at for failure detection: it belongs to a partner that does not answer us.
    pub analyse: bool,
}

/// The parts of a [`ScopeWord`], by name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScopeParts {
    /// Clients are split by hash (load-balancing).
    pub balanced: bool,
    /// The primary's scope is served here.
    pub serves_primary: bool,
    /// The secondary's scope is served here.
    pub serves_secondary: bool,
    /// Queries out of scope are analysed (communication is interrupted).
    pub analyse: bool,
    /// The DHCP service is on, by all origins.
    pub service: bool,
    /// Lease updates for the partner go to the backlog.
    pub queue: bool,
    /// Changed transactions count as unsent to the partner.
    pub count_unsent: bool,
    /// Expired leases out of scope are left alone: the pair has ended (`terminated`), and the other server serves them.
    pub guard_reclamation: bool,
    /// Changes (wrapping, 7 bits) whenever answers begin to wait for the partner, as what was changed before may be unknown to it, and
    /// whenever clients of the partner begin to be served, as what it has done for them may be unknown here.
    pub stretch: u8,
    /// Changes (wrapping) with every contact: what shards know of unacked clients is void then.
    pub epoch: u16,
    /// Peers, by position, whose acknowledgement an answer waits for.
    pub awaited: u16,
    /// Peers, by position, to which lease updates are sent.
    pub sent: u16,
}

/// The word as read: everything a shard needs to know of one relationship.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScopeWord(u64);

impl ScopeWord {
    /// A server without HA: every query is its own, nobody is awaited.
    pub const ALONE: Self = Self(SERVICE);

    /// Packs the parts.
    #[must_use]
    pub fn new(parts: ScopeParts) -> Self {
        let mut word = PRESENT;
        for (set, bit) in [
            (parts.balanced, BALANCED),
            (parts.serves_primary, SERVES_PRIMARY),
            (parts.serves_secondary, SERVES_SECONDARY),
            (parts.analyse, ANALYSE),
            (parts.service, SERVICE),
            (parts.queue, QUEUE),
            (parts.count_unsent, COUNT_UNSENT),
            (parts.guard_reclamation, GUARD_RECLAMATION),
        ] {
            if set {
                word |= bit;
            }
        }
        word |= u64::from(parts.stretch) << STRETCH_SHIFT;
        word |= u64::from(parts.epoch) << EPOCH_SHIFT;
        word |= u64::from(parts.awaited) << AWAITED_SHIFT;
        word |= u64::from(parts.sent) << SENT_SHIFT;
        Self(word)
    }

    /// Unpacks the parts.
    #[must_use]
    pub const fn parts(self) -> ScopeParts {
        ScopeParts {
            balanced: self.0 & BALANCED != 0,
            serves_primary: self.0 & SERVES_PRIMARY != 0,
            serves_secondary: self.0 & SERVES_SECONDARY != 0,
            analyse: self.0 & ANALYSE != 0,
            service: self.0 & SERVICE != 0,
            queue: self.0 & QUEUE != 0,
            count_unsent: self.0 & COUNT_UNSENT != 0,
            guard_reclamation: self.0 & GUARD_RECLAMATION != 0,
            stretch: self.stretch(),
            epoch: field(self.0, EPOCH_SHIFT),
            awaited: self.awaited(),
            sent: field(self.0, SENT_SHIFT),
        }
    }

    /// Whether the DHCP service is on: otherwise a query is dropped before anything else is looked at.
    #[must_use]
    pub const fn service(self) -> bool {
        self.0 & SERVICE != 0
    }

    /// Peers, by position, whose acknowledgement an answer waits for now.
    #[must_use]
    pub const fn awaited(self) -> u16 {
        field(self.0, AWAITED_SHIFT)
    }

    /// The partner, when answers from before go on waiting for it: nobody is served here any more, and whoever serves these clients now must
    /// know of their leases before they do.
    #[must_use]
    pub const fn held(self, partner: Option<usize>) -> u16 {
        match partner {
            Some(partner)
                if self.0 & COUNT_UNSENT != 0
                    && self.0 & (SERVICE | SERVES_PRIMARY | SERVES_SECONDARY) == 0 =>
            {
                1 << partner
            }
            _ => 0,
        }
    }

    /// Whether a new stretch begins with `next`: from then on answers wait for the peer of this bit, or more clients are served while they
    /// wait for it.
    #[must_use]
    pub const fn begins_stretch(self, next: Self, partner: u16) -> bool {
        const SERVED: u64 = SERVES_PRIMARY | SERVES_SECONDARY;
        let more = next.0 & SERVED & !self.0 != 0;
        next.awaited() & partner != 0 && (more || self.awaited() & partner == 0)
    }

    /// Which stretch this is: see [`ScopeParts::stretch`].
    #[must_use]
    pub const fn stretch(self) -> u8 {
        (self.0 >> STRETCH_SHIFT) as u8
    }

    /// The contact epoch: see [`super::unacked::UnackedClients`].
    #[must_use]
    pub const fn epoch(self) -> u16 {
        field(self.0, EPOCH_SHIFT)
    }

    /// Whether an expired lease is reclaimed here; `bucket` is that of the lease's client identifier, else hardware address.
    #[must_use]
    pub const fn reclaims(self, bucket: Option<u8>) -> bool {
        self.0 & GUARD_RECLAMATION == 0 || self.decide(bucket, true).in_scope
    }

    /// What to do with a query. `bucket` is its RFC 3074 bucket, none without a usable key; `balanced` whether its message
    /// type is one that servers share out ([`is_balanced4`], [`is_balanced6`]).
    #[must_use]
    pub const fn decide(self, bucket: Option<u8>, balanced: bool) -> Decision {
        if self.0 & PRESENT == 0 {
            return Decision { scope: None, in_scope: true, analyse: false };
        }
        if !balanced {
            return Decision { scope: Some(Scope::Primary), in_scope: true, analyse: false };
        }
        let scope = if self.0 & BALANCED == 0 {
            Scope::Primary
        } else {
            match bucket {
                Some(bucket) if bucket % 2 == 0 => Scope::Primary,
                Some(_) => Scope::Secondary,
                // Nothing to hash: both servers drop it, in every state.
                None => return Decision { scope: None, in_scope: false, analyse: false },
            }
        };
        let served = match scope {
            Scope::Primary => SERVES_PRIMARY,
            Scope::Secondary => SERVES_SECONDARY,
        };
        let in_scope = self.0 & served != 0;
        Decision { scope: Some(scope), in_scope, analyse: !in_scope && self.0 & ANALYSE != 0 }
    }

    /// [`ScopeWord::decide`] for a DHCPv4 message type (option 53).
    #[must_use]
    pub const fn decide4(self, bucket: Option<u8>, message_type: u8) -> Decision {
        self.decide(bucket, is_balanced4(message_type))
    }
}

/// The 16 bits above `shift`.
#[expect(clippy::cast_possible_truncation, reason = "the upper bits belong to other fields")]
const fn field(word: u64, shift: u32) -> u16 {
    (word >> shift) as u16
}

/// Whether DHCPv4 messages of this type are shared out between servers: DISCOVER, REQUEST, DECLINE, RELEASE, INFORM.
#[must_use]
pub const fn is_balanced4(message_type: u8) -> bool {
    matches!(message_type, 1 | 3 | 4 | 7 | 8)
}

/// Whether DHCPv6 messages of this type are shared out: SOLICIT, REQUEST, CONFIRM, RENEW, REBIND, RELEASE, DECLINE.
#[must_use]
pub const fn is_balanced6(message_type: u8) -> bool {
    matches!(message_type, 1 | 3..=6 | 8 | 9)
}

/// The cell through which a [`ScopeWord`] reaches the shards.
#[derive(Debug)]
pub struct ScopeView(CachePadded<AtomicU64>);

impl Default for ScopeView {
    fn default() -> Self {
        Self::new(ScopeWord::ALONE)
    }
}

impl ScopeView {
    /// A cell that shows `word`.
    #[must_use]
    pub const fn new(word: ScopeWord) -> Self {
        Self(CachePadded::new(AtomicU64::new(word.0)))
    }

    /// Makes `word` visible.
    pub fn publish(&self, word: ScopeWord) {
        self.0.store(word.0, Ordering::Release);
    }

    /// The word as last published: read it once per batch.
    #[must_use]
    pub fn read(&self) -> ScopeWord {
        ScopeWord(self.0.load(Ordering::Acquire))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_survive_packing() {
        let parts = ScopeParts {
            balanced: true,
            serves_primary: false,
            serves_secondary: true,
            analyse: true,
            service: true,
            queue: true,
            count_unsent: false,
            guard_reclamation: true,
            stretch: 0x55,
            epoch: 0xabcd,
            awaited: 0x8001,
            sent: 0x4002,
        };
        assert_eq!(ScopeWord::new(parts).parts(), parts);
        assert_eq!(ScopeWord::new(ScopeParts::default()).parts(), ScopeParts::default());
    }

    #[test]
    fn only_a_server_with_a_partner_that_serves_nobody_keeps_answers_back() {
        let stopped = ScopeParts { count_unsent: true, ..ScopeParts::default() };
        assert_eq!([Some(1), None].map(|partner| ScopeWord::new(stopped).held(partner)), [2, 0]);
        for other in [
            ScopeParts { count_unsent: false, ..stopped },
            ScopeParts { service: true, ..stopped },
            ScopeParts { serves_primary: true, ..stopped },
            ScopeParts { serves_secondary: true, ..stopped },
        ] {
            assert_eq!(ScopeWord::new(other).held(Some(1)), 0, "{other:?}");
        }
        assert_eq!(ScopeWord::ALONE.held(Some(1)), 0);
    }

    #[test]
    fn server_without_ha_takes_everything() {
        let decision = ScopeView::default().read().decide4(None, 1);
        assert!(decision.in_scope && decision.scope.is_none());
        assert!(ScopeWord::ALONE.service());
        assert_eq!(ScopeWord::ALONE.awaited(), 0);
    }

    #[test]
    fn only_out_of_scope_queries_are_analysed() {
        let word = ScopeWord::new(ScopeParts {
            balanced: true,
            serves_primary: true,
            analyse: true,
            ..ScopeParts::default()
        });
        assert_eq!(
            word.decide4(Some(4), 1),
            Decision { scope: Some(Scope::Primary), in_scope: true, analyse: false }
        );
        assert_eq!(
            word.decide4(Some(5), 1),
            Decision { scope: Some(Scope::Secondary), in_scope: false, analyse: true }
        );
        // LEASEQUERY is not shared out.
        assert!(word.decide4(Some(5), 10).in_scope);
    }
}
