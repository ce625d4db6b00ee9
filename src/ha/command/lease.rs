//! A lease as JSON. Two forms exist and are never mixed: updates carry `expire`, dumps carry `cltt`.

use std::net::Ipv4Addr;

use serde_json::Value;

use super::Answer;
use super::json::{self, Kind, Malformed, Scanner};
use crate::ha::backlog::Operation;
use crate::ids::{CLIENT_ID_BYTES_MAX, HwAddr, SubnetId};
use crate::lease::request::LeaseKey;
use crate::lease::{Lease4, LeaseState};

/// What a partner's program needs of the updates that it gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UpdateForm {
    /// A released lease is an update in state 3 (since 2.7), else a deletion.
    pub released_as_update: bool,
    /// `expire` is kept below 2^32 (1.4).
    pub expire_32_bits: bool,
}

/// The newest form.
pub const FORM_MODERN: UpdateForm = UpdateForm { released_as_update: true, expire_32_bits: false };

impl UpdateForm {
    /// What becomes of an operation on `lease` in this form.
    #[must_use]
    pub fn operation(self, operation: Operation, lease: &Lease4<'_>) -> Operation {
        if lease.state == LeaseState::Released && !self.released_as_update {
            Operation::Delete
        } else {
            operation
        }
    }
}

/// Appends the body of `lease4-update` or `lease4-del` for a peer.
pub fn write_update4(out: &mut Vec<u8>, operation: Operation, lease: &Lease4<'_>, form: UpdateForm) {
    let operation = form.operation(operation, lease);
    out.extend_from_slice(b"{ \"arguments\": ");
    write_fields(out, lease, &Form::Update { operation, form, single: true });
    out.extend_from_slice(match operation {
        Operation::Update => b", \"command\": \"lease4-update\", \"service\": [ \"dhcp4\" ] }" as &[u8],
        Operation::Delete => b", \"command\": \"lease4-del\", \"service\": [ \"dhcp4\" ] }",
    });
}

/// Appends an element of a bulk command: the update encoding, with `delete` where the lease is to be removed.
pub(super) fn write_bulk_element(out: &mut Vec<u8>, operation: Operation, lease: &Lease4<'_>) {
    write_fields(out, lease, &Form::Update { operation, form: FORM_MODERN, single: false });
}

/// Appends the dump encoding, as pages and `lease4-get-all` carry it.
pub fn write_dump4(out: &mut Vec<u8>, lease: &Lease4<'_>) {
    write_fields(out, lease, &Form::Dump);
}

enum Form {
    Dump,
    Update { operation: Operation, form: UpdateForm, single: bool },
}

