//! The stage: sets a container (or a process that joins one) up from the inside, by the steps of
//! a plan, and executes the user's program. It has no libc, no heap and no configuration: it
//! makes system calls in the order given, and reports the first that fails.
//!
//! Started with the number of the plan's descriptor as its only argument. See `run_step` for
//! what each step does, and the library's `plan` module for the orders.

#![no_std]
#![no_main]

mod bare;
mod below;
mod cgroup;
mod console;
mod copy_up;
mod end;
mod errno;
mod identity;
mod kernel;
mod mounts;
mod nodes;
mod paths;
mod procfs;
mod program;
mod state;
mod streams;
mod unused;

use kernel::*;
use onggi_stage::{Header, Step};
use paths::Missing;
use state::State;

static mut STATE: State = State::EMPTY;

/// `stack` is what the kernel put there: the number of arguments, then their addresses.
unsafe extern "C" fn start(stack: *const usize) -> ! {
    #[allow(clippy::deref_addrof)] // a reference to the static itself is refused (static_mut_refs)
    // SAFETY: this is the only thread and the only place that names the static.
    let state = unsafe { &mut *(&raw mut STATE) };
    // SAFETY: the kernel lays argc and argv out like this (execve(2), the ABI's initial stack);
    // the library passes one argument.
    let plan = unsafe { core::ffi::CStr::from_ptr(*stack.add(2) as *const _) };
    match read_plan(plan.to_bytes()) {
        Some(plan) => run(state, plan),
        None => exit(254),
    }
}

/// Maps the plan and closes its descriptor.
fn read_plan(number: &[u8]) -> Option<&'static [u8]> {
    let fd = number.iter().fold(0i32, |sum, digit| sum * 10 + i32::from(digit - b'0'));
    let size = statx(fd).ok()?.stx_size as usize;
    // SAFETY: the library has sealed it, against every change of its size and content.
    let plan = unsafe { map_file(fd, size) }.ok()?;
    close_later(fd);
    Some(plan)
}

fn run(state: &mut State, plan: &'static [u8]) -> ! {
    let Ok((header, mut rest)) = postcard::take_from_bytes::<Header<&[u8]>>(plan) else { exit(253) };
    state.take_handed(header.fds);
    state.record_times(header.times);
    while !rest.is_empty() {
        let Ok((step, after)) = postcard::take_from_bytes::<Step<&'static [u8]>>(rest) else { exit(252) };
        if let Err(failed) = run_step(state, &step) {
            let _ = state.report_failed(failed);
            exit(1);
        }
        rest = after;
        state.at += 1;
        state.record_time(state.at);
    }
    exit(251)
}

/// Steps after which the directory in which something was made last is still the one of its path.
fn keeps_last(step: &Step<&[u8]>) -> bool {
    use Step::*;
    matches!(
        step,
        Mount { .. }
            | MoveMount { .. }
            | FetchSource { .. }
            | KeepMount { .. }
            | MakeNode { .. }
            | Symlink { .. }
    )
}

