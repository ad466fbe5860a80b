//! A classic BPF interpreter for tests, as far as seccomp allows the language: it says what the kernel would
//! return for one system call, and refuses a program that the kernel would refuse.
//!
//! It shares nothing with the code that writes programs; tests of the public interface include this file.

/// What a filter sees of a call (`struct seccomp_data`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Call {
    pub number: u32,
    pub audit: u32,
    pub arguments: [u64; 6],
}

impl Call {
    fn word(&self, offset: u32) -> u32 {
        let argument = |index: u32| self.arguments[index as usize];
        match offset {
            0 => self.number,
            4 => self.audit,
            // The instruction pointer: no filter of ours has a reason to look at it.
            8 | 12 => panic!("reads the instruction pointer"),
            16..64 => match offset % 8 {
                0 => argument((offset - 16) / 8) as u32,
                4 => (argument((offset - 20) / 8) >> 32) as u32,
                _ => panic!("reads at {offset}"),
            },
            _ => panic!("reads at {offset}"),
        }
    }
}

/// What the program returns, and after how many instructions.
pub fn run(program: &[u8], call: &Call) -> (u32, usize) {
    let (instructions, rest) = program.as_chunks::<8>();
    assert!(rest.is_empty() && !instructions.is_empty() && instructions.len() <= 4096);
    let (mut at, mut accumulator) = (0, 0_u32);
    for steps in 1..=instructions.len() {
        let [c0, c1, if_true, if_false, k @ ..] = instructions[at];
        let (code, k) = (u16::from_ne_bytes([c0, c1]), u32::from_ne_bytes(k));
        let jump = |condition: bool| at + 1 + usize::from(if condition { if_true } else { if_false });
        at = match code {
            0x20 => {
                accumulator = call.word(k);
                at + 1
            }
            0x54 => {
                accumulator &= k;
                at + 1
            }
            0x05 => at + 1 + k as usize,
            0x15 => jump(accumulator == k),
            0x25 => jump(accumulator > k),
            0x35 => jump(accumulator >= k),
            0x45 => jump(accumulator & k != 0),
            0x06 => return (k, steps),
            _ => panic!("instruction {at} has the code {code:#x}"),
        };
    }
    panic!("jumps go forward only, so it has ended before");
}
