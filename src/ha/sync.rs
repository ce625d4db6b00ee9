//! Copying a peer's leases, the asking side: a sub-machine that sends one command after the other.
//!
//! From a Kea: `dhcp-disable` before every page, pages until one is short, `ha-sync-complete-notify`; what an old one does not
//! know has its substitute. From an Aplomado the source stays in service: it remembers from the beginning which leases
//! change ([`super::feed`]), pages are copied, then the changes, and `dhcp-disable` covers only the last few of them.
//!
//! Bounds: one command in flight, one page being applied and one fetched meanwhile; a peer that gives the same addresses again
//! ends the copy instead of keeping it going.

use std::collections::{BTreeSet, VecDeque};
use std::net::Ipv4Addr;

use super::command::outgoing::{self, Family};
use super::command::page::PageAnswer;
use super::command::{PeerAnswer, PeerError, RESULT_UNSUPPORTED};
use super::config::{RelationshipConfig, Timeouts};
use super::feed::CHANGES_PER_ANSWER_MAX;
use super::partner::{Partner, SYNC_BEGIN_COMMAND, SYNC_LEASES_COMMAND, Said};
use crate::ids::SubnetId;

/// Most leases asked for at once, whatever is configured: a page must fit into memory several times.
pub const PAGE_LEASES_MAX: u32 = 100_000;
/// How often a page is asked for again within a session, when it does not arrive.
const PAGE_RETRIES_MAX: u32 = 3;
/// With so many changes or fewer left, the source is disabled for the rest.
const TAIL_CHANGES: u64 = 1000;
/// After so many rounds of changes the source is disabled even if they do not get fewer.
const CHANGES_ROUNDS_MAX: u32 = 32;
/// After so many rounds with the source disabled something is wrong.
const TAIL_ROUNDS_MAX: u32 = 10_000;

/// Which leases of a source are kept: with several relationships, those of its own subnets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SubnetFilter {
    /// All: no local subnet names a peer of the relationship.
    All,
    /// Those of these subnets.
    Only(BTreeSet<SubnetId>),
}

impl SubnetFilter {
    /// The filter of a relationship, made anew for each copy. `subnets` are all local subnets, each with its `ha-server-name`, or
    /// its shared network's.
    pub fn new<'a>(
        config: &RelationshipConfig,
        subnets: impl IntoIterator<Item = (SubnetId, Option<&'a str>)>,
    ) -> Self {
        let named =
            subnets.into_iter().filter(|(_, name)| name.is_some_and(|name| config.peer(name).is_some()));
        Self::of(named.map(|(id, _)| id))
    }

    /// The filter of a relationship that has these subnets; all are kept when it has none.
    #[must_use]
    pub fn of(own: impl Iterator<Item = SubnetId>) -> Self {
        let own: BTreeSet<SubnetId> = own.collect();
        if own.is_empty() { Self::All } else { Self::Only(own) }
    }

    /// Whether leases of this subnet are kept.
    #[must_use]
    pub fn keeps(&self, subnet: SubnetId) -> bool {
        match self {
            Self::All => true,
            Self::Only(own) => own.contains(&subnet),
        }
    }
}

/// What a copy needs to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyncParams {
    /// The address family.
    pub family: Family,
    /// This server's name.
    pub server_name: String,
    /// The origin of `dhcp-disable`: [`RelationshipConfig::remote_origin`].
    pub origin: u32,
    /// `max-period` of `dhcp-disable`.
    pub max_period_s: Option<u64>,
    /// Leases per page.
    pub page_limit: u32,
    /// How long commands may take.
    pub timeouts: Timeouts,
    /// Whether the source gives pages.
    pub pages: bool,
    /// Whether the source can stay in service.
    pub in_service: bool,
    /// Whether this server serves clients meanwhile. Then the source does not stay in service: what it deletes could be a lease
    /// that this server has given anew before it hears of that.
    pub serves: bool,
    /// Whether that is not known yet: then `list-commands` comes first.
    pub ask: bool,
    /// Whether a source that can stay in service is given what it lacks of this server's leases. What this server gave while it served alone
    /// and was restarted with is known to nobody else, and the source would give its addresses away.
    pub gives: bool,
}

