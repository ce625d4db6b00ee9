//! The options of answers that a shard has written before: choosing them again for the next client would give the same.
//!
//! A key is everything that the choice depends on, compared octet by octet; the plan's number is part of it, so that a new plan
//! finds nothing of the old one's. Answers whose options depend on more than a key holds have no key.
//!
//! With many subnets an answer lies far from the processor. Answers of one kind lie side by side by subnet, so that the answer of a
//! query whose subnet is known can be loaded while other queries are looked at.
//!
//! Promises: the memory is there from the start, a place holds the answer that was written last, nothing is allocated or freed.

use std::net::Ipv4Addr;

use super::answer::Verdict;
use crate::config::plan::{BootView, HostIndex, PoolIndex, SubnetIndex};
use crate::ids::ClassId;
use crate::memory::{in_large_pages, prefetch};
use crate::wire::codes::{MessageType, option};
use crate::wire::query::Query;
use crate::wire::template::{OptionTemplate, Varying};

/// Places at least, and at most: each is some 600 octets.
const PLACES_MIN: usize = 256;
const PLACES_MAX: usize = 65_536;
/// Places that an answer may be in.
const WAYS_MAX: usize = 4;
/// Longest parameter request list that a key holds.
const REQUESTED_MAX: usize = 64;
/// Most classes that a key holds.
const CLASSES_MAX: usize = 12;
/// Octets of both.
const LISTS_BYTES: usize = REQUESTED_MAX + 2 * CLASSES_MAX;

/// What the options of an answer depend on.
#[derive(Clone, Copy, Debug)]
pub(super) struct AnswerKey<'a> {
    scope: Scope,
    subnet: SubnetIndex,
    classes: &'a [ClassId],
    requested: &'a [u8],
}

/// The classes and the parameter request list of an answer, packed: a usual one is in the line that the answer begins in.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
struct Lists {
    class_count: u8,
    requested_len: u8,
    octets: [u8; LISTS_BYTES],
}

impl Lists {
    const NONE: Self = Self { class_count: 0, requested_len: 0, octets: [0; LISTS_BYTES] };

    /// Those of a key, which are not too many.
    fn of(key: &AnswerKey<'_>) -> Self {
        let mut lists = Self::NONE;
        let mut octets = lists.octets.iter_mut();
        let of_classes = key.classes.iter().flat_map(|class| class.0.to_le_bytes());
        octets
            .by_ref()
            .zip(of_classes.chain(key.requested.iter().copied()))
            .for_each(|(to, from)| *to = from);
        lists.class_count = u8::try_from(key.classes.len()).unwrap_or(u8::MAX);
        lists.requested_len = u8::try_from(key.requested.len()).unwrap_or(u8::MAX);
        lists
    }

    fn are(&self, key: &AnswerKey<'_>) -> bool {
        if usize::from(self.class_count) != key.classes.len()
            || usize::from(self.requested_len) != key.requested.len()
        {
            return false;
        }
        let Some((classes, rest)) = self.octets.split_at_checked(2 * key.classes.len()) else { return false };
        let mut pairs = classes.as_chunks::<2>().0.iter().zip(key.classes);
        pairs.all(|(octets, class)| u16::from_le_bytes(*octets) == class.0)
            && rest.get(..key.requested.len()) == Some(key.requested)
    }
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
        let subnet = verdict.subnet?;
        let requested = query.parameter_request_list();
        let is_plain = verdict.lease.is_some()
            && requested.len() <= REQUESTED_MAX
            && classes.len() <= CLASSES_MAX
            && ![option::SUBNET_SELECTION, option::VIVCO, option::VIVSO]
                .iter()
                .any(|code| query.options.contains(*code))
            && varying.is_in_one_piece();
        let scope = Scope::new(verdict.kind, subnet, verdict.pool, verdict.host, varying.presence());
        is_plain.then_some(Self { scope, subnet, classes, requested })
    }

    /// Spreads keys over rows. Clients choose some of it: what collides is only slower.
    fn hash(&self) -> u64 {
        const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
        let mix = |hash: u64, word: u64| (hash ^ word).wrapping_mul(ODD).rotate_left(29);
        let of_classes = self.classes.iter().map(|class| u64::from(class.0));
        let of_requested = self.requested.iter().map(|code| u64::from(*code));
        mix(of_classes.chain(of_requested).fold(mix(0, self.scope.shape), mix), 0) >> 32
    }
}

/// An answer that was written before. What is always read stands first and together.
#[derive(Clone, Debug)]
#[repr(C, align(64))]
pub(super) struct KnownAnswer {
    /// Number of the plan that it was written from; 0 for none.
    plan: u64,
    scope: Scope,
    /// The server identifier that the configuration says.
    pub(super) server_id: Option<[u8; 4]>,
    /// `siaddr`, if there is one.
    pub(super) next_server: Option<Ipv4Addr>,
    /// Whether `sname` or `file` say something: then they are looked up again.
    pub(super) has_boot_names: bool,
    lists: Lists,
    /// The options.
    pub(super) options: OptionTemplate,
}

