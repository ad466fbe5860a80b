//! Terminals and standard input: who sees which size, what comes through, and when it ends. Needs root and busybox.

#[macro_use]
mod play;

use play::*;
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// Says its size, then once more for each line that it reads.
const SIZES: &[&str] = &[
    "busybox",
    "sh",
    "-c",
    "busybox stty size; while read line; do echo got $line; busybox stty size; done",
];

fn with_terminal(stdin: &Path, stdout: &Path) -> Fields {
    Fields::default().number(4, 1).text(5, stdin.to_str().unwrap()).text(6, stdout.to_str().unwrap())
}

fn resize(shim: &Shim, exec: &str, rows: u64, columns: u64) {
    shim.call("ResizePty", of(exec).number(3, columns).number(4, rows)).unwrap();
}

/// Fails where the shim does not read.
fn open_writer(fifo: &Path) -> File {
    File::options().write(true).custom_flags(libc::O_NONBLOCK).open(fifo).unwrap()
}

/// What comes until the shim closes the fifo.
fn read_rest(fifo: &mut File) -> Vec<u8> {
    let (end, mut all) = (Instant::now() + Duration::from_secs(10), Vec::new());
    let mut part = [0; 65536];
    loop {
        match fifo.read(&mut part) {
            Ok(0) => return all,
            Ok(length) => all.extend(&part[..length]),
            Err(_) => std::thread::sleep(Duration::from_millis(2)),
        }
        assert!(Instant::now() < end, "the fifo stays open");
    }
}

#[test]
#[ignore = "needs root"]
fn a_container_sees_the_size_of_its_terminal_and_each_change() {
    let shim = prepared!("tty", SIZES, &|config| {
        config["process"]["terminal"] = true.into();
        config["process"]["consoleSize"] = serde_json::json!({ "height": 31, "width": 101 });
    });
    let (stdin, stdout) = (shim.fifo("stdin"), shim.fifo("stdout"));
    let mut output = open_reader(&stdout);
    shim.create_with("a", with_terminal(&stdin, &stdout)).unwrap();
    let mut input = open_writer(&stdin);
    shim.of("Start", "").unwrap();
    assert_eq!(read_until(&mut output, "\n"), "31 101\r\n");
    resize(&shim, "", 50, 132);
    input.write_all(b"x\n").unwrap();
    read_until(&mut output, "got x\r\n50 132");
    let state = fields(&shim.of("State", "").unwrap());
    assert_eq!((number(&state, 8), text(&state, 5)), (1, stdin.to_str().unwrap().to_string()));
    shim.remove();
    read_rest(&mut output);
    shim.end();
}

#[test]
#[ignore = "needs root"]
fn a_size_that_is_set_before_the_start_is_there_at_the_start() {
    let shim = prepared!("tty-early", SIZES, &|config| config["process"]["terminal"] = true.into());
    let stdout = shim.fifo("stdout");
    let mut output = open_reader(&stdout);
    shim.create_with("a", Fields::default().number(4, 1).text(6, stdout.to_str().unwrap())).unwrap();
    resize(&shim, "", 7, 9);
    shim.of("Start", "").unwrap();
    assert_eq!(read_until(&mut output, "\n"), "7 9\r\n");
    shim.remove();
    shim.end();
}

#[test]
#[ignore = "needs root"]
fn an_exec_has_a_terminal_of_its_own() {
    let shim = prepared!("tty-exec", &["busybox", "sleep", "1000"], &|_| ());
    shim.create("").unwrap();
    shim.of("Start", "").unwrap();
    let (stdin, stdout) = (shim.fifo("stdin"), shim.fifo("stdout"));
    let mut output = open_reader(&stdout);
    let named = of("e").number(3, 1).text(4, stdin.to_str().unwrap()).text(5, stdout.to_str().unwrap());
    let size = serde_json::json!({ "terminal": true, "consoleSize": { "height": 20, "width": 60 } });
    shim.exec_with(named, SIZES, size).unwrap();
    // It has none yet.
    resize(&shim, "e", 1, 1);
    shim.of("Start", "e").unwrap();
    assert_eq!(read_until(&mut output, "\n"), "20 60\r\n");
    resize(&shim, "e", 21, 61);
    let mut input = open_writer(&stdin);
    input.write_all(b"one\n").unwrap();
    read_until(&mut output, "got one\r\n21 61");
    // Nothing more comes in; that is no end of the terminal. Control-D is.
    input.write_all(b"\x04").unwrap();
    shim.call("CloseIO", of("e").number(3, 1)).unwrap();
    assert_eq!(number(&fields(&shim.of("Wait", "e").unwrap()), 1), 0);
    shim.of("Delete", "e").unwrap();
    read_rest(&mut output);
    shim.remove();
    shim.end();
}

#[test]
#[ignore = "needs root"]
fn all_output_of_a_terminal_comes_through_to_a_slow_reader() {
    let command = ["busybox", "sh", "-c", "i=0; while [ $i -lt 20000 ]; do echo line-$i; i=$((i+1)); done"];
    let shim = prepared!("tty-slow", &command, &|config| config["process"]["terminal"] = true.into());
    let stdout = shim.fifo("stdout");
    let mut output = open_reader(&stdout);
    shim.create_with("a", Fields::default().number(4, 1).text(6, stdout.to_str().unwrap())).unwrap();
    shim.of("Start", "").unwrap();
    std::thread::sleep(Duration::from_millis(300));
    let text = read_until(&mut output, "line-19999\r\n");
    shim.of("Wait", "").unwrap();
    shim.of("Delete", "").unwrap();
    let expected: String = (0..20000).map(|number| format!("line-{number}\r\n")).collect();
    assert!(text == expected, "{} bytes of {}", text.len(), expected.len());
    shim.end();
}

/// containerd has its end of the fifo open for as long as it lives, and starts anew while containers run.
#[test]
#[ignore = "needs root"]
fn standard_input_ends_with_close_io_and_not_with_a_client() {
    let command = ["busybox", "sh", "-c", "while read line; do echo got $line; done; echo end"];
    let shim = prepared!("stdin", &command, &|_| ());
    let (stdin, stdout) = (shim.fifo("stdin"), shim.fifo("stdout"));
    let mut output = open_reader(&stdout);
    let named = Fields::default().text(5, stdin.to_str().unwrap()).text(6, stdout.to_str().unwrap());
    shim.create_with("a", named).unwrap();
    shim.of("Start", "").unwrap();
    for name in ["first\n", "second\n"] {
        open_writer(&stdin).write_all(name.as_bytes()).unwrap();
        read_until(&mut output, name);
        std::thread::sleep(Duration::from_millis(50));
        // It does not say standard input: nothing is closed.
        shim.call("CloseIO", of("")).unwrap();
    }
    let mut last = open_writer(&stdin);
    last.write_all(b"third\n").unwrap();
    // What is in the fifo comes first; a client that keeps its end does not matter.
    shim.call("CloseIO", of("").number(3, 1)).unwrap();
    assert_eq!(read_until(&mut output, "end"), "got third\nend\n");
    assert_eq!(number(&fields(&shim.of("Wait", "").unwrap()), 1), 0);
    shim.of("Delete", "").unwrap();
    shim.end();
}
