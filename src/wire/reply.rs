//! The way out: a reply's fixed part and a bounded list of its options, written into the frame it leaves from.
//!
//! The order on the wire is the message type, the other options by ascending code, relay agent information, END.
//! Several options of one code keep the order in which they were pushed. A payload beyond 253 octets goes out in pieces
//! of 253 under the same code (RFC 3396), cut between sub-options where the payload has them. There is no padding, no
//! overload, and no limit but the buffer's.

use std::net::Ipv4Addr;

use super::codes::{self, MAGIC_COOKIE, option};
use super::dhcp4::{OPTIONS_OFFSET, field};
use super::drop::DropReason;
use super::option::{CodeSet, Walk};

/// Most options of one reply.
pub const OPTIONS_MAX: usize = 192;
/// Most octets of payload in one option: Kea bounds the whole option, header included, at 255.
pub const PIECE_BYTES_MAX: usize = 253;

const FIRST: usize = 32;

#[derive(Clone, Copy, Debug)]
struct Entry<'a> {
    data: &'a [u8],
    next: u8,
}

const VACANT: Entry<'static> = Entry { data: &[], next: END_OF_CHAIN };
const END_OF_CHAIN: u8 = u8::MAX;

/// The options of a reply: references to their payloads, in the order of codes.
///
/// Replies have some ten options, so room for the first 32 is made at once and the rest only when it is needed.
#[derive(Clone, Debug)]
pub struct OptionList<'a> {
    present: CodeSet,
    /// Where the chain of each code begins; valid only with the code's bit.
    head: [u8; 256],
    first: [Entry<'a>; FIRST],
    more: Option<[Entry<'a>; OPTIONS_MAX - FIRST]>,
    len: u8,
}

const _: () = assert!(OPTIONS_MAX < END_OF_CHAIN as usize, "positions fit an octet with one value to spare");

impl Default for OptionList<'_> {
    fn default() -> Self {
        Self::new()
    }
}

/// The list of options is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

impl<'a> OptionList<'a> {
    /// An empty list.
    #[must_use]
    #[inline]
    pub const fn new() -> Self {
        Self { present: CodeSet::EMPTY, head: [0; 256], first: [VACANT; FIRST], more: None, len: 0 }
    }

    /// Adds an option. PAD and END are no options: they are left out.
    ///
    /// # Errors
    /// [`Full`] beyond [`OPTIONS_MAX`] options.
    #[inline]
    pub fn push(&mut self, code: u8, data: &'a [u8]) -> Result<(), Full> {
        if code == option::PAD || code == option::END {
            return Ok(());
        }
        let at = self.len;
        *self.entry_mut(at).ok_or(Full)? = Entry { data, next: END_OF_CHAIN };
        self.len += 1;
        if self.present.insert(code) {
            self.head[usize::from(code)] = at;
            return Ok(());
        }
        let mut last = self.head[usize::from(code)];
        while let Some(entry) = self.entry_mut(last) {
            if entry.next == END_OF_CHAIN {
                entry.next = at;
                break;
            }
            last = entry.next;
        }
        Ok(())
    }

    /// Whether option `code` is in.
    #[must_use]
    pub const fn contains(&self, code: u8) -> bool {
        self.present.contains(code)
    }

    /// All codes that are in.
    #[must_use]
    pub const fn codes(&self) -> CodeSet {
        self.present
    }

