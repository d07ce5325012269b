//! One line for an error and everything below it.

use std::error::Error;

/// Returns the error and its sources as `outermost: cause: root cause`.
///
/// Errors of this project leave their source out of `Display`; several libraries (kube among them) print
/// it. A source whose text the line already holds is therefore left out. Call it once, where an error
/// is handled, and log the result in the field `error`.
pub fn report(error: &dyn Error) -> String {
    let mut line = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        let text = source.to_string();
        if !text.is_empty() && !line.contains(&text) {
            line.push_str(": ");
            line.push_str(&text);
        }
        next = source.source();
    }
    line
}

#[cfg(test)]
mod tests {
    use super::report;
    use std::{error::Error, fmt};

    #[derive(Debug)]
    struct Layer(&'static str, Option<Box<Layer>>);

    impl fmt::Display for Layer {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }
    }

    impl Error for Layer {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            self.1.as_deref().map(|layer| layer as &dyn Error)
        }
    }

    fn chain(texts: &[&'static str]) -> Layer {
        let (first, rest) = texts.split_first().expect("at least one text");
        Layer(first, (!rest.is_empty()).then(|| Box::new(chain(rest))))
    }

    #[test]
    fn the_chain_is_one_line_from_the_outside_in() {
        assert_eq!(
            report(&chain(&["apply failed", "conflict", "field x"])),
            "apply failed: conflict: field x"
        );
    }

    #[test]
    fn a_message_that_prints_its_source_is_not_repeated() {
        assert_eq!(report(&chain(&["api error: gone", "gone", "disk"])), "api error: gone: disk");
    }
}
