//! Dates of heartbeats (RFC 1123) and of `status-get`, without a calendar library.

const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
/// The end of the year 9999: later times are printed as this.
const LATEST_S: u64 = 253_402_300_799;

/// Year, month (1 to 12), day, hour, minute, second of a time in seconds since the Unix epoch, UTC.
#[must_use]
pub const fn civil(seconds: u64) -> (u64, u64, u64, u64, u64, u64) {
    let seconds = if seconds > LATEST_S { LATEST_S } else { seconds };
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Days counted from 1 March of year 0, in eras of 400 years: leap days come last in a year.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + (month <= 2) as u64;
    (year, month, day, rest / 3600, rest / 60 % 60, rest % 60)
}

/// Seconds since the Unix epoch of a UTC date, none before 1970.
fn epoch(year: u64, month: u64, day: u64) -> Option<u64> {
    let year = if month <= 2 { year.checked_sub(1)? } else { year };
    let (era, year_of_era) = (year / 400, year % 400);
    let shifted_month = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * shifted_month + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    (era * 146_097 + day_of_era).checked_sub(719_468)?.checked_mul(86_400)
}

/// `Thu, 01 Jan 2026 01:00:00 GMT`.
#[must_use]
pub fn format_http(seconds: u64) -> String {
    let (year, month, day, hour, minute, second) = civil(seconds);
    let weekday = usize::try_from(seconds.min(LATEST_S) / 86_400 % 7).unwrap_or(0);
    let month = usize::try_from(month - 1).unwrap_or(0);
    format!("{}, {day:02} {} {year:04} {hour:02}:{minute:02}:{second:02} GMT", DAYS[weekday], MONTHS[month])
}

/// `2026-01-01 01:00:00`.
#[must_use]
pub fn format_status(seconds: u64) -> String {
    let (year, month, day, hour, minute, second) = civil(seconds);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}")
}

/// Reads an RFC 1123 date: seconds since the Unix epoch. The day of the week must be there, whichever it is.
#[must_use]
pub fn parse_http(text: &str) -> Option<u64> {
    let (weekday, rest) = text.trim().split_once(", ")?;
    DAYS.iter().position(|name| *name == weekday)?;
    let mut parts = rest.split(' ').filter(|part| !part.is_empty());
    let day: u64 = number(parts.next()?)?;
    let month_name = parts.next()?;
    let month = 1 + u64::try_from(MONTHS.iter().position(|name| *name == month_name)?).ok()?;
    let year: u64 = number(parts.next()?)?;
    let mut clock = parts.next()?.split(':');
    let (hour, minute, second) = (number(clock.next()?)?, number(clock.next()?)?, number(clock.next()?)?);
    let valid = parts.next()? == "GMT"
        && parts.next().is_none()
        && clock.next().is_none()
        && (1..=31).contains(&day)
        && (1970..=9999).contains(&year)
        && hour < 24
        && minute < 60
        && second <= 60;
    if !valid {
        return None;
    }
    Some(epoch(year, month, day)? + hour * 3600 + minute * 60 + second)
}

fn number(digits: &str) -> Option<u64> {
    (!digits.is_empty() && digits.len() <= 4 && digits.bytes().all(|digit| digit.is_ascii_digit()))
        .then(|| digits.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_as_servers_print_them() {
        assert_eq!(format_http(1_767_229_200), "Thu, 01 Jan 2026 01:00:00 GMT");
        assert_eq!(format_status(1_767_229_200), "2026-01-01 01:00:00");
        assert_eq!(parse_http("Mon, 23 Nov 2026 06:28:06 GMT"), Some(1_795_415_286));
        assert_eq!(format_http(1_795_415_286), "Mon, 23 Nov 2026 06:28:06 GMT");
        assert_eq!(format_http(951_782_400), "Tue, 29 Feb 2000 00:00:00 GMT");
        assert_eq!(format_http(u64::MAX), "Fri, 31 Dec 9999 23:59:59 GMT");
    }

    #[test]
    fn dates_lead_back() {
        let mut seconds = 0;
        while seconds < LATEST_S {
            assert_eq!(parse_http(&format_http(seconds)), Some(seconds));
            seconds += 86_400 * 37 + 12_345;
        }
    }

    #[test]
    fn other_forms_are_refused() {
        for text in [
            "",
            "Thu, 01 Jan 2026 01:00:00",
            "Thu, 01 Jan 2026 01:00:00 UTC",
            "Thu, 32 Jan 2026 01:00:00 GMT",
            "Thu, 01 Foo 2026 01:00:00 GMT",
            "Thu, 01 Jan 2026 24:00:00 GMT",
            "Thu, 01 Jan 1969 01:00:00 GMT",
            "Thu, 01 Jan 2026 01:00 GMT",
            "2026-01-01 01:00:00",
        ] {
            assert_eq!(parse_http(text), None, "{text}");
        }
    }
}
