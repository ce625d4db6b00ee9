//! The options of answers that a shard has written before: choosing them again for the next client would give the same.
//!
//! A key is everything that the choice depends on, compared octet by octet; the plan's number is part of it, so that a new plan
//! finds nothing of the old one's. Answers whose options depend on more than a key holds have no key.
//!
//! With many subnets an answer lies far from the processor. Which one it will be is guessed when a batch comes in, from the relay and
//! the message type of each query and what the last such query got, and loaded while other queries are looked at.
//!
//! Promises: the memory is there from the start, a place holds the answer that was written last, nothing is allocated or freed.

use std::net::Ipv4Addr;

use super::answer::Verdict;
use crate::config::plan::{BootView, HostIndex, PoolIndex, SubnetIndex};
use crate::ids::ClassId;
use crate::lease::table::prefetch;
use crate::wire::codes::{MessageType, option};
use crate::wire::query::Query;
use crate::wire::template::{OptionTemplate, Varying};

/// Places at least, and at most: each is some 600 octets.
const PLACES_MIN: usize = 256;
const PLACES_MAX: usize = 65_536;
/// With fewer places all of them stay near.
const GUESSED_MIN: usize = 1024;
/// Longest parameter request list that a key holds.
const REQUESTED_MAX: usize = 64;
/// Most classes that a key holds.
const CLASSES_MAX: usize = 12;

/// What the options of an answer depend on.
#[derive(Clone, Copy, Debug)]
pub(super) struct AnswerKey<'a> {
    scope: Scope,
    classes: &'a [ClassId],
    requested: &'a [u8],
}

/// The part of a key that has a fixed size: two words, as they are compared and hashed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Scope {
    /// Subnet and pool.
    place: u64,
    /// Reservation, message type, which of the varying options are there.
    shape: u64,
}

impl Scope {
    /// No position is so high: `u32::MAX` is the bound of their count.
    fn new(
        kind: MessageType,
        subnet: SubnetIndex,
        pool: Option<PoolIndex>,
        host: Option<HostIndex>,
        presence: u8,
    ) -> Self {
        let host = host.map_or(u32::MAX, |host| host.0);
        Self {
            place: u64::from(subnet.0) << 32 | u64::from(pool.map_or(u32::MAX, |pool| pool.0)),
            shape: u64::from(host) << 16 | u64::from(kind.number()) << 8 | u64::from(presence),
        }
    }
}

impl<'a> AnswerKey<'a> {
    /// The key of an answer; nothing when its options depend on more than that.
    pub(super) fn new(
        query: &Query<'a>,
        verdict: &Verdict<'_>,
        classes: &'a [ClassId],
        varying: &Varying<'_>,
    ) -> Option<Self> {
        let requested = query.parameter_request_list();
        let is_plain = verdict.lease.is_some()
            && requested.len() <= REQUESTED_MAX
            && classes.len() <= CLASSES_MAX
            && ![option::SUBNET_SELECTION, option::VIVCO, option::VIVSO]
                .iter()
                .any(|code| query.options.contains(*code))
            && varying.is_in_one_piece();
        let scope = Scope::new(verdict.kind, verdict.subnet?, verdict.pool, verdict.host, varying.presence());
        is_plain.then_some(Self { scope, classes, requested })
    }

    /// Spreads keys over places. Clients choose some of it: what collides is only slower.
    fn hash(&self) -> u64 {
        const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
        let mix = |hash: u64, word: u64| (hash ^ word).wrapping_mul(ODD).rotate_left(29);
        let mut hash = mix(mix(0, self.scope.place), self.scope.shape);
        for class in self.classes {
            hash = mix(hash, u64::from(class.0));
        }
        let (words, rest) = self.requested.as_chunks::<8>();
        for word in words {
            hash = mix(hash, u64::from_be_bytes(*word));
        }
        for octet in rest {
            hash = mix(hash, u64::from(*octet));
        }
        hash ^ hash >> 32
    }
}

/// An answer that was written before. What is always read stands first and together.
#[derive(Clone, Debug)]
#[repr(C, align(64))]
pub(super) struct KnownAnswer {
    /// Number of the plan that it was written from; 0 for none.
    plan: u64,
    scope: Scope,
    class_count: u8,
    requested_len: u8,
    /// The server identifier that the configuration says.
    pub(super) server_id: Option<[u8; 4]>,
    /// `siaddr`, if there is one.
    pub(super) next_server: Option<Ipv4Addr>,
    /// Whether `sname` or `file` say something: then they are looked up again.
    pub(super) has_boot_names: bool,
    classes: [ClassId; CLASSES_MAX],
    requested: [u8; REQUESTED_MAX],
    /// The options.
    pub(super) options: OptionTemplate,
}

