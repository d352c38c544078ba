//! What sockleak says: the same look and the same decision as `sockleak port`, for many ports at once.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::io;

use std::sync::Arc;

use jiff::Timestamp;
use sockleak_core::observed::{Family, PortFile, Protocol, Sighting, Snapshot};
use sockleak_core::port::{Addressing, Answer, Endpoint, PortEvidence, PortOwner, PortReport, Reuse};
use sockleak_kernel::netns::Netns;
use sockleak_kernel::port_table::PortReader;
use sockleak_kernel::sock_diag::{Filter, SockDiag};
use sockleak_kernel::{clock, devices, trial_bind};
use sockleak_tests::situation::{Answers, Binding, Place, Word};

/// The iterators, which are loaded once.
pub struct Product {
    reader: PortReader,
    hz: u32,
}

/// What one look saw of many ports.
pub struct Look {
    places: Vec<Seen>,
    files: HashMap<u16, Vec<PortFile>>,
    time: Timestamp,
    hz: u32,
}

/// What it saw in one namespace.
struct Seen {
    netns: u32,
    sightings: HashMap<u16, Vec<Sighting>>,
    owners: HashMap<u16, Vec<Arc<PortOwner>>>,
}

impl Product {
    pub fn load() -> Self {
        Self {
            reader: PortReader::load_alone().unwrap_or_else(|error| panic!("{}", error.sentence())),
            hz: clock::hz().expect("the auxiliary vector has it"),
        }
    }

    /// Looks at these ports in all of the namespaces.
    pub fn look(&mut self, places: &[Place], ports: &BTreeSet<u16>) -> Look {
        let time = Timestamp::now();
        let ports: Vec<u16> = ports.iter().copied().collect();
        let seen = |place| self.look_into(place, &ports);
        let places: io::Result<Vec<Seen>> = places.iter().map(seen).collect();
        let files = self.reader.files(&ports).expect("the iterator runs");
        Look {
            places: places.expect("root may look into the namespaces"),
            files: by_port(files, |file| file.owner.local.port()),
            time,
            hz: self.hz,
        }
    }

    fn look_into(&mut self, place: &Place, ports: &[u16]) -> io::Result<Seen> {
        let mut sock_diag = SockDiag::open(Some(place.netns()))?;
        let filter = Filter::all().local_ports(ports.iter().copied());
        let mut sightings = sock_diag
            .dump(Protocol::Tcp, Family::Ipv4, &filter)
            .map_err(io::Error::other)?;
        sightings.extend(
            sock_diag
                .dump(Protocol::Tcp, Family::Ipv6, &filter)
                .map_err(io::Error::other)?,
        );
        let owners = self.reader.owners(place.netns(), ports)?;
        Ok(Seen {
            netns: place.inode(),
            sightings: by_port(sightings, |seen| seen.local.port()),
            owners: by_port(owners.into_iter().map(Arc::new), |owner| owner.local.port()),
        })
    }
}

impl Look {
    /// What it says to these requests in that namespace, in which the caller is; `None` where it has no verdict.
    pub fn answers(&self, place: &Place, port: u16, asked: &[Binding]) -> Vec<Option<Answers>> {
        let netns = Netns::current().expect("/proc is mounted");
        let answer = |asked: &Binding| self.answer(place, &netns, port, asked);
        asked.iter().map(answer).collect()
    }

    fn answer(&self, place: &Place, netns: &Netns, port: u16, asked: &Binding) -> Option<Answers> {
        let device = asked.device.name().map(|name| {
            let found = devices::by_name(netns, name).expect("netlink answers");
            found.expect("the namespace has it")
        });
        let endpoint = Endpoint {
            netns: place.inode(),
            address: asked.address,
            port,
            v6only: asked.address.is_ipv6().then_some(asked.v6only),
            uid: Some(asked.user),
            device: device.as_ref().map_or(0, |device| device.index),
            nonlocal: asked.freebind,
        };
        let refusals = trial_bind::refusals(netns, [endpoint.local_address()]);
        let addressing = Addressing {
            refusals: refusals.expect("a socket can be made"),
            devices: device.into_iter().collect(),
        };
        let here = |seen: &&Seen| seen.netns == place.inode();
        let looks = self.places.iter().map(|seen| Snapshot {
            addressing: if here(&seen) {
                addressing.clone()
            } else {
                Addressing::default()
            },
            ..self.snapshot(seen, port)
        });
        let is_allowed = netns.lets_bind(asked.user, port);
        let is_allowed = is_allowed.expect("the kernel tells whose it is");
        let report = PortReport::examine(PortEvidence {
            time: self.time,
            port,
            own: place.inode(),
            addresses: vec![endpoint],
            looks: looks.collect(),
            files: self.files.get(&port).cloned().unwrap_or_default(),
            parents: HashMap::new(),
            dumping: HashSet::new(),
            forbidden: if is_allowed {
                HashSet::new()
            } else {
                HashSet::from([place.inode()])
            },
            blind: Vec::new(),
            hz: self.hz,
        });
        let mut own = report.restart.iter();
        let own = own.find(|restart| restart.endpoint.netns == place.inode())?;
        let verdict = own.verdict(Reuse::new(asked.reuseaddr, asked.reuseport))?;
        Some(Answers {
            bind: word(verdict.bind),
            listen: word(verdict.listen),
        })
    }

    /// The owners of the port that it saw, in words for a mismatch.
    pub fn owners(&self, place: &Place, port: u16) -> Vec<String> {
        let here = self.places.iter().filter(|seen| seen.netns == place.inode());
        let listed = here.filter_map(|seen| seen.owners.get(&port)).flatten();
        let listed = listed.map(|owner| format!("{owner:?}"));
        let files = self.files.get(&port).into_iter().flatten();
        let files = files.filter(|file| file.owner.netns == place.inode());
        listed
            .chain(files.map(|file| format!("file {:?}", file.owner)))
            .collect()
    }

    fn snapshot(&self, seen: &Seen, port: u16) -> Snapshot {
        Snapshot {
            netns: seen.netns,
            cookie: None,
            scope: None,
            began: self.time,
            time: self.time,
            sightings: Some(seen.sightings.get(&port).cloned().unwrap_or_default().into()),
            refused: None,
            orphan_retries: None,
            tcp_timeouts: None,
            addressing: Addressing::default(),
            overflow: None,
            local_ports: None,
            same_destination: None,
            shows_bound: true,
            owners: Some(
                seen.owners
                    .get(&port)
                    .cloned()
                    .unwrap_or_default()
                    .into_iter()
                    .collect(),
            ),
        }
    }
}

fn word(answer: Answer) -> Word {
    match answer {
        Answer::Ok => Word::Ok,
        Answer::InUse => Word::InUse,
        Answer::NotAvailable => Word::NotAvailable,
        Answer::Invalid => Word::Invalid,
        Answer::Permission => Word::Permission,
        Answer::Unknown => Word::Unknown,
    }
}

fn by_port<T>(all: impl IntoIterator<Item = T>, port: impl Fn(&T) -> u16) -> HashMap<u16, Vec<T>> {
    let mut sorted: HashMap<u16, Vec<T>> = HashMap::new();
    for one in all {
        sorted.entry(port(&one)).or_default().push(one);
    }
    sorted
}
