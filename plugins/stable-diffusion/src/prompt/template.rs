//! Templates: `{red|blue} shoe`, `{3::red|1::blue}`, nested; one choice for each image, or all of them.

use super::Problem;

/// Deepest nesting of choices.
const MAX_DEPTH: usize = 64;

/// A prompt with choices in it.
#[derive(Debug, Clone, PartialEq)]
pub struct Template(Vec<Node>);

#[derive(Debug, Clone, PartialEq)]
enum Node {
    Text(String),
    Choice(Vec<Choice>),
}

#[derive(Debug, Clone, PartialEq)]
struct Choice {
    weight: f64,
    nodes: Vec<Node>,
}

/// The text of a template for an image.
///
/// # Errors
/// See [`Template::parse`].
pub fn expand(text: &str, seed: u64) -> Result<String, Problem> {
    Ok(Template::parse(text)?.draw(&mut Dice(seed)))
}

impl Template {
    /// Reads a template. Braces without a `|` are letters, as are unbalanced ones and `\{`, `\|`, `\}`; a `|`
    /// within `[...]` is an alternation's.
    ///
    /// # Errors
    /// Choices that all have weight 0; choices within choices deeper than 64.
    pub fn parse(text: &str) -> Result<Self, Problem> {
        let mut reader = Reader::default();
        let mut chars = text.char_indices().peekable();
        while let Some((at, c)) = chars.next() {
            match c {
                '\\' => match chars.next_if(|(_, next)| matches!(next, '{' | '}' | '|' | '\\')) {
                    // The other escapes are for the grammar of weights.
                    Some((_, '\\')) => reader.text("\\\\"),
                    Some((_, next)) => reader.text(next.encode_utf8(&mut [0; 4])),
                    None => reader.text("\\"),
                },
                '{' => reader.frames.push(Frame { at, parts: vec![Vec::new()], square: 0, depth: 0 }),
                '|' => reader.bar(),
                '}' => reader.close(at)?,
                _ => reader.letter(c),
            }
        }
        for frame in std::mem::take(&mut reader.frames) {
            append(&mut reader.root, frame.into_text());
        }
        Ok(Self(reader.root))
    }

    /// Whether there is nothing to choose.
    pub fn is_plain(&self) -> bool {
        self.0.iter().all(|n| matches!(n, Node::Text(_)))
    }

    /// One text.
    pub fn draw(&self, dice: &mut Dice) -> String {
        let mut out = String::new();
        draw(&self.0, dice, &mut out);
        out
    }

    /// Every text there is, the last choice changing fastest; none if there are more than `limit`.
    pub fn all(&self, limit: usize) -> Option<Vec<String>> {
        all(&self.0, limit)
    }
}

fn draw(nodes: &[Node], dice: &mut Dice, out: &mut String) {
    for node in nodes {
        match node {
            Node::Text(text) => out.push_str(text),
            Node::Choice(choices) => {
                let mut left = dice.roll() * choices.iter().map(|c| c.weight).sum::<f64>();
                let mut chosen = None;
                for choice in choices.iter().filter(|c| c.weight > 0.0) {
                    chosen = Some(choice);
                    left -= choice.weight;
                    if left < 0.0 {
                        break;
                    }
                }
                if let Some(choice) = chosen {
                    draw(&choice.nodes, dice, out);
                }
            }
        }
    }
}

fn all(nodes: &[Node], limit: usize) -> Option<Vec<String>> {
    let mut out = vec![String::new()];
    for node in nodes {
        let ends = match node {
            Node::Text(text) => vec![text.clone()],
            Node::Choice(choices) => {
                let mut ends = Vec::new();
                for choice in choices {
                    ends.extend(all(&choice.nodes, limit)?);
                }
                ends
            }
        };
        if out.len().checked_mul(ends.len())? > limit {
            return None;
        }
        out = out.iter().flat_map(|begin| ends.iter().map(move |end| format!("{begin}{end}"))).collect();
    }
    Some(out)
}

/// SplitMix64 (Steele, Lea, Flood 2014): drawn apart from the noise, so that a template changes no noise.
#[derive(Debug, Clone)]
pub struct Dice(pub u64);

impl Dice {
    /// From 0 to below 1.
    pub fn roll(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^= z >> 31;
        (z >> 11) as f64 / (1u64 << 53) as f64
    }
}

struct Frame {
    at: usize,
    parts: Vec<Vec<Node>>,
    square: usize,
    depth: usize,
}

