//! A report as a list of blocks, written as Markdown, plain text or HTML.

use crate::figures::svg::escape;
use std::fmt::Write;

/// A part of a report.
#[derive(Debug, Clone)]
pub enum Block {
    /// A heading of level 1 to 3.
    Heading(u8, String),
    /// A paragraph.
    Text(String),
    /// A list.
    List(Vec<String>),
    /// A table; numbers stand to the right.
    Table { head: Vec<String>, rows: Vec<Vec<String>> },
    /// A figure by the name of its files, with what it shows.
    Figure { name: String, alt: String },
}

/// A report.
#[derive(Debug, Default)]
pub struct Document(pub Vec<Block>);

impl Document {
    pub fn heading(&mut self, level: u8, text: impl Into<String>) {
        self.0.push(Block::Heading(level, text.into()));
    }
    pub fn text(&mut self, text: impl Into<String>) {
        self.0.push(Block::Text(text.into()));
    }
    pub fn list(&mut self, items: Vec<String>) {
        self.0.push(Block::List(items));
    }
    pub fn table<const N: usize>(&mut self, head: [&str; N], rows: Vec<[String; N]>) {
        let head = head.map(String::from).to_vec();
        self.0.push(Block::Table { head, rows: rows.into_iter().map(Vec::from).collect() });
    }
    pub fn figure(&mut self, name: &str, alt: &str) {
        self.0.push(Block::Figure { name: name.into(), alt: alt.into() });
    }

    /// As Markdown, with figures beside it in `figures/`.
    pub fn markdown(&self) -> String {
        let mut out = String::new();
        for block in &self.0 {
            // Writing to a string cannot fail.
            let _ = match block {
                Block::Heading(level, text) => {
                    writeln!(out, "{} {}\n", "#".repeat(usize::from(*level)), marked(text))
                }
                Block::Text(text) => writeln!(out, "{}\n", marked(text)),
                Block::List(items) => {
                    out.extend(items.iter().map(|i| format!("- {}\n", marked(i))));
                    writeln!(out)
                }
                Block::Table { head, rows } => writeln!(out, "{}", markdown_table(head, rows)),
                Block::Figure { name, alt } => writeln!(out, "![{}](figures/{name}.png)\n", marked(alt)),
            };
        }
        out
    }

    /// As plain text of at most about 100 columns.
    pub fn plain(&self) -> String {
        let mut out = String::new();
        for block in &self.0 {
            let _ = match block {
                Block::Heading(level, text) => {
                    let line = if *level == 1 { "=" } else { "-" };
                    writeln!(out, "{text}\n{}\n", line.repeat(text.chars().count()))
                }
                Block::Text(text) => writeln!(out, "{}\n", wrapped(text, 100, "")),
                Block::List(items) => {
                    out.extend(items.iter().map(|i| format!("- {}\n", wrapped(i, 98, "  "))));
                    writeln!(out)
                }
                Block::Table { head, rows } => writeln!(out, "{}", plain_table(head, rows)),
                Block::Figure { name, alt } => writeln!(out, "[figures/{name}.png: {alt}]\n"),
            };
        }
        out
    }

    /// As the body of an HTML page; `figure` gives the address of a figure.
    pub fn html(&self, figure: &dyn Fn(&str) -> String) -> String {
        let mut out = String::new();
        for block in &self.0 {
            let _ = match block {
                Block::Heading(level, text) => writeln!(out, "<h{level}>{}</h{level}>", escape(text)),
                Block::Text(text) => writeln!(out, "<p>{}</p>", escape(text)),
                Block::List(items) => {
                    let items: String = items.iter().map(|i| format!("<li>{}</li>", escape(i))).collect();
                    writeln!(out, "<ul>{items}</ul>")
                }
                Block::Table { head, rows } => writeln!(out, "{}", html_table(head, rows)),
                Block::Figure { name, alt } => {
                    writeln!(out, "<figure><img src=\"{}\" alt=\"{}\"></figure>", figure(name), escape(alt))
                }
            };
        }
        out
    }
}

