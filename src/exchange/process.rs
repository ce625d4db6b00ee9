//! One query from parsed to decided, in the order of `spec`-like steps that Kea's drop counters make visible: each exit has
//! its [`DropReason`].

use std::net::Ipv4Addr;
use std::sync::Arc;

use super::allocation::{self, Grant, Place, Refusal};
use super::allocators::Allocators;
use super::answer::{self, Arrival, Desk, Times, Verdict};
use super::classifier::Classifier;
use super::client::{Asker, Client, identifiers};
use super::context::RELAY_BYTES_MAX;
use super::context::{self, CONTEXT_BYTES_MAX};
use super::known_answers::KnownAnswers;
use super::leases::{Leases, LetGo, is_over};
use super::names::{Names, name_lease};
use super::reclaim::Reclaims;
use super::scope::SubnetScope;
use super::serving::Serving;
use super::stats::{ShardCounters, add};
use crate::classify::subnet::{self, Origin};
use crate::config::plan::classes::{BOOTP, DROP, REJECT};
use crate::config::plan::flex_id::FlexIdBuffer;
use crate::config::plan::hosts::IdentifierKind;
use crate::config::plan::{ChosenOptions, FlexId, Identifiers, SubnetIndex};
use crate::ids::{ClassId, LeaseRef, Lsn, ShardId};
use crate::journal::ChangeOrigin;
use crate::lease::address::Owner;
use crate::lease::table::{KeyHash, prefetch};
use crate::lease::{LIFETIME_INFINITE_S, Lease4, LeaseState};
use crate::time::Now;
use crate::wire::codes::{MessageType, option};
use crate::wire::drop::DropReason;
use crate::wire::query::Query;

/// What is given with a query.
#[derive(Clone, Copy, Debug)]
pub struct Given<'a> {
    /// The time of the batch.
    pub now: Now,
    /// Where it came in.
    pub arrival: Arrival,
    /// Classes that the HA scope gives to the query, in this order.
    pub scope_classes: &'a [ClassId],
    /// What judges the query by its subnet, with several HA relationships.
    pub by_subnet: Option<&'a dyn SubnetScope>,
    /// Another shard has passed it on.
    pub handed_over: bool,
    /// What [`Shard::prefetch`] said of the query; nothing when it was not asked.
    pub key_hash: Option<KeyHash>,
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
    /// Of leases with no change since this position the partner that replies wait for may know otherwise: it was not waited for, or
    /// served their clients, or the server has started. What it has copied meanwhile is not told apart. Nothing without a partner.
    pub untold: Option<Lsn>,
    /// By number of the HA relationship whose expired leases are reclaimed here: all without HA.
    pub reclaims: Vec<Reclaims>,
    /// Changes of leases that have just been lost to another client, or with their lease: no reply may leave for them.
    pub(super) displaced: Vec<(Lsn, LeaseRef)>,
    classifier: Option<Box<Classifier>>,
    desk: Desk,
    names: Names,
    /// Where the context of a lease is put together.
    context: Box<[u8; CONTEXT_BYTES_MAX]>,
}

