//! The answer to a query: its fields, its options, and where it goes (RFC 2131 4.1 and 4.3).

use std::net::Ipv4Addr;

use super::client::Client;
use crate::config::plan::{
    BootFields, ChosenOptions, HostIndex, Plan, PoolIndex, ScopeIndex, Sources, SubnetIndex, Wanted, resolve,
    resolve_one,
};
use crate::ids::ClassId;
use crate::wire::codes::{self, CLIENT_PORT, MessageType, SERVER_PORT, option};
use crate::wire::drop::DropReason;
use crate::wire::frame::{self, Addresses, PAYLOAD_OFFSET};
use crate::wire::query::Query;
use crate::wire::reply::{OptionList, Reply};

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

/// The server identifier of an answer: configured, else the address that the query came to.
pub(super) fn server_identifier(
    plan: &Plan,
    query: &Query<'_>,
    arrival: &Arrival,
    verdict: &Verdict<'_>,
    classes: &[ClassId],
) -> Ipv4Addr {
    let configured = resolve_one(plan, &sources(plan, verdict, classes), option::SERVER_ID)
        .and_then(|value| value.first_chunk::<4>().copied());
    if let Some(octets) = configured {
        return Ipv4Addr::from(octets);
    }
    local_address(query, arrival)
}

/// The address that the query was sent to, or the interface's own when that was the broadcast address.
fn local_address(query: &Query<'_>, arrival: &Arrival) -> Ipv4Addr {
    if query.datagram.is_broadcast() { arrival.own_address } else { query.datagram.dst }
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
    configured: &mut ChosenOptions,
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
    let sources = sources(plan, verdict, classes);
    if !nak && let Some(subnet) = verdict.subnet {
        let boot = &plan.subnet(subnet).boot;
        let host = verdict.host.and_then(|host| plan.hosts.host(host).boot.as_deref());
        let class = |pick: fn(&BootFields) -> bool| {
            classes
                .iter()
                .filter_map(|&class| plan.class(class))
                .map(|class| &class.boot)
                .find(|boot| pick(boot))
        };
        let has_next = |boot: &BootFields| boot.next_server.is_some();
        let has_name = |boot: &BootFields| boot.server_hostname.is_some();
        let has_file = |boot: &BootFields| boot.boot_file_name.is_some();
        let first = |pick: fn(&BootFields) -> bool| {
            host.filter(|boot| pick(boot)).or_else(|| class(pick)).unwrap_or(boot)
        };
        reply.siaddr = first(has_next).next_server.unwrap_or(Ipv4Addr::UNSPECIFIED);
        reply.sname = first(has_name).server_hostname.as_deref().unwrap_or(&[]);
        reply.file = first(has_file).boot_file_name.as_deref().unwrap_or(&[]);
    }

    // An answer to an INFORM that does not go back through the relay has nothing of the relay's.
    let to_client = inform && (!query.packet.ciaddr().is_unspecified() || !query.is_relayed());
    let kind = [verdict.kind.number()];
    let identifier = server_identifier(plan, query, arrival, verdict, classes).octets();
    let netmask = verdict.netmask.octets();
    let times = verdict.lease.map(|times| {
        (times.valid_s.to_be_bytes(), times.t1_s.map(u32::to_be_bytes), times.t2_s.map(u32::to_be_bytes))
    });
    let mut options = OptionList::new();
    let full = |_| DropReason::ReplyTooLong;
    options.push(option::MESSAGE_TYPE, &kind).map_err(full)?;
    options.push(option::SERVER_ID, &identifier).map_err(full)?;
    if plan.globals.echo_client_id
        && let Some(client_id) = query.client_id()
    {
        options.push(option::CLIENT_ID, client_id).map_err(full)?;
    }
    if let Some(selection) = query.option(option::SUBNET_SELECTION) {
        options.push(option::SUBNET_SELECTION, selection).map_err(full)?;
    }
    // Information recovered from the lease is for the rules, not for the client (`recovered_relay`).
    let relay = query.relay_agent().as_bytes();
    if !relay.is_empty() && query.recovered_relay.is_empty() && !to_client {
        options.push(option::AGENT_OPTIONS, relay).map_err(full)?;
    }
    if let Some((valid, t1, t2)) = &times {
        options.push(option::LEASE_TIME, valid).map_err(full)?;
        options.push(option::SUBNET_MASK, &netmask).map_err(full)?;
        if let Some(t1) = t1 {
            options.push(option::RENEWAL_TIME, t1).map_err(full)?;
        }
        if let Some(t2) = t2 {
            options.push(option::REBINDING_TIME, t2).map_err(full)?;
        }
    }
    if !verdict.host_name.is_empty() {
        options.push(option::HOST_NAME, verdict.host_name).map_err(full)?;
    }
    if !verdict.fqdn.is_empty() {
        options.push(option::FQDN, verdict.fqdn).map_err(full)?;
    }
    if nak || verdict.subnet.is_none() {
        configured.clear();
    } else {
        let wanted = Wanted {
            requested: query.parameter_request_list(),
            already: options.codes(),
            vendor_class: query.option(option::VIVCO).unwrap_or(&[]),
            vendor_information: query.option(option::VIVSO).unwrap_or(&[]),
        };
        resolve(plan, &sources, &wanted, configured);
    }
    for (code, value) in configured.iter(plan) {
        options.push(code, value).map_err(full)?;
    }

    let addresses = destination(query, arrival, verdict, &mut reply, local_address(query, arrival));
    if to_client {
        reply.hops = 0;
        reply.giaddr = Ipv4Addr::UNSPECIFIED;
    }
    let area = out.get_mut(PAYLOAD_OFFSET..).ok_or(DropReason::ReplyTooLong)?;
    let payload_len = reply.emit(&options, area)?;
    frame::emit(out, &addresses, payload_len)
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
    let relay_port = if query.relay_agent().has_relay_port() { query.datagram.src_port } else { SERVER_PORT };
    let relayed = query.is_relayed();
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
    pub(super) fn prefers_v6_only(&self) -> bool {
        self.plan.network(self.network).has_v6_only_preferred
            && self.query.parameter_request_list().contains(&option::V6_ONLY_PREFERRED)
    }
}
