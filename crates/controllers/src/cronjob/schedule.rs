//! Cron schedules: five fields or a descriptor, and the moments they mean in a time zone.
//!
//! The language is that of the library Kubernetes uses: names of months and days, lists, ranges,
//! steps, `?` as `*`. When both days of the month and days of the week are restricted, either will
//! do. A time that a clock skips does not happen; one that it shows twice happens twice.

use std::time::Duration;

use jiff::{
    SignedDuration, Timestamp, ToSpan,
    civil::{Date, DateTime, Time},
    tz::{AmbiguousOffset, TimeZone},
};

/// A schedule that finds no day within so many is one for the 30th of February.
const MAX_DAYS: usize = 5 * 366;

const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// Why a text is no schedule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum ScheduleError {
    #[error("empty spec string")]
    Empty,
    #[error("expected exactly 5 fields, found {found}: [{text}]")]
    Fields { found: usize, text: String },
    #[error("unrecognized descriptor: {0}")]
    Descriptor(String),
    #[error("failed to parse duration {0}")]
    Every(String),
    #[error("failed to parse int from {0}")]
    Number(String),
    #[error("too many hyphens: {0}")]
    Hyphens(String),
    #[error("too many slashes: {0}")]
    Slashes(String),
    #[error("beginning of range ({value}) below minimum ({limit}): {text}")]
    BelowMinimum { value: u8, limit: u8, text: String },
    #[error("end of range ({value}) above maximum ({limit}): {text}")]
    AboveMaximum { value: u8, limit: u8, text: String },
    #[error("beginning of range ({first}) beyond end of range ({last}): {text}")]
    Reversed { first: u8, last: u8, text: String },
    #[error("step of range should be a positive number: {0}")]
    Step(String),
}

/// The values that a field allows, as bits; `any` if it was `*` or `?`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Field {
    bits: u64,
    any: bool,
}

impl Field {
    fn allows(self, value: i8) -> bool {
        u32::try_from(value).is_ok_and(|value| self.bits >> value & 1 == 1)
    }
}

/// When something is to happen, again and again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Schedule {
    /// At the times whose minute, hour and date match.
    Fields(Box<Fields>),
    /// So long after the last time.
    Every(Duration),
}

/// The five fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fields {
    minute: Field,
    hour: Field,
    day: Field,
    month: Field,
    weekday: Field,
}

impl Schedule {
    pub(super) fn parse(text: &str) -> Result<Self, ScheduleError> {
        if text.is_empty() {
            return Err(ScheduleError::Empty);
        }
        let fields = match text {
            "@yearly" | "@annually" => "0 0 1 1 *",
            "@monthly" => "0 0 1 * *",
            "@weekly" => "0 0 * * 0",
            "@daily" | "@midnight" => "0 0 * * *",
            "@hourly" => "0 * * * *",
            _ => match text.strip_prefix('@') {
                Some(descriptor) => return every(text, descriptor),
                None => text,
            },
        };
        let parts: Vec<&str> = fields.split_whitespace().collect();
        let &[minute, hour, day, month, weekday] = parts.as_slice() else {
            let text = parts.join(" ");
            return Err(ScheduleError::Fields { found: parts.len(), text });
        };
        Ok(Self::Fields(Box::new(Fields {
            minute: field(minute, 0, 59, &[])?,
            hour: field(hour, 0, 23, &[])?,
            day: field(day, 1, 31, &[])?,
            month: field(month, 1, 12, &MONTHS)?,
            weekday: field(weekday, 0, 6, &WEEKDAYS)?,
        })))
    }

    /// The first moment after `after`; none if there is none in the next years.
    pub(super) fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        match self {
            Self::Every(pause) => {
                let whole = Timestamp::from_second(after.as_second()).ok()?;
                whole.checked_add(SignedDuration::try_from(*pause).ok()?).ok()
            }
            Self::Fields(fields) => fields.next(after, zone),
        }
    }
}

