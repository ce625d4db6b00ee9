//! Statistics under Kea's names: series of samples over counters that the shards keep, and the commands on them.
//!
//! Shards count without names and without clocks. When somebody asks, the counters are summed into a [`Snapshot`] and
//! every series whose value has changed gets a sample with the time of asking: a list of samples holds what was seen
//! when it was looked at. A reset is remembered as an offset, a removal as hidden until the counter moves again.
//!
//! Bounds: a series keeps at most [`SAMPLES_MAX`] samples.

mod commands;
mod counters;
mod series;

use std::collections::BTreeMap;

pub use commands::{register, sample};
pub use counters::{PoolCounter, PortCounter, ServerCounter, Snapshot, SubnetCounter, SubnetSample};
use series::{Retention, Series};

use super::clock::Zone;
use super::json;
use crate::ids::SubnetId;
use crate::wire::drop::DropReason;

/// Most samples that a series keeps, whatever count or age is set.
pub const SAMPLES_MAX: usize = 1000;
/// Samples kept per series unless set otherwise.
pub const SAMPLE_COUNT_DEFAULT: u32 = 20;

/// Before the own name of a [`DropReason`], whose counter is shown from when it first moves on.
const DROP: &str = "drop-";

#[derive(Clone, Debug)]
struct SubnetSeries {
    values: Vec<Series>,
    pools: BTreeMap<u32, Vec<Series>>,
}

/// Which series a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Name<'n> {
    Server(usize),
    Drop(usize),
    Port(usize),
    Interface(&'n str, usize),
    Subnet(u32, usize),
    Pool(u32, u32, usize),
}

impl<'n> Name<'n> {
    fn parse(text: &'n str) -> Option<Self> {
        let Some(rest) = text.strip_prefix("subnet[") else {
            if let Some(name) = text.strip_prefix(DROP) {
                return DropReason::ALL.iter().position(|reason| reason.name() == name).map(Self::Drop);
            }
            if let Some(port) = PortCounter::ALL.iter().position(|counter| counter.name() == text) {
                return Some(Self::Port(port));
            }
            if let Some(rest) = text.strip_prefix("interface[") {
                let (interface, name) = rest.split_once("].")?;
                let counter = PortCounter::ALL.iter().position(|counter| counter.name() == name)?;
                return Some(Self::Interface(interface, counter));
            }
            return ServerCounter::ALL.iter().position(|counter| counter.name() == text).map(Self::Server);
        };
        let (id, rest) = rest.split_once("].")?;
        let id = decimal(id)?;
        let Some(rest) = rest.strip_prefix("pool[") else {
            let counter = SubnetCounter::ALL.iter().position(|counter| counter.name() == rest)?;
            return Some(Self::Subnet(id, counter));
        };
        let (pool_id, rest) = rest.split_once("].")?;
        let counter = PoolCounter::ALL.iter().position(|counter| counter.name() == rest)?;
        Some(Self::Pool(id, decimal(pool_id)?, counter))
    }
}

/// A number as names carry it: no sign, no leading zero.
fn decimal(text: &str) -> Option<u32> {
    let number: u32 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}

/// All series of a server.
#[derive(Clone, Debug)]
pub struct Statistics {
    server: Vec<Series>,
    drops: Vec<Series>,
    ports: Vec<Series>,
    interfaces: BTreeMap<String, Vec<Series>>,
    subnets: BTreeMap<u32, SubnetSeries>,
    latest: Snapshot,
    count_default: u32,
    age_default_s: u64,
    retention_default: Retention,
    /// For the times of samples.
    zone: Zone,
}

impl Default for Statistics {
    fn default() -> Self {
        Self::new()
    }
}

