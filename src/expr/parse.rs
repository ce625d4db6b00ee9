//! From text to a tree, with names and ranges checked on the way.
//!
//! One token is looked at in advance, and only when it is needed: a name is judged before the token behind it is read, so
//! that of two mistakes the left one is reported. What "expecting" lists is what could stand there, as long as that is
//! no more than four things.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::ast::{Bool, Enterprise, Expr, Place, Root, Str, VendorOption};
use super::lex::{Kind, Lexer, Span, Token};
use super::pattern::Pattern;
use super::subject::Field;
use super::{Family, NESTING_MAX, Names};

/// Where a mistake is, and what it is.
pub(super) type Mistake = (Span, Box<str>);

/// A whole text as a truth.
pub(super) fn parse_bool(text: &str, family: Family, names: &dyn Names) -> Result<Bool, Mistake> {
    let mut parser = Parser::new(text, family, names);
    let expression = parser.boolean()?;
    parser.end(&["end of file"])?;
    Ok(expression)
}

/// A whole text as octets.
pub(super) fn parse_string(text: &str, family: Family, names: &dyn Names) -> Result<Str, Mistake> {
    let mut parser = Parser::new(text, family, names);
    let expression = parser.string()?;
    parser.end(&["end of file", "+"])?;
    Ok(expression)
}

/// Binary operators on truths, loosest first.
const LEVELS: [&str; 4] = ["sor", "or", "sand", "and"];

/// What may stand behind a place: its value, or whether it is there too.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Any,
    Octets,
}

struct Parser<'t> {
    lexer: Lexer<'t>,
    ahead: Option<Token<'t>>,
    family: Family,
    names: &'t dyn Names,
    nesting: usize,
}

impl<'t> Parser<'t> {
    fn new(text: &'t str, family: Family, names: &'t dyn Names) -> Self {
        Self { lexer: Lexer::new(text), ahead: None, family, names, nesting: 0 }
    }

