//! Where the time of a verb goes: the events of `trace.rs` and the steps of the stage, in the order in which they
//! began, as a table, as a trace for Perfetto and Chrome, and as a picture.
//!
//! Only reads what was recorded. Nothing is recorded outside [`Timeline::record`].

use crate::trace::{self, Event, EventKind, Observer};
use serde_json::{Value, json};
use std::fmt::Write;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A record of what verbs did, and when: the library's own work, hooks, and each step of the stage, which runs
/// concurrently with the library. Clones share the record.
///
/// ```no_run
/// use libruntime::{Runtime, Timeline};
///
/// let timeline = Timeline::new();
/// let runtime = Runtime::new("/run/example");
/// let container = timeline.record(|| runtime.container("hello").bundle("/srv/bundle").run())?;
/// print!("{}", timeline.to_text());
/// std::fs::write("start.svg", timeline.to_svg())?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Steps after the seccomp filter is loaded are missing: the filter may refuse clock_gettime(2), by which the stage reads
/// the time.
#[derive(Clone, Debug, Default)]
pub struct Timeline(Arc<Mutex<Vec<Event>>>);

/// Who has done what an event reports.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lane {
    Library,
    Hook,
    Stage,
}

impl Lane {
    fn of(event: &Event) -> Self {
        match event.kind {
            EventKind::Part { .. } => Self::Library,
            EventKind::Hook { .. } => Self::Hook,
            EventKind::Stage { .. } | EventKind::Step { .. } => Self::Stage,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Library => "library",
            Self::Hook => "hook",
            Self::Stage => "stage",
        }
    }

    fn color(self) -> &'static str {
        match self {
            Self::Library => "#4477aa",
            Self::Hook => "#ccaa33",
            Self::Stage => "#228833",
        }
    }
}

/// An event with its times since the first one.
struct Row {
    event: Event,
    lane: Lane,
    start: Duration,
}

impl Timeline {
    /// An empty record.
    pub fn new() -> Self {
        Self::default()
    }

    /// Does `work`, and records what this thread does in it. An observer of [`crate::observe`] goes on to get its
    /// events.
    pub fn record<T>(&self, work: impl FnOnce() -> T) -> T {
        let into = self.clone();
        let observer: Observer = Arc::new(move |event: &Event| into.lock().push(event.clone()));
        trace::observe_steps(observer, work)
    }

    /// What was recorded, in the order of beginning.
    pub fn events(&self) -> Vec<Event> {
        let mut events = self.lock().clone();
        // What contains others comes before them.
        events.sort_by_key(|event| (event.began, std::cmp::Reverse(event.took)));
        events
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Event>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sync points of the stage are what the library waits for; the steps between them say more.
    fn rows(&self) -> Vec<Row> {
        let events = self.events();
        let first: Option<Instant> = events.first().map(|event| event.began);
        let is_shown = |event: &Event| !matches!(event.kind, EventKind::Stage { .. });
        let row = |event: Event| {
            let start = first.map_or(Duration::ZERO, |first| event.began.saturating_duration_since(first));
            Row { lane: Lane::of(&event), start, event }
        };
        events.into_iter().filter(is_shown).map(row).collect()
    }

    /// A table: when each thing began, how long it took (both in milliseconds), who did it, and what it is.
    pub fn to_text(&self) -> String {
        let rows = self.rows();
        let mut text = String::from("   start      took  who      what\n");
        for row in &rows {
            let (start, took) = (milliseconds(row.start), milliseconds(row.event.took));
            let _ = writeln!(text, "{start:8.3}  {took:8.3}  {:7}  {}", row.lane.name(), row.described());
        }
        let _ = writeln!(text, "{:8.3}  in all", milliseconds(end(&rows)));
        text
    }

    /// A trace in the JSON format of Chrome, which <https://ui.perfetto.dev> and `chrome://tracing` open.
    pub fn to_chrome_json(&self) -> Value {
        let rows = self.rows();
        let thread = |lane: Lane| lane as usize + 1;
        let name = |lane: Lane| {
            let args = json!({ "name": lane.name() });
            json!({ "name": "thread_name", "ph": "M", "pid": 1, "tid": thread(lane), "args": args })
        };
        let microseconds = |time: Duration| time.as_nanos() as f64 / 1e3;
        let event = |row: &Row| {
            let (name, mut args) = row.name_and_arguments();
            if let Some(failed) = &row.event.failed {
                args["failed"] = failed.as_str().into();
            }
            json!({
                "name": name, "cat": row.lane.name(), "ph": "X", "pid": 1, "tid": thread(row.lane),
                "ts": microseconds(row.start), "dur": microseconds(row.event.took), "args": args,
            })
        };
        let names = [Lane::Library, Lane::Hook, Lane::Stage].map(name);
        let events: Vec<Value> = names.into_iter().chain(rows.iter().map(event)).collect();
        json!({ "displayTimeUnit": "ms", "traceEvents": events })
    }

    /// A picture: a line for each thing, with a bar from its beginning to its end. It needs no other file.
    pub fn to_svg(&self) -> String {
        const LABELS: f64 = 420.0;
        const BARS: f64 = 760.0;
        const LINE: usize = 16;
        let rows = self.rows();
        let whole = milliseconds(end(&rows)).max(0.001);
        let height = (rows.len() + 3) * LINE;
        let x = |time: f64| LABELS + BARS * time / whole;
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{}\" height=\"{height}\" font-family=\"monospace\" \
             font-size=\"11\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n",
            LABELS + BARS + 90.0
        );
        for tick in 0..=10 {
            let time = whole * f64::from(tick) / 10.0;
            let _ = writeln!(
                svg,
                "<line x1=\"{0:.1}\" y1=\"18\" x2=\"{0:.1}\" y2=\"{height}\" stroke=\"#dddddd\"/>\
                 <text x=\"{0:.1}\" y=\"12\" text-anchor=\"middle\">{time:.2} ms</text>",
                x(time)
            );
        }
        for (at, row) in rows.iter().enumerate() {
            let y = (at + 1) * LINE + 4;
            let (start, took) = (milliseconds(row.start), milliseconds(row.event.took));
            let color = if row.event.failed.is_some() { "#cc3311" } else { row.lane.color() };
            let whole_text = escaped(&format!("{}: {took:.3} ms", row.described()));
            let label: String = row.described().chars().take(60).collect();
            let _ = writeln!(
                svg,
                "<g><title>{whole_text}</title><text x=\"4\" y=\"{}\">{}</text>\
                 <rect x=\"{:.1}\" y=\"{}\" width=\"{:.1}\" height=\"12\" fill=\"{color}\"/>\
                 <text x=\"{:.1}\" y=\"{}\">{took:.3}</text></g>",
                y + 11,
                escaped(&label),
                x(start),
                y + 1,
                (BARS * took / whole).max(0.5),
                x(start + took) + 3.0,
                y + 11,
            );
        }
        svg + "</svg>\n"
    }
}

