//! The errors that the stage itself returns or looks for (errno(3)).

pub const EPERM: i32 = 1;
pub const ENOENT: i32 = 2;
pub const EINTR: i32 = 4;
pub const EBADF: i32 = 9;
pub const EAGAIN: i32 = 11;
pub const ENOMEM: i32 = 12;
pub const EACCES: i32 = 13;
pub const EBUSY: i32 = 16;
pub const EEXIST: i32 = 17;
pub const ENODEV: i32 = 19;
pub const ENOTDIR: i32 = 20;
pub const EISDIR: i32 = 21;
pub const EINVAL: i32 = 22;
pub const ENOSYS: i32 = 38;
pub const ENFILE: i32 = 23;
pub const EMFILE: i32 = 24;
pub const ELOOP: i32 = 40;
pub const E2BIG: i32 = 7;
pub const EPROTO: i32 = 71;
pub const ENAMETOOLONG: i32 = 36;
pub const ECONNABORTED: i32 = 103;
pub const ENOBUFS: i32 = 105;
pub const ESTALE: i32 = 116;
