//! How long a thread that works in groups lets the next one grow.
//!
//! A sync of the log costs the same for one change and for a hundred, and so does a POST to a peer, with what they cause at both ends: wakes,
//! TCP, a group of the partner's log. A group of [`FAST_CHANGES_MIN`] changes says that they come fast; then the next one begins when some
//! time has passed since this one did, and is larger. Where changes come slowly, nobody waits.

use std::time::Duration;

/// Changes in one group that say that they come fast.
pub const FAST_CHANGES_MIN: usize = 8;
/// How far apart groups of the log begin while changes come fast.
pub(super) const LOG_GROUPS_APART: Duration = Duration::from_micros(600);
/// How far apart POSTs on a connection begin while changes come fast: more than groups of the log, because a POST costs more.
pub(super) const POSTS_APART: Duration = Duration::from_millis(1);

/// Whether after a group of so many changes it is worth letting the next one grow.
pub(super) const fn is_worth_a_pause(change_count: usize) -> bool {
    change_count >= FAST_CHANGES_MIN
}
