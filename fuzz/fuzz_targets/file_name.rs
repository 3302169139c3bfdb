//! Names of files: one that is accepted is a single safe component on any system, also after a reader
//! decodes it once more, and the name to store a file under owes nothing to it. The first byte chooses
//! the grammar.
#![no_main]

use std::{
    convert::Infallible,
    path::{Component, Path},
    sync::LazyLock,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use libfuzzer_sys::fuzz_target;
use portcullis::{
    Head,
    guarded::GuardedBody,
    upload::{CheckedUpload, UploadLayer, UploadPolicy},
};
use portcullis_fuzz::{ask, quiet};
use tower::{Layer as _, service_fn};

static LAYERS: LazyLock<[UploadLayer; 2]> = LazyLock::new(|| {
    let policy = || UploadPolicy::new(["text/plain"]).unwrap();
    [policy(), policy().compat()].map(|policy| UploadLayer::new(policy).with_context(quiet()))
});

fuzz_target!(|input: &[u8]| {
    let Some((grammar, disposition)) = input.split_first() else {
        return;
    };
    let body = [
        b"--B\r\nContent-Disposition: form-data; name=\"f\"; ",
        disposition,
        b"\r\nContent-Type: text/plain\r\n\r\nhello\r\n--B--\r\n",
    ]
    .concat();
    let handler = service_fn(async |request: Request<GuardedBody<Full<Bytes>>>| {
        let upload = CheckedUpload::of(Head::of(&request)).expect("an upload");
        request
            .into_body()
            .collect()
            .await
            .expect("it is not told of a refusal");
        for file in upload.accepted().await.expect("it was read to its end") {
            name_is_safe(file.name().expect("a part of a form has a name"));
            let stored = file.storage_name();
            let random = stored
                .strip_suffix(".txt")
                .expect("the extension of its type");
            assert!(random.len() == 32 && random.bytes().all(|byte| byte.is_ascii_hexdigit()));
        }
        Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))
    });
    let request = Request::post("/").header("content-type", "multipart/form-data; boundary=B");
    let request = request.body(Full::<Bytes>::from(body)).unwrap();
    let answer = ask(LAYERS[usize::from(grammar % 2)].layer(handler), request);
    let status = answer.status().as_u16();
    assert!(status == 200 || (400..500).contains(&status), "{status}");
});

fn name_is_safe(name: &str) {
    let mut text = name.to_owned();
    for _ in 0..2 {
        let components: Vec<_> = Path::new(&text).components().collect();
        assert!(
            matches!(components[..], [Component::Normal(only)] if only == &*text),
            "{text:?}"
        );
        assert!(
            !text.contains(['\\', ':', '"', '<', '>', '|', '*', '?', ';']),
            "{text:?}"
        );
        assert!(!text.chars().any(char::is_control), "{text:?}");
        assert!(!text.contains("..") && !text.starts_with('.') && !text.ends_with(['.', ' ']));
        text = String::from_utf8(decoded(text.as_bytes())).expect("UTF-8 once more");
    }
    // On Windows a device has every extension.
    let stem = name
        .split('.')
        .next()
        .unwrap()
        .trim_end()
        .to_ascii_uppercase();
    assert!(
        !matches!(
            stem.as_str(),
            "CON" | "PRN" | "AUX" | "NUL" | "COM1" | "LPT1"
        ),
        "{name:?}"
    );
}

fn decoded(text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some((first, behind)) = rest.split_first() {
        let digits = behind.get(..2).and_then(|two| str::from_utf8(two).ok());
        let plain = digits.filter(|two| two.bytes().all(|byte| byte.is_ascii_hexdigit()));
        match plain.filter(|_| *first == b'%') {
            Some(two) => {
                bytes.push(u8::from_str_radix(two, 16).unwrap());
                rest = &behind[2..];
            }
            None => {
                bytes.push(*first);
                rest = behind;
            }
        }
    }
    bytes
}
