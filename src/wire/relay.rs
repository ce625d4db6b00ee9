//! Relay agent information (RFC 3046): the sub-options of option 82.

use std::net::Ipv4Addr;

use super::codes::relay_agent;
use super::option::Walk;

/// The content of a relay agent information option. Broken sub-options end the walk over them; the packet lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RelayAgent<'a> {
    payload: &'a [u8],
}

impl<'a> RelayAgent<'a> {
    /// The sub-options in `payload`.
    #[must_use]
    pub const fn new(payload: &'a [u8]) -> Self {
        Self { payload }
    }

    /// The payload, as it was received.
    #[must_use]
    pub const fn as_bytes(&self) -> &'a [u8] {
        self.payload
    }

    /// All sub-options, in order.
    #[must_use]
    pub const fn sub_options(&self) -> Walk<'a, 1> {
        Walk::new(self.payload)
    }

    /// The first sub-option with `code`.
    #[must_use]
    pub fn find(&self, code: u8) -> Option<&'a [u8]> {
        self.sub_options().find(u16::from(code))
    }

    /// Sub-option 1: the port on which the relay received the query.
    #[must_use]
    pub fn circuit_id(&self) -> Option<&'a [u8]> {
        self.find(relay_agent::CIRCUIT_ID)
    }

    /// Sub-option 2: the remote end of that port.
    #[must_use]
    pub fn remote_id(&self) -> Option<&'a [u8]> {
        self.find(relay_agent::REMOTE_ID)
    }

    /// Sub-option 5: an address in the client's subnet (RFC 3527). Nothing unless it has exactly four octets.
    #[must_use]
    #[inline(always)]
    pub fn link_selection(&self) -> Option<Ipv4Addr> {
        self.address(relay_agent::LINK_SELECTION)
    }

    /// Sub-option 6: who the subscriber is (RFC 3993).
    #[must_use]
    pub fn subscriber_id(&self) -> Option<&'a [u8]> {
        self.find(relay_agent::SUBSCRIBER_ID)
    }

    /// Sub-option 11: the address that the relay puts in place of ours (RFC 5107).
    #[must_use]
    pub fn server_id_override(&self) -> Option<Ipv4Addr> {
        self.address(relay_agent::SERVER_ID_OVERRIDE)
    }

    /// Sub-option 12: the relay's identifier (RFC 6925).
    #[must_use]
    pub fn relay_id(&self) -> Option<&'a [u8]> {
        self.find(relay_agent::RELAY_ID)
    }

    /// Sub-option 19: the answer goes to the port that the relay sent from (RFC 8357).
    #[must_use]
    pub fn has_relay_port(&self) -> bool {
        self.find(relay_agent::RELAY_PORT).is_some()
    }

    #[inline(always)]
    fn address(&self, code: u8) -> Option<Ipv4Addr> {
        let octets: [u8; 4] = self.find(code)?.try_into().ok()?;
        Some(Ipv4Addr::from(octets))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sub_options_are_found_by_name() {
        let payload = [1, 2, b'e', b'1', 2, 1, 9, 5, 4, 10, 0, 0, 0, 11, 4, 1, 2, 3, 4, 19, 0];
        let relay = RelayAgent::new(&payload);
        assert_eq!(relay.circuit_id(), Some(&b"e1"[..]));
        assert_eq!(relay.remote_id(), Some(&[9][..]));
        assert_eq!(relay.link_selection(), Some(Ipv4Addr::new(10, 0, 0, 0)));
        assert_eq!(relay.server_id_override(), Some(Ipv4Addr::new(1, 2, 3, 4)));
        assert!(relay.has_relay_port());
        assert_eq!(relay.subscriber_id(), None);
        assert_eq!(relay.relay_id(), None);
    }

    #[test]
    fn a_link_selection_that_is_no_address_is_none() {
        assert_eq!(RelayAgent::new(&[5, 3, 10, 0, 0]).link_selection(), None);
        assert_eq!(RelayAgent::new(&[5, 5, 10, 0, 0, 0, 0]).link_selection(), None);
        assert_eq!(RelayAgent::new(&[5, 9, 10]).link_selection(), None);
    }
}
