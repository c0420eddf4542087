//! The further ports of an instance, by name: leased like its own, and its own for as long. hotctl
//! connects to none of them.

use std::collections::BTreeMap;

use hotctl_config::PortName;
use hotctl_deploy::ports::{Lease, Ports};
use hotctl_deploy::why::{Kind, Why};

/// What `status` and events say of them.
pub type PortMap = BTreeMap<PortName, u16>;

/// See the head of this file. Cheap to clone; a port is free when its last clone is gone, here and in
/// the shim of the app that has it.
#[derive(Debug, Clone, Default)]
pub struct NamedPorts(BTreeMap<PortName, Named>);

#[derive(Debug, Clone)]
struct Named {
    port: u16,
    /// None of an app whose shim did not keep it.
    lease: Option<Lease>,
}

impl NamedPorts {
    /// One for each name: those that are here already, and new ones for the others.
    ///
    /// # Errors
    /// If no port is free.
    pub fn with(&self, names: &[PortName], ports: &Ports) -> Result<Self, Why> {
        let named = names.iter().map(|name| {
            let named = match self.0.get(name) {
                Some(named) => named.clone(),
                None => {
                    let lease = lease(ports)?;
                    Named {
                        port: lease.port(),
                        lease: Some(lease),
                    }
                }
            };
            Ok((name.clone(), named))
        });
        named.collect::<Result<_, Why>>().map(Self)
    }

    /// Those of an app that another daemon has started, with the leases that its shim kept.
    pub fn adopted(ports: &PortMap, leases: &[Lease]) -> Self {
        let named = ports.iter().map(|(name, port)| {
            let lease = leases.iter().find(|lease| lease.port() == *port);
            let named = Named {
                port: *port,
                lease: lease.cloned(),
            };
            (name.clone(), named)
        });
        Self(named.collect())
    }

    /// The ports.
    pub fn ports(&self) -> PortMap {
        let named = self.0.iter();
        named.map(|(name, one)| (name.clone(), one.port)).collect()
    }

    /// What keeps them, for whoever listens there to hold it, too.
    pub fn leases(&self) -> impl Iterator<Item = Lease> + '_ {
        self.0.values().filter_map(|one| one.lease.clone())
    }
}

/// A port of its own.
///
/// # Errors
/// If none is free.
pub(super) fn lease(ports: &Ports) -> Result<Lease, Why> {
    ports.lease().map_err(|none| {
        Why::new(Kind::NoPort, none.to_string())
            .hint("widen `ports` in the configuration, or stop what uses them")
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn names(names: &[&str]) -> Vec<PortName> {
        names.iter().map(|name| name.parse().unwrap()).collect()
    }

    #[test]
    fn a_name_keeps_its_port_and_what_is_not_named_any_more_is_free() {
        let ports = Ports::new("17160-17161".parse().unwrap());
        let first = NamedPorts::default()
            .with(&names(&["debug"]), &ports)
            .unwrap();
        let both = first.with(&names(&["debug", "metrics"]), &ports).unwrap();
        assert_eq!(both.ports()["debug"], first.ports()["debug"]);
        let none = both.with(&names(&["a", "debug", "metrics"]), &ports);
        assert_eq!(none.unwrap_err().kind, Kind::NoPort);
        let other = both.with(&names(&["metrics"]), &ports).unwrap();
        drop((first, both));
        assert_eq!(other.ports().len(), 1);
        assert!(ports.lease().is_ok());
    }

    #[test]
    fn an_adopted_port_is_held_by_the_lease_that_was_kept() {
        let ports = Ports::new("17162-17163".parse().unwrap());
        let own = ports.lease().unwrap();
        let named = NamedPorts::default()
            .with(&names(&["debug"]), &ports)
            .unwrap();
        let leases: Vec<Lease> = named.leases().chain([own.clone()]).collect();
        let again = NamedPorts::adopted(&named.ports(), &leases);
        assert_eq!(again.ports(), named.ports());
        assert_eq!(again.leases().count(), 1);
        drop((leases, named));
        // The one is its own, the other the named one's.
        assert!(ports.lease().is_err());
        drop(again);
        assert!(ports.lease().is_ok());
        // An app of which nothing was kept has its port all the same.
        let map = BTreeMap::from([("debug".parse().unwrap(), 17_162)]);
        assert_eq!(NamedPorts::adopted(&map, &[]).ports(), map);
    }
}
