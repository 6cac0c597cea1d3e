//! Prompts that change while an image is drawn: `[from:to:when]`, `[to:when]`, `[from::when]`, `[a|b]`, nested,
//! as A1111 reads them.

use super::Problem;

/// Deepest nesting of changes.
const MAX_DEPTH: usize = 64;

/// A prompt with what changes in it.
#[derive(Debug, Clone, PartialEq)]
pub struct Script(Vec<Node>);

#[derive(Debug, Clone, PartialEq)]
enum Node {
    Text(String),
    Edit { before: Vec<Node>, after: Vec<Node>, when: When },
    Alternate(Vec<Vec<Node>>),
}

/// When the text changes.
#[derive(Debug, Clone, Copy, PartialEq)]
enum When {
    /// A number with a point: this part of all steps.
    Fraction(f64),
    /// A number without: this step.
    Step(f64),
}

impl When {
    fn read(text: &str) -> Option<Self> {
        let text = text.trim();
        let number = text.bytes().all(|b| matches!(b, b'+' | b'-' | b'.' | b'e' | b'E' | b'0'..=b'9'));
        let value = text.parse::<f64>().ok().filter(|v| number && v.is_finite())?;
        Some(if text.contains('.') { Self::Fraction(value) } else { Self::Step(value) })
    }

    /// The last step, from 1, that has the text before; 0 if none has.
    fn step(self, steps: usize) -> usize {
        let step = match self {
            Self::Fraction(f) => f * steps as f64,
            Self::Step(s) => s,
        };
        // Not a number is not read, and `as` keeps within the type's bounds.
        (step as usize).min(steps)
    }
}

/// The texts of a prompt in their order.
#[derive(Debug, Clone, PartialEq)]
pub struct Timeline(Vec<(usize, String)>);

impl Timeline {
    /// The texts, each with the step that it ends at.
    pub fn entries(&self) -> &[(usize, String)] {
        &self.0
    }

    /// Which of the entries holds in a step, counted from 0.
    ///
    /// The first whose end is not below the step: as in A1111, whose ends count from 1 and whose steps count
    /// from 0, so that `[a:b:3]` draws four steps of `a` and an alternation begins with two of its first text.
    pub fn index(&self, step: usize) -> usize {
        let found = self.0.iter().position(|(end, _)| step <= *end);
        found.unwrap_or_else(|| self.0.len().saturating_sub(1))
    }
}

impl Script {
    /// Reads a prompt. What is no change is text: brackets that do not close, `[x]`, `(x:1.3)`.
    ///
    /// # Errors
    /// Changes within changes deeper than 64.
    pub fn parse(text: &str) -> Result<Self, Problem> {
        let mut reader = Reader::default();
        let mut chars = text.char_indices();
        while let Some((at, c)) = chars.next() {
            match c {
                '\\' => {
                    reader.letter(c);
                    if let Some((_, next)) = chars.next() {
                        reader.letter(next);
                    }
                }
                '(' | '[' => reader.frames.push(Frame::new(c, at)),
                ':' | '|' => reader.separator(c),
                ')' | ']' => reader.close(c, at)?,
                _ => reader.letter(c),
            }
        }
        reader.flatten();
        Ok(Self(reader.root))
    }

    /// The texts of a run of this many steps.
    pub fn timeline(&self, steps: usize) -> Timeline {
        let mut ends = vec![steps];
        collect_ends(&self.0, steps, &mut ends);
        ends.sort_unstable();
        ends.dedup();
        Timeline(ends.into_iter().map(|end| (end, self.at(end, steps))).collect())
    }

    /// The text in a step, counted from 1.
    fn at(&self, step: usize, steps: usize) -> String {
        let mut out = String::new();
        write(&self.0, step, steps, &mut out);
        out
    }
}

fn collect_ends(nodes: &[Node], steps: usize, ends: &mut Vec<usize>) {
    for node in nodes {
        match node {
            Node::Text(_) => {}
            Node::Edit { before, after, when } => {
                ends.extend(Some(when.step(steps)).filter(|s| *s >= 1));
                collect_ends(before, steps, ends);
                collect_ends(after, steps, ends);
            }
            Node::Alternate(_) => ends.extend(1..=steps),
        }
    }
    // Inside an alternation every step is an end already; many of them would only grow the list.
    ends.sort_unstable();
    ends.dedup();
}

fn write(nodes: &[Node], step: usize, steps: usize, out: &mut String) {
    for node in nodes {
        match node {
            Node::Text(text) => out.push_str(text),
            Node::Edit { before, after, when } => {
                write(if step <= when.step(steps) { before } else { after }, step, steps, out);
            }
            Node::Alternate(options) => write(&options[(step - 1) % options.len()], step, steps, out),
        }
    }
}

