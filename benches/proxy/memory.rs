//! Memory of a proxy: when it has done nothing, with a thousand open connections that wait, and under the
//! load of more and more connections.

use std::time::Duration;

use crate::field::client::{self, Kind};
use crate::field::peers::{self, Setting};
use crate::field::process::Cores;
use crate::field::running::{App, Running};
use crate::field::wanted;
use crate::plot::Panel;
use crate::report::Report;
use crate::tables::{bar, cell};

pub const WHAT: &str = "memory: PSS in MiB of all processes of the proxy, one thread";

/// How many connections ask at once, in this order, so that each finds what the fewer left behind.
const LOADS: [usize; 4] = [16, 64, 256, 1000];
const IDLE: usize = 1000;

/// Each round starts every proxy anew.
pub fn run(rounds: usize, cores: &Cores, report: &mut Report) -> Vec<Panel> {
    let setting = Setting::plain(&cores.proxy);
    let mut columns = vec!["memory".to_string(), "idle".to_string()];
    columns.push("KiB a waiting connection".to_string());
    columns.extend(LOADS.map(|count| format!("under {count}")));
    let mut lines = Vec::new();
    let mut panels: Vec<Panel> = columns[1..]
        .iter()
        .map(|title| Panel {
            title: title.clone(),
            bars: Vec::new(),
        })
        .collect();
    for peer in peers::ALL {
        if !wanted("PEERS", peer.name()) {
            continue;
        }
        let mut all = Vec::new();
        for _ in 0..rounds {
            let measured = Running::start(peer, &setting, &App::Quick, cores)
                .and_then(|one| once(&one, cores));
            match measured {
                Ok(figures) => all.push(figures),
                Err(why) => report.note(&format!("memory: {}: {why}", peer.name())),
            }
        }
        if all.is_empty() {
            continue;
        }
        let mut line = vec![peer.name().to_string()];
        for (at, panel) in panels.iter_mut().enumerate() {
            let values: Vec<f64> = all.iter().map(|figures| figures[at]).collect();
            line.push(cell(values.clone()));
            panel.bars.push(bar(peer.name(), values));
        }
        lines.push(line);
    }
    report.table(&format!("**{WHAT}**"), &columns, &lines);
    panels
}

/// How long each of them has had nothing to do when it counts as idle: by then threads that are only there for
/// a start have ended, hotctl's after 10 s, and what it took and did not keep is given back.
const REST: Duration = Duration::from_secs(15);

/// One life of a proxy.
fn once(one: &Running, cores: &Cores) -> Result<[f64; 2 + LOADS.len()], String> {
    std::thread::sleep(REST);
    let idle = one.memory();
    let open = client::idle(one.listen, IDLE).map_err(|e| format!("{IDLE} connections: {e}"))?;
    let waiting = (one.memory() - idle) * 1024.0 / IDLE as f64;
    drop(open);
    let mut figures = [idle, waiting, 0.0, 0.0, 0.0, 0.0];
    for (figure, connections) in figures[2..].iter_mut().zip(LOADS) {
        let ask = one.ask(Kind::Small);
        let during = Duration::from_millis(800);
        let load = std::thread::scope(|scope| {
            let load =
                scope.spawn(|| client::load(one.listen, &ask, connections, during, &cores.load));
            while !load.is_finished() {
                *figure = one.memory().max(*figure);
                std::thread::sleep(during / 8);
            }
            load.join()
        });
        let seen = load.map_err(|_| "the load failed".to_string())?;
        if seen.failures() > 0 {
            return Err(format!("{connections} connections: {}", seen.troubles()));
        }
    }
    Ok(figures)
}
