//! A server behind the control API that keeps leases in a map, and a control thread that runs the real loop over it.

use std::collections::{BTreeMap, VecDeque};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use aplomado::control::backend::{
    Backend, Completion, ConfigAction, ConfigFailure, Daemon, Features, InterfaceFacts, LfcStart, Order,
    SelectQuery, Status, SubnetFacts, Ticket, WrittenFile,
};
use aplomado::control::command::Answer;
use aplomado::control::disabling::Disabling;
use aplomado::control::event_loop::{ControlLoop, ControlWaker};
use aplomado::control::json;
use aplomado::control::lease_json::LeaseFields;
use aplomado::control::listener::ListenerSpec;
use aplomado::control::statistics::{ServerCounter, Snapshot, SubnetCounter, SubnetSample};
use aplomado::control::table::{CommandTable, Presence};
use aplomado::ids::SubnetId;
use aplomado::lease::request::{LeaseFilter, LeaseKey, LeaseReply, LeaseRequest, PutMode};
use aplomado::lease::{Lease4, Lease4Buf};
use aplomado::time::{Mono, Now};
use serde_json::{Value, json};

/// The clock, the same for all: the loop takes time from its backend.
#[derive(Clone, Default)]
pub(crate) struct Clock(Arc<AtomicU64>);

impl Clock {
    pub(crate) fn advance_ms(&self, ms: u64) {
        self.0.fetch_add(ms, Ordering::SeqCst);
    }
}

pub(crate) const WALL_S: u64 = 1_795_415_330;

pub(crate) struct FakeServer {
    clock: Clock,
    pub(crate) leases: BTreeMap<Ipv4Addr, Lease4Buf>,
    orders: VecDeque<(Ticket, Order)>,
    /// While true, puts are not carried out: a disk that does not come back.
    stalled: Arc<AtomicBool>,
    disabling: Disabling,
    received: u64,
    pub(crate) exit_value: Option<i64>,
    pub(crate) subnets: Vec<SubnetFacts>,
}

pub(crate) fn subnet(id: u32, a: u8, prefix_len: u8) -> SubnetFacts {
    SubnetFacts {
        id: SubnetId(id),
        network: Ipv4Addr::new(a, 0, 0, 0),
        prefix_len,
        valid_lft_s: 86_400,
        shared_network: None,
    }
}

impl FakeServer {
    pub(crate) fn new(clock: Clock) -> Self {
        Self {
            clock,
            leases: BTreeMap::new(),
            orders: VecDeque::new(),
            stalled: Arc::default(),
            disabling: Disabling::default(),
            received: 24,
            exit_value: None,
            subnets: vec![subnet(1, 10, 8)],
        }
    }

    fn carry_out(&mut self, order: Order) -> Completion {
        match order {
            Order::Lease(request) => Completion::Lease(self.lease(request)),
            Order::Config(order) => match order.action {
                ConfigAction::Test(text) | ConfigAction::Set(text) => {
                    let value = json::parse(&text.command[text.block]).expect("checked before");
                    let unknown = value.as_object().expect("a map").keys().find(|key| *key == "foo");
                    Completion::Config(match unknown {
                        Some(key) => Err(ConfigFailure {
                            fatal: false,
                            text: format!("unsupported global configuration parameter: {key} (<wire>:0:1)"),
                        }),
                        None => Ok(()),
                    })
                }
                ConfigAction::Reload => Completion::Config(Err(ConfigFailure {
                    fatal: false,
                    text: "configuration error using file 'F': gone".to_owned(),
                })),
                ConfigAction::Write(file) => Completion::Written(match file {
                    Some(file) => Ok(WrittenFile { file, bytes: 7 }),
                    None => Err("no file".to_owned()),
                }),
            },
            Order::WriteLeases(_) => Completion::LeasesWritten(Ok(())),
            Order::CleanLeaseFile => Completion::LeaseFile(LfcStart::Running),
            Order::Command(command) => {
                Completion::Answer(Answer::success(format!("{} from elsewhere", command.name)))
            }
        }
    }

