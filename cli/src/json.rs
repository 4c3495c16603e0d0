//! Messages of the contract as protobuf JSON, as grpcurl prints them (camelCase, 64-bit numbers as text), on one line.
//!
//! Every field is there, also one that has its default value, so that a script finds it without a case of its own.

use meshwork::contract::DESCRIPTORS;
use prost::{Message, Name};
use prost_reflect::{DescriptorPool, DynamicMessage, SerializeOptions};

/// Writes messages as JSON; knows the contract's descriptors.
#[derive(Debug)]
pub(crate) struct ProtobufJson(DescriptorPool);

impl ProtobufJson {
    /// Reads the descriptors; do it once.
    pub(crate) fn new() -> Self {
        Self(DescriptorPool::decode(DESCRIPTORS).expect("the build has compiled these descriptors"))
    }

    /// The message on one line.
    pub(crate) fn line<M: Message + Name>(&self, message: &M) -> String {
        let descriptor = self.0.get_message_by_name(&M::full_name()).expect("the contract's own message");
        let message = DynamicMessage::decode(descriptor, message.encode_to_vec().as_slice())
            .expect("encoded by the same contract");
        let mut line = Vec::new();
        let options = SerializeOptions::new().skip_default_fields(false);
        message
            .serialize_with_options(&mut serde_json::Serializer::new(&mut line), &options)
            .expect("JSON has a form for every message, and memory takes it");
        String::from_utf8(line).expect("JSON is UTF-8")
    }
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
}
