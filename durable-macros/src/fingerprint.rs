//! A fingerprint of a function's code: the same for the same tokens, whatever their comments and their layout.
//!
//! It says that code has changed, not what the change means: a rename of a variable changes it, and what the function calls
//! is not in it.

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use quote::ToTokens;

use crate::function::Function;

/// The fingerprint of a function, as 16 hexadecimal digits.
pub(crate) fn of(function: &Function) -> String {
    let mut hash = Fnv::default();
    let inputs = &function.signature.inputs;
    let output = &function.signature.output;
    hash.tokens(inputs.to_token_stream());
    hash.tokens(output.to_token_stream());
    hash.tokens(function.body.to_token_stream());
    format!("{:016x}", hash.0)
}

/// FNV-1a: it has to be the same in every build and with every compiler, and nobody tries to deceive it.
struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Fnv {
    fn word(&mut self, word: &str) {
        // A byte that no text holds ends each word.
        for byte in word.bytes().chain([0xff]) {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    fn tokens(&mut self, tokens: TokenStream) {
        let mut tokens = tokens.into_iter().peekable();
        while let Some(token) = tokens.next() {
            match token {
                TokenTree::Punct(punct) if punct.as_char() == '#' && is_doc(tokens.peek()) => drop(tokens.next()),
                // Comes and goes with the layout.
                TokenTree::Punct(punct) if punct.as_char() == ',' && tokens.peek().is_none() => {}
                TokenTree::Punct(punct) => self.word(punct.as_char().encode_utf8(&mut [0; 4])),
                TokenTree::Ident(ident) => self.word(&ident.to_string()),
                TokenTree::Literal(literal) => self.word(&literal.to_string()),
                TokenTree::Group(group) => {
                    let (open, close) = match group.delimiter() {
                        Delimiter::Parenthesis => ("(", ")"),
                        Delimiter::Brace => ("{", "}"),
                        Delimiter::Bracket => ("[", "]"),
                        Delimiter::None => ("", ""),
                    };
                    self.word(open);
                    self.tokens(group.stream());
                    self.word(close);
                }
            }
        }
    }
}

/// Whether this is the rest of a documentation comment.
fn is_doc(token: Option<&TokenTree>) -> bool {
    let Some(TokenTree::Group(group)) = token else { return false };
    let first = group.stream().into_iter().next();
    matches!(first, Some(TokenTree::Ident(ident)) if ident == "doc")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn print(code: &str) -> String {
        of(&syn::parse_str(code).expect("a function"))
    }

    #[test]
    fn comments_and_layout_do_not_count() {
        let plain = print("async fn f(ctx: &Ctx, n: i64) -> Result<i64> { ctx.run(add(n, 1)).await }");
        let other = "/// Adds.\npub async fn f(\n    ctx: &Ctx,\n    n: i64,\n) -> Result<i64> {\n    /* one */ ctx\n        \
                     .run(add(\n n,\n 1,\n)) // more\n        .await\n}";
        assert_eq!(plain, print(other));
        assert_eq!(print("fn f() { /// a\n let a = 1; }"), print("fn f() { let a = 1; }"));
        assert_eq!(plain.len(), 16);
    }

    #[test]
    fn code_counts() {
        let codes = [
            "fn f() { run(a()) }",
            "fn f() { run(b()) }",
            "fn f() { run(a()); }",
            "fn f() { run(a(1)) }",
            "fn f() { run(a(\"1\")) }",
            "fn f() { run([a()]) }",
            "fn f() { ru(na()) }",
            "fn f(n: i64) { run(a()) }",
            "fn f() -> i64 { run(a()) }",
        ];
        let prints: std::collections::BTreeSet<String> = codes.into_iter().map(print).collect();
        assert_eq!(prints.len(), codes.len());
    }
}
