//! Hostile messages of any type, from its descriptor alone.

use std::collections::HashMap;

use bytes::Bytes;
use prost::Message as _;
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, Value};
use rand::{
    Rng as _, RngExt as _,
    rngs::StdRng,
    seq::{IndexedMutRandom as _, IndexedRandom as _, SliceRandom as _},
};

use super::lexicon::Lexicon;

/// How deep messages nest here; what is deeper comes from [`Author::spoil`], by the byte.
const MAX_DEPTH: usize = 6;

/// Texts that have broken programs before.
const TEXTS: [&str; 14] = [
    "",
    " ",
    "\0",
    "a\0b",
    "\u{feff}",
    "\u{202e}txt",
    "e\u{301}\u{1f600}",
    "../../etc/passwd",
    "'; drop table customer; --",
    "%s%n{}$(x)",
    "00000000-0000-0000-0000-000000000000",
    "{0192f4b0-0000-7000-8000-000000000001}",
    "urn:uuid:0192f4b0-0000-7000-8000-000000000001",
    "0192f4b0-0000-7000-8000-00000000000",
];

/// Lengths of long texts: around the limits that the contracts name, and far beyond.
const LENGTHS: [usize; 10] = [36, 63, 64, 128, 129, 200, 256, 257, 5000, 100_000];

/// Entries of all lists of a message, so that lists in lists do not take gigabytes, and the callers' own thread for so long that their
/// connections are given up.
const MAX_ENTRIES: usize = 4_000;

/// Writes messages.
pub(super) struct Author<'a> {
    rng: &'a mut StdRng,
    lexicon: &'a Lexicon,
    /// The share of values that are hostile, 0 to 1.
    hostility: f64,
    /// Entries that the lists of the message may still have.
    entries: usize,
}

impl<'a> Author<'a> {
    pub(super) fn new(rng: &'a mut StdRng, lexicon: &'a Lexicon, hostility: f64) -> Self {
        Self { rng, lexicon, hostility, entries: 0 }
    }

    /// The bytes of a message of that type, mostly.
    pub(super) fn bytes(&mut self, of: &MessageDescriptor) -> Vec<u8> {
        self.entries = MAX_ENTRIES;
        let bytes = self.message(of, 0).encode_to_vec();
        match self.rng.random_range(0..10) {
            0 => self.garbage(),
            1 | 2 => self.spoil(bytes),
            _ => bytes,
        }
    }

    fn message(&mut self, of: &MessageDescriptor, depth: usize) -> DynamicMessage {
        let mut message = DynamicMessage::new(of.clone());
        let mut fields: Vec<_> = of.fields().collect();
        // Of a oneof the last that is set stays.
        fields.shuffle(self.rng);
        for field in fields {
            let absent = if self.hostile() { 0.5 } else { 0.1 };
            if self.rng.random_bool(absent) || depth > MAX_DEPTH {
                continue;
            }
            let value = self.field(&field, depth);
            message.set_field(&field, value);
        }
        message
    }

    fn field(&mut self, field: &FieldDescriptor, depth: usize) -> Value {
        if field.is_map() {
            let entry = field.kind();
            let entry = entry.as_message().expect("a map's entry is a message");
            let (key, value) = (entry.map_entry_key_field(), entry.map_entry_value_field());
            let pairs = (0..self.count()).filter_map(|_| {
                let key: Option<MapKey> = self.scalar(&key, depth).into_map_key();
                Some((key?, self.scalar(&value, depth)))
            });
            return Value::Map(pairs.collect::<HashMap<_, _>>());
        }
        if field.is_list() {
            return Value::List((0..self.count()).map(|_| self.scalar(field, depth)).collect());
        }
        self.scalar(field, depth)
    }

    /// How many entries a list has.
    fn count(&mut self) -> usize {
        let counts: &[usize] = if self.hostile() { &[0, 65, 257, 1025, 2000] } else { &[0, 1, 2, 3] };
        let count = self.entries.min(*counts.choose(self.rng).expect("there are some"));
        self.entries -= count;
        count
    }