    /// The payload of the first option with `code`.
    #[must_use]
    pub fn find(&self, code: u8) -> Option<&'a [u8]> {
        self.chain(code).next()
    }

    /// Takes all options with `code` out. Their places are not used again.
    pub const fn remove(&mut self, code: u8) {
        self.present.remove(code);
    }

    /// How many octets the options take on the wire, END included.
    #[must_use]
    pub fn buffer_len(&self) -> usize {
        let codes = self.present.iter();
        1 + codes.flat_map(|code| self.chain(code).map(move |data| encoded_len(code, data))).sum::<usize>()
    }

    /// Writes all options and END; returns how many octets that were.
    fn emit(&self, buffer: &mut [u8]) -> Option<usize> {
        let mut rest: CodeSet = self.present;
        rest.remove(option::MESSAGE_TYPE);
        rest.remove(option::AGENT_OPTIONS);
        let mut at = self.emit_code(buffer, 0, option::MESSAGE_TYPE)?;
        for code in rest {
            at = self.emit_code(buffer, at, code)?;
        }
        at = self.emit_code(buffer, at, option::AGENT_OPTIONS)?;
        *buffer.get_mut(at)? = option::END;
        Some(at + 1)
    }

    /// Writes every option of `code` from `at` on and says where they end.
    fn emit_code(&self, buffer: &mut [u8], mut at: usize, code: u8) -> Option<usize> {
        if !self.present.contains(code) {
            return Some(at);
        }
        let mut entry = self.entry(self.head[usize::from(code)])?;
        loop {
            at = emit_option(buffer, at, code, entry.data)?;
            if entry.next == END_OF_CHAIN {
                return Some(at);
            }
            entry = self.entry(entry.next)?;
        }
    }

    fn chain(&self, code: u8) -> impl Iterator<Item = &'a [u8]> {
        let mut at = if self.present.contains(code) { self.head[usize::from(code)] } else { END_OF_CHAIN };
        std::iter::from_fn(move || {
            let entry = self.entry(at)?;
            at = entry.next;
            Some(entry.data)
        })
    }

    fn entry(&self, at: u8) -> Option<&Entry<'a>> {
        let at = usize::from(at);
        self.first.get(at).or_else(|| self.more.as_ref()?.get(at.checked_sub(FIRST)?))
    }

    fn entry_mut(&mut self, at: u8) -> Option<&mut Entry<'a>> {
        let at = usize::from(at);
        match at.checked_sub(FIRST) {
            None => self.first.get_mut(at),
            Some(beyond) => Self::entry_beyond(&mut self.more, beyond),
        }
    }

    /// Kept out of line: hardly any reply has so many options.
    #[cold]
    #[inline(never)]
    fn entry_beyond<'s>(
        more: &'s mut Option<[Entry<'a>; OPTIONS_MAX - FIRST]>,
        beyond: usize,
    ) -> Option<&'s mut Entry<'a>> {
        if beyond >= OPTIONS_MAX - FIRST {
            return None;
        }
        more.get_or_insert([VACANT; OPTIONS_MAX - FIRST]).get_mut(beyond)
    }
}

/// The payload in the pieces that go out as options of their own.
fn pieces(code: u8, data: &[u8]) -> impl Iterator<Item = &[u8]> {
    // An empty payload is one empty piece.
    let mut rest = Some(data);
    std::iter::from_fn(move || {
        let data = rest?;
        if data.len() <= PIECE_BYTES_MAX {
            rest = None;
            return Some(data);
        }
        let (piece, after) = data.split_at(cut(code, data));
        rest = Some(after);
        Some(piece)
    })
}

/// Where a payload longer than a piece is cut.
fn cut(code: u8, data: &[u8]) -> usize {
    if !matches!(code, option::AGENT_OPTIONS | option::VENDOR_ENCAPSULATED | option::CABLELABS) {
        return PIECE_BYTES_MAX;
    }
    let (mut end, mut walk) = (0, Walk::<1>::new(data));
    while walk.next().is_some() {
        let next = data.len() - walk.rest().len();
        if next > PIECE_BYTES_MAX {
            break;
        }
        end = next;
    }
    // A single sub-option that is too long for a piece, or octets that are none, are cut like any other payload.
    if end == 0 { PIECE_BYTES_MAX } else { end }
}

fn encoded_len(code: u8, data: &[u8]) -> usize {
    if data.len() <= PIECE_BYTES_MAX {
        return 2 + data.len();
    }
    pieces(code, data).map(|piece| 2 + piece.len()).sum()
}

/// Writes one option at `at`, in pieces when it is long, and says where it ends.
fn emit_option(buffer: &mut [u8], mut at: usize, code: u8, data: &[u8]) -> Option<usize> {
    // Most options are an address or a time: a move instead of a call.
    if let Ok(four) = <&[u8; 4]>::try_from(data) {
        let to = buffer.get_mut(at..)?.first_chunk_mut::<6>()?;
        *to = [code, 4, four[0], four[1], four[2], four[3]];
        return Some(at + 6);
    }
    if data.len() <= PIECE_BYTES_MAX {
        return emit_piece(buffer, at, code, data);
    }
    for piece in pieces(code, data) {
        at = emit_piece(buffer, at, code, piece)?;
    }
    Some(at)
}

