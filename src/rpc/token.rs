//! Opaque tokens: a small message as URL-safe text that clients return unread.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use prost::Message;

/// Longer text is not a token of ours.
const MAX_TOKEN_LEN: usize = 1024;

/// The text is not a token that this service gave out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a token that this service gave out for this request")]
pub struct InvalidToken;

/// The text of a token.
pub fn encode_token(message: &impl Message) -> String {
    URL_SAFE_NO_PAD.encode(message.encode_to_vec())
}

/// Reads what [`encode_token`] has written.
///
/// # Errors
/// [`InvalidToken`] if the text is too long, or is not such a message.
pub fn decode_token<M: Message + Default>(token: &str) -> Result<M, InvalidToken> {
    if token.len() > MAX_TOKEN_LEN {
        return Err(InvalidToken);
    }
    let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| InvalidToken)?;
    M::decode(bytes.as_slice()).map_err(|_| InvalidToken)
}
