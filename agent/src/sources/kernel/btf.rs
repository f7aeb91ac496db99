//! Reads a kernel's description of its types (BTF, Documentation/bpf/btf.rst) piece by piece.
//!
//! The file has 5 MB, of which a few hundred bytes are wanted: nothing is kept but a place every few hundred types.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

const MAGIC: u16 = 0xeb9f;
/// `struct btf_header`.
const HEADER_BYTES: usize = 24;
/// `struct btf_type` without what follows it.
const TYPE_BYTES: usize = 12;
/// `struct btf_member`, `struct btf_param` and `struct btf_enum`.
const MEMBER_BYTES: u64 = 12;
const ENUM_BYTES: u64 = 8;
/// Bytes read at a time; nothing that is read at once is longer.
const CHUNK: usize = 64 * 1024;
/// Bytes read where only something small is wanted.
const PAGE: usize = 4 * 1024;
/// Types between two remembered places.
const STRIDE: u32 = 512;
/// Anonymous structures within each other, typedefs of typedefs.
const MAX_DEPTH: u32 = 16;

/// `BTF_KIND_*`.
mod kind {
    pub(super) const POINTER: u32 = 2;
    pub(super) const STRUCT: u32 = 4;
    pub(super) const UNION: u32 = 5;
    pub(super) const ENUM: u32 = 6;
    pub(super) const TYPEDEF: u32 = 8;
    pub(super) const PROTOTYPE: u32 = 13;
}

/// Bytes at an offset.
pub(super) trait ReadAt {
    /// As many as there are, but not more than fit.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
}

impl ReadAt for File {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        FileExt::read_at(self, buffer, offset)
    }
}

/// A type, and where what follows it begins.
#[derive(Clone, Copy, Debug)]
pub(super) struct Type {
    name: u32,
    kind: u32,
    count: u32,
    /// Offsets of members are packed with their sizes (bit fields).
    packed: bool,
    /// Size in bytes, or number of the type that it refers to.
    other: u32,
    at: u64,
}

impl Type {
    /// Size of a structure.
    pub(super) const fn bytes(&self) -> u32 {
        self.other
    }
}

/// A description that is being read.
#[derive(Debug)]
pub(super) struct Btf<R> {
    source: R,
    buffer: Vec<u8>,
    /// Offset and number of the bytes in the buffer.
    held: (u64, usize),
    types: std::ops::Range<u64>,
    strings: std::ops::Range<u64>,
    /// Offsets of the types 1, 1 + [`STRIDE`], ….
    places: Vec<u64>,
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("malformed BTF: {what}"))
}

impl<R: ReadAt> Btf<R> {
    /// Reads the header.
    pub(super) fn open(source: R) -> io::Result<Self> {
        let mut btf = Self {
            source,
            buffer: vec![0; CHUNK],
            held: (0, 0),
            types: 0..0,
            strings: 0..0,
            places: Vec::new(),
        };
        let header: [u8; HEADER_BYTES] = btf.array(0)?;
        if u16::from_ne_bytes([header[0], header[1]]) != MAGIC {
            return Err(malformed("another magic number, or another byte order"));
        }
        let word = |at: usize| u64::from(word(&header, at));
        let start = word(4);
        let section = |offset: u64, length: u64| start + offset..start + offset + length;
        btf.types = section(word(8), word(12));
        btf.strings = section(word(16), word(20));
        Ok(btf)
    }

    /// `length` bytes at `offset`.
    fn bytes(&mut self, offset: u64, length: usize) -> io::Result<&[u8]> {
        let (start, held) = self.held;
        let within = offset.checked_sub(start).map(|skip| skip as usize);
        let skip = match within {
            Some(skip) if skip.saturating_add(length) <= held => skip,
            _ => {
                // Who goes on will want more and more, who jumps will not.
                let goes_on = within.is_some_and(|skip| skip <= held);
                let most = if goes_on { held.saturating_mul(2) } else { PAGE };
                self.fill(offset, most.max(length))?;
                0
            }
        };
        if skip + length > self.held.1 {
            return Err(malformed("it ends too early"));
        }
        Ok(&self.buffer[skip..skip + length])
    }

