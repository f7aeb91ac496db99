//! What programs must know of the running kernel, looked up in its description of its types.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::path::Path;

use super::btf::{Btf, ReadAt, Type, Wanted};

/// Description of the running kernel.
pub(super) const KERNEL: &str = "/sys/kernel/btf/vmlinux";

/// A structure and one of its members, which may be a member of a member: `se.sum_exec_runtime`.
pub(super) type Member = (&'static str, &'static str);

/// Why something is not known.
#[derive(Debug, thiserror::Error)]
pub(super) enum TypeError {
    /// No description, or one that cannot be read.
    #[error("it needs the kernel's description of its types in {KERNEL} (CONFIG_DEBUG_INFO_BTF): {0}")]
    Description(#[from] io::Error),
    /// Something is called differently.
    #[error("this kernel has no {0}: it is newer or older than the agent knows, or made without it")]
    Missing(String),
}

/// A description of which types are known by name.
#[derive(Debug)]
pub(super) struct Description<R = File> {
    btf: Btf<R>,
    names: HashMap<&'static str, u32>,
    types: HashMap<(Wanted, &'static str), Type>,
}

impl Description {
    /// The running kernel's.
    pub(super) fn of_this_kernel(
        members: &[Member],
        others: &[(Wanted, &'static str)],
    ) -> Result<Self, TypeError> {
        Self::read(File::open(Path::new(KERNEL))?, members, others)
    }
}

impl<R: ReadAt> Description<R> {
    /// Goes through it once, for these structures and their `members`, and for `others`.
    pub(super) fn read(
        source: R,
        members: &[Member],
        others: &[(Wanted, &'static str)],
    ) -> Result<Self, TypeError> {
        let mut btf = Btf::open(source)?;
        let mut wanted: Vec<_> =
            members.iter().map(|(of, _)| (Wanted::Struct, *of)).chain(others.iter().copied()).collect();
        wanted.sort_unstable();
        wanted.dedup();
        let names = wanted.iter().map(|(_, name)| *name);
        let mut names: Vec<_> = names.chain(members.iter().flat_map(|(_, path)| path.split('.'))).collect();
        names.sort_unstable();
        names.dedup();
        let found = btf.strings(&names)?;
        let names: HashMap<_, _> =
            names.into_iter().zip(found).filter_map(|(name, number)| Some((name, number?))).collect();
        let numbers: Vec<_> = wanted.iter().map(|(kind, name)| (*kind, names.get(name).copied())).collect();
        let found = btf.find(&numbers)?;
        let types = wanted.into_iter().zip(found).filter_map(|(name, found)| Some((name, found?))).collect();
        Ok(Self { btf, names, types })
    }

    fn of(&self, kind: Wanted, name: &'static str) -> Result<Type, TypeError> {
        self.types.get(&(kind, name)).copied().ok_or_else(|| TypeError::Missing(name.to_owned()))
    }

    /// Bytes from the start of the structure to the member.
    pub(super) fn offset(&mut self, (of, path): Member) -> Result<u32, TypeError> {
        let missing = || TypeError::Missing(format!("{of}.{path}"));
        let structure = self.of(Wanted::Struct, of)?;
        let names: Option<Vec<_>> = path.split('.').map(|name| self.names.get(name).copied()).collect();
        self.btf.path(&structure, &names.ok_or_else(missing)?)?.ok_or_else(missing)
    }

    /// Bytes of a structure.
    pub(super) fn bytes(&self, of: &'static str) -> Result<u32, TypeError> {
        Ok(self.of(Wanted::Struct, of)?.bytes())
    }

    /// Names and values of an enumeration; names longer than `longest` are left out.
    pub(super) fn values(
        &mut self,
        of: &'static str,
        longest: usize,
    ) -> Result<Vec<(String, u32)>, TypeError> {
        let found = self.of(Wanted::Enum, of)?;
        Ok(self.btf.values(&found, longest)?)
    }

    /// One value of an enumeration.
    pub(super) fn value(&mut self, of: &'static str, name: &str) -> Result<u32, TypeError> {
        let values = self.values(of, name.len())?;
        let found = values.into_iter().find(|(found, _)| found == name);
        found.map(|(_, value)| value).ok_or_else(|| TypeError::Missing(name.to_owned()))
    }

    /// How many arguments the tracepoint gets whose typedef this is.
    pub(super) fn arguments(&mut self, of: &'static str) -> Result<Option<u32>, TypeError> {
        let found = self.of(Wanted::Typedef, of)?;
        // The first parameter is not the tracepoint's but its handler's.
        Ok(self.btf.parameters(&found)?.and_then(|count| count.checked_sub(1)))
    }
}

/// Whether this kernel has none, which is said aloud; then tests have nothing to look at.
#[cfg(test)]
pub(super) fn is_absent() -> bool {
    let is_absent = !Path::new(KERNEL).exists();
    if is_absent {
        eprintln!("skipped: needs a kernel that describes its types");
    }
    is_absent
}
