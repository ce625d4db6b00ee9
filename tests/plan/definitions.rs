//! What becomes of a query whose option does not fit its `option-def`, against what Kea 2.2 did with the same packets.

use aplomado::config::plan::Plan;
use aplomado::wire::DropReason;
use aplomado::wire::dhcp4;
use aplomado::wire::name::{Labels, wire_len};
use aplomado::wire::option::OptionTable;

/// The code that the recorded definitions define.
const CODE: u8 = 170;
/// Where the sub-options of the recorded definitions are defined.
const SUB_OPTIONS: &str = r#"
    { "name": "a", "space": "sub1", "code": 1, "type": "uint32" },
    { "name": "b", "space": "sub1", "code": 2, "type": "string" },
    { "name": "c", "space": "sub1", "code": 3, "type": "ipv4-address", "array": true },
    { "name": "d", "space": "sub1", "code": 4, "type": "empty", "encapsulate": "sub2" },
    { "name": "e", "space": "sub2", "code": 1, "type": "uint16" }"#;

fn recorded() -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/options/kea-2.2.txt");
    std::fs::read_to_string(path).expect("a file of this repository")
}

fn octets(hex: &str) -> Vec<u8> {
    let digits: Vec<u32> = hex.chars().filter_map(|digit| digit.to_digit(16)).collect();
    digits.chunks_exact(2).map(|pair| u8::try_from(pair[0] * 16 + pair[1]).expect("two digits")).collect()
}

/// A DISCOVER that holds `content` as option `code`, parsed by `plan`.
fn parsed(plan: &Plan, code: u8, content: &[u8]) -> Result<Option<Vec<u8>>, DropReason> {
    let mut payload = vec![0; dhcp4::FIXED_BYTES];
    payload[..4].copy_from_slice(&[1, 1, 6, 0]);
    payload.extend([0x63, 0x82, 0x53, 0x63, 53, 1, 1, code]);
    payload.push(u8::try_from(content.len()).expect("one option"));
    payload.extend(content);
    payload.push(255);
    let mut table = OptionTable::new();
    dhcp4::parse_with(&payload, &mut table, plan.globals.strictness())?;
    Ok(table.find(&payload, code).map(<[u8]>::to_vec))
}

/// The plan in which option `code` is defined as a line of the record says: type, array, fields, space.
fn defined(code: u8, words: &[&str]) -> Plan {
    let or_empty = |word: &str| if word == "-" { String::new() } else { word.to_owned() };
    crate::plan(&format!(
        r#""option-def": [ {SUB_OPTIONS}, {{ "name": "x", "code": {code}, "type": "{}", "array": {},
            "record-types": "{}", "encapsulate": "{}" }} ]"#,
        words[0],
        words[1] == "array",
        or_empty(words[2]),
        or_empty(words[3])
    ))
}

/// Kea takes a name for as long as its text is, which is longer than on the wire: the root, and names with octets that are
/// escaped in text. It refuses those, or takes octets behind them for theirs.
fn is_a_name_of_longer_text(words: &[&str], content: &[u8]) -> bool {
    let fields = if words[0] == "record" { words[2] } else { words[0] };
    let mut rest = content;
    for field in fields.split(',') {
        let len = match field {
            "fqdn" => {
                let len = wire_len(rest).unwrap_or(0);
                let escaped = |octet: &u8| !(b'!'..=b'~').contains(octet) || b"\"$().;@\\".contains(octet);
                return len == 1 || Labels::new(&rest[..len]).any(|label| label.iter().any(escaped));
            }
            "uint16" => 2,
            _ => 1,
        };
        rest = rest.get(len..).unwrap_or_default();
    }
    false
}

#[test]
fn options_are_refused_where_kea_refuses_them() {
    let text = recorded();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let (contents, definitions): (Vec<&str>, Vec<&str>) = lines
        .filter(|line| !["contents", "definitions"].contains(line))
        .partition(|line| !line.contains(' '));
    let contents: Vec<Vec<u8>> = contents.into_iter().map(octets).collect();
    let (mut refused, mut otherwise) = (0, 0);
    for line in &definitions {
        let words: Vec<&str> = line.split(' ').collect();
        let plan = defined(CODE, &words);
        assert_eq!(words[4].len(), contents.len(), "{line}");
        for (content, fate) in contents.iter().zip(words[4].bytes()) {
            let ours = parsed(&plan, CODE, content).err();
            let kea = (fate == b'D').then_some(DropReason::ParseOption);
            refused += usize::from(ours.is_some());
            if ours != kea {
                assert!(
                    is_a_name_of_longer_text(&words, content),
                    "{:?} {}: {ours:?}, Kea {kea:?}",
                    &words[..4],
                    content.escape_ascii()
                );
                otherwise += 1;
            }
        }
    }
    assert_eq!((definitions.len(), contents.len()), (62, 192), "the record is whole");
    assert!(refused > 3000 && otherwise < 60, "{refused} refused, {otherwise} judged otherwise than by Kea");
}

#[test]
fn options_that_depend_on_a_class_are_never_refused() {
    for code in [43, 224, 254] {
        let plan = defined(code, &["uint32", "-", "-", "-"]);
        assert_eq!(parsed(&plan, code, &[1]), Ok(Some(vec![1])), "{code}");
    }
    let plan = defined(223, &["uint32", "-", "-", "-"]);
    assert_eq!(parsed(&plan, 223, &[1]), Err(DropReason::ParseOption));
}

#[test]
fn sub_options_of_a_relay_are_judged_once_they_are_defined() {
    let plan = |definitions: &str| crate::plan(&format!("\"option-def\": [ {definitions} ]"));
    let content = [1, 1, b'a', 200, 3, 0, 0, 0];
    assert_eq!(parsed(&plan(""), 82, &content), Ok(Some(content.to_vec())));
    let defined =
        plan(r#"{ "name": "x", "code": 200, "type": "uint32", "space": "dhcp-agent-options-space" }"#);
    assert_eq!(parsed(&defined, 82, &content), Err(DropReason::ParseOption));
    assert_eq!(parsed(&defined, 82, &[200, 4, 0, 0, 0, 1]), Ok(Some(vec![200, 4, 0, 0, 0, 1])));
    assert_eq!(
        parsed(&defined, 82, &[1, 1, b'a', 200, 9]),
        Ok(Some(vec![1, 1, b'a'])),
        "a cut one ends them"
    );
}

#[test]
fn tuples_of_option_143_have_long_lengths_however_they_are_defined() {
    for plan in [crate::plan("\"valid-lifetime\": 1000"), defined(143, &["tuple", "array", "-", "-"])] {
        assert_eq!(parsed(&plan, 143, &[0, 1, b'a']), Ok(Some(vec![0, 1, b'a'])));
        assert_eq!(parsed(&plan, 143, &[1, b'a']), Err(DropReason::ParseOption));
    }
}