/// Keys in their order: Kea sorts them.
fn write_fields(out: &mut Vec<u8>, lease: &Lease4<'_>, form: &Form) {
    out.extend_from_slice(b"{ ");
    if !lease.client_id.is_empty() {
        out.extend_from_slice(b"\"client-id\": \"");
        push_colon_hex(out, lease.client_id);
        out.extend_from_slice(b"\", ");
    }
    match form {
        Form::Dump => {
            out.extend_from_slice(b"\"cltt\": ");
            json::push_number(out, lease.cltt);
        }
        Form::Update { operation, form, single } => {
            if !single && *operation == Operation::Delete {
                out.extend_from_slice(b"\"delete\": true, ");
            }
            let expire =
                if form.expire_32_bits { lease.expire().min(u64::from(u32::MAX)) } else { lease.expire() };
            out.extend_from_slice(b"\"expire\": ");
            json::push_number(out, expire);
            if *single && *operation == Operation::Update {
                out.extend_from_slice(b", \"force-create\": true");
            }
        }
    }
    let is_item = matches!(form, Form::Update { single: false, .. });
    // A reader takes what an item does not say as false, empty, 0.
    if !is_item || lease.fqdn_fwd || lease.fqdn_rev || !lease.hostname.is_empty() {
        push_flag(out, b", \"fqdn-fwd\": ", lease.fqdn_fwd);
        push_flag(out, b", \"fqdn-rev\": ", lease.fqdn_rev);
        out.extend_from_slice(b", \"hostname\": ");
        json::write_string(out, lease.hostname);
    }
    out.extend_from_slice(b", \"hw-address\": \"");
    push_colon_hex(out, lease.hw_addr.as_bytes());
    out.extend_from_slice(b"\", \"ip-address\": \"");
    push_address(out, lease.address);
    out.push(b'"');
    if matches!(form, Form::Update { single: true, .. }) {
        out.extend_from_slice(b", \"origin\": \"ha-partner\"");
    }
    if lease.pool_id != 0 {
        out.extend_from_slice(b", \"pool-id\": ");
        json::push_number(out, u64::from(lease.pool_id));
    }
    if !is_item || lease.state.number() != 0 {
        out.extend_from_slice(b", \"state\": ");
        json::push_number(out, u64::from(lease.state.number()));
    }
    out.extend_from_slice(b", \"subnet-id\": ");
    json::push_number(out, u64::from(lease.subnet_id.0));
    // What does not read as a map any more (a damaged file) is left out: a peer would refuse the whole lease.
    if !lease.user_context.is_empty() && is_map(lease.user_context) {
        out.extend_from_slice(b", \"user-context\": ");
        out.extend_from_slice(lease.user_context);
    }
    out.extend_from_slice(b", \"valid-lft\": ");
    json::push_number(out, u64::from(lease.valid_lft));
    out.extend_from_slice(b" }");
}

fn is_map(text: &[u8]) -> bool {
    matches!(serde_json::from_slice::<Value>(text), Ok(Value::Object(_)))
}

fn push_flag(out: &mut Vec<u8>, key: &[u8], set: bool) {
    out.extend_from_slice(key);
    out.extend_from_slice(if set { b"true" } else { b"false" });
}

/// Appends octets as lower-case hex joined by colons.
pub fn push_colon_hex(out: &mut Vec<u8>, octets: &[u8]) {
    for (index, &octet) in octets.iter().enumerate() {
        if index > 0 {
            out.push(b':');
        }
        json::push_hex(out, octet);
    }
}

/// Appends an address.
pub fn push_address(out: &mut Vec<u8>, address: Ipv4Addr) {
    for (index, octet) in address.octets().into_iter().enumerate() {
        if index > 0 {
            out.push(b'.');
        }
        json::push_number(out, u64::from(octet));
    }
}

/// Why an element is no lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadLease {
    /// Its address, as far as it was readable.
    pub address: Option<Ipv4Addr>,
    /// The field, or what is wrong with the whole.
    pub field: &'static str,
    /// What was expected of it.
    pub expected: &'static str,
}

impl std::fmt::Display for BadLease {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(address) = self.address {
            write!(out, "lease {address}: ")?;
        }
        write!(out, "{}: expected {}", self.field, self.expected)
    }
}

/// A lease in the update encoding, before the receiver's configuration completes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Update4<'a> {
    /// The lease. `subnet_id` is 0 when it is to be found by address, `cltt` and `valid_lft` as [`Update4::complete`] says.
    pub lease: Lease4<'a>,
    /// The lifetime, when it was given.
    pub valid_lft: Option<u32>,
    /// `expire`, when it was given: not 0, not before the lifetime given.
    pub expire: Option<u64>,
    /// Whether a lease that is absent is created.
    pub force_create: bool,
    /// An element of a bulk command that removes the lease.
    pub delete: bool,
}

impl<'a> Update4<'a> {
    /// The complete lease: without a lifetime the subnet's, without `expire` as of now.
    #[must_use]
    pub fn complete(&self, wall_s: u64, subnet_id: SubnetId, subnet_valid_lft: u32) -> Lease4<'a> {
        let valid_lft = self.valid_lft.unwrap_or(subnet_valid_lft);
        let cltt = self.expire.map_or(wall_s, |expire| expire.saturating_sub(u64::from(valid_lft)));
        Lease4 { subnet_id, valid_lft, cltt, ..self.lease }
    }
}

