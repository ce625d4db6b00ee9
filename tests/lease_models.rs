//! Table, address space, allocators and park against naive models that nobody could get wrong, over random operations.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU32, Ordering};

use aplomado::allocate::{Allocator, AllocatorKind, ClaimedPick, Pick, PoolRange, Share, Start};
use aplomado::ids::{HwAddr, LeaseRef, Lsn, PeerId, ShardId, SubnetId};
use aplomado::lease::address::{AddressSpace, ClaimError, Claimed, Owner, Retiring, Walk};
use aplomado::lease::table::{Due, LeaseTable, Origin, TableError, TableLimits};
use aplomado::lease::{LIFETIME_INFINITE_S, Lease4, Lease4Buf, LeaseState};
use aplomado::park::{Gate, Marks, Park};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

const SHARD: ShardId = ShardId(0);

// The table.

const START_S: u64 = 1_700_000_000;

#[derive(Clone, Debug)]
enum TableOp {
    Insert(Lease4Buf, Origin),
    Update(usize, Lease4Buf, Origin),
    Renew(usize, u32, u32),
    Reclaim(usize),
    Release(usize),
    Decline(usize, u32),
    Remove(usize),
    Find(HwAddr, Vec<u8>),
    /// Time moves by so many seconds, the cap per call is so many; what is due is removed when true, else reclaimed.
    Pass(i64, u32, bool),
    /// Memory that is wanted is given; so many buckets move.
    Grow(usize),
}

fn hw_addrs() -> impl Strategy<Value = HwAddr> {
    let fits = |htype, bytes: &[u8]| HwAddr::new(htype, bytes).expect("short enough");
    let some = vec![
        fits(1, &[]),
        HwAddr::ethernet([2, 0, 0, 0, 0, 1]),
        fits(6, &[2, 0, 0, 0, 0, 1]),
        HwAddr::ethernet([2, 0, 0, 0, 0, 2]),
        fits(1, &[9; 8]),
        fits(32, &[9; 8]),
        fits(1, &[7; 20]),
        fits(1, &[1]),
    ];
    prop_oneof![4 => select(some), 1 => any::<[u8; 6]>().prop_map(HwAddr::ethernet)]
}

fn client_ids() -> impl Strategy<Value = Vec<u8>> {
    let lengths = select(vec![0_usize, 0, 0, 2, 7, 18, 19, 20, 40, 255]);
    (lengths, 0..3_u8).prop_map(|(length, octet)| vec![octet; length])
}

fn states() -> impl Strategy<Value = LeaseState> {
    select(vec![
        LeaseState::Assigned,
        LeaseState::Assigned,
        LeaseState::Declined,
        LeaseState::Reclaimed,
        LeaseState::Released,
    ])
}

fn lifetimes() -> impl Strategy<Value = u32> {
    prop_oneof![
        6 => 0..10_000_u32,
        1 => 60_000..400_000_u32,
        // About as long as the wheel of ends reaches, and longer.
        1 => 1_000_000..4_000_000_u32,
        1 => Just(LIFETIME_INFINITE_S),
        1 => Just(LIFETIME_INFINITE_S - 1),
    ]
}

prop_compose! {
    fn leases()(
        address in 0..50_u32,
        hw_addr in hw_addrs(),
        client_id in client_ids(),
        cltt in 0..20_000_u64,
        valid_lft in lifetimes(),
        subnet in 0..3_u32,
        pool_id in select(vec![0, 1, 254, 255, 256, u32::MAX]),
        state in states(),
        flags in any::<(bool, bool)>(),
        hostname in select(vec![0_usize, 0, 5, 30, 200]),
        context in select(vec![0_usize, 0, 0, 100, 3000]),
    ) -> Lease4Buf {
        Lease4 {
            address: Ipv4Addr::from_bits(0x0a00_0000 + address),
            hw_addr,
            client_id: &client_id,
            cltt: START_S - 10_000 + cltt,
            valid_lft,
            subnet_id: SubnetId(subnet),
            pool_id,
            state,
            fqdn_fwd: flags.0,
            fqdn_rev: flags.1,
            hostname: &vec![b'h'; hostname],
            user_context: &vec![b'c'; context],
        }
        .to_owned()
    }
}

fn origins() -> impl Strategy<Value = Origin> {
    select(vec![Origin::Client, Origin::Record])
}

fn table_ops() -> impl Strategy<Value = TableOp> {
    let which = any::<usize>();
    prop_oneof![
        6 => (leases(), origins()).prop_map(|(lease, origin)| TableOp::Insert(lease, origin)),
        3 => (which, leases(), origins()).prop_map(|(at, lease, origin)| TableOp::Update(at, lease, origin)),
        3 => (which, 0..30_000_u32, lifetimes()).prop_map(|(at, cltt, lft)| TableOp::Renew(at, cltt, lft)),
        1 => which.prop_map(TableOp::Reclaim),
        1 => which.prop_map(TableOp::Release),
        1 => (which, 0..5000_u32).prop_map(|(at, probation_s)| TableOp::Decline(at, probation_s)),
        2 => which.prop_map(TableOp::Remove),
        4 => (hw_addrs(), client_ids()).prop_map(|(hw_addr, client_id)| TableOp::Find(hw_addr, client_id)),
        2 => (select(vec![-90_000_i64, -1, 0, 1, 5, 600, 5000, 70_000, 1_000_000]), 1..8_u32, any::<bool>())
            .prop_map(|(by, cap, remove)| TableOp::Pass(by, cap, remove)),
        2 => (0..40_usize).prop_map(TableOp::Grow),
    ]
}

/// A lease of the model: what the table was told, and whether its hardware address matches any type.
#[derive(Clone, Debug)]
struct Known {
    lease: Lease4Buf,
    any_htype: bool,
}

impl Known {
    fn new(lease: &Lease4Buf, origin: Origin) -> Self {
        let hw_addr = lease.view().hw_addr;
        let any_htype = origin == Origin::Record && hw_addr.htype == 1 && hw_addr.as_bytes().len() != 6;
        Self { lease: lease.clone(), any_htype }
    }

