//! What another server was heard to have: so that it can be given what it lacks.

use std::collections::HashMap;
use std::net::Ipv4Addr;

use super::{LIFETIME_INFINITE_S, Lease4, LeaseState};
use crate::ids::SubnetId;

/// The leases of another server as pages of them came by: eight octets each, as pages are in the order of addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KnownLeases {
    /// Sorted.
    subnets: Option<Box<[SubnetId]>>,
    wall_s: u64,
    ordered: Vec<(Ipv4Addr, u32)>,
    /// What came out of order: changes.
    others: HashMap<Ipv4Addr, u32>,
}

impl KnownLeases {
    /// Nothing is known. Of interest are leases of these subnets (all when there is no list), and of those that are absent there the ones
    /// that somebody holds at `wall_s`.
    #[must_use]
    pub fn new(subnets: Option<Vec<SubnetId>>, wall_s: u64) -> Self {
        let subnets = subnets.map(|mut subnets| {
            subnets.sort_unstable();
            subnets.into_boxed_slice()
        });
        Self { subnets, wall_s, ..Self::default() }
    }

    /// The other one has this lease, of this `cltt`.
    pub fn note(&mut self, address: Ipv4Addr, cltt: u64) {
        let cltt = u32::try_from(cltt).unwrap_or(u32::MAX);
        if self.ordered.last().is_none_or(|&(last, _)| last < address) {
            self.ordered.push((address, cltt));
        } else {
            self.others.insert(address, cltt);
        }
    }

    fn cltt(&self, address: Ipv4Addr) -> Option<u32> {
        self.others.get(&address).copied().or_else(|| {
            let place = self.ordered.binary_search_by_key(&address, |&(address, _)| address).ok()?;
            Some(self.ordered[place].1)
        })
    }

    /// Whether the other one lacks this lease, or has an older one of its address. One that nobody holds any more is not missed.
    #[must_use]
    pub fn lacks(&self, lease: &Lease4<'_>) -> bool {
        let is_of_interest =
            self.subnets.as_ref().is_none_or(|subnets| subnets.binary_search(&lease.subnet_id).is_ok());
        is_of_interest
            && match self.cltt(lease.address) {
                Some(cltt) => lease.cltt > u64::from(cltt),
                None => self.is_held(lease),
            }
    }

    const fn is_held(&self, lease: &Lease4<'_>) -> bool {
        let ended = lease.valid_lft != LIFETIME_INFINITE_S
            && lease.cltt.saturating_add(lease.valid_lft as u64) <= self.wall_s;
        matches!(lease.state, LeaseState::Assigned | LeaseState::Declined) && !ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(last: u8, cltt: u64) -> Lease4<'static> {
        Lease4 { cltt, valid_lft: 100, ..Lease4::sample(Ipv4Addr::new(10, 0, 0, last)) }
    }

    fn known(subnets: Option<Vec<SubnetId>>) -> KnownLeases {
        let mut known = KnownLeases::new(subnets, 1050);
        for (last, cltt) in [(1, 1000), (3, 1000), (7, 1000), (3, 1020), (2, 1000)] {
            known.note(Ipv4Addr::new(10, 0, 0, last), cltt);
        }
        known
    }

    #[test]
    fn what_is_absent_or_older_is_lacking_whatever_order_it_came_in() {
        let known = known(None);
        let lacking = |cltt| (1..=8).filter(|&last| known.lacks(&lease(last, cltt))).collect::<Vec<u8>>();
        assert_eq!(lacking(1000), [4, 5, 6, 8]);
        assert_eq!(lacking(1010), [1, 2, 4, 5, 6, 7, 8]);
        assert_eq!(lacking(1021), [1, 2, 3, 4, 5, 6, 7, 8]);
    }

    #[test]
    fn what_nobody_holds_is_not_missed_but_makes_an_older_one_end() {
        let known = known(None);
        assert!(!known.lacks(&lease(4, 950)), "it has ended");
        assert!(known.lacks(&Lease4 { valid_lft: LIFETIME_INFINITE_S, ..lease(4, 950) }));
        for (state, missed) in
            [(LeaseState::Declined, true), (LeaseState::Released, false), (LeaseState::Reclaimed, false)]
        {
            assert_eq!(known.lacks(&Lease4 { state, ..lease(4, 1000) }), missed);
            assert!(known.lacks(&Lease4 { state, ..lease(1, 1001) }));
        }
    }

    #[test]
    fn leases_of_other_subnets_are_nobodys_here() {
        let ids = |ids: &[u32]| Some(ids.iter().copied().map(SubnetId).collect());
        assert!(!known(ids(&[5, 2])).lacks(&lease(4, 1000)));
        assert!(known(ids(&[5, 1])).lacks(&lease(4, 1000)));
    }
}
