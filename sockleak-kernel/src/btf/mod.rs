//! A reader for BTF, the kernel's description of its own types.
//!
//! It answers only what a tracer needs: where a struct member is, how many arguments a tracepoint has,
//! what an enum's values are, which id a type has. It reads a whole `vmlinux` in one pass that notes where each
//! type begins, and looks at members and functions only when it is asked. Whatever the bytes are, it neither
//! panics nor recurses without bound. The format is Documentation/bpf/btf.rst and
//! include/uapi/linux/btf.h.

mod error;
mod ids;
mod image;
mod member;
mod name;
mod raw;
#[cfg(test)]
mod tests;

use std::io;
use std::path::Path;

pub use ids::Ids;
use image::Image;
pub use member::{Member, MissingMember};
use raw::{Kind, Type};

pub use error::BtfError;

use super::user_files;

/// Where a kernel with CONFIG_DEBUG_INFO_BTF shows its BTF.
pub const RUNNING: &str = "/sys/kernel/btf/vmlinux";

/// A kernel's own has 5 to 25 MiB.
const LARGEST: u64 = 128 << 20;
/// How many typedefs and qualifiers are followed before a chain counts as a loop.
const MAX_HOPS: usize = 64;
/// What the typedef of a tracepoint begins with (include/trace/bpf_probe.h).
const TRACEPOINT: &str = "btf_trace_";

/// The types of one kernel.
#[derive(Debug)]
pub struct Btf {
    data: Image,
    /// Where the string section begins and ends in `data`.
    strings: (usize, usize),
    /// Where each type begins in `data`, by type id; id 0 is `void` and has no record.
    types: Vec<u32>,
    /// Hash of the name, above, and id of every struct, union, enum and typedef, sorted.
    names: Vec<u64>,
    /// Where the name of each function is in the string section, and its id.
    functions: Vec<(u32, u32)>,
}

impl Btf {
    /// Reads BTF from bytes, as they stand in `/sys/kernel/btf/vmlinux`.
    ///
    /// # Errors
    ///
    /// When the bytes are not BTF of this machine's byte order, or end too early.
    pub fn parse(bytes: &[u8]) -> Result<Self, BtfError> {
        Self::from_image(Image::Copy(bytes.to_vec()))
    }

    /// Reads the BTF of the running kernel.
    ///
    /// # Errors
    ///
    /// When the kernel has none (CONFIG_DEBUG_INFO_BTF is off) or it cannot be read.
    pub fn running() -> Result<Self, BtfError> {
        let path = Path::new(RUNNING);
        Self::from_image(Image::of_kernel(path).map_err(|source| unreadable(path, source))?)
    }

    /// Reads a file of raw BTF that the user names, such as a copy of another kernel's `/sys/kernel/btf/vmlinux`.
    ///
    /// # Errors
    ///
    /// As [`Btf::parse`], or when the file cannot be read or is larger than any kernel's BTF.
    pub fn open(path: &Path) -> Result<Self, BtfError> {
        let bytes = user_files::read(path, LARGEST).map_err(|source| unreadable(path, source))?;
        Self::from_image(Image::Copy(bytes))
    }

    fn from_image(data: Image) -> Result<Self, BtfError> {
        let sections = raw::sections(&data)?;
        let strings = &data[sections.strings.0..sections.strings.1];
        let (mut names, mut functions) = (Vec::new(), Vec::new());
        let types = raw::index(&data, sections.types, |id, found| match found.kind {
            Kind::Struct | Kind::Union | Kind::Enum | Kind::Enum64 | Kind::Typedef => {
                let hash = name::hash_at(strings, found.name);
                names.extend(hash.map(|hash| u64::from(hash) << 32 | u64::from(id)));
            }
            Kind::Func => functions.push((found.name, id)),
            _ => {}
        })?;
        names.sort_unstable();
        Ok(Self {
            data,
            strings: sections.strings,
            types,
            names,
            functions,
        })
    }

    /// The size of a struct or union in bytes, or `None` if there is none of that name.
    #[must_use]
    pub fn size_of_struct(&self, name: &str) -> Option<u32> {
        self.aggregate(name).map(|(_, found)| found.size_or_type)
    }

    /// The type id of a struct or union, or `None` if there is none of that name.
    #[must_use]
    pub fn id_of_struct(&self, name: &str) -> Option<u32> {
        self.aggregate(name).map(|(id, _)| id)
    }