    fn scalar(&mut self, field: &FieldDescriptor, depth: usize) -> Value {
        match field.kind() {
            Kind::Double => Value::F64(f64::from_bits(self.rng.random())),
            Kind::Float => Value::F32(f32::from_bits(self.rng.random())),
            Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => Value::I32(self.number() as i32),
            Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => Value::I64(self.number()),
            Kind::Uint32 | Kind::Fixed32 => Value::U32(self.number() as u32),
            Kind::Uint64 | Kind::Fixed64 => Value::U64(self.number() as u64),
            Kind::Bool => Value::Bool(self.rng.random()),
            Kind::String => Value::String(self.text(field.name())),
            Kind::Bytes => Value::Bytes(Bytes::from(self.garbage())),
            Kind::Message(message) => Value::Message(self.message(&message, depth + 1)),
            Kind::Enum(_) if self.hostile() => {
                Value::EnumNumber(*[-1, 99, i32::MAX, i32::MIN].choose(self.rng).expect("there are some"))
            }
            Kind::Enum(known) => {
                let numbers: Vec<_> = known.values().map(|value| value.number()).collect();
                Value::EnumNumber(*numbers.choose(self.rng).expect("an enum has a value"))
            }
        }
    }

    /// Cut to the width of its field.
    fn number(&mut self) -> i64 {
        const EDGES: [i64; 12] = [
            0,
            -1,
            1_000_000_000,
            -999_999_999,
            i32::MAX as i64,
            i32::MIN as i64,
            u32::MAX as i64,
            i64::MAX,
            i64::MIN,
            i64::MAX / 100,
            315_576_000_001,
            1 << 53,
        ];
        if self.hostile() {
            *EDGES.choose(self.rng).expect("there are some")
        } else {
            // Small, and of ten million: so that an amount's `nanos` are cents.
            self.rng.random_range(0..20) * [1, 10_000_000][usize::from(self.rng.random_bool(0.2))]
        }
    }

    fn text(&mut self, field: &str) -> String {
        if !self.hostile() {
            return self.lexicon.word(field, self.rng).unwrap_or_else(|| "Ada".to_owned());
        }
        match self.rng.random_range(0..4) {
            0 => "x".repeat(*LENGTHS.choose(self.rng).expect("there are some")),
            // A word of another field, or one that is nearly right.
            1 => self.lexicon.any(self.rng).unwrap_or_default(),
            2 => {
                let mut word: Vec<char> = self.lexicon.word(field, self.rng).unwrap_or_default().chars().collect();
                if let Some(letter) = word.choose_mut(self.rng) {
                    *letter = self.rng.random();
                }
                word.into_iter().collect()
            }
            _ => (*TEXTS.choose(self.rng).expect("there are some")).to_owned(),
        }
    }

    fn garbage(&mut self) -> Vec<u8> {
        let mut bytes = vec![0; self.rng.random_range(0..64)];
        self.rng.fill_bytes(&mut bytes);
        bytes
    }

    /// Breaks an encoding in one of the ways in which encodings break.
    fn spoil(&mut self, mut bytes: Vec<u8>) -> Vec<u8> {
        match self.rng.random_range(0..7) {
            // Cut at any point.
            0 => bytes.truncate(self.rng.random_range(0..=bytes.len())),
            1 => {
                for _ in 0..self.rng.random_range(1..4) {
                    if let Some(byte) = bytes.choose_mut(self.rng) {
                        *byte ^= 1 << self.rng.random_range(0..8);
                    }
                }
            }
            // An unknown field, which is to be ignored.
            2 => bytes.extend([0xfa, 0x7f, 3, 1, 2, 3]),
            // Groups in groups, deeper than any parser goes.
            3 => bytes.extend(vec![0xfb; 2000]),
            // A length beyond the end, and one beyond any memory.
            4 => bytes.extend([0x0a, 0x7f]),
            5 => bytes.extend([0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]),
            // A number without an end.
            _ => bytes.extend([0x08; 1].iter().chain(&[0xff; 12])),
        }
        bytes
    }

    fn hostile(&mut self) -> bool {
        self.rng.random_bool(self.hostility)
    }
}
