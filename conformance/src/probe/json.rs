//! Writes JSON, because the probe has no dependencies. It must not parse any; see main.rs for what is
//! written with it.

/// One JSON object, written member by member.
pub struct Object(String);

impl Object {
    pub fn new() -> Self {
        Self(String::from("{"))
    }

    /// `value` is JSON already.
    pub fn raw(&mut self, key: &str, value: &str) {
        if self.0.len() > 1 {
            self.0.push(',');
        }
        self.0.push_str(&quote(key));
        self.0.push(':');
        self.0.push_str(value);
    }

    pub fn text(&mut self, key: &str, value: &str) {
        self.raw(key, &quote(value));
    }

    pub fn number(&mut self, key: &str, value: i64) {
        self.raw(key, &value.to_string());
    }

    pub fn lines(&mut self, key: &str, text: &str) {
        let items: Vec<String> = text.lines().map(quote).collect();
        self.raw(key, &array(&items));
    }

    pub fn finish(mut self) -> String {
        self.0.push('}');
        self.0
    }
}

pub fn array(items: &[String]) -> String {
    format!("[{}]", items.join(","))
}

pub fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            c if (c as u32) < 0x20 => out.push_str(&format!("\\u{:04x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
