//! From files to something that can serve: configuration read and checked, interfaces chosen, plan built.

use std::collections::HashSet;
use std::fs;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;

use crate::config::finding::{Finding, Severity};
use crate::config::load::{Loaded, Source, SystemInterface, load};
use crate::config::plan::{Plan, Surroundings, build};
use crate::config::tree::{Dhcp4, ExpiredLeases, InterfaceChoice, SocketType as Configured};
use crate::exchange::Arrival;
use crate::exchange::reclaim::Reclamation;
use crate::exchange::serving::{Serving, StatsBook};
use crate::lease::address::AddressSpace;
use crate::net::link::{SelectError, Selected, Selection, Snapshot, SocketType, Table, select};

/// Where leases are kept when the configuration does not say: Kea's place.
pub const LEASE_FILE_DEFAULT: &str = "/var/lib/kea/kea-leases4.csv";

/// Reads `files` and everything that they include, and checks them as one configuration.
///
/// # Errors
/// The file that cannot be read, and why.
pub fn read(files: &[PathBuf], interfaces: Option<&[SystemInterface]>) -> Result<Loaded, String> {
    let mut texts = Vec::new();
    for file in files {
        let text =
            fs::read_to_string(file).map_err(|error| format!("cannot read {}: {error}", file.display()))?;
        texts.push((file.display().to_string(), text));
    }
    let sources: Vec<Source<'_>> = texts.iter().map(|(name, text)| Source { name, text }).collect();
    let mut include = |name: &str| fs::read_to_string(name).map_err(|error| error.to_string());
    Ok(load(&sources, &mut include, interfaces))
}

/// The machine's interfaces as configurations name them.
#[must_use]
pub fn system_interfaces(snapshot: &Snapshot) -> Vec<SystemInterface> {
    snapshot
        .links
        .iter()
        .map(|link| SystemInterface { name: link.name.clone(), addresses: link.ipv4().collect() })
        .collect()
}

/// The kind of socket that a configuration wants.
#[must_use]
pub fn socket_type(tree: &Dhcp4) -> SocketType {
    match tree.interfaces.socket_type.unwrap_or_default() {
        Configured::Raw => SocketType::Raw,
        Configured::Udp => SocketType::Udp,
    }
}

/// The interfaces to serve; `later` leaves out what is not there now instead of failing.
///
/// # Errors
/// The entry of the configuration that cannot be had.
pub fn choose(tree: &Dhcp4, snapshot: &Snapshot, later: bool) -> Result<Selection, SelectError> {
    let entries: Vec<String> = tree
        .interfaces
        .interfaces
        .iter()
        .map(|entry| match &entry.value {
            InterfaceChoice::All => "*".to_owned(),
            InterfaceChoice::Name(name) => name.clone(),
            InterfaceChoice::Address(name, address) => format!("{name}/{address}"),
        })
        .collect();
    let entries: Vec<&str> = entries.iter().map(String::as_str).collect();
    select(snapshot, &entries, socket_type(tree), later)
}

/// The plan of a configuration over the interfaces of `table`; findings of the plan's own are added to `findings`.
pub fn plan(
    tree: &Dhcp4,
    loaded: &Loaded,
    table: &mut Table,
    snapshot: &Snapshot,
    generation: u64,
    findings: &mut Vec<Finding>,
) -> Option<Plan> {
    // Numbers are given to all interfaces of the machine, so that subnets can be bound to any of them.
    for link in &snapshot.links {
        table.id(&link.name);
    }
    let mut interfaces = Vec::new();
    for number in 0..=u16::MAX {
        let Some(name) = table.name(crate::ids::InterfaceId(number)) else { break };
        let addresses = snapshot.link(name).map(|link| link.ipv4().collect()).unwrap_or_default();
        interfaces.push(SystemInterface { name: name.to_owned(), addresses });
    }
    let mut report = loaded.next_report();
    let plan = build(tree, Surroundings { generation, interfaces }, &mut report);
    super::ha::setup::examine(tree, &mut report);
    let plan = plan.filter(|_| report.errors() == 0);
    findings.extend(report.into_findings());
    plan
}

/// What is wrong with HA in a configuration that is refused for other reasons: all faults are told at once.
pub fn examine_faulty(loaded: &Loaded, findings: &mut Vec<Finding>) {
    let Some(tree) = &loaded.faulty_dhcp4 else { return };
    let mut report = loaded.next_report();
    super::ha::setup::examine(tree, &mut report);
    findings.extend(report.into_findings());
}

/// Whether any finding is an error.
#[must_use]
pub fn has_errors(findings: &[Finding]) -> bool {
    findings.iter().any(|finding| finding.severity == Severity::Error)
}

/// `expired-leases-processing` as the exchange wants it.
#[must_use]
pub const fn reclamation(expired: &ExpiredLeases) -> Reclamation {
    Reclamation {
        reclaim_wait_s: expired.reclaim_wait_s,
        flush_wait_s: expired.flush_wait_s,
        hold_s: expired.hold_s,
        leases_max: expired.max_leases,
        cycle_ms_max: expired.max_ms,
        unwarned_cycles: expired.unwarned_cycles,
    }
}

