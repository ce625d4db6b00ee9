//! Raw Ethernet frames: the three headers in front of a DHCP message, read and written.
//!
//! ```text
//! 0            14           34        42
//! | Ethernet   | IPv4       | UDP     | DHCP message ...
//! ```
//!
//! What is read may have IP options and link-layer padding; what is written never has. A frame with a VLAN tag, or whose
//! tag the kernel took out, is refused: the VLAN device that the tag names receives its own copy.

use std::net::Ipv4Addr;
use std::ops::Range;

use super::codes;
use super::drop::DropReason;

/// Where the DHCP message stands in a frame that [`emit`] writes.
pub const PAYLOAD_OFFSET: usize = ETHERNET_BYTES + IP_BYTES + UDP_BYTES;
/// The Ethernet broadcast address.
pub const BROADCAST: [u8; 6] = [0xff; 6];

const ETHERNET_BYTES: usize = 14;
const IP_BYTES: usize = 20;
const UDP_BYTES: usize = 8;
const ETHERTYPE_IP4: [u8; 2] = [0x08, 0x00];
/// Tags of 802.1Q, 802.1ad, and the older double tagging.
const ETHERTYPES_VLAN: [[u8; 2]; 3] = [[0x81, 0x00], [0x88, 0xa8], [0x91, 0x00]];
const PROTOCOL_UDP: u8 = 17;

/// What the port knows of a frame besides its octets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Arrival {
    /// The kernel took a VLAN tag out of the frame before we saw it.
    pub tag_stripped: bool,
    /// A local sender left the UDP checksum to hardware that the frame never met: do not check it.
    pub checksum_not_ready: bool,
}

/// A UDP datagram for the server port inside a frame: who sent it to whom, and where its payload stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// Ethernet source; all zero when unknown (`udp` sockets).
    pub l2_src: [u8; 6],
    /// Ethernet destination; all zero when unknown.
    pub l2_dst: [u8; 6],
    /// IP source.
    pub src: Ipv4Addr,
    /// IP destination: an address of ours, or 255.255.255.255.
    pub dst: Ipv4Addr,
    /// UDP source port.
    pub src_port: u16,
    /// UDP destination port.
    pub dst_port: u16,
    /// First octet of the payload, from the start of the frame.
    pub payload_offset: u16,
    /// Length of the payload.
    pub payload_len: u16,
}

impl Datagram {
    /// No datagram: a place to put one.
    pub const EMPTY: Self = Self {
        l2_src: [0; 6],
        l2_dst: [0; 6],
        src: Ipv4Addr::UNSPECIFIED,
        dst: Ipv4Addr::UNSPECIFIED,
        src_port: 0,
        dst_port: 0,
        payload_offset: 0,
        payload_len: 0,
    };

    /// The payload within the frame that this datagram was parsed from; empty if `frame` is another, shorter one.
    #[must_use]
    pub fn payload<'a>(&self, frame: &'a [u8]) -> &'a [u8] {
        let start = usize::from(self.payload_offset);
        frame.get(start..start + usize::from(self.payload_len)).unwrap_or(&[])
    }

    /// Whether it was sent to 255.255.255.255.
    #[must_use]
    pub fn is_broadcast(&self) -> bool {
        self.dst == Ipv4Addr::BROADCAST
    }
}