    fn lease(&mut self, request: LeaseRequest) -> LeaseReply {
        match request {
            LeaseRequest::Put { lease, mode, .. } => {
                let there = self.leases.contains_key(&lease.view().address);
                match (mode, there) {
                    (PutMode::Add, true) => return LeaseReply::Exists,
                    (PutMode::Update, false) => return LeaseReply::NotFound,
                    _ => {}
                }
                self.leases.insert(lease.view().address, lease);
                if there { LeaseReply::Updated } else { LeaseReply::Added }
            }
            LeaseRequest::Delete { key, .. } => match self.find(&key) {
                Some(address) => {
                    self.leases.remove(&address);
                    LeaseReply::Deleted
                }
                None => LeaseReply::NotFound,
            },
            LeaseRequest::Get(key) => match self.find(&key) {
                Some(address) => LeaseReply::Lease(self.leases[&address].clone()),
                None => LeaseReply::NotFound,
            },
            LeaseRequest::List { from, limit, filter } => {
                let from = (std::ops::Bound::Excluded(from), std::ops::Bound::Unbounded);
                let leases = self.leases.range(from).map(|(_, lease)| lease);
                let leases = leases.filter(|lease| is_listed(&filter, &lease.view()));
                LeaseReply::Leases(leases.take(usize::try_from(limit).expect("64 bits")).cloned().collect())
            }
            LeaseRequest::Wipe(id) => {
                let before = self.leases.len();
                self.leases.retain(|_, lease| id.is_some_and(|id| lease.view().subnet_id != id));
                LeaseReply::Count((before - self.leases.len()) as u64)
            }
            LeaseRequest::Reclaim { .. } => LeaseReply::Count(0),
            LeaseRequest::Apply { .. } => panic!("no command of the control API makes many changes at once"),
            LeaseRequest::GetAll(addresses) => {
                let held = addresses.iter().filter_map(|address| self.leases.get(address));
                LeaseReply::Leases(held.cloned().collect())
            }
            LeaseRequest::Mark => LeaseReply::Marked,
        }
    }

    fn find(&self, key: &LeaseKey) -> Option<Ipv4Addr> {
        let found = self.leases.values().find(|lease| {
            let lease = lease.view();
            match key {
                LeaseKey::Address(address) => lease.address == *address,
                LeaseKey::HwAddr(subnet, hw_addr) => lease.subnet_id == *subnet && lease.hw_addr == *hw_addr,
                LeaseKey::ClientId(subnet, id) => lease.subnet_id == *subnet && lease.client_id == &id[..],
            }
        });
        found.map(|lease| lease.view().address)
    }

    /// Takes leases in the dump encoding.
    pub(crate) fn take_leases(&mut self, leases: &[Value]) {
        for lease in leases {
            let text = lease.to_string();
            let fields = LeaseFields::read(&mut json::Reader::new(text.as_bytes())).expect("a lease");
            let lease = fields.into_dumped().expect("complete");
            self.leases.insert(lease.view().address, lease);
        }
    }
}

fn is_listed(filter: &LeaseFilter, lease: &Lease4<'_>) -> bool {
    match filter {
        LeaseFilter::Lacking(known) => known.lacks(lease),
        LeaseFilter::All => true,
        LeaseFilter::Subnets(ids) => ids.contains(&lease.subnet_id),
        LeaseFilter::HwAddr(hw_addr) => lease.hw_addr.as_bytes() == hw_addr.as_bytes(),
        LeaseFilter::ClientId(id) => lease.client_id == &id[..],
        LeaseFilter::Hostname(name) => lease.hostname == &name[..],
        LeaseFilter::State(state, subnet) => {
            lease.state == *state && subnet.is_none_or(|id| id == lease.subnet_id)
        }
    }
}

impl Backend for FakeServer {
    fn now(&mut self) -> Now {
        let ms = self.clock.0.load(Ordering::SeqCst);
        Now { mono: Mono(ms * 1_000_000), wall_s: WALL_S + ms / 1000 }
    }

    fn wall_us(&mut self) -> u64 {
        self.now().wall_s * 1_000_000
    }

    fn submit(&mut self, ticket: Ticket, order: Order) {
        self.orders.push_back((ticket, order));
    }

    fn features(&self) -> Features {
        Features { lease_cmds: true, ha: false }
    }

    fn subnet(&self, id: SubnetId) -> Option<SubnetFacts> {
        self.subnets.iter().find(|subnet| subnet.id == id).cloned()
    }

    fn subnet_of(&self, address: Ipv4Addr) -> Option<SubnetFacts> {
        self.subnets.iter().find(|subnet| subnet.contains(address)).cloned()
    }

    fn subnets(&self) -> Vec<SubnetFacts> {
        self.subnets.clone()
    }

    fn subnet_config(&self, id: SubnetId) -> Option<Vec<u8>> {
        Some(format!("{{ \"id\": {} }}", id.0).into_bytes())
    }

    fn shared_networks(&self) -> Vec<String> {
        vec!["floor".to_owned()]
    }

    fn shared_network_config(&self, name: &str) -> Option<Vec<u8>> {
        (name == "floor").then(|| b"{ \"name\": \"floor\" }".to_vec())
    }

    fn select_subnet(&self, query: &SelectQuery) -> Option<SubnetFacts> {
        self.subnet_of(query.relay?)
    }

    fn config(&self, daemon: Daemon) -> Vec<u8> {
        format!("{{ \"of\": \"{}\" }}", daemon.block()).into_bytes()
    }

    fn server_tag(&self) -> String {
        String::new()
    }

    fn status(&mut self) -> Status {
        Status {
            uptime_s: 51,
            reload_s: 51,
            thread_count: 2,
            packet_queue_size: 14,
            packet_queue_means: [0.963_117, 0.281_076, 0.5],
            disabled_by: self.disabling.origins().collect(),
            high_availability: Some(json!([])),
            ..Status::default()
        }
    }

