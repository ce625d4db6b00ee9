//! What the server runs on and how it is spoken to, as `config-get` shows it.

use serde_json::{Map, Value, json};

use super::super::tree::{
    Authentication, ControlAgent, ControlSocket, ControlSocketKind, Dhcp4, ExtendedInfoChecks, HttpSocket,
    InterfaceChoice, LeaseChecks, LogOutput, Logger, Secret, Severity, SocketType,
};
use super::Put;

pub(super) fn infrastructure(map: &mut Map<String, Value>, tree: &Dhcp4) {
    map.put("interfaces-config", interfaces_config(tree));
    map.put("lease-database", lease_database(tree));
    let expired = &tree.expired;
    map.put(
        "expired-leases-processing",
        json!({
            "flush-reclaimed-timer-wait-time": expired.flush_wait_s,
            "hold-reclaimed-time": expired.hold_s,
            "max-reclaim-leases": expired.max_leases,
            "max-reclaim-time": expired.max_ms,
            "reclaim-timer-wait-time": expired.reclaim_wait_s,
            "unwarned-reclaim-cycles": expired.unwarned_cycles,
        }),
    );
    map.put("sanity-checks", sanity_checks(tree));
    let threads = &tree.multi_threading;
    map.put(
        "multi-threading",
        json!({
            "enable-multi-threading": threads.enabled,
            "packet-queue-size": threads.packet_queue_size,
            "thread-pool-size": threads.thread_pool_size,
        }),
    );
    let mut queue = Map::new();
    queue.put("capacity", tree.queue_control.capacity);
    queue.put("enable-queue", tree.queue_control.enable_queue);
    queue.put("queue-type", tree.queue_control.queue_type.as_str());
    for (key, value) in &tree.queue_control.others {
        queue.put(key, value.to_serde());
    }
    map.put("dhcp-queue-control", queue);
    map.put("dhcp-ddns", dhcp_ddns(tree));
    let compatibility = &tree.compatibility;
    let flags = [
        ("lenient-option-parsing", compatibility.lenient_option_parsing),
        ("ignore-dhcp-server-identifier", compatibility.ignore_dhcp_server_identifier),
        ("ignore-rai-link-selection", compatibility.ignore_rai_link_selection),
        ("exclude-first-last-24", compatibility.exclude_first_last_24),
    ];
    let set: Map<String, Value> =
        flags.iter().filter(|(_, flag)| *flag).map(|(key, _)| ((*key).to_owned(), true.into())).collect();
    if !set.is_empty() {
        map.put("compatibility", set);
    }
    match tree.control_sockets.as_slice() {
        [] => {}
        [socket] if matches!(socket.kind, ControlSocketKind::Unix(_)) => {
            map.put("control-socket", control_socket(socket));
        }
        sockets => {
            map.put("control-sockets", sockets.iter().map(control_socket).collect::<Vec<_>>());
        }
    }
    let hooks: Vec<Value> = tree
        .hooks
        .iter()
        .map(|hook| {
            let mut map = Map::new();
            map.put("library", hook.path.as_str());
            map.put_some("parameters", hook.parameters.as_ref().map(super::super::json::Value::to_serde));
            map.put_context(hook.user_context.as_ref());
            Value::Object(map)
        })
        .collect();
    map.put("hooks-libraries", hooks);
    // Kea does not take an empty list here.
    if !tree.loggers.is_empty() {
        map.put("loggers", loggers(&tree.loggers));
    }
}

fn interfaces_config(tree: &Dhcp4) -> Value {
    let interfaces = &tree.interfaces;
    let mut config = Map::new();
    let chosen: Vec<String> = interfaces
        .interfaces
        .iter()
        .map(|choice| match &choice.value {
            InterfaceChoice::All => "*".to_owned(),
            InterfaceChoice::Name(name) => name.clone(),
            InterfaceChoice::Address(name, address) => format!("{name}/{address}"),
        })
        .collect();
    config.put("interfaces", chosen);
    config.put("re-detect", interfaces.re_detect);
    config.put_some(
        "dhcp-socket-type",
        interfaces.socket_type.map(|kind| if kind == SocketType::Udp { "udp" } else { "raw" }),
    );
    config.put_some(
        "outbound-interface",
        interfaces.outbound_use_routing.map(
            |routing| {
                if routing { "use-routing" } else { "same-as-inbound" }
            },
        ),
    );
    config.put_some("service-sockets-require-all", interfaces.require_all);
    config.put_some("service-sockets-retry-wait-time", interfaces.retry_wait_ms);
    config.put_some("service-sockets-max-retries", interfaces.max_retries);
    config.put_context(interfaces.user_context.as_ref());
    Value::Object(config)
}

fn lease_database(tree: &Dhcp4) -> Value {
    let database = &tree.lease_database;
    let mut config = Map::new();
    for (key, value) in &database.ignored {
        config.put(key, value.to_serde());
    }
    config.put("type", "memfile");
    config.put_some("persist", database.persist);
    config.put_some("lfc-interval", database.lfc_interval_s);
    config.put_some("name", database.name.as_deref());
    if database.max_row_errors > 0 {
        config.put("max-row-errors", database.max_row_errors);
    }
    config.put_context(database.user_context.as_ref());
    Value::Object(config)
}

fn sanity_checks(tree: &Dhcp4) -> Value {
    let mut config = Map::new();
    config.put(
        "lease-checks",
        match tree.sanity.lease_checks {
            LeaseChecks::None => "none",
            LeaseChecks::Warn => "warn",
            LeaseChecks::Fix => "fix",
            LeaseChecks::FixDel => "fix-del",
            LeaseChecks::Del => "del",
        },
    );
    config.put_some(
        "extended-info-checks",
        tree.sanity.extended_info.map(|checks| match checks {
            ExtendedInfoChecks::None => "none",
            ExtendedInfoChecks::Fix => "fix",
            ExtendedInfoChecks::Strict => "strict",
            ExtendedInfoChecks::Pedantic => "pedantic",
        }),
    );
    Value::Object(config)
}

