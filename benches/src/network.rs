//! What a network adds to a container's life: `cargo run --release -p benches -- network [--check] [ROUNDS]`.
//! With `--check` it fails where that is more than it may be.
//!
//! Beside onggi: the CNI bridge plugin, called as containerd calls it, and Podman with netavark, each
//! where it is installed. They take turns, with a rest before each until nobody else works on this
//! machine, in network and mount namespaces of this program's own. All give a veth pair, an address, a default route and masquerading.

use crate::bundle::Place;
use crate::cgroups;
use crate::site::PREFIX;
use crate::stats::{Quartiles, quartiles};
use serde_json::{Value, json};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const REST: Duration = Duration::from_millis(100);
/// So many rests at most.
const PATIENCE: usize = 10;
const PLUGINS: [&str; 2] = ["/usr/lib/cni", "/opt/cni/bin"];

const ON_A_BRIDGE: &str = "onggi run, on a bridge in use";
const PLUGIN: &str = "CNI bridge plugin, ADD and DEL";
const BY_NETAVARK: &str = "podman run, on a bridge of netavark";

/// One thing that is timed. Preparation and cleaning up are not.
struct Work {
    name: &'static str,
    before: Option<Command>,
    timed: Vec<(Command, Option<String>)>,
    after: Option<Command>,
    samples: Vec<f64>,
}

pub fn main(args: &[String]) -> Result<(), String> {
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words[..] {
        ["--inside", "--check", rounds] => within_bounds(&measure(number(rounds)?)?),
        ["--inside", rounds] => measure(number(rounds)?).map(drop),
        [] => enter(&["40"]),
        ["--check"] => enter(&["--check", "40"]),
        ["--check", rounds] | [rounds] => number(rounds).and_then(|_| enter(&words)),
        _ => Err("usage: benches network [--check] [ROUNDS]".to_owned()),
    }
}

fn number(text: &str) -> Result<usize, String> {
    let rounds = text.parse().ok().filter(|rounds| *rounds > 0);
    rounds.ok_or_else(|| format!("{text:?} is no number of rounds"))
}

/// This program again, where nothing that it does is seen from outside.
fn enter(words: &[&str]) -> Result<(), String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let mut command = Command::new("unshare");
    command.args(["--net", "--mount", "--propagation", "private"]).arg(program);
    let status = command.args(["network", "--inside"]).args(words).status();
    match status.map_err(|error| format!("unshare: {error}"))?.success() {
        true => Ok(()),
        false => Err("see above".to_owned()),
    }
}

fn measure(rounds: usize) -> Result<Vec<Row>, String> {
    let hierarchies = cgroups::hierarchies()?;
    cgroups::remove_stale(&hierarchies, PREFIX, &std::env::temp_dir());
    let name = format!("{}{}", PREFIX, std::process::id());
    let place = Place::new(&name)?;
    // Runtimes remove a container's cgroup, but not what they made above it.
    let parent = cgroups::Parent::new(&hierarchies, &name)?;
    // Named namespaces and leases of plugins, which are gone with our mounts.
    shell(
        "mkdir -p /run/netns /var/lib/cni && mount -t tmpfs none /run/netns && mount -t tmpfs none /var/lib/cni",
    )?;
    shell("mount --make-shared /run/netns && ip link set lo up")?;
    let mut works = onggi(&place, &parent.name)?;
    works.extend(plugin()?);
    works.extend(podman(&place, &parent.name)?);
    let mut disturbed = 0;
    for round in 0..=rounds {
        for work in &mut works {
            disturbed += usize::from(!rest());
            let took = work.round()?;
            // The first one loads programs from the disk.
            if round > 0 {
                work.samples.push(took);
            }
        }
    }
    shell(&format!("{} delete --force holder", onggi_command(&place)?))?;
    let rows = rows(&works);
    report(&works, &rows);
    if disturbed > 0 {
        println!("{disturbed} of {} while somebody else was at work", works.len() * (rounds + 1));
    }
    Ok(rows)
}

/// Rests until the processors have been idle for nine tenths of a rest; whether they were.
fn rest() -> bool {
    for _ in 0..PATIENCE {
        let before = ticks();
        std::thread::sleep(REST);
        let after = ticks();
        if (after.0 - before.0) * 10 >= (after.1 - before.1) * 9 {
            return true;
        }
    }
    false
}

