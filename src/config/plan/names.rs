//! Host names: how they are cleaned, completed and made up (`ddns-*`, `hostname-char-*`).
//!
//! Names are dotted text in a [`NameBuffer`], which has a fixed size: what does not fit is no name. RFC 4702 has the
//! flags of the client FQDN option, RFC 1035 2.3.4 the sizes.

use std::hash::{Hash, Hasher};
use std::net::Ipv4Addr;
use std::sync::Arc;

use crate::expr::Pattern;
use crate::wire::name::{TEXT_BYTES_MAX, is_text};

/// `ddns-replace-client-name`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ReplaceName {
    /// The client's name is used.
    #[default]
    Never,
    /// A generated name, whatever the client sends.
    Always,
    /// A generated name when the client sends one.
    WhenPresent,
    /// A generated name when the client sends none.
    WhenNotPresent,
}

/// How names are made in one scope.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct NameRules {
    /// `ddns-send-updates` here and `enable-updates` for the server.
    pub updates: bool,
    /// `ddns-override-no-update`.
    pub override_no_update: bool,
    /// `ddns-override-client-update`.
    pub override_client_update: bool,
    /// `ddns-update-on-renew`.
    pub update_on_renew: bool,
    /// `ddns-replace-client-name`.
    pub replace: ReplaceName,
    /// `ddns-generated-prefix`.
    pub generated_prefix: Box<[u8]>,
    /// `ddns-qualifying-suffix` without dots at its ends; empty when there is none.
    pub suffix: Box<[u8]>,
    /// `hostname-char-set`.
    pub unwanted: CharacterSet,
    /// `hostname-char-replacement`.
    pub replacement: Box<[u8]>,
}

/// A name as text, at most [`TEXT_BYTES_MAX`] octets.
#[derive(Clone, Copy, Debug)]
pub struct NameBuffer {
    octets: [u8; TEXT_BYTES_MAX],
    len: usize,
    overflown: bool,
}

impl Default for NameBuffer {
    fn default() -> Self {
        Self { octets: [0; TEXT_BYTES_MAX], len: 0, overflown: false }
    }
}

impl NameBuffer {
    /// The name.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.octets[..self.len]
    }

    fn clear(&mut self) {
        *self = Self { octets: self.octets, ..Self::default() };
    }

    fn push(&mut self, octets: &[u8]) {
        match self.octets.get_mut(self.len..self.len + octets.len()) {
            Some(room) => {
                room.copy_from_slice(octets);
                self.len += octets.len();
            }
            None => self.overflown = true,
        }
    }

    fn push_lower(&mut self, octets: &[u8]) {
        let start = self.len;
        self.push(octets);
        self.octets[start..self.len].make_ascii_lowercase();
    }

    /// Whether all that was pushed is there and is a name.
    fn is_sound(&self) -> bool {
        !self.overflown && self.len > 0 && is_text(self.as_bytes())
    }
}

/// What to do about the name in an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameChoice {
    /// Send what is in the buffer.
    Given,
    /// Send [`NameRules::generate`]'s, once the address is known.
    Generate,
    /// Send none.
    None,
}

/// The flags of the client FQDN option that a server sets, and what it would update.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UpdateFlags {
    /// S: the server updates forward.
    pub server: bool,
    /// O: S is not what the client asked for.
    pub overridden: bool,
    /// N: the server updates nothing.
    pub none: bool,
}

impl UpdateFlags {
    /// Whether the server updates the name to the address.
    #[must_use]
    pub const fn forward(self) -> bool {
        self.server
    }

    /// Whether the server updates the address to the name.
    #[must_use]
    pub const fn reverse(self) -> bool {
        !self.none
    }
}

/// What `hostname-char-set` takes out of names. Its expression replaces matches anywhere in a label, the longest first.
#[derive(Clone, Debug)]
pub enum CharacterSet {
    /// Single octets, which most sets are: bit `octet % 64` of word `octet / 64`.
    Octets([u64; 4]),
    /// Any other expression, with its text.
    Pattern(Arc<(Box<str>, Pattern)>),
}

