//! Times as Kea prints them: local time of statistics, UTC, RFC 1123 dates. The zone's rules come from its file.

use std::fmt;

/// A civil date and time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Civil {
    /// Year.
    pub year: i64,
    /// Month, 1 to 12.
    pub month: u8,
    /// Day of the month, 1 to 31.
    pub day: u8,
    /// Hour, 0 to 23.
    pub hour: u8,
    /// Minute, 0 to 59.
    pub minute: u8,
    /// Second, 0 to 59.
    pub second: u8,
    /// Day of the week, 0 is Sunday.
    pub weekday: u8,
}

impl Civil {
    /// The date and time of `unix_s` seconds since the Unix epoch, in UTC. Years beyond 9999 are as good as any.
    #[must_use]
    pub fn from_unix(unix_s: i64) -> Self {
        let days = unix_s.div_euclid(86_400);
        let second_of_day = unix_s.rem_euclid(86_400);
        // Days are counted from 1 March of year 0, in eras of 400 years: leap days then end each year.
        let shifted = days.saturating_add(719_468);
        let era = shifted.div_euclid(146_097);
        let day_of_era = shifted.rem_euclid(146_097);
        let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_shifted = (5 * day_of_year + 2) / 153;
        let month = if month_shifted < 10 { month_shifted + 3 } else { month_shifted - 9 };
        let small = |number: i64| u8::try_from(number).unwrap_or(0);
        Self {
            year: era * 400 + year_of_era + i64::from(month <= 2),
            month: small(month),
            day: small(day_of_year - (153 * month_shifted + 2) / 5 + 1),
            hour: small(second_of_day / 3600),
            minute: small(second_of_day / 60 % 60),
            second: small(second_of_day % 60),
            weekday: small((days.rem_euclid(7) + 4) % 7),
        }
    }
}

impl fmt::Display for Civil {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { year, month, day, hour, minute, second, .. } = self;
        write!(out, "{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}")
    }
}

/// `YYYY-MM-DD hh:mm:ss.uuuuuu` of `unix_us` microseconds since the Unix epoch, `offset_s` seconds east of UTC.
#[must_use]
pub fn stamp(unix_us: u64, offset_s: i32) -> String {
    let seconds = i64::try_from(unix_us / 1_000_000).unwrap_or(i64::MAX / 2);
    format!("{}.{:06}", Civil::from_unix(seconds + i64::from(offset_s)), unix_us % 1_000_000)
}

/// The date of an HTTP header (RFC 9110 5.6.7), which is also the one of heartbeats.
#[must_use]
pub fn http_date(unix_s: u64) -> String {
    const DAYS: [&str; 7] = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let civil = Civil::from_unix(i64::try_from(unix_s).unwrap_or(i64::MAX / 2));
    format!(
        "{}, {:02} {} {:04} {:02}:{:02}:{:02} GMT",
        DAYS[usize::from(civil.weekday % 7)],
        civil.day,
        MONTHS[usize::from(civil.month.clamp(1, 12) - 1)],
        civil.year,
        civil.hour,
        civil.minute,
        civil.second
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(http_date(0), "Thu, 01 Jan 1970 00:00:00 GMT");
        assert_eq!(http_date(1_795_415_286), "Mon, 23 Nov 2026 06:28:06 GMT");
        assert_eq!(http_date(951_782_400), "Tue, 29 Feb 2000 00:00:00 GMT");
        assert_eq!(stamp(1_795_415_276_446_224, 0), "2026-11-23 06:27:56.446224");
        assert_eq!(stamp(1_795_415_276_000_001, 3600), "2026-11-23 07:27:56.000001");
        assert_eq!(stamp(0, -3600), "1969-12-31 23:00:00.000000");
        let _ = http_date(u64::MAX);
        let _ = stamp(u64::MAX, i32::MAX);
    }
}
