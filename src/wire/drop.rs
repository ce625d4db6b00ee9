//! Why a packet gets no answer: one table, which is the enum, the counters, the message identifiers and the help.
//!
//! A reason fits an octet, so that the packet path can return it, count it in an array and go on.

/// What a drop says about the packet, and so which total it belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DropKind {
    /// The frame holds no DHCP packet for this server: it counts as no received packet at all.
    Frame,
    /// A received packet that is refused or cannot be served: `pkt4-receive-drop` counts it too.
    Refused,
    /// The rules say to keep silent: the packet was processed and there is nothing to send.
    Silent,
    /// A reply was made, or could have been, and does not leave: a bound was reached, or a partner or disk failed.
    Withheld,
}

macro_rules! drop_reasons {
    ($($(#[$meta:meta])* $variant:ident, $kind:ident, $counter:literal, $statistic:expr, $message:literal, $help:literal;)+) => {
        /// Why a packet gets no answer.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        // As wide as what it takes turns with in a `Result`: beside a single octet an address is moved in parts that overlap, and whoever
        // reads it next waits for all of them to arrive.
        #[repr(u32)]
        pub enum DropReason {
            $(#[doc = $help] $variant,)+
        }

        impl DropReason {
            /// All reasons, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// How many reasons there are: the length of an array of counters.
            pub const COUNT: usize = Self::ALL.len();

            /// The name of this reason's own counter; no two reasons share one.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $counter,)+ }
            }

            /// The statistic that counts it: Kea's where there is one (several reasons may share it), else its own.
            #[must_use]
            pub const fn counter(self) -> &'static str {
                match self.statistic() {
                    Some(name) => name,
                    None => self.name(),
                }
            }

            /// Kea's statistic for it, if Kea counts this at all.
            #[must_use]
            pub const fn statistic(self) -> Option<&'static str> {
                match self { $(Self::$variant => $statistic,)+ }
            }

            /// The identifier of the log message about it: Kea's where the meaning is the same.
            #[must_use]
            pub const fn message_id(self) -> &'static str {
                match self { $(Self::$variant => $message,)+ }
            }

            /// One sentence for the operator.
            #[must_use]
            pub const fn help(self) -> &'static str {
                match self { $(Self::$variant => $help,)+ }
            }

            /// Which kind of drop it is.
            #[must_use]
            pub const fn kind(self) -> DropKind {
                match self { $(Self::$variant => DropKind::$kind,)+ }
            }
        }
    };
}

const PARSE: Option<&str> = Some("pkt4-parse-failed");
const RFC: Option<&str> = Some("pkt4-rfc-violation");
const NOT_US: Option<&str> = Some("pkt4-not-for-us");
const ADMIN: Option<&str> = Some("pkt4-admin-filtered");
const FULL: Option<&str> = Some("pkt4-queue-full");

