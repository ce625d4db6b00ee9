//! What a lease keeps of its query's relay agent information (`store-extended-info`), in Kea's form.

use crate::config::plan::Settings;
use crate::wire::query::Query;
use crate::wire::relay::RelayAgent;

/// Longest context: 255 octets of relay information in hex, its two identifiers in hex again, and the keys.
pub(super) const CONTEXT_BYTES_MAX: usize = 2048;

/// Most octets of relay agent information: what one option can hold.
pub(super) const RELAY_BYTES_MAX: usize = 255;

const UPPER: &[u8; 16] = b"0123456789ABCDEF";

/// Writes the context of a lease for `query` and returns its length: what is kept already, unless the subnet stores relay
/// information and the query has some. A kept context that is too long for the buffer cannot be: the table's bound is lower.
#[inline(always)]
pub(super) fn of_query(
    settings: &Settings,
    query: &Query<'_>,
    kept: &[u8],
    out: &mut [u8; CONTEXT_BYTES_MAX],
) -> usize {
    let relay = query.relay_agent();
    if !settings.store_extended_info || relay.as_bytes().is_empty() {
        let len = kept.len().min(out.len());
        out[..len].copy_from_slice(&kept[..len]);
        return len;
    }
    let mut pen = Pen { out, len: 0, full: false };
    pen.text(b"{ \"ISC\": { \"relay-agent-info\": ");
    pen.relay(&relay);
    pen.text(b" } }");
    if pen.full { 0 } else { pen.len }
}

/// The context of a lease from a file in today's form, where it has that of Kea 2.2 and before: the relay agent information
/// as the member's value itself. Nothing for every other context. Allocates.
#[must_use]
pub fn upgraded(context: &[u8]) -> Option<Vec<u8>> {
    const OLD: &[u8] = b"\"ISC\": { \"relay-agent-info\": \"";
    let at = context.windows(OLD.len()).position(|window| window == OLD)?;
    let value = at + OLD.len();
    let end = value + context[value..].iter().position(|octet| *octet == b'"')?;
    let mut octets = [0; RELAY_BYTES_MAX];
    let len = relay_of(&context[at..], &mut octets);
    let mut new = [0; CONTEXT_BYTES_MAX];
    let mut pen = Pen { out: &mut new, len: 0, full: len == 0 };
    // The quotation mark at the end of the old beginning belongs to the value.
    pen.text(&context[..value - 1]);
    pen.relay(&RelayAgent::new(&octets[..len]));
    pen.text(&context[end + 1..]);
    (!pen.full).then(|| pen.out[..pen.len].to_vec())
}

impl Pen<'_> {
    /// The map that keeps relay agent information, its identifiers beside it.
    fn relay(&mut self, relay: &RelayAgent<'_>) {
        let pen = self;
        pen.text(b"{ ");
        if let Some(id) = relay.relay_id() {
            pen.text(b"\"relay-id\": \"");
            pen.hex(id);
            pen.text(b"\", ");
        }
        if let Some(id) = relay.remote_id() {
            pen.text(b"\"remote-id\": \"");
            pen.hex(id);
            pen.text(b"\", ");
        }
        pen.text(b"\"sub-options\": \"0x");
        pen.hex(relay.as_bytes());
        pen.text(b"\" }");
    }
}

/// Reads the relay agent information out of a lease's context, in the form above or in that of older releases, where it is
/// the member's value itself. Returns how many octets it has: none when there is none, or when it is not whole.
pub(super) fn relay_of(context: &[u8], out: &mut [u8; RELAY_BYTES_MAX]) -> usize {
    let after = |text: &[u8], from: &'_ [u8]| {
        let at = from.windows(text.len()).position(|window| window == text)?;
        Some(at + text.len())
    };
    let Some(member) = after(b"\"relay-agent-info\"", context) else { return 0 };
    let Some(digits) = after(b"\"0x", &context[member..]) else { return 0 };
    let value = &context[member + digits..];
    let nibble = |digit: u8| char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
    let mut len = 0;
    for pair in value.chunks(2) {
        match pair {
            [b'"', ..] => return len,
            [high, low] => match (nibble(*high), nibble(*low), out.get_mut(len)) {
                (Some(high), Some(low), Some(octet)) => {
                    *octet = high << 4 | low;
                    len += 1;
                }
                _ => return 0,
            },
            _ => return 0,
        }
    }
    0
}

struct Pen<'a> {
    out: &'a mut [u8; CONTEXT_BYTES_MAX],
    len: usize,
    full: bool,
}

impl Pen<'_> {
    fn text(&mut self, text: &[u8]) {
        match self.out.get_mut(self.len..self.len + text.len()) {
            Some(room) => {
                room.copy_from_slice(text);
                self.len += text.len();
            }
            None => self.full = true,
        }
    }

    fn hex(&mut self, octets: &[u8]) {
        for octet in octets {
            self.text(&[UPPER[usize::from(octet >> 4)], UPPER[usize::from(octet & 15)]]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relay_information_is_read_from_both_forms_and_from_nothing_else() {
        let mut out = [0; RELAY_BYTES_MAX];
        let new =
            br#"{ "ISC": { "relay-agent-info": { "remote-id": "6364", "sub-options": "0x0102616A" } } }"#;
        let len = relay_of(new, &mut out);
        assert_eq!(out[..len], [1, 2, b'a', b'j']);
        let old = br#"{ "ISC": { "relay-agent-info": "0x0104" } }"#;
        let len = relay_of(old, &mut out);
        assert_eq!(out[..len], [1, 4]);
        let broken: [&[u8]; 6] = [
            b"",
            br#"{ "sub-options": "0x0104" }"#,
            br#"{ "relay-agent-info": "0x010"#,
            br#"{ "relay-agent-info": "0x01g4" }"#,
            br#"{ "relay-agent-info": "0x010" }"#,
            br#"{ "relay-agent-info": "0x0104"#,
        ];
        for context in broken {
            assert_eq!(relay_of(context, &mut out), 0, "{}", String::from_utf8_lossy(context));
        }
    }

    #[test]
    fn contexts_of_older_releases_are_brought_to_the_form_of_today() {
        let text = |context: &[u8]| upgraded(context).map(|new| String::from_utf8(new).expect("text"));
        assert_eq!(
            text(br#"{ "ISC": { "relay-agent-info": "0x0102616a02026364" }, "x": 1 }"#).as_deref(),
            Some(
                r#"{ "ISC": { "relay-agent-info": { "remote-id": "6364", "sub-options": "0x0102616A02026364" } }, "x": 1 }"#
            )
        );
        let others: [&[u8]; 6] = [
            b"",
            br#"{ "ISC": { "relay-agent-info": { "sub-options": "0x0104" } } }"#,
            br#"{ "ISC": { "relay-agent-info": "0x01g4" } }"#,
            br#"{ "ISC": { "relay-agent-info": "0x" } }"#,
            br#"{ "ISC": { "relay-agent-info": "0x0104"#,
            br#"{ "relay-agent-info": "0x0104" }"#,
        ];
        for context in others {
            assert_eq!(text(context), None, "{}", String::from_utf8_lossy(context));
        }
    }

    #[test]
    fn hex_is_upper_case_without_separators_and_a_full_buffer_is_noticed() {
        let mut out = [0; CONTEXT_BYTES_MAX];
        let mut pen = Pen { out: &mut out, len: 0, full: false };
        pen.hex(&[0x0a, 0xff]);
        assert_eq!((pen.len, pen.full), (4, false));
        for _ in 0..1100 {
            pen.hex(&[1]);
        }
        assert!(pen.full);
        assert_eq!(&out[..4], b"0AFF");
    }
}