    fn change(&mut self, rule: impl FnOnce(&mut Lease4<'_>)) {
        let old = self.lease.clone();
        let mut lease = old.view();
        rule(&mut lease);
        self.lease = lease.to_owned();
    }

    fn is_hw(&self, hw_addr: &HwAddr) -> bool {
        let own = self.lease.view().hw_addr;
        own.as_bytes() == hw_addr.as_bytes() && (self.any_htype || own.htype == hw_addr.htype)
    }

    fn due(&self, hold_s: u64) -> Option<u64> {
        let lease = self.lease.view();
        match (lease.valid_lft, lease.state) {
            (LIFETIME_INFINITE_S, _) => None,
            (_, LeaseState::Reclaimed) => Some(lease.expire() + hold_s),
            _ => Some(lease.expire() + 1),
        }
    }
}

struct TableModel {
    table: LeaseTable,
    known: BTreeMap<u32, Known>,
    now_s: u64,
}

const HOLD_S: u32 = 3600;

impl TableModel {
    fn new() -> Self {
        let limits = TableLimits { record_count_max: 1000, record_count: 0, blob_bytes_max: 4 << 20 };
        let mut table = LeaseTable::new(limits, [7; 16], START_S);
        table.set_hold_reclaimed_s(HOLD_S);
        Self { table, known: BTreeMap::new(), now_s: START_S }
    }

    fn choose(&self, at: usize) -> Option<LeaseRef> {
        (!self.known.is_empty())
            .then(|| LeaseRef(*self.known.keys().nth(at % self.known.len()).expect("within the length")))
    }

    fn known(&mut self, lease: LeaseRef) -> &mut Known {
        self.known.get_mut(&lease.0).expect("chosen from the model")
    }

    fn apply(&mut self, op: TableOp) {
        match op {
            TableOp::Insert(lease, origin) => {
                let stored = self.table.insert(&lease.view(), origin).expect("room for a few hundred leases");
                let before = self.known.insert(stored.0, Known::new(&lease, origin));
                assert!(before.is_none(), "a slot in use was given out again");
            }
            TableOp::Update(at, lease, origin) => {
                let Some(chosen) = self.choose(at) else { return };
                self.table.update(chosen, &lease.view(), origin).expect("room for a few hundred leases");
                *self.known(chosen) = Known::new(&lease, origin);
            }
            TableOp::Renew(at, cltt, valid_lft) => {
                let Some(chosen) = self.choose(at) else { return };
                let cltt = START_S + u64::from(cltt);
                self.table.renew(chosen, cltt, valid_lft);
                self.known(chosen).change(|lease| (lease.cltt, lease.valid_lft) = (cltt, valid_lft));
            }
            TableOp::Reclaim(at) => {
                let Some(chosen) = self.choose(at) else { return };
                self.reclaim(chosen);
            }
            TableOp::Release(at) => {
                let Some(chosen) = self.choose(at) else { return };
                let cltt = self.now_s;
                self.table.release(chosen, cltt);
                self.known(chosen).change(|lease| {
                    (lease.state, lease.cltt, lease.valid_lft) = (LeaseState::Released, cltt, 0);
                });
            }
            TableOp::Decline(at, probation_s) => {
                let Some(chosen) = self.choose(at) else { return };
                self.table.decline(chosen, self.now_s, probation_s);
                let cltt = self.now_s;
                self.known(chosen).change(|lease| {
                    *lease = Lease4 {
                        hw_addr: HwAddr::new(lease.hw_addr.htype, &[]).expect("empty"),
                        client_id: &[],
                        cltt,
                        valid_lft: probation_s,
                        state: LeaseState::Declined,
                        fqdn_fwd: false,
                        fqdn_rev: false,
                        hostname: &[],
                        user_context: &[],
                        ..*lease
                    };
                });
            }
            TableOp::Remove(at) => {
                let Some(chosen) = self.choose(at) else { return };
                self.table.remove(chosen);
                self.known.remove(&chosen.0);
            }
            TableOp::Find(hw_addr, client_id) => self.check_find(&hw_addr, &client_id),
            TableOp::Pass(by, cap, remove) => self.pass(by, cap, remove),
            TableOp::Grow(buckets) => {
                if let Some(want) = self.table.wants() {
                    drop(self.table.give(want.allocate()));
                }
                self.table.migrate(buckets);
                drop(self.table.discard());
            }
        }
    }

    fn reclaim(&mut self, lease: LeaseRef) {
        self.table.reclaim(lease);
        self.known(lease).change(|lease| {
            *lease = Lease4 {
                state: LeaseState::Reclaimed,
                fqdn_fwd: false,
                fqdn_rev: false,
                hostname: &[],
                user_context: &[],
                ..*lease
            };
        });
    }

    fn check_find(&self, hw_addr: &HwAddr, client_id: &[u8]) {
        let refs = |found: &mut dyn Iterator<Item = LeaseRef>| {
            let list: Vec<u32> = found.map(|lease| lease.0).collect();
            let set: BTreeSet<u32> = list.iter().copied().collect();
            assert_eq!(list.len(), set.len(), "a lease was found twice");
            set
        };
        let expected = |rule: &dyn Fn(&Known) -> bool| -> BTreeSet<u32> {
            self.known.iter().filter(|(_, known)| rule(known)).map(|(lease, _)| *lease).collect()
        };
        if !client_id.is_empty() {
            let hash = self.table.hash_client_id(client_id);
            assert_eq!(
                refs(&mut self.table.with_client_id(hash, client_id)),
                expected(&|known| known.lease.view().client_id == client_id)
            );
        }
        if !hw_addr.is_empty() {
            let hash = self.table.hash_hw(hw_addr);
            assert_eq!(
                refs(&mut self.table.with_hw(hash, hw_addr, client_id)),
                expected(&|known| {
                    known.is_hw(hw_addr) && (client_id.is_empty() || known.lease.view().client_id.is_empty())
                })
            );
            assert_eq!(
                refs(&mut self.table.with_hw_octets(hash, hw_addr.as_bytes())),
                expected(&|known| known.lease.view().hw_addr.as_bytes() == hw_addr.as_bytes())
            );
        }
        for (lease, known) in &self.known {
            let own = known.lease.view();
            let belongs = if own.client_id.is_empty() || client_id.is_empty() {
                !own.hw_addr.is_empty() && known.is_hw(hw_addr)
            } else {
                own.client_id == client_id
            };
            assert_eq!(self.table.belongs(LeaseRef(*lease), hw_addr, client_id), belongs);
        }
    }

    fn pass(&mut self, by: i64, cap: u32, remove: bool) {
        self.now_s = self.now_s.saturating_add_signed(by).max(START_S);
        let now_s = self.now_s;
        loop {
            let mut reported = 0;
            let more = self.table.expire(now_s, cap, &mut |_| reported += 1);
            assert!(reported <= cap, "more were reported than the cap allows");
            if !more {
                break;
            }
        }
        let mut handled = 0;
        loop {
            let expired = self.table.next_to_reclaim(now_s);
            let Some(lease) = expired.or_else(|| self.table.next_to_flush(now_s)) else { break };
            let known = &self.known[&lease.0];
            assert!(known.due(u64::from(HOLD_S)).is_some_and(|due_s| due_s <= now_s), "handed out early");
            let flush = known.lease.view().state == LeaseState::Reclaimed;
            assert_eq!(flush, expired.is_none());
            if flush || remove {
                self.table.remove(lease);
                self.known.remove(&lease.0);
            } else {
                self.reclaim(lease);
            }
            handled += 1;
        }
        // What was reclaimed just now may have been held long enough already: the next call reports that.
        let late: Vec<_> = self
            .known
            .iter()
            .filter(|(_, known)| known.lease.view().state != LeaseState::Reclaimed)
            .filter(|(_, known)| known.due(0).is_some_and(|due_s| due_s <= now_s))
            .collect();
        assert!(late.is_empty(), "not handed out although due, after {handled}: {late:?}");
    }

