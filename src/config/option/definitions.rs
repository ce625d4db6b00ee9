//! The definitions that hold in a configuration: standard ones and those that `option-def` adds.

use std::borrow::Cow;
use std::collections::HashMap;

use super::standard4::{CABLE_LABS4, DHCP4, RELAY_AGENT};
use super::standard6::{CABLE_LABS6, DHCP6, LIGHTWEIGHT6, MAP_E6, MAP_RULE6, MAP_T6, NTP_SERVER6};
use super::{Definition, Family, Kind};
use crate::config::finding::{Report, Style};
use crate::config::tree::OptionDef;

/// Standard definitions that `option-def` may replace: option 43 means what its vendor says, and the others became
/// standard after configurations had begun to define them.
const REPLACEABLE4: [u16; 14] = [43, 120, 121, 122, 123, 143, 151, 152, 153, 154, 155, 156, 157, 162];

/// The definitions of one family.
#[derive(Clone, Debug)]
pub struct Definitions {
    family: Family,
    /// By space, in order of the configuration.
    added: HashMap<String, Vec<Definition>>,
}

impl Definitions {
    /// The standard definitions of `family`.
    #[must_use]
    pub fn new(family: Family) -> Self {
        Self { family, added: HashMap::new() }
    }

    /// The family.
    #[must_use]
    pub const fn family(&self) -> Family {
        self.family
    }

