//! Who has a local port, with the options that sock_diag does not tell, and who has a socket: read by BPF iterators,
//! which run in the kernel while they are read.

mod decode;
#[cfg(test)]
mod tests;

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::error::Error;
use std::fmt::Write as _;
use std::fs::File;
use std::hash::Hash;
use std::io::{self, ErrorKind, Read};
use std::os::fd::BorrowedFd;

use aya::Ebpf;
use aya::maps::{Array, MapError};
use aya::programs::Iter;
use aya::programs::iter::IterLink;
use sockleak_core::observed::PortFile;
use sockleak_core::port::PortOwner;
use sockleak_ebpf::{Bitmap, maps, programs};

use self::decode::Record;
use super::globals::Globals;
use super::kernel_types::KernelTypes;
use super::kfunc::{self, Kfuncs};
use super::load_error::{LoadError, refused as not_loaded};
use super::netns;
use super::object::{self, OBJECT};

/// How much is read at a time: what the kernel keeps of an iterator's output (`bpf_seq_read`,
/// kernel/bpf/bpf_iter.c).
const CHUNK: usize = 32 << 10;

/// Reads who has a local port.
pub struct PortReader {
    ebpf: Ebpf,
}

impl PortReader {
    /// Loads the iterators and nothing else. The object is one of its own, with the smallest maps: so the reader owns
    /// all that it needs.
    ///
    /// # Errors
    /// When a required struct member is missing, or when the kernel refuses an iterator.
    pub fn load(kernel: &KernelTypes) -> Result<Self, LoadError> {
        let globals = Globals::of(kernel)?;
        let mut loader = globals.loader();
        for name in maps::OF_THE_TRACER {
            loader.map_max_entries(name, 1);
        }
        let object = kfunc::resolve(OBJECT, Kfuncs::default());
        let loaded = loader.load(&object);
        let mut ebpf = loaded.map_err(|error| LoadError::of_object(error).on(kernel))?;
        let ids = kernel.iterators();
        for (name, visited) in programs::ITERATORS {
            object::find(&mut ebpf, name)
                .and_then(|iterator: &mut Iter| iterator.load(visited, &ids))
                .map_err(|source| not_loaded(name, source))?;
        }
        Ok(Self { ebpf })
    }

    /// The same, where nothing is known of the kernel yet.
    ///
    /// # Errors
    /// As [`PortReader::load`], or when the kernel has no BTF.
    pub fn load_alone() -> Result<Self, LoadError> {
        Self::load(&KernelTypes::read()?)
    }

    /// The TCP sockets that have one of the ports in that network namespace, mini sockets and listeners too. Sockets
    /// that are only bound are in no table that could be read: [`PortReader::files`] finds those.
    ///
    /// # Errors
    /// When the namespace cannot be entered, which needs CAP_SYS_ADMIN, or when the kernel refuses an iterator.
    pub fn owners(&mut self, namespace: BorrowedFd<'_>, ports: &[u16]) -> io::Result<Vec<PortOwner>> {
        self.ask_for(maps::PORTS, programs::TCP_PORT_OWNERS, ports.iter().copied())?;
        let link = self.link(programs::TCP_PORT_OWNERS)?;
        // The iterator is one of the namespace of the thread that creates it (`bpf_iter_init_seq_net`,
        // fs/proc/proc_net.c).
        let file = netns::within(namespace, || open(link, programs::TCP_PORT_OWNERS))?;
        let owners = read(file, programs::TCP_PORT_OWNERS)?;
        Ok(latest(owners, |owner: &PortOwner| owner.sk))
    }

    /// The descriptors, of all processes of this PID namespace, that lead to a TCP or MPTCP socket with one of the
    /// ports, in whatever network namespace and state it is. Threads that share a table are one process.
    ///
    /// # Errors
    /// When the kernel refuses an iterator.
    pub fn files(&mut self, ports: &[u16]) -> io::Result<Vec<PortFile>> {
        self.descriptors(ports, &HashSet::new())
    }