impl SyncParams {
    /// The parameters of a copy within a relationship.
    #[must_use]
    pub fn new(config: &RelationshipConfig, source: &Partner, max_period_s: Option<u64>) -> Self {
        Self {
            family: Family::V4,
            server_name: config.own().name.clone(),
            origin: config.remote_origin(),
            max_period_s,
            page_limit: config.sync_page_limit.clamp(1, PAGE_LEASES_MAX),
            timeouts: config.timeouts(),
            pages: source.gives_pages(),
            in_service: source.syncs_in_service(),
            serves: false,
            ask: source.is_unasked(),
            gives: false,
        }
    }
}

/// How an answer is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// By [`PeerAnswer::parse`].
    Short,
    /// By [`PageAnswer::scan`], the body kept until it is applied.
    Page,
}

/// An answer, read as asked for.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// [`Expect::Short`].
    Short(Result<PeerAnswer, PeerError>),
    /// [`Expect::Page`].
    Page(Result<PageAnswer, PeerError>),
}

/// What became of a page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Leases stored or removed.
    pub stored: u64,
    /// Leases that were here as new or newer, or are of another relationship.
    pub kept: u64,
    /// Elements that are no leases.
    pub bad: u64,
}

/// What a copy did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SyncSummary {
    /// Pages and rounds of changes.
    pub pages: u64,
    /// Sums over all pages.
    pub applied: Applied,
    /// Leases that the source lacked and was given.
    pub given: u64,
}

/// What a copy wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SyncAction {
    /// Send this to the source; one at a time.
    Send {
        /// The body.
        body: Vec<u8>,
        /// How long it may take.
        timeout_ms: u64,
        /// How the answer is read.
        expect: Expect,
    },
    /// Apply the oldest page that was answered and is not yet applied; then call [`Sync::applied`].
    Apply {
        /// Changes instead of a page: of what is as new as what is here they go first, and `deleted` is removed.
        changes: bool,
    },
    /// Give the source the leases that it was not seen to have, or has an older one of, durably there; then call [`Sync::given`].
    Give,
    /// The source does not know this command: [`Partner::learn`].
    Unsupported(&'static str),
    /// The source knows these commands, or did not say: [`Partner::learn_commands`].
    Commands(Option<Vec<String>>),
    /// It is over. Nothing more comes.
    Finished(Result<SyncSummary, String>),
}

/// What the command in flight is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Ask,
    Begin,
    Disable,
    Page,
    GetAll,
    Give,
    Changes,
    TailDisable,
    Notify,
    EnableAfterNotify,
    EnableAfterFailure,
    End,
    Over,
}

/// A copy.
#[derive(Debug)]
pub struct Sync {
    params: SyncParams,
    step: Step,
    in_flight: bool,
    /// The source was told to disable its service.
    disabled: bool,
    first_page: bool,
    from: Option<Ipv4Addr>,
    session: Option<u64>,
    /// The source is an Aplomado, and has not yet been given what it lacks.
    owes: bool,
    sequence: u64,
    retries: u32,
    rounds: u32,
    tail: bool,
    applying: bool,
    /// A page that was answered while the one before is being applied; whether it is of changes.
    waiting: Option<bool>,
    /// What follows once all pages are applied.
    next: Step,
    failure: Option<String>,
    summary: SyncSummary,
    actions: VecDeque<SyncAction>,
}

impl Sync {
    /// A copy that begins now.
    #[must_use]
    pub fn new(params: SyncParams) -> Self {
        let mut sync = Self {
            step: Step::Over,
            in_flight: false,
            disabled: false,
            first_page: true,
            from: None,
            session: None,
            owes: false,
            // The first round of changes is number 1.
            sequence: 1,
            retries: 0,
            rounds: 0,
            tail: false,
            applying: false,
            waiting: None,
            next: Step::Over,
            failure: None,
            summary: SyncSummary::default(),
            actions: VecDeque::new(),
            params,
        };
        sync.send(match (sync.params.ask, sync.params.in_service) {
            (true, _) => Step::Ask,
            (false, true) if !sync.params.serves => Step::Begin,
            (false, _) => Step::Disable,
        });
        sync
    }

