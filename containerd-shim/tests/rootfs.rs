//! Root file systems: each container looks at its own and says what it sees by its exit status. Needs root, busybox, and
//! Linux 5.19.

mod play;

use play::*;
use std::fs;
use std::path::Path;
use std::process::Command;

macro_rules! prepared {
    ($name:expr, $script:expr, $edit:expr) => {
        match missing() {
            Some(reason) => return eprintln!("{reason}"),
            None => Shim::prepare($name, &["busybox", "sh", "-c", $script], $edit),
        }
    };
}

macro_rules! shim {
    ($name:expr, $script:expr) => {{
        let mut shim = prepared!($name, $script, &|_| ());
        shim.launch(&[], Fields::default());
        shim
    }};
}

const SEEN: u64 = 7;

/// A script that ends with `SEEN` if this holds in the container.
fn look(condition: &str) -> String {
    format!("busybox [ {condition} ] && exit {SEEN}")
}

/// Creates the container with these mounts, and tells what it has seen.
fn run(shim: &Shim, mounts: &[Fields]) -> u64 {
    shim.create_from("a", mounts, Fields::default()).unwrap();
    shim.of("Start", "").unwrap();
    let status = number(&fields(&shim.of("Wait", "").unwrap()), 1);
    shim.of("Delete", "").unwrap();
    status
}

fn mounted(shim: &Shim) -> Vec<String> {
    let rootfs = shim.bundle_of("a").join("rootfs");
    let all = fs::read_to_string("/proc/self/mountinfo").unwrap();
    all.lines().filter(|line| line.contains(rootfs.to_str().unwrap())).map(String::from).collect()
}

/// An overlay of the image and of so many layers, each with one file: one with a name that has a colon, one behind a
/// path that is longer than fsconfig(2) takes.
fn long_overlay(shim: &Shim, layers: usize) -> Fields {
    let mut names = Vec::new();
    for number in 0..layers {
        let name = match number {
            0 => "with:colon".to_string(),
            1 => format!("{}/{}", "x".repeat(200), "y".repeat(200)),
            number => format!("layer-with-a-long-name-{number}"),
        };
        let directory = shim.directory.join("layers").join(name);
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join(format!("f{number}")), "").unwrap();
        names.push(directory.to_str().unwrap().replace(':', "\\:"));
    }
    names.push(shim.directory.join("image").to_str().unwrap().into());
    overlay_of(shim, &names.join(":"), &["index=off"])
}

fn overlay_of(shim: &Shim, lower: &str, more: &[&str]) -> Fields {
    let [upper, work] = ["upper", "work"].map(|name| shim.directory.join(name));
    for directory in [&upper, &work] {
        fs::create_dir_all(directory).unwrap();
    }
    let lower = format!("lowerdir={lower}");
    let [upper, work] =
        [("upperdir", &upper), ("workdir", &work)].map(|(k, v)| format!("{k}={}", v.display()));
    let mut options = vec![lower.as_str(), upper.as_str(), work.as_str()];
    options.extend(more);
    mount_of("overlay", "overlay", &options)
}

const LAYERS: usize = 300;

fn sees_all_layers() -> String {
    format!(
        "busybox touch /new && {}",
        look("-e /f0 -a -e /f1 -a -e /f299 -a $(busybox ls -d /f* | busybox wc -l) = 300")
    )
}

#[test]
#[ignore = "needs root"]
fn an_overlay_of_hundreds_of_layers_is_mounted() {
    let shim = shim!("layers", &sees_all_layers());
    let overlay = long_overlay(&shim, LAYERS);
    shim.create_from("a", &[overlay], Fields::default()).unwrap();
    let line = mounted(&shim).pop().unwrap();
    // The layers have their own names for who looks into mountinfo, where the kernel can say them.
    assert!(line.contains("layer-with-a-long-name-299") || line.contains("lowerdir=0:1:2:"), "{line}");
    shim.of("Start", "").unwrap();
    assert_eq!(number(&fields(&shim.of("Wait", "").unwrap()), 1), SEEN);
    shim.of("Delete", "").unwrap();
    assert!(shim.directory.join("upper/new").exists());
    shim.end();
}

