//! Invariant "nothing leaks", as processes of a container see it: they open *through* every descriptor and every
//! other magic link of each process that they see, while others are created, started and executed beside them.

use super::bundle::{Bundle, config, exec, new_id, turn};
use libruntime::{Container, ExitStatus};
use serde_json::{Value, json};

/// Shell built-ins only: a fork for each look would be too slow to see a stage. What is open at 0, 1 and 2 is given to
/// the program anyway. A descriptor that is no directory of a mount of the container is the host's.
const LOOK: &str = r#"
own=" $(cut -d' ' -f1 /proc/self/mountinfo | tr '\n' ' ') "
: > /seen; : > /won; : > /ready
while test ! -e /stop; do
  for p in /proc/[0-9]*; do
    test $p = /proc/$$ && continue
    test -d $p/fd/. || continue
    for f in $p/fd/*; do
      case $f in */0|*/1|*/2) continue;; esac
      if test -d $f || test -f $f; then
        id=; { while read key value; do case $key in mnt_id:) id=$value;; esac; done < ${f%/fd/*}/fdinfo/${f##*/}; } 2>/dev/null
        case "$own" in *" $id "*) ;; *) echo "$f is on mount $id" >> /won;; esac
      fi
      for name in sys/kernel/ostype 1/status etc/hostname; do
        { read text < $f/$name && echo "$f/$name: $text" >> /won; } 2>/dev/null
      done
    done
    for name in root cwd; do
      { read text < $p/$name/sys/kernel/ostype && echo "$p/$name: $text" >> /won; } 2>/dev/null
      # The process may end between two looks.
      test -d $p/$name/. && ! test $p/$name/. -ef / && test -d $p/$name/. && echo "$p/$name is not /" >> /won
    done
    echo $p >> /seen
  done
done
"#;

fn looking(capabilities: &[&str], user_namespace: bool) -> Value {
    let mut config = config(LOOK);
    for set in ["bounding", "effective", "permitted"] {
        config["process"]["capabilities"][set] = json!(capabilities);
    }
    // Nothing hides that a look succeeds.
    config["linux"].as_object_mut().unwrap().remove("maskedPaths");
    if user_namespace {
        config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
        let map = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
        config["linux"]["uidMappings"] = map.clone();
        config["linux"]["gidMappings"] = map;
    }
    config
}

fn bundle(config: &Value) -> Bundle {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let bundle = Bundle::new(config);
    for name in ["cut", "tr"] {
        symlink("busybox", bundle.rootfs().join("bin").join(name)).unwrap();
    }
    // Also for the root of a user namespace.
    std::fs::set_permissions(bundle.rootfs(), std::fs::Permissions::from_mode(0o777)).unwrap();
    bundle
}

fn wait_for(bundle: &Bundle, name: &str) {
    for _ in 0..2000 {
        if bundle.rootfs().join(name).exists() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    panic!("the container did not make {name}");
}

fn execute(container: &Container, args: &[&str]) -> ExitStatus {
    exec(container, args).spawn().unwrap().wait().unwrap()
}

/// Looks while `beside` is done to the container, and returns what was reached.
fn reached(capabilities: &[&str], user_namespace: bool, beside: impl Fn(&Bundle, &Container)) -> String {
    let bundle = bundle(&looking(capabilities, user_namespace));
    let container = bundle.create(&new_id()).unwrap();
    container.start().unwrap();
    wait_for(&bundle, "ready");
    beside(&bundle, &container);
    std::fs::write(bundle.rootfs().join("stop"), "").unwrap();
    container.wait().unwrap();
    let read = |name: &str| std::fs::read_to_string(bundle.rootfs().join(name)).unwrap_or_default();
    let seen = read("seen").lines().filter(|line| *line != "/proc/1").count();
    eprintln!("{seen} looks at others with {capabilities:?}, user namespace: {user_namespace}");
    assert!(seen > 0 || !capabilities.contains(&"CAP_SYS_PTRACE"), "no other process was seen");
    container.delete_force().unwrap();
    read("won")
}

/// Executes programs, by several callers at a time.
fn execute_many(bundle: &Bundle, container: &Container) {
    let id = container.id().to_string();
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let container = bundle.load(&id).unwrap();
                for _ in 0..40 {
                    assert_eq!(execute(&container, &["/bin/busybox", "true"]), ExitStatus::Code(0));
                }
            });
        }
    });
}