/// Reads the headers of `frame`, which begins with the Ethernet header, down to a UDP datagram for port 67.
///
/// # Errors
/// The reason why the frame holds no such datagram.
#[inline(always)]
pub fn parse(frame: &[u8], arrival: Arrival) -> Result<Datagram, DropReason> {
    let (ethernet, packet) = frame.split_first_chunk::<ETHERNET_BYTES>().ok_or(DropReason::FrameShort)?;
    let ethertype = [ethernet[12], ethernet[13]];
    if arrival.tag_stripped || ETHERTYPES_VLAN.contains(&ethertype) {
        return Err(DropReason::FrameVlan);
    }
    if ethertype != ETHERTYPE_IP4 {
        return Err(DropReason::FrameNotIp4);
    }

    let ip: &[u8; IP_BYTES] = packet.first_chunk().ok_or(DropReason::FrameShort)?;
    let header_len = usize::from(ip[0] & 0x0f) * 4;
    if ip[0] >> 4 != 4 || header_len < IP_BYTES {
        return Err(DropReason::FrameHeader);
    }
    let header = packet.get(..header_len).ok_or(DropReason::FrameShort)?;
    let total_len = usize::from(u16::from_be_bytes([ip[2], ip[3]]));
    // Octets past the total length are padding of the link layer; octets short of it are a cut frame.
    let body = packet.get(header_len..total_len).ok_or(DropReason::FrameLength)?;
    // Nearly no header has options.
    let header_sum = if header_len == IP_BYTES { sum_of_five(ip) } else { sum(header) };
    if fold(header_sum) != 0xffff {
        return Err(DropReason::FrameChecksumIp);
    }
    if ip[6] & 0x3f != 0 || ip[7] != 0 {
        return Err(DropReason::FrameFragment);
    }
    if ip[9] != PROTOCOL_UDP {
        return Err(DropReason::FrameNotUdp);
    }

    let udp: &[u8; UDP_BYTES] = body.first_chunk().ok_or(DropReason::FrameLength)?;
    let dst_port = u16::from_be_bytes([udp[2], udp[3]]);
    if dst_port != codes::SERVER_PORT {
        return Err(DropReason::FramePort);
    }
    let udp_len = u16::from_be_bytes([udp[4], udp[5]]);
    let datagram = body.get(..usize::from(udp_len)).ok_or(DropReason::FrameLength)?;
    let Some(payload_len) = usize::from(udp_len).checked_sub(UDP_BYTES) else {
        return Err(DropReason::FrameLength);
    };
    let checksum_given = udp[6] != 0 || udp[7] != 0;
    if checksum_given && !arrival.checksum_not_ready {
        let pseudo =
            pseudo_header([ip[12], ip[13], ip[14], ip[15]], [ip[16], ip[17], ip[18], ip[19]], udp_len);
        if fold(pseudo + sum(datagram)) != 0xffff {
            return Err(DropReason::FrameChecksumUdp);
        }
    }

    let offset = ETHERNET_BYTES + header_len + UDP_BYTES;
    Ok(Datagram {
        l2_dst: [ethernet[0], ethernet[1], ethernet[2], ethernet[3], ethernet[4], ethernet[5]],
        l2_src: [ethernet[6], ethernet[7], ethernet[8], ethernet[9], ethernet[10], ethernet[11]],
        src: Ipv4Addr::new(ip[12], ip[13], ip[14], ip[15]),
        dst: Ipv4Addr::new(ip[16], ip[17], ip[18], ip[19]),
        src_port: u16::from_be_bytes([udp[0], udp[1]]),
        dst_port,
        payload_offset: u16::try_from(offset).map_err(|_| DropReason::FrameLength)?,
        payload_len: u16::try_from(payload_len).map_err(|_| DropReason::FrameLength)?,
    })
}

/// Who sends a frame to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// Ethernet source: the interface's own address.
    pub l2_src: [u8; 6],
    /// Ethernet destination.
    pub l2_dst: [u8; 6],
    /// IP source.
    pub src: Ipv4Addr,
    /// IP destination.
    pub dst: Ipv4Addr,
    /// UDP source port.
    pub src_port: u16,
    /// UDP destination port.
    pub dst_port: u16,
}

/// Writes the Ethernet, IPv4 and UDP headers in front of a payload of `payload_len` octets that already stands at
/// [`PAYLOAD_OFFSET`], with both checksums, and returns the length of the frame.
///
/// # Errors
/// [`DropReason::ReplyTooLong`] when `frame` does not hold that payload or IPv4 cannot carry it.
pub fn emit(frame: &mut [u8], addresses: &Addresses, payload_len: usize) -> Result<usize, DropReason> {
    emit_around(frame, addresses, payload_len, 0..0)
}