    /// The name of the family's main space.
    #[must_use]
    pub const fn main_space(&self) -> &'static str {
        match self.family {
            Family::V4 => "dhcp4",
            Family::V6 => "dhcp6",
        }
    }

    /// The definition of `code` in `space`.
    #[must_use]
    pub fn by_code(&self, space: &str, code: u16) -> Option<&Definition> {
        self.find(space, |definition| definition.code == code)
    }

    /// The definition called `name` in `space`.
    #[must_use]
    pub fn by_name(&self, space: &str, name: &str) -> Option<&Definition> {
        self.find(space, |definition| definition.name == name)
    }

    fn find(&self, space: &str, wanted: impl Fn(&Definition) -> bool) -> Option<&Definition> {
        let standard = self.standard(space).iter().find(|definition| wanted(definition));
        let added = || self.added.get(space)?.iter().find(|definition| wanted(definition));
        match standard {
            Some(fixed) if !self.is_replaceable(space, fixed.code) => Some(fixed),
            // A replaced definition is not found by its old name either.
            Some(replaceable) => added().or_else(|| {
                let replaced = self
                    .added
                    .get(space)
                    .is_some_and(|list| list.iter().any(|definition| definition.code == replaceable.code));
                (!replaced).then_some(replaceable)
            }),
            None => added(),
        }
    }

    /// What the configuration defines in `space`.
    pub(super) fn added_to(&self, space: &str) -> &[Definition] {
        self.added.get(space).map_or(&[], Vec::as_slice)
    }

    fn standard(&self, space: &str) -> &'static [Definition] {
        match (self.family, space) {
            (Family::V4, "dhcp4") => DHCP4,
            (Family::V4, "dhcp-agent-options-space") => RELAY_AGENT,
            (Family::V4, "vendor-4491") => CABLE_LABS4,
            (Family::V6, "dhcp6") => DHCP6,
            (Family::V6, "v6-ntp-server-suboptions") => NTP_SERVER6,
            (Family::V6, "s46-cont-mape-options") => MAP_E6,
            (Family::V6, "s46-cont-mapt-options") => MAP_T6,
            (Family::V6, "s46-cont-lw-options") => LIGHTWEIGHT6,
            (Family::V6, "s46-rule-options") => MAP_RULE6,
            (Family::V6, "vendor-4491") => CABLE_LABS6,
            _ => &[],
        }
    }

    fn is_replaceable(&self, space: &str, code: u16) -> bool {
        match (self.family, space) {
            (Family::V4, "dhcp4") => REPLACEABLE4.contains(&code) || code >= 224,
            (Family::V6, "dhcp6") => false,
            // Kea has no definitions for sub-options of a relay agent, so a configuration may bring them.
            _ => true,
        }
    }

    /// Adds the definitions of an `option-def` list; what is wrong with one is reported and that one left out.
    pub fn add_all(&mut self, list: &[OptionDef], report: &mut Report) {
        for written in list {
            if let Err((at, text)) = self.add(written) {
                report.error(at, Style::After, text);
            }
        }
    }

    /// These definitions with those of a class before them: only option 43 and the site's own 224 to 254.
    #[must_use]
    pub fn for_class(&self, list: &[OptionDef], report: &mut Report) -> Cow<'_, Self> {
        if list.is_empty() {
            return Cow::Borrowed(self);
        }
        let mut own = Self::new(self.family);
        for written in list {
            let code = written.code.value;
            if written.space.as_ref().is_some_and(|space| space.value != self.main_space())
                || !(code == 43 || (224..=254).contains(&code))
            {
                let text = format!(
                    "Not allowed definition for option code '{code}' in space '{}'",
                    written.space.as_ref().map_or_else(|| self.main_space(), |space| &space.value)
                );
                report.error(written.at, Style::After, text);
            } else if let Err((at, text)) = own.add(written) {
                report.error(at, Style::After, text);
            }
        }
        for (space, list) in &self.added {
            let merged = own.added.entry(space.clone()).or_default();
            for definition in list {
                if !merged.iter().any(|kept| kept.code == definition.code || kept.name == definition.name) {
                    merged.push(definition.clone());
                }
            }
        }
        Cow::Owned(own)
    }

    fn add(&mut self, written: &OptionDef) -> Result<(), (crate::config::json::Span, String)> {
        let main = self.main_space();
        let (space, space_at) =
            written.space.as_ref().map_or((main, written.at), |space| (space.value.as_str(), space.at));
        let code_max = if self.family == Family::V4 { u16::from(u8::MAX) } else { u16::MAX };
        let raw = written.code.value;
        let code = match u16::try_from(raw) {
            Ok(0) => return Err((written.code.at, "invalid option code '0': reserved for PAD".to_owned())),
            Ok(255) if self.family == Family::V4 && space == main => {
                return Err((written.code.at, "invalid option code '255': reserved for END".to_owned()));
            }
            Ok(code) if code <= code_max => code,
            _ if raw < 0 => {
                return Err((
                    written.code.at,
                    format!("invalid option code '{raw}', it must not be negative"),
                ));
            }
            _ => {
                let text = format!("invalid option code '{raw}', it must not be greater than '{code_max}'");
                return Err((written.code.at, text));
            }
        };
        if !is_name(space) {
            return Err((space_at, format!("invalid option space name '{space}'")));
        }
        let definition = parse(written, code, space)?;
        let fixed = self.standard(space).iter().find(|standard| {
            (standard.code == code || standard.name == definition.name)
                && !self.is_replaceable(space, standard.code)
        });
        if let Some(fixed) = fixed {
            let which = if fixed.code == code { code.to_string() } else { definition.name.to_string() };
            let text = format!(
                "unable to override definition of option '{which}' in standard option space '{space}'"
            );
            return Err((written.at, text));
        }
        let list = self.added.entry(space.to_owned()).or_default();
        let taken = |what: String| {
            Err((
                written.at,
                format!("option definition with {what} already exists in option space '{space}'"),
            ))
        };
        if list.iter().any(|kept| kept.name == definition.name) {
            return taken(format!("name '{}'", definition.name));
        }
        if list.iter().any(|kept| kept.code == code) {
            return taken(format!("code '{code}'"));
        }
        list.push(definition);
        Ok(())
    }
}

/// Names of options and spaces: letters, digits, `-`, `_`, not at the ends.
pub(super) fn is_name(name: &str) -> bool {
    let inner = |octet: u8| octet.is_ascii_alphanumeric() || octet == b'-' || octet == b'_';
    let octets = name.as_bytes();
    octets.iter().all(|&octet| inner(octet))
        && octets.first().is_some_and(u8::is_ascii_alphanumeric)
        && octets.last().is_some_and(u8::is_ascii_alphanumeric)
}

