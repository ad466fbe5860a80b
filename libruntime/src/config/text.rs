//! A cursor over the bytes of a text that is known to be JSON: it allocates nothing, and stops at the property that it
//! looks for. For a text that is not JSON it returns some part of it, without a panic.

/// The text from the start of a value on; empty if there is no value.
#[derive(Clone, Copy)]
pub(crate) struct Text<'t>(&'t [u8]);

impl<'t> Text<'t> {
    pub fn new(bytes: &'t [u8]) -> Self {
        let start = bytes.iter().position(|c| !c.is_ascii_whitespace()).unwrap_or(bytes.len());
        Text(&bytes[start..])
    }

    pub fn is_absent(self) -> bool {
        self.0.is_empty()
    }

    pub fn is_container(self) -> bool {
        matches!(self.0, [b'{' | b'[', ..])
    }

    pub fn flag(self) -> Option<bool> {
        match self.0 {
            [b't', ..] => Some(true),
            [b'f', ..] => Some(false),
            _ => None,
        }
    }

    /// A property of an object; null is absent.
    pub fn get(self, key: &str) -> Text<'t> {
        let mut rest = match self.0 {
            [b'{', rest @ ..] => Text::new(rest),
            _ => return Text(&[]),
        };
        while let [b'"', name @ ..] = rest.0 {
            let value = rest.after_value().after(b':');
            if name.strip_prefix(key.as_bytes()).is_some_and(|tail| tail.starts_with(b"\"")) {
                return if value.0.starts_with(b"null") { Text(&[]) } else { value };
            }
            rest = value.after_value().after(b',');
        }
        Text(&[])
    }

    /// The elements of a list.
    pub fn items(self) -> impl Iterator<Item = Text<'t>> {
        let mut rest = match self.0 {
            [b'[', rest @ ..] => Text::new(rest),
            _ => Text(&[]),
        };
        std::iter::from_fn(move || {
            if matches!(rest.0, [] | [b']', ..]) {
                return None;
            }
            let item = rest;
            rest = rest.after_value().after(b',');
            Some(item)
        })
    }

    fn after(self, separator: u8) -> Text<'t> {
        match self.0 {
            [c, rest @ ..] if *c == separator => Text::new(rest),
            _ => Text(&[]),
        }
    }

    /// The properties of an object: the name as it is written, between its quotes, and the value.
    pub fn entries(self) -> impl Iterator<Item = (&'t [u8], Text<'t>)> {
        let mut rest = match self.0 {
            [b'{', rest @ ..] => Text::new(rest),
            _ => Text(&[]),
        };
        std::iter::from_fn(move || {
            let [b'"', ..] = rest.0 else { return None };
            let (name, value) = (rest.own(), rest.after_value().after(b':'));
            rest = value.after_value().after(b',');
            Some((&name[1..name.len().max(2) - 1], value))
        })
    }

    /// The bytes of the value that starts here.
    pub fn own(self) -> &'t [u8] {
        self.0[..self.length()].trim_ascii_end()
    }

    /// What follows the value that starts here, from the next byte that is no blank.
    fn after_value(self) -> Text<'t> {
        Text::new(&self.0[self.length()..])
    }

    /// Of the value that starts here, in bytes, with the blanks behind a number or a word.
    fn length(self) -> usize {
        let (mut depth, mut at) = (0_usize, 0);
        while let Some(c) = self.0.get(at) {
            match c {
                b'"' => at = self.string_end(at),
                b'{' | b'[' => depth += 1,
                // The end of the object or list around: a number or a word ends before it.
                b'}' | b']' | b',' if depth == 0 => break,
                b'}' | b']' => depth -= 1,
                _ => {}
            }
            at += 1;
            if depth == 0 && matches!(c, b'"' | b'}' | b']') {
                break;
            }
        }
        at.min(self.0.len())
    }

    /// The index of the quote that ends the string which starts at `at`.
    fn string_end(self, mut at: usize) -> usize {
        at += 1;
        while let Some(c) = self.0.get(at) {
            match c {
                b'"' => break,
                b'\\' => at += 2,
                _ => at += 1,
            }
        }
        at
    }
}
