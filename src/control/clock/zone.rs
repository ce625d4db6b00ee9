//! The local zone, from its file (RFC 8536): transitions, and the rule for the time after the last of them.

use std::path::PathBuf;

const SECONDS_PER_DAY: i64 = 86_400;

/// When local time differs from UTC by how much.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Zone {
    /// Seconds since the epoch, and the offset from then on; ascending.
    transitions: Vec<(i64, i32)>,
    /// The offset before the first transition.
    first_offset_s: i32,
    rule: Option<Rule>,
}

/// What a POSIX `TZ` text says of the years to come.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    standard_s: i32,
    summer: Option<Summer>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Summer {
    offset_s: i32,
    start: Date,
    end: Date,
}

/// A day of the year and a time of it, local.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Date {
    day: Day,
    second: i32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Day {
    /// `Mm.w.d`: month, week (5 is the last), weekday.
    Weekday { month: i64, week: i64, weekday: i64 },
    /// `Jn`: 1 to 365, 29 February is not counted.
    Julian(i64),
    /// `n`: 0 to 365.
    Ordinal(i64),
}

impl Zone {
    /// Universal time.
    #[must_use]
    pub fn utc() -> Self {
        Self::default()
    }

    /// The zone of this machine: what `TZ` names, else `/etc/localtime`; universal time when neither can be read.
    #[must_use]
    pub fn local() -> Self {
        let file = match std::env::var("TZ") {
            Ok(name) if !name.is_empty() => {
                let name = name.strip_prefix(':').unwrap_or(&name).to_owned();
                if !name.starts_with('/')
                    && let Some(rule) = parse_rule(name.as_bytes())
                {
                    return Self { rule: Some(rule), ..Self::default() };
                }
                PathBuf::from("/usr/share/zoneinfo").join(name)
            }
            _ => PathBuf::from("/etc/localtime"),
        };
        std::fs::read(file).ok().and_then(|octets| Self::parse(&octets)).unwrap_or_default()
    }

    /// The zone of a zone file's octets.
    #[must_use]
    pub fn parse(octets: &[u8]) -> Option<Self> {
        let first = Header::parse(octets)?;
        if first.version == 0 {
            return Some(Self::read(octets.get(44..)?, &first, 4)?.0);
        }
        // A second block with 64-bit times follows the first.
        let second = octets.get(44 + first.block_bytes(4)..)?;
        let header = Header::parse(second)?;
        let (mut zone, rest) = Self::read(second.get(44..)?, &header, 8)?;
        let footer = rest.strip_prefix(b"\n").and_then(|rest| rest.split(|octet| *octet == b'\n').next());
        zone.rule = footer.and_then(parse_rule);
        Some(zone)
    }

    fn read<'a>(block: &'a [u8], header: &Header, time_bytes: usize) -> Option<(Self, &'a [u8])> {
        let (times, rest) = block.split_at_checked(header.times * time_bytes)?;
        let (kinds, rest) = rest.split_at_checked(header.times)?;
        let (types, _) = rest.split_at_checked(header.types * 6)?;
        let offset = |kind: usize| types.get(kind * 6..kind * 6 + 4).and_then(|four| four.try_into().ok());
        let offset =
            |kind: usize| offset(kind).map(i32::from_be_bytes).filter(|offset| offset.abs() < 200_000);
        let mut transitions = Vec::with_capacity(header.times);
        for (time, kind) in times.chunks_exact(time_bytes).zip(kinds) {
            let at = match time {
                [a, b, c, d] => i64::from(i32::from_be_bytes([*a, *b, *c, *d])),
                _ => i64::from_be_bytes(time.try_into().ok()?),
            };
            transitions.push((at, offset(usize::from(*kind))?));
        }
        let zone = Self { transitions, first_offset_s: offset(0)?, rule: None };
        Some((zone, block.get(header.block_bytes(time_bytes)..)?))
    }

    /// Seconds east of UTC at `unix_s`.
    #[must_use]
    pub fn offset_s(&self, unix_s: u64) -> i32 {
        let at = i64::try_from(unix_s).unwrap_or(i64::MAX);
        let after = self.transitions.partition_point(|(from, _)| *from <= at);
        match (&self.rule, after.checked_sub(1).and_then(|index| self.transitions.get(index))) {
            (Some(rule), _) if after == self.transitions.len() => rule.offset_s(at),
            (_, Some((_, offset_s))) => *offset_s,
            (_, None) => self.first_offset_s,
        }
    }
}

struct Header {
    version: u8,
    ut_count: usize,
    std_count: usize,
    leaps: usize,
    times: usize,
    types: usize,
    chars: usize,
}

