//! The options of answers that a shard has written before: choosing them again for the next client would give the same.
//!
//! ```text
//! shapes   what answers of one kind have in common: message type, classes, request list, ... and the options of the first one
//! answers  a row per shape, in it a place per subnet: one cache line, what this subnet's answer has otherwise (its routers)
//! whole    beside each place, all its options, where they differ by more than a few words
//! ```
//!
//! A key is everything that the choice depends on, compared octet by octet; the plan's number is part of it, so that a new plan
//! finds nothing of the old one's. Answers whose options depend on more than a key holds have no key.
//!
//! With many subnets what belongs to one of them lies far from the processor, and what they have in common stays near. So an answer
//! costs one line from memory, and that one can be loaded while other queries are looked at: once the subnet is known, it lies
//! where the last query of this type had its own, in the subnet's place.
//!
//! Promises: the memory is there from the start, a place holds the answer that was written last, nothing is allocated or freed.

use std::net::Ipv4Addr;

use super::answer::Verdict;
use crate::config::plan::{BootView, HostIndex, Plan, PoolIndex, ScopeIndex, SubnetIndex};
use crate::ids::ClassId;
use crate::memory::{Table, prefetch};
use crate::wire::codes::{MessageType, option};
use crate::wire::query::Query;
use crate::wire::template::{OptionTemplate, Patches, Varying};

/// Places at least, and at most: each is some 500 octets, of which usually 64 are used.
const PLACES_MIN: usize = 256;
const PLACES_MAX: usize = 65_536;
/// Places that an answer may be in.
const WAYS_MAX: usize = 4;
/// Shapes that are remembered, and places that one may be in: powers of two.
const SHAPES: usize = 256;
const SHAPE_WAYS: usize = 4;
/// Longest parameter request list that a key holds.
const REQUESTED_MAX: usize = 64;
/// Most classes that a key holds.
const CLASSES_MAX: usize = 12;
/// Octets of both.
const LISTS_BYTES: usize = REQUESTED_MAX + 2 * CLASSES_MAX;

/// What the options of an answer depend on.
#[derive(Clone, Copy, Debug)]
pub(super) struct AnswerKey<'a> {
    subnet: SubnetIndex,
    /// Subnet and pool.
    place: u64,
    /// Reservation, message type, which of the varying options are there.
    shape: u64,
    classes: &'a [ClassId],
    requested: &'a [u8],
}

/// The classes and the parameter request list of an answer, packed.
#[derive(Clone, Copy, Debug)]
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

impl<'a> AnswerKey<'a> {
    /// The key of an answer; nothing when its options depend on more than that.
    pub(super) fn new(
        plan: &Plan,
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
        // Most reservations say nothing about options: then their clients are answered like all others.
        let host = verdict.host.filter(|host| {
            let host = plan.hosts.host(*host);
            host.options != ScopeIndex::default() || host.boot.is_some()
        });
        is_plain.then_some(Self {
            subnet,
            place: place_word(subnet, verdict.pool),
            shape: shape_word(verdict.kind, host, varying.presence()),
            classes,
            requested,
        })
    }

    /// Spreads shapes over their table. Clients choose some of it: what collides is only slower.
    fn hash(&self) -> usize {
        const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
        let mix = |hash: u64, word: u64| (hash ^ word).wrapping_mul(ODD).rotate_left(29);
        let of_classes = self.classes.iter().map(|class| u64::from(class.0));
        let of_requested = self.requested.iter().map(|code| u64::from(*code));
        let hash = mix(of_classes.chain(of_requested).fold(mix(0, self.shape), mix), 0);
        usize::try_from(hash >> 32).unwrap_or_default()
    }
}

/// No position is so high as what stands for none here: `u32::MAX` is the bound of their count.
fn place_word(subnet: SubnetIndex, pool: Option<PoolIndex>) -> u64 {
    u64::from(subnet.0) << 32 | u64::from(pool.map_or(u32::MAX, |pool| pool.0))
}

fn shape_word(kind: MessageType, host: Option<HostIndex>, presence: u8) -> u64 {
    let host = host.map_or(u32::MAX, |host| host.0);
    u64::from(host) << 16 | u64::from(kind.number()) << 8 | u64::from(presence)
}

/// What answers of one kind have in common, in whatever subnet.
#[derive(Clone, Debug)]
struct Shape {
    /// Number of the plan that they were written from; 0 for none.
    plan: u64,
    /// Which shape this is of all that there have been: an answer of another one in the same place has another number.
    number: u64,
    /// When it was last asked for.
    used: u64,
    word: u64,
    lists: Lists,
    /// The options of the first answer.
    options: OptionTemplate,
}