/// As a kernel before Linux 6.8, which does not know `lowerdir+`.
#[test]
#[ignore = "needs root"]
fn an_overlay_of_hundreds_of_layers_is_mounted_by_an_old_kernel() {
    // The library's own mounts need strings as well.
    let mut shim =
        prepared!("old-layers", &sees_all_layers(), &|config| config["mounts"] = serde_json::json!([]));
    std::thread::scope(|scope| {
        let launch = || {
            refuse_strings();
            shim.launch(&[], Fields::default());
        };
        scope.spawn(launch).join().unwrap();
    });
    let overlay = long_overlay(&shim, LAYERS);
    shim.create_from("a", &[overlay], Fields::default()).unwrap();
    let line = mounted(&shim).pop().unwrap();
    assert!(line.contains("lowerdir=0:1:2:"), "{line}");
    shim.of("Start", "").unwrap();
    assert_eq!(number(&fields(&shim.of("Wait", "").unwrap()), 1), SEEN);
    shim.of("Delete", "").unwrap();
    assert!(shim.directory.join("upper/new").exists());
    shim.end();
}

/// For this thread and what it executes, fsconfig(2) with FSCONFIG_SET_STRING has EINVAL for an answer.
fn refuse_strings() {
    let code = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
    let (load, equal) =
        (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K);
    let result = libc::BPF_RET | libc::BPF_K;
    // The number of the call, and the second argument's lower half.
    let second = 16 + 8 + if cfg!(target_endian = "big") { 4 } else { 0 };
    let mut filter = [
        code(load, 0, 0, 0),
        code(equal, 0, 3, libc::SYS_fsconfig as u32),
        code(load, 0, 0, second),
        code(equal, 0, 1, 1),
        code(result, 0, 0, libc::SECCOMP_RET_ERRNO | libc::EINVAL as u32),
        code(result, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: the kernel copies the filter, which lives until the call returns.
    let installed =
        unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) };
    assert_eq!(installed, 0, "{}", std::io::Error::last_os_error());
}

#[test]
#[ignore = "needs root"]
fn layers_are_idmapped_and_what_is_written_is_not() {
    let owned = |file: &str, id: u32| format!("$(busybox stat -c %u:%g {file}) = {id}:{}", id + 1);
    let script = format!(
        "busybox touch /new && {}",
        look(&format!("{} -a $(busybox stat -c %u /new) = 0", owned("/file", 1005)))
    );
    let shim = shim!("idmap-layers", &script);
    let file = shim.directory.join("image/file");
    fs::write(&file, "").unwrap();
    std::os::unix::fs::chown(&file, Some(5), Some(6)).unwrap();
    let image = shim.directory.join("image");
    let maps = ["uidmap=0:1000:10", "gidmap=0:1000:10"];
    assert_eq!(run(&shim, &[overlay_of(&shim, image.to_str().unwrap(), &maps)]), SEEN);
    assert!(shim.directory.join("upper/new").exists());
    shim.end();
}

#[test]
#[ignore = "needs root"]
fn a_bind_mount_is_idmapped_and_stays_read_only() {
    let script = format!("busybox touch /new || {}", look("$(busybox stat -c %u:%g /file) = 2005:3006"));
    let shim = shim!("idmap-bind", &script);
    let (image, file) = (shim.directory.join("image"), shim.directory.join("image/file"));
    fs::write(&file, "").unwrap();
    std::os::unix::fs::chown(&file, Some(5), Some(6)).unwrap();
    let mount =
        mount_of("bind", image.to_str().unwrap(), &["rbind", "ro", "uidmap=0:2000:10", "gidmap=0:3000:10"]);
    shim.create_from("a", &[mount], Fields::default()).unwrap();
    let mounts = mounted(&shim);
    assert!(mounts.len() == 1 && mounts[0].contains("idmapped"), "{mounts:?}");
    shim.of("Start", "").unwrap();
    assert_eq!(number(&fields(&shim.of("Wait", "").unwrap()), 1), SEEN);
    shim.of("Delete", "").unwrap();
    shim.end();
}

/// Of each loop device of the test's, whether it is read-only.
fn loops_of(shim: &Shim) -> Vec<bool> {
    let mut found = Vec::new();
    for device in fs::read_dir("/sys/block").unwrap().flatten() {
        let read = |name: &str| fs::read_to_string(device.path().join(name)).unwrap_or_default();
        if Path::new(read("loop/backing_file").trim()).starts_with(&shim.directory) {
            found.push(read("ro").trim() == "1");
        }
    }
    found
}

