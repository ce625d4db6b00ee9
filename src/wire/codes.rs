//! Numbers of the protocol: message types, option codes, sub-option codes, ports.

/// UDP port of servers and relays.
pub const SERVER_PORT: u16 = 67;
/// UDP port of clients.
pub const CLIENT_PORT: u16 = 68;
/// `op` of what clients and relays send.
pub const BOOTREQUEST: u8 = 1;
/// `op` of what servers send.
pub const BOOTREPLY: u8 = 2;
/// The bit of `flags` that asks for a broadcast answer (RFC 2131 2).
pub const FLAG_BROADCAST: u16 = 0x8000;
/// The four octets between the fixed part and the options (RFC 2131 3).
pub const MAGIC_COOKIE: [u8; 4] = [0x63, 0x82, 0x53, 0x63];

/// The type of a DHCPv4 message: the content of option 53.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum MessageType {
    /// A client looks for servers.
    Discover = 1,
    /// A server offers an address.
    Offer = 2,
    /// A client takes an offer, renews, rebinds or verifies.
    Request = 3,
    /// A client found its address in use.
    Decline = 4,
    /// A server grants.
    Ack = 5,
    /// A server refuses.
    Nak = 6,
    /// A client gives its address back.
    Release = 7,
    /// A client with an address of its own asks for the rest.
    Inform = 8,
    /// RFC 3203.
    ForceRenew = 9,
    /// RFC 4388.
    LeaseQuery = 10,
    /// RFC 4388.
    LeaseUnassigned = 11,
    /// RFC 4388.
    LeaseUnknown = 12,
    /// RFC 4388.
    LeaseActive = 13,
    /// RFC 6926.
    BulkLeaseQuery = 14,
    /// RFC 6926.
    LeaseQueryDone = 15,
    /// RFC 7724.
    ActiveLeaseQuery = 16,
    /// RFC 7724.
    LeaseQueryStatus = 17,
    /// RFC 7724.
    Tls = 18,
}

impl MessageType {
    /// The type of number `number`, or nothing when none has it.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::Discover,
            2 => Self::Offer,
            3 => Self::Request,
            4 => Self::Decline,
            5 => Self::Ack,
            6 => Self::Nak,
            7 => Self::Release,
            8 => Self::Inform,
            9 => Self::ForceRenew,
            10 => Self::LeaseQuery,
            11 => Self::LeaseUnassigned,
            12 => Self::LeaseUnknown,
            13 => Self::LeaseActive,
            14 => Self::BulkLeaseQuery,
            15 => Self::LeaseQueryDone,
            16 => Self::ActiveLeaseQuery,
            17 => Self::LeaseQueryStatus,
            18 => Self::Tls,
            _ => return None,
        })
    }

    /// Its number.
    #[must_use]
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// Its name in logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Discover => "DHCPDISCOVER",
            Self::Offer => "DHCPOFFER",
            Self::Request => "DHCPREQUEST",
            Self::Decline => "DHCPDECLINE",
            Self::Ack => "DHCPACK",
            Self::Nak => "DHCPNAK",
            Self::Release => "DHCPRELEASE",
            Self::Inform => "DHCPINFORM",
            Self::ForceRenew => "DHCPFORCERENEW",
            Self::LeaseQuery => "DHCPLEASEQUERY",
            Self::LeaseUnassigned => "DHCPLEASEUNASSIGNED",
            Self::LeaseUnknown => "DHCPLEASEUNKNOWN",
            Self::LeaseActive => "DHCPLEASEACTIVE",
            Self::BulkLeaseQuery => "DHCPBULKLEASEQUERY",
            Self::LeaseQueryDone => "DHCPLEASEQUERYDONE",
            Self::ActiveLeaseQuery => "DHCPACTIVELEASEQUERY",
            Self::LeaseQueryStatus => "DHCPLEASEQUERYSTATUS",
            Self::Tls => "DHCPTLS",
        }
    }
}