    fn interfaces(&mut self, scan: bool) -> Vec<InterfaceFacts> {
        vec![InterfaceFacts {
            name: if scan { "new0" } else { "eth0" }.to_owned(),
            ..InterfaceFacts::default()
        }]
    }

    fn sample(&mut self, into: &mut Snapshot) {
        into.server[ServerCounter::Received.index()] = self.received;
        into.subnets = self
            .subnets
            .iter()
            .map(|subnet| {
                let mut sample = SubnetSample { id: subnet.id, ..SubnetSample::default() };
                sample.values[SubnetCounter::Total.index()] = 100;
                sample.values[SubnetCounter::Assigned.index()] = self.leases.len() as u64;
                sample
            })
            .collect();
    }

    fn dhcp_disable(&mut self, origin: u32, max_period_s: Option<u64>) {
        let now = self.now().mono;
        self.disabling.disable(origin, max_period_s, now);
    }

    fn dhcp_enable(&mut self, origin: u32) {
        self.disabling.enable(origin);
    }

    fn shutdown(&mut self, exit_value: i64) {
        self.exit_value = Some(exit_value);
    }
}

/// A running control thread; it ends with this value.
pub(crate) struct Running {
    pub(crate) clock: Clock,
    pub(crate) stalled: Arc<AtomicBool>,
    pub(crate) tcp: Vec<SocketAddr>,
    stop: Arc<AtomicBool>,
    waker: ControlWaker,
    thread: Option<JoinHandle<()>>,
    pub(crate) folder: tempfile::TempDir,
}

impl Running {
    /// Runs the loop over `prepare`d leases with the listeners that `listeners` makes, given a folder.
    pub(crate) fn start(
        prepare: impl FnOnce(&mut FakeServer) + Send + 'static,
        listeners: impl FnOnce(&std::path::Path) -> Vec<ListenerSpec>,
    ) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let specs = listeners(folder.path());
        let (clock, stalled, stop) =
            (Clock::default(), Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
        let (sender, receiver) = mpsc::channel();
        let thread = std::thread::spawn({
            let (clock, stalled, stop) = (clock.clone(), Arc::clone(&stalled), Arc::clone(&stop));
            move || {
                let mut server = FakeServer::new(clock);
                server.stalled = stalled;
                prepare(&mut server);
                let mut table = CommandTable::dhcp4();
                table.register_elsewhere("bulk", Presence::Always);
                table.register_elsewhere("ha-heartbeat", Presence::Ha);
                let mut control = ControlLoop::new([table, CommandTable::agent()]).expect("a loop");
                control.listen(specs).expect("listens");
                sender.send((control.tcp_addresses(), control.waker())).expect("the test waits");
                let mut held = Vec::new();
                while !stop.load(Ordering::SeqCst) {
                    // Longer than any client waits: a turn that is missed fails its test.
                    let timeout =
                        if server.orders.is_empty() { Duration::from_secs(90) } else { Duration::ZERO };
                    control.poll(Some(timeout), &mut server).expect("polls");
                    if !server.stalled.load(Ordering::SeqCst) {
                        server.orders.extend(held.drain(..));
                    }
                    while let Some((ticket, order)) = server.orders.pop_front() {
                        let is_put = matches!(order, Order::Lease(LeaseRequest::Put { .. }));
                        if is_put && server.stalled.load(Ordering::SeqCst) {
                            held.push((ticket, order));
                            continue;
                        }
                        let completion = server.carry_out(order);
                        control.complete(ticket, completion, &mut server);
                    }
                }
            }
        });
        let (tcp, waker) = receiver.recv().expect("the thread runs");
        Self { clock, stalled, tcp, stop, waker, thread: Some(thread), folder }
    }

    pub(crate) fn unix() -> Self {
        Self::start(|_| {}, unix_only)
    }

    pub(crate) fn wake(&self) {
        self.waker.wake();
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("d4.sock")
    }

    /// One command over the unix channel; the answer as it came.
    pub(crate) fn ask_text(&self, request: &str) -> String {
        let mut stream = UnixStream::connect(self.socket()).expect("connects");
        stream.set_read_timeout(Some(Duration::from_secs(30))).expect("sets");
        stream.write_all(request.as_bytes()).expect("writes");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer and the end");
        answer
    }

    pub(crate) fn ask(&self, request: &str) -> Value {
        json::parse(self.ask_text(request).as_bytes()).expect("JSON")
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.tcp[0]).expect("connects");
        stream.set_read_timeout(Some(Duration::from_secs(30))).expect("sets");
        stream
    }
}

pub(crate) fn unix_only(folder: &std::path::Path) -> Vec<ListenerSpec> {
    vec![ListenerSpec::Unix { daemon: Daemon::Dhcp4, path: folder.join("d4.sock") }]
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        self.waker.wake();
        let thread = self.thread.take().expect("joined once");
        if thread.join().is_err() && !std::thread::panicking() {
            panic!("the control thread panicked");
        }
    }
}
