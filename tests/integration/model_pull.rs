//! `atelier models pull` against servers that behave, and servers that do not.

use crate::model_server::{COMMIT, Reply, Request, Server, hub, linked, sha256};
use crate::support::{Place, Said, names, root};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes enough for several reads.
fn content() -> Vec<u8> {
    (0..2_000_000u32).flat_map(|i| i.wrapping_mul(0x9E37_79B9).to_le_bytes()).take(1_500_000).collect()
}

/// A place with model `m`, whose only file `w.bin` is described by `lines` below `path:`.
fn place(lines: &str) -> Place {
    let place = Place::with_own_configs();
    let head = "schema_version: 1\nkey: m\ntitle: t\narchitecture: sd\nlicense: MIT\nsource: here\n";
    place.write("configs/models/m.yaml", format!("{head}files:\n- path: w.bin\n{lines}"));
    place
}

fn on_hub(extra: &str) -> Place {
    place(&format!("{extra}  from: [{{hub: o/n}}]\n"))
}

fn command(place: &Place, hub: &str, args: &[&str]) -> Command {
    let mut command = place.command();
    for name in ["HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"] {
        command.env_remove(name);
    }
    for name in ["HF_TOKEN_PATH", "HF_HUB_OFFLINE", "PIP_INDEX_URL", "ATELIER_PYPI_INDEX"] {
        command.env_remove(name);
    }
    for name in ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"] {
        command.env_remove(name);
    }
    command.env("HF_ENDPOINT", hub).args(args);
    command
}

fn pull(place: &Place, hub: &str) -> Said {
    command(place, hub, &["models", "pull", "m"]).output().unwrap().into()
}

fn model(place: &Place) -> PathBuf {
    place.path("data/atelier/models/m/w.bin")
}

fn repo(place: &Place) -> PathBuf {
    place.path("cache/huggingface/hub/models--o--n")
}

