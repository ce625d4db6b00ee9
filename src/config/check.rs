//! Every member of every map against the tables of `schema`: unknown, repeated, missing and mistyped members,
//! numbers out of range, words that are none.

use std::collections::HashMap;

use super::finding::{Report, Style};
use super::json::{Data, Map, Member, Span, Value};
use super::schema::{Acts, Context, Key, Shape, Stock};

/// Where a value came from: Kea finds the same faults in both and words them differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    /// A file: the grammar complains.
    File,
    /// The control API: the meaning of values complains.
    Wire,
}

/// Longest unknown key for which a near one is sought.
const SUGGEST_BYTES_MAX: usize = 64;
/// Most unknown keys for which a near one is sought: a request full of nonsense must not keep anybody busy.
const SUGGESTIONS_MAX: usize = 100;

/// Checks whole blocks; what was warned about once is not warned about again.
pub(super) struct Checker<'r> {
    /// Where findings go.
    pub(super) report: &'r mut Report,
    dialect: Dialect,
    warned: Vec<&'static str>,
    /// For how many more unknown keys a near one is sought.
    suggestions: usize,
}

impl<'r> Checker<'r> {
    /// A checker for values of `dialect`.
    pub(super) const fn new(report: &'r mut Report, dialect: Dialect) -> Self {
        Self { report, dialect, warned: Vec::new(), suggestions: SUGGESTIONS_MAX }
    }

    /// Checks the value of a member against `context`, all the way down.
    pub(super) fn block(&mut self, member: &Member, context: &'static Context) {
        self.expect_map(&member.value, member.key_at, &member.key, context);
    }

    fn expect_map(&mut self, value: &Value, place: Span, name: &str, context: &'static Context) {
        match &value.data {
            Data::Map(map) => self.map(map, value.at, place, context),
            _ => self.mistyped(name, value, "{"),
        }
    }

    fn map(&mut self, map: &Map, at: Span, place: Span, context: &'static Context) {
        let members = map.members();
        if members.is_empty() && context.not_empty && self.dialect == Dialect::File {
            let close = Span {
                line: at.last_line,
                column: at.last_column,
                last_line: at.last_line,
                last_column: at.last_column,
                ..at
            };
            let what =
                format!("syntax error, unexpected }}: the {} map needs at least one member", context.name);
            self.report.error(close, Style::Grammar, what);
            return;
        }
        self.repeated(map, context.name);
        let mut meant = Vec::new();
        for member in members {
            match context.key(&member.key) {
                Some(key) => self.member(member, key),
                None if context.open => {}
                None => meant.extend(self.unknown(member, context)),
            }
        }
        for name in context.mandatory {
            // A key with a letter wrong is one fault, not two.
            if map.find(name).is_none() && !meant.contains(name) {
                let text = if self.dialect == Dialect::File {
                    let Span { line, column, last_line, last_column, .. } = at;
                    let file = self.report.files.name(at.file);
                    format!(
                        "missing parameter '{name}' ({}) [{} map between {file}:{line}:{column} and \
                         {file}:{last_line}:{last_column}]",
                        self.report.place(place),
                        context.name,
                    )
                } else {
                    format!("missing parameter '{name}' ({})", self.report.place(place))
                };
                self.report.error(place, Style::Bare, text);
            }
        }
    }

    /// Reports members whose key came before.
    fn repeated(&mut self, map: &Map, name: &str) {
        let members = map.members();
        let mut seen: HashMap<&str, &Member> = HashMap::new();
        for (index, member) in members.iter().enumerate() {
            // Maps are small as a rule: a hash map pays for the big ones only.
            let before = if members.len() > 16 {
                match seen.get(member.key.as_str()) {
                    Some(before) => Some(*before),
                    None => {
                        seen.insert(&member.key, member);
                        None
                    }
                }
            } else {
                members[..index].iter().find(|before| before.key == member.key)
            };
            if let Some(before) = before {
                let key = &member.key;
                let (style, text) = if key == "comment" || key == "user-context" {
                    let place = self.report.place(before.key_at);
                    (Style::Grammar, format!("duplicate user-context/comment entries (previous at {place})"))
                } else {
                    let place = self.report.place(before.place());
                    let text = format!("duplicate {key} entries in {name} map (previous at {place})");
                    (Style::Element, text)
                };
                self.report.error(member.key_at, style, text);
            }
        }
    }

