//! Where the output of a process goes: files, logging programs, fifos whose reader comes and goes. Needs root and
//! busybox.

mod play;

use play::*;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const SAYING: &str = "echo out; echo err >&2; exit 7";

macro_rules! shim {
    ($name:expr, $script:expr) => {
        shim!($name, $script, &|_| ())
    };
    ($name:expr, $script:expr, $edit:expr) => {
        match missing() {
            Some(reason) => return eprintln!("{reason}"),
            None => {
                let mut shim = Shim::prepare($name, &["busybox", "sh", "-c", $script], $edit);
                fs::write(log_of(&shim), "").unwrap();
                shim.launch(&[], Fields::default());
                shim
            }
        }
    };
}

/// What containerd reads.
fn log_of(shim: &Shim) -> PathBuf {
    shim.bundle_of("a").join("log")
}

fn create(shim: &Shim, stdout: &str, stderr: &str) -> Answer {
    shim.create_with("a", Fields::default().text(6, stdout).text(7, stderr))
}

fn start_and_wait(shim: &Shim, exec: &str) -> u64 {
    shim.of("Start", exec).unwrap();
    number(&fields(&shim.of("Wait", exec).unwrap()), 1)
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn failure_of(answer: Answer) -> String {
    answer.expect_err("it must fail").message
}

#[test]
#[ignore = "needs root"]
fn a_file_has_what_both_outputs_say_behind_what_was_in_it() {
    let shim = shim!("file", "echo more >> /dev/stdout; echo err >&2; exit 7");
    let file = shim.directory.join("not there/log");
    let uri = format!("file://{}", file.to_str().unwrap().replace(' ', "%20"));
    create(&shim, &uri, "").unwrap();
    assert_eq!(start_and_wait(&shim, ""), 7);
    shim.of("Delete", "").unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&file), mode(file.parent().unwrap())), (0o644, 0o755));
    let mut lines: Vec<String> = read(&file).lines().map(String::from).collect();
    lines.sort();
    assert_eq!(lines, ["err", "more"]);
    // Again, each into its own: by a path, and by a URI.
    let other = shim.directory.join("other");
    create(&shim, file.to_str().unwrap(), &format!("file://{}", other.display())).unwrap();
    assert_eq!(start_and_wait(&shim, ""), 7);
    shim.of("Delete", "").unwrap();
    assert_eq!(
        (read(&file).lines().count(), read(&file).ends_with("more\n"), read(&other)),
        (3, true, "err\n".into())
    );
    shim.end();
}

#[test]
#[ignore = "needs root"]
fn a_fifo_that_is_missing_is_an_error_that_leaves_nothing() {
    let shim = shim!("missing", SAYING);
    for (stdin, stdout) in [("/nowhere/in", ""), ("", "/nowhere/out"), ("", "fifo:///nowhere/out")] {
        let streams = Fields::default().text(5, stdin).text(6, stdout);
        let message = failure_of(shim.create_with("a", streams));
        let wanted = format!(
            "OCI runtime create failed: open /nowhere/{}: No such file",
            if stdin.is_empty() { "out" } else { "in" }
        );
        assert!(message.starts_with(&wanted), "{message}");
        shim.check_nothing_left();
    }
    let refused =
        [("binary:///x", "", ""), ("/dev/zero", "", ""), ("", "", "binary:///x"), ("", "http:///x", "")];
    for (stdin, stdout, stderr) in refused {
        let streams = Fields::default().text(5, stdin).text(6, stdout).text(7, stderr);
        assert_eq!(shim.create_with("a", streams).unwrap_err().code, 3);
    }
    create(&shim, "", "").unwrap();
    assert_eq!(start_and_wait(&shim, ""), 7);
    shim.of("Delete", "").unwrap();
    shim.end();
}

/// The process waits while nobody reads, and what it says is lost to no reader.
#[test]
#[ignore = "needs root"]
fn a_reader_that_goes_is_followed_by_one_that_gets_the_rest() {
    const LAST: u32 = 60000;
    let shim = shim!("reader", &format!("busybox seq 1 {LAST}"));
    let fifo = shim.fifo("out");
    create(&shim, fifo.to_str().unwrap(), "").unwrap();
    shim.of("Start", "").unwrap();
    let mut all = vec![0; 50_000];
    File::open(&fifo).unwrap().read_exact(&mut all).unwrap();
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(number(&fields(&shim.of("State", "").unwrap()), 4), 2, "it has ended without its reader");
    // Before the shim lets go of its own end, there is no end of the file.
    let mut reader = File::open(&fifo).unwrap();
    let end = format!("\n{LAST}\n");
    while !all.ends_with(end.as_bytes()) {
        let mut part = [0; 65536];
        let length = reader.read(&mut part).unwrap();
        assert!(length > 0, "the file ends at {} bytes", all.len());
        all.extend(&part[..length]);
    }
    assert_eq!(number(&fields(&shim.of("Wait", "").unwrap()), 1), 0);
    shim.of("Delete", "").unwrap();
    let wanted: String = (1..=LAST).map(|number| format!("{number}\n")).collect();
    assert!(all == wanted.as_bytes(), "what was read differs from what was said");
    shim.end();
}

