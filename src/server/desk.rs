//! The server as its control API sees it: facts answered at once, work handed to shards and finished later.

mod backend;
mod bulk;
mod configuration;
mod lease_work;
mod statistics;

use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;

use crossbeam::channel::{Receiver, Sender, unbounded};

use self::lease_work::Pending;
use super::clock::Clock;
use super::engine::Engine;
use super::ha::bulk::{BULK_NUMBERS, BulkCommands};
use super::ha::copy::COPY_NUMBERS;
use super::ha::source::{SOURCE_NUMBERS, SyncSource};
use super::ha::{self, Ha};
use super::lease_writer::LeaseWriter;
use super::shard_loop::{Event, Order};
use crate::config::plan::{Plan, SubnetIndex};
use crate::config::tree::{ControlAgent, Dhcp4};
use crate::control::backend::{Completion, ConfigFailure, ConfigOrder, SubnetFacts, Ticket};
use crate::control::disabling::Disabling;
use crate::control::log::Severity;
use crate::ha::posts::PostsHeard;
use crate::ids::{Lsn, ShardId};
use crate::lease::request::{LeaseKey, LeaseReply, LeaseRequest};
use crate::log;
use crate::time::Now;

const DHCP4: &str = "kea-dhcp4.dhcp4";
const LEASES: &str = "kea-dhcp4.leases";

/// What the control loop must do that the desk cannot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Errand {
    /// Apply a configuration; the ticket is completed with what became of it.
    Configure(Ticket, ConfigOrder),
    /// Clean up the lease file.
    CleanUp(Ticket),
    /// End with this value.
    Shutdown(i64),
    /// The set of disabling origins has changed.
    Service,
}

/// What the control API works on.
pub struct Desk {
    /// The shards.
    pub engine: Engine,
    /// The clocks.
    pub clock: Clock,
    /// The running configuration.
    pub tree: Dhcp4,
    /// The running agent's configuration.
    pub agent: Option<ControlAgent>,
    /// The files that the server was started with.
    pub files: Vec<PathBuf>,
    /// Who has taken the DHCP service away, on a server without HA.
    pub disabling: Disabling,
    /// The pair that this server is half of.
    pub ha: Option<Ha>,
    bulk: BulkCommands,
    posts: PostsHeard,
    source: SyncSource,
    /// What is to be done.
    pub errands: Vec<Errand>,
    /// Finished work, for the control loop to hand out.
    pub done: Vec<(Ticket, Completion)>,
    /// When the server started.
    pub started: Now,
    /// When the configuration was applied.
    pub configured: Now,
    /// Why DHCP sockets are not open.
    pub socket_errors: Vec<String>,
    /// Interfaces that are served.
    pub served: Vec<String>,
    /// Whether clients are served, as last told.
    told_enabled: bool,
    pending: HashMap<u64, Pending>,
    next: u64,
    /// Pages that shards had no room for, and whether that may have changed.
    crowded: VecDeque<(Ticket, LeaseRequest)>,
    has_room: bool,
    /// `lease4-write` under way.
    writes: HashMap<Ticket, LeaseWriter>,
    written_tx: Sender<(Ticket, Result<(), String>)>,
    written: Receiver<(Ticket, Result<(), String>)>,
}

impl Desk {
    /// A desk for these.
    #[must_use]
    pub fn new(
        engine: Engine,
        clock: Clock,
        tree: Dhcp4,
        agent: Option<ControlAgent>,
        files: Vec<PathBuf>,
    ) -> Self {
        let now = clock.now();
        let (written_tx, written) = unbounded();
        // Numbers that a session of an earlier life cannot have.
        let source = SyncSource::new(Arc::clone(&engine.changed), now.wall_s << 20);
        Self {
            engine,
            clock,
            tree,
            agent,
            files,
            disabling: Disabling::default(),
            ha: None,
            bulk: BulkCommands::default(),
            posts: PostsHeard::default(),
            source,
            errands: Vec::new(),
            done: Vec::new(),
            started: now,
            configured: now,
            socket_errors: Vec::new(),
            served: Vec::new(),
            told_enabled: true,
            pending: HashMap::new(),
            next: 0,
            crowded: VecDeque::new(),
            has_room: false,
            writes: HashMap::new(),
            written_tx,
            written,
        }
    }

    /// Takes a shard's answer in.
    pub fn answered(&mut self, number: u64, reply: LeaseReply, shard: ShardId, lsn: Lsn) {
        self.has_room = true;
        if number >= COPY_NUMBERS {
            if let Some(ha) = &mut self.ha {
                ha.copied(number, &reply, shard, lsn);
            }
        } else if number >= BULK_NUMBERS {
            self.bulk.answered(number, reply, shard, lsn);
        } else if number >= SOURCE_NUMBERS {
            self.source.answered(number, reply, shard, lsn);
        } else if let Some(pending) = self.pending.get_mut(&number) {
            pending.replies.push(reply);
            pending.gates.push((shard, lsn));
            pending.missing -= 1;
        }
    }

