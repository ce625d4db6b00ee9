//! Rows of DHCPv4 leases: twelve columns are written, nine and more are read.

use std::net::Ipv4Addr;

use super::json;
use super::row::{Columns, Family, RowReason, Scratch};
use super::text::{self, Pen};
use crate::ids::{HwAddr, SubnetId};
use crate::lease::{Lease4, LeaseState};

/// Rows of DHCPv4 leases.
#[derive(Debug)]
pub enum V4 {}

mod column {
    pub(super) const ADDRESS: usize = 0;
    pub(super) const HWADDR: usize = 1;
    pub(super) const CLIENT_ID: usize = 2;
    pub(super) const VALID_LIFETIME: usize = 3;
    pub(super) const EXPIRE: usize = 4;
    pub(super) const SUBNET_ID: usize = 5;
    pub(super) const FQDN_FWD: usize = 6;
    pub(super) const FQDN_REV: usize = 7;
    pub(super) const HOSTNAME: usize = 8;
    pub(super) const STATE: usize = 9;
    pub(super) const USER_CONTEXT: usize = 10;
    pub(super) const POOL_ID: usize = 11;
}

/// Ethernet: the hardware type is not stored, every address in a file is of this type.
const HTYPE_ETHERNET: u8 = 1;

/// Room for everything but identifiers and free text: address, five numbers, flags, separators, line end.
const FIXED_BYTES_MAX: usize = 15 + 10 + 20 + 10 + 1 + 1 + 3 + 10 + 12;

impl Family for V4 {
    type Key = Ipv4Addr;
    type Lease<'a> = Lease4<'a>;

    const COLUMNS: &'static [&'static str] = &[
        "address",
        "hwaddr",
        "client_id",
        "valid_lifetime",
        "expire",
        "subnet_id",
        "fqdn_fwd",
        "fqdn_rev",
        "hostname",
        "state",
        "user_context",
        "pool_id",
    ];
    const COLUMNS_MIN: usize = 9;

    #[inline]
    fn read_key(column: &[u8]) -> Option<Ipv4Addr> {
        text::read_address4(column)
    }

    #[inline]
    fn read<'a>(columns: &Columns<'a>, scratch: &'a mut Scratch) -> Result<Lease4<'a>, RowReason> {
        let address = text::read_address4(columns.at(column::ADDRESS)).ok_or(RowReason::Address)?;
        let mut hw_octets = [0; crate::ids::HW_ADDR_BYTES_MAX];
        let hw_len =
            text::read_colon_hex(columns.at(column::HWADDR), &mut hw_octets).ok_or(RowReason::HwAddr)?;
        let hw_addr = HwAddr::new(HTYPE_ETHERNET, &hw_octets[..hw_len]).ok_or(RowReason::HwAddr)?;
        let client_id_len = text::read_identifier(
            columns.at(column::CLIENT_ID),
            &mut scratch.identifier[..crate::ids::CLIENT_ID_BYTES_MAX],
        )
        // One octet is a type without an identifier, which no release of Kea reads. The most that 2.2 reads is 128 octets; those after
        // it give leases to clients with up to 255, and so do we.
        .filter(|len| *len != 1)
        .ok_or(RowReason::ClientId)?;
        let valid_lft = text::read_u32(columns.at(column::VALID_LIFETIME)).ok_or(RowReason::ValidLifetime)?;
        let expire = text::read_time(columns.at(column::EXPIRE)).ok_or(RowReason::Expire)?;
        let subnet_id = text::read_u32(columns.at(column::SUBNET_ID)).ok_or(RowReason::SubnetId)?;
        let fqdn_fwd = text::read_bool(columns.at(column::FQDN_FWD)).ok_or(RowReason::FqdnFwd)?;
        let fqdn_rev = text::read_bool(columns.at(column::FQDN_REV)).ok_or(RowReason::FqdnRev)?;
        let state = read_state(columns.present(column::STATE))?;
        let pool_id = match columns.present(column::POOL_ID) {
            None => 0,
            Some(column) => text::read_u32(column).ok_or(RowReason::PoolId)?,
        };
        if hw_len == 0 && client_id_len == 0 && state != LeaseState::Declined {
            return Err(RowReason::NoIdentity);
        }
        let hostname = text::unescape(columns.at(column::HOSTNAME), &mut scratch.hostname);
        let user_context = text::unescape(columns.at(column::USER_CONTEXT), &mut scratch.user_context);
        if !user_context.is_empty() && !json::is_map(user_context) {
            return Err(RowReason::UserContext);
        }
        Ok(Lease4 {
            address,
            hw_addr,
            client_id: &scratch.identifier[..client_id_len],
            // A row whose lifetime exceeds its end is read as Kea does: as having expired long ago.
            cltt: expire.saturating_sub(u64::from(valid_lft)),
            valid_lft,
            subnet_id: SubnetId(subnet_id),
            pool_id,
            state,
            fqdn_fwd,
            fqdn_rev,
            hostname,
            user_context,
        })
    }

    fn write(lease: &Lease4<'_>, out: &mut Vec<u8>) {
        write(lease, out);
    }

    #[inline]
    fn key(lease: &Lease4<'_>) -> Ipv4Addr {
        lease.address
    }

    #[inline]
    fn is_deletion(lease: &Lease4<'_>) -> bool {
        lease.valid_lft == 0
    }
}