impl KnownAnswer {
    const NONE: Self = Self {
        plan: 0,
        scope: Scope { place: 0, shape: 0 },
        class_count: 0,
        requested_len: 0,
        server_id: None,
        next_server: None,
        has_boot_names: false,
        classes: [ClassId(0); CLASSES_MAX],
        requested: [0; REQUESTED_MAX],
        options: OptionTemplate::EMPTY,
    };

    fn prefetch(&self) {
        prefetch(self);
        prefetch(&self.requested);
        prefetch(&self.options);
        if let Some(octet) = self.options.octet(64) {
            prefetch(octet);
        }
    }

    fn is(&self, plan: u64, key: &AnswerKey<'_>) -> bool {
        self.plan == plan
            && self.scope == key.scope
            && self.classes[..usize::from(self.class_count)] == *key.classes
            && self.requested[..usize::from(self.requested_len)] == *key.requested
    }
}

/// All answers that a shard remembers.
pub(super) struct KnownAnswers {
    plan: u64,
    places: Box<[KnownAnswer]>,
    /// By relay and message type, the place of the last answer; empty where guessing is not worth it.
    guesses: Box<[u32]>,
}

/// Where the guess of a query stands.
fn guess_of(query: &Query<'_>, guesses: &[u32]) -> usize {
    let kind = query.message_type.map_or(0, |kind| u64::from(kind.number()));
    let from = u64::from(query.packet.giaddr().to_bits()) << 16 | u64::from(query.interface.0) << 4;
    let mixed = (from ^ kind).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    usize::try_from(mixed >> 32).unwrap_or_default() & guesses.len().wrapping_sub(1)
}

impl std::fmt::Debug for KnownAnswers {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "KnownAnswers({} places)", self.places.len())
    }
}

impl KnownAnswers {
    /// Room for a plan of `subnet_count` subnets. Allocates.
    pub(super) fn new(subnet_count: usize) -> Self {
        let count = subnet_count.saturating_mul(4).next_power_of_two().clamp(PLACES_MIN, PLACES_MAX);
        let guesses = if count < GUESSED_MIN { 0 } else { count };
        Self {
            plan: 0,
            places: vec![KnownAnswer::NONE; count].into_boxed_slice(),
            guesses: vec![0; guesses].into_boxed_slice(),
        }
    }

    /// From now on answers are written from the plan with this number, which no other plan of this shard has; not 0.
    pub(super) const fn serve(&mut self, plan: u64) {
        self.plan = plan;
    }

    fn place(&self, key: &AnswerKey<'_>) -> usize {
        usize::try_from(key.hash()).unwrap_or_default() & (self.places.len() - 1)
    }

    /// Starts loading the answer that `query` most likely gets.
    pub(super) fn prefetch(&self, query: &Query<'_>) {
        if let Some(place) = self.guesses.get(guess_of(query, &self.guesses))
            && let Some(known) = usize::try_from(*place).ok().and_then(|place| self.places.get(place))
        {
            known.prefetch();
        }
    }

    /// The answer with this key.
    pub(super) fn find(&mut self, query: &Query<'_>, key: &AnswerKey<'_>) -> Option<&KnownAnswer> {
        let place = self.place(key);
        let guess = guess_of(query, &self.guesses);
        if let Some(guess) = self.guesses.get_mut(guess) {
            *guess = u32::try_from(place).unwrap_or_default();
        }
        self.places.get(place).filter(|known| known.is(self.plan, key))
    }

    /// Remembers an answer: its encoded `options` with what varies in them.
    pub(super) fn learn(
        &mut self,
        key: &AnswerKey<'_>,
        options: &[u8],
        varying: &Varying<'_>,
        server_id: Option<[u8; 4]>,
        boot: &BootView<'_>,
    ) {
        let (place, plan) = (self.place(key), self.plan);
        let Some(known) = self.places.get_mut(place) else { return };
        known.plan = 0;
        let (Some(classes), Some(requested)) =
            (known.classes.get_mut(..key.classes.len()), known.requested.get_mut(..key.requested.len()))
        else {
            return;
        };
        classes.copy_from_slice(key.classes);
        requested.copy_from_slice(key.requested);
        known.class_count = u8::try_from(key.classes.len()).unwrap_or_default();
        known.requested_len = u8::try_from(key.requested.len()).unwrap_or_default();
        known.scope = key.scope;
        known.server_id = server_id;
        known.next_server = boot.next_server;
        known.has_boot_names = boot.server_hostname.is_some() || boot.boot_file_name.is_some();
        if known.options.learn(options, varying) {
            known.plan = plan;
        }
    }
}
