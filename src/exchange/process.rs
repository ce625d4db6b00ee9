//! One query from parsed to decided, in the order of `spec`-like steps that Kea's drop counters make visible: each exit has
//! its [`DropReason`].

use std::net::Ipv4Addr;
use std::sync::Arc;

use super::allocation::{self, Place};
use super::allocators::Allocators;
use super::answer::{self, Arrival, Desk, Times, Verdict};
use super::classifier::Classifier;
use super::client::{Asker, Client, identifiers};
use super::context::CONTEXT_BYTES_MAX;
use super::context::RELAY_BYTES_MAX;
use super::known_answers::KnownAnswers;
use super::leases::Leases;
use super::names::Names;
use super::reclaim::Reclaims;
use super::scope::SubnetScope;
use super::serving::Serving;
use super::stats::ShardCounters;
use crate::classify::subnet::{self, Origin};
use crate::config::plan::classes::{BOOTP, DROP, REJECT};
use crate::config::plan::flex_id::FlexIdBuffer;
use crate::config::plan::{ChosenOptions, FlexId, Identifiers, SubnetIndex};
use crate::ids::{ClassId, LeaseRef, Lsn, ShardId};
use crate::lease::LIFETIME_INFINITE_S;
use crate::lease::address::Owner;
use crate::lease::table::KeyHash;
use crate::time::Now;
use crate::wire::codes::{MessageType, option};
use crate::wire::drop::DropReason;
use crate::wire::query::Query;

/// What is given with a query.
#[derive(Clone, Copy, Debug)]
pub struct Given<'a> {
    /// The time of the batch.
    pub now: Now,
    /// When it came, in nanoseconds of wall-clock time since the Unix epoch; 0 where nobody noted it.
    pub came_ns: u64,
    /// Where it came in.
    pub arrival: &'a Arrival,
    /// Classes that the HA scope gives to the query, in this order.
    pub scope_classes: &'a [ClassId],
    /// What judges the query by its subnet, with several HA relationships.
    pub by_subnet: Option<&'a dyn SubnetScope>,
    /// Another shard has passed it on.
    pub handed_over: bool,
    /// What [`Shard::prefetch`] said of the query; nothing when it was not asked.
    pub key_hash: Option<KeyHash>,
}

impl Given<'_> {
    /// The second in which the query came: a server that stood still reads it later.
    pub(super) fn came_s(&self) -> u64 {
        if self.came_ns == 0 { self.now.wall_s } else { (self.came_ns / 1_000_000_000).min(self.now.wall_s) }
    }
}

/// What becomes of a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing is sent.
    Drop(DropReason),
    /// Its client lives with another shard.
    HandOver(ShardId),
    /// The frame in the buffer leaves at once.
    Reply {
        /// Octets of the frame.
        len: usize,
        /// What it is.
        kind: MessageType,
    },
    /// The frame in the buffer leaves when `lsn` is safe.
    Park {
        /// Octets of the frame.
        len: usize,
        /// What it is.
        kind: MessageType,
        /// The log position of the lease's row.
        lsn: Lsn,
        /// The lease.
        lease: LeaseRef,
    },
    /// Leases changed and nobody is answered (RELEASE, DECLINE).
    Done(Lsn),
}

/// One shard's state of the exchange: its leases, and memory that it uses again for every query.
pub struct Shard {
    /// Its leases.
    pub leases: Leases,
    /// Where its allocators are.
    pub allocators: Allocators,
    /// What it counts.
    pub counters: Arc<ShardCounters>,
    /// Changes above this position wait for the answer of a peer that replies wait for; all are answered when there is none.
    pub answered: Lsn,
    /// Which beginning of the counters of pools this shard has taken part in ([`Serving::renewal`]).
    pub(super) renewal: u64,
    /// Of leases with no change since this position the partner may know otherwise: it is or was not waited for, or served their clients, or
    /// the server has started. What it has copied meanwhile is not told apart. Nothing without a partner.
    pub untold: Option<Lsn>,
    /// By number of the HA relationship whose expired leases are reclaimed here: all without HA.
    pub reclaims: Vec<Reclaims>,
    classifier: Option<Box<Classifier>>,
    pub(super) desk: Desk,
    pub(super) names: Names,
    /// Where the context of a lease is put together.
    pub(super) context: Box<[u8; CONTEXT_BYTES_MAX]>,
}

/// What a query is refused with on the way.
pub(super) type Step<T> = Result<T, DropReason>;

