//! Work with leases that shards do for a command: handed out, gathered, answered once it is durable.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use super::Desk;
use crate::control::backend::{Completion, Ticket};
use crate::ids::{Lsn, ShardId};
use crate::lease::Lease4Buf;
use crate::lease::address::Owner;
use crate::lease::request::{LeaseKey, LeaseReply, LeaseRequest};
use crate::server::engine::Engine;
use crate::server::lease_writer::LeaseWriter;
use crate::server::shard_loop::Order;

/// A command's work that shards are busy with.
pub(super) struct Pending {
    pub(super) ticket: Ticket,
    pub(super) missing: usize,
    pub(super) replies: Vec<LeaseReply>,
    pub(super) gates: Vec<(ShardId, Lsn)>,
    /// Of a listing.
    pub(super) page: Option<Page>,
    pub(super) one: bool,
}

/// How much of a listing is asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Page {
    /// Leases in all.
    limit: u32,
    /// Leases of each shard.
    share: u32,
}

/// Fewest leases that each shard is asked for: of a few, one shard may well have most.
const SHARE_MIN: u32 = 64;

impl Page {
    /// Clients are spread over the shards by a keyed hash, so that each has about as many of the next leases as the others.
    fn new(limit: u32, shard_count: usize) -> Self {
        let shards = u32::try_from(shard_count).unwrap_or(u32::MAX).max(1);
        Self { limit, share: limit.div_ceil(shards).max(limit.min(SHARE_MIN)) }
    }
}

impl Pending {
    fn is_durable(&self, engine: &Engine) -> bool {
        self.gates.iter().all(|(shard, lsn)| engine.is_durable(*shard, *lsn))
    }
}

impl Desk {
    /// Begins `lease4-write`: the leases are fetched in pages, so that shards and control thread go on with other work.
    pub(super) fn start_writing(&mut self, ticket: Ticket, path: PathBuf) {
        let own = self.engine.files.as_ref().is_some_and(|files| belongs(&files.live, &path));
        let writer = if own {
            Err(format!("{} belongs to the lease file that is served", path.display()))
        } else {
            LeaseWriter::create(path)
        };
        match writer {
            Ok(writer) => {
                self.writes.insert(ticket, writer);
                self.ask_shards(ticket, LeaseWriter::page(Ipv4Addr::UNSPECIFIED));
            }
            Err(text) => self.done.push((ticket, Completion::LeasesWritten(Err(text)))),
        }
    }

    /// Hands a page to the writer and asks for the next one.
    fn write_page(&mut self, ticket: Ticket, mut writer: LeaseWriter, page: LeaseReply) {
        match writer.take(page) {
            Ok(Some(from)) => {
                self.writes.insert(ticket, writer);
                self.ask_shards(ticket, LeaseWriter::page(from));
            }
            Ok(None) => {
                // The disk may take its time.
                let done = self.written_tx.clone();
                let finish = move || {
                    // Nobody waits for it any more when the desk is gone.
                    let _ = done.send((ticket, writer.finish()));
                };
                if let Err(error) = std::thread::Builder::new().name("lease-write".to_owned()).spawn(finish) {
                    let text = format!("cannot start a thread to write leases: {error}");
                    self.done.push((ticket, Completion::LeasesWritten(Err(text))));
                }
            }
            Err(text) => self.done.push((ticket, Completion::LeasesWritten(Err(text)))),
        }
    }

    /// Takes in files that have been written, and pages that no shard takes any more.
    pub fn go_on_writing(&mut self) {
        while let Ok((ticket, outcome)) = self.written.try_recv() {
            self.done.push((ticket, Completion::LeasesWritten(outcome)));
        }
        for (ticket, completion) in &mut self.done {
            if matches!(completion, Completion::Lease(_)) && self.writes.remove(ticket).is_some() {
                let text = "the shards do not list their leases".to_owned();
                *completion = Completion::LeasesWritten(Err(text));
            }
        }
    }

