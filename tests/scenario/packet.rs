//! The notation: `discover mac=02:00:00:00:00:99 opt50=192.0.2.10 opt55=1,3`.
//!
//! A value is octets: `192.0.2.1`, `'text'`, `0x0102`, `u8:7`, `u16:7`, `u32:7`, `dn:foo.bar.` (labels), each perhaps followed by
//! `*N` (repeated), several joined by `+`; `-` is nothing at all. A bare number is as wide as the option wants it, a list
//! of numbers with commas one octet each.

use std::fmt::Write as _;
use std::net::Ipv4Addr;

use aplomado::wire::codes::MAGIC_COOKIE;
use aplomado::wire::frame::{self, Addresses, BROADCAST, PAYLOAD_OFFSET};

/// Where queries go to when nothing else is said.
pub(crate) const SERVER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// The server's hardware address.
pub(crate) const SERVER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

/// Splits at blanks outside of single quotes.
pub(crate) fn words(line: &str) -> Vec<&str> {
    let mut words = Vec::new();
    let (mut start, mut quoted) = (None, false);
    for (at, symbol) in line.char_indices() {
        if symbol == '\'' {
            quoted = !quoted;
        }
        match (symbol.is_whitespace() && !quoted, start) {
            (true, Some(from)) => {
                words.push(&line[from..at]);
                start = None;
            }
            (false, None) => start = Some(at),
            _ => {}
        }
    }
    words.extend(start.map(|from| &line[from..]));
    words
}

fn split_outside_quotes(text: &str, separator: char) -> Vec<&str> {
    let (mut parts, mut start, mut quoted) = (Vec::new(), 0, false);
    for (at, symbol) in text.char_indices() {
        if symbol == '\'' {
            quoted = !quoted;
        } else if symbol == separator && !quoted {
            parts.push(&text[start..at]);
            start = at + 1;
        }
    }
    parts.push(&text[start..]);
    parts
}

/// Octets of `0a:0b` or `0a0b`.
pub(crate) fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u32> = text.chars().filter_map(|symbol| symbol.to_digit(16)).collect();
    assert!(digits.len().is_multiple_of(2), "{text}: hexadecimal digits come in pairs");
    digits.chunks(2).map(|pair| u8::try_from(pair[0] * 16 + pair[1]).expect("two digits")).collect()
}

pub(crate) fn mac(text: &str) -> [u8; 6] {
    hex(text).try_into().unwrap_or_else(|_| panic!("{text}: a hardware address has six octets"))
}

fn number(text: &str) -> u32 {
    text.parse().unwrap_or_else(|_| panic!("{text}: expected a number"))
}

fn address(text: &str) -> Ipv4Addr {
    text.parse().unwrap_or_else(|_| panic!("{text}: expected an address"))
}

/// How wide a bare number is as content of option `code`.
fn wide(code: u8, value: u32) -> Vec<u8> {
    match code {
        2 | 24 | 35 | 38 | 51 | 58 | 59 | 91 | 108 => value.to_be_bytes().to_vec(),
        13 | 22 | 26 | 57 => u16::try_from(value).expect("two octets").to_be_bytes().to_vec(),
        _ => vec![u8::try_from(value).expect("one octet")],
    }
}

/// The octets that `text` stands for, as content of option `code`.
pub(crate) fn octets(code: u8, text: &str) -> Vec<u8> {
    if text == "-" {
        return Vec::new();
    }
    let mut all = Vec::new();
    for part in split_outside_quotes(text, '+') {
        let (part, count) = match part.rsplit_once('*') {
            Some((part, count)) if !count.ends_with('\'') => (part, number(count) as usize),
            _ => (part, 1),
        };
        let one = if let Some(text) = part.strip_prefix('\'') {
            text.strip_suffix('\'').expect("a closing quote").as_bytes().to_vec()
        } else if let Some(digits) = part.strip_prefix("0x") {
            hex(digits)
        } else if let Some(name) = part.strip_prefix("dn:") {
            let mut labels = Vec::new();
            for label in name.strip_suffix('.').unwrap_or(name).split('.').filter(|label| !label.is_empty()) {
                labels.push(u8::try_from(label.len()).expect("a short label"));
                labels.extend(label.as_bytes());
            }
            if name.ends_with('.') {
                labels.push(0);
            }
            labels
        } else if let Some(value) = part.strip_prefix("u8:") {
            vec![u8::try_from(number(value)).expect("one octet")]
        } else if let Some(value) = part.strip_prefix("u16:") {
            u16::try_from(number(value)).expect("two octets").to_be_bytes().to_vec()
        } else if let Some(value) = part.strip_prefix("u32:") {
            number(value).to_be_bytes().to_vec()
        } else if part.contains('.') {
            part.split(',').flat_map(|one| address(one).octets()).collect()
        } else if part.contains(',') {
            part.split(',').map(|one| u8::try_from(number(one)).expect("one octet")).collect()
        } else {
            wide(code, number(part))
        };
        all.extend(one.repeat(count));
    }
    all
}

