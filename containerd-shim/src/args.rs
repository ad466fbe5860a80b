//! The command line: Go's flags, `-flag value`, `-flag=value` or with two dashes. Pure.

/// What the shim was called with. `action` is the first word that is no flag.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Args {
    pub namespace: String,
    pub id: String,
    pub address: String,
    /// Of shims that publish events by a program; not read.
    pub publish_binary: String,
    pub bundle: String,
    pub socket: String,
    pub debug: bool,
    pub version: bool,
    pub info: bool,
    pub action: Option<String>,
}

pub fn parse(words: impl IntoIterator<Item = String>) -> Result<Args, String> {
    let mut args = Args::default();
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        let Some(flag) = word.strip_prefix("--").or(word.strip_prefix('-')) else {
            args.action = Some(word);
            break;
        };
        let (name, given) = match flag.split_once('=') {
            Some((name, value)) => (name, Some(value.to_string())),
            None => (flag, None),
        };
        let switch = match name {
            "debug" => Some(&mut args.debug),
            "v" | "version" => Some(&mut args.version),
            "info" => Some(&mut args.info),
            _ => None,
        };
        if let Some(switch) = switch {
            *switch = !matches!(given.as_deref(), Some("false" | "0"));
            continue;
        }
        let value = match name {
            "namespace" => &mut args.namespace,
            "id" => &mut args.id,
            "address" => &mut args.address,
            "publish-binary" => &mut args.publish_binary,
            "bundle" => &mut args.bundle,
            "socket" => &mut args.socket,
            _ => return Err(format!("unknown flag {word}")),
        };
        *value = given.or_else(|| words.next()).ok_or_else(|| format!("flag {word} needs a value"))?;
    }
    Ok(args)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(line: &str) -> Result<Args, String> {
        parse(line.split_whitespace().map(String::from))
    }

    #[test]
    fn flags_are_those_of_go() {
        let args = of("-namespace k8s.io --address=/run/c.sock -debug -id a start -x").unwrap();
        assert_eq!((args.namespace.as_str(), args.address.as_str()), ("k8s.io", "/run/c.sock"));
        assert_eq!((args.id.as_str(), args.debug, args.action.as_deref()), ("a", true, Some("start")));
        assert!(of("-v").unwrap().version && of("-info").unwrap().info && !of("-debug=false").unwrap().debug);
        assert!(of("-nonsense 1").is_err() && of("-id").is_err());
    }
}