impl Shape {
    const NONE: Self =
        Self { plan: 0, number: 0, used: 0, word: 0, lists: Lists::NONE, options: OptionTemplate::EMPTY };

    fn is(&self, plan: u64, key: &AnswerKey<'_>) -> bool {
        self.plan == plan && self.word == key.shape && self.lists.are(key)
    }
}

/// An answer that was written before.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(super) struct KnownAnswer {
    /// The number of its shape; 0 for none.
    shape: u64,
    place: u64,
    /// The server identifier that the configuration says.
    pub(super) server_id: Option<[u8; 4]>,
    /// `siaddr`, if there is one.
    pub(super) next_server: Option<Ipv4Addr>,
    /// Whether `sname` or `file` say something: then they are looked up again.
    pub(super) has_boot_names: bool,
    /// What it has otherwise than the first of its shape; nothing when that is too much, and its options stand by themselves.
    patches: Option<Patches>,
}

const _: () = assert!(size_of::<KnownAnswer>() == 64, "a usual answer is one cache line");

impl KnownAnswer {
    const NONE: Self =
        Self { shape: 0, place: 0, server_id: None, next_server: None, has_boot_names: false, patches: None };
}

/// An answer that was found.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found<'a> {
    /// What its subnet has for itself.
    pub(super) answer: &'a KnownAnswer,
    options: &'a OptionTemplate,
}

impl Found<'_> {
    /// Writes the options for a client with these; how many octets they take, nothing when they do not fit.
    #[inline(always)]
    pub(super) fn emit(&self, varying: &Varying<'_>, area: &mut [u8]) -> Option<usize> {
        let len = self.options.emit(varying, area)?;
        if let Some(patches) = &self.answer.patches {
            self.options.patch(patches, varying, area)?;
        }
        Some(len)
    }
}

/// All answers that a shard remembers: as many rows as fit, each with a place for every subnet (or for some of the same number
/// modulo the length of a row, when there are very many).
pub(super) struct KnownAnswers {
    plan: u64,
    shapes: Table<Shape>,
    answers: Table<KnownAnswer>,
    whole: Table<OptionTemplate>,
    /// Length of a row, and how many there are: powers of two.
    row: usize,
    rows: usize,
    /// By message type of the query, the shape of its last answer.
    last: [usize; KINDS],
    /// Counts shapes, and questions.
    shape_count: u64,
    asked: u64,
    /// Where options are put together that may differ from those of their shape.
    scratch: OptionTemplate,
}

/// Message types whose answers are told apart; of those above, the last counts for all.
const KINDS: usize = 4;

/// Where the shape of the last answer to such a message is noted.
fn kind_of(kind: Option<MessageType>) -> usize {
    kind.map_or(0, |kind| usize::from(kind.number())) % KINDS
}

impl std::fmt::Debug for KnownAnswers {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "KnownAnswers({} places)", self.answers.len())
    }
}

impl KnownAnswers {
    /// Room for a plan of `subnet_count` subnets. Allocates.
    pub(super) fn new(subnet_count: usize) -> Self {
        let count = subnet_count.saturating_mul(WAYS_MAX).next_power_of_two().clamp(PLACES_MIN, PLACES_MAX);
        let row = subnet_count.next_power_of_two().min(count / WAYS_MAX);
        Self {
            plan: 0,
            shapes: Table::filled(Shape::NONE, SHAPES),
            answers: Table::filled(KnownAnswer::NONE, count),
            whole: Table::filled(OptionTemplate::EMPTY, count),
            row,
            rows: count / row,
            last: [0; KINDS],
            shape_count: 0,
            asked: 0,
            scratch: OptionTemplate::EMPTY,
        }
    }

    /// From now on answers are written from the plan with this number, which no other plan of this shard has; not 0.
    pub(super) const fn serve(&mut self, plan: u64) {
        self.plan = plan;
    }

    /// The places that a subnet's answer of this shape may be in, the likeliest first.
    fn places(&self, shape: u64, subnet: SubnetIndex) -> impl Iterator<Item = usize> + use<> {
        let first = usize::try_from(shape).unwrap_or_default();
        let (row, rows, column) = (self.row, self.rows, subnet.0 as usize & (self.row - 1));
        (first..first + WAYS_MAX).map(move |at| (at & (rows - 1)) * row + column)
    }

