//! What tracer, the opener and the reader send each other: one message a packet, little
//! endian. Decoding is total: any bytes give a message or `None`.

use std::ops::Range;

use bytes::Bytes;
use tracer_common::tcp::OPENING_STACK;

use super::{FRAMES, NAME_BYTES};
use crate::decode::opening::UserStack;

/// Mappings that go to the reader.
pub(super) const MAPPINGS: usize = 256;
/// Files that go to the reader, the perf map not counted.
pub(super) const FILES: usize = 32;
/// Bytes of a file's name, without its folders.
pub(super) const FILE_NAME: usize = 128;
/// Words of a stack that unwinding may ask for, for it to be known again.
pub(super) const WORDS: usize = 256;
/// The largest packet, in bytes.
pub(super) const PACKET: usize = 80 << 10;

/// tracer to the opener: name this stack.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Request {
    /// Comes back with the answer.
    pub(super) sequence: u64,
    pub(super) pid: u32,
    pub(super) stack: UserStack,
}

/// The opener to the reader, with the descriptors of the files, then that of the perf map.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Work {
    pub(super) sequence: u64,
    /// The process has gone.
    pub(super) is_gone: bool,
    /// Something was not opened: no regular file, not its own, too large, too many.
    pub(super) is_partial: bool,
    pub(super) has_perf_map: bool,
    pub(super) stack: UserStack,
    pub(super) files: Vec<FileKey>,
    pub(super) mappings: Vec<Mapping>,
}

/// A file in a certain state, by fstat(2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct FileKey {
    pub(super) device: u64,
    pub(super) inode: u64,
    pub(super) size: u64,
    /// When it was changed last, in s and ns.
    pub(super) changed: (u64, u64),
}

/// Code in the process's memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Mapping {
    pub(super) range: Range<u64>,
    /// Of its begin, in the file.
    pub(super) offset: u64,
    /// Which of the files, where it is of one that was opened.
    pub(super) file: Option<u8>,
    /// Name of the file, without its folders.
    pub(super) name: Vec<u8>,
}

/// The reader to tracer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) sequence: u64,
    pub(super) is_gone: bool,
    pub(super) is_partial: bool,
    /// Names of functions, innermost first.
    pub(super) names: Vec<Vec<u8>>,
    /// Where in the stack the return addresses stand: another one that has the same there,
    /// and begins at the same place, has the same functions. `None`: too much was read.
    pub(super) words: Option<Vec<u16>>,
}

impl Request {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend(self.sequence.to_le_bytes());
        out.extend(self.pid.to_le_bytes());
        put_stack(&mut out, &self.stack);
        out
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut take = Take(bytes);
        let request = Self {
            sequence: take.u64()?,
            pid: take.u32()?,
            stack: take.stack()?,
        };
        take.end(request)
    }
}

impl Work {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend(self.sequence.to_le_bytes());
        out.extend([self.is_gone, self.is_partial, self.has_perf_map].map(u8::from));
        put_stack(&mut out, &self.stack);
        out.extend((self.files.len() as u16).to_le_bytes());
        for file in &self.files {
            let (seconds, nanoseconds) = file.changed;
            for word in [file.device, file.inode, file.size, seconds, nanoseconds] {
                out.extend(word.to_le_bytes());
            }
        }
        out.extend((self.mappings.len() as u16).to_le_bytes());
        for mapping in &self.mappings {
            for word in [mapping.range.start, mapping.range.end, mapping.offset] {
                out.extend(word.to_le_bytes());
            }
            out.push(mapping.file.unwrap_or(u8::MAX));
            put_bytes(&mut out, &mapping.name);
        }
        out
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut take = Take(bytes);
        let mut work = Self {
            sequence: take.u64()?,
            is_gone: take.flag()?,
            is_partial: take.flag()?,
            has_perf_map: take.flag()?,
            stack: take.stack()?,
            ..Self::default()
        };
        for _ in 0..take.count(FILES)? {
            work.files.push(FileKey {
                device: take.u64()?,
                inode: take.u64()?,
                size: take.u64()?,
                changed: (take.u64()?, take.u64()?),
            });
        }
        for _ in 0..take.count(MAPPINGS)? {
            work.mappings.push(Mapping {
                range: take.u64()?..take.u64()?,
                offset: take.u64()?,
                file: Some(take.u8()?).filter(|file| usize::from(*file) < work.files.len()),
                name: take.bytes(FILE_NAME)?.to_vec(),
            });
        }
        take.end(work)
    }
}