    /// Hands lease work to the shards that it concerns.
    pub(super) fn ask_shards(&mut self, ticket: Ticket, mut request: LeaseRequest) {
        let target = match &request {
            LeaseRequest::Put { lease, .. } => {
                let view = lease.view();
                if let Err(error) = self.engine.space.ensure(view.address, view.address) {
                    let text: &'static str = "there is no room for addresses of another network";
                    let _ = error;
                    return self.done.push((ticket, Completion::Lease(LeaseReply::Full(text))));
                }
                Some(self.holder(view.address).unwrap_or_else(|| self.engine.steering.owner(&view.hw_addr)))
            }
            LeaseRequest::Delete { key: LeaseKey::Address(address), .. }
            | LeaseRequest::Get(LeaseKey::Address(address)) => {
                Some(self.holder(*address).unwrap_or(ShardId(0)))
            }
            _ => None,
        };
        let one =
            matches!(request, LeaseRequest::Put { .. } | LeaseRequest::Delete { .. } | LeaseRequest::Get(_));
        let shards: Vec<usize> = match target {
            Some(shard) => vec![usize::from(shard.0)],
            None => (0..self.engine.shards.len()).collect(),
        };
        // All of them or none: half an answer would look like a whole one.
        if shards.iter().any(|shard| self.engine.shards[*shard].orders.is_full()) {
            if matches!(request, LeaseRequest::List { .. }) {
                // Each order is answered, and then there is room.
                return self.crowded.push_back((ticket, request));
            }
            return self.done.push((ticket, Completion::Lease(LeaseReply::Busy)));
        }
        let page = match &mut request {
            LeaseRequest::List { limit, .. } => {
                let page = Page::new(*limit, shards.len());
                *limit = page.share;
                Some(page)
            }
            _ => None,
        };
        let number = self.next;
        self.next += 1;
        let mut missing = 0;
        for shard in shards {
            if self.engine.shards[shard].order(Order::Leases(number, request.clone())).is_ok() {
                missing += 1;
            }
        }
        if missing == 0 {
            return self.done.push((ticket, Completion::Lease(LeaseReply::Busy)));
        }
        let pending = Pending { ticket, missing, replies: Vec::new(), gates: Vec::new(), page, one };
        self.pending.insert(number, pending);
    }

    /// The shard that holds the lease on `address`.
    fn holder(&self, address: Ipv4Addr) -> Option<ShardId> {
        match self.engine.space.owner(address) {
            Owner::InUse { shard, .. } | Owner::Stealable { shard, .. } => Some(shard),
            Owner::Unknown | Owner::Free | Owner::Retiring { .. } => None,
        }
    }

    /// Finishes work whose answers are all there and durable, and asks for pages that shards had no room for before.
    pub fn settle(&mut self) {
        if std::mem::take(&mut self.has_room) {
            for (ticket, request) in std::mem::take(&mut self.crowded) {
                self.ask_shards(ticket, request);
            }
        }
        let engine = &self.engine;
        if self.pending.values().any(|pending| pending.missing == 0 && !pending.is_durable(engine)) {
            engine.await_durability();
        }
        let ready: Vec<u64> = self
            .pending
            .iter()
            .filter(|(_, pending)| pending.missing == 0 && pending.is_durable(engine))
            .map(|(number, _)| *number)
            .collect();
        for number in ready {
            let Some(pending) = self.pending.remove(&number) else { continue };
            let reply = join(pending.replies, pending.page, pending.one);
            match self.writes.remove(&pending.ticket) {
                Some(write) => self.write_page(pending.ticket, write, reply),
                None => self.done.push((pending.ticket, Completion::Lease(reply))),
            }
        }
    }
}

/// Whether `path` is the lease file `live` or one of its companions, however it is spelled.
fn belongs(live: &Path, path: &Path) -> bool {
    let folder = |path: &Path| {
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        std::fs::canonicalize(parent.unwrap_or_else(|| Path::new("."))).ok()
    };
    let (Some(own), Some(name)) = (live.file_name(), path.file_name()) else { return true };
    let (own, name) = (own.as_encoded_bytes(), name.as_encoded_bytes());
    folder(live) == folder(path) && (name == own || (name.starts_with(own) && name[own.len()] == b'.'))
}

