//! Encoded options that are used again: most replies of one server differ from the one before in a handful of octets.
//!
//! [`OptionTemplate::learn`] takes the options of a reply that was written the long way and remembers them without what belongs
//! to one client; [`OptionTemplate::emit`] writes them again with what belongs to another. Both keep the order of
//! [`super::reply`]: message type, ascending codes, relay agent information, END.
//!
//! Promises: neither allocates; a template is plain memory of a fixed size.

use super::codes::option;
use super::reply::PIECE_BYTES_MAX;

/// Octets of options that a template holds; longer ones are not remembered.
pub const TEMPLATE_BYTES_MAX: usize = 424;

/// Octets of a header: code and length.
const HEADER_BYTES: usize = 2;

/// What differs between two replies of one template.
#[derive(Clone, Copy, Debug)]
pub struct Varying<'a> {
    /// Option 54.
    pub server_id: [u8; 4],
    /// Option 51, seconds; nothing when the reply has none.
    pub lease_time_s: Option<u32>,
    /// Option 58, seconds.
    pub renewal_s: Option<u32>,
    /// Option 59, seconds.
    pub rebinding_s: Option<u32>,
    /// Option 12; empty when the reply has none of its client's.
    pub host_name: &'a [u8],
    /// Option 61; empty for none.
    pub client_id: &'a [u8],
    /// Option 81; empty for none.
    pub fqdn: &'a [u8],
    /// Option 82; empty for none.
    pub relay: &'a [u8],
}

impl Varying<'_> {
    /// Whether each of them is one option on the wire: a longer one goes out in pieces, which a template cannot do.
    #[must_use]
    pub fn is_in_one_piece(&self) -> bool {
        let longest =
            self.host_name.len().max(self.client_id.len()).max(self.fqdn.len()).max(self.relay.len());
        longest <= PIECE_BYTES_MAX
    }

    /// Which of them are there: two replies of one template agree in this.
    #[must_use]
    pub fn presence(&self) -> u8 {
        u8::from(self.lease_time_s.is_some())
            | u8::from(self.renewal_s.is_some()) << 1
            | u8::from(self.rebinding_s.is_some()) << 2
            | u8::from(!self.host_name.is_empty()) << 3
            | u8::from(!self.client_id.is_empty()) << 4
            | u8::from(!self.fqdn.is_empty()) << 5
            | u8::from(!self.relay.is_empty()) << 6
    }

    /// Those that have no fixed length, in the order of their codes.
    const fn inserted(&self) -> [(u8, &[u8]); INSERTED] {
        [
            (option::HOST_NAME, self.host_name),
            (option::CLIENT_ID, self.client_id),
            (option::FQDN, self.fqdn),
            (option::AGENT_OPTIONS, self.relay),
        ]
    }
}

const INSERTED: usize = 4;

/// The options of a reply without what belongs to one client. Without meaning until [`Self::learn`] has said yes.
///
/// ```text
/// bytes      the options that stay, as they are sent, without END
/// inserts    where each of those that were left out belongs
/// patches    where the contents of 54, 51, 58 and 59 stand; 0 for an option that is not there
/// ```
#[derive(Clone, Debug)]
#[repr(C, align(8))]
pub struct OptionTemplate {
    len: u16,
    inserts: [u16; INSERTED],
    patches: [u16; 4],
    bytes: [u8; TEMPLATE_BYTES_MAX],
}

impl OptionTemplate {
    /// A template of nothing.
    pub const EMPTY: Self =
        Self { len: 0, inserts: [0; INSERTED], patches: [0; 4], bytes: [0; TEMPLATE_BYTES_MAX] };

