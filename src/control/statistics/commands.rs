//! The `statistic-` commands.

use serde_json::Value;

use super::series::{Retention, Series};
use super::{MapPrinter, Snapshot, Statistics};
use crate::control::command::{Answer, Command, Context, Outcome};
use crate::control::table::{CommandTable, Presence};

/// Adds the `statistic-` commands to `table`.
pub fn register(table: &mut CommandTable) {
    let mut add = |name, act: fn(&mut Statistics, u64, &Arguments) -> Result<Answer, Answer>| {
        table.register(name, Presence::Always, move |context, command| answer(context, command, act));
    };
    add("statistic-get", |statistics, _, arguments| {
        let name = arguments.name()?;
        let zone = statistics.zone.clone();
        let mut out = Vec::new();
        let mut printer = MapPrinter { out: &mut out, first: true, zone: &zone };
        printer.out.extend_from_slice(b"{ ");
        if let Some((series, _)) = statistics.find(name) {
            printer.member(name, series);
        }
        printer.out.extend_from_slice(b" }");
        Ok(Answer::success("").with_printed(out))
    });
    add("statistic-get-all", |statistics, _, _| {
        let mut out = Vec::new();
        statistics.print_all(false, &mut out);
        Ok(Answer::success("").with_printed(out))
    });
    add("statistic-global-get-all", |statistics, _, _| {
        let mut out = Vec::new();
        statistics.print_all(true, &mut out);
        Ok(Answer::success("").with_printed(out))
    });
    add("statistic-reset", |statistics, now_us, arguments| {
        let name = arguments.name()?;
        let (series, raw) = statistics.find(name).ok_or_else(|| no_such(name))?;
        series.reset(raw, now_us);
        Ok(Answer::success(format!("Statistic '{name}' reset.")))
    });
    add("statistic-reset-all", |statistics, now_us, _| {
        statistics.each_with_raw(|series, raw| {
            if series.is_there() {
                series.reset(raw, now_us);
            }
        });
        Ok(Answer::success("All statistics reset to neutral values."))
    });
    add("statistic-remove", |statistics, _, arguments| {
        let name = arguments.name()?;
        let (series, raw) = statistics.find(name).ok_or_else(|| no_such(name))?;
        series.remove(raw);
        Ok(Answer::success(format!("Statistic '{name}' removed.")))
    });
    add("statistic-remove-all", |statistics, _, _| {
        statistics.each_with_raw(Series::remove);
        Ok(Answer::success("Warning: statistic-remove-all command is deprecated. All statistics removed."))
    });
    add("statistic-sample-age-set", |statistics, now_us, arguments| {
        let name = arguments.name()?;
        let duration_s = arguments.integer("duration")?;
        let (series, _) = statistics.find(name).ok_or_else(|| no_such(name))?;
        series.retention = Retention::AgeUs(duration_s.saturating_mul(1_000_000));
        series.trim(now_us);
        Ok(Answer::success(format!("Statistic '{name}' duration limit is set.")))
    });
    add("statistic-sample-age-set-all", |statistics, now_us, arguments| {
        let duration_s = arguments.integer("duration")?;
        let retention = Retention::AgeUs(duration_s.saturating_mul(1_000_000));
        statistics.age_default_s = duration_s;
        statistics.retention_default = retention;
        statistics.each(|series| {
            series.retention = retention;
            series.trim(now_us);
        });
        Ok(Answer::success("All statistics duration limit are set."))
    });
    add("statistic-sample-count-set", |statistics, now_us, arguments| {
        let name = arguments.name()?;
        let count = arguments.sample_count()?;
        let (series, _) = statistics.find(name).ok_or_else(|| no_such(name))?;
        series.retention = Retention::Count(count);
        series.trim(now_us);
        Ok(Answer::success(format!("Statistic '{name}' count limit is set.")))
    });
    add("statistic-sample-count-set-all", |statistics, now_us, arguments| {
        let count = arguments.sample_count()?;
        statistics.count_default = count;
        statistics.age_default_s = 0;
        statistics.retention_default = Retention::Count(count);
        statistics.each(|series| {
            series.retention = Retention::Count(count);
            series.trim(now_us);
        });
        Ok(Answer::success("All statistics count limit are set."))
    });
}

/// Looks at the counters now, then answers.
fn answer(
    context: &mut Context<'_>,
    command: &Command,
    act: fn(&mut Statistics, u64, &Arguments) -> Result<Answer, Answer>,
) -> Outcome {
    let now_us = sample(context);
    let arguments = Arguments(command.arguments());
    act(context.statistics, now_us, &arguments).unwrap_or_else(|answer| answer).into()
}

/// Takes a sample of all counters; returns its time.
pub fn sample(context: &mut Context<'_>) -> u64 {
    let now_us = context.backend.wall_us();
    let mut snapshot = Snapshot::default();
    context.backend.sample(&mut snapshot);
    context.statistics.observe(snapshot, now_us);
    now_us
}

fn no_such(name: &str) -> Answer {
    Answer::error(format!("No '{name}' statistic found"))
}

struct Arguments(Option<Value>);

impl Arguments {
    fn member(&self, key: &str) -> Result<&Value, Answer> {
        self.0
            .as_ref()
            .and_then(|arguments| arguments.get(key))
            .ok_or_else(|| Answer::error(format!("Missing mandatory '{key}' parameter.")))
    }

    fn name(&self) -> Result<&str, Answer> {
        self.member("name")?
            .as_str()
            .ok_or_else(|| Answer::error("'name' parameter expected to be a string."))
    }

    fn integer(&self, key: &str) -> Result<u64, Answer> {
        let value = self.member(key)?;
        if !value.is_i64() && !value.is_u64() {
            return Err(Answer::error(format!("'{key}' parameter expected to be an integer.")));
        }
        value.as_u64().ok_or_else(|| Answer::error(format!("'{key}' parameter must not be negative")))
    }

    fn sample_count(&self) -> Result<u32, Answer> {
        match self.integer("max-samples")? {
            0 => Err(Answer::error("'max-samples' parameter must not be zero")),
            count => Ok(u32::try_from(count).unwrap_or(u32::MAX)),
        }
    }
}
