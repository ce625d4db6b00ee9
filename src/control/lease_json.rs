//! Leases as JSON, both ways, without values in between.
//!
//! Two encodings exist. The *dump* encoding of listings carries `cltt` and never `expire`; the *update* encoding of
//! `lease4-update`, `-add` and `-del` carries `expire` and never `cltt`. Members are printed in sorted order, as Kea does.
//!
//! A host name may hold any octet: it is printed by [`json::print_string`], which keeps the text valid JSON, and read
//! back as the same octets. A user context is kept and printed in Kea's printed form.
//!
//! Promises: no panic on any input; an unknown member is skipped.

use std::borrow::Cow;
use std::io::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};

use super::json::{self, Reader};
use crate::ids::{CLIENT_ID_BYTES_MAX, ColonHex, HW_ADDR_BYTES_MAX, HwAddr, SubnetId};
use crate::lease::{Lease4, Lease4Buf, LeaseState};

/// Longest host name taken from a command, octets.
pub const HOSTNAME_BYTES_MAX: usize = 255;
/// Longest user context taken from a command, octets of its printed form.
pub const USER_CONTEXT_BYTES_MAX: usize = 16 * 1024;

/// Prints a lease in the dump encoding.
pub fn print_dump(lease: &Lease4<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{ ");
    print_client_id(lease, out);
    // Writing to a vector cannot fail.
    let _ = write!(out, "\"cltt\": {}, ", lease.cltt);
    print_names(lease, out);
    print_rest(lease, None, out);
}

/// Prints a lease in the update encoding. `force_create` is for `lease4-update`; `origin` is what Kea adds from 2.4 on.
pub fn print_update(lease: &Lease4<'_>, force_create: bool, origin: Option<&str>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{ ");
    print_client_id(lease, out);
    let _ = write!(out, "\"expire\": {}, ", lease.expire());
    if force_create {
        out.extend_from_slice(b"\"force-create\": true, ");
    }
    print_names(lease, out);
    print_rest(lease, origin, out);
}

fn print_client_id(lease: &Lease4<'_>, out: &mut Vec<u8>) {
    if !lease.client_id.is_empty() {
        out.extend_from_slice(b"\"client-id\": \"");
        print_hex(lease.client_id, out);
        out.extend_from_slice(b"\", ");
    }
}

fn print_names(lease: &Lease4<'_>, out: &mut Vec<u8>) {
    let _ = write!(out, "\"fqdn-fwd\": {}, \"fqdn-rev\": {}, \"hostname\": ", lease.fqdn_fwd, lease.fqdn_rev);
    json::print_string(lease.hostname, out);
    out.extend_from_slice(b", \"hw-address\": \"");
    print_hex(lease.hw_addr.as_bytes(), out);
    let _ = write!(out, "\", \"ip-address\": \"{}\"", lease.address);
}

fn print_rest(lease: &Lease4<'_>, origin: Option<&str>, out: &mut Vec<u8>) {
    if let Some(origin) = origin {
        out.extend_from_slice(b", \"origin\": ");
        json::print_string(origin.as_bytes(), out);
    }
    if lease.pool_id != 0 {
        let _ = write!(out, ", \"pool-id\": {}", lease.pool_id);
    }
    let _ = write!(out, ", \"state\": {}, \"subnet-id\": {}", lease.state.number(), lease.subnet_id.0);
    if !lease.user_context.is_empty() {
        out.extend_from_slice(b", \"user-context\": ");
        // A context read from a lease file may be anything: what is no JSON map is shown as a string.
        let mut reader = Reader::new(lease.user_context);
        if reader.peek() == Some(b'{') && reader.skip().is_ok() && reader.end().is_ok() {
            match std::str::from_utf8(lease.user_context) {
                Ok(_) => out.extend_from_slice(lease.user_context),
                Err(_) => out.extend_from_slice(json::text_of(lease.user_context).as_bytes()),
            }
        } else {
            json::print_string(lease.user_context, out);
        }
    }
    let _ = write!(out, ", \"valid-lft\": {} }}", lease.valid_lft);
}

fn print_hex(octets: &[u8], out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (index, octet) in octets.iter().enumerate() {
        if index > 0 {
            out.push(b':');
        }
        out.extend_from_slice(&[DIGITS[usize::from(octet >> 4)], DIGITS[usize::from(octet & 15)]]);
    }
}

/// The members of a lease as they were given; what was not given is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeaseFields {
    /// `ip-address`.
    pub address: Option<Ipv4Addr>,
    /// `hw-address`, taken as Ethernet: the type does not travel.
    pub hw_addr: Option<HwAddr>,
    /// `client-id`.
    pub client_id: Option<Vec<u8>>,
    /// `subnet-id`.
    pub subnet_id: Option<u32>,
    /// `pool-id`.
    pub pool_id: Option<u32>,
    /// `valid-lft`, seconds.
    pub valid_lft: Option<u32>,
    /// `expire`, seconds since the Unix epoch.
    pub expire: Option<i64>,
    /// `cltt`, seconds since the Unix epoch.
    pub cltt: Option<i64>,
    /// `fqdn-fwd`.
    pub fqdn_fwd: Option<bool>,
    /// `fqdn-rev`.
    pub fqdn_rev: Option<bool>,
    /// `hostname`, lower-cased.
    pub hostname: Option<Vec<u8>>,
    /// `state`.
    pub state: Option<LeaseState>,
    /// `user-context`, with `comment` merged into it, in Kea's printed form.
    pub user_context: Option<Vec<u8>>,
    /// `force-create`.
    pub force_create: Option<bool>,
    /// Whether `origin` is `ha-partner` (Kea sends it from 2.4 on).
    pub from_partner: bool,
}