/// A state column. A number that nobody knows yet is read as "assigned": its client keeps the address until the
/// lease ends, where refusing the row would give the address to another one.
pub(super) fn read_state(column: Option<&[u8]>) -> Result<LeaseState, RowReason> {
    match column {
        None => Ok(LeaseState::Assigned),
        Some(column) => {
            let number = text::read_u32(column).ok_or(RowReason::State)?;
            Ok(LeaseState::from_number(u64::from(number)).unwrap_or(LeaseState::Assigned))
        }
    }
}

/// Appends the row of `lease` with its line end.
pub fn write(lease: &Lease4<'_>, out: &mut Vec<u8>) {
    let hw = lease.hw_addr.as_bytes();
    let start = out.len();
    let bound = FIXED_BYTES_MAX
        + 3 * (hw.len() + lease.client_id.len())
        + text::escaped_bytes_max(lease.hostname.len() + lease.user_context.len());
    out.resize(start + bound, 0);
    let mut pen = Pen::new(&mut out[start..]);
    pen.address4(lease.address);
    pen.byte(b',');
    pen.colon_hex(hw);
    pen.byte(b',');
    pen.colon_hex(lease.client_id);
    pen.byte(b',');
    pen.number(u64::from(lease.valid_lft));
    pen.byte(b',');
    pen.number(lease.expire());
    pen.byte(b',');
    pen.number(u64::from(lease.subnet_id.0));
    pen.bytes(match (lease.fqdn_fwd, lease.fqdn_rev) {
        (false, false) => b",0,0,",
        (false, true) => b",0,1,",
        (true, false) => b",1,0,",
        (true, true) => b",1,1,",
    });
    pen.escaped(lease.hostname);
    pen.byte(b',');
    pen.byte(b'0' + lease.state.number());
    pen.byte(b',');
    pen.escaped(lease.user_context);
    pen.byte(b',');
    pen.number(u64::from(lease.pool_id));
    pen.byte(b'\n');
    let written = pen.written();
    out.truncate(start + written);
}