    fn peek(&mut self) -> Result<Token<'t>, Mistake> {
        if let Some(token) = self.ahead {
            return Ok(token);
        }
        let token = self.lexer.next()?;
        self.ahead = Some(token);
        Ok(token)
    }

    fn at(&mut self, word: &str) -> Result<bool, Mistake> {
        Ok(matches!(self.peek()?.kind, Kind::Word(found) if found == word))
    }

    /// Takes `word` if it is next.
    fn take(&mut self, word: &str) -> Result<bool, Mistake> {
        let found = self.at(word)?;
        if found {
            self.ahead = None;
        }
        Ok(found)
    }

    /// Takes a token of `kind`, or says that one of `expected` should have been there.
    fn kind(&mut self, kind: Kind, expected: &[&str]) -> Result<Token<'t>, Mistake> {
        let token = self.peek()?;
        if token.kind != kind {
            return Err(unexpected(token, expected));
        }
        self.ahead = None;
        Ok(token)
    }

    fn word(&mut self, word: &'static str, expected: &[&str]) -> Result<(), Mistake> {
        self.kind(Kind::Word(word), expected).map(drop)
    }

    fn end(&mut self, expected: &[&str]) -> Result<(), Mistake> {
        self.kind(Kind::End, expected).map(drop)
    }

    fn nested<T>(&mut self, inner: impl FnOnce(&mut Self) -> Result<T, Mistake>) -> Result<T, Mistake> {
        if self.nesting == NESTING_MAX {
            let reason = format!("The expression is nested deeper than {NESTING_MAX} levels.");
            return Err((self.peek()?.span, reason.into()));
        }
        self.nesting += 1;
        let result = inner(self);
        self.nesting -= 1;
        result
    }

    // Truths.

    fn boolean(&mut self) -> Result<Bool, Mistake> {
        self.level(0, None)
    }

    /// A run of the operators of `LEVELS[level]` and tighter; `first` is the first operand if it has been read already.
    fn level(&mut self, level: usize, first: Option<Bool>) -> Result<Bool, Mistake> {
        let Some(operator) = LEVELS.get(level) else {
            return match first {
                Some(first) => Ok(first),
                None => self.operand(),
            };
        };
        let first = self.level(level + 1, first)?;
        if !self.at(operator)? {
            return Ok(first);
        }
        let mut terms = vec![first];
        while self.take(operator)? {
            terms.push(self.level(level + 1, None)?);
        }
        let strict = operator.starts_with('s');
        Ok(if operator.ends_with("and") { Bool::All { strict, terms } } else { Bool::Any { strict, terms } })
    }

    fn operand(&mut self) -> Result<Bool, Mistake> {
        if self.take("not")? {
            return self.nested(|parser| Ok(Bool::Not(Box::new(parser.operand()?))));
        }
        match self.term(Wanted::Any)? {
            Expr::Bool(truth) => Ok(truth),
            Expr::Str(left) => {
                let left = self.rest_of_concat(left)?;
                self.word("==", &["==", "+"])?;
                Ok(Bool::Equal(left, self.string()?))
            }
        }
    }

    /// What stands between parentheses where both types may.
    fn either(&mut self) -> Result<Expr, Mistake> {
        let first = if self.at("not")? { Expr::Bool(self.operand()?) } else { self.term(Wanted::Any)? };
        let first = match first {
            Expr::Bool(truth) => truth,
            Expr::Str(left) => {
                let left = self.rest_of_concat(left)?;
                if !self.take("==")? {
                    return Ok(Expr::Str(left));
                }
                Bool::Equal(left, self.string()?)
            }
        };
        self.level(0, Some(first)).map(Expr::Bool)
    }

    // Octets.

    fn string(&mut self) -> Result<Str, Mistake> {
        let first = match self.term(Wanted::Octets)? {
            Expr::Str(first) => first,
            Expr::Bool(_) => return Err(unexpected(self.peek()?, &[])),
        };
        self.rest_of_concat(first)
    }

    fn rest_of_concat(&mut self, first: Str) -> Result<Str, Mistake> {
        if !self.at("+")? {
            return Ok(first);
        }
        let mut parts = vec![first];
        while self.take("+")? {
            match self.term(Wanted::Octets)? {
                Expr::Str(part) => parts.push(part),
                Expr::Bool(_) => return Err(unexpected(self.peek()?, &[])),
            }
        }
        Ok(Str::Concat(parts))
    }

    /// One term of either type; of octets alone when nothing else is `wanted`.
    fn term(&mut self, wanted: Wanted) -> Result<Expr, Mistake> {
        let token = self.peek()?;
        let constant = match token.kind {
            Kind::String => token.text.as_bytes()[1..token.text.len() - 1].to_vec(),
            Kind::HexString => hex(&token.text[2..]),
            Kind::Integer => self.number(token, u32::MAX)?.to_be_bytes().to_vec(),
            Kind::IpAddress => address(token)?,
            Kind::Word(word) => return self.word_term(token, word, wanted),
            Kind::End | Kind::OptionName => return Err(unexpected(token, &[])),
        };
        self.ahead = None;
        Ok(Expr::Str(Str::Const(constant)))
    }

    fn word_term(&mut self, token: Token<'t>, word: &'static str, wanted: Wanted) -> Result<Expr, Mistake> {
        let boolean_only = matches!(word, "member" | "match");
        if boolean_only && wanted == Wanted::Octets {
            return Err(unexpected(token, &[]));
        }
        if !TERMS.contains(&word) {
            return Err(unexpected(token, &[]));
        }
        self.ahead = None;
        match word {
            "(" => self.nested(|parser| parser.parenthesis(wanted)),
            "option" => self.option(wanted),
            "relay4" => self.relay4(token, wanted),
            "relay6" => self.relay6(wanted),
            "vendor" => self.vendor(VendorOption::Information, wanted),
            "vendor-class" => self.vendor(VendorOption::Class, wanted),
            "pkt" | "pkt4" | "pkt6" => self.field(token, word).map(Expr::Str),
            "member" => self.member().map(Expr::Bool),
            "match" => self.nested(Self::pattern).map(Expr::Bool),
            _ => self.nested(|parser| parser.call(word)).map(Expr::Str),
        }
    }

    fn parenthesis(&mut self, wanted: Wanted) -> Result<Expr, Mistake> {
        if wanted == Wanted::Octets {
            let inner = self.string()?;
            self.word(")", &[")", "+"])?;
            return Ok(Expr::Str(inner));
        }
        let inner = self.either()?;
        match inner {
            Expr::Bool(_) => self.word(")", &[")", "and", "or"])?,
            Expr::Str(_) => self.word(")", &[")", "==", "+"])?,
        }
        Ok(inner)
    }

    fn call(&mut self, word: &'static str) -> Result<Str, Mistake> {
        self.word("(", &["("])?;
        Ok(match word {
            "substring" => {
                let text = self.argument()?;
                let start = self.integer(&["integer"])?;
                self.word(",", &["\",\""])?;
                let len = if self.take("all")? { None } else { Some(self.integer(&["all", "integer"])?) };
                self.word(")", &[")"])?;
                Str::Substring { text: Box::new(text), start, len }
            }
            "split" => {
                let text = self.argument()?;
                let delimiters = self.argument()?;
                let field = self.integer(&["integer"])?;
                self.word(")", &[")"])?;
                Str::Split { text: Box::new(text), delimiters: Box::new(delimiters), field }
            }
            "concat" => {
                let left = self.argument()?;
                Str::Concat(vec![left, self.last_argument()?])
            }
            "ifelse" | "sifelse" => {
                let test = self.boolean()?;
                self.word(",", &["and", "or", "\",\""])?;
                let yes = self.argument()?;
                let no = self.last_argument()?;
                let strict = word == "sifelse";
                Str::IfElse { strict, test: Box::new(test), yes: Box::new(yes), no: Box::new(no) }
            }
            "lcase" | "ucase" => Str::Case { upper: word == "ucase", text: Box::new(self.last_argument()?) },
            "hexstring" => {
                let text = self.argument()?;
                let separator = self.last_argument()?;
                Str::HexString { text: Box::new(text), separator: Box::new(separator) }
            }
            "addrtotext" => Str::AddressText(Box::new(self.last_argument()?)),
            _ => {
                let bytes = if word.contains("16") {
                    2
                } else if word.contains("32") {
                    4
                } else {
                    1
                };
                let text = Box::new(self.last_argument()?);
                Str::IntegerText { bytes, signed: word.starts_with('i'), text }
            }
        })
    }

    /// Octets and the comma behind them.
    fn argument(&mut self) -> Result<Str, Mistake> {
        let argument = self.string()?;
        self.word(",", &["\",\"", "+"])?;
        Ok(argument)
    }

    /// Octets and the parenthesis behind them.
    fn last_argument(&mut self) -> Result<Str, Mistake> {
        let argument = self.string()?;
        self.word(")", &[")", "+"])?;
        Ok(argument)
    }

    /// A decimal number as such. Where it counts octets or fields, those beyond 63 bits are as good as the largest.
    fn integer(&mut self, expected: &[&str]) -> Result<i64, Mistake> {
        let token = self.kind(Kind::Integer, expected)?;
        let huge = if token.text.starts_with('-') { i64::MIN } else { i64::MAX };
        Ok(token.text.parse().unwrap_or(huge))
    }

    // Options.

    fn option(&mut self, wanted: Wanted) -> Result<Expr, Mistake> {
        self.word("[", &["["])?;
        let code = self.option_code(&[])?;
        self.word("]", &["]"])?;
        self.word(".", &["."])?;
        let place = Place { root: Root::Message, path: vec![code] };
        self.rest_of_place(place, wanted, true)
    }

    fn relay4(&mut self, token: Token<'t>, wanted: Wanted) -> Result<Expr, Mistake> {
        self.word("[", &["["])?;
        let code = self.sub_option_code()?;
        self.word("]", &["]"])?;
        self.word(".", &["."])?;
        let place = Place { root: Root::Message, path: vec![82, code] };
        let expression = self.rest_of_place(place, wanted, false)?;
        if self.family != Family::V4 {
            return Err((token.span, "relay4 can only be used in DHCPv4.".into()));
        }
        Ok(expression)
    }

    fn relay6(&mut self, wanted: Wanted) -> Result<Expr, Mistake> {
        self.word("[", &["["])?;
        let level = self.nest_level()?;
        self.word("]", &["]"])?;
        self.word(".", &["."])?;
        if self.take("option")? {
            self.word("[", &["["])?;
            let code = self.sub_option_code()?;
            self.word("]", &["]"])?;
            self.word(".", &["."])?;
            let place = Place { root: Root::Relay6(level), path: vec![code] };
            return self.rest_of_place(place, wanted, false);
        }
        let peer = self.take("peeraddr")?;
        if !peer {
            self.word("linkaddr", &["option", "peeraddr", "linkaddr"])?;
        }
        Ok(Expr::Str(Str::Relay6 { level, peer }))
    }

    fn vendor(&mut self, kind: VendorOption, wanted: Wanted) -> Result<Expr, Mistake> {
        if self.take(".")? {
            self.word("enterprise", &["enterprise"])?;
            return Ok(Expr::Str(Str::Enterprise(kind)));
        }
        self.word("[", &["[", "."])?;
        let enterprise = self.enterprise()?;
        self.word("]", &["]"])?;
        self.word(".", &["."])?;
        if wanted == Wanted::Any && self.take("exists")? {
            return Ok(Expr::Bool(Bool::VendorExists(kind, enterprise)));
        }
        if kind == VendorOption::Class {
            let expected: &[&str] = if wanted == Wanted::Any { &["exists", "data"] } else { &["data"] };
            self.word("data", expected)?;
            return self.vendor_data(enterprise);
        }
        let expected: &[&str] = if wanted == Wanted::Any { &["option", "exists"] } else { &["option"] };
        self.word("option", expected)?;
        self.word("[", &["["])?;
        let code = self.sub_option_code()?;
        self.word("]", &["]"])?;
        self.word(".", &["."])?;
        self.rest_of_place(Place { root: Root::Vendor(enterprise), path: vec![code] }, wanted, false)
    }

    fn vendor_data(&mut self, enterprise: Enterprise) -> Result<Expr, Mistake> {
        let mut index = 0;
        if self.take("[")? {
            let token = self.peek_integer(&["integer"])?;
            let number = self.number(token, u32::from(u8::MAX))?;
            index = u8::try_from(number).unwrap_or(u8::MAX);
            self.ahead = None;
            self.word("]", &["]"])?;
        }
        Ok(Expr::Str(Str::VendorData { enterprise, index }))
    }

    fn enterprise(&mut self) -> Result<Enterprise, Mistake> {
        if self.take("*")? {
            return Ok(None);
        }
        let token = self.peek_integer(&["*", "integer"])?;
        let number = self.number(token, u32::MAX)?;
        self.ahead = None;
        Ok(Some(number))
    }

    /// Sub-options, then what is asked of the last; the point before it has been read. In the path of a `plain` option
    /// sub-options have no names, and only behind its first code do messages list "option" as a way to go on.
    fn rest_of_place(&mut self, mut place: Place, wanted: Wanted, plain: bool) -> Result<Expr, Mistake> {
        let may_go_on = plain && !self.at("option")?;
        while self.take("option")? {
            self.word("[", &["["])?;
            let code = if plain { self.sub_option_code()? } else { self.option_code(&place.path)? };
            place.path.push(code);
            if place.path.len() > NESTING_MAX {
                let reason = format!("An option is nested deeper than {NESTING_MAX} levels.");
                return Err((self.peek()?.span, reason.into()));
            }
            self.word("]", &["]"])?;
            self.word(".", &["."])?;
        }
        if self.take("text")? {
            return Ok(Expr::Str(Str::Text(place)));
        }
        if self.take("hex")? {
            return Ok(Expr::Str(Str::Hex(place)));
        }
        if wanted == Wanted::Any && self.take("exists")? {
            return Ok(Expr::Bool(Bool::Exists(place)));
        }
        let all = ["option", "text", "hex", "exists"];
        let from = usize::from(!may_go_on);
        let to = if wanted == Wanted::Any { 4 } else { 3 };
        Err(unexpected(self.peek()?, &all[from..to]))
    }

    /// A code or a name; `path` is the option whose sub-option it is.
    fn option_code(&mut self, path: &[u16]) -> Result<u16, Mistake> {
        let token = self.peek()?;
        if token.kind != Kind::OptionName {
            return self.code(&["integer", "option name"]);
        }
        let code = if path.is_empty() {
            self.names.option_code(token.text)
        } else {
            self.names.sub_option_code(path, token.text)
        };
        let unknown = || (token.span, format!("option '{}' is not defined", token.text).into());
        let code = code.ok_or_else(unknown)?;
        self.ahead = None;
        Ok(code)
    }

    fn sub_option_code(&mut self) -> Result<u16, Mistake> {
        self.code(&["integer"])
    }

    fn code(&mut self, expected: &[&str]) -> Result<u16, Mistake> {
        let token = self.peek_integer(expected)?;
        let max = self.family.code_max();
        let code = integer_of(token)?;
        let code = u16::try_from(code).ok().filter(|code| *code <= max).ok_or_else(|| {
            let text = token.text;
            (token.span, format!("Option code has invalid value in {text}. Allowed range: 0..{max}").into())
        })?;
        self.ahead = None;
        Ok(code)
    }

    fn nest_level(&mut self) -> Result<i8, Mistake> {
        let token = self.peek_integer(&["integer"])?;
        if self.family != Family::V6 {
            return Err((token.span, "Nest level invalid for DHCPv4 packets".into()));
        }
        let level = integer_of(token)?;
        let level = i8::try_from(level).ok().filter(|level| (-32..=31).contains(level)).ok_or_else(|| {
            let text = token.text;
            (token.span, format!("Nest level has invalid value in {text}. Allowed range: -32..31").into())
        })?;
        self.ahead = None;
        Ok(level)
    }

    fn peek_integer(&mut self, expected: &[&str]) -> Result<Token<'t>, Mistake> {
        let token = self.peek()?;
        if token.kind == Kind::Integer { Ok(token) } else { Err(unexpected(token, expected)) }
    }

    fn number(&self, token: Token<'_>, max: u32) -> Result<u32, Mistake> {
        let number = integer_of(token)?;
        u32::try_from(number).ok().filter(|number| *number <= max).ok_or_else(|| {
            (token.span, format!("Invalid value in {}. Allowed range: 0..{max}", token.text).into())
        })
    }

    // The rest.

    fn field(&mut self, token: Token<'t>, word: &'static str) -> Result<Str, Mistake> {
        self.word(".", &["."])?;
        let field = self.peek()?;
        let Kind::Word(name) = field.kind else { return Err(unexpected(field, expected_fields(word))) };
        let expression = match (word, name) {
            ("pkt", "iface") => Str::Interface,
            ("pkt", "src") => Str::Field(Field::Source),
            ("pkt", "dst") => Str::Field(Field::Destination),
            ("pkt", "len") => Str::Field(Field::Length),
            ("pkt4", "mac") => Str::Field(Field::Mac),
            ("pkt4", "hlen") => Str::Field(Field::Hlen),
            ("pkt4", "htype") => Str::Field(Field::Htype),
            ("pkt4", "ciaddr") => Str::Field(Field::Ciaddr),
            ("pkt4", "giaddr") => Str::Field(Field::Giaddr),
            ("pkt4", "yiaddr") => Str::Field(Field::Yiaddr),
            ("pkt4", "siaddr") => Str::Field(Field::Siaddr),
            ("pkt4" | "pkt6", "msgtype") => Str::Field(Field::MessageType),
            ("pkt4" | "pkt6", "transid") => Str::Field(Field::TransactionId),
            _ => return Err(unexpected(field, expected_fields(word))),
        };
        match (word, self.family) {
            ("pkt4", Family::V6) => Err((token.span, "pkt4 can only be used in DHCPv4.".into())),
            ("pkt6", Family::V4) => Err((token.span, "pkt6 can only be used in DHCPv6.".into())),
            _ => {
                self.ahead = None;
                Ok(expression)
            }
        }
    }

    fn member(&mut self) -> Result<Bool, Mistake> {
        self.word("(", &["("])?;
        let token = self.kind(Kind::String, &["constant string"])?;
        self.word(")", &[")"])?;
        let name = &token.text[1..token.text.len() - 1];
        let unknown = || (token.span, format!("Not defined client class '{name}'").into());
        self.names.class(name).map(Bool::Member).ok_or_else(unknown)
    }

    fn pattern(&mut self) -> Result<Bool, Mistake> {
        self.word("(", &["("])?;
        let token = self.kind(Kind::String, &["constant string"])?;
        self.word(",", &["\",\""])?;
        let expression = &token.text[1..token.text.len() - 1];
        let pattern = Pattern::new(expression).map_err(|reason| {
            (token.span, format!("invalid regular expression '{expression}': {reason}").into())
        })?;
        Ok(Bool::Match(pattern, self.last_argument()?))
    }
}

