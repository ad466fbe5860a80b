//! Programs that come with `start`: what they get, and what a starter may say that is none.

use super::bundle::{Bundle, config, new_id, turn};
use libruntime::{Container, ErrorKind, ExitStatus, Program, Status, Stdio};
use nix::sys::socket::{self, AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr};
use serde_json::{Value, json};
use std::fs;
use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};

fn created(bundle: &Bundle) -> Container {
    bundle.builder(&new_id()).stdout(Stdio::piped()).create().unwrap()
}

/// How the program of a created container ended, and what it wrote.
fn run(bundle: &Bundle, program: &Program) -> (ExitStatus, String) {
    let container = created(bundle);
    container.start_program(program).unwrap();
    let mut said = String::new();
    container.take_stdout().unwrap().read_to_string(&mut said).unwrap();
    let status = container.wait().unwrap();
    container.delete().unwrap();
    (status, said)
}

fn shell(command: &str) -> Program {
    Program::new(["/bin/busybox", "sh", "-c", command])
}

#[test]
#[ignore = "needs root"]
fn a_program_gets_its_arguments_environment_and_directory_and_all_else_of_the_configuration() {
    let Some(_turn) = turn() else { return };
    let mut config = config("exit 9");
    config["process"]["env"] = json!(["PATH=/bin", "OWN=1", "BOTH=old"]);
    config["process"]["user"] = json!({"uid": 7, "gid": 8});
    config["process"]["rlimits"] = json!([{"type": "RLIMIT_NOFILE", "soft": 99, "hard": 99}]);
    let bundle = Bundle::new(&config);
    let all = shell("echo $0 $1 $OWN $BOTH $NEW $PWD $HOME; id -u; ulimit -n; exit 3");
    let all = all.env("BOTH", "new").env("NEW", "2").current_dir("/sys");
    let expected = "sh 1 new 2 /sys /\n7\n99\n";
    assert_eq!(run(&bundle, &all), (ExitStatus::Code(3), expected.into()));
    let cleared = Program::new(["busybox", "env"]).env_clear().env("PATH", "/bin").env("HOME", "/x");
    assert_eq!(run(&bundle, &cleared), (ExitStatus::Code(0), "PATH=/bin\nHOME=/x\n".into()));
    // Several pieces.
    let long = "x".repeat(100_000);
    let counted =
        Program::new(["/bin/busybox", "sh", "-c", "echo ${#1} ${#BIG}", "sh", &long]).env("BIG", &long);
    assert_eq!(run(&bundle, &counted), (ExitStatus::Code(0), "100000 100000\n".into()));
}

#[test]
#[ignore = "needs root"]
fn a_container_without_another_program_runs_its_own() {
    let Some(_turn) = turn() else { return };
    let bundle = Bundle::new(&config("exit 9"));
    let container = created(&bundle);
    container.start().unwrap();
    assert_eq!(container.wait().unwrap(), ExitStatus::Code(9));
    container.delete().unwrap();
}

#[test]
#[ignore = "needs root"]
fn a_program_that_cannot_be_meant_is_an_error_and_the_container_waits_on() {
    let Some(_turn) = turn() else { return };
    let bundle = Bundle::new(&config("exit 9"));
    let container = created(&bundle);
    for (program, place) in [
        (Program::new(Vec::<String>::new()), "process.args"),
        (Program::new(["a\0b"]), "process.args[0]"),
        (shell("true").current_dir("bin"), "process.cwd"),
        (shell("true").env("", "x"), "process.env[1]"),
        (Program::new(["x".repeat(7 << 20)]), "process.args"),
    ] {
        let error = container.start_program(&program).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        assert_eq!(error.diagnostics()[0].config_path, place, "{error}");
        assert_eq!(container.status(), Status::Created);
    }
    let missing = container.start_program(&Program::new(["/bin/none"])).unwrap_err();
    assert_eq!((missing.kind(), missing.errno()), (ErrorKind::Os, Some(libc::ENOENT)), "{missing}");
    assert_eq!(container.wait().unwrap(), ExitStatus::Code(1));
    container.delete().unwrap();
    let container = created(&bundle);
    let missing = container.start_program(&shell("true").current_dir("/none")).unwrap_err();
    assert_eq!(missing.errno(), Some(libc::ENOENT), "{missing}");
    assert!(missing.to_string().contains("chdir"), "{missing}");
    container.delete_force().unwrap();
}

/// A starter of the test's own, after it has been told that it is the one.
fn starter(bundle: &Bundle, container: &Container) -> OwnedFd {
    let socket =
        socket::socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None).unwrap();
    let path = bundle.store.join(container.id()).join("start");
    // An address is short.
    let directory = fs::File::open(path.parent().unwrap()).unwrap();
    let short = format!("/proc/self/fd/{}/start", directory.as_raw_fd());
    socket::connect(socket.as_raw_fd(), &UnixAddr::new(short.as_str()).unwrap()).unwrap();
    assert_eq!(received(&socket).len(), 12);
    socket
}

fn received(socket: &OwnedFd) -> Vec<u8> {
    let mut bytes = [0; 64];
    let limit = nix::sys::time::TimeValLike::seconds(10);
    socket::setsockopt(socket, socket::sockopt::ReceiveTimeout, &limit).unwrap();
    let length = socket::recv(socket.as_raw_fd(), &mut bytes, MsgFlags::empty()).unwrap();
    bytes[..length].to_vec()
}

fn send(socket: &OwnedFd, bytes: &[u8]) {
    socket::send(socket.as_raw_fd(), bytes, MsgFlags::MSG_NOSIGNAL).unwrap();
}