/// The answers of several shards as one.
fn join(mut replies: Vec<LeaseReply>, page: Option<Page>, one: bool) -> LeaseReply {
    if let Some(page) = page {
        return join_pages(replies, page);
    }
    if one {
        let found = replies.iter().position(|reply| *reply != LeaseReply::NotFound).unwrap_or(0);
        return replies.swap_remove(found);
    }
    let count =
        replies.iter().map(|reply| if let LeaseReply::Count(count) = reply { *count } else { 0 }).sum();
    LeaseReply::Count(count)
}

/// The shards' shares of a page as one. Of a shard that has more nothing is known beyond its last lease, so the page ends there.
fn join_pages(replies: Vec<LeaseReply>, page: Page) -> LeaseReply {
    let mut leases: Vec<Lease4Buf> = Vec::new();
    let mut known_to = None;
    for reply in replies {
        if let LeaseReply::Leases(share) = reply {
            let has_more = share.len() >= page.share as usize;
            let last = share.last().filter(|_| has_more).map(|lease| lease.view().address);
            known_to = known_to.into_iter().chain(last).min();
            leases.extend(share);
        }
    }
    leases.retain(|lease| known_to.is_none_or(|last| lease.view().address <= last));
    leases.sort_by_key(|lease| lease.view().address);
    leases.truncate(page.limit as usize);
    if known_to.is_some() && leases.len() < page.limit as usize {
        LeaseReply::Part(leases)
    } else {
        LeaseReply::Leases(leases)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::lease::Lease4;

    fn lease(number: u32) -> Lease4Buf {
        Lease4::sample(Ipv4Addr::from(0x0a00_0000 + number)).to_owned()
    }

    proptest! {
        #[test]
        fn pages_of_shards_are_every_lease_once_and_in_order(
            shards in proptest::collection::vec(proptest::collection::btree_set(1..2000_u32, 0..300), 1..5),
            limit in 1..400_u32
        ) {
            // An address is with one shard.
            let mut seen = BTreeSet::new();
            let shards: Vec<Vec<u32>> = shards
                .into_iter()
                .map(|shard| shard.into_iter().filter(|number| seen.insert(*number)).collect())
                .collect();
            let page = Page::new(limit, shards.len());
            let (mut listed, mut from, mut fetched) = (Vec::new(), 0, 0);
            loop {
                let share = |shard: &Vec<u32>| {
                    let above = shard.iter().copied().filter(|number| *number > from);
                    LeaseReply::Leases(above.take(page.share as usize).map(lease).collect())
                };
                let replies: Vec<LeaseReply> = shards.iter().map(share).collect();
                fetched += replies.iter().map(|reply| if let LeaseReply::Leases(leases) = reply { leases.len() } else { 0 }).sum::<usize>();
                let (leases, is_part) = match join(replies, Some(page), false) {
                    LeaseReply::Leases(leases) => (leases, false),
                    LeaseReply::Part(leases) => (leases, true),
                    other => panic!("{other:?}"),
                };
                prop_assert!(leases.len() <= limit as usize);
                listed.extend(leases.iter().map(|lease| lease.view().address.to_bits() - 0x0a00_0000));
                if !is_part && leases.len() < limit as usize {
                    break;
                }
                from = *listed.last().expect("a page that is not the last has leases");
            }
            prop_assert_eq!(&listed, &seen.into_iter().collect::<Vec<_>>());
            // Each page is a whole share of one shard at least.
            let pages = listed.len() / page.share.min(limit) as usize + 2;
            prop_assert!(fetched <= pages * page.share as usize * shards.len(), "{fetched} for {}", listed.len());
        }
    }

    #[test]
    fn shards_are_asked_for_their_share_of_a_page() {
        for (limit, shards, share) in
            [(2000, 1, 2000), (2000, 8, 250), (2000, 64, 64), (10, 8, 10), (1, 2, 1), (0, 2, 0)]
        {
            assert_eq!(Page::new(limit, shards).share, share, "{limit} of {shards}");
        }
    }
}
