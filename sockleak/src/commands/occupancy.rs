//! What the verbs without a tracer look at: everything that has a port now.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use sockleak_core::observed::{BlindSpot, Family, PortFile, Protocol, Snapshot};
use sockleak_core::port::{Endpoint, LocalAddress, Occupant, PortEvidence, PortOwner, PortReport, occupants};
use sockleak_kernel::netns::Netns;
use sockleak_kernel::port_table::PortReader;
use sockleak_kernel::sock_diag::{self, Filter, SockDiag};
use sockleak_kernel::{clock, devices, proc};

use super::cli::BindArgs;
use crate::session::addressing;

/// Looks at one port, as often as is wanted.
pub struct Occupancy {
    port: u16,
    addresses: Vec<Endpoint>,
    /// The name of the device that a restart is bound to, which may get another index while somebody waits.
    device: Option<String>,
    user: Option<u32>,
    /// `None` where the kernel's own list of the port cannot be read.
    reader: Option<PortReader>,
    /// Why it cannot.
    blind: Option<String>,
    /// The kernel's list names processes by numbers that nobody here knows.
    nested: bool,
    hz: u32,
}

/// The index of a device that is not there: the kernel counts from 1, and never as far.
const NO_DEVICE: u32 = u32::MAX >> 1;

/// Which network namespaces are looked into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// That of the caller.
    Own,
    /// Every one that a process is in or that is mounted.
    All,
}

impl Occupancy {
    /// Gets ready for that port.
    ///
    /// # Errors
    /// When /proc is not mounted, or there is no such device.
    pub fn new(args: &BindArgs) -> Result<Self> {
        let own = Netns::current().context("/proc is needed: `sudo mount -t proc proc /proc`")?;
        let (reader, blind) = match PortReader::load_alone() {
            Ok(reader) => (Some(reader), None),
            Err(error) => (None, Some(error.sentence())),
        };
        if let Some(name) = &args.device {
            devices::by_name(&own, name)?.with_context(|| {
                format!("there is no device {name} in this network namespace: `ip link` lists those that there are")
            })?;
        }
        Ok(Self {
            port: args.port,
            device: args.device.clone(),
            user: args.restart_as,
            addresses: addresses(args)
                .into_iter()
                .map(|address| Endpoint {
                    netns: own.inode(),
                    address,
                    port: args.port,
                    v6only: address.is_ipv6().then_some(args.v6only),
                    uid: args.restart_as,
                    device: 0,
                    nonlocal: false,
                })
                .collect(),
            reader,
            blind,
            nested: proc::in_nested_pid_namespace()?,
            hz: clock::hz()?,
        })
    }

    /// Looks once.
    ///
    /// # Errors
    /// When sock_diag does not answer in the own namespace, or /proc cannot be read.
    pub fn look(&mut self, scope: Scope) -> Result<PortReport> {
        let mut blind = Vec::new();
        if let Some(why) = self.blind.clone() {
            let lists_bound = sock_diag::lists_bound();
            blind.push(BlindSpot::PortListRefused { lists_bound, why });
        }
        let namespaces = match scope {
            Scope::Own => vec![(Netns::current()?, PathBuf::new())],
            Scope::All => {
                let (all, refused) = Netns::all()?;
                if refused > 0 {
                    blind.push(BlindSpot::NamespacesRefused { processes: refused });
                }
                all
            }
        };
        let own = namespaces.first().map_or(0, |(namespace, _)| namespace.inode());
        if let (Some(name), Some((namespace, _))) = (&self.device, namespaces.first()) {
            let device = devices::by_name(namespace, name)?;
            let index = device.map_or(NO_DEVICE, |device| device.index);
            for endpoint in &mut self.addresses {
                endpoint.device = index;
            }
        }
        let mut forbidden = HashSet::new();
        let mut looks = Vec::with_capacity(namespaces.len());
        for (namespace, path) in &namespaces {
            match self.look_into(namespace) {
                Ok(look) => {
                    let is_allowed = self.user.map(|user| namespace.lets_bind(user, self.port));
                    match is_allowed.transpose() {
                        Ok(None | Some(true)) => {}
                        Ok(Some(false)) => {
                            forbidden.insert(look.netns);
                        }
                        Err(error) if namespace.inode() == own => return Err(error.into()),
                        Err(_) => {}
                    }
                    looks.push(look);
                }
                Err(error) if namespace.inode() == own => return Err(error),
                Err(error) => blind.push(BlindSpot::NetnsUnread {
                    path: path.display().to_string(),
                    why: format!("{error:#}"),
                }),
            }
        }
        let time = looks.first().map_or_else(Timestamp::now, |look| look.time);
        let files = self.files(&looks, &mut blind)?;
        let pids: HashSet<u32> = files.iter().map(|file| file.pid).collect();
        let dumping = |pid: &u32| proc::status(*pid).is_ok_and(|status| status.core_dumping);
        let mut report = PortReport::examine(PortEvidence {
            time,
            port: self.port,
            own,
            addresses: self.addresses.clone(),
            looks,
            parents: parents(&pids),
            forbidden,
            dumping: pids.iter().copied().filter(dumping).collect(),
            files,
            blind,
            hz: self.hz,
        });
        // The name is what was asked for, also while no device has it.
        for restart in &mut report.restart {
            if restart.endpoint.device != 0 {
                restart.device.clone_from(&self.device);
            }
        }
        Ok(report)
    }

