//! Client-class expressions against recorded results: values for one packet of each family, and what loading says.
//!
//! The data is one case to a line, so that a case can be added without touching this file. `load-*.txt` was recorded from
//! another server of the same language; a difference there is a text that operators know and would miss.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::net::Ipv4Addr;

use aplomado::config::finding::Report;
use aplomado::config::json::Placed;
use aplomado::config::option::{self, Definitions};
use aplomado::config::tree::OptionDef;
use aplomado::expr::{
    ClassSet, Content, EvalError, Family, Field, Names, RelayLevel, Scratch, Short, Subject, Subject4,
    compile_bool, compile_string, is_built_in_class,
};
use aplomado::ids::{ClassId, InterfaceId};
use aplomado::wire::option::{OptionTable, Walk};
use aplomado::wire::{Query, dhcp4, frame};
use proptest::prelude::*;

/// Counts what each thread allocates.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: every call is passed on to the system's allocator unchanged; the counter is a thread's own and needs no
// allocation itself.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: as for this function.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: as for this function.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Names as a small configuration has them.
#[derive(Default)]
struct Known {
    /// Definitions besides the standard ones.
    added: Vec<OptionDef>,
}

const CLASSES: [&str; 4] = ["ALL", "early", "KNOWN", "UNKNOWN"];

impl Names for Known {
    fn option_code(&self, name: &str) -> Option<u16> {
        (name == "host-name").then_some(12)
    }

    fn class(&self, name: &str) -> Option<ClassId> {
        if let Some(index) = CLASSES.iter().position(|known| *known == name) {
            return Some(ClassId(u16::try_from(index).expect("few")));
        }
        is_built_in_class(name).then_some(ClassId(9))
    }

    fn content(&self, family: Family, path: &[u16]) -> Content {
        self.definitions(family).content(path)
    }

    fn sub_options_at(&self, family: Family, path: &[u16]) -> Option<u16> {
        self.definitions(family).sub_options_at(path)
    }
}

impl Known {
    fn definitions(&self, family: Family) -> Definitions {
        let mut definitions = Definitions::new(match family {
            Family::V4 => option::Family::V4,
            Family::V6 => option::Family::V6,
        });
        let mut report = Report::default();
        definitions.add_all(&self.added, &mut report);
        assert_eq!(report.errors(), 0, "good definitions");
        definitions
    }
}

/// The relayed DISCOVER that the values are about, as a whole frame.
fn packet4(options: &[u8]) -> Vec<u8> {
    let mut message = vec![0; dhcp4::FIXED_BYTES];
    message[..8].copy_from_slice(&[1, 1, 6, 1, 1, 2, 3, 4]);
    message[24..28].copy_from_slice(&[192, 0, 2, 5]);
    message[28..34].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
    message.extend([0x63, 0x82, 0x53, 0x63]);
    message.extend(options);
    let mut bytes = vec![0; frame::PAYLOAD_OFFSET];
    bytes.extend(&message);
    let addresses = frame::Addresses {
        l2_src: [2, 0, 0, 0, 0, 9],
        l2_dst: [2, 0, 0, 0, 0, 8],
        src: Ipv4Addr::new(192, 0, 2, 5),
        dst: Ipv4Addr::new(192, 0, 2, 1),
        src_port: 67,
        dst_port: 67,
    };
    frame::emit(&mut bytes, &addresses, message.len()).expect("the frame is large enough");
    bytes
}

fn options4() -> Vec<u8> {
    let parts: [(u8, &[u8]); 11] = [
        (53, &[1]),
        (12, b"Foo.Bar"),
        (50, &[192, 0, 2, 15]),
        (55, &[1, 3]),
        (60, b"Aastra 55i"),
        (61, &[1, 2, 3, 4, 5, 6, 7]),
        (116, &[1]),
        (124, b"\x00\x00\x11\x8b\x05\x04abcd"),
        (125, b"\x00\x00\x11\x8b\x06\x02\x04wxyz"),
        (82, b"\x01\x04eth1\x02\x03abc\x05\x04\xc0\x00\x02\x00"),
        (43, &[1, 1, 7]),
    ];
    let mut options = Vec::new();
    for (code, data) in parts {
        options.extend([code, u8::try_from(data.len()).expect("short")]);
        options.extend(data);
    }
    options.push(255);
    options
}

