use super::*;

#[test]
#[ignore = "needs root"]
fn a_directory_that_another_user_can_change_is_refused() {
    let store = std::env::temp_dir().join(format!("onggi-owner-{}", std::process::id()));
    let other = nix::unistd::Uid::from_raw(1000);
    fs::create_dir_all(store.join("a")).unwrap();
    let own = (Directory::open(&store, "a").is_ok(), check_store(&store).is_ok());
    nix::unistd::chown(&store.join("a"), Some(other), None).unwrap();
    let error = Directory::open(&store, "a").unwrap_err().to_string();
    let mode = |mode| fs::set_permissions(&store, std::os::unix::fs::PermissionsExt::from_mode(mode));
    mode(0o777).unwrap();
    let written_by_all = check_store(&store).is_ok();
    mode(0o1777).unwrap();
    let sticky = check_store(&store).is_ok();
    mode(0o770).unwrap();
    let written_by_own_group = check_store(&store).is_ok();
    nix::unistd::chown(&store, None, Some(nix::unistd::Gid::from_raw(1000))).unwrap();
    let written_by_a_group = check_store(&store).is_ok();
    mode(0o755).unwrap();
    nix::unistd::chown(&store, Some(other), None).unwrap();
    let of_another = check_store(&store).is_ok();
    fs::remove_dir_all(&store).unwrap();
    assert_eq!((own, written_by_all, sticky, of_another), ((true, true), false, false, false));
    assert_eq!((written_by_own_group, written_by_a_group), (true, false));
    assert!(error.contains("it belongs to user 1000, and the caller is user 0"), "{error}");
}

#[test]
fn what_a_dead_process_left_of_a_container_is_swept() {
    let store = std::env::temp_dir().join(format!("onggi-sweep-{}", std::process::id()));
    let dead = i32::MAX;
    // Killed, and not reaped yet.
    let mut unreaped = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
    unreaped.kill().unwrap();
    let zombie = unreaped.id() as i32;
    while !matches!(stat(zombie), Ok(Some(Stat { state: 'Z', .. }))) {
        std::thread::yield_now();
    }
    let names = [format!(".a.{dead}"), format!(".a.{zombie}~"), format!(".a.b.{dead}"), ".a.1~".to_string()];
    names.iter().for_each(|name| fs::create_dir_all(store.join(name).join("in")).unwrap());
    Directory::sweep(&store, "a");
    let left = names.map(|name| store.join(name).exists());
    fs::remove_dir_all(&store).unwrap();
    unreaped.wait().unwrap();
    assert_eq!(left, [false, false, true, true]);
}

#[test]
fn a_container_that_is_deleted_while_it_is_read_does_not_exist() {
    let store = std::env::temp_dir().join(format!("onggi-deleted-{}", std::process::id()));
    fs::create_dir_all(store.join("a")).unwrap();
    let directory = Directory::open(&store, "a").unwrap().unwrap();
    let kinds = || {
        [directory.read_state().map(drop), directory.read_spec().map(drop)]
            .map(|read| read.unwrap_err().kind())
    };
    let present = kinds();
    fs::rename(store.join("a"), store.join(".a.1~")).unwrap();
    let moved = kinds();
    fs::remove_dir_all(&store).unwrap();
    assert!(!present.contains(&ErrorKind::NotFound), "{present:?}");
    assert_eq!(moved, [ErrorKind::NotFound; 2]);
}

#[test]
fn a_process_is_itself_and_not_one_that_started_at_another_time() {
    let own = ProcessId::of(std::process::id() as i32).unwrap();
    assert!(own.is_alive());
    assert!(!ProcessId { start_time: own.start_time + 1, ..own }.is_alive());
}

#[test]
fn a_program_has_been_executed_and_a_forked_child_has_not() {
    let own = ProcessId::of(std::process::id() as i32).unwrap();
    assert_eq!(own.has_executed(None), Some(true));
    assert_eq!(ProcessId { start_time: own.start_time + 1, ..own }.has_executed(None), None);
    let holder = crate::sys::hold_user_namespace();
    let Ok(holder) = holder else { return eprintln!("skipped: user namespaces are not allowed") };
    assert_eq!(ProcessId::of(holder.pid).unwrap().has_executed(None), Some(false));
}

/// As version 0.1 of the library wrote it.
const OF_0_1: &str = r#"{"id":"a","oci_version":"1.0.2","bundle":"/b","rootfs":"/b/rootfs",
    "created":"2026-01-01T00:00:00.000000000Z","owner":0,"annotations":{},"init":{"pid":2147483647,"start_time":1},
    "cgroup":{"hierarchies":[],"optional":true},"resctrl":[],"mounted_on_host":false,"notify_socket":null}"#;

#[test]
fn states_of_older_versions_are_read_and_of_newer_ones_refused() {
    let store = std::env::temp_dir().join(format!("onggi-version-{}", std::process::id()));
    fs::create_dir_all(store.join("a")).unwrap();
    let read = |text: &str| {
        fs::write(store.join("a/state.json"), text).unwrap();
        Directory::open(&store, "a").unwrap().unwrap().read_state()
    };
    let old = read(OF_0_1);
    // Not of a form that is known here.
    let newer = read(r#"{"version": 2, "id": 7}"#).map(|state| state.version);
    fs::remove_dir_all(&store).unwrap();
    let old = old.unwrap();
    assert_eq!((old.version, old.id.as_str(), old.init.unwrap().pid), (0, "a", i32::MAX));
    let newer = newer.unwrap_err();
    assert_eq!(newer.kind(), ErrorKind::Unsupported);
    assert!(newer.to_string().contains("state.json has version 2, 1 is known"), "{newer}");
}
