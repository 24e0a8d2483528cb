//! Moments as people write and read them: in nanoseconds of a trace's clock, and of the wall clock in their time zone.

use std::io::Write as _;

use anyhow::{Context as _, Result, bail};
use jiff::{Timestamp, Zoned, civil, fmt::strtime, tz::TimeZone};

use crate::read::trace::Trace;

const NANOSECONDS: u64 = 1_000_000_000;

/// The time zone that `TZ` names, or the machine's.
///
/// # Errors
/// When `TZ` names one that is not there.
pub fn zone() -> Result<TimeZone> {
    match std::env::var_os("TZ").filter(|zone| !zone.is_empty()) {
        Some(zone) => TimeZone::try_system().with_context(|| format!("the time zone TZ={}", zone.display())),
        None => Ok(TimeZone::system()),
    }
}

/// Writes times of the common clock as ISO 8601 has them: `2026-01-02T13:31:25.123456789+01:00`.
#[derive(Clone, Debug)]
pub struct WallClock {
    /// Nanoseconds since 1970 at the zero of the common clock.
    epoch: u64,
    zone: TimeZone,
    /// The last second, and what stands before its fraction and after it.
    known: Option<(u64, String, String)>,
}

impl WallClock {
    /// The wall clock of some traces' common clock: the first one's.
    #[must_use]
    pub fn new(traces: &[Trace], zone: TimeZone) -> Self {
        Self { epoch: traces.first().map_or(0, epoch), zone, known: None }
    }

    /// Appends a time.
    pub fn push(&mut self, text: &mut Vec<u8>, time: u64) {
        let wall = time.saturating_add(self.epoch);
        let second = wall / NANOSECONDS;
        if self.known.as_ref().is_none_or(|(known, ..)| *known != second) {
            let stamp = Timestamp::from_second(second.cast_signed()).unwrap_or(Timestamp::MAX);
            let zoned = stamp.to_zoned(self.zone.clone());
            let part = |format| strtime::format(format, &zoned).unwrap_or_default();
            self.known = Some((second, part("%Y-%m-%dT%H:%M:%S"), part("%:z")));
        }
        if let Some((_, before, after)) = &self.known {
            // Writing to a Vec cannot fail.
            let _ = write!(text, "{before}.{:09}{after}", wall % NANOSECONDS);
        }
    }
}

/// Nanoseconds since 1970 at the zero of a trace's clock, as that was when recording began: the same as in its CTF metadata.
fn epoch(trace: &Trace) -> u64 {
    let start = trace.session.clock.start;
    start.realtime.saturating_sub(start.monotonic)
}

/// A moment of the trace: `1.5s` after its start, `-2s` before its end, or before `now` while it is being recorded, `@123.456` as relayd print
/// shows it, or the time of the day or the date, in the local time zone unless another is given.
///
/// # Errors
/// When it is none of these.
pub fn parse(text: &str, trace: &Trace, now: Option<u64>) -> Result<u64> {
    let clock = &trace.session.clock;
    if let Some(seconds) = text.strip_prefix('@') {
        return parse_seconds(seconds).with_context(|| format!("'{text}' is not a time in seconds, like @123.456"));
    }
    if let Some(before) = text.strip_prefix('-')
        && let Some(before) = parse_span(before)
    {
        let end = clock.end.map(|end| end.monotonic).or(now);
        let end = end.context("the recording was not ended in order: its end is not known")?;
        return Ok(end.saturating_sub(before));
    }
    if let Some(after) = parse_span(text.strip_prefix('+').unwrap_or(text)) {
        return Ok(clock.start.monotonic.saturating_add(after));
    }
    let Some(wall) = parse_wall(text, clock.start.realtime, &zone()?) else {
        bail!(
            "'{text}' is not a time: give one from the trace's start (1.5s, 300ms), before its end (-2s), as relayd print shows it \
             (@123.456), or of the clock (13:31:25.5, '2026-01-02 13:31:25', 2026-01-02T12:31:25Z)"
        );
    };
    Ok(u64::try_from((wall - i128::from(epoch(trace))).max(0)).unwrap_or(u64::MAX))
}

