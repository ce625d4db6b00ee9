//! Framing on the unix channel: one JSON value, found by counting brackets, with comments taken out.
//!
//! Promises: octets in, verdict out, no socket and no clock; memory is bounded by [`COMMAND_BYTES_MAX`], nesting by
//! [`DEPTH_MAX`]; no octets cause a panic.

use super::command::Answer;
use super::json::DEPTH_MAX;

/// Longest command on any channel: a configuration with 100,000 reservations has a third of this.
pub const COMMAND_BYTES_MAX: usize = 64 << 20;

/// What has become of the octets so far.
#[derive(Clone, Debug, PartialEq)]
pub enum Framed {
    /// The value is not complete.
    More,
    /// A complete value, comments taken out. What follows it is ignored.
    Complete(Vec<u8>),
    /// It cannot become one; this is to be answered.
    Refused(Answer),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Plain,
    String,
    Escape,
    Slash,
    LineComment,
    BlockComment,
    BlockCommentStar,
    Ended,
}

/// Finds the end of one JSON value in octets that come in pieces.
#[derive(Clone, Debug)]
pub struct Framer {
    text: Vec<u8>,
    received_bytes: usize,
    depth: usize,
    place: Place,
    bytes_max: usize,
}

impl Default for Framer {
    fn default() -> Self {
        Self::new(COMMAND_BYTES_MAX)
    }
}

impl Framer {
    /// A framer for values of at most `bytes_max` octets.
    #[must_use]
    pub const fn new(bytes_max: usize) -> Self {
        Self { text: Vec::new(), received_bytes: 0, depth: 0, place: Place::Plain, bytes_max }
    }

    /// Octets received so far.
    #[must_use]
    pub const fn received_bytes(&self) -> usize {
        self.received_bytes
    }

    /// The answer when no more comes in time.
    #[must_use]
    pub fn timed_out(&self) -> Answer {
        let mut text = "Connection over control channel timed out".to_owned();
        if self.received_bytes > 0 {
            text.push_str(&format!(", discarded partial command of {} bytes", self.received_bytes));
        }
        Answer::error(text)
    }

    /// Takes the next octets.
    pub fn push(&mut self, octets: &[u8]) -> Framed {
        if self.place == Place::Ended {
            return Framed::More;
        }
        self.received_bytes += octets.len();
        if self.received_bytes > self.bytes_max {
            return self.refuse(format!("command longer than {} bytes", self.bytes_max));
        }
        for octet in octets.iter().copied() {
            match self.place {
                Place::String => {
                    self.text.push(octet);
                    match octet {
                        b'"' => self.place = Place::Plain,
                        b'\\' => self.place = Place::Escape,
                        _ => {}
                    }
                }
                Place::Escape => {
                    self.text.push(octet);
                    self.place = Place::String;
                }
                Place::Slash => match octet {
                    b'/' => self.place = Place::LineComment,
                    b'*' => self.place = Place::BlockComment,
                    _ => return self.refuse(format!("expected a comment after /, got {}", shown(octet))),
                },
                Place::LineComment if octet == b'\n' => {
                    // The line end stays inside the value, so that faults name the right line.
                    if self.depth > 0 {
                        self.text.push(octet);
                    }
                    self.place = Place::Plain;
                }
                Place::LineComment => {}
                Place::BlockComment | Place::BlockCommentStar => {
                    self.place = match (self.place, octet) {
                        (Place::BlockCommentStar, b'/') => Place::Plain,
                        (_, b'*') => Place::BlockCommentStar,
                        _ => Place::BlockComment,
                    };
                }
                Place::Ended => break,
                Place::Plain => {
                    if let Some(verdict) = self.plain(octet) {
                        return verdict;
                    }
                }
            }
        }
        Framed::More
    }