impl LeaseFields {
    /// Reads the map at the reader.
    ///
    /// # Errors
    /// What is wrong with which member, and where.
    pub fn read(reader: &mut Reader<'_>) -> Result<Self, String> {
        let mut fields = Self::default();
        let mut comment = None;
        let mut context = None;
        let json_fault = |error: json::JsonError| error.to_string();
        reader.open(b'{').map_err(json_fault)?;
        let mut first = true;
        while let Some(key) = reader.key(&mut first).map_err(json_fault)? {
            match key.as_ref() {
                b"ip-address" => fields.address = Some(read_address(reader)?),
                b"hw-address" => fields.hw_addr = Some(read_hw_addr(reader)?),
                b"client-id" => {
                    let text = read_string(reader, "client-id")?;
                    fields.client_id = Some(parse_client_id(&text)?);
                }
                b"subnet-id" => fields.subnet_id = Some(read_u32(reader, "subnet-id")?),
                b"pool-id" => fields.pool_id = Some(read_u32(reader, "pool-id")?),
                b"valid-lft" => fields.valid_lft = Some(read_u32(reader, "valid-lft")?),
                b"expire" => fields.expire = Some(read_integer(reader, "expire")?),
                b"cltt" => fields.cltt = Some(read_integer(reader, "cltt")?),
                b"fqdn-fwd" => fields.fqdn_fwd = Some(read_bool(reader, "fqdn-fwd")?),
                b"fqdn-rev" => fields.fqdn_rev = Some(read_bool(reader, "fqdn-rev")?),
                b"force-create" => fields.force_create = Some(read_bool(reader, "force-create")?),
                b"hostname" => fields.hostname = Some(read_hostname(reader)?),
                b"state" => fields.state = Some(read_state(reader)?),
                // Kea ignores it whatever it is, so it may be of any type.
                b"origin" if reader.peek() == Some(b'"') => {
                    fields.from_partner = read_string(reader, "origin")?.as_ref() == b"ha-partner";
                }
                b"user-context" => {
                    let place = reader.fault("");
                    let value = reader.value().map_err(json_fault)?;
                    let serde_json::Value::Object(map) = value else {
                        return Err(format!("'user-context' parameter is not a map ({})", position(&place)));
                    };
                    context = Some(map);
                }
                b"comment" => {
                    comment = Some(json::text_of(&read_string(reader, "comment")?).into_owned());
                }
                _ => {
                    reader.skip().map_err(json_fault)?;
                }
            }
        }
        if let Some(comment) = comment {
            context.get_or_insert_default().insert("comment".to_owned(), serde_json::Value::String(comment));
        }
        if let Some(map) = context {
            let mut printed = Vec::new();
            json::print(&serde_json::Value::Object(map), &mut printed);
            if printed.len() > USER_CONTEXT_BYTES_MAX {
                return Err(format!("'user-context' is longer than {USER_CONTEXT_BYTES_MAX} octets"));
            }
            fields.user_context = Some(printed);
        }
        Ok(fields)
    }