    /// How many arguments the tracepoint gives its programs, or `None` if the kernel has no such tracepoint.
    ///
    /// Each tracepoint has a typedef [`TRACEPOINT`]`NAME` of a pointer to its probe's prototype, whose first
    /// parameter is the probe's own data (include/trace/bpf_probe.h).
    #[must_use]
    pub fn tracepoint_args(&self, name: &str) -> Option<usize> {
        let (_, found) = self.tracepoint_typedef(name)?;
        let pointer = self.resolve(found.size_or_type)?;
        let prototype = self.resolve(pointer.size_or_type)?;
        if pointer.kind != Kind::Ptr || prototype.kind != Kind::FuncProto {
            return None;
        }
        (prototype.vlen as usize).checked_sub(1)
    }

    /// The type id of each of these functions, or `None` if there is none of that name. Unlike the other questions
    /// this one looks at every name, so it is asked once for all.
    #[must_use]
    pub fn functions<const N: usize>(&self, names: [&str; N]) -> [Option<u32>; N] {
        let mut ids = [None; N];
        let strings = &self.data[self.strings.0..self.strings.1];
        // Of tens of thousands of names nearly all begin with other letters, so no end is looked for.
        let first = |name: &[u8]| name.first().map_or(0, |letter| 1_u128 << (letter & 127));
        let firsts = names
            .iter()
            .fold(0, |firsts, name| firsts | first(name.as_bytes()));
        for (offset, id) in &self.functions {
            let tail = strings.get(*offset as usize..).unwrap_or_default();
            if first(tail) & firsts == 0 {
                continue;
            }
            for (id_of, name) in ids.iter_mut().zip(names) {
                if tail.starts_with(name.as_bytes()) && tail.get(name.len()) == Some(&0) {
                    id_of.get_or_insert(*id);
                }
            }
        }
        ids
    }

    /// The type id of a tracepoint's typedef, which a program names to be loaded for it.
    #[must_use]
    pub fn tracepoint(&self, name: &str) -> Option<u32> {
        self.tracepoint_typedef(name).map(|(id, _)| id)
    }

    /// The names and values of an enum, in its order; empty if there is none of that name.
    #[must_use]
    pub fn enum_values(&self, name: &str) -> Vec<(String, i64)> {
        let Some((_, found)) = self
            .named(name)
            .find(|(_, found)| matches!(found.kind, Kind::Enum | Kind::Enum64))
        else {
            return Vec::new();
        };
        (0..found.vlen)
            .filter_map(|index| {
                let (name, value) = found.enumerator(&self.data, index)?;
                Some((String::from_utf8_lossy(self.name(name)?).into_owned(), value))
            })
            .collect()
    }

    fn aggregate(&self, name: &str) -> Option<(u32, Type)> {
        self.named(name).find(|(_, found)| found.kind.is_aggregate())
    }

    fn tracepoint_typedef(&self, name: &str) -> Option<(u32, Type)> {
        self.named(&format!("{TRACEPOINT}{name}"))
            .find(|(_, found)| found.kind == Kind::Typedef)
    }

    /// The record of a type; `None` for `void` and for ids beyond the end.
    fn type_of(&self, id: u32) -> Option<Type> {
        let start = *self.types.get(id as usize).filter(|_| id != 0)?;
        Type::read(&self.data, start as usize)
    }

    /// What a type is behind its typedefs, qualifiers and tags; `None` for `void`.
    fn resolve(&self, mut id: u32) -> Option<Type> {
        for _ in 0..MAX_HOPS {
            let found = self.type_of(id)?;
            if !found.kind.is_transparent() {
                return Some(found);
            }
            id = found.size_or_type;
        }
        None
    }

    /// The structs, unions, enums and typedefs of that name, by ascending id.
    fn named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = (u32, Type)> + 'a {
        let wanted = name::hash(name.as_bytes());
        let hash = |name: &u64| (*name >> 32) as u32;
        let first = self.names.partition_point(|name| hash(name) < wanted);
        self.names[first..]
            .iter()
            .take_while(move |name| hash(name) == wanted)
            .map(|name| *name as u32)
            .filter_map(|id| Some((id, self.type_of(id)?)))
            .filter(move |(_, found)| self.name(found.name) == Some(name.as_bytes()))
    }

    /// The string at an offset of the string section, without its NUL.
    fn name(&self, offset: u32) -> Option<&[u8]> {
        name::string(self.data.get(self.strings.0..self.strings.1)?, offset)
    }
}

fn unreadable(path: &Path, source: io::Error) -> BtfError {
    BtfError::Read {
        path: path.display().to_string(),
        source,
    }
}