/// Words that a term may begin with.
const TERMS: &[&str] = &[
    "(",
    "option",
    "relay4",
    "relay6",
    "vendor",
    "vendor-class",
    "pkt",
    "pkt4",
    "pkt6",
    "member",
    "match",
    "substring",
    "split",
    "concat",
    "ifelse",
    "sifelse",
    "lcase",
    "ucase",
    "hexstring",
    "addrtotext",
    "int8totext",
    "int16totext",
    "int32totext",
    "uint8totext",
    "uint16totext",
    "uint32totext",
];

const fn expected_fields(word: &str) -> &'static [&'static str] {
    match word.as_bytes() {
        b"pkt" => &["iface", "src", "dst", "len"],
        b"pkt6" => &["msgtype", "transid"],
        _ => &[],
    }
}

fn unexpected(token: Token<'_>, expected: &[&str]) -> Mistake {
    let mut reason = format!("syntax error, unexpected {}", token.kind.name());
    for (index, name) in expected.iter().enumerate() {
        reason.push_str(if index == 0 { ", expecting " } else { " or " });
        reason.push_str(name);
    }
    (token.span, reason.into())
}

fn integer_of(token: Token<'_>) -> Result<i64, Mistake> {
    let failed = |_| (token.span, format!("Failed to convert {} to an integer.", token.text).into());
    token.text.parse().map_err(failed)
}

/// Hex digits, a first one alone included.
fn hex(digits: &str) -> Vec<u8> {
    let digits: Vec<u8> =
        digits.bytes().filter_map(|digit| char::from(digit).to_digit(16)?.try_into().ok()).collect();
    let (first, pairs) = digits.split_at(digits.len() % 2);
    let pairs = pairs.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]);
    first.iter().copied().chain(pairs).collect()
}

fn address(token: Token<'_>) -> Result<Vec<u8>, Mistake> {
    let text = token.text;
    if let Ok(address) = text.parse::<Ipv4Addr>() {
        return Ok(address.octets().to_vec());
    }
    match text.parse::<Ipv6Addr>() {
        Ok(address) => Ok(address.octets().to_vec()),
        Err(_) => Err((token.span, format!("Failed to convert {text} to an IP address.").into())),
    }
}
