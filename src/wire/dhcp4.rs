//! The DHCPv4 message: a view of its fixed part (RFC 2131 2) and the check that makes one.
//!
//! ```text
//!   0  op  1  htype  2  hlen  3  hops   4 xid   8 secs  10 flags
//!  12  ciaddr  16 yiaddr  20 siaddr  24 giaddr  28 chaddr (16)
//!  44  sname (64)  108 file (128)  236 cookie  240 options
//! ```

use std::net::Ipv4Addr;
use std::ops::Range;

use super::codes::{self, MAGIC_COOKIE, MessageType};
use super::drop::DropReason;
use super::option::{CodeSet, OptionTable, last_header};
use super::shape::Verdict;
use super::shapes::{STANDARD, Shapes};
use crate::ids::{HW_ADDR_BYTES_MAX, HwAddr};

/// Octets of the fixed part, cookie not included.
pub const FIXED_BYTES: usize = 236;
/// Where the options begin.
pub const OPTIONS_OFFSET: usize = FIXED_BYTES + 4;

/// Where `sname` and `file` stand: nothing but zeros in most messages.
pub const BOOT_NAMES: Range<usize> = field::SNAME.start..field::FILE.end;

/// Where each field of the fixed part stands.
pub(super) mod field {
    use std::ops::Range;

    pub(in super::super) const OP: usize = 0;
    pub(in super::super) const HTYPE: usize = 1;
    pub(in super::super) const HLEN: usize = 2;
    pub(in super::super) const HOPS: usize = 3;
    pub(in super::super) const XID: Range<usize> = 4..8;
    pub(in super::super) const SECS: Range<usize> = 8..10;
    pub(in super::super) const FLAGS: Range<usize> = 10..12;
    pub(in super::super) const CIADDR: Range<usize> = 12..16;
    pub(in super::super) const YIADDR: Range<usize> = 16..20;
    pub(in super::super) const SIADDR: Range<usize> = 20..24;
    pub(in super::super) const GIADDR: Range<usize> = 24..28;
    pub(in super::super) const CHADDR: Range<usize> = 28..44;
    pub(in super::super) const SNAME: Range<usize> = 44..108;
    pub(in super::super) const FILE: Range<usize> = 108..236;
    pub(in super::super) const COOKIE: Range<usize> = 236..240;
}

/// A view of a message whose fixed part is whole and whose cookie is right.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    fixed: &'a [u8; OPTIONS_OFFSET],
    payload: &'a [u8],
}

impl<'a> Packet<'a> {
    /// The message in `payload`, the whole payload of a datagram.
    ///
    /// # Errors
    /// When the fixed part is cut short, nothing or too little follows it, or the cookie is wrong.
    pub fn new_checked(payload: &'a [u8]) -> Result<Self, DropReason> {
        let Some(fixed) = payload.first_chunk::<OPTIONS_OFFSET>() else {
            let bootp = payload.len() == FIXED_BYTES;
            return Err(if bootp { DropReason::ParseNoOptions } else { DropReason::ParseShort });
        };
        if fixed[field::COOKIE] != MAGIC_COOKIE {
            return Err(DropReason::ParseCookie);
        }
        Ok(Self { fixed, payload })
    }