    /// Reports a key that is none of `context`; the one it was probably meant to be is returned.
    fn unknown(&mut self, member: &Member, context: &Context) -> Option<&'static str> {
        let key = &member.key;
        let (style, mut text) = match self.dialect {
            Dialect::File => {
                (Style::Grammar, format!("got unexpected keyword \"{key}\" in {} map", context.name))
            }
            Dialect::Wire if context.name == "Dhcp4" => {
                (Style::After, format!("unsupported global configuration parameter: {key}"))
            }
            Dialect::Wire => (Style::After, format!("spurious '{key}' parameter")),
        };
        let known = context.keys.iter().flat_map(|group| group.iter()).map(|key| key.name);
        let near = if self.suggestions > 0 { nearest(key, known) } else { None };
        self.suggestions = self.suggestions.saturating_sub(1);
        match near {
            Some(near) => text.push_str(&format!("; did you mean \"{near}\"?")),
            None if self.dialect == Dialect::File => text.push('.'),
            None => {}
        }
        let at = if self.dialect == Dialect::File { member.key_at } else { member.value.at };
        self.report.error(at, style, text);
        near
    }

    fn member(&mut self, member: &Member, key: &'static Key) {
        let value = &member.value;
        match (&key.shape, &value.data) {
            (Shape::Integer(low, high), Data::Integer(number)) => {
                if number < low || number > high {
                    let text =
                        format!("out of range value ({number}) specified for parameter '{}'", key.name);
                    self.report.error(value.at, Style::After, text);
                }
            }
            (Shape::Bool, Data::Bool(_))
            | (Shape::Double, Data::Double(_))
            | (Shape::Text, Data::Text(_))
            | (Shape::Any, _) => {}
            // Whoever speaks JSON to the API may not know that 1 and 1.0 differ.
            (Shape::Double, Data::Integer(_)) if self.dialect == Dialect::Wire => {}
            (Shape::Word(words), Data::Text(text)) => {
                if !words.contains(&text.as_str()) {
                    self.not_a_word(key.name, value, words);
                }
            }
            (Shape::Texts, Data::List(elements)) => {
                for element in elements {
                    if !matches!(element.data, Data::Text(_)) {
                        self.mistyped(key.name, element, "constant string");
                    }
                }
            }
            (Shape::Map(context), _) => self.expect_map(value, member.key_at, key.name, context),
            (Shape::Maps(context), Data::List(elements)) => {
                for element in elements {
                    self.expect_map(element, element.at, key.name, context);
                }
            }
            (Shape::Free, Data::Map(_)) => self.free(value),
            (Shape::Integer(..), _) => self.mistyped(key.name, value, "integer"),
            (Shape::Bool, _) => self.mistyped(key.name, value, "boolean"),
            (Shape::Double, _) => self.mistyped(key.name, value, "floating point"),
            (Shape::Text, _) => self.mistyped(key.name, value, "constant string"),
            (Shape::Word(words), _) => self.not_a_word(key.name, value, words),
            (Shape::Texts | Shape::Maps(_), _) => self.mistyped(key.name, value, "["),
            (Shape::Free, _) => self.mistyped(key.name, value, "{"),
        }
        if let Acts::Not(stock) = &key.acts
            && !is_stock(value, stock)
            && !self.warned.contains(&key.name)
        {
            self.warned.push(key.name);
            let text = format!("'{}' is accepted and not acted on", key.name);
            self.report.warning(member.key_at, Style::After, text);
        }
    }

    /// Free JSON: any keys, but none twice.
    fn free(&mut self, value: &Value) {
        match &value.data {
            Data::Map(map) => {
                self.repeated(map, "JSON");
                map.members().iter().for_each(|member| self.free(&member.value));
            }
            Data::List(elements) => elements.iter().for_each(|element| self.free(element)),
            _ => {}
        }
    }

    fn mistyped(&mut self, name: &str, value: &Value, expected: &str) {
        match self.dialect {
            Dialect::File => {
                let text = format!("syntax error, unexpected {}, expecting {expected}", token(value));
                self.report.error(first_token(value), Style::Grammar, text);
            }
            Dialect::Wire => {
                let text = match expected {
                    "constant string" => format!("'{name}' parameter is not a string"),
                    "integer" => "intValue() called on non-integer Element in".to_owned(),
                    "[" => "listValue() called on non-list Element in".to_owned(),
                    _ => format!("invalid type specified for parameter '{name}'"),
                };
                self.report.error(value.at, Style::After, text);
            }
        }
    }

    fn not_a_word(&mut self, name: &str, value: &Value, words: &[&str]) {
        let expected = words.join(" or ");
        match (self.dialect, &value.data) {
            (Dialect::Wire, Data::Text(text)) => {
                let text = format!("unsupported value '{text}' of parameter '{name}', expected {expected}");
                self.report.error(value.at, Style::After, text);
            }
            _ => self.mistyped(name, value, &expected),
        }
    }
}