impl Default for CharacterSet {
    fn default() -> Self {
        Self::Octets([0; 4])
    }
}

/// Sets are equal when they are written alike.
impl PartialEq for CharacterSet {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Octets(own), Self::Octets(other)) => own == other,
            (Self::Pattern(own), Self::Pattern(other)) => own.0 == other.0,
            _ => false,
        }
    }
}

impl Eq for CharacterSet {}

impl Hash for CharacterSet {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match self {
            Self::Octets(octets) => octets.hash(state),
            Self::Pattern(pattern) => pattern.0.hash(state),
        }
    }
}

impl CharacterSet {
    /// The set that `pattern` describes; an empty one takes nothing out.
    ///
    /// # Errors
    /// What is wrong with the expression.
    pub fn new(pattern: &str) -> Result<Self, String> {
        if pattern.is_empty() {
            return Ok(Self::default());
        }
        let compiled = Pattern::new(pattern).map_err(|reason| {
            format!("hostname-char-set '{pattern}' is not a valid regular expression: {reason}")
        })?;
        if !is_character_class(pattern) {
            return Ok(Self::Pattern(Arc::new((pattern.into(), compiled))));
        }
        let mut octets = [0; 4];
        for octet in (0..=u8::MAX).filter(|octet| compiled.matches(&[*octet])) {
            octets[usize::from(octet >> 6)] |= 1 << (octet & 63);
        }
        Ok(Self::Octets(octets))
    }

    /// Appends `label` in lower case, what is in the set replaced.
    fn push_clean(&self, label: &[u8], replacement: &[u8], out: &mut NameBuffer) {
        match self {
            Self::Octets(octets) => {
                for &octet in label {
                    if octets[usize::from(octet >> 6)] >> (octet & 63) & 1 == 1 {
                        out.push_lower(replacement);
                    } else {
                        out.push_lower(&[octet]);
                    }
                }
            }
            Self::Pattern(pattern) => {
                let mut at = 0;
                while at <= label.len() {
                    let end = pattern.1.longest_from(label, at);
                    if end.is_some() {
                        out.push_lower(replacement);
                    }
                    if let Some(end) = end.filter(|end| *end > at) {
                        at = end;
                        continue;
                    }
                    // An empty match takes nothing: the octet stays.
                    out.push_lower(label.get(at..=at).unwrap_or_default());
                    at += 1;
                }
            }
        }
    }
}

/// Whether a valid expression matches single characters only: one bracket expression, one character or one escape.
fn is_character_class(pattern: &str) -> bool {
    if let Some(inside) = pattern.strip_prefix('[') {
        let members = inside.strip_prefix('^').unwrap_or(inside);
        // A bracket that closes at once is a member; so are those of classes such as [:alpha:].
        let members = members.strip_prefix(']').unwrap_or(members);
        let mut rest = members;
        while let Some(symbol) = rest.chars().next() {
            if let Some(after) = rest.strip_prefix("[:").and_then(|named| named.split_once(":]")) {
                rest = after.1;
            } else if let Some(escaped) = rest.strip_prefix('\\') {
                rest = escaped.get(escaped.chars().next().map_or(0, char::len_utf8)..).unwrap_or("");
            } else if symbol == ']' {
                return rest.len() == 1;
            } else {
                rest = &rest[symbol.len_utf8()..];
            }
        }
        return false;
    }
    let mut symbols = pattern.chars();
    match (symbols.next(), symbols.next(), symbols.next()) {
        (Some(symbol), None, None) => !"^$".contains(symbol),
        (Some('\\'), Some(symbol), None) => !"bBAz<>".contains(symbol),
        _ => false,
    }
}

impl NameRules {
    /// The flags of an answer to a client FQDN option with S and N as given.
    #[must_use]
    pub const fn update_flags(&self, client_server: bool, client_none: bool) -> UpdateFlags {
        let (server, none) = if client_none {
            let server = self.updates && self.override_no_update;
            (server, !server)
        } else if client_server {
            (self.updates, !self.updates)
        } else if self.updates {
            (self.override_client_update, false)
        } else {
            (false, true)
        };
        UpdateFlags { server, overridden: client_server != server, none }
    }