/// Runs `check` on the frame's query with class ALL.
fn with_subject4(bytes: &[u8], interprets_private: bool, check: impl FnOnce(&Subject4<'_>)) {
    let datagram = frame::parse(bytes, frame::Arrival::default()).expect("a good frame");
    let payload = datagram.payload(bytes);
    let mut table = OptionTable::new();
    let Ok(head) = dhcp4::parse(payload, &mut table) else { return };
    let query = Query::new(&datagram, payload, &table, head, InterfaceId(0)).expect("a message");
    let mut classes = ClassSet::new();
    classes.insert(ClassId(0)).expect("room");
    check(&Subject4 { query, interface: b"v0", classes: &classes, interprets_private });
}

/// A SOLICIT that two relays passed on, and its options.
struct Solicit {
    options: Vec<u8>,
    levels: Vec<(u16, u16, Vec<u8>)>,
}

impl Solicit {
    fn new() -> Self {
        let mut options = vec![0, 1, 0, 10, 0, 3, 0, 1, 2, 0, 0, 0, 0, 1];
        let mut iaaddr = "2001:db8::9".parse::<std::net::Ipv6Addr>().expect("an address").octets().to_vec();
        iaaddr.extend([0; 8]);
        options.extend([0, 3, 0, 40]);
        options.extend([0; 12]);
        options.extend([0, 5, 0, 24]);
        options.extend(iaaddr);
        options.extend(*b"\x00\x11\x00\x09\x00\x00\x00\x09\x01\x02\x00\x01x");
        options.extend(*b"\x00\x10\x00\x0e\x00\x00\x00\x09\x00\x03one\x00\x03two");
        Self {
            options,
            levels: vec![(1, 1, b"\x00\x12\x00\x01o".to_vec()), (2, 2, b"\x00\x12\x00\x01i".to_vec())],
        }
    }
}

impl Subject for Solicit {
    fn option(&self, code: u16) -> Option<&[u8]> {
        Walk::<2>::new(&self.options).find(code)
    }

    fn interprets(&self, _code: u16) -> bool {
        true
    }

    fn field(&self, field: Field) -> Short {
        match field {
            Field::MessageType => Short::number(1),
            Field::TransactionId => Short::number(0x0001_0203),
            Field::Source => {
                Short::new(&"fe80::9".parse::<std::net::Ipv6Addr>().expect("an address").octets())
            }
            _ => Short::EMPTY,
        }
    }

    fn interface(&self) -> &[u8] {
        b"v0"
    }

    fn member(&self, class: ClassId) -> bool {
        class == ClassId(0)
    }

    fn relay(&self, level: i8) -> Option<RelayLevel<'_>> {
        let count = i8::try_from(self.levels.len()).expect("few");
        let index = if level < 0 { level + count } else { level };
        let (link, peer, options) = self.levels.get(usize::try_from(index).ok()?)?;
        let link = if *link == 1 { "2001:db8::1".to_owned() } else { format!("2001:db8:{link}::1") };
        let link = link.parse::<std::net::Ipv6Addr>().expect("an address").octets();
        let peer = format!("fe80::{peer}").parse::<std::net::Ipv6Addr>().expect("an address").octets();
        Some(RelayLevel { link, peer, options })
    }
}

/// The cases of a file: fields between tabs, comments left out.
fn cases(data: &str) -> impl Iterator<Item = Vec<&str>> {
    data.lines().filter(|line| !line.starts_with('#')).map(|line| line.split('\t').collect())
}