/// A hub that keeps its only file on another server, which `store` speaks for.
fn two(content: &[u8], store: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> (Server, Server) {
    let store = Server::start(store);
    let (about, to) = (content.to_vec(), format!("{}/blob?signature=secret", store.url));
    (Server::start(move |_| linked(&about, &to)), store)
}

#[test]
fn a_file_comes_through_the_hubs_cache_as_python_tools_lay_it_out() {
    let content = content();
    let given = content.clone();
    let (hub, store) = two(&content, move |r| Reply::content(r, &given));
    let place = on_hub(&format!("  sha256: {}\n  size: {}\n", sha256(&content), content.len()));
    let said =
        command(&place, &hub.url, &["models", "pull", "m"]).env("HF_TOKEN", "hf_abc").output().unwrap();
    let said = Said::from(said).ok();
    assert!(said.out.contains("licence  MIT") && said.out.contains("m is ready"), "{said:?}");

    let repo = repo(&place);
    assert_eq!(std::fs::read(repo.join("blobs").join(sha256(&content))).unwrap(), content);
    assert_eq!(std::fs::read_to_string(repo.join("refs/main")).unwrap(), COMMIT);
    let snapshot = repo.join("snapshots").join(COMMIT).join("w.bin");
    assert_eq!(std::fs::read_link(&snapshot).unwrap(), Path::new("../../blobs").join(sha256(&content)));
    assert_eq!(std::fs::read(model(&place)).unwrap(), content);

    // The token goes to the hub, and to nobody else.
    assert!(hub.requests().iter().all(|r| r.headers["authorization"] == "Bearer hf_abc"));
    assert!(store.requests().iter().all(|r| !r.headers.contains_key("authorization")));

    let before = hub.requests().len();
    let again = pull(&place, &hub.url).ok();
    assert!(again.out.contains("was there"), "{again:?}");
    assert_eq!(hub.requests().len(), before, "nothing is asked for a model that is there");
}

#[test]
fn a_pulled_model_draws() {
    let folder = root().join("tests/fixtures/golden/tiny-sd");
    let mut files = BTreeMap::new();
    let mut list = String::new();
    collect(&folder, "", &mut |name, bytes| {
        list += &format!("- path: {name}\n  from: [{{hub: o/n}}]\n");
        files.insert(name.to_string(), bytes);
    });
    let hub = hub(files);
    let place = Place::with_own_configs();
    let head = "schema_version: 1\nkey: m\ntitle: t\narchitecture: sd\nlicense: MIT\n";
    place.write("configs/models/m.yaml", format!("{head}files:\n{list}"));
    let ask = [
        "generate",
        "--task",
        "txt2img",
        "--model",
        "m",
        "-s",
        "prompt=x",
        "-s",
        "width=64",
        "-s",
        "height=64",
    ];
    place.run(&ask).fails(4, &["atelier models pull m"]);
    let listed = place.run(&["models", "list"]).ok();
    assert!(listed.out.contains("missing: atelier models pull m"), "{listed:?}");

    let said = pull(&place, &hub.url).ok();
    assert!(said.out.contains("first seen"), "without a digest in the description: {said:?}");
    place.generate(&[
        "--task",
        "txt2img",
        "--model",
        "m",
        "-s",
        "prompt=x",
        "-s",
        "width=64",
        "-s",
        "height=64",
        "-s",
        "steps=2",
    ]);
    let listed = place.run(&["models", "list", "--json"]).ok().json();
    assert_eq!((&listed[0]["state"], &listed[0]["present"]), (&"ready".into(), &true.into()));
    assert!(listed[0]["bytes"].as_u64().unwrap() > 100_000);
}

fn collect(folder: &Path, prefix: &str, each: &mut dyn FnMut(&str, Vec<u8>)) {
    for name in names(folder) {
        let path = folder.join(&name);
        if path.is_dir() {
            collect(&path, &format!("{prefix}{name}/"), each);
        } else {
            each(&format!("{prefix}{name}"), std::fs::read(path).unwrap());
        }
    }
}

#[test]
fn a_connection_that_breaks_is_resumed_where_it_broke() {
    let content = content();
    let (given, times) = (content.clone(), AtomicUsize::new(0));
    let (hub, store) = two(&content, move |r| {
        let cut = (times.fetch_add(1, Ordering::Relaxed) < 2).then_some(400_000);
        Reply { cut, ..Reply::content(r, &given) }
    });
    let place = on_hub("");
    pull(&place, &hub.url).ok();
    assert_eq!(std::fs::read(model(&place)).unwrap(), content);
    let from: Vec<_> = store.gets().iter().map(Request::from).collect();
    assert_eq!(from, [None, Some(400_000), Some(800_000)]);
}

#[test]
fn what_a_killed_pull_left_is_resumed_by_the_next() {
    let content = content();
    let (given, times) = (content.clone(), AtomicUsize::new(0));
    let (hub, store) = two(&content, move |r| {
        let stall = (times.fetch_add(1, Ordering::Relaxed) == 0).then_some(700_000);
        Reply { stall, ..Reply::content(r, &given) }
    });
    let place = on_hub("");
    let mut child = command(&place, &hub.url, &["models", "pull", "m"]).spawn().unwrap();
    let part = repo(&place).join("blobs").join(format!("{}.incomplete", sha256(&content)));
    let began = std::time::Instant::now();
    while std::fs::metadata(&part).map_or(0, |m| m.len()) < 700_000 {
        assert!(began.elapsed().as_secs() < 20, "nothing comes");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!model(&place).exists(), "nothing is in place before it is whole");

    pull(&place, &hub.url).ok();
    assert_eq!(std::fs::read(model(&place)).unwrap(), content);
    assert_eq!(store.gets()[1].from(), Some(700_000));
    assert!(!part.exists());
}

/// A pull that finds the first 500,000 bytes of something.
fn with_beginning(
    beginning: &[u8],
    store: impl Fn(&Request) -> Reply + Send + Sync + 'static,
) -> (Said, Server, Place) {
    let content = content();
    let (hub, store) = two(&content, store);
    let place = on_hub("");
    let blobs = repo(&place).join("blobs");
    std::fs::create_dir_all(&blobs).unwrap();
    std::fs::write(blobs.join(format!("{}.incomplete", sha256(&content))), beginning).unwrap();
    (pull(&place, &hub.url), store, place)
}

#[test]
fn a_server_that_ignores_ranges_or_gives_others_is_read_from_the_start() {
    let all = content();
    let (said, store, place) =
        with_beginning(&all[..500_000], |_| Reply { body: content(), ..Reply::new(200) });
    said.ok();
    assert_eq!((std::fs::read(model(&place)).unwrap(), store.gets()[0].from()), (all.clone(), Some(500_000)));

    let (said, _, place) = with_beginning(&all[..500_000], |r| match r.from() {
        Some(_) => Reply {
            body: content()[9..].to_vec(),
            ..Reply::new(206).with("content-range", "bytes 9-1499999/1500000")
        },
        None => Reply { body: content(), ..Reply::new(200) },
    });
    said.ok();
    assert_eq!(std::fs::read(model(&place)).unwrap(), all);
}

#[test]
fn a_beginning_of_something_else_is_thrown_away() {
    for beginning in [vec![7; 500_000], vec![7; 1_500_000], vec![7; 1_600_000]] {
        let (said, _, place) = with_beginning(&beginning, |r| Reply::content(r, &content()));
        said.ok();
        assert_eq!(std::fs::read(model(&place)).unwrap(), content());
    }
}

#[test]
fn another_digest_is_refused_and_leaves_nothing() {
    // The store gives something else than the hub says.
    let (hub, _store) = two(&content(), |r| Reply::content(r, &vec![1; 1_500_000]));
    let at_store = on_hub("");
    pull(&at_store, &hub.url).fails(7, &["another sha256", &sha256(&content())]);
    assert!(!model(&at_store).exists());
    assert_eq!(names(&repo(&at_store).join("blobs")), [""; 0]);

    // The hub has something else than the description says: nothing is fetched at all.
    let (hub, store) = two(&content(), |r| Reply::content(r, &content()));
    pull(&on_hub(&format!("  sha256: {}\n", "ab".repeat(32))), &hub.url)
        .fails(7, &["another sha256", "abab"]);
    pull(&on_hub("  size: 5\n"), &hub.url).fails(7, &["another length", "expected 5 bytes", "1500000"]);
    assert_eq!(store.gets().len(), 0);

    // An address says nothing beforehand.
    let server = Server::start(|r| Reply::content(r, &content()));
    let place = place(&format!("  sha256: {}\n  from: [{{url: '{}/w'}}]\n", "ab".repeat(32), server.url));
    pull(&place, &server.url).fails(7, &["another sha256"]);
    assert_eq!(names(&place.path("data/atelier/models/m")), [".pull.lock"]);
}

#[test]
fn another_length_is_refused() {
    let server = Server::start(|r| Reply::content(r, &content()));
    let ask = |size: usize| {
        let place = place(&format!("  size: {size}\n  from: [{{url: '{}/w'}}]\n", server.url));
        pull(&place, &server.url)
    };
    ask(1_500_001).fails(7, &["another length", "expected 1500001", "found 1500000"]);
    ask(7).fails(7, &["another length"]);
    ask(1_500_000).ok();
}

#[test]
fn the_digest_of_the_first_pull_counts_from_then_on() {
    let times = AtomicUsize::new(0);
    let server = Server::start(move |r| {
        let version = times.fetch_add(1, Ordering::Relaxed);
        Reply::content(r, &vec![if version == 0 { b'a' } else { b'b' }; 1000])
    });
    let place = place(&format!("  from: [{{url: '{}/w'}}]\n", server.url));
    pull(&place, &server.url).ok();
    std::fs::remove_file(model(&place)).unwrap();
    pull(&place, &server.url).fails(7, &["another sha256", "the first pull had"]);
    assert!(!model(&place).exists());
}

#[test]
fn a_refusal_says_what_to_do() {
    let status = |status: u16, code: &'static str| {
        let hub = Server::start(move |_| Reply::new(status).with("x-error-code", code));
        let said = pull(&on_hub(""), &hub.url);
        assert_eq!(hub.requests().len(), 1, "it is not asked again");
        said
    };
    status(401, "GatedRepo").fails(6, &["wants a token", "HF_TOKEN"]);
    status(403, "GatedRepo").fails(6, &["does not let you", "accept its conditions"]);
    status(404, "EntryNotFound").fails(4, &["no such file"]);
    status(404, "RevisionNotFound").fails(4, &["no such revision"]);
    status(418, "").fails(6, &["status 418"]);
    let hub = Server::start(|_| Reply::new(200));
    pull(&on_hub(""), &hub.url).fails(6, &["does not answer as a hub does", "HF_ENDPOINT"]);
    pull(&on_hub(""), "http://127.0.0.1:9").fails(6, &["cannot reach", "tried 5 times"]);
}

