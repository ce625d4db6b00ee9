//! Regular expressions of `match` and of host names' character sets, as automata that are whole before the first packet comes: a search in them allocates
//! nothing and takes one step per octet, whatever the expression.

use std::fmt;

use regex_automata::dfa::{Automaton, StartKind, dense};
use regex_automata::nfa::thompson;
use regex_automata::util::syntax;
use regex_automata::{Anchored, Input, MatchKind};

/// Most octets of one automaton.
const DFA_BYTES_MAX: usize = 1 << 20;
/// Most octets that building one may take.
const BUILD_BYTES_MAX: usize = 8 << 20;

/// A regular expression about octets, ready to search with.
#[derive(Clone)]
pub struct Pattern(Box<dense::DFA<Vec<u32>>>);

impl fmt::Debug for Pattern {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Pattern({} octets)", self.0.memory_usage())
    }
}

impl Pattern {
    /// The automaton of `expression`, which is about octets: `.` is any but a line feed.
    ///
    /// # Errors
    /// What is wrong with it, or that its automaton would be too large.
    pub fn new(expression: &str) -> Result<Self, String> {
        let config = dense::Config::new()
            .match_kind(MatchKind::All)
            .start_kind(StartKind::Anchored)
            .dfa_size_limit(Some(DFA_BYTES_MAX))
            .determinize_size_limit(Some(BUILD_BYTES_MAX));
        let dfa = dense::Builder::new()
            .configure(config)
            .syntax(syntax::Config::new().unicode(false).utf8(false).nest_limit(64))
            .thompson(thompson::Config::new().utf8(false).nfa_size_limit(Some(DFA_BYTES_MAX)))
            .build(expression)
            .map_err(|error| describe(&error))?;
        Ok(Self(Box::new(dfa)))
    }

    /// Whether the whole of `text` matches. All matches from the beginning are followed, so the longest is found, and
    /// some match is the whole exactly when the longest is.
    #[must_use]
    pub fn matches(&self, text: &[u8]) -> bool {
        let input = Input::new(text).anchored(Anchored::Yes);
        matches!(self.0.try_search_fwd(&input), Ok(Some(end)) if end.offset() == text.len())
    }

    /// Where the longest match ends that begins at `start`, as the expressions of POSIX have it.
    #[must_use]
    pub fn longest_from(&self, text: &[u8], start: usize) -> Option<usize> {
        let input = Input::new(text).range(start..).anchored(Anchored::Yes);
        self.0.try_search_fwd(&input).ok().flatten().map(|end| end.offset())
    }
}

/// The innermost cause on one line.
fn describe(error: &dense::BuildError) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    let text = cause.to_string();
    // A syntax error draws the expression with a mark below it; its last line says what is wrong.
    let line = text.lines().last().unwrap_or_default();
    line.strip_prefix("error: ").unwrap_or(line).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_string_must_match() {
        let matches = |pattern: &str, text: &[u8]| Pattern::new(pattern).expect("good").matches(text);
        assert!(matches("Aastra.*", b"Aastra 55i") && !matches("Aastra", b"Aastra 55i"));
        assert!(!matches("astra.*", b"Aastra"), "it begins at the beginning");
        assert!(matches("a|ab", b"ab") && matches("a*?", b"aaa"), "any way to match counts");
        assert!(matches("", b"") && !matches("", b"a"));
        assert!(matches("a.c", b"a\xffc") && !matches("a.c", b"a\nc"));
        assert!(matches("^a$", b"a") && matches("[[:digit:]]+\\w", b"123x"));
        assert!(matches("(?i)foo", b"FOO"));
    }

    #[test]
    fn the_longest_match_from_a_place_is_found_and_its_surroundings_count() {
        let end = |pattern: &str, text: &[u8], start| {
            Pattern::new(pattern).expect("good").longest_from(text, start)
        };
        assert_eq!(end("a|ab", b"xab", 1), Some(3));
        assert_eq!(end("ab", b"xab", 0), None);
        assert_eq!((end("^a", b"aa", 0), end("^a", b"aa", 1)), (Some(1), None));
        assert_eq!((end("a$", b"aa", 0), end("a$", b"aa", 1)), (None, Some(2)));
        assert_eq!((end("b*", b"a", 0), end("b*", b"a", 1)), (Some(0), Some(1)));
    }

    #[test]
    fn what_is_wrong_is_said_on_one_line() {
        for bad in ["(", "a)|(b", "*", "[z-a]", "(?=a)", "\\1"] {
            let reason = Pattern::new(bad).expect_err("bad");
            assert!(!reason.is_empty() && !reason.contains('\n'), "{bad}: {reason}");
        }
    }

    #[test]
    fn automata_are_bounded() {
        let reason = Pattern::new("[ab]*a[ab]{20}").expect_err("two million states");
        assert!(reason.contains("size") || reason.contains("limit"), "{reason}");
    }
}
