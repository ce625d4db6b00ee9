//! The generator's own DHCPv4 frames: a builder and a parser that share nothing with the server's, so that the one is an oracle
//! for the other (RFC 2131, RFC 2132).
//!
//! Promises: no panic on any received bytes, no allocation.

use std::net::Ipv4Addr;

const ETHER: usize = 14;
const IP: usize = ETHER + 20;
const DHCP: usize = IP + 8;
const OPTIONS: usize = DHCP + 240;
/// The shortest BOOTP message (RFC 1542 2.1), with its headers.
const FRAME_MIN: usize = DHCP + 300;
const COOKIE: [u8; 4] = [99, 130, 83, 99];
/// What a client wants to know: mask, router, DNS, host name, domain, broadcast, lease time, T1, T2.
const PARAMETER_LIST: [u8; 9] = [1, 3, 6, 12, 15, 28, 51, 58, 59];

/// DHCP message types (RFC 2132 9.6).
pub(crate) mod kind {
    pub(crate) const DISCOVER: u8 = 1;
    pub(crate) const OFFER: u8 = 2;
    pub(crate) const REQUEST: u8 = 3;
    pub(crate) const ACK: u8 = 5;
    pub(crate) const NAK: u8 = 6;
    pub(crate) const RELEASE: u8 = 7;
}

/// Where a generator's frames go and come from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Route {
    /// Hardware address of the generator's interface: all clients are behind it.
    pub(crate) own_mac: [u8; 6],
    /// The server's, all ones until it has answered.
    pub(crate) server_mac: [u8; 6],
    /// The relay that the generator plays; unspecified for clients on the link itself.
    pub(crate) giaddr: Ipv4Addr,
    /// The server's address, unspecified until it has answered.
    pub(crate) server: Ipv4Addr,
}

/// A message of a client.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Message {
    pub(crate) kind: u8,
    pub(crate) xid: u32,
    pub(crate) chaddr: [u8; 6],
    /// Whole seconds since the client began.
    pub(crate) secs: u16,
    /// The address in use, for renewals and releases; such messages go straight to the server.
    pub(crate) ciaddr: Ipv4Addr,
    /// Option 50, unless unspecified.
    pub(crate) requested: Ipv4Addr,
    /// Option 54, unless unspecified.
    pub(crate) server_id: Ipv4Addr,
    /// Option 61 with the hardware address.
    pub(crate) client_id: bool,
    /// Asks for answers by broadcast.
    pub(crate) broadcast: bool,
}

/// Writes a frame and says how long it is.
///
/// # Panics
/// When `out` is shorter than a frame of the slab.
pub(crate) fn build(out: &mut [u8], route: &Route, message: &Message) -> usize {
    let relayed = !route.giaddr.is_unspecified();
    let has_address = !message.ciaddr.is_unspecified();
    let unicast = relayed || (has_address && !route.server.is_unspecified());
    let frame = &mut out[..FRAME_MIN + 64];
    frame.fill(0);
    frame[..6].copy_from_slice(if unicast { &route.server_mac } else { &[255; 6] });
    frame[6..12].copy_from_slice(&route.own_mac);
    frame[12] = 0x08;

    let dhcp = &mut frame[DHCP..];
    dhcp[0] = 1;
    dhcp[1] = 1;
    dhcp[2] = 6;
    dhcp[3] = u8::from(relayed);
    dhcp[4..8].copy_from_slice(&message.xid.to_be_bytes());
    dhcp[8..10].copy_from_slice(&message.secs.to_be_bytes());
    dhcp[10] = if message.broadcast { 0x80 } else { 0 };
    dhcp[12..16].copy_from_slice(&message.ciaddr.octets());
    dhcp[24..28].copy_from_slice(&route.giaddr.octets());
    dhcp[28..34].copy_from_slice(&message.chaddr);
    dhcp[236..240].copy_from_slice(&COOKIE);
    let mut at = OPTIONS;
    let mut option = |code: u8, value: &[u8]| {
        frame[at] = code;
        frame[at + 1] = u8::try_from(value.len()).expect("our options are short");
        frame[at + 2..at + 2 + value.len()].copy_from_slice(value);
        at += 2 + value.len();
    };
    option(53, &[message.kind]);
    if message.client_id {
        let [a, b, c, d, e, f] = message.chaddr;
        option(61, &[1, a, b, c, d, e, f]);
    }
    if !message.requested.is_unspecified() {
        option(50, &message.requested.octets());
    }
    if !message.server_id.is_unspecified() {
        option(54, &message.server_id.octets());
    }
    if message.kind != kind::RELEASE {
        option(55, &PARAMETER_LIST);
    }
    frame[at] = 255;
    let len = (at + 1).max(FRAME_MIN);

    let source = if relayed { (route.giaddr, 67) } else { (message.ciaddr, 68) };
    let destination = if unicast { route.server } else { Ipv4Addr::BROADCAST };
    write_headers(&mut frame[..len], source, (destination, 67));
    len
}

