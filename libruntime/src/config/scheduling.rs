//! Checks of `process.scheduler`, `process.ioPriority` and `process.execCPUAffinity` against what
//! sched_setattr(2) and ioprio_set(2) take on any kernel.

use super::found::{Found, each};
use super::list::number_list;
use oci_spec::runtime::{LinuxSchedulerFlag as Flag, LinuxSchedulerPolicy as Policy, Process, Scheduler};

pub(crate) fn check(process: &Process, found: &mut Found) {
    if let Some(scheduler) = process.scheduler() {
        self::scheduler(scheduler, found);
    }
    if let Some(io) = process.io_priority().filter(|io| !(0..=7).contains(&io.priority())) {
        found.problem("process.ioPriority.priority", format_args!("{} is not from 0 to 7", io.priority()));
    }
    if let Some(affinity) = process.exec_cpu_affinity() {
        for (list, name) in [(affinity.initial(), "initial"), (affinity.cpu_affinity_final(), "final")] {
            if let Some(Err(text)) = list.as_deref().map(number_list) {
                found.problem(format_args!("process.execCPUAffinity.{name}"), text);
            }
        }
    }
}

fn scheduler(scheduler: &Scheduler, found: &mut Found) {
    let at = "process.scheduler";
    let policy = *scheduler.policy();
    if policy == Policy::SchedIso {
        found.problem(format_args!("{at}.policy"), "SCHED_ISO is reserved, but no kernel implements it");
    }
    if let Some(nice) = scheduler.nice().filter(|nice| !(-20..=19).contains(nice)) {
        found.problem(format_args!("{at}.nice"), format_args!("{nice} is not from -20 to 19"));
    }
    let priority = scheduler.priority().unwrap_or(0);
    let fixed = matches!(policy, Policy::SchedFifo | Policy::SchedRr);
    if fixed && !(1..=99).contains(&priority) {
        let text = format_args!("{policy} needs a priority from 1 to 99, not {priority}");
        found.problem(format_args!("{at}.priority"), text);
    }
    if !fixed && priority != 0 {
        let text =
            format_args!("{priority} has no meaning for {policy}; only SCHED_FIFO and SCHED_RR have one");
        found.problem(format_args!("{at}.priority"), text);
    }
    for (i, flag) in each(scheduler.flags()).iter().enumerate() {
        if matches!(flag, Flag::SchedFlagUtilClampMin | Flag::SchedFlagUtilClampMax) {
            let text = "the spec has no property for the clamp's value, so it is 0";
            found.warning(format_args!("{at}.flags[{i}]"), text);
        }
    }
    deadline(scheduler, policy, found);
}

/// sched_setattr: runtime <= deadline <= period, 1024 ns to 2^63, and period 0 means the deadline.
fn deadline(scheduler: &Scheduler, policy: Policy, found: &mut Found) {
    let at = "process.scheduler";
    let named = [
        (scheduler.runtime(), "runtime"),
        (scheduler.deadline(), "deadline"),
        (scheduler.period(), "period"),
    ];
    let [runtime, deadline, period] = named.map(|(value, _)| value.unwrap_or(0));
    if policy != Policy::SchedDeadline {
        for (_, name) in named.iter().filter(|(value, _)| value.unwrap_or(0) != 0) {
            found.problem(
                format_args!("{at}.{name}"),
                format_args!("only SCHED_DEADLINE has one, not {policy}"),
            );
        }
        return;
    }
    if runtime < 1024 {
        found.problem(format_args!("{at}.runtime"), format_args!("{runtime} ns; the least is 1024 ns"));
    }
    if deadline < runtime || deadline == 0 {
        let text = format_args!("{deadline} ns is less than the runtime, {runtime} ns");
        found.problem(format_args!("{at}.deadline"), text);
    }
    if period != 0 && period < deadline {
        let text = format_args!("{period} ns is less than the deadline, {deadline} ns");
        found.problem(format_args!("{at}.period"), text);
    }
    for (value, name) in [(deadline, "deadline"), (period, "period")] {
        if value >= 1 << 63 {
            found.problem(format_args!("{at}.{name}"), format_args!("{value} ns is 2^63 or more"));
        }
    }
}