/// Nanoseconds of a time: seconds, whole or with a point, or as `300ms` and `1m 2s`.
#[must_use]
pub fn parse_span(text: &str) -> Option<u64> {
    if text.chars().all(|c| c.is_ascii_digit() || c == '.') {
        return parse_seconds(text);
    }
    // humantime takes whole numbers alone.
    if let Some(seconds) = text.strip_suffix('s').and_then(parse_seconds) {
        return Some(seconds);
    }
    humantime::parse_duration(text).ok().and_then(|span| u64::try_from(span.as_nanos()).ok())
}

/// Seconds with up to nine digits after the point.
fn parse_seconds(text: &str) -> Option<u64> {
    let (whole, rest) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(rest) || rest.len() > 9 || (whole.is_empty() && rest.is_empty()) {
        return None;
    }
    let nanoseconds: u64 = format!("{rest:0<9}").parse().ok()?;
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    whole.checked_mul(1_000_000_000)?.checked_add(nanoseconds)
}

/// Nanoseconds since 1970. A time without a date is of the day on which the trace began.
fn parse_wall(text: &str, start: u64, zone: &TimeZone) -> Option<i128> {
    if let Ok(stamp) = text.parse::<Timestamp>() {
        return Some(stamp.as_nanosecond());
    }
    if let Ok(time) = text.parse::<civil::DateTime>() {
        return time.to_zoned(zone.clone()).ok().map(|zoned: Zoned| zoned.timestamp().as_nanosecond());
    }
    let time = text.parse::<civil::Time>().ok()?;
    let day = Timestamp::from_nanosecond(start.into()).ok()?.to_zoned(zone.clone()).date();
    day.to_datetime(time).to_zoned(zone.clone()).ok().map(|zoned| zoned.timestamp().as_nanosecond())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_seconds_with_a_point_or_have_units() {
        for (text, nanoseconds) in [
            ("1.5s", Some(1_500_000_000)),
            ("0.000000001", Some(1)),
            ("2", Some(2_000_000_000)),
            ("300ms", Some(300_000_000)),
            ("1m 2s", Some(62_000_000_000)),
            (".5s", Some(500_000_000)),
            ("", None),
            (".", None),
            ("1.0000000001", None),
            ("99999999999999999999", None),
            ("x", None),
        ] {
            assert_eq!(parse_span(text), nanoseconds, "{text}");
        }
    }

    #[test]
    fn the_time_of_the_day_is_of_the_day_of_the_trace() {
        let zone = TimeZone::fixed(jiff::tz::offset(1));
        let parse = |text, start| parse_wall(text, start, &zone);
        assert_eq!(parse("2026-01-02T12:31:25Z", 0), Some(1_767_357_085_000_000_000));
        assert_eq!(parse("2026-01-02T13:31:25.5+01:00", 0), Some(1_767_357_085_500_000_000));
        assert_eq!(parse("2026-01-02 13:31:25", 0), Some(1_767_357_085_000_000_000));
        let start = 1_767_357_085_000_000_000;
        assert_eq!(parse("13:31:25.5", start), Some(1_767_357_085_500_000_000));
        assert!(parse("25:00", start).is_none() && parse("yesterday", start).is_none());
    }

    #[test]
    fn the_wall_clock_is_written_as_it_is_read() {
        let zone = TimeZone::fixed(jiff::tz::offset(-3));
        let epoch = 1_767_357_080_000_000_000;
        let mut clock = WallClock { epoch, zone: zone.clone(), known: None };
        for (time, text) in [
            (5_000_000_001, "2026-01-02T09:31:25.000000001-03:00"),
            (5_999_999_999, "2026-01-02T09:31:25.999999999-03:00"),
            (6_500_000_000, "2026-01-02T09:31:26.500000000-03:00"),
            (0, "2026-01-02T09:31:20.000000000-03:00"),
        ] {
            let mut shown = Vec::new();
            clock.push(&mut shown, time);
            assert_eq!(String::from_utf8_lossy(&shown), text);
            assert_eq!(parse_wall(text, 0, &zone), Some(i128::from(epoch + time)));
        }
    }
}
