//! REQUEST: a lease is made, renewed or refused (RFC 2131 4.3.2).

use super::allocation::{self, Grant, Refusal};
use super::answer::{self, Times, Verdict};
use super::classifier::Classifier;
use super::client::Client;
use super::context;
use super::names::name_lease;
use super::process::{Given, Outcome, Shard, Step};
use super::serving::Serving;
use super::stats::add;
use crate::ids::LeaseRef;
use crate::journal::ChangeOrigin;
use crate::lease::table::Record;
use crate::lease::{LIFETIME_INFINITE_S, Lease4, LeaseState};
use crate::wire::codes::{MessageType, option};
use crate::wire::drop::DropReason;

impl Shard {
    #[inline(always)]
    pub(super) fn request(
        &mut self,
        serving: &Serving,
        given: &Given<'_>,
        mut client: Client<'_>,
        classifier: &mut Classifier,
        out: &mut [u8],
    ) -> Step<Outcome> {
        let query = client.query;
        if client.prefers_v6_only() {
            return self.v6_only(serving, given, client, MessageType::Ack, classifier, out);
        }
        let ciaddr = query.packet.ciaddr();
        let wanted = query.requested_address().or_else(|| (!ciaddr.is_unspecified()).then_some(ciaddr));
        let wanted = wanted.filter(|address| !address.is_unspecified());
        let init_reboot = !query.options.contains(option::SERVER_ID) && query.requested_address().is_some();
        let [own, surplus] = {
            let view = Client { classes: classifier.classes(), ..client };
            allocation::requested_lease(&self.leases, &view, wanted)
        };
        if init_reboot {
            let authoritative = client.plan.subnet(client.subnet).authoritative;
            match own.map(|lease| self.leases.table.record(lease).address()) {
                None if !authoritative => return Err(DropReason::InitRebootUnknown),
                Some(address) if Some(address) == wanted => {}
                _ => return self.nak(serving, given, query, Some(client.subnet), classifier, out),
            }
        }
        let granted = {
            let mut view = Client { classes: classifier.classes(), ..client };
            let granted = match allocation::grant(&self.leases, &mut view, wanted, own) {
                Ok(Grant::Any(own)) => {
                    allocation::unreserved(&self.leases, &mut self.allocators, serving, &view)
                        .map(|place| Grant::Create(place, own))
                        .map_err(|_| Refusal::Nak)
                }
                granted => granted,
            };
            client.subnet = view.subnet;
            granted
        };
        let (place, old) = match granted {
            Ok(Grant::Renew(lease, place)) => (place, Some(lease)),
            Ok(Grant::Create(place, own)) => (place, own),
            Ok(Grant::Any(_)) => unreachable!("resolved above"),
            Err(Refusal::Nak) => {
                return self.nak(serving, given, query, Some(client.subnet), classifier, out);
            }
            Err(Refusal::UnknownAddress) => return Err(DropReason::UnknownAddress),
        };
        client.subnet = place.subnet;
        let renewed = match old {
            Some(lease) if self.leases.table.record(lease).address() == place.address => Some(lease),
            _ => None,
        };
        let mut times = {
            let view = Client { classes: classifier.classes(), ..client };
            self.times(serving, &view, place, renewed)
        };
        self.settle_classes(&client, place, classifier);
        let view = Client { classes: classifier.classes(), ..client };
        let host = view.current_host();
        name_lease(&mut self.names, &view, host, place.pool, place.address);

        let wall_s = given.now.wall_s;
        let pool_id = client.plan.pool_id(place.subnet, place.pool);
        let subnet = client.plan.subnet(place.subnet);
        let context_kept = match renewed {
            Some(lease) => self.leases.table.user_context(lease),
            None => &[],
        };
        let context_len =
            context::of_query(client.plan.subnet(place.subnet), query, context_kept, &mut self.context);
        let lease = Lease4 {
            address: place.address,
            hw_addr: *client.hw_addr,
            client_id: client.client_id_in(place.subnet),
            cltt: wall_s,
            valid_lft: times.valid_s,
            subnet_id: subnet.id,
            pool_id,
            state: LeaseState::Assigned,
            fqdn_fwd: self.names.forward(),
            fqdn_rev: self.names.reverse(),
            hostname: self.names.lease_name(),
            user_context: &self.context[..context_len],
        };
        if let Some(surplus) = surplus.filter(|_| renewed.is_some()) {
            self.leases.ready()?;
            self.leases.delete(serving, surplus, ChangeOrigin::Client)?;
        }
        let (stored, lsn) = match renewed {
            Some(old) => {
                let record = self.leases.table.record(old);
                // One that was lent has not expired any more when the clock was set back: it is taken back before anything else.
                let usable = record.state() == LeaseState::Assigned
                    && !record.is_expired(wall_s)
                    && !record.is_loose();
                let same = usable && self.leases.table.is_but_times(old, &lease);
                if same && let Some(remaining) = self.cached(serving, &view, old, times.valid_s) {
                    let (t1_s, t2_s) = client.plan.subnet(place.subnet).t1_t2_s(remaining);
                    times = Times { valid_s: remaining, t1_s, t2_s };
                    (old, self.leases.table.record(old).pending_lsn())
                } else if same {
                    (old, self.leases.renew(old, wall_s, times.valid_s)?)
                } else {
                    let expired = usable_but_expired(record, wall_s);
                    if expired {
                        self.leases.ready()?;
                        self.leases.count_reclaimed(serving, old);
                    }
                    match self.leases.update(serving, old, &lease, ChangeOrigin::Client) {
                        Err(DropReason::NoLease) => {
                            return self.nak(serving, given, query, Some(place.subnet), classifier, out);
                        }
                        other => other?,
                    }
                }
            }
            None => match self.leases.create(serving, &lease, old, wall_s, ChangeOrigin::Client) {
                Err(DropReason::NoLease) => {
                    return self.nak(serving, given, query, Some(place.subnet), classifier, out);
                }
                other => other?,
            },
        };
        if renewed.is_none() {
            self.allocators.prefer(client.network(), place.subnet);
        }
        let verdict = Verdict {
            kind: MessageType::Ack,
            yiaddr: place.address,
            lease: Some(times),
            netmask: subnet.netmask(),
            subnet: Some(place.subnet),
            pool: place.pool,
            host,
            host_name: self.names.host_name(),
            fqdn: self.names.fqdn(),
        };
        let len =
            answer::write(client.plan, query, given.arrival, view.classes, &verdict, &mut self.desk, out)?;
        Ok(Outcome::Park { len, kind: MessageType::Ack, lsn, lease: stored })
    }

