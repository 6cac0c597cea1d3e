//! Everything that was found: one registry for each kind of plugin.

use crate::builtin;
use crate::found::Folders;
use crate::items::{EngineItem, Origin, Part, SamplerItem, ScheduleItem, TaskItem};
use crate::manifest;
use crate::paths::Paths;
use crate::plugins::catalog::{Catalog, Problem, State};
use crate::plugins::plugin::Plugin;
use atelier_sdk::describe::{EngineTaskDescription, TaskDescription};
use atelier_sdk::model::ModelItem;
use atelier_sdk::{
    EngineReg, Error, ErrorKind, Keyed, ModelReg, ModelSpec, Registry, Result, SamplerReg, ScheduleReg,
    TaskReg, task,
};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// Origin of models named by a path.
pub const LOCAL: &str = "path";
/// What a folder without a description is taken for; its engine looks closer when it loads it.
const LOCAL_ARCHITECTURE: &str = "sd";

/// The registries.
#[derive(Debug)]
pub struct Registries {
    /// What can be asked for.
    pub tasks: Registry<TaskItem>,
    /// What performs tasks.
    pub engines: Registry<EngineItem>,
    /// What integrates.
    pub samplers: Registry<SamplerItem>,
    /// What chooses noise levels.
    pub schedules: Registry<ScheduleItem>,
    /// What can be loaded.
    pub models: Registry<ModelItem>,
    /// The config folders, for what is named there.
    pub paths: Paths,
    /// Where files are that requests mean by name.
    pub files: Folders,
    /// The libraries that are in use.
    pub plugins: Vec<Arc<Plugin>>,
    /// The libraries that are not, and why.
    pub problems: Vec<Problem>,
}

impl Registries {
    /// Collects the plugins that are linked in, the model descriptions of the config folders, and what the
    /// libraries of the catalog bring.
    ///
    /// # Errors
    /// Two linked-in plugins under one key, or a model description that cannot be read. A library is never the
    /// cause of a failure here: what it cannot add becomes a problem to be listed.
    pub fn discover(paths: &Paths, catalog: Catalog, overrides: &BTreeMap<String, String>) -> Result<Self> {
        let mut all = Self {
            tasks: Registry::new("task", inventory::iter::<TaskReg>.into_iter().map(Into::into))?,
            engines: Registry::new("engine", inventory::iter::<EngineReg>.into_iter().map(Into::into))?,
            samplers: Registry::new("sampler", inventory::iter::<SamplerReg>.into_iter().map(Part::linked))?,
            schedules: Registry::new(
                "schedule",
                inventory::iter::<ScheduleReg>.into_iter().map(Part::linked),
            )?,
            models: Registry::new("model", models(paths)?)?,
            paths: paths.clone(),
            files: Folders::default(),
            plugins: Vec::new(),
            problems: catalog.problems,
        };
        for plugin in catalog.plugins {
            all.add(plugin);
        }
        all.samplers.set_overrides(overrides);
        all.schedules.set_overrides(overrides);
        all.engines.set_overrides(overrides);
        Ok(all)
    }

    /// Adds what a library brings.
    fn add(&mut self, plugin: Arc<Plugin>) {
        let d = plugin.description.clone();
        let mut failed = Vec::new();
        let mut note = |r: Result<()>| failed.extend(r.err());
        for about in d.tasks {
            // A task that has a name already is that task.
            if self.tasks.find(&about.key).is_none() {
                note(self.tasks.insert(TaskItem { about, origin: Origin::Library(plugin.clone()) }));
            }
        }
        d.engines.into_iter().for_each(|e| note(self.engines.insert(EngineItem::of(&plugin, e))));
        d.samplers.into_iter().for_each(|s| note(self.samplers.insert(SamplerItem::of(&plugin, s))));
        d.schedules.into_iter().for_each(|s| note(self.schedules.insert(ScheduleItem::of(&plugin, s))));
        let origin = plugin.file.display().to_string();
        for spec in d.models {
            note(self.models.insert(ModelItem { spec, origin: origin.clone() }));
        }
        let problem = |error| Problem {
            plugin: plugin.name.clone(),
            file: plugin.file.clone(),
            state: State::Refused,
            provides: Vec::new(),
            named: false,
            error,
        };
        self.problems.extend(failed.into_iter().map(problem));
        self.plugins.push(plugin);
    }