/// The value of an expression in the notation of the data; the notation says which type to expect.
fn value(expression: &str, expected: &str, family: Family, subject: &impl Subject) -> String {
    let mut scratch = Scratch::new();
    let show = |error: EvalError| {
        assert!(!error.to_string().is_empty());
        "error".to_owned()
    };
    match compile_bool(expression, family, &Known::default()) {
        Ok(program) => program.eval_bool(subject, &mut scratch).map_or_else(show, |truth| truth.to_string()),
        Err(_) => {
            let program = compile_string(expression, family, &Known::default()).expect("one of the types");
            match program.eval_string(subject, &mut scratch) {
                Err(error) => show(error),
                Ok(octets) if expected.starts_with('"') => format!("\"{}\"", String::from_utf8_lossy(octets)),
                Ok(octets) => octets.iter().map(|octet| format!("{octet:02x}")).collect::<Vec<_>>().join(" "),
            }
        }
    }
}

fn check_values(data: &str, family: Family, subject: &impl Subject) -> usize {
    let mut count = 0;
    for case in cases(data) {
        let [number, expression, expected] = case[..] else { panic!("three fields in {case:?}") };
        assert_eq!(value(expression, expected, family, subject), expected, "case {number}: {expression}");
        count += 1;
    }
    count
}

#[test]
fn expressions_have_the_recorded_values_for_a_v4_packet() {
    with_subject4(&packet4(&options4()), false, |subject| {
        let data = include_str!("data/expressions/values-v4.txt");
        assert!(check_values(data, Family::V4, subject) > 100);
    });
}

#[test]
fn expressions_have_the_recorded_values_for_a_v6_packet() {
    let data = include_str!("data/expressions/values-v6.txt");
    assert!(check_values(data, Family::V6, &Solicit::new()) > 15);
}

/// Octets of which only those are written as such that are no plain text.
fn unescape(text: &str) -> Vec<u8> {
    let mut octets = Vec::new();
    let mut rest = text;
    while let Some((plain, escaped)) = rest.split_once("\\x") {
        let (hex, after) = escaped.split_at(2);
        octets.extend(plain.as_bytes());
        octets.push(u8::from_str_radix(hex, 16).expect("hex"));
        rest = after;
    }
    octets.extend(rest.as_bytes());
    octets
}

fn unhex(text: &str) -> Vec<u8> {
    let pairs = text.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).expect("ASCII"));
    pairs.map(|pair| u8::from_str_radix(pair, 16).expect("hex")).collect()
}

/// The text of `expression` for a query with these options.
fn text_of(names: &Known, options: &[u8], expression: &str, interprets_private: bool) -> Vec<u8> {
    let mut all = vec![53, 1, 1];
    all.extend(options);
    all.push(255);
    let program = compile_string(expression, Family::V4, names).expect("good");
    let mut text = None;
    with_subject4(&packet4(&all), interprets_private, |subject| {
        text = Some(program.eval_string(subject, &mut Scratch::new()).expect("printable").to_vec());
    });
    text.unwrap_or_else(|| panic!("a good packet for {expression}"))
}

#[test]
fn text_of_options_is_what_kea_prints() {
    let mut names = Known::default();
    let (mut wrong, mut count) = (Vec::new(), 0);
    for case in cases(include_str!("data/expressions/text-v4.txt")) {
        if let ["definition", code, space, name, kind, repeats, fields, encapsulates] = case[..] {
            let mut written = OptionDef::default();
            written.code.value = code.parse().expect("a code");
            written.space = Some(Placed { value: space.to_owned(), ..Placed::default() });
            written.name.value = name.to_owned();
            written.type_word.value = kind.to_owned();
            written.array = repeats == "yes";
            written.record_types.value = fields.to_owned();
            written.encapsulate.value = encapsulates.to_owned();
            names.added.push(written);
            continue;
        }
        let [options, expression, expected] = case[..] else { panic!("three fields in {case:?}") };
        count += 1;
        let found = text_of(&names, &unhex(options), expression, false);
        if found != unescape(expected) {
            wrong.push(format!("{options} {expression}\n  {expected}\n  {}", found.escape_ascii()));
        }
    }
    assert!(wrong.is_empty(), "{} of {count}:\n{}", wrong.len(), wrong.join("\n"));
    assert!(count > 100, "{count} cases");
}

