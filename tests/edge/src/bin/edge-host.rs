//! Serves an edge component on a port until it is ended: for trying it out, not for production.
//!
//! `edge-host <component.wasm> <file of keys> <address>`

use std::net::SocketAddr;
use std::path::Path;

use cdc_test_edge::{EdgeServer, Provider};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [component, keys, address] = arguments.as_slice() else {
        eprintln!("usage: edge-host <component.wasm> <file of keys> <address>");
        std::process::exit(2);
    };
    let address: SocketAddr = address.parse().unwrap_or_else(|_| {
        eprintln!("{address} is not an address, such as 127.0.0.1:8002");
        std::process::exit(2);
    });
    let server = EdgeServer::start_file(Path::new(component), address, Provider::open(Path::new(keys)), |_| None);
    println!("http://{}", server.address());
    loop {
        std::thread::park();
    }
}