    /// Checks that what the settings put in the place of `name` is there.
    ///
    /// # Errors
    /// It is not.
    pub fn check_override(&self, name: &str, overrides: &BTreeMap<String, String>) -> Result<()> {
        for (from, to) in overrides.iter().filter(|(from, _)| from.eq_ignore_ascii_case(name)) {
            let there = self.samplers.find(to).is_some()
                || self.schedules.find(to).is_some()
                || self.engines.find(to).is_some();
            if !there {
                let e = Error::invalid(format!("`{from}` is to mean `{to}`, which is not there"));
                return Err(self
                    .explain("plugin", to, e)
                    .hint("`plugins: {override: ...}` in atelier.yaml says so"));
            }
        }
        Ok(())
    }

    /// Adds to the error for an unknown name what a library that is not in use has to do with it.
    pub fn explain(&self, kind: &str, key: &str, e: Error) -> Error {
        let bare = key.rsplit('/').next().unwrap_or(key);
        let brings =
            |p: &&Problem| p.provides.iter().any(|(k, name)| k == kind && name.eq_ignore_ascii_case(bare));
        if let Some(p) = self.problems.iter().find(brings) {
            let e = e.hint(format!("plugin `{}` has it, but is not in use: {}", p.plugin, p.error.message()));
            return p.error.hints().iter().fold(e, |e, hint| e.hint(hint));
        }
        match self.problems.len() {
            0 => e,
            n => e.hint(format!("{n} plugin(s) are not in use: `atelier plugins list --failed` says why")),
        }
    }

    /// Makes a model known that is named by the path of its folder or file: `./my-model`, `./my-model.safetensors`.
    ///
    /// Its key is the last name of the path, without a file's extension. Names without a path separator are keys and
    /// are left alone.
    ///
    /// # Errors
    /// There is no such folder or file, or its name cannot be made a key.
    pub fn adopt_model(&mut self, name: &str) -> Result<String> {
        if !name.contains(['/', std::path::MAIN_SEPARATOR]) {
            return Ok(name.to_string());
        }
        let path =
            Path::new(name).canonicalize().map_err(|e| Error::io(format!("cannot open model {name}"), e))?;
        let last = if path.is_file() { path.file_stem() } else { path.file_name() };
        let last = last.map(|n| n.to_string_lossy().to_lowercase()).unwrap_or_default();
        let plain = |c: char| if c.is_ascii_alphanumeric() || "_-.".contains(c) { c } else { '-' };
        let mut key: String =
            last.chars().map(plain).skip_while(|c| !c.is_ascii_lowercase()).take(48).collect();
        if key.is_empty() {
            key = "model".into();
        }
        while self.models.find(&key).is_some() {
            key.push('-');
        }
        let spec = ModelSpec {
            schema_version: 1,
            key: key.clone(),
            title: format!("The {} {name}", if path.is_file() { "file" } else { "folder" }),
            architecture: LOCAL_ARCHITECTURE.into(),
            path: Some(path),
            parts: Default::default(),
            prediction_type: None,
            license: "unknown".into(),
            source: String::new(),
            defaults: Default::default(),
            sha256: Default::default(),
            files: Vec::new(),
            terms: None,
        };
        self.models.insert(ModelItem { spec, origin: LOCAL.into() })?;
        Ok(key)
    }

    /// One task of one engine.
    ///
    /// # Errors
    /// The engine or task is unknown or not compiled in, or the engine does not perform the task.
    pub fn engine_task(&self, engine: &str, task: &str) -> Result<(&EngineItem, &EngineTaskDescription)> {
        let reg = self.engine(engine).map_err(|e| self.name_engines(e, task))?;
        if let Some(found) = reg.about.tasks.iter().find(|t| t.task.key == task) {
            return Ok((reg, found));
        }
        if let Some(e) = builtin::not_compiled_in("task", task) {
            return Err(e);
        }
        let mut can: Vec<_> = reg.about.tasks.iter().map(|t| t.task.key.as_str()).collect();
        can.sort_unstable();
        let known = self.task_infos().iter().any(|t| t.key == task);
        if !known {
            return Err(self.unknown_task(task));
        }
        let err = Error::new(
            ErrorKind::Unsupported,
            format!("engine `{engine}` does not perform task `{task}` in this build"),
        )
        .hint(format!("it performs: {}", can.join(", ")));
        Err(self.name_engines(err, task))
    }

    /// An engine.
    ///
    /// # Errors
    /// Unknown or not compiled in.
    pub fn engine(&self, name: &str) -> Result<&EngineItem> {
        self.get(&self.engines, name)
    }

