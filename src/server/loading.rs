//! The leases of the file at the start: read in parallel, judged by `lease-checks`, handed to the shards that own their clients.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::engine::Start;
use super::told;
use crate::classify::steer::Steering;
use crate::exchange::context;
use crate::exchange::leases::Leases;
use crate::exchange::serving::Serving;
use crate::ids::SubnetId;
use crate::journal::V4;
use crate::journal::replay::{Sanity, SanityMode, sanity};
use crate::lease::address::AddressSpace;
use crate::lease::{Lease4, LeaseState};
use crate::store::{self, LiveFile};

/// What loading the leases came to.
#[derive(Debug, Default)]
pub struct LoadedLeases {
    /// Leases in the tables.
    pub lease_count: u64,
    /// Leases of the file that found no room, by reason.
    pub refused: BTreeMap<String, u64>,
    /// Leases that are not in the subnet that they name: by what was done about it, how many and the first of them.
    pub odd: BTreeMap<&'static str, (u64, Ipv4Addr)>,
    /// Leases of subnets that the configuration does not have: of each, how many are in use, and how many of those declined.
    pub absent: BTreeMap<SubnetId, (i64, i64)>,
    /// What was found in the files.
    pub findings: Vec<store::Finding>,
    /// The file wants a clean-up.
    pub needs_cleanup: bool,
}

/// Opens the file and hands its leases to the shards that own their clients.
pub(super) fn load(
    path: &std::path::Path,
    start: &Start,
    leases: &[Mutex<Leases>],
    space: &AddressSpace,
    steering: Steering,
) -> Result<(LiveFile, LoadedLeases), String> {
    let opened =
        store::open::<V4>(Arc::clone(&start.disk), path, std::process::id()).map_err(|error| told(&error))?;
    let refused = Mutex::new(BTreeMap::<String, u64>::new());
    let odd = Mutex::new(BTreeMap::<&'static str, (u64, Ipv4Addr)>::new());
    let dropped = AtomicU64::new(0);
    let absent = Mutex::new(BTreeMap::<SubnetId, (i64, i64)>::new());
    let serving = &*start.serving;
    let take = |_: u32, lease: &Lease4<'_>| {
        let mut lease = *lease;
        if let Some(verdict) = check_subnet(serving, start.sanity, &mut lease) {
            let mut odd = odd.lock();
            let (count, first) = odd.entry(verdict.text()).or_insert((0, lease.address));
            *count += 1;
            *first = lease.address.min(*first);
            if verdict == Verdict::Dropped {
                dropped.fetch_add(1, Ordering::Relaxed);
                return;
            }
        }
        let context = start.upgrade_contexts.then(|| context::upgraded(lease.user_context)).flatten();
        if let Some(context) = &context {
            lease.user_context = context;
        }
        let lease = &lease;
        let owner = steering.owner(&lease.hw_addr);
        let stored = match space.ensure(lease.address, lease.address) {
            Ok(()) => {
                let mut leases = leases[usize::from(owner.0)].lock();
                leases.table.grow_now();
                leases.load(serving, lease).map_err(|error| error.to_string())
            }
            Err(error) => Err(error.to_string()),
        };
        if stored.is_ok() && serving.plan.subnet_by_id(lease.subnet_id).is_none() {
            let mut absent = absent.lock();
            let counts = absent.entry(lease.subnet_id).or_default();
            counts.0 += i64::from(matches!(lease.state, LeaseState::Assigned | LeaseState::Declined));
            counts.1 += i64::from(lease.state == LeaseState::Declined);
        }
        if let Err(reason) = stored {
            *refused.lock().entry(reason).or_default() += 1;
        }
    };
    let threads = u32::try_from(leases.len()).unwrap_or(1);
    let report = opened.image.load(threads, start.row_errors_max, take).map_err(|error| told(&error))?;
    let mut findings = opened.findings;
    findings.extend(report.findings);
    let refused = refused.into_inner();
    let lost = refused.values().sum::<u64>() + dropped.into_inner();
    let loaded = LoadedLeases {
        lease_count: report.lease_count - lost.min(report.lease_count),
        refused,
        odd: odd.into_inner(),
        absent: absent.into_inner(),
        findings,
        needs_cleanup: opened.needs_cleanup,
    };
    Ok((opened.live, loaded))
}

/// What was done about a lease that is not in the subnet that it names.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Kept,
    Fixed,
    Dropped,
}

impl Verdict {
    const fn text(self) -> &'static str {
        match self {
            Self::Kept => "kept as they are",
            Self::Fixed => "given the subnet of their address",
            Self::Dropped => "not loaded",
        }
    }
}

/// Applies `lease-checks`; nothing when the lease is in its subnet, or nobody minds.
///
/// What is judged is the last row of an address. Kea judges every row while it reads: with `del` an older row can outlive
/// the one that replaced or removed it, until a clean-up of the file has taken the older one away.
fn check_subnet(serving: &Serving, mode: SanityMode, lease: &mut Lease4<'_>) -> Option<Verdict> {
    let plan = &serving.plan;
    let own = plan.subnet_by_id(lease.subnet_id);
    if own.is_some_and(|index| plan.subnet(index).contains(lease.address)) {
        return None;
    }
    let found = plan.lookup.by_address(lease.address, |_| true).map(|index| plan.subnet(index).id);
    match sanity(mode, false, found) {
        Sanity::Keep => None,
        Sanity::KeepAndReport => Some(Verdict::Kept),
        Sanity::Fix(subnet) => {
            lease.subnet_id = subnet;
            Some(Verdict::Fixed)
        }
        Sanity::Drop => Some(Verdict::Dropped),
    }
}