impl Answer {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend(self.sequence.to_le_bytes());
        out.extend([self.is_gone, self.is_partial].map(u8::from));
        out.extend((self.names.len() as u16).to_le_bytes());
        self.names.iter().for_each(|name| put_bytes(&mut out, name));
        out.push(self.words.is_some().into());
        if let Some(words) = &self.words {
            out.extend((words.len() as u16).to_le_bytes());
            out.extend(words.iter().flat_map(|word| word.to_le_bytes()));
        }
        out
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut take = Take(bytes);
        let mut answer = Self {
            sequence: take.u64()?,
            is_gone: take.flag()?,
            is_partial: take.flag()?,
            names: Vec::new(),
            words: None,
        };
        for _ in 0..take.count(FRAMES)? {
            answer.names.push(take.bytes(NAME_BYTES)?.to_vec());
        }
        if take.flag()? {
            let count = take.count(WORDS)?;
            let words = (0..count)
                .map(|_| take.u16())
                .collect::<Option<Vec<u16>>>()?;
            answer.words = Some(words);
        }
        take.end(answer)
    }
}

fn put_stack(out: &mut Vec<u8>, stack: &UserStack) {
    for word in [stack.pc, stack.sp, stack.fp] {
        out.extend(word.to_le_bytes());
    }
    put_bytes(out, &stack.bytes);
}

/// Bytes with their length before them.
fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend((bytes.len() as u16).to_le_bytes());
    out.extend(bytes);
}

/// What is left of a packet.
struct Take<'a>(&'a [u8]);

impl<'a> Take<'a> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (array, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*array)
    }

    fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_le_bytes)
    }

    fn flag(&mut self) -> Option<bool> {
        match self.u8()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// A number of things, of which there may be so many.
    fn count(&mut self, most: usize) -> Option<usize> {
        let count = usize::from(self.u16()?);
        (count <= most).then_some(count)
    }

    fn bytes(&mut self, most: usize) -> Option<&'a [u8]> {
        let length = self.count(most)?;
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(bytes)
    }

    fn stack(&mut self) -> Option<UserStack> {
        Some(UserStack {
            pc: self.u64()?,
            sp: self.u64()?,
            fp: self.u64()?,
            bytes: Bytes::copy_from_slice(self.bytes(OPENING_STACK)?),
        })
    }

    /// The message, if nothing is left.
    fn end<T>(self, message: T) -> Option<T> {
        self.0.is_empty().then_some(message)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::{any, prop, proptest};

    use super::{Answer, FileKey, Mapping, PACKET, Request, Work};
    use crate::decode::opening::UserStack;

    fn stack(bytes: Vec<u8>) -> UserStack {
        UserStack {
            pc: 1,
            sp: 2,
            fp: 3,
            bytes: Bytes::from(bytes),
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_message_or_none(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            // A message that is understood is the one that its bytes say.
            if let Some(answer) = Answer::decode(&bytes) {
                assert_eq!(answer.encode(), bytes);
            }
            if let Some(request) = Request::decode(&bytes) {
                assert_eq!(request.encode(), bytes);
            }
            let _ = Work::decode(&bytes);
        }

        #[test]
        fn messages_come_as_they_were_sent(
            sequence in any::<u64>(),
            words_read in any::<bool>(),
            words in prop::collection::vec(any::<u8>(), 0..8192),
            names in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..256), 0..32),
            places in prop::collection::vec((any::<u64>(), any::<u64>(), 0..4_u8), 0..256),
        ) {
            let request = Request { sequence, pid: 7, stack: stack(words.clone()) };
            assert_eq!(Request::decode(&request.encode()), Some(request));
            let mappings = places.into_iter().map(|(start, end, file)| Mapping {
                range: start..end,
                offset: start / 2,
                file: Some(file).filter(|file| *file < 3),
                name: b"libc.so".to_vec(),
            });
            let work = Work {
                sequence,
                is_partial: true,
                files: vec![FileKey { inode: 5, ..FileKey::default() }; 3],
                mappings: mappings.collect(),
                stack: stack(words),
                ..Work::default()
            };
            assert!(work.encode().len() <= PACKET);
            assert_eq!(Work::decode(&work.encode()), Some(work));
            let words = words_read.then(|| vec![1, 8000]);
            let answer = Answer { sequence, is_gone: false, is_partial: true, names, words };
            assert_eq!(Answer::decode(&answer.encode()), Some(answer));
        }
    }

    #[test]
    fn more_than_is_allowed_is_no_message() {
        let long = Answer {
            names: vec![vec![b'x'; 257]],
            ..Answer::default()
        };
        assert_eq!(Answer::decode(&long.encode()), None);
        let many = Answer {
            names: vec![Vec::new(); 33],
            ..Answer::default()
        };
        assert_eq!(Answer::decode(&many.encode()), None);
        let asked = Answer {
            words: Some(vec![0; 257]),
            ..Answer::default()
        };
        assert_eq!(Answer::decode(&asked.encode()), None);
        let mut more = Answer::default().encode();
        more.push(0);
        assert_eq!(Answer::decode(&more), None);
    }
}
