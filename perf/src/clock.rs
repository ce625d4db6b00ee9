//! The instruments' one clock.

use std::sync::OnceLock;
use std::time::Instant;

/// Nanoseconds since the first call.
#[expect(clippy::disallowed_methods, reason = "an instrument measures time; this is where it reads it")]
pub(crate) fn now_ns() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    let now = Instant::now();
    u64::try_from(now.duration_since(*START.get_or_init(|| now)).as_nanos()).expect("584 years")
}

/// CPU time of this process so far, in seconds (user, system), as the kernel's accounting has it.
pub(crate) fn cpu_seconds() -> Option<(f64, f64)> {
    cpu_seconds_of("self")
}

/// The same of another process.
pub(crate) fn cpu_seconds_of(process: &str) -> Option<(f64, f64)> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The second field is the program's name in parentheses and may hold blanks.
    let mut fields = stat.get(stat.rfind(')')? + 2..)?.split(' ').skip(11);
    let mut ticks = || fields.next()?.parse::<f64>().ok();
    Some((ticks()? / TICKS_PER_SECOND, ticks()? / TICKS_PER_SECOND))
}

/// `USER_HZ`, which Linux shows to user space as 100 on every machine we run on.
const TICKS_PER_SECOND: f64 = 100.0;
