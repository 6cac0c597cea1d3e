//! From text to an expression, by recursive descent: or, and, not, test.

use super::{Expr, Test};
use atelier_sdk::{Error, Result};

/// Deepest nesting of parentheses.
const MAX_DEPTH: usize = 64;
const HELP: &str =
    "for example: articleType == \"Casual Shoes\" and year >= 2012 and gender in (\"Men\", \"Women\")";

#[derive(Debug, Clone, PartialEq)]
enum Token {
    /// A bare word, number or field name.
    Word(String),
    /// Text in quotes.
    Text(String),
    Sign(&'static str),
}

const SIGNS: [&str; 13] = ["==", "!=", "<=", ">=", "&&", "||", "=", "<", ">", "~", "(", ")", ","];

struct Parser<'a> {
    text: &'a str,
    tokens: Vec<(usize, Token)>,
    at: usize,
    depth: usize,
}

/// Reads an expression.
pub fn parse(text: &str) -> Result<Expr> {
    let mut p = Parser { text, tokens: tokens(text)?, at: 0, depth: 0 };
    let expr = p.or()?;
    match p.tokens.get(p.at) {
        None => Ok(expr),
        Some(_) => Err(p.wrong("`and`, `or` or the end")),
    }
}

fn error(text: &str, at: usize, what: &str) -> Error {
    let before = text[..at].chars().count();
    Error::invalid(format!(
        "filter, character {}: {what}\n    {text}\n    {}^",
        before + 1,
        " ".repeat(before)
    ))
    .hint(HELP)
}

fn tokens(text: &str) -> Result<Vec<(usize, Token)>> {
    let mut out = Vec::new();
    let mut at = 0;
    while let Some(c) = text[at..].chars().next() {
        let from = at;
        let rest = &text[at..];
        let token = if c.is_whitespace() {
            at += c.len_utf8();
            continue;
        } else if ['"', '\'', '`'].contains(&c) {
            let inner = &rest[1..];
            let end = inner.find(c).ok_or_else(|| error(text, from, "the quote is not closed"))?;
            at += end + 2;
            let inner = inner[..end].to_string();
            if c == '`' { Token::Word(inner) } else { Token::Text(inner) }
        } else if let Some(sign) = SIGNS.iter().find(|s| rest.starts_with(**s)) {
            at += sign.len();
            Token::Sign(sign)
        } else if c == '!' {
            at += 1;
            Token::Word("not".into())
        } else {
            let end = rest.find(|c: char| !(c.is_alphanumeric() || "._-+".contains(c))).unwrap_or(rest.len());
            if end == 0 {
                return Err(error(text, from, &format!("`{c}` means nothing here")));
            }
            at += end;
            Token::Word(rest[..end].to_string())
        };
        out.push((from, token));
    }
    Ok(out)
}