    /// What it knows.
    #[must_use]
    pub const fn params(&self) -> &SyncParams {
        &self.params
    }

    /// The next thing to do; call until there is nothing.
    pub fn poll_action(&mut self) -> Option<SyncAction> {
        self.actions.pop_front()
    }

    /// The answer to the command in flight.
    pub fn answered(&mut self, reply: Reply) {
        if !std::mem::replace(&mut self.in_flight, false) {
            return;
        }
        if self.failure.is_some() && !matches!(self.step, Step::EnableAfterFailure | Step::End) {
            self.note_effects(&reply);
            return self.clean_up();
        }
        match reply {
            Reply::Short(answer) => self.short_answered(answer),
            Reply::Page(answer) => self.page_answered(answer),
        }
    }

    /// The oldest page is applied, or cannot be.
    pub fn applied(&mut self, result: Result<Applied, String>) {
        self.applying = false;
        match result {
            Ok(applied) => {
                self.summary.pages += 1;
                let sum = &mut self.summary.applied;
                sum.stored += applied.stored;
                sum.kept += applied.kept;
                sum.bad += applied.bad;
            }
            Err(reason) => return self.fail(format!("cannot store leases: {reason}")),
        }
        if self.failure.is_some() {
            return;
        }
        if let Some(changes) = self.waiting.take() {
            self.apply(changes);
            self.go_on();
        } else if !self.in_flight {
            self.go_on();
        }
    }

    /// The source has what it lacked (so many leases), or cannot be told.
    pub fn given(&mut self, result: Result<u64, String>) {
        if self.step != Step::Give || !std::mem::replace(&mut self.in_flight, false) {
            return;
        }
        if self.failure.is_some() {
            return self.clean_up();
        }
        match result {
            Ok(count) => {
                self.summary.given += count;
                self.owes = false;
                self.send(if self.session.is_some() { Step::Changes } else { Step::Notify });
            }
            Err(reason) => self.fail(format!("{SYNC_LEASES_COMMAND}: {reason}")),
        }
    }

    /// Stops: the source is enabled again, nothing more is applied.
    pub fn cancel(&mut self) {
        self.fail("cancelled".to_owned());
    }

    /// Pages go on while the one before is applied; everything else waits for it.
    fn go_on(&mut self) {
        let fetch = matches!(self.next, Step::Disable | Step::Page);
        if self.next != Step::Over && (fetch || !self.applying) {
            let next = std::mem::replace(&mut self.next, Step::Over);
            self.send(next);
        }
    }

    fn send(&mut self, step: Step) {
        let params = &self.params;
        let (family, name, timeouts) = (params.family, params.server_name.as_str(), params.timeouts);
        let (body, timeout_ms, expect) = match step {
            Step::Ask => (outgoing::list_commands(family), timeouts.command_ms, Expect::Short),
            Step::Begin => (outgoing::sync_begin(family, name), timeouts.command_ms, Expect::Short),
            Step::Disable | Step::TailDisable => {
                let body = outgoing::dhcp_disable(family, params.origin, params.max_period_s);
                (body, timeouts.command_ms, Expect::Short)
            }
            Step::Page => {
                let body = outgoing::page4(self.from, params.page_limit, self.session.is_some());
                (body, timeouts.page_ms, Expect::Page)
            }
            Step::GetAll => (outgoing::get_all(family), timeouts.page_ms, Expect::Page),
            Step::Changes => {
                let session = self.session.unwrap_or(0);
                let body =
                    outgoing::sync_changes(family, name, session, self.sequence, CHANGES_PER_ANSWER_MAX);
                (body, timeouts.page_ms, Expect::Page)
            }
            Step::Notify => (
                outgoing::sync_complete_notify(family, name, params.origin),
                timeouts.command_ms,
                Expect::Short,
            ),
            Step::EnableAfterNotify | Step::EnableAfterFailure => {
                (outgoing::dhcp_enable(family, params.origin), timeouts.command_ms, Expect::Short)
            }
            Step::End => {
                let body = outgoing::sync_end(family, name, self.session.unwrap_or(0));
                (body, timeouts.command_ms, Expect::Short)
            }
            Step::Give => {
                self.step = step;
                self.in_flight = true;
                self.actions.push_back(SyncAction::Give);
                return;
            }
            Step::Over => return,
        };
        self.step = step;
        self.in_flight = true;
        self.actions.push_back(SyncAction::Send { body, timeout_ms, expect });
    }