/// Whether a cell stands to the right.
fn is_number(cell: &str) -> bool {
    !cell.is_empty() && cell.chars().all(|c| c.is_ascii_digit() || " .,%-+<".contains(c))
}

fn right(rows: &[Vec<String>], column: usize) -> bool {
    !rows.is_empty() && rows.iter().all(|r| r[column].is_empty() || is_number(&r[column]))
}

/// Text in which nothing is taken for markup.
fn marked(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if "|*_<>`[]\\".contains(c) {
            out.push('\\');
        }
        out.push(if c.is_control() { ' ' } else { c });
    }
    out
}

fn markdown_table(head: &[String], rows: &[Vec<String>]) -> String {
    let line = |cells: &[String]| {
        format!("| {} |\n", cells.iter().map(|c| marked(c)).collect::<Vec<_>>().join(" | "))
    };
    let rule: Vec<&str> = (0..head.len()).map(|c| if right(rows, c) { "---:" } else { "---" }).collect();
    let body: String = rows.iter().map(|r| line(r)).collect();
    format!("{}| {} |\n{body}", line(head), rule.join(" | "))
}

fn plain_table(head: &[String], rows: &[Vec<String>]) -> String {
    let width =
        |c: usize| rows.iter().chain([&head.to_vec()]).map(|r| r[c].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let line = |cells: &[String]| {
        let cell = |(c, text): (usize, &String)| {
            let fill = " ".repeat(widths[c] - text.chars().count());
            if right(rows, c) { format!("{fill}{text}") } else { format!("{text}{fill}") }
        };
        format!("  {}\n", cells.iter().enumerate().map(cell).collect::<Vec<_>>().join("  ").trim_end())
    };
    let rule: Vec<String> = widths.iter().map(|w| "-".repeat(*w)).collect();
    let body: String = rows.iter().map(|r| line(r)).collect();
    format!("{}  {}\n{body}", line(head), rule.join("  "))
}

fn html_table(head: &[String], rows: &[Vec<String>]) -> String {
    let class = |c: usize| if right(rows, c) { " class=\"n\"" } else { "" };
    let line = |cells: &[String], tag: &str| {
        let cells =
            cells.iter().enumerate().map(|(c, t)| format!("<{tag}{}>{}</{tag}>", class(c), escape(t)));
        format!("<tr>{}</tr>", cells.collect::<String>())
    };
    let body: String = rows.iter().map(|r| line(r, "td")).collect();
    format!("<table><thead>{}</thead><tbody>{body}</tbody></table>", line(head, "th"))
}

fn wrapped(text: &str, width: usize, indent: &str) -> String {
    let mut out = String::new();
    let mut column = 0;
    for word in text.split_whitespace() {
        let length = word.chars().count();
        if column > 0 && column + 1 + length > width {
            out.push('\n');
            out.push_str(indent);
            column = 0;
        } else if column > 0 {
            out.push(' ');
            column += 1;
        }
        out.push_str(word);
        column += length;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_aligned_and_nothing_in_it_is_markup() {
        let mut d = Document::default();
        d.table(["value", "records"], vec![["a|b<i>".into(), "7".into()], ["c".into(), "1,234".into()]]);
        assert_eq!(
            d.plain(),
            "  value   records\n  ------  -------\n  a|b<i>        7\n  c         1,234\n\n"
        );
        assert!(d.markdown().contains("| --- | ---: |\n| a\\|b\\<i\\> | 7 |"), "{}", d.markdown());
        assert!(d.html(&|n| n.into()).contains("<td>a|b&lt;i&gt;</td><td class=\"n\">7</td>"));
    }

    #[test]
    fn long_text_is_wrapped() {
        assert_eq!(wrapped("aa bb cc dd", 5, "  "), "aa bb\n  cc dd");
    }
}