#[test]
fn a_server_in_trouble_is_asked_again() {
    for status in [429, 500, 503] {
        let (times, given) = (AtomicUsize::new(0), content());
        let about = given.clone();
        let hub = Server::start(move |r| match times.fetch_add(1, Ordering::Relaxed) {
            0 | 2 => Reply::new(status).with("retry-after", 0),
            _ => Reply::content(r, &given).with("x-repo-commit", COMMIT).with("etag", sha256(&about)),
        });
        let place = on_hub("");
        let said = pull(&place, &hub.url).ok();
        assert!(said.err.contains(&format!("({status})")) && said.err.contains("trying again"), "{said:?}");
        assert_eq!(std::fs::read(model(&place)).unwrap(), content());
    }
    let hub = Server::start(|_| Reply::new(503).with("retry-after", 0));
    pull(&on_hub(""), &hub.url).fails(6, &["failure (503)", "tried 5 times"]);
    assert_eq!(hub.requests().len(), 5);
}

#[test]
fn redirects_that_lead_nowhere_end() {
    let hub = Server::start(|r| Reply::redirect(format!("{}x", r.path)));
    pull(&on_hub(""), &hub.url).fails(6, &["redirects without end"]);
    let elsewhere = Server::start(|r| Reply::redirect(&r.path));
    let (hub, _store) = two(&content(), move |_| Reply::redirect(&elsewhere.url));
    pull(&on_hub(""), &hub.url).fails(6, &["redirects without end"]);
    let (hub, _store) = two(&content(), |_| Reply::redirect("file:///etc/passwd"));
    pull(&on_hub(""), &hub.url).fails(6, &["an address of kind `file`"]);
}