/// Reads leases one after the other, with buffers of its own that are used again.
#[derive(Clone, Debug, Default)]
pub struct LeaseReader {
    text: Vec<u8>,
    client_id: Vec<u8>,
    hostname: Vec<u8>,
    user_context: Vec<u8>,
    untold: bool,
}

/// The fields as they come, before the rules of either encoding.
#[derive(Default)]
struct Fields {
    address: Option<Ipv4Addr>,
    hw_addr: Option<HwAddr>,
    subnet_id: Option<i64>,
    pool_id: Option<i64>,
    valid_lft: Option<i64>,
    expire: Option<i64>,
    cltt: Option<i64>,
    fqdn_fwd: Option<bool>,
    fqdn_rev: Option<bool>,
    hostname: bool,
    state: Option<i64>,
    force_create: bool,
    delete: bool,
    untold: bool,
    bad: Option<(&'static str, &'static str)>,
}

impl LeaseReader {
    /// Reads the element at `scanner` in the dump encoding; the scanner is behind it afterwards.
    ///
    /// # Errors
    /// The outer one when the text is no JSON: nothing behind it can be read. The inner one when this element is no lease.
    pub fn dump4(&mut self, scanner: &mut Scanner<'_>) -> Result<Result<Lease4<'_>, BadLease>, Malformed> {
        let fields = self.fields(scanner)?;
        self.untold = fields.untold;
        Ok(self.dump_lease(&fields))
    }

    /// Whether the source says of the last lease that its client was not told of it.
    #[must_use]
    pub const fn is_untold(&self) -> bool {
        self.untold
    }

    /// Reads the element at `scanner` in the update encoding; the scanner is behind it afterwards.
    ///
    /// # Errors
    /// As [`LeaseReader::dump4`].
    pub fn update4(&mut self, scanner: &mut Scanner<'_>) -> Result<Result<Update4<'_>, BadLease>, Malformed> {
        let fields = self.fields(scanner)?;
        Ok(self.update_lease(&fields))
    }

    fn dump_lease(&self, fields: &Fields) -> Result<Lease4<'_>, BadLease> {
        let bad = |field, expected| BadLease { address: fields.address, field, expected };
        let address = self.common(fields)?;
        let positive = |value: Option<i64>, field, expected| {
            value.filter(|&number| number > 0).map(i64::cast_unsigned).ok_or_else(|| bad(field, expected))
        };
        let subnet_id = positive(fields.subnet_id, "subnet-id", "an integer of 1 or more")?;
        let subnet_id = u32::try_from(subnet_id).map_err(|_| bad("subnet-id", "at most 4294967295"))?;
        let cltt = positive(fields.cltt, "cltt", "an integer of 1 or more")?;
        let valid_lft = fields.valid_lft.ok_or_else(|| bad("valid-lft", "an integer"))?;
        let valid_lft = u32::try_from(valid_lft).map_err(|_| bad("valid-lft", "0 to 4294967295"))?;
        let fqdn_fwd = fields.fqdn_fwd.ok_or_else(|| bad("fqdn-fwd", "true or false"))?;
        let fqdn_rev = fields.fqdn_rev.ok_or_else(|| bad("fqdn-rev", "true or false"))?;
        if !fields.hostname {
            return Err(bad("hostname", "a string"));
        }
        let state = fields.state.ok_or_else(|| bad("state", "an integer"))?;
        self.lease(fields, address, state, Lease4Numbers { subnet_id, cltt, valid_lft, fqdn_fwd, fqdn_rev })
    }

    fn update_lease(&self, fields: &Fields) -> Result<Update4<'_>, BadLease> {
        let bad = |field, expected| BadLease { address: fields.address, field, expected };
        let address = self.common(fields)?;
        let subnet_id = u32::try_from(fields.subnet_id.unwrap_or(0))
            .map_err(|_| bad("subnet-id", "an integer from 0 to 4294967295"))?;
        let valid_lft = match fields.valid_lft {
            None => None,
            Some(number) => Some(u32::try_from(number).map_err(|_| bad("valid-lft", "0 to 4294967295"))?),
        };
        let expire = match fields.expire {
            None => None,
            Some(number) if number > 0 => Some(number.cast_unsigned()),
            Some(_) => return Err(bad("expire", "1 or more")),
        };
        if let (Some(expire), Some(valid_lft)) = (expire, valid_lft)
            && expire < u64::from(valid_lft)
        {
            return Err(bad("expire", "a time that is not before the lifetime"));
        }
        let (fqdn_fwd, fqdn_rev) = (fields.fqdn_fwd.unwrap_or(false), fields.fqdn_rev.unwrap_or(false));
        if (fqdn_fwd || fqdn_rev) && self.hostname.is_empty() {
            return Err(bad("hostname", "a name, for fqdn-fwd or fqdn-rev is true"));
        }
        let numbers =
            Lease4Numbers { subnet_id, cltt: 0, valid_lft: valid_lft.unwrap_or(0), fqdn_fwd, fqdn_rev };
        let lease = self.lease(fields, address, fields.state.unwrap_or(0), numbers)?;
        Ok(Update4 { lease, valid_lft, expire, force_create: fields.force_create, delete: fields.delete })
    }