/// Kea 2.2 does not know these; what it prints of others like them is known.
#[test]
fn text_of_options_with_newer_definitions() {
    let text = |options: &[u8], expression: &str, late: bool| {
        String::from_utf8(text_of(&Known::default(), options, expression, late)).expect("text")
    };
    assert_eq!(
        text(&[151, 3, 1, b'h', b'i'], "option[151].text", false),
        "type=151, len=003: 1 (uint8) \"hi\" (string)"
    );
    assert_eq!(text(&[43, 3, 1, 1, 7], "option[43].text", false), "type=043, len=003: 01:01:07");
    assert_eq!(
        text(&[43, 3, 1, 1, 7], "option[43].text", true),
        "type=043, len=003:,\noptions:\n  type=001, len=001: 07",
        "when classes are known"
    );
    let relay = [82, 16, 1, 2, b'e', b'0', 5, 4, 192, 0, 2, 0, 6, 2, b'm', b'e', 19, 0];
    assert_eq!(
        text(&relay, "option[82].text", false),
        "type=082, len=016:,\noptions:\n  type=001, len=002: 65:30\n  type=005, len=004: 192.0.2.0 (ipv4-address)\n  \
         type=006, len=002: \"me\" (string)\n  type=019, len=000: "
    );
    assert_eq!(text(&relay, "relay4[6].text", false), "me");
}

proptest! {
    /// Whatever the octets: text or a refusal, in bounds.
    #[test]
    fn every_option_prints(
        code in any::<u8>(), data in proptest::collection::vec(any::<u8>(), 0..300), family in any::<bool>()
    ) {
        let (family, expression) = if family { (Family::V4, format!("option[{code}].text")) } else {
            (Family::V6, format!("option[{code}].text"))
        };
        let program = compile_string(&expression, family, &Known::default()).expect("good");
        let mut scratch = Scratch::new();
        let _ = program.eval_string(&Only { code: u16::from(code), data }, &mut scratch);
    }
}

/// A packet with one option.
struct Only {
    code: u16,
    data: Vec<u8>,
}

impl Subject for Only {
    fn option(&self, code: u16) -> Option<&[u8]> {
        (code == self.code).then_some(&self.data[..])
    }

    fn interprets(&self, _code: u16) -> bool {
        true
    }

    fn field(&self, _field: Field) -> Short {
        Short::EMPTY
    }

    fn interface(&self) -> &[u8] {
        b""
    }

    fn member(&self, _class: ClassId) -> bool {
        false
    }

    fn relay(&self, _level: i8) -> Option<RelayLevel<'_>> {
        None
    }
}

