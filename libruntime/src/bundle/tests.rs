//! A catalogue of broken bundles: a change to a good configuration, and the places and codes of what the check must
//! find then, and nothing else. The numbers of lines are those of good.json with the change.

use crate::{BundleReport, DiagnosticCode, Runtime, Severity};
use std::fs;
use std::path::PathBuf;

const GOOD: &str = include_str!("good.json");

/// What is replaced, by what, and each finding as `line:column code`.
type Fault = (&'static str, &'static str, &'static str);

#[rustfmt::skip]
const FAULTS: &[Fault] = &[
    // The text.
    (r#""readonly": true }"#, r#""readonly": true, }"#, "3:49 syntax"),
    ("\"cwd\": \"/\",\n    \"noNew", "\"cwd\": \"/\"\n    \"noNew", "12:5 syntax"),
    (r#""secs": 10"#, r#""secs": 010"#, "49:45 syntax"),
    (r#""hostname": "good""#, r#""hostname": "goo\d""#, "4:20 syntax"),
    // The top level.
    ("\"ociVersion\": \"1.3.0\",\n", "\n", "1:1 missing-property"),
    (r#""ociVersion": "1.3.0""#, r#""ociVersion": "2.0.0""#, "2:17 invalid-value"),
    (r#""ociVersion": "1.3.0""#, r#""ociVersion": "1.3""#, "2:17 invalid-value"),
    ("\"root\": { \"path\": \"rootfs\", \"readonly\": true },\n", "\n", "1:1 missing-property"),
    (r#""path": "rootfs""#, r#""path": "rootfz""#, "3:21 not-found"),
    (r#""path": "rootfs""#, r#""path": "data""#, "3:21 not-found"),
    (r#""readonly": true"#, r#""readOnly": true"#, "3:31 unknown-property"),
    (r#""readonly": true"#, r#""readonly": "true""#, "3:43 wrong-type"),
    (r#""hostname": "good","#, r#""hostname": "good", "hostname": "twice","#, "4:23 duplicate-property"),
    (r#""domainname": "example","#, r#""domainname": null, "domain": "x","#, "5:23 unknown-property"),
    ("{ \"type\": \"uts\" },\n", "\n", "4:15 missing-namespace, 5:17 missing-namespace"),
    // The process.
    (r#""uid": 0"#, r#""uid": -1"#, "8:22 wrong-type"),
    (r#""uid": 0"#, r#""uid": "root""#, "8:22 wrong-type"),
    (r#""umask": 18"#, r#""umask": 1777"#, "8:35 ignored"),
    ("[5, 6]", "[5, 4294967295]", "8:70 invalid-value"),
    ("\"args\": [\"/bin/sh\", \"-c\", \"true\"],\n", "\n", "6:3 missing-property"),
    (r#""-c", "true"]"#, r#""-c", 7]"#, "9:31 wrong-type"),
    (r#""args": ["/bin/sh", "-c", "true"]"#, r#""args": []"#, "9:13 missing-property"),
    (r#""TERM=xterm""#, r#""TERM""#, "10:26 invalid-value"),
    (r#""TERM=xterm""#, r#""=xterm""#, "10:26 invalid-value"),
    (r#""cwd": "/""#, r#""cwd": "tmp""#, "11:12 invalid-value"),
    ("\"cwd\": \"/\",\n", "\n", "6:3 missing-property"),
    (r#""oomScoreAdj": 100"#, r#""oomScoreAdj": 1001"#, "13:20 invalid-value"),
    (r#""effective": ["CAP_KILL"]"#, r#""effective": ["CAP_KILL", "CAP_FLY"]"#, "16:33 ignored"),
    (r#""effective": ["CAP_KILL"]"#, r#""effective": ["CAP_KILL", "CAP_CHOWN"]"#, "16:7 ignored"),
    (r#""soft": 512"#, r#""soft": 2048"#, "20:42 invalid-value"),
    (r#""RLIMIT_CORE""#, r#""RLIMIT_NOFILE""#, "21:17 invalid-value"),
    (r#""RLIMIT_CORE""#, r#""RLIMIT_CORES""#, "21:17 unknown-value"),
    (r#""hard": 1024 "#, r#""hrad": 1024 "#, "20:7 missing-property, 20:47 unknown-property"),
    (r#""priority": 4"#, r#""priority": 8"#, "23:61 invalid-value"),
    // Mounts.
    (r#""destination": "/tmp", "#, "", "27:5 missing-property"),
    (r#""destination": "/tmp""#, r#""destination": "tmp""#, "27:7 ignored"),
    (r#""source": "data""#, r#""source": "date""#, "31:17 not-found"),
    ("      \"source\": \"data\",\n", "", "28:5 missing-property"),
    (r#""type": "tmpfs", "#, "", "27:5 missing-property"),
    (r#""options": ["nosuid", "size=1m"]"#, r#""options": "nosuid""#, "27:77 wrong-type"),
    (r#""options": ["rbind", "ro"]"#, r#""options": ["rbind", "ro", "idmap"]"#, "32:18 missing-namespace"),
    (r#""options": ["rbind", "ro"]"#, r#""options": ["rbind", "ro", "bind\u0000"]"#, "32:34 invalid-value"),
    (r#""source": "data","#, r#""source": "data", "uidMappings": [{"containerID": 0, "hostID": 0, "size": 1}],"#, "28:5 missing-property"),
    // Hooks and annotations.
    (r#""path": "/bin/true""#, r#""path": "/bin/truth""#, "36:33 not-found"),
    (r#""path": "/bin/true""#, r#""path": "bin/true""#, "36:33 invalid-value"),
    (r#""path": "/bin/true""#, r#""path": "/etc/passwd""#, "36:33 not-found"),
    (r#""timeout": 5"#, r#""timeout": 0"#, "36:57 invalid-value"),
    (r#""env": ["A=b"]"#, r#""env": ["A"]"#, "36:68 invalid-value"),
    (r#""createRuntime""#, r#""createruntime""#, "36:5 unknown-property"),
    (r#""com.example.a": "b""#, r#""com.example.a": "b", "com.example.a": "c""#, "38:42 duplicate-property"),
    (r#""com.example.a": "b""#, r#""com.example.a": 1"#, "38:37 wrong-type"),
    (r#""com.example.a": "b""#, r#""": "b""#, "38:18 invalid-value"),
    // Linux.
    (r#"{ "type": "pid" }"#, r#"{ "type": "process" }"#, "42:17 unknown-value"),
    (r#"{ "type": "pid" }"#, r#"{ "type": "mount" }"#, "42:17 invalid-value"),
    (r#"{ "type": "pid" }"#, r#"{ "type": "pid", "path": "/proc/0/ns/pid" }"#, "42:32 not-found"),
    (r#"{ "type": "time" }"#, r#"{ "type": "time", "path": "/proc/self/ns/time" }"#, "49:20 missing-namespace"),
    (r#""boottime""#, r#""realtime""#, "49:34 invalid-value"),
    (r#""nanosecs": 0"#, r#""nanosecs": 1000000000"#, "49:60 invalid-value"),
    (r#""kernel.shm_rmid_forced""#, r#""kernel.panic""#, "50:61 invalid-value"),
    ("{ \"type\": \"network\" },\n", "\n", "50:40 missing-namespace"),
    (r#""type": "c", "major": 1"#, r#""type": "d", "major": 1"#, "51:45 unknown-value"),
    (r#""major": 1, "#, "", "51:17 missing-property"),
    (r#""path": "/dev/x""#, r#""path": "dev/x""#, "51:27 invalid-value"),
    (r#"["/proc/kcore"]"#, r#"["/proc/kcore", "sys"]"#, "52:36 ignored"),
    (r#""rootfsPropagation": "private""#, r#""rootfsPropagation": "secret""#, "54:26 invalid-value"),
    (r#""access": "rwm""#, r#""access": "rwx""#, "56:47 invalid-value"),
    (r#""swappiness": 10"#, r#""swappiness": 101"#, "57:53 invalid-value"),
    (r#""limit": 100000000"#, r#""limit": "100M""#, "57:28 wrong-type"),
    (r#""quota": 50000"#, r#""quota": 5"#, "58:40 invalid-value"),
    (r#""cpus": "0""#, r#""cpus": "0-""#, "58:73 invalid-value"),
    (r#""pids": { "limit": 100 }"#, r#""pids": { "limit": "many" }"#, "59:26 wrong-type"),
    (r#""SCMP_ACT_ALLOW""#, r#""SCMP_ACT_PERMIT""#, "62:24 unknown-value"),
    (r#""SCMP_ARCH_X86_64""#, r#""SCMP_ARCH_X86_65""#, "63:25 unknown-value"),
    (r#""names": ["reboot", "kexec_load"]"#, r#""names": []"#, "65:20 invalid-value"),
    (r#""errnoRet": 1"#, r#""errnoRet": 5000"#, "65:86 invalid-value"),
    (r#""action": "SCMP_ACT_ERRNO", "errnoRet": 1"#, r#""action": "SCMP_ACT_NOTIFY""#, "61:5 missing-property"),
    (r#""options": ["rbind", "ro"]"#, r#""options": ["rbind", "ro", "nosuidd"]"#, "32:18 invalid-value"),
];

struct Bundle(PathBuf);

impl Bundle {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("onggi-bundle-{}-{name}", std::process::id()));
        fs::create_dir_all(path.join("rootfs")).unwrap();
        fs::write(path.join("data"), "").unwrap();
        Self(path)
    }

    fn check(&self, text: impl AsRef<[u8]>) -> BundleReport {
        fs::write(self.0.join("config.json"), text).unwrap();
        Runtime::new(self.0.join("store")).check_bundle(&self.0).unwrap()
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        let made = self.0.join("store").exists();
        let _ = fs::remove_dir_all(&self.0);
        assert!(!made, "the check has made a store");
    }
}

/// Each finding as `line:column code`. Users other than root lack some of what the good configuration asks for: the
/// host's part, and capabilities.
fn found(report: &BundleReport) -> String {
    let root = nix::unistd::geteuid().is_root();
    let of_host = [DiagnosticCode::Unsupported, DiagnosticCode::Failed];
    let of_user =
        |one: &&crate::Diagnostic| !of_host.contains(&one.code) && one.config_path != "process.capabilities";
    let all = report.diagnostics.iter().filter(|one| root || of_user(one));
    let all = all.map(|one| format!("{} {}", one.span.unwrap().start, one.code.name()));
    all.collect::<Vec<_>>().join(", ")
}

#[test]
fn a_good_bundle_has_no_findings() {
    let report = Bundle::new("good").check(GOOD);
    assert_eq!(found(&report), "", "{:?}", report.diagnostics);
}

#[test]
fn each_fault_is_found_at_its_place() {
    assert!(FAULTS.len() >= 60);
    let bundle = Bundle::new("faults");
    for (from, to, expected) in FAULTS {
        assert_eq!(GOOD.matches(from).count(), 1, "{from}");
        let report = bundle.check(GOOD.replace(from, to));
        assert_eq!(found(&report), *expected, "{to}: {:#?}", report.diagnostics);
        let is_error = |one: &crate::Diagnostic| one.severity == Severity::Error;
        assert_eq!(report.errors(), report.diagnostics.iter().filter(|one| is_error(one)).count());
    }
}

/// One pass finds the faults of the types, of the values, of the files and of the host.
#[test]
fn many_faults_are_found_at_once() {
    let faults = [
        (r#""uid": 0"#, r#""uid": -1"#, "8:22 wrong-type"),
        (r#""-c", "true"]"#, r#""-c", 7]"#, "9:31 wrong-type"),
        (r#""cwd": "/""#, r#""cwd": "tmp", "cwdd": 1"#, "11:12 invalid-value, 11:19 unknown-property"),
        (r#""RLIMIT_CORE""#, r#""RLIMIT_CORES""#, "21:17 unknown-value"),
        (r#""source": "proc" "#, r#""source": "proc", "options": 1 "#, "26:76 wrong-type"),
        (r#""source": "data""#, r#""source": "date""#, "31:17 not-found"),
        (r#""path": "/bin/true""#, r#""path": "/bin/truth""#, "36:33 not-found"),
        (r#""kernel.shm_rmid_forced""#, r#""kernel.panic""#, "50:61 invalid-value"),
        (r#""errnoRet": 1"#, r#""errnoRet": 5000"#, "65:86 invalid-value"),
    ];
    let text = faults.iter().fold(GOOD.to_owned(), |text, (from, to, _)| text.replace(from, to));
    let report = Bundle::new("many").check(text);
    let expected: Vec<&str> = faults.iter().map(|(_, _, expected)| *expected).collect();
    assert_eq!(found(&report), expected.join(", "), "{:#?}", report.diagnostics);
}

#[test]
fn what_is_no_configuration_is_an_error_or_a_finding_in_bounded_time() {
    let bundle = Bundle::new("hostile");
    for (text, expected) in [
        (&b""[..], "1:1 syntax"),
        (b"\xff\xfe{}", "1:1 syntax"),
        (b"{\"a\": \"\xc3\"}", ""),
        (b"[]", "1:1 wrong-type"),
        (b"7", "1:1 wrong-type"),
    ] {
        let report = bundle.check(text);
        assert!(found(&report).starts_with(expected), "{}", found(&report));
        assert!(report.errors() > 0);
    }
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(found(&bundle.check(&deep)), "1:1 wrong-type");
    let unknown = GOOD.replace(r#""hostname""#, &format!("\"unknown\": {deep}, \"hostname\""));
    assert_eq!(found(&bundle.check(unknown)), "4:3 unknown-property");
    let long = format!("{{\"annotations\": {{{}\"b\": 1}}}}", "\"a\": 1, ".repeat(20_000));
    assert!(bundle.check(long).diagnostics.len() <= 310);
    let runtime = Runtime::new(bundle.0.join("store"));
    fs::write(bundle.0.join("config.json"), vec![b' '; super::MAX_SIZE + 1]).unwrap();
    assert_eq!(runtime.check_bundle(&bundle.0).unwrap_err().errno(), Some(libc::EFBIG));
    fs::remove_file(bundle.0.join("config.json")).unwrap();
    assert_eq!(runtime.check_bundle(&bundle.0).unwrap_err().errno(), Some(libc::ENOENT));
    nix::unistd::mkfifo(&bundle.0.join("config.json"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert!(runtime.check_bundle(&bundle.0).unwrap_err().to_string().contains("not a regular file"));
}