impl Header {
    fn parse(octets: &[u8]) -> Option<Self> {
        let head = octets.get(..44)?;
        if !head.starts_with(b"TZif") {
            return None;
        }
        // A zone has some hundred transitions; a count beyond any sense is a broken file.
        let count = |at: usize| {
            let four: [u8; 4] = head.get(at..at + 4)?.try_into().ok()?;
            usize::try_from(u32::from_be_bytes(four)).ok().filter(|count| *count < 100_000)
        };
        Some(Self {
            version: head[4],
            ut_count: count(20)?,
            std_count: count(24)?,
            leaps: count(28)?,
            times: count(32)?,
            types: count(36)?,
            chars: count(40)?,
        })
    }

    const fn block_bytes(&self, time_bytes: usize) -> usize {
        self.times * (time_bytes + 1)
            + self.types * 6
            + self.chars
            + self.leaps * (time_bytes + 4)
            + self.std_count
            + self.ut_count
    }
}

impl Rule {
    fn offset_s(&self, at: i64) -> i32 {
        let Some(summer) = &self.summer else { return self.standard_s };
        let year = super::Civil::from_unix(at.clamp(0, 1 << 40) + i64::from(self.standard_s)).year;
        let start = summer.start.unix_s(year) - i64::from(self.standard_s);
        let end = summer.end.unix_s(year) - i64::from(summer.offset_s);
        let is_summer = if start < end { (start..end).contains(&at) } else { !(end..start).contains(&at) };
        if is_summer { summer.offset_s } else { self.standard_s }
    }
}

impl Date {
    /// Its time in `year`, as if local time were UTC.
    fn unix_s(self, year: i64) -> i64 {
        let new_year = days_to_year(year);
        let leap = days_to_year(year + 1) - new_year == 366;
        let day = match self.day {
            Day::Ordinal(day) => new_year + day,
            Day::Julian(day) => new_year + day - 1 + i64::from(leap && day >= 60),
            Day::Weekday { month, week, weekday } => {
                const BEFORE: [i64; 13] = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334, 365];
                let begin = |month: i64| {
                    let index = usize::try_from(month - 1).unwrap_or(0).min(12);
                    new_year + BEFORE[index] + i64::from(leap && month > 2)
                };
                // 1970-01-01 was a Thursday, weekday 4.
                let first_weekday = (begin(month) + 4).rem_euclid(7);
                let day = begin(month) + (weekday - first_weekday).rem_euclid(7) + (week - 1) * 7;
                if day >= begin(month + 1) { day - 7 } else { day }
            }
        };
        day * SECONDS_PER_DAY + i64::from(self.second)
    }
}

/// Days from 1970-01-01 to the first day of `year`.
const fn days_to_year(year: i64) -> i64 {
    let before = year - 1;
    before * 365 + before.div_euclid(4) - before.div_euclid(100) + before.div_euclid(400) - 719_162
}

/// Reads a POSIX `TZ` text such as `CET-1CEST,M3.5.0,M10.5.0/3`.
fn parse_rule(text: &[u8]) -> Option<Rule> {
    let mut rest = Text(text);
    rest.name()?;
    let standard_s = -rest.time()?;
    if rest.0.is_empty() {
        return Some(Rule { standard_s, summer: None });
    }
    rest.name()?;
    let offset_s =
        if matches!(rest.0.first(), Some(b',') | None) { standard_s + 3600 } else { -rest.time()? };
    let (start, end) = if rest.0.is_empty() {
        let date = |month, week| Date { day: Day::Weekday { month, week, weekday: 0 }, second: 7200 };
        (date(3, 2), date(11, 1))
    } else {
        (rest.date()?, rest.date()?)
    };
    rest.0.is_empty().then_some(Rule { standard_s, summer: Some(Summer { offset_s, start, end }) })
}

struct Text<'a>(&'a [u8]);