impl Statistics {
    /// Series without samples.
    #[must_use]
    pub fn new() -> Self {
        let retention = Retention::Count(SAMPLE_COUNT_DEFAULT);
        Self {
            server: vec![Series::new(retention); ServerCounter::COUNT],
            drops: vec![Series::new(retention); DropReason::COUNT],
            ports: vec![Series::new(retention); PortCounter::COUNT],
            interfaces: BTreeMap::new(),
            subnets: BTreeMap::new(),
            latest: Snapshot::default(),
            count_default: SAMPLE_COUNT_DEFAULT,
            age_default_s: 0,
            retention_default: retention,
            zone: Zone::utc(),
        }
    }

    /// Sets what `statistic-default-sample-count` and `-age` (seconds, 0: by count) say; affects all series.
    pub fn configure(&mut self, sample_count: u32, sample_age_s: u64) {
        self.count_default = sample_count;
        self.age_default_s = sample_age_s;
        self.retention_default = if sample_age_s > 0 {
            Retention::AgeUs(sample_age_s.saturating_mul(1_000_000))
        } else {
            Retention::Count(sample_count.max(1))
        };
        let retention = self.retention_default;
        self.each(|series| series.retention = retention);
    }

    /// The defaults now in force, as `config-get` shows them: sample count, sample age in seconds.
    #[must_use]
    pub const fn defaults(&self) -> (u32, u64) {
        (self.count_default, self.age_default_s)
    }

    /// Sets the zone in which the times of samples are shown (universal time unless set).
    pub fn set_zone(&mut self, zone: Zone) {
        self.zone = zone;
    }

    /// Takes the counters of `snapshot` as samples of `now_us`; subnets and pools that are not in it any more go.
    pub fn observe(&mut self, snapshot: Snapshot, now_us: u64) {
        let retention = self.retention_default;
        for (series, raw) in self.server.iter_mut().zip(snapshot.server) {
            series.observe(raw, now_us);
        }
        let own = self.drops.iter_mut().zip(snapshot.drops).chain(self.ports.iter_mut().zip(snapshot.ports));
        for (series, raw) in own.filter(|(_, raw)| *raw > 0) {
            series.observe(raw, now_us);
        }
        for (name, counts) in &snapshot.interfaces {
            if !self.interfaces.contains_key(name) {
                self.interfaces.insert(name.clone(), vec![Series::new(retention); PortCounter::COUNT]);
            }
            let series = self.interfaces.get_mut(name).into_iter().flatten();
            for (series, raw) in series.zip(counts).filter(|(_, raw)| **raw > 0) {
                series.observe(*raw, now_us);
            }
        }
        let mut before = std::mem::take(&mut self.subnets);
        for sample in &snapshot.subnets {
            let mut subnet = before.remove(&sample.id.0).unwrap_or_else(|| SubnetSeries {
                values: vec![Series::new(retention); SubnetCounter::COUNT],
                pools: BTreeMap::new(),
            });
            for (series, raw) in subnet.values.iter_mut().zip(sample.values) {
                series.observe(raw, now_us);
            }
            let mut pools_before = std::mem::take(&mut subnet.pools);
            for (pool_id, values) in &sample.pools {
                let mut pool = pools_before
                    .remove(pool_id)
                    .unwrap_or_else(|| vec![Series::new(retention); PoolCounter::COUNT]);
                for (series, raw) in pool.iter_mut().zip(values) {
                    series.observe(*raw, now_us);
                }
                subnet.pools.insert(*pool_id, pool);
            }
            self.subnets.insert(sample.id.0, subnet);
        }
        self.latest = snapshot;
    }

    /// Forgets resets and removals of what was counted anew (all but packet counters): after a reconfiguration, when these are the counters.
    /// What subnets and pools count from one configuration to the next begins at zero, as in Kea.
    pub fn recounted(&mut self, snapshot: Snapshot, now_us: u64) {
        self.recount();
        self.observe(snapshot, now_us);
        for sample in &self.latest.subnets {
            let Some(subnet) = self.subnets.get_mut(&sample.id.0) else { continue };
            for counter in [
                SubnetCounter::CumulativeAssigned,
                SubnetCounter::Reclaimed,
                SubnetCounter::ReclaimedDeclined,
            ] {
                subnet.values[counter.index()].reset(sample.values[counter.index()], now_us);
            }
            for (pool_id, values) in &sample.pools {
                let Some(pool) = subnet.pools.get_mut(pool_id) else { continue };
                for counter in
                    [PoolCounter::CumulativeAssigned, PoolCounter::Reclaimed, PoolCounter::ReclaimedDeclined]
                {
                    pool[counter.index()].reset(values[counter.index()], now_us);
                }
            }
        }
    }