fn kind_number(word: &str) -> Option<u8> {
    Some(match word {
        "discover" => 1,
        "offer" => 2,
        "request" => 3,
        "decline" => 4,
        "ack" => 5,
        "nak" => 6,
        "release" => 7,
        "inform" => 8,
        "untyped" => return None,
        other => u8::try_from(number(other)).expect("a message type"),
    })
}

/// The sub-options of `1:'eth0',5:192.0.2.0`.
fn relay_information(text: &str) -> Vec<u8> {
    let mut all = Vec::new();
    for one in split_outside_quotes(text, ',') {
        let (code, value) = one.split_once(':').expect("CODE:VALUE");
        let value = octets(0, value);
        all.push(u8::try_from(number(code)).expect("a code"));
        all.push(u8::try_from(value.len()).expect("a short sub-option"));
        all.extend(value);
    }
    all
}

/// Makes the frame of a query from its words.
///
/// Unless said otherwise: `mac` 02:00:00:00:00:99, from 0.0.0.0 port 68 to 255.255.255.255; a relayed query from its relay's address
/// and port 67 to the server; `unicast` sends from ciaddr to the server.
pub(crate) fn query(line: &str, xid: u32) -> Vec<u8> {
    let words = words(line);
    let mut fixed = [0_u8; 236];
    (fixed[0], fixed[1], fixed[2]) = (1, 1, 6);
    fixed[4..8].copy_from_slice(&xid.to_be_bytes());
    let mut client = mac("02:00:00:00:00:99");
    let (mut l2, mut from, mut to, mut port) = (None, None, None, None);
    let (mut ciaddr, mut giaddr) = (Ipv4Addr::UNSPECIFIED, Ipv4Addr::UNSPECIFIED);
    let mut chaddr: Option<Vec<u8>> = None;
    let mut hlen = None;
    let mut raw = Vec::new();
    let (mut unicast, mut end, mut cut) = (false, true, usize::MAX);
    let mut options = Vec::new();
    let mut cookie = MAGIC_COOKIE.to_vec();
    if let Some(kind) = kind_number(words[0]) {
        options.extend([53, 1, kind]);
    }
    let mut add = |code: u8, value: &[u8]| {
        // Long ones in pieces, as RFC 3396 has it.
        let mut rest = value;
        loop {
            let (piece, left) = rest.split_at(rest.len().min(255));
            options.extend([code, u8::try_from(piece.len()).expect("cut above")]);
            options.extend(piece);
            rest = left;
            if rest.is_empty() {
                break;
            }
        }
    };
    for word in &words[1..] {
        match word.split_once('=') {
            None if *word == "unicast" => unicast = true,
            None if *word == "noend" => end = false,
            None => panic!("{word}: no such word in a query"),
            Some(("mac", value)) => client = mac(value),
            Some(("chaddr", value)) => chaddr = Some(octets(0, value)),
            Some(("htype", value)) => fixed[1] = u8::try_from(number(value)).expect("one octet"),
            Some(("hlen", value)) => hlen = Some(u8::try_from(number(value)).expect("one octet")),
            Some(("op", value)) => fixed[0] = u8::try_from(number(value)).expect("one octet"),
            Some(("hops", value)) => fixed[3] = u8::try_from(number(value)).expect("one octet"),
            Some(("secs", value)) => fixed[8..10].copy_from_slice(&octets(57, value)),
            Some(("flags", "broadcast")) => fixed[10] = 0x80,
            Some(("flags", value)) => fixed[10..12].copy_from_slice(&octets(57, value)),
            Some(("ciaddr", value)) => ciaddr = address(value),
            Some(("giaddr", value)) => giaddr = address(value),
            Some(("from", value)) => from = Some(address(value)),
            Some(("to", value)) => to = Some(address(value)),
            Some(("sport", value)) => port = Some(u16::try_from(number(value)).expect("a port")),
            Some(("l2", value)) => l2 = Some(mac(value)),
            Some(("cookie", value)) => cookie = octets(0, value),
            Some(("cut", value)) => cut = number(value) as usize,
            Some(("cid", value)) => add(61, &octets(0, value)),
            Some(("want", value)) => add(50, &octets(50, value)),
            Some(("sid", value)) => add(54, &octets(54, value)),
            Some(("prl", value)) => add(55, &octets(55, value)),
            Some(("rai", value)) => add(82, &relay_information(value)),
            Some(("raw", value)) => raw = octets(0, value),
            Some((key, value)) => {
                let code = key.strip_prefix("opt").unwrap_or_else(|| panic!("{key}: no such key in a query"));
                let code = u8::try_from(number(code)).expect("a code");
                add(code, &octets(code, value));
            }
        }
    }
    let chaddr = chaddr.unwrap_or_else(|| client.to_vec());
    let len = chaddr.len().min(16);
    fixed[2] = hlen.unwrap_or_else(|| u8::try_from(chaddr.len()).expect("a hardware address"));
    fixed[28..28 + len].copy_from_slice(&chaddr[..len]);
    fixed[12..16].copy_from_slice(&ciaddr.octets());
    fixed[24..28].copy_from_slice(&giaddr.octets());
    let relayed = !giaddr.is_unspecified() && !giaddr.is_broadcast();
    let default_from = if relayed {
        giaddr
    } else if unicast {
        ciaddr
    } else {
        Ipv4Addr::UNSPECIFIED
    };
    let default_to = if relayed || unicast { SERVER } else { Ipv4Addr::BROADCAST };
    let dst = to.unwrap_or(default_to);
    let addresses = Addresses {
        l2_src: l2.unwrap_or(client),
        l2_dst: if dst.is_broadcast() { BROADCAST } else { SERVER_MAC },
        src: from.unwrap_or(default_from),
        dst,
        src_port: port.unwrap_or(if relayed { 67 } else { 68 }),
        dst_port: 67,
    };
    let mut payload = fixed.to_vec();
    payload.extend(cookie);
    payload.extend(options);
    payload.extend(raw);
    if end {
        payload.push(255);
    }
    payload.truncate(cut);
    let mut bytes = vec![0; PAYLOAD_OFFSET];
    bytes.extend(&payload);
    frame::emit(&mut bytes, &addresses, payload.len()).expect("room for a query");
    bytes
}