/// [`emit`] of a payload that holds nothing but zeros in the range `blank`, which begins and ends at an even octet: they add
/// nothing to a sum.
///
/// # Errors
/// As [`emit`].
#[inline(always)]
pub fn emit_around(
    frame: &mut [u8],
    addresses: &Addresses,
    payload_len: usize,
    blank: Range<usize>,
) -> Result<usize, DropReason> {
    debug_assert!(
        blank.start.is_multiple_of(2) && blank.end.is_multiple_of(2),
        "sums are of pairs of octets"
    );
    let frame_len = PAYLOAD_OFFSET.saturating_add(payload_len);
    let total_len = frame_len - ETHERNET_BYTES;
    let frame = frame.get_mut(..frame_len).ok_or(DropReason::ReplyTooLong)?;
    let total = u16::try_from(total_len).map_err(|_| DropReason::ReplyTooLong)?.to_be_bytes();
    let udp_len = u16::try_from(total_len - IP_BYTES).map_err(|_| DropReason::ReplyTooLong)?;
    let Some((headers, payload)) = frame.split_first_chunk_mut::<PAYLOAD_OFFSET>() else {
        return Err(DropReason::ReplyTooLong);
    };

    let (src, dst) = (addresses.src.octets(), addresses.dst.octets());
    headers[0..6].copy_from_slice(&addresses.l2_dst);
    headers[6..12].copy_from_slice(&addresses.l2_src);
    headers[12..14].copy_from_slice(&ETHERTYPE_IP4);
    // Version 4 and five words; low delay; length; identification 0 with "do not fragment"; 128 hops; UDP; checksum.
    let mut ip =
        [0x45, 0x10, total[0], total[1], 0, 0, 0x40, 0, 128, PROTOCOL_UDP, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    ip[12..16].copy_from_slice(&src);
    ip[16..20].copy_from_slice(&dst);
    let ip_checksum = !fold(sum_of_five(&ip));
    ip[10..12].copy_from_slice(&ip_checksum.to_le_bytes());
    headers[14..34].copy_from_slice(&ip);

    let [src_port, dst_port] = [addresses.src_port, addresses.dst_port].map(u16::to_be_bytes);
    headers[34..36].copy_from_slice(&src_port);
    headers[36..38].copy_from_slice(&dst_port);
    headers[38..40].copy_from_slice(&udp_len.to_be_bytes());
    headers[40..42].copy_from_slice(&[0, 0]);
    let ports = u64::from(u16::from_le_bytes(src_port)) + u64::from(u16::from_le_bytes(dst_port));
    let (before, after) = payload.split_at_checked(blank.start).unwrap_or((payload, &mut []));
    let after = after.get(blank.end - blank.start..).unwrap_or(&[]);
    let total =
        pseudo_header(src, dst, udp_len) + ports + u64::from(udp_len.swap_bytes()) + sum(before) + sum(after);
    // A checksum that comes out as 0 is sent as 0xffff, because 0 says "none" (RFC 768).
    let udp_checksum = match !fold(total) {
        0 => 0xffff,
        checksum => checksum,
    };
    headers[40..42].copy_from_slice(&udp_checksum.to_le_bytes());
    Ok(frame_len)
}

/// The sum of a header without options: what [`sum`] gives, or as good.
fn sum_of_five(header: &[u8; IP_BYTES]) -> u64 {
    header.as_chunks::<4>().0.iter().map(|word| u64::from(u32::from_le_bytes(*word))).sum()
}

/// The part of the UDP checksum that covers both addresses, protocol and length.
fn pseudo_header(src: [u8; 4], dst: [u8; 4], udp_len: u16) -> u64 {
    u64::from(u32::from_le_bytes(src))
        + u64::from(u32::from_le_bytes(dst))
        + u64::from(u16::from_le_bytes([0, PROTOCOL_UDP]))
        + u64::from(udp_len.swap_bytes())
}

/// The one's-complement sum of `bytes` as little-endian words, not yet folded to 16 bits, below 2^33. Byte order does not matter
/// to such a sum as long as it is written back the same way (RFC 1071 2), and neither does the width of the words that are added,
/// as long as what carries out of the top comes in again at the bottom: eight octets cost an addition and a carry.
#[inline(always)]
fn sum(bytes: &[u8]) -> u64 {
    const UNROLLED: usize = 8;
    let (mut total, mut carry) = (0_u64, false);
    let (blocks, rest) = bytes.as_chunks::<{ UNROLLED * 8 }>();
    for block in blocks {
        for word in block.as_chunks::<8>().0 {
            (total, carry) = total.carrying_add(u64::from_le_bytes(*word), carry);
        }
    }
    let (words, rest) = rest.as_chunks::<8>();
    for word in words {
        (total, carry) = total.carrying_add(u64::from_le_bytes(*word), carry);
    }
    let last = match (rest.len(), bytes.last_chunk::<8>()) {
        (0, _) => 0,
        // The last eight octets again, without what has been added already.
        (count, Some(last)) => u64::from_le_bytes(*last) >> (64 - 8 * count),
        (_, None) => rest.iter().rev().fold(0, |last, octet| last << 8 | u64::from(*octet)),
    };
    (total, carry) = total.carrying_add(last, carry);
    // What carries out of the top comes in at the bottom; when that carries again, nothing is left there.
    (total, carry) = total.carrying_add(0, carry);
    total += u64::from(carry);
    (total & 0xffff_ffff) + (total >> 32)
}

/// Folds a sum to 16 bits, carries added back in: the rest by 0xffff, which itself is written for all its multiples but nothing.
fn fold(total: u64) -> u16 {
    let rest = total.checked_sub(1).map(|below| below % 0xffff + 1);
    let [low, high, ..] = rest.unwrap_or(0).to_le_bytes();
    u16::from_le_bytes([low, high])
}

/// The internet checksum of `bytes` (RFC 1071), as its two octets are sent.
#[must_use]
pub fn checksum(bytes: &[u8]) -> [u8; 2] {
    (!fold(sum(bytes))).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ADDRESSES: Addresses = Addresses {
        l2_src: [2, 0, 0, 0, 0, 1],
        l2_dst: [2, 0, 0, 0, 0, 2],
        src: Ipv4Addr::new(192, 0, 2, 1),
        dst: Ipv4Addr::new(192, 0, 2, 15),
        src_port: 68,
        dst_port: 67,
    };
    const READY: Arrival = Arrival { tag_stripped: false, checksum_not_ready: false };

    fn frame_with(payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![0; PAYLOAD_OFFSET + payload.len()];
        frame[PAYLOAD_OFFSET..].copy_from_slice(payload);
        let len = emit(&mut frame, &ADDRESSES, payload.len()).expect("the frame is large enough");
        assert_eq!(len, frame.len());
        frame
    }

    /// Puts the right header checksum in again after a test changed the header.
    fn mend(frame: &mut [u8]) {
        let header_len = usize::from(frame[14] & 0xf) * 4;
        frame[24..26].fill(0);
        let sum = checksum(&frame[14..14 + header_len]);
        frame[24..26].copy_from_slice(&sum);
    }

    /// The sum as RFC 1071 describes it, two octets at a time.
    fn naive(bytes: &[u8]) -> u16 {
        let mut total: u32 = 0;
        for pair in bytes.chunks(2) {
            total += u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
            total = (total & 0xffff) + (total >> 16);
        }
        !u16::try_from(total).expect("folded")
    }

    #[test]
    fn checksum_of_the_rfcs_example() {
        // RFC 1071 3: the sum of these is ddf2.
        assert_eq!(checksum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), (!0xddf2_u16).to_be_bytes());
        assert_eq!(checksum(&[]), [0xff, 0xff]);
        // A header known from many textbooks.
        let header =
            [0x45, 0, 0, 0x73, 0, 0, 0x40, 0, 0x40, 0x11, 0, 0, 0xc0, 0xa8, 0, 1, 0xc0, 0xa8, 0, 0xc7];
        assert_eq!(checksum(&header), [0xb8, 0x61]);
    }

    #[test]
    fn zeros_that_are_passed_over_change_nothing() {
        let mut payload: Vec<u8> = (0..=255).map(|octet: u8| octet.wrapping_mul(167)).collect();
        payload.push(9);
        for blank in [0..0, 44..236, 2..4, 254..256] {
            let mut payload = payload.clone();
            payload[blank.clone()].fill(0);
            let expected = frame_with(&payload);
            let mut frame = expected.clone();
            frame[..PAYLOAD_OFFSET].fill(0xaa);
            assert_eq!(emit_around(&mut frame, &ADDRESSES, payload.len(), blank), Ok(expected.len()));
            assert_eq!(frame, expected);
        }
    }

    #[test]
    fn emitted_headers_are_those_of_a_dhcp_server() {
        let frame = frame_with(&[1, 2, 3]);
        assert_eq!(&frame[14..26], &[0x45, 0x10, 0, 31, 0, 0, 0x40, 0, 128, 17, frame[24], frame[25]]);
        assert_eq!(checksum(&frame[14..34]), [0, 0], "the header sums to zero");
        let datagram = parse(&frame, READY).expect("our own frame is well formed");
        assert_eq!((datagram.src, datagram.dst), (ADDRESSES.src, ADDRESSES.dst));
        assert_eq!((datagram.l2_src, datagram.l2_dst), (ADDRESSES.l2_src, ADDRESSES.l2_dst));
        assert_eq!(datagram.payload(&frame), [1, 2, 3]);
        assert_eq!(datagram.payload(&frame[..40]), [0_u8; 0]);
    }

    #[test]
    fn padding_is_tolerated_and_a_cut_frame_refused() {
        let mut frame = frame_with(&[7; 10]);
        frame.extend([0; 20]);
        assert_eq!(parse(&frame, READY).expect("padded").payload(&frame), [7; 10]);
        frame.truncate(PAYLOAD_OFFSET + 9);
        assert_eq!(parse(&frame, READY), Err(DropReason::FrameLength));
        frame.truncate(20);
        assert_eq!(parse(&frame, READY), Err(DropReason::FrameShort));
        assert_eq!(parse(&[], READY), Err(DropReason::FrameShort));
    }

    #[test]
    fn ip_options_are_skipped() {
        let plain = frame_with(&[9; 5]);
        let mut frame = plain[..34].to_vec();
        frame.extend([1, 1, 1, 0]);
        frame.extend(&plain[34..]);
        frame[14] = 0x46;
        frame[17] += 4;
        mend(&mut frame);
        assert_eq!(parse(&frame, READY).expect("options are legal").payload(&frame), [9; 5]);
    }

    #[test]
    fn tagged_frames_are_not_for_this_interface() {
        let mut frame = frame_with(&[1]);
        let stripped = Arrival { tag_stripped: true, ..READY };
        assert_eq!(parse(&frame, stripped), Err(DropReason::FrameVlan));
        frame[12..14].copy_from_slice(&[0x81, 0]);
        assert_eq!(parse(&frame, READY), Err(DropReason::FrameVlan));
        frame[12..14].copy_from_slice(&[0x86, 0xdd]);
        assert_eq!(parse(&frame, READY), Err(DropReason::FrameNotIp4));
    }

    #[test]
    fn wrong_headers_are_refused_each_by_its_reason() {
        let cases: [(usize, u8, DropReason); 7] = [
            (14, 0x65, DropReason::FrameHeader),
            (14, 0x44, DropReason::FrameHeader),
            (20, 0x20, DropReason::FrameFragment),
            (21, 0x01, DropReason::FrameFragment),
            (23, 6, DropReason::FrameNotUdp),
            (37, 68, DropReason::FramePort),
            (39, 7, DropReason::FrameLength),
        ];
        for (offset, value, reason) in cases {
            let mut frame = frame_with(&[0; 8]);
            frame[offset] = value;
            mend(&mut frame);
            assert_eq!(parse(&frame, READY), Err(reason), "octet {offset} = {value}");
        }
        let mut frame = frame_with(&[0; 8]);
        frame[24] ^= 1;
        assert_eq!(parse(&frame, READY), Err(DropReason::FrameChecksumIp));
    }

    #[test]
    fn datagram_checksum_is_checked_unless_absent_or_not_ready() {
        let mut frame = frame_with(&[1, 2, 3]);
        frame[43] ^= 0xff;
        assert_eq!(parse(&frame, READY), Err(DropReason::FrameChecksumUdp));
        assert!(parse(&frame, Arrival { checksum_not_ready: true, ..READY }).is_ok());
        frame[40..42].fill(0);
        assert!(parse(&frame, READY).is_ok(), "0 means that there is none");
    }

    #[test]
    fn a_payload_that_does_not_fit_is_an_error() {
        let mut frame = vec![0; 70_000];
        assert_eq!(emit(&mut frame, &ADDRESSES, 65_508), Err(DropReason::ReplyTooLong));
        assert!(emit(&mut frame, &ADDRESSES, 65_507).is_ok());
        assert_eq!(emit(&mut frame[..50], &ADDRESSES, 9), Err(DropReason::ReplyTooLong));
    }

    proptest! {
        #[test]
        fn parsing_never_panics(frame in proptest::collection::vec(any::<u8>(), 0..400), stripped: bool, ready: bool) {
            let _ = parse(&frame, Arrival { tag_stripped: stripped, checksum_not_ready: ready });
        }

        #[test]
        fn parsing_a_damaged_frame_stays_inside_it(
            payload in proptest::collection::vec(any::<u8>(), 0..400),
            changes in proptest::collection::vec((0_usize..60, any::<u8>()), 0..6),
            cut in 0_usize..500,
        ) {
            let mut frame = frame_with(&payload);
            for (offset, value) in changes {
                if let Some(octet) = frame.get_mut(offset) {
                    *octet = value;
                }
            }
            frame.truncate(frame.len().saturating_sub(cut));
            if let Ok(datagram) = parse(&frame, Arrival { checksum_not_ready: true, ..READY }) {
                prop_assert_eq!(datagram.payload(&frame).len(), usize::from(datagram.payload_len));
            }
        }

        #[test]
        fn what_is_emitted_parses_to_the_same(payload in proptest::collection::vec(any::<u8>(), 0..1500)) {
            let frame = frame_with(&payload);
            prop_assert_eq!(parse(&frame, READY).expect("well formed").payload(&frame), &payload[..]);
        }

        #[test]
        fn fast_checksum_equals_the_naive_one(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
            prop_assert_eq!(checksum(&bytes), naive(&bytes).to_be_bytes());
        }
    }
}
