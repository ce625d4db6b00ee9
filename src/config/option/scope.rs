//! One scope's `option-data`: definitions found, values encoded, sub-options put into their carriers.

use super::definitions::is_name;
use super::encode::{Family, check, encode};
use super::hex::parse_hex;
use super::{Definition, Definitions};
use crate::config::finding::{Report, Style};
use crate::config::json::Span;
use crate::config::tree::OptionData;

/// Vendor-identifying vendor class (RFC 3925 3).
const VENDOR_CLASS: u16 = 124;
/// Vendor-identifying vendor-specific information (RFC 3925 4).
const VENDOR_INFORMATION: u16 = 125;
/// What only the server or the client can say: a configured value would contradict it.
const COMPUTED: [u16; 5] = [50, 53, 55, 61, 82];
/// Longest value: what the plan stores.
const VALUE_BYTES_MAX: usize = 65_535;
/// Longest value of a sub-option: its length is one octet.
const SUB_OPTION_BYTES_MAX: usize = 255;
/// Longest value of a vendor sub-option: with code and length it stands behind a length of one octet.
const VENDOR_OPTION_BYTES_MAX: usize = 253;

/// An option of a scope, ready to be sent.
#[derive(Clone, Debug)]
pub struct EncodedOption<'a> {
    /// The entry that it comes from.
    pub from: &'a OptionData,
    /// Its code.
    pub code: u8,
    /// Enterprise of options 124 and 125 and of vendor sub-options; 0 in all others.
    pub enterprise: u32,
    /// Whether it belongs to the space of its enterprise and not to the main one.
    pub vendor: bool,
    /// The value; of option 125 the sub-options of one enterprise.
    pub value: Vec<u8>,
}

/// An entry whose definition is found and whose value is encoded.
struct Entry<'a, 'd> {
    from: &'a OptionData,
    space: &'a str,
    code: u16,
    definition: Option<&'d Definition>,
    value: Vec<u8>,
}

fn read<'a, 'd>(definitions: &'d Definitions, option: &'a OptionData) -> Result<Entry<'a, 'd>, (Span, String)>
where
    'd: 'a,
{
    let (space, space_at) = option
        .space
        .as_ref()
        .map_or_else(|| (definitions.main_space(), option.at), |space| (space.value.as_str(), space.at));
    if !is_name(space) {
        return Err((space_at, format!("invalid option space name '{space}'")));
    }
    let name = option.name.as_ref().filter(|name| !name.value.is_empty());
    if let Some(name) = name
        && name.value.contains(' ')
    {
        let text = format!("invalid option name '{}', space character is not allowed", name.value);
        return Err((name.at, text));
    }
    let (code, definition) = match (&option.code, name) {
        (Some(code), _) => (code.value, definitions.by_code(space, code.value)),
        (None, Some(name)) => {
            let definition = definitions.by_name(space, &name.value).ok_or_else(|| {
                (name.at, format!("definition for the option '{space}.{}' does not exist", name.value))
            })?;
            (definition.code, Some(definition))
        }
        (None, None) => {
            let text =
                "option data configuration requires one of 'code' or 'name' parameters to be specified";
            return Err((option.at, text.to_owned()));
        }
    };
    if let (Some(definition), Some(name)) = (definition, name)
        && definition.name != name.value
    {
        let text = format!(
            "specified option name '{}' does not match the option definition: '{space}.{}'",
            name.value, definition.name
        );
        return Err((name.at, text));
    }
    if option.csv_format == Some(true) && definition.is_none() {
        let name = name.map_or("", |name| &name.value);
        let text = format!("definition for the option '{space}.{name}' having code '{code}' does not exist");
        return Err((option.at, text));
    }
    let csv_format = option.csv_format.unwrap_or_else(|| definition.is_some());
    let data = &option.data.value;
    let family = definitions.family();
    let value = match definition {
        Some(definition) if csv_format => encode(definition, family, data),
        _ => {
            let octets = parse_hex(data).ok_or_else(|| {
                (option.data.at, format!("option data is not a valid string of hexadecimal digits: {data}"))
            })?;
            definition
                .map_or_else(|| Ok(octets.clone()), |definition| check(definition, family, octets.clone()))
        }
    };
    let value = value.map_err(|reason| {
        let text =
            format!("option data does not match option definition (space: {space}, code: {code}): {reason}");
        (option.data.at, text)
    })?;
    if value.len() > VALUE_BYTES_MAX {
        let text =
            format!("option {code} of {} octets is longer than the {VALUE_BYTES_MAX} that fit", value.len());
        return Err((option.data.at, text));
    }
    Ok(Entry { from: option, space, code, definition, value })
}

