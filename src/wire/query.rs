//! A query: everything that the rules ask of one received message, composed on demand and cheap to copy.

use std::net::Ipv4Addr;

use super::codes::{MessageType, option};
use super::dhcp4::{Head, Packet};
use super::drop::DropReason;
use super::frame::Datagram;
use super::name::Fqdn;
use super::option::{CodeSet, OptionTable};
use super::relay::RelayAgent;
use crate::ids::{HW_ADDR_BYTES_MAX, HwAddr, InterfaceId};

/// A received DHCPv4 message with all that is known of its arrival.
#[derive(Clone, Copy, Debug)]
pub struct Query<'a> {
    /// Who sent it to whom.
    pub datagram: &'a Datagram,
    /// Its fixed part.
    pub packet: Packet<'a>,
    /// Where its options stand.
    pub options: &'a OptionTable,
    /// Its type; nothing for none or an unknown one.
    pub message_type: Option<MessageType>,
    /// The interface it came in by.
    pub interface: InterfaceId,
    /// Relay agent information recovered from the client's lease (`stash-agent-options`); empty when none was.
    pub recovered_relay: &'a [u8],
    /// The identifier that takes the place of the client's (`replace-client-id` of `libdhcp_flex_id`); empty when none does.
    pub replaced_client_id: &'a [u8],
}

impl<'a> Query<'a> {
    /// Composes the parts of a message that [`super::dhcp4::parse`] has accepted; `payload` is the one that it was given.
    ///
    /// # Errors
    /// When `payload` is not that of a message at all.
    pub fn new(
        datagram: &'a Datagram,
        payload: &'a [u8],
        options: &'a OptionTable,
        head: Head,
        interface: InterfaceId,
    ) -> Result<Self, DropReason> {
        let packet = Packet::new_checked(payload)?;
        Ok(Self {
            datagram,
            packet,
            options,
            message_type: head.message_type,
            interface,
            recovered_relay: &[],
            replaced_client_id: &[],
        })
    }

