//! The answer to a query: its fields, its options, and where it goes (RFC 2131 4.1 and 4.3).

use std::net::Ipv4Addr;

use super::client::Client;
use super::known_answers::{AnswerKey, KnownAnswers};
use crate::config::plan::{
    BootView, ChosenOptions, HostIndex, Plan, PoolIndex, ScopeIndex, Sources, SubnetIndex, Wanted, resolve,
    resolve_one,
};
use crate::ids::ClassId;
use crate::wire::codes::{self, CLIENT_PORT, MessageType, SERVER_PORT, option};
use crate::wire::dhcp4::{BOOT_NAMES, OPTIONS_OFFSET};
use crate::wire::drop::DropReason;
use crate::wire::frame::{self, Addresses, PAYLOAD_OFFSET};
use crate::wire::query::Query;
use crate::wire::reply::{OptionList, Reply};
use crate::wire::template::Varying;

/// Where a packet came in and how an answer leaves from there.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// The interface's hardware address: the source of our frames.
    pub l2_own: [u8; 6],
    /// The address that the interface serves on: the source of answers to broadcasts.
    pub own_address: Ipv4Addr,
    /// Raw sockets reach a client that has no address yet; `udp` sockets do not.
    pub raw: bool,
}

/// What the rules have decided an answer says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Verdict<'a> {
    pub(super) kind: MessageType,
    pub(super) yiaddr: Ipv4Addr,
    /// The lease's lifetime and timers, seconds; nothing in answers without a lease.
    pub(super) lease: Option<Times>,
    pub(super) netmask: Ipv4Addr,
    pub(super) subnet: Option<SubnetIndex>,
    pub(super) pool: Option<PoolIndex>,
    pub(super) host: Option<HostIndex>,
    /// Option 12 for the client; empty for none.
    pub(super) host_name: &'a [u8],
    /// Option 81 for the client; empty for none.
    pub(super) fqdn: &'a [u8],
}

/// Lifetime and timers of a lease, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Times {
    pub(super) valid_s: u32,
    pub(super) t1_s: Option<u32>,
    pub(super) t2_s: Option<u32>,
}

impl Verdict<'_> {
    /// An answer without address, name and options of a subnet.
    pub(super) const fn bare(kind: MessageType) -> Self {
        Self {
            kind,
            yiaddr: Ipv4Addr::UNSPECIFIED,
            lease: None,
            netmask: Ipv4Addr::UNSPECIFIED,
            subnet: None,
            pool: None,
            host: None,
            host_name: &[],
            fqdn: &[],
        }
    }
}

/// The scopes that an answer takes options from.
fn sources<'a>(plan: &Plan, verdict: &Verdict<'_>, classes: &'a [ClassId]) -> Sources<'a> {
    let place = match (verdict.pool, verdict.subnet) {
        (Some(pool), _) => plan.pool(pool).options,
        (None, Some(subnet)) => plan.subnet(subnet).options,
        (None, None) => ScopeIndex::default(),
    };
    let host = verdict.host.map_or_else(ScopeIndex::default, |host| plan.hosts.host(host).options);
    Sources { host, place, classes }
}

/// The server identifier that the configuration gives to an answer; else it is the address that the query came to.
fn configured_identifier(plan: &Plan, verdict: &Verdict<'_>, classes: &[ClassId]) -> Option<[u8; 4]> {
    resolve_one(plan, &sources(plan, verdict, classes), option::SERVER_ID)
        .and_then(|value| value.first_chunk::<4>().copied())
}

/// The address that the query was sent to, or the interface's own when that was the broadcast address.
fn local_address(query: &Query<'_>, arrival: &Arrival) -> Ipv4Addr {
    if query.datagram.is_broadcast() { arrival.own_address } else { query.datagram.dst }
}

/// Room for the longest message that a frame carries.
const FRAME_BYTES: usize = 2048;

/// What a shard keeps to write answers with, used again for every one.
#[derive(Debug)]
pub(super) struct Desk {
    /// The configured options of one answer.
    pub(super) configured: ChosenOptions,
    /// Options of answers that were written before.
    pub(super) known: KnownAnswers,
}