    /// The whole message: what [`OptionTable::find`] wants to see again.
    #[must_use]
    pub const fn payload(&self) -> &'a [u8] {
        self.payload
    }

    /// `op`: 1 from clients and relays. The server does not check it.
    #[must_use]
    pub const fn op(&self) -> u8 {
        self.fixed[field::OP]
    }

    /// `htype`: the kind of hardware address.
    #[must_use]
    pub const fn htype(&self) -> u8 {
        self.fixed[field::HTYPE]
    }

    /// `hlen`: octets of the hardware address.
    #[must_use]
    pub const fn hlen(&self) -> u8 {
        self.fixed[field::HLEN]
    }

    /// `hops`: relays passed.
    #[must_use]
    pub const fn hops(&self) -> u8 {
        self.fixed[field::HOPS]
    }

    /// `xid`: the client's transaction.
    #[must_use]
    pub fn xid(&self) -> u32 {
        u32::from_be_bytes(self.four(field::XID))
    }

    /// `secs`: seconds since the client began.
    #[must_use]
    pub fn secs(&self) -> u16 {
        self.two(field::SECS)
    }

    /// `flags`: [`codes::FLAG_BROADCAST`] and fifteen bits that must be zero.
    #[must_use]
    pub fn flags(&self) -> u16 {
        self.two(field::FLAGS)
    }

    /// Whether the client asks for a broadcast answer.
    #[must_use]
    pub fn is_broadcast(&self) -> bool {
        self.flags() & codes::FLAG_BROADCAST != 0
    }

    /// `ciaddr`: the client's own address, if it has one.
    #[must_use]
    pub fn ciaddr(&self) -> Ipv4Addr {
        self.four(field::CIADDR).into()
    }

    /// `yiaddr`: the address given to the client.
    #[must_use]
    pub fn yiaddr(&self) -> Ipv4Addr {
        self.four(field::YIADDR).into()
    }

    /// `siaddr`: the next server to boot from.
    #[must_use]
    pub fn siaddr(&self) -> Ipv4Addr {
        self.four(field::SIADDR).into()
    }

    /// `giaddr`: the relay's address on the client's link.
    #[must_use]
    pub fn giaddr(&self) -> Ipv4Addr {
        self.four(field::GIADDR).into()
    }

    /// `chaddr`: the client's hardware address, `hlen` octets of the 16 that the field has.
    #[must_use]
    pub fn chaddr(&self) -> &'a [u8] {
        let field = &self.fixed[field::CHADDR];
        field.get(..usize::from(self.hlen())).unwrap_or(field)
    }

    /// The client's hardware address with its type; octets past the sixteenth are zero because `chaddr` has no room for them.
    #[must_use]
    #[inline(always)]
    pub fn hw_addr(&self) -> HwAddr {
        HwAddr::of_field(self.htype(), self.hlen(), self.chaddr_field())
    }

    /// All 16 octets of `chaddr`.
    #[must_use]
    pub fn chaddr_field(&self) -> &'a [u8; 16] {
        self.fixed[field::CHADDR].first_chunk().expect("the range has that many")
    }

    /// `sname`: the server's host name, up to its first NUL.
    #[must_use]
    pub fn sname(&self) -> &'a [u8] {
        until_nul(&self.fixed[field::SNAME])
    }

    /// `file`: the boot file, up to its first NUL.
    #[must_use]
    pub fn file(&self) -> &'a [u8] {
        until_nul(&self.fixed[field::FILE])
    }

    fn two(&self, at: Range<usize>) -> u16 {
        u16::from_be_bytes([self.fixed[at.start], self.fixed[at.start + 1]])
    }

    fn four(&self, at: Range<usize>) -> [u8; 4] {
        let start = at.start;
        [self.fixed[start], self.fixed[start + 1], self.fixed[start + 2], self.fixed[start + 3]]
    }
}

fn until_nul(field: &[u8]) -> &[u8] {
    let len = field.iter().position(|octet| *octet == 0).unwrap_or(field.len());
    &field[..len]
}

/// What [`parse`] found besides the options: plain data, kept with the [`OptionTable`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// The message's type; nothing when option 53 is absent, is not one octet, or says a number that no type has.
    pub message_type: Option<MessageType>,
    /// Whether option 53 is there at all.
    pub has_message_type: bool,
}

/// How strictly options are judged: Kea's `compatibility` settings, and what is defined.
#[derive(Clone, Copy, Debug)]
pub struct Strictness<'a> {
    /// `lenient-option-parsing`: bad octets behind the good part of name and tuple options are cut off.
    pub lenient: bool,
    /// What each option must look like.
    pub shapes: &'a Shapes,
}