    /// Reads up to so many bytes; the kernel gives a page at a time.
    fn fill(&mut self, offset: u64, most: usize) -> io::Result<()> {
        self.held = (offset, 0);
        let most = most.min(self.buffer.len());
        while self.held.1 < most {
            let held = self.held.1;
            match self.source.read_at(&mut self.buffer[held..most], offset + held as u64) {
                Ok(0) => break,
                Ok(count) => self.held.1 += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn array<const N: usize>(&mut self, offset: u64) -> io::Result<[u8; N]> {
        self.bytes(offset, N)?.first_chunk().copied().ok_or_else(|| malformed("it ends too early"))
    }

    /// Numbers of `names` in the table of strings, where each string is once; `None` for one that is not there.
    pub(super) fn strings(&mut self, names: &[&str]) -> io::Result<Vec<Option<u32>>> {
        let mut found = vec![None; names.len()];
        // Few names have the length of a string that is looked at.
        let longest = names.iter().map(|name| name.len()).max().unwrap_or(0);
        let mut by_length = vec![Vec::new(); longest + 1];
        for (place, name) in names.iter().enumerate() {
            by_length[name.len()].push((place, name.as_bytes()));
        }
        let mut at = self.strings.start;
        while at < self.strings.end {
            let (start, end) = (self.strings.start, self.strings.end);
            let length = ((end - at) as usize).min(CHUNK);
            let chunk = self.bytes(at, length)?;
            let Some(last) = chunk.iter().rposition(|byte| *byte == 0) else {
                return Err(malformed("a string without an end"));
            };
            let mut number = (at - start) as u32;
            for string in chunk[..last].split(|byte| *byte == 0) {
                let candidates = by_length.get(string.len()).map_or(&[][..], Vec::as_slice);
                if let Some((place, _)) = candidates.iter().find(|(_, name)| *name == string) {
                    found[*place].get_or_insert(number);
                }
                number += string.len() as u32 + 1;
            }
            at += last as u64 + 1;
        }
        Ok(found)
    }

    /// A string by its number, if it is not longer than `longest`.
    fn string(&mut self, number: u32, longest: usize) -> io::Result<Option<String>> {
        let at = self.strings.start + u64::from(number);
        let length = (self.strings.end.saturating_sub(at) as usize).min(longest + 1);
        let bytes = self.bytes(at, length)?;
        let end = bytes.iter().position(|byte| *byte == 0);
        Ok(end.and_then(|end| std::str::from_utf8(&bytes[..end]).ok()).map(str::to_owned))
    }

    /// Looks through all types for the first of each kind and name, and remembers places on the way.
    pub(super) fn find(&mut self, wanted: &[(Wanted, Option<u32>)]) -> io::Result<Vec<Option<Type>>> {
        let mut found = vec![None; wanted.len()];
        let mut by_name: Vec<_> =
            (0..).zip(wanted).filter_map(|(place, (_, name))| Some(((*name)?, place))).collect();
        by_name.sort_unstable();
        self.places.clear();
        let (mut at, mut number) = (self.types.start, 1);
        while at < self.types.end {
            if number % STRIDE == 1 {
                self.places.push(at);
            }
            let (found_type, next) = self.type_at(at)?;
            let first = by_name.partition_point(|(name, _)| *name < found_type.name);
            for (_, place) in by_name[first..].iter().take_while(|(name, _)| *name == found_type.name) {
                let place: usize = *place;
                if found[place].is_none() && wanted[place].0.kind() == found_type.kind {
                    found[place] = Some(found_type);
                }
            }
            (at, number) = (next, number + 1);
        }
        Ok(found)
    }

    /// A type, and where the next one begins.
    fn type_at(&mut self, at: u64) -> io::Result<(Type, u64)> {
        let header: [u8; TYPE_BYTES] = self.array(at)?;
        let info = word(&header, 4);
        let (kind, count) = (info >> 24 & 0x1f, info & 0xffff);
        let at = at + TYPE_BYTES as u64;
        let found = Type {
            name: word(&header, 0),
            kind,
            count,
            packed: info >> 31 != 0,
            other: word(&header, 8),
            at,
        };
        let count = u64::from(count);
        let follows = match kind {
            // INT, VAR, DECL_TAG: one word.
            1 | 14 | 17 => 4,
            // ARRAY.
            3 => 12,
            // STRUCT, UNION, DATASEC, ENUM64.
            kind::STRUCT | kind::UNION | 15 | 19 => MEMBER_BYTES * count,
            kind::ENUM | kind::PROTOTYPE => ENUM_BYTES * count,
            // PTR, FWD, TYPEDEF, VOLATILE, CONST, RESTRICT, FUNC, FLOAT, TYPE_TAG.
            2 | 7..=12 | 16 | 18 => 0,
            _ => return Err(malformed("a type of unknown kind")),
        };
        Ok((found, at + follows))
    }

    /// A type by its number; only after [`Self::find`].
    fn number(&mut self, number: u32) -> io::Result<Type> {
        let unknown = || malformed("a type that is not there");
        let index = number.checked_sub(1).ok_or_else(unknown)?;
        let mut at = *self.places.get((index / STRIDE) as usize).ok_or_else(unknown)?;
        for _ in 0..index % STRIDE {
            at = self.type_at(at)?.1;
        }
        if at >= self.types.end {
            return Err(unknown());
        }
        Ok(self.type_at(at)?.0)
    }

    /// Follows typedefs and qualifiers.
    fn resolve(&mut self, number: u32) -> io::Result<Option<Type>> {
        let mut number = number;
        for _ in 0..MAX_DEPTH {
            if number == 0 {
                return Ok(None);
            }
            let found = self.number(number)?;
            match found.kind {
                kind::TYPEDEF | 9..=11 | 18 => number = found.other,
                _ => return Ok(Some(found)),
            }
        }
        Ok(None)
    }

    /// Offset in bytes of a member of a member of …, each of which may be within anonymous structures and unions.
    pub(super) fn path(&mut self, of: &Type, names: &[u32]) -> io::Result<Option<u32>> {
        let (mut within, mut offset) = (Some(*of), 0u32);
        for name in names {
            let Some(of) = within else { return Ok(None) };
            let Some((member, number)) = self.member(&of, *name, MAX_DEPTH)? else { return Ok(None) };
            offset = offset.saturating_add(member);
            within = self.resolve(number)?;
        }
        Ok(Some(offset))
    }

    /// Offset of a member, and the number of its type.
    fn member(&mut self, of: &Type, name: u32, depth: u32) -> io::Result<Option<(u32, u32)>> {
        if !matches!(of.kind, kind::STRUCT | kind::UNION) {
            return Ok(None);
        }
        for index in 0..u64::from(of.count) {
            let member: [u8; MEMBER_BYTES as usize] = self.array(of.at + index * MEMBER_BYTES)?;
            let bits = if of.packed { word(&member, 8) & 0xff_ffff } else { word(&member, 8) };
            let (found, number) = (word(&member, 0), word(&member, 4));
            if found == name {
                return Ok((bits % 8 == 0).then_some((bits / 8, number)));
            }
            if found != 0 || depth == 0 {
                continue;
            }
            if let Some(inner) = self.resolve(number)?
                && let Some((offset, number)) = self.member(&inner, name, depth - 1)?
            {
                return Ok((bits / 8).checked_add(offset).map(|offset| (offset, number)));
            }
        }
        Ok(None)
    }

    /// Names and values of an enumeration; names longer than `longest` are left out.
    pub(super) fn values(&mut self, of: &Type, longest: usize) -> io::Result<Vec<(String, u32)>> {
        let mut values = Vec::new();
        for index in 0..u64::from(of.count) {
            let value: [u8; ENUM_BYTES as usize] = self.array(of.at + index * ENUM_BYTES)?;
            values.push((word(&value, 0), word(&value, 4)));
        }
        // Names apart, as each would make the buffer move.
        let mut named = Vec::with_capacity(values.len());
        for (name, value) in values {
            named.extend(self.string(name, longest)?.map(|name| (name, value)));
        }
        Ok(named)
    }

    /// Parameters of the function that a typedef's pointer leads to.
    pub(super) fn parameters(&mut self, of: &Type) -> io::Result<Option<u32>> {
        let Some(pointer) = self.resolve(of.other)? else { return Ok(None) };
        if pointer.kind != kind::POINTER {
            return Ok(None);
        }
        let function = self.resolve(pointer.other)?;
        Ok(function.filter(|function| function.kind == kind::PROTOTYPE).map(|function| function.count))
    }
}

/// What a type that is looked for is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Wanted {
    Struct,
    Enum,
    Typedef,
}

impl Wanted {
    const fn kind(self) -> u32 {
        match self {
            Self::Struct => kind::STRUCT,
            Self::Enum => kind::ENUM,
            Self::Typedef => kind::TYPEDEF,
        }
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |word| u32::from_ne_bytes(*word))
}

#[cfg(test)]
#[path = "btf_tests.rs"]
mod tests;