/// Writes the IP and UDP headers of a frame whose other bytes are there, with their checksums.
fn write_headers(frame: &mut [u8], source: (Ipv4Addr, u16), destination: (Ipv4Addr, u16)) {
    let ip_len = u16::try_from(frame.len() - ETHER).expect("a frame is short");
    let udp_len = u16::try_from(frame.len() - IP).expect("a frame is short");
    let ip = &mut frame[ETHER..];
    ip[0] = 0x45;
    ip[2..4].copy_from_slice(&ip_len.to_be_bytes());
    ip[8] = 64;
    ip[9] = 17;
    ip[12..16].copy_from_slice(&source.0.octets());
    ip[16..20].copy_from_slice(&destination.0.octets());
    let checksum = !fold(sum(&ip[..20], 0));
    ip[10..12].copy_from_slice(&checksum.to_be_bytes());
    let udp = &mut frame[IP..];
    udp[..2].copy_from_slice(&source.1.to_be_bytes());
    udp[2..4].copy_from_slice(&destination.1.to_be_bytes());
    udp[4..6].copy_from_slice(&udp_len.to_be_bytes());
    let checksum = !fold(sum(udp, pseudo_header(source.0, destination.0, udp_len)));
    udp[6..8].copy_from_slice(&(if checksum == 0 { 0xffff } else { checksum }).to_be_bytes());
}

/// Answers a query as the emptiest server there could be, which gives `yiaddr` and remembers nothing: OFFER to DISCOVER, ACK to
/// REQUEST, silence to all else. The answer's length.
pub(crate) fn answer(
    out: &mut [u8],
    query: &[u8],
    own_mac: [u8; 6],
    server: Ipv4Addr,
    yiaddr: impl FnOnce([u8; 6]) -> Ipv4Addr,
) -> Option<usize> {
    let read = parse(query, false).ok()?;
    let kind = match read.kind {
        kind::DISCOVER => kind::OFFER,
        kind::REQUEST => kind::ACK,
        _ => return None,
    };
    let frame = &mut out[..FRAME_MIN];
    frame[..6].copy_from_slice(&read.source_mac);
    frame[6..12].copy_from_slice(&own_mac);
    frame[12..14].copy_from_slice(&[8, 0]);
    frame[ETHER..DHCP].fill(0);
    frame[DHCP..OPTIONS].copy_from_slice(&query[DHCP..OPTIONS]);
    frame[DHCP] = 2;
    let yiaddr = yiaddr(read.chaddr);
    frame[DHCP + 16..DHCP + 20].copy_from_slice(&yiaddr.octets());
    frame[OPTIONS..].fill(0);
    let options = &mut frame[OPTIONS..];
    options[..3].copy_from_slice(&[53, 1, kind]);
    options[3..5].copy_from_slice(&[54, 4]);
    options[5..9].copy_from_slice(&server.octets());
    options[9..15].copy_from_slice(&[51, 4, 0, 0, 14, 16]);
    options[15..17].copy_from_slice(&[1, 4]);
    options[17..21].copy_from_slice(&[255, 0, 0, 0]);
    options[21] = 255;
    let giaddr = address(&query[DHCP + 24..DHCP + 28]);
    let to = if giaddr.is_unspecified() { (yiaddr, 68) } else { (giaddr, 67) };
    write_headers(frame, (server, 67), to);
    Some(FRAME_MIN)
}

/// What a server answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) op: u8,
    pub(crate) kind: u8,
    pub(crate) xid: u32,
    pub(crate) chaddr: [u8; 6],
    pub(crate) yiaddr: Ipv4Addr,
    /// Option 54; unspecified when it is not there.
    pub(crate) server_id: Ipv4Addr,
    /// Option 51 in seconds; 0 when it is not there.
    pub(crate) lease_s: u32,
    pub(crate) source_mac: [u8; 6],
    pub(crate) source: Ipv4Addr,
}