/// How answers leave by each served interface, by its number.
#[must_use]
pub fn arrivals(served: &[(crate::ids::InterfaceId, Selected)], raw: bool) -> Vec<Option<Arrival>> {
    let count = served.iter().map(|(id, _)| usize::from(id.0) + 1).max().unwrap_or(0);
    let mut arrivals = vec![None; count];
    for (id, selected) in served {
        if let Some(own_address) = selected.addresses.first() {
            arrivals[usize::from(id.0)] =
                Some(Arrival { l2_own: selected.mac, own_address: *own_address, raw });
        }
    }
    arrivals
}

/// A plan ready to serve from.
#[must_use]
pub fn serving(
    tree: &Dhcp4,
    plan: Plan,
    arrivals: Vec<Option<Arrival>>,
    book: &mut StatsBook,
) -> Arc<Serving> {
    let mut serving = Serving::new(plan, reclamation(&tree.expired), arrivals, book);
    super::ha::setup::complete(tree, &mut serving);
    Arc::new(serving)
}

/// The ranges of addresses that a plan may give: its pools and what is reserved outside them.
fn ranges_of(plan: &Plan) -> Vec<(Ipv4Addr, Ipv4Addr)> {
    let reserved = plan.reserved_outside_pools().into_iter().map(|address| (address, address));
    plan.address_ranges().into_iter().chain(reserved).collect()
}

/// Whether the address space has room for a plan.
///
/// # Errors
/// When the plan has more addresses than the space was made for.
pub fn check_space(space: &AddressSpace, plan: &Plan) -> Result<(), String> {
    space.check_room(&ranges_of(plan)).map(|_| ()).map_err(|error| error.to_string())
}

/// Networks of 256 addresses that one step makes room for: some two mebibytes.
pub const BLOCKS_PER_STEP_MAX: u32 = 1024;

/// Room for the addresses of a plan, made in capped steps: a pool of a whole /8 has 65,536 networks of 256 addresses, and the control thread
/// has heartbeats to answer.
#[derive(Debug)]
pub struct SpaceWork {
    ranges: Vec<(Ipv4Addr, Ipv4Addr)>,
}

impl SpaceWork {
    /// What has to be made before a plan can be put in force; nothing when that is less than a step.
    ///
    /// # Errors
    /// When the plan has more addresses than the space was made for.
    pub fn new(space: &AddressSpace, plan: &Plan) -> Result<Option<Self>, String> {
        let ranges = ranges_of(plan);
        let missing = space.check_room(&ranges).map_err(|error| error.to_string())?;
        Ok((missing > BLOCKS_PER_STEP_MAX).then_some(Self { ranges }))
    }

    /// One step; whether it was the last.
    ///
    /// # Errors
    /// When leases that came meanwhile have taken the room.
    pub fn step(&mut self, space: &AddressSpace) -> Result<bool, String> {
        let mut room = BLOCKS_PER_STEP_MAX;
        while let Some((first, last)) = self.ranges.last_mut() {
            match space.ensure_some(*first, *last, &mut room).map_err(|error| error.to_string())? {
                Some(next) => {
                    *first = next;
                    return Ok(false);
                }
                None => drop(self.ranges.pop()),
            }
        }
        Ok(true)
    }
}

/// Makes the address space ready for a plan: blocks for every address of a pool or reservation, marks on reserved addresses.
///
/// # Errors
/// When the plan has more addresses than the space was made for. Then nothing has been made: blocks never go away, and a plan that is
/// refused must not take the room of those that come after it.
pub fn prepare_space(space: &AddressSpace, plan: &Plan, old: Option<&Plan>) -> Result<(), String> {
    let ranges = ranges_of(plan);
    space.check_room(&ranges).map_err(|error| error.to_string())?;
    for (first, last) in ranges {
        space.ensure(first, last).map_err(|error| error.to_string())?;
    }
    // Marks are set before others are removed: shards go on allocating meanwhile, and an address that stays reserved must
    // never look free.
    let reserved = reserved_addresses(plan);
    for address in &reserved {
        space.set_reserved(*address, true);
    }
    if let Some(old) = old {
        for address in reserved_addresses(old) {
            if !reserved.contains(&address) {
                space.set_reserved(address, false);
            }
        }
    }
    Ok(())
}

/// The addresses that only the client of a reservation may have, or nobody.
fn reserved_addresses(plan: &Plan) -> HashSet<Ipv4Addr> {
    let mut reserved = HashSet::new();
    for host in plan.hosts.all() {
        let honoured = host.subnet.is_some_and(|subnet| {
            let flags = plan.subnet(subnet).reservations;
            flags.in_subnet && !flags.out_of_pool
        });
        if honoured && !host.address.is_unspecified() {
            reserved.insert(host.address);
        }
    }
    if plan.globals.exclude_first_last_24 {
        for pool in plan.pools.iter().filter(|pool| plan.subnet(pool.subnet).prefix_len <= 24) {
            let (first, last) = (u64::from(pool.first.to_bits()), u64::from(pool.last.to_bits()));
            let edges = (first & !0xff..=last).step_by(256).flat_map(|block| [block, block | 0xff]);
            let edges = edges.filter(|address| (first..=last).contains(address));
            reserved.extend(edges.filter_map(|address| u32::try_from(address).ok()).map(Ipv4Addr::from_bits));
        }
    }
    reserved
}