impl Text<'_> {
    fn take(&mut self, octet: u8) -> Option<()> {
        self.0 = self.0.strip_prefix(&[octet])?;
        Some(())
    }

    fn name(&mut self) -> Option<()> {
        if self.take(b'<').is_some() {
            let end = self.0.iter().position(|octet| *octet == b'>')?;
            self.0 = &self.0[end + 1..];
            return Some(());
        }
        let count = self.0.iter().take_while(|octet| octet.is_ascii_alphabetic()).count();
        self.0 = &self.0[count..];
        (count >= 3).then_some(())
    }

    fn number(&mut self) -> Option<i32> {
        let count = self.0.iter().take(4).take_while(|octet| octet.is_ascii_digit()).count();
        let (digits, rest) = self.0.split_at(count);
        self.0 = rest;
        std::str::from_utf8(digits).ok()?.parse().ok()
    }

    /// `[+-]h[:m[:s]]` in seconds.
    fn time(&mut self) -> Option<i32> {
        let negative = self.take(b'-').is_some();
        if !negative {
            let _ = self.take(b'+');
        }
        let mut seconds = self.number()?.min(200) * 3600;
        for unit in [60, 1] {
            if self.take(b':').is_none() {
                break;
            }
            seconds += self.number()?.min(60) * unit;
        }
        Some(if negative { -seconds } else { seconds })
    }

    fn date(&mut self) -> Option<Date> {
        self.take(b',')?;
        let day = if self.take(b'M').is_some() {
            let month = i64::from(self.number()?);
            self.take(b'.')?;
            let week = i64::from(self.number()?);
            self.take(b'.')?;
            let weekday = i64::from(self.number()?);
            if !(1..=12).contains(&month) || !(1..=5).contains(&week) || weekday > 6 {
                return None;
            }
            Day::Weekday { month, week, weekday }
        } else if self.take(b'J').is_some() {
            Day::Julian(i64::from(self.number()?))
        } else {
            Day::Ordinal(i64::from(self.number()?))
        };
        let second = if self.take(b'/').is_some() { self.time()? } else { 7200 };
        Some(Date { day, second })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rule(text: &str) -> Zone {
        Zone { rule: Some(parse_rule(text.as_bytes()).expect("a rule")), ..Zone::default() }
    }

    #[test]
    fn summer_begins_and_ends_at_the_second() {
        let berlin = rule("CET-1CEST,M3.5.0,M10.5.0/3");
        // 2026-03-29 01:00:00 UTC and 2026-10-25 01:00:00 UTC.
        for (at, offset_s) in
            [(1_774_745_999, 3600), (1_774_746_000, 7200), (1_792_889_999, 7200), (1_792_890_000, 3600)]
        {
            assert_eq!(berlin.offset_s(at), offset_s, "{at}");
        }
        // The southern summer spans the new year.
        let sydney = rule("AEST-10AEDT,M10.1.0,M4.1.0/3");
        assert_eq!(sydney.offset_s(1_767_225_600), 39_600);
        assert_eq!(sydney.offset_s(1_782_864_000), 36_000);
        assert_eq!(rule("<+0330>-3:30").offset_s(0), 12_600);
        assert_eq!(rule("EST5EDT").offset_s(1_782_864_000), -14_400);
    }

    #[test]
    fn a_zone_file_is_read_with_its_transitions_and_its_rule() {
        // Version 2: an empty first block, then one transition at 1000 s to +1 h, then a rule.
        let mut file = Vec::new();
        let header = |version: u8, times: u8, types: u8, chars: u8| {
            let mut header = b"TZif".to_vec();
            header.push(version);
            header.extend_from_slice(&[0; 15 + 12]);
            for count in [times, types, chars] {
                header.extend_from_slice(&[0, 0, 0, count]);
            }
            header
        };
        file.extend(header(b'2', 0, 1, 1));
        file.extend_from_slice(&[0; 7]);
        file.extend(header(b'2', 1, 2, 4));
        file.extend_from_slice(&1000_i64.to_be_bytes());
        file.push(1);
        file.extend_from_slice(&[0, 0, 0, 0, 0, 0]);
        file.extend_from_slice(&[0, 0, 0x0e, 0x10, 0, 0]);
        file.extend_from_slice(b"UTC\0");
        file.extend_from_slice(b"\nEET-2\n");
        let zone = Zone::parse(&file).expect("a zone file");
        assert_eq!(zone.offset_s(999), 0);
        assert_eq!(zone.offset_s(1000), 7200, "after the last transition the rule holds");
        for cut in 0..file.len() {
            let _ = Zone::parse(&file[..cut]);
        }
    }

    proptest! {
        #[test]
        fn no_octets_panic_the_zone(octets in prop::collection::vec(any::<u8>(), 0..200), at in any::<u64>()) {
            let mut file = b"TZif2".to_vec();
            file.extend(octets.iter().map(|octet| octet % 8));
            if let Some(zone) = Zone::parse(&file) {
                let _ = zone.offset_s(at);
            }
            if let Some(rule) = parse_rule(&octets) {
                let _ = Zone { rule: Some(rule), ..Zone::default() }.offset_s(at);
            }
        }

        #[test]
        fn no_rule_panics_the_zone(text in "[A-C]{3}[0-9:+-]{0,5}[A-C]{0,3}[,MJ0-9./:]{0,30}", at in any::<u64>()) {
            if let Some(rule) = parse_rule(text.as_bytes()) {
                let _ = Zone { rule: Some(rule), ..Zone::default() }.offset_s(at);
            }
        }
    }
}
