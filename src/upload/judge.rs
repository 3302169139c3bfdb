//! The verdict on each part.

use std::sync::Arc;

use bytes::Bytes;

use super::{
    content_type::is_utf8,
    ending::Ending,
    fault::Fault,
    file_name,
    handle::Ledger,
    part::PartHead,
    policy::{AllowedType, UploadPolicy},
    scan::Scans,
    walk::Judge,
};

/// Judges the parts of one body.
#[derive(Debug)]
pub(super) struct PartJudge {
    policy: Arc<UploadPolicy>,
    ledger: Ledger,
    parts: usize,
    files: usize,
    current: Current,
    /// The data of the part has to be ASCII.
    ascii: bool,
    scans: Scans,
}

/// The part that is being read.
#[derive(Debug)]
enum Current {
    None,
    Field {
        left: u64,
        /// What more bytes than that are.
        over: Fault,
    },
    /// The field that says in which charset a form is: what it says.
    Charset(Vec<u8>),
    /// A file whose type is not known yet.
    New(NewFile),
    File {
        left: u64,
        ending: Ending,
    },
}

/// What is known of a file before its content.
#[derive(Debug, Default)]
pub(super) struct NewFile {
    pub(super) field: String,
    pub(super) name: Option<String>,
    pub(super) extension: Option<String>,
    /// The declared type, one that is allowed.
    pub(super) declared: Option<Arc<str>>,
}

impl PartJudge {
    pub(super) fn new(policy: Arc<UploadPolicy>, ledger: Ledger) -> Self {
        Self {
            scans: Scans::new(policy.scanner.clone(), policy.scan_timeout),
            policy,
            ledger,
            parts: 0,
            files: 0,
            current: Current::None,
            ascii: false,
        }
    }

    /// A file begins.
    pub(super) fn begin(&mut self, file: NewFile) -> Result<(), Fault> {
        self.files += 1;
        if self.files > self.policy.max_files {
            return Err(Fault::FileCount);
        }
        self.current = Current::New(file);
        Ok(())
    }

    /// The scans that are under way.
    pub(super) fn scans(&mut self) -> &mut Scans {
        &mut self.scans
    }

    pub(super) fn is_scanning(&self) -> bool {
        !self.scans.is_idle()
    }

    /// All parts were accepted.
    pub(super) fn accept(&self) {
        self.ledger.accept();
    }

    /// What the head of a file's part promises.
    fn new_file(&self, head: PartHead, name: String) -> Result<NewFile, Fault> {
        if name.len() > self.policy.max_file_name {
            return Err(Fault::NameSize);
        }
        let extension = file_name::extension(&name)?;
        let declared = match head.media_type.as_deref() {
            Some(declared) => Some(self.policy.allowed(declared).ok_or(Fault::TypeNotAllowed)?),
            None => None,
        };
        if let (Some(declared), Some(extension)) = (declared, &extension)
            && !declared.is_named(extension)
        {
            return Err(Fault::TypeMismatch);
        }
        Ok(NewFile {
            field: head.name,
            declared: declared.map(|declared| Arc::clone(&declared.name)),
            name: Some(name),
            extension,
        })
    }

    /// The type of a file: the declared one, where the content is of it; without one, the first
    /// allowed type that the content is of and the name allows.
    fn type_of(&self, file: &NewFile, head: &[u8]) -> Result<&AllowedType, Fault> {
        if let Some(declared) = &file.declared {
            let allowed = self.policy.allowed(declared).ok_or(Fault::TypeNotAllowed)?;
            return match allowed.test.holds(head) {
                true => Ok(allowed),
                false => Err(Fault::TypeMismatch),
            };
        }
        let mut fault = Fault::TypeNotAllowed;
        for allowed in &self.policy.types {
            if allowed.test.holds(head) {
                match &file.extension {
                    Some(extension) if !allowed.is_named(extension) => fault = Fault::TypeMismatch,
                    _ => return Ok(allowed),
                }
            }
        }
        Err(fault)
    }
}

impl Judge for PartJudge {
    fn part(&mut self, mut head: PartHead) -> Result<bool, Fault> {
        self.parts += 1;
        if self.parts > self.policy.max_parts {
            return Err(Fault::PartCount);
        }
        if head.name.len() > self.policy.max_name {
            return Err(Fault::NameSize);
        }
        self.ascii = head.ascii;
        let left = self.policy.max_field;
        self.current = match (head.file_name.take(), head.media_type.as_deref()) {
            // What a browser sends for a file input that was left empty.
            (Some(name), None | Some("application/octet-stream")) if name.is_empty() => {
                Current::Field {
                    left: 0,
                    over: Fault::FileName,
                }
            }
            (Some(name), _) => {
                let file = self.new_file(head, name)?;
                self.begin(file)?;
                return Ok(false);
            }
            // A reader that heeds it would read other texts than one that does not.
            (None, None) if head.name.eq_ignore_ascii_case("_charset_") => {
                Current::Charset(Vec::new())
            }
            (None, None | Some("text/plain")) => Current::Field {
                left,
                over: Fault::FieldSize,
            },
            // A file to some readers, a field to others.
            (None, Some(_)) => return Err(Fault::Disposition),
        };
        Ok(true)
    }

    fn head(&mut self, head: &[u8], _whole: bool) -> Result<(), Fault> {
        if let Current::New(file) = &mut self.current {
            let file = std::mem::take(file);
            let allowed = self.type_of(&file, head)?;
            let media_type = Arc::clone(&allowed.name);
            let ending = (allowed.ending)();
            self.ledger.begin(file, media_type, allowed.extension());
            self.scans.begin();
            self.current = Current::File {
                left: self.policy.max_file,
                ending,
            };
        }
        Ok(())
    }

    fn data(&mut self, data: &Bytes) -> Result<(), Fault> {
        let bytes = data.len() as u64;
        if self.ascii && !data.is_ascii() {
            return Err(Fault::PartEncoding);
        }
        match &mut self.current {
            Current::Charset(charset) => {
                charset.extend_from_slice(&data[..data.len().min(16)]);
                if charset.len() > 16 {
                    return Err(Fault::PartEncoding);
                }
            }
            Current::Field { left, over } => {
                *left = left.checked_sub(bytes).ok_or(*over)?;
            }
            Current::File { left, ending } => {
                *left = left.checked_sub(bytes).ok_or(Fault::FileSize)?;
                ending.feed(data)?;
                self.scans.feed(data);
            }
            Current::None | Current::New(_) => {}
        }
        Ok(())
    }

    fn part_end(&mut self) -> Result<(), Fault> {
        match &self.current {
            Current::File { left, ending } => {
                ending.finish()?;
                self.scans.end();
                self.ledger.complete(self.policy.max_file - left);
            }
            Current::Charset(charset) => {
                let utf8 = std::str::from_utf8(charset).is_ok_and(is_utf8);
                utf8.then_some(()).ok_or(Fault::PartEncoding)?;
            }
            Current::None | Current::New(_) | Current::Field { .. } => {}
        }
        self.current = Current::None;
        Ok(())
    }
}