/// A definition by itself, without regard to others.
fn parse(
    written: &OptionDef,
    code: u16,
    space: &str,
) -> Result<Definition, (crate::config::json::Span, String)> {
    let name = &written.name.value;
    let whole = |text: String| Err((written.at, text));
    let mut fields = Vec::new();
    let word = &written.type_word.value;
    let kind = Kind::from_word(word);
    let list = written.record_types.value.trim();
    if !list.is_empty() {
        let at = written.record_types.at;
        let wrong = "invalid record type values specified for the option definition:";
        for field in list.split(',').map(str::trim) {
            if kind.is_some_and(|kind| kind != Kind::Record) {
                let text = format!(
                    "{wrong} 'record' option type must be used instead of '{word}' to add data fields to the record"
                );
                return Err((at, text));
            }
            match Kind::from_word(field) {
                Some(kind) if kind != Kind::Record && kind != Kind::Empty => fields.push(kind),
                known => {
                    let named = if known.is_some() { field } else { "unknown" };
                    let text = format!("{wrong} attempted to add invalid data type '{named}' to the record.");
                    return Err((at, text));
                }
            }
        }
    }
    if !is_name(name) {
        return whole(format!("invalid option name '{name}'"));
    }
    let Some(kind) = kind else {
        return whole("option type 18 not supported.".to_owned());
    };
    let encapsulates = written.encapsulate.value.as_str();
    if !encapsulates.is_empty() && !is_name(encapsulates) {
        return whole(format!("invalid encapsulated option space name: '{encapsulates}'"));
    }
    let last = if kind == Kind::Record { fields.last().copied().unwrap_or(kind) } else { kind };
    if kind == Kind::Record {
        if fields.len() < 2 {
            return whole(format!(
                "invalid number of data fields: {} specified for the option of type 'record'. Expected at least 2 fields.",
                fields.len()
            ));
        }
        for field in &fields[..fields.len() - 1] {
            let open = match field {
                Kind::String => "string",
                Kind::Binary => "binary",
                _ => continue,
            };
            return whole(format!("{open} data field can't be laid before data fields of other types."));
        }
    }
    if written.array {
        let what = match last {
            Kind::String => Some("strings"),
            Kind::Binary => Some("binary values"),
            Kind::Empty => Some("empty value"),
            _ => None,
        };
        if let Some(what) = what {
            return whole(format!("array of {what} is not a valid option definition."));
        }
        if !encapsulates.is_empty() {
            return whole(format!(
                "option '{space}.{name}', comprising an array of data fields may not encapsulate any option space"
            ));
        }
    }
    if encapsulates == space {
        return whole(format!(
            "option must not encapsulate an option space it belongs to: '{space}.{name}' is set to encapsulate '{space}'"
        ));
    }
    Ok(Definition {
        code,
        name: Cow::Owned(name.clone()),
        kind,
        array: written.array,
        fields: Cow::Owned(fields),
        encapsulates: Cow::Owned(encapsulates.to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tree::OptionDef;

    fn written(name: &str, code: i64, word: &str) -> OptionDef {
        let mut written = OptionDef::default();
        written.name.value = name.to_owned();
        written.code.value = code;
        written.type_word.value = word.to_owned();
        written
    }

    fn record(types: &str, array: bool) -> OptionDef {
        let mut written = written("foo", 230, "record");
        written.record_types.value = types.to_owned();
        written.array = array;
        written
    }

    fn fault(written: &OptionDef) -> String {
        Definitions::new(Family::V4).add(written).expect_err("a wrong definition").1
    }

    #[test]
    fn wrong_definitions_are_refused_in_keas_words() {
        let array = |word: &str| OptionDef { array: true, ..written("foo", 230, word) };
        let mut carrier = array("uint8");
        carrier.encapsulate.value = "x".to_owned();
        let mut own = written("foo", 230, "uint8");
        own.encapsulate.value = "dhcp4".to_owned();
        let mut no_record = written("foo", 230, "uint8");
        no_record.record_types.value = "uint8,uint8".to_owned();
        let cases = [
            (written("a b", 230, "uint8"), "invalid option name 'a b'"),
            (written("-foo", 230, "uint8"), "invalid option name '-foo'"),
            (written("foo", 230, "wrong"), "option type 18 not supported."),
            (
                written("foo", 3, "uint8"),
                "unable to override definition of option '3' in standard option space 'dhcp4'",
            ),
            (
                written("routers", 230, "uint8"),
                "unable to override definition of option 'routers' in standard option space 'dhcp4'",
            ),
            (written("foo", 0, "uint8"), "invalid option code '0': reserved for PAD"),
            (written("foo", 255, "uint8"), "invalid option code '255': reserved for END"),
            (written("foo", 256, "uint8"), "invalid option code '256', it must not be greater than '255'"),
            (array("string"), "array of strings is not a valid option definition."),
            (array("binary"), "array of binary values is not a valid option definition."),
            (array("empty"), "array of empty value is not a valid option definition."),
            (
                carrier,
                "option 'dhcp4.foo', comprising an array of data fields may not encapsulate any option space",
            ),
            (
                own,
                "option must not encapsulate an option space it belongs to: 'dhcp4.foo' is set to encapsulate 'dhcp4'",
            ),
            (
                record("uint8", false),
                "invalid number of data fields: 1 specified for the option of type 'record'. Expected at least 2 fields.",
            ),
            (
                record("string,uint8", false),
                "string data field can't be laid before data fields of other types.",
            ),
            (
                record("uint8,binary,uint8", false),
                "binary data field can't be laid before data fields of other types.",
            ),
            (
                record("uint8,wrong", false),
                "invalid record type values specified for the option definition: attempted to add invalid data type 'unknown' to the record.",
            ),
            (
                record("uint8,record", false),
                "invalid record type values specified for the option definition: attempted to add invalid data type 'record' to the record.",
            ),
            (
                no_record,
                "invalid record type values specified for the option definition: 'record' option type must be used instead of 'uint8' to add data fields to the record",
            ),
            (record("uint8,string", true), "array of strings is not a valid option definition."),
        ];
        for (written, wanted) in cases {
            assert_eq!(fault(&written), wanted);
        }
    }

    #[test]
    fn a_name_or_code_is_defined_once_in_a_space() {
        let mut definitions = Definitions::new(Family::V4);
        definitions.add(&written("foo", 230, "uint8")).expect("free");
        assert_eq!(
            definitions.add(&written("foo", 231, "uint8")).expect_err("name").1,
            "option definition with name 'foo' already exists in option space 'dhcp4'"
        );
        assert_eq!(
            definitions.add(&written("bar", 230, "uint8")).expect_err("code").1,
            "option definition with code '230' already exists in option space 'dhcp4'"
        );
    }

    #[test]
    fn options_without_old_definition_can_be_defined_and_then_mean_that() {
        let mut definitions = Definitions::new(Family::V4);
        definitions.add(&written("routes", 121, "binary")).expect("replaceable");
        assert_eq!(definitions.by_code("dhcp4", 121).map(|found| found.kind), Some(Kind::Binary));
        assert_eq!(definitions.by_name("dhcp4", "classless-static-route"), None);
        definitions.add(&written("mine", 43, "uint8")).expect("replaceable");
        assert_eq!(definitions.by_code("dhcp4", 43).map(|found| found.kind), Some(Kind::Uint8));
    }

    #[test]
    fn standard_tables_are_ascending_and_name_each_option_once() {
        for table in [DHCP4, RELAY_AGENT, CABLE_LABS4, DHCP6, NTP_SERVER6, MAP_E6, CABLE_LABS6] {
            assert!(table.is_sorted_by(|left, right| left.code < right.code));
            for definition in table {
                assert_eq!(table.iter().filter(|other| other.name == definition.name).count(), 1);
                assert_eq!(
                    definition.kind == Kind::Record,
                    definition.fields.len() >= 2,
                    "{}",
                    definition.name
                );
                assert!(is_name(&definition.name), "{}", definition.name);
            }
        }
    }
}