#[test]
#[ignore = "needs root"]
fn a_file_is_mounted_through_a_loop_device_that_does_not_stay() {
    let shim = shim!("loop", &look("-e /bin/busybox"));
    let (image, file) = (shim.directory.join("image"), shim.directory.join("image.ext4"));
    let made =
        Command::new("mkfs.ext4").args(["-q", "-d", image.to_str().unwrap()]).arg(&file).arg("16M").status();
    if !made.is_ok_and(|status| status.success()) || !Path::new("/dev/loop-control").exists() {
        eprintln!("skipped: no mkfs.ext4, or no loop devices");
        return shim.end();
    }
    for options in [&["loop", "ro"][..], &["loop"]] {
        shim.create_from("a", &[mount_of("ext4", file.to_str().unwrap(), options)], Fields::default())
            .unwrap();
        assert_eq!(loops_of(&shim), [options.contains(&"ro")]);
        shim.of("Start", "").unwrap();
        assert_eq!(number(&fields(&shim.of("Wait", "").unwrap()), 1), SEEN);
        shim.of("Delete", "").unwrap();
        // Mount namespaces that were just made, such as those of other tests, have copies for a while.
        await_that("the device goes", || loops_of(&shim).is_empty());
    }
    // What fails behind the device leaves none.
    let failure =
        shim.create_from("a", &[mount_of("xfs", file.to_str().unwrap(), &["loop"])], Fields::default());
    assert!(failure.unwrap_err().message.contains("rootfs[0]: mount "));
    assert_eq!((loops_of(&shim), mounted(&shim)), (vec![], vec![]));
    shim.end();
}

#[test]
#[ignore = "needs root"]
fn mounts_lie_one_over_another_and_come_off_together() {
    let shim = shim!("stack", &look("-e /above -a ! -e /below"));
    let (image, below) = (shim.directory.join("image"), shim.directory.join("below"));
    fs::create_dir_all(&below).unwrap();
    for file in [below.join("below"), image.join("above")] {
        fs::write(file, "").unwrap();
    }
    let below = mount_of("bind", below.to_str().unwrap(), &["bind"]);
    let above = overlay_of(&shim, image.to_str().unwrap(), &["volatile"]);
    shim.create_from("a", &[below, above], Fields::default()).unwrap();
    let mounts = mounted(&shim);
    assert!(mounts.len() == 2 && mounts[1].contains("volatile"), "{mounts:?}");
    shim.of("Start", "").unwrap();
    assert_eq!(number(&fields(&shim.of("Wait", "").unwrap()), 1), SEEN);
    shim.of("Delete", "").unwrap();
    assert_eq!(mounted(&shim), Vec::<String>::new());
    shim.end();
}

#[test]
#[ignore = "needs root"]
fn a_mount_that_fails_leaves_none_of_those_before_it() {
    let shim = shim!("undo", &look("-e /bin/busybox"));
    let maps = ["uidmap=0:1000:10", "gidmap=0:1000:10"];
    let image = shim.directory.join("image");
    let image = image.to_str().unwrap();
    let long = format!("{}:/nowhere", vec![image; 200].join(":"));
    let bad: [(Fields, &[&str]); 9] = [
        (overlay_of(&shim, "/nowhere", &[]), &["mount overlay on ", "ENOENT"]),
        (overlay_of(&shim, "/nowhere", &maps), &["open_tree /nowhere: ", "ENOENT"]),
        (overlay_of(&shim, &long, &[]), &["fsconfig overlay lowerdir+=/nowhere", "ENOENT"]),
        (overlay_of(&shim, &vec![image; 200].join(":"), &[]), &["fsconfig overlay", "ELOOP"]),
        (mount_of("bind", image, &["rbind", "uidmap=0:1:1"]), &["need each other"]),
        (
            mount_of("bind", image, &["rbind", "uidmap=0:1:x", "gidmap=0:1:1"]),
            &["expected CONTAINER:HOST:SIZE"],
        ),
        (mount_of("proc", "proc", &maps), &["MOUNT_ATTR_IDMAP", "EINVAL", "hint: its file system"]),
        (mount_of("ext4", "/nowhere", &["loop"]), &["open /nowhere: ", "ENOENT"]),
        (mount_of("tmpfs", "tmpfs", &["x".repeat(5000).as_str()]), &["longer than a page"]),
    ];
    for (mount, words) in bad {
        let failure = shim.create_from("a", &[shim.image(), mount], Fields::default()).unwrap_err();
        assert!(failure.message.starts_with("OCI runtime create failed: rootfs[1]: "), "{}", failure.message);
        for word in words {
            let word = word.replace("ENOENT", "No such file").replace("ELOOP", "Too many levels");
            let word = word.replace("EINVAL", "Invalid argument");
            assert!(failure.message.contains(&word), "no {word} in {}", failure.message);
        }
        assert_eq!((mounted(&shim), loops_of(&shim)), (vec![], vec![]), "{}", failure.message);
    }
    assert_eq!(run(&shim, &[shim.image()]), SEEN);
    shim.end();
}