    fn check_all(&self) {
        let all: Vec<u32> = self.table.leases_from(LeaseRef(0)).map(|lease| lease.0).collect();
        assert_eq!(all, self.known.keys().copied().collect::<Vec<_>>());
        for (lease, known) in &self.known {
            assert_eq!(self.table.view(LeaseRef(*lease)), known.lease.view());
        }
        let keys = self.known.values().map(|known| {
            let lease = known.lease.view();
            usize::from(!lease.hw_addr.is_empty()) + usize::from(!lease.client_id.is_empty())
        });
        let stats = self.table.stats();
        assert_eq!((stats.lease_count, stats.entry_count), (self.known.len(), keys.sum()));
        if self.known.is_empty() {
            assert_eq!(stats.blob_bytes, 0, "long parts of removed leases are given back");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn table_does_what_a_map_does(ops in vec(table_ops(), 1..400)) {
        let mut model = TableModel::new();
        for op in ops {
            model.apply(op);
        }
        model.check_all();
        while let Some(lease) = model.choose(0) {
            model.apply(TableOp::Find(model.known[&lease.0].lease.view().hw_addr, vec![]));
            model.apply(TableOp::Remove(0));
        }
        model.check_all();
    }
}

fn plain_lease(number: u32) -> Lease4Buf {
    let [_, a, b, c] = number.to_be_bytes();
    Lease4 {
        address: Ipv4Addr::from_bits(0x0a00_0000 + number),
        hw_addr: HwAddr::ethernet([2, 0, 0, a, b, c]),
        client_id: &[1, 2, 0, 0, a, b, c],
        cltt: START_S,
        valid_lft: 3600,
        subnet_id: SubnetId(1),
        pool_id: 0,
        state: LeaseState::Assigned,
        fqdn_fwd: false,
        fqdn_rev: false,
        hostname: &[],
        user_context: &[],
    }
    .to_owned()
}

#[test]
fn an_index_that_grows_in_steps_finds_every_lease_at_every_step() {
    let limits = TableLimits { record_count_max: 100_000, record_count: 0, blob_bytes_max: 0 };
    let mut table = LeaseTable::new(limits, [1; 16], START_S);
    let mut moves = 0;
    for number in 0..40_000 {
        if let Some(want) = table.wants() {
            table.give(want.allocate()).expect("what is wanted is taken");
            moves += 1;
        }
        drop(table.discard());
        let stored = table.insert(&plain_lease(number).view(), Origin::Client).expect("room");
        assert_eq!(stored, LeaseRef(number));
        for probe in [0, number / 2, number] {
            let lease = plain_lease(probe);
            let hash = table.hash_client_id(lease.view().client_id);
            let found: Vec<_> = table.with_client_id(hash, lease.view().client_id).collect();
            assert_eq!(found, [LeaseRef(probe)], "after {number}");
        }
    }
    assert!(moves > 4, "the test must grow the index: {moves}");
}

#[test]
fn a_full_table_refuses_and_keeps_what_it_has() {
    let limits = TableLimits { record_count_max: 1, record_count: 1, blob_bytes_max: 0 };
    let mut table = LeaseTable::new(limits, [1; 16], START_S);
    let mut stored = 0;
    let refused = loop {
        match table.insert(&plain_lease(stored).view(), Origin::Client) {
            Ok(_) => stored += 1,
            Err(error) => break error,
        }
        if let Some(want) = table.wants() {
            drop(table.give(want.allocate()));
        }
        drop(table.discard());
    };
    assert_eq!((refused, stored), (TableError::RecordsFull, 65_536));
    let long = plain_lease(0);
    let long = Lease4 { hostname: b"needs a blob", ..long.view() };
    assert_eq!(table.update(LeaseRef(0), &long, Origin::Client), Err(TableError::BlobsFull));
    assert_eq!(table.view(LeaseRef(0)), plain_lease(0).view());
    table.remove(LeaseRef(9));
    assert_eq!(table.insert(&plain_lease(70_000).view(), Origin::Client), Ok(LeaseRef(9)));
    assert_eq!(table.stats().refused_count, 2);
}

#[test]
fn thousands_of_leases_under_one_key_stay_reachable_by_their_other_key() {
    let limits = TableLimits { record_count_max: 5000, record_count: 5000, blob_bytes_max: 0 };
    let mut table = LeaseTable::new(limits, [1; 16], START_S);
    let one = HwAddr::ethernet([2, 0, 0, 0, 0, 1]);
    let leases: Vec<_> =
        (0..5000).map(|number| Lease4 { hw_addr: one, ..plain_lease(number).view() }.to_owned()).collect();
    for lease in &leases {
        table.insert(&lease.view(), Origin::Client).expect("room");
    }
    let by_hw = table.with_hw(table.hash_hw(&one), &one, &[]).count();
    assert!((250..=256).contains(&by_hw), "{by_hw} of a chain that is bounded");
    assert_eq!(table.stats().unindexed_count, 5000 - u64::try_from(by_hw).expect("small"));
    for (number, lease) in (0..).zip(&leases) {
        let client_id = lease.view().client_id;
        let found: Vec<_> = table.with_client_id(table.hash_client_id(client_id), client_id).collect();
        assert_eq!(found, [LeaseRef(number)]);
    }
    for number in 0..5000 {
        table.remove(LeaseRef(number));
    }
    assert_eq!(table.stats().entry_count, 0);
}

#[test]
fn an_address_loaded_without_its_type_matches_any_type_unless_it_may_be_ethernet() {
    let limits = TableLimits { record_count_max: 10, record_count: 10, blob_bytes_max: 0 };
    let mut table = LeaseTable::new(limits, [1; 16], START_S);
    let eight = |htype| HwAddr::new(htype, &[5; 8]).expect("fits");
    let six = |htype| HwAddr::new(htype, &[5; 6]).expect("fits");
    let base = plain_lease(1);
    let bare = Lease4 { client_id: &[], ..base.view() };
    // Eight octets need a blob, so memory for one is given first.
    let loaded = table.insert(&Lease4 { hw_addr: eight(1), ..bare }, Origin::Record);
    assert_eq!(loaded, Err(TableError::BlobsFull));
    let limits = TableLimits { blob_bytes_max: 1, ..limits };
    let mut table = LeaseTable::new(limits, [1; 16], START_S);
    let loaded = table.insert(&Lease4 { hw_addr: eight(1), ..bare }, Origin::Record).expect("room");
    assert!(table.belongs(loaded, &eight(32), &[]));
    let ethernet = table.insert(&Lease4 { hw_addr: six(1), ..bare }, Origin::Record).expect("room");
    assert!(table.belongs(ethernet, &six(1), &[]) && !table.belongs(ethernet, &six(6), &[]));
    let sent = table.insert(&Lease4 { hw_addr: eight(32), ..bare }, Origin::Client).expect("room");
    assert!(!table.belongs(sent, &eight(1), &[]));
}

#[test]
fn expiry_is_capped_oldest_first_and_survives_jumps_of_the_clock() {
    let limits = TableLimits { record_count_max: 10_000, record_count: 10_000, blob_bytes_max: 0 };
    let mut table = LeaseTable::new(limits, [1; 16], START_S);
    for number in 0..5000_u32 {
        let lease = plain_lease(number);
        let valid_lft = if number == 7 { LIFETIME_INFINITE_S } else { 10 + number % 100 };
        let lease = Lease4 { valid_lft, ..lease.view() };
        table.insert(&lease, Origin::Client).expect("room");
    }
    // A day back: nothing is due, nothing breaks.
    assert!(!table.expire(START_S - 86_400, 100, &mut |_| panic!("nothing is due yet")));
    // Ten years ahead: everything is due, 100 at a time, about oldest first.
    let now_s = START_S + 315_360_000;
    let mut order = Vec::new();
    loop {
        let before = order.len();
        let more = table.expire(now_s, 100, &mut |due| match due {
            Due::Expired(lease) => order.push(lease),
            Due::Held(lease) => panic!("{lease:?} was never reclaimed"),
        });
        assert!(order.len() - before <= 100);
        if !more {
            break;
        }
    }
    assert_eq!(order.len(), 4999);
    let queue: Vec<_> = std::iter::from_fn(|| table.next_to_reclaim(now_s)).collect();
    assert_eq!(queue, order, "the queue keeps the order of the reports");
    // A renewed lease of the queue comes back when its new time is over.
    table.renew(order[0], now_s, 50);
    let mut again = Vec::new();
    while table.expire(now_s + 51, 100, &mut |due| again.push(due)) {}
    assert_eq!(again, [Due::Expired(order[0])]);
}

// Addresses.

fn ip(bits: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(bits)
}

const BASE: u32 = 0x0a00_0000;

#[derive(Clone, Copy, Debug)]
enum SpaceOp {
    Claim(u32, u8),
    Lend(u32),
    Reactivate(u32),
    Release(u32),
    Retire(u32, u64),
    LendAt(u32, u64),
    Settle(u64),
    Reserve(u32, bool),
    ClearReserved(u32, u32),
    Next(u32, u32),
    Walk(u32, u32),
}

/// Addresses from three blocks far apart, most of them in use by few operations.
fn addresses() -> impl Strategy<Value = u32> {
    prop_oneof![0..300_u32, 65_500..65_560_u32, Just(0x0100_0000), 0x0100_0000..0x0100_0010_u32]
        .prop_map(|offset| BASE + offset)
}

fn space_ops() -> impl Strategy<Value = SpaceOp> {
    prop_oneof![
        6 => (addresses(), 0..3_u8).prop_map(|(address, shard)| SpaceOp::Claim(address, shard)),
        2 => addresses().prop_map(SpaceOp::Lend),
        1 => addresses().prop_map(SpaceOp::Reactivate),
        2 => addresses().prop_map(SpaceOp::Release),
        1 => (addresses(), 0..3_u64).prop_map(|(address, after)| SpaceOp::Retire(address, after)),
        1 => (addresses(), 0..3_u64).prop_map(|(address, after)| SpaceOp::LendAt(address, after)),
        1 => (0..3_u64).prop_map(SpaceOp::Settle),
        1 => (addresses(), any::<bool>()).prop_map(|(address, on)| SpaceOp::Reserve(address, on)),
        1 => (addresses(), addresses()).prop_map(|(a, b)| SpaceOp::ClearReserved(a, b)),
        4 => (addresses(), addresses()).prop_map(|(a, b)| SpaceOp::Next(a, b)),
        2 => (addresses(), addresses()).prop_map(|(a, b)| SpaceOp::Walk(a, b)),
    ]
}

#[derive(Default)]
struct SpaceModel {
    owners: BTreeMap<u32, Owner>,
    reserved: BTreeSet<u32>,
    /// Position, address, owner at that time and how often the address had changed by then.
    waiting: Vec<(u64, u32, u64)>,
    changes: BTreeMap<u32, u64>,
    lsn: u64,
    durable: u64,
    lease: u32,
}

impl SpaceModel {
    fn owner(&self, address: u32) -> Owner {
        if !has_block(address) {
            return Owner::Unknown;
        }
        self.owners.get(&address).copied().unwrap_or(Owner::Free)
    }

    fn set(&mut self, address: u32, owner: Owner) {
        *self.changes.entry(address).or_default() += 1;
        self.owners.insert(address, owner);
    }

    fn is_available(&self, address: u32) -> bool {
        matches!(self.owner(address), Owner::Free | Owner::Stealable { .. })
            && !self.reserved.contains(&address)
    }
}

/// 10.0.0.0/23, 10.0.255.0/24 and 11.0.0.0/24 have blocks; 10.0.2.0 and 10.1.0.0 on have none.
fn with_blocks() -> impl Iterator<Item = u32> {
    (BASE..BASE + 512).chain(BASE + 65_280..BASE + 65_536).chain(BASE + 0x0100_0000..BASE + 0x0100_0100)
}

fn has_block(address: u32) -> bool {
    matches!((address - BASE) >> 8, 0 | 1 | 255 | 0x1_0000)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn address_space_does_what_a_map_does(ops in vec(space_ops(), 1..500)) {
        let space = AddressSpace::new(16);
        for (first, last) in [(0, 511), (65_280, 65_535), (0x0100_0000, 0x0100_00ff)] {
            space.ensure(ip(BASE + first), ip(BASE + last)).expect("four blocks");
        }
        let mut retiring = Retiring::new(40);
        let mut model = SpaceModel::default();
        for op in ops {
            apply_space_op(&space, &mut retiring, &mut model, op);
        }
        for address in (BASE..BASE + 600).chain(BASE + 65_200..BASE + 65_600).chain(BASE + 0x00ff_fff0..BASE + 0x0100_0200) {
            prop_assert_eq!(space.owner(ip(address)), model.owner(address));
            prop_assert_eq!(space.is_available(ip(address)), model.is_available(address));
        }
    }
}

fn apply_space_op(space: &AddressSpace, retiring: &mut Retiring, model: &mut SpaceModel, op: SpaceOp) {
    match op {
        SpaceOp::Claim(address, shard) => {
            let shard = ShardId(shard);
            model.lease += 1;
            let lease = LeaseRef(model.lease);
            let expected = match model.owner(address) {
                Owner::Unknown => Err(ClaimError::Unknown),
                Owner::Free => Ok(Claimed::Fresh),
                Owner::Stealable { shard, lease } => Ok(Claimed::Stolen { shard, lease }),
                Owner::Retiring { shard: by } if by == shard => Ok(Claimed::Fresh),
                owner => Err(ClaimError::Taken(owner)),
            };
            if expected.is_ok() {
                model.set(address, Owner::InUse { shard, lease });
            }
            assert_eq!(space.claim(ip(address), shard, lease), expected);
        }
        SpaceOp::Lend(address) => {
            if let Owner::InUse { shard, lease } = model.owner(address) {
                assert!(!space.lend(ip(address), shard, LeaseRef(u32::MAX)));
                assert!(space.lend(ip(address), shard, lease));
                model.set(address, Owner::Stealable { shard, lease });
            }
        }
        SpaceOp::Reactivate(address) => match model.owner(address) {
            Owner::InUse { shard, lease } | Owner::Stealable { shard, lease } => {
                assert!(!space.reactivate(ip(address), ShardId(9), lease));
                assert!(space.reactivate(ip(address), shard, lease));
                model.set(address, Owner::InUse { shard, lease });
            }
            _ => assert!(!space.reactivate(ip(address), SHARD, LeaseRef(0))),
        },
        SpaceOp::Release(address) => match model.owner(address) {
            Owner::InUse { shard, lease } | Owner::Stealable { shard, lease } => {
                assert!(space.release(ip(address), shard, lease));
                model.set(address, Owner::Free);
            }
            _ => assert!(!space.release(ip(address), SHARD, LeaseRef(0))),
        },
        SpaceOp::Retire(address, after) | SpaceOp::LendAt(address, after) => {
            let retire = matches!(op, SpaceOp::Retire(..));
            let Owner::InUse { shard, lease } = model.owner(address) else { return };
            let ticket = if retire {
                space.begin_retire(ip(address), shard, lease)
            } else {
                space.begin_lend(ip(address), shard, lease)
            };
            let ticket = ticket.expect("the address belongs to the lease");
            let owner = if retire { Owner::Retiring { shard } } else { Owner::InUse { shard, lease } };
            model.set(address, owner);
            model.lsn += after;
            if retiring.wait(Lsn(model.lsn), ticket).is_ok() {
                model.waiting.push((model.lsn, address, model.changes[&address]));
            } else {
                assert_eq!(model.waiting.len(), 40);
            }
        }
        SpaceOp::Settle(by) => {
            model.durable = (model.durable + by).min(model.lsn);
            let mut expected = Vec::new();
            for (lsn, address, changes) in std::mem::take(&mut model.waiting) {
                if lsn > model.durable {
                    model.waiting.push((lsn, address, changes));
                } else if model.changes[&address] == changes {
                    let opened = match model.owner(address) {
                        Owner::InUse { shard, lease } => Owner::Stealable { shard, lease },
                        _ => Owner::Free,
                    };
                    model.set(address, opened);
                    expected.push(ip(address));
                }
            }
            let mut opened = Vec::new();
            retiring.settle(Lsn(model.durable), space, usize::MAX, |address| opened.push(address));
            assert_eq!(opened, expected);
        }
        SpaceOp::Reserve(address, on) => {
            space.set_reserved(ip(address), on);
            if on && has_block(address) {
                model.reserved.insert(address);
            } else {
                model.reserved.remove(&address);
            }
        }
        SpaceOp::ClearReserved(a, b) => {
            space.clear_reserved(ip(a.min(b)), ip(a.max(b)));
            model.reserved.retain(|address| !(a.min(b)..=a.max(b)).contains(address));
        }
        SpaceOp::Next(a, b) => {
            let (first, last) = (a.min(b), a.max(b));
            let expected = with_blocks()
                .filter(|address| (first..=last).contains(address))
                .find(|address| model.is_available(*address));
            assert_eq!(space.next_available(ip(first), ip(last)), expected.map(ip));
        }
        SpaceOp::Walk(a, b) => {
            let (first, last) = (a.min(b), a.max(b));
            let held: Vec<_> = model
                .owners
                .range(first..=last)
                .filter(|(_, owner)| **owner != Owner::Free)
                .map(|(address, owner)| (ip(*address), *owner))
                .collect();
            let mut found = Vec::new();
            let mut from = ip(first);
            loop {
                match space.walk(from, ip(last), 300) {
                    Walk::Held(address, owner) => {
                        found.push((address, owner));
                        from = ip(address.to_bits() + 1);
                    }
                    Walk::More(next) => {
                        assert!(next > from);
                        from = next;
                    }
                    Walk::End => break,
                }
            }
            assert_eq!(found, held);
        }
    }
}

#[test]
fn the_search_ends_at_the_last_address_there_is() {
    let space = AddressSpace::new(2);
    space.ensure(ip(u32::MAX), ip(u32::MAX)).expect("one block");
    assert_eq!(space.next_available(ip(0), ip(u32::MAX)), Some(ip(0xffff_ff00)));
    for octet in 0..=255 {
        space.claim(ip(0xffff_ff00 + octet), SHARD, LeaseRef(octet)).expect("free");
    }
    assert_eq!(space.next_available(ip(0), ip(u32::MAX)), None);
    assert!(matches!(space.walk(ip(u32::MAX), ip(u32::MAX), 1), Walk::Held(..)));
    space.ensure(ip(0), ip(0)).expect("the second block");
    assert_eq!(space.ensure(ip(256), ip(256)).expect_err("two at most").block_count_max, 2);
    assert_eq!(space.claim(ip(256), SHARD, LeaseRef(1)), Err(ClaimError::Unknown));
}

const NOBODY: u32 = 0;
const LENT: u32 = u32::MAX;

/// Threads claim, lend, take back, delete and free the same addresses. A shadow cell per address, changed only by whoever holds
/// the address, tells when two hold it at once; afterwards the bits of the search agree with the words.
#[test]
fn shards_whose_clients_may_use_one_pool_only_offer_different_addresses() {
    // As in a load-balancing pair, where each server's clients have a pool of their own.
    let pools = ranges(&[(0, 255), (256, 511)]);
    let space = AddressSpace::new(8);
    space.ensure(ip(BASE), ip(BASE + 511)).expect("two blocks");
    for own in 0..2 {
        let mut offered = BTreeSet::new();
        for shard in 0..4 {
            let start = Start::of_shard(7, ShardId(shard), 4, Share::Whole);
            let mut allocator = Allocator::new(AllocatorKind::Iterative, &pools, start);
            for _ in 0..40 {
                let Pick::Found { address, pool } = allocator.pick(&pools, &space, |pool| pool == own) else {
                    panic!("the pool is empty");
                };
                assert_eq!(pool, own);
                assert!(offered.insert(address), "{address} is offered by two shards");
            }
        }
    }
}

#[test]
fn no_address_is_ever_owned_twice() {
    for round in 0..480 {
        let address_count = [2, 9, 300][round % 3];
        let space = AddressSpace::new(8);
        space.ensure(ip(BASE), ip(BASE + address_count - 1)).expect("two blocks");
        // A whole block is open only while one of few addresses is: that strains the bits above.
        for octet in address_count..256 {
            space.set_reserved(ip(BASE + octet), true);
        }
        let shadow: Vec<AtomicU32> = (0..address_count).map(|_| AtomicU32::new(NOBODY)).collect();
        let together = std::sync::Barrier::new(4);
        std::thread::scope(|scope| {
            for thread in 1..=4_u8 {
                let (space, shadow, together) = (&space, &shadow, &together);
                scope.spawn(move || {
                    together.wait();
                    shadowed_shard(space, shadow, thread, 4000);
                });
            }
        });
        for address in BASE..BASE + address_count {
            let free = matches!(space.owner(ip(address)), Owner::Free | Owner::Stealable { .. });
            assert_eq!(space.is_available(ip(address)), free, "{address:x}");
        }
        let mut available = Vec::new();
        let mut from = BASE;
        while let Some(found) = space.next_available(ip(from), ip(BASE + address_count - 1)) {
            available.push(found);
            from = found.to_bits() + 1;
        }
        let expected: Vec<_> =
            (BASE..BASE + address_count).map(ip).filter(|address| space.is_available(*address)).collect();
        assert_eq!(available, expected);
    }
}

fn shadowed_shard(space: &AddressSpace, shadow: &[AtomicU32], thread: u8, rounds: u32) {
    let shard = ShardId(thread);
    let me = u32::from(thread);
    let mut random = u64::from(thread).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut next = |bound: u32| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        u32::try_from(random % u64::from(bound)).expect("below the bound")
    };
    // Held or lent by this thread: the lease by offset.
    let mut mine: BTreeMap<u32, (LeaseRef, bool)> = BTreeMap::new();
    let mut retiring = Retiring::new(16);
    for round in 0..rounds {
        let offset = next(u32::try_from(shadow.len()).expect("small"));
        let address = ip(BASE + offset);
        let cell = &shadow[usize::try_from(offset).expect("small")];
        match (mine.get(&offset).copied(), next(4)) {
            (None, _) => {
                let lease = LeaseRef(round + 1);
                match space.claim(address, shard, lease) {
                    Ok(before) => {
                        let seen = cell.swap(me, Ordering::SeqCst);
                        let allowed = if before == Claimed::Fresh { NOBODY } else { LENT };
                        assert_eq!(seen, allowed, "{before:?} at {address}");
                        mine.insert(offset, (lease, false));
                    }
                    Err(error) => assert!(matches!(error, ClaimError::Taken(_))),
                }
            }
            (Some((lease, false)), 0) => {
                assert_eq!(cell.swap(LENT, Ordering::SeqCst), me);
                assert!(space.lend(address, shard, lease));
                mine.insert(offset, (lease, true));
            }
            (Some((lease, false)), 1) => {
                assert_eq!(cell.swap(NOBODY, Ordering::SeqCst), me);
                assert!(space.release(address, shard, lease));
                mine.remove(&offset);
            }
            (Some((lease, false)), 2) if !retiring.is_full() => {
                assert_eq!(cell.swap(NOBODY, Ordering::SeqCst), me);
                let ticket = space.begin_retire(address, shard, lease).expect("mine");
                retiring.wait(Lsn(u64::from(round)), ticket).expect("room");
                mine.remove(&offset);
            }
            (Some((lease, true)), _) => {
                if space.reactivate(address, shard, lease) {
                    assert_eq!(cell.swap(me, Ordering::SeqCst), LENT);
                    mine.insert(offset, (lease, false));
                } else {
                    mine.remove(&offset);
                }
            }
            (Some((_, false)), _) => assert_eq!(cell.load(Ordering::SeqCst), me),
        }
        retiring.settle(Lsn(u64::from(round.saturating_sub(20))), space, 4, |_| {});
    }
}

// Allocators.

fn ranges(of: &[(u32, u32)]) -> Vec<PoolRange> {
    of.iter().map(|(first, last)| PoolRange { first: ip(BASE + first), last: ip(BASE + last) }).collect()
}

/// Kea's iterative allocator by its description, one address at a time.
struct NaiveIterative {
    last: Option<u32>,
    pools: Vec<(Option<u32>, bool)>,
}

impl NaiveIterative {
    fn candidate(&mut self, pools: &[PoolRange], allowed: &[bool]) -> Option<(usize, u32)> {
        let open: Vec<usize> = (0..pools.len()).filter(|pool| allowed[*pool]).collect();
        let start = self
            .last
            .and_then(|last| open.iter().position(|pool| pools[*pool].contains(ip(last))))
            .unwrap_or(0);
        for pool in &open[start.min(open.len())..] {
            let (last, spent) = self.pools[*pool];
            if spent {
                continue;
            }
            let next = last.map_or_else(|| pools[*pool].first.to_bits(), |last| last + 1);
            if pools[*pool].contains(ip(next)) {
                self.pools[*pool].0 = Some(next);
                self.last = Some(next);
                return Some((*pool, next));
            }
            self.pools[*pool].1 = true;
        }
        for pool in &open {
            self.pools[*pool] = (None, false);
        }
        let first = *open.first()?;
        let next = pools[first].first.to_bits();
        self.pools[first].0 = Some(next);
        self.last = Some(next);
        Some((first, next))
    }

