//! Domain names: labels on the wire (RFC 1035 3.1), dotted text, and the client FQDN option that carries either
//! (RFC 4702).
//!
//! A name is at most 255 octets on the wire and a label at most 63. Compression pointers are never followed: no option
//! that a rule reads may have them, and in lists of names they are only measured. Octets that are no letters pass unchanged: sanitising is a rule
//! of the server, not of the codec. Text has no escapes, so a dot inside a label cannot be written and is refused.

/// Most octets of a name on the wire, root label included.
pub const WIRE_BYTES_MAX: usize = 255;
/// Most octets of a name as text with its trailing dot.
pub const TEXT_BYTES_MAX: usize = 254;
/// Most octets of a label.
pub const LABEL_BYTES_MAX: usize = 63;

/// The length of the name that `bytes` begin with, its root label included; nothing when there is no whole one.
#[must_use]
pub fn wire_len(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        let len = usize::from(*bytes.get(at)?);
        at += 1 + len;
        if len > LABEL_BYTES_MAX || at > WIRE_BYTES_MAX || at > bytes.len() {
            return None;
        }
        if len == 0 {
            return Some(at);
        }
    }
}

/// The length of the name that begins at `at` in `bytes`, where a name may end with a pointer to an earlier octet of
/// `bytes` (RFC 1035 4.1.4, RFC 3397). Where the pointer leads is not looked at.
pub(super) fn wire_len_within(bytes: &[u8], at: usize) -> Option<usize> {
    let mut end = at;
    loop {
        let len = usize::from(*bytes.get(end)?);
        if len >= 0xc0 {
            let target = (len & 0x3f) << 8 | usize::from(*bytes.get(end + 1)?);
            return (target < end).then_some(end + 2 - at);
        }
        end += 1 + len;
        if len > LABEL_BYTES_MAX || end - at > WIRE_BYTES_MAX || end > bytes.len() {
            return None;
        }
        if len == 0 {
            return Some(end - at);
        }
    }
}

/// Whether `bytes` are labels: a whole name, or one without its root label (partial), or nothing.
#[must_use]
pub fn is_wire_or_partial(bytes: &[u8]) -> bool {
    Labels::new(bytes).is_sound()
}

/// Whether `bytes` are a name as text: empty, or labels of 1 to 63 octets between dots, one more dot allowed at the end.
#[must_use]
pub fn is_text(bytes: &[u8]) -> bool {
    let bare = bytes.strip_suffix(b".").unwrap_or(bytes);
    // Each label costs one octet more than its text, and the root label one.
    bytes.is_empty()
        || bytes == b"."
        || (bare.len() + 2 <= WIRE_BYTES_MAX
            && bare.split(|octet| *octet == b'.').all(|label| (1..=LABEL_BYTES_MAX).contains(&label.len())))
}

/// The labels of a name on the wire, without the root label; ends where the name or the octets end.
#[derive(Clone, Copy, Debug)]
pub struct Labels<'a> {
    rest: &'a [u8],
    used: usize,
}

impl<'a> Labels<'a> {
    /// The labels that `bytes` begin with.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, used: 0 }
    }

    /// Whether the walk ends at a root label or at the end of the octets, and not at something that is no label.
    fn is_sound(mut self) -> bool {
        while self.next().is_some() {}
        matches!(self.rest, [] | [0, ..])
    }
}

impl<'a> Iterator for Labels<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let (len, rest) = self.rest.split_first()?;
        let len = usize::from(*len);
        let used = self.used + 1 + len;
        // One octet is left for the root label.
        if len == 0 || len > LABEL_BYTES_MAX || used >= WIRE_BYTES_MAX {
            return None;
        }
        let (label, rest) = rest.split_at_checked(len)?;
        self.rest = rest;
        self.used = used;
        Some(label)
    }
}