impl Fields {
    fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let start = zone.to_datetime(after);
        // A clock that is set back shows a part of the day before again.
        let mut date = start.date().checked_sub(1.day()).ok()?;
        for _ in 0..MAX_DAYS {
            if self.allows(date)
                && let Some(moment) = self.on(date, after, zone)
            {
                return Some(moment);
            }
            date = date.tomorrow().ok()?;
        }
        None
    }

    fn allows(&self, date: Date) -> bool {
        let day = self.day.allows(date.day());
        let weekday = self.weekday.allows(date.weekday().to_sunday_zero_offset());
        let either = !self.day.any && !self.weekday.any;
        self.month.allows(date.month()) && if either { day || weekday } else { day && weekday }
    }

    /// The first moment of the date after `after`.
    fn on(&self, date: Date, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let midnight = |date: Date| zone.to_timestamp(date.to_datetime(Time::midnight())).ok();
        let (begins, ends) = (midnight(date)?, midnight(date.tomorrow().ok()?)?);
        if ends <= after && zone.to_offset(begins) == zone.to_offset(ends) {
            return None;
        }
        // Where the clock is not changed moments come in the order of their times.
        let steady = zone.to_offset(begins) == zone.to_offset(ends);
        let from = zone.to_datetime(after);
        let first_hour = if steady && from.date() == date { from.hour() } else { 0 };
        let mut best = None;
        for hour in (first_hour..24).filter(|hour| self.hour.allows(*hour)) {
            for minute in (0..60).filter(|minute| self.minute.allows(*minute)) {
                let moments = moments(date.at(hour, minute, 0, 0), zone).into_iter();
                for moment in moments.flatten().filter(|moment| *moment > after) {
                    if steady {
                        return Some(moment);
                    }
                    best = Some(best.map_or(moment, |known: Timestamp| known.min(moment)));
                }
            }
        }
        best
    }
}

/// When the clock shows this time: once, never, or twice.
fn moments(time: DateTime, zone: &TimeZone) -> [Option<Timestamp>; 2] {
    match zone.to_ambiguous_timestamp(time).offset() {
        AmbiguousOffset::Unambiguous { offset } => [offset.to_timestamp(time).ok(), None],
        AmbiguousOffset::Gap { .. } => [None, None],
        AmbiguousOffset::Fold { before, after } => {
            [before.to_timestamp(time).ok(), after.to_timestamp(time).ok()]
        }
    }
}

/// `@every 1h30m`.
fn every(text: &str, descriptor: &str) -> Result<Schedule, ScheduleError> {
    let Some(duration) = descriptor.strip_prefix("every ") else {
        return Err(ScheduleError::Descriptor(text.to_owned()));
    };
    let invalid = || ScheduleError::Every(text.to_owned());
    let mut rest = duration;
    let mut total = 0.0_f64;
    while !rest.is_empty() {
        let unit = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(invalid)?;
        let (number, tail) = rest.split_at(unit);
        let end = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(end);
        let seconds = match unit {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            _ => return Err(invalid()),
        };
        total += number.parse::<f64>().map_err(|_| invalid())? * seconds;
        rest = tail;
    }
    let whole = Duration::try_from_secs_f64(total.floor().max(1.0)).map_err(|_| invalid())?;
    if duration.is_empty() { Err(invalid()) } else { Ok(Schedule::Every(whole)) }
}

fn field(text: &str, min: u8, max: u8, names: &[&str]) -> Result<Field, ScheduleError> {
    let mut field = Field { bits: 0, any: false };
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let (bits, any) = range(part, min, max, names)?;
        field.bits |= bits;
        field.any |= any;
    }
    Ok(field)
}

