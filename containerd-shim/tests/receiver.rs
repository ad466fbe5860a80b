//! A process that takes the events, as containerd does, and is stopped or dies. Needs root and busybox.

mod play;

use play::*;
use std::fs;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

const SLEEP: &[&str] = &["busybox", "sleep", "1000"];
/// What happens to a container from its creation to its deletion.
const LIFE: [&str; 4] = ["create", "start", "exit", "delete"];

fn live(shim: &Shim, id: &str) {
    let of = || of_container(id, "");
    shim.create_with(id, Fields::default()).unwrap();
    shim.call("Start", of()).unwrap();
    shim.call("Kill", of().number(3, 9)).unwrap();
    shim.call("Wait", of()).unwrap();
    shim.call("Delete", of()).unwrap();
}

fn started(name: &str, ids: &[&str]) -> Option<Shim> {
    if let Some(reason) = missing() {
        eprintln!("{reason}");
        return None;
    }
    let shim = Shim::start(name, SLEEP);
    ids.iter().for_each(|id| shim.add(id, SLEEP));
    Some(shim)
}

fn check_lives(shim: &Shim, ids: &[&str]) {
    let events = shim.await_event(&format!("delete {}", ids[ids.len() - 1]));
    let expected: Vec<String> =
        ids.iter().flat_map(|id| LIFE.iter().map(move |event| format!("{event} {id}"))).collect();
    assert_eq!(events, expected);
}

#[test]
#[ignore = "needs root"]
fn a_receiver_that_is_stopped_holds_up_nothing_and_has_each_event_once_after() {
    let ids = ["b", "c", "d", "e"];
    let Some(shim) = started("stopped", &ids) else { return };
    shim.receiver.store(IS_STOPPED, Ordering::Relaxed);
    // Longer than the time after which an event could be thought to be lost.
    let (begin, mut times) = (Instant::now(), Vec::new());
    std::thread::scope(|scope| {
        scope.spawn(|| ids.iter().for_each(|id| live(&shim, id)));
        let mut socket = shim.connect();
        for number in 0.. {
            let asked = Instant::now();
            send(&mut socket, 1 + 2 * number, 1, &request("State", of_container("b", "")));
            receive(&mut socket).unwrap();
            times.push(asked.elapsed());
            if begin.elapsed() > Duration::from_secs(7) {
                break;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    });
    times.sort();
    let at = |percent: usize| times[(times.len() - 1) * percent / 100];
    eprintln!("State: {:?} median, {:?} 99 %, {:?} most, of {}", at(50), at(99), at(100), times.len());
    // Other processes may have the processors now and then.
    let late: Duration = times.iter().filter(|time| **time > Duration::from_millis(5)).sum();
    assert!(at(50) < Duration::from_millis(5) && late < Duration::from_millis(700), "{late:?} of 7 s late");
    shim.receiver.store(SERVES, Ordering::Relaxed);
    check_lives(&shim, &ids);
    shim.end();
}

#[test]
#[ignore = "needs root"]
fn events_wait_for_a_receiver_that_dies_and_comes_back() {
    let ids = ["b", "c", "d"];
    let Some(shim) = started("restart", &ids) else { return };
    live(&shim, "b");
    shim.await_event("delete b");
    // It dies with the next event, and its socket goes.
    shim.receiver.store(HANGS_UP, Ordering::Relaxed);
    live(&shim, "c");
    let (socket, away) = (shim.directory.join("events/s"), shim.directory.join("events/away"));
    fs::rename(&socket, &away).unwrap();
    live(&shim, "d");
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(shim.events.lock().unwrap().len(), 4);
    shim.receiver.store(SERVES, Ordering::Relaxed);
    fs::rename(&away, &socket).unwrap();
    check_lives(&shim, &ids);
    shim.end();
}