    fn pick(&mut self, pools: &[PoolRange], allowed: &[bool], space: &AddressSpace) -> Option<(usize, u32)> {
        let capacity: u64 =
            pools.iter().zip(allowed).filter(|(_, open)| **open).map(|(pool, _)| pool.len()).sum();
        // Kea stops after as many candidates as there are addresses. When classes opened other pools before, the rest of this
        // round and the start of the next can name some twice, so that it misses a free one. Here the search goes on until
        // a whole round was seen.
        (0..capacity * 2).find_map(|_| {
            let candidate = self.candidate(pools, allowed)?;
            space.is_available(ip(candidate.1)).then_some(candidate)
        })
    }
}

#[derive(Clone, Debug)]
enum AllocateOp {
    Offer(Vec<bool>),
    Allocate(Vec<bool>),
    Take(u32),
    Free(u32),
    Reserve(u32, bool),
}

fn allocate_ops() -> impl Strategy<Value = AllocateOp> {
    let masks =
        || select(vec![vec![true; 3], vec![true, false, true], vec![false, true, true], vec![false; 3]]);
    prop_oneof![
        3 => masks().prop_map(AllocateOp::Offer),
        5 => masks().prop_map(AllocateOp::Allocate),
        2 => (0..400_u32).prop_map(AllocateOp::Take),
        4 => (0..400_u32).prop_map(AllocateOp::Free),
        1 => (0..400_u32, any::<bool>()).prop_map(|(at, on)| AllocateOp::Reserve(at, on)),
    ]
}

const POOLS: [(u32, u32); 3] = [(10, 19), (250, 270), (300, 300)];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn iterative_gives_the_sequence_of_one_address_after_the_other(ops in vec(allocate_ops(), 1..300)) {
        let pools = ranges(&POOLS);
        let space = AddressSpace::new(8);
        space.ensure(ip(BASE), ip(BASE + 511)).expect("two blocks");
        let mut own = Allocator::new(AllocatorKind::Iterative, &pools, Start::default());
        let mut naive = NaiveIterative { last: None, pools: vec![(None, false); 3] };
        let mut exhausted = false;
        for op in ops {
            match op {
                AllocateOp::Offer(ref mask) | AllocateOp::Allocate(ref mask) if !exhausted => {
                    let claims = matches!(op, AllocateOp::Allocate(_));
                    let expected = naive.pick(&pools, mask, &space);
                    let found = own.pick(&pools, &space, |pool| mask[pool]);
                    match expected {
                        Some((pool, address)) => {
                            prop_assert_eq!(found, Pick::Found { address: ip(address), pool });
                            if claims {
                                space.claim(ip(address), SHARD, LeaseRef(address)).expect("available");
                            }
                        }
                        None if mask.contains(&true) => {
                            prop_assert_eq!(found, Pick::Full);
                            // Where a full round leaves its marks is nobody's concern.
                            exhausted = true;
                        }
                        None => prop_assert_eq!(found, Pick::NoPools),
                    }
                }
                AllocateOp::Offer(_) | AllocateOp::Allocate(_) => {}
                AllocateOp::Take(at) => drop(space.claim(ip(BASE + at), SHARD, LeaseRef(BASE + at))),
                AllocateOp::Free(at) => drop(space.release(ip(BASE + at), SHARD, LeaseRef(BASE + at))),
                AllocateOp::Reserve(at, on) => space.set_reserved(ip(BASE + at), on),
            }
        }
    }

