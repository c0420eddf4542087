//! Programs that cannot run, each for another reason.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use super::{Exit, after};
use crate::testing::House;

/// Make a program, and say why it does not start.
async fn said(house: &House, name: &str, content: &[u8]) -> (String, String) {
    let path = house.path(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, content).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    let error = house.start(&[path.to_str().unwrap()]).await.unwrap_err();
    let text = error.to_string();
    let text = text.strip_prefix(&format!("{}: ", path.display()));
    (
        text.expect("the program comes first").to_owned(),
        error.hint().unwrap_or_default().to_owned(),
    )
}

#[tokio::test]
async fn a_missing_interpreter_is_named() {
    let house = House::new();
    let (text, hint) = said(&house, "a", b"#! /opt/ruby/bin/ruby -w\nputs 1\n").await;
    assert_eq!(
        text,
        "its interpreter /opt/ruby/bin/ruby is not on this machine"
    );
    assert!(hint.contains("#!/usr/bin/env ruby"), "{hint}");
    for line in [
        "#!/usr/bin/env no-such-node",
        "#!/usr/bin/env -S no-such-node --flag",
        "#!/usr/bin/env -S A=1 no-such-node",
    ] {
        let (text, hint) = said(&house, "b", format!("{line}\n").as_bytes()).await;
        assert_eq!(text, "its interpreter no-such-node is not in PATH");
        assert!(hint.starts_with("install no-such-node"), "{hint}");
    }
    let (text, hint) = said(&house, "c", b"#!/bin/sh\r\nexit 0\r\n").await;
    assert_eq!(text, "its first line ends with a carriage return");
    assert!(hint.contains("sed -i"), "{hint}");
}

#[tokio::test]
async fn scripts_that_can_run_do() {
    let house = House::new();
    for line in [
        "#!/bin/sh",
        "#! /bin/sh -e",
        "#!/usr/bin/env sh",
        "#!/usr/bin/env -S sh -e",
    ] {
        let path = house.path("script");
        fs::write(&path, format!("{line}\nexit 7\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        let app = house.start(&[path.to_str().unwrap()]).await.unwrap();
        assert_eq!(app.exited().await, Exit::Code(7), "{line}");
    }
}

#[tokio::test]
async fn a_script_of_an_environment_that_was_made_elsewhere_is_told() {
    let house = House::new();
    fs::create_dir(house.path("venv")).unwrap();
    fs::write(house.path("venv/pyvenv.cfg"), "home = /usr/bin\n").unwrap();
    let gone = b"#!/home/me/app/venv/bin/python\nimport app\n";
    let (text, hint) = said(&house, "venv/bin/gunicorn", gone).await;
    let place = "from the place where its virtual environment was made";
    assert_eq!(text, format!("runs /home/me/app/venv/bin/python, {place}"));
    assert!(hint.contains("bin/python -m"), "{hint}");
    // Worse: it is still there, and would run code that nobody deployed.
    let built = house.path("built/venv/bin/python");
    fs::create_dir_all(built.parent().unwrap()).unwrap();
    fs::write(house.path("built/venv/pyvenv.cfg"), "").unwrap();
    std::os::unix::fs::symlink("/bin/sh", &built).unwrap();
    let line = format!("#!{}\n", built.display());
    let (text, _) = said(&house, "venv/bin/gunicorn", line.as_bytes()).await;
    assert_eq!(text, format!("runs {}, {place}", built.display()));
    // Its own is right, and so is the system's.
    for interpreter in [house.path("venv/bin/python"), "/bin/sh".into()] {
        if !interpreter.exists() {
            std::os::unix::fs::symlink("/bin/sh", &interpreter).unwrap();
        }
        let script = house.path("venv/bin/tool");
        fs::write(&script, format!("#!{}\nexit 7\n", interpreter.display())).unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
        let app = house.start(&[script.to_str().unwrap()]).await.unwrap();
        assert_eq!(app.exited().await, Exit::Code(7));
    }
}

#[tokio::test]
async fn a_missing_loader_is_named() {
    let house = House::new();
    let mut program = fs::read("/bin/sleep").unwrap();
    let loader = crate::elf::loader(&fs::File::open("/bin/sleep").unwrap()).unwrap();
    let loader = loader.to_str().unwrap().as_bytes();
    let at = program
        .windows(loader.len())
        .position(|at| at == loader)
        .unwrap();
    let musl = b"/lib/musl-none.so";
    program[at..at + loader.len()].fill(0);
    program[at..at + musl.len()].copy_from_slice(musl);
    let (text, hint) = said(&house, "app", &program).await;
    assert_eq!(
        text,
        "the loader it was linked for, /lib/musl-none.so, is not on this machine"
    );
    assert!(hint.contains("Alpine"), "{hint}");
}

#[tokio::test]
async fn a_missing_library_is_named_by_the_loader_itself() {
    let house = House::new();
    let mut program = fs::read("/bin/sleep").unwrap();
    // Its one library, under another name.
    let at = program
        .windows(9)
        .position(|at| at == b"libc.so.6")
        .unwrap();
    program[at..at + 9].copy_from_slice(b"libq.so.6");
    let path = house.path("app");
    fs::write(&path, program).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    let app = house.start(&[path.to_str().unwrap()]).await.unwrap();
    let exit = app.exited().await;
    let output = crate::logs::tail(&house.path("log"), 20);
    let refused = after(&exit, &output).unwrap();
    let end = "its shared library libq.so.6 is not on this machine";
    assert!(refused.text.ends_with(end), "{refused}");
    assert!(refused.hint.unwrap().contains("apt-file search libq.so.6"));
}

#[test]
fn last_words_are_understood_or_left_alone() {
    let lines = |text: &str| text.lines().map(Into::into).collect::<Vec<String>>();
    for (code, text, said) in [
        (
            127,
            "Error loading shared library libssl.so.3: No such file or directory (needed by /srv/app)",
            "/srv/app: its shared library libssl.so.3 is not on this machine",
        ),
        (
            1,
            "./app: /lib/x86_64-linux-gnu/libc.so.6: version `GLIBC_2.99' not found (required by ./app)",
            "./app: needs GLIBC_2.99, and libc.so.6 of this machine is older",
        ),
        (
            127,
            "app: error while loading shared libraries: libz.so.1: wrong ELF class: ELFCLASS32",
            "app: its shared library libz.so.1: wrong ELF class: ELFCLASS32",
        ),
        (
            127,
            "/usr/bin/env: ‘node’: No such file or directory\nand more",
            "node: no such program in PATH",
        ),
    ] {
        assert_eq!(after(&Exit::Code(code), &lines(text)).unwrap().text, said);
    }
    for (exit, text) in [
        (Exit::Code(1), "cat: x: No such file or directory"),
        (Exit::Code(127), ""),
        (
            Exit::Code(3),
            "a: error while loading shared libraries: b: No such file",
        ),
        (
            Exit::Signal(9),
            "/usr/bin/env: ‘node’: No such file or directory",
        ),
    ] {
        assert_eq!(after(&exit, &lines(text)), None);
    }
}
