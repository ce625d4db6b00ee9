//! Who keeps the DHCP service off: it is on while nobody does.

use std::collections::BTreeMap;

use serde_json::Value;

use super::command::Answer;
use crate::time::{Mono, Now};

/// The administrator, and whoever names no origin.
pub const ORIGIN_USER: u32 = 1;
/// This server's own relationships: this and the relationship's number.
pub const ORIGIN_HA_LOCAL: u32 = 1000;
/// A partner: this and the relationship's number, as the partner counts.
pub const ORIGIN_HA_PARTNER: u32 = 2000;
/// A lease database that is not there; these know no time limit.
pub const ORIGIN_DATABASE: u32 = 3000;
/// Most origins at a time: requests name numbers of their choice.
pub const ORIGINS_MAX: usize = 4096;

/// The origins that keep the service off, each perhaps until some time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceOrigins {
    disabled: BTreeMap<u32, Disabled>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Disabled {
    /// When it was asked for last.
    since: Mono,
    until: Option<Mono>,
}

impl ServiceOrigins {
    /// Whether the service is on.
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        self.disabled.is_empty()
    }

    /// `origin` keeps the service off, for `max_period_s` seconds or until it enables it. Again without a period keeps a running timer.
    ///
    /// # Errors
    /// When there are too many origins already.
    pub fn disable(&mut self, now: Now, origin: u32, max_period_s: Option<u64>) -> Result<(), &'static str> {
        if self.disabled.len() >= ORIGINS_MAX && !self.disabled.contains_key(&origin) {
            return Err("too many origins keep the service disabled");
        }
        let until = max_period_s.map(|period| now.mono.plus_ms(period.saturating_mul(1000)));
        let entry = self.disabled.entry(origin).or_insert(Disabled { since: now.mono, until });
        entry.since = now.mono;
        if until.is_some() {
            entry.until = until;
        }
        Ok(())
    }

    /// `origin` no longer keeps the service off. Others still may.
    pub fn enable(&mut self, origin: u32) {
        self.disabled.remove(&origin);
    }

    /// Whether `origin` keeps the service off.
    #[must_use]
    pub fn is_disabled_by(&self, origin: u32) -> bool {
        self.disabled.contains_key(&origin)
    }

    /// Ends what has lasted its period; true when something of a partner was among it.
    pub fn expire(&mut self, now: Now) -> bool {
        self.retain(|_, entry| entry.until.is_none_or(|until| until > now.mono))
    }

    /// Ends what partners asked for with a period and have not repeated for longer than `silence_ms`: they have died over it.
    /// True when there was something.
    pub fn release_partners(&mut self, now: Now, silence_ms: u64) -> bool {
        self.retain(|origin, entry| {
            !is_partners(origin) || entry.until.is_none() || now.mono.ms_since(entry.since) <= silence_ms
        })
    }

    fn retain(&mut self, keep: impl Fn(u32, &Disabled) -> bool) -> bool {
        let mut partners = false;
        self.disabled.retain(|&origin, entry| {
            let kept = keep(origin, entry);
            partners |= !kept && is_partners(origin);
            kept
        });
        partners
    }

    /// When the next period ends.
    #[must_use]
    pub fn deadline(&self) -> Option<Mono> {
        self.disabled.values().filter_map(|entry| entry.until).min()
    }

    /// The `dhcp-state` of `status-get`.
    #[must_use]
    pub fn status(&self) -> Value {
        let between =
            |from: u32, to: u32| -> Vec<u32> { self.disabled.range(from..to).map(|(&id, _)| id).collect() };
        serde_json::json!({
            "globally-disabled": !self.is_enabled(),
            "disabled-by-user": self.is_disabled_by(ORIGIN_USER),
            "disabled-by-local-command": between(ORIGIN_HA_LOCAL, ORIGIN_HA_PARTNER),
            "disabled-by-remote-command": between(ORIGIN_HA_PARTNER, ORIGIN_DATABASE),
            "disabled-by-db-connection": between(ORIGIN_DATABASE, u32::MAX),
        })
    }
}

const fn is_partners(origin: u32) -> bool {
    origin >= ORIGIN_HA_PARTNER && origin < ORIGIN_DATABASE
}

/// The arguments of `dhcp-disable` and `dhcp-enable`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServiceRequest {
    /// Who asks.
    pub origin: u32,
    /// `max-period`: 1 or more.
    pub max_period_s: Option<u64>,
}

impl ServiceRequest {
    /// Reads the arguments.
    ///
    /// # Errors
    /// The answer (result 1) to give when they are not as they must be.
    pub fn parse(arguments: Option<&Value>) -> Result<Self, Answer> {
        let map = match arguments {
            None => return Ok(Self { origin: ORIGIN_USER, max_period_s: None }),
            Some(Value::Object(map)) => map,
            Some(_) => return Err(Answer::error("arguments for the command must be a map")),
        };
        let max_period_s = match map.get("max-period") {
            None => None,
            Some(value) => match value.as_u64() {
                Some(0) => return Err(Answer::error("'max-period' must be positive integer")),
                Some(period) => Some(period),
                None => return Err(Answer::error("'max-period' argument is not a positive integer")),
            },
        };
        let number = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
        // `origin-id` goes before `origin`.
        let origin = if let Some(value) = map.get("origin-id") {
            number(value).ok_or_else(|| {
                Answer::error("'origin-id' argument must be an integer from 0 to 4294967295")
            })?
        } else {
            match map.get("origin") {
                None => ORIGIN_USER,
                Some(Value::String(text)) => match text.as_str() {
                    "user" => ORIGIN_USER,
                    "ha-partner" => ORIGIN_HA_PARTNER,
                    _ => {
                        return Err(Answer::error(format!(
                            "invalid value used for 'origin' parameter: {text}"
                        )));
                    }
                },
                Some(value) => number(value).ok_or_else(|| {
                    Answer::error("'origin' argument must be \"user\", \"ha-partner\" or an integer")
                })?,
            }
        };
        if origin >= ORIGIN_DATABASE && max_period_s.is_some() {
            return Err(Answer::error(
                "'max-period' cannot be used with the origin of a database connection",
            ));
        }
        Ok(Self { origin, max_period_s })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeat_without_period_keeps_the_timer() {
        let now = Now::default();
        let mut origins = ServiceOrigins::default();
        origins.disable(now, 1, Some(5)).expect("room");
        origins.disable(now.plus_ms(1000), 1, None).expect("room");
        assert_eq!(origins.deadline(), Some(Mono::default().plus_ms(5000)));
        origins.expire(now.plus_ms(4999));
        assert!(!origins.is_enabled());
        origins.expire(now.plus_ms(5000));
        assert!(origins.is_enabled());
    }

    #[test]
    fn origins_are_bounded() {
        let mut origins = ServiceOrigins::default();
        for origin in (0u32..).take(ORIGINS_MAX) {
            origins.disable(Now::default(), origin, None).expect("room");
        }
        assert!(origins.disable(Now::default(), u32::MAX, None).is_err());
        assert!(origins.disable(Now::default(), 7, Some(1)).is_ok());
    }
}
