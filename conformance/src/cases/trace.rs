//! `run --trace FILE`: where the time of a start went, as a table, as a trace for Perfetto and Chrome, and as a picture.

use crate::case::{Case, Outcome, case, check, contains, fail, same, skip};
use crate::process;
use crate::test::{Container, Test};
use serde_json::{Value, json};
use std::fs;
use std::time::{Duration, Instant};

pub const CASES: &[Case] = &[
    case!(a_trace_says_in_each_form_where_the_time_went),
    case!(a_trace_of_a_failed_run_is_written),
    case!(a_trace_of_an_unknown_form_is_refused),
];

/// A step of the container's set-up, and how long it took.
type Step = (String, Duration);

/// What one file says.
#[derive(Debug)]
struct Trace {
    steps: Vec<Step>,
    total: Duration,
}

/// A directory whose name has characters that XML needs escaped.
const ODD: &str = "/<odd> & name";

/// Durations are rounded to microseconds, each of them.
const ROUNDING: Duration = Duration::from_micros(1);

fn with_trace(t: &Test, c: &Container, name: &str) -> Outcome<(process::Output, String)> {
    if !t.runtime.call(&["run", "--help"])?.stdout.contains("--trace") {
        return skip("has no `run --trace`");
    }
    let path = t.dir.join(name);
    let output = c.run_with(&["--trace", &path.display().to_string()])?;
    Ok((output, fs::read_to_string(&path).unwrap_or_default()))
}

fn a_trace_says_in_each_form_where_the_time_went(t: &Test) -> Outcome {
    let mut config = t.shell("exit 0");
    config.push("mounts", json!({ "destination": ODD, "type": "tmpfs", "source": "tmpfs" }));
    let trace_as = |form: &str, parse: fn(&str) -> Outcome<Trace>| -> Outcome<Vec<String>> {
        let c = t.container(&config)?;
        let began = Instant::now();
        let (output, text) = with_trace(t, &c, &format!("trace.{form}"))?;
        output.ok()?;
        let elapsed = began.elapsed();
        let trace = parse(&text)?;
        adds_up(form, &trace, elapsed)?;
        Ok(trace.steps.into_iter().map(|(name, _)| name).collect())
    };
    let table = trace_as("txt", table)?;
    check!(table.iter().any(|step| step.contains("Mount")), "no mount among the steps {table:?}");
    same("steps of the trace", &trace_as("json", chrome)?, &table)?;
    same("steps of the picture", &trace_as("svg", picture)?, &table)
}

fn adds_up(form: &str, trace: &Trace, elapsed: Duration) -> Outcome {
    let sum: Duration = trace.steps.iter().map(|(_, took)| *took).sum();
    let most = trace.total + ROUNDING * trace.steps.len() as u32;
    check!(!sum.is_zero() && sum < most, "{form}: the steps take {sum:?} of {:?}: {trace:?}", trace.total);
    check!(trace.total < elapsed, "{form}: {:?} in all, in a call of {elapsed:?}", trace.total);
    Ok(())
}

fn milliseconds(text: &str) -> Outcome<Duration> {
    match text.parse::<f64>() {
        Ok(number) if number >= 0.0 => Ok(Duration::from_secs_f64(number / 1e3)),
        _ => fail(format!("{text:?} is no time")),
    }
}

fn table(text: &str) -> Outcome<Trace> {
    let mut lines: Vec<&str> = text.lines().collect();
    let last = lines.pop().unwrap_or_default();
    let Some(total) = last.trim().strip_suffix(" in all") else {
        return fail(format!("the last line: {last}"));
    };
    let total = milliseconds(total.trim())?;
    let mut steps = Vec::new();
    for line in lines.iter().skip(1) {
        let [start, took, who, what] = line.split_whitespace().take(4).collect::<Vec<_>>()[..] else {
            return fail(format!("a line with fewer than four columns: {line}"));
        };
        let (start, took) = (milliseconds(start)?, milliseconds(took)?);
        check!(start + took <= total + 2 * ROUNDING, "it ends after {total:?}: {line}");
        match who {
            "stage" => steps.push((what.to_owned(), took)),
            "library" | "hook" => {}
            _ => return fail(format!("nobody is called {who}: {line}")),
        }
    }
    Ok(Trace { steps, total })
}

fn chrome(text: &str) -> Outcome<Trace> {
    let trace: Value = serde_json::from_str(text)?;
    let (mut steps, mut total, mut before) = (Vec::new(), Duration::ZERO, Duration::ZERO);
    let events = trace["traceEvents"].as_array().cloned().unwrap_or_default();
    for event in events.iter().filter(|event| event["ph"] == "X") {
        let time = |member: &str| match event[member].as_f64() {
            Some(microseconds) if microseconds >= 0.0 => Ok(Duration::from_secs_f64(microseconds / 1e6)),
            _ => fail(format!("no {member} in {event}")),
        };
        let (start, took) = (time("ts")?, time("dur")?);
        total = total.max(start + took);
        if event["cat"] == "stage" {
            check!(start + ROUNDING >= before, "it begins before the last step has ended: {event}");
            before = start + took;
            steps.push((event["name"].as_str().unwrap_or_default().to_owned(), took));
        }
    }
    contains("the trace", text, ODD)?;
    Ok(Trace { steps, total })
}

