//! Listeners of the loop: opened and closed as a whole, and room kept for new clients.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use mio::{Interest, Token};

use super::{ControlLoop, LOGGER};
use crate::control::backend::Backend;
use crate::control::connection::{Client, Phase};
use crate::control::listener::{Listener, ListenerAddress, ListenerSpec};
use crate::control::log::Severity;
use crate::control::stream::Stream;
use crate::time::Mono;
use crate::{log, log_limited};

/// Most clients of one listener: nobody who floods one keeps clients of another out.
pub const CLIENTS_PER_LISTENER_MAX: usize = 256;
const ACCEPTS_PER_TURN: usize = 64;

pub(super) struct OpenListener {
    pub(super) listener: Listener,
    address: ListenerAddress,
    spec: Arc<ListenerSpec>,
}

impl ControlLoop {
    /// Makes the listeners those of `specs`: addresses that stay keep their socket, new ones are opened, the rest is closed.
    /// Nothing changes when one of them cannot be opened. Clients of closed listeners get the answer they wait for.
    ///
    /// # Errors
    /// What cannot be opened and why.
    pub fn listen(&mut self, specs: Vec<ListenerSpec>) -> Result<(), Vec<String>> {
        let mut opened = Vec::new();
        let mut errors = Vec::new();
        for spec in specs {
            let address = spec.address();
            let known =
                self.listeners.iter().find(|(_, open)| open.address == address).map(|(token, _)| *token);
            if let Some(token) = known {
                opened.push((token, None, address, Arc::new(spec)));
                continue;
            }
            let token = self.token();
            let listener = Listener::open(&address).and_then(|mut listener| {
                self.poll.registry().register(listener.source(), token, Interest::READABLE)?;
                Ok(listener)
            });
            match listener {
                Ok(listener) => {
                    if let ListenerSpec::Http(http) = &spec
                        && let Some(exposure) = http.exposure()
                    {
                        log!(Severity::Warn, LOGGER, COMMAND_LISTENER_UNPROTECTED, "{exposure}");
                    }
                    opened.push((token, Some(listener), address, Arc::new(spec)));
                }
                Err(error) => errors.push(format!("control channel {address}: {error}")),
            }
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        let mut before = std::mem::take(&mut self.listeners);
        for (token, listener, address, spec) in opened {
            let listener = listener.or_else(|| before.remove(&token).map(|open| open.listener));
            if let Some(listener) = listener {
                self.adopt(&address, &spec);
                self.listeners.insert(token, OpenListener { listener, address, spec });
                self.ready.insert(token);
            }
        }
        for (_, mut closed) in before {
            let _ = self.poll.registry().deregister(closed.listener.source());
            for client in
                self.clients.values_mut().filter(|client| Arc::ptr_eq(&client.listener, &closed.spec))
            {
                if client.is_idle() {
                    client.phase = Phase::Gone;
                }
            }
        }
        self.clients.retain(|_, client| client.phase != Phase::Gone);
        Ok(())
    }

    /// Clients of a listener that stays live under its new settings: credentials asked for from now on are asked of them too.
    fn adopt(&mut self, address: &ListenerAddress, spec: &Arc<ListenerSpec>) {
        let is_tls = |spec: &ListenerSpec| matches!(spec, ListenerSpec::Http(http) if http.tls.is_some());
        for client in self.clients.values_mut().filter(|client| client.listener.address() == *address) {
            if is_tls(&client.listener) != is_tls(spec) && client.is_idle() {
                client.phase = Phase::Gone;
            }
            client.listener = Arc::clone(spec);
        }
    }

    pub(super) fn accept(&mut self, token: Token, backend: &mut dyn Backend) {
        let now = backend.now().mono;
        for _ in 0..ACCEPTS_PER_TURN {
            let Some(open) = self.listeners.get(&token) else { return };
            let spec = Arc::clone(&open.spec);
            let accepted = match &open.listener {
                Listener::Unix { socket, .. } => {
                    socket.accept().map(|(socket, _)| (Stream::Unix(socket), String::new()))
                }
                Listener::Tcp(socket) => socket.accept().and_then(|(socket, remote)| {
                    let tls = match &*spec {
                        ListenerSpec::Http(http) => http.tls.as_ref(),
                        ListenerSpec::Unix { .. } => None,
                    };
                    Ok((Stream::tcp(socket, tls)?, remote.ip().to_string()))
                }),
            };
            match accepted {
                Ok((stream, remote)) => {
                    if self.make_room(&spec) {
                        self.admit(stream, spec, remote, now, backend);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => {
                    // Out of descriptors, or a client that gave up: those behind it wait for the next turn.
                    let address = self.listeners.get(&token).map(|open| open.address.to_string());
                    log_limited!(
                        Severity::Error,
                        LOGGER,
                        COMMAND_SOCKET_ACCEPT_FAIL,
                        "a connection to {} could not be accepted: {error}",
                        address.unwrap_or_default()
                    );
                    return;
                }
            }
        }
        self.ready.insert(token);
    }

    /// Whether there is room for another client of `spec`, made if need be. The address that has most clients gives one up, so
    /// that whoever floods a listener (a partner's, for one) has to do without connections of its own: an idle one if there is
    /// any, else an unfinished request, each the one that has been silent longest.
    fn make_room(&mut self, spec: &Arc<ListenerSpec>) -> bool {
        let of_listener = |client: &&Client| Arc::ptr_eq(&client.listener, spec);
        if self.clients.values().filter(of_listener).count() < CLIENTS_PER_LISTENER_MAX {
            return true;
        }
        let mut counts: HashMap<&str, usize> = HashMap::new();
        for client in self.clients.values().filter(of_listener) {
            *counts.entry(&client.remote).or_default() += 1;
        }
        let silent = self
            .clients
            .iter()
            .filter(|(_, client)| of_listener(client))
            .filter_map(|(token, client)| Some((*token, client, client.silent_since()?)))
            // Tokens grow: of two that have been silent as long the one with the smaller has been there longer.
            .max_by_key(|(token, client, since)| {
                (counts.get(&*client.remote).copied(), client.is_idle(), Reverse(*since), Reverse(token.0))
            })
            .map(|(token, client, _)| (token, client.remote.clone()));
        log_limited!(
            Severity::Warn,
            LOGGER,
            COMMAND_CONNECTIONS_FULL,
            "{} has {CLIENTS_PER_LISTENER_MAX} clients: {}",
            spec.address(),
            match &silent {
                Some((_, remote)) => format!("a silent one from {remote} is closed for a new one"),
                None => "a new one is refused".to_owned(),
            }
        );
        let Some(closed) = silent.and_then(|(token, _)| self.clients.remove(&token)) else { return false };
        self.forget(closed);
        true
    }

    fn admit(
        &mut self,
        mut stream: Stream,
        spec: Arc<ListenerSpec>,
        remote: String,
        now: Mono,
        backend: &mut dyn Backend,
    ) {
        let token = self.token();
        let interest = Interest::READABLE | Interest::WRITABLE;
        if self.poll.registry().register(stream.source(), token, interest).is_err() {
            return;
        }
        log!(
            Severity::Debug(40),
            LOGGER,
            COMMAND_SOCKET_CONNECTION_OPENED,
            "connection {} from {remote}",
            token.0
        );
        self.clients.insert(token, Client::new(stream, spec, remote, now));
        self.client_turn(token, backend);
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::path::Path;

    use super::*;
    use crate::control::backend::Daemon;
    use crate::control::http::HttpSettings;
    use crate::control::listener::{HttpListenerSpec, Role};
    use crate::control::table::CommandTable;

    fn unix(path: &Path) -> ListenerSpec {
        ListenerSpec::Unix { daemon: Daemon::Dhcp4, path: path.to_owned() }
    }

    fn http(address: SocketAddr) -> ListenerSpec {
        ListenerSpec::Http(HttpListenerSpec {
            address,
            role: Role::Server(Daemon::Dhcp4),
            settings: HttpSettings::default(),
            tls: None,
        })
    }

    #[test]
    fn listeners_change_as_a_whole_or_not_at_all() {
        let folder = tempfile::tempdir().expect("a folder");
        let (one, other) = (folder.path().join("1.sock"), folder.path().join("2.sock"));
        let mut control = ControlLoop::new([CommandTable::dhcp4()]).expect("a loop");
        let port_free = SocketAddr::from(([127, 0, 0, 1], 0));
        control.listen(vec![unix(&one), http(port_free)]).expect("opens");
        let address = control.tcp_addresses()[0];
        let there = |path: &Path| std::os::unix::net::UnixStream::connect(path).is_ok();
        assert!(there(&one));

        let errors = control.listen(vec![unix(&other), unix(&folder.path().join("none/3.sock"))]);
        let errors = errors.expect_err("is refused");
        assert!(errors[0].contains("none/3.sock: "), "{errors:?}");
        assert!(there(&one) && !there(&other), "nothing has changed");
        let taken = http(address);
        assert_eq!(
            ControlLoop::new([]).expect("a loop").listen(vec![taken]).expect_err("is refused").len(),
            1
        );

        control.listen(vec![unix(&one), unix(&other)]).expect("opens");
        assert!(there(&one) && there(&other));
        assert!(std::net::TcpStream::connect(address).is_err(), "the port is closed");
        control.listen(Vec::new()).expect("closes");
        assert!(!one.exists() && !other.exists());
    }
}