    /// The lease of a dump (a page of a synchronisation): every member that Kea's dumps carry is required.
    ///
    /// # Errors
    /// What is missing or out of range.
    pub fn into_dumped(self) -> Result<Lease4Buf, String> {
        fn given<T>(member: Option<T>, name: &str) -> Result<T, String> {
            member.ok_or_else(|| format!("missing parameter '{name}'"))
        }
        let cltt = given(self.cltt, "cltt")?;
        let subnet_id = given(self.subnet_id, "subnet-id")?;
        if cltt <= 0 {
            return Err(format!("expected a positive 'cltt', got {cltt}"));
        }
        if subnet_id == 0 || subnet_id == u32::MAX {
            return Err(format!("expected a 'subnet-id' from 1 to 4294967294, got {subnet_id}"));
        }
        Ok(Lease4 {
            address: given(self.address, "ip-address")?,
            hw_addr: given(self.hw_addr, "hw-address")?,
            client_id: self.client_id.as_deref().unwrap_or_default(),
            cltt: cltt.unsigned_abs(),
            valid_lft: given(self.valid_lft, "valid-lft")?,
            subnet_id: SubnetId(subnet_id),
            pool_id: self.pool_id.unwrap_or(0),
            state: given(self.state, "state")?,
            fqdn_fwd: given(self.fqdn_fwd, "fqdn-fwd")?,
            fqdn_rev: given(self.fqdn_rev, "fqdn-rev")?,
            hostname: &given(self.hostname, "hostname")?,
            user_context: self.user_context.as_deref().unwrap_or_default(),
        }
        .to_owned())
    }
}

/// `<wire>:LINE:COLUMN` of a fault.
pub(super) fn position(place: &json::JsonError) -> String {
    format!("{}:{}:{}", place.source_name, place.line, place.column)
}

fn read_string<'a>(reader: &mut Reader<'a>, name: &str) -> Result<Cow<'a, [u8]>, String> {
    if reader.peek() != Some(b'"') {
        let place = reader.fault("");
        return Err(format!("'{name}' parameter is not a string ({})", position(&place)));
    }
    reader.string().map_err(|error| error.to_string())
}

fn read_bool(reader: &mut Reader<'_>, name: &str) -> Result<bool, String> {
    reader.peek();
    let place = reader.fault("");
    match reader.value().map_err(|error| error.to_string())? {
        serde_json::Value::Bool(truth) => Ok(truth),
        _ => Err(format!("'{name}' parameter is not a boolean ({})", position(&place))),
    }
}

fn read_integer(reader: &mut Reader<'_>, name: &str) -> Result<i64, String> {
    reader.peek();
    let place = reader.fault("");
    let value = reader.value().map_err(|error| error.to_string())?;
    value.as_i64().ok_or_else(|| format!("'{name}' parameter is not an integer ({})", position(&place)))
}

fn read_u32(reader: &mut Reader<'_>, name: &str) -> Result<u32, String> {
    reader.peek();
    let place = reader.fault("");
    let number = read_integer(reader, name)?;
    u32::try_from(number).map_err(|_| {
        format!("out of range value ({number}) specified for parameter '{name}' ({})", position(&place))
    })
}

fn read_state(reader: &mut Reader<'_>) -> Result<LeaseState, String> {
    let number = read_u32(reader, "state")?;
    LeaseState::from_number(u64::from(number)).ok_or_else(|| {
        format!(
            "Invalid state value: {number}, supported values are: 0 (default), 1 (declined), \
             2 (expired-reclaimed), 3 (released) and 4 (registered)"
        )
    })
}

fn read_address(reader: &mut Reader<'_>) -> Result<Ipv4Addr, String> {
    let octets = read_string(reader, "ip-address")?;
    parse_address(&json::text_of(&octets))
}

/// An IPv4 address, with Kea's words for one of the other family.
pub(super) fn parse_address(text: &str) -> Result<Ipv4Addr, String> {
    text.parse().map_err(|_| {
        if text.parse::<Ipv6Addr>().is_ok() {
            format!("Non-IPv4 address specified: {text}")
        } else {
            format!(
                "Failed to convert '{text}' to address: \
                 Failed to convert string to address '{text}': Invalid argument"
            )
        }
    })
}

fn read_hw_addr(reader: &mut Reader<'_>) -> Result<HwAddr, String> {
    let octets = read_hex(reader, "hw-address", HW_ADDR_BYTES_MAX)?;
    HwAddr::new(1, &octets).ok_or_else(|| format!("'hw-address' is longer than {HW_ADDR_BYTES_MAX} octets"))
}