/// `*`, `?`, `a`, `a-b`, each with an optional `/step`.
fn range(text: &str, min: u8, max: u8, names: &[&str]) -> Result<(u64, bool), ScheduleError> {
    let owned = || text.to_owned();
    let mut slashes = text.split('/');
    let whole = slashes.next().unwrap_or_default();
    let step = slashes.next();
    if slashes.next().is_some() {
        return Err(ScheduleError::Slashes(owned()));
    }
    let (first, mut last, any) = if matches!(whole, "*" | "?") {
        (min, max, true)
    } else {
        let mut ends = whole.split('-');
        let first = value(ends.next().unwrap_or_default(), min, names)?;
        let last = ends.next().map(|last| value(last, min, names)).transpose()?;
        if ends.next().is_some() {
            return Err(ScheduleError::Hyphens(owned()));
        }
        // `a/n` begins at a and goes on to the end.
        let last = last.unwrap_or(if step.is_some() { max } else { first });
        (first, last, false)
    };
    let step = step.map(|step| value(step, min, &[])).transpose()?;
    if first < min {
        return Err(ScheduleError::BelowMinimum { value: first, limit: min, text: owned() });
    }
    if last > max {
        return Err(ScheduleError::AboveMaximum { value: last, limit: max, text: owned() });
    }
    if first > last {
        return Err(ScheduleError::Reversed { first, last, text: owned() });
    }
    if step == Some(0) {
        return Err(ScheduleError::Step(owned()));
    }
    last = last.min(max);
    let values = (first..=last).step_by(usize::from(step.unwrap_or(1)));
    let bits = values.fold(0, |bits, value| bits | 1_u64 << value);
    // Every second day is a restriction, `*` is none.
    Ok((bits, any && step.unwrap_or(1) == 1))
}