/// An answer, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) l2_dst: [u8; 6],
    pub(crate) to: Ipv4Addr,
    pub(crate) from: Ipv4Addr,
    pub(crate) port: u16,
    pub(crate) source_port: u16,
    pub(crate) fixed: Vec<u8>,
    /// As they stand on the wire.
    pub(crate) options: Vec<(u8, Vec<u8>)>,
}

impl Answer {
    /// Reads a whole frame with every length and checksum looked at.
    pub(crate) fn read(bytes: &[u8]) -> Self {
        let mut l2_dst = [0; 6];
        l2_dst.copy_from_slice(&bytes[..6]);
        assert_eq!(bytes[12..14], [8, 0], "IPv4 is what answers are made of");
        let ip = &bytes[14..];
        assert_eq!(ip[0], 0x45);
        let total = usize::from(u16::from_be_bytes([ip[2], ip[3]]));
        let ip = &ip[..total];
        assert_eq!(frame::checksum(&ip[..20]), [0, 0], "the checksum of the IP header");
        let udp = &ip[20..];
        assert_eq!(
            usize::from(u16::from_be_bytes([udp[4], udp[5]])),
            udp.len(),
            "the length in the UDP header"
        );
        let four = |at: usize| Ipv4Addr::new(ip[at], ip[at + 1], ip[at + 2], ip[at + 3]);
        let payload = &udp[8..];
        assert_eq!(payload[236..240], MAGIC_COOKIE);
        let mut options = Vec::new();
        let mut at = 240;
        while payload[at] != 255 {
            let len = usize::from(payload[at + 1]);
            options.push((payload[at], payload[at + 2..at + 2 + len].to_vec()));
            at += 2 + len;
        }
        Self {
            l2_dst,
            to: four(16),
            from: four(12),
            source_port: u16::from_be_bytes([udp[0], udp[1]]),
            port: u16::from_be_bytes([udp[2], udp[3]]),
            fixed: payload[..236].to_vec(),
            options,
        }
    }

    /// The content of option `code`, its pieces joined.
    pub(crate) fn option(&self, code: u8) -> Option<Vec<u8>> {
        let mut pieces = self.options.iter().filter(|(own, _)| *own == code).peekable();
        pieces.peek()?;
        Some(pieces.flat_map(|(_, piece)| piece.clone()).collect())
    }

    fn four(&self, at: usize) -> Ipv4Addr {
        Ipv4Addr::new(self.fixed[at], self.fixed[at + 1], self.fixed[at + 2], self.fixed[at + 3])
    }

    pub(crate) fn yiaddr(&self) -> Ipv4Addr {
        self.four(16)
    }

    /// `offer`, `ack`, `nak`, or a number.
    pub(crate) fn kind(&self) -> String {
        match self.option(53).as_deref() {
            Some([2]) => "offer".to_owned(),
            Some([5]) => "ack".to_owned(),
            Some([6]) => "nak".to_owned(),
            other => format!("{other:?}"),
        }
    }

