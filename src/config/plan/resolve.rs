//! Which configured options go into an answer, and with which value.
//!
//! Highest first: reservation, pool, subnet, network, classes in the order in which the query got them, global scope.
//! What is sent: everything asked for or marked `always-send` in any of them, and 3, 6, 15 and 54; less what is
//! marked `never-send` in any of them and what the answer has already.

use super::classes::Class;
use super::options::{CodeSet, OptionEntry, OptionScope, ScopeIndex, Urgency};
use super::{Plan, at};
use crate::ids::ClassId;
use crate::wire::option::Walk;
use crate::wire::vendor::Blocks;

/// Router, domain name server, domain name and server identifier: sent when configured, asked for or not.
const BASIC: [u8; 4] = [3, 6, 15, 54];
/// Vendor-identifying vendor class (RFC 3925 3).
const VENDOR_CLASS: u8 = 124;
/// Vendor-identifying vendor-specific information (RFC 3925 4).
const VENDOR_INFORMATION: u8 = 125;
/// Cable Television Laboratories: the one enterprise whose clients say which sub-options they want.
const CABLE_LABS: u32 = 4491;
/// The sub-option in which they say it.
const CABLE_LABS_REQUEST: u16 = 1;

/// Most options of one answer that come from a configuration.
pub const OPTIONS_MAX: usize = 288;
/// Room for option 125, which is put together per query.
pub const COMPOSED_BYTES_MAX: usize = 2048;
/// Most enterprises that one answer speaks to.
pub const ENTERPRISES_MAX: usize = 16;

/// Where the options of one answer come from.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sources<'a> {
    /// The reservation's options, [`super::Host::options`].
    pub host: ScopeIndex,
    /// The merged options of the pool that holds `yiaddr`, [`super::Pool::options`], or when there is none, of the
    /// subnet, [`super::Subnet::options`].
    pub place: ScopeIndex,
    /// The query's classes in the order in which it got them.
    pub classes: &'a [ClassId],
}

/// What the query and the answer so far say about options.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wanted<'a> {
    /// The parameter request list (option 55).
    pub requested: &'a [u8],
    /// What the answer has already.
    pub already: CodeSet,
    /// The query's option 124, empty when it has none.
    pub vendor_class: &'a [u8],
    /// The query's option 125, empty when it has none.
    pub vendor_information: &'a [u8],
}

/// An option chosen, and where its value lies.
#[derive(Clone, Copy, Debug)]
enum Chosen {
    /// Among the plan's values.
    Stored(OptionEntry),
    /// In the list's own space.
    Composed { code: u8, start: usize, end: usize },
}

/// The configured options of one answer: a fixed space that a shard uses again and again. About 10 KiB.
#[derive(Clone, Debug)]
pub struct ChosenOptions {
    chosen: [Chosen; OPTIONS_MAX],
    count: usize,
    composed: [u8; COMPOSED_BYTES_MAX],
    composed_bytes: usize,
    /// Options that found no room since the list was made: to be counted.
    pub overflow_count: u64,
}

impl Default for ChosenOptions {
    fn default() -> Self {
        Self {
            chosen: [Chosen::Composed { code: 0, start: 0, end: 0 }; OPTIONS_MAX],
            count: 0,
            composed: [0; COMPOSED_BYTES_MAX],
            composed_bytes: 0,
            overflow_count: 0,
        }
    }
}

impl ChosenOptions {
    /// Empties the list.
    pub fn clear(&mut self) {
        self.count = 0;
        self.composed_bytes = 0;
    }

    /// Codes and values, ascending by code; 124 and 125 may come several times, once per enterprise.
    pub fn iter<'a>(&'a self, plan: &'a Plan) -> impl Iterator<Item = (u8, &'a [u8])> {
        self.chosen[..self.count].iter().map(|chosen| match chosen {
            Chosen::Stored(entry) => (entry.code, plan.options.value(entry)),
            Chosen::Composed { code, start, end } => (*code, &self.composed[*start..*end]),
        })
    }

    fn push(&mut self, chosen: Chosen) {
        match self.chosen.get_mut(self.count) {
            Some(free) => {
                *free = chosen;
                self.count += 1;
            }
            None => self.overflow_count += 1,
        }
    }
}

/// A set of enterprise numbers, ascending, of at most [`ENTERPRISES_MAX`].
#[derive(Default)]
struct Enterprises {
    numbers: [u32; ENTERPRISES_MAX],
    count: usize,
}

impl Enterprises {
    fn as_slice(&self) -> &[u32] {
        &self.numbers[..self.count]
    }

    /// Adds a number; says whether it is new and had room.
    fn insert(&mut self, number: u32) -> bool {
        let Err(position) = self.as_slice().binary_search(&number) else {
            return false;
        };
        if self.count == ENTERPRISES_MAX {
            return false;
        }
        self.numbers.copy_within(position..self.count, position + 1);
        self.numbers[position] = number;
        self.count += 1;
        true
    }
}

