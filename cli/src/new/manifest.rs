//! The Cargo.toml of a new package.

/// Its text, with the words to be replaced that `template` lists.
pub(super) const MANIFEST: &str = include_str!("../../templates/service/Cargo.toml");

/// The crates that a package depends on.
pub(super) fn dependencies() -> impl Iterator<Item = &'static str> {
    let mut section = "";
    MANIFEST.lines().filter_map(move |line| {
        if line.starts_with('[') {
            section = line;
        }
        let (name, _) = line.split_once(" = ")?;
        section.ends_with("dependencies]").then_some(name)
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// Versions by crate; those without one, which are paths, are left out.
    fn versions(manifest: &str) -> BTreeMap<&str, &str> {
        manifest
            .lines()
            .filter_map(|line| {
                let (name, value) = line.split_once(" = ")?;
                let version = match value.strip_prefix('{') {
                    Some(table) => table.split_once("version = ")?.1,
                    None => value,
                };
                Some((name, version.strip_prefix('"')?.split_once('"')?.0))
            })
            .collect()
    }

    #[test]
    fn a_package_has_the_versions_of_the_workspace() {
        let workspace = versions(include_str!("../../../Cargo.toml"));
        let package = versions(MANIFEST);
        let mut compared = 0;
        for name in dependencies().filter(|name| !name.starts_with("meshwork")) {
            assert_eq!(package.get(name), workspace.get(name), "{name}");
            compared += 1;
        }
        assert_eq!((compared, package["edition"]), (7, workspace["edition"]));
    }
}
