//! The clients' end of the wires: packet sockets, or pipes to the servers' processes.

use std::io::{self, Read, Write};
use std::process::{Child, ChildStdin};
use std::sync::Arc;
use std::time::Duration;

use crossbeam::channel::{Receiver, Sender, unbounded};

use super::stage::{CLIENT_LINKS, CLIENTS, ENDS, Stage};
use crate::ids::InterfaceId;
use crate::net::link::{Selected, Snapshot};
use crate::net::packet::{self, Hear, PacketOptions};
use crate::net::{BATCH_MAX, Doorbell, FrameSlab, PacketPort, PortSet, RxBatch, TxBatch};

/// The interfaces towards the servers, by the number of the server.
const INTERFACES: [InterfaceId; 2] = [InterfaceId(0), InterfaceId(1)];

/// The clients' end.
pub(super) enum Wire {
    /// Packet sockets.
    Packets(Box<Packets>),
    /// Pipes to the servers' processes.
    Pipes(Pipes),
}

/// Packet sockets that hear all that the servers send to clients.
pub(super) struct Packets {
    set: PortSet<PacketPort>,
    heard: RxBatch,
    slab: FrameSlab,
    batch: TxBatch,
}

/// Frames with their lengths before them.
pub(super) struct Pipes {
    to: [Option<ChildStdin>; 2],
    from: Receiver<Vec<u8>>,
    sender: Sender<Vec<u8>>,
}

impl Wire {
    /// The wires of this stage; with namespaces the caller is in that of the clients.
    pub(super) fn new(stage: &Stage) -> io::Result<Self> {
        if let Stage::InProcess(_) = stage {
            let (sender, from) = unbounded();
            return Ok(Self::Pipes(Pipes { to: [None, None], from, sender }));
        }
        let snapshot = Snapshot::read()?;
        let mut set = PortSet::new(Arc::new(Doorbell::new()?));
        for (number, interface) in INTERFACES.into_iter().enumerate() {
            let name = CLIENT_LINKS[number];
            let index = snapshot.link(name).map_or(0, |link| link.index);
            let addresses = vec![CLIENTS[number]];
            let selected = Selected { name: name.to_owned(), index, mac: ENDS.clients_mac, addresses };
            let options = PacketOptions {
                udp_port: 68,
                hear: Hear::All,
                rings_apart: false,
                ..PacketOptions::default()
            };
            let ports = packet::open(&selected, interface, 1, (1, 1), &options)
                .map_err(|error| io::Error::new(error.source.kind(), format!("{error}: {}", error.source)))?;
            for port in ports {
                assert!(set.add(port).is_ok(), "a new set has room");
            }
        }
        let slab = FrameSlab::new(u32::try_from(BATCH_MAX).expect("a batch is small"));
        Ok(Self::Packets(Box::new(Packets { set, heard: RxBatch::new(), slab, batch: TxBatch::new() })))
    }

    /// A server was started: its pipes are taken, when it has any.
    pub(super) fn started(&mut self, server: usize, child: &mut Child) -> io::Result<()> {
        let Self::Pipes(pipes) = self else { return Ok(()) };
        let missing = || io::Error::other("the server was started without pipes");
        pipes.to[server] = Some(child.stdin.take().ok_or_else(missing)?);
        let mut out = child.stdout.take().ok_or_else(missing)?;
        let sender = pipes.sender.clone();
        std::thread::Builder::new().name("pipe".to_owned()).spawn(move || {
            while let Ok(Some(frame)) = read_frame(&mut out) {
                if sender.send(frame).is_err() {
                    break;
                }
            }
        })?;
        Ok(())
    }

    /// Sends `frames`, each to the server that it names, or to both; what a server does not take is lost, as on any wire.
    pub(super) fn send(&mut self, frames: &[Vec<u8>]) {
        for (server, interface) in INTERFACES.into_iter().enumerate() {
            let other = ENDS.servers[1 - server].mac;
            let frames = frames.iter().filter(|frame| !frame.starts_with(&other));
            match self {
                Self::Packets(packets) => packets.send(interface, frames),
                Self::Pipes(pipes) => {
                    let mut octets = Vec::new();
                    for frame in frames {
                        put_frame(&mut octets, frame);
                    }
                    if let Some(to) = &mut pipes.to[server]
                        && to.write_all(&octets).is_err()
                    {
                        pipes.to[server] = None;
                    }
                }
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

impl Packets {
    fn send<'a>(&mut self, interface: InterfaceId, frames: impl Iterator<Item = &'a Vec<u8>>) {
        for bytes in frames {
            let Some(frame) = self.slab.take() else { continue };
            self.slab.bytes_mut(&frame)[..bytes.len()].copy_from_slice(bytes);
            self.batch.push(frame, bytes.len(), interface);
            if self.batch.room() == 0 {
                self.set.send(&mut self.batch, &mut self.slab);
            }
        }
        if !self.batch.is_empty() {
            self.set.send(&mut self.batch, &mut self.slab);
        }
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