/// Of all processors since the boot: those idle, and all (proc_stat(5)).
fn ticks() -> (u64, u64) {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let fields = text.lines().next().unwrap_or_default().split_whitespace().skip(1);
    let fields: Vec<u64> = fields.take(8).map(|field| field.parse().unwrap_or(0)).collect();
    (fields.get(3).copied().unwrap_or(0), fields.iter().sum())
}

fn shell(text: &str) -> Result<(), String> {
    run(Command::new("sh").args(["-c", text]), None)
}

fn run(command: &mut Command, input: Option<&str>) -> Result<(), String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let failed = |error: std::io::Error| format!("{name}: {error}");
    command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().map_err(failed)?;
    if let (Some(text), Some(mut stdin)) = (input, child.stdin.take()) {
        stdin.write_all(text.as_bytes()).map_err(failed)?;
    }
    let output = child.wait_with_output().map_err(failed)?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

impl Work {
    fn new(name: &'static str, timed: Vec<(Command, Option<String>)>) -> Self {
        Self { name, before: None, timed, after: None, samples: Vec::new() }
    }

    fn round(&mut self) -> Result<f64, String> {
        if let Some(before) = &mut self.before {
            run(before, None)?;
        }
        let begin = Instant::now();
        for (command, input) in &mut self.timed {
            run(command, input.as_deref())?;
        }
        let took = begin.elapsed().as_secs_f64() * 1e3;
        if let Some(after) = &mut self.after {
            run(after, None)?;
        }
        Ok(took)
    }
}

fn words(text: &str) -> Command {
    let mut words = text.split_whitespace();
    let mut command = Command::new(words.next().unwrap_or_default());
    command.args(words);
    command
}

fn onggi_command(place: &Place) -> Result<String, String> {
    let program = crate::peers::find(Some(&["onggi".to_owned()]))?;
    let program = program.first().ok_or("no onggi; name it in $ONGGI")?.program.clone();
    Ok(format!("{} --root {}", program.display(), place.dir.join("state").display()))
}

/// A bridge that another container is on, and one that comes and goes with the container.
fn onggi(place: &Place, cgroup: &str) -> Result<Vec<Work>, String> {
    let onggi = onggi_command(place)?;
    let holder =
        place.bundle("holder", &place.config(&format!("{cgroup}/holder"), &["sleep", "1000"], true))?;
    let bundle = place.bundle("true", &place.config(&format!("{cgroup}/true"), &["true"], true))?;
    let bundle = bundle.display();
    shell(&format!(
        "{onggi} run --detach --bundle {} --network bridge=busy holder >/dev/null 2>&1",
        holder.display()
    ))?;
    let run = |flags: &str| vec![(words(&format!("{onggi} run --bundle {bundle} {flags} one")), None)];
    Ok(vec![
        Work::new("onggi run, without a network", run("")),
        Work::new(ON_A_BRIDGE, run("--network bridge=busy")),
        Work::new("onggi run, and a published port", run("--network bridge=busy --publish 8080:80")),
        Work::new("onggi run, the bridge made and removed", run("--network bridge=alone")),
    ])
}

/// The reference plugin by itself: no runtime, only the network. It leaves its bridge.
fn plugin() -> Result<Option<Work>, String> {
    let Some(dir) = PLUGINS.map(Path::new).into_iter().find(|dir| dir.join("bridge").exists()) else {
        eprintln!("benches: no CNI plugins in {PLUGINS:?}, so they are left out");
        return Ok(None);
    };
    let config = json!({
        "cniVersion": "0.4.0", "name": "bench", "type": "bridge", "bridge": "cni0",
        "isGateway": true, "ipMasq": true,
        "ipam": { "type": "host-local", "subnet": "10.77.0.0/16", "routes": [{ "dst": "0.0.0.0/0" }] },
    });
    let call = |verb: &str| {
        let mut command = Command::new(dir.join("bridge"));
        command.env("CNI_COMMAND", verb).env("CNI_CONTAINERID", "bench").env("CNI_IFNAME", "eth0");
        command.env("CNI_NETNS", "/run/netns/bench").env("CNI_PATH", dir);
        (command, Some(config.to_string()))
    };
    let mut work = Work::new(PLUGIN, vec![call("ADD"), call("DEL")]);
    work.before = Some(words("ip netns add bench"));
    work.after = Some(words("ip netns del bench"));
    Ok(Some(work))
}

