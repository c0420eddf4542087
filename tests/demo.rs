//! What a newcomer sees first works, and leaves nothing.

use std::path::Path;
use std::process::Command;

use crate::support::program;

#[test]
fn the_demo_loses_no_request_and_leaves_no_file_and_no_process() {
    let temp = tempfile::tempdir().unwrap();
    let beside = Path::new(env!("CARGO_BIN_EXE_hotctl")).parent().unwrap();
    let mut demo = Command::new(beside.join("examples/demo"));
    // Everything it makes goes here, and its apps inherit the name.
    demo.env("TMPDIR", temp.path());
    let ran = program::run(&mut demo);
    ran.exits(0)
        .says("app@2 is live on")
        .says("app@2 is live and was not touched")
        .says("(exit 1)")
        .says("crashing at start, as asked")
        .says("requests, 0 failed");
    let left: Vec<_> = std::fs::read_dir(temp.path()).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
    let name = temp.path().to_str().unwrap();
    let processes = crate::support::leftovers::processes(temp.path());
    assert!(processes.is_empty(), "{name}: {processes:?}");
}
