//! What an expression asks of a packet.

use super::class_set::ClassSet;
use crate::ids::ClassId;
use crate::wire::Query;
use crate::wire::codes::option;

/// Octets that are made up on demand: addresses, numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Short {
    len: u8,
    octets: [u8; Self::BYTES_MAX],
}

impl Short {
    /// Most octets: those of a hardware address.
    pub const BYTES_MAX: usize = 20;
    /// No octets.
    pub const EMPTY: Self = Self { len: 0, octets: [0; Self::BYTES_MAX] };

    /// A copy of `octets`, cut to [`Self::BYTES_MAX`].
    #[must_use]
    pub fn new(octets: &[u8]) -> Self {
        let mut own = Self::EMPTY;
        for (to, from) in own.octets.iter_mut().zip(octets) {
            *to = *from;
            own.len += 1;
        }
        own
    }

    /// A number in the four octets that numbers have in expressions.
    #[must_use]
    pub fn number(number: u32) -> Self {
        Self::new(&number.to_be_bytes())
    }

    /// The octets.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.octets.get(..usize::from(self.len)).unwrap_or(&self.octets)
    }
}

/// A field of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// IP source: 4 or 16 octets.
    Source,
    /// IP destination: 4 or 16 octets.
    Destination,
    /// Length: a number.
    Length,
    /// Hardware address.
    Mac,
    /// `hlen`: a number.
    Hlen,
    /// `htype`: a number.
    Htype,
    /// `ciaddr`: 4 octets.
    Ciaddr,
    /// `giaddr`: 4 octets.
    Giaddr,
    /// `yiaddr`: 4 octets.
    Yiaddr,
    /// `siaddr`: 4 octets.
    Siaddr,
    /// Message type: a number.
    MessageType,
    /// Transaction: a number.
    TransactionId,
}

/// What one relay put around a DHCPv6 message.
#[derive(Clone, Copy, Debug)]
pub struct RelayLevel<'a> {
    /// The relay's address on the link of the client.
    pub link: [u8; 16],
    /// Whom the relay received the message from.
    pub peer: [u8; 16],
    /// The relay's options, in the two-octet format.
    pub options: &'a [u8],
}

/// A packet as expressions see it.
pub trait Subject {
    /// The payload of an option of the (innermost) message: DHCPv4 joins repeated ones, DHCPv6 has the first.
    fn option(&self, code: u16) -> Option<&[u8]>;

    /// Whether the sub-options of option `code` are interpreted at this moment. In DHCPv4 those of 43 and 224 to 254
    /// are not before the first classes are known, because classes may define them.
    fn interprets(&self, code: u16) -> bool;

    /// A field. One that the family does not have is empty.
    fn field(&self, field: Field) -> Short;

    /// The name of the interface that the packet came in by.
    fn interface(&self) -> &[u8];

    /// Whether the packet has `class` already.
    fn member(&self, class: ClassId) -> bool;

    /// What the relay at `level` says: 0 is the one next to the server, -1 the one next to the client.
    fn relay(&self, level: i8) -> Option<RelayLevel<'_>>;
}

/// A DHCPv4 query with what classification knows of it.
#[derive(Clone, Copy, Debug)]
pub struct Subject4<'a> {
    /// The query.
    pub query: Query<'a>,
    /// The name of its interface.
    pub interface: &'a [u8],
    /// The classes that it has so far.
    pub classes: &'a ClassSet,
    /// Whether options 43 and 224 to 254 are interpreted: after the first stage of classification.
    pub interprets_private: bool,
}

impl Subject for Subject4<'_> {
    fn option(&self, code: u16) -> Option<&[u8]> {
        self.query.option(u8::try_from(code).ok()?)
    }

    fn interprets(&self, code: u16) -> bool {
        self.interprets_private
            || !(code == u16::from(option::VENDOR_ENCAPSULATED) || (224..=254).contains(&code))
    }

    fn field(&self, field: Field) -> Short {
        let packet = self.query.packet;
        match field {
            Field::Source => Short::new(&self.query.datagram.src.octets()),
            Field::Destination => Short::new(&self.query.datagram.dst.octets()),
            Field::Length => Short::number(self.query.encoded_len()),
            Field::Mac => Short::new(self.query.hw_addr().as_bytes()),
            Field::Hlen => Short::number(u32::from(packet.hlen())),
            Field::Htype => Short::number(u32::from(packet.htype())),
            Field::Ciaddr => Short::new(&packet.ciaddr().octets()),
            Field::Giaddr => Short::new(&packet.giaddr().octets()),
            Field::Yiaddr => Short::new(&packet.yiaddr().octets()),
            Field::Siaddr => Short::new(&packet.siaddr().octets()),
            Field::MessageType => match self.query.option(option::MESSAGE_TYPE) {
                Some([number]) => Short::number(u32::from(*number)),
                _ => Short::number(0),
            },
            Field::TransactionId => Short::number(packet.xid()),
        }
    }

    fn interface(&self) -> &[u8] {
        self.interface
    }

    fn member(&self, class: ClassId) -> bool {
        self.classes.contains(class)
    }

    fn relay(&self, _level: i8) -> Option<RelayLevel<'_>> {
        None
    }
}