/// Appends the row that says that `lease` is gone: all as last known, lifetime 0.
pub fn write_deletion(lease: &Lease4<'_>, out: &mut Vec<u8>) {
    let mut gone = Lease4 { valid_lft: 0, ..*lease };
    if gone.hw_addr.is_empty() && gone.client_id.is_empty() {
        // Readers refuse a row without identity unless it is declined, and a refused deletion would bring the
        // lease back.
        gone.state = LeaseState::Declined;
    }
    write(&gone, out);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::row::{RowReader, Schema};

    fn read(header_columns: usize, line: &str) -> Result<crate::lease::Lease4Buf, RowReason> {
        let header = V4::COLUMNS[..header_columns.min(12)].join(",")
            + &",future".repeat(header_columns - header_columns.min(12));
        let schema = Schema::from_header::<V4>(header.as_bytes()).expect("a valid header");
        RowReader::<V4>::new(schema).read(line.as_bytes()).map(|lease| lease.to_owned())
    }

    #[test]
    fn client_last_transmission_time_is_expire_minus_lifetime() {
        let lease = read(12, "192.0.2.12,1a:1b:1c:1d:1e:1f,,7200,1895422492,1,0,0,abc,0,,0").expect("good");
        assert_eq!(lease.view().cltt, 1_895_415_292);
        assert_eq!(lease.view().hostname, b"abc");
        let lease =
            read(12, "192.0.2.12,1a:1b:1c:1d:1e:1f,,4294967295,6090389787,1,0,0,,0,,0").expect("good");
        assert_eq!((lease.view().cltt, lease.view().is_expired(u64::MAX)), (1_795_422_492, false));
    }

    #[test]
    fn a_row_without_identity_is_good_only_when_declined() {
        assert_eq!(
            read(12, "192.0.2.13,,,7200,1895422492,1,0,0,,1,,0").expect("good").view().state,
            LeaseState::Declined
        );
        assert_eq!(read(12, "192.0.2.16,,,7200,1895422492,1,0,0,abc,0,,0"), Err(RowReason::NoIdentity));
    }

    #[test]
    fn each_bad_column_has_its_reason() {
        let good = ["192.0.2.9", "1a:1b", "01:02", "100", "200", "1", "0", "0", "h", "0", "", "0"];
        assert!(read(12, &good.join(",")).is_ok());
        for (index, bad, reason) in [
            (0, "192.0.2", RowReason::Address),
            (0, "", RowReason::Address),
            (1, "1a1b1c1d1e1f", RowReason::HwAddr),
            (1, "0:1:2:3:4:5:6:7:8:9:a:b:c:d:e:f:0:1:2:3:4", RowReason::HwAddr),
            (2, "01:020", RowReason::ClientId),
            (2, "01", RowReason::ClientId),
            (3, "", RowReason::ValidLifetime),
            (3, "4294967296", RowReason::ValidLifetime),
            (4, "x", RowReason::Expire),
            (5, "-4294967296", RowReason::SubnetId),
            (6, "2", RowReason::FqdnFwd),
            (7, "", RowReason::FqdnRev),
            (9, "", RowReason::State),
            (10, "[ 1 ]", RowReason::UserContext),
            (11, "", RowReason::PoolId),
            (11, "0\r", RowReason::PoolId),
        ] {
            let mut row = good;
            row[index] = bad;
            assert_eq!(read(12, &row.join(",")), Err(reason), "column {index} '{bad}'");
        }
    }

    #[test]
    fn rows_of_every_schema_are_read_with_their_defaults() {
        let full = ["192.0.2.9", "1a:1b", "", "100", "200", "1", "0", "0", "h", "2", "{ }", "7", "8", "9"];
        for (header, fields, good) in [
            (9, 9, true),
            (9, 12, true),
            (9, 8, false),
            (10, 10, true),
            (10, 12, true),
            (10, 9, false),
            (11, 11, true),
            (11, 10, false),
            (12, 12, true),
            (12, 11, false),
            (12, 14, true),
            (13, 13, true),
            (13, 12, true),
            (13, 11, false),
            (13, 14, true),
        ] {
            let result = read(header, &full[..fields].join(","));
            assert_eq!(result.is_ok(), good, "header of {header}, row of {fields}");
            if let Ok(lease) = result {
                let lease = lease.view();
                assert_eq!(lease.state == LeaseState::Reclaimed, fields > 9);
                assert_eq!(lease.user_context, if fields > 10 { &b"{ }"[..] } else { b"" });
                assert_eq!(lease.pool_id, if fields > 11 { 7 } else { 0 });
            }
        }
    }

    #[test]
    fn rows_are_written_as_kea_writes_them() {
        let lease = Lease4 {
            address: Ipv4Addr::new(192, 0, 2, 10),
            hw_addr: HwAddr::ethernet([0x1a, 0x1b, 0x1c, 0x1d, 0x1e, 0x1f]),
            client_id: &[],
            cltt: 1_795_415_292,
            valid_lft: 7200,
            subnet_id: SubnetId(1),
            pool_id: 0,
            state: LeaseState::Assigned,
            fqdn_fwd: false,
            fqdn_rev: false,
            hostname: b"foo,bar&x",
            user_context: br#"{ "a": "b", "c": 1.0 }"#,
        };
        let mut out = Vec::new();
        write(&lease, &mut out);
        write_deletion(&Lease4 { user_context: b"", ..lease }, &mut out);
        assert_eq!(
            String::from_utf8(out).expect("ASCII"),
            "192.0.2.10,1a:1b:1c:1d:1e:1f,,7200,1795422492,1,0,0,foo&#x2cbar&#x26x,0,{ \"a\": \"b\"&#x2c \"c\": 1.0 },0\n\
             192.0.2.10,1a:1b:1c:1d:1e:1f,,0,1795415292,1,0,0,foo&#x2cbar&#x26x,0,,0\n"
        );
    }

    #[test]
    fn the_deletion_of_a_lease_without_identity_can_be_read_back() {
        let lease = read(12, "192.0.2.13,,,7200,1895422492,1,0,0,,1,,0").expect("good");
        let mut out = Vec::new();
        write_deletion(&Lease4 { state: LeaseState::Reclaimed, ..lease.view() }, &mut out);
        let line = String::from_utf8(out).expect("ASCII");
        assert_eq!(read(12, line.trim_end()).expect("readable").view().valid_lft, 0);
    }

    #[test]
    fn an_unknown_state_keeps_the_address_held() {
        let lease = read(12, "192.0.2.12,1a:1b,,7200,1895422492,1,0,0,,9,,0").expect("good");
        assert_eq!(lease.view().state, LeaseState::Assigned);
    }

    proptest::proptest! {
        #[test]
        fn whatever_a_lease_holds_its_row_is_one_line_and_reads_back(
            address: u32, mac in proptest::collection::vec(proptest::num::u8::ANY, 1..=20),
            mut client_id in proptest::collection::vec(proptest::num::u8::ANY, 0..=255),
            cltt in 0..u64::from(u32::MAX), valid_lft: u32, subnet: u32, pool_id: u32, state in 0u64..=4,
            fqdn_fwd: bool, fqdn_rev: bool,
            hostname in proptest::collection::vec(proptest::num::u8::ANY, 0..=300),
        ) {
            if client_id.len() == 1 {
                client_id.clear();
            }
            let lease = Lease4 {
                address: Ipv4Addr::from(address), hw_addr: HwAddr::new(1, &mac).expect("at most 20"),
                client_id: &client_id, cltt, valid_lft, subnet_id: SubnetId(subnet), pool_id,
                state: LeaseState::from_number(state).expect("a state"), fqdn_fwd, fqdn_rev,
                hostname: &hostname, user_context: b"{ \"a\": \"b,&\\n\" }",
            };
            let mut out = Vec::new();
            write(&lease, &mut out);
            proptest::prop_assert_eq!(out.pop(), Some(b'\n'));
            proptest::prop_assert!(out.iter().all(|octet| (0x20..0x7f).contains(octet)));
            let mut reader = RowReader::<V4>::new(Schema::current::<V4>());
            proptest::prop_assert_eq!(reader.read(&out), Ok(lease));
        }

        #[test]
        fn no_line_makes_the_reader_panic(line in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let _ = RowReader::<V4>::new(Schema::current::<V4>()).read(&line);
        }
    }
}