impl Frame {
    fn into_text(self) -> Vec<Node> {
        let mut out = vec![Node::Text("{".into())];
        for (i, part) in self.parts.into_iter().enumerate() {
            if i > 0 {
                append(&mut out, vec![Node::Text("|".into())]);
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

    fn text(&mut self, text: &str) {
        append(self.here(), vec![Node::Text(text.to_string())]);
    }

    fn letter(&mut self, c: char) {
        if let Some(frame) = self.frames.last_mut() {
            match c {
                '[' => frame.square += 1,
                ']' => frame.square = frame.square.saturating_sub(1),
                _ => {}
            }
        }
        self.text(c.encode_utf8(&mut [0; 4]));
    }

    fn bar(&mut self) {
        match self.frames.last_mut() {
            Some(frame) if frame.square == 0 => frame.parts.push(Vec::new()),
            _ => self.text("|"),
        }
    }

    fn close(&mut self, at: usize) -> Result<(), Problem> {
        let Some(frame) = self.frames.pop() else {
            self.text("}");
            return Ok(());
        };
        let problem = |message: String| Problem { at: frame.at..at + 1, message };
        let chooses = frame.parts.len() > 1;
        let depth = frame.depth + usize::from(chooses);
        if depth > MAX_DEPTH {
            return Err(problem(format!("choices are nested deeper than {MAX_DEPTH}")));
        }
        if let Some(outer) = self.frames.last_mut() {
            outer.depth = outer.depth.max(depth);
        }
        if !chooses {
            append(self.here(), frame.into_text());
            self.text("}");
            return Ok(());
        }
        let choices: Vec<Choice> = frame.parts.iter().cloned().map(weigh).collect();
        let sum: f64 = choices.iter().map(|c| c.weight).sum();
        if sum <= 0.0 || !sum.is_finite() {
            return Err(problem(format!("the choices weigh {sum} together")));
        }
        self.here().push(Node::Choice(choices));
        Ok(())
    }
}

/// A choice without the weight before it.
fn weigh(mut nodes: Vec<Node>) -> Choice {
    let mut weight = 1.0;
    if let Some(Node::Text(text)) = nodes.first_mut() {
        let found = text.split_once("::").and_then(|(number, rest)| {
            let number = number.trim();
            let digits = !number.is_empty() && number.bytes().all(|b| b == b'.' || b.is_ascii_digit());
            Some((number.parse::<f64>().ok().filter(|_| digits)?, rest.to_string()))
        });
        if let Some((number, rest)) = found {
            weight = number;
            *text = rest;
        }
    }
    Choice { weight, nodes }
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

    fn all_of(text: &str) -> Vec<String> {
        Template::parse(text).unwrap().all(1000).unwrap()
    }

    #[test]
    fn all_combinations_come_in_order() {
        assert_eq!(all_of("{red|blue} {boot|shoe}"), ["red boot", "red shoe", "blue boot", "blue shoe"]);
        assert_eq!(all_of("a {x|{y|z} w|}"), ["a x", "a y w", "a z w", "a "]);
        assert_eq!(all_of("plain"), ["plain"]);
        let many = "{a|b}".repeat(40);
        assert_eq!(Template::parse(&many).unwrap().all(1000), None);
    }

    #[test]
    fn weights_are_no_part_of_the_text() {
        assert_eq!(all_of("{3::red|.5::blue|[x::2]}"), ["red", "blue", "[x::2]"]);
    }

    #[test]
    fn the_same_seed_draws_the_same_text() {
        let text = "{a|b|c|d} {1|2|3|4}";
        for seed in 0..20 {
            assert_eq!(expand(text, seed).unwrap(), expand(text, seed).unwrap());
        }
        let texts: std::collections::BTreeSet<_> = (0..200).map(|s| expand(text, s).unwrap()).collect();
        assert_eq!(texts.len(), 16);
    }

    #[test]
    fn weights_are_how_often_a_choice_is_drawn() {
        let red = (0..4000).filter(|s| expand("{3::red|1::blue|0::green}", *s).unwrap() == "red").count();
        assert!((2850..3150).contains(&red), "{red}");
        assert!((0..200).all(|s| expand("{0::a|1::b}", s).unwrap() == "b"));
    }

    /// Published first outputs of SplitMix64 from 0: e220a8397b1dcdaf, 6e789e6aa1b965f4.
    #[test]
    fn the_dice_are_splitmix64() {
        let mut dice = Dice(0);
        let expected = |z: u64| (z >> 11) as f64 / (1u64 << 53) as f64;
        assert_eq!(dice.roll(), expected(0xe220_a839_7b1d_cdaf));
        assert_eq!(dice.roll(), expected(0x6e78_9e6a_a1b9_65f4));
    }

    #[test]
    fn braces_that_choose_nothing_are_letters() {
        for text in ["{a}", "a } b", "{a|b", "{[a|b]}", "[a|b]", "x | y", r"\(a\) \\ \", "{}", "{{a}"] {
            assert_eq!(all_of(text), [text], "{text}");
        }
        assert_eq!(all_of(r"\{a\|b\} {c\|d|e}"), ["{a|b} c|d", "{a|b} e"]);
        assert_eq!(all_of(r"\\{a|b}"), [r"\\a", r"\\b"]);
        assert_eq!(all_of("{[a|b]|c}"), ["[a|b]", "c"]);
        assert!(Template::parse("{a}").unwrap().is_plain());
    }

    #[test]
    fn choices_that_cannot_be_drawn_are_problems_with_a_place() {
        let problem = Template::parse("x {0::a|0::b}").unwrap_err();
        assert_eq!(problem.at, 2..13);
        let deep = "{a|".repeat(70) + "b" + &"}".repeat(70);
        assert!(Template::parse(&deep).unwrap_err().message.contains("64"));
    }
}