/// What a query is refused with on the way.
type Step<T> = Result<T, DropReason>;

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
            displaced: Vec::new(),
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

    /// A change whose reply must be taken back; to be asked for until there is none, after every step of [`Self::serve`].
    pub fn take_displaced(&mut self) -> Option<(Lsn, LeaseRef)> {
        self.displaced.pop()
    }

    /// Starts loading what [`Self::process`] will look at first: the bucket of the client in the table.
    pub fn prefetch(&self, query: &Query<'_>) -> KeyHash {
        let hash = self.key_hash(query);
        self.leases.table.prefetch(hash);
        hash
    }

    /// Starts loading what the plan has for this query, where that is more than stays near: the answer's options, the subnet.
    /// Gives the subnet that it most likely starts in.
    pub fn prefetch_plan(&self, serving: &Serving, query: &Query<'_>) -> Option<SubnetIndex> {
        self.desk.known.prefetch(query);
        let likely =
            query.is_relayed().then(|| serving.plan.likely_subnet(query.packet.giaddr())).flatten()?;
        prefetch(serving.plan.subnet(likely));
        Some(likely)
    }

    /// Starts loading what `likely`, which should be there by now, leads to: its first pool and network, and where the reservations
    /// of this client would be.
    pub fn prefetch_subnet(serving: &Serving, query: &Query<'_>, likely: SubnetIndex) {
        let plan = &serving.plan;
        let subnet = plan.subnet(likely);
        if !subnet.is_alone {
            prefetch(plan.network(subnet.network));
        }
        if let Some(pool) = plan.pools_of(likely).first() {
            prefetch(pool);
        }
        if subnet.has_hosts {
            let hw_addr = query.hw_addr();
            let of_hw =
                plan.hosts.first_look(likely, subnet.filter, IdentifierKind::HwAddress, hw_addr.as_bytes());
            let client_id = query.client_id();
            let of_id = client_id
                .and_then(|id| plan.hosts.first_look(likely, subnet.filter, IdentifierKind::ClientId, id));
            for tag in [of_hw, of_id].into_iter().flatten() {
                prefetch(tag);
            }
        }
    }

    /// The hash of the key that a client's lease is first looked for with: its identifier, else its hardware address.
    fn key_hash(&self, query: &Query<'_>) -> KeyHash {
        match query.client_id() {
            Some(client_id) => self.leases.table.hash_client_id(client_id),
            None => self.leases.table.hash_hw(&query.hw_addr()),
        }
    }

    /// Decides one query; a reply is written into `out` as a whole frame.
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
        let identifiers =
            if plan.hosts.is_empty() { Identifiers::default() } else { identifiers(query, flex_id) };
        if plan.globals.early_global_lookup {
            if let Some(host) = plan.hosts.find(None, &plan.globals.identifier_order, &identifiers) {
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
            && let Some(shard) = self.elsewhere(query, kind, given.handed_over)
        {
            return Ok(Outcome::HandOver(shard));
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

        let selected = early.or_else(|| subnet::select(plan, &origin(query), classifier.classes()));
        let Some(selected) = selected else {
            return self.without_subnet(serving, given, query, kind, classifier, out);
        };
        let asker = Asker {
            plan,
            query,
            now: given.now,
            hw_addr: &hw_addr,
            client_id,
            identifiers: &identifiers,
            key_hash: given.key_hash.unwrap_or_else(|| self.key_hash(query)),
            network: plan.subnet(selected).network,
        };
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

    /// The shard that serves this client, if it is another one. The owner of the client says so: it has the client's lease, or knows from
    /// the directory who has. A query goes at most to the owner, and from there to one that is not the owner, where it stays. Asked only
    /// with several shards.
    fn elsewhere(&self, query: &Query<'_>, kind: MessageType, handed_over: bool) -> Option<ShardId> {
        self.leases.directory.as_ref()?;
        let hw_addr = query.hw_addr();
        let owner = self.leases.steering.owner(&hw_addr);
        if owner != self.leases.shard {
            return (!handed_over).then_some(owner);
        }
        let table = &self.leases.table;
        if let Some(client_id) = query.client_id() {
            let hash = table.hash_client_id(client_id);
            let found = table.with_client_id(hash, client_id);
            if let Some(place) = self.place_of_wanted(query, kind, hash, found) {
                return place;
            }
            if let Some(shard) = self.leases.elsewhere(hash) {
                return Some(shard);
            }
        }
        let hash = table.hash_hw(&hw_addr);
        let found = table.with_hw(hash, &hw_addr, query.client_id().unwrap_or(&[]));
        self.place_of_wanted(query, kind, hash, found).unwrap_or_else(|| self.leases.elsewhere(hash))
    }

    /// Where a client that has leases here, `found` under `hash`, is served; nothing when it has none here. A REQUEST for an address that
    /// another shard holds for the client belongs there: a client can have leases with two shards, when one of them came from the partner
    /// on an address that the shard had for somebody else before.
    fn place_of_wanted(
        &self,
        query: &Query<'_>,
        kind: MessageType,
        hash: KeyHash,
        mut found: impl Iterator<Item = LeaseRef>,
    ) -> Option<Option<ShardId>> {
        let first = found.next()?;
        let wanted = query.requested_address().unwrap_or_else(|| query.packet.ciaddr());
        let is_wanted = |lease| self.leases.table.record(lease).address() == wanted;
        if kind != MessageType::Request || wanted.is_unspecified() || is_wanted(first) || found.any(is_wanted)
        {
            return Some(None);
        }
        Some(match self.leases.space.owner(wanted) {
            Owner::InUse { shard, .. } if self.leases.is_with(hash, shard) => Some(shard),
            _ => None,
        })
    }

    /// KNOWN or UNKNOWN, the reservation's classes, the classes that depend on them.
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

    fn discover<'a>(
        &mut self,
        serving: &Serving,
        given: &Given<'_>,
        client: Client<'a>,
        classifier: &mut Classifier,
        out: &mut [u8],
    ) -> Step<Outcome> {
        let v6_only = client.prefers_v6_only();
        let place = {
            let mut view = Client { classes: classifier.classes(), ..client };
            if v6_only {
                None
            } else {
                Some(allocation::offer(&self.leases, &mut self.allocators, serving, &mut view)?)
            }
        };
        let Some(place) = place else {
            return self.v6_only(serving, given, client, MessageType::Offer, classifier, out);
        };
        let client = Client { subnet: place.subnet, ..client };
        // Lifetimes come with the allocation: classes that follow from it come too late for them.
        let (times, stored_s) = {
            let view = Client { classes: classifier.classes(), ..client };
            (self.times(serving, &view, place, None), view.offer_lifetime_s())
        };
        self.settle_classes(&client, place, classifier);
        let view = Client { classes: classifier.classes(), ..client };
        let host = view.current_host();
        name_lease(&mut self.names, &view, host, place.pool, place.address);
        let kept = if stored_s > 0 { self.store_offer(serving, &view, place, stored_s)? } else { None };
        let verdict = Verdict {
            kind: MessageType::Offer,
            yiaddr: place.address,
            lease: Some(times),
            netmask: client.plan.subnet(place.subnet).netmask,
            subnet: Some(place.subnet),
            pool: place.pool,
            host,
            host_name: self.names.host_name(),
            fqdn: self.names.fqdn(),
        };
        let len = answer::write(
            client.plan,
            client.query,
            &given.arrival,
            view.classes,
            &verdict,
            &mut self.desk,
            out,
        )?;
        let kind = MessageType::Offer;
        Ok(kept.map_or(Outcome::Reply { len, kind }, |(lease, lsn)| Outcome::Park { len, kind, lsn, lease }))
    }

    /// Keeps the address of an offer for its client for `valid_s` seconds (`offer-lifetime`). A lease that the client has in
    /// use stays as it is: a DISCOVER does not shorten or end it.
    fn store_offer(
        &mut self,
        serving: &Serving,
        client: &Client<'_>,
        place: Place,
        valid_s: u32,
    ) -> Step<Option<(LeaseRef, Lsn)>> {
        let wall_s = client.now.wall_s;
        let own = allocation::client_lease(&self.leases, client);
        if own.is_some_and(|lease| !is_over(self.leases.table.record(lease), wall_s)) {
            return Ok(None);
        }
        let lease = Lease4 {
            address: place.address,
            hw_addr: *client.hw_addr,
            client_id: client.client_id_in(place.subnet),
            cltt: wall_s,
            valid_lft: valid_s,
            subnet_id: client.plan.subnet(place.subnet).id,
            pool_id: place.pool.map_or(0, |pool| client.plan.pool(pool).pool_id),
            state: LeaseState::Assigned,
            fqdn_fwd: false,
            fqdn_rev: false,
            hostname: self.names.lease_name(),
            user_context: &[],
        };
        let renewed = own.filter(|&lease| self.leases.table.record(lease).address() == place.address);
        let stored = match renewed {
            Some(old) => {
                self.leases.ready()?;
                self.leases.count_reclaimed(serving, old);
                self.leases.update(serving, old, &lease, ChangeOrigin::Client)?
            }
            None => self.leases.create(serving, &lease, own, wall_s, ChangeOrigin::Client)?,
        };
        Ok(Some(stored))
    }

    /// The answer without a lease to a client that can do without IPv4 (RFC 8925).
    fn v6_only(
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

    fn request(
        &mut self,
        serving: &Serving,
        given: &Given<'_>,
        mut client: Client<'_>,
        classifier: &mut Classifier,
        out: &mut [u8],
    ) -> Step<Outcome> {
        let query = client.query;
        if client.prefers_v6_only() {
            return self.v6_only(serving, given, client, MessageType::Ack, classifier, out);
        }
        let ciaddr = query.packet.ciaddr();
        let wanted = query.requested_address().or_else(|| (!ciaddr.is_unspecified()).then_some(ciaddr));
        let wanted = wanted.filter(|address| !address.is_unspecified());
        let init_reboot = !query.options.contains(option::SERVER_ID) && query.requested_address().is_some();
        let [own, surplus] = {
            let view = Client { classes: classifier.classes(), ..client };
            allocation::requested_lease(&self.leases, &view, wanted)
        };
        if init_reboot {
            let authoritative = client.plan.subnet(client.subnet).authoritative;
            match own.map(|lease| self.leases.table.record(lease).address()) {
                None if !authoritative => return Err(DropReason::InitRebootUnknown),
                Some(address) if Some(address) == wanted => {}
                _ => return self.nak(serving, given, query, Some(client.subnet), classifier, out),
            }
        }
        let granted = {
            let mut view = Client { classes: classifier.classes(), ..client };
            let granted =
                allocation::grant(&self.leases, &mut view, wanted, own).and_then(|granted| match granted {
                    Grant::Any(own) => {
                        allocation::unreserved(&self.leases, &mut self.allocators, serving, &view)
                            .map(|place| Grant::Create(place, own))
                            .map_err(|_| Refusal::Nak)
                    }
                    other => Ok(other),
                });
            client.subnet = view.subnet;
            granted
        };
        let (place, old) = match granted {
            Ok(Grant::Renew(lease, place)) => (place, Some(lease)),
            Ok(Grant::Create(place, own)) => (place, own),
            Ok(Grant::Any(_)) => unreachable!("resolved above"),
            Err(Refusal::Nak) => {
                return self.nak(serving, given, query, Some(client.subnet), classifier, out);
            }
            Err(Refusal::UnknownAddress) => return Err(DropReason::UnknownAddress),
        };
        client.subnet = place.subnet;
        let renewed = old.filter(|&lease| self.leases.table.record(lease).address() == place.address);
        let mut times = {
            let view = Client { classes: classifier.classes(), ..client };
            self.times(serving, &view, place, renewed)
        };
        self.settle_classes(&client, place, classifier);
        let view = Client { classes: classifier.classes(), ..client };
        let host = view.current_host();
        name_lease(&mut self.names, &view, host, place.pool, place.address);

        let wall_s = given.now.wall_s;
        let pool_id = place.pool.map_or(0, |pool| client.plan.pool(pool).pool_id);
        let subnet = client.plan.subnet(place.subnet);
        let context_kept = renewed.map_or(&[][..], |lease| self.leases.table.user_context(lease));
        let context_len =
            context::of_query(client.plan.subnet(place.subnet), query, context_kept, &mut self.context);
        let lease = Lease4 {
            address: place.address,
            hw_addr: *client.hw_addr,
            client_id: client.client_id_in(place.subnet),
            cltt: wall_s,
            valid_lft: times.valid_s,
            subnet_id: subnet.id,
            pool_id,
            state: LeaseState::Assigned,
            fqdn_fwd: self.names.forward(),
            fqdn_rev: self.names.reverse(),
            hostname: self.names.lease_name(),
            user_context: &self.context[..context_len],
        };
        if let Some(surplus) = surplus.filter(|_| renewed.is_some()) {
            self.leases.ready()?;
            self.leases.delete(serving, surplus, ChangeOrigin::Client)?;
        }
        let (stored, lsn) = match renewed {
            Some(old) => {
                let record = self.leases.table.record(old);
                let usable = record.state() == LeaseState::Assigned && !record.is_expired(wall_s);
                let same = usable && same_but_times(&self.leases.table.view(old), &lease);
                if same && let Some(remaining) = self.cached(serving, &view, old, times.valid_s) {
                    let (t1_s, t2_s) = client.plan.subnet(place.subnet).t1_t2_s(remaining);
                    times = Times { valid_s: remaining, t1_s, t2_s };
                    (old, self.leases.table.record(old).pending_lsn())
                } else if same {
                    (old, self.leases.renew(old, wall_s, times.valid_s)?)
                } else {
                    let expired = usable_but_expired(record, wall_s);
                    if expired {
                        self.leases.ready()?;
                        self.leases.count_reclaimed(serving, old);
                    }
                    match self.leases.update(serving, old, &lease, ChangeOrigin::Client) {
                        Err(DropReason::NoLease) => {
                            return self.nak(serving, given, query, Some(place.subnet), classifier, out);
                        }
                        other => other?,
                    }
                }
            }
            None => match self.leases.create(serving, &lease, old, wall_s, ChangeOrigin::Client) {
                Err(DropReason::NoLease) => {
                    return self.nak(serving, given, query, Some(place.subnet), classifier, out);
                }
                other => other?,
            },
        };
        if renewed.is_none() {
            self.allocators.prefer(client.network, place.subnet);
        }
        let verdict = Verdict {
            kind: MessageType::Ack,
            yiaddr: place.address,
            lease: Some(times),
            netmask: subnet.netmask,
            subnet: Some(place.subnet),
            pool: place.pool,
            host,
            host_name: self.names.host_name(),
            fqdn: self.names.fqdn(),
        };
        let len =
            answer::write(client.plan, query, &given.arrival, view.classes, &verdict, &mut self.desk, out)?;
        Ok(Outcome::Park { len, kind: MessageType::Ack, lsn, lease: stored })
    }

    /// The remaining lifetime of a lease that is answered from the cache; nothing when it must be written.
    fn cached(&self, serving: &Serving, client: &Client<'_>, lease: LeaseRef, valid_s: u32) -> Option<u32> {
        let record = self.leases.table.record(lease);
        // A reply that waits for a partner must not be about a lease that the partner has never heard of, or has ended.
        let is_untold = self.untold.is_some_and(|untold| record.pending_lsn() <= untold);
        if is_untold
            || record.is_uncacheable()
            || record.valid_lft() != valid_s
            || valid_s == LIFETIME_INFINITE_S
        {
            return None;
        }
        let age_s = client.now.wall_s.checked_sub(record.cltt())?;
        if !client.plan.subnet(client.subnet).cache.covers(age_s, valid_s) {
            return None;
        }
        for stats in [&*self.leases.totals, serving.subnet_stats(client.subnet)] {
            add(&stats.reuses, 1);
        }
        valid_s.checked_sub(u32::try_from(age_s).ok()?)
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
            &given.arrival,
            view.classes,
            &verdict,
            &mut self.desk,
            out,
        )?;
        let _ = serving;
        Ok(Outcome::Reply { len, kind: MessageType::Ack })
    }

    /// The lease that a client gives back by `ciaddr`; never answered.
    fn release(
        &mut self,
        serving: &Serving,
        given: &Given<'_>,
        query: &Query<'_>,
        client_id: &[u8],
    ) -> Step<Outcome> {
        let address = query.packet.ciaddr();
        let lease = self.own_lease(given, address, query)?;
        let lease = match lease {
            Held::Here(lease) => lease,
            Held::There(shard) => return Ok(Outcome::HandOver(shard)),
            Held::Nowhere => return Err(DropReason::ReleaseNoLease),
        };
        if !self.belongs(serving, lease, query, client_id) {
            return Err(DropReason::ReleaseWrongClient);
        }
        if self.leases.table.record(lease).state() != LeaseState::Assigned {
            return Err(DropReason::ReleaseState);
        }
        let infinite = self.leases.table.record(lease).valid_lft() == LIFETIME_INFINITE_S;
        let lsn = if serving.keeps_released() && !infinite {
            self.leases.let_go(serving, lease, LetGo::Release { wall_s: given.now.wall_s })?
        } else {
            self.leases.ready()?;
            self.leases.delete(serving, lease, ChangeOrigin::Client)?
        };
        Ok(Outcome::Done(lsn))
    }

    /// The lease that a client found in use by somebody else; never answered.
    fn decline(
        &mut self,
        serving: &Serving,
        given: &Given<'_>,
        query: &Query<'_>,
        client_id: &[u8],
    ) -> Step<Outcome> {
        let Some(address) = query.requested_address() else { return Err(DropReason::DeclineNoAddress) };
        let lease = match self.own_lease(given, address, query)? {
            Held::Here(lease) => lease,
            Held::There(shard) => return Ok(Outcome::HandOver(shard)),
            Held::Nowhere => return Err(DropReason::DeclineNoLease),
        };
        let record = self.leases.table.record(lease);
        if record.state() != LeaseState::Assigned || is_over(record, given.now.wall_s) {
            return Err(DropReason::DeclineNoLease);
        }
        if !self.belongs(serving, lease, query, client_id) {
            return Err(DropReason::DeclineWrongClient);
        }
        let probation_s = serving.plan.globals.decline_probation_s;
        let lsn = self.leases.decline(serving, lease, given.now.wall_s, probation_s)?;
        Ok(Outcome::Done(lsn))
    }

    /// Who holds `address`.
    fn own_lease(&self, given: &Given<'_>, address: Ipv4Addr, _query: &Query<'_>) -> Step<Held> {
        Ok(match self.leases.space.owner(address) {
            Owner::InUse { shard, lease } | Owner::Stealable { shard, lease } => {
                if shard == self.leases.shard {
                    Held::Here(lease)
                } else if given.handed_over {
                    Held::Nowhere
                } else {
                    Held::There(shard)
                }
            }
            Owner::Unknown | Owner::Free | Owner::Retiring { .. } => Held::Nowhere,
        })
    }

    fn belongs(&self, serving: &Serving, lease: LeaseRef, query: &Query<'_>, client_id: &[u8]) -> bool {
        let record = self.leases.table.record(lease);
        let matches = serving
            .plan
            .subnet_by_id(record.subnet_id())
            .is_none_or(|subnet| serving.plan.subnet(subnet).match_client_id);
        self.leases.table.belongs(lease, &query.hw_addr(), if matches { client_id } else { &[] })
    }

    fn nak(
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

    fn reply(
        &mut self,
        serving: &Serving,
        given: &Given<'_>,
        query: &Query<'_>,
        verdict: &Verdict<'_>,
        classes: &[ClassId],
        out: &mut [u8],
    ) -> Step<Outcome> {
        let plan = &serving.plan;
        let len = answer::write(plan, query, &given.arrival, classes, verdict, &mut self.desk, out)?;
        Ok(Outcome::Reply { len, kind: verdict.kind })
    }

    /// The classes that follow from where the lease is: the reservation's within a shared network, additional ones.
    fn settle_classes(&self, client: &Client<'_>, place: Place, classifier: &mut Classifier) {
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
    fn times(
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

/// Where a lease is held.
enum Held {
    Here(LeaseRef),
    There(ShardId),
    Nowhere,
}

/// Whether a lease is in use by its state but over by its time.
fn usable_but_expired(record: &crate::lease::table::Record, wall_s: u64) -> bool {
    record.state() == LeaseState::Assigned && record.is_expired(wall_s)
}

/// Whether a renewal changes nothing but the times.
fn same_but_times(old: &Lease4<'_>, new: &Lease4<'_>) -> bool {
    Lease4 { cltt: new.cltt, valid_lft: new.valid_lft, ..*old } == *new
}

/// What subnet selection asks of a query.
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