/// The labels of the name that begins at an octet of an option and may go on at earlier ones (RFC 1035 4.1.4), without
/// the root label. Each pointer leads further back than the last, so the walk ends.
#[derive(Clone, Copy, Debug)]
pub struct LabelsWithin<'a> {
    bytes: &'a [u8],
    at: usize,
    /// Pointers must lead before this.
    bound: usize,
    used: usize,
}

impl<'a> LabelsWithin<'a> {
    /// The labels of the name at `at`.
    #[must_use]
    pub const fn new(bytes: &'a [u8], at: usize) -> Self {
        Self { bytes, at, bound: at, used: 0 }
    }

    /// How many octets the name at `at` takes there; nothing when it is cut short.
    #[must_use]
    pub fn len_at(bytes: &[u8], at: usize) -> Option<usize> {
        wire_len_within(bytes, at)
    }
}

impl<'a> Iterator for LabelsWithin<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        loop {
            let len = usize::from(*self.bytes.get(self.at)?);
            if len >= 0xc0 {
                let target = (len & 0x3f) << 8 | usize::from(*self.bytes.get(self.at + 1)?);
                if target >= self.bound {
                    return None;
                }
                (self.at, self.bound) = (target, target);
                continue;
            }
            self.used += 1 + len;
            if len == 0 || len > LABEL_BYTES_MAX || self.used >= WIRE_BYTES_MAX {
                return None;
            }
            let label = self.bytes.get(self.at + 1..self.at + 1 + len)?;
            self.at += 1 + len;
            return Some(label);
        }
    }
}

/// Why a name was not converted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameError {
    /// The labels are cut short, too long, or compressed; or the text has an empty label.
    Malformed,
    /// A label holds a dot, which text cannot say.
    DotInLabel,
    /// The name is longer than a name may be, or than the room for it.
    TooLong,
}

/// Writes the name `wire` as dotted text into `text` and returns its length. A whole name ends with a dot, a partial one
/// does not; the root alone is `.`, and nothing is nothing.
///
/// # Errors
/// When `wire` is no name or does not fit; [`TEXT_BYTES_MAX`] octets of room are always enough.
pub fn to_text(wire: &[u8], text: &mut [u8]) -> Result<usize, NameError> {
    if !is_wire_or_partial(wire) {
        return Err(NameError::Malformed);
    }
    let mut labels = Labels::new(wire);
    let mut len = 0;
    for label in labels.by_ref() {
        if label.contains(&b'.') {
            return Err(NameError::DotInLabel);
        }
        if len > 0 {
            put(text, &mut len, b".")?;
        }
        put(text, &mut len, label)?;
    }
    if !labels.rest.is_empty() {
        put(text, &mut len, b".")?;
    }
    Ok(len)
}

/// Writes the dotted name `text` as labels into `wire` and returns their length. With a trailing dot the name is whole and
/// ends with the root label; without one it is partial and does not.
///
/// # Errors
/// When `text` is no name or does not fit; [`WIRE_BYTES_MAX`] octets of room are always enough.
pub fn to_wire(text: &[u8], wire: &mut [u8]) -> Result<usize, NameError> {
    if !is_text(text) {
        return Err(if text.len() > TEXT_BYTES_MAX { NameError::TooLong } else { NameError::Malformed });
    }
    let mut len = 0;
    let whole = text.strip_suffix(b".");
    let bare = whole.unwrap_or(text);
    if !bare.is_empty() {
        for label in bare.split(|octet| *octet == b'.') {
            let octet = u8::try_from(label.len()).map_err(|_| NameError::Malformed)?;
            put(wire, &mut len, &[octet])?;
            put(wire, &mut len, label)?;
        }
    }
    if whole.is_some() {
        put(wire, &mut len, &[0])?;
    }
    Ok(len)
}

fn put(room: &mut [u8], len: &mut usize, bytes: &[u8]) -> Result<(), NameError> {
    let to = room.get_mut(*len..*len + bytes.len()).ok_or(NameError::TooLong)?;
    to.copy_from_slice(bytes);
    *len += bytes.len();
    Ok(())
}

