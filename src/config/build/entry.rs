//! Options, option definitions, client classes.

use std::collections::HashSet;

use super::{Builder, Fields};
use crate::config::finding::Style;
use crate::config::json::{Map, Placed, Span};
use crate::config::tree::{ClassTest, ClientClass, OptionData, OptionDef};

/// Classes that the server itself assigns; they may be defined to hang options on.
const BUILT_IN_CLASSES: [&str; 4] = ["ALL", "KNOWN", "UNKNOWN", "BOOTP"];
/// Classes that end a query's way: they cannot wait for the additional evaluation.
const SPECIAL_CLASSES: [&str; 2] = ["DROP", "REJECT"];

impl Builder<'_> {
    /// `option-data` of a scope.
    pub(super) fn options(&mut self, map: &Map) -> Vec<OptionData> {
        map.maps("option-data").filter_map(|(map, at)| self.option(map, at)).collect()
    }

    fn option(&mut self, map: &Map, at: Span) -> Option<OptionData> {
        let space = map.placed("space");
        if let Some(space) = &space
            && !valid_name(&space.value)
        {
            self.error(space.at, format!("invalid option space name '{space}'"));
        }
        let name = map.placed("name");
        if let Some(name) = &name
            && name.value.contains(' ')
        {
            self.error(name.at, format!("invalid option name '{name}', space character is not allowed"));
        }
        let code = match map.find("code") {
            Some(value) => {
                let number = value.as_integer()?;
                // PAD and END mean something in the packet's own space only.
                let plain = space.as_ref().is_none_or(|space| space.value == "dhcp4");
                let fault = match number {
                    0 if plain => Some((at, "reserved for PAD")),
                    255 if plain => Some((at, "reserved for END")),
                    0..=255 => None,
                    _ => Some((value.at, "")),
                };
                match fault {
                    Some((at, "")) => {
                        self.error(
                            at,
                            format!("invalid option code '{number}', it must not be greater than '255'"),
                        );
                        return None;
                    }
                    Some((at, why)) => {
                        self.error(at, format!("invalid option code '{number}': {why}"));
                        return None;
                    }
                    None => u16::try_from(number).ok().map(|code| Placed { value: code, at: value.at }),
                }
            }
            None => None,
        };
        if code.is_none() && map.find("name").is_none() {
            self.error(
                at,
                "option data configuration requires one of 'code' or 'name' parameters to be specified",
            );
            return None;
        }
        Some(OptionData {
            at,
            name,
            code,
            space,
            csv_format: map.flag("csv-format"),
            data: map.placed("data").unwrap_or(Placed { value: String::new(), at }),
            always_send: map.flag("always-send").unwrap_or(false),
            never_send: map.flag("never-send").unwrap_or(false),
            client_classes: map.texts("client-classes"),
            user_context: self.user_context(map),
        })
    }

    /// `option-def` of a scope.
    pub(super) fn option_defs(&mut self, map: &Map) -> Vec<OptionDef> {
        map.maps("option-def").filter_map(|(map, at)| self.option_def(map, at)).collect()
    }

    fn option_def(&mut self, map: &Map, at: Span) -> Option<OptionDef> {
        let code = map.find("code")?;
        let number = code.as_integer()?;
        if !(0..=255).contains(&number) {
            let text = format!("invalid option code '{number}', it must not be greater than '255'");
            self.error(code.at, text);
            return None;
        }
        let empty = || Placed { value: String::new(), at };
        Some(OptionDef {
            at,
            name: map.placed("name")?,
            code: Placed { value: number, at: code.at },
            type_word: map.placed("type")?,
            space: map.placed("space"),
            array: map.flag("array").unwrap_or(false),
            record_types: map.placed("record-types").unwrap_or_else(empty),
            encapsulate: map.placed("encapsulate").unwrap_or_else(empty),
            user_context: self.user_context(map),
        })
    }

    /// `client-classes` of the global scope.
    pub(super) fn classes(&mut self, map: &Map) -> Vec<ClientClass> {
        let mut names = HashSet::new();
        map.maps("client-classes").filter_map(|(map, at)| self.class(map, at, &mut names)).collect()
    }

    fn class(&mut self, map: &Map, at: Span, names: &mut HashSet<String>) -> Option<ClientClass> {
        let name = map.placed("name")?;
        if name.value.is_empty() {
            self.error(name.at, "not empty parameter 'name' is required");
            return None;
        }
        if !names.insert(name.value.clone()) {
            self.error(at, format!("Can't add class: Client Class: {name} has already been defined"));
        }
        let test = self.class_test(map);
        let (only_later, word) = self.only_in_additional_list(map);
        if BUILT_IN_CLASSES.contains(&name.value.as_str()) {
            if only_later {
                self.bare_error(at, format!("built-in class '{name}' {word} flag must be false"));
            }
            if test != ClassTest::None {
                self.bare_error(at, format!("built-in class '{name}' test expression must be empty"));
            }
        }
        if SPECIAL_CLASSES.contains(&name.value.as_str()) && only_later {
            self.bare_error(at, format!("special class '{name}' {word} flag must be false"));
        }
        let option_defs = self.option_defs(map);
        for def in &option_defs {
            let space = def.space.as_ref().map_or("dhcp4", |space| &space.value);
            let code = def.code.value;
            if space == "dhcp4" && code != 43 && !(224..=254).contains(&code) {
                let place = self.report.place(def.at);
                let text = format!(
                    "Not allowed option definition for code '{code}' in space '{space}' at ({place})"
                );
                self.report.error(def.at, Style::Bare, text);
            }
        }
        let valid_lifetime = Self::lifetimes(map);
        for (bound, key) in
            [(valid_lifetime.min, "min-valid-lifetime"), (valid_lifetime.max, "max-valid-lifetime")]
        {
            if bound.is_some() && map.find("valid-lifetime").is_none() {
                self.error(at, format!("have {key} but no valid-lifetime (default)"));
            }
        }
        if valid_lifetime.default.is_some()
            && let Err(text) = super::scope::triplet(valid_lifetime)
        {
            self.bare_error(at, text);
        }
        let next_server = map
            .member("next-server")
            .and_then(|member| self.address(member, "Invalid next-server value specified: "));
        Some(ClientClass {
            at,
            name,
            test,
            only_in_additional_list: only_later,
            option_defs,
            options: self.options(map),
            next_server,
            server_hostname: self.server_hostname(map),
            boot_file_name: self.boot_file_name(map),
            valid_lifetime,
            offer_lifetime_s: map.number("offer-lifetime"),
            user_context: self.user_context(map),
        })
    }

    fn class_test(&mut self, map: &Map) -> ClassTest {
        let template = map.placed("template-test").filter(|test| !test.value.is_empty());
        // An empty test stays: whoever parses tests says what is wrong with it.
        let test = map.placed("test");
        match (test, template) {
            (Some(_), Some(template)) => {
                self.error(template.at, "cannot specify both 'test' and 'template-test'");
                ClassTest::None
            }
            (Some(test), None) => ClassTest::Test(test),
            (None, Some(template)) => ClassTest::Template(template),
            (None, None) => ClassTest::None,
        }
    }

    /// The flag and the key it was written under.
    fn only_in_additional_list(&mut self, map: &Map) -> (bool, &'static str) {
        let (new, old) = ("only-in-additional-list", "only-if-required");
        if let (Some(_), Some(member)) = (map.find(new), map.member(old)) {
            self.error(
                member.value.at,
                format!("cannot specify both '{old}' and '{new}'. Use only the latter."),
            );
        }
        match map.flag(new) {
            Some(flag) => (flag, new),
            None => (map.flag(old).unwrap_or(false), if map.find(old).is_some() { old } else { new }),
        }
    }
}

/// Letters, digits, `-`, `_`, not one of the latter two at an end.
fn valid_name(name: &str) -> bool {
    !name.is_empty()
        && name.bytes().all(|octet| octet.is_ascii_alphanumeric() || octet == b'-' || octet == b'_')
        && !name.starts_with(['-', '_'])
        && !name.ends_with(['-', '_'])
}
