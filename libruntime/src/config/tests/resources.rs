//! `linux.resources`, in a config and alone.

use super::{changed, check};
use crate::config::{Config, parse_resources};

fn set(json: &str) -> String {
    format!("linux.resources = {json}")
}

#[test]
fn device_rules() {
    let rule = |rule: &str| set(&format!("{{\"devices\":[{{\"allow\":true,{rule}}}]}}"));
    for good in [
        r#""access":"rwm""#,
        r#""access":"r","type":"c","major":1,"minor":3"#,
        r#""access":"wm","type":"b","major":-1,"minor":-1"#,
        r#""access":"m","type":"a""#,
    ] {
        check(&rule(good), "");
    }
    let at = "linux.resources.devices[0]";
    for bad in
        [r#""access":"x""#, r#""access":"rr""#, r#""access":"""#, r#""type":"c""#, r#""access":"rwmx""#]
    {
        check(&rule(bad), &format!("{at}.access: not made of r, w and m"));
    }
    check(&rule(r#""access":"r","type":"p""#), &format!("{at}.type: not one of a, b, c"));
    check(&rule(r#""access":"r","type":"u""#), &format!("{at}.type: not one of a, b, c"));
    check(&rule(r#""access":"r","type":"x""#), &format!("{at}.type: unknown value"));
    check(
        &rule(r#""access":"r","major":-2,"minor":1048576"#),
        &format!("{at}.major: -2\n{at}.minor: 1048576"),
    );
}

#[test]
fn memory() {
    let memory = |memory: &str| set(&format!("{{\"memory\":{{{memory}}}}}"));
    let at = "linux.resources.memory";
    for name in ["limit", "reservation", "swap", "kernel", "kernelTCP"] {
        check(&memory(&format!("{name:?}:-1")), "");
        check(&memory(&format!("{name:?}:-2")), &format!("{at}.{name}: -2 is less than -1"));
    }
    check(&memory(r#""limit":100,"swap":100"#), "");
    check(&memory(r#""limit":100,"swap":-1"#), "");
    check(&memory(r#""limit":0,"swap":0"#), "");
    check(&memory(r#""swap":5"#), &format!("{at}.swap: needs a memory limit"));
    check(&memory(r#""limit":-1,"swap":5"#), "");
    check(&memory(r#""limit":100,"swap":99"#), &format!("{at}.swap: 99 is less than the memory limit"));
    check(&memory(r#""swappiness":100"#), "");
    check(&memory(r#""swappiness":101"#), &format!("{at}.swappiness: 101"));
    // Docker's -1, "not set", as an unsigned number.
    check(&memory(r#""swappiness":18446744073709551615"#), "");
    check(&memory(r#""swappiness":-1"#), &format!("{at}.swappiness: is -1; expected"));
    check(&memory(r#""disableOOMKiller":true,"useHierarchy":true,"checkBeforeUpdate":true"#), "");
    check(&memory(r#""limit":"1G""#), &format!("{at}.limit: is a string"));
    check(&memory(r#""limit":9223372036854775808"#), &format!("{at}.limit: is 9223372036854775808"));
}

#[test]
fn cpu() {
    let cpu = |cpu: &str| set(&format!("{{\"cpu\":{{{cpu}}}}}"));
    let at = "linux.resources.cpu";
    for good in [
        r#""shares":0"#,
        r#""shares":2"#,
        r#""shares":262144"#,
        r#""quota":-1"#,
        r#""quota":0,"period":0"#,
        r#""quota":1000"#,
        r#""period":1000000"#,
        r#""cpus":"0-3,5","mems":"0""#,
        r#""cpus":"""#,
        r#""idle":1"#,
        r#""quota":2000,"burst":2000"#,
        r#""realtimeRuntime":950000,"realtimePeriod":1000000"#,
        r#""realtimeRuntime":-1"#,
        r#""realtimeRuntime":0,"realtimePeriod":0"#,
        r#""cpus":"0-3\n""#,
    ] {
        check(&cpu(good), "");
    }
    check(&cpu(r#""shares":1"#), &format!("warning {at}.shares: nearest"));
    check(&cpu(r#""shares":262145"#), &format!("warning {at}.shares: nearest"));
    check(&cpu(r#""quota":-2"#), &format!("{at}.quota: -2"));
    check(&cpu(r#""quota":999"#), &format!("{at}.quota: 999"));
    check(&cpu(r#""period":999"#), &format!("{at}.period: 999"));
    check(&cpu(r#""period":1000001"#), &format!("{at}.period: 1000001"));
    check(&cpu(r#""quota":2000,"burst":2001"#), &format!("{at}.burst: 2001"));
    check(&cpu(r#""idle":2"#), &format!("{at}.idle: 2"));
    check(&cpu(r#""idle":-1"#), &format!("{at}.idle: -1"));
    check(
        &cpu(r#""realtimeRuntime":2,"realtimePeriod":1"#),
        &format!("{at}.realtimeRuntime: more than the period"),
    );
    check(&cpu(r#""realtimeRuntime":-2"#), &format!("{at}.realtimeRuntime: -2"));
    check(&cpu(r#""cpus":"3-1","mems":"x""#), &format!("{at}.cpus: backwards\n{at}.mems: not a number"));
}

#[test]
fn pids_and_hugepages() {
    for good in ["-1", "0", "1", "9223372036854775807"] {
        check(&set(&format!("{{\"pids\":{{\"limit\":{good}}}}}")), "");
    }
    check(&set(r#"{"pids":{"limit":-2}}"#), "warning linux.resources.pids.limit: -2 is less than -1");
    let pages = |pages: &str| set(&format!("{{\"hugepageLimits\":[{pages}]}}"));
    let at = "linux.resources.hugepageLimits";
    check(
        &pages(r#"{"pageSize":"2MB","limit":0},{"pageSize":"1GB","limit":5},{"pageSize":"64KB","limit":9}"#),
        "",
    );
    for bad in ["2mb", "MB", "2M", "02MB", "2 MB", "-2MB", "../2MB", "2TB", ""] {
        check(
            &pages(&format!(r#"{{"pageSize":{bad:?},"limit":1}}"#)),
            &format!("{at}[0].pageSize: not a size"),
        );
    }
    check(&pages(r#"{"pageSize":"2MB"}"#), &format!("{at}[0].limit: missing"));
    check(&pages(r#"{"pageSize":"2MB","limit":-1}"#), &format!("{at}[0].limit: less than 0"));
    check(
        &pages(r#"{"pageSize":"2MB","limit":1},{"pageSize":"2MB","limit":1}"#),
        &format!("{at}[1].pageSize: already in {at}[0]"),
    );
}

#[test]
fn which_pids_limits_are_none_depends_on_the_version() {
    let limit = |version: &str, limit: i64| {
        let change =
            format!("ociVersion = \"{version}\"\nlinux.resources = {{\"pids\":{{\"limit\":{limit}}}}}");
        let spec = Config::parse(changed(&change).as_bytes()).unwrap().spec;
        spec.linux().as_ref()?.resources().as_ref()?.pids().map(|pids| pids.limit())
    };
    assert_eq!(limit("1.0.2-dev", 0), Some(-1));
    assert_eq!(limit("1.2.1", 0), Some(-1));
    assert_eq!(limit("1.3.0", 0), Some(0));
    assert_eq!(limit("1.3.0", -5), Some(-1));
}

#[test]
fn a_missing_pids_limit_is_no_limit_of_zero() {
    let limit = |json: &str| parse_resources(json.as_bytes()).unwrap().0.pids().map(|pids| pids.limit());
    assert_eq!(limit(r#"{"pids":{}}"#), None);
    assert_eq!(limit(r#"{"pids":{"limit":0}}"#), Some(0));
    assert_eq!(limit(r#" { "memory" : {"limit" : 0} , "pids" : { "limit" : 0 } } "#), Some(0));
}

#[test]
fn numbers_of_64_bits_are_kept_or_mean_unlimited() {
    let limit = |number: &str| {
        let text = format!(r#"{{"hugepageLimits":[{{"pageSize":"2MB","limit":{number}}}]}}"#);
        let (resources, warnings) = parse_resources(text.as_bytes()).unwrap();
        assert_eq!(warnings, []);
        resources.hugepage_limits().as_ref().unwrap()[0].limit()
    };
    assert_eq!(limit("9223372036854775807"), i64::MAX);
    assert_eq!(limit("18446744073709551615"), i64::MAX);
    assert_eq!(limit("209715200"), 209_715_200);
}

#[test]
fn block_io() {
    let io = |io: &str| set(&format!("{{\"blockIO\":{{{io}}}}}"));
    let at = "linux.resources.blockIO";
    for name in ["weight", "leafWeight"] {
        for good in [0, 10, 1000] {
            check(&io(&format!("{name:?}:{good}")), "");
        }
        for bad in [9, 1001] {
            check(&io(&format!("{name:?}:{bad}")), &format!("{at}.{name}: {bad} is not from 10 to 1000"));
            check(
                &io(&format!("\"weightDevice\":[{{\"major\":8,\"minor\":1,{name:?}:{bad}}}]")),
                &format!("{at}.weightDevice[0].{name}: {bad}"),
            );
        }
    }
    check(
        &io(r#""weight":70000"#),
        &format!("{at}.weight: is 70000; expected a whole number from 0 to 65535"),
    );
    check(
        &io(r#""weightDevice":[{"weight":10}]"#),
        &format!("{at}.weightDevice[0].major: missing\n{at}.weightDevice[0].minor: missing"),
    );
    for name in [
        "throttleReadBpsDevice",
        "throttleWriteBpsDevice",
        "throttleReadIOPSDevice",
        "throttleWriteIOPSDevice",
    ] {
        check(&io(&format!("{name:?}:[{{\"major\":8,\"minor\":0,\"rate\":18446744073709551615}}]")), "");
        check(&io(&format!("{name:?}:[{{\"major\":8,\"minor\":0,\"rate\":0}}]")), "");
        check(
            &io(&format!("{name:?}:[{{\"major\":8,\"minor\":0}}]")),
            &format!("{at}.{name}[0].rate: missing"),
        );
        check(
            &io(&format!("{name:?}:[{{\"major\":1,\"minor\":1,\"rate\":1}},{{\"rate\":1}}]")),
            &format!("{at}.{name}[1].major: missing\n{at}.{name}[1].minor: missing"),
        );
        check(
            &io(&format!("{name:?}:[{{\"major\":-1,\"minor\":9999999,\"rate\":1}}]")),
            &format!("{at}.{name}[0].major: -1\n{at}.{name}[0].minor: 9999999"),
        );
    }
}

#[test]
fn names_are_names() {
    let at = "linux.resources";
    check(&set(r#"{"network":{"classID":4294967295,"priorities":[{"name":"eth0","priority":0}]}}"#), "");
    check(
        &set(r#"{"network":{"priorities":[{"name":"a b","priority":1},{"name":"x"}]}}"#),
        &format!(
            "{at}.network.priorities[1].priority: missing\n{at}.network.priorities[0].name: not the name"
        ),
    );
    check(&set(r#"{"rdma":{"mlx5_1":{"hcaHandles":3,"hcaObjects":10000}}}"#), "");
    check(&set(r#"{"rdma":{"a\nb":{}}}"#), &format!("{at}.rdma: not the name of a device"));
    check(&set(r#"{"unified":{"memory.high":"max","io.max":"8:0 rbps=1"}}"#), "");
    for bad in ["../x.y", "a/b.c", "", "memory", ".x", "a b.c"] {
        check(
            &set(&format!("{{\"unified\":{{{bad:?}:\"1\"}}}}")),
            &format!("{at}.unified: not the name of a control file"),
        );
    }
    check(&set(r#"{"unified":{"a.b":"\u0000"}}"#), &format!("{at}.unified.a.b: NUL"));
}

#[test]
fn resources_alone_may_change_one_of_two_that_belong_together() {
    assert!(parse_resources(br#"{"memory":{"swap":5}}"#).is_ok());
    let error = parse_resources(br#"{"memory":{"limit":-5},"cpu":{"idle":7}}"#).unwrap_err();
    let places: Vec<&str> = error.diagnostics().iter().map(|finding| finding.config_path.as_str()).collect();
    assert_eq!(places, ["linux.resources.memory.limit", "linux.resources.cpu.idle"]);
    let error = parse_resources(br#"{"memory":{"limit":"x"}}"#).unwrap_err();
    assert_eq!(error.diagnostics()[0].config_path, "linux.resources.memory.limit");
}