fn value(text: &str, min: u8, names: &[&str]) -> Result<u8, ScheduleError> {
    let lower = text.to_ascii_lowercase();
    if let Some(index) = names.iter().position(|name| *name == lower) {
        return Ok(min.saturating_add(u8::try_from(index).unwrap_or(u8::MAX)));
    }
    text.parse().map_err(|_| ScheduleError::Number(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn nexts(text: &str, zone: &str, after: &str, count: usize) -> Vec<String> {
        let schedule = Schedule::parse(text).unwrap();
        let zone = TimeZone::get(zone).unwrap();
        let mut moment: Timestamp = after.parse().unwrap();
        let mut found = Vec::new();
        while found.len() < count {
            let Some(next) = schedule.next(moment, &zone) else { break };
            found.push(next.to_string());
            moment = next;
        }
        found
    }

    #[test]
    fn moments_of_schedules() {
        for (text, after, expected) in [
            ("* * * * *", "2026-01-01T00:00:00Z", ["2026-01-01T00:01:00Z", "2026-01-01T00:02:00Z"]),
            (
                "*/15 * * * *",
                "2026-01-01T00:00:59Z",
                ["2026-01-01T00:15:00Z", "2026-01-01T00:30:00Z"],
            ),
            (
                "20/15 * * * *",
                "2026-01-01T00:00:00Z",
                ["2026-01-01T00:20:00Z", "2026-01-01T00:35:00Z"],
            ),
            (
                "5,10-12/2 3 * * *",
                "2026-01-01T03:05:00Z",
                ["2026-01-01T03:10:00Z", "2026-01-01T03:12:00Z"],
            ),
            (
                "0 0 1 JAN,jul ?",
                "2026-01-01T00:00:00Z",
                ["2026-07-01T00:00:00Z", "2027-01-01T00:00:00Z"],
            ),
            (
                "0 12 * * Mon-Tue",
                "2026-01-01T00:00:00Z",
                ["2026-01-05T12:00:00Z", "2026-01-06T12:00:00Z"],
            ),
            // Either day will do.
            (
                "0 0 13 * 5",
                "2026-02-01T00:00:00Z",
                ["2026-02-06T00:00:00Z", "2026-02-13T00:00:00Z"],
            ),
            (
                "0 0 */2 * 5",
                "2026-01-01T12:00:00Z",
                ["2026-01-02T00:00:00Z", "2026-01-03T00:00:00Z"],
            ),
            (
                "0 0 29 2 *",
                "2026-01-01T00:00:00Z",
                ["2028-02-29T00:00:00Z", "2032-02-29T00:00:00Z"],
            ),
            ("@hourly", "2026-01-01T00:00:00Z", ["2026-01-01T01:00:00Z", "2026-01-01T02:00:00Z"]),
            ("@weekly", "2026-01-01T00:00:00Z", ["2026-01-04T00:00:00Z", "2026-01-11T00:00:00Z"]),
            (
                "@every 1h30m",
                "2026-01-01T00:00:00.7Z",
                ["2026-01-01T01:30:00Z", "2026-01-01T03:00:00Z"],
            ),
        ] {
            assert_eq!(nexts(text, "UTC", after, 2), expected, "{text}");
        }
        assert!(nexts("0 0 30 2 *", "UTC", "2026-01-01T00:00:00Z", 1).is_empty());
    }

    #[test]
    fn clocks_that_are_changed() {
        let new_york = |text, after, count| nexts(text, "America/New_York", after, count);
        assert_eq!(
            new_york("30 2 * * *", "2012-03-10T08:00:00Z", 2),
            ["2012-03-12T06:30:00Z", "2012-03-13T06:30:00Z"],
            "half past two is skipped on the 11th"
        );
        assert_eq!(
            new_york("0 1 * * *", "2012-11-04T04:00:00Z", 3),
            ["2012-11-04T05:00:00Z", "2012-11-04T06:00:00Z", "2012-11-05T06:00:00Z"],
            "one o'clock comes twice on the 4th"
        );
        assert_eq!(
            nexts("0 0 * * *", "Asia/Kathmandu", "2026-01-01T00:00:00Z", 1),
            ["2026-01-01T18:15:00Z"]
        );
    }

    #[test]
    fn errors_say_what_is_wrong() {
        for (text, error) in [
            ("", "empty spec string"),
            ("* * * *", "expected exactly 5 fields, found 4: [* * * *]"),
            ("60 * * * *", "end of range (60) above maximum (59): 60"),
            ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
            ("* * * * 7", "end of range (7) above maximum (6): 7"),
            ("5-3 * * * *", "beginning of range (5) beyond end of range (3): 5-3"),
            ("*/0 * * * *", "step of range should be a positive number: */0"),
            ("1-2-3 * * * *", "too many hyphens: 1-2-3"),
            ("1/2/3 * * * *", "too many slashes: 1/2/3"),
            ("x * * * *", "failed to parse int from x"),
            ("@sometimes", "unrecognized descriptor: @sometimes"),
            ("@every soon", "failed to parse duration @every soon"),
        ] {
            assert_eq!(Schedule::parse(text).unwrap_err().to_string(), error, "{text}");
        }
    }

    proptest! {
        /// Between a moment and the next there is no other that the fields allow.
        #[test]
        fn no_moment_is_left_out(
            minute in 0u8..60, step in 1u8..30, hour in 0u8..24, day in 0i64..400,
            zone in prop::sample::select(vec!["UTC", "Europe/Berlin", "Australia/Lord_Howe"]),
        ) {
            let zone = TimeZone::get(zone).unwrap();
            let schedule = Schedule::parse(&format!("{minute}/{step} {hour} * * *")).unwrap();
            let after = Timestamp::from_second(1_767_225_600 + day * 86_400).unwrap();
            let next = schedule.next(after, &zone).unwrap();
            let mut moment = after + SignedDuration::from_mins(1);
            let matches = |moment: Timestamp| {
                let time = zone.to_datetime(moment);
                time.hour() == i8::try_from(hour).unwrap()
                    && (i16::from(time.minute()) - i16::from(minute)) >= 0
                    && (i16::from(time.minute()) - i16::from(minute)) % i16::from(step) == 0
            };
            while moment < next {
                prop_assert!(!matches(moment), "{} was left out", moment);
                moment += SignedDuration::from_mins(1);
            }
            prop_assert!(matches(next));
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,40}") {
            let _ = Schedule::parse(&text);
        }
    }
}
