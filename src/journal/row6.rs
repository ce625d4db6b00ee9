//! Rows of DHCPv6 leases: eighteen columns are written, twelve and more are read.
//!
//! The server does not speak DHCPv6 yet: what is here lets lease files of both families be looked at, cleaned up and
//! converted by the same code.

use std::net::Ipv6Addr;

use super::json;
use super::row::{Columns, Family, RowReason, Scratch};
use super::row4::read_state;
use super::text::{self, Pen};
use crate::ids::{DUID_BYTES_MAX, HW_ADDR_BYTES_MAX, SubnetId};
use crate::lease::LeaseState;

/// Rows of DHCPv6 leases.
#[derive(Debug)]
pub enum V6 {}

/// What is leased.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum LeaseType {
    /// A non-temporary address (IA_NA).
    Address = 0,
    /// A temporary address (IA_TA), of old files only.
    Temporary = 1,
    /// A delegated prefix (IA_PD).
    Prefix = 2,
}

/// Everything that a file says of a DHCPv6 lease; the long parts are borrowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease6<'a> {
    /// The address, or the first of the prefix; the lease's primary key.
    pub address: Ipv6Addr,
    /// The client's DUID; empty when declined.
    pub duid: &'a [u8],
    /// Seconds; 0 is a deletion marker.
    pub valid_lft: u32,
    /// End of the valid lifetime: seconds since the Unix epoch.
    pub expire: u64,
    /// The subnet it belongs to.
    pub subnet_id: SubnetId,
    /// Seconds.
    pub preferred_lft: u32,
    /// What is leased.
    pub lease_type: LeaseType,
    /// The client's number for this lease.
    pub iaid: u32,
    /// 128, or the length of the prefix.
    pub prefix_len: u8,
    /// A forward DNS update was requested.
    pub fqdn_fwd: bool,
    /// A reverse DNS update was requested.
    pub fqdn_rev: bool,
    /// Host name; empty when none.
    pub hostname: &'a [u8],
    /// The hardware address, where it was learnt; its type and Kea's number for the source.
    pub hw_addr: Option<HwAddr6>,
    /// What it is in.
    pub state: LeaseState,
    /// JSON map in Kea's printed form; empty when none.
    pub user_context: &'a [u8],
    /// `pool-id` of its pool; 0 when that is not configured.
    pub pool_id: u32,
}

/// A hardware address as a DHCPv6 row holds it: types are of 16 bits there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HwAddr6 {
    octets: [u8; HW_ADDR_BYTES_MAX],
    len: u8,
    /// Hardware type; 1 is Ethernet.
    pub htype: u16,
    /// Kea's number for where it was learnt: 0 unknown, 1 frame, 2 DUID, 4 link-local address, …
    pub source: u32,
}

impl HwAddr6 {
    /// The octets without the type.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.octets[..usize::from(self.len)]
    }
}

mod column {
    pub(super) const ADDRESS: usize = 0;
    pub(super) const DUID: usize = 1;
    pub(super) const VALID_LIFETIME: usize = 2;
    pub(super) const EXPIRE: usize = 3;
    pub(super) const SUBNET_ID: usize = 4;
    pub(super) const PREF_LIFETIME: usize = 5;
    pub(super) const LEASE_TYPE: usize = 6;
    pub(super) const IAID: usize = 7;
    pub(super) const PREFIX_LEN: usize = 8;
    pub(super) const FQDN_FWD: usize = 9;
    pub(super) const FQDN_REV: usize = 10;
    pub(super) const HOSTNAME: usize = 11;
    pub(super) const HWADDR: usize = 12;
    pub(super) const STATE: usize = 13;
    pub(super) const USER_CONTEXT: usize = 14;
    pub(super) const HWTYPE: usize = 15;
    pub(super) const HWADDR_SOURCE: usize = 16;
    pub(super) const POOL_ID: usize = 17;
}

/// How the DUID of a lease without one is written; Kea 2.2 writes one zero octet, later releases three.
const EMPTY_DUID: &[u8] = &[0, 0, 0];

/// Room for everything but identifiers and free text.
const FIXED_BYTES_MAX: usize = 39 + 10 + 20 + 10 + 10 + 1 + 10 + 3 + 2 + 1 + 5 + 10 + 10 + 18;

impl Family for V6 {
    type Key = Ipv6Addr;
    type Lease<'a> = Lease6<'a>;