impl Default for Strictness<'static> {
    fn default() -> Self {
        Self { lenient: false, shapes: &STANDARD }
    }
}

/// Checks the message in `payload` and notes its options in `table`. Options with a definition are judged by it:
/// trailing NULs of text and surplus octets of scalars are cut off, empty text is as if absent, a cut vendor option
/// (124, 125) ends the options, relay sub-options end at a cut one, everything else that does not fit fails the message.
///
/// Options 52 (overload) and 57 (size) mean nothing here: `sname` and `file` are never read as options.
///
/// # Errors
/// The reason why the message is refused; `table` is then without meaning.
pub fn parse(payload: &[u8], table: &mut OptionTable) -> Result<Head, DropReason> {
    parse_with(payload, table, Strictness::default())
}

/// [`parse`] with another strictness.
///
/// # Errors
/// As [`parse`].
#[inline(always)]
pub fn parse_with(
    payload: &[u8],
    table: &mut OptionTable,
    strict: Strictness<'_>,
) -> Result<Head, DropReason> {
    let packet = Packet::new_checked(payload)?;
    if usize::from(packet.hlen()) > HW_ADDR_BYTES_MAX {
        return Err(DropReason::ParseHlen);
    }
    // A message that ends with its cookie has an options field of nothing, which passes.
    table.read(payload, OPTIONS_OFFSET..payload.len(), strict.shapes)?;
    cut_at_broken_vendor_options(payload, table, strict.shapes)?;
    if !table.doubtful().is_empty() {
        judge(payload, table, strict)?;
    }

    let content = table.find(payload, codes::option::MESSAGE_TYPE);
    let message_type = match content {
        Some([number]) => MessageType::from_number(*number),
        _ => None,
    };
    Ok(Head { message_type, has_message_type: content.is_some() })
}

/// A vendor option with a cut content ends the options: it and what stands behind it are as if absent.
#[inline(always)]
fn cut_at_broken_vendor_options(
    payload: &[u8],
    table: &mut OptionTable,
    shapes: &Shapes,
) -> Result<(), DropReason> {
    if !table.contains(codes::option::VIVCO) && !table.contains(codes::option::VIVSO) {
        return Ok(());
    }
    let mut gone = CodeSet::EMPTY;
    let mut area = OPTIONS_OFFSET..payload.len();
    // Each turn rules one of the two codes out for good, so there are at most two.
    while let Some(code) = [codes::option::VIVCO, codes::option::VIVSO].into_iter().find(|code| {
        let content = table.find(payload, *code);
        content.is_some_and(|data| shapes.check(*code, data, false) == Verdict::EndsOptions)
    }) {
        area.end = last_header(payload, area.clone(), code).unwrap_or(area.start);
        table.read(payload, area.clone(), shapes)?;
        gone.insert(code);
        for code in gone {
            table.remove(code);
        }
    }
    Ok(())
}