    /// The name for the FQDN option of an answer: `reserved` from a reservation (empty: none), `client` as the client
    /// sent it, as text; a trailing dot tells that it is complete.
    pub fn choose_fqdn(&self, reserved: &[u8], client: &[u8], out: &mut NameBuffer) -> NameChoice {
        out.clear();
        if !reserved.is_empty() {
            out.push_lower(reserved);
            return self.qualified(true, out);
        }
        if client.is_empty() || matches!(self.replace, ReplaceName::Always | ReplaceName::WhenPresent) {
            return NameChoice::Generate;
        }
        let complete = client.ends_with(b".");
        self.push_clean(client, out);
        if out.len == 0 {
            return NameChoice::None;
        }
        if complete {
            out.push(b".");
        }
        self.qualified(true, out)
    }

    /// Whether a client that says no name, and for which none is reserved, is given one.
    #[must_use]
    pub const fn generates_unasked(&self) -> bool {
        matches!(self.replace, ReplaceName::Always | ReplaceName::WhenNotPresent)
    }

    /// The name for the host name option of an answer: `reserved` from a reservation (empty: none), `client` as the
    /// client sent it, if it did.
    pub fn choose_hostname(
        &self,
        reserved: &[u8],
        client: Option<&[u8]>,
        out: &mut NameBuffer,
    ) -> NameChoice {
        out.clear();
        if !reserved.is_empty() {
            out.push_lower(reserved);
            return self.qualified(false, out);
        }
        let Some(client) = client else {
            return if self.generates_unasked() { NameChoice::Generate } else { NameChoice::None };
        };
        let client = client.trim_ascii();
        if client.is_empty() || !is_text(client) {
            return NameChoice::None;
        }
        if client == b"." || matches!(self.replace, ReplaceName::Always | ReplaceName::WhenPresent) {
            return NameChoice::Generate;
        }
        // The whole name at once, dots too: unlike in option 81, labels mean nothing to the expression.
        let relative = client.strip_suffix(b".").unwrap_or(client);
        if !relative.contains(&b'.') {
            self.unwanted.push_clean(relative, &self.replacement, out);
            return self.qualified(false, out);
        }
        self.unwanted.push_clean(client, &self.replacement, out);
        // A name of several labels stays as it is, the dot at its end included.
        if client.ends_with(b".") && !out.as_bytes().ends_with(b".") {
            out.push(b".");
        }
        if out.is_sound() { NameChoice::Given } else { NameChoice::None }
    }

    /// The generated name for `address`, with a trailing dot for the FQDN option and without for the host name.
    pub fn generate(&self, address: Ipv4Addr, trailing_dot: bool, out: &mut NameBuffer) -> NameChoice {
        out.clear();
        out.push_lower(&self.generated_prefix);
        for octet in address.octets() {
            out.push(b"-");
            push_decimal(octet, out);
        }
        self.qualified(trailing_dot, out)
    }

    /// Completes the name in `out` with the suffix, unless it is complete or has it already.
    fn qualified(&self, trailing_dot: bool, out: &mut NameBuffer) -> NameChoice {
        if !out.as_bytes().ends_with(b".") && !self.suffix.is_empty() && !self.has_suffix(out.as_bytes()) {
            out.push(b".");
            out.push_lower(&self.suffix);
        }
        match (trailing_dot, out.as_bytes().ends_with(b".")) {
            (true, false) => out.push(b"."),
            (false, true) => out.len -= 1,
            _ => {}
        }
        if out.is_sound() { NameChoice::Given } else { NameChoice::None }
    }

    /// Whether `name` ends with the suffix, from a label's start on.
    fn has_suffix(&self, name: &[u8]) -> bool {
        name.len().checked_sub(self.suffix.len()).is_some_and(|start| {
            name[start..].eq_ignore_ascii_case(&self.suffix) && (start == 0 || name[start - 1] == b'.')
        })
    }

