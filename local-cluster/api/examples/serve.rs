//! Serves a state folder on a loopback port until Ctrl-C, to look at it with kubectl:
//! `cargo run -p karez-local-api --example serve -- /tmp/state`.

use karez_lifecycle::Shutdown;
use karez_local_api::{LocalCluster, LocalClusterOptions};
use std::net::Ipv4Addr;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let state = std::env::args().nth(1).ok_or("usage: serve STATE-FOLDER")?;
    let shutdown = Shutdown::on_signals()?;
    let cluster = LocalCluster::open(LocalClusterOptions::new(state))?;
    let serving = cluster
        .serve((Ipv4Addr::LOCALHOST, 0).into(), shutdown.clone())
        .await?;
    println!("export KUBECONFIG={}", serving.kubeconfig.display());
    shutdown.triggered().await;
    Ok(())
}
