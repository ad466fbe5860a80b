//! Findings about a bundle as cargo shows those about a program: file, line and column, the line, and a mark under
//! what is meant. The drawing is annotate-snippets'.
//!
//! The text is not trusted: what could steer a terminal is replaced before it is printed.

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{AnnotationKind, Level, Origin, Renderer, Snippet};
use libruntime::{BundleReport, Diagnostic, Severity, Span};

/// A longer line is not shown: a configuration without line breaks may be one of megabytes.
const LONGEST_LINE: usize = 2000;

pub fn render(report: &BundleReport, colors: bool) -> String {
    let renderer = if colors { Renderer::styled() } else { Renderer::plain() };
    let renderer = renderer.decor_style(DecorStyle::Ascii);
    let path = printable(&report.config.display().to_string());
    let mut text = String::new();
    for one in &report.diagnostics {
        text.push_str(&of_one(one, report.text(), &path, &renderer));
        text.push_str("\n\n");
    }
    text + &summary(report, &path)
}

fn of_one(one: &Diagnostic, text: &str, path: &str, renderer: &Renderer) -> String {
    let level = match one.severity {
        Severity::Warning => Level::WARNING,
        _ => Level::ERROR,
    };
    let title = level.primary_title(printable(&one.to_string())).id(one.code.name());
    let mut group = annotate_snippets::Group::with_title(title);
    group = match one.span {
        None => group.element(Origin::path(path)),
        Some(span) => match line_of(text, span) {
            Some((line, start)) => group.element(
                Snippet::source(printable_line(line))
                    .path(path)
                    .line_start(span.start.line)
                    .fold(false)
                    .annotation(
                        AnnotationKind::Primary
                            .span(span.start.offset - start..(span.end.offset - start).min(line.len())),
                    ),
            ),
            None => group.element(Origin::path(path).line(span.start.line).char_column(span.start.column)),
        },
    };
    if let Some(hint) = &one.hint {
        group = group.element(Level::HELP.message(printable(hint)));
    }
    renderer.render(&[group])
}

/// The line that a span begins in, and the offset at which the line begins.
fn line_of(text: &str, span: Span) -> Option<(&str, usize)> {
    let at = span.start.offset;
    let start = text.get(..at)?.rfind('\n').map_or(0, |end| end + 1);
    let end = text[at..].find('\n').map_or(text.len(), |end| at + end);
    (end - start <= LONGEST_LINE).then(|| (&text[start..end], start))
}

/// Control characters as escapes.
fn printable(text: &str) -> String {
    let escape = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    text.chars().map(escape).collect()
}

/// The control characters beyond ASCII have two bytes, as has what stands for them, so that places stay. Those of ASCII
/// are replaced where the line is drawn.
fn printable_line(line: &str) -> String {
    line.chars().map(|c| if ('\u{80}'..='\u{9f}').contains(&c) { '·' } else { c }).collect()
}

fn summary(report: &BundleReport, path: &str) -> String {
    let some = |count: usize, noun: &str| match count {
        1 => format!("1 {noun}"),
        _ => format!("{count} {noun}s"),
    };
    let (errors, warnings) = (some(report.errors(), "error"), some(report.warnings(), "warning"));
    match (report.errors(), report.warnings()) {
        (0, 0) => format!("{path}: no problem found\n"),
        (0, _) => format!("{path}: {warnings}\n"),
        (_, 0) => format!("{path}: {errors}\n"),
        _ => format!("{path}: {errors}, {warnings}\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_terminal_obeys_is_printed() {
        assert_eq!(printable("a\u{1b}[31m\u{9b}x\n"), "a\\u{1b}[31m\\u{9b}x\\n");
        let line = printable_line("\u{9b}31mä");
        assert_eq!((line.as_str(), line.len()), ("·31mä", "\u{9b}31mä".len()));
    }

    #[test]
    fn a_finding_has_its_place_and_a_mark_under_it() {
        let directory = std::env::temp_dir().join(format!("onggi-snippets-{}", std::process::id()));
        std::fs::create_dir_all(directory.join("rootfs")).unwrap();
        let text = "{\n  \"ociVersion\": \"1.3.0\",\n  \"root\": { \"path\": \"rootfs\" },\n  \"hostname\": 7\u{9b}\n}\n";
        std::fs::write(directory.join("config.json"), text.replace('\u{9b}', "")).unwrap();
        let report = libruntime::Runtime::new(directory.join("store")).check_bundle(&directory).unwrap();
        let path = directory.join("config.json").display().to_string();
        let expected = format!(
            "error[wrong-type]: hostname: is 7; expected a string\n --> {path}:4:15\n  |\n4 |   \"hostname\": 7\n  |               ^\n\n{path}: 1 error\n"
        );
        assert_eq!(render(&report, false), expected);
        std::fs::remove_dir_all(directory).unwrap();
    }
}
