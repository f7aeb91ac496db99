//! Ways in which a file can be wrong.

use std::path::PathBuf;

use crate::tree::Tree;

/// SplitMix64 (Steele, Lea, Flood 2014): the same cases for the same seed, everywhere.
pub(crate) struct Random(u64);

impl Random {
    /// Of one case.
    pub(crate) fn new(seed: u64, case: u64) -> Self {
        let mut cases = Self(case);
        Self(seed ^ cases.next())
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Less than `limit`; 0 for 0.
    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }

    /// Once in `times`.
    pub(crate) fn chance(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}

/// What stands in a file's place.
#[derive(Clone)]
pub(crate) enum What {
    /// These bytes.
    Content(Vec<u8>),
    /// Nothing.
    Missing,
    /// A directory.
    Directory,
    /// A FIFO that nobody writes to.
    Pipe,
    /// /dev/zero.
    Endless,
    /// A symbolic link to itself.
    Circle,
}

impl What {
    /// All that are no files.
    pub(crate) const KINDS: [Self; 5] =
        [Self::Missing, Self::Directory, Self::Pipe, Self::Endless, Self::Circle];
}

impl std::fmt::Debug for What {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Content(content) => {
                let text = String::from_utf8_lossy(&content[..content.len().min(1000)]);
                write!(formatter, "{} bytes, {text:?}", content.len())
            }
            Self::Missing => formatter.write_str("missing"),
            Self::Directory => formatter.write_str("a directory"),
            Self::Pipe => formatter.write_str("a FIFO"),
            Self::Endless => formatter.write_str("/dev/zero"),
            Self::Circle => formatter.write_str("a link to itself"),
        }
    }
}

/// One spoilt file.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    pub(crate) file: PathBuf,
    pub(crate) what: What,
}

impl Change {
    /// One to eight files, each once: most collectors read files of their own.
    pub(crate) fn some(random: &mut Random, tree: &Tree) -> Vec<Self> {
        let files: Vec<_> = tree.files().collect();
        let mut changes: Vec<Self> = Vec::new();
        for _ in 0..=random.below(8) {
            let file = *random.pick(&files);
            if changes.iter().all(|change| change.file != *file) {
                let mut content = tree.content(file).to_vec();
                for _ in 0..=random.below(2) {
                    spoil(random, &mut content);
                }
                changes.push(Self { file: file.clone(), what: What::Content(content) });
            }
        }
        changes
    }
}

/// Numbers that parsers stumble over.
const NUMBERS: [&str; 14] = [
    "18446744073709551615",
    "18446744073709551616",
    "9223372036854775808",
    "99999999999999999999999999999999999999999",
    "4294967296",
    "-1",
    "0",
    "+5",
    "1e308",
    "nan",
    "inf",
    "0x10",
    "",
    "\u{ff11}",
];

fn spoil(random: &mut Random, content: &mut Vec<u8>) {
    let lines = |content: &[u8]| {
        content.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect::<Vec<_>>()
    };
    match random.below(13) {
        0 => content.truncate(random.below(content.len())),
        1 => {
            for _ in 0..=random.below(8) {
                let place = random.below(content.len());
                if let Some(byte) = content.get_mut(place) {
                    *byte ^= 1 << random.below(8);
                }
            }
        }
        2 | 3 => {
            let mut all = lines(content);
            let line = all.get(random.below(all.len())).cloned().unwrap_or_default();
            all.insert(random.below(all.len() + 1), line);
            *content = all.concat();
        }
        4 => {
            let mut all = lines(content);
            let (one, other) = (random.below(all.len()), random.below(all.len()));
            if !all.is_empty() {
                all.swap(one, other);
                all.remove(random.below(all.len()));
            }
            *content = all.concat();
        }
        5 | 6 => number(random, content),
        7 => insert(random, content, &[0; 3]),
        8 => insert(random, content, &[0xff, 0xfe, 0xc3, 0x28]),
        9 => content.clear(),
        10 => *content = content.repeat(1 + random.below(5)),
        11 => {
            let byte = *random.pick(b"a9 \n:-");
            let many = vec![byte; random.below(20_000)];
            insert(random, content, &many);
        }
        _ => *content = (0..random.below(300)).map(|_| random.next() as u8).collect(),
    }
}

fn insert(random: &mut Random, content: &mut Vec<u8>, what: &[u8]) {
    let place = random.below(content.len() + 1);
    content.splice(place..place, what.iter().copied());
}

/// Puts another number in place of one.
fn number(random: &mut Random, content: &mut Vec<u8>) {
    let from = random.below(content.len());
    let Some(start) = content[from..].iter().position(u8::is_ascii_digit).map(|place| from + place) else {
        return;
    };
    let length = content[start..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    content.splice(start..start + length, random.pick(&NUMBERS).bytes());
}