/// The client FQDN option (RFC 4702), checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fqdn<'a> {
    flags: u8,
    domain: &'a [u8],
}

impl<'a> Fqdn<'a> {
    /// The bit that says that the server makes the forward update.
    pub const S: u8 = 0b0001;
    /// The bit that says that the server has overridden the client's wish.
    pub const O: u8 = 0b0010;
    /// The bit that says that the name stands in labels.
    pub const E: u8 = 0b0100;
    /// The bit that says that no update is made.
    pub const N: u8 = 0b1000;

    /// A view of the option's payload, or nothing when it is shorter than its flags and codes.
    #[must_use]
    pub fn new(payload: &'a [u8]) -> Option<Self> {
        let (&[flags, _, _], domain) = payload.split_first_chunk()?;
        Some(Self { flags, domain })
    }

    /// The four defined flag bits.
    #[must_use]
    pub const fn flags(&self) -> u8 {
        self.flags & 0x0f
    }

    /// Whether the client wants the server to make the forward update.
    #[must_use]
    pub const fn wants_server_update(&self) -> bool {
        self.flags & Self::S != 0
    }

    /// Whether the client wants no update at all.
    #[must_use]
    pub const fn wants_no_update(&self) -> bool {
        self.flags & Self::N != 0
    }

    /// Whether the name stands in labels; if not, it is text.
    #[must_use]
    pub const fn is_encoded(&self) -> bool {
        self.flags & Self::E != 0
    }