    const COLUMNS: &'static [&'static str] = &[
        "address",
        "duid",
        "valid_lifetime",
        "expire",
        "subnet_id",
        "pref_lifetime",
        "lease_type",
        "iaid",
        "prefix_len",
        "fqdn_fwd",
        "fqdn_rev",
        "hostname",
        "hwaddr",
        "state",
        "user_context",
        "hwtype",
        "hwaddr_source",
        "pool_id",
    ];
    const COLUMNS_MIN: usize = 12;

    fn read_key(column: &[u8]) -> Option<Ipv6Addr> {
        std::str::from_utf8(column).ok()?.parse().ok()
    }

    fn read<'a>(columns: &Columns<'a>, scratch: &'a mut Scratch) -> Result<Lease6<'a>, RowReason> {
        let number = |index, reason| text::read_u32(columns.at(index)).ok_or(reason);
        let address = Self::read_key(columns.at(column::ADDRESS)).ok_or(RowReason::Address)?;
        let duid_len =
            text::read_colon_hex(columns.at(column::DUID), &mut scratch.identifier[..DUID_BYTES_MAX])
                .filter(|len| *len > 0)
                .ok_or(RowReason::Duid)?;
        let state = read_state(columns.present(column::STATE))?;
        let mut duid = &scratch.identifier[..duid_len];
        if duid == EMPTY_DUID || duid == &EMPTY_DUID[..1] {
            if state != LeaseState::Declined {
                return Err(RowReason::EmptyDuid);
            }
            duid = &[];
        }
        let lease_type = match columns.at(column::LEASE_TYPE) {
            b"0" => LeaseType::Address,
            b"1" => LeaseType::Temporary,
            b"2" => LeaseType::Prefix,
            _ => return Err(RowReason::LeaseType),
        };
        let prefix_len =
            text::read_number(columns.at(column::PREFIX_LEN), 128).ok_or(RowReason::PrefixLen)?;
        let prefix_len = if lease_type == LeaseType::Prefix { prefix_len } else { 128 };
        let hostname = text::unescape(columns.at(column::HOSTNAME), &mut scratch.hostname);
        let user_context = text::unescape(columns.at(column::USER_CONTEXT), &mut scratch.user_context);
        if !user_context.is_empty() && !json::is_map(user_context) {
            return Err(RowReason::UserContext);
        }
        Ok(Lease6 {
            address,
            duid,
            valid_lft: number(column::VALID_LIFETIME, RowReason::ValidLifetime)?,
            expire: text::read_time(columns.at(column::EXPIRE)).ok_or(RowReason::Expire)?,
            subnet_id: SubnetId(number(column::SUBNET_ID, RowReason::SubnetId)?),
            preferred_lft: number(column::PREF_LIFETIME, RowReason::PreferredLifetime)?,
            lease_type,
            iaid: number(column::IAID, RowReason::Iaid)?,
            prefix_len: u8::try_from(prefix_len).map_err(|_| RowReason::PrefixLen)?,
            fqdn_fwd: text::read_bool(columns.at(column::FQDN_FWD)).ok_or(RowReason::FqdnFwd)?,
            fqdn_rev: text::read_bool(columns.at(column::FQDN_REV)).ok_or(RowReason::FqdnRev)?,
            hostname,
            hw_addr: read_hw_addr(columns),
            state,
            user_context,
            pool_id: match columns.present(column::POOL_ID) {
                None => 0,
                Some(column) => text::read_u32(column).ok_or(RowReason::PoolId)?,
            },
        })
    }

    fn write(lease: &Lease6<'_>, out: &mut Vec<u8>) {
        let duid = if lease.duid.is_empty() { EMPTY_DUID } else { lease.duid };
        let (hw, htype, source) = match &lease.hw_addr {
            None => (&[][..], 0, 0),
            Some(hw_addr) => (hw_addr.as_bytes(), hw_addr.htype, hw_addr.source),
        };
        let start = out.len();
        let bound = FIXED_BYTES_MAX
            + 3 * (hw.len() + duid.len())
            + text::escaped_bytes_max(lease.hostname.len() + lease.user_context.len());
        out.resize(start + bound, 0);
        let mut pen = Pen::new(&mut out[start..]);
        pen.bytes(lease.address.to_string().as_bytes());
        pen.byte(b',');
        pen.colon_hex(duid);
        for number in [u64::from(lease.valid_lft), lease.expire, u64::from(lease.subnet_id.0)] {
            pen.byte(b',');
            pen.number(number);
        }
        for number in [
            lease.preferred_lft,
            u32::from(lease.lease_type as u8),
            lease.iaid,
            u32::from(lease.prefix_len),
            u32::from(lease.fqdn_fwd),
            u32::from(lease.fqdn_rev),
        ] {
            pen.byte(b',');
            pen.number(u64::from(number));
        }
        pen.byte(b',');
        pen.escaped(lease.hostname);
        pen.byte(b',');
        pen.colon_hex(hw);
        pen.byte(b',');
        pen.byte(b'0' + lease.state.number());
        pen.byte(b',');
        pen.escaped(lease.user_context);
        for number in [u32::from(htype), source, lease.pool_id] {
            pen.byte(b',');
            pen.number(u64::from(number));
        }
        pen.byte(b'\n');
        let written = pen.written();
        out.truncate(start + written);
    }

    fn key(lease: &Lease6<'_>) -> Ipv6Addr {
        lease.address
    }

    fn is_deletion(lease: &Lease6<'_>) -> bool {
        lease.valid_lft == 0
    }
}

