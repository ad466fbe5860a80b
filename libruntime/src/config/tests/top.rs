//! The top of the configuration: version, root, names, mounts, hooks, annotations, other platforms.

use super::check;

#[test]
fn the_version_is_semantic_and_of_major_one() {
    for good in ["1.0.0", "1.0.2-dev", "1.3.0", "1.99.0", "1.2.0+abc", "1.0.0-rc.5", "1.0.0-rc5+b.1"] {
        check(&format!("ociVersion = {good:?}"), "");
    }
    for bad in [
        "1",
        "1.0",
        "1.0.0.0",
        "v1.0.0",
        "1.0.x",
        "01.0.0",
        "1.0.0-",
        "1.0.0+",
        "1.0.0-a..b",
        "1..0",
        " 1.0.0",
    ] {
        check(&format!("ociVersion = {bad:?}"), "ociVersion: not a semantic version");
    }
    check(r#"ociVersion = "0.5.0-dev""#, "ociVersion: not supported");
    check(r#"ociVersion = "2.0.0""#, "ociVersion: not supported");
    check(r#"ociVersion = """#, "ociVersion: missing");
    check("ociVersion", "ociVersion: missing");
}

#[test]
fn a_container_has_a_root_and_need_not_have_a_process() {
    check("root", "root: missing");
    check("root.path", "root.path: missing");
    check(r#"root.path = """#, "root.path: missing");
    check(r#"root.path = "a\u0000b""#, "root.path: NUL");
    check(r#"root.path = "/abs/rootfs""#, "");
    check("root.readonly = true", "");
    // Only start needs one.
    check("process", "");
}

#[test]
fn names_need_a_uts_namespace() {
    check(r#"hostname = "box""#, "");
    check(r#"domainname = "example.org""#, "");
    check("hostname = \"\"\nlinux.namespaces = [{\"type\":\"mount\"}]", "");
    check(
        "hostname = \"a\"\ndomainname = \"b\"\nlinux.namespaces = [{\"type\":\"mount\"}]",
        "hostname: needs a uts namespace\ndomainname: needs a uts namespace",
    );
    // Containers of a Podman pod join one, and are all given its name.
    check("hostname = \"a\"\nlinux.namespaces[2].path = \"/proc/1/ns/uts\"", "");
    check(&format!("hostname = {:?}", "a".repeat(64)), "");
    check(&format!("hostname = {:?}", "a".repeat(65)), "hostname: 65 bytes");
    check(&format!("domainname = {:?}", "ü".repeat(33)), "domainname: 66 bytes");
    check(r#"hostname = "a\u0000b""#, "hostname: NUL");
    check("linux\nhostname = \"a\"", "hostname: needs a uts namespace");
}

#[test]
fn mounts_have_what_mounting_needs() {
    check(r#"mounts = [{"destination":"/proc","type":"proc","source":"proc"}]"#, "");
    check(r#"mounts = [{"destination":"/a","type":"tmpfs"},{"destination":"/a","type":"tmpfs"}]"#, "");
    check(r#"mounts = [{"destination":"/a/../b","type":"tmpfs"}]"#, "");
    check(r#"mounts = [{"destination":"/d","source":"/s","options":["rbind"]}]"#, "");
    check(r#"mounts = [{"destination":"/d","source":"s","type":"bind"}]"#, "");
    check(r#"mounts = [{"destination":"/d","source":"s","type":"none","options":["bind"]}]"#, "");
    check(r#"mounts = [{"destination":"/d","options":["remount","ro"]}]"#, "");
    check(r#"mounts = [{"destination":"d","type":"tmpfs"}]"#, "warning mounts[0].destination: relative");
    check(r#"mounts = [{"destination":"","type":"tmpfs"}]"#, "mounts[0].destination: empty");
    for root in ["/", "//", "/..", "/."] {
        let mount = format!(r#"mounts = [{{"destination":"{root}","type":"tmpfs"}}]"#);
        check(&mount, &format!("mounts[0].destination: {root:?} is on the top of rootfs"));
    }
    check(r#"mounts = [{"destination":"/","options":["remount","ro"]}]"#, "");
    check(r#"mounts = [{"destination":"/d","type":"bind"}]"#, "mounts[0].source: missing");
    check(r#"mounts = [{"destination":"/d","type":"bind","source":""}]"#, "mounts[0].source: missing");
    check(r#"mounts = [{"destination":"/d"}]"#, "mounts[0].type: missing");
    check(
        r#"mounts = [{"destination":"/a\u0000","source":"b\u0000","type":"c\u0000","options":["ro","d\u0000"]}]"#,
        "mounts[0].destination: NUL\nmounts[0].type: NUL\nmounts[0].options[1]: NUL\nmounts[0].source: NUL",
    );
}

#[test]
fn too_many_mounts_give_one_error() {
    let mounts = |count| vec![r#"{"destination":"x"}"#; count].join(",");
    check(&format!("mounts = [{}]", mounts(10_001)), "mounts: 10001 mounts; at most 10000");
    check(&format!("mounts = [{}]", mounts(100_000)), "mounts: 100000 mounts; at most 10000");
}

#[test]
fn mount_mappings_come_in_pairs() {
    let row = r#"[{"containerID":0,"hostID":1000,"size":10}]"#;
    let bind = r#""destination":"/d","source":"/s","type":"bind""#;
    let one = |rest: &str| format!("mounts = [{{{bind}{rest}}}]");
    check(&one(&format!(r#","uidMappings":{row},"gidMappings":{row},"options":["idmap"]"#)), "");
    check(&one(&format!(r#","uidMappings":{row},"gidMappings":{row}"#)), "");
    check(
        &one(&format!(r#","uidMappings":{row},"gidMappings":[]"#)),
        "mounts[0].gidMappings: together with uid",
    );
    check(&one(&format!(r#","gidMappings":{row}"#)), "mounts[0].uidMappings: together with gid");
    check(&one(r#","options":["idmap"]"#), "mounts[0].options: idmap needs");
    check(&one(r#","options":["ridmap"]"#), "mounts[0].options: idmap needs");
    // crun's own form brings its mappings along.
    check(&one(r#","options":["idmap=uids=0-1-10;gids=0-1-10"]"#), "");
    check(&one(r#","options":["idmap=uids=0-1-10"]"#), "mounts[0].options[0]: needs uids");
    check(
        &one(&format!(
            r#","uidMappings":{row},"gidMappings":{row},"options":["idmap=uids=0-1-1;gids=0-1-1"]"#
        )),
        "mounts[0].options[0]: and so has the mount",
    );
    let user = format!(
        "linux.uidMappings = {row}\nlinux.gidMappings = {row}\nlinux.namespaces[6].type = \"user\"\n"
    );
    check(&(user + &one(r#","options":["ridmap"]"#)), "");
    check(
        &one(
            r#","uidMappings":[{"containerID":0,"hostID":0,"size":0}],"gidMappings":[{"containerID":0,"size":1}]"#,
        ),
        "mounts[0].gidMappings[0].hostID: missing\nmounts[0].uidMappings[0].size: missing or 0",
    );
    check(
        &format!(
            r#"mounts = [{{"destination":"/t","type":"tmpfs","uidMappings":{row},"gidMappings":{row}}}]"#
        ),
        "",
    );
}

#[test]
fn hooks_are_programs_with_a_time_limit() {
    for kind in ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"] {
        let hook = |hook: &str| format!("hooks = {{\"{kind}\":[{{\"path\":\"/bin/true\"}},{hook}]}}");
        let at = format!("hooks.{kind}[1]");
        check(&hook(r#"{"path":"/bin/x","args":["x","y"],"env":["A=b"],"timeout":10}"#), "");
        check(&hook(r#"{"path":"/proc/self/exe","args":[],"env":[]}"#), "");
        check(&hook(r#"{"path":"x"}"#), &format!("{at}.path: not an absolute path"));
        check(&hook(r#"{"path":""}"#), &format!("{at}.path: empty"));
        check(&hook(r#"{"path":"/a\u0000"}"#), &format!("{at}.path: NUL"));
        check(&hook(r#"{"path":"/a","timeout":0}"#), &format!("{at}.timeout: 0 is not more than 0"));
        check(&hook(r#"{"path":"/a","timeout":-5}"#), &format!("{at}.timeout: -5"));
        check(&hook(r#"{"path":"/a","args":["\u0000"]}"#), &format!("{at}.args[0]: NUL"));
        check(
            &hook(r#"{"path":"/a","env":["A","=b","C=\u0000"]}"#),
            &format!("{at}.env[0]: no '='\n{at}.env[1]: no name\n{at}.env[2]: NUL"),
        );
        check(&hook("{}"), &format!("{at}.path: missing"));
    }
}

#[test]
fn annotations_have_keys() {
    check(r#"annotations = {"a":"","org.x/y":"z"}"#, "");
    check(r#"annotations = {"":"x"}"#, "annotations: key is empty");
}

#[test]
fn other_platforms_are_ignored_with_a_warning() {
    for name in ["solaris", "windows", "vm", "zos"] {
        let warning = format!("warning {name}: ignored");
        check(&format!("{name} = {{\"kernel\":{{\"path\":\"/k\"}}}}"), &warning);
        check(&format!("{name} = {{\"hwConfig\":{{\"memory\":1}}}}"), &warning);
        check(&format!("{name} = 7"), &warning);
    }
    check(r#"vm = {"kernel":{"path":"/k"},"hwConfig":{"vcpus":2}}"#, "warning vm: ignored");
    check(r#"uidMappings = "x""#, "warning uidMappings: ignored");
    check(r#"uidMappings = [{"containerID":0,"hostID":0,"size":1}]"#, "warning uidMappings: ignored");
}

#[test]
fn unknown_properties_are_ignored() {
    check(r#"freebsd = {"devices":[]}"#, "");
    check("process.newThing = [1,2]\nlinux.newThing = {\"a\":null}", "");
}

#[test]
fn null_means_absent_where_a_property_is_optional() {
    check("mounts = null\nhooks = null\nhostname = null\nannotations = null\nprocess.env = null", "");
    check(
        "linux.resources = null\nlinux.seccomp = null\nlinux.maskedPaths = null\nprocess.capabilities = null",
        "",
    );
}

#[test]
fn every_problem_is_reported_at_once() {
    check(
        "ociVersion = \"x\"\nroot.path = \"\"\nprocess.args = []\nprocess.cwd = \"a\"\nhostname = \"a\\u0000\"",
        "ociVersion: not a sem\nroot.path: missing\nprocess.args: missing\nprocess.cwd: not an abs\nhostname: NUL",
    );
}

#[test]
fn a_flood_of_problems_is_cut_with_a_count() {
    let env = vec![r#""x""#; 150].join(",");
    let found = super::findings(&super::changed(&format!("process.env = [{env}]")));
    assert_eq!(found.len(), 101);
    assert_eq!(found[100], "…: and 50 more problems");
}