const _: () = assert!(
    size_of::<KnownAnswer>() == 576 && std::mem::offset_of!(KnownAnswer, options) == 128,
    "a usual answer is in three cache lines: the first, and those that the options begin in"
);

impl KnownAnswer {
    const NONE: Self = Self {
        plan: 0,
        scope: Scope { place: 0, shape: 0 },
        server_id: None,
        next_server: None,
        has_boot_names: false,
        lists: Lists::NONE,
        options: OptionTemplate::EMPTY,
    };

    fn prefetch(&self) {
        prefetch(self);
        prefetch(&self.options);
        if let Some(octet) = self.options.octet(64) {
            prefetch(octet);
        }
    }

    fn is(&self, plan: u64, key: &AnswerKey<'_>) -> bool {
        self.plan == plan && self.scope == key.scope && self.lists.are(key)
    }
}

/// All answers that a shard remembers: as many rows as fit, each with a place for every subnet (or for some of the same number
/// modulo the length of a row, when there are very many).
pub(super) struct KnownAnswers {
    plan: u64,
    places: Box<[KnownAnswer]>,
    /// Length of a row, and how many there are: powers of two.
    row: usize,
    rows: usize,
    /// By message type of the query, the row that its last answer was in.
    last: [usize; KINDS],
}

/// Message types whose answers are told apart; of those above, the last counts for all.
const KINDS: usize = 4;

/// Where the last row of a query like this is noted.
fn kind_of(query: &Query<'_>) -> usize {
    query.message_type.map_or(0, |kind| usize::from(kind.number())) % KINDS
}

impl std::fmt::Debug for KnownAnswers {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "KnownAnswers({} places)", self.places.len())
    }
}

impl KnownAnswers {
    /// Room for a plan of `subnet_count` subnets. Allocates.
    pub(super) fn new(subnet_count: usize) -> Self {
        let count = subnet_count.saturating_mul(WAYS_MAX).next_power_of_two().clamp(PLACES_MIN, PLACES_MAX);
        let row = subnet_count.next_power_of_two().min(count / WAYS_MAX);
        let mut places = in_large_pages(Vec::with_capacity(count));
        places.resize(count, KnownAnswer::NONE);
        Self { plan: 0, places: places.into_boxed_slice(), row, rows: count / row, last: [0; KINDS] }
    }

    /// From now on answers are written from the plan with this number, which no other plan of this shard has; not 0.
    pub(super) const fn serve(&mut self, plan: u64) {
        self.plan = plan;
    }

    /// The place of a subnet in a row.
    fn place(&self, row: usize, subnet: SubnetIndex) -> usize {
        (row & (self.rows - 1)) * self.row + (subnet.0 as usize & (self.row - 1))
    }

    /// The rows that a key may be in, the likeliest first.
    fn rows_of(&self, key: &AnswerKey<'_>) -> impl Iterator<Item = usize> + use<> {
        let first = usize::try_from(key.hash()).unwrap_or_default() & (self.rows - 1);
        first..first + WAYS_MAX
    }

    /// Starts loading the answer that `query` most likely gets, if it is one of `subnet`.
    pub(super) fn prefetch(&self, query: &Query<'_>, subnet: SubnetIndex) {
        if let Some(known) = self.places.get(self.place(self.last[kind_of(query)], subnet)) {
            known.prefetch();
        }
    }

    /// The answer with this key.
    pub(super) fn find(&mut self, query: &Query<'_>, key: &AnswerKey<'_>) -> Option<&KnownAnswer> {
        // Mostly the one that a query like this got last, in whatever subnet: that needs no hash.
        let kind = kind_of(query);
        let is_in = |row: usize| {
            self.places.get(self.place(row, key.subnet)).is_some_and(|known| known.is(self.plan, key))
        };
        let last = self.last[kind];
        if !is_in(last) {
            self.last[kind] = self.rows_of(key).find(|row| is_in(*row))?;
        }
        self.places.get(self.place(self.last[kind], key.subnet))
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
        let plan = self.plan;
        // One that nobody uses, else the first: it is the one that is found soonest.
        let places = || self.rows_of(key).map(|row| self.place(row, key.subnet));
        let is_old = |place: &usize| self.places.get(*place).is_some_and(|known| known.plan != plan);
        let Some(place) = places().find(is_old).or_else(|| places().next()) else { return };
        let Some(known) = self.places.get_mut(place) else { return };
        known.plan = 0;
        known.lists = Lists::of(key);
        known.scope = key.scope;
        known.server_id = server_id;
        known.next_server = boot.next_server;
        known.has_boot_names = boot.server_hostname.is_some() || boot.boot_file_name.is_some();
        if known.options.learn(options, varying) {
            known.plan = plan;
        }
    }
}
