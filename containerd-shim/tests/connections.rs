//! Clients that come back, many of them, and ones that are not well-behaved. Needs root and busybox.

mod play;

use play::*;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

const SLEEP: &[&str] = &["busybox", "sleep", "1000"];

/// A shim with container `a` running; or the test ends here.
macro_rules! running {
    ($name:expr) => {
        match missing() {
            Some(reason) => return eprintln!("{reason}"),
            None => {
                let shim = Shim::start($name, SLEEP);
                shim.create("").unwrap();
                shim.of("Start", "").unwrap();
                shim
            }
        }
    };
}

fn resident(pid: i32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn descriptors(pid: i32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

#[test]
#[ignore = "needs root"]
fn a_client_that_comes_back_finds_everything_as_it_was() {
    let shim = running!("back");
    let pid = number(&fields(&shim.of("State", "").unwrap()), 3);
    let of_shim = shim.pid();
    // Waits of a client that goes away.
    let mut first = shim.connect();
    send(&mut first, 1, 1, &request("Wait", of("")));
    let half = frame(3, &request("State", of("")));
    first.write_all(&half[..half.len() / 2]).unwrap();
    drop(first);
    let state = fields(&shim.of("State", "").unwrap());
    assert_eq!((number(&state, 3), number(&state, 4)), (pid, 2));
    let connect = fields(&shim.of("Connect", "").unwrap());
    assert_eq!((number(&connect, 1) as i32, number(&connect, 2)), (of_shim, pid));
    let pids = fields(&shim.of("Pids", "").unwrap());
    assert_eq!(number(&fields(&pids[&1].1), 1), pid);
    // The end of it while nobody is there.
    shim.call("Kill", of("").number(3, 9)).unwrap();
    shim.await_event("exit a");
    assert_eq!(number(&fields(&shim.of("Wait", "").unwrap()), 1), 137);
    shim.of("Delete", "").unwrap();
    shim.end();
}

#[test]
#[ignore = "needs root"]
fn many_clients_are_served_beside_each_other() {
    let shim = running!("many");
    let mut waiting: Vec<UnixStream> = (0..100).map(|_| shim.connect()).collect();
    for (at, socket) in waiting.iter_mut().enumerate() {
        send(socket, 1 + 2 * at as u32, 1, &request("Wait", of("")));
    }
    for (at, socket) in waiting.iter_mut().enumerate() {
        send(socket, 3 + 2 * at as u32, 1, &request("State", of("")));
        let (stream, message) = receive(socket).unwrap();
        assert_eq!(stream, 3 + 2 * at as u32);
        answer(&message).unwrap();
    }
    shim.call("Kill", of("").number(3, 9)).unwrap();
    for (at, socket) in waiting.iter_mut().enumerate() {
        let (stream, message) = receive(socket).unwrap();
        assert_eq!((stream, number(&fields(&answer(&message).unwrap()), 1)), (1 + 2 * at as u32, 137));
    }
    shim.of("Delete", "").unwrap();
    shim.end();
}

#[test]
#[ignore = "needs root"]
fn connections_without_number_take_no_descriptors_without_number() {
    let shim = running!("flood");
    let (pid, mut early) = (shim.pid(), shim.connect());
    let before = descriptors(pid);
    let connections: Vec<UnixStream> = (0..3000).map(|_| shim.connect()).collect();
    send(&mut early, 1, 1, &request("State", of("")));
    answer(&receive(&mut early).unwrap().1).unwrap();
    let most = descriptors(pid);
    assert!(most < before + 300, "{most} descriptors");
    // Closed ones make place for others.
    drop(connections);
    await_that("served again", || matches!(shim.try_call("State", of("")), Ok(Ok(_))));
    await_that("descriptors closed", || descriptors(pid) <= before + 3);
    shim.remove();
    shim.end();
}

/// Sends requests for as long as they are taken; returns how many.
fn send_all(socket: &mut UnixStream, most: u32) -> u32 {
    socket.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    let request = request("State", of(""));
    for number in 0..most {
        if socket.write_all(&frame(1 + 2 * number, &request)).is_err() {
            return number;
        }
    }
    most
}

#[test]
#[ignore = "needs root"]
fn a_client_that_takes_no_answers_takes_no_memory_and_no_time() {
    let shim = running!("deaf");
    let (pid, mut deaf) = (shim.pid(), shim.connect());
    let before = resident(pid);
    let sent = send_all(&mut deaf, 200_000);
    assert!(sent < 200_000, "all of them were read");
    let grown = resident(pid).saturating_sub(before);
    assert!(grown < 8 << 10, "{grown} kB more");
    let begin = Instant::now();
    shim.of("State", "").unwrap();
    assert!(begin.elapsed() < Duration::from_millis(500), "{:?}", begin.elapsed());
    // When it listens again, it has all its answers.
    let taken = (0..sent).filter(|_| receive(&mut deaf).is_ok_and(|(_, message)| answer(&message).is_ok()));
    assert_eq!(taken.count() as u32, sent);
    shim.remove();
    shim.end();
}

#[test]
#[ignore = "needs root"]
fn waits_of_clients_that_are_gone_are_forgotten() {
    let shim = running!("waits");
    let pid = shim.pid();
    let wait = |_| {
        let mut socket = shim.connect();
        send(&mut socket, 1, 1, &request("Wait", of("")));
        send(&mut socket, 3, 1, &request("Connect", of("")));
        receive(&mut socket).unwrap();
    };
    (0..500).for_each(wait);
    let before = resident(pid);
    (0..20_000).for_each(wait);
    let grown = resident(pid).saturating_sub(before);
    assert!(grown < 1 << 10, "{grown} kB more");
    shim.remove();
    shim.end();
}
