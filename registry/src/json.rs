//! Messages of the mesh as protobuf JSON, as grpcurl prints and takes them (camelCase, 64-bit numbers as text).

use std::{collections::HashSet, fmt};

use meshwork::contract::DESCRIPTORS;
use prost::{Message, Name};
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor, SerializeOptions};
use serde::{
    Deserialize,
    de::{self, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Deserializer, Error, Serializer};

/// Characters of a name that an error shows.
const MAX_SHOWN: usize = 64;

/// Writes and reads messages as JSON; knows the descriptors of the mesh's own contracts.
#[derive(Clone, Debug)]
pub struct ProtobufJson(DescriptorPool);

impl ProtobufJson {
    /// Reads the descriptors; do it once.
    #[expect(clippy::new_without_default, reason = "it takes its time, so it is asked for by name")]
    pub fn new() -> Self {
        Self(DescriptorPool::decode(DESCRIPTORS).expect("the build has compiled these descriptors"))
    }

    /// The message on one line, with every field, even one with its default value, so that a script finds it
    /// without a special case.
    pub fn line<M: Message + Name>(&self, message: &M) -> String {
        let options = SerializeOptions::new().skip_default_fields(false);
        let mut line = Vec::new();
        written(self.dynamic(message).serialize_with_options(&mut Serializer::new(&mut line), &options));
        text(line)
    }

    /// The message on many lines, with the fields that are set: for files that people read.
    pub fn pretty<M: Message + Name>(&self, message: &M) -> String {
        let mut lines = Vec::new();
        let options = SerializeOptions::new();
        written(self.dynamic(message).serialize_with_options(&mut Serializer::pretty(&mut lines), &options));
        lines.push(b'\n');
        text(lines)
    }

    /// A message from JSON.
    ///
    /// # Errors
    /// Other text, a field that the message does not have, or one that is there twice: the first would be dropped in silence.
    pub fn read<M: Message + Name + Default>(&self, text: &[u8]) -> Result<M, Error> {
        serde_json::from_slice::<Unique>(text)?;
        let mut json = Deserializer::from_slice(text);
        let message = DynamicMessage::deserialize(self.descriptor::<M>(), &mut json)?;
        json.end()?;
        Ok(decoded(&message))
    }

    fn dynamic<M: Message + Name>(&self, message: &M) -> DynamicMessage {
        DynamicMessage::decode(self.descriptor::<M>(), message.encode_to_vec().as_slice())
            .expect("encoded by the same contract")
    }

    fn descriptor<M: Name>(&self) -> MessageDescriptor {
        self.0.get_message_by_name(&M::full_name()).expect("the contract's own message")
    }
}

/// Any JSON in which no object has a name twice.
struct Unique;

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: serde::Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        json.deserialize_any(Self)
    }
}

impl<'de> Visitor<'de> for Unique {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_str<E>(self, _: &str) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_unit<E>(self) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<Self, A::Error> {
        while entries.next_element::<Self>()?.is_some() {}
        Ok(self)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Self, A::Error> {
        let mut names = HashSet::new();
        while let Some((name, Self)) = fields.next_entry::<String, Self>()? {
            if names.contains(&name) {
                return Err(de::Error::custom(format_args!("has the field {:?} twice", shortened(&name))));
            }
            names.insert(name);
        }
        Ok(self)
    }
}

/// A name that is shown in an error.
pub(crate) fn shortened(name: &str) -> String {
    let mut characters = name.chars();
    let shown: String = characters.by_ref().take(MAX_SHOWN).collect();
    if characters.next().is_some() { shown + "..." } else { shown }
}

fn decoded<M: Message + Default>(message: &DynamicMessage) -> M {
    M::decode(message.encode_to_vec().as_slice()).expect("encoded by the same contract")
}

fn written(result: Result<(), Error>) {
    result.expect("JSON has a form for every message, and memory takes it");
}

fn text(json: Vec<u8>) -> String {
    String::from_utf8(json).expect("JSON is UTF-8")
}

#[cfg(test)]
mod tests {
    use meshwork::contract::meshwork::registry::v1 as registry;

    use super::*;

    #[test]
    fn messages_are_written_as_protobuf_json_with_all_their_fields() {
        let response = registry::ListServicesResponse {
            services: vec![registry::Service { name: "order".into(), instance_count: 0 }],
            next_page_token: String::new(),
        };
        assert_eq!(
            ProtobufJson::new().line(&response),
            r#"{"services":[{"name":"order","instanceCount":0}],"nextPageToken":""}"#
        );
        let lease = registry::Lease { revision: 7, ..Default::default() };
        assert!(ProtobufJson::new().line(&lease).contains(r#""revision":"7""#), "as grpcurl prints 64-bit numbers");
    }

    #[test]
    fn a_field_that_is_there_twice_is_named_and_not_dropped_in_silence() {
        let json = ProtobufJson::new();
        let long = format!("{{\"{0}\":1,\"{0}\":1}}", "n".repeat(100_000));
        for (text, named) in [
            (r#"{"policies":[{"service":"a"}],"policies":[{"service":"b"}]}"#, "\"policies\" twice"),
            (r#"{"policies":[{"service":"a","timeout":"1s","timeout":"9s"}]}"#, "\"timeout\" twice"),
            (r#"{"policies":[{"split":{"weights":{"v1":1,"v1":2}}}]}"#, "\"v1\" twice"),
            (&long, "n...\" twice"),
        ] {
            let error = json.read::<registry::ListPoliciesResponse>(text.as_bytes()).expect_err(text).to_string();
            assert!(error.contains(named) && error.len() < 200, "{error}");
        }
    }

    #[test]
    fn what_is_written_is_read_as_it_was() {
        let json = ProtobufJson::new();
        let policy = registry::Policy {
            service: "order".into(),
            timeout: Some(prost_types::Duration { seconds: 2, nanos: 500_000_000 }),
            retry: Some(registry::RetryPolicy { hedging: Some(false), max_attempts: Some(0), ..Default::default() }),
            split: Some(registry::SplitPolicy { weights: [("v1".into(), 95), ("v2".into(), 0)].into() }),
            update_time: Some(prost_types::Timestamp { seconds: 1_700_000_000, nanos: 0 }),
            ..Default::default()
        };
        for text in [json.line(&policy), json.pretty(&policy)] {
            assert_eq!(json.read::<registry::Policy>(text.as_bytes()).expect(&text), policy);
        }
        for bad in ["", "{", r#"{"servize": "order"}"#, r#"{"service": "order"} x"#, r#"{"timeout": "2"}"#] {
            assert!(json.read::<registry::Policy>(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
