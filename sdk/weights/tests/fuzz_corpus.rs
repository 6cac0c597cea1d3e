//! What fuzzing has found once: files that every reader must answer, again and again.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail")]

#[path = "../../../tests/fuzzing/mod.rs"]
mod fuzzing;
#[path = "../../../tests/fuzzing/weights.rs"]
mod weights;

#[global_allocator]
static MEMORY: fuzzing::Watched = fuzzing::Watched;

/// The watch over memory is one for all tests.
static TURN: std::sync::Mutex<()> = std::sync::Mutex::new(());

#[test]
fn what_was_found_once_is_answered_now() {
    let _turn = TURN.lock().unwrap();
    weights::TARGETS.iter().for_each(fuzzing::replay);
}

/// A reader with every fault that is looked for.
const FAULTY: fuzzing::Target = fuzzing::Target {
    name: "faulty",
    seeds: || vec![b"0".to_vec()],
    read: |file| match file[0] {
        b'1' => Vec::<u8>::with_capacity(100 << 20).capacity() == 0,
        byte => byte == b'0',
    },
    words: &[],
    mend: fuzzing::as_it_is,
};

#[test]
fn a_reader_that_panics_or_takes_too_much_is_found() {
    let _turn = TURN.lock().unwrap();
    assert_eq!(fuzzing::attempt(&FAULTY, b"0"), Ok(true));
    assert_eq!(fuzzing::attempt(&FAULTY, b"2"), Ok(false));
    assert_eq!(fuzzing::attempt(&FAULTY, b""), Err("it panicked".into()));
    assert!(fuzzing::attempt(&FAULTY, b"1").unwrap_err().contains("bytes at once"));
}