/// The subnet of a query that one of several relationships serves here; its classes come too late for the choice of the subnet.
fn in_scope(
    scope: &dyn SubnetScope,
    serving: &Serving,
    query: &Query<'_>,
    classifier: &mut Classifier,
) -> Step<SubnetIndex> {
    let selected = subnet::select(&serving.plan, &origin(query), classifier.classes());
    let relationship = selected.and_then(|subnet| serving.relationship_of(subnet));
    let classes = scope.classes(relationship).ok_or(DropReason::HaNotForUs)?;
    classifier.add(classes);
    selected.ok_or(DropReason::HaNotForUs)
}

impl Shard {
    /// A shard with these leases. Allocates.
    #[must_use]
    pub fn new(leases: Leases, allocators: Allocators, counters: Arc<ShardCounters>) -> Self {
        let subnet_count = allocators.subnet_count();
        Self {
            leases,
            allocators,
            counters,
            answered: Lsn(u64::MAX),
            renewal: 1,
            untold: None,
            reclaims: Vec::new(),
            classifier: Some(Box::default()),
            desk: Desk { configured: ChosenOptions::default(), known: KnownAnswers::new(subnet_count) },
            names: Names::default(),
            context: Box::new([0; CONTEXT_BYTES_MAX]),
        }
    }

    /// Before the first query of a new plan: when its pools are elsewhere, this shard's leases are counted into their new counters.
    pub fn take_plan(&mut self, serving: &Serving) {
        if self.renewal != serving.renewal {
            self.renewal = serving.renewal;
            self.leases.recount = Some(Ipv4Addr::UNSPECIFIED);
        }
    }

    /// Decides one query; a reply is written into `out` as a whole frame.
    #[inline(always)]
    pub fn process(
        &mut self,
        serving: &Serving,
        given: &Given<'_>,
        query: &Query<'_>,
        out: &mut [u8],
    ) -> Outcome {
        let mut classifier =
            self.classifier.take().expect("put back below, and `process` does not call itself");
        self.desk.known.serve(serving.number);
        let outcome = if !serving.plan.globals.stash_agent_options {
            self.decide(serving, given, query, &mut classifier, out)
        } else {
            let mut relay = [0; RELAY_BYTES_MAX];
            let recovered = self.recover_relay(serving, query, &mut relay);
            let query = Query { recovered_relay: recovered, ..*query };
            self.decide(serving, given, &query, &mut classifier, out)
        };
        self.classifier = Some(classifier);
        let overflows = &mut self.desk.configured.overflow_count;
        if *overflows > 0 {
            self.counters.options_left_out(std::mem::take(overflows));
        }
        outcome.unwrap_or_else(Outcome::Drop)
    }