/// An open bracket and what stands in it: parts, with separators between them.
struct Frame {
    open: char,
    at: usize,
    parts: Vec<Vec<Node>>,
    separators: Vec<char>,
    depth: usize,
}

impl Frame {
    fn new(open: char, at: usize) -> Self {
        Self { open, at, parts: vec![Vec::new()], separators: Vec::new(), depth: 0 }
    }

    /// The frame as it was written, without its closing bracket.
    fn into_text(self) -> Vec<Node> {
        let mut out = Vec::new();
        push_letter(&mut out, self.open);
        for (i, part) in self.parts.into_iter().enumerate() {
            if let Some(separator) = i.checked_sub(1).and_then(|i| self.separators.get(i)) {
                push_letter(&mut out, *separator);
            }
            append(&mut out, part);
        }
        out
    }
}

#[derive(Default)]
struct Reader {
    root: Vec<Node>,
    frames: Vec<Frame>,
}

impl Reader {
    fn here(&mut self) -> &mut Vec<Node> {
        match self.frames.last_mut().and_then(|f| f.parts.last_mut()) {
            Some(part) => part,
            None => &mut self.root,
        }
    }

    fn letter(&mut self, c: char) {
        push_letter(self.here(), c);
    }

    fn separator(&mut self, c: char) {
        match self.frames.last_mut() {
            Some(frame) => {
                frame.separators.push(c);
                frame.parts.push(Vec::new());
            }
            None => self.letter(c),
        }
    }

    fn close(&mut self, c: char, at: usize) -> Result<(), Problem> {
        let pair = if c == ')' { '(' } else { '[' };
        match self.frames.pop() {
            Some(frame) if frame.open == pair => self.group(frame, c, at),
            frame => {
                self.frames.extend(frame);
                self.flatten();
                self.letter(c);
                Ok(())
            }
        }
    }

    /// A bracket that closes where it should.
    fn group(&mut self, mut frame: Frame, c: char, at: usize) -> Result<(), Problem> {
        let colons = frame.separators.iter().filter(|s| **s == ':').count();
        let bars = frame.separators.len() - colons;
        let depth = frame.depth + 1;
        let changed = match (frame.open, colons, bars) {
            ('[', 0, 1..) => Some(Node::Alternate(std::mem::take(&mut frame.parts))),
            ('[', 1 | 2, 0) => edit(&mut frame.parts),
            _ => None,
        };
        match changed {
            Some(_) if depth > MAX_DEPTH => {
                let message = format!("changes are nested deeper than {MAX_DEPTH}");
                Err(Problem { at: frame.at..at + 1, message })
            }
            Some(node) => {
                self.here().push(node);
                self.deepen(depth);
                Ok(())
            }
            None => {
                // Emphasis may stand inside a change; anything else makes letters of all brackets around it.
                let emphasis = bars == 0 && colons <= usize::from(frame.open == '(');
                let depth = frame.depth;
                if emphasis {
                    append(self.here(), frame.into_text());
                    self.deepen(depth);
                } else {
                    self.frames.push(frame);
                    self.flatten();
                }
                self.letter(c);
                Ok(())
            }
        }
    }

    fn deepen(&mut self, depth: usize) {
        if let Some(frame) = self.frames.last_mut() {
            frame.depth = frame.depth.max(depth);
        }
    }

    /// Makes letters of all open brackets.
    fn flatten(&mut self) {
        for frame in std::mem::take(&mut self.frames) {
            append(&mut self.root, frame.into_text());
        }
    }
}

/// The change that the parts of a bracket are, if the last is a number.
fn edit(parts: &mut Vec<Vec<Node>>) -> Option<Node> {
    let when = match parts.last()?.as_slice() {
        [Node::Text(text)] => When::read(text)?,
        _ => return None,
    };
    parts.pop();
    let after = parts.pop()?;
    let before = parts.pop().unwrap_or_default();
    Some(Node::Edit { before, after, when })
}

fn push_letter(nodes: &mut Vec<Node>, c: char) {
    match nodes.last_mut() {
        Some(Node::Text(text)) => text.push(c),
        _ => nodes.push(Node::Text(c.to_string())),
    }
}

