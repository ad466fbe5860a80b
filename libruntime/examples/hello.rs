//! A container from a bundle, to its end: `hello BUNDLE`.

fn main() -> libruntime::Result<()> {
    let bundle = std::env::args().nth(1).expect("usage: hello BUNDLE");
    let runtime = libruntime::Runtime::new("/run/libruntime-example");
    let output = runtime.container(format!("hello-{}", std::process::id())).bundle(bundle).output()?;
    print!("{}: {}", output.status, String::from_utf8_lossy(&output.stdout));
    Ok(())
}