    /// The relay agent information that the client's lease keeps, for a renewal that reaches the server without its relay
    /// (`stash-agent-options`); empty for every other query.
    fn recover_relay<'b>(
        &self,
        serving: &Serving,
        query: &Query<'_>,
        relay: &'b mut [u8; RELAY_BYTES_MAX],
    ) -> &'b [u8] {
        let ciaddr = query.packet.ciaddr();
        if query.message_type != Some(MessageType::Request)
            || ciaddr.is_unspecified()
            || !query.packet.giaddr().is_unspecified()
            || query.options.contains(option::AGENT_OPTIONS)
        {
            return &[];
        }
        let (Owner::InUse { shard, lease } | Owner::Stealable { shard, lease }) =
            self.leases.space.owner(ciaddr)
        else {
            return &[];
        };
        if shard != self.leases.shard
            || !self.belongs(serving, lease, query, query.client_id().unwrap_or(&[]))
        {
            return &[];
        }
        let len = super::context::relay_of(self.leases.table.view(lease).user_context, relay);
        &relay[..len]
    }

    #[inline(always)]
    fn decide(
        &mut self,
        serving: &Serving,
        given: &Given<'_>,
        query: &Query<'_>,
        classifier: &mut Classifier,
        out: &mut [u8],
    ) -> Step<Outcome> {
        let plan = &serving.plan;
        classifier.start(plan, query, given.scope_classes);
        match &plan.globals.flex_id {
            None => self.judge(serving, given, query, &[], classifier, out),
            Some(flex_id) => self.with_flex_id(flex_id, serving, given, query, classifier, out),
        }
    }

    /// Judges a query that has an identifier made by an expression. It is made after the first classes are known; from then
    /// on it may stand for the client's own, but not in the answer, and not for the HA scope, which was decided before.
    #[cold]
    fn with_flex_id(
        &mut self,
        flex_id: &FlexId,
        serving: &Serving,
        given: &Given<'_>,
        query: &Query<'_>,
        classifier: &mut Classifier,
        out: &mut [u8],
    ) -> Step<Outcome> {
        let mut made = FlexIdBuffer::default();
        classifier.flex_id(&serving.plan, flex_id, query, &mut made);
        if !flex_id.replaces_client_id {
            return self.judge(serving, given, query, made.as_bytes(), classifier, out);
        }
        let query = Query { replaced_client_id: made.as_client_id(), ..*query };
        let given = Given { key_hash: None, ..*given };
        self.judge(serving, &given, &query, made.as_bytes(), classifier, out)
    }

    fn judge(
        &mut self,
        serving: &Serving,
        given: &Given<'_>,
        query: &Query<'_>,
        flex_id: &[u8],
        classifier: &mut Classifier,
        out: &mut [u8],
    ) -> Step<Outcome> {
        let plan = &serving.plan;
        let kind = match query.message_type {
            Some(kind) => kind,
            None if query.option(option::MESSAGE_TYPE).is_some() => {
                return Err(DropReason::UnknownMessageType);
            }
            None if classifier.has(BOOTP) => MessageType::Request,
            None => return Err(DropReason::NoMessageType),
        };
        if !matches!(
            kind,
            MessageType::Discover
                | MessageType::Request
                | MessageType::Release
                | MessageType::Decline
                | MessageType::Inform
        ) {
            return Err(DropReason::UnsupportedMessageType);
        }
        let ciaddr = query.packet.ciaddr();
        if kind == MessageType::Inform
            && !query.is_relayed()
            && query.datagram.src.is_unspecified()
            && ciaddr.is_unspecified()
        {
            return Err(DropReason::InformNoSource);
        }
        self.check_server_id(serving, given, query, classifier.classes())?;
        if classifier.has(DROP) {
            return Err(DropReason::ClassDrop);
        }
        let identifiers = if plan.hosts.is_empty() {
            Identifiers::default()
        } else {
            identifiers(&plan.hosts, query, flex_id)
        };
        if plan.globals.early_global_lookup {
            if let Some(host) = plan.hosts.find(None, &identifiers) {
                classifier.reserve(plan, query, host);
                classifier.known(plan, query, true);
            }
            if classifier.has(DROP) {
                return Err(DropReason::ClassDropEarly);
            }
        }
        if kind == MessageType::Discover && query.options.contains(option::SERVER_ID) {
            return Err(DropReason::DiscoverServerId);
        }
        let hw_addr = query.hw_addr();
        let client_id = query.client_id().unwrap_or(&[]);
        if hw_addr.is_empty() && client_id.is_empty() {
            return Err(DropReason::NoClient);
        }
        if client_id.len() == 1 {
            return Err(DropReason::ClientIdShort);
        }
        // What ends a lease finds it by its address.
        if !matches!(kind, MessageType::Release | MessageType::Decline)
            && let Some(owner) = self.other_owner(&hw_addr, given.handed_over)
        {
            return Ok(Outcome::HandOver(owner));
        }
        let early = match given.by_subnet {
            Some(scope) => Some(in_scope(scope, serving, query, classifier)?),
            None => None,
        };
        match kind {
            MessageType::Release => return self.release(serving, given, query, client_id),
            MessageType::Decline => return self.decline(serving, given, query, client_id),
            _ => {}
        }

        let selected = match early {
            Some(early) => Some(early),
            None => subnet::select(plan, &origin(query), classifier.classes()),
        };
        let Some(selected) = selected else {
            if let Some(shard) = self.elsewhere(query, kind) {
                return Ok(Outcome::HandOver(shard));
            }
            return self.without_subnet(serving, given, query, kind, classifier, out);
        };
        let mut asker = Asker {
            plan,
            query,
            now: given.now,
            hw_addr: &hw_addr,
            client_id,
            identifiers: &identifiers,
            selected,
            host: plan.find_host(selected, &identifiers),
            key_hash: given.key_hash.unwrap_or_else(|| self.key_hash(query)),
            held: [None; 2],
        };
        if matches!(kind, MessageType::Discover | MessageType::Request) {
            asker.held = allocation::client_leases(&self.leases, &asker);
        }
        if !self.is_at_home(&asker, kind)
            && let Some(shard) = self.elsewhere(query, kind)
        {
            return Ok(Outcome::HandOver(shard));
        }
        let client = Client { asker: &asker, subnet: selected, classes: &[] };
        self.learn_reservation(&client, classifier)?;
        let rejected = classifier.has(REJECT);
        match kind {
            MessageType::Discover if rejected => Err(DropReason::ClassReject),
            MessageType::Discover => self.discover(serving, given, client, classifier, out),
            MessageType::Request if rejected => {
                self.nak(serving, given, query, Some(client.subnet), classifier, out)
            }
            MessageType::Request => self.request(serving, given, client, classifier, out),
            _ => self.inform(serving, given, client, classifier, out),
        }
    }

    /// Accepts queries without a server identifier or with one that is ours.
    fn check_server_id(
        &self,
        serving: &Serving,
        given: &Given<'_>,
        query: &Query<'_>,
        classes: &[ClassId],
    ) -> Step<()> {
        if !query.options.contains(option::SERVER_ID) {
            return Ok(());
        }
        let plan = &serving.plan;
        let Some(identifier) = query.server_id() else { return Err(DropReason::MalformedServerId) };
        let ours = query.relay_agent().server_id_override() == Some(identifier)
            || plan.globals.ignore_server_identifier
            || identifier == given.arrival.own_address
            || plan
                .interfaces
                .iter()
                .zip(&serving.arrivals)
                .any(|(interface, served)| served.is_some() && interface.addresses.contains(&identifier))
            || plan.is_server_identifier(identifier, classes);
        if ours { Ok(()) } else { Err(DropReason::ForeignServerId) }
    }

    /// KNOWN or UNKNOWN, the reservation's classes, the classes that depend on them.
    #[inline(always)]
    fn learn_reservation(&self, client: &Client<'_>, classifier: &mut Classifier) -> Step<()> {
        let plan = client.plan;
        let query = client.query;
        if plan.hosts.is_empty() {
            classifier.known(plan, query, false);
            return if classifier.has(DROP) { Err(DropReason::ClassDropReserved) } else { Ok(()) };
        }
        // Guards are asked with the classes known so far.
        let known = {
            let view = Client { classes: classifier.classes(), ..*client };
            let known = view.is_known();
            let single = plan.subnet(client.subnet).is_alone;
            let host = match view.host_in(client.subnet) {
                Some(host) if single => Some(host),
                _ => view.global_host(client.subnet),
            };
            (known, host)
        };
        if let Some(host) = known.1
            && !plan.hosts.host(host).classes.is_empty()
        {
            classifier.reserve(plan, query, host);
        }
        classifier.known(plan, query, known.0);
        if classifier.has(DROP) {
            return Err(DropReason::ClassDropReserved);
        }
        Ok(())
    }

    /// What is done for a client that no subnet serves.
    fn without_subnet(
        &mut self,
        serving: &Serving,
        given: &Given<'_>,
        query: &Query<'_>,
        kind: MessageType,
        classifier: &Classifier,
        out: &mut [u8],
    ) -> Step<Outcome> {
        match kind {
            MessageType::Request => {
                let init_reboot =
                    !query.options.contains(option::SERVER_ID) && query.requested_address().is_some();
                let rebinding = query.datagram.is_broadcast()
                    && !query.packet.ciaddr().is_unspecified()
                    && !query.options.contains(option::SERVER_ID)
                    && query.requested_address().is_none();
                if rebinding {
                    return Err(DropReason::RebindUnknown);
                }
                if init_reboot && !serving.plan.globals.authoritative {
                    return Err(DropReason::NoSubnet);
                }
                self.nak(serving, given, query, None, classifier, out)
            }
            MessageType::Inform => {
                let verdict = Verdict::bare(MessageType::Ack);
                self.reply(serving, given, query, &verdict, classifier.classes(), out)
            }
            _ => Err(DropReason::NoSubnet),
        }
    }

    /// The answer without a lease to a client that can do without IPv4 (RFC 8925).
    pub(super) fn v6_only(
        &mut self,
        serving: &Serving,
        given: &Given<'_>,
        client: Client<'_>,
        kind: MessageType,
        classifier: &mut Classifier,
        out: &mut [u8],
    ) -> Step<Outcome> {
        let host = {
            let view = Client { classes: classifier.classes(), ..client };
            view.current_host()
        };
        classifier.additional(client.plan, client.query, client.subnet, None);
        let verdict = Verdict { subnet: Some(client.subnet), host, ..Verdict::bare(kind) };
        self.reply(serving, given, client.query, &verdict, classifier.classes(), out)
    }

    fn inform(
        &mut self,
        serving: &Serving,
        given: &Given<'_>,
        client: Client<'_>,
        classifier: &mut Classifier,
        out: &mut [u8],
    ) -> Step<Outcome> {
        let host = {
            let view = Client { classes: classifier.classes(), ..client };
            view.current_host()
        };
        classifier.additional(client.plan, client.query, client.subnet, None);
        let view = Client { classes: classifier.classes(), ..client };
        // Names belong to leases: an INFORM gets none.
        let verdict = Verdict { subnet: Some(client.subnet), host, ..Verdict::bare(MessageType::Ack) };
        let len = answer::write(
            client.plan,
            client.query,
            given.arrival,
            view.classes,
            &verdict,
            &mut self.desk,
            out,
        )?;
        let _ = serving;
        Ok(Outcome::Reply { len, kind: MessageType::Ack })
    }

    pub(super) fn nak(
        &mut self,
        serving: &Serving,
        given: &Given<'_>,
        query: &Query<'_>,
        subnet: Option<SubnetIndex>,
        classifier: &Classifier,
        out: &mut [u8],
    ) -> Step<Outcome> {
        let verdict = Verdict { subnet, ..Verdict::bare(MessageType::Nak) };
        self.reply(serving, given, query, &verdict, classifier.classes(), out)
    }

    pub(super) fn reply(
        &mut self,
        serving: &Serving,
        given: &Given<'_>,
        query: &Query<'_>,
        verdict: &Verdict<'_>,
        classes: &[ClassId],
        out: &mut [u8],
    ) -> Step<Outcome> {
        let plan = &serving.plan;
        let len = answer::write(plan, query, given.arrival, classes, verdict, &mut self.desk, out)?;
        Ok(Outcome::Reply { len, kind: verdict.kind })
    }

    /// The classes that follow from where the lease is: the reservation's within a shared network, additional ones.
    #[inline(always)]
    pub(super) fn settle_classes(&self, client: &Client<'_>, place: Place, classifier: &mut Classifier) {
        let plan = client.plan;
        if !plan.subnet(place.subnet).is_alone {
            let host = {
                let view = Client { classes: classifier.classes(), ..*client };
                view.host_in(place.subnet)
            };
            if let Some(host) = host {
                classifier.add_host(plan, client.query, host);
            }
        }
        classifier.additional(plan, client.query, place.subnet, place.pool);
    }

    /// Lifetime and timers for a lease at `place`.
    #[inline(always)]
    pub(super) fn times(
        &self,
        serving: &Serving,
        client: &Client<'_>,
        place: Place,
        renewed: Option<LeaseRef>,
    ) -> Times {
        let plan = client.plan;
        let subnet = plan.subnet(place.subnet);
        let lifetimes = plan.lifetimes(place.subnet, client.classes);
        let mut valid_s = if client.classes.contains(&BOOTP) {
            LIFETIME_INFINITE_S
        } else {
            lifetimes.granted_s(client.query.requested_lease_time())
        };
        if let Some(threshold) = subnet.adaptive_threshold
            && Leases::occupancy(serving, place.subnet) >= threshold
            && valid_s != LIFETIME_INFINITE_S
        {
            let remaining_s = renewed.map_or(0, |lease| {
                let expire = self.leases.table.record(lease).expire();
                u32::try_from(expire.saturating_sub(client.now.wall_s)).unwrap_or(u32::MAX)
            });
            valid_s = remaining_s.min(valid_s).max(lifetimes.min_s);
        }
        let (t1_s, t2_s) = subnet.t1_t2_s(valid_s);
        Times { valid_s, t1_s, t2_s }
    }
}

/// What subnet selection asks of a query.
#[inline(always)]
fn origin(query: &Query<'_>) -> Origin {
    Origin {
        link_selection: query.relay_agent().link_selection(),
        subnet_selection: query.subnet_selection(),
        // Also 255.255.255.255, which makes no query a relayed one: no subnet has such an address.
        giaddr: query.packet.giaddr(),
        ciaddr: query.packet.ciaddr(),
        source: query.datagram.src,
        to_broadcast: query.datagram.is_broadcast(),
        interface: query.interface,
    }
}