    /// The name as it was sent.
    #[must_use]
    pub const fn domain(&self) -> &'a [u8] {
        self.domain
    }

    /// Writes the name as dotted text and returns its length; a trailing dot says that the name is whole.
    ///
    /// # Errors
    /// As [`to_text`].
    pub fn text(&self, text: &mut [u8]) -> Result<usize, NameError> {
        if self.is_encoded() {
            return to_text(self.domain, text);
        }
        if !is_text(self.domain) {
            return Err(NameError::Malformed);
        }
        let mut len = 0;
        put(text, &mut len, self.domain)?;
        Ok(len)
    }

    /// Writes an FQDN option's payload: `flags` (whose E bit chooses the encoding), both codes 255 (RFC 4702 2.2), and
    /// the dotted name `text`; returns its length.
    ///
    /// # Errors
    /// As [`to_wire`]; 3 + [`WIRE_BYTES_MAX`] octets of room are always enough.
    pub fn emit(flags: u8, text: &[u8], payload: &mut [u8]) -> Result<usize, NameError> {
        let mut len = 0;
        put(payload, &mut len, &[flags & 0x0f, 255, 255])?;
        if flags & Self::E != 0 {
            let room = payload.get_mut(len..).unwrap_or(&mut []);
            return Ok(len + to_wire(text, room)?);
        }
        if !is_text(text) {
            return Err(NameError::Malformed);
        }
        put(payload, &mut len, text)?;
        Ok(len)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text_of(wire: &[u8]) -> Result<Vec<u8>, NameError> {
        let mut text = [0; TEXT_BYTES_MAX];
        to_text(wire, &mut text).map(|len| text[..len].to_vec())
    }

    fn wire_of(text: &[u8]) -> Result<Vec<u8>, NameError> {
        let mut wire = [0; WIRE_BYTES_MAX];
        to_wire(text, &mut wire).map(|len| wire[..len].to_vec())
    }

    #[test]
    fn whole_names_end_with_a_dot_and_partial_ones_do_not() {
        assert_eq!(text_of(b"\x03foo\x03bar\0"), Ok(b"foo.bar.".to_vec()));
        assert_eq!(text_of(b"\x03foo"), Ok(b"foo".to_vec()));
        assert_eq!(text_of(b"\0"), Ok(b".".to_vec()));
        assert_eq!(text_of(b""), Ok(Vec::new()));
        assert_eq!(wire_of(b"foo.bar."), Ok(b"\x03foo\x03bar\0".to_vec()));
        assert_eq!(wire_of(b"foo"), Ok(b"\x03foo".to_vec()));
        assert_eq!(wire_of(b"."), Ok(b"\0".to_vec()));
    }

    #[test]
    fn what_is_no_name_is_refused() {
        assert_eq!(text_of(b"\x04foo"), Err(NameError::Malformed));
        assert_eq!(text_of(b"\xc0\x0c"), Err(NameError::Malformed), "a pointer");
        assert_eq!(text_of(b"\x03f.o\0"), Err(NameError::DotInLabel));
        assert_eq!(wire_of(b"a..b"), Err(NameError::Malformed));
        assert_eq!(wire_of(b".a"), Err(NameError::Malformed));
        assert_eq!(wire_of(&[b'a'; 64]), Err(NameError::Malformed));
        assert_eq!(wire_of(&[b'a'; 300]), Err(NameError::TooLong));
        assert_eq!(to_text(b"\x03foo\0", &mut [0; 3]), Err(NameError::TooLong));
    }

    #[test]
    fn the_longest_name_fits_and_a_longer_one_does_not() {
        let mut wire = Vec::new();
        for len in [63, 63, 63, 61] {
            wire.push(len);
            wire.extend(vec![b'a'; usize::from(len)]);
        }
        wire.push(0);
        assert_eq!((wire.len(), wire_len(&wire)), (WIRE_BYTES_MAX, Some(WIRE_BYTES_MAX)));
        let text = text_of(&wire).expect("255 octets are legal");
        assert_eq!(text.len(), TEXT_BYTES_MAX);
        assert_eq!(wire_of(&text), Ok(wire.clone()));
        wire[192] = 62;
        wire.push(0);
        assert_eq!(wire_len(&wire), None);
        assert_eq!(text_of(&wire), Err(NameError::Malformed));
    }

    #[test]
    fn fqdn_option_is_read_and_written_in_both_encodings() {
        let payload = [Fqdn::S | Fqdn::E, 0, 0, 3, b'f', b'o', b'o', 0];
        let fqdn = Fqdn::new(&payload).expect("long enough");
        assert!(fqdn.wants_server_update() && fqdn.is_encoded() && !fqdn.wants_no_update());
        let mut text = [0; TEXT_BYTES_MAX];
        let len = fqdn.text(&mut text).expect("a name");
        assert_eq!(&text[..len], b"foo.");
        let mut out = [0; 64];
        let len = Fqdn::emit(fqdn.flags(), b"foo.", &mut out).expect("a name");
        assert_eq!(&out[..len], [5, 255, 255, 3, b'f', b'o', b'o', 0]);
        let len = Fqdn::emit(Fqdn::S, b"foo.", &mut out).expect("a name");
        assert_eq!(&out[..len], [1, 255, 255, b'f', b'o', b'o', b'.']);
        assert!(Fqdn::new(&[0, 0]).is_none());
    }

    proptest! {
        #[test]
        fn names_survive_both_ways(labels in proptest::collection::vec("[a-z0-9-]{1,20}", 0..8), whole: bool) {
            let mut text = labels.join(".");
            if whole {
                text.push('.');
            }
            let wire = wire_of(text.as_bytes()).expect("legal");
            prop_assert_eq!(text_of(&wire).expect("legal"), text.as_bytes());
        }

        #[test]
        fn codecs_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), room in 0_usize..300) {
            let mut out = vec![0; room];
            let _ = to_text(&bytes, &mut out);
            let _ = to_wire(&bytes, &mut out);
            let _ = Fqdn::emit(bytes.first().copied().unwrap_or(0), &bytes, &mut out);
            if let Some(fqdn) = Fqdn::new(&bytes) {
                let _ = fqdn.text(&mut out);
            }
            prop_assert_eq!(wire_len(&bytes).is_some_and(|len| len > bytes.len()), false);
        }
    }
}