    /// The leases of this subnet, or of all, were wiped: how many there are counts again, whatever was reset before.
    pub fn wiped(&mut self, subnet: Option<SubnetId>) {
        let wiped = self.subnets.iter_mut().filter(|(id, _)| subnet.is_none_or(|subnet| subnet.0 == **id));
        for (_, series) in wiped {
            for counter in [SubnetCounter::Assigned, SubnetCounter::Declined] {
                series.values[counter.index()].forget_reset();
            }
            for pool in series.pools.values_mut() {
                for counter in [PoolCounter::Assigned, PoolCounter::Declined] {
                    pool[counter.index()].forget_reset();
                }
            }
        }
    }

    fn recount(&mut self) {
        self.subnets
            .values_mut()
            .flat_map(|subnet| subnet.values.iter_mut().chain(subnet.pools.values_mut().flatten()))
            .for_each(Series::forget_reset);
        self.server[ServerCounter::Assigned.index()..].iter_mut().for_each(Series::forget_reset);
    }

    /// The counters last observed.
    #[must_use]
    pub const fn latest(&self) -> &Snapshot {
        &self.latest
    }

    fn each(&mut self, act: impl FnMut(&mut Series)) {
        self.server
            .iter_mut()
            .chain(&mut self.drops)
            .chain(&mut self.ports)
            .chain(self.interfaces.values_mut().flatten())
            .chain(
                self.subnets
                    .values_mut()
                    .flat_map(|subnet| subnet.values.iter_mut().chain(subnet.pools.values_mut().flatten())),
            )
            .for_each(act);
    }

    /// The series of `name` with its counter's value, when it is there.
    fn find(&mut self, name: &str) -> Option<(&mut Series, u64)> {
        let (series, raw) = match Name::parse(name)? {
            Name::Server(index) => (self.server.get_mut(index)?, self.latest.server[index]),
            Name::Drop(index) => (self.drops.get_mut(index)?, self.latest.drops[index]),
            Name::Port(index) => (self.ports.get_mut(index)?, self.latest.ports[index]),
            Name::Interface(name, index) => {
                let (_, counts) = self.latest.interfaces.iter().find(|(known, _)| known == name)?;
                (self.interfaces.get_mut(name)?.get_mut(index)?, counts[index])
            }
            Name::Subnet(id, index) => {
                let sample = self.latest.subnets.iter().find(|sample| sample.id.0 == id)?;
                (self.subnets.get_mut(&id)?.values.get_mut(index)?, sample.values[index])
            }
            Name::Pool(id, pool_id, index) => {
                let sample = self.latest.subnets.iter().find(|sample| sample.id.0 == id)?;
                let values = &sample.pools.iter().find(|pool| pool.0 == pool_id)?.1;
                (self.subnets.get_mut(&id)?.pools.get_mut(&pool_id)?.get_mut(index)?, values[index])
            }
        };
        series.is_there().then_some((series, raw))
    }

    /// Does `act` to every series with its counter's value.
    fn each_with_raw(&mut self, mut act: impl FnMut(&mut Series, u64)) {
        for (series, raw) in self.server.iter_mut().zip(self.latest.server) {
            act(series, raw);
        }
        let latest = &self.latest;
        let own = self.drops.iter_mut().zip(latest.drops).chain(self.ports.iter_mut().zip(latest.ports));
        for (series, raw) in own.filter(|(series, _)| !series.samples.is_empty()) {
            act(series, raw);
        }
        for (name, counts) in &latest.interfaces {
            let series = self.interfaces.get_mut(name).into_iter().flatten();
            for (series, raw) in series.zip(counts).filter(|(series, _)| !series.samples.is_empty()) {
                act(series, *raw);
            }
        }
        for sample in &self.latest.subnets {
            let Some(subnet) = self.subnets.get_mut(&sample.id.0) else { continue };
            for (series, raw) in subnet.values.iter_mut().zip(sample.values) {
                act(series, raw);
            }
            for (pool_id, values) in &sample.pools {
                let Some(pool) = subnet.pools.get_mut(pool_id) else { continue };
                for (series, raw) in pool.iter_mut().zip(values) {
                    act(series, *raw);
                }
            }
        }
    }