/// Writes the whole frame of an answer into `out` and returns its length.
///
/// # Errors
/// [`DropReason::ReplyTooLong`] when it does not fit.
pub(super) fn write(
    plan: &Plan,
    query: &Query<'_>,
    arrival: &Arrival,
    classes: &[ClassId],
    verdict: &Verdict<'_>,
    desk: &mut Desk,
    out: &mut [u8],
) -> Result<usize, DropReason> {
    let request = matches!(query.message_type, Some(MessageType::Request));
    let inform = matches!(query.message_type, Some(MessageType::Inform));
    let nak = verdict.kind == MessageType::Nak;
    let mut reply = Reply::to(query);
    reply.yiaddr = verdict.yiaddr;
    if inform || (request && !nak && !verdict.yiaddr.is_unspecified()) {
        reply.ciaddr = query.packet.ciaddr();
    }
    // An answer to an INFORM that does not go back through the relay has nothing of the relay's.
    let to_client = inform && (!query.packet.ciaddr().is_unspecified() || !query.is_relayed());
    let own_address = local_address(query, arrival);
    let addresses = destination(query, arrival, verdict, &mut reply, own_address);
    if to_client {
        reply.hops = 0;
        reply.giaddr = Ipv4Addr::UNSPECIFIED;
    }
    // Information recovered from the lease is for the rules, not for the client (`recovered_relay`).
    let relay = query.options.find(query.packet.payload(), option::AGENT_OPTIONS).unwrap_or(&[]);
    // So is an identifier made by an expression (`replaced_client_id`): the client gets its own back.
    let client_id = query.options.find(query.packet.payload(), option::CLIENT_ID).unwrap_or(&[]);
    let mut varying = Varying {
        server_id: own_address.octets(),
        lease_time_s: verdict.lease.map(|times| times.valid_s),
        renewal_s: verdict.lease.and_then(|times| times.t1_s),
        rebinding_s: verdict.lease.and_then(|times| times.t2_s),
        host_name: verdict.host_name,
        client_id: if plan.globals.echo_client_id { client_id } else { &[] },
        fqdn: verdict.fqdn,
        relay: if to_client { &[] } else { relay },
    };
    let area = out.get_mut(PAYLOAD_OFFSET..).ok_or(DropReason::ReplyTooLong)?;

    let key = AnswerKey::new(plan, query, verdict, classes, &varying);
    if let Some(key) = &key
        && let Some(known) = desk.known.find(query, key)
    {
        let known_boot_names = known.answer.has_boot_names;
        let boot = if known_boot_names {
            boot_fields(plan, classes, verdict)
        } else {
            BootView { next_server: known.answer.next_server, ..BootView::default() }
        };
        set_boot(&mut reply, &boot);
        varying.server_id = known.answer.server_id.unwrap_or(varying.server_id);
        let payload_len = reply.emit_with(area, |area| known.emit(&varying, area))?;
        if cfg!(debug_assertions) {
            // Every test of the rules is a test of the short way, too.
            let mut long = [0; FRAME_BYTES];
            let len =
                compose(plan, query, &reply, classes, verdict, &varying, &mut desk.configured, &mut long)?;
            assert_eq!(area[..payload_len], long[..len], "the short way writes what the long way does");
        }
        let blank = if known_boot_names { 0..0 } else { BOOT_NAMES };
        return frame::emit_around(out, &addresses, payload_len, blank);
    }

    let configured_id = configured_identifier(plan, verdict, classes);
    varying.server_id = configured_id.unwrap_or(varying.server_id);
    let boot = if nak { BootView::default() } else { boot_fields(plan, classes, verdict) };
    set_boot(&mut reply, &boot);
    let overflows = desk.configured.overflow_count;
    let payload_len = compose(plan, query, &reply, classes, verdict, &varying, &mut desk.configured, area)?;
    if let Some(key) = &key
        && desk.configured.overflow_count == overflows
        && let Some(options) = area.get(OPTIONS_OFFSET..payload_len)
    {
        desk.known.learn(query, key, options, &varying, configured_id, &boot);
    }
    frame::emit(out, &addresses, payload_len)
}