#[test]
fn a_name_from_the_server_does_not_lead_out_of_the_cache() {
    for (commit, etag) in [("../../../x", "abc"), (COMMIT, "../../../x"), (COMMIT, "")] {
        let hub = Server::start(move |r| {
            Reply::content(r, b"x").with("x-repo-commit", commit).with("etag", format!("\"{etag}\""))
        });
        pull(&on_hub(""), &hub.url).fails(6, &["cannot be a file's name"]);
    }
}

#[test]
fn a_token_is_not_sent_unencrypted_to_another_machine() {
    let said: Said = command(&on_hub(""), "http://hub.invalid", &["models", "pull", "m"])
        .env("HF_TOKEN", "hf_abc")
        .output()
        .unwrap()
        .into();
    said.fails(3, &["the token is not sent", "unencrypted"]);
}

#[test]
fn two_pulls_at_once_fetch_a_file_once() {
    let given = content();
    let (hub, store) = two(&content(), move |r| {
        std::thread::sleep(std::time::Duration::from_millis(300));
        Reply::content(r, &given)
    });
    let place = on_hub("");
    // Another model's folder and record, the same blob.
    let text = std::fs::read_to_string(place.path("configs/models/m.yaml")).unwrap();
    place.write("configs/models/n.yaml", text.replace("key: m", "key: n"));
    let start = |key| command(&place, &hub.url, &["models", "pull", key]).spawn().unwrap();
    for mut child in [start("m"), start("m"), start("n")] {
        assert!(child.wait().unwrap().success());
    }
    assert_eq!(store.gets().len(), 1);
    assert_eq!(std::fs::read(model(&place)).unwrap(), content());
    assert_eq!(std::fs::read(place.path("data/atelier/models/n/w.bin")).unwrap(), content());
}