fn read_hex(reader: &mut Reader<'_>, name: &str, octets_max: usize) -> Result<Vec<u8>, String> {
    let text = read_string(reader, name)?;
    parse_hex(&text, name, octets_max)
}

/// A client identifier, which has a type and something of that type (RFC 2132 section 9.14): 2 to 255 octets.
pub(super) fn parse_client_id(text: &[u8]) -> Result<Vec<u8>, String> {
    let octets = parse_hex(text, "client-id", CLIENT_ID_BYTES_MAX)?;
    match octets.len() {
        0 => Err("'client-id' is empty; without one, leave it out".to_owned()),
        1 => Err("'client-id' is too short (1 octet), at least 2 are required".to_owned()),
        _ => Ok(octets),
    }
}

/// Colon hex as Kea reads it: one or two digits between colons (or blanks), or an even number of digits without any.
pub(super) fn parse_hex(text: &[u8], name: &str, octets_max: usize) -> Result<Vec<u8>, String> {
    let bad = || format!("invalid format of the '{name}' identifier '{}'", json::text_of(text));
    let digit = |octet: u8| char::from(octet).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let mut octets = Vec::with_capacity(text.len().div_ceil(3).min(octets_max + 1));
    let mut push = |octet| {
        octets.push(octet);
        if octets.len() > octets_max {
            Err(format!("'{name}' is longer than {octets_max} octets"))
        } else {
            Ok(())
        }
    };
    if text.is_empty() {
        return Ok(octets);
    }
    if text.len() > 2 && !text.contains(&b':') && !text.contains(&b' ') {
        let digits = text.strip_prefix(b"0x").unwrap_or(text);
        if !digits.len().is_multiple_of(2) {
            return Err(bad());
        }
        for pair in digits.chunks_exact(2) {
            push(digit(pair[0]).ok_or_else(bad)? << 4 | digit(pair[1]).ok_or_else(bad)?)?;
        }
        return Ok(octets);
    }
    for part in text.split(|octet| matches!(octet, b':' | b' ')) {
        match part {
            [one] => push(digit(*one).ok_or_else(bad)?)?,
            [high, low] => push(digit(*high).ok_or_else(bad)? << 4 | digit(*low).ok_or_else(bad)?)?,
            _ => return Err(bad()),
        }
    }
    Ok(octets)
}

fn read_hostname(reader: &mut Reader<'_>) -> Result<Vec<u8>, String> {
    let mut octets = read_string(reader, "hostname")?.into_owned();
    if octets.len() > HOSTNAME_BYTES_MAX {
        return Err(format!("'hostname' is longer than {HOSTNAME_BYTES_MAX} octets"));
    }
    octets.make_ascii_lowercase();
    Ok(octets)
}