    /// The payload of option `code`, repeated ones joined; nothing when it is absent.
    #[must_use]
    #[inline(always)]
    pub fn option(&self, code: u8) -> Option<&'a [u8]> {
        if code == option::AGENT_OPTIONS && !self.recovered_relay.is_empty() {
            return Some(self.recovered_relay);
        }
        if code == option::CLIENT_ID && !self.replaced_client_id.is_empty() {
            return Some(self.replaced_client_id);
        }
        self.options.find(self.packet.payload(), code)
    }

    /// The client identifier with its type octet; nothing when absent or empty.
    #[must_use]
    #[inline(always)]
    pub fn client_id(&self) -> Option<&'a [u8]> {
        self.option(option::CLIENT_ID).filter(|id| !id.is_empty())
    }

    /// The DUID within a client identifier of RFC 4361: type 255, four octets of IAID, then at least one of DUID.
    #[must_use]
    pub fn duid(&self) -> Option<&'a [u8]> {
        match self.client_id()? {
            [255, _, _, _, _, duid @ ..] if !duid.is_empty() => Some(duid),
            _ => None,
        }
    }

    /// The hardware address: `hlen` octets, those past the sixteenth zero because `chaddr` has no room for them.
    #[must_use]
    #[inline(always)]
    pub fn hw_addr(&self) -> HwAddr {
        self.packet.hw_addr()
    }

    /// What the load-balancing hash is taken of (RFC 3074): the client identifier, else the hardware address. Nothing
    /// when the client has neither.
    #[must_use]
    pub fn bucket_key(&self) -> Option<BucketKey<'a>> {
        if let Some(id) = self.client_id() {
            return Some(BucketKey::Borrowed(id));
        }
        let chaddr = self.packet.chaddr();
        if usize::from(self.packet.hlen()) > chaddr.len() {
            let padded = self.hw_addr();
            return Some(BucketKey::Padded(*padded.padded(), padded.as_bytes().len()));
        }
        (!chaddr.is_empty()).then_some(BucketKey::Borrowed(chaddr))
    }

    /// Option 50.
    #[must_use]
    #[inline(always)]
    pub fn requested_address(&self) -> Option<Ipv4Addr> {
        self.address(option::REQUESTED_ADDRESS)
    }

    /// Option 54.
    #[must_use]
    pub fn server_id(&self) -> Option<Ipv4Addr> {
        self.address(option::SERVER_ID)
    }

    /// Option 118 (RFC 3011).
    #[must_use]
    #[inline(always)]
    pub fn subnet_selection(&self) -> Option<Ipv4Addr> {
        self.address(option::SUBNET_SELECTION)
    }

    /// Option 51, in seconds.
    #[must_use]
    #[inline(always)]
    pub fn requested_lease_time(&self) -> Option<u32> {
        self.four(option::LEASE_TIME).map(u32::from_be_bytes)
    }

    /// Option 55, in the client's order; empty when absent.
    #[must_use]
    pub fn parameter_request_list(&self) -> &'a [u8] {
        self.option(option::PARAMETER_REQUEST_LIST).unwrap_or(&[])
    }

    /// Option 55 as a set.
    #[must_use]
    pub fn requested_codes(&self) -> CodeSet {
        self.parameter_request_list().iter().copied().collect()
    }

    /// Option 12, without trailing NULs; never empty.
    #[must_use]
    pub fn host_name(&self) -> Option<&'a [u8]> {
        self.option(option::HOST_NAME)
    }

    /// Option 81.
    #[must_use]
    pub fn fqdn(&self) -> Option<Fqdn<'a>> {
        Fqdn::new(self.option(option::FQDN)?)
    }

    /// Option 60, without trailing NULs; never empty.
    #[must_use]
    pub fn vendor_class(&self) -> Option<&'a [u8]> {
        self.option(option::VENDOR_CLASS_ID)
    }

    /// Option 82, received or recovered; empty when absent.
    #[must_use]
    #[inline(always)]
    pub fn relay_agent(&self) -> RelayAgent<'a> {
        RelayAgent::new(self.option(option::AGENT_OPTIONS).unwrap_or(&[]))
    }

    /// Whether a relay passed it on: `giaddr` is neither 0.0.0.0 nor 255.255.255.255.
    #[must_use]
    pub fn is_relayed(&self) -> bool {
        let giaddr = self.packet.giaddr();
        !giaddr.is_unspecified() && !giaddr.is_broadcast()
    }

    /// Octets of the message as it would be encoded again: the fixed part and its options, without cookie and END
    /// (`pkt.len` of class expressions).
    #[must_use]
    pub fn encoded_len(&self) -> u32 {
        let options = self.options.codes().iter();
        let sum: usize = options.filter_map(|code| self.option(code)).map(|data| 2 + data.len()).sum();
        u32::try_from(super::dhcp4::FIXED_BYTES + sum).unwrap_or(u32::MAX)
    }

    #[inline(always)]
    fn address(&self, code: u8) -> Option<Ipv4Addr> {
        self.four(code).map(Ipv4Addr::from)
    }

    #[inline(always)]
    fn four(&self, code: u8) -> Option<[u8; 4]> {
        self.option(code)?.first_chunk().copied()
    }
}

/// Octets to hash: borrowed from the message, or a hardware address longer than `chaddr`, padded.
#[derive(Clone, Copy, Debug)]
pub enum BucketKey<'a> {
    /// Octets of the message.
    Borrowed(&'a [u8]),
    /// Octets and how many of them count.
    Padded([u8; HW_ADDR_BYTES_MAX], usize),
}