    /// What both encodings ask for.
    fn common(&self, fields: &Fields) -> Result<Ipv4Addr, BadLease> {
        let bad = |field, expected| BadLease { address: fields.address, field, expected };
        if let Some((field, expected)) = fields.bad {
            return Err(bad(field, expected));
        }
        let address = fields.address.ok_or_else(|| bad("ip-address", "an IPv4 address"))?;
        // A deletion is named by its address alone.
        if fields.hw_addr.is_none() && !fields.delete {
            return Err(bad("hw-address", "a hardware address, or nothing between the quotes"));
        }
        Ok(address)
    }

    fn lease(
        &self,
        fields: &Fields,
        address: Ipv4Addr,
        state: i64,
        numbers: Lease4Numbers,
    ) -> Result<Lease4<'_>, BadLease> {
        let bad = |field, expected| BadLease { address: Some(address), field, expected };
        let state = u64::try_from(state)
            .ok()
            .and_then(LeaseState::from_number)
            .filter(|&state| state != LeaseState::Registered)
            .ok_or_else(|| bad("state", "0 to 3"))?;
        let pool_id = u32::try_from(fields.pool_id.unwrap_or(0))
            .map_err(|_| bad("pool-id", "an integer from 1 to 4294967295"))?;
        Ok(Lease4 {
            address,
            hw_addr: fields.hw_addr.unwrap_or(HwAddr::ethernet([0; 6])),
            client_id: &self.client_id,
            cltt: numbers.cltt,
            valid_lft: numbers.valid_lft,
            subnet_id: SubnetId(numbers.subnet_id),
            pool_id,
            state,
            fqdn_fwd: numbers.fqdn_fwd,
            fqdn_rev: numbers.fqdn_rev,
            hostname: &self.hostname,
            user_context: &self.user_context,
        })
    }

    fn fields(&mut self, scanner: &mut Scanner<'_>) -> Result<Fields, Malformed> {
        self.client_id.clear();
        self.hostname.clear();
        self.user_context.clear();
        let mut fields = Fields::default();
        if scanner.kind()? != Kind::Map {
            scanner.skip()?;
            fields.bad = Some(("lease", "a map"));
            return Ok(fields);
        }
        scanner.expect(b'{')?;
        let mut first = true;
        while let Some(key) = scanner.next_key(first)? {
            first = false;
            if let Some(bad) = self.field(key, scanner, &mut fields)? {
                fields.bad = fields.bad.or(Some(bad));
            }
        }
        Ok(fields)
    }

    /// Reads the value of one key; the inner result is what is wrong with it, if anything.
    fn field(
        &mut self,
        key: &[u8],
        scanner: &mut Scanner<'_>,
        fields: &mut Fields,
    ) -> Result<Option<(&'static str, &'static str)>, Malformed> {
        let kind = scanner.kind()?;
        match key {
            b"subnet-id" => return number(scanner, kind, "subnet-id", &mut fields.subnet_id),
            b"pool-id" => return number(scanner, kind, "pool-id", &mut fields.pool_id),
            b"valid-lft" => return number(scanner, kind, "valid-lft", &mut fields.valid_lft),
            b"expire" => return number(scanner, kind, "expire", &mut fields.expire),
            b"cltt" => return number(scanner, kind, "cltt", &mut fields.cltt),
            b"state" => return number(scanner, kind, "state", &mut fields.state),
            b"fqdn-fwd" => return flag(scanner, kind, "fqdn-fwd", &mut fields.fqdn_fwd),
            b"fqdn-rev" => return flag(scanner, kind, "fqdn-rev", &mut fields.fqdn_rev),
            b"untold" if kind == Kind::Bool => {
                fields.untold = scanner.boolean()?;
                return Ok(None);
            }
            b"force-create" | b"delete" => {
                let mut set = None;
                let name = if key == b"delete" { "delete" } else { "force-create" };
                let bad = flag(scanner, kind, name, &mut set)?;
                *(if key == b"delete" { &mut fields.delete } else { &mut fields.force_create }) =
                    set == Some(true);
                return Ok(bad);
            }
            b"user-context" => {
                let text = scanner.skip()?;
                if kind != Kind::Map {
                    return Ok(Some(("user-context", "a map")));
                }
                let Ok(value) = serde_json::from_slice(text) else {
                    return Ok(Some(("user-context", "a map")));
                };
                json::write_value(&mut self.user_context, &value);
                return Ok(None);
            }
            b"ip-address" | b"hw-address" | b"client-id" | b"hostname" => {}
            _ => {
                scanner.skip()?;
                return Ok(None);
            }
        }
        if kind != Kind::Text {
            scanner.skip()?;
            return Ok(Some(match key {
                b"ip-address" => ("ip-address", "a string"),
                b"hw-address" => ("hw-address", "a string"),
                b"client-id" => ("client-id", "a string"),
                _ => ("hostname", "a string"),
            }));
        }
        if key == b"hostname" {
            scanner.string(&mut self.hostname)?;
            self.hostname.make_ascii_lowercase();
            fields.hostname = true;
            return Ok(None);
        }
        scanner.string(&mut self.text)?;
        Ok(match key {
            b"ip-address" => {
                fields.address = std::str::from_utf8(&self.text).ok().and_then(|text| text.parse().ok());
                fields.address.is_none().then_some(("ip-address", "an IPv4 address"))
            }
            b"hw-address" => {
                let mut octets = [0; crate::ids::HW_ADDR_BYTES_MAX];
                fields.hw_addr = hex(&self.text, &mut octets).and_then(|octets| HwAddr::new(1, octets));
                fields
                    .hw_addr
                    .is_none()
                    .then_some(("hw-address", "octets in hex joined by colons, at most 20"))
            }
            _ => {
                let mut octets = [0; CLIENT_ID_BYTES_MAX];
                match hex(&self.text, &mut octets) {
                    // One octet is no identifier: the row of such a lease could not be read again.
                    Some([_]) | None => Some(("client-id", "octets in hex joined by colons, 2 to 255")),
                    Some(octets) => {
                        self.client_id.extend_from_slice(octets);
                        None
                    }
                }
            }
        })
    }
}