fn podman(place: &Place, cgroup: &str) -> Result<Vec<Work>, String> {
    let netavark = ["/usr/lib/podman/netavark", "/usr/libexec/podman/netavark"];
    if !netavark.iter().any(|path| Path::new(path).exists())
        || run(&mut words("podman --version"), None).is_err()
    {
        eprintln!("benches: no podman with netavark, so it is left out");
        return Ok(Vec::new());
    }
    let dir = place.dir.join("podman");
    let settings: PathBuf = dir.join("containers.conf");
    let text = format!(
        "[containers]\ndefault_ulimits=[]\n[network]\nnetwork_backend=\"netavark\"\nnetwork_config_dir=\"{0}/net\"\n[engine]\ncgroup_manager=\"cgroupfs\"\nevents_logger=\"none\"\n",
        dir.display()
    );
    fs::create_dir_all(&dir).and_then(|()| fs::write(&settings, text)).map_err(|error| error.to_string())?;
    let store =
        format!("--root {0}/root --runroot {0}/run --tmpdir {0}/tmp --storage-driver vfs", dir.display());
    let podman = |arguments: &str| {
        let mut command = words(&format!("podman {store} {arguments}"));
        command.env("CONTAINERS_CONF", &settings);
        command
    };
    let tar = dir.join("image.tar");
    shell(&format!("tar -C {} -cf {} .", place.root().display(), tar.display()))?;
    run(&mut podman(&format!("import {} bench", tar.display())), None)?;
    let limits = "--ulimit=nofile=1024:1024 --ulimit=nproc=1024:1024";
    let options = format!("run --rm --pull=never {limits} --cgroup-parent=/{cgroup}");
    let run = |network: &str| vec![(podman(&format!("{options} --network={network} bench /bin/true")), None)];
    Ok(vec![Work::new("podman run, without a network", run("none")), Work::new(BY_NETAVARK, run("podman"))])
}

/// What one thing takes: milliseconds, those that are more than without a network, and how many times as long.
struct Row {
    name: &'static str,
    time: Quartiles,
    added: f64,
    ratio: Option<f64>,
}

fn rows(works: &[Work]) -> Vec<Row> {
    let mut base: Option<f64> = None;
    let row = |work: &Work| {
        let none = Quartiles { low: 0.0, median: 0.0, high: 0.0 };
        let time = quartiles(work.samples.iter().copied()).unwrap_or(none);
        if work.name.ends_with("without a network") {
            base = Some(time.median);
        }
        // The plugin is only the network.
        let base = base.filter(|_| work.name != PLUGIN);
        let (added, ratio) = (time.median - base.unwrap_or(0.0), base.map(|base| time.median / base));
        Row { name: work.name, time, added, ratio }
    };
    works.iter().map(row).collect()
}

fn report(works: &[Work], rows: &[Row]) {
    println!("{:42} {:>8} {:>17} {:>9} {:>6}", "", "ms", "quartiles", "added ms", "ratio");
    for Row { name, time: Quartiles { low, median, high }, added, ratio } in rows {
        let ratio = ratio.map(|ratio| format!("{ratio:.2}")).unwrap_or_default();
        println!("{name:42} {median:8.1} {low:8.1} {high:8.1} {added:9.1} {ratio:>6}");
    }
    if std::env::var_os("BENCH_JSON").is_some() {
        let samples = |work: &Work| json!({ "name": work.name, "samples": work.samples });
        println!("{}", works.iter().map(samples).collect::<Value>());
    }
}

/// A network takes half as long again as the container at most, and a fifth of what others add.
fn within_bounds(rows: &[Row]) -> Result<(), String> {
    let find = |name| rows.iter().find(|row| row.name == name);
    let ours = find(ON_A_BRIDGE).ok_or("nothing was measured")?;
    let mut broken = Vec::new();
    if ours.ratio.is_none_or(|ratio| ratio > 1.5) {
        broken.push(format!("{ON_A_BRIDGE}: more than 1.5 times as long as without"));
    }
    for other in [PLUGIN, BY_NETAVARK].into_iter().filter_map(find) {
        if ours.added * 5.0 > other.added {
            broken.push(format!("{ON_A_BRIDGE}: adds more than a fifth of {}", other.name));
        }
    }
    if broken.is_empty() { Ok(()) } else { Err(broken.join("; ")) }
}