fn check_loading(data: &str, family: Family) {
    let mut count = 0;
    let mut wrong = Vec::new();
    for case in cases(data) {
        let [expression, expected] = case[..] else { panic!("two fields in {case:?}") };
        let found = match compile_bool(&expression.replace("\\n", "\n"), family, &Known::default()) {
            Ok(_) => "OK".to_owned(),
            Err(error) => {
                let (position, reason) = (error.position(), error.reason());
                assert!(error.to_string().ends_with(&format!("] error: <string>:{position}: {reason}")));
                format!("{position}: {reason}")
            }
        };
        if found != expected {
            wrong.push(format!("{expression}\n  expected {expected}\n  found    {found}"));
        }
        count += 1;
    }
    assert!(wrong.is_empty(), "{} of {count}:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn loading_says_what_operators_know_for_v4() {
    check_loading(include_str!("data/expressions/load-v4.txt"), Family::V4);
}

#[test]
fn loading_says_what_operators_know_for_v6() {
    check_loading(include_str!("data/expressions/load-v6.txt"), Family::V6);
}

#[test]
fn parsing_and_evaluation_allocate_nothing() {
    let mut programs = Vec::new();
    for case in cases(include_str!("data/expressions/values-v4.txt")) {
        programs.push(
            compile_bool(case[1], Family::V4, &Known::default())
                .or_else(|_| compile_string(case[1], Family::V4, &Known::default()))
                .expect("one of the types"),
        );
    }
    let bytes = packet4(&options4());
    let mut scratch = Scratch::new();
    let before = ALLOCATIONS.get();
    for _ in 0..100 {
        with_subject4(&bytes, true, |subject| {
            for program in &programs {
                if program.eval_bool(subject, &mut scratch) == Err(EvalError::WrongType) {
                    let _ = program.eval_string(subject, &mut scratch);
                }
            }
        });
    }
    assert_eq!(ALLOCATIONS.get() - before, 0);
    drop(vec![0_u8; 10]);
    assert_eq!(ALLOCATIONS.get() - before, 2, "the counter counts");
}

#[test]
fn private_options_are_interpreted_only_after_the_first_stage() {
    let program =
        compile_bool("option[43].option[1].hex == 0x07", Family::V4, &Known::default()).expect("good");
    let there = compile_bool("option[43].hex == 0x010107", Family::V4, &Known::default()).expect("good");
    for interprets in [false, true] {
        with_subject4(&packet4(&options4()), interprets, |subject| {
            let mut scratch = Scratch::new();
            assert_eq!(program.eval_bool(subject, &mut scratch), Ok(interprets));
            assert_eq!(there.eval_bool(subject, &mut scratch), Ok(true));
        });
    }
}

#[test]
fn a_program_knows_the_classes_that_it_asks_for() {
    let text = "member('KNOWN') and not (member('early') or member('KNOWN'))";
    let program = compile_bool(text, Family::V4, &Known::default()).expect("good");
    assert_eq!(program.members().collect::<Vec<_>>(), [ClassId(2), ClassId(1)]);
    assert!(program.depends_on(ClassId(2)) && !program.depends_on(ClassId(0)));
}

#[test]
fn a_program_of_the_other_type_is_an_error() {
    with_subject4(&packet4(&options4()), false, |subject| {
        let mut scratch = Scratch::new();
        let truth = compile_bool("member('ALL')", Family::V4, &Known::default()).expect("good");
        assert_eq!(truth.eval_string(subject, &mut scratch), Err(EvalError::WrongType));
        let octets = compile_string("'a'", Family::V4, &Known::default()).expect("good");
        assert_eq!(octets.eval_bool(subject, &mut scratch), Err(EvalError::WrongType));
        assert!(compile_string("member('ALL')", Family::V4, &Known::default()).is_err());
    });
}

#[test]
fn what_cannot_be_bounded_is_refused_at_load() {
    let refused = |text: &str| {
        let error = compile_bool(text, Family::V4, &Known::default()).expect_err("too much");
        error.reason().to_owned()
    };
    assert!(refused(&format!("{}'a'=='a'{}", "(".repeat(65), ")".repeat(65))).contains("nested"));
    assert!(refused(&format!("{}'a'=='a'", "not ".repeat(100_000))).contains("nested"));
    let deep = |count: usize| format!("{}'a'{} == 'b'", "concat('x',".repeat(count), ")".repeat(count));
    assert!(compile_bool(&deep(20), Family::V4, &Known::default()).is_ok());
    assert!(refused(&deep(30)).contains("strings pending"));
    let terms = vec!["'a'=='b'"; 70];
    assert!(refused(&terms.join(" sand ")).contains("truths pending"));
    assert!(compile_bool(&terms.join(" and "), Family::V4, &Known::default()).is_ok());
    let twice = "hexstring(hexstring(hexstring(option[61].hex,'::'),'::'),'::') == ''";
    assert!(refused(twice).contains("octets to put strings together"));
}

#[test]
fn long_options_that_overrun_the_scratch_are_an_error_not_a_crash() {
    let mut options = vec![53, 1, 1];
    for _ in 0..5 {
        options.extend([61, 255]);
        options.extend([7; 255]);
    }
    options.push(255);
    let text = "hexstring(option[61].hex,'-------------')+hexstring(option[61].hex,'-------------') == 'a'";
    let program = compile_bool(text, Family::V4, &Known::default())
        .expect("fits when options are as long as one can be");
    with_subject4(&packet4(&options), false, |subject| {
        assert_eq!(program.eval_bool(subject, &mut Scratch::new()), Err(EvalError::TooLong));
    });
}

/// Texts of random expressions, right and wrong ones.
fn strings() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        "'[a-z .:]{0,6}'",
        "0x[0-9a-f]{1,9}",
        (0_u32..=u32::MAX).prop_map(|number| number.to_string()),
        Just("192.0.2.1".to_owned()),
        Just("2001:db8::1".to_owned()),
        (0_u8..=255).prop_map(|code| format!("option[{code}].hex")),
        (0_u8..=255).prop_map(|code| format!("option[{code}].text")),
        (0_u8..20).prop_map(|code| format!("relay4[{code}].text")),
        ((0_u8..=255), (0_u8..=20)).prop_map(|(code, sub)| format!("option[{code}].option[{sub}].hex")),
        prop_oneof!["pkt4\\.(mac|hlen|htype|giaddr|msgtype|transid)", "pkt\\.(iface|src|dst|len)"],
        Just("vendor.enterprise".to_owned()),
        Just("vendor[*].option[2].hex".to_owned()),
        Just("vendor-class[4491].data[0]".to_owned()),
    ];
    leaf.prop_recursive(5, 40, 3, |inner| {
        let numbers = (-300_i64..300, -300_i64..300);
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("{a} + {b}")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("concat({a},{b})")),
            (inner.clone(), numbers).prop_map(|(a, (n, m))| format!("substring({a},{n},{m})")),
            (inner.clone(), -300_i64..300).prop_map(|(a, n)| format!("substring({a},{n},all)")),
            (inner.clone(), inner.clone(), -2_i64..5).prop_map(|(a, b, n)| format!("split({a},{b},{n})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("hexstring({a},{b})")),
            (inner.clone(), inner.clone(), inner.clone(), "s?", "(and|or|sand|sor)").prop_map(
                |(a, b, c, strict, word)| {
                    format!("{strict}ifelse({a} == {b} {word} not ({c} == {a}), {b}, ({c}))")
                }
            ),
            (inner, "(lcase|ucase|addrtotext|u?int8totext|u?int16totext|u?int32totext)")
                .prop_map(|(a, call)| format!("{call}({a})")),
        ]
    })
}

