//! A program that is nothing but a shim, for the tests of this crate.

fn main() -> std::process::ExitCode {
    hotctl_deploy::shim::main()
}