impl Parser<'_> {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at).map(|t| &t.1)
    }

    fn wrong(&self, expected: &str) -> Error {
        let at = self.tokens.get(self.at).map_or(self.text.len(), |t| t.0);
        error(self.text, at, &format!("expected {expected}"))
    }

    fn take_word(&mut self, word: &str) -> bool {
        let found = matches!(self.peek(), Some(Token::Word(w)) if w.eq_ignore_ascii_case(word));
        self.at += usize::from(found);
        found
    }

    fn take_sign(&mut self, signs: &[&str]) -> Option<&'static str> {
        let Some(Token::Sign(sign)) = self.peek() else { return None };
        let sign = *sign;
        signs.contains(&sign).then(|| {
            self.at += 1;
            sign
        })
    }

    fn or(&mut self) -> Result<Expr> {
        let mut list = vec![self.and()?];
        while self.take_word("or") || self.take_sign(&["||"]).is_some() {
            list.push(self.and()?);
        }
        Ok(if list.len() == 1 { list.remove(0) } else { Expr::Or(list) })
    }

    fn and(&mut self) -> Result<Expr> {
        let mut list = vec![self.not()?];
        while self.take_word("and") || self.take_sign(&["&&"]).is_some() {
            list.push(self.not()?);
        }
        Ok(if list.len() == 1 { list.remove(0) } else { Expr::And(list) })
    }

    fn not(&mut self) -> Result<Expr> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(self.wrong("less nesting"));
        }
        let expr = if self.take_word("not") {
            Expr::Not(Box::new(self.not()?))
        } else if self.take_sign(&["("]).is_some() {
            let inner = self.or()?;
            self.take_sign(&[")"]).ok_or_else(|| self.wrong("`)`"))?;
            inner
        } else {
            self.test()?
        };
        self.depth -= 1;
        Ok(expr)
    }

    fn test(&mut self) -> Result<Expr> {
        let field = match self.peek() {
            Some(Token::Word(w)) => w.clone(),
            _ => return Err(self.wrong("the name of a field")),
        };
        self.at += 1;
        let (test, negated) = self.predicate()?;
        let test = Expr::Test(field, test);
        Ok(if negated { Expr::Not(Box::new(test)) } else { test })
    }

    /// What follows a field, and whether it is negated.
    fn predicate(&mut self) -> Result<(Test, bool)> {
        if self.take_word("is") {
            let not = self.take_word("not");
            if self.take_word("present") {
                return Ok((Test::Present, not));
            }
            return if self.take_word("missing") {
                Ok((Test::Present, !not))
            } else {
                Err(self.wrong("`present` or `missing`"))
            };
        }
        let not = self.take_word("not");
        if self.take_word("in") {
            return Ok((Test::In(self.list()?), not));
        }
        if self.take_word("between") {
            let low = self.number()?;
            if !self.take_word("and") {
                return Err(self.wrong("`and`"));
            }
            return Ok((Test::Range { low, low_in: true, high: self.number()?, high_in: true }, not));
        }
        if not {
            return Err(self.wrong("`in` or `between`"));
        }
        self.comparison()
    }

    fn comparison(&mut self) -> Result<(Test, bool)> {
        let signs = ["==", "=", "!=", "<", "<=", ">", ">=", "~"];
        let expected = "`==`, `!=`, `<`, `<=`, `>`, `>=`, `~`, `in`, `between` or `is`";
        let sign = self.take_sign(&signs).ok_or_else(|| self.wrong(expected))?;
        let (low, high) = (f64::NEG_INFINITY, f64::INFINITY);
        let range = |low, low_in, high, high_in| Test::Range { low, low_in, high, high_in };
        Ok(match sign {
            "~" => (Test::Contains(self.value()?), false),
            "<" => (range(low, true, self.number()?, false), false),
            "<=" => (range(low, true, self.number()?, true), false),
            ">" => (range(self.number()?, false, high, true), false),
            ">=" => (range(self.number()?, true, high, true), false),
            other => (Test::In(vec![self.value()?]), other == "!="),
        })
    }

    fn value(&mut self) -> Result<String> {
        match self.peek() {
            Some(Token::Word(w) | Token::Text(w)) => {
                let w = w.clone();
                self.at += 1;
                Ok(w)
            }
            _ => Err(self.wrong("a value")),
        }
    }

    fn number(&mut self) -> Result<f64> {
        let number = match self.peek() {
            Some(Token::Word(w) | Token::Text(w)) => w.parse().ok().filter(|v: &f64| v.is_finite()),
            _ => None,
        };
        let number = number.ok_or_else(|| self.wrong("a number"))?;
        self.at += 1;
        Ok(number)
    }

    fn list(&mut self) -> Result<Vec<String>> {
        self.take_sign(&["("]).ok_or_else(|| self.wrong("`(`"))?;
        let mut list = vec![self.value()?];
        while self.take_sign(&[","]).is_some() {
            list.push(self.value()?);
        }
        self.take_sign(&[")"]).ok_or_else(|| self.wrong("`,` or `)`"))?;
        Ok(list)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistakes_are_told_with_their_place() {
        for (text, expected) in [
            ("gender ==", "character 10: expected a value"),
            ("gender", "character 7: expected `==`"),
            ("gender == 'Men", "character 11: the quote is not closed"),
            ("(gender == Men", "character 15: expected `)`"),
            ("gender == Men year == 3", "character 15: expected `and`, `or` or the end"),
            ("year > soon", "character 8: expected a number"),
            ("gender not Men", "character 12: expected `in` or `between`"),
            ("gender in Men", "character 11: expected `(`"),
            ("é ; b", "character 3: `;` means nothing here"),
            ("== 3", "character 1: expected the name of a field"),
            ("year is new", "character 9: expected `present` or `missing`"),
        ] {
            let e = parse(text).unwrap_err();
            assert!(e.message().contains(expected), "{text}: {e}");
        }
        assert!(parse(&format!("{}a == b", "not ".repeat(100_000))).is_err());
    }
}
