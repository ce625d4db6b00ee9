//! JSON as Kea prints it: a blank inside every bracket, keys sorted, doubles never mistaken for integers.

use std::fmt::Write as _;

use serde_json::Value;

/// `value` on one line: `{ "a": 1, "b": [ 1, 2 ] }`, empty `{  }` and `[  ]`.
#[must_use]
pub fn compact(value: &Value) -> String {
    let mut out = String::new();
    write_compact(&mut out, value);
    out
}

/// `value` on many lines, two blanks per level, as `config-write` leaves it in a file.
#[must_use]
pub fn pretty(value: &Value) -> String {
    let mut out = String::new();
    write_pretty(&mut out, value, 0);
    out.push('\n');
    out
}

fn write_compact(out: &mut String, value: &Value) {
    match value {
        Value::Array(elements) => {
            out.push_str("[ ");
            for (index, element) in elements.iter().enumerate() {
                out.push_str(if index > 0 { ", " } else { "" });
                write_compact(out, element);
            }
            out.push_str(" ]");
        }
        Value::Object(members) => {
            out.push_str("{ ");
            for (index, (key, member)) in sorted(members).into_iter().enumerate() {
                out.push_str(if index > 0 { ", " } else { "" });
                write_string(out, key);
                out.push_str(": ");
                write_compact(out, member);
            }
            out.push_str(" }");
        }
        scalar => write_scalar(out, scalar),
    }
}

fn write_pretty(out: &mut String, value: &Value, level: usize) {
    let indent = |out: &mut String, level: usize| {
        out.push('\n');
        out.extend(std::iter::repeat_n("  ", level));
    };
    match value {
        Value::Array(elements) if elements.is_empty() => out.push_str("[ ]"),
        // A list of numbers or words stays on its line.
        Value::Array(elements)
            if !elements.iter().any(|element| element.is_array() || element.is_object()) =>
        {
            write_compact(out, value);
        }
        Value::Array(elements) => {
            out.push('[');
            for (index, element) in elements.iter().enumerate() {
                out.push_str(if index > 0 { "," } else { "" });
                indent(out, level + 1);
                write_pretty(out, element, level + 1);
            }
            indent(out, level);
            out.push(']');
        }
        Value::Object(members) if members.is_empty() => out.push_str("{ }"),
        Value::Object(members) => {
            out.push('{');
            for (index, (key, member)) in sorted(members).into_iter().enumerate() {
                out.push_str(if index > 0 { "," } else { "" });
                indent(out, level + 1);
                write_string(out, key);
                out.push_str(": ");
                write_pretty(out, member, level + 1);
            }
            indent(out, level);
            out.push('}');
        }
        scalar => write_scalar(out, scalar),
    }
}

/// The members by key, whatever order the map keeps.
fn sorted(members: &serde_json::Map<String, Value>) -> Vec<(&String, &Value)> {
    let mut members: Vec<_> = members.iter().collect();
    members.sort_by_key(|(key, _)| *key);
    members
}

fn write_scalar(out: &mut String, value: &Value) {
    let written = match value {
        Value::String(text) => {
            write_string(out, text);
            Ok(())
        }
        // Debug format keeps the point or goes to an exponent; Display would print 2.0 as 2 and 1e300 in full.
        Value::Number(number) if number.is_f64() => write!(out, "{:?}", number.as_f64().unwrap_or(0.0)),
        other => write!(out, "{other}"),
    };
    debug_assert!(written.is_ok(), "writing to a string does not fail");
}

fn write_string(out: &mut String, text: &str) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\0'..='\u{1f}' | '\u{7f}' => {
                let written = write!(out, "\\u{:04x}", u32::from(character));
                debug_assert!(written.is_ok(), "writing to a string does not fail");
            }
            other => out.push(other),
        }
    }
    out.push('"');
}
