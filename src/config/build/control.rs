//! How the server is spoken to: control sockets, libraries, loggers, the control agent.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr};

use super::{Builder, Fields};
use crate::config::json::{Map, Member, Span, Value};
use crate::config::tree::{
    AgentSocket, AuthClient, Authentication, ControlAgent, ControlSocket, ControlSocketKind, Feature,
    HookLibrary, HttpSocket, LogOutput, Logger, Secret, Severity, TlsFiles,
};

/// Longest path of a unix socket: `sun_path` less its final zero.
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// Keys that only an HTTP socket has.
const HTTP_KEYS: [&str; 8] = [
    "socket-address",
    "socket-port",
    "authentication",
    "trust-anchor",
    "cert-file",
    "key-file",
    "cert-required",
    "http-headers",
];

/// Kea's libraries that are not built in, and what an operator would miss.
const LIBRARIES: &[(&str, &str)] = &[
    ("libdhcp_bootp", "BOOTP clients are not served"),
    ("libdhcp_cb_cmds", "the remote-* commands are missing"),
    ("libdhcp_class_cmds", "the class-* commands are missing"),
    ("libdhcp_ddns_tuning", "host names are not computed from expressions"),
    ("libdhcp_flex_option", "options are not computed from expressions"),
    ("libdhcp_forensic_log", "the forensic log is not written"),
    ("libdhcp_host_cache", "hosts are not cached, nor need they be"),
    ("libdhcp_host_cmds", "the reservation-* commands are missing"),
    ("libdhcp_lease_query", "lease queries are not answered"),
    ("libdhcp_legal_log", "the forensic log is not written"),
    ("libdhcp_limits", "leases and packets per class or subnet are not limited"),
    ("libdhcp_mysql", "MySQL is not spoken to"),
    ("libdhcp_mysql_cb", "MySQL is not spoken to"),
    ("libdhcp_perfmon", "the perfmon-* commands are missing"),
    ("libdhcp_pgsql", "PostgreSQL is not spoken to"),
    ("libdhcp_pgsql_cb", "PostgreSQL is not spoken to"),
    ("libdhcp_ping_check", "addresses are not pinged before they are offered"),
    ("libdhcp_radius", "RADIUS servers are not asked"),
    ("libdhcp_rbac", "access to commands is not restricted by role"),
    ("libdhcp_run_script", "scripts are not run"),
    ("libdhcp_user_chk", "the registry of users is not consulted"),
    ("libca_rbac", "access to commands is not restricted by role"),
];

impl Feature {
    /// The name of Kea's library without folder and ending.
    #[must_use]
    pub const fn library(self) -> &'static str {
        match self {
            Self::LeaseCmds => "libdhcp_lease_cmds",
            Self::Ha => "libdhcp_ha",
            Self::StatCmds => "libdhcp_stat_cmds",
            Self::SubnetCmds => "libdhcp_subnet_cmds",
            Self::FlexId => "libdhcp_flex_id",
        }
    }
}