proptest! {
    #[test]
    fn evaluation_never_panics(
        texts in proptest::collection::vec(strings(), 1..4),
        parts in proptest::collection::vec((any::<u8>(), proptest::collection::vec(any::<u8>(), 0..40)), 0..20),
        interprets: bool,
    ) {
        let mut options = Vec::new();
        for (code, data) in parts {
            options.extend([code, u8::try_from(data.len()).expect("short")]);
            options.extend(data);
        }
        for options in [options, options4()] {
            with_subject4(&packet4(&options), interprets, |subject| {
                let mut scratch = Scratch::new();
                for text in &texts {
                    if let Ok(program) = compile_string(text, Family::V4, &Known::default()) {
                        let _ = program.eval_string(subject, &mut scratch);
                    }
                    if let Ok(program) = compile_bool(&format!("{text} == 'x' or match('.*a', {text})"), Family::V4, &Known::default()) {
                        let _ = program.eval_bool(subject, &mut scratch);
                    }
                }
            });
        }
    }

    #[test]
    fn loading_never_panics(text in "[ -~\n\té]{0,40}", words in proptest::collection::vec(
        prop_oneof!["option|relay4|relay6|vendor|vendor-class|pkt|pkt4|member|match|substring|concat|ifelse|not|and|or",
            "\\[|\\]|\\.|\\(|\\)|==|\\+|,|'a'|12|hex|text|exists|data|\\*|-1|all"], 0..12)) {
        let _ = compile_bool(&text, Family::V4, &Known::default());
        let _ = compile_string(&words.join(" "), Family::V6, &Known::default());
        let _ = compile_bool(&words.join(""), Family::V4, &Known::default());
    }
}
