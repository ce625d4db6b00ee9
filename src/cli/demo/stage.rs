//! Where the demo plays: three network namespaces without names and wires between them, or, where the system forbids that,
//! pipes to servers whose ports are queues in their own processes.
//!
//! ```text
//!   first server's namespace         clients' namespace         second server's namespace
//!   srv0 10.67.0.1/16  <-- veth -->  cli0          cli1  <-- veth -->  srv0 10.67.0.2/16
//!   ha0  10.68.0.1/30  <------------------ veth ------------------->  ha0  10.68.0.2/30
//! ```
//! Nothing has a name outside: namespaces and devices are gone when the last process in them is.

use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener};

use super::population::{Ends, ServerEnd};
use crate::net::link::make::{VethEnd, add_address, set_up, veth_pair};
use crate::net::{enter_network_namespace, enter_user_namespace, network_namespace, new_network_namespace};

/// The interface that each server serves, in both modes.
pub(super) const SERVER_LINK: &str = "srv0";
/// The size of the servers' network.
pub(super) const PREFIX_LEN: u8 = 16;
/// The clients' ends of the wires to the servers.
pub(super) const CLIENT_LINKS: [&str; 2] = ["cli0", "cli1"];
/// The addresses of these ends.
pub(super) const CLIENTS: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 67, 0, 3), Ipv4Addr::new(10, 67, 0, 4)];
/// The wire between the servers.
const PAIR_LINK: &str = "ha0";
const PAIR: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 68, 0, 1), Ipv4Addr::new(10, 68, 0, 2)];
const PAIR_MACS: [[u8; 6]; 2] = [[0x02, 0, 0, 0, 1, 0x01], [0x02, 0, 0, 0, 1, 0x02]];
const PAIR_PREFIX_LEN: u8 = 30;
const PAIR_PORT: u16 = 8005;
/// The ends, as clients see them.
pub(super) const ENDS: Ends = Ends {
    clients_mac: [0x02, 0, 0, 0, 0, 0x03],
    servers: [
        ServerEnd { mac: [0x02, 0, 0, 0, 0, 0x01], address: Ipv4Addr::new(10, 67, 0, 1) },
        ServerEnd { mac: [0x02, 0, 0, 0, 0, 0x02], address: Ipv4Addr::new(10, 67, 0, 2) },
    ],
};

/// The stage.
pub(super) enum Stage {
    /// Namespaces, and whether they are those of an ordinary user.
    Namespaces {
        /// The servers'.
        servers: [File; 2],
        /// The clients'.
        clients: File,
        /// They are in a user namespace.
        of_a_user: bool,
    },
    /// Pipes, and why.
    InProcess(String),
}

impl Stage {
    /// Sets the stage. Only for a process with one thread, which moves.
    pub(super) fn set() -> Self {
        let as_root = match build(false) {
            Ok(stage) => return stage,
            Err(error) => error,
        };
        match enter_user_namespace().and_then(|()| build(true)) {
            Ok(stage) => stage,
            Err(error) => Self::InProcess(if as_root.to_string() == error.to_string() {
                format!("this system allows no network namespaces ({error})")
            } else {
                format!("this system allows no network namespaces ({as_root}; in a user namespace: {error})")
            }),
        }
    }

    /// In plain words.
    pub(super) fn describe(&self) -> String {
        let spaces =
            "packet sockets on virtual wires, HTTP on a wire of its own, in three network namespaces";
        match self {
            Self::Namespaces { of_a_user: false, .. } => spaces.to_owned(),
            Self::Namespaces { of_a_user: true, .. } => format!("{spaces} of a user namespace"),
            Self::InProcess(why) => format!(
                "NO packet sockets: {why}. The same servers run on in-process ports, the clients reach them through \
                 pipes, and they reach each other by HTTP on the loopback interface"
            ),
        }
    }

    /// Where the servers hear each other.
    pub(super) fn pair_addresses(&self) -> io::Result<[SocketAddrV4; 2]> {
        if let Self::Namespaces { .. } = self {
            return Ok(PAIR.map(|address| SocketAddrV4::new(address, PAIR_PORT)));
        }
        // Two ports that nobody has now; both are held until both are known.
        let held =
            [TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?, TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?];
        let port = |at: usize| held[at].local_addr().map(|address: SocketAddr| address.port());
        Ok([port(0)?, port(1)?].map(|port| SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)))
    }

    /// Calls `start` where that server's sockets are to be.
    pub(super) fn at_server<T>(&self, server: usize, start: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let Self::Namespaces { servers, clients, .. } = self else { return start() };
        enter_network_namespace(&servers[server])?;
        let started = start();
        enter_network_namespace(clients)?;
        started
    }
}

/// Makes namespaces, devices and addresses; the thread ends up in the clients' namespace, or where it was.
fn build(of_a_user: bool) -> io::Result<Stage> {
    let home = network_namespace()?;
    let wired = (|| {
        let servers = [new_network_namespace()?, new_network_namespace()?];
        let clients = new_network_namespace()?;
        for (number, namespace) in servers.iter().enumerate() {
            let (name, end) = (CLIENT_LINKS[number], ENDS.servers[number]);
            // The two clients' ends are alike but for their names: nobody looks at who sent a frame to a client.
            let mac = ENDS.clients_mac;
            veth_pair(VethEnd { name, mac }, VethEnd { name: SERVER_LINK, mac: end.mac }, namespace)?;
            set_up(name)?;
            add_address(name, CLIENTS[number], PREFIX_LEN)?;
            enter_network_namespace(namespace)?;
            set_up(SERVER_LINK)?;
            add_address(SERVER_LINK, end.address, PREFIX_LEN)?;
            enter_network_namespace(&clients)?;
        }
        let ends = PAIR_MACS.map(|mac| VethEnd { name: PAIR_LINK, mac });
        enter_network_namespace(&servers[0])?;
        veth_pair(ends[0], ends[1], &servers[1])?;
        for (namespace, address) in servers.iter().zip(PAIR) {
            enter_network_namespace(namespace)?;
            set_up(PAIR_LINK)?;
            add_address(PAIR_LINK, address, PAIR_PREFIX_LEN)?;
        }
        enter_network_namespace(&clients)?;
        Ok(Stage::Namespaces { servers, clients, of_a_user })
    })();
    if wired.is_err() {
        enter_network_namespace(&home)?;
    }
    wired
}