/// DHCPv4 option codes that the server's rules name.
pub mod option {
    /// One octet of padding without a length.
    pub const PAD: u8 = 0;
    /// `subnet-mask`.
    pub const SUBNET_MASK: u8 = 1;
    /// `routers`.
    pub const ROUTERS: u8 = 3;
    /// `domain-name-servers`.
    pub const DOMAIN_NAME_SERVERS: u8 = 6;
    /// `host-name`.
    pub const HOST_NAME: u8 = 12;
    /// `domain-name`.
    pub const DOMAIN_NAME: u8 = 15;
    /// `vendor-encapsulated-options`.
    pub const VENDOR_ENCAPSULATED: u8 = 43;
    /// `dhcp-requested-address`.
    pub const REQUESTED_ADDRESS: u8 = 50;
    /// `dhcp-lease-time`.
    pub const LEASE_TIME: u8 = 51;
    /// `dhcp-option-overload`.
    pub const OVERLOAD: u8 = 52;
    /// `dhcp-message-type`.
    pub const MESSAGE_TYPE: u8 = 53;
    /// `dhcp-server-identifier`.
    pub const SERVER_ID: u8 = 54;
    /// `dhcp-parameter-request-list`.
    pub const PARAMETER_REQUEST_LIST: u8 = 55;
    /// `dhcp-message`.
    pub const MESSAGE: u8 = 56;
    /// `dhcp-max-message-size`.
    pub const MAX_MESSAGE_SIZE: u8 = 57;
    /// `dhcp-renewal-time`.
    pub const RENEWAL_TIME: u8 = 58;
    /// `dhcp-rebinding-time`.
    pub const REBINDING_TIME: u8 = 59;
    /// `vendor-class-identifier`.
    pub const VENDOR_CLASS_ID: u8 = 60;
    /// `dhcp-client-identifier`.
    pub const CLIENT_ID: u8 = 61;
    /// `user-class`.
    pub const USER_CLASS: u8 = 77;
    /// `fqdn`.
    pub const FQDN: u8 = 81;
    /// `dhcp-agent-options`: relay agent information.
    pub const AGENT_OPTIONS: u8 = 82;
    /// `v6-only-preferred` (RFC 8925).
    pub const V6_ONLY_PREFERRED: u8 = 108;
    /// `subnet-selection` (RFC 3011).
    pub const SUBNET_SELECTION: u8 = 118;
    /// `cablelabs-client-conf`.
    pub const CABLELABS: u8 = 122;
    /// `vivco-suboptions`: vendor class with enterprise number.
    pub const VIVCO: u8 = 124;
    /// `vivso-suboptions`: vendor information with enterprise number.
    pub const VIVSO: u8 = 125;
    /// Ends the options.
    pub const END: u8 = 255;
}

/// Sub-options of the relay agent information option.
pub mod relay_agent {
    /// `circuit-id`.
    pub const CIRCUIT_ID: u8 = 1;
    /// `remote-id`.
    pub const REMOTE_ID: u8 = 2;
    /// `link-selection` (RFC 3527).
    pub const LINK_SELECTION: u8 = 5;
    /// `subscriber-id` (RFC 3993).
    pub const SUBSCRIBER_ID: u8 = 6;
    /// `relay-flags` (RFC 5010).
    pub const FLAGS: u8 = 10;
    /// `server-id-override` (RFC 5107).
    pub const SERVER_ID_OVERRIDE: u8 = 11;
    /// `relay-id` (RFC 6925).
    pub const RELAY_ID: u8 = 12;
    /// `relay-port` (RFC 8357).
    pub const RELAY_PORT: u8 = 19;
}

/// DHCPv6 option codes that class expressions name.
pub mod option6 {
    /// `relay-msg`.
    pub const RELAY_MSG: u16 = 9;
    /// `vendor-class`.
    pub const VENDOR_CLASS: u16 = 16;
    /// `vendor-opts`.
    pub const VENDOR_OPTS: u16 = 17;
    /// `interface-id`.
    pub const INTERFACE_ID: u16 = 18;
}

#[cfg(test)]
mod tests {
    use super::MessageType;

    #[test]
    fn message_types_and_numbers_agree() {
        for number in 0..=255 {
            let kind = MessageType::from_number(number);
            assert_eq!(kind.is_some(), (1..=18).contains(&number));
            assert!(kind.is_none_or(|kind| kind.number() == number && kind.name().starts_with("DHCP")));
        }
    }
}