    /// Remembers `options`, the encoded options of a reply with these contents. False when they are too many.
    pub fn learn(&mut self, options: &[u8], varying: &Varying<'_>) -> bool {
        let left_out = varying.inserted().map(|(code, data)| (code, !data.is_empty()));
        let mut len = 0;
        let mut rest = options;
        self.inserts = [u16::MAX; INSERTED];
        self.patches = [0; 4];
        while let Some((&[code, data_len], _)) = rest.split_first_chunk::<HEADER_BYTES>() {
            if code == option::END {
                break;
            }
            let Some((whole, after)) = rest.split_at_checked(HEADER_BYTES + usize::from(data_len)) else {
                return false;
            };
            rest = after;
            let here = u16::try_from(len).unwrap_or(u16::MAX);
            // The message type stands first whatever its code is, relay agent information last.
            if code != option::MESSAGE_TYPE {
                for (place, (inserted, _)) in self.inserts.iter_mut().zip(left_out) {
                    if inserted != option::AGENT_OPTIONS && code >= inserted && *place == u16::MAX {
                        *place = here;
                    }
                }
            }
            if left_out.contains(&(code, true)) {
                continue;
            }
            let Some(room) = self.bytes.get_mut(len..len + whole.len()) else { return false };
            room.copy_from_slice(whole);
            let content = u16::try_from(len + HEADER_BYTES).unwrap_or(u16::MAX);
            match code {
                option::SERVER_ID => self.patches[0] = content,
                option::LEASE_TIME => self.patches[1] = content,
                option::RENEWAL_TIME => self.patches[2] = content,
                option::REBINDING_TIME => self.patches[3] = content,
                _ => {}
            }
            len += whole.len();
        }
        self.len = u16::try_from(len).unwrap_or(u16::MAX);
        for place in &mut self.inserts {
            *place = (*place).min(self.len);
        }
        true
    }

    /// Writes the options and END for another reply, whose contents are present in the same way as when this was learnt.
    /// Returns how many octets that were; nothing when `area` is too short.
    #[must_use]
    #[inline(always)]
    pub fn emit(&self, varying: &Varying<'_>, area: &mut [u8]) -> Option<usize> {
        let (mut at, mut from) = (0, 0);
        for ((code, data), place) in varying.inserted().iter().zip(&self.inserts) {
            if data.is_empty() {
                continue;
            }
            let place = usize::from(*place);
            at = self.copy(area, at, from, place)?;
            from = place;
            let header = area.get_mut(at..)?.first_chunk_mut::<HEADER_BYTES>()?;
            *header = [*code, u8::try_from(data.len()).ok()?];
            at = copy(area, at + HEADER_BYTES, data)?;
        }
        at = self.copy(area, at, from, usize::from(self.len))?;
        *area.get_mut(at)? = option::END;

        // Of what is inserted only the host name stands before them (12 < 51, 54, 58, 59 < 61).
        let name = varying.host_name.len();
        let shift = if name == 0 { 0 } else { HEADER_BYTES + name };
        let [server_id, lease_time, renewal, rebinding] = self.patches;
        let mut patch = |place: u16, value: [u8; 4]| {
            if place != 0 {
                *area.get_mut(usize::from(place) + shift..)?.first_chunk_mut()? = value;
            }
            Some(())
        };
        patch(server_id, varying.server_id)?;
        for (place, time_s) in [
            (lease_time, varying.lease_time_s),
            (renewal, varying.renewal_s),
            (rebinding, varying.rebinding_s),
        ] {
            if let Some(time_s) = time_s {
                patch(place, time_s.to_be_bytes())?;
            }
        }
        Some(at + 1)
    }

    /// Puts `patches`, which were made against this template, into options that [`Self::emit`] has just written with `varying`.
    /// Nothing when `area` is too short.
    #[must_use]
    #[inline(always)]
    pub fn patch(&self, patches: &Patches, varying: &Varying<'_>, area: &mut [u8]) -> Option<()> {
        for (place, word) in patches.places.iter().zip(&patches.words).take(usize::from(patches.count)) {
            let before = varying.inserted().into_iter().zip(self.inserts);
            let shift: usize = before
                .filter(|((_, data), insert)| !data.is_empty() && *insert <= u16::from(*place))
                .map(|((_, data), _)| HEADER_BYTES + data.len())
                .sum();
            *area.get_mut(usize::from(*place) + shift..)?.first_chunk_mut()? = *word;
        }
        Some(())
    }

