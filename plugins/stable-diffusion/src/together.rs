//! Several images at once: each has its own sampler and its own noise, and the network sees all of them in one batch.
//!
//! Samplers drive their own loops, and differ in when and how often they ask. So each image runs on a thread of its own,
//! and a [`Table`] collects what they ask: once every image that is still in work waits for an answer, the one that came
//! last evaluates the network for all.

use atelier_diffusion::error;
use atelier_models::{Operations, UNet2DConditionModel};
use atelier_sdk::{EngineCtx, Error, ErrorKind, Event, Image, PreviewOf, Result, Sampler, Schedule, guard};
use candle_core::Tensor;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// What is asked of the network.
#[derive(Debug, Clone)]
pub struct Question {
    /// Latents (n, channels, height, width).
    pub sample: Tensor,
    /// Timesteps (n).
    pub timesteps: Tensor,
    /// Contexts (n, tokens, width).
    pub context: Tensor,
    /// What becomes of its inner features.
    pub deep: Deep,
}

/// The features inside of the network, between steps.
#[derive(Debug, Clone)]
pub enum Deep {
    /// Nobody wants them.
    Unwanted,
    /// They come with the answer.
    Wanted,
    /// Those of another step stand for all but the outermost layers.
    Given(Tensor),
}

impl Deep {
    fn given(&self) -> Option<&Tensor> {
        if let Self::Given(features) = self { Some(features) } else { None }
    }
}

/// What the network says.
#[derive(Debug, Clone)]
pub struct Answer {
    /// (n, channels, height, width).
    pub output: Tensor,
    /// The features, where they were wanted.
    pub deep: Option<Tensor>,
}

/// What evaluates the network.
pub trait Denoise: Send + Sync {
    /// The output.
    ///
    /// # Errors
    /// The network failed.
    fn forward(&self, question: &Question) -> Result<Answer>;
}

impl Denoise for UNet2DConditionModel {
    fn forward(&self, question: &Question) -> Result<Answer> {
        let Question { sample, timesteps, context, deep } = question;
        let answer = match deep {
            Deep::Unwanted => Self::forward(self, sample, timesteps, context).map(|output| (output, None)),
            Deep::Wanted => self.forward_kept(sample, timesteps, context).map(|(o, deep)| (o, Some(deep))),
            Deep::Given(deep) => self.forward_shallow(sample, timesteps, context, deep).map(|o| (o, None)),
        };
        let (output, deep) = answer.map_err(|e| error::model("the UNet failed", e))?;
        Ok(Answer { output, deep })
    }
}

/// Floating-point operations of the networks of a model, counted as they are used.
#[derive(Debug, Clone, Default)]
pub struct Counter(Arc<AtomicU64>);

impl Counter {
    /// Adds to them.
    pub fn add(&self, operations: Operations) {
        self.0.fetch_add(operations.total(), Ordering::Relaxed);
    }

    /// Those since the last time they were taken.
    pub fn take(&self) -> u64 {
        self.0.swap(0, Ordering::Relaxed)
    }
}

/// A UNet whose evaluations are counted.
pub struct Counted {
    unet: Arc<UNet2DConditionModel>,
    counter: Counter,
}

impl Counted {
    /// Counts what `unet` computes.
    pub fn new(unet: Arc<UNet2DConditionModel>, counter: Counter) -> Self {
        Self { unet, counter }
    }
}

impl Denoise for Counted {
    fn forward(&self, question: &Question) -> Result<Answer> {
        // Other shapes are refused by the network.
        if let ([batch, _, height, width], [_, tokens, _]) = (question.sample.dims(), question.context.dims())
        {
            let (config, size) = (self.unet.config(), (*height, *width));
            self.counter.add(match question.deep {
                Deep::Given(_) => config.shallow_operations(*batch, size, *tokens),
                Deep::Unwanted | Deep::Wanted => config.operations(*batch, size, *tokens),
            });
        }
        Denoise::forward(&*self.unet, question)
    }
}

/// Where images wait for each other.
pub struct Table {
    network: Arc<dyn Denoise>,
    state: Mutex<State>,
    answered: Condvar,
}

struct State {
    /// Images in work.
    seats: usize,
    questions: BTreeMap<usize, Question>,
    answers: BTreeMap<usize, Result<Answer>>,
}