fn dhcp_ddns(tree: &Dhcp4) -> Value {
    let ddns = &tree.dhcp_ddns;
    let mut config = Map::new();
    config.put("enable-updates", false);
    config.put("max-queue-size", ddns.max_queue_size);
    config.put("ncr-format", "JSON");
    config.put("ncr-protocol", "UDP");
    config
        .put("sender-ip", ddns.sender_ip.map_or_else(|| "0.0.0.0".to_owned(), |address| address.to_string()));
    config.put("sender-port", ddns.sender_port);
    config.put("server-ip", ddns.server_ip.to_string());
    config.put("server-port", ddns.server_port);
    config.put_context(ddns.user_context.as_ref());
    Value::Object(config)
}

fn control_socket(socket: &ControlSocket) -> Value {
    let mut map = Map::new();
    match &socket.kind {
        ControlSocketKind::Unix(path) => {
            map.put("socket-type", "unix");
            map.put("socket-name", path.as_str());
        }
        ControlSocketKind::Http(http) => {
            map.put("socket-type", if http.tls.is_some() { "https" } else { "http" });
            map.put("socket-address", http.address.to_string());
            map.put("socket-port", http.port);
            http_members(&mut map, http);
        }
    }
    map.put_context(socket.user_context.as_ref());
    Value::Object(map)
}

fn http_members(map: &mut Map<String, Value>, http: &HttpSocket) {
    if let Some(tls) = &http.tls {
        map.put("trust-anchor", tls.trust_anchor.as_str());
        map.put("cert-file", tls.cert_file.as_str());
        map.put("key-file", tls.key_file.as_str());
        map.put("cert-required", http.cert_required);
    }
    map.put_some("authentication", http.authentication.as_ref().map(authentication));
    if !http.headers.is_empty() {
        let headers: Vec<Value> =
            http.headers.iter().map(|(name, value)| json!({ "name": name, "value": value })).collect();
        map.put("http-headers", headers);
    }
}

fn authentication(authentication: &Authentication) -> Value {
    let mut map = Map::new();
    map.put("type", "basic");
    map.put("realm", authentication.realm.as_str());
    map.put("directory", authentication.directory.as_str());
    let clients: Vec<Value> = authentication
        .clients
        .iter()
        .map(|client| {
            let mut map = Map::new();
            let mut put = |key: &str, secret: &Secret| match secret {
                Secret::Text(text) => map.put(key, text.as_str()),
                Secret::File(file) => map.put(&format!("{key}-file"), file.as_str()),
            };
            put("user", &client.user);
            if let Some(password) = &client.password {
                put("password", password);
            }
            map.put_context(client.user_context.as_ref());
            Value::Object(map)
        })
        .collect();
    map.put("clients", clients);
    map.put_context(authentication.user_context.as_ref());
    Value::Object(map)
}

fn loggers(loggers: &[Logger]) -> Vec<Value> {
    loggers
        .iter()
        .map(|logger| {
            let mut map = Map::new();
            map.put("name", logger.name.as_str());
            map.put("debuglevel", logger.debug_level);
            map.put(
                "severity",
                match logger.severity {
                    Severity::Debug => "DEBUG",
                    Severity::Info => "INFO",
                    Severity::Warn => "WARN",
                    Severity::Error => "ERROR",
                    Severity::Fatal => "FATAL",
                    Severity::None => "NONE",
                },
            );
            if !logger.outputs.is_empty() {
                map.put("output_options", logger.outputs.iter().map(log_output).collect::<Vec<_>>());
            }
            map.put_context(logger.user_context.as_ref());
            Value::Object(map)
        })
        .collect()
}

fn log_output(output: &LogOutput) -> Value {
    let mut map = Map::new();
    map.put("output", output.output.as_str());
    map.put("flush", output.flush);
    map.put("pattern", output.pattern.as_str());
    let stream = ["stdout", "stderr", "syslog"].contains(&output.output.as_str());
    if !stream && !output.output.starts_with("syslog:") {
        map.put("maxsize", output.max_size_bytes);
        map.put("maxver", output.max_versions);
    }
    Value::Object(map)
}

pub(super) fn agent(tree: &ControlAgent) -> Map<String, Value> {
    let mut map = Map::new();
    map.put("http-host", tree.http_host.as_str());
    map.put("http-port", tree.listener.port);
    http_members(&mut map, &tree.listener);
    if !tree.sockets.is_empty() {
        let mut sockets = Map::new();
        for socket in &tree.sockets {
            let mut entry = Map::new();
            entry.put("socket-type", "unix");
            entry.put("socket-name", socket.path.as_str());
            entry.put_context(socket.user_context.as_ref());
            sockets.put(&socket.service, entry);
        }
        map.put("control-sockets", sockets);
    }
    let hooks: Vec<Value> = tree
        .hooks
        .iter()
        .map(|(path, parameters)| {
            let mut hook = Map::new();
            hook.put("library", path.as_str());
            hook.put_some("parameters", parameters.as_ref().map(super::super::json::Value::to_serde));
            Value::Object(hook)
        })
        .collect();
    map.put("hooks-libraries", hooks);
    if !tree.loggers.is_empty() {
        map.put("loggers", loggers(&tree.loggers));
    }
    map.put_context(tree.user_context.as_ref());
    map
}