    #[test]
    fn every_allocator_finds_an_address_if_and_only_if_there_is_one(
        kind in select(vec![AllocatorKind::Iterative, AllocatorKind::Random, AllocatorKind::Flq]),
        position in any::<u32>(),
        seed in any::<u64>(),
        ops in vec(allocate_ops(), 1..300),
    ) {
        let pools = ranges(&POOLS);
        let space = AddressSpace::new(8);
        space.ensure(ip(BASE), ip(BASE + 511)).expect("two blocks");
        let mut own = Allocator::new(kind, &pools, Start { position, seed });
        for op in ops {
            match op {
                AllocateOp::Offer(mask) => {
                    let candidates = candidates(&pools, &mask, &space);
                    match own.pick(&pools, &space, |pool| mask[pool]) {
                        Pick::Found { address, pool } => prop_assert!(candidates.contains(&(pool, address))),
                        Pick::Full => prop_assert!(mask.contains(&true) && candidates.is_empty()),
                        Pick::NoPools => prop_assert!(!mask.contains(&true)),
                    }
                }
                AllocateOp::Allocate(mask) => {
                    let candidates = candidates(&pools, &mask, &space);
                    match own.pick_and_claim(&pools, &space, |pool| mask[pool], SHARD, LeaseRef(5)) {
                        ClaimedPick::Claimed { address, pool, before } => {
                            prop_assert!(candidates.contains(&(pool, address)));
                            prop_assert_eq!(before, Claimed::Fresh);
                        }
                        ClaimedPick::Full => prop_assert!(mask.contains(&true) && candidates.is_empty()),
                        ClaimedPick::NoPools => prop_assert!(!mask.contains(&true)),
                    }
                }
                AllocateOp::Take(at) => drop(space.claim(ip(BASE + at), SHARD, LeaseRef(5))),
                AllocateOp::Free(at) => {
                    if space.release(ip(BASE + at), SHARD, LeaseRef(5)) {
                        own.freed(&pools, ip(BASE + at));
                    }
                }
                AllocateOp::Reserve(at, on) => space.set_reserved(ip(BASE + at), on),
            }
        }
    }
}

fn candidates(pools: &[PoolRange], mask: &[bool], space: &AddressSpace) -> BTreeSet<(usize, Ipv4Addr)> {
    let of_pool = |pool: usize| {
        (pools[pool].first.to_bits()..=pools[pool].last.to_bits()).map(move |address| (pool, ip(address)))
    };
    (0..pools.len())
        .filter(|pool| mask[*pool])
        .flat_map(of_pool)
        .filter(|(_, address)| space.is_available(*address))
        .collect()
}

#[test]
fn shards_that_share_pools_hand_out_every_address_once() {
    for kind in [AllocatorKind::Iterative, AllocatorKind::Random, AllocatorKind::Flq] {
        for shard_count in [1_usize, 2, 4] {
            let pools = ranges(&[(0, 999), (2000, 2500), (4000, 4002)]);
            let space = AddressSpace::new(64);
            space.ensure(ip(BASE), ip(BASE + 5000)).expect("room");
            let mut given: Vec<Ipv4Addr> = Vec::new();
            std::thread::scope(|scope| {
                let threads: Vec<_> = (0..shard_count)
                    .map(|shard| {
                        let (pools, space) = (&pools, &space);
                        let shard = ShardId(u8::try_from(shard).expect("small"));
                        let start = Start::of_shard(9, shard, shard_count, aplomado::allocate::Share::Whole);
                        scope.spawn(move || {
                            let mut own = Allocator::new(kind, pools, start);
                            std::iter::from_fn(|| {
                                match own.pick_and_claim(pools, space, |_| true, shard, LeaseRef(1)) {
                                    ClaimedPick::Claimed { address, .. } => Some(address),
                                    ClaimedPick::Full => None,
                                    ClaimedPick::NoPools => panic!("there are pools"),
                                }
                            })
                            .collect::<Vec<_>>()
                        })
                    })
                    .collect();
                for thread in threads {
                    given.extend(thread.join().expect("the shard ended well"));
                }
            });
            given.sort_unstable();
            let all: Vec<_> =
                pools.iter().flat_map(|pool| pool.first.to_bits()..=pool.last.to_bits()).map(ip).collect();
            assert_eq!(given, all, "{kind:?} with {shard_count} shards");
        }
    }
}

#[test]
fn flq_gives_what_has_been_free_longest() {
    let pools = ranges(&[(0, 9)]);
    let space = AddressSpace::new(1);
    space.ensure(ip(BASE), ip(BASE)).expect("one block");
    let mut own = Allocator::new(AllocatorKind::Flq, &pools, Start::default());
    let claim = |own: &mut Allocator| match own.pick_and_claim(&pools, &space, |_| true, SHARD, LeaseRef(1)) {
        ClaimedPick::Claimed { address, .. } => address,
        other => panic!("{other:?}"),
    };
    for _ in 0..10 {
        claim(&mut own);
    }
    // What was offered on the way lies in the queue, taken by now: it is passed over.
    for octet in [3, 7, 1, 9] {
        assert!(space.release(ip(BASE + octet), SHARD, LeaseRef(1)));
        own.freed(&pools, ip(BASE + octet));
    }
    let mut given = BTreeSet::new();
    for _ in 0..4 {
        given.insert(claim(&mut own));
    }
    assert_eq!(given, [1, 3, 7, 9].map(|octet| ip(BASE + octet)).into());
}

#[test]
fn the_halves_of_a_pair_and_their_shards_start_apart() {
    use aplomado::allocate::Share;
    let mut starts = BTreeSet::new();
    for share in [Share::Lower, Share::Upper] {
        for shard in 0..4 {
            starts.insert(Start::of_shard(1, ShardId(shard), 4, share).position);
        }
    }
    let eighth = u32::MAX / 8 + 1;
    assert_eq!(starts, (0..8).map(|slice| slice * eighth).collect());
    assert_eq!(Start::of_shard(1, ShardId(0), 1, Share::Whole), Start { position: 0, seed: 1 });
}

// The park.

#[derive(Clone, Copy, Debug)]
enum ParkOp {
    Park { joins: u64, peers: u8, lease: u32 },
    Mark(usize, u64),
    Await(u8),
    Fail(u64, u8),
}

fn park_ops() -> impl Strategy<Value = ParkOp> {
    prop_oneof![
        6 => (select(vec![0_u64, 0, 0, 1, 5]), 0..4_u8, 0..4_u32)
            .prop_map(|(joins, peers, lease)| ParkOp::Park { joins, peers, lease }),
        4 => (0..3_usize, 0..6_u64).prop_map(|(mark, by)| ParkOp::Mark(mark, by)),
        1 => (0..4_u8).prop_map(ParkOp::Await),
        2 => (0..8_u64, 0..2_u8).prop_map(|(back, peer)| ParkOp::Fail(back, peer)),
    ]
}

fn gate_of(peers: u8) -> Gate {
    let gate = if peers & 1 != 0 { Gate::DISK.and_peer(PeerId(0)) } else { Gate::DISK };
    if peers & 2 != 0 { gate.and_peer(PeerId(1)) } else { gate }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Waiting {
    frame: u32,
    lsn: u64,
    peers: u8,
    lease: u32,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn park_does_what_two_lists_do(ops in vec(park_ops(), 1..300)) {
        const COUNTS_MAX: [usize; 2] = [12, 7];
        let mut park = Park::new(COUNTS_MAX[0], COUNTS_MAX[1]);
        let mut lists: [Vec<Option<Waiting>>; 2] = [vec![], vec![]];
        let (mut lsn, mut marks, mut awaited) = (1_u64, [0_u64; 3], 3_u8);
        for (op, frame) in ops.into_iter().zip(0_u32..) {
            match op {
                ParkOp::Park { joins, peers, lease } => {
                    lsn += u64::from(joins == 0);
                    let waiting = Waiting { frame, lsn: lsn.saturating_sub(joins), peers, lease };
                    let list = &mut lists[usize::from(peers != 0)];
                    let full = list.len() == COUNTS_MAX[usize::from(peers != 0)];
                    let parked = park.park(frame, Lsn(waiting.lsn), gate_of(peers), LeaseRef(lease));
                    prop_assert_eq!(parked.is_err(), full);
                    if let Err(refused) = parked {
                        prop_assert_eq!((refused.frame, refused.by_peers), (frame, peers != 0));
                    } else {
                        list.push(Some(waiting));
                    }
                }
                ParkOp::Mark(mark, by) => marks[mark] = (marks[mark] + by).min(lsn),
                ParkOp::Await(peers) => awaited = peers,
                ParkOp::Fail(back, peer) => {
                    let at = lsn.saturating_sub(back);
                    let mut dropped = Vec::new();
                    park.fail(Lsn(at), PeerId(peer), |parked| dropped.push(parked.frame));
                    let expected = take(&mut lists[1], |one| one.lsn == at && one.peers & 1 << peer != 0);
                    prop_assert_eq!(dropped, expected);
                }
            }
            let mut read = Marks::default();
            read.set_disk(Lsn(marks[0]));
            read.set_peer(PeerId(0), Lsn(marks[1]));
            read.set_peer(PeerId(1), Lsn(marks[2]));
            let mut left = Vec::new();
            park.release(&read, gate_of(awaited), |parked| left.push((parked.frame, parked.lsn.0, parked.lease.0)));
            let mut expected = Vec::new();
            for list in &mut lists {
                while let Some(front) = list.first() {
                    if let Some(one) = front {
                        let open = |bit: usize| {
                            one.peers & awaited & 1 << (bit - 1) == 0 || marks[bit] >= one.lsn
                        };
                        if marks[0] < one.lsn || !open(1) || !open(2) {
                            break;
                        }
                        expected.push((one.frame, one.lsn, one.lease));
                    }
                    list.remove(0);
                }
            }
            prop_assert_eq!(left, expected);
            let live = |list: &[Option<Waiting>]| list.iter().flatten().count();
            prop_assert_eq!((park.disk_count(), park.peers_count()), (live(&lists[0]), live(&lists[1])));
        }
    }
}

fn take(list: &mut [Option<Waiting>], which: impl Fn(&Waiting) -> bool) -> Vec<u32> {
    list.iter_mut().filter_map(|slot| slot.take_if(|one| which(one))).map(|one| one.frame).collect()
}