    /// The labels of `name`, unwanted octets replaced, in lower case; labels of which nothing is left go.
    fn push_clean(&self, name: &[u8], out: &mut NameBuffer) {
        for label in name.split(|octet| *octet == b'.') {
            let start = out.len;
            if start > 0 {
                out.push(b".");
            }
            let before = out.len;
            self.unwanted.push_clean(label, &self.replacement, out);
            if out.len == before {
                out.len = start;
            }
        }
    }
}

fn push_decimal(octet: u8, out: &mut NameBuffer) {
    let digits = [octet / 100, octet / 10 % 10, octet % 10].map(|digit| b'0' + digit);
    let leading = usize::from(octet < 100) + usize::from(octet < 10);
    out.push(&digits[leading..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(replace: ReplaceName, suffix: &str) -> NameRules {
        NameRules {
            replace,
            generated_prefix: (*b"myhost").into(),
            suffix: suffix.as_bytes().into(),
            unwanted: CharacterSet::new("[^A-Za-z0-9.-]").expect("the default"),
            ..NameRules::default()
        }
    }

    fn fqdn(rules: &NameRules, reserved: &str, client: &str) -> (NameChoice, String) {
        let mut out = NameBuffer::default();
        let choice = rules.choose_fqdn(reserved.as_bytes(), client.as_bytes(), &mut out);
        (choice, String::from_utf8_lossy(out.as_bytes()).into_owned())
    }

    fn hostname(rules: &NameRules, reserved: &str, client: Option<&str>) -> (NameChoice, String) {
        let mut out = NameBuffer::default();
        let choice = rules.choose_hostname(reserved.as_bytes(), client.map(str::as_bytes), &mut out);
        (choice, String::from_utf8_lossy(out.as_bytes()).into_owned())
    }

    #[test]
    fn fqdn_is_reserved_name_else_cleaned_and_completed_client_name() {
        let plain = rules(ReplaceName::Never, "example.com");
        let given = |text: &str| (NameChoice::Given, text.to_owned());
        assert_eq!(fqdn(&plain, "Res.Host", "x."), given("res.host.example.com."));
        assert_eq!(fqdn(&plain, "", "Foo Bar"), given("foobar.example.com."));
        assert_eq!(fqdn(&plain, "", "a.Example.com"), given("a.example.com."));
        assert_eq!(fqdn(&plain, "", "a.notexample.com"), given("a.notexample.com.example.com."));
        assert_eq!(fqdn(&plain, "", "a.b."), given("a.b."));
        assert_eq!(fqdn(&plain, "", "").0, NameChoice::Generate);
        assert_eq!(fqdn(&plain, "", "___").0, NameChoice::None);
        assert_eq!(fqdn(&rules(ReplaceName::Always, ""), "", "a").0, NameChoice::Generate);
        assert_eq!(fqdn(&rules(ReplaceName::Never, ""), "", "a"), given("a."));
    }

    #[test]
    fn host_name_is_reserved_name_else_cleaned_client_name_and_only_one_label_is_completed() {
        let plain = rules(ReplaceName::Never, "example.com");
        let given = |text: &str| (NameChoice::Given, text.to_owned());
        assert_eq!(hostname(&plain, "Res.Host.example.com", None), given("res.host.example.com"));
        assert_eq!(hostname(&plain, "", None).0, NameChoice::None);
        assert_eq!(hostname(&plain, "", Some("foo bar")), given("foobar.example.com"));
        assert_eq!(hostname(&plain, "", Some("A.b")), given("a.b"));
        assert_eq!(hostname(&plain, "", Some("A.b.")), given("a.b."));
        assert_eq!(hostname(&plain, "", Some("a..b")).0, NameChoice::None);
        assert_eq!(hostname(&plain, "", Some(".")).0, NameChoice::Generate);
        assert_eq!(hostname(&rules(ReplaceName::WhenNotPresent, ""), "", None).0, NameChoice::Generate);
        assert_eq!(hostname(&rules(ReplaceName::WhenPresent, ""), "", None).0, NameChoice::None);
        assert_eq!(hostname(&rules(ReplaceName::WhenPresent, ""), "", Some("a")).0, NameChoice::Generate);
        assert_eq!(hostname(&rules(ReplaceName::Never, ""), "", Some("a")), given("a"));
    }

    #[test]
    fn generated_name_is_prefix_and_address() {
        let mut out = NameBuffer::default();
        let address = Ipv4Addr::new(10, 0, 115, 7);
        rules(ReplaceName::Never, "example.com").generate(address, true, &mut out);
        assert_eq!(out.as_bytes(), b"myhost-10-0-115-7.example.com.");
        rules(ReplaceName::Never, "").generate(address, false, &mut out);
        assert_eq!(out.as_bytes(), b"myhost-10-0-115-7");
    }

    #[test]
    fn update_flags_follow_the_table_of_the_rules() {
        let flags = |updates, no_update, client_update, server, none| {
            let rules = NameRules {
                updates,
                override_no_update: no_update,
                override_client_update: client_update,
                ..NameRules::default()
            };
            let flags = rules.update_flags(server, none);
            (flags.server, flags.overridden, flags.none)
        };
        assert_eq!(flags(false, true, true, true, false), (false, true, true));
        assert_eq!(flags(false, true, true, false, false), (false, false, true));
        assert_eq!(flags(true, false, false, true, false), (true, false, false));
        assert_eq!(flags(true, false, false, false, false), (false, false, false));
        assert_eq!(flags(true, false, true, false, false), (true, true, false));
        assert_eq!(flags(true, false, false, false, true), (false, false, true));
        assert_eq!(flags(true, true, false, false, true), (true, true, false));
    }

    fn cleaned(pattern: &str, replacement: &str, label: &str) -> String {
        let mut out = NameBuffer::default();
        let set = CharacterSet::new(pattern).expect(pattern);
        set.push_clean(label.as_bytes(), replacement.as_bytes(), &mut out);
        String::from_utf8_lossy(out.as_bytes()).into_owned()
    }

    #[test]
    fn a_class_of_characters_is_looked_up_per_octet() {
        for pattern in ["[^A-Za-z0-9.-]", "_", "\\s", "[^[:alnum:].-]", "[]]", ""] {
            assert!(matches!(CharacterSet::new(pattern), Ok(CharacterSet::Octets(_))), "{pattern}");
        }
        assert_eq!(cleaned("[^A-Za-z0-9.-]", "", "A b-\u{e9}"), "ab-");
        assert_eq!(cleaned("[^[:alnum:].-]", "x", "a_b"), "axb");
        assert_eq!(
            (cleaned("_", "-", "a__b"), cleaned("", "-", "a_b")),
            ("a--b".to_owned(), "a_b".to_owned())
        );
    }

    #[test]
    fn any_expression_replaces_its_longest_matches_in_a_label() {
        assert_eq!(cleaned("[^A-Za-z0-9]+", "-", "a__b_c"), "a-b-c");
        assert_eq!(cleaned("foo|fo", "X", "afofoob"), "axxb");
        assert_eq!(cleaned("^pc", "", "PCpcpc"), "pcpcpc", "letters count as they are");
        assert_eq!(
            (cleaned("^pc", "", "pcpc"), cleaned("[0-9]+$", "", "a12b34")),
            ("pc".into(), "a12b".into())
        );
        assert_eq!(cleaned("x*", "-", "abxc"), "-a-b--c-", "an empty match takes nothing");
        for pattern in ["(", "[a-z", "*"] {
            assert!(CharacterSet::new(pattern).is_err(), "{pattern}");
        }
    }

    #[test]
    fn names_of_any_octets_and_length_never_overflow() {
        let plain = rules(ReplaceName::Never, "example.com");
        for length in 0..=300 {
            for octet in [b'a', b'.', 0xff, b' '] {
                let client = vec![octet; length];
                let mut out = NameBuffer::default();
                for choice in [
                    plain.choose_fqdn(b"", &client, &mut out),
                    plain.choose_hostname(b"", Some(&client), &mut out),
                    plain.choose_hostname(&client, None, &mut out),
                ] {
                    assert!(choice != NameChoice::Given || out.as_bytes().len() <= TEXT_BYTES_MAX);
                }
            }
        }
    }
}