#[test]
fn what_python_tools_fetched_is_not_fetched_again_but_read() {
    let content = content();
    let (hub, store) = two(&content, |r| Reply::content(r, &crate::model_pull::content()));
    for (there, fetched) in [(content.clone(), 0), (vec![3; 1_500_000], 1)] {
        let place = on_hub("");
        let blobs = repo(&place).join("blobs");
        std::fs::create_dir_all(&blobs).unwrap();
        std::fs::write(blobs.join(sha256(&content)), there).unwrap();
        let before = store.gets().len();
        pull(&place, &hub.url).ok();
        assert_eq!(store.gets().len() - before, fetched);
        assert_eq!(std::fs::read(model(&place)).unwrap(), content);

        // Offline, what the cache has is enough; and a name elsewhere is found there.
        std::fs::remove_dir_all(place.path("data")).unwrap();
        let offline = |home: &str| -> Said {
            let mut c = command(&place, "http://127.0.0.1:9", &["models", "pull", "m"]);
            c.env("HF_HUB_OFFLINE", "1").env("HF_HOME", place.path(home)).output().unwrap().into()
        };
        offline("cache/huggingface").ok();
        assert_eq!(std::fs::read(model(&place)).unwrap(), content);
        std::fs::remove_dir_all(place.path("data")).unwrap();
        offline("elsewhere").fails(4, &["HF_HUB_OFFLINE is set", "not in the cache"]);
    }
}

fn wheel(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, bytes) in files {
        let options =
            zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Deflated);
        zip.start_file(*name, options).unwrap();
        std::io::Write::write_all(&mut zip, bytes).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

#[test]
fn files_come_out_of_archives_and_wheels() {
    let content = content();
    let whole = wheel(&[("p/models/w.bin", &content), ("p/models/v.bin", b"v")]);
    let digest = sha256(&whole);
    for json in [true, false] {
        let (whole, digest) = (whole.clone(), digest.clone());
        let server = Server::start(move |r| {
            match r.path.as_str() {
            "/simple/some-package/" if json => Reply {
                body: format!(
                    r#"{{"files":[{{"filename":"some_package-1-py3-none-any.whl","url":"../../files/w.whl","hashes":{{"sha256":"{digest}"}}}}]}}"#
                )
                .into_bytes(),
                ..Reply::new(200)
            },
            "/simple/some-package/" => Reply {
                body: format!("<a href=\"/files/w.whl#sha256={digest}\">some_package-1-py3-none-any.whl</a>").into_bytes(),
                ..Reply::new(200)
            },
            "/files/w.whl" => Reply::content(r, &whole),
            _ => Reply::new(404),
        }
        });
        let wheel = "pypi: Some.Package, archive: some_package-1-py3-none-any.whl";
        let more = format!("- path: deep/v.bin\n  from: [{{{wheel}, inside: p/models/v.bin}}]\n");
        let place = place(&format!("  from: [{{{wheel}, inside: p/models/w.bin}}]\n{more}"));
        let mut asked = command(&place, &server.url, &["models", "pull", "m", "--json"]);
        let index = server.url.replace("http://", "http://me:pass%20word@");
        let said: Said = asked.env("PIP_INDEX_URL", format!("{index}/simple")).output().unwrap().into();
        let pulled = said.ok().json();
        assert_eq!(pulled[0]["files"][0]["sha256"], sha256(&content));
        assert!(pulled[0]["files"][0]["from"].as_str().unwrap().ends_with("/files/w.whl#p/models/w.bin"));
        let folder = place.path("data/atelier/models/m");
        assert_eq!(std::fs::read(folder.join("w.bin")).unwrap(), content);
        assert_eq!(names(&folder), [".pull.lock", ".pulled.json", "deep", "w.bin"]);
        assert_eq!(server.requests().iter().filter(|r| r.path == "/files/w.whl").count(), 1);
        assert!(server.requests().iter().all(|r| r.headers["authorization"] == "Basic bWU6cGFzcyB3b3Jk"));
    }
}