/// Each line of the picture has a title such as `PivotRoot [root.path]: 0.012 ms`, and steps a name in one word with a
/// capital letter.
fn picture(text: &str) -> Outcome<Trace> {
    let texts = texts_of_xml(text)?;
    let title = |(element, text): &(String, String)| (element == "title").then(|| text.clone());
    let mut steps = Vec::new();
    for title in texts.iter().filter_map(title) {
        let Some((what, took)) = title.strip_suffix(" ms").and_then(|title| title.rsplit_once(": ")) else {
            return fail(format!("a title without a time: {title}"));
        };
        let name = what.split(' ').next().unwrap_or_default();
        if name.starts_with(char::is_uppercase) {
            steps.push((name.to_owned(), milliseconds(took)?));
        }
    }
    check!(texts.iter().any(|(_, text)| text.contains(ODD)), "{ODD} is in no text");
    let ticks = texts
        .iter()
        .filter(|(element, _)| element == "text")
        .filter_map(|(_, text)| text.strip_suffix(" ms"));
    // Rounded to hundredths.
    let total = ticks.map(milliseconds).collect::<Outcome<Vec<_>>>()?.into_iter().max().unwrap_or_default();
    Ok(Trace { steps, total: total.saturating_sub(5 * ROUNDING) })
}

/// The texts of a document and the elements that they are in. What is not well-formed is a failure.
fn texts_of_xml(document: &str) -> Outcome<Vec<(String, String)>> {
    let (mut open, mut texts, mut rest): (Vec<&str>, Vec<(String, String)>, &str) =
        (vec![], vec![], document);
    while let Some((text, from)) = rest.split_once('<') {
        let text = unescaped(text)?;
        match open.last() {
            Some(element) => texts.push(((*element).to_owned(), text)),
            None => check!(text.trim().is_empty(), "text outside of the root: {text}"),
        }
        let Some((tag, behind)) = from.split_once('>') else {
            return fail(format!("an open tag: {from:.80}"));
        };
        rest = behind;
        if let Some(name) = tag.strip_prefix('/') {
            check!(open.pop() == Some(name), "</{name}> ends nothing");
            continue;
        }
        let (tag, is_empty) = tag.strip_suffix('/').map_or((tag, false), |tag| (tag, true));
        let (name, attributes) = tag.split_once(' ').unwrap_or((tag, ""));
        check!(!name.is_empty() && name.chars().all(char::is_alphanumeric), "<{tag}> is no tag");
        // name="value" name="value"
        let parts: Vec<&str> = attributes.split('"').collect();
        let names = parts.iter().step_by(2).filter(|part| !part.trim().is_empty());
        let paired = parts.len() % 2 == 1 && names.clone().count() == parts.len() / 2;
        check!(paired && names.into_iter().all(|part| part.ends_with('=')), "attributes of <{tag}>");
        if !is_empty {
            open.push(name);
        }
    }
    check!(open.is_empty() && rest.trim().is_empty(), "it ends within {open:?}: {rest:.80}");
    Ok(texts)
}

fn unescaped(text: &str) -> Outcome<String> {
    let mut parts = text.split('&');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let known = [("amp;", '&'), ("lt;", '<'), ("gt;", '>'), ("quot;", '"')];
        let Some((entity, letter)) = known.iter().find(|(entity, _)| part.starts_with(entity)) else {
            return fail(format!("&{part:.20} is no entity"));
        };
        plain.push(*letter);
        plain += &part[entity.len()..];
    }
    Ok(plain)
}

fn a_trace_of_a_failed_run_is_written(t: &Test) -> Outcome {
    let mut config = t.config();
    config.args(&["/no/such/program"]);
    let c = t.container(&config)?;
    let (output, text) = with_trace(t, &c, "trace.txt")?;
    output.refused()?;
    let trace = table(&text)?;
    check!(!trace.steps.is_empty(), "no steps: {text}");
    Ok(())
}

fn a_trace_of_an_unknown_form_is_refused(t: &Test) -> Outcome {
    let c = t.container(&t.shell("exit 0"))?;
    let (output, text) = with_trace(t, &c, "trace.pdf")?;
    contains("the error", &output.refused()?.stderr, ".json")?;
    check!(text.is_empty() && !t.dir.join("trace.pdf").exists(), "the file was made");
    c.state().map_or(Ok(()), |state| fail(format!("there is a container: {state}")))
}
