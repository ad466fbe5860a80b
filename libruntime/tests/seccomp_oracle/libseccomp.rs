//! libseccomp as an oracle: its program for a profile, made the way runc and crun use it.
//!
//! It is loaded at run time, so that building the tests does not need it; running these tests does.

use oci_spec::runtime::{Arch, LinuxSeccomp};
use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};
use std::io::{Read, Seek};
use std::os::fd::{AsRawFd, FromRawFd};
use std::sync::OnceLock;

/// `struct scmp_arg_cmp`.
#[repr(C)]
struct Comparison {
    argument: c_uint,
    operator: c_int,
    a: u64,
    b: u64,
}

/// The functions of the library, from `<seccomp.h>`.
struct Library {
    init: unsafe extern "C" fn(u32) -> *mut c_void,
    release: unsafe extern "C" fn(*mut c_void),
    arch_add: unsafe extern "C" fn(*mut c_void, u32) -> c_int,
    arch_remove: unsafe extern "C" fn(*mut c_void, u32) -> c_int,
    rule_add_array: unsafe extern "C" fn(*mut c_void, u32, c_int, c_uint, *const Comparison) -> c_int,
    export_bpf: unsafe extern "C" fn(*mut c_void, c_int) -> c_int,
    resolve_name: unsafe extern "C" fn(*const c_char) -> c_int,
    resolve_name_arch: unsafe extern "C" fn(u32, *const c_char) -> c_int,
    resolve_num_arch: unsafe extern "C" fn(u32, c_int) -> *mut c_char,
}

/// The function of that name.
///
/// # Safety
/// `F` is the type of a pointer to it, and the handle is that of a library that is never closed.
unsafe fn symbol<F: Copy>(handle: *mut c_void, name: &CStr) -> F {
    // SAFETY: the caller says what the handle is and what type the function has.
    unsafe {
        let address = libc::dlsym(handle, name.as_ptr());
        assert!(!address.is_null(), "libseccomp has no {name:?}");
        std::mem::transmute_copy(&address)
    }
}

fn library() -> &'static Library {
    static LIBRARY: OnceLock<Library> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        // SAFETY: the name is a C string; the library's constructors have no requirements.
        let handle = unsafe { libc::dlopen(c"libseccomp.so.2".as_ptr(), libc::RTLD_NOW) };
        assert!(!handle.is_null(), "this test compares with libseccomp: install libseccomp2");
        // SAFETY: the types are those of <seccomp.h>, and nobody closes the library.
        unsafe {
            Library {
                init: symbol(handle, c"seccomp_init"),
                release: symbol(handle, c"seccomp_release"),
                arch_add: symbol(handle, c"seccomp_arch_add"),
                arch_remove: symbol(handle, c"seccomp_arch_remove"),
                rule_add_array: symbol(handle, c"seccomp_rule_add_array"),
                export_bpf: symbol(handle, c"seccomp_export_bpf"),
                resolve_name: symbol(handle, c"seccomp_syscall_resolve_name"),
                resolve_name_arch: symbol(handle, c"seccomp_syscall_resolve_name_arch"),
                resolve_num_arch: symbol(handle, c"seccomp_syscall_resolve_num_arch"),
            }
        }
    })
}

/// The number of a call on an architecture, if that has it. x32's have bit 30.
pub fn number(arch: Arch, name: &str) -> Option<u32> {
    // No call has a name with a NUL in it, which a profile can have.
    let name = CString::new(name).ok()?;
    // SAFETY: the name is a C string.
    let number = unsafe { (library().resolve_name_arch)(arch as u32, name.as_ptr()) };
    u32::try_from(number).ok()
}

/// Whether the library knows the name at all.
pub fn knows(name: &str) -> bool {
    let Ok(name) = CString::new(name) else { return false };
    // SAFETY: the name is a C string.
    unsafe { (library().resolve_name)(name.as_ptr()) != -1 }
}

/// The name of a number.
pub fn name(arch: Arch, number: u32) -> Option<String> {
    // SAFETY: the result is null or a C string from malloc that is ours to free.
    unsafe {
        let name = (library().resolve_num_arch)(arch as u32, number as c_int);
        let text = (!name.is_null()).then(|| CStr::from_ptr(name).to_str().unwrap().to_owned());
        libc::free(name.cast());
        text
    }
}

/// The library's program for a profile and architectures, or the first error code (such as EEXIST for a rule
/// that it takes for a repetition). Only calls for which `wanted` holds get rules.
pub fn program(
    seccomp: &LinuxSeccomp,
    archs: &[Arch],
    wanted: impl Fn(&str) -> bool,
) -> Result<Vec<u8>, i32> {
    let library = library();
    let value = |action: oci_spec::runtime::LinuxSeccompAction, errno| action.as_u32(errno);
    let default = value(seccomp.default_action(), seccomp.default_errno_ret());
    // SAFETY: the filter is released below and used by nobody else.
    unsafe {
        let filter = (library.init)(default);
        assert!(!filter.is_null());
        for &arch in archs {
            (library.arch_add)(filter, arch as u32);
        }
        // The library assumes the machine's own architecture.
        if !archs.contains(&Arch::ScmpArchX86_64) {
            (library.arch_remove)(filter, Arch::ScmpArchX86_64 as u32);
        }
        let mut result = Ok(Vec::new());
        for (action, name, comparisons) in rules(seccomp, default) {
            let number = (library.resolve_name)(name.as_ptr());
            if number == -1 || !wanted(name.to_str().unwrap()) {
                continue;
            }
            let count = comparisons.len() as c_uint;
            let code = (library.rule_add_array)(filter, action, number, count, comparisons.as_ptr());
            if code != 0 {
                result = result.and(Err(code));
            }
        }
        let file = libc::memfd_create(c"program".as_ptr(), 0);
        assert!(file >= 0);
        let mut file = std::fs::File::from_raw_fd(file);
        assert_eq!((library.export_bpf)(filter, file.as_raw_fd()), 0);
        (library.release)(filter);
        let mut program = Vec::new();
        file.rewind().unwrap();
        file.read_to_end(&mut program).unwrap();
        result.map(|_: Vec<u8>| program)
    }
}

/// One call of the library for each name and alternative; rules with the default action are left out.
fn rules(seccomp: &LinuxSeccomp, default: u32) -> Vec<(u32, CString, Vec<Comparison>)> {
    let mut rules = Vec::new();
    for rule in seccomp.syscalls().iter().flatten() {
        let action = rule.action().as_u32(rule.errno_ret());
        if action == default {
            continue;
        }
        for name in rule.names() {
            for alternative in super::model::alternatives(rule) {
                let comparison = |arg: &oci_spec::runtime::LinuxSeccompArg| Comparison {
                    argument: arg.index() as c_uint,
                    operator: arg.op() as c_int,
                    a: arg.value(),
                    b: arg.value_two().unwrap_or(0),
                };
                let comparisons = alternative.iter().map(comparison).collect();
                rules.push((action, CString::new(name.as_str()).unwrap(), comparisons));
            }
        }
    }
    rules
}
