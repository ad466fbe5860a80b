use super::*;

#[test]
fn interfaces_are_read_without_the_loopback() {
    let text = "\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:     500       5    0    0    0     0          0         0      500       5    0    0    0     0       0          0
  eth0: 1296       9    1    2    0     0          0         0      786      7    3    4    0     0       0          0
";
    let traffic = |bytes, packets, errors, dropped| Traffic { bytes, packets, errors, dropped };
    let eth0 =
        Interface { name: "eth0".into(), received: traffic(1296, 9, 1, 2), sent: traffic(786, 7, 3, 4) };
    assert_eq!(interfaces(text), [eth0]);
    assert_eq!(interfaces(""), []);
}

#[test]
fn pressure_lines_are_read() {
    let text = "some avg10=0.54 avg60=0.09 avg300=0.02 total=68901\nfull avg10=0.36 avg60=0.06 avg300=0.01 total=48815\n";
    let found = pressure(text).unwrap();
    assert_eq!(found.some, Stall { avg10: 0.54, avg60: 0.09, avg300: 0.02, total: 68901 });
    assert_eq!(found.full.total, 48815);
    assert_eq!(pressure("nonsense"), None);
}

#[test]
fn io_of_both_versions_is_one_shape() {
    let mut io = Io::default();
    io_stat("8:16 rbytes=1459200 wbytes=314773504 rios=192 wios=353 dbytes=0 dios=0\n7:0 \n", &mut io);
    let read = IoEntry { major: 8, minor: 16, op: "Read".into(), value: 1459200 };
    assert_eq!(io.service_bytes[0], read);
    assert_eq!((io.service_bytes.len(), io.serviced[1].value), (3, 353));
    assert_eq!(blkio("8:16 Read 1459200\nTotal 5\n"), [read]);
    assert_eq!(blkio("8:16 7\n")[0], IoEntry { major: 8, minor: 16, op: String::new(), value: 7 });
}

#[test]
fn small_formats() {
    assert_eq!(per_cpu_all("cpu user system\n0 5 6\n1 7 8\n"), (vec![5, 7], vec![6, 8]));
    assert_eq!(nested("mlx4_0 hca_handle=2 hca_object=max\n")["mlx4_0"]["hca_handle"], 2);
    assert_eq!([64, 2048, 1 << 20].map(huge_page_size), ["64KB", "2MB", "1GB"]);
}

#[test]
fn runcs_json_has_what_runc_prints() {
    let mut stats = Stats { version: 2, ..Stats::default() };
    stats.cpu = Cpu { total: 346392000, kernel: 220431000, user: 125961000, periods: 5, ..Cpu::default() };
    stats.memory.usage =
        Counter { current: Some(2850816), peak: Some(5713920), limit: Some(67108864), failures: None };
    stats.memory.swap = Counter { current: Some(0), limit: Some(67108864), ..Counter::default() };
    stats.memory.stat = flat("anon 53248\nfile 2097152\n");
    stats.pids = Pids { current: Some(1), peak: None, limit: None };
    let json = stats.to_runc();
    assert_eq!(
        json["cpu"],
        serde_json::json!({"usage": {"total": 346392000, "kernel": 220431000, "user": 125961000},
                           "throttling": {"periods": 5}})
    );
    assert_eq!(
        json["memory"],
        serde_json::json!({
            "cache": 2097152,
            "usage": {"limit": 67108864, "usage": 2850816, "max": 5713920, "failcnt": 0},
            "swap": {"limit": 134217728, "usage": 2850816, "failcnt": 0},
            "kernel": {"limit": 0, "failcnt": 0}, "kernelTCP": {"limit": 0, "failcnt": 0},
            "raw": {"anon": 53248, "file": 2097152},
        })
    );
    assert_eq!(json["pids"], serde_json::json!({"current": 1}));
    stats.memory.usage.limit = None;
    assert_eq!(stats.to_runc()["memory"]["usage"]["limit"], u64::MAX);
    stats.version = 1;
    assert_eq!(stats.to_runc()["memory"]["usage"]["limit"], 9223372036854771712u64);
}