struct Logger {
    output: PathBuf,
    uri: String,
}

impl Logger {
    /// Of `script`, which gets the path of its output as `$2`.
    fn new(shim: &Shim, scheme: &str, script: &str) -> Self {
        let (program, output) = (shim.directory.join("a logger"), shim.directory.join("logged"));
        fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
        let name = program.to_str().unwrap().replace(' ', "%20");
        let uri = format!("{scheme}://{name}?out={}&x=y+z", output.display());
        Self { output, uri }
    }
}

/// A fifo that nobody reads is as a disk that hangs. There are more of them than verbs at once.
#[test]
#[ignore = "needs root"]
fn files_that_hang_hold_up_no_verb() {
    let shim = shim!("hang", "exec busybox sleep 1000");
    create(&shim, "", "").unwrap();
    shim.of("Start", "").unwrap();
    let fifo = shim.fifo("disk");
    let _reader = open_reader(&fifo);
    for number in 0..70 {
        let name = format!("e{number}");
        let streams = of(&name).text(5, &format!("file://{}", fifo.display()));
        shim.exec_with(streams, &["busybox", "cat", "/dev/zero"], serde_json::json!({})).unwrap();
        shim.of("Start", &name).unwrap();
    }
    std::thread::sleep(Duration::from_millis(500));
    shim.of("Stats", "").unwrap();
    shim.remove();
    shim.end();
}

/// Descendants of the shim that are not the container's, a zombie among them.
fn children_of(shim: &Shim) -> Vec<String> {
    let pid = shim.pid();
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
    let children = tasks.map(|task| read(&task.path().join("children")));
    let children: String = children.collect();
    children.split_whitespace().map(|pid| read(Path::new(&format!("/proc/{pid}/stat")))).collect()
}

const LOG_BOTH: &str = "exec 5>&-\nwhile read -r l; do echo \"out: $l\" >> $2; done <&3\n\
    while read -r l; do echo \"err: $l\" >> $2; done <&4\n\
    { printf '%s|' \"$@\"; tr '\\0' '|' < /proc/$$/environ; } >> $2";

#[test]
#[ignore = "needs root"]
fn a_logging_program_has_both_outputs_its_arguments_and_nothing_else() {
    let shim = shim!("logger", SAYING);
    let logger = Logger::new(&shim, "binary", LOG_BOTH);
    create(&shim, &logger.uri, &logger.uri).unwrap();
    assert_eq!(start_and_wait(&shim, ""), 7);
    let begin = Instant::now();
    shim.of("Delete", "").unwrap();
    assert!(begin.elapsed() < Duration::from_millis(900), "{:?}", begin.elapsed());
    let wanted = format!(
        "out: out\nerr: err\nout|{}|x|y z|CONTAINER_ID=a|CONTAINER_NAMESPACE={}|",
        logger.output.display(),
        shim.name
    );
    assert_eq!(read(&logger.output), wanted);
    assert_eq!((read(&log_of(&shim)).as_str(), children_of(&shim)), ("", vec![]));
    shim.end();
}

#[test]
#[ignore = "needs root"]
fn an_exec_and_a_terminal_have_their_logging_programs() {
    let edit = |config: &mut serde_json::Value| {
        config["process"]["terminal"] = true.into();
        let devpts = serde_json::json!({ "destination": "/dev/pts", "type": "devpts", "source": "devpts" });
        config["mounts"].as_array_mut().unwrap().push(devpts);
    };
    let shim = shim!("logger-exec", "echo terminal; exec busybox sleep 1000", &edit);
    let logger = Logger::new(&shim, "binary-v2", &format!("echo >&5\n{LOG_BOTH}"));
    let streams = Fields::default().number(4, 1).text(6, &logger.uri);
    shim.create_with("a", streams).unwrap();
    shim.of("Start", "").unwrap();
    await_that("the terminal's output is logged", || read(&logger.output) == "out: terminal\r\n");
    let streams = of("e").text(5, &logger.uri);
    shim.exec_with(streams, &["busybox", "sh", "-c", SAYING], serde_json::json!({})).unwrap();
    assert_eq!(start_and_wait(&shim, "e"), 7);
    shim.of("Delete", "e").unwrap();
    assert!(
        read(&logger.output).starts_with("out: terminal\r\nout: out\nerr: err\n"),
        "{}",
        read(&logger.output)
    );
    shim.remove();
    assert_eq!(children_of(&shim), Vec::<String>::new());
    shim.end();
}