    /// Copies the octets from `from` to `to` to `at` and says where they end.
    #[inline(always)]
    fn copy(&self, area: &mut [u8], at: usize, from: usize, to: usize) -> Option<usize> {
        let len = to.checked_sub(from)?;
        let end = at + len;
        if len == 0 {
            // Not even looked at: it would be one more line of memory.
            return Some(at);
        }
        if end > area.len() {
            return None;
        }
        // A few moves instead of a call; what they write behind the end is written over or left out.
        if len <= BLOCK_BYTES
            && let Some(block) = self.bytes.get(from..)?.first_chunk::<BLOCK_BYTES>()
            && let Some(room) = area.get_mut(at..)?.first_chunk_mut::<BLOCK_BYTES>()
        {
            *room = *block;
            return Some(end);
        }
        copy(area, at, self.bytes.get(from..to)?)
    }
}

/// Most words in which two templates may differ.
const PATCHES_MAX: usize = 7;

/// What one template has otherwise than another one: a few addresses, as two subnets have different routers and nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patches {
    count: u8,
    /// Where each word stands among the octets of the template.
    places: [u8; PATCHES_MAX],
    words: [[u8; WORD_BYTES]; PATCHES_MAX],
}

/// Octets of an address, which is what differs.
const WORD_BYTES: usize = 4;

impl Patches {
    /// What makes `other` of `base`; nothing when they differ by more than whole words within equally long options, or by too many.
    #[must_use]
    pub fn between(base: &OptionTemplate, other: &OptionTemplate) -> Option<Self> {
        if (base.len, base.inserts, base.patches) != (other.len, other.inserts, other.patches) {
            return None;
        }
        let mut own = Self { count: 0, places: [0; PATCHES_MAX], words: [[0; WORD_BYTES]; PATCHES_MAX] };
        let (mut at, len) = (0, usize::from(base.len));
        while at < len {
            let (header, other_header) =
                (base.bytes.get(at..at + HEADER_BYTES)?, other.bytes.get(at..at + HEADER_BYTES)?);
            if header != other_header {
                return None;
            }
            let (content, end) = (at + HEADER_BYTES, at + HEADER_BYTES + usize::from(header[1]));
            let (ours, theirs) = (base.bytes.get(content..end)?, other.bytes.get(content..end)?);
            // What belongs to one client is put in anyway.
            if !base.patches.iter().any(|place| usize::from(*place) == content) {
                own.add(content, ours, theirs)?;
            }
            at = end;
        }
        Some(own)
    }

    /// Adds the words of an option's content at `place` that are not the same.
    fn add(&mut self, place: usize, base: &[u8], other: &[u8]) -> Option<()> {
        let ((words, rest), (other_words, other_rest)) =
            (base.as_chunks::<WORD_BYTES>(), other.as_chunks::<WORD_BYTES>());
        if rest != other_rest {
            return None;
        }
        for (number, (word, other_word)) in words.iter().zip(other_words).enumerate() {
            if word != other_word {
                let position = usize::from(self.count);
                *self.places.get_mut(position)? = u8::try_from(place + number * WORD_BYTES).ok()?;
                *self.words.get_mut(position)? = *other_word;
                self.count += 1;
            }
        }
        Some(())
    }
}

/// Octets that are copied at once: as many as most answers have options.
const BLOCK_BYTES: usize = 64;

