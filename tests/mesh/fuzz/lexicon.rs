//! The texts that a caller could know: what the contract suggests, and what the mesh itself has said so far.
//!
//! A fuzzer that guesses ids and tokens is turned away at the door. This one remembers those that answers carry, by the
//! name of their field, so that its calls get as far as those of an honest caller who then does something else.

use std::collections::HashMap;

use parking_lot::Mutex;
use prost_reflect::{DynamicMessage, ReflectMessage as _, Value};
use rand::{Rng, RngExt as _, seq::IndexedRandom as _};

/// Texts that are kept for a field: enough for variety. Beyond, a new one takes the place of an old one.
const MAX_WORDS: usize = 32;

/// Never learned: a registration under another instance's id fences that instance, as the contract says, and the mesh
/// under test would rightly lose its instances.
const UNSPOKEN: &str = "instance_id";

/// What an honest caller would put into fields that no answer fills first.
const SUGGESTED: [(&str, &str); 10] = [
    ("service", "order"),
    ("services", "order"),
    ("instance_id", "fuzz"),
    ("address", "127.0.0.1:1"),
    ("currency_code", "USD"),
    ("customer_id", "0192f4b0-0000-7000-8000-000000000001"),
    ("group", "fuzz"),
    ("types", "shop.order.v1.OrderCreated"),
    ("file_by_filename", "shop/order/v1/order.proto"),
    ("file_containing_symbol", "shop.order.v1.Order"),
];

/// Texts by the name of their field.
pub(super) struct Lexicon(Mutex<HashMap<String, Vec<String>>>);

impl Lexicon {
    pub(super) fn new() -> Self {
        let lexicon = Self(Mutex::default());
        SUGGESTED.iter().for_each(|(field, word)| lexicon.add(field, word, 0));
        lexicon
    }

    /// A text for a field, if any is known.
    pub(super) fn word(&self, field: &str, rng: &mut impl Rng) -> Option<String> {
        let words = self.0.lock();
        words.get(field).and_then(|words| words.choose(rng).cloned())
    }

    /// A text of any field.
    pub(super) fn any(&self, rng: &mut impl Rng) -> Option<String> {
        let words = self.0.lock();
        let all: Vec<_> = words.values().flatten().collect();
        all.choose(rng).map(|word| (*word).clone())
    }

    /// Remembers the texts of an answer.
    pub(super) fn learn(&self, answer: &DynamicMessage, rng: &mut impl Rng) {
        for (field, value) in answer.fields() {
            // A page's `next_page_token` is the next request's `page_token`.
            let name = field.name().trim_start_matches("next_");
            self.learn_value(name, value, rng);
        }
    }

    fn learn_value(&self, field: &str, value: &Value, rng: &mut impl Rng) {
        match value {
            Value::String(word) if field != UNSPOKEN => self.add(field, word, rng.random_range(0..MAX_WORDS)),
            Value::Message(message) if message.descriptor().full_name() != "google.protobuf.Any" => {
                self.learn(message, rng);
            }
            Value::List(values) => values.iter().take(4).for_each(|value| self.learn_value(field, value, rng)),
            _ => {}
        }
    }

    fn add(&self, field: &str, word: &str, place: usize) {
        let mut words = self.0.lock();
        let words = words.entry(field.to_owned()).or_default();
        if words.iter().any(|known| known == word) {
        } else if words.len() < MAX_WORDS {
            words.push(word.to_owned());
        } else {
            words[place] = word.to_owned();
        }
    }
}