    fn look_into(&mut self, namespace: &Netns) -> Result<Snapshot> {
        let began = Timestamp::now();
        let filter = Filter::all().local_ports([self.port]);
        let mut sock_diag = SockDiag::open(Some(namespace.as_fd()))?;
        let mut sightings = sock_diag.dump(Protocol::Tcp, Family::Ipv4, &filter)?;
        sightings.extend(sock_diag.dump(Protocol::Tcp, Family::Ipv6, &filter)?);
        // After sock_diag, which gives every socket the cookie that the two are joined by.
        let owners = match &mut self.reader {
            Some(reader) => {
                let owners = reader.owners(namespace.as_fd(), &[self.port])?;
                Some(owners.into_iter().map(Arc::new).collect())
            }
            None => None,
        };
        let bound = owners.iter().flatten().map(|owner: &Arc<PortOwner>| owner.device);
        let addressing = addressing::read(namespace, &self.questions(), bound);
        Ok(Snapshot {
            netns: namespace.inode(),
            cookie: namespace.cookie(),
            scope: None,
            began,
            time: Timestamp::now(),
            sightings: Some(sightings.into()),
            refused: None,
            orphan_retries: namespace.orphan_retries().ok(),
            tcp_timeouts: namespace.tcp_timeouts().ok(),
            overflow: None,
            local_ports: None,
            same_destination: None,
            // Those are found by their descriptors, which the kernel lists for this PID namespace.
            shows_bound: (owners.is_some() && !self.nested) || sock_diag::lists_bound(),
            owners,
            addressing,
        })
    }

    fn questions(&self) -> BTreeSet<LocalAddress> {
        self.addresses.iter().filter_map(addressing::question).collect()
    }

    /// Who has descriptors of what was seen: as the kernel lists them, or as far as /proc may be read.
    fn files(&mut self, looks: &[Snapshot], blind: &mut Vec<BlindSpot>) -> Result<Vec<PortFile>> {
        match &mut self.reader {
            Some(reader) if !self.nested => return Ok(reader.files(&[self.port])?),
            Some(_) => blind.push(BlindSpot::NestedPidNamespace {
                lists_bound: sock_diag::lists_bound(),
            }),
            None => {}
        }
        let ports = BTreeSet::from([self.port]);
        let held: HashMap<u64, Occupant> = looks
            .iter()
            .flat_map(|look| occupants(look, &ports, &[], &[], self.hz))
            .filter(|occupant| occupant.owner.inode != 0)
            .map(|occupant| (occupant.owner.inode, occupant))
            .collect();
        let holders = proc::holders(&held.keys().copied().collect())?;
        if holders.unreadable > 0 {
            blind.push(BlindSpot::HoldersUnreadable {
                processes: holders.unreadable,
            });
        }
        Ok(holders
            .held
            .into_iter()
            .filter_map(|holder| {
                Some(PortFile {
                    pid: holder.pid,
                    comm: holder.comm,
                    fd: holder.fd,
                    owner: PortOwner::clone(&held.get(&holder.inode)?.owner),
                })
            })
            .collect())
    }
}

/// Where a restart would bind: as asked, or else at the wildcard of each family.
fn addresses(args: &BindArgs) -> Vec<IpAddr> {
    if !args.address.is_empty() {
        return args.address.clone();
    }
    let mut addresses = vec![IpAddr::V4(Ipv4Addr::UNSPECIFIED)];
    if Path::new("/proc/net/tcp6").exists() {
        addresses.push(IpAddr::V6(Ipv6Addr::UNSPECIFIED));
    }
    addresses
}

/// The parents of those processes, and theirs, up to the first.
fn parents(pids: &HashSet<u32>) -> HashMap<u32, u32> {
    let mut parents = HashMap::new();
    for pid in pids {
        let mut current = *pid;
        while !parents.contains_key(&current) {
            let Ok(stat) = proc::stat(current) else {
                break;
            };
            parents.insert(current, stat.parent);
            current = stat.parent;
        }
    }
    parents
}
