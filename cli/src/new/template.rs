//! The files of a new package. They are in `cli/templates/service`, with these words to be replaced:
//!
//! | word | for `order-history` |
//! |---|---|
//! | `{{name}}` | `order-history` |
//! | `{{snake}}` | `order_history` |
//! | `{{Service}}` | `OrderHistoryService` |
//! | `{{module}}` | `order_history_service` |
//! | `{{meshwork}}` | the folder with Meshwork's sources |

use super::{manifest::MANIFEST, name::PackageName};

/// Each file: where it is in a package, and its text, with words to be replaced in both.
const FILES: [(&str, &str); 9] = [
    ("Cargo.toml", MANIFEST),
    (".gitignore", include_str!("../../templates/service/gitignore")),
    ("rustfmt.toml", include_str!("../../templates/service/rustfmt.toml")),
    ("build.rs", include_str!("../../templates/service/build.rs")),
    ("proto/{{snake}}/v1/{{snake}}.proto", include_str!("../../templates/service/proto/service.proto")),
    ("src/lib.rs", include_str!("../../templates/service/src/lib.rs")),
    ("src/bin/{{name}}-server.rs", include_str!("../../templates/service/src/bin/server.rs")),
    ("src/bin/{{name}}-client.rs", include_str!("../../templates/service/src/bin/client.rs")),
    ("tests/service.rs", include_str!("../../templates/service/tests/service.rs")),
];

/// The files of a package: path and text. Its dependencies on Meshwork are paths below `meshwork`, a text that can stand within
/// the quotes of a TOML string.
pub(super) fn files(name: &PackageName, meshwork: &str) -> Vec<(String, String)> {
    let words = [
        ("{{name}}", name.as_str()),
        ("{{snake}}", &name.snake()),
        ("{{Service}}", &name.service()),
        ("{{module}}", &name.module()),
        // The last: a path may contain anything.
        ("{{meshwork}}", meshwork),
    ];
    let fill = |text: &str| words.iter().fold(text.to_owned(), |text, (word, value)| text.replace(word, value));
    FILES.iter().map(|(path, text)| (fill(path), fill(text))).collect()
}

#[cfg(test)]
mod tests {
    use std::{env, fs, path::Path};

    use super::*;

    #[test]
    fn no_word_is_left_and_none_within_the_path_of_meshwork_is_replaced() {
        let name = "order-history".parse().expect("a name");
        for (path, text) in files(&name, "/src/meshwork") {
            assert!(!path.contains("{{") && !text.contains("{{"), "{path}: {text}");
        }
        let (_, manifest) = files(&name, "/{{name}}").swap_remove(0);
        assert!(manifest.contains(r#"path = "/{{name}}/process""#), "{manifest}");
    }

    /// It is not edited by hand: `MESHWORK_WRITE_GREETER=1 cargo test -p meshwork-cli the_greeter` writes it.
    #[test]
    fn the_greeter_is_what_meshwork_new_writes() {
        let greeter = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/greeter");
        for (path, text) in files(&"greeter".parse().expect("a name"), "../..") {
            let path = greeter.join(path);
            if env::var_os("MESHWORK_WRITE_GREETER").is_some() {
                path.parent().map_or(Ok(()), fs::create_dir_all).expect("a folder");
                fs::write(&path, &text).expect("written");
            }
            assert_eq!(fs::read_to_string(&path).unwrap_or_default(), text, "{}", path.display());
        }
    }
}
