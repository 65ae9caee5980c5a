//! Guards of the cores, to be taken out one at a time: does the simulation notice?
//!
//! `mutants` (`src/bin/mutants.rs`) does so in a copy of the sources. A guard is a piece of text that stands
//! in one place of its file, and what stands in the copy instead. There `{out}` is a switch: the copy is
//! built once with all guards, and each process of the simulation is told which of them are out.

mod guards;

pub use guards::all;

use std::collections::BTreeMap;
use std::path::Path;

/// The variable of the environment with the numbers of the guards that are out, with commas between them.
pub const SWITCHES: &str = "TROUPE_GUARDS_OUT";

/// The switches themselves, for the end of the copy's `src/lib.rs`.
pub const MODULE: &str = r#"
/// Switches of the guards.
pub mod mutation {
    static OUT: std::sync::OnceLock<[u128; 2]> = std::sync::OnceLock::new();

    /// The guard with this number is out.
    pub fn out(guard: u32) -> bool {
        let all = *OUT.get_or_init(|| {
            let named = std::env::var("TROUPE_GUARDS_OUT").unwrap_or_default();
            let numbers = named.split(',').filter_map(|n| n.parse::<u32>().ok());
            numbers.fold([0; 2], |mut all, n| {
                all[n as usize / 128] |= 1 << (n % 128);
                all
            })
        });
        all[guard as usize / 128] >> (guard % 128) & 1 == 1
    }
}
"#;

/// A check, or a condition, that something relies on.
#[derive(Debug, Clone, Copy)]
pub struct Guard {
    /// Below `src`.
    pub file: &'static str,
    /// What does not happen thanks to it.
    pub what: &'static str,
    pub find: &'static str,
    /// With `{out}` where the switch is asked.
    pub replace: &'static str,
    /// Other guards (their `what`) that each suffice where this one is out: only without all of them
    /// anything happens.
    pub backed_by: &'static [&'static str],
    /// Why the simulation need not notice it.
    pub unnoticed: &'static str,
}

impl Guard {
    /// A guard that nothing else backs.
    pub const fn new(
        file: &'static str,
        what: &'static str,
        find: &'static str,
        replace: &'static str,
    ) -> Self {
        Self {
            file,
            what,
            find,
            replace,
            backed_by: &[],
            unnoticed: "",
        }
    }

    /// See [`Guard::backed_by`].
    #[must_use]
    pub const fn backed_by(self, backed_by: &'static [&'static str]) -> Self {
        Self { backed_by, ..self }
    }

    /// See [`Guard::unnoticed`].
    #[must_use]
    pub const fn unnoticed(self, unnoticed: &'static str) -> Self {
        Self { unnoticed, ..self }
    }

    /// The file's text with a switch for the guard; fails when the guard stands in none or in several
    /// places.
    pub fn switched(&self, number: usize, text: &str) -> Result<String, String> {
        let (file, find) = (self.file, self.find);
        if !self.replace.contains("{out}") {
            return Err(format!("{file}: no switch instead of `{find}`"));
        }
        let switch = format!("crate::mutation::out({number})");
        match text.matches(find).count() {
            1 => Ok(text.replacen(find, &self.replace.replace("{out}", &switch), 1)),
            n => Err(format!("{file}: {n} places hold `{find}`")),
        }
    }
}

/// The texts of all files that hold guards with a switch for each, by their names below `src`, and of the file
/// with the switches.
///
/// # Errors
/// A file cannot be read, or a guard does not stand in one place: one line for each.
pub fn switch_all(root: &Path) -> Result<BTreeMap<String, String>, String> {
    let read = |name: &str| {
        let path = root.join("src").join(name);
        std::fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))
    };
    let mut files = BTreeMap::from([("lib.rs".to_owned(), read("lib.rs")? + MODULE)]);
    let mut wrong = Vec::new();
    for (number, guard) in all().iter().enumerate() {
        let before = match files.remove(guard.file) {
            Some(text) => text,
            None => read(guard.file)?,
        };
        let after = guard.switched(number, &before);
        let after = after.unwrap_or_else(|why| {
            wrong.push(why);
            before
        });
        files.insert(guard.file.to_owned(), after);
    }
    match wrong.is_empty() {
        true => Ok(files),
        false => Err(wrong.join("\n")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_guard_stands_in_one_place() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let files = switch_all(&root).unwrap_or_else(|wrong| panic!("{wrong}"));
        assert!(files["lib.rs"].contains(SWITCHES));
    }

    #[test]
    fn guards_have_names_of_their_own_and_back_each_other() {
        let guards = all();
        assert!((60..256).contains(&guards.len()), "{}", guards.len());
        for guard in &guards {
            let named = |what: &str| guards.iter().filter(|g| g.what == what).count();
            assert_eq!(named(guard.what), 1, "{}", guard.what);
            for other in guard.backed_by {
                assert_eq!(named(other), 1, "{} is backed by {other}", guard.what);
            }
        }
    }

    #[test]
    fn a_guard_in_no_place_or_in_two_is_refused() {
        let guard = Guard::new("f", "", "if a {", "if a && !{out} {");
        assert_eq!(
            guard.switched(3, "x if a { y").unwrap(),
            "x if a && !crate::mutation::out(3) { y"
        );
        assert!(guard.switched(3, "x").is_err());
        assert!(guard.switched(3, "if a { if a {").is_err());
        let dead = Guard::new("f", "", "if a {", "if true {");
        assert!(dead.switched(3, "if a {").is_err());
    }
}
