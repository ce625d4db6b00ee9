//! Where the demo plays: two network namespaces without names and a wire between them, or, where the system forbids that,
//! pipes to a server whose port is a queue in its own process.
//!
//! ```text
//!   server's namespace                     clients' namespace
//!   srv0 10.67.0.1/16    <---- veth ---->  cli0 10.67.0.2/16
//! ```
//! Nothing has a name outside: namespaces and devices are gone when the last process in them is.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::Ipv4Addr;
use std::process::{Child, ChildStdin};
use std::sync::Arc;
use std::time::Duration;

use crossbeam::channel::{Receiver, unbounded};

use super::population::Ends;
use crate::ids::InterfaceId;
use crate::net::link::make::{VethEnd, add_address, set_up, veth_pair};
use crate::net::link::{Selected, Snapshot};
use crate::net::packet::{self, Hear, PacketOptions};
use crate::net::{
    BATCH_MAX, Doorbell, FrameSlab, PacketPort, PortSet, RxBatch, TxBatch, enter_network_namespace,
    enter_user_namespace, network_namespace, new_network_namespace,
};

/// The interface that the server serves, in both modes.
pub(super) const SERVER_LINK: &str = "srv0";
const CLIENTS_LINK: &str = "cli0";
/// The server's address and the size of its network.
pub(super) const SERVER: Ipv4Addr = Ipv4Addr::new(10, 67, 0, 1);
/// See [`SERVER`].
pub(super) const PREFIX_LEN: u8 = 16;
const CLIENTS: Ipv4Addr = Ipv4Addr::new(10, 67, 0, 2);
/// The two ends.
pub(super) const ENDS: Ends =
    Ends { clients_mac: [0x02, 0, 0, 0, 0, 0x02], server_mac: [0x02, 0, 0, 0, 0, 0x01], server: SERVER };

/// The stage.
pub(super) enum Stage {
    /// Namespaces, and whether they are those of an ordinary user.
    Namespaces {
        /// The server's.
        server: File,
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
                error.to_string()
            } else {
                format!("{as_root}; in a user namespace: {error}")
            }),
        }
    }

    /// In plain words.
    pub(super) fn describe(&self) -> String {
        match self {
            Self::Namespaces { of_a_user: false, .. } => {
                "packet sockets on a wire between two network namespaces".to_owned()
            }
            Self::Namespaces { of_a_user: true, .. } => {
                "packet sockets on a wire between two network namespaces of a user namespace".to_owned()
            }
            Self::InProcess(why) => format!(
                "NO packet sockets: this system allows no network namespaces ({why}). The same server runs on an \
                 in-process port and the clients reach it through pipes"
            ),
        }
    }

    /// Calls `start` where the server's sockets are to be.
    pub(super) fn at_server<T>(&self, start: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let Self::Namespaces { server, clients, .. } = self else { return start() };
        enter_network_namespace(server)?;
        let started = start();
        enter_network_namespace(clients)?;
        started
    }
}

/// Makes namespaces, devices and addresses; the thread ends up in the clients' namespace, or where it was.
fn build(of_a_user: bool) -> io::Result<Stage> {
    let home = network_namespace()?;
    let server = new_network_namespace()?;
    let wired = (|| {
        let clients = new_network_namespace()?;
        veth_pair(
            VethEnd { name: CLIENTS_LINK, mac: ENDS.clients_mac },
            VethEnd { name: SERVER_LINK, mac: ENDS.server_mac },
            &server,
        )?;
        set_up(CLIENTS_LINK)?;
        add_address(CLIENTS_LINK, CLIENTS, PREFIX_LEN)?;
        enter_network_namespace(&server)?;
        set_up(SERVER_LINK)?;
        add_address(SERVER_LINK, SERVER, PREFIX_LEN)?;
        enter_network_namespace(&clients)?;
        Ok(clients)
    })();
    match wired {
        Ok(clients) => Ok(Stage::Namespaces { server, clients, of_a_user }),
        Err(error) => {
            enter_network_namespace(&home)?;
            Err(error)
        }
    }
}

/// The clients' end.
pub(super) enum Wire {
    /// A packet socket.
    Packets(Box<Packets>),
    /// Pipes to the server's process.
    Pipes(Pipes),
}

/// A packet socket that hears all that the server sends to clients.
pub(super) struct Packets {
    set: PortSet<PacketPort>,
    heard: RxBatch,
    slab: FrameSlab,
    batch: TxBatch,
}

/// Frames with their lengths before them.
pub(super) struct Pipes {
    to: ChildStdin,
    from: Receiver<Vec<u8>>,
}

