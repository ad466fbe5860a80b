//! Many containers and execs: what a shim takes, and that it gives it back. `SHIM` names a build to measure.
//! Needs root and busybox.

mod play;

use play::*;
use std::fs;
use std::time::{Duration, Instant};

const SLEEP: &[&str] = &["busybox", "sleep", "1000"];
const PODS: usize = 10;
const IDS: [&str; 10] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"];
/// For each pod.
const EXECS: usize = 100;
/// After which workers that are not used have ended, and the shim has given its text back.
const IDLE: Duration = Duration::from_millis(3500);

/// What one process has of the machine: memory in kB. Printed, and compared in part.
#[allow(dead_code)]
#[derive(Debug)]
struct Use {
    resident: u64,
    proportional: u64,
    /// Nobody shares it, and no file has it.
    anonymous: u64,
    threads: usize,
    descriptors: usize,
}

fn use_of(pid: i32) -> Use {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let kb = |name: &str| -> u64 {
        let line = rollup.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    let count = |name: &str| fs::read_dir(format!("/proc/{pid}/{name}")).unwrap().count();
    Use {
        resident: kb("Rss:"),
        proportional: kb("Pss:"),
        anonymous: kb("Anonymous:"),
        threads: count("task"),
        descriptors: count("fd"),
    }
}

fn pod(name: &str) -> Shim {
    let shim = Shim::start(name, SLEEP);
    IDS[1..].iter().for_each(|id| shim.add(id, SLEEP));
    shim
}

fn begin(shim: &Shim, id: &str) {
    shim.create_with(id, Fields::default()).unwrap();
    shim.call("Start", of_container(id, "")).unwrap();
}

fn remove(shim: &Shim, id: &str) {
    shim.call("Kill", of_container(id, "").number(3, 9)).unwrap();
    shim.call("Wait", of_container(id, "")).unwrap();
    shim.call("Delete", of_container(id, "")).unwrap();
}

fn exec(shim: &Shim, id: &str, name: &str) {
    let of = || of_container(id, name);
    shim.exec_with(of(), &["busybox", "true"], serde_json::json!({})).unwrap();
    shim.call("Start", of()).unwrap();
    assert_eq!(number(&fields(&shim.call("Wait", of()).unwrap()), 1), 0);
    shim.call("Delete", of()).unwrap();
}

#[test]
#[ignore = "needs root"]
fn ten_pods_of_ten_containers_and_a_thousand_execs_take_no_more_after_than_before() {
    if let Some(reason) = missing() {
        return eprintln!("{reason}");
    }
    let time = Instant::now();
    let pods: Vec<Shim> = (0..PODS).map(|at| pod(&format!("pod{at}"))).collect();
    pods.iter().for_each(|shim| IDS.iter().for_each(|id| begin(shim, id)));
    // The first execs make what is made once.
    pods.iter().for_each(|shim| IDS.iter().for_each(|id| exec(shim, id, "first")));
    std::thread::sleep(IDLE);
    let before: Vec<Use> = pods.iter().map(|shim| use_of(shim.pid())).collect();
    let run = |shim: &Shim| (0..EXECS).for_each(|at| exec(shim, IDS[at % 10], &format!("e{at}")));
    std::thread::scope(|scope| {
        pods.iter().for_each(|shim| drop(scope.spawn(move || run(shim))));
    });
    std::thread::sleep(IDLE);
    for (shim, before) in pods.iter().zip(&before) {
        let after = use_of(shim.pid());
        eprintln!("{before:?} -> {after:?}");
        assert_eq!(after.threads, 1);
        // One more is a connection of ours that it has not closed yet.
        assert!(after.descriptors <= before.descriptors + 1, "{before:?} -> {after:?}");
        assert!(after.anonymous <= before.anonymous + 256, "{before:?} -> {after:?}");
    }
    for shim in &pods {
        IDS.iter().for_each(|id| remove(shim, id));
        shim.end();
    }
    eprintln!("{:?}", time.elapsed());
}

fn time_of(work: impl FnOnce()) -> Duration {
    let begin = Instant::now();
    work();
    begin.elapsed()
}

#[test]
#[ignore = "needs root"]
fn a_container_costs_its_shim_little() {
    if let Some(reason) = missing() {
        return eprintln!("{reason}");
    }
    let shim = pod("cost");
    // A call of its own would wake the shim.
    let pid = shim.pid();
    std::thread::sleep(IDLE);
    let none = use_of(pid);
    begin(&shim, "a");
    std::thread::sleep(IDLE);
    let one = use_of(pid);
    IDS[1..].iter().for_each(|id| begin(&shim, id));
    std::thread::sleep(IDLE);
    let ten = use_of(pid);
    eprintln!("none: {none:?}\none: {one:?}\nten: {ten:?}");
    // The cost of the rest, for a build that is measured.
    let rounds = if std::env::var_os("SHIM").is_some() { 15 } else { 1 };
    let times = (0..rounds).map(|_| {
        std::thread::sleep(IDLE);
        [(); 2].map(|()| time_of(|| exec(&shim, "b", "timed")))
    });
    let (mut first, mut second): (Vec<_>, Vec<_>) = times.map(|[first, second]| (first, second)).unzip();
    first.sort();
    second.sort();
    eprintln!("an exec after a rest {:?}, and after another {:?}", first[rounds / 2], second[rounds / 2]);
    // Of a build for debugging, whose text is large: at rest it has none of it.
    assert!(ten.resident < 10 << 10, "{ten:?}");
    assert!(ten.anonymous - one.anonymous < 9 * 64, "{one:?}, {ten:?}");
    assert!(ten.descriptors - one.descriptors <= 9 * 8, "{one:?}, {ten:?}");
    IDS.iter().for_each(|id| remove(&shim, id));
    shim.end();
}

/// A service has 1024 of them, unless its unit says more.
#[test]
#[ignore = "needs root"]
fn a_shim_without_descriptors_refuses_execs_and_serves_on() {
    if let Some(reason) = missing() {
        return eprintln!("{reason}");
    }
    let shim = Shim::start("descriptors", SLEEP);
    begin(&shim, "a");
    let pid = shim.pid();
    let limit = libc::rlimit { rlim_cur: 100, rlim_max: 100 };
    // SAFETY: the kernel reads one rlimit at the address.
    assert_eq!(unsafe { libc::prlimit(pid, libc::RLIMIT_NOFILE, &limit, std::ptr::null_mut()) }, 0);
    let paths = ["stdin", "stdout", "stderr"].map(|name| shim.fifo(name).to_str().unwrap().to_string());
    let named = |name: &str| of(name).text(4, &paths[0]).text(5, &paths[1]).text(6, &paths[2]);
    let start = |name: &str| {
        shim.exec_with(named(name), SLEEP, serde_json::json!({ "rlimits": [] })).unwrap();
        shim.of("Start", name)
    };
    let refused = |failure: Status| assert!(failure.message.contains("open files"), "{failure:?}");
    let first = (0..20).find(|at| start(&format!("e{at}")).map_err(refused).is_err());
    let most = first.expect("twenty execs with a hundred descriptors");
    eprintln!("{most} execs");
    assert_eq!(shim.status(), 2);
    shim.of("Delete", &format!("e{most}")).unwrap();
    // All that they had comes back.
    for at in 0..most + 100 {
        let name = format!("e{at}");
        if at >= most {
            start(&name).unwrap();
        }
        shim.call("Kill", of(&name).number(3, 9)).unwrap();
        assert_eq!(number(&fields(&shim.of("Wait", &name).unwrap()), 1), 137);
        shim.of("Delete", &name).unwrap();
    }
    remove(&shim, "a");
    shim.end();
}