    fn plain(&mut self, octet: u8) -> Option<Framed> {
        match octet {
            b'#' => self.place = Place::LineComment,
            b'/' => self.place = Place::Slash,
            b'{' | b'[' => {
                if self.depth == DEPTH_MAX {
                    return Some(self.refuse(format!("nesting deeper than {DEPTH_MAX} levels")));
                }
                self.depth += 1;
                self.text.push(octet);
            }
            _ if self.depth == 0 => {
                if !octet.is_ascii_whitespace() {
                    return Some(self.refuse(format!("invalid first character {}", shown(octet))));
                }
            }
            b'}' | b']' => {
                self.text.push(octet);
                self.depth -= 1;
                if self.depth == 0 {
                    self.place = Place::Ended;
                    return Some(Framed::Complete(std::mem::take(&mut self.text)));
                }
            }
            b'"' => {
                self.text.push(octet);
                self.place = Place::String;
            }
            _ => self.text.push(octet),
        }
        None
    }

    fn refuse(&mut self, text: String) -> Framed {
        self.place = Place::Ended;
        self.text = Vec::new();
        Framed::Refused(Answer::error(text))
    }
}

fn shown(octet: u8) -> String {
    if octet.is_ascii_graphic() { char::from(octet).to_string() } else { format!("0x{octet:02x}") }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn framed(text: &str) -> Framed {
        Framer::default().push(text.as_bytes())
    }

    fn complete(text: &str) -> String {
        match framed(text) {
            Framed::Complete(text) => String::from_utf8(text).expect("UTF-8"),
            other => panic!("expected a value, got {other:?}"),
        }
    }

    #[test]
    fn the_value_ends_with_its_last_bracket_and_the_rest_is_ignored() {
        assert_eq!(complete(" \n{\"a\":[1,{}]} trailing {"), "{\"a\":[1,{}]}");
        assert_eq!(complete("[\"]\\\"}{\"]x"), "[\"]\\\"}{\"]");
        assert_eq!(framed("{\"a\":\"}"), Framed::More);
    }

    #[test]
    fn comments_are_taken_out_but_not_from_strings() {
        assert_eq!(
            complete("// c }\n{\"a\": /* { **/ 1, # x\n\"b\":\"// # /* \"}"),
            "{\"a\":  1, \n\"b\":\"// # /* \"}"
        );
    }

    #[test]
    fn what_cannot_become_a_command_is_refused_at_once() {
        let refused = |text: &str| match framed(text) {
            Framed::Refused(answer) => answer.text,
            other => panic!("expected a refusal, got {other:?}"),
        };
        assert_eq!(refused("abc"), "invalid first character a");
        assert_eq!(refused("]"), "invalid first character ]");
        assert_eq!(refused(&"[".repeat(101)), "nesting deeper than 100 levels");
        assert_eq!(refused("{ / }"), "expected a comment after /, got 0x20");
        let mut small = Framer::new(4);
        assert_eq!(small.push(b"{\"a\""), Framed::More);
        assert!(matches!(small.push(b":1}"), Framed::Refused(_)));
        assert_eq!(small.push(b"more"), Framed::More);
    }

    #[test]
    fn the_timeout_says_what_was_thrown_away() {
        let mut framer = Framer::default();
        assert_eq!(framer.timed_out().text, "Connection over control channel timed out");
        framer.push(b"{\"co");
        assert_eq!(
            framer.timed_out().text,
            "Connection over control channel timed out, discarded partial command of 4 bytes"
        );
    }

    proptest! {
        #[test]
        fn pieces_make_no_difference(
            text in r#"[ \n]{0,2}[{\[][\[\]{}"\\/*#a1:, \n]{0,40}[\]}]{0,6}"#,
            cut in 0..60_usize,
        ) {
            let whole = framed(&text);
            let cut = cut.min(text.len());
            let mut framer = Framer::default();
            let mut pieces = framer.push(&text.as_bytes()[..cut]);
            if pieces == Framed::More {
                pieces = framer.push(&text.as_bytes()[cut..]);
            }
            prop_assert_eq!(whole, pieces);
        }

        #[test]
        fn no_octets_panic_the_framer(octets in prop::collection::vec(any::<u8>(), 0..256)) {
            let mut framer = Framer::new(200);
            for octet in &octets {
                framer.push(&[*octet]);
            }
        }
    }
}