    /// What an answer that comes too late has changed at the source.
    fn note_effects(&mut self, reply: &Reply) {
        let Reply::Short(Ok(answer)) = reply else { return };
        if !answer.is_success() {
            return;
        }
        match self.step {
            Step::Disable | Step::TailDisable => self.disabled = true,
            Step::Begin => {
                self.session =
                    answer.arguments.as_ref().and_then(|arguments| arguments.get("session")?.as_u64());
            }
            Step::Notify => self.disabled = false,
            _ => {}
        }
    }

    fn short_answered(&mut self, answer: Result<PeerAnswer, PeerError>) {
        let unsupported = matches!(&answer, Ok(answer) if answer.result == i64::from(RESULT_UNSUPPORTED));
        let outcome = match &answer {
            Ok(answer) if answer.is_success() => Ok(()),
            Ok(answer) => Err(format!("result {}: {}", answer.result, answer.text)),
            Err(error) => Err(error.to_string()),
        };
        match (self.step, outcome) {
            (Step::Ask, outcome) => {
                let names = match Said::read(answer) {
                    Said::Commands(names) => Some(names),
                    Said::Nothing => None,
                    Said::Unknown => {
                        let reason = outcome.err().unwrap_or_else(|| "no list".to_owned());
                        return self.fail(format!("list-commands: {reason}"));
                    }
                };
                let in_service = !self.params.serves
                    && names
                        .as_ref()
                        .is_some_and(|names| names.iter().any(|name| name == SYNC_BEGIN_COMMAND));
                self.actions.push_back(SyncAction::Commands(names));
                self.send(if in_service { Step::Begin } else { Step::Disable });
            }
            (Step::Begin, Ok(())) => {
                let session = answer.ok().and_then(|answer| answer.arguments?.get("session")?.as_u64());
                match session {
                    Some(session) => {
                        self.session = Some(session);
                        self.owes = self.params.gives;
                        self.send(Step::Page);
                    }
                    None => self.fail("expected a session, found none".to_owned()),
                }
            }
            (Step::Begin, Err(_)) if unsupported => {
                self.actions.push_back(SyncAction::Unsupported(SYNC_BEGIN_COMMAND));
                self.send(Step::Disable);
            }
            (Step::Disable, Ok(())) => {
                self.disabled = true;
                let all = !self.params.pages && self.first_page;
                self.send(if all { Step::GetAll } else { Step::Page });
            }
            (Step::TailDisable, Ok(())) => {
                self.disabled = true;
                self.tail = true;
                self.rounds = 0;
                self.send(Step::Changes);
            }
            (Step::Notify | Step::EnableAfterNotify, Ok(())) => self.finish(),
            (Step::Notify, Err(_)) if unsupported => {
                self.actions.push_back(SyncAction::Unsupported("ha-sync-complete-notify"));
                self.send(Step::EnableAfterNotify);
            }
            (Step::Notify, Err(reason)) => {
                // The source's own timer enables it again.
                self.disabled = false;
                self.fail(format!("ha-sync-complete-notify: {reason}"));
            }
            (Step::EnableAfterNotify, Err(reason)) => {
                self.disabled = false;
                self.fail(format!("dhcp-enable: {reason}"));
            }
            (Step::EnableAfterFailure, _) => {
                self.disabled = false;
                self.clean_up();
            }
            (Step::End, _) => {
                self.session = None;
                self.clean_up();
            }
            (Step::Disable | Step::TailDisable, Err(reason)) => self.fail(format!("dhcp-disable: {reason}")),
            (Step::Begin, Err(reason)) => self.fail(format!("{SYNC_BEGIN_COMMAND}: {reason}")),
            (Step::Page | Step::GetAll | Step::Give | Step::Changes | Step::Over, _) => {
                self.fail("expected a page, found another answer".to_owned());
            }
        }
    }