fn emit_piece(buffer: &mut [u8], at: usize, code: u8, piece: &[u8]) -> Option<usize> {
    let end = at + 2 + piece.len();
    let (header, to) = buffer.get_mut(at..end)?.split_first_chunk_mut::<2>()?;
    *header = [code, u8::try_from(piece.len()).ok()?];
    to.copy_from_slice(piece);
    Some(end)
}

/// The fixed part of a reply. `op` is always BOOTREPLY and `secs` always 0.
#[derive(Clone, Copy, Debug)]
pub struct Reply<'a> {
    /// Copied from the query.
    pub htype: u8,
    /// Copied from the query.
    pub hlen: u8,
    /// Copied from the query.
    pub hops: u8,
    /// Copied from the query.
    pub xid: u32,
    /// The query's, or what the addressing rules make of them.
    pub flags: u16,
    /// The client's own address, in ACKs that grant or inform.
    pub ciaddr: Ipv4Addr,
    /// The address given.
    pub yiaddr: Ipv4Addr,
    /// The next server to boot from.
    pub siaddr: Ipv4Addr,
    /// The relay.
    pub giaddr: Ipv4Addr,
    /// Copied from the query: at most 16 octets.
    pub chaddr: &'a [u8],
    /// At most 64 octets.
    pub sname: &'a [u8],
    /// At most 128 octets.
    pub file: &'a [u8],
}

impl<'a> Reply<'a> {
    /// A reply to `query` with everything that is always copied from it, and nothing else.
    #[must_use]
    pub fn to(query: &super::Query<'a>) -> Self {
        let packet = query.packet;
        Self {
            htype: packet.htype(),
            hlen: packet.hlen(),
            hops: packet.hops(),
            xid: packet.xid(),
            flags: packet.flags(),
            ciaddr: Ipv4Addr::UNSPECIFIED,
            yiaddr: Ipv4Addr::UNSPECIFIED,
            siaddr: Ipv4Addr::UNSPECIFIED,
            giaddr: packet.giaddr(),
            chaddr: packet.chaddr(),
            sname: &[],
            file: &[],
        }
    }

    /// The octets that [`Self::emit`] writes with these options.
    #[must_use]
    pub fn buffer_len(&self, options: &OptionList<'_>) -> usize {
        OPTIONS_OFFSET + options.buffer_len()
    }

    /// Writes the message to the beginning of `buffer` and returns its length. What is too long for `chaddr`, `sname` or
    /// `file` is cut to the field.
    ///
    /// # Errors
    /// [`DropReason::ReplyTooLong`] when `buffer` is too short; what it then holds is without meaning.
    pub fn emit(&self, options: &OptionList<'_>, buffer: &mut [u8]) -> Result<usize, DropReason> {
        self.emit_with(buffer, |area| options.emit(area))
    }

    /// [`Self::emit`] with options that `options` writes to the area it is given; it says how many octets they take, or
    /// nothing when they do not fit.
    ///
    /// # Errors
    /// As [`Self::emit`].
    #[inline(always)]
    pub fn emit_with(
        &self,
        buffer: &mut [u8],
        options: impl FnOnce(&mut [u8]) -> Option<usize>,
    ) -> Result<usize, DropReason> {
        let Some((fixed, area)) = buffer.split_first_chunk_mut::<OPTIONS_OFFSET>() else {
            return Err(DropReason::ReplyTooLong);
        };
        fixed.fill(0);
        fixed[field::OP] = codes::BOOTREPLY;
        fixed[field::HTYPE] = self.htype;
        fixed[field::HLEN] = self.hlen;
        fixed[field::HOPS] = self.hops;
        fixed[field::XID].copy_from_slice(&self.xid.to_be_bytes());
        fixed[field::SECS].copy_from_slice(&[0, 0]);
        fixed[field::FLAGS].copy_from_slice(&self.flags.to_be_bytes());
        fixed[field::CIADDR].copy_from_slice(&self.ciaddr.octets());
        fixed[field::YIADDR].copy_from_slice(&self.yiaddr.octets());
        fixed[field::SIADDR].copy_from_slice(&self.siaddr.octets());
        fixed[field::GIADDR].copy_from_slice(&self.giaddr.octets());
        fill(&mut fixed[field::CHADDR], self.chaddr);
        fill(&mut fixed[field::SNAME], self.sname);
        fill(&mut fixed[field::FILE], self.file);
        fixed[field::COOKIE].copy_from_slice(&MAGIC_COOKIE);
        let options_len = options(area).ok_or(DropReason::ReplyTooLong)?;
        Ok(OPTIONS_OFFSET + options_len)
    }
}