/// Copies `data` to `at` and says where it ends.
#[inline(always)]
fn copy(area: &mut [u8], at: usize, data: &[u8]) -> Option<usize> {
    let end = at + data.len();
    let room = area.get_mut(at..end)?;
    // Nearly every client identifier: two moves that overlap instead of a call.
    if let (Some(head), Some(tail), true) = (data.first_chunk::<4>(), data.last_chunk::<4>(), data.len() <= 8)
    {
        *room.first_chunk_mut()? = *head;
        *room.last_chunk_mut()? = *tail;
    } else {
        room.copy_from_slice(data);
    }
    Some(end)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::super::reply::{OptionList, Reply};
    use super::*;

    const NOBODY: Varying<'static> = Varying {
        server_id: [0; 4],
        lease_time_s: None,
        renewal_s: None,
        rebinding_s: None,
        host_name: &[],
        client_id: &[],
        fqdn: &[],
        relay: &[],
    };

    /// The options as a reply writes them.
    fn written(varying: &Varying<'_>, fixed: &[(u8, Vec<u8>)]) -> Vec<u8> {
        let times = [
            (option::LEASE_TIME, varying.lease_time_s),
            (option::RENEWAL_TIME, varying.renewal_s),
            (option::REBINDING_TIME, varying.rebinding_s),
        ]
        .map(|(code, time)| (code, time.map(u32::to_be_bytes)));
        let mut list = OptionList::new();
        list.push(option::MESSAGE_TYPE, &[5]).expect("few");
        list.push(option::SERVER_ID, &varying.server_id).expect("few");
        for (code, time) in &times {
            if let Some(time) = time {
                list.push(*code, time).expect("few");
            }
        }
        for (code, data) in varying.inserted() {
            if !data.is_empty() {
                list.push(code, data).expect("few");
            }
        }
        for (code, data) in fixed {
            list.push(*code, data).expect("few");
        }
        let reply = Reply {
            htype: 1,
            hlen: 6,
            hops: 0,
            xid: 0,
            flags: 0,
            ciaddr: [0; 4].into(),
            yiaddr: [0; 4].into(),
            siaddr: [0; 4].into(),
            giaddr: [0; 4].into(),
            chaddr: &[],
            sname: &[],
            file: &[],
        };
        let mut buffer = vec![0; 4096];
        let len = reply.emit(&list, &mut buffer).expect("room");
        buffer[240..len].to_vec()
    }

    /// Contents of one client, with the same ones present as in `like`.
    fn varied<'a>(like: &Varying<'_>, texts: &'a [Vec<u8>; 4], number: u32) -> Varying<'a> {
        let text = |at: usize, there: bool| if there { &texts[at][..] } else { &[] };
        Varying {
            server_id: number.to_be_bytes(),
            lease_time_s: like.lease_time_s.map(|_| number),
            renewal_s: like.renewal_s.map(|_| number / 2),
            rebinding_s: like.rebinding_s.map(|_| number / 4),
            host_name: text(0, !like.host_name.is_empty()),
            client_id: text(1, !like.client_id.is_empty()),
            fqdn: text(2, !like.fqdn.is_empty()),
            relay: text(3, !like.relay.is_empty()),
        }
    }

    fn text() -> impl Strategy<Value = Vec<u8>> {
        proptest::collection::vec(any::<u8>(), 1..60)
    }

    /// Codes of options that a configuration has: neither varying nor fixed.
    fn configured_codes() -> impl Strategy<Value = BTreeSet<u8>> {
        let is_configured = |code: &u8| ![12, 51, 53, 54, 58, 59, 61, 81, 82].contains(code);
        proptest::collection::btree_set(
            (1_u8..=254).prop_filter("neither varying nor fixed", is_configured),
            0..12,
        )
    }

    /// Which of the varying options are there.
    fn present(there: [bool; 7]) -> Varying<'static> {
        let data = |is_there: bool| -> &'static [u8] { if is_there { &[1] } else { &[] } };
        Varying {
            lease_time_s: there[0].then_some(1),
            renewal_s: there[1].then_some(1),
            rebinding_s: there[2].then_some(1),
            host_name: data(there[3]),
            client_id: data(there[4]),
            fqdn: data(there[5]),
            relay: data(there[6]),
            ..NOBODY
        }
    }

    proptest! {
        #[test]
        fn what_a_template_writes_is_what_the_list_writes(
            codes in configured_codes(),
            data in text(),
            first in [text(), text(), text(), text()],
            second in [text(), text(), text(), text()],
            there in any::<[bool; 7]>(),
            numbers in any::<[u32; 2]>(),
        ) {
            let fixed: Vec<_> = codes.into_iter().map(|code| (code, data[..data.len().min(20)].to_vec())).collect();
            let like = present(there);
            let learnt_from = varied(&like, &first, numbers[0]);
            let mut template = OptionTemplate::EMPTY;
            prop_assert!(template.learn(&written(&learnt_from, &fixed), &learnt_from));
            for varying in [learnt_from, varied(&like, &second, numbers[1])] {
                prop_assert_eq!(varying.presence(), like.presence());
                let expected = written(&varying, &fixed);
                let mut area = vec![0xaa; expected.len()];
                prop_assert_eq!(template.emit(&varying, &mut area), Some(expected.len()));
                prop_assert_eq!(&area, &expected);
                area.pop();
                prop_assert_eq!(template.emit(&varying, &mut area), None);
            }
        }
    }

    proptest! {
        #[test]
        fn a_patched_template_writes_what_the_other_one_does(
            codes in configured_codes(),
            words in 1_usize..5,
            changed in proptest::collection::vec(any::<Option<[u8; 2]>>(), 12),
            texts in [text(), text(), text(), text()],
            there in any::<[bool; 7]>(),
            number in any::<u32>(),
        ) {
            let like = present(there);
            let base: Vec<_> = codes.iter().map(|code| (*code, vec![7; words * 4])).collect();
            let mut other = base.clone();
            let mut words_changed = 0;
            for ((_, data), change) in other.iter_mut().zip(&changed) {
                if let Some([place, octet]) = change {
                    let place = usize::from(*place) % data.len();
                    words_changed += usize::from(*octet != 7);
                    data[place] = *octet;
                }
            }
            let (mut first, mut second) = (OptionTemplate::EMPTY, OptionTemplate::EMPTY);
            prop_assert!(first.learn(&written(&varied(&like, &texts, 1), &base), &varied(&like, &texts, 1)));
            let learnt_from = varied(&like, &texts, number);
            prop_assert!(second.learn(&written(&learnt_from, &other), &learnt_from));
            let patches = Patches::between(&first, &second);
            prop_assert_eq!(patches.is_some(), words_changed <= PATCHES_MAX);
            if let Some(patches) = patches {
                let expected = written(&learnt_from, &other);
                let mut area = vec![0xaa; expected.len()];
                prop_assert_eq!(first.emit(&learnt_from, &mut area), Some(expected.len()));
                prop_assert_eq!(first.patch(&patches, &learnt_from, &mut area), Some(()));
                prop_assert_eq!(area, expected);
            }
        }
    }

    #[test]
    fn templates_of_other_lengths_or_texts_have_no_patches() {
        let learnt = |fixed: &[(u8, Vec<u8>)]| {
            let mut template = OptionTemplate::EMPTY;
            assert!(template.learn(&written(&NOBODY, fixed), &NOBODY));
            template
        };
        let base = learnt(&[(3, vec![1; 4]), (15, b"one.example".to_vec())]);
        for other in [
            vec![(3, vec![1; 8]), (15, b"one.example".to_vec())],
            vec![(3, vec![1; 4]), (15, b"one.exampl_".to_vec())],
            vec![(4, vec![1; 4]), (15, b"one.example".to_vec())],
            vec![(3, vec![1; 4])],
        ] {
            assert_eq!(Patches::between(&base, &learnt(&other)), None, "{other:?}");
        }
    }

    #[test]
    fn what_does_not_fit_is_not_learnt() {
        let fixed: Vec<_> = (100..103).map(|code| (code, vec![7; 200])).collect();
        let mut template = OptionTemplate::EMPTY;
        assert!(!template.learn(&written(&NOBODY, &fixed), &NOBODY));
        assert!(template.learn(&written(&NOBODY, &fixed[..2]), &NOBODY));
    }
}
