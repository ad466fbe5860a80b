//! With tokio, on one thread and on several: `tokio BUNDLE` (feature `tokio`).

use libruntime::{Runtime, Stdio};

async fn run(runtime: Runtime, bundle: String, id: String) -> libruntime::Result<()> {
    let container = runtime.container(id).bundle(bundle).stdin(Stdio::null()).create_async().await?;
    container.start_async().await?;
    let exec = container.exec(["true"]).stdin(Stdio::null());
    let beside = exec.spawn_async().await;
    println!("{}", container.wait_async().await?);
    if let Ok(process) = beside {
        process.wait_async().await?;
    }
    container.delete_async().await?;
    Ok(())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let bundle = std::env::args().nth(1).ok_or("usage: tokio BUNDLE")?;
    let runtime = Runtime::new("/run/libruntime-example");
    let all = async |name: &str| {
        let start = |number: u32| {
            let id = format!("tokio-{name}-{}-{number}", std::process::id());
            tokio::spawn(run(runtime.clone(), bundle.clone(), id))
        };
        for task in (0..4).map(start).collect::<Vec<_>>() {
            task.await.expect("no task panics")?;
        }
        libruntime::Result::Ok(())
    };
    tokio::runtime::Builder::new_current_thread().enable_io().build()?.block_on(all("one"))?;
    tokio::runtime::Builder::new_multi_thread().enable_io().build()?.block_on(all("several"))?;
    Ok(())
}