    /// Starts loading the answer that a query of this type most likely gets, if it is one of `subnet`.
    pub(super) fn prefetch(&self, kind: Option<MessageType>, subnet: SubnetIndex) {
        let shape = self.shapes.get(self.last[kind_of(kind)]).map_or(0, |shape| shape.number);
        if let Some(place) = self.places(shape, subnet).next()
            && let Some(answer) = self.answers.get(place)
        {
            prefetch(answer);
        }
    }

    /// The places that a shape may be in.
    fn shape_places(key: &AnswerKey<'_>) -> impl Iterator<Item = usize> + use<> {
        let first = key.hash();
        (first..first + SHAPE_WAYS).map(|at| at & (SHAPES - 1))
    }

    /// Where the shape of this key is.
    #[inline(always)]
    fn find_shape(&self, kind: usize, key: &AnswerKey<'_>) -> Option<usize> {
        // Mostly the one that a query like this got last, in whatever subnet: that needs no hash.
        let is_at = |at: usize| self.shapes.get(at).is_some_and(|shape| shape.is(self.plan, key));
        let last = self.last[kind];
        if is_at(last) { Some(last) } else { Self::shape_places(key).find(|at| is_at(*at)) }
    }

    /// The answer with this key.
    #[inline(always)]
    pub(super) fn find(&mut self, query: &Query<'_>, key: &AnswerKey<'_>) -> Option<Found<'_>> {
        let kind = kind_of(query.message_type);
        let at = self.find_shape(kind, key)?;
        self.last[kind] = at;
        self.asked += 1;
        let shape = self.shapes.get_mut(at)?;
        shape.used = self.asked;
        let number = shape.number;
        let is_in = |place: &usize| {
            self.answers.get(*place).is_some_and(|answer| answer.shape == number && answer.place == key.place)
        };
        let place = self.places(number, key.subnet).find(is_in)?;
        let answer = self.answers.get(place)?;
        let options =
            if answer.patches.is_some() { &self.shapes.get(at)?.options } else { self.whole.get(place)? };
        Some(Found { answer, options })
    }

    /// Remembers an answer: its encoded `options` with what varies in them.
    pub(super) fn learn(
        &mut self,
        query: &Query<'_>,
        key: &AnswerKey<'_>,
        options: &[u8],
        varying: &Varying<'_>,
        server_id: Option<[u8; 4]>,
        boot: &BootView<'_>,
    ) {
        if !self.scratch.learn(options, varying) {
            return;
        }
        let shape = self.find_shape(kind_of(query.message_type), key).or_else(|| self.begin_shape(key));
        let Some(shape) = shape.and_then(|at| self.shapes.get(at)) else { return };
        // One that nobody uses, else the first: it is the one that is found soonest.
        let places = || self.places(shape.number, key.subnet);
        let is_vacant = |place: &usize| self.answers.get(*place).is_some_and(|known| known.shape == 0);
        let is_own = |place: &usize| {
            self.answers
                .get(*place)
                .is_some_and(|known| known.shape == shape.number && known.place == key.place)
        };
        let place = places().find(is_own).or_else(|| places().find(is_vacant)).or_else(|| places().next());
        let Some(place) = place else { return };
        let patches = Patches::between(&shape.options, &self.scratch);
        if patches.is_none()
            && let Some(whole) = self.whole.get_mut(place)
        {
            whole.clone_from(&self.scratch);
        }
        if let Some(answer) = self.answers.get_mut(place) {
            *answer = KnownAnswer {
                shape: shape.number,
                place: key.place,
                server_id,
                next_server: boot.next_server,
                has_boot_names: boot.server_hostname.is_some() || boot.boot_file_name.is_some(),
                patches,
            };
        }
    }

    /// A shape of this key whose first answer is in the scratch. It takes the place of one of another plan, else of the one that
    /// was not asked for for the longest time: what nobody else asks for cannot drive out what many do.
    fn begin_shape(&mut self, key: &AnswerKey<'_>) -> Option<usize> {
        let age = |at: &usize| {
            self.shapes
                .get(*at)
                .map_or(u64::MAX, |shape| if shape.plan == self.plan { shape.used } else { 0 })
        };
        let at = Self::shape_places(key).min_by_key(age)?;
        self.shape_count += 1;
        let shape = self.shapes.get_mut(at)?;
        shape.plan = self.plan;
        shape.number = self.shape_count;
        shape.used = self.asked;
        shape.word = key.shape;
        shape.lists = Lists::of(key);
        shape.options.clone_from(&self.scratch);
        Some(at)
    }
}
