//! A partner's bulk command: each change checked against the subnets.

use super::Desk;
use crate::config::plan::Plan;
use crate::control::backend::{Completion, Ticket};
use crate::control::command::Answer;
use crate::ha::backlog::{Delay, Operation};
use crate::ha::command::bulk::{BulkFailure, read_bulk};
use crate::ha::command::lease::{BadLease, Update4};
use crate::ha::partner::SYNC_LEASES_COMMAND;
use crate::ids::SubnetId;
use crate::lease::request::{Origin, PutMode};
use crate::server::ha;
use crate::server::ha::bulk::Item;

impl Desk {
    /// Begins a bulk command of the partner.
    pub(super) fn apply_bulk(&mut self, ticket: Ticket, command: &crate::control::command::Command) {
        let (serving, wall_s) = (self.engine.serving(), self.clock.now().wall_s);
        let mut items: Vec<Item> = Vec::new();
        let read = read_bulk(&command.text, |item| {
            items.push(bulk_item(&serving.plan, wall_s, items.len(), item));
        });
        let sender = match read {
            Ok(sender) => sender,
            Err(answer) => return self.done.push((ticket, Completion::Answer(ha::api_answer(answer)))),
        };
        if sender.post.is_some_and(|post| self.posts.is_late(post)) {
            let answer =
                Answer::error("the sender has not waited for this, and may have sent newer changes since");
            return self.done.push((ticket, Completion::Answer(answer)));
        }
        // It may have been on its way for long: what was copied since from its sender is at least as new, and stays.
        let is_copied =
            sender.post.is_some_and(|post| self.ha.as_ref().is_some_and(|ha| ha.has_copied(post)));
        if let Some(ha) = self.ha.as_mut().filter(|_| !is_copied) {
            for (_, lease) in items.iter().flatten() {
                ha.touch(lease.view().address);
            }
        }
        // What a peer brings that copies our leases it may have given at any time: the newer lease stays, and of two of one second the
        // primary's.
        let is_copying = command.name == SYNC_LEASES_COMMAND;
        if is_copying {
            self.source.listed(self.clock.now());
        }
        let name = sender.name.as_deref();
        let mode = if is_copying {
            PutMode::Newer
        } else if is_copied || self.ha.as_ref().is_some_and(|ha| ha.may_know_more(name)) {
            PutMode::Uninformed
        } else if let Some(delay) = sender.delay {
            PutMode::Delayed { told: delay == Delay::Told }
        } else {
            PutMode::Upsert
        };
        let partner_wins = self.ha.as_ref().is_some_and(|ha| ha.partner_wins(name));
        let copier = name.filter(|_| is_copying).and_then(|name| self.ha.as_ref()?.peer_id(name));
        let origin = match copier {
            Some(peer) => Origin::Copier { peer, wins: partner_wins },
            None => Origin::Partner { partner_wins: partner_wins && mode != PutMode::Uninformed },
        };
        self.bulk.begin(ticket, items, &self.engine, mode, origin);
    }
}

/// One change of a bulk command, checked against the subnets.
fn bulk_item(
    plan: &Plan,
    wall_s: u64,
    index: usize,
    item: Result<(Operation, Update4<'_>), BadLease>,
) -> Item {
    let refuse = |result, text: String| Err(BulkFailure { index, result, text });
    let (operation, update) = match item {
        Ok(item) => item,
        Err(bad) => return refuse(1, format!("lease {}: expected {}", bad.field, bad.expected)),
    };
    let (address, id) = (update.lease.address, update.lease.subnet_id);
    if operation == Operation::Delete {
        return Ok((operation, update.complete(0, id, 0).to_owned()));
    }
    let subnet = match id {
        SubnetId(0) => plan.lookup.by_address(address, |_| true),
        id => plan.subnet_by_id(id),
    };
    let subnet = subnet.map(|index| plan.subnet(index));
    match subnet.filter(|subnet| subnet.contains(address)) {
        Some(subnet) => {
            let lease = update.complete(wall_s, subnet.id, subnet.lifetimes.default_s);
            Ok((operation, lease.to_owned()))
        }
        None => refuse(4, format!("no subnet {} holds the address {address}", id.0)),
    }
}
