//! RELEASE and DECLINE: a lease comes back; neither is answered (RFC 2131 4.3.3 and 4.3.4).

use std::net::Ipv4Addr;

use super::leases::{LetGo, is_over};
use super::process::{Given, Outcome, Shard, Step};
use super::serving::Serving;
use crate::ids::{LeaseRef, ShardId};
use crate::journal::ChangeOrigin;
use crate::lease::address::Owner;
use crate::lease::{LIFETIME_INFINITE_S, LeaseState};
use crate::wire::drop::DropReason;
use crate::wire::query::Query;

impl Shard {
    /// The lease that a client gives back by `ciaddr`; never answered.
    pub(super) fn release(
        &mut self,
        serving: &Serving,
        given: &Given<'_>,
        query: &Query<'_>,
        client_id: &[u8],
    ) -> Step<Outcome> {
        let address = query.packet.ciaddr();
        let lease = self.own_lease(given, address)?;
        let lease = match lease {
            Held::Here(lease) => lease,
            Held::There(shard) => return Ok(Outcome::HandOver(shard)),
            Held::Nowhere => return Err(DropReason::ReleaseNoLease),
        };
        if !self.belongs(serving, lease, query, client_id) {
            return Err(DropReason::ReleaseWrongClient);
        }
        if self.leases.table.record(lease).state() != LeaseState::Assigned {
            return Err(DropReason::ReleaseState);
        }
        let record = self.leases.table.record(lease);
        let infinite = record.valid_lft() == LIFETIME_INFINITE_S;
        // Read late, it must not seem to be later than what the partner has done with the address since it came.
        let wall_s = given.came_s().max(record.cltt());
        let lsn = if serving.keeps_released() && !infinite {
            self.leases.let_go(serving, lease, LetGo::Release { wall_s })?
        } else {
            self.leases.ready()?;
            self.leases.delete(serving, lease, ChangeOrigin::Client)?
        };
        Ok(Outcome::Done(lsn))
    }

    /// The lease that a client found in use by somebody else; never answered.
    pub(super) fn decline(
        &mut self,
        serving: &Serving,
        given: &Given<'_>,
        query: &Query<'_>,
        client_id: &[u8],
    ) -> Step<Outcome> {
        let Some(address) = query.requested_address() else { return Err(DropReason::DeclineNoAddress) };
        let lease = match self.own_lease(given, address)? {
            Held::Here(lease) => lease,
            Held::There(shard) => return Ok(Outcome::HandOver(shard)),
            Held::Nowhere => return Err(DropReason::DeclineNoLease),
        };
        let record = self.leases.table.record(lease);
        if record.state() != LeaseState::Assigned || is_over(record, given.now.wall_s) {
            return Err(DropReason::DeclineNoLease);
        }
        if !self.belongs(serving, lease, query, client_id) {
            return Err(DropReason::DeclineWrongClient);
        }
        let probation_s = serving.plan.globals.decline_probation_s;
        let lsn = self.leases.decline(serving, lease, given.now.wall_s, probation_s)?;
        Ok(Outcome::Done(lsn))
    }

    /// Who holds `address`.
    fn own_lease(&self, given: &Given<'_>, address: Ipv4Addr) -> Step<Held> {
        Ok(match self.leases.space.owner(address) {
            Owner::InUse { shard, lease } | Owner::Stealable { shard, lease } => {
                if shard == self.leases.shard {
                    Held::Here(lease)
                } else if given.handed_over {
                    Held::Nowhere
                } else {
                    Held::There(shard)
                }
            }
            Owner::Unknown | Owner::Free | Owner::Retiring { .. } => Held::Nowhere,
        })
    }

    pub(super) fn belongs(
        &self,
        serving: &Serving,
        lease: LeaseRef,
        query: &Query<'_>,
        client_id: &[u8],
    ) -> bool {
        let record = self.leases.table.record(lease);
        let matches = serving
            .plan
            .subnet_by_id(record.subnet_id())
            .is_none_or(|subnet| serving.plan.subnet(subnet).match_client_id);
        self.leases.table.belongs(lease, &query.hw_addr(), if matches { client_id } else { &[] })
    }
}

/// Where a lease is held.
enum Held {
    Here(LeaseRef),
    There(ShardId),
    Nowhere,
}