/// All scopes of one answer.
struct Scopes<'a> {
    plan: &'a Plan,
    sources: &'a Sources<'a>,
    host: &'a OptionScope,
    place: &'a OptionScope,
    global: &'a OptionScope,
    /// The codes that any class has, so that those that none of them has cost one test.
    class_codes: CodeSet,
    /// What any of them wants sent or kept back.
    urgency: Urgency,
}

impl<'a> Scopes<'a> {
    fn new(plan: &'a Plan, sources: &'a Sources<'a>) -> Self {
        let store = &plan.options;
        let host = store.scope(sources.host);
        let place = store.scope(sources.place);
        let global = store.scope(plan.globals.options);
        let mut class_codes = CodeSet::EMPTY;
        let mut urgency = Urgency::default();
        let mut add = |scope: &OptionScope| {
            let more = store.urgency(scope);
            urgency.always = urgency.always.union(more.always);
            urgency.never = urgency.never.union(more.never);
        };
        [host, place, global].into_iter().for_each(&mut add);
        for scope in class_scopes(plan, sources) {
            class_codes = class_codes.union(scope.codes);
            add(scope);
        }
        Self { plan, sources, host, place, global, class_codes, urgency }
    }

    /// The codes that any scope has.
    fn codes(&self) -> CodeSet {
        self.host.codes.union(self.place.codes).union(self.class_codes).union(self.global.codes)
    }

    /// All scopes that can have `code`, the highest first.
    fn with(&self, code: u8) -> impl Iterator<Item = &'a OptionScope> {
        let classes = self.class_codes.contains(code);
        [self.host, self.place]
            .into_iter()
            .chain(class_scopes(self.plan, self.sources).take_while(move |_| classes))
            .chain([self.global])
            .filter(move |scope| scope.codes.contains(code))
    }

    /// All scopes, the highest first.
    fn all(&self) -> impl Iterator<Item = &'a OptionScope> {
        [self.host, self.place].into_iter().chain(class_scopes(self.plan, self.sources)).chain([self.global])
    }

    fn find(&self, code: u8) -> Option<&'a OptionEntry> {
        self.with(code).find_map(|scope| self.plan.options.find_entry(scope, code, self.sources.classes))
    }

    /// The entries of option 124 or 125 that apply: of each enterprise the highest.
    fn carriers(&self, code: u8) -> impl Iterator<Item = &'a OptionEntry> {
        let mut seen = Enterprises::default();
        self.with(code)
            .flat_map(move |scope| self.plan.options.instances(scope, code))
            .filter(|entry| self.plan.options.admits(entry, self.sources.classes))
            .filter(move |entry| seen.insert(entry.enterprise))
    }

    /// Puts together option 125 for each enterprise that the query names or a carrier is there for.
    fn compose(&self, wanted: &Wanted<'_>, carry: bool, out: &mut ChosenOptions) {
        let store = &self.plan.options;
        let mut enterprises = Enterprises::default();
        for block in Blocks::new(wanted.vendor_information).chain(Blocks::new(wanted.vendor_class)) {
            enterprises.insert(block.enterprise);
        }
        if carry {
            for carrier in self.carriers(VENDOR_INFORMATION) {
                enterprises.insert(carrier.enterprise);
            }
        }
        for &enterprise in enterprises.as_slice() {
            let mut send = CodeSet::default();
            if enterprise == CABLE_LABS {
                let requested = Blocks::new(wanted.vendor_information)
                    .filter(|block| block.enterprise == CABLE_LABS)
                    .flat_map(|block| Walk::<1>::new(block.data))
                    .find(|option| option.code == CABLE_LABS_REQUEST);
                send = requested.map_or(CodeSet::EMPTY, |option| option.data.iter().copied().collect());
            }
            let mut never = CodeSet::default();
            for entry in self.all().flat_map(|scope| store.of_enterprise(scope, enterprise)) {
                if entry.always {
                    send.insert(entry.code);
                }
                if entry.never {
                    never.insert(entry.code);
                }
            }
            let carrier = Some(()).filter(|()| carry).and_then(|()| {
                self.carriers(VENDOR_INFORMATION).find(|entry| entry.enterprise == enterprise)
            });
            let mut block = Block { enterprise, start: out.composed_bytes, is_empty: true };
            if let Some(carrier) = carrier {
                block.open(out);
                for option in Walk::<1>::new(store.value(carrier)) {
                    let code = u8::try_from(option.code).expect("a code of one octet");
                    never.insert(code);
                    block.add(code, option.data, out);
                }
            }
            for code in send.minus(never).iter() {
                let entry = self
                    .all()
                    .flat_map(|scope| store.of_enterprise(scope, enterprise))
                    .find(|entry| entry.code == code && store.admits(entry, self.sources.classes));
                if let Some(entry) = entry {
                    block.add(code, store.value(entry), out);
                }
            }
            block.close(out);
        }
    }
}