/// Chooses the options of an answer and writes the message: the long way.
#[expect(clippy::too_many_arguments, reason = "what an answer is made of")]
fn compose(
    plan: &Plan,
    query: &Query<'_>,
    reply: &Reply<'_>,
    classes: &[ClassId],
    verdict: &Verdict<'_>,
    varying: &Varying<'_>,
    configured: &mut ChosenOptions,
    area: &mut [u8],
) -> Result<usize, DropReason> {
    let kind = [verdict.kind.number()];
    let netmask = verdict.netmask.octets();
    let times = [
        (option::LEASE_TIME, varying.lease_time_s),
        (option::RENEWAL_TIME, varying.renewal_s),
        (option::REBINDING_TIME, varying.rebinding_s),
    ]
    .map(|(code, time_s)| (code, time_s.map(u32::to_be_bytes)));
    let mut options = OptionList::new();
    let full = |_| DropReason::ReplyTooLong;
    options.push(option::MESSAGE_TYPE, &kind).map_err(full)?;
    options.push(option::SERVER_ID, &varying.server_id).map_err(full)?;
    if let Some(selection) = query.option(option::SUBNET_SELECTION) {
        options.push(option::SUBNET_SELECTION, selection).map_err(full)?;
    }
    if verdict.lease.is_some() {
        options.push(option::SUBNET_MASK, &netmask).map_err(full)?;
    }
    for (code, time) in &times {
        if let Some(time) = time {
            options.push(*code, time).map_err(full)?;
        }
    }
    let of_the_client = [
        (option::CLIENT_ID, varying.client_id),
        (option::AGENT_OPTIONS, varying.relay),
        (option::HOST_NAME, varying.host_name),
        (option::FQDN, varying.fqdn),
    ];
    for (code, value) in of_the_client.into_iter().filter(|(_, value)| !value.is_empty()) {
        options.push(code, value).map_err(full)?;
    }
    if verdict.kind == MessageType::Nak || verdict.subnet.is_none() {
        configured.clear();
    } else {
        let wanted = Wanted {
            requested: query.parameter_request_list(),
            already: options.codes(),
            vendor_class: query.option(option::VIVCO).unwrap_or(&[]),
            vendor_information: query.option(option::VIVSO).unwrap_or(&[]),
        };
        resolve(plan, &sources(plan, verdict, classes), &wanted, configured);
    }
    for (code, value) in configured.iter(plan) {
        options.push(code, value).map_err(full)?;
    }
    reply.emit(&options, area)
}

/// Next server and names to boot from; nothing without a subnet.
fn boot_fields<'a>(plan: &'a Plan, classes: &[ClassId], verdict: &Verdict<'_>) -> BootView<'a> {
    verdict.subnet.map_or_else(BootView::default, |subnet| plan.boot_fields(subnet, classes, verdict.host))
}

fn set_boot<'a>(reply: &mut Reply<'a>, boot: &BootView<'a>) {
    reply.siaddr = boot.next_server.unwrap_or(Ipv4Addr::UNSPECIFIED);
    reply.sname = boot.server_hostname.unwrap_or(&[]);
    reply.file = boot.boot_file_name.unwrap_or(&[]);
}

/// Where an answer goes; may set its BROADCAST flag on the way.
fn destination(
    query: &Query<'_>,
    arrival: &Arrival,
    verdict: &Verdict<'_>,
    reply: &mut Reply<'_>,
    src: Ipv4Addr,
) -> Addresses {
    let inform = matches!(query.message_type, Some(MessageType::Inform));
    let nak = verdict.kind == MessageType::Nak;
    let ciaddr = query.packet.ciaddr();
    let relayed = query.is_relayed();
    let relay_port =
        if relayed && query.relay_agent().has_relay_port() { query.datagram.src_port } else { SERVER_PORT };
    let (dst, dst_port) = if inform && !ciaddr.is_unspecified() {
        (ciaddr, CLIENT_PORT)
    } else if inform && relayed {
        reply.flags |= codes::FLAG_BROADCAST;
        (query.packet.giaddr(), relay_port)
    } else if inform {
        (query.datagram.src, CLIENT_PORT)
    } else if relayed {
        if nak {
            reply.flags = codes::FLAG_BROADCAST;
        }
        (query.packet.giaddr(), relay_port)
    } else if !ciaddr.is_unspecified() {
        (ciaddr, CLIENT_PORT)
    } else if nak {
        (Ipv4Addr::BROADCAST, CLIENT_PORT)
    } else if !verdict.yiaddr.is_unspecified() {
        let direct = arrival.raw && !query.packet.is_broadcast();
        (if direct { verdict.yiaddr } else { Ipv4Addr::BROADCAST }, CLIENT_PORT)
    } else if query.datagram.src.is_unspecified() {
        // An answer without an address to a client without one (option 108): nothing but broadcast can reach it.
        (Ipv4Addr::BROADCAST, CLIENT_PORT)
    } else {
        (query.datagram.src, CLIENT_PORT)
    };
    let broadcast = !relayed && reply.flags & codes::FLAG_BROADCAST != 0;
    let l2_dst = if broadcast { frame::BROADCAST } else { query.datagram.l2_src };
    Addresses { l2_src: arrival.l2_own, l2_dst, src, dst, src_port: SERVER_PORT, dst_port }
}

impl Client<'_> {
    /// Whether option 108 answers this client instead of a lease (RFC 8925): asked for, and configured in the network.
    #[inline(always)]
    pub(super) fn prefers_v6_only(&self) -> bool {
        self.plan.subnet(self.subnet).has_v6_only_preferred
            && self.query.parameter_request_list().contains(&option::V6_ONLY_PREFERRED)
    }
}