/// The options of one scope in the order of the configuration. What is wrong with one is reported and it is left
/// out.
pub fn encode_scope<'a>(
    definitions: &'a Definitions,
    options: &'a [OptionData],
    report: &mut Report,
) -> Vec<EncodedOption<'a>> {
    let mut entries = Vec::with_capacity(options.len());
    for option in options {
        match read(definitions, option) {
            Ok(entry) => entries.push(entry),
            Err((at, text)) => report.error(at, Style::After, text),
        }
    }
    let mut encoded = Vec::with_capacity(entries.len());
    let mut used = vec![false; entries.len()];
    for index in 0..entries.len() {
        let entry = &entries[index];
        let main = entry.space == definitions.main_space();
        let enterprise = entry.space.strip_prefix("vendor-").and_then(|number| number.parse::<u32>().ok());
        if !main && enterprise.is_none() {
            continue;
        }
        used[index] = true;
        if main && definitions.family() == Family::V4 && COMPUTED.contains(&entry.code) {
            let text =
                format!("option {} is not sent from a configuration: the server computes it", entry.code);
            report.warning(entry.from.at, Style::After, text);
            continue;
        }
        let Ok(code) = u8::try_from(entry.code) else {
            let text = format!("invalid option code '{}', it must not be greater than '255'", entry.code);
            report.error(entry.from.at, Style::After, text);
            continue;
        };
        let mut value = entry.value.clone();
        let mut path = vec![entry.space];
        append(entry.definition, &entries, &mut used, &mut path, &mut value, report);
        if !main && value.len() > VENDOR_OPTION_BYTES_MAX || value.len() > VALUE_BYTES_MAX {
            let max = if main { VALUE_BYTES_MAX } else { VENDOR_OPTION_BYTES_MAX };
            let text = format!("option {code} of {} octets is longer than the {max} that fit", value.len());
            report.error(entry.from.data.at, Style::After, text);
            continue;
        }
        let option = EncodedOption {
            from: entry.from,
            code,
            enterprise: enterprise.unwrap_or(0),
            vendor: !main,
            value,
        };
        if main && definitions.family() == Family::V4 && entry.code == VENDOR_INFORMATION {
            encoded.extend(by_enterprise(&option));
        } else if main && definitions.family() == Family::V4 && entry.code == VENDOR_CLASS {
            let enterprise = option.value.first_chunk::<4>().copied().map_or(0, u32::from_be_bytes);
            encoded.push(EncodedOption { enterprise, ..option });
        } else {
            encoded.push(option);
        }
    }
    for (entry, used) in entries.iter().zip(used) {
        if !used {
            let text = format!(
                "option {} of the space '{}' is not sent: no option of this scope carries that space",
                entry.code, entry.space
            );
            report.warning(entry.from.at, Style::After, text);
        }
    }
    encoded
}

/// Option 125 taken apart: one option for each enterprise.
fn by_enterprise<'a>(option: &EncodedOption<'a>) -> Vec<EncodedOption<'a>> {
    let mut parts = Vec::new();
    let mut rest = option.value.as_slice();
    while let [a, b, c, d, bytes, after @ ..] = rest {
        let Some((data, after)) = after.split_at_checked(usize::from(*bytes)) else { break };
        parts.push(EncodedOption {
            enterprise: u32::from_be_bytes([*a, *b, *c, *d]),
            value: data.to_vec(),
            ..option.clone()
        });
        rest = after;
    }
    parts
}

/// Appends to `value` the options of the space that `definition` encapsulates: ascending by code, of each code the
/// first. `path` are the spaces around, so that spaces which carry each other come to an end.
fn append<'a>(
    definition: Option<&'a Definition>,
    entries: &[Entry<'a, 'a>],
    used: &mut [bool],
    path: &mut Vec<&'a str>,
    value: &mut Vec<u8>,
    report: &mut Report,
) {
    let Some(space) =
        definition.map(|definition| &*definition.encapsulates).filter(|space| !space.is_empty())
    else {
        return;
    };
    if path.contains(&space) {
        return;
    }
    let mut inside: Vec<usize> = (0..entries.len()).filter(|&index| entries[index].space == space).collect();
    inside.sort_by_key(|&index| entries[index].code);
    inside.dedup_by_key(|index| entries[*index].code);
    path.push(space);
    for index in inside {
        let entry = &entries[index];
        used[index] = true;
        let mut inner = entry.value.clone();
        append(entry.definition, entries, used, path, &mut inner, report);
        match (u8::try_from(entry.code), u8::try_from(inner.len())) {
            (Ok(code), Ok(bytes)) => {
                value.extend([code, bytes]);
                value.append(&mut inner);
            }
            _ => {
                let text = format!(
                    "sub-option {} of {} octets is longer than the {SUB_OPTION_BYTES_MAX} that fit",
                    entry.code,
                    inner.len()
                );
                report.error(entry.from.data.at, Style::After, text);
            }
        }
    }
    path.pop();
}