    /// A sampler.
    ///
    /// # Errors
    /// Unknown or not compiled in.
    pub fn sampler(&self, name: &str) -> Result<&SamplerItem> {
        self.get(&self.samplers, name)
    }

    /// A schedule.
    ///
    /// # Errors
    /// Unknown or not compiled in.
    pub fn schedule(&self, name: &str) -> Result<&ScheduleItem> {
        self.get(&self.schedules, name)
    }

    /// A model.
    ///
    /// # Errors
    /// Unknown.
    pub fn model(&self, name: &str) -> Result<&ModelItem> {
        self.get(&self.models, name)
    }

    /// Like [`Registry::get`], but says so when the thing exists and was left out of this build, or is in a library
    /// that is not in use.
    fn get<'a, T: Keyed>(&self, registry: &'a Registry<T>, name: &str) -> Result<&'a T> {
        let kind = registry.kind();
        registry
            .get(name)
            .map_err(|e| builtin::not_compiled_in(kind, name).unwrap_or_else(|| self.explain(kind, name, e)))
    }

    /// The engine for a task when a request names none.
    ///
    /// # Errors
    /// No engine performs it, or more than one does.
    pub fn only_engine_for(&self, task: &str) -> Result<&EngineItem> {
        let able: Vec<_> = self.engines_for(task);
        let linked: Vec<_> = able.iter().filter(|e| e.origin.plugin().is_none()).collect();
        match able.as_slice() {
            [one] => Ok(one),
            // As with bare names: a library that comes along changes nothing.
            _ if linked.len() == 1 => Ok(linked[0]),
            [] => Err(builtin::not_compiled_in("task", task).unwrap_or_else(|| {
                if self.task_infos().iter().any(|t| t.key == task) {
                    self.name_engines(no_engine(task), task)
                } else {
                    self.unknown_task(task)
                }
            })),
            many => {
                let keys: Vec<_> = many.iter().map(|e| self.engines.name_of(e)).collect();
                Err(Error::invalid(format!("several engines perform task `{task}`"))
                    .hint(format!("name one with `engine:` or `--engine`: {}", keys.join(", "))))
            }
        }
    }

    /// Every task that has a name, whether or not an engine for it is present.
    pub fn task_infos(&self) -> Vec<TaskDescription> {
        let mut out: Vec<TaskDescription> = task::STANDARD.iter().map(Into::into).collect();
        for t in &self.tasks {
            if !out.iter().any(|o| o.key == t.about.key) {
                out.push(t.about.clone());
            }
        }
        out.sort_by(|a, b| a.key.cmp(&b.key));
        out
    }

    /// The engines that perform a task.
    pub fn engines_for(&self, task: &str) -> Vec<&EngineItem> {
        self.engines.iter().filter(|e| e.about.tasks.iter().any(|t| t.task.key == task)).collect()
    }

    /// Adds which engines perform the task, which is what a person needs next.
    fn name_engines(&self, err: Error, task: &str) -> Error {
        let able: Vec<_> = self.engines_for(task).iter().map(|e| self.engines.name_of(e)).collect();
        if able.is_empty() {
            return err.hint(format!("no engine of this build performs `{task}`"));
        }
        err.hint(format!("engines that perform `{task}`: {}", able.join(", ")))
    }

    fn unknown_task(&self, task: &str) -> Error {
        let infos = self.task_infos();
        let keys: Vec<_> = infos.iter().map(|t| t.key.as_str()).collect();
        let err = Error::new(ErrorKind::NotFound, format!("there is no task named `{task}`"));
        let err = match atelier_sdk::registry::nearest(task, keys.iter().copied()) {
            Some(near) => err.hint(format!("did you mean `{near}`?")),
            None => err,
        };
        self.explain("task", task, err.hint(format!("there are: {}", keys.join(", "))))
    }
}

fn no_engine(task: &str) -> Error {
    Error::new(ErrorKind::Unsupported, format!("no engine performs task `{task}` in this build"))
}

fn models(paths: &Paths) -> Result<Vec<ModelItem>> {
    let mut out: Vec<ModelItem> = Vec::new();
    for (_, file) in paths.yaml_files("models") {
        out.push(manifest::read(&file)?);
    }
    for reg in inventory::iter::<ModelReg> {
        let spec = (reg.spec)();
        // A file describes a model more precisely than the plugin that merely knows its name.
        if !out.iter().any(|m| m.spec.key == spec.key) {
            out.push(ModelItem { spec, origin: reg.origin.to_string() });
        }
    }
    Ok(out)
}
