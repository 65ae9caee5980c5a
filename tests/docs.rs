//! What the documents say of the code is so.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use troupemq::wire::remoting::code::request;

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// Code and name of each row of the table, and its status.
fn rows(table: &str) -> BTreeMap<i32, (String, String)> {
    let mut rows = BTreeMap::new();
    for line in table.lines().filter(|l| l.starts_with("| ")) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let Ok(code) = cells[0].parse::<i32>() else {
            continue;
        };
        assert_eq!(cells.len(), 4, "{line}");
        let name = cells[1].trim_matches('`').to_owned();
        assert!(
            rows.insert(code, (name, cells[2].to_owned())).is_none(),
            "{code} twice"
        );
    }
    rows
}

#[test]
fn the_compatibility_table_has_every_request_code() {
    let rows = rows(&read("docs/compatibility.md"));
    assert!(rows.len() > 100, "the table was not understood");
    for (code, (_, status)) in &rows {
        assert!(
            ["works", "partly", "not yet"].contains(&status.as_str()),
            "{code}: {status}"
        );
    }
    for code in 0..300_000 {
        let name = request::name(code);
        if name != "UNKNOWN" {
            let row = rows
                .get(&code)
                .unwrap_or_else(|| panic!("{code} {name} has no row"));
            assert_eq!(row.0, name, "{code}");
        }
    }
}

#[test]
fn the_map_of_the_code_names_every_room() {
    let map = read("ARCHITECTURE.md");
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for entry in fs::read_dir(src).unwrap() {
        let path = entry.unwrap().path();
        let room = path.file_stem().unwrap().to_string_lossy().into_owned();
        if room != "lib" && room != "main" {
            assert!(
                map.contains(&format!("| `{room}` |")),
                "{room} is not in ARCHITECTURE.md"
            );
        }
    }
}

/// Links between the documents of this repository lead somewhere.
#[test]
fn relative_links_lead_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut checked = 0;
    let mut documents = vec![root.join("docs/decisions/README.md")];
    for dir in [root.to_path_buf(), root.join("docs")] {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|e| e == "md") {
                documents.push(path);
            }
        }
    }
    for document in documents {
        let text = fs::read_to_string(&document).unwrap();
        for link in text
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split(')').next())
        {
            let target = link.split('#').next().unwrap_or_default();
            if target.is_empty() || target.contains("://") {
                continue;
            }
            let path = document.parent().unwrap().join(target);
            assert!(path.exists(), "{}: {link}", document.display());
            checked += 1;
        }
    }
    assert!(checked > 3, "no links were found");
}