    /// Prints the map of the series, names sorted; only those of the whole server when `global` is true.
    fn print_all(&self, global: bool, out: &mut Vec<u8>) {
        let mut printer = MapPrinter { out, first: true, zone: &self.zone };
        printer.out.extend_from_slice(b"{ ");
        let drops: Vec<String> =
            DropReason::ALL.iter().map(|reason| format!("{DROP}{}", reason.name())).collect();
        let interfaces: Vec<(String, &Series)> = self
            .interfaces
            .iter()
            .flat_map(|(name, series)| {
                let names = PortCounter::ALL
                    .iter()
                    .map(move |counter| format!("interface[{name}].{}", counter.name()));
                names.zip(series)
            })
            .collect();
        let mut server: Vec<(&str, &Series)> =
            ServerCounter::ALL.iter().map(|counter| counter.name()).zip(&self.server).collect();
        server.extend(drops.iter().map(String::as_str).zip(&self.drops));
        server.extend(PortCounter::ALL.iter().map(|counter| counter.name()).zip(&self.ports));
        server.extend(interfaces.iter().map(|(name, series)| (name.as_str(), *series)));
        server.sort_unstable_by_key(|(name, _)| *name);
        // "subnet[" sorts between the names that begin with "r" and those that begin with "v".
        let split = server.partition_point(|(name, _)| *name < "subnet[");
        for (name, series) in &server[..split] {
            printer.member(name, series);
        }
        if !global {
            let mut subnets: Vec<(String, &SubnetSeries)> =
                self.subnets.iter().map(|(id, subnet)| (format!("subnet[{id}]."), subnet)).collect();
            subnets.sort_unstable_by(|one, other| one.0.cmp(&other.0));
            for (prefix, subnet) in subnets {
                let mut names: Vec<(String, &Series)> = SubnetCounter::ALL
                    .iter()
                    .zip(&subnet.values)
                    .map(|(counter, series)| (format!("{prefix}{}", counter.name()), series))
                    .collect();
                for (pool_id, pool) in &subnet.pools {
                    names.extend(PoolCounter::ALL.iter().zip(pool).map(|(counter, series)| {
                        (format!("{prefix}pool[{pool_id}].{}", counter.name()), series)
                    }));
                }
                names.sort_unstable_by(|one, other| one.0.cmp(&other.0));
                for (name, series) in names {
                    printer.member(&name, series);
                }
            }
        }
        for (name, series) in &server[split..] {
            printer.member(name, series);
        }
        printer.out.extend_from_slice(b" }");
    }
}

struct MapPrinter<'a> {
    out: &'a mut Vec<u8>,
    first: bool,
    zone: &'a Zone,
}