impl Builder<'_> {
    pub(super) fn control_sockets(&mut self, map: &Map) -> Vec<ControlSocket> {
        if let (Some(old), Some(_)) = (map.member("control-socket"), map.member("control-sockets")) {
            self.error(
                old.key_at,
                "cannot specify both 'control-socket' and 'control-sockets'. Use only the latter.",
            );
        }
        let mut sockets: Vec<ControlSocket> = Vec::new();
        if let Some(member) = map.member("control-socket")
            && let Some(map) = member.value.as_map()
        {
            sockets.extend(self.control_socket(map, member.key_at, true));
        }
        let mut listeners = HashSet::new();
        let mut local = false;
        for (map, at) in map.maps("control-sockets") {
            let Some(socket) = self.control_socket(map, at, false) else {
                continue;
            };
            match &socket.kind {
                ControlSocketKind::Http(http) => {
                    if !listeners.insert((http.address, http.port)) {
                        let text = format!(
                            "duplicate control socket: address '{}' and port '{}' are taken by an earlier one",
                            http.address, http.port
                        );
                        self.error(at, text);
                    }
                }
                ControlSocketKind::Unix(_) => {
                    if std::mem::replace(&mut local, true) {
                        self.error(at, "multiple control sockets with type: 'unix', at most one is expected");
                    }
                }
            }
            sockets.push(socket);
        }
        sockets
    }

    fn control_socket(&mut self, map: &Map, at: Span, legacy: bool) -> Option<ControlSocket> {
        let Some(kind) = map.placed("socket-type") else {
            // An empty map has been reported as such.
            if map.find("socket-type").is_none() && !map.members().is_empty() {
                self.error(at, "missing parameter 'socket-type'");
            }
            return None;
        };
        let kind = match kind.value.as_str() {
            "unix" => {
                for member in map.members().iter().filter(|member| HTTP_KEYS.contains(&member.key.as_str())) {
                    let text =
                        format!("'{}' is a parameter of HTTP control sockets, not of unix", member.key);
                    self.error(member.key_at, text);
                }
                ControlSocketKind::Unix(self.socket_path(map, at)?)
            }
            "http" | "https" if legacy => {
                let text = format!("socket-type '{kind}' is possible in control-sockets only");
                self.error(kind.at, text);
                return None;
            }
            "http" | "https" => {
                if let Some(member) = map.member("socket-name") {
                    let text = "'socket-name' is a parameter of unix control sockets, not of HTTP";
                    self.error(member.key_at, text);
                }
                let secure = kind.value == "https";
                let address = self.listen_address(map, "socket-address");
                let port = self.port(map, "socket-port");
                let http = self.http(map, at, address, port, "kea-dhcpv4-server");
                if secure && http.tls.is_none() {
                    self.error(
                        at,
                        "trust-anchor, cert-file and key-file are required by socket-type 'https'",
                    );
                } else if !secure && http.tls.is_some() {
                    self.warning(at, "socket-type is 'http' and TLS files are given: the socket speaks TLS");
                }
                ControlSocketKind::Http(Box::new(http))
            }
            _ => return None,
        };
        Some(ControlSocket { at, legacy, kind, user_context: self.user_context(map) })
    }

    fn socket_path(&mut self, map: &Map, at: Span) -> Option<String> {
        let path = match map.placed("socket-name") {
            Some(path) if !path.value.is_empty() => path,
            Some(path) => {
                self.error(path.at, "'socket-name' must not be empty");
                return None;
            }
            None => {
                if map.find("socket-name").is_none() {
                    self.error(at, "missing parameter 'socket-name'");
                }
                return None;
            }
        };
        let bytes = path.value.len();
        if bytes > SOCKET_PATH_BYTES_MAX {
            let text = format!(
                "'socket-name' of {bytes} octets is too long, at most {SOCKET_PATH_BYTES_MAX} are expected"
            );
            self.error(path.at, text);
            return None;
        }
        Some(path.value)
    }

    fn listen_address(&mut self, map: &Map, key: &str) -> IpAddr {
        let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let Some(text) = map.placed(key) else {
            return loopback;
        };
        text.value.parse().unwrap_or_else(|_| {
            self.error(text.at, format!("'{key}' must be an IP address, it is '{text}'"));
            loopback
        })
    }

    fn port(&mut self, map: &Map, key: &str) -> u16 {
        let Some((value, number)) = map.find(key).and_then(|value| Some((value, value.as_integer()?))) else {
            return 8000;
        };
        u16::try_from(number).unwrap_or_else(|_| {
            self.error(value.at, format!("out of range value ({number}) specified for parameter '{key}'"));
            8000
        })
    }

    fn http(&mut self, map: &Map, at: Span, address: IpAddr, port: u16, realm: &str) -> HttpSocket {
        let tls = self.tls(map, at);
        let authentication = self.authentication(map, realm);
        let known = authentication.as_ref().is_some_and(|authentication| !authentication.clients.is_empty());
        if !address.is_loopback() && tls.is_none() && !known {
            let text = format!(
                "whoever reaches {address} port {port} can command this server: it asks for no password and no \
                 certificate"
            );
            self.warning(at, text);
        }
        HttpSocket {
            address,
            port,
            tls,
            cert_required: map.flag("cert-required").unwrap_or(true),
            authentication,
            headers: map
                .maps("http-headers")
                .filter_map(|(header, _)| Some((header.string("name")?, header.string("value")?)))
                .collect(),
        }
    }

    fn tls(&mut self, map: &Map, at: Span) -> Option<TlsFiles> {
        let file = |key| map.string(key).filter(|file| !file.is_empty());
        let files = [file("trust-anchor"), file("cert-file"), file("key-file")];
        match files {
            [None, None, None] => None,
            [Some(trust_anchor), Some(cert_file), Some(key_file)] => {
                Some(TlsFiles { trust_anchor, cert_file, key_file })
            }
            [anchor, cert, _] => {
                let missing = match (anchor, cert) {
                    (None, _) => "trust-anchor",
                    (_, None) => "cert-file",
                    _ => "key-file",
                };
                let text = format!(
                    "{missing} parameter is missing or empty: all or none of TLS parameters must be set"
                );
                self.bare_error(at, text);
                None
            }
        }
    }

    fn authentication(&mut self, map: &Map, realm: &str) -> Option<Authentication> {
        let config = map.child("authentication")?;
        let mut clients = Vec::new();
        for (client, at) in config.maps("clients") {
            clients.extend(self.auth_client(client, at));
        }
        Some(Authentication {
            realm: config.string("realm").unwrap_or_else(|| realm.to_owned()),
            directory: config.string("directory").unwrap_or_default(),
            clients,
            user_context: self.user_context(config),
        })
    }

    fn auth_client(&mut self, map: &Map, at: Span) -> Option<AuthClient> {
        for (text, file) in [("user", "user-file"), ("password", "password-file")] {
            if let (Some(first), Some(second)) = (map.find(text), map.find(file)) {
                let (first, second) = (self.report.place(first.at), self.report.place(second.at));
                let fault = format!("{text} ({first}) and {file} ({second}) are mutually exclusive");
                self.report.error(at, crate::config::finding::Style::Bare, fault);
                return None;
            }
        }
        let user = match (map.placed("user"), map.string("user-file")) {
            (Some(user), _) => {
                if user.value.is_empty() {
                    self.error(user.at, "user must not be empty");
                } else if user.value.contains(':') {
                    self.error(user.at, format!("user must not contain a ':': '{user}'"));
                }
                Secret::Text(user.value)
            }
            (None, Some(file)) => Secret::File(file),
            (None, None) => {
                self.error(at, "user is required in clients items");
                return None;
            }
        };
        let password = map.string("password").map(Secret::Text);
        let password = password.or_else(|| map.string("password-file").map(Secret::File));
        Some(AuthClient { user, password, user_context: self.user_context(map) })
    }

    pub(super) fn hooks(&mut self, map: &Map) -> Vec<HookLibrary> {
        let mut hooks = Vec::new();
        for (hook, at) in map.maps("hooks-libraries") {
            let Some(path) = hook.placed("library") else {
                continue;
            };
            let name = library_name(&path.value);
            let features =
                [Feature::LeaseCmds, Feature::Ha, Feature::StatCmds, Feature::SubnetCmds, Feature::FlexId];
            let Some(feature) = features.into_iter().find(|feature| feature.library() == name) else {
                let missed = LIBRARIES.iter().find(|(library, _)| *library == name);
                let missed = missed.map_or_else(
                    || format!("'{name}' is not built in, and no other library can be loaded"),
                    |(_, missed)| format!("'{name}' is not built in: {missed}"),
                );
                let text = format!(
                    "hooks libraries failed to validate - library or libraries in error are: {path}: {missed}"
                );
                self.error(path.at, text);
                continue;
            };
            hooks.push(HookLibrary {
                at,
                feature,
                path: path.value,
                parameters: hook.find("parameters").cloned(),
                user_context: self.user_context(hook),
            });
        }
        hooks
    }

    /// `loggers`. Nothing here is worth a server that does not start: faults are warnings.
    pub(super) fn loggers(&mut self, map: &Map) -> Vec<Logger> {
        let mut loggers = Vec::new();
        for (logger, at) in map.maps("loggers") {
            let name = logger.string("name").unwrap_or_default();
            if name.is_empty() {
                self.warning(at, "a logger without 'name' speaks for the whole server");
            }
            let debug_level =
                logger.find("debuglevel").and_then(|value| Some((value.at, value.as_integer()?)));
            let debug_level = debug_level.map_or(0, |(at, number)| {
                u8::try_from(number).ok().filter(|level| *level <= 99).unwrap_or_else(|| {
                    self.warning(at, format!("debuglevel {number} is out of range, expected 0 to 99"));
                    if number < 0 { 0 } else { 99 }
                })
            });
            let mut outputs: Vec<LogOutput> = Vec::new();
            for key in ["output-options", "output_options"] {
                outputs.extend(logger.maps(key).filter_map(|(output, _)| log_output(output)));
            }
            let severity = self.severity(logger);
            loggers.push(Logger {
                name,
                severity,
                debug_level,
                outputs,
                user_context: self.user_context(logger),
            });
        }
        loggers
    }

    fn severity(&mut self, logger: &Map) -> Severity {
        let Some(word) = logger.placed("severity") else {
            return Severity::default();
        };
        match word.value.to_ascii_uppercase().as_str() {
            "DEBUG" => Severity::Debug,
            "INFO" => Severity::Info,
            "WARN" => Severity::Warn,
            "ERROR" => Severity::Error,
            "FATAL" => Severity::Fatal,
            "NONE" => Severity::None,
            other => {
                let text = format!(
                    "severity '{other}' is none of DEBUG, INFO, WARN, ERROR, FATAL, NONE: INFO is taken"
                );
                self.warning(word.at, text);
                Severity::default()
            }
        }
    }

    pub(super) fn agent(&mut self, member: &Member, map: &Map) -> ControlAgent {
        let http_host = map.string("http-host").unwrap_or_else(|| "127.0.0.1".to_owned());
        let address = self.listen_address(map, "http-host");
        let port = map.number("http-port").unwrap_or(8000);
        let listener = self.http(map, member.key_at, address, port, "kea-control-agent");
        let mut sockets = Vec::new();
        for service in map.child("control-sockets").map(Map::members).unwrap_or_default() {
            let Some(socket) = service.value.as_map() else {
                continue;
            };
            let Some(path) = self.socket_path(socket, service.key_at) else {
                continue;
            };
            sockets.push(AgentSocket {
                service: service.key.clone(),
                path,
                user_context: self.user_context(socket),
            });
        }
        let mut hooks = Vec::new();
        for (hook, at) in map.maps("hooks-libraries") {
            let path = hook.string("library").unwrap_or_default();
            let missed = LIBRARIES.iter().find(|(library, _)| *library == library_name(&path));
            let missed = missed.map_or("no library can be loaded", |(_, missed)| missed);
            self.error(
                at,
                format!(
                    "hooks libraries failed to validate - library or libraries in error are: {path}: {missed}"
                ),
            );
            hooks.push((path, hook.find("parameters").cloned()));
        }
        ControlAgent {
            at: member.value.at,
            listener,
            http_host,
            sockets,
            hooks,
            loggers: self.loggers(map),
            user_context: self.user_context(map),
        }
    }
}

fn log_output(map: &Map) -> Option<LogOutput> {
    Some(LogOutput {
        output: map.find("output").and_then(Value::as_text)?.to_owned(),
        flush: map.flag("flush").unwrap_or(true),
        max_size_bytes: map.number("maxsize").unwrap_or(10_240_000),
        max_versions: map.number("maxver").unwrap_or(1),
        pattern: map.string("pattern").unwrap_or_default(),
    })
}

/// `libdhcp_ha` of `/usr/lib/kea/hooks/libdhcp_ha.so`.
fn library_name(path: &str) -> &str {
    let base = path.rsplit('/').next().unwrap_or(path);
    base.split_once(".so").map_or(base, |(name, _)| name)
}
