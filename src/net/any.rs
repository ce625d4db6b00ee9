//! The ports that a server runs on, as one type: a shard's set holds several kinds without boxes or virtual calls.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::BorrowedFd;

use crate::ids::InterfaceId;

use super::{
    FDS_MAX, FrameSlab, MemoryPort, PacketPort, Port, PortStats, RxBatch, RxFrame, SendReport, TxBatch,
    UdpPort,
};

/// Any of the room's ports.
#[derive(Debug)]
pub enum AnyPort {
    /// A packet ring.
    Packet(PacketPort),
    /// UDP sockets.
    Udp(UdpPort),
    /// An in-process wire.
    Memory(MemoryPort),
}

impl From<PacketPort> for AnyPort {
    fn from(port: PacketPort) -> Self {
        Self::Packet(port)
    }
}

impl From<UdpPort> for AnyPort {
    fn from(port: UdpPort) -> Self {
        Self::Udp(port)
    }
}

impl From<MemoryPort> for AnyPort {
    fn from(port: MemoryPort) -> Self {
        Self::Memory(port)
    }
}

/// Calls the same method of whichever port there is.
macro_rules! each {
    ($any:expr, $port:ident => $call:expr) => {
        match $any {
            AnyPort::Packet($port) => $call,
            AnyPort::Udp($port) => $call,
            AnyPort::Memory($port) => $call,
        }
    };
}

impl Port for AnyPort {
    fn interface(&self) -> InterfaceId {
        each!(self, port => port.interface())
    }

    fn recv_batch(&mut self, batch: &mut RxBatch) -> io::Result<usize> {
        each!(self, port => port.recv_batch(batch))
    }

    fn bytes(&self, frame: &RxFrame) -> &[u8] {
        each!(self, port => port.bytes(frame))
    }

    fn recycle(&mut self) {
        each!(self, port => port.recycle());
    }

    fn is_ready(&self) -> bool {
        each!(self, port => port.is_ready())
    }

    fn is_crowded(&self) -> bool {
        each!(self, port => port.is_crowded())
    }

    fn send_batch(&mut self, batch: &TxBatch, slab: &FrameSlab) -> SendReport {
        each!(self, port => port.send_batch(batch, slab))
    }

    fn set_addresses(&mut self, addresses: &[Ipv4Addr]) {
        each!(self, port => port.set_addresses(addresses));
    }

    fn stats(&mut self) -> PortStats {
        each!(self, port => port.stats())
    }

    fn fds(&self) -> [Option<BorrowedFd<'_>>; FDS_MAX] {
        each!(self, port => port.fds())
    }

    fn take_error(&mut self) -> Option<io::Error> {
        each!(self, port => port.take_error())
    }
}