/// A helper as mount.fuse3(8), with a server that keeps its standard error open.
#[test]
#[ignore = "needs root"]
fn a_helper_mounts_what_the_kernel_does_not() {
    let script = "#!/bin/sh\n[ \"$1\" = source ] && [ \"$3 $4 $5 $6 $7 $8\" = '-o ro -o x=y -t thing' ] || {\n\
        echo \"wrong: $*\" >&2; exit 3; }\nmount --bind \"$IMAGE\" \"$2\" && { sleep 2 & }\n";
    let mut shim = prepared!("helper", &look("-e /bin/busybox"), &|_| ());
    let (programs, image) = (shim.directory.join("programs"), shim.directory.join("image"));
    fs::create_dir_all(&programs).unwrap();
    let program = programs.join("mount.fuse3");
    fs::write(&program, script).unwrap();
    fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
    shim.launch(&[("PATH", &path), ("IMAGE", image.to_str().unwrap())], Fields::default());
    let begin = std::time::Instant::now();
    let options = ["ro", "X-containerd.z=1", "x=y"];
    assert_eq!(run(&shim, &[mount_of("fuse3.thing", "source", &options)]), SEEN);
    assert!(begin.elapsed().as_millis() < 1500, "it waits for the server: {:?}", begin.elapsed());
    let failure =
        shim.create_from("a", &[mount_of("fuse3.thing", "other", &options)], Fields::default()).unwrap_err();
    assert!(
        failure.message.contains("mount.fuse3 other: exit status: 3: wrong: other"),
        "{}",
        failure.message
    );
    let failure =
        shim.create_from("a", &[mount_of("fuse.thing", "source", &[])], Fields::default()).unwrap_err();
    assert!(failure.message.contains("mount.fuse"), "{}", failure.message);
    shim.end();
}

#[test]
#[ignore = "needs root"]
fn a_create_that_fails_leaves_the_mounts_of_others() {
    let shim = shim!("others", "exit 7");
    let rootfs = shim.bundle_of("a").join("rootfs");
    let image = shim.directory.join("image");
    let bind = nix::mount::MsFlags::MS_BIND;
    nix::mount::mount(Some(&image), &rootfs, None::<&str>, bind, None::<&str>).unwrap();
    // One fails behind its mounts, one at the second of them.
    let failures = [
        shim.create_from("a", &[shim.image()], Fields::default().text(6, "http:///x")),
        shim.create_from("a", &[shim.image(), mount_of("nothing", "x", &[])], Fields::default()),
    ];
    let left = mounted(&shim);
    let _ = nix::mount::umount2(&rootfs, nix::mount::MntFlags::MNT_DETACH);
    assert!(failures.iter().all(Result::is_err), "{failures:?}");
    assert_eq!(left.len(), 1, "{left:?}");
    shim.end();
}

#[test]
#[ignore = "needs root"]
fn a_full_disk_fails_a_create_that_works_once_there_is_space() {
    let shim = shim!("full", "exit 7");
    let store = shim.directory.join("store");
    fs::create_dir_all(&store).unwrap();
    let none = nix::mount::MsFlags::empty();
    nix::mount::mount(Some("tmpfs"), &store, Some("tmpfs"), none, Some("size=64k,mode=700")).unwrap();
    let filler = store.join("filler");
    let full = fs::write(&filler, vec![0; 128 << 10]);
    let before = mounted(&shim).len();
    let refused = shim.create_from("a", &[shim.image()], Fields::default());
    let left = (mounted(&shim).len(), fs::read_dir(store.join(shim.name())).unwrap().count());
    fs::remove_file(&filler).unwrap();
    let made = shim.create_from("a", &[shim.image()], Fields::default());
    shim.remove();
    let _ = nix::mount::umount2(&store, nix::mount::MntFlags::MNT_DETACH);
    assert!(full.is_err(), "the disk is not full");
    let refused = format!("{:?}", refused.unwrap_err());
    assert!(refused.contains("ENOSPC"), "{refused}");
    assert_eq!(left, (before, 0), "mounts, and entries of the store");
    made.unwrap();
    shim.end();
}
