//! Text: what is none, and what in it a browser or an interpreter runs.

use super::fault::Fault;

/// UTF-8 without control characters.
#[derive(Debug, Default)]
pub(super) struct Utf8 {
    /// A character that a piece cut.
    cut: Vec<u8>,
}

impl Utf8 {
    pub(super) fn is_whole(&self) -> bool {
        self.cut.is_empty()
    }

    pub(super) fn feed(&mut self, mut data: &[u8]) -> Result<(), Fault> {
        while !self.cut.is_empty() {
            let [first, rest @ ..] = data else {
                return Ok(());
            };
            self.cut.push(*first);
            data = rest;
            match std::str::from_utf8(&self.cut) {
                Ok(_) => self.cut.clear(),
                Err(error) if error.error_len().is_none() => {}
                Err(_) => return Err(Fault::Content),
            }
        }
        if let Err(error) = std::str::from_utf8(data) {
            if error.error_len().is_some() {
                return Err(Fault::Content);
            }
            self.cut.extend_from_slice(&data[error.valid_up_to()..]);
        }
        let control = |byte: &u8| *byte < b' ' && !matches!(byte, b'\t' | b'\n' | b'\r' | b'\x0c');
        if data.iter().any(control) {
            return Err(Fault::Content);
        }
        Ok(())
    }
}

/// Text, and nothing in it that a browser or an interpreter runs.
#[derive(Debug, Default)]
pub(super) struct Text {
    encoding: Utf8,
    /// The last bytes, which may begin a forbidden word.
    last: Vec<u8>,
}

impl Text {
    pub(super) fn is_whole(&self) -> bool {
        self.encoding.is_whole()
    }

    pub(super) fn feed(&mut self, data: &[u8]) -> Result<(), Fault> {
        self.encoding.feed(data)?;
        self.words(data)
    }

    /// Looks for what opens active content, across pieces too.
    fn words(&mut self, data: &[u8]) -> Result<(), Fault> {
        let longest = ACTIVE.iter().map(|word| word.len()).max().unwrap_or(0);
        let seam = data.len().min(longest - 1);
        self.last.extend_from_slice(&data[..seam]);
        if opens_active(&self.last) || opens_active(data) {
            return Err(Fault::ActiveText);
        }
        if data.len() > seam {
            self.last.clear();
            self.last
                .extend_from_slice(&data[data.len() - (longest - 1)..]);
        } else {
            let surplus = self.last.len().saturating_sub(longest - 1);
            self.last.drain(..surplus);
        }
        Ok(())
    }
}

fn opens_active(text: &[u8]) -> bool {
    memchr::memchr_iter(b'<', text).any(|at| {
        let rest = &text[at..];
        ACTIVE.iter().any(|word| {
            rest.get(..word.len())
                .is_some_and(|begin| begin.eq_ignore_ascii_case(word))
        })
    })
}

/// What opens a page, a script or a program in text.
const ACTIVE: &[&[u8]] = &[
    b"<!doctype html",
    b"<html",
    b"<head",
    b"<body",
    b"<script",
    b"<iframe",
    b"<object",
    b"<embed",
    b"<svg",
    b"<?php",
    b"<?xml",
    b"<?=",
    b"<%",
];
