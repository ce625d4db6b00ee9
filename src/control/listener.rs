//! Where commands come in: listeners as configured, and how their sockets are opened.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mio::net::{TcpListener, UnixListener};
use rustls::ServerConfig;
use socket2::{Domain, SockAddr, Socket, Type};

use super::backend::Daemon;
use super::http::HttpSettings;

/// Connections that wait to be accepted, per listener.
const BACKLOG: i32 = 128;

/// One listener as configured.
#[derive(Clone, Debug)]
pub enum ListenerSpec {
    /// A unix socket of `daemon`.
    Unix {
        /// Whose commands.
        daemon: Daemon,
        /// Its path.
        path: PathBuf,
    },
    /// A TCP port.
    Http(HttpListenerSpec),
}

/// A listener on a TCP port.
#[derive(Clone, Debug)]
pub struct HttpListenerSpec {
    /// Address and port.
    pub address: SocketAddr,
    /// Who answers.
    pub role: Role,
    /// Credentials and headers.
    pub settings: HttpSettings,
    /// TLS, when it is on.
    pub tls: Option<Arc<ServerConfig>>,
}

/// Who answers the commands of a listener on a TCP port.
#[derive(Clone, Debug)]
pub enum Role {
    /// The daemon itself; `service` may name only it.
    Server(Daemon),
    /// The control agent: commands without `service` are its own, others go where `service` says.
    Agent {
        /// Where daemons that are not in this process listen: service name, path of the unix socket.
        sockets: Vec<(String, PathBuf)>,
    },
    /// The dedicated listener of HA; `service` is ignored.
    Dedicated {
        /// Whose commands.
        daemon: Daemon,
        /// Whether it accepts a command by this name, the rest is 403; `None`: it accepts all.
        accepts: Option<fn(&str) -> bool>,
    },
}

impl ListenerSpec {
    /// What two listeners cannot share.
    #[must_use]
    pub fn address(&self) -> ListenerAddress {
        match self {
            Self::Unix { path, .. } => ListenerAddress::Unix(path.clone()),
            Self::Http(spec) => ListenerAddress::Tcp(spec.address),
        }
    }
}

impl HttpListenerSpec {
    /// What is to be said at start about a port that anybody who reaches it may command; nothing when it is protected.
    #[must_use]
    pub fn exposure(&self) -> Option<String> {
        let is_open =
            !self.address.ip().is_loopback() && self.tls.is_none() && !self.settings.asks_credentials();
        is_open.then(|| {
            format!(
                "{} takes commands from anybody who reaches it: it has neither authentication nor TLS",
                self.address
            )
        })
    }
}

/// The address of a listener.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ListenerAddress {
    /// The path of a unix socket.
    Unix(PathBuf),
    /// Address and port.
    Tcp(SocketAddr),
}

impl std::fmt::Display for ListenerAddress {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unix(path) => path.display().fmt(out),
            Self::Tcp(address) => address.fmt(out),
        }
    }
}

/// An open listener.
pub(super) enum Listener {
    Unix { socket: UnixListener, path: PathBuf, lock: File },
    Tcp(TcpListener),
}

impl Listener {
    pub(super) fn open(address: &ListenerAddress) -> io::Result<Self> {
        match address {
            ListenerAddress::Unix(path) => open_unix(path),
            ListenerAddress::Tcp(address) => {
                let socket = Socket::new(Domain::for_address(*address), Type::STREAM, None)?;
                socket.set_reuse_address(true)?;
                socket.set_nonblocking(true)?;
                socket.bind(&SockAddr::from(*address))?;
                socket.listen(BACKLOG)?;
                Ok(Self::Tcp(TcpListener::from_std(socket.into())))
            }
        }
    }

    pub(super) fn source(&mut self) -> &mut dyn mio::event::Source {
        match self {
            Self::Unix { socket, .. } => socket,
            Self::Tcp(socket) => socket,
        }
    }

