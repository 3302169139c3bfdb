//! The checklist as data, as a table, and as JSON.

use std::{borrow::Cow, fmt};

/// What is known of a line.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Verdict {
    /// Seen to hold on the running service.
    Observed,
    /// Set so; whether it works was not seen.
    Configured,
    /// Seen not to hold, or set so that it cannot.
    Fails,
    /// No machine can tell from here; somebody has to look.
    Operators,
}

impl Verdict {
    /// The word in tables and in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Observed => "observed",
            Self::Configured => "configured",
            Self::Fails => "fails",
            Self::Operators => "operator's",
        }
    }
}

/// One line of the checklist.
#[derive(Clone, Debug)]
#[must_use]
pub struct Line {
    id: &'static str,
    text: &'static str,
    variable: Option<&'static str>,
    verdict: Verdict,
    how: Cow<'static, str>,
    to_do: Cow<'static, str>,
}

impl Line {
    /// A line of the policy: a short id, what it demands, the verdict and how it was reached.
    pub fn new(
        id: &'static str,
        text: &'static str,
        verdict: Verdict,
        how: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self {
            id,
            text,
            variable: None,
            verdict,
            how: how.into(),
            to_do: Cow::Borrowed(""),
        }
    }

    /// Names the variable that sets it.
    pub fn set_by(self, variable: &'static str) -> Self {
        Self {
            variable: Some(variable),
            ..self
        }
    }

    /// Says what to do where it does not hold.
    pub fn to_do(self, to_do: impl Into<Cow<'static, str>>) -> Self {
        Self {
            to_do: to_do.into(),
            ..self
        }
    }

    /// Its short name.
    #[must_use]
    pub const fn id(&self) -> &'static str {
        self.id
    }

    /// What the policy demands.
    #[must_use]
    pub const fn text(&self) -> &'static str {
        self.text
    }

    /// The variable that sets it.
    #[must_use]
    pub const fn variable(&self) -> Option<&'static str> {
        self.variable
    }

    /// What is known of it.
    #[must_use]
    pub const fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// How that is known.
    #[must_use]
    pub fn how(&self) -> &str {
        &self.how
    }

    /// What to do; empty where nothing is.
    #[must_use]
    pub fn what_to_do(&self) -> &str {
        match self.verdict {
            Verdict::Fails | Verdict::Operators => &self.to_do,
            Verdict::Observed | Verdict::Configured => "",
        }
    }
}

/// On one line, as for a program that refuses to start.
impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(variable) = self.variable {
            write!(f, "{variable}: ")?;
        }
        write!(
            f,
            "checklist line {} {}: {}; {}",
            self.id,
            self.verdict.as_str(),
            self.text,
            self.how
        )?;
        match self.what_to_do() {
            "" => Ok(()),
            to_do => write!(f, "; {to_do}"),
        }
    }
}

/// The lines, in the order in which they were looked at.
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct Checklist {
    lines: Vec<Line>,
}

impl Checklist {
    /// These lines.
    pub fn new(lines: impl IntoIterator<Item = Line>) -> Self {
        Self {
            lines: lines.into_iter().collect(),
        }
    }

    /// These and the other's.
    pub fn and(mut self, lines: impl IntoIterator<Item = Line>) -> Self {
        self.lines.extend(lines);
        self
    }

    /// All lines.
    pub fn lines(&self) -> &[Line] {
        &self.lines
    }

    /// The lines that fail.
    pub fn failing(&self) -> impl Iterator<Item = &Line> {
        let fails = |line: &&Line| line.verdict == Verdict::Fails;
        self.lines.iter().filter(fails)
    }

    /// Whether no line fails. What is configured or the operator's does not stop a service, and is
    /// not said to hold either.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.failing().next().is_none()
    }

    /// Sets the gauge [`CHECKLIST_FAILING`](crate::event::metric::CHECKLIST_FAILING) of every line.
    #[cfg(feature = "metrics")]
    pub fn record(&self) {
        for line in &self.lines {
            let fails = f64::from(u8::from(line.verdict == Verdict::Fails));
            metrics::gauge!(crate::event::metric::CHECKLIST_FAILING, "line" => line.id).set(fails);
        }
    }

    /// For a program to read: `{"holds", "lines":[{"id","text","variable","verdict","how",
    /// "to_do"}]}`.
    #[must_use]
    pub fn to_json(&self) -> String {
        let lines: Vec<_> = self
            .lines
            .iter()
            .map(|line| {
                serde_json::json!({
                    "id": line.id,
                    "text": line.text,
                    "variable": line.variable,
                    "verdict": line.verdict.as_str(),
                    "how": line.how,
                    "to_do": line.what_to_do(),
                })
            })
            .collect();
        serde_json::json!({"holds": self.holds(), "lines": lines}).to_string()
    }
}

impl IntoIterator for Checklist {
    type Item = Line;
    type IntoIter = std::vec::IntoIter<Line>;

    fn into_iter(self) -> Self::IntoIter {
        self.lines.into_iter()
    }
}

/// A table for terminals.
impl fmt::Display for Checklist {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.lines.iter().map(|line| line.id.len()).max();
        let width = width.unwrap_or_default();
        for line in &self.lines {
            let verdict = line.verdict.as_str();
            writeln!(f, "{verdict:<11} {:<width$}  {}", line.id, line.text)?;
            writeln!(f, "{:<11} {:<width$}  {}", "", "", line.how)?;
            let to_do = line.what_to_do();
            let variable = line.variable.filter(|_| !to_do.is_empty());
            match (variable, to_do) {
                (None, "") => {}
                (None, to_do) => writeln!(f, "{:<11} {:<width$}  -> {to_do}", "", "")?,
                (Some(variable), to_do) => {
                    writeln!(f, "{:<11} {:<width$}  -> {variable}: {to_do}", "", "")?;
                }
            }
        }
        let count = |verdict| {
            let lines = self.lines.iter().filter(|line| line.verdict == verdict);
            lines.count()
        };
        write!(
            f,
            "{} lines: {} observed to hold, {} only configured, {} the operator's, {} fail",
            self.lines.len(),
            count(Verdict::Observed),
            count(Verdict::Configured),
            count(Verdict::Operators),
            count(Verdict::Fails)
        )
    }
}