fn header(sizes: [u32; 4]) -> Vec<u8> {
    let mut bytes = vec![2];
    bytes.extend(sizes.into_iter().flat_map(u32::to_ne_bytes));
    bytes
}

/// What the stage reports of a word that is none, and that nothing has come of it.
fn refused(bundle: &Bundle, container: &Container, words: &[&[u8]], ends: bool) -> Option<i32> {
    let socket = starter(bundle, container);
    words.iter().for_each(|word| send(&socket, word));
    if ends {
        drop(socket);
        return None;
    }
    let report = received(&socket);
    assert!(received(&socket).is_empty(), "the connection is closed then");
    assert_eq!(container.status(), Status::Created);
    Some(i32::from_ne_bytes(report[8..12].try_into().unwrap()))
}

#[test]
#[ignore = "needs root"]
fn what_is_no_program_is_refused_and_the_container_waits_on() {
    let Some(_turn) = turn() else { return };
    let bundle = Bundle::new(&config("exit 9"));
    let container = created(&bundle);
    let refused = |words: &[&[u8]]| refused(&bundle, &container, words, false);
    // Garbage: another word, a word that is too short or too long, another kind.
    for word in [&[0][..], &[7], &[2, 0], &[1; 16], &[1; 17], &[1; 18], &[1; 4000]] {
        let errno = if word.len() == 17 { libc::E2BIG } else { libc::EPROTO };
        assert_eq!(refused(&[word]), Some(errno), "{word:?}");
    }
    // Too long, and nothing at all.
    for sizes in [[0; 4], [u32::MAX; 4], [0, 2, 2, 16 << 20]] {
        assert_eq!(refused(&[&header(sizes)]), Some(libc::E2BIG), "{sizes:?}");
    }
    // Lists that do not end, are empty or go on into the next; a directory that is none; less and more than was said.
    for (sizes, bytes) in [
        ([0, 2, 2, 1], &b"a\0b\0c"[..]),
        ([0, 1, 3, 0], b"ab\0\0"),
        ([0, 0, 2, 0], b"a\0"),
        ([0, 2, 0, 0], b"a\0"),
        ([2, 2, 2, 0], b"x\0a\0b\0"),
        ([0, 2, 2, 0], b"a\0b"),
    ] {
        assert_eq!(refused(&[&header(sizes), bytes]), Some(libc::EPROTO), "{sizes:?}");
    }
    // Closed midway: before a word, after the header, and between two pieces.
    let (short, long, piece) = (header([0, 2, 2, 0]), header([0, 2, 100_000, 0]), [b'a'; 32 << 10]);
    for words in [&[][..], &[&short[..]], &[&long[..], &piece[..]]] {
        super::programs::refused(&bundle, &container, words, true);
    }
    assert_eq!(container.status(), Status::Created);
    container.start_program(&shell("exit 5")).unwrap();
    assert_eq!(container.wait().unwrap(), ExitStatus::Code(5));
    container.delete().unwrap();
}

/// Another user who has got hold of the socket, whatever its mode is.
#[test]
#[ignore = "needs root"]
fn only_the_owner_can_give_a_program() {
    let Some(_turn) = turn() else { return };
    let bundle = Bundle::new(&config("exit 9"));
    let container = created(&bundle);
    let refused = {
        let directory = fs::File::open(bundle.store.join(container.id())).unwrap();
        let short = format!("/proc/self/fd/{}/start", directory.as_raw_fd());
        fs::set_permissions(&short, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
        std::thread::scope(|scope| {
            let work = scope.spawn(|| {
                let socket =
                    socket::socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)
                        .unwrap();
                // SECBIT_NO_SETUID_FIXUP: the thread may go on looking for the socket.
                // SAFETY: numbers, and of the calling thread's own identity alone.
                let changed = unsafe {
                    (
                        libc::prctl(libc::PR_SET_SECUREBITS, 4),
                        libc::syscall(libc::SYS_setresuid, -1, 4242, -1),
                    )
                };
                assert_eq!(changed, (0, 0));
                socket::connect(socket.as_raw_fd(), &UnixAddr::new(short.as_str()).unwrap()).unwrap();
                assert_eq!(received(&socket).len(), 12);
                send(&socket, &header([0, 2, 2, 0]));
                received(&socket)
            });
            let refused = work.join().unwrap();
            // The change has made the whole process one that is not dumped.
            nix::sys::prctl::set_dumpable(true).unwrap();
            refused
        })
    };
    assert_eq!(i32::from_ne_bytes(refused[8..12].try_into().unwrap()), libc::EACCES);
    assert_eq!(container.status(), Status::Created);
    container.start().unwrap();
    assert_eq!(container.wait().unwrap(), ExitStatus::Code(9));
    container.delete().unwrap();
}

#[test]
#[ignore = "needs root"]
fn a_container_with_a_program_by_descriptor_takes_no_other() {
    let Some(_turn) = turn() else { return };
    let bundle = Bundle::new(&config("exit 9"));
    let program = fs::File::open(bundle.rootfs().join("bin/busybox")).unwrap();
    let builder = bundle.builder(&new_id()).init(libruntime::Init::program(program));
    let container = builder.create().unwrap();
    let error = container.start_program(&shell("true")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    container.delete_force().unwrap();
    // As it was written by a version whose stage takes a header for a word to go on.
    let container = created(&bundle);
    let path = bundle.store.join(container.id()).join("state.json");
    let mut state: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    state.as_object_mut().unwrap().remove("takes_program").expect("it is written");
    fs::write(&path, state.to_string()).unwrap();
    let error = bundle.load(container.id()).unwrap().start_program(&shell("true")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    container.delete_force().unwrap();
}
