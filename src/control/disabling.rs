//! Who holds the DHCP service off: a set of origins, each with its own optional timer.
//!
//! The service is on while the set is empty. Origin numbers are those of [`super::server_commands`].

use std::collections::BTreeMap;

use super::server_commands::{ORIGIN_DATABASE, ORIGIN_HA_LOCAL, ORIGIN_HA_REMOTE};
use crate::time::Mono;

/// Most origins kept; a client can invent numbers, so there has to be an end. More are refused by being ignored, the
/// service being off already.
pub const ORIGINS_MAX: usize = 4096;

/// The set of origins that hold the service off.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Disabling {
    /// When the timer of an origin fires, if it has one.
    origins: BTreeMap<u32, Option<Mono>>,
}

impl Disabling {
    /// `origin` takes the service away. With a period its timer starts anew; without, a running timer stays.
    pub fn disable(&mut self, origin: u32, max_period_s: Option<u64>, now: Mono) {
        if self.origins.len() >= ORIGINS_MAX && !self.origins.contains_key(&origin) {
            return;
        }
        let timer = self.origins.entry(origin).or_default();
        if let Some(period_s) = max_period_s {
            *timer = Some(now.plus_ms(period_s.saturating_mul(1000)));
        }
    }

    /// `origin` gives the service back; its timer ends. Whether it was in the set.
    pub fn enable(&mut self, origin: u32) -> bool {
        self.origins.remove(&origin).is_some()
    }

    /// As [`Self::enable`], but only when a timer runs for `origin`: an untimed one was not set by a partner.
    pub fn enable_timed(&mut self, origin: u32) -> bool {
        let timed = self.origins.get(&origin).is_some_and(Option::is_some);
        timed && self.enable(origin)
    }

    /// Removes every origin of HA and of databases: a new configuration starts without them, the user's stays.
    pub fn reconfigured(&mut self) {
        self.origins.retain(|origin, _| *origin < ORIGIN_HA_LOCAL);
    }

    /// Removes the origins of partners.
    pub fn clear_remote(&mut self) {
        self.origins.retain(|origin, _| !(ORIGIN_HA_REMOTE..ORIGIN_DATABASE).contains(origin));
    }

    /// Removes the origins whose timer has fired; returns them.
    pub fn expire(&mut self, now: Mono) -> Vec<u32> {
        let fired: Vec<u32> = self
            .origins
            .iter()
            .filter(|(_, timer)| timer.is_some_and(|at| at <= now))
            .map(|(origin, _)| *origin)
            .collect();
        self.origins.retain(|origin, _| !fired.contains(origin));
        fired
    }

    /// When the next timer fires.
    #[must_use]
    pub fn deadline(&self) -> Option<Mono> {
        self.origins.values().copied().flatten().min()
    }

    /// Whether the service is off.
    #[must_use]
    pub fn is_disabled(&self) -> bool {
        !self.origins.is_empty()
    }

    /// Whether `origin` holds it off.
    #[must_use]
    pub fn contains(&self, origin: u32) -> bool {
        self.origins.contains_key(&origin)
    }

    /// The origins, ascending.
    pub fn origins(&self) -> impl Iterator<Item = u32> + '_ {
        self.origins.keys().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(s: u64) -> Mono {
        Mono(s * 1_000_000_000)
    }

    #[test]
    fn the_service_is_on_when_the_last_origin_has_given_it_back() {
        let mut disabling = Disabling::default();
        disabling.disable(1, None, at(0));
        disabling.disable(2000, None, at(0));
        assert!(disabling.enable(1));
        assert!(disabling.is_disabled());
        assert!(!disabling.enable(1));
        assert!(disabling.enable(2000));
        assert!(!disabling.is_disabled());
    }

    #[test]
    fn a_timer_removes_its_own_origin_only_and_a_repeat_without_period_leaves_it_running() {
        let mut disabling = Disabling::default();
        disabling.disable(2000, Some(10), at(0));
        disabling.disable(2001, Some(20), at(0));
        disabling.disable(1, None, at(0));
        disabling.disable(2000, None, at(5));
        assert_eq!(disabling.deadline(), Some(at(10)));
        assert!(disabling.expire(at(9)).is_empty());
        assert_eq!(disabling.expire(at(10)), [2000]);
        disabling.disable(2001, Some(20), at(10));
        assert!(disabling.expire(at(20)).is_empty());
        assert_eq!(disabling.expire(at(30)), [2001]);
        assert_eq!(disabling.origins().collect::<Vec<_>>(), [1]);
    }

    #[test]
    fn a_new_configuration_clears_ha_and_databases_but_not_the_user() {
        let mut disabling = Disabling::default();
        for origin in [1, 1000, 2000, 3000] {
            disabling.disable(origin, None, at(0));
        }
        disabling.reconfigured();
        assert_eq!(disabling.origins().collect::<Vec<_>>(), [1]);
        assert!(!disabling.enable_timed(1));
        disabling.disable(1, Some(1), at(0));
        assert!(disabling.enable_timed(1));
    }

    #[test]
    fn invented_origins_do_not_pile_up_and_no_period_overflows() {
        let mut disabling = Disabling::default();
        for origin in 0..10_000 {
            disabling.disable(origin, Some(u64::MAX), at(u64::MAX / 2_000_000_000));
        }
        assert_eq!(disabling.origins().count(), ORIGINS_MAX);
    }
}
