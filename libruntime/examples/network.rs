//! A container on a bridge, with a published port: `network BUNDLE`. It takes root and nft.

use libruntime::{Network, Runtime};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let bundle = std::env::args().nth(1).ok_or("usage: network BUNDLE")?;
    let runtime = Runtime::new("/run/libruntime-example");
    let network = Network::bridge("example0").publish(0x6f6e, 80);
    let container =
        runtime.container(format!("network-{}", std::process::id())).bundle(bundle).network(network);
    let container = container.run()?;
    for interface in container.state().networks.iter().flatten() {
        println!(
            "{} on {}: {:?}, ports {:?}",
            interface.name, interface.bridge, interface.addresses, interface.publish
        );
    }
    container.delete_force()?;
    Ok(())
}
