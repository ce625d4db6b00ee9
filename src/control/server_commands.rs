//! Commands about the server itself: its configuration, state, interfaces, service.

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::backend::{
    Completion, ConfigAction, ConfigOrder, ConfigText, Daemon, InterfaceFacts, LfcStart, Order,
    SocketsStatus, Status,
};
use super::command::{Answer, Command, Context, Outcome, RESULT_ERROR, RESULT_FATAL, RESULT_UNSUPPORTED};
use super::json::{self, Reader};
use super::lease_commands::unexpected;
use super::table::{CommandTable, Presence};

/// The origin of an administrator's `dhcp-disable`.
pub const ORIGIN_USER: u32 = 1;
/// The first origin of the own HA relationships.
pub const ORIGIN_HA_LOCAL: u32 = 1000;
/// The first origin of partners' HA relationships; also what the word `ha-partner` stands for.
pub const ORIGIN_HA_REMOTE: u32 = 2000;
/// The first origin of lost database connections.
pub const ORIGIN_DATABASE: u32 = 3000;

type Act = fn(&mut Context<'_>, &Command) -> Result<Outcome, Answer>;

/// Adds the commands of a DHCP server to `table`.
pub fn register(table: &mut CommandTable) {
    register_common(table);
    let mut add = |name, act: Act| {
        table.register(name, Presence::Always, move |context, command| act(context, command).into());
    };
    add("config-backend-pull", |_, _| Err(Answer::empty("No config backend.")));
    add("dhcp-disable", dhcp_disable);
    add("dhcp-enable", dhcp_enable);
    add("interface-list", |context, _| interfaces(context, false));
    add("interface-redetect", |context, _| interfaces(context, true));
    add("kea-lfc-start", lfc_start);
    add("server-tag-get", |context, _| {
        let tag = context.backend.server_tag();
        Err(Answer::success("").with(json!({ "server-tag": tag })))
    });
}

/// Adds the commands that the control agent answers itself to `table`.
pub fn register_agent(table: &mut CommandTable) {
    register_common(table);
}

fn register_common(table: &mut CommandTable) {
    let mut add = |name, act: Act| {
        table.register(name, Presence::Always, move |context, command| act(context, command).into());
    };
    add("list-commands", |context, _| {
        let names = context.table.names(context.backend.features());
        Err(Answer::success("").with(json!(names)))
    });
    add("version-get", |_, _| Err(version()));
    add("build-report", |_, _| Err(Answer::success(build_report())));
    add("config-get", config_get);
    add("config-hash-get", |context, _| {
        let hash = config_hash(context.daemon, &context.backend.config(context.daemon));
        Err(Answer::success("").with(json!({ "hash": hash })))
    });
    add("config-test", |context, command| configure(context, command, ConfigAction::Test));
    add("config-set", |context, command| configure(context, command, ConfigAction::Set));
    add("config-reload", config_reload);
    add("config-write", config_write);
    add("status-get", status);
    add("shutdown", shutdown);
}

/// The version that the server tells: its own name and number.
#[must_use]
pub fn version() -> Answer {
    let version = env!("CARGO_PKG_VERSION");
    Answer::success(version).with(json!({
        "extended": format!(
            "{version}\naplomado {version}\nlinked with:\nrustls, mio\nlease backends:\nmemfile (CSV, as Kea's 3.1)"
        )
    }))
}

fn build_report() -> String {
    format!(
        "aplomado {}\ntarget: {} {}\nprofile: {}",
        env!("CARGO_PKG_VERSION"),
        std::env::consts::ARCH,
        std::env::consts::OS,
        if cfg!(debug_assertions) { "debug" } else { "release" }
    )
}

/// SHA-256 over the printed form of the map `{ BLOCK: config }`, in 64 upper-case hex digits.
#[must_use]
pub fn config_hash(daemon: Daemon, config: &[u8]) -> String {
    let mut hasher = Sha256::new();
    hasher.update(format!("{{ \"{}\": ", daemon.block()));
    hasher.update(config);
    hasher.update(b" }");
    hasher.finalize().iter().map(|octet| format!("{octet:02X}")).collect()
}

fn config_get(context: &mut Context<'_>, _: &Command) -> Result<Outcome, Answer> {
    let config = context.backend.config(context.daemon);
    let hash = config_hash(context.daemon, &config);
    let head = format!("{{ \"{}\": ", context.daemon.block());
    let tail = format!(", \"hash\": \"{hash}\" }}");
    Err(Answer::success("").with_printed([head.as_bytes(), &config, tail.as_bytes()].concat()))
}

/// `config-test` and `config-set`: the block has to be there, a map, and alone.
fn configure(
    context: &mut Context<'_>,
    command: &Command,
    action: fn(ConfigText) -> ConfigAction,
) -> Result<Outcome, Answer> {
    let daemon = context.daemon;
    let block = daemon.block();
    let text = config_text(command, block)?;
    let action = action(text);
    let is_test = matches!(action, ConfigAction::Test(_));
    let order = Order::Config(ConfigOrder { daemon, action });
    Ok(context.submit_then(order, move |context, completion| {
        match completion {
            Completion::Config(Ok(())) if is_test => Answer::success(
                "Configuration seems sane. Control-sockets, hook-libraries, and D2 configuration were sanity checked, \
                 but not applied.",
            ),
            Completion::Config(Ok(())) => {
                let hash = config_hash(daemon, &context.backend.config(daemon));
                Answer::success("Configuration successful.").with(json!({ "hash": hash }))
            }
            Completion::Config(Err(failure)) => {
                Answer::new(if failure.fatal { RESULT_FATAL } else { RESULT_ERROR }, failure.text)
            }
            _ => unexpected(),
        }
        .into()
    }))
}

fn config_text(command: &Command, block: &str) -> Result<ConfigText, Answer> {
    let Some(range) = command.arguments.clone() else {
        return Err(Answer::error("Missing mandatory 'arguments' parameter."));
    };
    let missing = || Answer::error(format!("Missing mandatory '{block}' parameter."));
    let mut reader = Reader::new_at(&command.text[..range.end], range.start);
    if reader.peek() != Some(b'{') {
        return Err(missing());
    }
    let fault = |error: json::JsonError| Answer::error(error.to_string());
    reader.open(b'{').map_err(fault)?;
    let (mut found, mut foreign, mut first) = (None, Vec::new(), true);
    while let Some(key) = reader.key(&mut first).map_err(fault)? {
        if key.as_ref() == block.as_bytes() {
            let is_map = reader.peek() == Some(b'{');
            found = Some((reader.skip().map_err(fault)?, is_map));
        } else {
            foreign.push(json::text_of(&key).into_owned());
            reader.skip().map_err(fault)?;
        }
    }
    let (place, is_map) = found.ok_or_else(missing)?;
    if !is_map {
        return Err(Answer::error(format!("'{block}' parameter expected to be a map.")));
    }
    foreign.sort();
    foreign.dedup();
    if let Some((one, others)) = foreign.split_first() {
        let mut text = format!("Unsupported '{one}' parameter");
        if !others.is_empty() {
            let others: Vec<String> = others.iter().map(|other| format!("'{other}'")).collect();
            text.push_str(&format!(" (and {})", others.join(", ")));
        }
        return Err(Answer::error(text + "."));
    }
    Ok(ConfigText { command: command.text.clone(), block: place })
}

fn config_reload(context: &mut Context<'_>, _: &Command) -> Result<Outcome, Answer> {
    let daemon = context.daemon;
    let order = Order::Config(ConfigOrder { daemon, action: ConfigAction::Reload });
    Ok(context.submit_then(order, move |context, completion| {
        match completion {
            Completion::Config(Ok(())) => {
                let hash = config_hash(daemon, &context.backend.config(daemon));
                Answer::success("Configuration successful.").with(json!({ "hash": hash }))
            }
            Completion::Config(Err(failure)) => Answer::new(
                if failure.fatal { RESULT_FATAL } else { RESULT_ERROR },
                format!("Config reload failed: {}", failure.text),
            ),
            _ => unexpected(),
        }
        .into()
    }))
}

fn config_write(context: &mut Context<'_>, command: &Command) -> Result<Outcome, Answer> {
    let file = match command.arguments() {
        None => None,
        Some(Value::Object(map)) => match map.get("filename") {
            None => None,
            // Without a name, also with an empty one: the start-up file.
            Some(Value::String(file)) => Some(file.clone()).filter(|file| !file.is_empty()),
            Some(_) => return Err(Answer::error("passed parameter 'filename' is not a string")),
        },
        Some(_) => return Err(Answer::error("Argument must be a map")),
    };
    let order = Order::Config(ConfigOrder { daemon: context.daemon, action: ConfigAction::Write(file) });
    Ok(context.submit_then(order, |_, completion| {
        match completion {
            Completion::Written(Ok(written)) => {
                Answer::success(format!("Configuration written to {} successful", written.file))
                    .with(json!({ "filename": written.file, "size": written.bytes }))
            }
            Completion::Written(Err(text)) => Answer::error(format!("Error during config-write: {text}")),
            _ => unexpected(),
        }
        .into()
    }))
}

fn status(context: &mut Context<'_>, _: &Command) -> Result<Outcome, Answer> {
    let status = context.backend.status();
    let mut arguments = Map::new();
    arguments.insert("pid".to_owned(), json!(std::process::id()));
    arguments.insert("uptime".to_owned(), json!(status.uptime_s));
    arguments.insert("reload".to_owned(), json!(status.reload_s));
    if context.daemon != Daemon::Agent {
        server_status(status, &mut arguments);
    }
    Err(Answer::success("").with(Value::Object(arguments)))
}

fn server_status(status: Status, arguments: &mut Map<String, Value>) {
    let mut add = |key: &str, value: Value| arguments.insert(key.to_owned(), value);
    add("multi-threading-enabled", json!(true));
    add("thread-pool-size", json!(status.thread_count));
    add("packet-queue-size", json!(status.packet_queue_size));
    add("packet-queue-statistics", json!(status.packet_queue_means));
    if let Some(file) = status.lease_file {
        add("csv-lease-file", json!(file));
    }
    add(
        "sockets",
        match status.sockets {
            SocketsStatus::Ready => json!({ "status": "ready" }),
            SocketsStatus::Retrying(errors) => json!({ "status": "retrying", "errors": errors }),
            SocketsStatus::Failed(errors) => json!({ "status": "failed", "errors": errors }),
        },
    );
    let between = |from: u32, to: u32| -> Vec<u32> {
        status.disabled_by.iter().copied().filter(|origin| (from..to).contains(origin)).collect()
    };
    add(
        "dhcp-state",
        json!({
            "globally-disabled": !status.disabled_by.is_empty(),
            "disabled-by-user": status.disabled_by.contains(&ORIGIN_USER),
            "disabled-by-local-command": between(ORIGIN_HA_LOCAL, ORIGIN_HA_REMOTE),
            "disabled-by-remote-command": between(ORIGIN_HA_REMOTE, ORIGIN_DATABASE),
            "disabled-by-db-connection": between(ORIGIN_DATABASE, u32::MAX),
        }),
    );
    if let Some(relationships) = status.high_availability {
        add("high-availability", relationships);
    }
}

fn shutdown(context: &mut Context<'_>, command: &Command) -> Result<Outcome, Answer> {
    let exit_value = match command.arguments() {
        None => 0,
        Some(Value::Object(map)) => match map.get("exit-value") {
            None => 0,
            Some(value) => {
                value.as_i64().ok_or_else(|| Answer::error("parameter 'exit-value' is not an integer"))?
            }
        },
        Some(_) => return Err(Answer::error("Argument must be a map")),
    };
    context.backend.shutdown(exit_value);
    Err(Answer::success("Shutting down."))
}

/// The origin that the arguments of `dhcp-disable`, `dhcp-enable` name; `origin-id` wins over `origin`.
///
/// # Errors
/// The answer that says what is wrong with it.
pub fn origin_argument(arguments: &Map<String, Value>) -> Result<u32, Answer> {
    let number = |value: &Value, key: &str| {
        let origin = value.as_u64().and_then(|origin| u32::try_from(origin).ok());
        origin.ok_or_else(|| Answer::error(format!("'{key}' argument must be a number")))
    };
    if let Some(id) = arguments.get("origin-id") {
        return number(id, "origin-id");
    }
    match arguments.get("origin") {
        None => Ok(ORIGIN_USER),
        Some(Value::String(word)) => match word.as_str() {
            "user" => Ok(ORIGIN_USER),
            "ha-partner" => Ok(ORIGIN_HA_REMOTE),
            other => {
                let shown = if other.is_empty() { "(empty string)" } else { other };
                Err(Answer::error(format!("invalid value used for 'origin' parameter: {shown}")))
            }
        },
        Some(value) if value.is_i64() || value.is_u64() => number(value, "origin"),
        Some(_) => Err(Answer::error("'origin' argument must be a string or a number")),
    }
}

fn service_arguments(command: &Command) -> Result<Map<String, Value>, Answer> {
    match command.arguments() {
        None => Ok(Map::new()),
        Some(Value::Object(map)) => Ok(map),
        Some(_) => Err(Answer::error(format!("arguments for the '{}' command must be a map", command.name))),
    }
}

fn dhcp_disable(context: &mut Context<'_>, command: &Command) -> Result<Outcome, Answer> {
    let arguments = service_arguments(command)?;
    let max_period_s = match arguments.get("max-period") {
        None => None,
        Some(value) if value.is_i64() || value.is_u64() => match value.as_u64() {
            Some(period_s) if period_s > 0 => Some(period_s),
            _ => return Err(Answer::error("'max-period' must be positive integer")),
        },
        Some(_) => return Err(Answer::error("'max-period' argument must be a number")),
    };
    let origin = origin_argument(&arguments)?;
    if origin >= ORIGIN_DATABASE && max_period_s.is_some() {
        return Err(Answer::error(format!("'max-period' is not possible for origin {origin}")));
    }
    context.backend.dhcp_disable(origin, max_period_s);
    let mut text = "DHCPv4 service disabled".to_owned();
    if let Some(period_s) = max_period_s {
        text.push_str(&format!(" for {period_s} seconds"));
    }
    Err(Answer::success(text))
}

fn dhcp_enable(context: &mut Context<'_>, command: &Command) -> Result<Outcome, Answer> {
    let origin = origin_argument(&service_arguments(command)?)?;
    context.backend.dhcp_enable(origin);
    Err(Answer::success("DHCP service successfully enabled"))
}

fn interfaces(context: &mut Context<'_>, scan: bool) -> Result<Outcome, Answer> {
    let interfaces = context.backend.interfaces(scan);
    let shown: Vec<Value> = interfaces.iter().map(interface).collect();
    Err(Answer::success(format!("{} interfaces detected.", shown.len())).with(json!({ "interfaces": shown })))
}

fn interface(facts: &InterfaceFacts) -> Value {
    json!({
        "name": facts.name,
        "index": facts.index,
        "mac": facts.mac,
        "type": facts.hw_type,
        "flag-loopback": facts.loopback,
        "flag-up": facts.up,
        "flag-running": facts.running,
        "flag-multicast": facts.multicast,
        "flag-broadcast": facts.broadcast,
        "in-use": facts.in_use,
        "addresses": facts.addresses,
    })
}

fn lfc_start(context: &mut Context<'_>, _: &Command) -> Result<Outcome, Answer> {
    Ok(context.submit_then(Order::CleanLeaseFile, |_, completion| {
        match completion {
            Completion::LeaseFile(LfcStart::Started) => Answer::success("kea-lfc started"),
            Completion::LeaseFile(LfcStart::Running) => Answer::empty("kea-lfc already running"),
            Completion::LeaseFile(LfcStart::Failed) => Answer::error("failed to start kea-lfc"),
            Completion::LeaseFile(LfcStart::NotPersisted) => Answer::new(
                RESULT_UNSUPPORTED,
                "'persist' parameter of 'memfile' lease backend was configured to 'false'",
            ),
            _ => unexpected(),
        }
        .into()
    }))
}
