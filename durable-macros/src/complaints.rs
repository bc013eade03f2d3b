//! The mistakes that were found in one use of a macro, each at its token.
//!
//! What counts as a mistake is said where it is looked for: `options` for the attribute's arguments,
//! `check` for the function.

use proc_macro2::TokenStream;
use quote::ToTokens;

/// Collects mistakes instead of stopping at the first, so that one build shows them all.
#[derive(Default)]
pub(crate) struct Complaints(Vec<syn::Error>);

impl Complaints {
    /// Complain about `tokens`, which the compiler will underline.
    pub(crate) fn at(&mut self, tokens: impl ToTokens, message: impl std::fmt::Display) {
        self.0.push(syn::Error::new_spanned(tokens, message));
    }

    pub(crate) fn add(&mut self, error: syn::Error) {
        self.0.push(error);
    }

    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// One `compile_error!` for every mistake; nothing when there is none.
    pub(crate) fn into_compile_errors(self) -> TokenStream {
        self.0.iter().map(syn::Error::to_compile_error).collect()
    }

    #[cfg(test)]
    pub(crate) fn messages(&self) -> Vec<String> {
        self.0.iter().map(ToString::to_string).collect()
    }
}