/// A hardware address; what is wrong with it never costs the lease, as it identifies nobody.
fn read_hw_addr(columns: &Columns<'_>) -> Option<HwAddr6> {
    let mut octets = [0; HW_ADDR_BYTES_MAX];
    let len = text::read_colon_hex(columns.at(column::HWADDR), &mut octets).filter(|len| *len > 0)?;
    let or_absent = |index: usize, absent: u64, max: u64| match columns.at(index) {
        b"" => Some(absent),
        column => text::read_number(column, max),
    };
    let htype = or_absent(column::HWTYPE, 1, u64::from(u16::MAX))?;
    let source = or_absent(column::HWADDR_SOURCE, 0, u64::from(u32::MAX))?;
    Some(HwAddr6 {
        octets,
        len: u8::try_from(len).ok()?,
        htype: u16::try_from(htype).ok()?,
        source: u32::try_from(source).ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::row::{RowReader, Schema};

    fn rewritten(column_count: usize, line: &str) -> Result<String, RowReason> {
        let header = V6::COLUMNS[..column_count].join(",");
        let schema = Schema::from_header::<V6>(header.as_bytes()).expect("a valid header");
        let mut out = Vec::new();
        V6::write(&RowReader::<V6>::new(schema).read(line.as_bytes())?, &mut out);
        Ok(String::from_utf8(out).expect("ASCII"))
    }

    #[test]
    fn rows_of_kea_are_read_and_written_with_all_columns() {
        for (columns, from, to) in [
            (
                17,
                "2001:db8:1::2,00:03:00:01:02,86400,1795502454,1,57600,0,1,128,0,1,a&#x2cb,02:aa:00:00:00:03,0,,1,2",
                "2001:db8:1::2,00:03:00:01:02,86400,1795502454,1,57600,0,1,128,0,1,a&#x2cb,02:aa:00:00:00:03,0,,1,2,0\n",
            ),
            (
                17,
                "2001:db8:8000::,00:03:00:01,9,10,1,8,2,4294967295,56,0,0,,,2,{ \"a\": 1 },,",
                "2001:db8:8000::,00:03:00:01,9,10,1,8,2,4294967295,56,0,0,,,2,{ \"a\": 1 },0,0,0\n",
            ),
            // Oldest schema; an address whose stored length means nothing.
            (
                12,
                "2001:db8::1,00:01:02,9,10,1,8,0,1,64,0,0,h",
                "2001:db8::1,00:01:02,9,10,1,8,0,1,128,0,0,h,,0,,0,0,0\n",
            ),
            // A hardware address without type is Ethernet; a broken one is dropped.
            (
                13,
                "2001:db8::1,00:01:02,9,10,1,8,0,1,128,0,0,,1a",
                "2001:db8::1,00:01:02,9,10,1,8,0,1,128,0,0,,1a,0,,1,0,0\n",
            ),
            (
                13,
                "2001:db8::1,00:01:02,9,10,1,8,0,1,128,0,0,,zz",
                "2001:db8::1,00:01:02,9,10,1,8,0,1,128,0,0,,,0,,0,0,0\n",
            ),
        ] {
            assert_eq!(rewritten(columns, from).as_deref(), Ok(to));
        }
    }

    #[test]
    fn the_empty_duid_is_for_declined_leases() {
        for duid in ["00", "00:00:00"] {
            let row = |state: u8| format!("2001:db8::1,{duid},9,10,1,0,0,1,128,0,0,,,{state},,,");
            let declined = rewritten(17, &row(1)).expect("declined");
            assert_eq!(declined, "2001:db8::1,00:00:00,9,10,1,0,0,1,128,0,0,,,1,,0,0,0\n");
            assert_eq!(rewritten(17, &row(0)), Err(RowReason::EmptyDuid));
        }
    }

    #[test]
    fn each_bad_column_has_its_reason() {
        let good = [
            "2001:db8::1",
            "00:01:02",
            "9",
            "10",
            "1",
            "8",
            "0",
            "1",
            "128",
            "0",
            "0",
            "h",
            "",
            "0",
            "",
            "",
            "",
            "0",
        ];
        assert!(rewritten(18, &good.join(",")).is_ok());
        for (index, bad, reason) in [
            (0, "192.0.2.1", RowReason::Address),
            (1, "", RowReason::Duid),
            (1, "0001", RowReason::Duid),
            (2, "", RowReason::ValidLifetime),
            (3, "x", RowReason::Expire),
            (4, "-4294967296", RowReason::SubnetId),
            (5, "", RowReason::PreferredLifetime),
            (6, "3", RowReason::LeaseType),
            (7, "4294967296", RowReason::Iaid),
            (8, "129", RowReason::PrefixLen),
            (9, "2", RowReason::FqdnFwd),
            (10, "", RowReason::FqdnRev),
            (13, "", RowReason::State),
            (14, "[ 1 ]", RowReason::UserContext),
            (17, "", RowReason::PoolId),
        ] {
            let mut row = good;
            row[index] = bad;
            assert_eq!(rewritten(18, &row.join(",")), Err(reason), "column {index} '{bad}'");
        }
    }
}
