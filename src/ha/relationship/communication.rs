//! What is known of the partner: when it last answered, what it said.

use crate::ha::command::HeartbeatAnswer;
use crate::ha::states::State;
use crate::ha::unacked::Traffic;
use crate::time::{Mono, Now};

/// Clocks further apart than this are warned about.
const SKEW_WARN_S: u64 = 30;
/// Clocks further apart than this end the pair.
const SKEW_MAX_S: u64 = 60;
/// A warning is repeated when this long has passed, and more.
const SKEW_WARN_EVERY_MS: u64 = 60_000;
/// How long a partner is seen terminated before a waiting server follows it.
const TERMINATED_MS: u64 = 600_000;

/// A failure that goes on is said this often.
const FAILURE_SAID_EVERY_MS: u64 = 60_000;

/// Heartbeats that have failed since the last one that was answered.
#[derive(Debug, Default)]
struct Failures {
    count: u32,
    said: Option<Mono>,
    reason: String,
}

#[derive(Debug)]
pub(super) struct Communication {
    /// The last heartbeat answered as it must be, or the start.
    pub(super) last_contact: Mono,
    /// None until the first heartbeat has ended.
    pub(super) partner_state: Option<State>,
    pub(super) partner_scopes: Vec<String>,
    pub(super) skew_s: Option<i64>,
    pub(super) partner_time_s: Option<u64>,
    pub(super) own_time_s: Option<u64>,
    pub(super) traffic: Traffic,
    unsent: [u64; 2],
    /// The partner has told of unsent updates since [`Communication::forget_news`].
    has_news: bool,
    terminated_since: Option<Mono>,
    skew_warned: Option<Mono>,
    failures: Failures,
}

impl Communication {
    pub(super) fn new(now: Now) -> Self {
        Self {
            last_contact: now.mono,
            partner_state: None,
            partner_scopes: Vec::new(),
            skew_s: None,
            partner_time_s: None,
            own_time_s: None,
            traffic: Traffic::default(),
            unsent: [0; 2],
            has_news: false,
            terminated_since: None,
            skew_warned: None,
            failures: Failures::default(),
        }
    }

    /// A heartbeat failed. How many in a row have, when that is to be said: the first, one for another reason, and one each minute.
    pub(super) fn failed(&mut self, now: Now, reason: &str) -> Option<u32> {
        let failures = &mut self.failures;
        failures.count = failures.count.saturating_add(1);
        let said = failures.said.filter(|_| failures.reason == reason);
        if said.is_some_and(|said| now.mono.ms_since(said) < FAILURE_SAID_EVERY_MS) {
            return None;
        }
        failures.said = Some(now.mono);
        reason.clone_into(&mut failures.reason);
        Some(failures.count)
    }

    /// A heartbeat was answered: how many had failed before it.
    pub(super) fn answered(&mut self) -> u32 {
        std::mem::take(&mut self.failures).count
    }

    /// A heartbeat that was sent at `asked_s` was answered as it must be.
    pub(super) fn contact(&mut self, now: Now, asked_s: u64, answer: HeartbeatAnswer) {
        self.last_contact = now.mono;
        self.traffic = Traffic::default();
        self.record(answer.state, Some(now));
        if let Some(scopes) = answer.scopes {
            self.partner_scopes = scopes;
        }
        // The partner read its clock at some time between. A server that was stopped meanwhile (a machine that is moved), or whose clock was set,
        // would else take the age of the answer for skew, and end the pair.
        let read_s = answer.date_time_s.clamp(asked_s.min(now.wall_s), asked_s.max(now.wall_s));
        let skew = i64::try_from(answer.date_time_s.abs_diff(read_s)).unwrap_or(i64::MAX);
        self.skew_s = Some(if answer.date_time_s < read_s { -skew } else { skew });
        self.partner_time_s = Some(answer.date_time_s);
        self.own_time_s = Some(now.wall_s);
        if let Some(count) = answer.unsent_update_count {
            self.unsent = [self.unsent[1], count];
            self.has_news |= count > 0 && self.unsent[0] != count;
        }
    }

    /// The partner is in `state`; `now` is given when it said so itself.
    pub(super) fn record(&mut self, state: State, now: Option<Now>) {
        self.partner_state = Some(state);
        self.terminated_since = match (state, now) {
            (State::Terminated, Some(now)) => self.terminated_since.or(Some(now.mono)),
            _ => None,
        };
        if state == State::Unavailable {
            self.skew_s = None;
            self.partner_time_s = None;
            self.own_time_s = None;
        }
    }

    /// Forgets what only a new heartbeat can tell: skew, and for how long the partner has been terminated.
    pub(super) const fn forget_measurements(&mut self) {
        self.skew_s = None;
        self.partner_time_s = None;
        self.own_time_s = None;
        self.terminated_since = None;
    }

    /// What the partner has told of unsent updates so far is taken care of.
    pub(super) const fn forget_news(&mut self) {
        self.has_news = false;
    }

    /// The partner changed leases that it did not send. Kea asks whether its last two heartbeats differ in this; but a partner that served
    /// alone, too, and was quick to copy is `ready` a heartbeat later than it told so, and what it gave would never be copied.
    pub(super) const fn has_new_unsent(&self) -> bool {
        self.has_news
    }

    /// Whether clocks are too far apart to go on.
    pub(super) fn skew_terminates(&self) -> bool {
        self.skew_s.is_some_and(|skew| skew.unsigned_abs() > SKEW_MAX_S)
    }

    /// The skew to warn about now, if any.
    pub(super) fn skew_to_warn(&mut self, now: Now) -> Option<i64> {
        let skew = self.skew_s.filter(|skew| skew.unsigned_abs() > SKEW_WARN_S)?;
        if self.skew_warned.is_some_and(|warned| now.mono.ms_since(warned) <= SKEW_WARN_EVERY_MS) {
            return None;
        }
        self.skew_warned = Some(now.mono);
        Some(skew)
    }

    /// Whether the partner has said for ten minutes that it is terminated.
    pub(super) fn is_terminated_for_long(&self, now: Now) -> bool {
        self.terminated_since.is_some_and(|since| now.mono.ms_since(since) >= TERMINATED_MS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_that_goes_on_is_said_once_a_minute_and_another_reason_at_once() {
        let start = Now::default();
        let mut communication = Communication::new(start);
        assert_eq!(communication.failed(start, "refused"), Some(1));
        assert_eq!(communication.failed(start.plus_ms(250), "refused"), None);
        assert_eq!(communication.failed(start.plus_ms(500), "no route"), Some(3));
        assert_eq!(communication.failed(start.plus_ms(60_499), "no route"), None);
        assert_eq!(communication.failed(start.plus_ms(60_500), "no route"), Some(5));
        assert_eq!(communication.answered(), 5);
        assert_eq!(communication.answered(), 0);
        assert_eq!(communication.failed(start.plus_ms(60_750), "no route"), Some(1));
    }
}