    /// Takes in what the shards say.
    pub fn listen(&mut self) {
        while let Ok(event) = self.engine.events.try_recv() {
            match event {
                Event::Want(shard, want) => {
                    let part = want.allocate();
                    if let Some(handle) = self.engine.shards.get(usize::from(shard.0)) {
                        let _ = handle.order(Order::Memory(part));
                    }
                }
                Event::Spare(part) => drop(part),
                Event::Port(port) => drop(port),
                Event::Leases(number, reply, shard, lsn) => self.answered(number, reply, shard, lsn),
                Event::ReclaimBehind(_) => {
                    log!(
                        Severity::Warn,
                        LEASES,
                        ALLOC_ENGINE_V4_LEASES_RECLAMATION_SLOW,
                        "expired leases are not reclaimed as fast as they come: see expired-leases-processing"
                    );
                }
                Event::Stopped(_) => {}
            }
        }
    }

    /// Serves clients or not, as the disabling origins say.
    pub fn serve(&mut self) {
        let enabled = self.is_enabled();
        self.engine.enable(enabled);
        if std::mem::replace(&mut self.told_enabled, enabled) == enabled {
            return;
        }
        if enabled {
            log!(Severity::Info, DHCP4, DHCP4_SERVICE_ENABLED, "the DHCP service is enabled");
        } else {
            log!(Severity::Info, DHCP4, DHCP4_SERVICE_DISABLED, "the DHCP service is disabled");
        }
    }

    /// Whether clients are served.
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        self.ha.as_ref().map_or_else(|| !self.disabling.is_disabled(), Ha::service)
    }

    /// One turn of the pair.
    pub fn mind_pair(&mut self) {
        let is_copying = self.ha.as_ref().is_some_and(Ha::is_copying) || self.source.is_asked();
        if is_copying || self.bulk.await_disk() {
            // Bulk updates, pages and changes are answered when rows are durable: before looking, ask to be woken.
            self.engine.await_durability();
        }
        let now = self.clock.now();
        let Some(ha) = &mut self.ha else { return };
        let done = ha.step(now, &self.engine);
        let answers = done.answers.into_iter();
        self.done.extend(answers.map(|(ticket, answer)| (ticket, Completion::Answer(answer))));
        if done.service_changed {
            self.errands.push(Errand::Service);
        }
        let mark = |name: &str| self.ha.as_ref()?.post_mark(name);
        let answers = self.source.step(now, &self.engine, mark).into_iter();
        self.done.extend(answers.map(|(ticket, answer)| (ticket, Completion::Answer(answer))));
        for (ticket, answer) in self.bulk.step(&self.engine) {
            self.done.push((ticket, Completion::Answer(ha::api_answer(answer))));
        }
    }

    /// A change that a command makes while leases are copied is newer than what the source has been asked for.
    fn tell_copy(&mut self, request: &LeaseRequest) {
        let address = match request {
            LeaseRequest::Put { lease, .. } => lease.view().address,
            LeaseRequest::Delete { key: LeaseKey::Address(address), .. } => *address,
            _ => return,
        };
        if let Some(ha) = &mut self.ha {
            ha.touch(address);
        }
    }

    /// How long the control thread may sleep, `longest` at most.
    #[must_use]
    pub fn nap(&self, longest: std::time::Duration) -> std::time::Duration {
        let Some(at) = self.ha.as_ref().and_then(Ha::deadline) else { return longest };
        let left = at.0.saturating_sub(self.clock.now().mono.0);
        longest.min(std::time::Duration::from_nanos(left) + std::time::Duration::from_micros(1))
    }

    /// Whether any work waits.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        !self.pending.is_empty()
    }

    fn facts(&self, plan: &Plan, index: SubnetIndex) -> SubnetFacts {
        let subnet = plan.subnet(index);
        SubnetFacts {
            id: subnet.id,
            network: subnet.prefix,
            prefix_len: subnet.prefix_len,
            valid_lft_s: plan.subnet(index).lifetimes.default_s,
            shared_network: plan.network(subnet.network).name.as_deref().map(str::to_owned),
        }
    }
}

/// Why a configuration is not taken, for the one who sent it.
#[must_use]
pub fn failure(text: impl Into<String>) -> Completion {
    Completion::Config(Err(ConfigFailure { fatal: false, text: text.into() }))
}
