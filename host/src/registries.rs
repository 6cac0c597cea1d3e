//! Everything that was found: one registry for each kind of plugin.

use crate::builtin;
use crate::manifest;
use crate::paths::Paths;
use atelier_sdk::model::ModelItem;
use atelier_sdk::{
    EngineReg, EngineTask, Error, ErrorKind, Keyed, ModelReg, ModelSpec, Registry, Result, SamplerReg,
    ScheduleReg, TaskInfo, TaskReg, task,
};
use std::path::Path;

/// Origin of models named by a path.
pub const LOCAL: &str = "path";
/// What a folder without a description is taken for; its engine looks closer when it loads it.
const LOCAL_ARCHITECTURE: &str = "sd";

/// The registries.
#[derive(Debug)]
pub struct Registries {
    /// What can be asked for.
    pub tasks: Registry<TaskReg>,
    /// What performs tasks.
    pub engines: Registry<EngineReg>,
    /// What integrates.
    pub samplers: Registry<SamplerReg>,
    /// What chooses noise levels.
    pub schedules: Registry<ScheduleReg>,
    /// What can be loaded.
    pub models: Registry<ModelItem>,
}

impl Registries {
    /// Collects the plugins that are linked in and the model descriptions of the config folders.
    ///
    /// # Errors
    /// Two plugins under one key, or a model description that cannot be read.
    pub fn discover(paths: &Paths) -> Result<Self> {
        Ok(Self {
            tasks: Registry::new("task", inventory::iter::<TaskReg>.into_iter().copied())?,
            engines: Registry::new("engine", inventory::iter::<EngineReg>.into_iter().copied())?,
            samplers: Registry::new("sampler", inventory::iter::<SamplerReg>.into_iter().copied())?,
            schedules: Registry::new("schedule", inventory::iter::<ScheduleReg>.into_iter().copied())?,
            models: Registry::new("model", models(paths)?)?,
        })
    }

    /// Makes a model known that is named by the path of its folder: `./my-model`.
    ///
    /// Its key is the folder's name. Names without a path separator are keys and are left alone.
    ///
    /// # Errors
    /// There is no such folder, or its name cannot be made a key.
    pub fn adopt_model(&mut self, name: &str) -> Result<String> {
        if !name.contains(['/', std::path::MAIN_SEPARATOR]) {
            return Ok(name.to_string());
        }
        let path =
            Path::new(name).canonicalize().map_err(|e| Error::io(format!("cannot open model {name}"), e))?;
        let folder = path.file_name().map(|n| n.to_string_lossy().to_lowercase()).unwrap_or_default();
        let plain = |c: char| if c.is_ascii_alphanumeric() || "_-.".contains(c) { c } else { '-' };
        let mut key: String =
            folder.chars().map(plain).skip_while(|c| !c.is_ascii_lowercase()).take(48).collect();
        if key.is_empty() {
            key = "model".into();
        }
        while self.models.find(&key).is_some() {
            key.push('-');
        }
        let spec = ModelSpec {
            schema_version: 1,
            key: key.clone(),
            title: format!("The folder {name}"),
            architecture: LOCAL_ARCHITECTURE.into(),
            path: Some(path),
            license: "unknown".into(),
            source: String::new(),
            defaults: Default::default(),
            sha256: Default::default(),
        };
        self.models.insert(ModelItem { spec, origin: LOCAL.into() })?;
        Ok(key)
    }

    /// One task of one engine.
    ///
    /// # Errors
    /// The engine or task is unknown or not compiled in, or the engine does not perform the task.
    pub fn engine_task(&self, engine: &str, task: &str) -> Result<(&EngineReg, &EngineTask)> {
        let reg = find(&self.engines, "engine", engine).map_err(|e| self.name_engines(e, task))?;
        if let Some(found) = reg.tasks.iter().find(|t| t.task.key == task) {
            return Ok((reg, found));
        }
        if let Some(e) = builtin::not_compiled_in("task", task) {
            return Err(e);
        }
        let mut can: Vec<_> = reg.tasks.iter().map(|t| t.task.key).collect();
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

    /// The engine for a task when a request names none.
    ///
    /// # Errors
    /// No engine performs it, or more than one does.
    pub fn only_engine_for(&self, task: &str) -> Result<&EngineReg> {
        let able: Vec<_> = self.engines_for(task);
        match able.as_slice() {
            [one] => Ok(one),
            [] => Err(builtin::not_compiled_in("task", task).unwrap_or_else(|| {
                if self.task_infos().iter().any(|t| t.key == task) {
                    self.name_engines(no_engine(task), task)
                } else {
                    self.unknown_task(task)
                }
            })),
            many => {
                let keys: Vec<_> = many.iter().map(|e| e.info.key).collect();
                Err(Error::invalid(format!("several engines perform task `{task}`"))
                    .hint(format!("name one with `engine:` or `--engine`: {}", keys.join(", "))))
            }
        }
    }

    /// Every task that has a name, whether or not an engine for it is present.
    pub fn task_infos(&self) -> Vec<TaskInfo> {
        let mut out: Vec<TaskInfo> = task::STANDARD.to_vec();
        for t in &self.tasks {
            if !out.iter().any(|o| o.key == t.info.key) {
                out.push(*t.info);
            }
        }
        out.sort_by_key(|t| t.key);
        out
    }

    /// The engines that perform a task.
    pub fn engines_for(&self, task: &str) -> Vec<&EngineReg> {
        self.engines.iter().filter(|e| e.tasks.iter().any(|t| t.task.key == task)).collect()
    }

    /// Adds which engines perform the task, which is what a person needs next.
    fn name_engines(&self, err: Error, task: &str) -> Error {
        let able: Vec<_> = self.engines_for(task).iter().map(|e| e.info.key).collect();
        if able.is_empty() {
            return err.hint(format!("no engine of this build performs `{task}`"));
        }
        err.hint(format!("engines that perform `{task}`: {}", able.join(", ")))
    }

    fn unknown_task(&self, task: &str) -> Error {
        let infos = self.task_infos();
        let keys: Vec<_> = infos.iter().map(|t| t.key).collect();
        let err = Error::new(ErrorKind::NotFound, format!("there is no task named `{task}`"));
        let err = match atelier_sdk::registry::nearest(task, keys.iter().copied()) {
            Some(near) => err.hint(format!("did you mean `{near}`?")),
            None => err,
        };
        err.hint(format!("there are: {}", keys.join(", ")))
    }
}

fn no_engine(task: &str) -> Error {
    Error::new(ErrorKind::Unsupported, format!("no engine performs task `{task}` in this build"))
}

/// Like [`Registry::get`], but says so when the thing exists and was left out of this build.
///
/// # Errors
/// Unknown or not compiled in.
pub fn find<'a, T: Keyed>(registry: &'a Registry<T>, kind: &str, key: &str) -> Result<&'a T> {
    registry.get(key).map_err(|e| builtin::not_compiled_in(kind, key).unwrap_or(e))
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
