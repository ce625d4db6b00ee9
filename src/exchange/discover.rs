//! DISCOVER: an address is offered, and where the configuration says so kept for its client (RFC 2131 4.3.1).

use super::allocation::{self, Place};
use super::answer::{self, Verdict};
use super::classifier::Classifier;
use super::client::Client;
use super::leases::is_over;
use super::names::name_lease;
use super::process::{Given, Outcome, Shard, Step};
use super::serving::Serving;
use crate::ids::{LeaseRef, Lsn};
use crate::journal::ChangeOrigin;
use crate::lease::{Lease4, LeaseState};
use crate::wire::codes::MessageType;

impl Shard {
    #[inline(always)]
    pub(super) fn discover<'a>(
        &mut self,
        serving: &Serving,
        given: &Given<'_>,
        client: Client<'a>,
        classifier: &mut Classifier,
        out: &mut [u8],
    ) -> Step<Outcome> {
        let v6_only = client.prefers_v6_only();
        let place = {
            let mut view = Client { classes: classifier.classes(), ..client };
            if v6_only {
                None
            } else {
                Some(allocation::offer(&self.leases, &mut self.allocators, serving, &mut view)?)
            }
        };
        let Some(place) = place else {
            return self.v6_only(serving, given, client, MessageType::Offer, classifier, out);
        };
        let client = Client { subnet: place.subnet, ..client };
        // Lifetimes come with the allocation: classes that follow from it come too late for them.
        let (times, stored_s) = {
            let view = Client { classes: classifier.classes(), ..client };
            (self.times(serving, &view, place, None), view.offer_lifetime_s())
        };
        self.settle_classes(&client, place, classifier);
        let view = Client { classes: classifier.classes(), ..client };
        let host = view.current_host();
        name_lease(&mut self.names, &view, host, place.pool, place.address);
        let kept = if stored_s > 0 { self.store_offer(serving, &view, place, stored_s)? } else { None };
        let verdict = Verdict {
            kind: MessageType::Offer,
            yiaddr: place.address,
            lease: Some(times),
            netmask: client.plan.subnet(place.subnet).netmask(),
            subnet: Some(place.subnet),
            pool: place.pool,
            host,
            host_name: self.names.host_name(),
            fqdn: self.names.fqdn(),
        };
        let len = answer::write(
            client.plan,
            client.query,
            given.arrival,
            view.classes,
            &verdict,
            &mut self.desk,
            out,
        )?;
        let kind = MessageType::Offer;
        Ok(kept.map_or(Outcome::Reply { len, kind }, |(lease, lsn)| Outcome::Park { len, kind, lsn, lease }))
    }

    /// Keeps the address of an offer for its client for `valid_s` seconds (`offer-lifetime`). A lease that the client has in
    /// use stays as it is: a DISCOVER does not shorten or end it.
    pub(super) fn store_offer(
        &mut self,
        serving: &Serving,
        client: &Client<'_>,
        place: Place,
        valid_s: u32,
    ) -> Step<Option<(LeaseRef, Lsn)>> {
        let wall_s = client.now.wall_s;
        let own = client.held[0];
        if own.is_some_and(|lease| !is_over(self.leases.table.record(lease), wall_s)) {
            return Ok(None);
        }
        let lease = Lease4 {
            address: place.address,
            hw_addr: *client.hw_addr,
            client_id: client.client_id_in(place.subnet),
            cltt: wall_s,
            valid_lft: valid_s,
            subnet_id: client.plan.subnet(place.subnet).id,
            pool_id: client.plan.pool_id(place.subnet, place.pool),
            state: LeaseState::Assigned,
            fqdn_fwd: false,
            fqdn_rev: false,
            hostname: self.names.lease_name(),
            user_context: &[],
        };
        let renewed = own.filter(|&lease| self.leases.table.record(lease).address() == place.address);
        let stored = match renewed {
            Some(old) => {
                self.leases.ready()?;
                self.leases.count_reclaimed(serving, old);
                self.leases.update(serving, old, &lease, ChangeOrigin::Client)?
            }
            None => self.leases.create(serving, &lease, own, wall_s, ChangeOrigin::Client)?,
        };
        Ok(Some(stored))
    }
}