    /// What it has under a key of an expectation, as text to compare.
    fn value(&self, key: &str) -> String {
        let hex = |octets: &[u8]| octets.iter().map(|octet| format!("{octet:02x}")).collect::<String>();
        let text = |field: &[u8]| {
            let len = field.iter().position(|octet| *octet == 0).unwrap_or(field.len());
            format!("'{}'", String::from_utf8_lossy(&field[..len]))
        };
        match key {
            "op" => self.fixed[0].to_string(),
            "htype" => self.fixed[1].to_string(),
            "hlen" => self.fixed[2].to_string(),
            "hops" => self.fixed[3].to_string(),
            "xid" => hex(&self.fixed[4..8]),
            "secs" => hex(&self.fixed[8..10]),
            "flags" => format!("0x{}", hex(&self.fixed[10..12])),
            "ciaddr" => self.four(12).to_string(),
            "yiaddr" => self.yiaddr().to_string(),
            "siaddr" => self.four(20).to_string(),
            "giaddr" => self.four(24).to_string(),
            "chaddr" => format!("0x{}", hex(&self.fixed[28..44])),
            "sname" => text(&self.fixed[44..108]),
            "file" => text(&self.fixed[108..236]),
            "to" => self.to.to_string(),
            "from" => self.from.to_string(),
            "port" => self.port.to_string(),
            "sport" => self.source_port.to_string(),
            "l2" if self.l2_dst == BROADCAST => "broadcast".to_owned(),
            "l2" => {
                let pairs: Vec<String> = self.l2_dst.iter().map(|octet| format!("{octet:02x}")).collect();
                pairs.join(":")
            }
            "opts" => {
                let codes: Vec<String> = self.options.iter().map(|(code, _)| code.to_string()).collect();
                codes.join(",")
            }
            other => panic!("{other}: no such key in an expectation"),
        }
    }

    /// What differs from the words of an expectation, one line each.
    pub(crate) fn differences(&self, words: &[&str]) -> Vec<String> {
        let mut wrong = Vec::new();
        let hex = |octets: &[u8]| octets.iter().map(|octet| format!("{octet:02x}")).collect::<String>();
        if words[0] != self.kind() {
            wrong.push(format!("expected {}, got {}", words[0], self.kind()));
        }
        for word in &words[1..] {
            let Some((key, value)) = word.split_once('=') else {
                let code = word.strip_prefix("no").unwrap_or_else(|| panic!("{word}: no such word"));
                let code = u8::try_from(number(code)).expect("a code");
                if let Some(content) = self.option(code) {
                    wrong.push(format!("expected no option {code}, got {}", hex(&content)));
                }
                continue;
            };
            if let Some(code) = key.strip_prefix("opt").and_then(|code| code.parse::<u8>().ok()) {
                let expected = octets(code, value);
                match self.option(code) {
                    Some(content) if content == expected => {}
                    Some(content) => wrong.push(format!(
                        "option {code}: expected {} ({value}), got {} ({})",
                        hex(&expected),
                        hex(&content),
                        String::from_utf8_lossy(&content)
                    )),
                    None => wrong.push(format!("option {code}: expected {value}, got none")),
                }
            } else if let Some(code) = key.strip_prefix("len").and_then(|code| code.parse::<u8>().ok()) {
                let lens: Vec<String> = self
                    .options
                    .iter()
                    .filter(|(own, _)| *own == code)
                    .map(|(_, piece)| piece.len().to_string())
                    .collect();
                if lens.join(",") != value {
                    wrong.push(format!("pieces of option {code}: expected {value}, got {}", lens.join(",")));
                }
            } else if key == "rai" {
                let expected = relay_information(value);
                let got = self.option(82).unwrap_or_default();
                if got != expected {
                    wrong.push(format!("option 82: expected {}, got {}", hex(&expected), hex(&got)));
                }
            } else if self.value(key) != value {
                wrong.push(format!("{key}: expected {value}, got {}", self.value(key)));
            }
        }
        wrong
    }

    /// Everything that two answers must have in common, one line for each field.
    pub(crate) fn fields(&self) -> Vec<(String, String)> {
        let keys = [
            "op", "htype", "hlen", "hops", "xid", "secs", "flags", "ciaddr", "yiaddr", "siaddr", "giaddr",
            "chaddr", "sname", "file", "to", "from", "port", "sport", "l2", "opts",
        ];
        let mut fields: Vec<(String, String)> =
            keys.iter().map(|key| ((*key).to_owned(), self.value(key))).collect();
        let mut codes: Vec<u8> = self.options.iter().map(|(code, _)| *code).collect();
        codes.dedup();
        for code in codes {
            let mut text = String::new();
            for (_, piece) in self.options.iter().filter(|(own, _)| *own == code) {
                for octet in piece {
                    write!(text, "{octet:02x}").expect("a string");
                }
                text.push(' ');
            }
            fields.push((format!("opt{code}"), text.trim_end().to_owned()));
        }
        fields
    }
}
