//! The ports of a shard as one type: a shard serves packet rings and datagram sockets alike.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::BorrowedFd;

use crate::ids::InterfaceId;
use crate::net::{
    FrameSlab, MemoryPort, PacketPort, Port, PortStats, RxBatch, RxFrame, SendReport, TxBatch, UdpPort,
};

/// Any port.
#[derive(Debug)]
pub enum AnyPort {
    /// A ring of whole frames.
    Packet(PacketPort),
    /// A datagram socket.
    Udp(UdpPort),
    /// A queue within the process.
    Memory(MemoryPort),
}

macro_rules! each {
    ($self:expr, $port:ident => $call:expr) => {
        match $self {
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

    fn send_batch(&mut self, batch: &TxBatch, slab: &FrameSlab) -> SendReport {
        each!(self, port => port.send_batch(batch, slab))
    }

    fn set_addresses(&mut self, addresses: &[Ipv4Addr]) {
        each!(self, port => port.set_addresses(addresses));
    }

    fn stats(&mut self) -> PortStats {
        each!(self, port => port.stats())
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        each!(self, port => port.fd())
    }

    fn take_error(&mut self) -> Option<io::Error> {
        each!(self, port => port.take_error())
    }
}
