//! Extended regular expressions (regex(7)), by the C library.

use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::ptr;

/// A compiled expression.
pub struct Pattern(libc::regex_t);

impl Pattern {
    /// The error is the C library's text.
    pub fn new(text: &CStr) -> Result<Self, String> {
        let mut compiled = MaybeUninit::zeroed();
        let flags = libc::REG_EXTENDED | libc::REG_NOSUB;
        // SAFETY: regcomp(3) reads a text that ends in NUL and writes one regex_t, which is ours.
        let code = unsafe { libc::regcomp(compiled.as_mut_ptr(), text.as_ptr(), flags) };
        if code == 0 {
            // SAFETY: after a success all of it is written; zeros are a value of its fields anyhow.
            return Ok(Self(unsafe { compiled.assume_init() }));
        }
        let mut why = [0u8; 128];
        // SAFETY: regerror(3) writes at most the given number of bytes, with a NUL at the end.
        unsafe { libc::regerror(code, compiled.as_ptr(), why.as_mut_ptr().cast(), why.len()) };
        Err(CStr::from_bytes_until_nul(&why).unwrap_or_default().to_string_lossy().into_owned())
    }

    pub fn matches(&self, text: &CStr) -> bool {
        // SAFETY: the expression is compiled, the text ends in NUL, and no matches are asked for.
        unsafe { libc::regexec(&raw const self.0, text.as_ptr(), 0, ptr::null_mut(), 0) == 0 }
    }
}

impl Drop for Pattern {
    fn drop(&mut self) {
        // SAFETY: it is compiled, and nobody uses it any more.
        unsafe { libc::regfree(&raw mut self.0) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_part_may_match_unless_it_is_anchored() {
        let matches = |pattern: &CStr| Pattern::new(pattern).unwrap().matches(c"aa1");
        assert!(matches(c"a1") && matches(c"a+") && matches(c"(aa|bb)1$"));
        assert!(!matches(c"^a1") && !matches(c"AA"));
        assert!(Pattern::new(c"[").is_err());
    }
}