/// Why bytes are no DHCPv4 reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Shorter than its headers say or than a message can be.
    Short,
    /// Not IPv4 and UDP.
    NotUdp,
    /// The IP header's checksum is wrong.
    IpChecksum,
    /// The UDP checksum is wrong.
    UdpChecksum,
    /// No DHCP cookie.
    Cookie,
    /// An option runs over the end, or no message type is there.
    Options,
}

impl Fault {
    pub(crate) const NAMES: [&'static str; 6] =
        ["short", "not-udp", "ip-checksum", "udp-checksum", "cookie", "options"];
}

/// Reads a frame. `verify` is false where the kernel says that the UDP checksum is not there to be verified.
pub(crate) fn parse(frame: &[u8], verify: bool) -> Result<Reply, Fault> {
    let headers: &[u8; DHCP] = frame.first_chunk().ok_or(Fault::Short)?;
    let ip = &headers[ETHER..IP];
    if headers[12..14] != [8, 0] || ip[0] != 0x45 || ip[9] != 17 {
        return Err(Fault::NotUdp);
    }
    if fold(sum(ip, 0)) != 0xffff {
        return Err(Fault::IpChecksum);
    }
    let udp_len = u16::from_be_bytes([headers[IP + 4], headers[IP + 5]]);
    let udp = frame.get(IP..IP + usize::from(udp_len)).ok_or(Fault::Short)?;
    let (source, destination) = (address(&ip[12..16]), address(&ip[16..20]));
    let unsummed = headers[IP + 6..IP + 8] == [0, 0];
    if verify && !unsummed && fold(sum(udp, pseudo_header(source, destination, udp_len))) != 0xffff {
        return Err(Fault::UdpChecksum);
    }
    let dhcp = udp.get(8..).ok_or(Fault::Short)?;
    let fixed: &[u8; 240] = dhcp.first_chunk().ok_or(Fault::Short)?;
    if fixed[236..240] != COOKIE {
        return Err(Fault::Cookie);
    }
    let mut reply = Reply {
        op: fixed[0],
        kind: 0,
        xid: u32::from_be_bytes([fixed[4], fixed[5], fixed[6], fixed[7]]),
        chaddr: [fixed[28], fixed[29], fixed[30], fixed[31], fixed[32], fixed[33]],
        yiaddr: address(&fixed[16..20]),
        server_id: Ipv4Addr::UNSPECIFIED,
        lease_s: 0,
        source_mac: [headers[6], headers[7], headers[8], headers[9], headers[10], headers[11]],
        source,
    };
    let mut rest = &dhcp[240..];
    while let [code, after @ ..] = rest {
        match code {
            0 => rest = after,
            255 => break,
            _ => {
                let (len, after) = after.split_first().ok_or(Fault::Options)?;
                let (value, after) = after.split_at_checked(usize::from(*len)).ok_or(Fault::Options)?;
                match (code, value) {
                    (53, [kind]) => reply.kind = *kind,
                    (54, [_, _, _, _]) => reply.server_id = address(value),
                    (51, [a, b, c, d]) => reply.lease_s = u32::from_be_bytes([*a, *b, *c, *d]),
                    _ => {}
                }
                rest = after;
            }
        }
    }
    if reply.kind == 0 { Err(Fault::Options) } else { Ok(reply) }
}

fn address(octets: &[u8]) -> Ipv4Addr {
    let octets: [u8; 4] = octets.try_into().expect("four octets are asked for");
    Ipv4Addr::from(octets)
}

/// The internet checksum's sum, unfolded (RFC 1071).
fn sum(bytes: &[u8], start: u64) -> u64 {
    let mut words = bytes.chunks_exact(4);
    let mut total = start;
    for word in words.by_ref() {
        total += u64::from(u32::from_be_bytes([word[0], word[1], word[2], word[3]]));
    }
    let mut last = [0; 4];
    let rest = words.remainder();
    last[..rest.len()].copy_from_slice(rest);
    total + u64::from(u32::from_be_bytes(last))
}

fn fold(mut total: u64) -> u16 {
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    u16::try_from(total).expect("folded")
}

fn pseudo_header(source: Ipv4Addr, destination: Ipv4Addr, udp_len: u16) -> u64 {
    u64::from(u32::from(source)) + u64::from(u32::from(destination)) + 17 + u64::from(udp_len)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUTE: Route = Route {
        own_mac: [2, 0, 0, 0, 0, 2],
        server_mac: [2, 0, 0, 0, 0, 1],
        giaddr: Ipv4Addr::UNSPECIFIED,
        server: Ipv4Addr::new(192, 0, 2, 1),
    };

    fn discover() -> Message {
        Message {
            kind: kind::DISCOVER,
            xid: 0x0102_0304,
            chaddr: [2, 0xa9, 0, 0, 0, 7],
            secs: 3,
            ciaddr: Ipv4Addr::UNSPECIFIED,
            requested: Ipv4Addr::UNSPECIFIED,
            server_id: Ipv4Addr::UNSPECIFIED,
            client_id: false,
            broadcast: false,
        }
    }

    fn built(route: &Route, message: &Message) -> Vec<u8> {
        let mut bytes = vec![0xee; 2048];
        let len = build(&mut bytes, route, message);
        bytes.truncate(len);
        bytes
    }

    #[test]
    fn built_frame_reads_back_with_right_checksums() {
        let frame = built(&ROUTE, &discover());
        assert_eq!(frame.len(), 342);
        let read = parse(&frame, true).expect("a good frame");
        assert_eq!((read.op, read.kind, read.xid, read.chaddr), (1, 1, 0x0102_0304, [2, 0xa9, 0, 0, 0, 7]));
        assert_eq!(frame[..6], [255; 6]);
        assert_eq!(frame[26..38], [0, 0, 0, 0, 255, 255, 255, 255, 0, 68, 0, 67]);
    }

    #[test]
    fn relayed_message_goes_from_the_relay_to_the_server() {
        let route = Route { giaddr: Ipv4Addr::new(10, 0, 0, 1), ..ROUTE };
        let frame = built(&route, &discover());
        assert_eq!(frame[..6], route.server_mac);
        assert_eq!(frame[26..38], [10, 0, 0, 1, 192, 0, 2, 1, 0, 67, 0, 67]);
        assert_eq!((frame[DHCP + 3], &frame[DHCP + 24..DHCP + 28]), (1, &[10, 0, 0, 1][..]));
        assert!(parse(&frame, true).is_ok());
    }

    #[test]
    fn renewal_goes_from_its_address_straight_to_the_server() {
        let message = Message { kind: kind::REQUEST, ciaddr: Ipv4Addr::new(192, 0, 2, 50), ..discover() };
        let frame = built(&ROUTE, &message);
        assert_eq!(frame[26..38], [192, 0, 2, 50, 192, 0, 2, 1, 0, 68, 0, 67]);
        assert!(parse(&frame, true).is_ok());
    }

    #[test]
    fn answer_reads_back_and_goes_where_the_query_came_from() {
        let (server, yiaddr) = (Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(16, 0, 0, 7));
        let query = built(&ROUTE, &discover());
        let mut bytes = vec![0xee; 2048];
        let len = answer(&mut bytes, &query, [2, 0, 0, 0, 0, 1], server, |_| yiaddr).expect("an answer");
        let read = parse(&bytes[..len], true).expect("a good frame");
        assert_eq!(
            (read.op, read.kind, read.xid, read.chaddr),
            (2, kind::OFFER, 0x0102_0304, discover().chaddr)
        );
        assert_eq!((read.yiaddr, read.server_id, read.lease_s), (yiaddr, server, 3600));
        assert_eq!(bytes[..6], ROUTE.own_mac);
        let release = built(&ROUTE, &Message { kind: kind::RELEASE, ..discover() });
        assert_eq!(answer(&mut bytes, &release, [2, 0, 0, 0, 0, 1], server, |_| yiaddr), None);
    }

    #[test]
    fn every_flipped_bit_of_headers_and_payload_is_noticed_or_harmless() {
        let frame = built(&ROUTE, &discover());
        for at in ETHER..frame.len() {
            let mut bad = frame.clone();
            bad[at] ^= 0x10;
            // The UDP checksum covers itself and all behind it, the IP checksum its header.
            assert!(parse(&bad, true).is_err(), "byte {at}");
        }
    }

    #[test]
    fn every_truncation_is_an_error_and_no_panic() {
        let frame = built(&ROUTE, &discover());
        for len in 0..frame.len() {
            assert!(parse(&frame[..len], true).is_err());
        }
    }

    #[test]
    fn option_that_runs_over_the_end_is_an_error() {
        let mut frame = built(&ROUTE, &discover());
        frame[OPTIONS + 1] = 255;
        assert_eq!(parse(&frame, false), Err(Fault::Options));
    }
}