    /// The same, and the descriptors that lead to a TCP or MPTCP socket with one of the inodes. It takes no right to look
    /// into a process, and sees the tables of all threads (`task_file_seq_get_next`, kernel/bpf/task_iter.c): also those
    /// that a thread has alone, and those of a process whose first thread has ended.
    ///
    /// # Errors
    /// When the kernel refuses an iterator.
    pub fn descriptors(&mut self, ports: &[u16], inodes: &HashSet<u64>) -> io::Result<Vec<PortFile>> {
        const NAME: &str = programs::PORT_FILES;
        self.ask_for(maps::PORTS, NAME, ports.iter().copied())?;
        self.ask_for(maps::INODES, NAME, inodes.iter().map(|inode| *inode as u16))?;
        let link = self.link(NAME)?;
        let mut files = read(open(link, NAME)?, NAME)?;
        // The program knows the lowest bits of the inodes alone.
        files.retain(|file: &PortFile| {
            inodes.contains(&file.owner.inode) || ports.contains(&file.owner.local.port())
        });
        Ok(latest(files, |file| (file.owner.sk, file.pid, file.fd)))
    }

    /// Makes what an iterator is created from.
    fn link(&mut self, name: &'static str) -> io::Result<IterLink> {
        let iterator: &mut Iter =
            object::find(&mut self.ebpf, name).map_err(|error| refused(name, "be found", &error))?;
        iterator
            .attach()
            .and_then(|link| iterator.take_link(link))
            .map_err(|error| refused(name, "be attached", &error))
    }

    /// Tells the iterators in that map what they are asked for.
    fn ask_for(&mut self, map: &str, iterator: &str, numbers: impl Iterator<Item = u16>) -> io::Result<()> {
        let mut asked: Bitmap = [0; _];
        for number in numbers {
            asked[usize::from(number / 64)] |= 1 << (number % 64);
        }
        let bits = self
            .ebpf
            .map_mut(map)
            .ok_or_else(|| MapError::InvalidName { name: map.to_owned() });
        bits.and_then(Array::<_, Bitmap>::try_from)
            .and_then(|mut bits| bits.set(0, asked, 0))
            .map_err(|error| refused(iterator, "be told what is asked for", &error))
    }
}

/// Creates the iterator. It holds its network namespace until it is closed.
fn open(link: IterLink, name: &str) -> io::Result<File> {
    link.into_file()
        .map_err(|error| refused(name, "be created", &error))
}

/// Runs the iterator to its end.
fn read<T: Record>(mut iterator: impl Read, name: &str) -> io::Result<Vec<T>> {
    // Each read may end within a record, so the bytes are put together first.
    let mut bytes = Vec::new();
    let mut chunk = vec![0; CHUNK];
    loop {
        match iterator.read(&mut chunk) {
            Ok(0) => break,
            Ok(length) => bytes.extend_from_slice(&chunk[..length]),
            // EAGAIN: it visited a million objects and found nothing yet (MAX_ITER_OBJECTS, kernel/bpf/bpf_iter.c).
            Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock) => {}
            Err(error) => return Err(refused(name, "be read", &error)),
        }
    }
    decode::all(&bytes).map_err(|error| refused(name, "be understood", &error))
}

/// What has the same key is the same thing that was shown again, because the table changed meanwhile: the last
/// sight of it holds.
fn latest<T, K: Eq + Hash>(all: Vec<T>, key: impl Fn(&T) -> K) -> Vec<T> {
    let mut places = HashMap::new();
    let mut kept = Vec::with_capacity(all.len());
    for one in all {
        match places.entry(key(&one)) {
            Entry::Occupied(place) => kept[*place.get()] = one,
            Entry::Vacant(place) => {
                place.insert(kept.len());
                kept.push(one);
            }
        }
    }
    kept
}

/// The kernel's own words stand at the end of the chain of errors, and its number decides the kind.
fn refused(name: &str, what: &str, error: &(dyn Error + 'static)) -> io::Error {
    let mut told = format!("the BPF iterator {name} cannot {what}: {error}");
    let mut kind = ErrorKind::Other;
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(cause) = error.downcast_ref::<io::Error>() {
            kind = cause.kind();
        }
        next = error.source();
        if let Some(cause) = next {
            let _ = write!(told, ": {cause}");
        }
    }
    if kind == ErrorKind::PermissionDenied {
        told.push_str("; it needs CAP_BPF and CAP_PERFMON (sudo)");
    }
    io::Error::new(kind, told)
}
