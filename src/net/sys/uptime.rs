//! The clock that the whole machine shares.

/// Microseconds of `CLOCK_MONOTONIC`, which other processes read the same; the clock of `std` keeps its origin to itself.
#[must_use]
pub fn monotonic_us() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid place for the answer and outlives the call, which keeps no pointer to it.
    let answer = unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    assert_eq!(answer, 0, "CLOCK_MONOTONIC is always there");
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0) / 1000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_is_the_machines() {
        let before = monotonic_us();
        let uptime = std::fs::read_to_string("/proc/uptime").expect("Linux tells its uptime");
        let seconds: f64 = uptime.split(' ').next().and_then(|text| text.parse().ok()).expect("seconds");
        let after = monotonic_us();
        assert!(before <= after);
        // The uptime counts time asleep, too, and has hundredths of seconds.
        #[expect(clippy::cast_precision_loss, reason = "compared to a hundredth of a second")]
        let ours = after as f64 / 1e6;
        assert!(ours > 0.0 && ours <= seconds + 0.1, "{ours} s of {seconds} s");
    }
}
