//! What happens when a system call fails, or when the runtime or its stage is killed or stopped: each verb
//! is walked from its first system call to its last (see ../walk/mod.rs). A sample of the points is walked
//! unless WALK=all; docs/faults.md has the whole story.

use crate::case::{Case, Need, Outcome, case, skip};
use crate::net;
use crate::test::Test;
use crate::walk::{Kind, Setting, Verb, stop_first, walk, walk_rare};

/// A case for each walk: what happens, in which verb, with what.
macro_rules! walks {
    ($($name:ident: $kind:ident $verb:ident $setting:ident $sample:literal;)+) => {
        pub const CASES: &[Case] = &[
            case!(run_with_a_failure_of_a_rare_call, [Need::Root], 300),
            case!(run_stopped_before_the_stage_is_executed, [Need::Root], 60),
            case!(exec_stopped_before_the_stage_is_executed, [Need::Root], 60),
            $(case!($name, [Need::Root], 300)),+
        ];
        $(fn $name(t: &Test) -> Outcome {
            begin(t, Setting::$setting)?;
            walk(t, Kind::$kind, Verb::$verb, Setting::$setting, $sample)
        })+
    };
}

walks! {
    run_with_a_failed_call: Errors Run Plain 24;
    create_with_a_failed_call: Errors Create Plain 24;
    start_with_a_failed_call: Errors Start Plain 10;
    exec_with_a_failed_call: Errors Exec Plain 16;
    kill_with_a_failed_call: Errors Kill Plain 8;
    delete_with_a_failed_call: Errors Delete Plain 12;
    update_with_a_failed_call: Errors Update Plain 8;
    state_with_a_failed_call: Errors State Plain 8;
    refused_delete_with_a_failed_call: Errors RefusedDelete Plain 8;
    run_with_a_network_and_a_failed_call: Errors Run Network 12;
    create_with_a_network_and_a_failed_call: Errors Create Network 12;
    delete_with_a_network_and_a_failed_call: Errors Delete Network 8;
    run_with_a_user_namespace_and_a_failed_call: Errors Run UserNamespace 12;
    exec_with_a_user_namespace_and_a_failed_call: Errors Exec UserNamespace 8;
    run_killed_at_a_call: Kills Run Plain 16;
    create_killed_at_a_call: Kills Create Plain 16;
    start_killed_at_a_call: Kills Start Plain 6;
    exec_killed_at_a_call: Kills Exec Plain 12;
    kill_killed_at_a_call: Kills Kill Plain 4;
    delete_killed_at_a_call: Kills Delete Plain 8;
    update_killed_at_a_call: Kills Update Plain 6;
    run_with_a_network_killed_at_a_call: Kills Run Network 10;
    delete_with_a_network_killed_at_a_call: Kills Delete Network 6;
    run_with_a_user_namespace_killed_at_a_call: Kills Run UserNamespace 8;
    run_stopped_at_a_call: Stops Run Plain 3;
    exec_stopped_at_a_call: Stops Exec Plain 2;
    delete_stopped_at_a_call: Stops Delete Plain 2;
    run_with_systemd_and_a_failed_call: Errors Run Systemd 12;
    create_with_systemd_and_a_failed_call: Errors Create Systemd 12;
    delete_with_systemd_and_a_failed_call: Errors Delete Systemd 8;
    run_with_systemd_killed_at_a_call: Kills Run Systemd 8;
}

fn run_with_a_failure_of_a_rare_call(t: &Test) -> Outcome {
    walk_rare(t, Verb::Run, Setting::UserNamespace)
}

fn run_stopped_before_the_stage_is_executed(t: &Test) -> Outcome {
    stop_first(t, Verb::Run)
}

fn exec_stopped_before_the_stage_is_executed(t: &Test) -> Outcome {
    stop_first(t, Verb::Exec)
}

fn begin(t: &Test, setting: Setting) -> Outcome {
    match setting {
        Setting::Network => net::needs(t, &[]),
        Setting::Systemd => match Need::Systemd.missing(&t.host) {
            Some(reason) => skip(reason),
            None => Ok(()),
        },
        Setting::Plain | Setting::UserNamespace => Ok(()),
    }
}
