//! Control listeners and loggers as the configuration describes them.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::config::tree::{
    Authentication, ControlAgent, ControlSocketKind, Dhcp4, HttpSocket, Logger, Secret,
    Severity as Configured,
};
use crate::control::backend::Daemon;
use crate::control::http::{BasicAuth, HttpSettings};
use crate::control::listener::{HttpListenerSpec, ListenerSpec, Role};
use crate::control::log::{LoggerSpec, OutputSpec, Severity};
use crate::control::tls::{self, TlsFiles};

/// All listeners of a server.
///
/// # Errors
/// A certificate, key or password file that cannot be used.
pub fn specs(tree: &Dhcp4, agent: Option<&ControlAgent>) -> Result<Vec<ListenerSpec>, String> {
    let mut specs = Vec::new();
    for socket in &tree.control_sockets {
        match &socket.kind {
            ControlSocketKind::Unix(path) => {
                specs.push(ListenerSpec::Unix { daemon: Daemon::Dhcp4, path: PathBuf::from(path) });
            }
            ControlSocketKind::Http(http) => {
                specs.push(ListenerSpec::Http(http_spec(http, Role::Server(Daemon::Dhcp4), Daemon::Dhcp4)?));
            }
        }
    }
    if let Some(agent) = agent {
        let sockets = agent
            .sockets
            .iter()
            .map(|socket| (socket.service.clone(), PathBuf::from(&socket.path)))
            .collect();
        let role = Role::Agent { sockets };
        specs.push(ListenerSpec::Http(http_spec(&agent.listener, role, Daemon::Agent)?));
    }
    specs.extend(super::ha::setup::listeners(tree)?);
    Ok(specs)
}

fn http_spec(http: &HttpSocket, role: Role, daemon: Daemon) -> Result<HttpListenerSpec, String> {
    let auth = http.authentication.as_ref().map(|auth| authentication(auth, daemon)).transpose()?;
    let tls = http
        .tls
        .as_ref()
        .map(|files| {
            let files = TlsFiles {
                trust_anchor: PathBuf::from(&files.trust_anchor),
                cert_file: PathBuf::from(&files.cert_file),
                key_file: PathBuf::from(&files.key_file),
            };
            tls::server_config(&files, http.cert_required).map_err(|error| error.to_string())
        })
        .transpose()?;
    let address = SocketAddr::new(http.address, http.port);
    Ok(HttpListenerSpec {
        address,
        role,
        settings: HttpSettings { auth, headers: http.headers.clone() },
        tls,
    })
}

fn authentication(auth: &Authentication, daemon: Daemon) -> Result<BasicAuth, String> {
    let realm = if auth.realm.is_empty() { daemon.realm() } else { &auth.realm };
    let mut clients = Vec::new();
    for client in &auth.clients {
        let user = secret(&client.user, &auth.directory)?;
        let password =
            client.password.as_ref().map(|password| secret(password, &auth.directory)).transpose()?;
        clients.push((user, password.unwrap_or_default()));
    }
    Ok(BasicAuth::new(realm, clients.iter().map(|(user, password)| (user.as_str(), password.as_str()))))
}

/// A text, or the first line of the file that holds it.
fn secret(secret: &Secret, directory: &str) -> Result<String, String> {
    match secret {
        Secret::Text(text) => Ok(text.clone()),
        Secret::File(name) => {
            let path = Path::new(directory).join(name);
            let text = std::fs::read_to_string(&path)
                .map_err(|error| format!("cannot read {}: {error}", path.display()))?;
            Ok(text.lines().next().unwrap_or("").to_owned())
        }
    }
}

/// The loggers of a configuration; without any, standard error gets everything from INFO on.
#[must_use]
pub fn loggers(configured: &[Logger]) -> Vec<LoggerSpec> {
    let root = LoggerSpec {
        name: "kea-dhcp4".to_owned(),
        severity: Some(Severity::Info),
        outputs: vec![OutputSpec::new("stderr")],
    };
    let own = configured.iter().map(|logger| LoggerSpec {
        name: if logger.name.is_empty() { "kea-dhcp4".to_owned() } else { logger.name.clone() },
        severity: match logger.severity {
            Configured::Debug => Some(Severity::Debug(logger.debug_level)),
            Configured::Info => Some(Severity::Info),
            Configured::Warn => Some(Severity::Warn),
            Configured::Error => Some(Severity::Error),
            Configured::Fatal => Some(Severity::Fatal),
            Configured::None => None,
        },
        outputs: logger
            .outputs
            .iter()
            .map(|output| OutputSpec {
                size_bytes_max: output.max_size_bytes,
                versions_max: output.max_versions,
                ..OutputSpec::new(&output.output)
            })
            .collect(),
    });
    let mut all: Vec<LoggerSpec> = own.collect();
    if !all.iter().any(|logger| logger.name == root.name && !logger.outputs.is_empty()) {
        all.retain(|logger| logger.name != root.name || !logger.outputs.is_empty());
        let severity =
            configured.iter().find(|logger| logger.name == root.name).map_or(root.severity, |logger| {
                if logger.severity == Configured::None { None } else { root.severity }
            });
        all.insert(0, LoggerSpec { severity, ..root });
    }
    all
}