impl BucketKey<'_> {
    /// The octets.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Borrowed(octets) => octets,
            Self::Padded(octets, len) => octets.get(..*len).unwrap_or(octets),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::codes::MAGIC_COOKIE;
    use super::super::{dhcp4, frame};
    use super::*;

    fn with_query(hlen: u8, giaddr: [u8; 4], options: &[u8], check: impl FnOnce(&Query<'_>)) {
        let mut message = vec![0; dhcp4::FIXED_BYTES];
        message[..4].copy_from_slice(&[1, 1, hlen, 0]);
        message[24..28].copy_from_slice(&giaddr);
        message[28..34].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
        message.extend(MAGIC_COOKIE);
        message.extend(options);
        let addresses = frame::Addresses {
            l2_src: [2; 6],
            l2_dst: frame::BROADCAST,
            src: Ipv4Addr::UNSPECIFIED,
            dst: Ipv4Addr::BROADCAST,
            src_port: 68,
            dst_port: 67,
        };
        let mut bytes = vec![0; frame::PAYLOAD_OFFSET];
        bytes.extend(&message);
        frame::emit(&mut bytes, &addresses, message.len()).expect("room enough");
        let datagram = frame::parse(&bytes, frame::Arrival::default()).expect("well formed");
        let payload = datagram.payload(&bytes);
        let mut table = OptionTable::new();
        let head = dhcp4::parse(payload, &mut table).expect("good options");
        let query = Query::new(&datagram, payload, &table, head, InterfaceId(3)).expect("a message");
        check(&query);
    }

    #[test]
    fn options_are_found_by_name() {
        let options = [
            53, 1, 3, 50, 4, 192, 0, 2, 15, 54, 4, 192, 0, 2, 1, 55, 2, 1, 3, 12, 1, b'h', 61, 3, 1, 2, 3,
            51, 4, 0, 0, 1, 0, 81, 3, 1, 0, 0, 118, 4, 10, 0, 0, 0, 60, 1, b'v', 255,
        ];
        with_query(6, [0; 4], &options, |query| {
            assert_eq!(query.message_type, Some(MessageType::Request));
            assert_eq!(query.requested_address(), Some(Ipv4Addr::new(192, 0, 2, 15)));
            assert_eq!(query.server_id(), Some(Ipv4Addr::new(192, 0, 2, 1)));
            assert_eq!(query.subnet_selection(), Some(Ipv4Addr::new(10, 0, 0, 0)));
            assert_eq!(query.requested_lease_time(), Some(256));
            assert_eq!(query.parameter_request_list(), [1, 3]);
            assert!(query.requested_codes().contains(3) && !query.requested_codes().contains(6));
            assert_eq!((query.host_name(), query.vendor_class()), (Some(&b"h"[..]), Some(&b"v"[..])));
            assert_eq!(query.client_id(), Some(&[1, 2, 3][..]));
            assert!(query.fqdn().is_some_and(|fqdn| fqdn.wants_server_update()));
            assert!(!query.is_relayed() && query.datagram.is_broadcast());
            assert_eq!(query.encoded_len(), 236 + 3 + 6 + 6 + 4 + 3 + 5 + 6 + 5 + 6 + 3);
            assert_eq!((query.interface, query.duid()), (InterfaceId(3), None));
        });
    }

    #[test]
    fn bucket_key_is_the_client_id_else_the_hardware_address() {
        let key = |hlen, options: &[u8]| {
            let mut found = None;
            with_query(hlen, [0; 4], options, |query| {
                found = query.bucket_key().map(|key| key.as_bytes().to_vec())
            });
            found
        };
        assert_eq!(key(6, &[61, 2, 1, 9]), Some(vec![1, 9]));
        assert_eq!(key(6, &[61, 0]), Some(vec![2, 0, 0, 0, 0, 1]));
        assert_eq!(key(0, &[]), None);
        assert_eq!(key(18, &[]).expect("padded").len(), 18);
    }

    #[test]
    fn hardware_addresses_longer_than_the_field_are_padded() {
        with_query(20, [0; 4], &[], |query| {
            assert_eq!(query.hw_addr().as_bytes().len(), 20);
            assert_eq!(query.hw_addr().as_bytes()[..6], [2, 0, 0, 0, 0, 1]);
        });
        with_query(0, [0; 4], &[], |query| assert!(query.hw_addr().is_empty()));
    }

    #[test]
    fn duid_stands_behind_the_iaid() {
        with_query(6, [0; 4], &[61, 7, 255, 0, 0, 0, 1, 7, 8], |query| {
            assert_eq!(query.duid(), Some(&[7, 8][..]))
        });
        with_query(6, [0; 4], &[61, 5, 255, 0, 0, 0, 1], |query| assert_eq!(query.duid(), None));
    }

    #[test]
    fn relayed_means_a_real_giaddr() {
        with_query(6, [192, 0, 2, 5], &[82, 3, 1, 1, 7], |query| {
            assert!(query.is_relayed());
            assert_eq!(query.relay_agent().circuit_id(), Some(&[7][..]));
        });
        with_query(6, [255; 4], &[], |query| assert!(!query.is_relayed()));
    }

    #[test]
    fn an_identifier_made_by_an_expression_stands_in_for_option_61() {
        with_query(6, [0; 4], &[53, 1, 3, 61, 3, 1, 2, 3], |query| {
            let query = Query { replaced_client_id: &[0, b'x'], ..*query };
            assert_eq!(query.client_id(), Some(&[0, b'x'][..]));
            assert_eq!((query.duid(), query.option(option::CLIENT_ID)), (None, Some(&[0, b'x'][..])));
        });
    }

    #[test]
    fn recovered_relay_information_stands_in_for_option_82() {
        with_query(6, [0; 4], &[53, 1, 3], |query| {
            let query = Query { recovered_relay: &[1, 1, 9], ..*query };
            assert_eq!(query.relay_agent().circuit_id(), Some(&[9][..]));
        });
    }
}
