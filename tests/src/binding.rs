//! What `bind()` and `listen()` really say: the judge of every verdict about a restart.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use serde_json::{Value, json};

use crate::victim::Victim;
use crate::{record, tracer};

/// A socket that a restart makes.
#[derive(Clone, Copy, Debug)]
pub struct New {
    pub address: IpAddr,
    pub v6only: bool,
    pub reuseaddr: bool,
    pub reuseport: bool,
}

impl New {
    /// Without any option.
    #[must_use]
    pub fn plain(address: IpAddr) -> Self {
        Self {
            address,
            v6only: false,
            reuseaddr: false,
            reuseport: false,
        }
    }

    /// Every combination of addresses and options that the kernel's rule tells apart.
    #[must_use]
    pub fn all() -> Vec<Self> {
        let other = Ipv4Addr::new(127, 0, 0, 2);
        let addresses: [(IpAddr, bool); 8] = [
            (Ipv4Addr::UNSPECIFIED.into(), false),
            (Ipv4Addr::LOCALHOST.into(), false),
            (other.into(), false),
            (Ipv6Addr::UNSPECIFIED.into(), false),
            (Ipv6Addr::UNSPECIFIED.into(), true),
            (Ipv6Addr::LOCALHOST.into(), false),
            (Ipv4Addr::LOCALHOST.to_ipv6_mapped().into(), false),
            (other.to_ipv6_mapped().into(), false),
        ];
        let options = [(false, false), (true, false), (false, true), (true, true)];
        addresses
            .into_iter()
            .flat_map(|(address, v6only)| {
                options.map(|(reuseaddr, reuseport)| Self {
                    address,
                    v6only,
                    reuseaddr,
                    reuseport,
                })
            })
            .collect()
    }

    /// What the kernel says to `bind()`, and then to `listen()`: `ok` or `in_use`, and the same again where the first
    /// said no. A process of its own asks: of this one, a child that is on its way to another program may have the
    /// socket of the try before.
    #[track_caller]
    #[must_use]
    pub fn tries(self, restarting: &mut Victim, port: u16) -> (String, String) {
        let mut command = format!("restart {}", SocketAddr::new(self.address, port));
        let options = [
            (self.v6only, " v6only"),
            (self.reuseaddr, " reuseaddr"),
            (self.reuseport, " reuseport"),
        ];
        command.extend(options.into_iter().filter_map(|(set, name)| set.then_some(name)));
        let told = restarting.does(&command);
        let (bind, listen) = told.split_once(' ').expect("two answers");
        (bind.to_owned(), listen.to_owned())
    }

    fn flags(self) -> Value {
        let names = [(self.reuseaddr, "reuseaddr"), (self.reuseport, "reuseport")];
        let set = names.into_iter().filter_map(|(set, name)| set.then_some(name));
        json!(set.collect::<Vec<_>>())
    }

    /// The verdict for it among those of `sockleak port` or of a report.
    #[track_caller]
    #[must_use]
    pub fn verdict(self, port: u16, restart: &Value) -> &Value {
        let address = json!(self.address);
        let v6only = json!(self.address.is_ipv6().then_some(self.v6only));
        restart
            .as_array()
            .expect("a list")
            .iter()
            .filter(|one| one["laddr"] == address && one["lport"] == port && one["v6only"] == v6only)
            .flat_map(|one| one["verdicts"].as_array().expect("a list"))
            .find(|verdict| verdict["flags"] == self.flags())
            .unwrap_or_else(|| panic!("no verdict for {self:?} in {restart:#}"))
    }
}

/// Nothing in the namespace of the caller is hidden from it. Not every process may be looked at everywhere, though.
#[must_use]
pub fn sees_the_own_namespace(told: &Value) -> bool {
    let blind = record::blind_spots(&told["blind"]);
    blind.iter().all(|id| *id == "namespaces_refused")
}

/// What `sockleak port` says of every one of [`New::all`], with IPV6_V6ONLY or without.
#[track_caller]
fn verdicts(port: u16, v6only: bool) -> Value {
    let mut addresses: Vec<String> = New::all()
        .iter()
        .filter(|new| new.v6only == v6only)
        .map(|new| new.address.to_string())
        .collect();
    addresses.dedup();
    let mut arguments = vec!["port".to_owned(), port.to_string(), "-ojson".to_owned()];
    arguments.extend(["--address".to_owned(), addresses.join(",")]);
    arguments.extend(v6only.then(|| "--v6only".to_owned()));
    let told = record::of(&tracer::run(arguments).stdout);
    assert!(sees_the_own_namespace(&told), "{told:#}");
    told["restart"].clone()
}

/// Holds every verdict against the kernel. The verdicts come first: each try is an owner of the port for a moment,
/// which changes what the kernel remembers of it.
#[track_caller]
pub fn agree(port: u16, scene: &str, v6only: bool) {
    let restart = verdicts(port, v6only);
    let mut differing = Vec::new();
    let mut restarting = Victim::start();
    for new in New::all().into_iter().filter(|new| new.v6only == v6only) {
        let (bind, listen) = new.tries(&mut restarting, port);
        let verdict = new.verdict(port, &restart);
        if (&verdict["bind"], &verdict["listen"]) != (&json!(bind), &json!(listen)) {
            differing.push(format!(
                "{new:?}: the kernel says {bind} and {listen}, not {verdict}"
            ));
        }
    }
    assert!(
        differing.is_empty(),
        "{scene}, port {port}:\n{}",
        differing.join("\n")
    );
}
