//! What a request costs in memory taken and given back, which no noise of the machine changes: a number that
//! may fall, and does not grow without being seen.

use std::thread;

use allocation_counter::{AllocationInfo, measure};
use tokio::runtime::Builder;

use crate::wire::{Wire, get};
use crate::world::{Manners, Upstream, World};

/// By ours and by what of pingora is used, for a GET on connections that are kept.
const A_REQUEST: u64 = 56;

#[test]
fn a_request_takes_no_more_memory_than_it_did() {
    let (few, many) = (by(100), by(300));
    let (count, bytes) = (
        many.count_total - few.count_total,
        many.bytes_total - few.bytes_total,
    );
    println!(
        "a request: {} allocations, {} bytes",
        count as f64 / 200.0,
        bytes as f64 / 200.0
    );
    // Less than one for all of them is a table that has grown.
    assert!(
        count / 200 <= A_REQUEST,
        "{count} allocations in 200 requests, {bytes} bytes"
    );
    // What others free, or make once for all, is on no account of a request.
    let kept = many.count_current - few.count_current;
    assert!(
        kept.abs() < 100,
        "of 200 requests more, {kept} pieces of memory are kept"
    );
}

/// What the thread of the proxy takes for so many requests, from its start to its end.
fn by(requests: usize) -> AllocationInfo {
    // Everybody else's count on threads of their own.
    let others = Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let upstream = others.block_on(Upstream::start("up", Manners::Kind));
    let (begins, begun) = std::sync::mpsc::channel();
    let proxy = thread::spawn(move || {
        measure(|| {
            let runtime = Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let world = World::start().await;
                world.flip(&upstream);
                begins.send((world.address, world.stage.clone())).unwrap();
                world.serving.await.unwrap();
            });
        })
    });
    let (address, stage) = begun.recv().unwrap();
    others.block_on(async {
        let stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let mut client = Wire::new(stream);
        for _ in 0..requests {
            assert_eq!(client.ask(&get("/")).await.unwrap().text(), "up");
        }
    });
    stage.send_replace(hotctl_proxy::Stage::Closing);
    proxy.join().unwrap()
}
