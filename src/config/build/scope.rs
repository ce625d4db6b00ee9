//! What the global scope, networks and subnets share, and how the inner ones inherit it.

use std::net::Ipv4Addr;

use super::{Builder, Fields};
use crate::config::finding::Style;
use crate::config::json::{Map, Placed, Span};
use crate::config::tree::{
    Allocator, DdnsSettings, HostnameChar, ReplaceClientName, ScopeSettings, Settings, Triplet,
    TripletSettings,
};

/// Longest `server-hostname`: the field `sname` less its final zero.
const SERVER_HOSTNAME_BYTES_MAX: usize = 63;
/// Longest `boot-file-name`: the field `file`. Kea speaks of 127 and takes 128.
const BOOT_FILE_NAME_BYTES_MAX: usize = 128;

/// What holds in a scope and what its lifetimes were written as: inner scopes inherit member by member.
#[derive(Clone)]
pub(super) struct Inherited {
    pub(super) settings: Settings,
    lifetimes: TripletSettings,
}

impl Builder<'_> {
    /// What `map` wrote itself.
    pub(super) fn scope_settings(&mut self, map: &Map) -> ScopeSettings {
        let (global, in_subnet, out_of_pool) = self.reservation_flags(map);
        ScopeSettings {
            valid_lifetime: Self::lifetimes(map),
            renew_timer_s: map.number("renew-timer"),
            rebind_timer_s: map.number("rebind-timer"),
            calculate_tee_times: map.flag("calculate-tee-times"),
            t1_percent: map.fraction("t1-percent"),
            t2_percent: map.fraction("t2-percent"),
            match_client_id: map.flag("match-client-id"),
            authoritative: map.flag("authoritative"),
            next_server: self.next_server(map),
            // An empty name is none: what holds outside holds here too.
            server_hostname: self.server_hostname(map).filter(|name| !name.is_empty()),
            boot_file_name: self.boot_file_name(map).filter(|name| !name.is_empty()),
            store_extended_info: map.flag("store-extended-info"),
            cache_threshold: self.cache_threshold(map),
            cache_max_age_s: map.number("cache-max-age"),
            adaptive_lease_time_threshold: self.adaptive_threshold(map),
            allocator: map.find("allocator").and_then(|value| match value.as_text()? {
                "iterative" => Some(Allocator::Iterative),
                "random" => Some(Allocator::Random),
                "flq" => Some(Allocator::Flq),
                _ => None,
            }),
            offer_lifetime_s: map.number("offer-lifetime"),
            reservations_global: global,
            reservations_in_subnet: in_subnet,
            reservations_out_of_pool: out_of_pool,
            hostname_char: self.hostname_char(map),
            ddns: self.ddns_settings(map),
        }
    }

    /// What holds at the global scope.
    pub(super) fn global_settings(&mut self, map: &Map, own: &ScopeSettings) -> Inherited {
        let lifetimes = TripletSettings { default: Some(7200), ..TripletSettings::default() };
        let outer = Inherited { settings: Settings::default(), lifetimes };
        self.resolve(map, Span::default(), own, &outer)
    }

    /// What holds in the scope `map` at `at`, which lies in `outer`. What the scope itself made wrong is reported;
    /// what it merely inherited has been.
    pub(super) fn resolve(
        &mut self,
        map: &Map,
        at: Span,
        own: &ScopeSettings,
        outer: &Inherited,
    ) -> Inherited {
        let up = &outer.settings;
        let lifetimes = TripletSettings {
            min: own.valid_lifetime.min.or(outer.lifetimes.min),
            default: own.valid_lifetime.default.or(outer.lifetimes.default),
            max: own.valid_lifetime.max.or(outer.lifetimes.max),
        };
        let wrote = |keys: &[&str]| keys.iter().find_map(|key| map.find(key)).map(|value| value.at);
        let written = wrote(&["min-valid-lifetime", "max-valid-lifetime", "valid-lifetime"]);
        let valid_lifetime = match (written, triplet(lifetimes)) {
            (_, Ok(triplet)) => triplet,
            (Some(at), Err(text)) => {
                self.scope_error(at, Style::Bare, &text);
                up.valid_lifetime
            }
            (None, Err(_)) => up.valid_lifetime,
        };
        let ddns = &own.ddns;
        let settings = Settings {
            valid_lifetime,
            renew_timer_s: own.renew_timer_s.or(up.renew_timer_s),
            rebind_timer_s: own.rebind_timer_s.or(up.rebind_timer_s),
            calculate_tee_times: own.calculate_tee_times.unwrap_or(up.calculate_tee_times),
            t1_percent: own.t1_percent.unwrap_or(up.t1_percent),
            t2_percent: own.t2_percent.unwrap_or(up.t2_percent),
            match_client_id: own.match_client_id.unwrap_or(up.match_client_id),
            authoritative: own.authoritative.unwrap_or(up.authoritative),
            next_server: own.next_server.unwrap_or(up.next_server),
            server_hostname: own.server_hostname.as_ref().unwrap_or(&up.server_hostname).clone(),
            boot_file_name: own.boot_file_name.as_ref().unwrap_or(&up.boot_file_name).clone(),
            store_extended_info: own.store_extended_info.unwrap_or(up.store_extended_info),
            cache_threshold: own.cache_threshold.unwrap_or(up.cache_threshold),
            cache_max_age_s: own.cache_max_age_s.or(up.cache_max_age_s),
            adaptive_lease_time_threshold: own
                .adaptive_lease_time_threshold
                .or(up.adaptive_lease_time_threshold),
            allocator: own.allocator.unwrap_or(up.allocator),
            offer_lifetime_s: own.offer_lifetime_s.unwrap_or(up.offer_lifetime_s),
            reservations_global: own.reservations_global.unwrap_or(up.reservations_global),
            reservations_in_subnet: own.reservations_in_subnet.unwrap_or(up.reservations_in_subnet),
            reservations_out_of_pool: own.reservations_out_of_pool.unwrap_or(up.reservations_out_of_pool),
            hostname_char_set: own.hostname_char.set.as_ref().unwrap_or(&up.hostname_char_set).clone(),
            hostname_char_replacement: own
                .hostname_char
                .replacement
                .as_ref()
                .unwrap_or(&up.hostname_char_replacement)
                .clone(),
            ddns_send_updates: ddns.send_updates.unwrap_or(up.ddns_send_updates),
            ddns_override_no_update: ddns.override_no_update.unwrap_or(up.ddns_override_no_update),
            ddns_override_client_update: ddns
                .override_client_update
                .unwrap_or(up.ddns_override_client_update),
            ddns_replace_client_name: ddns.replace_client_name.unwrap_or(up.ddns_replace_client_name),
            ddns_generated_prefix: ddns
                .generated_prefix
                .as_ref()
                .unwrap_or(&up.ddns_generated_prefix)
                .clone(),
            ddns_qualifying_suffix: ddns
                .qualifying_suffix
                .as_ref()
                .unwrap_or(&up.ddns_qualifying_suffix)
                .clone(),
            ddns_update_on_renew: ddns.update_on_renew.unwrap_or(up.ddns_update_on_renew),
        };
        if let Some(at) = wrote(&["renew-timer", "rebind-timer"]) {
            self.check_timers(at, &settings);
        }
        if let Some(place) = wrote(&["t1-percent", "t2-percent", "calculate-tee-times"])
            && settings.calculate_tee_times
        {
            self.check_percents(if place == Span::default() { at } else { place }, &settings);
        }
        Inherited { settings, lifetimes }
    }

    fn check_timers(&mut self, at: Span, settings: &Settings) {
        if let (Some(renew), Some(rebind)) = (settings.renew_timer_s, settings.rebind_timer_s)
            && renew > rebind
        {
            let text = format!(
                "the value of renew-timer ({renew}) is greater than the value of rebind-timer ({rebind})"
            );
            self.warning(at, text);
        }
    }

    fn check_percents(&mut self, at: Span, settings: &Settings) {
        let (t1, t2) = (settings.t1_percent, settings.t2_percent);
        let inside = |fraction: f64| fraction > 0.0 && fraction < 1.0;
        if !inside(t1) {
            self.scope_error(
                at,
                Style::Bare,
                &format!("t1-percent:  {t1} is invalid it must be greater than 0.0 and less than 1.0"),
            );
        } else if !inside(t2) {
            self.scope_error(
                at,
                Style::Bare,
                &format!("t2-percent:  {t2} is invalid, it must be greater than 0.0 and less than 1.0"),
            );
        } else if t1 >= t2 {
            self.scope_error(
                at,
                Style::Bare,
                &format!("t1-percent:  {t1} is invalid, it must be less than t2-percent: {t2}"),
            );
        }
    }

    pub(super) fn lifetimes(map: &Map) -> TripletSettings {
        TripletSettings {
            min: map.number("min-valid-lifetime"),
            default: map.number("valid-lifetime"),
            max: map.number("max-valid-lifetime"),
        }
    }

    fn reservation_flags(&mut self, map: &Map) -> (Option<bool>, Option<bool>, Option<bool>) {
        let flags = (
            map.flag("reservations-global"),
            map.flag("reservations-in-subnet"),
            map.flag("reservations-out-of-pool"),
        );
        let Some(mode) = map.find("reservation-mode") else {
            return flags;
        };
        if flags != (None, None, None) {
            self.scope_error(
                mode.at,
                Style::Bare,
                "invalid use of both 'reservation-mode' and one of 'reservations-global', \
                 'reservations-in-subnet' or 'reservations-out-of-pool' parameters",
            );
            return flags;
        }
        let (global, in_subnet, out_of_pool) = match mode.as_text() {
            Some("all") => (false, true, Some(false)),
            Some("out-of-pool") => (false, true, Some(true)),
            Some("global") => (true, false, None),
            Some("disabled") => (false, false, None),
            _ => return flags,
        };
        (Some(global), Some(in_subnet), out_of_pool)
    }

    /// `next-server` of the global scope, a network, a subnet or a host.
    pub(super) fn next_server(&mut self, map: &Map) -> Option<Ipv4Addr> {
        let value = map.find("next-server")?;
        let text = value.as_text()?;
        let address = text.parse().ok();
        if address.is_none() {
            // No blank before the place: so Kea prints it.
            let text = format!("invalid parameter next-server : {text}({})", self.report.place(value.at));
            self.scope_error(value.at, Style::Bare, &text);
        }
        address
    }

    pub(super) fn server_hostname(&mut self, map: &Map) -> Option<String> {
        self.bounded(map, "server-hostname", SERVER_HOSTNAME_BYTES_MAX, SERVER_HOSTNAME_BYTES_MAX)
    }

    pub(super) fn boot_file_name(&mut self, map: &Map) -> Option<String> {
        self.bounded(map, "boot-file-name", BOOT_FILE_NAME_BYTES_MAX, BOOT_FILE_NAME_BYTES_MAX - 1)
    }

    fn bounded(&mut self, map: &Map, key: &str, bytes_max: usize, said: usize) -> Option<String> {
        let value = map.find(key)?;
        let text = value.as_text()?;
        if text.len() > bytes_max {
            let bytes = text.len();
            let text = format!("{key} must be at most {said} bytes long, it is {bytes}");
            self.scope_error(value.at, Style::After, &text);
            return None;
        }
        Some(text.to_owned())
    }

    fn cache_threshold(&mut self, map: &Map) -> Option<f64> {
        let threshold = map.fraction("cache-threshold")?;
        if (0.0..1.0).contains(&threshold) {
            return Some(threshold);
        }
        let at = map.find("cache-threshold").map_or_else(Span::default, |value| value.at);
        self.error(
            at,
            format!("cache-threshold: {threshold} is invalid, it must be at least 0.0 and less than 1.0"),
        );
        None
    }

    fn adaptive_threshold(&mut self, map: &Map) -> Option<f64> {
        let threshold = map.fraction("adaptive-lease-time-threshold")?;
        if threshold > 0.0 && threshold <= 1.0 {
            return Some(threshold);
        }
        let at = map.find("adaptive-lease-time-threshold").map_or_else(Span::default, |value| value.at);
        let text = format!(
            "adaptive-lease-time-threshold: {threshold} is invalid, it must be greater than 0.0 and at most 1.0"
        );
        self.error(at, text);
        None
    }

    pub(super) fn hostname_char(&mut self, map: &Map) -> HostnameChar {
        let set = map.placed("hostname-char-set").and_then(|set| self.tried(set));
        HostnameChar { set, replacement: map.string("hostname-char-replacement") }
    }

    /// The expression, when it is one.
    fn tried(&mut self, set: Placed<String>) -> Option<String> {
        match crate::expr::Pattern::new(&set.value) {
            Ok(_) => Some(set.value),
            Err(_) => {
                let text = format!("hostname-char-set '{set}' is not a valid regular expression");
                self.error(set.at, text);
                None
            }
        }
    }

    pub(super) fn ddns_settings(&mut self, map: &Map) -> DdnsSettings {
        if let (Some(old), Some(_)) =
            (map.member("ddns-use-conflict-resolution"), map.member("ddns-conflict-resolution-mode"))
        {
            self.error(
                old.key_at,
                "cannot specify both 'ddns-use-conflict-resolution' and 'ddns-conflict-resolution-mode'",
            );
        }
        DdnsSettings {
            send_updates: map.flag("ddns-send-updates"),
            override_no_update: map.flag("ddns-override-no-update"),
            override_client_update: map.flag("ddns-override-client-update"),
            replace_client_name: map
                .string("ddns-replace-client-name")
                .and_then(|word| replace_client_name(&word)),
            generated_prefix: map.string("ddns-generated-prefix"),
            qualifying_suffix: map.string("ddns-qualifying-suffix"),
            update_on_renew: map.flag("ddns-update-on-renew"),
            use_conflict_resolution: map.flag("ddns-use-conflict-resolution"),
            conflict_resolution_mode: map.string("ddns-conflict-resolution-mode"),
            ttl_percent: map.fraction("ddns-ttl-percent"),
            ttl_s: map.number("ddns-ttl"),
            ttl_min_s: map.number("ddns-ttl-min"),
            ttl_max_s: map.number("ddns-ttl-max"),
        }
    }

    /// Members that lived in `dhcp-ddns` up to 2.4 speak for the global `ddns-*` where these are silent.
    pub(super) fn inherit_ddns_legacy(&mut self, map: &Map, own: &mut ScopeSettings) {
        let Some(legacy) = map.child("dhcp-ddns") else {
            return;
        };
        let ddns = &mut own.ddns;
        ddns.qualifying_suffix = ddns.qualifying_suffix.take().or_else(|| legacy.string("qualifying-suffix"));
        ddns.generated_prefix = ddns.generated_prefix.take().or_else(|| legacy.string("generated-prefix"));
        ddns.override_no_update = ddns.override_no_update.or_else(|| legacy.flag("override-no-update"));
        ddns.override_client_update =
            ddns.override_client_update.or_else(|| legacy.flag("override-client-update"));
        ddns.replace_client_name = ddns.replace_client_name.or_else(|| {
            let old = legacy
                .flag("replace-client-name")
                .map(|always| if always { ReplaceClientName::WhenPresent } else { ReplaceClientName::Never });
            old.or_else(|| replace_client_name(&legacy.string("replace-client-name")?))
        });
        let hostname = self.hostname_char(legacy);
        let own = &mut own.hostname_char;
        own.set = own.set.take().or(hostname.set);
        own.replacement = own.replacement.take().or(hostname.replacement);
    }

    /// The guard of a scope: `client-classes`, or the older `client-class`.
    pub(super) fn guards(&mut self, map: &Map) -> Vec<Placed<String>> {
        let Some(old) = map.member("client-class") else {
            return map.texts("client-classes");
        };
        if map.member("client-classes").is_some() {
            self.error(
                old.value.at,
                "cannot specify both 'client-class' and 'client-classes'. Use only the latter.",
            );
        }
        map.placed("client-class").into_iter().filter(|class| !class.value.is_empty()).collect()
    }

    /// `evaluate-additional-classes`, or the older `require-client-classes`.
    pub(super) fn additional_classes(&mut self, map: &Map) -> Vec<Placed<String>> {
        let Some(old) = map.member("require-client-classes") else {
            return map.texts("evaluate-additional-classes");
        };
        if map.member("evaluate-additional-classes").is_some() {
            self.error(
                old.key_at,
                "cannot specify both 'require-client-classes' and 'evaluate-additional-classes'. \
                 Use only the latter.",
            );
        }
        map.texts("require-client-classes")
    }
}

