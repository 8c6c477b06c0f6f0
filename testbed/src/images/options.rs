//! Command lines as `getopt_long` reads them: short options together, values attached or next,
//! operands anywhere, `--` before operands only.

use std::collections::VecDeque;

/// One option found, or an operand.
#[derive(Debug, PartialEq, Eq)]
pub enum Argument {
    /// An option by its short letter (a long one by the letter it stands for), with its value.
    Option(char, Option<String>),
    /// An operand.
    Operand(String),
}

/// What a program takes.
#[derive(Clone, Copy, Debug)]
pub struct Syntax {
    /// Short options as for `getopt`: a colon behind those with a value.
    pub short: &'static str,
    /// Long options: name, whether a value follows, the letter that stands for it.
    pub long: &'static [(&'static str, bool, char)],
}

impl Syntax {
    /// Reads arguments. The error is `getopt`'s sentence without the program's name.
    pub fn read(&self, arguments: &[String]) -> Result<Vec<Argument>, String> {
        let (mut found, mut operands) = (Vec::new(), Vec::new());
        let mut left: VecDeque<&str> = arguments.iter().map(String::as_str).collect();
        while let Some(argument) = left.pop_front() {
            if argument == "--" {
                operands.extend(left.drain(..).map(str::to_owned));
            } else if let Some(long) = argument.strip_prefix("--") {
                found.push(self.read_long(long, &mut left)?);
            } else if argument.len() > 1 && argument.starts_with('-') {
                self.read_short(&argument[1..], &mut left, &mut found)?;
            } else {
                operands.push(argument.to_owned());
            }
        }
        found.extend(operands.into_iter().map(Argument::Operand));
        Ok(found)
    }

    fn read_short(
        &self,
        letters: &str,
        left: &mut VecDeque<&str>,
        found: &mut Vec<Argument>,
    ) -> Result<(), String> {
        for (at, letter) in letters.char_indices() {
            let known = self.short.find(letter).filter(|_| letter != ':');
            let place = known.ok_or_else(|| format!("invalid option -- '{letter}'"))?;
            if !self.short[place + letter.len_utf8()..].starts_with(':') {
                found.push(Argument::Option(letter, None));
                continue;
            }
            let attached = &letters[at + letter.len_utf8()..];
            let value = match attached {
                "" => left
                    .pop_front()
                    .ok_or_else(|| format!("option requires an argument -- '{letter}'"))?,
                attached => attached,
            };
            found.push(Argument::Option(letter, Some(value.to_owned())));
            break;
        }
        Ok(())
    }

    fn read_long(&self, text: &str, left: &mut VecDeque<&str>) -> Result<Argument, String> {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (text, None),
        };
        let known = self.long.iter().find(|(known, ..)| *known == name);
        let (_, takes, letter) = known.ok_or_else(|| format!("unrecognized option '--{name}'"))?;
        let value = match (takes, value) {
            (false, Some(_)) => return Err(format!("option '--{name}' doesn't allow an argument")),
            (true, None) => Some(
                left.pop_front()
                    .ok_or_else(|| format!("option '--{name}' requires an argument"))?,
            ),
            (_, value) => value,
        };
        Ok(Argument::Option(*letter, value.map(str::to_owned)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SYNTAX: Syntax = Syntax {
        short: "qSO:T:",
        long: &[("post-data", true, 'D'), ("spider", false, 's')],
    };

    fn read(line: &str) -> Result<Vec<Argument>, String> {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        SYNTAX.read(&words)
    }

    #[test]
    fn options_join_take_values_and_mix_with_operands() {
        use Argument::{Operand, Option};
        let value = |text: &str| Some(text.to_owned());
        let found = read("-qO- -T 5 host:5000/blogs --post-data x --spider --post-data=y").unwrap();
        assert_eq!(
            found,
            [
                Option('q', None),
                Option('O', value("-")),
                Option('T', value("5")),
                Option('D', value("x")),
                Option('s', None),
                Option('D', value("y")),
                Operand("host:5000/blogs".into()),
            ]
        );
        assert_eq!(read("-- -q").unwrap(), [Operand("-q".into())]);
        assert_eq!(read("-").unwrap(), [Operand("-".into())]);
    }

    #[test]
    fn wrong_options_are_told_as_getopt_tells_them() {
        assert_eq!(read("-x").unwrap_err(), "invalid option -- 'x'");
        assert_eq!(read("-:").unwrap_err(), "invalid option -- ':'");
        assert_eq!(
            read("-T").unwrap_err(),
            "option requires an argument -- 'T'"
        );
        assert_eq!(read("--no").unwrap_err(), "unrecognized option '--no'");
        assert!(read("--spider=1").unwrap_err().contains("doesn't allow"));
    }
}