/// Reads the arguments of `lease4-del`: with an address the rest does not matter.
///
/// # Errors
/// The answer (result 1) to give.
pub fn parse_delete4(arguments: Option<&Value>) -> Result<LeaseKey, Answer> {
    let Some(Value::Object(map)) = arguments else {
        return Err(Answer::error("Parameters missing or are not a map."));
    };
    let text = |key: &str| match map.get(key) {
        Some(Value::String(text)) => Ok(text.as_str()),
        Some(_) => Err(Answer::error(format!("'{key}' is not a string."))),
        None => Err(Answer::error(format!("Mandatory '{key}' parameter missing."))),
    };
    if map.contains_key("ip-address") {
        let address = text("ip-address")?;
        let address =
            address.parse().map_err(|_| Answer::error(format!("Invalid IPv4 address: {address}")))?;
        return Ok(LeaseKey::Address(address));
    }
    let subnet = map.get("subnet-id").and_then(Value::as_u64).and_then(|id| u32::try_from(id).ok());
    let subnet = SubnetId(subnet.ok_or_else(|| Answer::error("Mandatory 'subnet-id' parameter missing."))?);
    let (kind, identifier) = (text("identifier-type")?, text("identifier")?);
    let mut octets = [0; CLIENT_ID_BYTES_MAX];
    let invalid = || Answer::error(format!("Invalid identifier: {identifier}"));
    let octets =
        hex(identifier.as_bytes(), &mut octets).filter(|octets| !octets.is_empty()).ok_or_else(invalid)?;
    match kind {
        "hw-address" => Ok(LeaseKey::HwAddr(subnet, HwAddr::new(1, octets).ok_or_else(invalid)?)),
        "client-id" => Ok(LeaseKey::ClientId(subnet, octets.into())),
        _ => Err(Answer::error(format!("Identifier type {kind} is not supported"))),
    }
}