fn fill(field: &mut [u8], value: &[u8]) {
    if value.is_empty() {
        return;
    }
    // Nearly every `chaddr`: a move instead of a call.
    if let (Ok(six), Some(room)) = (<&[u8; 6]>::try_from(value), field.first_chunk_mut::<6>()) {
        *room = *six;
        return;
    }
    let len = value.len().min(field.len());
    field[..len].copy_from_slice(&value[..len]);
}

#[cfg(test)]
mod tests {
    use dhcproto::v4 as reference;
    use dhcproto::{Decodable, Decoder};
    use proptest::prelude::*;

    use super::super::dhcp4::{self, Packet};
    use super::super::option::OptionTable;
    use super::*;

    const REPLY: Reply<'_> = Reply {
        htype: 1,
        hlen: 6,
        hops: 2,
        xid: 0x0102_0304,
        flags: 0x8000,
        ciaddr: Ipv4Addr::UNSPECIFIED,
        yiaddr: Ipv4Addr::new(192, 0, 2, 15),
        siaddr: Ipv4Addr::new(192, 0, 2, 9),
        giaddr: Ipv4Addr::new(192, 0, 2, 5),
        chaddr: &[2, 0, 0, 0, 0, 1],
        sname: b"boot",
        file: b"image",
    };

    fn emitted(options: &OptionList<'_>) -> Vec<u8> {
        let mut buffer = vec![0xaa; 70_000];
        let len = REPLY.emit(options, &mut buffer).expect("room enough");
        assert_eq!(len, REPLY.buffer_len(options));
        assert_eq!(REPLY.emit(options, &mut buffer[..len]), Ok(len), "the exact room is enough");
        assert_eq!(REPLY.emit(options, &mut vec![0; len - 1]), Err(DropReason::ReplyTooLong));
        buffer.truncate(len);
        buffer
    }

    #[test]
    fn message_type_first_ascending_relay_last_end() {
        let mut options = OptionList::new();
        for (code, data) in
            [(82, &[1, 1, 7][..]), (54, &[1, 2, 3, 4]), (125, &[9]), (53, &[2]), (1, &[255; 4])]
        {
            options.push(code, data).expect("few");
        }
        let message = emitted(&options);
        assert_eq!(
            message[240..],
            [53, 1, 2, 1, 4, 255, 255, 255, 255, 54, 4, 1, 2, 3, 4, 125, 1, 9, 82, 3, 1, 1, 7, 255]
        );
    }

    #[test]
    fn an_independent_codec_reads_the_same() {
        let mut options = OptionList::new();
        options.push(53, &[5]).expect("few");
        options.push(51, &[0, 0, 14, 16]).expect("few");
        options.push(3, &[192, 0, 2, 1, 192, 0, 2, 2]).expect("few");
        options.push(12, b"host").expect("few");
        let bytes = emitted(&options);
        let message = reference::Message::decode(&mut Decoder::new(&bytes)).expect("a DHCP message");
        assert_eq!(message.opcode(), reference::Opcode::BootReply);
        assert_eq!((message.xid(), message.hops(), message.secs()), (REPLY.xid, REPLY.hops, 0));
        assert!(message.flags().broadcast());
        assert_eq!(
            (message.yiaddr(), message.siaddr(), message.giaddr()),
            (REPLY.yiaddr, REPLY.siaddr, REPLY.giaddr)
        );
        assert_eq!(message.chaddr(), REPLY.chaddr);
        let got = message.opts();
        assert_eq!(got.msg_type(), Some(reference::MessageType::Ack));
        assert_eq!(
            got.get(reference::OptionCode::AddressLeaseTime),
            Some(&reference::DhcpOption::AddressLeaseTime(3600))
        );
        assert_eq!(
            got.get(reference::OptionCode::Hostname),
            Some(&reference::DhcpOption::Hostname("host".to_owned()))
        );
        assert_eq!(
            got.get(reference::OptionCode::Router),
            Some(&reference::DhcpOption::Router(vec![
                Ipv4Addr::new(192, 0, 2, 1),
                Ipv4Addr::new(192, 0, 2, 2)
            ]))
        );
    }

    #[test]
    fn long_payloads_go_out_in_pieces_of_253() {
        let data: Vec<u8> = (0..600_u32).map(|index| u8::try_from(index % 251).expect("small")).collect();
        let mut options = OptionList::new();
        options.push(60, &data).expect("few");
        let message = emitted(&options);
        let lens: Vec<u8> = [240, 240 + 255, 240 + 510].iter().map(|at| message[at + 1]).collect();
        assert_eq!(lens, [253, 253, 94]);
        let mut table = OptionTable::new();
        dhcp4::parse(&message, &mut table).expect("our own");
        assert_eq!(table.find(&message, 60), Some(&data[..]));
    }

    #[test]
    fn options_with_sub_options_are_cut_between_them() {
        let mut data = Vec::new();
        for code in 1..=3 {
            data.extend([code, 120]);
            data.extend([code; 120]);
        }
        let mut options = OptionList::new();
        options.push(82, &data).expect("few");
        let message = emitted(&options);
        assert_eq!((message[241], message[240 + 2 + 244 + 1]), (244, 122));
        // One sub-option longer than a piece is cut where any payload is.
        let long = [&[1, 255][..], &[7; 255]].concat();
        let mut options = OptionList::new();
        options.push(82, &long).expect("few");
        assert_eq!(emitted(&options)[241], 253);
    }

    #[test]
    fn options_of_one_code_keep_their_order_and_may_be_removed() {
        let mut options = OptionList::new();
        options.push(125, &[1]).expect("few");
        options.push(3, &[0; 4]).expect("few");
        options.push(125, &[2]).expect("few");
        options.push(125, &[3]).expect("few");
        assert_eq!(options.find(125), Some(&[1][..]));
        assert_eq!(emitted(&options)[246..], [125, 1, 1, 125, 1, 2, 125, 1, 3, 255]);
        options.remove(125);
        assert!(!options.contains(125) && options.contains(3));
        assert_eq!(emitted(&options)[240..], [3, 4, 0, 0, 0, 0, 255]);
    }

    #[test]
    fn the_list_is_bounded() {
        let mut options = OptionList::new();
        for index in 0..OPTIONS_MAX {
            options.push(u8::try_from(index + 1).expect("small"), &[7]).expect("room");
        }
        assert_eq!(options.push(1, &[]), Err(Full));
        assert_eq!(emitted(&options).len(), 240 + 3 * OPTIONS_MAX + 1);
        let mut empty = OptionList::new();
        empty.push(0, &[1]).expect("left out");
        empty.push(255, &[1]).expect("left out");
        assert_eq!(emitted(&empty)[240..], [255]);
    }

    #[test]
    fn an_empty_payload_is_an_option_of_length_zero() {
        let mut options = OptionList::new();
        options.push(43, &[]).expect("few");
        assert_eq!(emitted(&options)[240..], [43, 0, 255]);
    }

    proptest! {
        #[test]
        fn what_is_emitted_parses_to_the_same(
            parts in proptest::collection::btree_map(
                130_u8..136, proptest::collection::vec(any::<u8>(), 0..400), 0..6),
            flags: u16,
            xid: u32,
        ) {
            let mut options = OptionList::new();
            for (code, data) in &parts {
                options.push(*code, data).expect("few");
            }
            let reply = Reply { flags, xid, ..REPLY };
            let mut buffer = vec![0; 4000];
            let len = reply.emit(&options, &mut buffer).expect("room enough");
            let packet = Packet::new_checked(&buffer[..len]).expect("our own");
            prop_assert_eq!((packet.flags(), packet.xid(), packet.yiaddr()), (flags, xid, REPLY.yiaddr));
            prop_assert_eq!((packet.sname(), packet.file(), packet.chaddr()), (REPLY.sname, REPLY.file, REPLY.chaddr));
            let mut table = OptionTable::new();
            let joined: usize = parts.values().map(Vec::len).filter(|len| *len > PIECE_BYTES_MAX).sum();
            prop_assume!(joined <= super::super::option::JOINED_BYTES_MAX);
            prop_assert!(dhcp4::parse(&buffer[..len], &mut table).is_ok());
            for (code, data) in &parts {
                prop_assert_eq!(table.find(&buffer[..len], *code), Some(&data[..]));
            }
        }
    }
}