    fn page_answered(&mut self, answer: Result<PageAnswer, PeerError>) {
        let page = match answer {
            Ok(page) => page,
            // A session keeps what changes: the page can be asked for again.
            Err(PeerError::Io(_)) if self.session.is_some() && self.retries < PAGE_RETRIES_MAX => {
                self.retries += 1;
                return self.send(self.step);
            }
            Err(error) => return self.fail(format!("leases: {error}")),
        };
        self.retries = 0;
        if page.result == i64::from(RESULT_UNSUPPORTED) && self.step == Step::Page && self.first_page {
            self.actions.push_back(SyncAction::Unsupported(self.params.family.get_page()));
            return self.send(Step::GetAll);
        }
        if !page.is_success() {
            return self.fail(format!("leases: result {}: {}", page.result, page.text));
        }
        match self.step {
            Step::Page => {
                self.first_page = false;
                let full = page.count >= u64::from(self.params.page_limit);
                self.next = if full {
                    let Some(last) = page.last else {
                        return self
                            .fail("expected an address in a full page of leases, found none".to_owned());
                    };
                    if self.from.is_some_and(|from| last <= from) {
                        return self.fail(format!(
                            "expected leases above {}, found {last} last",
                            self.from.unwrap_or(last)
                        ));
                    }
                    self.from = Some(last);
                    if self.session.is_some() { Step::Page } else { Step::Disable }
                } else if self.owes {
                    Step::Give
                } else if self.session.is_some() {
                    Step::Changes
                } else {
                    Step::Notify
                };
                self.take_page(false);
            }
            Step::GetAll => {
                self.next = Step::Notify;
                self.take_page(false);
            }
            Step::Changes => self.changes_answered(&page),
            _ => self.fail("expected another answer, found a page".to_owned()),
        }
    }

    fn changes_answered(&mut self, page: &PageAnswer) {
        if page.overflown {
            // Too much changed meanwhile. Once more, the way that always ends.
            self.session = None;
            self.from = None;
            self.first_page = true;
            return self.send(Step::Disable);
        }
        self.rounds += 1;
        self.sequence += 1;
        let remaining = page.remaining.unwrap_or(0);
        self.next = if self.tail {
            if self.rounds > TAIL_ROUNDS_MAX {
                return self
                    .fail("the source goes on changing leases while its service is disabled".to_owned());
            }
            // Asked for while its service was off: what comes after these is none of its clients' doing.
            if remaining == 0 { Step::Notify } else { Step::Changes }
        } else if remaining <= TAIL_CHANGES || self.rounds >= CHANGES_ROUNDS_MAX {
            Step::TailDisable
        } else {
            Step::Changes
        };
        self.take_page(true);
    }

    fn take_page(&mut self, changes: bool) {
        if self.applying {
            self.waiting = Some(changes);
            return;
        }
        self.apply(changes);
        self.go_on();
    }

    fn apply(&mut self, changes: bool) {
        self.applying = true;
        self.actions.push_back(SyncAction::Apply { changes });
    }

    fn finish(&mut self) {
        self.step = Step::Over;
        self.actions.push_back(SyncAction::Finished(Ok(self.summary)));
    }

    fn fail(&mut self, reason: String) {
        if self.failure.is_some() || (self.step == Step::Over && !self.in_flight && self.next == Step::Over) {
            return;
        }
        self.failure = Some(reason);
        if !self.in_flight {
            self.clean_up();
        }
    }

    /// After a failure: the source is enabled again, its session ended, and that was it.
    fn clean_up(&mut self) {
        // A `dhcp-disable` that got no answer may have been carried out, but on the first page nothing more is sent.
        if self.disabled {
            return self.send(Step::EnableAfterFailure);
        }
        if self.session.is_some() {
            return self.send(Step::End);
        }
        self.step = Step::Over;
        let reason = self.failure.clone().unwrap_or_default();
        self.actions.push_back(SyncAction::Finished(Err(reason)));
    }
}
