//! Invariant "sealed self": a container with much privilege cannot change the program that made it,
//! and the stage has nothing in it that could allocate or load.

use super::bundle::{Bundle, config, exec, new_id, turn};
use libruntime::ExitStatus;
use serde_json::json;
use std::os::fd::AsRawFd;

/// The stage as the build script left it.
const STAGE: &[u8] = include_bytes!(env!("ONGGI_STAGE"));

/// Watches for processes that join, and tries all that is known: CVE-2019-5736 and its relatives.
/// `won` gets a line for every write that worked on something that is not the container's.
const ATTACK: &str = r#"
printf '#!/proc/self/exe\n' > /evil; chmod 755 /evil; : > /seen; : > /won; : > /ready
while test ! -e /stop; do
  for p in /proc/[0-9]*; do
    case $p in /proc/1) continue;; esac
    exe=$(readlink $p/exe) || continue
    case $exe in /bin/busybox*) continue;; esac
    echo "exe $exe" >> /seen
    { exec 9< $p/exe; } 2>/dev/null && { echo open >> /seen; echo x >> /proc/self/fd/9 && echo "wrote fd of $exe" >> /won; echo x > /proc/self/fd/9 && echo "truncated $exe" >> /won; exec 9<&-; } 2>/dev/null
    { echo x >> $p/exe && echo "wrote $exe" >> /won; } 2>/dev/null
    for f in $p/fd/*; do
      link=$(readlink $f) && echo "fd $link" >> /seen
      case $link in /memfd*) { echo x >> $f && echo "wrote $link" >> /won; } 2>/dev/null;; esac
    done
    { printf x | timeout 1 dd of=$p/mem bs=1 seek=4198400 conv=notrunc && echo "mem of $exe" >> /mem; } 2>/dev/null
  done
done
"#;

#[test]
#[ignore = "needs root"]
fn a_privileged_container_cannot_change_the_program_of_those_who_join() {
    let Some(_turn) = turn() else { return };
    let all = ["CAP_SYS_ADMIN", "CAP_SYS_PTRACE", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER"];
    let mut privileged = config(ATTACK);
    for set in ["bounding", "effective", "permitted"] {
        privileged["process"]["capabilities"][set] = json!(all);
    }
    privileged["linux"].as_object_mut().unwrap().remove("readonlyPaths");
    let bundle = Bundle::new(&privileged);
    // busybox dd writes for ever to the memory of a process that has ended: nothing is written, and no error.
    for name in ["readlink", "dd", "chmod", "timeout"] {
        std::os::unix::fs::symlink("busybox", bundle.rootfs().join("bin").join(name)).unwrap();
    }
    let own = std::env::current_exe().unwrap();
    let before = std::fs::read(&own).unwrap();
    let container = bundle.create(&new_id()).unwrap();
    container.start().unwrap();
    while !bundle.rootfs().join("ready").exists() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    for number in 0..200 {
        let args: &[&str] = if number % 2 == 0 { &["/evil"] } else { &["/bin/busybox", "true"] };
        // The one with the magic interpreter may fail in whatever way, but not succeed in anything.
        if let Ok(executed) = exec(&container, args).spawn() {
            let exit = executed.wait().unwrap();
            // A write that comes too late hits the container's own program, which may crash.
            let ran = matches!(exit, ExitStatus::Code(0) | ExitStatus::Signal(_));
            assert!(number % 2 == 0 || ran, "exec {number}: {exit:?}");
        }
    }
    std::fs::write(bundle.rootfs().join("stop"), "").unwrap();
    container.wait().unwrap();
    let read = |name: &str| std::fs::read_to_string(bundle.rootfs().join(name)).unwrap_or_default();
    let (seen, won) = (read("seen"), read("won"));
    assert_eq!(won, "", "seen: {seen}");
    let own_name = own.file_name().unwrap().to_string_lossy().into_owned();
    assert!(!seen.contains(&own_name), "the caller's program was visible: {seen}");
    let stages = seen.lines().filter(|line| line.starts_with("exe /memfd:onggi-stage")).count();
    eprintln!(
        "the stage was caught {stages} times in 200 execs; opened {} times",
        seen.matches("open").count()
    );
    assert!(std::fs::read(&own).unwrap() == before, "the caller's program was changed");
    container.delete_force().unwrap();
    // What was executed is still what was built.
    assert_eq!(Bundle::new(&config("exit 5")).run().0, ExitStatus::Code(5));
}

/// It has got at the stage, and tries to have it open for writing when no process executes it (execve(2), ETXTBSY).
#[test]
#[ignore = "needs root"]
fn a_container_cannot_keep_the_next_one_from_its_start() {
    let Some(_turn) = turn() else { return };
    let bundle = Bundle::new(&config("exit 0"));
    let first = bundle.create(&new_id()).unwrap();
    let kept = std::fs::File::open(format!("/proc/{}/exe", first.pid().unwrap())).unwrap();
    first.start().unwrap();
    first.wait().unwrap();
    let again = format!("/proc/self/fd/{}", kept.as_raw_fd());
    let writer = std::fs::OpenOptions::new().write(true).open(again);
    let second = Bundle::new(&config("exit 5")).run();
    drop((kept, writer));
    first.delete().unwrap();
    assert_eq!(second.0, ExitStatus::Code(5));
}

fn word(at: usize) -> usize {
    usize::from(u16::from_le_bytes([STAGE[at], STAGE[at + 1]]))
}

fn long(at: usize) -> usize {
    u64::from_le_bytes(STAGE[at..at + 8].try_into().unwrap()) as usize
}

/// Types and flags of the program headers (elf(5)).
fn segments() -> Vec<(u32, u32)> {
    let (table, size, count) = (long(32), word(54), word(56));
    let number = |at: usize| u32::from_le_bytes(STAGE[at..at + 4].try_into().unwrap());
    (0..count).map(|at| table + at * size).map(|at| (number(at), number(at + 4))).collect()
}

#[test]
fn the_stage_is_a_small_static_program_without_libc() {
    const EXEC: usize = 2;
    const DYNAMIC: u32 = 2;
    const INTERP: u32 = 3;
    assert_eq!((&STAGE[..4], word(16)), (&b"\x7fELF"[..], EXEC));
    let found = segments();
    assert!(found.iter().all(|(kind, _)| ![DYNAMIC, INTERP].contains(kind)), "{found:?}");
    assert!(found.iter().all(|(_, flags)| flags & 3 != 3), "writable and executable: {found:?}");
    assert!(STAGE.len() < 64 << 10, "{} bytes", STAGE.len());
    let has = |text: &str| STAGE.windows(text.len()).any(|part| part == text.as_bytes());
    for name in ["malloc", "__rust_alloc", "GLIBC", "libc.so", "musl", "/rustc/", "panicked at"] {
        assert!(!has(name), "the stage has {name:?} in it");
    }
    assert!(has("dev/pts/ptmx"), "this is the stage");
}
