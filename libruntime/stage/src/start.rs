//! The answer of a starter to the stage that waits for `start`: to go on, or to go on with a program that follows.
//! `program.rs` reads it.

/// The answer by which the stage goes on.
pub const GO: u8 = 1;

/// The size of the answer by which it goes on with a program that follows.
pub const START_HEADER: usize = 17;

/// The largest program in bytes: more than execve(2) accepts as arguments and environment, and the paths to try.
pub const MAX_PROGRAM: usize = 16 << 20;

/// In how many bytes at once it is sent: one message has to fit into the buffer of a socket.
pub const START_PIECE: usize = 32 << 10;

const PROGRAM: u8 = 2;

/// The header of a program that comes with `start`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StartHeader {
    /// The sizes in bytes of the working directory, the paths to try, the arguments and the environment, which follow
    /// in this order.
    pub sizes: [u32; 4],
}

impl StartHeader {
    pub fn encode(&self) -> [u8; START_HEADER] {
        let mut bytes = [PROGRAM; START_HEADER];
        for (into, size) in bytes[1..].as_chunks_mut::<4>().0.iter_mut().zip(self.sizes) {
            *into = size.to_ne_bytes();
        }
        bytes
    }

    /// `None` where the bytes are no header, or the program would be too large.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (kind, rest) = bytes.split_first_chunk::<1>()?;
        let (sizes, []) = rest.as_chunks::<4>() else { return None };
        let [a, b, c, d] = *sizes.first_chunk::<4>().filter(|four| four.len() == sizes.len())?;
        let header = Self { sizes: [a, b, c, d].map(u32::from_ne_bytes) };
        (kind == &[PROGRAM] && (1..=MAX_PROGRAM).contains(&header.total())).then_some(header)
    }

    /// The sum of the four sizes, in bytes.
    pub fn total(&self) -> usize {
        self.sizes.iter().map(|size| *size as usize).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_is_too_large_has_no_header() {
        let header = StartHeader { sizes: [1, 2, 3, MAX_PROGRAM as u32 - 6] };
        assert_eq!(StartHeader::decode(&header.encode()), Some(header));
        assert_eq!(StartHeader::decode(&header.encode()[1..]), None);
        for sizes in [[1, 2, 3, MAX_PROGRAM as u32 - 5], [u32::MAX; 4], [0; 4]] {
            assert_eq!(StartHeader::decode(&StartHeader { sizes }.encode()), None);
        }
        assert_eq!(StartHeader::decode(&[GO; START_HEADER]), None);
    }
}