impl Wire {
    /// The packet socket of the clients' namespace, in which the caller is.
    pub(super) fn packets() -> io::Result<Self> {
        let snapshot = Snapshot::read()?;
        let index = snapshot.link(CLIENTS_LINK).map_or(0, |link| link.index);
        let selected = Selected {
            name: CLIENTS_LINK.to_owned(),
            index,
            mac: ENDS.clients_mac,
            addresses: vec![CLIENTS],
        };
        let options = PacketOptions { udp_port: 68, hear: Hear::All, ..PacketOptions::default() };
        let ports = packet::open(&selected, InterfaceId(0), 1, (1, 1), &options)
            .map_err(|error| io::Error::new(error.source.kind(), format!("{error}: {}", error.source)))?;
        let mut set = PortSet::new(Arc::new(Doorbell::new()?));
        for port in ports {
            assert!(set.add(port).is_ok(), "a new set has room");
        }
        let slab = FrameSlab::new(u32::try_from(BATCH_MAX).expect("a batch is small"));
        Ok(Self::Packets(Box::new(Packets { set, heard: RxBatch::new(), slab, batch: TxBatch::new() })))
    }

    /// The pipes of a child, of which it takes them.
    pub(super) fn pipes(child: &mut Child) -> io::Result<Self> {
        let missing = || io::Error::other("the server was started without pipes");
        let to = child.stdin.take().ok_or_else(missing)?;
        let mut out = child.stdout.take().ok_or_else(missing)?;
        let (sender, from) = unbounded();
        std::thread::Builder::new().name("pipe".to_owned()).spawn(move || {
            while let Ok(Some(frame)) = read_frame(&mut out) {
                if sender.send(frame).is_err() {
                    break;
                }
            }
        })?;
        Ok(Self::Pipes(Pipes { to, from }))
    }

    /// Sends `frames`; what the server does not take is lost, as on any wire.
    pub(super) fn send(&mut self, frames: &[Vec<u8>]) {
        match self {
            Self::Packets(packets) => {
                for bytes in frames {
                    let Some(frame) = packets.slab.take() else { continue };
                    packets.slab.bytes_mut(&frame)[..bytes.len()].copy_from_slice(bytes);
                    packets.batch.push(frame, bytes.len(), InterfaceId(0));
                    if packets.batch.room() == 0 {
                        packets.set.send(&mut packets.batch, &mut packets.slab);
                    }
                }
                if !packets.batch.is_empty() {
                    packets.set.send(&mut packets.batch, &mut packets.slab);
                }
            }
            Self::Pipes(pipes) => {
                let mut octets = Vec::new();
                for frame in frames {
                    put_frame(&mut octets, frame);
                }
                let _ = pipes.to.write_all(&octets);
            }
        }
    }

    /// Waits up to `limit` for frames, and shows each that is there.
    pub(super) fn receive(&mut self, limit: Duration, mut look: impl FnMut(&[u8])) -> io::Result<()> {
        match self {
            Self::Packets(packets) => {
                packets.set.wait(limit, || false)?;
                while packets.set.recv(&mut packets.heard) > 0 {
                    for frame in packets.heard.frames() {
                        look(packets.set.bytes(frame));
                    }
                    packets.set.recycle(&mut packets.heard);
                }
            }
            Self::Pipes(pipes) => {
                let mut next = pipes.from.recv_timeout(limit).ok();
                while let Some(frame) = next {
                    look(&frame);
                    next = pipes.from.try_recv().ok();
                }
            }
        }
        Ok(())
    }
}

/// Appends a frame and its length.
pub(super) fn put_frame(octets: &mut Vec<u8>, frame: &[u8]) {
    let len = u16::try_from(frame.len()).expect("a frame is short");
    octets.extend_from_slice(&len.to_be_bytes());
    octets.extend_from_slice(frame);
}

/// Reads one frame; nothing at the end of the stream.
pub(super) fn read_frame(stream: &mut impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut len = [0; 2];
    if let Err(error) = stream.read_exact(&mut len) {
        return if error.kind() == io::ErrorKind::UnexpectedEof { Ok(None) } else { Err(error) };
    }
    let mut frame = vec![0; usize::from(u16::from_be_bytes(len))];
    stream.read_exact(&mut frame)?;
    Ok(Some(frame))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_travel_through_a_stream_whole_and_in_order() {
        let mut octets = Vec::new();
        put_frame(&mut octets, b"first");
        put_frame(&mut octets, b"");
        put_frame(&mut octets, &[7; 1500]);
        let mut stream = octets.as_slice();
        assert_eq!(read_frame(&mut stream).expect("a slice reads"), Some(b"first".to_vec()));
        assert_eq!(read_frame(&mut stream).expect("a slice reads"), Some(Vec::new()));
        assert_eq!(read_frame(&mut stream).expect("a slice reads"), Some(vec![7; 1500]));
        assert_eq!(read_frame(&mut stream).expect("a slice reads"), None);
        assert!(read_frame(&mut &octets[..4]).is_err(), "a frame cut short");
    }
}