// Variant, kind, own counter, Kea's statistic, message identifier, help.
drop_reasons! {
    FrameShort, Frame, "frame-short", None, "APLOMADO_FRAME_SHORT", "The frame ends before its headers do, or before the fixed part of a DHCP message does.";
    FrameVlan, Frame, "frame-vlan", None, "APLOMADO_FRAME_VLAN", "The frame carries a VLAN tag, so it is not for this interface but for a VLAN device on it.";
    FrameNotIp4, Frame, "frame-not-ipv4", None, "APLOMADO_FRAME_NOT_IPV4", "The frame does not carry IPv4.";
    FrameHeader, Frame, "frame-header", None, "APLOMADO_FRAME_HEADER", "The IP header has a wrong version or length.";
    FrameLength, Frame, "frame-length", None, "APLOMADO_FRAME_LENGTH", "A length in the IP or UDP header does not fit the frame.";
    FrameFragment, Frame, "frame-fragment", None, "APLOMADO_FRAME_FRAGMENT", "The packet is a fragment; fragments are not put together again.";
    FrameNotUdp, Frame, "frame-not-udp", None, "APLOMADO_FRAME_NOT_UDP", "The packet does not carry UDP.";
    FramePort, Frame, "frame-port", None, "APLOMADO_FRAME_PORT", "The datagram is for another port.";
    FrameChecksumIp, Frame, "frame-checksum-ip", None, "APLOMADO_FRAME_CHECKSUM_IP", "The checksum of the IP header is wrong.";
    FrameChecksumUdp, Frame, "frame-checksum-udp", None, "APLOMADO_FRAME_CHECKSUM_UDP", "The checksum of the datagram is wrong.";
    FrameOtherHost, Frame, "frame-other-host", None, "APLOMADO_FRAME_OTHER_HOST", "The frame was sent to another host's hardware address.";
    FrameOwn, Frame, "frame-own", None, "APLOMADO_FRAME_OWN", "The frame is one that this host sent itself.";
    FrameAddress, Frame, "frame-address", None, "APLOMADO_FRAME_ADDRESS", "The packet is for an address that this server does not listen on.";

    ServiceDisabled, Refused, "service-disabled", Some("pkt4-service-disabled"), "DHCP4_PACKET_DROP_0008", "The DHCP service is disabled at the moment.";
    QueueFull, Refused, "queue-full", FULL, "DHCP4_PACKET_QUEUE_FULL", "More packets wait than the server may keep.";
    ShedStale, Refused, "shed-stale", FULL, "APLOMADO_SHED_STALE", "The packet waited longer than a second: its client has asked again or soon will.";
    ShedDuplicate, Refused, "shed-duplicate", Some("pkt4-duplicate"), "DHCP4_PACKET_DROP_0012", "The same client sent a newer packet while this one waited.";
    ShedUnfair, Refused, "shed-unfair", FULL, "APLOMADO_SHED_UNFAIR", "One relay or interface sent more than its share of an overloaded server.";
    ShedDiscover, Refused, "shed-discover", FULL, "APLOMADO_SHED_DISCOVER", "The server is overloaded, and clients with an offer or a lease come before those that ask for an offer.";
    HandOverFull, Refused, "hand-over-full", FULL, "APLOMADO_HAND_OVER_FULL", "The packet belongs to another shard, whose ring is full.";
    LimitExceeded, Refused, "limit-exceeded", Some("pkt4-limit-exceeded"), "APLOMADO_LIMIT_EXCEEDED", "A configured rate or lease limit is exceeded.";
    HaNotForUs, Refused, "ha-not-for-us", NOT_US, "HA_BUFFER4_RECEIVE_NOT_FOR_US", "The client belongs to a scope that this server does not serve.";

    ParseShort, Refused, "parse-short", PARSE, "DHCP4_PACKET_DROP_0001", "The packet is shorter than the fixed part of a DHCP message and its cookie.";
    ParseNoOptions, Refused, "parse-no-options", PARSE, "DHCP4_PACKET_DROP_0001", "The packet ends with the fixed part: BOOTP without options.";
    ParseCookie, Refused, "parse-cookie", PARSE, "DHCP4_PACKET_DROP_0001", "The magic cookie is not DHCP's.";
    ParseHlen, Refused, "parse-hlen", PARSE, "DHCP4_PACKET_DROP_0001", "The hardware address is said to be longer than 20 octets.";
    ParseOption, Refused, "parse-option", PARSE, "DHCP4_PACKET_DROP_0001", "The content of a well-known option does not fit its definition.";
    ParseFqdn, Refused, "parse-fqdn", PARSE, "DHCP4_PACKET_DROP_0001", "The client FQDN option is malformed.";
    ParseOptionsTooLong, Refused, "parse-options-too-long", PARSE, "DHCP4_PACKET_DROP_0001", "Repeated options join to more octets than an Ethernet frame can hold.";

    NoMessageType, Refused, "no-message-type", RFC, "DHCP4_PACKET_DROP_0004", "The packet has no message type.";
    UnknownMessageType, Refused, "unknown-message-type", RFC, "DHCP4_PACKET_DROP_0005", "The message type is none that is known.";
    UnsupportedMessageType, Refused, "unsupported-message-type", RFC, "DHCP4_PACKET_DROP_0006", "The message is of a type that a server does not serve.";
    InformNoSource, Refused, "inform-no-source", RFC, "DHCP4_PACKET_DROP_0002", "An INFORM without any address of its client cannot be answered.";
    MalformedServerId, Refused, "malformed-server-id", RFC, "DHCP4_PACKET_DROP_0003", "The server identifier is not an address.";
    ForeignServerId, Refused, "foreign-server-id", NOT_US, "DHCP4_PACKET_DROP_0003", "The server identifier names another server.";
    ClassDrop, Refused, "class-drop", ADMIN, "DHCP4_PACKET_DROP_0010", "The packet belongs to the class DROP.";
    ClassDropReserved, Refused, "class-drop-reserved", ADMIN, "DHCP4_PACKET_DROP_0013", "The packet belongs to the class DROP now that its reservation is known.";
    ClassDropEarly, Refused, "class-drop-early", ADMIN, "DHCP4_PACKET_DROP_0014", "The packet belongs to the class DROP after the early look at global reservations.";
    Duplicate, Refused, "duplicate", Some("pkt4-duplicate"), "DHCP4_PACKET_DROP_0011", "The same client's packet is being processed.";
    DiscoverServerId, Refused, "discover-server-id", RFC, "DHCP4_PACKET_DROP_0007", "A DISCOVER must not name a server.";
    NoClient, Refused, "no-client", RFC, "DHCP4_PACKET_DROP_0007", "The packet has neither a hardware address nor a client identifier.";
    ClientIdShort, Refused, "client-id-short", RFC, "DHCP4_PACKET_DROP_0007", "The client identifier has fewer than two octets.";
    DeclineNoAddress, Refused, "decline-no-address", RFC, "DHCP4_DECLINE_FAIL", "A DECLINE must say which address it declines.";
    ProcessingFailed, Refused, "processing-failed", Some("pkt4-processing-failed"), "DHCP4_PACKET_PROCESS_EXCEPTION", "The packet could not be processed.";

    NoSubnet, Silent, "no-subnet", None, "DHCP4_SUBNET_SELECTION_FAILED", "No subnet serves this client, and silence is the rule for this message.";
    NoLease, Silent, "no-lease", None, "ALLOC_ENGINE_V4_ALLOC_FAIL", "There is no address for this client.";
    ClassReject, Silent, "class-reject", None, "APLOMADO_CLASS_REJECT", "The packet belongs to the class REJECT: a DISCOVER is not answered.";
    RebindUnknown, Silent, "rebind-unknown", None, "DHCP4_SUBNET_SELECTION_FAILED", "A rebinding client holds an address of a network that is not served here.";
    InitRebootUnknown, Silent, "init-reboot-unknown", None, "DHCP4_NO_LEASE_INIT_REBOOT", "A rebooted client asks for a lease that is not known here; another server may know it.";
    UnknownAddress, Silent, "unknown-address", None, "DHCP4_UNKNOWN_ADDRESS_REQUESTED", "A client asks for an address in no pool of its network; another server may own it.";
    ReleaseNoLease, Silent, "release-no-lease", None, "DHCP4_RELEASE_FAIL_NO_LEASE", "There is no lease to release.";
    ReleaseWrongClient, Silent, "release-wrong-client", None, "DHCP4_RELEASE_FAIL_WRONG_CLIENT", "The lease to release is another client's.";
    ReleaseState, Silent, "release-state", None, "DHCP4_RELEASE_FAIL", "The lease to release is not in use.";
    DeclineNoLease, Silent, "decline-no-lease", None, "DHCP4_DECLINE_LEASE_NOT_FOUND", "There is no lease in use to decline.";
    DeclineWrongClient, Silent, "decline-wrong-client", None, "DHCP4_DECLINE_LEASE_MISMATCH", "The lease to decline is another client's.";
    NoAnswer, Silent, "no-answer", None, "APLOMADO_NO_ANSWER", "The message was served; its type is never answered.";

    ParkFull, Withheld, "park-full", None, "DHCP4_HOOK_LEASES4_PARKING_LOT_FULL", "As many replies wait for a partner as may.";
    DiskParkFull, Withheld, "disk-park-full", None, "APLOMADO_DISK_PARK_FULL", "As many replies wait for the disk as may.";
    LogFull, Withheld, "log-full", None, "APLOMADO_LOG_FULL", "The ring to the log thread is full.";
    PeerRingFull, Withheld, "peer-ring-full", None, "APLOMADO_PEER_RING_FULL", "The ring to an awaited partner is full.";
    ParkCancelled, Withheld, "park-cancelled", None, "DHCP4_HOOK_LEASES4_COMMITTED_DROP", "The update of this lease failed at the partner, or the lease ended or changed hands while its reply waited, so the reply is not sent.";
    TableFull, Withheld, "table-full", None, "APLOMADO_TABLE_FULL", "The table of leases is full.";
    FramesGone, Withheld, "frames-gone", None, "APLOMADO_FRAMES_GONE", "There is no free frame for a reply.";
    ReplyTooLong, Withheld, "reply-too-long", None, "DHCP4_PACKET_PACK_FAIL", "The reply does not fit a frame of the interface.";
    TxFull, Withheld, "tx-full", None, "DHCP4_PACKET_SEND_FAIL", "The interface takes no more frames now.";
    TxFailed, Withheld, "tx-failed", None, "DHCP4_PACKET_SEND_FAIL", "The kernel refused to send the reply.";
}