fn class_scopes<'a>(plan: &'a Plan, sources: &'a Sources<'a>) -> impl Iterator<Item = &'a OptionScope> {
    sources
        .classes
        .iter()
        .filter_map(|&class| plan.class(class))
        .map(|class: &Class| plan.options.scope(class.options))
}

/// One enterprise's part of option 125 while it is written: enterprise, length, sub-options.
struct Block {
    enterprise: u32,
    start: usize,
    is_empty: bool,
}

impl Block {
    /// Octets before the sub-options.
    const HEAD_BYTES: usize = 5;
    /// Most octets of sub-options: their length is one octet.
    const DATA_BYTES_MAX: usize = 255;

    fn open(&mut self, out: &mut ChosenOptions) {
        if let Some(head) = out.composed.get_mut(self.start..self.start + Self::HEAD_BYTES) {
            head[..4].copy_from_slice(&self.enterprise.to_be_bytes());
            head[4] = 0;
            out.composed_bytes = self.start + Self::HEAD_BYTES;
            self.is_empty = false;
        } else {
            out.overflow_count += 1;
        }
    }

    fn add(&mut self, code: u8, value: &[u8], out: &mut ChosenOptions) {
        let Ok(bytes) = u8::try_from(value.len()) else {
            out.overflow_count += 1;
            return;
        };
        let option_bytes = 2 + value.len();
        if !self.is_empty
            && out.composed_bytes - self.start - Self::HEAD_BYTES + option_bytes > Self::DATA_BYTES_MAX
        {
            self.close(out);
            *self = Self { start: out.composed_bytes, is_empty: true, ..*self };
        }
        if self.is_empty {
            self.open(out);
        }
        let start = out.composed_bytes;
        match out.composed.get_mut(start..start + option_bytes) {
            Some(room) if !self.is_empty && option_bytes <= Self::DATA_BYTES_MAX => {
                room[0] = code;
                room[1] = bytes;
                room[2..].copy_from_slice(value);
                out.composed_bytes += option_bytes;
            }
            _ => out.overflow_count += 1,
        }
    }

    fn close(&self, out: &mut ChosenOptions) {
        if self.is_empty {
            return;
        }
        let data_bytes = out.composed_bytes - self.start - Self::HEAD_BYTES;
        out.composed[self.start + 4] = u8::try_from(data_bytes).expect("kept at most 255 by add");
        out.push(Chosen::Composed { code: VENDOR_INFORMATION, start: self.start, end: out.composed_bytes });
    }
}

/// Fills `out` with the configured options of an answer. What does not fit is counted in it.
pub fn resolve(plan: &Plan, sources: &Sources<'_>, wanted: &Wanted<'_>, out: &mut ChosenOptions) {
    out.clear();
    let scopes = Scopes::new(plan, sources);
    let never = scopes.urgency.never.union(wanted.already);
    let send = wanted
        .requested
        .iter()
        .copied()
        .chain(BASIC)
        .collect::<CodeSet>()
        .union(scopes.urgency.always)
        .common(scopes.codes())
        .minus(never);
    let mut vendor = !never.contains(VENDOR_INFORMATION);
    for code in send.iter() {
        if vendor && code >= VENDOR_INFORMATION {
            vendor = false;
            scopes.compose(wanted, code == VENDOR_INFORMATION, out);
        }
        match code {
            VENDOR_INFORMATION => {}
            VENDOR_CLASS => scopes.carriers(code).for_each(|&entry| out.push(Chosen::Stored(entry))),
            _ => {
                if let Some(&entry) = scopes.find(code) {
                    out.push(Chosen::Stored(entry));
                }
            }
        }
    }
    if vendor {
        scopes.compose(wanted, false, out);
    }
}

/// The value that option `code` has for an answer made from `sources`, asked for or not; nothing when none is
/// configured or it is never to be sent. For options that the rules themselves look at: 54, 108.
#[must_use]
pub fn resolve_one<'a>(plan: &'a Plan, sources: &'a Sources<'a>, code: u8) -> Option<&'a [u8]> {
    let scopes = Scopes::new(plan, sources);
    if scopes.urgency.never.contains(code) {
        return None;
    }
    scopes.find(code).map(|entry| plan.options.value(entry))
}

impl Plan {
    /// The definition of the class `id`, if the configuration has one.
    #[must_use]
    pub fn class(&self, id: ClassId) -> Option<&Class> {
        let position = *self.class_positions.get(usize::from(id.0))?;
        self.classes.get(at(position))
    }
}