impl MapPrinter<'_> {
    fn member(&mut self, name: &str, series: &Series) {
        if !series.is_there() || series.samples.is_empty() {
            return;
        }
        if !std::mem::take(&mut self.first) {
            self.out.extend_from_slice(b", ");
        }
        json::print_string(name.as_bytes(), self.out);
        self.out.extend_from_slice(b": ");
        series.print(self.zone, self.out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(received: u64, subnets: &[u32]) -> Snapshot {
        let mut snapshot = Snapshot::default();
        snapshot.server[ServerCounter::Received.index()] = received;
        snapshot.subnets = subnets
            .iter()
            .map(|id| SubnetSample {
                id: SubnetId(*id),
                pools: vec![(0, [0; PoolCounter::COUNT])],
                ..Default::default()
            })
            .collect();
        snapshot
    }

    fn values(statistics: &mut Statistics, name: &str) -> Vec<i64> {
        let (series, _) = statistics.find(name).expect("there");
        series.samples.iter().map(|sample| sample.0).collect()
    }

    #[test]
    fn a_change_is_a_sample_and_the_newest_is_first() {
        let mut statistics = Statistics::new();
        for (received, at) in [(0, 1), (5, 2), (5, 3), (9, 4)] {
            statistics.observe(snapshot(received, &[]), at);
        }
        assert_eq!(values(&mut statistics, "pkt4-received"), [9, 5, 0]);
    }

    #[test]
    fn twenty_samples_are_kept_and_the_newest_outlives_every_age() {
        let mut statistics = Statistics::new();
        for received in 0..50 {
            statistics.observe(snapshot(received, &[]), received * 1_000_000);
        }
        assert_eq!(values(&mut statistics, "pkt4-received").len(), 20);
        statistics.configure(0, 5);
        statistics.observe(snapshot(49, &[]), 52_000_000);
        assert_eq!(values(&mut statistics, "pkt4-received"), [49, 48, 47]);
        statistics.observe(snapshot(49, &[]), 1_000_000_000);
        assert_eq!(values(&mut statistics, "pkt4-received"), [49]);
    }

    #[test]
    fn a_reset_counter_goes_on_from_zero_and_a_removed_one_comes_back_when_it_moves() {
        let mut statistics = Statistics::new();
        statistics.observe(snapshot(7, &[]), 1);
        let (series, raw) = statistics.find("pkt4-received").expect("there");
        series.reset(raw, 2);
        statistics.observe(snapshot(10, &[]), 3);
        assert_eq!(values(&mut statistics, "pkt4-received"), [3, 0]);
        let (series, raw) = statistics.find("pkt4-received").expect("there");
        series.remove(raw);
        statistics.observe(snapshot(10, &[]), 4);
        assert!(statistics.find("pkt4-received").is_none());
        statistics.observe(snapshot(12, &[]), 5);
        assert_eq!(values(&mut statistics, "pkt4-received"), [2]);
    }

    #[test]
    fn resets_of_what_is_counted_anew_are_forgotten_and_sums_of_a_configuration_begin_with_it() {
        let mut statistics = Statistics::new();
        let mut counted = snapshot(7, &[1, 2]);
        for subnet in &mut counted.subnets {
            subnet.values = [10; SubnetCounter::COUNT];
            subnet.pools[0].1 = [10; PoolCounter::COUNT];
        }
        statistics.observe(counted.clone(), 1);
        statistics.each_with_raw(|series, raw| series.reset(raw, 2));
        for subnet in &mut counted.subnets {
            subnet.values[SubnetCounter::Assigned.index()] = 0;
        }
        statistics.wiped(Some(SubnetId(2)));
        statistics.observe(counted.clone(), 3);
        assert_eq!(values(&mut statistics, "subnet[2].assigned-addresses")[0], 0, "as many as there are");
        assert_eq!(values(&mut statistics, "subnet[1].assigned-addresses")[0], -10);
        statistics.recounted(counted.clone(), 4);
        assert_eq!(values(&mut statistics, "subnet[1].declined-addresses")[0], 10);
        for name in ["subnet[1].", "subnet[1].pool[0]."] {
            for sum in ["cumulative-assigned-addresses", "reclaimed-leases", "reclaimed-declined-addresses"] {
                assert_eq!(values(&mut statistics, &format!("{name}{sum}"))[0], 0);
            }
        }
        for subnet in &mut counted.subnets {
            subnet.values = [11; SubnetCounter::COUNT];
        }
        statistics.observe(counted, 5);
        assert_eq!(values(&mut statistics, "subnet[1].reclaimed-leases")[0], 1);
        assert_eq!(values(&mut statistics, "pkt4-received")[0], 0, "packets are not counted anew");
    }

    #[test]
    fn counters_that_kea_has_not_are_shown_from_when_they_move() {
        let mut statistics = Statistics::new();
        let mut snapshot = Snapshot::default();
        statistics.observe(snapshot.clone(), 1);
        let all = |statistics: &Statistics| {
            let mut out = Vec::new();
            statistics.print_all(false, &mut out);
            String::from_utf8(out).expect("text")
        };
        assert!(!all(&statistics).contains("drop-") && !all(&statistics).contains("port-"));
        snapshot.drops[DropReason::ShedDiscover.index()] = 7;
        snapshot.ports[PortCounter::DiscoverRingFull.index()] = 9;
        statistics.observe(snapshot.clone(), 2);
        let text = all(&statistics);
        assert!(text.contains("\"drop-shed-discover\": [ [ 7,"), "{text}");
        assert!(text.contains("\"port-discover-ring-full\": [ [ 9,"), "{text}");
        let (series, raw) = statistics.find("port-discover-ring-full").expect("by its name");
        series.reset(raw, 3);
        snapshot.ports[PortCounter::DiscoverRingFull.index()] = 12;
        statistics.observe(snapshot, 4);
        assert!(all(&statistics).contains("\"port-discover-ring-full\": [ [ 3,"));
    }

    #[test]
    fn ports_count_by_interface_too() {
        let mut statistics = Statistics::new();
        let mut snapshot = Snapshot::default();
        let mut counts = [0; PortCounter::COUNT];
        counts[PortCounter::Vlan.index()] = 3;
        snapshot.interfaces =
            vec![("eth0".to_owned(), counts), ("eth1.7".to_owned(), [0; PortCounter::COUNT])];
        statistics.observe(snapshot.clone(), 1);
        let mut out = Vec::new();
        statistics.print_all(true, &mut out);
        let text = String::from_utf8(out).expect("text");
        let (own, total) =
            (text.find("\"interface[eth0].port-vlan\": [ [ 3,"), text.find("\"pkt4-received\""));
        assert!(own.is_some() && own < total, "sorted: {text}");
        assert!(!text.contains("eth1.7"), "it has counted nothing");
        let (series, raw) = statistics.find("interface[eth0].port-vlan").expect("by its name");
        series.reset(raw, 2);
        snapshot.interfaces[0].1[PortCounter::Vlan.index()] = 5;
        statistics.observe(snapshot, 3);
        assert_eq!(values(&mut statistics, "interface[eth0].port-vlan"), [2, 0]);
        for name in ["interface[eth9].port-vlan", "interface[eth0].vlan", "interface[eth0", "interface[]."] {
            assert!(statistics.find(name).is_none(), "{name}");
        }
    }

    #[test]
    fn names_are_keas_and_sorted_and_those_of_removed_subnets_disappear() {
        let mut statistics = Statistics::new();
        statistics.observe(snapshot(1, &[1, 10, 2]), 1);
        let mut out = Vec::new();
        statistics.print_all(false, &mut out);
        let map = json::parse(&out).expect("JSON");
        let names: Vec<String> = map.as_object().expect("a map").keys().cloned().collect();
        let text = String::from_utf8(out).expect("UTF-8");
        let mut from = 0;
        for name in &names {
            from += text[from..].find(&format!("\"{name}\": [")).expect("printed in sorted order") + 1;
        }
        assert!(names.contains(&"subnet[10].pool[0].assigned-addresses".to_owned()));
        assert_eq!(names.len(), ServerCounter::COUNT + 3 * (SubnetCounter::COUNT + PoolCounter::COUNT));
        statistics.observe(snapshot(1, &[2]), 2);
        assert!(statistics.find("subnet[10].total-addresses").is_none());
        assert!(statistics.find("subnet[2].total-addresses").is_some());
        assert!(statistics.find("subnet[02].total-addresses").is_none());
        assert!(statistics.find("subnet[2].pool[0].declined-addresses").is_some());
        assert!(statistics.find("subnet[2].pool[1].declined-addresses").is_none());
    }
}