/// What the grammar calls the first token of a value.
const fn token(value: &Value) -> &'static str {
    match value.data {
        Data::Null => "null",
        Data::Bool(_) => "boolean",
        Data::Integer(_) => "integer",
        Data::Double(_) => "floating point",
        Data::Text(_) => "constant string",
        Data::List(_) => "[",
        Data::Map(_) => "{",
    }
}

/// The place of a value's first token: the bracket of a list or map.
const fn first_token(value: &Value) -> Span {
    match value.data {
        Data::List(_) | Data::Map(_) => {
            Span { last_line: value.at.line, last_column: value.at.column, ..value.at }
        }
        _ => value.at,
    }
}

fn is_stock(value: &Value, stock: &Stock) -> bool {
    match (stock, &value.data) {
        (Stock::Bool(stock), Data::Bool(truth)) => stock == truth,
        (Stock::Integer(stock), Data::Integer(number)) => stock == number,
        (Stock::Text(stock), Data::Text(text)) => stock == text,
        _ => false,
    }
}

/// The key that `key` was probably meant to be: the fewest letters added, lost, changed or swapped, and few enough.
pub(super) fn nearest(key: &str, known: impl Iterator<Item = &'static str>) -> Option<&'static str> {
    if key.len() > SUGGEST_BYTES_MAX {
        return None;
    }
    let limit = 2.max(key.len() / 3);
    let lower = key.to_lowercase().replace('_', "-");
    known
        .map(|known| (distance(&lower, known), known))
        .filter(|(distance, known)| *distance <= limit && *distance < known.len())
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, known)| known)
}

/// Letters added, lost, changed or swapped with their neighbour between `left` and `right`.
fn distance(left: &str, right: &str) -> usize {
    let left: Vec<char> = left.chars().collect();
    let right: Vec<char> = right.chars().collect();
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=right.len()).collect();
    for (row, &letter) in left.iter().enumerate() {
        let mut line = vec![row + 1];
        for (column, &other) in right.iter().enumerate() {
            let mut best =
                (last[column + 1] + 1).min(line[column] + 1).min(last[column] + usize::from(letter != other));
            if row > 0 && column > 0 && letter == right[column - 1] && left[row - 1] == other {
                best = best.min(before[column - 1] + 1);
            }
            line.push(best);
        }
        before = std::mem::replace(&mut last, line);
    }
    last[right.len()]
}

#[cfg(test)]
mod tests {
    use super::super::schema::DHCP4;
    use super::*;

    fn near(key: &str) -> Option<&'static str> {
        nearest(key, DHCP4.keys.iter().flat_map(|group| group.iter()).map(|key| key.name))
    }

    #[test]
    fn a_slip_of_the_finger_finds_its_key() {
        assert_eq!(near("valid-lifetme"), Some("valid-lifetime"));
        assert_eq!(near("vaild-lifetime"), Some("valid-lifetime"), "two letters swapped are one slip");
        assert_eq!(near("Subnet4"), Some("subnet4"));
        assert_eq!(near("shared_networks"), Some("shared-networks"));
        assert_eq!(near("subnets4"), Some("subnet4"));
    }

    #[test]
    fn what_is_like_nothing_finds_nothing() {
        assert_eq!(near("foo"), None);
        assert_eq!(near(""), None);
        assert_eq!(near(&"valid-lifetime".repeat(5)), None);
    }

    #[test]
    fn no_context_names_a_key_twice_and_all_mandatory_keys_exist() {
        fn walk(context: &'static Context, depth: usize) {
            let mut names: Vec<&str> =
                context.keys.iter().flat_map(|group| group.iter()).map(|key| key.name).collect();
            for name in context.mandatory {
                assert!(names.contains(name), "{name} of {}", context.name);
            }
            names.sort_unstable();
            let count = names.len();
            names.dedup();
            assert_eq!(names.len(), count, "{}", context.name);
            assert!(depth < 8, "{} is its own ancestor", context.name);
            for key in context.keys.iter().flat_map(|group| group.iter()) {
                if let Shape::Map(inner) | Shape::Maps(inner) = &key.shape {
                    walk(inner, depth + 1);
                }
            }
        }
        walk(&DHCP4, 0);
        walk(&super::super::schema::AGENT, 0);
    }
}