struct Lease4Numbers {
    subnet_id: u32,
    cltt: u64,
    valid_lft: u32,
    fqdn_fwd: bool,
    fqdn_rev: bool,
}

type Fault = Option<(&'static str, &'static str)>;

fn number(
    scanner: &mut Scanner<'_>,
    kind: Kind,
    field: &'static str,
    into: &mut Option<i64>,
) -> Result<Fault, Malformed> {
    if kind != Kind::Number {
        scanner.skip()?;
        return Ok(Some((field, "an integer")));
    }
    let mut ahead = scanner.clone();
    match ahead.integer() {
        Ok(number) => {
            *into = Some(number);
            *scanner = ahead;
            Ok(None)
        }
        Err(_) => {
            scanner.skip()?;
            Ok(Some((field, "an integer")))
        }
    }
}

fn flag(
    scanner: &mut Scanner<'_>,
    kind: Kind,
    field: &'static str,
    into: &mut Option<bool>,
) -> Result<Fault, Malformed> {
    if kind != Kind::Bool {
        scanner.skip()?;
        return Ok(Some((field, "true or false")));
    }
    *into = Some(scanner.boolean()?);
    Ok(None)
}

/// Octets in hex: one or two digits each joined by colons, or pairs of digits without.
#[must_use]
pub fn hex<'o>(text: &[u8], octets: &'o mut [u8]) -> Option<&'o [u8]> {
    let digit = |digit: u8| char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
    let mut count = 0;
    let mut push = |octet: u8| {
        *octets.get_mut(count)? = octet;
        count += 1;
        Some(())
    };
    if text.is_empty() {
        return Some(&octets[..0]);
    }
    if text.contains(&b':') || text.len() <= 2 {
        for part in text.split(|&octet| octet == b':') {
            match part {
                [low] => push(digit(*low)?)?,
                [high, low] => push((digit(*high)? << 4) | digit(*low)?)?,
                _ => return None,
            }
        }
    } else {
        for pair in text.chunks(2) {
            let [high, low] = pair else { return None };
            push((digit(*high)? << 4) | digit(*low)?)?;
        }
    }
    Some(&octets[..count])
}
