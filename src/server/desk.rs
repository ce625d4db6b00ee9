//! The server as its control API sees it: facts answered at once, work handed to shards and finished later.

use std::collections::HashMap;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crossbeam::channel::{Receiver, Sender, unbounded};

use crate::classify::subnet::{self, Origin as SelectOrigin};
use crate::config::json::{Comments, Files, Value as Parsed, parse_wire, pretty};
use crate::config::load::{Loaded, load_value};
use crate::config::plan::{Plan, SubnetIndex};
use crate::config::render;
use crate::config::tree::{ControlAgent, Dhcp4, Feature, SharedNetwork, Subnet4};
use crate::control::backend::{
    Backend, Completion, ConfigAction, ConfigFailure, ConfigOrder, ConfigText, Daemon, Features,
    InterfaceFacts, LfcStart, Order as Asked, SelectQuery, SocketsStatus, Status, SubnetFacts, Ticket,
    WrittenFile,
};
use crate::control::command::Answer;
use crate::control::disabling::Disabling;
use crate::control::log::Severity;
use crate::control::statistics::{
    PoolCounter, PortCounter, ServerCounter, Snapshot, SubnetCounter, SubnetSample,
};
use crate::exchange::stats::{INTERFACES_COUNTED, LeaseStats};
use crate::ha::backlog::Operation;
use crate::ha::command::bulk::{BulkFailure, read_bulk};
use crate::ha::command::lease::{BadLease, Update4};
use crate::ha::partner::{BULK_COMMAND, SYNC_LEASES_COMMAND};
use crate::ha::settings::SETTINGS_COMMAND;
use crate::ids::{InterfaceId, Lsn, ShardId, SubnetId};
use crate::lease::Lease4Buf;
use crate::lease::address::Owner;
use crate::lease::request::{LeaseKey, LeaseReply, LeaseRequest, PutMode};
use crate::log;
use crate::net::link;
use crate::time::Now;
use crate::wire::codes::MessageType;
use crate::wire::drop::{DropKind, DropReason};

use super::clock::Clock;
use super::engine::Engine;
use super::ha::bulk::{BULK_NUMBERS, BulkCommands, Item};
use super::ha::copy::COPY_NUMBERS;
use super::ha::source::{SOURCE_NUMBERS, SyncSource};
use super::ha::{self, Ha};
use super::lease_writer::LeaseWriter;
use super::shard_loop::{Event, Order};

const DHCP4: &str = "kea-dhcp4.dhcp4";
const LEASES: &str = "kea-dhcp4.leases";

/// A command's work that shards are busy with.
struct Pending {
    ticket: Ticket,
    missing: usize,
    replies: Vec<LeaseReply>,
    gates: Vec<(ShardId, Lsn)>,
    limit: Option<u32>,
    one: bool,
}