impl DropReason {
    /// Its position in [`Self::ALL`], for arrays of counters.
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The reason of number `number`, or nothing.
    #[must_use]
    pub fn from_index(number: usize) -> Option<Self> {
        Self::ALL.get(number).copied()
    }
}

const _: () = assert!(DropReason::COUNT <= 256, "a reason fits an octet");

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_reason_has_its_own_counter_and_all_are_listed_in_order() {
        let names: HashSet<&str> = DropReason::ALL.iter().map(|reason| reason.name()).collect();
        assert_eq!(names.len(), DropReason::COUNT);
        for (index, reason) in DropReason::ALL.iter().enumerate() {
            assert_eq!(reason.index(), index);
            assert_eq!(DropReason::from_index(index), Some(*reason));
            assert!(reason.help().ends_with('.'), "{reason:?} has a sentence");
        }
        assert_eq!(DropReason::from_index(DropReason::COUNT), None);
    }

    #[test]
    fn counters_are_keas_where_kea_counts() {
        assert_eq!(DropReason::ParseCookie.counter(), "pkt4-parse-failed");
        assert_eq!(DropReason::ForeignServerId.counter(), "pkt4-not-for-us");
        assert_eq!(DropReason::FrameVlan.counter(), "frame-vlan");
        assert_eq!(DropReason::ForeignServerId.kind(), DropKind::Refused);
    }

    #[test]
    fn only_refused_packets_have_a_statistic_of_kea() {
        for reason in DropReason::ALL {
            assert!(reason.statistic().is_none() || reason.kind() == DropKind::Refused, "{reason:?}");
        }
    }
}