/// Creates containers in the pid namespace of the one that looks, with the same root.
fn create_many(bundle: &Bundle, container: &Container) {
    let mut config = looking(DEFAULT, false);
    config["process"]["args"] = json!(["/bin/busybox", "true"]);
    let pid = container.pid().unwrap();
    for namespace in config["linux"]["namespaces"].as_array_mut().unwrap() {
        if namespace["type"] == "pid" {
            namespace["path"] = json!(format!("/proc/{pid}/ns/pid"));
        }
    }
    // While it sets up and waits, the one that looks has the time to see it.
    config["hooks"] = json!({"createRuntime": [{"path": "/bin/sleep", "args": ["sleep", "0.05"]}]});
    bundle.write(&config);
    for _ in 0..20 {
        let joined = bundle.create(&new_id()).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(50));
        joined.start().unwrap();
        joined.wait().unwrap();
        joined.delete_force().unwrap();
    }
}

const DEFAULT: &[&str] = &["CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_SETUID", "CAP_SETGID", "CAP_KILL"];
const TRACER: &[&str] =
    &["CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_SETUID", "CAP_SETGID", "CAP_KILL", "CAP_SYS_PTRACE"];

#[test]
#[ignore = "needs root"]
fn nothing_of_the_host_is_reached_through_a_process_that_joins() {
    let Some(_turn) = turn() else { return };
    for (capabilities, user_namespace) in [(DEFAULT, false), (TRACER, false), (DEFAULT, true), (TRACER, true)]
    {
        let won = reached(capabilities, user_namespace, execute_many);
        assert_eq!(won, "", "{capabilities:?}, {user_namespace}");
    }
}

#[test]
#[ignore = "needs root"]
fn nothing_of_the_host_is_reached_through_a_container_that_joins_the_pid_namespace() {
    let Some(_turn) = turn() else { return };
    for capabilities in [DEFAULT, TRACER] {
        assert_eq!(reached(capabilities, false, create_many), "", "{capabilities:?}");
    }
}

/// The init of a created container is looked at from a program that is executed in it, and by a startContainer hook.
#[test]
#[ignore = "needs root"]
fn nothing_of_the_host_is_reached_through_a_container_that_waits_for_its_start() {
    let Some(_turn) = turn() else { return };
    for (capabilities, user_namespace) in [(DEFAULT, false), (TRACER, false), (TRACER, true)] {
        let mut config = looking(capabilities, user_namespace);
        config["process"]["args"] = json!(["/bin/busybox", "sleep", "1000"]);
        let once = LOOK.replace("while test ! -e /stop; do", "for round in 1 2 3; do");
        config["hooks"] = json!({"startContainer": [{
            "path": "/bin/busybox", "args": ["sh", "-c", format!("{once} echo > /hooked")]
        }]});
        let bundle = bundle(&config);
        let container = bundle.create(&new_id()).unwrap();
        let read = |name: &str| std::fs::read_to_string(bundle.rootfs().join(name)).unwrap_or_default();
        assert_eq!(execute(&container, &["/bin/busybox", "sh", "-c", &once]), ExitStatus::Code(0));
        assert_eq!(read("won"), "", "{capabilities:?}, {user_namespace}, by exec");
        container.start().unwrap();
        assert!(bundle.rootfs().join("hooked").exists(), "the hook did not run");
        assert_eq!(read("won"), "", "{capabilities:?}, {user_namespace}, by a hook");
        container.delete_force().unwrap();
    }
}