fn judge(payload: &[u8], table: &mut OptionTable, strict: Strictness<'_>) -> Result<(), DropReason> {
    for code in table.doubtful() {
        let Some(data) = table.find(payload, code) else { continue };
        match strict.shapes.check(code, data, strict.lenient) {
            Verdict::Fits => {}
            Verdict::Cut(len) => table.shorten(code, len),
            Verdict::Absent | Verdict::EndsOptions => table.remove(code),
            Verdict::Malformed if code == codes::option::FQDN => return Err(DropReason::ParseFqdn),
            Verdict::Malformed => return Err(DropReason::ParseOption),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A DISCOVER with `options` behind its cookie.
    fn message(options: &[u8]) -> Vec<u8> {
        let mut message = vec![0; FIXED_BYTES];
        message[..4].copy_from_slice(&[1, 1, 6, 0]);
        message[28..34].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
        message.extend(MAGIC_COOKIE);
        message.extend(options);
        message
    }

    fn parsed(options: &[u8]) -> Result<(Head, OptionTable, Vec<u8>), DropReason> {
        let message = message(options);
        let mut table = OptionTable::new();
        parse(&message, &mut table).map(|head| (head, table, message))
    }

    fn refused(options: &[u8]) -> Option<DropReason> {
        parsed(options).err()
    }

    #[test]
    fn short_messages_and_a_wrong_cookie_are_refused() {
        let good = message(&[53, 1, 1, 255]);
        let mut table = OptionTable::new();
        for len in 0..OPTIONS_OFFSET {
            let reason = if len == FIXED_BYTES { DropReason::ParseNoOptions } else { DropReason::ParseShort };
            assert_eq!(parse(&good[..len], &mut table), Err(reason), "{len} octets");
        }
        assert!(parse(&good[..OPTIONS_OFFSET], &mut table).is_ok());
        let mut wrong = good;
        wrong[239] = 0;
        assert_eq!(parse(&wrong, &mut table), Err(DropReason::ParseCookie));
    }

    #[test]
    fn hardware_address_may_have_20_octets_but_not_21() {
        let mut message = message(&[53, 1, 1, 255]);
        let mut table = OptionTable::new();
        message[2] = 20;
        assert!(parse(&message, &mut table).is_ok());
        assert_eq!(Packet::new_checked(&message).expect("good").chaddr().len(), 16);
        message[2] = 21;
        assert_eq!(parse(&message, &mut table), Err(DropReason::ParseHlen));
    }

    #[test]
    fn fields_stand_where_rfc_2131_puts_them() {
        let mut message: Vec<u8> = (0..=239).collect();
        message[2] = 6;
        message[236..].copy_from_slice(&MAGIC_COOKIE);
        message[50] = 0;
        let packet = Packet::new_checked(&message).expect("good");
        assert_eq!((packet.op(), packet.htype(), packet.hlen(), packet.hops()), (0, 1, 6, 3));
        assert_eq!((packet.xid(), packet.secs(), packet.flags()), (0x0405_0607, 0x0809, 0x0a0b));
        assert_eq!(packet.ciaddr(), Ipv4Addr::new(12, 13, 14, 15));
        assert_eq!(packet.yiaddr(), Ipv4Addr::new(16, 17, 18, 19));
        assert_eq!(packet.siaddr(), Ipv4Addr::new(20, 21, 22, 23));
        assert_eq!(packet.giaddr(), Ipv4Addr::new(24, 25, 26, 27));
        assert_eq!(packet.chaddr(), [28, 29, 30, 31, 32, 33]);
        assert_eq!(packet.chaddr_field().len(), 16);
        assert_eq!(packet.sname(), [44, 45, 46, 47, 48, 49]);
        assert_eq!((packet.file().len(), packet.file()[0]), (128, 108));
    }

    #[test]
    fn a_doubled_message_type_is_none() {
        let (head, ..) = parsed(&[53, 1, 1, 255]).expect("good");
        assert_eq!(head.message_type, Some(MessageType::Discover));
        let (head, ..) = parsed(&[53, 1, 1, 53, 1, 1, 255]).expect("good");
        assert_eq!((head.message_type, head.has_message_type), (None, true));
        let (head, ..) = parsed(&[255]).expect("good");
        assert_eq!((head.message_type, head.has_message_type), (None, false));
        let (head, ..) = parsed(&[53, 1, 99]).expect("good");
        assert_eq!(head.message_type, None);
        assert_eq!(refused(&[53, 0]), Some(DropReason::ParseOption));
    }

    #[test]
    fn a_known_option_that_does_not_fit_fails_the_message() {
        assert_eq!(refused(&[50, 3, 192, 0, 2]), Some(DropReason::ParseOption));
        assert_eq!(refused(&[51, 2, 0, 1]), Some(DropReason::ParseOption));
        assert_eq!(refused(&[81, 2, 0, 0]), Some(DropReason::ParseFqdn));
        assert_eq!(refused(&[81, 3, 0b1001, 0, 0]), Some(DropReason::ParseFqdn), "N and S together");
        assert_eq!(refused(&[6, 5, 1, 2, 3, 4, 5]), Some(DropReason::ParseOption));
    }

    #[test]
    fn over_long_scalars_take_the_leading_octets() {
        let (_, table, message) = parsed(&[51, 5, 0, 0, 1, 0, 7, 255]).expect("good");
        assert_eq!(table.find(&message, 51), Some(&[0, 0, 1, 0][..]));
    }

    #[test]
    fn text_without_content_is_absent_and_the_message_lives() {
        let (_, table, message) =
            parsed(&[12, 0, 15, 2, 0, 0, 60, 3, b'a', 0, 0, 53, 1, 1, 255]).expect("good");
        assert!(!table.contains(12) && !table.contains(15));
        assert_eq!(table.find(&message, 60), Some(&b"a"[..]));
    }

    #[test]
    fn broken_relay_sub_options_leave_the_message_alive() {
        let (_, table, message) = parsed(&[53, 1, 1, 82, 3, 1, 9, 0, 255]).expect("good");
        assert_eq!(table.find(&message, 82), Some(&[][..]), "the option itself is there");
        let relay = super::super::relay::RelayAgent::new(table.find(&message, 82).expect("there"));
        assert_eq!((relay.circuit_id(), relay.sub_options().count()), (None, 0));
        let (_, table, message) = parsed(&[53, 1, 1, 82, 6, 1, 1, 7, 2, 9, 0, 255]).expect("good");
        assert_eq!(table.find(&message, 82), Some(&[1, 1, 7][..]));
    }

    #[test]
    fn a_cut_vendor_option_ends_the_options_but_the_message_lives() {
        let (head, table, _) = parsed(&[53, 1, 1, 125, 5, 0, 0, 0, 9, 9, 12, 1, b'a', 255]).expect("good");
        assert_eq!(head.message_type, Some(MessageType::Discover));
        assert!(!table.contains(125) && !table.contains(12));
        // What stands behind it is not judged either.
        assert!(parsed(&[53, 1, 1, 124, 1, 0, 51, 1, 0]).is_ok());
        assert!(parsed(&[53, 1, 1, 51, 1, 0, 124, 1, 0]).is_err(), "what stands before it is");
        let (_, table, _) = parsed(&[12, 1, b'a', 125, 1, 0, 124, 1, 0, 255]).expect("good");
        assert_eq!(table.codes().iter().collect::<Vec<u8>>(), [12]);
    }

    #[test]
    fn overload_is_not_interpreted() {
        let mut message = message(&[52, 1, 3, 53, 1, 1, 255]);
        message[44..47].copy_from_slice(&[12, 1, b'x']);
        let mut table = OptionTable::new();
        parse(&message, &mut table).expect("good");
        assert!(!table.contains(12));
    }

    proptest! {
        #[test]
        fn parsing_never_panics(
            mut message in proptest::collection::vec(any::<u8>(), 0..700),
            with_cookie: bool,
            lenient: bool,
        ) {
            if with_cookie && message.len() >= OPTIONS_OFFSET {
                message[236..240].copy_from_slice(&MAGIC_COOKIE);
                message[2] %= 22;
            }
            let mut table = OptionTable::new();
            if parse_with(&message, &mut table, Strictness { lenient, ..Strictness::default() }).is_ok() {
                for code in table.codes() {
                    prop_assert!(table.find(&message, code).is_some());
                }
                let packet = Packet::new_checked(&message).expect("was parsed");
                let _ = (packet.chaddr(), packet.sname(), packet.file(), packet.xid());
            }
        }

        #[test]
        fn parsing_options_that_look_real_never_panics(
            parts in proptest::collection::vec((any::<u8>(), proptest::collection::vec(any::<u8>(), 0..20)), 0..30),
        ) {
            let mut options = Vec::new();
            for (code, data) in parts {
                options.extend([code, u8::try_from(data.len()).expect("short")]);
                options.extend(data);
            }
            let _ = parsed(&options);
        }
    }
}
