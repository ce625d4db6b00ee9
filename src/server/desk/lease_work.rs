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
    pub(super) limit: Option<u32>,
    pub(super) one: bool,
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

    /// Takes in files that have been written, and pages that no shard had room for.
    pub fn go_on_writing(&mut self) {
        while let Ok((ticket, outcome)) = self.written.try_recv() {
            self.done.push((ticket, Completion::LeasesWritten(outcome)));
        }
        for (ticket, completion) in &mut self.done {
            if matches!(completion, Completion::Lease(_)) && self.writes.remove(ticket).is_some() {
                let text = "the shards are too busy to list their leases".to_owned();
                *completion = Completion::LeasesWritten(Err(text));
            }
        }
    }

    /// Hands lease work to the shards that it concerns.
    pub(super) fn ask_shards(&mut self, ticket: Ticket, request: LeaseRequest) {
        let limit = match &request {
            LeaseRequest::List { limit, .. } => Some(*limit),
            _ => None,
        };
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
        let number = self.next;
        self.next += 1;
        let shards: Vec<usize> = match target {
            Some(shard) => vec![usize::from(shard.0)],
            None => (0..self.engine.shards.len()).collect(),
        };
        // All of them or none: half an answer would look like a whole one.
        if shards.iter().any(|shard| self.engine.shards[*shard].orders.is_full()) {
            return self.done.push((ticket, Completion::Lease(LeaseReply::Busy)));
        }
        let mut missing = 0;
        for shard in shards {
            if self.engine.shards[shard].order(Order::Leases(number, request.clone())).is_ok() {
                missing += 1;
            }
        }
        if missing == 0 {
            return self.done.push((ticket, Completion::Lease(LeaseReply::Busy)));
        }
        let pending = Pending { ticket, missing, replies: Vec::new(), gates: Vec::new(), limit, one };
        self.pending.insert(number, pending);
    }

    /// The shard that holds the lease on `address`.
    fn holder(&self, address: Ipv4Addr) -> Option<ShardId> {
        match self.engine.space.owner(address) {
            Owner::InUse { shard, .. } | Owner::Stealable { shard, .. } => Some(shard),
            Owner::Unknown | Owner::Free | Owner::Retiring { .. } => None,
        }
    }

    /// Finishes work whose answers are all there and durable.
    pub fn settle(&mut self) {
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
            let reply = join(pending.replies, pending.limit, pending.one);
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
fn join(mut replies: Vec<LeaseReply>, limit: Option<u32>, one: bool) -> LeaseReply {
    if let Some(limit) = limit {
        let mut leases: Vec<Lease4Buf> = Vec::new();
        for reply in replies {
            if let LeaseReply::Leases(more) = reply {
                leases.extend(more);
            }
        }
        leases.sort_by_key(|lease| lease.view().address);
        leases.truncate(limit as usize);
        return LeaseReply::Leases(leases);
    }
    if one {
        let found = replies.iter().position(|reply| *reply != LeaseReply::NotFound).unwrap_or(0);
        return replies.swap_remove(found);
    }
    let count =
        replies.iter().map(|reply| if let LeaseReply::Count(count) = reply { *count } else { 0 }).sum();
    LeaseReply::Count(count)
}
