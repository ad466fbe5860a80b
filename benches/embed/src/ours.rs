use crate::Done;
use libruntime::{Runtime, Stdio};

pub fn cycle(bundle: &str, id: &str) -> Done {
    let runtime = Runtime::new("/run/embed-libruntime");
    let container = runtime.container(id).bundle(bundle).stdin(Stdio::null()).create()?;
    container.start()?;
    match container.wait()?.success() {
        true => {}
        false => return Err("a wrong exit status".into()),
    }
    container.delete()?;
    Ok(())
}
