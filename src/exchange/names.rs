//! The names of one answer: option 12 or 81 for the client, the name that the lease keeps, and who would update DNS.

use std::net::Ipv4Addr;

use super::client::Client;
use crate::config::plan::names::{NameBuffer, NameChoice, UpdateFlags};
use crate::config::plan::{HostIndex, PoolIndex};
use crate::wire::codes::option;
use crate::wire::name::{Fqdn, TEXT_BYTES_MAX};

/// Longest payload of option 81: flags, two result codes, name.
const FQDN_BYTES_MAX: usize = 3 + 256;
/// Flag bits of option 81 (RFC 4702 2.1).
const FLAG_S: u8 = 1;
const FLAG_O: u8 = 2;
const FLAG_E: u8 = 4;
const FLAG_N: u8 = 8;

/// Memory for the names of one answer, used again for the next.
pub(super) struct Names {
    name: NameBuffer,
    stored: [u8; TEXT_BYTES_MAX],
    stored_len: usize,
    fqdn: [u8; FQDN_BYTES_MAX],
    fqdn_len: usize,
    to_client: bool,
    flags: Option<UpdateFlags>,
}

impl Default for Names {
    fn default() -> Self {
        Self {
            name: NameBuffer::default(),
            stored: [0; TEXT_BYTES_MAX],
            stored_len: 0,
            fqdn: [0; FQDN_BYTES_MAX],
            fqdn_len: 0,
            to_client: false,
            flags: None,
        }
    }
}

impl Names {
    /// Content of option 12; empty for none.
    #[inline(always)]
    pub(super) fn host_name(&self) -> &[u8] {
        if self.to_client { self.name.as_bytes() } else { &[] }
    }

    /// Content of option 81; empty for none.
    pub(super) fn fqdn(&self) -> &[u8] {
        &self.fqdn[..self.fqdn_len]
    }

    /// The lower-cased name that the lease keeps.
    pub(super) fn lease_name(&self) -> &[u8] {
        &self.stored[..self.stored_len]
    }

    /// Whether a forward update would be made.
    pub(super) fn forward(&self) -> bool {
        self.stored_len > 0 && self.flags.is_some_and(UpdateFlags::forward)
    }

    /// Whether a reverse update would be made.
    pub(super) fn reverse(&self) -> bool {
        self.stored_len > 0 && self.flags.is_some_and(UpdateFlags::reverse)
    }
}

/// Makes the names for an answer with `address` (unspecified for none).
#[inline(always)]
pub(super) fn name_lease(
    names: &mut Names,
    client: &Client<'_>,
    host: Option<HostIndex>,
    pool: Option<PoolIndex>,
    address: Ipv4Addr,
) {
    let plan = client.plan;
    names.stored_len = 0;
    names.fqdn_len = 0;
    names.to_client = false;
    names.flags = None;
    let rules = plan.name_rules_at(client.subnet, pool);
    let names_itself =
        [option::HOST_NAME, option::FQDN].iter().any(|code| client.query.options.contains(*code));
    if host.is_none() && !names_itself && !rules.generates_unasked() {
        return;
    }
    let reserved = host.map_or(&[][..], |host| &plan.hosts.host(host).hostname);
    if let Some(fqdn) = client.query.fqdn() {
        let mut text = [0; TEXT_BYTES_MAX];
        let len = fqdn.text(&mut text).unwrap_or(0);
        let flags = rules.update_flags(fqdn.wants_server_update(), fqdn.wants_no_update());
        let mut choice = rules.choose_fqdn(reserved, &text[..len], &mut names.name);
        if choice == NameChoice::Generate && !address.is_unspecified() {
            choice = rules.generate(address, true, &mut names.name);
        }
        names.flags = Some(flags);
        if choice != NameChoice::Given {
            return;
        }
        let bits = [
            (flags.server, FLAG_S),
            (flags.overridden, FLAG_O),
            (fqdn.is_encoded(), FLAG_E),
            (flags.none, FLAG_N),
        ];
        let bits = bits.iter().filter(|(set, _)| *set).fold(0, |all, (_, bit)| all | bit);
        names.fqdn_len = Fqdn::emit(bits, names.name.as_bytes(), &mut names.fqdn).unwrap_or(0);
        // RFC 4702 2.2 retires the two result codes; Kea gives the client its own back, and so do we.
        if let (Some(codes), Some(room)) = (
            client.query.option(option::FQDN).and_then(|fqdn| fqdn.get(1..3)),
            names.fqdn[..names.fqdn_len].get_mut(1..3),
        ) {
            room.copy_from_slice(codes);
        }
        keep(names);
        return;
    }
    let mut choice = rules.choose_hostname(reserved, client.query.host_name(), &mut names.name);
    if choice == NameChoice::Generate && !address.is_unspecified() {
        choice = rules.generate(address, false, &mut names.name);
    }
    if choice == NameChoice::Given {
        names.to_client = true;
        names.flags = Some(UpdateFlags { server: rules.updates, overridden: false, none: !rules.updates });
        keep(names);
    }
}

/// The lease keeps the name in lower case.
fn keep(names: &mut Names) {
    let name = names.name.as_bytes();
    let len = name.len().min(TEXT_BYTES_MAX);
    names.stored[..len].copy_from_slice(&name[..len]);
    names.stored[..len].make_ascii_lowercase();
    names.stored_len = len;
}
