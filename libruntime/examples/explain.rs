//! What creation would do, what this library knows, and what an error has in it: `explain BUNDLE`.

use libruntime::{ErrorKind, Runtime};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let bundle = std::env::args().nth(1).ok_or("usage: explain BUNDLE")?;
    let runtime = Runtime::new("/run/libruntime-example");
    let explanation = runtime.container("explained").bundle(&bundle).explain()?;
    print!("{}", explanation.to_text());

    let features = libruntime::features()?;
    println!("specification up to {}", features.oci_version_max());

    let error = runtime.container("../x").bundle(&bundle).create().expect_err("no such id");
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    println!("{error}\n{}", error.to_json());
    Ok(())
}