    pub(super) fn local_address(&self) -> Option<SocketAddr> {
        match self {
            Self::Unix { .. } => None,
            Self::Tcp(socket) => socket.local_addr().ok(),
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Self::Unix { path, lock, .. } = self {
            // The lock goes last: while it is held nobody else puts a socket there. What cannot be removed is stale,
            // and the next server removes it.
            let _ = fs::remove_file(&path);
            let _ = fs::remove_file(lock_path(path));
            let _ = lock.unlock();
        }
    }
}

fn lock_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    PathBuf::from(name)
}

fn open_unix(path: &Path) -> io::Result<Listener> {
    let lock = lock(path)?;
    match fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => fs::remove_file(path)?,
        Ok(_) => {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                "expected no file or a stale socket there, found a file of another kind",
            ));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    // The file gets the mode of the unbound socket: there is no moment in which others could connect.
    let owned: OwnedFd = socket.into();
    let file = File::from(owned);
    file.set_permissions(Permissions::from_mode(0o600))?;
    let socket = Socket::from(OwnedFd::from(file));
    socket.bind(&SockAddr::unix(path)?)?;
    fs::set_permissions(path, Permissions::from_mode(0o600))?;
    socket.listen(BACKLOG)?;
    Ok(Listener::Unix { socket: UnixListener::from_std(socket.into()), path: path.to_owned(), lock })
}

/// Takes the lock file of `path`. Whoever held it before may have removed it meanwhile: then it is taken anew.
fn lock(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::MetadataExt as _;
    let name = lock_path(path);
    for _ in 0..10 {
        let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&name)?;
        if file.try_lock().is_err() {
            return Err(io::Error::new(
                io::ErrorKind::AddrInUse,
                format!("another server holds the lock file {}", name.display()),
            ));
        }
        let held = file.metadata()?;
        if fs::metadata(&name).is_ok_and(|there| there.ino() == held.ino() && there.dev() == held.dev()) {
            return Ok(file);
        }
    }
    Err(io::Error::new(io::ErrorKind::AddrInUse, format!("the lock file {} keeps changing", name.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unix_socket_is_locked_private_and_gone_when_closed() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("s.sock");
        let address = ListenerAddress::Unix(path.clone());
        let listener = Listener::open(&address).expect("opens");
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
        let second = Listener::open(&address).err().expect("is refused");
        assert_eq!(second.kind(), io::ErrorKind::AddrInUse);
        drop(listener);
        assert!(!path.exists() && !lock_path(&path).exists());
    }

    #[test]
    fn a_stale_socket_is_replaced_and_any_other_file_is_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("s.sock");
        let address = ListenerAddress::Unix(path.clone());
        drop(std::os::unix::net::UnixListener::bind(&path).expect("binds"));
        assert!(path.exists());
        drop(Listener::open(&address).expect("replaces it"));
        fs::write(&path, "precious").expect("writes");
        assert!(Listener::open(&address).is_err());
        assert_eq!(fs::read(&path).expect("still there"), b"precious");
    }

    #[test]
    fn an_open_port_is_told_unless_it_is_protected_or_local() {
        use crate::control::http::BasicAuth;
        let spec = |address: &str, clients: &[(&'static str, &'static str)]| HttpListenerSpec {
            address: address.parse().expect("an address"),
            role: Role::Server(Daemon::Dhcp4),
            settings: HttpSettings {
                auth: Some(BasicAuth::new("r", clients.iter().copied())),
                headers: Vec::new(),
            },
            tls: None,
        };
        assert!(
            spec("192.0.2.1:8000", &[]).exposure().is_some_and(|text| text.starts_with("192.0.2.1:8000 "))
        );
        assert_eq!(spec("192.0.2.1:8000", &[("u", "p")]).exposure(), None);
        assert_eq!(spec("127.0.0.1:8000", &[]).exposure(), None);
        assert_eq!(spec("[::1]:8000", &[]).exposure(), None);
    }
}
