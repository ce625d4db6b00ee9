//! The option definitions of DHCPv6 that everybody knows, as data: RFC 8415 and its companions.

use super::{Definition, Kind, carrier, list, one, record};

/// The space `dhcp6`.
pub(super) static DHCP6: &[Definition] = &[
    one(1, "clientid", Kind::Binary),
    one(2, "serverid", Kind::Binary),
    record(3, "ia-na", &[Kind::Uint32, Kind::Uint32, Kind::Uint32]),
    record(5, "iaaddr", &[Kind::Ipv6, Kind::Uint32, Kind::Uint32]),
    list(6, "oro", Kind::Uint16),
    one(7, "preference", Kind::Uint8),
    one(8, "elapsed-time", Kind::Uint16),
    one(9, "relay-msg", Kind::Binary),
    one(11, "auth", Kind::Binary),
    one(12, "unicast", Kind::Ipv6),
    record(13, "status-code", &[Kind::Uint16, Kind::String]),
    one(14, "rapid-commit", Kind::Empty),
    one(15, "user-class", Kind::Binary),
    record(16, "vendor-class", &[Kind::Uint32, Kind::Binary]),
    one(17, "vendor-opts", Kind::Uint32),
    one(18, "interface-id", Kind::Binary),
    one(19, "reconf-msg", Kind::Uint8),
    one(20, "reconf-accept", Kind::Empty),
    list(21, "sip-server-dns", Kind::Fqdn),
    list(22, "sip-server-addr", Kind::Ipv6),
    list(23, "dns-servers", Kind::Ipv6),
    list(24, "domain-search", Kind::Fqdn),
    record(25, "ia-pd", &[Kind::Uint32, Kind::Uint32, Kind::Uint32]),
    record(26, "iaprefix", &[Kind::Uint32, Kind::Uint32, Kind::Uint8, Kind::Ipv6]),
    list(27, "nis-servers", Kind::Ipv6),
    list(28, "nisp-servers", Kind::Ipv6),
    list(29, "nis-domain-name", Kind::Fqdn),
    list(30, "nisp-domain-name", Kind::Fqdn),
    list(31, "sntp-servers", Kind::Ipv6),
    one(32, "information-refresh-time", Kind::Uint32),
    list(33, "bcmcs-server-dns", Kind::Fqdn),
    list(34, "bcmcs-server-addr", Kind::Ipv6),
    record(36, "geoconf-civic", &[Kind::Uint8, Kind::Uint16, Kind::Binary]),
    record(37, "remote-id", &[Kind::Uint32, Kind::Binary]),
    one(38, "subscriber-id", Kind::Binary),
    record(39, "client-fqdn", &[Kind::Uint8, Kind::Fqdn]),
    list(40, "pana-agent", Kind::Ipv6),
    one(41, "new-posix-timezone", Kind::String),
    one(42, "new-tzdb-timezone", Kind::String),
    list(43, "ero", Kind::Uint16),
    one(51, "v6-lost", Kind::Fqdn),
    list(52, "capwap-ac-v6", Kind::Ipv6),
    one(53, "relay-id", Kind::Binary),
    carrier(56, "ntp-server", "v6-ntp-server-suboptions"),
    one(57, "v6-access-domain", Kind::Fqdn),
    list(58, "sip-ua-cs-list", Kind::Fqdn),
    one(59, "bootfile-url", Kind::String),
    list(60, "bootfile-param", Kind::Tuple),
    list(61, "client-arch-type", Kind::Uint16),
    record(62, "nii", &[Kind::Uint8, Kind::Uint8, Kind::Uint8]),
    one(64, "aftr-name", Kind::Fqdn),
    one(65, "erp-local-domain-name", Kind::Fqdn),
    carrier(66, "rsoo", "rsoo-opts"),
    one(67, "pd-exclude", Kind::Ipv6Prefix),
    record(74, "rdnss-selection", &[Kind::Ipv6, Kind::Uint8, Kind::Fqdn]),
    one(79, "client-linklayer-addr", Kind::Binary),
    one(80, "link-address", Kind::Ipv6),
    one(82, "solmax-rt", Kind::Uint32),
    one(83, "inf-max-rt", Kind::Uint32),
    one(87, "dhcpv4-message", Kind::Binary),
    list(88, "dhcp4o6-server-addr", Kind::Ipv6),
    carrier(94, "s46-cont-mape", "s46-cont-mape-options"),
    carrier(95, "s46-cont-mapt", "s46-cont-mapt-options"),
    carrier(96, "s46-cont-lw", "s46-cont-lw-options"),
    one(103, "v6-captive-portal", Kind::String),
    one(135, "relay-source-port", Kind::Uint16),
    list(136, "v6-sztp-redirect", Kind::Tuple),
    list(143, "ipv6-address-andsf", Kind::Ipv6),
    one(144, "v6-dnr", Kind::Internal),
    one(148, "addr-reg-enable", Kind::Empty),
];

/// Sub-options of option 56 (RFC 5908).
pub(super) static NTP_SERVER6: &[Definition] = &[
    one(1, "ntp-server-address", Kind::Ipv6),
    one(2, "ntp-server-multicast", Kind::Ipv6),
    one(3, "ntp-server-fqdn", Kind::Fqdn),
];

/// Sub-options of MAP-E containers (RFC 7598).
pub(super) static MAP_E6: &[Definition] = &[
    record(89, "s46-rule", &[Kind::Uint8, Kind::Uint8, Kind::Uint8, Kind::Ipv4, Kind::Ipv6Prefix]),
    one(90, "s46-br", Kind::Ipv6),
];

/// Sub-options of MAP-T containers (RFC 7598).
pub(super) static MAP_T6: &[Definition] = &[
    record(89, "s46-rule", &[Kind::Uint8, Kind::Uint8, Kind::Uint8, Kind::Ipv4, Kind::Ipv6Prefix]),
    one(91, "s46-dmr", Kind::Ipv6Prefix),
];

/// Sub-options of lightweight 4over6 containers (RFC 7598).
pub(super) static LIGHTWEIGHT6: &[Definition] =
    &[one(90, "s46-br", Kind::Ipv6), record(92, "s46-v4v6bind", &[Kind::Ipv4, Kind::Ipv6Prefix])];

/// Sub-options of MAP rules (RFC 7598).
pub(super) static MAP_RULE6: &[Definition] = &[record(93, "s46-portparams", &[Kind::Uint8, Kind::Psid])];

/// Enterprise 4491, Cable Television Laboratories.
pub(super) static CABLE_LABS6: &[Definition] = &[
    list(1, "oro", Kind::Uint16),
    one(2, "device-type", Kind::String),
    one(10, "vendor-type", Kind::String),
    list(32, "tftp-servers", Kind::Ipv6),
    one(33, "config-file", Kind::String),
    list(34, "syslog-servers", Kind::Ipv6),
    one(36, "device-id", Kind::Binary),
    list(37, "time-servers", Kind::Ipv6),
    one(38, "time-offset", Kind::Int32),
    one(1026, "cmts-cm-mac", Kind::Binary),
];