impl Pending {
    fn is_durable(&self, engine: &Engine) -> bool {
        self.gates.iter().all(|(shard, lsn)| engine.is_durable(*shard, *lsn))
    }
}

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
            writes: HashMap::new(),
            written_tx,
            written,
        }
    }

    /// Begins `lease4-write`: the leases are fetched in pages, so that shards and control thread go on with other work.
    fn start_writing(&mut self, ticket: Ticket, path: PathBuf) {
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
    fn ask_shards(&mut self, ticket: Ticket, request: LeaseRequest) {
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

    /// Takes a shard's answer in.
    pub fn answered(&mut self, number: u64, reply: LeaseReply, shard: ShardId, lsn: Lsn) {
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
        let answers = self.source.step(now, &self.engine).into_iter();
        self.done.extend(answers.map(|(ticket, answer)| (ticket, Completion::Answer(answer))));
        for (ticket, answer) in self.bulk.step(&self.engine) {
            self.done.push((ticket, Completion::Answer(ha::api_answer(answer))));
        }
    }

    /// Begins a bulk command of the partner.
    fn apply_bulk(&mut self, ticket: Ticket, command: &crate::control::command::Command) {
        let (serving, wall_s) = (self.engine.serving(), self.clock.now().wall_s);
        let mut items: Vec<Item> = Vec::new();
        let read = read_bulk(&command.text, |item| {
            items.push(bulk_item(&serving.plan, wall_s, items.len(), item));
        });
        let sender = match read {
            Ok(sender) => sender,
            Err(answer) => return self.done.push((ticket, Completion::Answer(ha::api_answer(answer)))),
        };
        if let Some(ha) = &mut self.ha {
            for (_, lease) in items.iter().flatten() {
                ha.touch(lease.view().address);
            }
        }
        // What a peer brings that copies our leases it may have given at any time: the newer lease stays, and of two of one second ours.
        let is_copying = command.name == SYNC_LEASES_COMMAND;
        if is_copying {
            self.source.listed(self.clock.now());
        }
        let mode = if is_copying { PutMode::Newer } else { PutMode::Upsert };
        let partner_wins =
            !is_copying && self.ha.as_ref().is_some_and(|ha| ha.partner_wins(sender.as_deref()));
        self.bulk.begin(ticket, items, &self.engine, mode, partner_wins);
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

    /// The running configuration as `config-get` shows it.
    #[must_use]
    pub fn rendered(&self, daemon: Daemon) -> serde_json::Value {
        match daemon {
            Daemon::Dhcp4 => render::dhcp4(&self.tree, &render::definitions(&self.tree)),
            Daemon::Agent => self.agent.as_ref().map_or(serde_json::Value::Null, render::control_agent),
            Daemon::Dhcp6 => serde_json::Value::Null,
        }
    }

    fn find_subnet(&self, id: SubnetId) -> Option<(Option<&SharedNetwork>, &Subnet4)> {
        let inside = self
            .tree
            .shared_networks
            .iter()
            .flat_map(|network| network.subnets.iter().map(move |subnet| (Some(network), subnet)));
        inside
            .chain(self.tree.subnets.iter().map(|subnet| (None, subnet)))
            .find(|(_, subnet)| subnet.id == id)
    }

    /// Reads the configuration inside a command.
    ///
    /// # Errors
    /// The first thing wrong with it, with its place.
    pub fn read_command(
        &self,
        daemon: Daemon,
        text: &ConfigText,
        interfaces: &[crate::config::load::SystemInterface],
    ) -> Result<Loaded, String> {
        let block = text.command.get(text.block.clone()).unwrap_or(&[]);
        let block = String::from_utf8_lossy(block);
        let wrapped = format!("{{ \"{}\": {block} }}", daemon.block());
        let mut files = Files::default();
        let value: Parsed = parse_wire(&mut files, "<wire>", &wrapped, Comments::Refuse)
            .map_err(|finding| finding.kea_text())?;
        let loaded = load_value(files, &value, Some(interfaces));
        match loaded.first_error() {
            Some(finding) => Err(finding.kea_text()),
            None => Ok(loaded),
        }
    }

    /// Writes the running configuration to `file`, or to the start-up file.
    fn write_config(&self, daemon: Daemon, file: Option<String>) -> Result<WrittenFile, String> {
        let file = match file {
            Some(file) => file,
            None => match self.files.as_slice() {
                [only] => only.display().to_string(),
                _ => {
                    return Err(
                        "Error during config-write: the server was started with several files: name one"
                            .to_owned(),
                    );
                }
            },
        };
        let mut value = self.rendered(daemon);
        if self.files.iter().any(|own| own.as_os_str() == file.as_str()) && self.files.len() == 1 {
            // The start-up file holds all blocks: none may get lost because another one is written.
            let other = if daemon == Daemon::Dhcp4 { Daemon::Agent } else { Daemon::Dhcp4 };
            if let (Some(all), serde_json::Value::Object(more)) =
                (value.as_object_mut(), self.rendered(other))
            {
                all.extend(more.into_iter().filter(|(name, _)| name == other.block()));
            }
        }
        let text = pretty(&value);
        replace_file(&file, text.as_bytes()).map_err(|error| {
            format!("Error during config-write: Unable to open file {file} for writing: {error}")
        })?;
        Ok(WrittenFile { file, bytes: text.len() as u64 })
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

/// Puts `bytes` in the place of a file, whole or not at all; its permissions stay.
fn replace_file(name: &str, bytes: &[u8]) -> std::io::Result<()> {
    // What a link points to is replaced, not the link.
    let path = std::fs::canonicalize(name).unwrap_or_else(|_| PathBuf::from(name));
    let mut beside = path.clone().into_os_string();
    beside.push(".new");
    let written = std::fs::File::create(&beside).and_then(|mut file| {
        if let Ok(old) = std::fs::metadata(&path) {
            file.set_permissions(old.permissions())?;
        }
        file.write_all(bytes)?;
        file.sync_all()
    });
    let placed = written.and_then(|()| std::fs::rename(&beside, &path));
    if placed.is_err() {
        // What was not finished is of no use to anybody.
        let _ = std::fs::remove_file(&beside);
    }
    placed
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

fn set(array: &mut [u64], index: usize, value: i64) {
    array[index] = u64::try_from(value).unwrap_or(0);
}

fn subnet_values(stats: &LeaseStats, total: u64) -> [u64; SubnetCounter::COUNT] {
    let read = |counter: &std::sync::atomic::AtomicI64| counter.load(Ordering::Relaxed);
    let mut values = [0; SubnetCounter::COUNT];
    values[SubnetCounter::Total.index()] = total;
    set(&mut values, SubnetCounter::Assigned.index(), read(&stats.assigned));
    set(&mut values, SubnetCounter::CumulativeAssigned.index(), read(&stats.cumulative_assigned));
    set(&mut values, SubnetCounter::Declined.index(), read(&stats.declined));
    set(&mut values, SubnetCounter::Reclaimed.index(), read(&stats.reclaimed));
    set(&mut values, SubnetCounter::ReclaimedDeclined.index(), read(&stats.reclaimed_declined));
    set(&mut values, SubnetCounter::AllocationFail.index(), read(&stats.fail));
    set(&mut values, SubnetCounter::AllocationFailSharedNetwork.index(), read(&stats.fail_shared_network));
    set(&mut values, SubnetCounter::AllocationFailSubnet.index(), read(&stats.fail_subnet));
    set(&mut values, SubnetCounter::AllocationFailNoPools.index(), read(&stats.fail_no_pools));
    set(&mut values, SubnetCounter::AllocationFailClasses.index(), read(&stats.fail_classes));
    set(&mut values, SubnetCounter::LeaseReuses.index(), read(&stats.reuses));
    set(&mut values, SubnetCounter::ReservationConflicts.index(), read(&stats.reservation_conflicts));
    values
}

impl Backend for Desk {
    fn now(&mut self) -> Now {
        self.clock.now()
    }

    fn wall_us(&mut self) -> u64 {
        self.clock.wall_us()
    }

    fn submit(&mut self, ticket: Ticket, order: Asked) {
        match order {
            Asked::Lease(request) => {
                if matches!(request, LeaseRequest::List { .. }) {
                    self.source.listed(self.clock.now());
                }
                self.tell_copy(&request);
                self.ask_shards(ticket, request);
            }
            Asked::Config(ConfigOrder { daemon, action: ConfigAction::Write(file) }) => {
                let written = self.write_config(daemon, file);
                self.done.push((ticket, Completion::Written(written)));
            }
            Asked::Config(order) => self.errands.push(Errand::Configure(ticket, order)),
            Asked::WriteLeases(file) => self.start_writing(ticket, PathBuf::from(file)),
            Asked::Command(command)
                if self.ha.is_some()
                    && [BULK_COMMAND, SYNC_LEASES_COMMAND].contains(&command.name.as_str()) =>
            {
                self.apply_bulk(ticket, &command);
            }
            Asked::Command(command) if command.name == SETTINGS_COMMAND => {
                let answer = match &self.ha {
                    Some(ha) => ha.settings(&self.engine),
                    None => Answer::unsupported(&command.name),
                };
                self.done.push((ticket, Completion::Answer(answer)));
            }
            Asked::Command(command) if self.ha.is_some() && SyncSource::answers(&command.name) => {
                let is_peer = |name: &str| self.ha.as_ref().is_some_and(|ha| ha.has_peer(name));
                let answers = self.source.command(self.clock.now(), ticket, &command, is_peer).into_iter();
                self.done.extend(answers.map(|(ticket, answer)| (ticket, Completion::Answer(answer))));
            }
            Asked::Command(command) => {
                let now = self.clock.now();
                if command.name == "ha-sync-complete-notify"
                    && let Some(name) =
                        command.arguments().as_ref().and_then(|map| map.get("server-name")?.as_str())
                {
                    self.source.completed(name);
                }
                let answer = match &mut self.ha {
                    Some(ha) => ha.command(now, ticket, &command),
                    None => Some(Answer::unsupported(&command.name)),
                };
                self.done.extend(answer.map(|answer| (ticket, Completion::Answer(answer))));
            }
            Asked::CleanLeaseFile if self.engine.files.is_none() => {
                self.done.push((ticket, Completion::LeaseFile(LfcStart::NotPersisted)));
            }
            Asked::CleanLeaseFile => self.errands.push(Errand::CleanUp(ticket)),
        }
    }

    fn features(&self) -> Features {
        let has = |feature| self.tree.hooks.iter().any(|hook| hook.feature == feature);
        Features { lease_cmds: has(Feature::LeaseCmds), ha: has(Feature::Ha) }
    }

    fn subnet(&self, id: SubnetId) -> Option<SubnetFacts> {
        let serving = self.engine.serving();
        let index = serving.plan.subnet_by_id(id)?;
        Some(self.facts(&serving.plan, index))
    }

    fn subnet_of(&self, address: Ipv4Addr) -> Option<SubnetFacts> {
        let serving = self.engine.serving();
        let index = serving.plan.lookup.by_address(address, |_| true)?;
        Some(self.facts(&serving.plan, index))
    }

    fn subnets(&self) -> Vec<SubnetFacts> {
        let serving = self.engine.serving();
        let count = u32::try_from(serving.plan.subnets.len()).unwrap_or(u32::MAX);
        (0..count).map(|index| self.facts(&serving.plan, SubnetIndex(index))).collect()
    }

    fn subnet_config(&self, id: SubnetId) -> Option<Vec<u8>> {
        let (network, subnet) = self.find_subnet(id)?;
        let value = render::subnet4(&self.tree, network, subnet, &render::definitions(&self.tree));
        Some(crate::config::json::compact(&value).into_bytes())
    }

    fn shared_networks(&self) -> Vec<String> {
        self.tree.shared_networks.iter().map(|network| network.name.clone()).collect()
    }

    fn shared_network_config(&self, name: &str) -> Option<Vec<u8>> {
        let rendered = self.rendered(Daemon::Dhcp4);
        let networks = rendered.get("Dhcp4")?.get("shared-networks")?.as_array()?;
        let network = networks
            .iter()
            .find(|network| network.get("name").and_then(|value| value.as_str()) == Some(name))?;
        Some(crate::config::json::compact(network).into_bytes())
    }

    fn select_subnet(&self, query: &SelectQuery) -> Option<SubnetFacts> {
        let serving = self.engine.serving();
        let plan = &serving.plan;
        let interface = query
            .interface
            .as_ref()
            .and_then(|name| plan.interfaces.iter().position(|interface| *interface.name == **name))
            .and_then(|position| u16::try_from(position).ok())
            .map_or(InterfaceId(u16::MAX), InterfaceId);
        let address = |address: Option<Ipv4Addr>| address.unwrap_or(Ipv4Addr::UNSPECIFIED);
        let origin = SelectOrigin {
            link_selection: query.link,
            subnet_selection: query.subnet,
            giaddr: address(query.relay),
            ciaddr: address(query.address),
            source: address(query.remote),
            to_broadcast: query.local.is_none_or(|local| local.is_broadcast()),
            interface,
        };
        let classes: Vec<_> = query.classes.iter().filter_map(|name| plan.class_names.find(name)).collect();
        let index = subnet::select(plan, &origin, &classes)?;
        Some(self.facts(plan, index))
    }

    fn config(&self, daemon: Daemon) -> Vec<u8> {
        let rendered = self.rendered(daemon);
        let block = rendered.get(daemon.block()).unwrap_or(&serde_json::Value::Null);
        crate::config::json::compact(block).into_bytes()
    }

    fn server_tag(&self) -> String {
        self.tree.server_tag.clone()
    }

    fn status(&mut self) -> Status {
        let now = self.clock.now();
        Status {
            uptime_s: now.wall_s.saturating_sub(self.started.wall_s),
            reload_s: now.wall_s.saturating_sub(self.configured.wall_s),
            thread_count: u32::try_from(self.engine.shards.len()).unwrap_or(0),
            packet_queue_size: u32::from(self.tree.multi_threading.packet_queue_size),
            packet_queue_means: [0.0; 3],
            lease_file: self.engine.files.as_ref().map(|files| files.live.display().to_string()),
            sockets: if self.socket_errors.is_empty() {
                SocketsStatus::Ready
            } else {
                SocketsStatus::Retrying(self.socket_errors.clone())
            },
            disabled_by: self.ha.as_ref().map_or_else(|| self.disabling.origins().collect(), Ha::disabled_by),
            high_availability: self.ha.as_ref().and_then(|ha| ha.status(now)),
        }
    }

    fn interfaces(&mut self, _scan: bool) -> Vec<InterfaceFacts> {
        let Ok(snapshot) = link::Snapshot::read() else { return Vec::new() };
        snapshot
            .links
            .iter()
            .map(|link| InterfaceFacts {
                name: link.name.clone(),
                index: link.index,
                mac: link.mac.map(|mac| crate::ids::ColonHex(&mac).to_string()).unwrap_or_default(),
                hw_type: if link.loopback { 772 } else { 1 },
                loopback: link.loopback,
                up: link.up,
                running: link.running,
                multicast: !link.loopback,
                broadcast: !link.loopback,
                in_use: self.served.contains(&link.name),
                addresses: link.addresses.iter().map(|(address, _)| address.to_string()).collect(),
            })
            .collect()
    }

    fn sample(&mut self, into: &mut Snapshot) {
        let serving = self.engine.serving();
        let server = &mut into.server;
        *server = [0; ServerCounter::COUNT];
        into.drops = [0; DropReason::COUNT];
        into.ports = [0; PortCounter::COUNT];
        into.interfaces.clear();
        for shard in &self.engine.shards {
            let counters = &shard.counters;
            let mut add = |counter: ServerCounter, value: u64| server[counter.index()] += value;
            add(ServerCounter::Received, counters.received_count());
            for (kind, counter) in [
                (MessageType::Discover, ServerCounter::DiscoverReceived),
                (MessageType::Offer, ServerCounter::OfferReceived),
                (MessageType::Request, ServerCounter::RequestReceived),
                (MessageType::Ack, ServerCounter::AckReceived),
                (MessageType::Nak, ServerCounter::NakReceived),
                (MessageType::Release, ServerCounter::ReleaseReceived),
                (MessageType::Decline, ServerCounter::DeclineReceived),
                (MessageType::Inform, ServerCounter::InformReceived),
                (MessageType::LeaseQuery, ServerCounter::LeaseQueryReceived),
            ] {
                add(counter, counters.received_type_count(Some(kind)));
            }
            add(ServerCounter::UnknownReceived, counters.received_type_count(None));
            add(ServerCounter::Sent, counters.sent_count());
            for (kind, counter) in [
                (MessageType::Offer, ServerCounter::OfferSent),
                (MessageType::Ack, ServerCounter::AckSent),
                (MessageType::Nak, ServerCounter::NakSent),
            ] {
                add(counter, counters.sent_type_count(kind));
            }
            for &reason in DropReason::ALL {
                let count = counters.drop_count(reason);
                into.drops[reason.index()] += count;
                if reason.kind() == DropKind::Refused {
                    add(ServerCounter::ReceiveDrop, count);
                }
                let known = reason.statistic().and_then(|name| {
                    ServerCounter::ALL.iter().copied().find(|counter| counter.name() == name)
                });
                if let Some(counter) = known {
                    add(counter, count);
                }
            }
        }
        for row in 0..INTERFACES_COUNTED {
            let mut counts = [0; PortCounter::COUNT];
            for (position, value) in counts.iter_mut().enumerate() {
                *value =
                    self.engine.shards.iter().map(|shard| shard.counters.port_count(row, position)).sum();
            }
            for (total, value) in into.ports.iter_mut().zip(counts) {
                *total += value;
            }
            // The last row is of no interface alone.
            let interface = serving.plan.interfaces.get(row).filter(|_| row < INTERFACES_COUNTED - 1);
            if let Some(interface) = interface.filter(|_| counts.iter().any(|count| *count > 0)) {
                into.interfaces.push((interface.name.to_string(), counts));
            }
        }
        let totals = subnet_values(&self.engine.book.totals, 0);
        for (from, to) in [
            (SubnetCounter::Assigned, ServerCounter::Assigned),
            (SubnetCounter::CumulativeAssigned, ServerCounter::CumulativeAssigned),
            (SubnetCounter::Declined, ServerCounter::Declined),
            (SubnetCounter::Reclaimed, ServerCounter::Reclaimed),
            (SubnetCounter::ReclaimedDeclined, ServerCounter::ReclaimedDeclined),
            (SubnetCounter::AllocationFail, ServerCounter::AllocationFail),
            (SubnetCounter::AllocationFailSharedNetwork, ServerCounter::AllocationFailSharedNetwork),
            (SubnetCounter::AllocationFailSubnet, ServerCounter::AllocationFailSubnet),
            (SubnetCounter::AllocationFailNoPools, ServerCounter::AllocationFailNoPools),
            (SubnetCounter::AllocationFailClasses, ServerCounter::AllocationFailClasses),
            (SubnetCounter::LeaseReuses, ServerCounter::LeaseReuses),
            (SubnetCounter::ReservationConflicts, ServerCounter::ReservationConflicts),
        ] {
            server[to.index()] = totals[from.index()];
        }
        into.subnets.clear();
        let plan = &serving.plan;
        for (position, subnet) in plan.subnets.iter().enumerate() {
            let index = SubnetIndex(u32::try_from(position).unwrap_or(u32::MAX));
            let mut pools: Vec<(u32, [u64; PoolCounter::COUNT])> = Vec::new();
            for (offset, pool) in plan.pools_of(index).iter().enumerate() {
                if let Some((_, values)) = pools.iter_mut().find(|(id, _)| *id == pool.pool_id) {
                    values[PoolCounter::Total.index()] += pool.capacity();
                    continue;
                }
                let place = subnet.pools.start + u32::try_from(offset).unwrap_or(0);
                let of =
                    subnet_values(serving.pool_stats(crate::config::plan::PoolIndex(place)), pool.capacity());
                let mut values = [0; PoolCounter::COUNT];
                for counter in PoolCounter::ALL {
                    let from = SubnetCounter::ALL.iter().find(|other| other.name() == counter.name());
                    values[counter.index()] = from.map_or(0, |from| of[from.index()]);
                }
                pools.push((pool.pool_id, values));
            }
            let values = subnet_values(serving.subnet_stats(index), serving.plan.pool_addresses(index));
            into.subnets.push(SubnetSample { id: subnet.id, values, pools });
        }
    }

    fn dhcp_disable(&mut self, origin: u32, max_period_s: Option<u64>) {
        let now = self.clock.now();
        if let Some(ha) = &mut self.ha {
            ha.disable(now, origin, max_period_s);
            // At once: a peer that copies asks for the last changes next, and no client may be served after them.
            return self.engine.enable(self.is_enabled());
        }
        self.disabling.disable(origin, max_period_s, now.mono);
        self.errands.push(Errand::Service);
    }

    fn dhcp_enable(&mut self, origin: u32) {
        let now = self.clock.now();
        if let Some(ha) = &mut self.ha {
            return ha.enable(now, origin);
        }
        self.disabling.enable(origin);
        self.errands.push(Errand::Service);
    }

    fn shutdown(&mut self, exit_value: i64) {
        self.errands.push(Errand::Shutdown(exit_value));
    }
}

const _: () =
    assert!(PortCounter::COUNT == crate::net::PortStats::COUNT, "every counter of a port has a name");

/// Why a configuration is not taken, for the one who sent it.
#[must_use]
pub fn failure(text: impl Into<String>) -> Completion {
    Completion::Config(Err(ConfigFailure { fatal: false, text: text.into() }))
}
