//! `lease4-get` and `lease4-del`: one lease, by address or by client and subnet.

use std::net::Ipv4Addr;

use serde_json::{Map, Value};

use crate::control::backend::{Completion, Order};
use crate::control::command::{Answer, Command, Context, Outcome};
use crate::control::lease_commands::unexpected;
use crate::control::lease_json;
use crate::ids::{HW_ADDR_BYTES_MAX, HwAddr, SubnetId};
use crate::lease::request::{LeaseKey, LeaseReply, LeaseRequest, Origin};

pub(super) fn find(context: &mut Context<'_>, command: &Command) -> Result<Outcome, Answer> {
    let key = key(&arguments(command)?)?;
    Ok(context.submit_then(Order::Lease(LeaseRequest::Get(key)), |_, completion| {
        match completion {
            Completion::Lease(LeaseReply::Lease(lease)) => {
                let mut printed = Vec::new();
                lease_json::print_dump(&lease.view(), &mut printed);
                Answer::success("IPv4 lease found.").with_printed(printed)
            }
            Completion::Lease(LeaseReply::NotFound) => Answer::empty("Lease not found."),
            _ => unexpected(),
        }
        .into()
    }))
}

pub(super) fn delete(context: &mut Context<'_>, command: &Command) -> Result<Outcome, Answer> {
    let arguments = arguments(command)?;
    if arguments.get("update-ddns").is_some_and(|flag| !flag.is_boolean()) {
        return Err(Answer::error("'update-ddns' is not a boolean"));
    }
    let key = key(&arguments)?;
    let is_partner = arguments.get("origin").and_then(Value::as_str) == Some("ha-partner");
    let origin = if is_partner { Origin::Partner { partner_wins: false } } else { Origin::Command };
    Ok(context.submit_then(Order::Lease(LeaseRequest::Delete { key, origin }), |_, completion| {
        match completion {
            Completion::Lease(LeaseReply::Deleted) => Answer::success("IPv4 lease deleted."),
            Completion::Lease(LeaseReply::NotFound) => Answer::empty("IPv4 lease not found."),
            Completion::Lease(LeaseReply::Busy) => {
                Answer::conflict("ResourceBusy: the lease could not be deleted.")
            }
            _ => unexpected(),
        }
        .into()
    }))
}

fn arguments(command: &Command) -> Result<Map<String, Value>, Answer> {
    match command.arguments() {
        Some(Value::Object(map)) => Ok(map),
        _ => Err(Answer::error("Parameters missing or are not a map.")),
    }
}

fn key(arguments: &Map<String, Value>) -> Result<LeaseKey, Answer> {
    if arguments.contains_key("iaid") {
        return Err(Answer::error("'iaid' parameter is specific to DHCPv6."));
    }
    if let Some(address) = arguments.get("ip-address") {
        let text = address.as_str().ok_or_else(|| Answer::error("'ip-address' is not a string."))?;
        let address: Ipv4Addr =
            text.parse().map_err(|_| Answer::error(format!("Invalid IPv4 address specified: {text}")))?;
        return Ok(LeaseKey::Address(address));
    }
    let subnet = arguments
        .get("subnet-id")
        .ok_or_else(|| Answer::error("Mandatory 'subnet-id' parameter missing."))?
        .as_u64()
        .and_then(|id| u32::try_from(id).ok())
        .map(SubnetId)
        .ok_or_else(|| Answer::error("'subnet-id' parameter is not integer."))?;
    let string = |name: &str| {
        arguments.get(name).and_then(Value::as_str).ok_or_else(|| {
            Answer::error(format!("No 'ip-address' provided and '{name}' is either missing or not a string."))
        })
    };
    let kind = string("identifier-type")?;
    let identifier = string("identifier")?.as_bytes();
    match kind {
        "hw-address" => {
            let octets = lease_json::parse_hex(identifier, kind, HW_ADDR_BYTES_MAX).map_err(Answer::error)?;
            Ok(LeaseKey::HwAddr(subnet, HwAddr::new(1, &octets).ok_or_else(unexpected)?))
        }
        "client-id" => {
            let octets = lease_json::parse_client_id(identifier).map_err(Answer::error)?;
            Ok(LeaseKey::ClientId(subnet, octets.into()))
        }
        "duid" => Err(Answer::error("Query by duid is not allowed in v4.")),
        other => Err(Answer::error(format!(
            "Incorrect identifier type: {other}, the only supported values are: hw-address, duid, client-id"
        ))),
    }
}