fn run_step(state: &mut State, step: &Step<&'static [u8]>) -> Done {
    use Step::*;
    if !keeps_last(step) {
        state.last.forget();
    }
    match *step {
        ResetSignals => identity::reset_signals(state.procfs()),
        WriteProcess { path, value } => identity::write_process(state.procfs(), path, value),
        WriteSysctl { path, value } => identity::write_sysctl(state.procfs(), path, value),
        Setns { fd, namespaces } => identity::setns(state.fd(fd), namespaces),
        Unshare { namespaces } => identity::unshare(namespaces),
        SetPropagation { propagation } => mounts::set_propagation(propagation.0),
        OpenSource { source, host_path, nofollow } => {
            let fd = mounts::open_source(host_path, nofollow)?;
            state.put_source(source, fd)
        }
        OpenTree { source, host_path, nofollow, recursive } => {
            let tree = mounts::open_source_tree(host_path, nofollow, recursive)?;
            state.put_source(source, tree)
        }
        SetSourceAttributes { source, attrs } => mounts::set_attributes(state.source(source)?, attrs),
        CloneSource { source, recursive, attrs } => {
            let tree = mounts::clone_source(state.take_source(source)?, recursive, attrs)?;
            state.put_source(source, tree)
        }
        OpenIdmapped { source, host_path, recursive, attrs, fd, recursive_map } => {
            let tree = mounts::open_idmapped(host_path, recursive, attrs, state.fd(fd), recursive_map)?;
            state.put_source(source, tree)
        }
        OpenDevice { source, host_path, mode, major, minor } => {
            let tree = mounts::open_device(host_path, mode, major, minor)?;
            state.put_source(source, tree)
        }
        PrivateParent { host_path } => mounts::private_parent(host_path),
        CloneRootfs { host_path, propagation } => mounts::clone_rootfs(state, host_path, propagation.0),
        EnterBareMounts { fd } => mounts::enter_bare(state, state.fd(fd)),
        AttachRootfs => mounts::attach_rootfs(state),
        AttachRootfsInScratch => mounts::attach_rootfs_in_scratch(state),
        ParkSource { source, by_name } => mounts::park_source(state, source, by_name),
        UnlockRoot => mounts::unlock_root(state),
        FetchSource { source, attrs } => {
            let tree = mounts::fetch_source(state, source)?;
            mounts::set_attributes(tree, attrs)?;
            state.put_source(source, tree)
        }
        StartIn { .. } => Ok(()),
        EnterCgroup { cgroup, namespaces } => end::enter_cgroup(state, state.fd(cgroup), namespaces),
        Clone { namespaces } => end::clone(state, namespaces),
        OpenRoot { path } => nodes::open_root(state, path),
        Mount { fstype, options, target, flags, attrs, copy_up, mode_of_target, strict } => {
            let how = (copy_up, mode_of_target, strict);
            mounts::mount_new(state, (fstype, options, flags.0), attrs, target, how)
        }
        MountProcfs { pid_namespace, options, target, flags, attrs } => {
            let mount = procfs::mount(state.fd(pid_namespace), options, flags.0)?;
            mounts::set_attributes(mount, attrs)?;
            mounts::attach(state, mount, Missing::Directory, target, true)
        }
        MountByText { fstype, source, options, target, flags } => {
            let place = paths::ensure(state.root, &mut state.last, target, Missing::Directory, false)?;
            mounts::mount_by_text(state.procfs(), (fstype, source, options), place, flags.0)
        }
        MoveMount { source, target, strict, nofollow, copy_link, directory } => {
            let tree = state.take_source(source)?;
            if copy_link && nodes::copy_link(state, tree, target)? {
                return Ok(());
            }
            mounts::attach_source(state, tree, target, (strict, nofollow, directory))
        }
        Unmount { target } => mounts::unmount(state.procfs(), state.root, target),
        KeepMount { mount } => state.keep_attached(mount),
        SetAttributes { ref place, attrs } => mounts::set_attributes_at(state, place, attrs),
        MakeNode { path, mode, major, minor, uid, gid } => {
            nodes::make_node(state, path, mode, (major, minor), (uid, gid))
        }
        Symlink { content, path } => nodes::symlink(state, content, path),
        OpenConsole { socket, columns, rows, uid, relayed } => {
            console::open(state, state.fd(socket), (columns, rows), uid, relayed)
        }
        MountConsole => console::mount(state),
        UseConsole => console::use_it(state),
        SetControllingTerminal => console::set_controlling_terminal(),
        PivotRoot => mounts::pivot_root(state.root),
        UnmountOldRoot => mounts::unmount_old_root(),
        Chroot => mounts::chroot(state.root),
        MoveRoot => mounts::move_root(state.procfs(), state.root),
        MaskPath { ref place, source } => mounts::mask_path(state, place, source),
        ReadonlyPath { ref place, recursive } => mounts::readonly_path(state, place, recursive),
        ReceiveFds { first, count } => end::receive_fds(state, first, count),
        JoinCgroup { fd, .. } => identity::join_cgroup(state.fd(fd)),
        LoopbackUp => identity::loopback_up(),
        SetHostname { name } => identity::set_hostname(name),
        SetDomainname { name } => identity::set_domainname(name),
        ChownStreams { uid } => streams::chown(uid),
        SetSid => identity::setsid(),
        JoinSessionKeyring { name, label } => identity::join_keyring(state.procfs(), name, label),
        SetRlimit { resource, soft, hard } => set_rlimit(resource, soft, hard),
        SetScheduler { attr } => identity::set_scheduler(attr),
        SetIoPriority { value } => identity::set_io_priority(value),
        SetAffinity { mask } => identity::set_affinity(mask),
        SetPersonality { persona } => identity::set_personality(persona),
        SetMemoryPolicy { mode, nodes } => identity::set_memory_policy(mode, nodes),
        SetUmask { mask } => identity::set_umask(mask),
        Chdir { path, make } => nodes::chdir(state, path, make),
        Fchdir { fd } => fchdir(state.fd(fd)),
        FindHome { uid } => nodes::find_home(state, uid),
        SetGroups { groups } => identity::set_groups(groups),
        SetIds { uid, gid } => identity::set_ids(uid, gid),
        DropBounding { keep } => identity::drop_bounding(keep),
        SetCapabilities { sets, also } => identity::set_capabilities(sets, also),
        NoNewPrivileges => identity::no_new_privileges(),
        NotDumpable => identity::not_dumpable(),
        SetSeccomp { program, flags, notify } => {
            state.stop_recording();
            end::set_seccomp(state, program, flags, notify)
        }
        Sync { point } => end::sync(state, point),
        FindProgram { paths, .. } => end::find_program(paths),
        EndOnSignals => identity::end_on_signals(),
        AwaitStart { listener } => end::await_start(state, state.fd(listener)),
        AwaitLibrary => end::await_library(state),
        PlaceFds { fds } => end::place_fds(state, fds),
        CloseFds { passed, keep, program } => {
            end::close_fds(state, passed, [state.fd(keep), state.fd(program)])
        }
        ExecFd { program, args, ref env } => end::exec_fd(state, state.fd(program), args, env.0),
        Exec { paths, args, ref env } => end::exec(state, paths, args, env.0),
    }
}
