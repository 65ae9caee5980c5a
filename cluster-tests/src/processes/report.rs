//! What came of a scenario, as a row of a Markdown table.

use std::time::Duration;

/// One scenario, one seed.
#[derive(Debug, Clone, Default)]
pub struct Row {
    pub scenario: String,
    pub seed: u64,
    pub acked: usize,
    pub lost: usize,
    pub duplicated: usize,
    pub reordered: usize,
    pub failed_sends: usize,
    /// Longest time without an acknowledgement after each fault.
    pub gaps: Vec<Duration>,
    /// Violations that were allowed with `--allow`, as text.
    pub allowed: String,
    pub verdict: Verdict,
}

/// The last column.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Verdict {
    #[default]
    Passed,
    Failed(String),
    /// An injector is missing here.
    Skipped(String),
}

impl Row {
    /// The head of the table.
    pub const HEAD: &'static str = "| scenario | seed | acked | lost | duplicated | reordered | failed sends | time to recover, ms | verdict |\n|---|---|---|---|---|---|---|---|---|";

    /// A scenario that could not be run.
    pub fn without(scenario: String, seed: u64, verdict: Verdict) -> Self {
        Self {
            scenario,
            seed,
            verdict,
            ..Self::default()
        }
    }

    /// The row.
    pub fn line(&self) -> String {
        let gaps: Vec<String> = self
            .gaps
            .iter()
            .map(|g| g.as_millis().to_string())
            .collect();
        let (numbers, verdict) = match &self.verdict {
            Verdict::Skipped(why) => (" | | | | ".to_owned(), format!("skipped: {why}")),
            Verdict::Passed => (self.numbers(), format!("passed{}", self.allowed)),
            Verdict::Failed(why) => (self.numbers(), format!("FAILED: {why}")),
        };
        let verdict = verdict.replace(['|', '\n'], " ");
        format!(
            "| {} | {} | {} | {} | {} |",
            self.scenario,
            self.seed,
            numbers,
            gaps.join(" "),
            verdict
        )
    }

    fn numbers(&self) -> String {
        format!(
            "{} | {} | {} | {} | {}",
            self.acked, self.lost, self.duplicated, self.reordered, self.failed_sends
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_has_the_columns_of_the_head() {
        let columns = |line: &str| line.matches('|').count();
        let head = columns(Row::HEAD.lines().next().unwrap());
        for verdict in [
            Verdict::Passed,
            Verdict::Failed("a|b\nc".into()),
            Verdict::Skipped("no root".into()),
        ] {
            let row = Row {
                gaps: vec![Duration::from_millis(7), Duration::from_millis(9)],
                ..Row::without("2".into(), 7, verdict)
            };
            assert_eq!(columns(&row.line()), head, "{}", row.line());
        }
    }
}