fn append(nodes: &mut Vec<Node>, more: Vec<Node>) {
    for node in more {
        match (nodes.last_mut(), node) {
            (Some(Node::Text(text)), Node::Text(more)) => text.push_str(&more),
            (_, node) => nodes.push(node),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timeline(text: &str) -> Vec<(usize, String)> {
        Script::parse(text).unwrap().timeline(10).0
    }

    fn assert_plays(text: &str, expected: &[(usize, &str)]) {
        let expected: Vec<_> = expected.iter().map(|(end, text)| (*end, text.to_string())).collect();
        assert_eq!(timeline(text), expected, "{text}");
    }

    /// The examples of A1111's own parser.
    #[test]
    fn changes_are_read_as_in_a1111() {
        assert_plays("test", &[(10, "test")]);
        assert_plays("a [b:3]", &[(3, "a "), (10, "a b")]);
        assert_plays("a [b: 3]", &[(3, "a "), (10, "a b")]);
        assert_plays("a [[[b]]:2]", &[(2, "a "), (10, "a [[b]]")]);
        assert_plays("[(a:2):3]", &[(3, ""), (10, "(a:2)")]);
        assert_plays("a [b : c : 1] d", &[(1, "a b  d"), (10, "a  c  d")]);
        assert_plays("a[b:[c:d:2]:1]e", &[(1, "abe"), (2, "ace"), (10, "ade")]);
        assert_plays("a [unbalanced", &[(10, "a [unbalanced")]);
        assert_plays("a [b:.5] c", &[(5, "a  c"), (10, "a b c")]);
        assert_plays("((a][:b:c [d:3]", &[(3, "((a][:b:c "), (10, "((a][:b:c d")]);
        let texts = |text| timeline(text).into_iter().map(|e| e.1).collect::<Vec<_>>();
        assert_eq!(texts("[a|(b:1.1)]")[..4], ["a", "(b:1.1)", "a", "(b:1.1)"]);
        assert_eq!(texts("[fe|]male")[..3], ["female", "male", "female"]);
        assert_eq!(texts("[fe|||]male")[..5], ["female", "male", "male", "male", "female"]);
    }

    #[test]
    fn a_text_is_removed_after_a_step() {
        assert_plays("a [b::3]c", &[(3, "a bc"), (10, "a c")]);
    }

    #[test]
    fn a_point_makes_a_fraction_and_steps_are_cut_to_those_there_are() {
        assert_plays("[a:b:0.25]", &[(2, "a"), (10, "b")]);
        assert_plays("[a:b:1]", &[(1, "a"), (10, "b")]);
        assert_plays("[a:b:1.0]", &[(10, "a")]);
        assert_plays("[a:b:99]", &[(10, "a")]);
        for never in ["[a:b:0]", "[a:b:0.0]", "[a:b:-3]"] {
            assert_plays(never, &[(10, "b")]);
        }
    }

    #[test]
    fn alternation_nests_in_changes_and_changes_in_alternation() {
        let texts = |text| timeline(text).into_iter().map(|e| e.1).collect::<Vec<_>>();
        assert_eq!(texts("[[a|b]:c:2]"), ["a", "b", "c", "c", "c", "c", "c", "c", "c", "c"]);
        assert_eq!(texts("[[a:b:2]|c]")[..4], ["a", "c", "b", "c"]);
    }

    #[test]
    fn escaped_brackets_change_nothing() {
        assert_plays(r"\[a:b:3\]", &[(10, r"\[a:b:3\]")]);
        assert_plays(r"[a\:x:b:3]", &[(3, r"a\:x"), (10, "b")]);
    }

    #[test]
    fn what_is_no_change_stays_as_it_is_written() {
        for text in
            ["[a:b:c:3]", "[a:b]", "(a|b)", "a|b", "[a|b:3]", "(a:b:c)", "[x (a:b:c) y:z:3]", "[a:nan]", "\\"]
        {
            assert_plays(text, &[(10, text)]);
        }
    }

    /// Ends count from 1, steps from 0.
    #[test]
    fn a_text_holds_through_the_step_it_ends_at() {
        let timeline = Script::parse("[a:b:3]").unwrap().timeline(10);
        let texts: Vec<_> = (0..10).map(|s| timeline.entries()[timeline.index(s)].1.as_str()).collect();
        assert_eq!(texts, ["a", "a", "a", "a", "b", "b", "b", "b", "b", "b"]);
        let timeline = Script::parse("[a|b]").unwrap().timeline(4);
        let texts: Vec<_> = (0..4).map(|s| timeline.entries()[timeline.index(s)].1.as_str()).collect();
        assert_eq!(texts, ["a", "a", "b", "a"]);
    }

    #[test]
    fn absurd_nesting_is_a_problem_with_a_place() {
        let text = "[a:".repeat(70) + "b" + &":1]".repeat(70);
        let problem = Script::parse(&text).unwrap_err();
        assert!(problem.message.contains("64"), "{problem:?}");
        assert!(text.get(problem.at).is_some());
        let deep = "[(".repeat(100_000);
        assert_eq!(Script::parse(&deep).unwrap().timeline(3).entries()[0].1, deep);
    }
}