/// A hardware address or client identifier for messages.
#[must_use]
pub fn hex_text(octets: &[u8]) -> String {
    ColonHex(octets).to_string()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lease<'a>(hostname: &'a [u8], client_id: &'a [u8], user_context: &'a [u8]) -> Lease4<'a> {
        Lease4 {
            address: Ipv4Addr::new(10, 16, 0, 2),
            hw_addr: HwAddr::ethernet([2, 0xaa, 0, 0, 0, 4]),
            client_id,
            cltt: 1_795_415_312,
            valid_lft: 86_400,
            subnet_id: SubnetId(1),
            pool_id: 0,
            state: LeaseState::Assigned,
            fqdn_fwd: false,
            fqdn_rev: false,
            hostname,
            user_context,
        }
    }

    fn read(text: &[u8]) -> Result<LeaseFields, String> {
        LeaseFields::read(&mut Reader::new(text))
    }

    #[test]
    fn dump_encoding_is_keas_to_the_octet() {
        let mut out = Vec::new();
        print_dump(&lease(b"host-4", &[1, 2, 0xaa, 0, 0, 0, 4], b""), &mut out);
        assert_eq!(
            String::from_utf8(out).expect("UTF-8"),
            "{ \"client-id\": \"01:02:aa:00:00:00:04\", \"cltt\": 1795415312, \"fqdn-fwd\": false, \
             \"fqdn-rev\": false, \"hostname\": \"host-4\", \"hw-address\": \"02:aa:00:00:00:04\", \
             \"ip-address\": \"10.16.0.2\", \"state\": 0, \"subnet-id\": 1, \"valid-lft\": 86400 }"
        );
    }

    #[test]
    fn update_encoding_is_keas_to_the_octet() {
        let mut out = Vec::new();
        print_update(&lease(b"host-1", &[1, 2], b""), true, None, &mut out);
        assert_eq!(
            String::from_utf8(out).expect("UTF-8"),
            "{ \"client-id\": \"01:02\", \"expire\": 1795501712, \"force-create\": true, \"fqdn-fwd\": false, \
             \"fqdn-rev\": false, \"hostname\": \"host-1\", \"hw-address\": \"02:aa:00:00:00:04\", \
             \"ip-address\": \"10.16.0.2\", \"state\": 0, \"subnet-id\": 1, \"valid-lft\": 86400 }"
        );
    }

    #[test]
    fn a_context_that_is_no_map_cannot_break_the_listing() {
        for context in [&b"{ \"a\": 1 }"[..], b"{ \"a\"", b"x\"y\xff", b"{ \"\xff\": 1 }"] {
            let mut out = Vec::new();
            print_dump(&lease(b"", b"", context), &mut out);
            json::parse(&out).expect("stays JSON");
            assert!(std::str::from_utf8(&out).is_ok());
        }
    }

    #[test]
    fn faults_name_the_member() {
        for (text, expected) in [
            (&br#"{"ip-address":5}"#[..], "'ip-address' parameter is not a string (<wire>:0:15)"),
            (br#"{"ip-address":"2001:db8::1"}"#, "Non-IPv4 address specified: 2001:db8::1"),
            (
                br#"{"valid-lft":-1}"#,
                "out of range value (-1) specified for parameter 'valid-lft' (<wire>:0:14)",
            ),
            (br#"{"expire":18446744073709551615}"#, "Number overflow: 18446744073709551615 in <wire>:0:10"),
            (br#"{"fqdn-fwd":1}"#, "'fqdn-fwd' parameter is not a boolean (<wire>:0:13)"),
            (br#"{"hw-address":"0g"}"#, "invalid format of the 'hw-address' identifier '0g'"),
            (br#"{"user-context":[]}"#, "'user-context' parameter is not a map (<wire>:0:17)"),
        ] {
            assert_eq!(read(text).expect_err("must be refused"), expected);
        }
        assert!(read(br#"{"state":9}"#).expect_err("refused").starts_with("Invalid state value: 9"));
        assert!(read(format!("{{\"hw-address\":\"{}\"}}", "00:".repeat(20) + "00").as_bytes()).is_err());
    }

    #[test]
    fn comment_is_merged_into_the_context_and_the_host_name_lower_cased() {
        let fields = read(br#"{"comment":"c","user-context":{"z":1,"a":{}},"hostname":"Foo,bar&x"}"#)
            .expect("good members");
        assert_eq!(
            fields.user_context.as_deref(),
            Some(&b"{ \"a\": {  }, \"comment\": \"c\", \"z\": 1 }"[..])
        );
        assert_eq!(fields.hostname.as_deref(), Some(&b"foo,bar&x"[..]));
    }

    proptest! {
        #[test]
        fn what_is_dumped_is_read_back(
            hostname in prop::collection::vec(any::<u8>(), 0..64),
            // None, or one that is long enough to be one.
            client_id in prop_oneof![Just(Vec::new()), prop::collection::vec(any::<u8>(), 2..=255)],
            (address, cltt, valid_lft, subnet) in (any::<u32>(), 1..u64::from(u32::MAX), any::<u32>(), 1..u32::MAX),
            (fwd, rev, state, pool_id) in (any::<bool>(), any::<bool>(), 0..4_u64, any::<u32>()),
        ) {
            let hostname = hostname.to_ascii_lowercase();
            let original = Lease4 {
                address: address.into(), cltt, valid_lft, subnet_id: SubnetId(subnet), pool_id, fqdn_fwd: fwd,
                fqdn_rev: rev, state: LeaseState::from_number(state).expect("small"),
                ..lease(&hostname, &client_id, b"{ \"x\": [ 1 ] }")
            };
            let mut out = Vec::new();
            print_dump(&original, &mut out);
            let back = read(&out).and_then(LeaseFields::into_dumped).expect("own output");
            prop_assert_eq!(back.view(), original);
        }

        #[test]
        fn no_octets_panic_the_lease_reader(octets in prop::collection::vec(any::<u8>(), 0..128)) {
            let _ = read(&octets);
        }
    }
}
