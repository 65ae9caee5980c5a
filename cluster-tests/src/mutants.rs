//! Guards of the cores, to be taken out one at a time: does the simulation notice?
//!
//! `mutants` (`src/bin/mutants.rs`) does so in a copy of the sources. A guard is a piece of text that stands
//! in one place of its file, and what stands there without it.

mod guards;

pub use guards::GUARDS;

use std::path::Path;

/// A check, or a condition, that something relies on.
#[derive(Debug, Clone, Copy)]
pub struct Guard {
    /// Below `src`.
    pub file: &'static str,
    pub find: &'static str,
    pub replace: &'static str,
    /// What does not happen thanks to it.
    pub what: &'static str,
}

impl Guard {
    /// The file's text without the guard; fails when the guard stands in none or in several places.
    pub fn taken_out_of(&self, text: &str) -> Result<String, String> {
        match text.matches(self.find).count() {
            1 => Ok(text.replacen(self.find, self.replace, 1)),
            n => Err(format!("{}: {n} places hold `{}`", self.file, self.find)),
        }
    }

    /// The same, for a tree of sources.
    pub fn taken_out_below(&self, root: &Path) -> Result<String, String> {
        let path = root.join("src").join(self.file);
        let text =
            std::fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        self.taken_out_of(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_guard_stands_in_one_place() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let wrong: Vec<String> = GUARDS
            .iter()
            .filter_map(|guard| guard.taken_out_below(&root).err())
            .collect();
        assert!(wrong.is_empty(), "{wrong:#?}");
    }

    #[test]
    fn a_guard_in_no_place_or_in_two_is_refused() {
        let guard = Guard {
            file: "f",
            find: "if a {",
            replace: "if false {",
            what: "",
        };
        assert_eq!(guard.taken_out_of("x if a { y").unwrap(), "x if false { y");
        assert!(guard.taken_out_of("x").is_err());
        assert!(guard.taken_out_of("if a { if a {").is_err());
    }
}
