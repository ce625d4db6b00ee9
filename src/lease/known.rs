//! What another server was heard to have: so that it can be given what it lacks.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::net::Ipv4Addr;

use super::{Lease4, LeaseState};
use crate::ids::SubnetId;

/// Where in its second a lease is taken to have become what it is: of two of one address and one second, one that somebody holds is the later
/// one. A client that has given its address back and got it again within a second was told so, while one that is taken for held is only
/// free a little later.
#[must_use]
pub const fn place_in_second(state: LeaseState, has_ended: bool) -> u8 {
    match state {
        LeaseState::Assigned if !has_ended => 2,
        LeaseState::Declined if !has_ended => 1,
        _ => 0,
    }
}

/// The leases of another server as pages of them came by: twelve octets each, as pages are in the order of addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KnownLeases {
    /// Sorted.
    subnets: Option<Box<[SubnetId]>>,
    wall_s: u64,
    ordered: Vec<(Ipv4Addr, Known)>,
    /// What came out of order: changes.
    others: HashMap<Ipv4Addr, Known>,
}

/// What is kept of a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Known {
    /// When it became what it is.
    rank: u32,
    /// Whose it is, and for how long.
    terms: u32,
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

    /// The other one has this lease.
    pub fn note(&mut self, lease: &Lease4<'_>) {
        let (address, known) = (lease.address, Known { rank: self.rank(lease), terms: terms(lease) });
        if self.ordered.last().is_none_or(|&(last, _)| last < address) {
            self.ordered.push((address, known));
        } else {
            self.others.insert(address, known);
        }
    }

    fn known(&self, address: Ipv4Addr) -> Option<Known> {
        self.others.get(&address).copied().or_else(|| {
            let place = self.ordered.binary_search_by_key(&address, |&(address, _)| address).ok()?;
            Some(self.ordered[place].1)
        })
    }

    /// Whether the other one lacks this lease, or has an older one of its address, or another one of the same second: where its own goes first,
    /// it has replaced ours before this is asked. One that nobody holds any more is not missed.
    #[must_use]
    pub fn lacks(&self, lease: &Lease4<'_>) -> bool {
        let is_of_interest =
            self.subnets.as_ref().is_none_or(|subnets| subnets.binary_search(&lease.subnet_id).is_ok());
        is_of_interest
            && match self.known(lease.address) {
                Some(known) => match self.rank(lease).cmp(&known.rank) {
                    Ordering::Less => false,
                    Ordering::Equal => self.place(lease) > 0 && terms(lease) != known.terms,
                    Ordering::Greater => true,
                },
                None => self.place(lease) > 0,
            }
    }

    fn place(&self, lease: &Lease4<'_>) -> u8 {
        place_in_second(lease.state, lease.is_expired(self.wall_s))
    }

    /// When a lease became what it is, in 32 bits: right for 17 years before and after the pages; what is further away is as far as that.
    fn rank(&self, lease: &Lease4<'_>) -> u32 {
        let second = (lease.cltt + (1 << 29)).saturating_sub(self.wall_s).min((1 << 30) - 1);
        u32::try_from(second).unwrap_or(u32::MAX) << 2 | u32::from(self.place(lease))
    }
}

/// The client of a lease and its lifetime in 32 bits (FNV-1a): two servers on their own can give one address at the same second to two clients,
/// or to one for different times.
fn terms(lease: &Lease4<'_>) -> u32 {
    let octets = lease.hw_addr.as_bytes().iter().chain(lease.client_id).copied();
    octets
        .chain(lease.valid_lft.to_be_bytes())
        .fold(0x811c_9dc5, |terms, octet| (terms ^ u32::from(octet)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::super::{HwAddr, LIFETIME_INFINITE_S};
    use super::*;

    fn lease(last: u8, cltt: u64) -> Lease4<'static> {
        Lease4 { cltt, valid_lft: 100, ..Lease4::sample(Ipv4Addr::new(10, 0, 0, last)) }
    }

    fn known(subnets: Option<Vec<SubnetId>>) -> KnownLeases {
        let mut known = KnownLeases::new(subnets, 1050);
        for (last, cltt) in [(1, 1000), (3, 1000), (7, 1000), (3, 1020), (2, 1000)] {
            known.note(&lease(last, cltt));
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
    fn another_one_of_the_same_second_is_lacking_too() {
        let known = known(None);
        let same = lease(1, 1000);
        let hw_addr = HwAddr::ethernet([2, 0, 0, 0, 9, 9]);
        assert!(!known.lacks(&same));
        assert!(known.lacks(&Lease4 { hw_addr, ..same }), "somebody else's");
        assert!(known.lacks(&Lease4 { valid_lft: 101, ..same }), "for another time");
        assert!(!known.lacks(&Lease4 { hw_addr, state: LeaseState::Released, ..same }));
        assert!(!known.lacks(&Lease4 { hw_addr, ..lease(1, 999) }));
    }

    #[test]
    fn what_nobody_holds_is_not_missed_but_makes_an_older_one_end() {
        let known = known(None);
        assert!(!known.lacks(&lease(4, 949)), "it has ended");
        assert!(known.lacks(&Lease4 { valid_lft: LIFETIME_INFINITE_S, ..lease(4, 949) }));
        for (state, missed) in
            [(LeaseState::Declined, true), (LeaseState::Released, false), (LeaseState::Reclaimed, false)]
        {
            assert_eq!(known.lacks(&Lease4 { state, ..lease(4, 1000) }), missed);
            assert!(known.lacks(&Lease4 { state, ..lease(1, 1001) }));
        }
    }

    #[test]
    fn of_one_second_what_somebody_holds_is_later_than_what_nobody_does() {
        let given_back = |cltt| Lease4 { state: LeaseState::Released, valid_lft: 0, ..lease(1, cltt) };
        let knows = |lease: &Lease4<'_>| {
            let mut known = KnownLeases::new(None, 1050);
            known.note(lease);
            known
        };
        assert!(knows(&given_back(1000)).lacks(&lease(1, 1000)), "it was given again");
        assert!(!knows(&lease(1, 1000)).lacks(&given_back(1000)));
        assert!(!knows(&given_back(1000)).lacks(&given_back(1000)));
        assert!(knows(&lease(1, 999)).lacks(&given_back(1000)));
        assert!(!knows(&given_back(940)).lacks(&lease(1, 940)), "it has ended");
        let declined = Lease4 { state: LeaseState::Declined, ..lease(1, 1000) };
        assert!(knows(&declined).lacks(&lease(1, 1000)) && !knows(&lease(1, 1000)).lacks(&declined));
    }

    #[test]
    fn times_that_are_far_away_are_as_far_as_can_be_told() {
        for cltt in [0, 5, u64::from(u32::MAX)] {
            let mut known = KnownLeases::new(None, 2_000_000_000);
            known.note(&lease(1, cltt));
            assert_eq!(known.lacks(&lease(1, 1_999_999_999)), cltt < 1_999_999_999);
        }
    }

    #[test]
    fn leases_of_other_subnets_are_nobodys_here() {
        let ids = |ids: &[u32]| Some(ids.iter().copied().map(SubnetId).collect());
        assert!(!known(ids(&[5, 2])).lacks(&lease(4, 1000)));
        assert!(known(ids(&[5, 1])).lacks(&lease(4, 1000)));
    }
}
