//! Reading a bundle: every way in which there is no config.json says which one it is.

use crate::config::{Config, MAX_CONFIG_SIZE, check_id};
use crate::error::ErrorKind;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

const GOOD: &str = r#"{"ociVersion":"1.0.0","root":{"path":"r"},
    "process":{"user":{"uid":0,"gid":0},"args":["a"],"cwd":"/"}}"#;

/// A bundle directory that is removed at the end.
struct Bundle(PathBuf);

impl Bundle {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("config-load-{}-{name}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Bundle(path)
    }

    fn error(&self) -> String {
        Config::load(&self.0).unwrap_err().to_string()
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_good_bundle_is_read_also_through_a_link() {
    let bundle = Bundle::new("good");
    fs::write(bundle.0.join("real.json"), GOOD).unwrap();
    std::os::unix::fs::symlink("real.json", bundle.0.join("config.json")).unwrap();
    let config = Config::load(&bundle.0).unwrap();
    assert_eq!(config.spec.version(), "1.0.0");
    assert_eq!(config.warnings, []);
}

#[test]
fn a_missing_bundle_and_a_missing_config_are_told_apart() {
    let bundle = Bundle::new("missing");
    let path = bundle.0.display().to_string();
    assert_eq!(
        bundle.error(),
        format!(
            "JSON specification file config.json not found: \
             open {path}/config.json: no such file or directory (ENOENT); \
             hint: the bundle has no config.json; make one with the command `spec`"
        )
    );
    let none = Config::load(&bundle.0.join("x")).unwrap_err();
    assert_eq!((none.kind(), none.errno()), (ErrorKind::Os, Some(2)));
    assert_eq!(none.hint(), Some("the bundle directory does not exist"));
    fs::write(bundle.0.join("file"), "").unwrap();
    let file = Config::load(&bundle.0.join("file")).unwrap_err();
    assert_eq!((file.errno(), file.hint()), (Some(20), Some("the bundle is not a directory")));
}

#[test]
fn what_is_no_regular_file_is_refused_without_waiting() {
    let bundle = Bundle::new("types");
    let path = bundle.0.join("config.json");
    fs::create_dir(&path).unwrap();
    assert!(bundle.error().contains("is a directory (EISDIR)"), "{}", bundle.error());
    fs::remove_dir(&path).unwrap();
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert!(bundle.error().ends_with("config.json is not a regular file"), "{}", bundle.error());
    fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink("/dev/zero", &path).unwrap();
    assert!(bundle.error().ends_with("config.json is not a regular file"), "{}", bundle.error());
}

#[test]
fn a_huge_config_is_refused_at_once() {
    let bundle = Bundle::new("huge");
    let file = fs::File::create(bundle.0.join("config.json")).unwrap();
    file.set_len(200 << 20).unwrap();
    let start = Instant::now();
    assert!(bundle.error().contains("file too large (EFBIG); hint: at most 64 MiB"), "{}", bundle.error());
    assert!(start.elapsed() < Duration::from_secs(1));
    file.set_len(MAX_CONFIG_SIZE).unwrap();
    assert!(bundle.error().contains("is not JSON: expected value at line 1 column 1"), "{}", bundle.error());
}

#[test]
fn an_empty_config_is_not_json() {
    let bundle = Bundle::new("empty");
    fs::write(bundle.0.join("config.json"), "").unwrap();
    assert_eq!(bundle.error(), "config.json is not JSON: EOF while parsing a value at line 1 column 0");
}

#[test]
fn ids_are_safe_as_names_of_files_and_units() {
    let longest = "a".repeat(1024);
    for good in ["a", "A-b_c.d+e", "0", "-", "+", "_x", "a..b", "a.", longest.as_str()] {
        assert!(check_id(good).is_ok(), "{good}");
    }
    let too_long = "a".repeat(1025);
    for bad in
        ["", ".", "..", ".a", "a/b", "a b", "a\n", "ü", "a\0", "../x", "a:b", "a@b", "a%b", too_long.as_str()]
    {
        let error = check_id(bad).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{bad}");
        assert!(error.to_string().len() < 300, "{bad}");
    }
}
