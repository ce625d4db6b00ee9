//! Lease and subnet commands.

mod listing;
mod query;
mod subnets;

use std::fmt::Write as _;
use std::net::Ipv4Addr;

use serde_json::Value;

pub use listing::{LISTING_BUFFER_BYTES_MAX, LISTING_PAGE_LEASES, Listing, ListingProgress, ListingText};

use super::backend::{Backend, Completion, Order};
use super::command::{Answer, Command, Context, Outcome};
use super::json::{self, Reader};
use super::lease_json::{self, LeaseFields};
use super::table::{CommandTable, Presence};
use crate::ids::{HW_ADDR_BYTES_MAX, HwAddr, SubnetId};
use crate::lease::request::{LeaseFilter, LeaseReply, LeaseRequest, Origin, PutMode};
use crate::lease::{Lease4, Lease4Buf, LeaseState};

/// Adds the lease and subnet commands to `table`.
pub fn register(table: &mut CommandTable) {
    type Act = fn(&mut Context<'_>, &Command) -> Result<Outcome, Answer>;
    let mut add = |name, act: Act| {
        table.register(name, Presence::LeaseCommands, move |context, command| act(context, command).into());
    };
    add("lease4-add", |context, command| put(context, command, true));
    add("lease4-update", |context, command| put(context, command, false));
    add("lease4-get", query::find);
    add("lease4-del", query::delete);
    add("lease4-get-all", get_all);
    add("lease4-get-page", get_page);
    add("lease4-get-by-hw-address", get_by_hw_address);
    add("lease4-get-by-client-id", get_by_client_id);
    add("lease4-get-by-hostname", get_by_hostname);
    add("lease4-get-by-state", get_by_state);
    add("lease4-wipe", wipe);
    add("lease4-write", write);
    add("lease4-resend-ddns", resend_ddns);
    table.register("leases-reclaim", Presence::Always, |context, command| reclaim(context, command).into());
    subnets::register(table);
}

/// A lease made of the members of `lease4-add` or `lease4-update`, complete and checked against the subnets.
///
/// # Errors
/// The answer that refuses it: 1 when a member is missing or wrong, 4 when it does not agree with the configuration.
pub fn complete_lease(backend: &mut dyn Backend, fields: &LeaseFields) -> Result<Lease4Buf, Answer> {
    let missing = |name: &str| Answer::error(format!("missing parameter '{name}'"));
    let address = fields.address.ok_or_else(|| missing("ip-address"))?;
    let hw_addr = fields.hw_addr.ok_or_else(|| missing("hw-address"))?;
    let subnet = match fields.subnet_id.unwrap_or(0) {
        0 => backend.subnet_of(address).ok_or_else(|| {
            Answer::conflict(format!(
                "subnet-id not specified and failed to find a subnet for address {address}"
            ))
        })?,
        id => {
            let subnet = backend.subnet(SubnetId(id)).ok_or_else(|| {
                Answer::conflict(format!(
                    "Invalid subnet-id: No IPv4 subnet with subnet-id={id} currently configured."
                ))
            })?;
            if !subnet.contains(address) {
                return Err(Answer::conflict(format!(
                    "The address {address} does not belong to subnet {}, subnet-id={id}",
                    subnet.prefix()
                )));
            }
            subnet
        }
    };
    let valid_lft = fields.valid_lft.unwrap_or(subnet.valid_lft_s);
    let cltt = match fields.expire {
        None => backend.now().wall_s,
        Some(expire) if expire <= 0 => {
            return Err(Answer::error(format!("expiration time must be positive for address {address}")));
        }
        Some(expire) => expire.unsigned_abs().checked_sub(u64::from(valid_lft)).ok_or_else(|| {
            Answer::error(format!(
                "expiration time must be greater than valid lifetime for address {address}"
            ))
        })?,
    };
    // Records count the seconds since 1970 in 32 bits, which end in 2106.
    if cltt > u64::from(u32::MAX) {
        return Err(Answer::error(format!(
            "expected an 'expire' of at most {} for address {address}, got {}",
            u64::from(u32::MAX) + u64::from(valid_lft),
            cltt + u64::from(valid_lft)
        )));
    }
    let (fqdn_fwd, fqdn_rev) = (fields.fqdn_fwd.unwrap_or(false), fields.fqdn_rev.unwrap_or(false));
    let hostname = fields.hostname.as_deref().unwrap_or_default();
    if hostname.is_empty() && (fqdn_fwd || fqdn_rev) {
        return Err(Answer::error(
            "No hostname specified and either forward or reverse fqdn was set to true.",
        ));
    }
    let state = fields.state.unwrap_or_default();
    if state == LeaseState::Registered {
        return Err(Answer::error(
            "Invalid state value: 4, supported values are: 0 (default), 1 (declined), \
             2 (expired-reclaimed) and 3 (released)",
        ));
    }
    let lease = Lease4 {
        address,
        hw_addr,
        client_id: fields.client_id.as_deref().unwrap_or_default(),
        cltt,
        valid_lft,
        subnet_id: subnet.id,
        pool_id: fields.pool_id.unwrap_or(0),
        state,
        fqdn_fwd,
        fqdn_rev,
        hostname,
        user_context: fields.user_context.as_deref().unwrap_or_default(),
    };
    if lease.is_of_nobody() {
        return Err(Answer::error(format!(
            "expected a hw-address or a client-id of the client that has {address}: nobody reads a lease without both from a file"
        )));
    }
    Ok(lease.to_owned())
}

fn put(context: &mut Context<'_>, command: &Command, add: bool) -> Result<Outcome, Answer> {
    let Some(range) = command.arguments.clone() else {
        return Err(Answer::error("no parameters specified for the command"));
    };
    // Read up to the end of the arguments, so that faults name their place in the whole command.
    let mut reader = Reader::new_at(&command.text[..range.end], range.start);
    if reader.peek() != Some(b'{') {
        return Err(Answer::error("no parameters specified for the command"));
    }
    let place = lease_json::position(&reader.fault(""));
    let fields = LeaseFields::read(&mut reader).map_err(Answer::error)?;
    let lease = complete_lease(context.backend, &fields).map_err(|mut answer| {
        if answer.text.starts_with("missing parameter") {
            let _ = write!(answer.text, " ({place})");
        }
        answer
    })?;
    let view = lease.view();
    let (address, subnet_id) = (view.address, view.subnet_id.0);
    let force_create = fields.force_create.unwrap_or(false);
    let mode = match (add, force_create) {
        (true, _) => PutMode::Add,
        (false, true) => PutMode::Upsert,
        (false, false) => PutMode::Update,
    };
    // A partner before 2.4 does not say who it is; only servers write the end of a lease and force its creation.
    let is_partner = fields.from_partner
        || !add && force_create && fields.expire.is_some() && context.backend.features().ha;
    let origin = if is_partner { Origin::Partner { partner_wins: false } } else { Origin::Command };
    let order = Order::Lease(LeaseRequest::Put { lease, mode, origin });
    Ok(context
        .submit_then(order, move |_, completion| put_answer(&completion, add, address, subnet_id).into()))
}

/// The answer to a put, by what became of it. Also for other rooms that put leases by command.
#[must_use]
pub fn put_answer(completion: &Completion, add: bool, address: Ipv4Addr, subnet_id: u32) -> Answer {
    let Completion::Lease(reply) = completion else {
        return unexpected();
    };
    match reply {
        LeaseReply::Added if add => {
            Answer::success(format!("Lease for address {address}, subnet-id {subnet_id} added."))
        }
        LeaseReply::Added => Answer::success("IPv4 lease added."),
        LeaseReply::Updated | LeaseReply::Kept => Answer::success("IPv4 lease updated."),
        LeaseReply::Exists => Answer::conflict("IPv4 lease already exists."),
        LeaseReply::NotFound => Answer::conflict(format!(
            "failed to update the lease with address {address} either because the lease has been deleted or \
             it has changed in the database, in both cases a retry might succeed"
        )),
        LeaseReply::Busy => {
            let verb = if add { "added" } else { "updated" };
            Answer::conflict(format!("ResourceBusy: IP address:{address} could not be {verb}."))
        }
        LeaseReply::Full(limit) => Answer::error(format!("no room for the lease of {address}: {limit}")),
        _ => unexpected(),
    }
}

pub(super) fn unexpected() -> Answer {
    Answer::error("internal server error: an answer of another kind came back")
}

fn arguments_map(command: &Command) -> Result<serde_json::Map<String, Value>, Answer> {
    match command.arguments() {
        Some(Value::Object(map)) => Ok(map),
        _ => Err(Answer::error("Command arguments missing or a not a map.")),
    }
}

fn get_all(_: &mut Context<'_>, command: &Command) -> Result<Outcome, Answer> {
    let filter = match command.arguments() {
        None => LeaseFilter::All,
        Some(arguments) => {
            let subnets = arguments
                .get("subnets")
                .ok_or_else(|| Answer::error("'subnets' parameter not specified"))?
                .as_array()
                .ok_or_else(|| Answer::error("'subnets' parameter must be a list"))?;
            let ids: Result<Box<[SubnetId]>, Answer> = subnets
                .iter()
                .map(|id| {
                    let number = id.as_u64().and_then(|id| u32::try_from(id).ok()).map(SubnetId);
                    number.ok_or_else(|| Answer::error("listed subnet identifiers must be numbers"))
                })
                .collect();
            LeaseFilter::Subnets(ids?)
        }
    };
    Ok(Outcome::Listing(Box::new(Listing::new(filter, ListingText::Found))))
}

fn get_page(_: &mut Context<'_>, command: &Command) -> Result<Outcome, Answer> {
    let Some(Value::Object(arguments)) = command.arguments() else {
        return Err(Answer::error(
            "Parameters missing for the lease4-get-page command: 'from' and 'limit' must be specified",
        ));
    };
    let from = arguments
        .get("from")
        .ok_or_else(|| Answer::error("'from' parameter not specified"))?
        .as_str()
        .ok_or_else(|| Answer::error("'from' parameter must be a string"))?;
    let from = if from == "start" {
        Ipv4Addr::UNSPECIFIED
    } else {
        from.parse().map_err(|_| {
            if from.parse::<std::net::Ipv6Addr>().is_ok() {
                Answer::error(format!("'from' parameter value {from} is not an IPv4 address"))
            } else {
                Answer::error("'from' parameter value is neither 'start' keyword nor a valid IPv4 address")
            }
        })?
    };
    let limit = arguments.get("limit").ok_or_else(|| Answer::error("'limit' parameter not specified"))?;
    if !limit.is_i64() && !limit.is_u64() {
        return Err(Answer::error("'limit' parameter must be a number"));
    }
    let limit = match limit.as_u64().and_then(|limit| u32::try_from(limit).ok()) {
        Some(0) => return Err(Answer::error("'limit' parameter must not be 0.")),
        Some(limit) => limit,
        None => {
            return Err(Answer::error(format!("expected a 'limit' from 1 to {}, got {limit}", u32::MAX)));
        }
    };
    let mut listing = Listing::page(from, limit);
    // Another server of ours asks for what Kea's answer has no place for.
    listing.set_marks_untold(arguments.get("untold") == Some(&Value::Bool(true)));
    Ok(Outcome::Listing(Box::new(listing)))
}

/// The octets of the string `name` of the arguments, as they were sent.
fn string_argument(command: &Command, name: &str) -> Result<Vec<u8>, Answer> {
    let mut reader = Reader::new(command.arguments_text().unwrap_or_default());
    if reader.peek() != Some(b'{') {
        return Err(Answer::error("Command arguments missing or a not a map."));
    }
    let fault = |error: json::JsonError| Answer::error(error.to_string());
    reader.open(b'{').map_err(fault)?;
    let mut first = true;
    let mut found = None;
    while let Some(key) = reader.key(&mut first).map_err(fault)? {
        if key.as_ref() == name.as_bytes() {
            if reader.peek() != Some(b'"') {
                return Err(Answer::error(format!("'{name}' parameter must be a string")));
            }
            found = Some(reader.string().map_err(fault)?.into_owned());
        } else {
            reader.skip().map_err(fault)?;
        }
    }
    found.ok_or_else(|| Answer::error(format!("'{name}' parameter not specified")))
}

fn listing(filter: LeaseFilter) -> Result<Outcome, Answer> {
    Ok(Outcome::Listing(Box::new(Listing::new(filter, ListingText::Found))))
}

fn get_by_hw_address(_: &mut Context<'_>, command: &Command) -> Result<Outcome, Answer> {
    let text = string_argument(command, "hw-address")?;
    let octets = lease_json::parse_hex(&text, "hw-address", HW_ADDR_BYTES_MAX).map_err(Answer::error)?;
    let address = HwAddr::new(1, &octets).ok_or_else(unexpected)?;
    listing(LeaseFilter::HwAddr(address))
}

fn get_by_client_id(_: &mut Context<'_>, command: &Command) -> Result<Outcome, Answer> {
    let text = string_argument(command, "client-id")?;
    let octets = lease_json::parse_client_id(&text).map_err(Answer::error)?;
    listing(LeaseFilter::ClientId(octets.into()))
}

fn get_by_hostname(_: &mut Context<'_>, command: &Command) -> Result<Outcome, Answer> {
    let mut name = string_argument(command, "hostname")?;
    if name.is_empty() {
        return Err(Answer::error("'hostname' parameter is empty"));
    }
    name.make_ascii_lowercase();
    listing(LeaseFilter::Hostname(name.into()))
}

fn get_by_state(_: &mut Context<'_>, command: &Command) -> Result<Outcome, Answer> {
    let arguments = arguments_map(command)?;
    let state = match arguments.get("state") {
        None => return Err(Answer::error("'state' parameter not specified")),
        Some(Value::String(name)) => match name.as_str() {
            "default" | "assigned" => Some(LeaseState::Assigned),
            "declined" => Some(LeaseState::Declined),
            "expired-reclaimed" => Some(LeaseState::Reclaimed),
            "released" => Some(LeaseState::Released),
            "registered" => Some(LeaseState::Registered),
            _ => None,
        },
        Some(Value::Number(number)) => number.as_u64().and_then(LeaseState::from_number),
        Some(_) => return Err(Answer::error("'state' parameter must be a string or a number")),
    };
    let Some(state) = state else {
        return Err(Answer::error(format!(
            "expected a 'state' of default, declined, expired-reclaimed, released, registered or its number, got {}",
            arguments["state"]
        )));
    };
    let subnet = match arguments.get("subnet-id") {
        None => None,
        Some(id) => {
            let id = id.as_u64().and_then(|id| u32::try_from(id).ok()).filter(|id| *id != 0);
            Some(SubnetId(
                id.ok_or_else(|| Answer::error("'subnet-id' parameter must be a positive number"))?,
            ))
        }
    };
    let filter = LeaseFilter::State(state, subnet);
    Ok(Outcome::Listing(Box::new(Listing::new(filter, ListingText::State(state, subnet)))))
}

fn wipe(context: &mut Context<'_>, command: &Command) -> Result<Outcome, Answer> {
    let id = match command.arguments() {
        None => 0,
        Some(Value::Object(map)) => match map.get("subnet-id") {
            None => 0,
            Some(id) => id
                .as_u64()
                .and_then(|id| u32::try_from(id).ok())
                .ok_or_else(|| Answer::error("'subnet-id' parameter is not integer."))?,
        },
        Some(_) => return Err(Answer::error("Command arguments missing or a not a map.")),
    };
    let (subnet, names) = if id == 0 {
        let ids: Vec<String> =
            context.backend.subnets().iter().map(|subnet| subnet.id.0.to_string()).collect();
        (None, ids.join(" "))
    } else {
        // Also of a subnet that is not configured any more: what is left of it can be wiped.
        (Some(SubnetId(id)), id.to_string())
    };
    Ok(context.submit_then(Order::Lease(LeaseRequest::Wipe(subnet)), move |context, completion| {
        let Completion::Lease(LeaseReply::Count(count)) = completion else { return unexpected().into() };
        context.statistics.wiped(subnet);
        let text = format!("Deleted {count} IPv4 lease(s) from subnet(s) {names}");
        if count == 0 { Answer::empty(text) } else { Answer::success(text) }.into()
    }))
}

fn write(context: &mut Context<'_>, command: &Command) -> Result<Outcome, Answer> {
    let arguments = arguments_map(command)?;
    let file = arguments
        .get("filename")
        .ok_or_else(|| Answer::error("'filename' parameter not specified"))?
        .as_str()
        .ok_or_else(|| Answer::error("'filename' parameter must be a string"))?;
    if file.is_empty() {
        return Err(Answer::error("'filename' parameter is empty"));
    }
    let file = file.to_owned();
    Ok(context.submit_then(Order::WriteLeases(file.clone()), move |_, completion| {
        match completion {
            Completion::LeasesWritten(Ok(())) => {
                Answer::success(format!("IPv4 lease database into '{file}'."))
            }
            Completion::LeasesWritten(Err(text)) => Answer::error(text),
            _ => unexpected(),
        }
        .into()
    }))
}

fn resend_ddns(_: &mut Context<'_>, command: &Command) -> Result<Outcome, Answer> {
    let text = string_argument(command, "ip-address")?;
    lease_json::parse_address(&json::text_of(&text)).map_err(Answer::error)?;
    // A configuration that switches DNS updates on is refused at load, so this holds whatever the lease says.
    Err(Answer::conflict("DDNS updating is not enabled"))
}

fn reclaim(context: &mut Context<'_>, command: &Command) -> Result<Outcome, Answer> {
    let remove = command
        .arguments()
        .and_then(|arguments| arguments.get("remove").cloned())
        .ok_or_else(|| Answer::error("Missing mandatory 'remove' parameter."))?
        .as_bool()
        .ok_or_else(|| Answer::error("'remove' parameter expected to be a boolean."))?;
    Ok(context.submit_then(Order::Lease(LeaseRequest::Reclaim { remove }), |_, completion| {
        match completion {
            Completion::Lease(LeaseReply::Count(_)) => {
                Answer::success("Reclamation of expired leases is complete.")
            }
            _ => unexpected(),
        }
        .into()
    }))
}