/// The words of `ddns-replace-client-name`.
fn replace_client_name(word: &str) -> Option<ReplaceClientName> {
    match word {
        "never" => Some(ReplaceClientName::Never),
        "always" => Some(ReplaceClientName::Always),
        "when-present" => Some(ReplaceClientName::WhenPresent),
        "when-not-present" => Some(ReplaceClientName::WhenNotPresent),
        _ => None,
    }
}

/// A lifetime with its bounds, or what is wrong with their order.
pub(super) fn triplet(written: TripletSettings) -> Result<Triplet, String> {
    let default = written.default.unwrap_or(7200);
    let triplet =
        Triplet { min: written.min.unwrap_or(default), default, max: written.max.unwrap_or(default) };
    let Triplet { min, max, .. } = triplet;
    match (written.min, written.max) {
        (Some(_), Some(_)) if min > max => Err(format!(
            "the value of min-valid-lifetime ({min}) is not less than max-valid-lifetime ({max})"
        )),
        (Some(_), Some(_)) if default < min || default > max => Err(format!(
            "the value of (default) valid-lifetime ({default}) is not between min-valid-lifetime ({min}) \
             and max-valid-lifetime ({max})"
        )),
        (Some(_), None) if min > default => Err(format!(
            "the value of min-valid-lifetime ({min}) is not less than (default) valid-lifetime ({default})"
        )),
        (None, Some(_)) if default > max => Err(format!(
            "the value of (default) valid-lifetime ({default}) is not less than max-valid-lifetime ({max})"
        )),
        _ => Ok(triplet),
    }
}
