//! What a lease keeps of its query's relay agent information (`store-extended-info`), in Kea's form.

use crate::config::plan::Settings;
use crate::wire::query::Query;

/// Longest context: 255 octets of relay information in hex, its two identifiers in hex again, and the keys.
pub(super) const CONTEXT_BYTES_MAX: usize = 2048;

const UPPER: &[u8; 16] = b"0123456789ABCDEF";

/// Writes the context of a lease for `query` and returns its length: what is kept already, unless the subnet stores relay
/// information and the query has some. A kept context that is too long for the buffer cannot be: the table's bound is lower.
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
    pen.text(b"{ \"ISC\": { \"relay-agent-info\": { ");
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
    pen.text(b"\" } } }");
    if pen.full { 0 } else { pen.len }
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