#[test]
fn an_archive_that_is_none_or_lacks_the_file_is_told() {
    let ask = |whole: Vec<u8>, lines: &str| {
        let server = Server::start(move |r| Reply::content(r, &whole));
        let place = place(&format!("{lines}  from: [{{url: '{}/x.zip', inside: a/w.bin}}]\n", server.url));
        let said = pull(&place, &server.url);
        assert!(!model(&place).exists());
        said
    };
    ask(vec![0; 5000], "").fails(7, &["not a zip archive"]);
    ask(wheel(&[("a/v.bin", b"x")]), "").fails(4, &["there is no a/w.bin", "a/v.bin"]);
    ask(wheel(&[("a/w.bin", &[0; 100_000])]), "  size: 10\n").fails(7, &["another length"]);
    ask(wheel(&[("a/w.bin", b"x")]), &format!("  sha256: {}\n", "ab".repeat(32)))
        .fails(7, &["another sha256"]);
    let whole = wheel(&[("a/w.bin", &content())]);
    let mut broken = whole.clone();
    broken[whole.len() / 2] ^= 0xff;
    ask(broken, "").fails(7, &["cannot read a/w.bin"]);
}

#[test]
fn the_next_place_is_tried_when_one_fails() {
    let gone = Server::start(|_| Reply::new(404));
    let good = Server::start(|r| Reply::content(r, &content()));
    let lines = |second: &str| format!("  from:\n  - hub: o/n\n  - url: {second}/w\n");
    let place_of = |second: &str| place(&lines(second));
    let here = place_of(&good.url);
    let said = pull(&here, &gone.url).ok();
    assert!(said.err.contains("hub o/n") && model(&here).exists(), "{said:?}");
    pull(&place_of(&gone.url), &gone.url).fails(4, &["none of its 2 places", "hub o/n", &gone.url]);
}

#[test]
fn terms_must_be_accepted() {
    let server = Server::start(|r| Reply::content(r, &content()));
    let place = place(&format!("  from: [{{url: '{}/w'}}]\nterms: https://terms.example\n", server.url));
    pull(&place, &server.url).fails(3, &["terms to accept", "https://terms.example", "--accept-licence"]);
    assert_eq!(server.requests().len(), 0);
    let with = |args: &[&str]| Said::from(command(&place, &server.url, args).output().unwrap());
    with(&["models", "pull", "m", "--dry-run"]).ok();
    assert_eq!(server.requests().len(), 0);
    with(&["models", "pull", "m", "--accept-licence"]).ok();
    pull(&place, &server.url).ok();
}

#[test]
fn models_without_files_to_pull_and_unknown_models_are_told() {
    let place = Place::new();
    place.run(&["models", "pull", "tiny"]).fails(4, &["no files to pull"]);
    place.run(&["models", "pull", "nothing"]).fails(4, &["nothing"]);
    on_hub("  sha1: x\n").run(&["models", "list"]).fails(3, &["unknown field `sha1` in files[0]"]);
}

#[test]
fn a_place_that_cannot_be_written_is_told() {
    let server = Server::start(|r| Reply::content(r, &content()));
    let place = place(&format!("  from: [{{url: '{}/w'}}]\n", server.url));
    place.write("data", "a file, where a folder is wanted");
    pull(&place, &server.url).fails(6, &["cannot write", "data"]);
}

/// A disk that is full cannot be had by every user; a limit on the length of files says the same to a writer.
#[cfg(target_os = "linux")]
#[test]
fn a_disk_that_is_full_keeps_what_came() {
    use std::os::unix::process::CommandExt;
    let server = Server::start(|r| Reply::content(r, &content()));
    let place = place(&format!("  from: [{{url: '{}/w'}}]\n", server.url));
    let mut limited = command(&place, &server.url, &["models", "pull", "m"]);
    // SAFETY: both calls are safe between fork and exec.
    unsafe {
        limited.pre_exec(|| {
            let limit = libc::rlimit { rlim_cur: 600_000, rlim_max: libc::RLIM_INFINITY };
            libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
            libc::setrlimit(libc::RLIMIT_FSIZE, &limit);
            Ok(())
        });
    }
    Said::from(limited.output().unwrap()).fails(6, &["cannot write", "w.bin.incomplete", "pull again"]);
    assert!(!model(&place).exists());
    pull(&place, &server.url).ok();
    assert_eq!(server.gets()[1].from(), Some(600_000));
    assert_eq!(std::fs::read(model(&place)).unwrap(), content());
}
