//! A function of this program as the container's init: `own_init BUNDLE`.

use libruntime::{Init, Runtime};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    libruntime::init("greet", || {
        println!("hello from pid {}", std::process::id());
        12
    });
    let bundle = std::env::args().nth(1).ok_or("usage: own_init BUNDLE")?;
    let runtime = Runtime::new("/run/libruntime-example");
    let container = runtime.container(format!("init-{}", std::process::id())).bundle(bundle);
    let output = container.init(Init::own("greet")).output()?;
    print!("{}: {}", output.status, String::from_utf8_lossy(&output.stdout));
    Ok(())
}
