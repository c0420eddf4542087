//! A request's route, split and ticket, so many times: `picks SERVICES COUNT`. What `./dev bench cost` counts the
//! instructions of. Every service is asked in turn.

use std::env;
use std::error::Error;
use std::hint::black_box;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::process::ExitCode;

use hotctl_config::{Address, ReleaseId, ServiceName, Slot};
use hotctl_proxy::{Ask, Pool, Route, Split, Switch, Table, Tried};

const SHARDS: NonZeroUsize = NonZeroUsize::MIN;

fn main() -> ExitCode {
    let numbers: Vec<u32> = env::args()
        .skip(1)
        .filter_map(|it| it.parse().ok())
        .collect();
    let &[services, count] = numbers.as_slice() else {
        eprintln!("usage: picks SERVICES COUNT");
        return ExitCode::from(2);
    };
    match pick(services, count) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("picks: {e}");
            ExitCode::FAILURE
        }
    }
}

fn pick(services: u32, count: u32) -> Result<(), Box<dyn Error>> {
    let names: Result<Vec<ServiceName>, _> = (0..services)
        .map(|it| format!("shop-{it}").parse())
        .collect();
    let names = names?;
    let hosts: Vec<String> = names.iter().map(|it| format!("{it}.example.com")).collect();
    let switch = Switch::new(SHARDS);
    let mut routes = Vec::new();
    for (name, host) in names.iter().zip(&hosts) {
        routes.push(Route {
            service: name.clone(),
            hosts: vec![host.parse()?],
            paths: Vec::new(),
        });
    }
    switch.publish(Table::new(routes), 1)?;
    for name in &names {
        let release = ReleaseId {
            service: name.clone(),
            number: 1,
        };
        let address = Address::from(SocketAddr::from(([127, 0, 0, 1], 1)));
        let pool = Pool::new(release, Slot(1), address, &[], SHARDS);
        switch.split(name, Split::all(pool))?;
    }
    for host in hosts.iter().cycle().take(usize::try_from(count)?) {
        let ask = Ask {
            host,
            path: "/cart/7",
            roll: 50,
            tried: Tried::default(),
        };
        drop(black_box(
            switch.pick(&ask).map_err(|why| format!("{why:?}"))?,
        ));
    }
    Ok(())
}