impl Row {
    /// On one line.
    fn described(&self) -> String {
        let mut text = match &self.event.kind {
            EventKind::Step { name, object, at, .. } if at.is_empty() => format!("{name} {object}"),
            EventKind::Step { name, object, at, .. } => format!("{name} [{at}] {object}"),
            other => other.to_string(),
        };
        if let Some(failed) = &self.event.failed {
            text.push_str(&format!(", failed: {failed}"));
        }
        text.trim_end().replace(char::is_control, " ")
    }

    fn name_and_arguments(&self) -> (String, Value) {
        match &self.event.kind {
            EventKind::Part { name, object } => ((*name).to_owned(), json!({ "object": object })),
            EventKind::Hook { list, number, path } => (format!("{list}[{number}]"), json!({ "path": path })),
            EventKind::Stage { reached, pid } => ((*reached).to_owned(), json!({ "pid": pid })),
            EventKind::Step { number, name, object, at, pid } => {
                (name.clone(), json!({ "step": number, "object": object, "at": at, "pid": pid }))
            }
        }
    }
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn end(rows: &[Row]) -> Duration {
    rows.iter().map(|row| row.start + row.event.took).max().unwrap_or_default()
}

/// Escaped for XML. A described row has no characters that XML forbids.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Error;

    fn recorded() -> Timeline {
        let timeline = Timeline::new();
        timeline.record(|| {
            trace::plain("whole", || {
                trace::part("mount", || "<a & \"b\">\n".into(), || Ok(()))?;
                trace::hook("prestart", 0, || "/bin/x".into(), || Err::<(), _>(Error::external("no")))
            })
            .unwrap_err();
        });
        timeline
    }

    #[test]
    fn a_table_is_in_the_order_of_beginning() {
        let timeline = recorded();
        trace::plain("outside", || Ok(())).unwrap();
        let text = timeline.to_text();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 5, "{text}");
        assert!(lines[1].contains("  library  whole, failed: no"), "{text}");
        assert!(lines[2].ends_with("  library  mount <a & \"b\">"), "{text}");
        assert!(lines[3].ends_with("  hook     run prestart hook #0 /bin/x, failed: no"), "{text}");
    }

    #[test]
    fn a_trace_has_complete_events_with_names_of_threads() {
        let trace = recorded().to_chrome_json();
        let events = trace["traceEvents"].as_array().unwrap();
        assert_eq!(events.iter().filter(|event| event["ph"] == "M").count(), 3);
        let whole = events.iter().find(|event| event["name"] == "whole").unwrap();
        assert_eq!((&whole["ph"], &whole["ts"]), (&json!("X"), &json!(0.0)));
        assert!(whole["dur"].as_f64().unwrap() > 0.0 && whole["args"]["failed"] == "no");
    }

    #[test]
    fn a_picture_is_well_formed() {
        let svg = recorded().to_svg();
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
        assert!(svg.contains("&lt;a &amp; &quot;b&quot;&gt;") && !svg.contains("<a"), "{svg}");
        assert!(Timeline::new().to_svg().ends_with("</svg>\n"));
    }
}