/// Each of them is no reason for a container without its log, and none leaves a process.
#[test]
#[ignore = "needs root"]
fn a_logging_program_that_is_not_ready_is_an_error_that_leaves_nothing() {
    let shim = shim!("logger-bad", SAYING);
    let silent = Logger::new(&shim, "binary", "trap '' TERM; exec sleep 1000");
    let begin = Instant::now();
    let message = failure_of(create(&shim, &silent.uri, ""));
    assert!(message.contains("a logger: it did not say within 10s that it is ready; hint: "), "{message}");
    assert!(begin.elapsed() < Duration::from_secs(12), "{:?}", begin.elapsed());
    shim.check_nothing_left();
    let closing = Logger::new(&shim, "binary-v2", "exec 5>&-; exec sleep 1000");
    let message = failure_of(create(&shim, &closing.uri, ""));
    assert!(message.ends_with("a logger: it did not say that it is ready"), "{message}");
    let message = failure_of(create(&shim, "binary:///nowhere/log", ""));
    assert_eq!(
        message,
        "OCI runtime create failed: execute /nowhere/log: No such file or directory (os error 2)"
    );
    // A program that is ready, for a container that cannot be made.
    let ready = Logger::new(&shim, "binary", "exec 5>&-; exec sleep 1000");
    fs::remove_file(shim.directory.join("image/bin/busybox")).unwrap();
    let made = create(&shim, &ready.uri, "").and_then(|_| shim.of("Start", ""));
    assert!(failure_of(made).contains("executable file not found"));
    shim.check_nothing_left();
    assert_eq!(children_of(&shim), Vec::<String>::new());
    shim.end();
}

#[test]
#[ignore = "needs root"]
fn the_end_of_a_logging_program_does_not_stop_the_container() {
    let script = "busybox sleep 0.3; busybox dd if=/dev/zero bs=1M count=4 && busybox dd if=/dev/zero bs=1M count=1 >&2 && exit 7";
    let shim = shim!("logger-dead", script);
    let logger = Logger::new(&shim, "binary", "exec 5>&-; exit 1");
    create(&shim, &logger.uri, &logger.uri).unwrap();
    assert_eq!(start_and_wait(&shim, ""), 7);
    shim.of("Delete", "").unwrap();
    assert!(read(&log_of(&shim)).contains("what the container still says is discarded"));
    assert_eq!(children_of(&shim), Vec::<String>::new());
    shim.end();
}

#[test]
#[ignore = "needs root"]
fn the_log_of_an_exec_that_is_not_deleted_is_whole() {
    let shim = shim!("logger-undeleted", "exec busybox sleep 1000");
    create(&shim, "", "").unwrap();
    shim.of("Start", "").unwrap();
    let logger = Logger::new(&shim, "binary", "exec 5>&-\ncat <&3 > /dev/null\nsleep 0.5\necho whole > $2");
    let streams = of("e").text(5, &logger.uri);
    shim.exec_with(streams, &["busybox", "true"], serde_json::json!({})).unwrap();
    assert_eq!(start_and_wait(&shim, "e"), 0);
    shim.remove();
    assert_eq!(read(&logger.output), "whole\n");
    assert_eq!(children_of(&shim), Vec::<String>::new());
    shim.end();
}

#[test]
#[ignore = "needs root"]
fn a_logging_program_that_does_not_end_is_asked_to() {
    let shim = shim!("logger-term", SAYING);
    let logger = Logger::new(
        &shim,
        "binary",
        "trap 'echo asked > $2; exit' TERM\nexec 5>&-\nwhile :; do sleep 0.1; done",
    );
    create(&shim, &logger.uri, &logger.uri).unwrap();
    assert_eq!(start_and_wait(&shim, ""), 7);
    let begin = Instant::now();
    shim.of("Delete", "").unwrap();
    assert!((900..5000).contains(&begin.elapsed().as_millis()), "{:?}", begin.elapsed());
    assert_eq!(read(&logger.output), "asked\n");
    assert_eq!(children_of(&shim), Vec::<String>::new());
    shim.end();
}

/// Nobody reads it: to open it would take for ever.
#[test]
#[ignore = "needs root"]
fn a_fifo_as_a_file_is_an_error_at_once() {
    let shim = shim!("file-fifo", SAYING);
    let fifo = shim.fifo("out");
    let message = failure_of(create(&shim, &format!("file://{}", fifo.display()), ""));
    assert!(message.contains("out: No such device or address"), "{message}");
    shim.end();
}
