//! Commands that read subnets, and `stat-lease4-get`.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::Ipv4Addr;

use serde_json::{Map, Value, json};

use crate::control::backend::SelectQuery;
use crate::control::clock;
use crate::control::command::{Answer, Command, Context, Outcome};
use crate::control::json;
use crate::control::statistics::{self, SubnetCounter, SubnetSample};
use crate::control::table::{CommandTable, Presence};
use crate::ids::SubnetId;

/// Adds the subnet commands to `table`. They only read, so they are always there.
pub(super) fn register(table: &mut CommandTable) {
    type Act = fn(&mut Context<'_>, &Command) -> Result<Answer, Answer>;
    let mut add = |name, act: Act| {
        table.register(name, Presence::Always, move |context, command| {
            Outcome::Answer(act(context, command).unwrap_or_else(|answer| answer))
        });
    };
    add("subnet4-list", subnet_list);
    add("subnet4-get", subnet_get);
    add("network4-list", network_list);
    add("network4-get", network_get);
    add("subnet4-select-test", select_test);
    add("stat-lease4-get", stat_lease_get);
}

fn subnet_list(context: &mut Context<'_>, _: &Command) -> Result<Answer, Answer> {
    let subnets = context.backend.subnets();
    let text = match subnets.len() {
        1 => "1 IPv4 subnet found".to_owned(),
        count => format!("{count} IPv4 subnets found"),
    };
    let mut out = b"{ \"subnets\": [ ".to_vec();
    for (index, subnet) in subnets.iter().enumerate() {
        if index > 0 {
            out.extend_from_slice(b", ");
        }
        // Writing to a vector cannot fail.
        let _ = write!(out, "{{ \"id\": {}, \"shared-network-name\": ", subnet.id.0);
        match &subnet.shared_network {
            Some(name) => json::print_string(name.as_bytes(), &mut out),
            None => out.extend_from_slice(b"null"),
        }
        let _ = write!(out, ", \"subnet\": \"{}\" }}", subnet.prefix());
    }
    out.extend_from_slice(b" ] }");
    let answer = if subnets.is_empty() { Answer::empty(text) } else { Answer::success(text) };
    Ok(answer.with_printed(out))
}

fn subnet_get(context: &mut Context<'_>, command: &Command) -> Result<Answer, Answer> {
    let Some(Value::Object(arguments)) = command.arguments() else {
        return Err(Answer::error("'id' or 'subnet' parameter required"));
    };
    if arguments.len() != 1 {
        return Err(Answer::error(format!(
            "invalid number of arguments {} for the 'subnet4-get' command. Expecting 'id' or 'subnet'",
            arguments.len()
        )));
    }
    let subnet = if let Some(id) = arguments.get("id") {
        let id = id
            .as_u64()
            .and_then(|id| u32::try_from(id).ok())
            .ok_or_else(|| Answer::error("'id' parameter must be integer"))?;
        context
            .backend
            .subnet(SubnetId(id))
            .ok_or_else(|| Answer::empty(format!("No subnet with id {id} found")))?
    } else if let Some(prefix) = arguments.get("subnet") {
        let prefix = prefix.as_str().ok_or_else(|| Answer::error("'subnet' parameter must be a string"))?;
        let found = context.backend.subnets().into_iter().find(|subnet| subnet.prefix() == prefix);
        found.ok_or_else(|| Answer::empty(format!("No {prefix} subnet found")))?
    } else {
        return Err(Answer::error("'id' or 'subnet' parameter required"));
    };
    let config = context.backend.subnet_config(subnet.id).unwrap_or_else(|| b"{  }".to_vec());
    let text = format!("Info about IPv4 subnet {} (id {}) returned", subnet.prefix(), subnet.id.0);
    Ok(Answer::success(text).with_printed([b"{ \"subnet4\": [ ", &config[..], b" ] }"].concat()))
}

fn network_list(context: &mut Context<'_>, _: &Command) -> Result<Answer, Answer> {
    let names = context.backend.shared_networks();
    let text = match names.len() {
        1 => "1 IPv4 network found".to_owned(),
        count => format!("{count} IPv4 networks found"),
    };
    let networks: Vec<Value> = names.iter().map(|name| json!({ "name": name })).collect();
    let answer = if names.is_empty() { Answer::empty(text) } else { Answer::success(text) };
    Ok(answer.with(json!({ "shared-networks": networks })))
}

fn network_get(context: &mut Context<'_>, command: &Command) -> Result<Answer, Answer> {
    let arguments = command.arguments().unwrap_or_default();
    let name = arguments
        .get("name")
        .ok_or_else(|| Answer::error("'name' parameter required"))?
        .as_str()
        .ok_or_else(|| Answer::error("'name' parameter must be a string"))?;
    let config = context
        .backend
        .shared_network_config(name)
        .ok_or_else(|| Answer::empty(format!("No '{name}' shared network found")))?;
    Ok(Answer::success(format!("Info about IPv4 shared network '{name}' returned"))
        .with_printed([b"{ \"shared-networks\": [ ", &config[..], b" ] }"].concat()))
}

fn select_test(context: &mut Context<'_>, command: &Command) -> Result<Answer, Answer> {
    let arguments = match command.arguments() {
        None => return Err(Answer::error("empty arguments")),
        Some(Value::Object(arguments)) => arguments,
        Some(_) => return Err(Answer::error("arguments must be a map")),
    };
    let query = select_query(&arguments)?;
    let subnet = context.backend.select_subnet(&query).ok_or_else(|| Answer::empty("no subnet selected"))?;
    Ok(Answer::success(match &subnet.shared_network {
        Some(name) => format!(
            "selected shared network '{name}' starting with subnet '{}' id {}",
            subnet.prefix(),
            subnet.id.0
        ),
        None => format!("selected subnet '{}' id {}", subnet.prefix(), subnet.id.0),
    }))
}

fn select_query(arguments: &Map<String, Value>) -> Result<SelectQuery, Answer> {
    let mut query = SelectQuery::default();
    for (key, value) in arguments {
        let text = || {
            let text = value.as_str();
            text.ok_or_else(|| Answer::error(format!("'{key}' entry must be a string")))
        };
        let address = || -> Result<Option<Ipv4Addr>, Answer> {
            let address = text()?.parse();
            address.map(Some).map_err(|_| Answer::error(format!("bad '{key}' entry: not IPv4")))
        };
        match key.as_str() {
            "interface" => query.interface = Some(text()?.to_owned()),
            "address" => query.address = address()?,
            "relay" => query.relay = address()?,
            "local" => query.local = address()?,
            "remote" => query.remote = address()?,
            "link" => query.link = address()?,
            "subnet" => query.subnet = address()?,
            "classes" => {
                let classes =
                    value.as_array().ok_or_else(|| Answer::error("'classes' entry must be a list"))?;
                for class in classes {
                    let class = class.as_str();
                    let class =
                        class.ok_or_else(|| Answer::error("'classes' entry must be a list of strings"))?;
                    query.classes.push(class.to_owned());
                }
            }
            other => return Err(Answer::error(format!("unknown entry '{other}'"))),
        }
    }
    Ok(query)
}

fn stat_lease_get(context: &mut Context<'_>, command: &Command) -> Result<Answer, Answer> {
    const COLUMNS: [SubnetCounter; 4] = [
        SubnetCounter::Total,
        SubnetCounter::CumulativeAssigned,
        SubnetCounter::Assigned,
        SubnetCounter::Declined,
    ];
    let (first, last) = selection(command)?;
    let name = match (first, last) {
        (1, u32::MAX) => "all subnets".to_owned(),
        (first, last) if first == last => format!("subnet-id={first}"),
        (first, last) => format!("subnets {first} through {last}"),
    };
    let now_us = statistics::sample(context);
    let ids: Vec<u32> = context
        .backend
        .subnets()
        .iter()
        .map(|subnet| subnet.id.0)
        .filter(|id| (first..=last).contains(id))
        .collect();
    if ids.is_empty() {
        let reason = match (first, last) {
            (1, u32::MAX) => "no subnets are configured".to_owned(),
            (first, last) if first == last => format!("subnet-id: {first} does not exist"),
            (first, last) => format!("selected ID range: {first} through {last} includes no known subnets"),
        };
        let text = format!("stat-lease4-get[{name}]: no matching data, {reason}");
        return Err(Answer::empty(text).with(json!({})));
    }
    let samples: BTreeMap<u32, &SubnetSample> =
        context.statistics.latest().subnets.iter().map(|sample| (sample.id.0, sample)).collect();
    let rows: Vec<Value> = ids
        .iter()
        .map(|id| {
            let sample = samples.get(id);
            let mut row = vec![json!(id)];
            row.extend(
                COLUMNS.iter().map(|column| json!(sample.map_or(0, |sample| sample.values[column.index()]))),
            );
            Value::Array(row)
        })
        .collect();
    let mut columns = vec!["subnet-id"];
    columns.extend(COLUMNS.iter().map(|column| column.name()));
    Ok(Answer::success(format!("stat-lease4-get[{name}]: {} rows found", rows.len())).with(json!({
        "result-set": { "columns": columns, "rows": rows, "timestamp": clock::stamp(now_us, 0) }
    })))
}

/// The identifiers asked for, first and last; all are 1 to 2^32 - 1.
fn selection(command: &Command) -> Result<(u32, u32), Answer> {
    let arguments = match command.arguments() {
        None => return Ok((1, u32::MAX)),
        Some(Value::Object(arguments)) => arguments,
        Some(_) => return Err(Answer::error("Parameters missing or are not a map.")),
    };
    let id = |map: &Map<String, Value>, key: &str| match map.get(key).and_then(Value::as_u64) {
        Some(id) if id > 0 && id < u64::from(u32::MAX) => Ok(u32::try_from(id).unwrap_or(u32::MAX)),
        _ => Err(Answer::error(format!("'{key}' parameter must be a positive number"))),
    };
    match (arguments.contains_key("subnet-id"), arguments.get("subnet-range")) {
        (true, Some(_)) => Err(Answer::error("cannot specify both subnet-id and subnet-range")),
        (true, None) => id(&arguments, "subnet-id").map(|id| (id, id)),
        (false, Some(range)) => {
            let Value::Object(range) = range else {
                return Err(Answer::error("'subnet-range' parameter is not a map"));
            };
            let (first, last) = (id(range, "first-subnet-id")?, id(range, "last-subnet-id")?);
            if first > last {
                return Err(Answer::error(format!(
                    "expected 'first-subnet-id' not above 'last-subnet-id', got {first} and {last}"
                )));
            }
            Ok((first, last))
        }
        (false, None) => Ok((1, u32::MAX)),
    }
}
