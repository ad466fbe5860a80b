use super::*;

/// Runs a program of the few instructions that [`Policy::program`] uses.
fn run(program: &[Insn], kind: Kind, access: u8, major: u32, minor: u32) -> bool {
    let context = [u32::from(access) << 16 | kind as u32, major, minor];
    let mut regs = [0u64; 11];
    let mut at = 0usize;
    loop {
        let Insn { code, regs: pair, off, imm } = program[at];
        let (to, from) = ((pair & 15) as usize, (pair >> 4) as usize);
        at += 1;
        let jump = match code {
            LOAD_WORD => {
                assert_eq!(from, 1, "only the context can be read");
                regs[to] = u64::from(context[off as usize / 4]);
                false
            }
            MOVE => {
                regs[to] = regs[from];
                false
            }
            AND => {
                regs[to] &= i64::from(imm) as u64;
                false
            }
            SHIFT_RIGHT => {
                regs[to] >>= imm;
                false
            }
            SET => {
                regs[to] = i64::from(imm) as u64;
                false
            }
            JUMP_IF_NOT => regs[to] as u32 != imm as u32,
            JUMP_IF_ANY => regs[to] & i64::from(imm) as u64 != 0,
            JUMP => true,
            EXIT => return regs[0] != 0,
            other => panic!("instruction {other:#x}"),
        };
        if jump {
            at += off as usize;
        }
    }
}

fn policy(json: &str) -> Result<Policy> {
    Policy::new(&serde_json::from_str::<Vec<LinuxDeviceCgroup>>(json).unwrap())
}

fn allowed(json: &str, kind: Kind, access: u8, major: u32, minor: u32) -> bool {
    run(&policy(json).unwrap().program(), kind, access, major, minor)
}

const DENY_ALL: &str = r#"{"allow":false,"access":"rwm"}"#;

#[test]
fn without_rules_the_default_devices_are_all_there_is() {
    for json in ["[]", &format!("[{DENY_ALL}]")] {
        assert!(allowed(json, Kind::Char, READ | WRITE, 1, 3));
        assert!(allowed(json, Kind::Char, READ | WRITE, 136, 77));
        assert!(allowed(json, Kind::Block, MKNOD, 8, 0));
        assert!(!allowed(json, Kind::Block, READ, 8, 0));
        assert!(!allowed(json, Kind::Char, MKNOD | READ, 10, 229));
        assert!(!allowed(json, Kind::Char, READ, 1, 1));
    }
}

#[test]
fn the_last_rule_that_speaks_of_an_access_decides_it() {
    let json = format!(
        r#"[{DENY_ALL},{{"allow":true,"type":"b","major":8,"access":"rw"}},
            {{"allow":false,"type":"b","major":8,"minor":1,"access":"w"}}]"#
    );
    assert!(allowed(&json, Kind::Block, READ | WRITE, 8, 0));
    assert!(allowed(&json, Kind::Block, READ, 8, 1));
    assert!(!allowed(&json, Kind::Block, WRITE, 8, 1));
    assert!(!allowed(&json, Kind::Block, READ | WRITE, 8, 1), "half of it is denied");
    assert!(!allowed(&json, Kind::Char, READ, 8, 0));
}

#[test]
fn rights_of_two_rules_add_up() {
    let json = r#"[{"allow":true,"type":"c","major":10,"minor":229,"access":"r"},
                   {"allow":true,"type":"c","major":10,"access":"w"}]"#;
    assert!(allowed(json, Kind::Char, READ | WRITE, 10, 229));
    assert!(!allowed(json, Kind::Char, READ | WRITE, 10, 1));
}

#[test]
fn a_privileged_container_needs_no_program() {
    let policy = policy(r#"[{"allow":false,"access":"rwm"},{"allow":true,"access":"rwm"}]"#).unwrap();
    assert!(policy.allows_everything());
    assert_eq!(policy.v1().unwrap(), V1 { allow: true, exceptions: vec![] });
}

#[test]
fn a_denied_device_among_all_allowed_ones_is_denied() {
    let json = r#"[{"allow":true,"access":"rwm"},{"allow":false,"type":"b","major":8,"access":"w"}]"#;
    assert!(!policy(json).unwrap().allows_everything());
    assert!(!allowed(json, Kind::Block, WRITE, 8, 3));
    assert!(allowed(json, Kind::Block, READ, 8, 3));
    assert!(allowed(json, Kind::Char, READ | WRITE, 200, 3));
    assert_eq!(policy(json).unwrap().v1().unwrap(), V1 { allow: true, exceptions: vec!["b 8:* w".into()] });
}

#[test]
fn any_kind_with_a_number_is_both_kinds_on_v1() {
    let json = format!(r#"[{DENY_ALL},{{"allow":true,"type":"a","major":7,"minor":1,"access":"rmw"}}]"#);
    let v1 = policy(&json).unwrap().v1().unwrap();
    assert!(!v1.allow);
    assert_eq!(v1.exceptions[..2], ["b 7:1 rwm", "c 7:1 rwm"]);
    assert_eq!(v1.exceptions.len(), 2 + DEFAULT_RULES.len());
}

#[test]
fn v1_says_so_when_it_cannot_take_a_part_out_of_a_rule() {
    let json = format!(
        r#"[{DENY_ALL},{{"allow":true,"type":"c","major":10,"access":"rw"}},
            {{"allow":false,"type":"c","major":10,"minor":1,"access":"w"}}]"#
    );
    let error = policy(&json).unwrap().v1().unwrap_err().to_string();
    assert!(error.contains(r#""c 10:1 w" out of "c 10:* rw""#), "{error}");
    assert!(!allowed(&json, Kind::Char, WRITE, 10, 1), "v2 can");
}

#[test]
fn v1_takes_whole_rules_away_again() {
    let json = format!(
        r#"[{DENY_ALL},{{"allow":true,"type":"c","major":10,"minor":1,"access":"rw"}},
            {{"allow":true,"type":"c","major":10,"minor":2,"access":"r"}},
            {{"allow":false,"type":"c","major":10,"access":"w"}},
            {{"allow":false,"type":"c","major":10,"minor":2,"access":"r"}}]"#
    );
    let v1 = policy(&json).unwrap().v1().unwrap();
    assert_eq!(v1.exceptions[0], "c 10:1 r");
    assert_eq!(v1.exceptions.len(), 1 + DEFAULT_RULES.len());
}

#[test]
fn wrong_rules_are_named() {
    for (json, place) in [
        (r#"[{"allow":true,"type":"c","access":"rx"}]"#, "linux.resources.devices[0].access"),
        (r#"[{"allow":false},{"allow":true,"type":"c"}]"#, "linux.resources.devices[1].access"),
        (r#"[{"allow":true,"type":"p","access":"r"}]"#, "linux.resources.devices[0].type"),
        (r#"[{"allow":true,"major":-2,"access":"r"}]"#, "linux.resources.devices[0].major"),
    ] {
        let error = policy(json).unwrap_err();
        assert_eq!(error.diagnostics()[0].config_path, place);
    }
}

#[test]
fn minus_one_is_any_number() {
    let json = r#"[{"allow":true,"type":"c","major":10,"minor":-1,"access":"r"}]"#;
    assert!(allowed(json, Kind::Char, READ, 10, 200));
}
