//! A container on a bridge, with a published port: `network BUNDLE`. It takes root and nft.

use libruntime::{Network, Runtime};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let bundle = std::env::args().nth(1).ok_or("usage: network BUNDLE")?;
    let new = Runtime::new("/run/libruntime-example").container(format!("network-{}", std::process::id()));
    let network = Network::bridge("example0").publish(0x6f6e, 80);
    let container = new.bundle(bundle).network(network).run()?;
    for interface in container.state().networks.iter().flatten() {
        let (addresses, ports) = (&interface.addresses, &interface.publish);
        println!("{} on {}: {addresses:?}, ports {ports:?}", interface.name, interface.bridge);
    }
    container.delete_force()?;
    Ok(())
}