impl Table {
    /// A table for so many images.
    pub fn new(network: Arc<dyn Denoise>, seats: usize) -> Arc<Self> {
        let state = State { seats, questions: BTreeMap::new(), answers: BTreeMap::new() };
        Arc::new(Self { network, state: Mutex::new(state), answered: Condvar::new() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Evaluates the network if everybody waits for it.
    fn answer(&self, state: &mut State) {
        if state.questions.is_empty() || state.questions.len() < state.seats {
            return;
        }
        let questions = std::mem::take(&mut state.questions);
        match guard("the network", || self.evaluate(&questions)) {
            Ok(answers) => state.answers.extend(answers.into_iter().map(|(seat, answer)| (seat, Ok(answer)))),
            Err(e) => {
                // The error itself goes to one image, and ends the others too.
                let rest = questions.keys().skip(1).map(|seat| (*seat, Err(Error::cancelled())));
                state.answers.extend(rest);
                state.answers.extend(questions.keys().next().map(|first| (*first, Err(e))));
            }
        }
        self.answered.notify_all();
    }

    /// In one batch, as far as they are alike: prompts may differ in their numbers of tokens, images in what they want.
    fn evaluate(&self, questions: &BTreeMap<usize, Question>) -> Result<Vec<(usize, Answer)>> {
        let failed = || error::tensor("evaluating images together");
        let mut alike: BTreeMap<_, Vec<(usize, &Question)>> = BTreeMap::new();
        for (seat, question) in questions {
            let given = question.deep.given().is_some();
            let wanted = matches!(question.deep, Deep::Wanted);
            let key = (&question.context.dims()[1..], given, wanted);
            alike.entry(key).or_default().push((*seat, question));
        }
        let mut answers = Vec::new();
        for group in alike.into_values() {
            let joined = |part: fn(&Question) -> Option<&Tensor>| {
                let all: Vec<&Tensor> = group.iter().filter_map(|(_, question)| part(question)).collect();
                Tensor::cat(&all, 0).map_err(failed())
            };
            let answer = self.network.forward(&Question {
                sample: joined(|q| Some(&q.sample))?,
                timesteps: joined(|q| Some(&q.timesteps))?,
                context: joined(|q| Some(&q.context))?,
                deep: match group[0].1.deep {
                    Deep::Given(_) => Deep::Given(joined(|q| q.deep.given())?),
                    ref other => other.clone(),
                },
            })?;
            let mut at = 0;
            for (seat, question) in group {
                let rows = question.sample.dim(0).map_err(failed())?;
                let part = |t: &Tensor| t.narrow(0, at, rows).map_err(failed());
                let deep = answer.deep.as_ref().map(part).transpose()?;
                answers.push((seat, Answer { output: part(&answer.output)?, deep }));
                at += rows;
            }
        }
        Ok(answers)
    }
}

/// The place of one image.
pub struct Seat {
    table: Arc<Table>,
    number: usize,
}

impl Seat {
    /// The place `number` at a table.
    pub fn new(table: &Arc<Table>, number: usize) -> Self {
        Self { table: table.clone(), number }
    }
}

impl Denoise for Seat {
    fn forward(&self, question: &Question) -> Result<Answer> {
        let mut state = self.table.state();
        state.questions.insert(self.number, question.clone());
        self.table.answer(&mut state);
        loop {
            if let Some(answer) = state.answers.remove(&self.number) {
                return answer;
            }
            state = self.table.answered.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// An image that is done, or failed, keeps nobody waiting.
impl Drop for Seat {
    fn drop(&mut self) {
        let mut state = self.table.state();
        state.seats -= 1;
        self.table.answer(&mut state);
    }
}

/// What an image says to the host.
enum Word {
    Event(Event),
    Preview(Image, PreviewOf),
}

/// The context of an image on its thread: passes on what it says. Of the steps only the first image's are told, since
/// all take them together.
struct Voice<'a> {
    words: Sender<Word>,
    stopped: &'a AtomicBool,
    first: bool,
}

impl Voice<'_> {
    fn say(&self, word: Word) -> Result<()> {
        if self.cancelled() || self.words.send(word).is_err() {
            return Err(Error::cancelled());
        }
        Ok(())
    }
}

fn elsewhere<T>() -> Result<T> {
    Err(Error::internal("this is asked of the host before images are drawn together"))
}

impl EngineCtx for Voice<'_> {
    fn event(&mut self, event: Event) -> Result<()> {
        if !self.first && matches!(event, Event::Step { .. }) {
            return if self.cancelled() { Err(Error::cancelled()) } else { Ok(()) };
        }
        self.say(Word::Event(event))
    }
    fn cancelled(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }
    fn sampler(&mut self, _: &str, _: &Value) -> Result<Box<dyn Sampler>> {
        elsewhere()
    }
    fn schedule(&mut self, _: &str, _: &Value) -> Result<Box<dyn Schedule>> {
        elsewhere()
    }
    fn input_image(&mut self, _: &str) -> Result<Image> {
        elsewhere()
    }
    fn input_bytes(&mut self, _: &str) -> Result<Vec<u8>> {
        elsewhere()
    }
    fn image(&mut self, _: Image, _: Value) -> Result<()> {
        elsewhere()
    }
    fn preview(&mut self, image: Image, of: PreviewOf) -> Result<()> {
        self.say(Word::Preview(image, of))
    }
}

/// Runs a piece of work for each image on a thread of its own, given what evaluates the network for it and a context.
///
/// # Errors
/// The first failure that is one of its own; the others are stopped by it.
pub fn run<W>(network: Arc<dyn Denoise>, work: Vec<W>, ctx: &mut dyn EngineCtx) -> Result<Vec<Vec<f32>>>
where
    W: FnOnce(Arc<dyn Denoise>, &mut dyn EngineCtx) -> Result<Vec<f32>> + Send,
{
    let table = Table::new(network, work.len());
    let stopped = AtomicBool::new(false);
    let (words, heard) = channel();
    std::thread::scope(|scope| {
        let mut threads = Vec::new();
        for (number, work) in work.into_iter().enumerate() {
            let seat: Arc<dyn Denoise> = Arc::new(Seat::new(&table, number));
            let mut voice = Voice { words: words.clone(), stopped: &stopped, first: number == 0 };
            threads.push(scope.spawn(move || {
                let result = guard("an image's sampling", || work(seat, &mut voice));
                if result.is_err() {
                    voice.stopped.store(true, Ordering::Relaxed);
                }
                result
            }));
        }
        drop(words);
        let said = pass_on(&heard, &stopped, ctx);
        let mut results = Vec::new();
        for thread in threads {
            results.push(
                thread.join().unwrap_or_else(|_| Err(Error::internal("a thread ended without a word"))),
            );
        }
        said?;
        first_failure(results)
    })
}

/// Passes on what the images say, until all are done.
fn pass_on(heard: &Receiver<Word>, stopped: &AtomicBool, ctx: &mut dyn EngineCtx) -> Result<()> {
    let mut result = Ok(());
    while let Ok(word) = heard.recv() {
        if result.is_ok() {
            result = match word {
                Word::Event(event) => ctx.event(event),
                Word::Preview(image, of) => ctx.preview(image, of),
            };
        }
        if result.is_err() || ctx.cancelled() {
            stopped.store(true, Ordering::Relaxed);
        }
    }
    result
}

/// What stopped the images: not that they were stopped.
fn first_failure(results: Vec<Result<Vec<f32>>>) -> Result<Vec<Vec<f32>>> {
    let is_cause = |r: &Result<Vec<f32>>| r.as_ref().is_err_and(|e| e.kind() != ErrorKind::Cancelled);
    match results.iter().position(is_cause) {
        Some(at) => results.into_iter().nth(at).into_iter().collect(),
        None => results.into_iter().collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device};

    /// Adds the timestep, and remembers the sizes of its batches.
    struct Adds(Mutex<Vec<usize>>);

    impl Denoise for Adds {
        fn forward(&self, question: &Question) -> Result<Answer> {
            let Question { sample, timesteps, deep, .. } = question;
            self.0.lock().unwrap().push(sample.dim(0).unwrap());
            if timesteps.max(0).unwrap().to_scalar::<f32>().unwrap() > 100.0 {
                return Err(Error::internal("too late"));
            }
            let by = match deep {
                Deep::Given(features) => features.clone(),
                Deep::Unwanted | Deep::Wanted => timesteps.reshape(((), 1, 1, 1)).unwrap(),
            };
            let deep = matches!(deep, Deep::Wanted).then(|| (&by * 100.0).unwrap());
            Ok(Answer { output: sample.broadcast_add(&by).unwrap(), deep })
        }
    }

    /// A host that hears.
    #[derive(Default)]
    struct Host(Vec<Event>);

    impl EngineCtx for Host {
        fn event(&mut self, event: Event) -> Result<()> {
            self.0.push(event);
            Ok(())
        }
        fn cancelled(&self) -> bool {
            false
        }
        fn sampler(&mut self, _: &str, _: &Value) -> Result<Box<dyn Sampler>> {
            elsewhere()
        }
        fn schedule(&mut self, _: &str, _: &Value) -> Result<Box<dyn Schedule>> {
            elsewhere()
        }
        fn input_image(&mut self, _: &str) -> Result<Image> {
            elsewhere()
        }
        fn input_bytes(&mut self, _: &str) -> Result<Vec<u8>> {
            elsewhere()
        }
        fn image(&mut self, _: Image, _: Value) -> Result<()> {
            elsewhere()
        }
    }

    /// An image that asks so many times, at this timestep, with this many tokens.
    fn image(
        times: usize,
        timestep: f32,
        tokens: usize,
    ) -> impl FnOnce(Arc<dyn Denoise>, &mut dyn EngineCtx) -> Result<Vec<f32>> + Send {
        move |network, ctx| {
            let mut x = Tensor::zeros((1, 1, 1, 2), DType::F32, &Device::Cpu).unwrap();
            let context = Tensor::zeros((1, tokens, 3), DType::F32, &Device::Cpu).unwrap();
            for step in 0..times {
                let timesteps = Tensor::new(&[timestep], &Device::Cpu).unwrap();
                let (sample, context) = (x.clone(), context.clone());
                x = network.forward(&Question { sample, timesteps, context, deep: Deep::Unwanted })?.output;
                ctx.event(Event::Step { step: step + 1, steps: times, seconds: 0.0 })?;
            }
            Ok(x.flatten_all().unwrap().to_vec1().unwrap())
        }
    }

    #[test]
    fn images_that_ask_differently_often_each_get_their_own_answers() {
        let network = Arc::new(Adds(Mutex::default()));
        let mut host = Host::default();
        let work = vec![image(3, 1.0, 2), image(1, 10.0, 2), image(2, 20.0, 2)];
        let results = run(network.clone(), work, &mut host).unwrap();
        assert_eq!(results, [[3.0, 3.0], [10.0, 10.0], [40.0, 40.0]]);
        assert_eq!(*network.0.lock().unwrap(), [3, 2, 1]);
        assert_eq!(host.0.len(), 3, "the first image's steps");
    }

    #[test]
    fn prompts_of_other_lengths_are_evaluated_apart() {
        let network = Arc::new(Adds(Mutex::default()));
        let work = vec![image(1, 1.0, 2), image(1, 2.0, 4), image(1, 3.0, 2)];
        let results = run(network.clone(), work, &mut Host::default()).unwrap();
        assert_eq!(results, [[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]]);
        assert_eq!(*network.0.lock().unwrap(), [2, 1]);
    }

    #[test]
    fn features_come_back_to_the_image_they_are_of_and_do_not_mix_with_other_questions() {
        let network = Arc::new(Adds(Mutex::default()));
        let reusing = |timestep: f32, deep: bool| {
            move |network: Arc<dyn Denoise>, _: &mut dyn EngineCtx| {
                let ask = |sample: &Tensor, deep| {
                    let timesteps = Tensor::new(&[timestep], &Device::Cpu).unwrap();
                    let context = Tensor::zeros((1, 2, 3), DType::F32, &Device::Cpu).unwrap();
                    network.forward(&Question { sample: sample.clone(), timesteps, context, deep })
                };
                let x = Tensor::zeros((1, 1, 1, 2), DType::F32, &Device::Cpu).unwrap();
                let first = ask(&x, if deep { Deep::Wanted } else { Deep::Unwanted })?;
                let second = ask(&first.output, first.deep.map_or(Deep::Unwanted, Deep::Given))?;
                Ok(second.output.flatten_all().unwrap().to_vec1().unwrap())
            }
        };
        let work = vec![reusing(1.0, true), reusing(2.0, true), reusing(3.0, false)];
        let results = run(network.clone(), work, &mut Host::default()).unwrap();
        assert_eq!(results, [[101.0, 101.0], [202.0, 202.0], [6.0, 6.0]]);
        assert_eq!(*network.0.lock().unwrap(), [1, 2, 1, 2]);
    }

    #[test]
    fn one_image_s_failure_is_told_and_ends_all() {
        let network = Arc::new(Adds(Mutex::default()));
        let e = run(network.clone(), vec![image(9, 1.0, 2), image(9, 101.0, 2)], &mut Host::default());
        assert_eq!(e.unwrap_err().message(), "too late");
        type Work = Box<dyn FnOnce(Arc<dyn Denoise>, &mut dyn EngineCtx) -> Result<Vec<f32>> + Send>;
        let bad: Work = Box::new(|_, _| panic!("no"));
        let good: Work = Box::new(image(2, 1.0, 2));
        let e = run(network, vec![bad, good], &mut Host::default()).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Panic);
    }
}