    /// The remaining lifetime of a lease that is answered from the cache; nothing when it must be written.
    #[inline(always)]
    pub(super) fn cached(
        &self,
        serving: &Serving,
        client: &Client<'_>,
        lease: LeaseRef,
        valid_s: u32,
    ) -> Option<u32> {
        let record = self.leases.table.record(lease);
        // A reply that waits for a partner must not be about a lease that the partner has never heard of, or has ended. One that does not wait must
        // be later than what a partner may do that serves alone, too: the later of two leases is kept when they meet again.
        let is_untold = self.untold.is_some_and(|untold| record.pending_lsn() <= untold);
        if is_untold
            || record.is_uncacheable()
            || record.valid_lft() != valid_s
            || valid_s == LIFETIME_INFINITE_S
        {
            return None;
        }
        let age_s = client.now.wall_s.checked_sub(record.cltt())?;
        if !client.plan.subnet(client.subnet).cache.covers(age_s, valid_s) {
            return None;
        }
        for stats in [&*self.leases.totals, serving.subnet_stats(client.subnet)] {
            add(&stats.reuses, 1);
        }
        valid_s.checked_sub(u32::try_from(age_s).ok()?)
    }
}

/// Whether a lease is in use by its state but over by its time.
fn usable_but_expired(record: &Record, wall_s: u64) -> bool {
    record.state() == LeaseState::Assigned && record.is_expired(wall_s)
}
